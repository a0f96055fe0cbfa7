/*
 * Where it gets hard: memory that fails in the middle of a resume, what the
 * callbacks may do there, what it costs, and the last limits.
 */
#ifndef RESUME_HARD_H
#define RESUME_HARD_H

#include "resume_cases.h"
#include "resume_client.h"

/* ---- memory -------------------------------------------------------------- */

/* The n-th allocation from now on fails; 0: none does. */
static int fail_at;

static void *failing_realloc(void *user, void *p, size_t old, size_t now)
{
    if (now > old && fail_at > 0 && --fail_at == 0)
        return NULL;
    return peer_realloc(user, p, old, now);
}

/* Lets the n-th allocation fail until all is quiet; true when there was an
   n-th. */
static int calm_failing(int n)
{
    int failed;
    fail_at = n;
    calm();
    failed = fail_at == 0;
    fail_at = 0;
    return failed;
}

/* What a resume without memory is tried with.  others: how many tokens there
   are beside, for the tables grow now and then; across: it comes over the other
   wire; again: and the next one over which. */
typedef struct {
    int others, across, again;
} shortage;

static void open_and_go(void)
{
    line_open(&st.b);
    say(&st.b, "h");
    HEARS(&st.b, NEW);
    say(&st.b, "a0");
    line_settle(&st.b);
    line_cut(&st.b);
    calm();
}

/* The session is as it was, or it has its new line; it is never lost, and
   nothing that it kept. */
static int resume_without_memory(int n, const shortage *how)
{
    const int wires[] = {st.wire, st.wire == WS ? TCP : WS};
    int i, failed, ports[2];
    st.loop_opts.realloc = failing_realloc;
    stage_and_open();
    ports[0] = st.port;
    ports[1] = stage_listen(wires[1], &st.opts);
    for (i = 0; i < how->others; i++)
        open_and_go();
    line_cut(&st.a);
    calm();
    send_run(0, 3, 600);
    CHECK(line_open_at(&st.b, wires[how->across], ports[how->across]));
    calm();
    say(&st.b, "h%s 0 1", st.a.w.token);
    failed = calm_failing(n);
    CHECK(strstr(st.told.s, "close") == NULL);
    CHECK(rt_state(st.loop, st.s[1]) == RT_AWAY ||
          rt_state(st.loop, st.s[1]) == RT_OPEN);
    line_hear(&st.b, 0);
    script_clear(&st.told);
    CHECK(line_open_at(&st.c, wires[how->again], ports[how->again]));
    say(&st.c, "h%s 0 2", st.a.w.token);
    HEARS(&st.c, run_words(BACK, 0, 3, 600));
    return failed;
}

static void resume_memory_table(int backend, int wire)
{
    static const shortage all[] = {
        {0, 0, 0}, {0, 1, 0}, {0, 1, 1},  {0, 0, 1},  {1, 0, 0},
        {2, 0, 0}, {3, 0, 0}, {4, 0, 0},  {5, 0, 0},  {6, 0, 0},
        {7, 0, 0}, {7, 1, 1}, {15, 0, 0}, {31, 0, 0},
    };
    size_t i;
    int n, failed;
    for (i = 0; i < sizeof all / sizeof *all; i++)
        for (n = 1, failed = 1; failed && n < 100; n++) {
            test_begin("a resume without memory, %d, case %d, %s", n, (int)i,
                       wire_names[wire]);
            stage_begin(backend, wire);
            failed = resume_without_memory(n, &all[i]);
            stage_end();
            test_end();
        }
}

/* The same for a client that is welcomed back. */
static int welcome_without_memory(int n)
{
    int failed, state;
    st.loop_opts.realloc = failing_realloc;
    dial_and_open();
    client_loses();
    send_run(0, 3, 600);
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    failed = calm_failing(n);
    state = rt_state(st.loop, st.s[1]);
    CHECK(strstr(st.told.s, "close") == NULL);
    CHECK(state == RT_AWAY || state == RT_OPEN);
    script_clear(&st.told);
    if (state == RT_AWAY) {
        line_retaken(&st.a);
        line_hear(&st.a, 1);
        CHECK(strncmp(st.a.script.s, "h:", 2) == 0);
        say_w(&st.a, 3, "who1 0 0 resumed 15000");
    }
    HEARS(&st.a, run_words("a0", 0, 3, 600));
    return failed;
}

static void welcome_memory_table(int backend, int wire)
{
    int n, failed = 1;
    for (n = 1; failed && n < 100; n++) {
        test_begin("a welcome without memory, %d, %s", n, wire_names[wire]);
        stage_begin(backend, wire);
        failed = welcome_without_memory(n);
        stage_end();
        test_end();
    }
}

/* What cannot be kept is numbered and forgotten, or refused without effect. */
static int send_without_memory(int n, int away)
{
    int rc, failed;
    st.loop_opts.realloc = failing_realloc;
    stage_and_open();
    if (away) {
        line_cut(&st.a);
        TOLD("away");
    }
    EQUAL(send_long(1, 'a', 600), 0);
    fail_at = n;
    rc = send_long(1, 'b', 600);
    failed = calm_failing(fail_at);
    if (!away) {
        line_hear(&st.a, 0);
        line_cut(&st.a);
        calm();
    }
    if (rt_state(st.loop, st.s[1]) < 0)
        return failed; /* without resume it would be no different */
    EQUAL(send_long(1, 'c', 600), 0);
    line_return(&st.b, &st.a.w, 0, 1);
    line_hear(&st.b, 1);
    if (strncmp(st.b.script.s, "w:0:0:resumed ", 14) == 0)
        SAME(st.b.script.s + 14,
             rc < 0 ? "ma#600 mc#600" : "ma#600 mb#600 mc#600");
    else
        SAME(st.b.script.s, rc < 0 ? "w:0:2:gap" : "w:0:3:gap");
    return failed;
}

static void send_memory_table(int backend, int wire)
{
    int n, away, failed;
    for (away = 0; away < 2; away++)
        for (n = 1, failed = 1; failed && n < 50; n++) {
            test_begin("rt_send without memory, %d, %s, %s", n,
                       away ? "away" : "connected", wire_names[wire]);
            stage_begin(backend, wire);
            failed = send_without_memory(n, away);
            stage_end();
            test_end();
        }
}

/* ---- what it costs ------------------------------------------------------- */

enum { CROWD = 256 };
static line crowd[CROWD];

/* The heap for so many idle sessions; typed: of rtnet.1. */
static size_t heap_of_crowd(int typed)
{
    size_t heap, i;
    st.opts.framing = RT_LENGTH;
    st.loop = rt_loop_new(&st.loop_opts);
    st.port = stage_listen(typed ? st.wire : WS, &st.opts);
    for (i = 0; i < CROWD; i++) {
        if (typed) {
            line_open(&crowd[i]);
            say(&crowd[i], "h");
            HEARS(&crowd[i], NEW);
            say(&crowd[i], "a0");
            line_settle(&crowd[i]);
        } else {
            CHECK(peer_ws(&crowd[i].p, st.loop, st.port, "/"));
        }
    }
    calm();
    heap = peer_heap;
    for (i = 0; i < CROWD; i++)
        line_free(&crowd[i]);
    rt_loop_free(st.loop);
    EQUAL(peer_heap, 0);
    script_clear(&st.told);
    return heap;
}

/* At most 80 bytes more than a plain one; both over WebSocket, since there is
   nothing plain that is like it over TCP. */
static void an_idle_session_costs_80_bytes_more(void)
{
    size_t plain, typed;
    st.opts.on = (rt_handler){.resume = on_resume};
    if (st.wire == TCP) {
        stage();
        return;
    }
    plain = heap_of_crowd(0);
    typed = heap_of_crowd(1);
    CHECK(typed > plain);
    CHECK(typed - plain <= 80 * CROWD);
    if (typed - plain > 80 * CROWD)
        printf("%d bytes each\n", (int)(typed - plain) / CROWD);
    st.loop = NULL;
    stage();
}

/* Each ring holds a reference: a broadcast is in memory once. */
static void rings_share_what_is_sent_to_all(void)
{
    enum { MEMBERS = 20, SIZE = 20000 };
    rt_group g;
    size_t heap;
    char *text = calloc(1, SIZE);
    int i;
    stage();
    g = rt_group_open(st.loop, "g", NULL);
    for (i = 0; i < MEMBERS; i++) {
        line_open(&crowd[i]);
        say(&crowd[i], "h");
        HEARS(&crowd[i], NEW);
        say(&crowd[i], "a0");
        line_settle(&crowd[i]);
        EQUAL(rt_group_join(st.loop, g, st.s[i + 1]), 0);
    }
    for (i = 0; i < MEMBERS / 2; i++)
        line_cut(&crowd[i]); /* one half is away */
    calm();
    heap = peer_heap;
    EQUAL(rt_group_send(st.loop, g, RT_BINARY, text, SIZE), MEMBERS);
    CHECK(peer_heap - heap < 2 * SIZE + MEMBERS * 500);
    calm();
    CHECK(peer_heap - heap < 2 * SIZE + MEMBERS * 500);
    heap = peer_heap;
    for (i = 0; i < MEMBERS / 2; i++) { /* nor does the replay copy it */
        line_return(&crowd[i], &crowd[i].w, 0, 1);
        calm();
    }
    CHECK(peer_heap < heap + SIZE + MEMBERS * 1000);
    for (i = 0; i < MEMBERS; i++)
        line_free(&crowd[i]);
    free(text);
}

static void a_message_larger_than_the_ring_goes_once(void)
{
    stage_and_open();
    CHECK(send_long(1, 'x', 2000000) >= 0);
    HEARS(&st.a, "mx#2000000");
    EQUAL(send_text(1, "y"), 0);
    HEARS(&st.a, "my");
    say(&st.a, "a1");
    line_settle(&st.a);
    line_cut(&st.a);
    told_all("writable away");
    line_return(&st.b, &st.a.w, 1, 1);
    HEARS(&st.b, "w:0:1:resumed my");
}

/* ---- a system that watches no more ----------------------------------------
 */

static int (*set_events)(rt_loop *loop, rt__source *source, int interest);

/* As epoll_ctl where max_user_watches is reached, or the kernel's memory. */
static int no_events(rt_loop *loop, rt__source *source, int interest)
{
    if (interest == 0)
        return set_events(loop, source, interest);
    errno = ENOSPC;
    return -1;
}

static void watch_no_more(void)
{
    set_events = st.loop->backend.set;
    st.loop->backend.set = no_events;
}

static void watch_again(void)
{
    st.loop->backend.set = set_events;
}

/* The server knows the session no more, and that of its new one the events
   cannot be asked for is found when the old one has been told its end. */
static void a_new_session_without_events_is_dialled_again(void)
{
    dial_and_open();
    client_loses();
    client_returns("h:1:0:1");
    watch_no_more();
    say_w(&st.a, 2, "who2 0 0 new 15000");
    TOLD("close:4503:0");
    watch_again();
    line_retaken(&st.a);
    HEARS(&st.a, "h");
    say_w(&st.a, 3, "who3 0 0 new 15000");
    HEARS(&st.a, "a0");
    TOLD("2.open");
}

/* As if it had waited for the socket, which has taken all: so there is
   something to ask for when h comes. */
static void wants_to_write(void)
{
    size_t fd;
    for (fd = 0; fd < st.loop->by_fd_cap; fd++) {
        rt__source *s = st.loop->by_fd[fd];
        if (!s || s->kind != RT__CONN_SOURCE)
            continue;
        EQUAL(st.loop->backend.set(st.loop, s, RT_READ | RT_WRITE), 0);
        s->interest = RT_READ | RT_WRITE;
    }
}

static void h_without_events(unsigned long long attempt)
{
    wants_to_write();
    watch_no_more();
    if (attempt)
        say(&st.b, "h%s 0 %llu", st.a.w.token, attempt);
    else
        say(&st.b, "h");
    line_await(&st.b);
    TOLD_NOW("");
    watch_again();
    CHECK(st.b.p.gone);
}

static void who_greets_without_events_is_nobody(void)
{
    stage();
    line_open(&st.b);
    h_without_events(0);
    EQUAL(st.loop->session_count, 0);
    EQUAL(st.loop->conn_count, 0);
    open_first();
}

static void who_comes_back_without_events_is_away(void)
{
    stage_and_open();
    line_cut(&st.a);
    TOLD("away");
    send_run(0, 3, 600);
    line_open(&st.b);
    h_without_events(1);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, run_words(BACK, 0, 3, 600));
    TOLD("back:0");
}

/* ---- what callbacks may do ----------------------------------------------- */

static const char *deed_in;
static int (*deed_done)(rt_session s);

static void does_it(const char *what, rt_session s)
{
    int (*deed)(rt_session s) = deed_done;
    if (strcmp(what, deed_in) != 0 || !deed)
        return;
    deed_done = NULL; /* once */
    EQUAL(deed(s), 0);
}

static void do_in(const char *what, int (*deed)(rt_session s))
{
    deed_in = what;
    deed_done = deed;
    st.deed = does_it;
}

static int drop_it(rt_session s)
{
    return rt_drop(st.loop, s, 4000, NULL);
}

static int close_it(rt_session s)
{
    return rt_close(st.loop, s, 3999, NULL);
}

static int send_it(rt_session s)
{
    return rt_send(st.loop, s, RT_TEXT, "deed", 4);
}

static int close_fresh(rt_session s)
{
    (void)s;
    return rt_close(st.loop, st.from, 3999, NULL);
}

static int drop_fresh(rt_session s)
{
    (void)s;
    EQUAL(rt_drop(st.loop, st.from, 4000, NULL), RT_ESTATE);
    return 0;
}

static void on_back_may_lose_it_again(void)
{
    stage_and_lose();
    EQUAL(send_text(1, "x"), 0);
    do_in("back", drop_it);
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:0 away");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    line_return(&st.c, &st.a.w, 0, 2); /* its w may never have come */
    HEARS(&st.c, BACK " mx");
    TOLD("back:0");
}

static void on_away_may_lose_the_new_line(void)
{
    stage_and_open();
    do_in("away", drop_it);
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("away");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    line_return(&st.c, &st.a.w, 0, 2);
    HEARS(&st.c, BACK);
    TOLD("back:0");
}

static void on_open_may_lose_it(void)
{
    stage();
    do_in("open", drop_it);
    line_open(&st.a);
    say(&st.a, "h");
    TOLD("open away");
    line_hear(&st.a, 0);
    CHECK(st.a.closed == 4000);
}

static void in_resume_it_may_end(void)
{
    stage_and_lose();
    do_in("resume", close_it);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, NEW);
    TOLD("2.open close:3999:0");
}

static void in_resume_its_old_line_may_be_dropped(void)
{
    stage_and_open();
    do_in("resume", drop_it);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK);
    TOLD("away back:0");
    HEARS(&st.a, "c4000");
}

static void in_resume_one_may_send(void)
{
    stage_and_lose();
    EQUAL(send_text(1, "x"), 0);
    do_in("resume", send_it);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK " mx mdeed");
    TOLD("back:0");
}

static void in_resume_the_fresh_one_may_be_closed(void)
{
    stage_and_lose();
    do_in("resume", close_fresh);
    line_return(&st.b, &st.a.w, 0, 1);
    CHECK(peer_ended(&st.b.p));
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    comes_back(&st.c, &st.a.w, 1);
}

static void in_resume_the_fresh_one_has_nothing_to_lose(void)
{
    stage_and_lose();
    do_in("resume", drop_fresh);
    comes_back(&st.b, &st.a.w, 1);
}

/* ---- the last limits ----------------------------------------------------- */

/* 20 in any 10 s, not 20 in each. */
static void no_ten_seconds_have_more_than_twenty(void)
{
    line *const two[] = {&st.b, &st.c};
    welcome w;
    int i, late = 0;
    st.opts.resume_ms = 60000;
    stage_and_lose();
    w = st.a.w;
    for (i = 0; i < 25; i++) {
        if (i == 1)
            skip(9000); /* the first alone, the others close together */
        if (i == 15)
            skip(1100);
        line_return(two[i & 1], &w, 0, (unsigned long long)i + 1);
        line_hear(two[i & 1], 1);
        late += two[i & 1]->closed == 1013;
        if (two[i & 1]->closed)
            continue;
        say(two[i & 1], "a0");
        line_settle(two[i & 1]);
        w = two[i & 1]->w;
    }
    EQUAL(late, 25 - 21); /* the first is more than 10 s ago at the end */
}

/* Until its first a a connection is a handshake in progress. */
static void one_that_does_not_confirm_is_a_handshake(void)
{
    st.opts.max_handshakes = 2;
    stage();
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, NEW);
    line_open(&st.b);
    say(&st.b, "h");
    HEARS(&st.b, NEW);
    TOLD("open 2.open");
    CHECK(line_connect(&st.c, st.wire, st.port)); /* the oldest goes */
    calm();
    TOLD("away");
    say(&st.b, "a0");
    line_settle(&st.b);
    EQUAL(rt_state(st.loop, st.s[2]), RT_OPEN);
}

/* As if so many were away. */
static void others_away(int n)
{
    st.loop->away_count += (uint32_t)n;
}

static void too_many_away_unbound(void)
{
    stage_and_open();
    open_second();
    others_away(RT__AWAY_MOST - 1);
    line_cut(&st.a);
    TOLD("away");
    line_cut(&st.b); /* nobody knows who that was */
    calm();
    CHECK(strstr(st.told.s, "2.close:") != NULL);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    others_away(-(RT__AWAY_MOST - 1));
}

static void too_many_away_bound(void)
{
    stage_and_open();
    open_second();
    EQUAL(rt_bind(st.loop, st.s[2], "u"), 0);
    others_away(RT__AWAY_MOST - 1);
    line_cut(&st.a);
    TOLD("away");
    line_cut(&st.b); /* the unbound one longest away makes room */
    calm();
    CHECK(strstr(st.told.s, "2.away") != NULL);
    CHECK(strstr(st.told.s, "close:") != NULL);
    CHECK(strstr(st.told.s, "2.close:") == NULL);
    EQUAL(rt_state(st.loop, st.s[1]), RT_EGONE);
    EQUAL(rt_state(st.loop, st.s[2]), RT_AWAY);
    others_away(-(RT__AWAY_MOST - 1));
}

/* One that is bound while away is no longer an unbound one. */
static void too_many_away_bound_late(void)
{
    stage_and_open();
    open_second();
    EQUAL(rt_bind(st.loop, st.s[2], "u"), 0);
    others_away(RT__AWAY_MOST - 1);
    line_cut(&st.a);
    TOLD("away");
    EQUAL(rt_bind(st.loop, st.s[1], "v"), 0);
    line_cut(&st.b);
    calm();
    CHECK(strstr(st.told.s, "2.close:") != NULL);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    others_away(-(RT__AWAY_MOST - 1));
}

/* A stranger that speaks plainly cannot be put under one that counts. */
static void what_speaks_rtnet1_is_not_adopted(void)
{
    if (st.wire == TCP)
        return;
    stage_and_open();
    CHECK(peer_ws(&st.b.p, st.loop, st.port, "/"));
    TOLD("2.open");
    EQUAL(send_text(1, "x"), 0);
    CHECK(rt_adopt(st.loop, st.s[1], st.s[2], 0) < 0);
    CHECK(rt_adopt(st.loop, st.s[2], st.s[1], 0) < 0);
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    EQUAL(rt_state(st.loop, st.s[2]), RT_OPEN);
    HEARS(&st.a, "mx");
}

/* ---- clients ------------------------------------------------------------- */

static void retry_0_is_at_once(void)
{
    stage_dial();
    client_opens();
    say(&st.a, "c1013 retry=0");
    TOLD("away");
    skip(1);
    CHECK(somebody_came(&st.b));
}

/* A server that asks for a sign of life every 0 ms asks too much. */
static void a_ping_of_0_does_not_spin(void)
{
    int i, heard = 0;
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    say_w(&st.a, 1, "who1 0 0 new 0");
    for (i = 0; i < 200; i++) {
        rt_poll(st.loop, 0);
        st.a.waits = 0;
        peer_take(&st.a.p);
        heard += line_next(&st.a);
    }
    CHECK(heard > 0 && heard < 10);
    script_clear(&st.told);
    if (!test_bad) /* else it never rests */
        both_ways(1);
}

static int asked_for_names;

static int on_resolve(rt_loop *loop, const char *name, rt_session s)
{
    SAME(name, "game.test");
    asked_for_names++;
    return rt_resolved(loop, s, "127.0.0.1");
}

static void a_client_may_go_by_a_name(void)
{
    char url[64];
    asked_for_names = 0;
    st.loop_opts.resolve = on_resolve;
    st.loop = rt_loop_new(&st.loop_opts);
    st.listening = peer_listen(&st.port);
    snprintf(url, sizeof url, "%s://game.test:%d",
             st.wire == TCP ? "tcp" : "ws", st.port);
    st.s[1] = rt_dial(st.loop, url, &st.dial);
    st.count = 1;
    CHECK(st.s[1].id != 0);
    client_opens();
    client_loses();
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    HEARS(&st.a, "a0");
    TOLD("back:0");
    CHECK(asked_for_names >= 1);
    both_ways(1);
}

/* The server is down for a while. */
static void a_client_waits_for_its_server(void)
{
    struct sockaddr_in a;
    int i, on = 1;
    stage_dial();
    client_opens();
    close(st.listening);
    client_loses();
    for (i = 0; i < 100; i++)
        skip(1000);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons((uint16_t)st.port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    st.listening = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(st.listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    EQUAL(bind(st.listening, (struct sockaddr *)&a, sizeof a), 0);
    EQUAL(listen(st.listening, 4), 0);
    fcntl(st.listening, F_SETFL, O_NONBLOCK);
    client_returns("h:1:0:1"); /* no h was said meanwhile */
}

/* Whoever dials a server that is down may still give up. */
static void a_client_that_never_connected_may_end(void)
{
    int i;
    stage_dial();
    close(st.listening);
    st.listening = -1;
    for (i = 0; i < 100; i++)
        skip(1000);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPENING);
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    TOLD("close:1000:0");
}

/* ---- all ----------------------------------------------------------------- */

static void memory_tables(int wire)
{
    resume_memory_table(RT_AUTO, wire);
    welcome_memory_table(RT_AUTO, wire);
    send_memory_table(RT_AUTO, wire);
}

static void hard_cases(void)
{
    int wire;
    for (wire = 0; wire < WIRES; wire++)
        memory_tables(wire);
    RUN_WIRES(a_new_session_without_events_is_dialled_again);
    RUN_WIRES(who_greets_without_events_is_nobody);
    RUN_WIRES(who_comes_back_without_events_is_away);
    RUN_WIRES(an_idle_session_costs_80_bytes_more);
    RUN_WIRES(rings_share_what_is_sent_to_all);
    RUN_WIRES(a_message_larger_than_the_ring_goes_once);
    RUN_WIRES(on_back_may_lose_it_again);
    RUN_WIRES(on_away_may_lose_the_new_line);
    RUN_WIRES(on_open_may_lose_it);
    RUN_WIRES(in_resume_it_may_end);
    RUN_WIRES(in_resume_its_old_line_may_be_dropped);
    RUN_WIRES(in_resume_one_may_send);
    RUN_WIRES(in_resume_the_fresh_one_may_be_closed);
    RUN_WIRES(in_resume_the_fresh_one_has_nothing_to_lose);
    RUN_WIRES(no_ten_seconds_have_more_than_twenty);
    RUN_WIRES(one_that_does_not_confirm_is_a_handshake);
    RUN_WIRES(too_many_away_unbound);
    RUN_WIRES(too_many_away_bound);
    RUN_WIRES(too_many_away_bound_late);
    RUN_WIRES(what_speaks_rtnet1_is_not_adopted);
    RUN_WIRES(retry_0_is_at_once);
    RUN_WIRES(a_ping_of_0_does_not_spin);
    RUN_WIRES(a_client_may_go_by_a_name);
    RUN_WIRES(a_client_waits_for_its_server);
    RUN_WIRES(a_client_that_never_connected_may_end);
}

#endif
