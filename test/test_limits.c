/*
 * What a session may send, and how fast: the limits by window and by bucket,
 * control frames, filters, and the time to bind a user id.  The clock is put
 * forward, so that seconds pass in no time.
 */
#include "resume_stage.h"

/* Every way in which messages come. */
enum { PLAIN_WS, LENGTHS, NET1_WS, NET1_TCP, CODEC_WS, CODEC_TCP, RAW, WAYS };
static const char *const way_names[WAYS] = {"ws",
                                            "lengths",
                                            "rtnet.1 over ws",
                                            "rtnet.1 over tcp",
                                            "codec over ws",
                                            "codec over tcp",
                                            "raw bytes"};

enum { SAID = 70000 };

static struct {
    int way;
    char reason[124]; /* of the last on_close */
    int cause;
    size_t bytes; /* of all messages */
    int kind;     /* of the last one */
    const void *data;
} got;

static int net1(void)
{
    return got.way == NET1_WS || got.way == NET1_TCP;
}

/* ---- the codec: a kind, two bytes of length, the message ----------------- */

static ptrdiff_t packet_decode(void *ctx, const uint8_t *in, size_t n,
                               size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    if (n < 3)
        return 0;
    *kind = in[0];
    *at = 3;
    *len = (size_t)in[1] << 8 | in[2];
    return (ptrdiff_t)(3 + *len);
}

static size_t packet_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)(len >> 8);
    out[2] = (uint8_t)len;
    return 3;
}

static const rt_codec packets = {packet_decode, packet_head, NULL, NULL, NULL};

/* ---- the host ------------------------------------------------------------ */

static void note_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    char word[40];
    CHECK(rt_state(loop, s) == RT_OPEN || rt_state(loop, s) == RT_AWAY);
    EQUAL(((const char *)data)[len], 0);
    got.bytes += len;
    got.kind = kind;
    got.data = data;
    tell(s, "%s", word_of(word, data, len));
    act("message", s);
}

static void note_limit(rt_loop *loop, rt_session s, int what)
{
    EQUAL(rt_state(loop, s), RT_OPEN);
    tell(s, "limit:%d", what);
    act("limit", s);
}

static void note_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    snprintf(got.reason, sizeof got.reason, "%s", why->reason);
    got.cause = why->cause;
    on_close(loop, s, why);
}

static int way_framing(void)
{
    switch (got.way) {
    case NET1_TCP:
        return RT_RTNET1;
    case CODEC_TCP:
        return RT_CODEC;
    case RAW:
        return RT_RAW;
    }
    return RT_LENGTH;
}

static void limits_begin(int backend, int way)
{
    int tcp =
        way == LENGTHS || way == NET1_TCP || way == CODEC_TCP || way == RAW;
    stage_begin(backend, tcp ? TCP : WS);
    memset(&got, 0, sizeof got);
    got.way = way;
    st.opts.on.message = note_message;
    st.opts.on.limit = note_limit;
    st.opts.on.close = note_close;
    st.opts.on.resume = NULL;
    st.opts.ping_ms = RT_OFF;
    st.opts.resume_ms = net1() ? 60000 : 0;
    st.opts.codec = way == CODEC_WS || way == CODEC_TCP ? &packets : NULL;
    st.opts.rate_over = RT_OVER_DROP;
}

static void listen_once(void)
{
    st.opts.framing = way_framing();
    st.listener = rt_listen(
        st.loop, st.wire == TCP ? "tcp://127.0.0.1:0" : "ws://127.0.0.1:0",
        &st.opts);
    CHECK(st.listener.id != 0);
    st.port = rt_listener_port(st.loop, st.listener);
}

static void serve(void)
{
    st.loop = rt_loop_new(&st.loop_opts);
    CHECK(st.loop != NULL);
    listen_once();
}

/* One more session, on that line. */
static void enter(line *l)
{
    if (net1()) {
        line_open(l);
        say(l, "h");
        HEARS(l, "w:0:0:new");
        say(l, "a0");
    } else {
        CHECK(line_connect(l, st.wire, st.port));
        if (st.wire == WS)
            CHECK(peer_upgrade(&l->p, "/"));
    }
    calm();
}

static void open_one(void)
{
    serve();
    enter(&st.a);
    TOLD("open");
    skip(1001); /* what it took to get here does not count */
}

/* ---- its peer ------------------------------------------------------------ */

/* One message as it stands on that wire; its size. */
static size_t build(uint8_t *out, const char *text, size_t len)
{
    uint8_t packet[SAID];
    size_t head = 0, n;
    if (net1())
        packet[head++] = 'm';
    else if (got.way == CODEC_WS || got.way == CODEC_TCP)
        head = packet_head(NULL, packet, RT_TEXT, len);
    memcpy(packet + head, text, len);
    n = head + len;
    if (st.wire == WS)
        return peer_frame_build(out, got.way == CODEC_WS ? 0x82 : 0x81, packet,
                                n);
    if (got.way == RAW || got.way == CODEC_TCP) {
        memcpy(out, packet, n);
        return n;
    }
    out[0] = (uint8_t)(n >> 24);
    out[1] = (uint8_t)(n >> 16);
    out[2] = (uint8_t)(n >> 8);
    out[3] = (uint8_t)n;
    memcpy(out + 4, packet, n);
    return 4 + n;
}

/* Each letter is a message, and all come at once; raw bytes: apart. */
static void letters(line *l, const char *text)
{
    static uint8_t out[SAID + 32];
    size_t n = 0;
    for (; *text; text++) {
        n += build(out + n, text, 1);
        if (got.way != RAW && text[1])
            continue;
        peer_put(&l->p, out, n);
        n = 0;
        calm();
    }
    calm();
}

/* One message of that many equal letters. */
static void message(line *l, char letter, size_t len)
{
    static uint8_t out[SAID + 32];
    char text[SAID];
    memset(text, letter, len);
    peer_put(&l->p, out, build(out, text, len));
    calm();
}

/* Its connection is lost, and it comes back with another at once. */
static void reconnect(line *from, line *to, const char *answer)
{
    line_cut(from);
    TOLD("away");
    line_return(to, &from->w, 0, 1);
    HEARS(to, answer);
    say(to, "a0");
    TOLD("back:0");
}

/* The same, while the old one is still there. */
static void take_over(line *from, line *to, const char *answer)
{
    line_return(to, &from->w, 0, 1);
    HEARS(to, answer);
    say(to, "a0");
    TOLD("away back:0");
}

/* ---- rates ----------------------------------------------------------------
 */

static void a_burst_passes_then_what_the_rate_gives(void)
{
    st.opts.message_rate = 1;
    st.opts.message_burst = 3;
    open_one();
    letters(&st.a, "abcde");
    TOLD("a b c limit:2 limit:2");
    skip(1001);
    letters(&st.a, "fg");
    TOLD("f limit:2");
    skip(60000);
    letters(&st.a, "hijk");
    TOLD("h i j limit:2");
}

static void the_burst_of_a_rate_is_a_second_of_it(void)
{
    st.opts.message_rate = 2;
    st.opts.byte_rate = 1000;
    open_one();
    letters(&st.a, "abc");
    TOLD("a b limit:2");
    skip(5000);
    message(&st.a, 'x', 900);
    message(&st.a, 'x', 900);
    TOLD(got.way == RAW ? "xx#899 limit:3" : "xx#899 limit:3");
}

static void bytes_are_those_of_the_payload(void)
{
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    open_one();
    message(&st.a, 'a', 60);
    message(&st.a, 'b', 60);
    message(&st.a, 'c', 40);
    message(&st.a, 'd', 30);
    TOLD("aa#59 limit:3 cc#39 limit:3");
    EQUAL(got.bytes, 100);
    skip(3001);
    message(&st.a, 'e', 30);
    TOLD("ee#29");
}

static void an_empty_bucket_takes_a_message_of_any_size(void)
{
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 10;
    open_one();
    message(&st.a, 'a', 50);
    message(&st.a, 'b', 5);
    TOLD("aa#49 limit:3");
    skip(3000); /* of the 4.5 s that it takes */
    message(&st.a, 'b', 5);
    TOLD("limit:3");
    skip(1501);
    message(&st.a, 'c', 5);
    TOLD("ccccc");
}

static void a_refused_message_takes_from_none(void)
{
    int i;
    st.opts.rate_limit = 12;
    st.opts.rate_ms = 60000;
    st.opts.message_rate = 1;
    st.opts.message_burst = 10;
    st.opts.byte_rate = 1;
    st.opts.byte_burst = 40;
    open_one();
    message(&st.a, 'a', 30);
    for (i = 0; i < 20; i++)
        message(&st.a, 'b', 31);
    CHECK(strncmp(told_all("aa#29 limit:3"), "aa#29 limit:3", 13) == 0);
    letters(&st.a, "123456789"); /* the messages are 10 now */
    TOLD("1 2 3 4 5 6 7 8 9");
    letters(&st.a, "abc");
    TOLD("limit:2 limit:2 limit:2");
    skip(10001);
    letters(&st.a, "xyz"); /* the window has two slots left */
    TOLD("x y limit:1");
}

static void above_a_limit_a_session_closes(void)
{
    st.opts.message_rate = 1;
    st.opts.message_burst = 2;
    st.opts.rate_over = RT_OVER_CLOSE;
    open_one();
    letters(&st.a, "abcd");
    TOLD("a b close:1008:0");
    EQUAL(got.cause, RT_BY_LIMIT);
    CHECK(strcmp(got.reason, "too many") == 0);
    EQUAL(peer_metric(st.loop, "rtnet_messages_limited_total"), 1);
}

static void too_many_bytes_close_a_session(void)
{
    st.opts.byte_rate = 1;
    st.opts.byte_burst = 10;
    st.opts.rate_over = RT_OVER_CLOSE;
    open_one();
    message(&st.a, 'a', 10);
    message(&st.a, 'b', 10);
    TOLD("aaaaaaaaaa close:1008:0");
    EQUAL(got.cause, RT_BY_LIMIT);
    CHECK(strcmp(got.reason, "too much") == 0);
}

/* on_limit may do anything. */
static void close_it(const char *what, rt_session s)
{
    if (strcmp(what, "limit") == 0)
        EQUAL(rt_close(st.loop, s, 4000, "enough"), 0);
}

static void drop_it(const char *what, rt_session s)
{
    if (strcmp(what, "limit") == 0)
        EQUAL(rt_drop(st.loop, s, 4000, "enough"), 0);
}

static void on_limit_may_close_the_session(void)
{
    st.opts.message_rate = 1;
    st.deed = close_it;
    open_one();
    letters(&st.a, "abcd");
    TOLD("a limit:2 close:4000:0");
}

static void on_limit_may_drop_the_connection(void)
{
    st.opts.message_rate = 1;
    st.deed = drop_it;
    open_one();
    letters(&st.a, "abcd");
    TOLD(net1() ? "a limit:2 away" : "a limit:2 close:4000:0");
}

/* ---- pauses ---------------------------------------------------------------
 */

static void a_pause_ends_when_a_message_may_pass(void)
{
    if (got.way == RAW) /* what comes in a pause is read as one */
        return;
    st.opts.message_rate = 1;
    st.opts.message_burst = 2;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    letters(&st.a, "abcde");
    TOLD("a b");
    skip(1001);
    TOLD("c");
    skip(1001);
    TOLD("d");
    skip(10000);
    TOLD("e");
    letters(&st.a, "fgh");
    TOLD("f");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    EQUAL(peer_metric(st.loop, "rtnet_messages_limited_total"), 0);
}

/* The limits end at different times. */
static void a_pause_lasts_until_the_latest_allows_it(void)
{
    st.opts.rate_limit = 2;
    st.opts.rate_ms = 20000;
    st.opts.message_rate = 1;
    st.opts.message_burst = 2;
    st.opts.byte_rate = 1;
    st.opts.byte_burst = 10;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    message(&st.a, 'a', 5);
    message(&st.a, 'b', 5);
    TOLD("aaaaa bbbbb");
    letters(&st.a, "c");
    skip(11000);
    TOLD("");
    skip(9001);
    TOLD("c");
    skip(1001);
    message(&st.a, 'd', 40); /* empty, and a slot is free */
    TOLD("dd#39");
    letters(&st.a, "e");
    skip(21000); /* of the 31 s that the bytes take */
    TOLD("");
    skip(10001);
    TOLD("e");
}

/* Its size is known only when it was read: it waits, and what follows too. */
static void a_message_that_was_read_waits_in_its_place(void)
{
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    message(&st.a, 'a', 60);
    message(&st.a, 'b', 90);
    letters(&st.a, "c");
    TOLD("aa#59");
    skip(4000);
    TOLD("");
    EQUAL(rt_read(st.loop, st.s[1], 0), 0);
    skip(2000);
    TOLD("");
    EQUAL(rt_read(st.loop, st.s[1], 1), 0);
    TOLD("bb#89 c");
}

static void a_session_may_close_while_paused(void)
{
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 10;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    message(&st.a, 'a', 9);
    message(&st.a, 'b', 9);
    letters(&st.a, "cd");
    TOLD("aaaaaaaaa");
    EQUAL(rt_close(st.loop, st.s[1], 4000, ""), 0);
    TOLD("close:4000:0");
    skip(10000);
    TOLD("");
}

static void a_peer_that_closes_while_paused_is_heard_out(void)
{
    st.opts.message_rate = 1;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    letters(&st.a, "ab");
    if (st.wire == WS)
        peer_bye(&st.a.p, 1000);
    else
        shutdown(st.a.p.fd, SHUT_WR);
    TOLD("a");
    skip(1001);
    TOLD("b");
    skip(1001);
    if (got.way == NET1_TCP)
        TOLD("away");
    else
        TOLD(st.wire == WS ? "close:1000:0" : "close:1005:0");
}

/* Silence is not held against one that is not read. */
static void a_paused_peer_is_not_silent(void)
{
    st.opts.rate_limit = 1;
    st.opts.rate_ms = 600000;
    st.opts.rate_over = RT_OVER_PAUSE;
    st.opts.ping_ms = 1000;
    open_one();
    letters(&st.a, "ab");
    TOLD("a");
    skip(500000);
    skip(2000);
    TOLD("");
    skip(98001);
    TOLD("b");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* What is owed by the clock is paid meanwhile. */
static void a_pause_delays_no_acknowledgement(void)
{
    if (!net1())
        return;
    st.opts.rate_limit = 2;
    st.opts.rate_ms = 60000;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    letters(&st.a, "abc");
    TOLD("a b");
    skip(501);
    HEARS(&st.a, "a2");
    skip(1000);
    skip(
        1000); /* nothing more is owed: the end of the pause is not forgotten */
    skip(60000);
    TOLD("c");
}

/* Many bytes at a slow pace: the peer has to wait, our memory is bounded, no
   moment sees more than the rate allows, and in the end all is there. */
static void put_what_goes(line *l, const uint8_t *from, size_t *at, size_t all)
{
    ssize_t n = 1;
    while (*at < all && n > 0) {
        n = send(l->p.fd, from + *at, all - *at, MSG_NOSIGNAL);
        *at += n > 0 ? (size_t)n : 0;
    }
}

enum { FLOOD = 24 * 1024 * 1024, FLOOD_PART = 50000, FLOOD_RATE = 2000000 };

static void tcp_slows_a_paused_peer_down(void)
{
    static uint8_t wire[FLOOD + SAID];
    char text[FLOOD_PART] = {'x'};
    uint64_t began;
    size_t all = 0, at = 0, sent = 0;
    int i;
    st.opts.byte_rate = FLOOD_RATE;
    st.opts.rate_over = RT_OVER_PAUSE;
    for (; all < FLOOD; sent += FLOOD_PART)
        all += build(wire + all, text, FLOOD_PART);
    open_one();
    began = peer_clock();
    for (i = 0; i < 20; i++) {
        put_what_goes(&st.a, wire, &at, all);
        calm();
    }
    CHECK(at < all);
    for (i = 0; i < 40 && got.bytes < sent; i++) {
        put_what_goes(&st.a, wire, &at, all);
        CHECK(peer_heap < 1024 * 1024);
        skip(i < 4 ? 100 : 1000);
        script_clear(&st.told);
        CHECK(got.bytes <=
              FLOOD_RATE + (peer_clock() - began) * (FLOOD_RATE / 1000));
    }
    EQUAL(got.bytes, sent);
}

/* ---- limits and resuming --------------------------------------------------
 */

static void coming_back_does_not_refill_a_bucket(void)
{
    if (!net1())
        return;
    st.opts.message_rate = 1;
    st.opts.message_burst = 5;
    st.opts.byte_rate = 1;
    st.opts.byte_burst = 100;
    open_one();
    letters(&st.a, "abcde");
    TOLD("a b c d e");
    reconnect(&st.a, &st.b, "w:5:0:resumed");
    letters(&st.b, "f");
    TOLD("limit:2");
    skip(6000);
    message(&st.b, 'g', 90);
    TOLD("gg#89");
    reconnect(&st.b, &st.a, "w:7:0:resumed");
    message(&st.a, 'h', 20);
    TOLD("limit:3");
}

/* Nor does taking one's session over, with the old connection still there. */
static void taking_over_does_not_refill_a_bucket(void)
{
    if (!net1())
        return;
    st.opts.message_rate = 1;
    st.opts.message_burst = 2;
    open_one();
    letters(&st.a, "ab");
    TOLD("a b");
    take_over(&st.a, &st.b, "w:2:0:resumed");
    letters(&st.b, "c");
    TOLD("limit:2");
}

/* Nor does it end a pause. */
/* A host with its own protocol puts a fresh connection under the old one. */
static void adopting_does_not_refill_a_bucket(void)
{
    char token[23];
    if (net1())
        return;
    st.opts.message_rate = 1;
    st.opts.message_burst = 2;
    st.opts.rate_limit = 3;
    st.opts.rate_ms = 60000;
    open_one();
    EQUAL(rt_keep(st.loop, st.s[1], 60000, token), 0);
    letters(&st.a, "abc");
    TOLD("a b limit:2");
    peer_reset(&st.a.p);
    TOLD("away");
    enter(&st.b);
    TOLD("2.open");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], 0), 0);
    TOLD("back:0 2.close:1000:0");
    letters(&st.b, "d");
    TOLD("limit:2");
    skip(2001);
    letters(&st.b, "ef"); /* the window has one slot left */
    TOLD("e limit:1");
}

static void coming_back_does_not_end_a_pause(void)
{
    if (!net1())
        return;
    st.opts.rate_limit = 2;
    st.opts.rate_ms = 10000;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    letters(&st.a, "abc");
    TOLD("a b");
    take_over(&st.a, &st.b, "w:2:0:resumed"); /* c was not read */
    letters(&st.b, "cde");
    TOLD("");
    take_over(&st.b, &st.a, "w:2:0:resumed");
    letters(&st.a, "cde");
    TOLD("");
    skip(10001);
    TOLD("c d");
}

/* A message that waits is counted, so it waits on while the peer is away. */
static void a_message_that_waits_outlives_the_connection(void)
{
    if (!net1())
        return;
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    message(&st.a, 'a', 90);
    message(&st.a, 'b', 90);
    TOLD("aa#89");
    take_over(&st.a, &st.b, "w:2:0:resumed");
    letters(&st.b, "c");
    TOLD("");
    skip(8001);
    TOLD("bb#89");
    skip(2000);
    TOLD("c");
    message(&st.b, 'd', 90);
    TOLD("");
    line_cut(&st.b);
    skip(501); /* that is noticed when an `a` goes out */
    TOLD("away");
    skip(20000); /* it may pass long since, but first comes on_back */
    TOLD("");
    line_return(&st.a, &st.b.w, 0, 1);
    HEARS(&st.a, "w:4:0:resumed");
    say(&st.a, "a0");
    letters(&st.a, "e");
    TOLD("back:0 dd#89 e");
}

/* Two sessions whose second message waits; the first can be found again. */
static void open_two_that_wait(void)
{
    char token[23];
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    EQUAL(rt_keep(st.loop, st.s[1], 60000, token), 0);
    enter(&st.b);
    TOLD("2.open");
    message(&st.a, 'a', 90);
    message(&st.a, 'b', 90);
    message(&st.b, 'c', 90);
    message(&st.b, 'd', 80);
    TOLD("aa#89 2.cc#89");
}

/* A message that waits is part of its connection, as what was not read yet. */
static void a_message_that_waits_goes_with_its_connection(void)
{
    if (net1())
        return;
    open_two_that_wait();
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], RT_UNCOUNTED), 0);
    TOLD("away back:0 2.close:1000:0");
    letters(&st.b, "e");
    TOLD("");
    skip(7001); /* for 80 of 100 the bucket may be no fuller than 20 */
    TOLD("dd#79");
    skip(2000);
    TOLD("e");
}

/* Nor does it take from the time of a message that is under way. */
static void a_pause_takes_no_time_from_half_a_message(void)
{
    char token[23];
    if (got.way != LENGTHS)
        return;
    st.opts.message_rate = 1;
    st.opts.assembly_ms = 600;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    EQUAL(rt_keep(st.loop, st.s[1], 60000, token), 0);
    enter(&st.b);
    peer_put(&st.b.p, "\0\0\0\5he", 6);
    calm();
    letters(&st.a, "a");
    TOLD("2.open a");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], RT_UNCOUNTED), 0);
    TOLD("away back:0 2.close:1000:0");
    skip(601);
    skip(401); /* now it is read again */
    skip(500);
    TOLD("");
    peer_put(&st.b.p, "llo", 3);
    TOLD("hello");
}

/* Where the session has no limit, it passes at once, and first. */
static void what_waits_passes_where_there_is_no_limit(void)
{
    char token[23];
    rt_listener first;
    if (net1())
        return;
    open_one();
    first = st.listener;
    EQUAL(rt_keep(st.loop, st.s[1], 60000, token), 0);
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    st.opts.rate_over = RT_OVER_PAUSE;
    listen_once();
    enter(&st.b);
    message(&st.b, 'c', 90);
    message(&st.b, 'd', 80);
    letters(&st.b, "e");
    TOLD("2.open 2.cc#89");
    EQUAL(rt_adopt(st.loop, st.s[1], st.s[2], RT_UNCOUNTED), 0);
    TOLD("dd#79 away back:0 2.close:1000:0 e");
    EQUAL(rt_unlisten(st.loop, first), 0);
}

/* What could not be sent while away may come at once: 4 s at 5 a second. */
static void the_credit_of_a_resume(void)
{
    if (!net1())
        return;
    st.opts.message_rate = 5;
    st.opts.byte_rate = 100;
    open_one();
    letters(&st.a, "abcde");
    message(&st.a, 'x', 1);
    TOLD("a b c d e limit:2");
    line_cut(&st.a);
    TOLD("away");
    skip(4000);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:6:0:resumed");
    say(&st.b, "a0");
    letters(&st.b, "abcdefghijklmnopqrst");
    TOLD("back:0 a b c d e f g h i j k l m n o p q r s t");
    letters(&st.b, "uvwxyz");
    CHECK(strstr(told_all("limit:2"), "limit:2") != NULL);
}

static void the_credit_for_bytes(void)
{
    if (!net1())
        return;
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 100;
    open_one();
    message(&st.a, 'a', 100);
    TOLD("aa#99");
    line_cut(&st.a);
    TOLD("away");
    skip(30000); /* 300 bytes, of which the bucket regains 100 */
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:1:0:resumed");
    say(&st.b, "a0");
    message(&st.b, 'b', 100);
    message(&st.b, 'c', 100);
    message(&st.b, 'd', 99);
    message(&st.b, 'e', 50);
    TOLD("back:0 bb#99 cc#99 dd#98 limit:3");
}

/* However long it was away: what a client keeps at most. */
static void the_credit_is_at_most_128(void)
{
    char text[201] = "";
    int i, passed = 0;
    const char *told;
    if (!net1())
        return;
    st.opts.rate_limit = 10;
    st.opts.rate_ms = 1000;
    open_one();
    line_cut(&st.a);
    TOLD("away");
    skip(50000);
    line_return(&st.b, &st.a.w, 0, 1);
    HEARS(&st.b, "w:0:0:resumed");
    say(&st.b, "a0");
    TOLD("back:0");
    memset(text, 'x', 200);
    letters(&st.b, text);
    told = told_all("");
    for (i = 0; told[i]; i++)
        passed += told[i] == 'x';
    CHECK(passed >= 138 && passed < 158);
}

/* Going away again and again gives no more than the rate. */
static void coming_and_going_wins_nothing(void)
{
    int i;
    if (!net1())
        return;
    st.opts.rate_limit = 10;
    st.opts.rate_ms = 1000;
    open_one();
    letters(&st.a, "0123456789");
    for (i = 0; i < 5; i++) {
        line *from = i % 2 ? &st.b : &st.a, *to = i % 2 ? &st.a : &st.b;
        line_cut(from);
        calm();
        skip(2000);
        line_return(to, &from->w, 0, 1);
        line_hear(to, 1);
        say(to, "a0");
        letters(to, "0123456789abcdefghijklmnopqrstuvwxyz");
    }
    /* 10 at first, and 20 in each of 5 times 2 s; a little for real time */
    CHECK(got.bytes >= 110 && got.bytes < 130);
}

/* ---- what limits cost -----------------------------------------------------
 */

static void limits_cost_nothing_before_the_first_message(void)
{
    size_t without, with;
    serve();
    enter(&st.a);
    without = peer_heap;
    rt_unlisten(st.loop, st.listener);
    st.opts.rate_limit = 1000;
    st.opts.message_rate = 1000;
    st.opts.byte_rate = 1000000;
    st.listener = rt_listen(
        st.loop, st.wire == TCP ? "tcp://127.0.0.1:0" : "ws://127.0.0.1:0",
        &st.opts);
    st.port = rt_listener_port(st.loop, st.listener);
    with = peer_heap;
    enter(&st.b);
    with = peer_heap - with;
    CHECK(with <= without);
    without = peer_heap;
    letters(&st.b, "a");
    CHECK(peer_heap > without && peer_heap < without + 400);
    TOLD("open 2.open 2.a");
}

/* A window has as many slots as it needs. */
static void the_greatest_limits_are_served(void)
{
    int i;
    size_t before;
    st.opts.rate_limit = st.opts.rate_ms = INT32_MAX;
    st.opts.message_rate = st.opts.message_burst = INT32_MAX;
    st.opts.byte_rate = st.opts.byte_burst = INT32_MAX;
    st.opts.control_rate = INT32_MAX;
    st.opts.bind_ms = INT32_MAX;
    open_one();
    before = peer_heap;
    for (i = 0; i < 100; i++)
        letters(&st.a, "0123456789");
    EQUAL(got.bytes, 1000);
    CHECK(peer_heap < before + 20000);
    script_clear(&st.told);
}

static void off_is_no_limit(void)
{
    st.opts.rate_limit = st.opts.message_rate = st.opts.byte_rate = RT_OFF;
    st.opts.bind_ms = RT_OFF;
    open_one();
    skip(100000);
    message(&st.a, 'a', 1000);
    letters(&st.a, "bcdefghijklmnopqrstuvwxyz0123");
    TOLD("aa#999 b c d e f g h i j k l m n o p q r s t u v w x y z 0 1 2 3");
}

/* The allocation that fails next, counted down; 0: none. */
static int fails_in;

static void *realloc_failing(void *user, void *p, size_t old, size_t now)
{
    if (now > old && fails_in > 0 && --fails_in == 0)
        return NULL;
    return peer_realloc(user, p, old, now);
}

/* The state, its window, a larger window, a message that waits: each time that
   session ends, unless the failure was another's, and no other one does. */
static void no_memory_for_a_limit_ends_that_session(void)
{
    int n, ended = 0;
    st.loop_opts.realloc = realloc_failing;
    st.opts.rate_limit = 100;
    st.opts.rate_ms = 60000;
    st.opts.byte_rate = 1;
    st.opts.byte_burst = 18;
    st.opts.rate_over = RT_OVER_PAUSE;
    serve();
    enter(&st.b);
    for (n = 1; n < 30; n++) {
        enter(&st.a);
        fails_in = n;
        letters(&st.a, "123456789");
        message(&st.a, 'b', 10);
        if (fails_in > 0)
            break;
        EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
        ended += st.closes[st.count] == 1 && st.end.code == 1011 &&
                 got.cause == RT_BY_ERROR;
        script_clear(&st.told);
    }
    fails_in = 0;
    CHECK(n < 30); /* the last run had no failure */
    CHECK(ended >= 4);
    EQUAL(rt_state(st.loop, st.s[st.count]), RT_OPEN);
    script_clear(&st.told);
}

static void what_cannot_be_meant_is_refused(void)
{
    static const struct {
        size_t at;
        const char *name;
    } options[] = {
        {offsetof(rt_listen_opts, rate_limit), "rate_limit"},
        {offsetof(rt_listen_opts, rate_ms), "rate_ms"},
        {offsetof(rt_listen_opts, message_rate), "message_rate"},
        {offsetof(rt_listen_opts, message_burst), "message_burst"},
        {offsetof(rt_listen_opts, byte_rate), "byte_rate"},
        {offsetof(rt_listen_opts, byte_burst), "byte_burst"},
        {offsetof(rt_listen_opts, control_rate), "control_rate"},
        {offsetof(rt_listen_opts, bind_ms), "bind_ms"},
        {offsetof(rt_listen_opts, accept_rate), "accept_rate"},
        {offsetof(rt_listen_opts, accept_burst), "accept_burst"},
        {offsetof(rt_listen_opts, max_per_address), "max_per_address"},
        {offsetof(rt_listen_opts, proxy_protocol), "proxy_protocol"},
        {offsetof(rt_listen_opts, rate_over), "rate_over"}};
    static const int values[] = {-2, INT32_MIN};
    size_t i, k;
    const char *text;
    serve();
    for (i = 0; i < sizeof options / sizeof *options; i++)
        for (k = 0; k < 2; k++) {
            rt_listen_opts o = {0};
            memcpy((char *)&o + options[i].at, &values[k], sizeof(int));
            EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", &o).id, 0);
            EQUAL(rt_error(st.loop, &text), RT_EINVAL);
            CHECK(strstr(text, options[i].name) != NULL);
        }
}

/* ---- control frames -------------------------------------------------------
 */

/* Not a message, and asked for by nobody; the i-th of them. */
static void put_control(line *l, int i)
{
    if (i % 3 == 0)
        say(l, "p%d", i);
    else if (i % 3 == 1 || !net1())
        say(l, "qfoo");
    else
        say(l, "a%llu", st.acked);
}

static int has_control(void)
{
    return st.wire == WS || got.way == NET1_TCP;
}

static void twenty_control_frames_a_second_are_borne(void)
{
    int i;
    if (!has_control())
        return;
    open_one();
    for (i = 0; i < 20; i++)
        put_control(&st.a, i);
    calm();
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    skip(1001);
    for (i = 0; i < 20; i++)
        put_control(&st.a, i);
    calm();
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    put_control(&st.a, i);
    TOLD("close:1008:0");
    EQUAL(got.cause, RT_BY_LIMIT);
    CHECK(strcmp(got.reason, "too many control frames") == 0);
    line_hear(&st.a, 1);
    EQUAL(st.a.closed, 1008);
}

static void each_kind_of_control_frame_counts(void)
{
    int i, kind, kinds = net1() ? 3 : 2;
    if (!has_control())
        return;
    st.opts.control_rate = 5;
    serve();
    for (kind = 0; kind < kinds; kind++) {
        st.acked = 0;
        enter(&st.a);
        skip(1001);
        script_clear(&st.told);
        for (i = 0; i < 5; i++)
            put_control(&st.a, kind);
        calm();
        EQUAL(rt_state(st.loop, st.s[st.count]), RT_OPEN);
        put_control(&st.a, kind);
        calm();
        EQUAL(st.closes[st.count], 1);
        script_clear(&st.told);
    }
}

/* They take from no limit of messages, nor does on_limit hear of them. */
static void control_frames_are_no_messages(void)
{
    int i;
    if (!has_control())
        return;
    st.opts.control_rate = RT_OFF;
    st.opts.rate_limit = 1;
    st.opts.message_rate = 1;
    st.opts.byte_rate = 1;
    open_one();
    for (i = 0; i < 300; i++)
        put_control(&st.a, i);
    letters(&st.a, "a");
    TOLD("a");
    EQUAL(peer_metric(st.loop, "rtnet_messages_limited_total"), 0);
}

/* Nor do messages take from theirs, nor the pongs that we asked for. */
static void what_we_asked_for_is_free(void)
{
    int i;
    if (!has_control() || got.way == CODEC_WS)
        return;
    st.opts.control_rate = 1;
    st.opts.ping_ms = 1000;
    open_one();
    for (i = 0; i < 8; i++) {
        letters(&st.a, "abc");
        skip(1001);
        line_hear(&st.a, 0); /* answers */
        calm();
    }
    CHECK(st.a.pings >= 4);
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    script_clear(&st.told);
}

/* The answer to a ping counts once. */
static void an_answer_said_again_is_control(void)
{
    char text[32];
    int i, before;
    if (!has_control() || got.way == CODEC_WS)
        return;
    st.opts.ping_ms = 10000;
    open_one();
    skip(10001);
    line_hear(&st.a, 0);
    before = st.a.pings;
    CHECK(before > 0);
    /* what it answered, again */
    memcpy(text, st.a.msg, st.a.len);
    for (i = 0; i < 20; i++)
        line_put(&st.a, text, st.a.len);
    calm();
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    line_put(&st.a, text, st.a.len);
    TOLD("close:1008:0");
}

/* ---- life -----------------------------------------------------------------
 */

/* Ten times half a second of it, at a ping a second and 2 unanswered. */
static void ten_halves(void (*says)(int i))
{
    int i;
    st.opts.ping_ms = 1000;
    open_one();
    st.a.deaf = 1;
    for (i = 0; i < 10; i++) {
        says(i);
        calm();
        skip(500);
    }
}

static void a_patience_of_300_pings_ends(void)
{
    int i;
    if (got.way != PLAIN_WS)
        return;
    st.opts.ping_ms = 100;
    st.opts.dead_pings = 300;
    open_one();
    st.a.deaf = 1;
    for (i = 0; i < 290; i++)
        skip(101);
    TOLD("");
    for (i = 0; i < 20; i++)
        skip(101);
    TOLD("close:4002:0");
}

static void say_control(int i)
{
    put_control(&st.a, i);
    put_control(&st.a, i + 1);
    put_control(&st.a, i + 2);
    calm();
    if (!st.closes[1] && rt_state(st.loop, st.s[1]) == RT_OPEN)
        CHECK(rt_heard(st.loop, st.s[1]) + 400 > peer_clock());
}

static void a_flood_of_control_frames_is_no_life(void)
{
    if (!has_control() || got.way == CODEC_WS)
        return;
    ten_halves(say_control);
    TOLD(net1() ? "away" : "close:4002:0");
    line_hear(&st.a, 1);
    EQUAL(st.a.closed, RT_CLOSE_DEAD);
    CHECK(st.a.pings > 0);
}

static void say_something(int i)
{
    (void)i;
    letters(&st.a, "x");
}

static void messages_are_life(void)
{
    if (!has_control() || got.way == CODEC_WS)
        return;
    ten_halves(say_something);
    TOLD("x x x x x x x x x x");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* A byte of a long message each time. */
static void say_a_byte(int i)
{
    static uint8_t out[64];
    size_t n = build(out, "0123456789", 10);
    if (i == 0)
        peer_put(&st.a.p, out, n - 10);
    else
        peer_put(&st.a.p, out + n - 11 + i, 1);
}

static void the_bytes_of_a_message_are_life(void)
{
    if (!has_control() || got.way == CODEC_WS)
        return;
    ten_halves(say_a_byte);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* An `a` that comes in parts tells nothing more than one that is whole. */
static void say_part_of_an_a(int i)
{
    static const char tcp[] = "\0\0\0\x02"
                              "a0";
    if (got.way == NET1_WS && i % 2 == 0)
        peer_put(&st.a.p, "\x01\x81\0\0\0\0a", 7);
    else if (got.way == NET1_WS)
        peer_put(&st.a.p,
                 "\x80\x81\0\0\0\0"
                 "0",
                 7);
    else
        peer_put(&st.a.p, tcp + i % 2 * 5, i % 2 ? 1 : 5);
}

static void the_bytes_of_an_acknowledgement_are_no_life(void)
{
    if (!net1())
        return;
    ten_halves(say_part_of_an_a);
    TOLD("away");
}

static void say_acknowledged(int i)
{
    char text[2] = {(char)('a' + i), 0};
    EQUAL(send_text(1, text), 0);
    calm();
    line_hear(&st.a, 0);
    say(&st.a, "a%d", i + 1);
}

static void acknowledgements_that_free_are_life(void)
{
    if (!net1())
        return;
    ten_halves(say_acknowledged);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* Each ping is answered when the next one has come. */
static void answer_the_ping_before(int i)
{
    static char before[32];
    static size_t len;
    len = i ? len : 0;
    calm();
    st.a.waits = 0;
    while (peer_take(&st.a.p))
        ;
    while (st.wire == WS ? line_ws_next(&st.a) : line_tcp_next(&st.a)) {
        if (st.a.msg[0] != 'p')
            continue;
        if (len)
            line_put(&st.a, before, len);
        len = st.a.len;
        memcpy(before, st.a.msg, len);
        before[0] = 'q';
    }
}

/* A line so slow that each answer comes when the next ping has gone. */
static void a_late_answer_is_life(void)
{
    if (!has_control() || got.way == CODEC_WS)
        return;
    ten_halves(answer_the_ping_before);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

/* ---- control frames at the other end --------------------------------------
 */

static void a_dialled_session_bears_as_many(void)
{
    int i;
    if (!net1())
        return;
    st.dial.on = st.opts.on;
    st.dial.ping_ms = RT_OFF;
    stage_dial();
    line_take(&st.a);
    HEARS(&st.a, "h");
    say(&st.a, "w%s %s 0 0 new 15000", token_of(1), "AAAAAAAAAAAAAAAAAAAAAA");
    HEARS(&st.a, "a0");
    TOLD("open");
    skip(1001);
    for (i = 0; i < 20; i++)
        put_control(&st.a, i);
    calm();
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
    put_control(&st.a, 0);
    TOLD("close:1008:0");
    EQUAL(got.cause, RT_BY_LIMIT);
}

/* ---- filters --------------------------------------------------------------
 */

static struct {
    int seen;
    int answer; /* of the filter below */
    uint8_t own[32];
    rt_session s;
} filter;

static void check_filtered(rt_loop *loop, rt_session s, const rt_message *m)
{
    filter.seen++;
    filter.s = s;
    EQUAL(rt_state(loop, s), RT_OPEN);
    EQUAL(m->data[m->len], 0);
    EQUAL(rt_poll(loop, 0), RT_ESTATE);
}

/* Appends its number to what it lets pass, in memory of its own. */
static int add_1(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    memset(filter.own, 0x55, sizeof filter.own);
    memcpy(filter.own, m->data, m->len);
    filter.own[m->len++] = '1';
    m->data = filter.own;
    return 0;
}

static int add_2(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    EQUAL(m->data == filter.own, 1);
    m->data[m->len++] = '2'; /* it is the host's, and has room */
    return 0;
}

static void filters_run_in_order(void)
{
    size_t i;
    st.opts.filter[0] = add_1;
    st.opts.filter[1] = add_2;
    open_one();
    letters(&st.a, "abc");
    TOLD("a12 b12 c12");
    EQUAL(filter.seen, 6);
    CHECK(got.data == filter.own);
    for (i = 3; i < sizeof filter.own; i++)
        EQUAL(filter.own[i], 0x55); /* the 0 was only lent */
}

/* Without its first and its last byte, in small letters. */
static int shorten(rt_loop *loop, rt_session s, rt_message *m)
{
    size_t i;
    check_filtered(loop, s, m);
    m->data++;
    m->len -= 2;
    for (i = 0; i < m->len; i++)
        m->data[i] |= 0x20;
    return 0;
}

static int look(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    return 0;
}

/* Several in one packet: what stands behind each is whole. */
static void filters_change_a_message_where_it_is(void)
{
    static uint8_t out[1024];
    size_t n = 0;
    int i;
    st.opts.filter[0] = look;
    st.opts.filter[1] = shorten;
    st.opts.filter[2] = look;
    st.opts.filter[3] = shorten;
    open_one();
    for (i = 0; i < (got.way == RAW ? 1 : 3); i++)
        n += build(out + n, "ABCDEFG", 7);
    peer_put(&st.a.p, out, n);
    TOLD(got.way == RAW ? "cde" : "cde cde cde");
    for (i = 0; i < (int)n; i++) { /* and in parts */
        peer_put(&st.a.p, out + i, got.way == RAW ? n : 1);
        calm();
        if (got.way == RAW)
            break;
    }
    TOLD(got.way == RAW ? "cde" : "cde cde cde");
}

static int to_nothing(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    m->data += m->len;
    m->len = 0;
    m->kind = RT_BINARY | RT_TEXT << 4;
    return 0;
}

static void filters_may_change_kind_and_leave_nothing(void)
{
    st.opts.filter[0] = look;
    st.opts.filter[1] = to_nothing;
    st.opts.filter[2] = look;
    open_one();
    letters(&st.a, "a");
    EQUAL(filter.seen, 3);
    EQUAL(got.bytes, 0);
    EQUAL(got.kind, RT_BINARY | RT_TEXT << 4);
}

static int refuse_b(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    return m->data[0] == 'b' ? filter.answer : 0;
}

/* Returns 1: the next filter does not see it either. */
static void filters_drop_messages(void)
{
    int i;
    for (i = 0; i < 7; i++)
        st.opts.filter[i] = look;
    st.opts.filter[3] = refuse_b;
    st.opts.filter[7] = look;
    filter.answer = 1;
    open_one();
    letters(&st.a, "abc");
    TOLD("a c");
    EQUAL(filter.seen, 8 + 4 + 8);
}

static void filters_close_with_a_code(void)
{
    st.opts.filter[0] = refuse_b;
    st.opts.filter[1] = look;
    filter.answer = 4321;
    open_one();
    letters(&st.a, "abc");
    TOLD("a close:4321:0");
    EQUAL(got.cause, RT_BY_APP);
    EQUAL(filter.seen, 3);
}

static void an_impossible_answer_is_an_error(void)
{
    static const int answers[] = {-1,   2,    999,       1005,     1006,
                                  1015, 5000, INT32_MAX, INT32_MIN};
    size_t i;
    st.opts.filter[0] = refuse_b;
    serve();
    for (i = 0; i < sizeof answers / sizeof *answers; i++) {
        filter.answer = answers[i];
        enter(&st.a);
        letters(&st.a, "bc");
        EQUAL(st.closes[st.count], 1);
        EQUAL(st.end.code, 1011);
        EQUAL(got.cause, RT_BY_ERROR);
        EQUAL(got.bytes, 0);
    }
    script_clear(&st.told);
}

static int grow(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    if (filter.answer == 1)
        m->len++;
    if (filter.answer == 2)
        m->data++;
    if (filter.answer == 3)
        m->data = NULL;
    if (filter.answer == 4)
        m->len = SIZE_MAX;
    return 0;
}

/* What would reach beyond the message that came. */
static void an_impossible_message_is_an_error(void)
{
    st.opts.filter[0] = grow;
    serve();
    for (filter.answer = 1; filter.answer <= 4; filter.answer++) {
        enter(&st.a);
        letters(&st.a, "b");
        EQUAL(st.closes[st.count], 1);
        EQUAL(st.end.code, 1011);
        EQUAL(got.cause, RT_BY_ERROR);
    }
    EQUAL(got.bytes, 0);
    script_clear(&st.told);
}

static int close_in_it(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    EQUAL(rt_close(loop, s, 4000, "no"), 0);
    return filter.answer;
}

static void rt_close_in_a_filter_stops_the_chain(void)
{
    static const int answers[] = {0, 1, 4321, -1};
    size_t i;
    st.opts.filter[0] = close_in_it;
    st.opts.filter[1] = look;
    serve();
    for (i = 0; i < 4; i++) {
        filter.seen = 0;
        filter.answer = answers[i];
        enter(&st.a);
        letters(&st.a, "ab");
        EQUAL(filter.seen, 1);
        EQUAL(st.end.code, 4000);
        EQUAL(st.closes[st.count], 1);
    }
    EQUAL(got.bytes, 0);
    script_clear(&st.told);
}

static int drop_in_it(rt_loop *loop, rt_session s, rt_message *m)
{
    check_filtered(loop, s, m);
    EQUAL(rt_drop(loop, s, 4000, "no"), 0);
    return 0;
}

/* One that is away has received the message: it counts as such. */
static void rt_drop_in_a_filter(void)
{
    st.opts.filter[0] = drop_in_it;
    open_one();
    letters(&st.a, "ab");
    TOLD(net1() ? "a away" : "close:4000:0");
}

static void timer_none(rt_loop *loop, void *arg)
{
    (void)loop;
    (void)arg;
}

static int call_everything(rt_loop *loop, rt_session s, rt_message *m)
{
    rt_group g = rt_group_open(loop, "g", NULL);
    check_filtered(loop, s, m);
    CHECK(rt_group_join(loop, g, s) == 0 || m->data[0] != 'a');
    CHECK(rt_group_send(loop, g, RT_TEXT, m->data, m->len) == 1);
    EQUAL(rt_send(loop, s, RT_TEXT, m->data, m->len), 0);
    EQUAL(rt_read(loop, s, 0), 0);
    EQUAL(rt_read(loop, s, 1), 0);
    CHECK(rt_bind(loop, s, "me") == 0 || m->data[0] != 'a');
    CHECK(rt_timer_start(loop, s, rt_now(loop), timer_none, NULL).id != 0);
    rt_flush(loop);
    if (m->data[0] == 'b')
        rt_unlisten(loop, st.listener);
    return 0;
}

static void filters_may_make_any_call(void)
{
    st.opts.filter[0] = call_everything;
    st.opts.filter[1] = look;
    open_one();
    letters(&st.a, "abc");
    TOLD("a b c");
}

/* Filters see what the limits let pass; what they drop is counted. */
static void filters_come_after_the_limits(void)
{
    st.opts.filter[0] = refuse_b;
    filter.answer = 1;
    st.opts.message_rate = 1;
    st.opts.message_burst = 3;
    open_one();
    letters(&st.a, "abbcd");
    TOLD("a limit:2 limit:2");
    EQUAL(filter.seen, 3);
}

/* Also for a message that waited. */
static void filters_see_what_waited(void)
{
    st.opts.filter[0] = shorten;
    st.opts.byte_rate = 10;
    st.opts.byte_burst = 10;
    st.opts.rate_over = RT_OVER_PAUSE;
    open_one();
    message(&st.a, 'a', 9);
    message(&st.a, 'B', 9);
    TOLD("aaaaaaa");
    EQUAL(filter.seen, 1);
    skip(1001);
    TOLD("bbbbbbb");
    EQUAL(filter.seen, 2);
}

static void a_chain_with_a_gap_is_refused(void)
{
    rt_listen_opts o = {0};
    const char *text;
    int i;
    serve();
    for (i = 1; i < 8; i++) {
        memset(o.filter, 0, sizeof o.filter);
        o.filter[i] = look;
        EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", &o).id, 0);
        EQUAL(rt_error(st.loop, &text), RT_EINVAL);
        CHECK(strstr(text, "filter") != NULL);
    }
    o.filter[6] = look;
    o.filter[0] = look;
    EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", &o).id, 0);
}

/* ---- the time to bind -----------------------------------------------------
 */

static void who_is_not_bound_in_time_is_closed(void)
{
    st.opts.bind_ms = 5000;
    open_one();
    skip(3000);
    letters(&st.a, "a"); /* whatever it says */
    TOLD("a");
    skip(1000);
    TOLD("close:1008:0");
    EQUAL(got.cause, RT_BY_TIMEOUT);
    CHECK(strcmp(got.reason, "no user id in time") == 0);
}

static void bind_now(const char *what, rt_session s)
{
    if (strcmp(what, "open") == 0)
        EQUAL(rt_bind(st.loop, s, "me"), 0);
}

static void who_is_bound_stays(void)
{
    size_t before;
    st.opts.bind_ms = 5000;
    serve();
    st.deed = bind_now;
    enter(&st.a); /* bound within on_open: there never is a timer */
    EQUAL(rt_loop_timeout(st.loop), -1);
    st.deed = NULL;
    TOLD("open");
    enter(&st.b);
    CHECK(rt_loop_timeout(st.loop) > 0);
    before = peer_heap;
    EQUAL(rt_bind(st.loop, st.s[2], "me too"), 0);
    CHECK(peer_heap < before + 100); /* an id, but no timer */
    EQUAL(rt_loop_timeout(st.loop), -1);
    skip(5001);
    TOLD("2.open");
    EQUAL(rt_loop_timeout(st.loop), -1);
}

static int accept_as_me(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts accept = {"me", net1() ? "rtnet.1" : NULL, NULL};
    (void)r;
    EQUAL(rt_accept(loop, s, &accept), 0);
    return 0;
}

static void who_is_accepted_with_a_user_id_is_bound(void)
{
    if (st.wire != WS)
        return;
    st.opts.bind_ms = 5000;
    st.opts.on.request = accept_as_me;
    open_one();
    skip(10000);
    TOLD("");
    EQUAL(rt_state(st.loop, st.s[1]), RT_OPEN);
}

static void the_time_to_bind_runs_while_away(void)
{
    if (!net1())
        return;
    st.opts.bind_ms = 5000;
    open_one();
    line_cut(&st.a);
    TOLD("away");
    skip(4001);
    TOLD("close:1008:0");
    EQUAL(got.cause, RT_BY_TIMEOUT);
}

static void who_closes_unbound_leaves_no_timer(void)
{
    st.opts.bind_ms = 5000;
    open_one();
    EQUAL(rt_close(st.loop, st.s[1], 4000, ""), 0);
    TOLD("close:4000:0");
    skip(10000);
    TOLD("");
    enter(&st.b);
    TOLD("2.open");
    EQUAL(rt_close(st.loop, st.s[2], 4000, ""), 0);
    TOLD("2.close:4000:0");
}

static void no_memory_for_that_time_ends_that_session(void)
{
    int n, ended = 0;
    st.loop_opts.realloc = realloc_failing;
    st.opts.bind_ms = 5000;
    serve();
    for (n = 1; n < 40; n++) {
        int before = st.count;
        if (line_connect(&st.a, st.wire, st.port)) {
            fails_in = n;
            if (st.wire == WS)
                line_ask(&st.a);
            calm();
            if (net1())
                say(&st.a, "h");
            calm();
        }
        ended +=
            st.count > before && st.closes[st.count] && st.end.code == 1011;
        if (fails_in > 0)
            break;
    }
    fails_in = 0;
    CHECK(n < 40 && ended > 0);
    script_clear(&st.told);
}

/* ---- all of it ------------------------------------------------------------
 */

static void run_ways(const char *name, void (*test)(void))
{
    size_t i;
    int way;
    for (i = 0; i < sizeof peer_backends / sizeof *peer_backends; i++)
        for (way = 0; way < WAYS; way++) {
            test_begin("%s, %s, %s", name, way_names[way],
                       peer_backends[i].name);
            memset(&filter, 0, sizeof filter);
            limits_begin(peer_backends[i].which, way);
            test();
            if (st.loop)
                stage_end();
            test_end();
        }
}

#define RUN_WAYS(name) run_ways(#name, name)

static void rates(void)
{
    RUN_WAYS(a_burst_passes_then_what_the_rate_gives);
    RUN_WAYS(the_burst_of_a_rate_is_a_second_of_it);
    RUN_WAYS(bytes_are_those_of_the_payload);
    RUN_WAYS(an_empty_bucket_takes_a_message_of_any_size);
    RUN_WAYS(a_refused_message_takes_from_none);
    RUN_WAYS(above_a_limit_a_session_closes);
    RUN_WAYS(too_many_bytes_close_a_session);
    RUN_WAYS(on_limit_may_close_the_session);
    RUN_WAYS(on_limit_may_drop_the_connection);
    RUN_WAYS(a_pause_ends_when_a_message_may_pass);
    RUN_WAYS(a_pause_lasts_until_the_latest_allows_it);
    RUN_WAYS(a_message_that_was_read_waits_in_its_place);
    RUN_WAYS(a_session_may_close_while_paused);
    RUN_WAYS(a_peer_that_closes_while_paused_is_heard_out);
    RUN_WAYS(a_paused_peer_is_not_silent);
    RUN_WAYS(a_pause_delays_no_acknowledgement);
    RUN_WAYS(tcp_slows_a_paused_peer_down);
    RUN_WAYS(coming_back_does_not_refill_a_bucket);
    RUN_WAYS(taking_over_does_not_refill_a_bucket);
    RUN_WAYS(adopting_does_not_refill_a_bucket);
    RUN_WAYS(coming_back_does_not_end_a_pause);
    RUN_WAYS(a_message_that_waits_outlives_the_connection);
    RUN_WAYS(a_message_that_waits_goes_with_its_connection);
    RUN_WAYS(a_pause_takes_no_time_from_half_a_message);
    RUN_WAYS(what_waits_passes_where_there_is_no_limit);
    RUN_WAYS(the_credit_of_a_resume);
    RUN_WAYS(the_credit_for_bytes);
    RUN_WAYS(the_credit_is_at_most_128);
    RUN_WAYS(coming_and_going_wins_nothing);
    RUN_WAYS(limits_cost_nothing_before_the_first_message);
    RUN_WAYS(the_greatest_limits_are_served);
    RUN_WAYS(off_is_no_limit);
    RUN_WAYS(no_memory_for_a_limit_ends_that_session);
}

static void control(void)
{
    RUN_WAYS(twenty_control_frames_a_second_are_borne);
    RUN_WAYS(each_kind_of_control_frame_counts);
    RUN_WAYS(control_frames_are_no_messages);
    RUN_WAYS(what_we_asked_for_is_free);
    RUN_WAYS(an_answer_said_again_is_control);
    RUN_WAYS(a_patience_of_300_pings_ends);
    RUN_WAYS(a_flood_of_control_frames_is_no_life);
    RUN_WAYS(messages_are_life);
    RUN_WAYS(the_bytes_of_a_message_are_life);
    RUN_WAYS(the_bytes_of_an_acknowledgement_are_no_life);
    RUN_WAYS(acknowledgements_that_free_are_life);
    RUN_WAYS(a_late_answer_is_life);
    RUN_WAYS(a_dialled_session_bears_as_many);
}

static void filters(void)
{
    RUN_WAYS(filters_run_in_order);
    RUN_WAYS(filters_change_a_message_where_it_is);
    RUN_WAYS(filters_may_change_kind_and_leave_nothing);
    RUN_WAYS(filters_drop_messages);
    RUN_WAYS(filters_close_with_a_code);
    RUN_WAYS(an_impossible_answer_is_an_error);
    RUN_WAYS(an_impossible_message_is_an_error);
    RUN_WAYS(rt_close_in_a_filter_stops_the_chain);
    RUN_WAYS(rt_drop_in_a_filter);
    RUN_WAYS(filters_may_make_any_call);
    RUN_WAYS(filters_come_after_the_limits);
    RUN_WAYS(filters_see_what_waited);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    rates();
    control();
    filters();
    RUN_WAYS(who_is_not_bound_in_time_is_closed);
    RUN_WAYS(who_is_bound_stays);
    RUN_WAYS(who_is_accepted_with_a_user_id_is_bound);
    RUN_WAYS(the_time_to_bind_runs_while_away);
    RUN_WAYS(who_closes_unbound_leaves_no_timer);
    RUN_WAYS(no_memory_for_that_time_ends_that_session);
    limits_begin(RT_AUTO, PLAIN_WS);
    RUN(what_cannot_be_meant_is_refused);
    stage_end();
    limits_begin(RT_AUTO, PLAIN_WS);
    RUN(a_chain_with_a_gap_is_refused);
    stage_end();
    return test_done();
}
