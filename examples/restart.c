/*
 * Chat rooms on a port that outlives the process.  Start the program again
 * with the same arguments: the new process takes the listening socket over
 * from the old one, which stops accepting, sends its clients away one by one
 * (1012, retry=<ms>: they come back to the new one) and ends.  No client is
 * refused meanwhile.  restart PORT [SOCKET-PATH [DRAIN-MS]]
 *
 * The two meet at a local socket, restart-PORT.sock unless a path is given.
 * Both ask the system who the other is (SO_PEERCRED): only a process of the
 * same user gets or gives anything.
 *
 *   old to new   one byte with two descriptors: the port's listening socket
 *                and that of the local path, which so never lacks an owner
 *   new to old   "R": it listens and is about to accept
 *
 * Before "R" the new process accepts nobody: when it dies, its line ends and
 * the old one just goes on.  Once the descriptors have come the old one is not
 * needed any more: when it dies, both sockets live on in the new one.
 *
 * Clients: ws://localhost:PORT/?room=ROOM&nick=NICK, text is said to the room
 * as "NICK: text"; /metrics, /health (which tells the process id).
 */
#define _GNU_SOURCE /* struct ucred */
#include "rtnet.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { NICK = 25, NAME = 64, TEXT = 1000, LINE = TEXT + NICK + 64 };
enum { DRAIN_MS = 3000, ANSWER_S = 10, TRIES = 40, TRY_MS = 50 };
enum { PORT_FD, LOCAL_FD, FDS }; /* what is handed over */

typedef struct {
    char nick[NICK];
    rt_group room;
} person;

typedef struct {
    rt_listener listener;
    struct sockaddr_un path;
    int local; /* listens at that path */
    int line;  /* to the other process, while sockets are handed over; -1 */
    rt_watch local_watch, line_watch;
    int drain_ms, leaving;
} server;

static rt_loop *loop; /* for the signal handler */

static int failed(const char *what, const char *why)
{
    fprintf(stderr, "restart: %s: %s\n", what, why);
    return -1;
}

/* ---- the rooms ---------------------------------------------------------- */

static void tell_room(rt_loop *l, const person *p, const char *format,
                      const char *text)
{
    char out[LINE];
    int n = snprintf(out, sizeof out, format, p->nick, text);
    rt_group_send(l, p->room, RT_TEXT, out, (size_t)n);
}

static int welcome(rt_loop *l, rt_session s, const person *p)
{
    char out[LINE];
    int n = snprintf(out, sizeof out, "welcome %s, this is process %ld",
                     p->nick, (long)getpid());
    return rt_send(l, s, RT_TEXT, out, (size_t)n);
}

static void on_open(rt_loop *l, rt_session s)
{
    const rt_request *r = rt_request_of(l, s);
    person *p = calloc(1, sizeof *p);
    char name[NAME];
    int e = RT_ENOMEM;
    rt_set_user(l, s, p);
    if (p && rt_query(r, "nick", p->nick, NICK) > 0 &&
        rt_query(r, "room", name, NAME) > 0 &&
        (e = welcome(l, s, p)) >= 0) /* < 0: a nick that is not UTF-8 */
        e = rt_group_join(l, p->room = rt_group_open(l, name, NULL), s);
    if (e < 0)
        rt_close(l, s, e == RT_EUTF8 ? 1007 : 1013, rt_strerror(e));
    else
        tell_room(l, p, "%s comes%s", "");
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (kind == RT_TEXT && strlen(data) == len)
        tell_room(l, rt_user(l, s), "%s: %s", data);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    person *p = rt_user(l, s);
    (void)why;
    if (p && p->room.id) {
        rt_group_leave(l, p->room, s);
        tell_room(l, p, "%s goes%s", "");
        if (!rt_group_count(l, p->room))
            rt_group_close(l, p->room);
    }
    free(p);
}

/* ---- requests ----------------------------------------------------------- */

static int metrics(rt_loop *l, rt_session s)
{
    size_t cap = rt_metrics(l, NULL, 0);
    char *page = malloc(cap);
    int e = RT_ENOMEM;
    if (page)
        e = rt_reply(l, s, 200, "text/plain; version=0.0.4", page,
                     rt_metrics(l, page, cap));
    free(page);
    return e < 0 ? 503 : 0;
}

static int health(rt_loop *l, rt_session s)
{
    server *v = rt_context(l, s);
    char out[64];
    int n = snprintf(out, sizeof out, "%s %ld\n", v->leaving ? "leaving" : "ok",
                     (long)getpid());
    return rt_reply(l, s, 200, "text/plain", out, (size_t)n) < 0 ? 503 : 0;
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    char room[NAME], nick[NICK];
    if (!r->upgrade && !strcmp(r->path, "/metrics"))
        return metrics(l, s);
    if (!r->upgrade && !strcmp(r->path, "/health"))
        return health(l, s);
    if (!r->upgrade || strcmp(r->path, "/") != 0)
        return 404;
    return rt_query(r, "room", room, NAME) > 0 &&
                   rt_query(r, "nick", nick, NICK) > 0
               ? 0
               : 400;
}

/* ---- the old process ---------------------------------------------------- */

static int same_user(int line)
{
    struct ucred who;
    socklen_t len = sizeof who;
    return getsockopt(line, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 &&
           who.uid == geteuid();
}

/* Room for the descriptors beside one byte, aligned as the system wants. */
typedef union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS * sizeof(int))];
} control;

static int give(int line, const int fds[FDS])
{
    control c = {.bytes = {0}};
    struct iovec byte = {"S", 1};
    struct msghdr m = {.msg_iov = &byte,
                       .msg_iovlen = 1,
                       .msg_control = c.bytes,
                       .msg_controllen = sizeof c.bytes};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(FDS * sizeof(int));
    memcpy(CMSG_DATA(h), fds, FDS * sizeof(int));
    return sendmsg(line, &m, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* Stops accepting, on both sockets, and sends everybody away. */
static void leave(rt_loop *l, server *v)
{
    v->leaving = 1;
    rt_watch_stop(l, v->local_watch);
    close(v->local);
    rt_shutdown(l, v->drain_ms); /* it stops listening, too */
}

static void line_end(rt_loop *l, server *v)
{
    rt_watch_stop(l, v->line_watch);
    close(v->line);
    v->line = -1;
}

/* The new process says that it is ready, or its line ends: then it died. */
static void on_line(rt_loop *l, rt_watch w, int events, void *arg)
{
    server *v = arg;
    char byte = 0;
    ssize_t n = recv(v->line, &byte, 1, MSG_DONTWAIT);
    (void)w;
    (void)events;
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    line_end(l, v);
    if (n == 1 && byte == 'R') {
        printf("restart: handed over\n");
        fflush(stdout);
        leave(l, v);
        return;
    }
    failed("the new process", "ended before it was ready; going on");
    rt_watch_set(l, v->local_watch, RT_READ);
}

/* One at a time: others wait in the queue, for whoever owns the path then. */
static void on_local(rt_loop *l, rt_watch w, int events, void *arg)
{
    server *v = arg;
    int fds[FDS];
    v->line = accept4(v->local, NULL, NULL, SOCK_CLOEXEC);
    (void)events;
    if (v->line < 0)
        return;
    fds[PORT_FD] = (int)rt_listener_fd(l, v->listener);
    fds[LOCAL_FD] = v->local;
    v->line_watch = rt_watch_start(l, v->line, RT_READ, on_line, v);
    if (v->line_watch.id && same_user(v->line) && give(v->line, fds) == 0) {
        rt_watch_set(l, w, 0);
        return;
    }
    failed("handing over", same_user(v->line) ? strerror(errno) : "a stranger");
    line_end(l, v);
}

static void on_drained(rt_loop *l)
{
    rt_stop(l);
}

/* ---- the new process ---------------------------------------------------- */

/* Both descriptors, or -1; errno is 0 when the line just ended. */
static int take(int line, int fds[FDS])
{
    control c = {.bytes = {0}};
    char byte;
    struct iovec to = {&byte, 1};
    struct msghdr m = {.msg_iov = &to,
                       .msg_iovlen = 1,
                       .msg_control = c.bytes,
                       .msg_controllen = sizeof c.bytes};
    ssize_t n = recvmsg(line, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *h = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    if (n == 0)
        errno = 0;
    else if (n == 1)
        errno = EPROTO;
    if (!h || h->cmsg_len != CMSG_LEN(FDS * sizeof(int)))
        return -1;
    memcpy(fds, CMSG_DATA(h), FDS * sizeof(int));
    return 0;
}

/* Asks whoever serves the path: 1 when the descriptors are here, 0 when nobody
   is there or it died, -1 with errno. */
static int inherit(server *v, int fds[FDS])
{
    const struct timeval wait = {ANSWER_S, 0};
    v->line = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (v->line < 0)
        return -1;
    setsockopt(v->line, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (connect(v->line, (struct sockaddr *)&v->path, sizeof v->path) == 0) {
        errno = EPERM;
        if (same_user(v->line) && take(v->line, fds) == 0)
            return 1;
    }
    close(v->line);
    v->line = -1;
    return errno == ENOENT || errno == ECONNREFUSED || errno == ECONNRESET ||
                   errno == 0
               ? 0
               : -1;
}

/* Whoever has the port owns the path: a socket that is there is left over. */
static int local_open(const struct sockaddr_un *path)
{
    struct stat is;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (lstat(path->sun_path, &is) == 0 && S_ISSOCK(is.st_mode))
        unlink(path->sun_path);
    if (bind(fd, (const struct sockaddr *)path, sizeof *path) == 0 &&
        listen(fd, 8) == 0)
        return fd;
    close(fd);
    return -1;
}

/* Listens on the inherited sockets; 0 or -1, told. */
static int serve_inherited(rt_loop *l, server *v, const char *url,
                           rt_listen_opts *o, const int fds[FDS])
{
    const char *why = "";
    int port = atoi(strrchr(url, ':') + 1);
    o->fd = fds[PORT_FD];
    v->listener = rt_listen(l, url, o);
    if (!v->listener.id && rt_error(l, &why))
        return failed("taking over", why);
    if (port && rt_listener_port(l, v->listener) != port)
        return failed(v->path.sun_path, "belongs to another port");
    v->local = fds[LOCAL_FD];
    return 0;
}

/* Listens on sockets of its own; 0, or -1 and why. */
static int serve_first(rt_loop *l, server *v, const char *url,
                       const rt_listen_opts *o, const char **why)
{
    v->listener = rt_listen(l, url, o);
    if (!v->listener.id) {
        rt_error(l, why);
        return -1;
    }
    v->local = local_open(&v->path);
    *why = strerror(errno);
    return v->local < 0 ? failed(v->path.sun_path, *why) : 0;
}

/* Takes over, or else listens.  When the port is taken but nobody is at the
   path, the other process may be just starting or ending: tries again. */
static int serve(rt_loop *l, server *v, const char *url, rt_listen_opts *o)
{
    const struct timespec pause = {0, TRY_MS * 1000000L};
    const char *why = "";
    int tries, fds[FDS], got;
    for (tries = 0; tries < TRIES; tries++) {
        if ((got = inherit(v, fds)) < 0)
            return failed(v->path.sun_path, strerror(errno));
        if (got)
            return serve_inherited(l, v, url, o, fds);
        if (serve_first(l, v, url, o, &why) == 0)
            return 0;
        if (v->listener.id)
            return -1;
        nanosleep(&pause, NULL);
    }
    return failed("no process to take over from", why);
}

/* ---- start and stop ----------------------------------------------------- */

/* The last step before the loop runs: from here on this process accepts. */
static int ready(rt_loop *l, server *v)
{
    v->local_watch = rt_watch_start(l, v->local, RT_READ, on_local, v);
    if (!v->local_watch.id)
        return failed("watch", rt_strerror(rt_error(l, NULL)));
    printf("restart: %s, listening on %d\n",
           v->line < 0 ? "first" : "took over",
           rt_listener_port(l, v->listener));
    fflush(stdout);
    if (v->line < 0)
        return 0;
    /* An error means that the old one is dead: nobody needs to know. */
    send(v->line, "R", 1, MSG_NOSIGNAL);
    close(v->line);
    v->line = -1;
    return 0;
}

static void on_signal(int number)
{
    (void)number;
    rt_stop(loop);
}

/* Until a signal, or until all have gone to the next process. */
static int run(rt_loop *l, server *v)
{
    int e = rt_run(l);
    if (v->leaving || e < 0)
        return e;
    unlink(v->path.sun_path);
    leave(l, v);
    return rt_run(l); /* until drained; a second signal ends it at once */
}

static int paths(server *v, const char *port, const char *path, char url[64])
{
    size_t cap = sizeof v->path.sun_path;
    int n = path ? snprintf(v->path.sun_path, cap, "%s", path)
                 : snprintf(v->path.sun_path, cap, "restart-%s.sock", port);
    v->path.sun_family = AF_UNIX;
    snprintf(url, 64, "ws://:%.32s", port);
    return n > 0 && (size_t)n < cap ? 0 : failed("socket path", "too long");
}

int main(int argc, char **argv)
{
    static server v = {.line = -1, .local = -1};
    const rt_handler on = {.request = on_request,
                           .open = on_open,
                           .message = on_message,
                           .close = on_close};
    const rt_loop_opts lo = {.drained = on_drained};
    rt_listen_opts o = {
        .on = on, .user = &v, .max_message = TEXT, .rate_limit = 10};
    const char *port = argc > 1 ? argv[1] : getenv("PORT");
    char url[64];
    int end = -1;
    v.drain_ms = argc > 3 ? atoi(argv[3]) : DRAIN_MS;
    if (v.drain_ms < 0 || paths(&v, port && *port ? port : "9000",
                                argc > 2 ? argv[2] : NULL, url) < 0)
        return 1;
    loop = rt_loop_new(&lo);
    if (!loop)
        return failed("start", "out of memory or descriptors") != 0;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    if (serve(loop, &v, url, &o) == 0 && ready(loop, &v) == 0)
        end = run(loop, &v);
    rt_loop_free(loop);
    return end != 0;
}
