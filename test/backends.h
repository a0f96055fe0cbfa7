/* The backends of the library as it was built, on the simulated kernel. */
#ifndef BACKENDS_H
#define BACKENDS_H

#include "rtnet.h"
#include "sim.h"

#include <stdlib.h>
#include <string.h>

static const char *const backend_names[] = {"auto", "epoll", "kqueue",
                                            "select"};

/* Can a loop wait with this one here?  Tried once. */
static inline int backend_there(int which)
{
    static int there[RT_SELECT + 1]; /* 1: yes, -1: no */
    rt_loop_opts o = {.backend = which};
    rt_loop *loop;

    if (which < 0 || which > RT_SELECT)
        return 0;
    if (!there[which]) {
        sim_start(NULL);
        loop = rt_loop_new(&o);
        there[which] = loop ? 1 : -1;
        rt_loop_free(loop);
        sim_end();
    }
    return there[which] > 0;
}

/* The next one after this that is there; 0: there are no more. */
static inline int backend_next(int after)
{
    while (++after <= RT_SELECT) {
        if (backend_there(after))
            return after;
    }
    return 0;
}

/* By its name or its number; none: there is no such backend. */
static inline int backend_find(const char *text)
{
    int i;

    for (i = 0; i <= RT_SELECT; i++) {
        if (strcmp(backend_names[i], text) == 0)
            return i;
    }
    return *text >= '0' && *text <= '9' ? atoi(text) : -1;
}

#endif
