/*
 * Rows 15 to 24: messages, what is sent, and what is never agreed on.
 */

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
        waits = sim_waits();
        run(1000);
        between(sim_waits() - waits, 1, 60);
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
    char text[32];
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
    row_21_right += len == row_21_want.len &&
                    (len == 0 || memcmp(data, row_21_want.at, len) == 0);
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
