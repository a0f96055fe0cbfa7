/*
 * What the tests ask of POSIX, on Windows: sockets under the names and with
 * the meaning that they have there.  The headers in this directory are stubs
 * that include this one, so that a test is compiled as it is.  Independent of
 * what rtnet.c has for itself, which is under test here.
 */
#ifndef WINDOWS_POSIX_H
#define WINDOWS_POSIX_H

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#define NOGDI
#ifndef FD_SETSIZE
#define FD_SETSIZE 4096
#endif
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0600
#endif

#include <winsock2.h>
#include <ws2tcpip.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>
#include <time.h>

/* Names that windows.h takes from everybody. */
#undef near
#undef far
#undef small
#undef TEXT
#undef ERROR
#undef IN
#undef OUT
#undef DELETE
#define LONG test_LONG

#define MSG_NOSIGNAL 0

struct iovec {
    void *iov_base;
    size_t iov_len;
};

struct sockaddr_un {
    unsigned short sun_family;
    char sun_path[108];
};

enum { SHUT_RD = SD_RECEIVE, SHUT_WR = SD_SEND, SHUT_RDWR = SD_BOTH };
enum { F_GETFD = 1, F_SETFD, F_GETFL, F_SETFL, FD_CLOEXEC, O_NONBLOCK = 1 };

/* ---- errors -------------------------------------------------------------- */

static inline int posix_failed(void)
{
    static const struct {
        int code, number;
    } known[] = {{WSAEWOULDBLOCK, EAGAIN},          {WSAEINTR, EINTR},
                 {WSAECONNRESET, ECONNRESET},       {WSAESHUTDOWN, EPIPE},
                 {WSAECONNABORTED, ECONNRESET},     {WSAENOTSOCK, EBADF},
                 {WSAECONNREFUSED, ECONNREFUSED},   {WSAENOTCONN, ENOTCONN},
                 {WSAEAFNOSUPPORT, EAFNOSUPPORT},   {WSAEINVAL, EINVAL},
                 {WSAEADDRINUSE, EADDRINUSE},       {WSAEACCES, EACCES},
                 {WSAEADDRNOTAVAIL, EADDRNOTAVAIL}, {WSAEMFILE, EMFILE}};
    int code = WSAGetLastError();
    size_t i;
    errno = EIO;
    for (i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].code == code)
            errno = known[i].number;
    return -1;
}

static inline int posix_answer(int n)
{
    return n == SOCKET_ERROR ? posix_failed() : n;
}

/* ---- sockets ------------------------------------------------------------ */

/* Some tests open a socket before there is a loop, whose affair it is. */
static inline int posix_socket(int family, int type)
{
    WSADATA data;
    SOCKET s = INVALID_SOCKET;
    if (WSAStartup(MAKEWORD(2, 2), &data) == 0)
        s = socket(family, type, 0);
    return s == INVALID_SOCKET ? posix_failed() : (int)s;
}

static inline int posix_accept(int fd, struct sockaddr *from, int *len)
{
    SOCKET s = accept((SOCKET)fd, from, len);
    return s == INVALID_SOCKET ? posix_failed() : (int)s;
}

static inline int posix_connect(int fd, const struct sockaddr *to, int len)
{
    if (connect((SOCKET)fd, to, len) == 0)
        return 0;
    posix_failed();
    if (errno == EAGAIN)
        errno = EINPROGRESS;
    return -1;
}

static inline int close(int fd)
{
    return posix_answer(closesocket((SOCKET)fd));
}

static inline int posix_fcntl(int fd, int what, ...)
{
    int type, size = sizeof type;
    u_long on = 1;
    if (what == F_SETFL)
        return posix_answer(ioctlsocket((SOCKET)fd, (long)FIONBIO, &on));
    return posix_answer(
        getsockopt((SOCKET)fd, SOL_SOCKET, SO_TYPE, (char *)&type, &size));
}

/* What would not fit an int is not asked for by a test. */
static inline ssize_t posix_recv(int fd, void *to, size_t n, int flags)
{
    return posix_answer(recv((SOCKET)fd, (char *)to, (int)n, flags));
}

static inline ssize_t posix_send(int fd, const void *from, size_t n, int flags)
{
    return posix_answer(send((SOCKET)fd, (const char *)from, (int)n, flags));
}

static inline ssize_t read(int fd, void *to, size_t n)
{
    return posix_recv(fd, to, n, 0);
}

static inline ssize_t write(int fd, const void *from, size_t n)
{
    return posix_send(fd, from, n, 0);
}

static inline int posix_poll(struct pollfd *p, unsigned n, int ms)
{
    if (n > 0)
        return posix_answer(WSAPoll(p, n, ms));
    Sleep((DWORD)ms);
    return 0;
}

static inline int posix_setsockopt(int fd, int level, int name, const void *v,
                                   size_t size)
{
    return posix_answer(
        setsockopt((SOCKET)fd, level, name, (const char *)v, (int)size));
}

static inline int posix_getsockopt(int fd, int level, int name, void *v,
                                   int *size)
{
    return posix_answer(getsockopt((SOCKET)fd, level, name, (char *)v, size));
}

#define socket(family, type, protocol) posix_socket(family, type)
#define accept(fd, from, len) posix_accept(fd, from, len)
#define connect(fd, to, len) posix_connect(fd, to, len)
#define fcntl(...) posix_fcntl(__VA_ARGS__)
#define recv(fd, to, n, flags) posix_recv(fd, to, n, flags)
#define send(fd, from, n, flags) posix_send(fd, from, n, flags)
#define poll(p, n, ms) posix_poll(p, n, ms)
#define bind(fd, to, len) posix_answer(bind((SOCKET)(fd), to, len))
#define listen(fd, backlog) posix_answer(listen((SOCKET)(fd), backlog))
#define shutdown(fd, how) posix_answer(shutdown((SOCKET)(fd), how))
#define getsockname(fd, name, len)                                             \
    posix_answer(getsockname((SOCKET)(fd), name, len))
#define getpeername(fd, name, len)                                             \
    posix_answer(getpeername((SOCKET)(fd), name, len))
#define setsockopt(fd, level, name, value, size)                               \
    posix_setsockopt(fd, level, name, value, size)
#define getsockopt(fd, level, name, value, size)                               \
    posix_getsockopt(fd, level, name, value, size)

/* ---- and the rest ------------------------------------------------------- */

/* Two sockets that are connected: for tests that watch a descriptor. */
static inline int socketpair(int family, int type, int protocol, int fd[2])
{
    struct sockaddr_in a;
    int len = sizeof a, l = socket(AF_INET, type, protocol);
    (void)family;
    (void)protocol;
    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd[0] = fd[1] = -1;
    if (bind(l, (struct sockaddr *)&a, len) == 0 && listen(l, 1) == 0 &&
        getsockname(l, (struct sockaddr *)&a, &len) == 0) {
        fd[1] = socket(AF_INET, type, protocol);
        if (connect(fd[1], (struct sockaddr *)&a, sizeof a) == 0)
            fd[0] = accept(l, NULL, NULL);
    }
    close(l);
    return fd[0] < 0 ? -1 : 0;
}

static inline int pipe(int fd[2])
{
    return socketpair(AF_INET, SOCK_STREAM, 0, fd);
}

static inline int usleep(unsigned us)
{
    Sleep((us + 999) / 1000);
    return 0;
}

/* Nothing limits the number of files here. */
typedef unsigned rlim_t;
struct rlimit {
    rlim_t rlim_cur, rlim_max;
};
enum { RLIMIT_NOFILE, RLIMIT_CORE };

static inline int getrlimit(int which, struct rlimit *now)
{
    (void)which;
    now->rlim_cur = now->rlim_max = 100000;
    return 0;
}

static inline int setrlimit(int which, const struct rlimit *now)
{
    (void)which;
    (void)now;
    errno = EINVAL;
    return -1;
}

/* Another number of the same socket. */
static inline int dup(int fd)
{
    WSAPROTOCOL_INFOW info;
    SOCKET s = INVALID_SOCKET;
    if (WSADuplicateSocketW((SOCKET)fd, GetCurrentProcessId(), &info) == 0)
        s = WSASocketW(FROM_PROTOCOL_INFO, FROM_PROTOCOL_INFO,
                       FROM_PROTOCOL_INFO, &info, 0, WSA_FLAG_OVERLAPPED);
    return s == INVALID_SOCKET ? posix_failed() : (int)s;
}

/* What there is nothing like: for cases that posix_lacks names. */
enum { F_DUPFD = 100, F_OK = 0, O_RDONLY = 0 };
static inline int posix_lacking(void)
{
    errno = ENOSYS;
    return -1;
}

#ifndef STDOUT_FILENO
#define STDOUT_FILENO 1
#endif
#define fork() posix_lacking()
#define dup2(fd, as) ((void)(fd), (void)(as), posix_lacking())
#define access(path, how) ((void)(path), (void)(how), posix_lacking())
#define waitpid(pid, status, how) ((void)(status), posix_lacking())
#define WIFSIGNALED(status) (status)
#define alarm(seconds) ((void)(seconds))

#endif
