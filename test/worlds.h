/*
 * Random worlds: what the programs that run them share.  Each is
 *
 *   NAME --seeds N [--from S] [--calm] [--count]
 *                                        so many; what came to pass in them
 *   NAME --seed S [--backend B] [--until STEP] [--calm] [--trace]
 *                                        one, as a failure names it
 *
 * and the program sim (sim_main.c) does so for all: --world KIND says which.
 */
#ifndef WORLDS_H
#define WORLDS_H

#include "args.h"
#include "backends.h"
#include "rtnet.h"
#include "sim.h"
#include "test.h"

/* What a scenario has to have to be counted as one. */
enum { EVENTS = 50 };

/* run: one world; unseen: what no world has had yet, or NULL, and, if it is to
   print, how often all else came to pass. */
struct world_kind {
    const char *name;
    int (*run)(sim_world *w);
    const char *(*unseen)(int print);
    uint64_t seeds; /* without options */
};

/* Mostly with one backend: the worlds differ by more than how one waits. */
static inline int backend_of(uint64_t seed)
{
    if (seed % 4 == 0)
        return RT_SELECT;
    return seed % 4 != 1 && backend_there(RT_KQUEUE) ? RT_KQUEUE : RT_EPOLL;
}

/* How many worlds there were, and the events in those that count. */
static struct {
    uint64_t worlds, counted, events;
} tally;

static inline void world_run(const struct world_kind *kind, sim_world *w)
{
    test_begin("%s world %llu, %s", kind->name, (unsigned long long)w->seed,
               backend_names[w->backend]);
    EQUAL(kind->run(w), 0);
    test_end();
    tally.worlds++;
    tally.counted += w->events >= EVENTS;
    tally.events += w->events >= EVENTS ? w->events : 0;
}

static inline void worlds_run(const struct world_kind *kind, uint64_t first,
                              uint64_t count, int calm)
{
    uint64_t seed;

    for (seed = first; seed < first + count; seed++) {
        sim_world w = {.seed = seed, .backend = backend_of(seed), .calm = calm};
        world_run(kind, &w);
    }
}

static inline void tally_print(void)
{
    printf("%llu worlds, %llu of them with %d events or more: %llu events\n",
           (unsigned long long)tally.worlds, (unsigned long long)tally.counted,
           EVENTS, (unsigned long long)tally.events);
}

static inline void a_seed_repeats_a_world(const struct world_kind *kind)
{
    sim_world a = {.seed = 7, .backend = RT_EPOLL}, b = a, c = a;

    test_begin("a seed repeats a %s world", kind->name);
    c.seed = 11;
    kind->run(&a);
    kind->run(&b);
    kind->run(&c);
    CHECK(a.digest == b.digest && a.each == b.each && a.events == b.events);
    CHECK(a.digest != c.digest && a.each != c.each);
    test_end();
}

/* Else these worlds would prove little. */
static inline void worlds_have_seen_all(const struct world_kind *kind)
{
    const char *unseen = kind->unseen ? kind->unseen(0) : NULL;

    test_begin("the_worlds_have_seen_everything");
    CHECK(!unseen);
    if (unseen)
        printf("never seen in a %s world: %s\n", kind->name, unseen);
    test_end();
}

/* ---- promise 15 --------------------------------------------------------- */

/*
 * The same upcalls for each session, whatever the backend.  Returns a digest
 * of all that, which is the same wherever the library was built.
 */
static inline uint64_t calm_worlds(const struct world_kind *kind,
                                   uint64_t first, uint64_t count)
{
    uint64_t seed, sum = 0, one = 0;
    int backend;

    for (seed = first; seed < first + count; seed++) {
        test_begin("calm %s world %llu is the same on all backends", kind->name,
                   (unsigned long long)seed);
        for (backend = 0; (backend = backend_next(backend)) != 0;) {
            sim_world w = {.seed = seed, .backend = backend, .calm = 1};
            EQUAL(kind->run(&w), 0);
            CHECK(backend == RT_EPOLL || w.each == one);
            one = w.each;
        }
        test_end();
        sum = sum * 31 + one;
    }
    return sum;
}

/* ---- programs ----------------------------------------------------------- */

static inline int replay(const struct world_kind *kind, int argc, char **argv)
{
    sim_world w = {.seed = option(argc, argv, "--seed", 1)};
    const char *backend = word_option(argc, argv, "--backend", NULL);

    w.backend = backend ? backend_find(backend) : backend_of(w.seed);
    w.until = (int)option(argc, argv, "--until", 0);
    w.trace = flag(argc, argv, "--trace");
    w.calm = flag(argc, argv, "--calm");
    if (w.backend < 0 || !backend_there(w.backend)) {
        fprintf(stderr, "no such backend here: %s\n", backend);
        return 2;
    }
    kind->run(&w);
    printf("%d faults, %d steps, %llu events, digest %016llx, each %016llx\n",
           sim_faults(), w.steps, (unsigned long long)w.events,
           (unsigned long long)w.digest, (unsigned long long)w.each);
    return sim_faults() != 0;
}

static inline int worlds_main(const struct world_kind *kind, int argc,
                              char **argv)
{
    if (flag(argc, argv, "--seed"))
        return replay(kind, argc, argv);
    if (!flag(argc, argv, "--seeds")) {
        a_seed_repeats_a_world(kind);
        calm_worlds(kind, 1, kind->seeds / 20);
    }
    worlds_run(kind, option(argc, argv, "--from", 1),
               option(argc, argv, "--seeds", kind->seeds),
               flag(argc, argv, "--calm"));
    if (flag(argc, argv, "--count") && kind->unseen)
        kind->unseen(1);
    if (!flag(argc, argv, "--calm"))
        worlds_have_seen_all(kind);
    tally_print();
    sim_print_total();
    return test_done();
}

#endif
