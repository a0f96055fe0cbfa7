/*
 * Rows 1 to 24: frames.  Both roles, unless a row is about one of them: for
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
    for (code = 0; code < 65536; code += code < 5010 ? 1 : 997) {
        if (code < 990 || (code > 1020 && code % 100 > 1 && code % 100 < 99))
            code += long_run ? 0 : 89;
        row_14_wire(code, "", 2, row_14_may_be_sent(code) ? code : 1002);
    }
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

/* 15: Autobahn 6.  A decoder made of the ranges of RFC 3629: what may follow
   the first n bytes of p.  Returns 1: a character is whole; 0: it may become
   one; -1: never. */
static int row_15_reference(const uint8_t *p, size_t n)
{
    static const struct {
        uint8_t from, to, low, high;
        size_t size;
    } rule[] = {{0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2},
                {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
                {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
                {0xf4, 0xf4, 0x80, 0x8f, 4}};
    size_t i, k;

    for (i = 0; i < COUNT(rule); i++) {
        if (p[0] < rule[i].from || p[0] > rule[i].to)
            continue;
        if (n > 1 && (p[1] < rule[i].low || p[1] > rule[i].high))
            return -1;
        for (k = 2; k < n; k++) {
            if (p[k] < 0x80 || p[k] > 0xbf)
                return -1;
        }
        return n == rule[i].size;
    }
    return -1;
}

/* Of a sequence, byte by byte: the same judgement, at the same byte. */
static int row_15_agrees(const uint8_t *p, size_t n)
{
    rt__utf8 u = {0};
    size_t i, from = 0;

    for (i = 0; i < n; i++) {
        int want = row_15_reference(p + from, i + 1 - from);
        if (rt__utf8_feed(&u, p + i, 1) != (want >= 0))
            return 0;
        if (want < 0)
            return 1;
        if (want != (u.need == 0))
            return 0;
        from = want ? i + 1 : from;
    }
    return rt__utf8_valid(p, n) == (u.need == 0);
}

/* All of three bytes, whose tails are all of two and one; of four, those with
   the bytes at which a rule changes, and with --long all that begin above
   0xef. */
static void row_15_sequences(void)
{
    static const uint8_t edge[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                   0xa0, 0xbf, 0xc0, 0xc2, 0xff};
    uint8_t p[4];
    uint32_t i, wrong = 0, a, b;

    for (i = 0; i < 1 << 24; i++) {
        p[0] = (uint8_t)(i >> 16), p[1] = (uint8_t)(i >> 8), p[2] = (uint8_t)i;
        if (p[0] >= 0x80 || long_run || (i & 0xff) % 5 == 0)
            wrong += !row_15_agrees(p, 3);
    }
    for (i = 0xf000; i < 0x10000; i++) {
        p[0] = (uint8_t)(i >> 8), p[1] = (uint8_t)i;
        for (a = 0; a < (long_run ? 256 : COUNT(edge)); a++) {
            for (b = 0; b < (long_run ? 256 : COUNT(edge)); b++) {
                p[2] = long_run ? (uint8_t)a : edge[a];
                p[3] = long_run ? (uint8_t)b : edge[b];
                wrong += !row_15_agrees(p, 4);
            }
        }
    }
    EQUAL(wrong, 0);
}

/* Over the wire: 1007 with the byte that makes it certain, although the
   message goes on, in a fragment or in the middle of a frame. */
static void row_15_early(const char *text, size_t sure)
{
    static struct bytes b;
    int role, messages;
    ws_peer *w;
    size_t i;

    for (role = 0; role < 2; role++) {
        w = peer_of(role);
        messages = stage.messages;
        for (i = 0; i < sure; i++) {
            b.len = 0;
            put_frame(&b, i ? 0x00 : 0x01, text + i, 1, !role);
            EQUAL(w->close_code, 0);
            ws_raw(w, b.at, b.len);
            settle();
        }
        EQUAL(w->close_code, 1007);
        EQUAL(stage.messages, messages);
        w = peer_of(role);
        b.len = 0;
        put_head(&b, 0x81, 1000, !role);
        put_payload(&b, text, sure, !role);
        ws_raw(w, b.at, b.len - 1);
        settle();
        EQUAL(w->close_code, 0);
        ws_raw(w, b.at + b.len - 1, 1);
        settle();
        EQUAL(w->close_code, 1007);
    }
    peers_free();
}

static void row_15_text_is_utf8_or_1007_at_once(void)
{
    if (stage.backend == RT_EPOLL)
        row_15_sequences(); /* the same with any */
    stage_open(NULL, NULL);
    row_15_early("\xed\xa0", 2);         /* a surrogate */
    row_15_early("\xc0", 1);             /* overlong */
    row_15_early("a\xe0\x80", 3);        /* overlong */
    row_15_early("\xf0\x8f", 2);         /* overlong */
    row_15_early("ab\xf4\x90", 4);       /* beyond U+10FFFF */
    row_15_early("\xf5", 1);             /* beyond U+10FFFF */
    row_15_early("\xe2\x82\xac\x80", 4); /* a tail alone */
    row_15_early("\xe2\x82"
                 "a",
                 3); /* cut short */
    stage_end();
}

/* 16: RFC 6455, 5.4. */
static void row_16_only_control_frames_go_between_fragments(void)
{
    static struct bytes b;
    struct verdict v;
    int i, role;
    unsigned op;

    stage_open(NULL, NULL);
    for (i = 0; i < 8; i++) {
        role = i & 1;
        op = i >> 1 & 1 ? 0x02 : 0x01;
        b.len = 0;
        put_frame(&b, 0x01, "a", 1, !role);
        put_frame(&b, op | (i >> 2 ? 0x80 : 0), "b", 1, !role);
        put_frame(&b, 0x80, "c", 1, !role);
        refused_with(play_bytes(role, &b), 1002);
        b.len = 0;
        put_frame(&b, op, "a", 1, !role);
        put_frame(&b, 0x89, "ping", 4, !role);
        put_frame(&b, 0x00, "b", 1, !role);
        put_frame(&b, 0x8a, "pong", 4, !role);
        put_frame(&b, 0x80, "c", 1, !role);
        v = play(role, b.at, b.len, (size_t)(i >> 2));
        EQUAL(v.code, 0);
        EQUAL(v.messages, 1);
        CHECK(v.len == 3 && memcmp(stage.data, "abc", 3) == 0);
    }
    stage_end();
}

/* 17: wslay.  The scripted peer takes each frame behind a close for a fault;
   here are the sends that would make one, before and behind the close. */
static void row_17_ours(int as_server)
{
    ws_peer *w = peer_of(as_server);
    rt_session s = stage.last;
    int messages = stage.messages;

    w->closes = 0;
    EQUAL(rt_send(stage.loop, s, RT_TEXT, "before", 6), 0);
    EQUAL(rt_close(stage.loop, s, 4000, "over"), 0);
    EQUAL(rt_send(stage.loop, s, RT_TEXT, "behind", 6), RT_EGONE);
    EQUAL(rt_close(stage.loop, s, 4001, ""), RT_EGONE);
    ws_send(w, WS_PING, "ping", 4);
    ws_send(w, WS_TEXT, "ignored", 7);
    settle();
    EQUAL(rt_send(stage.loop, s, RT_TEXT, "behind", 6), RT_EGONE);
    ws_send(w, WS_PING, "ping", 4);
    ws_send(w, WS_TEXT, "ignored", 7);
    settle();
    EQUAL(w->close_code, 4000);
    EQUAL(w->pongs_got, 0);
    EQUAL(stage.messages, messages);
    ws_close(w, 4000);
    w->closes = 1;
    settle();
    EQUAL(w->last, as_server ? SIM_UP : SIM_FIN); /* the server goes first */
    peers_free();
}

/* The peer's close: data behind it is nothing, and our answer is the last. */
static void row_17_theirs(int as_server)
{
    ws_peer *w = peer_of(as_server);
    rt_session s = stage.last;
    int messages = stage.messages;

    ws_close(w, 3000);
    ws_send(w, WS_TEXT, "ignored", 7);
    ws_send(w, WS_PING, "ping", 4);
    step(0);
    EQUAL(rt_send(stage.loop, s, RT_TEXT, "behind", 6), RT_EGONE);
    settle();
    EQUAL(w->close_code, 3000);
    EQUAL(w->pongs_got, 0);
    EQUAL(stage.messages, messages);
    EQUAL(stage.end.code, 3000);
    peers_free();
}

static void row_17_nothing_follows_a_close(void)
{
    int role;

    stage_open(NULL, NULL);
    for (role = 0; role < 2; role++) {
        row_17_ours(role);
        row_17_theirs(role);
    }
    stage_end();
}

/* 18: curl.  The masks of a thousand frames, in order. */
enum { MASKS = 1000 };

static void row_18_masks(uint64_t seed, uint32_t out[MASKS])
{
    sim_opts weather = {.seed = seed};
    uint64_t drawn;
    uint8_t frame[8];
    ws_peer *w;
    int i;

    stage_open(NULL, &weather);
    w = peer_of(1);
    drawn = sim_calls(SIM_getrandom);
    for (i = 0; i < MASKS && well(); i++) {
        EQUAL(rt_send(stage.loop, stage.last, RT_BINARY, "", 0), 0);
        rt_poll(stage.loop, 0);
        EQUAL(sim_peer_recv(w->line, frame, sizeof frame), 6);
        memcpy(&out[i], frame + 2, 4);
    }
    EQUAL(sim_calls(SIM_getrandom), drawn); /* a stream, not the system's */
    stage_end();
}

static int by_value(const void *a, const void *b)
{
    uint32_t x, y;

    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* Of sorted numbers: how many stand there twice. */
static int doubles(uint32_t *n, int count)
{
    int i, same = 0;

    qsort(n, (size_t)count, sizeof *n, by_value);
    for (i = 1; i < count; i++)
        same += n[i] == n[i - 1];
    return same;
}

/* All distinct, so are their differences (no counter, no constant step), and
   each bit is set in half of them. */
static void row_18_every_frame_has_a_mask_of_its_own(void)
{
    static uint32_t mask[MASKS], other[MASKS], step_of[MASKS];
    int i, bit, set, same = 0;

    row_18_masks(1, mask);
    row_18_masks(2, other);
    for (i = 0; i < MASKS; i++) {
        same += mask[i] == other[i];
        step_of[i] = mask[(i + 1) % MASKS] - mask[i];
    }
    EQUAL(same, 0);
    for (bit = 0; bit < 32; bit++) {
        for (set = i = 0; i < MASKS; i++)
            set += (mask[i] >> bit & 1) != 0;
        between((uint64_t)set, MASKS / 2 - 80, MASKS / 2 + 80);
    }
    EQUAL(doubles(mask, MASKS), 0);
    EQUAL(doubles(step_of, MASKS), 0);
}

/* 19: curl.  Pings come and no pong can go.  Waits that follow one another
   without progress are a fault of the world; so are those without an end. */
static void row_19_pings_while_nothing_can_be_sent_do_not_spin(void)
{
    sim_opts weather = {.spin = 50};
    uint64_t waits;
    ws_peer *w;
    int role, i;

    stage_open(NULL, &weather);
    for (role = 0; role < 2; role++) {
        w = peer_of(role);
        sim_peer_window(w->line, 0);
        w->reads = 0;
        for (i = 0; i < 10; i++) {
            ws_send(w, WS_PING, "ping", 4);
            step(0);
        }
        settle();
        waits = sim_calls(SIM_epoll_wait) + sim_calls(SIM_select);
        run(1000);
        between(sim_calls(SIM_epoll_wait) + sim_calls(SIM_select) - waits, 1,
                40);
        EQUAL(stage.closes, 0);
        w->reads = 1;
        sim_peer_window(w->line, 65536);
        settle();
        CHECK(w->pongs_got > 0);
    }
    stage_end();
}

/* 20: curl, okhttp, HTTP/2.  Of a million pings unread one pong is kept, the
   last; in the limits, and without control_rate.  With it, a flood is 1008. */
static void row_20_flood(ws_peer *w, int thousands)
{
    char text[8];
    int i, k;

    for (i = 0; i < thousands && well(); i++) {
        for (k = 0; k < 1000; k++) {
            snprintf(text, sizeof text, "%03d%03d", i, k);
            ws_send(w, WS_PING, text, 6);
        }
        step(0);
        step(0);
    }
}

static char row_20_last[8];

static void row_20_pong(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w;
    if (op == WS_PONG && len < sizeof row_20_last) {
        memset(row_20_last, 0, sizeof row_20_last);
        memcpy(row_20_last, data, len);
    }
}

static void row_20_a_million_unread_pings_hold_one_pong(void)
{
    rt_listen_opts o = {.control_rate = RT_OFF};
    size_t before;
    ws_peer *w;

    stage_open(&o, NULL);
    w = peer_open();
    w->on = row_20_pong;
    w->reads = 0;
    sim_peer_window(w->line, 0);
    EQUAL(rt_send(stage.loop, stage.last, RT_TEXT, "!", 1), 0);
    settle(); /* it is known that nothing can be written */
    row_20_flood(w, 1);
    before = sim_heap();
    CHECK(rt_unsent(stage.loop, stage.last) <= 3 + 131);
    row_20_flood(w, 1000);
    CHECK(grown(before) <= 131);
    CHECK(rt_unsent(stage.loop, stage.last) <= 3 + 131);
    w->reads = 1;
    sim_peer_window(w->line, 65536);
    settle();
    EQUAL(w->pongs_got, 1);
    CHECK(strcmp(row_20_last, "999999") == 0);
    EQUAL(stage.closes, 0);
    stage_end();
    stage_open(NULL, NULL);
    w = peer_open();
    row_20_flood(w, 1);
    EQUAL(stage.end.code, 1008);
    EQUAL(stage.end.cause, RT_BY_LIMIT);
    stage_end();
}

/* 21: ws.  What is sent lies before a forbidden page, what is allocated is full
   of 0xa5, and the peer gets the bytes given, no more and no others. */
static struct bytes row_21_want;
static int row_21_right;

static void row_21_got(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    (void)w, (void)op;
    row_21_right +=
        len == row_21_want.len && memcmp(data, row_21_want.at, len) == 0;
}

static void row_21_send(const guard *g, size_t n, ws_peer *w)
{
    uint8_t *p = guard_last(g, n);
    size_t i;

    row_21_want.len = 0;
    row_21_right = 0;
    for (i = 0; i < n; i++)
        put_byte(&row_21_want, p[i] = (uint8_t)('0' + (n + i) % 10));
    CHECK(rt_send(stage.loop, stage.last, RT_BINARY, p, n) >= 0);
    settle();
    CHECK(rt_send(stage.loop, stage.last, RT_TEXT, p, n) >= 0);
    settle();
    if (n <= 125)
        ws_send(w, WS_PING, p, n);
    settle();
    EQUAL(row_21_right, n <= 125 ? 3 : 2);
}

static void row_21_exactly_the_bytes_given_are_sent(void)
{
    rt_listen_opts o = {.control_rate = RT_OFF};
    guard g = guard_open(70000);
    static const size_t more[] = {1000, 4096, 16385, 32768, 65535, 65536};
    char reason[124] = {0};
    ws_peer *w;
    size_t n;

    stage_open(&o, NULL);
    w = peer_open();
    w->on = row_21_got;
    for (n = 0; n < 300; n++)
        row_21_send(&g, n, w);
    for (n = 0; n < COUNT(more); n++)
        row_21_send(&g, more[n], w);
    memset(reason, 'r', 123);
    EQUAL(rt_close(stage.loop, stage.last, 4000, guard_text(&g, reason)), 0);
    settle();
    CHECK(strcmp(w->reason, reason) == 0);
    stage_end();
    guard_close(&g);
}

/* 22: lws, civetweb, undici.  Offers are passed over, whatever they say. */
static void row_22_offer(const char *offer)
{
    char text[1024];
    struct answer a;

    snprintf(text, sizeof text,
             GET "Host: game\r\n" UPGRADE
                 "Sec-WebSocket-Extensions: %s\r\n\r\n",
             offer);
    a = ask(text);
    EQUAL(a.status, 101);
    CHECK(!strstr(a.text, "xtensions"));
}

/* A server that agrees on one, though none was offered, is left. */
static void row_22_agree(const char *what)
{
    sim_peer *p = NULL;
    char text[2048] = {0}, accept[29], *key;
    int i, opens = stage.opens, closes = stage.closes;

    CHECK(rt_dial(stage.loop, "ws://127.0.0.1:7000/", &stage.dial).id != 0);
    for (i = 0; i < 20 && !p; i++) {
        step(1);
        p = sim_accept(SERVER_PORT);
    }
    settle();
    sim_peer_recv(p, text, sizeof text - 1);
    CHECK(!strstr(text, "xtensions"));
    key = strstr(text, "Sec-WebSocket-Key: ");
    CHECK(key != NULL);
    if (!key)
        return;
    rt__accept_key(key + 19, accept);
    snprintf(text, sizeof text,
             "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             "Sec-WebSocket-Accept: %s\r\n%s\r\n",
             accept, what);
    sim_peer_send(p, text, strlen(text));
    settle();
    EQUAL(stage.opens - opens, *what == 0);
    EQUAL(stage.closes - closes, *what != 0);
    stage.unopened += *what != 0;
    sim_peer_close(p);
    settle();
}

static void row_22_no_extension_is_ever_agreed_on(void)
{
    static struct bytes b;
    int role;

    stage_open(NULL, NULL);
    row_22_offer("permessage-deflate");
    row_22_offer("permessage-deflate, permessage-deflate");
    row_22_offer("permessage-deflate; server_max_window_bits=7");
    row_22_offer("permessage-deflate; client_max_window_bits=16");
    row_22_offer("permessage-deflate; client_max_window_bits=\"99999999999\"");
    row_22_offer("x-webkit-deflate-frame");
    row_22_offer(",,;;==\"");
    row_22_agree("");
    row_22_agree("Sec-WebSocket-Extensions: permessage-deflate\r\n");
    row_22_agree("sec-websocket-extensions: x\r\n");
    row_22_agree("Sec-WebSocket-Extensions: \r\n");
    for (role = 0; role < 2; role++) {
        b.len = 0;
        put_frame(&b, 0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00", 7, !role);
        refused_with(play_bytes(role, &b), 1002);
    }
    peers_free();
    stage_end();
}

/* 23: Centrifugo, python-websockets.  Without compression there is no bomb. */
static void row_23_nothing_inflates(void)
{
    static const char *const files[] = {
        "rtnet.c", "ws.c",        "session.c",       "group.c",
        "rtnet.h", "ratelimit.c", "rtnet_internal.h"};
    static const char *const words[] = {"inflate", "deflate", "zlib",
                                        "uncompress", "brotli"};
    size_t i, k;

    for (i = 0; i < COUNT(files); i++) {
        for (k = 0; k < COUNT(words); k++)
            EQUAL(source_has(files[i], words[k]), 0);
    }
}

/* 24: websocket-driver.  Neither the drafts nor a later version. */
static void row_24_version(const char *version, int status)
{
    char text[1024];
    struct answer a;

    snprintf(text, sizeof text,
             GET "Host: game\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Key: " KEY "\r\n%s\r\n",
             version);
    a = ask(text);
    EQUAL(a.status, status);
    EQUAL(strstr(a.text, "Sec-WebSocket-Version: 13\r\n") != NULL,
          status == 426);
}

static void row_24_version_13_alone_is_spoken(void)
{
    stage_open(NULL, NULL);
    row_24_version("Sec-WebSocket-Version: 13\r\n", 101);
    row_24_version("Sec-WebSocket-Version: 0\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 7\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 8\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 12\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 14\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 013\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 13x\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 113\r\n", 426);
    row_24_version("Sec-WebSocket-Version: 256013\r\n", 426);
    row_24_version("", 426);
    /* Draft 75, and draft 76 with its two keys and eight bytes behind. */
    CHECK(ask(GET "Upgrade: WebSocket\r\nConnection: Upgrade\r\nHost: game\r\n"
                  "Origin: http://game\r\nWebSocket-Protocol: x\r\n\r\n")
              .status >= 400);
    CHECK(ask(GET "Upgrade: WebSocket\r\nConnection: Upgrade\r\nHost: game\r\n"
                  "Origin: http://game\r\n"
                  "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n"
                  "Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n\r\n^n:ds[4U")
              .status >= 400);
    stage_end();
}
