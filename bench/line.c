/*
 * The bytes of a connection: those of its socket, or, for wss:// in a build
 * with mbedTLS, what comes through TLS.  The server is not verified: this is a
 * load, and the server's certificate is one for the test.  A record that the
 * socket does not take wholly is kept, so that mbedTLS never has to be called
 * again with the same bytes.
 */
#include "rtload.h"
#include <errno.h>

static ssize_t plain_send(conn *c, struct iovec *v, int count)
{
    struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)count};
    if (count == 1)
        return send(c->fd, v->iov_base, v->iov_len, MSG_NOSIGNAL);
    return sendmsg(c->fd, &m, MSG_NOSIGNAL);
}

#if defined(RT_TLS_MBEDTLS)

#include <mbedtls/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { RECORD = 16384, REST_MOST = 65536 };

static mbedtls_ssl_config config;

struct secure {
    mbedtls_ssl_context ssl;
    int fd, error;
    size_t at, len; /* of rest, what waits for the socket */
    uint8_t rest[REST_MOST];
};

static int draw(void *unused, unsigned char *out, size_t n)
{
    (void)unused;
    return getrandom(out, n, 0) == (ssize_t)n ? 0 : -1;
}

static int rest_add(secure *s, const uint8_t *p, size_t n)
{
    if (s->len == s->at)
        s->len = s->at = 0;
    if (n > REST_MOST - s->len)
        return -1;
    memcpy(s->rest + s->len, p, n);
    s->len += n;
    return 0;
}

static int bio_write(void *of, const unsigned char *p, size_t n)
{
    secure *s = of;
    ssize_t done = 0;
    if (s->len == s->at)
        done = send(s->fd, p, n, MSG_NOSIGNAL);
    if (done < 0 && errno != EAGAIN) {
        s->error = errno;
        return -1;
    }
    done = done < 0 ? 0 : done;
    return rest_add(s, p + done, n - (size_t)done) < 0 ? -1 : (int)n;
}

static int bio_read(void *of, unsigned char *p, size_t n)
{
    secure *s = of;
    ssize_t got = recv(s->fd, p, n, 0);
    if (got < 0 && errno == EAGAIN)
        return MBEDTLS_ERR_SSL_WANT_READ;
    s->error = got < 0 ? errno : 0;
    return got < 0 ? -1 : (int)got;
}

int line_ready(load *l)
{
    mbedtls_ssl_config_init(&config);
    l->secure = 1;
    if (mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT,
                                    MBEDTLS_SSL_TRANSPORT_STREAM,
                                    MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        return -1;
    mbedtls_ssl_conf_authmode(&config, MBEDTLS_SSL_VERIFY_NONE);
    mbedtls_ssl_conf_rng(&config, draw, NULL);
    return 0;
}

static secure *line_open(conn *c)
{
    secure *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    mbedtls_ssl_init(&s->ssl);
    c->secure = s;
    if (mbedtls_ssl_setup(&s->ssl, &config) != 0)
        return NULL;
    mbedtls_ssl_set_bio(&s->ssl, s, bio_write, bio_read, NULL);
    return s;
}

int line_shake(load *l, conn *c)
{
    secure *s = c->secure;
    int said;
    if (!l->secure)
        return 1;
    if (!s && !(s = line_open(c))) {
        errno = ENOMEM;
        return -1;
    }
    s->fd = c->fd;
    line_flush(c);
    said = mbedtls_ssl_handshake(&s->ssl);
    if (said == 0 || said == MBEDTLS_ERR_SSL_WANT_READ)
        return said == 0;
    errno = s->error ? s->error : EPROTO;
    return -1;
}

void line_flush(conn *c)
{
    secure *s = c->secure;
    ssize_t n;
    if (!s || s->len == s->at)
        return;
    n = send(s->fd, s->rest + s->at, s->len - s->at, MSG_NOSIGNAL);
    s->at += n > 0 ? (size_t)n : 0;
}

/* One record of what stands there from that byte on. */
static int record_send(secure *s, const struct iovec *v, int count, size_t from)
{
    static uint8_t record[RECORD];
    size_t n = 0;
    for (int i = 0; i < count && n < RECORD; i++) {
        const uint8_t *p = v[i].iov_base;
        size_t skip = from < v[i].iov_len ? from : v[i].iov_len;
        size_t step = v[i].iov_len - skip;
        from -= skip;
        if (step > RECORD - n)
            step = RECORD - n;
        memcpy(record + n, p + skip, step);
        n += step;
    }
    return mbedtls_ssl_write(&s->ssl, record, n);
}

/* As much as the socket takes: only where it is full less than all. */
ssize_t line_send(conn *c, struct iovec *v, int count)
{
    secure *s = c->secure;
    size_t all = 0, done = 0;
    int said = 1;
    if (!s)
        return plain_send(c, v, count);
    for (int i = 0; i < count; i++)
        all += v[i].iov_len;
    line_flush(c);
    while (done < all && s->len == s->at && said > 0) {
        said = record_send(s, v, count, done);
        done += said > 0 ? (size_t)said : 0;
    }
    errno = said > 0 ? EAGAIN : s->error ? s->error : EPROTO;
    return done > 0 && said > 0 ? (ssize_t)done : -1;
}

ssize_t line_recv(conn *c, void *to, size_t n, int flags)
{
    secure *s = c->secure;
    int said;
    if (!s)
        return recv(c->fd, to, n, flags);
    said = mbedtls_ssl_read(&s->ssl, to, n);
    if (said >= 0 || said == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        return said > 0 ? said : 0;
    errno = s->error ? s->error : EPROTO;
    if (said == MBEDTLS_ERR_SSL_WANT_READ)
        errno = EAGAIN;
    return -1;
}

void line_end(conn *c)
{
    if (!c->secure)
        return;
    mbedtls_ssl_free(&c->secure->ssl);
    free(c->secure);
    c->secure = NULL;
}

#else

int line_ready(load *l)
{
    (void)l;
    return -1;
}

int line_shake(load *l, conn *c)
{
    (void)l, (void)c;
    return 1;
}

void line_flush(conn *c)
{
    (void)c;
}

ssize_t line_send(conn *c, struct iovec *v, int count)
{
    return plain_send(c, v, count);
}

ssize_t line_recv(conn *c, void *to, size_t n, int flags)
{
    return recv(c->fd, to, n, flags);
}

void line_end(conn *c)
{
    (void)c;
}

#endif
