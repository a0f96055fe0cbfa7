/*
 * What the servers that are measured share: their command line, their loops
 * (one, or a thread for each) and their listeners.  Every option of the library
 * that is not on the command line keeps its default, so what is measured is
 * what a user would run.
 */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "../rtnet.h"
#include "options.h"
#include "socket.h"
#include <signal.h>

#if defined(_WIN32)
enum { SERVER_LOOPS_MAX = 1 };
#else
#include <pthread.h>
#include <sys/resource.h>
enum { SERVER_LOOPS_MAX = 64 };
#endif

enum { SERVER_OPTIONS_MAX = 16 };

typedef struct {
    const char *host, *backend, *congestion, *cert, *key;
    long port, max_message, max_fragments, hard_mark, resume, sndbuf, loops,
        spin;
} server_options;

/* One of the servers. */
typedef struct {
    const char *program, *about; /* about: what --help adds, or "" */
    rt_handler on;
    /* Called for each loop before its first connection, or NULL.  0, or -1
       when it has no memory. */
    int (*ready)(rt_loop *, long index);
    const option *more; /* options of its own */
    size_t more_count;
} server;

static rt_loop *server_loops[SERVER_LOOPS_MAX];

static void server_stop(int signal_number)
{
    (void)signal_number;
    for (int i = 0; i < SERVER_LOOPS_MAX; i++)
        if (server_loops[i])
            rt_stop(server_loops[i]);
}

/* Which of the loops it is, from 0. */
static inline long server_index(rt_loop *loop)
{
    return (long)((rt_loop **)rt_loop_user(loop) - server_loops);
}

static void server_log(void *user, int level, const char *text)
{
    (void)user;
    if (level <= RT_LOG_WARN)
        fprintf(stderr, "%s\n", text);
}

/* Ten thousand connections need more files than the usual 1,024. */
static void server_raise_limit(void)
{
#if !defined(_WIN32)
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
#endif
}

/* ---- command line */

static int server_backend(const option_set *set, const char *name)
{
    static const char *const names[] = {"auto", "epoll", "kqueue", "select"};
    static const int values[] = {RT_AUTO, RT_EPOLL, RT_KQUEUE, RT_SELECT};
    for (int i = 0; i < 4; i++)
        if (strcmp(name, names[i]) == 0)
            return values[i];
    options_fail(set, "--backend: '%s' is not auto, epoll, kqueue or select",
                 name);
}

/* Returns the backend. */
static int server_parse(const server *s, server_options *o, option *table,
                        int argc, char **argv)
{
    char usage[400];
    size_t count = 0;
    option_set set = {s->program, usage, table, 0, NULL};
    while (table[count].name)
        count++;
    set.count = count + s->more_count;
    for (size_t i = 0; i < s->more_count; i++)
        table[count + i] = s->more[i];
    snprintf(usage, sizeof usage, "%s [options]%s", s->program, s->about);
    options_parse(&set, argc, argv);
    socket_judge(&set, o->congestion);
    return server_backend(&set, o->backend);
}

static int server_options_read(const server *s, server_options *o, int argc,
                               char **argv)
{
    option table[SERVER_OPTIONS_MAX] = {
        {"host", OPTION_TEXT, &o->host, 0, 0,
         "address to listen on (127.0.0.1)"},
        {"port", OPTION_INT, &o->port, 0, 65535, "0 for any free one (9001)"},
        {"backend", OPTION_TEXT, &o->backend, 0, 0,
         "auto, epoll, kqueue or select (auto)"},
        {"spin", OPTION_INT, &o->spin, 0, 1 << 30,
         "us to look again before blocking (0)"},
        {"loops", OPTION_INT, &o->loops, 1, SERVER_LOOPS_MAX,
         "how many, each in a thread, with a listener of its own (1)"},
        {"max-message", OPTION_INT, &o->max_message, 1, 64 << 20,
         "largest message in, bytes; 16M is 16 MiB (64K)"},
        {"max-fragments", OPTION_INT, &o->max_fragments, 1, 1 << 30,
         "fragments of one message (1024)"},
        {"hard-mark", OPTION_INT, &o->hard_mark, 0, 1 << 30,
         "bytes that wait for a peer until it is dropped; 0: 1 MiB and what"
         " large messages need (0)"},
        {"resume", OPTION_INT, &o->resume, 0, 1 << 30,
         "ms a session may be away, 0 for off (0)"},
        {"congestion", OPTION_TEXT, &o->congestion, 0, 0,
         "TCP's congestion control, like cubic (the system's)"},
        {"sndbuf", OPTION_INT, &o->sndbuf, 0, 1 << 30,
         "bytes of a socket's send buffer; 0: it grows (0)"},
        {"cert", OPTION_TEXT, &o->cert, 0, 0,
         "a PEM file: wss instead of ws, where TLS is built in (none)"},
        {"key", OPTION_TEXT, &o->key, 0, 0, "its private key, a PEM file"},
    };
    *o = (server_options){.host = "127.0.0.1",
                          .backend = "auto",
                          .port = 9001,
                          .max_message = 65536,
                          .max_fragments = 1024,
                          .loops = 1};
    return server_parse(s, o, table, argc, argv);
}

/* ---- listeners */

/*
 * A queue takes a reply of the largest size on top of all that one read
 * brings; so no honest peer, however it packs its messages, meets the hard
 * mark.  The default mark does that for messages of the default size.
 */
static int server_hard_mark(const server_options *o)
{
    if (o->hard_mark > 0)
        return (int)o->hard_mark;
    return o->max_message > 65536 ? (int)(1048576 + 2 * o->max_message) : 0;
}

static int server_tune(const server_options *o, rt_fd fd)
{
    if (socket_congestion((int)fd, o->congestion) == 0 &&
        socket_buffer((int)fd, SO_SNDBUF, o->sndbuf) == 0)
        return 0;
    perror("setsockopt");
    return -1;
}

/* Returns the port, or -1. */
static int server_listen(const server_options *o, rt_loop *loop, long port,
                         const rt_handler *on)
{
    char url[256];
    const char *why = "out of memory", *colon = strchr(o->host, ':');
    const rt_tls_opts tls = {.cert = o->cert, .key = o->key};
    int secure = o->cert || o->key;
    rt_listener listener;
    rt_listen_opts opts = {.on = *on,
                           .origins = "*",
                           .max_message = (int)o->max_message,
                           .max_fragments = (int)o->max_fragments,
                           .resume_ms = (int)o->resume,
                           .hard_mark = server_hard_mark(o),
                           .reuse_port = o->loops > 1,
                           .tls = secure ? &tls : NULL};
    snprintf(url, sizeof url,
             colon && *o->host != '[' ? "%s://[%s]:%ld" : "%s://%s:%ld",
             secure ? "wss" : "ws", o->host, port);
    listener = rt_listen(loop, url, &opts);
    if (listener.id == 0) {
        rt_error(loop, &why);
        fprintf(stderr, "%s\n", why);
        return -1;
    }
    if (server_tune(o, rt_listener_fd(loop, listener)) < 0)
        return -1;
    return rt_listener_port(loop, listener);
}

/* Loop number i, with its listener.  Returns the port, or -1. */
static int server_start(const server *s, const server_options *o, int backend,
                        long i, long port)
{
    rt_loop_opts opts = {.log = server_log,
                         .backend = backend,
                         .user = &server_loops[i],
                         .spin_us = (int)o->spin};
    server_loops[i] = rt_loop_new(&opts);
    if (!server_loops[i]) {
        fprintf(stderr, "%s: no loop with the backend %s\n", s->program,
                o->backend);
        return -1;
    }
    if (s->ready && s->ready(server_loops[i], i) < 0) {
        fprintf(stderr, "%s: out of memory\n", s->program);
        return -1;
    }
    return server_listen(o, server_loops[i], port, &s->on);
}

/* ---- threads */

#if defined(_WIN32)

static int server_turn(long loops)
{
    (void)loops;
    return rt_run(server_loops[0]) < 0;
}

#else

static void *server_thread(void *loop)
{
    return rt_run(loop) < 0 ? loop : NULL;
}

/* Runs all until one fails or all are stopped; 1 when one failed. */
static int server_turn(long loops)
{
    pthread_t threads[SERVER_LOOPS_MAX];
    void *failed = NULL;
    int bad = 0;
    long n = 1;
    while (n < loops && !bad) {
        bad = pthread_create(&threads[n], NULL, server_thread,
                             server_loops[n]) != 0;
        n += !bad;
    }
    bad = bad || rt_run(server_loops[0]) < 0;
    if (bad)
        server_stop(0);
    while (--n > 0) {
        pthread_join(threads[n], &failed);
        bad |= failed != NULL;
    }
    return bad;
}

#endif

/* Runs until SIGINT or SIGTERM.  Returns what main returns. */
static int server_run(const server *s, int argc, char **argv)
{
    server_options o;
    int backend = server_options_read(s, &o, argc, argv), bad;
    long port = o.port;
    server_raise_limit();
    for (long i = 0; i < o.loops && port >= 0; i++)
        port = server_start(s, &o, backend, i, port);
    signal(SIGINT, server_stop);
    signal(SIGTERM, server_stop);
    if (port >= 0) {
        printf("listening on %ld\n", port);
        fflush(stdout);
    }
    bad = port < 0 || server_turn(o.loops);
    for (long i = 0; i < o.loops; i++)
        rt_loop_free(server_loops[i]);
    return bad;
}

#endif
