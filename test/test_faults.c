/*
 * Fail the n-th: each scenario is a short program of the whole interface on
 * the simulated kernel, and runs once for each thing that can fail in it.
 *
 *   test_faults [NAME...]       all, or those whose names hold one of these
 *   test_faults --all           and every n of each, many more pairs
 *   test_faults --count         how often each scenario ran
 *   test_faults --scenario N [--backend B] [--memory N [--gone]]
 *       [--call C --nth N [--errno E [--ever] | --bytes B]] [--trace]
 *                               one run, as a failure names it
 *
 * The n-th allocation fails, once, or from then on until the scenario is over;
 * the n-th of each system call fails with each error that it may have, likewise
 * once, or from then on; the n-th recv, send, sendmsg or getrandom moves fewer
 * bytes than it could, or says that it moved more.  n goes from 1 to where a
 * run had no n-th any more.  And an allocation and a call fail, by chance.
 * Without --all, what was tried in another way already and other backends than
 * the first go in steps of three and more.
 *
 * After each run, when all goes well again: the loop waits and does not spin,
 * a bystander is served who was there all the time, so is a new client, and
 * one at a new listener; then the loop ends, and neither memory nor a
 * descriptor is left, each session had one on_close, and that was the last of
 * it.  The bystander says nothing while the scenario runs and has a listener
 * without pings, so that none of the calls that fail is its own (but for the
 * waits, which are everybody's): whatever fails, it lives.  Beside another that
 * talks all the time calls fail once more: if it is not its own descriptor that
 * was hit, it must get each of its answers.  (Whose an allocation is nobody can
 * tell, so those do not fail there.)
 *
 * Not among what fails: clock_gettime, which cannot with the clocks that are
 * asked for, and a short read of the pipe of posts, which holds whole ones
 * alone (pipe(7)).
 */
#include "fault_stage.h"

#include "args.h"
#include "backends.h"
#include "fault_numbers.h"

#include <signal.h>
#include <unistd.h>

/* The scenario makes its loop itself; it ends with no listener; some are told
   that they are refused, which is said once and waits for nothing. */
enum { BARE = 1, DRAINS = 2, HASTY = 4 };

struct scenario {
    const char *name;
    void (*run)(void);
    void (*prepare)(void); /* before there is a loop; NULL: nothing */
    int how;
};

#define SCENE(name)                                                            \
    {                                                                          \
#name, name, NULL, 0                                                   \
    }
#define PREPARED(name, prepare)                                                \
    {                                                                          \
#name, name, prepare, 0                                                \
    }
#define BARELY(name)                                                           \
    {                                                                          \
#name, name, NULL, BARE                                                \
    }
#define REFUSING(name)                                                         \
    {                                                                          \
#name, name, NULL, HASTY                                               \
    }
#define DRAINED(name, prepare)                                                 \
    {                                                                          \
#name, name, prepare, DRAINS                                           \
    }

static const struct scenario scenarios[] = {
#include "fault_table.h"
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* ---- what fails ---------------------------------------------------------- */

/* The nth allocation, and, if gone, those after it; the nth of a call with an
   errno, and, if ever, those after it; or the nth one moves so many bytes, as
   sim_short says.  A place of 0 fails not. */
struct dose {
    int memory, gone;
    enum sim_call call;
    int nth, error, ever;
    size_t bytes;
};

#define NAME_OF(name) #name,
static const char *const call_names[] = {SIM_CALLS(NAME_OF)};

/* Which errors a call may have, as its manual page has them and for a library
   whose descriptors and pointers are good. */
struct errors {
    enum sim_call call;
    int error[12];
};

static const struct errors errors[] = {
    {SIM_accept4,
     {EINTR, EAGAIN, ECONNABORTED, EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO,
      ENETDOWN, EPERM, ETIMEDOUT}},
    {SIM_bind, {EADDRINUSE, EADDRNOTAVAIL, EACCES, ENOMEM, EINVAL}},
    {SIM_close, {EINTR, EIO}},
    {SIM_connect,
     {EINTR, ECONNREFUSED, ENETUNREACH, ETIMEDOUT, EAGAIN, EADDRNOTAVAIL,
      EACCES, ENOBUFS}},
    {SIM_epoll_create1, {EMFILE, ENFILE, ENOMEM}},
    {SIM_epoll_ctl, {ENOMEM, ENOSPC}},
    {SIM_epoll_wait, {EINTR, EBADF}},
    {SIM_fcntl, {EINVAL, EPERM}},
    {SIM_getpeername, {ENOTCONN, ENOBUFS}},
    {SIM_getrandom, {EINTR, EAGAIN, ENOSYS}},
    {SIM_getsockname, {ENOBUFS}},
    {SIM_getsockopt, {ENOBUFS}},
    {SIM_kevent, {EINTR, ENOMEM}},
    {SIM_kqueue, {EMFILE, ENFILE, ENOMEM}},
    {SIM_listen, {EADDRINUSE, ENOBUFS}},
    {SIM_lstat, {ENOENT, EACCES, ENOMEM}},
    {SIM_open, {EMFILE, ENFILE, ENOMEM, EINTR, EACCES}},
    {SIM_pipe2, {EMFILE, ENFILE, ENOMEM}},
    {SIM_read, {EINTR, EAGAIN, EIO}},
    {SIM_recv,
     {EINTR, EAGAIN, ECONNRESET, ETIMEDOUT, EHOSTUNREACH, ENOMEM, ENOBUFS}},
    {SIM_select, {EINTR, ENOMEM}},
    {SIM_send,
     {EINTR, EAGAIN, ECONNRESET, EPIPE, ENOBUFS, ENOMEM, ETIMEDOUT, ENETDOWN}},
    {SIM_sendmsg,
     {EINTR, EAGAIN, ECONNRESET, EPIPE, ENOBUFS, ENOMEM, ETIMEDOUT, ENETDOWN}},
    {SIM_setsockopt, {ENOBUFS, EINVAL, ENOPROTOOPT}},
    {SIM_shutdown, {ENOTCONN, ENOBUFS}},
    {SIM_socket, {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT, EACCES}},
    {SIM_stat, {ENOENT, EACCES, ENOMEM}},
    {SIM_unlink, {ENOENT, EACCES, EROFS}},
    {SIM_write, {EINTR, EAGAIN, EIO}}};

static const enum sim_call movers[] = {SIM_recv, SIM_send, SIM_sendmsg,
                                       SIM_getrandom};

/* Whoever gives more random bytes than were asked for wrote beyond the end. */
static const size_t moves[] = {1, SIM_HALF, SIM_BUT_ONE, SIM_TOO_MANY};

/* How much has failed so far. */
struct tally {
    uint64_t allocations, calls, shorts, pairs;
};

static struct {
    int all, backend, trace;
    int first;  /* backend of those that are there */
    int lively; /* the second bystander talks */
    struct tally tally;
    uint64_t there[SIM_CALL_COUNT], allocated; /* in a run without a fault */
    int counts;                                /* this is one */
    const struct scenario *scenario;           /* under way */
    struct dose dose;
    int bad; /* runs of this case with faults */
} run;

/* What repeats a run. */
static void dose_print(void)
{
    const struct dose *d = &run.dose;

    printf("    --scenario %s --backend %s%s", run.scenario->name,
           backend_names[run.backend], run.lively ? " --lively" : "");
    if (d->memory)
        printf(" --memory %d%s", d->memory, d->gone ? " --gone" : "");
    if (d->nth)
        printf(" --call %s --nth %d", call_names[d->call], d->nth);
    if (d->nth && d->error)
        printf(" --errno %d%s (%s)", d->error, d->ever ? " --ever" : "",
               strerror(d->error));
    else if (d->nth)
        printf(" --bytes %lld", (long long)d->bytes);
    printf("\n");
    fflush(stdout);
}

/* Where a sanitizer, or the alarm, ends the process. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void crashed(int sig)
{
    printf("signal %d in:\n", sig);
    dose_print();
    _exit(1);
}

static void dose_give(const struct dose *d)
{
    sim_fail_memory(d->memory, d->gone);
    if (d->error && d->ever)
        sim_fail_ever(d->call, d->nth, d->error);
    else if (d->error)
        sim_fail(d->call, d->nth, d->error);
    else if (d->nth)
        sim_short(d->call, d->nth, d->bytes);
}

static void dose_end(const struct dose *d)
{
    sim_fail_memory(0, 0);
    sim_fail(d->call, 0, 0);
    sim_short(d->call, 0, 0);
}

/* How often each was there so far. */
struct counter {
    uint64_t allocations, calls[SIM_CALL_COUNT];
};

static void counter_set(struct counter *c)
{
    int i;

    c->allocations = sim_allocations();
    for (i = 0; i < SIM_CALL_COUNT; i++)
        c->calls[i] = sim_calls((enum sim_call)i);
}

/* Was there all that was to fail since then? */
static int dose_taken(const struct dose *d, const struct counter *then)
{
    struct counter now;
    int i;

    counter_set(&now);
    for (i = 0; i < SIM_CALL_COUNT && run.counts; i++)
        run.there[i] = now.calls[i] - then->calls[i];
    if (run.counts)
        run.allocated = now.allocations - then->allocations;
    return now.allocations - then->allocations >= (uint64_t)d->memory &&
           now.calls[d->call] - then->calls[d->call] >= (uint64_t)d->nth;
}

/* ---- one run ------------------------------------------------------------- */

static void hear_log(void *user, int level, const char *text)
{
    (void)user;
    sim_note("log %d: %s", level, text);
}

/* An echo for a client at a port. */
static void served(ws_peer *w, struct mail *m, const char *who)
{
    int i, before = m->count;

    if (!w) {
        sim_fault("%s cannot connect", who);
        return;
    }
    w->on = mail_came;
    w->user = m;
    ws_send(w, WS_TEXT, "are you there?", 14);
    for (i = 0; i < 40 && m->count == before; i++) {
        ws_pump(w);
        turn(10);
        ws_pump(w);
    }
    if (m->count != before + 1 || strcmp(m->last, "are you there?") != 0)
        sim_fault("%s is not served", who);
}

static void served_anew(int port, const char *who)
{
    ws_peer *w = ws_connect(port, "/");
    struct mail m;

    memset(&m, 0, sizeof m);
    served(w, &m, who);
    if (!w)
        return;
    ws_close(w, 1000);
    ws_pump(w);
    turns(2);
    ws_free(w);
    turns(1);
}

static void stage_reset(void)
{
    memset(&st, 0, sizeof st);
    st.loop_opts.backend = run.backend;
    st.loop_opts.realloc = sim_realloc;
    st.loop_opts.log = hear_log;
    st.o.on = handler();
    st.o.ping_ms = RT_OFF;
    st.d.on = handler();
    st.d.ping_ms = RT_OFF;
}

static void stage_open(void)
{
    rt_listen_opts o = {
        .on = {.open = base_open, .message = base_message, .close = told_close},
        .ping_ms = RT_OFF};

    st.loop = rt_loop_new(&st.loop_opts);
    st.base = rt_listen(st.loop, "ws://127.0.0.1:9001", &o);
    if (run.lively) {
        st.talker = ws_connect(BASE, "/");
        served(st.talker, &st.talk, "the one that talks, at first,");
        st.said++;
        st.talk_every = 1;
    }
    st.by = ws_connect(BASE, "/");
    served(st.by, &st.by_mail, "the bystander, at first,");
}

/* Time passes in waits, not in turns that find nothing. */
static void loop_waits(void)
{
    uint64_t before = sim_now();

    turns(30);
    if (sim_now() - before < 10)
        sim_fault("the loop spins");
}

static void fresh_listener_serves(void)
{
    rt_listen_opts o = {
        .on = {.open = base_open, .message = base_message, .close = told_close},
        .ping_ms = RT_OFF};
    rt_listener l = rt_listen(st.loop, "ws://127.0.0.1:9002", &o);

    if (!l.id) {
        sim_fault("a new listener cannot be had");
        return;
    }
    served_anew(FRESH, "a client of a new listener");
    if (rt_unlisten(st.loop, l) != 0)
        sim_fault("rt_unlisten failed");
}

/* Whoever did not read does so now. */
static void all_read(void)
{
    int i;

    for (i = 0; i < st.peer_count; i++) {
        ws_peer *w = st.peers[i];

        w->reads = w->closes = w->pongs = 1;
        if (w->line)
            sim_peer_window(w->line, 65536);
    }
    turns(30);
}

/* Each client of the scenario that is still there is served, or learns that it
   is not. */
static void the_others_are_served(void)
{
    int i, n = st.peer_count, before[PEERS], asked[PEERS];

    for (i = 0; i < n; i++) {
        asked[i] = st.peers[i]->open && !st.peers[i]->close_sent;
        before[i] = st.mail[i].count;
        if (asked[i])
            say(st.peers[i], "and you?");
    }
    turns(20);
    for (i = 0; i < n; i++) {
        ws_peer *w = st.peers[i];

        if (asked[i] && w->line && !w->close_code &&
            st.mail[i].count == before[i])
            sim_fault("client %d is neither served nor told of its end", i);
    }
}

/* Those who read have all that was sent to them. */
static void nothing_waits(void)
{
    rt_session s = {0};

    while ((s = rt_next_session(st.loop, s)).id)
        if (rt_state(st.loop, s) == RT_OPEN && rt_unsent(st.loop, s))
            sim_fault("%d bytes wait for one who reads",
                      (int)rt_unsent(st.loop, s));
}

/* If it was not its own call that failed, all that it said came back. */
static void talker_is_well(void)
{
    ws_peer *w = st.talker;

    if (!w)
        return;
    st.talker = NULL;
    turns(2);
    ws_pump(w);
    turns(2);
    ws_pump(w);
    if (sim_failed_fd() != st.talker_fd &&
        (!w->line || st.talk.count != st.said))
        sim_fault("one that talks got %d of %d answers", st.talk.count,
                  st.said);
    ws_free(w);
}

static void works_again(const struct scenario *s)
{
    talker_is_well();
    loop_waits();
    all_read();
    if (st.finally)
        st.finally();
    st.on_request = NULL;
    st.on_open = NULL;
    st.on_message = NULL;
    st.answer = st.silent = 0;
    nothing_waits();
    if (s->how & DRAINS)
        return;
    if (!(s->how & BARE)) {
        served(st.by, &st.by_mail, "the bystander");
        served_anew(BASE, "a new client");
    }
    fresh_listener_serves();
    if (!st.door_echoes)
        return;
    the_others_are_served();
    if (rt_listener_port(st.loop, st.door) == PORT)
        served_anew(PORT, "a new client of the scenario's listener");
}

static void peers_go(void)
{
    int i;

    for (i = 0; i < st.peer_count; i++)
        ws_free(st.peers[i]);
    for (i = 0; i < st.line_count; i++)
        if (st.lines[i].p)
            sim_peer_close(st.lines[i].p);
    st.peer_count = st.line_count = 0;
}

/* Those that dial, too, which rt_next_session passes over. */
static void all_close(void)
{
    rt_session s = {0};

    while (rt__slot_next(st.loop, &s.id, RT__SESSION))
        rt_close(st.loop, s, 0, NULL);
    turns(3);
}

/* Once all the others are gone, nothing is left of them. */
static void nobody_is_left(void)
{
    rt_loop *l = st.loop;

    peers_go();
    all_close();
    if (st.by)
        ws_free(st.by);
    st.by = NULL;
    pass(200); /* a listener that rests lets the last of them in late */
    all_close();
    pass(16000);
    if (l->conn_count || l->session_count || l->in_use[RT__SHAKE] ||
        l->in_use[RT__SESSION] || l->away_count || l->shake_count)
        sim_fault("left: %u connections, %u sessions, %u handshakes, %u away",
                  l->conn_count, l->in_use[RT__SESSION], l->in_use[RT__SHAKE],
                  l->away_count);
    if (l->timer_users != 1 + l->in_use[RT__LISTENER] + l->in_use[RT__GROUP] +
                              l->in_use[RT__TIMER])
        sim_fault("left: places of %u timers", l->timer_users);
    if (l->dirty || l->crowd_count || l->wake_count || l->dead || l->seats)
        sim_fault("left: work for nobody");
}

static void sessions_ended(void)
{
    int i;

    for (i = 0; i < st.seen_count; i++) {
        if (st.seen[i].closed != (st.seen[i].opened || st.seen[i].dialled))
            sim_fault("a session had %d on_close", st.seen[i].closed);
    }
}

static void stage_close(void)
{
    if (st.loop)
        nobody_is_left();
    rt_loop_free(st.loop);
    st.loop = NULL;
    sessions_ended();
    pump();
    peers_go();
    if (st.talker)
        ws_free(st.talker);
    if (st.by)
        ws_free(st.by);
}

static void scenario_play(const struct scenario *s)
{
    if (s->prepare)
        s->prepare();
    if (!(s->how & BARE))
        stage_open();
}

/* An interruption, a short call, a socket that is not ready after all: nobody
   may notice. */
static int harmless(const struct dose *d)
{
    int hasty = run.scenario->how & HASTY;

    if (d->memory || d->ever || (d->nth && !d->error))
        return !d->memory && !d->ever && d->bytes != SIM_TOO_MANY && !hasty;
    if (!d->nth)
        return 1;
    if (d->error == EAGAIN)
        return !hasty && (d->call == SIM_recv || d->call == SIM_send ||
                          d->call == SIM_sendmsg || d->call == SIM_accept4);
    return d->error == EINTR;
}

/* True when there was an nth to fail. */
static int fails_once(const struct dose *d)
{
    const struct scenario *s = run.scenario;
    sim_opts o = {.seed = 7, .trace = run.trace};
    struct counter then;
    int failed;

    run.dose = *d;
    sim_start(&o);
    stage_reset();
    st.calm = !run.lively && harmless(d);
    run.counts = !d->memory && !d->nth;
    scenario_play(s);
    sim_note("---- the scenario");
    counter_set(&then);
    dose_give(d);
    s->run();
    failed = dose_taken(d, &then);
    dose_end(d);
    sim_note("---- all goes well again");
    if (st.loop)
        works_again(s);
    stage_close();
    return failed;
}

/* The same, and says what was wrong; false also when that is enough. */
static int tried(const struct dose *d)
{
    int failed;

    alarm(30); /* for each, not for all: the machine may be busy */
    failed = fails_once(d);
    if (!sim_end())
        return failed;
    run.bad++;
    CHECK(!*sim_fault_text());
    if (run.bad > 5)
        return 0;
    printf("  %s\n", sim_fault_text());
    dose_print();
    return run.bad < 5 && failed;
}

/* ---- all of them --------------------------------------------------------- */

static void begin(const struct scenario *s, const char *what)
{
    run.scenario = s;
    run.bad = 0;
    test_begin("%s, %s (%s)", s->name, what, backend_names[run.backend]);
}

static void nothing_fails(const struct scenario *s)
{
    struct dose d = {0};

    begin(s, "when nothing fails");
    tried(&d);
    test_end();
}

/* Up to the nth all is as in the run without a fault: is there one? */
static int there(const struct dose *d)
{
    return (uint64_t)d->nth <= run.there[d->call] && run.bad < 5;
}

static void allocations_fail(const struct scenario *s, int gone)
{
    struct dose d = {.memory = 1, .gone = gone};

    begin(s, gone ? "when memory is gone" : "when memory fails");
    for (; (uint64_t)d.memory <= run.allocated && run.bad < 5; d.memory++)
        run.tally.allocations += (uint64_t)tried(&d);
    test_end();
}

/* Every n, or every so many-th: of what was tried in another way already, and
   with the other backends, which differ in their waits alone. */
static int stride(int step)
{
    if (run.all)
        return 1;
    return run.backend == run.first ? step : 4 * step + 1;
}

static void calls_fail(const struct scenario *s)
{
    struct dose d = {0};
    size_t i;
    int k;

    begin(s, "when calls fail");
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        d.call = errors[i].call;
        for (k = 0; k < 12 && errors[i].error[k]; k++) {
            d.error = errors[i].error[k];
            for (d.nth = 1; there(&d); d.nth += stride(1))
                run.tally.calls += (uint64_t)tried(&d);
        }
    }
    test_end();
}

/* What may go on for ever: not that it was interrupted, or that what was told
   is not there; and each error of accept but for want of something takes one
   off its queue. */
static int endless(enum sim_call call, int error)
{
    if (error == EINTR || error == EAGAIN || call == SIM_epoll_wait ||
        call == SIM_kevent || call == SIM_select || call == SIM_read)
        return 0;
    return call != SIM_accept4 || error == EMFILE || error == ENFILE ||
           error == ENOBUFS || error == ENOMEM;
}

static void calls_fail_for_ever(const struct scenario *s)
{
    struct dose d = {.ever = 1};
    size_t i;
    int k;

    begin(s, "when calls fail for ever");
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        d.call = errors[i].call;
        for (k = 0; k < 12 && errors[i].error[k]; k++) {
            d.error = errors[i].error[k];
            if (!endless(d.call, d.error))
                continue;
            for (d.nth = 1; there(&d); d.nth += stride(3))
                run.tally.calls += (uint64_t)tried(&d);
        }
    }
    test_end();
}

static void moves_fail(const struct scenario *s)
{
    struct dose d = {0};
    size_t i, k;

    begin(s, "when calls are short");
    for (i = 0; i < sizeof movers / sizeof *movers; i++) {
        d.call = movers[i];
        for (k = 0; k < sizeof moves / sizeof *moves; k++) {
            d.bytes = moves[k];
            if (d.call == SIM_getrandom && d.bytes == SIM_TOO_MANY)
                continue;
            for (d.nth = 1; there(&d); d.nth += stride(1))
                run.tally.shorts += (uint64_t)tried(&d);
        }
    }
    test_end();
}

/* A number below n that is the same in each run of this program. */
static int drawn(uint64_t *x, int n)
{
    *x = *x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((*x >> 33) % (uint64_t)n);
}

/* What breaks a connection, beside another one that goes on all the time. */
static void calls_fail_beside_another(const struct scenario *s)
{
    static const struct errors broken[] = {
        {SIM_accept4, {ECONNABORTED, EMFILE}},
        {SIM_close, {EIO}},
        {SIM_connect, {ECONNREFUSED}},
        {SIM_epoll_ctl, {ENOSPC}},
        {SIM_getpeername, {ENOTCONN}},
        {SIM_recv, {ECONNRESET}},
        {SIM_send, {EPIPE, EAGAIN}},
        {SIM_sendmsg, {EPIPE, EAGAIN}},
        {SIM_setsockopt, {EINVAL}},
        {SIM_shutdown, {ENOTCONN}},
        {SIM_socket, {EMFILE}}};
    struct dose d = {0};
    size_t i;
    int k;

    begin(s, "when calls fail beside another");
    run.lively = 1;
    tried(&d); /* what there is to fail now */
    for (i = 0; i < sizeof broken / sizeof *broken; i++) {
        d.call = broken[i].call;
        for (k = 0; broken[i].error[k]; k++) {
            d.error = broken[i].error[k];
            for (d.nth = 1; there(&d); d.nth += stride(3))
                run.tally.calls += (uint64_t)tried(&d);
        }
    }
    run.lively = 0;
    test_end();
}

static int error_drawn(uint64_t *x, const struct errors *e)
{
    int k = 0;

    while (k < 12 && e->error[k])
        k++;
    return e->error[drawn(x, k)];
}

/* An allocation and a call, by chance, of those that there are. */
static void both_fail(const struct scenario *s, int pairs)
{
    struct dose d = {0};
    uint64_t x = 1;
    int i;

    begin(s, "when memory and calls fail");
    for (i = 0; i < pairs && run.allocated; i++) {
        const struct errors *e =
            &errors[drawn(&x, (int)(sizeof errors / sizeof *errors))];

        if (!run.there[e->call])
            continue;
        d.call = e->call;
        d.error = error_drawn(&x, e);
        d.memory = 1 + drawn(&x, (int)run.allocated);
        d.gone = drawn(&x, 4) == 0;
        d.nth = 1 + drawn(&x, (int)run.there[e->call]);
        run.tally.pairs += (uint64_t)tried(&d);
    }
    test_end();
}

/* What has failed since then. */
static void tally_print(const struct tally *since)
{
    const struct tally *t = &run.tally;

    printf(" %llu allocations, %llu system calls, %llu shorts, %llu pairs\n",
           (unsigned long long)(t->allocations - since->allocations),
           (unsigned long long)(t->calls - since->calls),
           (unsigned long long)(t->shorts - since->shorts),
           (unsigned long long)(t->pairs - since->pairs));
}

static void scenario_run(const struct scenario *s, int count)
{
    struct tally t = run.tally;

    nothing_fails(s);
    allocations_fail(s, 0);
    allocations_fail(s, 1);
    calls_fail(s);
    calls_fail_for_ever(s);
    moves_fail(s);
    both_fail(s, run.all ? 5000 : 200 / stride(1));
    if (!(s->how & (BARE | DRAINS)))
        calls_fail_beside_another(s);
    if (!count)
        return;
    printf("%-50s", s->name);
    tally_print(&t);
}

static void all_run(int argc, char **argv)
{
    struct tally none = {0, 0, 0, 0};
    size_t i;

    for (i = 0; i < SCENARIOS; i++) {
        if (!wanted(scenarios[i].name, argc, argv))
            continue;
        for (run.backend = run.first; run.backend;
             run.backend = backend_next(run.backend))
            scenario_run(&scenarios[i], flag(argc, argv, "--count"));
    }
    printf("fault points%s:", run.all ? "" : " (a part of --all)");
    tally_print(&none);
}

/* ---- what was found ------------------------------------------------------ */

/* By the n of the day on which it was found; the loops have all the others. */
static const struct found {
    const char *name, *scenario;
    struct dose dose;
} found[] = {
    {"who says that more was sent than there was breaks the line",
     "a_foreign_loop_drives_it",
     {.call = SIM_send, .nth = 1, .bytes = SIM_TOO_MANY}},
    {"a connection lost while it is confirmed sets no timer",
     "a_return_takes_snapshots_and_limits_along",
     {.call = SIM_epoll_ctl, .nth = 7, .error = ENOMEM}},
    {"a message that costs the line and finds no memory is counted as lost",
     "a_slow_one_goes_away_and_comes_back",
     {.memory = 16}},
    {"a refusal that was interrupted is said",
     "newcomers_come_too_fast",
     {.call = SIM_send, .nth = 2, .error = EINTR}},
    {"who was told of the first member is told of the last",
     "a_group_is_fed_from_upstream",
     {.memory = 13, .gone = 1}},
    {"a client refuses what it has no memory to keep",
     "numbers_are_exchanged_over_streams",
     {.memory = 28}},
};

static const struct scenario *scenario_find(const char *name)
{
    size_t i;

    for (i = 0; i < SCENARIOS; i++)
        if (strcmp(scenarios[i].name, name) == 0)
            return &scenarios[i];
    return NULL;
}

static void found_run(void)
{
    size_t i;

    run.backend = run.first;
    for (i = 0; i < sizeof found / sizeof *found; i++) {
        begin(scenario_find(found[i].scenario), "once");
        test_begin("%s", found[i].name);
        tried(&found[i].dose);
        test_end();
    }
}

/* ---- one of them --------------------------------------------------------- */

static struct dose dose_read(int argc, char **argv)
{
    struct dose d = {0};
    int i;

    for (i = 0; i < SIM_CALL_COUNT; i++)
        if (!strcmp(call_names[i], word_option(argc, argv, "--call", "")))
            d.call = (enum sim_call)i;
    d.nth = (int)option(argc, argv, "--nth", 0);
    d.error = (int)option(argc, argv, "--errno", 0);
    d.ever = flag(argc, argv, "--ever");
    d.bytes = (size_t)option(argc, argv, "--bytes", 0);
    d.memory = (int)option(argc, argv, "--memory", 0);
    d.gone = flag(argc, argv, "--gone");
    return d;
}

static int replay(int argc, char **argv)
{
    const struct scenario *s =
        scenario_find(word_option(argc, argv, "--scenario", ""));
    const char *backend = word_option(argc, argv, "--backend", "");
    struct dose d = dose_read(argc, argv);

    run.backend = *backend ? backend_find(backend) : run.first;
    run.trace = flag(argc, argv, "--trace");
    run.lively = flag(argc, argv, "--lively");
    if (!s) {
        printf("there is no such scenario\n");
        return 2;
    }
    begin(s, "once");
    tried(&d);
    test_end();
    return test_done();
}

static void died(void)
{
    dose_print();
}

int main(int argc, char **argv)
{
    signal(SIGALRM, crashed);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(died);
    else
        signal(SIGSEGV, crashed);
    run.all = flag(argc, argv, "--all");
    run.first = backend_next(RT_AUTO);
    if (flag(argc, argv, "--scenario"))
        return replay(argc, argv);
    found_run();
    all_run(argc, argv);
    return test_done();
}
