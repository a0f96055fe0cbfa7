/* Random worlds of groups (sim_group.c). */
#include "worlds.h"

int main(int argc, char **argv)
{
    static const struct world_kind kind = {"group", group_run, group_unseen,
                                           2000};

    return worlds_main(&kind, argc, argv);
}
