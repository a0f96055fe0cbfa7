/*
 * Random worlds against a model.  A world is one loop with a game-like server
 * and a crowd: scripted peers, honest, slow, rude or gone, and dialled
 * sessions of the same loop.  What players ask for and what the server does
 * with it is drawn from the choice stream; the model knows, without looking
 * into the library, what each one must have received.
 *
 * Each message carries what makes it unique, so the model keeps no bytes: a
 * queue of hashes for each direction of each player.  Checked after each turn
 * are the words of rtnet.h: open and close come in pairs, the close last and
 * in its turn; streams arrive whole, once and in order; a key never goes back;
 * groups have the members they should have; the heap stays below a formula.
 */
#include "rtnet.h"
#include "census.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PORT = 9000, PLAYERS = 96, AT_ONCE = 12, GROUPS = 3, KEYS = 4 };
enum { STEPS = 300, SOFT = 2000, HARD = 8000, BIGGEST = 6000 };
enum { LONGEST = 200 * 1024, LONG_HARD = 600000 }; /* in some worlds */
enum { CONTROL = 4000 }; /* pongs of one turn stand above the mark */

/* What this model takes for the most that the library may hold: for itself
   with its pools, and for each connection (a dialled one's queue, a message
   each way, a header block). */
enum { BOT_QUEUE = 32768, HEAP_LOOP = 512 * 1024 };
enum { HEAP_CONN = BOT_QUEUE + 2 * BIGGEST + 8192 };

/* A message under way, by its hash. */
struct promise {
    uint64_t hash;
    int kind;
};

struct line {
    struct promise *at;
    size_t head, len, cap;
};

struct player {
    int id;
    ws_peer *ws;       /* its script, or */
    rt_session client; /* its dialled session */
    int bot;           /* it is dialled */
    int client_opened, client_closed, client_ended;
    rt_session s; /* the server's side */
    int opened, closed;
    int closing;   /* its line broke, on_close is due in the next turn */
    int ended;     /* the server ended it, or saw RT_EFULL */
    int drained;   /* the server ended it with rt_close: all must arrive */
    int held;      /* rt_read(0) */
    int was;       /* it lived when the present call began */
    int slow;      /* it once stopped reading: may be cut */
    int leaving;   /* it closed, or cut the line */
    int said_all;  /* it left in order: all it said must be heard */
    int rude;      /* it broke the protocol; the code it must get, or -1 */
    int code;      /* of on_close */
    uint64_t lost; /* as on_close said */
    int in_group[GROUPS];
    int present[GROUPS];  /* as the presence events said */
    struct line up, down; /* said and not heard yet, both ways */
    uint32_t key_sent[KEYS], key_got[KEYS];
    int key_sure[KEYS]; /* the last one sent was taken */
    uint32_t drop_sent, drop_got;
};

static struct model {
    rt_loop *loop;
    rt_listener listener;
    rt_group group[GROUPS];
    struct player players[PLAYERS];
    int count;
    uint32_t serial; /* makes messages unique, and keys newer */
    int fds;         /* of the loop without any connection */
    int freeing, calm;
    unsigned turns;
    int bulk;  /* some messages are long, and go without a copy */
    int depth; /* of callbacks */
} m;

/* ---- hashes and queues -------------------------------------------------- */

static uint64_t hash_of(const void *data, size_t len, uint64_t h)
{
    const uint8_t *p = data;
    size_t i;

    for (i = 0; i < len; i++)
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h ^ len;
}

static void expect(struct line *q, int kind, const void *data, size_t len)
{
    if (q->head + q->len == q->cap) {
        q->cap = 2 * q->cap + 16;
        q->at = realloc(q->at, q->cap * sizeof *q->at);
        if (!q->at)
            exit(2);
    }
    q->at[q->head + q->len].hash = hash_of(data, len, 1);
    q->at[q->head + q->len++].kind = kind;
}

/* True when this is what had to come next. */
static int came(struct line *q, int kind, const void *data, size_t len)
{
    const struct promise *next = q->at + q->head;

    if (!q->len || next->kind != kind || next->hash != hash_of(data, len, 1))
        return 0;
    q->head++;
    q->len--;
    return 1;
}

static void upcall(struct player *p, int what, const void *data, size_t len)
{
    sim_upcall((uint32_t)p->id, what, hash_of(data, len, 1));
}

/* The same of its other end, whether a script or a dialled session. */
static void received(struct player *p, int what, const void *data, size_t len)
{
    sim_upcall((uint32_t)(PLAYERS + p->id), what, hash_of(data, len, 1));
}

/* Callbacks come from the loop, never out of a call made in another one. */
static void callback_begins(const char *name)
{
    if (m.depth++)
        sim_fault("%s inside another callback", name);
}

/* ---- messages ----------------------------------------------------------- */

/*
 * A message is text: a letter that says what to do with it, two numbers, a
 * serial that makes it unique, and a tail to some length.  A binary one has a
 * tail of all bytes.
 */
struct message {
    int kind;
    char verb;
    unsigned a, b, serial;
    size_t len;
    char text[LONGEST];
};

static size_t tail_length(void)
{
    if (m.bulk && !sim_choose(4))
        return 16384 + sim_choose(LONGEST - 16384 - 64);
    switch (sim_choose(8)) {
    case 0:
        return sim_choose(BIGGEST - 64);
    case 1:
        return 40 + sim_choose(200); /* about the 7-bit limit of lengths */
    default:
        return sim_choose(40);
    }
}

static void message_make(struct message *g, int kind, char verb, unsigned a,
                         unsigned b, size_t tail)
{
    int n = snprintf(g->text, sizeof g->text, "%c %u %u %u ", verb, a, b,
                     ++m.serial);
    uint32_t x = m.serial * 2654435761U;
    size_t i;

    g->kind = kind;
    g->verb = verb;
    g->a = a;
    g->b = b;
    g->serial = m.serial;
    g->len = (size_t)n + tail;
    for (i = (size_t)n; i < g->len; i++) {
        x = x * 1664525 + 1013904223;
        g->text[i] = (char)(kind == RT_TEXT ? 'a' + (x >> 24) % 26 : x >> 24);
    }
}

/* What stands at the front of a message; data ends in a 0. */
static int message_read(struct message *g, const char *data, size_t len)
{
    char head[48];

    snprintf(head, sizeof head, "%.*s", (int)(len < 47 ? len : 47), data);
    return sscanf(head, "%c %u %u %u ", &g->verb, &g->a, &g->b, &g->serial) ==
           4;
}

/* ---- what players receive ----------------------------------------------- */

static void keyed_came(struct player *p, const struct message *g)
{
    if (g->a >= KEYS || g->serial > p->key_sent[g->a])
        sim_fault("player %d: key %u, version %u was never sent", p->id, g->a,
                  g->serial);
    else if (g->serial <= p->key_got[g->a])
        sim_fault("player %d: key %u went back from %u to %u", p->id, g->a,
                  p->key_got[g->a], g->serial);
    else
        p->key_got[g->a] = g->serial;
}

static void droppable_came(struct player *p, const struct message *g)
{
    if (g->serial > p->drop_sent || g->serial <= p->drop_got)
        sim_fault("player %d: droppable %u after %u of %u", p->id, g->serial,
                  p->drop_got, p->drop_sent);
    p->drop_got = g->serial;
}

static void player_got(struct player *p, int kind, const void *data, size_t len)
{
    struct message g;

    sim_note("player %d gets %.20s, %zu bytes", p->id, (const char *)data, len);
    received(p, kind, data, len);
    if (!message_read(&g, data, len))
        sim_fault("player %d got no message of ours", p->id);
    else if (g.verb == 'K')
        keyed_came(p, &g);
    else if (g.verb == 'D')
        droppable_came(p, &g);
    else if (!came(&p->down, kind, data, len))
        sim_fault("player %d got '%c' %u out of order, %zu were due", p->id,
                  g.verb, g.serial, p->down.len);
}

static void on_frame(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    if (op == WS_TEXT || op == WS_BINARY)
        player_got(w->user, op == WS_TEXT ? RT_TEXT : RT_BINARY, data, len);
}

/* ---- what the server sends ---------------------------------------------- */

/* By the library's own word: one whose peer has just closed is over. */
static int lives(const struct player *p)
{
    return p->opened && !p->closed && !p->ended &&
           rt_state(m.loop, p->s) == RT_OPEN;
}

/* The queue was full: the session is ended by the library. */
static void cut(struct player *p)
{
    p->ended = 1;
    p->slow = 1;
}

static void send_reliable(struct player *p, int kind, const void *data,
                          size_t len)
{
    int was = lives(p);
    int answer = rt_send(m.loop, p->s, kind, data, len);

    if (!was) {
        if (answer != RT_EGONE)
            sim_fault("rt_send to player %d, who is over: %d", p->id, answer);
    } else if (answer == RT_EFULL) {
        cut(p);
    } else if (answer < 0) {
        sim_fault("rt_send to player %d: %s", p->id, rt_strerror(answer));
    } else {
        expect(&p->down, kind, data, len);
    }
}

static void send_droppable(struct player *p)
{
    struct message g;
    int was = lives(p), answer;

    message_make(&g, RT_TEXT, 'D', 0, 0, tail_length());
    answer = rt_send(m.loop, p->s, RT_TEXT | RT_DROPPABLE, g.text, g.len);
    if (was ? answer < 0 : answer != RT_EGONE)
        sim_fault("a droppable to player %d: %d", p->id, answer);
    p->drop_sent = g.serial;
}

/* A full queue refuses a key, but the session stays. */
static void send_keyed(struct player *p, unsigned key)
{
    struct message g;
    int was = lives(p), answer;

    message_make(&g, RT_TEXT, 'K', key, 0, tail_length());
    answer = rt_send(m.loop, p->s, RT_TEXT | rt_latest((uint16_t)key), g.text,
                     g.len);
    if (was ? answer < 0 && answer != RT_EFULL : answer != RT_EGONE)
        sim_fault("key %u to player %d: %d", key, p->id, answer);
    if (answer < 0)
        return;
    p->key_sent[key] = g.serial;
    p->key_sure[key] = 1;
}

typedef int (*member_fn)(const struct player *, unsigned);

/* Notes who can get a message to many; returns how many that are. */
static int many_begin(member_fn in, unsigned arg)
{
    struct player *p;
    int n = 0;

    for (p = m.players; p < m.players + m.count; p++) {
        p->was = in(p, arg) && lives(p);
        n += p->was;
    }
    return n;
}

/* Who got it: all that live on; the others were full. */
static void many_end(const char *what, int answer, int kind, const void *data,
                     size_t len)
{
    struct player *p;
    int n = 0;

    for (p = m.players; p < m.players + m.count; p++) {
        if (!p->was)
            continue;
        if (lives(p)) {
            expect(&p->down, kind, data, len);
            n++;
        } else {
            cut(p);
        }
    }
    if (answer != n)
        sim_fault("%s said that %d took it, but %d live on", what, answer, n);
}

static int in_group(const struct player *p, unsigned group)
{
    return p->in_group[group];
}

static int in_group_but(const struct player *p, unsigned arg)
{
    return p->in_group[arg % GROUPS] && p->id != (int)(arg / GROUPS);
}

static int is_odd(const struct player *p, unsigned unused)
{
    (void)unused;
    return p->id & 1;
}

static void group_send(unsigned group, int kind, const void *data, size_t len)
{
    int answer;

    many_begin(in_group, group);
    answer = rt_group_send(m.loop, m.group[group], kind, data, len);
    many_end("rt_group_send", answer, kind, data, len);
}

static void group_send_but(struct player *p, unsigned group, int kind,
                           const void *data, size_t len)
{
    int answer;

    many_begin(in_group_but, (unsigned)p->id * GROUPS + group);
    answer = rt_group_send_but(m.loop, m.group[group], p->s, kind, data, len);
    many_end("rt_group_send_but", answer, kind, data, len);
}

/* To a list with stale handles and zeros in it. */
static void send_many(int kind, const void *data, size_t len)
{
    rt_session list[PLAYERS];
    size_t n = 0;
    int i, answer;

    for (i = 1; i < m.count; i += 2)
        list[n++] = m.players[i].s;
    many_begin(is_odd, 0);
    answer = rt_send_many(m.loop, list, n, kind, data, len);
    many_end("rt_send_many", answer, kind, data, len);
}

/* When not all took it, nobody can tell who did. */
static void group_keyed(unsigned group, unsigned key)
{
    struct player *p;
    struct message g;
    int n = many_begin(in_group, group), answer;

    message_make(&g, RT_TEXT, 'K', key, 0, tail_length());
    answer = rt_group_send(m.loop, m.group[group],
                           RT_TEXT | rt_latest((uint16_t)key), g.text, g.len);
    if (answer < 0 || answer > n)
        sim_fault("%d of %d took a key", answer, n);
    for (p = m.players; p < m.players + m.count; p++) {
        if (!p->was)
            continue;
        p->key_sent[key] = g.serial;
        p->key_sure[key] = answer == n;
    }
}

/* ---- what the server does when it is asked ------------------------------ */

static void join(struct player *p, unsigned group)
{
    int answer = rt_group_join(m.loop, m.group[group], p->s);

    if (answer != (p->in_group[group] ? RT_EEXIST : 0))
        sim_fault("player %d joins: %d", p->id, answer);
    p->in_group[group] = 1;
}

static void leave(struct player *p, unsigned group)
{
    int answer = rt_group_leave(m.loop, m.group[group], p->s);

    if (answer != (p->in_group[group] ? 0 : RT_ESTATE))
        sim_fault("player %d leaves: %d", p->id, answer);
    p->in_group[group] = 0;
}

static void end_player(struct player *p, int drop)
{
    int was = lives(p);
    int answer = drop ? rt_drop(m.loop, p->s, 4100, "drop")
                      : rt_close(m.loop, p->s, 4100, "close");

    if (!p->opened)
        return;
    if (answer != (was ? 0 : RT_EGONE))
        sim_fault("player %d is ended: %d", p->id, answer);
    if (!was)
        return;
    p->ended = 1;
    p->drained = !drop;
}

static void go_on(rt_loop *l, void *arg)
{
    struct player *p = arg;

    callback_begins("a timer");
    p->held = 0;
    if (rt_read(l, p->s, 1) != 0)
        sim_fault("player %d is not read again", p->id);
    m.depth--;
}

/* The owner of the timer: it must not run for one who is over. */
static void hold(struct player *p, unsigned ms)
{
    if (p->held)
        return;
    p->held = 1;
    if (rt_read(m.loop, p->s, 0) != 0 ||
        !rt_timer_start(m.loop, p->s, rt_now(m.loop) + ms, go_on, p).id)
        sim_fault("player %d is not held", p->id);
}

static struct player *anyone(unsigned n)
{
    return &m.players[n % (unsigned)m.count];
}

static void obey(struct player *p, const struct message *g, int kind,
                 const void *data, size_t len)
{
    switch (g->verb) {
    case 'J':
        join(p, g->a % GROUPS);
        break;
    case 'L':
        leave(p, g->a % GROUPS);
        break;
    case 'S':
        group_send(g->a % GROUPS, kind, data, len);
        break;
    case 'B':
        group_send_but(p, g->a % GROUPS, kind, data, len);
        break;
    case 'M':
        send_many(kind, data, len);
        break;
    case 'G':
        group_keyed(g->a % GROUPS, g->b % KEYS);
        break;
    case 'Y':
        send_keyed(anyone(g->a), g->b % KEYS);
        break;
    case 'O':
        send_droppable(anyone(g->a));
        break;
    case 'T':
        send_reliable(anyone(g->a), kind, data, len);
        break;
    case 'C':
        end_player(anyone(g->a), (int)g->b % 2);
        break;
    case 'H':
        hold(p, g->b);
        break;
    default:
        send_reliable(p, kind, data, len);
    }
}

/* ---- callbacks of the server -------------------------------------------- */

static int valid(const struct player *p, rt_session s, const char *what)
{
    if (p && p->opened && !p->closed && rt_same(p->s, s))
        return 1;
    sim_fault("%s of a session that is not open", what);
    return 0;
}

/* The path is the number of the player. */
static void opened(rt_loop *l, rt_session s)
{
    const rt_request *r = rt_request_of(l, s);
    int id = r ? atoi(r->path + 1) : -1;
    struct player *p = id >= 0 && id < m.count ? &m.players[id] : NULL;

    if (!p || p->opened) {
        sim_fault("on_open for player %d", id);
        return;
    }
    sim_note("player %d is open", id);
    p->opened = 1;
    p->s = s;
    rt_set_user(l, s, p);
    upcall(p, 'o', "", 0);
}

static void on_open(rt_loop *l, rt_session s)
{
    callback_begins("on_open");
    opened(l, s);
    m.depth--;
}

static void heard(struct player *p, int kind, const void *data, size_t len)
{
    struct message g;

    sim_note("player %d is heard: %.20s, %zu bytes", p->id, (const char *)data,
             len);
    upcall(p, kind, data, len);
    if (p->ended)
        sim_fault("on_message of player %d after its end", p->id);
    if (((const char *)data)[len] != 0)
        sim_fault("no 0 after a message");
    if (p->rude < 0 && !p->up.len)
        return; /* noise can be a message by chance */
    if (!came(&p->up, kind, data, len))
        sim_fault("player %d was not heard in order", p->id);
    else if (message_read(&g, data, len))
        obey(p, &g, kind, data, len);
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    struct player *p = rt_user(l, s);

    callback_begins("on_message");
    if (valid(p, s, "on_message"))
        heard(p, kind, data, len);
    m.depth--;
}

static void on_presence(rt_loop *l, rt_group g, rt_session s, int what)
{
    struct player *p = rt_user(l, s);
    size_t i = 0;

    callback_begins("a presence event");
    while (i + 1 < GROUPS && m.group[i].id != g.id)
        i++;
    if (valid(p, s, "a presence event")) {
        p->present[i] += what == RT_JOINED ? 1 : -1;
        sim_upcall((uint32_t)p->id, 'p', i << 8 | (unsigned)what);
        if (p->present[i] != (what == RT_JOINED))
            sim_fault("player %d: event %d of group %zu", p->id, what, i);
    }
    m.depth--;
}

/* Is there a reason why this player's session may end so? */
static int justified(const struct player *p, const rt_end *why)
{
    if (why->cause == RT_BY_LOOP)
        return m.freeing;
    if (p->ended)
        return why->code == 4100 || why->code == RT_CLOSE_SLOW;
    if (p->rude)
        return p->slow || p->rude < 0 || why->code == p->rude;
    if (why->code == RT_CLOSE_DEAD)
        return p->slow;
    return p->leaving;
}

static void over(struct player *p, const rt_end *why)
{
    int g;

    sim_note("player %d is over: code %d, cause %d, lost %d", p->id, why->code,
             why->cause, (int)why->lost);
    sim_upcall((uint32_t)p->id, 'c', (uint64_t)why->code);
    sim_upcall((uint32_t)p->id, why->cause, why->lost);
    p->closed = 1;
    p->code = why->code;
    p->lost = why->lost;
    memset(p->in_group, 0, sizeof p->in_group);
    for (g = 0; g < GROUPS; g++) {
        if (p->present[g])
            sim_fault("on_close of player %d before it left", p->id);
    }
    if (!justified(p, why))
        sim_fault("player %d is closed without a reason: code %d, cause %d",
                  p->id, why->code, why->cause);
    if (p->said_all && !p->ended && why->code == 1000 && p->up.len)
        sim_fault("player %d left, but %zu messages were not heard", p->id,
                  p->up.len);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    struct player *p = rt_user(l, s);

    callback_begins("on_close");
    if (valid(p, s, "on_close"))
        over(p, why);
    m.depth--;
}

static void on_writable(rt_loop *l, rt_session s)
{
    struct player *p = rt_user(l, s);

    callback_begins("on_writable");
    if (valid(p, s, "on_writable"))
        upcall(p, 'w', "", 0);
    if (p && p->ended)
        sim_fault("on_writable of player %d after its end", p->id);
    m.depth--;
}

/* ---- callbacks of dialled players --------------------------------------- */

static void bot_open(rt_loop *l, rt_session s)
{
    struct player *p = rt_context(l, s);

    sim_note("bot %d is open", p->id);
    received(p, 'o', "", 0);
    if (p->client_opened++ || !rt_same(s, p->client))
        sim_fault("bot %d opens twice", p->id);
}

static void bot_message(rt_loop *l, rt_session s, int kind, const void *data,
                        size_t len)
{
    struct player *p = rt_context(l, s);

    if (!p || !p->client_opened || p->client_closed || p->client_ended)
        sim_fault("a bot that is not open gets a message");
    else
        player_got(p, kind, data, len);
}

static void bot_close(rt_loop *l, rt_session s, const rt_end *why)
{
    struct player *p = rt_context(l, s);

    sim_note("bot %d is over: code %d, cause %d", p ? p->id : -1, why->code,
             why->cause);
    if (p)
        sim_upcall((uint32_t)(PLAYERS + p->id), 'c', (uint64_t)why->code);
    if (!p || p->client_closed++)
        sim_fault("a bot closes twice");
    else if (!p->client_ended && !p->ended && !m.freeing && !p->closed)
        sim_fault("bot %d is closed without a reason: code %d, cause %d", p->id,
                  why->code, why->cause);
}

/* ---- what players do ---------------------------------------------------- */

static const char verbs[] = "EEEEEJJJJLSSSSBBMGGGGYYOOTTCH";

/* Of a peer whose request went out; a line that is over takes nothing. */
static int can_talk(const struct player *p)
{
    if (p->leaving || p->rude)
        return 0;
    if (p->bot)
        return p->client_opened && !p->client_ended &&
               rt_state(m.loop, p->client) == RT_OPEN;
    return p->ws && p->ws->line && p->ws->open && !p->ws->close_sent;
}

/* Scripts split a message into frames as they like. */
static void say_in_pieces(ws_peer *w, const struct message *g)
{
    size_t at = 0, n;
    int first = g->kind == RT_TEXT ? WS_TEXT : WS_BINARY;

    while (sim_choose(3)) {
        n = sim_choose((uint32_t)(g->len - at + 1));
        ws_frame(w, first, g->text + at, n);
        at += n;
        first = WS_MORE;
        if (!sim_choose(4))
            ws_send(w, WS_PING, "between", 7);
    }
    ws_frame(w, 0x80 | first, g->text + at, g->len - at);
}

static void say(struct player *p)
{
    struct message g;
    char verb = verbs[sim_choose(sizeof verbs - 1)];
    int kind = sim_choose(3) ? RT_TEXT : RT_BINARY;
    unsigned a, b;

    if (verb == 'C' && sim_choose(4)) /* or few would be left */
        verb = 'E';
    a = sim_choose(1000);
    b = sim_choose(3000);
    message_make(&g, kind, verb, a, b, tail_length());
    sim_note("player %d says %.20s, %zu bytes", p->id, g.text, g.len);
    if (!p->bot) {
        say_in_pieces(p->ws, &g);
        expect(&p->up, kind, g.text, g.len);
    } else if (rt_unsent(m.loop, p->client) < BOT_QUEUE) {
        if (rt_send(m.loop, p->client, kind, g.text, g.len) < 0)
            sim_fault("bot %d cannot send", p->id);
        expect(&p->up, kind, g.text, g.len);
    }
}

static void stall(struct player *p)
{
    if (p->bot || !p->ws->line)
        return;
    sim_note("player %d stops reading", p->id);
    p->slow = 1;
    p->ws->reads = 0;
    sim_peer_window(p->ws->line, sim_choose(2) ? 0 : sim_choose(3000));
}

static void unstall(struct player *p)
{
    if (p->bot || !p->ws->line)
        return;
    sim_note("player %d reads", p->id);
    p->ws->reads = 1;
    sim_peer_window(p->ws->line, 1 + sim_choose(65536));
}

static void leave_well(struct player *p)
{
    sim_note("player %d leaves", p->id);
    p->leaving = 1;
    p->said_all = 1;
    if (!p->bot)
        ws_close(p->ws, 1000);
    else if (rt_close(m.loop, p->client, 1000, NULL) == 0)
        p->client_ended = 1;
}

/* The line goes: with a FIN, with a RST, or at any byte of what it says. */
static void leave_badly(struct player *p)
{
    if (p->bot || !p->ws->line)
        return;
    sim_note("player %d cuts the line", p->id);
    p->leaving = 1;
    if (sim_choose(2)) {
        p->ws->out.len = sim_choose((uint32_t)p->ws->out.len + 1);
        p->ws->reads = 0; /* a pong would stand inside the frame cut off */
    }
    ws_pump(p->ws);
    if (!p->ws->line)
        return;
    if (sim_choose(2)) {
        sim_peer_reset(p->ws->line);
    } else if (sim_choose(2)) {
        sim_peer_shut(p->ws->line);
    } else {
        sim_peer_close(p->ws->line);
        p->ws->line = NULL;
    }
}

static void be_rude(struct player *p)
{
    static const char big[300000];
    uint8_t noise[64];
    size_t i;

    if (p->bot)
        return;
    sim_note("player %d is rude", p->id);
    switch (sim_choose(5)) {
    case 0:
        p->rude = 1002;
        ws_raw(p->ws,
               "\x81\x03"
               "abc",
               5); /* not masked */
        break;
    case 1:
        p->rude = 1002;
        ws_frame(p->ws, 0x83, "x", 1);
        break;
    case 2:
        p->rude = 1007;
        ws_send(p->ws, WS_TEXT, "\xc0\x80", 2);
        break;
    case 3:
        p->rude = 1009;
        ws_send(p->ws, WS_BINARY, big, m.bulk ? sizeof big : 70000);
        break;
    default:
        p->rude = -1;
        for (i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)sim_choose(256);
        ws_raw(p->ws, noise, sizeof noise);
    }
}

/* Pings without end; an answer to each, or to the last. */
static void flood(struct player *p)
{
    int i;

    for (i = 0; !p->bot && i < 200; i++)
        ws_send(p->ws, WS_PING, "flood", 5);
}

static const rt_handler bot_handler = {
    .open = bot_open, .message = bot_message, .close = bot_close};

static int most_in(void)
{
    return m.bulk ? LONGEST : 0;
}

static void come_as_bot(struct player *p)
{
    rt_dial_opts o = {.on = bot_handler,
                      .user = p,
                      .max_message = most_in(),
                      .assembly_ms = m.bulk ? RT_OFF : 0};
    char url[64];

    snprintf(url, sizeof url, "ws://127.0.0.1:%d/%d", PORT, p->id);
    p->bot = 1;
    p->client = rt_dial(m.loop, url, &o);
    if (!p->client.id)
        sim_fault("rt_dial: %d", rt_error(m.loop, NULL));
}

static void come_as_script(struct player *p)
{
    char path[16];

    snprintf(path, sizeof path, "/%d", p->id);
    if (sim_choose(8)) {
        p->ws = ws_connect(PORT, path);
    } else {
        p->ws = ws_connect_silent(PORT); /* and stops in its request */
        p->leaving = 1;
        if (p->ws)
            ws_raw(p->ws, ws_request(path), sim_choose(100));
    }
    if (!p->ws) {
        p->leaving = 1;
        return;
    }
    p->ws->on = on_frame;
    p->ws->user = p;
    sim_peer_window(p->ws->line, 100 + sim_choose(65536));
}

static void come(void)
{
    struct player *p;
    int i, here = 0;

    for (i = 0; i < m.count; i++) {
        p = &m.players[i];
        here += p->bot ? !p->client_closed : p->ws && p->ws->line;
    }
    if (m.count == PLAYERS || here >= AT_ONCE)
        return;
    p = &m.players[m.count];
    p->id = m.count++;
    if (sim_choose(5))
        come_as_script(p);
    else
        come_as_bot(p);
}

static void act_one(struct player *p)
{
    switch (sim_choose(40)) {
    case 0:
        leave_well(p);
        break;
    case 1:
        leave_badly(p);
        break;
    case 2:
        be_rude(p);
        break;
    case 3:
        stall(p);
        break;
    case 4:
    case 5:
    case 6:
        unstall(p);
        break;
    case 7:
        flood(p);
        break;
    default:
        say(p);
    }
}

/* The host acts too, between two turns. */
static void act_host(void)
{
    struct player *p = anyone(sim_choose(1000));
    struct message g;

    message_make(&g, RT_BINARY, 'W', 0, 0, tail_length());
    switch (sim_choose(4)) {
    case 0:
        group_send(sim_choose(GROUPS), RT_BINARY, g.text, g.len);
        break;
    case 1:
        send_keyed(p, sim_choose(KEYS));
        break;
    case 2:
        rt_flush(m.loop);
        break;
    default:
        send_reliable(p, RT_BINARY, g.text, g.len);
    }
}

static void act(void)
{
    uint32_t n;
    struct player *p;

    if (!m.count || !sim_choose(8))
        come();
    if (!m.count)
        return;
    if (!sim_choose(6))
        act_host();
    for (n = sim_choose(6); n > 0; n--) {
        p = anyone(sim_choose(1000));
        if (can_talk(p))
            act_one(p);
    }
}

/* ---- what must be true after a turn ------------------------------------- */

/* A line that broke while it was written ends its session in the next turn. */
static void check_state(struct player *p)
{
    int state = p->opened ? rt_state(m.loop, p->s) : RT_EGONE;

    if (state == RT_CLOSING && !p->ended && !p->closing) {
        p->closing = 1;
        memset(p->in_group, 0, sizeof p->in_group);
        return;
    }
    if (p->opened && state != (p->closed ? RT_EGONE : RT_OPEN))
        sim_fault("player %d is in state %d", p->id, state);
}

/* Its connection did not linger, in which what was queued can still go. */
static int gone_at_once(const struct player *p)
{
    return p->closed && p->code == 1006;
}

static size_t most_queued(void)
{
    return m.bulk ? LONG_HARD : HARD;
}

static void check_player(struct player *p)
{
    int g;

    check_state(p);
    if (lives(p) && rt_unsent(m.loop, p->s) > most_queued() + CONTROL)
        sim_fault("player %d: %d bytes are queued", p->id,
                  (int)rt_unsent(m.loop, p->s));
    if (p->ended && !p->closed)
        sim_fault("player %d was ended, but on_close did not come", p->id);
    if (p->lost > p->down.len && gone_at_once(p))
        sim_fault("player %d: %zu are missing, but %d lost, code %d", p->id,
                  p->down.len, (int)p->lost, p->code);
    for (g = 0; g < GROUPS; g++) {
        if (!p->closing && p->present[g] != p->in_group[g])
            sim_fault("player %d: the events of group %d are behind", p->id, g);
    }
    if (p->client_ended && !p->client_closed)
        sim_fault("bot %d was ended, but on_close did not come", p->id);
}

static void check_groups(void)
{
    size_t n, g;
    int i;

    for (g = 0; g < GROUPS; g++) {
        for (i = 0, n = 0; i < m.count; i++)
            n += (size_t)m.players[i].in_group[g];
        if (rt_group_count(m.loop, m.group[g]) != n)
            sim_fault("group %zu has %zu members instead of %zu", g,
                      rt_group_count(m.loop, m.group[g]), n);
    }
}

static void check_all(void)
{
    size_t most = HEAP_LOOP + (size_t)sim_streams() * HEAP_CONN;
    int i;

    if (m.bulk) /* long buffers that are kept, one in, and a queue */
        most += (16 << 20) + (size_t)sim_streams() * 2 * (LONGEST + LONG_HARD);
    for (i = 0; i < m.count; i++)
        check_player(&m.players[i]);
    check_groups();
    if (sim_heap() > most)
        sim_fault("heap of %zu bytes with %d connections", sim_heap(),
                  sim_streams());
}

/* ---- a world ------------------------------------------------------------ */

static void pump(void)
{
    int i;

    for (i = 0; i < m.count; i++) {
        if (m.players[i].ws)
            ws_pump(m.players[i].ws);
    }
}

static void poll_once(uint64_t ms)
{
    int answer = rt_poll(m.loop, (int)ms);

    if (answer < 0)
        sim_fault("rt_poll: %d", answer);
    check_all();
    census(m.fds, m.loop, m.loop, m.turns++);
}

/* In a calm world it lasts so long, however often that wakes the loop. */
static void turn(int ms)
{
    uint64_t end = sim_now() + (uint64_t)ms;

    sim_step(ms);
    do {
        pump();
        poll_once(end - sim_now());
    } while (m.calm && sim_now() < end && !sim_faults());
}

static const rt_handler server_handler = {.open = on_open,
                                          .message = on_message,
                                          .writable = on_writable,
                                          .close = on_close};

static int world_open(int backend)
{
    rt_loop_opts lo = {.backend = backend, .realloc = sim_realloc};
    rt_listen_opts o = {.on = server_handler,
                        .max_message = most_in(),
                        .assembly_ms = m.bulk ? RT_OFF : 0,
                        .soft_mark = SOFT,
                        .hard_mark = (int)most_queued(),
                        .control_rate = RT_OFF}; /* players flood */
    rt_group_opts go = {.event = on_presence};
    char name[8];
    size_t i;

    m.loop = rt_loop_new(&lo);
    if (!m.loop)
        return 0;
    m.listener = rt_listen(m.loop, "ws://127.0.0.1:9000", &o);
    for (i = 0; i < GROUPS; i++) {
        snprintf(name, sizeof name, "g%zu", i);
        m.group[i] = rt_group_open(m.loop, name, &go);
        if (!m.group[i].id)
            return 0;
    }
    m.fds = sim_fds();
    return m.listener.id != 0;
}

static void live(void)
{
    static const int waits[] = {0, 0, 0, 1, 10, 100, 1000, 4000};
    int i;

    for (i = 0; i < STEPS && !sim_over(); i++) {
        act();
        turn(waits[sim_choose(8)]);
    }
}

static int under_way(void)
{
    int i, n = 0;

    for (i = 0; i < m.count; i++) {
        if (lives(&m.players[i]))
            n += m.players[i].up.len + m.players[i].down.len > 0;
    }
    return n;
}

/* All read again, and what is under way arrives; then silence for a while. */
static void settle(void)
{
    ws_peer *w;
    int i;

    for (i = 0; i < m.count; i++) {
        w = m.players[i].ws;
        if (!w || !w->line)
            continue;
        w->reads = 1;
        sim_peer_window(w->line, 65536);
    }
    for (i = 0; !sim_over() && (i < 200 || (i < 20000 && under_way())); i++)
        turn(10);
    for (i = 0; i < 100 && !sim_over(); i++)
        turn(100);
}

/* Nothing of what was accepted is missing with those who stayed. */
static void check_whole(const struct player *p)
{
    int k;

    if (p->drained && !p->slow && !p->leaving && !p->rude && p->down.len)
        sim_fault("player %d was closed, %zu did not arrive", p->id,
                  p->down.len);
    if (!lives(p) || p->leaving || p->rude)
        return;
    if (p->down.len || p->up.len)
        sim_fault("player %d misses %zu, %zu were not heard", p->id,
                  p->down.len, p->up.len);
    for (k = 0; k < KEYS; k++) {
        if (p->key_sure[k] && p->key_got[k] != p->key_sent[k])
            sim_fault("player %d has version %u of key %d, not %u", p->id,
                      p->key_got[k], k, p->key_sent[k]);
    }
}

/* Who broke the protocol and read on was told why. */
static void check_told(const struct player *p)
{
    if (!p->opened || p->bot || p->slow || p->leaving || p->ended)
        return;
    if (p->rude > 0 && p->ws->close_code != p->rude)
        sim_fault("player %d broke the protocol: was told %d, not %d", p->id,
                  p->ws->close_code, p->rude);
}

static int lines_wanted(void)
{
    int i, n = 0;

    for (i = 0; i < m.count; i++) {
        n += m.players[i].opened && !m.players[i].closed;
        n += m.players[i].client_opened && !m.players[i].client_closed;
    }
    return n;
}

static void finish(void)
{
    int i;

    settle();
    for (i = 0; i < m.count && !sim_over(); i++) {
        check_whole(&m.players[i]);
        check_told(&m.players[i]);
    }
    for (i = 0; i < m.count && !sim_over(); i += 2) {
        if (can_talk(&m.players[i]))
            leave_well(&m.players[i]);
    }
    for (i = 0; i < 300 && !sim_over(); i++)
        turn(50);
    if (!sim_over() && sim_fds() != m.fds + lines_wanted())
        sim_fault("%d descriptors, of which %d are the loop's, for %d lines",
                  sim_fds(), m.fds, lines_wanted());
}

static void world_free(void)
{
    struct player *p;

    m.freeing = 1;
    rt_loop_free(m.loop);
    for (p = m.players; p < m.players + m.count; p++) {
        if (p->opened != p->closed)
            sim_fault("player %d: no on_close", p->id);
        if (p->bot && !p->client_closed)
            sim_fault("bot %d: no on_close", p->id);
        if (p->ws)
            ws_free(p->ws);
        free(p->up.at);
        free(p->down.at);
    }
}

static void weather_of(const sim_world *w, sim_opts *o)
{
    uint64_t seed = w->seed;

    memset(o, 0, sizeof *o);
    o->spin = 2000;
    if (seed % 4 == 0 || w->calm)
        return;
    sim_weather(seed, o);
    o->wall = 20;
    o->tick_ns = 300;
}

int model_run(sim_world *w)
{
    sim_opts o;

    memset(&m, 0, sizeof m);
    m.bulk = w->seed % 32 == 9;
    m.calm = w->calm;
    weather_of(w, &o);
    if (m.bulk && o.window)
        o.window += 16384;
    sim_world_begin(w, &o);
    if (!world_open(w->backend))
        sim_fault("the world does not open");
    live();
    if (!sim_over())
        finish();
    world_free();
    return sim_world_end(w, "model");
}
