/*
 * Bugs that were found once, each as the sentence that it broke; and what the
 * other tests do not ask of groups, of their hooks and of a shutdown.  Real
 * sockets on loopback, each backend.
 *
 * One application serves all cases: it counts what it is told; a case changes
 * the options, then starts it.  Ending it checks that each on_open had its
 * on_close and that all memory came back.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rtnet_internal.h"

#include "peer.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { PEERS = 24, BIG = 2 << 20, SLOW = 1 << 20, PAGE = 40000 };

static char big[BIG]; /* all 'b' */

/* The application of the present case. */
static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_loop *loop;
    int port;
    int opens, messages, writables, closes, asks, tells;
    rt_session s[PEERS];     /* in the order of their on_open */
    rt_session asked[PEERS]; /* of each on_request */
    char path[PEERS][32];
    int answer; /* of on_request */
    int code, cause;
    char reason[128];
    int got;  /* what a call in a callback returned */
    int turn; /* counted by a case, and what it was in the last on_close */
    int closed_in;
    long fails; /* allocations until the one that fails; < 0: none does */
    int dry;    /* all allocations fail */
    char text[4096];
    int (*request)(rt_loop *, rt_session, const rt_request *);
    void (*open)(rt_loop *, rt_session);
    void (*message)(rt_loop *, rt_session);
    void (*close)(rt_loop *, rt_session);
    peer p[PEERS];
} app;

/* ---- the application ---------------------------------------------------- */

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    CHECK(app.asks < PEERS);
    app.asked[app.asks] = s;
    snprintf(app.path[app.asks], sizeof app.path[0], "%s", r->path);
    app.asks++;
    return app.request ? app.request(loop, s, r) : app.answer;
}

static void on_open(rt_loop *loop, rt_session s)
{
    CHECK(app.opens < PEERS);
    app.s[app.opens++] = s;
    if (app.open)
        app.open(loop, s);
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)kind;
    (void)data;
    (void)len;
    app.messages++;
    if (app.message)
        app.message(loop, s);
}

static void on_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    app.writables++;
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    app.closes++;
    app.code = why->code;
    app.cause = why->cause;
    app.closed_in = app.turn;
    snprintf(app.reason, sizeof app.reason, "%s", why->reason);
    if (app.close)
        app.close(loop, s);
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .writable = on_writable,
                                   .close = on_close};

/* The counting allocator; it may have nothing left, and spoils what it frees.
 */
static void *failing_realloc(void *user, void *p, size_t old, size_t now)
{
    if (!now && p)
        memset(p, 0xdb, old); /* who still looks at it goes astray */
    if (now && (app.dry || (app.fails >= 0 && app.fails-- == 0)))
        return NULL;
    return peer_realloc(user, p, old, now);
}

/* Options that a case may still change. */
static void app_reset(int backend)
{
    size_t i;
    memset(&app, 0, sizeof app);
    memset(big, 'b', sizeof big);
    app.loop_opts.backend = backend;
    app.loop_opts.realloc = failing_realloc;
    app.opts.on = handler;
    app.opts.ping_ms = RT_OFF;
    app.fails = -1;
    peer_heap = 0;
    peer_heap_lies = 0;
    for (i = 0; i < PEERS; i++)
        app.p[i].fd = -1;
}

static void app_start(const char *url)
{
    rt_listener n;
    app.loop = rt_loop_new(&app.loop_opts);
    CHECK(app.loop != NULL);
    n = rt_listen(app.loop, url, &app.opts);
    CHECK(n.id != 0);
    app.port = rt_listener_port(app.loop, n);
}

static void app_ws(void)
{
    app_start("ws://127.0.0.1:0");
}

static void app_peers(int n)
{
    int i, before = app.opens;
    for (i = before; i < n; i++)
        CHECK(peer_ws(&app.p[i], app.loop, app.port, "/"));
    EQUAL(app.opens, n);
}

/* The first n peers, of a stream. */
static void app_streams(int n)
{
    int i;
    for (i = app.opens; i < n; i++) {
        CHECK(peer_tcp(&app.p[i], app.loop, app.port));
        CHECK(peer_until(app.loop, &app.opens, i + 1));
    }
}

static void app_open(int backend, int peers)
{
    app_reset(backend);
    app_ws();
    app_peers(peers);
}

static void app_end(void)
{
    size_t i;
    rt_loop_free(app.loop);
    EQUAL(app.opens, app.closes);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    for (i = 0; i < PEERS; i++)
        peer_end(&app.p[i]);
}

/* Turns for so long, whatever happens. */
static void app_turns(int ms)
{
    uint64_t end = peer_clock() + (uint64_t)ms;
    while (peer_clock() < end)
        peer_turn(app.loop, 1);
}

static int connections(void)
{
    return (int)peer_metric(app.loop, "rtnet_connections");
}

/* Turns until so few connections are left; false when that never comes. */
static int connections_until(int most)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (connections() > most && peer_clock() < end)
        peer_turn(app.loop, 1);
    return connections() <= most;
}

static void peer_get(peer *p, const char *path, const char *more)
{
    char text[256];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: peer\r\n%s\r\n", path,
             more);
    peer_say(p, text);
}

/* What a peer says when it asks for an upgrade, and n bytes right behind. */
static void peer_ask_and(peer *p, const void *more, size_t n)
{
    static const char ask[] =
        "GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    uint8_t all[sizeof ask + 64];
    memcpy(all, ask, sizeof ask - 1);
    memcpy(all + sizeof ask - 1, more, n);
    peer_put(p, all, sizeof ask - 1 + n);
}

/* The loop's own end of a peer's connection. */
static int far_end(const peer *p)
{
    struct sockaddr_in here, there;
    socklen_t n = sizeof here;
    int fd;
    if (getsockname(p->fd, (struct sockaddr *)&here, &n) < 0)
        return -1;
    for (fd = 3; fd < 256; fd++) {
        n = sizeof there;
        memset(&there, 0, sizeof there);
        if (fd != p->fd &&
            getpeername(fd, (struct sockaddr *)&there, &n) == 0 &&
            there.sin_port == here.sin_port)
            return fd;
    }
    return -1;
}

/* Little is under way to this peer, so that it is slow as soon as it reads
   slowly. */
static void small_pipe(const peer *p)
{
    int bytes = 16384, fd = far_end(p);
    CHECK(fd >= 0);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

/* ---- requests ----------------------------------------------------------- */

static int defer_the_first(rt_loop *loop, rt_session s, const rt_request *r)
{
    if (r->upgrade)
        return 0;
    if (app.asks == 1)
        return RT_DEFER;
    EQUAL(rt_reply(loop, s, 200, "", "again", 5), 0);
    return 0;
}

/* The second request of the same peer is the second question. */
static void check_second_request(peer *p)
{
    peer_get(p, "/two", "");
    EQUAL(peer_status(p), 200);
    CHECK(peer_body(p, "again"));
    CHECK(peer_silent(p));
    EQUAL(app.asks, 2);
    CHECK(strcmp(app.path[1], "/two") == 0);
    peer_end(p);
    CHECK(connections_until(app.opens - app.closes));
    CHECK(rt_request_of(app.loop, app.asked[0]) == NULL);
    EQUAL(rt_reply(app.loop, app.asked[0], 200, "", "x", 1), RT_EGONE);
}

static void an_answer_that_is_flushed_at_once_is_asked_for_once(int backend)
{
    app_reset(backend);
    app.request = defer_the_first;
    app_ws();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_get(&app.p[0], "/one", "");
    CHECK(peer_until(app.loop, &app.asks, 1));
    EQUAL(rt_reply(app.loop, app.asked[0], 200, "", "one", 3), 0);
    rt_flush(app.loop);
    EQUAL(peer_status(&app.p[0]), 200);
    CHECK(peer_body(&app.p[0], "one"));
    check_second_request(&app.p[0]);
    app_end();
}

static void reply_to_the_first(rt_loop *loop, rt_session s)
{
    if (rt_same(s, app.s[0]))
        app.got = rt_reply(loop, app.asked[1], 200, "", "one", 3);
}

/* As above, but asked[0] is the upgrade of the one that closes. */
static int defer_the_second(rt_loop *loop, rt_session s, const rt_request *r)
{
    if (r->upgrade)
        return 0;
    if (app.asks == 2)
        return RT_DEFER;
    EQUAL(rt_reply(loop, s, 200, "", "again", 5), 0);
    return 0;
}

static void an_answer_given_in_on_close_is_asked_for_once(int backend)
{
    peer *p = &app.p[1];
    app_reset(backend);
    app.request = defer_the_second;
    app.close = reply_to_the_first;
    app.got = -1;
    app_ws();
    app_peers(1);
    CHECK(peer_tcp(p, app.loop, app.port));
    peer_get(p, "/one", "");
    CHECK(peer_until(app.loop, &app.asks, 2));
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    EQUAL(peer_status(p), 200);
    CHECK(peer_body(p, "one"));
    EQUAL(app.got, 0);
    peer_get(p, "/two", "");
    EQUAL(peer_status(p), 200);
    CHECK(peer_body(p, "again"));
    CHECK(peer_silent(p));
    EQUAL(app.asks, 3);
    CHECK(strcmp(app.path[2], "/two") == 0);
    peer_end(p);
    peer_bye(&app.p[0], 1000);
    CHECK(connections_until(0));
    EQUAL(rt_reply(app.loop, app.asked[1], 200, "", "x", 1), RT_EGONE);
    app_end();
}

static int page_or_upgrade(rt_loop *loop, rt_session s, const rt_request *r)
{
    if (!r->upgrade)
        EQUAL(rt_reply(loop, s, 200, "text/html", big, PAGE), 0);
    return 0;
}

/* Two messages are too many for its queue: it ends in on_open. */
static void overfill(rt_loop *loop, rt_session s)
{
    if (app.opens == 1 && app.got)
        return; /* the one whose text is secret */
    CHECK(rt_send(loop, s, RT_BINARY, big, 600 << 10) >= 0);
    EQUAL(rt_send(loop, s, RT_BINARY, big, 600 << 10), RT_EFULL);
}

/* Asks for a page and an upgrade in one go. */
static void ask_page_and_upgrade(peer *p)
{
    CHECK(peer_tcp(p, app.loop, app.port));
    peer_say(p, "GET /page HTTP/1.1\r\nHost: peer\r\n\r\n"
                "GET / HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
}

static void a_page_before_an_overfull_queue_arrives_whole(int backend)
{
    peer *p = &app.p[0];
    size_t i, wrong = 0;
    app_reset(backend);
    app.request = page_or_upgrade;
    app.open = overfill;
    app_ws();
    ask_page_and_upgrade(p);
    EQUAL(peer_status(p), 200);
    CHECK(peer_fill(p, PAGE));
    for (i = 0; i < PAGE && p->at + i < p->len; i++)
        wrong += p->in[p->at + i] != 'b';
    EQUAL(wrong, 0);
    p->at += PAGE;
    EQUAL(peer_status(p), 101);
    EQUAL(peer_closed_at_last(p), RT_CLOSE_SLOW);
    app_end();
}

static void nobody_gets_the_bytes_of_another(int backend)
{
    static const char secret[] = "a private message ";
    char text[20000];
    size_t i, n = sizeof secret - 1, leaks = 0;
    peer *p = &app.p[1];
    app_reset(backend);
    app.request = page_or_upgrade;
    app.open = overfill;
    app.got = 1;
    app_ws();
    app_peers(1);
    for (i = 0; i < sizeof text; i++)
        text[i] = secret[i % n];
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, text, sizeof text), 0);
    CHECK(peer_fill(&app.p[0], sizeof text));
    ask_page_and_upgrade(p);
    EQUAL(peer_status(p), 200);
    CHECK(peer_fill(p, PAGE));
    p->at += PAGE;
    EQUAL(peer_status(p), 101);
    EQUAL(peer_closed_at_last(p), RT_CLOSE_SLOW);
    for (i = 0; i + n <= p->len; i++) /* all that ever came */
        leaks += memcmp(p->in + i, secret, n) == 0;
    EQUAL(leaks, 0);
    app_end();
}

static void send_big(rt_loop *loop, rt_session s)
{
    app.got = rt_send(loop, s, RT_BINARY, big, sizeof big);
}

static void on_open_may_send_one_message_above_the_hard_mark(int backend)
{
    peer_frame f;
    app_reset(backend);
    app.open = send_big;
    app.got = -1;
    app_ws();
    app_peers(1);
    EQUAL(app.got, 1);
    CHECK(peer_next(&app.p[0], &f));
    EQUAL(f.len, sizeof big);
    EQUAL(app.closes, 0);
    app_end();
}

/* ---- what comes late ---------------------------------------------------- */

static void answer_late(rt_loop *loop, void *unused)
{
    (void)unused;
    if (strcmp(app.path[0], "/ws") == 0)
        app.got = rt_accept(loop, app.asked[0], NULL);
    else
        app.got = rt_reply(loop, app.asked[0], 504, "", "late", 4);
    app.tells++;
}

static int answer_in_10_ms(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_session nobody = {0};
    (void)s;
    (void)r;
    rt_timer_start(loop, nobody, rt_now(loop) + 10, answer_late, NULL);
    return RT_DEFER;
}

static void deadline_open(int backend)
{
    app_reset(backend);
    app.loop_opts.defer_ms = 10;
    app.request = answer_in_10_ms;
    app_ws();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
}

static void a_reply_at_the_deadline_counts_when_it_is_taken(int backend)
{
    deadline_open(backend);
    peer_get(&app.p[0], "/page", "");
    CHECK(peer_until(app.loop, &app.tells, 1));
    EQUAL(peer_status(&app.p[0]), app.got == 0 ? 504 : 503);
    app_end();
}

static void an_accept_at_the_deadline_counts_when_it_is_taken(int backend)
{
    deadline_open(backend);
    peer_ask(&app.p[0], "/ws", "");
    CHECK(peer_until(app.loop, &app.tells, 1));
    EQUAL(peer_status(&app.p[0]), app.got == 0 ? 101 : 503);
    EQUAL(app.opens, app.got == 0);
    app_turns(12);
    EQUAL(app.closes, 0);
    app_end();
}

/* Reads n bytes, 16 KiB in each ms; how many came. */
static size_t read_slowly(peer *p, size_t n)
{
    static uint8_t some[16384];
    size_t all = 0;
    uint64_t end = peer_clock() + PEER_WAIT;
    while (all < n && peer_clock() < end) {
        ssize_t took = recv(p->fd, some, sizeof some, 0);
        if (took == 0 || (took < 0 && errno != EAGAIN))
            break;
        all += took > 0 ? (size_t)took : 0;
        peer_turn(p->loop, 0);
        poll(NULL, 0, 1);
    }
    return all;
}

static int big_page(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)r;
    small_pipe(&app.p[0]);
    EQUAL(rt_reply(loop, s, 200, "text/html", big, SLOW), 0);
    return 0;
}

static void check_slow_reader(int backend, const char *more)
{
    app_reset(backend);
    app.request = big_page;
    app.opts.handshake_ms = 25;
    app_ws();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_get(&app.p[0], "/", more);
    CHECK(read_slowly(&app.p[0], SLOW) >= SLOW);
    app_end();
}

static void a_page_that_is_read_slowly_is_not_cut(int backend)
{
    check_slow_reader(backend, "");
}

static void the_last_page_is_not_cut_either(int backend)
{
    check_slow_reader(backend, "Connection: close\r\n");
}

static void a_peer_that_takes_its_message_slowly_is_alive(int backend)
{
    app_reset(backend);
    app.opts.ping_ms = 8;
    app_ws();
    app_peers(1);
    small_pipe(&app.p[0]);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, SLOW), 1);
    CHECK(read_slowly(&app.p[0], SLOW) >= SLOW);
    EQUAL(app.closes, 0);
    app_end();
}

static void a_pause_of_ours_is_not_the_peers_slowness(int backend)
{
    uint8_t f[32];
    size_t n = peer_frame_build(f, 0x82, "0123456789", 10);
    app_reset(backend);
    app.opts.assembly_ms = 80;
    app_ws();
    app_peers(1);
    peer_put(&app.p[0], f, n - 5);
    app_turns(3);
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    app_turns(60);
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    app_turns(30);
    peer_put(&app.p[0], f + n - 5, 5);
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(app.closes, 0);
    app_end();
}

/* A ping is answered after so many ms. */
static void pong_after(peer *p, int ms)
{
    peer_frame f;
    CHECK(peer_frame_raw(p, &f) && f.op == 9);
    poll(NULL, 0, ms);
    peer_frame_put(p, 0x8a, f.data, f.len);
    app_turns(2);
}

static void jitter_does_not_fall_under_zero(int backend)
{
    static const int delay[] = {1, 20, 1, 20, 1, 1, 1, 1};
    uint32_t rtt = 0, jitter = 0, most = 0;
    size_t i;
    app_reset(backend);
    app.opts.ping_ms = 4;
    app_ws();
    app_peers(1);
    for (i = 0; i < COUNT(delay); i++) {
        pong_after(&app.p[0], delay[i]);
        EQUAL(rt_rtt(app.loop, app.s[0], &rtt, &jitter), 0);
        most = jitter > most ? jitter : most;
    }
    CHECK(most > 500 && most < 1000000); /* in microseconds */
    app_end();
}

/* ---- closes ------------------------------------------------------------- */

static void a_host_that_was_busy_can_still_say_goodbye(int backend)
{
    app_reset(backend);
    app.opts.close_ms = 20;
    app_ws();
    app_peers(1);
    poll(NULL, 0, 30);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "bye", 3), 0);
    EQUAL(rt_close(app.loop, app.s[0], 4000, "x"), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "bye"));
    EQUAL(peer_closed(&app.p[0]), 4000);
    app_end();
}

static void close_4000(rt_loop *loop, rt_session s)
{
    EQUAL(rt_close(loop, s, 4000, "no"), 0);
}

static void farewell_open(int backend)
{
    app_reset(backend);
    app.open = close_4000;
    app_ws();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
}

/* The close was heard, and answered: a clean end, long before close_ms. */
static void check_clean_end(peer *p)
{
    EQUAL(peer_status(p), 101);
    EQUAL(peer_closed(p), 4000);
    EQUAL(peer_ended(p), PEER_EOF);
    CHECK(connections_until(0));
    app_end();
}

static void half_a_frame_behind_the_handshake_does_not_hide_a_close(int backend)
{
    uint8_t f[64], bye[16];
    size_t n = peer_frame_build(f, 0x82, "hello hello", 11);
    peer *p = &app.p[0];
    farewell_open(backend);
    peer_ask_and(p, f, 5);
    CHECK(peer_until(app.loop, &app.closes, 1));
    peer_put(p, f + 5, n - 5);
    peer_put(p, bye, peer_frame_build(bye, 0x88, "\x0f\xa0", 2));
    check_clean_end(p);
}

static void a_close_behind_the_handshake_answers_ours(int backend)
{
    uint8_t bye[16];
    size_t n = peer_frame_build(bye, 0x88, "\x03\xe8", 2);
    farewell_open(backend);
    peer_ask_and(&app.p[0], bye, n);
    check_clean_end(&app.p[0]);
}

static void farewell_4000(rt_loop *loop, rt_session s)
{
    EQUAL(rt_send(loop, s, RT_TEXT, "bye", 3), 0);
    EQUAL(rt_close(loop, s, 4000, "no"), 0);
}

/* What was sent before rt_close still arrives. */
static void nonsense_behind_our_close_does_not_swallow_it(int backend)
{
    uint8_t f[64];
    size_t n = peer_frame_build(f, 0x81, "go", 2);
    app_reset(backend);
    app.message = farewell_4000;
    app_ws();
    app_peers(1);
    n += peer_frame_build(f + n, 0x83, "?", 1); /* a reserved opcode */
    peer_put(&app.p[0], f, n);
    CHECK(peer_got(&app.p[0], RT_TEXT, "bye"));
    EQUAL(peer_closed(&app.p[0]), 4000);
    EQUAL(peer_ended(&app.p[0]), PEER_EOF);
    EQUAL(app.code, 4000);
    app_end();
}

static void flush_and_close(rt_loop *loop, rt_group g, rt_session s, int what)
{
    (void)g;
    if (what != RT_JOINED)
        return;
    EQUAL(rt_send(loop, s, RT_BINARY, big, 200000), 1);
    rt_flush(loop);
    EQUAL(rt_close(loop, s, 0, NULL), 0);
    app.got = app.turn;
}

static void on_close_comes_in_the_turn_of_the_close(int backend)
{
    rt_group_opts o = {.event = flush_and_close};
    app_open(backend, 1);
    EQUAL(rt_group_join(app.loop, rt_group_open(app.loop, "g", &o), app.s[0]),
          0);
    for (app.turn = 1; app.turn < 5; app.turn++)
        rt_poll(app.loop, 0);
    EQUAL(app.closes, 1);
    EQUAL(app.got, 1);
    EQUAL(app.closed_in, 1);
    app_end();
}

static void a_stream_read_to_its_end_is_not_held(int backend)
{
    peer *p = &app.p[0];
    app_reset(backend);
    app_start("tcp://127.0.0.1:0"); /* close_ms is 5 s */
    app_streams(1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, sizeof big), 1);
    peer_turn(app.loop, 0);
    shutdown(p->fd, SHUT_WR);
    app_turns(3);
    CHECK(peer_fill(p, sizeof big + 4));
    EQUAL(peer_ended(p), PEER_EOF);
    CHECK(connections_until(0));
    app_end();
}

static void a_peer_cannot_prolong_a_close(int backend)
{
    uint64_t began;
    size_t n = 4 * sizeof big;
    char *whole = calloc(1, n);
    app_reset(backend);
    app.opts.close_ms = 150;
    app_start("tcp://127.0.0.1:0");
    app_streams(1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, whole, n), 1);
    free(whole);
    peer_turn(app.loop, 0);
    began = peer_clock();
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    app_turns(130);
    shutdown(app.p[0].fd, SHUT_WR);
    CHECK(connections_until(0));
    CHECK(peer_clock() - began < 250);
    app_end();
}

static void a_skipped_message_alone_brings_on_writable(int backend)
{
    app_open(backend, 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 1000), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY | RT_DROPPABLE, big, 1 << 20),
          1);
    CHECK(peer_until(app.loop, &app.writables, 1));
    peer_quiet(app.loop);
    EQUAL(app.writables, 1);
    app_end();
}

/* ---- what the system or the heap refuses -------------------------------- */

static void no_on_close_comes_without_an_on_open(int backend)
{
    FILE *file = tmpfile(); /* epoll takes no such thing */
    int fd;
    app_reset(backend);
    app.answer = RT_DEFER;
    app_ws();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/", "");
    CHECK(peer_until(app.loop, &app.asks, 1));
    peer_say(&app.p[0], "more"); /* held, nothing more is waited for */
    app_turns(3);
    fd = far_end(&app.p[0]);
    CHECK(file && fd >= 0 && dup2(fileno(file), fd) == fd);
    rt_accept(app.loop, app.asked[0], NULL);
    app_turns(3);
    EQUAL(app.opens, app.closes);
    app_end();
    if (file)
        fclose(file);
}

/* Both ends are here; the server could take the session up again. */
static void one_who_will_not_come_back_may_speak_rtnet1(int backend)
{
    rt_dial_opts o = {.on = handler, .framing = RT_RTNET1};
    rt_session dialled;
    char url[64];
    int i;
    app_reset(backend);
    app.opts.framing = RT_RTNET1;
    app.opts.resume_ms = 60000;
    app_start("tcp://127.0.0.1:0");
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", app.port);
    dialled = rt_dial(app.loop, url, &o);
    CHECK(peer_until(app.loop, &app.opens, 2));
    for (i = 0; i < 2; i++)
        EQUAL(rt_send(app.loop, app.s[i], RT_TEXT, "hello", 5), 0);
    CHECK(peer_until(app.loop, &app.messages, 2));
    EQUAL(rt_drop(app.loop, dialled, 0, NULL), 0);
    CHECK(peer_until(app.loop, &app.closes, 2)); /* 1000: for good */
    app_end();
}

static void a_dial_without_memory_has_its_on_close(int backend)
{
    rt_dial_opts o = {.on = handler};
    peer *p = &app.p[0];
    char url[64];
    int port = 0, server = peer_listen(&port);
    app_reset(backend);
    app_ws();
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", port);
    CHECK(rt_dial(app.loop, url, &o).id != 0);
    CHECK(peer_accept(p, app.loop, server));
    app_turns(3);
    app.dry = 1;
    peer_say(p, "HTTP/1.1 101 Switching");
    app_turns(3);
    app.dry = 0;
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 1006);
    EQUAL(app.cause, RT_BY_ERROR);
    EQUAL(connections(), 0);
    app.opens++; /* a dial has its on_close without one */
    app_end();
    close(server);
}

/* The peer has "1", "2" and "3", or it came to an end after some of them. */
static void check_no_hole(peer *p)
{
    static const char *want[] = {"1", "2", "3"};
    size_t i = 0;
    app_turns(2);
    peer_take(p);
    while (p->len - p->at >= 5 && i < COUNT(want))
        CHECK(peer_stream_got(p, want[i++]));
    CHECK(i == COUNT(want) || peer_ended(p));
}

static void group_without_memory(int backend, long after)
{
    rt_group g;
    int i;
    app_reset(backend);
    app_start("tcp://127.0.0.1:0");
    app_streams(3);
    g = rt_group_open(app.loop, "g", NULL);
    for (i = 0; i < 3; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    app.fails = after;
    rt_group_send(app.loop, g, RT_TEXT, "1", 1);
    app.fails = -1;
    app_turns(2);
    rt_group_send(app.loop, g, RT_TEXT, "2", 1);
    rt_group_send(app.loop, g, RT_TEXT, "3", 1);
    for (i = 0; i < 3; i++)
        check_no_hole(&app.p[i]);
    app_end();
}

static void a_group_leaves_no_hole_where_memory_is_short(int backend)
{
    long n;
    for (n = 0; n < 5; n++)
        group_without_memory(backend, n);
}

static void stop_reading(rt_loop *loop, rt_session s)
{
    rt_read(loop, s, 0);
}

/* Each has a message that is held, so that closing wants memory. */
static void held_peers(int n)
{
    uint8_t f[32];
    int i;
    size_t k = peer_frame_build(f, 0x82, "a", 1);
    k += peer_frame_build(f + k, 0x82, "b", 1);
    app_peers(n);
    for (i = 0; i < n; i++)
        peer_put(&app.p[i], f, k);
    CHECK(peer_until(app.loop, &app.messages, n));
    peer_quiet(app.loop);
}

static void closes_without_memory_leave_no_timer(int backend)
{
    enum { N = 20 };
    int i;
    app_reset(backend);
    app.message = stop_reading;
    app.opts.close_ms = 30;
    app_ws();
    held_peers(N);
    app.dry = 1;
    for (i = 0; i < N; i++)
        rt_close(app.loop, app.s[i], 0, NULL);
    app.dry = 0;
    CHECK(peer_until(app.loop, &app.closes, N));
    CHECK(connections_until(0));
    EQUAL(app.loop->timer_count, 0); /* none of a connection that is gone */
    app_end();
}

static void watch_tells(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)events;
    app.tells++;
    if (arg)
        EQUAL(rt_watch_stop(loop, w), 0);
}

static void a_watch_of_no_descriptor_takes_no_memory(int backend)
{
    size_t before;
    app_open(backend, 0);
    before = peer_heap;
    EQUAL(rt_watch_start(app.loop, 1000000, RT_READ, watch_tells, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(peer_heap, before);
    app_end();
}

static void a_watched_descriptor_that_was_closed_blinds_nobody(int backend)
{
    int lost[2], here[2], i;
    app_open(backend, 1);
    CHECK(pipe(lost) == 0 && pipe(here) == 0);
    CHECK(rt_watch_start(app.loop, lost[0], RT_READ, watch_tells, NULL).id);
    CHECK(rt_watch_start(app.loop, here[0], RT_READ, watch_tells, &app).id);
    close(lost[0]);
    for (i = 0; i < 3; i++)
        CHECK(rt_poll(app.loop, 0) >= 0);
    EQUAL(app.tells, 0);
    CHECK(write(here[1], "x", 1) == 1);
    CHECK(peer_until(app.loop, &app.tells, 1));
    peer_text(&app.p[0], "still here");
    CHECK(peer_until(app.loop, &app.messages, 1));
    app_end();
    close(lost[1]);
    close(here[0]);
    close(here[1]);
}

/* ---- what the loop tells ------------------------------------------------ */

static void rt_stop_without_rt_run_does_not_hurry_a_foreign_loop(int backend)
{
    app_open(backend, 1);
    rt_stop(app.loop);
    peer_quiet(app.loop);
    EQUAL(rt_loop_timeout(app.loop), -1);
    EQUAL(rt_run(app.loop), 0); /* it ends this one, which starts later */
    EQUAL(rt_loop_timeout(app.loop), -1);
    app_end();
}

static int closes_with(const char *code)
{
    char line[64];
    snprintf(line, sizeof line, "rtnet_closes_total{code=\"%s\"}", code);
    return (int)peer_metric(app.loop, line);
}

static void metrics_tell_the_closes_of_each_code(int backend)
{
    app_open(backend, 6);
    rt_bind(app.loop, app.s[0], "user");
    rt_bind(app.loop, app.s[1], "user"); /* ends the first */
    EQUAL(rt_kick(app.loop, "user", 0, NULL), 1);
    CHECK(rt_send(app.loop, app.s[2], RT_BINARY, big, 1000) >= 0);
    EQUAL(rt_send(app.loop, app.s[2], RT_BINARY, big, sizeof big), RT_EFULL);
    EQUAL(rt_close(app.loop, app.s[3], RT_CLOSE_EXPIRED, NULL), 0);
    EQUAL(rt_close(app.loop, app.s[4], 4100, NULL), 0);
    EQUAL(rt_close(app.loop, app.s[5], RT_CLOSE_STALE, NULL), 0);
    CHECK(peer_until(app.loop, &app.closes, 6));
    EQUAL(closes_with("4001"), 1);
    EQUAL(closes_with("4002"), 0);
    EQUAL(closes_with("4003"), 1);
    EQUAL(closes_with("4501"), 1);
    EQUAL(closes_with("4502"), 1);
    EQUAL(closes_with("4503"), 1);
    EQUAL(closes_with("4504"), 0);
    EQUAL(closes_with("other"), 1);
    app_end();
}

/* ---- groups ------------------------------------------------------------- */

/* Memory that the loop takes for a peer that reads nothing. */
static size_t heap_of_alternation(int backend, int hard_mark)
{
    rt_group g[2];
    size_t before, most = 0;
    int i;
    app_reset(backend);
    app.opts.hard_mark = hard_mark;
    app_ws();
    app_peers(1);
    g[0] = rt_group_open(app.loop, "a", NULL);
    g[1] = rt_group_open(app.loop, "b", NULL);
    rt_group_join(app.loop, g[0], app.s[0]);
    rt_group_join(app.loop, g[1], app.s[0]);
    before = peer_heap;
    for (i = 0; i < hard_mark; i++) {
        if (rt_group_send(app.loop, g[i & 1], RT_BINARY, "x", 1) != 1)
            break;
        most = peer_heap - before > most ? peer_heap - before : most;
    }
    CHECK(i < hard_mark); /* the queue was full */
    peer_turn(app.loop, 0);
    EQUAL(app.code, RT_CLOSE_SLOW);
    app_end();
    return most;
}

static void groups_in_turn_keep_to_the_hard_mark(int backend)
{
    size_t most = heap_of_alternation(backend, 200000);
    CHECK(most > 20000);
    CHECK(most < 2 * 200000);
}

/* More groups than 16 bits count; less where a machine is emulated. */
#ifndef VERY_MANY
#define VERY_MANY 65600
#endif

/* Joining looks at all the session's groups, so this is the dearest case: one
   backend, for it is no matter of theirs. */
static void a_session_leaves_all_of_very_many_groups(void)
{
    enum { N = VERY_MANY };
    rt_group *g = calloc(N, sizeof *g);
    size_t i, joined = 0, left = 0;
    char name[16];
    app_reset(RT_AUTO);
    app.loop_opts.groups_per_session = RT_OFF;
    app.loop_opts.max_groups = RT_OFF;
    app_ws();
    app_peers(1);
    for (i = 0; i < N; i++) {
        snprintf(name, sizeof name, "g%u", (unsigned)i);
        g[i] = rt_group_open(app.loop, name, NULL);
        joined += rt_group_join(app.loop, g[i], app.s[0]) == 0;
    }
    EQUAL(joined, N);
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    CHECK(peer_until(app.loop, &app.closes, 1));
    for (i = 0; i < N; i++)
        left += rt_group_count(app.loop, g[i]);
    EQUAL(left, 0);
    app_end();
    free(g);
}

static rt_group history_open(int backend, int peers, const rt_group_opts *o)
{
    app_open(backend, peers);
    return rt_group_open(app.loop, "g", o);
}

static void group_say(rt_group g, const char *text)
{
    CHECK(rt_group_send(app.loop, g, RT_TEXT, text, strlen(text)) >= 0);
}

static void a_newcomer_is_told_what_a_group_remembers(int backend)
{
    rt_group_opts o = {.history = 2};
    rt_group g = history_open(backend, 1, &o);
    group_say(g, "1");
    group_say(g, "2");
    group_say(g, "3");
    EQUAL(rt_group_join_from(app.loop, g, app.s[0], NULL), 2);
    group_say(g, "4");
    CHECK(peer_got(&app.p[0], RT_TEXT, "2"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "3"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "4"));
    CHECK(peer_silent(&app.p[0]));
    EQUAL(rt_group_join_from(app.loop, g, app.s[0], NULL), RT_EEXIST);
    app_end();
}

static void who_knows_its_position_gets_what_came_since(int backend)
{
    rt_group_opts o = {.history = 8};
    rt_group g = history_open(backend, 2, &o);
    rt_position since;
    group_say(g, "1");
    since = rt_group_position(app.loop, g);
    group_say(g, "2");
    group_say(g, "3");
    EQUAL(rt_group_join_from(app.loop, g, app.s[0], &since), 2);
    CHECK(peer_got(&app.p[0], RT_TEXT, "2"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "3"));
    since = rt_group_position(app.loop, g);
    EQUAL(rt_group_join_from(app.loop, g, app.s[1], &since), 0);
    CHECK(peer_silent(&app.p[1]));
    EQUAL(rt_group_count(app.loop, g), 2);
    app_end();
}

/* It joined, nothing was replayed, and it hears what follows. */
static void check_refused(rt_group g, int who, rt_position since)
{
    char text[16];
    EQUAL(rt_group_join_from(app.loop, g, app.s[who], &since), RT_EREFUSED);
    snprintf(text, sizeof text, "after %d", who);
    group_say(g, text);
    CHECK(peer_got(&app.p[who], RT_TEXT, text));
    EQUAL(rt_group_leave(app.loop, g, app.s[who]), 0);
}

static void a_position_that_is_not_remembered_is_refused(int backend)
{
    rt_group_opts o = {.history = 2};
    rt_group g = history_open(backend, 4, &o);
    rt_position first, other, ahead;
    group_say(g, "1");
    first = other = ahead = rt_group_position(app.loop, g);
    group_say(g, "2");
    group_say(g, "3");
    EQUAL(rt_group_join_from(app.loop, g, app.s[3], &first), 2);
    group_say(g, "4"); /* now 2 is forgotten */
    check_refused(g, 0, first);
    other.epoch ^= 1;
    other.offset = rt_group_position(app.loop, g).offset;
    check_refused(g, 1, other);
    ahead.offset = rt_group_position(app.loop, g).offset + 1;
    check_refused(g, 2, ahead);
    app_end();
}

static void a_group_forgets_by_bytes_and_by_time(int backend)
{
    rt_group_opts bytes = {.history_bytes = 10}, ms = {.history_ms = 20};
    rt_group g = history_open(backend, 2, &bytes), h;
    group_say(g, "12345");
    group_say(g, "67890");
    EQUAL(rt_group_join_from(app.loop, g, app.s[0], NULL), 2);
    group_say(g, "x");
    EQUAL(rt_group_join_from(app.loop, g, app.s[1], NULL), 2);
    h = rt_group_open(app.loop, "h", &ms);
    group_say(h, "old");
    app_turns(25);
    group_say(h, "new");
    EQUAL(rt_group_join_from(app.loop, h, app.s[1], NULL), 1);
    app_end();
}

static void what_may_be_lost_is_not_remembered(int backend)
{
    rt_group_opts o = {.history = 8};
    rt_group g = history_open(backend, 1, &o);
    group_say(g, "1");
    rt_group_send(app.loop, g, RT_TEXT | RT_NO_HISTORY, "no", 2);
    rt_group_send(app.loop, g, RT_TEXT | RT_DROPPABLE, "no", 2);
    rt_group_send(app.loop, g, RT_TEXT | rt_latest(7), "no", 2);
    group_say(g, "2");
    EQUAL(rt_group_position(app.loop, g).offset, 2);
    EQUAL(rt_group_join_from(app.loop, g, app.s[0], NULL), 2);
    CHECK(peer_got(&app.p[0], RT_TEXT, "1"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "2"));
    CHECK(peer_silent(&app.p[0]));
    app_end();
}

static void a_position_counts_from_1_in_an_epoch_of_its_own(int backend)
{
    rt_group g = history_open(backend, 0, NULL);
    rt_position a = rt_group_position(app.loop, g), b;
    EQUAL(a.offset, 0);
    CHECK(a.epoch != 0);
    group_say(g, "1");
    b = rt_group_position(app.loop, g);
    EQUAL(b.offset, 1);
    CHECK(b.epoch == a.epoch);
    EQUAL(rt_group_close(app.loop, g), 0);
    CHECK(rt_group_position(app.loop, g).epoch == 0);
    EQUAL(rt_group_position(app.loop, g).offset, 0);
    g = rt_group_open(app.loop, "g", NULL);
    CHECK(rt_group_position(app.loop, g).epoch != a.epoch);
    EQUAL(rt_group_position(app.loop, g).offset, 0);
    app_end();
}

static int gone_within(rt_group g, int ms)
{
    uint64_t end = peer_clock() + (uint64_t)ms;
    while (rt_group_name(app.loop, g) && peer_clock() < end)
        peer_turn(app.loop, 1);
    return rt_group_name(app.loop, g) == NULL;
}

static void an_empty_group_ends_after_its_time_to_live(int backend)
{
    rt_group_opts o = {.ttl_ms = 60};
    rt_group g = history_open(backend, 1, &o), h;
    h = rt_group_open(app.loop, "h", NULL);
    EQUAL(rt_group_join(app.loop, g, app.s[0]), 0);
    CHECK(!gone_within(g, 70)); /* it has a member */
    EQUAL(rt_group_leave(app.loop, g, app.s[0]), 0);
    app_turns(35);
    group_say(g, "used");
    CHECK(!gone_within(g, 35));
    CHECK(gone_within(g, PEER_WAIT));
    EQUAL(rt_group_find(app.loop, "g").id, 0);
    CHECK(rt_group_name(app.loop, h) != NULL);
    app_end();
}

/* ---- hooks -------------------------------------------------------------- */

static void hook_says(const char *what, const char *name)
{
    size_t n = strlen(app.text);
    snprintf(app.text + n, sizeof app.text - n, "%s %s|", what, name);
}

static void on_first(rt_loop *loop, const char *name)
{
    (void)loop;
    hook_says("first", name);
}

static void on_last(rt_loop *loop, const char *name)
{
    (void)loop;
    hook_says("last", name);
}

static void hook_quotes(const char *what, const char *name, int kind,
                        const void *data, size_t len)
{
    char line[64];
    snprintf(line, sizeof line, "%s %d %.*s to", what, kind, (int)len,
             (const char *)data);
    hook_says(line, name);
}

static void on_out(rt_loop *loop, const char *name, int kind, const void *data,
                   size_t len)
{
    (void)loop;
    hook_quotes("out", name, kind, data, len);
}

static void on_miss(rt_loop *loop, const char *uid, int kind, const void *data,
                    size_t len)
{
    (void)loop;
    hook_quotes("miss", uid, kind, data, len);
}

static void hooks_open(int backend, int peers)
{
    app_reset(backend);
    app.loop_opts.group_first = on_first;
    app.loop_opts.group_last = on_last;
    app.loop_opts.group_out = on_out;
    app.loop_opts.push_miss = on_miss;
    app_ws();
    app_peers(peers);
}

/* The hooks have told just that; none of it inside a call. */
static void check_hooks(const char *want)
{
    EQUAL(strlen(app.text), 0);
    peer_quiet(app.loop);
    CHECK(strcmp(app.text, want) == 0);
    if (strcmp(app.text, want) != 0)
        printf("[%s] is not [%s]\n", app.text, want);
    app.text[0] = 0;
}

static void hooks_tell_of_the_first_and_the_last_member(int backend)
{
    rt_group g;
    hooks_open(backend, 2);
    g = rt_group_open(app.loop, "g", NULL);
    check_hooks("");
    rt_group_join(app.loop, g, app.s[0]);
    rt_group_join(app.loop, g, app.s[1]);
    check_hooks("first g|");
    rt_group_leave(app.loop, g, app.s[0]);
    check_hooks("");
    rt_close(app.loop, app.s[1], 0, NULL);
    check_hooks("last g|");
    rt_group_join(app.loop, g, app.s[0]);
    rt_group_close(app.loop, g);
    check_hooks("first g|last g|");
    app_end();
}

static void hooks_tell_what_was_sent_and_what_found_nobody(int backend)
{
    rt_group g;
    hooks_open(backend, 1);
    g = rt_group_open(app.loop, "g", NULL);
    rt_group_join(app.loop, g, app.s[0]);
    rt_bind(app.loop, app.s[0], "here");
    check_hooks("first g|");
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "hello", 5), 1);
    EQUAL(rt_push(app.loop, "away", RT_BINARY, "lost", 4), 0);
    EQUAL(rt_push(app.loop, "here", RT_TEXT, "found", 5), 1);
    check_hooks("out 1 hello to g|miss 2 lost to away|");
    CHECK(peer_got(&app.p[0], RT_TEXT, "hello"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "found"));
    app_end();
}

static void an_upstream_group_delivers_what_comes_back_alone(int backend)
{
    rt_group_opts o = {.upstream = 1, .history = 4};
    rt_group g;
    hooks_open(backend, 1);
    g = rt_group_open(app.loop, "g", &o);
    rt_group_join(app.loop, g, app.s[0]);
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "up", 2), 0);
    check_hooks("first g|out 1 up to g|");
    CHECK(peer_silent(&app.p[0]));
    EQUAL(rt_group_position(app.loop, g).offset, 0);
    EQUAL(rt_group_deliver(app.loop, "g", RT_TEXT, "down", 4), 1);
    check_hooks("");
    CHECK(peer_got(&app.p[0], RT_TEXT, "down"));
    EQUAL(rt_group_position(app.loop, g).offset, 1);
    EQUAL(rt_group_deliver(app.loop, "other", RT_TEXT, "x", 1), RT_EGONE);
    EQUAL(rt_group_deliver(app.loop, "g", RT_TEXT, "\xff", 1), RT_EUTF8);
    app_end();
}

/* ---- shutting down ------------------------------------------------------ */

static void a_shutdown_is_spread_over_its_window(int backend)
{
    enum { N = 20, WINDOW = 100 };
    uint64_t began, took;
    int i, halfway = 0;
    app_open(backend, N);
    EQUAL(rt_shutdown(app.loop, -1), RT_EINVAL);
    began = peer_clock();
    EQUAL(rt_shutdown(app.loop, WINDOW), 0);
    EQUAL(app.closes, 0);
    while (app.closes < N && peer_clock() - began < PEER_WAIT) {
        peer_turn(app.loop, 1);
        if (peer_clock() - began < WINDOW / 2)
            halfway = app.closes;
    }
    took = peer_clock() - began;
    EQUAL(app.closes, N);
    CHECK(halfway > 0 && halfway < N);
    CHECK(took >= WINDOW / 2);
    for (i = 0; i < N; i++)
        EQUAL(peer_closed(&app.p[i]), 1012);
    app_end();
}

static void a_shutdown_without_a_window_is_at_once(int backend)
{
    peer late = {.fd = -1};
    app_open(backend, 3);
    EQUAL(rt_shutdown(app.loop, 0), 0);
    CHECK(!peer_tcp(&late, app.loop, app.port));
    peer_end(&late);
    peer_quiet(app.loop);
    EQUAL(app.closes, 3);
    EQUAL(app.code, 1012);
    EQUAL(app.cause, RT_BY_LOOP);
    CHECK(strncmp(app.reason, "retry=", 6) == 0);
    EQUAL(peer_closed(&app.p[0]), 1012);
    EQUAL(peer_closed(&app.p[2]), 1012);
    app_end();
}

/* ---- all of them -------------------------------------------------------- */

enum { NEWCOMERS = 100 };

/* They ask for what is not there, all before the loop looks. */
static void newcomers_do_not_hold_up_who_is_in(int backend)
{
    static peer p[NEWCOMERS];
    uint64_t refused;
    int i, turns = 0;
    app_reset(backend);
    app_ws();
    app_peers(1);
    app.answer = 404;
    for (i = 0; i < NEWCOMERS; i++) {
        CHECK(peer_tcp(&p[i], app.loop, app.port));
        rt_poll(app.loop, 0);
    }
    peer_quiet(app.loop);
    EQUAL(app.loop->shake_count, NEWCOMERS);
    refused = app.loop->stats.refused_by[RT__REFUSED_REQUEST];
    for (i = 0; i < NEWCOMERS; i++)
        peer_say(&p[i], "GET / HTTP/1.1\r\n\r\n"); /* without a Host */
    peer_text(&app.p[0], "hello");
    rt_poll(app.loop, 0);
    EQUAL(app.messages, 1);
    EQUAL(app.loop->stats.refused_by[RT__REFUSED_REQUEST] - refused,
          RT__NEWCOMERS);
    while (app.loop->stats.refused_by[RT__REFUSED_REQUEST] - refused <
               NEWCOMERS &&
           turns++ < 9)
        rt_poll(app.loop, 0);
    EQUAL(app.loop->stats.refused_by[RT__REFUSED_REQUEST] - refused, NEWCOMERS);
    EQUAL(turns, (NEWCOMERS - 1) / RT__NEWCOMERS);
    for (i = 0; i < NEWCOMERS; i++)
        peer_end(&p[i]);
    app_end();
}

static struct {
    int messages, closes;
} crowd;

static void crowd_message(rt_loop *loop, rt_session s, int kind,
                          const void *data, size_t len)
{
    (void)loop;
    (void)s;
    (void)kind;
    (void)data;
    (void)len;
    crowd.messages++;
}

static void crowd_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    (void)why;
    crowd.closes++;
}

/* select does not tell a reset from a message. */
static void the_cut_off_do_not_hold_up_who_stays(int backend)
{
    static peer p[NEWCOMERS];
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_listener l;
    rt_loop *loop;
    int i;
    memset(&crowd, 0, sizeof crowd);
    memset(&loop_opts, 0, sizeof loop_opts);
    memset(&opts, 0, sizeof opts);
    loop_opts.backend = backend;
    opts.on.message = crowd_message;
    opts.on.close = crowd_close;
    loop = rt_loop_new(&loop_opts);
    l = rt_listen(loop, "ws://127.0.0.1:0", &opts);
    for (i = 0; i < NEWCOMERS; i++)
        CHECK(peer_ws(&p[i], loop, rt_listener_port(loop, l), "/"));
    peer_quiet(loop);
    for (i = 0; i < NEWCOMERS - 1; i++)
        peer_reset(&p[i]);
    peer_text(&p[i], "hello");
    rt_poll(loop, 0);
    EQUAL(crowd.messages, 1);
    EQUAL(crowd.closes, backend == RT_SELECT ? NEWCOMERS - 1 : RT__NEWCOMERS);
    CHECK(peer_until(loop, &crowd.closes, NEWCOMERS - 1));
    peer_end(&p[i]);
    rt_loop_free(loop);
}

static void run_requests(void)
{
    RUN_EACH(an_answer_that_is_flushed_at_once_is_asked_for_once);
    RUN_EACH(an_answer_given_in_on_close_is_asked_for_once);
    RUN_EACH(a_page_before_an_overfull_queue_arrives_whole);
    RUN_EACH(nobody_gets_the_bytes_of_another);
    RUN_EACH(on_open_may_send_one_message_above_the_hard_mark);
    RUN_EACH(a_reply_at_the_deadline_counts_when_it_is_taken);
    RUN_EACH(an_accept_at_the_deadline_counts_when_it_is_taken);
    RUN_EACH(a_page_that_is_read_slowly_is_not_cut);
    RUN_EACH(the_last_page_is_not_cut_either);
    RUN_EACH(a_peer_that_takes_its_message_slowly_is_alive);
    RUN_EACH(a_pause_of_ours_is_not_the_peers_slowness);
    RUN_EACH(jitter_does_not_fall_under_zero);
}

static void run_closes(void)
{
    RUN_EACH(newcomers_do_not_hold_up_who_is_in);
    RUN_EACH(the_cut_off_do_not_hold_up_who_stays);
    RUN_EACH(a_host_that_was_busy_can_still_say_goodbye);
    RUN_EACH(half_a_frame_behind_the_handshake_does_not_hide_a_close);
    RUN_EACH(a_close_behind_the_handshake_answers_ours);
    RUN_EACH(nonsense_behind_our_close_does_not_swallow_it);
    RUN_EACH(on_close_comes_in_the_turn_of_the_close);
    RUN_EACH(a_stream_read_to_its_end_is_not_held);
    RUN_EACH(a_peer_cannot_prolong_a_close);
    RUN_EACH(a_skipped_message_alone_brings_on_writable);
    RUN_EACH(no_on_close_comes_without_an_on_open);
    RUN_EACH(one_who_will_not_come_back_may_speak_rtnet1);
    RUN_EACH(a_dial_without_memory_has_its_on_close);
    RUN_EACH(a_group_leaves_no_hole_where_memory_is_short);
    RUN_EACH(closes_without_memory_leave_no_timer);
    RUN_EACH(a_watch_of_no_descriptor_takes_no_memory);
    RUN_EACH(a_watched_descriptor_that_was_closed_blinds_nobody);
    RUN_EACH(rt_stop_without_rt_run_does_not_hurry_a_foreign_loop);
    RUN_EACH(metrics_tell_the_closes_of_each_code);
}

static void run_groups(void)
{
    RUN_EACH(groups_in_turn_keep_to_the_hard_mark);
    RUN(a_session_leaves_all_of_very_many_groups);
    RUN_EACH(a_newcomer_is_told_what_a_group_remembers);
    RUN_EACH(who_knows_its_position_gets_what_came_since);
    RUN_EACH(a_position_that_is_not_remembered_is_refused);
    RUN_EACH(a_group_forgets_by_bytes_and_by_time);
    RUN_EACH(what_may_be_lost_is_not_remembered);
    RUN_EACH(a_position_counts_from_1_in_an_epoch_of_its_own);
    RUN_EACH(an_empty_group_ends_after_its_time_to_live);
    RUN_EACH(hooks_tell_of_the_first_and_the_last_member);
    RUN_EACH(hooks_tell_what_was_sent_and_what_found_nobody);
    RUN_EACH(an_upstream_group_delivers_what_comes_back_alone);
    RUN_EACH(a_shutdown_is_spread_over_its_window);
    RUN_EACH(a_shutdown_without_a_window_is_at_once);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* a crash shows where */
    run_requests();
    run_closes();
    run_groups();
    return test_done();
}
