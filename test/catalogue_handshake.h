/*
 * Rows 32 to 40: how a handshake goes on and ends.
 */

/* ---- 32 ----------------------------------------------------------------- */

enum row_32_end { ROW_32_FIN, ROW_32_RST, ROW_32_CLOSE };

/* A peer that takes 7 bytes at a time sends n bytes, then takes `taken` of the
   answer, then goes; a write is waited for all the while. */
static void row_32_cut(const char *request, size_t n, size_t taken,
                       enum row_32_end end)
{
    sim_peer *p = sim_connect(PORT);
    uint8_t out[64];
    int i;

    sim_peer_window(p, 7);
    sim_peer_send(p, request, n);
    for (i = 0; i < 6; i++)
        rt_poll(stage.loop, 0);
    for (; taken > 0; taken -= taken < 7 ? taken : 7) {
        sim_peer_recv(p, out, taken < 7 ? taken : 7);
        rt_poll(stage.loop, 0);
    }
    if (end == ROW_32_FIN)
        sim_peer_shut(p);
    else if (end == ROW_32_RST)
        sim_peer_reset(p);
    for (i = 0; i < 4; i++)
        rt_poll(stage.loop, 0);
    sim_peer_close(p);
    for (i = 0; i < 60 && sim_streams(); i++)
        rt_poll(stage.loop, 0);
    EQUAL(sim_streams(), 0);
}

static int row_32_request(rt_loop *l, rt_session s, const rt_request *r)
{
    if (strcmp(r->path, "/close") == 0)
        return rt_close(l, s, 0, NULL);
    if (strcmp(r->path, "/reply") == 0)
        return rt_reply(l, s, 403, "text/plain", "no", 2);
    return strcmp(r->path, "/no") ? 0 : 403;
}

/* lws, qemu.  Requests that are refused in each way, and one that is not. */
static void row_32_a_handshake_may_end_at_each_byte(void)
{
    static const char *const requests[] = {
        GET "Host: game\r\nUpgrade: nonsense\r\nConnection: Upgrade\r\n\r\n",
        GET "Host: game\r\nUpgrade: websocket\r\nUpgrade:\r\n\r\n",
        "GET /no HTTP/1.1\r\nHost: game\r\n" UPGRADE "\r\n",
        "GET /reply HTTP/1.1\r\nHost: game\r\n" UPGRADE "\r\n",
        "GET /close HTTP/1.1\r\nHost: game\r\n" UPGRADE "\r\n",
        GET "Host: game\r\n" UPGRADE "\r\n"};
    sim_opts weather = {.shorts = 700, .again = 200, .spin = 1000000};
    size_t i, n, len;

    stage_open(NULL, &weather);
    stage.also_request = row_32_request;
    for (i = 0; i < COUNT(requests); i++) {
        len = strlen(requests[i]);
        for (n = 0; n <= len; n++)
            row_32_cut(requests[i], n, 0, n & 1 ? ROW_32_RST : ROW_32_FIN);
        for (n = 0; n <= 150; n++) {
            row_32_cut(requests[i], len, n, ROW_32_FIN);
            row_32_cut(requests[i], len, n, ROW_32_RST);
            row_32_cut(requests[i], len, n, ROW_32_CLOSE);
        }
    }
    stage_end();
}

/* ---- 33, 34 ------------------------------------------------------------- */

/* A dial, and the raw line on which its request came. */
static sim_peer *dial_raw(char *request, size_t cap)
{
    sim_peer *p = NULL;
    int i;

    memset(request, 0, cap);
    stage.last = rt_dial(stage.loop, "ws://127.0.0.1:7000/", &stage.dial);
    CHECK(stage.last.id != 0);
    for (i = 0; i < 20 && !p; i++) {
        step(1);
        p = sim_accept(SERVER_PORT);
    }
    settle();
    CHECK(p != NULL);
    if (!p)
        exit(1);
    sim_peer_recv(p, request, cap - 1);
    return p;
}

/* An answer of that size with two texts behind it, in two pieces: is the
   session open, and was it told both?  at 0: one byte at a time. */
static int row_33_answer(size_t size, size_t at)
{
    static char text[9000], request[2048];
    sim_peer *p = dial_raw(request, sizeof request);
    int opens = stage.opens, messages = stage.messages;
    char accept[29], *key = strstr(request, "Sec-WebSocket-Key: ");
    size_t n, some;

    CHECK(key != NULL);
    rt__accept_key(key ? key + 19 : "", accept);
    n = (size_t)sprintf(text,
                        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\nX: ",
                        accept);
    memset(text + n, 'x', size - n);
    memcpy(text + size - 4, "\r\n\r\n", 4);
    memcpy(text + size,
           "\x81\x01"
           "a\x81\x01z",
           6);
    for (n = 0; n < size + 6; n += some) {
        some = !at ? 1 : n < at ? at - n : size + 6 - n;
        sim_peer_send(p, text + n, some);
        rt_poll(stage.loop, 0);
    }
    settle();
    sim_peer_close(p);
    settle();
    stage.unopened += stage.opens == opens;
    return stage.opens > opens && stage.messages == messages + 2;
}

/* boost.beast. */
static void row_33_an_answer_may_be_cut_anywhere(void)
{
    size_t n;

    stage_open(NULL, NULL);
    for (n = 0; n < 206; n++)
        EQUAL(row_33_answer(200, n), 1);
    for (n = 8190; n <= 8194; n++) {
        EQUAL(row_33_answer(n, 0), n <= 8192);
        EQUAL(row_33_answer(n, n), n <= 8192);
        EQUAL(row_33_answer(n, n - 1), n <= 8192);
        EQUAL(row_33_answer(n, 4096), n <= 8192);
    }
    stage_end();
}

static void row_34_request(const char *connection, const char *key,
                           const char *version, int status)
{
    char text[1024];
    struct answer a;

    snprintf(text, sizeof text,
             GET "Host: game\r\nUpgrade: websocket\r\nConnection: %s\r\n"
                 "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: %s\r\n\r\n",
             connection, key, version);
    a = ask(text);
    EQUAL(a.status, status);
    EQUAL(strstr(a.text, "Sec-WebSocket-Version: 13\r\n") != NULL,
          status == 426);
    if (test_bad)
        printf("%s, %s, %s\n", connection, key, version);
}

/* RFC 6455, 4.2.1. */
static void row_34_the_opening_is_that_of_the_rfc(void)
{
    static const char *const keys[] = {
        "",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZQAA",
        "dGhlIHNhbXBsZSBub25jZQA=",
        "dGhlIHNhbXBsZSBub25jZR==",
        "dGhlIHNh=XBsZSBub25jZQ==",
        "dGhl-HNh_XBsZSBub25jZQ==",
        "dGhlIHNh XBsZSBub25jZQ==",
        "========================",
    };
    static const char *const lists[] = {"keep-alive, Upgrade", "upgrade,x",
                                        "UPGRADE", ", upgrade"};
    static const char *const others[] = {"keep-alive", "upgraded", "up grade",
                                         "xupgrade",   "",         "close"};
    static const char *const versions[] = {"12", "14", "0", "8", "-13", "x"};
    size_t i;

    stage_open(NULL, NULL);
    row_34_request("Upgrade", KEY, "13", 101);
    row_34_request("Upgrade", "AAAAAAAAAAAAAAAAAAAAAA==", "13", 101);
    for (i = 0; i < COUNT(keys); i++)
        row_34_request("Upgrade", keys[i], "13", 400);
    for (i = 0; i < COUNT(lists); i++)
        row_34_request(lists[i], KEY, "13", 101);
    for (i = 0; i < COUNT(others); i++)
        row_34_request(others[i], KEY, "13", 400);
    for (i = 0; i < COUNT(versions); i++)
        row_34_request("Upgrade", KEY, versions[i], 426);
    stage_end();
}

/* ---- 35 ----------------------------------------------------------------- */

static char row_35_text[32];
static int row_35_refused;

/* Each of the texts that go into an answer is given that one. */
static int row_35_request(rt_loop *l, rt_session s, const rt_request *r)
{
    rt_accept_opts protocol = {.protocol = row_35_text};
    char line[64];
    rt_accept_opts header = {.headers = line};

    (void)r;
    row_35_refused += rt_accept(l, s, &protocol) == RT_EINVAL;
    snprintf(line, sizeof line, "X-%s: y\r\n", row_35_text);
    row_35_refused += rt_accept(l, s, &header) == RT_EINVAL;
    snprintf(line, sizeof line, "X: %s\r\n", row_35_text);
    row_35_refused += rt_accept(l, s, &header) == RT_EINVAL;
    row_35_refused += rt_reply(l, s, 200, row_35_text, "", 0) == RT_EINVAL;
    return 500;
}

/* And of those that go into a request. */
static int row_35_dials(void)
{
    char url[64], line[64];
    rt_dial_opts o = {.on = handler};
    int refused = 0;

    snprintf(url, sizeof url, "ws://127.0.0.1:7000/%s", row_35_text);
    refused += !rt_dial(stage.loop, url, &o).id;
    snprintf(url, sizeof url, "ws://127.0.0.1:7000/?x=%s", row_35_text);
    refused += !rt_dial(stage.loop, url, &o).id;
    o.protocols = row_35_text;
    refused += !rt_dial(stage.loop, "ws://127.0.0.1:7000/", &o).id;
    o.protocols = NULL;
    o.headers = line;
    snprintf(line, sizeof line, "X-%s: y\r\n", row_35_text);
    refused += !rt_dial(stage.loop, "ws://127.0.0.1:7000/", &o).id;
    snprintf(line, sizeof line, "X: %s\r\n", row_35_text);
    refused += !rt_dial(stage.loop, "ws://127.0.0.1:7000/", &o).id;
    EQUAL(stage.closes, stage.opens);
    return refused;
}

/* python-autobahn.  Each byte below 0x20, and 0x7f; but a tab is a blank in
   the value of a header (RFC 9110, 5.5). */
static void row_35_no_text_of_the_host_splits_a_head(void)
{
    int c;

    stage_open(NULL, NULL);
    stage.also_request = row_35_request;
    for (c = 1; c <= 0x7f; c = c == 0x1f ? 0x7f : c + 1) {
        if (c == '\t')
            continue;
        snprintf(row_35_text, sizeof row_35_text, "a%cb", c);
        row_35_refused = 0;
        EQUAL(ask(GET "Host: game\r\n" UPGRADE
                      "Sec-WebSocket-Protocol: a, b\r\n\r\n")
                  .status,
              500);
        EQUAL(row_35_refused, 4);
        EQUAL(row_35_dials(), 5);
    }
    snprintf(row_35_text, sizeof row_35_text, "a\r\nX: y");
    row_35_refused = 0;
    ask(GET "Host: game\r\n" UPGRADE "\r\n");
    EQUAL(row_35_dials(), 4); /* as a value it is two whole headers */
    stage.unopened = 1;
    stage_end();
}

/* ---- 36 ----------------------------------------------------------------- */

/* Cline, Gitpod, Centrifugo, webpack-dev-server.  NULL: no Origin. */
static const struct {
    const char *host, *origin;
    int status, listed; /* with no list; with "https://game.example" as one */
} row_36_origins[] = {
    {"good.com", NULL, 101, 101},
    {"good.com", "http://good.com", 101, 403},
    {"good.com", "https://good.com", 101, 403},
    {"good.com", "http://GOOD.COM", 101, 403},
    {"GOOD.com", "http://good.com", 101, 403},
    {"good.com:8080", "http://good.com:8080", 101, 403},
    {"good.com", "http://good.com:80", 101, 403},
    {"good.com:443", "https://good.com", 101, 403},
    {"[::1]:9000", "http://[::1]:9000", 101, 403},
    {"good.com", "https://good.com.evil", 403, 403},
    {"good.com", "http://good.com.evil.com", 403, 403},
    {"good.com", "http://evilgood.com", 403, 403},
    {"good.com", "http://evil-good.com", 403, 403},
    {"good.com", "http://sub.good.com", 403, 403},
    {"sub.good.com", "http://good.com", 403, 403},
    {"good.com", "http://good.com.", 403, 403},
    {"good.com", "http://good.com:8080", 403, 403},
    {"good.com:8080", "http://good.com", 403, 403},
    {"good.com:80", "http://good.com:8080", 403, 403},
    {"good.com:443", "http://good.com", 403, 403},
    {"good.com", "null", 403, 403},
    {"null", "null", 403, 403},
    {"good.com", "", 403, 403},
    {"good.com", "good.com", 403, 403},
    {"good.com", "//good.com", 403, 403},
    {"good.com", "://good.com", 403, 403},
    {"good.com", "http:good.com", 403, 403},
    {"good.com", "http://", 403, 403},
    {"good.com", "file://", 403, 403},
    {"good.com", "*", 403, 403},
    {"good.com", "http://good.com@evil.com", 403, 403},
    {"good.com", "http://evil.com@good.com", 403, 403},
    {"good.com", "http://evil.com/good.com", 403, 403},
    {"good.com", "http://evil.com#good.com", 403, 403},
    {"good.com", "http://evil.com?good.com", 403, 403},
    {"good.com", "http://evil.com http://good.com", 403, 403},
    {"good.com", "http://good.com, http://evil.com", 403, 403},
    {"good.com", "http://good.com\r\nOrigin: http://evil.com", 403, 403},
    {"good.com", "https://game.example", 403, 101},
    {"good.com", "HTTPS://Game.Example", 403, 101},
    {"good.com", "http://game.example", 403, 403},
    {"good.com", "https://game.example:8443", 403, 403},
    {"good.com", "https://game.example.evil", 403, 403},
    {"good.com", "https://evilgame.example", 403, 403},
    {"good.com", "https://game.example.", 403, 403},
    {"good.com", "https://game.exampl", 403, 403},
    {"good.com", "https://a.game.example", 403, 403},
    {"127.0.0.1", "http://localhost", 403, 403},
};

static void row_36_only_pages_of_the_same_host_connect(void)
{
    rt_listen_opts o = {.origins = "https://game.example"};
    char text[1024];
    const char *origin;
    size_t i;
    int list;

    for (list = 0; list < 2; list++) {
        stage_open(list ? &o : NULL, NULL);
        for (i = 0; i < COUNT(row_36_origins); i++) {
            origin = row_36_origins[i].origin;
            snprintf(text, sizeof text, GET "Host: %s\r\n" UPGRADE "%s%s%s\r\n",
                     row_36_origins[i].host, origin ? "Origin: " : "",
                     origin ? origin : "", origin ? "\r\n" : "");
            EQUAL(ask(text).status,
                  list ? row_36_origins[i].listed : row_36_origins[i].status);
            if (test_bad)
                printf("%s\n", text);
        }
        stage_end();
    }
}

/* ---- 37 ----------------------------------------------------------------- */

/* Half-open ones: the oldest goes for the youngest, and one address has a
   bound. */
static void row_37_many(void)
{
    rt_listen_opts o = {.max_handshakes = 8, .max_per_address = 6};
    sim_peer *p[16];
    ws_peer *ws[8];
    char from[32];
    int i, alive = 0;

    stage_open(&o, NULL);
    for (i = 0; i < 16; i++) {
        snprintf(from, sizeof from, "10.0.0.%d", i);
        p[i] = sim_connect_from(PORT, from);
        sim_peer_send(p[i], GET, 5);
        step(1);
    }
    settle();
    for (i = 0; i < 16; i++) {
        alive += sim_peer_state(p[i]) == SIM_UP;
        EQUAL(sim_peer_state(p[i]) == SIM_UP, i >= 8);
    }
    EQUAL(alive, 8);
    EQUAL(sim_streams(), 8);
    for (i = 0; i < 16; i++)
        sim_peer_close(p[i]);
    settle();
    for (i = 0; i < 8; i++)
        ws[i] = peer_add(ws_connect_from(PORT, "10.0.0.1"));
    settle();
    for (i = 0; i < 8; i++)
        ws_raw(ws[i], ws_request("/"), strlen(ws_request("/")));
    settle();
    for (i = 0; i < 8; i++)
        EQUAL(ws[i]->status, i < 6 ? 101 : 503);
    EQUAL(stage.opens, 6);
    stage_end();
}

/* One byte in 100 ms: in 5 s it is over. */
static void row_37_slow(void)
{
    const char *text = ws_request("/");
    ws_peer *w;
    uint64_t start;
    size_t i;

    stage_open(NULL, NULL);
    w = peer_add(ws_connect_silent(PORT));
    start = sim_now();
    for (i = 0; i < strlen(text) && sim_streams() + !i && well(); i++) {
        ws_raw(w, text + i, 1);
        run(100);
    }
    between(sim_now() - start, 4900, 5300);
    EQUAL(stage.opens, 0);
    stage_end();
}

/* 2,000 real sockets that say three bytes; a good one among them is served,
   and all the others are gone when their time is over.  select has no place
   for so many descriptors: there it is 400. */
static void row_37_real(void)
{
    rt_listen_opts o = {
        .handshake_ms = 400, .close_ms = 200, .max_handshakes = 4000};
    int most = stage.backend == RT_EPOLL ? 2000 : 400, i, good;
    static int fd[2000];

    if (!net_descriptors(2 * 2000 + 100))
        return;
    net_open(&o);
    for (i = 0; i < most; i++) {
        fd[i] = net_connect();
        EQUAL(send(fd[i], "GET", 3, MSG_NOSIGNAL), 3);
        rt_poll(stage.loop, 0);
    }
    good = net_connect();
    net_send(good, ws_request("/"));
    net_until(&stage.opens, 1, 3000);
    EQUAL(stage.opens, 1);
    for (i = 0; i < 300 && stage.loop->conn_count > 1; i++)
        net_run(10);
    EQUAL(stage.loop->conn_count, 1);
    for (i = 0; i < most; i++)
        close(fd[i]);
    close(good);
    net_end();
}

/* websocketpp, facil.io, uWS. */
static void row_37_slow_handshakes_end_and_are_bounded(void)
{
    row_37_slow();
    row_37_many();
    if (net_there())
        row_37_real();
}

/* ---- 38 ----------------------------------------------------------------- */

/* Tomcat.  A peer that does not answer a close, does not end the line, and
   perhaps does not even read. */
static void row_38_end(int as_server, int reads)
{
    ws_peer *w = peer_of(as_server);
    static char bytes[100000];

    w->closes = 0;
    w->reads = reads;
    if (!reads)
        sim_peer_window(w->line, 100);
    CHECK(rt_send(stage.loop, stage.last, RT_BINARY, bytes, 50000) >= 0);
    settle();
    EQUAL(rt_close(stage.loop, stage.last, 0, NULL), 0);
    settle();
    EQUAL(sim_streams(), 1);
    between(until_lines(0, 60000), 4900, 5100);
    EQUAL(sim_peer_state(w->line), SIM_RST);
    EQUAL(stage.loop->conn_count, 0);
    peers_free();
}

static void row_38_an_unanswered_close_ends_with_a_reset(void)
{
    int i;

    stage_open(NULL, NULL);
    for (i = 0; i < 4; i++)
        row_38_end(i & 1, i >> 1);
    stage_end();
}

/* ---- 39 ----------------------------------------------------------------- */

/* One who is told that more was sent than there is: that connection ends, and
   the next one is served. */
static void row_39_sends(enum sim_call call, const sim_opts *weather)
{
    ws_peer *w;
    char bytes[300] = {0};
    int i;

    stage_open(NULL, weather);
    for (i = 0; i < 3; i++) {
        w = peer_open();
        sim_peer_window(w->line, i == 1 ? 64 : 65536);
        sim_short(call, 1, SIM_TOO_MANY);
        CHECK(rt_send(stage.loop, stage.last, RT_TEXT, bytes, 300) >= 0);
        if (call == SIM_sendmsg)
            CHECK(rt_send(stage.loop, stage.last, RT_TEXT, bytes, 200) >= 0);
        if (i == 2)
            ws_send(w, WS_PING, "", 0);
        settle();
        if (sim_calls(call) == 0)
            continue;
        EQUAL(rt_state(stage.loop, stage.last), RT_EGONE);
        EQUAL(stage.end.cause, RT_BY_ERROR);
        EQUAL(sim_streams(), 0);
        peers_free();
    }
    stage_end();
}

/* More was read than there is room for: in the inbox, where a message is
   received in place, in a request, and while one is refused. */
static void row_39_reads(void)
{
    ws_peer *w;
    int i;

    stage_open(NULL, NULL);
    for (i = 0; i < 3; i++) {
        w = i == 2 ? peer_add(ws_connect(PORT, "/")) : peer_open();
        if (i == 1) { /* a frame of which most is still to come */
            static struct bytes b;
            b.len = 0;
            put_head(&b, 0x82, 65000, 1);
            put_payload(&b, "", 0, 1);
            ws_raw(w, b.at, b.len);
            ws_raw(w, b.at, 30000 - b.len);
            settle();
        }
        sim_short(SIM_recv, 1, SIM_TOO_MANY);
        ws_raw(w, "\x81\x80\1\2\3\4", 6);
        settle();
        EQUAL(sim_streams(), 0);
        EQUAL(stage.messages, 0);
        if (i < 2) {
            EQUAL(stage.end.cause, RT_BY_ERROR);
            EQUAL(stage.end.code, 1006);
        }
        peers_free();
    }
    stage_end();
}

/* A loop needs random bytes: it is not made with some that nobody gave. */
static void row_39_random(void)
{
    sim_start(NULL);
    stage_reset();
    sim_short(SIM_getrandom, 1, SIM_TOO_MANY);
    stage.loop = stage_loop(sim_realloc);
    CHECK(stage.loop == NULL);
    EQUAL(sim_end(), 0);
}

static void row_39_post(rt_loop *l, void *arg)
{
    (void)l;
    ++*(int *)arg;
}

/* The pipe of rt_post says that it gave more than fits. */
static void row_39_posts(void)
{
    int ran = 0;

    stage_open(NULL, NULL);
    EQUAL(rt_post(stage.loop, row_39_post, &ran), 0);
    sim_short(SIM_read, 1, SIM_TOO_MANY);
    settle();
    EQUAL(rt_post(stage.loop, row_39_post, &ran), 0);
    settle();
    between((uint64_t)ran, 1, 2);
    stage_end();
}

/* curl: the layer below returns more than it was asked for. */
static void row_39_more_than_was_asked_for_is_an_error(void)
{
    row_39_reads();
    row_39_sends(SIM_send, NULL);
    row_39_sends(SIM_sendmsg, NULL);
    row_39_random();
    row_39_posts();
}

/* ---- 40 ----------------------------------------------------------------- */

/* Frames right behind the request, in one packet and cut at each byte. */
static void row_40_server(size_t cut)
{
    static struct bytes b;
    ws_peer *w = peer_add(ws_connect_silent(PORT));
    const char *text = ws_request("/");
    int messages = stage.messages;

    b.len = 0;
    put(&b, text, strlen(text));
    put_frame(&b, 0x81, "first", 5, 1);
    put_frame(&b, 0x89, "ping", 4, 1);
    put_frame(&b, 0x82, "second", 6, 1);
    if (cut > b.len)
        cut = b.len;
    ws_raw(w, b.at, cut);
    step(0);
    ws_raw(w, b.at + cut, b.len - cut);
    settle();
    EQUAL(stage.messages - messages, 2);
    CHECK(stage.len == 6 && memcmp(stage.data, "second", 6) == 0);
    EQUAL(w->pongs_got, 1);
    peers_free();
}

static void row_40_frames_right_behind_the_handshake_arrive(void)
{
    size_t cut;

    stage_open(NULL, NULL);
    for (cut = 1; cut <= 190; cut++)
        row_40_server(cut);
    /* A client: the same behind the 101 is row 33; here in one packet. */
    EQUAL(row_33_answer(200, 206), 1);
    EQUAL(row_33_answer(200, 199), 1);
    stage_end();
}
