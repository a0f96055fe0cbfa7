/*
 * sim: random worlds of any kind, and one of them again.
 *
 *   sim --seeds N [--from S] [--world KIND] [--calm] [--count]
 *   sim --digest N [--from S] [--world KIND]
 *                 calm worlds on all backends; prints a digest that has to be
 *                 the same for all builds
 *   sim --world KIND --seed S [--backend B] [--until STEP] [--calm] [--trace]
 *                 one, as the line of a failure says
 *
 * KIND is model, resume or group; without it all three.
 */
#include "worlds.h"

static const struct world_kind kinds[] = {
    {"model", model_run, NULL, 400},
    {"resume", resume_run, resume_unseen, 2500},
    {"group", group_run, group_unseen, 2000},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

static void many(const struct world_kind *kind, int argc, char **argv)
{
    uint64_t n = option(argc, argv, "--seeds", kind->seeds);
    int calm = flag(argc, argv, "--calm");

    worlds_run(kind, option(argc, argv, "--from", 1), n, calm);
    if (flag(argc, argv, "--count") && kind->unseen)
        kind->unseen(1);
    if (n >= kind->seeds && !calm)
        worlds_have_seen_all(kind);
}

static void digest(const struct world_kind *kind, int argc, char **argv)
{
    uint64_t n = option(argc, argv, "--digest", 100);
    uint64_t sum = calm_worlds(kind, option(argc, argv, "--from", 1), n);

    printf("digest of %llu calm %s worlds: %016llx\n", (unsigned long long)n,
           kind->name, (unsigned long long)sum);
}

int main(int argc, char **argv)
{
    const char *name = word_option(argc, argv, "--world", "");
    size_t i;

    for (i = 0; i < KINDS; i++) {
        if (*name && strcmp(name, kinds[i].name) != 0)
            continue;
        if (flag(argc, argv, "--seed"))
            return replay(&kinds[i], argc, argv);
        if (flag(argc, argv, "--digest"))
            digest(&kinds[i], argc, argv);
        else
            many(&kinds[i], argc, argv);
    }
    if (!flag(argc, argv, "--digest"))
        tally_print();
    sim_print_total();
    return test_done();
}
