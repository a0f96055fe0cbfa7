/* Random worlds of sessions that outlive their sockets (sim_resume.c). */
#include "worlds.h"

int main(int argc, char **argv)
{
    worlds.run = resume_run;
    worlds.unseen = resume_unseen;
    worlds.seeds = 2500;
    return worlds_main(argc, argv);
}
