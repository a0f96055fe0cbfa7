/*
 * Answers that the library reads as a client, and the frames behind a good one.
 * The right Sec-WebSocket-Accept cannot be known to a fuzzer: "{accept}" stands
 * for it.  The first byte says what was asked for (enum config).
 */
#include "line.h"

enum config {
    OFFERS = 1, /* the sub-protocols chat and rtnet.1 */
    TIGHT = 2,  /* max_header 256 */
    RESUMES = 4 /* it could come back */
};

enum { HEAP = 24 * 1024, MOST = 1 << 16 };

static struct {
    int config, opened, closed;
    char accept[29];
} g;

static void on_open(rt_loop *l, rt_session s)
{
    const rt_request *r = rt_request_of(l, s);

    if (g.opened++)
        fuzz_wrong("opened twice");
    fuzz_tell(FUZZ_APP, "open");
    if (r && rt_header(r, "x-a"))
        fuzz_tell_bytes(FUZZ_APP, "x-a", rt_header(r, "x-a"),
                        strlen(rt_header(r, "x-a")));
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)l;
    (void)s;
    if (!g.opened || g.closed)
        fuzz_wrong("a message outside of a session");
    fuzz_tell_bytes(FUZZ_APP, kind == RT_TEXT ? "text" : "binary", data, len);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    if (g.closed++)
        fuzz_wrong("closed twice");
    /* Between the answer and the welcome of rtnet.1 the line has its codes. */
    if (!g.opened && why->code != 1006 && why->cause != RT_BY_LOOP &&
        !(g.config & RESUMES))
        fuzz_wrong("never opened, and closed with %d", why->code);
    fuzz_tell(FUZZ_APP, "close %d %s", why->code,
              why->cause == RT_BY_PEER ? "peer" : "own");
}

/* Dials, and reads the request. */
static void client_start(void)
{
    rt_dial_opts o = {
        .on = {.open = on_open, .message = on_message, .close = on_close}};
    const char *key = NULL;
    int i;

    if (g.config & OFFERS)
        o.protocols = "chat, rtnet.1";
    if (g.config & TIGHT)
        o.max_header = 256;
    o.resume = (g.config & RESUMES) != 0;
    sim_serve(PORT);
    if (!rt_dial(line.loop, "ws://127.0.0.1:9000/", &o).id)
        fuzz_wrong("cannot dial");
    for (i = 0; i < 20 && !key; i++) {
        rt_poll(line.loop, 10);
        line.peer = line.peer ? line.peer : sim_accept(PORT);
        line_read();
        key = strstr((char *)line.got.at, "Sec-WebSocket-Key: ");
    }
    if (!key || !strstr(key, "\r\n\r\n"))
        fuzz_wrong("no whole request");
    else
        ws_accept_of(key + 19, g.accept);
    line.got.len = 0;
}

/* The input with all that is meant put in; returns its size. */
static size_t meant(const uint8_t *data, size_t size, uint8_t *out)
{
    size_t i, n = 0;

    for (i = 0; i < size && n + 28 < MOST; i++) {
        if (size - i >= 8 && memcmp(data + i, "{accept}", 8) == 0) {
            memcpy(out + n, g.accept, 28);
            n += 28;
            i += 7;
        } else {
            out[n++] = data[i];
        }
    }
    return n;
}

static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    static uint8_t bytes[MOST];
    struct fuzz_cost cost;
    size_t n;

    memset(&g, 0, sizeof g);
    g.config = data[0];
    line_start();
    client_start();
    n = meant(data + 2, size - 2, bytes);
    fuzz_cost_begin(&cost);
    line_feed(bytes, n, cut);
    fuzz_cost_end(&cost, n, cut->pieces + 4, HEAP);
    if (line.gone && !g.closed && !(g.config & RESUMES))
        fuzz_wrong("hung up, but the session is open");
    line_end();
    if (!g.closed && !(g.config & RESUMES))
        fuzz_wrong("never closed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_three_ways(play, data, size);
}
