/*
 * Every header of two bytes, in every state of a connection that frames can
 * come to, for both roles: 65,536 x 9 x 2 connections.  What has to happen is
 * said by `rule`, from RFC 6455 alone; what happens is seen by the application
 * and by the peer.
 *
 * First the two bytes come alone: what is wrong by them is refused at once.
 * Then comes what they announce: the longer length in its least form (126, or
 * 65,536), the mask, a payload of 'x', of a close the code 1000 before it.
 * What lives is then led to its end: the message under way is completed, the
 * peer closes.
 */
#ifndef EXHAUSTIVE_HEADERS_H
#define EXHAUSTIVE_HEADERS_H

#include "exhaustive_stage.h"

/* In those before CLOSING frames are looked at; in CLOSING and CLOSING_IN_TEXT
   the session has ended, and of the frames only the peer's close matters; in
   the last three nothing does. */
enum {
    OPEN,            /* between two messages */
    IN_TEXT,         /* of a text the first fragment has come, "a" */
    IN_BINARY,       /* the same */
    PAUSED,          /* open, and rt_read said 0; then it says 1 */
    CLOSING,         /* rt_close: our close is written, theirs awaited */
    CLOSING_IN_TEXT, /* the same, after the first fragment of a text */
    ANSWERED,        /* their close came, our answer waits to be written */
    FAILED,          /* they broke the protocol, our close waits likewise */
    DRAINING,        /* it is written, and our half shut */
    HEADER_STATES
};
static const char *const header_states[HEADER_STATES] = {
    "open",     "in a text", "in a binary",
    "paused",   "closing",   "closing in a text",
    "answered", "failed",    "draining"};

static int is_looking(int state)
{
    return state < CLOSING;
}

static int is_under_way(int state)
{
    return state == IN_TEXT || state == IN_BINARY || state == CLOSING_IN_TEXT;
}

/* ---- the rule ------------------------------------------------------------ */

typedef struct {
    int fin, rsv, op, masked, len;
} header;

static header header_of(unsigned int b0, unsigned int b1)
{
    header h;
    h.fin = b0 >= 128;
    h.rsv = (int)(b0 / 16 % 8);
    h.op = (int)(b0 % 16);
    h.masked = b1 >= 128;
    h.len = (int)(b1 % 128);
    return h;
}

/* What a frame is to who looks at it. */
enum verdict {
    WRONG,     /* by its first two bytes */
    MISPLACED, /* here */
    HALF,      /* a close of one byte */
    SILENCE,   /* good, and nothing comes of it yet */
    MESSAGE,   /* a message is whole */
    PINGED,    /* a pong is owed */
    CLOSED     /* a close is owed */
};

static enum verdict rule(int role, int under_way, const header *h)
{
    int control = h->op == 8 || h->op == 9 || h->op == 10;
    if (h->rsv) /* 5.2: MUST be 0 unless an extension was negotiated */
        return WRONG;
    if (!control && h->op > 2) /* 5.2: reserved */
        return WRONG;
    if (h->masked != (role == SERVER)) /* 5.1: the client masks, no server */
        return WRONG;
    if (control && (!h->fin || h->len > 125)) /* 5.5 */
        return WRONG;
    if (!control && (h->op == 0) != under_way) /* 5.4 */
        return MISPLACED;
    if (h->op == 8)
        return h->len == 1 ? HALF : CLOSED; /* 5.5.1 */
    if (h->op == 9)
        return PINGED;                             /* 5.5.2 */
    return !control && h->fin ? MESSAGE : SILENCE; /* 5.5.3, 5.4 */
}

/* Must it be refused, and could that be known of two bytes already? */
static int is_bad(enum verdict v)
{
    return v == WRONG || v == MISPLACED || v == HALF;
}

static int is_bad_by_now(enum verdict v, const header *h)
{
    return v == WRONG || (v == MISPLACED && !h->masked && h->len < 126);
}

/* ---- what the peer sends ------------------------------------------------- */

static size_t payload_of(const header *h)
{
    return h->len == 126 ? 126 : h->len == 127 ? 65536 : (size_t)h->len;
}

/* All that follows the two bytes. */
static void rest_send(line *it, const header *h)
{
    static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
    static uint8_t rest[12 + 65536];
    size_t i, n = payload_of(h), at = 0;
    if (h->len == 126)
        rest[at++] = 0, rest[at++] = 126;
    for (i = 0; h->len == 127 && i < 8; i++)
        rest[at++] = i == 5; /* 65,536 */
    for (i = 0; h->masked && i < 4; i++)
        rest[at++] = key[i];
    memset(rest + at, 'x', n);
    if (h->op == 8 && n >= 2)
        memcpy(rest + at, "\x03\xe8", 2); /* 1000 */
    for (i = 0; h->masked && i < n; i++)
        rest[at + i] = (uint8_t)(rest[at + i] ^ key[i % 4]);
    ws_raw(it->peer, rest, at + n);
}

static void reach(int state, line *it)
{
    static const uint8_t wrong[2] = {0xf0, 0};
    if (state == ANSWERED || state == FAILED)
        sim_peer_window(it->peer->line, 0);
    if (state == IN_TEXT || state == CLOSING_IN_TEXT)
        ws_frame(it->peer, WS_TEXT, "a", 1);
    if (state == IN_BINARY)
        ws_frame(it->peer, WS_BINARY, "a", 1);
    if (state == ANSWERED)
        ws_close(it->peer, 1000);
    if (state == FAILED || state == DRAINING)
        ws_raw(it->peer, wrong, 2);
    if (state == PAUSED)
        EQUAL(rt_read(st.loop, it->session, 0), 0);
}

/* ---- what comes of it ---------------------------------------------------- */

static struct {
    int state;
    unsigned int b0, b1, from; /* the first b1 of those at once */
    uint64_t tried, seen[CLOSED + 1];
} now;

#define WANT(what)                                                             \
    do {                                                                       \
        if (!(what))                                                           \
            complain(#what, __LINE__);                                         \
    } while (0)

static void complain(const char *what, int at)
{
    if (test_bad++ < 5)
        printf("%s, %s, header %02x %02x: line %d: not true: %s\n",
               role_names[st.role], header_states[now.state], now.b0, now.b1,
               at, what);
}

static void want_untouched(const line *it)
{
    WANT(it->messages == 0);
    WANT(it->heard == 0);
    WANT(it->closes == 0);
    WANT(line_state(it) == SIM_UP);
}

/* 7.1.7: the connection is failed, and says why. */
static void want_violation(const line *it)
{
    WANT(it->messages == 0);
    WANT(it->closes == 1 && it->code == 1002 && it->cause == RT_BY_ERROR);
    WANT(it->heard == 1 && it->peer->close_code == 1002);
    WANT(line_state(it) == SIM_FIN);
}

static void want_message(const line *it, int op, size_t len)
{
    int kind = now.state == IN_TEXT     ? RT_TEXT
               : now.state == IN_BINARY ? RT_BINARY
                                        : op;
    size_t before = is_under_way(now.state) ? 1 : 0;
    WANT(it->messages == 1);
    WANT(it->kind == kind);
    WANT(it->len == before + len);
    WANT(it->len == 0 || it->first == (before ? 'a' : 'x'));
    WANT(it->plain);
}

/* In a state in which frames are looked at, and all of it has come. */
static void want_verdict(const line *it, enum verdict v, const header *h)
{
    if (is_bad(v)) {
        want_violation(it);
        return;
    }
    if (v == MESSAGE)
        want_message(it, h->op, payload_of(h));
    else
        WANT(it->messages == 0);
    if (v == PINGED)
        WANT(it->pongs == 1 && it->pong_is_plain &&
             it->pong_len == (size_t)h->len);
    if (v == CLOSED) {
        int code = h->len ? 1000 : 1005;
        WANT(it->closes == 1 && it->code == code && it->cause == RT_BY_PEER);
        WANT(it->peer->close_code == code);
    }
    WANT(it->heard == (v == PINGED || v == CLOSED));
    WANT(it->closes == (v == CLOSED));
    WANT(v == CLOSED || line_state(it) == SIM_UP);
}

/* Our close was said; what comes now is judged, and of no effect. */
static void want_closing(const line *it, enum verdict v, int lost, int whole)
{
    int over = whole && v == CLOSED && st.role == SERVER;
    WANT(it->messages == 0);
    WANT(it->closes == 1 && it->code == 4000 && it->cause == RT_BY_APP);
    WANT(it->heard == 1 && it->peer->close_code == 4000);
    WANT((line_state(it) != SIM_UP) == (lost || over));
}

/* What was told before the header came stays all that is told. */
static void want_deaf(const line *it)
{
    int code = now.state == ANSWERED ? 1000 : 1002;
    WANT(it->messages == 0);
    WANT(it->closes == 1 && it->code == code);
    WANT(it->heard == (now.state == DRAINING));
    WANT((line_state(it) == SIM_FIN) == (now.state == DRAINING));
}

/* ---- one first byte, some second ones ------------------------------------ */

/* Runs fn for each line, with `now` telling which it is. */
static void each(void (*fn)(line *, enum verdict, const header *))
{
    int i;
    for (i = 0; i < LINES; i++) {
        header h = header_of(now.b0, now.from + (unsigned int)i);
        now.b1 = now.from + (unsigned int)i;
        fn(&st.lines[i], rule(st.role, is_under_way(now.state), &h), &h);
    }
    settle();
}

static void begin_one(line *it, enum verdict v, const header *h)
{
    (void)v;
    (void)h;
    reach(now.state, it);
}

static void close_one(line *it, enum verdict v, const header *h)
{
    (void)v;
    (void)h;
    EQUAL(rt_close(st.loop, it->session, 4000, NULL), 0);
}

static void send_two(line *it, enum verdict v, const header *h)
{
    uint8_t two[2] = {(uint8_t)now.b0, (uint8_t)now.b1};
    (void)h;
    ws_raw(it->peer, two, 2);
    now.tried++;
    now.seen[v]++;
}

/* A close without a payload, or any other empty frame of a server, is whole
   with these two bytes. */
static int is_whole(const header *h)
{
    return !h->masked && h->len == 0;
}

static void judge_two(line *it, enum verdict v, const header *h)
{
    if (now.state == PAUSED)
        want_untouched(it);
    else if (!is_looking(now.state) && now.state < ANSWERED)
        want_closing(it, v, is_bad_by_now(v, h), is_whole(h));
    else if (now.state >= ANSWERED)
        want_deaf(it);
    else if (is_bad_by_now(v, h))
        want_violation(it);
    else if (!is_whole(h))
        want_untouched(it);
}

static void send_rest(line *it, enum verdict v, const header *h)
{
    if (!is_bad_by_now(v, h) || now.state >= ANSWERED)
        rest_send(it, h);
}

static void resume_one(line *it, enum verdict v, const header *h)
{
    (void)v;
    (void)h;
    want_untouched(it);
    EQUAL(rt_read(st.loop, it->session, 1), 0);
}

static void judge_all(line *it, enum verdict v, const header *h)
{
    if (is_looking(now.state))
        want_verdict(it, v, h);
    else if (now.state < ANSWERED)
        want_closing(it, v, is_bad(v), 1);
    else
        want_deaf(it);
}

/* ---- and the end of what lives ------------------------------------------- */

static int lives(enum verdict v)
{
    return v == SILENCE || v == MESSAGE || v == PINGED;
}

/* Is a message under way now? */
static int goes_on(enum verdict v, const header *h)
{
    if (h->op & 8)
        return is_under_way(now.state);
    return v == SILENCE;
}

static void end_one(line *it, enum verdict v, const header *h)
{
    if (now.state == ANSWERED || now.state == FAILED)
        sim_peer_window(it->peer->line, 65536);
    if (now.state >= ANSWERED || !lives(v))
        return;
    if (is_looking(now.state) && goes_on(v, h))
        ws_frame(it->peer, 0x80 | WS_MORE, "x", 1);
    ws_close(it->peer, 1000);
}

/* What was stuck is written, and nothing besides. */
static void want_answer(const line *it)
{
    int code = now.state == ANSWERED ? 1000 : 1002;
    WANT(it->heard == 1 && it->peer->close_code == code);
    WANT(it->closes == 1 && it->messages == 0);
    if (st.role == SERVER || now.state != ANSWERED)
        WANT(line_state(it) == SIM_FIN);
}

static void judge_end(line *it, enum verdict v, const header *h)
{
    if (now.state >= ANSWERED) {
        want_answer(it);
        return;
    }
    WANT(it->closes == 1);
    if (!lives(v))
        return;
    if (st.role == SERVER)
        WANT(line_state(it) == SIM_FIN);
    if (!is_looking(now.state)) {
        WANT(it->messages == 0 && it->heard == 1 && it->code == 4000);
        return;
    }
    WANT(it->code == 1000 && it->peer->close_code == 1000);
    WANT(it->heard == 1 + (v == PINGED));
    if (goes_on(v, h))
        want_message(it, h->op, 1 + (h->op & 8 ? 0 : payload_of(h)));
    WANT(it->messages == (v == MESSAGE || goes_on(v, h)));
}

static void headers_with(unsigned int b0, unsigned int from)
{
    now.b0 = b0;
    now.from = from;
    lines_open(LINES);
    each(begin_one);
    if (now.state == CLOSING || now.state == CLOSING_IN_TEXT)
        each(close_one);
    each(send_two);
    each(judge_two);
    each(send_rest);
    if (now.state == PAUSED)
        each(resume_one);
    each(judge_all);
    each(end_one);
    each(judge_end);
    lines_end();
}

/* So many of each verdict there must have been: the legal first bytes are 9,
   of 128 second ones each, for the control frames 126. */
static void check_census(void)
{
    uint64_t none = is_under_way(now.state) ? 0 : 1;
    EQUAL(now.tried, 65536);
    EQUAL(now.seen[WRONG], 65536 - 6 * 128 - 3 * 126);
    EQUAL(now.seen[MISPLACED], (none ? 2 : 4) * 128);
    EQUAL(now.seen[HALF], 1);
    EQUAL(now.seen[MESSAGE], (none ? 2 : 1) * 128);
    EQUAL(now.seen[PINGED], 126);
    EQUAL(now.seen[CLOSED], 125);
}

static void headers_in(int role, int state)
{
    unsigned int b0, from;
    memset(&now, 0, sizeof now);
    now.state = state;
    test_begin("headers, %s, %s", role_names[role], header_states[state]);
    stage_begin(role);
    for (b0 = 0; b0 < 256; b0++)
        for (from = 0; from < 256; from += LINES)
            headers_with(b0, from);
    check_census();
    stage_end();
    test_end();
}

static void headers_everywhere(void)
{
    int role, state;
    for (role = 0; role < ROLES; role++)
        for (state = 0; state < HEADER_STATES; state++)
            headers_in(role, state);
}

#endif
