/*
 * Sends every message it gets to all connected sessions, the sender too.
 */
#include "server.h"

static rt_group all;

static void on_ready(rt_loop *loop)
{
    all = rt_group_open(loop, "all", NULL);
}

static void on_open(rt_loop *loop, rt_session s)
{
    if (rt_group_join(loop, all, s) < 0)
        rt_close(loop, s, 1013, "no room");
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)s;
    rt_group_send(loop, all, kind, data, len);
}

int main(int argc, char **argv)
{
    const rt_handler on = {.open = on_open, .message = on_message};
    return server_run(argc, argv, "fanout_server", &on, on_ready);
}
