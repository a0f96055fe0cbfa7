/*
 * Sends every message it gets to all connected sessions, the sender too; with
 * several loops, to those of the sender's.
 */
#include "server.h"

static rt_group all[SERVER_LOOPS_MAX];

static int on_ready(rt_loop *loop, long index)
{
    all[index] = rt_group_open(loop, "all", NULL);
    return all[index].id ? 0 : -1;
}

static void on_open(rt_loop *loop, rt_session s)
{
    if (rt_group_join(loop, all[server_index(loop)], s) < 0)
        rt_close(loop, s, 1013, "no room");
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)s;
    rt_group_send(loop, all[server_index(loop)], kind, data, len);
}

int main(int argc, char **argv)
{
    const server fanout = {
        .program = "fanout_server",
        .about = "\nSends each message to all connections, the sender too.\n"
                 "With --loops, to those of the sender's loop: a group each.\n"
                 "Options:",
        .on = {.open = on_open, .message = on_message},
        .ready = on_ready};
    return server_run(&fanout, argc, argv);
}
