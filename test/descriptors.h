/* How many descriptors below a number are open in this process. */
#ifndef DESCRIPTORS_H
#define DESCRIPTORS_H

#include <fcntl.h>

static inline int descriptors(int below)
{
    int fd, n = 0;

    for (fd = 0; fd < below; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

#endif
