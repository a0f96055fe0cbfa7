/*
 * crossing: what a message costs that goes from one loop to another, for
 * bench/costs.sh.  Two threads with a loop each: every ms the near one sends
 * some, the far one gives them to a group (without members; what those cost is
 * measured elsewhere).  Prints the processor time in us: of the near end and of
 * the far end for a message, less what the clock alone needs, and that: a turn
 * that has slept and finds nothing but its timer.
 *
 *   post   rt_post, as between the loops of a server
 *   line   a stream with a length before each message, as to a broker; with
 *          --lines several, in turn, as from players: on one processor both
 *          ends find all of them ready
 */
#define _POSIX_C_SOURCE 200809L
#include "../rtnet.h"
#include "options.h"
#include <pthread.h>
#include <time.h>

enum {
    LINES = 1000,
    STAMPS = 3
}; /* before the idle phase, between, after the work */

static struct {
    const char *mode;
    long each, size, ms, lines;
    int line; /* mode, as a number */
    rt_loop *near, *far;
    pthread_t thread;
    rt_session to[LINES];
    long open, next;
    uint64_t due; /* of the next tick */
    long ticks;
    double near_us[STAMPS], far_us[STAMPS];
    char payload[65536];
} at = {.each = 10, .size = 64, .ms = 2000, .lines = 1};

static double thread_us(pthread_t thread)
{
    struct timespec t = {0, 0};
    clockid_t clock;
    if (pthread_getcpuclockid(thread, &clock) == 0)
        clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void posted(rt_loop *loop, void *data)
{
    rt_group_deliver(loop, "room", RT_BINARY, data, (size_t)at.size);
}

static void came(rt_loop *loop, rt_session s, int kind, const void *data,
                 size_t len)
{
    (void)s;
    rt_group_deliver(loop, "room", kind, data, len);
}

static void send_all(void)
{
    for (long i = 0; i < at.each; i++) {
        int n = at.line ? rt_send(at.near, at.to[at.next++ % at.lines],
                                  RT_BINARY, at.payload, (size_t)at.size)
                        : rt_post(at.far, posted, at.payload);
        if (n >= 0)
            continue;
        fprintf(stderr, "crossing: %s\n", rt_strerror(n));
        exit(1); /* a price of messages that were not sent is none */
    }
}

/* Nothing is sent until the middle. */
static void tick(rt_loop *loop, void *arg)
{
    if (at.ticks % at.ms == 0) {
        at.near_us[at.ticks / at.ms] = thread_us(pthread_self());
        at.far_us[at.ticks / at.ms] = thread_us(at.thread);
    }
    if (at.ticks == 2 * at.ms) {
        rt_stop(at.far);
        rt_stop(loop);
        return;
    }
    if (at.ticks++ >= at.ms)
        send_all();
    rt_timer_start(loop, (rt_session){0}, ++at.due, tick, arg);
}

static void clock_start(rt_loop *loop)
{
    at.due = rt_now(loop) + 1;
    rt_timer_start(loop, (rt_session){0}, at.due, tick, NULL);
}

/* The clock starts when all lines stand. */
static void opened(rt_loop *loop, rt_session s)
{
    (void)s;
    if (++at.open == at.lines)
        clock_start(loop);
}

static void *far_run(void *arg)
{
    rt_run(at.far);
    return arg;
}

static int lines_open(void)
{
    rt_listen_opts in = {.on = {.message = came}};
    rt_dial_opts out = {.on = {.open = opened}};
    rt_listener l = rt_listen(at.far, "tcp://127.0.0.1:0", &in);
    char url[40];
    if (!l.id)
        return -1;
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d",
             rt_listener_port(at.far, l));
    for (long i = 0; i < at.lines; i++) {
        at.to[i] = rt_dial(at.near, url, &out);
        if (!at.to[i].id)
            return -1;
    }
    return 0;
}

static void arguments(int argc, char **argv)
{
    const option table[] = {
        {"each", OPTION_INT, &at.each, 1, 1000, "messages a ms (10)"},
        {"lines", OPTION_INT, &at.lines, 1, LINES, "of mode line (1)"},
        {"size", OPTION_INT, &at.size, 1, 65536, "bytes of one (64)"},
        {"ms", OPTION_INT, &at.ms, 10, 60000, "to measure (2000)"},
        {"help", OPTION_FLAG, NULL, 0, 0, "this"},
    };
    option_set set = {"crossing", "crossing post|line [options]", table,
                      sizeof table / sizeof *table, &at.mode};
    options_parse(&set, argc, argv);
    at.line = at.mode && strcmp(at.mode, "line") == 0;
    if (!at.line && (!at.mode || strcmp(at.mode, "post") != 0))
        options_fail(&set, "post or line?");
}

int main(int argc, char **argv)
{
    double n;
    arguments(argc, argv);
    at.near = rt_loop_new(NULL);
    at.far = rt_loop_new(NULL);
    if (!at.near || !at.far || !rt_group_open(at.far, "room", NULL).id ||
        (at.line && lines_open() < 0) ||
        pthread_create(&at.thread, NULL, far_run, NULL) != 0) {
        fprintf(stderr, "crossing: no loops, or no line\n");
        return 1;
    }
    if (!at.line)
        clock_start(at.near);
    rt_run(at.near);
    n = (double)(at.each * at.ms);
    printf("%.3f %.3f %.3f\n",
           (at.near_us[2] - 2 * at.near_us[1] + at.near_us[0]) / n,
           (at.far_us[2] - 2 * at.far_us[1] + at.far_us[0]) / n,
           (at.near_us[1] - at.near_us[0]) / (double)at.ms);
    pthread_join(at.thread, NULL);
    rt_loop_free(at.near);
    rt_loop_free(at.far);
    return 0;
}
