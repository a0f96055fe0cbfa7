/*
 * Every public call: what rtnet.h says of its results and errors, line by
 * line, on real sockets and with each backend.  (Stale handles, callbacks and
 * the order of a session's life are the subject of test_lifetime.c.)
 *
 * One application serves all cases: it counts what it is told and keeps the
 * messages; a case changes the options, then starts it.  Ending it checks that
 * all memory came back.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "peer.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>
#if defined(__linux__)
#include <sys/epoll.h>
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The application of the present case. */
static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_loop *loop;
    int port;         /* of ws:// */
    rt_session s[64]; /* in the order of their on_open */
    int requests, opens, messages, writables, closes;
    rt_session asked, closed; /* of the last on_request, on_close */
    int code, cause;          /* of the last on_close */
    uint64_t lost;
    char reason[128];
    char text[8192]; /* messages, each with a 't' or 'b' before, '|' behind */
    int answer;      /* of on_request */
    int (*request)(rt_loop *, rt_session, const rt_request *);
    void (*open)(rt_loop *, rt_session);
    void (*message)(rt_loop *, rt_session);
    peer p[4];
} app;

/* ---- the application ------------------------------------------------------- */

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    app.requests++;
    app.asked = s;
    return app.request ? app.request(loop, s, r) : app.answer;
}

static void on_open(rt_loop *loop, rt_session s)
{
    CHECK(app.opens < (int)COUNT(app.s));
    app.s[app.opens++] = s;
    if (app.open)
        app.open(loop, s);
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    size_t n = strlen(app.text);
    snprintf(app.text + n, sizeof app.text - n,
             len < 1000 ? "%c%.*s|" : "%c%d|", kind == RT_TEXT ? 't' : 'b',
             (int)len, (const char *)data);
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
    (void)loop;
    app.closes++;
    app.closed = s;
    app.code = why->code;
    app.cause = why->cause;
    app.lost = why->lost;
    snprintf(app.reason, sizeof app.reason, "%s", why->reason);
}

static const rt_handler handler = {.request = on_request,
                                   .open = on_open,
                                   .message = on_message,
                                   .writable = on_writable,
                                   .close = on_close};

/* Options that a case may still change. */
static void app_reset(int backend)
{
    size_t i;
    memset(&app, 0, sizeof app);
    app.loop_opts.backend = backend;
    app.loop_opts.realloc = peer_realloc;
    app.opts.on = handler;
    app.opts.user = &app;
    app.opts.ping_ms = RT_OFF;
    app.opts.close_ms = 100;
    peer_heap = 0;
    peer_heap_lies = 0;
    for (i = 0; i < COUNT(app.p); i++)
        app.p[i].fd = -1;
}

static rt_listener app_listen(const char *url)
{
    const char *text = "";
    rt_listener n = rt_listen(app.loop, url, &app.opts);
    if (!n.id) {
        rt_error(app.loop, &text);
        printf("%s\n", text);
    }
    CHECK(n.id != 0);
    return n;
}

static void app_start(void)
{
    app.loop = rt_loop_new(&app.loop_opts);
    CHECK(app.loop != NULL);
    app.port = rt_listener_port(app.loop, app_listen("ws://127.0.0.1:0"));
}

/* Opens the sessions of the first n peers. */
static void app_peers(int n)
{
    int i;
    for (i = 0; i < n; i++)
        CHECK(peer_ws(&app.p[i], app.loop, app.port, "/"));
    EQUAL(app.opens, n);
}

static void app_open(int backend, int peers)
{
    app_reset(backend);
    app_start();
    app_peers(peers);
}

static void app_end(void)
{
    size_t i;
    rt_loop_free(app.loop);
    EQUAL(app.opens, app.closes);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
    for (i = 0; i < COUNT(app.p); i++)
        peer_end(&app.p[i]);
}

static const char *local_url(const char *scheme, int port, const char *rest)
{
    static char url[128];
    snprintf(url, sizeof url, "%s://127.0.0.1:%d%s", scheme, port, rest);
    return url;
}

static rt_session app_dial(const char *url)
{
    rt_dial_opts o = {.on = handler, .user = &app, .ping_ms = RT_OFF};
    return rt_dial(app.loop, url, &o);
}

/* The last call gave {0} for that reason, and its text holds that word. */
static void check_error(int error, const char *word)
{
    const char *text = NULL;
    EQUAL(rt_error(app.loop, &text), error);
    EQUAL(rt_error(app.loop, NULL), error);
    CHECK(text && strstr(text, word));
    if (text && !strstr(text, word))
        printf("[%s] has no [%s]\n", text, word);
}

/* ---- the loop ------------------------------------------------------------------ */

static void errors_and_version_have_texts(void)
{
#define NUMBER(name, value, text) value,
    static const int numbers[] = {RT_ERRORS(NUMBER)};
#undef NUMBER
    char version[32];
    size_t i, j;
    for (i = 0; i < COUNT(numbers); i++) {
        CHECK(numbers[i] < 0);
        CHECK(*rt_strerror(numbers[i]));
        for (j = 0; j < i; j++)
            CHECK(strcmp(rt_strerror(numbers[i]), rt_strerror(numbers[j])));
    }
    CHECK(rt_strerror(0) != NULL);
    CHECK(rt_strerror(-12345) != NULL);
    CHECK(strcmp(rt_strerror(RT_EGONE), "stale handle") == 0);
    snprintf(version, sizeof version, "%d.%d.%d", RT_VERSION_MAJOR,
             RT_VERSION_MINOR, RT_VERSION_PATCH);
    CHECK(strcmp(rt_version(), version) == 0);
}

static int no_random(void *user, void *out, size_t n)
{
    (void)user;
    (void)out;
    (void)n;
    return -1;
}

static int fixed_random(void *user, void *out, size_t n)
{
    CHECK(user == &app);
    memset(out, 7, n);
    app.requests++;
    return 0;
}

static void *no_memory(void *user, void *p, size_t old, size_t now)
{
    (void)user;
    (void)p;
    (void)old;
    (void)now;
    return NULL;
}

static void a_loop_that_cannot_be_is_null(int backend)
{
    rt_loop_opts o = {.backend = backend};
    o.random = no_random;
    CHECK(rt_loop_new(&o) == NULL);
    o.random = NULL;
    o.realloc = no_memory;
    CHECK(rt_loop_new(&o) == NULL);
    o.realloc = NULL;
    o.backend = 99;
    CHECK(rt_loop_new(&o) == NULL);
    rt_loop_free(NULL);
}

static void hooks_get_the_loops_user(int backend)
{
    app_reset(backend);
    app.loop_opts.user = &app;
    app.loop_opts.random = fixed_random;
    app_start();
    CHECK(rt_loop_user(app.loop) == &app);
    CHECK(app.requests > 0);
    app_end();
}

static void a_loop_without_options_works(void)
{
    rt_loop *loop = rt_loop_new(NULL);
    CHECK(loop != NULL);
    CHECK(rt_loop_user(loop) == NULL);
    EQUAL(rt_poll(loop, 0), 0);
    rt_loop_free(loop);
}

static void rt_poll_waits_at_most_so_long(int backend)
{
    uint64_t began;
    app_open(backend, 0);
    began = peer_clock();
    EQUAL(rt_poll(app.loop, 0), 0);
    CHECK(peer_clock() - began < 100);
    began = peer_clock();
    EQUAL(rt_poll(app.loop, 10), 0);
    CHECK(peer_clock() - began >= 9);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    began = peer_clock();
    CHECK(rt_poll(app.loop, 10000) > 0);
    CHECK(peer_clock() - began < 1000);
    app_end();
}

static void count_call(rt_loop *loop, void *arg)
{
    (void)loop;
    ++*(int *)arg;
}

static void stop_loop(rt_loop *loop, void *arg)
{
    ++*(int *)arg;
    rt_stop(loop);
}

static void rt_stop_ends_rt_run_after_its_turn(int backend)
{
    int stops = 0, calls = 0;
    app_open(backend, 0);
    EQUAL(rt_post(app.loop, stop_loop, &stops), 0);
    EQUAL(rt_post(app.loop, count_call, &calls), 0);
    EQUAL(rt_run(app.loop), 0);
    EQUAL(stops, 1);
    EQUAL(calls, 1); /* the turn went on */
    rt_stop(app.loop);
    EQUAL(rt_run(app.loop), 0); /* also one that starts later */
    EQUAL(rt_post(app.loop, stop_loop, &stops), 0);
    EQUAL(rt_run(app.loop), 0); /* and only one */
    EQUAL(stops, 2);
    app_end();
}

static void *stop_from_thread(void *arg)
{
    poll(NULL, 0, 5);
    rt_stop(app.loop);
    return arg;
}

static void rt_stop_works_from_another_thread(int backend)
{
    pthread_t thread;
    app_open(backend, 0);
    EQUAL(pthread_create(&thread, NULL, stop_from_thread, NULL), 0);
    EQUAL(rt_run(app.loop), 0);
    pthread_join(thread, NULL);
    app_end();
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    if (++signals >= 3)
        rt_stop(app.loop);
}

/* Signals that do not stop it do not disturb it either. */
static void rt_stop_works_from_a_signal_handler(int backend)
{
    struct itimerval every = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
    struct sigaction act, old;
    app_open(backend, 0);
    signals = 0;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_signal;
    sigemptyset(&act.sa_mask);
    sigaction(SIGALRM, &act, &old);
    setitimer(ITIMER_REAL, &every, NULL);
    EQUAL(rt_run(app.loop), 0);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    CHECK(signals >= 3);
    app_end();
}

enum { POSTS = 1000, THREADS = 2 };

typedef struct {
    int next, wrong; /* of one thread */
} tally;

typedef struct {
    tally *of;
    int number;
} numbered;

static void count_numbered(rt_loop *loop, void *arg)
{
    numbered *n = arg;
    (void)loop;
    n->of->wrong += n->number != n->of->next++;
}

static void *post_many(void *arg)
{
    static numbered all[THREADS][POSTS];
    tally *of = arg;
    numbered *mine = all[of->wrong];
    int i;
    of->wrong = 0;
    for (i = 0; i < POSTS; i++) {
        mine[i].of = of;
        mine[i].number = i;
        while (rt_post(app.loop, count_numbered, &mine[i]) == RT_EFULL)
            poll(NULL, 0, 1);
    }
    return NULL;
}

static void posts_of_other_threads_run_once_and_in_order(int backend)
{
    tally of[THREADS];
    pthread_t threads[THREADS];
    int i;
    app_open(backend, 0);
    for (i = 0; i < THREADS; i++) {
        of[i].next = 0;
        of[i].wrong = i; /* at first: which thread it is */
        EQUAL(pthread_create(&threads[i], NULL, post_many, &of[i]), 0);
    }
    for (i = 0; i < THREADS; i++)
        peer_until(app.loop, &of[i].next, POSTS);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    peer_quiet(app.loop);
    for (i = 0; i < THREADS; i++) {
        EQUAL(of[i].next, POSTS);
        EQUAL(of[i].wrong, 0);
    }
    app_end();
}

static void posts_have_a_bound(int backend)
{
    int taken = 0, run = 0, error;
    app_open(backend, 0);
    EQUAL(rt_post(app.loop, NULL, NULL), RT_EINVAL);
    while ((error = rt_post(app.loop, count_call, &run)) == 0 &&
           taken < 100000)
        taken++;
    EQUAL(error, RT_EFULL);
    CHECK(taken > 2000 && taken < 8000); /* some 4,000 */
    CHECK(peer_until(app.loop, &run, taken));
    EQUAL(rt_post(app.loop, count_call, &run), 0);
    peer_quiet(app.loop);
    EQUAL(run, taken + 1);
    app_end();
}

static void pass_time(rt_loop *loop, void *arg)
{
    uint64_t now = rt_now(loop), began = peer_clock();
    while (peer_clock() < began + 4)
        ;
    EQUAL(rt_now(loop), now);
    *(uint64_t *)arg = now;
}

static void rt_now_stands_still_in_a_turn(int backend)
{
    uint64_t before, in = 0;
    app_open(backend, 0);
    before = rt_now(app.loop);
    EQUAL(rt_post(app.loop, pass_time, &in), 0);
    EQUAL(rt_poll(app.loop, 0), 1);
    CHECK(in >= before);
    CHECK(rt_now(app.loop) >= in + 3);
    before = rt_now(app.loop);
    poll(NULL, 0, 4);
    CHECK(rt_now(app.loop) >= before + 3);
    app_end();
}

static void rt_loop_timeout_tells_how_long_to_wait(int backend)
{
    rt_session nobody = {0};
    rt_timer t;
    int wait, calls = 0;
    app_open(backend, 1);
    EQUAL(rt_loop_timeout(app.loop), -1);
    t = rt_timer_start(app.loop, nobody, rt_now(app.loop) + 60, count_call,
                       &calls);
    wait = rt_loop_timeout(app.loop);
    CHECK(wait > 0 && wait <= 60);
    EQUAL(rt_timer_stop(app.loop, t), 0);
    EQUAL(rt_loop_timeout(app.loop), -1);
    t = rt_timer_start(app.loop, nobody, UINT64_MAX, count_call, &calls);
    CHECK(rt_loop_timeout(app.loop) > 1000000);
    rt_timer_start(app.loop, nobody, 0, count_call, &calls);
    EQUAL(rt_loop_timeout(app.loop), 0);
    peer_turn(app.loop, 0);
    EQUAL(calls, 1);
    EQUAL(rt_timer_stop(app.loop, t), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 0);
    EQUAL(rt_loop_timeout(app.loop), 0);
    rt_flush(app.loop);
    EQUAL(rt_loop_timeout(app.loop), -1);
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    EQUAL(rt_loop_timeout(app.loop), 0);
    app_end();
}

#if defined(__linux__)

static void echo(rt_loop *loop, rt_session s)
{
    EQUAL(rt_send(loop, s, RT_TEXT, "echo", 4), 0);
}

/* Turns of a foreign loop, as long as *what is less. */
static int foreign_until(int ep, const int *what, int least)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    struct epoll_event e;
    while (*what < least && peer_clock() < end) {
        int wait = rt_loop_timeout(app.loop);
        int n = epoll_wait(ep, &e, 1, wait < 0 ? PEER_WAIT : wait);
        CHECK(n > 0 || wait >= 0); /* else it was not woken in time */
        rt_poll(app.loop, 0);
    }
    return *what >= least;
}

static void *post_from_thread(void *arg)
{
    poll(NULL, 0, 3);
    EQUAL(rt_post(app.loop, count_call, arg), 0);
    return NULL;
}

static void a_foreign_loop_can_drive_it(int backend)
{
    struct epoll_event e = {.events = EPOLLIN};
    rt_session nobody = {0};
    pthread_t thread;
    int calls = 0, ep = epoll_create1(0);
    app_open(backend, 1);
    app.message = echo;
    EQUAL(epoll_ctl(ep, EPOLL_CTL_ADD, rt_loop_fd(app.loop), &e), 0);
    peer_text(&app.p[0], "hello");
    CHECK(foreign_until(ep, &app.messages, 1));
    app.p[0].loop = NULL; /* it is not the peer that turns the loop */
    while (!peer_take(&app.p[0]))
        ;
    EQUAL(app.p[0].len - app.p[0].at, 6);
    rt_timer_start(app.loop, nobody, rt_now(app.loop) + 5, count_call,
                   &calls);
    CHECK(foreign_until(ep, &calls, 1));
    EQUAL(pthread_create(&thread, NULL, post_from_thread, &calls), 0);
    CHECK(foreign_until(ep, &calls, 2));
    pthread_join(thread, NULL);
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    CHECK(foreign_until(ep, &app.closes, 1));
    close(ep);
    app_end();
}

#endif

static void select_has_no_descriptor_to_wait_for(void)
{
    app_open(RT_SELECT, 0);
    EQUAL(rt_loop_fd(app.loop), RT_ESTATE);
    app_end();
}

/* ---- metrics --------------------------------------------------------------------- */

/* Comments, or a name, perhaps labels, a blank and a number. */
static int metric_line(const char *line, size_t n)
{
    size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_");
    const char *blank = memchr(line, ' ', n);
    if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0)
        return 1;
    if (!name || !blank || (line[name] != ' ' && line[name] != '{'))
        return 0;
    return strspn(blank + 1, "0123456789.") == n - (size_t)(blank + 1 - line);
}

static void check_page(const char *page, size_t n)
{
    const char *line = page, *end;
    EQUAL(strlen(page), n);
    CHECK(n == 0 || page[n - 1] == '\n');
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1)
        CHECK(metric_line(line, (size_t)(end - line)));
}

static void metrics_count(int backend)
{
    app_open(backend, 2);
    peer_text(&app.p[0], "hello");
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    rt_group_open(app.loop, "group", NULL);
    EQUAL(peer_metric(app.loop, "rtnet_connections"), 2);
    EQUAL(peer_metric(app.loop, "rtnet_sessions"), 2);
    EQUAL(peer_metric(app.loop, "rtnet_groups"), 1);
    EQUAL(peer_metric(app.loop, "rtnet_messages_in_total"), 1);
    EQUAL(peer_metric(app.loop, "rtnet_messages_out_total"), 1);
    EQUAL(peer_metric(app.loop, "rtnet_heap_bytes"), peer_heap);
    CHECK(peer_metric(app.loop, "rtnet_bytes_in_total") > 11);
    CHECK(peer_metric(app.loop, "rtnet_bytes_out_total") > 3);
    CHECK(peer_metric(app.loop, "rtnet_turns_total") > 2);
    peer_bye(&app.p[1], 1001);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(peer_metric(app.loop, "rtnet_closes_total{code=\"1001\"}"), 1);
    EQUAL(peer_metric(app.loop, "rtnet_sessions"), 1);
    app_end();
}

static void metrics_are_whole_lines(int backend)
{
    char *all, *part;
    size_t cap, room, n;
    app_open(backend, 1);
    cap = rt_metrics(app.loop, NULL, 0);
    CHECK(cap > 500 && cap < 100000);
    all = malloc(cap);
    part = malloc(cap + 1);
    EQUAL(rt_metrics(app.loop, all, cap), cap - 1);
    check_page(all, cap - 1);
    for (room = 1; room <= cap; room += room < 400 ? 1 : 61) {
        memset(part, '#', cap + 1);
        n = rt_metrics(app.loop, part, room);
        CHECK(n < room);
        if (n >= room || memchr(part, 0, room) != part + n)
            CHECK(!"a NUL behind the lines");
        else if (memcmp(part, all, n) != 0 || (n && part[n - 1] != '\n'))
            CHECK(!"whole lines from the beginning");
        EQUAL(part[room], '#');
    }
    free(all);
    free(part);
    app_end();
}

/* ---- listening --------------------------------------------------------------------- */

static const char *const bad_addresses[] = {
    "",
    "ws",
    "ws:",
    "ws://",
    "ws://127.0.0.1",
    "ws://127.0.0.1:",
    "ws://127.0.0.1:x",
    "ws://127.0.0.1:-1",
    "ws://127.0.0.1:65536",
    "ws://127.0.0.1:99999999999999999999",
    "ws://127.0.0.1:80x",
    "ws://127.0.0.1 :0",
    "ws://127.0.0.256:0",
    "ws://127.0.0:0",
    "ws://[::1:0",
    "ws://[::1]0",
    "ws://[::1]",
    "ws://[::g]:0",
    "ws://::1:0",
    "ws://no.such.name.example:0",
    "ws//127.0.0.1:0",
    "http://127.0.0.1:0",
    "wss://127.0.0.1:0",
    "udp://127.0.0.1:0",
    "127.0.0.1:0",
    "unix:",
    "tcp+unix:",
};

static void a_bad_address_is_not_listened_on(int backend)
{
    char path[300];
    size_t i, heap;
    app_open(backend, 0);
    heap = peer_heap;
    EQUAL(rt_listen(app.loop, NULL, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    for (i = 0; i < COUNT(bad_addresses); i++) {
        const char *text = NULL;
        EQUAL(rt_listen(app.loop, bad_addresses[i], NULL).id, 0);
        CHECK(rt_error(app.loop, &text) < 0);
        CHECK(text && strstr(text, bad_addresses[i]));
    }
    memset(path, 'p', sizeof path);
    memcpy(path, "unix:", 5);
    path[sizeof path - 1] = 0;
    EQUAL(rt_listen(app.loop, path, NULL).id, 0);
    EQUAL(rt_listen(app.loop, "unix:/no/such/directory/s", NULL).id, 0);
    check_error(RT_ESYS, "/no/such/directory/s");
    EQUAL(peer_heap, heap);
    app_end();
}

static void a_taken_port_is_named(int backend)
{
    char where[32];
    size_t heap;
    app_open(backend, 0);
    heap = peer_heap;
    snprintf(where, sizeof where, "127.0.0.1:%d", app.port);
    EQUAL(rt_listen(app.loop, local_url("ws", app.port, ""), NULL).id, 0);
    check_error(RT_ESYS, where);
    check_error(RT_ESYS, "in use");
    EQUAL(rt_listen(app.loop, local_url("tcp", app.port, ""), NULL).id, 0);
    check_error(RT_ESYS, where);
    EQUAL(peer_heap, heap);
    app_end();
}

static void port_0_is_any_free_one(int backend)
{
    rt_listener a, b;
    app_open(backend, 0);
    a = app_listen("ws://127.0.0.1:0");
    b = app_listen("tcp://127.0.0.1:0");
    CHECK(rt_listener_port(app.loop, a) > 0);
    CHECK(rt_listener_port(app.loop, a) != rt_listener_port(app.loop, b));
    EQUAL(rt_unlisten(app.loop, a), 0);
    EQUAL(rt_listener_port(app.loop, a), RT_EGONE);
    EQUAL(rt_unlisten(app.loop, a), RT_EGONE);
    app_end();
}

static void a_port_can_be_used_again_after_rt_unlisten(int backend)
{
    rt_listener n;
    int port;
    app_open(backend, 0);
    n = app_listen("ws://127.0.0.1:0");
    port = rt_listener_port(app.loop, n);
    CHECK(peer_ws(&app.p[0], app.loop, port, "/"));
    EQUAL(rt_unlisten(app.loop, n), 0);
    CHECK(!peer_tcp(&app.p[1], app.loop, port));
    peer_text(&app.p[0], "still here"); /* its session lives on */
    CHECK(peer_until(app.loop, &app.messages, 1));
    n = app_listen(local_url("ws", port, ""));
    EQUAL(rt_listener_port(app.loop, n), port);
    CHECK(peer_ws(&app.p[2], app.loop, port, "/"));
    app_end();
}

static void localhost_is_an_address(int backend)
{
    char url[64];
    rt_listener n;
    app_open(backend, 0);
    n = app_listen("ws://localhost:0");
    CHECK(peer_ws(&app.p[0], app.loop, rt_listener_port(app.loop, n), "/"));
    snprintf(url, sizeof url, "ws://localhost:%d/", app.port);
    CHECK(app_dial(url).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    app_end();
}

static char address[64]; /* of the last request */

static int note_address(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)loop;
    (void)s;
    snprintf(address, sizeof address, "%s", r->address);
    return 0;
}

static int has_ipv6(void)
{
    peer p;
    struct sockaddr_in6 a;
    int ok, fd = socket(AF_INET6, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sin6_family = AF_INET6;
    a.sin6_addr.s6_addr[15] = 1;
    ok = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    peer_init(&p, NULL, fd);
    peer_end(&p);
    if (!ok)
        SKIP("there is no IPv6 here");
    return ok;
}

static void ipv6_is_listened_on_and_dialled(int backend)
{
    rt_listener n;
    char url[64];
    int port;
    if (!has_ipv6())
        return;
    app_open(backend, 0);
    app.request = note_address;
    n = app_listen("ws://[::1]:0");
    port = rt_listener_port(app.loop, n);
    CHECK(peer_tcp6(&app.p[0], app.loop, port));
    CHECK(peer_upgrade(&app.p[0], "/"));
    CHECK(strcmp(address, "::1") == 0);
    snprintf(url, sizeof url, "ws://[::1]:%d/", port);
    CHECK(app_dial(url).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    CHECK(!peer_tcp(&app.p[1], app.loop, port)); /* it alone */
    app_end();
}

static void no_host_is_all_addresses(int backend)
{
    rt_listener n;
    int port;
    app_open(backend, 0);
    app.request = note_address;
    n = app_listen("ws://:0");
    port = rt_listener_port(app.loop, n);
    CHECK(peer_ws(&app.p[0], app.loop, port, "/"));
    CHECK(strcmp(address, "127.0.0.1") == 0); /* not ::ffff:127.0.0.1 */
    if (has_ipv6()) {
        CHECK(peer_tcp6(&app.p[1], app.loop, port));
        CHECK(peer_upgrade(&app.p[1], "/"));
        CHECK(strcmp(address, "::1") == 0);
    }
    app_end();
}

static void several_loops_share_a_port_when_asked_to(int backend)
{
    rt_loop_opts o = {.backend = backend};
    rt_loop *other = rt_loop_new(&o);
    rt_listener n;
    app_open(backend, 0);
    app.opts.reuse_port = 1;
    n = app_listen("ws://127.0.0.1:0");
    CHECK(rt_listen(other,
                    local_url("ws", rt_listener_port(app.loop, n), ""),
                    &app.opts)
              .id != 0);
    rt_loop_free(other);
    CHECK(peer_ws(&app.p[0], app.loop, rt_listener_port(app.loop, n), "/"));
    app_end();
}

/* ---- local sockets ------------------------------------------------------------------ */

static int file_there(const char *path)
{
    struct stat s;
    return lstat(path, &s) == 0;
}

static void local_url_of(char url[128], char path[108], const char *scheme)
{
    peer_path(path);
    snprintf(url, 128, "%s%s", scheme, path);
}

static void a_local_socket_speaks_ws(int backend)
{
    char url[128], path[108];
    rt_listener n;
    app_open(backend, 0);
    app.request = note_address;
    local_url_of(url, path, "unix:");
    n = app_listen(url);
    EQUAL(rt_listener_port(app.loop, n), 0);
    CHECK(file_there(path));
    CHECK(peer_ws_local(&app.p[0], app.loop, path));
    CHECK(strcmp(address, "") == 0); /* unknown */
    CHECK(app_dial(url).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    EQUAL(rt_unlisten(app.loop, n), 0);
    CHECK(!file_there(path));
    app_end();
}

static void a_local_socket_speaks_tcp(int backend)
{
    char url[128], path[108];
    app_open(backend, 0);
    local_url_of(url, path, "tcp+unix:");
    app_listen(url);
    CHECK(peer_local(&app.p[0], app.loop, path));
    peer_stream_put(&app.p[0], "hello", 5);
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(app_dial(url).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    CHECK(strcmp(app.text, "bhello|") == 0);
    app_end();
    CHECK(!file_there(path));
}

/* Leaves a socket file behind, as a server that died does. */
static void leave_socket(const char *path)
{
    struct sockaddr_un a;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.sun_family = AF_UNIX;
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    EQUAL(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    EQUAL(listen(fd, 1), 0);
    close(fd);
    CHECK(file_there(path));
}

static void the_socket_of_a_dead_server_is_replaced(int backend)
{
    char url[128], path[108];
    app_open(backend, 0);
    local_url_of(url, path, "unix:");
    leave_socket(path);
    app_listen(url);
    CHECK(peer_ws_local(&app.p[0], app.loop, path));
    app_end();
}

static void the_socket_of_a_living_server_is_not_replaced(int backend)
{
    char url[128], path[108];
    app_open(backend, 0);
    local_url_of(url, path, "unix:");
    app_listen(url);
    EQUAL(rt_listen(app.loop, url, NULL).id, 0);
    check_error(RT_ESYS, path);
    CHECK(peer_ws_local(&app.p[0], app.loop, path));
    app_end();
}

/* Only a socket file is ever removed: a wrong path must not cost a file. */
static void a_file_that_is_no_socket_is_not_replaced(int backend)
{
    char url[128], path[108];
    FILE *f;
    app_open(backend, 0);
    local_url_of(url, path, "unix:");
    f = fopen(path, "w");
    CHECK(f && fputs("precious", f) >= 0 && fclose(f) == 0);
    EQUAL(rt_listen(app.loop, url, NULL).id, 0);
    check_error(RT_ESYS, path);
    EQUAL(unlink(path), 0); /* it is still there */
    app_end();
}

/* ---- dialling ----------------------------------------------------------------------- */

static const char *const bad_dials[] = {
    "",
    "ws://127.0.0.1",
    "ws://127.0.0.1:0",
    "ws://127.0.0.1:65536",
    "ws://:9",
    "ws://127.0.0.1:9/a b",
    "ws://127.0.0.1:9/\r\nX: y",
    "ws://no.such.name.example:9", /* there is no resolve hook */
    "http://127.0.0.1:9",
    "tcp://127.0.0.1:0",
    "unix:",
    "unix:/no/such/directory/s",
    "tcp+unix:/no/such/directory/s",
};

static void a_bad_url_is_not_dialled(int backend)
{
    rt_dial_opts o = {.on = handler};
    size_t i, heap;
    app_open(backend, 0);
    heap = peer_heap;
    EQUAL(rt_dial(app.loop, NULL, &o).id, 0);
    for (i = 0; i < COUNT(bad_dials); i++) {
        EQUAL(app_dial(bad_dials[i]).id, 0);
        CHECK(rt_error(app.loop, NULL) < 0);
    }
    o.headers = "X: y\r\n\r\nGET / HTTP/1.1\r\n";
    EQUAL(rt_dial(app.loop, local_url("ws", app.port, "/"), &o).id, 0);
    check_error(RT_EINVAL, "header");
    o.headers = NULL;
    o.protocols = "a b\r\n";
    EQUAL(rt_dial(app.loop, local_url("ws", app.port, "/"), &o).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    peer_quiet(app.loop);
    EQUAL(app.opens + app.closes + app.requests, 0);
    EQUAL(peer_heap, heap);
    app_end();
}

static char asked_for[256]; /* what the last request wanted */

static int note_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    static const rt_accept_opts o = {.protocol = "b",
                                     .headers = "X-Answer:  42 \r\n"};
    const char *header = rt_header(r, "x-question");
    snprintf(asked_for, sizeof asked_for, "%s %s ? %s ; %s ; %s", r->method,
             r->path, r->query, header ? header : "-",
             rt_header(r, "host") ? "host" : "-");
    EQUAL(r->upgrade, 1);
    return rt_accept(loop, s, &o) < 0 ? 500 : 0;
}

static char answered[64]; /* what a dialled session's on_open saw */

static void note_answer(rt_loop *loop, rt_session s)
{
    const rt_request *r = rt_request_of(loop, s);
    const char *header = r ? rt_header(r, "X-ANSWER") : NULL;
    const char *protocol = r ? rt_header(r, "Sec-WebSocket-Protocol") : NULL;
    if (header)
        snprintf(answered, sizeof answered, "%s %s [%s%s]", header,
                 protocol ? protocol : "-", r->method, r->path);
}

static void a_dial_asks_for_what_its_url_and_options_say(int backend)
{
    rt_dial_opts o = {.on = handler,
                      .ping_ms = RT_OFF,
                      .protocols = "a, b",
                      .headers = "X-Question: why\r\n"};
    app_open(backend, 0);
    app.request = note_request;
    app.open = note_answer;
    *answered = 0;
    CHECK(rt_dial(app.loop, local_url("ws", app.port, "/way?to=go"), &o).id);
    CHECK(peer_until(app.loop, &app.opens, 2));
    CHECK(strcmp(asked_for, "GET /way ? to=go ; why ; host") == 0);
    CHECK(strcmp(answered, "42 b []") == 0);
    CHECK(rt_request_of(app.loop, app.s[0]) == NULL);
    CHECK(rt_request_of(app.loop, app.s[1]) == NULL);
    app_end();
}

static void a_dial_without_a_path_asks_for_the_root(int backend)
{
    rt_dial_opts o = {.on = handler, .ping_ms = RT_OFF, .protocols = "b"};
    app_open(backend, 0);
    app.request = note_request;
    CHECK(rt_dial(app.loop, local_url("ws", app.port, ""), &o).id);
    CHECK(peer_until(app.loop, &app.opens, 2));
    CHECK(strcmp(asked_for, "GET / ?  ; - ; host") == 0);
    CHECK(rt_dial(app.loop, local_url("ws", app.port, "?q=1"), &o).id);
    CHECK(peer_until(app.loop, &app.opens, 4));
    CHECK(strcmp(asked_for, "GET / ? q=1 ; - ; host") == 0);
    app_end();
}

static rt_session resolving;
static int resolve_calls, resolve_answer;
static const char *resolve_at_once;

static int on_resolve(rt_loop *loop, const char *host, rt_session s)
{
    CHECK(strcmp(host, "server.example") == 0);
    CHECK(rt_same(s, resolving));
    resolve_calls++;
    if (resolve_at_once)
        EQUAL(rt_resolved(loop, s, resolve_at_once), 0);
    return resolve_answer;
}

static void resolve_start(int backend, const char *at_once)
{
    char url[64];
    app_reset(backend);
    app.loop_opts.resolve = on_resolve;
    app_start();
    resolve_calls = resolve_answer = 0;
    resolve_at_once = at_once;
    snprintf(url, sizeof url, "ws://server.example:%d/", app.port);
    resolving = app_dial(url);
    CHECK(resolving.id != 0);
    EQUAL(resolve_calls, 0); /* rt_dial itself calls nobody */
    CHECK(peer_until(app.loop, &resolve_calls, 1));
}

static void a_name_is_resolved_at_once(int backend)
{
    resolve_start(backend, "127.0.0.1");
    CHECK(peer_until(app.loop, &app.opens, 2));
    EQUAL(resolve_calls, 1);
    EQUAL(rt_resolved(app.loop, resolving, "127.0.0.1"), RT_ESTATE);
    app_end();
}

static void a_name_is_resolved_later(int backend)
{
    resolve_start(backend, NULL);
    peer_quiet(app.loop);
    EQUAL(app.opens, 0);
    EQUAL(rt_resolved(app.loop, resolving, ""), RT_EINVAL);
    EQUAL(rt_resolved(app.loop, resolving, "server.example"), RT_EINVAL);
    EQUAL(rt_resolved(app.loop, resolving, "127.0.0.1"), 0);
    EQUAL(rt_resolved(app.loop, resolving, "127.0.0.1"), RT_ESTATE);
    CHECK(peer_until(app.loop, &app.opens, 2));
    app_end();
}

static void rt_resolved_is_for_those_that_asked(int backend)
{
    rt_session s;
    app_open(backend, 1);
    EQUAL(rt_resolved(app.loop, app.s[0], "127.0.0.1"), RT_ESTATE);
    s = app_dial(local_url("ws", app.port, ""));
    EQUAL(rt_resolved(app.loop, s, "127.0.0.1"), RT_ESTATE);
    CHECK(peer_until(app.loop, &app.opens, 3));
    app_end();
}
