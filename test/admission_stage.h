/*
 * The part of test_admission.c with loops and sockets: one listener of each
 * kind, peers at its door.
 */

/* ---- the stage ---------------------------------------------------------- */

enum { WS = 0, WS_CODEC, LENGTH, RAW, CODEC, RTNET1, KINDS };

static const char *const kind_names[] = {"ws",  "ws with a codec", "length",
                                         "raw", "codec",           "rtnet.1"};

static struct {
    int backend, kind;
    rt_loop *loop;
    rt_loop_opts loop_opts;
    rt_listen_opts o;
    rt_codec codec;
    rt_listener l;
    int port, descriptors; /* before the loop was */
    char local[108];       /* path of a local socket; "": TCP */
    int requests, opens, closes, messages, opens_before;
    int answer;      /* of on_request */
    char from[64];   /* address in the last request */
    char got[256];   /* the last message */
    rt_session last; /* that opened */
    int fail_in;     /* the allocation that fails, counted from 1; 0: none */
} st;

static void *failing(void *user, void *p, size_t old, size_t now)
{
    if (now && st.fail_in && --st.fail_in == 0)
        return NULL;
    return peer_realloc(user, p, old, now);
}

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)loop;
    st.last = s;
    st.requests++;
    snprintf(st.from, sizeof st.from, "%s", r->address);
    return st.answer;
}

static void on_open(rt_loop *loop, rt_session s)
{
    const rt_request *r = rt_request_of(loop, s);
    st.opens++;
    st.last = s;
    if (r)
        snprintf(st.from, sizeof st.from, "%s", r->address);
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    size_t n;
    (void)loop;
    (void)s;
    (void)kind;
    st.messages++;
    n = strlen(st.got); /* of a raw stream it may come in pieces */
    snprintf(st.got + n, sizeof st.got - n, "%.*s", (int)len,
             (const char *)data);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    (void)why;
    st.closes++;
}

/* Packets of a byte that says how long they are. */
static ptrdiff_t tiny_decode(void *ctx, const uint8_t *in, size_t n, size_t *at,
                             size_t *len, int *kind)
{
    (void)ctx;
    if (n < 1)
        return 0;
    *at = 1;
    *len = in[0];
    *kind = RT_TEXT;
    return 1 + in[0];
}

static size_t tiny_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    (void)kind;
    out[0] = (uint8_t)len;
    return 1;
}

static size_t tiny_bye(void *ctx, uint8_t out[256], int code,
                       const char *reason)
{
    (void)ctx;
    return (size_t)snprintf((char *)out, 256, "bye %d %s\n", code, reason);
}

/* Options may be set between this and stage_open. */
static void stage_reset(int backend, int kind)
{
    memset(&st, 0, sizeof st);
    clock_goes();
    st.backend = backend;
    st.kind = kind;
    st.descriptors = descriptors(1024);
    st.loop_opts.backend = backend;
    st.loop_opts.realloc = failing;
    st.loop_opts.random = dice_bytes;
    st.o.on.request = on_request;
    st.o.on.open = on_open;
    st.o.on.message = on_message;
    st.o.on.close = on_close;
    st.codec.decode = tiny_decode;
    st.codec.head = tiny_head;
    st.codec.bye = tiny_bye;
    if (kind == CODEC || kind == WS_CODEC)
        st.o.codec = &st.codec;
    st.o.framing = kind == RAW                         ? RT_RAW
                   : kind == RTNET1                    ? RT_RTNET1
                   : kind == CODEC || kind == WS_CODEC ? RT_CODEC
                                                       : RT_LENGTH;
    st.o.resume_ms = kind == RTNET1 ? 1000 : 0;
}

/* The clock goes on so far, and stands still there. */
static void time_passes(uint64_t ms)
{
    still_us = st.loop->last_micros + ms * 1000;
    rt_poll(st.loop, 0);
}

static rt_listener stage_listen(void)
{
    char url[128];
    int stream = st.kind >= LENGTH;
    if (st.local[0])
        snprintf(url, sizeof url, "%sunix:%s", stream ? "tcp+" : "", st.local);
    else
        snprintf(url, sizeof url, "%s://127.0.0.1:0", stream ? "tcp" : "ws");
    return rt_listen(st.loop, url, &st.o);
}

static void stage_open(void)
{
    st.loop = rt_loop_new(&st.loop_opts);
    st.l = stage_listen();
    CHECK(st.l.id != 0);
    st.port = rt_listener_port(st.loop, st.l);
    time_passes(1000 * 3600);
}

/* Nothing may be left, and nobody counted who is gone. */
static void stage_close(void)
{
    static const rt__sketch empty;
    int turns;
    for (turns = 0; turns < 5; turns++)
        rt_poll(st.loop, 0);
    if (st.loop->sketch && st.loop->conn_count == 0)
        EQUAL(memcmp(st.loop->sketch, &empty, sizeof empty), 0);
    rt_loop_free(st.loop);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    EQUAL(descriptors(1024), st.descriptors);
}

static int stage_connect(peer *p)
{
    return st.local[0] ? peer_local(p, st.loop, st.local)
                       : peer_tcp(p, st.loop, st.port);
}

static uint64_t refused_by(enum rt__refusal why)
{
    return st.loop->stats.refused_by[why];
}

/* What a client says first, with a message behind it where one may stand. */
static size_t greeting(uint8_t *out)
{
    static const char ask[] = "GET / HTTP/1.1\r\nHost: peer\r\n"
                              "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                              "Sec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                              "\r\n";
    size_t n = sizeof ask - 1;
    switch (st.kind) {
    case WS:
        memcpy(out, ask, n);
        return n + peer_frame_build(out + n, 0x81, "hello", 5);
    case WS_CODEC:
        memcpy(out, ask, n);
        return n + peer_frame_build(out + n, 0x82, "\5hello", 6);
    case LENGTH:
        memcpy(out, "\0\0\0\5hello", 9);
        return 9;
    case RTNET1: /* which is silent until it is welcome */
        memcpy(out, "\0\0\0\1h", 5);
        return 5;
    case CODEC:
        memcpy(out, "\5hello", 6);
        return 6;
    }
    memcpy(out, "hello", 5);
    return 5;
}

/* Whoever comes now is looked at by itself. */
static void comes_now(peer *p)
{
    st.opens_before = st.opens;
    st.messages = 0;
    st.got[0] = 0;
    CHECK(stage_connect(p));
}

/* It was let in: its message arrives, or it is welcome. */
static int let_in(peer *p)
{
    if (!peer_until(st.loop, &st.opens, st.opens_before + 1))
        return 0;
    if (st.kind == RTNET1)
        return peer_fill(p, 5) && p->in[4] == 'w';
    if (!peer_until(st.loop, &st.messages, 1))
        return 0;
    peer_quiet(st.loop);
    return !strcmp(st.got, "hello");
}

static int comes_in(peer *p)
{
    uint8_t out[512];
    size_t n = greeting(out);
    comes_now(p);
    peer_put(p, out, n);
    return let_in(p);
}

/* The number behind that word; -1: the word is not there. */
static long number_behind(const char *text, const char *word)
{
    const char *at = strstr(text, word);
    return at ? atol(at + strlen(word)) : -1;
}

/* It was refused as its kind is: with the time to wait, in ms; 0: just closed;
   -1: something else. */
static long refused_ms(peer *p)
{
    char text[256];
    size_t n;
    long ms = -1;
    if (st.kind <= WS_CODEC) {
        if (peer_status(p) != 503 ||
            !strstr(p->head, "\r\nConnection: close\r\n"))
            return -1;
        ms = 1000 * number_behind(p->head, "\r\nRetry-After: ");
        CHECK(ms >= 1000);
        CHECK(peer_ended(p) == PEER_EOF);
        return ms;
    }
    if (!peer_ended(p))
        return -1;
    if (st.kind == LENGTH || st.kind == RAW)
        return p->len == 0 ? 0 : -1;
    CHECK(p->gone == PEER_EOF);
    n = p->len < sizeof text ? p->len : sizeof text - 1;
    if (n < 5)
        return -1;
    memcpy(text, p->in, n);
    text[n] = 0;
    if (st.kind == CODEC)
        return strncmp(text, "bye 1013 retry=", 15) ? -1 : atol(text + 15);
    if (memcmp(text, "\0\0\0", 3) != 0 || (size_t)text[3] + 4 != n)
        return -1;
    return strncmp(text + 4, "c1013 retry=", 12) ? -1 : atol(text + 16);
}

/* Comes, and is refused as it should be. */
static void is_refused(peer *p)
{
    uint8_t out[512];
    size_t n = greeting(out);
    int plain = st.kind == LENGTH || st.kind == RAW;
    long ms;
    CHECK(stage_connect(p));
    peer_put(p, out, st.kind <= WS_CODEC ? n - 11 - (st.kind == WS_CODEC) : n);
    ms = refused_ms(p);
    CHECK(plain ? ms == 0 : ms >= 1 && ms <= 60000);
    peer_end(p);
}

/* One case for each kind of listener and each backend. */
static void run_kinds(const char *name, void (*test)(int backend, int kind))
{
    size_t i;
    int kind;
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++)
        for (kind = 0; kind < KINDS; kind++) {
            test_begin("%s, %s, %s", name, kind_names[kind],
                       peer_backends[i].name);
            if (!test_lacks)
                test(peer_backends[i].which, kind);
            test_end();
        }
}

#define RUN_KINDS(name) run_kinds(#name, name)

/* ---- the rate of new connections ---------------------------------------- */

static void above_the_rate_one_is_told_when_to_come_back(int backend, int kind)
{
    peer a, b, c;
    stage_reset(backend, kind);
    st.o.accept_rate = 1;
    stage_open();
    CHECK(comes_in(&a));
    st.requests = 0;
    is_refused(&b);
    is_refused(&b);
    EQUAL(st.requests, 0);
    EQUAL(st.opens, 1);
    EQUAL(refused_by(RT__REFUSED_RATE), 2);
    EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 2);
    EQUAL(st.loop->conn_count, 1);
    time_passes(999);
    is_refused(&b);
    time_passes(1);
    CHECK(comes_in(&c));
    peer_end(&a);
    peer_end(&c);
    stage_close();
}

static void a_burst_is_let_in_at_once(int backend)
{
    peer p[6];
    int i;
    stage_reset(backend, RAW);
    st.o.accept_rate = 2;
    st.o.accept_burst = 5;
    stage_open();
    for (i = 0; i < 5; i++)
        CHECK(comes_in(&p[i]));
    is_refused(&p[5]);
    time_passes(500);
    CHECK(comes_in(&p[5]));
    for (i = 0; i < 6; i++)
        peer_end(&p[i]);
    stage_close();
}

static void a_burst_that_is_off_has_no_limit(int backend)
{
    int i;
    peer p[8];
    stage_reset(backend, RAW);
    st.o.accept_rate = 1;
    st.o.accept_burst = RT_OFF;
    stage_open();
    for (i = 0; i < 8; i++)
        CHECK(comes_in(&p[i]));
    for (i = 0; i < 8; i++)
        peer_end(&p[i]);
    stage_close();
}

/* The door is open by `rate` a second, and closed already. */
static void closed_door(int backend, int kind)
{
    peer p;
    stage_reset(backend, kind);
    st.o.accept_rate = 1;
    stage_open();
    CHECK(comes_in(&p));
    peer_end(&p);
    peer_quiet(st.loop);
}

static void a_request_that_drips_is_refused_at_its_end(int backend)
{
    uint8_t out[512];
    size_t i, n;
    peer p;
    closed_door(backend, WS);
    n = greeting(out) - 11;
    CHECK(stage_connect(&p));
    for (i = 0; i < n; i++) {
        CHECK(peer_silent(&p));
        peer_put(&p, out + i, 1);
    }
    CHECK(refused_ms(&p) >= 1000);
    peer_end(&p);
    stage_close();
}

static void what_looks_like_the_end_of_a_head_is_none(int backend)
{
    peer p;
    closed_door(backend, WS);
    CHECK(stage_connect(&p));
    peer_say(&p, "GET / HTTP/1.1\r\nA: b\r\r\nC: d\r\n");
    CHECK(peer_silent(&p));
    peer_say(&p, "\r\r\n");
    CHECK(peer_silent(&p));
    peer_say(&p, "\r\n");
    CHECK(refused_ms(&p) >= 1000);
    peer_end(&p);
    stage_close();
}

/* A connection that was closed with something unread would be reset, and the
   answer with it. */
static void who_says_more_can_still_read_the_answer(int backend)
{
    static const char body[20000];
    peer p, q;
    closed_door(backend, WS);
    CHECK(stage_connect(&p));
    peer_say(&p, "POST / HTTP/1.1\r\nContent-Length: 20000\r\n");
    peer_quiet(st.loop);
    peer_say(&p, "Goes: on\r\n\r\n");
    peer_quiet(st.loop);
    peer_put(&p, body, sizeof body);
    peer_quiet(st.loop);
    CHECK(send(p.fd, body, 1, MSG_NOSIGNAL) == 1); /* no reset has come */
    CHECK(refused_ms(&p) >= 1000);
    CHECK(stage_connect(&q));
    peer_ask(&q, "/", "");
    peer_text(&q, "already a frame");
    CHECK(refused_ms(&q) >= 1000);
    EQUAL(p.gone, PEER_EOF);
    EQUAL(q.gone, PEER_EOF);
    peer_end(&p);
    peer_end(&q);
    stage_close();
}

static void a_head_without_an_end_is_not_read_for_ever(int backend)
{
    static char head[10000];
    peer p;
    closed_door(backend, WS);
    memset(head, 'x', sizeof head);
    CHECK(stage_connect(&p));
    peer_put(&p, head, sizeof head);
    CHECK(peer_ended(&p));
    EQUAL(p.len, 0);
    peer_end(&p);
    stage_close();
}

static void who_is_refused_and_silent_is_gone_by_the_deadline(int backend)
{
    peer p, q;
    closed_door(backend, WS);
    CHECK(stage_connect(&p));
    peer_quiet(st.loop);
    time_passes(3000); /* the second has come 3 s later */
    st.o.accept_rate = 1;
    CHECK(comes_in(&q));
    peer_end(&q);
    CHECK(stage_connect(&q));
    peer_quiet(st.loop);
    time_passes(1999);
    CHECK(peer_silent(&p));
    time_passes(1);
    CHECK(peer_ended(&p));
    CHECK(peer_silent(&q));
    time_passes(3000);
    CHECK(peer_ended(&q));
    peer_end(&p);
    peer_end(&q);
    stage_close();
}

static void who_goes_on_talking_is_gone_by_the_deadline(int backend)
{
    int open_now;
    peer p;
    closed_door(backend, WS);
    CHECK(stage_connect(&p));
    peer_say(&p, "POST / HTTP/1.1\r\n\r\n");
    EQUAL(peer_status(&p), 503);
    peer_say(&p, "more");
    peer_quiet(st.loop);
    open_now = descriptors(1024);
    time_passes(4999);
    peer_say(&p, "more");
    peer_quiet(st.loop);
    EQUAL(descriptors(1024), open_now);
    time_passes(1);
    EQUAL(descriptors(1024), open_now - 1);
    peer_end(&p);
    stage_close();
}

/* ---- a flood of those who are refused ----------------------------------- */

static void refused_ones_push_no_handshake_out(int backend)
{
    peer honest[2], p[10];
    int i;
    stage_reset(backend, WS);
    st.o.accept_rate = 2;
    st.o.max_handshakes = 2;
    stage_open();
    for (i = 0; i < 2; i++)
        CHECK(stage_connect(&honest[i]));
    peer_quiet(st.loop);
    EQUAL(st.loop->shake_count, 2);
    for (i = 0; i < 10; i++) {
        CHECK(stage_connect(&p[i]));
        peer_quiet(st.loop);
    }
    EQUAL(refused_by(RT__REFUSED_HANDSHAKES), 0);
    EQUAL(refused_by(RT__REFUSED_RATE), 10);
    for (i = 0; i < 2; i++)
        CHECK(peer_upgrade(&honest[i], "/"));
    for (i = 0; i < 8; i++) /* only so many of them may wait, too */
        CHECK(refused_ms(&p[i]) >= 1000);
    for (i = 8; i < 10; i++) {
        peer_ask(&p[i], "/", "");
        CHECK(refused_ms(&p[i]) >= 1000);
    }
    for (i = 0; i < 10; i++)
        peer_end(&p[i]);
    for (i = 0; i < 2; i++)
        peer_end(&honest[i]);
    stage_close();
}

enum { FLOOD = 400, WAITING = 64, REFUSED_BYTES = 96 };

/* Beside what the loop has anyway, one that waits costs a struct, and all that
   ever come a table of descriptors. */
static void a_flood_of_refused_ones_is_bounded(int backend)
{
    static peer p[FLOOD];
    size_t before, most = 0;
    int i, answered = 0;
    stage_reset(backend, WS);
    st.o.accept_rate = 1;
    st.o.max_handshakes = WAITING;
    stage_open();
    CHECK(comes_in(&p[0]));
    peer_end(&p[0]);
    peer_quiet(st.loop);
    before = peer_heap - st.loop->by_fd_cap * sizeof *st.loop->by_fd;
    for (i = 0; i < FLOOD; i++) {
        size_t now;
        CHECK(stage_connect(&p[i]));
        rt_poll(st.loop, 0);
        now = peer_heap - st.loop->by_fd_cap * sizeof *st.loop->by_fd;
        most = now > most ? now : most;
    }
    CHECK(most <= before + WAITING * REFUSED_BYTES);
    CHECK(most >= before + WAITING * sizeof(rt__source));
    for (i = 0; i < FLOOD; i++) {
        if (i >= FLOOD - WAITING) /* the others have their answer */
            peer_ask(&p[i], "/", "");
        answered += peer_status(&p[i]) == 503;
        peer_end(&p[i]);
    }
    EQUAL(answered, FLOOD);
    peer_quiet(st.loop);
    EQUAL(peer_heap - st.loop->by_fd_cap * sizeof *st.loop->by_fd, before);
    stage_close();
}

enum { SAMPLE = 1000 };

/* 1,000 are refused at once by a listener that lets 100 in a second: in 10 s
   they can be in, and so they are sent away for up to that time, evenly. */
static void the_times_that_are_told_spread_a_storm(int backend)
{
    int told[64] = {0}, second, i, heap;
    peer p;
    stage_reset(backend, WS);
    st.o.accept_rate = 100;
    st.o.accept_burst = 1;
    stage_open();
    CHECK(comes_in(&p));
    peer_end(&p);
    peer_quiet(st.loop);
    heap = (int)peer_heap;
    for (i = 0; i < SAMPLE; i++) {
        CHECK(stage_connect(&p));
        peer_ask(&p, "/", "");
        EQUAL(peer_status(&p), 503);
        second = (int)number_behind(p.head, "\r\nRetry-After: ");
        CHECK(second >= 1 && second <= 60);
        told[second < 1 || second > 60 ? 0 : second]++;
        peer_end(&p);
    }
    peer_quiet(st.loop);
    EQUAL(peer_heap, heap);
    for (second = 2; second <= 8; second++) /* not more than may come in */
        CHECK(told[second] >= 55 && told[second] <= 145);
    for (second = 15; second <= 60; second++)
        EQUAL(told[second], 0);
    CHECK(told[11] + told[12] + told[13] > 20);
    stage_close();
}

/* Where no descriptor is left, those who wait to be refused give theirs. */
static void refused_ones_give_their_descriptors(int backend)
{
    struct rlimit was, now;
    peer p[3];
    int i;
    closed_door(backend, WS);
    for (i = 0; i < 3; i++)
        CHECK(stage_connect(&p[i]));
    for (i = 0; i < 2; i++)
        peer_quiet(st.loop);
    peer_end(&p[2]);
    peer_quiet(st.loop);
    CHECK(stage_connect(&p[2]));
    getrlimit(RLIMIT_NOFILE, &was);
    now = was;
    now.rlim_cur = (rlim_t)dup(0); /* the lowest that is free */
    close((int)now.rlim_cur);
    setrlimit(RLIMIT_NOFILE, &now);
    peer_quiet(st.loop);
    setrlimit(RLIMIT_NOFILE, &was);
    CHECK(refused_ms(&p[0]) >= 1000);
    CHECK(peer_silent(&p[1]));
    EQUAL(refused_by(RT__REFUSED_DESCRIPTORS), 0);
    peer_ask(&p[2], "/", "");
    CHECK(refused_ms(&p[2]) >= 1000);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    stage_close();
}

static void those_who_wait_to_be_refused_end_with_the_listener(int backend)
{
    int i, before;
    peer p[3];
    closed_door(backend, WS);
    before = descriptors(1024);
    for (i = 0; i < 3; i++)
        CHECK(stage_connect(&p[i]));
    peer_quiet(st.loop);
    EQUAL(descriptors(1024), before + 6);
    EQUAL(rt_unlisten(st.loop, st.l), 0);
    for (i = 0; i < 3; i++)
        CHECK(peer_ended(&p[i]));
    EQUAL(descriptors(1024), before + 3 - 1);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    stage_close();
}

static void rate(void)
{
    RUN_KINDS(above_the_rate_one_is_told_when_to_come_back);
    RUN_EACH(a_burst_is_let_in_at_once);
    RUN_EACH(a_burst_that_is_off_has_no_limit);
    RUN_EACH(a_request_that_drips_is_refused_at_its_end);
    RUN_EACH(what_looks_like_the_end_of_a_head_is_none);
    RUN_EACH(who_says_more_can_still_read_the_answer);
    RUN_EACH(a_head_without_an_end_is_not_read_for_ever);
    RUN_EACH(who_is_refused_and_silent_is_gone_by_the_deadline);
    RUN_EACH(who_goes_on_talking_is_gone_by_the_deadline);
    RUN_EACH(refused_ones_push_no_handshake_out);
    RUN_EACH(a_flood_of_refused_ones_is_bounded);
    RUN_EACH(the_times_that_are_told_spread_a_storm);
    RUN_EACH(refused_ones_give_their_descriptors);
    RUN_EACH(those_who_wait_to_be_refused_end_with_the_listener);
}

/* ---- other loads -------------------------------------------------------- */

static void too_many_sessions_are_told_when_to_come_back(int backend, int kind)
{
    peer a, p;
    int i;
    stage_reset(backend, kind);
    st.loop_opts.max_sessions = 1;
    stage_open();
    CHECK(comes_in(&a));
    for (i = 0; i < 10; i++)
        is_refused(&p);
    EQUAL(refused_by(RT__REFUSED_SESSIONS), 10);
    EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 10);
    EQUAL(st.opens, 1);
    peer_end(&a);
    peer_quiet(st.loop);
    if (kind == RTNET1)
        time_passes(2000); /* it is away, then gone */
    peer_quiet(st.loop);
    CHECK(comes_in(&p));
    peer_end(&p);
    stage_close();
}

/* The hint is drawn, not fixed: 20 times the same one would be a miracle. */
static void a_greeting_is_put_off_by_a_drawn_time(int backend)
{
    peer a, p;
    int i;
    long first = 0, ms = 0, same = 0;
    uint8_t hello[5] = {0, 0, 0, 1, 'h'};
    stage_reset(backend, RTNET1);
    st.loop_opts.max_sessions = 1;
    stage_open();
    CHECK(comes_in(&a));
    for (i = 0; i < 20; i++) {
        CHECK(stage_connect(&p));
        peer_put(&p, hello, 5);
        ms = refused_ms(&p);
        CHECK(ms >= 1 && ms <= 1100);
        first = i ? first : ms;
        same += ms == first;
        peer_end(&p);
    }
    CHECK(same < 5);
    peer_end(&a);
    stage_close();
}

static void a_request_without_memory_is_told_when_to_come_back(int backend)
{
    int n, told = 0, status = 0;
    for (n = 1; n < 60 && status != 101; n++) {
        peer p;
        stage_reset(backend, WS);
        stage_open();
        CHECK(stage_connect(&p));
        peer_quiet(st.loop);
        st.fail_in = n;
        peer_ask(&p, "/", "");
        status = peer_status(&p);
        st.fail_in = 0;
        if (status == 503) {
            told++;
            CHECK(number_behind(p.head, "\r\nRetry-After: ") >= 1);
            EQUAL(refused_by(RT__REFUSED_MEMORY), 1);
            EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 1);
        }
        CHECK(status == 503 || status == -1 || status == 101);
        peer_end(&p);
        stage_close();
    }
    EQUAL(status, 101);
    CHECK(told >= 2);
}

/* Not even a connection can be made: one whose request is there is told. */
static void a_connection_without_memory_is_told_when_to_come_back(int backend)
{
    int n;
    for (n = 1; n <= 3; n++) {
        peer p;
        stage_reset(backend, WS);
        stage_open();
        CHECK(stage_connect(&p));
        peer_ask(&p, "/", "");
        st.fail_in = n;
        rt_poll(st.loop, 0);
        if (st.fail_in == 0 && refused_by(RT__REFUSED_MEMORY))
            CHECK(refused_ms(&p) >= 1000);
        else
            CHECK(n > 1);
        st.fail_in = 0;
        peer_end(&p);
        stage_close();
    }
}

static void too_many_handshakes_push_the_oldest_out(int backend)
{
    peer p[4];
    int i;
    stage_reset(backend, WS);
    st.o.max_handshakes = 3;
    stage_open();
    for (i = 0; i < 4; i++) {
        CHECK(stage_connect(&p[i]));
        peer_quiet(st.loop);
    }
    CHECK(peer_ended(&p[0]));
    EQUAL(refused_by(RT__REFUSED_HANDSHAKES), 1);
    EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 1);
    for (i = 1; i < 4; i++)
        CHECK(peer_upgrade(&p[i], "/"));
    for (i = 0; i < 4; i++)
        peer_end(&p[i]);
    stage_close();
}

/* The one that has waited longest of all came in through another door. */
static void a_listener_pushes_out_its_own_handshakes_alone(int backend)
{
    rt_listen_opts o = {.max_handshakes = 1};
    peer elsewhere, old, young;
    int port;
    stage_reset(backend, WS);
    stage_open();
    port =
        rt_listener_port(st.loop, rt_listen(st.loop, "ws://127.0.0.1:0", &o));
    CHECK(stage_connect(&elsewhere));
    peer_quiet(st.loop);
    CHECK(peer_tcp(&old, st.loop, port));
    peer_quiet(st.loop);
    EQUAL(refused_by(RT__REFUSED_HANDSHAKES), 0);
    CHECK(peer_tcp(&young, st.loop, port));
    CHECK(peer_ended(&old));
    EQUAL(refused_by(RT__REFUSED_HANDSHAKES), 1);
    CHECK(peer_upgrade(&young, "/"));
    CHECK(peer_upgrade(&elsewhere, "/"));
    peer_end(&elsewhere);
    peer_end(&old);
    peer_end(&young);
    stage_close();
}

static int status_of(const char *request)
{
    peer p;
    int status;
    CHECK(stage_connect(&p));
    peer_say(&p, request);
    status = peer_status(&p);
    CHECK(!strstr(p.head, "Retry-After"));
    peer_end(&p);
    return status;
}

static void refusals_are_counted_by_their_cause(int backend)
{
    peer p;
    stage_reset(backend, WS);
    stage_open();
    EQUAL(status_of("GET / HTTP/9.1\r\n\r\n"), 505);
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
    EQUAL(refused_by(RT__REFUSED_REQUEST), 2);
    st.answer = 503; /* the host's own: no time is told */
    EQUAL(status_of("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), 503);
    EQUAL(refused_by(RT__REFUSED_HOST), 1);
    CHECK(stage_connect(&p));
    peer_ask(&p, "/", "Origin: http://elsewhere\r\n");
    EQUAL(peer_status(&p), 403);
    EQUAL(refused_by(RT__REFUSED_ORIGIN), 1);
    EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 4);
    peer_end(&p);
    stage_close();
}

static void loads(void)
{
    RUN_KINDS(too_many_sessions_are_told_when_to_come_back);
    RUN_EACH(a_greeting_is_put_off_by_a_drawn_time);
    RUN_EACH(a_request_without_memory_is_told_when_to_come_back);
    RUN_EACH(a_connection_without_memory_is_told_when_to_come_back);
    RUN_EACH(too_many_handshakes_push_the_oldest_out);
    RUN_EACH(a_listener_pushes_out_its_own_handshakes_alone);
    RUN_EACH(refusals_are_counted_by_their_cause);
}

/* ---- so many of one address --------------------------------------------- */

static void one_address_too_many_is_refused(int backend, int kind)
{
    peer a, b, c;
    stage_reset(backend, kind);
    st.o.max_per_address = 2;
    stage_open();
    CHECK(comes_in(&a));
    CHECK(comes_in(&b));
    st.requests = 0;
    is_refused(&c);
    is_refused(&c);
    EQUAL(st.requests, 0);
    EQUAL(st.opens, 2);
    EQUAL(refused_by(RT__REFUSED_ADDRESS), 2);
    peer_end(&a);
    peer_quiet(st.loop);
    CHECK(comes_in(&a)); /* one went: another may come */
    is_refused(&c);
    peer_end(&a);
    peer_end(&b);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 0);
    stage_close();
}

static void handshakes_count_for_their_address(int backend)
{
    peer a, b;
    stage_reset(backend, WS);
    st.o.max_per_address = 1;
    stage_open();
    CHECK(stage_connect(&a));
    peer_quiet(st.loop);
    is_refused(&b);
    time_passes(5000); /* it never said anything */
    CHECK(peer_ended(&a));
    CHECK(comes_in(&b));
    peer_end(&a);
    peer_end(&b);
    stage_close();
}

static void each_listener_counts_for_itself(int backend)
{
    rt_listener second;
    peer a, b;
    int first;
    stage_reset(backend, WS);
    st.o.max_per_address = 1;
    stage_open();
    first = st.port;
    second = stage_listen();
    CHECK(comes_in(&a));
    st.port = rt_listener_port(st.loop, second);
    CHECK(comes_in(&b));
    st.port = first;
    peer_end(&b);
    is_refused(&b);
    peer_end(&a);
    stage_close();
}

static void local_peers_are_not_counted(int backend, int kind)
{
    peer p[3];
    int i;
    stage_reset(backend, kind);
    peer_path(st.local);
    st.o.max_per_address = 1;
    stage_open();
    for (i = 0; i < 3; i++)
        CHECK(comes_in(&p[i]));
    EQUAL(st.loop->sketch->live, 0);
    if (kind < LENGTH)
        CHECK(strcmp(st.from, "") == 0);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    stage_close();
}

static void a_dialled_session_is_not_counted(int backend)
{
    rt_dial_opts o;
    char url[64];
    stage_reset(backend, LENGTH);
    st.o.max_per_address = 1;
    stage_open();
    memset(&o, 0, sizeof o);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", st.port);
    CHECK(rt_dial(st.loop, url, &o).id != 0);
    CHECK(peer_until(st.loop, &st.opens, 1));
    EQUAL(st.loop->sketch->live, 1);
    stage_close();
}

/* A line counts, and not the session: one that is away is nobody's, and one
   that took over is counted by its own line alone. */
static void one_who_comes_back_counts_by_its_line(int backend)
{
    uint8_t h[64];
    peer a, b, c;
    char *text = (char *)h + 4;
    stage_reset(backend, RTNET1);
    st.o.max_per_address = 2;
    stage_open();
    CHECK(comes_in(&a));
    peer_put(&a, "\0\0\0\2a0", 6);
    peer_fill(&a, 28);
    memset(h, 0, 4);
    h[3] = (uint8_t)snprintf(text, 60, "h%.22s 0 1", (char *)a.in + 5);
    CHECK(stage_connect(&b));
    peer_put(&b, h, 4 + h[3]);
    CHECK(peer_fill(&b, 5) && b.in[4] == 'w');
    EQUAL(st.loop->session_count, 1);
    peer_end(&a);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 1);
    CHECK(comes_in(&a));
    is_refused(&c);
    peer_end(&b);
    peer_quiet(st.loop);
    EQUAL(st.loop->session_count, 2);
    EQUAL(st.loop->sketch->live, 1);
    CHECK(comes_in(&b));
    is_refused(&c);
    peer_end(&a);
    peer_end(&b);
    stage_close();
}

static void one_who_is_adopted_counts_by_its_line(int backend)
{
    char token[23];
    rt_session first;
    peer a, b, c;
    stage_reset(backend, LENGTH);
    st.o.max_per_address = 2;
    stage_open();
    CHECK(comes_in(&a));
    first = st.last;
    EQUAL(rt_keep(st.loop, first, 60000, token), 0);
    CHECK(comes_in(&b));
    EQUAL(rt_adopt(st.loop, first, st.last, 0), 0);
    peer_quiet(st.loop);
    EQUAL(st.loop->session_count, 1);
    peer_end(&a);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 1);
    CHECK(comes_in(&a));
    is_refused(&c);
    EQUAL(rt_close(st.loop, first, 0, NULL), 0);
    peer_end(&b);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 1);
    peer_end(&a);
    stage_close();
}

static void the_table_is_made_for_those_who_need_it(int backend)
{
    stage_reset(backend, WS);
    stage_open();
    CHECK(st.loop->sketch == NULL);
    st.o.max_per_address = 65535; /* a counter ends there */
    EQUAL(stage_listen().id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_EINVAL);
    CHECK(st.loop->sketch == NULL);
    st.o.max_per_address = 65534;
    st.fail_in = 2;
    EQUAL(stage_listen().id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ENOMEM);
    st.fail_in = 0;
    CHECK(stage_listen().id != 0);
    CHECK(stage_listen().id != 0);
    CHECK(st.loop->sketch != NULL);
    stage_close();
}

/* What tells an event from one of an earlier owner of the descriptor has 24
   bits; 0 is as good as any. */
static void descriptors_have_many_owners(int backend)
{
    peer p[6];
    int i;
    stage_reset(backend, WS);
    stage_open();
    st.loop->next_gen = UINT32_MAX - 2;
    for (i = 0; i < 6; i++) {
        CHECK(comes_in(&p[i]));
        if (i % 2)
            peer_end(&p[i]);
        peer_quiet(st.loop);
    }
    EQUAL(st.loop->conn_count, 3);
    for (i = 0; i < 6; i += 2)
        peer_end(&p[i]);
    peer_quiet(st.loop);
    EQUAL(st.loop->conn_count, 0);
    stage_close();
}

static void addresses(void)
{
    RUN_KINDS(one_address_too_many_is_refused);
    RUN_EACH(handshakes_count_for_their_address);
    RUN_EACH(each_listener_counts_for_itself);
    RUN_KINDS(local_peers_are_not_counted);
    RUN_EACH(a_dialled_session_is_not_counted);
    RUN_EACH(one_who_comes_back_counts_by_its_line);
    RUN_EACH(one_who_is_adopted_counts_by_its_line);
    RUN_EACH(the_table_is_made_for_those_who_need_it);
    RUN_EACH(descriptors_have_many_owners);
}

/* ---- the PROXY protocol: listeners -------------------------------------- */

static void stage_proxied(int backend, int kind, int local)
{
    stage_reset(backend, kind);
    if (local)
        peer_path(st.local);
    st.o.proxies = local ? "unix" : "127.0.0.0/8";
    st.o.proxy_protocol = 1;
    st.o.max_per_address = 1;
    stage_open();
}

#define VIA "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"

/* Connects and says a header and a greeting, in pieces of that size. */
static void comes_by(peer *p, const void *head, size_t len, size_t piece)
{
    uint8_t out[1200];
    size_t n, i;
    memcpy(out, head, len);
    n = len + greeting(out + len);
    comes_now(p);
    for (i = 0; i < n; i += piece) {
        peer_put(p, out + i, piece < n - i ? piece : n - i);
        if (piece == 1)
            rt_poll(st.loop, 0);
    }
}

static void is_let_in_by(const void *head, size_t len, size_t piece,
                         const char *from, uint32_t counted)
{
    peer p, q;
    comes_by(&p, head, len, piece);
    CHECK(let_in(&p));
    if (st.kind <= WS_CODEC)
        CHECK(strcmp(st.from, from) == 0);
    EQUAL(st.loop->sketch->live, counted);
    if (counted) { /* a second one of that address */
        size_t n = len;
        uint8_t out[1200];
        long ms;
        memcpy(out, head, len);
        n += greeting(out + len);
        if (st.kind <= WS_CODEC)
            n -= 11 + (size_t)(st.kind == WS_CODEC);
        CHECK(stage_connect(&q));
        peer_put(&q, out, n);
        ms = refused_ms(&q);
        CHECK(st.kind == LENGTH || st.kind == RAW ? ms == 0 : ms >= 1);
        peer_end(&q);
    }
    peer_end(&p);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 0);
}

static void each_header(int backend, int kind, int local)
{
    uint8_t out[600];
    size_t piece, n;
    for (piece = 1; piece < 2000; piece += 1998) {
        stage_proxied(backend, kind, local);
        is_let_in_by(VIA, strlen(VIA), piece, "203.0.113.9", 1);
        n = binary(out, 0x21, 0x11, 12);
        is_let_in_by(out, n, piece, "1.2.3.4", 1);
        n = binary(out, 0x21, 0x21, 520);
        is_let_in_by(out, n, piece, "102:304:506:708:90a:b0c:d0e:f10", 1);
        n = binary(out, 0x20, 0x00, 0); /* the proxy itself */
        is_let_in_by(out, n, piece, local ? "" : "127.0.0.1",
                     local || kind < LENGTH ? !local : 1);
        is_let_in_by("PROXY UNKNOWN\r\n", 15, piece, local ? "" : "127.0.0.1",
                     !local);
        n = binary(out, 0x21, 0x31, 216);
        is_let_in_by(out, n, piece, local ? "" : "127.0.0.1", !local);
        EQUAL(refused_by(RT__REFUSED_PROXY), 0);
        stage_close();
    }
}

static void a_trusted_proxy_says_for_whom_it_speaks(int backend, int kind)
{
    each_header(backend, kind, 0);
}

static void so_it_does_on_a_local_socket(int backend, int kind)
{
    each_header(backend, kind, 1);
}

static void no_header(int backend, int kind, int local)
{
    uint8_t out[512];
    size_t n;
    peer p;
    stage_proxied(backend, kind, local);
    n = greeting(out);
    CHECK(stage_connect(&p));
    peer_put(&p, out, kind == LENGTH || kind == RTNET1 ? n : 1);
    CHECK(peer_ended(&p));
    EQUAL(p.len, 0);
    peer_end(&p);
    CHECK(stage_connect(&p));
    peer_say(&p, "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n");
    CHECK(peer_ended(&p));
    EQUAL(p.len, 0);
    EQUAL(refused_by(RT__REFUSED_PROXY), 2);
    EQUAL(peer_metric(st.loop, "rtnet_refused_total"), 2);
    EQUAL(st.opens + st.requests, 0);
    EQUAL(st.loop->conn_count, 0);
    peer_end(&p);
    stage_close();
}

static void who_has_no_header_is_closed_at_once(int backend, int kind)
{
    no_header(backend, kind, 0);
    no_header(backend, kind, 1);
}

/* The deadline of the handshake counts from the accept, not from the header. */
static void late_header(int backend, int kind, int local)
{
    peer p, q, r;
    stage_proxied(backend, kind, local);
    CHECK(stage_connect(&p)); /* says nothing */
    CHECK(stage_connect(&q)); /* stops within the header */
    CHECK(stage_connect(&r)); /* and this one behind it */
    peer_say(&q, "PROXY TCP4 1.2");
    peer_quiet(st.loop);
    EQUAL(st.loop->shake_count, 3);
    time_passes(4000);
    peer_say(&r, VIA);
    peer_quiet(st.loop);
    time_passes(999);
    CHECK(peer_silent(&p));
    CHECK(peer_silent(&q));
    time_passes(1);
    CHECK(peer_ended(&p));
    CHECK(peer_ended(&q));
    EQUAL(refused_by(RT__REFUSED_PROXY), 2);
    if (kind < LENGTH || kind == RTNET1)
        CHECK(peer_ended(&r));
    else
        CHECK(peer_silent(&r)); /* it is a session since then */
    peer_end(&p);
    peer_end(&q);
    peer_end(&r);
    stage_close();
}

static void the_header_has_the_time_of_a_handshake(int backend, int kind)
{
    late_header(backend, kind, 0);
    late_header(backend, kind, 1);
}

static void those_without_a_header_yet_are_handshakes(int backend)
{
    peer p[3];
    int i;
    stage_reset(backend, RAW);
    st.o.proxies = "127.0.0.1";
    st.o.proxy_protocol = 1;
    st.o.max_handshakes = 2;
    stage_open();
    for (i = 0; i < 3; i++) {
        CHECK(stage_connect(&p[i]));
        peer_quiet(st.loop);
    }
    CHECK(peer_ended(&p[0]));
    st.opens_before = st.opens;
    peer_say(&p[1], VIA "hello");
    CHECK(let_in(&p[1]));
    EQUAL(st.loop->shake_count, 1);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    stage_close();
}

static void half_header(int backend, int kind, int local)
{
    peer p;
    stage_proxied(backend, kind, local);
    CHECK(stage_connect(&p));
    peer_say(&p, "PROXY TCP4 1.2");
    peer_quiet(st.loop);
    peer_end(&p);
    peer_quiet(st.loop);
    EQUAL(st.loop->conn_count, 0);
    EQUAL(refused_by(RT__REFUSED_PROXY), 0); /* a look whether we are there */
    stage_close();
}

static void a_half_header_and_a_hang_up_leave_nothing(int backend, int kind)
{
    half_header(backend, kind, 0);
    half_header(backend, kind, 1);
}

static void from_a_stranger_a_header_is_garbage(int backend)
{
    peer p;
    stage_reset(backend, WS);
    st.o.proxies = "10.0.0.0/8, unix";
    st.o.proxy_protocol = 1;
    st.o.max_per_address = 1;
    stage_open();
    CHECK(stage_connect(&p));
    peer_say(&p, VIA);
    peer_ask(&p, "/", "");
    EQUAL(peer_status(&p), 400);
    peer_end(&p);
    peer_quiet(st.loop);
    CHECK(comes_in(&p)); /* without one it is a client as any other */
    CHECK(strcmp(st.from, "127.0.0.1") == 0);
    EQUAL(st.loop->sketch->live, 1);
    peer_end(&p);
    stage_close();
}

static void without_the_option_a_header_is_garbage(int backend)
{
    peer p;
    stage_reset(backend, WS);
    st.o.proxies = "127.0.0.1";
    stage_open();
    CHECK(stage_connect(&p));
    peer_say(&p, VIA);
    peer_ask(&p, "/", "");
    EQUAL(peer_status(&p), 400);
    peer_end(&p);
    stage_close();
}

/* 1: let in; 0: refused for its address. */
static int via(peer *p, const char *address)
{
    char head[128];
    int v6 = strchr(address, ':') != NULL, before = st.opens;
    uint64_t refusals = refused_by(RT__REFUSED_ADDRESS);
    int n = snprintf(head, sizeof head, "PROXY %s %s %s 1 2\r\n",
                     v6 ? "TCP6" : "TCP4", address, v6 ? "::1" : "1.1.1.1");
    comes_by(p, head, (size_t)n, 2000);
    peer_quiet(st.loop);
    EQUAL(st.opens - before + (int)(refused_by(RT__REFUSED_ADDRESS) - refusals),
          1);
    return st.opens > before;
}

/* A whole /64 is one customer, so is IPv4 however it is written. */
static void an_ipv6_network_of_64_bits_is_one_address(int backend)
{
    static const struct {
        const char *address;
        int in;
    } table[] = {
        {"2001:db8:1:2:3::4", 1},   {"2001:db8:1:2:ffff::", 0},
        {"2001:db8:1:3::", 1},      {"2001:db8:1:3::1", 0},
        {"198.51.100.7", 1},        {"::ffff:198.51.100.7", 0},
        {"::ffff:198.51.100.8", 1}, {"198.51.100.8", 0},
        {"198.51.100.9", 1},        {"c633:6407::", 1},
    };
    enum { N = sizeof table / sizeof *table };
    peer p[N];
    int i;
    stage_proxied(backend, RAW, 0);
    for (i = 0; i < N; i++)
        EQUAL(via(&p[i], table[i].address), table[i].in);
    for (i = 0; i < N; i++)
        peer_end(&p[i]);
    stage_close();
}

static void any_allocation_may_fail_while_a_header_is_read(int backend)
{
    int n, opened = 0;
    for (n = 1; n < 40 && !opened; n++) {
        size_t i;
        peer p;
        stage_proxied(backend, RAW, 0);
        st.fail_in = n;
        CHECK(stage_connect(&p));
        for (i = 0; i < strlen(VIA); i++) {
            peer_put(&p, &VIA[i], 1);
            rt_poll(st.loop, 0);
        }
        opened = st.opens && st.fail_in > 0;
        st.fail_in = 0;
        if (!st.opens)
            EQUAL(refused_by(RT__REFUSED_MEMORY), 1);
        peer_end(&p);
        stage_close();
    }
    CHECK(opened && n > 4);
}

/* Those who come too fast are not even asked for whom they speak. */
static void a_proxy_can_read_that_it_is_refused(int backend, int kind)
{
    uint8_t out[1200], *heads[2] = {(uint8_t *)VIA, out + 600};
    size_t i, n, sizes[2] = {sizeof VIA - 1, 0};
    peer p;
    stage_reset(backend, kind);
    st.o.proxies = "127.0.0.1";
    st.o.proxy_protocol = 1;
    st.o.accept_rate = 1;
    stage_open();
    sizes[1] = binary(out + 600, 0x21, 0x11, 12);
    comes_by(&p, VIA, sizeof VIA - 1, 2000);
    CHECK(let_in(&p));
    peer_end(&p);
    for (i = 0; i < 2; i++) {
        long ms;
        memcpy(out, heads[i], sizes[i]);
        n = sizes[i] + greeting(out + sizes[i]);
        CHECK(stage_connect(&p));
        peer_put(&p, out, n);
        ms = refused_ms(&p);
        CHECK(kind == LENGTH || kind == RAW ? ms == 0 : ms >= 1);
        peer_end(&p);
    }
    EQUAL(refused_by(RT__REFUSED_RATE), 2);
    stage_close();
}

static void a_header_that_comes_after_its_listener_is_gone(int backend)
{
    peer p, q;
    stage_proxied(backend, RAW, 0);
    comes_now(&p);
    CHECK(stage_connect(&q));
    peer_quiet(st.loop);
    EQUAL(rt_unlisten(st.loop, st.l), 0);
    peer_say(&p, VIA "hello");
    CHECK(let_in(&p)); /* what came in through it lives on */
    peer_say(&q, VIA "hello");
    CHECK(peer_ended(&q));
    EQUAL(refused_by(RT__REFUSED_ADDRESS), 1);
    EQUAL(st.opens, 1);
    peer_end(&p);
    peer_end(&q);
    stage_close();
}

static int drains;

static void on_drained(rt_loop *loop)
{
    (void)loop;
    drains++;
}

static void a_header_that_comes_in_a_shutdown_is_served(int backend, int kind)
{
    uint8_t out[512];
    peer p;
    stage_reset(backend, kind);
    st.o.proxies = "127.0.0.0/8";
    st.o.proxy_protocol = 1;
    st.loop_opts.drained = on_drained;
    drains = 0;
    stage_open();
    comes_now(&p);
    peer_quiet(st.loop);
    EQUAL(rt_shutdown(st.loop, 1000), 0);
    peer_quiet(st.loop);
    EQUAL(drains, 0);
    peer_say(&p, VIA);
    peer_put(&p, out, greeting(out));
    CHECK(kind == RTNET1 || let_in(&p)); /* that one is sent away with 1012 */
    peer_quiet(st.loop);
    EQUAL(st.opens, kind != RTNET1);
    EQUAL(refused_by(RT__REFUSED_SESSIONS), kind == RTNET1);
    EQUAL(drains, 0);
    time_passes(1001);
    peer_quiet(st.loop);
    peer_end(&p);
    peer_quiet(st.loop);
    EQUAL(drains, 1);
    stage_close();
}

static void the_end_of_a_shutdown_awaits_no_header(int backend, int kind)
{
    peer p, q;
    stage_reset(backend, kind);
    st.o.proxies = "127.0.0.0/8";
    st.o.proxy_protocol = 1;
    st.o.handshake_ms = 60000;
    st.loop_opts.drained = on_drained;
    drains = 0;
    stage_open();
    comes_now(&p);
    CHECK(stage_connect(&q));
    peer_say(&q, "PROXY TC");
    peer_quiet(st.loop);
    EQUAL(rt_shutdown(st.loop, 1000), 0);
    peer_quiet(st.loop);
    time_passes(1001);
    peer_quiet(st.loop);
    EQUAL(drains, 1);
    CHECK(peer_ended(&p));
    CHECK(peer_ended(&q));
    peer_end(&p);
    peer_end(&q);
    stage_close();
}

static void proxy_protocol(void)
{
    RUN_KINDS(a_header_that_comes_in_a_shutdown_is_served);
    RUN_KINDS(the_end_of_a_shutdown_awaits_no_header);
    RUN_KINDS(a_proxy_can_read_that_it_is_refused);
    RUN_EACH(a_header_that_comes_after_its_listener_is_gone);
    RUN_KINDS(a_trusted_proxy_says_for_whom_it_speaks);
    RUN_KINDS(so_it_does_on_a_local_socket);
    RUN_KINDS(who_has_no_header_is_closed_at_once);
    RUN_KINDS(the_header_has_the_time_of_a_handshake);
    RUN_EACH(those_without_a_header_yet_are_handshakes);
    RUN_KINDS(a_half_header_and_a_hang_up_leave_nothing);
    RUN_EACH(from_a_stranger_a_header_is_garbage);
    RUN_EACH(without_the_option_a_header_is_garbage);
    RUN_EACH(an_ipv6_network_of_64_bits_is_one_address);
    RUN_EACH(any_allocation_may_fail_while_a_header_is_read);
}

/* ---- the list of proxies ------------------------------------------------ */

static int proxies_error(const char *list, int protocol)
{
    const char *text = "";
    int error;
    rt_listener l;
    st.o.proxies = list;
    st.o.proxy_protocol = protocol;
    l = stage_listen();
    if (l.id)
        return rt_unlisten(st.loop, l);
    error = rt_error(st.loop, &text);
    CHECK(strstr(text, "prox") != NULL);
    return error;
}

static void a_list_that_cannot_be_read_is_refused(int backend)
{
    static const char *const good[] = {
        "",
        " ",
        ",",
        "unix",
        "127.0.0.1",
        "127.0.0.1,10.0.0.0/8",
        " 127.0.0.1 , 10.0.0.0/8\tfd00::/8,,unix "};
    static const char *const bad[] = {
        "localhost",   "unix:", "10.0.0.0/33", "127.0.0.1;10.0.0.1",
        "127.0.0.1,x", "*",     "10.*",        "[::1]"};
    size_t i;
    stage_reset(backend, WS);
    stage_open();
    for (i = 0; i < sizeof good / sizeof *good; i++)
        EQUAL(proxies_error(good[i], 0), 0);
    for (i = 0; i < sizeof bad / sizeof *bad; i++)
        EQUAL(proxies_error(bad[i], 0), RT_EINVAL);
    EQUAL(proxies_error("127.0.0.1", 1), 0);
    EQUAL(proxies_error("127.0.0.1", RT_OFF), 0);
    EQUAL(proxies_error(NULL, RT_OFF), 0);
    EQUAL(proxies_error(NULL, 1), RT_EINVAL); /* nobody could speak it */
    EQUAL(proxies_error(" , ", 1), RT_EINVAL);
    stage_close();
}

/* ---- X-Forwarded-For ---------------------------------------------------- */

#define XFF "X-Forwarded-For: "

static void a_chain_is_followed_as_far_as_it_is_trusted(int backend)
{
    static const struct {
        const char *proxies, *lines, *address;
    } table[] = {
        {"127.0.0.1", "", "127.0.0.1"},
        {"127.0.0.1", XFF "9.9.9.9\r\n", "9.9.9.9"},
        {"127.0.0.1", "x-forwarded-for:9.9.9.9\r\n", "9.9.9.9"},
        {"127.0.0.1", XFF "8.8.8.8, 9.9.9.9\r\n", "9.9.9.9"},
        {"127.0.0.1", XFF "8.8.8.8,9.9.9.9 \t\r\n", "9.9.9.9"},
        {"127.0.0.1,9.9.9.9", XFF "7.7.7.7, 8.8.8.8, 9.9.9.9\r\n", "8.8.8.8"},
        {"0.0.0.0/0", XFF "7.7.7.7,8.8.8.8, 9.9.9.9\r\n", "7.7.7.7"},
        {"127.0.0.1", XFF "7.7.7.7\r\n" XFF "8.8.8.8\r\n", "8.8.8.8"},
        {"127.0.0.1,8.0.0.0/8", XFF "7.7.7.7\r\nA: b\r\n" XFF "8.8.8.8\r\n",
         "7.7.7.7"},
        {"127.0.0.1,8.0.0.0/8",
         XFF "6.6.6.6, 7.7.7.7\r\n" XFF "8.8.8.8, 8.8.8.9\r\n", "7.7.7.7"},
        {"127.0.0.1", XFF "2001:DB8::1\r\n", "2001:db8::1"},
        {"127.0.0.1", XFF "::ffff:9.9.9.9\r\n", "9.9.9.9"},
        {"127.0.0.1,fd00::/8", XFF "9.9.9.9, fd00::1\r\n", "9.9.9.9"},
        {"127.0.0.1", XFF "9.9.9.9, unknown\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "9.9.9.9, _hidden\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "9.9.9.9:80\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "[::1]\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "[::1]:80\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "\"9.9.9.9\"\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "9.9.9.9,\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "\r\n", "127.0.0.1"},
        {"127.0.0.1", XFF "9.9.9.9\r\n" XFF "\r\n", "127.0.0.1"},
        {"127.0.0.1,9.9.9.9", XFF "7.7.7.7, nobody, 9.9.9.9\r\n", "9.9.9.9"},
        {"127.0.0.1,9.9.9.9", XFF "7.7.7.7\r\n" XFF "x, 9.9.9.9\r\n",
         "9.9.9.9"},
        {"127.0.0.1,9.9.9.9", XFF "7.7.7.7,,9.9.9.9\r\n", "9.9.9.9"},
        {"10.0.0.0/8", XFF "9.9.9.9\r\n", "127.0.0.1"}, /* a stranger */
        {"unix", XFF "9.9.9.9\r\n", "127.0.0.1"},
        {NULL, XFF "9.9.9.9\r\n", "127.0.0.1"},
        {"127.0.0.1", "X-Forwarded: 9.9.9.9\r\nForwarded: for=9.9.9.9\r\n",
         "127.0.0.1"},
    };
    size_t i;
    for (i = 0; i < sizeof table / sizeof *table; i++) {
        peer p;
        stage_reset(backend, WS);
        st.o.proxies = table[i].proxies;
        stage_open();
        CHECK(stage_connect(&p));
        peer_ask(&p, "/", table[i].lines);
        EQUAL(peer_status(&p), 101);
        if (strcmp(st.from, table[i].address) != 0)
            printf("%s with %s gave %s\n", table[i].lines,
                   table[i].proxies ? table[i].proxies : "none", st.from);
        CHECK(strcmp(st.from, table[i].address) == 0);
        peer_end(&p);
        stage_close();
    }
}

static void a_chain_goes_on_behind_a_header(int backend)
{
    peer p;
    stage_reset(backend, WS);
    peer_path(st.local);
    st.o.proxies = "unix, 203.0.113.0/24";
    st.o.proxy_protocol = 1;
    stage_open();
    CHECK(stage_connect(&p));
    peer_say(&p, VIA);
    peer_ask(&p, "/", XFF "8.8.8.8, 9.9.9.9\r\n");
    EQUAL(peer_status(&p), 101);
    CHECK(strcmp(st.from, "9.9.9.9") == 0);
    peer_end(&p);
    stage_close();
}

static void a_local_proxy_is_trusted_by_its_word(int backend)
{
    peer p;
    stage_reset(backend, WS);
    peer_path(st.local);
    st.o.proxies = "unix";
    st.o.max_per_address = 1;
    stage_open();
    CHECK(stage_connect(&p));
    peer_ask(&p, "/", XFF "9.9.9.9\r\n");
    EQUAL(peer_status(&p), 101);
    CHECK(strcmp(st.from, "9.9.9.9") == 0);
    EQUAL(st.loop->sketch->live, 1);
    peer_end(&p);
    stage_close();
}

/* Those who stand behind a proxy are counted one by one, not as the proxy. */
static void those_behind_a_proxy_are_counted(int backend)
{
    peer p[4];
    int i;
    stage_reset(backend, WS);
    st.o.proxies = "127.0.0.1";
    st.o.max_per_address = 1;
    stage_open();
    for (i = 0; i < 4; i++)
        CHECK(stage_connect(&p[i]));
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 0); /* nobody knows yet who they are */
    peer_ask(&p[0], "/", XFF "9.9.9.1\r\n");
    EQUAL(peer_status(&p[0]), 101);
    peer_ask(&p[1], "/", XFF "9.9.9.2\r\n");
    EQUAL(peer_status(&p[1]), 101);
    st.requests = 0;
    peer_ask(&p[2], "/", XFF "9.9.9.1\r\n");
    CHECK(refused_ms(&p[2]) >= 1000);
    EQUAL(st.requests, 0);
    EQUAL(refused_by(RT__REFUSED_ADDRESS), 1);
    peer_end(&p[0]);
    peer_quiet(st.loop);
    peer_ask(&p[3], "/", XFF "9.9.9.1\r\n");
    EQUAL(peer_status(&p[3]), 101);
    for (i = 1; i < 4; i++)
        peer_end(&p[i]);
    stage_close();
}

/* A proxy may send the requests of many through one connection. */
static void each_request_of_a_connection_has_its_own_address(int backend)
{
    peer p, q;
    stage_reset(backend, WS);
    st.o.proxies = "127.0.0.1";
    st.o.max_per_address = 1;
    st.answer = 0;
    stage_open();
    CHECK(stage_connect(&p));
    CHECK(stage_connect(&q));
    peer_ask(&q, "/", XFF "9.9.9.3\r\n");
    EQUAL(peer_status(&q), 101);
    st.answer = RT_DEFER;
    peer_say(&p, "GET / HTTP/1.1\r\nHost: a\r\n" XFF "9.9.9.1\r\n\r\n");
    CHECK(peer_until(st.loop, &st.requests, 2));
    CHECK(strcmp(st.from, "9.9.9.1") == 0);
    EQUAL(st.loop->sketch->live, 2);
    EQUAL(rt_reply(st.loop, st.last, 200, "", "", 0), 0);
    EQUAL(peer_status(&p), 200);
    peer_say(&p, "GET / HTTP/1.1\r\nHost: a\r\n" XFF "9.9.9.2\r\n\r\n");
    CHECK(peer_until(st.loop, &st.requests, 3));
    CHECK(strcmp(st.from, "9.9.9.2") == 0);
    EQUAL(st.loop->sketch->live, 2);
    peer_end(&p);
    peer_quiet(st.loop);
    EQUAL(st.loop->sketch->live, 1);
    peer_end(&q);
    stage_close();
}

static void forwarded(void)
{
    RUN_EACH(a_list_that_cannot_be_read_is_refused);
    RUN_EACH(a_chain_is_followed_as_far_as_it_is_trusted);
    RUN_EACH(a_chain_goes_on_behind_a_header);
    RUN_EACH(a_local_proxy_is_trusted_by_its_word);
    RUN_EACH(those_behind_a_proxy_are_counted);
    RUN_EACH(each_request_of_a_connection_has_its_own_address);
}

/* ---- listening sockets that are handed over ----------------------------- */

/* A second loop in this process, with the same callbacks. */
static rt_loop *second_loop(void)
{
    rt_loop_opts o = st.loop_opts;
    return rt_loop_new(&o);
}

static void those_in_the_backlog_are_served_by_the_next(int backend, int kind)
{
    int i, local;
    for (local = 0; local < 2; local++) {
        rt_loop *old, *next;
        uint8_t out[512];
        size_t n;
        peer p[8];
        stage_reset(backend, kind);
        if (local)
            peer_path(st.local);
        stage_open();
        old = st.loop;
        n = greeting(out);
        for (i = 0; i < 4; i++) { /* nobody accepts them yet */
            CHECK(stage_connect(&p[i]));
            peer_put(&p[i], out, n);
        }
        next = second_loop();
        st.o.fd = dup((int)rt_listener_fd(old, st.l));
        st.loop = next;
        st.l = stage_listen();
        CHECK(st.l.id != 0);
        EQUAL(rt_listener_port(next, st.l), local ? 0 : st.port);
        rt_loop_free(old);
        for (i = 4; i < 8; i++) {
            CHECK(stage_connect(&p[i]));
            peer_put(&p[i], out, n);
        }
        if (kind == RTNET1)
            for (i = 0; i < 8; i++)
                p[i].loop = next;
        CHECK(peer_until(next, &st.opens, 8));
        for (i = 0; i < 8; i++)
            peer_end(&p[i]);
        stage_close();
        if (local)
            EQUAL(unlink(st.local), 0); /* it was left, for another one */
    }
}

static void a_listener_that_is_not_asked_removes_its_file(int backend)
{
    struct stat is;
    stage_reset(backend, WS);
    peer_path(st.local);
    stage_open();
    EQUAL(lstat(st.local, &is), 0);
    EQUAL(rt_unlisten(st.loop, st.l), 0);
    EQUAL(lstat(st.local, &is), -1);
    stage_close();
}

/* One process stops, another goes on; somebody connects all the time. */
static void a_process_takes_over_and_nobody_is_refused(int backend)
{
    int gate[2], i, status = -1, served = 0;
    pid_t child;
    char byte = 0;
    peer p;
    stage_reset(backend, RAW);
    stage_open();
    EQUAL(pipe(gate), 0);
    fflush(stdout);
    child = fork();
    if (child == 0) { /* the next one */
        int fd = dup((int)rt_listener_fd(st.loop, st.l));
        rt_loop *next = second_loop();
        close(gate[0]);
        close((int)rt_listener_fd(st.loop, st.l));
        st.o.fd = fd;
        st.loop = next;
        st.opens = st.closes = 0;
        st.l = stage_listen();
        if (!st.l.id || write(gate[1], "g", 1) != 1)
            _exit(1);
        for (i = 0; i < 3000 && st.closes < 20; i++)
            rt_poll(next, 1);
        _exit(st.opens == 20 && st.closes == 20 ? 0 : 2);
    }
    close(gate[1]);
    EQUAL(read(gate[0], &byte, 1), 1);
    close(gate[0]);
    EQUAL(rt_unlisten(st.loop, st.l), 0);
    for (i = 0; i < 20; i++) {
        served += peer_tcp(&p, NULL, st.port);
        peer_say(&p, "hello");
        peer_end(&p);
    }
    EQUAL(served, 20);
    EQUAL(waitpid(child, &status, 0), child);
    EQUAL(status, 0);
    stage_close();
}

static void two_loops_may_have_a_socket_for_a_while(int backend)
{
    rt_loop *old;
    peer p;
    int i;
    stage_reset(backend, RAW);
    stage_open();
    old = st.loop;
    st.o.fd = dup((int)rt_listener_fd(old, st.l));
    st.loop = second_loop();
    st.l = stage_listen();
    for (i = 0; i < 10; i++) {
        CHECK(stage_connect(&p));
        peer_say(&p, "hello");
        while (st.messages <= i && peer_turn(old, 0) >= 0 &&
               peer_turn(st.loop, 1) >= 0)
            ;
        peer_end(&p);
    }
    EQUAL(st.opens, 10);
    rt_loop_free(old);
    stage_close();
}

static void what_is_no_listening_socket_is_refused_and_stays_open(int backend)
{
    int fd[4], i, pair[2];
    const char *text = "";
    stage_reset(backend, WS);
    stage_open();
    EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    fd[0] = socket(AF_INET, SOCK_STREAM, 0); /* bound to nothing */
    fd[1] = pair[0];
    fd[2] = open("/dev/null", O_RDONLY);
    fd[3] = 1000; /* nothing */
    for (i = 0; i < 4; i++) {
        st.o.fd = fd[i];
        EQUAL(stage_listen().id, 0);
        EQUAL(rt_error(st.loop, &text), RT_EINVAL);
        CHECK(strstr(text, ": fd is ") != NULL);
        CHECK(i == 3 || fcntl(fd[i], F_GETFD) >= 0);
    }
    for (i = 0; i < 3; i++)
        close(fd[i]);
    close(pair[1]);
    stage_close();
}

/* Of messages with bounds, the part that a read had no room for would be lost
   unseen. */
static void a_socket_of_packets_is_refused_and_stays_open(int backend)
{
    struct sockaddr_un at;
    const char *text = "";
    int fd;
    stage_reset(backend, RAW);
    peer_path(st.local);
    memset(&at, 0, sizeof at);
    at.sun_family = AF_UNIX;
    memcpy(at.sun_path, st.local, strlen(st.local) + 1);
    fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    EQUAL(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    EQUAL(listen(fd, 1), 0);
    st.loop = rt_loop_new(&st.loop_opts);
    st.o.fd = fd;
    EQUAL(stage_listen().id, 0);
    EQUAL(rt_error(st.loop, &text), RT_EINVAL);
    CHECK(strstr(text, ": fd is ") != NULL);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    unlink(st.local);
    stage_close();
}

static void watched(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)loop;
    (void)w;
    (void)events;
    ++*(int *)arg;
}

/* Two owners would close it twice, and the second time it may be another's. */
static void a_socket_that_the_loop_has_is_refused(int backend)
{
    const char *text = "";
    int fd, port = 0, calls = 0;
    peer p;
    stage_reset(backend, RAW);
    stage_open();
    st.o.fd = rt_listener_fd(st.loop, st.l);
    EQUAL(stage_listen().id, 0);
    EQUAL(rt_error(st.loop, &text), RT_EINVAL);
    CHECK(strstr(text, ": fd is ") != NULL);
    CHECK(comes_in(&p)); /* the first one goes on */
    peer_end(&p);
    fd = peer_listen(&port);
    CHECK(rt_watch_start(st.loop, fd, RT_READ, watched, &calls).id != 0);
    st.o.fd = fd;
    EQUAL(stage_listen().id, 0);
    CHECK(peer_tcp(&p, st.loop, port));
    CHECK(peer_until(st.loop, &calls, 1)); /* and so does the watch */
    peer_end(&p);
    rt_loop_free(st.loop);
    close(fd);
    EQUAL(peer_heap, 0);
    EQUAL(descriptors(1024), st.descriptors);
}

/* Nothing that fails closes what is still the caller's. */
static void a_take_over_that_fails_leaves_the_socket(int backend)
{
    rt_listener l = {0};
    int n, fd, port = 0;
    stage_reset(backend, WS);
    stage_open();
    fd = peer_listen(&port);
    st.o.fd = fd;
    for (n = 1; n < 20; n++) {
        st.fail_in = n;
        l = stage_listen();
        if (l.id)
            break;
        EQUAL(rt_error(st.loop, NULL), RT_ENOMEM);
        CHECK(fcntl(fd, F_GETFD) >= 0);
    }
    st.fail_in = 0;
    CHECK(n > 2 && l.id);
    EQUAL(rt_listener_port(st.loop, l), port);
    EQUAL(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    EQUAL(rt_unlisten(st.loop, l), 0);
    EQUAL(fcntl(fd, F_GETFD), -1); /* now it was the listener's */
    stage_close();
}

static void a_socket_beyond_select_is_refused_and_stays_open(void)
{
    int port = 0, fd, low;
    struct rlimit was;
    stage_reset(RT_SELECT, WS);
    stage_open();
    getrlimit(RLIMIT_NOFILE, &was);
    if (was.rlim_cur < FD_SETSIZE + 8) {
        SKIP("too few descriptors are allowed");
        stage_close();
        return;
    }
    low = peer_listen(&port);
    fd = fcntl(low, F_DUPFD, FD_SETSIZE + 1);
    close(low);
    st.o.fd = fd;
    EQUAL(stage_listen().id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ESYS);
    CHECK(fcntl(fd, F_GETFD) >= 0);
    close(fd);
    stage_close();
}

static void handing_over(void)
{
    RUN_KINDS(those_in_the_backlog_are_served_by_the_next);
    RUN_EACH(a_listener_that_is_not_asked_removes_its_file);
    RUN_EACH(a_process_takes_over_and_nobody_is_refused);
    RUN_EACH(two_loops_may_have_a_socket_for_a_while);
    RUN_EACH(what_is_no_listening_socket_is_refused_and_stays_open);
    RUN_EACH(a_socket_of_packets_is_refused_and_stays_open);
    RUN_EACH(a_socket_that_the_loop_has_is_refused);
    RUN_EACH(a_take_over_that_fails_leaves_the_socket);
    RUN(a_socket_beyond_select_is_refused_and_stays_open);
}

/* ---- dialled sessions that are refused ---------------------------------- */

/* How long a session that can resume waits after such an answer, in ms. */
static int wait_after(const char *answer)
{
    rt_dial_opts o;
    char url[64];
    int port = 0, listener = peer_listen(&port), wait;
    peer p;
    memset(&o, 0, sizeof o);
    o.resume = 1;
    o.on.close = on_close;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", port);
    CHECK(rt_dial(st.loop, url, &o).id != 0);
    CHECK(peer_accept(&p, st.loop, listener));
    CHECK(peer_fill(&p, 100));
    peer_say(&p, answer);
    CHECK(peer_ended(&p));
    wait = rt_loop_timeout(st.loop);
    EQUAL(st.closes, 0);
    peer_end(&p);
    time_passes((uint64_t)wait); /* and then it comes again */
    CHECK(peer_accept(&p, st.loop, listener));
    peer_end(&p);
    close(listener);
    return wait;
}

static void stage_dialler(int backend)
{
    stage_reset(backend, WS);
    st.loop = rt_loop_new(&st.loop_opts);
    time_passes(1000 * 3600);
}

/* Its last second is drawn, so that whole ones do not line up. */
static void a_dialled_session_obeys_retry_after(int backend)
{
    int i, low = 0, most = 0, least = 1 << 30;
    for (i = 0; i < 40; i++) {
        int wait;
        stage_dialler(backend);
        wait =
            wait_after(i % 2 ? "HTTP/1.1 503 Busy\r\nRetry-After: 30\r\n\r\n"
                             : "HTTP/1.1 429 Slow\r\nretry-after:30\r\n\r\n");
        CHECK(wait > 29000 && wait <= 30000);
        low += wait <= 29500;
        least = wait < least ? wait : least;
        most = wait > most ? wait : most;
        stage_close();
        st.closes = 0;
    }
    CHECK(low > 8 && low < 32);
    CHECK(most - least > 500);
}

static void a_retry_after_that_says_nothing_is_passed_over(int backend)
{
    static const char *const lines[] = {
        "",
        "Retry-After: Sun, 06 Nov 2094 08:49:37 GMT\r\n",
        "Retry-After: -5\r\n",
        "Retry-After: 30s\r\n",
        "Retry-After: 3.5\r\n",
        "Retry-After:\r\n",
        "Retry-After: 0\r\n",
        "Retry-After: 30\r\nRetry-After: 30\r\n",
    };
    char answer[128];
    size_t i;
    for (i = 0; i < sizeof lines / sizeof *lines; i++) {
        stage_dialler(backend);
        snprintf(answer, sizeof answer, "HTTP/1.1 503 Busy\r\n%s\r\n",
                 lines[i]);
        CHECK(wait_after(answer) <= 1000); /* its own first wait */
        stage_close();
    }
}

static void a_retry_after_of_years_is_an_hour(int backend)
{
    int wait;
    stage_dialler(backend);
    wait = wait_after("HTTP/1.1 503 Busy\r\n"
                      "Retry-After: 99999999999999999999\r\n\r\n");
    CHECK(wait > 3599000 && wait <= 3600000);
    stage_close();
}

static void without_resume_a_refusal_is_the_end(int backend)
{
    rt_dial_opts o;
    char url[64];
    peer a;
    stage_reset(backend, WS);
    st.o.accept_rate = 1;
    stage_open();
    CHECK(comes_in(&a));
    memset(&o, 0, sizeof o);
    o.on.close = on_close;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", st.port);
    CHECK(rt_dial(st.loop, url, &o).id != 0);
    CHECK(peer_until(st.loop, &st.closes, 1));
    peer_end(&a);
    stage_close();
}

enum { CROWD = 100 };

/* Clients of this library against a listener of it: all of them come at once,
   and all of them are in after about as long as the rate needs. */
static void a_crowd_is_in_as_fast_as_the_rate_lets_it(int backend, int stream)
{
    rt_dial_opts o;
    char url[64];
    int i, ms = 0;
    stage_reset(backend, stream ? RTNET1 : WS);
    st.o.resume_ms = 60000;
    st.o.accept_rate = 10;
    stage_open();
    memset(&o, 0, sizeof o);
    o.resume = 1;
    o.framing = stream ? RT_RTNET1 : RT_LENGTH;
    snprintf(url, sizeof url, "%s://127.0.0.1:%d", stream ? "tcp" : "ws",
             st.port);
    for (i = 0; i < CROWD; i++)
        CHECK(rt_dial(st.loop, url, &o).id != 0);
    for (ms = 0; ms < 60000 && st.opens < CROWD; ms += 20) {
        time_passes(20);
        peer_quiet(st.loop);
    }
    EQUAL(st.opens, CROWD);
    CHECK(ms >= CROWD * 100 - 1500 && ms < CROWD * 150 + 3000);
    CHECK(refused_by(RT__REFUSED_RATE) <= CROWD * 2);
    stage_close();
}

static void crowd_ws(int backend)
{
    a_crowd_is_in_as_fast_as_the_rate_lets_it(backend, 0);
}

static void crowd_rtnet1(int backend)
{
    a_crowd_is_in_as_fast_as_the_rate_lets_it(backend, 1);
}

static void dialled(void)
{
    RUN_EACH(a_dialled_session_obeys_retry_after);
    RUN_EACH(a_retry_after_that_says_nothing_is_passed_over);
    RUN_EACH(a_retry_after_of_years_is_an_hour);
    RUN_EACH(without_resume_a_refusal_is_the_end);
    peer_run("a_crowd_is_in_as_fast_as_the_rate_lets_it, ws", crowd_ws);
    peer_run("a_crowd_is_in_as_fast_as_the_rate_lets_it, rtnet.1",
             crowd_rtnet1);
}

static void admission_run(void)
{
    rate();
    loads();
    addresses();
    proxy_protocol();
    forwarded();
    handing_over();
    dialled();
}
