/*
 * What the storm's processes share, and its conductor with its picture: one
 * stage for each run, in memory that all of them map.  Each field has one
 * writer; the conductor reads when a phase is over.
 */
#ifndef BENCH_STORM_H
#define BENCH_STORM_H

#include <stdint.h>
#include <stdio.h>

enum phase {
    PHASE_RAMP,  /* the clients connect, below the rate that is admitted */
    PHASE_QUIET, /* what a quiet server is like */
    PHASE_STORM, /* from the cut until all are back, and a second more */
    PHASE_COUNT, /* both ends of each session compare what they counted */
    PHASE_END
};

typedef struct {
    long clients, rate, burst, stayers, pace, runs;
    double quiet, seconds, every, max_ratio;
    const char *svg;
} settings;

/* The server at one moment; all but ns and heap are sums. */
typedef struct {
    uint64_t ns, ms, cpu_ns;    /* ms: rt_now, by which it admits */
    uint64_t admitted, refused; /* connections */
    uint64_t lost, back;        /* sessions */
    uint64_t heap;              /* its peak since the sample before */
} sample;

/* A message of one who stayed: when it was due, how long until its echo. */
typedef struct {
    uint64_t due, took;
} trip;

/* What one end of a session has sent and got; notes are numbered from 1. */
typedef struct {
    uint32_t sent, got;
} tally;

/* What went wrong with the notes of all sessions of one process. */
typedef struct {
    uint64_t missing, doubled;
} faults;

typedef struct {
    int phase;           /* written by the conductor; atomic, as what it */
    int ports[2];        /* waits for: of the public and the calm listener, */
    int opened, back;    /* clients that are in, that are in again, */
    int counted, seated; /* that agree with the server; stayers that are in */
    uint64_t quiet_ns, storm_ns, end_ns;

    struct {
        int samples;
        sample *sample;
        faults notes;
        uint64_t gaps, opened, longest_us;
    } server;

    struct {
        uint64_t cut_ns;
        uint64_t *back_ns; /* when each was back */
        uint32_t *tries;   /* how often it has tried since the cut */
        uint64_t cut, resumed, again, gaps, fresh, ended;
        faults notes;
    } clients;

    struct {
        size_t trips, cap;
        trip *trip;
        uint64_t asked, ended;
    } stayers;
} stage;

#define SECOND 1000000000.0

/* The lines of the table. */
enum row {
    QUIET_P50, /* ms */
    QUIET_P99,
    QUIET_MAX,
    STORM_P50,
    STORM_P99,
    STORM_MAX,
    RATIO,
    BACK_HALF, /* s after the cut */
    BACK_MOST,
    BACK_ALL,
    ADMITTED, /* connections since the cut */
    REFUSED,
    REFUSED_MOST, /* of one client */
    OVER,         /* admitted above what rate and burst allow */
    RESUMED,      /* sessions */
    AGAIN,
    GAPS,
    FRESH,
    MISSING, /* notes */
    DOUBLED,
    CPU_QUIET, /* % of one core */
    CPU_PEAK,
    US_ADMITTED, /* processor time each, beyond the quiet level */
    US_REFUSED,
    US_LOST,
    TURN_MOST,  /* ms */
    HEAP_QUIET, /* MB */
    HEAP_PEAK,
    ROWS
};

/* What a run shows. */
void result_read(const settings *set, const stage *at, double *row);

/* Prints the runs and their medians; row: ROWS numbers of each run. */
void result_table(const settings *set, const double *row);

/* Which of the runs has the median ratio. */
long result_median(const settings *set, const double *row);

/* Judges all runs, prints what does not hold and "N passed, N failed, 0
   skipped"; returns how many failed. */
int result_judge(const settings *set, stage *const *runs, const double *row);

/* The p-th percentile of the trips that were due in [from, to), in ms; 0 when
   there is none.  room holds as many numbers as there are trips. */
double result_trips(const stage *at, uint64_t from, uint64_t to, double p,
                    double *room);

/* Draws a run into an SVG file; 0, or -1 with errno. */
int picture_write(const char *path, const settings *set, const stage *at);

#endif
