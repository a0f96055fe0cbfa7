/*
 * storm: thousands of clients lose their server at the same moment and come
 * back, while some who came in through another door play on.
 *
 * A run is four processes.  The server has one loop and two listeners: the
 * public one, where sessions resume and new connections are admitted at a
 * rate, and a calm one.  The clients are one loop of rt_dial sessions that
 * resume, on the public listener; each end of each session sends the other a
 * numbered note now and then, also while the client is away.  The stayers, on
 * the calm listener, send small messages on schedule and measure the time from
 * when each was due until its echo.  The conductor leads through the phases
 * and judges what the others have written down.
 *
 * The cut is a reset of all public connections, from outside of the library,
 * as when a load balancer dies: both ends learn of it from their sockets.
 */
#define _GNU_SOURCE /* MAP_ANONYMOUS, timerfd */

#include "storm.h"
#include "../rtnet.h"
#include "options.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 10,
    SAMPLE_MS = 100,
    SAMPLES = 6000,
    ADDRESSES = 8,    /* each has ports of its own */
    PROCESSES = 3,    /* server, clients, stayers */
    AWAY_MOST = 10000 /* sessions that a loop keeps while they are away */
};

static settings set;
static stage *at; /* of the present run */

static uint64_t clock_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now_ns(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

static int phase(void)
{
    return __atomic_load_n(&at->phase, __ATOMIC_ACQUIRE);
}

static void add(int *what, int n)
{
    __atomic_add_fetch(what, n, __ATOMIC_RELEASE);
}

static void fail(const char *what)
{
    fprintf(stderr, "storm: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* ---- notes --------------------------------------------------------------
 * The last note of a client asks; the server's answer says what it has. */

typedef struct {
    uint32_t number, last, got;
} note;

static void note_send(rt_loop *loop, rt_session s, tally *t, uint32_t last)
{
    note n = {t->sent + 1, last, t->got};
    if (rt_send(loop, s, RT_BINARY, &n, sizeof n) >= 0)
        t->sent++;
}

/* Returns whether it was the last one. */
static int note_take(tally *t, faults *f, const void *data, size_t len, note *n)
{
    memset(n, 0, sizeof *n);
    if (len == sizeof *n)
        memcpy(n, data, len);
    if (n->number <= t->got) {
        f->doubled++;
        return 0;
    }
    f->missing += n->number - t->got - 1;
    t->got = n->number;
    return n->last != 0;
}

/* How many of the clients' turns to send have come by now, counted from the
   beginning of the quiet phase. */
static uint64_t notes_due(void)
{
    double ns = (double)(now_ns() - at->quiet_ns);
    if (phase() != PHASE_QUIET && phase() != PHASE_STORM)
        return 0;
    return (uint64_t)(ns / SECOND / set.every * (double)set.clients);
}

/* ---- the server --------------------------------------------------------- */

typedef struct {
    rt_session s;
    tally notes;
} seat;

static struct {
    rt_loop *loop;
    seat *seats;
    long seated;
    uint64_t noted, heap, peak, lost, back, ticks, began;
    char page[65536];
} host;

static void *host_realloc(void *user, void *p, size_t old, size_t size)
{
    void *q = NULL;
    (void)user;
    if (size == 0)
        free(p);
    else if (!(q = realloc(p, size)))
        return NULL;
    host.heap += size - old;
    if (host.heap > host.peak)
        host.peak = host.heap;
    return q;
}

static void host_log(void *user, int level, const char *text)
{
    (void)user;
    if (level == RT_LOG_ERROR)
        fprintf(stderr, "storm: server: %s\n", text);
}

static void host_open(rt_loop *loop, rt_session s)
{
    seat *mine = &host.seats[host.seated];
    at->server.opened++;
    if (host.seated == 2 * set.clients)
        return;
    host.seated++;
    mine->s = s;
    rt_set_user(loop, s, mine);
}

static void host_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    seat *mine = (seat *)rt_user(loop, s);
    note n;
    (void)kind;
    if (mine && note_take(&mine->notes, &at->server.notes, data, len, &n))
        note_send(loop, s, &mine->notes, 1);
}

static void host_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    host.lost++;
}

static void host_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    host.back++;
    at->server.gaps += lost > 0;
}

static void calm_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    rt_send(loop, s, kind, data, len);
}

static double host_metric(const char *name)
{
    const char *p = strstr(host.page, name);
    return p ? strtod(p + strlen(name), NULL) : 0;
}

/* Of all causes. */
static uint64_t host_refused(void)
{
    static const char name[] = "\nrtnet_refused_total{";
    const char *p = host.page;
    uint64_t sum = 0;
    while ((p = strstr(p, name)) != NULL) {
        p += strcspn(p + 1, " \n") + 1;
        sum += strtoull(p, NULL, 10);
    }
    return sum;
}

static void host_sample(rt_loop *loop)
{
    sample *x = &at->server.sample[at->server.samples];
    if (at->server.samples == SAMPLES)
        return;
    rt_metrics(loop, host.page, sizeof host.page);
    x->ns = now_ns();
    x->ms = rt_now(loop);
    x->cpu_ns = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    x->admitted = (uint64_t)host_metric("\nrtnet_accepted_total ");
    x->refused = host_refused();
    x->lost = host.lost;
    x->back = host.back;
    x->heap = host.peak;
    host.peak = host.heap;
    at->server.longest_us =
        (uint64_t)(1e6 * host_metric("\nrtnet_longest_turn_seconds "));
    at->server.samples++;
}

static void host_tick(rt_loop *loop, void *arg)
{
    uint64_t due = notes_due();
    for (; host.noted < due && host.seated; host.noted++) {
        seat *mine = &host.seats[host.noted % (uint64_t)host.seated];
        note_send(loop, mine->s, &mine->notes, 0);
    }
    if (host.ticks++ % (SAMPLE_MS / TICK_MS) == 0)
        host_sample(loop);
    if (phase() == PHASE_END || getppid() == 1)
        rt_stop(loop);
    rt_timer_start(loop, (rt_session){0}, host.began + host.ticks * TICK_MS,
                   host_tick, arg);
}

static void host_listen(int which, const rt_listen_opts *opts)
{
    const char *why = "";
    rt_listener l = rt_listen(
        host.loop, which == 0 ? "ws://0.0.0.0:0" : "ws://127.0.0.1:0", opts);
    if (!l.id) {
        rt_error(host.loop, &why);
        fprintf(stderr, "storm: %s\n", why);
        _exit(1);
    }
    __atomic_store_n(&at->ports[which], rt_listener_port(host.loop, l),
                     __ATOMIC_RELEASE);
}

static void host_run(void)
{
    const rt_loop_opts opts = {.realloc = host_realloc, .log = host_log};
    const rt_listen_opts public = {
        .on = {.open = host_open,
               .message = host_message,
               .away = host_away,
               .back = host_back},
        .resume_ms = (int)(set.seconds * 1000) + 30000,
        .accept_rate = (int)set.rate,
        .accept_burst = (int)set.burst,
    };
    const rt_listen_opts calm = {.on = {.message = calm_message}};
    host.loop = rt_loop_new(&opts);
    host.seats = (seat *)calloc((size_t)set.clients * 2 + 1, sizeof(seat));
    if (!host.loop || !host.seats)
        fail("server");
    host_listen(0, &public);
    host_listen(1, &calm);
    host.began = rt_now(host.loop);
    host_tick(host.loop, NULL);
    rt_run(host.loop);
    rt_loop_free(host.loop);
}

/* ---- the clients -------------------------------------------------------- */

typedef struct {
    rt_session s;
    tally notes;
} player;

static struct {
    rt_loop *loop;
    player *players;
    long dialled, asked;
    int cut;
    uint64_t noted, ticks, began;
    char url[64];
} crowd;

/* Each of its attempts asks for the address. */
static int crowd_resolve(rt_loop *loop, const char *name, rt_session s)
{
    long i = (long)((player *)rt_context(loop, s) - crowd.players);
    char address[32];
    (void)name;
    if (crowd.cut)
        at->clients.tries[i]++;
    snprintf(address, sizeof address, "127.0.0.%ld", 1 + i % ADDRESSES);
    return rt_resolved(loop, s, address);
}

static void crowd_open(rt_loop *loop, rt_session s)
{
    player *p = (player *)rt_context(loop, s);
    p->s = s;
    p->notes = (tally){0, 0};
    if (crowd.cut)
        at->clients.fresh++;
    else
        add(&at->opened, 1);
}

/* Who is back may be lost again; at the end all are. */
static void crowd_away(rt_loop *loop, rt_session s)
{
    player *p = (player *)rt_context(loop, s);
    if (at->clients.back_ns[p - crowd.players] == 0 || phase() == PHASE_END)
        return;
    at->clients.back_ns[p - crowd.players] = 0;
    at->clients.again++;
    add(&at->back, -1);
}

static void crowd_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    player *p = (player *)rt_context(loop, s);
    at->clients.gaps += lost > 0;
    at->clients.resumed++;
    at->clients.back_ns[p - crowd.players] = now_ns();
    add(&at->back, 1);
}

static void crowd_message(rt_loop *loop, rt_session s, int kind,
                          const void *data, size_t len)
{
    player *p = (player *)rt_context(loop, s);
    note n;
    (void)kind;
    if (note_take(&p->notes, &at->clients.notes, data, len, &n) &&
        n.got == p->notes.sent)
        add(&at->counted, 1);
}

static void crowd_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    if (phase() == PHASE_END)
        return;
    if (at->clients.ended++ == 0)
        fprintf(stderr, "storm: a client ended: %d %s\n", why->code,
                why->reason);
}

/* Somewhat below the rate, so that nobody has to wait. */
static void crowd_dial(rt_loop *loop, uint64_t ms)
{
    double due = 0.9 * (double)set.rate * (double)ms / 1000;
    rt_dial_opts opts = {.on = {.open = crowd_open,
                                .message = crowd_message,
                                .away = crowd_away,
                                .back = crowd_back,
                                .close = crowd_close},
                         .resume = 1};
    while (crowd.dialled < set.clients && (double)crowd.dialled < due) {
        player *p = &crowd.players[crowd.dialled++];
        const char *why = "";
        opts.user = p;
        p->s = rt_dial(loop, crowd.url, &opts);
        if (p->s.id)
            continue;
        rt_error(loop, &why);
        fprintf(stderr, "storm: %s\n", why);
        _exit(1);
    }
}

/* Linux resets a connection that is connected to nowhere. */
static int cut_off(int fd)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0 ||
        ntohs(peer.sin_port) != at->ports[0])
        return 0;
    return connect(fd, &nowhere, sizeof nowhere) == 0;
}

static void crowd_cut(void)
{
    int fd, most = (int)set.clients + 64;
    crowd.cut = 1;
    at->clients.cut_ns = now_ns();
    for (fd = 3; fd < most; fd++)
        at->clients.cut += (uint64_t)cut_off(fd);
}

static void crowd_tick(rt_loop *loop, void *arg)
{
    uint64_t due = notes_due();
    for (; crowd.noted < due; crowd.noted++) {
        player *p = &crowd.players[crowd.noted % (uint64_t)set.clients];
        note_send(loop, p->s, &p->notes, 0);
    }
    crowd_dial(loop, crowd.ticks++ * TICK_MS);
    if (phase() == PHASE_STORM && !crowd.cut)
        crowd_cut();
    for (long i = 0; phase() == PHASE_COUNT && crowd.asked < set.clients &&
                     i < set.clients / 50 + 1;
         i++, crowd.asked++)
        note_send(loop, crowd.players[crowd.asked].s,
                  &crowd.players[crowd.asked].notes, 1);
    if (phase() == PHASE_END || getppid() == 1)
        rt_stop(loop);
    rt_timer_start(loop, (rt_session){0}, crowd.began + crowd.ticks * TICK_MS,
                   crowd_tick, arg);
}

/* They stand for ten thousand other machines, so they give way. */
static void crowd_run(void)
{
    const rt_loop_opts opts = {.resolve = crowd_resolve};
    if (nice(19) == -1 && errno)
        fail("nice");
    crowd.loop = rt_loop_new(&opts);
    crowd.players = (player *)calloc((size_t)set.clients, sizeof(player));
    if (!crowd.loop || !crowd.players)
        fail("clients");
    snprintf(crowd.url, sizeof crowd.url, "ws://storm.test:%d/", at->ports[0]);
    crowd.began = rt_now(crowd.loop);
    crowd_tick(crowd.loop, NULL);
    rt_run(crowd.loop);
    rt_loop_free(crowd.loop);
}

/* ---- those who stay ----------------------------------------------------- */

static struct {
    rt_loop *loop;
    rt_session *s;
    uint64_t due, period, turn; /* in ns; of the next message of all */
} calm;

static void calm_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    add(&at->seated, 1);
}

static void calm_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)loop;
    (void)s;
    (void)why;
    if (phase() != PHASE_END)
        at->stayers.ended++;
}

static void calm_echo(rt_loop *loop, rt_session s, int kind, const void *data,
                      size_t len)
{
    trip *t = &at->stayers.trip[at->stayers.trips];
    (void)loop;
    (void)s;
    (void)kind;
    if (len != sizeof t->due || at->stayers.trips == at->stayers.cap)
        return;
    memcpy(&t->due, data, len);
    t->took = now_ns() - t->due;
    at->stayers.trips++;
}

/* The timer runs out when a message is due.  What was due while this process
   had to wait is sent late, and its trip is longer by that. */
static void calm_due(rt_loop *loop, rt_watch w, int events, void *arg)
{
    uint64_t expired;
    (void)w;
    (void)events;
    if (read(*(int *)arg, &expired, sizeof expired) != sizeof expired)
        return;
    for (; expired > 0; expired--, calm.due += calm.period) {
        rt_session to = calm.s[calm.turn++ % (uint64_t)set.stayers];
        if (phase() != PHASE_QUIET && phase() != PHASE_STORM)
            continue;
        rt_send(loop, to, RT_BINARY, &calm.due, sizeof calm.due);
        at->stayers.asked++;
    }
}

/* Its first moment is the first that is due. */
static int calm_timer(void)
{
    struct itimerspec t;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    calm.period = (uint64_t)(SECOND / (double)(set.stayers * set.pace));
    calm.due = now_ns() + calm.period;
    t.it_value.tv_sec = (time_t)(calm.due / 1000000000u);
    t.it_value.tv_nsec = (long)(calm.due % 1000000000u);
    t.it_interval.tv_sec = (time_t)(calm.period / 1000000000u);
    t.it_interval.tv_nsec = (long)(calm.period % 1000000000u);
    if (fd < 0 || timerfd_settime(fd, TFD_TIMER_ABSTIME, &t, NULL) < 0)
        fail("timerfd");
    return fd;
}

static void calm_tick(rt_loop *loop, void *arg)
{
    if (phase() == PHASE_END || getppid() == 1)
        rt_stop(loop);
    rt_timer_start(loop, (rt_session){0}, rt_now(loop) + 50, calm_tick, arg);
}

static void calm_dial(void)
{
    const rt_dial_opts opts = {
        .on = {.open = calm_open, .message = calm_echo, .close = calm_close}};
    char url[64];
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", at->ports[1]);
    for (long i = 0; i < set.stayers; i++)
        if (!(calm.s[i] = rt_dial(calm.loop, url, &opts)).id)
            fail("stayers");
}

static void calm_run(void)
{
    int fd;
    calm.loop = rt_loop_new(NULL);
    calm.s = (rt_session *)calloc((size_t)set.stayers, sizeof *calm.s);
    if (!calm.loop || !calm.s)
        fail("stayers");
    calm_dial();
    fd = calm_timer();
    if (!rt_watch_start(calm.loop, fd, RT_READ, calm_due, &fd).id)
        fail("stayers");
    calm_tick(calm.loop, NULL);
    rt_run(calm.loop);
    rt_loop_free(calm.loop);
    close(fd);
}

/* ---- the conductor: a run ----------------------------------------------- */

static pid_t children[PROCESSES];

static void children_kill(void)
{
    for (int i = 0; i < PROCESSES; i++)
        if (children[i] > 0)
            kill(children[i], SIGKILL);
}

static void child_start(int which, void (*run)(void))
{
    fflush(NULL);
    children[which] = fork();
    if (children[which] < 0)
        fail("fork");
    if (children[which] > 0)
        return;
    run();
    _exit(0);
}

static void give_up(const char *what)
{
    fprintf(stderr, "storm: %s\n", what);
    children_kill();
    exit(1);
}

/* Until *what is at least so much; 0 when the time is over. */
static int wait_for(const int *what, long least, double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * SECOND);
    const struct timespec nap = {0, 5000000};
    while (__atomic_load_n(what, __ATOMIC_ACQUIRE) < least) {
        if (now_ns() > end)
            return 0;
        nanosleep(&nap, NULL);
        for (int i = 0; i < PROCESSES; i++)
            if (children[i] > 0 && waitpid(children[i], NULL, WNOHANG) != 0) {
                children[i] = 0;
                give_up("one of the processes has ended");
            }
    }
    return 1;
}

static void pass(double seconds)
{
    const int never = 0;
    wait_for(&never, 1, seconds);
}

static void phase_set(int to)
{
    __atomic_store_n(&at->phase, to, __ATOMIC_RELEASE);
}

static void *shared(size_t count, size_t size)
{
    void *p = mmap(NULL, count * size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        fail("mmap");
    return p;
}

static void stage_open(void)
{
    double talk = set.quiet + set.seconds + 5;
    at = (stage *)shared(1, sizeof *at);
    at->server.sample = (sample *)shared(SAMPLES, sizeof(sample));
    at->clients.back_ns =
        (uint64_t *)shared((size_t)set.clients, sizeof(uint64_t));
    at->clients.tries =
        (uint32_t *)shared((size_t)set.clients, sizeof(uint32_t));
    at->stayers.cap = (size_t)(talk * (double)(set.stayers * set.pace)) + 1000;
    at->stayers.trip = (trip *)shared(at->stayers.cap, sizeof(trip));
}

static void run_start(void)
{
    double ramp = (double)set.clients / (double)set.rate;
    child_start(0, host_run);
    if (!wait_for(&at->ports[0], 1, 10) || !wait_for(&at->ports[1], 1, 10))
        give_up("the server does not listen");
    child_start(1, crowd_run);
    child_start(2, calm_run);
    if (!wait_for(&at->opened, set.clients, ramp * 3 + 20) ||
        !wait_for(&at->seated, set.stayers, 10))
        give_up("not everybody could connect");
    pass(1);
}

/* The storm is over when the last one is back. */
static void run_judge_end(void)
{
    for (long i = 0; i < set.clients; i++)
        if (at->clients.back_ns[i] > at->end_ns)
            at->end_ns = at->clients.back_ns[i];
    if (at->back < set.clients)
        at->end_ns = at->storm_ns + (uint64_t)(set.seconds * SECOND);
}

static void run(void)
{
    stage_open();
    run_start();
    at->quiet_ns = now_ns();
    phase_set(PHASE_QUIET);
    pass(set.quiet);
    at->storm_ns = now_ns();
    phase_set(PHASE_STORM);
    wait_for(&at->back, set.clients, set.seconds);
    run_judge_end();
    pass(1);
    phase_set(PHASE_COUNT);
    wait_for(&at->counted, set.clients, 10);
    phase_set(PHASE_END);
    for (int i = 0; i < PROCESSES; i++)
        waitpid(children[i], NULL, 0);
    memset(children, 0, sizeof children);
}

/* ---- the command line --------------------------------------------------- */

static void settings_read(int argc, char **argv)
{
    const option table[] = {
        {"clients", OPTION_INT, &set.clients, 1, AWAY_MOST,
         "who lose their server and come back (10000)"},
        {"rate", OPTION_INT, &set.rate, 1, 1000000,
         "connections that are admitted a second (1000)"},
        {"burst", OPTION_INT, &set.burst, 1, 1000000,
         "and how many at once (100)"},
        {"stayers", OPTION_INT, &set.stayers, 1, 10000,
         "who stay connected, and measure (64)"},
        {"pace", OPTION_INT, &set.pace, 1, 1000,
         "messages each of them sends a second (20)"},
        {"every", OPTION_REAL, &set.every, 0.01, 1e6,
         "seconds between two notes of a client, and to it (10)"},
        {"quiet", OPTION_REAL, &set.quiet, 0.5, 600,
         "seconds before the cut that are measured (5)"},
        {"seconds", OPTION_REAL, &set.seconds, 1, 500,
         "until everybody has to be back (60)"},
        {"runs", OPTION_INT, &set.runs, 1, 99, "how often (1)"},
        {"max-ratio", OPTION_REAL, &set.max_ratio, 0, 1e9,
         "storm's p99 to the quiet one, median of the runs (3)"},
        {"svg", OPTION_TEXT, &set.svg, 0, 0,
         "file for a picture of the run in the middle"},
    };
    option_set all = {"storm", "storm [options]", table,
                      sizeof table / sizeof *table, NULL};
    set = (settings){10000, 1000, 100, 64, 20, 1, 5, 60, 10, 3, NULL};
    options_parse(&all, argc, argv);
}

/* Ten thousand clients need more files than the usual 1,024. */
static void files_raise(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return;
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_max < (rlim_t)set.clients + 100)
        give_up("too few files may be open, see ulimit -Hn");
}

int main(int argc, char **argv)
{
    stage **runs;
    double *row;
    int failed;
    settings_read(argc, argv);
    files_raise();
    runs = (stage **)calloc((size_t)set.runs, sizeof *runs);
    row = (double *)calloc((size_t)set.runs * ROWS, sizeof *row);
    if (!runs || !row)
        fail("storm");
    for (long i = 0; i < set.runs; i++) {
        run();
        runs[i] = at;
        result_read(&set, at, row + i * ROWS);
        fprintf(stderr, "run %ld of %ld: all back after %.1f s, ratio %.2f\n",
                i + 1, set.runs, row[i * ROWS + BACK_ALL],
                row[i * ROWS + RATIO]);
    }
    result_table(&set, row);
    if (set.svg &&
        picture_write(set.svg, &set, runs[result_median(&set, row)]) < 0)
        fail(set.svg);
    failed = result_judge(&set, runs, row);
    free(runs);
    free(row);
    return failed > 0;
}
