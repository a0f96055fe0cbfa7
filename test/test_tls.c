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

int main(int argc, char **argv)
{
    (void)argc, (void)argv;
    if (certs_begin() < 0)
        return 1;
    RUN(wss_echoes);
    RUN(tls_echoes_with_lengths);
    RUN(tls_echoes_raw_bytes);
    RUN(tls_echoes_in_rtnet_1);
    certs_end();
    return test_done();
}
