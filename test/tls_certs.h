/*
 * Certificates for the tests of TLS, made when they run: an authority, those
 * that it vouches for and one that vouches for itself.  The chance in their
 * keys is the same in each run: they are worth nothing outside of it.
 */
#ifndef TLS_CERTS_H
#define TLS_CERTS_H

#include <mbedtls/base64.h>
#include <mbedtls/ecp.h>
#include <mbedtls/pk.h>
#include <mbedtls/sha256.h>
#include <mbedtls/version.h>
#include <mbedtls/x509_crt.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    char cert[2048], key[1024]; /* PEM */
    char subject[80];
    char pin[45]; /* of the key, as in RFC 7469 */
    mbedtls_pk_context pk;
} tls_made;

static uint64_t tls_chance = 88172645463325252u;

static int tls_draw(void *unused, unsigned char *out, size_t n)
{
    (void)unused;
    for (; n > 0; n--) {
        tls_chance ^= tls_chance << 13;
        tls_chance ^= tls_chance >> 7;
        tls_chance ^= tls_chance << 17;
        *out++ = (unsigned char)(tls_chance >> 32);
    }
    return 0;
}

static void tls_pin(tls_made *m)
{
    unsigned char der[512], sum[32];
    size_t n = 0;
    int len = mbedtls_pk_write_pubkey_der(&m->pk, der, sizeof der);
    const unsigned char *at = der + sizeof der - (size_t)len;
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    mbedtls_sha256(at, (size_t)len, sum, 0);
#else
    mbedtls_sha256_ret(at, (size_t)len, sum, 0);
#endif
    mbedtls_base64_encode((unsigned char *)m->pin, sizeof m->pin, &n, sum, 32);
}

static int tls_key(tls_made *m)
{
    mbedtls_pk_init(&m->pk);
    if (mbedtls_pk_setup(&m->pk, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY)) ||
        mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(m->pk),
                            tls_draw, NULL))
        return -1;
    tls_pin(m);
    return mbedtls_pk_write_key_pem(&m->pk, (unsigned char *)m->key,
                                    sizeof m->key);
}

/* The next ones may vouch for others. */
static int tls_authority;

/* One for that name, good between two years; issuer NULL: by itself. */
static int tls_make(tls_made *m, const char *name, tls_made *issuer, int from,
                    int to)
{
    static int serial;
    mbedtls_x509write_cert w;
    mbedtls_mpi number;
    char begin[16], end[16];
    int bad = tls_key(m);
    snprintf(begin, sizeof begin, "%04d0101000000", from % 10000);
    snprintf(end, sizeof end, "%04d0101000000", to % 10000);
    snprintf(m->subject, sizeof m->subject, "CN=%s,O=rtnet", name);
    mbedtls_x509write_crt_init(&w);
    mbedtls_mpi_init(&number);
    mbedtls_x509write_crt_set_version(&w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_md_alg(&w, MBEDTLS_MD_SHA256);
    mbedtls_x509write_crt_set_subject_key(&w, &m->pk);
    mbedtls_x509write_crt_set_issuer_key(&w, issuer ? &issuer->pk : &m->pk);
    bad = bad || mbedtls_mpi_lset(&number, ++serial) ||
          mbedtls_x509write_crt_set_serial(&w, &number) ||
          mbedtls_x509write_crt_set_subject_name(&w, m->subject) ||
          mbedtls_x509write_crt_set_issuer_name(&w, issuer ? issuer->subject
                                                           : m->subject) ||
          mbedtls_x509write_crt_set_validity(&w, begin, end) ||
          mbedtls_x509write_crt_set_basic_constraints(
              &w, !issuer || tls_authority, -1) ||
          mbedtls_x509write_crt_pem(&w, (unsigned char *)m->cert,
                                    sizeof m->cert, tls_draw, NULL);
    mbedtls_mpi_free(&number);
    mbedtls_x509write_crt_free(&w);
    return bad ? -1 : 0;
}

static void tls_unmake(tls_made *m)
{
    mbedtls_pk_free(&m->pk);
}

#endif
