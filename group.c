/*
 * Groups: named sets of sessions, with a dense list of members.
 *
 * A member's place in that list is kept in a seat of the session, so that it
 * leaves in O(its own groups).  Whoever leaves, the last member takes its
 * place; a message goes through the list from the end, because sending to one
 * may end it, or another.  Presence events wait in a list for the events phase.
 *
 * What a group remembers, each if its options ask for it: the last messages
 * (history, a ring), the newest message of each key (snapshot), the keys of
 * idempotent sends.  Whoever joins gets snapshot and history before the call
 * returns, so nothing live can come between.  One timer for each group lets
 * fall what became too old, and ends it when it is empty for too long.
 */
#include "rtnet_internal.h"

enum {
    RATE_MOST = 1 << 20,    /* slots of a group's window, 8 bytes each */
    LOGS_KEPT = 1024 * 1024 /* bytes of logs between turns, in all */
};

/* A message that a group remembers. */
typedef struct {
    rt__buf *data;
    int kind;
    uint64_t when;
} entry;

/* The newest message of a key; in a list, the one unchanged for longest
   first. */
typedef struct latest {
    rt__node node; /* first: the table of keys */
    struct latest *older, *newer;
    rt__buf *data;
    int key, kind;
} latest;

/* The key of an idempotent send; the key itself stands behind it. */
typedef struct once {
    rt__node node; /* first: the table of keys */
    struct once *newer;
    uint64_t when;
    rt_position at;
} once;

struct rt__group {
    rt__node node; /* first: the table of groups */
    uint64_t id;
    char *name;
    rt_group_opts opts; /* resolved: what is not positive is off */
    rt__session **members;
    size_t count, cap;
    size_t unsent;   /* members[0..unsent) do not have the message under way */
    size_t apart;    /* members[apart..count) are its crowd, and wait for */
    rt__piece crowd; /* this piece of the log: */
    uint32_t told;   /* so many messages */
    uint32_t log_wish; /* how large the next log should be */
    rt__buf *log;      /* kept for those who lag: see crowd_end */
    uint16_t number;   /* in loop->crowds, from 1 on; 0: it has no crowd */
    rt__timer timer;
    uint64_t used;        /* when it was last used */
    rt_position position; /* of the newest message */
    entry *history;       /* a ring of `kept` entries from `oldest` on */
    size_t oldest, kept, history_cap, history_bytes;
    rt__table keys; /* of latest */
    latest *stalest, *freshest;
    rt__table sent; /* of once */
    once *sent_first, *sent_last;
    rt__window *window;
    rt__bucket messages, bytes;
    struct rt__note *farewell; /* for the host: the last member left */
};

static void crowd_close(rt_loop *loop, rt__group *g);
static void log_close(rt_loop *loop, rt__group *g);

/* Something to tell the host's event callback. */
typedef struct rt__presence {
    struct rt__presence *next;
    rt_group group;
    rt_session who;
    int what;
} rt__presence;

static rt__group *group_get(rt_loop *loop, rt_group handle)
{
    return (rt__group *)rt__slot_get(loop, handle.id, RT__GROUP);
}

static uint32_t slot_index(const rt__group *g)
{
    return (uint32_t)(g->id & 0xffffff); /* see the handles of rtnet.c */
}

static rt_group group_handle(const rt__group *g)
{
    rt_group handle = {0};
    if (g)
        handle.id = g->id;
    return handle;
}

/* ---- history ------------------------------------------------------------ */

/* Any one bound turns history on; those that are off bound nothing. */
static int remembers(const rt_group_opts *o)
{
    return o->history > 0 || o->history_bytes > 0 || o->history_ms > 0;
}

/* The oldest message falls out, and the host is told.  Offsets are not stored:
   what is kept has no gap, so they count back from the newest. */
static void history_shift(rt_loop *loop, rt__group *g)
{
    entry *e = &g->history[g->oldest];
    rt_position at = g->position;
    at.offset -= g->kept - 1;
    rt__note_at(loop, RT__GROUP_EVICT, g->name, at, e->kind,
                rt__buf_data(e->data), e->data->len);
    g->history_bytes -= e->data->len;
    loop->history_bytes -= e->data->len;
    loop->history_count--;
    rt__buf_release(loop, e->data);
    g->oldest = g->oldest + 1 == g->history_cap ? 0 : g->oldest + 1;
    g->kept--;
}

/* All of it falls out, the oldest first. */
static void history_clear(rt_loop *loop, rt__group *g)
{
    while (g->kept > 0)
        history_shift(loop, g);
}

/* By count, by bytes, or by the age of the oldest.  There are no more messages
   than bytes, so that empty ones are bounded, too. */
static int history_over(rt_loop *loop, const rt__group *g)
{
    const rt_group_opts *o = &g->opts;
    if (o->history > 0 && g->kept > (size_t)o->history)
        return 1;
    if (o->history_bytes > 0 && (g->history_bytes > (size_t)o->history_bytes ||
                                 g->kept > (size_t)o->history_bytes))
        return 1;
    return o->history_ms > 0 &&
           rt_now(loop) - g->history[g->oldest].when > (uint64_t)o->history_ms;
}

/* Forgets what is too much, or too old; a message larger than all the history
   may be falls out at once, and all before it. */
static void history_trim(rt_loop *loop, rt__group *g)
{
    while (g->kept > 0 && history_over(loop, g))
        history_shift(loop, g);
}

/* A larger ring, with the entries in order from its beginning. */
static int history_grow(rt_loop *loop, rt__group *g)
{
    size_t cap = g->history_cap * 2 + 4, i;
    entry *ring = (entry *)rt__realloc(loop, NULL, 0, cap * sizeof *ring);
    if (!ring)
        return RT_ENOMEM;
    for (i = 0; i < g->kept; i++)
        ring[i] = g->history[(g->oldest + i) % g->history_cap];
    rt__free(loop, g->history, g->history_cap * sizeof *ring);
    g->history = ring;
    g->history_cap = cap;
    g->oldest = 0;
    return 0;
}

/* There is no memory for a message: what went before is forgotten, too, so
   that who asks is told that some are missing. */
static void history_lost(rt_loop *loop, rt__group *g, int kind,
                         const void *data, size_t len)
{
    history_clear(loop, g);
    g->position.offset++;
    rt__note_at(loop, RT__GROUP_EVICT, g->name, g->position, kind, data, len);
}

/* The message gets its offset, and is remembered. */
static void history_add(rt_loop *loop, rt__group *g, int kind, const void *data,
                        size_t len)
{
    rt__buf *b;
    entry *e;
    if (!remembers(&g->opts)) {
        g->position.offset++;
        return;
    }
    b = rt__buf_copy(loop, data, len);
    if (!b || (g->kept == g->history_cap && history_grow(loop, g) < 0)) {
        rt__buf_release(loop, b);
        history_lost(loop, g, kind, data, len);
        return;
    }
    e = &g->history[(g->oldest + g->kept++) % g->history_cap];
    e->data = b;
    e->kind = kind;
    e->when = rt_now(loop);
    g->position.offset++;
    g->history_bytes += len;
    loop->history_bytes += len;
    loop->history_count++;
    history_trim(loop, g);
}

rt_position rt_group_position(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    rt_position nowhere = {0, 0};
    return g ? g->position : nowhere;
}

/* ---- snapshot ----------------------------------------------------------- */

/* Keys may be chosen by peers (an id, a place), so their hash is keyed. */
static latest *latest_find(rt_loop *loop, const rt__group *g, int key)
{
    uint64_t hash = rt__hash(loop, &key, sizeof key);
    rt__node *n = rt__table_find(&g->keys, hash);
    while (n && ((latest *)n)->key != key)
        n = rt__table_more(n);
    return (latest *)n;
}

static void latest_unlink(rt__group *g, latest *l)
{
    if (l->older)
        l->older->newer = l->newer;
    else
        g->stalest = l->newer;
    if (l->newer)
        l->newer->older = l->older;
    else
        g->freshest = l->older;
}

static void latest_link(rt__group *g, latest *l)
{
    l->newer = NULL;
    l->older = g->freshest;
    if (l->older)
        l->older->newer = l;
    else
        g->stalest = l;
    g->freshest = l;
}

static void latest_forget(rt_loop *loop, rt__group *g, latest *l)
{
    latest_unlink(g, l);
    rt__table_remove(&g->keys, &l->node);
    rt__buf_release(loop, l->data);
    rt__free(loop, l, sizeof *l);
}

/* Without data yet, and already the freshest; NULL: no memory. */
static latest *latest_new(rt_loop *loop, rt__group *g, int key)
{
    latest *l = (latest *)rt__alloc(loop, sizeof *l);
    if (!l)
        return NULL;
    l->key = key;
    l->node.hash = rt__hash(loop, &key, sizeof key);
    if (rt__table_add(loop, &g->keys, &l->node) < 0) {
        rt__free(loop, l, sizeof *l);
        return NULL;
    }
    latest_link(g, l);
    return l;
}

/* The newest message of its key; an empty one takes the key away.  It is kept
   without its lane, so that a newcomer gets it as a reliable one.  RT_ENOMEM:
   all is as it was. */
static int latest_put(rt_loop *loop, rt__group *g, int kind, const void *data,
                      size_t len)
{
    int key = kind >> 16 & 0x7fff;
    latest *l = latest_find(loop, g, key);
    rt__buf *b;
    if (len == 0) {
        if (l)
            latest_forget(loop, g, l);
        return 0;
    }
    /* the copy first: a key without a message would be sent to newcomers */
    b = rt__buf_copy(loop, data, len);
    if (b && !l)
        l = latest_new(loop, g, key);
    if (!b || !l) {
        rt__buf_release(loop, b);
        return RT_ENOMEM;
    }
    rt__buf_release(loop, l->data);
    l->data = b;
    l->kind = kind & 0xff;
    latest_unlink(g, l);
    latest_link(g, l);
    if (g->keys.count > (size_t)g->opts.snapshot)
        latest_forget(loop, g, g->stalest);
    return 0;
}

/* ---- keys of idempotent sends ------------------------------------------- */

static char *once_key(once *o)
{
    return (char *)(o + 1);
}

/* The hash only narrows it down: a key that was not used must pass. */
static once *once_find(rt_loop *loop, const rt__group *g, const char *key)
{
    rt__node *n = rt__table_find(&g->sent, rt__hash(loop, key, strlen(key)));
    while (n && strcmp(once_key((once *)n), key) != 0)
        n = rt__table_more(n);
    return (once *)n;
}

/* Out of the table, too; from the list it is gone or never was in it. */
static void once_free(rt_loop *loop, rt__group *g, once *o)
{
    rt__table_remove(&g->sent, &o->node);
    rt__free(loop, o, sizeof *o + strlen(once_key(o)) + 1);
}

/* In the table, but not yet in the list: its message may still fail. */
static once *once_new(rt_loop *loop, rt__group *g, const char *key)
{
    size_t size = strlen(key) + 1;
    once *o = (once *)rt__alloc(loop, sizeof *o + size);
    if (!o)
        return NULL;
    memcpy(once_key(o), key, size);
    o->node.hash = rt__hash(loop, key, size - 1);
    if (rt__table_add(loop, &g->sent, &o->node) == 0)
        return o;
    rt__free(loop, o, sizeof *o + size);
    return NULL;
}

/* The oldest key is forgotten. */
static void once_shift(rt_loop *loop, rt__group *g)
{
    once *o = g->sent_first;
    g->sent_first = o->newer;
    if (!g->sent_first)
        g->sent_last = NULL;
    once_free(loop, g, o);
}

/* Forgets the keys that are too old, or too many. */
static void once_trim(rt_loop *loop, rt__group *g)
{
    const rt_group_opts *o = &g->opts;
    while (g->sent_first &&
           ((o->once_ms > 0 &&
             rt_now(loop) - g->sent_first->when >= (uint64_t)o->once_ms) ||
            (o->once_max > 0 && g->sent.count > (size_t)o->once_max)))
        once_shift(loop, g);
}

/* Its message was sent: the key counts from now on. */
static void once_add(rt_loop *loop, rt__group *g, once *o)
{
    o->when = rt_now(loop);
    if (g->opts.upstream <= 0)
        o->at = g->position;
    if (g->sent_last)
        g->sent_last->newer = o;
    else
        g->sent_first = o;
    g->sent_last = o;
    once_trim(loop, g);
}

/* ---- limits ------------------------------------------------------------- */

/* No room for cost; a rate that is off always has some. */
static int bucket_full(rt_loop *loop, const rt__bucket *b, int rate, int burst,
                       size_t cost)
{
    return rate > 0 && rt__bucket_wait(b, (uint32_t)rate, (uint32_t)burst, cost,
                                       rt_now(loop)) > 0;
}

/* May a message of that size be sent now?  Asking takes nothing, so that a send
   that fails costs nothing. */
static int group_admits(rt_loop *loop, rt__group *g, size_t len)
{
    const rt_group_opts *o = &g->opts;
    if (g->window && rt__window_wait(g->window, (uint32_t)o->rate_limit,
                                     (uint64_t)o->rate_ms, rt_now(loop)) > 0)
        return 0;
    return !bucket_full(loop, &g->messages, o->message_rate, o->message_burst,
                        1) &&
           !bucket_full(loop, &g->bytes, o->byte_rate, o->byte_burst, len);
}

/* A message was sent: it counts in each of them. */
static void group_takes(rt_loop *loop, rt__group *g, size_t len)
{
    const rt_group_opts *o = &g->opts;
    uint64_t now = rt_now(loop);
    if (g->window)
        rt__window_take(g->window, (uint32_t)o->rate_limit, now);
    if (o->message_rate > 0)
        rt__bucket_take(&g->messages, (uint32_t)o->message_rate, 1, now);
    if (o->byte_rate > 0)
        rt__bucket_take(&g->bytes, (uint32_t)o->byte_rate, len, now);
}

/* ---- what is due by itself ---------------------------------------------- */

/* So much later than it might does something fall out: many go at once. */
static uint64_t lateness(int ms)
{
    return ms / 8 < 1000 ? (uint64_t)(ms / 8) + 1 : 1000;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When something of the group is due next, UINT64_MAX: nothing is. */
static uint64_t group_next(const rt__group *g)
{
    const rt_group_opts *o = &g->opts;
    uint64_t due = UINT64_MAX;
    if (o->ttl_ms > 0 && g->count == 0)
        due = g->used + (uint64_t)o->ttl_ms;
    if (o->history_ms > 0 && g->kept > 0)
        due =
            earlier(due, g->history[g->oldest].when + (uint64_t)o->history_ms +
                             lateness(o->history_ms));
    if (o->once_ms > 0 && g->sent_first)
        due = earlier(due, g->sent_first->when + (uint64_t)o->once_ms +
                               lateness(o->once_ms));
    return due;
}

/* Sets the timer, which may come too early but never too late: so a message
   does not set it again. */
static void group_schedule(rt_loop *loop, rt__group *g)
{
    uint64_t due = group_next(g);
    if (due < rt__timer_due(loop, &g->timer))
        rt__timer_set(loop, &g->timer, due);
}

/* ---- making and finding ------------------------------------------------- */

static rt__group *group_find(rt_loop *loop, const char *name, uint64_t hash)
{
    rt__node *n = rt__table_find(&loop->groups, hash);
    while (n && strcmp(((rt__group *)n)->name, name) != 0)
        n = rt__table_more(n);
    return (rt__group *)n;
}

/* Copes with one that was made only half. */
static void group_free(rt_loop *loop, rt__group *g)
{
    history_clear(loop, g);
    rt__free(loop, g->history, g->history_cap * sizeof *g->history);
    while (g->stalest)
        latest_forget(loop, g, g->stalest);
    rt__table_free(loop, &g->keys);
    while (g->sent_first)
        once_shift(loop, g);
    rt__table_free(loop, &g->sent);
    if (g->window)
        rt__free(loop, g->window,
                 rt__window_size((uint32_t)g->opts.rate_limit));
    if (g->timer.kind)
        rt__timer_disown(loop, &g->timer);
    log_close(loop, g);
    rt__note_forget(loop, g->farewell);
    rt__free(loop, g->members, g->cap * sizeof(rt__session *));
    rt__strfree(loop, g->name);
    rt__free(loop, g, sizeof *g);
}

/* What is wrong with the options, or NULL. */
static const char *opts_fault(const rt_group_opts *o)
{
    const int numbers[] = {o->history,   o->history_bytes, o->history_ms,
                           o->ttl_ms,    o->max_members,   o->snapshot,
                           o->once_ms,   o->once_max,      o->rate_limit,
                           o->rate_ms,   o->message_rate,  o->message_burst,
                           o->byte_rate, o->byte_burst,    o->upstream};
    if (rt__negative(numbers, sizeof numbers / sizeof *numbers))
        return "a negative number";
    return o->rate_limit > RATE_MOST ? "rate_limit is too large" : NULL;
}

static int standard(int value, int if_zero)
{
    return value ? value : if_zero;
}

/* Puts the defaults where the options say nothing.  (RT_OFF as a burst is the
   greatest number where it is used.) */
static void opts_resolve(rt_group_opts *o)
{
    o->once_ms = standard(o->once_ms, 300000);
    o->once_max = standard(o->once_max, 1024);
    o->rate_ms = standard(o->rate_ms, 1000);
    if (o->rate_ms < 0)
        o->rate_limit = RT_OFF;
    o->message_burst = standard(o->message_burst, o->message_rate);
    o->byte_burst = standard(o->byte_burst, o->byte_rate);
}

/* The window is made at once: a send should not fail for want of it. */
static int group_limits(rt_loop *loop, rt__group *g)
{
    if (g->opts.rate_limit <= 0)
        return 0;
    g->window = (rt__window *)rt__alloc(
        loop, rt__window_size((uint32_t)g->opts.rate_limit));
    return g->window ? 0 : RT_ENOMEM;
}

/* NULL: no memory.  The epoch is random, so that no position of an earlier
   group of that name fits it; 0 stays the epoch of nothing.  The timer's place
   is had from the beginning: to set it cannot fail. */
static rt__group *group_new(rt_loop *loop, const char *name, uint64_t hash,
                            const rt_group_opts *opts)
{
    rt__group *g = (rt__group *)rt__alloc(loop, sizeof *g);
    if (!g)
        return NULL;
    if (opts)
        g->opts = *opts;
    opts_resolve(&g->opts);
    g->node.hash = hash;
    g->name = rt__strdup(loop, name);
    g->position.epoch = rt__random(loop) | 1;
    g->used = rt_now(loop);
    if (g->name && group_limits(loop, g) == 0 &&
        rt__timer_adopt(loop, &g->timer, RT__OF_GROUP) == 0)
        g->id = rt__slot_new(loop, RT__GROUP, g);
    if (g->id && rt__table_add(loop, &loop->groups, &g->node) == 0)
        return g;
    if (g->id)
        rt__slot_free(loop, g->id);
    group_free(loop, g);
    return NULL;
}

static int name_valid(const char *name)
{
    size_t n = name ? strlen(name) : 0;
    return n > 0 && n <= RT__NAME;
}

/* A group that is there keeps its options: new ones are only checked. */
rt_group rt_group_open(rt_loop *loop, const char *name,
                       const rt_group_opts *opts)
{
    rt_group none = {0};
    rt__group *g;
    const char *fault;
    uint64_t hash;
    if (!name_valid(name))
        return rt__fail(loop, RT_EINVAL, "group name", NULL), none;
    if (opts && (fault = opts_fault(opts)) != NULL)
        return rt__fail(loop, RT_EINVAL, "group options", fault), none;
    hash = rt__hash(loop, name, strlen(name));
    if ((g = group_find(loop, name, hash)) != NULL) {
        g->used = rt_now(loop);
        return group_handle(g);
    }
    if (loop->freeing)
        return rt__fail(loop, RT_ESTATE, "group", NULL), none;
    if (loop->groups.count >= (size_t)loop->opts.max_groups)
        return rt__fail(loop, RT_EFULL, "groups", NULL), none;
    if (!(g = group_new(loop, name, hash, opts)))
        return rt__fail(loop, RT_ENOMEM, "group", NULL), none;
    group_schedule(loop, g);
    return group_handle(g);
}

rt_group rt_group_find(rt_loop *loop, const char *name)
{
    rt_group none = {0};
    if (!name_valid(name))
        return none;
    return group_handle(
        group_find(loop, name, rt__hash(loop, name, strlen(name))));
}

const char *rt_group_name(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    return g ? g->name : NULL;
}

void *rt_group_user(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    return g ? g->opts.user : NULL;
}

/* ---- members ------------------------------------------------------------ */

/* Most sessions are in one group at most, whose seat needs no memory of its
   own. */

enum { SEVERAL = 2 };

static uint32_t seat_count(const rt__session *s)
{
    return s->seated == SEVERAL ? s->seats.all->count : s->seated;
}

static rt__seat *seat_at(rt__session *s, uint32_t i)
{
    if (s->seated == SEVERAL)
        return (rt__seat *)(s->seats.all + 1) + i;
    return &s->seats.one;
}

static size_t seats_size(uint32_t cap)
{
    return sizeof(rt__seats) + cap * sizeof(rt__seat);
}

/* The one seat moves to where there is room for several. */
static int seats_open(rt_loop *loop, rt__session *s)
{
    enum { FIRST = 3 };
    rt__seats *all = (rt__seats *)rt__alloc(loop, seats_size(FIRST));
    if (!all)
        return RT_ENOMEM;
    all->count = 1;
    all->cap = FIRST;
    *(rt__seat *)(all + 1) = s->seats.one;
    s->seats.all = all;
    s->seated = SEVERAL;
    return 0;
}

/* Room for one more.  It grows by a quarter, as all arrays do. */
static int seat_room(rt_loop *loop, rt__session *s)
{
    rt__seats *all = s->seats.all;
    uint32_t cap;
    if (s->seated < SEVERAL)
        return s->seated ? seats_open(loop, s) : 0;
    if (all->count < all->cap)
        return 0;
    cap = all->cap + all->cap / 4 + 1;
    all = (rt__seats *)rt__realloc(loop, all, seats_size(all->cap),
                                   seats_size(cap));
    if (!all)
        return RT_ENOMEM;
    all->cap = cap;
    s->seats.all = all;
    return 0;
}

/* There is room for it. */
static rt__seat *seat_add(rt__session *s)
{
    if (s->seated == SEVERAL)
        return seat_at(s, s->seats.all->count++);
    s->seated = 1;
    return &s->seats.one;
}

/* The last seat moves to the one that becomes free, so that seat may be another
   group's after that.  The one that is left needs no memory again. */
static void seat_remove(rt_loop *loop, rt__session *s, rt__seat *seat)
{
    rt__seats *all = s->seats.all;
    if (s->seated < SEVERAL) {
        s->seated = 0;
        return;
    }
    *seat = *seat_at(s, --all->count);
    if (all->count > 1)
        return;
    s->seated = all->count & 1;
    s->seats.one = *(rt__seat *)(all + 1);
    rt__free(loop, all, seats_size(all->cap));
}

/* A session is in few groups, so its seats are gone through. */
static rt__seat *seat_of(rt__session *s, const rt__group *g)
{
    uint32_t i, count = seat_count(s);
    for (i = 0; i < count; i++)
        if (seat_at(s, i)->group == slot_index(g))
            return seat_at(s, i);
    return NULL;
}

/* It sits in another place of the list. */
static void member_move(rt__group *g, size_t from, size_t to)
{
    if (from == to)
        return;
    g->members[to] = g->members[from];
    seat_of(g->members[to], g)->index = (uint32_t)to;
}

/* A member is not, or no longer, one of the crowd. */
static void stand_apart(rt__group *g, rt__session *s, rt__seat *seat)
{
    member_move(g, g->apart, seat->index);
    g->members[g->apart] = s;
    seat->index = (uint32_t)g->apart++;
}

/* Does it wait with the others (see crowds)? */
static int in_crowd(const rt__group *g, const rt__session *s)
{
    return s->conn && s->conn->crowd && s->conn->crowd == g->number;
}

/* Tells the host in the events phase. */
static void presence_tell(rt_loop *loop, rt__presence *p, const rt__group *g,
                          const rt__session *s, int what)
{
    p->next = NULL;
    p->group.id = g->id;
    p->who.id = s->id;
    p->what = what;
    if (loop->presence_last)
        loop->presence_last->next = p;
    else
        loop->presence_first = p;
    loop->presence_last = p;
}

static void presence(rt_loop *loop, rt__group *g, rt__session *s, int what)
{
    rt__presence *p;
    if (!g->opts.event)
        return;
    p = (rt__presence *)rt__alloc(loop, sizeof *p);
    if (p) {
        presence_tell(loop, p, g, s, what);
        return;
    }
    loop->stats.presence_lost++;
    rt__log(loop, RT_LOG_ERROR, "presence lost", rt_strerror(RT_ENOMEM));
}

/* There is a spare one for each member of a group with events, so that it
   cannot be lost that he left. */
static int presence_reserve(rt_loop *loop)
{
    rt__presence *p = (rt__presence *)rt__alloc(loop, sizeof *p);
    if (!p)
        return RT_ENOMEM;
    p->next = loop->presence_spare;
    loop->presence_spare = p;
    return 0;
}

static rt__presence *presence_spare(rt_loop *loop)
{
    rt__presence *p = loop->presence_spare;
    loop->presence_spare = p->next;
    return p;
}

static void presence_release(rt_loop *loop, const rt__group *g)
{
    if (g->opts.event)
        rt__free(loop, presence_spare(loop), sizeof(rt__presence));
}

/* For one who joins: to tell of it, and of his leaving. */
static int presence_room(rt_loop *loop, const rt__group *g)
{
    if (!g->opts.event)
        return 0;
    if (presence_reserve(loop) < 0)
        return RT_ENOMEM;
    if (presence_reserve(loop) == 0)
        return 0;
    presence_release(loop, g);
    return RT_ENOMEM;
}

/* Something happened to a session: all its groups hear of it. */
void rt__groups_presence(rt_loop *loop, rt__session *s, int what)
{
    uint32_t i;
    for (i = 0; i < seat_count(s); i++)
        presence(loop, (rt__group *)rt__slot_at(loop, seat_at(s, i)->group), s,
                 what);
}

int rt__groups_busy(rt_loop *loop)
{
    return loop->presence_first != NULL;
}

/* The list is taken off first: what callbacks cause waits for the next turn.
   A group that was closed meanwhile tells nothing more. */
void rt__groups_events(rt_loop *loop)
{
    rt__presence *p = loop->presence_first, *next;
    loop->presence_first = loop->presence_last = NULL;
    for (; p; p = next) {
        rt__group *g = group_get(loop, p->group);
        next = p->next;
        if (g)
            rt__tell_presence(loop, g->opts.event, p->group, p->who, p->what);
        rt__free(loop, p, sizeof *p);
    }
}

/* Room for one more in the group and for one more seat of the session. */
static int join_room(rt_loop *loop, rt__group *g, rt__session *s)
{
    void *members = g->members;
    if (g->count == g->cap) {
        if (rt__grow(loop, &members, &g->cap, sizeof(rt__session *)) < 0)
            return RT_ENOMEM;
        g->members = (rt__session **)members;
    }
    return seat_room(loop, s);
}

/* Makes the session a member. */
static void sit(rt_loop *loop, rt__group *g, rt__session *s)
{
    rt__seat *seat = seat_add(s);
    seat->group = slot_index(g) & 0xffffff;
    seat->owed = 0;
    seat->index = (uint32_t)g->count;
    g->members[g->count++] = s;
    if (g->number)
        stand_apart(g, s, seat);
    loop->seats++;
    g->used = rt_now(loop);
}

/* Somebody is about to join.  A host that did not hear of it would never bring
   the group what is sent elsewhere; one that did must hear of the end, too. */
static int first_told(rt_loop *loop, rt__group *g)
{
    if (g->count > 0)
        return 0;
    if (rt__note_keep(loop, RT__GROUP_LAST, g->name, &g->farewell) < 0)
        return RT_ENOMEM;
    return rt__note(loop, RT__GROUP_FIRST, g->name, 0, NULL, 0);
}

/* All that may fail comes before anything is changed, and the host's note,
   which cannot be taken back, comes last of it. */
static int join(rt_loop *loop, rt__group *g, rt__session *s)
{
    if (seat_of(s, g))
        return RT_EEXIST;
    if ((g->opts.max_members > 0 && g->count >= (size_t)g->opts.max_members) ||
        seat_count(s) >= (uint32_t)loop->opts.groups_per_session)
        return RT_EFULL;
    if (join_room(loop, g, s) < 0 || presence_room(loop, g) < 0)
        return RT_ENOMEM;
    if (first_told(loop, g) < 0) {
        presence_release(loop, g);
        presence_release(loop, g);
        return RT_ENOMEM;
    }
    sit(loop, g, s);
    if (g->opts.event)
        presence_tell(loop, presence_spare(loop), g, s, RT_JOINED);
    if (rt__told_away(s)) /* and all its groups will hear that it is back */
        presence(loop, g, s, RT_WENT_AWAY);
    return 0;
}

/* The last of those below a line takes the place that became free there; the
   free one is at the line then. */
static size_t line_close(rt__group *g, size_t *border, size_t index)
{
    if (index >= *border)
        return index;
    member_move(g, --*border, index);
    return *border;
}

/* The last member takes the place that became free, but below a line (of those
   who still wait for the message under way, of those apart from the crowd) the
   last one there does, first below the lower line, then below the upper one. */
static void member_remove(rt__group *g, size_t index)
{
    size_t *low = g->unsent < g->apart ? &g->unsent : &g->apart;
    size_t *high = low == &g->unsent ? &g->apart : &g->unsent;
    index = line_close(g, low, index);
    index = line_close(g, high, index);
    member_move(g, --g->count, index);
}

/* The last member left: its time to live runs from here. */
static void group_emptied(rt_loop *loop, rt__group *g)
{
    rt__note_kept(loop, &g->farewell);
    g->used = rt_now(loop);
    group_schedule(loop, g);
}

/* Cannot fail: its event was reserved at the join. */
static void leave(rt_loop *loop, rt__group *g, rt__session *s, rt__seat *seat)
{
    uint32_t index;
    if (in_crowd(g, s) && rt__crowd_part(loop, s->conn) < 0)
        rt__crowd_drop(loop, s->conn);
    index = seat->index;
    if (g->opts.event)
        presence_tell(loop, presence_spare(loop), g, s, RT_LEFT);
    seat_remove(loop, s, seat);
    member_remove(g, index);
    loop->seats--;
    if (g->count == 0)
        group_emptied(loop, g);
}

int rt_group_leave(rt_loop *loop, rt_group handle, rt_session who)
{
    int error;
    rt__group *g = group_get(loop, handle);
    rt__session *s = rt__session_get(loop, who.id, &error);
    rt__seat *seat;
    if (!g || !s)
        return g ? error : RT_EGONE;
    if (!(seat = seat_of(s, g)))
        return RT_ESTATE;
    if (in_crowd(g, s) && rt__crowd_part(loop, s->conn) < 0)
        return RT_ENOMEM;
    leave(loop, g, s, seat);
    return 0;
}

/* A session that ends leaves all its groups. */
void rt__groups_leave(rt_loop *loop, rt__session *s)
{
    while (seat_count(s) > 0) {
        rt__seat *seat = seat_at(s, seat_count(s) - 1);
        leave(loop, (rt__group *)rt__slot_at(loop, seat->group), s, seat);
    }
}

/* Its handle is stale from here on; the members lose their seats, and hear
   nothing.  What it remembers falls out in group_free. */
static void group_end(rt_loop *loop, rt__group *g)
{
    crowd_close(loop, g);
    if (g->count > 0)
        rt__note_kept(loop, &g->farewell);
    loop->seats -= g->count;
    loop->stats.groups_closed++;
    while (g->count > 0) {
        rt__session *s = g->members[--g->count];
        seat_remove(loop, s, seat_of(s, g));
        presence_release(loop, g);
    }
    rt__table_remove(&loop->groups, &g->node);
    rt__slot_free(loop, g->id);
    group_free(loop, g);
}

/* What is too old is forgotten; an empty group whose time to live is over, and
   which was not used meanwhile, ends. */
void rt__group_due(rt_loop *loop, rt__timer *timer)
{
    size_t at = offsetof(rt__group, timer);
    rt__group *g = (rt__group *)((char *)timer - at);
    history_trim(loop, g);
    once_trim(loop, g);
    if (g->opts.ttl_ms > 0 && g->count == 0 &&
        g->used + (uint64_t)g->opts.ttl_ms <= rt_now(loop))
        group_end(loop, g);
    else
        group_schedule(loop, g);
}

int rt_group_close(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    if (!g)
        return RT_EGONE;
    group_end(loop, g);
    return 0;
}

void rt__groups_free(rt_loop *loop)
{
    uint64_t at = 0;
    rt__group *g;
    while ((g = (rt__group *)rt__slot_next(loop, &at, RT__GROUP)) != NULL)
        group_end(loop, g);
    rt__groups_events(loop); /* their groups are gone: only frees them */
}

size_t rt_group_count(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    return g ? g->count : 0;
}

size_t rt_group_members(rt_loop *loop, rt_group handle, rt_session *out,
                        size_t cap)
{
    rt__group *g = group_get(loop, handle);
    size_t i;
    for (i = 0; g && i < g->count && i < cap; i++)
        out[i].id = g->members[i]->id;
    return g ? g->count : 0;
}

/* ---- what a newcomer gets ----------------------------------------------- */

/* One remembered message.  How many were taken; < 0: the session ended. */
static int give(rt_loop *loop, rt__group *g, rt__session *s, int kind,
                rt__buf *b)
{
    rt__cast cast;
    int took;
    rt__cast_open(&cast, g->id, kind, rt__buf_data(b), b->len);
    took = rt__cast_to(loop, &cast, s);
    rt__cast_close(loop, &cast);
    if (s->state == RT_CLOSING) /* also where its message was taken */
        return took < 0 ? took : RT_EGONE;
    return took == RT__TAKEN || took == RT__HIGH;
}

/* The newest n of what is remembered.  No send runs a callback, so that nothing
   changes the ring meanwhile. */
static int history_give(rt_loop *loop, rt__group *g, rt__session *s, size_t n)
{
    size_t i = g->kept - n;
    int count = 0, took;
    for (; i < g->kept; i++) {
        entry *e = &g->history[(g->oldest + i) % g->history_cap];
        if ((took = give(loop, g, s, e->kind, e->data)) < 0)
            return took;
        count += took;
    }
    return count;
}

/* One key's message, as a reliable one.  Where an older value of the key is
   still on its way in the keyed lane, which comes behind the reliable one, it
   is replaced there, too, or, for want of room, dropped. */
static int latest_give(rt_loop *loop, rt__group *g, rt__session *s, latest *l)
{
    int took = give(loop, g, s, l->kind, l->data);
    if (took < 0 || !rt__key_waits(s, l->key))
        return took;
    took = give(loop, g, s, l->kind | rt_latest((uint16_t)l->key), l->data);
    if (took == 0)
        rt__key_forget(loop, s, l->key);
    return took;
}

/* The newest message of each key: 0 or an error. */
static int snapshot_give(rt_loop *loop, rt__group *g, rt__session *s)
{
    latest *l;
    int took = 0;
    for (l = g->stalest; l && took >= 0; l = l->newer)
        took = latest_give(loop, g, s, l);
    return took < 0 ? took : 0;
}

/* The snapshot goes out in the call, so nothing live can come before it. */
int rt_group_join(rt_loop *loop, rt_group handle, rt_session who)
{
    int error;
    rt__group *g = group_get(loop, handle);
    rt__session *s = rt__session_get(loop, who.id, &error);
    if (!g || !s)
        return g ? error : RT_EGONE;
    if ((error = join(loop, g, s)) < 0)
        return error;
    return snapshot_give(loop, g, s);
}

/* Replays exactly what was missed, or nothing: with RT_EREFUSED, too, it is a
   member.  What is too old goes first, as the timer may be late. */
int rt_group_join_from(rt_loop *loop, rt_group handle, rt_session who,
                       const rt_position *since)
{
    int error = rt_group_join(loop, handle, who);
    rt__group *g = group_get(loop, handle);
    rt__session *s;
    uint64_t missed;
    if (error < 0)
        return error;
    history_trim(loop, g);
    s = rt__session_get(loop, who.id, &error);
    if (!since)
        return history_give(loop, g, s, g->kept);
    /* an offset from the future wraps here, and is refused below */
    missed = g->position.offset - since->offset;
    if (since->epoch != g->position.epoch ||
        since->offset > g->position.offset || missed > g->kept)
        return RT_EREFUSED;
    return history_give(loop, g, s, (size_t)missed);
}

/* Messages to the session were lost: what it has of its groups' snapshots may
   be old.  Those that it joins from here on give theirs at once. */
void rt__groups_owe(rt__session *s)
{
    uint32_t i;
    for (i = 0; i < seat_count(s); i++)
        seat_at(s, i)->owed = 1;
}

/* After on_back: each that is still owed gives its snapshot, once, and beyond
   the mark of the queue.  A session that lost its line for it, and with the
   queue the answer to its greeting, would come for it again and again. */
void rt__groups_repay(rt_loop *loop, rt__session *s)
{
    uint32_t i;
    for (i = 0; i < seat_count(s); i++) { /* one that ends has none any more */
        rt__seat *seat = seat_at(s, i);
        rt__group *g = (rt__group *)rt__slot_at(loop, seat->group);
        int owed = seat->owed;
        seat->owed = 0;
        if (!owed || !g->stalest)
            continue;
        rt__session_lift(loop, s, 1);
        snapshot_give(loop, g, s);
        rt__session_lift(loop, s, 0);
    }
}

/* ---- crowds ------------------------------------------------------------- */

/* Those members who have nothing else to be written wait for the group's
   messages together: framed one behind the other in the group's log, which the
   flush writes to each of them as it stands there, and whoever does not take it
   all gets a piece of it into its queue.  So a turn's second message costs
   nothing for each of them, and its first no queue.  They are the members from
   `apart` on, and the connection of each has the crowd's number.  Whatever else
   is queued for one of them comes behind that: it stands apart from then on,
   with what it waited for in its queue (rt__crowd_part).  A crowd lasts until
   the flush. */

/* A thousand members are more than a cache holds: their sessions are fetched
   ahead, and nearer their connections.  (No functions: gcc takes one that only
   fetches for one that does nothing.) */
#define FETCH_SESSION(g, i)                                                    \
    RT__PREFETCH((i) < (g)->count ? (g)->members[i] : NULL)
#define FETCH_CONN(g, i)                                                       \
    RT__PREFETCH((i) < (g)->count ? (g)->members[i]->conn : NULL)

/* So much may be queued for it, and no mark is reached. */
static int has_room(const rt__ep *ep)
{
    uint32_t most = RT__CROWD_BYTES + RT__PIECE_COST;
    return ep->soft_mark >= most && ep->hard_mark >= most;
}

static int can_crowd(const rt__session *s)
{
    const rt__conn *c = s->conn;
    return c && s->state == RT_OPEN && c->state == RT__LIVE && !c->out &&
           !c->crowd && c->wire == RT__WS_SERVER && !c->typed &&
           !rt__keep_of(s) && !rt__ep_of(s)->codec && has_room(rt__ep_of(s));
}

/* A number for a crowd: its place in the loop's list, and 1.  0: none left. */
static uint16_t crowd_number(rt_loop *loop, rt__group *g)
{
    void *list = loop->crowds;
    if (loop->crowd_count == UINT16_MAX)
        return 0;
    if (loop->crowd_count == loop->crowd_cap) {
        if (rt__grow(loop, &list, &loop->crowd_cap, sizeof g) < 0)
            return 0;
        loop->crowds = (rt__group **)list;
    }
    loop->crowds[loop->crowd_count++] = g;
    return (uint16_t)loop->crowd_count;
}

/* The next log is at least so large. */
static void log_wish(rt__group *g, uint32_t size)
{
    if (size > RT__CROWD_BYTES)
        size = RT__CROWD_BYTES;
    if (size > g->log_wish)
        g->log_wish = size;
}

static void log_close(rt_loop *loop, rt__group *g)
{
    if (g->log)
        loop->logs -= g->log->cap;
    rt__buf_release(loop, g->log);
    g->log = NULL;
}

/* A log with room for a frame.  What is in it is read by those who lag, so it
   is never moved. */
static rt__buf *log_open(rt_loop *loop, rt__group *g, size_t size)
{
    if (g->log && g->log->cap - g->log->len >= size)
        return g->log;
    log_close(loop, g);
    g->log = rt__buf_new(loop, size > g->log_wish ? size : g->log_wish);
    if (g->log)
        loop->logs += g->log->cap;
    return g->log;
}

/* Does somebody lag, and has the log room for as much again?  Nobody tells the
   group when he has caught up, so of all groups together no more is kept than
   LOGS_KEPT. */
static int log_goes_on(const rt_loop *loop, const rt__group *g, uint32_t used)
{
    return g->log->refs > 1 && g->log->cap - g->log->len >= used &&
           loop->logs <= LOGS_KEPT;
}

/* Nobody waits any more.  The log goes on where it can, so that what somebody
   lags by is one piece. */
static void crowd_end(rt_loop *loop, rt__group *g)
{
    uint32_t used = g->crowd.len;
    if (used < g->log_wish / 4)
        g->log_wish /= 2;
    rt__buf_release(loop, g->crowd.buf);
    memset(&g->crowd, 0, sizeof g->crowd);
    g->number = 0;
    g->apart = 0;
    g->told = 0;
    if (log_goes_on(loop, g, used))
        return;
    if (g->log->refs > 1 && loop->logs <= LOGS_KEPT)
        used = RT__CROWD_BYTES / 2; /* the next one will go on for longer */
    log_wish(g, used);
    log_close(loop, g);
}

/* What they wait for goes into the queue of each.  Whose queue has no memory
   ends, as in rt__cast_to. */
static void crowd_close(rt_loop *loop, rt__group *g)
{
    if (!g->number)
        return;
    g->unsent = g->count;
    while (g->unsent > g->apart) {
        rt__session *s = g->members[--g->unsent];
        s->conn->crowd = 0;
        if (rt__conn_queue(loop, s->conn, g->crowd, g->told) == 0)
            continue;
        s->of.lost += g->told;
        rt__session_end(loop, s, 1011, RT_BY_ERROR, "out of memory");
    }
    g->unsent = 0;
    loop->crowds[g->number - 1] = NULL;
    if (g->number == loop->crowd_count)
        loop->crowd_count--;
    crowd_end(loop, g);
}

/* Who can wait does from now on.  0 when nobody can. */
static int crowd_open(rt_loop *loop, rt__group *g, size_t size)
{
    size_t i;
    if (g->count < RT__CROWD_LEAST || !can_crowd(g->members[g->count - 1]) ||
        !log_open(loop, g, size))
        return 0;
    if (!(g->number = crowd_number(loop, g))) {
        log_close(loop, g);
        return 0;
    }
    for (i = 0; i < g->count; i++) {
        rt__session *s = g->members[i];
        FETCH_SESSION(g, i + 16);
        FETCH_CONN(g, i + 8);
        if (can_crowd(s))
            s->conn->crowd = g->number;
        else
            stand_apart(g, s, seat_of(s, g));
    }
    g->crowd.buf = g->log;
    g->crowd.off = g->log->len;
    g->log->refs++;
    return 1;
}

/* One of them is left out this time. */
static int crowd_without(rt_loop *loop, rt__group *g, uint64_t but)
{
    int error;
    rt__session *s = but ? rt__session_get(loop, but, &error) : NULL;
    return !s || !in_crowd(g, s) || rt__crowd_part(loop, s->conn) == 0;
}

/* Is this a message to wait for?  The others find a queue or a mark to judge
   them by. */
static int crowd_wants(const rt__group *g, int kind, size_t size)
{
    int op = kind & 0xff;
    return !(kind & (RT_DROPPABLE | 0x400)) &&
           (op == RT_TEXT || op == RT_BINARY) &&
           size <= RT__CROWD_BYTES - g->crowd.len;
}

/* Is there a crowd that can wait for this message, too? */
static int crowd_ready(rt_loop *loop, rt__group *g, uint64_t but, int kind,
                       size_t len)
{
    size_t size = len + 10; /* the longest head without a mask */
    if (!crowd_wants(g, kind, size) ||
        (!g->number && !crowd_open(loop, g, size)))
        return 0;
    if (g->log->cap - g->log->len >= size)
        return crowd_without(loop, g, but);
    log_wish(g, g->log->cap * 2);
    return 0;
}

/* Puts it behind the others; gives the frame, with a reference of its own. */
static rt__piece crowd_frame(rt_loop *loop, rt__group *g, int kind,
                             const void *data, size_t len)
{
    rt__piece frame = {g->log, g->log->len, 0};
    uint8_t *to = rt__buf_data(g->log) + g->log->len;
    size_t head = rt__frame_write(to, kind & 0xff, len, NULL);
    if (len)
        memcpy(to + head, data, len);
    frame.len = (uint32_t)(head + len);
    g->log->len += frame.len;
    g->log->refs++;
    g->crowd.len += frame.len;
    g->told++;
    loop->stats.messages_out += g->count - g->apart;
    return frame;
}

/* One of a crowd stands apart, with what it waited for in its queue, if that
   is anything yet.  RT_ENOMEM: it waits as before. */
int rt__crowd_part(rt_loop *loop, rt__conn *c)
{
    rt__group *g = loop->crowds[c->crowd - 1];
    c->crowd = 0;
    if (g->told && rt__conn_queue(loop, c, g->crowd, g->told) < 0) {
        c->crowd = g->number;
        return RT_ENOMEM;
    }
    stand_apart(g, c->session, seat_of(c->session, g));
    return 0;
}

/* It will not get what it waits for. */
void rt__crowd_drop(rt_loop *loop, rt__conn *c)
{
    rt__group *g = loop->crowds[c->crowd - 1];
    c->crowd = 0;
    c->session->of.lost += g->told;
    stand_apart(g, c->session, seat_of(c->session, g));
}

size_t rt__crowd_unsent(const rt_loop *loop, const rt__conn *c)
{
    return loop->crowds[c->crowd - 1]->crowd.len;
}

/* From the end: one whose line is gone ends, and leaves. */
static void crowd_flush(rt_loop *loop, rt__group *g)
{
    g->unsent = g->count;
    while (g->unsent > g->apart) {
        rt__session *s = g->members[--g->unsent];
        FETCH_SESSION(g, g->unsent - 4);
        FETCH_CONN(g, g->unsent - 2);
        s->conn->crowd = 0;
        rt__conn_write(loop, s->conn, g->crowd, g->told);
    }
    g->unsent = 0;
    crowd_end(loop, g);
}

void rt__crowds_flush(rt_loop *loop)
{
    size_t i;
    for (i = 0; i < loop->crowd_count; i++)
        if (loop->crowds[i])
            crowd_flush(loop, loop->crowds[i]);
    loop->crowd_count = 0;
}

/* ---- sending ------------------------------------------------------------ */

/* From the end: a member whose queue is full ends and leaves, or another one
   does that was away for too long.  members[0..n) get it. */
static int cast_below(rt_loop *loop, rt__group *g, size_t n, uint64_t but,
                      rt__cast *cast)
{
    int count = 0;
    g->unsent = n;
    while (g->unsent > 0) {
        rt__session *s = g->members[--g->unsent];
        int took;
        if (s->id == but)
            continue;
        took = rt__cast_to(loop, cast, s);
        count += took == RT__TAKEN || took == RT__HIGH;
    }
    return count;
}

/* To those apart from the crowd one by one, in the crowd's frame where they
   take that; the others wait for it. */
static int cast_crowd(rt_loop *loop, rt__group *g, uint64_t but, rt__cast *cast)
{
    size_t waiting = g->count - g->apart;
    cast->form[0] = crowd_frame(loop, g, cast->kind, cast->data, cast->len);
    return (int)waiting + cast_below(loop, g, g->apart, but, cast);
}

static int cast_all(rt_loop *loop, rt__group *g, uint64_t but, int kind,
                    const void *data, size_t len)
{
    rt__cast cast;
    int count;
    rt__cast_open(&cast, g->id, kind, data, len);
    if (crowd_ready(loop, g, but, kind, len)) {
        count = cast_crowd(loop, g, but, &cast);
    } else {
        crowd_close(loop, g);
        count = cast_below(loop, g, g->count, but, &cast);
    }
    rt__cast_close(loop, &cast);
    return count;
}

/* Remembers it, as the options ask for, and sends it to the members.  The
   snapshot (0x400: rt_latest) comes first, as it alone may fail; what is
   droppable has no offset, since who missed it shall not be told so. */
static int spread(rt_loop *loop, rt__group *g, uint64_t but, int kind,
                  const void *data, size_t len)
{
    g->used = rt_now(loop);
    if (kind & 0x400 && !(kind & RT_NO_HISTORY) && g->opts.snapshot > 0 &&
        latest_put(loop, g, kind, data, len) < 0)
        return RT_ENOMEM;
    if (!(kind & (RT_DROPPABLE | RT_NO_HISTORY | 0x400))) {
        history_add(loop, g, kind, data, len);
        group_schedule(loop, g);
    }
    return cast_all(loop, g, but, kind, data, len);
}

/* What the host sends, and not what comes from upstream.  Only what was taken
   is published, and counts against the limits. */
static int publish(rt_loop *loop, rt__group *g, uint64_t but, int kind,
                   const void *data, size_t len)
{
    int took = rt__send_check(kind, data, len);
    if (took < 0)
        return took;
    if (!group_admits(loop, g, len))
        return RT_EREFUSED;
    g->used = rt_now(loop);
    if (g->opts.upstream > 0) { /* it comes back, in one order for all */
        took = rt__note(loop, RT__GROUP_OUT, g->name, kind, data, len);
    } else {
        took = spread(loop, g, but, kind, data, len);
        if (took >= 0)
            rt__note(loop, RT__GROUP_OUT, g->name, kind, data, len);
    }
    if (took >= 0)
        group_takes(loop, g, len);
    return took;
}

int rt_group_send_but(rt_loop *loop, rt_group handle, rt_session but, int kind,
                      const void *data, size_t len)
{
    rt__group *g = group_get(loop, handle);
    return g ? publish(loop, g, but.id, kind, data, len) : RT_EGONE;
}

int rt_group_send(rt_loop *loop, rt_group group, int kind, const void *data,
                  size_t len)
{
    rt_session nobody = {0};
    return rt_group_send_but(loop, group, nobody, kind, data, len);
}

int rt_group_send_once(rt_loop *loop, rt_group handle, const char *key,
                       int kind, const void *data, size_t len, rt_position *at)
{
    rt__group *g = group_get(loop, handle);
    once *o;
    int took = RT_EEXIST;
    if (!g || !name_valid(key))
        return g ? RT_EINVAL : RT_EGONE;
    /* A key is in the table before its message goes out, so that nothing can
       fail behind the send, and counts only when that went well. */
    once_trim(loop, g);
    if (!(o = once_find(loop, g, key))) {
        if (!(o = once_new(loop, g, key)))
            return RT_ENOMEM;
        took = publish(loop, g, 0, kind, data, len);
        if (took < 0) {
            once_free(loop, g, o);
            return took;
        }
        once_add(loop, g, o);
        group_schedule(loop, g);
    }
    if (at)
        *at = o->at;
    return took;
}

int rt_group_deliver(rt_loop *loop, const char *name, int kind,
                     const void *data, size_t len)
{
    rt__group *g = group_get(loop, rt_group_find(loop, name));
    int error = rt__send_check(kind, data, len);
    if (!g)
        return RT_EGONE;
    return error < 0 ? error : spread(loop, g, 0, kind, data, len);
}
