/*
 * Sends every message back with its kind, and stops reading from a peer that
 * does not read its echoes.  echo [PORT]
 */
#include "rtnet.h"
#include <stdio.h>
#include <stdlib.h>

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (rt_send(l, s, kind, data, len) == 1)
        rt_read(l, s, 0);
}

static void on_writable(rt_loop *l, rt_session s)
{
    rt_read(l, s, 1);
}

int main(int argc, char **argv)
{
    rt_listen_opts o = {.on = {.message = on_message, .writable = on_writable}};
    const char *port = argc > 1 ? argv[1] : getenv("PORT");
    const char *why = "out of memory";
    rt_loop *l = rt_loop_new(NULL);
    char url[32];
    snprintf(url, sizeof url, "ws://:%s", port ? port : "9000");
    if (!l || (!rt_listen(l, url, &o).id && rt_error(l, &why))) {
        fprintf(stderr, "echo: %s\n", why);
        rt_loop_free(l);
        return 1;
    }
    printf("echo: listening on %s\n", url);
    fflush(stdout);
    int end = rt_run(l);
    rt_loop_free(l);
    return end != 0;
}
