/*
 * A session and the connection that it began on share a block, and parts of it
 * have different meanings at different times: what comes and goes there while
 * the session passes from line to line, and who ends first.
 */
#ifndef RESUME_BLOCKS_H
#define RESUME_BLOCKS_H

#include "resume_hard.h"

/* ---- what few sessions have ---------------------------------------------- */

static void no_timer(rt_loop *loop, void *arg)
{
    (void)loop;
    (void)arg;
    script_add(&st.told, "timer"); /* which is far too early */
}

static rt_timer timer_of_first(void)
{
    rt_timer t = rt_timer_start(st.loop, st.s[1], rt_now(st.loop) + 86400000,
                                no_timer, NULL);
    CHECK(t.id != 0);
    return t;
}

/* A message that is not counted, and counts for the limits. */
static void one_message(line *l)
{
    say(l, "ux");
    TOLD("mx");
}

/* On the first line for the first time, then on the other of the two. */
static line *other_line(line *l)
{
    line *next = l == &st.a ? &st.b : &st.a;
    welcome w = l->w;
    line_cut(l);
    TOLD("away");
    comes_back(next, &w, 1);
    return next;
}

/* u: a message, which the limits remember; t, T: a timer begins, and is
   stopped; b: bound to a user id.  What it keeps is found behind each. */
static void whatever_it_has_it_comes_back(const char *steps)
{
    line *l = &st.a;
    rt_timer t = {0};
    st.opts.message_rate = 1000;
    stage_and_open();
    for (; *steps; steps++) {
        if (*steps == 'u')
            one_message(l);
        else if (*steps == 't')
            t = timer_of_first();
        else if (*steps == 'T')
            EQUAL(rt_timer_stop(st.loop, t), 0);
        else
            EQUAL(rt_bind(st.loop, st.s[1], "me"), 0);
        l = other_line(l);
    }
    EQUAL(rt_close(st.loop, st.s[1], 3999, "over"), 0);
    TOLD("close:3999:0");
    EQUAL(rt_timer_stop(st.loop, t), RT_EGONE);
}

static void limits_before_a_timer(void)
{
    whatever_it_has_it_comes_back("utTutT");
}

static void a_timer_before_limits(void)
{
    whatever_it_has_it_comes_back("tuTuttT");
}

static void limits_within_a_timer_and_a_user_id(void)
{
    whatever_it_has_it_comes_back("tTtubTtTu");
}

static const char *uid_was;

static void uid_is_where_it_was(const char *what, rt_session s)
{
    if (strcmp(what, "close") != 0)
        return;
    CHECK(rt_uid(st.loop, s) == uid_was);
    SAME(rt_uid(st.loop, s), "me");
}

static void a_user_id_stays_where_it_is(void)
{
    rt_timer t;
    stage_and_open();
    EQUAL(rt_timer_stop(st.loop, timer_of_first()), 0);
    EQUAL(rt_bind(st.loop, st.s[1], "me"), 0);
    uid_was = rt_uid(st.loop, st.s[1]);
    SAME(uid_was, "me");
    t = timer_of_first();
    other_line(&st.a);
    EQUAL(rt_timer_stop(st.loop, t), 0);
    CHECK(rt_uid(st.loop, st.s[1]) == uid_was);
    st.deed = uid_is_where_it_was;
    EQUAL(rt_close(st.loop, st.s[1], 3999, "over"), 0);
    TOLD("close:3999:0");
}

/* ---- a place for two ----------------------------------------------------- */

static void knows_no_trip(const char *what, rt_session s)
{
    uint32_t rtt;
    (void)what;
    EQUAL(rt_rtt(st.loop, s, &rtt, NULL), RT_ESTATE);
}

/* Where a handshake is, there is no round trip yet: neither while it is told of
   nor before it is confirmed, be the pings answered or not. */
static void the_round_trip_is_not_the_handshake(void)
{
    uint32_t rtt = 0;
    stage();
    st.deed = knows_no_trip;
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, NEW);
    knows_no_trip("", st.s[1]);
    say(&st.a, "a0");
    calm();
    st.deed = NULL;
    skip(15001);
    line_await(&st.a);
    HEARS(&st.a, "a0");
    calm();
    EQUAL(rt_rtt(st.loop, st.s[1], &rtt, NULL), 0);
    CHECK(rtt > 0 && rtt < 15000000);
    st.deed = knows_no_trip;
    line_cut(&st.a);
    calm();
    knows_no_trip("", st.s[1]);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK);
    knows_no_trip("", st.s[1]);
    say(&st.b, "a0");
    calm();
    knows_no_trip("", st.s[1]);
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    calm();
}

/* ---- who ends first ------------------------------------------------------ */

static void close_first(void)
{
    EQUAL(rt_close(st.loop, st.s[1], 3999, "over"), 0);
}

static void line_first(void)
{
    line_cut(&st.b);
    calm();
    close_first();
}

static void session_first(void)
{
    close_first();
    calm();
    line_cut(&st.b);
}

static void both_in_one_turn(void)
{
    line_cut(&st.b);
    close_first();
}

static void in_on_away(void)
{
    do_in("away", close_it);
    line_cut(&st.b);
}

static void in_on_back(void)
{
    do_in("back", close_it);
    line_return(&st.c, &st.b.w, 0, 1);
}

static void lost_in_on_back(void)
{
    do_in("back", drop_it);
    line_return(&st.c, &st.b.w, 0, 1);
    calm();
    close_first();
}

static void lost_while_taken_over(void)
{
    do_in("away", drop_it);
    line_return(&st.c, &st.b.w, 0, 1);
    calm();
    close_first();
}

/* The session is in the first line's block, its connection in the second's; one
   of another session is in neither. */
static void ends_so(void (*end)(void))
{
    welcome w;
    stage_and_open();
    w = st.a.w;
    line_return(&st.b, &w, 0, 1);
    HEARS(&st.b, BACK);
    say(&st.b, "a0");
    TOLD("away back:0");
    line_cut(&st.a); /* its block keeps the session alone */
    skip(5001);
    is_stranger(&st.a, &w, 1);
    end();
    calm();
    EQUAL(st.closes[1], 1);
    EQUAL(rt_state(st.loop, st.s[2]), RT_OPEN);
}

static void a_session_and_its_line_end_in_any_order(void)
{
    static void (*const ends[])(void) = {
        line_first, session_first,   both_in_one_turn,      in_on_away,
        in_on_back, lost_in_on_back, lost_while_taken_over, close_first,
    };
    size_t i;
    for (i = 0; i < sizeof ends / sizeof *ends; i++) {
        int backend = st.backend, wire = st.wire;
        ends_so(ends[i]);
        stage_end();
        stage_begin(backend, wire);
    }
    stage();
}

/* A listener's options live as long as somebody that it let in: one who is away
   when it stops comes back by another one, and then no line of it is left. */
static void a_session_outlives_its_listener(void)
{
    welcome w;
    stage_and_open();
    w = st.a.w;
    EQUAL(rt_unlisten(st.loop, st.listener), 0);
    line_cut(&st.a);
    TOLD("away");
    st.opts.ping_ms = 14000;
    st.port = stage_listen(st.wire, &st.opts);
    comes_back(&st.b, &w, 1);
    EQUAL(rt_unlisten(st.loop, st.listener), 0);
    skip(13000);
    one_message(&st.b);
    line_cut(&st.b);
    TOLD("away");
    skip(2001); /* the window is that of the first */
    TOLD("close:4503:0");
}

static void block_cases(void)
{
    RUN_WIRES(limits_before_a_timer);
    RUN_WIRES(a_timer_before_limits);
    RUN_WIRES(limits_within_a_timer_and_a_user_id);
    RUN_WIRES(a_user_id_stays_where_it_is);
    RUN_WIRES(the_round_trip_is_not_the_handshake);
    RUN_WIRES(a_session_and_its_line_end_in_any_order);
    RUN_WIRES(a_session_outlives_its_listener);
}

#endif
