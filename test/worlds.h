/*
 * The program of a test with random worlds:
 *
 *   test_NAME                            some of them
 *   test_NAME --seeds N [--from S] [--count]
 *                                        so many; what came to pass in them
 *   test_NAME --seed S [--backend B] [--trace]
 *                                        one, as a failure names it
 */
#ifndef WORLDS_H
#define WORLDS_H

#include "args.h"
#include "rtnet.h"
#include "sim.h"
#include "test.h"

/* run: one world, how many faults it had; unseen: what no world has had yet,
   or NULL, and, if it is to print, how often all else came to pass. */
static struct {
    int (*run)(uint64_t seed, int backend, int trace, uint64_t *digest);
    const char *(*unseen)(int print);
    uint64_t seeds; /* without options */
} worlds;

/* Mostly with epoll: the worlds differ by more than how one waits. */
static int backend_of(uint64_t seed)
{
    return seed % 4 ? RT_EPOLL : RT_SELECT;
}

static void worlds_run(uint64_t first, uint64_t count)
{
    uint64_t seed, digest;

    for (seed = first; seed < first + count; seed++) {
        test_begin("world %llu", (unsigned long long)seed);
        EQUAL(worlds.run(seed, backend_of(seed), 0, &digest), 0);
        test_end();
    }
}

static void a_seed_repeats_a_world(void)
{
    uint64_t a, b, c;

    worlds.run(7, RT_EPOLL, 0, &a);
    worlds.run(7, RT_EPOLL, 0, &b);
    worlds.run(11, RT_EPOLL, 0, &c);
    CHECK(a == b);
    CHECK(a != c);
}

/* Else these worlds would prove little. */
static void the_worlds_have_seen_everything(void)
{
    const char *unseen = worlds.unseen(0);

    CHECK(!unseen);
    if (unseen)
        printf("never seen: %s\n", unseen);
}

static int replay(int argc, char **argv)
{
    uint64_t seed = option(argc, argv, "--seed", 1), digest;
    int backend =
        (int)option(argc, argv, "--backend", (uint64_t)backend_of(seed));
    int faults =
        worlds.run(seed, backend, flag(argc, argv, "--trace"), &digest);

    printf("%d faults, digest %016llx\n", faults, (unsigned long long)digest);
    return faults != 0;
}

static int worlds_main(int argc, char **argv)
{
    if (flag(argc, argv, "--seed"))
        return replay(argc, argv);
    if (!flag(argc, argv, "--seeds"))
        RUN(a_seed_repeats_a_world);
    worlds_run(option(argc, argv, "--from", 1),
               option(argc, argv, "--seeds", worlds.seeds));
    if (flag(argc, argv, "--count"))
        worlds.unseen(1);
    RUN(the_worlds_have_seen_everything);
    sim_print_total();
    return test_done();
}

#endif
