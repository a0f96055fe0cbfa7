/*
 * What a trusted proxy says in front, PROXY v1 and v2, on a stream of bytes or
 * (by the first byte's lowest bit) of HTTP.
 */
#include "answers.h"
#include "line.h"

static struct {
    int http, opened, closed;
} g;

static void on_open(rt_loop *l, rt_session s)
{
    const rt_request *r = rt_request_of(l, s);

    g.opened++;
    fuzz_tell(FUZZ_APP, "open%s%s", r ? " " : "", r ? r->address : "");
}

/* A stream has no borders: only what has come in all is told. */
static struct ws_bytes all;

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)l;
    (void)s;
    (void)kind;
    if (!g.opened || g.closed)
        fuzz_wrong("bytes outside of a session");
    if (all.len + len > all.cap) {
        all.cap = 2 * (all.len + len);
        all.at = realloc(all.at, all.cap);
        if (!all.at)
            exit(2);
    }
    memcpy(all.at + all.len, data, len);
    all.len += len;
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    (void)why;
    if (!g.opened || g.closed++)
        fuzz_wrong("closed without being open");
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    (void)l;
    (void)s;
    fuzz_tell(FUZZ_APP, "request %s", r->address);
    return 404;
}

static void server_start(void)
{
    rt_listen_opts o = {.on = {.request = on_request,
                               .open = on_open,
                               .message = on_message,
                               .close = on_close},
                        .proxies = "10.0.0.0/8",
                        .proxy_protocol = 1};

    if (!g.http)
        o.framing = RT_RAW;
    if (!rt_listen(line.loop,
                   g.http ? "ws://127.0.0.1:9000" : "tcp://127.0.0.1:9000", &o)
             .id)
        fuzz_wrong("cannot listen");
    line.peer = sim_connect_from(PORT, "10.1.2.3");
    line_turns(2);
}

static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    struct fuzz_cost cost;

    memset(&g, 0, sizeof g);
    g.http = data[0] & 1;
    all.len = 0;
    line_start();
    server_start();
    fuzz_cost_begin(&cost);
    line_feed(data + 2, size - 2, cut);
    fuzz_cost_end(&cost, size, cut->pieces + 4, 80 * 1024);
    fuzz_tell_bytes(FUZZ_APP, "bytes", all.at, all.len);
    answers_tell((char *)line.got.at, (char *)line.got.at + line.got.len);
    if (line.gone)
        fuzz_tell(FUZZ_CONTROL, "eof");
    line_end();
    if (g.opened != g.closed)
        fuzz_wrong("never closed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_three_ways(play, data, size);
}
