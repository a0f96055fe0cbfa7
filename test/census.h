/* Are the descriptors of a world those that the library should have? */
#ifndef CENSUS_H
#define CENSUS_H

#include "rtnet.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>

/* What a loop says of its connections. */
static inline int census_lines(rt_loop *loop)
{
    static char page[65536];
    const char *at;

    rt_metrics(loop, page, sizeof page);
    at = strstr(page, "\nrtnet_connections ");
    return at ? atoi(at + strlen("\nrtnet_connections ")) : -1;
}

/*
 * After a turn.  base: what is open without any connection; the loops may be
 * the same.  Each descriptor above that is one of a connection they know of;
 * they are asked in one of 64 turns, for what the answer costs.
 */
static inline void census(int base, rt_loop *loop, rt_loop *far, unsigned turn)
{
    int lines = sim_streams(), all = sim_fds();

    if (all - lines != base)
        sim_fault("%d descriptors beside %d lines, not %d", all - lines, lines,
                  base);
    if (turn % 64)
        return;
    all = census_lines(loop) + (far == loop ? 0 : census_lines(far));
    if (all != lines)
        sim_fault("%d lines are open, the library knows %d", lines, all);
}

#endif
