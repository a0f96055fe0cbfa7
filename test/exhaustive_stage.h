/*
 * Many connections at once on the simulated kernel, both roles: what the
 * library tells the application of each, and what its peer hears.  The peers
 * (sim_ws.c) are strict: whatever they hear against RFC 6455 is a fault.
 */
#ifndef EXHAUSTIVE_STAGE_H
#define EXHAUSTIVE_STAGE_H

#include "rtnet_internal.h"
#include "args.h"
#include "sim.h"
#include "test.h"

enum { LINES = 32, PORT = 9000, THEIR_PORT = 7000, LARGEST = 70000 };

/* Of the library. */
enum { SERVER, CLIENT, ROLES };
static const char *const role_names[ROLES] = {"server", "client"};

/* One connection: the library's end, and the peer's. */
typedef struct {
    rt_session session;
    int opens, messages, closes; /* upcalls */
    int code, cause;             /* of on_close */
    int kind;                    /* of the last message, */
    size_t len;                  /* and its length */
    uint8_t first;               /* its first byte, */
    int plain;                   /* all others are 'x' */
    ws_peer *peer;
    int heard, pongs;  /* frames in all, and those */
    size_t pong_len;   /* of the last pong */
    int pong_is_plain; /* it is all 'x' */
} line;

static struct {
    rt_loop *loop;
    int role, count;
    line lines[LINES];
} st;

static int all_x(const uint8_t *p, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (p[i] != 'x')
            return 0;
    return 1;
}

/* ---- what the application is told ---------------------------------------- */

static line *line_of(rt_loop *l, rt_session s)
{
    line *it = (line *)rt_user(l, s);
    return it ? it : &st.lines[0];
}

/* The path names the line of an accepted one, its context that of a dialled
   one. */
static void on_open(rt_loop *l, rt_session s)
{
    line *it = (line *)rt_context(l, s);
    if (st.role == SERVER)
        it = &st.lines[atoi(rt_request_of(l, s)->path + 1)];
    rt_set_user(l, s, it);
    it->session = s;
    it->opens++;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    line *it = line_of(l, s);
    const uint8_t *p = (const uint8_t *)data;
    it->messages++;
    it->kind = kind;
    it->len = len;
    it->first = len ? *p : 0;
    it->plain = len < 2 || all_x(p + 1, len - 1);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *end)
{
    line *it = line_of(l, s);
    it->closes++;
    it->code = end->code;
    it->cause = end->cause;
}

static const rt_handler handler = {
    .open = on_open, .message = on_message, .close = on_close};

/* ---- what the peer hears ------------------------------------------------- */

static void hears(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    line *it = (line *)w->user;
    it->heard++;
    if (op != WS_PONG)
        return;
    it->pongs++;
    it->pong_len = len;
    it->pong_is_plain = all_x(data, len);
}

/* What the line of a peer is, as the peer knows it. */
static enum sim_state line_state(const line *it)
{
    return it->peer->line ? sim_peer_state(it->peer->line) : it->peer->last;
}

/* ---- turns --------------------------------------------------------------- */

static void pump_all(void)
{
    int i;
    for (i = 0; i < st.count; i++)
        ws_pump(st.lines[i].peer);
}

/* Turns until nothing happens any more: the loop takes so many events at
   once, and the answer to an event is one more. */
static void settle(void)
{
    int n, quiet = 0;
    for (n = 0; n < 200 && quiet < 2; n++) {
        pump_all();
        quiet = rt_poll(st.loop, 0) == 0 ? quiet + 1 : 0;
    }
    EQUAL(quiet, 2);
    pump_all();
}

static void stage_begin(int role)
{
    sim_opts world = {.max_fds = LINES + 64};
    rt_loop_opts lo = {.realloc = sim_realloc};
    rt_listen_opts o = {
        .on = handler, .max_message = LARGEST, .ping_ms = RT_OFF};
    sim_start(&world);
    st.loop = rt_loop_new(&lo);
    st.role = role;
    st.count = 0;
    sim_serve(THEIR_PORT);
    CHECK(rt_listen(st.loop, "ws://127.0.0.1:9000", &o).id != 0);
}

static void stage_end(void)
{
    rt_loop_free(st.loop);
    EQUAL(sim_end(), 0);
    if (sim_faults())
        printf("%s\n", sim_fault_text());
}

/* ---- lines --------------------------------------------------------------- */

static ws_peer *line_dial(line *it)
{
    ws_peer *w = NULL;
    int i;
    rt_dial_opts o = {
        .on = handler, .user = it, .max_message = LARGEST, .ping_ms = RT_OFF};
    it->session = rt_dial(st.loop, "ws://127.0.0.1:7000/", &o);
    rt_set_user(st.loop, it->session, it);
    for (i = 0; i < 5 && !(w = ws_accept(THEIR_PORT)); i++)
        CHECK(rt_poll(st.loop, 1) >= 0); /* it takes up to a millisecond */
    return w;
}

/* Peers do not answer a close by themselves. */
static void line_open(void)
{
    line *it = &st.lines[st.count];
    char path[16];
    snprintf(path, sizeof path, "/%d", st.count);
    it->peer = st.role == SERVER ? ws_connect(PORT, path) : line_dial(it);
    it->peer->on = hears;
    it->peer->user = it;
    it->peer->closes = 0;
    st.count++;
}

/* So many at once that no listener's queue is too short. */
static void lines_open(int count)
{
    int i;
    memset(st.lines, 0, sizeof st.lines);
    while (st.count < count) {
        line_open();
        if (st.count % 16 == 0)
            CHECK(rt_poll(st.loop, 0) >= 0);
    }
    settle();
    for (i = 0; i < count; i++)
        CHECK(st.lines[i].opens == 1 && st.lines[i].peer->open);
}

/* The peers hang up, and nothing of the lines is left. */
static void lines_end(void)
{
    int i, count = st.count;
    for (i = 0; i < count; i++)
        ws_free(st.lines[i].peer);
    st.count = 0;
    settle();
    for (i = 0; i < count; i++)
        EQUAL(st.lines[i].closes, 1);
    EQUAL(sim_streams(), 0);
}

#endif
