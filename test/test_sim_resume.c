/* Random worlds of sessions that outlive their sockets (sim_resume.c). */
#include "worlds.h"

/* Else it would come back with the token of a session that it never opened. */
static void a_client_without_memory_for_a_new_session_keeps_its_token(void)
{
    sim_world w[] = {{.seed = 84960, .backend = RT_SELECT},
                     {.seed = 5457, .backend = RT_EPOLL},
                     {.seed = 20400, .backend = RT_SELECT}};
    int i;

    for (i = 0; i < 3; i++)
        EQUAL(resume_run(&w[i]), 0);
}

int main(int argc, char **argv)
{
    static const struct world_kind kind = {"resume", resume_run, resume_unseen,
                                           2500};

    if (argc < 2)
        RUN(a_client_without_memory_for_a_new_session_keeps_its_token);
    return worlds_main(&kind, argc, argv);
}
