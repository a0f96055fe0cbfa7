/*
 * rtload, the load generator: command line, progress and result.
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

enum { SHOWN_ERRORS = 5, SPARE_FILES = 16 };

static load the_load;

/* ---- command line */

static const char usage[] =
    "rtload URL [options]\n"
    "URL is ws://host:port/path, host an address or localhost.  Scenarios:\n"
    "  echo    each message is returned to its sender\n"
    "  fanout  each message is sent to all connections, the sender too\n"
    "  storm   connect, upgrade, close, and again\n"
    "  idle    connect and stay\n"
    "Ends with 0 when every message was right, 1 when not, 2 when misused.\n"
    "Options:";

static void scenario_read(const option_set *set, settings *s)
{
    static const char *const names[] = {"echo", "fanout", "storm", "idle"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(s->scenario_name, names[i]) != 0)
            continue;
        s->scenario = i;
        return;
    }
    options_fail(set, "--scenario: '%s' is not echo, fanout, storm or idle",
                 s->scenario_name);
}

static void settings_judge(const option_set *set, settings *s)
{
    const char *bad;
    scenario_read(set, s);
    if (!s->url)
        options_fail(set, "the URL is missing");
    if (s->scenario == SCENE_IDLE)
        s->rate = 0;
    bad = client_target(&the_load);
    if (bad)
        options_fail(set, "'%s': %s", s->url, bad);
    socket_judge(set, s->congestion);
    if (s->senders > s->connections)
        options_fail(set, "--senders: there are only %ld connections",
                     s->connections);
    if (s->scenario == SCENE_FANOUT && s->size < STAMP_MAX)
        options_fail(set, "--size: fanout needs at least %d bytes", STAMP_MAX);
    if (s->raw && (s->scenario != SCENE_ECHO || s->size < 1))
        options_fail(set, "--raw: only with echo, and messages of some size");
    if (s->raw && s->resume)
        options_fail(set, "--resume: not with --raw");
}

static void settings_read(int argc, char **argv)
{
    settings *s = &the_load.set;
    const option table[] = {
        {"scenario", OPTION_TEXT, &s->scenario_name, 0, 0,
         "echo, fanout, storm or idle (echo)"},
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

/* ---- what is said while it runs */

void load_error(load *l, const char *format, ...)
{
    va_list list;
    l->errors++;
    if (l->errors > SHOWN_ERRORS)
        return;
    va_start(list, format);
    fputs("rtload: ", stderr);
    vfprintf(stderr, format, list);
    fputs(l->errors == SHOWN_ERRORS ? " (further errors are only counted)\n"
                                    : "\n",
          stderr);
    va_end(list);
}

static const char *unit(const load *l)
{
    static const char *const units[] = {"messages", "deliveries", "handshakes",
                                        "messages"};
    return units[l->set.scenario];
}

static void progress_rate(load *l)
{
    static uint64_t before;
    fprintf(stderr, "rtload: %s%llu %s/s",
            l->phase == PHASE_WARMUP ? "warming up: " : "",
            (unsigned long long)(l->received - before), unit(l));
    before = l->received;
    if (l->hist.count > 0)
        fprintf(stderr, ", so far p50 %.0f us, p99 %.0f us",
                (double)hist_at(&l->hist, 50) / 1e3,
                (double)hist_at(&l->hist, 99) / 1e3);
    fputs("\n", stderr);
}

void load_progress(load *l)
{
    if (l->set.quiet)
        return;
    if (l->phase == PHASE_OPENING)
        fprintf(stderr, "rtload: %ld of %ld connections\n", l->opened,
                l->set.connections);
    else if (l->set.scenario == SCENE_IDLE)
        fprintf(stderr, "rtload: %ld of %ld connections are alive\n", l->alive,
                l->set.connections);
    else if (l->phase < PHASE_DRAIN)
        progress_rate(l);
    else
        fprintf(stderr, "rtload: waiting for the last answers\n");
}

/* ---- the result */

static double seconds(const load *l)
{
    return (double)(l->until - l->from) / 1e9;
}

static double per_second(const load *l)
{
    return (double)l->counted / seconds(l);
}

static double megabytes(const load *l)
{
    return l->set.scenario <= SCENE_FANOUT
               ? per_second(l) * (double)l->set.size / 1e6
               : 0;
}

static double cpu_each(const load *l)
{
    return l->counted ? l->cpu / (double)l->counted : 0;
}

static double latency(const load *l, double p)
{
    return (double)hist_at(&l->hist, p) / 1e3;
}

static void json_text(const char *name, const char *text)
{
    printf("  \"%s\": \"", name);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= ' ')
            putchar(*text);
    }
    puts("\",");
}

static void json_settings(const load *l)
{
    const settings *s = &l->set;
    json_text("scenario", s->scenario_name);
    json_text("url", s->url);
    json_text("kind", s->raw ? "raw" : s->text ? "text" : "binary");
    printf("  \"resume\": %s,\n", s->resume ? "true" : "false");
    printf("  \"connections\": %ld,\n  \"size\": %ld,\n  \"depth\": %ld,\n"
           "  \"senders\": %ld,\n  \"rate\": %.10g,\n  \"warmup_s\": %.3f,\n"
           "  \"duration_s\": %.3f,\n",
           s->connections, s->size, s->depth, l->senders, s->rate, s->warmup,
           seconds(l));
}

static void json_result(const load *l)
{
    printf("  \"sent\": %llu,\n  \"received\": %llu,\n  \"unsent\": %llu,\n"
           "  \"measured\": %llu,\n  \"errors\": %llu,\n  \"alive\": %ld,\n",
           (unsigned long long)l->sent, (unsigned long long)l->received,
           (unsigned long long)l->unsent, (unsigned long long)l->counted,
           (unsigned long long)l->errors, l->held);
    printf("  \"acks_sent\": %llu,\n  \"acks_received\": %llu,\n",
           (unsigned long long)l->acks_sent,
           (unsigned long long)l->acks_received);
    printf("  \"per_s\": %.1f,\n  \"mb_per_s\": %.3f,\n", per_second(l),
           megabytes(l));
    printf("  \"latency_us\": {\"min\": %.1f, \"mean\": %.1f, \"p50\": %.1f,"
           " \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f},\n",
           (double)l->hist.min / 1e3, hist_mean(&l->hist) / 1e3, latency(l, 50),
           latency(l, 90), latency(l, 99), latency(l, 99.9), latency(l, 100));
    printf("  \"own_cpu_us_each\": %.3f\n", cpu_each(l));
}

static void print_json(const load *l)
{
    puts("{");
    json_settings(l);
    json_result(l);
    puts("}");
}

static void print_idle(const load *l)
{
    printf("idle: %ld of %ld connections are alive after %.1f s\n", l->held,
           l->set.connections, seconds(l));
}

static void print_text(const load *l)
{
    const settings *s = &l->set;
    printf("%s: %ld connections, %ld in flight, %ld bytes, %.1f s\n",
           s->scenario_name, s->connections, s->depth, s->size, seconds(l));
    printf("  %-10s %.0f/s", unit(l), per_second(l));
    if (s->scenario <= SCENE_FANOUT)
        printf(", %.2f MB/s", megabytes(l));
    printf("\n  latency    p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f"
           " us%s\n",
           latency(l, 50), latency(l, 90), latency(l, 99), latency(l, 99.9),
           latency(l, 100), l->period ? ", from the intended time" : "");
    printf("  counted    %llu sent, %llu received, %llu errors\n",
           (unsigned long long)l->sent, (unsigned long long)l->received,
           (unsigned long long)l->errors);
    if (s->resume)
        printf("  acks       %llu sent, %llu received\n",
               (unsigned long long)l->acks_sent,
               (unsigned long long)l->acks_received);
    printf("  own CPU    %.2f us for each\n", cpu_each(l));
}

static int print_result(const load *l)
{
    if (l->unsent > 0)
        fprintf(stderr,
                "rtload: the server does not keep this rate: %llu messages "
                "were never sent, and no latency tells of them\n",
                (unsigned long long)l->unsent);
    if (!l->measured && l->errors == 0)
        fputs("rtload: interrupted before anything was measured\n", stderr);
    if (!l->measured)
        return 1;
    if (l->set.json)
        print_json(l);
    else if (l->set.scenario == SCENE_IDLE)
        print_idle(l);
    else
        print_text(l);
    return l->errors > 0 || fflush(stdout) != 0;
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

static int allocate(load *l)
{
    size_t n = (size_t)l->set.connections, senders = (size_t)l->senders;
    size_t ring = senders * (size_t)l->set.depth;
    l->conns = calloc(n, sizeof *l->conns);
    l->spare = calloc(n, sizeof *l->spare);
    l->times = calloc(ring, sizeof *l->times);
    if (l->set.scenario == SCENE_FANOUT) {
        l->missing = calloc(ring, sizeof *l->missing);
        l->next = calloc(n * senders, sizeof *l->next);
        if (!l->missing || !l->next)
            return die("fanout counters");
    }
    if (!l->conns || !l->spare || !l->times || wire_init(l) < 0)
        return die("allocating");
    for (size_t i = 0; i < n; i++) {
        l->conns[i].id = (uint32_t)i;
        l->conns[i].fd = -1;
        l->spare[l->spares++] = (uint32_t)(n - 1 - i);
    }
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

static long count_senders(const settings *s)
{
    static const long none = 0;
    if (s->scenario == SCENE_FANOUT)
        return s->senders;
    return s->scenario == SCENE_IDLE ? none : s->connections;
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
    free(l->missing);
    free(l->next);
    free(l->frame);
    free(l->plain);
    free(l->in);
    free(l->out);
    free(l->request);
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
                        .duration = 5,
                        .warmup = 1,
                        .timeout = 10};
    settings_read(argc, argv);
    l->senders = count_senders(&l->set);
    if (raise_limit(l) < 0 || open_files(l) < 0 || allocate(l) < 0)
        return 1;
    signal(SIGINT, drive_stop);
    signal(SIGTERM, drive_stop);
    drive(l);
    bad = print_result(l);
    release(l);
    return bad;
}
