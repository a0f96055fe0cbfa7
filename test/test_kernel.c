/*
 * The loop on the real kernel's loopback, where peers are as bad as they can
 * be there: no descriptor is left, a reset at each byte of a conversation,
 * windows that never open, half of a connection, descriptors that somebody
 * else holds as well, SIGPIPE as the system sets it.
 *
 * Each case has a loop of its own and ends with what the process had before:
 * so many descriptors, no heap, the same signals.
 */
#include "rtnet_internal.h"
#include "descriptors.h"
#include "test.h"

#include "peer.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

enum { FILES = 4096, NONE = -1 };

/* ---- the stage ----------------------------------------------------------- */

static struct {
    rt_loop *loop;
    rt_listen_opts o;
    rt_listener listener;
    rt_group all;
    rt_session last; /* that opened */
    int port, files;
    int opens, messages, closes, code, cause;
    long long most; /* that heap_bytes ever was, of the turns counted */
} st;

static void on_open(rt_loop *loop, rt_session s)
{
    st.opens++;
    st.last = s;
    rt_group_join(loop, st.all, s);
}

static void on_echo(rt_loop *loop, rt_session s, int kind, const void *data,
                    size_t len)
{
    st.messages++;
    rt_send(loop, s, kind, data, len);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    st.closes++;
    st.code = why->code;
    st.cause = why->cause;
}

/* A loop that does not listen yet; st.o may be changed before. */
static void loop_open(int backend)
{
    rt_loop_opts o;
    memset(&o, 0, sizeof o);
    memset(&st, 0, sizeof st);
    o.backend = backend;
    o.realloc = peer_realloc;
    st.files = descriptors(FILES);
    st.loop = rt_loop_new(&o);
    CHECK(st.loop != NULL);
    st.all = rt_group_open(st.loop, "all", NULL);
    st.o.on.open = on_open;
    st.o.on.message = on_echo;
    st.o.on.close = on_close;
}

static void listen_at(const char *url)
{
    st.listener = rt_listen(st.loop, url, &st.o);
    st.port = rt_listener_port(st.loop, st.listener);
    CHECK(st.port > 0);
}

static void serve(int backend)
{
    loop_open(backend);
    listen_at("ws://127.0.0.1:0");
}

/* All peers have ended. */
static void stage_close(void)
{
    rt_loop_free(st.loop);
    EQUAL(st.opens, st.closes);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    EQUAL(descriptors(FILES), st.files);
}

static long long metric(const char *name)
{
    return peer_metric(st.loop, name);
}

/* How many turns the loop makes in so many ms, where it may wait: one that
   spins makes thousands. */
static int turns_in(int ms)
{
    uint64_t now = peer_clock(), end = now + (uint64_t)ms;
    int n = 0;
    for (; now < end; now = peer_clock(), n++)
        rt_poll(st.loop, (int)(end - now));
    return n;
}

static void turn_until_gone(int connections)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (metric("rtnet_connections") > connections && peer_clock() < end)
        rt_poll(st.loop, 1);
    peer_quiet(st.loop); /* its on_close may be due in the next turn */
    EQUAL(metric("rtnet_connections"), connections);
}

/* A new one comes in and is served: the loop is none the worse. */
static void newcomer_is_served(void)
{
    peer p;
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    peer_text(&p, "still here?");
    CHECK(peer_got(&p, RT_TEXT, "still here?"));
    peer_bye(&p, 1000);
    EQUAL(peer_closed(&p), 1000);
    peer_end(&p);
    peer_quiet(st.loop);
}

/* ---- without descriptors ------------------------------------------------- */

enum { WAITERS = 40, LEFT = 4, STARVED_MS = 1000, REST_MOST = 40 };

static struct rlimit files_were;

/* Only so many more may be opened. */
static void files_leave(int left)
{
    struct rlimit now;
    int fd;
    for (fd = 0; left >= 0; fd++)
        left -= fcntl(fd, F_GETFD) < 0;
    getrlimit(RLIMIT_NOFILE, &files_were);
    now = files_were;
    now.rlim_cur = (rlim_t)fd - 1;
    setrlimit(RLIMIT_NOFILE, &now);
}

static void files_are_back(void)
{
    setrlimit(RLIMIT_NOFILE, &files_were);
}

static void waiters_make(peer *p, int n)
{
    int i;
    for (i = 0; i < n; i++)
        peer_init(&p[i], st.loop, socket(AF_INET, SOCK_STREAM, 0));
}

static void waiters_knock(peer *p, int n)
{
    struct sockaddr_in to;
    int i;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)st.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (i = 0; i < n; i++)
        CHECK(connect(p[i].fd, (struct sockaddr *)&to, sizeof to) == 0 ||
              errno == EINPROGRESS);
    for (i = 0; i < n; i++)
        peer_ask(&p[i], "/", "");
}

/* Each was let in or told to come later: how many of them are in? */
static int waiters_in(peer *p, int n)
{
    int i, in = 0, shed = 0;
    for (i = 0; i < n; i++) {
        int status = peer_status(&p[i]);
        in += status == 101;
        shed += status == 503;
    }
    EQUAL(in + shed, n);
    return in;
}

static void waiters_end(peer *p, int n)
{
    int i;
    for (i = 0; i < n; i++)
        peer_end(&p[i]);
}

/* Who is in is served all the while; the others wait, are shed, or come in
   when there are descriptors again. */
static void without_descriptors_it_does_not_spin(int backend)
{
    peer p[WAITERS];
    int turns, in;
    serve(backend);
    waiters_make(p, WAITERS);
    files_leave(LEFT);
    waiters_knock(p, WAITERS);
    turns_in(50);
    EQUAL(st.opens, LEFT);
    turns = turns_in(STARVED_MS);
    CHECK(turns <= REST_MOST);
    CHECK(metric("rtnet_refused_total{why=\"descriptors\"}") <= 12);
    EQUAL(peer_status(&p[0]), 101);
    peer_text(&p[0], "in");
    CHECK(peer_got(&p[0], RT_TEXT, "in"));
    files_are_back();
    in = waiters_in(p + 1, WAITERS - 1);
    CHECK(in > LEFT);
    newcomer_is_served();
    waiters_end(p, WAITERS);
    turn_until_gone(0);
    stage_close();
}

/* Not even the spare one can be had again. */
static void with_no_spare_descriptor_it_recovers(int backend)
{
    peer p[WAITERS];
    struct rlimit now;
    serve(backend);
    waiters_make(p, WAITERS);
    getrlimit(RLIMIT_NOFILE, &files_were);
    now = files_were;
    now.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &now);
    waiters_knock(p, WAITERS);
    CHECK(turns_in(STARVED_MS) <= REST_MOST);
    EQUAL(st.opens, 0);
    files_are_back();
    CHECK(waiters_in(p, WAITERS) > WAITERS / 2);
    newcomer_is_served();
    waiters_end(p, WAITERS);
    turn_until_gone(0);
    stage_close();
}

/* What cannot be made says so, and keeps nothing. */
static void nothing_is_half_made_without_descriptors(int backend)
{
    rt_loop_opts o;
    int left, files, made = 0;
    memset(&o, 0, sizeof o);
    o.backend = backend;
    serve(backend);
    for (left = 0; left < 6; left++) {
        rt_loop *other;
        rt_session s;
        files = descriptors(FILES);
        files_leave(left);
        other = rt_loop_new(&o);
        made += other != NULL;
        rt_loop_free(other);
        EQUAL(descriptors(FILES), files);
        s = rt_dial(st.loop, "ws://127.0.0.1:9/", NULL);
        EQUAL(s.id != 0, left > 0);
        CHECK(s.id || rt_error(st.loop, NULL) == RT_ESYS);
        EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", NULL).id != 0, left > 1);
        files_are_back();
    }
    CHECK(made > 0 && made < 6);
    newcomer_is_served();
    stage_close();
}

/* ---- a reset at each byte ------------------------------------------------ */

enum { TALK = 1024 };

typedef struct {
    uint8_t bytes[TALK];
    size_t len, open; /* open: so many of them make a session */
} talk;

static void talk_add(talk *t, const void *data, size_t n)
{
    memcpy(t->bytes + t->len, data, n);
    t->len += n;
}

static void talk_frame(talk *t, int first, const char *text)
{
    t->len += peer_frame_build(t->bytes + t->len, first, text, strlen(text));
}

/* What a client says from its request to its close. */
static void talk_client(talk *t)
{
    static const char ask[] =
        "GET /? HTTP/1.1\r\nHost: peer\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    memset(t, 0, sizeof *t);
    talk_add(t, ask, sizeof ask - 1);
    t->open = t->len;
    talk_frame(t, 0x81, "one message");
    talk_frame(t, 0x89, "ping");
    talk_frame(t, 0x01, "one in ");
    talk_frame(t, 0x80, "two parts");
    talk_frame(t, 0x88, "\x03\xe8");
}

/* seen: the loop has read what was said before the reset comes. */
static void reset_client(const talk *t, size_t at, int seen)
{
    peer p;
    int opens = st.opens;
    CHECK(peer_tcp(&p, st.loop, st.port));
    peer_put(&p, t->bytes, at);
    if (seen)
        peer_quiet(st.loop);
    peer_reset(&p);
    turn_until_gone(0);
    EQUAL(st.opens, st.closes);
    if (seen)
        EQUAL(st.opens - opens, at >= t->open);
    if (seen && at >= t->open)
        EQUAL(st.code, at == t->len ? 1000 : 1006);
}

static void a_client_resets_at_each_byte(int backend)
{
    talk t;
    size_t at;
    talk_client(&t);
    serve(backend);
    for (at = 0; at <= t.len && !test_bad; at++) {
        reset_client(&t, at, 1);
        reset_client(&t, at, 0);
    }
    newcomer_is_served();
    stage_close();
}

/* ---- a reset at each byte, and back ------------------------------------- */

enum { SAID = 3 };

static const char *const said[SAID] = {"mone", "mtwo in more bytes", "m3"};

static char heard[128]; /* what the session was told, in order */

static void on_heard(rt_loop *loop, rt_session s, int kind, const void *data,
                     size_t len)
{
    (void)loop;
    (void)s;
    (void)kind;
    strncat(heard, data, len);
    strncat(heard, ";", 2);
}

/* Opens, or resumes with a token and its attempt; the token of the answer goes
   there.  Returns how many messages the server has. */
static int welcome(peer *p, char token[23], int attempt)
{
    char words[64] = "h", text[131] = "", fresh[23] = "", status[8] = "";
    int received = NONE;
    peer_frame f;
    if (attempt)
        snprintf(words, sizeof words, "h%s 0 %d", token, attempt);
    CHECK(peer_tcp(p, st.loop, st.port));
    peer_ask(p, "/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
    EQUAL(peer_status(p), 101);
    peer_text(p, words);
    if (peer_next(p, &f) && f.len < sizeof text)
        memcpy(text, f.data, f.len);
    EQUAL(sscanf(text, "w%22s %*s %d %*d %7s", fresh, &received, status), 3);
    CHECK(strcmp(status, attempt ? "resumed" : "new") == 0);
    snprintf(token, 23, "%s", fresh);
    return received;
}

/* What a client says behind the welcome. */
static void talk_on_from(talk *t, int from)
{
    memset(t, 0, sizeof *t);
    talk_frame(t, 0x81, "a0");
    for (; from < SAID; from++)
        talk_frame(t, 0x81, said[from]);
}

/* The reset comes at that byte behind the welcome, and may take what came last
   along; the server tells how much it has, and is told the rest. */
static void reset_and_back(size_t at, int seen)
{
    char token[23];
    peer p, q;
    talk t;
    int has;
    heard[0] = 0;
    EQUAL(welcome(&p, token, 0), 0);
    talk_on_from(&t, 0);
    peer_put(&p, t.bytes, at < t.len ? at : t.len);
    if (seen)
        peer_quiet(st.loop);
    peer_reset(&p);
    turn_until_gone(0);
    has = welcome(&q, token, 1);
    CHECK(has >= 0 && has <= SAID);
    CHECK(!seen || at < t.len || has == SAID);
    talk_on_from(&t, has);
    peer_put(&q, t.bytes, t.len);
    peer_bye(&q, 1000);
    EQUAL(peer_closed_at_last(&q), 1000);
    CHECK(strcmp(heard, "one;two in more bytes;3;") == 0);
    peer_end(&q);
    turn_until_gone(0);
}

static void a_session_comes_back_from_a_reset_at_each_byte(int backend)
{
    size_t at;
    talk t;
    talk_on_from(&t, 0);
    loop_open(backend);
    st.o.on.message = on_heard;
    st.o.resume_ms = 60000;
    listen_at("ws://127.0.0.1:0");
    for (at = 0; at <= t.len && !test_bad; at++) {
        reset_and_back(at, 1);
        reset_and_back(at, 0);
    }
    EQUAL(metric("rtnet_resumed_total"), 2 * (t.len + 1));
    EQUAL(metric("rtnet_sessions"), 0);
    stage_close();
}

/* ---- a server that resets ------------------------------------------------ */

static void on_dialled(rt_loop *loop, rt_session s)
{
    rt_group_join(loop, st.all, s);
    rt_send(loop, s, RT_TEXT, "hello", 5);
}

static void on_dial_message(rt_loop *loop, rt_session s, int kind,
                            const void *data, size_t len)
{
    st.messages++;
    rt_send(loop, s, kind, data, len);
}

/* What a server says to that request; its frames are unmasked. */
static void talk_server(talk *t, const char *request)
{
    static const uint8_t frames[] = {0x81, 3,    'o', 'n',  'e', 0x89, 1,
                                     'p',  0x01, 2,   't',  'w', 0x80, 1,
                                     'o',  0x82, 0,   0x88, 2,   3,    0xe8};
    static const char name[] = "\r\nSec-WebSocket-Key: ";
    const char *key = strstr(request, name);
    char accept[29], head[256];
    memset(t, 0, sizeof *t);
    CHECK(key != NULL);
    if (!key)
        return;
    rt__accept_key(key + sizeof name - 1, accept);
    snprintf(head, sizeof head,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accept);
    talk_add(t, head, strlen(head));
    t->open = t->len;
    talk_add(t, frames, sizeof frames);
}

/* The whole request, as a text; it has no body. */
static int request_read(peer *p, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    while (!strstr(out, "\r\n\r\n")) {
        if (n + 1 >= cap || !peer_fill(p, 1))
            return 0;
        out[n++] = (char)p->in[p->at++];
        out[n] = 0;
    }
    return 1;
}

/* A dialled session whose server goes at that byte of its talk; false when the
   talk has no such byte. */
static int reset_server(int door, int port, size_t at)
{
    rt_dial_opts o;
    char url[64], request[1024];
    int closes = st.closes;
    talk t;
    peer p;
    memset(&o, 0, sizeof o);
    o.on = st.o.on;
    o.on.open = on_dialled;
    o.on.message = on_dial_message;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", port);
    CHECK(rt_dial(st.loop, url, &o).id != 0);
    CHECK(peer_accept(&p, st.loop, door));
    CHECK(request_read(&p, request, sizeof request));
    talk_server(&t, request);
    peer_put(&p, t.bytes, at < t.len ? at : t.len);
    if (at % 2)
        peer_quiet(st.loop);
    peer_reset(&p);
    turn_until_gone(0);
    EQUAL(st.closes - closes, 1);
    if (at % 2)
        EQUAL(st.code, at >= t.len ? 1000 : 1006);
    return at <= t.len;
}

static void a_server_resets_at_each_byte(int backend)
{
    int port = 0, door;
    size_t at = 0;
    loop_open(backend);
    door = peer_listen(&port);
    while (reset_server(door, port, at) && !test_bad)
        at++;
    CHECK(at > 100);
    close(door);
    EQUAL(st.messages > 0, 1);
    st.opens = st.closes; /* of dialled ones, opens are not counted */
    stage_close();
}

/* They are gone before they are accepted. */
static void a_backlog_of_resets_leaves_nothing(int backend)
{
    peer p;
    int i;
    serve(backend);
    for (i = 0; i < 500; i++) {
        CHECK(peer_tcp(&p, NULL, st.port));
        peer_say(&p, i % 2 ? "GET / HTTP/1.1\r\n" : "");
        peer_reset(&p);
    }
    turn_until_gone(0);
    EQUAL(st.opens, 0);
    newcomer_is_served();
    stage_close();
}

/* ---- windows that never open --------------------------------------------- */

enum { SILENT = 20, READERS = 3, CASTS = 1500, PIECE = 4096, HARD = 262144 };

/* A socket that takes little. */
static void silent_connect(peer *p)
{
    struct sockaddr_in to;
    int small = 4096;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)st.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    peer_init(p, st.loop, socket(AF_INET, SOCK_STREAM, 0));
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    CHECK(connect(p->fd, (struct sockaddr *)&to, sizeof to) == 0 ||
          errno == EINPROGRESS);
    CHECK(peer_upgrade(p, "/"));
}

/* Without the buffers that the loop keeps for whoever needs one next. */
static long long heap_used(void)
{
    return metric("rtnet_heap_bytes") - (long long)st.loop->pooled -
           (long long)st.loop->large_kept;
}

static void cast(int number)
{
    uint8_t piece[PIECE];
    long long heap;
    memset(piece, number & 0xff, sizeof piece);
    memcpy(piece, &number, sizeof number);
    rt_group_send(st.loop, st.all, RT_BINARY, piece, sizeof piece);
    rt_poll(st.loop, 0);
    heap = metric("rtnet_heap_bytes");
    st.most = heap > st.most ? heap : st.most;
}

/* That one is the next; nothing is missing. */
static int cast_got(peer *p, int number)
{
    peer_frame f;
    return peer_next(p, &f) && f.op == RT_BINARY && f.len == PIECE &&
           memcmp(f.data, &number, sizeof number) == 0 &&
           f.data[PIECE - 1] == (number & 0xff);
}

/* The silent ones share each message, so all of them together hold no more
   than one hard mark of it, and little of their own. */
static long long heap_allowed(long long idle)
{
    return idle + HARD + 2 * 65536 + SILENT * (HARD / PIECE * 64 + 4096);
}

static void readers_read(peer *p, int number)
{
    int i;
    for (i = 0; i < READERS; i++)
        CHECK(cast_got(&p[i], number));
}

/* They are closed as too slow; the readers miss nothing; the memory is bounded;
   who does not even take the farewell is cut off. */
static void who_never_reads_is_dropped_and_stops_nobody(int backend)
{
    peer silent[SILENT], reader[READERS];
    long long idle;
    int i;
    loop_open(backend);
    st.o.hard_mark = HARD;
    st.o.close_ms = 200;
    listen_at("ws://127.0.0.1:0");
    for (i = 0; i < SILENT; i++)
        silent_connect(&silent[i]);
    for (i = 0; i < READERS; i++)
        CHECK(peer_ws(&reader[i], st.loop, st.port, "/"));
    idle = metric("rtnet_heap_bytes");
    for (i = 0; i < CASTS && !test_bad; i++) {
        cast(i);
        readers_read(reader, i);
    }
    EQUAL(st.closes, SILENT);
    EQUAL(st.code, RT_CLOSE_SLOW);
    EQUAL(st.cause, RT_BY_LIMIT);
    CHECK(st.most > idle + HARD / 2);
    CHECK(st.most <= heap_allowed(idle));
    turn_until_gone(READERS);
    CHECK(heap_used() <= idle + 65536);
    newcomer_is_served();
    waiters_end(silent, SILENT);
    waiters_end(reader, READERS);
    turn_until_gone(0);
    stage_close();
}

/* The echo of each ping waits: only the newest is kept. */
static void a_silent_pinger_costs_one_pong(int backend)
{
    peer p;
    long long idle;
    int i;
    loop_open(backend);
    st.o.control_rate = RT_OFF;
    listen_at("ws://127.0.0.1:0");
    silent_connect(&p);
    for (i = 0; i < 5000 && rt_unsent(st.loop, st.last) < 65536; i++)
        cast(i); /* until the kernel's buffers are full */
    CHECK(rt_unsent(st.loop, st.last) > 0);
    idle = metric("rtnet_heap_bytes");
    for (i = 0; i < 20000; i++) {
        peer_frame_put(&p, 0x89, "who is it?", 10);
        if (i % 100 == 0)
            peer_quiet(st.loop);
    }
    peer_quiet(st.loop);
    CHECK(metric("rtnet_heap_bytes") <= idle + 512);
    EQUAL(st.closes, 0);
    peer_end(&p);
    turn_until_gone(0);
    stage_close();
}

/* ---- ends ---------------------------------------------------------------- */

static void talk_on(peer *p, int ms)
{
    uint64_t end = peer_clock() + (uint64_t)ms;
    while (metric("rtnet_connections") > 0 && peer_clock() < end) {
        peer_text(p, "and another thing");
        peer_turn(st.loop, 1);
    }
}

/* It answers no close, says nothing more or goes on to talk. */
static void who_answers_no_close_is_cut_off(int backend)
{
    uint64_t began;
    int talks;
    for (talks = 0; talks < 2; talks++) {
        peer p;
        loop_open(backend);
        st.o.close_ms = 200;
        listen_at("ws://127.0.0.1:0");
        CHECK(peer_ws(&p, st.loop, st.port, "/"));
        began = peer_clock();
        EQUAL(rt_close(st.loop, st.last, 4321, "go"), 0);
        peer_quiet(st.loop);
        EQUAL(st.code, 4321);
        EQUAL(metric("rtnet_connections"), 1);
        talk_on(&p, talks ? PEER_WAIT : 0);
        turn_until_gone(0);
        CHECK(peer_clock() - began >= 190);
        CHECK(peer_ended(&p) == PEER_RESET);
        peer_end(&p);
        stage_close();
    }
}

static void on_last_word(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    (void)kind;
    (void)data;
    (void)len;
    rt_close(loop, s, 4444, "enough");
}

/* Closing a socket with unread input resets it, and the reset may overtake what
   was written last: so the peer must be heard out, whatever it says, whether
   the session was closed or broke the protocol with its first frame. */
static void last_word(int backend, int first, int code)
{
    static uint8_t rest[60000];
    peer p;
    int size = 4 * sizeof rest;
    loop_open(backend);
    st.o.on.message = on_last_word;
    listen_at("ws://127.0.0.1:0");
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    setsockopt(p.fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    peer_frame_put(&p, first, "first", 5);
    peer_quiet(st.loop);
    peer_frame_put(&p, 0x82, rest, sizeof rest);
    peer_quiet(st.loop);
    peer_frame_put(&p, 0x82, rest, sizeof rest);
    EQUAL(peer_closed(&p), code);
    peer_bye(&p, code);
    shutdown(p.fd, SHUT_WR);
    EQUAL(peer_ended(&p), PEER_EOF);
    peer_end(&p);
    turn_until_gone(0);
    EQUAL(st.code, code);
    stage_close();
}

static void the_last_word_arrives_though_the_peer_still_talks(int backend)
{
    last_word(backend, 0x81, 4444);
    last_word(backend, 0x83, 1002);
}

enum { LARGE = 65536, ECHOES = 30 };

/* On a stream, half of a connection is enough to take all answers. */
static void a_half_closed_stream_gets_all_its_answers(int backend)
{
    static char message[LARGE + 1];
    peer p;
    int i;
    memset(message, 'x', LARGE);
    loop_open(backend);
    st.o.hard_mark = LARGE * (ECHOES + 2);
    listen_at("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&p, st.loop, st.port));
    for (i = 0; i < ECHOES; i++)
        peer_stream_put(&p, message, LARGE);
    shutdown(p.fd, SHUT_WR);
    peer_quiet(st.loop);
    EQUAL(st.messages, ECHOES);
    EQUAL(st.code, 1005);
    for (i = 0; i < ECHOES; i++)
        CHECK(peer_stream_got(&p, message));
    EQUAL(peer_ended(&p), PEER_EOF);
    peer_end(&p);
    turn_until_gone(0);
    stage_close();
}

/* A WebSocket ends with a close; an end without one is the line's. */
static void a_half_closed_websocket_ends_after_its_last_message(int backend)
{
    peer p;
    serve(backend);
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    peer_text(&p, "last");
    shutdown(p.fd, SHUT_WR);
    CHECK(peer_ended(&p) != PEER_HERE);
    EQUAL(st.messages, 1);
    EQUAL(st.closes, 1);
    EQUAL(st.code, 1006);
    EQUAL(st.cause, RT_BY_PEER);
    peer_end(&p);
    turn_until_gone(0);
    stage_close();
}

/* Its kernel answers our bytes with a reset, in front of its own last ones. */
static void who_closes_with_unread_data_is_gone(int backend)
{
    peer p;
    int i;
    serve(backend);
    for (i = 0; i < 20; i++) {
        CHECK(peer_ws(&p, st.loop, st.port, "/"));
        peer_text(&p, "one");
        peer_quiet(st.loop);
        peer_text(&p, "two");
        if (i % 2)
            peer_quiet(st.loop);
        peer_end(&p);
        turn_until_gone(0);
        EQUAL(st.code, 1006);
    }
    EQUAL(st.closes, 20);
    newcomer_is_served();
    stage_close();
}

/* ---- descriptors that others hold, or that are too large ----------------- */

/* A process that holds whatever is open now. */
static pid_t holder_start(void)
{
    pid_t child, parent = getpid();
    fflush(stdout);
    child = fork();
    if (child != 0)
        return child;
    while (getppid() == parent)
        poll(NULL, 0, 100);
    _exit(0);
}

static void holder_end(pid_t child)
{
    int status;
    CHECK(child > 0);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
}

/* While the child has it, the kernel's file lives on after our close, and so
   would our interest in it: its events would wake the loop for ever. */
static void what_a_child_holds_wakes_nobody(int backend)
{
    peer p, q;
    pid_t child;
    serve(backend);
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    CHECK(peer_ws(&q, st.loop, st.port, "/"));
    child = holder_start();
    peer_bye(&p, 1000); /* an end in good order */
    EQUAL(peer_closed(&p), 1000);
    peer_frame_put(&q, 0x83, "", 0); /* and one for a violation */
    EQUAL(peer_closed(&q), 1002);
    EQUAL(peer_ended(&q), PEER_EOF);
    shutdown(q.fd, SHUT_WR);
    turn_until_gone(0);
    peer_say(&p, "is there anybody?");
    CHECK(turns_in(300) <= 5);
    newcomer_is_served(); /* its descriptor is one of those */
    holder_end(child);
    peer_end(&p);
    peer_end(&q);
    stage_close();
}

/* Takes all descriptors below that one; returns how many, or NONE. */
static int low_take(int *taken, int below)
{
    struct rlimit files;
    int n = 0, fd;
    getrlimit(RLIMIT_NOFILE, &files_were);
    files = files_were;
    if (files.rlim_cur < (rlim_t)below + 64) {
        files.rlim_cur = (rlim_t)below + 64;
        if (files.rlim_max < files.rlim_cur)
            return NONE;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    while ((fd = dup(0)) >= 0 && fd < below)
        taken[n++] = fd;
    close(fd);
    return n;
}

static void low_give(const int *taken, int n)
{
    while (n > 0)
        close(taken[--n]);
    files_are_back();
}

static void nothing_read(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)loop;
    (void)w;
    (void)events;
    (void)arg;
}

static void large_are_refused(const peer *high)
{
    EQUAL(rt_watch_start(st.loop, high->fd, RT_READ, nothing_read, NULL).id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ESYS);
    EQUAL(rt_dial(st.loop, "ws://127.0.0.1:9/", NULL).id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ESYS);
    EQUAL(rt_listen(st.loop, "ws://127.0.0.1:0", NULL).id, 0);
    EQUAL(rt_error(st.loop, NULL), RT_ESYS);
}

/* A set of select has no bit for it, only the memory behind the set. */
static void a_descriptor_beyond_select_is_refused(int backend)
{
    static int taken[FD_SETSIZE];
    peer in, high;
    int n;
    serve(backend);
    CHECK(peer_ws(&in, st.loop, st.port, "/"));
    n = low_take(taken, FD_SETSIZE);
    if (n == NONE) {
        SKIP("too few files may be open");
        n = 0;
    } else {
        CHECK(peer_tcp(&high, st.loop, st.port));
        CHECK(high.fd >= FD_SETSIZE);
        peer_ask(&high, "/", "");
        EQUAL(peer_status(&high), backend == RT_SELECT ? 503 : 101);
        if (backend == RT_SELECT)
            large_are_refused(&high);
        peer_text(&in, "in");
        CHECK(peer_got(&in, RT_TEXT, "in"));
        peer_end(&high);
    }
    low_give(taken, n);
    newcomer_is_served();
    peer_end(&in);
    turn_until_gone(0);
    stage_close();
}

/* ---- SIGPIPE ------------------------------------------------------------- */

/* The peer shuts its half, then resets: the next write raises SIGPIPE, unless
   it asks for none.  With a large message it is another system call. */
static void write_into_a_broken_pipe(int large)
{
    static char message[100000];
    peer p;
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    shutdown(p.fd, SHUT_WR);
    peer_reset(&p);
    rt_send(st.loop, st.last, RT_BINARY, "x", 1);
    if (large)
        rt_group_send(st.loop, st.all, RT_BINARY, message, sizeof message);
    rt_flush(st.loop);
    rt_send(st.loop, st.last, RT_BINARY, "x", 1);
    rt_flush(st.loop);
    turn_until_gone(0);
}

static void pipes_break(int backend)
{
    int i;
    signal(SIGPIPE, SIG_DFL);
    serve(backend);
    for (i = 0; i < 20; i++)
        write_into_a_broken_pipe(i % 2);
    EQUAL(st.closes, 20);
    newcomer_is_served();
    stage_close();
    fflush(stdout);
    _exit(test_bad != 0);
}

/* The system's default for SIGPIPE ends the process. */
static void a_broken_pipe_does_not_kill_the_process(int backend)
{
    int status = NONE;
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child == 0)
        pipes_break(backend);
    waitpid(child, &status, 0);
    CHECK(!WIFSIGNALED(status));
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- other signals ------------------------------------------------------- */

static volatile sig_atomic_t disturbed;

static void disturb(int number)
{
    (void)number;
    disturbed++;
}

/* A process that sends this one signals as fast as they are taken. */
static pid_t disturber_start(void)
{
    pid_t child, parent = getpid();
    fflush(stdout);
    child = fork();
    if (child != 0)
        return child;
    while (getppid() == parent) {
        kill(parent, SIGUSR1);
        poll(NULL, 0, 0);
    }
    _exit(0);
}

static void whole_visit(void)
{
    static char large[60000];
    peer_frame f;
    peer p;
    CHECK(peer_ws(&p, st.loop, st.port, "/"));
    peer_frame_put(&p, 0x82, large, sizeof large);
    peer_text(&p, "small");
    CHECK(peer_next(&p, &f) && f.len == sizeof large);
    CHECK(peer_got(&p, RT_TEXT, "small"));
    peer_bye(&p, 1000);
    EQUAL(peer_closed(&p), 1000);
    peer_end(&p);
}

/* Each system call may be cut short, as none is told to start again. */
static void a_storm_of_signals_disturbs_nothing(int backend)
{
    struct sigaction now, was;
    uint64_t end = peer_clock() + 5000;
    pid_t child;
    int visits = 0;
    memset(&now, 0, sizeof now);
    now.sa_handler = disturb;
    disturbed = 0;
    sigaction(SIGUSR1, &now, &was);
    serve(backend);
    child = disturber_start();
    while ((visits < 100 || disturbed < 300) && peer_clock() < end) {
        whole_visit();
        CHECK(rt_poll(st.loop, 2) >= 0); /* it waits, and is woken too early */
        visits++;
    }
    turn_until_gone(0);
    holder_end(child);
    CHECK(disturbed >= 300);
    EQUAL(st.code, 1000);
    EQUAL(st.closes, visits);
    sigaction(SIGUSR1, &was, NULL);
    stage_close();
}

/* ---- in the middle of everything ----------------------------------------- */

/* Freed with connections in each state: nothing is left of them, and their
   peers are not left waiting. */
static void a_loop_is_freed_in_the_middle_of_everything(int backend)
{
    enum { MANY = 24 };
    peer p[MANY];
    talk t;
    int i;
    talk_client(&t);
    serve(backend);
    for (i = 0; i < MANY; i++) {
        CHECK(peer_tcp(&p[i], st.loop, st.port));
        peer_put(&p[i], t.bytes, t.len * (size_t)i / (MANY - 1));
        if (i % 3)
            peer_quiet(st.loop);
    }
    rt_loop_free(st.loop);
    st.loop = NULL;
    for (i = 0; i < MANY; i++) {
        p[i].loop = NULL;
        CHECK(peer_ended(&p[i]) != PEER_HERE);
        peer_end(&p[i]);
    }
    stage_close();
}

/* After all the cases. */
static void no_signal_was_changed(void)
{
    int number;
    for (number = 1; number < 32; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now) == 0 && number != SIGSEGV &&
            number != SIGBUS && number != SIGFPE && number != SIGABRT)
            CHECK(now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN);
    }
    CHECK(signal(SIGPIPE, SIG_DFL) == SIG_DFL);
}

int main(void)
{
    alarm(300); /* a broken one fails, and does not hang */
    RUN_EACH(without_descriptors_it_does_not_spin);
    RUN_EACH(with_no_spare_descriptor_it_recovers);
    RUN_EACH(nothing_is_half_made_without_descriptors);
    RUN_EACH(a_client_resets_at_each_byte);
    RUN_EACH(a_session_comes_back_from_a_reset_at_each_byte);
    RUN_EACH(a_server_resets_at_each_byte);
    RUN_EACH(a_backlog_of_resets_leaves_nothing);
    RUN_EACH(who_never_reads_is_dropped_and_stops_nobody);
    RUN_EACH(a_silent_pinger_costs_one_pong);
    RUN_EACH(who_answers_no_close_is_cut_off);
    RUN_EACH(the_last_word_arrives_though_the_peer_still_talks);
    RUN_EACH(a_half_closed_stream_gets_all_its_answers);
    RUN_EACH(a_half_closed_websocket_ends_after_its_last_message);
    RUN_EACH(who_closes_with_unread_data_is_gone);
    RUN_EACH(what_a_child_holds_wakes_nobody);
    RUN_EACH(a_descriptor_beyond_select_is_refused);
    RUN_EACH(a_broken_pipe_does_not_kill_the_process);
    RUN_EACH(a_storm_of_signals_disturbs_nothing);
    RUN_EACH(a_loop_is_freed_in_the_middle_of_everything);
    RUN(no_signal_was_changed);
    return test_done();
}
