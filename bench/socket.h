/*
 * What the command lines here may ask of sockets: the congestion control, and
 * buffers of a fixed size.  Linux passes both on from a listening socket to
 * what it accepts.
 */
#ifndef BENCH_SOCKET_H
#define BENCH_SOCKET_H

#include "options.h"

#if !defined(_WIN32)
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

/* 0 also when name is NULL: what the system has chosen stays. */
static inline int socket_congestion(int fd, const char *name)
{
    if (!name)
        return 0;
#if defined(TCP_CONGESTION)
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name,
                      (socklen_t)strlen(name));
#else
    return -(fd + 1);
#endif
}

/* which: SO_SNDBUF or SO_RCVBUF.  0 bytes: the system's own, which grow. */
static inline int socket_buffer(int fd, int which, long bytes)
{
#if defined(_WIN32)
    (void)which;
    return bytes ? -(fd + 1) : 0;
#else
    int size = (int)bytes;
    return bytes ? setsockopt(fd, SOL_SOCKET, which, &size, sizeof size) : 0;
#endif
}

/* Ends the program when there is no such congestion control. */
static inline void socket_judge(const option_set *set, const char *congestion)
{
#if !defined(_WIN32)
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int bad = fd < 0 || socket_congestion(fd, congestion) < 0;
    if (fd >= 0)
        close(fd);
#else
    int bad = congestion != NULL;
#endif
    if (bad)
        options_fail(set,
                     "--congestion: this system does not offer '%s' (Linux "
                     "lists net.ipv4.tcp_available_congestion_control)",
                     congestion);
}

#endif
