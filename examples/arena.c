/*
 * A game for as many browsers as will come: collect the sparks, dash into
 * somebody to take some of theirs.  arena [PORT] [PAGE]
 *
 * The server alone decides.  A client sends one byte when its keys change; 30
 * times a second the server moves everybody and sends all of them the same
 * newest world, which replaces an older one that a slow client has not got.
 * A player whose line is cut stands still for up to 15 s, then leaves; who is
 * back in time goes on.  The page gets rtnet.js from the page's directory.
 *
 * From a client    binary, 1 byte: the keys held, bits of enum keys
 *                  binary, 8 bytes: a ping, sent back as it is
 *                  text: a new name
 * To a client      text, JSON: hello, join, name, leave
 *                  binary, 8 bytes: its ping
 *                  binary, longer: the world, little-endian: u32 tick, u16
 *                  players, u16 sparks; each player u32 id, u16 x, u16 y, u16
 *                  score, u8 flags, u8 charge; each spark u16 x, u16 y
 */
#include "rtnet.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RATE = 30, WIDTH = 1600, HEIGHT = 900, RADIUS = 26, REACH = 40 };
enum { MAX_PLAYERS = 64, SPARKS = 24, NAME_SIZE = 33, MAX_TAKEN = 3 };
enum { DASH_TICKS = 7, REST_TICKS = 36, STUN_TICKS = 20, SAFE_TICKS = 50 };
enum keys { UP = 1, DOWN = 2, LEFT = 4, RIGHT = 8, DASH = 16 };
enum flags { DASHING = 1, STUNNED = 2, SAFE = 4 };
enum latest { WORLD = 1, PING };

typedef struct {
    rt_session s; /* {0}: nobody has this place */
    uint32_t id;
    float x, y, vx, vy;
    float face_x, face_y;       /* where it went last, of length 1 */
    int dash, rest, stun, safe; /* ticks left of each */
    int score;
    uint8_t keys;
    char name[NAME_SIZE];
} player;

typedef struct {
    rt_group all;
    uint64_t start, ticks; /* tick n is due at start + n * 1000 / RATE */
    uint32_t last_id, seed, count; /* of the players */
    int ending;                    /* since the first signal */
    player players[MAX_PLAYERS];
    struct spark {
        int x, y;
    } sparks[SPARKS];
    struct file {
        char data[65536];
        size_t len;
    } page, script;
} game;

static rt_loop *loop; /* for the signal handler */

static player *next(game *g, player *p)
{
    for (p = p ? p + 1 : g->players; p < g->players + MAX_PLAYERS; p++)
        if (p->s.id)
            return p;
    return NULL;
}

/* ---- the rules of the game ---------------------------------------------- */

static int random_in(game *g, int low, int high)
{
    g->seed = g->seed * 1664525u + 1013904223u;
    return low + (int)(g->seed >> 16) % (high - low);
}

static void place(game *g, struct spark *k)
{
    k->x = random_in(g, REACH, WIDTH - REACH);
    k->y = random_in(g, REACH, HEIGHT - REACH);
}

static int near(float x, float y, float reach)
{
    return x * x + y * y < reach * reach;
}

static void bounce(float *at, float *speed, float end)
{
    if (*at >= RADIUS && *at <= end - RADIUS)
        return;
    *at = *at < RADIUS ? RADIUS : end - RADIUS;
    *speed *= -0.5f;
}

static void steer(player *p)
{
    int x = !!(p->keys & RIGHT) - !!(p->keys & LEFT);
    int y = !!(p->keys & DOWN) - !!(p->keys & UP);
    float size = x && y ? 0.7071f : 1;
    if (x || y) {
        p->vx += (p->face_x = (float)x * size) * 2.8f;
        p->vy += (p->face_y = (float)y * size) * 2.8f;
    }
    if (p->keys & DASH && !p->rest) {
        p->vx = p->face_x * 46;
        p->vy = p->face_y * 46;
        p->dash = DASH_TICKS;
        p->rest = REST_TICKS;
    }
}

static void move(player *p)
{
    p->dash -= p->dash > 0;
    p->rest -= p->rest > 0;
    p->stun -= p->stun > 0;
    p->safe -= p->safe > 0;
    p->vx *= 0.8f;
    p->vy *= 0.8f;
    if (!p->stun)
        steer(p);
    p->x += p->vx;
    p->y += p->vy;
    bounce(&p->x, &p->vx, WIDTH);
    bounce(&p->y, &p->vy, HEIGHT);
}

static void hit(player *p, player *victim)
{
    int taken = victim->score < MAX_TAKEN ? victim->score : MAX_TAKEN;
    victim->score -= taken;
    p->score += taken;
    victim->vx = p->face_x * 40;
    victim->vy = p->face_y * 40;
    victim->dash = 0;
    victim->stun = STUN_TICKS;
    victim->safe = SAFE_TICKS;
}

static void touch(game *g, player *p)
{
    for (struct spark *k = g->sparks; k < g->sparks + SPARKS; k++)
        if (near(p->x - (float)k->x, p->y - (float)k->y, REACH)) {
            p->score++;
            place(g, k);
        }
    for (player *q = next(g, NULL); q && p->dash; q = next(g, q))
        if (q != p && !q->safe && near(p->x - q->x, p->y - q->y, 2 * RADIUS))
            hit(p, q);
}

/* ---- the tick ----------------------------------------------------------- */

static uint8_t *put(uint8_t *at, int bytes, uint32_t value)
{
    for (; bytes > 0; bytes--, value >>= 8)
        *at++ = (uint8_t)value;
    return at;
}

static uint8_t *put_player(uint8_t *at, const player *p)
{
    at = put(at, 4, p->id);
    at = put(at, 2, (uint32_t)p->x);
    at = put(at, 2, (uint32_t)p->y);
    at = put(at, 2, (uint32_t)p->score);
    *at++ = (uint8_t)((p->dash ? DASHING : 0) | (p->stun ? STUNNED : 0) |
                      (p->safe ? SAFE : 0));
    *at++ = (uint8_t)(255 - p->rest * 255 / REST_TICKS);
    return at;
}

static void send_world(rt_loop *l, game *g)
{
    uint8_t world[8 + MAX_PLAYERS * 12 + SPARKS * 4], *at = world + 8;
    g->count = 0;
    for (player *p = next(g, NULL); p; p = next(g, p), g->count++)
        at = put_player(at, p);
    for (int i = 0; i < SPARKS; i++)
        at = put(put(at, 2, (uint32_t)g->sparks[i].x), 2,
                 (uint32_t)g->sparks[i].y);
    put(put(put(world, 4, (uint32_t)g->ticks), 2, g->count), 2, SPARKS);
    rt_group_send(l, g->all, RT_BINARY | rt_latest(WORLD), world,
                  (size_t)(at - world));
}

static void tick(rt_loop *l, void *arg)
{
    game *g = arg;
    uint64_t due;
    for (player *p = next(g, NULL); p; p = next(g, p))
        move(p);
    for (player *p = next(g, NULL); p; p = next(g, p))
        touch(g, p);
    send_world(l, g);
    /* Each tick has a time of its own, so that lateness does not add up; after
       a long stop of the process the missed ones are not made up for. */
    due = g->start + ++g->ticks * 1000 / RATE;
    if (due + 1000 < rt_now(l))
        g->start += rt_now(l) - due;
    if (!rt_timer_start(l, (rt_session){0}, due, tick, g).id)
        rt_stop(l);
}

/* ---- names -------------------------------------------------------------- */

/* 1..32 bytes, no control characters; rt_send looks at the UTF-8. */
static int name_ok(const char *name)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            return 0;
    return *name && strlen(name) < NAME_SIZE;
}

/* {"t": what, "id": ..., "name": ...}; text holds the longest of them. */
static size_t news(char text[160], const char *what, const player *p)
{
    char name[2 * NAME_SIZE], *out = name;
    for (const char *c = p->name; *c; *out++ = *c++)
        if (*c == '"' || *c == '\\')
            *out++ = '\\';
    *out = 0;
    return (size_t)snprintf(text, 160,
                            "{\"t\":\"%s\",\"id\":%lu,\"name\":\"%s\"}", what,
                            (unsigned long)p->id, name);
}

static void tell_all(rt_loop *l, game *g, const char *what, const player *p)
{
    char text[160];
    rt_group_send(l, g->all, RT_TEXT, text, news(text, what, p));
}

/* ---- requests and sessions ---------------------------------------------- */

static int reply(rt_loop *l, rt_session s, const char *type, const void *body,
                 size_t len)
{
    return rt_reply(l, s, 200, type, body, len) < 0 ? 503 : 0;
}

static int on_request(rt_loop *l, rt_session s, const rt_request *r)
{
    game *g = rt_context(l, s);
    char b[16384];
    if (!strcmp(r->path, "/ws") && !r->upgrade)
        return 426;
    if (!strcmp(r->path, "/ws"))
        return rt_query(r, "name", b, NAME_SIZE) > 0 && name_ok(b) ? 0 : 400;
    if (r->upgrade)
        return 404;
    if (!strcmp(r->path, "/"))
        return reply(l, s, "text/html; charset=utf-8", g->page.data,
                     g->page.len);
    if (!strcmp(r->path, "/rtnet.js"))
        return reply(l, s, "text/javascript; charset=utf-8", g->script.data,
                     g->script.len);
    if (!strcmp(r->path, "/metrics"))
        return reply(l, s, "text/plain; version=0.0.4", b,
                     rt_metrics(l, b, sizeof b));
    if (!strcmp(r->path, "/health"))
        return g->ending ? 503 : reply(l, s, "text/plain", "ok\n", 3);
    return 404;
}

/* Tells a player who it is, and the others' names. */
static int greet(rt_loop *l, game *g, player *p)
{
    char text[160];
    int e = rt_send(l, p->s, RT_TEXT, text, news(text, "hello", p));
    if (e < 0)
        return e;
    for (player *q = next(g, NULL); q; q = next(g, q))
        if (q != p)
            rt_send(l, p->s, RT_TEXT, text, news(text, "join", q));
    return 0;
}

static void on_open(rt_loop *l, rt_session s)
{
    game *g = rt_context(l, s);
    player *p = g->players;
    int e;
    while (p < g->players + MAX_PLAYERS && p->s.id)
        p++;
    if (p == g->players + MAX_PLAYERS) {
        rt_close(l, s, 1013, "the arena is full");
        return;
    }
    *p = (player){.s = s, .id = ++g->last_id, .face_x = 1, .safe = SAFE_TICKS};
    p->x = (float)random_in(g, 100, WIDTH - 100);
    p->y = (float)random_in(g, 100, HEIGHT - 100);
    rt_query(rt_request_of(l, s), "name", p->name, NAME_SIZE);
    rt_set_user(l, s, p);
    e = greet(l, g, p);
    if (e >= 0)
        tell_all(l, g, "join", p);
    if (e < 0 || (e = rt_group_join(l, g->all, s)) < 0)
        rt_close(l, s, e == RT_EUTF8 ? 1007 : 1013, rt_strerror(e));
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    player *p = rt_user(l, s);
    if (kind == RT_BINARY && len == 1)
        p->keys = *(const uint8_t *)data;
    if (kind == RT_BINARY && len == 8)
        rt_send(l, s, RT_BINARY | rt_latest(PING), data, len);
    if (kind == RT_TEXT && strlen(data) == len && name_ok(data)) {
        memcpy(p->name, data, len + 1);
        tell_all(l, rt_context(l, s), "name", p);
    }
}

static void on_away(rt_loop *l, rt_session s)
{
    player *p = rt_user(l, s);
    if (p)
        p->keys = 0;
}

/* Who missed news is told all of it. */
static void on_back(rt_loop *l, rt_session s, uint64_t lost)
{
    player *p = rt_user(l, s);
    if (p && lost)
        greet(l, rt_context(l, s), p);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    player *p = rt_user(l, s);
    (void)why;
    if (!p)
        return;
    p->s.id = 0;
    tell_all(l, rt_context(l, s), "leave", p);
}

/* For /metrics. */
static size_t count_players(void *g, char *out, size_t cap)
{
    return (size_t)snprintf(out, cap,
                            "# HELP arena_players Players now.\n"
                            "# TYPE arena_players gauge\narena_players %u\n",
                            ((game *)g)->count);
}

/* ---- start and stop ----------------------------------------------------- */

static int load(struct file *to, const char *path)
{
    FILE *f = fopen(path, "rb");
    if (f) {
        to->len = fread(to->data, 1, sizeof to->data, f);
        fclose(f);
    }
    if (to->len && to->len < sizeof to->data)
        return 0;
    fprintf(stderr,
            "arena: %s is no file of less than 64 KiB; start from the "
            "top directory, or give the page's path after the port\n",
            path);
    return -1;
}

/* The page, and rtnet.js from the same directory. */
static int load_page(game *g, const char *path)
{
    const char *slash = strrchr(path, '/');
    char script[1024];
    snprintf(script, sizeof script, "%.*srtnet.js",
             slash ? (int)(slash + 1 - path) : 0, path);
    return load(&g->page, path) < 0 ? -1 : load(&g->script, script);
}

static void on_signal(int number)
{
    (void)number;
    rt_stop(loop);
}

static int serve(game *g, const char *port)
{
    const rt_listen_opts o = {.on = {.request = on_request,
                                     .open = on_open,
                                     .message = on_message,
                                     .away = on_away,
                                     .back = on_back,
                                     .close = on_close},
                              .user = g,
                              .resume_ms = 15000,
                              .ping_ms = 2000,
                              .max_message = 256,
                              .rate_limit = 60,
                              .rate_ms = 1000};
    const char *why = "out of memory";
    char url[32];
    rt_listener listener = {0};
    snprintf(url, sizeof url, "ws://:%s", port);
    if (loop && (g->all = rt_group_open(loop, "arena", NULL)).id)
        listener = rt_listen(loop, url, &o);
    if (!listener.id) {
        if (loop)
            rt_error(loop, &why);
        fprintf(stderr, "arena: %s\n", why);
        return -1;
    }
    g->start = rt_now(loop);
    tick(loop, g);
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    printf("arena: open http://localhost:%d in two tabs\n",
           rt_listener_port(loop, listener));
    fflush(stdout);
    if (rt_run(loop) < 0) /* until a signal */
        return -1;
    g->ending = 1;
    rt_shutdown(loop, 1000);
    return rt_run(loop); /* until all are gone, or another signal */
}

int main(int argc, char **argv)
{
    static game g;
    const char *port = argc > 1 ? argv[1] : getenv("PORT");
    int end = load_page(&g, argc > 2 ? argv[2] : "examples/arena.html");
    if (end < 0)
        return 1;
    g.seed = (uint32_t)time(NULL);
    for (int i = 0; i < SPARKS; i++)
        place(&g, &g.sparks[i]);
    loop = rt_loop_new(&(rt_loop_opts){
        .user = &g, .metrics = count_players, .drained = rt_stop});
    end = serve(&g, port && *port ? port : "9000");
    rt_loop_free(loop);
    return end != 0;
}
