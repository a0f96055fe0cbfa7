/*
 * The cases of resuming that must hold, the library being the server: what is
 * lost, late, double, stolen, made up, or just too much.
 */
#ifndef RESUME_CASES_H
#define RESUME_CASES_H

#include "resume_server.h"

/* ---- small steps --------------------------------------------------------- */

static void stage_and_open(void)
{
    stage();
    open_first();
}

static void stage_and_lose(void)
{
    stage();
    open_and_lose();
}

/* Whoever comes with that token is told nothing but a new session. */
static void is_stranger(line *l, const welcome *w, unsigned long long attempt)
{
    char told[32];
    line_return(l, w, 0, attempt);
    HEARS(l, NEW);
    snprintf(told, sizeof told, "%d.open", st.count);
    TOLD(told);
}

static void comes_back(line *l, const welcome *w, unsigned long long attempt)
{
    line_return(l, w, st.acked, attempt);
    HEARS(l, BACK);
    say(l, "a0");
    TOLD("back:0");
}

/* ---- tokens -------------------------------------------------------------- */

static void a_lost_answer_costs_nothing(void)
{
    welcome w, lost;
    stage_and_open();
    w = st.a.w;
    EQUAL(send_text(1, "s"), 0);
    HEARS(&st.a, "ms");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &w, 0, 1); /* its w never arrives */
    TOLD("back:0");
    line_return(&st.c, &w, 0, 2);
    HEARS(&st.c, BACK " ms");
    TOLD("away back:0");
    HEARS(&st.b, BACK " ms c4504");
    lost = st.b.w;
    is_stranger(&st.a, &lost, 3); /* a third one is void */
}

static void the_token_before_is_good_until_the_first_a(void)
{
    welcome w;
    stage_and_lose();
    w = st.a.w;
    line_return(&st.b, &w, 0, 1);
    HEARS(&st.b, BACK);
    say(&st.b, "q"); /* the page may not even know of it */
    TOLD("back:0");
    line_return(&st.c, &w, 0, 2);
    HEARS(&st.c, BACK);
    TOLD("away back:0");
    say(&st.c, "a0");
    TOLD("");
    is_stranger(&st.a, &w, 3);
    line_return(&st.b, &st.c.w, 0, 1); /* the present one still is */
    HEARS(&st.b, BACK);
    TOLD("away back:0");
}

static void an_attempt_is_greater_than_the_last(void)
{
    welcome w;
    stage_and_lose();
    w = st.a.w;
    line_return(&st.b, &w, 0, 0);
    HEARS(&st.b, "c4003");
    TOLD("");
    line_return(&st.b, &w, 0, 5);
    HEARS(&st.b, BACK);
    TOLD("back:0");
    line_return(&st.c, &w, 0, 5);
    HEARS(&st.c, "c4003");
    line_return(&st.c, &w, 0, 4);
    HEARS(&st.c, "c4003");
    TOLD("");
    HEARS(&st.b, "");
    line_return(&st.c, &w, 0, 9007199254740991ull);
    HEARS(&st.c, BACK);
    TOLD("away back:0");
    line_return(&st.a, &st.c.w, 0, 1); /* each token counts for itself */
    HEARS(&st.a, BACK);
}

/* One letter of a token is another one: 22 strangers. */
static void a_wrong_token_is_a_strangers(void)
{
    int i;
    char told[32];
    welcome w;
    stage_and_lose();
    for (i = 0; i < 22; i++) {
        w = st.a.w;
        w.token[i] = w.token[i] == 'A' ? 'Q' : 'A';
        is_stranger(&st.b, &w, 1);
        say(&st.b, "c1000");
        snprintf(told, sizeof told, "%d.close:1000:0", st.count);
        TOLD(told);
    }
    comes_back(&st.c, &st.a.w, 1);
}

static void an_expired_token_is_a_strangers(void)
{
    stage_and_lose();
    skip(1900);
    TOLD_NOW("");
    skip(101);
    TOLD_NOW("close:4503:0");
    EQUAL(st.end.cause, RT_BY_TIMEOUT);
    is_stranger(&st.b, &st.a.w, 1);
}

/* The session is found by no part of its token, and not harmed. */
static void a_truncated_token_opens_nothing(void)
{
    int n;
    stage_and_lose();
    for (n = 1; n < 22; n++) {
        line_open(&st.b);
        say(&st.b, "h%.*s 0 1", n, st.a.w.token);
        HEARS(&st.b, "c1002");
        TOLD("");
    }
    comes_back(&st.c, &st.a.w, 1);
}

static void after_a_restart_all_are_strangers(void)
{
    stage_and_open();
    rt_loop_free(st.loop);
    SAME(st.told.s, "close:1001:0");
    EQUAL(st.end.cause, RT_BY_LOOP);
    script_clear(&st.told);
    stage();
    is_stranger(&st.b, &st.a.w, 1);
}

static void a_token_is_good_for_its_own_handlers_alone(void)
{
    rt_listen_opts other;
    int port;
    stage_and_lose();
    other = st.opts;
    other.on.writable = NULL;
    port = stage_listen(st.wire, &other);
    CHECK(line_open_at(&st.b, st.wire, port));
    say(&st.b, "h%s 0 1", st.a.w.token);
    HEARS(&st.b, NEW);
    TOLD("2.open");
    comes_back(&st.c, &st.a.w, 1);
}

/* What is kept is framed for one wire, and replayed on the other. */
static void a_session_may_change_its_wire(void)
{
    int other = st.wire == WS ? TCP : WS, port;
    stage_and_lose();
    port = stage_listen(other, &st.opts);
    EQUAL(send_text(1, "one"), 0);
    EQUAL(rt_send(st.loop, st.s[1], RT_BINARY, "two", 3), 0);
    EQUAL(send_long(1, 'x', 300), 0);
    EQUAL(rt_send(st.loop, st.s[1], RT_BINARY | rt_latest(1), "k", 1), 0);
    CHECK(line_open_at(&st.b, other, port));
    say(&st.b, "h%s 0 1", st.a.w.token);
    HEARS(&st.b, BACK " mone Mtwo mx#300 Uk");
    TOLD("back:0");
    say(&st.b, "a1");
    EQUAL(send_text(1, "four"), 0);
    HEARS(&st.b, "mfour");
    line_return(&st.c, &st.b.w, 1, 1); /* and back again, the old one open */
    HEARS(&st.c, "w:0:1:resumed Mtwo mx#300 mfour Uk");
    HEARS(&st.b, "c4504");
}

static void the_host_may_refuse_a_resume(void)
{
    stage_and_lose();
    st.refuse = 1;
    is_stranger(&st.b, &st.a.w, 1);
    st.refuse = 0;
    comes_back(&st.c, &st.a.w, 1);
}

/* The handle that the resume handler sees. */
static void looks_at_the_fresh_one(const char *what, rt_session s)
{
    const rt_request *r = rt_request_of(st.loop, st.from);
    if (strcmp(what, "resume") != 0)
        return;
    CHECK(rt_same(s, st.s[1]));
    CHECK(!rt_same(s, st.from));
    CHECK(rt_context(st.loop, st.from) == &st);
    EQUAL(rt_send(st.loop, st.from, RT_TEXT, "x", 1), RT_ESTATE);
    EQUAL(rt_bind(st.loop, st.from, "x"), RT_ESTATE);
    if (st.wire == TCP)
        return;
    CHECK(rt_same(st.from, st.asked));
    CHECK(r != NULL);
    if (r) {
        SAME(r->address, "127.0.0.1");
        SAME(rt_header(r, "Host"), "peer");
    }
}

static void the_host_sees_who_resumes(void)
{
    st.opts.user = &st;
    stage_and_lose();
    st.deed = looks_at_the_fresh_one;
    comes_back(&st.c, &st.a.w, 1);
    CHECK(st.from.id != 0);
    EQUAL(rt_state(st.loop, st.from), RT_EGONE); /* the provisional one */
}

static void without_random_bytes_there_is_no_token(void)
{
    stage();
    st.no_random = 1;
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, NEW);
    SAME(st.a.w.token, "-");
    say(&st.a, "a0");
    say(&st.a, "mx");
    TOLD("open mx");
    line_cut(&st.a);
    TOLD("close:1006:0");
    line_open(&st.b);
    say(&st.b, "h- 0 1");
    HEARS(&st.b, "c1002");
}

static void without_random_bytes_a_resume_waits(void)
{
    stage_and_lose();
    st.no_random = 1;
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "c1013");
    CHECK(strncmp(st.b.reason, "retry=", 6) == 0);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    st.no_random = 0;
    comes_back(&st.c, &st.a.w, 1);
}

/* ---- two lines at once --------------------------------------------------- */

static void the_old_line_is_cut_off(void)
{
    stage_and_open();
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK);
    HEARS(&st.a, "c4504");
    TOLD("away back:0");
    say(&st.a, "mlate"); /* neither delivered nor counted */
    say(&st.a, "a7");
    say(&st.a, "zx");
    TOLD("");
    say(&st.b, "a0");
    say(&st.b, "mnew");
    TOLD("mnew");
    say(&st.a, "c1000"); /* concerns nobody */
    TOLD("");
    line_return(&st.c, &st.b.w, 0, 1);
    HEARS(&st.c, "w:1:0:resumed");
}

static void the_old_line_may_die_later(void)
{
    stage_and_open();
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK);
    TOLD("away back:0");
    line_cut(&st.a);
    TOLD("");
    say(&st.b, "a0");
    say(&st.b, "mx");
    TOLD("mx");
    skip(5001); /* the discarding of the old one is over */
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    HEARS(&st.b, "a1");
}

/* The old line's bytes and the new line's h are read in one turn. */
static void what_is_read_too_late_is_not_counted(void)
{
    int delivered;
    stage_and_open();
    line_open(&st.b);
    say(&st.a, "mlate");
    say(&st.b, "h%s 0 1", st.a.w.token);
    line_hear(&st.b, 1);
    calm();
    delivered = strstr(st.told.s, "mlate") != NULL;
    EQUAL(st.b.w.received, delivered);
    SAME(st.told.s, delivered ? "mlate away back:0" : "away back:0");
}

static int ended_with(line *l, int code)
{
    calm();
    line_hear(l, 1);
    return l->closed == code;
}

static void one_of_those_that_race_wins(void)
{
    line *const all[] = {&st.a, &st.b, &st.c};
    welcome w;
    int i, stale = 0, open = 0;
    stage_and_lose();
    w = st.a.w;
    for (i = 0; i < 3; i++)
        line_open(all[i]);
    for (i = 0; i < 3; i++)
        say(all[i], "h%s 0 1", w.token);
    for (i = 0; i < 3; i++) {
        stale += ended_with(all[i], 4003);
        open += !all[i]->closed;
    }
    EQUAL(stale, 2);
    EQUAL(open, 1);
    TOLD("back:0");
}

static void greater_attempts_take_over(void)
{
    line *const all[] = {&st.a, &st.b, &st.c};
    welcome w;
    int i, open = 0;
    stage_and_lose();
    w = st.a.w;
    for (i = 0; i < 3; i++)
        line_open(all[i]);
    for (i = 0; i < 3; i++)
        say(all[i], "h%s 0 %d", w.token, i + 1);
    for (i = 0; i < 3; i++) {
        ended_with(all[i], 0);
        CHECK(!all[i]->closed || all[i]->closed == 4504 ||
              all[i]->closed == 4003);
        if (all[i]->closed)
            continue;
        open++;
        say(all[i], "a0");
        say(all[i], "mhere");
    }
    EQUAL(open, 1);
    CHECK(strstr(told_all("back:0 mhere"), "mhere") != NULL);
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* ---- a resume that breaks off -------------------------------------------- */

/* All that a client says when it comes back, as bytes. */
static size_t resume_bytes(uint8_t *out, const welcome *w)
{
    char h[64];
    size_t n;
    snprintf(h, sizeof h, "h%s 0 1", w->token);
    if (st.wire == TCP) {
        n = strlen(h);
        memcpy(out, "\0\0\0", 3);
        out[3] = (uint8_t)n;
        memcpy(out + 4, h, n);
        memcpy(out + 4 + n, "\0\0\0\2a0", 6);
        return n + 10;
    }
    n = (size_t)sprintf((char *)out,
                        "GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Protocol: rtnet.1\r\n\r\n");
    n += peer_frame_build(out + n, 0x81, h, strlen(h));
    return n + peer_frame_build(out + n, 0x81, "a0", 2);
}

/* One attempt is reset behind its k-th byte; the next one gets everything.
   True when there was no k-th byte. */
static int breaks_off(size_t k, welcome *w)
{
    uint8_t bytes[512];
    size_t n = resume_bytes(bytes, w);
    if (k == n)
        return 1;
    CHECK(line_connect(&st.b, st.wire, st.port));
    peer_put(&st.b.p, bytes, k);
    calm();
    line_cut(&st.b);
    calm();
    line_return(&st.c, w, 0, 2);
    HEARS(&st.c, BACK " ms");
    say(&st.c, "a0");
    *w = st.c.w;
    calm();
    line_cut(&st.c);
    skip(1100); /* 20 resumes in 10 s, not more */
    return test_bad != 0;
}

static void a_resume_may_break_off_at_any_byte(void)
{
    welcome w;
    size_t k = 0;
    stage_and_open();
    w = st.a.w;
    EQUAL(send_text(1, "s"), 0);
    HEARS(&st.a, "ms");
    line_cut(&st.a);
    while (!breaks_off(k, &w)) {
        CHECK(!strstr(st.told.s, "close") && !strstr(st.told.s, "2."));
        script_clear(&st.told);
        k++;
    }
    CHECK(k > 30);
    EQUAL(st.count, 1);
}

/* In two pieces, divided anywhere, it is as good as in one. */
static void a_resume_may_come_in_pieces(void)
{
    uint8_t bytes[512];
    welcome w;
    size_t k, n;
    stage_and_open();
    w = st.a.w;
    EQUAL(send_text(1, "s"), 0);
    HEARS(&st.a, "ms");
    line_cut(&st.a);
    n = resume_bytes(bytes, &w);
    for (k = 1; k < n && !test_bad; k++) {
        resume_bytes(bytes, &w);
        CHECK(line_connect(&st.b, st.wire, st.port));
        peer_put(&st.b.p, bytes, k);
        calm();
        peer_put(&st.b.p, bytes + k, n - k);
        if (st.wire == WS)
            EQUAL(peer_status(&st.b.p), 101);
        HEARS(&st.b, BACK " ms");
        w = st.b.w;
        line_cut(&st.b);
        skip(600);
    }
    EQUAL(st.count, 1);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
}

/* Control messages may be fragmented like any other. */
static void a_greeting_may_be_fragmented(void)
{
    if (st.wire == TCP)
        return;
    stage_and_lose();
    line_open(&st.b);
    peer_frame_put(&st.b.p, 0x01, "h", 1);
    peer_frame_put(&st.b.p, 0x00, st.a.w.token, 22);
    peer_frame_put(&st.b.p, 0x89, "ping", 4);
    peer_frame_put(&st.b.p, 0x80, " 0 1", 4);
    HEARS(&st.b, BACK);
    SAME(st.b.pong, "ping");
    peer_frame_put(&st.b.p, 0x01, "a", 1);
    peer_frame_put(&st.b.p, 0x80, "0", 1);
    say(&st.b, "mx");
    TOLD("back:0 mx");
}

/* The peer has read some of the replay when its line is lost again. */
static void a_replay_may_break_off(void)
{
    char want[256] = "w:0:3:resumed";
    int i;
    stage_and_lose();
    for (i = 0; i < 10; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i + 1);
        EQUAL(send_text(1, text), 0);
        if (i >= 3)
            snprintf(want + strlen(want), sizeof want - strlen(want), " m%s",
                     text);
    }
    line_return(&st.b, &st.a.w, 0, 1);
    st.b.waits = 1;
    for (i = 0; i < 4; i++) {
        char word[64];
        CHECK(line_next(&st.b));
        line_word(&st.b, word);
    }
    line_cut(&st.b);
    TOLD("back:0 away");
    line_return(&st.c, &st.b.w, 3, 1);
    HEARS(&st.c, want);
    TOLD("back:0");
}

/* ---- what is kept -------------------------------------------------------- */

/* count messages of len letters, the i-th of them of the letter i % 26. */
static void send_run(int from, int count, size_t len)
{
    int i;
    for (i = from; i < from + count; i++)
        EQUAL(send_long(1, (char)('a' + i % 26), len), 0);
}

static const char *run_words(const char *first_word, int from, int count,
                             size_t len)
{
    static transcript t;
    int i;
    script_clear(&t);
    script_add(&t, first_word);
    for (i = from; i < from + count; i++) {
        char text[LONG_WORD + 2], word[40];
        size_t n = len < LONG_WORD ? len : LONG_WORD;
        memset(text, 'a' + i % 26, sizeof text);
        text[0] = 'm';
        if (len < LONG_WORD)
            snprintf(word, sizeof word, "%.*s", (int)n + 1, text);
        else
            snprintf(word, sizeof word, "%.2s#%u", text, (unsigned)len);
        script_add(&t, word);
    }
    return t.s;
}

static const struct {
    int count;
    size_t len;
    int one_more; /* of a single letter, at the end */
    int kept;
} rings[] = {
    {1, 0, 0, 1},     {128, 1, 0, 1},   {129, 1, 0, 0},   {64, 1024, 0, 1},
    {64, 1024, 1, 0}, {1, 65536, 0, 1}, {1, 65537, 0, 0}, {127, 516, 0, 1},
    {127, 517, 0, 0}, {2, 32768, 0, 1}, {2, 32769, 0, 0}, {128, 512, 0, 1},
    {128, 513, 0, 0},
};

static void ring_case(int i, int away)
{
    int n = rings[i].count + rings[i].one_more;
    char word[40], told[40];
    st.opts.soft_mark = st.opts.hard_mark = 1 << 20;
    stage_and_open();
    if (away) {
        line_cut(&st.a);
        TOLD("away");
    }
    send_run(0, rings[i].count, rings[i].len);
    send_run(rings[i].count, rings[i].one_more, 1);
    if (!away) {
        line_hear(&st.a, n);
        EQUAL(st.a.script.words, n);
        line_cut(&st.a);
        TOLD("away");
    }
    line_return(&st.b, &st.a.w, 0, 1);
    if (rings[i].kept) {
        HEARS(&st.b, run_words(BACK, 0, n, rings[i].len));
        TOLD("back:0");
        return;
    }
    snprintf(word, sizeof word, "w:0:%d:gap", n);
    HEARS(&st.b, word);
    snprintf(told, sizeof told, "back:%d", n);
    TOLD(told);
    say(&st.b, "a%d", n);
    EQUAL(send_text(1, "on"), 0);
    HEARS(&st.b, "mon");
    say(&st.b, "a%d", n + 1);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

static void ring_table(int backend, int wire)
{
    int i, away;
    for (i = 0; i < (int)(sizeof rings / sizeof *rings); i++)
        for (away = 0; away < 2; away++) {
            test_begin("a ring of %d x %d + %d, %s, %s", rings[i].count,
                       (int)rings[i].len, rings[i].one_more,
                       away ? "away" : "connected", wire_names[wire]);
            stage_begin(backend, wire);
            ring_case(i, away);
            stage_end();
            test_end();
        }
}

/* The oldest is forgotten, the others are not. */
static void one_over_is_the_oldest(void)
{
    stage_and_open();
    EQUAL(send_text(1, "first"), 0);
    HEARS(&st.a, "mfirst");
    line_cut(&st.a);
    TOLD("away");
    send_run(0, 128, 1);
    line_return(&st.b, &st.a.w, 1, 1);
    HEARS(&st.b, run_words("w:0:1:resumed", 0, 128, 1));
    TOLD("back:0");
}

static void what_was_acknowledged_makes_room(void)
{
    stage_and_open();
    send_run(0, 128, 1);
    HEARS(&st.a, run_words("ma", 1, 127, 1));
    say(&st.a, "a100");
    line_settle(&st.a);
    send_run(128, 100, 1);
    HEARS(&st.a, run_words("my", 129, 99, 1));
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 100, 1);
    HEARS(&st.b, run_words("w:0:100:resumed", 100, 128, 1));
    TOLD("back:0");
}

/* One that is too large to be kept takes those before it along. */
static void one_too_large_is_a_gap(void)
{
    stage_and_lose();
    EQUAL(send_text(1, "before"), 0);
    EQUAL(send_long(1, 'x', 65537), 0);
    EQUAL(send_text(1, "after"), 0);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:3:gap");
    TOLD("back:3");
}

/* The w of a gap is lost: it is told again, and counts no further. */
static void a_gap_may_be_told_twice(void)
{
    welcome w;
    stage_and_lose();
    w = st.a.w;
    send_run(0, 130, 1);
    line_return(&st.b, &w, 0, 1);
    TOLD("back:130");
    line_return(&st.c, &w, 0, 2);
    HEARS(&st.c, "w:0:130:gap");
    TOLD("away back:130");
    say(&st.c, "a130");
    EQUAL(send_text(1, "x"), 0);
    HEARS(&st.c, "mx");
}

static void a_gap_is_as_long_as_the_peer_says(void)
{
    stage_and_open();
    send_run(0, 5, 1);
    HEARS(&st.a, run_words("ma", 1, 4, 1));
    line_cut(&st.a);
    TOLD("away");
    send_run(5, 130, 1);
    line_return(&st.b, &st.a.w, 4, 1);
    HEARS(&st.b, "w:0:135:gap");
    TOLD("back:131");
}

static void what_on_close_counts_is_what_nobody_acknowledged(void)
{
    stage_and_open();
    send_run(0, 5, 1);
    HEARS(&st.a, run_words("ma", 1, 4, 1));
    say(&st.a, "a2");
    line_settle(&st.a);
    rt_send(st.loop, st.s[1], RT_TEXT | rt_latest(1), "k", 1);
    HEARS(&st.a, "uk");
    line_cut(&st.a);
    TOLD("away");
    EQUAL(send_text(1, "x"), 0);
    skip(2001);
    TOLD("close:4503:4");
}

/* Also those that were forgotten: they are not known to have arrived. */
static void what_was_forgotten_counts_too(void)
{
    stage_and_lose();
    send_run(0, 200, 1);
    EQUAL(rt_close(st.loop, st.s[1], 1000, NULL), 0);
    TOLD("close:1000:200");
}

/* ---- lanes --------------------------------------------------------------- */

static void uncounted_ones_wait_for_counted_ones(void)
{
    stage_and_open();
    EQUAL(send_text(1, "1"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "old"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(2), "two"), 0);
    EQUAL(send_text(1, "2"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "new"), 0);
    EQUAL(send_kind(RT_BINARY | RT_DROPPABLE, "d"), 0);
    HEARS(&st.a, "m1 m2 unew utwo Ud");
}

static void a_keyed_one_is_held_until_a_later_number_is_known(void)
{
    stage_and_open();
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    HEARS(&st.a, "uk");
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    EQUAL(send_kind(RT_TEXT | rt_latest(2), "j"), 0);
    HEARS(&st.a, "uj");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK " m1 uk uj");
    say(&st.b, "a1"); /* k was written again behind 1: it may be lost */
    TOLD("back:0");
    line_cut(&st.b);
    TOLD("away");
    line_return(&st.c, &st.b.w, 1, 1);
    HEARS(&st.c, "w:0:1:resumed uk uj");
    say(&st.c, "a1");
    EQUAL(send_text(1, "2"), 0);
    HEARS(&st.c, "m2");
    say(&st.c, "a2");
    TOLD("back:0");
    line_cut(&st.c);
    TOLD("away");
    line_return(&st.b, &st.c.w, 2, 1);
    HEARS(&st.b, "w:0:2:resumed");
}

/* What h says is as good as an a. */
static void a_keyed_one_is_freed_by_h(void)
{
    stage_and_open();
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    HEARS(&st.a, "uk");
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 1, 1);
    HEARS(&st.b, "w:0:1:resumed");
}

/* On a stream nothing below has looked at it. */
static void a_text_that_is_no_utf8_ends_the_session(void)
{
    stage_and_open();
    say(&st.a, "m\xff");
    TOLD("close:1007:0");
}

/* Each by itself, whatever became of those before it. */
static void keyed_ones_are_freed_together(void)
{
    stage_and_open();
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    HEARS(&st.a, "uk");
    EQUAL(send_kind(RT_TEXT | rt_latest(2), "j"), 0);
    HEARS(&st.a, "uj");
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 1, 1);
    HEARS(&st.b, "w:0:1:resumed");
}

static void the_newest_value_survives_a_gap(void)
{
    stage_and_lose();
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "old"), 0);
    send_run(0, 130, 1);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "new"), 0);
    EQUAL(send_kind(RT_TEXT | RT_DROPPABLE, "d"), 1);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:130:gap unew");
}

static void there_are_64_keys_at_most(void)
{
    int i;
    stage_and_lose();
    for (i = 0; i < 64; i++)
        EQUAL(send_kind(RT_TEXT | rt_latest((uint16_t)i), "k"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(64), "k"), RT_EFULL);
    EQUAL(send_kind(RT_TEXT | rt_latest(63), "j"), 0);
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    line_return(&st.b, &st.a.w, 0, 1);
    line_hear(&st.b, 65);
    EQUAL(st.b.script.words, 65);
    CHECK(strstr(st.b.script.s, " uk uj") != NULL);
}

/* What waits when the line is lost: the droppable one is gone. */
static void what_waits_is_not_lost(void)
{
    stage_and_open();
    EQUAL(send_text(1, "1"), 0);
    EQUAL(send_kind(RT_TEXT | RT_DROPPABLE, "d"), 0);
    EQUAL(send_kind(RT_TEXT | rt_latest(1), "k"), 0);
    EQUAL(send_text(1, "2"), 0);
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    TOLD("away");
    HEARS(&st.a, "c4000"); /* nobody may have what was not taken */
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK " m1 m2 uk");
}

/* Nor does it follow when the peer says that it goes. */
static void what_waits_does_not_follow_a_peer_that_leaves(void)
{
    stage_and_open();
    say(&st.a, "c1001");
    EQUAL(send_text(1, "1"), 0);
    TOLD("away");
    line_hear(&st.a, 0);
    CHECK(strstr(st.a.script.s, "m1") == NULL);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK " m1");
}

/* What waited is kept by the rule of those away: 128 of it. */
static void what_waits_is_kept_as_if_away(void)
{
    stage_and_open();
    send_run(0, 129, 1);
    EQUAL(rt_drop(st.loop, st.s[1], 4000, NULL), 0);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:129:gap");
    TOLD("away back:129");
}

/* While connected nothing that waits is forgotten. */
static void what_waits_is_never_forgotten(void)
{
    stage_and_open();
    send_run(0, 200, 1);
    HEARS(&st.a, run_words("ma", 1, 199, 1));
    say(&st.a, "a200");
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* Reads whole messages while they come; how many. */
static int read_all(line *l)
{
    int n = 0;
    l->waits = 0;
    do {
        calm();
        while (line_next(l))
            n += l->msg[0] == 'm';
    } while (peer_take(&l->p) > 0 || !l->p.gone);
    return n;
}

/* A peer that does not read: its queue is full at last, with a frame half
   written perhaps.  What it has, and what it has not, adds up. */
static void one_who_does_not_read_loses_its_line(void)
{
    int sent = 0, has;
    char word[40], told[40];
    st.opts.hard_mark = 300000;
    stage_and_open();
    while (rt_state(st.loop, st.s[1]) == RT_OPEN && sent < 5000) {
        CHECK(send_long(1, 'x', 10000) >= 0);
        sent++;
        rt_poll(st.loop, 0);
    }
    TOLD("away");
    has = read_all(&st.a);
    CHECK(has > 0 && has < sent);
    line_return(&st.b, &st.a.w, (unsigned long long)has, 1);
    snprintf(word, sizeof word, "w:0:%d:gap", sent);
    snprintf(told, sizeof told, "back:%d", sent - has);
    HEARS(&st.b, word);
    TOLD(told);
}

/* A line that is full is taken over: half a frame may be in it, and nothing
   else follows. */
static void a_takeover_says_nothing_inside_a_frame(void)
{
    int i, sent = 0, has;
    size_t n;
    st.opts.hard_mark = 50000000;
    stage_and_open();
    for (; sent < 800; sent++)
        CHECK(send_long(1, 'x', 20000) >= 0);
    calm();
    CHECK(rt_unsent(st.loop, st.s[1]) > 0);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:800:gap");
    has = read_all(&st.a);
    CHECK(has > 0 && has < sent);
    n = st.a.p.len - st.a.p.at;
    for (i = 8; i < (int)n; i++) /* behind a head */
        CHECK(st.a.p.in[st.a.p.at + (size_t)i] == 'x');
    CHECK(n > 0 || st.a.closed == 4504);
    line_return(&st.c, &st.a.w, (unsigned long long)has, 2);
    HEARS(&st.c, "w:0:800:gap"); /* what it has it may have */
}

/* At most one waits: a newer one takes its place. */
static void acknowledgements_do_not_pile_up(void)
{
    int i, acks = 0;
    unsigned long long last = 0;
    st.opts.hard_mark = 50000000;
    stage_and_open();
    for (i = 0; i < 800; i++) /* more than the system takes */
        CHECK(send_long(1, 'x', 20000) >= 0);
    calm();
    CHECK(rt_unsent(st.loop, st.s[1]) > 0);
    for (i = 0; i < 640; i++) {
        say(&st.a, "m");
        rt_poll(st.loop, 0);
    }
    calm();
    st.a.waits = 1;
    do {
        CHECK(line_next(&st.a));
        if (st.a.msg[0] == 'a') {
            acks++;
            last = strtoull(st.a.msg + 1, NULL, 10);
        }
    } while (last < 640 && !test_bad);
    CHECK(acks <= 2);
    EQUAL(last, 640);
}

/* ---- callbacks ----------------------------------------------------------- */

static void sends_when_back(const char *what, rt_session s)
{
    if (strcmp(what, "back") == 0)
        EQUAL(rt_send(st.loop, s, RT_TEXT, "snapshot", 8), 0);
}

static void on_back_sends_behind_the_replay(void)
{
    stage_and_lose();
    EQUAL(send_text(1, "kept"), 0);
    st.deed = sends_when_back;
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:0");
    EQUAL(send_text(1, "live"), 0);
    HEARS(&st.b, BACK " mkept msnapshot mlive");
}

static void closes_when_away(const char *what, rt_session s)
{
    if (strcmp(what, "away") == 0)
        EQUAL(rt_close(st.loop, s, 3999, NULL), 0);
}

static void ended_in_on_away_it_is_not_back(void)
{
    stage_and_open();
    st.deed = closes_when_away;
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("away close:3999:0");
    HEARS(&st.b, BACK " c3999");
    is_stranger(&st.c, &st.b.w, 1);
}

static void closes_when_back(const char *what, rt_session s)
{
    if (strcmp(what, "back") == 0)
        EQUAL(rt_close(st.loop, s, 3999, NULL), 0);
}

static void it_may_end_in_on_back(void)
{
    stage_and_lose();
    EQUAL(send_text(1, "kept"), 0);
    st.deed = closes_when_back;
    line_return(&st.b, &st.a.w, 0, 1);
    TOLD("back:0 close:3999:1");
    HEARS(&st.b, BACK " mkept c3999");
}

static void drops_when_told(const char *what, rt_session s)
{
    if (strcmp(what, "message") == 0)
        EQUAL(rt_drop(st.loop, s, 4000, NULL), 0);
}

/* The gate is asked between any two messages of one read. */
static void behind_rt_drop_nothing_is_read(void)
{
    stage_and_open();
    st.deed = drops_when_told;
    say(&st.a, "m1");
    say(&st.a, "m2");
    say(&st.a, "m3");
    TOLD("m1 away");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:1:0:resumed");
}

static void closes_when_told(const char *what, rt_session s)
{
    if (strcmp(what, "message") == 0)
        EQUAL(rt_close(st.loop, s, 3999, NULL), 0);
}

static void behind_rt_close_nothing_is_delivered(void)
{
    stage_and_open();
    st.deed = closes_when_told;
    say(&st.a, "m1");
    say(&st.a, "m2");
    TOLD("m1 close:3999:0");
    HEARS(&st.a, "c3999");
}

static void reports_in_on_open(const char *what, rt_session s)
{
    if (strcmp(what, "open") == 0)
        EQUAL(rt_send(st.loop, s, RT_TEXT, "hello", 5), 0);
}

static void on_open_sends_behind_w(void)
{
    stage();
    st.deed = reports_in_on_open;
    line_open(&st.a);
    say(&st.a, "h");
    HEARS(&st.a, NEW " mhello");
    EQUAL(st.a.w.ping, 15000);
}

static void closes_in_on_open(const char *what, rt_session s)
{
    if (strcmp(what, "open") == 0)
        EQUAL(rt_close(st.loop, s, 3999, NULL), 0);
}

static void it_may_end_in_on_open(void)
{
    stage();
    st.deed = closes_in_on_open;
    line_open(&st.a);
    say(&st.a, "h");
    TOLD("open close:3999:0");
    HEARS(&st.a, NEW " c3999");
    st.deed = NULL;
    is_stranger(&st.b, &st.a.w, 1);
}

/* ---- groups -------------------------------------------------------------- */

static char presence[64];

static void on_presence(rt_loop *loop, rt_group g, rt_session s, int what)
{
    size_t n = strlen(presence);
    (void)loop;
    (void)g;
    (void)s;
    snprintf(presence + n, sizeof presence - n, "%c", " +-ab"[what]);
}

static rt_group joined_group(void)
{
    rt_group_opts o = {0};
    rt_group g;
    o.event = on_presence;
    presence[0] = 0;
    g = rt_group_open(st.loop, "g", &o);
    EQUAL(rt_group_join(st.loop, g, st.s[1]), 0);
    calm();
    SAME(presence, "+");
    return g;
}

/* A second session, on st.b. */
static void open_second(void)
{
    line_open(&st.b);
    say(&st.b, "h");
    HEARS(&st.b, NEW);
    say(&st.b, "a0");
    TOLD("2.open");
}

static void a_group_sends_to_those_away(void)
{
    rt_group g;
    stage_and_open();
    open_second();
    g = joined_group();
    EQUAL(rt_group_join(st.loop, g, st.s[2]), 0);
    line_cut(&st.a);
    TOLD("away");
    EQUAL(rt_group_send(st.loop, g, RT_TEXT, "1", 1), 2);
    EQUAL(rt_group_send(st.loop, g, RT_BINARY, "2", 1), 2);
    EQUAL(rt_group_send(st.loop, g, RT_TEXT | rt_latest(1), "k", 1), 2);
    EQUAL(rt_group_send(st.loop, g, RT_TEXT | RT_DROPPABLE, "d", 1), 1);
    EQUAL(rt_group_count(st.loop, g), 2);
    HEARS(&st.b, "m1 M2 uk ud");
    line_return(&st.c, &st.a.w, 0, 1);
    HEARS(&st.c, BACK " m1 M2 uk");
    EQUAL(rt_group_join(st.loop, g, st.s[1]), RT_EEXIST);
    EQUAL(rt_group_send(st.loop, g, RT_TEXT, "3", 1), 2);
    HEARS(&st.c, "m3");
    HEARS(&st.b, "m3");
}

static void presence_tells_of_away_and_back(void)
{
    rt_group g;
    stage_and_open();
    g = joined_group();
    line_cut(&st.a);
    TOLD("away");
    SAME(presence, "+a");
    EQUAL(rt_group_count(st.loop, g), 1);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK);
    TOLD("back:0");
    SAME(presence, "+ab");
    line_return(&st.c, &st.b.w, 0, 1); /* a takeover is silent */
    HEARS(&st.c, BACK);
    TOLD("away back:0");
    SAME(presence, "+ab");
    line_cut(&st.c);
    TOLD("away");
    skip(2001);
    TOLD("close:4503:0");
    SAME(presence, "+aba-");
    EQUAL(rt_group_count(st.loop, g), 0);
}

/* ---- liars --------------------------------------------------------------- */

static void one_who_has_what_was_never_sent_is_a_liar(void)
{
    stage_and_open();
    EQUAL(send_text(1, "1"), 0);
    HEARS(&st.a, "m1");
    line_cut(&st.a);
    TOLD("away");
    EQUAL(send_text(1, "2"), 0); /* kept: nobody can have it */
    line_return(&st.b, &st.a.w, 2, 1);
    HEARS(&st.b, "c1002");
    line_return(&st.b, &st.a.w, 9007199254740991ull, 1);
    HEARS(&st.b, "c1002");
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_AWAY);
    line_return(&st.c, &st.a.w, 1, 1); /* the attempt was not counted */
    HEARS(&st.c, "w:0:1:resumed m2");
    TOLD("back:0");
}

/* On the way means nothing: only what was begun to be written counts. */
static void one_who_has_what_still_waits_is_a_liar(void)
{
    stage_and_open();
    line_open(&st.b);
    say(&st.b, "h%s 1 1", st.a.w.token);
    EQUAL(send_text(1, "1"), 0); /* leaves behind the reading of h */
    HEARS(&st.b, "c1002");
    HEARS(&st.a, "m1");
    TOLD("");
    say(&st.a, "a2");
    EQUAL(send_text(1, "2"), 0);
    HEARS(&st.a, "m2 c1002");
    TOLD("close:1002:2");
}

/* What went into a line that was lost may have arrived. */
static void one_may_have_what_the_last_line_brought(void)
{
    stage_and_open();
    send_run(0, 3, 1);
    HEARS(&st.a, "ma mb mc");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, BACK " ma mb mc");
    line_cut(&st.b);
    TOLD("back:0 away");
    line_return(&st.c, &st.b.w, 3, 1);
    HEARS(&st.c, "w:0:3:resumed");
    say(&st.c, "a3");
    TOLD("back:0");
}

static void one_who_forgets_what_it_had_has_a_gap(void)
{
    stage_and_open();
    send_run(0, 3, 1);
    HEARS(&st.a, "ma mb mc");
    say(&st.a, "a2");
    line_settle(&st.a);
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:3:gap");
    TOLD("back:3");
}

static void an_a_beyond_what_was_taken_ends_it(void)
{
    stage_and_open();
    send_run(0, 3, 1);
    HEARS(&st.a, "ma mb mc");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 1, 1);
    HEARS(&st.b, "w:0:1:resumed mb mc");
    say(&st.b, "a4");
    HEARS(&st.b, "c1002");
    TOLD("back:0 close:1002:2");
    is_stranger(&st.c, &st.b.w, 1);
}

/* ---- limits -------------------------------------------------------------- */

static void twenty_resumes_in_ten_seconds(void)
{
    line *const two[] = {&st.b, &st.c};
    welcome w;
    int i;
    stage_and_lose();
    w = st.a.w;
    for (i = 0; i < 20; i++) {
        line_return(two[i & 1], &w, 0, 1);
        HEARS(two[i & 1], BACK);
        say(two[i & 1], "a0");
        calm();
        w = two[i & 1]->w;
    }
    script_clear(&st.told);
    line_return(&st.b, &w, 0, 1);
    HEARS(&st.b, "c1013");
    CHECK(strncmp(st.b.reason, "retry=", 6) == 0);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN); /* untouched */
    say(&st.c, "mx");
    TOLD("mx");
    skip(10001);
    line_return(&st.b, &w, 0, 1); /* the attempt was not counted */
    HEARS(&st.b, "w:1:0:resumed");
}

static void a_resume_is_no_new_session(void)
{
    st.loop_opts.max_sessions = 1;
    stage_and_open();
    line_open(&st.b);
    say(&st.b, "h");
    HEARS(&st.b, "c1013");
    CHECK(strncmp(st.b.reason, "retry=", 6) == 0);
    line_return(&st.c, &st.a.w, 0, 1);
    HEARS(&st.c, BACK);
    TOLD("away back:0");
    line_cut(&st.c);
    TOLD("away");
    line_open(&st.b); /* also those away count */
    say(&st.b, "hAAAAAAAAAAAAAAAAAAAAAA 0 1");
    HEARS(&st.b, "c1013");
    line_return(&st.a, &st.c.w, 0, 1);
    HEARS(&st.a, BACK);
    TOLD("back:0");
}

static void the_type_is_not_counted_as_payload(void)
{
    st.opts.max_message = 100;
    stage_and_open();
    say_long(&st.a, 'm', 'x', 100);
    TOLD("mx#100");
    say_long(&st.a, 'U', 'x', 101);
    HEARS(&st.a, "c1009");
    TOLD("close:1009:0");
}

static void a_greeting_is_short(void)
{
    stage_and_lose();
    line_open(&st.b);
    say_long(&st.b, 'h', ' ', 70000);
    line_hear(&st.b, 1);
    CHECK(st.b.closed == 1002 || st.b.closed == 1009);
    TOLD("");
    comes_back(&st.c, &st.a.w, 1);
}

/* h and a are free, but an a that frees nothing is control, as is the ping by
   which a line settles: 20 of them a second. */
static void idle_acknowledgements_are_limited(void)
{
    int i;
    stage_and_open();
    skip(1001);
    for (i = 0; i < 19; i++)
        say(&st.a, "a0");
    line_settle(&st.a);
    TOLD_NOW("");
    say(&st.a, "a0");
    HEARS(&st.a, "c1008");
    TOLD("close:1008:0");
}

static void acknowledgements_that_free_are_not_limited(void)
{
    int i;
    stage_and_open();
    send_run(0, 100, 1);
    HEARS(&st.a, run_words("ma", 1, 99, 1));
    for (i = 1; i <= 100; i++)
        say(&st.a, "a%d", i);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

static void too_many_messages_end_it(void)
{
    int i;
    st.opts.rate_limit = 5;
    st.opts.rate_over = RT_OVER_CLOSE;
    stage_and_open();
    for (i = 0; i < 6; i++)
        say(&st.a, "mx");
    HEARS(&st.a, "c1008");
    TOLD("mx mx mx mx mx close:1008:0");
    is_stranger(&st.b, &st.a.w, 1);
}

/* With resume the default is to read no more for a while: nothing that has a
   number is dropped. */
static void too_many_messages_wait(void)
{
    int i;
    st.opts.rate_limit = 5;
    stage_and_open();
    for (i = 0; i < 5; i++)
        say(&st.a, "mx");
    TOLD("mx mx mx mx mx");
    say(&st.a, "my");
    TOLD("");
    skip(1001);
    TOLD("my");
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:6:0:resumed");
}

/* Paused, it is neither delivered nor counted: it is said again. */
static void what_was_not_read_is_not_counted(void)
{
    int i;
    st.opts.rate_limit = 2;
    st.opts.rate_over = RT_OVER_PAUSE;
    stage_and_open();
    for (i = 0; i < 3; i++)
        say(&st.a, "mx");
    TOLD("mx mx");
    line_return(&st.b, &st.a.w, 0, 1); /* the third was never read */
    HEARS(&st.b, "w:2:0:resumed");
}

/* A client that comes back says again what nobody acknowledged. */
static void after_a_resume_there_is_a_credit(void)
{
    int i;
    st.opts.rate_limit = 5;
    st.opts.rate_over = RT_OVER_CLOSE;
    st.opts.resume_ms = 60000;
    stage_and_open();
    for (i = 0; i < 5; i++)
        say(&st.a, "mx");
    TOLD("mx mx mx mx mx");
    line_cut(&st.a);
    TOLD("away");
    skip(4000);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:5:0:resumed");
    say(&st.b, "a0");
    TOLD("back:0");
    for (i = 0; i < 20; i++)
        say(&st.b, "mx");
    TOLD("mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx mx");
    for (i = 0; i < 6; i++)
        say(&st.b, "mx");
    line_hear(&st.b, 1);
    EQUAL(st.b.closed, 1008);
}

/* Coming back without having been away wins nothing. */
static void coming_back_refills_nothing(void)
{
    int i;
    st.opts.rate_limit = 5;
    st.opts.rate_over = RT_OVER_CLOSE;
    stage_and_open();
    for (i = 0; i < 5; i++)
        say(&st.a, "mx");
    TOLD("mx mx mx mx mx");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:5:0:resumed");
    say(&st.b, "a0");
    say(&st.b, "mx");
    HEARS(&st.b, "c1008");
    TOLD("away back:0 close:1008:0");
}

/* ---- acknowledging ------------------------------------------------------- */

static void sixteen_messages_are_acknowledged(void)
{
    int i;
    stage_and_open();
    for (i = 0; i < 15; i++)
        say(&st.a, "mx");
    say(&st.a, "ux");
    line_settle(&st.a);
    HEARS_NOW(&st.a, "");
    say(&st.a, "mx");
    line_await(&st.a);
    HEARS_NOW(&st.a, "a16");
    for (i = 0; i < 16; i++)
        say(&st.a, "m");
    line_await(&st.a);
    HEARS_NOW(&st.a, "a32");
}

static void sixteen_kilobytes_are_acknowledged(void)
{
    stage_and_open();
    say_long(&st.a, 'm', 'x', 16383);
    line_settle(&st.a);
    HEARS_NOW(&st.a, "");
    say(&st.a, "mx");
    line_await(&st.a);
    HEARS_NOW(&st.a, "a2");
    say_long(&st.a, 'M', 'x', 16384);
    line_await(&st.a);
    HEARS_NOW(&st.a, "a3");
}

static void half_a_second_later_it_is_acknowledged(void)
{
    stage_and_open();
    say(&st.a, "mx");
    TOLD("mx");
    skip(400);
    say(&st.a, "mx");
    TOLD("mx");
    HEARS_NOW(&st.a, "");
    skip(101); /* after the first */
    HEARS_NOW(&st.a, "a2");
    skip(1000);
    HEARS_NOW(&st.a, "");
}

/* The w of a resume says how many came: no a says it again. */
static void what_w_says_needs_no_a(void)
{
    stage_and_open();
    say(&st.a, "mx");
    TOLD("mx");
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:1:0:resumed");
    say(&st.b, "a0");
    line_settle(&st.b);
    skip(1000);
    HEARS_NOW(&st.b, "");
}

/* A page cannot see pings: silence ends with an a. */
static void a_silent_end_says_a(void)
{
    int i;
    st.opts.ping_ms = 1000;
    stage_and_open();
    EQUAL(st.a.w.ping, 1000);
    for (i = 0; i < 4; i++) {
        skip(1001);
        HEARS(&st.a, "a0");
    }
    TOLD("");
}

static void an_a_breaks_the_silence(void)
{
    st.opts.ping_ms = 1000;
    stage_and_open();
    skip(600);
    say(&st.a, "mx");
    TOLD("mx");
    skip(300); /* so far nothing was said for 900 ms */
    HEARS_NOW(&st.a, "");
    EQUAL(send_text(1, "y"), 0);
    HEARS_NOW(&st.a, "my");
    skip(250);
    HEARS_NOW(&st.a, "a1"); /* of the message */
    skip(900);
    HEARS_NOW(&st.a, "");
    skip(150);
    HEARS_NOW(&st.a, "a1"); /* of the silence */
}

static void lateness_is_not_punished(void)
{
    int i;
    st.opts.resume_ms = 100000;
    stage_and_open();
    send_run(0, 20, 1);
    line_hear(&st.a, 20);
    for (i = 0; i < 6; i++) {
        skip(14000);
        line_hear(&st.a, 0); /* it answers pings, but acknowledges nothing */
    }
    CHECK(st.a.pings > 0);
    TOLD("");
    say(&st.a, "a20");
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

static void a_ping_has_its_bytes_answered(void)
{
    stage_and_open();
    say(&st.a, "p0123456789abcde");
    HEARS(&st.a, "");
    SAME(st.a.pong, "0123456789abcde");
    say(&st.a, "p");
    HEARS(&st.a, "");
    EQUAL(st.a.pongs, 3); /* one was open_first's */
    SAME(st.a.pong, "");
    TOLD("");
}

/* ---- time ---------------------------------------------------------------- */

static void an_h_in_the_last_turn_wins(void)
{
    stage_and_lose();
    line_open(&st.b);
    say(&st.b, "h%s 0 1", st.a.w.token);
    clock_ahead += 2001;
    HEARS(&st.b, BACK);
    TOLD("back:0");
}

static void the_window_begins_anew(void)
{
    welcome w;
    int i;
    stage_and_lose();
    w = st.a.w;
    for (i = 0; i < 3; i++) {
        skip(1900);
        comes_back(&st.b, &w, 1);
        w = st.b.w;
        line_cut(&st.b);
        TOLD("away");
    }
    skip(2001);
    TOLD("close:4503:0");
}

static void a_slow_greeting_is_told_to_come_again(void)
{
    stage();
    line_open(&st.a);
    skip(5001);
    HEARS(&st.a, "c1013");
    SAME(st.a.reason, "retry=0");
    TOLD("");
}

/* A connection that says its h while the server drains. */
static void a_draining_server_answers_1012(void)
{
    stage_and_lose();
    line_open(&st.b);
    EQUAL(rt_shutdown(st.loop, 1000), 0);
    say(&st.b, "h%s 0 1", st.a.w.token);
    line_hear(&st.b, 1);
    CHECK(st.b.closed == 1012 || (st.b.p.gone && !st.b.closed));
    TOLD("close:1012:0");
}

/* ---- who speaks it ------------------------------------------------------- */

static void a_client_that_does_not_ask_gets_a_plain_session(void)
{
    if (st.wire == TCP)
        return;
    stage();
    CHECK(peer_ws(&st.a.p, st.loop, st.port, "/"));
    CHECK(strstr(st.a.p.head, "Sec-WebSocket-Protocol") == NULL);
    TOLD("open");
    peer_text(&st.a.p, "h");
    TOLD("mh");
    EQUAL(send_text(1, "mx"), 0);
    CHECK(peer_got(&st.a.p, RT_TEXT, "mx"));
    line_cut(&st.a);
    TOLD("close:1006:0");
}

static void without_a_window_it_is_not_picked(void)
{
    if (st.wire == TCP)
        return;
    st.opts.resume_ms = 0;
    stage();
    CHECK(line_connect(&st.a, WS, st.port));
    line_ask(&st.a);
    EQUAL(peer_status(&st.a.p), 101);
    CHECK(strstr(st.a.p.head, "Sec-WebSocket-Protocol") == NULL);
    TOLD("open");
    peer_text(&st.a.p, "mx");
    TOLD("mmx");
    line_cut(&st.a);
    TOLD("close:1006:0");
}

/* A token is known to one loop; a shared port leads to any of them. */
static void a_shared_port_and_resume_are_refused(void)
{
    rt_listen_opts o;
    const char *why;
    stage();
    o = st.opts;
    o.reuse_port = 1;
    EQUAL(rt_listen(st.loop,
                    st.wire == TCP ? "tcp://127.0.0.1:0" : "ws://127.0.0.1:0",
                    &o)
              .id,
          0);
    EQUAL(rt_error(st.loop, &why), RT_EINVAL);
}

static void the_host_may_pick_another_protocol(void)
{
    if (st.wire == TCP)
        return;
    st.picked = "chat";
    stage();
    CHECK(line_connect(&st.a, WS, st.port));
    peer_ask(&st.a.p, "/", "Sec-WebSocket-Protocol: rtnet.1, chat\r\n");
    EQUAL(peer_status(&st.a.p), 101);
    CHECK(strstr(st.a.p.head, "Sec-WebSocket-Protocol: chat\r\n") != NULL);
    TOLD("open");
    peer_text(&st.a.p, "h");
    TOLD("mh");
}

/* ---- user ids ------------------------------------------------------------ */

static void a_login_is_compared_with_the_session(void)
{
    if (st.wire == TCP) /* there is no request to accept */
        return;
    st.uid = "anna";
    stage_and_lose();
    SAME(rt_uid(st.loop, st.s[1]), "anna");
    comes_back(&st.b, &st.a.w, 1); /* no second login */
    line_cut(&st.b);
    TOLD("away");
    st.uid = "berta";
    is_stranger(&st.c, &st.b.w, 1);
    SAME(rt_uid(st.loop, st.s[2]), "berta");
    CHECK(rt_same(rt_find(st.loop, "anna"), st.s[1]));
    st.uid = "anna";
    line_return(&st.c, &st.b.w, 0, 1);
    HEARS(&st.c, BACK);
}

static void a_new_login_replaces_the_one_away(void)
{
    if (st.wire == TCP)
        return;
    st.uid = "anna";
    stage_and_lose();
    line_open(&st.b);
    TOLD(""); /* the upgrade alone is no login */
    say(&st.b, "h");
    HEARS(&st.b, NEW);
    told_all("2.open close:4501:0");
    EQUAL(st.end.cause, RT_BY_REPLACE);
    CHECK(rt_same(rt_find(st.loop, "anna"), st.s[2]));
    st.uid = NULL;
    is_stranger(&st.c, &st.a.w, 1);
}

static void one_away_never_blocks_a_login(void)
{
    st.loop_opts.bind_policy = RT_BIND_REFUSE;
    stage_and_open();
    open_second();
    EQUAL(rt_bind(st.loop, st.s[1], "u"), 0);
    EQUAL(rt_bind(st.loop, st.s[2], "u"), RT_EREFUSED);
    line_cut(&st.a);
    TOLD("away");
    EQUAL(rt_bind(st.loop, st.s[2], "u"), 0);
    TOLD("close:4501:0");
    CHECK(rt_same(rt_find(st.loop, "u"), st.s[2]));
}

static void of_many_the_one_longest_away_goes(void)
{
    st.loop_opts.bind_policy = RT_BIND_MANY;
    st.loop_opts.bind_max = 2;
    stage_and_open();
    open_second();
    EQUAL(rt_bind(st.loop, st.s[1], "u"), 0);
    EQUAL(rt_bind(st.loop, st.s[2], "u"), 0);
    line_cut(&st.b);
    TOLD("2.away");
    skip(10);
    line_cut(&st.a);
    TOLD("away");
    line_open(&st.c);
    say(&st.c, "h");
    HEARS(&st.c, NEW);
    TOLD("3.open");
    EQUAL(rt_bind(st.loop, st.s[3], "u"), 0);
    TOLD("2.close:4501:0");
    EQUAL(rt_push(st.loop, "u", RT_TEXT, "x", 1), 2);
}

static void one_kicked_while_away_comes_as_a_stranger(void)
{
    stage_and_lose();
    EQUAL(rt_bind(st.loop, st.s[1], "u"), 0);
    EQUAL(rt_push(st.loop, "u", RT_TEXT, "x", 1), 1);
    EQUAL(rt_kick(st.loop, "u", 0, "out"), 1);
    EQUAL(rt_find(st.loop, "u").id, 0); /* at once */
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, NEW);
    told_all("close:4502:1 2.open");
    EQUAL(rt_bind(st.loop, st.s[2], "u"), 0);
    TOLD("");
}

static void a_user_pointer_and_timers_survive(void)
{
    int here;
    stage_and_open();
    rt_set_user(st.loop, st.s[1], &here);
    line_cut(&st.a);
    TOLD("away");
    CHECK(rt_user(st.loop, st.s[1]) == &here);
    EQUAL(rt_unsent(st.loop, st.s[1]), 0);
    CHECK(rt_same(rt_next_session(st.loop, (rt_session){0}), st.s[1]));
    comes_back(&st.b, &st.a.w, 1);
    CHECK(rt_user(st.loop, st.s[1]) == &here);
}

/* ---- numbers ------------------------------------------------------------- */

static rt__keep *keep_of_first(void)
{
    rt__session *s =
        (rt__session *)rt__slot_get(st.loop, st.s[1].id, RT__SESSION);
    return s ? rt__keep_of(s) : NULL;
}

/* As if 2^53 - 3 messages had gone each way, all of them acknowledged. */
static void numbers_end_at_2_to_the_53(void)
{
    const unsigned long long near = 9007199254740989ull;
    rt__keep *k;
    stage_and_open();
    EQUAL(send_text(1, "x"), 0);
    HEARS(&st.a, "mx");
    k = keep_of_first();
    CHECK(k && k->flow);
    if (!k || !k->flow)
        return;
    k->n = k->flow->top = near;
    k->flow->acked = near - 1;
    k->received = near;
    line_cut(&st.a);
    TOLD("away");
    line_return(&st.b, &st.a.w, near - 1, 1);
    HEARS(&st.b, "w:9007199254740989:9007199254740988:resumed mx");
    say(&st.b, "a%llu", near);
    say(&st.b, "mx");
    TOLD("back:0 mx");
    skip(501);
    HEARS(&st.b, "a9007199254740990");
    EQUAL(send_text(1, "y"), 0);
    HEARS(&st.b, "my");
    say(&st.b, "a%llu", near + 1);
    TOLD("");
    send_text(1, "z"); /* the last number */
    HEARS(&st.b, "mz c1000");
    SAME(st.b.reason, "count");
    TOLD("close:1000:1");
}

/* ---- all ----------------------------------------------------------------- */

static void server_cases(void)
{
    RUN_WIRES(a_lost_answer_costs_nothing);
    RUN_WIRES(the_token_before_is_good_until_the_first_a);
    RUN_WIRES(an_attempt_is_greater_than_the_last);
    RUN_WIRES(a_wrong_token_is_a_strangers);
    RUN_WIRES(an_expired_token_is_a_strangers);
    RUN_WIRES(a_truncated_token_opens_nothing);
    RUN_WIRES(after_a_restart_all_are_strangers);
    RUN_WIRES(a_token_is_good_for_its_own_handlers_alone);
    RUN_WIRES(a_session_may_change_its_wire);
    RUN_WIRES(the_host_may_refuse_a_resume);
    RUN_WIRES(the_host_sees_who_resumes);
    RUN_WIRES(without_random_bytes_there_is_no_token);
    RUN_WIRES(without_random_bytes_a_resume_waits);
    RUN_WIRES(the_old_line_is_cut_off);
    RUN_WIRES(the_old_line_may_die_later);
    RUN_WIRES(what_is_read_too_late_is_not_counted);
    RUN_WIRES(one_of_those_that_race_wins);
    RUN_WIRES(greater_attempts_take_over);
    RUN_WIRES(a_resume_may_break_off_at_any_byte);
    RUN_WIRES(a_resume_may_come_in_pieces);
    RUN_WIRES(a_greeting_may_be_fragmented);
    RUN_WIRES(a_replay_may_break_off);
    RUN_WIRES(one_over_is_the_oldest);
    RUN_WIRES(what_was_acknowledged_makes_room);
    RUN_WIRES(one_too_large_is_a_gap);
    RUN_WIRES(a_gap_may_be_told_twice);
    RUN_WIRES(a_gap_is_as_long_as_the_peer_says);
    RUN_WIRES(what_on_close_counts_is_what_nobody_acknowledged);
    RUN_WIRES(what_was_forgotten_counts_too);
    RUN_WIRES(uncounted_ones_wait_for_counted_ones);
    RUN_WIRES(a_keyed_one_is_held_until_a_later_number_is_known);
    RUN_WIRES(a_keyed_one_is_freed_by_h);
    RUN_WIRES(keyed_ones_are_freed_together);
    RUN_WIRES(a_text_that_is_no_utf8_ends_the_session);
    RUN_WIRES(the_newest_value_survives_a_gap);
    RUN_WIRES(there_are_64_keys_at_most);
    RUN_WIRES(what_waits_is_not_lost);
    RUN_WIRES(what_waits_does_not_follow_a_peer_that_leaves);
    RUN_WIRES(what_waits_is_kept_as_if_away);
    RUN_WIRES(what_waits_is_never_forgotten);
    RUN_WIRES(a_takeover_says_nothing_inside_a_frame);
    RUN_WIRES(one_who_does_not_read_loses_its_line);
    RUN_WIRES(acknowledgements_do_not_pile_up);
    RUN_WIRES(on_back_sends_behind_the_replay);
    RUN_WIRES(ended_in_on_away_it_is_not_back);
    RUN_WIRES(it_may_end_in_on_back);
    RUN_WIRES(behind_rt_drop_nothing_is_read);
    RUN_WIRES(behind_rt_close_nothing_is_delivered);
    RUN_WIRES(on_open_sends_behind_w);
    RUN_WIRES(it_may_end_in_on_open);
    RUN_WIRES(a_group_sends_to_those_away);
    RUN_WIRES(presence_tells_of_away_and_back);
}

static void more_server_cases(void)
{
    RUN_WIRES(one_who_has_what_was_never_sent_is_a_liar);
    RUN_WIRES(one_who_has_what_still_waits_is_a_liar);
    RUN_WIRES(one_may_have_what_the_last_line_brought);
    RUN_WIRES(one_who_forgets_what_it_had_has_a_gap);
    RUN_WIRES(an_a_beyond_what_was_taken_ends_it);
    RUN_WIRES(twenty_resumes_in_ten_seconds);
    RUN_WIRES(a_resume_is_no_new_session);
    RUN_WIRES(the_type_is_not_counted_as_payload);
    RUN_WIRES(a_greeting_is_short);
    RUN_WIRES(idle_acknowledgements_are_limited);
    RUN_WIRES(acknowledgements_that_free_are_not_limited);
    RUN_WIRES(too_many_messages_end_it);
    RUN_WIRES(too_many_messages_wait);
    RUN_WIRES(what_was_not_read_is_not_counted);
    RUN_WIRES(after_a_resume_there_is_a_credit);
    RUN_WIRES(coming_back_refills_nothing);
    RUN_WIRES(sixteen_messages_are_acknowledged);
    RUN_WIRES(sixteen_kilobytes_are_acknowledged);
    RUN_WIRES(half_a_second_later_it_is_acknowledged);
    RUN_WIRES(what_w_says_needs_no_a);
    RUN_WIRES(a_silent_end_says_a);
    RUN_WIRES(an_a_breaks_the_silence);
    RUN_WIRES(lateness_is_not_punished);
    RUN_WIRES(a_ping_has_its_bytes_answered);
    RUN_WIRES(an_h_in_the_last_turn_wins);
    RUN_WIRES(the_window_begins_anew);
    RUN_WIRES(a_slow_greeting_is_told_to_come_again);
    RUN_WIRES(a_draining_server_answers_1012);
    RUN_WIRES(a_client_that_does_not_ask_gets_a_plain_session);
    RUN_WIRES(without_a_window_it_is_not_picked);
    RUN_WIRES(the_host_may_pick_another_protocol);
    RUN_WIRES(a_shared_port_and_resume_are_refused);
    RUN_WIRES(a_login_is_compared_with_the_session);
    RUN_WIRES(a_new_login_replaces_the_one_away);
    RUN_WIRES(one_away_never_blocks_a_login);
    RUN_WIRES(of_many_the_one_longest_away_goes);
    RUN_WIRES(one_kicked_while_away_comes_as_a_stranger);
    RUN_WIRES(a_user_pointer_and_timers_survive);
    RUN_WIRES(numbers_end_at_2_to_the_53);
}

#endif
