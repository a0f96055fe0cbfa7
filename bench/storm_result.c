/*
 * What a storm has shown: the numbers of a run, the table of all runs, and
 * what must hold.
 */
#include "storm.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int number_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The p-th percentile by rank: at least p % are at or below it. */
static double rank(double *of, size_t n, double p)
{
    size_t at = (size_t)ceil((double)n * p / 100);
    if (n == 0)
        return 0;
    qsort(of, n, sizeof *of, number_order);
    return of[at < 1 ? 0 : at - 1];
}

/* ---- the stayers' trips ------------------------------------------------- */

double result_trips(const stage *at, uint64_t from, uint64_t to, double p,
                    double *room)
{
    size_t n = 0;
    for (size_t i = 0; i < at->stayers.trips; i++) {
        const trip *t = &at->stayers.trip[i];
        if (t->due >= from && t->due < to)
            room[n++] = (double)t->took / 1e6;
    }
    return rank(room, n, p);
}

static void trips_read(const stage *at, double *row)
{
    static const double p[] = {50, 99, 100};
    double *room = (double *)calloc(at->stayers.trips + 1, sizeof *room);
    for (int i = 0; room && i < 3; i++) {
        row[QUIET_P50 + i] =
            result_trips(at, at->quiet_ns, at->storm_ns, p[i], room);
        row[STORM_P50 + i] =
            result_trips(at, at->clients.cut_ns, at->end_ns, p[i], room);
    }
    row[RATIO] = row[STORM_P99] / row[QUIET_P99];
    free(room);
}

/* ---- who is back, and when ---------------------------------------------- */

static void back_read(const settings *set, const stage *at, double *row)
{
    static const double p[] = {50, 99, 100};
    size_t n = (size_t)set->clients;
    double *room = (double *)calloc(n, sizeof *room);
    for (size_t i = 0; room && i < n; i++) {
        uint64_t back = at->clients.back_ns[i];
        room[i] = back ? (double)(back - at->clients.cut_ns) / SECOND : NAN;
        /* One attempt was admitted. */
        if (at->clients.tries[i] > row[REFUSED_MOST] + 1)
            row[REFUSED_MOST] = at->clients.tries[i] - 1;
        if (!back)
            room[i] = INFINITY;
    }
    for (int i = 0; room && i < 3; i++)
        row[BACK_HALF + i] = rank(room, n, p[i]);
    free(room);
}

/* ---- the server's samples ----------------------------------------------- */

/* The last one before that moment. */
static const sample *sample_at(const stage *at, uint64_t ns)
{
    const sample *x = at->server.sample;
    int i = at->server.samples - 1;
    while (i > 0 && x[i].ns > ns)
        i--;
    return &x[i];
}

/* By how much the worst window of up to a second was above what a bucket of
   that rate and burst lets through; its clock counts whole ms. */
static double over_read(const settings *set, const stage *at)
{
    const sample *x = at->server.sample;
    double worst = 0;
    for (int i = 0; i < at->server.samples; i++)
        for (int j = i + 1; j < at->server.samples; j++) {
            double ms = (double)(x[j].ms - x[i].ms);
            double most =
                (double)set->burst + (double)set->rate * (ms + 1) / 1000 + 1;
            double over = (double)(x[j].admitted - x[i].admitted) - most;
            if (ms > 1000)
                break;
            if (over > worst)
                worst = over;
        }
    return worst;
}

/* Least squares for three unknowns: m is the normal matrix with the right
   side; the answer is in its last column. */
static void solve(double m[3][4])
{
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            double f = m[j][i] / m[i][i];
            if (i == j || m[i][i] <= 0)
                continue;
            for (int k = 0; k < 4; k++)
                m[j][k] -= f * m[i][k];
        }
    for (int i = 0; i < 3; i++)
        m[i][3] = m[i][i] > 0 ? m[i][3] / m[i][i] : NAN;
}

/* The processor time beyond the quiet level is what admitted, refused and lost
   connections cost, each its own price. */
static void prices_read(const stage *at, double quiet, double *row)
{
    const sample *x = sample_at(at, at->storm_ns), *end;
    double m[3][4];
    memset(m, 0, sizeof m);
    for (end = sample_at(at, at->end_ns); x < end; x++) {
        double did[3] = {(double)(x[1].admitted - x[0].admitted),
                         (double)(x[1].refused - x[0].refused),
                         (double)(x[1].lost - x[0].lost)};
        double us = (double)(x[1].cpu_ns - x[0].cpu_ns) / 1000 -
                    quiet * (double)(x[1].ns - x[0].ns) / 1000;
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++)
                m[i][j] += did[i] * did[j];
            m[i][3] += did[i] * us;
        }
    }
    solve(m);
    for (int i = 0; i < 3; i++)
        row[US_ADMITTED + i] = m[i][3];
}

static double cpu(const sample *from, const sample *to)
{
    if (to->ns == from->ns)
        return 0;
    return (double)(to->cpu_ns - from->cpu_ns) / (double)(to->ns - from->ns);
}

static void server_read(const settings *set, const stage *at, double *row)
{
    const sample *quiet = sample_at(at, at->quiet_ns),
                 *storm = sample_at(at, at->storm_ns),
                 *end = sample_at(at, at->end_ns) + 1, *x;
    double base = cpu(quiet, storm);
    if (end == at->server.sample + at->server.samples)
        end--;
    row[ADMITTED] = (double)(end->admitted - storm->admitted);
    row[REFUSED] = (double)(end->refused - storm->refused);
    row[OVER] = over_read(set, at);
    row[CPU_QUIET] = 100 * base;
    for (x = storm; x < end; x++) {
        if (100 * cpu(x, x + 1) > row[CPU_PEAK])
            row[CPU_PEAK] = 100 * cpu(x, x + 1);
        if ((double)x[1].heap / 1e6 > row[HEAP_PEAK])
            row[HEAP_PEAK] = (double)x[1].heap / 1e6;
    }
    row[HEAP_QUIET] = (double)storm->heap / 1e6;
    row[TURN_MOST] = (double)at->server.longest_us / 1000;
    prices_read(at, base, row);
}

void result_read(const settings *set, const stage *at, double *row)
{
    memset(row, 0, ROWS * sizeof *row);
    if (at->server.samples < 3)
        return;
    trips_read(at, row);
    back_read(set, at, row);
    server_read(set, at, row);
    row[RESUMED] = (double)at->clients.resumed;
    row[AGAIN] = (double)at->clients.again;
    row[GAPS] = (double)(at->clients.gaps + at->server.gaps);
    row[FRESH] = (double)at->clients.fresh;
    row[MISSING] =
        (double)(at->clients.notes.missing + at->server.notes.missing);
    row[DOUBLED] =
        (double)(at->clients.notes.doubled + at->server.notes.doubled);
}

/* ---- the table ---------------------------------------------------------- */

static const struct {
    const char *name;
    int digits;
} rows[ROWS] = {
    {"stayers, quiet: p50, ms", 3},
    {"                p99, ms", 3},
    {"                max, ms", 3},
    {"stayers, storm: p50, ms", 3},
    {"                p99, ms", 3},
    {"                max, ms", 3},
    {"p99 storm / quiet", 2},
    {"half are back after, s", 2},
    {"99 % are back after, s", 2},
    {"all are back after, s", 2},
    {"connections admitted", 0},
    {"connections refused", 0},
    {"refused per client, max", 0},
    {"admitted above the rate", 0},
    {"sessions resumed", 0},
    {"         lost once more", 0},
    {"         with a gap", 0},
    {"         new", 0},
    {"notes missing", 0},
    {"      doubled", 0},
    {"server CPU, quiet, %", 1},
    {"            peak, %", 1},
    {"per admitted, us", 1},
    {"per refused, us", 1},
    {"per lost, us", 1},
    {"longest turn, ms", 1},
    {"heap, quiet, MB", 1},
    {"      peak, MB", 1},
};

static double median(const settings *set, const double *row, int which)
{
    double of[99];
    for (long i = 0; i < set->runs; i++)
        of[i] = row[i * ROWS + which];
    qsort(of, (size_t)set->runs, sizeof *of, number_order);
    return of[set->runs / 2];
}

long result_median(const settings *set, const double *row)
{
    double ratio = median(set, row, RATIO);
    for (long i = 0; i < set->runs; i++)
        if (row[i * ROWS + RATIO] == ratio)
            return i;
    return 0;
}

static void cell(double value, int digits)
{
    if (isfinite(value))
        printf(" %9.*f", digits, value);
    else
        printf(" %9s", isnan(value) ? "-" : "never");
}

void result_table(const settings *set, const double *row)
{
    printf("%-26s", "run");
    for (long i = 0; i < set->runs; i++)
        printf(" %9ld", i + 1);
    printf(set->runs > 1 ? "    median\n" : "\n");
    for (int r = 0; r < ROWS; r++) {
        printf("%-26s", rows[r].name);
        for (long i = 0; i < set->runs; i++)
            cell(row[i * ROWS + r], rows[r].digits);
        if (set->runs > 1)
            cell(median(set, row, r), rows[r].digits);
        printf("\n");
    }
}

/* ---- what must hold ----------------------------------------------------- */

typedef struct {
    int passed, failed;
} verdict;

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static void
judge(verdict *v, int holds, const char *format, ...)
{
    va_list list;
    if (holds) {
        v->passed++;
        return;
    }
    v->failed++;
    va_start(list, format);
    printf("FAIL ");
    vprintf(format, list);
    printf("\n");
    va_end(list);
}

static void judge_run(verdict *v, const settings *set, const stage *at,
                      const double *row)
{
    double n = (double)set->clients;
    judge(v, (double)at->clients.cut == n,
          "the cut takes every connection: %.0f", (double)at->clients.cut);
    judge(v, at->back == set->clients && isfinite(row[BACK_ALL]),
          "everybody is back within %g s: %d of %ld", set->seconds, at->back,
          set->clients);
    judge(v, row[FRESH] == 0 && at->clients.ended == 0,
          "every session is resumed: %.0f are new, %.0f have ended", row[FRESH],
          (double)at->clients.ended);
    judge(v, row[GAPS] == 0, "no session has a gap: %.0f have", row[GAPS]);
    judge(v, row[MISSING] == 0 && row[DOUBLED] == 0,
          "no note is missing or doubled: %.0f, %.0f", row[MISSING],
          row[DOUBLED]);
    judge(v, at->counted == set->clients,
          "both ends of each session agree on what was sent: %d of %ld",
          at->counted, set->clients);
    judge(v, row[OVER] == 0, "no more are admitted than the rate allows: %.0f",
          row[OVER]);
    judge(v, set->clients <= set->rate + set->burst || row[REFUSED] > 0,
          "there is a storm: nobody was refused");
    judge(v, at->stayers.ended == 0 && at->stayers.trips > 0,
          "those who stay stay: %.0f did not", (double)at->stayers.ended);
    judge(v, at->stayers.trips == at->stayers.asked,
          "those who stay have an answer to all they send: %.0f of %.0f",
          (double)at->stayers.trips, (double)at->stayers.asked);
}

int result_judge(const settings *set, stage *const *runs, const double *row)
{
    verdict v = {0, 0};
    double ratio = median(set, row, RATIO);
    for (long i = 0; i < set->runs; i++)
        judge_run(&v, set, runs[i], row + i * ROWS);
    judge(&v, ratio <= set->max_ratio,
          "the p99 of those who stay is at most %g of the quiet one: %.2f",
          set->max_ratio, ratio);
    printf("%d passed, %d failed, 0 skipped\n", v.passed, v.failed);
    return v.failed;
}
