/*
 * A crowd of bots against a server of their own: each comes in with resume,
 * sends its keys now and then, and has its line cut once.  All come back and
 * lose nothing.  Ends with 0.
 */
#include "rtnet.h"
#include <stdio.h>
#include <string.h>

enum { BOTS = 50, INPUTS = 10, SECONDS = 20 };

typedef struct {
    rt_session s;
    int sent, backs;
    uint64_t lost;
} bot;

static int heard, ended;
static uint64_t server_lost;

static void on_input(rt_loop *l, rt_session s, int kind, const void *data,
                     size_t len)
{
    (void)l;
    (void)s;
    (void)data;
    heard += kind == RT_BINARY && len == 1;
}

static void server_back(rt_loop *l, rt_session s, uint64_t lost)
{
    (void)l;
    (void)s;
    server_lost += lost;
}

static void press(rt_loop *l, void *arg)
{
    bot *b = (bot *)arg;
    uint8_t keys = (uint8_t)b->sent;
    if (b->sent == INPUTS)
        return;
    b->sent++;
    rt_send(l, b->s, RT_BINARY, &keys, 1);
    if (b->sent == INPUTS / 2)
        rt_drop(l, b->s, 1001, "");
    rt_timer_start(l, b->s, rt_now(l) + 10, press, b);
}

static void on_open(rt_loop *l, rt_session s)
{
    press(l, rt_context(l, s));
}

static void on_back(rt_loop *l, rt_session s, uint64_t lost)
{
    bot *b = (bot *)rt_context(l, s);
    b->backs++;
    b->lost += lost;
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    ended += why->cause != RT_BY_LOOP;
}

static int all_back(const bot *bots)
{
    int i;
    for (i = 0; i < BOTS; i++)
        if (bots[i].backs != 1 || bots[i].lost)
            return 0;
    return 1;
}

int main(void)
{
    static bot bots[BOTS];
    rt_loop *l = rt_loop_new(NULL);
    rt_listen_opts o;
    rt_dial_opts d;
    uint64_t end;
    char url[64];
    int i;

    memset(&o, 0, sizeof o);
    memset(&d, 0, sizeof d);
    o.resume_ms = 30000;
    o.on.message = on_input;
    o.on.back = server_back;
    d.resume = 1;
    d.on.open = on_open;
    d.on.back = on_back;
    d.on.close = on_close;
    if (!l)
        return 2;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/",
             rt_listener_port(l, rt_listen(l, "ws://127.0.0.1:0", &o)));
    for (i = 0; i < BOTS; i++) {
        d.user = &bots[i];
        bots[i].s = rt_dial(l, url, &d);
    }
    end = rt_now(l) + SECONDS * 1000;
    while ((heard < BOTS * INPUTS || !all_back(bots)) && rt_now(l) < end)
        rt_poll(l, 50);
    printf("heard %d of %d, lost %d, ended %d\n", heard, BOTS * INPUTS,
           (int)server_lost, ended);
    rt_loop_free(l);
    return !(heard == BOTS * INPUTS && all_back(bots) && !server_lost &&
             !ended);
}
