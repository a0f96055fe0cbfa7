/*
 * A server for the tests of TLS with peers that others wrote: echoes, behind
 * wss:// or tls:// (raw bytes), and serves a page with rtnet.js over https.
 * Prints "listening on PORT", then a line for whatever happens: "open", "end
 * code=N cause=N reason=TEXT", and "reloaded" or "kept: TEXT" when SIGHUP made
 * it read its files again.  The message "close" is answered with a close,
 * "drop" with a connection that is lost.
 *
 * Whoever names the host "other.example" sees the certificate --other, and who
 * names "refused.example" sees none.
 */
#include "bench/options.h"
#include "rtnet.h"

#include <signal.h>

enum { FILE_MAX = 65536 };

typedef struct {
    const char *scheme, *cert, *key, *other_cert, *other_key, *ca, *backend,
        *origins;
    long handshake_ms, max_handshakes, resume, max_message;
    rt_listener listener;
    rt_tls_cert other;
    rt_tls_opts tls;
    char script[FILE_MAX];
    size_t script_len;
} server;

static rt_loop *loop; /* for the signal handlers */

/* ---- what is told ------------------------------------------------------- */

static int reply(rt_loop *l, rt_session s, const char *type, const char *body,
                 size_t len)
{
    return rt_reply(l, s, 200, type, body, len);
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    static const char page[] = "<!doctype html><title>secure</title>\n";
    const server *it = rt_context(l, s);
    char numbers[32768];
    if (r->upgrade)
        return 0;
    if (!strcmp(r->path, "/ws"))
        return 426;
    if (!strcmp(r->path, "/"))
        return reply(l, s, "text/html", page, sizeof page - 1);
    if (!strcmp(r->path, "/rtnet.js"))
        return reply(l, s, "text/javascript", it->script, it->script_len);
    if (!strcmp(r->path, "/metrics"))
        return reply(l, s, "text/plain; version=0.0.4", numbers,
                     rt_metrics(l, numbers, sizeof numbers));
    return 404;
}

static void on_open(rt_loop *l, rt_session s)
{
    (void)l, (void)s;
    printf("open\n");
}

static int says(const char *word, const void *data, size_t len)
{
    return len == strlen(word) && !memcmp(word, data, len);
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (says("close", data, len))
        rt_close(l, s, 1000, "as you wish");
    else if (says("drop", data, len))
        rt_drop(l, s, 1001, "as you wish");
    else if (rt_send(l, s, kind, data, len) == 1)
        rt_read(l, s, 0);
}

static void on_writable(rt_loop *l, rt_session s)
{
    rt_read(l, s, 1);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l, (void)s;
    printf("end code=%d cause=%d reason=%s\n", why->code, why->cause,
           why->reason);
}

static void on_log(void *user, int level, const char *text)
{
    (void)user;
    fprintf(stderr, "log %d: %s\n", level, text);
}

/* ---- start and stop ----------------------------------------------------- */

static int sni(void *user, const char *host)
{
    const server *it = user;
    if (!strcmp(host, "refused.example"))
        return -1;
    return it->other_cert && !strcmp(host, "other.example");
}

static void reload(rt_loop *l, void *arg)
{
    const server *it = arg;
    const char *why = "";
    if (rt_tls_reload(l, it->listener, &it->tls) == 0) {
        printf("reloaded\n");
        return;
    }
    rt_error(l, &why);
    printf("kept: %s\n", why);
}

static void on_signal(int number)
{
    signal(number, on_signal); /* where it is good for once */
    if (number == SIGHUP)
        rt_post(loop, reload, rt_loop_user(loop));
    else
        rt_stop(loop);
}

static int load(server *it)
{
    FILE *f = fopen("examples/rtnet.js", "rb");
    if (!f)
        return -1;
    it->script_len = fread(it->script, 1, sizeof it->script, f);
    fclose(f);
    return 0;
}

static int listen_on(server *it)
{
    const rt_listen_opts o = {.on = {.request = on_request,
                                     .open = on_open,
                                     .message = on_message,
                                     .writable = on_writable,
                                     .close = on_close},
                              .user = it,
                              .origins = it->origins,
                              .framing = strcmp(it->scheme, "tls") ? 0 : RT_RAW,
                              .resume_ms = (int)it->resume,
                              .max_message = (int)it->max_message,
                              .handshake_ms = (int)it->handshake_ms,
                              .max_handshakes = (int)it->max_handshakes,
                              .tls = &it->tls};
    const char *why = "";
    char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:0", it->scheme);
    it->listener = rt_listen(loop, url, &o);
    if (it->listener.id)
        return 0;
    rt_error(loop, &why);
    fprintf(stderr, "secure: %s\n", why);
    return -1;
}

static int serve(server *it)
{
    const rt_loop_opts o = {
        .user = it,
        .log = on_log,
        .backend = strcmp(it->backend, "select") ? RT_AUTO : RT_SELECT};
    it->other = (rt_tls_cert){it->other_cert, it->other_key};
    it->tls = (rt_tls_opts){.cert = it->cert,
                            .key = it->key,
                            .others = &it->other,
                            .other_count = it->other_cert != NULL,
                            .sni = sni,
                            .ca = it->ca};
    loop = rt_loop_new(&o);
    if (!loop || listen_on(it) < 0)
        return -1;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGHUP, on_signal);
    printf("listening on %d\n", rt_listener_port(loop, it->listener));
    return rt_run(loop);
}

int main(int argc, char **argv)
{
    static server it = {
        .scheme = "wss", .backend = "auto", .max_message = 1 << 20};
    const option table[] = {
        {"scheme", OPTION_TEXT, &it.scheme, 0, 0, "wss or tls (wss)"},
        {"cert", OPTION_TEXT, &it.cert, 0, 0, "a PEM file"},
        {"key", OPTION_TEXT, &it.key, 0, 0, "a PEM file"},
        {"other-cert", OPTION_TEXT, &it.other_cert, 0, 0, "of other.example"},
        {"other-key", OPTION_TEXT, &it.other_key, 0, 0, "of other.example"},
        {"ca", OPTION_TEXT, &it.ca, 0, 0, "whose clients alone are let in"},
        {"origins", OPTION_TEXT, &it.origins, 0, 0, "as rt_listen_opts"},
        {"backend", OPTION_TEXT, &it.backend, 0, 0, "auto or select (auto)"},
        {"handshake-ms", OPTION_INT, &it.handshake_ms, 0, 1e9, "deadline"},
        {"max-handshakes", OPTION_INT, &it.max_handshakes, 0, 1e9, "at once"},
        {"max-message", OPTION_INT, &it.max_message, 0, 1e9, "bytes (1M)"},
        {"resume", OPTION_INT, &it.resume, 0, 1e9, "ms away (off)"},
    };
    const option_set set = {"secure", "secure --cert FILE --key FILE [options]",
                            table, sizeof table / sizeof *table, NULL};
    int end;
    options_parse(&set, argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (load(&it) < 0)
        options_fail(&set, "no examples/rtnet.js: start it at the top");
    end = serve(&it);
    rt_loop_free(loop);
    return end != 0;
}
