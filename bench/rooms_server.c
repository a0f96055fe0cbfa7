/*
 * Rooms by path: a session that opens /7 is in the group "7".  Without a tick
 * each message goes to all of its room, the sender too.  With --tick, messages
 * are inputs, which are only counted, and each room gets so many snapshots a
 * second: 8 bytes its number, 8 bytes CLOCK_MONOTONIC in ns (both little
 * endian), then each byte is its place in the snapshot, modulo 256.
 */
#define _GNU_SOURCE
#include "server.h"
#include <time.h>

enum { SNAPSHOT_MIN = 16 };

typedef struct {
    rt_group group;
    uint64_t inputs, snapshots;
} room;

/* What one loop has. */
typedef struct {
    room **rooms;
    size_t count, space;
    uint8_t *snapshot;
    uint64_t start, ticks; /* ms; how many there were */
} hall;

static hall halls[SERVER_LOOPS_MAX];
static long tick, snapshot_size = 256;

static hall *hall_of(rt_loop *loop)
{
    return &halls[server_index(loop)];
}

/* ---- snapshots */

static void little_put(uint8_t *p, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void room_tick(rt_loop *loop, hall *h, room *r)
{
    if (rt_group_count(loop, r->group) == 0)
        return;
    little_put(h->snapshot, ++r->snapshots);
    little_put(h->snapshot + 8, clock_ns());
    rt_group_send(loop, r->group, RT_BINARY, h->snapshot,
                  (size_t)snapshot_size);
}

/* Each tick has its time from the start, so none makes the next ones late. */
static int tick_start(rt_loop *loop, hall *h);

static void on_tick(rt_loop *loop, void *arg)
{
    hall *h = arg;
    for (size_t i = 0; i < h->count; i++)
        room_tick(loop, h, h->rooms[i]);
    tick_start(loop, h);
}

static int tick_start(rt_loop *loop, hall *h)
{
    const rt_session nobody = {0};
    uint64_t due = h->start + ++h->ticks * 1000 / (uint64_t)tick;
    return rt_timer_start(loop, nobody, due, on_tick, h).id ? 0 : -1;
}

static int on_ready(rt_loop *loop, long index)
{
    hall *h = &halls[index];
    if (tick == 0)
        return 0;
    h->snapshot = malloc((size_t)snapshot_size);
    if (!h->snapshot)
        return -1;
    for (long i = 0; i < snapshot_size; i++)
        h->snapshot[i] = (uint8_t)i;
    h->start = rt_now(loop);
    return tick_start(loop, h);
}

/* ---- rooms */

static int hall_grow(hall *h)
{
    size_t space = h->space * 2 + 64;
    room **rooms = realloc(h->rooms, space * sizeof(room *));
    if (!rooms)
        return -1;
    h->rooms = rooms;
    h->space = space;
    return 0;
}

static room *room_add(rt_loop *loop, hall *h, const char *name)
{
    room *r = calloc(1, sizeof *r);
    rt_group_opts opts = {.user = r};
    if (r && (h->count < h->space || hall_grow(h) == 0))
        r->group = rt_group_open(loop, name, &opts);
    if (!r || r->group.id == 0) {
        free(r);
        return NULL;
    }
    h->rooms[h->count++] = r;
    return r;
}

static void on_open(rt_loop *loop, rt_session s)
{
    const char *path = rt_request_of(loop, s)->path;
    const char *name = path[1] ? path + 1 : path;
    rt_group group = rt_group_find(loop, name);
    room *r = group.id ? rt_group_user(loop, group)
                       : room_add(loop, hall_of(loop), name);
    rt_set_user(loop, s, r);
    if (!r || rt_group_join(loop, r->group, s) < 0)
        rt_close(loop, s, 1013, "no room");
}

static void on_message(rt_loop *loop, rt_session s, int kind, const void *data,
                       size_t len)
{
    room *r = rt_user(loop, s);
    r->inputs++;
    if (tick == 0)
        rt_group_send(loop, r->group, kind, data, len);
}

static void halls_free(void)
{
    for (int i = 0; i < SERVER_LOOPS_MAX; i++) {
        for (size_t k = 0; k < halls[i].count; k++)
            free(halls[i].rooms[k]);
        free(halls[i].rooms);
        free(halls[i].snapshot);
    }
}

int main(int argc, char **argv)
{
    const option more[] = {
        {"tick", OPTION_INT, &tick, 0, 1000,
         "snapshots a second; 0: messages go to the room instead (0)"},
        {"snapshot", OPTION_INT, &snapshot_size, SNAPSHOT_MIN, 64 << 20,
         "bytes of a snapshot (256)"},
    };
    const server rooms = {
        .program = "rooms_server",
        .about = "\nSends each message to all that connected to the same path"
                 ", the sender too,\nor with --tick snapshots instead.\n"
                 "With --loops, to those of the sender's loop.\nOptions:",
        .on = {.open = on_open, .message = on_message},
        .ready = on_ready,
        .more = more,
        .more_count = sizeof more / sizeof *more};
    int bad = server_run(&rooms, argc, argv);
    halls_free();
    return bad;
}
