/*
 * Rows 1 to 14: frames.  Both roles, unless a row is about one of them: for
 * as_server 0 the peer is a client, whose frames are masked.
 */

/* 1: gorilla, mongoose.  Neither the sum of a length and a head nor that of it
   and what is there already may wrap past the limit. */
static const uint64_t row_01_lengths[] = {0,
                                          125,
                                          126,
                                          127,
                                          65535,
                                          65536,
                                          0x7fffffff,
                                          0x80000000,
                                          0xffffffff,
                                          0x100000000,
                                          UINT64_C(1) << 62,
                                          (UINT64_C(1) << 63) - 1,
                                          UINT64_C(1) << 63,
                                          UINT64_MAX - 3,
                                          UINT64_MAX};

static void row_01_length(int as_server, uint64_t len, int masked)
{
    static struct bytes b;
    static const uint8_t zeros[65536];
    struct verdict v;

    b.len = 0;
    put_head(&b, 0x82, len, masked);
    put_payload(&b, zeros, len <= 65536 ? (size_t)len : 64, masked);
    v = play_bytes(as_server, &b);
    if (masked == as_server || len >> 63) {
        refused_with(v, 1002);
    } else if (len > 65536) {
        refused_with(v, 1009);
    } else {
        EQUAL(v.messages, 1);
        EQUAL(v.len, len);
        EQUAL(v.code, 0);
    }
}

/* The first fragment has 10 bytes: what is added to it may wrap, too. */
static void row_01_second_fragment(int as_server, uint64_t len)
{
    static struct bytes b;

    b.len = 0;
    put_frame(&b, 0x02, "0123456789", 10, !as_server);
    put_head(&b, 0x80, len, !as_server);
    put_payload(&b, "more", 4, !as_server);
    refused_with(play_bytes(as_server, &b), len >> 63 ? 1002 : 1009);
}

static void row_01_a_length_that_wraps_is_refused(void)
{
    size_t i;
    int role;

    stage_open(NULL, NULL);
    for (i = 0; i < 2 * 2 * COUNT(row_01_lengths); i++)
        row_01_length(i & 1, row_01_lengths[i / 4], i >> 1 & 1);
    for (role = 0; role < 2; role++) {
        row_01_second_fragment(role, 0xfffffff6); /* 2^32 - 10 */
        row_01_second_fragment(role, 0xffffffff);
        row_01_second_fragment(role, (UINT64_C(1) << 63) - 1);
        row_01_second_fragment(role, UINT64_MAX - 9);
    }
    stage_end();
}

static uint64_t system_calls(void)
{
    uint64_t n = 0;
    int i;

    for (i = 0; i < SIM_CALL_COUNT; i++)
        n += sim_calls((enum sim_call)i);
    return n;
}

/* 2: Tomcat, facil.io.  An endless loop would end in alarm; what is counted
   are the calls of the system, which grow with the bytes and not with the
   length that is announced. */
static void row_02_a_length_with_the_top_bit_is_1002_at_once(void)
{
    static struct bytes b;
    uint64_t before, len;
    int bit, role;

    stage_open(NULL, NULL);
    for (bit = 0; bit < 2 * 63; bit++) {
        role = bit & 1;
        len = UINT64_C(1) << 63 | UINT64_C(1) << bit / 2;
        b.len = 0;
        put_head(&b, 0x82, len, !role);
        put_payload(&b, "bytes", 5, !role);
        before = system_calls();
        refused_with(play(role, b.at, b.len, 0), 1002);
        CHECK(system_calls() - before < 150);
        refused_with(play(role, b.at, b.len, 1), 1002);
    }
    stage_end();
}

/* 3: baresip, ios-webkit-debug-proxy: 4 + length is 0, and the unmasking writes
   on and on.  The head lies before a forbidden page. */
static void row_03_a_length_near_2_64_unmasks_only_what_came(void)
{
    static struct bytes b;
    guard g = guard_open(64);
    rt__frame f;
    size_t n;

    put_head(&b, 0x82, UINT64_C(0xfffffffffffffffc), 1);
    EQUAL(b.len, 14);
    for (n = 0; n <= 14; n++)
        CHECK(rt__frame_read(guard_copy(&g, b.at, n), n, 1, &f) <= 0);
    EQUAL(rt__frame_read(guard_copy(&g, b.at, 14), 14, 1, &f), -1);
    guard_close(&g);
    stage_open(NULL, NULL);
    refused_with(play_bytes(0, &b), 1002);
    put(&b, "these bytes have come", 21);
    refused_with(play_bytes(0, &b), 1002);
    stage_end();
    b.len = 0;
}

/* 4: rust-websocket, notnet.  2^30 are announced and allowed, 10 bytes come. */
static void row_04_an_announced_length_costs_no_memory(void)
{
    rt_listen_opts o = {.max_message = 1 << 30};
    static struct bytes b;
    size_t before;
    int role;

    stage_open(&o, NULL);
    stage.dial.max_message = 1 << 30;
    for (role = 0; role < 2; role++) {
        ws_peer *w = peer_of(role);
        before = sim_heap();
        b.len = 0;
        put_head(&b, 0x82, 1 << 30, !role);
        put_payload(&b, "ten bytes.", 10, !role);
        ws_raw(w, b.at, b.len);
        settle();
        EQUAL(stage.closes, 0);
        EQUAL(sim_peer_state(w->line), SIM_UP);
        CHECK(grown(before) <= 65536 + 1024);
    }
    stage_end();
}

/* 5: ws.  65,536 bytes are a message, one more is 1009, whole or in parts. */
static void row_05_size(int as_server, size_t first, size_t second)
{
    static const uint8_t zeros[65537];
    static struct bytes b;
    struct verdict v;

    b.len = 0;
    put_frame(&b, second ? 0x02 : 0x82, zeros, first, !as_server);
    if (second)
        put_frame(&b, 0x80, zeros, second, !as_server);
    v = play_bytes(as_server, &b);
    if (first + second > 65536) {
        refused_with(v, 1009);
        return;
    }
    EQUAL(v.code, 0);
    EQUAL(v.len, first + second);
}

static void row_05_the_default_limit_is_64_kib(void)
{
    int role;

    stage_open(NULL, NULL);
    for (role = 0; role < 2; role++) {
        row_05_size(role, 65536, 0);
        row_05_size(role, 65537, 0);
        row_05_size(role, 60000, 5536);
        row_05_size(role, 60000, 5537);
        row_05_size(role, 65536, 1);
    }
    stage_end();
}

/* 6: ws, undici.  Fragments that never end, empty or of one byte, with and
   without the limit on their number. */
static int row_06_stream(ws_peer *w, size_t size, int most, size_t cap)
{
    size_t before = sim_heap();
    int i;

    ws_frame(w, WS_BINARY, "x", size);
    for (i = 0; i < most && !stage.closes && well(); i++) {
        ws_frame(w, WS_MORE, "x", size);
        if (i % 1000 == 0)
            step(0);
        if (grown(before) > cap)
            sim_fault("%zu bytes after %d fragments", grown(before), i);
    }
    settle();
    return i;
}

/* Behind 100,000 bytes, one by one: the message is not copied for each.  In
   fragments, and as packets of a codec that cannot tell their size. */
static uint64_t row_06_taken;

static void *row_06_realloc(void *user, void *p, size_t old, size_t now)
{
    row_06_taken += now > old ? now : 0;
    return sim_realloc(user, p, old, now);
}

/* A packet ends with a 0. */
static ptrdiff_t row_06_decode(void *ctx, const uint8_t *in, size_t n,
                               size_t *at, size_t *len, int *kind)
{
    (void)ctx;
    *at = 0;
    *len = n - 1;
    *kind = RT_BINARY;
    return n && in[n - 1] == 0 ? (ptrdiff_t)n : 0;
}

static size_t row_06_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx, (void)out, (void)kind, (void)len;
    return 0;
}

static void row_06_long(int packets)
{
    static const rt_codec codec = {.decode = row_06_decode,
                                   .head = row_06_head};
    rt_listen_opts o = {.max_message = 1 << 20,
                        .framing = packets ? RT_CODEC : 0,
                        .codec = packets ? &codec : NULL};
    static uint8_t data[100000];
    ws_peer *w;
    int i;

    memset(data, 'x', sizeof data);
    sim_start(NULL);
    stage_open_on(packets ? "tcp://127.0.0.1:9000" : "ws://127.0.0.1:9000", &o,
                  row_06_realloc);
    w = packets ? peer_add(ws_connect_silent(PORT)) : peer_open();
    if (packets)
        ws_raw(w, data, sizeof data);
    else
        ws_frame(w, WS_BINARY, data, sizeof data);
    settle();
    row_06_taken = 0;
    for (i = 0; i < 1000; i++) {
        if (packets)
            ws_raw(w, "y", 1);
        else
            ws_frame(w, WS_MORE, "y", 1);
    }
    if (packets)
        ws_raw(w, "", 1);
    else
        ws_frame(w, 0x80, "y", 1);
    settle();
    EQUAL(stage.messages, 1);
    EQUAL(stage.len, sizeof data + 1000 + !packets);
    CHECK(row_06_taken < 10 * sizeof data);
    stage_end();
}

static void row_06_a_million_empty_fragments_cost_nothing(void)
{
    rt_listen_opts o = {.max_fragments = RT_OFF};

    stage_open(NULL, NULL);
    CHECK(row_06_stream(peer_open(), 0, 1000000, 8192) <= 3000);
    EQUAL(stage.end.code, 1009);
    stage_end();
    stage_open(NULL, NULL);
    CHECK(row_06_stream(peer_open(), 1, 1000000, 8192) <= 3000);
    EQUAL(stage.end.code, 1009);
    stage_end();
    stage_open(&o, NULL);
    EQUAL(row_06_stream(peer_open(), 0, 1000000, 8192), 1000000);
    EQUAL(stage.closes, 0);
    until_closes(1, 60000); /* the deadline of the message ends it */
    EQUAL(stage.end.cause, RT_BY_TIMEOUT);
    stage_end();
    stage_open(&o, NULL);
    /* Its size does; each buffer is twice the one before, all are kept. */
    CHECK(row_06_stream(peer_open(), 1, 1000000, 4 * 65536 + 1024) <= 67000);
    EQUAL(stage.end.code, 1009);
    stage_end();
    row_06_long(0);
    row_06_long(1);
}

/* 7: hackney.  A byte a second for ten minutes: in one frame, or each in a
   fragment with a ping behind it. */
static void row_07_drip(int as_server, int fragments)
{
    ws_peer *w = peer_of(as_server);
    uint64_t start = sim_now();
    int closes = stage.closes, i;
    static struct bytes b;

    b.len = 0;
    put_head(&b, 0x82, 600, !as_server);
    if (fragments)
        ws_frame(w, WS_BINARY, "x", 1);
    else
        ws_raw(w, b.at, b.len);
    for (i = 0; i < 600 && stage.closes == closes && well(); i++) {
        run(1000);
        if (fragments)
            ws_send(w, WS_PING, "", 0);
        if (fragments)
            ws_frame(w, WS_MORE, "x", 1);
        else
            ws_raw(w, "x", 1);
    }
    between(stage.closed_at - start, 29900, 30100);
    EQUAL(stage.end.cause, RT_BY_TIMEOUT);
    EQUAL(stage.messages, 0);
    peers_free();
}

static void row_07_a_message_has_one_deadline_in_all(void)
{
    stage_open(NULL, NULL);
    row_07_drip(0, 0);
    row_07_drip(0, 1);
    row_07_drip(1, 0);
    row_07_drip(1, 1);
    stage_end();
}

/* 8: mongoose.  sim_realloc moves a block whenever it is asked to change it,
   and under ASan the old place is poison.  Messages that come in growing parts,
   with pings between, while the application sends and stops reading. */
static void row_08_answer(rt_loop *l, rt_session s)
{
    CHECK(rt_send(l, s, stage.kind, stage.data, stage.len) >= 0);
    CHECK(rt_send(l, s, RT_TEXT, "and more", 8) >= 0);
    if (stage.messages % 3 == 0)
        EQUAL(rt_read(l, s, 0), 0);
}

static void row_08_a_buffer_may_move_at_any_time(void)
{
    rt_listen_opts o = {.control_rate = RT_OFF};
    static uint8_t data[20000];
    ws_peer *w;
    size_t i, part, at;
    int k;

    for (i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
    stage_open(&o, NULL);
    stage.also_message = row_08_answer;
    w = peer_open();
    for (k = 0; k < 12; k++) {
        for (at = 0, part = 1; at < sizeof data; at += part, part *= 2) {
            if (part > sizeof data - at)
                part = sizeof data - at;
            ws_frame(w, (at ? 0 : WS_BINARY) | (at + part == sizeof data) << 7,
                     data + at, part);
            ws_send(w, WS_PING, data, at % 126);
            if (k % 2)
                step(0);
        }
        settle();
        rt_read(stage.loop, stage.last, 1);
        settle();
        EQUAL(stage.messages, k + 1);
        EQUAL(stage.len, sizeof data);
        CHECK(memcmp(stage.data, data, sizeof data) == 0);
    }
    EQUAL(stage.closes, 0);
    stage_end();
}

/* 9: mongoose.  Autobahn 5.9 to 5.15: a continuation with nothing begun. */
static void row_09_a_continuation_of_nothing_is_1002(void)
{
    static struct bytes b;
    struct verdict v;
    int i, first;

    stage_open(NULL, NULL);
    for (i = 0; i < 16; i++) {
        int role = i & 1, before = i >> 1 & 1;
        first = i >> 2 & 1 ? 0x80 : 0x00;
        b.len = 0;
        if (before)
            put_frame(&b, 0x81, "whole", 5, !role);
        put_frame(&b, (unsigned)first, "tail", i >> 3 ? 4 : 0, !role);
        put_frame(&b, 0x81, "never", 5, !role);
        v = play_bytes(role, &b);
        EQUAL(v.code, 1002);
        EQUAL(v.told, 1002);
        EQUAL(v.messages, before);
    }
    stage_end();
}

/* 10: uWS.  Each length, phase and place against a forbidden page, before and
   behind; then each split of a message in two fragments. */
static void row_10_mask(const guard *in, const guard *out, size_t n,
                        size_t phase)
{
    static const uint8_t mask[4] = {0x11, 0x82, 0x44, 0xf7};
    int way;
    size_t i;

    for (way = 0; way < 16; way++) {
        uint8_t *from = way & 1 ? guard_first(in) : guard_last(in, n);
        uint8_t *to = way & 2 ? guard_first(out) : guard_last(out, n);
        to = way & 4 ? from : to;
        for (i = 0; i < n; i++)
            from[i] = (uint8_t)(i * 5);
        (way & 8 ? rt__mask_words : rt__mask)(to, from, n, mask, phase);
        for (i = 0; i < n; i++) {
            if (to[i] != ((uint8_t)(i * 5) ^ mask[(phase + i) & 3]))
                EQUAL(to[i], (uint8_t)(i * 5) ^ mask[(phase + i) & 3]);
        }
    }
}

static void row_10_split(size_t n, size_t at)
{
    static struct bytes b;
    struct verdict v;
    uint8_t data[64];
    size_t i;

    for (i = 0; i < n; i++)
        data[i] = (uint8_t)(i * 7);
    b.len = 0;
    put_frame(&b, 0x02, data, at, 1);
    put_frame(&b, 0x80, data + at, n - at, 1);
    v = play(0, b.at, b.len, 1);
    EQUAL(v.len, n);
    CHECK(stage.data && memcmp(stage.data, data, n) == 0);
}

static void row_10_the_mask_stays_within_its_bytes(void)
{
    guard in = guard_open(256), out = guard_open(256);
    size_t n, phase;

    for (n = 0; n <= 200; n++) {
        for (phase = 0; phase < 4; phase++)
            row_10_mask(&in, &out, n, phase);
    }
    guard_close(&in);
    guard_close(&out);
    stage_open(NULL, NULL);
    for (n = 0; n <= 20; n++)
        row_10_split(20, n);
    stage_end();
}

/* 11: grappa-irc.  A head of 14 bytes (10 from a server), and the shorter ones,
   cut at each place: what comes of it is what comes of the whole. */
static void row_11_cut(int as_server, const struct bytes *b, size_t at,
                       size_t len)
{
    ws_peer *w = peer_of(as_server);
    int messages = stage.messages;

    ws_raw(w, b->at, at);
    settle();
    EQUAL(stage.messages, messages);
    ws_raw(w, b->at + at, b->len - at);
    settle();
    EQUAL(stage.messages, messages + 1);
    EQUAL(stage.len, len);
    EQUAL(stage.data[len - 1], 'z');
    peers_free();
}

static void row_11_a_head_may_be_cut_anywhere(void)
{
    static const size_t lengths[] = {5, 126, 65536};
    static uint8_t data[65536];
    static struct bytes b;
    size_t i, at;
    int role;

    memset(data, 'z', sizeof data);
    stage_open(NULL, NULL);
    for (i = 0; i < 2 * COUNT(lengths); i++) {
        role = i & 1;
        b.len = 0;
        put_frame(&b, 0x82, data, lengths[i / 2], !role);
        for (at = 1; at <= 14; at++) {
            if (at < b.len)
                row_11_cut(role, &b, at, lengths[i / 2]);
        }
    }
    stage_end();
}

/* 12: RFC 6455, 5.1. */
static void row_12_the_wrong_mask_bit_is_1002(void)
{
    static const unsigned firsts[] = {0x81, 0x82, 0x01, 0x89, 0x8a};
    static struct bytes b;
    size_t i;
    int role;

    stage_open(NULL, NULL);
    for (i = 0; i < 2 * COUNT(firsts); i++) {
        role = i & 1;
        b.len = 0;
        put_frame(&b, firsts[i / 2], "secret", 6, role);
        refused_with(play_bytes(role, &b), 1002);
        refused_with(play(role, b.at, b.len, 1), 1002);
    }
    stage_end();
}

/* 13: RFC 6455, 5.5 and 5.2: too long, in parts, with reserved bits, with a
   reserved opcode. */
static void row_13_frame(unsigned first, size_t n)
{
    static const uint8_t zeros[126];
    static struct bytes b;
    int role;

    for (role = 0; role < 2; role++) {
        b.len = 0;
        put_frame(&b, first, zeros, n, !role);
        put_frame(&b, 0x81, "never", 5, !role);
        refused_with(play_bytes(role, &b), 1002);
    }
}

static void row_13_a_wrong_control_frame_is_1002(void)
{
    unsigned op, rsv;

    stage_open(NULL, NULL);
    for (op = 8; op <= 10; op++) {
        row_13_frame(0x80 | op, 126);
        row_13_frame(op, 2);
        row_13_frame(op, 0);
    }
    for (rsv = 0x10; rsv <= 0x70; rsv += 0x10) {
        for (op = 0; op <= 10; op += op == 2 ? 6 : 1)
            row_13_frame(0x80 | rsv | op, 2);
    }
    for (op = 3; op < 16; op += op == 7 ? 4 : 1) {
        row_13_frame(0x80 | op, 1);
        row_13_frame(op, 0);
    }
    stage_end();
}

/* 14: RFC 6455, 5.5.1, 7.4.  The law, written down once more. */
static int row_14_may_be_sent(int code)
{
    if (code >= 3000)
        return code < 5000;
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

/* Over the wire: what on_close and the peer are told. */
static void row_14_wire(int code, const char *reason, int n, int want)
{
    uint8_t body[130];
    static struct bytes b;
    struct verdict v;
    int role;

    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    memcpy(body + 2, reason, n > 2 ? (size_t)n - 2 : 0);
    for (role = 0; role < 2; role++) {
        b.len = 0;
        put_frame(&b, 0x88, body, (size_t)n, !role);
        v = play_bytes(role, &b);
        EQUAL(v.code, want);
        EQUAL(v.told, want);
        EQUAL(stage.end.cause,
              want == (n ? code : 1005) ? RT_BY_PEER : RT_BY_ERROR);
    }
}

static void row_14_every_close_code_is_judged(void)
{
    ws_peer *w;
    int code;

    stage_open(NULL, NULL);
    for (code = 0; code < 65536; code++)
        EQUAL(rt__close_code_valid(code), row_14_may_be_sent(code));
    /* With select up to 5,099: seconds, and nothing there depends on it. */
    for (code = 0; code < (stage.backend == RT_EPOLL ? 65536 : 5100); code++)
        row_14_wire(code, "", 2, row_14_may_be_sent(code) ? code : 1002);
    row_14_wire(0x0300, "", 1, 1002);
    row_14_wire(0, "", 0, 1005);
    row_14_wire(1000, "\xc3", 3, 1007);
    row_14_wire(1000, "\xed\xa0\x80", 5, 1007);
    row_14_wire(1000, "\xc3\xa9", 4, 1000);
    /* The application cannot send what must not be sent. */
    w = peer_open();
    for (code = 1; code < 65536; code++) {
        if (!row_14_may_be_sent(code))
            EQUAL(rt_close(stage.loop, stage.last, code, NULL), RT_EINVAL);
    }
    settle();
    EQUAL(w->close_code, 0);
    sim_peer_reset(w->line); /* only here is it 1006 */
    settle();
    EQUAL(stage.end.code, 1006);
    stage_end();
}
