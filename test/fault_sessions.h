/*
 * Scenarios of test_faults.c: sessions that outlive their sockets, by rtnet.1
 * and by the host's own means; user ids.
 */
#ifndef FAULT_SESSIONS_H
#define FAULT_SESSIONS_H

#include "fault_loops.h"

/* ---- rtnet.1, the server ------------------------------------------------- */

static ws_peer *speaker(const char *hello)
{
    ws_peer *w = client_with("/", "Sec-WebSocket-Protocol: rtnet.1\r\n");

    turns(3);
    say(w, hello);
    turns(2);
    return w;
}

/* A new session that is confirmed. */
static ws_peer *newcomer(void)
{
    ws_peer *w = speaker("h");

    say(w, "a0");
    turns(2);
    return w;
}

/* Comes back with the token of an earlier one. */
static ws_peer *returning(ws_peer *before, int received, int attempt)
{
    char hello[64];
    ws_peer *w;

    snprintf(hello, sizeof hello, "h%s %d %d", mail_of(before)->token, received,
             attempt);
    w = speaker(*mail_of(before)->token ? hello : "h");
    snprintf(hello, sizeof hello, "a%d", received);
    say(w, hello);
    turns(2);
    return w;
}

static void resumable(void)
{
    st.o.resume_ms = 1000;
    door("ws://127.0.0.1:9000");
}

static void a_session_comes_back_and_nothing_is_lost(void)
{
    ws_peer *w, *v;

    resumable();
    w = newcomer();
    say(w, "mone");
    turns(3);
    reset(w);
    turns(2);
    xtext(st.last, "while away");
    xsend(st.last, RT_TEXT | rt_latest(3), "pos", 3);
    turns(2);
    v = returning(w, 1, 1);
    turns(2);
    say(v, "mtwo");
    turns(3);
    REACHED(st.aways == 1 && st.backs == 1 && st.opened == 1);
    REACHED(st.messages == 2 && mail_of(v)->count >= 4);
    xclose(st.last, 0, NULL);
    turns(3);
}

static void a_session_comes_back_with_a_gap(void)
{
    ws_peer *w;
    int i;

    resumable();
    w = newcomer();
    reset(w);
    turns(2);
    for (i = 0; i < 20; i++)
        bulk_sent(RT_BINARY);
    turns(2);
    returning(w, 0, 1);
    xtext(st.last, "live");
    turns(3);
    REACHED(st.backs == 1 && st.messages == 0);
}

static void nobody_comes_back(void)
{
    ws_peer *w;

    resumable();
    w = newcomer();
    xtext(st.last, "unread");
    turns(1);
    reset(w);
    turns(2);
    pass(1100);
    turns(2);
    REACHED(st.end.code == RT_CLOSE_EXPIRED && st.aways == 1);
    returning(w, 0, 1);
    REACHED(st.opened == 2);
}

static void a_second_connection_takes_over(void)
{
    ws_peer *w, *v;
    char hello[40];

    resumable();
    w = newcomer();
    xtext(st.last, "one");
    turns(2);
    snprintf(hello, sizeof hello, "h%s 0 1", mail_of(w)->token);
    v = speaker(*mail_of(w)->token ? hello : "h");
    turns(2);
    REACHED(w && w->close_code == RT_CLOSE_SUPERSEDED);
    v = speaker(*mail_of(w)->token ? hello : "h");
    turns(2);
    REACHED(v && v->close_code == RT_CLOSE_STALE);
    returning(w, 0, 2);
    REACHED(st.opened == 1 && st.backs == 2);
}

static void the_handler_refuses_a_return(void)
{
    ws_peer *w;

    st.resume_answer = 1;
    resumable();
    w = newcomer();
    reset(w);
    turns(2);
    returning(w, 0, 1);
    REACHED(st.opened == 2 && st.backs == 0);
}

static void a_slow_one_goes_away_and_comes_back(void)
{
    ws_peer *w, *v;
    int i;

    st.o.soft_mark = 4000;
    st.o.hard_mark = 16000;
    resumable();
    w = newcomer();
    if (w && w->line) {
        w->reads = 0;
        sim_peer_window(w->line, 1000);
    }
    for (i = 0; i < 6; i++) {
        bulk_sent(RT_BINARY);
        turns(1);
    }
    turns(2);
    v = returning(w, 0, 1);
    turns(4);
    REACHED(st.aways == 1 && st.backs == 1 && mail_of(v)->count >= 6);
}

static void many_messages_are_acknowledged(void)
{
    ws_peer *w;
    int i;

    resumable();
    w = newcomer();
    for (i = 0; i < 40; i++) {
        say(w, "mhi");
        if (i % 8 == 7)
            turns(1);
    }
    turns(2);
    say(w, "a20");
    turns(2);
    pass(600);
    say(w, "a40");
    turns(3);
    REACHED(st.messages == 40);
}

static void a_client_breaks_the_protocol(void)
{
    ws_peer *w;

    resumable();
    w = speaker("nonsense");
    turns(2);
    REACHED(w && w->close_code == 1002);
    w = newcomer();
    say(w, "a99");
    turns(3);
    REACHED(w && w->close_code == 1002 && st.end.cause == RT_BY_ERROR);
    w = speaker("h");
    pass(5100);
    turns(3);
    REACHED(w && (w->close_code == 1013 || !w->line));
}

static void a_return_takes_snapshots_and_limits_along(void)
{
    ws_peer *w;
    rt_group g;
    rt_group_opts o = {.snapshot = 4};

    st.o.message_rate = 5;
    st.o.message_burst = 1;
    resumable();
    g = xgroup("room", &o);
    w = newcomer();
    xjoin(g, st.last);
    xgroup_send(g, RT_TEXT | rt_latest(1), "here");
    turns(2);
    say(w, "mone");
    say(w, "mtwo");
    turns(2);
    reset(w);
    turns(2);
    returning(w, 0, 1);
    pass(500);
    REACHED(st.messages >= 1 && st.backs == 1);
    REACHED(rt_group_count(st.loop, g) == 1);
}

static void a_stream_comes_back(void)
{
    struct line *l, *m;
    char hello[64];

    st.o.framing = RT_RTNET1;
    st.o.resume_ms = 1000;
    tcp_door();
    l = line_open();
    turns(2);
    line_say(l, "h");
    turns(2);
    line_say(l, "a0");
    line_say(l, "mhi");
    turns(3);
    line_reset(l);
    turns(2);
    m = line_open();
    turns(2);
    snprintf(hello, sizeof hello, "h%s 0 1", l ? l->token : "");
    line_say(m, l && *l->token ? hello : "h");
    turns(2);
    line_say(m, "a0");
    turns(3);
    REACHED(st.backs == 1 && st.messages == 1);
    line_say(m, "c1000 bye");
    turns(3);
    REACHED(st.end.code == 1000);
}

static void those_who_are_away_hear_their_groups(void)
{
    ws_peer *w, *v;
    rt_group g;

    resumable();
    g = xgroup("room", NULL);
    w = newcomer();
    xjoin(g, st.last);
    newcomer();
    xjoin(g, st.last);
    xgroup_send(g, RT_TEXT, "one");
    turns(2);
    reset(w);
    turns(2);
    xgroup_send(g, RT_TEXT, "two");
    xgroup_send(g, RT_BINARY | RT_DROPPABLE, "three");
    xgroup_send(g, RT_TEXT | rt_latest(9), "four");
    turns(2);
    v = returning(w, 1, 1);
    turns(2);
    REACHED(st.backs == 1 && mail_of(v)->count == 3);
    rt_group_close(st.loop, g);
}

/* ---- rtnet.1, the client ------------------------------------------------- */

/* The server's part, by hand: a token, and where the counting stands. */
static struct line *welcomed(const char *token, const char *rest)
{
    struct line *l;
    char text[120];

    turns(3);
    l = line_add(sim_accept(SERVER));
    turns(2);
    snprintf(text, sizeof text, "w%s who %s", token, rest);
    line_say(l, text);
    turns(2);
    return l;
}

static void a_dialled_session_comes_back(void)
{
    rt_session s;
    struct line *l, *m;

    sim_serve(SERVER);
    st.d.framing = RT_RTNET1;
    st.d.resume = 1;
    s = xdial("tcp://127.0.0.1:9100");
    l = welcomed("AAAAAAAAAAAAAAAAAAAAAA", "0 0 new 15000");
    REACHED(st.opened == 1);
    xtext(s, "one");
    line_say(l, "mhi");
    turns(2);
    line_reset(l);
    turns(2);
    xtext(s, "two");
    pass(3000);
    m = welcomed("BBBBBBBBBBBBBBBBBBBBBA", "1 1 resumed 15000");
    line_say(m, "a2");
    turns(2);
    REACHED(m && st.backs == 1 && st.aways == 1);
    xclose(s, 1000, NULL);
    turns(4);
    line_reset(m);
    turns(2);
}

static void a_dialled_session_is_forgotten_by_its_server(void)
{
    rt_session s;
    struct line *l, *m;

    sim_serve(SERVER);
    st.d.framing = RT_RTNET1;
    st.d.resume = 1;
    s = xdial("tcp://127.0.0.1:9100");
    l = welcomed("AAAAAAAAAAAAAAAAAAAAAA", "0 0 new 15000");
    xtext(s, "one");
    turns(1);
    line_reset(l);
    pass(3000);
    m = welcomed("BBBBBBBBBBBBBBBBBBBBBA", "0 0 new 15000");
    turns(3);
    REACHED(m && st.opened == 2 && st.end.code == RT_CLOSE_EXPIRED);
    xclose(st.last, 1000, NULL);
    turns(3);
    line_reset(m);
    turns(2);
}

static void a_dialled_session_tries_again_and_again(void)
{
    rt_session s;
    struct line *l;

    sim_serve(SERVER);
    st.d.framing = RT_RTNET1;
    st.d.resume = 1;
    s = xdial("tcp://127.0.0.1:9100");
    l = welcomed("AAAAAAAAAAAAAAAAAAAAAA", "0 0 new 15000");
    line_say(l, "c1013 retry=20");
    turns(3);
    line_reset(l);
    pass(3000);
    l = line_add(sim_accept(SERVER));
    line_reset(l);
    pass(5000);
    l = line_add(sim_accept(SERVER));
    REACHED(l && rt_state(st.loop, s) == RT_AWAY);
    line_say(l, "c4503");
    turns(3);
    xclose(s, 0, NULL);
    turns(3);
}

/* Server and client of the same loop. */
static void both_ends_resume(void)
{
    rt_session s;

    st.o.resume_ms = 10000;
    st.d.resume = 1;
    st.silent = 1;
    door("ws://127.0.0.1:9000");
    s = xdial("ws://127.0.0.1:9000/");
    turns(8);
    REACHED(st.opened == 2);
    xtext(s, "one");
    turns(2);
    xdrop(rt_same(s, st.s[0]) ? st.s[1] : st.s[0], 4000, NULL);
    turns(2);
    xtext(s, "two");
    pass(5000);
    turns(4);
    REACHED(st.messages == 2 && st.backs == 2);
}

/* ---- hosts with their own protocol --------------------------------------- */

static char token[23];

static void a_host_keeps_and_adopts(void)
{
    ws_peer *w, *v;
    rt_session old;

    ws_door();
    w = entered();
    old = st.last;
    token[0] = 0;
    if (xkeep(old, 1000, token) == RT_ENOMEM)
        xkeep(old, 1000, token);
    xtext(old, "one");
    turns(2);
    reset(w);
    turns(2);
    xtext(old, "two");
    v = entered();
    say(v, "mine");
    turns(2);
    if (*token && rt_find_token(st.loop, token).id &&
        xadopt(old, st.last, 1) == RT_ENOMEM)
        xadopt(old, st.last, 1);
    turns(3);
    rt_acked(st.loop, old, 2);
    say(v, "again");
    turns(3);
    REACHED(st.backs == 1 && st.aways == 1 && mail_of(v)->count == 3);
    xkeep(old, 0, token);
    xclose(old, 0, NULL);
    turns(3);
}

static void a_host_adopts_one_that_is_open(void)
{
    ws_peer *w, *v;
    rt_session old;
    int i;

    st.o.message_rate = 100;
    door("ws://127.0.0.1:9000");
    w = entered();
    old = st.last;
    token[0] = 0;
    xkeep(old, 500, token);
    for (i = 0; i < 10; i++)
        bulk_sent(RT_BINARY);
    turns(2);
    v = entered();
    rt_bind(st.loop, st.last, "new");
    xadopt(old, st.last, RT_UNCOUNTED);
    turns(3);
    xtext(old, "live");
    turns(2);
    REACHED(st.backs == 1 && mail_of(v)->count >= 1 && mail_of(w)->count);
    reset(v);
    turns(2);
    pass(600);
    turns(2);
    REACHED(rt_state(st.loop, old) == RT_EGONE);
}

/* ---- user ids ------------------------------------------------------------ */

static void three_logins(const char *uid)
{
    int i;

    ws_door();
    for (i = 0; i < 3; i++) {
        entered();
        if (xbind(st.last, uid) == RT_ENOMEM)
            xbind(st.last, uid);
        turns(3);
    }
}

static void the_newest_login_wins(void)
{
    three_logins("mary");
    REACHED(rt_same(rt_find(st.loop, "mary"), st.s[2]));
    REACHED(st.end.code == RT_CLOSE_REPLACED);
    REACHED(xbind(st.s[2], "other") == RT_EBOUND);
}

static void refusing(void)
{
    st.loop_opts.bind_policy = RT_BIND_REFUSE;
}

static void a_second_login_is_refused(void)
{
    three_logins("mary");
    REACHED(rt_same(rt_find(st.loop, "mary"), st.s[0]));
    REACHED(!rt_uid(st.loop, st.s[1]));
}

static int misses;

static void missed(rt_loop *loop, const char *uid, int kind, const void *data,
                   size_t len)
{
    (void)loop;
    (void)uid;
    (void)kind;
    enter();
    misses += data != NULL && len == 5;
    leave();
}

static void two_at_most(void)
{
    st.loop_opts.bind_policy = RT_BIND_MANY;
    st.loop_opts.bind_max = 2;
    st.loop_opts.push_miss = missed;
}

static void some_logins_are_pushed_to_and_kicked(void)
{
    int n;

    misses = 0;
    three_logins("mary");
    n = rt_push(st.loop, "mary", RT_TEXT, "hello", 5);
    REACHED(n == 2);
    rt_push(st.loop, "john", RT_TEXT, "hello", 5);
    turns(3);
    REACHED(misses == 1);
    n = rt_kick(st.loop, "mary", 0, "out");
    turns(4);
    REACHED(n == 2 && st.end.code == RT_CLOSE_KICKED);
    if (rt_find(st.loop, "mary").id && n == 2)
        sim_fault("a kicked user is still there");
    turns(2);
}

static void logged_in(rt_session s, const rt_request *r)
{
    rt_accept_opts o = {"mary", NULL, NULL};

    (void)r;
    xaccept(s, &o);
}

/* A uid that is given at the upgrade, and sessions that come back. */
static void a_login_at_the_door_comes_back(void)
{
    ws_peer *w;

    st.on_request = logged_in;
    resumable();
    w = newcomer();
    REACHED(rt_same(rt_find(st.loop, "mary"), st.last));
    reset(w);
    turns(2);
    returning(w, 0, 1);
    REACHED(st.backs == 1 && st.opened == 1);
    newcomer();
    turns(2);
    REACHED(st.opened == 2 && st.end.code == RT_CLOSE_REPLACED);
}

#endif
