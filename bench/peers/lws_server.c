/*
 * libwebsockets on the work of make bench-peers: lws_server echo|fanout
 * [--port N] [--congestion NAME].  Written as its documentation advises: a
 * message is framed by lws_write, one for each writable callback; those of a
 * fan-out share their payload.
 */
#define _GNU_SOURCE
#include "../options.h"
#include <libwebsockets.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

typedef struct {
    size_t references, len;
    int binary;
    unsigned char data[]; /* LWS_PRE bytes, then the payload */
} message;

typedef struct item {
    struct item *next;
    message *what;
} item;

/* What libwebsockets keeps for each connection; zeroed by it. */
typedef struct session {
    struct session *prev, *next;
    struct lws *wsi;
    item *first, **end;
    message *in; /* what has come of an incomplete message */
} session;

static int fanning;
static const char *congestion;
static session *sessions;

static void *need(void *p)
{
    if (!p) {
        perror("lws_server");
        exit(1);
    }
    return p;
}

static void message_release(message *m)
{
    if (--m->references == 0)
        free(m);
}

static void session_push(session *s, message *m)
{
    item *i = need(malloc(sizeof *i));
    i->next = NULL;
    i->what = m;
    m->references++;
    *s->end = i;
    s->end = &i->next;
    lws_callback_on_writable(s->wsi);
}

static void session_pop(session *s)
{
    item *i = s->first;
    s->first = i->next;
    if (!s->first)
        s->end = &s->first;
    message_release(i->what);
    free(i);
}

static void session_open(session *s, struct lws *wsi)
{
    s->wsi = wsi;
    s->end = &s->first;
    s->next = sessions;
    if (sessions)
        sessions->prev = s;
    sessions = s;
}

static void session_close(session *s)
{
    while (s->first)
        session_pop(s);
    free(s->in);
    if (s->next)
        s->next->prev = s->prev;
    if (s->prev)
        s->prev->next = s->next;
    else
        sessions = s->next;
}

static int session_write(session *s)
{
    message *m = s->first ? s->first->what : NULL;
    if (!m)
        return 0;
    if (lws_write(s->wsi, m->data + LWS_PRE, m->len,
                  m->binary ? LWS_WRITE_BINARY : LWS_WRITE_TEXT) < 0)
        return -1;
    session_pop(s);
    if (s->first)
        lws_callback_on_writable(s->wsi);
    return 0;
}

static void session_take(session *s, const void *data, size_t len)
{
    size_t before = s->in ? s->in->len : 0;
    message *m;
    s->in = need(realloc(s->in, sizeof *s->in + LWS_PRE + before + len));
    m = s->in;
    memcpy(m->data + LWS_PRE + before, data, len);
    m->len = before + len;
    if (lws_remaining_packet_payload(s->wsi) > 0 ||
        !lws_is_final_fragment(s->wsi))
        return;
    s->in = NULL;
    m->references = 1;
    m->binary = lws_frame_is_binary(s->wsi);
    if (!fanning)
        session_push(s, m);
    else
        for (session *to = sessions; to; to = to->next)
            session_push(to, m);
    message_release(m);
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason,
                    void *user, void *in, size_t len)
{
    switch ((int)reason) {
    case LWS_CALLBACK_ESTABLISHED:
        session_open(user, wsi);
        break;
    case LWS_CALLBACK_CLOSED:
        session_close(user);
        break;
    case LWS_CALLBACK_RECEIVE:
        session_take(user, in, len);
        break;
    case LWS_CALLBACK_SERVER_WRITEABLE:
        return session_write(user);
    case LWS_CALLBACK_FILTER_NETWORK_CONNECTION:
        if (congestion)
            return setsockopt((int)(intptr_t)in, IPPROTO_TCP, TCP_CONGESTION,
                              congestion, (socklen_t)strlen(congestion));
        break;
    }
    return 0;
}

static void raise_limit(void)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv)
{
    static const struct lws_protocols protocols[] = {
        {"all", on_event, sizeof(session), 65536, 0, NULL, 0},
        {NULL, NULL, 0, 0, 0, NULL, 0}};
    struct lws_context_creation_info info = {0};
    struct lws_context *context;
    const char *mode = NULL;
    long port = 9003;
    const option table[] = {
        {"port", OPTION_INT, &port, 1, 65535, "(9003)"},
        {"congestion", OPTION_TEXT, &congestion, 0, 0,
         "congestion control of TCP, as cubic (the system's)"},
    };
    option_set set = {"lws_server", "lws_server echo|fanout [options]", table,
                      2, &mode};
    options_parse(&set, argc, argv);
    fanning = mode && strcmp(mode, "fanout") == 0;
    if (!fanning && (!mode || strcmp(mode, "echo") != 0))
        options_fail(&set, "which mode: echo or fanout?");
    raise_limit();
    lws_set_log_level(LLL_ERR, NULL);
    info.port = (int)port;
    info.iface = "127.0.0.1";
    info.protocols = protocols;
    info.options = LWS_SERVER_OPTION_DISABLE_IPV6;
    context = need(lws_create_context(&info));
    printf("listening on %ld\n", port);
    fflush(stdout);
    while (lws_service(context, 0) >= 0)
        continue;
    lws_context_destroy(context);
    return 1;
}
