/*
 * TLS over real sockets: rtnet at both ends, or a client that uses mbedTLS by
 * itself and so can do what no honest one does.  All in one process; the
 * certificates are made first.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "rtnet_internal.h"
#include "test.h"

#include <signal.h>
#include <sys/wait.h>

#include "tls_certs.h"
#include "tls_stage.h"

/* ---- both ends ----------------------------------------------------------- */

static void echo_over(const char *scheme, int framing)
{
    stage_begin();
    st.lo.framing = st.od.framing = framing;
    stage_listen(scheme);
    stage_dial(scheme);
    CHECK(turns_until(&st.client.opened, 1));
    CHECK(rt_send(st.loop, st.client.s, RT_BINARY, "hello", 5) == 0);
    CHECK(turns_until(&st.client.messages, 1));
    EQUAL(st.client.bytes, 5);
    EQUAL(st.server.messages, 1);
    CHECK(rt_close(st.loop, st.client.s, 0, NULL) == 0);
    CHECK(turns_until(&st.client.closed, 1));
    CHECK(turns_until(&st.server.closed, 1));
    EQUAL(st.client.code, 1000);
    stage_end();
}

static void wss_echoes(void)
{
    echo_over("wss", 0);
}

static void tls_echoes_with_lengths(void)
{
    echo_over("tls", RT_LENGTH);
}

static void tls_echoes_raw_bytes(void)
{
    echo_over("tls", RT_RAW);
}

static void tls_echoes_in_rtnet_1(void)
{
    echo_over("tls", RT_RTNET1);
}

static void big_over(const char *scheme, int framing)
{
    enum { BIG = 1024 * 1024 };
    uint8_t *data = (uint8_t *)malloc(BIG);
    stage_begin();
    tls_draw(NULL, data, BIG);
    st.lo.framing = st.od.framing = framing;
    st.lo.max_message = st.od.max_message = BIG;
    stage_listen(scheme);
    stage_dial(scheme);
    CHECK(turns_until(&st.client.opened, 1));
    CHECK(rt_send(st.loop, st.client.s, RT_BINARY, data, BIG) >= 0);
    CHECK(turns_until(&st.client.messages, 1));
    EQUAL(st.client.bytes, BIG);
    EQUAL(st.server.bytes, BIG);
    CHECK(st.client.sum == sum_of(0, data, BIG));
    CHECK(st.server.sum == st.client.sum);
    stage_end();
    free(data);
}

static void a_mebibyte_goes_both_ways_over_wss(void)
{
    big_over("wss", 0);
}

static void a_mebibyte_goes_both_ways_over_tls(void)
{
    big_over("tls", RT_LENGTH);
}

/* Around the size of a record, and of what is lent instead of copied. */
static void messages_about_as_long_as_a_record_come_back(void)
{
    static uint8_t data[16400];
    size_t size, bytes = 0;
    int n = 0;
    stage_begin();
    tls_draw(NULL, data, sizeof data);
    stage_listen("wss");
    stage_dial("wss");
    CHECK(turns_until(&st.client.opened, 1));
    for (size = 16360; size <= sizeof data && !test_bad; size += 4) {
        int k;
        for (k = 0; k < 3; k++)
            CHECK(rt_send(st.loop, st.client.s, RT_BINARY, data, size) >= 0);
        n += 3;
        bytes += 3 * size;
        CHECK(turns_until(&st.client.messages, n));
    }
    EQUAL(st.client.bytes, bytes);
    stage_end();
}

static void a_shared_buffer_of_a_group_reaches_members_with_tls(void)
{
    enum { MEMBERS = 6, MESSAGES = 60 };
    rt_session s[MEMBERS];
    rt_group g;
    char url[64];
    int i, crowds = 0;
    stage_begin();
    st.silent = 1;
    stage_listen("wss");
    snprintf(url, sizeof url, "wss://localhost:%d", st.port);
    g = rt_group_open(st.loop, "all", NULL);
    for (i = 0; i < MEMBERS; i++)
        s[i] = rt_dial(st.loop, url, &st.od);
    CHECK(turns_until(&st.client.opened, MEMBERS));
    CHECK(turns_until(&st.server.opened, MEMBERS));
    for (s[0].id = 0; (s[0] = rt_next_session(st.loop, s[0])).id != 0;)
        if (rt_context(st.loop, s[0]) == &st.server)
            CHECK(rt_group_join(st.loop, g, s[0]) == 0);
    for (i = 0; i < MESSAGES; i++) {
        EQUAL(rt_group_send(st.loop, g, RT_TEXT, "to all", 6), MEMBERS);
        crowds += st.loop->crowd_count > 0;
        if (i % 5 == 4)
            turns(1);
    }
    CHECK(crowds > 0);
    CHECK(turns_until(&st.client.messages, MEMBERS * MESSAGES));
    EQUAL(st.client.bytes, MEMBERS * MESSAGES * 6);
    stage_end();
}

/* ---- a peer that does not read ------------------------------------------- */

/* A stream of messages of that size to a probe that reads nothing, until the
   socket is full and then some; how many. */
static int flood(probe *p, size_t size, int more)
{
    static uint8_t data[65536];
    int small = 16384, sent = 0;
    st.silent = 1;
    st.lo.hard_mark = 64 * 1024 * 1024;
    stage_listen("tls");
    probe_begin(p, 0);
    setsockopt(p->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    probe_connect(p);
    EQUAL(probe_shake(p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    while (!rt__tls_rest(conn_of(&st.server)) && sent < 4000000) {
        memset(data, sent, size);
        CHECK(rt_send(st.loop, st.server.s, RT_BINARY, data, size) >= 0);
        if (++sent % (int)(1 + 200000 / size) == 0)
            rt_flush(st.loop);
    }
    CHECK(rt__tls_rest(conn_of(&st.server)));
    CHECK(rt__tls_of(conn_of(&st.server))->rest->len < RT__RECORD + 64);
    for (; more > 0; more--, sent++) {
        memset(data, sent, size);
        CHECK(rt_send(st.loop, st.server.s, RT_BINARY, data, size) >= 0);
    }
    rt_flush(st.loop);
    EQUAL(rt_unsent(st.loop, st.server.s),
          conn_of(&st.server)->out->bytes +
              rt__tls_of(conn_of(&st.server))->rest->len -
              rt__tls_of(conn_of(&st.server))->rest_off);
    return sent;
}

/* Reads whole messages of flood until there are n of them, or the end. */
static int messages_read(probe *p, size_t size, int n)
{
    static uint8_t got[65536 + 4];
    size_t have = 0;
    int count = 0, code = 1;
    while (count < n) {
        code = probe_read(p, got + have, size + 4 - have);
        if (code <= 0)
            return count;
        have += (size_t)code;
        if (have < size + 4)
            continue;
        CHECK(got[4] == (uint8_t)count && got[size + 3] == (uint8_t)count);
        have = 0;
        count++;
    }
    return count;
}

static void what_a_slow_peer_was_sent_comes_whole_when_it_reads(void)
{
    static const size_t sizes[] = {20, 1000, 16380, 40000};
    size_t i;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        probe p;
        int sent;
        stage_begin();
        sent = flood(&p, sizes[i], 100);
        CHECK(rt_unsent(st.loop, st.server.s) > 0);
        EQUAL(messages_read(&p, sizes[i], sent), sent);
        CHECK(conn_of(&st.server) && !conn_of(&st.server)->out);
        EQUAL(rt_unsent(st.loop, st.server.s), 0);
        turns(2);
        CHECK(st.server.writable > 0 || sizes[i] < 1000);
        probe_close(&p); /* what is sent now is lost, and nothing else is */
        rt_send(st.loop, st.server.s, RT_BINARY, "x", 1);
        rt_flush(st.loop);
        rt_send(st.loop, st.server.s, RT_BINARY, "x", 1);
        rt_flush(st.loop);
        probe_end(&p);
        stage_end();
        EQUAL(st.server.lost, 1);
    }
}

/* What the system had taken the peer still reads, to the last whole record;
   the rest is lost, and told so, to the message. */
static void lost_counts_those_in_a_record_that_did_not_go(void)
{
    static const size_t sizes[] = {20, 500, 5000, 40000};
    size_t i;
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        probe p;
        rt_loop *loop;
        int sent, got;
        stage_begin();
        sent = flood(&p, sizes[i], (int)i * 3);
        rt_loop_free(st.loop);
        EQUAL(st.server.closed, 1);
        loop = st.loop = rt_loop_new(NULL); /* to turn while it reads */
        got = messages_read(&p, sizes[i], sent + 1);
        EQUAL(st.server.lost, sent - got);
        CHECK(st.server.lost > 0);
        probe_end(&p);
        rt_loop_free(loop);
        EQUAL(peer_heap, 0);
    }
}

/* On a WebSocket, too, where the peer's end is the end of all. */
static void lost_counts_them_when_the_peer_goes(void)
{
    static uint8_t data[5000];
    int small = 16384, sent = 0, got, i;
    probe p;
    stage_begin();
    st.silent = 1;
    st.lo.hard_mark = 64 * 1024 * 1024;
    stage_listen("wss");
    probe_begin(&p, 0);
    setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    probe_upgrade(&p);
    CHECK(turns_until(&st.server.opened, 1));
    while (!rt__tls_rest(conn_of(&st.server)) && sent < 100000) {
        for (i = 0; i < 10; i++, sent++) {
            memset(data, sent, sizeof data);
            rt_send(st.loop, st.server.s, RT_BINARY, data, sizeof data);
        }
        rt_flush(st.loop);
    }
    shutdown(p.fd, SHUT_WR);
    CHECK(turns_until(&st.server.closed, 1));
    got = messages_read(&p, sizeof data, sent + 1);
    EQUAL(st.server.lost, sent - got);
    CHECK(st.server.lost > 0);
    probe_end(&p);
    stage_end();
}

/* Droppable ones alone make a record, too. */
static void a_droppable_one_goes_alone(void)
{
    char got[5];
    probe p;
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    EQUAL(rt_send(st.loop, st.server.s, RT_TEXT | RT_DROPPABLE, "x", 1), 0);
    probe_read_all(&p, got, 5);
    CHECK(memcmp(got, "\0\0\0\1x", 5) == 0);
    probe_end(&p);
    stage_end();
}

/* ---- odd records --------------------------------------------------------- */

/* One message of a length, behind records of which nothing comes. */
static void message_behind(void (*odd)(probe *))
{
    probe p;
    stage_begin();
    st.silent = 1;
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    odd(&p);
    probe_write(&p, "\0\0\0\1x", 5);
    CHECK(turns_until(&st.server.messages, 1));
    EQUAL(st.server.closed, 0);
    probe_end(&p);
    stage_end();
}

static void empty_records(probe *p)
{
    EQUAL(mbedtls_ssl_write(&p->ssl, (const unsigned char *)"", 0), 0);
    EQUAL(mbedtls_ssl_write(&p->ssl, (const unsigned char *)"", 0), 0);
}

static void a_warning(probe *p)
{
    EQUAL(
        mbedtls_ssl_send_alert_message(&p->ssl, MBEDTLS_SSL_ALERT_LEVEL_WARNING,
                                       MBEDTLS_SSL_ALERT_MSG_NO_RENEGOTIATION),
        0);
}

static void empty_records_are_passed_over(void)
{
    message_behind(empty_records);
}

static void what_comes_behind_a_warning_is_read(void)
{
    message_behind(a_warning);
}

/* ---- the end ------------------------------------------------------------- */

static void row_76_a_server_closes_by_websocket_then_tls_then_tcp(void)
{
    static const uint8_t answer[] = {0x88, 0x82, 0, 0, 0, 0, 3, 232};
    uint8_t got[8];
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    probe_upgrade(&p);
    CHECK(turns_until(&st.server.opened, 1));
    rt_close(st.loop, st.server.s, 1000, NULL);
    probe_read_all(&p, got, 4);
    CHECK(memcmp(got, "\x88\x02\x03\xe8", 4) == 0);
    probe_write(&p, answer, sizeof answer);
    EQUAL(probe_read(&p, got, 1), MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    CHECK(!p.fin);
    CHECK(probe_fin(&p));
    EQUAL(st.server.code, 1000);
    probe_end(&p);
    stage_end();
}

/* A server of mbedTLS alone, to which rtnet dials. */
static void serve(probe *p, tls_made *is)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    int listening;
    probe_begin(p, 1);
    listening = p->fd;
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(p->fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(listen(p->fd, 1) == 0);
    getsockname(p->fd, (struct sockaddr *)&at, &len);
    st.port = ntohs(at.sin_port);
    mbedtls_x509_crt_parse(&p->crt, (unsigned char *)is->cert,
                           strlen(is->cert) + 1);
#if MBEDTLS_VERSION_NUMBER >= 0x03000000
    mbedtls_pk_parse_key(&p->key, (unsigned char *)is->key, strlen(is->key) + 1,
                         NULL, 0, tls_draw, NULL);
#else
    mbedtls_pk_parse_key(&p->key, (unsigned char *)is->key, strlen(is->key) + 1,
                         NULL, 0);
#endif
    mbedtls_ssl_conf_own_cert(&p->conf, &p->crt, &p->key);
    (void)listening;
}

static void serve_accept(probe *p)
{
    int fd;
    rt_poll(st.loop, 1);
    fd = accept(p->fd, NULL, NULL);
    CHECK(fd >= 0);
    close(p->fd);
    p->fd = fd;
    probe_ready(p);
    EQUAL(probe_shake(p), 0);
}

/* Reads the request of a dial and answers it. */
static void serve_upgrade(probe *p)
{
    char request[2048] = "", answer[256], accept[29], *key;
    size_t n = 0;
    while (n < sizeof request - 1 && !strstr(request, "\r\n\r\n")) {
        if (probe_read(p, request + n, 1) != 1)
            break;
        request[++n] = 0;
    }
    key = strstr(request, "Sec-WebSocket-Key: ");
    CHECK(key != NULL);
    if (!key)
        return;
    key += 19;
    key[24] = 0;
    rt__accept_key(key, accept);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
             accept);
    probe_write(p, answer, strlen(answer));
}

static void row_76_a_client_says_close_notify_and_leaves_the_fin(void)
{
    static const uint8_t answer[] = {0x88, 2, 3, 232};
    uint8_t got[8];
    probe p;
    stage_begin();
    serve(&p, &certs.host);
    stage_dial("wss");
    serve_accept(&p);
    serve_upgrade(&p);
    CHECK(turns_until(&st.client.opened, 1));
    rt_close(st.loop, st.client.s, 1000, NULL);
    probe_read_all(&p, got, 8); /* masked */
    CHECK(got[0] == 0x88 && got[1] == 0x82);
    probe_write(&p, answer, sizeof answer);
    EQUAL(probe_read(&p, got, 1), MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    turns(5);
    CHECK(recv(p.fd, got, 1, 0) < 0 && errno == EAGAIN); /* no FIN yet */
    mbedtls_ssl_close_notify(&p.ssl);
    shutdown(p.fd, SHUT_WR);
    CHECK(probe_fin(&p));
    EQUAL(st.client.code, 1000);
    probe_end(&p);
    stage_end();
}

/* How the server's session ends when a stream's peer ends in that way. */
static void stream_ends(int notify, int fin, int code)
{
    probe p;
    char got[16];
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    probe_write(&p, "\0\0\0\2hi", 6);
    CHECK(turns_until(&st.server.messages, 1));
    probe_read_all(&p, got, 6);
    if (notify)
        mbedtls_ssl_close_notify(&p.ssl);
    if (fin)
        shutdown(p.fd, SHUT_WR);
    CHECK(turns_until(&st.server.closed, 1));
    EQUAL(st.server.code, code);
    EQUAL(st.server.cause, RT_BY_PEER);
    if (notify)
        EQUAL(probe_read(&p, got, 1), MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    CHECK(probe_fin(&p));
    probe_end(&p);
    stage_end();
}

static void a_fin_without_close_notify_is_1006(void)
{
    stream_ends(0, 1, 1006);
}

static void close_notify_is_the_end_with_and_without_a_fin(void)
{
    stream_ends(1, 1, 1005);
    stream_ends(1, 0, 1005);
}

/* Three messages and the end come at once; the host pauses at one of them. */
static void pause_before_the_end(int at)
{
    static const char all[] = "\0\0\0\1a\0\0\0\1b\0\0\0\1c";
    probe p;
    stage_begin();
    st.silent = 1;
    st.server.pause = at;
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    p.hold = 8000;
    probe_write(&p, all, sizeof all - 1);
    mbedtls_ssl_close_notify(&p.ssl);
    p.hold = 0;
    probe_put(&p, p.holding, p.held);
    CHECK(turns_until(&st.server.messages, at));
    turns(5);
    EQUAL(st.server.messages, at);
    EQUAL(st.server.closed, 0);
    EQUAL(rt_read(st.loop, st.server.s, 1), 0);
    CHECK(turns_until(&st.server.closed, 1));
    EQUAL(st.server.messages, 3);
    EQUAL(st.server.code, 1005);
    probe_end(&p);
    stage_end();
}

static void row_76_what_came_before_the_end_is_told_after_a_pause(void)
{
    pause_before_the_end(1);
    pause_before_the_end(2);
    pause_before_the_end(3);
}

static void a_record_that_was_changed_ends_the_session(void)
{
    uint8_t bad[29] = {23, 3, 3, 0, 24};
    probe p;
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    CHECK(send(p.fd, bad, sizeof bad, 0) == sizeof bad);
    CHECK(turns_until(&st.server.closed, 1));
    EQUAL(st.server.code, 1006);
    EQUAL(st.server.cause, RT_BY_ERROR);
    CHECK(strncmp(st.server.reason, "TLS: ", 5) == 0);
    EQUAL(probe_read(&p, bad, 1), MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE);
    probe_end(&p);
    stage_end();
}

/* ---- whom a client trusts ------------------------------------------------ */

/* Dials a server with that certificate; reason NULL: it opens. */
static void trust_pair(const char *cert, const char *key, const char *reason)
{
    st.ls.cert = cert;
    st.ls.key = key;
    stage_listen("wss");
    stage_dial("wss");
    if (!reason) {
        CHECK(turns_until(&st.client.opened, 1));
        EQUAL(st.client.closed, 0);
    } else {
        CHECK(turns_until(&st.client.closed, 1));
        EQUAL(st.client.opened, 0);
        EQUAL(st.client.code, 1006);
        EQUAL(st.client.cause, RT_BY_ERROR);
        CHECK(strcmp(st.client.reason, reason) == 0);
        turns(5);
        EQUAL(st.server.requests, 0);
        EQUAL(counted("tls"), 1);
        CHECK(strncmp(st.logged, "TLS handshake failed: ", 22) == 0);
    }
    stage_end();
}

static void trust(const tls_made *is, const char *reason)
{
    trust_pair(is->cert, is->key, reason);
}

static void a_certificate_for_another_host_is_refused(void)
{
    stage_begin();
    trust(&certs.other, "certificate: wrong host");
}

static void an_expired_certificate_is_refused(void)
{
    stage_begin();
    trust(&certs.late, "certificate: expired");
}

static void a_self_signed_certificate_is_refused(void)
{
    stage_begin();
    trust(&certs.lone, "certificate: not trusted");
}

static void another_authority_is_refused(void)
{
    stage_begin();
    st.ds.ca = certs.stranger.cert;
    trust(&certs.host, "certificate: not trusted");
}

static void a_self_signed_certificate_is_trusted_as_its_own_authority(void)
{
    stage_begin();
    st.ds.ca = certs.lone.cert;
    trust(&certs.lone, NULL);
}

static void name_says_for_whom_the_certificate_must_be(void)
{
    stage_begin();
    st.ds.name = "other.example";
    trust(&certs.other, NULL);
    stage_begin();
    st.ds.name = "other.example";
    trust(&certs.host, "certificate: wrong host");
}

static void the_pinned_key_alone_is_enough(void)
{
    char pins[120];
    stage_begin();
    st.ds.ca = NULL;
    st.ds.pin = certs.lone.pin;
    trust(&certs.lone, NULL);
    stage_begin();
    snprintf(pins, sizeof pins, " %s %s ", certs.host.pin, certs.late.pin);
    st.ds.ca = NULL;
    st.ds.pin = pins;
    trust(&certs.late, NULL);
}

static void another_key_than_the_pinned_is_refused(void)
{
    stage_begin();
    st.ds.ca = NULL;
    st.ds.pin = certs.other.pin;
    trust(&certs.host, "certificate: not the pinned key");
    stage_begin();
    st.ds.pin = certs.other.pin;
    trust(&certs.host, "certificate: not the pinned key");
}

static void beside_a_pin_the_authority_must_hold_too(void)
{
    stage_begin();
    st.ds.pin = certs.host.pin;
    trust(&certs.host, NULL);
    stage_begin();
    st.ds.pin = certs.lone.pin;
    trust(&certs.lone, "certificate: not trusted");
}

static void a_certificate_of_the_future_is_refused(void)
{
    static tls_made next;
    CHECK(tls_make(&next, "localhost", &certs.ca, 2039, 2040) == 0);
    stage_begin();
    trust(&next, "certificate: not valid yet");
    tls_unmake(&next);
}

/* A session that could come back does not, to one that is not trusted. */
static void a_distrusted_server_is_not_tried_again(void)
{
    stage_begin();
    st.od.resume = 1;
    trust(&certs.late, "certificate: expired");
}

/* Of what is wrong with it no flag tells. */
static void a_chain_that_is_too_long_is_refused_for_good(void)
{
    enum { LINKS = 11 };
    static tls_made link[LINKS];
    static char chain[LINKS * sizeof link->cert];
    int i;
    for (i = 0; i < LINKS; i++) {
        tls_authority = i < LINKS - 1;
        EQUAL(tls_make(&link[i], tls_authority ? "a link" : "localhost",
                       i ? &link[i - 1] : &certs.ca, 2020, 2040),
              0);
    }
    for (i = LINKS; i-- > 0;)
        strcat(chain, link[i].cert);
    stage_begin();
    st.od.resume = 1;
    trust_pair(chain, link[LINKS - 1].key, "certificate: not acceptable");
    for (i = 0; i < LINKS; i++)
        tls_unmake(&link[i]);
}

static void a_server_asks_for_certificates_of_its_authority(void)
{
    stage_begin();
    st.ls.ca = certs.ca.cert;
    st.ds.cert = certs.user.cert;
    st.ds.key = certs.user.key;
    trust(&certs.host, NULL);
    stage_begin();
    st.ls.ca = certs.ca.cert;
    st.ds.cert = certs.lone.cert;
    st.ds.key = certs.lone.key;
    stage_listen("wss");
    stage_dial("wss");
    CHECK(turns_until(&st.client.closed, 1));
    EQUAL(st.client.opened, 0);
    EQUAL(counted("tls"), 1);
    stage_end();
    stage_begin(); /* none at all: it is told, which mbedTLS does not do */
    st.ls.ca = certs.ca.cert;
    stage_listen("wss");
    stage_dial("wss");
    CHECK(turns_until(&st.client.closed, 1));
    EQUAL(st.client.opened, 0);
    CHECK(strstr(st.client.reason, "alert message"));
    EQUAL(st.server.opened, 0);
    stage_end();
}

/* ---- which certificate --------------------------------------------------- */

static int sni_asked;

static int on_sni(void *user, const char *host)
{
    sni_asked++;
    CHECK(user == &st.server);
    if (strcmp(host, "other.example") == 0)
        return 1;
    if (strcmp(host, "far.example") == 0)
        return 7; /* there are not so many */
    return strcmp(host, "localhost") == 0 ? 0 : -1;
}

static void named(const char *name, int opens)
{
    rt_tls_cert others[1];
    stage_begin();
    others[0].cert = certs.other.cert;
    others[0].key = certs.other.key;
    st.ls.others = others;
    st.ls.other_count = 1;
    st.ls.sni = on_sni;
    st.ds.name = name;
    stage_listen("tls");
    memset(others, 0, sizeof others);
    stage_dial("tls");
    if (opens) {
        CHECK(turns_until(&st.client.opened, 1));
    } else {
        CHECK(turns_until(&st.client.closed, 1));
        EQUAL(st.client.opened, 0);
        EQUAL(counted("tls"), 1);
    }
    stage_end();
}

static void the_host_chooses_the_certificate_by_name(void)
{
    named("localhost", 1);
    named("other.example", 1);
}

static void the_host_refuses_a_name(void)
{
    named("nobody.example", 0);
    named("far.example", 0);
}

/* "localhost", a NUL, and more: a name for nobody. */
static void a_name_with_a_nul_is_nobodys(void)
{
    rt_tls_cert others[1];
    uint8_t *at;
    probe p;
    stage_begin();
    others[0].cert = certs.other.cert;
    others[0].key = certs.other.key;
    st.ls.others = others;
    st.ls.other_count = 1;
    st.ls.sni = on_sni;
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    mbedtls_ssl_set_hostname(&p.ssl, "localhost.example");
    p.hold = sizeof p.holding;
    CHECK(mbedtls_ssl_handshake(&p.ssl) == MBEDTLS_ERR_SSL_WANT_READ);
    at = (uint8_t *)memmem(p.holding, p.held, "localhost.", 10);
    CHECK(at != NULL);
    if (at)
        at[9] = 0;
    p.hold = 0;
    probe_put(&p, p.holding, p.held);
    sni_asked = 0;
    EQUAL(probe_shake(&p), MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE);
    EQUAL(sni_asked, 0);
    EQUAL(counted("tls"), 1);
    probe_end(&p);
    stage_end();
}

/* ---- reload -------------------------------------------------------------- */

static void file_write(char path[64], const char *text)
{
    FILE *f;
    int fd;
    snprintf(path, 64, "/tmp/rtnet-tls-XXXXXX");
    fd = mkstemp(path);
    f = fdopen(fd, "w");
    CHECK(f && fputs(text, f) >= 0);
    if (f)
        fclose(f);
}

static void reload_is_for_those_who_come(void)
{
    char cert[64], key[64];
    rt_tls_opts now = {0};
    rt_session old;
    stage_begin();
    stage_listen("wss");
    stage_dial("wss");
    CHECK(turns_until(&st.client.opened, 1));
    old = st.client.s;
    file_write(cert, certs.other.cert);
    file_write(key, certs.other.key);
    now.cert = cert;
    now.key = key;
    EQUAL(rt_tls_reload(st.loop, st.listener, &now), 0);
    unlink(cert);
    unlink(key);
    stage_dial("wss");
    CHECK(turns_until(&st.client.closed, 1));
    CHECK(strcmp(st.client.reason, "certificate: wrong host") == 0);
    st.ds.name = "other.example";
    stage_dial("wss");
    CHECK(turns_until(&st.client.opened, 2));
    EQUAL(rt_send(st.loop, old, RT_TEXT, "still", 5), 0);
    CHECK(turns_until(&st.client.messages, 1));
    stage_end();
}

/* What cannot be used is told, and all stays as it was. */
static void reload_of_what_is_wrong_changes_nothing(void)
{
    const struct {
        const char *cert, *key, *says;
    } wrong[] = {
        {"/nowhere/cert.pem", certs.host.key, "reload: cert: "},
        {certs.host.cert, "/nowhere/key.pem", "reload: key: "},
        {"-----BEGIN NOTHING", certs.host.key, "reload: cert: "},
        {certs.host.cert, "-----BEGIN NOTHING", "reload: key: "},
        {certs.host.cert, certs.other.key,
         "reload: the key is not that of the certificate"},
        {NULL, NULL, "reload: cert and key are needed"},
    };
    size_t i;
    stage_begin();
    stage_listen("wss");
    for (i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        rt_tls_opts now = {0};
        const char *text;
        now.cert = wrong[i].cert;
        now.key = wrong[i].key;
        EQUAL(rt_tls_reload(st.loop, st.listener, &now), RT_EINVAL);
        EQUAL(rt_error(st.loop, &text), RT_EINVAL);
        CHECK(strncmp(text, wrong[i].says, strlen(wrong[i].says)) == 0);
    }
    EQUAL(rt_tls_reload(st.loop, st.listener, NULL), RT_EINVAL);
    stage_dial("wss");
    CHECK(turns_until(&st.client.opened, 1));
    rt_unlisten(st.loop, st.listener);
    EQUAL(rt_tls_reload(st.loop, st.listener, &st.ls), RT_EGONE);
    stage_end();
}

/* What stands behind a certificate is sent to all, so it must be one. */
static void reload_takes_no_file_with_a_bad_certificate_behind(void)
{
    static char chain[4096];
    rt_tls_opts now = {0};
    const char *text;
    stage_begin();
    stage_listen("wss");
    snprintf(chain, sizeof chain,
             "%s-----BEGIN CERTIFICATE-----\nAAAA\n"
             "-----END CERTIFICATE-----\n",
             certs.host.cert);
    now.cert = chain;
    now.key = certs.host.key;
    EQUAL(rt_tls_reload(st.loop, st.listener, &now), RT_EINVAL);
    rt_error(st.loop, &text);
    CHECK(strncmp(text, "reload: cert: ", 14) == 0);
    snprintf(chain, sizeof chain, "%s%s", certs.host.cert, certs.ca.cert);
    EQUAL(rt_tls_reload(st.loop, st.listener, &now), 0);
    stage_dial("wss");
    CHECK(turns_until(&st.client.opened, 1));
    stage_end();
}

static void a_plain_listener_has_nothing_to_reload(void)
{
    const char *text;
    stage_begin();
    st.lo.tls = NULL;
    stage_listen("ws");
    EQUAL(rt_tls_reload(st.loop, st.listener, &st.ls), RT_EINVAL);
    rt_error(st.loop, &text);
    CHECK(strcmp(text, "reload: the listener is a plain one") == 0);
    stage_end();
}

/* ---- options ------------------------------------------------------------- */

static void unlistened(const char *url, const rt_tls_opts *tls,
                       const char *says)
{
    const char *text = "";
    st.lo.tls = tls;
    EQUAL(rt_listen(st.loop, url, &st.lo).id, 0);
    EQUAL(rt_error(st.loop, &text), RT_EINVAL);
    CHECK(strstr(text, says) != NULL);
}

static void undialled(const char *url, const rt_tls_opts *tls, const char *says)
{
    const char *text = "";
    st.od.tls = tls;
    EQUAL(rt_dial(st.loop, url, &st.od).id, 0);
    EQUAL(rt_error(st.loop, &text), RT_EINVAL);
    CHECK(strstr(text, says) != NULL);
}

static void a_listener_that_cannot_be_served_is_refused(void)
{
    rt_tls_opts o = {0};
    rt_tls_cert half = {0};
    stage_begin();
    unlistened("wss://127.0.0.1:0", NULL, "wss and tls need opts.tls");
    unlistened("ws://127.0.0.1:0", &st.ls, "tls is for wss and tls");
    unlistened("wss://127.0.0.1:0", &o, "cert and key are needed");
    o = st.ls;
    o.pin = certs.host.pin;
    unlistened("wss://127.0.0.1:0", &o, "pin and name are for rt_dial");
    o = st.ls;
    o.name = "localhost";
    unlistened("wss://127.0.0.1:0", &o, "pin and name are for rt_dial");
    o = st.ls;
    o.key = NULL;
    unlistened("wss://127.0.0.1:0", &o, "cert and key are needed");
    o = st.ls;
    o.other_count = -1;
    unlistened("tls://127.0.0.1:0", &o, "others without sni");
    o.other_count = 1;
    unlistened("tls://127.0.0.1:0", &o, "others without sni");
    o.sni = on_sni;
    unlistened("tls://127.0.0.1:0", &o, "others without sni");
    o.sni = NULL;
    o.others = &half;
    unlistened("tls://127.0.0.1:0", &o, "others without sni");
    o.sni = on_sni;
    unlistened("tls://127.0.0.1:0", &o, "cert and key belong together");
    o = st.ls;
    o.ca = "/nowhere/ca.pem";
    unlistened("tls://127.0.0.1:0", &o, "ca: ");
    stage_end();
}

static void a_dial_that_trusts_nobody_is_refused(void)
{
    static const rt_tls_cert half;
    static char many[9 * sizeof certs.host.pin + 1];
    rt_tls_opts o = {0};
    int i;
    stage_begin();
    undialled("wss://127.0.0.1:1", NULL, "wss and tls need opts.tls");
    undialled("ws://127.0.0.1:1", &st.ds, "tls is for wss and tls");
    undialled("wss://127.0.0.1:1", &o, "neither ca nor pin");
    o.pin = " ";
    undialled("wss://127.0.0.1:1", &o, "neither ca nor pin");
    o.pin = "AAAA";
    undialled("wss://127.0.0.1:1", &o, "pin: not");
    o = st.ds;
    o.pin = " ";
    undialled("wss://127.0.0.1:1", &o, "pin: not");
    o = st.ds;
    o.cert = certs.user.cert;
    undialled("wss://127.0.0.1:1", &o, "cert and key belong together");
    o.cert = NULL;
    o.key = certs.user.key;
    undialled("wss://127.0.0.1:1", &o, "cert and key belong together");
    o = st.ds;
    o.sni = on_sni;
    undialled("wss://127.0.0.1:1", &o, "sni and others are for rt_listen");
    o.others = &half;
    o.other_count = 1;
    undialled("wss://127.0.0.1:1", &o, "sni and others are for rt_listen");
    o = st.ds;
    o.pin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA*";
    undialled("wss://127.0.0.1:1", &o, "pin: not");
    for (i = 0; i < 9; i++) {
        strcat(many, certs.host.pin);
        strcat(many, " ");
    }
    o.pin = many;
    undialled("wss://127.0.0.1:1", &o, "pin: not up to 8");
    EQUAL(st.client.closed, 0);
    stage_end();
}

/* ---- what is not spoken -------------------------------------------------- */

static const char *offered[] = {NULL, NULL};

static void alpn(const char *offer, int good)
{
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    offered[0] = offer;
    if (offer)
        mbedtls_ssl_conf_alpn_protocols(&p.conf, offered);
    probe_connect(&p);
    if (good) {
        EQUAL(probe_shake(&p), 0);
        CHECK(!offer ||
              strcmp(mbedtls_ssl_get_alpn_protocol(&p.ssl), offer) == 0);
        probe_upgrade(&p);
    } else {
        EQUAL(probe_shake(&p), MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE);
        EQUAL(counted("tls"), 1);
        CHECK(probe_fin(&p));
    }
    probe_end(&p);
    stage_end();
}

static void alpn_is_http_1_1_or_not_asked_for(void)
{
    alpn("http/1.1", 1);
    alpn(NULL, 1);
    alpn("h2", 0);
}

#if MBEDTLS_VERSION_NUMBER < 0x03000000
static void tls_1_1_is_refused(void)
{
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    mbedtls_ssl_conf_min_version(&p.conf, 3, MBEDTLS_SSL_MINOR_VERSION_1);
    mbedtls_ssl_conf_max_version(&p.conf, 3, MBEDTLS_SSL_MINOR_VERSION_2);
    probe_connect(&p);
    EQUAL(probe_shake(&p), MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE);
    EQUAL(counted("tls"), 1);
    probe_end(&p);
    stage_end();
}
#endif

static void ciphers_without_forward_secrecy_are_refused(void)
{
    static const int weak[] = {MBEDTLS_TLS_RSA_WITH_AES_128_GCM_SHA256,
                               MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
                               0};
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    mbedtls_ssl_conf_ciphersuites(&p.conf, weak);
    probe_connect(&p);
    EQUAL(probe_shake(&p), MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE);
    EQUAL(counted("tls"), 1);
    probe_end(&p);
    stage_end();
}

static void row_75_renegotiation_ends_the_session(void)
{
    probe p;
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    mbedtls_ssl_conf_renegotiation(&p.conf, MBEDTLS_SSL_RENEGOTIATION_ENABLED);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    p.got = 0;
    mbedtls_ssl_renegotiate(&p.ssl);
    CHECK(turns_until(&st.server.closed, 1));
    EQUAL(st.server.code, 1006);
    CHECK(strcmp(st.server.reason, "TLS: renegotiation") == 0);
    probe_end(&p);
    stage_end();
}

/* Each would cost an answer: the first is the last. */
static void row_75_many_renegotiations_get_one_answer(void)
{
    uint8_t some[64];
    probe p;
    int i;
    stage_begin();
    serve(&p, &certs.host);
    mbedtls_ssl_conf_renegotiation(&p.conf, MBEDTLS_SSL_RENEGOTIATION_ENABLED);
    stage_dial("tls");
    serve_accept(&p);
    CHECK(turns_until(&st.client.opened, 1));
    p.hold = sizeof p.holding;
    for (i = 0; i < 50; i++)
        EQUAL(mbedtls_ssl_renegotiate(&p.ssl), 0);
    p.hold = 0;
    probe_put(&p, p.holding, p.held);
    CHECK(turns_until(&st.client.closed, 1));
    EQUAL(st.client.code, 1006);
    CHECK(strcmp(st.client.reason, "TLS: renegotiation") == 0);
    CHECK(recv(p.fd, some, sizeof some, 0) < 40); /* one alert */
    probe_end(&p);
    stage_end();
}

static void plain_http_is_no_handshake(void)
{
    static const char ask[] = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    probe_connect(&p);
    probe_put(&p, ask, sizeof ask - 1);
    CHECK(probe_fin(&p));
    EQUAL(counted("tls"), 1);
    EQUAL(st.server.requests, 0);
    probe_end(&p);
    stage_end();
}

/* ---- sessions of TLS, and of rtnet --------------------------------------- */

static void row_75_a_ticket_spares_the_second_handshake(void)
{
    mbedtls_ssl_session session;
    size_t full;
    probe p;
    mbedtls_ssl_session_init(&session);
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    EQUAL(mbedtls_ssl_get_session(&p.ssl, &session), 0);
    full = p.got;
    probe_end(&p);
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(mbedtls_ssl_set_session(&p.ssl, &session), 0);
    EQUAL(probe_shake(&p), 0);
    CHECK(p.got < full - strlen(certs.host.cert) / 2);
    CHECK(turns_until(&st.server.opened, 2));
    probe_end(&p);
    EQUAL(rt_tls_reload(st.loop, st.listener, &st.ls), 0);
    probe_begin(&p, 0); /* keys of a former time are worth nothing */
    probe_connect(&p);
    EQUAL(mbedtls_ssl_set_session(&p.ssl, &session), 0);
    EQUAL(probe_shake(&p), 0);
    CHECK(p.got > full - 100);
    probe_end(&p);
    mbedtls_ssl_session_free(&session);
    stage_end();
}

/* A session comes back over a new connection, without loss, and by a ticket:
   the bytes of the second handshake tell. */
static void a_session_comes_back_over_tls(const char *scheme, int framing)
{
    uint64_t before;
    stage_begin();
    st.lo.resume_ms = 60000;
    st.lo.framing = st.od.framing = framing;
    st.od.resume = 1;
    stage_listen(scheme);
    stage_dial(scheme);
    CHECK(turns_until(&st.client.opened, 1));
    EQUAL(rt_send(st.loop, st.client.s, RT_TEXT, "one", 3), 0);
    CHECK(turns_until(&st.client.messages, 1));
    before = st.loop->stats.bytes_out;
    CHECK(before > 1000); /* a certificate went */
    EQUAL(rt_drop(st.loop, st.server.s, 1001, NULL), 0);
    EQUAL(rt_send(st.loop, st.server.s, RT_TEXT, "meanwhile", 9), 0);
    CHECK(turns_until(&st.client.away, 1));
    CHECK(turns_until(&st.client.back, 1));
    CHECK(turns_until(&st.client.messages, 2));
    EQUAL(st.client.lost, 0);
    EQUAL(st.client.closed + st.server.closed, 0);
    EQUAL(st.server.opened, 1);
    CHECK(st.client.bytes == 12);
    CHECK(st.loop->stats.bytes_out - before < 1500);
    stage_end();
}

static void rtnet_1_resumes_over_wss(void)
{
    a_session_comes_back_over_tls("wss", 0);
}

static void rtnet_1_resumes_over_tls(void)
{
    a_session_comes_back_over_tls("tls", RT_RTNET1);
}

/* The peer does not read, and half a message is sent: it comes back on another
   line, while the old one can say nothing any more. */
static void another_line_takes_over_from_one_that_is_stuck(void)
{
    static uint8_t data[40000], got[200];
    char token[23] = "", again[64];
    probe p, q;
    int i;
    stage_begin();
    st.silent = 1;
    st.lo.framing = RT_RTNET1;
    st.lo.resume_ms = 60000;
    st.lo.hard_mark = 64 * 1024 * 1024;
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    probe_write(&p, "\0\0\0\1h", 5);
    probe_read_all(&p, got, 4 + 1 + 22);
    CHECK(got[4] == 'w');
    memcpy(token, got + 5, 22);
    probe_write(&p, "\0\0\0\2a0", 6);
    CHECK(turns_until(&st.server.opened, 1));
    for (i = 0; i < 2000 && !(conn_of(&st.server)->out &&
                              rt__tls_rest(conn_of(&st.server)));
         i++) {
        CHECK(rt_send(st.loop, st.server.s, RT_BINARY, data, sizeof data) >= 0);
        rt_flush(st.loop);
    }
    CHECK(rt__tls_rest(conn_of(&st.server)));
    probe_begin(&q, 0);
    probe_connect(&q);
    EQUAL(probe_shake(&q), 0);
    i = snprintf(again, sizeof again, "    h%s 0 1", token);
    memcpy(again, "\0\0\0", 3);
    again[3] = (char)(i - 4);
    probe_write(&q, again, (size_t)i);
    probe_read_all(&q, got, 6);
    CHECK(got[4] == 'w');
    EQUAL(st.server.closed, 0);
    probe_end(&p);
    probe_end(&q);
    stage_end();
}

/* Others may have filled the loop since it was let in. */
static void tls_stream_sessions_are_counted_after_the_handshake(void)
{
    probe p[2];
    int i;
    stage_begin();
    st.loop->opts.max_sessions = 1;
    stage_listen("tls");
    for (i = 0; i < 2; i++) {
        probe_begin(&p[i], 0);
        probe_connect(&p[i]);
    }
    turns(3);
    EQUAL(probe_shake(&p[0]), 0);
    CHECK(turns_until(&st.server.opened, 1));
    probe_shake(&p[1]);
    EQUAL(probe_read(&p[1], &i, 1), MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY);
    CHECK(probe_fin(&p[1]));
    EQUAL(counted("sessions"), 1);
    EQUAL(st.server.opened, 1);
    probe_end(&p[0]);
    probe_end(&p[1]);
    stage_end();
}

/* ---- coming in ----------------------------------------------------------- */

/* The header comes first, in the clear; with the handshake's first bytes right
   behind it, or before them. */
static void proxied(int together)
{
    static const char line[] = "PROXY TCP4 203.0.113.9 10.0.0.1 5 6\r\n";
    probe p;
    stage_begin();
    st.lo.proxies = "127.0.0.1";
    st.lo.proxy_protocol = 1;
    st.lo.max_per_address = 1;
    stage_listen("wss");
    probe_begin(&p, 0);
    probe_connect(&p);
    if (together) {
        memcpy(p.holding, line, sizeof line - 1);
        p.held = sizeof line - 1;
        p.hold = p.held + 1;
    } else {
        probe_put(&p, line, 10);
        turns(2);
        probe_put(&p, line + 10, sizeof line - 11);
        turns(2);
    }
    EQUAL(probe_shake(&p), 0);
    probe_upgrade(&p);
    CHECK(strcmp(st.server.address, "203.0.113.9") == 0);
    probe_end(&p);
    stage_end();
}

static void a_proxy_header_stands_before_tls(void)
{
    proxied(0);
    proxied(1);
}

static void row_75_a_slow_client_hello_meets_the_deadline(void)
{
    static const uint8_t hello[] = {22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3};
    uint64_t from;
    probe p;
    stage_begin();
    st.lo.handshake_ms = 100;
    stage_listen("wss");
    probe_begin(&p, 0);
    probe_connect(&p);
    from = peer_clock();
    while (!p.fin && peer_clock() - from < 3000) {
        uint8_t byte;
        probe_put(&p, hello + (p.sent < 10 ? p.sent : 10), 1);
        turns(10);
        probe_recv(&p, &byte, 1);
    }
    CHECK(p.fin != 0);
    CHECK(peer_clock() - from < 1500);
    EQUAL(counted("tls"), 1);
    EQUAL(st.loop->conn_count, 0);
    probe_end(&p);
    stage_end();
}

static void row_75_handshakes_are_capped_and_the_oldest_goes(void)
{
    enum { CAP = 4, SILENT = 7 };
    probe silent[SILENT], p;
    int i, gone = 0;
    stage_begin();
    st.lo.max_handshakes = CAP;
    stage_listen("tls");
    for (i = 0; i < SILENT; i++) {
        probe_begin(&silent[i], 0);
        probe_connect(&silent[i]);
        turns(2);
        CHECK(st.loop->shake_count <= CAP);
    }
    EQUAL(counted("handshakes"), SILENT - CAP);
    probe_begin(&p, 0);
    probe_connect(&p);
    EQUAL(probe_shake(&p), 0);
    CHECK(turns_until(&st.server.opened, 1));
    for (i = 0; i < SILENT; i++) {
        uint8_t byte;
        gone += probe_recv(&silent[i], &byte, 1) == 0;
        probe_end(&silent[i]);
    }
    EQUAL(gone, SILENT - CAP + 1);
    probe_end(&p);
    stage_end();
}

/* Of many who come at once a few are served in a turn: their handshakes take
   long, and those who are in wait meanwhile. */
static void row_75_a_storm_of_handshakes_takes_turns(void)
{
    enum { MANY = 16 };
    probe p[MANY];
    int i, served = 0;
    stage_begin();
    stage_listen("tls");
    for (i = 0; i < MANY; i++) {
        probe_begin(&p[i], 0);
        probe_connect(&p[i]);
    }
    turns(3);
    EQUAL(st.loop->conn_count, MANY);
    for (i = 0; i < MANY; i++)
        EQUAL(mbedtls_ssl_handshake(&p[i].ssl), MBEDTLS_ERR_SSL_WANT_READ);
    rt_poll(st.loop, 5);
    for (i = 0; i < MANY; i++) {
        uint8_t byte;
        served += recv(p[i].fd, &byte, 1, MSG_PEEK) == 1;
    }
    EQUAL(served, RT__NEWCOMERS / 8);
    for (i = 0; i < MANY; i++)
        EQUAL(probe_shake(&p[i]), 0);
    for (i = 0; i < MANY; i++)
        probe_end(&p[i]);
    stage_end();
}

static int listen_any(int *port)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(listen(fd, 8) == 0);
    getsockname(fd, (struct sockaddr *)&at, &len);
    *port = ntohs(at.sin_port);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* It connects, and hears nothing. */
static void a_server_that_does_not_shake_hands_is_given_up(void)
{
    int port, fd = listen_any(&port);
    stage_begin();
    st.port = port;
    st.od.handshake_ms = 50;
    stage_dial("wss");
    CHECK(turns_until(&st.client.closed, 1));
    EQUAL(st.client.opened, 0);
    EQUAL(st.client.code, 1006);
    EQUAL(st.client.cause, RT_BY_TIMEOUT);
    CHECK(strcmp(st.client.reason, "handshake timed out") == 0);
    stage_end();
    close(fd);
}

static void one_too_many(const char *scheme, int framing)
{
    uint64_t from;
    char byte;
    probe a, b;
    stage_begin();
    st.lo.max_per_address = 1;
    st.lo.framing = framing;
    stage_listen(scheme);
    probe_begin(&a, 0);
    probe_connect(&a);
    EQUAL(probe_shake(&a), 0);
    probe_begin(&b, 0);
    probe_connect(&b);
    from = peer_clock();
    while (recv(b.fd, &byte, 1, MSG_PEEK) < 0 && errno == EAGAIN &&
           peer_clock() - from < 2000)
        rt_poll(st.loop, 5);
    EQUAL(recv(b.fd, &byte, 1, 0), 0);
    EQUAL(counted("address"), 1);
    probe_end(&a);
    probe_end(&b);
    stage_end();
}

static void who_is_one_too_many_is_closed_without_a_word(void)
{
    one_too_many("wss", 0);
    one_too_many("tls", RT_RTNET1);
}

static void a_deferred_request_is_answered_through_tls(void)
{
    stage_begin();
    st.server.decide = RT_DEFER;
    stage_listen("wss");
    stage_dial("wss");
    CHECK(turns_until(&st.server.requests, 1));
    turns(5);
    EQUAL(st.client.opened, 0);
    EQUAL(rt_accept(st.loop, st.server.s, NULL), 0);
    CHECK(turns_until(&st.client.opened, 1));
    EQUAL(rt_send(st.loop, st.client.s, RT_TEXT, "x", 1), 0);
    CHECK(turns_until(&st.client.messages, 1));
    stage_end();
}

static void a_shutdown_ends_handshakes_too(void)
{
    probe p;
    stage_begin();
    stage_listen("wss");
    probe_begin(&p, 0);
    probe_connect(&p);
    turns(2);
    EQUAL(st.loop->conn_count, 1);
    EQUAL(rt_shutdown(st.loop, 0), 0);
    CHECK(probe_fin(&p));
    EQUAL(st.loop->conn_count, 0);
    probe_end(&p);
    stage_end();
}

/* ---- cut anywhere -------------------------------------------------------- */

/* A line that lets so many bytes through in one direction, and then breaks. */
typedef struct {
    int listening, a, b, limited;
    size_t limit, passed[2];
    char kept[2][65536];
    size_t have[2];
} relay;

static void relay_cut(relay *r)
{
    if (r->a >= 0)
        close(r->a);
    if (r->b >= 0)
        close(r->b);
    r->a = r->b = -1;
}

static void relay_open(relay *r, int to)
{
    struct sockaddr_in at;
    int one = 1;
    r->a = accept(r->listening, NULL, NULL);
    if (r->a < 0)
        return;
    r->b = socket(AF_INET, SOCK_STREAM, 0);
    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    at.sin_port = htons((uint16_t)to);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(r->b, (struct sockaddr *)&at, sizeof at) == 0);
    setsockopt(r->a, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(r->b, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(r->a, F_SETFL, O_NONBLOCK);
    fcntl(r->b, F_SETFL, O_NONBLOCK);
}

/* One direction; 0: the line is over. */
static int relay_pass(relay *r, int way)
{
    char data[16384];
    int from = way ? r->b : r->a, to = way ? r->a : r->b;
    size_t room = sizeof data;
    ssize_t n;
    if (way == r->limited && r->limit - r->passed[way] < room)
        room = r->limit - r->passed[way];
    if (room == 0)
        return 0;
    n = recv(from, data, room, 0);
    if (n < 0 && errno == EAGAIN)
        return 1;
    if (n <= 0 || send(to, data, (size_t)n, MSG_NOSIGNAL) != n)
        return 0;
    r->passed[way] += (size_t)n;
    return 1;
}

static void relay_turn(relay *r, int to)
{
    if (r->a < 0)
        relay_open(r, to);
    if (r->a >= 0 && (!relay_pass(r, 0) || !relay_pass(r, 1)))
        relay_cut(r);
}

/* One life of a session over a line that breaks: it opens, a message goes there
   and back, it closes.  1: all of it came to pass. */
static int life_cut(relay *r, int port, int way, size_t limit)
{
    uint64_t end = peer_clock() + 5000;
    int step = 0;
    memset(&st.client, 0, sizeof st.client);
    memset(&st.server, 0, sizeof st.server);
    r->limited = way;
    r->limit = limit;
    r->passed[0] = r->passed[1] = 0;
    stage_dial("wss");
    while ((!st.client.closed || st.loop->conn_count > 0) &&
           peer_clock() < end) {
        rt_poll(st.loop, st.client.closed ? 1 : 0);
        relay_turn(r, port);
        if (step == 0 && st.client.opened)
            step++, rt_send(st.loop, st.client.s, RT_TEXT, "there", 5);
        if (step == 1 && st.client.messages)
            step++, rt_close(st.loop, st.client.s, 0, NULL);
    }
    relay_cut(r);
    EQUAL(st.client.closed, 1);
    EQUAL(st.loop->conn_count, 0);
    EQUAL(st.loop->session_count, 0);
    EQUAL(st.loop->shake_count, 0);
    EQUAL(st.server.closed, st.server.opened);
    CHECK(st.client.code == 1006 || step == 2);
    return step == 2 && st.client.code == 1000 &&
           (r->passed[way] < limit || limit == SIZE_MAX);
}

static size_t cut_step = 7;

static void cut_in(int way)
{
    relay r;
    int server, bad = test_bad;
    size_t limit, all;
    stage_begin();
    stage_listen("wss");
    server = st.port;
    r.a = r.b = -1;
    r.listening = listen_any(&st.port);
    CHECK(life_cut(&r, server, way, SIZE_MAX));
    all = r.passed[way];
    CHECK(all > 500 && all < 5000);
    for (limit = 1; limit < all - 40 && bad == test_bad; limit += cut_step)
        CHECK(!life_cut(&r, server, way, limit) || limit > all - 80);
    if (bad != test_bad)
        printf("    cut after %zu bytes of %zu\n", limit - cut_step, all);
    close(r.listening);
    stage_end();
}

static void a_line_may_break_after_any_byte_of_the_client(void)
{
    cut_in(0);
}

static void a_line_may_break_after_any_byte_of_the_server(void)
{
    cut_in(1);
}

/* Bytes come one by one, and records in pieces. */
static void bytes_may_come_one_by_one(void)
{
    probe p;
    uint8_t got[16];
    size_t i;
    static const char hi[] = "\0\0\0\2hi";
    stage_begin();
    stage_listen("tls");
    probe_begin(&p, 0);
    probe_connect(&p);
    p.hold = 8000;
    CHECK(mbedtls_ssl_handshake(&p.ssl) == MBEDTLS_ERR_SSL_WANT_READ);
    p.hold = 0;
    for (i = 0; i < p.held; i++) {
        probe_put(&p, p.holding + i, 1);
        rt_poll(st.loop, 0);
    }
    EQUAL(probe_shake(&p), 0);
    p.hold = 8000;
    p.held = 0;
    probe_write(&p, hi, 6);
    p.hold = 0;
    for (i = 0; i < p.held; i++) {
        EQUAL(st.server.messages, 0);
        probe_put(&p, p.holding + i, 1);
        turns(1);
    }
    probe_read_all(&p, got, 6);
    CHECK(memcmp(got, hi, 6) == 0);
    probe_end(&p);
    stage_end();
}

/* ---- what it costs ------------------------------------------------------- */

/* Clients that do nothing, in a process of their own. */
static pid_t idle_clients(int many, const char *url)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    st.loop = rt_loop_new(NULL); /* the other one is our parent's */
    st.od.ping_ms = RT_OFF;
    while (many-- > 0)
        rt_dial(st.loop, url, &st.od);
    rt_run(st.loop);
    _exit(0);
}

/* mbedTLS takes its memory from libc, so that is asked. */
static void an_idle_session_costs_what_the_header_says(void)
{
    enum { MANY = 50, MOST = 38 * 1024 };
    char url[64];
    size_t before, ours, each;
    pid_t child;
    stage_begin();
    stage_listen("wss");
    snprintf(url, sizeof url, "wss://localhost:%d", st.port);
    turns(3);
    before = libc_bytes();
    ours = st.loop->heap;
    child = idle_clients(MANY, url);
    CHECK(turns_until(&st.server.opened, MANY));
    turns(20);
    each = (libc_bytes() - before) / MANY;
    printf("    an idle TLS session: %zu bytes, %zu of them by "
           "rt_loop_opts.realloc\n",
           each, (st.loop->heap - ours) / MANY);
    CHECK(each > 16 * 1024 && each < MOST);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    stage_end();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--every-byte") == 0)
        cut_step = 1;
    if (certs_begin() < 0)
        return 1;
    RUN(wss_echoes);
    RUN(tls_echoes_with_lengths);
    RUN(tls_echoes_raw_bytes);
    RUN(tls_echoes_in_rtnet_1);
    RUN(a_mebibyte_goes_both_ways_over_wss);
    RUN(a_mebibyte_goes_both_ways_over_tls);
    RUN(messages_about_as_long_as_a_record_come_back);
    RUN(a_shared_buffer_of_a_group_reaches_members_with_tls);
    RUN(what_a_slow_peer_was_sent_comes_whole_when_it_reads);
    RUN(lost_counts_those_in_a_record_that_did_not_go);
    RUN(lost_counts_them_when_the_peer_goes);
    RUN(a_droppable_one_goes_alone);
    RUN(empty_records_are_passed_over);
    RUN(what_comes_behind_a_warning_is_read);
    RUN(row_76_a_server_closes_by_websocket_then_tls_then_tcp);
    RUN(row_76_a_client_says_close_notify_and_leaves_the_fin);
    RUN(a_fin_without_close_notify_is_1006);
    RUN(close_notify_is_the_end_with_and_without_a_fin);
    RUN(row_76_what_came_before_the_end_is_told_after_a_pause);
    RUN(a_record_that_was_changed_ends_the_session);
    RUN(a_certificate_for_another_host_is_refused);
    RUN(an_expired_certificate_is_refused);
    RUN(a_self_signed_certificate_is_refused);
    RUN(another_authority_is_refused);
    RUN(a_self_signed_certificate_is_trusted_as_its_own_authority);
    RUN(name_says_for_whom_the_certificate_must_be);
    RUN(the_pinned_key_alone_is_enough);
    RUN(another_key_than_the_pinned_is_refused);
    RUN(beside_a_pin_the_authority_must_hold_too);
    RUN(a_distrusted_server_is_not_tried_again);
    RUN(a_chain_that_is_too_long_is_refused_for_good);
    RUN(a_server_asks_for_certificates_of_its_authority);
    RUN(the_host_chooses_the_certificate_by_name);
    RUN(the_host_refuses_a_name);
    RUN(reload_is_for_those_who_come);
    RUN(reload_of_what_is_wrong_changes_nothing);
    RUN(a_plain_listener_has_nothing_to_reload);
    RUN(a_listener_that_cannot_be_served_is_refused);
    RUN(a_dial_that_trusts_nobody_is_refused);
    RUN(alpn_is_http_1_1_or_not_asked_for);
#if MBEDTLS_VERSION_NUMBER < 0x03000000
    RUN(tls_1_1_is_refused);
#endif
    RUN(ciphers_without_forward_secrecy_are_refused);
    RUN(row_75_renegotiation_ends_the_session);
    RUN(row_75_many_renegotiations_get_one_answer);
    RUN(plain_http_is_no_handshake);
    RUN(a_certificate_of_the_future_is_refused);
    RUN(a_name_with_a_nul_is_nobodys);
    RUN(another_line_takes_over_from_one_that_is_stuck);
    RUN(reload_takes_no_file_with_a_bad_certificate_behind);
    RUN(tls_stream_sessions_are_counted_after_the_handshake);
    RUN(row_75_a_ticket_spares_the_second_handshake);
    RUN(rtnet_1_resumes_over_wss);
    RUN(rtnet_1_resumes_over_tls);
    RUN(a_proxy_header_stands_before_tls);
    RUN(row_75_a_slow_client_hello_meets_the_deadline);
    RUN(row_75_handshakes_are_capped_and_the_oldest_goes);
    RUN(a_server_that_does_not_shake_hands_is_given_up);
    RUN(row_75_a_storm_of_handshakes_takes_turns);
    RUN(who_is_one_too_many_is_closed_without_a_word);
    RUN(a_deferred_request_is_answered_through_tls);
    RUN(a_shutdown_ends_handshakes_too);
    RUN(a_line_may_break_after_any_byte_of_the_client);
    RUN(a_line_may_break_after_any_byte_of_the_server);
    RUN(bytes_may_come_one_by_one);
    if (libc_bytes() > 0) /* not below a sanitizer */
        RUN(an_idle_session_costs_what_the_header_says);
    certs_end();
    return test_done();
}
