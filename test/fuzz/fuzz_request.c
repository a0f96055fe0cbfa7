/*
 * Requests that the library reads as a server, and the frames behind one that
 * was an upgrade.  The first byte says how the host answers (enum config).
 */
#include "answers.h"
#include "line.h"

enum config {
    HOST = 3,   /* of these two bits: */
    NOBODY = 0, /* no on_request */
    ANSWERS,    /* 200 or an upgrade at once */
    REFUSES,    /* 403 */
    THINKS,     /* as ANSWERS, but later */
    TIGHT = 4,  /* max_header 256, max_body 8 */
    ANY = 8,    /* of any origin */
    CHAT = 16   /* it chooses the sub-protocol chat, if that was offered */
};

enum { HEAP = 80 * 1024 };

static struct {
    int config, opened, closed;
    rt_session asked; /* who waits for an answer */
    int upgrade;
    size_t bytes;
} g;

static void decide(rt_loop *l, rt_session s, int upgrade)
{
    rt_accept_opts chat = {.protocol = "chat", .headers = "X-Chat: yes\r\n"};

    if (!upgrade)
        rt_reply(l, s, 200, "text/plain", "fine\n", 5);
    else if (!(g.config & CHAT) || rt_accept(l, s, &chat) < 0)
        rt_accept(l, s, NULL);
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    char a[16];

    fuzz_tell(FUZZ_APP, "request %s", r->method);
    fuzz_tell_bytes(FUZZ_APP, "path", r->path, strlen(r->path));
    fuzz_tell_bytes(FUZZ_APP, "query", r->query, strlen(r->query));
    fuzz_tell_bytes(FUZZ_APP, "body", r->body, r->body_len);
    fuzz_tell(FUZZ_APP, "%s", r->upgrade ? "upgrade" : "plain");
    if (rt_query(r, "a", a, sizeof a) >= 0)
        fuzz_tell_bytes(FUZZ_APP, "a", a, strlen(a));
    if (rt_header(r, "X-A"))
        fuzz_tell_bytes(FUZZ_APP, "x-a", rt_header(r, "x-a"),
                        strlen(rt_header(r, "x-a")));
    if ((g.config & HOST) == REFUSES)
        return 403;
    g.upgrade = r->upgrade;
    if ((g.config & HOST) == THINKS) {
        g.asked = s;
        return RT_DEFER;
    }
    decide(l, s, r->upgrade);
    return 0;
}

static void answer_late(void)
{
    rt_session s = g.asked;

    g.asked.id = 0;
    if (s.id)
        decide(line.loop, s, g.upgrade);
}

static void on_open(rt_loop *l, rt_session s)
{
    (void)l;
    (void)s;
    if (g.opened++)
        fuzz_wrong("opened twice");
    fuzz_tell(FUZZ_APP, "open");
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    (void)l;
    (void)s;
    if (!g.opened || g.closed)
        fuzz_wrong("a message outside of a session");
    fuzz_tell_bytes(FUZZ_APP, kind == RT_TEXT ? "text" : "binary", data, len);
    g.bytes += len;
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)l;
    (void)s;
    if (!g.opened || g.closed++)
        fuzz_wrong("closed without being open");
    fuzz_tell(FUZZ_APP, "close %d %s", why->code,
              why->cause == RT_BY_PEER ? "peer" : "own");
}

static void server_start(void)
{
    rt_listen_opts o = {
        .on = {.open = on_open, .message = on_message, .close = on_close}};

    if ((g.config & HOST) != NOBODY)
        o.on.request = on_request;
    if (g.config & TIGHT) {
        o.max_header = 256;
        o.max_body = 8;
    }
    if (g.config & ANY)
        o.origins = "*";
    if (!rt_listen(line.loop, "ws://127.0.0.1:9000", &o).id)
        fuzz_wrong("cannot listen");
    line.peer = sim_connect(PORT);
    line_turns(2);
}

static void answers_read(void)
{
    char *at = (char *)line.got.at, *end = at + line.got.len;

    at = answers_tell(at, end);
    frames_tell((const uint8_t *)at, (size_t)(end - at));
    if (line.gone)
        fuzz_tell(FUZZ_CONTROL, "eof");
}

/* Who thinks answers one request a turn: as many turns as there are. */
static void until_all_is_answered(void)
{
    size_t before;

    do {
        before = line.got.len;
        line_turns(4);
    } while (g.asked.id || line.got.len != before);
}

static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    struct fuzz_cost cost;

    memset(&g, 0, sizeof g);
    g.config = data[0];
    line_start();
    line.tick = answer_late;
    server_start();
    fuzz_cost_begin(&cost);
    line_feed(data + 2, size - 2, cut);
    until_all_is_answered();
    fuzz_cost_end(&cost, size, cut->pieces + 4 + size / 16, HEAP);
    answers_read();
    line_end();
    if (g.opened != g.closed)
        fuzz_wrong("never closed");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_three_ways(play, data, size);
}
