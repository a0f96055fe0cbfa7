/*
 * Scenarios of test_faults.c: loops, listeners, requests, messages, dials,
 * the door, and what else a loop has.  Each copes with whatever failed before
 * and goes on; REACHED says what must be where nothing fails.
 */
#ifndef FAULT_LOOPS_H
#define FAULT_LOOPS_H

#include "fault_stage.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- loops ------------------------------------------------------------------
 */

static void a_loop_opens(void)
{
    st.loop = rt_loop_new(&st.loop_opts);
    REACHED(st.loop);
    if (!st.loop)
        return;
    turns(2);
    rt_flush(st.loop);
    REACHED(rt_loop_timeout(st.loop) == -1);
}

static int own_random(void *user, void *out, size_t n)
{
    (void)user;
    memset(out, 7, n);
    return 0;
}

static void a_loop_opens_with_the_hosts_random_bytes(void)
{
    st.loop_opts.random = own_random;
    st.loop_opts.backend = RT_AUTO;
    st.loop_opts.spin_us = 50;
    a_loop_opens();
}

static void tick(rt_loop *loop, void *arg)
{
    (void)loop;
    enter();
    st.ticks++;
    if (arg)
        ++*(int *)arg;
    leave();
}

static void tick_and_stop(rt_loop *loop, void *arg)
{
    tick(loop, arg);
    rt_stop(loop);
}

/* Stopped by a post; by a timer, should the post fail. */
static void a_loop_runs_until_it_is_stopped(void)
{
    int posted = rt_post(st.loop, tick, NULL), at;

    posted = rt_post(st.loop, tick_and_stop, NULL) == 0 && posted == 0;
    xtimer((rt_session){0}, 20, tick_and_stop, NULL);
    sim_at(sim_now() + 40, (void (*)(void *))rt_stop, st.loop);
    at = rt_run(st.loop);
    REACHED(at == 0 && posted && st.ticks >= 2);
    turns(30);
}

static void posts_come_in_their_order(void)
{
    int i, sent = 0, order[3] = {0, 0, 0};

    for (i = 0; i < 3; i++)
        sent += rt_post(st.loop, tick, &order[i]) == 0;
    turns(4);
    if (st.ticks != sent)
        sim_fault("%d posts, and %d of them ran", sent, st.ticks);
    REACHED(sent == 3);
}

static void a_foreign_loop_drives_it(void)
{
    int n;

    ws_door();
    say(client(), "hi");
    xtimer((rt_session){0}, 5, tick, NULL);
    for (n = 0; n < 20; n++) {
        int wait = rt_loop_timeout(st.loop), fd = rt_loop_fd(st.loop);

        if (fd < 0 && fd != RT_ESTATE)
            sim_fault("rt_loop_fd is %d", fd);
        pump();
        if (wait != 0)
            sim_pass(1);
        rt_poll(st.loop, 0);
        rt_flush(st.loop);
        pump();
    }
    REACHED(st.messages == 1 && st.ticks == 1);
}

static void timers_run_and_stop_with_their_owners(void)
{
    rt_timer t[4];
    rt_session none = {0};
    int n = 0, ran;

    ws_door();
    entered();
    t[0] = xtimer(none, 3, tick, &n);
    t[1] = xtimer(st.last, 4, tick, &n);
    t[2] = xtimer(st.last, 400, tick, &n);
    t[3] = xtimer(none, 5, tick, &n);
    rt_timer_stop(st.loop, t[3]);
    pass(20);
    ran = (t[0].id != 0) + (t[1].id != 0);
    if (n != ran)
        sim_fault("%d timers were due, %d ran", ran, n);
    xclose(st.last, 0, NULL);
    turns(3);
    REACHED(rt_timer_stop(st.loop, t[2]) == RT_EGONE && ran == 2);
    pass(500);
    if (n > ran + !!t[2].id)
        sim_fault("a stopped timer ran");
}

/* ---- watches ------------------------------------------------------------- */

static int foreign[2];

static void pipe_made(void)
{
    if (pipe2(foreign, O_CLOEXEC | O_NONBLOCK) != 0)
        sim_fault("no pipe");
}

static void watched(rt_loop *loop, rt_watch w, int events, void *arg)
{
    char byte;

    (void)arg;
    enter();
    st.events++;
    if (events & RT_READ && read(foreign[0], &byte, 1) < 0 && errno != EAGAIN)
        st.events--;
    if (events & RT_WRITE)
        rt_watch_set(loop, w, 0);
    leave();
}

static void foreign_descriptors_are_watched(void)
{
    rt_watch in = xwatch(foreign[0], RT_READ, watched, NULL), out;

    out = xwatch(foreign[1], RT_READ | RT_WRITE, watched, NULL);
    turns(2);
    while (write(foreign[1], "x", 1) < 0 && errno == EINTR)
        continue;
    turns(2);
    REACHED(st.events >= 2);
    rt_watch_set(st.loop, in, 0);
    rt_watch_set(st.loop, in, RT_READ);
    turns(2);
    rt_watch_stop(st.loop, in);
    rt_watch_stop(st.loop, out);
    REACHED(rt_watch_stop(st.loop, in) == RT_EGONE);
    close(foreign[0]);
    close(foreign[1]);
}

/* ---- listeners ----------------------------------------------------------- */

static void it_listens_and_stops(void)
{
    rt_listener l = xlisten("ws://127.0.0.1:0", NULL);
    int port = rt_listener_port(st.loop, l);

    REACHED(l.id && port > 0);
    rt_listener_fd(st.loop, l);
    turns(1);
    rt_unlisten(st.loop, l);
    l = xlisten("ws://127.0.0.1:9000", &st.o);
    rt_unlisten(st.loop, l);
    ws_door();
    say(entered(), "hi");
    turns(3);
    rt_unlisten(st.loop, st.door);
    turns(1);
    REACHED(st.messages == 1);
}

static void it_listens_on_all_addresses(void)
{
    struct line *l;

    st.o.framing = RT_LENGTH;
    door("tcp://:9000");
    l = line_add(sim_connect_from(PORT, "::1"));
    turns(2);
    line_say(l, "six");
    l = line_add(sim_connect_from(PORT, "127.0.0.1"));
    turns(2);
    line_say(l, "four");
    turns(3);
    REACHED(st.messages == 2);
}

static void it_listens_on_a_path(void)
{
    sim_peer *p;
    struct line *l;

    st.o.framing = RT_LENGTH;
    door("tcp+unix:/run/game");
    p = sim_connect_path("/run/game");
    l = line_add(p);
    turns(2);
    line_say(l, "hi");
    turns(3);
    REACHED(st.messages == 1);
    rt_unlisten(st.loop, st.door);
    turns(2);
    door("unix:/run/game");
    REACHED(st.door.id);
}

/* The file that a dead server left behind. */
static void stale_node(void)
{
    struct sockaddr_un {
        sa_family_t family;
        char path[108];
    } a;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memset(&a, 0, sizeof a);
    a.family = AF_UNIX;
    strcpy(a.path, "/run/game");
    if (bind(fd, (const struct sockaddr *)(const void *)&a, sizeof a) != 0)
        sim_fault("no stale socket file");
    close(fd);
}

static void the_file_of_a_dead_server_is_replaced(void)
{
    struct line *l;

    st.o.framing = RT_LENGTH;
    door("tcp+unix:/run/game");
    l = line_add(sim_connect_path("/run/game"));
    turns(2);
    line_say(l, "hi");
    turns(3);
    REACHED(st.messages == 1);
}

static int handed = -1;

static void socket_handed(void)
{
    struct sockaddr_in a;

    memset(&a, 0, sizeof a);
    a.sin_family = AF_INET;
    a.sin_port = htons(PORT);
    handed = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bind(handed, (const struct sockaddr *)&a, sizeof a) != 0 ||
        listen(handed, 8) != 0)
        sim_fault("no socket to hand over");
}

/* It stays the host's when rt_listen fails. */
static void a_listening_socket_is_taken_over(void)
{
    st.o.fd = handed;
    st.door_echoes = 1;
    if (!door("ws://127.0.0.1:1")) {
        close(handed);
        return;
    }
    say(entered(), "hi");
    turns(3);
    REACHED(st.messages == 1);
}

static void a_port_is_shared(void)
{
    rt_listener second;

    st.o.reuse_port = 1;
    st.o.backlog = 4;
    ws_door();
    second = xlisten("ws://127.0.0.1:9000", &st.o);
    say(entered(), "hi");
    say(entered(), "hi");
    turns(3);
    REACHED(second.id && st.messages == 2);
}

/* ---- requests ------------------------------------------------------------ */

static void it_accepts_and_echoes(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    say(w, "one");
    turns(2);
    say(w, "two");
    turns(2);
    REACHED(mail_of(w)->count == 2);
    if (w)
        ws_close(w, 1000);
    turns(4);
    REACHED(st.end.code == 1000);
}

static void frames_come_right_behind_the_request(void)
{
    ws_peer *w;

    ws_door();
    w = client();
    say(w, "one");
    says(w, WS_BINARY, 3000);
    turns(4);
    REACHED(mail_of(w)->count == 2);
}

static void a_request_comes_byte_by_byte(void)
{
    const char *text = ws_request("/?q=1");
    ws_peer *w;

    ws_door();
    w = silent();
    for (; *text; text++) {
        if (w)
            ws_raw(w, text, 1);
        turn(0);
    }
    turns(2);
    REACHED(st.opened == 1);
}

static void plain_asked(rt_session s, const rt_request *r)
{
    char q[16];

    rt_query(r, "q", q, sizeof q);
    rt_header(r, "Host");
    xreply(s, 200, "all is well");
}

static void a_plain_request_is_answered(void)
{
    ws_peer *w;

    ws_door();
    st.on_request = plain_asked;
    w = silent();
    raw(w, "GET /health?q=a+b HTTP/1.1\r\nHost: x\r\n\r\n");
    turns(4);
    REACHED(w && w->status == 200);
}

static void a_body_comes_in_pieces(void)
{
    ws_peer *w;
    int i;

    ws_door();
    st.on_request = plain_asked;
    w = silent();
    raw(w, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n");
    for (i = 0; i < 40; i++) {
        char piece[101];

        memset(piece, 'b', 100);
        piece[100] = 0;
        raw(w, piece);
        turns(1);
    }
    turns(3);
    REACHED(w && w->status == 200);
}

static void an_upgrade_is_refused(void)
{
    ws_peer *w;

    ws_door();
    st.answer = 403;
    w = entered();
    turns(3);
    REACHED(w && w->status == 403 && !w->line);
}

static void a_page_of_another_host_is_refused(void)
{
    ws_peer *w;

    st.o.origins = "https://game.example https://other.example";
    ws_door();
    w = client_with("/", "Origin: https://evil.example\r\n");
    turns(4);
    REACHED(w && w->status == 403);
    w = client_with("/", "Origin: https://game.example\r\n");
    turns(4);
    REACHED(w && w->status == 101);
}

static void nonsense_is_answered_400(void)
{
    ws_peer *w;

    ws_door();
    w = silent();
    raw(w, "GET / HTTP/1.1\r\nHost : x\r\n\r\n");
    turns(4);
    REACHED(w && w->status == 400);
    w = silent();
    raw(w, "G");
    turns(1);
    reset(w);
    turns(2);
}

static void accepted_later(void)
{
    rt_accept_opts o = {"mary", "chat", "X-Room: 7\r\n"};

    if (xaccept(st.asked, &o) == RT_ENOMEM)
        xaccept(st.asked, &o);
}

static void a_request_is_deferred_and_accepted(void)
{
    ws_peer *w;

    ws_door();
    st.answer = RT_DEFER;
    w = client_with("/", "Sec-WebSocket-Protocol: old, chat\r\n");
    say(w, "early");
    turns(3);
    accepted_later();
    turns(3);
    REACHED(rt_uid(st.loop, st.last) && mail_of(w)->count == 1);
    st.answer = 0;
    w = entered();
    turns(2);
    REACHED(st.opened == 2);
}

static void accepted_now(rt_session s, const rt_request *r)
{
    rt_accept_opts o = {"mary", NULL, "X-A: 1\r\nX-B: 2\r\n"};

    (void)r;
    xaccept(s, &o);
}

static void a_request_is_accepted_within_its_callback(void)
{
    ws_peer *w;

    ws_door();
    st.on_request = accepted_now;
    w = entered();
    say(w, "hi");
    turns(3);
    REACHED(mail_of(w)->count == 1 && rt_uid(st.loop, st.last));
    xclose(st.last, 0, NULL);
    turns(3);
}

static void a_request_is_deferred_and_answered(void)
{
    ws_peer *w;

    ws_door();
    st.answer = RT_DEFER;
    w = client();
    turns(3);
    if (xreply(st.asked, 503, "later") == RT_ENOMEM)
        xreply(st.asked, 503, "later");
    turns(3);
    REACHED(w && w->status == 503);
    w = client();
    turns(3);
    rt_close(st.loop, st.asked, 0, NULL);
    turns(3);
    REACHED(w && !w->line);
    st.answer = 0;
}

static void a_deferred_one_is_forgotten_or_hangs_up(void)
{
    ws_peer *w;

    ws_door();
    st.answer = RT_DEFER;
    w = client();
    turns(3);
    reset(w);
    turns(3);
    w = client();
    turns(3);
    pass(15100);
    turns(3);
    REACHED(w && w->status == 503);
    st.answer = 0;
}

static void a_handshake_is_too_slow(void)
{
    ws_peer *w;

    st.o.handshake_ms = 100;
    ws_door();
    w = silent();
    raw(w, "GET / HTTP/1.1\r\nHost: x\r\n");
    pass(150);
    turns(3);
    REACHED(w && !w->line);
}

/* ---- messages ------------------------------------------------------------ */

static void a_long_message_comes_back(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    says(w, WS_BINARY, 60000);
    turns(6);
    REACHED(mail_of(w)->len == 60000);
}

/* Received where it stays, and sent on from there. */
static void a_very_long_message_comes_back(void)
{
    ws_peer *w;

    st.o.max_message = 1 << 20;
    ws_door();
    w = entered();
    says(w, WS_BINARY, 300000);
    turns(30);
    REACHED(mail_of(w)->len == 300000);
    says(w, WS_TEXT, 300000);
    turns(30);
    REACHED(mail_of(w)->count == 2);
}

static void a_message_comes_in_fragments(void)
{
    ws_peer *w;
    int i;

    ws_door();
    w = entered();
    for (i = 0; w && w->line && i < 5; i++) {
        ws_frame(w, (i ? 0 : WS_TEXT) | (i < 4 ? 0 : 0x80), "fragment", 8);
        ws_frame(w, 0x80 | WS_PING, "?", 1);
        turns(1);
    }
    turns(3);
    REACHED(mail_of(w)->len == 40 && w->pongs_got > 0);
}

static void a_text_is_not_utf8(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    say(w, "good \xc3\xa9");
    say(w, "bad \xff");
    turns(4);
    REACHED(w && w->close_code == 1007 && mail_of(w)->count == 1);
    REACHED(xtext(st.last, "\xff") == RT_EGONE);
}

static void a_message_is_too_large(void)
{
    ws_peer *w;

    st.o.max_message = 1000;
    ws_door();
    w = entered();
    says(w, WS_TEXT, 1001);
    turns(4);
    REACHED(w && w->close_code == 1009);
}

static void the_host_closes(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    xtext(st.last, "last words");
    if (xclose(st.last, 3001, "enough") == RT_ENOMEM)
        xclose(st.last, 3001, "enough");
    REACHED(xtext(st.last, "too late") == RT_EGONE);
    turns(4);
    REACHED(w && w->close_code == 3001 && st.end.code == 3001);
    REACHED(!strcmp(st.end.reason, "enough") || st.end.reason);
}

static void the_answer_to_a_close_never_comes(void)
{
    ws_peer *w;

    st.o.close_ms = 100;
    ws_door();
    w = entered();
    if (w)
        w->closes = 0;
    xclose(st.last, 1000, NULL);
    pass(150);
    turns(2);
    REACHED(w && w->close_code == 1000);
}

static void the_host_drops_a_line(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    if (xdrop(st.last, 4100, "go") == RT_ENOMEM)
        xdrop(st.last, 4100, "go");
    turns(4);
    REACHED(w && st.end.code == 4100);
}

static void a_peer_resets_and_another_half_closes(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    says(w, WS_BINARY, 5000);
    reset(w);
    turns(3);
    w = entered();
    say(w, "bye");
    pump();
    if (w && w->line)
        sim_peer_shut(w->line);
    turns(4);
    REACHED(st.opened == 2 && st.end.code == 1006);
}

static void pings_are_not_answered(void)
{
    ws_peer *w;

    st.o.ping_ms = 50;
    st.o.dead_pings = 2;
    ws_door();
    w = entered();
    pass(60);
    if (w)
        w->pongs = 0;
    pass(300);
    turns(3);
    REACHED(st.end.code == RT_CLOSE_DEAD);
}

static void a_peer_pings_and_does_not_read(void)
{
    ws_peer *w;
    int i;

    ws_door();
    w = entered();
    if (w && w->line)
        sim_peer_window(w->line, 100);
    if (w)
        w->reads = 0;
    for (i = 0; i < 8 && w && w->line; i++) {
        ws_send(w, WS_PING, "0123456789012345678901234567890123456789", 40);
        turns(1);
    }
    if (w)
        w->reads = 1;
    turns(4);
    REACHED(w && w->pongs_got > 1);
}

/* ---- slow peers ---------------------------------------------------------- */

/* It takes no more than a little until it is told to. */
static ws_peer *slow(void)
{
    ws_peer *w = entered();

    if (!w || !w->line)
        return w;
    w->reads = 0;
    sim_peer_window(w->line, 1000);
    return w;
}

static char bulk[4000];

static int bulk_sent(int kind)
{
    memset(bulk, 'b', sizeof bulk);
    return xsend(st.last, kind, bulk, sizeof bulk);
}

static void a_slow_peer_becomes_writable(void)
{
    ws_peer *w;
    int i, high = 0;

    st.o.soft_mark = 10000;
    ws_door();
    w = slow();
    for (i = 0; i < 6; i++) {
        high |= bulk_sent(RT_BINARY) == 1;
        turns(1);
    }
    if (w && w->line) {
        w->reads = 1;
        sim_peer_window(w->line, 60000);
    }
    turns(6);
    REACHED(high && st.writables == 1 && mail_of(w)->count == 6);
}

static void a_full_queue_ends_a_session(void)
{
    ws_peer *w;
    int i, got = 0;

    st.o.soft_mark = 4000;
    st.o.hard_mark = 20000;
    ws_door();
    w = slow();
    for (i = 0; i < 8 && got >= 0; i++) {
        got = bulk_sent(RT_TEXT);
        turns(1);
    }
    turns(3);
    REACHED(w && got == RT_EFULL && st.end.code == RT_CLOSE_SLOW);
}

static void droppable_and_keyed_ones_wait(void)
{
    ws_peer *w;
    int i;

    st.o.soft_mark = 9000;
    ws_door();
    w = slow();
    bulk_sent(RT_BINARY);
    turns(1);
    for (i = 0; i < 6; i++) {
        bulk_sent(RT_BINARY | RT_DROPPABLE);
        xsend(st.last, RT_TEXT | rt_latest((uint16_t)(i % 3)), "pos", 3);
        turns(1);
    }
    bulk_sent(RT_BINARY);
    if (w && w->line) {
        w->reads = 1;
        sim_peer_window(w->line, 60000);
    }
    turns(6);
    REACHED(mail_of(w)->count > 4);
}

static void one_message_goes_to_many(void)
{
    ws_peer *w[3];
    int i;

    ws_door();
    for (i = 0; i < 3; i++)
        w[i] = entered();
    i = rt_send_many(st.loop, st.s, 3, RT_TEXT, "to all", 6);
    REACHED(i == 3);
    rt_flush(st.loop);
    i = rt_send_many(st.loop, st.s, 3, RT_BINARY, bulk, sizeof bulk);
    rt_flush(st.loop);
    turns(4);
    REACHED(i == 3 && mail_of(w[2])->count == 2);
}

static void a_long_one_is_sent_on(rt_session s, int kind, const void *data,
                                  size_t len)
{
    (void)s;
    rt_send_many(st.loop, st.s, (size_t)st.opened, kind, data, len);
    rt_send(st.loop, st.s[0], RT_TEXT, "behind it", 9);
}

/* Lent from where it was received, to one who reads and one who does not. */
static void a_long_message_is_lent(void)
{
    ws_peer *w[2];

    st.o.soft_mark = 200000;
    st.on_message = a_long_one_is_sent_on;
    ws_door();
    w[0] = entered();
    w[1] = slow();
    says(w[0], WS_BINARY, 50000);
    turns(4);
    says(w[0], WS_BINARY, 20000);
    turns(4);
    if (w[1] && w[1]->line) {
        w[1]->reads = 1;
        sim_peer_window(w[1]->line, 65536);
    }
    turns(6);
    REACHED(mail_of(w[0])->count == 4 && mail_of(w[1])->count == 2);
}

static void reading_is_paused(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    rt_read(st.loop, st.last, 0);
    says(w, WS_BINARY, 30000);
    say(w, "two");
    turns(4);
    REACHED(st.messages == 0);
    rt_read(st.loop, st.last, 1);
    turns(6);
    REACHED(mail_of(w)->count == 2);
}

static int pausing;

static void pauses_itself(rt_session s, int kind, const void *data, size_t len)
{
    if (pausing++ == 0)
        rt_read(st.loop, s, 0);
    rt_send(st.loop, s, kind, data, len);
}

/* What was read with the first one must be kept. */
static void reading_is_paused_by_a_message(void)
{
    ws_peer *w;

    pausing = 0;
    st.on_message = pauses_itself;
    ws_door();
    w = entered();
    say(w, "one");
    says(w, WS_BINARY, 2000);
    say(w, "three");
    turns(3);
    rt_read(st.loop, st.last, 1);
    turns(5);
    REACHED(mail_of(w)->count == 3);
}

/* ---- streams ------------------------------------------------------------- */

static void a_stream_echoes(void)
{
    struct line *l;
    char long_one[2004] = {0, 0, 7, (char)0xd0};

    st.o.framing = RT_LENGTH;
    tcp_door();
    l = line_open();
    turns(2);
    line_say(l, "hi");
    line_raw(l, "\0\0", 2);
    turns(2);
    line_raw(l, "\0\3yes", 5);
    turns(2);
    line_raw(l, long_one, 1000);
    turns(1);
    line_raw(l, long_one + 1000, 1004);
    turns(3);
    REACHED(l && l->len == 6 + 7 + 2004);
    line_reset(l);
    turns(2);
}

static void raw_bytes_pass(void)
{
    struct line *l;

    st.o.framing = RT_RAW;
    tcp_door();
    l = line_open();
    turns(2);
    line_raw(l, "any bytes", 9);
    turns(3);
    REACHED(l && l->len == 9);
    xclose(st.last, 0, NULL);
    turns(3);
}

/* Packets of a byte that says how long they are. */
static ptrdiff_t tiny_decode(void *ctx, const uint8_t *in, size_t n, size_t *at,
                             size_t *len, int *kind)
{
    (void)ctx;
    if (n < 1)
        return 0;
    *at = 1;
    *len = in[0];
    *kind = RT_TEXT;
    return in[0] == 255 ? -1 : 1 + in[0];
}

static size_t tiny_head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    (void)kind;
    out[0] = (uint8_t)len;
    return 1;
}

static size_t tiny_beat(void *ctx, uint8_t out[64])
{
    (void)ctx;
    out[0] = 0;
    return 1;
}

static size_t tiny_bye(void *ctx, uint8_t out[256], int code,
                       const char *reason)
{
    (void)ctx;
    (void)reason;
    out[0] = 4;
    snprintf((char *)out + 1, 200, "%d", code);
    return 5;
}

static const rt_codec tiny = {tiny_decode, tiny_head, tiny_beat, tiny_bye,
                              NULL};

static void a_codec_frames_a_stream(void)
{
    struct line *l;

    st.o.framing = RT_CODEC;
    st.o.codec = &tiny;
    st.o.ping_ms = 50;
    tcp_door();
    l = line_open();
    turns(2);
    line_raw(l, "\2hi\5", 4);
    turns(2);
    line_raw(l, "hello", 5);
    pass(60);
    REACHED(st.messages == 2);
    line_raw(l, "\xff", 1);
    turns(3);
    REACHED(st.end.code == 1002);
}

static void a_codec_frames_websocket(void)
{
    ws_peer *w;

    st.o.codec = &tiny;
    door("ws://127.0.0.1:9000");
    w = entered();
    if (w && w->line)
        ws_send(w, WS_BINARY, "\2hi", 3);
    turns(3);
    REACHED(mail_of(w)->len == 3);
    xclose(st.last, 4000, "bye");
    turns(3);
}

/* ---- filters ------------------------------------------------------------- */

static int change(rt_loop *loop, rt_session s, rt_message *m)
{
    (void)loop;
    enter_session(s, "a filter");
    if (m->len)
        m->data[0] = 'X';
    leave();
    return 0;
}

static int judge(rt_loop *loop, rt_session s, rt_message *m)
{
    (void)loop;
    enter_session(s, "a filter");
    leave();
    if (m->len > 1 && m->data[1] == 'd')
        return 1;
    return m->len > 1 && m->data[1] == 'c' ? 4200 : 0;
}

static void filters_change_drop_and_close(void)
{
    ws_peer *w;

    st.o.filter[0] = change;
    st.o.filter[1] = judge;
    door("ws://127.0.0.1:9000");
    w = entered();
    say(w, "_keep");
    say(w, "_drop");
    turns(3);
    REACHED(mail_of(w)->count == 1 && !strcmp(mail_of(w)->last, "Xkeep"));
    say(w, "_close");
    turns(3);
    REACHED(st.end.code == 4200);
}

/* ---- rates --------------------------------------------------------------- */

static void a_window_drops(void)
{
    ws_peer *w;

    st.o.rate_limit = 2;
    st.o.rate_ms = 100;
    st.o.rate_over = RT_OVER_DROP;
    door("ws://127.0.0.1:9000");
    w = entered();
    say(w, "1");
    say(w, "2");
    say(w, "3");
    turns(3);
    pass(100);
    say(w, "4");
    turns(3);
    REACHED(mail_of(w)->count == 3 && st.limits == 1);
}

static void a_bucket_pauses(void)
{
    ws_peer *w;

    st.o.message_rate = 20;
    st.o.message_burst = 1;
    st.o.rate_over = RT_OVER_PAUSE;
    door("ws://127.0.0.1:9000");
    w = entered();
    say(w, "1");
    say(w, "2");
    says(w, WS_BINARY, 20000);
    pass(200);
    turns(3);
    REACHED(mail_of(w)->count == 3);
}

static void a_rate_closes(void)
{
    ws_peer *w;

    st.o.byte_rate = 100;
    st.o.byte_burst = 100;
    st.o.rate_over = RT_OVER_CLOSE;
    door("ws://127.0.0.1:9000");
    w = entered();
    says(w, WS_TEXT, 90);
    says(w, WS_TEXT, 90);
    turns(4);
    REACHED(w && w->close_code == 1008);
}

static void a_flood_of_pings_closes(void)
{
    ws_peer *w;
    int i;

    st.o.control_rate = 5;
    ws_door();
    w = entered();
    for (i = 0; i < 8 && w && w->line; i++)
        ws_send(w, WS_PING, "", 0);
    turns(4);
    REACHED(w && w->close_code == 1008);
}

/* ---- dials --------------------------------------------------------------- */

/* The scripted server's end of a dial. */
static ws_peer *answered(void)
{
    turns(3);
    return peer_add(ws_accept(SERVER));
}

static void it_dials(void)
{
    rt_session s;
    ws_peer *w;

    sim_serve(SERVER);
    st.d.protocols = "a, b";
    st.d.headers = "X-Key: 1\r\n";
    s = xdial("ws://127.0.0.1:9100/path?q");
    w = answered();
    turns(4);
    REACHED(st.opened == 1 && rt_state(st.loop, s) == RT_OPEN);
    xtext(s, "hello");
    says(w, WS_TEXT, 30000);
    turns(5);
    REACHED(mail_of(w)->count == 2);
    xclose(s, 1000, "done");
    turns(4);
    REACHED(w && w->close_code == 1000);
}

static void the_server_refuses_a_dial(void)
{
    rt_session s;
    struct line *l;
    const char *no = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";

    sim_serve(SERVER);
    s = xdial("ws://127.0.0.1:9100/");
    turns(3);
    l = line_add(sim_accept(SERVER));
    turns(2);
    line_raw(l, no, strlen(no));
    turns(4);
    REACHED(s.id && st.end.cause && !st.opened);
}

static void it_dials_a_stream(void)
{
    rt_session s;
    struct line *l;

    sim_serve(SERVER);
    st.d.framing = RT_LENGTH;
    s = xdial("tcp://localhost:9100");
    turns(3);
    l = line_add(sim_accept(SERVER));
    turns(2);
    xtext(s, "hello");
    line_say(l, "hi");
    turns(4);
    REACHED(l && l->len == 9 + 6);
    line_reset(l);
    turns(3);
    REACHED(st.end.code == 1006);
}

static void nobody_answers_a_dial(void)
{
    rt_session a, b;

    st.d.connect_ms = 100;
    sim_blackhole(9101);
    a = xdial("ws://127.0.0.1:9102/");
    b = xdial("tcp://127.0.0.1:9101");
    pass(150);
    turns(3);
    REACHED(a.id && b.id && rt_state(st.loop, a) == RT_EGONE);
    REACHED(rt_state(st.loop, b) == RT_EGONE);
}

/* Both ends are of this loop. */
static void it_dials_itself(void)
{
    rt_session s;

    ws_door();
    st.silent = 1;
    s = xdial("ws://127.0.0.1:9000/");
    turns(6);
    xtext(s, "hello");
    turns(4);
    REACHED(st.opened == 2 && st.messages == 1);
    xclose(s, 0, NULL);
    turns(4);
}

static void it_dials_a_path(void)
{
    rt_session s;

    st.o.framing = st.d.framing = RT_LENGTH;
    st.silent = 1;
    door("tcp+unix:/run/game");
    s = xdial("tcp+unix:/run/game");
    turns(4);
    xtext(s, "hello");
    turns(4);
    REACHED(st.messages == 1);
    s = xdial("tcp+unix:/run/nobody");
    turns(3);
    REACHED(rt_state(st.loop, s) == RT_EGONE || !s.id);
}

static int resolves;
static rt_session resolving;

static int resolve(rt_loop *loop, const char *host, rt_session s)
{
    enter();
    resolving = s;
    if (resolves == 1)
        rt_resolved(loop, s, "127.0.0.1");
    leave();
    return strcmp(host, "bad.example") == 0 ? -1 : 0;
}

static void with_resolve(void)
{
    st.loop_opts.resolve = resolve;
}

static void names_are_resolved(void)
{
    rt_session s;

    sim_serve(SERVER);
    resolves = 1;
    s = xdial("ws://game.example:9100/");
    answered();
    turns(3);
    REACHED(rt_state(st.loop, s) == RT_OPEN);
    resolves = 0;
    s = xdial("ws://later.example:9100/");
    turns(2);
    REACHED(rt_same(s, resolving));
    rt_resolved(st.loop, s, "127.0.0.1");
    answered();
    turns(3);
    REACHED(rt_state(st.loop, s) == RT_OPEN);
    s = xdial("ws://never.example:9100/");
    turns(2);
    rt_resolved(st.loop, s, NULL);
    s = xdial("ws://bad.example:9100/");
    turns(3);
    REACHED(rt_state(st.loop, s) == RT_EGONE || !s.id);
}

/* ---- the door ------------------------------------------------------------ */

static void newcomers_come_too_fast(void)
{
    ws_peer *w[4];
    int i;

    st.o.accept_rate = 2;
    st.o.accept_burst = 2;
    door("ws://127.0.0.1:9000");
    for (i = 0; i < 4; i++)
        w[i] = client();
    turns(5);
    REACHED(w[3] && w[3]->status == 503);
    pass(1500);
    entered();
    REACHED(st.opened == 3);
}

static void streams_come_too_fast(void)
{
    struct line *l;

    st.o.framing = RT_RTNET1;
    st.o.resume_ms = 1000;
    st.o.accept_rate = st.o.accept_burst = 1;
    tcp_door();
    line_open();
    l = line_open();
    line_say(l, "h");
    turns(5);
    REACHED(l && l->len > 0);
    pass(3000);
}

static void an_address_has_too_many(void)
{
    ws_peer *w[3];
    int i;

    st.o.max_per_address = 2;
    door("ws://127.0.0.1:9000");
    for (i = 0; i < 3; i++)
        w[i] = entered();
    turns(3);
    REACHED(w[2] && w[2]->status == 503);
    if (w[0])
        ws_close(w[0], 1000);
    turns(4);
    entered();
    REACHED(st.opened == 3);
}

static void a_proxy_speaks_for_them(void)
{
    static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
                             "\x0a\0\0\x07\x7f\0\0\1\x10\0\x20\0";
    ws_peer *w;

    st.o.proxies = "127.0.0.1, 10.0.0.0/8";
    st.o.proxy_protocol = 1;
    st.o.max_per_address = 3;
    door("ws://127.0.0.1:9000");
    w = silent();
    raw(w, "PROXY TCP4 10.9.8.7 127.0.0.1 1 2\r\n");
    raw(w, ws_request("/"));
    turns(4);
    w = silent();
    if (w)
        ws_raw(w, v2, sizeof v2 - 1);
    turns(1);
    raw(w, ws_request("/"));
    turns(4);
    REACHED(st.opened == 2);
    w = silent();
    raw(w, "PROXY NONSENSE\r\n");
    turns(3);
    REACHED(w && !w->line);
}

static char came_from[64];

static void from_noted(rt_session s, const rt_request *r)
{
    (void)s;
    snprintf(came_from, sizeof came_from, "%s", r->address);
}

static void a_header_says_whom_it_is_for(void)
{
    st.o.proxies = "127.0.0.1";
    st.o.max_per_address = 3;
    st.on_request = from_noted;
    door("ws://127.0.0.1:9000");
    came_from[0] = 0;
    client_with("/", "X-Forwarded-For: 9.9.9.9, 203.0.113.5\r\n");
    turns(4);
    REACHED(!strcmp(came_from, "203.0.113.5"));
}

static void few_sessions(void)
{
    st.loop_opts.max_sessions = 2; /* the bystander is one */
}

static void there_are_too_many_sessions(void)
{
    ws_peer *w;

    door("ws://127.0.0.1:9000");
    entered();
    w = entered();
    turns(3);
    REACHED(w && w->status == 503 && st.opened == 1);
    xclose(st.last, 0, NULL);
    turns(4);
}

static void the_oldest_handshake_goes(void)
{
    ws_peer *w[3];
    int i;

    st.o.max_handshakes = 2;
    ws_door();
    for (i = 0; i < 3; i++) {
        w[i] = silent();
        raw(w[i], "GET / HT");
        turns(2);
    }
    turns(2);
    REACHED(w[0] && !w[0]->line && w[2] && w[2]->line);
}

static void descriptors_run_out(void)
{
    ws_peer *w;

    ws_door();
    sim_max_fds(3 + sim_fds());
    w = client();
    turns(4);
    pass(300);
    sim_max_fds(3);
    client();
    turns(4);
    pass(300);
    sim_max_fds(1000);
    pass(300);
    REACHED(w && !w->line && st.opened == 1);
}

static void nobody_logs_in(void)
{
    ws_peer *w;

    st.o.bind_ms = 100;
    ws_door();
    w = entered();
    pass(150);
    turns(3);
    REACHED(w && w->close_code == 1008);
}

/* ---- what is counted, and the end ---------------------------------------- */

static size_t own_lines(void *user, char *out, size_t cap)
{
    (void)user;
    st.hooks[5]++;
    return (size_t)snprintf(out, cap, "own 1\n");
}

static void with_metrics(void)
{
    st.loop_opts.metrics = own_lines;
}

static void metrics_are_written(void)
{
    size_t cap = rt_metrics(st.loop, NULL, 0);
    char *page = calloc(1, cap + 1000);
    int i;

    for (i = 0; i < 3; i++)
        xobserve(i % 2 ? "login" : "match\n\"making\"", 150);
    REACHED(rt_metrics(st.loop, page, cap + 1000) > 0);
    REACHED(rt_metrics(st.loop, page, 64) < 64);
    ws_door();
    entered();
    xobserve("third", 1000000);
    cap = rt_metrics(st.loop, NULL, 0);
    free(page);
    page = calloc(1, cap);
    REACHED(rt_metrics(st.loop, page, cap) > 0 && strstr(page, "own 1\n"));
    free(page);
}

static void sessions_are_gone_over(void)
{
    rt_session s = {0};
    int n = 0;

    ws_door();
    entered();
    entered();
    while ((s = rt_next_session(st.loop, s)).id) {
        rt_set_user(st.loop, s, &n);
        rt_context(st.loop, s);
        rt_heard(st.loop, s);
        rt_rtt(st.loop, s, NULL, NULL);
        n++;
    }
    REACHED(n == 3);
    rt_close(st.loop, st.last, 0, NULL);
    turns(3);
}

static void drained(rt_loop *loop)
{
    (void)loop;
    enter();
    st.drained++;
    leave();
}

static void with_drained(void)
{
    st.loop_opts.drained = drained;
}

static void a_shutdown_drains(void)
{
    ws_peer *w;

    ws_door();
    w = entered();
    entered();
    REACHED(rt_shutdown(st.loop, 50) == 0);
    REACHED(!xlisten("ws://127.0.0.1:0", NULL).id);
    pass(100);
    turns(10);
    REACHED(st.drained == 1 && w && w->close_code == 1012);
}

static void a_shutdown_meets_handshakes_and_slow_ones(void)
{
    st.o.close_ms = 200;
    ws_door();
    slow();
    bulk_sent(RT_BINARY);
    st.answer = RT_DEFER;
    client();
    turns(3);
    rt_shutdown(st.loop, 50);
    turns(2);
    xaccept(st.asked, NULL);
    turns(2);
    rt_shutdown(st.loop, 0);
    pass(400);
    turns(10);
    REACHED(st.drained == 1);
}

static void the_loop_ends_in_the_middle(void)
{
    rt_session s;

    ws_door();
    says(slow(), WS_BINARY, 100);
    bulk_sent(RT_BINARY);
    s = xdial("ws://127.0.0.1:9000/");
    turns(1);
    xtext(s, "early");
    xtimer(st.last, 50, tick, NULL);
    xclose(st.last, 0, NULL);
    rt_post(st.loop, tick, NULL);
    rt_loop_free(st.loop);
    st.loop = NULL;
}

#endif
