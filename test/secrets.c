/*
 * Comparing a resume token takes no branch that depends on the secret.
 *
 * Run under valgrind.  The bytes of a token are declared undefined before
 * somebody presents one; memcheck then reports each conditional jump and each
 * address that depends on them, and errors are counted before and after.  The
 * checks are checked, too: a comparison with memcmp and one that ends at the
 * first difference have to be reported.
 *
 * What is not secret: the hash by which a token is found (its key is, and what
 * the peer presents it knows already), so which chain of the table is walked
 * tells nothing; and the outcome, a single bit, which the answer shows anyway.
 * That one branch, in token_find, is named in secrets.supp, and for its sake
 * the program is built with -fno-inline: what same_secret does stays under its
 * own name.  Not looked at is how a token is made and written as text: that
 * happens once, for its owner.
 */
#include "rtnet_internal.h"
#include "test.h"

#include "peer.h"

#include "session.c" /* for what is static there */

#include <valgrind/memcheck.h>

enum { SECRET = 16 };

static int errors(void)
{
    return (int)VALGRIND_COUNT_ERRORS;
}

static void hide(const void *p, size_t n)
{
    (void)VALGRIND_MAKE_MEM_UNDEFINED(p, n);
}

static void show(const void *p, size_t n)
{
    (void)VALGRIND_MAKE_MEM_DEFINED(p, n);
}

/* ---- the comparison alone ------------------------------------------------ */

/* As same_secret. */
typedef int comparison(const uint8_t *a, const uint8_t *b);

/* Where the compiler knows the length it calls nobody, and may be branchless by
   chance. */
static int by_memcmp(const uint8_t *a, const uint8_t *b)
{
    static volatile size_t length = SECRET;
    return memcmp(a, b, length) == 0;
}

static int by_first_difference(const uint8_t *a, const uint8_t *b)
{
    int i;
    for (i = 0; i < SECRET; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

/* How many errors there are with a secret that differs in the byte at, from
   which on all differ; at SECRET: in none. */
static int compare(comparison *same, int at)
{
    uint8_t secret[SECRET], shown[SECRET];
    int before = errors(), answer, i;
    for (i = 0; i < SECRET; i++) {
        secret[i] = (uint8_t)(i * 37);
        shown[i] = (uint8_t)(secret[i] ^ (i >= at));
    }
    hide(secret, sizeof secret);
    answer = same(secret, shown);
    show(&answer, sizeof answer);
    EQUAL(answer, at == SECRET);
    return errors() - before;
}

static void comparing_branches_on_no_byte_of_the_secret(void)
{
    int at;
    for (at = 0; at <= SECRET; at++)
        EQUAL(compare(same_secret, at), 0);
}

static void memcmp_would_be_reported(void)
{
    int at;
    for (at = 0; at <= SECRET; at++)
        CHECK(compare(by_memcmp, at) > 0);
}

static void an_end_at_the_first_difference_would_be_reported(void)
{
    int at;
    for (at = 0; at <= SECRET; at++)
        CHECK(compare(by_first_difference, at) > 0);
}

/* ---- the way there ------------------------------------------------------- */

static struct {
    rt_loop *loop;
    int port, opens, backs;
    rt_session s;
} here;

static void on_open(rt_loop *loop, rt_session s)
{
    (void)loop;
    here.opens++;
    here.s = s;
}

static void on_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    (void)lost;
    here.backs++;
}

static void stage_open(void)
{
    rt_listen_opts o;
    memset(&o, 0, sizeof o);
    memset(&here, 0, sizeof here);
    o.on.open = on_open;
    o.on.back = on_back;
    o.resume_ms = 60000;
    here.loop = rt_loop_new(NULL);
    here.port = rt_listener_port(here.loop,
                                 rt_listen(here.loop, "ws://127.0.0.1:0", &o));
    CHECK(here.port > 0);
}

static rt__token *token_of(rt_session s)
{
    int error = 0;
    return &rt__keep_of(rt__session_get(here.loop, s.id, &error))->token;
}

/* The session's token is asked for; memcheck is not shown its bytes. */
static int find_hidden(const char *text)
{
    uint8_t *bytes = token_of(here.s)->bytes;
    int before = errors();
    rt_session found;
    hide(bytes, SECRET);
    found = rt_find_token(here.loop, text);
    show(bytes, SECRET);
    EQUAL(errors() - before, 0);
    return rt_same(found, here.s);
}

/* Nobody can make hashes collide, but it is where the bytes are compared and
   differ: so the bytes of the session's token are changed behind its hash. */
static void finding_a_token_branches_on_no_byte_of_it(void)
{
    char token[23];
    peer p;
    int at;
    stage_open();
    CHECK(peer_ws(&p, here.loop, here.port, "/"));
    EQUAL(rt_keep(here.loop, here.s, 60000, token), 0);
    CHECK(find_hidden(token));
    for (at = 0; at < SECRET; at++) {
        token_of(here.s)->bytes[at] ^= 1;
        CHECK(!find_hidden(token));
        token_of(here.s)->bytes[at] ^= 1;
    }
    CHECK(!find_hidden("AAAAAAAAAAAAAAAAAAAAAA"));
    CHECK(!find_hidden("no token"));
    peer_end(&p);
    rt_loop_free(here.loop);
}

/* Says h with these words; the token of the welcome goes to it, too. */
static void greet(peer *p, const char *words, char token[23])
{
    peer_frame f;
    CHECK(peer_tcp(p, here.loop, here.port));
    peer_ask(p, "/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
    EQUAL(peer_status(p), 101);
    peer_text(p, words);
    CHECK(peer_next(p, &f) && f.len > 23 && f.data[0] == 'w');
    memcpy(token, f.data + 1, 22);
    token[22] = 0;
}

static void resuming_branches_on_no_byte_of_the_token(void)
{
    char token[23], next[23], words[64];
    peer p, q;
    int before;
    stage_open();
    greet(&p, "h", token);
    EQUAL(here.opens, 1);
    snprintf(words, sizeof words, "h%s 0 1", token);
    hide(token_of(here.s)->bytes, SECRET);
    before = errors();
    greet(&q, words, next);
    EQUAL(errors() - before, 0);
    EQUAL(here.backs, 1);
    CHECK(strcmp(token, next) != 0);
    peer_end(&p);
    peer_end(&q);
    rt_loop_free(here.loop);
}

int main(void)
{
    if (!RUNNING_ON_VALGRIND) {
        test_begin("secrets");
        SKIP("this is no run under valgrind");
        test_end();
        return test_done();
    }
    RUN(comparing_branches_on_no_byte_of_the_secret);
    RUN(memcmp_would_be_reported);
    RUN(an_end_at_the_first_difference_would_be_reported);
    RUN(finding_a_token_branches_on_no_byte_of_it);
    RUN(resuming_branches_on_no_byte_of_the_token);
    return test_done();
}
