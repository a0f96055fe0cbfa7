/*
 * What the cases of test_tls.c share: a server and a client in one loop, each
 * of which counts what it is told, and a client of mbedTLS alone.
 */
#ifndef TLS_STAGE_H
#define TLS_STAGE_H

#include "peer.h"

#include <mbedtls/ssl.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

enum { WAIT = 20000 }; /* ms, in vain */

/* ---- certificates -------------------------------------------------------- */

static struct {
    tls_made ca, host, other, late, lone, stranger, user;
} certs;

static int certs_begin(void)
{
    int bad = tls_make(&certs.ca, "authority", NULL, 2020, 2040) ||
              tls_make(&certs.host, "localhost", &certs.ca, 2020, 2040) ||
              tls_make(&certs.other, "other.example", &certs.ca, 2020, 2040) ||
              tls_make(&certs.late, "localhost", &certs.ca, 2020, 2021) ||
              tls_make(&certs.lone, "localhost", NULL, 2020, 2040) ||
              tls_make(&certs.stranger, "authority", NULL, 2020, 2040) ||
              tls_make(&certs.user, "user", &certs.ca, 2020, 2040);
    return bad ? -1 : 0;
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
    uint64_t sum;           /* of all bytes, with their places */
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
    static const rt_handler on = {on_request,  on_open, on_message,
                                  on_writable, on_away, on_back,
                                  on_close,    NULL,    NULL};
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
    uint64_t end = peer_clock() + WAIT;
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

/* ---- an end of mbedTLS alone --------------------------------------------- */

/* A client, or a server where it has a certificate.  What it may not do as an
   honest one is set in conf, before probe_connect. */
typedef struct {
    int fd, fin; /* fin: the other side's was seen */
    mbedtls_ssl_config conf;
    mbedtls_ssl_context ssl;
    mbedtls_x509_crt crt;
    mbedtls_pk_context key;
    size_t sent, got;  /* bytes of the line */
    const char *first; /* goes before all else, unsealed */
    size_t hold, held; /* held back until there are so many */
    uint8_t holding[8192];
} probe;

static int probe_put(probe *p, const void *data, size_t n)
{
    ssize_t done = send(p->fd, data, n, MSG_NOSIGNAL);
    if (done < 0)
        return errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_WRITE : -1;
    p->sent += (size_t)done;
    return (int)done;
}

/* What is held back goes as one with what comes behind it. */
static int probe_send(void *of, const unsigned char *data, size_t n)
{
    probe *p = (probe *)of;
    if (!p->hold)
        return probe_put(p, data, n);
    memcpy(p->holding + p->held, data, n);
    p->held += n;
    if (p->held < p->hold)
        return (int)n;
    probe_put(p, p->holding, p->held);
    p->hold = p->held = 0;
    return (int)n;
}

static int probe_recv(void *of, unsigned char *data, size_t n)
{
    probe *p = (probe *)of;
    ssize_t got = recv(p->fd, data, n, 0);
    if (got < 0 && errno == EAGAIN)
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (got <= 0)
        p->fin = got == 0 ? 1 : -1;
    else
        p->got += (size_t)got;
    return (int)got;
}

static void probe_begin(probe *p, int server)
{
    memset(p, 0, sizeof *p);
    mbedtls_ssl_config_init(&p->conf);
    mbedtls_ssl_init(&p->ssl);
    mbedtls_x509_crt_init(&p->crt);
    mbedtls_pk_init(&p->key);
    mbedtls_ssl_config_defaults(
        &p->conf, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
        MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_authmode(&p->conf, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&p->conf, tls_draw, NULL);
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
}

static void probe_ready(probe *p)
{
    CHECK(mbedtls_ssl_setup(&p->ssl, &p->conf) == 0);
    mbedtls_ssl_set_bio(&p->ssl, p, probe_send, probe_recv, NULL);
    fcntl(p->fd, F_SETFL, O_NONBLOCK);
}

static void probe_connect(probe *p)
{
    struct sockaddr_in to;
    int one = 1;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons((uint16_t)st.port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(p->fd, (struct sockaddr *)&to, sizeof to) == 0);
    setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    probe_ready(p);
}

static int wants(int code)
{
    return code == MBEDTLS_ERR_SSL_WANT_READ ||
           code == MBEDTLS_ERR_SSL_WANT_WRITE;
}

/* 0, or why not; WANT_READ: it takes too long. */
static int probe_shake(probe *p)
{
    uint64_t end = peer_clock() + WAIT;
    int code;
    do {
        rt_poll(st.loop, 1);
        code = mbedtls_ssl_handshake(&p->ssl);
    } while (wants(code) && peer_clock() < end);
    return code;
}

static void probe_write(probe *p, const void *data, size_t n)
{
    uint64_t end = peer_clock() + WAIT;
    int code = 0;
    do {
        code = mbedtls_ssl_write(&p->ssl, (const unsigned char *)data, n);
        if (wants(code))
            rt_poll(st.loop, 1);
    } while (wants(code) && peer_clock() < end);
    EQUAL(code, n);
}

/* What mbedtls_ssl_read says, once it says anything. */
static int probe_read(probe *p, void *to, size_t n)
{
    uint64_t end = peer_clock() + WAIT;
    int code;
    do {
        code = mbedtls_ssl_read(&p->ssl, (unsigned char *)to, n);
        if (wants(code))
            rt_poll(st.loop, 1);
    } while (wants(code) && peer_clock() < end);
    return code;
}

static void probe_read_all(probe *p, void *to, size_t n)
{
    size_t got = 0;
    while (got < n) {
        int code = probe_read(p, (char *)to + got, n - got);
        CHECK(code > 0);
        if (code <= 0)
            return;
        got += (size_t)code;
    }
}

/* The other side shut its half, after all that it sent. */
static int probe_fin(probe *p)
{
    uint64_t end = peer_clock() + WAIT;
    char some[4096];
    ssize_t n;
    do {
        rt_poll(st.loop, 1);
        n = recv(p->fd, some, sizeof some, 0);
    } while ((n > 0 || (n < 0 && errno == EAGAIN)) && peer_clock() < end);
    return n == 0;
}

static void probe_close(probe *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static void probe_end(probe *p)
{
    probe_close(p);
    mbedtls_ssl_free(&p->ssl);
    mbedtls_ssl_config_free(&p->conf);
    mbedtls_x509_crt_free(&p->crt);
    mbedtls_pk_free(&p->key);
}

/* Asks for an upgrade and reads the 101, to its end. */
static void probe_upgrade(probe *p)
{
    static const char ask[] =
        "GET /path HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    char answer[512] = "";
    size_t n = 0;
    probe_write(p, ask, sizeof ask - 1);
    while (n < sizeof answer - 1 && !strstr(answer, "\r\n\r\n")) {
        if (probe_read(p, answer + n, 1) != 1)
            break;
        answer[++n] = 0;
    }
    CHECK(strncmp(answer, "HTTP/1.1 101", 12) == 0);
}

static uint64_t counted(const char *cause)
{
    static char page[32768];
    char line[64];
    const char *at;
    rt_metrics(st.loop, page, sizeof page);
    snprintf(line, sizeof line, "refused_total{cause=\"%s\"} ", cause);
    at = strstr(page, line);
    return at ? strtoull(at + strlen(line), NULL, 10) : UINT64_MAX;
}

/* What libc has given away and not got back; 0: it cannot tell. */
static size_t libc_bytes(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    return mallinfo2().uordblks + mallinfo2().hblkhd;
#else
    return 0;
#endif
}

static rt__conn *conn_of(const end_seen *e)
{
    rt__session *s = (rt__session *)rt__slot_get(st.loop, e->s.id, RT__SESSION);
    return s ? s->conn : NULL;
}

#endif
