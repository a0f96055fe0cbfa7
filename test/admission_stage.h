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
    int requests, opens, closes, messages;
    int answer;      /* of on_request */
    char from[64];   /* address in the last request */
    char got[256];   /* the last message */
    rt_session last; /* that opened */
    int fail_in;     /* the allocation that fails, counted from 1; 0: none */
} st;

static int descriptors(void)
{
    int fd, n = 0;
    for (fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void *failing(void *user, void *p, size_t old, size_t now)
{
    if (now && st.fail_in && --st.fail_in == 0)
        return NULL;
    return peer_realloc(user, p, old, now);
}

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)loop;
    (void)s;
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
    (void)loop;
    (void)s;
    (void)kind;
    st.messages++;
    snprintf(st.got, sizeof st.got, "%.*s", (int)len, (const char *)data);
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
    st.backend = backend;
    st.kind = kind;
    st.descriptors = descriptors();
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
    st.loop->last_micros += ms * 1000;
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
    EQUAL(descriptors(), st.descriptors);
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

/* It was let in: its message arrives, or it is welcome. */
static int let_in(peer *p)
{
    int before = st.opens;
    (void)p;
    if (!peer_until(st.loop, &st.opens, before + 1))
        return 0;
    if (st.kind == RTNET1)
        return peer_fill(p, 5) && p->in[4] == 'w';
    return peer_until(st.loop, &st.messages, 1) && !strcmp(st.got, "hello");
}

static int comes_in(peer *p)
{
    uint8_t out[512];
    size_t n = greeting(out);
    st.messages = 0;
    if (!stage_connect(p))
        return 0;
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
    peer_say(&p, "POST / HTTP/1.1\r\nContent-Length: 20000\r\n\r\n");
    peer_quiet(st.loop);
    peer_put(&p, body, sizeof body);
    peer_quiet(st.loop);
    peer_put(&p, body, sizeof body);
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
    open_now = descriptors();
    time_passes(4999);
    peer_say(&p, "more");
    peer_quiet(st.loop);
    EQUAL(descriptors(), open_now);
    time_passes(1);
    EQUAL(descriptors(), open_now - 1);
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
        CHECK(peer_ended(&p[i]));
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
        peer_ask(&p[i], "/", "");
        answered += peer_status(&p[i]) == 503;
        peer_end(&p[i]);
    }
    EQUAL(answered, WAITING);
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
    CHECK(peer_ended(&p[0]));
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
    before = descriptors();
    for (i = 0; i < 3; i++)
        CHECK(stage_connect(&p[i]));
    peer_quiet(st.loop);
    EQUAL(descriptors(), before + 6);
    EQUAL(rt_unlisten(st.loop, st.l), 0);
    for (i = 0; i < 3; i++)
        CHECK(peer_ended(&p[i]));
    EQUAL(descriptors(), before + 3 - 1);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    stage_close();
}

static void rate(void)
{
    RUN_KINDS(above_the_rate_one_is_told_when_to_come_back);
    RUN_EACH(a_burst_is_let_in_at_once);
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

static void admission_run(void)
{
    rate();
}
