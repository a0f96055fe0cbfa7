/*
 * Every call on a group from inside every callback: for each pair one play in
 * which each callback is told at least once, and in the first telling of the
 * one in question the call is made.  Whatever the play then finds, no call may
 * run a callback, each answer must agree with what is there behind it, and
 * all must be in order when the play is over.  Part of test_group.c.
 */
#ifndef GROUP_PAIRS_H
#define GROUP_PAIRS_H

static struct {
    const char *in; /* the callback */
    int call;       /* what is done in it, an index of pair_calls */
    int left;       /* so often yet */
    int inside;     /* a call is being made */
    int shut;       /* it shut the loop down: nothing more comes in */
    int drained;
} pair;

/* ---- the calls ----------------------------------------------------------- */

static size_t pair_count(void)
{
    return rt_group_count(st.loop, group);
}

static int is_member(rt_session s)
{
    rt_session all[SESSIONS];
    size_t i, n = rt_group_members(st.loop, group, all, SESSIONS);
    for (i = 0; i < n && i < SESSIONS; i++)
        if (rt_same(all[i], s))
            return 1;
    return 0;
}

static int is_one(rt_session s)
{
    int state = rt_state(st.loop, s);
    return state == RT_OPEN || state == RT_AWAY;
}

static void pair_join(rt_session s, int from)
{
    int in = is_member(s), one = is_one(s), n;
    size_t before = pair_count();
    n = from ? rt_group_join_from(st.loop, group, s, NULL)
             : rt_group_join(st.loop, group, s);
    if (in)
        EQUAL(n, RT_EEXIST);
    else if (!one || !rt_group_name(st.loop, group))
        CHECK(n == RT_EGONE || n == RT_ESTATE);
    else
        CHECK(n >= 0);
    EQUAL(pair_count(), before + (n >= 0));
    EQUAL(is_member(s), in || n >= 0);
}

static void join_self(rt_session s)
{
    pair_join(s, 0);
}

static void join_other(rt_session s)
{
    (void)s;
    pair_join(st.s[3], 0);
}

static void join_self_from(rt_session s)
{
    pair_join(s, 1);
}

static void join_other_from(rt_session s)
{
    (void)s;
    pair_join(st.s[3], 1);
}

static void leave_self(rt_session s)
{
    int in = is_member(s), n = rt_group_leave(st.loop, group, s);
    CHECK(in ? n == 0 : n < 0);
    CHECK(!is_member(s));
    CHECK(rt_group_leave(st.loop, group, s) < 0);
}

static void leave_all(rt_session s)
{
    rt_session all[SESSIONS];
    size_t n = rt_group_members(st.loop, group, all, SESSIONS);
    (void)s;
    while (n-- > 0) {
        EQUAL(rt_group_leave(st.loop, group, all[n]), 0);
        EQUAL(pair_count(), n);
    }
}

static void close_it(rt_session s)
{
    int one = is_one(s), n = rt_close(st.loop, s, 4000, "pair");
    if (one)
        EQUAL(n, 0);
    if (n == 0 || one) {
        CHECK(!is_member(s));
        EQUAL(rt_close(st.loop, s, 4000, "pair"), RT_EGONE);
    }
}

static void close_other(rt_session s)
{
    close_it(rt_same(s, st.s[1]) ? st.s[2] : st.s[1]);
}

static void close_members(rt_session s)
{
    rt_session all[SESSIONS];
    size_t n = rt_group_members(st.loop, group, all, SESSIONS);
    (void)s;
    while (n-- > 0) {
        sends("bye");
        close_it(all[n]);
    }
    EQUAL(pair_count(), 0);
    EQUAL(sends("nobody") > 0, 0);
}

static void drop_it(rt_session s)
{
    int in = is_member(s), state = rt_state(st.loop, s);
    int n = rt_drop(st.loop, s, 4000, "pair");
    EQUAL(n == 0, state == RT_OPEN);
    EQUAL(is_member(s), in); /* who is away stays */
}

static void drop_members(rt_session s)
{
    rt_session all[SESSIONS];
    size_t n = rt_group_members(st.loop, group, all, SESSIONS);
    (void)s;
    while (n-- > 0) {
        drop_it(all[n]);
        sends("gone?");
    }
}

static void kick_two(rt_session s)
{
    int one = is_one(st.s[2]);
    (void)s;
    EQUAL(rt_kick(st.loop, "two", 0, NULL), one);
    CHECK(!is_member(st.s[2]));
}

static void send_all_ways(rt_session s)
{
    rt_session all[SESSIONS];
    size_t n = rt_group_members(st.loop, group, all, SESSIONS);
    rt_position before = position();
    int there = rt_group_name(st.loop, group) != NULL;
    int most = there ? (int)n : RT_EGONE, i;
    CHECK(sends("in") <= most && once("pair", "in", NULL) <= most);
    i = once("pair", "in", NULL);
    EQUAL(i, there ? RT_EEXIST : RT_EGONE);
    CHECK(rt_group_send_but(st.loop, group, s, RT_TEXT, "in", 2) <= most);
    CHECK(keyed(7, "in") <= most);
    CHECK(send_to(RT_TEXT | RT_DROPPABLE, "in") <= most);
    CHECK(rt_group_deliver(st.loop, "g", RT_TEXT, "in", 2) <= most);
    CHECK(rt_send_many(st.loop, all, n, RT_TEXT, "in", 2) <= (int)n);
    EQUAL(position().offset, before.offset + (there ? 4 : 0));
}

/* So much that members end in the call. */
static void send_too_much(rt_session s)
{
    static char text[3000];
    int i;
    (void)s;
    memset(text, 'x', sizeof text);
    for (i = 0; i < 8; i++)
        CHECK(rt_group_send(st.loop, group, RT_BINARY, text, sizeof text) <=
              (int)pair_count() + 3);
}

static void end_group(rt_session s)
{
    int there = rt_group_name(st.loop, group) != NULL;
    (void)s;
    EQUAL(rt_group_close(st.loop, group), there ? 0 : RT_EGONE);
    EQUAL(rt_group_close(st.loop, group), RT_EGONE);
    EQUAL(sends("x"), RT_EGONE);
    EQUAL(pair_count(), 0);
    CHECK(rt_group_name(st.loop, group) == NULL);
}

static void reopen_group(rt_session s)
{
    end_group(s);
    group = rt_group_open(st.loop, "g", &busy);
    EQUAL(pair_count(), 0);
    EQUAL(position().offset, 0);
    pair_join(st.s[3], 0);
    sends("new");
}

static void adopt_another(rt_session s)
{
    rt_session old = rt_same(s, st.s[1]) ? st.s[2] : st.s[1];
    int in = is_member(old), n = rt_adopt(st.loop, old, st.s[3], RT_UNCOUNTED);
    CHECK(n <= 0);
    EQUAL(is_member(old), in);
    if (n == 0)
        CHECK(!is_member(st.s[3]));
}

static void shut_down(rt_session s)
{
    (void)s;
    pair.shut = 1;
    EQUAL(rt_shutdown(st.loop, 0), 0);
    EQUAL(rt_listen(st.loop, "tcp://127.0.0.1:0", NULL).id, 0);
}

static const struct {
    const char *name;
    void (*make)(rt_session self);
} pair_calls[] = {
    {"join", join_self},
    {"join another", join_other},
    {"join from", join_self_from},
    {"join another from", join_other_from},
    {"leave", leave_self},
    {"leave, all of them", leave_all},
    {"close", close_it},
    {"close another", close_other},
    {"close all members", close_members},
    {"drop", drop_it},
    {"drop all members", drop_members},
    {"kick", kick_two},
    {"send", send_all_ways},
    {"send too much", send_too_much},
    {"end the group", end_group},
    {"end the group and open it again", reopen_group},
    {"adopt", adopt_another},
    {"shut down", shut_down},
};

/* ---- the callbacks ------------------------------------------------------- */

static const char *const pair_froms[] = {
    "open",   "message", "filter", "writable", "limit",  "away", "back",
    "resume", "close",   "event",  "first",    "last",   "out",  "evict",
    "timer",  "post",    "miss",   "drained",  "request"};

static void pair_told(const char *what, rt_session s)
{
    CHECK(!pair.inside); /* no call runs a callback */
    if (strcmp(what, pair.in) != 0 || pair.left == 0)
        return;
    pair.left = 0;
    pair.inside = 1;
    pair_calls[pair.call].make(s.id ? s : st.s[1]);
    pair.inside = 0;
}

/* Who is dropped in a filter is away when the message is told. */
static void pair_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    CHECK(is_one(s));
    (void)loop;
    (void)kind;
    (void)data;
    (void)len;
    act("message", s);
}

static void pair_limit(rt_loop *loop, rt_session s, int what)
{
    (void)loop;
    EQUAL(what, RT_LIMIT_MESSAGES);
    act("limit", s);
}

static int pair_filter(rt_loop *loop, rt_session s, rt_message *message)
{
    (void)loop;
    (void)message;
    act("filter", s);
    return 0;
}

static int pair_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)loop;
    (void)r;
    act("request", s);
    return 0;
}

static void pair_tick(rt_loop *loop, void *arg)
{
    (void)loop;
    act(arg, nobody);
}

static void pair_miss(rt_loop *loop, const char *uid, int kind,
                      const void *data, size_t len)
{
    (void)loop;
    (void)kind;
    (void)data;
    CHECK(strcmp(uid, "stranger") == 0);
    EQUAL(len, 1);
    act("miss", nobody);
}

static void pair_drained(rt_loop *loop)
{
    (void)loop;
    pair.drained++;
    act("drained", nobody);
}

/* ---- the play ------------------------------------------------------------ */

/* Nobody comes in any more, or this one was closed before it was in. */
static int pair_open(line *l)
{
    int done = pair.left == 0, in = !pair.shut;
    in = in && line_open_at(l, st.wire, st.port);
    CHECK(in || pair.shut || (!done && pair.left == 0));
    calm();
    return in;
}

static void pair_enter(line *l)
{
    if (!pair_open(l))
        return;
    say(l, "h");
    line_hear(l, 1);
    say(l, "a0");
    calm();
}

static void pair_return(line *l)
{
    welcome w = l->w;
    line_cut(l);
    calm();
    if (!pair_open(l))
        return;
    say(l, "h%s 0 1", w.token);
    calm();
    line_hear(l, 0);
    say(l, "a0");
    calm();
}

static void pair_begin(void)
{
    st.loop_opts.push_miss = pair_miss;
    st.loop_opts.drained = pair_drained;
    st.opts.on.message = pair_message;
    st.opts.on.limit = pair_limit;
    st.opts.on.request = pair_request;
    st.opts.filter[0] = pair_filter;
    st.opts.message_rate = st.opts.message_burst = 3;
    st.opts.rate_over = RT_OVER_DROP;
    st.opts.soft_mark = 2000;
    st.opts.hard_mark = 20000;
    memset(&busy, 0, sizeof busy);
    busy.history = 1;
    busy.snapshot = 2;
    busy.event = on_event;
    stage();
    group = rt_group_open(st.loop, "g", &busy);
    st.deed = pair_told;
}

/* A member comes, talks, talks too much, goes and comes back. */
static void pair_live(void)
{
    int i;
    pair_enter(&st.a);
    rt_group_join(st.loop, group, st.s[1]);
    pair_enter(&st.b);
    rt_bind(st.loop, st.s[2], "two");
    rt_group_join(st.loop, group, st.s[2]);
    pair_enter(&st.c);
    keyed(1, "k"), sends("1"), sends("2");
    calm();
    for (i = 0; i < 5; i++)
        say(&st.a, "mhello");
    calm();
    send_long(1, 'x', 3000);
    rt_timer_start(st.loop, nobody, 0, pair_tick, "timer");
    rt_post(st.loop, pair_tick, "post");
    rt_push(st.loop, "stranger", RT_TEXT, "x", 1);
    calm();
    pair_return(&st.b);
}

/* And all are gone. */
static void pair_part(void)
{
    rt_session s = {0};
    rt_group_leave(st.loop, group, st.s[1]);
    rt_group_leave(st.loop, group, st.s[2]);
    rt_group_leave(st.loop, group, st.s[3]);
    calm();
    rt_close(st.loop, st.s[1], 0, NULL);
    calm();
    while ((s = rt_next_session(st.loop, s)).id)
        rt_close(st.loop, s, 0, NULL);
    calm();
}

/* A newcomer is served as ever, where one can come in. */
static void pair_after(void)
{
    const char *words;
    if (pair.shut)
        return;
    line_free(&st.c);
    st.deed = NULL;
    group = rt_group_open(st.loop, "g", &busy);
    EQUAL(pair_count(), 0);
    pair_enter(&st.c);
    EQUAL(rt_state(st.loop, st.s[st.count]), RT_OPEN);
    EQUAL(rt_group_join(st.loop, group, st.s[st.count]), 0);
    EQUAL(sends("after"), 1);
    words = line_hear(&st.c, 1);
    CHECK(strstr(words, "mafter") || strstr(line_hear(&st.c, 1), "mafter"));
}

static void pair_play(void)
{
    int i;
    pair_begin();
    pair_live();
    if (!pair.shut)
        pair_part();
    if (strcmp(pair.in, "drained") == 0) {
        rt_shutdown(st.loop, 0);
        pair.shut = 1;
        line_free(&st.a);
        line_free(&st.b);
        line_free(&st.c);
        CHECK(peer_until(st.loop, &pair.drained, 1));
    }
    EQUAL(pair.left, 0);
    pair_after();
    for (i = 1; i <= st.count; i++)
        CHECK(balance[i] == 0 || balance[i] == 1);
}

static void pair_cases(void)
{
    size_t in;
    int call, calls = (int)(sizeof pair_calls / sizeof *pair_calls), wire;
    for (in = 0; in < sizeof pair_froms / sizeof *pair_froms; in++)
        for (call = 0; call < calls; call++)
            for (wire = 0; wire < WIRES; wire++) {
                if (wire == TCP && strcmp(pair_froms[in], "request") == 0)
                    continue;
                test_begin("%s inside %s, %s", pair_calls[call].name,
                           pair_froms[in], wire_names[wire]);
                memset(&pair, 0, sizeof pair);
                memset(balance, 0, sizeof balance);
                pair.in = pair_froms[in];
                pair.call = call;
                pair.left = 1;
                set_up(wire);
                pair_play();
                tear_down();
                test_end();
            }
}

#endif
