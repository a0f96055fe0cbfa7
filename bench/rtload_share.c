/*
 * Several processes as one: each runs a part of the connections in a load of
 * its own, which stands in memory that all of them map.  The parent opens
 * nothing; it says when all begin, and adds up.  Each field has one writer, and
 * what is added up is read when its writer has ended; only what is shown as
 * progress is read before.
 *
 * And the memory of the server, which is looked at from where that is known.
 */
#include "rtload.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SOURCES_EACH = 20, /* loopback addresses from one process to the next */
    WAIT_NS = 10000000,
    LOOK_NS = 100000000 /* between two looks at the server's memory */
};

/* ---- the server's memory */

uint64_t memory_read(const load *l)
{
    char name[64], line[128];
    unsigned long long kb = 0;
    FILE *f;
    snprintf(name, sizeof name, "/proc/%ld/smaps_rollup", l->set.pid);
    f = fopen(name, "r");
    if (!f)
        return 0;
    errno = ENODATA;
    while (kb == 0 && fgets(line, sizeof line, f))
        if (sscanf(line, "Anonymous: %llu kB", &kb) != 1)
            kb = 0;
    fclose(f);
    return kb * 1024;
}

void memory_opened(load *l)
{
    if (l->set.pid > 0)
        l->memory_after = l->memory_peak = memory_read(l);
}

/* In idle all stay open while it measures, but the last look must be over by
   then; in storm what counts is what is left when it is over. */
static int is_watched(const load *l)
{
    if (l->phase < PHASE_WARMUP || l->phase > PHASE_DRAIN)
        return 0;
    if (l->set.scenario == SCENE_IDLE)
        return l->now + LOOK_NS < l->until;
    return l->set.scenario == SCENE_SLOW;
}

void memory_watch(load *l)
{
    int scene = l->set.scenario;
    uint64_t now;
    if (l->set.pid <= 0)
        return;
    if (scene == SCENE_STORM && l->phase == PHASE_DONE)
        memory_opened(l);
    if (!is_watched(l)) {
        l->memory_look = 0;
        return;
    }
    if (l->now < l->memory_look)
        return;
    now = memory_read(l);
    l->memory_look = l->now + LOOK_NS;
    if (scene == SCENE_IDLE)
        l->memory_after = now;
    if (now > l->memory_peak)
        l->memory_peak = now;
}

/* ---- the parts */

/* What the parent and its children share. */
typedef struct {
    uint64_t go;
    load part[];
} stage;

static volatile sig_atomic_t stop_signal;

static void on_stop(int number)
{
    stop_signal = number;
}

/* The part with that index: whole rooms, where there are rooms. */
static void part_init(load *part, const load *whole, int index, uint64_t *go)
{
    long unit = whole->set.room ? whole->set.room : 1;
    long units = whole->total / unit, n = whole->set.processes;
    long first = units * index / n, end = units * (index + 1) / n;
    *part = *whole;
    part->index = index;
    part->go = go;
    part->base = first * unit;
    part->set.connections = (end - first) * unit;
    part->set.quiet = 1;
    part->set.pid = 0;
    part->source = 1 + index * SOURCES_EACH % SOURCES;
}

/* Never returns. */
static void part_run(load *part, pid_t parent)
{
    int bad;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    bad = load_run(part);
    fflush(stderr);
    _exit(bad < 0 || part->errors > 0 || !part->measured);
}

static void parts_signal(const pid_t *pids, long n, int number)
{
    for (long i = 0; i < n; i++)
        if (pids[i] > 0)
            kill(pids[i], number);
}

/* Returns how many were started: fewer than all when a fork has failed. */
static long parts_start(const load *l, stage *s, pid_t *pids)
{
    pid_t self = getpid();
    long i;
    fflush(stdout);
    for (i = 0; i < l->set.processes; i++) {
        part_init(&s->part[i], l, (int)i, &s->go);
        pids[i] = fork();
        if (pids[i] == 0)
            part_run(&s->part[i], self);
        if (pids[i] < 0)
            break;
    }
    return i;
}

/* Looks who has ended; returns whether one of them did so badly. */
static int parts_reap(load *l, pid_t *pids, long n, long *running)
{
    int status, bad = 0;
    for (long i = 0; i < n; i++) {
        if (pids[i] <= 0 || waitpid(pids[i], &status, WNOHANG) != pids[i])
            continue;
        pids[i] = 0;
        --*running;
        bad |= status != 0;
        if (WIFSIGNALED(status))
            load_error(l, "process %ld was ended by signal %d", i,
                       WTERMSIG(status));
    }
    return bad;
}

/* ---- the whole */

/* The phase of the whole is that of the last part; what it shows is the sum. */
static void whole_look(load *l, const stage *s, long n)
{
    l->now = clock_ns();
    l->phase = PHASE_DONE;
    l->opened = l->alive = 0;
    l->received = 0;
    l->until = s->part[0].until;
    for (long i = 0; i < n; i++) {
        int phase = __atomic_load_n(&s->part[i].phase, __ATOMIC_ACQUIRE);
        if (phase < l->phase)
            l->phase = phase;
        l->opened += s->part[i].opened;
        l->alive += s->part[i].alive;
        l->received += s->part[i].received;
    }
}

static void whole_go(load *l, stage *s)
{
    if (l->phase != PHASE_READY || s->go != 0)
        return;
    memory_opened(l);
    __atomic_store_n(&s->go, clock_ns() + 2 * WAIT_NS, __ATOMIC_RELEASE);
}

static void whole_tick(load *l)
{
    if (l->now < l->tick)
        return;
    l->tick = l->now + 1000000000u;
    load_progress(l);
}

/* Until all have ended.  When one does so badly, the others have to, too. */
static void whole_wait(load *l, stage *s, pid_t *pids, long n)
{
    const struct timespec pause = {0, WAIT_NS};
    long running = n;
    int stopped = n < l->set.processes;
    while (running > 0) {
        int bad = parts_reap(l, pids, n, &running);
        whole_look(l, s, n);
        stopped |= bad || stop_signal;
        if (stopped) /* again and again: one may not have been ready for it */
            parts_signal(pids, n, SIGTERM);
        whole_go(l, s);
        memory_watch(l);
        whole_tick(l);
        nanosleep(&pause, NULL);
    }
}

static void whole_add(load *l, const load *part)
{
    l->sent += part->sent;
    l->received += part->received;
    l->counted += part->counted;
    l->unsent += part->unsent;
    l->errors += part->errors;
    l->acks_sent += part->acks_sent;
    l->acks_received += part->acks_received;
    l->held += part->held;
    l->senders += part->senders;
    l->cpu += part->cpu;
    l->measured &= part->measured;
    l->period |= part->period;
    if (part->from < l->from)
        l->from = part->from;
    if (part->until > l->until)
        l->until = part->until;
    if (part->snapshot_size > 0)
        l->snapshot_size = part->snapshot_size;
    hist_merge(&l->hist, &part->hist);
}

static void whole_sum(load *l, const stage *s)
{
    l->received = 0;
    l->measured = 1;
    l->from = UINT64_MAX;
    l->until = 0;
    for (long i = 0; i < l->set.processes; i++)
        whole_add(l, &s->part[i]);
}

int share_run(load *l)
{
    size_t n = (size_t)l->set.processes;
    size_t size = sizeof(stage) + n * sizeof(load);
    pid_t *pids = calloc(n, sizeof *pids);
    stage *s = mmap(NULL, size, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    long started;
    if (!pids || s == MAP_FAILED) {
        perror("rtload: memory for several processes");
        return -1;
    }
    signal(SIGINT, on_stop);
    signal(SIGTERM, on_stop);
    started = parts_start(l, s, pids);
    if (started < l->set.processes)
        load_error(l, "fork: %s", strerror(errno));
    l->tick = clock_ns() + 1000000000u;
    whole_wait(l, s, pids, started);
    whole_sum(l, s);
    munmap(s, size);
    free(pids);
    return 0;
}
