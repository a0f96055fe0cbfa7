/*
 * What rt_metrics shows: its form, its histograms, the host's own lines and
 * what is counted; and rt_shutdown, which empties a loop without haste.  Real
 * sockets on loopback, each backend.
 *
 * One application serves all cases; a case changes the options, then starts
 * it.  Ending it checks that all memory came back.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "peer.h"

#include <sys/resource.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { PEERS = 200 };

/* The application of the present case. */
static struct {
    rt_loop_opts loop_opts;
    rt_listen_opts opts;
    rt_loop *loop;
    int port;
    int answer; /* of on_request */
    int asks, opens, messages, closes, drains;
    rt_session s[PEERS], asked;
    uint64_t closed_at[PEERS];
    int code, cause;
    char reason[128];
    long fails; /* allocations until the one that fails; < 0: none does */
    int dry;    /* all fail */
    void (*message)(rt_loop *);
    void (*drained)(rt_loop *);
    void (*close)(rt_loop *);
    peer p[PEERS];
} app;

/* ---- the application ---------------------------------------------------- */

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    app.asked = s;
    app.asks++;
    if (!r->upgrade && !strcmp(r->path, "/page"))
        return rt_reply(loop, s, 200, "text/plain", "page", 4);
    return app.answer;
}

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    if (app.opens < PEERS)
        app.s[app.opens] = s;
    app.opens++;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)s;
    (void)kind;
    (void)data;
    (void)len;
    app.messages++;
    if (app.message)
        app.message(loop);
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)s;
    if (app.closes < PEERS)
        app.closed_at[app.closes] = peer_clock();
    app.closes++;
    app.code = why->code;
    app.cause = why->cause;
    snprintf(app.reason, sizeof app.reason, "%s", why->reason);
    if (app.close)
        app.close(loop);
}

static void on_drained(rt_loop *loop)
{
    app.drains++;
    if (app.drained)
        app.drained(loop);
}

/* The counting allocator; the n-th from now on fails. */
static void *failing_realloc(void *user, void *p, size_t old, size_t now)
{
    if (now > 0 && (app.dry || (app.fails >= 0 && app.fails-- == 0)))
        return NULL;
    return peer_realloc(user, p, old, now);
}

static void app_reset(int backend)
{
    int i;
    memset(&app, 0, sizeof app);
    app.fails = -1;
    app.loop_opts.backend = backend;
    app.loop_opts.realloc = failing_realloc;
    app.loop_opts.drained = on_drained;
    app.opts.on.request = on_request;
    app.opts.on.open = on_open;
    app.opts.on.message = on_message;
    app.opts.on.close = on_close;
    for (i = 0; i < PEERS; i++)
        app.p[i].fd = -1;
}

static void app_begin(int peers)
{
    rt_listener l;
    int i;
    app.loop = rt_loop_new(&app.loop_opts);
    l = rt_listen(app.loop, "ws://127.0.0.1:0", &app.opts);
    app.port = rt_listener_port(app.loop, l);
    CHECK(app.port > 0);
    for (i = 0; i < peers; i++)
        CHECK(peer_ws(&app.p[i], app.loop, app.port, "/"));
    CHECK(peer_until(app.loop, &app.opens, peers));
}

static void app_open(int backend, int peers)
{
    app_reset(backend);
    app_begin(peers);
}

static void app_end(void)
{
    int i;
    rt_loop_free(app.loop);
    for (i = 0; i < PEERS; i++)
        peer_end(&app.p[i]);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
}

static long long metric(const char *name)
{
    return peer_metric(app.loop, name);
}

/* Turns until it is that much; false when that never comes. */
static int becomes(const char *name, long long value)
{
    uint64_t end = peer_clock() + PEER_WAIT;
    while (metric(name) != value && peer_clock() < end)
        peer_turn(app.loop, 1);
    return metric(name) == value;
}

/* rtnet_refused_total of a cause. */
static long long refused(const char *cause)
{
    char name[64];
    snprintf(name, sizeof name, "rtnet_refused_total{cause=\"%s\"}", cause);
    return metric(name);
}

/* ---- the form ----------------------------------------------------------- */

/* The whole page, to be freed. */
static char *page_of(rt_loop *loop)
{
    size_t cap = rt_metrics(loop, NULL, 0);
    char *page = malloc(cap);
    EQUAL(rt_metrics(loop, page, cap), cap - 1);
    EQUAL(strlen(page), cap - 1);
    return page;
}

/* What a line of the page belongs to. */
typedef struct {
    char name[96], type[16];
    char seen[128][96]; /* the families so far */
    int families, lines;
    long long buckets; /* of the histogram under way, and its last +Inf */
    long long before, all;
} form;

static int family_new(form *f, const char *name)
{
    int i;
    for (i = 0; i < f->families; i++)
        if (!strcmp(f->seen[i], name))
            return 0;
    snprintf(f->seen[f->families++], sizeof f->seen[0], "%s", name);
    snprintf(f->name, sizeof f->name, "%s", name);
    return 1;
}

/* A counter ends in _total, a histogram in a base unit, a gauge in neither. */
static int name_fits(const char *name, const char *type)
{
    size_t n = strlen(name);
    int total = n > 6 && !strcmp(name + n - 6, "_total");
    int unit = (n > 8 && !strcmp(name + n - 8, "_seconds")) ||
               (n > 6 && !strcmp(name + n - 6, "_bytes"));
    if (!strcmp(type, "counter"))
        return total;
    if (!strcmp(type, "histogram"))
        return unit;
    return !strcmp(type, "gauge") && !total;
}

/* Buckets grow, and the last is the count. */
static int histogram_line(form *f, const char *suffix, long long value)
{
    if (!strncmp(suffix, "_bucket{", 8)) {
        if (strstr(suffix, "le=\"+Inf\"")) {
            f->all = value;
            f->before = f->before > value ? -1 : 0;
            return f->before == 0;
        }
        if (value < f->before)
            return 0;
        f->before = value;
        f->buckets++;
        return 1;
    }
    if (!strncmp(suffix, "_count", 6))
        return value == f->all;
    return !strncmp(suffix, "_sum", 4);
}

static int form_line(form *f, const char *line)
{
    char name[96], rest[160];
    const char *value = strrchr(line, ' ');
    size_t n = strlen(f->name);
    f->lines++;
    if (sscanf(line, "# HELP %95s %159[^\n]", name, rest) == 2)
        return family_new(f, name);
    if (sscanf(line, "# TYPE %95s %15s", name, f->type) == 2)
        return !strcmp(name, f->name) && name_fits(name, f->type);
    if (!value || strncmp(line, f->name, n) != 0)
        return 0;
    if (!strcmp(f->type, "histogram"))
        return histogram_line(f, line + n, atoll(value));
    return line[n] == ' ' || line[n] == '{';
}

static void check_form(const char *page)
{
    static form f;
    char line[512];
    memset(&f, 0, sizeof f);
    while (*page) {
        size_t n = strcspn(page, "\n");
        CHECK(page[n] == '\n' && n < sizeof line);
        snprintf(line, sizeof line, "%.*s", (int)n, page);
        if (!form_line(&f, line))
            test_check(0, __FILE__, __LINE__, line);
        page += n + 1;
    }
    CHECK(f.families > 20 && f.buckets >= 48);
}

static void each_family_stands_once_with_help_and_type(int backend)
{
    char *page;
    app_open(backend, 2);
    EQUAL(rt_observe(app.loop, "a", 5), 0);
    EQUAL(rt_observe(app.loop, "b", 1 << 20), 0);
    EQUAL(rt_observe(app.loop, "b", UINT64_MAX), 0);
    page = page_of(app.loop);
    check_form(page);
    free(page);
    app_end();
}

/* ---- histograms --------------------------------------------------------- */

static long long took_at_most(const char *le)
{
    char name[128];
    snprintf(name, sizeof name,
             "rtnet_request_duration_seconds_bucket{route=\"r\",le=\"%s\"}",
             le);
    return metric(name);
}

/* At its bound a value counts below, one above it does not. */
static void the_bounds_of_a_bucket_are_exact(void)
{
    static const uint64_t each[] = {0, 1, 256, 257, 512, 513, 8388608, 8388609};
    size_t i;
    app_open(RT_AUTO, 0);
    for (i = 0; i < COUNT(each); i++)
        EQUAL(rt_observe(app.loop, "r", each[i]), 0);
    EQUAL(took_at_most("0.000256"), 3);
    EQUAL(took_at_most("0.000512"), 5);
    EQUAL(took_at_most("0.001024"), 6);
    EQUAL(took_at_most("4.194304"), 6);
    EQUAL(took_at_most("8.388608"), 7);
    EQUAL(took_at_most("+Inf"), 8);
    EQUAL(metric("rtnet_request_duration_seconds_count{route=\"r\"}"), 8);
    EQUAL(metric("rtnet_request_duration_seconds_sum{route=\"r\"}"), 16);
    app_end();
}

static void closes_have_a_line_for_each_code_and_one_for_others(void)
{
    static const int codes[] = {1000, 1015, 4001, 4003, 4501, 4504};
    static const char line[] = "\nrtnet_closes_total{code=\"";
    char *page, *p, name[64];
    int lines = 0;
    size_t i;
    app_open(RT_AUTO, 0);
    p = page = page_of(app.loop);
    for (; (p = strstr(p, line)) != NULL; p += sizeof line)
        lines++;
    EQUAL(lines, 16 + 3 + 4 + 1);
    for (i = 0; i < COUNT(codes); i++) {
        snprintf(name, sizeof name, "%s%d\"} 0\n", line, codes[i]);
        CHECK(strstr(page, name) != NULL);
    }
    CHECK(strstr(page, "rtnet_closes_total{code=\"other\"} 0\n") != NULL);
    free(page);
    app_end();
}

static void a_sum_ends_at_the_greatest_number(void)
{
    char *page;
    app_open(RT_AUTO, 0);
    EQUAL(rt_observe(app.loop, "r", UINT64_MAX), 0);
    EQUAL(rt_observe(app.loop, "r", UINT64_MAX - 1), 0);
    page = page_of(app.loop);
    CHECK(strstr(page, "_sum{route=\"r\"} 18446744073709.551615\n") != NULL);
    free(page);
    app_end();
}

static void lazy(rt_loop *loop, void *arg)
{
    (void)loop;
    (void)arg;
    usleep(3000);
}

static void turns_are_timed_without_their_wait(int backend)
{
    rt_session nobody = {0};
    long long slow, all;
    app_open(backend, 0);
    all = metric("rtnet_turn_seconds_count");
    rt_poll(app.loop, 0);
    rt_poll(app.loop, 5); /* waits in vain: that is no work */
    EQUAL(metric("rtnet_turn_seconds_count"), all + 2);
    slow = metric("rtnet_turn_seconds_bucket{le=\"0.002048\"}");
    rt_timer_start(app.loop, nobody, 0, lazy, NULL);
    rt_poll(app.loop, 100);
    EQUAL(metric("rtnet_turn_seconds_count"), all + 3);
    EQUAL(metric("rtnet_turn_seconds_bucket{le=\"0.002048\"}"), slow);
    EQUAL(metric("rtnet_turn_seconds_bucket{le=\"+Inf\"}"), all + 3);
    app_end();
}

/* Ten messages of one turn leave in one write, and are observed once. */
static void a_send_queue_is_observed_at_each_write(int backend)
{
    static char text[100];
    long long small, large, all, sum;
    int i;
    memset(text, 'x', sizeof text);
    app_open(backend, 1);
    small = metric("rtnet_send_queue_bytes_bucket{le=\"512\"}");
    large = metric("rtnet_send_queue_bytes_bucket{le=\"1024\"}");
    all = metric("rtnet_send_queue_bytes_count");
    sum = metric("rtnet_send_queue_bytes_sum");
    for (i = 0; i < 10; i++)
        EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, text, 98), 0);
    rt_poll(app.loop, 0);
    EQUAL(metric("rtnet_send_queue_bytes_bucket{le=\"512\"}"), small);
    EQUAL(metric("rtnet_send_queue_bytes_bucket{le=\"1024\"}"), large + 1);
    EQUAL(metric("rtnet_send_queue_bytes_count"), all + 1);
    EQUAL(metric("rtnet_send_queue_bytes_sum"), sum + 1000);
    app_end();
}

/* ---- requests of the host's own ----------------------------------------- */

static const struct {
    const char *name;
    int want;
} routes[] = {
    {NULL, RT_EINVAL},
    {"", RT_EINVAL},
    {"/", 0},
    {"a b", 0},
    {"h\xc3\xa9", 0},
    {"two\nlines", 0},
    {"\"quoted\\\"", 0},
    {"tab\t", RT_EINVAL},
    {"\r", RT_EINVAL},
    {"\x1f", RT_EINVAL},
    {"\x7f", RT_EINVAL},
    {"\xff", RT_EINVAL},
    {"\xc3", RT_EINVAL},
    {"1234567890123456789012345678901234567890123456789012345678901234", 0},
    {"12345678901234567890123456789012345678901234567890123456789012345",
     RT_EINVAL},
};

static void a_route_is_text_of_1_to_64_bytes(void)
{
    char *page;
    size_t i;
    app_open(RT_AUTO, 0);
    for (i = 0; i < COUNT(routes); i++)
        EQUAL(rt_observe(app.loop, routes[i].name, 1), routes[i].want);
    page = page_of(app.loop);
    CHECK(strstr(page, "_count{route=\"two\\nlines\"} 1\n") != NULL);
    CHECK(strstr(page, "_count{route=\"\\\"quoted\\\\\\\"\"} 1\n") != NULL);
    CHECK(strstr(page, "_count{route=\"h\xc3\xa9\"} 1\n") != NULL);
    check_form(page);
    free(page);
    app_end();
}

static void there_are_64_routes(void)
{
    char name[24], *page;
    int i;
    app_open(RT_AUTO, 0);
    for (i = 0; i < 64; i++) {
        snprintf(name, sizeof name, "route %d", i);
        EQUAL(rt_observe(app.loop, name, 1), 0);
    }
    EQUAL(rt_observe(app.loop, "one more", 1), RT_EFULL);
    EQUAL(rt_observe(app.loop, "route 63", 1), 0);
    EQUAL(metric("rtnet_request_duration_seconds_count{route=\"route 0\"}"), 1);
    EQUAL(metric("rtnet_request_duration_seconds_count{route=\"route 63\"}"),
          2);
    page = page_of(app.loop);
    CHECK(strstr(page, "one more") == NULL);
    check_form(page);
    free(page);
    app_end();
}

static void without_memory_a_route_is_not_there(void)
{
    size_t heap;
    int n = 0, error;
    app_open(RT_AUTO, 0);
    do {
        heap = peer_heap;
        app.fails = n++;
        error = rt_observe(app.loop, "r", 1);
        CHECK(error == 0 || (error == RT_ENOMEM && peer_heap == heap));
    } while (error < 0);
    app.fails = -1;
    EQUAL(n, 3); /* the route and the table's first array can fail */
    EQUAL(metric("rtnet_request_duration_seconds_count{route=\"r\"}"), 1);
    app_end();
}

static void observe(rt_loop *loop)
{
    EQUAL(rt_observe(loop, "in a callback", 7), 0);
}

static void a_callback_may_observe(int backend)
{
    app_open(backend, 1);
    app.message = app.close = observe;
    peer_text(&app.p[0], "x");
    CHECK(peer_until(app.loop, &app.messages, 1));
    EQUAL(metric("rtnet_request_duration_seconds_count"
                 "{route=\"in a callback\"}"),
          1);
    app_end(); /* its on_close runs in rt_loop_free */
    EQUAL(app.closes, 1);
}

/* ---- the host's lines --------------------------------------------------- */

/* What the hook writes, and what it says of that. */
typedef struct {
    const char *name;
    const char *text;
    size_t n;    /* written of it where there is room, */
    size_t told; /* and returned */
    size_t kept; /* of it in the page */
    int rude;    /* writes as much as there is room for, and no NUL */
} lines;

#define LINES "game_players 3\ngame_rooms 1\n" /* 15 and 13 bytes */

static const lines hosts[] = {
    {"it keeps the contract", LINES, 29, 28, 28, 0},
    {"it says nothing", "", 1, 0, 0, 0},
    {"it returns more than it wrote", LINES, 29, 60, 28, 0},
    {"it returns less than it wrote", LINES, 29, 20, 15, 0},
    {"it returns nothing", LINES, 29, 0, 0, 0},
    {"its last line has no end", LINES "game_x 1", 37, 36, 28, 0},
    {"it has no line", "game_x 1", 9, 8, 0, 0},
    {"it writes no NUL", LINES, 28, 28, 28, 0},
    {"it writes no NUL and tells more", LINES, 28, 60, 28, 0},
    {"it writes nothing", LINES, 0, 28, 0, 0},
    {"it fails as snprintf does", LINES, 29, (size_t)-1, 0, 0},
    {"it ends in the middle", "game_x 1\n\0game_y 1\n", 20, 19, 9, 0},
    {"it fills all there is", LINES, 0, 28, 15, 1},
};

static size_t host_lines(void *user, char *out, size_t cap)
{
    const lines *h = user;
    size_t i;
    CHECK(cap > 0 || out == NULL);
    if (h->rude)
        for (i = 0; i < cap; i++)
            out[i] = i < 15 ? LINES[i] : 'x';
    else if (h->n <= cap && h->n > 0)
        memcpy(out, h->text, h->n);
    return h->told;
}

/* Whatever room there is, the page is whole lines and a NUL within it. */
static void check_room(const char *all, size_t n, size_t room)
{
    char *part = malloc(room + 1);
    size_t got;
    memset(part, '\n', room + 1); /* empty lines, if they were taken */
    got = rt_metrics(app.loop, part, room);
    CHECK(got < room && part[room] == '\n');
    CHECK(part[got] == 0 && strlen(part) == got);
    CHECK(got == 0 || part[got - 1] == '\n');
    CHECK(got <= n && memcmp(part, all, got) == 0);
    free(part);
}

static void a_host_line(const lines *h)
{
    char *page;
    size_t own, n, room;
    app_reset(RT_AUTO);
    app_begin(0);
    own = rt_metrics(app.loop, NULL, 0) - 1;
    app_end();
    app_reset(RT_AUTO);
    app.loop_opts.metrics = host_lines;
    app.loop_opts.user = (void *)(uintptr_t)h;
    app_begin(0);
    room = rt_metrics(app.loop, NULL, 0);
    CHECK(room > own);
    room += sizeof LINES; /* for one who told too little */
    page = malloc(room);
    memset(page, '\n', room);
    n = rt_metrics(app.loop, page, room);
    EQUAL(n, own + h->kept);
    CHECK(strlen(page) == n && memcmp(page + own, h->text, h->kept) == 0);
    for (room = own - 100; room < own + 80; room++)
        check_room(page, n, room);
    free(page);
    app_end();
}

static void run_hosts(void)
{
    size_t i;
    for (i = 0; i < COUNT(hosts); i++) {
        test_begin("the page is whole though of the host's lines: %s",
                   hosts[i].name);
        a_host_line(&hosts[i]);
        test_end();
    }
}

/* ---- what is counted ---------------------------------------------------- */

static void ask_for(peer *p, const char *request, int status)
{
    CHECK(peer_tcp(p, app.loop, app.port));
    peer_say(p, request);
    EQUAL(peer_status(p), status);
    peer_end(p);
}

static void refusals_of_requests_have_their_cause(int backend)
{
    app_open(backend, 0);
    ask_for(&app.p[0], "nonsense\r\n\r\n", 400);
    ask_for(&app.p[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404);
    EQUAL(refused("request"), 2);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_ask(&app.p[0], "/", "Origin: http://elsewhere\r\n");
    EQUAL(peer_status(&app.p[0]), 403);
    peer_end(&app.p[0]);
    EQUAL(refused("origin"), 1);
    app.answer = 403;
    ask_for(&app.p[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 403);
    EQUAL(refused("host"), 1);
    app.answer = 77; /* nonsense: 500 */
    ask_for(&app.p[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 500);
    EQUAL(refused("host"), 2);
    EQUAL(refused("request"), 2);
    app_end();
}

static void one_session_too_many_has_its_cause(int backend)
{
    rt_listen_opts o = {.framing = RT_LENGTH};
    rt_listener l;
    app_reset(backend);
    app.loop_opts.max_sessions = 1;
    app_begin(1);
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    peer_ask(&app.p[1], "/", "");
    EQUAL(peer_status(&app.p[1]), 503);
    EQUAL(refused("sessions"), 1);
    l = rt_listen(app.loop, "tcp://127.0.0.1:0", &o);
    CHECK(peer_tcp(&app.p[2], app.loop, rt_listener_port(app.loop, l)));
    CHECK(peer_ended(&app.p[2]));
    EQUAL(refused("sessions"), 2);
    EQUAL(refused("memory"), 0);
    app_end();
}

static void one_handshake_too_many_has_its_cause(int backend)
{
    app_reset(backend);
    app.opts.max_handshakes = 1;
    app_begin(0);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    peer_quiet(app.loop);
    EQUAL(refused("handshakes"), 0);
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    CHECK(peer_ended(&app.p[0]));
    EQUAL(refused("handshakes"), 1);
    app_end();
}

static void want_of_memory_has_its_cause(int backend)
{
    int i;
    app_open(backend, 0);
    for (i = 0; i < 3; i++) {
        CHECK(peer_tcp(&app.p[i], app.loop, app.port));
        app.fails = i; /* of the connection, its handshake */
        peer_ask(&app.p[i], "/", "");
        EQUAL(peer_status(&app.p[i]), 503);
        app.fails = -1;
        EQUAL(refused("memory"), i + 1);
    }
    app_end();
}

static void want_of_descriptors_has_its_cause(int backend)
{
    struct rlimit was, now;
    int free_fd;
    app_open(backend, 0);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    free_fd = dup(0);
    close(free_fd);
    getrlimit(RLIMIT_NOFILE, &was);
    now = was;
    now.rlim_cur = (rlim_t)free_fd; /* not one more */
    setrlimit(RLIMIT_NOFILE, &now);
    CHECK(peer_ended(&app.p[0]));
    setrlimit(RLIMIT_NOFILE, &was);
    EQUAL(refused("descriptors"), 1);
    app_end();
}

static void a_message_above_the_rate_names_its_limit(int backend)
{
    const char *name = "rtnet_messages_limited_total{limit=\"rate\"}";
    app_reset(backend);
    app.opts.rate_limit = 1;
    app_begin(1);
    peer_text(&app.p[0], "a");
    peer_text(&app.p[0], "b");
    CHECK(peer_until(app.loop, &app.messages, 1));
    peer_quiet(app.loop);
    EQUAL(metric("rtnet_messages_in_total"), 2);
    EQUAL(metric(name), 1);
    EQUAL(metric("rtnet_messages_limited_total{limit=\"messages\"}"), 0);
    app_end();
}

static void groups_are_counted(int backend)
{
    rt_group_opts o = {.history = 2};
    rt_group a, b;
    app_open(backend, 2);
    a = rt_group_open(app.loop, "a", &o);
    b = rt_group_open(app.loop, "b", NULL);
    rt_group_join(app.loop, a, app.s[0]);
    rt_group_join(app.loop, a, app.s[1]);
    rt_group_join(app.loop, b, app.s[1]);
    EQUAL(metric("rtnet_groups"), 2);
    EQUAL(metric("rtnet_group_members"), 3);
    rt_group_send(app.loop, a, RT_TEXT, "one", 3);
    rt_group_send(app.loop, a, RT_TEXT, "four", 4);
    rt_group_send(app.loop, a, RT_TEXT, "seven..", 7);
    EQUAL(metric("rtnet_history_messages"), 2);
    EQUAL(metric("rtnet_history_bytes"), 11);
    rt_group_leave(app.loop, b, app.s[1]);
    EQUAL(metric("rtnet_group_members"), 2);
    peer_bye(&app.p[0], 1000);
    CHECK(peer_until(app.loop, &app.closes, 1));
    EQUAL(metric("rtnet_group_members"), 1);
    rt_group_close(app.loop, a);
    EQUAL(metric("rtnet_groups"), 1);
    EQUAL(metric("rtnet_groups_closed_total"), 1);
    EQUAL(metric("rtnet_group_members"), 0);
    EQUAL(metric("rtnet_history_messages"), 0);
    EQUAL(metric("rtnet_history_bytes"), 0);
    app_end();
}

static void post(rt_loop *loop, void *arg)
{
    (void)loop;
    ++*(int *)arg;
}

static void watched(rt_loop *loop, rt_watch w, int events, void *arg)
{
    (void)loop;
    (void)w;
    (void)events;
    (void)arg;
}

static void what_the_host_made_is_counted(int backend)
{
    rt_session nobody = {0};
    rt_timer t;
    rt_watch w;
    int fd[2], ran = 0;
    app_open(backend, 1);
    EQUAL(pipe(fd), 0);
    EQUAL(metric("rtnet_listeners"), 1);
    EQUAL(metric("rtnet_timers"), 0);
    t = rt_timer_start(app.loop, nobody, UINT64_MAX, lazy, NULL);
    w = rt_watch_start(app.loop, fd[0], RT_READ, watched, NULL);
    EQUAL(metric("rtnet_timers"), 1);
    EQUAL(metric("rtnet_watches"), 1);
    EQUAL(rt_post(app.loop, post, &ran), 0);
    CHECK(peer_until(app.loop, &ran, 1));
    EQUAL(metric("rtnet_posts_total"), 1);
    rt_timer_stop(app.loop, t);
    rt_watch_stop(app.loop, w);
    EQUAL(metric("rtnet_timers"), 0);
    EQUAL(metric("rtnet_watches"), 0);
    EQUAL(metric("rtnet_sessions"), 1);
    EQUAL(metric("rtnet_draining"), 0);
    close(fd[0]);
    close(fd[1]);
    app_end();
}

/* A client of this library on a port of it. */
static rt_session dial(const rt_dial_opts *o)
{
    char url[64];
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", app.port);
    return rt_dial(app.loop, url, o);
}

/* A raw peer that speaks rtnet.1, as far as its session's beginning. */
static void greet(peer *p)
{
    peer_frame f;
    int opens = app.opens + 1;
    CHECK(peer_tcp(p, app.loop, app.port));
    peer_ask(p, "/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
    EQUAL(peer_status(p), 101);
    peer_text(p, "h");
    CHECK(peer_next(p, &f) && f.data[0] == 'w');
    peer_text(p, "a0");
    CHECK(peer_until(app.loop, &app.opens, opens));
    peer_quiet(app.loop);
}

static void heard(rt_loop *loop, rt_group g, rt_session s, int what)
{
    (void)loop;
    (void)g;
    (void)s;
    (void)what;
}

static void drop_and_dry(rt_loop *loop)
{
    EQUAL(rt_drop(loop, app.s[0], 4000, ""), 0);
    app.dry = 1;
}

/* That somebody left is never lost: room for it is there since the joining. */
static void a_presence_event_that_is_lost_is_counted(int backend)
{
    rt_group_opts o = {.event = heard};
    rt_group g;
    app_reset(backend);
    app.opts.resume_ms = 60000;
    app_begin(0);
    greet(&app.p[0]);
    g = rt_group_open(app.loop, "g", &o);
    EQUAL(rt_group_join(app.loop, g, app.s[0]), 0);
    peer_quiet(app.loop);
    app.message = drop_and_dry;
    peer_text(&app.p[0], "mx");
    CHECK(becomes("rtnet_sessions_away", 1));
    app.dry = 0;
    EQUAL(metric("rtnet_presence_lost_total"), 1);
    app_end();
}

/* Away, at most 128 are kept. */
static void what_an_absent_one_misses_is_counted(int backend)
{
    int i;
    app_reset(backend);
    app.opts.resume_ms = 5000;
    app_begin(0);
    greet(&app.p[0]);
    peer_reset(&app.p[0]);
    CHECK(becomes("rtnet_sessions_away", 1));
    for (i = 0; i < 130; i++)
        EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "ten bytes.", 10), 0);
    EQUAL(metric("rtnet_replay_bytes"), 1280);
    app_end();
}

static void what_is_kept_for_a_replay_is_counted(int backend)
{
    rt_dial_opts o = {.resume = 1};
    int i;
    app_reset(backend);
    app.opts.resume_ms = 5000;
    app_begin(0);
    o.on.message = on_message;
    CHECK(dial(&o).id);
    CHECK(peer_until(app.loop, &app.opens, 1));
    EQUAL(metric("rtnet_replay_bytes"), 0);
    for (i = 0; i < 16; i++) /* so many are acknowledged at once */
        EQUAL(rt_send(app.loop, app.s[0], RT_TEXT, "ten bytes.", 10), 0);
    EQUAL(metric("rtnet_replay_bytes"), 160);
    CHECK(peer_until(app.loop, &app.messages, 16));
    peer_quiet(app.loop);
    EQUAL(metric("rtnet_replay_bytes"), 0);
    rt_send(app.loop, app.s[0], RT_TEXT, "x", 1);
    EQUAL(metric("rtnet_replay_bytes"), 1);
    rt_close(app.loop, app.s[0], 0, NULL);
    CHECK(peer_until(app.loop, &app.closes, 1));
    peer_quiet(app.loop);
    EQUAL(metric("rtnet_replay_bytes"), 0);
    app_end();
}

/* ---- shutting down ------------------------------------------------------ */

/* A peer that was told to go: a message before, the code and the hint.  It
   says goodbye, too. */
static unsigned check_farewell(peer *p, const char *before)
{
    peer_frame f;
    char reason[64];
    unsigned ms = 0;
    if (before)
        CHECK(peer_got(p, RT_TEXT, before));
    CHECK(peer_next(p, &f) && f.op == 8 && f.len > 8 && f.len < 32);
    if (f.len <= 8 || f.len >= 32)
        return 0;
    EQUAL(peer_number(f.data, 2), 1012);
    snprintf(reason, sizeof reason, "%.*s", (int)f.len - 2,
             (const char *)f.data + 2);
    EQUAL(sscanf(reason, "retry=%u", &ms), 1);
    CHECK(ms >= 500 && ms < 2500);
    peer_bye(p, 1012);
    return ms;
}

/* The most that were closed within any ms. */
static int busiest(int n, uint64_t ms)
{
    int from = 0, i, most = 0;
    for (i = 0; i < n; i++) {
        while (app.closed_at[i] - app.closed_at[from] >= ms)
            from++;
        if (i - from + 1 > most)
            most = i - from + 1;
    }
    return most;
}

/* Evenly would be a tenth in 50 ms; it is never more than a fifth. */
static void sessions_end_evenly_over_the_window(int backend)
{
    enum { N = PEERS, WINDOW = 500 };
    uint64_t began, end;
    unsigned hint, least = 9999, most = 0;
    int i;
    app_open(backend, N);
    for (i = 0; i < N; i++)
        rt_send(app.loop, app.s[i], RT_TEXT, "before", 6);
    began = peer_clock();
    EQUAL(rt_shutdown(app.loop, WINDOW), 0);
    EQUAL(metric("rtnet_draining"), 1);
    for (end = began + 4 * WINDOW; app.closes < N && peer_clock() < end;)
        peer_turn(app.loop, 1);
    EQUAL(app.closes, N);
    CHECK(busiest(N, 50) <= N / 5);
    CHECK(app.closed_at[N - 1] - began >= WINDOW * 3 / 4);
    CHECK(app.closed_at[N - 1] - began <= WINDOW + 100);
    EQUAL(app.drains, 0); /* their farewells are not answered */
    for (i = 0; i < N; i++) {
        hint = check_farewell(&app.p[i], "before");
        least = hint < least ? hint : least;
        most = hint > most ? hint : most;
    }
    CHECK(most - least > 1000);
    CHECK(peer_until(app.loop, &app.drains, 1));
    peer_quiet(app.loop);
    EQUAL(app.drains, 1);
    EQUAL(metric("rtnet_closes_total{code=\"1012\"}"), N);
    app_end();
}

/* One at a time where there are fewer sessions than steps. */
static void few_sessions_are_spread_as_well(int backend)
{
    enum { N = 5, WINDOW = 150 };
    uint64_t began;
    app_open(backend, N);
    began = peer_clock();
    EQUAL(rt_shutdown(app.loop, WINDOW), 0);
    CHECK(peer_until(app.loop, &app.closes, N));
    EQUAL(app.cause, RT_BY_LOOP);
    CHECK(busiest(N, WINDOW / N / 2) == 1);
    CHECK(app.closed_at[N - 1] - began >= WINDOW / 2);
    app_end();
}

static void an_empty_loop_is_drained_in_the_next_turn(int backend)
{
    app_open(backend, 0);
    EQUAL(rt_shutdown(app.loop, 60000), 0);
    EQUAL(app.drains, 0);
    EQUAL(rt_loop_timeout(app.loop), 0);
    peer_quiet(app.loop);
    EQUAL(app.drains, 1);
    EQUAL(rt_loop_timeout(app.loop), -1);
    EQUAL(rt_shutdown(app.loop, 0), 0); /* and again */
    peer_quiet(app.loop);
    EQUAL(app.drains, 2);
    EQUAL(rt_shutdown(app.loop, -1), RT_EINVAL);
    peer_quiet(app.loop);
    EQUAL(app.drains, 2);
    app_end();
}

static void shut_once_more(rt_loop *loop)
{
    if (app.drains < 3)
        EQUAL(rt_shutdown(loop, 0), 0);
}

static void a_shutdown_in_drained_is_told_in_a_later_turn(int backend)
{
    app_open(backend, 0);
    app.drained = shut_once_more;
    rt_shutdown(app.loop, 0);
    rt_poll(app.loop, 0);
    EQUAL(app.drains, 1);
    rt_poll(app.loop, 0);
    EQUAL(app.drains, 2);
    peer_quiet(app.loop);
    EQUAL(app.drains, 3);
    app_end();
}

static void shut_in_a_hook(rt_loop *loop, const char *uid, int kind,
                           const void *data, size_t len)
{
    (void)uid;
    (void)kind;
    (void)data;
    (void)len;
    EQUAL(rt_shutdown(loop, 0), 0);
}

/* In the events phase, just before drained would be told. */
static void a_shutdown_before_drained_is_told_with_it(int backend)
{
    app_reset(backend);
    app.loop_opts.push_miss = shut_in_a_hook;
    app_begin(0);
    rt_shutdown(app.loop, 0);
    rt_push(app.loop, "nobody", RT_TEXT, "x", 1);
    rt_poll(app.loop, 0);
    EQUAL(app.drains, 0);
    peer_quiet(app.loop);
    EQUAL(app.drains, 1);
    app_end();
}

static void a_second_shutdown_moves_the_deadline(int backend)
{
    enum { N = 20 };
    uint64_t began;
    int i;
    app_open(backend, N);
    EQUAL(rt_shutdown(app.loop, 20), 0);
    EQUAL(rt_shutdown(app.loop, 60000), 0); /* much later */
    began = peer_clock();
    while (peer_clock() - began < 60)
        peer_turn(app.loop, 1);
    CHECK(app.closes < 5);
    EQUAL(rt_shutdown(app.loop, 0), 0); /* now */
    peer_quiet(app.loop);
    EQUAL(app.closes, N);
    for (i = 0; i < N; i++)
        check_farewell(&app.p[i], NULL);
    CHECK(peer_until(app.loop, &app.drains, 1));
    peer_quiet(app.loop);
    EQUAL(app.drains, 1); /* they were one */
    app_end();
}

static char large[400000];

/* As a host that ends its process there. */
static void end_all(rt_loop *loop)
{
    EQUAL(rt_poll(loop, 0), RT_ESTATE);
    rt_stop(loop);
}

/* What was sent stands in the queue when the window is over already. */
static void a_host_that_ends_when_drained_loses_nothing(int backend)
{
    peer *p = &app.p[0];
    uint64_t end = peer_clock() + PEER_WAIT;
    peer_frame f;
    app_open(backend, 1);
    app.drained = end_all;
    memset(large, 'x', sizeof large);
    EQUAL(rt_send(app.loop, app.s[0], RT_BINARY, large, sizeof large), 1);
    EQUAL(rt_shutdown(app.loop, 0), 0);
    peer_quiet(app.loop);
    EQUAL(app.closes, 1);
    EQUAL(app.drains, 0);
    CHECK(peer_next(p, &f) && f.len == sizeof large);
    EQUAL(app.drains, 0);
    check_farewell(p, NULL); /* and now the end */
    while (app.drains == 0 && peer_clock() < end)
        peer_turn(app.loop, 1);
    EQUAL(rt_run(app.loop), 0);
    rt_loop_free(app.loop);
    app.loop = p->loop = NULL;
    EQUAL(peer_ended(p), PEER_EOF);
    EQUAL(app.drains, 1);
    app_end();
}

/* The peer neither reads nor says goodbye: close_ms bounds the wait. */
static void who_does_not_take_a_farewell_is_not_waited_for_long(int backend)
{
    app_reset(backend);
    app.opts.close_ms = 50;
    app_begin(1);
    rt_shutdown(app.loop, 0);
    CHECK(peer_until(app.loop, &app.drains, 1));
    EQUAL(metric("rtnet_connections"), 0);
    app_end();
}

static void nothing_begins_while_it_drains(int backend)
{
    rt_dial_opts o = {.resume = 1};
    app_reset(backend);
    app_begin(1);
    rt_shutdown(app.loop, 60000);
    EQUAL(dial(&o).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_ESTATE);
    EQUAL(rt_listen(app.loop, "ws://127.0.0.1:0", NULL).id, 0);
    EQUAL(rt_error(app.loop, NULL), RT_ESTATE);
    EQUAL(metric("rtnet_listeners"), 0);
    app_end();
}

/* Who was accepted before a restart would otherwise see a refusal. */
static void handshakes_in_progress_are_not_refused(int backend)
{
    app_open(backend, 0);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    CHECK(peer_tcp(&app.p[2], app.loop, app.port));
    app.answer = RT_DEFER;
    peer_ask(&app.p[2], "/", "");
    peer_quiet(app.loop);
    rt_shutdown(app.loop, 300);
    peer_quiet(app.loop);
    EQUAL(rt_accept(app.loop, app.asked, NULL), 0);
    EQUAL(peer_status(&app.p[2]), 101);
    app.answer = 0;
    peer_ask(&app.p[0], "/", "");
    EQUAL(peer_status(&app.p[0]), 101);
    peer_say(&app.p[1], "GET /page HTTP/1.1\r\nHost: x\r\n\r\n");
    EQUAL(peer_status(&app.p[1]), 200);
    CHECK(strstr(app.p[1].head, "Connection: close") != NULL);
    CHECK(peer_body(&app.p[1], "page"));
    EQUAL(app.opens, 2);
    EQUAL(app.drains, 0);
    EQUAL(metric("rtnet_refused_total"), 0);
    EQUAL(peer_closed(&app.p[0]), 1012);
    EQUAL(peer_closed(&app.p[2]), 1012);
    peer_end(&app.p[0]);
    peer_end(&app.p[1]);
    peer_end(&app.p[2]);
    CHECK(peer_until(app.loop, &app.drains, 1));
    EQUAL(app.closes, 2);
    app_end();
}

/* At the end of the window: one between two requests, one in the middle of
   one, one whose host thinks. */
static void handshakes_end_with_the_window(int backend)
{
    app_open(backend, 0);
    CHECK(peer_tcp(&app.p[0], app.loop, app.port));
    CHECK(peer_tcp(&app.p[1], app.loop, app.port));
    CHECK(peer_tcp(&app.p[2], app.loop, app.port));
    app.answer = RT_DEFER;
    peer_say(&app.p[1], "GET / HT");
    peer_ask(&app.p[2], "/", "");
    peer_quiet(app.loop);
    EQUAL(metric("rtnet_handshakes"), 3);
    rt_shutdown(app.loop, 30);
    EQUAL(peer_ended(&app.p[0]), PEER_EOF);
    EQUAL(app.p[0].len, 0);
    EQUAL(peer_status(&app.p[1]), 503);
    EQUAL(peer_status(&app.p[2]), 503);
    EQUAL(app.drains, 0);
    peer_end(&app.p[0]);
    peer_end(&app.p[1]);
    peer_end(&app.p[2]);
    CHECK(peer_until(app.loop, &app.drains, 1));
    app_end();
}

/* rtnet.1, before its first word: in time, and not. */
static void greetings_are_answered_1012(int backend)
{
    int i;
    app_reset(backend);
    app.opts.resume_ms = 5000;
    app_begin(0);
    for (i = 0; i < 2; i++) {
        CHECK(peer_tcp(&app.p[i], app.loop, app.port));
        peer_ask(&app.p[i], "/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
        EQUAL(peer_status(&app.p[i]), 101);
    }
    rt_shutdown(app.loop, 60000);
    peer_text(&app.p[0], "h");
    check_farewell(&app.p[0], NULL);
    rt_shutdown(app.loop, 0);
    check_farewell(&app.p[1], NULL);
    EQUAL(app.opens, 0);
    EQUAL(app.drains, 0);
    peer_end(&app.p[0]);
    peer_end(&app.p[1]);
    CHECK(peer_until(app.loop, &app.drains, 1));
    app_end();
}

/* Both ends in one loop: the accepted one goes away, the dialled one, too. */
static void sessions_that_are_away_end_at_once(int backend)
{
    rt_dial_opts o = {.resume = 1};
    app_reset(backend);
    app.opts.resume_ms = 60000;
    app_begin(2);
    o.on.close = on_close;
    CHECK(dial(&o).id);
    CHECK(peer_until(app.loop, &app.opens, 3));
    rt_drop(app.loop, app.s[2], 1011, NULL);
    EQUAL(rt_state(app.loop, app.s[2]), RT_AWAY);
    CHECK(becomes("rtnet_connections", 2));
    EQUAL(metric("rtnet_dialled_total"), 1);
    rt_shutdown(app.loop, 60000);
    rt_poll(app.loop, 0);
    EQUAL(app.closes, 2);
    EQUAL(app.code, 1012);
    EQUAL(app.cause, RT_BY_LOOP);
    app_end();
}

/* The last session ends when the events of its turn are over, and the next
   step of the shutdown is far. */
static void drained_is_not_waited_for(int backend)
{
    app_reset(backend);
    app.opts.resume_ms = 60000;
    app_begin(1);
    greet(&app.p[1]);
    rt_shutdown(app.loop, 60000);
    check_farewell(&app.p[0], NULL);
    peer_reset(&app.p[1]);
    CHECK(becomes("rtnet_connections", 0));
    EQUAL(rt_close(app.loop, app.s[1], 0, NULL), 0);
    rt_poll(app.loop, 0);
    EQUAL(app.closes, 2);
    EQUAL(app.drains, 0);
    EQUAL(rt_loop_timeout(app.loop), 0);
    rt_poll(app.loop, PEER_WAIT);
    EQUAL(app.drains, 1);
    app_end();
}

static void shut(rt_loop *loop)
{
    EQUAL(rt_shutdown(loop, 0), 0);
}

static void a_callback_may_shut_down(int backend)
{
    app_open(backend, 2);
    app.message = app.close = shut;
    peer_text(&app.p[0], "x");
    check_farewell(&app.p[0], NULL);
    check_farewell(&app.p[1], NULL);
    EQUAL(app.closes, 2);
    CHECK(peer_until(app.loop, &app.drains, 1));
    peer_quiet(app.loop);
    EQUAL(app.drains, 1);
    app_end();
}

static void a_shutdown_needs_no_memory(int backend)
{
    app_open(backend, 3);
    app.dry = 1;
    rt_shutdown(app.loop, 30);
    CHECK(peer_until(app.loop, &app.closes, 3));
    EQUAL(app.code, 1012);
    EQUAL(app.cause, RT_BY_LOOP);
    peer_end(&app.p[0]);
    peer_end(&app.p[1]);
    peer_end(&app.p[2]);
    CHECK(peer_until(app.loop, &app.drains, 1));
    app.dry = 0;
    app_end();
}

/* Two loops: the server's tells the second of the clients to come again, when
   the first has ended already. */
static void who_drains_does_not_dial_anew(int backend)
{
    rt_dial_opts o = {.resume = 1};
    uint64_t end = peer_clock() + PEER_WAIT;
    rt_loop *server;
    app_reset(backend);
    app.opts.resume_ms = 60000;
    app_begin(0);
    server = app.loop;
    app.loop = rt_loop_new(&app.loop_opts);
    CHECK(dial(&o).id && dial(&o).id);
    while (app.opens < 2 && peer_clock() < end) {
        rt_poll(app.loop, 1);
        rt_poll(server, 1);
    }
    rt_shutdown(app.loop, 60000);
    rt_poll(app.loop, 0);
    rt_poll(app.loop, 0);
    EQUAL(metric("rtnet_sessions"), 1);
    rt_shutdown(server, 0);
    while (app.drains < 2 && peer_clock() < end) {
        rt_poll(server, 1);
        rt_poll(app.loop, 1);
    }
    EQUAL(app.drains, 2);
    EQUAL(metric("rtnet_sessions"), 0);
    rt_loop_free(server);
    app_end();
}

/* ---- all of them -------------------------------------------------------- */

static void run_page(void)
{
    RUN_EACH(each_family_stands_once_with_help_and_type);
    RUN(the_bounds_of_a_bucket_are_exact);
    RUN(closes_have_a_line_for_each_code_and_one_for_others);
    RUN(a_sum_ends_at_the_greatest_number);
    RUN_EACH(turns_are_timed_without_their_wait);
    RUN_EACH(a_send_queue_is_observed_at_each_write);
    RUN(a_route_is_text_of_1_to_64_bytes);
    RUN(there_are_64_routes);
    RUN(without_memory_a_route_is_not_there);
    RUN_EACH(a_callback_may_observe);
    run_hosts();
}

static void run_counts(void)
{
    RUN_EACH(refusals_of_requests_have_their_cause);
    RUN_EACH(one_session_too_many_has_its_cause);
    RUN_EACH(one_handshake_too_many_has_its_cause);
    RUN_EACH(want_of_memory_has_its_cause);
    RUN_EACH(want_of_descriptors_has_its_cause);
    RUN_EACH(a_message_above_the_rate_names_its_limit);
    RUN_EACH(groups_are_counted);
    RUN_EACH(a_presence_event_that_is_lost_is_counted);
    RUN_EACH(what_the_host_made_is_counted);
    RUN_EACH(what_an_absent_one_misses_is_counted);
    RUN_EACH(what_is_kept_for_a_replay_is_counted);
}

static void run_shutdowns(void)
{
    RUN_EACH(sessions_end_evenly_over_the_window);
    RUN_EACH(few_sessions_are_spread_as_well);
    RUN_EACH(an_empty_loop_is_drained_in_the_next_turn);
    RUN_EACH(a_shutdown_in_drained_is_told_in_a_later_turn);
    RUN_EACH(a_shutdown_before_drained_is_told_with_it);
    RUN_EACH(a_second_shutdown_moves_the_deadline);
    RUN_EACH(a_host_that_ends_when_drained_loses_nothing);
    RUN_EACH(who_does_not_take_a_farewell_is_not_waited_for_long);
    RUN_EACH(nothing_begins_while_it_drains);
    RUN_EACH(handshakes_in_progress_are_not_refused);
    RUN_EACH(handshakes_end_with_the_window);
    RUN_EACH(greetings_are_answered_1012);
    RUN_EACH(sessions_that_are_away_end_at_once);
    RUN_EACH(drained_is_not_waited_for);
    RUN_EACH(a_callback_may_shut_down);
    RUN_EACH(a_shutdown_needs_no_memory);
    RUN_EACH(who_drains_does_not_dial_anew);
}

int main(void)
{
    run_page();
    run_counts();
    run_shutdowns();
    return test_done();
}
