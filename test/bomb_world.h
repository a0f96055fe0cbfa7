/*
 * The objects of a bombed world, as the answers of the calls and the callbacks
 * tell of them; how one is drawn; what must be true of them.
 */
#ifndef BOMB_WORLD_H
#define BOMB_WORLD_H

enum { WHOS = 160, ROOMS = 48, CLOCKS = 64, EYES = 12, DOORS = 24 };
enum { TOKENS = 8, PIPES = 3, NAMES = 8, LOCKED = 9, HANDSHAKE = 100 };

/* A session or handshake: all that is known of it. */
struct who {
    rt_session s;
    int dialled, asked, opened, closed, away;
    unsigned ended; /* rt_close said yes: on_close is due by the end of it */
    void *user;
    unsigned born; /* the older of two that are over makes room */
    char uid[8];   /* bound by a call; "": not */
};

struct room {
    rt_group g;
    int open, ttl, rated;
    unsigned born;
    rt_position at;
    char name[12];
    const char *name_lives; /* what rt_group_name said */
    uint8_t in[WHOS], present[WHOS];
};

struct clock {
    rt_timer t;
    rt_session owner;
    int runs; /* it was started and neither ran nor was stopped */
    uint64_t due;
    unsigned started; /* in which turn */
};

struct eye {
    rt_watch watch;
    int on, events, fd;
};

struct door {
    rt_listener l;
    int open, port;
};

/* Handles of a loop that never turns, as strange as can be. */
struct abroad {
    rt_loop *loop;
    rt_session s;
    rt_group g;
    rt_listener l;
    rt_timer t;
};

static struct bomb_world {
    rt_loop *loop;
    struct abroad other;
    int backend;
    /* what is to be done: one call at one place, or any at some rate */
    int forced, done, variant;
    enum bomb_place at;
    enum bomb_call call, call_wanted; /* the present one, the one to make */
    int rate, left; /* out of 100 callbacks; calls that may still be made */
    int may_dry;    /* memory may run out, and then did: dry */
    /* where we are */
    enum bomb_place place;
    rt_session self;
    const rt_request *request;
    const void *data; /* of the message under way */
    size_t data_len;
    int data_kind;
    int depth, freeing, turning, drained, draining, dry;
    unsigned turn, serial;
    uint64_t upcalls, digest;
    uint64_t now;  /* when the turn began */
    int no_effect; /* the present call said that it did nothing */
    /* the objects */
    struct who whos[WHOS];
    ptrdiff_t who_count, room_count; /* so many were ever used */
    struct room rooms[ROOMS];
    struct clock clocks[CLOCKS];
    struct eye eyes[EYES];
    struct door doors[DOORS];
    char tokens[TOKENS][23];
    unsigned tokens_made;
    int pipes[PIPES][2];
    uintptr_t posted, ran;
    uint64_t sent; /* bytes, by all calls */
    int context;   /* opts.user of all sessions */
} w;

/* ---- small things ------------------------------------------------------- */

static void mix(uint64_t n)
{
    w.digest = (w.digest ^ n) * UINT64_C(0x100000001b3) + 1;
}

#define CHOSEN(array) ((array)[sim_choose(sizeof(array) / sizeof *(array))])

/* A message of len bytes tells by itself whether it is whole. */
static void message_fill(uint8_t *to, size_t len)
{
    size_t i;

    for (i = 0; i < len; i++)
        to[i] = (uint8_t)('a' + (len * 7 + i * 3) % 26);
}

static void message_check(const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t i;

    for (i = 0; i < len; i++) {
        if (p[i] == 'a' + (len * 7 + i * 3) % 26)
            continue;
        sim_fault("a message of %zu bytes is wrong at %zu: %.8s", len, i,
                  (const char *)data);
        return;
    }
}

/* ---- records ------------------------------------------------------------ */

static struct who *who_find(rt_session s)
{
    struct who *p;

    for (p = w.whos; s.id && p < w.whos + w.who_count; p++) {
        if (p->s.id == s.id)
            return p;
    }
    return NULL;
}

static int over(const struct who *p)
{
    return p->closed ||
           (!p->opened && !p->dialled && rt_state(w.loop, p->s) == RT_EGONE);
}

/* A free record, or that of the oldest who is over. */
static struct who *who_new(rt_session s)
{
    struct who *p, *best = NULL;
    int i;

    for (p = w.whos; p < w.whos + WHOS; p++) {
        if (p->s.id && !over(p))
            continue;
        if (!best || p->born < best->born)
            best = p;
    }
    if (!best) {
        sim_fault("too many sessions for the model");
        best = w.whos;
    }
    memset(best, 0, sizeof *best);
    for (i = 0; i < ROOMS; i++)
        w.rooms[i].in[best - w.whos] = w.rooms[i].present[best - w.whos] = 0;
    best->s = s;
    best->born = ++w.serial;
    if (w.who_count <= best - w.whos)
        w.who_count = best - w.whos + 1;
    return best;
}

static struct who *who_of(rt_session s)
{
    struct who *p = who_find(s);

    return p ? p : who_new(s);
}

static int living(const struct who *p)
{
    int state;

    if (!p->opened || p->closed)
        return 0;
    state = rt_state(w.loop, p->s);
    return state == RT_OPEN || state == RT_AWAY;
}

static int sessions_here(void)
{
    int i, n = 0;

    for (i = 0; i < w.who_count; i++)
        n += w.whos[i].s.id && !over(&w.whos[i]);
    return n;
}

static struct room *room_find(rt_group g)
{
    struct room *r;

    for (r = w.rooms; g.id && r < w.rooms + w.room_count; r++) {
        if (r->g.id == g.id)
            return r;
    }
    return NULL;
}

static struct room *room_new(rt_group g, const char *name)
{
    struct room *r, *best = NULL;

    for (r = w.rooms; r < w.rooms + ROOMS; r++) {
        if (!r->open && (!best || r->born < best->born))
            best = r;
    }
    memset(best, 0, sizeof *best);
    best->g = g;
    best->open = 1;
    best->born = ++w.serial;
    if (w.room_count <= best - w.rooms)
        w.room_count = best - w.rooms + 1;
    best->name_lives = rt_group_name(w.loop, g);
    best->at = rt_group_position(w.loop, g);
    snprintf(best->name, sizeof best->name, "%s", name);
    return best;
}

static void room_over(struct room *r)
{
    r->open = 0;
    memset(r->in, 0, sizeof r->in);
}

static size_t room_count(const struct room *r)
{
    size_t i, n = 0;

    for (i = 0; i < (size_t)w.who_count; i++)
        n += r->in[i] && living(&w.whos[i]);
    return n;
}

/* ---- what a call is aimed at -------------------------------------------- */

/* By variant: the object of the callback, any other, one that is over, or any
   of these and of what never was. */
enum aim { SELF, ANOTHER, STALE, ANY, VARIANTS };

static enum aim aim_draw(void)
{
    int n = w.forced ? w.variant : (int)sim_choose(8);

    return n == SELF || n == ANOTHER || n == STALE ? (enum aim)n
           : sim_choose(4)                         ? ANOTHER
                                                   : ANY;
}

/* An id that names nothing of its kind: of the other loop, of other kinds, or
   wrong in one bit. */
static uint64_t id_strange(uint64_t own, uint64_t others)
{
    switch (sim_choose(7)) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return others;
    case 3:
        return own ^ (UINT64_C(1) << sim_choose(64));
    case 4:
        return w.rooms[sim_choose(ROOMS)].g.id;
    case 5:
        return w.clocks[sim_choose(CLOCKS)].t.id;
    default:
        return w.doors[sim_choose(DOORS)].l.id;
    }
}

static rt_session who_any(int stale)
{
    rt_session none = {0};
    uint32_t at = sim_choose(WHOS);
    int i;

    for (i = 0; i < WHOS; i++, at++) {
        struct who *p = &w.whos[at % WHOS];
        if (p->s.id && over(p) == stale)
            return p->s;
    }
    return none;
}

/* An open one, or nobody. */
static rt_session who_open(void)
{
    rt_session none = {0};
    uint32_t at = sim_choose(WHOS);
    int i;

    for (i = 0; i < WHOS; i++, at++) {
        if (living(&w.whos[at % WHOS]))
            return w.whos[at % WHOS].s;
    }
    return none;
}

/* Of what cannot be a session; an id that is one by chance is as good. */
static rt_session who_strange(void)
{
    rt_session s;

    s.id = id_strange(w.self.id, w.other.s.id);
    return s;
}

static rt_session aim_session(void)
{
    enum aim aim = aim_draw();

    if (aim == SELF && w.self.id)
        return w.self;
    if (aim == ANY && sim_choose(3))
        return who_strange();
    return who_any(aim == STALE);
}

static struct room *room_any(int open)
{
    uint32_t at = sim_choose(ROOMS);
    int i;

    for (i = 0; i < ROOMS; i++, at++) {
        struct room *r = &w.rooms[at % ROOMS];
        if (r->g.id && r->open == open)
            return r;
    }
    return NULL;
}

/* Self's are the groups that it is in. */
static struct room *room_of_self(void)
{
    struct who *p = who_find(w.self);
    uint32_t at = sim_choose(ROOMS);
    int i;

    for (i = 0; p && i < ROOMS; i++, at++) {
        struct room *r = &w.rooms[at % ROOMS];
        if (r->open && r->in[p - w.whos])
            return r;
    }
    return room_any(1);
}

static rt_group aim_group(void)
{
    enum aim aim = aim_draw();
    struct room *r = aim == SELF ? room_of_self() : room_any(aim != STALE);
    rt_group g = {0};

    if (r)
        g = r->g;
    if (aim != ANY || !sim_choose(3))
        return g;
    g.id = sim_choose(2) ? id_strange(g.id, w.other.g.id)
                         : w.whos[sim_choose(WHOS)].s.id;
    return g;
}

/* ---- what a handle must answer ------------------------------------------ */

/* What is known of a session says which states it may have now. */
static void state_check(const struct who *p, int state)
{
    if (p->closed ? state != RT_EGONE
        : p->opened
            ? state != RT_OPEN && state != RT_AWAY && state != RT_CLOSING
        : p->dialled ? state != RT_OPENING && state != RT_CLOSING
                     : state != RT_OPENING && state != RT_EGONE)
        sim_fault("state %d of a session (dialled %d, opened %d, closed %d)",
                  state, p->dialled, p->opened, p->closed);
}

/* rt_state of a handle; HANDSHAKE of one that is no session yet. */
static int state_of(rt_session s)
{
    const struct who *p = who_find(s);
    int state = rt_state(w.loop, s);

    if (!p) {
        if (state != RT_EGONE)
            sim_fault("a handle of nothing has state %d", state);
        return state;
    }
    state_check(p, state);
    return state == RT_OPENING && !p->dialled ? HANDSHAKE : state;
}

#define E(name) (1U << -(name))

/* Errors of which one must come where a call wants an open session; 0: it may
   do its work. */
static unsigned unfit(int state)
{
    if (state == RT_OPEN || state == RT_AWAY)
        return 0;
    return state == RT_OPENING || state == HANDSHAKE ? E(RT_ESTATE)
                                                     : E(RT_EGONE);
}

/* One whose time to live is over ends in a turn, before others hear of it. */
static int room_lives(struct room *r)
{
    if (r->open && r->ttl && !room_count(r) && !rt_group_name(w.loop, r->g))
        room_over(r);
    return r->open;
}

static int group_lives(rt_group g)
{
    struct room *r = room_find(g);

    return r && room_lives(r);
}

/* Of these errors a call says that nothing happened. */
#define NOTHING                                                                \
    (E(RT_EGONE) | E(RT_EINVAL) | E(RT_ESTATE) | E(RT_EBOUND) | E(RT_EUTF8) |  \
     E(RT_EEXIST))

/* The answer has to be one of these errors, or, where ok, none. */
static void answered(long long got, int ok, unsigned errors)
{
    if (w.dry)
        errors |= E(RT_ENOMEM) | E(RT_ESYS);
    if (got >= 0 ? !ok : got < -31 || !(errors >> -got & 1))
        sim_fault("%s in %s answered %lld (%s), not of %x%s",
                  bomb_names[w.call], bomb_places[w.place], got,
                  got < 0 ? rt_strerror((int)got) : "ok", errors,
                  ok ? " or ok" : "");
    if (got < 0 && got >= -31 && NOTHING >> -got & 1)
        w.no_effect = 1;
}

/* ---- the whole, seen from outside --------------------------------------- */

static uint64_t seen_add(uint64_t h, uint64_t n)
{
    return (h ^ n) * UINT64_C(0x100000001b3);
}

/* All that a call which did nothing must leave as it was. */
static uint64_t seen(void)
{
    uint64_t h = 1;
    rt_position at;
    int i;

    for (i = 0; i < w.who_count; i++) {
        rt_session s = w.whos[i].s;
        if (!s.id || w.whos[i].closed)
            continue;
        h = seen_add(h, (uint64_t)rt_state(w.loop, s));
        h = seen_add(h, rt_unsent(w.loop, s));
        h = seen_add(h, (uintptr_t)rt_uid(w.loop, s));
        h = seen_add(h, (uintptr_t)rt_user(w.loop, s));
    }
    for (i = 0; i < w.room_count; i++) {
        if (!room_lives(&w.rooms[i]))
            continue;
        at = rt_group_position(w.loop, w.rooms[i].g);
        h = seen_add(h, rt_group_count(w.loop, w.rooms[i].g));
        h = seen_add(h, at.epoch ^ at.offset);
    }
    for (i = 0; i < DOORS; i++)
        if (w.doors[i].l.id)
            h = seen_add(h, (uint64_t)rt_listener_port(w.loop, w.doors[i].l));
    return h;
}

/* ---- after a turn ------------------------------------------------------- */

static void who_check(const struct who *p)
{
    const char *uid;
    int state;

    if (!p->s.id)
        return;
    state = rt_state(w.loop, p->s);
    state_check(p, state);
    if (p->ended && w.turn >= p->ended && !p->closed)
        sim_fault("a session was ended, but on_close did not come");
    if (!p->opened || p->closed)
        return;
    if (rt_user(w.loop, p->s) != p->user)
        sim_fault("rt_user is not what was set");
    uid = rt_uid(w.loop, p->s);
    if (*p->uid && (!uid || strcmp(uid, p->uid) != 0))
        sim_fault("rt_uid is %s, not %s", uid ? uid : "(null)", p->uid);
    if (rt_context(w.loop, p->s) != &w.context)
        sim_fault("rt_context is not opts.user");
}

/* Who is in it, by the list and by the model. */
static void members_check(struct room *r)
{
    rt_session list[WHOS + 1];
    size_t n = rt_group_members(w.loop, r->g, list, WHOS), i, k;
    const struct who *p;

    for (i = 0; i < n && i < WHOS; i++) {
        p = who_find(list[i]);
        if (!p || !r->in[p - w.whos] || !living(p))
            sim_fault("group %s has a member that %s", r->name,
                      !p          ? "is nobody"
                      : living(p) ? "did not join"
                                  : "is over");
        for (k = 0; k < i; k++)
            if (rt_same(list[i], list[k]))
                sim_fault("group %s has a member twice", r->name);
    }
    if (n != room_count(r) || n != rt_group_count(w.loop, r->g))
        sim_fault("group %s has %zu members, not %zu", r->name, n,
                  room_count(r));
}

static void room_check(struct room *r)
{
    const char *name = rt_group_name(w.loop, r->g);
    rt_position at = rt_group_position(w.loop, r->g);

    if (!r->open) {
        if (r->g.id && name)
            sim_fault("group %s is over, but has a name", r->name);
        return;
    }
    if (!name && r->ttl && !room_count(r)) { /* its time to live is over */
        room_over(r);
        return;
    }
    if (!name || strcmp(name, r->name) != 0 || name != r->name_lives)
        sim_fault("group %s has the name %s", r->name, name ? name : "(null)");
    if (at.epoch != r->at.epoch || !at.epoch || at.offset < r->at.offset)
        sim_fault("group %s: its position went back", r->name);
    r->at = at;
    members_check(r);
}

/* Every session that is open or away, once. */
static void walk_check(void)
{
    rt_session s = {0};
    int i, n = 0, want = 0;

    for (s = rt_next_session(w.loop, s); s.id && n <= WHOS; n++) {
        if (!who_find(s) || !living(who_find(s)))
            sim_fault("rt_next_session finds one that is not open");
        s = rt_next_session(w.loop, s);
    }
    for (i = 0; i < w.who_count; i++)
        want += living(&w.whos[i]);
    if (n != want)
        sim_fault("rt_next_session finds %d sessions, not %d", n, want);
}

/* Generous: what is queued, kept and remembered is bounded by what was sent. */
static void heap_check(void)
{
    size_t most = 4000000 + (size_t)sim_streams() * 200000 +
                  (size_t)sessions_here() * 60000 + 3 * (size_t)w.sent;

    if (sim_heap() > most)
        sim_fault("a heap of %zu bytes, %zu are expected", sim_heap(), most);
}

/* What was due before the turn, and was there, has run in it. */
static void clocks_check(void)
{
    const struct who *p;
    struct clock *c;

    for (c = w.clocks; c < w.clocks + CLOCKS; c++) {
        if (!c->runs)
            continue;
        p = who_find(c->owner);
        if (c->owner.id && (!p || !living(p)))
            c->runs = 0; /* its owner ended, and it with that */
        if (c->runs && c->due <= w.now && c->started < w.turn)
            sim_fault("a timer is %d ms late", (int)(w.now - c->due));
    }
}

static void world_check(void)
{
    int i;

    for (i = 0; i < w.who_count; i++)
        who_check(&w.whos[i]);
    for (i = 0; i < w.room_count; i++)
        room_check(&w.rooms[i]);
    walk_check();
    heap_check();
    clocks_check();
}

#endif
