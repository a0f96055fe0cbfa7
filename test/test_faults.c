/*
 * Fail the n-th: each scenario is a short program of the whole interface on
 * the simulated kernel, and runs once for each thing that can fail in it.
 *
 *   test_faults [NAME...]       all, or those whose names hold one of these
 *   test_faults --all           with both backends, from the first to the last
 *   test_faults --count         how often each scenario ran
 *   test_faults --scenario N [--backend B] [--memory N [--gone]]
 *       [--call C --nth N --errno E] [--call C --nth N --bytes B] [--trace]
 *                               one run, as a failure names it
 *
 * The n-th allocation fails, once, or from then on until the scenario is over;
 * the n-th of each system call fails with each error that it may have; the n-th
 * recv, send, sendmsg or getrandom moves fewer bytes than it could, or says
 * that it moved more.  n goes from 1 to where a run had no n-th any more.
 *
 * After each run, when all goes well again: the loop waits and does not spin,
 * a bystander is served who was there all the time, so is a new client, and
 * one at a new listener; then the loop ends, and neither memory nor a
 * descriptor is left, each session had one on_close, and that was the last of
 * it.  The bystander says nothing while the scenario runs and has a listener
 * without pings, so that none of the calls that fail is its own (but for the
 * waits, which are everybody's): whatever fails, it lives.
 *
 * Not among what fails: clock_gettime, which cannot with the clocks that are
 * asked for, and a short read of the pipe of posts, which holds whole ones
 * alone (pipe(7)).
 */
#include "fault_stage.h"

#include "args.h"
#include "fault_loops.h"
#include "fault_sessions.h"
#include "fault_groups.h"

#include <signal.h>
#include <unistd.h>

/* The scenario makes its loop itself; it ends with no listener. */
enum { BARE = 1, DRAINS = 2 };

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
#define DRAINED(name, prepare)                                                 \
    {                                                                          \
        #name, name, prepare, DRAINS                                           \
    }

static const struct scenario scenarios[] = {
#include "fault_table.h"
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* ---- what fails -------------------------------------------------------------- */

enum dose_kind { NOTHING, MEMORY, GONE, CALL, SHORT };

/* The nth allocation; the nth call with an errno, or as sim_short. */
struct dose {
    enum dose_kind kind;
    int nth;
    enum sim_call call;
    int error;
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
    {SIM_socket,
     {EMFILE, ENFILE, ENOBUFS, ENOMEM, EAFNOSUPPORT, EACCES}},
    {SIM_stat, {ENOENT, EACCES, ENOMEM}},
    {SIM_unlink, {ENOENT, EACCES, EROFS}},
    {SIM_write, {EINTR, EAGAIN, EIO}}};

static const enum sim_call movers[] = {SIM_recv, SIM_send, SIM_sendmsg,
                                       SIM_getrandom};

/* Whoever gives more random bytes than were asked for wrote beyond the end. */
static const size_t moves[] = {1, SIM_HALF, SIM_BUT_ONE, SIM_TOO_MANY};

static struct {
    int all, backend, trace;
    uint64_t allocations, calls, shorts; /* that failed so far */
    const struct scenario *scenario;     /* under way */
    struct dose dose;
    int bad; /* runs of this case with faults */
} run;

/* What repeats a run. */
static void dose_print(void)
{
    const struct dose *d = &run.dose;

    printf("    --scenario %s --backend %d", run.scenario->name, run.backend);
    if (d->kind == MEMORY || d->kind == GONE)
        printf(" --memory %d%s", d->nth, d->kind == GONE ? " --gone" : "");
    if (d->kind == CALL)
        printf(" --call %s --nth %d --errno %d (%s)", call_names[d->call],
               d->nth, d->error, strerror(d->error));
    if (d->kind == SHORT)
        printf(" --call %s --nth %d --bytes %lld", call_names[d->call], d->nth,
               (long long)d->bytes);
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

static uint64_t made(const struct dose *d)
{
    if (d->kind == NOTHING)
        return 0;
    return d->kind == MEMORY || d->kind == GONE ? sim_allocations()
                                                : sim_calls(d->call);
}

static void dose_give(const struct dose *d)
{
    if (d->kind == MEMORY || d->kind == GONE)
        sim_fail_memory(d->nth, d->kind == GONE);
    if (d->kind == CALL)
        sim_fail(d->call, d->nth, d->error);
    if (d->kind == SHORT)
        sim_short(d->call, d->nth, d->bytes);
}

static void dose_end(const struct dose *d)
{
    sim_fail_memory(0, 0);
    sim_fail(d->call, 0, 0);
    sim_short(d->call, 0, 0);
}

/* ---- one run -------------------------------------------------------------------- */

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
    rt_listen_opts o = {.on = {.open = base_open,
                               .message = base_message,
                               .close = told_close},
                        .ping_ms = RT_OFF};

    st.loop = rt_loop_new(&st.loop_opts);
    st.base = rt_listen(st.loop, "ws://127.0.0.1:9001", &o);
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
    rt_listen_opts o = {.on = {.open = base_open,
                               .message = base_message,
                               .close = told_close},
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

static void works_again(const struct scenario *s)
{
    loop_waits();
    if (s->how & DRAINS)
        return;
    if (!(s->how & BARE)) {
        served(st.by, &st.by_mail, "the bystander");
        served_anew(BASE, "a new client");
    }
    fresh_listener_serves();
    st.on_request = NULL;
    st.on_open = NULL;
    st.on_message = NULL;
    st.answer = st.silent = 0;
    if (st.door_echoes && rt_listener_port(st.loop, st.door) == PORT)
        served_anew(PORT, "a new client of the scenario's listener");
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
    int i;

    rt_loop_free(st.loop);
    st.loop = NULL;
    sessions_ended();
    pump();
    for (i = 0; i < st.peer_count; i++)
        ws_free(st.peers[i]);
    if (st.by)
        ws_free(st.by);
}

/* True when there was an nth to fail. */
static int fails_once(const struct dose *d)
{
    const struct scenario *s = run.scenario;
    sim_opts o = {.seed = 7, .trace = run.trace};
    uint64_t before;
    int failed;

    run.dose = *d;
    sim_start(&o);
    stage_reset();
    st.calm = d->kind == NOTHING;
    if (s->prepare)
        s->prepare();
    if (!(s->how & BARE))
        stage_open();
    sim_note("---- the scenario");
    before = made(d);
    dose_give(d);
    s->run();
    failed = made(d) - before >= (uint64_t)d->nth;
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
    int failed = fails_once(d);

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

/* ---- all of them ------------------------------------------------------------------ */

static void begin(const struct scenario *s, const char *what)
{
    run.scenario = s;
    run.bad = 0;
    alarm(30);
    test_begin("%s, %s (%s)", s->name, what,
               run.backend == RT_SELECT ? "select" : "epoll");
}

static void nothing_fails(const struct scenario *s)
{
    struct dose d = {NOTHING, 0, SIM_bind, 0, 0};

    begin(s, "when nothing fails");
    tried(&d);
    test_end();
}

static void allocations_fail(const struct scenario *s, enum dose_kind kind)
{
    struct dose d = {kind, 1, SIM_bind, 0, 0};

    begin(s, kind == GONE ? "when memory is gone" : "when memory fails");
    for (; tried(&d); d.nth++)
        run.allocations++;
    test_end();
}

static void calls_fail(const struct scenario *s)
{
    struct dose d = {CALL, 1, SIM_bind, 0, 0};
    size_t i;
    int k;

    begin(s, "when calls fail");
    for (i = 0; i < sizeof errors / sizeof *errors; i++) {
        d.call = errors[i].call;
        for (k = 0; k < 12 && errors[i].error[k]; k++) {
            d.error = errors[i].error[k];
            for (d.nth = 1; tried(&d); d.nth++)
                run.calls++;
        }
    }
    test_end();
}

static void moves_fail(const struct scenario *s)
{
    struct dose d = {SHORT, 1, SIM_recv, 0, 0};
    size_t i, k;

    begin(s, "when calls are short");
    for (i = 0; i < sizeof movers / sizeof *movers; i++) {
        d.call = movers[i];
        for (k = 0; k < sizeof moves / sizeof *moves; k++) {
            d.bytes = moves[k];
            for (d.nth = 1; tried(&d); d.nth++)
                run.shorts++;
        }
    }
    test_end();
}

static int wanted(const char *name, int argc, char **argv)
{
    int i, names = 0;

    for (i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        names++;
        if (strstr(name, argv[i]))
            return 1;
    }
    return !names;
}

static void scenario_run(const struct scenario *s, int count)
{
    uint64_t a = run.allocations, b = run.calls, c = run.shorts;

    nothing_fails(s);
    allocations_fail(s, MEMORY);
    allocations_fail(s, GONE);
    calls_fail(s);
    moves_fail(s);
    if (count)
        printf("%-40s %6llu %6llu %6llu\n", s->name,
               (unsigned long long)(run.allocations - a),
               (unsigned long long)(run.calls - b),
               (unsigned long long)(run.shorts - c));
}

static void all_run(int argc, char **argv)
{
    size_t i;

    for (i = 0; i < SCENARIOS; i++) {
        if (!wanted(scenarios[i].name, argc, argv))
            continue;
        run.backend = RT_EPOLL;
        scenario_run(&scenarios[i], flag(argc, argv, "--count"));
        run.backend = RT_SELECT;
        scenario_run(&scenarios[i], flag(argc, argv, "--count"));
    }
    printf("fault points: %llu allocations, %llu system calls, %llu shorts; "
           "%d scenarios\n",
           (unsigned long long)run.allocations, (unsigned long long)run.calls,
           (unsigned long long)run.shorts, (int)SCENARIOS);
}

/* ---- one of them ------------------------------------------------------------------ */

static const char *text_option(int argc, char **argv, const char *name)
{
    int i;

    for (i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return "";
}

static struct dose dose_read(int argc, char **argv)
{
    struct dose d = {NOTHING, 0, SIM_bind, 0, 0};
    int i;

    for (i = 0; i < SIM_CALL_COUNT; i++)
        if (!strcmp(call_names[i], text_option(argc, argv, "--call")))
            d.call = (enum sim_call)i;
    d.nth = (int)option(argc, argv, "--nth", 0);
    d.error = (int)option(argc, argv, "--errno", 0);
    d.bytes = (size_t)option(argc, argv, "--bytes", 0);
    if (d.nth)
        d.kind = d.error ? CALL : SHORT;
    if (!flag(argc, argv, "--memory"))
        return d;
    d.kind = flag(argc, argv, "--gone") ? GONE : MEMORY;
    d.nth = (int)option(argc, argv, "--memory", 1);
    return d;
}

static int replay(int argc, char **argv)
{
    struct dose d = dose_read(argc, argv);
    size_t i;

    run.backend = (int)option(argc, argv, "--backend", RT_EPOLL);
    run.trace = flag(argc, argv, "--trace");
    for (i = 0; i < SCENARIOS; i++) {
        if (strcmp(scenarios[i].name, text_option(argc, argv, "--scenario")))
            continue;
        begin(&scenarios[i], "once");
        tried(&d);
        test_end();
    }
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
    if (flag(argc, argv, "--scenario"))
        return replay(argc, argv);
    all_run(argc, argv);
    return test_done();
}
