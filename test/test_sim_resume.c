/* Random worlds of sessions that outlive their sockets (sim_resume.c). */
#include "worlds.h"

int main(int argc, char **argv)
{
    static const struct world_kind kind = {"resume", resume_run, resume_unseen,
                                           2500};

    return worlds_main(&kind, argc, argv);
}
