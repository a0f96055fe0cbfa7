/*
 * rtload, the load generator: command line and start.
 */
#include "rtload.h"
#include "options.h"
#include "socket.h"
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    SPARE_FILES = 16,
    PROCESSES_MAX = 64,
    INPUTS_PER_S = 20 /* mixed: of each player, if no rate is given */
};

static load the_load;

/* ---- command line */

static const char usage[] =
    "rtload URL [options]\n"
    "URL is ws://host:port/path, host an address or localhost.  Scenarios:\n"
    "  echo    each message is returned to its sender\n"
    "  sparse  echo, and --active of the connections send\n"
    "  fanout  each message is sent to all connections, the sender too\n"
    "  slow    fanout, and --slow of the connections never read\n"
    "  rooms   fanout to the --room members of /0, of /1, ..., and all send\n"
    "  mixed   inputs to rooms, and snapshots from the server's tick\n"
    "  storm   connect, upgrade, close, and again\n"
    "  idle    connect and stay\n"
    "Ends with 0 when every message was right, 1 when not, 2 when misused.\n"
    "Options:";

static void scenario_read(const option_set *set, settings *s)
{
    static const char *const names[] = {"echo",  "sparse", "fanout", "slow",
                                        "rooms", "mixed",  "storm",  "idle"};
    for (int i = 0; i <= SCENE_IDLE; i++) {
        if (strcmp(s->scenario_name, names[i]) != 0)
            continue;
        s->scenario = i;
        return;
    }
    options_fail(set,
                 "--scenario: '%s' is not echo, sparse, fanout, slow, rooms, "
                 "mixed, storm or idle",
                 s->scenario_name);
}

/* An option of one or two scenarios: its default there, wrong elsewhere. */
static void only_with(const option_set *set, const char *name, long *value,
                      int here, long preset)
{
    if (!here && *value != 0)
        options_fail(set, "--%s: not in this scenario", name);
    if (here && *value == 0)
        *value = preset;
}

static void judge_scenario(const option_set *set, settings *s)
{
    int slow = s->scenario == SCENE_SLOW, rooms = in_rooms(&the_load);
    only_with(set, "active", &s->active, s->scenario == SCENE_SPARSE, 10);
    only_with(set, "slow", &s->slow, slow, (s->connections + 9) / 10);
    only_with(set, "room", &s->room, rooms, 4);
    if (s->active > s->connections || s->senders > s->connections)
        options_fail(set, "--%s: there are only %ld connections",
                     s->active ? "active" : "senders", s->connections);
    if (slow && s->slow > s->connections - s->senders)
        options_fail(set, "--slow: of %ld connections, %ld send",
                     s->connections, s->senders);
    if (rooms && s->connections % s->room != 0)
        options_fail(set, "--room: %ld connections make no rooms of %ld",
                     s->connections, s->room);
    if (rooms && strpbrk(s->url, "?"))
        options_fail(set, "'%s': the path ends with the room's number", s->url);
    if (is_fan(&the_load) && s->size < STAMP_MAX)
        options_fail(set, "--size: %s needs at least %d bytes",
                     s->scenario_name, STAMP_MAX);
    if (s->scenario == SCENE_MIXED && s->rate == 0)
        s->rate = INPUTS_PER_S * (double)s->connections;
    if (s->scenario == SCENE_IDLE)
        s->rate = 0;
}

static void judge_raw(const option_set *set, const settings *s)
{
    if (s->raw && (!is_echo(&the_load) || s->size < 1))
        options_fail(
            set, "--raw: only with echo or sparse, and messages of some size");
    if (s->raw && s->resume)
        options_fail(set, "--resume: not with --raw");
    if (s->slow && s->resume)
        options_fail(set, "--resume: who never reads cannot acknowledge");
}

static void judge_processes(const option_set *set, const settings *s)
{
    long units = s->connections / (s->room ? s->room : 1);
    if (s->processes == 1)
        return;
    if (is_fan(&the_load) && s->scenario != SCENE_ROOMS)
        options_fail(set, "--processes: what one sends, all the others must "
                          "get, and only one process can count that");
    if (s->processes > units)
        options_fail(set, "--processes: there are only %ld %s", units,
                     s->room ? "rooms" : "connections");
}

static void settings_judge(const option_set *set, settings *s)
{
    load *l = &the_load;
    const char *bad;
    scenario_read(set, s);
    if (!s->url)
        options_fail(set, "the URL is missing");
    bad = client_target(l);
    if (bad)
        options_fail(set, "'%s': %s", s->url, bad);
    socket_judge(set, s->congestion);
    judge_scenario(set, s);
    judge_raw(set, s);
    judge_processes(set, s);
    if (s->pid > 0)
        l->memory_before = memory_read(l);
    if (s->pid > 0 && l->memory_before == 0)
        options_fail(set, "--pid: /proc/%ld/smaps_rollup: %s", s->pid,
                     strerror(errno));
}

static void settings_read(int argc, char **argv)
{
    settings *s = &the_load.set;
    const option table[] = {
        {"scenario", OPTION_TEXT, &s->scenario_name, 0, 0,
         "which of those above (echo)"},
        {"connections", OPTION_INT, &s->connections, 1, 1000000,
         "how many at a time (1)"},
        {"size", OPTION_INT, &s->size, 0, 64 << 20,
         "bytes of a message; 16K is 16384 (64)"},
        {"depth", OPTION_INT, &s->depth, 1, 65536,
         "messages in flight per sender, at most (1)"},
        {"rate", OPTION_REAL, &s->rate, 0, 1e9,
         "messages per second in all, on schedule; 0: each after the"
         " last (0)"},
        {"duration", OPTION_REAL, &s->duration, 0.001, 1e6,
         "seconds to measure (5)"},
        {"warmup", OPTION_REAL, &s->warmup, 0, 1e6, "seconds before that (1)"},
        {"senders", OPTION_INT, &s->senders, 1, 1000000,
         "fanout: how many of the connections send (1)"},
        {"active", OPTION_INT, &s->active, 1, 1000000,
         "sparse: how many send (10)"},
        {"slow", OPTION_INT, &s->slow, 1, 1000000,
         "slow: how many never read, until all is over (a tenth)"},
        {"room", OPTION_INT, &s->room, 1, 1000000,
         "rooms, mixed: members of each (4)"},
        {"processes", OPTION_INT, &s->processes, 1, PROCESSES_MAX,
         "how many share the connections (1)"},
        {"pid", OPTION_INT, &s->pid, 1, 1 << 30,
         "the server's process, to look at its memory"},
        {"timeout", OPTION_REAL, &s->timeout, 0.1, 1e6,
         "seconds until a silent server is an error (10)"},
        {"congestion", OPTION_TEXT, &s->congestion, 0, 0,
         "TCP's congestion control, like cubic (the system's)"},
        {"rcvbuf", OPTION_INT, &s->rcvbuf, 0, 1 << 30,
         "bytes of a socket's receive buffer; 0: it grows (0)"},
        {"text", OPTION_FLAG, &s->text, 0, 0, "text messages, not binary"},
        {"resume", OPTION_FLAG, &s->resume, 0, 0,
         "speak rtnet.1, so that sessions could be resumed; none is"},
        {"raw", OPTION_FLAG, &s->raw, 0, 0,
         "echo: bytes over TCP, no WebSocket (for bench/limit)"},
        {"json", OPTION_FLAG, &s->json, 0, 0, "the result as a JSON object"},
        {"quiet", OPTION_FLAG, &s->quiet, 0, 0, "no progress on stderr"},
        {"help", OPTION_FLAG, NULL, 0, 0, "this"},
    };
    option_set set = {"rtload", usage, table, sizeof table / sizeof *table,
                      &s->url};
    options_parse(&set, argc, argv);
    settings_judge(&set, s);
}

/* ---- start */

static int die(const char *what)
{
    fprintf(stderr, "rtload: %s: %s\n", what, strerror(errno));
    return -1;
}

/* Raises the limit of open files as far as needed, if it may. */
static int raise_limit(const load *l)
{
    rlim_t need = (rlim_t)l->set.connections + SPARE_FILES;
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        return die("getrlimit");
    if (files.rlim_cur >= need)
        return 0;
    files.rlim_cur = need;
    if (files.rlim_max < need)
        files.rlim_max = need; /* root may */
    if (setrlimit(RLIMIT_NOFILE, &files) == 0)
        return 0;
    getrlimit(RLIMIT_NOFILE, &files);
    fprintf(stderr,
            "rtload: %ld connections need %llu open files, and the limit is "
            "%llu: raise it (ulimit -n %llu, or limits.conf), or use several "
            "processes\n",
            l->set.connections, (unsigned long long)need,
            (unsigned long long)files.rlim_max, (unsigned long long)need);
    return -1;
}

long count_senders(const load *l)
{
    const settings *s = &l->set;
    if (s->scenario == SCENE_IDLE)
        return 0;
    if (s->scenario == SCENE_SPARSE)
        return s->active;
    return s->scenario == SCENE_FANOUT || s->scenario == SCENE_SLOW ? s->senders
                                                                    : l->total;
}

/* Who sends: evenly spread over all, but in fanout the first ones.  Some of
   them are connections of this process. */
static int seats_take(load *l)
{
    long all = count_senders(l), n = l->set.connections;
    l->senders = 0;
    l->seats = calloc((size_t)n, sizeof *l->seats);
    for (long i = 0; i < all && l->seats; i++) {
        long id = (is_fan(l) ? i : i * l->total / all) - l->base;
        if (id < 0 || id >= n)
            continue;
        l->conns[id].seat = (uint32_t)l->senders;
        l->seats[l->senders++] = (uint32_t)id;
    }
    return l->seats ? 0 : -1;
}

/* The rates count for all processes together. */
static void rate_share(load *l)
{
    long all = count_senders(l);
    if (l->set.processes > 1 && all > 0)
        l->set.rate *= (double)l->senders / (double)all;
}

static int allocate_fan(load *l, size_t ring)
{
    size_t n = (size_t)l->set.connections;
    int rooms = l->set.scenario == SCENE_ROOMS;
    l->talkers = rooms ? l->members : l->senders;
    l->missing = calloc(ring, sizeof *l->missing);
    l->next = calloc(n * (size_t)l->talkers, sizeof *l->next);
    return l->missing && l->next ? 0 : -1;
}

static void conns_init(load *l)
{
    long n = l->set.connections;
    for (long i = 0; i < n; i++) {
        conn *c = &l->conns[i];
        c->id = (uint32_t)i;
        c->fd = -1;
        c->seat = NO_SEAT;
        c->slow = i >= n - l->set.slow;
        l->spare[l->spares++] = (uint32_t)(n - 1 - i);
    }
}

static int allocate(load *l)
{
    size_t n = (size_t)l->set.connections, ring;
    l->conns = calloc(n, sizeof *l->conns);
    l->spare = calloc(n, sizeof *l->spare);
    if (!l->conns || !l->spare || wire_init(l) < 0)
        return die("allocating");
    conns_init(l);
    if (seats_take(l) < 0)
        return die("allocating");
    rate_share(l);
    l->members = l->set.room ? l->set.room : l->set.connections;
    ring = (size_t)l->senders * (size_t)l->set.depth;
    l->times = calloc(ring + 1, sizeof *l->times);
    if (!l->times || (is_fan(l) && allocate_fan(l, ring) < 0))
        return die("allocating counters");
    return 0;
}

static int open_files(load *l)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->epoll < 0 || l->timer < 0)
        return die("epoll");
    event.data.ptr = NULL;
    if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->timer, &event) < 0)
        return die("epoll_ctl");
    return 0;
}

static void release(load *l)
{
    for (long i = 0; i < l->set.connections; i++) {
        if (l->conns[i].fd >= 0)
            close(l->conns[i].fd);
        free(l->conns[i].answer);
    }
    close(l->epoll);
    close(l->timer);
    free(l->conns);
    free(l->spare);
    free(l->times);
    free(l->seats);
    free(l->missing);
    free(l->next);
    free(l->frame);
    free(l->plain);
    free(l->in);
    free(l->out);
}

int load_run(load *l)
{
    if (raise_limit(l) < 0 || open_files(l) < 0 || allocate(l) < 0)
        return -1;
    signal(SIGINT, drive_stop);
    signal(SIGTERM, drive_stop);
    drive(l);
    release(l);
    return 0;
}

int main(int argc, char **argv)
{
    load *l = &the_load;
    int bad;
    l->set = (settings){.scenario_name = "echo",
                        .connections = 1,
                        .size = 64,
                        .depth = 1,
                        .senders = 1,
                        .processes = 1,
                        .duration = 5,
                        .warmup = 1,
                        .timeout = 10};
    settings_read(argc, argv);
    l->total = l->set.connections;
    bad = l->set.processes > 1 ? share_run(l) : load_run(l);
    bad = bad < 0 ? 1 : load_result(l);
    free(l->request);
    return bad;
}
