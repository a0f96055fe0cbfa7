/*
 * Groups: presence, history, snapshots, idempotent sends, limits, and whatever
 * is done to them from inside their callbacks.
 *
 * Most cases stand on the stage of rtnet.1's tests with plain peers instead:
 * streams of messages with their length in front.  What the callbacks of
 * sessions, of the group and of the loop's hooks are told is one transcript,
 * so that their order is checked, too: "+" joined, "-" left, "a" away, "b"
 * back, "first:g", "last:g", "out:g:text", "evict:g:OFFSET:text".
 */
#include "resume_stage.h"

#include <sys/resource.h>

enum { MEMBERS = 8 };

static peer m[MEMBERS + 1]; /* plain ones; m[1] carries the first session */
static rt_group group;      /* "g" */
static rt_position evicted; /* of the last message that fell out */
static int evictions, evict_quiet, allocations;
static long fail_at;            /* this allocation from now on fails; 0: none */
static int fail_rest, failures; /* and all behind it; how many did */
static int one_hash;            /* of all keys, names, tokens */
static int balance[SESSIONS + 1]; /* joined and not left, as the host heard */

/* The linker puts this in the place of rt__hash. */
uint64_t __real_rt__hash(rt_loop *loop, const void *data, size_t len);
uint64_t __wrap_rt__hash(rt_loop *loop, const void *data, size_t len);

uint64_t __wrap_rt__hash(rt_loop *loop, const void *data, size_t len)
{
    return one_hash ? 1 : __real_rt__hash(loop, data, len);
}

/* ---- callbacks ----------------------------------------------------------- */

static const rt_session nobody;

static void on_event(rt_loop *loop, rt_group g, rt_session s, int what)
{
    CHECK(rt_group_name(loop, g) != NULL);
    tell(s, "%c", "?+-ab"[what]);
    balance[number_of(s)] += (what == RT_JOINED) - (what == RT_LEFT);
    act("event", s);
}

static void hook_said(const char *format, ...)
{
    char word[128];
    va_list list;
    va_start(list, format);
    vsnprintf(word, sizeof word, format, list);
    va_end(list);
    script_add(&st.told, word);
}

static void on_first(rt_loop *loop, const char *name)
{
    (void)loop;
    hook_said("first:%s", name);
    act("first", nobody);
}

static void on_last(rt_loop *loop, const char *name)
{
    (void)loop;
    hook_said("last:%s", name);
    act("last", nobody);
}

static void on_out(rt_loop *loop, const char *name, int kind, const void *data,
                   size_t len)
{
    (void)loop;
    CHECK((kind & 0xff) == RT_TEXT || (kind & 0xff) == RT_BINARY);
    hook_said("out:%s:%.*s", name, (int)(len < 20 ? len : 20), (char *)data);
    act("out", nobody);
}

static void on_evict(rt_loop *loop, const char *name, rt_position at, int kind,
                     const void *data, size_t len)
{
    (void)loop;
    CHECK(kind == RT_TEXT || kind == RT_BINARY);
    evicted = at;
    evictions++;
    if (!evict_quiet)
        hook_said("evict:%s:%d:%.*s", name, (int)at.offset,
                  (int)(len < 20 ? len : 20), (char *)data);
    act("evict", nobody);
}

/* As peer_realloc; counts, and fails the one it was told. */
static void *counted_realloc(void *user, void *p, size_t old, size_t now)
{
    allocations += now > 0;
    if (now > 0 && fail_at > 0 && --fail_at == 0) {
        fail_at = fail_rest;
        failures++;
        return NULL;
    }
    return peer_realloc(user, p, old, now);
}

/* ---- plain members ------------------------------------------------------- */

static int plain_next(peer *p, int wait, const char **text, size_t *len)
{
    size_t there = p->len - p->at;
    if (wait ? !peer_fill(p, 4) : there < 4)
        return 0;
    *len = (size_t)peer_number(p->in + p->at, 4);
    if (wait ? !peer_fill(p, 4 + *len) : there < 4 + *len)
        return 0;
    *text = (const char *)p->in + p->at + 4;
    p->at += 4 + *len;
    return 1;
}

/* All that comes, as words; waits for as many as are wanted, not for more. */
static const char *heard(int number, const char *want)
{
    static transcript ears;
    peer *p = &m[number];
    const char *text;
    char word[40];
    size_t len;
    int wait = words_of(want) > 0;
    script_clear(&ears);
    for (;;) {
        if (!wait) {
            calm();
            while (peer_take(p))
                ;
        }
        if (!plain_next(p, wait, &text, &len))
            break;
        script_add(&ears, len ? word_of(word, text, len) : "(empty)");
        wait = ears.words < words_of(want);
    }
    return ears.s;
}

#define EARS(number, want)                                                     \
    same_text(heard(number, want), want, __FILE__, __LINE__, "member " #number)

static void plain_open(int number)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    CHECK(peer_tcp(&m[number], st.loop, st.port));
    while (st.count < number && peer_clock() < end)
        peer_turn(st.loop, 1);
    EQUAL(st.count, number);
}

/* A loop with so many plain sessions. */
static void plain(int members)
{
    int i;
    st.opts.resume_ms = 0;
    st.opts.framing = RT_LENGTH;
    st.loop = rt_loop_new(&st.loop_opts);
    st.listener = rt_listen(st.loop, "tcp://127.0.0.1:0", &st.opts);
    CHECK(st.listener.id != 0);
    st.port = rt_listener_port(st.loop, st.listener);
    for (i = 1; i <= members; i++)
        plain_open(i);
    script_clear(&st.told);
}

/* And with the group "g", in which they all are. */
static void together(int members, const rt_group_opts *o)
{
    int i;
    plain(members);
    group = rt_group_open(st.loop, "g", o);
    CHECK(group.id != 0);
    for (i = 1; i <= members; i++)
        EQUAL(rt_group_join(st.loop, group, st.s[i]), 0);
    calm();
    script_clear(&st.told);
}

static int send_to(int kind, const char *text)
{
    return rt_group_send(st.loop, group, kind, text, strlen(text));
}

static int sends(const char *text)
{
    return send_to(RT_TEXT, text);
}

static int keyed(int key, const char *text)
{
    return send_to(RT_TEXT | rt_latest((uint16_t)key), text);
}

static int once(const char *key, const char *text, rt_position *at)
{
    return rt_group_send_once(st.loop, group, key, RT_TEXT, text, strlen(text),
                              at);
}

static rt_position position(void)
{
    return rt_group_position(st.loop, group);
}

static int join_at(int number, uint64_t offset)
{
    rt_position since = position();
    since.offset = offset;
    return rt_group_join_from(st.loop, group, st.s[number], &since);
}

/* ---- each case begins and ends --------------------------------------------
 */

static void set_up(int wire)
{
    stage_begin(RT_AUTO, wire);
    st.loop_opts.group_first = on_first;
    st.loop_opts.group_last = on_last;
    st.loop_opts.group_out = on_out;
    st.loop_opts.group_evict = on_evict;
    evictions = evict_quiet = 0;
    group.id = 0;
    fail_at = one_hash = 0;
}

static void tear_down(void)
{
    int i;
    stage_end();
    for (i = 0; i <= MEMBERS; i++)
        if (m[i].loop)
            peer_end(&m[i]);
    memset(m, 0, sizeof m);
}

/* ---- presence ------------------------------------------------------------ */

static void members_come_and_go(void)
{
    rt_group_opts o = {.event = on_event};
    rt_session out[3];
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    SAME(st.told.s, ""); /* no call runs a callback */
    TOLD("+ first:g");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), RT_EEXIST);
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    TOLD("2.+");
    EQUAL(rt_group_members(st.loop, group, out, 3), 2);
    CHECK(rt_same(out[0], st.s[1]) && rt_same(out[1], st.s[2]));
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    EQUAL(rt_group_count(st.loop, group), 1); /* it left in the call */
    TOLD("- close:1000:0");
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), 0);
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), RT_ESTATE);
    TOLD("2.- last:g");
    EQUAL(rt_group_count(st.loop, group), 0);
}

static void closing_a_group_tells_no_member(void)
{
    rt_group_opts o = {.event = on_event};
    together(2, &o);
    EQUAL(rt_group_close(st.loop, group), 0);
    EQUAL(rt_group_close(st.loop, group), RT_EGONE);
    TOLD("last:g");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0); /* no seat was left */
    TOLD("+ first:g");
}

/* ---- limits of members, time to live ------------------------------------- */

static void a_group_has_a_greatest_count(void)
{
    rt_group_opts o = {.max_members = 1, .event = on_event, .snapshot = 4};
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, "k");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[2]), RT_EFULL);
    EQUAL(rt_group_join_from(st.loop, group, st.s[2], NULL), RT_EFULL);
    EARS(1, "k");
    EARS(2, ""); /* nor does it get anything */
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
}

static void a_session_is_in_so_many_groups(void)
{
    int i;
    char name[16];
    st.loop_opts.groups_per_session = 3;
    plain(1);
    for (i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "g%d", i);
        group = rt_group_open(st.loop, name, NULL);
        EQUAL(rt_group_join(st.loop, group, st.s[1]), i < 3 ? 0 : RT_EFULL);
    }
    EQUAL(rt_group_leave(st.loop, rt_group_find(st.loop, "g1"), st.s[1]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
}

static int there(void)
{
    return rt_group_find(st.loop, "g").id != 0;
}

static void an_unused_empty_group_ends_with_its_time(void)
{
    rt_group_opts o = {.ttl_ms = 1000};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    skip(900);
    CHECK(there());
    sends("x"); /* a use */
    skip(900);
    CHECK(there());
    rt_group_open(st.loop, "g", NULL); /* another */
    skip(900);
    CHECK(there());
    skip(101);
    CHECK(!there());
    EQUAL(rt_group_count(st.loop, group), 0);
    EQUAL(sends("x"), RT_EGONE);
}

static void another_is_opened(rt_loop *loop, void *opened)
{
    CHECK(!there());
    *(rt_group *)opened = rt_group_open(loop, "another", NULL);
}

/* The timer is set behind the group's for the same ms, so it runs next. */
static void a_group_that_expires_makes_room_at_once(void)
{
    rt_group_opts o = {.ttl_ms = 1000};
    rt_group opened = {0};
    st.loop_opts.max_groups = 1;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_open(st.loop, "another", NULL).id, 0);
    CHECK(rt_timer_start(st.loop, nobody, rt_now(st.loop) + 1000,
                         another_is_opened, &opened)
              .id != 0);
    skip(1000);
    CHECK(opened.id != 0);
    EQUAL(rt_group_find(st.loop, "another").id, opened.id);
}

/* Nothing comes back from upstream where nobody listens. */
static void what_is_published_is_a_use(void)
{
    rt_group_opts o = {.ttl_ms = 1000, .upstream = 1};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    skip(900);
    EQUAL(sends("x"), 0);
    skip(900);
    EQUAL(sends("x"), 0);
    skip(1001);
    CHECK(!there());
}

static void a_group_lives_while_it_has_members(void)
{
    rt_group_opts o = {.ttl_ms = 1000};
    together(1, &o);
    skip(5000);
    CHECK(there());
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    skip(900);
    CHECK(there());
    skip(101);
    CHECK(!there());
    o.ttl_ms = RT_OFF;
    group = rt_group_open(st.loop, "g", &o);
    skip(100000000);
    CHECK(there());
}

/* ---- history ------------------------------------------------------------- */

static void history_is_bounded_by_count(void)
{
    rt_group_opts o = {.history = 3};
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    sends("1"), sends("2"), sends("3"), sends("4"), sends("5");
    EQUAL(position().offset, 5);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 3);
    sends("6");
    EARS(1, "3 4 5 6");
    TOLD("out:g:1 out:g:2 out:g:3 evict:g:1:1 out:g:4 evict:g:2:2 out:g:5 "
         "first:g evict:g:3:3 out:g:6");
    CHECK(evicted.epoch == position().epoch);
}

static void history_is_bounded_by_bytes(void)
{
    rt_group_opts o = {.history_bytes = 5};
    st.loop_opts.group_out = NULL;
    together(1, &o);
    sends("ab"), sends("cd"), sends(""), sends("e");
    TOLD("");
    sends("f");
    TOLD("evict:g:1:ab");
    sends("hijkl");
    TOLD("evict:g:2:cd evict:g:3: evict:g:4:e evict:g:5:f");
    sends("mnopqr"); /* larger than all of it */
    TOLD("evict:g:6:hijkl evict:g:7:mnopqr");
    rt_group_leave(st.loop, group, st.s[1]);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 0);
}

/* Messages without a byte cost memory, too. */
static void history_of_empty_messages_is_bounded(void)
{
    rt_group_opts o = {.history_bytes = 3};
    st.loop_opts.group_out = NULL;
    together(1, &o);
    sends(""), sends(""), sends("");
    TOLD("");
    sends("");
    TOLD("evict:g:1:");
    sends("abc");
    TOLD("evict:g:2:");
    EQUAL(peer_metric(st.loop, "rtnet_history_bytes"), 3);
    EQUAL(peer_metric(st.loop, "rtnet_history_messages"), 3);
}

static void history_is_bounded_by_age(void)
{
    rt_group_opts o = {.history_ms = 1000};
    st.loop_opts.group_out = NULL;
    st.loop_opts.group_evict = NULL;
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    sends("1");
    skip(600);
    sends("2");
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 2);
    clock_ahead += 500; /* and no turn yet */
    EQUAL(rt_group_join_from(st.loop, group, st.s[2], NULL), 1);
    EARS(1, "1 2");
    EARS(2, "2");
}

/* It does not wait for the next message. */
static void what_is_too_old_falls_out_by_itself(void)
{
    rt_group_opts o = {.history_ms = 1000};
    long long heap;
    char big[20000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    st.loop_opts.group_out = NULL;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    sends("1");
    skip(700);
    sends("2");
    skip(290);
    TOLD_NOW("");
    skip(200);
    TOLD_NOW("evict:g:1:1");
    skip(700);
    TOLD_NOW("evict:g:2:2");
    EQUAL(rt_loop_timeout(st.loop), -1); /* nothing is due any more */
    evict_quiet = 1;
    heap = peer_metric(st.loop, "rtnet_heap_bytes");
    sends(big);
    CHECK(peer_metric(st.loop, "rtnet_heap_bytes") > heap + 15000);
    skip(1200);
    EQUAL(evictions, 3);
    EQUAL(peer_metric(st.loop, "rtnet_groups"), 1);
}

/* For each number of messages the peer may have: exactly the missed ones, then
   live; or it is told so and nothing is replayed. */
static void joining_from_a_position_gives_what_was_missed(void)
{
    rt_group_opts o = {.history = 4};
    char want[64];
    int since, i, n;
    st.loop_opts.group_out = NULL;
    st.loop_opts.group_evict = NULL;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    sends("1"), sends("2"), sends("3"), sends("4"), sends("5"), sends("6");
    for (since = 0; since <= 8; since++) {
        int there_still = since >= 2 && since <= 6;
        EQUAL(join_at(1, (uint64_t)since),
              there_still ? 6 - since : RT_EREFUSED);
        EQUAL(rt_group_count(st.loop, group), 1); /* it has joined anyway */
        rt_group_send(st.loop, group, RT_TEXT | RT_NO_HISTORY, "live", 4);
        for (n = 0, i = since + 1; there_still && i <= 6; i++)
            n += snprintf(want + n, sizeof want - (size_t)n, "%d ", i);
        snprintf(want + n, sizeof want - (size_t)n, "live");
        EARS(1, want);
        EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    }
    EQUAL(join_at(1, UINT64_MAX), RT_EREFUSED);
}

static void a_group_without_history_has_positions(void)
{
    plain(1);
    group = rt_group_open(st.loop, "g", NULL);
    EQUAL(position().offset, 0);
    CHECK(position().epoch != 0);
    sends("1"), sends("2");
    EQUAL(position().offset, 2);
    EQUAL(join_at(1, 2), 0);
    rt_group_leave(st.loop, group, st.s[1]);
    EQUAL(join_at(1, 1), RT_EREFUSED);
    rt_group_leave(st.loop, group, st.s[1]);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 0);
    EARS(1, "");
}

static void a_new_group_has_a_new_epoch(void)
{
    rt_group_opts o = {.history = 4};
    rt_position old;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    sends("old");
    old = position();
    EQUAL(rt_group_close(st.loop, group), 0);
    EQUAL(rt_group_position(st.loop, group).epoch, 0);
    EQUAL(rt_group_position(st.loop, group).offset, 0);
    group = rt_group_open(st.loop, "g", &o);
    sends("new");
    CHECK(position().epoch != old.epoch);
    EQUAL(position().offset, 1);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], &old), RT_EREFUSED);
    EARS(1, "");
}

static void only_the_reliable_lane_is_history(void)
{
    rt_group_opts o = {.history = 8};
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    rt_group_join(st.loop, group, st.s[2]);
    EQUAL(sends("1"), 1);
    EQUAL(send_to(RT_TEXT | RT_NO_HISTORY, "n"), 1);
    EQUAL(send_to(RT_TEXT | RT_DROPPABLE, "d"), 1);
    EQUAL(keyed(1, "k"), 1);
    EQUAL(send_to(RT_BINARY, "2"), 1);
    EQUAL(position().offset, 2);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 2);
    EARS(1, "1 2");
    EARS(2, "1 n 2 d k");
}

/* ---- what falls out ------------------------------------------------------ */

static void a_group_that_ends_gives_its_history_away(void)
{
    rt_group_opts o = {.history = 4, .ttl_ms = 1000};
    st.loop_opts.group_out = NULL;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    sends("1"), sends("2");
    EQUAL(rt_group_close(st.loop, group), 0);
    TOLD("evict:g:1:1 evict:g:2:2");
    group = rt_group_open(st.loop, "g", &o);
    sends("3");
    skip(1001);
    TOLD("evict:g:1:3");
    CHECK(!there());
    group = rt_group_open(st.loop, "g", &o);
    sends("4");
    evictions = 0;
    rt_loop_free(st.loop);
    st.loop = NULL;
    EQUAL(evictions, 0); /* with the loop nothing is told any more */
}

/* What fell out, and what was sent, before the loop ends is told with it:
   whether a session is left makes no difference. */
static void what_fell_out_is_told_when_the_loop_ends(void)
{
    rt_group_opts o = {.history = 4};
    int members;
    for (members = 0; members < 2; members++) {
        plain(members);
        group = rt_group_open(st.loop, "g", &o);
        sends("1");
        EQUAL(rt_group_close(st.loop, group), 0);
        rt_loop_free(st.loop);
        st.loop = NULL;
        SAME(st.told.s, members ? "out:g:1 evict:g:1:1 close:1001:0"
                                : "out:g:1 evict:g:1:1");
    }
}

static void without_the_hook_memory_is_used_again(void)
{
    rt_group_opts o = {.history = 4, .snapshot = 4};
    int i;
    st.loop_opts.realloc = counted_realloc;
    st.loop_opts.group_out = NULL;
    st.loop_opts.group_evict = NULL;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    for (i = 0; i < 20; i++)
        sends("warm"), keyed(i % 4, "warm");
    allocations = 0;
    for (i = 0; i < 100; i++)
        sends("x"), keyed(i % 4, "x");
    EQUAL(allocations, 0);
}

/* ---- snapshot ------------------------------------------------------------ */

static void who_joins_gets_the_newest_of_each_key(void)
{
    rt_group_opts o = {.snapshot = 8};
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, "a1"), keyed(2, "b1"), keyed(3, "c1"), keyed(1, "a2");
    send_to(RT_BINARY | rt_latest(0x7fff), "z1");
    sends("not kept");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    keyed(2, "live");
    EARS(1, "b1 c1 a2 z1 live");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), RT_EEXIST);
    EARS(1, ""); /* nothing is given twice */
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, "c1 a2 z1 live");
}

/* It is reliable: no reliable message passes it, and it counts. */
static void snapshot_history_and_live_come_in_one_turn(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 8};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    sends("h1"), keyed(1, "k"), sends("h2");
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 2);
    sends("live");
    peer_turn(st.loop, 0); /* one */
    while (peer_take(&m[1]))
        ;
    EQUAL(m[1].len, 4 * 4 + 1 + 2 + 2 + 4);
    EARS(1, "k h1 h2 live");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    EQUAL(join_at(1, 1), 2);
    EARS(1, "k h2 live");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    EQUAL(join_at(1, 9), RT_EREFUSED);
    EARS(1, "k"); /* that was no part of the replay */
}

static void an_empty_message_forgets_its_key(void)
{
    rt_group_opts o = {.snapshot = 8};
    together(1, &o);
    plain_open(2);
    keyed(1, "a"), keyed(2, "b");
    EARS(1, "a b");
    EQUAL(keyed(1, ""), 1);
    EQUAL(keyed(3, ""), 1); /* one that was not known */
    EARS(1, "(empty) (empty)");
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, "b");
    keyed(1, "again");
    rt_group_leave(st.loop, group, st.s[2]);
    EARS(2, "again");
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, "b again");
}

static void one_key_too_many_displaces_the_stalest(void)
{
    rt_group_opts o = {.snapshot = 3};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, "a"), keyed(2, "b"), keyed(3, "c"), keyed(1, "a2"), keyed(4, "d");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    EARS(1, "c a2 d");
}

static void what_is_not_to_be_remembered_is_not_in_the_snapshot(void)
{
    rt_group_opts o = {.snapshot = 3};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, "a");
    send_to(RT_TEXT | RT_NO_HISTORY | rt_latest(1), "b");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    EARS(1, "a");
}

static void a_snapshot_that_does_not_fit_ends_who_joins(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 1, .event = on_event};
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    st.opts.hard_mark = 1000;
    st.loop_opts.group_out = NULL;
    plain(2);
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, text), keyed(2, text), sends("h");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), RT_EFULL);
    EQUAL(rt_group_join_from(st.loop, group, st.s[2], NULL), RT_EFULL);
    EQUAL(rt_group_count(st.loop, group), 0);
    TOLD("+ - 2.+ 2.- first:g last:g first:g last:g close:4001:1 "
         "2.close:4001:1");
}

static void a_snapshot_comes_from_upstream(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 8, .upstream = 1};
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(keyed(1, "mine"), 0);
    EQUAL(sends("mine"), 0);
    EQUAL(position().offset, 0);
    TOLD("out:g:mine out:g:mine");
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT | rt_latest(1), "k", 1), 0);
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT, "h", 1), 0);
    EQUAL(rt_group_deliver(st.loop, "h", RT_TEXT, "h", 1), RT_EGONE);
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT, "\xff", 1), RT_EUTF8);
    EQUAL(position().offset, 1);
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 1);
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT, "l", 1), 1);
    EARS(1, "k h l");
    TOLD("first:g"); /* what came is not published again */
}

/* As many keys as there are: each send finds its own. */
static void all_keys_are_remembered(void)
{
    rt_group_opts o = {.snapshot = 40000};
    int i, wrong = 0;
    char text[16];
    const char *got;
    size_t len;
    st.loop_opts.group_out = NULL;
    st.opts.hard_mark = 16 << 20;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    for (i = 0; i < 2 * 32768; i++) {
        snprintf(text, sizeof text, "%d", i);
        wrong += keyed(i % 32768, text) != 0;
    }
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 1 - 1);
    for (i = 32768; i < 65536 && plain_next(&m[1], 1, &got, &len); i++)
        wrong += atoi(got) != i || len != 5;
    EQUAL(i, 65536);
    EQUAL(wrong, 0);
    EARS(1, "");
}

/* ---- snapshots and sessions that resume ---------------------------------- */

static void resumable(const rt_group_opts *o)
{
    stage();
    open_first();
    group = rt_group_open(st.loop, "g", o);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    calm();
    script_clear(&st.told);
}

/* More than a ring keeps. */
static void lose_messages(void)
{
    int i;
    for (i = 0; i < 130; i++)
        rt_send(st.loop, st.s[1], RT_TEXT, "x", 1);
}

static void a_clean_resume_brings_no_second_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8};
    resumable(&o);
    keyed(1, "k");
    HEARS(&st.a, "uk");
    line_cut(&st.a);
    TOLD("out:g:k away");
    sends("m");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:0:resumed mm uk");
    TOLD("out:g:m back:0");
}

static void greets_on_back(const char *what, rt_session s)
{
    if (strcmp(what, "back") == 0)
        rt_send(st.loop, s, RT_TEXT, "greeting", 8);
}

static void after_a_gap_the_snapshot_comes_before_live(void)
{
    rt_group_opts o = {.snapshot = 8, .event = on_event, .history = 8};
    rt_group second;
    resumable(&o);
    second = rt_group_open(st.loop, "h", &o);
    rt_group_join(st.loop, second, st.s[1]);
    rt_group_join(st.loop, rt_group_open(st.loop, "i", NULL), st.s[1]);
    rt_group_send(st.loop, second, RT_TEXT | rt_latest(2), "h2", 2);
    line_cut(&st.a);
    calm();
    keyed(1, "old"), keyed(3, "g3"), keyed(1, "g1");
    lose_messages();
    calm();
    script_clear(&st.told);
    st.deed = greets_on_back;
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:130 b b");
    st.deed = NULL;
    sends("live");
    /* what waits in the keyed lane is the same, and comes behind */
    HEARS(&st.b, "w:0:130:gap mgreeting mg3 mg1 mh2 uh2 ug1 ug3 mlive");
    say(&st.b, "a135");
    line_cut(&st.b);
    calm();
    line_return(&st.c, &st.b.w, 135, 1);
    HEARS(&st.c, "w:0:135:resumed"); /* it was counted as they are */
}

static void a_takeover_with_a_gap_brings_the_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8};
    resumable(&o);
    keyed(1, "k");
    lose_messages();
    EQUAL(line_hear(&st.a, 131) != NULL, 1);
    script_clear(&st.told);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:130:gap mk uk");
    TOLD("away back:130");
}

static void one_who_joins_while_away_has_its_snapshot_kept(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 8};
    stage();
    open_and_lose();
    group = rt_group_open(st.loop, "g", &o);
    keyed(1, "k"), sends("h");
    EQUAL(rt_group_join_from(st.loop, group, st.s[1], NULL), 1);
    sends("live");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:0:resumed mk mh mlive");
}

/* Larger than the mark of the queue, and than what a ring keeps. */
static const char *large_text(char letter)
{
    static char text[30001];
    memset(text, letter, 30000);
    return text;
}

static int live_messages, live_state;

/* In the turn in which it came back, behind the snapshot. */
static void sends_when_back(const char *what, rt_session s)
{
    char text[1000];
    int i;
    memset(text, 'l', sizeof text);
    if (strcmp(what, "event") != 0)
        return;
    st.deed = NULL;
    for (i = 0; i < live_messages; i++)
        rt_send(st.loop, s, RT_TEXT, text, sizeof text);
    live_state = rt_state(st.loop, s);
}

/* Otherwise it would lose its line for the snapshot each time, and with the
   queue the answer to its greeting, for ever. */
static void who_comes_back_gets_a_snapshot_beyond_the_mark(void)
{
    rt_group_opts o = {.snapshot = 8, .event = on_event};
    rt_group second;
    st.opts.hard_mark = 40000;
    resumable(&o);
    second = rt_group_open(st.loop, "h", &o);
    rt_group_join(st.loop, second, st.s[1]);
    line_cut(&st.a);
    calm();
    keyed(1, large_text('x')), keyed(2, large_text('x'));
    rt_group_send(st.loop, second, RT_TEXT | rt_latest(3), large_text('y'),
                  30000);
    lose_messages();
    st.deed = sends_when_back;
    live_messages = 30; /* these are within it */
    line_return(&st.b, &st.a.w, 0, 1);
    line_hear(&st.b, 1 + 3 + live_messages + 3);
    CHECK(strstr(st.b.script.s, "w:0:130:gap mx#30000 mx#30000 my#30000 ml#"));
    EQUAL(live_state, RT_OPEN);
    line_cut(&st.b);
    calm();
    lose_messages();
    st.deed = sends_when_back;
    live_messages = 45;
    line_return(&st.c, &st.b.w, 0, 1);
    HEARS(&st.c, "c4001");
    EQUAL(live_state, RT_AWAY); /* and these are not */
}

static void joins_again_on_back(const char *what, rt_session s)
{
    if (strcmp(what, "back") != 0)
        return;
    EQUAL(rt_group_leave(st.loop, group, s), 0);
    EQUAL(rt_group_join_from(st.loop, group, s, NULL), 1);
}

static void who_joins_again_in_on_back_gets_one_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 8};
    resumable(&o);
    line_cut(&st.a);
    calm();
    send_to(RT_TEXT, "h");
    keyed(1, "k");
    lose_messages();
    st.deed = joins_again_on_back;
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:131:gap mk mh uk");
}

/* The value that is held from an earlier membership would come last. */
static void no_older_value_comes_behind_the_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8};
    resumable(&o);
    line_cut(&st.a);
    calm();
    keyed(1, "old");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    keyed(1, "new");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:0:resumed mnew unew");
}

/* The same with one that waits in the queue of a connection. */
static void no_older_value_waits_behind_the_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8};
    together(1, &o);
    keyed(1, "old");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    keyed(1, "new");
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    EARS(1, "new new");
}

/* Nor where there is no room for the newer one in its place. */
static void an_older_value_that_cannot_be_replaced_is_dropped(void)
{
    rt_group_opts o = {.snapshot = 8};
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    st.opts.hard_mark = 1000;
    together(1, &o);
    keyed(1, "old"), keyed(2, "other");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    keyed(1, text);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    EARS(1, "other xx#598 other");
    keyed(1, "again");
    EARS(1, "again");
}

/* What a client lost are the server's messages, not those of its groups. */
static void a_client_that_comes_back_gets_no_snapshot(void)
{
    rt_group_opts o = {.snapshot = 8};
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    say(&st.a, "w%s who1 0 0 new 15000", token_of(1));
    HEARS(&st.a, "a0");
    TOLD("open");
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    keyed(1, "k");
    HEARS(&st.a, "uk");
    line_cut(&st.a);
    TOLD("first:g out:g:k away");
    skip(600);
    line_take(&st.b);
    HEARS(&st.b, "h:1:0:1");
    say(&st.b, "w%s who1 0 5 gap 15000", token_of(2));
    TOLD("back:5");
    HEARS(&st.b, "a5 uk");
}

/* ---- presence of those away ---------------------------------------------- */

static void who_joins_while_away_is_away(void)
{
    rt_group_opts o = {.event = on_event};
    stage();
    open_and_lose();
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    TOLD("+ a first:g");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    TOLD("- + a last:g first:g");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:0:resumed");
    TOLD("back:0 b");
}

static void joins_on_away(const char *what, rt_session s)
{
    if (strcmp(what, "away") == 0)
        EQUAL(rt_group_join(st.loop, group, s), 0);
}

static void who_joins_in_on_away_is_away(void)
{
    rt_group_opts o = {.event = on_event};
    stage();
    open_first();
    group = rt_group_open(st.loop, "g", &o);
    st.deed = joins_on_away;
    line_cut(&st.a);
    TOLD("away + a first:g");
    st.deed = NULL;
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:0 b");
}

/* Away in the call, but nobody was told yet. */
static void who_joins_before_its_away_is_told_is_told_once(void)
{
    rt_group_opts o = {.event = on_event};
    stage();
    open_first();
    group = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
    TOLD("away + a first:g");
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:0 b");
}

/* A host with its own protocol: the session is open again before anybody is
   told so, and all is acknowledged at once. */
static void an_adopted_member_is_back(void)
{
    rt_group_opts o = {.event = on_event, .snapshot = 8};
    rt_group late;
    char token[23];
    plain(1);
    EQUAL(rt_keep(st.loop, st.s[1], 2000, token), 0);
    group = rt_group_open(st.loop, "g", &o);
    late = rt_group_open(st.loop, "late", &o);
    rt_group_join(st.loop, group, st.s[1]);
    rt_group_send(st.loop, late, RT_TEXT | rt_latest(1), "L", 1);
    keyed(2, "G");
    peer_reset(&m[1]);
    TOLD("away + a first:g out:late:L out:g:G");
    lose_messages();
    plain_open(2);
    TOLD("2.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 0), 0);
    EQUAL(rt_acked(st.loop, st.s[1], 130), 0);
    EQUAL(rt_group_join(st.loop, late, st.s[1]), 0);
    TOLD("back:130 + a b b first:late 2.close:1000:0");
    EARS(2, "L G G"); /* the second as it was held in the keyed lane */
}

/* Nothing of it is under way any more, but that it is back. */
static void an_adopted_member_that_lacks_nothing_is_back(void)
{
    rt_group_opts o = {.event = on_event};
    char token[23];
    plain(1);
    EQUAL(rt_keep(st.loop, st.s[1], 2000, token), 0);
    group = rt_group_open(st.loop, "g", &o);
    rt_group_join(st.loop, group, st.s[1]);
    peer_reset(&m[1]);
    TOLD("away + a first:g");
    plain_open(2);
    TOLD("2.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 0), 0);
    EQUAL(rt_acked(st.loop, st.s[1], 0), 0);
    TOLD("back:0 b 2.close:1000:0");
}

/* Lost again before anybody heard that it was back: it is away as it was. */
static void one_adopted_and_lost_at_once_is_away_as_before(void)
{
    rt_group_opts o = {.event = on_event};
    char token[23];
    plain(1);
    EQUAL(rt_keep(st.loop, st.s[1], 2000, token), 0);
    group = rt_group_open(st.loop, "g", &o);
    rt_group_join(st.loop, group, st.s[1]);
    peer_reset(&m[1]);
    TOLD("away + a first:g");
    plain_open(2);
    TOLD("2.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 0), 0);
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    TOLD("2.close:1000:0");
    plain_open(3);
    TOLD("3.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[3], 0), 0);
    TOLD("back:0 b 3.close:1000:0");
}

/* ---- idempotent sends ---------------------------------------------------- */

static void a_key_is_sent_once(void)
{
    rt_group_opts o = {.history = 8};
    rt_position at = {0, 0};
    together(1, &o);
    sends("0");
    EQUAL(once("k", "1", &at), 1);
    EQUAL(at.offset, 2);
    CHECK(at.epoch == position().epoch);
    sends("2");
    at.offset = at.epoch = 0;
    EQUAL(once("k", "again", &at), RT_EEXIST);
    EQUAL(at.offset, 2);
    CHECK(at.epoch == position().epoch);
    EQUAL(once("k", "again", NULL), RT_EEXIST);
    EQUAL(once("K", "3", NULL), 1);
    EQUAL(position().offset, 4);
    EARS(1, "0 1 2 3");
    TOLD("out:g:0 out:g:1 out:g:2 out:g:3");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    EQUAL(once("empty", "4", NULL), 0); /* nobody took it, but it was sent */
    EQUAL(once("empty", "4", NULL), RT_EEXIST);
}

/* Keys that differ in their last byte alone, up to the longest. */
static void a_key_is_compared_whole(void)
{
    char key[257];
    rt_position at;
    int i, n;
    together(1, NULL);
    memset(key, 'k', sizeof key);
    for (n = 1; n <= 255; n += 127) {
        key[n] = 0;
        for (i = 0; i < 100; i++) {
            key[n - 1] = (char)(i + 1);
            EQUAL(once(key, "x", &at), 1);
            EQUAL(at.offset, position().offset);
        }
        for (i = 0; i < 100; i++) {
            key[n - 1] = (char)(i + 1);
            EQUAL(once(key, "x", &at), RT_EEXIST);
            EQUAL(at.offset, position().offset - 99 + (uint64_t)i);
        }
        key[n - 1] = key[n] = 'k';
    }
    key[256] = 0;
    EQUAL(once(key, "x", NULL), RT_EINVAL);
    EQUAL(once("", "x", NULL), RT_EINVAL);
    EQUAL(once(NULL, "x", NULL), RT_EINVAL);
    group.id = 0;
    EQUAL(once("k", "x", NULL), RT_EGONE);
}

/* Where all hashes are the same, only the keys themselves differ. */
static void keys_of_one_hash_are_told_apart(void)
{
    rt_group_opts o = {.snapshot = 8};
    rt_group other;
    rt_position at;
    one_hash = 1;
    together(1, &o);
    plain_open(2);
    other = rt_group_open(st.loop, "h", NULL);
    CHECK(other.id != group.id);
    EQUAL(once("a", "1", NULL), 1);
    EQUAL(once("b", "2", NULL), 1);
    EQUAL(once("a", "x", &at), RT_EEXIST);
    EQUAL(at.offset, 1);
    EQUAL(once("b", "x", &at), RT_EEXIST);
    EQUAL(at.offset, 2);
    keyed(1, "k"), keyed(2, "l"), keyed(1, "m");
    EARS(1, "1 2 m l"); /* in the keyed lane, so in k's place */
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, "l m");
}

/* The same for user ids, for tokens, and for routes of the metrics. */
static void names_of_one_hash_are_told_apart(void)
{
    static char text[300000];
    char one[23], two[23];
    one_hash = 1;
    plain(2);
    EQUAL(rt_bind(st.loop, st.s[1], "ann"), 0);
    EQUAL(rt_bind(st.loop, st.s[2], "bob"), 0);
    CHECK(rt_same(rt_find(st.loop, "ann"), st.s[1]));
    CHECK(rt_same(rt_find(st.loop, "bob"), st.s[2]));
    EQUAL(rt_find(st.loop, "cid").id, 0);
    EQUAL(rt_keep(st.loop, st.s[1], 1000, one), 0);
    EQUAL(rt_keep(st.loop, st.s[2], 1000, two), 0);
    CHECK(rt_same(rt_find_token(st.loop, one), st.s[1]));
    CHECK(rt_same(rt_find_token(st.loop, two), st.s[2]));
    EQUAL(rt_observe(st.loop, "login", 1), 0);
    EQUAL(rt_observe(st.loop, "move", 1), 0);
    EQUAL(rt_observe(st.loop, "login", 1), 0);
    CHECK(rt_metrics(st.loop, text, sizeof text) < sizeof text);
    CHECK(strstr(text, "_count{route=\"login\"} 2\n") != NULL);
    CHECK(strstr(text, "_count{route=\"move\"} 1\n") != NULL);
}

static void keys_are_known_for_a_time(void)
{
    rt_group_opts o = {.once_ms = 1000};
    long long heap;
    int i;
    char key[16];
    together(1, &o);
    st.loop_opts.group_out = NULL;
    EQUAL(once("k", "1", NULL), 1);
    skip(900);
    EQUAL(once("k", "1", NULL), RT_EEXIST); /* does not prolong it */
    clock_ahead += 101;
    EQUAL(once("k", "2", NULL), 1);
    EARS(1, "1 2");
    EQUAL(rt_group_leave(st.loop, group, st.s[1]), 0);
    skip(3000);
    EQUAL(rt_loop_timeout(st.loop), -1);
    heap = peer_metric(st.loop, "rtnet_heap_bytes");
    for (i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%d", i);
        once(key, "x", NULL);
    }
    CHECK(peer_metric(st.loop, "rtnet_heap_bytes") > heap + 200 * 40);
    skip(1200); /* by themselves */
    CHECK(peer_metric(st.loop, "rtnet_heap_bytes") < heap + 200 * 40);
}

static void so_many_keys_are_known(void)
{
    rt_group_opts o = {.once_max = 3};
    together(1, &o);
    EQUAL(once("a", "1", NULL), 1);
    EQUAL(once("b", "2", NULL), 1);
    EQUAL(once("c", "3", NULL), 1);
    EQUAL(once("a", "x", NULL), RT_EEXIST);
    EQUAL(once("d", "4", NULL), 1); /* displaces a */
    EQUAL(once("b", "x", NULL), RT_EEXIST);
    EQUAL(once("a", "5", NULL), 1);
    EQUAL(once("b", "6", NULL), 1);
    EQUAL(once("d", "x", NULL), RT_EEXIST);
    EARS(1, "1 2 3 4 5 6");
}

static void a_send_that_fails_uses_no_key_up(void)
{
    rt_group_opts o = {.rate_limit = 1, .once_max = 1};
    together(1, &o);
    EQUAL(once("k", "\xff", NULL), RT_EUTF8);
    EQUAL(rt_group_send_once(st.loop, group, "k", 0, "x", 1, NULL), RT_EINVAL);
    EQUAL(once("k", "1", NULL), 1);
    EQUAL(once("l", "2", NULL), RT_EREFUSED);
    EQUAL(once("k", "x", NULL), RT_EEXIST); /* nor did l displace it */
    skip(1001);
    EQUAL(once("l", "2", NULL), 1);
    EARS(1, "1 2");
}

static void with_upstream_a_key_is_published_once(void)
{
    rt_group_opts o = {.upstream = 1};
    rt_position at = {1, 1};
    together(1, &o);
    EQUAL(once("k", "1", &at), 0);
    EQUAL(at.epoch + at.offset, 0);
    at.offset = 1;
    EQUAL(once("k", "1", &at), RT_EEXIST);
    EQUAL(at.epoch + at.offset, 0);
    TOLD("out:g:1");
    EARS(1, "");
}

/* ---- limits -------------------------------------------------------------- */

/* Refused by each of the calls: nothing sent, remembered, published. */
static void above_its_rate_a_group_refuses(void)
{
    rt_group_opts o = {.rate_limit = 2, .history = 8, .snapshot = 8};
    together(2, &o);
    EQUAL(sends("1"), 2);
    EQUAL(rt_group_send_but(st.loop, group, st.s[2], RT_TEXT, "2", 1), 1);
    EQUAL(sends("x"), RT_EREFUSED);
    EQUAL(rt_group_send_but(st.loop, group, st.s[2], RT_TEXT, "x", 1),
          RT_EREFUSED);
    EQUAL(once("k", "x", NULL), RT_EREFUSED);
    EQUAL(keyed(1, "x"), RT_EREFUSED);
    EQUAL(sends("\xff"), RT_EUTF8);
    EQUAL(position().offset, 2);
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT, "u", 1), 2);
    EARS(1, "1 2 u");
    EARS(2, "1 u");
    TOLD("out:g:1 out:g:2");
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, ""); /* the snapshot has none of it */
}

static void a_refused_message_takes_no_slot(void)
{
    rt_group_opts o = {.rate_limit = 1, .rate_ms = 1000};
    int i;
    together(1, &o);
    skip(5000);
    EQUAL(sends("1"), 1);
    for (i = 0; i < 9; i++) {
        skip(100);
        EQUAL(sends("x"), RT_EREFUSED);
    }
    skip(101);
    EQUAL(sends("2"), 1);
    EARS(1, "1 2");
}

static void a_bucket_bounds_messages_and_bytes(void)
{
    rt_group_opts messages = {.message_rate = 2, .message_burst = 3};
    rt_group_opts second = {.message_rate = 2};
    rt_group_opts bytes = {.byte_rate = 10, .byte_burst = 4};
    together(1, &messages);
    EQUAL(sends("1"), 1);
    EQUAL(sends("2"), 1);
    EQUAL(sends("3"), 1);
    EQUAL(sends("x"), RT_EREFUSED);
    skip(501);
    EQUAL(sends("4"), 1);
    EQUAL(sends("x"), RT_EREFUSED);
    group = rt_group_open(st.loop, "second", &second);
    EQUAL(sends("1"), 0); /* without a burst, one second's worth */
    EQUAL(sends("2"), 0);
    EQUAL(sends("x"), RT_EREFUSED);
    group = rt_group_open(st.loop, "bytes", &bytes);
    EQUAL(sends("123"), 0);
    EQUAL(sends("45"), RT_EREFUSED);
    EQUAL(sends("4"), 0);
    EQUAL(sends(""), 0); /* costs none */
    skip(401);
    EQUAL(sends("much more than that"), 0); /* an empty one takes any */
    skip(401);
    EQUAL(sends("x"), RT_EREFUSED);
}

/* A message that is sent takes of each limit, one that is refused of none. */
static void limits_hold_together(void)
{
    rt_group_opts o = {.rate_limit = 3, .byte_rate = 10, .message_rate = 100};
    together(1, &o);
    EQUAL(sends("12345678"), 1);
    EQUAL(sends("901"), RT_EREFUSED);
    EQUAL(sends("901"), RT_EREFUSED);
    EQUAL(sends("901"), RT_EREFUSED);
    EQUAL(sends("9"), 1);
    EQUAL(sends("0"), 1);
    EQUAL(sends(""), RT_EREFUSED);
}

static void options_that_cannot_be_are_refused(void)
{
    size_t i;
    const char *text;
    rt_group_opts o;
    int *const numbers[] = {&o.history,       &o.history_bytes, &o.history_ms,
                            &o.ttl_ms,        &o.max_members,   &o.upstream,
                            &o.snapshot,      &o.once_ms,       &o.once_max,
                            &o.rate_limit,    &o.rate_ms,       &o.message_rate,
                            &o.message_burst, &o.byte_rate,     &o.byte_burst};
    plain(1);
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        memset(&o, 0, sizeof o);
        *numbers[i] = -2;
        EQUAL(rt_group_open(st.loop, "g", &o).id, 0);
        EQUAL(rt_error(st.loop, &text), RT_EINVAL);
        CHECK(strstr(text, "group options") != NULL);
        *numbers[i] = RT_OFF;
        group = rt_group_open(st.loop, "g", &o);
        CHECK(group.id != 0);
        EQUAL(rt_group_join(st.loop, group, st.s[1]), 0);
        EQUAL(rt_group_close(st.loop, group), 0);
    }
    o.rate_limit = INT32_MAX;
    EQUAL(rt_group_open(st.loop, "g", &o).id, 0);
    EQUAL(rt_error(st.loop, &text), RT_EINVAL);
}

static void what_is_off_limits_nothing(void)
{
    rt_group_opts o = {.history = RT_OFF,
                       .once_ms = RT_OFF,
                       .once_max = RT_OFF,
                       .rate_limit = 1,
                       .rate_ms = RT_OFF,
                       .message_rate = 1,
                       .message_burst = RT_OFF,
                       .byte_rate = RT_OFF,
                       .byte_burst = 1};
    char key[16];
    int i;
    st.loop_opts.group_out = NULL;
    together(1, &o);
    for (i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "%d", i);
        EQUAL(once(key, "xx", NULL), 1);
        if (i % 100 == 0)
            calm();
    }
    skip(100000000);
    EQUAL(once("0", "x", NULL), RT_EEXIST);
}

/* ---- from inside the callbacks ------------------------------------------- */

enum { JOIN, LEAVE, CLOSE_ONE, CLOSE_ALL, SEND, END, REOPEN, DEEDS };
static const char *const deed_names[DEEDS] = {
    "join", "leave", "close", "close all", "send", "end", "reopen"};
static const char *const from_names[] = {"event", "first",   "last", "out",
                                         "evict", "message", "close"};

static rt_group_opts busy; /* remembers, and tells of all */
static int doing, deeds_left;
static const char *doing_in;

static void close_all(void)
{
    rt_session all[MEMBERS];
    size_t i, n = rt_group_members(st.loop, group, all, MEMBERS);
    for (i = 0; i < n; i++) {
        EQUAL(rt_close(st.loop, all[i], 0, NULL), 0);
        EQUAL(rt_group_count(st.loop, group), n - i - 1);
    }
}

/* The second session is out of the group, the others are in or closing. */
static void deed_do(void)
{
    int in = rt_group_count(st.loop, group) > 0;
    if (doing == JOIN) {
        int error = rt_group_join(st.loop, group, st.s[2]);
        CHECK(error == 0 || error == RT_EEXIST);
    } else if (doing == LEAVE && in) {
        rt_session one;
        rt_group_members(st.loop, group, &one, 1);
        EQUAL(rt_group_leave(st.loop, group, one), 0);
    } else if (doing == CLOSE_ONE) {
        int error = rt_close(st.loop, st.s[3], 0, NULL);
        CHECK(error == 0 || error == RT_EGONE);
    } else if (doing == CLOSE_ALL) {
        close_all();
    } else if (doing == SEND) {
        CHECK(once("in", "inside", NULL) >= 0);
        CHECK(sends("inside") >= 0);
        CHECK(keyed(7, "inside") >= 0);
    } else if (doing >= END) {
        EQUAL(rt_group_close(st.loop, group), 0);
        EQUAL(sends("x"), RT_EGONE);
    }
    if (doing == REOPEN) {
        group = rt_group_open(st.loop, "g", &busy);
        EQUAL(rt_group_count(st.loop, group), 0);
        EQUAL(position().offset, 0);
        EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    }
}

static void deed_inside(const char *what, rt_session s)
{
    (void)s;
    if (strcmp(what, doing_in) != 0 || deeds_left == 0)
        return;
    deeds_left--;
    deed_do();
}

static void from_inside(void)
{
    memset(&busy, 0, sizeof busy);
    busy.history = 1;
    busy.snapshot = 2;
    busy.event = on_event;
    deeds_left = 1;
    together(4, &busy);
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), 0);
    calm();
    st.deed = deed_inside;
    keyed(1, "k"), sends("1"), sends("2");
    peer_stream_put(&m[4], "hello", 5);
    EQUAL(rt_group_leave(st.loop, group, st.s[4]), 0);
    EQUAL(rt_group_join(st.loop, group, st.s[4]), 0);
    EQUAL(rt_close(st.loop, st.s[1], 0, NULL), 0);
    told_all("mhello");
    if (deeds_left) { /* of the last one out, and the first one in */
        rt_group_leave(st.loop, group, st.s[3]);
        rt_group_leave(st.loop, group, st.s[4]);
        rt_group_join(st.loop, group, st.s[3]);
        calm();
    }
    EQUAL(deeds_left, 0);
    st.deed = NULL;
    group = rt_group_open(st.loop, "g", &busy); /* all still works */
    plain_open(5);
    EQUAL(rt_group_join(st.loop, group, st.s[5]), 0);
    CHECK(sends("after") >= 1);
    calm();
    CHECK(strstr(heard(5, "after"), "after") != NULL);
}

#include "group_pairs.h"

/* ---- while the group is iterated ----------------------------------------- */

/* Some have no room for it: they end in the middle of the cast. */
static void members_that_overflow_end_during_the_cast(void)
{
    rt_group_opts o = {.event = on_event};
    char text[601];
    int i, full;
    memset(text, 'x', 600);
    text[600] = 0;
    st.loop_opts.group_out = NULL;
    st.opts.hard_mark = 1000;
    for (full = 1; full < 1 << 4; full += 2) { /* each set with the first */
        stage_end();
        stage_begin(RT_AUTO, TCP);
        st.opts.hard_mark = 1000;
        together(4, &o);
        for (i = 1; i <= 4; i++)
            if (full >> (i - 1) & 1)
                EQUAL(rt_send(st.loop, st.s[i], RT_TEXT, text, 600), 0);
        i = (full >> 0 & 1) + (full >> 1 & 1) + (full >> 2 & 1) + (full >> 3);
        EQUAL(sends(text), 4 - i);
        EQUAL(rt_group_count(st.loop, group), 4 - i);
        for (i = 1; i <= 4; i++) {
            if (!(full >> (i - 1) & 1))
                EARS(i, "xx#599");
            peer_end(&m[i]);
        }
    }
}

/* One who goes away may displace another one, who was away longest: the place
   of that one is filled in the middle of the cast. */
static void nobody_gets_a_message_twice(void)
{
    char text[601];
    memset(text, 'x', 600);
    text[600] = 0;
    st.opts.hard_mark = 1000;
    stage();
    open_first();
    line_open(&st.b);
    say(&st.b, "h");
    HEARS(&st.b, "w:0:0:new");
    say(&st.b, "a0");
    line_open(&st.c);
    say(&st.c, "h");
    HEARS(&st.c, "w:0:0:new");
    say(&st.c, "a0");
    calm();
    EQUAL(rt_bind(st.loop, st.s[3], "u"), 0);
    group = rt_group_open(st.loop, "g", NULL);
    rt_group_join(st.loop, group, st.s[1]);
    rt_group_join(st.loop, group, st.s[2]);
    rt_group_join(st.loop, group, st.s[3]);
    line_cut(&st.a);
    calm();
    st.loop->away_count += RT__AWAY_MOST - 1; /* as if so many were */
    EQUAL(rt_send(st.loop, st.s[3], RT_TEXT, text, 600), 0);
    EQUAL(sends(text), 2);
    EQUAL(rt_group_count(st.loop, group), 2);
    HEARS(&st.b, "mx#600");
    line_return(&st.a, &st.c.w, 0, 1);
    HEARS(&st.a, "w:0:0:resumed mx#600 mx#600");
    st.loop->away_count -= RT__AWAY_MOST - 1;
}

/* Each member's queue holds the same bytes. */
static void what_goes_to_many_is_framed_once(void)
{
    enum { LONG = 60000 };
    static char text[LONG];
    long long before;
    memset(text, 'x', LONG);
    st.loop_opts.group_out = NULL;
    together(MEMBERS, NULL);
    before = (long long)peer_heap;
    EQUAL(rt_group_send(st.loop, group, RT_TEXT, text, LONG), MEMBERS);
    CHECK((long long)peer_heap - before < LONG + LONG / 2);
    EQUAL(rt_send_many(st.loop, st.s + 1, MEMBERS, RT_TEXT, text, LONG),
          MEMBERS);
    CHECK((long long)peer_heap - before < 2 * LONG + LONG);
    EQUAL(rt_unsent(st.loop, st.s[1]), 2 * (LONG + 4));
}

static void all_members_may_be_closed_in_a_loop(void)
{
    rt_group_opts o = {.event = on_event};
    together(3, &o);
    close_all();
    TOLD("- 2.- 3.- last:g close:1000:0 2.close:1000:0 3.close:1000:0");
}

static void broadcasts_and_closes(const char *what, rt_session s)
{
    (void)s;
    if (strcmp(what, "message") != 0)
        return;
    EQUAL(sends("bye"), 3);
    close_all();
    EQUAL(sends("nobody"), 0);
}

static void members_may_be_closed_in_the_message_of_one(void)
{
    together(3, NULL);
    st.deed = broadcasts_and_closes;
    peer_stream_put(&m[2], "x", 1);
    told_all("2.mx last:g out:g:bye out:g:nobody close:1000:0");
    EARS(1, "bye");
    EARS(2, "bye");
    EARS(3, "bye");
    CHECK(peer_ended(&m[1]) && peer_ended(&m[2]) && peer_ended(&m[3]));
}

/* ---- a thousand members, one never reads --------------------------------- */

enum { CROWD = 1000, LETTERS = 8192, HARD = 65536, ROUNDS = 10 };

static struct {
    int fd[CROWD]; /* the first one never reads */
    size_t got[CROWD];
    rt_session s[CROWD];
    int count, closes, code;
    int quiet_turns, quiet_ms; /* while all of them read */
    char text[LETTERS + 1], in[65536];
} crowd;

static void crowd_opened(rt_loop *loop, rt_session s)
{
    EQUAL(rt_group_join(loop, group, s), 0);
    crowd.s[crowd.count++] = s;
}

static void crowd_closed(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    if (crowd.closes == 0)
        CHECK(rt_same(s, crowd.s[0])); /* the others end with the loop */
    crowd.closes++;
    crowd.code = why->code;
}

static int crowd_open(void)
{
    struct rlimit files;
    peer p;
    int i;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 2 * CROWD + 64)
        return 0;
    for (i = 0; i < CROWD; i++) {
        if (!peer_tcp(&p, st.loop, st.port))
            return 0;
        crowd.fd[i] = p.fd;
        if (i % 16 == 0)
            peer_turn(st.loop, 0);
    }
    peer_until(st.loop, &crowd.count, CROWD);
    return crowd.count == CROWD;
}

/* The system takes no more for the first one. */
static int crowd_fill(void)
{
    int i, full = 0;
    for (i = 0; i < 1000 && full < 4; i++) {
        rt_send(st.loop, crowd.s[0], RT_BINARY | RT_DROPPABLE, crowd.text,
                LETTERS);
        peer_turn(st.loop, 0);
        full = rt_unsent(st.loop, crowd.s[0]) > 0 ? full + 1 : 0;
    }
    return full == 4;
}

/* All but the first read what there is; true when each has as much as that. */
static int crowd_reads(size_t want)
{
    int i, all = 1;
    for (i = 1; i < CROWD; i++) {
        ssize_t n = 1;
        while (crowd.got[i] < want && n > 0) {
            n = recv(crowd.fd[i], crowd.in, sizeof crowd.in, 0);
            if (n > 0)
                crowd.got[i] += (size_t)n;
        }
        all = all && crowd.got[i] >= want;
    }
    return all;
}

/* One message of that kind to all; after how many turns did they have it?  How
   many took it goes to *took. */
static int crowd_round(int kind, int *took)
{
    static size_t want;
    int turns = 0;
    want = crowd.got[CROWD - 1] + 4 + LETTERS;
    *took = rt_group_send(st.loop, group, kind, crowd.text, LETTERS);
    do
        peer_turn(st.loop, turns);
    while (!crowd_reads(want) && ++turns < 50);
    return turns;
}

/* So many rounds: the most turns that one took, and the ms of most of them. */
static int crowd_rounds(int kind, int *took, int *ms, long long *heap)
{
    int i, times[ROUNDS], latest = 0;
    *heap = 0;
    for (i = 0; i < ROUNDS; i++) {
        uint64_t start = peer_clock();
        int k, time, turns = crowd_round(kind, took);
        long long now = peer_metric(st.loop, "rtnet_heap_bytes");
        latest = turns > latest ? turns : latest;
        *heap = now > *heap ? now : *heap;
        time = (int)(peer_clock() - start);
        for (k = i; k > 0 && times[k - 1] > time; k--)
            times[k] = times[k - 1];
        times[k] = time;
    }
    *ms = times[ROUNDS / 2];
    return latest;
}

/* The others have it as early as ever: in the same turn, which takes no longer
   than it did. */
static void crowd_lane(int kind, int least, long long heap)
{
    int took, ms;
    long long most;
    EQUAL(crowd_rounds(kind, &took, &ms, &most), crowd.quiet_turns);
    CHECK(ms <= 3 * crowd.quiet_ms + 20);
    EQUAL(took, least);
    CHECK(most < heap + 2 * HARD);
}

static void one_of_a_thousand_that_never_reads_delays_nobody(void)
{
    long long heap;
    int i;
    st.opts.hard_mark = HARD;
    st.opts.soft_mark = HARD / 4;
    st.opts.on.open = crowd_opened;
    st.opts.on.close = crowd_closed;
    st.opts.on.writable = NULL;
    st.loop_opts.group_out = NULL;
    memset(&crowd, 0, sizeof crowd);
    memset(crowd.text, 'x', LETTERS);
    plain(0);
    group = rt_group_open(st.loop, "g", NULL);
    if (!crowd_open()) {
        SKIP("not so many descriptors");
        return;
    }
    crowd.quiet_turns = crowd_rounds(RT_TEXT, &i, &crowd.quiet_ms, &heap);
    EQUAL(crowd.quiet_turns, 0); /* what is sent in a turn leaves in it */
    EQUAL(i, CROWD);
    CHECK(crowd_fill());
    heap = peer_metric(st.loop, "rtnet_heap_bytes");
    crowd_lane(RT_TEXT | RT_DROPPABLE, CROWD - 1, heap);
    EQUAL(rt_group_count(st.loop, group), CROWD);
    crowd_lane(RT_TEXT | rt_latest(1), CROWD, heap);
    EQUAL(rt_group_count(st.loop, group), CROWD);
    crowd_lane(RT_TEXT, CROWD - 1, heap);
    EQUAL(rt_group_count(st.loop, group), CROWD - 1);
    EQUAL(rt_state(st.loop, crowd.s[0]), RT_EGONE);
    EQUAL(crowd.code, RT_CLOSE_SLOW);
    EQUAL(crowd.closes, 1);
    EQUAL(crowd_round(RT_TEXT, &i), 0);
    EQUAL(i, CROWD - 1);
    rt_loop_free(st.loop);
    st.loop = NULL;
    EQUAL(crowd.closes, CROWD);
    for (i = 0; i < CROWD; i++)
        close(crowd.fd[i]);
}

/* ---- without memory ------------------------------------------------------ */

/* A text too long for the buffers that are there already. */
static const char *fresh_text(char letter)
{
    static char text[6001];
    memset(text, letter, 6000);
    return text;
}

/* It is sent; what went before is forgotten, and who asks is told so. */
static void a_message_that_cannot_be_remembered_is_a_hole(void)
{
    rt_group_opts o = {.history = 4};
    st.loop_opts.realloc = counted_realloc;
    st.loop_opts.group_out = NULL;
    together(1, &o);
    plain_open(2);
    sends("1"), sends("2");
    calm();
    script_clear(&st.told);
    fail_at = 1;
    EQUAL(sends(fresh_text('x')), 1);
    EQUAL(fail_at, 0);
    TOLD("evict:g:1:1 evict:g:2:2 evict:g:3:xxxxxxxxxxxxxxxxxxxx");
    EARS(1, "1 2 xx#5999");
    EQUAL(position().offset, 3);
    sends("4");
    EQUAL(join_at(2, 2), RT_EREFUSED);
    EQUAL(rt_group_leave(st.loop, group, st.s[2]), 0);
    EQUAL(join_at(2, 3), 1);
    EARS(2, "4");
}

static void a_value_that_cannot_be_remembered_is_not_sent(void)
{
    rt_group_opts o = {.snapshot = 4};
    st.loop_opts.realloc = counted_realloc;
    together(1, &o);
    plain_open(2);
    keyed(1, "a"), keyed(2, "b");
    EARS(1, "a b");
    script_clear(&st.told);
    fail_at = 1;
    EQUAL(keyed(1, fresh_text('x')), RT_ENOMEM);
    fail_at = 1;
    EQUAL(rt_group_deliver(st.loop, "g", RT_TEXT | rt_latest(1),
                           fresh_text('x'), 6000),
          RT_ENOMEM);
    EARS(1, "");
    TOLD(""); /* nor published */
    EQUAL(rt_group_join(st.loop, group, st.s[2]), 0);
    EARS(2, "a b");
}

/* Neither a slot nor a key is used up. */
static void what_cannot_be_published_is_not_sent(void)
{
    rt_group_opts o = {.upstream = 1, .rate_limit = 1};
    st.loop_opts.realloc = counted_realloc;
    together(1, &o);
    fail_at = 1;
    EQUAL(sends("x"), RT_ENOMEM);
    fail_at = 2; /* behind the key */
    EQUAL(once("k", "x", NULL), RT_ENOMEM);
    EQUAL(fail_at, 0);
    EQUAL(once("k", "1", NULL), 0);
    EQUAL(sends("x"), RT_EREFUSED);
    TOLD("out:g:1");
}

/* One that lives only as long as its line: it has no token, and its queue
   holds all that it can without memory.  value: of key 1, written and not
   acknowledged. */
static void open_without_token(int value)
{
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, "w:0:0:new");
    say(&st.a, "a0");
    line_settle(&st.a);
    if (value)
        rt_send(st.loop, st.s[st.count], RT_TEXT | rt_latest(1), "old", 3);
    calm();
    send_text(st.count, "x");
    rt_send_many(st.loop, &st.s[st.count], 1, RT_TEXT, "y", 1);
}

/* Whatever allocation fails: nothing more is given to one that ended. */
static void who_ends_in_the_call_is_not_joined(void)
{
    rt_group_opts o = {.snapshot = 8, .history = 8};
    int n, took, ended = 0;
    st.loop_opts.realloc = counted_realloc;
    stage();
    st.no_random = 1;
    group = rt_group_open(st.loop, "g", &o);
    sends("h"), keyed(1, "k");
    for (n = 0; n < 24; n++) {
        open_without_token(n & 1);
        fail_at = n / 2 + 1;
        took = rt_group_join_from(st.loop, group, st.s[st.count], NULL);
        fail_at = 0;
        if (rt_state(st.loop, st.s[st.count]) != RT_OPEN) {
            CHECK(took < 0);
            ended++;
        }
        line_cut(&st.a);
        calm();
    }
    CHECK(ended >= 2);
    EQUAL(rt_group_count(st.loop, group), 0);
}

/* One seat needs no memory, a second does, and for a third and more it grows:
   where there is none, those that it has stay, and go one by one. */
static void a_seat_without_memory_leaves_the_others(void)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    enum { GROUPS = sizeof names / sizeof *names };
    rt_group_opts o = {.event = on_event};
    rt_group all[GROUPS];
    int i, k, n, first, took, refused = 0;
    st.loop_opts.realloc = counted_realloc;
    plain(1);
    for (i = 0; i < GROUPS; i++)
        all[i] = rt_group_open(st.loop, names[i], &o);
    for (first = 0; first < GROUPS; first++) {
        for (i = 0; i < GROUPS; i++)
            for (n = 1, took = RT_ENOMEM; took != 0 && n < 20; n++) {
                fail_at = n;
                took = rt_group_join(st.loop, all[i], st.s[1]);
                fail_at = 0;
                CHECK(took == 0 || took == RT_ENOMEM);
                refused += took != 0;
                for (k = 0; k < GROUPS; k++)
                    EQUAL(rt_group_count(st.loop, all[k]), k < i + !took);
                if (i == 1 && took != 0) { /* room for several, and one seat */
                    EQUAL(rt_group_leave(st.loop, all[0], st.s[1]), 0);
                    EQUAL(rt_group_leave(st.loop, all[0], st.s[1]), RT_ESTATE);
                    EQUAL(rt_group_join(st.loop, all[0], st.s[1]), 0);
                }
            }
        for (i = 0; i < GROUPS; i++)
            EQUAL(rt_group_leave(st.loop, all[(first + i) % GROUPS], st.s[1]),
                  0);
        EQUAL(st.loop->seats, 0);
    }
    CHECK(refused > 20);
    calm();
    script_clear(&st.told);
}

/* Who cannot be subscribed for upstream has not joined. */
static void the_first_member_is_told_or_has_not_joined(void)
{
    rt_group_opts o = {.event = on_event};
    int n, took = RT_ENOMEM;
    st.loop_opts.realloc = counted_realloc;
    plain(1);
    group = rt_group_open(st.loop, "g", &o);
    rt_group_join(st.loop, group, st.s[1]); /* the arrays have room now */
    rt_group_leave(st.loop, group, st.s[1]);
    TOLD("+ - first:g last:g");
    for (n = 1; took != 0 && n < 20; n++) {
        fail_at = n;
        took = rt_group_join(st.loop, group, st.s[1]);
        fail_at = 0;
        CHECK(took == 0 || took == RT_ENOMEM);
        EQUAL(rt_group_count(st.loop, group), took == 0);
        TOLD(took ? "" : "+ first:g");
    }
    EQUAL(n, 6); /* two for the event, two for the hooks, and all went well */
}

/* What the group must remember after calls each of which may fail: the texts
   it took in order, and the newest ones of two keys, the newest of all last. */
static struct {
    int sent[64], count;
    int key[2], value[2];
} model;

static void model_keyed(int key, int value)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    if (keyed(key, text) < 0)
        return;
    if (model.key[1] != key) {
        model.key[0] = model.key[1];
        model.value[0] = model.value[1];
    }
    model.key[1] = key;
    model.value[1] = value;
}

static void model_once(int value)
{
    char text[16];
    rt_position first = {0, 0}, again = {0, 0};
    int took;
    snprintf(text, sizeof text, "%d", value);
    took = once(text, text, &first);
    if (took < 0) {
        EQUAL(took, RT_ENOMEM);
        return;
    }
    model.sent[model.count++] = value;
    EQUAL(first.offset, model.count);
    EQUAL(once(text, text, &again), RT_EEXIST);
    EQUAL(again.offset, first.offset);
}

static void scenario(void)
{
    rt_group_opts o = {.history = 3, .snapshot = 2, .event = on_event};
    char text[16];
    int i, error;
    memset(&model, 0, sizeof model);
    o.rate_limit = 100;
    group = rt_group_open(st.loop, "g", &o);
    if (!group.id) {
        EQUAL(rt_error(st.loop, NULL), RT_ENOMEM);
        return;
    }
    error = rt_group_join(st.loop, group, st.s[1]);
    CHECK(error == 0 || error == RT_ENOMEM);
    for (i = 1; i <= 8; i++) {
        model_keyed(1 + (i % 3 == 0), i);
        snprintf(text, sizeof text, "%d", 10 + i);
        if (sends(text) >= 0)
            model.sent[model.count++] = 10 + i;
        model_once(20 + i);
    }
    EQUAL(position().offset, model.count);
}

/* With memory again: who joins gets what the model says. */
static void aftermath(void)
{
    char want[128] = " ";
    int i, n, len = 0;
    n = rt_group_join_from(st.loop, group, st.s[2], NULL);
    CHECK(n >= 0 && n <= 3 && n <= model.count);
    for (i = 0; i < 2; i++)
        if (model.value[i])
            len += snprintf(want + len, sizeof want - (size_t)len, " %d",
                            model.value[i]);
    for (i = model.count - n; i < model.count && i >= 0; i++)
        len += snprintf(want + len, sizeof want - (size_t)len, " %d",
                        model.sent[i]);
    SAME(heard(2, want + 1), want + 1);
    EQUAL(join_at(2, 0), RT_EEXIST);
    calm();
    EQUAL(balance[2], 1);
    EQUAL(balance[1], rt_group_count(st.loop, group) - 1);
}

static int without_the(long n)
{
    memset(balance, 0, sizeof balance);
    st.loop_opts.realloc = counted_realloc;
    plain(2);
    failures = 0;
    fail_at = n;
    scenario();
    calm();
    fail_at = 0;
    if (group.id)
        aftermath();
    return failures;
}

static void memory_may_fail_anywhere(void)
{
    long n;
    int failed = 1;
    for (n = 1; failed && n < 1000 && !test_bad; n++) {
        failed = without_the(n);
        if (test_bad)
            printf("allocation %ld failed%s\n", n, fail_rest ? ", all" : "");
        tear_down();
        set_up(TCP);
    }
    CHECK(n > 40 && n < 1000);
}

static void all_memory_may_be_gone(void)
{
    fail_rest = 1;
    memory_may_fail_anywhere();
    fail_rest = 0;
}

/* ---- at random ----------------------------------------------------------- */

/* Three members come at random positions and go, messages are sent, the group
   ends and begins anew; each must have heard just what the model says. */
enum { GUESTS = 3, STEPS = 3000 };

static struct {
    transcript want[GUESTS + 1];
    int in[GUESTS + 1];
    int next, begin; /* the next text; the first one of this epoch */
    uint64_t chance;
} guess;

static int chance(int n)
{
    guess.chance = guess.chance * 6364136223846793005u + 1442695040888963407u;
    return (int)((guess.chance >> 33) % (uint64_t)n);
}

static void wants(int number, int text)
{
    char word[16];
    snprintf(word, sizeof word, "%d", text);
    script_add(&guess.want[number], word);
}

static void guess_send(void)
{
    char text[16];
    int i, n = 0;
    snprintf(text, sizeof text, "%d", guess.next);
    for (i = 1; i <= GUESTS; i++)
        if (guess.in[i] && ++n)
            wants(i, guess.next);
    EQUAL(sends(text), n);
    guess.next++;
}

static void guess_join(int number, int kept)
{
    rt_position since = position();
    int count = guess.next - guess.begin, has = chance(count + 2), i;
    int stale = chance(8) == 0, missed = count - has;
    since.offset = (uint64_t)has;
    since.epoch += (uint64_t)stale;
    if (stale || has > count || missed > kept) {
        EQUAL(rt_group_join_from(st.loop, group, st.s[number], &since),
              RT_EREFUSED);
        return;
    }
    EQUAL(rt_group_join_from(st.loop, group, st.s[number], &since), missed);
    for (i = guess.next - missed; i < guess.next; i++)
        wants(number, i);
}

static void guess_hear(void)
{
    int i;
    for (i = 1; i <= GUESTS; i++) {
        SAME(heard(i, guess.want[i].s), guess.want[i].s);
        script_clear(&guess.want[i]);
    }
    script_clear(&st.told);
}

static void guess_step(const rt_group_opts *o)
{
    int what = chance(16), number = 1 + chance(GUESTS);
    if (what < 8) {
        guess_send();
    } else if (what < 15 && guess.in[number]) {
        EQUAL(rt_group_leave(st.loop, group, st.s[number]), 0);
        guess.in[number] = 0;
    } else if (what < 15) {
        guess_join(number, o->history);
        guess.in[number] = 1;
    } else if (chance(4) == 0) {
        EQUAL(rt_group_close(st.loop, group), 0);
        group = rt_group_open(st.loop, "g", o);
        memset(guess.in, 0, sizeof guess.in);
        guess.begin = guess.next;
    }
}

static void whoever_joins_hears_what_was_missed(void)
{
    rt_group_opts o = {.history = 5};
    int i;
    st.loop_opts.group_out = NULL;
    st.loop_opts.group_evict = NULL;
    memset(&guess, 0, sizeof guess);
    plain(GUESTS);
    group = rt_group_open(st.loop, "g", &o);
    for (i = 0; i < STEPS && !test_bad; i++) {
        guess_step(&o);
        if (i % 50 == 49)
            guess_hear();
    }
}

/* ---- all ----------------------------------------------------------------- */

static void run_plain(const char *name, void (*test)(void))
{
    test_begin("%s", name);
    set_up(TCP);
    test();
    tear_down();
    test_end();
}

static void run_wires(const char *name, void (*test)(void))
{
    int wire;
    for (wire = 0; wire < WIRES; wire++) {
        test_begin("%s, %s", name, wire_names[wire]);
        set_up(wire);
        test();
        tear_down();
        test_end();
    }
}

#define PLAIN(name) run_plain(#name, name)
#define RESUMED(name) run_wires(#name, name)

#include "group_crowds.h"

static void inside_cases(void)
{
    size_t i;
    for (i = 0; i < sizeof from_names / sizeof *from_names; i++)
        for (doing = 0; doing < DEEDS; doing++) {
            char name[64];
            doing_in = from_names[i];
            snprintf(name, sizeof name, "%s from inside %s", deed_names[doing],
                     doing_in);
            run_plain(name, from_inside);
        }
}

static void member_cases(void)
{
    PLAIN(members_come_and_go);
    PLAIN(closing_a_group_tells_no_member);
    PLAIN(a_group_has_a_greatest_count);
    PLAIN(a_session_is_in_so_many_groups);
    PLAIN(an_unused_empty_group_ends_with_its_time);
    PLAIN(a_group_that_expires_makes_room_at_once);
    PLAIN(what_is_published_is_a_use);
    PLAIN(a_group_lives_while_it_has_members);
    RESUMED(who_joins_while_away_is_away);
    RESUMED(who_joins_in_on_away_is_away);
    RESUMED(who_joins_before_its_away_is_told_is_told_once);
    PLAIN(an_adopted_member_is_back);
    PLAIN(an_adopted_member_that_lacks_nothing_is_back);
    PLAIN(one_adopted_and_lost_at_once_is_away_as_before);
    PLAIN(members_that_overflow_end_during_the_cast);
    RESUMED(nobody_gets_a_message_twice);
    PLAIN(what_goes_to_many_is_framed_once);
    PLAIN(all_members_may_be_closed_in_a_loop);
    PLAIN(members_may_be_closed_in_the_message_of_one);
    PLAIN(one_of_a_thousand_that_never_reads_delays_nobody);
}

static void history_cases(void)
{
    PLAIN(history_is_bounded_by_count);
    PLAIN(history_is_bounded_by_bytes);
    PLAIN(history_of_empty_messages_is_bounded);
    PLAIN(history_is_bounded_by_age);
    PLAIN(what_is_too_old_falls_out_by_itself);
    PLAIN(joining_from_a_position_gives_what_was_missed);
    PLAIN(a_group_without_history_has_positions);
    PLAIN(a_new_group_has_a_new_epoch);
    PLAIN(only_the_reliable_lane_is_history);
    PLAIN(a_group_that_ends_gives_its_history_away);
    PLAIN(what_fell_out_is_told_when_the_loop_ends);
    PLAIN(without_the_hook_memory_is_used_again);
}

static void snapshot_cases(void)
{
    PLAIN(who_joins_gets_the_newest_of_each_key);
    PLAIN(snapshot_history_and_live_come_in_one_turn);
    PLAIN(an_empty_message_forgets_its_key);
    PLAIN(one_key_too_many_displaces_the_stalest);
    PLAIN(what_is_not_to_be_remembered_is_not_in_the_snapshot);
    PLAIN(a_snapshot_that_does_not_fit_ends_who_joins);
    PLAIN(a_snapshot_comes_from_upstream);
    PLAIN(all_keys_are_remembered);
    RESUMED(a_clean_resume_brings_no_second_snapshot);
    RESUMED(after_a_gap_the_snapshot_comes_before_live);
    RESUMED(a_takeover_with_a_gap_brings_the_snapshot);
    RESUMED(one_who_joins_while_away_has_its_snapshot_kept);
    RESUMED(who_comes_back_gets_a_snapshot_beyond_the_mark);
    RESUMED(who_joins_again_in_on_back_gets_one_snapshot);
    RESUMED(no_older_value_comes_behind_the_snapshot);
    PLAIN(no_older_value_waits_behind_the_snapshot);
    PLAIN(an_older_value_that_cannot_be_replaced_is_dropped);
    RESUMED(a_client_that_comes_back_gets_no_snapshot);
}

static void once_and_limit_cases(void)
{
    PLAIN(a_key_is_sent_once);
    PLAIN(a_key_is_compared_whole);
    PLAIN(keys_of_one_hash_are_told_apart);
    PLAIN(names_of_one_hash_are_told_apart);
    PLAIN(keys_are_known_for_a_time);
    PLAIN(so_many_keys_are_known);
    PLAIN(a_send_that_fails_uses_no_key_up);
    PLAIN(with_upstream_a_key_is_published_once);
    PLAIN(above_its_rate_a_group_refuses);
    PLAIN(a_refused_message_takes_no_slot);
    PLAIN(a_bucket_bounds_messages_and_bytes);
    PLAIN(limits_hold_together);
    PLAIN(options_that_cannot_be_are_refused);
    PLAIN(what_is_off_limits_nothing);
}

static void memory_cases(void)
{
    PLAIN(a_message_that_cannot_be_remembered_is_a_hole);
    PLAIN(a_value_that_cannot_be_remembered_is_not_sent);
    PLAIN(what_cannot_be_published_is_not_sent);
    RESUMED(who_ends_in_the_call_is_not_joined);
    PLAIN(a_seat_without_memory_leaves_the_others);
    PLAIN(the_first_member_is_told_or_has_not_joined);
    PLAIN(memory_may_fail_anywhere);
    PLAIN(all_memory_may_be_gone);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    member_cases();
    history_cases();
    snapshot_cases();
    once_and_limit_cases();
    inside_cases();
    pair_cases();
    crowd_cases();
    PLAIN(whoever_joins_hears_what_was_missed);
    memory_cases();
    return test_done();
}
