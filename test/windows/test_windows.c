/*
 * rtnet on Windows, in one process, because a start under Wine takes long: the
 * whole way of a message over winsock, the examples as they are, and what is
 * otherwise there than on POSIX: handles as descriptors, select over lists,
 * a pair of sockets for posts, local sockets that do not exist.  The tests of
 * the library are built for Windows, too; see test/windows.sh.
 */
#include "rtnet.h"
#include "test.h"

#include "args.h"
#include "peer.h"

#include <signal.h>

int chat_main(int argc, char **argv);
int arena_main(int argc, char **argv);

enum { PATIENCE = 15000, MANY = 200, CROWD = 1300, BIG = 8 * 1024 * 1024 };
enum { THREADS = 4, POSTS = 3000 };

static const rt_session nobody = {0};

/* ---- the stage ----------------------------------------------------------- */

static struct {
    rt_loop *loop;
    rt_listen_opts opts;
    rt_listener listener;
    int port;
    int opens, closes, messages, aways, backs, writables, drained;
    uint64_t lost;
    rt_session last; /* of those who opened */
    rt_end end;
    char reason[128]; /* of it */
    char heard[256];  /* the messages, one behind the other */
} app;

/* What the dialled side is told. */
static struct {
    int opens, closes, messages, aways, backs;
    rt_end end;
    char reason[128];
    char heard[256];
    size_t bytes;
} far_side;

static void add(char heard[256], const void *data, size_t len)
{
    size_t n = strlen(heard);
    if (n + len + 2 < 256)
        snprintf(heard + n, 256 - n, "%s%.*s", n ? " " : "", (int)len,
                 (const char *)data);
}

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    app.opens++;
    app.last = s;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    app.messages++;
    add(app.heard, data, len);
    rt_send(loop, s, kind, data, len);
}

static void on_writable(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    app.writables++;
}

static void on_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    app.aways++;
}

static void on_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    app.backs++;
    app.lost += lost;
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    app.closes++;
    app.end = *why;
    snprintf(app.reason, sizeof app.reason, "%s", why->reason);
}

static void far_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    far_side.opens++;
}

static void far_message(rt_loop *loop, rt_session s, int kind, const void *data,
                        size_t len)
{
    (void)loop;
    (void)s;
    (void)kind;
    far_side.messages++;
    far_side.bytes += len;
    add(far_side.heard, data, len);
}

static void far_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    far_side.aways++;
}

static void far_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    (void)lost;
    far_side.backs++;
}

static void far_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    far_side.closes++;
    far_side.end = *why;
    snprintf(far_side.reason, sizeof far_side.reason, "%s", why->reason);
}

static const rt_handler far_handler = {.open = far_open,
                                       .message = far_message,
                                       .away = far_away,
                                       .back = far_back,
                                       .close = far_close};

static void on_drained(rt_loop *loop)
{
    (void)loop;
    app.drained++;
}

static void app_begin(int max_sessions)
{
    const rt_handler on = {.open = on_open,
                           .message = on_message,
                           .writable = on_writable,
                           .away = on_away,
                           .back = on_back,
                           .close = on_close};
    const rt_loop_opts o = {.realloc = peer_realloc,
                            .drained = on_drained,
                            .max_sessions = max_sessions};
    memset(&app, 0, sizeof app);
    memset(&far_side, 0, sizeof far_side);
    peer_heap = 0;
    peer_heap_lies = 0;
    app.opts.on = on;
    app.loop = rt_loop_new(&o);
    CHECK(app.loop != NULL);
}

static void app_listen(const char *url)
{
    app.listener = rt_listen(app.loop, url, &app.opts);
    CHECK(app.listener.id != 0);
    app.port = rt_listener_port(app.loop, app.listener);
}

static void app_open(const char *url)
{
    app_begin(0);
    app_listen(url);
}

static void app_end(void)
{
    rt_loop_free(app.loop);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
}

/* As peer_until, for what takes longer. */
static int until(const int *what, int least)
{
    uint64_t end = peer_clock() + PATIENCE;
    while (*what < least && peer_clock() < end)
        peer_turn(app.loop, 5);
    return *what >= least;
}

static rt_session app_dial(const char *scheme, int port, const rt_dial_opts *o)
{
    char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d", scheme, port);
    return rt_dial(app.loop, url, o);
}

/* A port on which nobody listens. */
static int port_of_nobody(void)
{
    int port, fd = peer_listen(&port);
    close(fd);
    return port;
}

/* ---- echo ---------------------------------------------------------------- */

static void a_websocket_gets_its_words_back(void)
{
    peer p;
    app_open("ws://127.0.0.1:0");
    CHECK(peer_ws(&p, app.loop, app.port, "/"));
    peer_text(&p, "hello");
    CHECK(peer_got(&p, RT_TEXT, "hello"));
    peer_bye(&p, 1000);
    EQUAL(peer_closed(&p), 1000);
    EQUAL(peer_ended(&p), PEER_EOF);
    EQUAL(app.end.code, 1000);
    peer_end(&p);
    app_end();
}

static void so_does_a_stream(void)
{
    peer p;
    app_open("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&p, app.loop, app.port));
    peer_stream_put(&p, "hello", 5);
    CHECK(peer_stream_got(&p, "hello"));
    peer_end(&p);
    CHECK(peer_until(app.loop, &app.closes, 1));
    app_end();
}

/* With a handshake of its own, with none at all, and over either wire. */
static void so_does_who_is_dialled(void)
{
    static const struct {
        const char *scheme;
        int framing;
    } rows[] = {
        {"ws", 0}, {"tcp", RT_LENGTH}, {"tcp", RT_RTNET1}, {"tcp", RT_RAW}};
    size_t i;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        const rt_dial_opts o = {.on = far_handler, .framing = rows[i].framing};
        char url[40];
        rt_session s;
        app_begin(0);
        app.opts.framing = rows[i].framing;
        snprintf(url, sizeof url, "%s://127.0.0.1:0", rows[i].scheme);
        app_listen(url);
        s = app_dial(rows[i].scheme, app.port, &o);
        CHECK(until(&far_side.opens, 1));
        EQUAL(rt_send(app.loop, s, RT_TEXT, "hello", 5), 0);
        CHECK(until(&far_side.messages, 1));
        CHECK(strcmp(far_side.heard, "hello") == 0);
        EQUAL(rt_close(app.loop, s, 0, NULL), 0);
        CHECK(until(&far_side.closes, 1));
        CHECK(until(&app.closes, 1));
        app_end();
    }
}

static void all_addresses_are_those_of_ipv4_and_ipv6(void)
{
    peer four, six;
    app_open("ws://:0");
    CHECK(peer_ws(&four, app.loop, app.port, "/"));
    if (!peer_tcp6(&six, app.loop, app.port)) {
        SKIP("this machine has no IPv6");
    } else {
        CHECK(peer_upgrade(&six, "/"));
        EQUAL(app.opens, 2);
    }
    peer_end(&four);
    peer_end(&six);
    app_end();
}

/* ---- the examples, as they are --------------------------------------------
 */

static char chat_port[16], arena_port[16];

static void *chat_run(void *arg)
{
    char name[] = "chat", *argv[] = {name, chat_port, NULL};
    (void)arg;
    chat_main(2, argv);
    return NULL;
}

static void *arena_run(void *arg)
{
    char name[] = "arena", *argv[] = {name, arena_port, NULL};
    static int answer;
    (void)arg;
    answer = arena_main(2, argv);
    return &answer;
}

/* It may not listen yet. */
static int example_tcp(peer *p, const char *port)
{
    uint64_t end = peer_clock() + PATIENCE;
    while (!peer_tcp(p, NULL, atoi(port))) {
        peer_end(p);
        if (peer_clock() > end)
            return 0;
        peer_turn(NULL, 20);
    }
    return 1;
}

static int example_ws(peer *p, const char *port, const char *path)
{
    return example_tcp(p, port) && peer_upgrade(p, path);
}

/* It goes on until this process ends. */
static void the_chat_example_passes_words_on(void)
{
    pthread_t thread;
    peer a, b;
    snprintf(chat_port, sizeof chat_port, "%d", port_of_nobody());
    EQUAL(pthread_create(&thread, NULL, chat_run, NULL), 0);
    CHECK(example_ws(&a, chat_port, "/?room=r&nick=ann"));
    CHECK(peer_got(&a, RT_TEXT, "{\"t\":\"here\",\"n\":\"ann\",\"m\":\"\"}"));
    CHECK(peer_got(&a, RT_TEXT, "{\"t\":\"join\",\"n\":\"ann\",\"m\":\"\"}"));
    CHECK(example_ws(&b, chat_port, "/?room=r&nick=bob"));
    CHECK(peer_got(&a, RT_TEXT, "{\"t\":\"join\",\"n\":\"bob\",\"m\":\"\"}"));
    peer_text(&b, "hi");
    CHECK(peer_got(&a, RT_TEXT, "{\"t\":\"say\",\"n\":\"bob\",\"m\":\"hi\"}"));
    peer_end(&b);
    CHECK(peer_got(&a, RT_TEXT, "{\"t\":\"leave\",\"n\":\"bob\",\"m\":\"\"}"));
    peer_end(&a);
}

/* The next world: binary, and not a ping of 8 bytes; its tick. */
static uint32_t arena_world(peer *p)
{
    peer_frame f;
    while (peer_next(p, &f))
        if (f.op == RT_BINARY && f.len > 8)
            return f.data[0] | (uint32_t)f.data[1] << 8 |
                   (uint32_t)f.data[2] << 16;
    return 0;
}

/* A page, a player, the world 30 times a second, and a good end. */
static void the_arena_example_plays_and_drains_at_an_interrupt(void)
{
    pthread_t thread;
    peer page, p;
    uint32_t tick;
    uint64_t start;
    void *answer = NULL;
    int code;
    snprintf(arena_port, sizeof arena_port, "%d", port_of_nobody());
    EQUAL(pthread_create(&thread, NULL, arena_run, NULL), 0);
    CHECK(example_tcp(&page, arena_port));
    peer_say(&page, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EQUAL(peer_status(&page), 200);
    CHECK(strstr(page.head, "Content-Type: text/html") != NULL);
    peer_end(&page);
    CHECK(example_ws(&p, arena_port, "/ws?name=ann"));
    tick = arena_world(&p);
    start = peer_clock();
    CHECK(tick > 0);
    while (tick && arena_world(&p) < tick + 30)
        ;
    CHECK(peer_clock() - start > 700 && peer_clock() - start < 3000);
    raise(SIGINT);
    code = peer_closed_at_last(&p);
    EQUAL(code, 1012);
    peer_bye(&p, 1012);
    pthread_join(thread, &answer);
    EQUAL(*(int *)answer, 0);
    peer_end(&p);
}

/* ---- resume, timers, limits ------------------------------------------------
 */

static void a_session_comes_back_with_what_it_missed(void)
{
    const rt_dial_opts o = {.on = far_handler, .resume = 1};
    rt_session s;
    app_begin(0);
    app.opts.resume_ms = 60000;
    app_listen("ws://127.0.0.1:0");
    s = app_dial("ws", app.port, &o);
    CHECK(until(&app.opens, 1) && until(&far_side.opens, 1));
    EQUAL(rt_send(app.loop, app.last, RT_TEXT, "one", 3), 0);
    CHECK(until(&far_side.messages, 1));
    EQUAL(rt_drop(app.loop, app.last, 4000, NULL), 0);
    CHECK(until(&app.aways, 1) && until(&far_side.aways, 1));
    EQUAL(rt_send(app.loop, app.last, RT_TEXT, "two", 3), 0);
    EQUAL(rt_send(app.loop, app.last, RT_TEXT, "three", 5), 0);
    EQUAL(rt_send(app.loop, s, RT_TEXT, "echo", 4), 0);
    CHECK(until(&app.backs, 1) && until(&far_side.backs, 1));
    CHECK(until(&far_side.messages, 4) && until(&app.messages, 1));
    CHECK(strcmp(far_side.heard, "one two three echo") == 0);
    EQUAL(app.lost, 0);
    EQUAL(app.opens, 1);
    EQUAL(app.closes + far_side.closes, 0);
    app_end();
}

static int ticks, early;

static void tick(rt_loop *loop, void *arg)
{
    uint64_t due = *(uint64_t *)arg;
    early += rt_now(loop) < due;
    if (++ticks == 20)
        return;
    *(uint64_t *)arg = due + 10;
    rt_timer_start(loop, nobody, due + 10, tick, arg);
}

static void timers_run_when_they_are_due_and_do_not_drift(void)
{
    uint64_t due, start;
    app_begin(0);
    ticks = early = 0;
    start = rt_now(app.loop);
    due = start + 10;
    rt_timer_start(app.loop, nobody, due, tick, &due);
    CHECK(until(&ticks, 20));
    EQUAL(early, 0);
    CHECK(rt_now(app.loop) - start >= 200);
    CHECK(rt_now(app.loop) - start < 400); /* a wait may last 16 ms too long */
    app_end();
}

static void one_session_too_many_is_told_to_come_back(void)
{
    peer a, b;
    app_begin(1);
    app_listen("ws://127.0.0.1:0");
    CHECK(peer_ws(&a, app.loop, app.port, "/"));
    CHECK(peer_tcp(&b, app.loop, app.port));
    peer_ask(&b, "/", "");
    EQUAL(peer_status(&b), 503);
    CHECK(strstr(b.head, "Retry-After: ") != NULL);
    EQUAL(peer_ended(&b), PEER_EOF);
    peer_end(&a);
    CHECK(peer_until(app.loop, &app.closes, 1));
    peer_end(&b);
    CHECK(peer_ws(&b, app.loop, app.port, "/"));
    peer_end(&b);
    app_end();
}

/* ---- a system that takes less than it is given -----------------------------
 */

static int cut_sends; /* of up to 16 bytes, as posts are */

static int(WINAPI *real_send(void))(SOCKET, const char *, int, int)
{
    static int(WINAPI * real)(SOCKET, const char *, int, int);
    FARPROC found;
    if (real)
        return real;
    found = GetProcAddress(GetModuleHandleA("ws2_32.dll"), "send");
    memcpy(&real, &found, sizeof real);
    return real;
}

static int WINAPI cut_send(SOCKET s, const char *from, int n, int flags)
{
    static unsigned count;
    unsigned draw = __atomic_add_fetch(&count, 7, __ATOMIC_RELAXED);
    if (cut_sends && n > 1 && n <= 16 && draw % 3 == 0)
        n = 1 + (int)(draw / 3 % (unsigned)(n - 1));
    return real_send()(s, from, n, flags);
}

/* The linker finds it here before it looks in the library of imports. */
extern int(WINAPI *const __imp_send)(SOCKET, const char *, int, int);
int(WINAPI *const __imp_send)(SOCKET, const char *, int, int) = cut_send;

/* ---- threads ---------------------------------------------------------------
 */

static int letters[THREADS][POSTS], posted, unordered, posters_live;

static void letter_run(rt_loop *loop, void *arg)
{
    int *letter = arg, at = (int)(letter - &letters[0][0]);
    (void)loop;
    if (at % POSTS > 0)
        unordered += letter[-1] != 1;
    ++*letter;
    posted++;
}

static void *post_all(void *arg)
{
    int i, e;
    for (i = 0; i < POSTS; i++)
        while ((e = rt_post(app.loop, letter_run, (int *)arg + i)) != 0) {
            if (e != RT_EFULL)
                return NULL;
            sched_yield();
        }
    if (__atomic_sub_fetch(&posters_live, 1, __ATOMIC_ACQ_REL) == 0)
        rt_stop(app.loop);
    return NULL;
}

/* More than the loop takes at once: each is whole, once and in order. */
static void posts_of_four_threads_all_run_and_the_last_stops_the_loop(void)
{
    pthread_t threads[THREADS];
    int i, k, wrong = 0;
    app_begin(0);
    memset(letters, 0, sizeof letters);
    posted = unordered = 0;
    posters_live = THREADS;
    for (i = 0; i < THREADS; i++)
        EQUAL(pthread_create(&threads[i], NULL, post_all, letters[i]), 0);
    EQUAL(rt_run(app.loop), 0);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(until(&posted, THREADS * POSTS));
    EQUAL(unordered, 0);
    for (i = 0; i < THREADS; i++)
        for (k = 0; k < POSTS; k++)
            wrong += letters[i][k] != 1;
    EQUAL(wrong, 0);
    app_end();
}

static void posts_are_whole_though_a_send_takes_a_part(void)
{
    real_send();
    cut_sends = 1;
    posts_of_four_threads_all_run_and_the_last_stops_the_loop();
    cut_sends = 0;
}

static void *stop_soon(void *arg)
{
    peer_turn(NULL, 50);
    rt_stop(arg);
    return NULL;
}

static void rt_stop_of_another_thread_ends_a_wait_at_once(void)
{
    pthread_t thread;
    uint64_t start;
    app_begin(0);
    start = peer_clock();
    EQUAL(pthread_create(&thread, NULL, stop_soon, app.loop), 0);
    EQUAL(rt_run(app.loop), 0); /* nothing else would end it */
    CHECK(peer_clock() - start < 2000);
    pthread_join(thread, NULL);
    app_end();
}

/* The rest of a post that fits in part goes before the next. */
static void a_loop_that_is_full_of_posts_says_so(void)
{
    int i = 0, e = 0;
    app_begin(0);
    memset(letters, 0, sizeof letters);
    posted = unordered = 0;
    while (i < THREADS * POSTS) {
        e = rt_post(app.loop, letter_run, &letters[0][0] + i);
        if (e < 0)
            break;
        i++;
    }
    EQUAL(e, RT_EFULL);
    CHECK(i >= 1000);
    CHECK(until(&posted, i));
    EQUAL(rt_post(app.loop, letter_run, &letters[0][0] + i), 0);
    CHECK(until(&posted, i + 1));
    EQUAL(posted, i + 1);
    app_end();
}

/* ---- crowds and bulk --------------------------------------------------------
 */

/* All say something before anything is answered. */
static void crowd(int n)
{
    peer *p = calloc((size_t)n, sizeof *p);
    int i, good = 0;
    app_begin(0);
    app.opts.ping_ms = RT_OFF; /* they read late, on a slow machine */
    app_listen("ws://127.0.0.1:0");
    for (i = 0; i < n; i++)
        good += peer_ws(&p[i], app.loop, app.port, "/");
    EQUAL(good, n);
    EQUAL(app.opens, n);
    for (i = 0; i < n; i++)
        peer_text(&p[i], "all of us");
    for (i = good = 0; i < n; i++)
        good += peer_got(&p[i], RT_TEXT, "all of us");
    EQUAL(good, n);
    EQUAL(app.messages, n);
    for (i = 0; i < n; i++)
        peer_end(&p[i]);
    CHECK(until(&app.closes, n));
    app_end();
    free(p);
}

static void two_hundred_connections_are_served_at_once(void)
{
    crowd(MANY);
}

/* More than one batch has room for: the next wait begins with those left out.
 */
static void more_than_a_batch_are_served_at_once(void)
{
    crowd(CROWD);
}

static void a_big_message_waits_for_a_slow_reader(void)
{
    const rt_dial_opts o = {.on = far_handler, .max_message = BIG};
    char *much = malloc(BIG);
    rt_session s;
    int sent;
    memset(much, 'x', BIG);
    app_begin(0);
    app_listen("tcp://127.0.0.1:0");
    s = app_dial("tcp", app.port, &o);
    CHECK(until(&app.opens, 1) && until(&far_side.opens, 1));
    EQUAL(rt_read(app.loop, s, 0), 0);
    EQUAL(rt_send(app.loop, app.last, RT_BINARY, much, BIG), 1);
    peer_quiet(app.loop);
    CHECK(rt_unsent(app.loop, app.last) > 0);
    EQUAL(far_side.messages, 0);
    EQUAL(rt_read(app.loop, s, 1), 0);
    CHECK(until(&far_side.messages, 1));
    CHECK(until(&app.writables, 1));
    EQUAL(far_side.bytes, BIG);
    sent = rt_send(app.loop, app.last, RT_BINARY, "x", 1);
    EQUAL(sent, 0);
    CHECK(until(&far_side.messages, 2));
    app_end();
    free(much);
}

static void a_shutdown_sends_all_away_and_is_told(void)
{
    peer p[3];
    int i;
    app_open("ws://127.0.0.1:0");
    for (i = 0; i < 3; i++)
        CHECK(peer_ws(&p[i], app.loop, app.port, "/"));
    EQUAL(rt_shutdown(app.loop, 100), 0);
    for (i = 0; i < 3; i++) {
        EQUAL(peer_closed(&p[i]), 1012);
        peer_bye(&p[i], 1012);
    }
    CHECK(until(&app.drained, 1));
    EQUAL(app.closes, 3);
    for (i = 0; i < 3; i++)
        peer_end(&p[i]);
    app_end();
}

/* ---- what is otherwise there
 * ------------------------------------------------- */

/* Only the third list of a select tells of it. */
static void a_dial_to_nobody_ends_with_connection_refused(void)
{
    const rt_dial_opts o = {.on = far_handler};
    uint64_t start;
    app_begin(0);
    start = peer_clock();
    app_dial("ws", port_of_nobody(), &o);
    CHECK(until(&far_side.closes, 1));
    EQUAL(far_side.end.code, 1006);
    EQUAL(far_side.end.cause, RT_BY_ERROR);
    CHECK(strcmp(far_side.reason, "connection refused") == 0);
    CHECK(peer_clock() - start < 4000); /* and not by the deadline of 5 s */
    app_end();
}

static void a_reset_is_the_peers_end(void)
{
    peer p;
    app_open("ws://127.0.0.1:0");
    CHECK(peer_ws(&p, app.loop, app.port, "/"));
    peer_reset(&p);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.end.code, 1006);
    EQUAL(app.end.cause, RT_BY_PEER);
    app_end();
}

static void a_local_socket_is_refused_with_a_sentence(void)
{
    const rt_dial_opts o = {.on = far_handler};
    const char *text;
    app_begin(0);
    EQUAL(rt_listen(app.loop, "unix:/rtnet", &app.opts).id, 0);
    EQUAL(rt_error(app.loop, &text), RT_ESYS);
    CHECK(strstr(text, "there are no local sockets here") != NULL);
    EQUAL(rt_dial(app.loop, "tcp+unix:/rtnet", &o).id, 0);
    EQUAL(rt_error(app.loop, &text), RT_ESYS);
    CHECK(strstr(text, "there are no local sockets here") != NULL);
    app_end();
}

/* SO_REUSEADDR would give either of them the port; not so under Wine, hence a
   look at the option. */
static void a_port_belongs_to_one_listener(void)
{
    char url[64];
    const char *text;
    struct sockaddr_in a;
    int on = 1, shared = -1, thief = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t len = sizeof shared;
    app_open("ws://127.0.0.1:0");
    EQUAL(getsockopt((int)rt_listener_fd(app.loop, app.listener), SOL_SOCKET,
                     SO_REUSEADDR, &shared, &len),
          0);
    EQUAL(shared, 0);
    snprintf(url, sizeof url, "ws://127.0.0.1:%d", app.port);
    EQUAL(rt_listen(app.loop, url, &app.opts).id, 0);
    EQUAL(rt_error(app.loop, &text), RT_ESYS);
    CHECK(strstr(text, "in use") != NULL);
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a.sin_port = htons((uint16_t)app.port);
    setsockopt(thief, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    EQUAL(bind(thief, (struct sockaddr *)&a, sizeof a), -1);
    close(thief);
    app_end();
}

static void a_listening_socket_is_taken_over(void)
{
    peer p;
    int port, fd = peer_listen(&port);
    app_begin(0);
    app.opts.fd = fd;
    app_listen("ws://:0");
    EQUAL(app.port, port);
    EQUAL(rt_listener_fd(app.loop, app.listener), fd);
    CHECK(peer_ws(&p, app.loop, port, "/"));
    peer_end(&p);
    app_end();
}

static void what_is_no_listening_socket_is_not_taken(void)
{
    const char *text;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    app_begin(0);
    app.opts.fd = fd;
    EQUAL(rt_listen(app.loop, "ws://:0", &app.opts).id, 0);
    rt_error(app.loop, &text);
    CHECK(strstr(text, "fd is not a listening socket of streams") != NULL);
    close(fd);
    EQUAL(rt_listen(app.loop, "ws://:0", &app.opts).id, 0);
    rt_error(app.loop, &text);
    CHECK(strstr(text, "fd is no open descriptor") != NULL);
    app_end();
}

static int seen[RT_WRITE + 1];

static void watched(rt_loop *loop, rt_watch w, int events, void *arg)
{
    char byte;
    (void)arg;
    seen[events]++;
    if (events == RT_READ)
        EQUAL(recv(*(int *)arg, &byte, 1, 0), 1);
    else
        rt_watch_set(loop, w, RT_READ);
}

static void a_watch_tells_of_a_socket(void)
{
    int fd[2];
    rt_watch w;
    app_begin(0);
    memset(seen, 0, sizeof seen);
    EQUAL(socketpair(AF_INET, SOCK_STREAM, 0, fd), 0);
    w = rt_watch_start(app.loop, fd[0], RT_READ | RT_WRITE, watched, &fd[0]);
    CHECK(w.id != 0);
    CHECK(until(&seen[RT_WRITE], 1));
    EQUAL(seen[RT_READ], 0);
    EQUAL(send(fd[1], "x", 1, 0), 1);
    CHECK(until(&seen[RT_READ], 1));
    peer_quiet(app.loop);
    EQUAL(seen[RT_READ], 1);
    EQUAL(seen[RT_WRITE], 1);
    EQUAL(rt_watch_stop(app.loop, w), 0);
    EQUAL(rt_watch_start(app.loop, 1, RT_READ, watched, NULL).id, 0);
    close(fd[0]);
    close(fd[1]);
    app_end();
}

static int told[CROWD];

static void not_read(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)loop;
    (void)w;
    (void)events;
    ++*(int *)arg;
}

/* All stay readable: the first would fill each batch. */
static void those_beyond_a_batch_have_their_turn(void)
{
    static int fd[CROWD][2];
    int i, good = 0, never = 0;
    app_begin(0);
    memset(told, 0, sizeof told);
    for (i = 0; i < CROWD; i++) {
        EQUAL(socketpair(AF_INET, SOCK_STREAM, 0, fd[i]), 0);
        good += rt_watch_start(app.loop, fd[i][0], RT_READ, not_read, &told[i])
                    .id != 0;
        send(fd[i][1], "x", 1, 0);
    }
    EQUAL(good, CROWD);
    for (i = 0; i < 4; i++)
        CHECK(rt_poll(app.loop, 100) > 0);
    for (i = 0; i < CROWD; i++)
        never += told[i] == 0;
    EQUAL(never, 0);
    rt_loop_free(app.loop);
    for (i = 0; i < CROWD; i++) {
        close(fd[i][0]);
        close(fd[i][1]);
    }
    EQUAL(peer_heap, 0);
}

/* It would fail each wait for everybody. */
static void a_watched_socket_that_is_closed_stops_nobody(void)
{
    int fd[2];
    peer p;
    rt_watch w;
    app_open("ws://127.0.0.1:0");
    EQUAL(socketpair(AF_INET, SOCK_STREAM, 0, fd), 0);
    w = rt_watch_start(app.loop, fd[0], RT_READ, watched, &fd[0]);
    CHECK(w.id != 0);
    close(fd[0]);
    close(fd[1]);
    CHECK(rt_poll(app.loop, 0) >= 0);
    CHECK(peer_ws(&p, app.loop, app.port, "/"));
    peer_text(&p, "still here");
    CHECK(peer_got(&p, RT_TEXT, "still here"));
    EQUAL(rt_watch_stop(app.loop, w), 0);
    peer_end(&p);
    app_end();
}

/* As an exception it would wake the loop again and again while it writes. */
static void an_urgent_byte_is_a_byte_of_the_stream(void)
{
    peer p;
    rt_session s;
    char *much = calloc(1, BIG);
    uint64_t end;
    int turns = 0;
    app_begin(0);
    app.opts.framing = RT_RAW;
    app.opts.hard_mark = RT_OFF;
    app_listen("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&p, app.loop, app.port));
    CHECK(peer_until(app.loop, &app.opens, 1));
    s = app.last;
    CHECK(rt_send(app.loop, s, RT_BINARY, much, BIG) >= 0);
    peer_quiet(app.loop);
    CHECK(rt_unsent(app.loop, s) > 0); /* so it waits to write */
    EQUAL(rt_read(app.loop, s, 0), 0);
    EQUAL(send(p.fd, "u", 1, MSG_OOB), 1);
    for (end = peer_clock() + 300; peer_clock() < end; turns++)
        rt_poll(app.loop, 50);
    CHECK(turns < 20);
    EQUAL(rt_read(app.loop, s, 1), 0);
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(strcmp(app.heard, "u") == 0);
    peer_end(&p);
    app_end();
    free(much);
}

/* The lists have an end, and say so. */
static void one_socket_more_than_select_takes_is_refused(void)
{
    static int fd[FD_SETSIZE];
    const char *text = "";
    int i, n = 0;
    app_begin(0);
    for (i = 0; i < FD_SETSIZE; i++) {
        fd[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (fd[i] < 0 ||
            !rt_watch_start(app.loop, fd[i], RT_READ, watched, NULL).id)
            break;
        n++;
    }
    if (i < FD_SETSIZE && fd[i] < 0) {
        SKIP("this machine has not so many files");
        i--;
    } else {
        EQUAL(n, FD_SETSIZE - 1); /* one is the loop's own */
        rt_error(app.loop, &text);
        CHECK(strstr(text, "too many open sockets") != NULL);
    }
    rt_loop_free(app.loop);
    for (; i >= 0; i--)
        close(fd[i]);
}

#define CASE(name) (wanted(#name, argc, argv) ? RUN(name) : (void)0)

int main(int argc, char **argv)
{
    CASE(a_websocket_gets_its_words_back);
    CASE(so_does_a_stream);
    CASE(so_does_who_is_dialled);
    CASE(all_addresses_are_those_of_ipv4_and_ipv6);
    CASE(the_chat_example_passes_words_on);
    CASE(the_arena_example_plays_and_drains_at_an_interrupt);
    CASE(a_session_comes_back_with_what_it_missed);
    CASE(timers_run_when_they_are_due_and_do_not_drift);
    CASE(one_session_too_many_is_told_to_come_back);
    CASE(posts_of_four_threads_all_run_and_the_last_stops_the_loop);
    CASE(posts_are_whole_though_a_send_takes_a_part);
    CASE(rt_stop_of_another_thread_ends_a_wait_at_once);
    CASE(a_loop_that_is_full_of_posts_says_so);
    CASE(two_hundred_connections_are_served_at_once);
    CASE(more_than_a_batch_are_served_at_once);
    CASE(a_big_message_waits_for_a_slow_reader);
    CASE(a_shutdown_sends_all_away_and_is_told);
    CASE(a_dial_to_nobody_ends_with_connection_refused);
    CASE(a_reset_is_the_peers_end);
    CASE(a_local_socket_is_refused_with_a_sentence);
    CASE(a_port_belongs_to_one_listener);
    CASE(a_listening_socket_is_taken_over);
    CASE(what_is_no_listening_socket_is_not_taken);
    CASE(a_watch_tells_of_a_socket);
    CASE(those_beyond_a_batch_have_their_turn);
    CASE(a_watched_socket_that_is_closed_stops_nobody);
    CASE(an_urgent_byte_is_a_byte_of_the_stream);
    CASE(one_socket_more_than_select_takes_is_refused);
    return test_done();
}
