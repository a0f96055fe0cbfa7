/*
 * What rtload says: errors, progress, and the result as text or JSON.
 */
#include "rtload.h"
#include <stdarg.h>
#include <stdio.h>

enum { SHOWN_ERRORS = 5 };

/* ---- while it runs */

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
    static const char *const units[] = {
        "messages",   "messages",  "deliveries", "deliveries",
        "deliveries", "snapshots", "handshakes", "messages"};
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
    if (l->phase <= PHASE_READY)
        fprintf(stderr, "rtload: %ld of %ld connections\n", l->opened,
                l->set.connections);
    else if (l->set.scenario == SCENE_IDLE)
        fprintf(stderr, "rtload: %ld of %ld connections are alive\n", l->alive,
                l->set.connections);
    else if (l->phase < PHASE_DRAIN)
        progress_rate(l);
    else if (l->phase == PHASE_CATCHUP)
        fprintf(stderr, "rtload: %ld slow connections have not all yet\n",
                l->behind);
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
    double size = l->set.scenario == SCENE_MIXED ? (double)l->snapshot_size
                                                 : (double)l->set.size;
    return is_talking(l) ? per_second(l) * size / 1e6 : 0;
}

static double cpu_each(const load *l)
{
    return l->counted ? l->cpu / (double)l->counted : 0;
}

/* Bytes of the server's memory for each connection, for each slow one. */
static double memory_each(const load *l)
{
    return ((double)l->memory_after - (double)l->memory_before) /
           (double)l->set.connections;
}

static double memory_slow(const load *l)
{
    return ((double)l->memory_peak - (double)l->memory_after) /
           (double)l->set.slow;
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
    printf("  \"processes\": %ld,\n  \"room\": %ld,\n  \"slow\": %ld,\n",
           s->processes, s->room, s->slow);
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
           " \"p90\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f,"
           " \"p99.99\": %.1f, \"max\": %.1f},\n",
           (double)l->hist.min / 1e3, hist_mean(&l->hist) / 1e3, latency(l, 50),
           latency(l, 90), latency(l, 99), latency(l, 99.9), latency(l, 99.99),
           latency(l, 100));
    printf("  \"own_cpu_us_each\": %.3f\n", cpu_each(l));
}

static void json_memory(const load *l)
{
    printf("  \"anonymous_before\": %llu,\n  \"anonymous_after\": %llu,\n"
           "  \"anonymous_each\": %.1f,\n",
           (unsigned long long)l->memory_before,
           (unsigned long long)l->memory_after, memory_each(l));
    if (l->set.slow > 0)
        printf("  \"anonymous_peak\": %llu,\n"
               "  \"anonymous_each_slow\": %.1f,\n",
               (unsigned long long)l->memory_peak, memory_slow(l));
}

static void json_scenario(const load *l)
{
    if (l->set.slow > 0)
        printf("  \"slow_dropped\": %ld,\n", l->dropped);
    if (l->set.scenario == SCENE_MIXED)
        printf("  \"inputs\": %llu,\n  \"snapshots\": %llu,\n"
               "  \"snapshot_size\": %zu,\n  \"snapshots_each_per_s\": %.3f,\n",
               (unsigned long long)l->sent, (unsigned long long)l->received,
               l->snapshot_size, per_second(l) / (double)l->set.connections);
    if (l->set.pid > 0)
        json_memory(l);
}

static void print_json(const load *l)
{
    puts("{");
    json_settings(l);
    json_scenario(l);
    json_result(l);
    puts("}");
}

static void print_idle(const load *l)
{
    printf("idle: %ld of %ld connections are alive after %.1f s\n", l->held,
           l->set.connections, seconds(l));
}

static void print_memory(const load *l)
{
    if (l->set.pid <= 0)
        return;
    printf("  memory     %.2f MB before, %.2f MB when all were %s: %.0f bytes "
           "each\n",
           (double)l->memory_before / 1e6, (double)l->memory_after / 1e6,
           l->set.scenario == SCENE_STORM ? "closed" : "open", memory_each(l));
    if (l->set.slow > 0)
        printf(
            "             %.2f MB at its peak: %.0f bytes more for each slow "
            "one\n",
            (double)l->memory_peak / 1e6, memory_slow(l));
}

static void print_text(const load *l)
{
    const settings *s = &l->set;
    printf("%s: %ld connections, %ld in flight, %ld bytes, %.1f s\n",
           s->scenario_name, s->connections, s->depth, s->size, seconds(l));
    printf("  %-10s %.0f/s", unit(l), per_second(l));
    if (is_talking(l))
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
    if (s->scenario == SCENE_MIXED)
        printf("  snapshots  %.2f/s for each, of %zu bytes\n",
               per_second(l) / (double)s->connections, l->snapshot_size);
    if (s->slow > 0)
        printf("  slow       %ld, of which %ld were dropped\n", s->slow,
               l->dropped);
    printf("  own CPU    %.2f us for each\n", cpu_each(l));
}

int load_result(const load *l)
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
    if (!l->set.json)
        print_memory(l);
    return l->errors > 0 || fflush(stdout) != 0;
}
