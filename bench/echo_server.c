/*
 * Returns every message with its kind, on any path.  A peer that does not take
 * its replies is not read from until it has: TCP slows it down, and nothing is
 * lost.
 */
#include "server.h"

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (rt_send(loop, s, kind, data, len) == 1)
        rt_read(loop, s, 0);
}

static void on_writable(rt_loop *loop, rt_session s)
{
    rt_read(loop, s, 1);
}

int main(int argc, char **argv)
{
    const server echo = {
        .program = "echo_server",
        .about = "",
        .on = {.message = on_message, .writable = on_writable}};
    return server_run(&echo, argc, argv);
}
