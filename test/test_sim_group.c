/* Random worlds of groups (sim_group.c). */
#include "worlds.h"

int main(int argc, char **argv)
{
    worlds.run = group_run;
    worlds.unseen = group_unseen;
    worlds.seeds = 2000;
    return worlds_main(argc, argv);
}
