/*
 * TLS, by mbedTLS: 2.28, and by its documentation 3.x.  Compiled to something
 * only with -DRT_TLS_MBEDTLS; without it rtnet_internal.h has what the others
 * call.  Here are certificates and keys (rt__tls_conf, which an endpoint holds
 * and each connection that began with it) and the records (rt__tls, one of each
 * connection); rtnet.c has the states.  No call here blocks, and none but
 * rt__conn_send touches a socket: what was received is fed, what is sealed is
 * sent or kept in `rest`.  So mbedTLS is never told to write again, and its
 * rule for that, the same buffer once more, has no case in which to be broken.
 */
#include "rtnet_internal.h"

#if defined(RT_TLS_MBEDTLS)

#include <errno.h>
#include <stdio.h>

#include <mbedtls/base64.h>
#include <mbedtls/entropy.h>
#include <mbedtls/error.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/pk.h>
#include <mbedtls/sha256.h>
#include <mbedtls/ssl.h>
#include <mbedtls/ssl_ticket.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
#include <psa/crypto.h>
#endif

enum {
    PINS = 8,
    PIN_TEXT = 44,          /* 32 bytes in base64 */
    REST_MOST = 128 * 1024, /* more than any flight of a handshake */
    TICKET_S = 24 * 3600
};

/* ---- certificates and keys ---------------------------------------------- */

typedef struct {
    mbedtls_x509_crt crt;
    mbedtls_pk_context key;
} pair;

/* Options that were read.  What came through it holds it: a reload puts another
   in its place, for those who come. */
struct rt__tls_conf {
    uint32_t refs;
    int of; /* RT__TLS_SERVER and its kin */
    mbedtls_ssl_config ssl;
    mbedtls_x509_crt ca;
    pair *pairs; /* the first is that of a host without a name */
    size_t pair_count, pair_room;
    int (*sni)(void *user, const char *host);
    void *user;
    uint8_t pins[PINS][32];
    size_t pin_count;
    uint8_t has_ca, has_saved;
    char *name;          /* a client's: for whom the certificate must be */
    const char *http[2]; /* the protocols of ALPN */
    mbedtls_ssl_ticket_context tickets;
    mbedtls_ssl_session saved; /* a client's last: it comes back with that */
};

typedef struct {
    rt__tls head; /* first: the others see only that */
    rt_loop *loop;
    rt__conn *conn;
    rt__tls_conf *conf;
    mbedtls_ssl_context ssl;
    const uint8_t *in; /* what was fed and is not read yet */
    size_t in_len;
    uint32_t flags;  /* what is wrong with the peer's certificate */
    uint8_t unlike;  /* its key is none of those pinned */
    uint8_t shaken;  /* the handshake is done */
    uint8_t reading; /* mbedtls_ssl_read runs */
    uint8_t spoke;   /* and wrote something by itself */
    uint8_t last;    /* the kind of the record written last */
    int error;       /* errno of what failed in a callback of mbedTLS */
} secure;

static secure *secure_of(const rt__conn *c)
{
    return (secure *)rt__tls_of(c);
}

/* The loop's secure source.  mbedTLS' own generator is not used: it would keep
   state of the process. */
static int draw(void *of, unsigned char *out, size_t n)
{
    rt_loop *loop = (rt_loop *)of;
    return loop->opts.random(loop->opts.user, out, n) < 0
               ? MBEDTLS_ERR_ENTROPY_SOURCE_FAILED
               : 0;
}

static int one_of(int code, const int *codes, size_t n)
{
    while (n-- > 0)
        if (codes[n] == code)
            return 1;
    return 0;
}

/* mbedTLS has a number for it in each of its modules, alone or as the low part
   of a sum. */
static int no_memory(int code)
{
    static const int whole[] = {MBEDTLS_ERR_SSL_ALLOC_FAILED,
                                MBEDTLS_ERR_X509_ALLOC_FAILED,
                                MBEDTLS_ERR_PK_ALLOC_FAILED,
                                -0x1180,  /* PEM */
                                -0x4D80,  /* ECP */
                                -0x5180,  /* MD */
                                -0x6180}; /* CIPHER */
    static const int low[] = {0x10, /* MPI */ 0x6A /* ASN.1 */};
    return one_of(code, whole, sizeof whole / sizeof *whole) ||
           one_of(-code & 0x7f, low, sizeof low / sizeof *low);
}

/* Why options cannot be used; returns -1. */
static int unfit(rt_loop *loop, const char *what, const char *which, int code)
{
    char text[128], detail[160];
    if (no_memory(code) || code == MBEDTLS_ERR_ENTROPY_SOURCE_FAILED) {
        rt__fail(loop, no_memory(code) ? RT_ENOMEM : RT_ERANDOM, what, NULL);
        return -1;
    }
    mbedtls_strerror(code, text, sizeof text);
    snprintf(detail, sizeof detail, "%s: %s", which, text);
    rt__fail(loop, RT_EINVAL, what, detail);
    return -1;
}

static int is_text(const char *pem)
{
    return strncmp(pem, "-----BEGIN", 10) == 0;
}

/* Negative, or how many certificates of it could not be read. */
static int certificates_read(mbedtls_x509_crt *crt, const char *pem)
{
    if (is_text(pem))
        return mbedtls_x509_crt_parse(crt, (const unsigned char *)pem,
                                      strlen(pem) + 1);
    return mbedtls_x509_crt_parse_file(crt, pem);
}

static int key_read(rt_loop *loop, mbedtls_pk_context *key, const char *pem)
{
    const unsigned char *text = (const unsigned char *)pem;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return is_text(pem) ? mbedtls_pk_parse_key(key, text, strlen(pem) + 1, NULL,
                                               0, draw, loop)
                        : mbedtls_pk_parse_keyfile(key, pem, NULL, draw, loop);
#else
    (void)loop;
    return is_text(pem)
               ? mbedtls_pk_parse_key(key, text, strlen(pem) + 1, NULL, 0)
               : mbedtls_pk_parse_keyfile(key, pem, NULL);
#endif
}

static int key_fits(rt_loop *loop, pair *p)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    return mbedtls_pk_check_pair(&p->crt.pk, &p->key, draw, loop);
#else
    (void)loop;
    return mbedtls_pk_check_pair(&p->crt.pk, &p->key);
#endif
}

/* One certificate with its key; the pair is in the array before it is read, so
   that a half of it is freed, too. */
static int pair_read(rt_loop *loop, rt__tls_conf *conf, const char *what,
                     const char *cert, const char *key)
{
    pair *p = &conf->pairs[conf->pair_count++];
    int bad;
    mbedtls_x509_crt_init(&p->crt);
    mbedtls_pk_init(&p->key);
    if (!cert || !key) {
        rt__fail(loop, RT_EINVAL, what, "cert and key belong together");
        return -1;
    }
    bad = certificates_read(&p->crt, cert);
    if (bad > 0)
        bad = MBEDTLS_ERR_X509_INVALID_FORMAT;
    if (bad < 0)
        return unfit(loop, what, "cert", bad);
    if ((bad = key_read(loop, &p->key, key)) < 0)
        return unfit(loop, what, "key", bad);
    bad = key_fits(loop, p);
    if (bad && no_memory(bad))
        return unfit(loop, what, "key", bad);
    if (!bad)
        return 0;
    rt__fail(loop, RT_EINVAL, what, "the key is not that of the certificate");
    return -1;
}

static int pairs_read(rt_loop *loop, rt__tls_conf *conf, const char *what,
                      const rt_tls_opts *o)
{
    size_t i, n = 1 + (size_t)o->other_count;
    conf->pairs = (pair *)rt__alloc(loop, n * sizeof *conf->pairs);
    if (!conf->pairs) {
        rt__fail(loop, RT_ENOMEM, what, NULL);
        return -1;
    }
    conf->pair_room = n;
    if (pair_read(loop, conf, what, o->cert, o->key) < 0)
        return -1;
    for (i = 1; i < n; i++)
        if (pair_read(loop, conf, what, o->others[i - 1].cert,
                      o->others[i - 1].key) < 0)
            return -1;
    return 0;
}

/* A list of many may hold some that mbedTLS does not know. */
static int ca_read(rt_loop *loop, rt__tls_conf *conf, const char *what,
                   const char *pem)
{
    int bad = certificates_read(&conf->ca, pem);
    if (bad < 0)
        return unfit(loop, what, "ca", bad);
    conf->has_ca = 1;
    return 0;
}

/* 1: it is one more. */
static int pin_add(rt__tls_conf *conf, const char *text, size_t n)
{
    size_t got = 0;
    return conf->pin_count < PINS && n == PIN_TEXT &&
           mbedtls_base64_decode(conf->pins[conf->pin_count++], 32, &got,
                                 (const unsigned char *)text, n) == 0 &&
           got == 32;
}

/* A list of none is no list: it would ask for less than was meant. */
static int pins_read(rt_loop *loop, rt__tls_conf *conf, const char *what,
                     const char *list)
{
    int good = 0;
    size_t n;
    for (; *(list += strspn(list, " ")); list += n) {
        n = strcspn(list, " ");
        good = pin_add(conf, list, n);
        if (!good)
            break;
    }
    if (good)
        return 0;
    rt__fail(loop, RT_EINVAL, what, "pin: not up to 8 SHA-256 sums in base64");
    return -1;
}

/* What cannot be meant is refused, rather than ignored. */
static const char *opts_unfit(const rt_tls_opts *o, int of)
{
    int server = of & RT__TLS_SERVER;
    if (!o)
        return "wss and tls need opts.tls";
    if (server && (!o->cert || !o->key))
        return "cert and key are needed";
    if (o->other_count < 0 || (o->other_count > 0 && (!o->others || !o->sni)))
        return "others without sni, or none of them";
    if (server && (o->pin || o->name))
        return "pin and name are for rt_dial";
    if (!server && (o->sni || o->other_count))
        return "sni and others are for rt_listen";
    if (!server && !o->ca && (!o->pin || !o->pin[strspn(o->pin, " ")]))
        return "neither ca nor pin: nobody is to be trusted";
    return NULL;
}

static int opts_read(rt_loop *loop, rt__tls_conf *conf, const char *what,
                     const rt_tls_opts *o, const char *host)
{
    if ((o->cert || o->key) && pairs_read(loop, conf, what, o) < 0)
        return -1;
    if (o->ca && ca_read(loop, conf, what, o->ca) < 0)
        return -1;
    if (o->pin && pins_read(loop, conf, what, o->pin) < 0)
        return -1;
    if (host && !(conf->name = rt__strdup(loop, o->name ? o->name : host))) {
        rt__fail(loop, RT_ENOMEM, what, NULL);
        return -1;
    }
    return 0;
}

/* ---- what is spoken ----------------------------------------------------- */

/* Forward secrecy and authenticated encryption, nothing else. */
static const int suites[] = {
#if defined(MBEDTLS_SSL_PROTO_TLS1_3)
    MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
    MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
    MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
#endif
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    0};

/* The order of mbedTLS 2.28 begins with the slowest. */
#if MBEDTLS_VERSION_NUMBER >= 0x03010000
static const uint16_t groups[] = {
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1, MBEDTLS_SSL_IANA_TLS_GROUP_X25519,
    MBEDTLS_SSL_IANA_TLS_GROUP_SECP384R1, MBEDTLS_SSL_IANA_TLS_GROUP_SECP521R1,
    MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
#else
static const mbedtls_ecp_group_id groups[] = {
    MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_CURVE25519,
    MBEDTLS_ECP_DP_SECP384R1, MBEDTLS_ECP_DP_SECP521R1, MBEDTLS_ECP_DP_NONE};
#endif

/* For which of the certificates the handshake goes on.  Of two names that
   differ behind a NUL none is meant. */
static int name_told(void *of, mbedtls_ssl_context *ssl,
                     const unsigned char *name, size_t len)
{
    rt__tls_conf *conf = (rt__tls_conf *)of;
    char host[256];
    int chosen;
    if (len >= sizeof host || memchr(name, 0, len))
        return -1;
    memcpy(host, name, len);
    host[len] = 0;
    chosen = rt__tell_sni(conf->sni, conf->user, host);
    if (chosen < 0 || (size_t)chosen >= conf->pair_count)
        return -1;
    return mbedtls_ssl_set_hs_own_cert(ssl, &conf->pairs[chosen].crt,
                                       &conf->pairs[chosen].key);
}

static void versions_choose(mbedtls_ssl_config *ssl)
{
#if MBEDTLS_VERSION_NUMBER >= 0x03020000
    mbedtls_ssl_conf_min_tls_version(ssl, MBEDTLS_SSL_VERSION_TLS1_2);
#else
    mbedtls_ssl_conf_min_version(ssl, MBEDTLS_SSL_MAJOR_VERSION_3,
                                 MBEDTLS_SSL_MINOR_VERSION_3);
#endif
    mbedtls_ssl_conf_ciphersuites(ssl, suites);
#if defined(MBEDTLS_SSL_PROTO_TLS1_3)
    mbedtls_ssl_conf_tls13_key_exchange_modes(
        ssl, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL);
#endif
#if MBEDTLS_VERSION_NUMBER >= 0x03010000
    mbedtls_ssl_conf_groups(ssl, groups);
#else
    mbedtls_ssl_conf_curves(ssl, groups);
#endif
#if defined(MBEDTLS_SSL_RENEGOTIATION)
    mbedtls_ssl_conf_renegotiation(ssl, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
#endif
    mbedtls_ssl_conf_legacy_renegotiation(ssl,
                                          MBEDTLS_SSL_LEGACY_NO_RENEGOTIATION);
}

/* Whom to trust.  A pin alone is asked for in trusted(), which lets nobody else
   pass; mbedTLS would refuse to ask without a ca. */
static void trust_choose(rt__tls_conf *conf)
{
    int server = conf->of & RT__TLS_SERVER;
    if (conf->has_ca)
        mbedtls_ssl_conf_ca_chain(&conf->ssl, &conf->ca, NULL);
    if (conf->has_ca)
        mbedtls_ssl_conf_authmode(&conf->ssl, MBEDTLS_SSL_VERIFY_REQUIRED);
    else
        mbedtls_ssl_conf_authmode(&conf->ssl,
                                  server ? MBEDTLS_SSL_VERIFY_NONE
                                         : MBEDTLS_SSL_VERIFY_OPTIONAL);
}

/* Each configuration has ticket keys of its own. */
static int tickets_begin(rt_loop *loop, rt__tls_conf *conf)
{
    int bad;
    if (!(conf->of & RT__TLS_SERVER))
        return 0;
    bad = mbedtls_ssl_ticket_setup(&conf->tickets, draw, loop,
                                   MBEDTLS_CIPHER_AES_256_GCM, TICKET_S);
    if (bad == 0)
        mbedtls_ssl_conf_session_tickets_cb(
            &conf->ssl, mbedtls_ssl_ticket_write, mbedtls_ssl_ticket_parse,
            &conf->tickets);
    return bad;
}

static int conf_begin(rt_loop *loop, rt__tls_conf *conf)
{
    int server = conf->of & RT__TLS_SERVER;
    int bad = mbedtls_ssl_config_defaults(
        &conf->ssl, server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT,
        MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    mbedtls_ssl_conf_rng(&conf->ssl, draw, loop);
    versions_choose(&conf->ssl);
    trust_choose(conf);
    if (conf->sni)
        mbedtls_ssl_conf_sni(&conf->ssl, name_told, conf);
    if (!bad && conf->of & RT__TLS_HTTP)
        bad = mbedtls_ssl_conf_alpn_protocols(&conf->ssl, conf->http);
    if (!bad && conf->pair_count > 0)
        bad = mbedtls_ssl_conf_own_cert(&conf->ssl, &conf->pairs->crt,
                                        &conf->pairs->key);
    return bad ? bad : tickets_begin(loop, conf);
}

static rt__tls_conf *conf_new(rt_loop *loop, int of)
{
    rt__tls_conf *conf = (rt__tls_conf *)rt__alloc(loop, sizeof *conf);
    if (!conf)
        return NULL;
    conf->refs = 1;
    conf->of = of;
    conf->http[0] = "http/1.1";
    mbedtls_ssl_config_init(&conf->ssl);
    mbedtls_x509_crt_init(&conf->ca);
    mbedtls_ssl_ticket_init(&conf->tickets);
    mbedtls_ssl_session_init(&conf->saved);
    return conf;
}

/* Reads everything at once, so that a wrong file is told of here and not by
   connections that fail.  host: a dial's, else NULL.  NULL: see rt_error. */
rt__tls_conf *rt__tls_conf_new(rt_loop *loop, const char *what,
                               const rt_tls_opts *o, int of, const char *host,
                               void *user)
{
    const char *wrong = opts_unfit(o, of);
    rt__tls_conf *conf;
    int bad = 0;
    if (wrong)
        return rt__fail(loop, RT_EINVAL, what, wrong), (rt__tls_conf *)NULL;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    if (psa_crypto_init() != PSA_SUCCESS)
        return rt__fail(loop, RT_ERANDOM, what, NULL), (rt__tls_conf *)NULL;
#endif
    conf = conf_new(loop, of);
    if (!conf)
        return rt__fail(loop, RT_ENOMEM, what, NULL), (rt__tls_conf *)NULL;
    conf->sni = o->sni;
    conf->user = user;
    if (opts_read(loop, conf, what, o, host) == 0 &&
        (bad = conf_begin(loop, conf)) == 0)
        return conf;
    if (bad)
        unfit(loop, what, "tls", bad);
    rt__tls_conf_release(loop, conf);
    return NULL;
}

/* Copes with one that was made only half, and with none. */
void rt__tls_conf_release(rt_loop *loop, rt__tls_conf *conf)
{
    size_t i;
    if (!conf || --conf->refs > 0)
        return;
    mbedtls_ssl_config_free(&conf->ssl);
    mbedtls_x509_crt_free(&conf->ca);
    mbedtls_ssl_ticket_free(&conf->tickets);
    mbedtls_ssl_session_free(&conf->saved);
    for (i = 0; i < conf->pair_count; i++) {
        mbedtls_x509_crt_free(&conf->pairs[i].crt);
        mbedtls_pk_free(&conf->pairs[i].key);
    }
    rt__free(loop, conf->pairs, conf->pair_room * sizeof *conf->pairs);
    rt__strfree(loop, conf->name);
    rt__free(loop, conf, sizeof *conf);
}

/* ---- the peer's certificate --------------------------------------------- */

static int pinned(const rt__tls_conf *conf, const mbedtls_x509_crt *crt)
{
    uint8_t sum[32];
    size_t i;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    int bad = mbedtls_sha256(crt->pk_raw.p, crt->pk_raw.len, sum, 0);
#else
    int bad = mbedtls_sha256_ret(crt->pk_raw.p, crt->pk_raw.len, sum, 0);
#endif
    for (i = 0; !bad && i < conf->pin_count; i++)
        if (memcmp(sum, conf->pins[i], sizeof sum) == 0)
            return 1;
    return 0;
}

/* mbedTLS asks for each certificate from the top, the peer's own (depth 0) at
   last; a failure here is never passed over.  A pin without a ca stands for all
   that could be said against the chain. */
static int trusted(void *of, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    secure *t = (secure *)of;
    if (t->conf->pin_count > 0 && depth == 0 && !pinned(t->conf, crt)) {
        t->unlike = 1;
        return MBEDTLS_ERR_X509_FATAL_ERROR;
    }
    if (t->conf->pin_count > 0 && !t->conf->has_ca)
        *flags = 0;
    t->flags |= *flags;
    return 0;
}

/* Of its use, its curve or the length of its chain no flag tells. */
static int certificate_fault(int code)
{
    static const int faults[] = {MBEDTLS_ERR_SSL_BAD_HS_CERTIFICATE,
                                 MBEDTLS_ERR_X509_CERT_VERIFY_FAILED,
                                 MBEDTLS_ERR_X509_FATAL_ERROR};
    return one_of(code, faults, sizeof faults / sizeof *faults);
}

static const char *distrust(const secure *t, int code)
{
    if (t->unlike)
        return "certificate: not the pinned key";
    if (t->flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
        return "certificate: not trusted";
    if (t->flags & MBEDTLS_X509_BADCERT_EXPIRED)
        return "certificate: expired";
    if (t->flags & MBEDTLS_X509_BADCERT_FUTURE)
        return "certificate: not valid yet";
    if (t->flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)
        return "certificate: wrong host";
    if (t->flags || (!t->shaken && certificate_fault(code)))
        return "certificate: not acceptable";
    return NULL;
}

/* ---- a connection ------------------------------------------------------- */

/* What failed, for on_close and the log. */
static void explain(secure *t, int code)
{
    const char *why = distrust(t, code);
    char text[80];
    t->head.distrusted = why != NULL;
    if (!why && t->spoke > 1)
        why = "renegotiation";
    if (!why && t->error)
        why = strerror(t->error);
    if (!why) {
        mbedtls_strerror(code, text, sizeof text);
        why = text;
    }
    snprintf(t->head.why, sizeof t->head.why, "TLS: %s", why);
    if (t->head.distrusted)
        snprintf(t->head.why, sizeof t->head.why, "%s", why);
}

/* Behind what waits already: nothing may overtake it. */
static int rest_add(secure *t, const uint8_t *p, size_t n)
{
    rt__buf *old = t->head.rest, *b;
    size_t have = old ? old->len - t->head.rest_off : 0;
    b = have + n > REST_MOST ? NULL : rt__buf_new(t->loop, have + n);
    if (!b)
        return -1;
    if (have)
        memcpy(rt__buf_data(b), rt__buf_data(old) + t->head.rest_off, have);
    memcpy(rt__buf_data(b) + have, p, n);
    b->len = (uint32_t)(have + n);
    rt__buf_release(t->loop, old);
    t->head.rest = b;
    t->head.rest_off = 0;
    return 0;
}

/* mbedTLS writes.  It is told that all of it went.  What it writes while it
   reads is the answer to one who breaks the rules, or wants to renegotiate:
   once is enough. */
static int bio_write(void *of, const unsigned char *p, size_t n)
{
    secure *t = (secure *)of;
    ptrdiff_t done = 0;
    if (t->reading && t->spoke++)
        return MBEDTLS_ERR_NET_SEND_FAILED;
    t->last = *p;
    if (!t->head.rest)
        done = rt__conn_send(t->loop, t->conn, p, n);
    if (done < 0) {
        t->error = errno;
        return MBEDTLS_ERR_NET_SEND_FAILED;
    }
    if ((size_t)done < n && rest_add(t, p + done, n - (size_t)done) < 0) {
        t->error = ENOMEM;
        return MBEDTLS_ERR_SSL_ALLOC_FAILED;
    }
    return (int)n;
}

static int bio_read(void *of, unsigned char *p, size_t n)
{
    secure *t = (secure *)of;
    if (t->in_len == 0)
        return MBEDTLS_ERR_SSL_WANT_READ;
    if (n > t->in_len)
        n = t->in_len;
    memcpy(p, t->in, n);
    t->in += n;
    t->in_len -= n;
    return (int)n;
}

/* A client names whom it wants, and shows the ticket it has. */
static int client_begin(secure *t)
{
    int bad = mbedtls_ssl_set_hostname(&t->ssl, t->conf->name);
    if (!bad && t->conf->has_saved) /* else it is a whole handshake */
        t->conf->has_saved =
            mbedtls_ssl_set_session(&t->ssl, &t->conf->saved) == 0;
    return bad;
}

/* Where a connection's TLS begins; < 0: no memory. */
int rt__tls_open(rt_loop *loop, rt__conn *c)
{
    secure *t = (secure *)rt__alloc(loop, sizeof *t);
    int bad;
    if (!t)
        return RT_ENOMEM;
    t->loop = loop;
    t->conn = c;
    t->conf = c->ep->tls;
    t->conf->refs++;
    mbedtls_ssl_init(&t->ssl);
    *rt__tls_at(c) = &t->head;
    bad = mbedtls_ssl_setup(&t->ssl, &t->conf->ssl);
    if (bad)
        return RT_ENOMEM;
    mbedtls_ssl_set_bio(&t->ssl, t, bio_write, bio_read, NULL);
    mbedtls_ssl_set_verify(&t->ssl, trusted, t);
    return t->conf->of & RT__TLS_SERVER || client_begin(t) == 0 ? 0 : RT_ENOMEM;
}

void rt__tls_free(rt_loop *loop, rt__conn *c)
{
    secure *t = secure_of(c);
    if (!t)
        return;
    *rt__tls_at(c) = NULL;
    rt__buf_release(loop, t->head.rest);
    mbedtls_ssl_free(&t->ssl);
    rt__tls_conf_release(loop, t->conf);
    rt__free(loop, t, sizeof *t);
}

/* What was received: read before it goes. */
void rt__tls_feed(rt__conn *c, const uint8_t *p, size_t n)
{
    secure *t = secure_of(c);
    t->in = p;
    t->in_len = n;
}

/* The session that a client may come back with.  Without memory for it the next
   handshake is a whole one. */
static void session_save(secure *t)
{
    if (!(t->conf->of & RT__TLS_AGAIN))
        return;
    mbedtls_ssl_session_free(&t->conf->saved);
    mbedtls_ssl_session_init(&t->conf->saved);
    t->conf->has_saved = mbedtls_ssl_get_session(&t->ssl, &t->conf->saved) == 0;
}

/* mbedTLS says nothing of some failures behind its first flight, like a
   certificate or a curve that is missing. */
static void alert_unsaid(secure *t, int code)
{
    if (t->last == MBEDTLS_SSL_MSG_HANDSHAKE && !t->error &&
        code != MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE)
        mbedtls_ssl_send_alert_message(&t->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL,
                                       MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE);
}

/* 1: the handshake is done; 0: more has to come; < 0: it failed, `why` says of
   what, and nothing else is spoken. */
int rt__tls_shake(rt_loop *loop, rt__conn *c)
{
    secure *t = secure_of(c);
    int said = mbedtls_ssl_handshake(&t->ssl);
    (void)loop;
    if (said == MBEDTLS_ERR_SSL_WANT_READ)
        return 0;
    if (said == 0) {
        t->shaken = 1;
        session_save(t);
        return 1;
    }
    explain(t, said);
    alert_unsaid(t, said);
    t->head.muted = 1;
    t->in_len = 0;
    t->conf->has_saved = 0;
    return RT_EREFUSED;
}

/* Reads or writes; with TLS 1.3 a ticket may come between, which a server sends
   when it likes. */
static int record_read(secure *t, uint8_t *to, size_t room)
{
    int said = mbedtls_ssl_read(&t->ssl, to, room);
#if defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
    while (said == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
        session_save(t);
        said = mbedtls_ssl_read(&t->ssl, to, room);
    }
#endif
    return said;
}

static int record_write(secure *t, const void *data, size_t n)
{
    const unsigned char *p = (const unsigned char *)data;
    int said = mbedtls_ssl_write(&t->ssl, p, n);
#if defined(MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET)
    while (said == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET) {
        session_save(t);
        said = mbedtls_ssl_write(&t->ssl, p, n);
    }
#endif
    return said;
}

/* Why mbedtls_ssl_read ended; 1: it goes on, as behind a record of which
   nothing came (0) or that only it was told (a warning). */
static int read_ended(secure *t, int said)
{
    if (said == 0 || (said == MBEDTLS_ERR_SSL_WANT_READ && t->in_len > 0))
        return 1;
    if (said == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY)
        t->head.ended = 1;
    else if (said != MBEDTLS_ERR_SSL_WANT_READ)
        explain(t, said);
    return 0;
}

/* Opens all that was fed, so that nothing is left where no event would tell of
   it.  Returns how many bytes came of it; the peer's close_notify sets `ended`,
   a fault `why`: both stand behind those bytes. */
ptrdiff_t rt__tls_read(rt_loop *loop, rt__conn *c, uint8_t *to, size_t room)
{
    secure *t = secure_of(c);
    size_t got = 0;
    int said = 1;
    (void)loop;
    t->reading = 1;
    while (!t->head.muted && !t->head.ended && got < room && said > 0) {
        said = record_read(t, to + got, room - got);
        if (said > 0)
            got += (size_t)said;
        else
            said = read_ended(t, said);
    }
    t->reading = 0;
    if (t->spoke && !*t->head.why)
        snprintf(t->head.why, sizeof t->head.why, "TLS: renegotiation");
    if (*t->head.why)
        t->head.muted = 1;
    t->in_len = 0;
    return (ptrdiff_t)got;
}

/* Seals one record and sends it; what the socket does not take is kept, so that
   it counts as written.  Returns how many bytes it holds; -1 and errno. */
ptrdiff_t rt__tls_write(rt_loop *loop, rt__conn *c, const void *data, size_t n)
{
    secure *t = secure_of(c);
    int said =
        t->head.muted ? MBEDTLS_ERR_NET_SEND_FAILED : record_write(t, data, n);
    (void)loop;
    if (said > 0)
        return said;
    errno = t->error ? t->error : EPROTO;
    return -1;
}

/* Sends the rest: 0: it is gone; 1: not all of it; -1 and errno. */
int rt__tls_flush(rt_loop *loop, rt__conn *c)
{
    rt__tls *t = rt__tls_of(c);
    size_t n = t->rest->len - t->rest_off;
    ptrdiff_t done =
        rt__conn_send(loop, c, rt__buf_data(t->rest) + t->rest_off, n);
    if (done < 0)
        return -1;
    t->rest_off += (uint32_t)done;
    if ((size_t)done < n)
        return 1;
    rt__buf_release(loop, t->rest);
    t->rest = NULL;
    t->messages = 0;
    return 0;
}

/* The last word, before the FIN: tried once.  Behind half a record nothing is
   readable, so where the socket is full it is not heard. */
void rt__tls_bye(rt_loop *loop, rt__conn *c)
{
    secure *t = secure_of(c);
    if (!t || t->head.muted || !t->shaken)
        return;
    if (!t->head.rest) /* nothing may follow half a record */
        mbedtls_ssl_close_notify(&t->ssl);
    rt__buf_release(loop, t->head.rest);
    t->head.rest = NULL; /* the messages in it stay counted: they are lost */
    t->head.muted = 1;
}

#endif
