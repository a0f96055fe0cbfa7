/*
 * Scenarios of test_faults.c: what is promised of reliable messages.  Each has
 * its number in it, and the numbers of those that were accepted have no hole;
 * so whoever gets them finds none either, and in the end has them all, unless
 * the session ended, or told how many were lost.
 */
#ifndef FAULT_NUMBERS_H
#define FAULT_NUMBERS_H

#include "fault_groups.h"

enum { STREAMS = 6 };

/* What one gets: the last number, and whose session it is. */
struct stream {
    ws_peer *w;
    rt_session s;
    int last, sent;
};
static struct stream streams[STREAMS];

static struct stream *stream_of(const ws_peer *w)
{
    int i;

    for (i = 0; i < STREAMS; i++)
        if (streams[i].w == w)
            return &streams[i];
    return &streams[0];
}

static void number_taken(struct stream *x, const char *text)
{
    int n = atoi(text);

    if (n != x->last + 1)
        sim_fault("number %d comes behind %d of stream %d", n, x->last,
                  (int)(x - streams));
    x->last = n;
}

static void number_came(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    char text[16];

    mail_came(w, op, data, len);
    if (op != WS_TEXT || *data < '0' || *data > '9')
        return;
    snprintf(text, sizeof text, "%.*s", (int)(len < 15 ? len : 15),
             (const char *)data);
    number_taken(stream_of(w), text);
}

/* The next number, and blanks behind it. */
static const char *number_text(int n, size_t len)
{
    static char text[4096];
    size_t k = (size_t)snprintf(text, sizeof text, "%d", n);

    while (k < len && k + 1 < sizeof text)
        text[k++] = ' ';
    text[k] = 0;
    return text;
}

/* A client's now and then as to one of many. */
static void number_sent(struct stream *x, size_t len)
{
    const char *text = number_text(x->sent + 1, len);
    const struct seen *of = seen_find(x->s);
    size_t n = strlen(text);

    if (of && of->dialled && x->sent % 3 == 2)
        x->sent += rt_send_many(st.loop, &x->s, 1, RT_TEXT, text, n) == 1;
    else
        x->sent += xsend(x->s, RT_TEXT, text, n) >= 0;
}

/* Whoever is still here has all. */
static void numbers_are_all_there(void)
{
    int i;

    turns(20);
    for (i = 0; i < STREAMS; i++)
        if (streams[i].w && rt_state(st.loop, streams[i].s) == RT_OPEN &&
            streams[i].last != streams[i].sent)
            sim_fault("of %d that were accepted %d came", streams[i].sent,
                      streams[i].last);
}

static struct stream *stream_open(int i)
{
    int before = st.opened;
    struct stream *x = &streams[i];

    memset(x, 0, sizeof *x);
    st.finally = numbers_are_all_there;
    x->w = entered();
    if (x->w)
        x->w->on = number_came;
    if (st.opened > before)
        x->s = st.last;
    return x;
}

static void slow_down(ws_peer *w, int reads)
{
    if (!w || !w->line)
        return;
    w->reads = reads;
    sim_peer_window(w->line, reads ? 65536 : 900);
}

static void numbers_go_to_one(void)
{
    struct stream *x;
    int i;

    memset(streams, 0, sizeof streams);
    st.o.soft_mark = 2000;
    ws_door();
    x = stream_open(0);
    for (i = 0; i < 40; i++) {
        if (i == 10 || i == 25)
            slow_down(x->w, i == 25);
        number_sent(x, i % 7 == 3 ? 600 : 3);
        if (i % 3 == 0)
            turns(1);
        if (i % 5 == 0)
            xsend(x->s, RT_TEXT | RT_DROPPABLE, "x", 1);
        if (i % 6 == 0)
            rt_flush(st.loop);
    }
    turns(4);
    REACHED(x->last == 40);
}

/* To all members at once; some read nothing for a while. */
static void numbers_to_members(const rt_group_opts *o)
{
    int i, k, sent = 0;
    rt_group g;

    memset(streams, 0, sizeof streams);
    ws_door();
    g = xgroup("room", o);
    for (i = 0; i < STREAMS; i++) {
        stream_open(i);
        if (xjoin(g, streams[i].s) < 0)
            rt_close(st.loop, streams[i].s, 0, NULL);
    }
    for (k = 0; k < 30 && g.id; k++) {
        sent += xgroup_send(g, RT_TEXT, number_text(sent + 1, 40)) >= 0;
        if (k == 8 || k == 20)
            slow_down(streams[k / 8].w, 0);
        if (k % 3)
            turns(1);
    }
    for (i = 0; i < STREAMS; i++) {
        streams[i].sent = sent;
        slow_down(streams[i].w, 1);
    }
    turns(4);
    REACHED(streams[0].last == 30 && streams[2].last == 30);
}

static void numbers_go_to_a_group(void)
{
    numbers_to_members(NULL);
}

static void numbers_go_to_a_group_that_remembers(void)
{
    rt_group_opts o = {.history = 10, .once_ms = 50};

    numbers_to_members(&o);
}

/* ---- over a loss --------------------------------------------------------- */

/* A w says behind which number it goes on; an m is the next one. */
static void counted_came(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    struct stream *x = &streams[0];
    char text[128];
    unsigned long long base;

    mail_came(w, op, data, len);
    snprintf(text, sizeof text, "%.*s", (int)(len < 127 ? len : 127),
             (const char *)data);
    if (*text == 'w' && sscanf(text, "w%*s %*s %*u %llu", &base) == 1)
        x->last = (int)base;
    if (*text == 'm' && text[1] >= '0' && text[1] <= '9')
        number_taken(x, text + 1);
}

/* Comes back with what it has; the token of the last welcome is the good one.
 */
static void stream_returns(struct stream *x, int *attempt)
{
    char hello[64];
    ws_peer *w;

    if (!x->w)
        return;
    snprintf(hello, sizeof hello, "h%s %d %d", mail_of(x->w)->token, x->last,
             ++*attempt);
    w = client_with("/", "Sec-WebSocket-Protocol: rtnet.1\r\n");
    if (!w)
        return;
    memcpy(mail_of(w)->token, mail_of(x->w)->token, 23);
    x->w->on = NULL; /* what is read there is nobody's any more */
    x->w = w;
    w->on = counted_came;
    turns(3);
    say(w, hello);
    turns(3);
    snprintf(hello, sizeof hello, "a%d", x->last);
    say(w, hello);
    turns(2);
}

static int attempts;

/* With a last return, if it is away. */
static void counted_are_all_there(void)
{
    struct stream *x = &streams[0];

    if (rt_state(st.loop, x->s) == RT_AWAY && *mail_of(x->w)->token)
        stream_returns(x, &attempts);
    if (rt_state(st.loop, x->s) == RT_OPEN && x->w && x->w->open &&
        x->w->line && x->last != x->sent)
        sim_fault("of %d that were accepted %d came or were told lost", x->sent,
                  x->last);
}

static struct stream *counted_open(void)
{
    struct stream *x = &streams[0];

    memset(streams, 0, sizeof streams);
    attempts = 0;
    st.o.resume_ms = 100000;
    st.o.soft_mark = 3000;
    st.o.hard_mark = 9000;
    st.finally = counted_are_all_there;
    door("ws://127.0.0.1:9000");
    x->w = newcomer();
    if (x->w)
        x->w->on = counted_came;
    if (st.opened == 1)
        x->s = st.last;
    return x;
}

static void some_numbers(struct stream *x, int n, size_t len)
{
    while (n-- > 0) {
        number_sent(x, len);
        if (n % 3 == 0)
            turns(1);
    }
}

static void numbers_go_on_after_a_loss(void)
{
    struct stream *x = counted_open();

    some_numbers(x, 12, 5);
    reset(x->w);
    some_numbers(x, 6, 5);
    stream_returns(x, &attempts);
    some_numbers(x, 6, 700);
    slow_down(x->w, 0);
    some_numbers(x, 20, 700);
    stream_returns(x, &attempts);
    some_numbers(x, 5, 5);
    turns(3);
    REACHED(x->sent == 49 && x->last == 49 && st.backs == 2);
}

/* ---- from a peer --------------------------------------------------------- */

static int got_last;

static void number_heard(rt_session s, int kind, const void *data, size_t len)
{
    int n = atoi(data);

    (void)kind;
    (void)len;
    if (n != got_last + 1)
        sim_fault("number %d is told behind %d", n, got_last);
    got_last = n;
    if (n == 9)
        rt_read(st.loop, s, 0);
}

static void heard_them_all(void)
{
    ws_peer *w = streams[0].w;

    if (w && w->open && w->line && !w->close_code &&
        rt_state(st.loop, streams[0].s) == RT_OPEN && !w->out.len &&
        got_last != streams[0].sent)
        sim_fault("%d were sent, %d were told", streams[0].sent, got_last);
}

static void fragments(ws_peer *w, const char *text, size_t n)
{
    size_t i;

    for (i = 0; i < n; i += 300)
        ws_frame(w, (i ? 0 : WS_TEXT) | (i + 300 < n ? 0 : 0x80), text + i,
                 n - i < 300 ? n - i : 300);
}

/* Whole, in fragments, long ones, several in one piece; with a pause. */
static void numbers_come_from_one(void)
{
    struct stream *x;
    int i;

    memset(streams, 0, sizeof streams);
    got_last = 0;
    st.on_message = number_heard;
    ws_door();
    x = stream_open(0);
    st.finally = heard_them_all;
    for (i = 0; i < 24 && x->w && x->w->line; i++) {
        size_t len = i % 5 == 4 ? 3000 : 2;
        const char *text = number_text(++x->sent, len);

        if (i % 4 == 1)
            fragments(x->w, text, strlen(text));
        else
            say(x->w, text);
        if (i % 3 == 0)
            turns(1);
    }
    turns(3);
    rt_read(st.loop, x->s, 1);
    turns(4);
    REACHED(got_last == 24);
}

/* ---- both ends of the library -------------------------------------------- */

/* 0: what the dialled one gets, 1: what the accepted one gets. */
static void number_exchanged(rt_session s, int kind, const void *data,
                             size_t len)
{
    struct stream *x = &streams[rt_same(s, streams[0].s) ? 0 : 1];

    (void)kind;
    (void)len;
    number_taken(x, data);
}

/* What is lost is lost on the way to the one that dialled: it forgets nothing
   itself.  Both are told. */
static void lost_exchanged(rt_session s)
{
    if (rt_same(s, streams[0].s))
        streams[0].last += (int)st.lost;
}

/* A session that ended, or an heir, is another story. */
static void exchanged_all(void)
{
    int i;

    pass(30000);
    for (i = 0; i < 2; i++)
        if (st.opened == 2 && !st.end.code &&
            rt_state(st.loop, streams[0].s) == RT_OPEN &&
            rt_state(st.loop, streams[1].s) == RT_OPEN &&
            streams[i].last != streams[1 - i].sent)
            sim_fault("%d were accepted at one end, %d came to the other",
                      streams[1 - i].sent, streams[i].last);
}

static void exchange(int n, size_t len)
{
    while (n-- > 0 && !st.end.code) {
        number_sent(&streams[0], len);
        number_sent(&streams[1], len);
        if (n % 4 == 0)
            turns(1);
    }
    turns(2);
}

static void numbers_are_exchanged(const char *url, int framing)
{
    memset(streams, 0, sizeof streams);
    st.o.framing = st.d.framing = framing;
    st.o.resume_ms = 100000;
    st.d.resume = 1;
    st.on_message = number_exchanged;
    st.on_back = lost_exchanged;
    st.finally = exchanged_all;
    door(url);
    streams[0].s = xdial(url);
    turns(8);
    REACHED(st.opened == 2);
    streams[1].s = rt_same(st.s[0], streams[0].s) ? st.s[1] : st.s[0];
    exchange(10, 5);
    xdrop(streams[1].s, 4000, NULL);
    exchange(10, 5);
    pass(4000);
    exchange(5, 3000);
    xdrop(streams[0].s, 4000, NULL);
    exchange(5, 5);
    pass(4000);
    exchange(3, 5);
    turns(5);
    REACHED(streams[0].sent == 33 && streams[1].last == 33 && st.backs == 4);
}

static void numbers_are_exchanged_over_websocket(void)
{
    numbers_are_exchanged("ws://127.0.0.1:9000/", RT_LENGTH);
}

static void numbers_are_exchanged_over_streams(void)
{
    numbers_are_exchanged("tcp://127.0.0.1:9000", RT_RTNET1);
}

#endif
