/*
 * What the cases of test_tls.c share: a server and a client in one loop, each
 * of which counts what it is told, and a client of mbedTLS alone.
 */
#ifndef TLS_STAGE_H
#define TLS_STAGE_H

#include "peer.h"

#include <mbedtls/ssl.h>

/* ---- certificates -------------------------------------------------------- */

static struct {
    tls_made ca, host, other, late, lone, stranger, user;
} certs;

static int certs_begin(void)
{
    return tls_make(&certs.ca, "authority", NULL, 2020, 2040) ||
                   tls_make(&certs.host, "localhost", &certs.ca, 2020, 2040) ||
                   tls_make(&certs.other, "other.example", &certs.ca, 2020,
                            2040) ||
                   tls_make(&certs.late, "localhost", &certs.ca, 2020, 2021) ||
                   tls_make(&certs.lone, "localhost", NULL, 2020, 2040) ||
                   tls_make(&certs.stranger, "authority", NULL, 2020, 2040) ||
                   tls_make(&certs.user, "user", &certs.ca, 2020, 2040)
               ? -1
               : 0;
}

static void certs_end(void)
{
    tls_unmake(&certs.ca);
    tls_unmake(&certs.host);
    tls_unmake(&certs.other);
    tls_unmake(&certs.late);
    tls_unmake(&certs.lone);
    tls_unmake(&certs.stranger);
    tls_unmake(&certs.user);
}

/* ---- both ends ----------------------------------------------------------- */

/* What one end was told. */
typedef struct {
    rt_session s;
    int opened, messages, closed, writable, away, back, requests;
    size_t bytes;
    uint64_t sum; /* of all bytes, with their places */
    int code, cause, pause; /* pause: in on_message, after so many */
    uint64_t lost;
    char reason[128], path[64], address[64];
    int decide; /* what on_request returns */
} end_seen;

static struct {
    rt_loop *loop;
    rt_listener listener;
    int port;
    rt_listen_opts lo;
    rt_dial_opts od;
    rt_tls_opts ls, ds;
    end_seen server, client;
    int silent; /* the server does not echo */
    char logged[200];
} st;

static end_seen *end_of(rt_loop *loop, rt_session s)
{
    return (end_seen *)rt_context(loop, s);
}

static uint64_t sum_of(uint64_t sum, const void *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data;
    size_t i;
    for (i = 0; i < n; i++)
        sum = (sum ^ p[i]) * 1099511628211u;
    return sum;
}

static int on_request(rt_loop *loop, rt_session s, const rt_request *r)
{
    end_seen *e = end_of(loop, s);
    e->s = s;
    e->requests++;
    snprintf(e->path, sizeof e->path, "%s", r->path);
    snprintf(e->address, sizeof e->address, "%s", r->address);
    return e->decide;
}

static void on_open(rt_loop *loop, rt_session s)
{
    end_of(loop, s)->s = s;
    end_of(loop, s)->opened++;
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    end_seen *e = end_of(loop, s);
    e->messages++;
    e->bytes += len;
    e->sum = sum_of(e->sum, data, len);
    if (e->messages == e->pause)
        rt_read(loop, s, 0);
    if (e == &st.server && !st.silent)
        rt_send(loop, s, kind, data, len);
}

static void on_writable(rt_loop *loop, rt_session s)
{
    end_of(loop, s)->writable++;
}

static void on_away(rt_loop *loop, rt_session s)
{
    end_of(loop, s)->away++;
}

static void on_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    end_of(loop, s)->back++;
    end_of(loop, s)->lost += lost;
}

static void on_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    end_seen *e = end_of(loop, s);
    e->closed++;
    e->code = why->code;
    e->cause = why->cause;
    e->lost += why->lost;
    snprintf(e->reason, sizeof e->reason, "%s", why->reason);
}

static void on_log(void *user, int level, const char *text)
{
    (void)user, (void)level;
    snprintf(st.logged, sizeof st.logged, "%s", text);
}

static void stage_begin(void)
{
    static const rt_handler on = {on_request, on_open, on_message, on_writable,
                                  on_away,    on_back, on_close,   NULL,
                                  NULL};
    rt_loop_opts o = {.realloc = peer_realloc, .log = on_log};
    memset(&st, 0, sizeof st);
    peer_heap = 0;
    st.loop = rt_loop_new(&o);
    st.lo.on = st.od.on = on;
    st.od.on.request = NULL;
    st.lo.user = &st.server;
    st.od.user = &st.client;
    st.lo.tls = &st.ls;
    st.od.tls = &st.ds;
    st.ls.cert = certs.host.cert;
    st.ls.key = certs.host.key;
    st.ds.ca = certs.ca.cert;
}

static void stage_listen(const char *scheme)
{
    char url[64];
    snprintf(url, sizeof url, "%s://127.0.0.1:0", scheme);
    st.listener = rt_listen(st.loop, url, &st.lo);
    st.port = rt_listener_port(st.loop, st.listener);
    CHECK(st.port > 0);
}

static void stage_dial(const char *scheme)
{
    char url[64];
    snprintf(url, sizeof url, "%s://localhost:%d", scheme, st.port);
    st.client.s = rt_dial(st.loop, url, &st.od);
    CHECK(st.client.s.id != 0);
}

/* Turns until *what is at least that; false: it does not become so. */
static int turns_until(const int *what, int least)
{
    uint64_t end = peer_clock() + 5000;
    while (*what < least && peer_clock() < end)
        rt_poll(st.loop, 5);
    return *what >= least;
}

static void turns(int n)
{
    while (n-- > 0)
        rt_poll(st.loop, 1);
}

static void stage_end(void)
{
    rt_loop_free(st.loop);
    EQUAL(peer_heap, 0);
    EQUAL(peer_heap_lies, 0);
}

#endif
