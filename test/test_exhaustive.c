/*
 * What is small enough to be tried whole: every close code, both ways and for
 * both roles; every header of two bytes in every state of a connection; every
 * sequence of up to three bytes as UTF-8.
 *
 *   test_exhaustive                    everything but the next
 *   test_exhaustive --utf8-4           also all sequences of four bytes
 *   test_exhaustive --utf8-4 --lead N  of them, those that begin with that byte
 *   test_exhaustive NAME...            only cases whose names hold one of these
 */
#include "exhaustive_headers.h"
#include "exhaustive_stage.h"
#include "exhaustive_utf8.h"

/* ---- close codes --------------------------------------------------------- */

/* RFC 6455, 7.4.1 and 7.4.2, and the registry: what an endpoint may say. */
static int may_be_said(int code)
{
    static const int ranges[][2] = {{1000, 1003}, {1007, 1014}, {3000, 4999}};
    size_t i;
    for (i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1])
            return 1;
    return 0;
}

/* 5.5.1 and 7.1.5: the code is echoed, and is what the application is told;
   one that must not be said is a violation. */
static void check_received(const line *it, int code)
{
    int good = may_be_said(code);
    EQUAL(it->closes, 1);
    EQUAL(it->code, good ? code : 1002);
    EQUAL(it->cause, good ? RT_BY_PEER : RT_BY_ERROR);
    EQUAL(it->peer->close_code, good ? code : 1002);
    EQUAL(it->heard, 1);
    EQUAL(it->messages, 0);
    if (st.role == SERVER || !good) /* 7.1.1: the server closes first */
        CHECK(line_state(it) == SIM_FIN);
}

static void codes_received(int role)
{
    int from, i;
    stage_begin(role);
    for (from = 0; from < 1 << 16; from += LINES) {
        lines_open(LINES);
        for (i = 0; i < LINES; i++) {
            uint8_t body[2] = {(uint8_t)((from + i) >> 8), (uint8_t)(from + i)};
            ws_send(st.lines[i].peer, WS_CLOSE, body, 2);
        }
        settle();
        for (i = 0; i < LINES; i++)
            check_received(&st.lines[i], from + i);
        lines_end();
    }
    stage_end();
}

/* What is refused has no effect: one session hears them all. */
static void codes_refused(void)
{
    const line *it = &st.lines[0];
    int code;
    lines_open(1);
    for (code = -70000; code <= 70000; code++) {
        if (code == 0 || may_be_said(code))
            continue;
        EQUAL(rt_close(st.loop, it->session, code, NULL), RT_EINVAL);
        EQUAL(rt_drop(st.loop, it->session, code, NULL), RT_EINVAL);
    }
    EQUAL(rt_state(st.loop, it->session), RT_OPEN);
    settle();
    EQUAL(it->heard + it->closes, 0);
    lines_end();
}

/* Those that may be said from the least up; -1 behind the last. */
static int next_code(int code)
{
    while (++code < 1 << 16)
        if (may_be_said(code))
            return code;
    return -1;
}

static void codes_said(void)
{
    int codes[LINES], code = next_code(0), i, n;
    while (code > 0) {
        for (n = 0; n < LINES && code > 0; code = next_code(code))
            codes[n++] = code;
        lines_open(n);
        for (i = 0; i < n; i++)
            EQUAL(rt_close(st.loop, st.lines[i].session, codes[i], NULL), 0);
        settle();
        for (i = 0; i < n; i++) {
            const line *it = &st.lines[i];
            EQUAL(it->peer->close_code, codes[i]);
            EQUAL(it->heard, 1);
            EQUAL(it->closes, 1);
            EQUAL(it->code, codes[i]);
            EQUAL(it->cause, RT_BY_APP);
        }
        lines_end();
    }
}

static void codes_sent(int role)
{
    stage_begin(role);
    codes_refused();
    codes_said();
    stage_end();
}

static void a_server_answers_every_close_code(void)
{
    codes_received(SERVER);
}

static void a_client_answers_every_close_code(void)
{
    codes_received(CLIENT);
}

static void a_server_sends_only_codes_that_may_be_sent(void)
{
    codes_sent(SERVER);
}

static void a_client_sends_only_codes_that_may_be_sent(void)
{
    codes_sent(CLIENT);
}

/* ---- all ----------------------------------------------------------------- */

typedef struct {
    const char *name;
    void (*run)(void);
} test_case;

#define CASE(name)                                                             \
    {                                                                          \
#name, name                                                            \
    }

static const test_case cases[] = {
    CASE(utf8_every_sequence_of_one_byte),
    CASE(utf8_every_sequence_of_two_bytes),
    CASE(utf8_every_sequence_of_three_bytes),
    CASE(utf8_four_bytes_from_the_edges_of_the_ranges),
    CASE(utf8_two_bytes_at_every_place_of_a_block),
    CASE(a_server_answers_every_close_code),
    CASE(a_client_answers_every_close_code),
    CASE(a_server_sends_only_codes_that_may_be_sent),
    CASE(a_client_sends_only_codes_that_may_be_sent),
};

/* As wanted, but a name may not be the value of --lead. */
static int chosen(int argc, char **argv, const char *name)
{
    int i, names = 0;
    for (i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--lead", 6) == 0)
            i++;
        else if (argv[i][0] != '-' && ++names && strstr(name, argv[i]))
            return 1;
    }
    return names == 0;
}

int main(int argc, char **argv)
{
    size_t i;
    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (!chosen(argc, argv, cases[i].name))
            continue;
        test_begin("%s", cases[i].name);
        cases[i].run();
        test_end();
    }
    if (chosen(argc, argv, "headers"))
        headers_everywhere();
    if (flag(argc, argv, "--utf8-4")) {
        test_begin("utf8_every_sequence_of_four_bytes");
        utf8_every_sequence_of_four_bytes(option(argc, argv, "--lead", 256));
        test_end();
    }
    return test_done();
}
