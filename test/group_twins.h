/*
 * Twins: two loops with the same members in the same groups, and a host that
 * does the same to both, at random.  In one of them the members may wait as a
 * crowd, in the other the soft mark is too low for that.  What each call
 * answers, what each member gets and loses, and what the metrics say has to be
 * the same.  Part of test_group.c.
 */
#ifndef GROUP_TWINS_H
#define GROUP_TWINS_H

enum { TWINS = 8, GROUPS = 3, TWIN_STEPS = 3000, TWIN_MOST = 24000 };

typedef struct {
    rt_loop *loop;
    rt_listener listener;
    peer p[TWINS + 1];
    rt_session s[TWINS + 1];
    rt_group g[GROUPS];
    uint64_t ends, lost; /* of all that ended, as a sum and a hash */
    int opened;
} twin;

static twin twins[2];
static size_t twin_bytes; /* of this turn, at most */

static void twin_open(rt_loop *loop, rt_session s)
{
    twin *t = (twin *)rt_context(loop, s);
    t->s[0] = s;
    t->opened++;
}

static void twin_close(rt_loop *loop, rt_session s, const rt_end *end)
{
    twin *t = (twin *)rt_context(loop, s);
    t->ends = t->ends * 31 + (uint64_t)end->code * 8 + (uint64_t)end->cause;
    t->lost += end->lost;
}

static void twin_connect(twin *t, int number)
{
    int before = t->opened;
    if (t->p[number].loop)
        peer_end(&t->p[number]);
    CHECK(peer_ws(&t->p[number], t->loop,
                  rt_listener_port(t->loop, t->listener), "/"));
    peer_until(t->loop, &t->opened, before + 1);
    t->s[number] = t->s[0];
}

static void twin_start(twin *t, int soft)
{
    rt_loop_opts lo = {.realloc = peer_realloc};
    rt_listen_opts o = {.on = {.open = twin_open, .close = twin_close}};
    char name[2] = "a";
    int i;
    memset(t, 0, sizeof *t);
    o.user = t;
    o.soft_mark = soft;
    o.ping_ms = RT_OFF; /* the first one goes at random */
    t->loop = rt_loop_new(&lo);
    t->listener = rt_listen(t->loop, "ws://127.0.0.1:0", &o);
    for (i = 1; i <= TWINS; i++)
        twin_connect(t, i);
    for (i = 0; i < GROUPS; i++, name[0]++)
        t->g[i] = rt_group_open(t->loop, name, NULL);
}

static void twin_end(twin *t)
{
    int i;
    rt_loop_free(t->loop);
    for (i = 1; i <= TWINS; i++)
        peer_end(&t->p[i]);
}

/* One call, made to one of them. */
typedef struct {
    int what, who, group, kind;
    size_t len;
    const char *data;
} twin_call;

enum { T_SEND = 20, T_BUT = 26, T_ONE = 30, T_JOIN = 36, T_LEAVE = 40 };
enum { T_MANY = 42, T_SHUT = 43, T_END = 44, T_DROP = 45, T_SLOW = 46 };
enum { T_FLUSH = 47, T_BYE = 48, T_GONE = 49, T_ALL = 50 };

static int twin_does(twin *t, const twin_call *c)
{
    rt_session s = t->s[c->who];
    rt_group g = t->g[c->group];
    char name[2] = {(char)('a' + c->group), 0};
    if (c->what < T_SEND)
        return rt_group_send(t->loop, g, c->kind, c->data, c->len);
    if (c->what < T_BUT)
        return rt_group_send_but(t->loop, g, s, c->kind, c->data, c->len);
    if (c->what < T_ONE)
        return rt_send(t->loop, s, c->kind, c->data, c->len);
    if (c->what < T_JOIN)
        return rt_group_join(t->loop, g, s);
    if (c->what < T_LEAVE)
        return rt_group_leave(t->loop, g, s);
    if (c->what < T_MANY)
        return rt_send_many(t->loop, t->s + 1, (size_t)c->who, c->kind, c->data,
                            c->len);
    if (c->what < T_SHUT) {
        rt_group_close(t->loop, g);
        t->g[c->group] = rt_group_open(t->loop, name, NULL);
        return 0;
    }
    if (c->what < T_END)
        return rt_close(t->loop, s, 3000, "end");
    if (c->what < T_SLOW)
        return rt_drop(t->loop, s, c->what < T_DROP ? 4100 : RT_CLOSE_SLOW, "");
    if (c->what < T_FLUSH)
        return rt_flush(t->loop), 0;
    if (c->what < T_BYE)
        return peer_bye(&t->p[c->who], 1000), 0;
    if (t->p[c->who].fd >= 0)
        shutdown(t->p[c->who].fd, SHUT_RDWR);
    return 0;
}

static void twin_call_make(twin_call *c)
{
    static const int kinds[] = {RT_TEXT, RT_TEXT, RT_BINARY, RT_BINARY,
                                RT_TEXT, RT_TEXT, RT_TEXT,   9};
    c->what = chance(T_ALL);
    if (c->what >= T_JOIN && chance(4))
        c->what = chance(T_JOIN); /* it is rare that one goes */
    if (c->what >= T_MANY && chance(2))
        c->what = T_FLUSH - 1;
    c->who = 1 + chance(TWINS);
    c->group = chance(GROUPS);
    c->kind = kinds[chance(8) ? chance(7) : 7];
    if (chance(8) == 0)
        c->kind = RT_TEXT | RT_DROPPABLE;
    if (chance(8) == 0)
        c->kind = RT_TEXT | rt_latest((uint16_t)chance(3));
    c->len = (size_t)chance(chance(6) ? 40 : 3000);
    c->data = filler + chance(26);
}

/* What both have come to: bytes at the other end, and the metrics. */
static void twins_compare(void)
{
    static const char *const names[] = {
        "rtnet_messages_out_total",      "rtnet_bytes_out_total",
        "rtnet_send_queue_bytes_sum",    "rtnet_send_queue_bytes_count",
        "rtnet_send_queue_bytes_bucket", "rtnet_sessions",
        "rtnet_group_members",           "rtnet_closes_total"};
    size_t i;
    int k;
    for (k = 1; k <= TWINS; k++) {
        peer *a = &twins[0].p[k], *b = &twins[1].p[k];
        EQUAL(a->len - a->at, b->len - b->at);
        EQUAL(a->gone, b->gone);
        if (a->len - a->at == b->len - b->at && a->len > a->at)
            CHECK(!memcmp(a->in + a->at, b->in + b->at, a->len - a->at));
        a->at = a->len = b->at = b->len = 0;
    }
    for (i = 0; i < sizeof names / sizeof *names; i++)
        EQUAL(peer_metric(twins[0].loop, names[i]),
              peer_metric(twins[1].loop, names[i]));
    EQUAL(twins[0].ends, twins[1].ends);
    EQUAL(twins[0].lost, twins[1].lost);
}

static void twins_turn(int whole)
{
    int i, k;
    for (i = 0; i < 2; i++) {
        rt_poll(twins[i].loop, 0);
        for (k = 0; whole && k < 4; k++)
            peer_quiet(twins[i].loop);
        for (k = 1; whole && k <= TWINS; k++)
            while (peer_take(&twins[i].p[k]))
                ;
    }
    twin_bytes = 0;
    if (!whole)
        return;
    twins_compare();
    for (k = 1; k <= TWINS; k++)
        if (rt_state(twins[0].loop, twins[0].s[k]) != RT_OPEN)
            twin_connect(&twins[0], k), twin_connect(&twins[1], k);
}

static void twins_step(int *crowds)
{
    twin_call c;
    int k;
    twin_call_make(&c);
    if (twin_bytes + c.len + 100 > TWIN_MOST)
        twins_turn(0);
    twin_bytes += c.len + 100;
    EQUAL(twin_does(&twins[0], &c), twin_does(&twins[1], &c));
    for (k = 1; k <= TWINS; k++)
        EQUAL(rt_unsent(twins[0].loop, twins[0].s[k]),
              rt_unsent(twins[1].loop, twins[1].s[k]));
    *crowds += twins[1].loop->crowd_count > 0;
    EQUAL(twins[0].loop->crowd_count, 0);
}

static void a_crowd_changes_nothing_that_can_be_seen(void)
{
    int i, crowds = 0;
    for (i = 0; i < (int)sizeof filler; i++)
        filler[i] = (char)('a' + i % 26);
    guess.chance = 1;
    twin_start(&twins[0], 32 * 1024);
    twin_start(&twins[1], 0);
    for (i = 0; i < TWIN_STEPS && !test_bad; i++) {
        twins_step(&crowds);
        if (chance(9) == 0)
            twins_turn(chance(3) == 0);
    }
    CHECK(crowds > TWIN_STEPS / 4);
    twins_turn(1);
    twin_end(&twins[0]);
    twin_end(&twins[1]);
}

#endif
