/*
 * Both ends of a line that test/namespaces.sh makes worse and worse, with
 * sessions that resume:
 *
 *   courier server PORT                  echoes until SIGTERM; SIGUSR1 asks
 *   courier client URL [--FLAG VALUE]... sends numbered messages, checks echoes
 *
 * Each end checks that every message of the other comes exactly once and in
 * order.  The client ends with one line of numbers, and with 0 when all is
 * right; so does the server.
 */
#include "rtnet.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A note is sent so seldom that all of a long cut are kept. */
enum { SESSIONS_MOST = 100, SIZE_MOST = 4096, HEAD = 4, NOTE_MS = 200 };

static const rt_session nobody = {0};

/* What is behind the number follows from it. */
static void fill(uint32_t number, uint8_t *out, size_t len)
{
    size_t i;
    for (i = 0; i < HEAD; i++)
        out[i] = (uint8_t)(number >> 8 * i);
    for (; i < len; i++)
        out[i] = (uint8_t)(number * 7 + i * 13);
}

/* Is it that message? */
static int right(uint32_t number, const void *data, size_t len)
{
    uint8_t want[SIZE_MOST];
    if (len < HEAD || len > sizeof want)
        return 0;
    fill(number, want, len);
    return memcmp(want, data, len) == 0;
}

/* ---- the server ---------------------------------------------------------- */

static struct {
    rt_loop *loop;
    unsigned long opened, received, wrong, refused, away, lost, unknown;
} server;

typedef struct {
    rt_session s;
    uint32_t next, notes;
} seat;

/* The server has something to say, too, also while nobody is there to hear it:
   that is what it has to keep. */
static void seat_note(rt_loop *loop, void *arg)
{
    seat *mine = arg;
    char text[32];
    int n = snprintf(text, sizeof text, "%lu", (unsigned long)mine->notes++);
    server.refused += rt_send(loop, mine->s, RT_TEXT, text, (size_t)n) < 0;
    rt_timer_start(loop, mine->s, rt_now(loop) + NOTE_MS, seat_note, mine);
}

static void seat_open(rt_loop *loop, rt_session s)
{
    seat *mine = calloc(1, sizeof *mine);
    server.opened++;
    if (!mine)
        return;
    mine->s = s;
    rt_set_user(loop, s, mine);
    seat_note(loop, mine);
}

static void seat_message(rt_loop *loop, rt_session s, int kind,
                         const void *data, size_t len)
{
    seat *mine = rt_user(loop, s);
    server.received++;
    server.wrong += !mine || !right(mine->next++, data, len);
    server.refused += rt_send(loop, s, kind, data, len) < 0;
}

static void seat_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    server.away++;
}

static void seat_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    server.lost += (unsigned long)lost;
}

static void seat_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    server.unknown += why->code != 1000 && why->cause != RT_BY_LOOP;
    free(rt_user(loop, s));
}

static volatile sig_atomic_t server_asked;

static void server_signal(int number)
{
    server_asked = number;
    rt_stop(server.loop);
}

static long server_metric(const char *name)
{
    static char page[65536];
    const char *at;
    rt_metrics(server.loop, page, sizeof page);
    at = strstr(page, name);
    return at ? strtol(at + strlen(name), NULL, 10) : -1;
}

/* Until SIGTERM; SIGUSR1 asks who is there. */
static int server_turn(void)
{
    while (server_asked != SIGTERM) {
        if (rt_run(server.loop) < 0)
            return -1;
        printf("connections=%ld sessions_away=%ld\n",
               server_metric("\nrtnet_connections "),
               server_metric("\nrtnet_sessions_away "));
        fflush(stdout);
    }
    return 0;
}

static int server_run(const char *port)
{
    rt_listen_opts o;
    char url[64];
    memset(&o, 0, sizeof o);
    o.on.open = seat_open;
    o.on.message = seat_message;
    o.on.away = seat_away;
    o.on.back = seat_back;
    o.on.close = seat_close;
    o.resume_ms = 60000;
    o.ping_ms = 500;
    o.close_ms = 1000;
    snprintf(url, sizeof url, "ws://0.0.0.0:%s", port);
    server.loop = rt_loop_new(NULL);
    if (!server.loop || !rt_listen(server.loop, url, &o).id)
        return 1;
    signal(SIGTERM, server_signal);
    signal(SIGUSR1, server_signal);
    printf("listening\n");
    fflush(stdout);
    if (server_turn() < 0)
        return 1;
    rt_loop_free(server.loop);
    printf("opened=%lu received=%lu wrong=%lu refused=%lu away=%lu lost=%lu"
           " unknown=%lu\n",
           server.opened, server.received, server.wrong, server.refused,
           server.away, server.lost, server.unknown);
    return server.wrong + server.refused + server.lost + server.unknown > 0;
}

/* ---- the client ---------------------------------------------------------- */

typedef struct {
    rt_session s;
    uint32_t sent, got, notes;
    uint64_t when[256]; /* of the last messages that were sent */
} player;

static struct {
    rt_loop *loop;
    player players[SESSIONS_MOST];
    int sessions, messages, size, window, every_ms, limit_ms;
    int live, late;
    unsigned long opened, notes, wrong, refused, away, back, lost, badly_ended;
    uint64_t longest;
} client;

static int player_done(const player *p)
{
    return p->got >= (uint32_t)client.messages;
}

static void player_say(rt_loop *loop, player *p)
{
    uint8_t message[SIZE_MOST];
    uint32_t number = p->sent++;
    size_t len = HEAD + number * 31 % (uint32_t)(client.size - HEAD + 1);
    fill(number, message, len);
    p->when[number % 256] = rt_now(loop);
    client.refused += rt_send(loop, p->s, RT_BINARY, message, len) < 0;
}

/* As many as the window takes; with every_ms, one. */
static void player_talk(rt_loop *loop, player *p)
{
    while (p->sent < (uint32_t)client.messages &&
           p->sent - p->got < (uint32_t)client.window) {
        player_say(loop, p);
        if (client.every_ms)
            return;
    }
}

static void player_due(rt_loop *loop, void *arg)
{
    player *p = arg;
    player_talk(loop, p);
    rt_timer_start(loop, p->s, rt_now(loop) + (uint64_t)client.every_ms,
                   player_due, p);
}

static void player_open(rt_loop *loop, rt_session s)
{
    player *p = rt_context(loop, s);
    client.opened++;
    p->s = s;
    if (client.every_ms)
        player_due(loop, p);
    else
        player_talk(loop, p);
}

static void player_note(player *p, const void *data, size_t len)
{
    char want[32];
    int n = snprintf(want, sizeof want, "%lu", (unsigned long)p->notes++);
    client.wrong += len != (size_t)n || memcmp(data, want, len) != 0;
    client.notes++;
}

static void player_echo(rt_loop *loop, rt_session s, const void *data,
                        size_t len)
{
    player *p = rt_context(loop, s);
    uint64_t took = rt_now(loop) - p->when[p->got % 256];
    client.longest = took > client.longest ? took : client.longest;
    client.wrong += p->got >= p->sent || !right(p->got, data, len);
    p->got++;
    if (player_done(p))
        rt_close(loop, s, 1000, "");
    else if (!client.every_ms)
        player_talk(loop, p);
}

static void player_message(rt_loop *loop, rt_session s, int kind,
                           const void *data, size_t len)
{
    if (kind == RT_TEXT)
        player_note(rt_context(loop, s), data, len);
    else
        player_echo(loop, s, data, len);
}

static void player_away(rt_loop *loop, rt_session s)
{
    (void)loop;
    (void)s;
    client.away++;
}

static void player_back(rt_loop *loop, rt_session s, uint64_t lost)
{
    (void)loop;
    (void)s;
    client.back++;
    client.lost += (unsigned long)lost;
}

static void client_leave(rt_loop *loop, void *arg)
{
    (void)arg;
    rt_stop(loop);
}

/* The last one stays a moment, so that the closing handshake can end. */
static void player_close(rt_loop *loop, rt_session s, const rt_end *why)
{
    client.badly_ended +=
        why->code != 1000 || !player_done(rt_context(loop, s));
    if (--client.live == 0)
        rt_timer_start(loop, nobody, rt_now(loop) + 300, client_leave, NULL);
}

static void client_late(rt_loop *loop, void *arg)
{
    (void)arg;
    client.late = 1;
    rt_stop(loop);
}

static int client_dial(const char *url)
{
    rt_dial_opts o;
    int i;
    memset(&o, 0, sizeof o);
    o.on.open = player_open;
    o.on.message = player_message;
    o.on.away = player_away;
    o.on.back = player_back;
    o.on.close = player_close;
    o.resume = 1;
    o.ping_ms = 500;
    o.connect_ms = 1000;
    for (i = 0; i < client.sessions; i++) {
        o.user = &client.players[i];
        client.players[i].s = rt_dial(client.loop, url, &o);
        if (!client.players[i].s.id)
            return -1;
        client.live++;
    }
    return 0;
}

static unsigned long client_echoed(void)
{
    unsigned long sum = 0;
    int i;
    for (i = 0; i < client.sessions; i++)
        sum += client.players[i].got;
    return sum;
}

static int client_run(const char *url)
{
    uint64_t began;
    unsigned long all =
        (unsigned long)client.sessions * (unsigned long)client.messages;
    client.loop = rt_loop_new(NULL);
    if (!client.loop || client_dial(url) < 0)
        return 1;
    began = rt_now(client.loop);
    rt_timer_start(client.loop, nobody, began + (uint64_t)client.limit_ms,
                   client_late, NULL);
    if (rt_run(client.loop) < 0)
        return 1;
    printf(
        "echoed=%lu of=%lu notes=%lu wrong=%lu refused=%lu opened=%lu away=%lu"
        " back=%lu lost=%lu badly_ended=%lu late=%d longest=%lu took=%lu\n",
        client_echoed(), all, client.notes, client.wrong, client.refused,
        client.opened, client.away, client.back, client.lost,
        client.badly_ended, client.late, (unsigned long)client.longest,
        (unsigned long)(rt_now(client.loop) - began));
    fflush(stdout);
    rt_loop_free(client.loop);
    return client_echoed() != all || client.late ||
           client.wrong + client.refused + client.lost + client.badly_ended > 0;
}

/* ---- the command line ---------------------------------------------------- */

static int flags_read(int argc, char **argv)
{
    static const struct {
        const char *name;
        int *to;
    } flags[] = {
        {"--sessions", &client.sessions}, {"--messages", &client.messages},
        {"--size", &client.size},         {"--window", &client.window},
        {"--every-ms", &client.every_ms}, {"--limit-ms", &client.limit_ms},
    };
    size_t k;
    int i;
    for (i = 0; i + 1 < argc; i += 2) {
        for (k = 0; k < sizeof flags / sizeof *flags; k++)
            if (strcmp(argv[i], flags[k].name) == 0)
                break;
        if (k == sizeof flags / sizeof *flags)
            return -1;
        *flags[k].to = atoi(argv[i + 1]);
    }
    return i == argc && client.sessions > 0 &&
                   client.sessions <= SESSIONS_MOST && client.size >= HEAD &&
                   client.size <= SIZE_MOST && client.window <= 256
               ? 0
               : -1;
}

int main(int argc, char **argv)
{
    client.sessions = 1;
    client.messages = 100;
    client.size = 500;
    client.window = 16;
    client.limit_ms = 30000;
    if (argc == 3 && strcmp(argv[1], "server") == 0)
        return server_run(argv[2]);
    if (argc >= 3 && strcmp(argv[1], "client") == 0 &&
        flags_read(argc - 3, argv + 3) == 0)
        return client_run(argv[2]);
    fprintf(stderr, "usage: courier server PORT\n"
                    "       courier client URL [--FLAG VALUE]...\n");
    return 2;
}
