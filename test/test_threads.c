/*
 * Of all calls only rt_post and rt_stop may come from another thread.  Here
 * several threads do that at once, on each backend: no post is lost, none runs
 * twice or elsewhere than in the loop's thread, those of one thread keep their
 * order, and no stop is missed.  The same program is built with the thread
 * sanitizer for make check, which reports whatever else two threads share.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rtnet.h"
#include "test.h"

#include "peer.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { THREADS = 4, POSTS = 20000, STOPS = 2000 };
enum { CLIENTS = 20, ROUNDS = 100, PATIENCE = 20000 };

static const rt_session nobody = {0};

/* ---- the stage ----------------------------------------------------------- */

typedef struct poster poster;

typedef struct {
    poster *from;
    int number, runs;
} letter;

struct poster {
    pthread_t thread;
    int index, refused;
    int next; /* number of the letter that is due */
    letter letters[POSTS];
};

/* What the loop's thread writes, but for what is said to be atomic. */
static struct {
    rt_loop *loop;
    pthread_t thread;
    int arrived, elsewhere, unordered;
    int live; /* threads that are not through; atomic */
    int stops, late;
} here;

static poster posters[THREADS];

static void too_late(rt_loop *loop, void *arg)
{
    (void)arg;
    here.late = 1;
    rt_stop(loop);
}

/* A lost post or stop would be waited for in vain: so a timer ends that. */
static void stage_open(int backend)
{
    rt_loop_opts o;
    int i;
    memset(&o, 0, sizeof o);
    memset(&here, 0, sizeof here);
    memset(posters, 0, sizeof posters);
    o.backend = backend;
    o.realloc = peer_realloc;
    here.loop = rt_loop_new(&o);
    here.thread = pthread_self();
    CHECK(here.loop != NULL);
    rt_timer_start(here.loop, nobody, rt_now(here.loop) + PATIENCE, too_late,
                   NULL);
    for (i = 0; i < THREADS; i++)
        posters[i].index = i;
}

static void stage_close(void)
{
    rt_loop_free(here.loop);
    CHECK(!here.late);
    EQUAL(peer_heap, 0);
    EQUAL(here.elsewhere, 0);
    EQUAL(here.unordered, 0);
}

static void threads_start(void *(*run)(void *))
{
    int i;
    __atomic_store_n(&here.live, THREADS, __ATOMIC_RELEASE);
    for (i = 0; i < THREADS; i++)
        EQUAL(pthread_create(&posters[i].thread, NULL, run, &posters[i]), 0);
}

static void threads_join(void)
{
    int i;
    for (i = 0; i < THREADS; i++)
        pthread_join(posters[i].thread, NULL);
}

static int threads_live(void)
{
    return __atomic_load_n(&here.live, __ATOMIC_ACQUIRE) > 0;
}

static void letter_run(rt_loop *loop, void *arg)
{
    letter *l = arg;
    here.elsewhere +=
        !pthread_equal(pthread_self(), here.thread) || loop != here.loop;
    here.unordered += l->number != l->from->next++;
    l->runs++;
    here.arrived++;
}

/* Of each letter, whether it ran just once. */
static void letters_count(int want)
{
    int i, k, wrong = 0;
    for (i = 0; i < THREADS; i++)
        for (k = 0; k < POSTS; k++)
            wrong += posters[i].letters[k].runs != (i * POSTS + k < want);
    EQUAL(wrong, 0);
}

/* ---- posts --------------------------------------------------------------- */

static int letter_post(poster *p, int number)
{
    letter *l = &p->letters[number];
    l->from = p;
    l->number = number;
    return rt_post(here.loop, letter_run, l);
}

static void *post_all(void *arg)
{
    poster *p = arg;
    int i, e;
    for (i = 0; i < POSTS; i++)
        while ((e = letter_post(p, i)) != 0) {
            p->refused += e == RT_EFULL;
            sched_yield();
        }
    if (__atomic_sub_fetch(&here.live, 1, __ATOMIC_ACQ_REL) == 0)
        rt_stop(here.loop);
    return NULL;
}

/* What is in the pipe when the stop comes runs in the turns after it. */
static void rest_run(void)
{
    int i;
    for (i = 0; here.arrived < THREADS * POSTS && i < 1000; i++)
        rt_poll(here.loop, 1);
    EQUAL(here.arrived, THREADS * POSTS);
    letters_count(THREADS * POSTS);
}

static void no_post_is_lost_doubled_or_overtaken(int backend)
{
    stage_open(backend);
    threads_start(post_all);
    EQUAL(rt_run(here.loop), 0);
    threads_join();
    rest_run();
    EQUAL(peer_metric(here.loop, "rtnet_posts_total"), THREADS * POSTS);
    stage_close();
}

static void *post_all_and_stop_now_and_then(void *arg)
{
    poster *p = arg;
    int i;
    for (i = 0; i < POSTS; i++) {
        while (letter_post(p, i) != 0)
            sched_yield();
        if (i % 50 == p->index)
            rt_stop(here.loop);
    }
    __atomic_sub_fetch(&here.live, 1, __ATOMIC_ACQ_REL);
    rt_stop(here.loop);
    return NULL;
}

/* Ends because the last of them stops the loop when it is through. */
static void posts_race_with_stops_and_runs(int backend)
{
    stage_open(backend);
    threads_start(post_all_and_stop_now_and_then);
    while (threads_live() && !here.late) {
        EQUAL(rt_run(here.loop), 0);
        here.stops++;
    }
    threads_join();
    rest_run();
    CHECK(here.stops > 1);
    stage_close();
}

/* The loop stands still: the pipe fills, what it took runs later. */
static void a_full_loop_says_so_and_runs_what_it_took(int backend)
{
    poster *p = posters;
    int i, took = 0, refused;
    stage_open(backend);
    while (took < POSTS && letter_post(p, took) == 0)
        took++;
    refused = letter_post(p, took < POSTS ? took : 0);
    EQUAL(refused, RT_EFULL);
    CHECK(took >= 4000);
    rt_stop(here.loop); /* has no room to wake, and need not */
    EQUAL(rt_run(here.loop), 0);
    for (i = 0; here.arrived < took && i < 1000; i++)
        rt_poll(here.loop, 1);
    peer_quiet(here.loop);
    EQUAL(here.arrived, took);
    letters_count(took);
    stage_close();
}

static void what_waits_when_the_loop_is_freed_never_runs(int backend)
{
    int i;
    stage_open(backend);
    for (i = 0; i < 100; i++)
        EQUAL(letter_post(posters, i), 0);
    stage_close();
    EQUAL(here.arrived, 0);
}

/* ---- stops --------------------------------------------------------------- */

static int turn_is(int of, int *whose)
{
    while (__atomic_load_n(whose, __ATOMIC_ACQUIRE) != of)
        sched_yield();
    return 1;
}

static int whose_turn; /* 0: the loop runs; 1: somebody has to stop it */

static void *stop_each_run(void *arg)
{
    int i;
    (void)arg;
    for (i = 0; i < STOPS && turn_is(1, &whose_turn); i++) {
        __atomic_store_n(&whose_turn, 0, __ATOMIC_RELEASE);
        rt_stop(here.loop);
    }
    return NULL;
}

/* Each run is stopped once, before it begins or while it waits. */
static void no_stop_is_missed(int backend)
{
    pthread_t thread;
    int i;
    stage_open(backend);
    whose_turn = 0;
    EQUAL(pthread_create(&thread, NULL, stop_each_run, NULL), 0);
    for (i = 0; i < STOPS; i++) {
        __atomic_store_n(&whose_turn, 1, __ATOMIC_RELEASE);
        if (i % 2)
            turn_is(0, &whose_turn);
        EQUAL(rt_run(here.loop), 0);
    }
    pthread_join(thread, NULL);
    stage_close();
}

static void stop_by_signal(int number)
{
    (void)number;
    rt_stop(here.loop);
}

static void *signal_it(void *arg)
{
    (void)arg;
    poll(NULL, 0, 20);
    pthread_kill(here.thread, SIGUSR1);
    return NULL;
}

static void a_signal_handler_may_stop_the_loop(int backend)
{
    pthread_t thread;
    stage_open(backend);
    signal(SIGUSR1, stop_by_signal);
    EQUAL(pthread_create(&thread, NULL, signal_it, NULL), 0);
    EQUAL(rt_run(here.loop), 0);
    pthread_join(thread, NULL);
    signal(SIGUSR1, SIG_DFL);
    stage_close();
}

/* ---- two loops ----------------------------------------------------------- */

/* The server's thread writes served, the other one the rest. */
static struct {
    rt_loop *server, *client;
    int port, served;
    int opened, echoed, wrong, told, over;
} two;

static void client_told(rt_loop *loop, void *arg)
{
    (void)arg;
    two.told++;
    two.wrong += loop != two.client;
}

static void server_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    two.served++;
    rt_send(loop, s, kind, data, len);
    while (rt_post(two.client, client_told, NULL) == RT_EFULL)
        sched_yield();
}

static void client_send(rt_loop *loop, rt_session s, int round)
{
    rt_set_user(loop, s, (void *)(intptr_t)round);
    rt_send(loop, s, RT_BINARY, &round, sizeof round);
}

static void client_open(rt_loop *loop, rt_session s)
{
    two.opened++;
    client_send(loop, s, 0);
}

static void client_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    int round = (int)(intptr_t)rt_user(loop, s);
    two.wrong += kind != RT_BINARY || len != sizeof round ||
                 memcmp(data, &round, sizeof round) != 0;
    two.echoed++;
    if (round + 1 < ROUNDS)
        client_send(loop, s, round + 1);
    else
        rt_close(loop, s, 1000, "");
}

static void client_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    (void)s;
    two.wrong += why->code != 1000;
    if (++two.over == CLIENTS)
        rt_stop(loop);
}

static void *loop_run(void *arg)
{
    return rt_run(arg) < 0 ? arg : NULL;
}

static void two_open(int backend)
{
    rt_loop_opts o;
    rt_listen_opts listen_opts;
    memset(&o, 0, sizeof o);
    memset(&two, 0, sizeof two);
    memset(&listen_opts, 0, sizeof listen_opts);
    o.backend = backend;
    listen_opts.on.message = server_message;
    two.server = rt_loop_new(&o);
    two.client = rt_loop_new(&o);
    two.port = rt_listener_port(
        two.server, rt_listen(two.server, "ws://127.0.0.1:0", &listen_opts));
    CHECK(two.port > 0);
}

static void two_dial(void)
{
    rt_dial_opts o;
    char url[64];
    int i;
    memset(&o, 0, sizeof o);
    o.on.open = client_open;
    o.on.message = client_message;
    o.on.close = client_close;
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", two.port);
    for (i = 0; i < CLIENTS; i++)
        CHECK(rt_dial(two.client, url, &o).id != 0);
}

/* Each loop is its thread's alone, but for the posts from one to the other. */
static void two_loops_talk_over_sockets_and_posts(int backend)
{
    pthread_t server, client;
    void *bad = NULL;
    int i;
    two_open(backend);
    two_dial();
    EQUAL(pthread_create(&server, NULL, loop_run, two.server), 0);
    EQUAL(pthread_create(&client, NULL, loop_run, two.client), 0);
    pthread_join(client, &bad);
    CHECK(!bad);
    rt_stop(two.server);
    pthread_join(server, &bad);
    CHECK(!bad);
    for (i = 0; two.told < CLIENTS * ROUNDS && i < 1000; i++)
        rt_poll(two.client, 1);
    EQUAL(two.opened, CLIENTS);
    EQUAL(two.echoed, CLIENTS * ROUNDS);
    EQUAL(two.served, CLIENTS * ROUNDS);
    EQUAL(two.told, CLIENTS * ROUNDS);
    EQUAL(two.wrong, 0);
    rt_loop_free(two.client);
    rt_loop_free(two.server);
}

int main(void)
{
    alarm(100); /* a broken one fails, and does not hang */
    RUN_EACH(no_post_is_lost_doubled_or_overtaken);
    RUN_EACH(posts_race_with_stops_and_runs);
    RUN_EACH(a_full_loop_says_so_and_runs_what_it_took);
    RUN_EACH(what_waits_when_the_loop_is_freed_never_runs);
    RUN_EACH(no_stop_is_missed);
    RUN_EACH(a_signal_handler_may_stop_the_loop);
    RUN_EACH(two_loops_talk_over_sockets_and_posts);
    return test_done();
}
