/*
 * Crowds: members over WebSocket who wait for a group's messages together.
 * Nothing of it may show, so each case says what a member must get byte for
 * byte, and the last one plays at random before two loops, of which one lets
 * nobody wait.  Part of test_group.c.
 */
#ifndef GROUP_CROWDS_H
#define GROUP_CROWDS_H

enum { WISHES = 4 * 1024 * 1024 };

/* What each member must get from here on. */
static struct {
    uint8_t *bytes;
    size_t len;
} due[MEMBERS + 1];

static char filler[70000];

/* ---- members ------------------------------------------------------------- */

static void memory_again(void)
{
    fail_at = fail_rest = 0;
}

static void due_clear(void)
{
    int i;
    memory_again();
    for (i = 0; i <= MEMBERS; i++) {
        free(due[i].bytes);
        due[i].bytes = NULL;
        due[i].len = 0;
    }
}

static void due_frame(int number, int op, const void *data, size_t len)
{
    uint8_t *to;
    if (!due[number].bytes)
        due[number].bytes = malloc(WISHES);
    to = due[number].bytes + due[number].len;
    *to++ = (uint8_t)(0x80 | op);
    *to++ = (uint8_t)(len < 126 ? len : 126);
    if (len >= 126) {
        *to++ = (uint8_t)(len >> 8);
        *to++ = (uint8_t)len;
    }
    if (len)
        memcpy(to, data, len);
    due[number].len += len + (len < 126 ? 2 : 4);
}

static void due_close(int number, int code, const char *reason)
{
    uint8_t body[125];
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    memcpy(body + 2, reason, strlen(reason));
    due_frame(number, 8, body, 2 + strlen(reason));
}

static void due_text(int number, const char *text)
{
    due_frame(number, RT_TEXT, text, strlen(text));
}

static void due_texts(int from, int to, const char *text)
{
    for (; from <= to; from++)
        due_text(from, text);
}

/* A member got all that was due to it, and nothing else. */
static void got_due(int number, int at)
{
    peer *p = &m[number];
    int whole = peer_fill(p, due[number].len);
    calm();
    while (peer_take(p))
        ;
    test_check(whole, __FILE__, at, "all that was due came");
    test_equal((long long)(p->len - p->at), (long long)due[number].len,
               __FILE__, at, "what came");
    if (whole && due[number].len)
        test_check(memcmp(p->in + p->at, due[number].bytes, due[number].len) ==
                       0,
                   __FILE__, at, "what was due is what came");
    p->at = p->len;
    due[number].len = 0;
}

static void all_got_due(int members, int at)
{
    int i;
    for (i = 1; i <= members; i++)
        got_due(i, at);
}

#define ALL_GOT(members) all_got_due(members, __LINE__)
#define GOT(number) got_due(number, __LINE__)

static rt__session *session_of(int number)
{
    return (rt__session *)rt__slot_get(st.loop, st.s[number].id, RT__SESSION);
}

static int waits(int number)
{
    rt__session *s = session_of(number);
    return s && s->conn && s->conn->crowd;
}

/* Local sockets: how much one of them takes can be set exactly. */
static char gathering_at[5 + 108] = "unix:";

static void ws_open(int number)
{
    CHECK(peer_ws_local(&m[number], st.loop, gathering_at + 5));
    EQUAL(st.count, number);
}

/* A loop with so many members over WebSocket, in the group "g". */
static void gathering(int members, const rt_group_opts *o)
{
    int i;
    memset(filler, 'x', sizeof filler);
    due_clear();
    st.opts.resume_ms = 0;
    st.opts.framing = RT_LENGTH;
    st.loop_opts.group_out = NULL;
    st.loop_opts.group_first = st.loop_opts.group_last = NULL;
    st.loop = rt_loop_new(&st.loop_opts);
    peer_path(gathering_at + 5);
    st.listener = rt_listen(st.loop, gathering_at, &st.opts);
    for (i = 1; i <= members; i++)
        ws_open(i);
    group = rt_group_open(st.loop, "g", o);
    for (i = 1; i <= members; i++)
        EQUAL(rt_group_join(st.loop, group, st.s[i]), 0);
    calm();
    script_clear(&st.told);
}

static int send_size(size_t len)
{
    return rt_group_send(st.loop, group, RT_TEXT, filler, len);
}

/* The next log has room for what a turn of these cases brings. */
static void roomy(int members)
{
    int i;
    EQUAL(send_size(30000), members);
    for (i = 1; i <= members; i++)
        due_frame(i, RT_TEXT, filler, 30000);
    ALL_GOT(members);
}

/* Its socket takes a few KiB, while nobody reads at the other end. */
static void narrow(int number)
{
    int size = 1;
    setsockopt(session_of(number)->conn->source.fd, SOL_SOCKET, SO_SNDBUF,
               &size, sizeof size);
}

/* The next queue has to be allocated. */
static void no_spare_queues(void)
{
    while (st.loop->out_pool) {
        rt__out *o = st.loop->out_pool;
        st.loop->out_pool = o->next;
        st.loop->out_pooled--;
        rt__free(st.loop, o, sizeof *o);
    }
}

/* All of it fails from here on, until memory_again. */
static void no_memory(void)
{
    no_spare_queues();
    fail_at = fail_rest = 1;
}

/* ---- what waits, and who ------------------------------------------------- */

static void what_waits_comes_byte_for_byte(void)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 4000, 0, 9};
    size_t i;
    int k, turn;
    gathering(5, NULL);
    roomy(5);
    for (turn = 0; turn < 2; turn++) {
        for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            int op = i % 2 ? RT_BINARY : RT_TEXT;
            EQUAL(rt_group_send(st.loop, group, op, filler, sizes[i]), 5);
            for (k = 1; k <= 5; k++)
                due_frame(k, op, filler, sizes[i]);
        }
        for (k = 1; k <= 5; k++) {
            CHECK(waits(k));
            EQUAL(rt_unsent(st.loop, st.s[k]), due[k].len);
        }
        ALL_GOT(5);
        EQUAL(st.loop->logs, 0); /* nobody lags: nothing is kept */
    }
}

static void members_wait_from_four_on(void)
{
    gathering(3, NULL);
    sends("a");
    CHECK(!waits(1) && !waits(2) && !waits(3));
    ws_open(4);
    calm();
    EQUAL(rt_group_join(st.loop, group, st.s[4]), 0);
    sends("b");
    CHECK(waits(1) && waits(4));
    due_texts(1, 3, "a");
    due_texts(1, 4, "b");
    ALL_GOT(4);
    EQUAL(sends("c"), 4);
    CHECK(waits(1) && waits(2) && waits(3) && waits(4));
    due_texts(1, 4, "c");
    ALL_GOT(4);
}

static int waits_with(uint32_t soft, uint32_t hard)
{
    rt__ep *ep = rt__ep_of(session_of(1));
    int all;
    ep->soft_mark = soft;
    ep->hard_mark = hard;
    EQUAL(sends("x"), 4);
    all = waits(1) && waits(2) && waits(3) && waits(4);
    due_texts(1, 4, "x");
    ALL_GOT(4);
    return all;
}

static void nobody_waits_who_could_reach_a_mark(void)
{
    uint32_t most = RT__CROWD_BYTES + RT__PIECE_COST;
    gathering(4, NULL);
    CHECK(waits_with(most, most));
    CHECK(!waits_with(most - 1, most));
    CHECK(!waits_with(most, most - 1));
}

/* The default soft mark is above it. */
static void a_low_hard_mark_holds(void)
{
    rt_end *end = &st.end;
    st.opts.hard_mark = 1000;
    gathering(4, NULL);
    roomy(4);
    EQUAL(send_size(600), 4);
    EQUAL(send_size(600), 0);
    EQUAL(rt_group_count(st.loop, group), 0);
    calm();
    EQUAL(end->code, RT_CLOSE_SLOW);
    EQUAL(end->lost, 1);
}

/* For a message to one of them it is a queue as any other. */
static void what_waits_counts_against_the_mark(void)
{
    st.opts.hard_mark = 40000;
    st.opts.soft_mark = 34000;
    gathering(4, NULL);
    roomy(4);
    EQUAL(send_size(20000), 4);
    CHECK(waits(1) && waits(2));
    EQUAL(rt_send(st.loop, st.s[1], RT_TEXT, filler, 15000), 1);
    EQUAL(rt_send(st.loop, st.s[2], RT_TEXT, filler, 21000), RT_EFULL);
    EQUAL(rt_group_count(st.loop, group), 3);
    calm();
    TOLD("2.close:4001:1 writable");
}

static void open_stream(int number)
{
    rt_listen_opts o = st.opts;
    rt_listener l;
    o.framing = RT_LENGTH;
    l = rt_listen(st.loop, "tcp://127.0.0.1:0", &o);
    CHECK(peer_tcp(&m[number], st.loop, rt_listener_port(st.loop, l)));
    calm();
    EQUAL(st.count, number);
}

/* A stream, and one whose messages are kept, get each at its own line. */
static void others_get_it_one_by_one(void)
{
    char token[23];
    gathering(6, NULL);
    roomy(6);
    open_stream(7);
    EQUAL(rt_group_join(st.loop, group, st.s[7]), 0);
    EQUAL(rt_group_leave(st.loop, group, st.s[6]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[6]), 0);
    EQUAL(rt_keep(st.loop, st.s[2], 1000, token), 0);
    EQUAL(sends("a"), 7);
    EQUAL(send_to(RT_BINARY, "b"), 7);
    CHECK(waits(1) && !waits(2) && !waits(7));
    EQUAL(rt_unsent(st.loop, st.s[7]), 10);
    due_texts(1, 6, "a");
    for (due[0].len = 1; due[0].len <= 6; due[0].len++)
        due_frame((int)due[0].len, RT_BINARY, "b", 1);
    due[0].len = 0;
    ALL_GOT(6);
    EARS(7, "a b");
    EQUAL(rt_acked(st.loop, st.s[2], 2), 0);
    EQUAL(rt_acked(st.loop, st.s[2], 3), RT_EINVAL);
}

/* Whatever a turn may bring: a log is only so long. */
static void more_than_a_crowd_waits_for_comes_too(void)
{
    int i, k;
    gathering(4, NULL);
    for (i = 0; i < 3; i++) {
        static const size_t sizes[] = {32758, 1, 20000, 20000, 40000, 32759};
        for (k = 0; k < 6; k++) {
            EQUAL(send_size(sizes[k]), 4);
            due_frame(1, RT_TEXT, filler, sizes[k]);
            due_frame(2, RT_TEXT, filler, sizes[k]);
            due_frame(3, RT_TEXT, filler, sizes[k]);
            due_frame(4, RT_TEXT, filler, sizes[k]);
            if (k == 0)
                CHECK(waits(1)); /* 10 bytes of a head: 32 KiB */
            if (k == 1 || k == 4)
                ALL_GOT(4);
        }
        CHECK(!waits(1));
        ALL_GOT(4);
    }
}

/* A member lags behind a log of the greatest size, and keeps it going. */
static void a_log_that_is_full_is_followed_by_another(void)
{
    int i, k;
    gathering(5, NULL);
    roomy(5);
    narrow(1);
    EQUAL(send_size(30000), 5);
    EQUAL(sends("a"), 5);
    rt_poll(st.loop, 0);
    for (k = 0; k < 6; k++) {
        EQUAL(send_size(13000), 5);
        EQUAL(send_size(20000), 5);
        for (i = 1; i <= 5; i++) {
            if (!k)
                due_frame(i, RT_TEXT, filler, 30000), due_text(i, "a");
            due_frame(i, RT_TEXT, filler, 13000);
            due_frame(i, RT_TEXT, filler, 20000);
        }
        rt_poll(st.loop, 0);
        for (i = 2; i <= 5; i++)
            GOT(i);
        if (k == 2)
            GOT(1);
        EQUAL(sends("b"), 5);
        due_texts(1, 5, "b");
        rt_poll(st.loop, 0);
    }
    ALL_GOT(5);
}

/* Their numbers have 16 bits. */
static void without_a_number_nobody_waits(void)
{
    size_t most = UINT16_MAX, size = sizeof *st.loop->crowds;
    gathering(4, NULL);
    st.loop->crowds = rt__realloc(st.loop, st.loop->crowds,
                                  st.loop->crowd_cap * size, most * size);
    memset(st.loop->crowds, 0, most * size);
    st.loop->crowd_cap = most;
    st.loop->crowd_count = most - 1;
    EQUAL(sends("a"), 4);
    CHECK(waits(1));
    due_texts(1, 4, "a");
    ALL_GOT(4);
    st.loop->crowds[most - 1] = NULL;
    st.loop->crowd_count = most;
    EQUAL(sends("b"), 4);
    CHECK(!waits(1));
    EQUAL(st.loop->logs, 0);
    due_texts(1, 4, "b");
    ALL_GOT(4);
}

/* ---- what comes between -------------------------------------------------- */

static void what_else_is_sent_comes_behind(void)
{
    gathering(6, NULL);
    roomy(6);
    sends("a");
    EQUAL(rt_send(st.loop, st.s[2], RT_TEXT, "two", 3), 0);
    EQUAL(rt_send(st.loop, st.s[3], RT_TEXT | rt_latest(1), "old", 3), 0);
    EQUAL(rt_send(st.loop, st.s[4], RT_TEXT | RT_DROPPABLE, "drop", 4), 0);
    EQUAL(rt_send_many(st.loop, st.s + 5, 1, RT_TEXT, "five", 4), 1);
    CHECK(waits(1) && !waits(2) && !waits(3) && !waits(4) && !waits(5));
    EQUAL(sends("b"), 6);
    EQUAL(rt_send(st.loop, st.s[3], RT_TEXT | rt_latest(1), "new", 3), 0);
    due_texts(1, 6, "a");
    due_text(2, "two");
    due_text(5, "five");
    due_texts(1, 6, "b");
    due_text(3, "new"); /* behind all that is reliable */
    due_text(4, "drop");
    ALL_GOT(6);
}

static void of_the_group_what_is_loose_comes_last(void)
{
    gathering(4, NULL);
    roomy(4);
    sends("a");
    EQUAL(keyed(1, "old"), 4);
    CHECK(!waits(1));
    EQUAL(sends("b"), 4);
    EQUAL(keyed(1, "new"), 4);
    EQUAL(send_to(RT_TEXT | RT_DROPPABLE, "drop"), 4);
    due_texts(1, 4, "a");
    due_texts(1, 4, "b");
    due_texts(1, 4, "new");
    due_texts(1, 4, "drop");
    ALL_GOT(4);
}

/* Also those that a codec alone has. */
static void another_kind_is_for_nobody_here(void)
{
    gathering(4, NULL);
    roomy(4);
    EQUAL(sends("a"), 4);
    EQUAL(send_to(7, "kind"), 0);
    EQUAL(sends("b"), 4);
    due_texts(1, 4, "a");
    due_texts(1, 4, "b");
    ALL_GOT(4);
}

static void who_is_left_out_gets_all_but_that(void)
{
    rt_group other;
    gathering(6, NULL);
    roomy(6);
    EQUAL(rt_group_send_but(st.loop, group, st.s[2], RT_TEXT, "-2", 2), 5);
    CHECK(!waits(2) && !session_of(2)->conn->out); /* nothing for it yet */
    EQUAL(sends("all"), 6);
    EQUAL(rt_group_send_but(st.loop, group, st.s[1], RT_TEXT, "-1", 2), 5);
    EQUAL(rt_group_send_but(st.loop, group, st.s[1], RT_TEXT, "-1", 2), 5);
    other = rt_group_open(st.loop, "other", NULL);
    EQUAL(rt_group_leave(st.loop, group, st.s[6]), 0);
    EQUAL(rt_group_send_but(st.loop, group, st.s[6], RT_TEXT, "6", 1), 5);
    EQUAL(rt_group_count(st.loop, other), 0);
    due_text(1, "-2"), due_texts(3, 6, "-2");
    due_texts(1, 6, "all");
    due_texts(2, 6, "-1"), due_texts(2, 6, "-1");
    due_texts(1, 5, "6");
    ALL_GOT(6);
}

/* One group's crowd is another's queue. */
static void members_of_several_groups_get_all_in_order(void)
{
    rt_group g[3];
    int i, k;
    gathering(8, NULL);
    roomy(8);
    g[0] = group;
    g[1] = rt_group_open(st.loop, "h", NULL);
    g[2] = rt_group_open(st.loop, "i", NULL);
    for (i = 3; i <= 8; i++)
        EQUAL(rt_group_join(st.loop, g[1], st.s[i]), 0);
    for (i = 1; i <= 4; i++)
        EQUAL(rt_group_join(st.loop, g[2], st.s[i]), 0);
    for (k = 0; k < 12; k++) {
        static const int order[] = {0, 0, 1, 2, 2, 1, 0, 2, 1, 1, 0, 2};
        int at = order[k], from = at == 1 ? 3 : 1, to = at == 2 ? 4 : 8;
        EQUAL(rt_group_send(st.loop, g[at], RT_TEXT, filler, (size_t)k),
              to - from + 1);
        for (i = from; i <= to; i++)
            due_frame(i, RT_TEXT, filler, (size_t)k);
    }
    ALL_GOT(8);
}

/* With two crowds side by side, of which either ends first. */
static void crowds_do_not_mix(void)
{
    rt_group other;
    int i, first;
    gathering(8, NULL);
    other = rt_group_open(st.loop, "h", NULL);
    for (i = 5; i <= 8; i++) {
        EQUAL(rt_group_leave(st.loop, group, st.s[i]), 0);
        EQUAL(rt_group_join(st.loop, other, st.s[i]), 0);
    }
    for (first = 0; first < 2; first++) {
        EQUAL(rt_group_send(st.loop, other, RT_TEXT, filler, 9000), 4);
        EQUAL(send_size(9000), 4);
        for (i = 1; i <= 8; i++)
            due_frame(i, RT_TEXT, filler, 9000);
        ALL_GOT(8);
        EQUAL(sends("g"), 4);
        EQUAL(rt_group_send(st.loop, other, RT_TEXT, "h", 1), 4);
        EQUAL(rt_group_send(st.loop, first ? other : group,
                            RT_TEXT | RT_DROPPABLE, "drop", 4),
              4);
        CHECK(waits(1) == first && waits(5) == !first);
        due_texts(1, 4, "g");
        due_texts(5, 8, "h");
        due_texts(first ? 5 : 1, first ? 8 : 4, "drop");
        ALL_GOT(8);
    }
}

static void pings_and_pongs_come_behind(void)
{
    st.opts.ping_ms = 1000;
    gathering(4, NULL);
    skip(1000);
    peer_take(&m[1]), peer_take(&m[2]), peer_take(&m[3]), peer_take(&m[4]);
    m[1].at = m[1].len, m[2].at = m[2].len;
    m[3].at = m[3].len, m[4].at = m[4].len;
    sends("a");
    peer_frame_put(&m[2], 0x89, "ping", 4);
    due_texts(1, 4, "a");
    due_frame(2, 10, "ping", 4);
    ALL_GOT(4);
    clock_ahead += 1000;
    sends("b");
    CHECK(waits(1));
    calm();
    peer_take(&m[1]);
    EQUAL(m[1].len - m[1].at, 3 + 6); /* ours has 4 bytes */
    CHECK(memcmp(m[1].in + m[1].at, "\x81\1b\x89\4", 5) == 0);
}

/* A turn's callback sends, and flushes: then it is at the other end. */
static void sends_and_flushes(const char *what, rt_session s)
{
    (void)what;
    (void)s;
    EQUAL(sends("in"), 4);
    CHECK(waits(1));
    rt_flush(st.loop);
    CHECK(!waits(1));
    EQUAL(rt_unsent(st.loop, st.s[1]), 0);
    CHECK(peer_take(&m[1]) > 0);
    EQUAL(sends("behind"), 4);
    CHECK(waits(1));
}

static void a_flush_in_a_turn_writes_what_waits(void)
{
    gathering(4, NULL);
    EQUAL(rt_read(st.loop, st.s[3], 0), 0); /* and nothing is read of it */
    sends("out");
    EQUAL(rt_loop_timeout(st.loop), 0);
    st.deed = sends_and_flushes;
    peer_text(&m[2], "go");
    calm();
    st.deed = NULL;
    due_texts(1, 4, "out");
    due_texts(1, 4, "in");
    due_texts(1, 4, "behind");
    ALL_GOT(4);
    EQUAL(rt_loop_timeout(st.loop) != 0, 1);
}

/* ---- ends, leaving, joining ---------------------------------------------- */

static void a_close_comes_behind_what_waits(void)
{
    gathering(5, NULL);
    sends("a");
    EQUAL(rt_close(st.loop, st.s[2], 3000, "bye"), 0);
    EQUAL(rt_drop(st.loop, st.s[3], 4100, ""), 0);
    peer_bye(&m[4], 1000);
    due_texts(1, 5, "a");
    due_close(2, 3000, "bye");
    due_close(3, 4100, "");
    due_close(4, 1000, "");
    ALL_GOT(5);
    EQUAL(st.end.lost, 0);
    EQUAL(sends("b"), 2);
    due_text(1, "b"), due_text(5, "b");
    GOT(1), GOT(5);
}

/* As from any queue: it is said to be slow, so nothing more goes to it. */
static void one_dropped_as_slow_does_not_get_it(void)
{
    gathering(4, NULL);
    sends("a"), sends("b");
    EQUAL(rt_drop(st.loop, st.s[2], RT_CLOSE_SLOW, ""), 0);
    EQUAL(sends("c"), 3);
    due_close(2, RT_CLOSE_SLOW, "");
    GOT(2);
    EQUAL(st.end.code, RT_CLOSE_SLOW);
    EQUAL(st.end.lost, 2);
    due_text(1, "a"), due_text(1, "b"), due_text(1, "c");
    GOT(1);
}

static void who_leaves_gets_what_was_sent_before(void)
{
    rt_group_opts o = {.event = on_event};
    gathering(6, &o);
    sends("a");
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), 0);
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), RT_ESTATE);
    EQUAL(sends("b"), 5);
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EQUAL(sends("c"), 6);
    EQUAL(rt_group_leave(st.loop, group, st.s[6]), 0);
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    EQUAL(sends("d"), 4);
    EQUAL(rt_group_close(st.loop, group), 0);
    EQUAL(st.loop->logs, 0);
    group = rt_group_open(st.loop, "g", &o);
    due_texts(1, 6, "a");
    due_text(1, "b"), due_texts(3, 6, "b");
    due_texts(1, 6, "c");
    due_texts(2, 5, "d");
    ALL_GOT(6);
}

/* The list of members is whole whoever goes, and in whatever order. */
static void each_may_leave_while_others_wait(void)
{
    int from, step, i;
    gathering(7, NULL);
    for (from = 1; from <= 7; from++)
        for (step = 1; step <= 6; step++) {
            sends("a");
            for (i = 0; i < 7; i++) {
                int who = 1 + (from + i * step) % 7;
                EQUAL(rt_group_leave(st.loop, group, st.s[who]), 0);
                EQUAL(sends("b"), 6 - i);
                if (i == 3)
                    rt_send(st.loop, st.s[1 + (who + 1) % 7], RT_TEXT, "!", 1);
            }
            calm();
            for (i = 1; i <= 7; i++)
                EQUAL(rt_group_join(st.loop, group, st.s[i]), 0);
        }
    for (i = 1; i <= 7; i++)
        while (peer_take(&m[i]))
            m[i].at = m[i].len;
    sends("end");
    due_texts(1, 7, "end");
    ALL_GOT(7);
}

/* A queue is full, so that its session ends in the middle of the cast. */
static void members_may_end_beside_those_who_wait(void)
{
    gathering(7, NULL);
    roomy(7);
    rt__ep_of(session_of(1))->hard_mark = 200000;
    EQUAL(sends("a"), 7);
    rt_send(st.loop, st.s[3], RT_TEXT, filler, 65000);
    rt_send(st.loop, st.s[3], RT_TEXT, filler, 65000);
    rt_send(st.loop, st.s[3], RT_TEXT, filler, 65000);
    rt_send(st.loop, st.s[5], RT_TEXT, filler, 65000);
    EQUAL(send_size(5000), 6);
    EQUAL(rt_group_count(st.loop, group), 6);
    CHECK(waits(1) && !waits(5) && waits(7));
    EQUAL(sends("z"), 6);
    due_text(1, "a");
    due_frame(1, RT_TEXT, filler, 5000);
    due_text(1, "z");
    due_text(5, "a");
    due_frame(5, RT_TEXT, filler, 65000);
    due_frame(5, RT_TEXT, filler, 5000);
    due_text(5, "z");
    GOT(1), GOT(5);
    EQUAL(st.end.code, RT_CLOSE_SLOW);
    EQUAL(st.end.lost, 4);
}

static void the_end_of_the_loop_comes_behind_what_waits(void)
{
    int i;
    gathering(4, NULL);
    sends("a");
    rt_loop_free(st.loop);
    st.loop = NULL;
    for (i = 1; i <= 4; i++) {
        m[i].loop = NULL;
        CHECK(peer_got(&m[i], RT_TEXT, "a"));
        EQUAL(peer_closed(&m[i]), 1001);
        peer_end(&m[i]);
    }
}

static void keeping_and_adopting_come_behind_what_waits(void)
{
    char token[23];
    gathering(6, NULL);
    roomy(6);
    EQUAL(sends("a"), 6);
    EQUAL(rt_keep(st.loop, st.s[1], 1000, token), 0);
    CHECK(!waits(1));
    EQUAL(rt_send(st.loop, st.s[1], RT_TEXT, "kept", 4), 0);
    EQUAL(sends("b"), 6);
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[5], 0), 0);
    EQUAL(sends("c"), 5);
    due_texts(1, 6, "a");
    due_text(1, "kept");
    due_texts(2, 6, "b");
    due_text(5, "kept"); /* what the first one's peer is not known to have */
    due_text(5, "b");
    due_texts(2, 6, "c");
    GOT(2), GOT(3), GOT(4), GOT(5), GOT(6);
}

/* ---- sockets that are full, or gone -------------------------------------- */

static int whole_texts(peer *p)
{
    peer_frame f;
    int n = 0;
    while (p->len > p->at && peer_next(p, &f) && f.op == RT_TEXT)
        n++;
    return n;
}

static void what_a_socket_does_not_take_waits_for_it(void)
{
    int i, k;
    gathering(5, NULL);
    narrow(2), narrow(4);
    for (k = 0; k < 8; k++) {
        EQUAL(send_size(15000), 5);
        EQUAL(send_size(1000), 5);
        for (i = 1; i <= 5; i++) {
            due_frame(i, RT_TEXT, filler, 15000);
            due_frame(i, RT_TEXT, filler, 1000);
        }
        rt_poll(st.loop, 0);
        EQUAL(rt_unsent(st.loop, st.s[1]), 0);
        CHECK(rt_unsent(st.loop, st.s[2]) > 0);
        CHECK(rt_unsent(st.loop, st.s[2]) < due[2].len);
    }
    EQUAL(rt_drop(st.loop, st.s[4], RT_CLOSE_SLOW, ""), 0);
    GOT(1), GOT(2), GOT(3), GOT(5);
    EQUAL(rt_unsent(st.loop, st.s[2]), 0);
    CHECK(st.end.lost > 0);
    EQUAL(whole_texts(&m[4]) + (int)st.end.lost, 16);
}

/* What was not written is lost, and only that. */
static void a_reset_found_by_the_flush_ends_one(void)
{
    rt_group_opts o = {.event = on_event};
    gathering(6, &o);
    roomy(6);
    sends("a"), sends("b");
    peer_reset(&m[3]);
    peer_reset(&m[6]);
    rt_flush(st.loop);
    EQUAL(rt_state(st.loop, st.s[3]), RT_CLOSING);
    EQUAL(rt_state(st.loop, st.s[6]), RT_CLOSING);
    EQUAL(rt_group_count(st.loop, group), 4);
    EQUAL(sends("c"), 4);
    due_text(1, "a"), due_text(2, "a"), due_text(4, "a"), due_text(5, "a");
    due_text(1, "b"), due_text(2, "b"), due_text(4, "b"), due_text(5, "b");
    due_text(1, "c"), due_text(2, "c"), due_text(4, "c"), due_text(5, "c");
    GOT(1), GOT(2), GOT(4), GOT(5);
    EQUAL(st.end.code, 1006);
    EQUAL(st.end.cause, RT_BY_PEER);
    EQUAL(st.end.lost, 2);
    TOLD("6.- 3.- 6.close:1006:2 3.close:1006:2");
}

/* Read as one finds it: the peer is gone before anything is flushed. */
static void a_reset_before_the_flush_loses_what_waits(void)
{
    gathering(4, NULL);
    sends("a"), sends("b");
    peer_reset(&m[3]);
    due_text(1, "a"), due_text(1, "b");
    GOT(1);
    EQUAL(st.end.code, 1006);
    EQUAL(st.end.lost, 2);
    EQUAL(sends("c"), 3);
}

/* A stream of 64 kB behind which 7 lag costs not 7 times that. */
static void those_who_lag_share_the_log(void)
{
    size_t before;
    int i, k;
    gathering(8, NULL);
    for (i = 1; i <= 7; i++)
        narrow(i);
    EQUAL(send_size(30000), 8);
    for (i = 1; i <= 8; i++)
        due_frame(i, RT_TEXT, filler, 30000);
    calm();
    before = peer_heap - st.loop->pooled;
    for (k = 0; k < 64; k++) {
        send_size(400), send_size(600);
        for (i = 1; i <= 8; i++) {
            due_frame(i, RT_TEXT, filler, 400);
            due_frame(i, RT_TEXT, filler, 600);
        }
        rt_poll(st.loop, 0);
    }
    CHECK(session_of(1)->conn->out->bytes > 64000);
    CHECK(peer_heap - st.loop->pooled - before < 110000);
    ALL_GOT(8);
    CHECK(peer_heap - st.loop->pooled < before);
    EQUAL(rt_group_close(st.loop, group), 0);
    EQUAL(st.loop->logs, 0);
}

/* Nobody tells a group that who lagged has caught up. */
static void of_many_groups_little_is_kept_for_who_lagged(void)
{
    rt_group g[100];
    char name[16];
    int i, k;
    st.opts.hard_mark = 4000000;
    gathering(5, NULL);
    narrow(1);
    send_size(30000);
    for (i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "g%d", i);
        g[i] = rt_group_open(st.loop, name, NULL);
        for (k = 1; k <= 5; k++)
            EQUAL(rt_group_join(st.loop, g[i], st.s[k]), 0);
        for (k = 0; k < 2; k++) {
            EQUAL(rt_group_send(st.loop, g[i], RT_TEXT, filler, 9000), 5);
            rt_poll(st.loop, 0);
        }
        EQUAL(rt_group_send(st.loop, g[i], RT_TEXT, filler, 9), 5);
        rt_poll(st.loop, 0);
        for (k = 2; k <= 5; k++)
            while (peer_take(&m[k]))
                m[k].at = m[k].len = 0;
    }
    CHECK(st.loop->logs > 512 * 1024);
    CHECK(st.loop->logs <= 1024 * 1024 + 32768);
    for (i = 0; i < 100; i++)
        EQUAL(rt_group_close(st.loop, g[i]), 0);
    EQUAL(rt_group_close(st.loop, group), 0);
    EQUAL(st.loop->logs, 0);
}

/* ---- without memory ------------------------------------------------------ */

static void starved(int members)
{
    st.loop_opts.realloc = counted_realloc;
    gathering(members, NULL);
    roomy(members);
}

static void what_has_no_memory_has_no_effect(void)
{
    char token[23];
    starved(6);
    EQUAL(sends("a"), 6);
    no_memory();
    EQUAL(rt_send(st.loop, st.s[2], RT_TEXT, "x", 1), RT_ENOMEM);
    EQUAL(rt_group_leave(st.loop, group, st.s[3]), RT_ENOMEM);
    EQUAL(rt_keep(st.loop, st.s[4], 1000, token), RT_ENOMEM);
    EQUAL(rt_send_many(st.loop, st.s + 5, 1, RT_TEXT | RT_DROPPABLE, "x", 1),
          0);
    memory_again();
    EQUAL(rt_group_count(st.loop, group), 6);
    CHECK(waits(2) && waits(3) && waits(4) && waits(5));
    EQUAL(sends("b"), 6);
    due_texts(1, 6, "a");
    due_texts(1, 6, "b");
    ALL_GOT(6);
}

static void an_adoption_without_memory_has_no_effect(void)
{
    char token[23];
    starved(6);
    EQUAL(rt_keep(st.loop, st.s[1], 1000, token), 0);
    EQUAL(sends("a"), 6);
    CHECK(waits(5));
    no_memory();
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[5], 0), RT_ENOMEM);
    memory_again();
    CHECK(waits(5));
    EQUAL(rt_state(st.loop, st.s[5]), RT_OPEN);
    due_texts(1, 6, "a");
    ALL_GOT(6);
}

/* He gets nothing, so he needs no memory for it. */
static void who_is_left_out_needs_no_memory(void)
{
    starved(5);
    no_spare_queues();
    fail_rest = 1;
    fail_at = 1;
    EQUAL(rt_group_send_but(st.loop, group, st.s[5], RT_TEXT, "x", 1), 4);
    memory_again();
    EQUAL(rt_state(st.loop, st.s[5]), RT_OPEN);
    EQUAL(rt_group_count(st.loop, group), 5);
    due_texts(1, 4, "x");
    ALL_GOT(5);
}

/* Some of them end, each with its loss counted, and nobody has a hole. */
static void who_cannot_be_queued_for_ends(void)
{
    starved(5);
    EQUAL(sends("a"), 5);
    EQUAL(sends("b"), 5);
    no_memory();
    EQUAL(send_to(RT_TEXT | RT_DROPPABLE, "drop"), 0);
    memory_again();
    EQUAL(rt_group_count(st.loop, group), 0);
    calm();
    EQUAL(st.end.code, 1011);
    EQUAL(st.end.lost, 2);
    EQUAL(rt_loop_timeout(st.loop) != 0, 1);
}

static void who_ends_without_memory_loses_what_it_waits_for(void)
{
    starved(5);
    EQUAL(sends("a"), 5);
    no_memory();
    EQUAL(rt_close(st.loop, st.s[2], 3000, ""), 0);
    memory_again();
    EQUAL(sends("b"), 4);
    due_text(1, "a"), due_text(1, "b");
    GOT(1);
    EQUAL(st.end.code, 3000);
    EQUAL(st.end.lost, 1);
    CHECK(peer_ended(&m[2]));
}

/* What the socket took is not lost, though the rest finds no memory. */
static void a_rest_without_memory_is_what_is_lost(void)
{
    int i, whole;
    starved(4);
    narrow(3);
    for (i = 0; i < 30; i++)
        EQUAL(send_size(1000), 4);
    no_memory();
    rt_flush(st.loop);
    memory_again();
    EQUAL(rt_state(st.loop, st.s[3]), RT_CLOSING);
    calm();
    EQUAL(st.end.code, 1006);
    EQUAL(st.end.cause, RT_BY_ERROR);
    CHECK(peer_ended(&m[3]));
    whole = whole_texts(&m[3]);
    CHECK(whole > 0 && whole < 30);
    EQUAL(whole + (int)st.end.lost, 30);
    for (i = 0; i < 30; i++)
        due_frame(1, RT_TEXT, filler, 1000);
    GOT(1);
}

/* A socket that takes nothing at all. */
static void a_full_socket_without_memory_loses_all(void)
{
    rt__session *s;
    starved(4);
    narrow(3);
    s = session_of(3);
    while (send(s->conn->source.fd, "\x81\1x", 3, MSG_NOSIGNAL) == 3)
        ;
    sends("a"), sends("b");
    no_memory();
    rt_flush(st.loop);
    memory_again();
    calm();
    EQUAL(st.end.code, 1006);
    EQUAL(st.end.lost, 2);
}

/* Each allocation of a turn fails once.  Everybody has a part of all that was
   sent, from its beginning on, and who lacks some has ended. */
static int crowd_without_the(long n)
{
    int i, k, took[4];
    starved(5);
    no_spare_queues();
    rt__free(st.loop, st.loop->crowds, st.loop->crowd_cap * sizeof(void *));
    st.loop->crowds = NULL;
    st.loop->crowd_cap = 0;
    failures = 0;
    fail_at = n;
    for (k = 0; k < 4; k++)
        took[k] = k == 2 ? rt_group_send_but(st.loop, group, st.s[2], RT_TEXT,
                                             "but", 3)
                         : send_size(k == 3 ? 100 : 3000);
    k = rt_send(st.loop, st.s[1], RT_TEXT, "one", 3);
    rt_group_leave(st.loop, group, st.s[4]);
    send_to(RT_TEXT | RT_DROPPABLE, "drop");
    calm();
    fail_at = 0;
    CHECK(k >= 0 || k == RT_ENOMEM || k == RT_EGONE);
    for (i = 0; i < 4; i++)
        CHECK(took[i] >= 4 - (i == 2) && took[i] <= 5);
    for (i = 1; i <= 5; i++) {
        peer_frame f;
        if (rt_state(st.loop, st.s[i]) != RT_OPEN)
            continue;
        for (k = 0; k < 4; k++) {
            if (k == 2 && i == 2)
                continue;
            CHECK(peer_next(&m[i], &f));
            EQUAL(f.len, k == 2 ? 3 : k == 3 ? 100 : 3000);
        }
    }
    return failures;
}

static void memory_may_fail_anywhere_in_a_crowd(void)
{
    long n;
    int failed = 1;
    for (n = 1; failed && n < 100 && !test_bad; n++) {
        failed = crowd_without_the(n);
        if (test_bad)
            printf("allocation %ld failed\n", n);
        tear_down();
        set_up(TCP);
    }
    CHECK(n > 5 && n < 100);
}

#include "group_twins.h"

static void crowd_cases(void)
{
    PLAIN(what_waits_comes_byte_for_byte);
    PLAIN(members_wait_from_four_on);
    PLAIN(nobody_waits_who_could_reach_a_mark);
    PLAIN(a_low_hard_mark_holds);
    PLAIN(what_waits_counts_against_the_mark);
    PLAIN(others_get_it_one_by_one);
    PLAIN(more_than_a_crowd_waits_for_comes_too);
    PLAIN(a_log_that_is_full_is_followed_by_another);
    PLAIN(without_a_number_nobody_waits);
    PLAIN(what_else_is_sent_comes_behind);
    PLAIN(of_the_group_what_is_loose_comes_last);
    PLAIN(another_kind_is_for_nobody_here);
    PLAIN(who_is_left_out_gets_all_but_that);
    PLAIN(members_of_several_groups_get_all_in_order);
    PLAIN(crowds_do_not_mix);
    PLAIN(pings_and_pongs_come_behind);
    PLAIN(a_flush_in_a_turn_writes_what_waits);
    PLAIN(a_close_comes_behind_what_waits);
    PLAIN(one_dropped_as_slow_does_not_get_it);
    PLAIN(who_leaves_gets_what_was_sent_before);
    PLAIN(each_may_leave_while_others_wait);
    PLAIN(members_may_end_beside_those_who_wait);
    PLAIN(the_end_of_the_loop_comes_behind_what_waits);
    PLAIN(keeping_and_adopting_come_behind_what_waits);
    PLAIN(what_a_socket_does_not_take_waits_for_it);
    PLAIN(a_reset_found_by_the_flush_ends_one);
    PLAIN(a_reset_before_the_flush_loses_what_waits);
    PLAIN(those_who_lag_share_the_log);
    PLAIN(of_many_groups_little_is_kept_for_who_lagged);
    PLAIN(what_has_no_memory_has_no_effect);
    PLAIN(an_adoption_without_memory_has_no_effect);
    PLAIN(who_is_left_out_needs_no_memory);
    PLAIN(who_cannot_be_queued_for_ends);
    PLAIN(who_ends_without_memory_loses_what_it_waits_for);
    PLAIN(a_rest_without_memory_is_what_is_lost);
    PLAIN(a_full_socket_without_memory_loses_all);
    PLAIN(memory_may_fail_anywhere_in_a_crowd);
    PLAIN(a_crowd_changes_nothing_that_can_be_seen);
    due_clear();
}

#endif
