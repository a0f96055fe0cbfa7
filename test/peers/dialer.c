/*
 * A client for the tests with servers that others wrote: dials a URL, sends
 * messages and checks their echoes, or is the echo itself (--echo), and prints
 * a line for whatever happens.  Exit code 0: every session opened, got all its
 * echoes right and ended; 1: not so; 2: wrong use; 3: out of time.
 *
 * Lines: "open protocol=P", "rtt us=N", "echoes right=N wrong=N of=N" and
 * "end code=N cause=N lost=N reason=TEXT".
 */
#include "rtnet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SESSIONS = 1000, LINGER_MS = 50, RTT_MS = 10 };

typedef struct dialer dialer;

typedef struct {
    dialer *all;
    rt_session s;
    int opened, sent, right, wrong;
    uint32_t rtt_us;
} peer;

/* What the flags say; the numbers and texts have a table below. */
typedef struct {
    int messages, size, text, window, sessions, echo, wait, limit_ms, backend;
    int code, ping_ms, handshake_ms, connect_ms, max_message;
    const char *url, *reason, *protocols, *headers;
    rt_tls_opts tls; /* for wss and tls */
} plan;

struct dialer {
    plan plan;
    rt_loop *loop;
    char *want; /* room for one message */
    int live, late;
    peer peers[MAX_SESSIONS];
};

/* Message number i: a shift, a swap or a cut of it is a difference. */
static void fill(const plan *p, int i, char *out)
{
    for (int j = 0; j < p->size; j++) {
        int n = i * 7 + j * 31 + (j >> 8);
        out[j] = (char)(p->text ? 'a' + n % 26 : n & 0xff);
    }
}

static int kind_of(const plan *p)
{
    return p->text ? RT_TEXT : RT_BINARY;
}

static void send_more(rt_loop *l, peer *me)
{
    dialer *d = me->all;
    const plan *p = &d->plan;
    while (me->sent < p->messages &&
           me->sent - me->right - me->wrong < p->window) {
        fill(p, me->sent++, d->want);
        int e = rt_send(l, me->s, kind_of(p), d->want, (size_t)p->size);
        if (e < 0) {
            printf("send: %s\n", rt_strerror(e));
            me->wrong++;
        }
    }
}

static void close_when_done(rt_loop *l, peer *me)
{
    const plan *p = &me->all->plan;
    if (p->wait || me->right + me->wrong < p->messages)
        return;
    int e = rt_close(l, me->s, p->code, p->reason);
    if (e < 0)
        printf("close: %s\n", rt_strerror(e));
}

/* Nobody calls when a pong came: asks now and again until the session ends. */
static void ask_rtt(rt_loop *l, void *arg)
{
    peer *me = arg;
    rt_rtt(l, me->s, &me->rtt_us, NULL);
    rt_timer_start(l, me->s, rt_now(l) + RTT_MS, ask_rtt, me);
}

static void on_open(rt_loop *l, rt_session s)
{
    peer *me = rt_context(l, s);
    const rt_request *r = rt_request_of(l, s); /* a stream has none */
    const char *protocol = r ? rt_header(r, "sec-websocket-protocol") : NULL;
    me->opened++;
    printf("open protocol=%s\n", protocol ? protocol : "");
    if (me->all->plan.ping_ms)
        ask_rtt(l, me);
    send_more(l, me);
    close_when_done(l, me);
}

/* RT_EFULL and the like show in the counts: the other side misses one. */
static void echo(rt_loop *l, peer *me, int kind, const void *data, size_t len)
{
    if (rt_send(l, me->s, kind, data, len) >= 0)
        me->right++;
    else
        me->wrong++;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    peer *me = rt_context(l, s);
    dialer *d = me->all;
    if (d->plan.echo) {
        echo(l, me, kind, data, len);
        return;
    }
    fill(&d->plan, me->right + me->wrong, d->want);
    if (kind == kind_of(&d->plan) && len == (size_t)d->plan.size &&
        me->right + me->wrong < me->sent && !memcmp(data, d->want, len))
        me->right++;
    else
        me->wrong++;
    send_more(l, me);
    close_when_done(l, me);
}

static void leave(rt_loop *l, void *arg)
{
    (void)arg;
    rt_stop(l);
}

/* The last one stays a moment, so that the closing handshake can end. */
static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    const rt_session nobody = {0};
    peer *me = rt_context(l, s);
    dialer *d = me->all;
    if (me->rtt_us)
        printf("rtt us=%u\n", (unsigned)me->rtt_us);
    printf("echoes right=%d wrong=%d of=%d\n", me->right, me->wrong,
           d->plan.messages);
    printf("end code=%d cause=%d lost=%llu reason=%s\n", why->code, why->cause,
           (unsigned long long)why->lost, why->reason);
    if (--d->live == 0)
        rt_timer_start(l, nobody, rt_now(l) + LINGER_MS, leave, NULL);
}

static void out_of_time(rt_loop *l, void *arg)
{
    dialer *d = arg;
    d->late = 1;
    printf("out of time\n");
    rt_stop(l);
}

static int is_secure(const char *url)
{
    return !strncmp(url, "wss://", 6) || !strncmp(url, "tls://", 6);
}

static int dial(dialer *d, peer *me)
{
    const plan *p = &d->plan;
    rt_dial_opts o = {
        .on = {.open = on_open, .message = on_message, .close = on_close},
        .user = me,
        .protocols = p->protocols,
        .headers = p->headers,
        .max_message = p->max_message,
        .connect_ms = p->connect_ms,
        .handshake_ms = p->handshake_ms,
        .ping_ms = p->ping_ms,
        .tls = is_secure(p->url) ? &p->tls : NULL,
    };
    const char *why = "";
    me->all = d;
    me->s = rt_dial(d->loop, p->url, &o);
    if (me->s.id) {
        d->live++;
        return 0;
    }
    int e = rt_error(d->loop, &why);
    printf("dial error=%d: %s\n", e, why);
    return -1;
}

static int dial_all(dialer *d)
{
    for (int i = 0; i < d->plan.sessions; i++) {
        if (dial(d, &d->peers[i]) < 0)
            return -1;
    }
    return 0;
}

static int all_well(const dialer *d)
{
    for (int i = 0; i < d->plan.sessions; i++) {
        const peer *p = &d->peers[i];
        if (!p->opened || p->wrong)
            return 0;
        if (!d->plan.echo && p->right != d->plan.messages)
            return 0;
    }
    return 1;
}

static int run(dialer *d)
{
    rt_loop_opts o = {.backend = d->plan.backend};
    const rt_session nobody = {0};
    d->loop = rt_loop_new(&o);
    d->want = malloc((size_t)d->plan.size + 1);
    if (!d->loop || !d->want || dial_all(d) < 0)
        return 1;
    rt_timer_start(d->loop, nobody,
                   rt_now(d->loop) + (uint64_t)d->plan.limit_ms, out_of_time,
                   d);
    if (rt_run(d->loop) < 0)
        return 1;
    if (d->late)
        return 3;
    return all_well(d) ? 0 : 1;
}

/* ---- the flags --------------------------------------------------------- */

typedef struct {
    const char *name;
    int *number; /* NULL: a text */
    const char **text;
} flag;

static int set_flag(const flag *f, const char *value)
{
    char *end;
    if (!f->number) {
        *f->text = value;
        return 0;
    }
    if (!strcmp(value, "epoll") || !strcmp(value, "select")) {
        *f->number = value[0] == 'e' ? RT_EPOLL : RT_SELECT;
        return 0;
    }
    *f->number = (int)strtol(value, &end, 10);
    return *value && !*end ? 0 : -1;
}

static int find_flag(const flag *all, const char *name, const char *value)
{
    for (; all->name; all++) {
        if (!strcmp(all->name, name))
            return value ? set_flag(all, value) : -1;
    }
    return -1;
}

static int read_flags(plan *p, int argc, char **argv)
{
    const flag all[] = {
        {"--messages", &p->messages, NULL},
        {"--size", &p->size, NULL},
        {"--text", &p->text, NULL},
        {"--window", &p->window, NULL},
        {"--sessions", &p->sessions, NULL},
        {"--echo", &p->echo, NULL},
        {"--wait", &p->wait, NULL},
        {"--limit-ms", &p->limit_ms, NULL},
        {"--backend", &p->backend, NULL},
        {"--code", &p->code, NULL},
        {"--ping-ms", &p->ping_ms, NULL},
        {"--handshake-ms", &p->handshake_ms, NULL},
        {"--connect-ms", &p->connect_ms, NULL},
        {"--max-message", &p->max_message, NULL},
        {"--reason", NULL, &p->reason},
        {"--protocols", NULL, &p->protocols},
        {"--headers", NULL, &p->headers},
        {"--ca", NULL, &p->tls.ca},
        {"--pin", NULL, &p->tls.pin},
        {"--name", NULL, &p->tls.name},
        {"--cert", NULL, &p->tls.cert},
        {"--key", NULL, &p->tls.key},
        {NULL, NULL, NULL},
    };
    if (argc < 2)
        return -1;
    p->url = argv[1];
    for (int i = 2; i < argc; i += 2) {
        if (find_flag(all, argv[i], argv[i + 1]) < 0)
            return -1;
    }
    if (p->echo) {
        p->wait = 1;
        p->messages = 0;
    }
    if (p->sessions < 1 || p->sessions > MAX_SESSIONS || p->size < 0)
        return -1;
    return 0;
}

int main(int argc, char **argv)
{
    static dialer d;
    d.plan = (plan){.messages = 10,
                    .size = 100,
                    .window = 8,
                    .sessions = 1,
                    .limit_ms = 10000};
    if (read_flags(&d.plan, argc, argv) < 0) {
        fprintf(stderr, "usage: dialer URL [--FLAG VALUE]...\n");
        return 2;
    }
    int result = run(&d);
    rt_loop_free(d.loop);
    free(d.want);
    return result;
}
