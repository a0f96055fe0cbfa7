/*
 * Scenarios of test_faults.c: groups.
 */
#ifndef FAULT_GROUPS_H
#define FAULT_GROUPS_H

#include "fault_sessions.h"

/* ---- presence ------------------------------------------------------------ */

static void present(rt_loop *loop, rt_group g, rt_session s, int what)
{
    (void)loop;
    (void)g;
    enter_session(s, "presence");
    st.presence[what]++;
    leave();
}

/* So many members, each with a peer. */
static void members(rt_group g, ws_peer **w, int n)
{
    int i;

    for (i = 0; i < n; i++) {
        int before = st.opened;

        w[i] = entered();
        if (st.opened == before)
            continue;
        if (xjoin(g, st.last) == RT_ENOMEM)
            xjoin(g, st.last);
    }
    turns(2);
}

/* Who was told to have come is told to have gone. */
static void presence_balances(rt_group g)
{
    int here = (int)rt_group_count(st.loop, g);

    if (st.presence[RT_JOINED] - st.presence[RT_LEFT] != here)
        sim_fault("told that %d joined and %d left, and %d are here",
                  st.presence[RT_JOINED], st.presence[RT_LEFT], here);
}

static void members_come_and_go(void)
{
    ws_peer *w[3];
    rt_group_opts o = {.event = present, .user = &st};
    rt_group g;

    ws_door();
    g = xgroup("room", &o);
    members(g, w, 3);
    presence_balances(g);
    xgroup_send(g, RT_TEXT, "hello");
    rt_group_send_but(st.loop, g, st.s[0], RT_BINARY, "but", 3);
    turns(2);
    REACHED(mail_of(w[1])->count == 2 && mail_of(w[0])->count == 1);
    if (xleave(g, st.s[1]) == RT_ENOMEM)
        xleave(g, st.s[1]);
    xclose(st.s[2], 0, NULL);
    turns(3);
    presence_balances(g);
    REACHED(rt_group_count(st.loop, g) == 1 && st.presence[RT_LEFT] == 2);
    reset(w[0]);
    turns(3);
    presence_balances(g);
    rt_group_close(st.loop, g);
    REACHED(st.presence[RT_LEFT] == 3);
}

static void members_go_away_and_come_back(void)
{
    ws_peer *w;
    rt_group_opts o = {.event = present};
    rt_group g;

    resumable();
    g = xgroup("room", &o);
    w = newcomer();
    xjoin(g, st.last);
    turns(2);
    reset(w);
    turns(3);
    presence_balances(g);
    REACHED(st.presence[RT_WENT_AWAY] == 1);
    returning(w, 0, 1);
    turns(2);
    REACHED(st.presence[RT_CAME_BACK] == 1);
    xclose(st.last, 0, NULL);
    turns(3);
    presence_balances(g);
}

static void one_is_in_many_groups(void)
{
    rt_group g[10];
    char name[20];
    int i;

    ws_door();
    entered();
    for (i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "g%d", i);
        g[i] = xgroup(name, NULL);
        xjoin(g[i], st.last);
    }
    REACHED(rt_group_find(st.loop, "g7").id == g[7].id);
    for (i = 0; i < 10; i += 2)
        xleave(g[i], st.last);
    turns(1);
    for (i = 1; i < 10; i += 4)
        rt_group_close(st.loop, g[i]);
    xclose(st.last, 0, NULL);
    turns(3);
    REACHED(rt_group_count(st.loop, g[3]) == 0);
}

/* So many that each table and array has to grow. */
static void there_are_many_of_all(void)
{
    enum { MANY = 40 };
    rt_session none = {0};
    rt_group g[MANY];
    char name[20];
    int i;

    ws_door();
    entered();
    for (i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "group %d", i);
        g[i] = xgroup(name, NULL);
        xtimer(i % 2 ? none : st.last, 5 + i, tick, NULL);
        xobserve(name, 1);
        xjoin(g[i], st.last);
    }
    REACHED(g[MANY - 1].id && rt_group_count(st.loop, g[MANY - 1]) == 1);
    pass(60);
    REACHED(st.ticks == MANY);
    for (i = 0; i < MANY; i++)
        rt_group_close(st.loop, g[i]);
    xclose(st.last, 0, NULL);
    turns(3);
}

static void members_are_listed(void)
{
    ws_peer *w[3];
    rt_session out[4];
    rt_group g;
    size_t n;

    ws_door();
    g = xgroup("room", NULL);
    members(g, w, 3);
    n = rt_group_members(st.loop, g, out, 2);
    REACHED(n == 3);
    n = rt_group_members(st.loop, g, out, 4);
    rt_send_many(st.loop, out, n, RT_TEXT, "hi", 2);
    turns(2);
    REACHED(mail_of(w[2])->count == 1 && rt_group_name(st.loop, g));
}

/* ---- history, snapshot, keys --------------------------------------------- */

/* Each message that fell out is told, in order, or the log says that it is not
   told; so none comes twice or after a later one. */
static uint64_t evicted, evicted_last;

static void evict(rt_loop *loop, const char *name, rt_position at, int kind,
                  const void *data, size_t len)
{
    (void)loop;
    (void)name;
    (void)kind;
    (void)data;
    (void)len;
    enter();
    if (at.offset <= evicted_last)
        sim_fault("evicted %d after %d", (int)at.offset, (int)evicted_last);
    evicted_last = at.offset;
    evicted++;
    leave();
}

static void with_evict(void)
{
    st.loop_opts.group_evict = evict;
    evicted = evicted_last = 0;
}

static void a_history_is_replayed(void)
{
    ws_peer *w;
    rt_group_opts o = {.history = 6, .history_bytes = 3000};
    rt_position at = {0, 0}, old;
    rt_group g;
    int i, got;

    ws_door();
    g = xgroup("room", &o);
    old = rt_group_position(st.loop, g);
    for (i = 0; i < 9; i++) {
        xgroup_send(g, RT_TEXT, "something that is said");
        if (i == 4)
            at = rt_group_position(st.loop, g);
    }
    w = entered();
    got = xjoin_from(g, st.last, &at);
    turns(2);
    REACHED(got == 4 && mail_of(w)->count == 4);
    w = entered();
    got = xjoin_from(g, st.last, &old);
    REACHED(got == RT_EREFUSED);
    entered();
    got = xjoin_from(g, st.last, NULL);
    turns(2);
    REACHED(got == 6 && evicted == 3);
    rt_group_close(st.loop, g);
    turns(2);
    REACHED(evicted == 9);
}

/* What is replayed is what was sent, without a hole: each message has its
   number in it. */
static uint64_t replay_next;

static void replayed(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    char text[16];
    uint64_t n;

    mail_came(w, op, data, len);
    if (op != WS_TEXT || *data < '0' || *data > '9')
        return;
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
    n = (uint64_t)atoi(text);
    if (replay_next && n != replay_next)
        sim_fault("message %d comes, not %d", (int)n, (int)replay_next);
    replay_next = n + 1;
}

/* Nobody is to see a hole: a message that was not counted was not sent. */
static void a_history_has_no_holes(void)
{
    ws_peer *w;
    rt_group_opts o = {.history = 50};
    rt_group g;
    char text[16];
    int i;

    ws_door();
    g = xgroup("room", &o);
    for (i = 0; i < 30; i++) {
        snprintf(text, sizeof text, "%d",
                 (int)rt_group_position(st.loop, g).offset + 1);
        xgroup_send(g, RT_TEXT, text);
    }
    w = entered();
    replay_next = 0;
    if (w)
        w->on = replayed;
    i = xjoin_from(g, st.last, NULL);
    snprintf(text, sizeof text, "%d",
             (int)rt_group_position(st.loop, g).offset + 1);
    xgroup_send(g, RT_TEXT, text);
    turns(3);
    REACHED(i == 30 && replay_next == 32);
}

static void a_snapshot_is_sent(void)
{
    ws_peer *w;
    rt_group_opts o = {.snapshot = 3};
    rt_group g;
    int i;

    ws_door();
    g = xgroup("room", &o);
    for (i = 0; i < 8; i++)
        xgroup_send(g, RT_TEXT | rt_latest((uint16_t)(i % 4)), "a value");
    xgroup_send(g, RT_TEXT | rt_latest(3), "");
    w = entered();
    xjoin(g, st.last);
    xgroup_send(g, RT_TEXT | rt_latest(2), "live");
    turns(3);
    REACHED(mail_of(w)->count == 3 || mail_of(w)->count == 2);
    entered();
    if (xjoin(g, st.last) == RT_ENOMEM)
        xjoin(g, st.last);
    turns(2);
}

static void a_group_grows_old(void)
{
    ws_peer *w;
    rt_group_opts o = {.ttl_ms = 100, .history = 4, .history_ms = 50};
    rt_group g;

    ws_door();
    g = xgroup("room", &o);
    xgroup_send(g, RT_TEXT, "one");
    pass(80);
    w = entered();
    xjoin_from(g, st.last, NULL);
    turns(2);
    REACHED(mail_of(w)->count == 0);
    xclose(st.last, 0, NULL);
    pass(300);
    REACHED(rt_group_count(st.loop, g) == 0 && !rt_group_name(st.loop, g));
}

static void a_key_is_sent_once(void)
{
    ws_peer *w[2];
    rt_group_opts o = {.history = 4, .once_ms = 100, .once_max = 3};
    rt_position at;
    rt_group g;
    int i, got;

    ws_door();
    g = xgroup("room", &o);
    members(g, w, 2);
    for (i = 0; i < 4; i++) {
        char key[16];

        snprintf(key, sizeof key, "k%d", i);
        got = rt_group_send_once(st.loop, g, key, RT_TEXT, "once", 4, &at);
        if (got == RT_ENOMEM)
            got = rt_group_send_once(st.loop, g, key, RT_TEXT, "once", 4, &at);
        if (got != RT_ENOMEM &&
            rt_group_send_once(st.loop, g, key, RT_TEXT, "once", 4, &at) !=
                RT_EEXIST &&
            st.loop && g.id)
            sim_fault("a key is good twice");
    }
    turns(3);
    REACHED(mail_of(w[1])->count == 4);
    pass(200);
}

static void a_group_has_rates(void)
{
    rt_group_opts o = {
        .rate_limit = 2, .rate_ms = 100, .message_rate = 50, .byte_rate = 1000};
    rt_group_opts full = {.max_members = 1};
    ws_peer *w[2];
    rt_group g, h;

    ws_door();
    g = xgroup("room", &o);
    h = xgroup("small", &full);
    members(g, w, 2);
    members(h, w, 2);
    xgroup_send(g, RT_TEXT, "one");
    xgroup_send(g, RT_TEXT, "two");
    REACHED(xgroup_send(g, RT_TEXT, "three") == RT_EREFUSED);
    pass(120);
    xgroup_send(g, RT_TEXT, "four");
    turns(2);
    REACHED(rt_group_count(st.loop, h) == 1);
}

/* ---- upstream ------------------------------------------------------------ */

static void first(rt_loop *loop, const char *name)
{
    (void)loop;
    enter();
    st.hooks[0] += *name != 0;
    leave();
}

static void last(rt_loop *loop, const char *name)
{
    (void)loop;
    enter();
    st.hooks[1] += *name != 0;
    leave();
}

/* What is published comes back from upstream. */
static void out(rt_loop *loop, const char *name, int kind, const void *data,
                size_t len)
{
    enter();
    st.hooks[2]++;
    rt_group_deliver(loop, name, kind, data, len);
    leave();
}

static void with_upstream(void)
{
    st.loop_opts.group_first = first;
    st.loop_opts.group_last = last;
    st.loop_opts.group_out = out;
}

static rt_group subscribed;

/* A subscription stands while somebody is there. */
static void subscriptions_balance(void)
{
    int here = rt_group_count(st.loop, subscribed) > 0;

    turns(2);
    if (st.hooks[0] - st.hooks[1] != here)
        sim_fault("subscribed %d times, unsubscribed %d times, members: %d",
                  st.hooks[0], st.hooks[1], here);
}

static void a_group_is_fed_from_upstream(void)
{
    ws_peer *w[2];
    rt_group_opts o = {.upstream = 1, .history = 4, .snapshot = 2};
    rt_group g;

    ws_door();
    g = subscribed = xgroup("room", &o);
    st.finally = subscriptions_balance;
    members(g, w, 2);
    xgroup_send(g, RT_TEXT, "hello");
    xgroup_send(g, RT_TEXT | rt_latest(1), "pos");
    rt_group_send_once(st.loop, g, "k", RT_TEXT, "once", 4, NULL);
    turns(4);
    REACHED(st.hooks[2] == 3 && mail_of(w[0])->count == 3);
    xclose(st.s[0], 0, NULL);
    xleave(g, st.s[1]);
    turns(4);
    REACHED(st.hooks[0] == 1 && st.hooks[1] == 1);
}

/* ---- crowds -------------------------------------------------------------- */

/* All sent to be read soon, so they wait together. */
static void a_crowd_waits(void)
{
    ws_peer *w[6];
    rt_group g;
    int i;

    ws_door();
    g = xgroup("room", NULL);
    members(g, w, 6);
    for (i = 0; i < 10; i++)
        xgroup_send(g, RT_TEXT, "the world as it is now");
    turns(2);
    for (i = 0; i < 10; i++)
        xgroup_send(g, RT_BINARY, "the world as it is now");
    xtext(st.s[2], "in between");
    xgroup_send(g, RT_BINARY, "and after");
    if (xleave(g, st.s[3]) == RT_ENOMEM)
        xleave(g, st.s[3]);
    xclose(st.s[4], 0, NULL);
    xgroup_send(g, RT_BINARY, "without them");
    turns(3);
    REACHED(mail_of(w[2])->count == 23 && mail_of(w[0])->count == 22);
    REACHED(rt_group_count(st.loop, g) == 4);
}

static void a_crowd_has_slow_members(void)
{
    ws_peer *w[6];
    rt_group g;
    int i, k;

    st.o.soft_mark = 20000;
    st.o.hard_mark = 40000;
    ws_door();
    g = xgroup("room", NULL);
    members(g, w, 6);
    for (i = 0; i < 2; i++) {
        if (!w[i] || !w[i]->line)
            continue;
        w[i]->reads = 0;
        sim_peer_window(w[i]->line, 700);
    }
    memset(bulk, 'c', sizeof bulk - 1);
    bulk[sizeof bulk - 1] = 0;
    for (i = 0; i < 8; i++) {
        for (k = 0; k < 2; k++)
            xgroup_send(g, RT_TEXT, bulk);
        xgroup_send(g, RT_TEXT | RT_DROPPABLE, "may go");
        xgroup_send(g, RT_TEXT | rt_latest((uint16_t)i), "newest");
        turns(1);
    }
    turns(4);
    REACHED(mail_of(w[5])->count == 32 && rt_group_count(st.loop, g) == 4);
}

/* The lent message goes to a group. */
static rt_group lent_to;

static void sent_to_all(rt_session s, int kind, const void *data, size_t len)
{
    (void)s;
    rt_group_send(st.loop, lent_to, kind, data, len);
}

static void a_long_message_goes_to_a_group(void)
{
    ws_peer *w[5];

    st.o.soft_mark = 200000;
    st.on_message = sent_to_all;
    ws_door();
    lent_to = xgroup("room", NULL);
    members(lent_to, w, 5);
    if (w[4] && w[4]->line) {
        w[4]->reads = 0;
        sim_peer_window(w[4]->line, 700);
    }
    says(w[0], WS_BINARY, 40000);
    turns(3);
    says(w[0], WS_TEXT, 17000);
    turns(3);
    if (w[4] && w[4]->line) {
        w[4]->reads = 1;
        sim_peer_window(w[4]->line, 65536);
    }
    turns(6);
    REACHED(mail_of(w[0])->count == 2 && mail_of(w[4])->count == 2);
}

static void groups_of_groups(void)
{
    st.loop_opts.max_groups = 3;
    st.loop_opts.groups_per_session = 2;
}

static void groups_are_bounded(void)
{
    rt_group g[4];
    char name[20];
    int i;

    ws_door();
    entered();
    for (i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "g%d", i);
        g[i] = xgroup(name, NULL);
        xjoin(g[i], st.last);
    }
    REACHED(!g[3].id && rt_group_count(st.loop, g[2]) == 0);
    rt_group_close(st.loop, g[0]);
    g[3] = xgroup("another", NULL);
    REACHED(g[3].id && xjoin(g[3], st.last) == 0);
    turns(2);
}

#endif
