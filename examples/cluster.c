/*
 * Chat rooms over several servers with one Redis between them, in rtnet's
 * loop by way of hiredis.  cluster PORT [REDIS-PORT]
 *
 * ws://localhost:PORT/?room=ROOM&user=USER (1 to 32 letters, digits, - or _)
 *   from a client  TEXT, said to the room; "/tell USER TEXT", to that user
 *                  wherever he is; binary, to the room as it is
 *   to a client    "say USER TEXT", "tell USER TEXT", "here COUNT" when people
 *                  come and go, on all servers; "redis down", "redis up"
 *   /metrics, /health ("ok" or "degraded")
 *
 * Order     What is said goes to Redis, and is delivered when it comes back:
 *           every member on every server sees the same order.  Until then it
 *           waits here too: when Redis is lost it is delivered at once, and so
 *           is what follows.  It is told apart by number, so nothing is
 *           delivered twice.
 * Presence  Each server writes its share of a room's count every second, and
 *           what is older than SHARE_MS does not count.
 * Logins    A claim in Redis says which login of a user counts: the newest.
 *           Its server renews it, and gives it up if it is still its own.
 *           While Redis is away each server decides for itself.
 *
 * In Redis  rt:room:ROOM  the shares by node; also the room's channel, with
 *                         "NODE,NUMBER,KIND,DATA" and "here COUNT"
 *           rt:user:USER  "NODE-NUMBER" of the login that counts
 *           rt:node:NODE  the server's channel: "beat" (of itself), "kick USER
 *                         CLAIM", "push KIND USER DATA"
 */
#define _DEFAULT_SOURCE /* getentropy */
#include "rtnet.h"
#include <hiredis/async.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME = 33, NODE = 17, CLAIM = NODE + 21, TEXT = 1000, HEAD = 64 };
enum { SHARE_MS = 3000, BEAT_MS = 1000, SILENT_MS = 3000, MAX_WAITING = 10000 };
enum { CALL_MIN_MS = 50, CALL_MAX_MS = 2000, DRAIN_MS = 500, END_MS = 1000 };

typedef struct server server;

typedef struct {
    server *v;
    redisAsyncContext *redis; /* NULL: none */
    rt_watch watch;
    int events;
} line;

/* What was published and has not come back yet. */
typedef struct message {
    struct message *next;
    unsigned long long number;
    int kind;
    size_t len;
    char data[];
} message;

/* A room that has members here, or is not yet unsubscribed. */
typedef struct room {
    struct room *next;
    char name[NAME];
    int wanted;     /* SUBSCRIBE was the last that was asked */
    int asked;      /* how many (UN)SUBSCRIBEs are not yet confirmed */
    int subscribed; /* what is published comes back */
    message *first, *last;
} room;

/* A user who is here; in the list of newcomers until on_open. */
typedef struct login {
    struct login *next;
    rt_session s;
    rt_group room;
    char user[NAME], claim[CLAIM];
    int known;    /* Redis has the claim */
    int accepted; /* only waits for on_open */
    int lost;     /* a newer login came before on_open */
} login;

struct server {
    rt_loop *loop;
    char node[NODE]; /* random */
    int redis_port;
    enum { AWAY, CALLING, THERE } state;
    line out, in; /* commands; a subscribed connection takes no others */
    uint64_t heard;
    int wait, ending;
    room *rooms;
    login *newcomers;
    unsigned long long number, waiting; /* the last number; messages waiting */
    unsigned long long published, alone, lost, pushed, missed;
};

static rt_loop *loop; /* for the signal handler */

static void say(const char *what, const char *why)
{
    fprintf(stderr, "cluster: %s: %s\n", what, why);
}

static void later(server *v, int ms, void (*fn)(rt_loop *, void *))
{
    if (rt_timer_start(v->loop, (rt_session){0}, rt_now(v->loop) + (uint64_t)ms,
                       fn, v)
            .id)
        return;
    say("timer", rt_strerror(rt_error(v->loop, NULL)));
    rt_stop(v->loop); /* a server without its beat would only pretend */
}

static void deliver(server *v, const char *name, int kind, const void *data,
                    size_t len)
{
    int n = rt_group_deliver(v->loop, name, kind, data, len);
    if (n < 0 && n != RT_EGONE) /* everybody has just left */
        say("delivery", rt_strerror(n));
}

/* ---- hiredis in the loop ------------------------------------------------ */

static void on_ready(rt_loop *l, rt_watch w, int events, void *arg)
{
    line *k = arg;
    (void)l;
    (void)w;
    if (events & RT_READ)
        redisAsyncHandleRead(k->redis);
    else
        redisAsyncHandleWrite(k->redis);
}

/* If the loop refuses, the beat stays out, and the line is given up. */
static void line_events(line *k, int events)
{
    k->events = events;
    rt_watch_set(k->v->loop, k->watch, events);
}

static void add_read(void *k)
{
    line_events(k, ((line *)k)->events | RT_READ);
}

static void del_read(void *k)
{
    line_events(k, ((line *)k)->events & ~RT_READ);
}

static void add_write(void *k)
{
    line_events(k, ((line *)k)->events | RT_WRITE);
}

static void del_write(void *k)
{
    line_events(k, ((line *)k)->events & ~RT_WRITE);
}

/* hiredis closes the descriptor next. */
static void cleanup(void *arg)
{
    line *k = arg;
    rt_watch_stop(k->v->loop, k->watch);
    k->redis = NULL;
}

static void redis_lost(server *v, const char *why);

static void on_connect(const redisAsyncContext *ac, int status)
{
    if (status == REDIS_OK)
        return;
    ((line *)ac->ev.data)->redis = NULL; /* hiredis frees it after this */
    redis_lost(ac->data, ac->c.errstr);
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    server *v = ac->data;
    if (!v->ending)
        redis_lost(v, status == REDIS_OK ? "closed" : ac->errstr);
    else if (ac->ev.data == &v->out)
        rt_stop(v->loop);
}

static int line_open(server *v, line *k)
{
    redisAsyncContext *ac = redisAsyncConnect("127.0.0.1", v->redis_port);
    if (ac && !ac->err)
        k->watch = rt_watch_start(v->loop, ac->c.fd, 0, on_ready, k);
    if (!ac || ac->err || !k->watch.id) {
        if (ac)
            redisAsyncFree(ac);
        return -1;
    }
    k->v = v;
    k->redis = ac;
    k->events = 0;
    ac->data = v;
    ac->ev.data = k;
    ac->ev.addRead = add_read;
    ac->ev.delRead = del_read;
    ac->ev.addWrite = add_write;
    ac->ev.delWrite = del_write;
    ac->ev.cleanup = cleanup;
    redisAsyncSetDisconnectCallback(ac, on_disconnect);
    redisAsyncSetConnectCallback(ac, on_connect);
    return 0;
}

/* ---- commands ----------------------------------------------------------- */

/* An error reply ends the line: something is wrong that a new start may cure,
   and all that is not known to have happened is done without Redis. */
static void on_answer(redisAsyncContext *ac, void *reply, void *arg)
{
    const redisReply *r = reply;
    (void)arg;
    if (r && r->type == REDIS_REPLY_ERROR)
        redis_lost(ac->data, r->str);
}

/* Keeps one field of the hash for each node; tells the room when the sum is
   another one than last told, or anyway. */
static const char COUNT[] =
    "local node, n, ttl, anyway = ARGV[1], ARGV[2], ARGV[3], ARGV[4]\n"
    "local t, sum = redis.call('TIME'), 0\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local told = redis.call('HGET', KEYS[1], 'told')\n"
    "redis.call('HSET', KEYS[1], node, n .. ' ' .. now + ttl)\n"
    "local all = redis.call('HGETALL', KEYS[1])\n"
    "for i = 1, #all, 2 do\n"
    "  local count, till = all[i + 1]:match('^(%d+) (%d+)$')\n"
    "  if till and tonumber(till) > now and count ~= '0' then\n"
    "    sum = sum + count\n"
    "  elseif till then redis.call('HDEL', KEYS[1], all[i]) end\n"
    "end\n"
    "redis.call('HSET', KEYS[1], 'told', sum)\n"
    "redis.call('PEXPIRE', KEYS[1], ttl)\n"
    "if anyway == '1' or told ~= tostring(sum) then\n"
    "  redis.call('PUBLISH', KEYS[1], 'here ' .. sum)\n"
    "end\n"
    "return sum";

/* The newest login has it; the server of the one before is told. */
static const char TAKE[] =
    "local old = redis.call('GET', KEYS[1])\n"
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
    "if old then redis.call('PUBLISH', 'rt:node:' .. old:match('^%x+'),\n"
    "  'kick ' .. ARGV[3] .. ' ' .. old) end\n"
    "return 1";

/* Renews a claim, or takes it again when Redis has forgotten it. */
static const char KEEP[] =
    "local now = redis.call('GET', KEYS[1])\n"
    "if now and now ~= ARGV[1] then\n"
    "  return redis.call('PUBLISH', 'rt:node:' .. ARGV[1]:match('^%x+'),\n"
    "    'kick ' .. ARGV[3] .. ' ' .. ARGV[1])\n"
    "end\n"
    "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
    "return 1";

static const char GIVE_BACK[] =
    "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n"
    "return redis.call('DEL', KEYS[1])";

/* To the server that has the user; returns how many got it. */
static const char FORWARD[] =
    "local claim = redis.call('GET', KEYS[1])\n"
    "if not claim then return 0 end\n"
    "return redis.call('PUBLISH', 'rt:node:' .. claim:match('^%x+'), ARGV[1])";

/* Redis tells the room the count on all servers, or we that on this one.  What
   cannot be queued is not missed: the line is ending, see redis_lost. */
static void count(server *v, const room *r, int anyway)
{
    size_t n = rt_group_count(v->loop, rt_group_find(v->loop, r->name));
    char text[HEAD];
    if (v->state == THERE)
        redisAsyncCommand(v->out.redis, on_answer, NULL,
                          "EVAL %s 1 rt:room:%s %s %lu %d %d", COUNT, r->name,
                          v->node, (unsigned long)n, SHARE_MS, anyway);
    else
        deliver(v, r->name, RT_TEXT, text,
                (size_t)sprintf(text, "here %lu", (unsigned long)n));
}

static void on_forwarded(redisAsyncContext *ac, void *reply, void *arg)
{
    server *v = ac->data;
    const redisReply *r = reply;
    on_answer(ac, reply, arg);
    if (r && r->type == REDIS_REPLY_INTEGER && r->integer > 0)
        v->pushed++;
    else
        v->missed++;
}

static int claim(server *v, const char *script, const login *g,
                 redisCallbackFn *answer, void *arg)
{
    if (v->state != THERE)
        return REDIS_ERR;
    return redisAsyncCommand(v->out.redis, answer, arg,
                             "EVAL %s 1 rt:user:%s %s %d %s", script, g->user,
                             g->claim, SHARE_MS, g->user);
}

static void beat(server *v)
{
    redisAsyncCommand(v->out.redis, on_answer, NULL, "PUBLISH rt:node:%s beat",
                      v->node);
}

/* The payload of what a channel brings; NULL when it is anything else. */
static const redisReply *payload(const redisReply *r)
{
    return r && r->type == REDIS_REPLY_ARRAY && r->elements == 3 &&
                   !strcmp(r->element[0]->str, "message")
               ? r->element[2]
               : NULL;
}

/* What is confirmed: 1 a SUBSCRIBE, -1 an UNSUBSCRIBE, 0 neither. */
static int confirmed(const redisReply *r)
{
    if (!r || r->type != REDIS_REPLY_ARRAY || r->elements != 3)
        return 0;
    if (!strcmp(r->element[0]->str, "subscribe"))
        return 1;
    return -!strcmp(r->element[0]->str, "unsubscribe");
}

/* ---- rooms -------------------------------------------------------------- */

static room *room_find(const server *v, const char *name)
{
    room *r = v->rooms;
    while (r && strcmp(r->name, name) != 0)
        r = r->next;
    return r;
}

static room *room_get(server *v, const char *name)
{
    room *r = room_find(v, name);
    if (r || !(r = calloc(1, sizeof *r)))
        return r;
    memcpy(r->name, name, strlen(name) + 1);
    r->next = v->rooms;
    return v->rooms = r;
}

static message *waiting_shift(server *v, room *r)
{
    message *m = r->first;
    r->first = m->next;
    v->waiting--;
    return m;
}

static void waiting_clear(server *v, room *r)
{
    while (r->first)
        free(waiting_shift(v, r));
}

/* Frees a room that has neither a group here nor a subscription in Redis. */
static void room_release(server *v, room *r)
{
    room **at = &v->rooms;
    if (r->wanted || r->asked || rt_group_find(v->loop, r->name).id)
        return;
    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    waiting_clear(v, r);
    free(r);
}

/* The messages of this server up to that number, in the order they were sent;
   one that is not waiting was delivered when Redis was lost. */
static void deliver_own(server *v, room *r, unsigned long long number)
{
    while (r->first && r->first->number <= number) {
        message *m = waiting_shift(v, r);
        deliver(v, r->name, m->kind, m->data, m->len);
        free(m);
    }
}

static void room_hears(server *v, room *r, const redisReply *m)
{
    char node[NODE];
    unsigned long long number;
    int kind, at = 0;
    if (!strncmp(m->str, "here ", 5))
        deliver(v, r->name, RT_TEXT, m->str, m->len);
    else if (sscanf(m->str, "%16[0-9a-f],%llu,%d,%n", node, &number, &kind,
                    &at) != 3 ||
             !at)
        say("not understood", r->name);
    else if (!strcmp(node, v->node))
        deliver_own(v, r, number);
    else
        deliver(v, r->name, kind, m->str + at, m->len - (size_t)at);
}

/* What the room's channel brings.  Without a reply the line ends, and the room
   may be gone. */
static void on_room(redisAsyncContext *ac, void *reply, void *arg)
{
    server *v = ac->data;
    room *r = arg;
    if (payload(reply))
        room_hears(v, r, payload(reply));
    if (!confirmed(reply) || --r->asked > 0)
        return;
    r->subscribed = confirmed(reply) > 0;
    if (r->subscribed)
        count(v, r, 1); /* whoever joined before has heard none yet */
    room_release(v, r);
}

static void room_subscribe(server *v, room *r, int on)
{
    if (v->state != THERE || r->wanted == on)
        return;
    r->wanted = on;
    r->asked++;
    r->subscribed = 0;
    if (on)
        redisAsyncCommand(v->in.redis, on_room, r, "SUBSCRIBE rt:room:%s",
                          r->name);
    else
        redisAsyncCommand(v->in.redis, NULL, NULL, "UNSUBSCRIBE rt:room:%s",
                          r->name);
}

static void on_group_first(rt_loop *l, const char *name)
{
    server *v = rt_loop_user(l);
    room *r = room_find(v, name);
    if (r)
        room_subscribe(v, r, 1);
}

static void on_group_last(rt_loop *l, const char *name)
{
    server *v = rt_loop_user(l);
    room *r = room_find(v, name);
    if (!r)
        return;
    waiting_clear(v, r); /* for nobody here */
    room_subscribe(v, r, 0);
}

static int remember(server *v, room *r, int kind, const void *data, size_t len)
{
    message *m = malloc(sizeof *m + len);
    if (!m)
        return -1;
    *m = (message){NULL, v->number, kind, len};
    memcpy(m->data, data, len);
    if (r->first)
        r->last->next = m;
    else
        r->first = m;
    r->last = m;
    v->waiting++;
    return 0;
}

/* Published, and delivered when it comes back; at once when it cannot. */
static void on_group_out(rt_loop *l, const char *name, int kind,
                         const void *data, size_t len)
{
    server *v = rt_loop_user(l);
    room *r = rt_group_user(l, rt_group_find(l, name));
    char head[HEAD];
    int n =
        snprintf(head, sizeof head, "%s,%llu,%d,", v->node, ++v->number, kind);
    if (!r || !r->subscribed || remember(v, r, kind, data, len) < 0) {
        deliver(v, name, kind, data, len);
        v->alone++;
    }
    if (v->state != THERE)
        return;
    v->published++;
    redisAsyncCommand(v->out.redis, on_answer, NULL, "PUBLISH rt:room:%s %b%b",
                      name, head, (size_t)n, data, len);
    if (v->waiting > MAX_WAITING)
        redis_lost(v, "too slow");
}

/* Somebody came or went. */
static void on_presence(rt_loop *l, rt_group group, rt_session s, int what)
{
    server *v = rt_loop_user(l);
    room *r = rt_group_user(l, group);
    (void)s;
    (void)what;
    count(v, r, 1);
    if (rt_group_count(l, group) > 0)
        return;
    rt_group_close(l, group);
    room_subscribe(v, r, 0); /* if Redis came between the last and this */
    room_release(v, r);
}

static rt_group room_open(server *v, const char *name)
{
    rt_group_opts o = {.upstream = 1, .event = on_presence};
    rt_group g = rt_group_find(v->loop, name);
    room *r = g.id ? NULL : room_get(v, name);
    if (!r)
        return g;
    o.user = r;
    g = rt_group_open(v->loop, name, &o);
    room_release(v, r); /* if there is no group */
    return g;
}

/* Redis is lost: what waits for it is delivered now. */
static void rooms_alone(server *v)
{
    room *r, *next;
    v->alone += v->waiting;
    for (r = v->rooms; r; r = next) {
        next = r->next;
        r->wanted = r->asked = r->subscribed = 0;
        deliver_own(v, r, v->number);
        deliver(v, r->name, RT_TEXT, "redis down", 10);
        count(v, r, 1);
        room_release(v, r);
    }
}

/* ---- logins ------------------------------------------------------------- */

static login **newcomer(server *v, rt_session s)
{
    login **at = &v->newcomers;
    while (*at && !rt_same((*at)->s, s))
        at = &(*at)->next;
    return at;
}

/* It is given back, unless it is another's by now. */
static void login_end(server *v, login *g)
{
    if (g->known)
        claim(v, GIVE_BACK, g, on_answer, NULL);
    free(g);
}

static void newcomer_end(server *v, login **at)
{
    login *g = *at;
    *at = g->next;
    login_end(v, g);
}

/* Accepts the one who waits, unless a newer login came or the peer has gone:
   nobody tells us that, the handle is just stale. */
static void admit(server *v, login *g)
{
    const rt_accept_opts o = {.uid = g->user};
    int e = g->lost ? RT_EREFUSED : rt_accept(v->loop, g->s, &o);
    g->accepted = e >= 0;
    if (e >= 0)
        return;
    if (e != RT_EGONE)
        rt_reply(v->loop, g->s, g->lost ? 409 : 503, "", "", 0);
    newcomer_end(v, newcomer(v, g->s));
}

/* Without an answer Redis is lost, and this server decides alone. */
static void on_claimed(redisAsyncContext *ac, void *reply, void *arg)
{
    login *g = arg;
    on_answer(ac, reply, NULL);
    g->known = reply && ((redisReply *)reply)->type != REDIS_REPLY_ERROR;
    admit(ac->data, g);
}

static int login_begin(server *v, rt_session s, const char *user)
{
    login *g = calloc(1, sizeof *g);
    if (!g)
        return 503;
    g->s = s;
    memcpy(g->user, user, strlen(user) + 1);
    snprintf(g->claim, sizeof g->claim, "%s-%llu", v->node, ++v->number);
    g->next = v->newcomers;
    v->newcomers = g;
    if (claim(v, TAKE, g, on_claimed, g) == REDIS_OK)
        return RT_DEFER;
    admit(v, g);
    return 0;
}

/* One login's claim: asked for when it was accepted without Redis. */
static void login_keep(server *v, login *g)
{
    if (claim(v, g->known ? KEEP : TAKE, g, on_answer, NULL) == REDIS_OK)
        g->known = 1;
}

static void logins_keep(server *v)
{
    rt_session s = {0};
    login **at = &v->newcomers;
    while ((s = rt_next_session(v->loop, s)).id)
        if (rt_user(v->loop, s))
            login_keep(v, rt_user(v->loop, s));
    while (*at) /* accepted, but the peer had gone: no on_open comes */
        if ((*at)->accepted && rt_state(v->loop, (*at)->s) == RT_EGONE)
            newcomer_end(v, at);
        else
            at = &(*at)->next;
}

static void kick(server *v, const char *user, const char *old)
{
    login *g = rt_user(v->loop, rt_find(v->loop, user));
    if (g && !strcmp(g->claim, old))
        rt_close(v->loop, g->s, RT_CLOSE_REPLACED, "logged in elsewhere");
    for (g = v->newcomers; g; g = g->next)
        if (!strcmp(g->claim, old))
            g->lost = 1;
}

/* ---- Redis comes and goes ----------------------------------------------- */

static void redis_heard(server *v)
{
    room *r;
    v->heard = rt_now(v->loop);
    if (v->state == THERE) {
        v->wait = 0; /* it has stayed for a while */
        return;
    }
    v->state = THERE;
    say("redis", "there");
    for (r = v->rooms; r; r = r->next) {
        deliver(v, r->name, RT_TEXT, "redis up", 8);
        room_subscribe(v, r, 1);
    }
    logins_keep(v);
}

/* What is said to this server; its own beat shows that both lines work. */
static void on_node(redisAsyncContext *ac, void *reply, void *arg)
{
    server *v = ac->data;
    const redisReply *m = payload(reply);
    char user[NAME], old[CLAIM];
    int kind, at = 0;
    (void)arg;
    if (confirmed(reply) > 0 && v->out.redis)
        beat(v);
    if (!m)
        return;
    if (!strcmp(m->str, "beat"))
        redis_heard(v);
    else if (sscanf(m->str, "kick %32s %37s", user, old) == 2)
        kick(v, user, old);
    else if (sscanf(m->str, "push %d %32s%n", &kind, user, &at) == 2 && at &&
             (size_t)at < m->len && rt_find(v->loop, user).id)
        /* Only to who is here, or it would be forwarded for ever. */
        rt_push(v->loop, user, kind, m->str + at + 1, m->len - (size_t)at - 1);
    else
        v->missed++;
}

static void redis_call(rt_loop *l, void *arg)
{
    server *v = arg;
    if (v->ending)
        return;
    v->state = CALLING;
    v->heard = rt_now(l);
    if (line_open(v, &v->out) < 0 || line_open(v, &v->in) < 0 ||
        redisAsyncCommand(v->in.redis, on_node, NULL, "SUBSCRIBE rt:node:%s",
                          v->node) != REDIS_OK)
        redis_lost(v, "no connection");
}

static void lines_close(server *v)
{
    if (v->out.redis)
        redisAsyncFree(v->out.redis);
    if (v->in.redis)
        redisAsyncFree(v->in.redis);
}

/* From now on this server is alone, until a call is answered.  The waits grow,
   and differ, so that not all servers call at once. */
static void redis_lost(server *v, const char *why)
{
    int before = (int)v->state;
    if (before == AWAY || v->ending)
        return;
    v->state = AWAY; /* first: what is still open is answered without Redis */
    v->lost += before == THERE;
    if (before == THERE || !v->wait)
        say("redis lost, going on alone", why);
    lines_close(v);
    if (before == THERE)
        rooms_alone(v);
    v->wait = v->wait ? 2 * v->wait : CALL_MIN_MS;
    if (v->wait > CALL_MAX_MS)
        v->wait = CALL_MAX_MS;
    later(v, v->wait / 2 + rand() % v->wait, redis_call);
}

static void on_beat(rt_loop *l, void *arg)
{
    server *v = arg;
    room *r;
    if (v->state != AWAY && rt_now(l) > v->heard + SILENT_MS)
        redis_lost(v, "silent");
    if (v->state == THERE) {
        beat(v);
        for (r = v->rooms; r; r = r->next)
            count(v, r, 0);
    }
    logins_keep(v);
    later(v, BEAT_MS, on_beat);
}

/* ---- sessions ----------------------------------------------------------- */

static void on_open(rt_loop *l, rt_session s)
{
    server *v = rt_context(l, s);
    login **at = newcomer(v, s), *g = *at;
    char name[NAME];
    int e;
    *at = g->next;
    rt_set_user(l, s, g);
    if (g->lost) {
        rt_close(l, s, RT_CLOSE_REPLACED, "logged in elsewhere");
        return;
    }
    rt_query(rt_request_of(l, s), "room", name, NAME); /* looked at before */
    g->room = room_open(v, name);
    if ((e = rt_group_join(l, g->room, s)) < 0)
        rt_close(l, s, 1013, rt_strerror(e));
}

static void tell(rt_loop *l, login *g, const char *text)
{
    server *v = rt_context(l, g->s);
    char out[TEXT + HEAD], to[NAME];
    int at = 0, n, e;
    if (sscanf(text, "/tell %32s %n", to, &at) != 1 || !at) {
        rt_send(l, g->s, RT_TEXT, "usage: /tell USER TEXT", 22);
        return;
    }
    n = snprintf(out, sizeof out, "tell %s %s", g->user, text + at);
    if ((e = rt_push(l, to, RT_TEXT, out, (size_t)n)) < 0)
        say("push", rt_strerror(e));
    v->pushed += e > 0;
}

/* Nobody here by that name: the server that has him is told. */
static void on_push_miss(rt_loop *l, const char *uid, int kind,
                         const void *data, size_t len)
{
    server *v = rt_loop_user(l);
    char head[HEAD];
    int n = snprintf(head, sizeof head, "push %d %s ", kind, uid);
    if (v->state == THERE)
        redisAsyncCommand(v->out.redis, on_forwarded, NULL,
                          "EVAL %s 1 rt:user:%s %b%b", FORWARD, uid, head,
                          (size_t)n, data, len);
    else
        v->missed++;
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    login *g = rt_user(l, s);
    char out[TEXT + HEAD];
    int n = snprintf(out, sizeof out, "say %s ", g->user), e;
    if (kind == RT_TEXT && !strncmp(data, "/tell", 5)) {
        tell(l, g, data);
        return;
    }
    memcpy(out + n, data, len); /* at most TEXT, by max_message */
    e = kind == RT_TEXT ? rt_group_send(l, g->room, kind, out, (size_t)n + len)
                        : rt_group_send(l, g->room, kind, data, len);
    if (e < 0)
        say("sending", rt_strerror(e));
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    login *g = rt_user(l, s);
    (void)why;
    if (g)
        login_end(rt_context(l, s), g);
}

/* ---- requests ----------------------------------------------------------- */

static int name_of(const rt_request *r, const char *which, char name[NAME])
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789-_"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    int n = rt_query(r, which, name, NAME);
    return n > 0 && strspn(name, good) == (size_t)n;
}

static size_t on_metrics(void *user, char *out, size_t cap)
{
    const server *v = user;
    int n = snprintf(out, cap,
                     "# TYPE cluster_redis_up gauge\n"
                     "cluster_redis_up %d\n"
                     "# TYPE cluster_redis_lost_total counter\n"
                     "cluster_redis_lost_total %llu\n"
                     "# TYPE cluster_waiting gauge\n"
                     "cluster_waiting %llu\n"
                     "# TYPE cluster_published_total counter\n"
                     "cluster_published_total %llu\n"
                     "# TYPE cluster_alone_total counter\n"
                     "cluster_alone_total %llu\n"
                     "# TYPE cluster_pushed_total counter\n"
                     "cluster_pushed_total %llu\n"
                     "# TYPE cluster_push_missed_total counter\n"
                     "cluster_push_missed_total %llu\n",
                     v->state == THERE, v->lost, v->waiting, v->published,
                     v->alone, v->pushed, v->missed);
    return n > 0 ? (size_t)n : 0;
}

static int metrics(rt_loop *l, rt_session s)
{
    size_t cap = rt_metrics(l, NULL, 0);
    char *page = malloc(cap);
    int e = RT_ENOMEM;
    if (page)
        e = rt_reply(l, s, 200, "text/plain; version=0.0.4", page,
                     rt_metrics(l, page, cap));
    free(page);
    return e < 0 ? 503 : 0;
}

/* Without Redis it still serves: 200, so that nobody takes it away. */
static int health(rt_loop *l, rt_session s, const server *v)
{
    const char *text = v->state == THERE ? "ok\n" : "degraded: no redis\n";
    return rt_reply(l, s, 200, "text/plain", text, strlen(text)) < 0 ? 503 : 0;
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    server *v = rt_context(l, s);
    char name[NAME], user[NAME];
    if (!r->upgrade && !strcmp(r->path, "/metrics"))
        return metrics(l, s);
    if (!r->upgrade && !strcmp(r->path, "/health"))
        return health(l, s, v);
    if (!r->upgrade || strcmp(r->path, "/") != 0)
        return 404;
    if (!name_of(r, "room", name) || !name_of(r, "user", user))
        return 400;
    return login_begin(v, s, user);
}

/* ---- start and stop ----------------------------------------------------- */

static void on_signal(int number)
{
    (void)number;
    rt_stop(loop);
}

static void on_end(rt_loop *l, void *arg)
{
    (void)arg;
    rt_stop(l);
}

/* All have gone, and gave back what they had: when Redis has answered the last
   command its line ends, and the loop. */
static void on_drained(rt_loop *l)
{
    server *v = rt_loop_user(l);
    int there = v->state == THERE;
    v->ending = 1;
    v->state = AWAY; /* nothing more is asked */
    if (!there) {
        rt_stop(l);
        return;
    }
    later(v, END_MS, on_end);
    redisAsyncDisconnect(v->out.redis);
}

/* Until a signal, then until drained; a second signal ends it at once. */
static int run(server *v)
{
    int e = rt_run(v->loop);
    if (e == 0 && rt_shutdown(v->loop, DRAIN_MS) == 0)
        e = rt_run(v->loop);
    v->ending = 1;
    v->state = AWAY;
    lines_close(v);
    return e;
}

static int serve(server *v, const char *port)
{
    const rt_handler on = {.request = on_request,
                           .open = on_open,
                           .message = on_message,
                           .close = on_close};
    const rt_listen_opts o = {.on = on, .user = v, .max_message = TEXT};
    const char *why = "";
    rt_listener listener;
    char url[32];
    snprintf(url, sizeof url, "ws://:%s", port);
    listener = rt_listen(v->loop, url, &o);
    if (!listener.id) {
        rt_error(v->loop, &why);
        say("start", why);
        return -1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    signal(SIGPIPE, SIG_IGN); /* hiredis writes without MSG_NOSIGNAL */
    redis_call(v->loop, v);
    on_beat(v->loop, v);
    printf("cluster: listening on %d\n", rt_listener_port(v->loop, listener));
    fflush(stdout);
    return run(v);
}

int main(int argc, char **argv)
{
    static server v;
    const rt_loop_opts o = {.user = &v,
                            .group_first = on_group_first,
                            .group_last = on_group_last,
                            .group_out = on_group_out,
                            .push_miss = on_push_miss,
                            .metrics = on_metrics,
                            .drained = on_drained};
    const char *port = argc > 1 ? argv[1] : getenv("PORT");
    unsigned long long random;
    int e;
    if (getentropy(&random, sizeof random) < 0)
        return say("start", "no random bytes"), 1;
    snprintf(v.node, sizeof v.node, "%016llx", random);
    srand((unsigned)random);
    v.redis_port = argc > 2 ? atoi(argv[2]) : 6379;
    v.loop = loop = rt_loop_new(&o);
    if (!loop)
        return say("start", "out of memory or descriptors"), 1;
    e = serve(&v, port && *port ? port : "9000");
    rt_loop_free(loop);
    return e != 0;
}
