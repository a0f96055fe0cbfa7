/*
 * scale_sim: what measured costs say about a million players.
 *
 * A loop is a queue with one server that works in turns, as rtnet's does: a
 * turn takes all that has come until it begins, and what it sends leaves at
 * its end, in one write for each member, however many messages that carries.
 * So a loop that is late sends fewer, larger writes; nothing else saves it.
 * What an operation costs is measured (bench/costs.sh); who sits where and
 * what comes when is drawn from --seed: the same seed, the same output.
 *
 * Rooms are put on loops by rendezvous hashing: a room goes to the loop for
 * which the hash of both is greatest.  Modulo is as even, but when a loop is
 * lost it moves nearly every room, rendezvous only the rooms of that loop.
 * Times inside are microseconds.
 */
#include "histogram.h"
#include "options.h"

enum {
    SECOND = 1000000,
    /* More than all is asked of a loop, and a turn lasts so long: it cannot
       keep up. */
    STUCK_US = 100000
};

/* ---- what operations cost ----------------------------------------------- */

enum price {
    TURN,
    RECV,
    HANDLE,

    SEND,
    FANOUT,
    MORE,
    HANDSHAKE,
    RESUME,
    REFUSE,
    POST,
    POSTED,
    PUBLISH,
    DELIVER,
    BROKER_IN,
    BROKER_OUT,
    IDLE,
    MEMBER,
    RING,
    SOCKET,
    PRICES
};

typedef struct {
    const char *name;
    double value;
    const char *help;
} price;

/*
 * What bench/costs.sh prints, which runs these commands: us of the server's
 * processor, or bytes.  Medians of five runs (storm, memory, crossings, broker:
 * three), the server on one core of a shared virtual machine, the load on the
 * other; loopback, 64 bytes.
 */
static price prices[PRICES] = {
    /* crossing post: its third number */
    [TURN] = {"turn-us", 27.033, "a turn that has slept"},
    /* rtload --connections 100 at echo_server, 5.81 in all, divided as in a
       profile of it (perf record -g): 79 % lie below send */
    [RECV] = {"recv-us", 1.207, "receive a message"},
    /* nothing: echo_server has no rules of a game */
    [HANDLE] = {"handle-us", 0, "what the application does for a message"},
    [SEND] = {"send-us", 4.599, "send to one peer alone in a turn"},
    /* rtload --scenario fanout --connections 1000 at fanout_server */
    [FANOUT] = {"fanout-us", 5.705, "send to one peer of a fan-out"},
    /* the same with --depth 10: one write and nine more */
    [MORE] = {"more-us", 0.025, "each more message to it in the same turn"},
    /* rtload --scenario storm --connections 50 at echo_server */
    [HANDSHAKE] = {"handshake-us", 36.188, "accept and upgrade, later a close"},
    /* storm --clients 5000 --quiet 2 --runs 3: per admitted, per refused */
    [RESUME] = {"resume-us", 96.3, "a handshake with the welcome of rtnet.1"},
    [REFUSE] = {"refuse-us", 23.3, "a connection that is refused"},
    /* crossing post: ten messages a ms, the near end, the far end */
    [POST] = {"post-us", 1.474, "hand a message to another loop"},
    [POSTED] = {"posted-us", 1.635, "take one from another loop, to its group"},
    /* crossing line: the same over TCP */
    [PUBLISH] = {"publish-us", 1.54, "publish a message to the broker"},
    [DELIVER] = {"deliver-us", 1.376, "take one from the broker, to its group"},
    /* redis-benchmark -P 10 publish, without and with 8 who listen */
    [BROKER_IN] = {"broker-in-us", 1.6, "the broker: a message in"},
    [BROKER_OUT] = {"broker-out-us", 0.344, "the broker: a message out"},
    /* rtload --scenario idle --connections 10000: anonymous memory of
       echo_server, what fanout_server has more */
    [IDLE] = {"idle-bytes", 192.922, "an idle session"},
    [MEMBER] = {"member-bytes", 8.192, "a membership of a group"},
    /* rtload --resume --connections 10000 --rate 20000 at echo_server */
    [RING] = {"ring-bytes", 1157.53,
              "a session that can resume, its ring in use"},
    /* Slab of /proc/meminfo in the first of these, half of it */
    [SOCKET] = {"socket-bytes", 5057.13, "the kernel's share of a connection"},
};

static double cost(enum price what)
{
    return prices[what].value;
}

/* ---- the command line --------------------------------------------------- */

typedef struct {
    const char *name;
    double rate;  /* messages a second of a player */
    double tick;  /* snapshots a second of a room; 0: messages fan out */
    double limit; /* messages a second that a room lets through; 0: all */
} profile;

static const profile profiles[] = {
    {"chat", 2, 0, 0},
    {"crowd", 0.1, 0, 2},
    {"game", 20, 30, 0},
};
enum { PROFILES = 3 };
/* A ping and its pong every 15 s cost as a message and its echo. */
static const profile idle_profile = {"idle", 1 / 15.0, 0, 0};

static struct {
    const char *profile, *table;
    long seed, players, room, loops, servers;
    double rate, tick, limit, seconds, load, quiet, zipf, bytes, gbit;
    double memory, files;
    int json;
} set = {.profile = "all",
         .table = "all",
         .seed = 1,
         .players = 1000000,
         .servers = 32,
         .rate = -1,
         .tick = -1,
         .limit = -1,
         .seconds = 5,
         .load = 0.7,
         .quiet = 0.5,
         .zipf = 0.8,
         .bytes = 64,
         .gbit = 10,
         .memory = 128,
         .files = 1048576};

static const option own_options[] = {
    {"seed", OPTION_INT, &set.seed, 0, 1e9, "of all that is drawn (1)"},
    {"players", OPTION_INT, &set.players, 1, 4e6, "in all (1,000,000)"},
    {"room", OPTION_INT, &set.room, 1, 4e6,
     "players of a room (4, 100 and 10,000)"},
    {"loops", OPTION_INT, &set.loops, 1, 4096, "(1, 2, 4 .. 64)"},
    {"servers", OPTION_INT, &set.servers, 1, 1024,
     "of a cluster, of 32 loops, at most (32)"},
    {"profile", OPTION_TEXT, &set.profile, 0, 0,
     "chat: 2 messages a second, each to the room; crowd: one in 10 s, and a"
     " room lets 2 a second through; game: 20 inputs, 30 snapshots (all)"},
    {"rate", OPTION_REAL, &set.rate, 0, 1000,
     "messages a second of a player, instead of the profile's"},
    {"tick", OPTION_REAL, &set.tick, 0, 1000,
     "snapshots a second of a room, 0: messages fan out; likewise"},
    {"limit", OPTION_REAL, &set.limit, 0, 1e6,
     "messages a second that a room lets through, 0: all; likewise"},
    {"seconds", OPTION_REAL, &set.seconds, 0.1, 60, "that are simulated (5)"},
    {"load", OPTION_REAL, &set.load, 0.01, 1,
     "share of a loop that is sold, for capacity and cluster (0.7)"},
    {"quiet", OPTION_REAL, &set.quiet, 0.01, 1,
     "share of a loop that is busy before the storm (0.5)"},
    {"zipf", OPTION_REAL, &set.zipf, 0, 3, "exponent in table hot (0.8)"},
    {"bytes", OPTION_REAL, &set.bytes, 0, 1e6, "of a message (64)"},
    {"gbit", OPTION_REAL, &set.gbit, 0.001, 1e6, "network of a server (10)"},
    {"memory", OPTION_REAL, &set.memory, 1, 1e5, "GiB of a server (128)"},
    {"files", OPTION_REAL, &set.files, 1, 1e9,
     "that a server opens (1,048,576)"},
    {"table", OPTION_TEXT, &set.table, 0, 0,
     "costs, capacity, rooms, hot, spread, storm, cluster, first or memory"
     " (all)"},
    {"json", OPTION_FLAG, &set.json, 0, 0, "one JSON object"},
    {"help", OPTION_FLAG, NULL, 0, 0, "this"},
};
enum { OWN_OPTIONS = sizeof own_options / sizeof *own_options };

static void settings_read(int argc, char **argv)
{
    static option table[OWN_OPTIONS + PRICES];
    option_set all = {"scale_sim", "scale_sim [options]", table,
                      OWN_OPTIONS + PRICES, NULL};
    int known;
    memcpy(table, own_options, sizeof own_options);
    for (int i = 0; i < PRICES; i++)
        table[OWN_OPTIONS + i] =
            (option){prices[i].name, OPTION_REAL, &prices[i].value, 0, 1e9,
                     prices[i].help};
    options_parse(&all, argc, argv);
    known = strcmp(set.profile, "all") == 0;
    for (int i = 0; i < PROFILES; i++)
        known |= strcmp(set.profile, profiles[i].name) == 0;
    if (!known)
        options_fail(&all, "--profile: '%s' is none", set.profile);
}

/* The i-th profile as asked for; 0: it is not wanted. */
static int profile_get(int i, profile *p)
{
    *p = profiles[i];
    if (set.rate >= 0)
        p->rate = set.rate;
    if (set.tick >= 0)
        p->tick = set.tick;
    if (set.limit >= 0)
        p->limit = set.limit;
    return strcmp(set.profile, "all") == 0 || strcmp(set.profile, p->name) == 0;
}

/* The i-th size of room; 0 behind the last. */
static long room_get(int i)
{
    static const long sizes[] = {4, 100, 10000, 0};
    return set.room ? (i ? 0 : set.room) : sizes[i];
}

static long loops_get(int i)
{
    return set.loops ? (i ? 0 : set.loops) : i < 7 ? 1L << i : 0;
}

/* ---- chance ------------------------------------------------------------- */

/* splitmix64's last step: every bit of x moves every bit of the answer. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t draw(uint64_t *chance)
{
    return mix(*chance += 0x9e3779b97f4a7c15u);
}

/* In [0, 1). */
static double draw_part(uint64_t *chance)
{
    return (double)(draw(chance) >> 11) / 9007199254740992.0;
}

static double draw_gap(uint64_t *chance, double rate)
{
    return -log(1 - draw_part(chance)) / rate;
}

/* How many of independent events with that mean; for many by the normal
   distribution, as the sum of twelve. */
static uint64_t draw_count(uint64_t *chance, double mean)
{
    double left = exp(-mean), sum = -6;
    uint64_t n = 0;
    if (mean > 30) {
        for (int i = 0; i < 12; i++)
            sum += draw_part(chance);
        sum = mean + sqrt(mean) * sum + 0.5;
        return sum > 0 ? (uint64_t)sum : 0;
    }
    for (double p = draw_part(chance); p > left; p *= draw_part(chance))
        n++;
    return n;
}

static void *need(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (p)
        return p;
    fprintf(stderr, "scale_sim: out of memory\n");
    exit(1);
}

/* ---- what is printed: tables, or one JSON object ------------------------ */

static struct {
    const char *const *column;
    size_t count, at;
    int rows, tables;
} out;

static int wanted(const char *table)
{
    return strcmp(set.table, "all") == 0 || strcmp(set.table, table) == 0;
}

static int width(size_t column)
{
    int n = (int)strlen(out.column[column]);
    return column == 0 ? 14 : n < 8 ? 8 : n;
}

static void table_begin(const char *name, const char *title,
                        const char *const *column)
{
    out.column = column;
    out.rows = 0;
    out.at = 0;
    for (out.count = 0; column[out.count];)
        out.count++;
    if (set.json) {
        printf("%s\"%s\":[", out.tables++ ? ",\n" : "{", name);
        return;
    }
    printf("%s%s: %s\n", out.tables++ ? "\n" : "", name, title);
    for (size_t i = 0; i < out.count; i++)
        printf(i ? " %*s" : "%-*s", width(i), column[i]);
    puts("");
}

static void table_end(void)
{
    if (set.json)
        fputs("]", stdout);
}

/* A member's name: "p99 ms" is p99_ms, "mean %" mean_percent. */
static void key_print(const char *column)
{
    printf("%s", out.at ? "," : out.rows ? ",\n{" : "\n{");
    putchar('"');
    for (; *column; column++)
        if (*column == '%')
            fputs("percent", stdout);
        else
            putchar(*column == ' ' ? '_' : *column);
    fputs("\":", stdout);
}

static void cell(const char *text, const char *json)
{
    const char *end = out.at + 1 == out.count ? "\n" : "";
    if (set.json) {
        key_print(out.column[out.at]);
        printf("%s%s", json, *end ? "}" : "");
    } else {
        printf(out.at ? " %*s%s" : "%-*s%s", width(out.at), text, end);
    }
    out.rows += *end != 0;
    out.at = *end ? 0 : out.at + 1;
}

static void word(const char *text)
{
    char json[80];
    snprintf(json, sizeof json, "\"%s\"", text);
    cell(text, json);
}

/* What does not exist is a NAN, what grows without bound INFINITY. */
static void number(double value, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*f", value < 10000 ? digits : 0, value);
    if (isfinite(value))
        cell(text, text);
    else
        cell(value > 0 ? "over" : "-", "null");
}

/* ---- rooms on loops ----------------------------------------------------- */

typedef struct {
    long players, rooms, loops;
    uint32_t *members;
    double *rate;    /* of a room, messages a second */
    uint32_t *owner; /* the loop of a room */
    uint32_t *order; /* rooms by loop; those of loop l begin at first[l] */
    uint32_t *first;
    uint32_t *turn;  /* when a room last sent */
    uint64_t *sent;  /* messages of a room that went out */
    float *keep;     /* for drawing rooms by their rate: Walker's alias */
    uint32_t *other; /*   method, in the places of order */
} world;

static world world_new(long players, long rooms, long loops)
{
    world w = {players, rooms, loops, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    size_t n = (size_t)rooms;
    w.members = need(n, sizeof *w.members);
    w.rate = need(n, sizeof *w.rate);
    w.owner = need(n, sizeof *w.owner);
    w.order = need(n, sizeof *w.order);
    w.first = need((size_t)loops, sizeof *w.first);
    w.turn = need(n, sizeof *w.turn);
    w.sent = need(n, sizeof *w.sent);
    w.keep = need(n, sizeof *w.keep);
    w.other = need(n, sizeof *w.other);
    return w;
}

static void world_free(world *w)
{
    void *all[] = {w->members, w->rate, w->owner, w->order, w->first,
                   w->turn,    w->sent, w->keep,  w->other};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* The loop with the greatest hash, and in *next the one behind it. */
static uint32_t rendezvous(long room, long loops, uint32_t *next)
{
    uint64_t best = 0, second = 0;
    uint32_t found = 0;
    *next = 0;
    for (long l = 0; l < loops; l++) {
        uint64_t h = mix((uint64_t)set.seed * 0x9e3779b97f4a7c15u +
                         ((uint64_t)room << 16) + (uint64_t)l);
        if (h >= best) {
            second = best;
            *next = found;
            best = h;
            found = (uint32_t)l;
        } else if (h >= second) {
            second = h;
            *next = (uint32_t)l;
        }
    }
    return found;
}

/* What a room asks of its loop, of 1, if each of its messages went alone. */
static double room_load(const world *w, const profile *p, long room)
{
    double n = w->members[room], each = n > 1 ? cost(FANOUT) : cost(SEND);
    double out_s = p->tick;
    if (out_s <= 0)
        out_s =
            p->limit > 0 && p->limit < w->rate[room] ? p->limit : w->rate[room];
    return (w->rate[room] * (cost(RECV) + cost(HANDLE)) + out_s * n * each) /
           SECOND;
}

/* Lists the rooms by their loops. */
static void world_sort(world *w)
{
    uint32_t *next = need((size_t)w->loops, sizeof *next);
    memset(w->first, 0, ((size_t)w->loops + 1) * sizeof *w->first);
    for (long r = 0; r < w->rooms; r++)
        w->first[w->owner[r] + 1]++;
    for (long l = 0; l < w->loops; l++) {
        w->first[l + 1] += w->first[l];
        next[l] = w->first[l];
    }
    for (long r = 0; r < w->rooms; r++)
        w->order[next[w->owner[r]]++] = (uint32_t)r;
    free(next);
}

/* Places the rooms; with two, each on the less loaded of its best two loops.
   load gets what is asked of each loop. */
static void world_place(world *w, const profile *p, int two, double *load)
{
    memset(load, 0, (size_t)w->loops * sizeof *load);
    for (long r = 0; r < w->rooms; r++) {
        uint32_t next, l = rendezvous(r, w->loops, &next);
        if (two && load[next] < load[l])
            l = next;
        w->owner[r] = l;
        load[l] += room_load(w, p, r);
    }
    world_sort(w);
}

/* Rooms of one size; the last one takes the rest. */
static world world_even(const profile *p, long players, long size, long loops)
{
    world w = world_new(players, (players + size - 1) / size, loops);
    for (long r = 0; r < w.rooms; r++) {
        long left = players - r * size;
        w.members[r] = (uint32_t)(left < size ? left : size);
        w.rate[r] = p->rate * w.members[r];
    }
    return w;
}

/* Walker's alias method for the rooms of loop l, whose rates have that sum:
   a place is drawn, and in it one of two rooms. */
static void alias_build(world *w, long l, double sum)
{
    uint32_t from = w->first[l], n = w->first[l + 1] - from;
    uint32_t *heap = need(n, sizeof *heap), small = 0, large = n;
    for (uint32_t i = 0; i < n; i++) {
        w->keep[from + i] =
            (float)(w->rate[w->order[from + i]] * (double)n / sum);
        w->other[from + i] = i;
        if (w->keep[from + i] < 1)
            heap[small++] = i;
        else
            heap[--large] = i;
    }
    while (small > 0 && large < n) {
        uint32_t s = heap[--small], g = heap[large];
        w->other[from + s] = g;
        w->keep[from + g] -= 1 - w->keep[from + s];
        if (w->keep[from + g] < 1) {
            large++;
            heap[small++] = g;
        }
    }
    free(heap);
}

static uint32_t alias_draw(const world *w, long l, uint64_t *chance)
{
    uint32_t from = w->first[l], n = w->first[l + 1] - from, i;
    i = (uint32_t)((draw(chance) >> 32) * n >> 32);
    if (draw_part(chance) >= w->keep[from + i])
        i = w->other[from + i];
    return w->order[from + i];
}

/* ---- a loop that works in turns ----------------------------------------- */

enum { BINS_MOST = 1000 };

typedef struct {
    world *w;
    const profile *p;
    long l;
    uint64_t chance;
    double load;        /* what is asked of it */
    double rate;        /* messages that come, each us */
    double t;           /* now */
    double from, until; /* when what waits has come */
    double busy;        /* how much of t was work */
    uint32_t turns;
    uint64_t messages;  /* that came in */
    uint64_t writes;    /* to a socket */
    uint64_t delivered; /* messages to a member */
    int stuck;
    histogram *delay;
    /* Rooms tick on timers of 1 ms: those of one bin together. */
    int bins;
    double period, due[BINS_MOST];
    uint64_t seats[BINS_MOST];
} station;

/* n values at once. */
static void delays_add(histogram *h, double us, uint64_t n)
{
    if (n == 0)
        return;
    hist_add(h, (uint64_t)(us * 1000));
    h->count += n - 1;
    h->sum += us * 1000 * (double)(n - 1);
    h->bucket[hist_index((uint64_t)(us * 1000))] += n - 1;
}

/* n messages came evenly from one time to another and leave at the end. */
static void delays_spread(histogram *h, uint64_t n, double from, double to,
                          double end)
{
    for (uint64_t i = 0; i < n; i++) {
        double part = ((double)i + 0.5) / (double)n;
        hist_add(h, (uint64_t)((end - from - (to - from) * part) * 1000));
    }
}

static void bins_set(station *s)
{
    s->period = SECOND / s->p->tick;
    s->bins = (int)ceil(s->period / 1000);
    if (s->bins > BINS_MOST)
        s->bins = BINS_MOST;
    for (int i = 0; i < s->bins; i++)
        s->due[i] = s->period * i / s->bins;
    for (uint32_t i = s->w->first[s->l]; i < s->w->first[s->l + 1]; i++)
        s->seats[draw(&s->chance) % (uint64_t)s->bins] +=
            s->w->members[s->w->order[i]];
}

/* One message goes to its room, or the room's limit refuses it. */
static double relay_one(station *s)
{
    uint32_t room = alias_draw(s->w, s->l, &s->chance);
    double n = s->w->members[room], limit = s->p->limit;
    int again = s->w->turn[room] == s->turns;
    if (limit > 0 && limit < s->w->rate[room] &&
        draw_part(&s->chance) >= limit / s->w->rate[room])
        return 0;
    s->w->turn[room] = s->turns;
    s->w->sent[room]++;
    s->delivered += s->w->members[room];
    s->writes += again ? 0 : s->w->members[room];
    return again ? n * cost(MORE) : n > 1 ? n * cost(FANOUT) : cost(SEND);
}

/* The ticks that are due by now; their number of each bin is in ticks. */
static double ticks_send(station *s, uint32_t *ticks)
{
    double us = 0;
    for (int i = 0; i < s->bins; i++) {
        double n = (double)s->seats[i];
        for (ticks[i] = 0; s->due[i] <= s->t; ticks[i]++)
            s->due[i] += s->period;
        if (ticks[i] == 0 || n <= 0)
            continue;
        us += n * (cost(FANOUT) + (ticks[i] - 1) * cost(MORE));
        s->writes += s->seats[i];
        s->delivered += s->seats[i] * ticks[i];
    }
    return us;
}

static void ticks_record(station *s, const uint32_t *ticks, double end)
{
    for (int i = 0; i < s->bins; i++)
        for (uint32_t k = 1; k <= ticks[i]; k++)
            delays_add(s->delay, end - (s->due[i] - k * s->period),
                       s->seats[i]);
}

/* A turn with n messages that came since s->from; returns how many come while
   it works. */
static uint64_t turn_run(station *s, uint64_t n)
{
    uint32_t ticks[BINS_MOST];
    double us = (double)n * (cost(RECV) + cost(HANDLE)), end;
    s->turns++;
    s->messages += n;
    if (s->bins)
        us += ticks_send(s, ticks);
    else
        for (uint64_t i = 0; i < n; i++)
            us += relay_one(s);
    end = s->t + us;
    if (s->bins)
        ticks_record(s, ticks, end);
    else
        delays_spread(s->delay, n, s->from, s->until, end);
    s->busy += us;
    s->stuck |= us > STUCK_US && s->load > 1;
    s->from = s->t;
    s->until = end;
    s->t = end;
    return draw_count(&s->chance, s->rate * us);
}

/* Until something happens, and the loop has woken up.  Returns how many
   messages that is. */
static uint64_t idle(station *s)
{
    double next = s->t + draw_gap(&s->chance, s->rate);
    double due = next;
    uint64_t n;
    for (int i = 0; i < s->bins; i++)
        if (s->due[i] < due)
            due = s->due[i];
    if (due > s->t)
        s->t = due;
    s->from = s->until = s->t;
    s->t += cost(TURN);
    s->busy += cost(TURN);
    /* Others come while it wakes up; one alone came at the beginning. */
    n = (due == next) + draw_count(&s->chance, s->rate * cost(TURN));
    if (n > 1)
        s->until = s->t;
    return n;
}

static void station_run(station *s)
{
    double sum = 0;
    uint64_t n = 0;
    for (uint32_t i = s->w->first[s->l]; i < s->w->first[s->l + 1]; i++)
        sum += s->w->rate[s->w->order[i]];
    if (s->w->first[s->l] == s->w->first[s->l + 1] ||
        (sum <= 0 && s->p->tick <= 0))
        return;
    s->rate = sum / SECOND;
    if (s->p->tick > 0)
        bins_set(s);
    else
        alias_build(s->w, s->l, sum);
    while (s->t < set.seconds * SECOND && !s->stuck)
        n = turn_run(s, n ? n : idle(s));
}

/* ---- all loops ---------------------------------------------------------- */

typedef struct {
    double mean, worst, two;    /* what is asked of loops; worst of the better
                                   placement */
    double busiest;             /* of the simulated */
    long above, stuck;          /* loops: of which more than all is asked; that
                                   could not keep up */
    double p50, p99, p99_worst; /* us */
    double in_s, writes_s, out_s;
    uint64_t delivered, expected; /* counted; by rooms and their members */

} outcome;

static double hist_us(const histogram *h, double p)
{
    return h->count ? (double)hist_at(h, p) / 1000 : NAN;
}

/* What was due to members when the last turn began. */
static uint64_t ticks_expect(const station *s)
{
    uint64_t n = 0;
    for (int i = 0; i < s->bins; i++) {
        double since = s->from - s->period * i / s->bins;
        if (s->seats[i] && since >= 0)
            n += s->seats[i] * (uint64_t)(1 + since / s->period);
    }
    return n;
}

static void station_count(const station *s, outcome *o, histogram *all)
{
    double p99 = s->stuck ? INFINITY : hist_us(s->delay, 99);
    double busy = s->stuck ? 1 : s->t > 0 ? s->busy / s->t : 0;
    if (p99 > o->p99_worst)
        o->p99_worst = p99;
    if (busy > o->busiest)
        o->busiest = busy;
    if (!s->stuck)
        hist_merge(all, s->delay);
    o->stuck += s->stuck;
    o->delivered += s->delivered;
    o->expected += ticks_expect(s);
    if (s->t <= 0)
        return;
    o->in_s += (double)s->messages / s->t * SECOND;
    o->writes_s += (double)s->writes / s->t * SECOND;
    o->out_s += (double)s->delivered / s->t * SECOND;
}

static void loads_read(const double *load, long loops, outcome *o)
{
    double sum = 0;
    for (long l = 0; l < loops; l++) {
        sum += load[l];
        o->above += load[l] > 1;
        if (load[l] > o->worst)
            o->worst = load[l];
    }
    o->mean = sum / (double)loops;
}

/* Places and simulates; frees the world. */
static outcome world_run(world *w, const profile *p)
{
    static histogram one, all;
    double *load = need((size_t)w->loops, sizeof *load);
    outcome o = {0}, two = {0};
    world_place(w, p, 1, load);
    loads_read(load, w->loops, &two);
    world_place(w, p, 0, load);
    loads_read(load, w->loops, &o);
    o.two = two.worst;
    hist_reset(&all);
    for (long l = 0; l < w->loops; l++) {
        station s = {.w = w, .p = p, .l = l, .load = load[l], .delay = &one};
        s.chance = mix((uint64_t)set.seed + ((uint64_t)l << 32));
        hist_reset(&one);
        station_run(&s);
        station_count(&s, &o, &all);
    }
    for (long r = 0; r < w->rooms; r++)
        o.expected += w->sent[r] * w->members[r];
    o.p50 = hist_us(&all, 50);
    o.p99 = hist_us(&all, 99);
    free(load);
    world_free(w);
    return o;
}

/* ---- table costs -------------------------------------------------------- */

static void costs_print(void)
{
    static const char *const columns[] = {"cost", "value", "of", NULL};
    table_begin("costs", "us of a processor, or bytes; measured, or as told",
                columns);
    for (int i = 0; i < PRICES; i++) {
        word(prices[i].name);
        number(prices[i].value, prices[i].value < 100 ? 2 : 0);
        word(prices[i].help);
    }
    table_end();
}

/* ---- table capacity ----------------------------------------------------- */

/* What one player in a room of that size asks of a loop, of 1. */
static double player_load(const profile *p, long size)
{
    world w = world_even(p, size, size, 1);
    double load = room_load(&w, p, 0) / (double)size;
    world_free(&w);
    return load;
}

/* How many a loop carries in whole rooms, at the share that is sold. */
static long capacity(const profile *p, long size)
{
    double rooms = set.load / player_load(p, size) / (double)size;
    /* Work that costs nothing has no limit, but a simulation has. */
    return rooms < 4e6 / (double)size ? (long)rooms * size : 0;
}

static double bytes_each(int resume)
{
    return cost(SOCKET) + cost(MEMBER) + cost(resume ? RING : IDLE);
}

/* Messages a second that go out to the members of rooms, for each player. */
static double out_each(const profile *p, long size)
{
    double each = p->rate * (double)size;
    if (p->tick > 0)
        return p->tick;
    return p->limit > 0 && p->limit < each ? p->limit : each;
}

static void capacity_row(const profile *p, long size)
{
    long players = capacity(p, size);
    double in_s = p->rate * (double)players, loops;
    outcome o = {.p50 = NAN, .p99 = NAN};
    if (players) {
        world w = world_even(p, players, size, 1);
        o = world_run(&w, p);
    }
    word(p->name);
    number((double)size, 0);
    number(player_load(p, size) * SECOND, 1);
    number((double)players, 0);
    number(in_s, 0);
    number(out_each(p, size) * (double)players, 0);
    number(o.p50 / 1000, 2);
    number(o.p99 / 1000, 2);
    number((double)players * bytes_each(1) / 1e6, 1);
    loops = player_load(p, size) * (double)set.players / set.load;
    number(32 * (double)players, 0);
    number(ceil(loops), 0);
}

static void capacity_print(void)
{
    static const char *const columns[] = {
        "profile", "room",       "us/player",     "players",
        "in/s",    "out/s",      "p50 ms",        "p99 ms",
        "MB",      "x 32 loops", "loops for all", NULL};
    char title[160];
    profile p;
    snprintf(title, sizeof title,
             "what one loop carries at %.0f %% of a core, in whole rooms",
             set.load * 100);
    table_begin("capacity", title, columns);
    if (strcmp(set.profile, "all") == 0)
        capacity_row(&idle_profile, 1);
    for (int i = 0; i < PROFILES; i++)
        for (int k = 0; profile_get(i, &p) && room_get(k); k++)
            capacity_row(&p, room_get(k));
    table_end();
}

/* ---- tables rooms and hot ----------------------------------------------- */

static const char *const rooms_columns[] = {
    "profile",   "room",      "loops",     "mean %", "worst %",
    "imbalance", "of two",    "above",     "stuck",  "busiest %",
    "p50 ms",    "p99 ms",    "worst p99", "in/s",   "writes/s",
    "out/s",     "delivered", "expected",  NULL};

static void rooms_row(const profile *p, const char *size, long loops,
                      const outcome *o)
{
    word(p->name);
    word(size);
    number((double)loops, 0);
    number(o->mean * 100, 1);
    number(o->worst * 100, 1);
    number(o->worst / o->mean, 2);
    number(o->two / o->mean, 2);
    number((double)o->above, 0);
    number((double)o->stuck, 0);
    number(o->busiest * 100, 1);
    number(o->p50 / 1000, 2);
    number(o->p99 / 1000, 2);
    number(o->p99_worst / 1000, 2);
    number(o->in_s, 0);
    number(o->writes_s, 0);
    number(o->out_s, 0);
    number((double)o->delivered, 0);
    number((double)o->expected, 0);
}

static void rooms_print(void)
{
    char title[160], size[24];
    profile p;
    snprintf(title, sizeof title, "%ld players in rooms of one size",
             set.players);
    table_begin("rooms", title, rooms_columns);
    for (int i = 0; i < PROFILES; i++)
        for (int k = 0; profile_get(i, &p) && room_get(k); k++)
            for (int n = 0; loops_get(n); n++) {
                world w =
                    world_even(&p, set.players, room_get(k), loops_get(n));
                outcome o = world_run(&w, &p);
                snprintf(size, sizeof size, "%ld", room_get(k));
                rooms_row(&p, size, loops_get(n), &o);
            }
    table_end();
}

/* One room of 10,000 among rooms of 4; how much is said in them falls with
   their rank, the large one is the first.  Nobody says more than 20 a second.
 */
static world world_hot(const profile *p, long players, long loops)
{
    enum { LARGE = 10000, SMALL = 4, MOST = 20 };
    long large = players < 2 * LARGE ? players / 2 : LARGE;
    long rooms = 1 + (players - large + SMALL - 1) / SMALL;
    world w = world_new(players, rooms, loops);
    double sum = 0;
    for (long r = 0; r < rooms; r++) {
        w.members[r] = (uint32_t)(r ? SMALL : large);
        w.rate[r] = pow((double)(r + 1), -set.zipf);
        sum += w.rate[r];
    }
    for (long r = 0; r < rooms; r++) {
        w.rate[r] *= p->rate * (double)players / sum;
        if (w.rate[r] > (double)MOST * w.members[r])
            w.rate[r] = (double)MOST * w.members[r];
    }
    return w;
}

static void hot_print(void)
{
    char title[160];
    profile p;
    snprintf(title, sizeof title,
             "one room of 10,000 among rooms of 4, activity falls with rank^%g",
             set.zipf);
    table_begin("hot", title, rooms_columns);
    for (int i = 0; i < PROFILES; i++)
        for (int n = 0; profile_get(i, &p) && loops_get(n); n++) {
            world w = world_hot(&p, set.players, loops_get(n));
            outcome o = world_run(&w, &p);
            rooms_row(&p, "mixed", loops_get(n), &o);
        }
    table_end();
}

/* ---- table spread: one room over several loops -------------------------- */

/* What a room of m members over k loops asks of the loop that leads it, beside
   what it asks for each tick whoever is in it. */
static double lead_load(const profile *p, double m, double k)
{
    double own = m / k, far = m - own;
    return (own * (p->tick * cost(FANOUT) +
                   p->rate * (cost(RECV) + cost(HANDLE))) +
            far * p->rate * (cost(POSTED) + cost(HANDLE))) /
           SECOND;
}

static double follow_load(const profile *p, double m, double k)
{
    return (m / k *
                (p->tick * cost(FANOUT) + p->rate * (cost(RECV) + cost(POST))) +
            p->tick * cost(POSTED)) /
           SECOND;
}

static void spread_row(const profile *p, double m, double k)
{
    double fixed = p->tick * (k - 1) * cost(POST) / SECOND;
    double lead = lead_load(p, m, k) + fixed;
    double follow = k > 1 ? follow_load(p, m, k) : 0;
    double most = (set.load - fixed) / lead_load(p, 1, k);
    double last = m / k * cost(FANOUT);
    if (k > 1)
        last += (k - 1) * cost(POST) + cost(POSTED);
    number(k, 0);
    number(m, 0);
    number(lead * 100, 1);
    number(k > 1 ? follow * 100 : NAN, 1);
    number((lead + (k - 1) * follow) / lead_load(p, m, 1), 2);
    number(last / 1000, 1);
    number(last * p->tick / SECOND < 1 ? p->tick : SECOND / last, 1);
    number(floor(most), 0);
}

static void spread_print(void)
{
    static const char *const columns[] = {"loops",    "members",     "lead %",
                                          "follow %", "cost of one", "last ms",
                                          "ticks/s",  "most",        NULL};
    char title[160];
    profile p;
    long m = set.room ? set.room : 10000;
    profile_get(PROFILES - 1, &p);
    if (p.tick <= 0)
        return;
    snprintf(title, sizeof title,
             "a room that ticks %g times a second, over loops; most: members"
             " at %.0f %%",
             p.tick, set.load * 100);
    table_begin("spread", title, columns);
    for (double k = 1; k <= 64; k *= 2)
        spread_row(&p, (double)m, k);
    table_end();
}

/* ---- table storm: a loop is lost ---------------------------------------- */

enum {
    CUT_MS = 2000,
    HORIZON_MS = 600000,
    ACCEPTS = 16,   /* of one turn */
    BACKLOG = 1024, /* as listen(2) */
    FIRST_MS = 500, /* a client's first wait, at most */
    SYN_MS = 1000,  /* until a lost SYN is sent again */
    WINDOW_US = 100000,
    CLOSELY = 8, /* survivors that are simulated; the others are alike */
    NOBODY = -1
};

/* One who survives, and the clients whose rooms are now his. */
typedef struct {
    uint64_t chance;
    double t, from, until;   /* as of a station */
    double rate, work;       /* work: of one message to a room of 4 */
    double accepts;          /* connections a second; 0: all */
    double admitted, opened; /* bucket of those let in, and its time */
    double asked, told;      /* and of those refused */
    long clients, back, players, refused;
    int *head, *next; /* who comes in which ms */
    int ms;           /* all before it have come */
    int line[BACKLOG];
    int first, count;
    uint8_t *tries;
    int tries_most, stuck;
    double window, window_busy, peak;
    histogram *quiet, *storm, *returned;
} survivor;

static void client_comes(survivor *v, int client, double ms)
{
    int at = ms < HORIZON_MS - 1 ? (int)ms : HORIZON_MS - 1;
    if (at < v->ms)
        at = v->ms;
    v->next[client] = v->head[at];
    v->head[at] = client;
}

/* As rt__bucket: leaks rate a second. */
static double bucket_leak(double level, double rate, double us)
{
    level -= rate * us / SECOND;
    return level > 0 ? level : 0;
}

/* What rt__retry_draw answers, as Retry-After and back: in whole seconds, and
   some time within the last of them. */
static double retry_ms(survivor *v)
{
    double turn, from, to, ms;
    v->asked = bucket_leak(v->asked, v->accepts, v->t - v->told);
    v->told = v->t;
    turn = v->asked * 1000 / v->accepts;
    v->asked += turn < 60000;
    from = turn * 0.8 > 40000 ? 40000 : turn * 0.8;
    to = turn * 1.3 < from + 1000 ? from + 1000 : turn * 1.3;
    if (to > 60000)
        to = 60000;
    ms = from + 1 + draw_part(&v->chance) * (to - from);
    return ceil(ms / 1000) * 1000 - draw_part(&v->chance) * 1000;
}

/* Those whose time has come stand in line at the door, as far as it goes. */
static void clients_arrive(survivor *v)
{
    while (v->ms < HORIZON_MS && v->ms * 1000.0 <= v->t) {
        int client = v->head[v->ms];
        v->head[v->ms] = NOBODY;
        v->ms++;
        while (client != NOBODY) {
            int next = v->next[client];
            if (v->count == BACKLOG)
                client_comes(v, client, v->ms + SYN_MS);
            else
                v->line[(v->first + v->count++) % BACKLOG] = client;
            client = next;
        }
    }
}

/* The next of the line is let in, or told when to come again. */
static double door_open(survivor *v)
{
    int client = v->line[v->first];
    v->first = (v->first + 1) % BACKLOG;
    v->count--;
    if (v->tries[client] < 255)
        v->tries[client]++;
    if (v->tries[client] > v->tries_most)
        v->tries_most = v->tries[client];
    if (v->accepts > 0 && v->admitted + 1 > v->accepts) {
        client_comes(v, client, v->t / 1000 + retry_ms(v));
        v->refused++;
        return cost(REFUSE);
    }
    v->admitted += 1;
    v->back++;
    hist_add(v->returned, (uint64_t)(v->t / 1000) - CUT_MS);
    return cost(RESUME);
}

static double door(survivor *v)
{
    double us = 0;
    v->admitted = bucket_leak(v->admitted, v->accepts, v->t - v->opened);
    v->opened = v->t;
    for (int i = 0; i < ACCEPTS && v->count > 0; i++)
        us += door_open(v);
    return us;
}

static void window_count(survivor *v, double us)
{
    v->window_busy += us;
    if (v->t < v->window + WINDOW_US)
        return;
    us = v->window_busy / (v->t - v->window);
    if (us > v->peak && v->t > CUT_MS * 1000.0)
        v->peak = us;
    v->window = v->t;
    v->window_busy = 0;
}

static double next_client(survivor *v)
{
    int ms = v->ms;
    while (ms < HORIZON_MS && v->head[ms] == NOBODY)
        v->ms = ++ms;
    return ms * 1000.0;
}

/* A turn with n messages; returns how many come while it works. */
static uint64_t survivor_turn(survivor *v, uint64_t n)
{
    int quiet = v->t < CUT_MS * 1000.0;
    double share = 1 + (double)v->back / (double)v->players, us;
    clients_arrive(v);
    us = (double)n * v->work + door(v);
    delays_spread(quiet ? v->quiet : v->storm, n, v->from, v->until, v->t + us);
    v->stuck |= us > STUCK_US;
    v->from = v->t;
    v->t += us;
    v->until = v->t;
    window_count(v, us);

    return draw_count(&v->chance, v->rate * share * us);
}

static uint64_t survivor_idle(survivor *v)
{
    double share = 1 + (double)v->back / (double)v->players;
    double next = v->t + draw_gap(&v->chance, v->rate * share);
    double client = next_client(v);
    uint64_t n;
    if (v->count > 0)
        return 0;
    v->t = client < next ? (client > v->t ? client : v->t) : next;
    v->from = v->until = v->t;
    v->t += cost(TURN);
    v->window_busy += cost(TURN);
    n = (client >= next) + draw_count(&v->chance, v->rate * share * cost(TURN));
    if (n > 1)
        v->until = v->t;
    return n;
}

static void survivor_run(survivor *v)
{
    uint64_t n = 0;
    v->head = need(HORIZON_MS, sizeof *v->head);
    v->next = need((size_t)v->clients, sizeof *v->next);
    v->tries = need((size_t)v->clients, sizeof *v->tries);
    for (int i = 0; i < HORIZON_MS; i++)
        v->head[i] = NOBODY;
    for (long i = 0; i < v->clients; i++)
        client_comes(v, (int)i,
                     CUT_MS + draw_part(&v->chance) * (FIRST_MS + 1));
    while (!v->stuck && v->t < (HORIZON_MS - 1) * 1000.0 &&
           (v->back < v->clients || v->t < 2 * CUT_MS * 1000.0))
        n = survivor_turn(v, n ? n : survivor_idle(v));
    free(v->head);
    free(v->next);
    free(v->tries);
}

typedef struct {
    long refused, stuck;
    int tries_most;
    double peak;
    histogram quiet, storm, returned;
} aftermath;

/* Each of the loops has so many players; one is lost, and each survivor gets
   its share of those. */
static void storm_run(long loops, double accepts, aftermath *a)
{
    double work = cost(RECV) + cost(HANDLE) + 4 * cost(FANOUT);
    long players = set.players / loops, closely = loops - 1;
    memset(a, 0, sizeof *a);
    if (work <= 0 || players == 0)
        return;

    for (long l = 0; l < closely && l < CLOSELY; l++) {
        survivor v = {.accepts = accepts,
                      .players = players,
                      .clients = (players + closely - 1) / closely,
                      .work = work,
                      .quiet = &a->quiet,
                      .storm = &a->storm,
                      .returned = &a->returned};
        v.rate = set.quiet / v.work;
        v.chance = mix((uint64_t)set.seed + ((uint64_t)(loops + l) << 32));
        survivor_run(&v);
        a->refused += v.refused;
        a->stuck += v.stuck || v.back < v.clients;
        if (v.tries_most > a->tries_most)
            a->tries_most = v.tries_most;
        if (v.peak > a->peak)
            a->peak = v.peak;
    }
}

static void storm_row(long loops, double accepts)
{
    static aftermath a;
    long players = set.players / loops;
    int stuck;
    storm_run(loops, accepts, &a);
    stuck = a.stuck > 0;
    number((double)loops, 0);
    number((double)players, 0);
    number((double)players / (double)(loops - 1), 0);
    if (accepts > 0)
        number(accepts, 0);
    else
        word("off");
    number(stuck ? INFINITY : hist_us(&a.returned, 50), 1);
    number(stuck ? INFINITY : hist_us(&a.returned, 99), 1);
    number(stuck ? INFINITY : hist_us(&a.returned, 100), 1);
    number((double)a.refused / (double)a.returned.count, 2);
    number(a.tries_most, 0);
    number(a.peak * 100, 1);
    number(set.quiet * 100 * (double)loops / (double)(loops - 1), 1);
    number(hist_us(&a.quiet, 99) / 1000, 2);
    number(stuck ? INFINITY : hist_us(&a.storm, 99) / 1000, 2);
    number(hist_us(&a.storm, 100) / 1000, 1);
}

static void storm_print(void)
{
    static const char *const columns[] = {
        "loops",   "players",   "to each",   "accept/s",   "half s",
        "99 % s",  "all s",     "refused",   "most tries", "peak %",
        "after %", "p99 quiet", "p99 storm", "max storm",  NULL};
    static const double accepts[] = {0, 200, 1000, 5000};
    char title[160];
    snprintf(title, sizeof title,
             "one of the loops is lost, each was busy for %.0f %%; %ld players"
             " in all; ms",
             set.quiet * 100, set.players);
    table_begin("storm", title, columns);
    for (int n = 0; loops_get(n); n++)
        for (int i = 0; i < 4 && loops_get(n) > 1; i++)
            storm_row(loops_get(n), accepts[i]);
    table_end();
}

/* ---- table cluster: servers of 32 loops and a broker -------------------- */

/* FRAME: what stands around a message on the line: WebSocket 2, TCP 32, IP 20,
   Ethernet 38. */
enum { LOOPS = 32, FRAME = 92 };

/* On how many of n places some of m players are, who sit anywhere. */
static double places(double n, double m)
{
    return n * (1 - pow(1 - 1 / n, m));
}

/* A message of a room of that size is published once, brought once to each
   server that has a member, and handed to each of its loops that has. */
typedef struct {
    double players, published, brought, broker, megabytes, extra;
} crossing;

static crossing cross(const profile *p, long size, long servers, int affine)
{
    double m = (double)size, loops = (double)(servers * LOOPS), each;
    crossing x = {0};
    x.players = (double)capacity(p, size) * loops;
    each = p->tick > 0 ? p->tick / m : out_each(p, size) / m;
    if (affine)
        return x;
    x.published = x.players * each;
    x.extra = x.published * places(loops, m) * (cost(POST) + cost(POSTED)) /
              SECOND / loops;
    if (servers == 1) {
        x.published = 0;
        return x;
    }
    x.brought = x.published * places((double)servers, m);
    x.broker =
        (x.published * cost(BROKER_IN) + x.brought * cost(BROKER_OUT)) / SECOND;
    x.megabytes = (x.published + x.brought) * (set.bytes + FRAME) / 1e6;
    x.extra += (x.published * cost(PUBLISH) + x.brought * cost(DELIVER)) /
               SECOND / loops;
    return x;
}

static void cluster_row(const profile *p, long size, long servers)
{
    crossing x = cross(p, size, servers, 0);
    if (x.players <= 0)
        return;
    word(p->name);
    number((double)size, 0);
    number((double)servers, 0);
    number(x.players, 0);
    number(x.published, 0);
    number(places((double)servers, (double)size), 1);
    number(x.brought, 0);
    number(x.megabytes, 0);
    number(x.broker, 1);
    number(x.extra * 100, 1);
    number(cross(p, size, servers, 1).published, 0);
}

static void cluster_print(void)
{
    static const char *const columns[] = {
        "profile",      "room",         "servers",      "players",
        "published/s",  "servers/room", "brought/s",    "MB/s",
        "broker cores", "loop +%",      "affine pub/s", NULL};
    char title[160];
    profile p;
    snprintf(title, sizeof title,
             "servers of %d loops at %.0f %%, players placed anywhere; affine:"
             " rooms on one loop",
             LOOPS, set.load * 100);
    table_begin("cluster", title, columns);
    for (int i = 0; i < PROFILES; i++)
        for (int k = 0; profile_get(i, &p) && room_get(k); k++)
            for (long n = 1; n <= set.servers; n *= 2)
                cluster_row(&p, room_get(k), n);
    table_end();
}

/* ---- table first: what a server runs out of ----------------------------- */

static void first_row(const profile *p, long size)
{
    static const char *const names[] = {"processor", "network", "memory",
                                        "files"};
    double most[4], each = p->rate + out_each(p, size);
    int first = 0;
    most[0] = set.load / player_load(p, size) * LOOPS;
    most[1] = set.gbit * 1e9 / 8 / (set.bytes + FRAME) / each;
    most[2] = set.memory * 1073741824 / bytes_each(1);
    most[3] = set.files;
    for (int i = 1; i < 4; i++)
        if (most[i] < most[first])
            first = i;
    word(p->name);
    number((double)size, 0);
    for (int i = 0; i < 4; i++)
        number(floor(most[i]), 0);
    word(names[first]);
    number(most[first] / LOOPS / 1000, 1);
    number(most[first] * cost(RESUME) / LOOPS / SECOND, 1);
    number(most[first] * cost(HANDSHAKE) / LOOPS / SECOND, 1);
}

static void first_print(void)
{
    static const char *const columns[] = {
        "profile", "room",        "processor", "network", "memory", "files",
        "first",   "s at 1000/s", "work s",    "plain s", NULL};
    char title[160];
    profile p;
    snprintf(title, sizeof title,
             "players of a server of %d loops, as each thing ends; then how"
             " long a restart lasts",
             LOOPS);
    table_begin("first", title, columns);
    if (strcmp(set.profile, "all") == 0)
        first_row(&idle_profile, 1);
    for (int i = 0; i < PROFILES; i++)
        for (int k = 0; profile_get(i, &p) && room_get(k); k++)
            first_row(&p, room_get(k));
    table_end();
}

/* ---- table memory ------------------------------------------------------- */

static void memory_row(const char *what, double bytes)
{
    word(what);
    number(bytes, 0);
    number(1073741824 / bytes, 0);
    number(1073741824 / (bytes + cost(SOCKET)), 0);
    number((bytes + cost(SOCKET)) * (double)set.players / 1e9, 2);
}

static void memory_print(void)
{
    static const char *const columns[] = {"session",     "bytes",      "a GiB",
                                          "with kernel", "GB for all", NULL};
    table_begin("memory", "sessions of a GiB, without and with the kernel's",
                columns);
    memory_row("idle", cost(IDLE));
    memory_row("in a group", cost(IDLE) + cost(MEMBER));
    memory_row("resume", cost(RING));
    memory_row("both", cost(RING) + cost(MEMBER));
    /* 64 KiB is the most that a ring keeps. */
    memory_row("ring full", cost(RING) + cost(MEMBER) + 65536);
    table_end();
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } tables[] = {{"costs", costs_print},     {"capacity", capacity_print},
                  {"rooms", rooms_print},     {"hot", hot_print},
                  {"spread", spread_print},   {"storm", storm_print},
                  {"cluster", cluster_print}, {"first", first_print},
                  {"memory", memory_print}};
    settings_read(argc, argv);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (wanted(tables[i].name))
            tables[i].print();
    if (set.json)
        puts(out.tables ? "}" : "{}");
    return 0;
}
