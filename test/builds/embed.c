/*
 * rtnet in a loop of the host's own: an engine that draws frames, and one that
 * waits with poll(2) for everything.  Each sends a world to its players, who
 * are here, too, and ends when they have seen some.  Ends with 0.
 */
#define _POSIX_C_SOURCE 200809L
#include "rtnet.h"
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { FRAMES = 20, SECONDS = 5 };

typedef struct {
    rt_group all;
    uint32_t frame;
    int seen;
} game;

static void on_open(rt_loop *l, rt_session s)
{
    game *g = (game *)rt_context(l, s);
    rt_group_join(l, g->all, s);
}

static void on_world(rt_loop *l, rt_session s, int kind, const void *data,
                     size_t len)
{
    game *g = (game *)rt_context(l, s);
    uint32_t frame;
    if (kind != RT_BINARY || len != sizeof frame)
        return;
    memcpy(&frame, data, sizeof frame);
    g->seen += frame <= g->frame;
}

static void simulate(rt_loop *l, game *g)
{
    g->frame++;
    rt_group_send(l, g->all, RT_BINARY | rt_latest(1), &g->frame,
                  sizeof g->frame);
}

/* Draws as fast as it can; the network is asked once for each frame. */
static void engine_loop(rt_loop *l, game *g, uint64_t end)
{
    while (g->seen < FRAMES && rt_now(l) < end) {
        rt_poll(l, 0);
        simulate(l, g);
        rt_flush(l);
    }
}

/* Sleeps until something is there to do, or the next frame is due. */
static void foreign_loop(rt_loop *l, game *g, uint64_t end)
{
    struct pollfd fd = {0, POLLIN, 0};
    uint64_t next = rt_now(l);

    fd.fd = rt_loop_fd(l);
    while (g->seen < FRAMES && rt_now(l) < end) {
        int wait = rt_loop_timeout(l);
        if (wait < 0 || wait > 5)
            wait = 5;
        poll(&fd, 1, wait);
        rt_poll(l, 0);
        if (rt_now(l) < next)
            continue;
        next += 5;
        simulate(l, g);
    }
}

static int play(void (*loop)(rt_loop *, game *, uint64_t))
{
    rt_loop *l = rt_loop_new(NULL);
    rt_listen_opts o;
    rt_dial_opts d;
    game g;
    char url[64];

    memset(&o, 0, sizeof o);
    memset(&d, 0, sizeof d);
    memset(&g, 0, sizeof g);
    o.user = d.user = &g;
    o.on.open = on_open;
    d.on.message = on_world;
    if (!l)
        return 0;
    g.all = rt_group_open(l, "all", NULL);
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/",
             rt_listener_port(l, rt_listen(l, "ws://127.0.0.1:0", &o)));
    if (rt_dial(l, url, &d).id)
        loop(l, &g, rt_now(l) + SECONDS * 1000);
    rt_loop_free(l);
    return g.seen >= FRAMES;
}

int main(void)
{
    int engine = play(engine_loop), foreign = play(foreign_loop);
    printf("engine %d, foreign %d\n", engine, foreign);
    return !(engine && foreign);
}
