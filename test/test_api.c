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

/* ---- the application ---------------------------------------------------- */

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

static int same(const char *text, const char *wanted)
{
    return text && strcmp(text, wanted) == 0;
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

/* ---- the loop ----------------------------------------------------------- */

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
    CHECK(same(rt_strerror(RT_EGONE), "stale handle"));
    snprintf(version, sizeof version, "%d.%d.%d", RT_VERSION_MAJOR,
             RT_VERSION_MINOR, RT_VERSION_PATCH);
    CHECK(same(rt_version(), version));
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
    while ((error = rt_post(app.loop, count_call, &run)) == 0 && taken < 100000)
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
    CHECK(peer_got(&app.p[0], RT_TEXT, "echo"));
    rt_timer_start(app.loop, nobody, rt_now(app.loop) + 5, count_call, &calls);
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

/* ---- metrics ------------------------------------------------------------ */

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
    CHECK(peer_metric(app.loop, "rtnet_turn_seconds_count") > 2);
    peer_bye(&app.p[1], 1001);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(peer_metric(app.loop, "rtnet_closes_total{code=\"1001\"}"), 1);
    EQUAL(peer_metric(app.loop, "rtnet_sessions"), 1);
    app_end();
}

/* The beginning of all, in whole lines, and nothing written behind room. */
static int page_fits(const char *part, size_t n, size_t room, const char *all)
{
    return n < room && memchr(part, 0, room) == part + n &&
           memcmp(part, all, n) == 0 && (n == 0 || part[n - 1] == '\n') &&
           part[room] == '#';
}

static void metrics_are_whole_lines(int backend)
{
    char *all, *part;
    size_t cap, room, bad = 0;
    app_open(backend, 1);
    cap = rt_metrics(app.loop, NULL, 0);
    CHECK(cap > 500 && cap < 100000);
    all = malloc(cap);
    part = malloc(cap + 1);
    EQUAL(rt_metrics(app.loop, all, cap), cap - 1);
    check_page(all, cap - 1);
    for (room = 1; room <= cap; room += room < 400 ? 1 : 61) {
        memset(part, '#', cap + 1);
        bad += !page_fits(part, rt_metrics(app.loop, part, room), room, all);
    }
    EQUAL(bad, 0);
    free(all);
    free(part);
    app_end();
}

/* ---- listening ---------------------------------------------------------- */

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
    EQUAL(rt_listen(app.loop, NULL, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_listen(app.loop, "unix:/no/such/directory/s", NULL).id, 0);
    check_error(RT_ESYS, "/no/such/directory/s");
    heap = peer_heap; /* a refusal more costs nothing */
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
    EQUAL(peer_heap, heap);
    app_end();
}

static void a_taken_port_is_named(int backend)
{
    char where[32];
    size_t heap;
    app_open(backend, 0);
    snprintf(where, sizeof where, "127.0.0.1:%d", app.port);
    EQUAL(rt_listen(app.loop, local_url("ws", app.port, ""), NULL).id, 0);
    heap = peer_heap; /* one more costs nothing */
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

static rt_listener stopped;

static void stop_listener(rt_loop *loop, rt_session s)
{
    (void)s;
    if (app.opens == 1)
        EQUAL(rt_unlisten(loop, stopped), 0);
}

/* From the on_open of the first, while the second waits to be accepted. */
static void a_listener_can_be_stopped_by_whom_it_let_in(int backend)
{
    int port;
    app_open(backend, 0);
    app.open = stop_listener;
    stopped = app_listen("tcp://127.0.0.1:0");
    port = rt_listener_port(app.loop, stopped);
    CHECK(peer_tcp(&app.p[0], app.loop, port));
    CHECK(peer_tcp(&app.p[1], app.loop, port));
    CHECK(peer_until(app.loop, &app.opens, 1));
    CHECK(peer_ended(&app.p[1]));
    EQUAL(app.opens, 1);
    peer_stream_put(&app.p[0], "hello", 5);
    CHECK(peer_until(app.loop, &app.messages, 1));
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
    CHECK(same(address, "::1"));
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
    CHECK(same(address, "127.0.0.1")); /* not ::ffff:127.0.0.1 */
    if (has_ipv6()) {
        CHECK(peer_tcp6(&app.p[1], app.loop, port));
        CHECK(peer_upgrade(&app.p[1], "/"));
        CHECK(same(address, "::1"));
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
    CHECK(rt_listen(other, local_url("ws", rt_listener_port(app.loop, n), ""),
                    &app.opts)
              .id != 0);
    rt_loop_free(other);
    CHECK(peer_ws(&app.p[0], app.loop, rt_listener_port(app.loop, n), "/"));
    app_end();
}

/* ---- local sockets ------------------------------------------------------ */

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
    CHECK(same(address, "")); /* unknown */
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
    CHECK(same(app.text, "bhello|"));
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

/* ---- dialling ----------------------------------------------------------- */

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
    EQUAL(rt_dial(app.loop, NULL, &o).id, 0);
    EQUAL(app_dial("unix:/no/such/directory/s").id, 0);
    check_error(RT_ESYS, "/no/such/directory/s");
    peer_quiet(app.loop);
    heap = peer_heap; /* one more costs nothing */
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

/* test_tls has a build with it. */
static void tls_is_refused_where_it_is_not_built_in(int backend)
{
    rt_tls_opts tls = {.cert = "cert.pem", .key = "key.pem", .ca = "ca.pem"};
    rt_listen_opts lo = {.tls = &tls};
    rt_dial_opts o = {.on = handler, .tls = &tls};
    rt_listener plain;
    size_t heap;
    app_open(backend, 0);
    plain = rt_listen(app.loop, "ws://127.0.0.1:0", NULL);
    EQUAL(rt_dial(app.loop, "ws://127.0.0.1:1/", &o).id, 0);
    check_error(RT_EINVAL, "tls is for wss and tls");
    EQUAL(rt_listen(app.loop, "tcp://127.0.0.1:0", &lo).id, 0);
    check_error(RT_EINVAL, "tls is for wss and tls");
    peer_quiet(app.loop);
    heap = peer_heap;
    EQUAL(rt_dial(app.loop, "wss://127.0.0.1:1/", &o).id, 0);
    check_error(RT_EINVAL, "built without TLS");
    EQUAL(rt_listen(app.loop, "tls://127.0.0.1:0", &lo).id, 0);
    check_error(RT_EINVAL, "built without TLS");
    EQUAL(rt_tls_reload(app.loop, plain, &tls), RT_EINVAL);
    check_error(RT_EINVAL, "built without TLS");
    EQUAL(rt_tls_reload(app.loop, (rt_listener){0}, &tls), RT_EGONE);
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
    CHECK(same(asked_for, "GET /way ? to=go ; why ; host"));
    CHECK(same(answered, "42 b []"));
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
    CHECK(same(asked_for, "GET / ?  ; - ; host"));
    CHECK(rt_dial(app.loop, local_url("ws", app.port, "?q=1"), &o).id);
    CHECK(peer_until(app.loop, &app.opens, 4));
    CHECK(same(asked_for, "GET / ? q=1 ; - ; host"));
    app_end();
}

static rt_session resolving;
static int resolve_calls, resolve_answer;
static const char *resolve_at_once;

static int on_resolve(rt_loop *loop, const char *host, rt_session s)
{
    CHECK(same(host, "server.example"));
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

/* ---- requests ----------------------------------------------------------- */

/* What the calls of the present case return, in on_request. */
static int results[16], result_count;

static void result(int value)
{
    if (result_count < (int)COUNT(results))
        results[result_count++] = value;
}

static void check_results(const int *wanted, int n)
{
    int i;
    EQUAL(result_count, n);
    for (i = 0; i < n && i < result_count; i++)
        EQUAL(results[i], wanted[i]);
    result_count = 0;
}

static int accept_badly(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts o = {0};
    (void)r;
    o.protocol = "c"; /* not offered */
    result(rt_accept(loop, s, &o));
    o.protocol = "a, b";
    result(rt_accept(loop, s, &o));
    o.protocol = NULL;
    o.headers = "X: y\r\n\r\nHTTP/1.1 200 OK\r\n";
    result(rt_accept(loop, s, &o));
    o.headers = "no colon\r\n";
    result(rt_accept(loop, s, &o));
    o.headers = NULL;
    o.uid = "";
    result(rt_accept(loop, s, &o));
    o.uid = "somebody";
    result(rt_accept(loop, s, &o));
    result(rt_accept(loop, s, &o));
    return 0;
}

static void rt_accept_refuses_what_would_break_the_answer(int backend)
{
    static const int wanted[] = {RT_EINVAL, RT_EINVAL, RT_EINVAL, RT_EINVAL,
                                 RT_EINVAL, 0,         RT_ESTATE};
    app_open(backend, 0);
    app.request = accept_badly;
    result_count = 0;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/", "Sec-WebSocket-Protocol: a, b\r\n");
    EQUAL(peer_status(&app.p[0]), 101);
    check_results(wanted, COUNT(wanted));
    CHECK(strstr(app.p[0].head, "WebSocket-Protocol") == NULL);
    CHECK(same(rt_uid(app.loop, app.s[0]), "somebody"));
    app_end();
}

static int accept_fully(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts o = {.uid = "somebody",
                        .protocol = "b",
                        .headers = "X-One: 1\r\nX-Two: 2\r\n"};
    result(rt_accept(loop, s, &o));
    (void)r;
    return 500; /* not looked at any more */
}

static void find_self(rt_loop *loop, rt_session s)
{
    CHECK(rt_same(rt_find(loop, "somebody"), s));
    CHECK(rt_request_of(loop, s) != NULL);
}

static void rt_accept_adds_what_it_is_told(int backend)
{
    static const int wanted[] = {0};
    app_open(backend, 0);
    app.request = accept_fully;
    app.open = find_self;
    result_count = 0;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/", "Sec-WebSocket-Protocol: a, b\r\n");
    EQUAL(peer_status(&app.p[0]), 101);
    check_results(wanted, COUNT(wanted));
    CHECK(strstr(app.p[0].head, "\r\nSec-WebSocket-Protocol: b\r\n"));
    CHECK(strstr(app.p[0].head, "\r\nX-One: 1\r\nX-Two: 2\r\n"));
    EQUAL(app.opens, 1);
    app_end();
}

static int accept_plain(rt_loop *loop, rt_session s, const rt_request *r)
{
    EQUAL(r->upgrade, 0);
    result(rt_accept(loop, s, NULL));
    return 0;
}

static void ask_plain(peer *p, const char *method, const char *path,
                      const char *more)
{
    char text[1024];
    snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: peer\r\n%s\r\n",
             method, path, more);
    peer_say(p, text);
}

static void a_plain_request_is_not_accepted(int backend)
{
    static const int wanted[] = {RT_ESTATE};
    app_open(backend, 0);
    app.request = accept_plain;
    result_count = 0;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    ask_plain(&app.p[0], "GET", "/", "");
    EQUAL(peer_status(&app.p[0]), 404);
    check_results(wanted, COUNT(wanted));
    app_end();
}

static void on_request_answers_with_a_status(int backend)
{
    static const int statuses[] = {400, 403, 404, 429, 503, 599};
    size_t i;
    for (i = 0; i < COUNT(statuses); i++) {
        app_open(backend, 0);
        app.answer = statuses[i];
        CHECK(peer_tcp(&app.p[0], app.loop, app.port));
        if (i & 1)
            peer_ask(&app.p[0], "/", "");
        else
            ask_plain(&app.p[0], "GET", "/", "");
        EQUAL(peer_status(&app.p[0]), statuses[i]);
        EQUAL(app.opens, 0);
        app_end();
    }
}

static void a_plain_request_to_an_upgrade_alone_gets_426(int backend)
{
    app_reset(backend);
    app.opts.on.request = NULL;
    app_start();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    ask_plain(&app.p[0], "GET", "/", "");
    EQUAL(peer_status(&app.p[0]), 426);
    CHECK(peer_ws(&app.p[1], app.loop, app.port, "/"));
    app_end();
}

static int reply_badly(rt_loop *loop, rt_session s, const rt_request *r)
{
    (void)r;
    result(rt_reply(loop, s, 199, "", NULL, 0));
    result(rt_reply(loop, s, 101, "", NULL, 0));
    result(rt_reply(loop, s, 600, "", NULL, 0));
    result(rt_reply(loop, s, 200, "text/plain\r\nX: y", NULL, 0));
    result(rt_reply(loop, s, 200, "", NULL, 1));
    result(rt_reply(loop, s, 200, "text/plain", "well", 4));
    result(rt_reply(loop, s, 200, "text/plain", "well", 4));
    return 500;
}

static void rt_reply_refuses_what_is_no_answer(int backend)
{
    static const int wanted[] = {RT_EINVAL, RT_EINVAL, RT_EINVAL, RT_EINVAL,
                                 RT_EINVAL, 0,         RT_ESTATE};
    app_open(backend, 0);
    app.request = reply_badly;
    result_count = 0;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    ask_plain(&app.p[0], "GET", "/", "");
    EQUAL(peer_status(&app.p[0]), 200);
    CHECK(peer_body(&app.p[0], "well"));
    CHECK(strstr(app.p[0].head, "\r\nContent-Type: text/plain\r\n"));
    check_results(wanted, COUNT(wanted));
    app_end();
}

static int reply_with_all(rt_loop *loop, rt_session s, const rt_request *r)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%s %s ? %s : %s %u", r->method,
                     r->path, r->query, r->body, (unsigned)r->body_len);
    EQUAL(r->upgrade, 0);
    CHECK(same(r->address, "127.0.0.1"));
    EQUAL(rt_reply(loop, s, 200, "", text, (size_t)n), 0);
    memset(text, 0, sizeof text); /* it was copied */
    return 0;
}

static void a_request_tells_all_of_itself(int backend)
{
    peer *p = &app.p[0];
    app_open(backend, 0);
    app.request = reply_with_all;
    CHECK(peer_tcp(p, app.loop, app.port));
    ask_plain(p, "GET", "/a%20b?c=d&e", "");
    EQUAL(peer_status(p), 200);
    CHECK(peer_body(p, "GET /a%20b ? c=d&e :  0"));
    CHECK(strstr(p->head, "Content-Type") == NULL);
    ask_plain(p, "POST", "/post", "Content-Length: 5\r\n"); /* kept alive */
    peer_say(p, "hello");
    EQUAL(peer_status(p), 200);
    CHECK(peer_body(p, "POST /post ?  : hello 5"));
    ask_plain(p, "HEAD", "/", "");
    EQUAL(peer_status(p), 200);
    CHECK(strstr(p->head, "\r\nContent-Length: 14\r\n"));
    peer_ask(p, "/", ""); /* and a HEAD has no body: the next answer */
    app.request = NULL;
    EQUAL(peer_status(p), 101);
    app_end();
}

static void check_query(const rt_request *r, const char *name,
                        const char *wanted)
{
    char out[16];
    int n;
    memset(out, '#', sizeof out);
    n = rt_query(r, name, out, sizeof out);
    EQUAL(n, wanted ? (int)strlen(wanted) : RT_EINVAL);
    if (n >= 0)
        CHECK(wanted && strcmp(out, wanted) == 0);
}

static void rt_query_decodes(void)
{
    rt_request r = {.query = "a=1&b=x+y&c=%41%2bz&d&e=&ab=2&f=%4&g=%zz&h=%00"
                             "&i=%C3%A9&a=3&j=1=2&k=0123456789abcde"
                             "&l=0123456789abcdef&=m&n=%"};
    char out[4] = "##";
    check_query(&r, "a", "1"); /* the first */
    check_query(&r, "b", "x y");
    check_query(&r, "c", "A+z");
    check_query(&r, "d", "");
    check_query(&r, "e", "");
    check_query(&r, "ab", "2");
    check_query(&r, "i", "\xc3\xa9");
    check_query(&r, "j", "1=2");
    check_query(&r, "k", "0123456789abcde"); /* just fits */
    check_query(&r, "l", NULL);              /* does not */
    check_query(&r, "f", NULL);
    check_query(&r, "g", NULL);
    check_query(&r, "h", NULL); /* a NUL */
    check_query(&r, "n", NULL);
    check_query(&r, "z", NULL);
    check_query(&r, "B", NULL);
    check_query(&r, "1", NULL);
    EQUAL(rt_query(&r, "a", out, 2), 1);
    EQUAL(out[2], 0);
    EQUAL(rt_query(&r, "a", out, 1), RT_EINVAL);
    EQUAL(rt_query(&r, "d", out, 1), 0);
    EQUAL(rt_query(&r, "d", out, 0), RT_EINVAL);
    r.query = "";
    check_query(&r, "a", NULL);
    check_query(&r, "", NULL);
}

static int look_at_headers(rt_loop *loop, rt_session s, const rt_request *r)
{
    const char *value = rt_header(r, "x-value");
    CHECK(same(value, "first one"));
    value = rt_header(r, "X-EMPTY");
    CHECK(same(value, ""));
    CHECK(rt_header(r, "X-Val") == NULL);
    CHECK(rt_header(r, "X-Value-") == NULL);
    CHECK(rt_header(r, "") == NULL);
    CHECK(rt_request_of(loop, s) == r);
    return 0;
}

static void rt_header_finds_the_first_of_that_name(int backend)
{
    app_open(backend, 0);
    app.request = look_at_headers;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/",
             "X-Value: \t first one\t \r\nx-value: second\r\nX-Empty:\r\n");
    EQUAL(peer_status(&app.p[0]), 101);
    EQUAL(app.requests, 1);
    app_end();
}

/* The whole request, from the accept: not a byte more buys time. */
static void a_request_has_a_deadline(int backend)
{
    uint64_t began = peer_clock();
    app_reset(backend);
    app.opts.handshake_ms = 12;
    app_start();
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    peer_say(&app.p[0], "GET / HTTP/1.1\r\nA:");
    while (!app.p[0].gone && peer_clock() < began + PEER_WAIT) {
        peer_say(&app.p[0], "a");
        peer_turn(app.loop, 1);
        peer_take(&app.p[0]);
    }
    CHECK(app.p[0].gone);
    CHECK(peer_ended(&app.p[1])); /* one that says nothing, too */
    CHECK(peer_clock() >= began + 10);
    app_end();
}

static void a_bound_of_sessions_is_kept(int backend)
{
    rt_listener n;
    app_reset(backend);
    app.loop_opts.max_sessions = 2;
    app_start();
    app_peers(2);
    CHECK(peer_tcp(&app.p[2], app.loop, app.port));
    peer_ask(&app.p[2], "/", "");
    EQUAL(peer_status(&app.p[2]), 503);
    n = app_listen("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&app.p[3], app.loop, rt_listener_port(app.loop, n)));
    CHECK(peer_ended(&app.p[3]));
    EQUAL(app.opens, 2);
    app_end();
}

/* Those that were dialled do not count. */
static void a_bound_of_sessions_is_of_accepted_ones(int backend)
{
    int port = 0, raw;
    app_reset(backend);
    app.loop_opts.max_sessions = 1;
    app_start();
    raw = peer_listen(&port);
    CHECK(app_dial(local_url("tcp", port, "")).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 1));
    CHECK(peer_ws(&app.p[0], app.loop, app.port, "/"));
    EQUAL(app.opens, 2);
    close(raw);
    app_end();
}

/* ---- sending ------------------------------------------------------------ */

static void kinds_of_message_arrive_as_they_are(int backend)
{
    peer *p = &app.p[0];
    app_open(backend, 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "text", 4), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, "\xff\xfe", 2), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, NULL, 0), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY | RT_NO_HISTORY, "h", 1), 0);
    CHECK(peer_got(p, RT_TEXT, "text"));
    CHECK(peer_got(p, RT_BINARY, "\xff\xfe"));
    CHECK(peer_got(p, RT_TEXT, ""));
    CHECK(peer_got(p, RT_BINARY, "h"));
    peer_text(p, "text");
    peer_frame_put(p, 0x82, "binary", 6);
    CHECK(peer_until(app.loop, &app.messages, 2));
    CHECK(same(app.text, "ttext|bbinary|"));
    app_end();
}

static const int bad_kinds[] = {
    0, 3, -1, 8, RT_DROPPABLE, RT_TEXT | 0x800, 16, RT_TEXT | (int)(1u << 31)};

static void what_is_no_message_is_refused(int backend)
{
    size_t i;
    app_open(backend, 1);
    for (i = 0; i < COUNT(bad_kinds); i++) {
        EQUAL(rt_send(app.loop, app.s[0], bad_kinds[i], "x", 1), RT_EINVAL);
        CHECK(rt_send_many(app.loop, app.s, 1, bad_kinds[i], "x", 1) <= 0);
    }
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, NULL, 1), RT_EINVAL);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "\xff", 1), RT_EUTF8);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "\xed\xa0\x80", 3), RT_EUTF8);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "half \xc3", 6), RT_EUTF8);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT | rt_latest(1), "\xff", 1),
          RT_EUTF8);
    EQUAL(rt_send_many(app.loop, app.s, 1, RT_TEXT, "\xff", 1), RT_EUTF8);
    EQUAL(rt_unsent(app.loop, app.s[0]), 0);
    CHECK(peer_silent(&app.p[0]));
    app_end();
}

enum { BIG = 400 * 1024 }; /* a local socket does not take it at once */

static char big[BIG];

/* One session whose peer has not yet read BIG bytes of a first message. */
static void app_slow(int backend, int soft, int hard)
{
    char url[128], path[108];
    app_reset(backend);
    app.opts.soft_mark = soft;
    app.opts.hard_mark = hard;
    app_start();
    local_url_of(url, path, "unix:");
    app_listen(url);
    CHECK(peer_ws_local(&app.p[0], app.loop, path));
    memset(big, 'b', sizeof big);
    CHECK(rt_send(app.loop, app.s[0], RT_BINARY, big, BIG) >= 0);
    peer_turn(app.loop, 0);
    CHECK(rt_unsent(app.loop, app.s[0]) > 0);
    CHECK(rt_unsent(app.loop, app.s[0]) < BIG);
}

static void check_big(void)
{
    peer_frame f;
    CHECK(peer_next(&app.p[0], &f));
    EQUAL(f.len, BIG);
    CHECK(f.len == BIG && memcmp(f.data, big, BIG) == 0);
}

static void above_the_soft_mark_rt_send_gives_1(int backend)
{
    int i;
    app_reset(backend);
    app.opts.soft_mark = 2000;
    app_start();
    app_peers(1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 900), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 900), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 900), 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 900), 1);
    EQUAL(app.writables, 0);
    CHECK(peer_until(app.loop, &app.writables, 1));
    EQUAL(rt_unsent(app.loop, app.s[0]), 0);
    peer_quiet(app.loop);
    EQUAL(app.writables, 1);
    for (i = 0; i < 4; i++) {
        peer_frame f;
        CHECK(peer_next(&app.p[0], &f) && f.len == 900);
    }
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 900), 0);
    peer_quiet(app.loop);
    EQUAL(app.writables, 1); /* no 1, no on_writable */
    app_end();
}

static void on_writable_waits_for_a_half_empty_queue(int backend)
{
    app_slow(backend, 60000, 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 1);
    peer_quiet(app.loop);
    EQUAL(app.writables, 0);
    check_big();
    CHECK(peer_until(app.loop, &app.writables, 1));
    CHECK(rt_unsent(app.loop, app.s[0]) <= 30000);
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    app_end();
}

static void an_empty_queue_takes_one_message_of_any_size(int backend)
{
    app_slow(backend, 100, 200); /* BIG is above both */
    check_big();
    peer_quiet(app.loop);
    EQUAL(app.closes, 0);
    EQUAL(app.writables, 1);
    app_end();
}

/* Each message was handed to the system, or is told as lost. */
static void above_the_hard_mark_the_session_ends(int backend)
{
    peer_frame f;
    int i, taken = 1, got = 0;
    app_slow(backend, 0, BIG + 10000);
    for (i = 0; i < 1000; i++) {
        int error = rt_send(app.loop, app.s[0], RT_BINARY, big, 1000);
        if (error < 0) {
            EQUAL(error, RT_EFULL);
            break;
        }
        taken++;
    }
    CHECK(taken > 1 && i < 1000);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, "x", 1), RT_EGONE);
    EQUAL(app.closes, 0);
    peer_turn(app.loop, 1000);
    EQUAL(app.closes, 1);
    EQUAL(app.code, RT_CLOSE_SLOW);
    EQUAL(app.cause, RT_BY_LIMIT);
    while (peer_next(&app.p[0], &f) && f.op == RT_BINARY)
        got++;
    EQUAL(f.op, 8);
    EQUAL(f.len >= 2 ? peer_number(f.data, 2) : 0, RT_CLOSE_SLOW);
    CHECK(got + (int)app.lost >= taken); /* what was begun may count twice */
    CHECK(got + (int)app.lost <= taken + 1);
    CHECK(app.lost > 0);
    app_end();
}

static void lost_counts_what_was_not_handed_over(int backend)
{
    int i;
    app_slow(backend, 0, 0);
    for (i = 0; i < 5; i++)
        CHECK(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1) >= 0);
    CHECK(rt_send(app.loop, app.s[0], RT_TEXT | RT_DROPPABLE, "y", 1) >= 0);
    CHECK(rt_send(app.loop, app.s[0], RT_TEXT | rt_latest(1), "z", 1) >= 0);
    peer_reset(&app.p[0]);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.lost, 6); /* the reliable ones, the half one among them */
    app_end();
}

static void nothing_is_lost_of_what_is_sent_in_time(int backend)
{
    app_open(backend, 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 0);
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.lost, 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    app_end();
}

static void a_droppable_message_is_skipped_above_the_soft_mark(int backend)
{
    int kind = RT_TEXT | RT_DROPPABLE;
    app_slow(backend, 1000, 0);
    EQUAL(rt_send(app.loop, app.s[0], kind, "skipped", 7), 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "reliable", 8), 1);
    EQUAL(rt_send(app.loop, app.s[0], kind, "skipped", 7), 1);
    check_big();
    CHECK(peer_got(&app.p[0], RT_TEXT, "reliable"));
    CHECK(peer_silent(&app.p[0]));
    EQUAL(app.writables, 1);
    EQUAL(rt_send(app.loop, app.s[0], kind, "taken", 5), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "taken"));
    app_end();
}

static void on_writable_follows_a_skipped_message(int backend)
{
    app_reset(backend);
    app.opts.soft_mark = 1000;
    app_start();
    app_peers(1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 2000), 1);
    CHECK(peer_until(app.loop, &app.writables, 1));
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY | RT_DROPPABLE, big, 2000), 1);
    CHECK(peer_until(app.loop, &app.writables, 2));
    app_end();
}

static void send_latest(uint16_t key, const char *text)
{
    CHECK(rt_send(app.loop, app.s[0], RT_TEXT | rt_latest(key), text,
                  strlen(text)) >= 0);
}

/* In the order of the keys' first ones, behind all that is reliable. */
static void the_latest_message_of_a_key_replaces_the_others(int backend)
{
    static const char *const wanted[] = {"reliable", "2d", "0b", "32767c"};
    size_t i;
    app_slow(backend, 0, 0);
    send_latest(2, "2a");
    send_latest(0, "0a");
    send_latest(2, "2b");
    CHECK(rt_send(app.loop, app.s[0], RT_TEXT, "reliable", 8) >= 0);
    send_latest(32767, "32767a");
    send_latest(2, "2c");
    peer_quiet(app.loop);
    send_latest(32767, "32767b");
    send_latest(0, "0b");
    send_latest(2, "2d");
    send_latest(32767, "32767c");
    check_big();
    for (i = 0; i < COUNT(wanted); i++)
        CHECK(peer_got(&app.p[0], RT_TEXT, wanted[i]));
    CHECK(peer_silent(&app.p[0]));
    send_latest(2, "2e"); /* sent at once: nothing to replace */
    CHECK(peer_got(&app.p[0], RT_TEXT, "2e"));
    app_end();
}

/* One that is half written is finished, whatever comes after it. */
static void a_latest_message_that_was_begun_is_finished(int backend)
{
    char url[128], path[108];
    app_reset(backend);
    app_start();
    local_url_of(url, path, "unix:");
    app_listen(url);
    CHECK(peer_ws_local(&app.p[0], app.loop, path));
    memset(big, 'b', sizeof big);
    CHECK(rt_send(app.loop, app.s[0], RT_BINARY | rt_latest(1), big, BIG) >= 0);
    peer_turn(app.loop, 0);
    CHECK(rt_unsent(app.loop, app.s[0]) > 0);
    send_latest(1, "old");
    CHECK(rt_send(app.loop, app.s[0], RT_TEXT, "reliable", 8) >= 0);
    send_latest(1, "new");
    check_big();
    CHECK(peer_got(&app.p[0], RT_TEXT, "reliable"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "new"));
    CHECK(peer_silent(&app.p[0]));
    app_end();
}

static void too_many_keys_are_refused_and_end_nothing(int backend)
{
    int key = 0, error = 0;
    app_slow(backend, 0, 0);
    while (error >= 0 && key < 32768)
        error = rt_send(app.loop, app.s[0],
                        RT_TEXT | rt_latest((uint16_t)key++), "x", 1);
    EQUAL(error, RT_EFULL);
    send_latest(0, "newest");
    peer_quiet(app.loop);
    EQUAL(app.closes, 0);
    check_big();
    CHECK(peer_got(&app.p[0], RT_TEXT, "newest"));
    app_end();
}

/* A keyed message is refused there, a droppable one skipped: no end. */
static void what_may_be_dropped_ends_nothing_at_the_hard_mark(int backend)
{
    app_slow(backend, BIG, BIG + 1000);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY | rt_latest(1), big, BIG),
          RT_EFULL);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY | RT_DROPPABLE, big, BIG), 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 0);
    check_big();
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    CHECK(peer_silent(&app.p[0]));
    EQUAL(app.closes, 0);
    app_end();
}

enum { MOST = 64 * 1024 * 1024 };

static void an_empty_queue_takes_64_mib(int backend)
{
    uint8_t *most = calloc(MOST + 1, 1);
    app_open(backend, 1);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, most, MOST + 1), RT_EINVAL);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, most, MOST), 1);
    free(most);
    app_end();
}

static void rt_unsent_counts_what_waits(int backend)
{
    app_open(backend, 1);
    EQUAL(rt_unsent(app.loop, app.s[0]), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 100), 0);
    EQUAL(rt_unsent(app.loop, app.s[0]), 102);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, big, 200), 0);
    EQUAL(rt_unsent(app.loop, app.s[0]), 102 + 204);
    send_latest(1, "old one");
    send_latest(1, "new");
    EQUAL(rt_unsent(app.loop, app.s[0]), 102 + 204 + 5);
    rt_flush(app.loop);
    EQUAL(rt_unsent(app.loop, app.s[0]), 0);
    app_end();
}

static void rt_send_many_passes_over_what_is_stale(int backend)
{
    rt_session to[5];
    rt_session nobody = {0};
    int i;
    app_open(backend, 3);
    EQUAL(rt_close(app.loop, app.s[1], 0, NULL), 0);
    for (i = 0; i < 3; i++)
        to[i] = app.s[i];
    to[3] = nobody;
    to[4] = app.s[2]; /* twice */
    EQUAL(rt_send_many(app.loop, to, 5, RT_TEXT, "many", 4), 3);
    EQUAL(rt_send_many(app.loop, to, 0, RT_TEXT, "none", 4), 0);
    EQUAL(rt_send_many(app.loop, NULL, 0, RT_TEXT, "none", 4), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "many"));
    EQUAL(peer_closed(&app.p[1]), 1000);
    CHECK(peer_got(&app.p[2], RT_TEXT, "many"));
    CHECK(peer_got(&app.p[2], RT_TEXT, "many"));
    CHECK(peer_silent(&app.p[0]));
    app_end();
}

static void only_those_that_took_it_are_counted(int backend)
{
    app_slow(backend, 1000, BIG + 1000);
    CHECK(peer_ws(&app.p[1], app.loop, app.port, "/"));
    EQUAL(rt_send_many(app.loop, app.s, 2, RT_BINARY | RT_DROPPABLE, "x", 1),
          1);
    EQUAL(rt_send_many(app.loop, app.s, 2, RT_BINARY, "z", 1), 2);
    rt_flush(app.loop);
    EQUAL(rt_send_many(app.loop, app.s, 2, RT_BINARY, big, BIG), 1);
    EQUAL(rt_state(app.loop, app.s[0]), RT_CLOSING); /* it was full */
    CHECK(peer_got(&app.p[1], RT_BINARY, "z"));
    CHECK(peer_got(&app.p[1], RT_BINARY, "x"));
    app_end();
}

/* To the client role, which masks, and to a stream, too. */
static void every_wire_takes_part_in_a_broadcast(int backend)
{
    rt_listener n;
    rt_group g;
    int i;
    app_open(backend, 1);
    n = app_listen("tcp://127.0.0.1:0");
    CHECK(app_dial(local_url("ws", app.port, "")).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    CHECK(peer_tcp(&app.p[1], app.loop, rt_listener_port(app.loop, n)));
    CHECK(peer_until(app.loop, &app.opens, 4));
    EQUAL(rt_send_many(app.loop, app.s, 4, RT_TEXT, "all", 3), 4);
    g = rt_group_open(app.loop, "group", NULL);
    for (i = 0; i < 4; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "group", 5), 4);
    CHECK(peer_got(&app.p[0], RT_TEXT, "all"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "group"));
    CHECK(peer_stream_got(&app.p[1], "all"));
    CHECK(peer_stream_got(&app.p[1], "group"));
    CHECK(peer_until(app.loop, &app.messages, 4)); /* the dialled pair */
    CHECK(strstr(app.text, "tall|") && strstr(app.text, "tgroup|"));
    app_end();
}

/* ---- reading ------------------------------------------------------------ */

static int pause_at;

static void pause_there(rt_loop *loop, rt_session s)
{
    if (app.messages == pause_at)
        EQUAL(rt_read(loop, s, 0), 0);
}

static void put_numbers(peer *p, int from, int to)
{
    uint8_t all[2048];
    size_t n = 0;
    for (; from < to; from++) {
        char text[8];
        int len = snprintf(text, sizeof text, "%d", from);
        n += peer_frame_build(all + n, 0x81, text, (size_t)len);
    }
    peer_put(p, all, n); /* one packet */
}

static void check_numbers(int n)
{
    char wanted[1024];
    size_t len = 0;
    int i;
    *wanted = 0;
    for (i = 0; i < n; i++)
        len += (size_t)snprintf(wanted + len, sizeof wanted - len, "t%d|", i);
    CHECK(same(app.text, wanted));
}

static void rt_read_0_stops_behind_the_present_message(int backend)
{
    int steps;
    app_open(backend, 1);
    app.message = pause_there;
    pause_at = 3;
    put_numbers(&app.p[0], 0, 20);
    CHECK(peer_until(app.loop, &app.messages, 3));
    put_numbers(&app.p[0], 20, 30);
    peer_quiet(app.loop);
    EQUAL(app.messages, 3);
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    for (steps = 3; steps < 29; steps++) { /* one by one */
        pause_at = steps + 1;
        EQUAL(rt_read(app.loop, app.s[0], 1), 0);
        EQUAL(app.messages, steps);
        CHECK(peer_until(app.loop, &app.messages, steps + 1));
        peer_quiet(app.loop);
        EQUAL(app.messages, steps + 1);
    }
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    CHECK(peer_until(app.loop, &app.messages, 30));
    check_numbers(30);
    app_end();
}

static void rt_read_0_loses_nothing_of_a_stream(int backend)
{
    char text[16];
    int i;
    rt_listener n;
    app_open(backend, 0);
    n = app_listen("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&app.p[0], app.loop, rt_listener_port(app.loop, n)));
    CHECK(peer_until(app.loop, &app.opens, 1));
    app.message = pause_there;
    pause_at = 2;
    for (i = 0; i < 10; i++) {
        snprintf(text, sizeof text, "%d", i);
        peer_stream_put(&app.p[0], text, strlen(text));
    }
    CHECK(peer_until(app.loop, &app.messages, 2));
    peer_quiet(app.loop);
    EQUAL(app.messages, 2);
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    CHECK(peer_until(app.loop, &app.messages, 10));
    CHECK(same(app.text, "b0|b1|b2|b3|b4|b5|b6|b7|b8|b9|"));
    app_end();
}

/* A peer that is not read is not silent. */
static void rt_read_0_forgives_silence(int backend)
{
    uint64_t began = peer_clock();
    app_reset(backend);
    app.opts.ping_ms = 3;
    app.opts.dead_pings = 1;
    app_start();
    app_peers(1);
    EQUAL(rt_read(app.loop, app.s[0], 0), 0);
    while (peer_clock() < began + 20)
        peer_turn(app.loop, 1);
    EQUAL(app.closes, 0);
    EQUAL(rt_read(app.loop, app.s[0], 1), 0);
    CHECK(peer_until(app.loop, &app.closes, 1)); /* now it is */
    EQUAL(app.code, RT_CLOSE_DEAD);
    app_end();
}

/* ---- rates -------------------------------------------------------------- */

static int limits;

static void on_limit(rt_loop *loop, rt_session s, int what)
{
    EQUAL(rt_state(loop, s), RT_OPEN);
    EQUAL(what, RT_LIMIT_RATE);
    limits++;
}

/* Three messages pass at once; five came in one packet. */
static void rate_open(int backend, int over)
{
    app_reset(backend);
    app.opts.on.limit = on_limit;
    app.opts.rate_limit = 3;
    app.opts.rate_ms = 15;
    app.opts.rate_over = over;
    app_start();
    app_peers(1);
    limits = 0;
    put_numbers(&app.p[0], 0, 5);
    CHECK(peer_until(app.loop, &app.messages, 3));
}

static void above_the_rate_a_message_is_dropped(int backend)
{
    rate_open(backend, RT_OVER_DROP);
    peer_quiet(app.loop);
    check_numbers(3);
    EQUAL(limits, 2);
    poll(NULL, 0, 16);
    peer_text(&app.p[0], "3");
    CHECK(peer_until(app.loop, &app.messages, 4));
    check_numbers(4);
    EQUAL(limits, 2);
    app_end();
}

static void above_the_rate_reading_pauses(int backend)
{
    uint64_t began = peer_clock();
    rate_open(backend, RT_OVER_PAUSE);
    EQUAL(app.messages, 3);
    put_numbers(&app.p[0], 5, 8);
    CHECK(peer_until(app.loop, &app.messages, 8));
    check_numbers(8); /* none is lost */
    CHECK(peer_clock() >= began + 29);
    EQUAL(app.closes, 0);
    app_end();
}

static void above_the_rate_a_session_closes(int backend)
{
    rate_open(backend, RT_OVER_CLOSE);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 1008);
    EQUAL(app.cause, RT_BY_LIMIT);
    check_numbers(3);
    EQUAL(peer_closed(&app.p[0]), 1008);
    app_end();
}

/* ---- streams ------------------------------------------------------------ */

static int app_stream(int backend, int max_message)
{
    rt_listener n;
    app_reset(backend);
    app.opts.max_message = max_message;
    app_start();
    n = app_listen("tcp://127.0.0.1:0");
    CHECK(peer_tcp(&app.p[0], app.loop, rt_listener_port(app.loop, n)));
    CHECK(peer_until(app.loop, &app.opens, 1));
    return rt_listener_port(app.loop, n);
}

static void a_stream_has_4_bytes_of_length(int backend)
{
    static const char all[] = "\0\0\0\5hello\0\0\0\0\0\0\0\1x";
    size_t i;
    app_stream(backend, 0);
    peer_put(&app.p[0], all, sizeof all - 1);
    CHECK(peer_until(app.loop, &app.messages, 3));
    for (i = 0; i < sizeof all - 1; i++) {
        peer_put(&app.p[0], all + i, 1);
        peer_turn(app.loop, 0);
    }
    CHECK(peer_until(app.loop, &app.messages, 6));
    CHECK(same(app.text, "bhello|b|bx|bhello|b|bx|"));
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "answer", 6), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, "", 0), 0);
    CHECK(peer_stream_got(&app.p[0], "answer"));
    CHECK(peer_stream_got(&app.p[0], ""));
    EQUAL(rt_close(app.loop, app.s[0], 4000, "no frame says it"), 0);
    EQUAL(peer_ended(&app.p[0]), PEER_EOF);
    EQUAL(app.p[0].len, app.p[0].at);
    EQUAL(app.code, 4000);
    app_end();
}

/* whole: its bytes follow; else the length alone is enough. */
static void large_stream_message(int backend, int whole)
{
    app_stream(backend, 1000);
    peer_stream_put(&app.p[0], big, 1000);
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(app.closes, 0);
    if (whole)
        peer_stream_put(&app.p[0], big, 1001);
    else
        peer_put(&app.p[0], "\x7f\xff\xff\xff", 4);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 1009);
    EQUAL(app.cause, RT_BY_LIMIT);
    EQUAL(app.messages, 1);
    CHECK(peer_ended(&app.p[0]));
    app_end();
}

static void a_large_message_ends_a_stream(int backend)
{
    large_stream_message(backend, 0);
    large_stream_message(backend, 1);
}

static void a_stream_is_dialled(int backend)
{
    int port = app_stream(backend, 0);
    rt_session s = app_dial(local_url("tcp", port, ""));
    EQUAL(rt_state(app.loop, s), RT_OPENING);
    CHECK(peer_until(app.loop, &app.opens, 3));
    EQUAL(rt_state(app.loop, s), RT_OPEN);
    EQUAL(rt_send(app.loop, s, RT_TEXT, "hello", 5), 0);
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(same(app.text, "bhello|"));
    CHECK(rt_request_of(app.loop, s) == NULL);
    app_end();
}

/* A half message at the end of the line is an end without a farewell. */
static void a_stream_that_breaks_off_ends_with_1006(int backend)
{
    app_stream(backend, 0);
    peer_put(&app.p[0], "\0\0\0\5hel", 7);
    peer_quiet(app.loop);
    peer_end(&app.p[0]);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 1006);
    EQUAL(app.messages, 0);
    app_end();
}

/* ---- closing ------------------------------------------------------------ */

/* RFC 6455, 7.4: what an endpoint may send. */
static int code_may_be_sent(int code)
{
    return (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) ||
           (code >= 3000 && code <= 4999);
}

static void rt_close_takes_what_may_be_sent(int backend)
{
    int code;
    app_open(backend, 1);
    for (code = -1; code < 70000; code++) {
        if (code == 0 || code_may_be_sent(code))
            continue;
        if (rt_close(app.loop, app.s[0], code, NULL) != RT_EINVAL ||
            rt_drop(app.loop, app.s[0], code, NULL) != RT_EINVAL ||
            rt_kick(app.loop, "nobody", code, NULL) != RT_EINVAL)
            EQUAL(code, -1000);
    }
    EQUAL(rt_state(app.loop, app.s[0]), RT_OPEN);
    app_end();
}

static void rt_close_sends_its_code_and_reason(int backend)
{
    static const int codes[] = {1000, 1001, 1003, 1007, 1014, 3000, 4999};
    peer_frame f;
    size_t i;
    for (i = 0; i < COUNT(codes); i++) {
        app_open(backend, 1);
        EQUAL(rt_close(app.loop, app.s[0], codes[i], "because"), 0);
        CHECK(peer_next(&app.p[0], &f));
        EQUAL(f.op, 8);
        EQUAL(f.len, 9);
        EQUAL(peer_number(f.data, 2), codes[i]);
        CHECK(memcmp(f.data + 2, "because", 7) == 0);
        EQUAL(app.code, codes[i]);
        CHECK(same(app.reason, "because"));
        app_end();
    }
}

static void a_reason_is_short_text(int backend)
{
    char reason[125];
    app_open(backend, 1);
    memset(reason, 'r', sizeof reason);
    reason[124] = 0;
    EQUAL(rt_close(app.loop, app.s[0], 0, reason), RT_EINVAL);
    EQUAL(rt_close(app.loop, app.s[0], 0, "\xff"), RT_EINVAL);
    reason[123] = 0;
    EQUAL(rt_close(app.loop, app.s[0], 0, reason), 0);
    EQUAL(peer_closed(&app.p[0]), 1000);
    CHECK(same(app.reason, reason));
    app_end();
}

static void the_peers_code_and_reason_are_told(int backend)
{
    app_open(backend, 1);
    peer_frame_put(&app.p[0], 0x88,
                   "\x0f\xa1"
                   "good night",
                   12);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(app.code, 4001);
    EQUAL(app.cause, RT_BY_PEER);
    CHECK(same(app.reason, "good night"));
    EQUAL(peer_closed(&app.p[0]), 4001); /* the answer */
    EQUAL(peer_ended(&app.p[0]), PEER_EOF);
    app_end();
}

/* ---- user ids ----------------------------------------------------------- */

static void app_policy(int backend, int policy, int max, int peers)
{
    app_reset(backend);
    app.loop_opts.bind_policy = policy;
    app.loop_opts.bind_max = max;
    app_start();
    app_peers(peers);
}

static void a_user_id_has_1_to_255_bytes(int backend)
{
    char uid[257];
    app_open(backend, 2);
    memset(uid, 'u', sizeof uid);
    uid[256] = 0;
    EQUAL(rt_bind(app.loop, app.s[0], NULL), RT_EINVAL);
    EQUAL(rt_bind(app.loop, app.s[0], ""), RT_EINVAL);
    EQUAL(rt_bind(app.loop, app.s[0], uid), RT_EINVAL);
    CHECK(rt_uid(app.loop, app.s[0]) == NULL);
    uid[255] = 0;
    EQUAL(rt_bind(app.loop, app.s[0], uid), 0);
    CHECK(same(rt_uid(app.loop, app.s[0]), uid));
    CHECK(rt_same(rt_find(app.loop, uid), app.s[0]));
    EQUAL(rt_bind(app.loop, app.s[0], "other"), RT_EBOUND);
    EQUAL(rt_bind(app.loop, app.s[0], uid), RT_EBOUND);
    uid[254] = 0;
    EQUAL(rt_find(app.loop, uid).id, 0);
    EQUAL(rt_find(app.loop, "other").id, 0);
    EQUAL(rt_find(app.loop, "").id, 0);
    EQUAL(rt_bind(app.loop, app.s[1], "other"), 0);
    app_end();
}

/* The one that is closing must not take the newer one's place. */
static void the_newest_login_replaces_the_older(int backend)
{
    app_policy(backend, RT_BIND_NEWEST, 0, 2);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[1], "user"), 0);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[1]));
    EQUAL(rt_state(app.loop, app.s[0]), RT_CLOSING);
    EQUAL(app.closes, 0);
    peer_turn(app.loop, 1000);
    EQUAL(app.closes, 1);
    CHECK(rt_same(app.closed, app.s[0]));
    EQUAL(app.code, RT_CLOSE_REPLACED);
    EQUAL(app.cause, RT_BY_REPLACE);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[1]));
    EQUAL(peer_closed(&app.p[0]), RT_CLOSE_REPLACED);
    EQUAL(rt_push(app.loop, "user", RT_TEXT, "you", 3), 1);
    CHECK(peer_got(&app.p[1], RT_TEXT, "you"));
    app_end();
}

static void a_second_login_is_refused(int backend)
{
    app_policy(backend, RT_BIND_REFUSE, 0, 2);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[1], "user"), RT_EREFUSED);
    CHECK(rt_uid(app.loop, app.s[1]) == NULL);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[0]));
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    EQUAL(rt_find(app.loop, "user").id, 0); /* at once */
    EQUAL(rt_bind(app.loop, app.s[1], "user"), 0);
    peer_turn(app.loop, 0);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[1]));
    app_end();
}

static void several_logins_are_allowed_up_to_a_number(int backend)
{
    app_policy(backend, RT_BIND_MANY, 2, 3);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[1], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[2], "user"), RT_EREFUSED);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[1]));
    EQUAL(rt_push(app.loop, "user", RT_TEXT, "both", 4), 2);
    CHECK(peer_got(&app.p[0], RT_TEXT, "both"));
    CHECK(peer_got(&app.p[1], RT_TEXT, "both"));
    EQUAL(rt_close(app.loop, app.s[1], 0, NULL), 0);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[0]));
    EQUAL(rt_bind(app.loop, app.s[2], "user"), 0);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[2]));
    CHECK(peer_silent(&app.p[2]));
    app_end();
}

static int accept_as_user(rt_loop *loop, rt_session s, const rt_request *r)
{
    rt_accept_opts o = {.uid = "user"};
    (void)r;
    result(rt_accept(loop, s, &o));
    return 409;
}

static void rt_accept_asks_the_bind_policy(int backend)
{
    static const int wanted[] = {RT_EREFUSED};
    app_policy(backend, RT_BIND_REFUSE, 0, 1);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    app.request = accept_as_user;
    result_count = 0;
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    peer_ask(&app.p[1], "/", "");
    EQUAL(peer_status(&app.p[1]), 409);
    check_results(wanted, COUNT(wanted));
    EQUAL(app.opens, 1);
    app_end();
}

static void rt_accept_replaces_an_older_login(int backend)
{
    app_policy(backend, RT_BIND_NEWEST, 0, 1);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    app.request = accept_as_user;
    CHECK(peer_ws(&app.p[1], app.loop, app.port, "/"));
    EQUAL(app.closes, 1);
    EQUAL(app.code, RT_CLOSE_REPLACED);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[1]));
    app_end();
}

static void rt_push_reaches_whom_it_can(int backend)
{
    app_open(backend, 1);
    EQUAL(rt_push(app.loop, "user", RT_TEXT, "x", 1), 0);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_push(app.loop, "user", 0, "x", 1), RT_EINVAL);
    EQUAL(rt_push(app.loop, "user", RT_TEXT, "\xff", 1), RT_EUTF8);
    EQUAL(rt_push(app.loop, "", RT_TEXT, "x", 1), RT_EINVAL);
    EQUAL(rt_push(app.loop, "user", RT_TEXT | rt_latest(1), "x", 1), 1);
    EQUAL(rt_push(app.loop, "User", RT_TEXT, "y", 1), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    CHECK(peer_silent(&app.p[0]));
    app_end();
}

/* One of them is full: it ends, the others take the message. */
static void rt_push_ends_who_is_full(int backend)
{
    app_policy(backend, RT_BIND_MANY, 2, 2);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[1], "user"), 0);
    memset(big, 'b', sizeof big);
    while (rt_unsent(app.loop, app.s[1]) < 1000000)
        CHECK(rt_send(app.loop, app.s[1], RT_BINARY, big, 50000) >= 0);
    EQUAL(rt_push(app.loop, "user", RT_BINARY, big, BIG), 1);
    CHECK(rt_same(rt_find(app.loop, "user"), app.s[0]));
    peer_turn(app.loop, 0);
    EQUAL(app.closes, 1);
    EQUAL(app.code, RT_CLOSE_SLOW);
    CHECK(rt_same(app.closed, app.s[1]));
    check_big();
    app_end();
}

static void rt_kick_ends_every_session_of_a_user(int backend)
{
    app_policy(backend, RT_BIND_MANY, 3, 3);
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[1], "user"), 0);
    EQUAL(rt_bind(app.loop, app.s[2], "other"), 0);
    EQUAL(rt_kick(app.loop, "", 0, NULL), RT_EINVAL);
    EQUAL(rt_kick(app.loop, NULL, 0, NULL), RT_EINVAL);
    EQUAL(rt_kick(app.loop, "user", 1006, NULL), RT_EINVAL);
    EQUAL(rt_kick(app.loop, "user", 0, "\xff"), RT_EINVAL);
    EQUAL(rt_kick(app.loop, "nobody", 0, NULL), 0);
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "first", 5), 0);
    EQUAL(rt_kick(app.loop, "user", 0, "out"), 2);
    EQUAL(rt_kick(app.loop, "other", 4000, NULL), 1);
    CHECK(peer_got(&app.p[0], RT_TEXT, "first")); /* what was queued */
    EQUAL(peer_closed(&app.p[0]), RT_CLOSE_KICKED);
    EQUAL(peer_closed(&app.p[1]), RT_CLOSE_KICKED);
    EQUAL(peer_closed(&app.p[2]), 4000);
    EQUAL(app.closes, 3);
    EQUAL(app.cause, RT_BY_APP);
    app_end();
}

/* ---- what a session tells ----------------------------------------------- */

static void rt_next_session_goes_over_all(int backend)
{
    rt_session s = {0};
    int i, n = 0, seen[3] = {0};
    app_open(backend, 3);
    CHECK(app_dial(local_url("ws", 1, "")).id != 0); /* not open: not seen */
    while ((s = rt_next_session(app.loop, s)).id != 0 && n++ < 10)
        for (i = 0; i < 3; i++)
            seen[i] += rt_same(s, app.s[i]);
    EQUAL(n, 3);
    for (i = 0; i < 3; i++)
        EQUAL(seen[i], 1);
    peer_quiet(app.loop);
    EQUAL(app.closes, 1);
    app.opens++; /* the refused one: an on_close of its own */
    app_end();
}

/* Also when that one is gone, and turns were made between. */
static void rt_next_session_goes_on_behind_a_closed_one(int backend)
{
    rt_session s = {0};
    int n = 0;
    app_open(backend, 3);
    while ((s = rt_next_session(app.loop, s)).id != 0 && n < 10) {
        EQUAL(rt_close(app.loop, s, 0, NULL), 0);
        peer_turn(app.loop, 0);
        EQUAL(app.closes, ++n);
    }
    EQUAL(n, 3);
    app_end();
}

static void rt_heard_tells_when_a_byte_came(int backend)
{
    uint64_t before;
    app_open(backend, 1);
    before = rt_heard(app.loop, app.s[0]);
    CHECK(before > 0 && before <= rt_now(app.loop));
    poll(NULL, 0, 3);
    peer_turn(app.loop, 0);
    EQUAL(rt_heard(app.loop, app.s[0]), before);
    peer_text(&app.p[0], "x");
    CHECK(peer_until(app.loop, &app.messages, 1));
    CHECK(rt_heard(app.loop, app.s[0]) >= before + 2);
    CHECK(rt_heard(app.loop, app.s[0]) <= rt_now(app.loop));
    app_end();
}

static void rt_rtt_is_known_after_a_ping(int backend)
{
    uint32_t rtt = 0, jitter = 0;
    peer_frame f;
    app_reset(backend);
    app.opts.ping_ms = 20;
    app.opts.dead_pings = 100;
    app_start();
    app_peers(1);
    EQUAL(rt_rtt(app.loop, app.s[0], &rtt, &jitter), RT_ESTATE);
    CHECK(peer_frame_raw(&app.p[0], &f));
    EQUAL(f.op, 9);
    peer_frame_put(&app.p[0], 0x8a, "not that", 8); /* not asked for */
    peer_quiet(app.loop);
    EQUAL(rt_rtt(app.loop, app.s[0], &rtt, &jitter), RT_ESTATE);
    poll(NULL, 0, 3);
    peer_frame_put(&app.p[0], 0x8a, f.data, f.len);
    peer_quiet(app.loop);
    EQUAL(rt_rtt(app.loop, app.s[0], &rtt, &jitter), 0);
    CHECK(rtt >= 2500 && rtt < 1000000);
    CHECK(jitter <= rtt);
    EQUAL(rt_rtt(app.loop, app.s[0], NULL, NULL), 0);
    app_end();
}

static void rt_state_follows_a_session(int backend)
{
    rt_session s;
    app_open(backend, 0);
    s = app_dial(local_url("ws", app.port, ""));
    EQUAL(rt_state(app.loop, s), RT_OPENING);
    CHECK(peer_until(app.loop, &app.opens, 2));
    EQUAL(rt_state(app.loop, s), RT_OPEN);
    EQUAL(rt_close(app.loop, s, 0, NULL), 0);
    EQUAL(rt_state(app.loop, s), RT_CLOSING);
    peer_turn(app.loop, 0);
    EQUAL(rt_state(app.loop, s), RT_EGONE);
    CHECK(peer_until(app.loop, &app.closes, 2));
    app_end();
}

/* ---- groups ------------------------------------------------------------- */

static void a_group_is_found_by_its_name(int backend)
{
    rt_group_opts first = {.user = &first}, second = {.user = &second};
    rt_group g, h;
    app_open(backend, 0);
    EQUAL(rt_group_find(app.loop, "room").id, 0);
    g = rt_group_open(app.loop, "room", &first);
    CHECK(g.id != 0);
    EQUAL(rt_group_open(app.loop, "room", &second).id, g.id);
    EQUAL(rt_group_find(app.loop, "room").id, g.id);
    CHECK(rt_group_user(app.loop, g) == &first); /* the first options win */
    CHECK(same(rt_group_name(app.loop, g), "room"));
    h = rt_group_open(app.loop, "Room", NULL);
    CHECK(h.id != g.id);
    CHECK(rt_group_user(app.loop, h) == NULL);
    EQUAL(rt_group_close(app.loop, g), 0);
    EQUAL(rt_group_find(app.loop, "room").id, 0);
    CHECK(same(rt_group_name(app.loop, h), "Room"));
    g = rt_group_open(app.loop, "room", &second);
    CHECK(rt_group_user(app.loop, g) == &second);
    app_end();
}

static void a_groups_name_has_1_to_255_bytes(int backend)
{
    char name[257];
    rt_group g;
    app_open(backend, 0);
    memset(name, 'n', sizeof name);
    name[256] = 0;
    EQUAL(rt_group_open(app.loop, NULL, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_group_open(app.loop, "", NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_group_open(app.loop, name, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_group_find(app.loop, name).id, 0);
    name[255] = 0;
    g = rt_group_open(app.loop, name, NULL);
    CHECK(g.id != 0);
    EQUAL(rt_group_find(app.loop, name).id, g.id);
    CHECK(same(rt_group_name(app.loop, g), name));
    app_end();
}

static void groups_have_bounds(int backend)
{
    rt_group_opts two = {.max_members = 2};
    rt_group g, h, i;
    app_reset(backend);
    app.loop_opts.max_groups = 3;
    app.loop_opts.groups_per_session = 2;
    app_start();
    app_peers(3);
    g = rt_group_open(app.loop, "g", &two);
    h = rt_group_open(app.loop, "h", NULL);
    i = rt_group_open(app.loop, "i", NULL);
    CHECK(g.id && h.id && i.id);
    EQUAL(rt_group_open(app.loop, "j", NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EFULL);
    EQUAL(rt_group_open(app.loop, "g", NULL).id, g.id);
    EQUAL(rt_group_join(app.loop, g, app.s[0]), 0);
    EQUAL(rt_group_join(app.loop, g, app.s[0]), RT_EEXIST);
    EQUAL(rt_group_join(app.loop, g, app.s[1]), 0);
    EQUAL(rt_group_join(app.loop, g, app.s[2]), RT_EFULL);
    EQUAL(rt_group_join(app.loop, h, app.s[0]), 0);
    EQUAL(rt_group_join(app.loop, i, app.s[0]), RT_EFULL);
    EQUAL(rt_group_leave(app.loop, h, app.s[0]), 0);
    EQUAL(rt_group_leave(app.loop, h, app.s[0]), RT_ESTATE);
    EQUAL(rt_group_join(app.loop, i, app.s[0]), 0);
    EQUAL(rt_group_leave(app.loop, g, app.s[1]), 0);
    EQUAL(rt_group_join(app.loop, g, app.s[2]), 0);
    EQUAL(rt_group_close(app.loop, h), 0);
    CHECK(rt_group_open(app.loop, "j", NULL).id != 0);
    app_end();
}

static void a_group_sends_to_its_members(int backend)
{
    rt_session nobody = {0};
    rt_group g;
    int i;
    app_open(backend, 3);
    g = rt_group_open(app.loop, "g", NULL);
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "empty", 5), 0);
    for (i = 0; i < 2; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "all", 3), 2);
    EQUAL(rt_group_send_but(app.loop, g, app.s[0], RT_TEXT, "1", 1), 1);
    EQUAL(rt_group_send_but(app.loop, g, app.s[2], RT_TEXT, "both", 4), 2);
    EQUAL(rt_group_send_but(app.loop, g, nobody, RT_BINARY, "b", 1), 2);
    EQUAL(rt_group_send(app.loop, g, RT_TEXT, "\xff", 1), RT_EUTF8);
    EQUAL(rt_group_send(app.loop, g, 0, "x", 1), RT_EINVAL);
    EQUAL(rt_group_send_but(app.loop, g, nobody, RT_TEXT, NULL, 1), RT_EINVAL);
    CHECK(peer_got(&app.p[0], RT_TEXT, "all"));
    CHECK(peer_got(&app.p[0], RT_TEXT, "both"));
    CHECK(peer_got(&app.p[0], RT_BINARY, "b"));
    CHECK(peer_got(&app.p[1], RT_TEXT, "all"));
    CHECK(peer_got(&app.p[1], RT_TEXT, "1"));
    CHECK(peer_got(&app.p[1], RT_TEXT, "both"));
    CHECK(peer_got(&app.p[1], RT_BINARY, "b"));
    CHECK(peer_silent(&app.p[2]));
    app_end();
}

static void a_full_member_ends_and_the_others_take_it(int backend)
{
    rt_group g;
    int i;
    app_open(backend, 3);
    g = rt_group_open(app.loop, "g", NULL);
    for (i = 0; i < 3; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    memset(big, 'b', sizeof big);
    while (rt_unsent(app.loop, app.s[1]) < 1000000)
        CHECK(rt_send(app.loop, app.s[1], RT_BINARY, big, 50000) >= 0);
    EQUAL(rt_group_send(app.loop, g, RT_BINARY, big, BIG), 2);
    EQUAL(rt_group_count(app.loop, g), 2);
    peer_turn(app.loop, 0);
    EQUAL(app.closes, 1);
    CHECK(rt_same(app.closed, app.s[1]));
    EQUAL(app.code, RT_CLOSE_SLOW);
    check_big();
    app_end();
}

enum { CROWD = 24, ROOMS = 4 };

static unsigned chance(void)
{
    static unsigned seed = 12345;
    seed = seed * 1103515245 + 12345;
    return seed >> 16;
}

static int member_of(rt_group g, rt_session s)
{
    rt_session all[CROWD];
    size_t i, n = rt_group_members(app.loop, g, all, CROWD);
    int found = 0;
    for (i = 0; i < n && i < CROWD; i++)
        found += rt_same(all[i], s);
    return found;
}

static void check_rooms(const rt_group rooms[ROOMS], int in[ROOMS][CROWD])
{
    int r, i;
    for (r = 0; r < ROOMS; r++) {
        size_t n = 0;
        for (i = 0; i < CROWD; i++) {
            n += (size_t)in[r][i];
            if (member_of(rooms[r], app.s[i]) != in[r][i])
                EQUAL(member_of(rooms[r], app.s[i]), in[r][i]);
        }
        EQUAL(rt_group_count(app.loop, rooms[r]), n);
    }
}

/* Random joins, leaves and closes against a table of who is in. */
static void members_are_who_joined_and_did_not_leave(int backend)
{
    static const char *const names[ROOMS] = {"a", "b", "c", "d"};
    static int in[ROOMS][CROWD];
    rt_group rooms[ROOMS];
    int i, r, step;
    memset(in, 0, sizeof in);
    app_stream(backend, 0);
    for (i = 0; i < CROWD / 2; i++)
        app_dial(local_url("ws", app.port, ""));
    CHECK(peer_until(app.loop, &app.opens, 1 + CROWD / 2 * 2));
    for (r = 0; r < ROOMS; r++)
        rooms[r] = rt_group_open(app.loop, names[r], NULL);
    for (step = 0; step < 600; step++) {
        r = (int)(chance() % ROOMS);
        i = (int)(chance() % CROWD);
        if (in[r][i])
            EQUAL(rt_group_leave(app.loop, rooms[r], app.s[i]), 0);
        else
            EQUAL(rt_group_join(app.loop, rooms[r], app.s[i]), 0);
        in[r][i] = !in[r][i];
        if (step % 50 == 0)
            check_rooms(rooms, in);
    }
    for (i = 0; i < CROWD; i += 5) {
        EQUAL(rt_close(app.loop, app.s[i], 0, NULL), 0);
        for (r = 0; r < ROOMS; r++)
            in[r][i] = 0;
    }
    check_rooms(rooms, in);
    app_end();
}

static void rt_group_members_copies_up_to_cap(int backend)
{
    rt_session out[3];
    rt_group g;
    int i;
    app_open(backend, 3);
    g = rt_group_open(app.loop, "g", NULL);
    for (i = 0; i < 3; i++)
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
    memset(out, 0, sizeof out);
    EQUAL(rt_group_members(app.loop, g, out, 2), 3);
    CHECK(out[0].id && out[1].id && !rt_same(out[0], out[1]));
    EQUAL(out[2].id, 0);
    EQUAL(rt_group_members(app.loop, g, NULL, 0), 3);
    app_end();
}

static char events[256];

static void on_event(rt_loop *loop, rt_group g, rt_session s, int what)
{
    size_t n = strlen(events);
    int i = 0;
    CHECK(same(rt_group_name(loop, g), "g"));
    while (i < app.opens && !rt_same(app.s[i], s))
        i++;
    snprintf(events + n, sizeof events - n, "%c%d ",
             what == RT_JOINED ? '+'
             : what == RT_LEFT ? '-'
                               : '?',
             i);
}

static void a_group_tells_who_joined_and_left(int backend)
{
    rt_group_opts o = {.event = on_event};
    rt_group g;
    app_open(backend, 3);
    *events = 0;
    g = rt_group_open(app.loop, "g", &o);
    EQUAL(rt_group_join(app.loop, g, app.s[0]), 0);
    EQUAL(rt_group_join(app.loop, g, app.s[1]), 0);
    EQUAL(rt_group_join(app.loop, g, app.s[1]), RT_EEXIST);
    EQUAL(rt_group_leave(app.loop, g, app.s[0]), 0);
    EQUAL(rt_group_leave(app.loop, g, app.s[0]), RT_ESTATE);
    CHECK(*events == 0); /* in the events phase, not before */
    EQUAL(rt_loop_timeout(app.loop), 0);
    peer_turn(app.loop, 1000);
    CHECK(same(events, "+0 +1 -0 "));
    peer_end(&app.p[1]);
    CHECK(peer_until(app.loop, &app.closes, 1));
    CHECK(same(events, "+0 +1 -0 -1 "));
    EQUAL(rt_group_join(app.loop, g, app.s[2]), 0);
    peer_turn(app.loop, 0);
    EQUAL(rt_group_close(app.loop, g), 0);
    peer_quiet(app.loop);
    CHECK(same(events, "+0 +1 -0 -1 +2 ")); /* without an event */
    EQUAL(rt_state(app.loop, app.s[2]), RT_OPEN);
    app_end();
}

/* ---- timers ------------------------------------------------------------- */

static const rt_session nobody; /* {0}: a timer without an owner */
static char order[1024];

static void note_order(rt_loop *loop, void *arg)
{
    size_t n = strlen(order);
    (void)loop;
    snprintf(order + n, sizeof order - n, "%s ", (const char *)arg);
}

static rt_timer at(uint64_t due, const char *name)
{
    return rt_timer_start(app.loop, nobody, due, note_order, (void *)name);
}

/* What is due until then has run. */
static void turn_for(uint64_t ms)
{
    uint64_t end = peer_clock() + ms;
    while (peer_clock() < end)
        peer_turn(app.loop, 1);
    peer_turn(app.loop, 0);
}

/* Calls that in a turn, where no time passes between one timer and the
   next. */
static void in_a_turn(void (*fn)(rt_loop *, void *))
{
    EQUAL(rt_post(app.loop, fn, NULL), 0);
    peer_turn(app.loop, 100);
}

static void start_seven(rt_loop *loop, void *arg)
{
    uint64_t now = rt_now(loop);
    (void)arg;
    at(now + 6, "c1");
    at(now + 3, "b1");
    at(now + 1, "a");
    at(now + 6, "c2");
    at(now + 3, "b2");
    at(now + 6, "c3");
    EQUAL(rt_timer_stop(loop, at(now + 3, "never")), 0);
    at(now + 100000, "late");
}

static void timers_run_in_the_order_of_their_times(int backend)
{
    app_open(backend, 0);
    *order = 0;
    in_a_turn(start_seven);
    turn_for(10);
    CHECK(same(order, "a b1 b2 c1 c2 c3 "));
    app_end();
}

static uint64_t ran_at;

static void note_time(rt_loop *loop, void *arg)
{
    ran_at = rt_now(loop);
    ++*(int *)arg;
}

static void a_timer_does_not_run_early(int backend)
{
    uint64_t due;
    int calls = 0;
    app_open(backend, 0);
    due = rt_now(app.loop) + 8;
    CHECK(rt_timer_start(app.loop, nobody, due, note_time, &calls).id != 0);
    CHECK(peer_until(app.loop, &calls, 1));
    CHECK(ran_at >= due && ran_at < due + 200);
    turn_for(5);
    EQUAL(calls, 1); /* once */
    app_end();
}

static void a_timer_of_the_past_runs_in_the_next_turn(int backend)
{
    uint64_t now;
    app_open(backend, 0);
    *order = 0;
    now = rt_now(app.loop);
    at(0, "zero");
    at(now - 1, "past");
    at(now, "now");
    CHECK(*order == 0);
    EQUAL(rt_loop_timeout(app.loop), 0);
    peer_turn(app.loop, 10000);
    CHECK(strstr(order, "zero ") && strstr(order, "past ") &&
          strstr(order, "now "));
    app_end();
}

static rt_timer victim;

static void stop_victim(rt_loop *loop, void *arg)
{
    note_order(loop, arg);
    EQUAL(rt_timer_stop(loop, victim), 0);
    EQUAL(rt_timer_stop(loop, victim), RT_EGONE);
}

static void a_timer_can_stop_another_that_is_due(int backend)
{
    uint64_t now;
    app_open(backend, 0);
    *order = 0;
    now = rt_now(app.loop);
    rt_timer_start(app.loop, nobody, now, stop_victim, "stopper");
    victim = at(now, "victim");
    at(now, "other");
    peer_turn(app.loop, 0);
    CHECK(same(order, "stopper other "));
    EQUAL(rt_timer_stop(app.loop, victim), RT_EGONE);
    app_end();
}

static void rt_timer_stop_of_one_that_ran_is_stale(int backend)
{
    rt_timer t;
    app_open(backend, 0);
    *order = 0;
    t = at(0, "ran");
    peer_turn(app.loop, 0);
    CHECK(same(order, "ran "));
    EQUAL(rt_timer_stop(app.loop, t), RT_EGONE);
    EQUAL(rt_timer_start(app.loop, nobody, 0, NULL, NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    app_end();
}

static int restarts;

static void restart_at_once(rt_loop *loop, void *arg)
{
    restarts++;
    CHECK(rt_timer_start(loop, nobody, 0, restart_at_once, arg).id != 0);
}

/* It runs once a turn; sockets and other timers have their part of each. */
static void a_timer_that_restarts_itself_starves_nobody(int backend)
{
    int turns, calls = 0;
    app_open(backend, 1);
    restarts = 0;
    rt_timer_start(app.loop, nobody, rt_now(app.loop) + 2, count_call, &calls);
    rt_timer_start(app.loop, nobody, 0, restart_at_once, NULL);
    for (turns = 1; turns <= 10; turns++) {
        peer_turn(app.loop, 1000);
        EQUAL(restarts, turns);
    }
    peer_text(&app.p[0], "hello");
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "x", 1), 0);
    CHECK(peer_got(&app.p[0], RT_TEXT, "x"));
    CHECK(peer_until(app.loop, &calls, 1));
    app_end();
}

enum { MANY = 300 };

static struct {
    rt_timer t;
    uint64_t due;
    int ran, stopped;
} many[MANY];

static uint64_t last_due;

static void run_one(rt_loop *loop, void *arg)
{
    size_t i = (size_t)((char *)arg - (char *)many) / sizeof many[0];
    CHECK(many[i].due >= last_due);
    CHECK(many[i].due <= rt_now(loop));
    last_due = many[i].due;
    many[i].ran++;
}

static void start_many(rt_loop *loop, void *arg)
{
    uint64_t now = rt_now(loop);
    int i, j;
    (void)arg;
    for (i = 0; i < MANY; i++) {
        many[i].due = now + 1 + chance() % 12;
        many[i].t =
            rt_timer_start(loop, nobody, many[i].due, run_one, &many[i]);
        j = (int)(chance() % (unsigned)(i + 1));
        if (chance() % 3 == 0 && !many[j].stopped) {
            EQUAL(rt_timer_stop(loop, many[j].t), 0);
            many[j].stopped = 1;
        }
    }
}

static void many_timers_run_each_once_unless_stopped(int backend)
{
    int i;
    app_open(backend, 0);
    memset(many, 0, sizeof many);
    last_due = 0;
    in_a_turn(start_many);
    turn_for(15);
    for (i = 0; i < MANY; i++)
        EQUAL(many[i].ran, !many[i].stopped);
    app_end();
}

static void a_timer_with_an_owner_ends_with_it(int backend)
{
    app_open(backend, 2);
    *order = 0;
    rt_timer_start(app.loop, app.s[0], rt_now(app.loop) + 3, note_order, "0");
    rt_timer_start(app.loop, app.s[1], rt_now(app.loop) + 3, note_order, "1");
    EQUAL(rt_close(app.loop, app.s[0], 0, NULL), 0);
    EQUAL(rt_timer_start(app.loop, app.s[0], 0, note_order, "0").id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EGONE);
    turn_for(6);
    CHECK(same(order, "1 "));
    app_end();
}

/* ---- watches ------------------------------------------------------------ */

static char bits[64]; /* what the watch was told: 'r', 'w' */
static int watch_action;
static rt_watch watched;

enum { WATCH_NOTHING, WATCH_STOP, WATCH_MUTE };

static void on_watch(rt_loop *loop, rt_watch w, int what, void *arg)
{
    size_t n = strlen(bits);
    EQUAL(w.id, watched.id);
    CHECK(arg == bits);
    CHECK(what == RT_READ || what == RT_WRITE); /* one bit a call */
    if (n + 1 < sizeof bits)
        bits[n] = what == RT_READ ? 'r' : 'w';
    if (watch_action == WATCH_STOP)
        EQUAL(rt_watch_stop(loop, w), 0);
    if (watch_action == WATCH_MUTE)
        EQUAL(rt_watch_set(loop, w, 0), 0);
}

static void watch_open(int backend, int fd[2], int what)
{
    app_open(backend, 0);
    memset(bits, 0, sizeof bits);
    watch_action = WATCH_NOTHING;
    EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
    watched = rt_watch_start(app.loop, fd[0], what, on_watch, bits);
    CHECK(watched.id != 0);
}

static void watch_end(int fd[2])
{
    rt_watch_stop(app.loop, watched);
    close(fd[0]);
    close(fd[1]);
    app_end();
}

static void a_watch_tells_one_bit_a_call(int backend)
{
    int fd[2];
    watch_open(backend, fd, RT_READ);
    peer_turn(app.loop, 0);
    CHECK(same(bits, ""));
    EQUAL(write(fd[1], "x", 1), 1);
    peer_turn(app.loop, 100);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "rr")); /* as long as it is so */
    EQUAL(rt_watch_set(app.loop, watched, RT_READ | RT_WRITE), 0);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "rrrw"));
    EQUAL(rt_watch_set(app.loop, watched, RT_WRITE), 0);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "rrrww"));
    EQUAL(rt_watch_set(app.loop, watched, 0), 0);
    peer_turn(app.loop, 0);
    CHECK(same(bits, "rrrww"));
    watch_end(fd);
}

static void a_watch_can_stop_or_change_between_two_bits(int backend)
{
    int fd[2];
    watch_open(backend, fd, RT_READ | RT_WRITE);
    EQUAL(write(fd[1], "x", 1), 1);
    watch_action = WATCH_MUTE;
    peer_quiet(app.loop);
    CHECK(same(bits, "r"));
    EQUAL(rt_watch_set(app.loop, watched, RT_READ | RT_WRITE), 0);
    watch_action = WATCH_STOP;
    peer_quiet(app.loop);
    CHECK(same(bits, "rr"));
    EQUAL(rt_watch_stop(app.loop, watched), RT_EGONE);
    EQUAL(rt_watch_set(app.loop, watched, RT_READ), RT_EGONE);
    watch_end(fd);
}

static void a_hang_up_is_all_that_was_asked_for(int backend)
{
    int fd[2];
    watch_open(backend, fd, RT_READ);
    close(fd[1]);
    fd[1] = dup(fd[0]);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "r"));
    EQUAL(rt_watch_set(app.loop, watched, RT_READ | RT_WRITE), 0);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "rrw"));
    EQUAL(rt_watch_set(app.loop, watched, 0), 0);
    EQUAL(rt_poll(app.loop, 0), 0); /* and does not spin */
    CHECK(same(bits, "rrw"));
    watch_end(fd);
}

static void a_pipe_can_be_watched(int backend)
{
    int fd[2];
    app_open(backend, 0);
    memset(bits, 0, sizeof bits);
    watch_action = WATCH_NOTHING;
    EQUAL(pipe(fd), 0);
    watched = rt_watch_start(app.loop, fd[1], RT_WRITE, on_watch, bits);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "w"));
    EQUAL(rt_watch_stop(app.loop, watched), 0);
    watched = rt_watch_start(app.loop, fd[0], RT_READ, on_watch, bits);
    EQUAL(write(fd[1], "x", 1), 1);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "wr"));
    watch_end(fd);
}

static void a_watch_that_cannot_be_is_refused(int backend)
{
    int fd[2];
    watch_open(backend, fd, RT_READ);
    EQUAL(rt_watch_start(app.loop, fd[0], RT_WRITE, on_watch, bits).id, 0);
    CHECK(rt_error(app.loop, NULL) < 0); /* one for each */
    EQUAL(rt_watch_start(app.loop, -1, RT_READ, on_watch, bits).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_watch_start(app.loop, fd[1], 4, on_watch, bits).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_watch_start(app.loop, fd[1], RT_READ, NULL, bits).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_EINVAL);
    EQUAL(rt_watch_set(app.loop, watched, 4), RT_EINVAL);
    EQUAL(rt_watch_set(app.loop, watched, -1), RT_EINVAL);
    EQUAL(write(fd[1], "x", 1), 1);
    peer_turn(app.loop, 100);
    CHECK(same(bits, "r")); /* the first one still is */
    watch_end(fd);
}

/* ---- hooks -------------------------------------------------------------- */

static char logged[256];

static void on_log(void *user, int level, const char *text)
{
    CHECK(user == &app);
    CHECK(level >= RT_LOG_ERROR && level <= RT_LOG_INFO);
    CHECK(strchr(text, '\n') == NULL);
    snprintf(logged, sizeof logged, "%s", text);
}

static void a_refused_origin_is_logged(int backend)
{
    app_reset(backend);
    app.loop_opts.user = &app;
    app.loop_opts.log = on_log;
    app_start();
    *logged = 0;
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/", "Origin: http://evil.example\r\n");
    EQUAL(peer_status(&app.p[0]), 403);
    CHECK(strstr(logged, "http://evil.example"));
    EQUAL(app.requests, 0);
    app_end();
}

/* All at once, then the end: app_end() counts the memory. */
static void the_heap_is_empty_when_the_loop_is_gone(int backend)
{
    char url[128], path[108];
    rt_group g;
    int i;
    app_slow(backend, 0, 0); /* a queue that is not empty */
    local_url_of(url, path, "tcp+unix:");
    app_listen(url);
    CHECK(app_dial(url).id != 0);
    CHECK(peer_until(app.loop, &app.opens, 3));
    g = rt_group_open(app.loop, "g", NULL);
    for (i = 0; i < 3; i++) {
        EQUAL(rt_group_join(app.loop, g, app.s[i]), 0);
        rt_timer_start(app.loop, app.s[i], UINT64_MAX, note_order, NULL);
    }
    at(UINT64_MAX, "late");
    EQUAL(rt_bind(app.loop, app.s[0], "user"), 0);
    send_latest(1, "latest");
    for (i = 0; i < 40; i++)
        CHECK(rt_send(app.loop, app.s[0], RT_BINARY, big, 5000) >= 0);
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    peer_say(&app.p[1], "GET / HTT"); /* half a handshake */
    CHECK(peer_ws(&app.p[2], app.loop, app.port, "/"));
    peer_frame_put(&app.p[2], 0x01, "half a message", 14);
    peer_quiet(app.loop);
    CHECK(peer_heap > 0);
    app_end();
}

static void loop_cases(void)
{
    RUN(errors_and_version_have_texts);
    RUN_EACH(a_loop_that_cannot_be_is_null);
    RUN_EACH(hooks_get_the_loops_user);
    RUN(a_loop_without_options_works);
    RUN_EACH(rt_poll_waits_at_most_so_long);
    RUN_EACH(rt_stop_ends_rt_run_after_its_turn);
    RUN_EACH(rt_stop_works_from_another_thread);
    RUN_EACH(rt_stop_works_from_a_signal_handler);
    RUN_EACH(posts_of_other_threads_run_once_and_in_order);
    RUN_EACH(posts_have_a_bound);
    RUN_EACH(rt_now_stands_still_in_a_turn);
    RUN_EACH(rt_loop_timeout_tells_how_long_to_wait);
#if defined(__linux__)
    test_begin("a_foreign_loop_can_drive_it");
    a_foreign_loop_can_drive_it(RT_EPOLL);
    test_end();
#endif
    RUN(select_has_no_descriptor_to_wait_for);
    RUN_EACH(metrics_count);
    RUN_EACH(metrics_are_whole_lines);
}

static void address_cases(void)
{
    RUN_EACH(a_bad_address_is_not_listened_on);
    RUN_EACH(a_taken_port_is_named);
    RUN_EACH(port_0_is_any_free_one);
    RUN_EACH(a_port_can_be_used_again_after_rt_unlisten);
    RUN_EACH(a_listener_can_be_stopped_by_whom_it_let_in);
    RUN_EACH(localhost_is_an_address);
    RUN_EACH(ipv6_is_listened_on_and_dialled);
    RUN_EACH(no_host_is_all_addresses);
    RUN_EACH(several_loops_share_a_port_when_asked_to);
    RUN_EACH(a_local_socket_speaks_ws);
    RUN_EACH(a_local_socket_speaks_tcp);
    RUN_EACH(the_socket_of_a_dead_server_is_replaced);
    RUN_EACH(the_socket_of_a_living_server_is_not_replaced);
    RUN_EACH(a_file_that_is_no_socket_is_not_replaced);
    RUN_EACH(a_bad_url_is_not_dialled);
    RUN_EACH(tls_is_refused_where_it_is_not_built_in);
    RUN_EACH(a_dial_asks_for_what_its_url_and_options_say);
    RUN_EACH(a_dial_without_a_path_asks_for_the_root);
    RUN_EACH(a_name_is_resolved_at_once);
    RUN_EACH(a_name_is_resolved_later);
    RUN_EACH(rt_resolved_is_for_those_that_asked);
}

static void request_cases(void)
{
    RUN_EACH(rt_accept_refuses_what_would_break_the_answer);
    RUN_EACH(rt_accept_adds_what_it_is_told);
    RUN_EACH(a_plain_request_is_not_accepted);
    RUN_EACH(on_request_answers_with_a_status);
    RUN_EACH(a_plain_request_to_an_upgrade_alone_gets_426);
    RUN_EACH(rt_reply_refuses_what_is_no_answer);
    RUN_EACH(a_request_tells_all_of_itself);
    RUN(rt_query_decodes);
    RUN_EACH(rt_header_finds_the_first_of_that_name);
    RUN_EACH(a_request_has_a_deadline);
    RUN_EACH(a_bound_of_sessions_is_kept);
    RUN_EACH(a_bound_of_sessions_is_of_accepted_ones);
}

static void sending_cases(void)
{
    RUN_EACH(kinds_of_message_arrive_as_they_are);
    RUN_EACH(what_is_no_message_is_refused);
    RUN_EACH(above_the_soft_mark_rt_send_gives_1);
    RUN_EACH(on_writable_waits_for_a_half_empty_queue);
    RUN_EACH(an_empty_queue_takes_one_message_of_any_size);
    RUN_EACH(above_the_hard_mark_the_session_ends);
    RUN_EACH(lost_counts_what_was_not_handed_over);
    RUN_EACH(nothing_is_lost_of_what_is_sent_in_time);
    RUN_EACH(a_droppable_message_is_skipped_above_the_soft_mark);
    RUN_EACH(on_writable_follows_a_skipped_message);
    RUN_EACH(the_latest_message_of_a_key_replaces_the_others);
    RUN_EACH(a_latest_message_that_was_begun_is_finished);
    RUN_EACH(too_many_keys_are_refused_and_end_nothing);
    RUN_EACH(what_may_be_dropped_ends_nothing_at_the_hard_mark);
    RUN_EACH(an_empty_queue_takes_64_mib);
    RUN_EACH(rt_unsent_counts_what_waits);
    RUN_EACH(rt_send_many_passes_over_what_is_stale);
    RUN_EACH(only_those_that_took_it_are_counted);
    RUN_EACH(every_wire_takes_part_in_a_broadcast);
}

static void reading_and_closing_cases(void)
{
    RUN_EACH(rt_read_0_stops_behind_the_present_message);
    RUN_EACH(rt_read_0_loses_nothing_of_a_stream);
    RUN_EACH(rt_read_0_forgives_silence);
    RUN_EACH(above_the_rate_a_message_is_dropped);
    RUN_EACH(above_the_rate_reading_pauses);
    RUN_EACH(above_the_rate_a_session_closes);
    RUN_EACH(a_stream_has_4_bytes_of_length);
    RUN_EACH(a_large_message_ends_a_stream);
    RUN_EACH(a_stream_is_dialled);
    RUN_EACH(a_stream_that_breaks_off_ends_with_1006);
    RUN_EACH(rt_close_takes_what_may_be_sent);
    RUN_EACH(rt_close_sends_its_code_and_reason);
    RUN_EACH(a_reason_is_short_text);
    RUN_EACH(the_peers_code_and_reason_are_told);
}

static void session_cases(void)
{
    RUN_EACH(a_user_id_has_1_to_255_bytes);
    RUN_EACH(the_newest_login_replaces_the_older);
    RUN_EACH(a_second_login_is_refused);
    RUN_EACH(several_logins_are_allowed_up_to_a_number);
    RUN_EACH(rt_accept_asks_the_bind_policy);
    RUN_EACH(rt_accept_replaces_an_older_login);
    RUN_EACH(rt_push_reaches_whom_it_can);
    RUN_EACH(rt_push_ends_who_is_full);
    RUN_EACH(rt_kick_ends_every_session_of_a_user);
    RUN_EACH(rt_next_session_goes_over_all);
    RUN_EACH(rt_next_session_goes_on_behind_a_closed_one);
    RUN_EACH(rt_heard_tells_when_a_byte_came);
    RUN_EACH(rt_rtt_is_known_after_a_ping);
    RUN_EACH(rt_state_follows_a_session);
}

static void group_cases(void)
{
    RUN_EACH(a_group_is_found_by_its_name);
    RUN_EACH(a_groups_name_has_1_to_255_bytes);
    RUN_EACH(groups_have_bounds);
    RUN_EACH(a_group_sends_to_its_members);
    RUN_EACH(a_full_member_ends_and_the_others_take_it);
    RUN_EACH(members_are_who_joined_and_did_not_leave);
    RUN_EACH(rt_group_members_copies_up_to_cap);
    RUN_EACH(a_group_tells_who_joined_and_left);
}

static void timer_and_watch_cases(void)
{
    RUN_EACH(timers_run_in_the_order_of_their_times);
    RUN_EACH(a_timer_does_not_run_early);
    RUN_EACH(a_timer_of_the_past_runs_in_the_next_turn);
    RUN_EACH(a_timer_can_stop_another_that_is_due);
    RUN_EACH(rt_timer_stop_of_one_that_ran_is_stale);
    RUN_EACH(a_timer_that_restarts_itself_starves_nobody);
    RUN_EACH(many_timers_run_each_once_unless_stopped);
    RUN_EACH(a_timer_with_an_owner_ends_with_it);
    RUN_EACH(a_watch_tells_one_bit_a_call);
    RUN_EACH(a_watch_can_stop_or_change_between_two_bits);
    RUN_EACH(a_hang_up_is_all_that_was_asked_for);
    RUN_EACH(a_pipe_can_be_watched);
    RUN_EACH(a_watch_that_cannot_be_is_refused);
    RUN_EACH(a_refused_origin_is_logged);
    RUN_EACH(the_heap_is_empty_when_the_loop_is_gone);
}

int main(void)
{
    loop_cases();
    address_cases();
    request_cases();
    sending_cases();
    reading_and_closing_cases();
    session_cases();
    group_cases();
    timer_and_watch_cases();
    return test_done();
}
