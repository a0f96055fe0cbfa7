/*
 * Groups: named sets of sessions, with a dense list of members.
 *
 * A member's place in that list is kept in a seat of the session, so that it
 * leaves in O(its own groups).  Whoever leaves, the last member takes its
 * place; lists are therefore walked from the end, where sending to one may
 * end it.  Presence events wait in a list for the events phase.
 */
#include "rtnet_internal.h"

struct rt__group {
    rt__node node; /* first: the table of groups */
    uint64_t id;
    char *name;
    rt_group_opts opts;
    rt__session **members;
    size_t count, cap;
    rt__timer ttl;
    uint64_t used;         /* when it was last used */
    rt_position position;  /* of the newest message */
    struct entry *history; /* a ring of `kept` entries from `oldest` on */
    size_t oldest, kept, history_cap, history_bytes;
};

/* A message that a group remembers. */
typedef struct entry {
    rt__buf *data;
    int kind;
    uint64_t when;
} entry;

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

/* ---- making and finding ------------------------------------------------- */

static rt__group *group_find(rt_loop *loop, const char *name, uint64_t hash)
{
    rt__node *n = rt__table_find(&loop->groups, hash);
    while (n && strcmp(((rt__group *)n)->name, name) != 0)
        n = rt__table_more(n);
    return (rt__group *)n;
}

static void history_shift(rt_loop *loop, rt__group *g);

static void group_free(rt_loop *loop, rt__group *g)
{
    while (g->kept > 0)
        history_shift(loop, g);
    rt__free(loop, g->history, g->history_cap * sizeof *g->history);
    if (g->ttl.kind)
        rt__timer_disown(loop, &g->ttl);
    rt__free(loop, g->members, g->cap * sizeof(rt__session *));
    rt__strfree(loop, g->name);
    rt__free(loop, g, sizeof *g);
}

static rt__group *group_new(rt_loop *loop, const char *name, uint64_t hash)
{
    rt__group *g = (rt__group *)rt__alloc(loop, sizeof *g);
    if (!g)
        return NULL;
    g->node.hash = hash;
    g->name = rt__strdup(loop, name);
    g->position.epoch = rt__random(loop) | 1;
    g->used = rt_now(loop);
    if (g->name && rt__timer_adopt(loop, &g->ttl, RT__OF_GROUP) == 0)
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

rt_group rt_group_open(rt_loop *loop, const char *name,
                       const rt_group_opts *opts)
{
    rt_group none = {0};
    rt__group *g;
    uint64_t hash;
    if (!name_valid(name))
        return rt__fail(loop, RT_EINVAL, "group name", NULL), none;
    hash = rt__hash(loop, name, strlen(name));
    if ((g = group_find(loop, name, hash)) != NULL) {
        g->used = rt_now(loop);
        return group_handle(g);
    }
    if (loop->freeing)
        return rt__fail(loop, RT_ESTATE, "group", NULL), none;
    if (loop->groups.count >= (size_t)loop->opts.max_groups)
        return rt__fail(loop, RT_EFULL, "groups", NULL), none;
    if (!(g = group_new(loop, name, hash)))
        return rt__fail(loop, RT_ENOMEM, "group", NULL), none;
    if (opts)
        g->opts = *opts;
    if (g->opts.ttl_ms > 0)
        rt__timer_set(loop, &g->ttl, rt_now(loop) + (uint64_t)g->opts.ttl_ms);
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

static rt__seat *seat_of(rt__session *s, const rt__group *g)
{
    uint32_t i;
    for (i = 0; i < s->seat_count; i++)
        if (s->seats[i].group == slot_index(g))
            return &s->seats[i];
    return NULL;
}

/* Tells the host in the events phase. */
static void presence(rt_loop *loop, rt__group *g, rt__session *s, int what)
{
    rt__presence *p;
    if (!g->opts.event)
        return;
    p = (rt__presence *)rt__alloc(loop, sizeof *p);
    if (!p) {
        loop->stats.presence_lost++;
        rt__log(loop, RT_LOG_ERROR, "presence lost", rt_strerror(RT_ENOMEM));
        return;
    }
    p->group.id = g->id;
    p->who.id = s->id;
    p->what = what;
    if (loop->presence_last)
        loop->presence_last->next = p;
    else
        loop->presence_first = p;
    loop->presence_last = p;
}

/* Something happened to a session: all its groups hear of it. */
void rt__groups_presence(rt_loop *loop, rt__session *s, int what)
{
    uint32_t i;
    for (i = 0; i < s->seat_count; i++)
        presence(loop, (rt__group *)rt__slot_at(loop, s->seats[i].group), s,
                 what);
}

int rt__groups_busy(rt_loop *loop)
{
    return loop->presence_first != NULL;
}

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
    void *members = g->members, *seats = s->seats;
    size_t cap = s->seat_cap;
    if (g->count == g->cap) {
        if (rt__grow(loop, &members, &g->cap, sizeof(rt__session *)) < 0)
            return RT_ENOMEM;
        g->members = (rt__session **)members;
    }
    if (s->seat_count == cap) {
        if (rt__grow(loop, &seats, &cap, sizeof *s->seats) < 0)
            return RT_ENOMEM;
        s->seats = (rt__seat *)seats;
        s->seat_cap = (uint32_t)cap;
    }
    return 0;
}

static int join(rt_loop *loop, rt__group *g, rt__session *s)
{
    rt__seat *seat;
    if (seat_of(s, g))
        return RT_EEXIST;
    if ((g->opts.max_members > 0 && g->count >= (size_t)g->opts.max_members) ||
        s->seat_count >= (uint32_t)loop->opts.groups_per_session)
        return RT_EFULL;
    if (join_room(loop, g, s) < 0)
        return RT_ENOMEM;
    seat = &s->seats[s->seat_count++];
    seat->group = slot_index(g);
    seat->index = (uint32_t)g->count;
    g->members[g->count++] = s;
    loop->seats++;
    g->used = rt_now(loop);
    if (g->count == 1)
        rt__note(loop, RT__GROUP_FIRST, g->name, 0, NULL, 0);
    presence(loop, g, s, RT_JOINED);
    return 0;
}

int rt_group_join(rt_loop *loop, rt_group handle, rt_session who)
{
    int error;
    rt__group *g = group_get(loop, handle);
    rt__session *s = rt__session_get(loop, who.id, &error);
    if (!g || !s)
        return g ? error : RT_EGONE;
    return join(loop, g, s);
}

/* The last member takes the place that became free. */
static void member_remove(rt__group *g, uint32_t index)
{
    rt__session *last = g->members[--g->count];
    if (index == g->count)
        return;
    g->members[index] = last;
    seat_of(last, g)->index = index;
}

/* The last member left: its time to live runs from here. */
static void group_emptied(rt_loop *loop, rt__group *g)
{
    rt__note(loop, RT__GROUP_LAST, g->name, 0, NULL, 0);
    g->used = rt_now(loop);
    if (g->opts.ttl_ms > 0)
        rt__timer_set(loop, &g->ttl, rt_now(loop) + (uint64_t)g->opts.ttl_ms);
}

static void leave(rt_loop *loop, rt__group *g, rt__session *s, rt__seat *seat)
{
    uint32_t index = seat->index;
    *seat = s->seats[--s->seat_count];
    member_remove(g, index);
    loop->seats--;
    presence(loop, g, s, RT_LEFT);
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
    leave(loop, g, s, seat);
    return 0;
}

/* A session that ends leaves all its groups. */
void rt__groups_leave(rt_loop *loop, rt__session *s)
{
    while (s->seat_count > 0) {
        rt__seat *seat = &s->seats[s->seat_count - 1];
        leave(loop, (rt__group *)rt__slot_at(loop, seat->group), s, seat);
    }
}

static void group_end(rt_loop *loop, rt__group *g)
{
    if (g->count > 0)
        rt__note(loop, RT__GROUP_LAST, g->name, 0, NULL, 0);
    loop->seats -= g->count;
    loop->stats.groups_closed++;
    while (g->count > 0) {
        rt__session *s = g->members[--g->count];
        *seat_of(s, g) = s->seats[s->seat_count - 1];
        s->seat_count--;
    }
    rt__table_remove(&loop->groups, &g->node);
    rt__slot_free(loop, g->id);
    group_free(loop, g);
}

/* Its time to live is over, unless it was used meanwhile. */
void rt__group_due(rt_loop *loop, rt__timer *timer)
{
    size_t at = offsetof(rt__group, ttl);
    rt__group *g = (rt__group *)((char *)timer - at);
    uint64_t due = g->used + (uint64_t)g->opts.ttl_ms;
    if (g->count > 0)
        return; /* it is set again when the last one leaves */
    if (due > rt_now(loop))
        rt__timer_set(loop, &g->ttl, due);
    else
        group_end(loop, g);
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

/* ---- history ------------------------------------------------------------ */

static int remembers(const rt_group_opts *o)
{
    return o->history > 0 || o->history_bytes > 0 || o->history_ms > 0;
}

/* The oldest message is forgotten. */
static void history_shift(rt_loop *loop, rt__group *g)
{
    entry *e = &g->history[g->oldest];
    g->history_bytes -= e->data->len;
    loop->history_bytes -= e->data->len;
    loop->history_count--;
    rt__buf_release(loop, e->data);
    g->oldest = g->oldest + 1 == g->history_cap ? 0 : g->oldest + 1;
    g->kept--;
}

/* Forgets what is too much, or too old. */
static void history_trim(rt_loop *loop, rt__group *g)
{
    const rt_group_opts *o = &g->opts;
    while (g->kept > 0 &&
           ((o->history > 0 && g->kept > (size_t)o->history) ||
            (o->history_bytes > 0 &&
             g->history_bytes > (size_t)o->history_bytes) ||
            (o->history_ms > 0 && rt_now(loop) - g->history[g->oldest].when >
                                      (uint64_t)o->history_ms)))
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

/* The message gets its offset, and is remembered.  Without memory for it what
   went before is forgotten, too: who asks is told that some are missing. */
static void history_add(rt_loop *loop, rt__group *g, int kind, const void *data,
                        size_t len)
{
    rt__buf *b;
    entry *e;
    g->position.offset++;
    if (!remembers(&g->opts))
        return;
    b = rt__buf_new(loop, len + 1);
    if (!b || (g->kept == g->history_cap && history_grow(loop, g) < 0)) {
        rt__buf_release(loop, b);
        while (g->kept > 0)
            history_shift(loop, g);
        return;
    }
    if (len)
        memcpy(rt__buf_data(b), data, len);
    b->len = (uint32_t)len;
    e = &g->history[(g->oldest + g->kept++) % g->history_cap];
    e->data = b;
    e->kind = kind;
    e->when = rt_now(loop);
    g->history_bytes += len;
    loop->history_bytes += len;
    loop->history_count++;
    history_trim(loop, g);
}

/* Sends the newest n of what is remembered; how many were taken. */
static int history_send(rt_loop *loop, rt__group *g, rt__session *s, size_t n)
{
    size_t i = g->kept - n;
    int count = 0;
    for (; i < g->kept; i++) {
        entry *e = &g->history[(g->oldest + i) % g->history_cap];
        rt__cast cast;
        int took;
        rt__cast_open(&cast, g->id, e->kind, rt__buf_data(e->data),
                      e->data->len);
        took = rt__cast_to(loop, &cast, s);
        rt__cast_close(loop, &cast);
        if (took < 0)
            return count;
        count += took == RT__TAKEN || took == RT__HIGH;
    }
    return count;
}

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
        return history_send(loop, g, s, g->kept);
    missed = g->position.offset - since->offset;
    if (since->epoch != g->position.epoch ||
        since->offset > g->position.offset || missed > g->kept)
        return RT_EREFUSED;
    return history_send(loop, g, s, (size_t)missed);
}

rt_position rt_group_position(rt_loop *loop, rt_group handle)
{
    rt__group *g = group_get(loop, handle);
    rt_position nowhere = {0, 0};
    return g ? g->position : nowhere;
}

/* ---- sending ------------------------------------------------------------ */

/* From the end: a member whose queue is full ends and leaves. */
static int send_all(rt_loop *loop, rt__group *g, uint64_t but, int kind,
                    const void *data, size_t len)
{
    rt__cast cast;
    size_t i = g->count;
    int count = 0;
    g->used = rt_now(loop);
    if (!(kind & (RT_DROPPABLE | RT_NO_HISTORY | 0x400)))
        history_add(loop, g, kind, data, len);
    rt__cast_open(&cast, g->id, kind, data, len);
    while (i-- > 0) {
        rt__session *s = g->members[i];
        int took;
        if (s->id == but)
            continue;
        took = rt__cast_to(loop, &cast, s);
        count += took == RT__TAKEN || took == RT__HIGH;
    }
    rt__cast_close(loop, &cast);
    return count;
}

int rt_group_send_but(rt_loop *loop, rt_group handle, rt_session but, int kind,
                      const void *data, size_t len)
{
    rt__group *g = group_get(loop, handle);
    int error = rt__send_check(kind, data, len);
    if (!g)
        return RT_EGONE;
    if (error < 0)
        return error;
    rt__note(loop, RT__GROUP_OUT, g->name, kind, data, len);
    if (g->opts.upstream > 0)
        return 0; /* it comes back from there, for all servers in one order */
    return send_all(loop, g, but.id, kind, data, len);
}

int rt_group_send(rt_loop *loop, rt_group group, int kind, const void *data,
                  size_t len)
{
    rt_session nobody = {0};
    return rt_group_send_but(loop, group, nobody, kind, data, len);
}

int rt_group_deliver(rt_loop *loop, const char *name, int kind,
                     const void *data, size_t len)
{
    rt_group handle = rt_group_find(loop, name);
    rt__group *g = group_get(loop, handle);
    int error = rt__send_check(kind, data, len);
    if (!g)
        return RT_EGONE;
    return error < 0 ? error : send_all(loop, g, 0, kind, data, len);
}
