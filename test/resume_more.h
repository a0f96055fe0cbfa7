/*
 * More of the client's side: what it keeps, when it comes again, and with
 * what; then both ends of the library against each other, on a line that
 * breaks at random.
 */
#ifndef RESUME_MORE_H
#define RESUME_MORE_H

#include "resume_cases.h"
#include "resume_client.h"
#include "resume_hard.h"

/* ---- what a client keeps ------------------------------------------------- */

static void refuses_when_full(int count, size_t len, int away)
{
    st.dial.soft_mark = st.dial.hard_mark = 1 << 20;
    dial_and_open();
    if (away)
        client_loses();
    send_run(0, count, len);
    EQUAL(send_long(1, 'x', 1), RT_EFULL);
    TOLD("");
    if (away) {
        client_returns("h:1:0:1");
        say_w(&st.a, 2, "who1 0 0 resumed 15000");
        HEARS(&st.a, run_words("a0", 0, count, len));
        TOLD("back:0");
    } else {
        line_hear(&st.a, count);
        EQUAL(st.a.script.words, count);
    }
    EQUAL(send_long(1, 'x', 1), RT_EFULL);
    say(&st.a, "a%d", count / 2 - 1);
    TOLD("");
    say(&st.a, "a%d", count / 2);
    TOLD("writable");
    EQUAL(send_text(1, "x"), 0);
    HEARS(&st.a, "mx");
}

static void a_client_refuses_when_128_are_kept(void)
{
    refuses_when_full(128, 1, 0);
}

static void a_client_refuses_when_128_are_kept_away(void)
{
    refuses_when_full(128, 1, 1);
}

static void a_client_refuses_when_64_kilobytes_are_kept(void)
{
    refuses_when_full(64, 1024, 0);
}

static void a_client_refuses_when_64_kilobytes_are_kept_away(void)
{
    refuses_when_full(64, 1024, 1);
}

/* The number of a refused one is given to the next. */
static void what_is_refused_has_no_number(void)
{
    dial_and_open();
    client_loses();
    EQUAL(send_long(1, 'x', 65537), RT_EFULL);
    EQUAL(send_text(1, "1"), 0);
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    HEARS(&st.a, "a0 m1");
    say(&st.a, "a1");
    TOLD("back:0 writable");
    both_ways(1);
}

static void only_what_is_missing_is_said_again(void)
{
    dial_and_open();
    EQUAL(send_text(1, "1"), 0);
    EQUAL(send_kind(RT_BINARY, "2"), 0);
    HEARS(&st.a, "m1 M2");
    say(&st.a, "a1");
    line_settle(&st.a);
    client_loses();
    EQUAL(send_text(1, "3"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    EQUAL(send_kind(RT_TEXT | RT_DROPPABLE, "d"), 1);
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 2 0 resumed 15000");
    HEARS(&st.a, "a0 m3 uk");
    TOLD("back:0");
    both_ways(1);
}

static void a_server_that_forgot_what_it_acknowledged_lies(void)
{
    dial_and_open();
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    say(&st.a, "a1");
    line_settle(&st.a);
    client_loses();
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    HEARS(&st.a, "c1002");
    TOLD("close:1002:0");
    nobody_comes();
}

/* What was kept while away was never in a line: nobody can have it. */
static void a_server_that_has_what_was_never_said_lies(void)
{
    dial_and_open();
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    client_loses();
    EQUAL(send_text(1, "2"), 0);
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who1 2 0 resumed 15000");
    HEARS(&st.a, "c1002");
    TOLD("close:1002:2");
    nobody_comes();
}

static void a_new_session_repeats_nothing(void)
{
    dial_and_open();
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    client_loses();
    EQUAL(send_text(1, "2"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    client_returns("h:1:0:1");
    say_w(&st.a, 2, "who2 0 0 new 15000");
    HEARS(&st.a, "a0");
    TOLD("close:4503:2 2.open");
    both_ways(2);
    line_cut(&st.a);
    TOLD("2.away");
    line_retaken(&st.a);
    HEARS(&st.a, "h:2:1:1");
}

/* u are not counted, m are; what it has stands in h. */
static void h_says_how_many_it_has(void)
{
    dial_and_open();
    say(&st.a, "m1");
    say(&st.a, "u2");
    say(&st.a, "M3");
    TOLD("m1 m2 M3");
    client_loses();
    client_returns("h:1:2:1");
    line_cut(&st.a);
    calm();
    client_returns("h:1:2:2");
    say_w(&st.a, 2, "who1 0 2 resumed 15000");
    HEARS(&st.a, "a2");
    say(&st.a, "m4");
    TOLD("back:0 m4");
    client_loses();
    client_returns("h:2:3:1"); /* a token counts its own attempts */
    say_w(&st.a, 3, "who1 0 9 gap 15000");
    HEARS(&st.a, "a9");
    TOLD("back:6");
    client_loses();
    client_returns("h:3:9:1");
}

/* Neither is counted, nor delivered, what comes from a line given up. */
static void a_line_given_up_is_read_no_more(void)
{
    dial_and_open();
    say(&st.a, "m1");
    say(&st.a, "m2");
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    TOLD("away");
    line_retaken(&st.b);
    HEARS(&st.b, "h:1:0:1");
}

static void a_client_loses_what_nobody_acknowledged(void)
{
    dial_and_open();
    send_run(0, 3, 1);
    HEARS(&st.a, "ma mb mc");
    say(&st.a, "a1");
    line_settle(&st.a);
    say(&st.a, "c4502 out");
    TOLD("close:4502:2");
    EQUAL(st.end.cause, RT_BY_PEER);
    nobody_comes();
}

/* What a connection keeps of the time is less than 64 bits.  For a client any
   byte of an idle server counts, such as the pings of a WebSocket. */
static void a_clock_may_have_begun_long_ago(void)
{
    const uint64_t ages = (uint64_t)1 << 41;
    int i;
    clock_ahead += ages;
    st.dial.ping_ms = RT_OFF;
    dial_and_open();
    for (i = 0; i < 4; i++) {
        skip(15000);
        if (st.wire == WS)
            line_frame(&st.a, 9, "", 0);
        else
            line_frame(&st.a, 1, "p", 1);
        calm();
        CHECK(rt_heard(st.loop, st.s[1]) + 1000 > rt_now(st.loop));
        CHECK(rt_heard(st.loop, st.s[1]) <= rt_now(st.loop));
    }
    TOLD_NOW("");
    clock_ahead -= ages;
}

static void a_client_acknowledges(void)
{
    int i;
    dial_and_open();
    for (i = 0; i < 15; i++)
        say(&st.a, "m");
    line_settle(&st.a);
    HEARS_NOW(&st.a, "");
    say(&st.a, "m");
    line_await(&st.a);
    HEARS_NOW(&st.a, "a16");
    say_long(&st.a, 'm', 'x', 16384);
    line_await(&st.a);
    HEARS_NOW(&st.a, "a17");
    say(&st.a, "m");
    line_settle(&st.a);
    HEARS_NOW(&st.a, "");
    skip(501);
    line_await(&st.a);
    HEARS_NOW(&st.a, "a18");
}

static void a_silent_client_says_a(void)
{
    int i;
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    say_w(&st.a, 1, "who1 0 0 new 1000");
    HEARS(&st.a, "a0");
    TOLD("open");
    for (i = 0; i < 4; i++) {
        skip(1001);
        say(&st.a, "ux"); /* else the server is too silent */
        HEARS(&st.a, "a0");
        TOLD("mx");
    }
}

/* More than twice the server's ping and 5 s; its own pings are off. */
static void a_client_notices_silence(void)
{
    st.dial.ping_ms = RT_OFF;
    dial_and_open();
    skip(15000);
    skip(15000);
    skip(4900);
    TOLD_NOW("");
    say(&st.a, "m"); /* a sign of life */
    TOLD("m");
    skip(15000);
    skip(15000);
    skip(4900);
    TOLD_NOW("");
    skip(102);
    TOLD_NOW("away");
}

static void without_a_token_a_session_ends_with_its_line(void)
{
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    say(&st.a, "w- who1 0 0 new 15000");
    HEARS(&st.a, "a0");
    TOLD("open");
    line_cut(&st.a);
    TOLD("close:1006:0");
    nobody_comes();
}

/* ---- when a client comes again ------------------------------------------- */

static void retry_says_when(void)
{
    dial_and_open();
    say(&st.a, "c1013 retry=30000"); /* longer than any wait of its own */
    TOLD("away");
    skip(29900);
    CHECK(!somebody_came(&st.b));
    skip(101);
    CHECK(somebody_came(&st.b));
}

static void retry_may_be_soon(void)
{
    dial_and_open();
    say(&st.a, "c1013 retry=20");
    TOLD("away");
    CHECK(!somebody_came(&st.b));
    skip(21);
    CHECK(somebody_came(&st.b));
}

static void retry_at_a_drain(void)
{
    dial_and_open();
    EQUAL(send_text(1, "x"), 0);
    say(&st.a, "c1012 retry=30000");
    TOLD("close:1012:1");
    skip(29900);
    CHECK(!somebody_came(&st.b));
    skip(101);
    CHECK(somebody_came(&st.a));
    if (st.wire == WS)
        line_answer(&st.a);
    HEARS(&st.a, "h"); /* a new session */
    say_w(&st.a, 2, "who2 0 0 new 15000");
    HEARS(&st.a, "a0");
    TOLD("2.open");
    both_ways(2);
}

/* Each wait is random, of twice the length of the last one, and 20 s at most.
 */
static void waits_grow(void)
{
    static const unsigned longest[] = {500,  1000,  2000,  4000,
                                       8000, 16000, 20000, 20000};
    uint64_t begun = clock_ahead;
    size_t i;
    dial_and_open();
    client_loses();
    for (i = 0; i < sizeof longest / sizeof *longest; i++) {
        CHECK(comes_within(&st.b, longest[i] + 1));
        line_cut(&st.b);
        calm();
    }
    CHECK(clock_ahead - begun > 8 * 500); /* were they all as the first */
    TOLD("");
    line_retaken(&st.a);
    line_hear(&st.a, 1);
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    HEARS(&st.a, "a0");
    TOLD("back:0");
    client_loses();
    CHECK(comes_within(&st.b, 501)); /* begins anew */
}

static void the_upgrade_is_refused(const char *status, int final)
{
    char answer[128];
    if (st.wire == TCP)
        return;
    dial_and_open();
    client_loses();
    CHECK(comes_within(&st.a, 20500));
    snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n",
             status);
    peer_say(&st.a.p, answer);
    calm();
    if (final) {
        CHECK(strncmp(told_all("close:"), "close:", 6) == 0);
        nobody_comes();
        return;
    }
    TOLD("");
    client_returns("h:1:0:1"); /* no h was said in vain */
}

static void refused_with_503_it_comes_again(void)
{
    the_upgrade_is_refused("503 Later", 0);
}

static void refused_with_429_it_comes_again(void)
{
    the_upgrade_is_refused("429 Slower", 0);
}

static void refused_with_403_it_stays_away(void)
{
    the_upgrade_is_refused("403 No", 1);
}

/* A server's w as bytes. */
static size_t answer_bytes(uint8_t *out)
{
    size_t n = 0, len;
    char w[64];
    snprintf(w, sizeof w, "w%s who1 0 0 resumed 15000", token_of(2));
    len = strlen(w);
    if (st.wire == WS)
        out[n++] = 0x81;
    for (; st.wire == TCP && n < 3; n++)
        out[n] = 0;
    out[n++] = (uint8_t)len;
    memcpy(out + n, w, len);
    return n + len;
}

/* The answer to a returning client breaks off behind its k-th byte.  True when
   there is no k-th. */
static int answer_breaks_off(size_t k)
{
    char h[32];
    uint8_t bytes[128];
    snprintf(h, sizeof h, "h:1:0:%d", (int)k + 1);
    line_retaken(&st.a);
    HEARS(&st.a, h);
    if (k == answer_bytes(bytes))
        return 1;
    peer_put(&st.a.p, bytes, k);
    calm();
    line_cut(&st.a);
    TOLD("");
    return test_bad != 0;
}

static void an_answer_may_break_off_at_any_byte(void)
{
    size_t k = 0;
    dial_and_open();
    client_loses();
    while (!answer_breaks_off(k))
        k++;
    CHECK(k > 40);
    say_w(&st.a, 2, "who1 0 0 resumed 15000");
    HEARS(&st.a, "a0");
    TOLD("back:0");
    both_ways(1);
}

/* ---- a server that does not speak it ------------------------------------- */

/* It agrees to the upgrade, and to no sub-protocol. */
static void line_answer_plain(line *l)
{
    const char *key = strstr(l->p.head, "Sec-WebSocket-Key: ");
    char text[32], accepted[29], answer[256];
    CHECK(key != NULL);
    if (!key)
        return;
    snprintf(text, sizeof text, "%.24s", key + 19);
    rt__accept_key(text, accepted);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accepted);
    peer_say(&l->p, answer);
}

static void a_plain_server_gives_a_plain_session(void)
{
    if (st.wire == TCP)
        return;
    stage_dial();
    CHECK(line_accept(&st.a));
    line_answer_plain(&st.a);
    TOLD("open");
    HEARS(&st.a, ""); /* no h */
    say(&st.a, "a0");
    TOLD("ma0");
    EQUAL(send_text(1, "x"), 0);
    HEARS(&st.a, "x");
    line_cut(&st.a);
    TOLD("close:1006:0");
    nobody_comes();
}

/* Of what it sent one has not arrived, as far as is known, and one was sent
   while it was away. */
static void a_server_that_speaks_it_no_more_tells_what_is_lost(void)
{
    if (st.wire == TCP)
        return;
    dial_and_open();
    EQUAL(send_text(1, "x"), 0);
    EQUAL(send_text(1, "y"), 0);
    HEARS(&st.a, "mx my");
    say(&st.a, "a1");
    client_loses();
    EQUAL(send_text(1, "z"), 0);
    CHECK(comes_within(&st.a, 20500));
    line_answer_plain(&st.a);
    TOLD("close:4503:2");
}

/* The first `a` finds no memory; then the server is another one, and what the
   session is told by its end was counted on the line of that. */
static void a_welcome_without_memory_counts_no_loss(void)
{
    rt__out *spare;
    if (st.wire == TCP)
        return;
    st.loop_opts.realloc = failing_realloc;
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    while ((spare = st.loop->out_pool) != NULL) {
        st.loop->out_pool = spare->next;
        rt__free(st.loop, spare, sizeof *spare);
    }
    st.loop->out_pooled = 0;
    say_w(&st.a, 1, "who1 0 0 new 15000");
    fail_at = 1;
    calm();
    EQUAL(fail_at, 0);
    TOLD("");
    CHECK(comes_within(&st.a, 20500));
    line_answer_plain(&st.a);
    TOLD("open");
    line_cut(&st.a);
    TOLD("close:1006:0");
}

static void a_client_resumes_where_there_are_messages(void)
{
    rt_session s;
    const char *why;
    if (st.wire == WS)
        return;
    stage();
    st.dial.framing = RT_LENGTH;
    s = rt_dial(st.loop, "tcp://127.0.0.1:9", &st.dial);
    EQUAL(s.id, 0);
    EQUAL(rt_error(st.loop, &why), RT_EINVAL);
}

/* ---- both ends ----------------------------------------------------------- */

/* One end of a pair: numbers its messages, and knows which one comes next.  Of
   each key it knows the last value that it sent, and the last that came. */
enum { PAIR_KEYS = 3 };
typedef struct {
    rt_session s;
    int open, away;
    unsigned sent;     /* accepted ones */
    unsigned expected; /* the number that comes next */
    unsigned set[PAIR_KEYS], seen[PAIR_KEYS];
    unsigned lost, wrong, opens, backs, closes;
} pair_end;

static struct {
    pair_end server, client;
    uint64_t chance;
} duo;

static unsigned draw(unsigned below)
{
    duo.chance = duo.chance * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(duo.chance >> 33) % below;
}

static pair_end *end_of(rt_loop *loop, rt_session s)
{
    return rt_context(loop, s);
}

static void pair_open(rt_loop *loop, rt_session s)
{
    pair_end *e = end_of(loop, s);
    e->s = s;
    e->opens++;
    e->open = 1;
    e->away = 0;
}

static void pair_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    pair_end *e = end_of(loop, s);
    unsigned number = (unsigned)strtoul(data, NULL, 10), key, value;
    if (len && sscanf(data, "k%u %u", &key, &value) == 2) {
        e->wrong += value < e->seen[key]; /* twice, but never an older one */
        e->seen[key] = value;
        return;
    }
    e->wrong += kind != (number % 3 ? RT_TEXT : RT_BINARY);
    e->wrong += number != e->expected;
    e->expected = number + 1;
}

static void pair_away(rt_loop *loop, rt_session s)
{
    pair_end *e = end_of(loop, s);
    e->wrong += e->away != 0;
    e->away = 1;
}

/* A client is told of the gap before anything later arrives: what comes next
   is the number behind it.  (The server is told of what its peer lost.) */
static void pair_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    pair_end *e = end_of(loop, s);
    e->wrong += !e->away;
    e->away = 0;
    e->backs++;
    e->lost += (unsigned)lost;
    if (e == &duo.client)
        e->expected += (unsigned)lost;
}

static void pair_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    pair_end *e = end_of(loop, s);
    (void)why;
    e->closes++;
    e->open = 0;
}

static const rt_handler pair_handler = {.open = pair_open,
                                        .message = pair_message,
                                        .away = pair_away,
                                        .back = pair_back,
                                        .close = pair_close};

static void pair_send(pair_end *e, int count)
{
    while (e->open && count-- > 0) {
        char text[700];
        unsigned next = e->sent + 1;
        int kind = next % 3 ? RT_TEXT : RT_BINARY;
        int n = snprintf(text, sizeof text, "%u %*s", next, (int)draw(600), "");
        int error = rt_send(st.loop, e->s, kind, text, (size_t)n);
        if (error < 0 && error == RT_EFULL)
            return;
        EQUAL(error < 0 ? error : 0, 0);
        e->sent = next;
    }
}

static void pair_set(pair_end *e)
{
    unsigned key = draw(PAIR_KEYS);
    char text[32];
    int n = snprintf(text, sizeof text, "k%u %u", key, e->set[key] + 1);
    if (!e->open)
        return;
    EQUAL(rt_send(st.loop, e->s, RT_TEXT | rt_latest((uint16_t)key), text,
                  (size_t)n) < 0,
          0);
    e->set[key]++;
}

static void pair_step(void)
{
    pair_end *one = draw(2) ? &duo.server : &duo.client;
    unsigned what = draw(20);
    if (what < 10)
        pair_send(one, 1 + (int)draw(8));
    else if (what == 10)
        rt_drop(st.loop, one->s, 4000 + (int)draw(100), NULL);
    else if (what == 11)
        pair_send(one, 100);
    else if (what == 12)
        pair_set(one), pair_set(one);
    else if (what < 15)
        pair_set(one);
    else if (what < 18)
        clock_ahead += draw(2500);
    rt_poll(st.loop, 0);
}

static void pair_settle(void)
{
    int i;
    for (i = 0; i < 8; i++)
        skip(i < 4 ? 20001 : 501);
}

static void pair_dial(void)
{
    char url[64];
    memset(&duo.server, 0, sizeof duo.server);
    memset(&duo.client, 0, sizeof duo.client);
    duo.server.expected = duo.client.expected = 1;
    st.opts.on = st.dial.on = pair_handler;
    st.opts.user = &duo.server;
    st.dial.user = &duo.client;
    st.opts.resume_ms = 1000000;
    st.opts.ping_ms = st.dial.ping_ms = RT_OFF;
    stage();
    snprintf(url, sizeof url, "%s://127.0.0.1:%d",
             st.wire == TCP ? "tcp" : "ws", st.port);
    duo.client.s = rt_dial(st.loop, url, &st.dial);
    CHECK(duo.client.s.id != 0);
    peer_until(st.loop, &duo.client.open, 1);
}

static void nothing_is_lost_unsaid(unsigned seed)
{
    pair_end *s = &duo.server, *c = &duo.client;
    int i;
    duo.chance = seed;
    pair_dial();
    for (i = 0; i < 400; i++)
        pair_step();
    pair_settle();
    EQUAL(s->opens, 1);
    EQUAL(c->opens, 1);
    EQUAL(s->closes + c->closes, 0);
    EQUAL(s->wrong, 0);
    EQUAL(c->wrong, 0);
    EQUAL(s->expected, c->sent + 1); /* client to server: all of it */
    EQUAL(c->expected, s->sent + 1); /* the other way: but for the gaps */
    CHECK(s->backs > 0 && c->backs > 0);
    CHECK(s->sent > 500 && c->sent > 500);
    CHECK(s->lost >= c->lost); /* it may be told twice of the same */
    for (i = 0; i < PAIR_KEYS; i++) {
        EQUAL(c->seen[i], s->set[i]);
        EQUAL(s->seen[i], c->set[i]);
    }
}

static void pair_table(int backend, int wire)
{
    unsigned seed;
    for (seed = 1; seed <= 12; seed++) {
        test_begin("nothing is lost unsaid, seed %u, %s", seed,
                   wire_names[wire]);
        stage_begin(backend, wire);
        nothing_is_lost_unsaid(seed);
        stage_end();
        test_end();
    }
}

/* ---- all ----------------------------------------------------------------- */

static void client_cases(void)
{
    RUN_WIRES(a_client_refuses_when_128_are_kept);
    RUN_WIRES(a_client_refuses_when_128_are_kept_away);
    RUN_WIRES(a_client_refuses_when_64_kilobytes_are_kept);
    RUN_WIRES(a_client_refuses_when_64_kilobytes_are_kept_away);
    RUN_WIRES(what_is_refused_has_no_number);
    RUN_WIRES(only_what_is_missing_is_said_again);
    RUN_WIRES(a_server_that_forgot_what_it_acknowledged_lies);
    RUN_WIRES(a_server_that_has_what_was_never_said_lies);
    RUN_WIRES(a_new_session_repeats_nothing);
    RUN_WIRES(h_says_how_many_it_has);
    RUN_WIRES(a_line_given_up_is_read_no_more);
    RUN_WIRES(a_client_loses_what_nobody_acknowledged);
    RUN_WIRES(a_clock_may_have_begun_long_ago);
    RUN_WIRES(a_client_acknowledges);
    RUN_WIRES(a_silent_client_says_a);
    RUN_WIRES(a_client_notices_silence);
    RUN_WIRES(without_a_token_a_session_ends_with_its_line);
    RUN_WIRES(retry_says_when);
    RUN_WIRES(retry_may_be_soon);
    RUN_WIRES(retry_at_a_drain);
    RUN_WIRES(waits_grow);
    RUN_WIRES(refused_with_503_it_comes_again);
    RUN_WIRES(refused_with_429_it_comes_again);
    RUN_WIRES(refused_with_403_it_stays_away);
    RUN_WIRES(an_answer_may_break_off_at_any_byte);
    RUN_WIRES(a_plain_server_gives_a_plain_session);
    RUN_WIRES(a_server_that_speaks_it_no_more_tells_what_is_lost);
    RUN_WIRES(a_welcome_without_memory_counts_no_loss);
    RUN_WIRES(a_client_resumes_where_there_are_messages);
}

#endif
