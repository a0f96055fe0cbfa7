/*
 * A run from the first connection to the last: its phases, when something is
 * due, the deadlines.  Nothing here can wait for ever: a connection that does
 * not get on is an error after set.timeout, and each phase has an end.
 */
#include "rtload.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>

#define SECOND 1000000000u

enum {
    EVENTS = 512,
    OPENING_MAX = 100, /* handshakes in progress: no backlog is overrun */
    READY_NS = 5000000 /* until the others are looked at again */
};

static volatile sig_atomic_t stop_asked;

void drive_stop(int signal_number)
{
    (void)signal_number;
    stop_asked = 1;
}

uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static uint64_t in_ns(double seconds)
{
    return (uint64_t)(seconds * SECOND);
}

/* ---- what may be sent, and what counts */

uint64_t drive_due(const load *l, uint64_t number)
{
    return l->start + (number * l->period >> 16);
}

static int is_running(const load *l)
{
    return l->phase == PHASE_WARMUP || l->phase == PHASE_MEASURE;
}

uint64_t drive_allowed(const load *l, const conn *c)
{
    uint64_t senders = (uint64_t)l->senders;
    if (l->given_up || l->phase > PHASE_DRAIN || l->phase < PHASE_WARMUP)
        return c->begun;
    if (l->period) /* the messages of a schedule go to the senders in turn */
        return (l->due + senders - 1 - c->seat) / senders;
    return is_running(l) ? UINT64_MAX : c->begun;
}

/*
 * A closed loop counts what arrives while it measures.  A schedule counts what
 * was due then, from that time on and no matter when the answer came: what had
 * to wait because the server was slow has waited for the server.
 */
void drive_record(load *l, uint64_t ns)
{
    int arrived = l->phase == PHASE_MEASURE;
    int due = ns >= l->from && ns < l->until;
    l->received++;
    l->moved = l->now;
    if (arrived)
        l->counted++;
    if (l->period ? due : arrived)
        hist_add(&l->hist, l->now - ns);
}

void drive_opened(load *l, conn *c)
{
    if (l->set.scenario != SCENE_STORM) {
        l->opened++;
        c->since = l->now;
        if (c->slow)
            conn_mute(l, c);
        return;
    }
    drive_record(l, c->since);
    conn_finish(l, c);
}

void drive_ended(load *l, const conn *c)
{
    if (l->set.scenario == SCENE_STORM)
        l->spare[l->spares++] = c->id;
}

/* ---- deadlines */

/* When the oldest message of c that is not done began. */
static uint64_t waits_since(const load *l, const conn *c)
{
    uint64_t depth = (uint64_t)l->set.depth;
    uint64_t began = l->times[c->seat * depth + c->done % depth];
    /* In fanout any delivery is progress, in echo only one's own. */
    uint64_t moved = l->missing ? l->moved : c->active;
    return began > moved ? began : moved;
}

static int is_late(const load *l, uint64_t since)
{
    return since < l->now && l->now - since > in_ns(l->set.timeout);
}

static void check_fanout(load *l, conn *c)
{
    uint64_t depth = (uint64_t)l->set.depth;
    conn_fail(l, c, "%u members have not received its message %llu in %g s",
              (unsigned)l->missing[c->seat * depth + c->done % depth],
              (unsigned long long)c->done, l->set.timeout);
}

static void check_open(load *l, conn *c)
{
    if (l->set.scenario == SCENE_MIXED) {
        if (is_late(l, c->since))
            conn_fail(l, c, "no snapshot in %g s", l->set.timeout);
        return;
    }
    if (c->begun == c->done || !is_late(l, waits_since(l, c)))
        return;
    if (l->missing)
        check_fanout(l, c);
    else
        conn_fail(l, c, "no reply to message %llu in %g s",
                  (unsigned long long)c->done, l->set.timeout);
}

/* rtnet.1: who has said nothing for long says `a`. */
static void check_silence(load *l, conn *c)
{
    if (c->fd < 0 || !l->set.resume || l->now - c->said < l->silence)
        return;
    c->ack_owed = 1;
    conn_pump(l, c);
}

static void check_deadline(load *l, conn *c)
{
    if (c->fd < 0)
        return;
    if (c->state == CONN_OPEN) {
        check_open(l, c);
        check_silence(l, c);
    } else if (!is_late(l, c->started))
        return;
    else if (c->state == CONN_CONNECTING)
        conn_fail(l, c, "no connection to %s in %g s", l->target,
                  l->set.timeout);
    else if (c->state == CONN_UPGRADING)
        conn_fail(l, c, "no answer to the upgrade in %g s", l->set.timeout);
    else if (c->state == CONN_GREETING)
        conn_fail(l, c, "no welcome in %g s", l->set.timeout);
    else if (l->phase != PHASE_CLOSING)
        conn_fail(l, c, "the server did not close in %g s", l->set.timeout);
}

/* Once a second. */
static void tick(load *l)
{
    if (l->now < l->tick)
        return;
    l->tick += SECOND;
    for (long i = 0; i < l->set.connections && !l->fatal; i++)
        check_deadline(l, &l->conns[i]);
    load_progress(l);
}

/* ---- sending */

static conn *sender(const load *l, uint64_t seat)
{
    return &l->conns[l->seats[seat]];
}

/* Begins what the schedule has made due. */
static void schedule(load *l)
{
    uint64_t end = l->now < l->until ? l->now : l->until;
    while (l->period && drive_due(l, l->due) < end) {
        conn *c = sender(l, l->due++ % (uint64_t)l->senders);
        if (c->state == CONN_OPEN && l->set.scenario != SCENE_STORM)
            conn_pump(l, c);
    }
}

static int storm_may(const load *l)
{
    if (l->period)
        return l->begun < l->due && !l->given_up;
    return is_running(l);
}

static void storm(load *l)
{
    while (l->spares > 0 && storm_may(l) && !l->fatal) {
        conn *c = &l->conns[l->spare[--l->spares]];
        l->now = clock_ns();
        c->since = l->period ? drive_due(l, l->begun) : l->now;
        l->begun++;
        l->sent++;
        conn_start(l, c);
    }
}

/* Fanout: messages that the last member has make room for others. */
static void refill(load *l)
{
    while (l->refill) {
        conn *c = l->refill;
        l->refill = c->refill_next;
        c->awaited = 0;
        conn_pump(l, c);
    }
}

/* ---- phases */

static void phase_enter(load *l, int phase, double seconds)
{
    l->phase = phase;
    l->phase_end = l->now + in_ns(seconds);
}

static void measure(load *l)
{
    phase_enter(l, PHASE_MEASURE, l->set.duration);
    l->from = l->now;
    l->until = l->phase_end;
    l->cpu = cpu_us();
}

static void begin(load *l)
{
    phase_enter(l, PHASE_WARMUP, l->set.warmup);
    l->start = l->moved = l->now;
    l->from = l->until = UINT64_MAX;
    if (l->set.rate > 0)
        l->period = (uint64_t)(65536e9 / l->set.rate);
    /* Several processes take turns, as their senders do. */
    l->start +=
        (l->period >> 16) * (uint64_t)l->index / (uint64_t)l->set.processes;
    if (l->set.scenario == SCENE_IDLE)
        measure(l);
    l->now = clock_ns(); /* it is a little after the common time */
    for (long i = 0; i < l->senders && is_talking(l) && !l->fatal; i++)
        conn_pump(l, sender(l, (uint64_t)i));
}

/* Begins, at once or when the other processes are ready, too. */
static void ready(load *l)
{
    uint64_t go;
    l->phase = PHASE_READY;
    if (!l->go) {
        memory_opened(l);
        l->now = clock_ns();
        begin(l);
        return;
    }
    go = __atomic_load_n(l->go, __ATOMIC_ACQUIRE);
    if (go == 0 || l->now < go)
        return;
    l->now = go;
    begin(l);
}

static void opening(load *l)
{
    while (l->opened + l->opening < l->set.connections &&
           l->opening < OPENING_MAX && !l->fatal) {
        l->now = clock_ns();
        conn_start(l, &l->conns[l->opened + l->opening]);
    }
    if (l->opened == l->set.connections)
        ready(l);
}

static void drain(load *l)
{
    l->measured = l->phase == PHASE_MEASURE;
    l->until = l->now;
    l->cpu = cpu_us() - l->cpu;
    l->held = l->alive;
    phase_enter(l, PHASE_DRAIN, l->set.timeout);
}

/* Mixed: to the end, each must have got its snapshots. */
static int lacks_snapshot(const load *l, const conn *c)
{
    return l->set.scenario == SCENE_MIXED && c->since < l->until;
}

/* What was begun is done, with rtnet.1 acknowledged, too, and nothing more is
   due. */
static int is_drained(const load *l)
{
    if (l->set.scenario == SCENE_STORM)
        return l->alive == 0 && !storm_may(l);
    for (long i = 0; i < l->senders; i++) {
        const conn *c = sender(l, (uint64_t)i);
        if (c->fd >= 0 &&
            (c->done < drive_allowed(l, c) ||
             (l->set.resume && c->known < c->sent) || lacks_snapshot(l, c)))
            return 0;
    }
    return 1;
}

static uint64_t count_unsent(const load *l)
{
    uint64_t n = 0;
    if (!l->period)
        return 0;
    if (l->set.scenario == SCENE_STORM)
        return l->due - l->begun;
    for (long i = 0; i < l->senders; i++)
        n += drive_allowed(l, sender(l, (uint64_t)i)) -
             sender(l, (uint64_t)i)->begun;
    return n;
}

static void farewell(load *l)
{
    phase_enter(l, PHASE_CLOSING, 2);
    for (long i = 0; i < l->set.connections; i++)
        if (l->conns[i].state == CONN_OPEN)
            conn_finish(l, &l->conns[i]);
    if (l->alive == 0) /* nobody to wait for */
        l->phase = PHASE_DONE;
}

/* Slow: whoever did not read does now, and must find all that was sent. */
static void catch_up(load *l)
{
    phase_enter(l, PHASE_CATCHUP, l->set.timeout);
    l->moved = l->now;
    for (long i = 0; i < l->set.connections && l->sent > 0; i++) {
        conn *c = &l->conns[i];
        if (!c->slow || c->state != CONN_OPEN)
            continue;
        l->behind++;
        if (conn_unmute(l, c) < 0)
            l->behind--;
    }
}

static void catching_up(load *l)
{
    l->phase_end = l->moved + in_ns(l->set.timeout);
    if (l->behind > 0 && l->now < l->phase_end)
        return;
    if (l->behind > 0)
        load_error(l,
                   "%ld slow connections have not got all, and nothing "
                   "more came in %g s",
                   l->behind, l->set.timeout);
    farewell(l);
}

static void draining(load *l)
{
    if (is_drained(l)) {
        if (l->set.slow > 0)
            catch_up(l);
        else
            farewell(l);
    } else if (l->now >= l->phase_end && !l->given_up) {
        /* The server is too far behind: only what is on its way counts. */
        l->unsent = count_unsent(l);
        l->given_up = 1;
        l->phase_end = l->now + in_ns(l->set.timeout);
    } else if (l->now >= l->phase_end) {
        load_error(l, "not all is answered%s %g s after the end",
                   l->set.resume ? " and acknowledged" : "",
                   2 * l->set.timeout);
        farewell(l);
    }
}

/* Whether a connection is left that could do something. */
static int is_alive(const load *l)
{
    return l->alive > 0 || (l->set.scenario == SCENE_STORM && l->spares > 0);
}

/* Brings the run one step on. */
static void step(load *l)
{
    if (is_running(l))
        schedule(l);
    wire_ack_due(l);
    if (l->phase == PHASE_OPENING)
        opening(l);
    else if (l->phase == PHASE_READY)
        ready(l);
    else if (l->phase == PHASE_WARMUP && l->now >= l->phase_end)
        measure(l);
    else if (is_running(l) && (l->now >= l->phase_end || stop_asked))
        drain(l);
    else if (l->phase == PHASE_DRAIN)
        draining(l);
    else if (l->phase == PHASE_CATCHUP)
        catching_up(l);
    else if (l->phase == PHASE_CLOSING &&
             (l->alive == 0 || l->now >= l->phase_end))
        l->phase = PHASE_DONE;
    if (l->set.scenario == SCENE_STORM)
        storm(l);
}

/* Ends a run that cannot go on, with the result so far. */
static void break_off(load *l)
{
    if (l->phase == PHASE_MEASURE)
        drain(l);
    l->phase = PHASE_DONE;
}

/* ---- waiting */

/* The timer is finer than epoll's ms. */
static void arm(load *l, uint64_t when)
{
    struct itimerspec t = {{0, 0}, {0, 0}};
    if (when == l->armed)
        return;
    l->armed = when;
    t.it_value.tv_sec = (time_t)(when / SECOND);
    t.it_value.tv_nsec = (long)(when % SECOND);
    timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &t, NULL);
}

static int wait_ms(load *l)
{
    uint64_t next = l->tick, due;
    if (l->phase == PHASE_READY)
        next = l->now + READY_NS;
    if (l->phase > PHASE_READY && l->phase_end < next)
        next = l->phase_end;
    if (l->memory_look > 0 && l->memory_look < next)
        next = l->memory_look;
    if (l->ack_first && l->ack_first->ack_due < next)
        next = l->ack_first->ack_due;
    if (l->period && is_running(l)) {
        due = drive_due(l, l->due);
        if (due <= l->now)
            return 0;
        if (due < next)
            arm(l, due);
    }
    return next > l->now ? (int)((next - l->now) / 1000000) + 1 : 0;
}

static void wait_events(load *l)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(l->epoll, events, EVENTS, wait_ms(l));
    l->now = clock_ns();
    for (int i = 0; i < n && !l->fatal; i++) {
        if (events[i].data.ptr)
            conn_event(l, events[i].data.ptr, events[i].events);
        if (l->refill)
            refill(l);
    }
    if (n < 0 && errno != EINTR) {
        load_error(l, "epoll_wait: %s", strerror(errno));
        l->fatal = 1;
    }
}

void drive(load *l)
{
    l->now = clock_ns();
    l->tick = l->now + SECOND;
    l->phase = PHASE_OPENING;
    if (l->set.scenario == SCENE_STORM)
        ready(l);
    while (l->phase != PHASE_DONE) {
        tick(l);
        step(l);
        memory_watch(l);
        if (l->fatal || (is_running(l) && !is_alive(l)) ||
            (stop_asked && l->phase <= PHASE_READY))
            break_off(l);
        if (l->phase != PHASE_DONE)
            wait_events(l);
    }
}
