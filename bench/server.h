/*
 * What the servers that are measured share: their command line, one listener,
 * one loop.  Every option of the library that is not on the command line keeps
 * its default, so what is measured is what a user would run.
 */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "../rtnet.h"
#include "options.h"
#include <signal.h>

#if !defined(_WIN32)
#include <sys/resource.h>
#endif

typedef struct {
    const char *host, *backend;
    long port, max_message, max_fragments, resume;
} server_options;

static rt_loop *server_loop;

static void server_stop(int signal_number)
{
    (void)signal_number;
    rt_stop(server_loop);
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

static int server_options_read(server_options *o, int argc, char **argv,
                               const char *program)
{
    const option table[] = {
        {"host", OPTION_TEXT, &o->host, 0, 0,
         "address to listen on (127.0.0.1)"},
        {"port", OPTION_INT, &o->port, 0, 65535, "0 for any free one (9001)"},
        {"backend", OPTION_TEXT, &o->backend, 0, 0,
         "auto, epoll, kqueue or select (auto)"},
        {"max-message", OPTION_INT, &o->max_message, 1, 64 << 20,
         "largest message in, bytes; 16M is 16 MiB (64K)"},
        {"max-fragments", OPTION_INT, &o->max_fragments, 1, 1 << 30,
         "fragments of one message (1024)"},
        {"resume", OPTION_INT, &o->resume, 0, 1 << 30,
         "ms a session may be away, 0 for off (0)"},
    };
    char usage[80];
    option_set set = {program, usage, table, sizeof table / sizeof *table,
                      NULL};
    snprintf(usage, sizeof usage, "%s [options]", program);
    *o = (server_options){"127.0.0.1", "auto", 9001, 65536, 1024, 0};
    options_parse(&set, argc, argv);
    return server_backend(&set, o->backend);
}

/*
 * A queue takes a reply of the largest size on top of all that one read
 * brings; so no honest peer, however it packs its messages, meets the hard
 * mark.  The default mark does that for messages of the default size.
 */
static int server_hard_mark(long max_message)
{
    return max_message > 65536 ? (int)(1048576 + 2 * max_message) : 0;
}

static int server_listen(const server_options *o, const rt_handler *on)
{
    char url[256];
    const char *why = "out of memory", *colon = strchr(o->host, ':');
    rt_listener listener;
    rt_listen_opts opts = {.on = *on,
                           .origins = "*",
                           .max_message = (int)o->max_message,
                           .max_fragments = (int)o->max_fragments,
                           .resume_ms = (int)o->resume,
                           .hard_mark = server_hard_mark(o->max_message)};
    snprintf(url, sizeof url,
             colon && *o->host != '[' ? "ws://[%s]:%ld" : "ws://%s:%ld",
             o->host, o->port);
    listener = rt_listen(server_loop, url, &opts);
    if (listener.id == 0) {
        rt_error(server_loop, &why);
        fprintf(stderr, "%s\n", why);
        return -1;
    }
    printf("listening on %d\n", rt_listener_port(server_loop, listener));
    fflush(stdout);
    return 0;
}

/* Runs until SIGINT or SIGTERM.  ready, if not NULL, is called before the
   first connection.  Returns what main returns. */
static int server_run(int argc, char **argv, const char *program,
                      const rt_handler *on, void (*ready)(rt_loop *))
{
    server_options o;
    rt_loop_opts opts = {.log = server_log};
    int bad;
    opts.backend = server_options_read(&o, argc, argv, program);
    server_raise_limit();
    server_loop = rt_loop_new(&opts);
    if (!server_loop) {
        fprintf(stderr, "%s: no loop with the backend %s\n", program,
                o.backend);
        return 1;
    }
    signal(SIGINT, server_stop);
    signal(SIGTERM, server_stop);
    if (ready)
        ready(server_loop);
    bad = server_listen(&o, on) < 0 || rt_run(server_loop) < 0;
    rt_loop_free(server_loop);
    return bad;
}

#endif
