/*
 * Frames of a peer without manners, for both roles: the handshake is right,
 * then come the fuzz bytes as they are.  The first byte says how the
 * application behaves (enum config).
 */
#include "fuzz.h"
#include "rtnet.h"
#include "test/sim.h"

#include <string.h>

enum { PORT = 9000, SMALL_MESSAGE = 100, BIG_MESSAGE = 65536 };
enum config {
    ECHOES = 1, /* it sends back what it gets */
    SMALL = 2,  /* messages of up to 100 bytes, in up to 3 fragments */
    CLOSES = 4  /* it closes with 3000 at a message that begins with '!' */
};

/* Beside what has come: a queue, and small change. */
enum { HEAP = 24 * 1024 };

static struct {
    rt_loop *loop;
    ws_peer *peer;
    int config, opened, closed;
    size_t echoed; /* bytes */
    int code, cause;
} g;

/* ---- the application ------------------------------------------------------
 */

static void on_open(rt_loop *l, rt_session s)
{
    (void)l;
    (void)s;
    g.opened++;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    const char *word = kind == RT_TEXT ? "text" : "binary";

    if (g.closed || rt_state(l, s) != RT_OPEN)
        fuzz_wrong("a message after the end");
    if (kind == RT_TEXT && !fuzz_utf8(data, len))
        fuzz_wrong("a text that is no UTF-8");
    if (len > (g.config & SMALL ? SMALL_MESSAGE : BIG_MESSAGE))
        fuzz_wrong("a message of %zu bytes", len);
    if (((const char *)data)[len])
        fuzz_wrong("no 0 behind a message");
    fuzz_tell_bytes(FUZZ_APP, word, data, len);
    if (g.config & ECHOES && rt_send(l, s, kind, data, len) >= 0)
        g.echoed += len;
    if (g.config & CLOSES && len && *(const char *)data == '!')
        rt_close(l, s, 3000, "!");
}

/* Which codes each cause may have (RFC 6455, 7.4.1; rtnet.h). */
static int code_fits(int code, int cause)
{
    switch (cause) {
    case RT_BY_ERROR:
        return code == 1002 || code == 1007 || code == 1006;
    case RT_BY_LIMIT:
        return code == 1008 || code == 1009;
    case RT_BY_PEER:
        return (code >= 1000 && code <= 1014 && code != 1004) ||
               (code >= 3000 && code <= 4999);
    case RT_BY_APP:
        return code == 3000;
    }
    return 0;
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    if (g.closed++ || !g.opened)
        fuzz_wrong("a second close, or one before the open");
    if (!code_fits(why->code, why->cause))
        fuzz_wrong("closed with %d by cause %d", why->code, why->cause);
    if (!fuzz_utf8((const uint8_t *)why->reason, strlen(why->reason)))
        fuzz_wrong("a reason that is no UTF-8");
    g.code = why->code;
    g.cause = why->cause;
    fuzz_tell(FUZZ_APP, "close %d %s", why->code,
              why->cause == RT_BY_PEER ? "peer" : "own");
    if (why->cause == RT_BY_PEER)
        fuzz_tell_bytes(FUZZ_APP, "reason", why->reason, strlen(why->reason));
}

/* ---- the peer --------------------------------------------------------------
 */

static void on_frame(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w;
    if (op == WS_TEXT || op == WS_BINARY)
        fuzz_tell_bytes(FUZZ_DATA, op == WS_TEXT ? "text" : "binary", data,
                        len);
    else if (op == WS_PONG)
        fuzz_tell_bytes(FUZZ_CONTROL, "pong", data, len);
    else if (op == WS_CLOSE && len >= 2)
        fuzz_tell(FUZZ_CONTROL, "close %d", data[0] << 8 | data[1]);
    else
        fuzz_tell(FUZZ_CONTROL, "%s", op == WS_CLOSE ? "close" : "ping");
}

static void turns(int n)
{
    while (n--) {
        if (g.peer)
            ws_pump(g.peer);
        rt_poll(g.loop, 0);
    }
    if (g.peer)
        ws_pump(g.peer);
}

static const rt_handler handler = {
    .open = on_open, .message = on_message, .close = on_close};

static void server_start(void)
{
    rt_listen_opts o = {.on = handler};

    if (g.config & SMALL) {
        o.max_message = SMALL_MESSAGE;
        o.max_fragments = 3;
    }
    if (!rt_listen(g.loop, "ws://127.0.0.1:9000", &o).id)
        fuzz_wrong("cannot listen");
    g.peer = ws_connect(PORT, "/");
}

static void client_start(void)
{
    rt_dial_opts o = {.on = handler};

    if (g.config & SMALL) {
        o.max_message = SMALL_MESSAGE;
        o.max_fragments = 3;
    }
    sim_serve(PORT);
    if (!rt_dial(g.loop, "ws://127.0.0.1:9000/", &o).id)
        fuzz_wrong("cannot dial");
}

/* A connection takes a moment of virtual time. */
static void shake_hands(void)
{
    int i;

    for (i = 0; i < 20 && !g.opened; i++) {
        if (!g.peer)
            g.peer = ws_accept(PORT);
        if (g.peer)
            ws_pump(g.peer);
        rt_poll(g.loop, 10);
    }
    turns(1);
}

static int world_start(int config, int client)
{
    static const sim_opts kernel = {
        .seed = 1, .window = 1 << 20, .spin = 1 << 30};
    rt_loop_opts o = {.realloc = sim_realloc};

    memset(&g, 0, sizeof g);
    g.config = config;
    sim_start(&kernel);
    g.loop = rt_loop_new(&o);
    if (client)
        client_start();
    else
        server_start();
    shake_hands();
    if (!g.peer || !g.opened) {
        fuzz_wrong("no session");
        return 0;
    }
    g.peer->pongs = g.peer->closes = 0;
    g.peer->on = on_frame;
    return 1;
}

static void world_end(void)
{
    if (g.peer)
        ws_free(g.peer);
    g.peer = NULL;
    turns(4);
    if (!g.closed)
        fuzz_wrong("never closed");
    rt_loop_free(g.loop);
    if (sim_end())
        fuzz_wrong("%s", sim_fault_text());
}

/* Which close code goes over the line (RFC 6455, 7.1.5, 7.4.1): of a violation
   that of on_close, of the peer's close its own. */
static void closes_agree(void)
{
    int said = g.peer->close_code;

    if (g.closed && g.code != 1006 && said != g.code)
        fuzz_wrong("close %d told, %d sent", g.code, said);
    if (!g.closed && said)
        fuzz_wrong("close %d sent by an open session", said);
}

static void frames_play(const uint8_t *data, size_t size, struct fuzz_cut *cut,
                        int client)
{
    struct fuzz_cost cost;
    size_t i, n;

    if (!world_start(data[0], client)) {
        world_end();
        return;
    }
    fuzz_cost_begin(&cost);
    for (i = 2; i < size; i += n) {
        n = fuzz_piece(cut, size - i);
        ws_raw(g.peer, data + i, n);
        turns(1);
    }
    turns(4);
    fuzz_cost_end(&cost, size, cut->pieces + 4, HEAP + 2 * g.echoed);
    closes_agree();
    world_end();
}
