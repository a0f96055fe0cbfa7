/*
 * A loop and one connection to it on the simulated kernel, for targets whose
 * peer is nothing but bytes.  What the library answers is kept in line.got.
 */
#include "fuzz.h"
#include "rtnet.h"
#include "test/sim.h"

#include <stdlib.h>
#include <string.h>

enum { PORT = 9000 };

static struct {
    rt_loop *loop;
    sim_peer *peer;
    struct ws_bytes got; /* a 0 stands behind it */
    int gone;            /* the library closed, or the line broke */
    void (*tick)(void);  /* after each turn: what the host does meanwhile */
} line;

static void got_add(const uint8_t *data, size_t n)
{
    if (line.got.len + n + 1 > line.got.cap) {
        line.got.cap = 2 * (line.got.len + n + 1);
        line.got.at = realloc(line.got.at, line.got.cap);
        if (!line.got.at)
            exit(2);
    }
    memcpy(line.got.at + line.got.len, data, n);
    line.got.len += n;
    line.got.at[line.got.len] = 0;
}

static void line_read(void)
{
    uint8_t piece[4096];
    size_t n;

    while (line.peer && (n = sim_peer_recv(line.peer, piece, sizeof piece)) > 0)
        got_add(piece, n);
    if (line.peer && sim_peer_state(line.peer) != SIM_UP)
        line.gone = 1;
}

static void line_turns(int n)
{
    while (n--) {
        rt_poll(line.loop, 0);
        if (line.tick)
            line.tick();
        line_read();
    }
}

/* Sends all, as far as there is anybody to take it. */
static void line_send(const uint8_t *data, size_t n)
{
    ptrdiff_t some;

    while (n && line.peer) {
        some = sim_peer_send(line.peer, data, n);
        if (some < 0)
            return;
        data += some;
        n -= (size_t)some;
        if (n)
            line_turns(1);
        if (n && some == 0 && line.gone)
            return;
    }
}

static void line_feed(const uint8_t *data, size_t n, struct fuzz_cut *cut)
{
    size_t i, some;

    for (i = 0; i < n; i += some) {
        some = fuzz_piece(cut, n - i);
        line_send(data + i, some);
        line_turns(1);
    }
    line_turns(4);
}

static void line_start(void)
{
    static const sim_opts kernel = {
        .seed = 1, .window = 1 << 20, .spin = 1 << 30};
    rt_loop_opts o = {.realloc = sim_realloc};

    memset(&line, 0, sizeof line);
    sim_start(&kernel);
    got_add((const uint8_t *)"", 0);
    line.loop = rt_loop_new(&o);
}

/* The peer hangs up; what is left must end. */
static void line_end(void)
{
    if (line.peer)
        sim_peer_close(line.peer);
    line.peer = NULL;
    line_turns(4);
    rt_loop_free(line.loop);
    free(line.got.at);
    if (sim_end())
        fuzz_wrong("%s", sim_fault_text());
}
