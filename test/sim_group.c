/*
 * Random worlds of groups.  A world is a loop with a few names for groups,
 * which are opened with any options, closed, left to expire and opened again;
 * sessions of three kinds (plain WebSocket, rtnet.1 with lines that break and
 * sessions that resume, dialled ones), some of which do not read; and a host
 * that calls whatever it likes, also from inside its callbacks.
 *
 * The model was written from rtnet.h alone and keeps everything for ever: for
 * each group all messages that it was ever sent, for each session the list of
 * all that it was promised.  What a group remembers is not state but a
 * question about that list.  After each call its answer is compared; each
 * callback must be the one that is due; and each client must hear, message by
 * message, what the list of its session says.
 *
 * Time passes only while the library waits, so that each age is exact.
 */
#include "rtnet.h"
#include "census.h"
#include "sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 0: worlds without snapshots, idempotent sends, limits of groups, and without
   the hook for what falls out of a history. */
enum { EXTRAS = 1 };

enum { PORT = 9000, DIAL_PORT = 9100 };
enum { SESSIONS = 24, ROOMS = 64, NAMES = 4, MESSAGES = 3000 };
enum { KEYS = 3, ALL_KEYS = KEYS * (NAMES + 1), ONCE = 200 };
enum { GHOSTS = 64, BIGGEST = 20000, BYE = 3600 };
enum { HOST = 2 * SESSIONS }; /* whose calls are in the digest, too */
enum { RING_COUNT = 128, RING_BYTES = 65536 }; /* what a server must keep */

/* What this model takes for the most that the library may hold. */
enum { HEAP_LOOP = 1200000, HEAP_LINE = 2 * 65536 + 8192 };
enum { HEAP_SESSION = 3 * RING_BYTES + 40000, HEAP_PAST = 320 };

struct list {
    uint32_t *at;
    size_t len, cap;
};

enum kind { PLAIN, RESUMES, DIALLED };
enum state { UNBORN, ALIVE, ENDED, GONE };
enum phase { IDLE, GREETING, TALKING };

/* A session: what the host knows of it, and the script at its other end. */
struct sess {
    int id;
    enum kind kind;
    enum state state;
    rt_session h;
    int excused;     /* its script did what may end it */
    int code;        /* the host ended it with this code */
    int slow;        /* it ended in a call, for its queue */
    int haunted;     /* a line that was given up may still deliver */
    int taken_over;  /* while it was open, and on_back is due */
    int told_away;   /* the groups were told that it is away */
    struct list m;   /* what it must hear, in this order, */
    struct list any; /* but those of one number here, not 0, in any order */
    struct list u;   /* what it may hear besides, */
    struct list at;  /* and how many of m come before */
    size_t got, sure;
    uint32_t key_must[ALL_KEYS], key_got[ALL_KEYS], drop_got;
    int empties;        /* so many empty messages were sent to it */
    size_t seen[ROOMS]; /* the newest offset that it heard */
    int before;         /* it was to get what the present call sends, */
    size_t unsent;      /* and had so much to read before it */
    int was_away;
    ws_peer *ws;
    enum phase phase;
    int hello, over, stalled;
    char token[24];
    unsigned attempt;
};

struct past {
    uint32_t g;
    uint64_t when;
};

/* A key of rt_group_send_once, and where its message was. */
struct once {
    int key;
    uint64_t when;
    rt_position at;
};

/* A leaky bucket, in thousandths. */
struct bucket {
    uint64_t level, at;
};

/* A presence event that is due.  Those of one batch come in any order. */
struct event {
    int who, what;
    uint32_t batch, turn;
};

/* One life of a group: when its name is opened again that is another one. */
struct room {
    int id, name, lives;
    rt_group h;
    rt_group_opts o;
    int in[SESSIONS], count;
    uint64_t epoch;
    uint64_t used, perhaps_used; /* the later is sure to be late enough */
    struct past *past;           /* the offset of past[i] is i + 1 */
    size_t sent, cap;
    size_t gone;         /* offsets up to it are forgotten, without memory, */
    struct list perhaps; /* and perhaps those up to one of these */
    struct event *events;
    size_t event_count, event_cap;
    size_t evicted, evict; /* told to be forgotten; due to be told, */
    size_t evict_before;   /* since before this turn */
    struct list latest;    /* the newest message of each key, by their age */
    int owes[SESSIONS];    /* the snapshot, after a gap */
    struct once once[ONCE];
    size_t once_count;
    uint64_t *passed; /* when each message passed its limits */
    size_t passed_count, passed_cap;
    struct bucket messages, bytes;
};

enum note_kind { FIRST, LAST, OUT };
struct note {
    enum note_kind what;
    int name;
    uint32_t g; /* the message of OUT */
    uint32_t batch, turn;
};

static struct model {
    rt_loop *loop;
    struct sess sess[SESSIONS];
    struct room rooms[ROOMS];
    int sess_count, room_count;
    uint32_t serial;
    struct {
        int kind, key;
        char verb; /* R reliable, N not remembered, D droppable, K keyed, E
                      empty and keyed */
        size_t len;
        int room; /* its id and the offset there, for those remembered */
        size_t offset;
    } messages[MESSAGES];
    struct note *notes;
    size_t note_count, note_cap;
    int subscribed[NAMES]; /* group_first came last, not group_last */
    ws_peer *ghosts[GHOSTS];
    int ghost_count;
    int max_groups, seats, hard, soft, window_ms, evicts;
    uint32_t blocks;
    uint32_t batch, turn;
    uint32_t weak;       /* one of so many allocations fails; 0: none does */
    uint32_t fails;      /* in the present call */
    uint32_t short_of;   /* this world is weak */
    int crowded;         /* many are in few groups, and are sent to at once */
    int untold, skipped; /* what the log said was not told, and we believed */
    int depth, settling, freeing, in_turn;
    int calm, fds; /* open without any line */
} m;

static char pattern[BIGGEST + 128];

/* What these worlds are for, counted, so that a test can tell whether it all
   came to pass. */
#define SIGHTS(X)                                                              \
    X(joins)                                                                   \
    X(joins_twice)                                                             \
    X(full_rooms)                                                              \
    X(full_seats)                                                              \
    X(full_names)                                                              \
    X(replays)                                                                 \
    X(replays_of_all)                                                          \
    X(replays_of_nothing)                                                      \
    X(replays_cut_short)                                                       \
    X(live_behind_replays)                                                     \
    X(too_old)                                                                 \
    X(too_old_by_age)                                                          \
    X(other_epochs)                                                            \
    X(futures)                                                                 \
    X(lost_for_memory)                                                         \
    X(slow_ends)                                                               \
    X(slow_aways)                                                              \
    X(away_told)                                                               \
    X(back_told)                                                               \
    X(silent_takeovers)                                                        \
    X(gaps)                                                                    \
    X(recoveries)                                                              \
    X(expired_rooms)                                                           \
    X(reopened)                                                                \
    X(closed_with_members)                                                     \
    X(closed_in_callback)                                                      \
    X(ended_while_walked)                                                      \
    X(stale_rooms)                                                             \
    X(stale_sessions)                                                          \
    X(delivered)                                                               \
    X(events)                                                                  \
    X(outs)                                                                    \
    X(skipped_droppables)                                                      \
    X(keys)                                                                    \
    X(evictions)                                                               \
    X(evicted_by_age)                                                          \
    X(evicted_by_end)                                                          \
    X(snapshots)                                                               \
    X(snapshots_after_gaps)                                                    \
    X(keys_forgotten)                                                          \
    X(keys_too_many)                                                           \
    X(once_again)                                                              \
    X(once_too_late)                                                           \
    X(over_the_rate)                                                           \
    X(no_memory)

static struct {
#define SIGHT_FIELD(name) uint64_t name;
    SIGHTS(SIGHT_FIELD)
#undef SIGHT_FIELD
} saw;

const char *group_unseen(int print)
{
    const char *none = NULL;

#define SIGHT_LOOK(name)                                                       \
    if (print)                                                                 \
        printf("%12llu %s\n", (unsigned long long)saw.name, #name);            \
    if (!saw.name)                                                             \
        none = #name;
    SIGHTS(SIGHT_LOOK)
#undef SIGHT_LOOK
    return none;
}

/* ---- lists and messages ------------------------------------------------- */

static void *more(void *p, size_t len, size_t *cap, size_t size)
{
    if (len < *cap)
        return p;
    *cap = 2 * *cap + 16;
    p = realloc(p, *cap * size);
    if (!p)
        exit(2);
    return p;
}

static void push(struct list *l, uint32_t value)
{
    l->at = more(l->at, l->len, &l->cap, sizeof *l->at);
    l->at[l->len++] = value;
}

static size_t tail_length(void)
{
    switch (sim_choose(24)) {
    case 0:
        return sim_choose(BIGGEST - 24);
    case 1:
    case 2:
        return sim_choose(2000);
    default:
        return sim_choose(40);
    }
}

/* A new message, for the group of that name or, NAMES, for one session; 0 when
   there were too many.  Keys are not shared, and the last of each name is the
   one that groups do not remember. */
static uint32_t message_new(int name)
{
    static const char verbs[] = "RRRRRRRRNNDDDKKKE";
    uint32_t g = m.serial + 1;
    char verb = verbs[sim_choose(17)];
    int kind = sim_choose(3) ? RT_TEXT : RT_BINARY;
    int key = (int)sim_choose(KEYS);

    if (g == MESSAGES)
        return 0;
    m.serial = g;
    m.messages[g].verb = verb;
    m.messages[g].key = name * KEYS + key;
    if (verb == 'N' || (verb == 'D' && !sim_choose(4)))
        kind |= RT_NO_HISTORY;
    if (verb == 'D')
        kind |= RT_DROPPABLE;
    if (verb == 'K' || verb == 'E')
        kind |= rt_latest((uint16_t)m.messages[g].key);
    if ((verb == 'K' || verb == 'E') && key == KEYS - 1)
        kind |= RT_NO_HISTORY;
    m.messages[g].kind = kind;
    m.messages[g].len = 24 + tail_length();
    if (verb == 'K' ||
        verb == 'E') /* a snapshot has to fit into the hard mark */
        m.messages[g].len = verb == 'E' ? 0 : 24 + sim_choose(40);
    m.messages[g].room = -1;
    return g;
}

/* Its text, valid until the next call: a head of 24 bytes and a tail. */
static const char *message_text(uint32_t g, size_t *len)
{
    static char text[BIGGEST + 32];

    *len = m.messages[g].len;
    if (!*len)
        return text;
    snprintf(text, 25, "%c %10u %10u", m.messages[g].verb, g,
             (unsigned)m.messages[g].key);
    memcpy(text + 24, pattern + g % 97, *len - 24);
    return text;
}

/* Which message this is; 0: none of ours. */
static uint32_t message_find(int op, const void *data, size_t len)
{
    char head[25];
    unsigned g;
    size_t want = 0;

    if (len < 24)
        return 0;
    memcpy(head, data, 24);
    head[24] = 0;
    if (sscanf(head + 1, "%u", &g) != 1 || !g || g > m.serial)
        return 0;
    if (memcmp(message_text(g, &want), data, want < len ? want : len) != 0)
        return 0;
    return want == len && op == (m.messages[g].kind & 0xff) ? g : 0;
}

static int reliable(uint32_t g)
{
    return m.messages[g].verb == 'R' || m.messages[g].verb == 'N';
}

static int keyed(uint32_t g)
{
    return m.messages[g].verb == 'K' || m.messages[g].verb == 'E';
}

/* ---- what is due: events and notes -------------------------------------- */

static void event_due(struct room *r, int who, int what)
{
    struct event *e;

    if (!r->o.event)
        return;
    r->events =
        more(r->events, r->event_count, &r->event_cap, sizeof *r->events);
    e = &r->events[r->event_count++];
    e->who = who;
    e->what = what;
    e->batch = m.batch;
    e->turn = m.turn;
}

static void event_drop(struct room *r, size_t i)
{
    r->event_count--;
    memmove(r->events + i, r->events + i + 1,
            (r->event_count - i) * sizeof *r->events);
}

/* The log said that something was not told: this was it. */
static int believed(void)
{
    return m.skipped < m.untold ? ++m.skipped : 0;
}

/* Without memory it may not be told that one went away or came back; but who
   joined, and who left, always is. */
static int event_believed(struct room *r, size_t i)
{
    if (r->events[i].what == RT_JOINED || r->events[i].what == RT_LEFT ||
        !believed())
        return 0;
    event_drop(r, i);
    return 1;
}

/* The one that came must be of the oldest batch. */
static int event_take(struct room *r, int who, int what)
{
    size_t i, n = 0;

    while (n < r->event_count && r->events[n].batch == r->events[0].batch)
        n++;
    for (i = 0; i < n; i++) {
        if (r->events[i].who == who && r->events[i].what == what) {
            event_drop(r, i);
            return 1;
        }
    }
    for (i = 0; i < n; i++) {
        if (event_believed(r, i))
            return event_take(r, who, what);
    }
    return 0;
}

static void note_due(enum note_kind what, int name, uint32_t g)
{
    struct note *n;

    if (m.freeing)
        return; /* a loop that ends tells only of its sessions */
    m.notes = more(m.notes, m.note_count, &m.note_cap, sizeof *m.notes);
    n = &m.notes[m.note_count++];
    n->what = what;
    n->name = name;
    n->g = g;
    n->batch = m.batch;
    n->turn = m.turn;
}

static void note_drop(size_t i)
{
    m.note_count--;
    memmove(m.notes + i, m.notes + i + 1, (m.note_count - i) * sizeof *m.notes);
}

/* The first of those that come in one order; first and last do, and what is to
   be published. */
static size_t note_first(enum note_kind what)
{
    size_t i = 0;

    while (i < m.note_count && (m.notes[i].what == OUT) != (what == OUT))
        i++;
    return i;
}

static int note_is(const struct note *n, enum note_kind what, int name,
                   uint32_t g)
{
    return n->what == what && n->name == name && n->g == g;
}

/* A session that ended for want of memory is noticed late, when more was done:
   then the notes of other names may wait. */
static int note_passes(const struct note *n, const struct note *first, int name)
{
    if (n->batch == first->batch)
        return 1;
    return m.short_of && first->what != OUT &&
           (n->what == OUT || n->name != name);
}

/* That a group has members, or none, is always told. */
static int note_take(enum note_kind what, int name, uint32_t g)
{
    size_t first = note_first(what), i;

    for (i = first; i < m.note_count; i++) {
        if (note_is(&m.notes[i], what, name, g)) {
            note_drop(i);
            return 1;
        }
        if (!note_passes(&m.notes[i], &m.notes[first], name))
            break;
    }
    if (first == m.note_count || what != OUT || !believed())
        return 0;
    note_drop(first);
    return note_take(what, name, g);
}

/* ---- who is where ------------------------------------------------------- */

static const char *name_of(int name)
{
    static const char *const names[NAMES] = {"a", "lobby", "the third room",
                                             "\xc3\xa4"};

    return names[name];
}

static int name_find(const char *text)
{
    int i;

    for (i = 0; i < NAMES; i++) {
        if (strcmp(text, name_of(i)) == 0)
            return i;
    }
    sim_fault("a hook is told of group %s", text);
    return 0;
}

static void room_used(struct room *r)
{
    r->used = r->perhaps_used = sim_now();
}

static void model_join(struct room *r, struct sess *s)
{
    m.batch++;
    r->in[s->id] = 1;
    room_used(r);
    if (!r->count++)
        note_due(FIRST, r->name, 0);
    event_due(r, s->id, RT_JOINED);
    m.batch++;
    if (s->told_away)
        event_due(r, s->id, RT_WENT_AWAY);
}

static void model_leave(struct room *r, struct sess *s)
{
    r->in[s->id] = r->owes[s->id] = 0;
    event_due(r, s->id, RT_LEFT);
    if (--r->count)
        return;
    note_due(LAST, r->name, 0);
    room_used(r);
}

/* Its group is over; nobody is told any more. */
static void model_close(struct room *r)
{
    m.batch++;
    if (r->count)
        note_due(LAST, r->name, 0);
    r->lives = r->count = 0;
    r->event_count = 0;
    r->evict = r->sent;
    memset(r->in, 0, sizeof r->in);
    memset(r->owes, 0, sizeof r->owes);
}

/* All groups of a session hear of it. */
static void model_presence(struct sess *s, int what)
{
    int i;

    for (i = 0; i < m.room_count; i++) {
        if (m.rooms[i].in[s->id])
            event_due(&m.rooms[i], s->id, what);
    }
}

static void model_end(struct sess *s)
{
    int i;

    s->state = ENDED;
    for (i = 0; i < m.room_count; i++) {
        if (m.rooms[i].in[s->id])
            model_leave(&m.rooms[i], s);
    }
}

/* Those that ended by themselves since the last look: it is not known in
   which order. */
static void notice(void)
{
    struct sess *s;
    int state;

    m.batch++;
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (s->state != ALIVE)
            continue;
        state = rt_state(m.loop, s->h);
        if (state == RT_EGONE)
            sim_fault("session %d is gone without on_close", s->id);
        if (state != RT_CLOSING && state != RT_EGONE)
            continue;
        sim_note("session %d ended", s->id);
        model_end(s);
    }
}

static int seats_of(const struct sess *s)
{
    int i, n = 0;

    for (i = 0; i < m.room_count; i++)
        n += m.rooms[i].in[s->id];
    return n;
}

/* Has its time to live run out by now? */
static int overdue(const struct room *r, uint64_t used)
{
    return r->o.ttl_ms > 0 && !r->count &&
           sim_now() >= used + (uint64_t)r->o.ttl_ms;
}

/* A group whose time is over ends in the timers' phase, which the model does
   not see: it looks. */
static void room_look(struct room *r)
{
    if (!r->lives || !overdue(r, r->perhaps_used) ||
        rt_group_name(m.loop, r->h))
        return;
    sim_note("room %d expired", r->id);
    saw.expired_rooms++;
    model_close(r);
}

/* How many there are now.  A callback may come behind the timers of its own
   turn, before anybody has looked, so each one is looked at first. */
static int rooms_living(void)
{
    int i, n = 0;

    for (i = 0; i < m.room_count; i++) {
        room_look(&m.rooms[i]);
        n += m.rooms[i].lives;
    }
    return n;
}

static struct room *room_named(int name)
{
    int i;

    for (i = m.room_count; i-- > 0;) {
        if (m.rooms[i].lives && m.rooms[i].name == name)
            return &m.rooms[i];
    }
    return NULL;
}

/* ---- what a group remembers --------------------------------------------- */

static int remembers(const struct room *r)
{
    return r->o.history > 0 || r->o.history_bytes > 0 || r->o.history_ms > 0;
}

/* How many of its messages are forgotten by now: all but the newest that fit
   into each of its limits. */
static size_t forgotten(const struct room *r)
{
    size_t i = r->sent, bytes = 0;
    const rt_group_opts *o = &r->o;

    if (!remembers(r))
        return r->sent;
    while (i > r->gone) {
        const struct past *p = &r->past[i - 1];
        bytes += m.messages[p->g].len;
        if ((o->history > 0 && r->sent - i >= (size_t)o->history) ||
            (o->history_bytes > 0 && bytes > (size_t)o->history_bytes) ||
            (o->history_ms > 0 &&
             sim_now() - p->when > (uint64_t)o->history_ms))
            return i;
        i--;
    }
    return i;
}

/* The group was used in a way that lets fall what is too much. */
static void model_trimmed(struct room *r)
{
    size_t n = remembers(r) ? forgotten(r) : 0;

    r->evict = n > r->evict ? n : r->evict;
}

/* One more that has an offset.  If memory was refused meanwhile, all up to
   here may be forgotten: it shows when someone asks. */
static void model_remember(struct room *r, uint32_t g)
{
    r->past = more(r->past, r->sent, &r->cap, sizeof *r->past);
    r->past[r->sent].g = g;
    r->past[r->sent].when = sim_now();
    r->sent++;
    m.messages[g].room = r->id;
    m.messages[g].offset = r->sent;
    if (m.fails && remembers(r))
        push(&r->perhaps, (uint32_t)r->sent);
    model_trimmed(r);
}

/* It shows: all up to the first of these moments from there on is gone, or, at
   the latest, up to one behind it.  0: there is none. */
static int model_gone(struct room *r, size_t from)
{
    size_t i = 0;

    while (i < r->perhaps.len && r->perhaps.at[i] < from)
        i++;
    if (i == r->perhaps.len)
        return 0;
    saw.lost_for_memory++;
    r->gone = r->perhaps.at[i];
    r->perhaps.len -= i + 1;
    memmove(r->perhaps.at, r->perhaps.at + i + 1,
            r->perhaps.len * sizeof *r->perhaps.at);
    return 1;
}

/* It shows that all behind there is still remembered. */
static void model_kept(struct room *r, size_t from)
{
    while (r->perhaps.len && r->perhaps.at[r->perhaps.len - 1] > from)
        r->perhaps.len--;
}

/* ---- what a session must hear ------------------------------------------- */

static void promise(struct sess *s, uint32_t g)
{
    if (reliable(g)) {
        push(&s->m, g);
        push(&s->any, 0);
        return;
    }
    s->empties += m.messages[g].verb == 'E';
    push(&s->u, g);
    push(&s->at, (uint32_t)s->m.len);
}

/* Its first place in a list. */
static int in_list(const struct list *l, uint32_t value, size_t *at)
{
    size_t i;

    for (i = 0; i < l->len; i++) {
        *at = i;
        if (l->at[i] == value)
            return 1;
    }
    return 0;
}

static void hear_other(struct sess *s, uint32_t g)
{
    int key = m.messages[g].key;
    size_t i = 0;

    if (!in_list(&s->u, g, &i))
        sim_fault("client %d: %u was never sent to it", s->id, g);
    else if (s->at.at[i] > s->got)
        sim_fault("client %d: %u passed a message: %zu came of %u", s->id, g,
                  s->got, s->at.at[i]);
    if (m.messages[g].verb == 'D') {
        if (g <= s->drop_got)
            sim_fault("client %d: droppable %u after %u", s->id, g,
                      s->drop_got);
        s->drop_got = g;
        return;
    }
    saw.keys++;
    if (g < s->key_got[key])
        sim_fault("client %d: key %d goes from %u to %u", s->id, key,
                  s->key_got[key], g);
    s->key_got[key] = g;
}

/* Is g the next of those that come in order?  Where the order is open, it is
   put there. */
static int next_is(struct sess *s, uint32_t g)
{
    size_t i = s->got;
    uint32_t *at = s->m.at;

    if (i >= s->m.len)
        return 0;
    while (at[i] != g && s->any.at[i] && i + 1 < s->m.len &&
           s->any.at[i + 1] == s->any.at[i])
        i++;
    if (at[i] != g)
        return 0;
    at[i] = at[s->got];
    at[s->got] = g;
    return 1;
}

static void hear_next(struct sess *s, uint32_t g)
{
    int key = m.messages[g].key;

    if (!next_is(s, g))
        sim_fault("client %d: message %u came, number %zu of %zu is %u", s->id,
                  g, s->got + 1, s->m.len,
                  s->got < s->m.len ? s->m.at[s->got] : 0);
    if (keyed(g) && s->key_got[key] < g)
        s->key_got[key] = g;
    s->got++;
}

/* lane: m or u; 0 where the line does not tell. */
static void hear(struct sess *s, char lane, int op, const void *data,
                 size_t len)
{
    uint32_t g = message_find(op, data, len);
    size_t *seen;

    sim_upcall((uint32_t)(SESSIONS + s->id), 'h', g);
    sim_note("client %d hears %u", s->id, g);
    if (!g) {
        if (len || lane == 'm' || s->empties <= 0)
            sim_fault("client %d hears what nobody said: %.30s", s->id,
                      len ? (const char *)data : "nothing");
        s->empties -= s->kind != RESUMES; /* which may hear it again */
        return;
    }
    if (m.messages[g].room >= 0) {
        seen = &s->seen[m.messages[g].room];
        *seen = m.messages[g].offset > *seen ? m.messages[g].offset : *seen;
    }
    if (lane == 'm' || (reliable(g) && !lane) || (!lane && next_is(s, g)))
        hear_next(s, g);
    else if (reliable(g))
        sim_fault("client %d: %u came as if it were of no weight", s->id, g);
    else
        hear_other(s, g);
}

/* ---- snapshots, idempotent sends, limits ----------------------------------
 */

/* A group was sent a message: is it the newest of its key? */
static void model_latest(struct room *r, uint32_t g)
{
    size_t i = 0;

    if (!keyed(g) || r->o.snapshot <= 0 || m.messages[g].kind & RT_NO_HISTORY)
        return;
    while (i < r->latest.len &&
           m.messages[r->latest.at[i]].key != m.messages[g].key)
        i++;
    saw.keys_forgotten += i < r->latest.len && m.messages[g].verb == 'E';
    if (i == r->latest.len && m.messages[g].verb != 'E' &&
        r->latest.len == (size_t)r->o.snapshot) {
        saw.keys_too_many++;
        i = 0;
    }
    if (i < r->latest.len)
        memmove(r->latest.at + i, r->latest.at + i + 1,
                (--r->latest.len - i) * sizeof *r->latest.at);
    if (m.messages[g].verb != 'E')
        push(&r->latest, g);
}

/* Each comes as a reliable one, and once more where an older value may be
   waiting.  any: in any order with others of that number. */
static void model_snapshot(struct room *r, struct sess *s, uint32_t any)
{
    size_t i;

    saw.snapshots += r->latest.len > 0;
    for (i = 0; i < r->latest.len; i++) {
        push(&s->m, r->latest.at[i]);
        push(&s->any, any);
        push(&s->u, r->latest.at[i]);
        push(&s->at, (uint32_t)s->m.len);
    }
}

/* The key's first use, if it counts still. */
static const struct once *once_known(const struct room *r, int key)
{
    uint64_t ms = r->o.once_ms > 0 ? (uint64_t)r->o.once_ms : 300000;
    size_t most = r->o.once_max > 0 ? (size_t)r->o.once_max : 1024, i;

    for (i = r->once_count; i-- > 0;) {
        if (r->once[i].key != key)
            continue;
        if (r->o.once_max >= 0 && r->once_count - i > most)
            return NULL;
        if (r->o.once_ms < 0 || sim_now() - r->once[i].when < ms)
            return &r->once[i];
        saw.once_too_late++;
        return NULL;
    }
    return NULL;
}

static void once_used(struct room *r, int key)
{
    struct once *o = &r->once[r->once_count++];

    o->key = key;
    o->when = sim_now();
    o->at.epoch = r->o.upstream > 0 ? 0 : r->epoch;
    o->at.offset = r->o.upstream > 0 ? 0 : r->sent;
}

static uint64_t level(const struct bucket *b, int rate)
{
    uint64_t leaked = (sim_now() - b->at) * (uint64_t)rate;

    return b->level > leaked ? b->level - leaked : 0;
}

static int overflows(const struct bucket *b, int rate, int burst, size_t cost)
{
    uint64_t size = (uint64_t)(burst ? burst : rate) * 1000;

    return rate > 0 && burst >= 0 && level(b, rate) > 0 &&
           level(b, rate) + cost * 1000 > size;
}

static void fill(struct bucket *b, int rate, size_t cost)
{
    b->level = level(b, rate) + cost * 1000;
    b->at = sim_now();
}

/* Is one more message of that size too many? */
static int over_rate(const struct room *r, size_t len)
{
    const rt_group_opts *o = &r->o;
    size_t n = r->passed_count, limit = (size_t)o->rate_limit;
    uint64_t ms = (uint64_t)(o->rate_ms ? o->rate_ms : 1000);

    if (o->rate_limit > 0 && n >= limit &&
        sim_now() - r->passed[n - limit] < ms)
        return 1;
    return overflows(&r->messages, o->message_rate, o->message_burst, 1) ||
           overflows(&r->bytes, o->byte_rate, o->byte_burst, len);
}

static void model_passed(struct room *r, size_t len)
{
    r->passed =
        more(r->passed, r->passed_count, &r->passed_cap, sizeof *r->passed);
    r->passed[r->passed_count++] = sim_now();
    if (r->o.message_rate > 0)
        fill(&r->messages, r->o.message_rate, 1);
    if (r->o.byte_rate > 0)
        fill(&r->bytes, r->o.byte_rate, len);
}

/* ---- the scripts: their wire -------------------------------------------- */

static void say(struct sess *s, const char *text)
{
    sim_note("client %d says %s", s->id, text);
    ws_send(s->ws, WS_TEXT, text, strlen(text));
}

static void acknowledge(struct sess *s)
{
    char text[32];

    snprintf(text, sizeof text, "a%zu", s->got);
    say(s, text);
}

static void greet(struct sess *s)
{
    char text[80];

    s->hello = 1;
    snprintf(text, sizeof text, "h");
    if (s->token[0])
        snprintf(text, sizeof text, "h%s %zu %u", s->token, s->got,
                 ++s->attempt);
    say(s, text);
}

/* May the server have forgotten one? */
static int ring_over(const struct sess *s)
{
    size_t i, bytes = 0;

    for (i = s->sure; i < s->m.len; i++)
        bytes += m.messages[s->m.at[i]].len;
    return s->m.len - s->sure > RING_COUNT || bytes > RING_BYTES;
}

static void welcome_back(struct sess *s, const char *status, size_t base)
{
    int gap = strcmp(status, "gap") == 0;

    if (gap &&
        (base <= s->got || base > s->m.len || (!m.short_of && !ring_over(s))))
        sim_fault("client %d has %zu of %zu, gap to %zu", s->id, s->got,
                  s->m.len, base);
    if (!gap && base != s->got)
        sim_fault("client %d has %zu, the server goes on after %zu", s->id,
                  s->got, base);
    s->got = s->sure = base;
}

static void welcome_in(struct sess *s, const char *text)
{
    char token[24], who[24], status[12];
    unsigned long long received, base, ping;

    sim_note("client %d is told w%s", s->id, text);
    if (sscanf(text, "%23s %23s %llu %llu %11s %llu", token, who, &received,
               &base, status, &ping) != 6) {
        sim_fault("client %d: not a welcome: %s", s->id, text);
        return;
    }
    if (strcmp(status, "new") != 0)
        welcome_back(s, status, (size_t)base);
    else if (s->token[0])
        s->over = 1; /* its session is no more */
    snprintf(s->token, sizeof s->token, "%s", token);
    s->attempt = 0;
    s->phase = TALKING;
    acknowledge(s);
    if (s->over)
        ws_close(s->ws, 1000);
}

static void typed_in(struct sess *s, int op, const uint8_t *data, size_t len)
{
    char text[132];

    if (data[0] == 'w' && s->phase == GREETING) {
        snprintf(text, sizeof text, "%.*s", (int)len - 1,
                 (const char *)data + 1);
        welcome_in(s, text);
        return;
    }
    if (data[0] == 'a' || s->over)
        return;
    hear(s, (char)data[0], op, data + 1, len - 1);
    if (data[0] == 'm' && (m.settling || !sim_choose(4)))
        acknowledge(s);
}

static void on_frame(ws_peer *w, int op, const uint8_t *data, size_t len)
{
    struct sess *s = w->user;

    if (!s || sim_faults() || (op != WS_TEXT && op != WS_BINARY))
        return;
    if (s->kind == RESUMES && !len)
        sim_fault("client %d: a message without a type", s->id);
    else if (s->kind == RESUMES)
        typed_in(s, op, data, len);
    else
        hear(s, 0, op, data, len);
}

/* ---- the scripts: their lines ------------------------------------------- */

static void line_over(struct sess *s)
{
    ws_free(s->ws);
    s->ws = NULL;
    s->phase = IDLE;
    s->hello = s->stalled = 0;
    s->excused = 1;
    s->over |= !s->token[0]; /* else it comes back */
}

/* Nobody is at this end any more, but the other does not know. */
static void line_haunt(struct sess *s)
{
    ws_peer *w = s->ws;

    if (m.ghost_count == GHOSTS) {
        line_over(s);
        return;
    }
    s->ws = NULL;
    w->user = NULL;
    w->reads = 0;
    m.ghosts[m.ghost_count++] = w;
    s->haunted = 1;
    s->phase = IDLE;
    s->hello = s->stalled = 0;
    s->excused = 1;
    s->over |= !s->token[0];
}

static void ghosts_free(uint32_t one_of)
{
    int i;

    for (i = m.ghost_count; i-- > 0;) {
        if (sim_choose(one_of))
            continue;
        ws_free(m.ghosts[i]);
        m.ghosts[i] = m.ghosts[--m.ghost_count];
    }
}

static void line_connect(struct sess *s)
{
    char text[400];

    s->ws = ws_connect_silent(PORT);
    if (!s->ws)
        return;
    s->ws->user = s;
    s->ws->on = on_frame;
    s->phase = s->kind == RESUMES ? GREETING : TALKING;
    snprintf(text, sizeof text,
             "GET /%d HTTP/1.1\r\nHost: game\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n%s"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
             s->id,
             s->kind == RESUMES ? "Sec-WebSocket-Protocol: rtnet.1\r\n" : "");
    ws_raw(s->ws, text, strlen(text));
    sim_note("client %d connects", s->id);
}

static int comes_back(int code)
{
    return code == 1001 || code == 1005 || code == 1006 || code == 1011 ||
           (code >= 1013 && code <= 1015) || (code >= 4000 && code < 4500);
}

/* The line is gone, or a close came.  Behind the host's own close nothing of
   what was promised may be missing. */
static void line_end(struct sess *s, int code)
{
    sim_note("client %d loses its line: %d", s->id, code);
    if (code == BYE && s->code == BYE && s->got != s->m.len && !m.short_of)
        sim_fault("client %d: closed after %zu of %zu", s->id, s->got,
                  s->m.len);
    if (code == RT_CLOSE_STALE)
        s->attempt += 2;
    s->over |= !comes_back(code);
    line_over(s);
}

static void script_pump(struct sess *s)
{
    int code;

    if (s->kind == DIALLED && !s->ws && !s->over) {
        s->ws = ws_accept(DIAL_PORT + s->id);
        if (!s->ws)
            return;
        s->ws->user = s;
        s->ws->on = on_frame;
        s->phase = TALKING;
    }
    if (!s->ws)
        return;
    ws_pump(s->ws);
    if (s->kind == RESUMES && s->ws->open && !s->hello)
        greet(s);
    code = s->ws->close_code;
    if (code || !s->ws->line)
        line_end(s, code ? code : 1006);
}

static void stall(struct sess *s, int on)
{
    if (!s->ws || !s->ws->line)
        return;
    s->stalled = on;
    s->excused |= on;
    s->ws->reads = !on;
    sim_peer_window(s->ws->line, on ? sim_choose(2) * 1000 : 65536);
}

static struct sess *sess_new(enum kind kind)
{
    struct sess *s = &m.sess[m.sess_count];

    if (m.sess_count == SESSIONS)
        return NULL;
    memset(s, 0, sizeof *s);
    s->id = m.sess_count++;
    s->kind = kind;
    return s;
}

static const rt_handler handler;

static void dial(struct sess *s)
{
    rt_dial_opts o = {.on = handler, .user = s};
    char url[64];

    o.soft_mark = m.soft;
    o.hard_mark = m.hard;
    sim_serve(DIAL_PORT + s->id);
    snprintf(url, sizeof url, "ws://127.0.0.1:%d/", DIAL_PORT + s->id);
    s->h = rt_dial(m.loop, url, &o);
    if (!s->h.id)
        s->over = 1;
}

static void client_new(void)
{
    struct sess *s;

    s = sess_new(m.crowded && sim_choose(4) ? PLAIN
                                            : (enum kind)(sim_choose(5) % 3));

    if (!s)
        return;
    if (s->kind == DIALLED)
        dial(s);
    else
        line_connect(s);
}

static void client_acts(struct sess *s)
{
    uint32_t x = sim_choose(24);

    if (s->over)
        return;
    if (!s->ws) {
        if (s->kind == RESUMES && sim_choose(2))
            line_connect(s);
        return;
    }
    if (x < 5)
        stall(s, 1);
    else if (x < 9)
        stall(s, 0);
    else if (x < 12 && s->kind == RESUMES)
        line_haunt(s);
    else if (x == 12 || (x < 15 && s->kind == RESUMES))
        line_over(s);
    else if (x == 15 && s->ws->open && !sim_choose(4))
        s->excused = 1, ws_close(s->ws, 1000);
    else if (s->phase == TALKING && s->ws->open && !s->ws->close_sent)
        say(s, s->kind == RESUMES ? "mhello" : "hello");
}

/* Mostly one that lives. */
static struct room *any_room(void)
{
    struct room *r = room_named((int)sim_choose(NAMES));

    if (r && sim_choose(16))
        return r;
    return &m.rooms[sim_choose((uint32_t)m.room_count)];
}

static struct sess *any_sess(void)
{
    return &m.sess[sim_choose((uint32_t)m.sess_count)];
}

/* ---- the host's calls --------------------------------------------------- */

static void call_begins(void)
{
    m.fails = 0;
}

/* True where memory was refused in this call and the answer says so. */
static int weakness(int answer)
{
    saw.no_memory += m.fails && answer == RT_ENOMEM;
    return m.fails && answer == RT_ENOMEM;
}

static void must(const char *what, const struct room *r, long long answer,
                 long long want)
{
    sim_upcall(HOST, 'r', (uint64_t)answer);
    if (answer != want && !weakness((int)answer))
        sim_fault("%s of room %d: %lld, not %lld", what, r->id, answer, want);
}

static void room_options(rt_group_opts *o);
static void on_event(rt_loop *l, rt_group g, rt_session h, int what);

/* The group of that name is expected to be this one, or none. */
static void open_new(int name, rt_group_opts *o)
{
    struct room *r = &m.rooms[m.room_count];
    int i, n = rooms_living();

    if (m.room_count == ROOMS)
        return;
    memset(r, 0, sizeof *r);
    r->id = m.room_count;
    o->user = r;
    call_begins();
    r->h = rt_group_open(m.loop, name_of(name), o);
    sim_note("room %d: %s opens", r->id, name_of(name));
    if (!r->h.id && n >= m.max_groups) {
        saw.full_names++;
        must("opening", r, rt_error(m.loop, NULL), RT_EFULL);
        return;
    }
    if (!r->h.id) {
        must("opening", r, rt_error(m.loop, NULL), RT_ENOMEM);
        return;
    }
    if (n >= m.max_groups)
        sim_fault("a group too many");
    for (i = 0; i < m.room_count; i++) {
        saw.reopened += m.rooms[i].name == name;
        if (m.rooms[i].h.id == r->h.id)
            sim_fault("room %d has the handle of room %d", r->id, i);
    }
    m.room_count++;
    r->lives = 1;
    r->name = name;
    r->o = *o;
    room_used(r);
    r->epoch = rt_group_position(m.loop, r->h).epoch;
    for (i = 0; i < r->id; i++) {
        if (m.rooms[i].epoch == r->epoch || !r->epoch)
            sim_fault("room %d has the epoch of room %d", r->id, i);
    }
}

static void host_opens(void)
{
    int name = (int)sim_choose(NAMES);
    struct room *r = room_named(name);
    rt_group_opts o;
    rt_group h;

    room_options(&o);
    if (r)
        room_look(r);
    if (!r || !r->lives) {
        open_new(name, &o);
        return;
    }
    o.user = NULL;
    h = rt_group_open(m.loop, name_of(name), sim_choose(2) ? &o : NULL);
    if (h.id != r->h.id)
        sim_fault("room %d is opened twice", r->id);
    room_used(r);
}

static void host_closes_room(struct room *r)
{
    room_look(r);
    sim_note("the host closes room %d, %d are in", r->id, r->count);
    saw.closed_with_members += r->count > 0;
    saw.closed_in_callback += m.depth > 0;
    saw.stale_rooms += !r->lives;
    must("closing", r, rt_group_close(m.loop, r->h), r->lives ? 0 : RT_EGONE);
    if (r->lives)
        model_close(r);
}

/* What joining must answer. */
static int join_answer(const struct room *r, const struct sess *s)
{
    if (!r->lives || s->state == ENDED || s->state == GONE || !s->h.id)
        return RT_EGONE;
    if (s->state == UNBORN)
        return rt_state(m.loop, s->h) == RT_OPENING ? RT_ESTATE : RT_EGONE;
    if (r->in[s->id])
        return RT_EEXIST;
    if ((r->o.max_members > 0 && r->count >= r->o.max_members) ||
        seats_of(s) >= m.seats)
        return RT_EFULL;
    return 0;
}

static void count_join(const struct room *r, const struct sess *s, int want)
{
    saw.joins += !want;
    saw.joins_twice += want == RT_EEXIST;
    saw.full_rooms += want == RT_EFULL && seats_of(s) < m.seats;
    saw.full_seats += want == RT_EFULL && seats_of(s) >= m.seats;
    saw.stale_rooms += !r->lives;
    saw.stale_sessions += s->state == GONE;
}

/* The session took a seat, though what it was then given may have ended it. */
static int took_seat(struct room *r, struct sess *s, int answer)
{
    if (answer < 0 && answer != RT_EREFUSED &&
        rt_state(m.loop, s->h) != RT_CLOSING)
        return 0;
    model_join(r, s);
    model_snapshot(r, s, 0);
    notice();
    if (s->state != ENDED)
        return 1;
    s->slow = 1;
    saw.replays_cut_short++;
    if (s->kind == RESUMES && !m.short_of)
        sim_fault("session %d can resume, and was ended by a replay", s->id);
    if (answer != RT_EFULL && !(m.short_of && answer < 0))
        sim_fault("session %d was ended by joining room %d: %d", s->id, r->id,
                  answer);
    return 1;
}

static void host_joins(struct room *r, struct sess *s)
{
    int want, answer;

    room_look(r);
    want = join_answer(r, s);
    call_begins();
    answer = rt_group_join(m.loop, r->h, s->h);
    sim_note("session %d joins room %d: %d", s->id, r->id, answer);
    count_join(r, s, want);
    if (want || !took_seat(r, s, answer) || s->state == ALIVE)
        must("joining", r, answer, want);
}

/* A place to join from, right or wrong; NULL: all there is. */
static rt_position *place(struct room *r, struct sess *s, rt_position *p)
{
    size_t first = forgotten(r);

    p->epoch = r->epoch;
    switch (sim_choose(12)) {
    case 0:
        return NULL;
    case 1:
    case 2:
        p->offset = s->seen[r->id];
        break;
    case 3:
        p->offset = first;
        break;
    case 4:
        p->offset = first ? first - 1 : 0;
        break;
    case 5:
        p->offset = r->sent;
        break;
    case 6:
        p->offset = r->sent + 1 + sim_choose(3);
        break;
    case 7:
        p->epoch = m.rooms[sim_choose((uint32_t)m.room_count)].epoch;
        p->offset = r->sent - sim_choose(2) * (r->sent - first);
        break;
    case 8:
        p->epoch = sim_choose(2) ? 0 : p->epoch;
        p->offset = sim_choose(2) ? 0 : UINT64_MAX;
        break;
    default:
        p->offset = sim_choose((uint32_t)r->sent + 1);
    }
    return p;
}

/* The first that a join from p must replay, counted from 0; -1: none, it is
   refused. */
static long replay_from(const struct room *r, const rt_position *p)
{
    size_t first = forgotten(r);

    if (!p)
        return (long)first;
    saw.other_epochs += p->epoch != r->epoch;
    saw.futures += p->offset > r->sent;
    if (p->epoch != r->epoch || p->offset > r->sent)
        return -1;
    if (p->offset >= first)
        return (long)p->offset;
    saw.too_old++;
    saw.too_old_by_age +=
        r->o.history_ms > 0 && r->o.history <= 0 && r->o.history_bytes <= 0;
    return -1;
}

/* With less memory there may be less to replay, but it must be said. */
static long replay_weaker(struct room *r, const rt_position *p, long from,
                          int answer)
{
    size_t first = r->sent - (size_t)(answer < 0 ? 0 : answer);

    if (from < 0)
        return -1;
    if (p && answer == RT_EREFUSED && model_gone(r, (size_t)from + 1))
        return -1;
    if (p || (size_t)from >= first) {
        model_kept(r, (size_t)from);
        return from;
    }
    while (r->gone < first && model_gone(r, r->gone + 1))
        ;
    model_kept(r, first);
    return r->gone == first ? (long)first : from;
}

/* What was replayed stands behind what the session was promised before. */
static void replayed(struct room *r, struct sess *s, long from, int answer)
{
    long i, n = (long)r->sent - from;

    saw.replays += n > 0;
    saw.replays_of_nothing += !n;
    if (s->state == ALIVE &&
        (answer > n || (answer < n && !m.fails) || answer < 0))
        sim_fault("session %d joins room %d: %d were replayed, not %ld", s->id,
                  r->id, answer, n);
    for (i = 0; i < n; i++)
        promise(s, r->past[from + i].g);
}

static void host_sends_to(struct room *r, uint32_t g);

static void host_joins_from(struct room *r, struct sess *s,
                            const rt_position *p)
{
    int want, answer;
    long from = -1;
    uint32_t weak = m.weak;

    room_look(r);
    want = join_answer(r, s);
    if (!want)
        from = replay_from(r, p);
    call_begins();
    if (r->perhaps.len)
        m.weak = 0; /* one uncertainty at a time */
    s->unsent = (size_t)rt_unsent(m.loop, s->h);
    answer = rt_group_join_from(m.loop, r->h, s->h, p);
    m.weak = weak;
    sim_note("session %d joins room %d from %lld of %zu..%zu: %d", s->id, r->id,
             p ? (long long)p->offset : -1, forgotten(r), r->sent, answer);
    count_join(r, s, want);
    if (want || !took_seat(r, s, answer)) {
        must("joining", r, answer, want);
        return;
    }
    saw.replays_of_all += !p;
    model_trimmed(r);
    if (s->state == ALIVE)
        from = replay_weaker(r, p, from, answer);
    if (from >= 0)
        replayed(r, s, from, answer);
    else if (s->state == ALIVE)
        must("joining", r, answer, RT_EREFUSED);
    if (sim_choose(2) == 0 && from >= 0 && s->state == ALIVE) {
        saw.live_behind_replays++;
        host_sends_to(r, message_new(r->name));
    }
}

static void host_leaves(struct room *r, struct sess *s)
{
    int want = join_answer(r, s), answer;

    room_look(r);
    want = r->in[s->id]                    ? 0
           : want == RT_EGONE || !r->lives ? RT_EGONE
                                           : RT_ESTATE;
    m.batch++;
    call_begins();
    answer = rt_group_leave(m.loop, r->h, s->h);
    must("leaving", r, answer, want);
    sim_note("session %d leaves room %d: %d", s->id, r->id, answer);
    if (!answer)
        model_leave(r, s);
}

/* ---- the host's calls: sending ------------------------------------------ */

static void before(struct sess *s, int gets)
{
    s->before = gets && s->state == ALIVE;
    s->unsent = (size_t)rt_unsent(m.loop, s->h);
    s->was_away = rt_state(m.loop, s->h) == RT_AWAY;
}

/* Will it surely take one that may be skipped? */
static int surely_takes(const struct sess *s, uint32_t g)
{
    if (m.fails || m.messages[g].len > (size_t)m.soft / 2)
        return 0;
    if (s->was_away)
        return keyed(g);
    return s->unsent == 0;
}

/* Will it surely not? */
static int surely_skips(const struct sess *s, uint32_t g)
{
    return m.messages[g].verb == 'D' &&
           (s->was_away || s->unsent > (size_t)m.soft);
}

/* A session was sent one and lives: it will hear it, or may. */
static void after_one(struct sess *s, uint32_t g, int surely)
{
    int key = m.messages[g].key;

    promise(s, g);
    if (m.messages[g].verb == 'E')
        s->key_must[key] = 0; /* one cannot tell which one comes */
    else if (keyed(g) && surely)
        s->key_must[key] = g;
}

/* A session ended while it was sent g, once or several times: of these the
   last one ended it. */
static int ended_by(struct sess *s, uint32_t g)
{
    int took = s->before - 1;

    s->slow = 1;
    saw.slow_ends++;
    if (((!s->unsent && !took) || s->kind == RESUMES || !reliable(g)) &&
        !m.short_of)
        sim_fault("session %d was ended by message %u", s->id, g);
    for (; s->before > 1; s->before--)
        promise(s, g);
    return took;
}

/* After a call that sent g to many: who took it? */
static void after_many(const char *what, uint32_t g, int answer)
{
    struct sess *s;
    int least = 0, most = 0;

    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (!s->before)
            continue;
        if (s->state != ALIVE) {
            most += ended_by(s, g);
            continue;
        }
        if (surely_skips(s, g)) {
            s->before = 0;
            continue;
        }
        most += s->before;
        if (reliable(g) ? !m.fails : surely_takes(s, g))
            least += s->before;
        saw.slow_aways += !s->was_away && rt_state(m.loop, s->h) == RT_AWAY;
    }
    sim_note("%s %u: %d", what, g, answer);
    saw.skipped_droppables += answer < most;
    if (answer < least || answer > most)
        sim_fault("%s %u: %d took it, not %d..%d", what, g, answer, least,
                  most);
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        for (; s->before && s->state == ALIVE; s->before--)
            after_one(s, g, !m.fails && (answer == most || surely_takes(s, g)));
    }
}

enum how { SEND, SEND_BUT, DELIVER, SEND_ONCE };

/* What a send is asked for, besides its message. */
struct ask {
    enum how how;
    const struct sess *but;
    int key;
};

static const char *key_text(int key)
{
    static char text[256];

    memset(text, 'k', sizeof text);
    text[key == 5 ? 255 : 1 + key] = 0;
    return text;
}

static int send_call(const struct ask *a, struct room *r, uint32_t g,
                     rt_position *at)
{
    size_t len;
    const char *text = message_text(g, &len);
    int kind = m.messages[g].kind;

    switch (a->how) {
    case SEND:
        return rt_group_send(m.loop, r->h, kind, text, len);
    case SEND_BUT:
        return rt_group_send_but(m.loop, r->h, a->but->h, kind, text, len);
    case DELIVER:
        return rt_group_deliver(m.loop, name_of(r->name), kind, text, len);
    case SEND_ONCE:
        return rt_group_send_once(m.loop, r->h, key_text(a->key), kind, text,
                                  len, at);
    }
    return 0;
}

/* It was refused, with this error, and so had no effect. */
static int send_refused(struct room *r, int want, int answer, int untold)
{
    if (want) {
        must("sending", r, answer, want);
        return 1;
    }
    if (!weakness(answer))
        return 0;
    m.untold = untold; /* it was not to be told */
    r->used = sim_now();
    return 1;
}

static void send_done(const struct ask *a, struct room *r, uint32_t g, int here)
{
    m.batch++;
    if (a->how != DELIVER) {
        note_due(OUT, r->name, g);
        model_passed(r, m.messages[g].len);
    }
    saw.delivered += a->how == DELIVER;
    room_used(r);
    if (!here)
        return;
    if (m.messages[g].verb == 'R')
        model_remember(r, g);
    model_latest(r, g);
}

/* Sends g to a group that lives. */
static void send_live(const struct ask *a, struct room *r, uint32_t g)
{
    const struct once *known = NULL;
    struct sess *s;
    rt_position at = {1, 1};
    int here = a->how == DELIVER || r->o.upstream <= 0;
    int want = 0, answer, untold = m.untold;

    for (s = m.sess; s < m.sess + m.sess_count; s++)
        before(s, here && r->in[s->id] && (a->how != SEND_BUT || s != a->but));
    if (a->how != DELIVER && over_rate(r, m.messages[g].len))
        want = RT_EREFUSED;
    saw.over_the_rate += want != 0;
    if (a->how == SEND_ONCE && (known = once_known(r, a->key)) != NULL)
        want = RT_EEXIST;
    call_begins();
    answer = send_call(a, r, g, &at);
    saw.once_again += known != NULL;
    if (known && (at.epoch != known->at.epoch || at.offset != known->at.offset))
        sim_fault("room %d: a key's message was at %llu", r->id,
                  (unsigned long long)at.offset);
    if (send_refused(r, want, answer, untold))
        return;
    send_done(a, r, g, here);
    if (a->how == SEND_ONCE) {
        once_used(r, a->key);
        known = &r->once[r->once_count - 1];
        if (at.epoch != known->at.epoch || at.offset != known->at.offset)
            sim_fault("room %d: the message of a key is at %llu", r->id,
                      (unsigned long long)at.offset);
    }
    notice();
    after_many(a->how == DELIVER ? "delivering" : "sending", g, answer);
}

static void host_sends_to(struct room *r, uint32_t g)
{
    struct ask a = {SEND, NULL, 0};

    if (!g)
        return;
    a.how = (enum how)(sim_choose(6) % 3);
    a.but = any_sess();
    a.key = (int)sim_choose(6);
    if (EXTRAS && r->once_count < ONCE && !sim_choose(5))
        a.how = SEND_ONCE;
    room_look(r);
    if (a.how == DELIVER && !r->lives && room_named(r->name))
        r = room_named(r->name);
    room_look(r);
    sim_note("the host sends %u, %c, to room %d, way %d", g, m.messages[g].verb,
             r->id, (int)a.how);
    if (r->lives) {
        send_live(&a, r, g);
        return;
    }
    saw.stale_rooms++;
    must("sending", r, send_call(&a, r, g, NULL), RT_EGONE);
}

/* What may not be sent has no effect, not even on its key. */
static void host_errs(struct room *r)
{
    int want, answer, key = (int)sim_choose(6);

    room_look(r);
    switch (r->lives ? sim_choose(3) : 0) {
    case 0:
        want = r->lives ? RT_EUTF8 : RT_EGONE;
        answer = rt_group_send(m.loop, r->h, RT_TEXT, "\xc0\x80", 2);
        break;
    case 1:
        want = once_known(r, key) ? RT_EEXIST : RT_EUTF8;
        answer = rt_group_send_once(m.loop, r->h, key_text(key), RT_TEXT,
                                    "\xc0\x80", 2, NULL);
        break;
    default:
        want = RT_EINVAL;
        answer = rt_group_deliver(m.loop, name_of(r->name), 0x8000 | RT_TEXT,
                                  "x", 1);
    }
    must("sending wrongly", r, answer, want);
}

static void host_sends_many(uint32_t g)
{
    rt_session to[12];
    struct sess *s;
    size_t len, n = 0;
    uint32_t i = sim_choose(12);
    const char *text;
    int answer;

    if (!g)
        return;
    for (s = m.sess; s < m.sess + m.sess_count; s++)
        before(s, 0);
    for (; i > 0; i--) {
        s = any_sess();
        if (s->before && !reliable(g))
            continue;
        to[n++] = s->h;
        s->before += s->state == ALIVE;
    }
    call_begins();
    text = message_text(g, &len);
    answer = rt_send_many(m.loop, to, n, m.messages[g].kind, text, len);
    notice();
    after_many("sending to many", g, answer);
}

/* A group with a member that is away, if there is one. */
static struct room *room_of_absent(struct room *r)
{
    int i, k;

    for (i = 0; i < m.room_count; i++) {
        for (k = 0; k < m.sess_count; k++) {
            if (m.rooms[i].in[k] && m.sess[k].told_away)
                return &m.rooms[i];
        }
    }
    return r;
}

/* More than a session that is away can keep. */
static void host_bursts(struct room *r)
{
    uint32_t n = sim_choose(220);

    r = room_of_absent(r);
    for (; r->lives && n > 0 && m.serial < MESSAGES / 2; n--)
        host_sends_to(r, message_new(r->name));
}

static void host_sends_one(struct sess *s, uint32_t g)
{
    size_t len;
    const char *text;
    int answer;

    if (!g || s->state == UNBORN)
        return;
    call_begins();
    before(s, 1);
    text = message_text(g, &len);
    answer = rt_send(m.loop, s->h, m.messages[g].kind, text, len);
    sim_note("session %d is sent %u: %d", s->id, g, answer);
    if (!s->before) {
        if (answer != RT_EGONE)
            sim_fault("rt_send to session %d, which is over: %d", s->id,
                      answer);
        return;
    }
    notice();
    if (answer == RT_EFULL && s->state == ENDED)
        s->slow = 1, saw.slow_ends++;
    if (answer >= 0 && s->state == ALIVE)
        after_one(s, g, 1);
    else if (answer != RT_EFULL && !weakness(answer) && !m.short_of)
        sim_fault("rt_send to session %d: %d", s->id, answer);
}

/* ---- the host's calls: ends --------------------------------------------- */

static void host_ends(struct sess *s)
{
    int want = s->state == ALIVE ? 0 : RT_EGONE;
    int answer;

    if (s->state == UNBORN)
        return;
    answer = rt_close(m.loop, s->h, BYE, "bye");
    sim_note("the host ends session %d: %d", s->id, answer);
    if (answer != want)
        sim_fault("rt_close of session %d: %d", s->id, answer);
    if (answer)
        return;
    s->code = BYE;
    m.batch++;
    model_end(s);
}

static void host_drops(struct sess *s)
{
    if (s->state != ALIVE)
        return;
    sim_note("the host drops session %d", s->id);
    s->excused = 1;
    rt_drop(m.loop, s->h, 4100, "drop");
    notice();
}

static void check_members(struct room *r)
{
    rt_session out[SESSIONS + 1];
    size_t n = rt_group_members(m.loop, r->h, out, SESSIONS), i;
    size_t part = n ? sim_choose((uint32_t)n) : 0;
    int seen[SESSIONS] = {0}, k;

    if (n != (size_t)r->count || n != rt_group_count(m.loop, r->h)) {
        sim_fault("room %d has %zu members, not %d", r->id, n, r->count);
        return;
    }
    for (i = 0; i < n; i++) {
        for (k = 0; k < m.sess_count && m.sess[k].h.id != out[i].id; k++)
            ;
        if (k == m.sess_count || seen[k]++ || !r->in[k])
            sim_fault("room %d has session %d for a member", r->id, k);
    }
    out[part].id = 77;
    if (rt_group_members(m.loop, r->h, out, part) != n || out[part].id != 77)
        sim_fault("room %d: rt_group_members writes too much", r->id);
}

/* Goes over the members, as rule 3 allows, and ends some. */
static void host_walks(struct room *r)
{
    rt_session out[SESSIONS];
    size_t n, i;
    struct sess *s;

    room_look(r);
    n = rt_group_members(m.loop, r->h, out, SESSIONS);
    sim_note("the host walks over room %d", r->id);
    for (i = 0; i < n; i++) {
        for (s = m.sess; s->h.id != out[i].id; s++)
            ;
        saw.ended_while_walked++;
        if (!sim_choose(3))
            host_ends(s);
        else if (!sim_choose(3))
            host_leaves(r, s);
        else if (!sim_choose(3))
            host_sends_one(s, message_new(NAMES));
        else if (!sim_choose(3))
            host_sends_to(r, message_new(r->name));
    }
}

/* What a group answers about itself. */
static void check_room(struct room *r)
{
    rt_position p;
    const char *name;
    rt_group found = rt_group_find(m.loop, name_of(r->name));

    room_look(r);
    name = rt_group_name(m.loop, r->h);
    p = rt_group_position(m.loop, r->h);
    if (!r->lives) {
        if (name || p.epoch || p.offset || rt_group_user(m.loop, r->h) ||
            rt_group_count(m.loop, r->h) || found.id == r->h.id)
            sim_fault("room %d is over, and answers", r->id);
        return;
    }
    if (!name || strcmp(name, name_of(r->name)) != 0 || found.id != r->h.id ||
        rt_group_user(m.loop, r->h) != r) {
        sim_fault("room %d does not answer", r->id);
        return;
    }
    if (p.epoch != r->epoch || p.offset != r->sent)
        sim_fault("room %d is at %llu, not %zu", r->id,
                  (unsigned long long)p.offset, r->sent);
    check_members(r);
}

/* ---- callbacks ---------------------------------------------------------- */

static void host_acts(void)
{
    uint32_t x = sim_choose(64);
    rt_position p, *from;
    struct room *r;
    struct sess *s;

    if (!m.room_count || x < 5) {
        host_opens();
        return;
    }
    if (!m.sess_count)
        return;
    r = any_room();
    s = any_sess();
    if (x < 7)
        host_closes_room(r);
    else if (x < 17)
        host_joins(r, s);
    else if (x < 28) {
        if (r->in[s->id])
            host_leaves(r, s);
        from = place(r, s, &p);
        host_joins_from(r, s, from);
    } else if (x < 31)
        host_leaves(r, s);
    else if (x < 50)
        host_sends_to(r, message_new(r->name));
    else if (x < 52)
        host_sends_one(s, message_new(NAMES));
    else if (x < 54)
        host_sends_many(message_new(NAMES));
    else if (x < 55)
        host_ends(s);
    else if (x < 56)
        host_drops(s);
    else if (x < 57)
        host_walks(r);
    else if (x < 58)
        host_errs(r);
    else if (x < 59)
        host_bursts(r);
    else
        check_room(r);
}

static void callback_begins(const char *name)
{
    if (m.depth++)
        sim_fault("%s inside another callback", name);
    notice();
}

/* Callbacks do what they like. */
static void callback_ends(int one_of)
{
    if (!m.settling && !m.freeing && !sim_faults() &&
        !sim_choose((uint32_t)one_of))
        host_acts();
    m.depth--;
}

static struct sess *valid(rt_loop *l, rt_session h, const char *what)
{
    struct sess *s = rt_user(l, h);

    if (s && s->state != GONE && s->state != UNBORN && rt_same(s->h, h))
        return s;
    sim_fault("%s of a session that is not open", what);
    return NULL;
}

/* A client that was too late for its session gets another, of which nobody
   takes notice; so does what it said on a line that it had given up. */
static void stranger(rt_loop *l, rt_session h, struct sess *s)
{
    if (s->kind != RESUMES || (s->state == ALIVE && !m.short_of && !s->haunted))
        sim_fault("session %d opens twice", s->id);
    rt_close(l, h, 1000, NULL);
}

static void on_open(rt_loop *l, rt_session h)
{
    const rt_request *r = rt_request_of(l, h);
    struct sess *s = rt_context(l, h);
    int id;

    callback_begins("on_open");
    if (!s && r && sscanf(r->path, "/%d", &id) == 1 && id < m.sess_count)
        s = &m.sess[id];
    if (!s) {
        sim_fault("on_open of nobody");
    } else if (s->state != UNBORN) {
        stranger(l, h, s);
    } else {
        s->state = ALIVE;
        s->h = h;
        rt_set_user(l, h, s);
        sim_note("session %d opens", s->id);
        sim_upcall((uint32_t)s->id, 'o', 0);
        while (m.room_count && sim_choose(m.crowded ? 6 : 3))
            host_joins(any_room(), s);
    }
    callback_ends(3);
}

static void on_message(rt_loop *l, rt_session h, int kind, const void *data,
                       size_t len)
{
    struct sess *s = rt_user(l, h);

    (void)kind;
    callback_begins("on_message");
    if (s) {
        sim_upcall((uint32_t)s->id, 'm', len);
        if (valid(l, h, "on_message") && s->state != ALIVE)
            sim_fault("on_message of session %d, which is over", s->id);
        if (len != 5 || memcmp(data, "hello", 5) != 0)
            sim_fault("session %d hears %.20s", s->id, (const char *)data);
    }
    callback_ends(2);
}

/* If the gap that on_back may tell was there already, what it joins from here
   on gives its snapshot at once. */
static void model_owes(struct sess *s, int owes)
{
    int i;

    for (i = 0; i < m.room_count; i++)
        m.rooms[i].owes[s->id] = owes && m.rooms[i].in[s->id];
}

/* The groups hear of it only if it is away still. */
static void on_away(rt_loop *l, rt_session h)
{
    struct sess *s;
    int away = rt_state(l, h) == RT_AWAY;

    callback_begins("on_away");
    s = valid(l, h, "on_away");
    if (s) {
        sim_note("session %d is away", s->id);
        sim_upcall((uint32_t)s->id, 'a', (uint64_t)away);
        saw.away_told += away != 0;
        saw.silent_takeovers += !away;
        if (away && s->state == ALIVE)
            model_presence(s, RT_WENT_AWAY);
        s->told_away = away;
        s->taken_over = !away;
        model_owes(s, !away);
    }
    callback_ends(3);
    if (!s || away || s->state != ALIVE || rt_state(l, h) != RT_AWAY)
        return;
    if ((ring_over(s) || m.short_of) && s->ws)
        line_over(s), s->over = 1; /* was it a gap? nobody will say */
    m.batch++;                     /* the callback itself lost it again */
    model_presence(s, RT_WENT_AWAY);
    s->told_away = 1;
}

/* With a gap the host may take it out of a group and in again, from where the
   client is, as RESUME advises. */
static void recover(struct sess *s)
{
    struct room *r = any_room();
    rt_position p;

    room_look(r);
    if (!r->in[s->id] || m.freeing)
        return;
    saw.recoveries++;
    p.epoch = r->epoch;
    p.offset = s->seen[r->id];
    host_leaves(r, s);
    host_joins_from(r, s, &p);
}

/* After a gap, and on_back, the snapshots of its groups make up for it. */
static void repay(struct sess *s)
{
    int i;

    m.blocks++;
    for (i = 0; i < m.room_count; i++) {
        if (!m.rooms[i].owes[s->id])
            continue;
        m.rooms[i].owes[s->id] = 0;
        saw.snapshots_after_gaps += m.rooms[i].latest.len > 0;
        if (s->state == ALIVE)
            model_snapshot(&m.rooms[i], s, m.blocks);
    }
}

static void on_back(rt_loop *l, rt_session h, uint64_t lost)
{
    struct sess *s;

    callback_begins("on_back");
    s = valid(l, h, "on_back");
    if (s) {
        sim_note("session %d is back, %d lost", s->id, (int)lost);
        sim_upcall((uint32_t)s->id, 'b', lost);
        saw.back_told += s->told_away != 0;
        saw.gaps += lost > 0;
        if (s->told_away && s->state == ALIVE)
            model_presence(s, RT_CAME_BACK);
        s->told_away = 0;
        if (!lost || !s->taken_over)
            model_owes(s, lost > 0);
        s->taken_over = 0;
        if (lost && m.room_count && !m.settling)
            recover(s);
    }
    callback_ends(3);
    if (s)
        repay(s);
}

/* Was there a reason for that? */
static int justified(const struct sess *s, const rt_end *why)
{
    if (m.freeing || m.short_of)
        return 1;
    if (s->code)
        return why->code == s->code && why->cause == RT_BY_APP;
    if (s->slow)
        return why->code == RT_CLOSE_SLOW && why->cause == RT_BY_LIMIT;
    return s->excused || (why->code == RT_CLOSE_EXPIRED && s->told_away);
}

static void on_close(rt_loop *l, rt_session h, const rt_end *why)
{
    struct sess *s = rt_user(l, h);
    size_t k;
    int i;

    if (!s)
        s = rt_context(l, h);
    if (!s)
        return; /* a stranger */
    callback_begins("on_close");
    sim_note("session %d closes: %d, cause %d", s->id, why->code, why->cause);
    sim_upcall((uint32_t)s->id, 'c', (uint64_t)why->code);
    sim_upcall((uint32_t)s->id, why->cause, why->lost);
    if (s->state == GONE)
        sim_fault("session %d closes twice", s->id);
    if (s->state == ENDED && !justified(s, why))
        sim_fault("session %d closes without a reason: %d, cause %d", s->id,
                  why->code, why->cause);
    for (i = 0; i < m.room_count; i++) {
        for (k = m.rooms[i].event_count; k-- > 0;) {
            if (m.rooms[i].events[k].who == s->id &&
                !event_believed(&m.rooms[i], k))
                sim_fault("session %d closes before room %d hears of it", s->id,
                          i);
        }
    }
    s->state = GONE;
    callback_ends(3);
}

static const rt_handler handler = {.open = on_open,
                                   .message = on_message,
                                   .away = on_away,
                                   .back = on_back,
                                   .close = on_close};

static void on_event(rt_loop *l, rt_group g, rt_session h, int what)
{
    struct room *r = rt_group_user(l, g);
    struct sess *s;

    callback_begins("a presence event");
    saw.events++;
    s = valid(l, h, "a presence event");
    if (!r || !r->lives || !rt_same(h, s ? s->h : h) || r->h.id != g.id)
        sim_fault("a presence event of no group");
    else if (s) {
        sim_note("room %d hears of session %d: %d", r->id, s->id, what);
        sim_upcall((uint32_t)s->id, 'e', (uint64_t)(r->id * 64 + what));
        if (!event_take(r, s->id, what))
            sim_fault("room %d hears of session %d: %d, too early or late",
                      r->id, s->id, what);
    }
    callback_ends(3);
}

static void on_hook(enum note_kind what, const char *name, uint32_t g)
{
    int n = name_find(name);

    sim_note("hook %d of %s, %u", (int)what, name, g);
    sim_upcall((uint32_t)(HOST + 1 + n), (int)what, g);
    if (!note_take(what, n, g) && !m.freeing)
        sim_fault("hook %d of %s, %u: too early or late", (int)what, name, g);
    if (what != OUT && m.subscribed[n] == (what == FIRST))
        sim_fault("hook %d of %s comes twice", (int)what, name);
    if (what != OUT)
        m.subscribed[n] = what == FIRST;
}

static void on_first(rt_loop *l, const char *name)
{
    (void)l;
    callback_begins("group_first");
    on_hook(FIRST, name, 0);
    callback_ends(3);
}

static void on_last(rt_loop *l, const char *name)
{
    (void)l;
    callback_begins("group_last");
    on_hook(LAST, name, 0);
    callback_ends(3);
}

static void on_out(rt_loop *l, const char *name, int kind, const void *data,
                   size_t len)
{
    uint32_t g = message_find(kind & 0xff, data, len);
    size_t i = 0;

    (void)l;
    callback_begins("group_out");
    saw.outs++;
    while (!len && i < m.note_count &&
           (m.notes[i].what != OUT || m.messages[m.notes[i].g].len ||
            m.messages[m.notes[i].g].kind != kind))
        i++;
    if (!len && i < m.note_count)
        g = m.notes[i].g;
    if (!g || m.messages[g].kind != kind)
        sim_fault("group_out of what nobody said: %.*s", (int)len,
                  (const char *)data);
    on_hook(OUT, name, g);
    callback_ends(6);
}

static struct room *room_of_epoch(uint64_t epoch)
{
    int i = m.room_count;

    while (i-- > 0 && m.rooms[i].epoch != epoch)
        ;
    return i < 0 ? NULL : &m.rooms[i];
}

static void evicted(struct room *r, size_t offset, uint32_t g)
{
    while (r->evicted + 1 < offset && believed())
        r->evicted++;
    if (!remembers(r) || offset != r->evicted + 1 || offset > r->sent ||
        r->past[offset - 1].g != g) {
        sim_fault("room %d forgets %zu, which is %u, after %zu", r->id, offset,
                  g, r->evicted);
        return;
    }
    saw.evictions++;
    saw.evicted_by_age += offset > r->evict;
    saw.evicted_by_end += !r->lives;
    r->evicted = offset;
    if (r->lives && offset > forgotten(r) && !model_gone(r, offset))
        sim_fault("room %d forgets %zu too early", r->id, offset);
}

static void on_evict(rt_loop *l, const char *name, rt_position at, int kind,
                     const void *data, size_t len)
{
    uint32_t g = message_find(kind & 0xff, data, len);
    struct room *r = room_of_epoch(at.epoch);

    (void)l;
    callback_begins("group_evict");
    if (r)
        room_look(r);
    sim_note("%s forgets %llu, which is %u", name,
             (unsigned long long)at.offset, g);
    if (!r || strcmp(name, name_of(r->name)) != 0 || !g ||
        m.messages[g].kind != kind)
        sim_fault("group_evict of nothing: %s, %.*s", name, (int)len,
                  (const char *)data);
    else
        evicted(r, (size_t)at.offset, g);
    callback_ends(6);
}

static void on_log(void *user, int level, const char *text)
{
    (void)user;
    (void)level;
    sim_note("log: %s", text);
    m.untold += !strncmp(text, "presence lost", 13) ||
                !strncmp(text, "hook not told", 13);
}

/* ---- a turn ------------------------------------------------------------- */

/* What was due before this turn began has been told. */
static void check_told(void)
{
    struct room *r;

    for (r = m.rooms; r < m.rooms + m.room_count; r++) {
        while (r->event_count && r->events[0].turn < m.turn) {
            if (!event_believed(r, 0)) {
                sim_fault("room %d did not hear of session %d: %d", r->id,
                          r->events[0].who, r->events[0].what);
                return;
            }
        }
    }
    while (m.note_count && m.notes[0].turn < m.turn) {
        if (m.notes[0].what != OUT || !believed()) {
            sim_fault("hook %d of %s was not told", (int)m.notes[0].what,
                      name_of(m.notes[0].name));
            return;
        }
        note_drop(0);
    }
}

/* What fell out before this turn began was told, and what is too old by far. */
static void check_evicted(struct room *r)
{
    uint64_t ms = (uint64_t)(r->o.history_ms > 0 ? r->o.history_ms : 0);
    size_t least = r->evict_before;

    if (!m.evicts || !remembers(r))
        return;
    while (r->lives && ms && least < r->sent &&
           r->past[least].when + ms + ms / 4 + 2 <= sim_now())
        least++;
    while (r->evicted < least) {
        if (!believed()) {
            sim_fault("room %d did not say that it forgets %zu", r->id,
                      r->evicted + 1);
            return;
        }
        r->evicted++;
    }
}

/* Nobody sleeps while something is due. */
static void check_timeout(void)
{
    int i, due = m.note_count > 0, most = rt_loop_timeout(m.loop);

    for (i = 0; i < m.room_count; i++) {
        const struct room *r = &m.rooms[i];
        uint64_t end = r->used + (uint64_t)r->o.ttl_ms;
        due |= r->event_count > 0;
        due |= m.evicts && remembers(r) && r->evicted < r->evict;
        if (r->lives && !r->count && r->o.ttl_ms > 0 &&
            (most < 0 || sim_now() + (uint64_t)most > end))
            sim_fault("room %d is due, but the loop would sleep %d", r->id,
                      most);
    }
    if (due && most && m.untold == m.skipped)
        sim_fault("something is due, but the loop would sleep %d ms", most);
}

static size_t past_heap(const struct room *r)
{
    size_t i = forgotten(r), n = r->lives ? 40000 : 0;
    uint64_t ms = (uint64_t)(r->o.history_ms > 0 ? r->o.history_ms : 0);

    /* what is too old stays a little longer, and what is not told yet */
    while (i > 0 && r->lives && r->past[i - 1].when + 2 * ms > sim_now())
        i--;
    if (m.evicts && remembers(r) && r->evicted < i)
        i = r->evicted;
    for (; (r->lives || m.evicts) && remembers(r) && i < r->sent; i++)
        n += 4 * m.messages[r->past[i].g].len + HEAP_PAST;
    return n;
}

static void check_heap(void)
{
    size_t most = HEAP_LOOP + (size_t)sim_streams() * HEAP_LINE;
    struct sess *s;
    int i;

    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (s->state != GONE)
            most += HEAP_SESSION + 2 * (size_t)m.hard;
    }
    for (i = 0; i < m.room_count; i++)
        most += past_heap(&m.rooms[i]);
    if (sim_heap() > most)
        sim_fault("heap of %zu bytes, %zu are expected", sim_heap(), most);
}

static void check_all(void)
{
    int i;

    notice();
    for (i = 0; i < m.room_count; i++) {
        check_room(&m.rooms[i]);
        if (m.rooms[i].lives && overdue(&m.rooms[i], m.rooms[i].used))
            sim_fault("room %d should have expired", i);
    }
    for (i = 0; i < m.room_count; i++)
        check_evicted(&m.rooms[i]);
    check_told();
    check_timeout();
    check_heap();
}

static void pump(void)
{
    struct sess *s;

    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (m.settling || sim_choose(8))
            script_pump(s);
        if (m.settling && s->kind == RESUMES && !s->ws && !s->over)
            line_connect(s);
    }
    if (m.ghost_count)
        ghosts_free(m.settling ? 1 : 24);
}

static void poll_once(uint64_t ms)
{
    int answer, i;

    for (i = 0; i < m.room_count; i++)
        m.rooms[i].evict_before = m.rooms[i].evict;
    m.turn++;
    m.in_turn = 1;
    answer = rt_poll(m.loop, (int)ms);
    m.in_turn = 0;
    if (answer < 0)
        sim_fault("rt_poll: %d", answer);
    if (!sim_faults())
        check_all();
    if (!m.short_of) /* else some may be refused */
        census(m.fds, m.loop, m.loop, m.turn);
}

/* In a calm world it lasts so long, however often that wakes the loop. */
static void turn(int ms)
{
    uint64_t end = sim_now() + (uint64_t)ms;

    sim_step(ms);
    pump();
    do
        poll_once(end - sim_now());
    while (m.calm && sim_now() < end && !sim_faults());
}

/* ---- a world ------------------------------------------------------------ */

static int some(const int *values, uint32_t n)
{
    return values[sim_choose(n)];
}

static void room_limits(rt_group_opts *o)
{
    static const int rates[] = {1, 2, 6};
    static const int times[] = {0, 20, 21, 200};
    static const int sizes[] = {0, 1, 3, RT_OFF};
    static const int bytes[] = {60, 1000, 20000};

    if (sim_choose(7) == 0)
        o->rate_limit = some(rates, 3);
    o->rate_ms = some(times, 4);
    if (sim_choose(12) == 0)
        o->message_rate = some(rates, 3);
    o->message_burst = some(sizes, 4);
    if (sim_choose(12) == 0)
        o->byte_rate = some(bytes, 3);
    if (sim_choose(2))
        o->byte_burst = some(bytes, 3);
    if (sim_choose(3) == 0)
        o->snapshot = some(sizes, 4);
    o->once_ms = some(times, 4);
    o->once_max = some(sizes, 4);
}

static void room_options(rt_group_opts *o)
{
    static const int counts[] = {1, 2, 3, 5, 8, 40, 300};
    static const int bytes[] = {1, 60, 200, 1000, 30000};
    static const int ages[] = {1, 20, 200, 1000, 5000};
    static const int members[] = {1, 2, 4, 8};
    static const int lives[] = {1, 20, 200, 1000};

    memset(o, 0, sizeof *o);
    if (sim_choose(2))
        o->history = some(counts, 7);
    if (sim_choose(3) == 0)
        o->history_bytes = some(bytes, 5);
    if (sim_choose(3) == 0)
        o->history_ms = some(ages, 5);
    if (sim_choose(8) == 0)
        o->history = RT_OFF;
    if (sim_choose(3) == 0)
        o->ttl_ms = some(lives, 4);
    if (sim_choose(3) == 0)
        o->max_members = some(members, 4);
    o->upstream = sim_choose(4) == 0;
    o->event = sim_choose(4) ? on_event : NULL;
    if (EXTRAS)
        room_limits(o);
}

static void *on_realloc(void *user, void *p, size_t old, size_t now)
{
    if (m.weak && now > old && sim_choose(m.weak) == 1) {
        sim_note("no memory for %zu bytes", now);
        m.fails++;
        return NULL;
    }
    return sim_realloc(user, p, old, now);
}

static int world_open(int backend)
{
    static const int hards[] = {3000, 12000, 60000, 400000};
    static const int windows[] = {200, 4000, 60000};
    rt_loop_opts o = {.backend = backend,
                      .realloc = on_realloc,
                      .log = on_log,
                      .group_first = on_first,
                      .group_last = on_last,
                      .group_out = on_out};
    rt_listen_opts lo = {.on = handler};

    m.max_groups = sim_choose(3) ? NAMES + 1 : 1 + (int)sim_choose(NAMES - 1);
    m.seats = sim_choose(3) ? NAMES : 1 + (int)sim_choose(NAMES - 1);
    m.crowded = sim_choose(3) == 0;
    m.hard = m.crowded ? 200000 : some(hards, 4);
    m.soft = m.hard / 4;
    m.window_ms = some(windows, 3);
    m.short_of = sim_choose(4) || m.calm ? 0 : 10 + sim_choose(150);
    o.max_groups = m.max_groups;
    o.groups_per_session = m.seats;
    lo.resume_ms = m.window_ms;
    lo.soft_mark = m.soft;
    lo.hard_mark = m.hard;
    m.evicts = EXTRAS && sim_choose(2);
    o.group_evict = m.evicts ? on_evict : NULL;
    m.loop = rt_loop_new(&o);
    return m.loop && rt_listen(m.loop, "ws://127.0.0.1:9000", &lo).id;
}

/* Several messages to one group, with whatever comes between. */
static void crowd_acts(void)
{
    struct room *r = any_room();
    uint32_t n = 2 + sim_choose(5);

    for (; n > 0 && !sim_faults(); n--) {
        host_sends_to(r, message_new(r->name));
        if (!sim_choose(4))
            host_acts();
        if (!sim_choose(12)) {
            rt_flush(m.loop);
            notice();
        }
    }
}

static void act(void)
{
    uint32_t n = 1 + sim_choose(6);

    if (!m.sess_count || sim_choose(m.crowded ? 2 : 5) == 0)
        client_new();
    if (m.crowded && m.room_count && m.sess_count && sim_choose(3) == 0)
        crowd_acts();
    for (; n > 0 && !sim_faults(); n--) {
        if (sim_choose(3))
            host_acts();
        else
            client_acts(any_sess());
    }
}

static void live(void)
{
    static const int waits[] = {0, 0, 0, 1, 5, 20, 200, 1000};
    uint32_t steps = 20 + sim_choose(60);

    while (steps-- > 0 && !sim_over()) {
        act();
        turn(some(waits, 8));
    }
}

/* Does a session lack what it was promised? */
static int lacks(const struct sess *s)
{
    int k;

    if (s->state != ALIVE || s->over)
        return s->state == ENDED;
    for (k = 0; k < ALL_KEYS; k++) {
        if (s->key_got[k] < s->key_must[k] && !m.short_of)
            return 1;
    }
    return s->got != s->m.len || rt_state(m.loop, s->h) != RT_OPEN;
}

static struct sess *unsettled(void)
{
    int i;

    for (i = 0; i < m.sess_count; i++) {
        if (lacks(&m.sess[i]))
            return &m.sess[i];
    }
    return NULL;
}

/* All read again, and who is away comes back. */
static void settle(void)
{
    struct sess *s;
    int i;

    m.settling = 1;
    m.weak = 0;
    for (s = m.sess; s < m.sess + m.sess_count; s++)
        stall(s, 0);
    for (i = 0; i < 400 && !sim_over() && (i < 3 || unsettled()); i++)
        turn(i < 100 ? 20 : 1000);
    s = unsettled();
    if (s && !sim_over())
        sim_fault("session %d is in state %d: %zu of %zu came, or a key's "
                  "last value did not",
                  s->id, rt_state(m.loop, s->h), s->got, s->m.len);
}

/* Who is there to the end hears a last word from each group. */
static void finish(void)
{
    int i;

    settle();
    for (i = 0; i < m.room_count && !sim_over(); i++)
        host_sends_to(&m.rooms[i], message_new(m.rooms[i].name));
    if (!sim_over())
        settle();
}

static void world_free(void)
{
    struct sess *s;

    m.freeing = 1;
    m.weak = 0;
    rt_loop_free(m.loop);
    for (s = m.sess; s < m.sess + m.sess_count; s++) {
        if (s->state == ALIVE || s->state == ENDED)
            sim_fault("session %d: no on_close", s->id);
        if (s->ws)
            ws_free(s->ws);
        free(s->m.at);
        free(s->u.at);
        free(s->at.at);
        free(s->any.at);
    }
    while (m.room_count > 0) {
        struct room *r = &m.rooms[--m.room_count];
        free(r->past);
        free(r->perhaps.at);
        free(r->latest.at);
        free(r->passed);
        free(r->events);
    }
    ghosts_free(1);
    free(m.notes);
}

/* Looks at the clock take no time here: ages are exact. */
static void weather_of(const sim_world *w, sim_opts *o)
{
    uint64_t seed = w->seed;

    memset(o, 0, sizeof *o);
    o->spin = 2000;
    if (seed % 3 == 0 || w->calm)
        return;
    sim_weather(seed, o);
    o->wall = 20;
}

static void model_clear(void)
{
    size_t i;

    for (i = 0; !pattern[0] || i < sizeof pattern; i++)
        pattern[i] = (char)('a' + i * 7 % 26);
    memset(&m, 0, sizeof m);
}

int group_run(sim_world *w)
{
    sim_opts o;

    model_clear();
    m.calm = w->calm;
    weather_of(w, &o);
    sim_world_begin(w, &o);
    if (!world_open(w->backend))
        sim_fault("the world does not open");
    m.fds = sim_fds();
    m.weak = m.short_of;
    live();
    if (!sim_over())
        finish();
    world_free();
    return sim_world_end(w, "group");
}
