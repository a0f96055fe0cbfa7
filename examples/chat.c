/*
 * Chat rooms: ws://localhost:9000/?room=ROOM&nick=NICK.  Clients send plain
 * text and get {"t": "say", "n": nick, "m": text}; t is "join" or "leave" for
 * who comes and goes, "here" for who is there already.  chat [PORT]
 */
#include "rtnet.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
enum { NICK = 25, NAME = 64, TEXT = 1000, MEMBERS = 128 };
typedef struct {
    char nick[NICK];
    rt_group room;
} person;

/* Writes n bytes as a JSON string of at most 6 * n + 2 bytes. */
static char *quote(char *out, const char *s, size_t n)
{
    *out++ = '"';
    for (; n > 0; n--, s++)
        if (*s == '"' || *s == '\\' || (unsigned char)*s < ' ')
            out += sprintf(out, "\\u%04x", (unsigned)*s);
        else
            *out++ = *s;
    *out++ = '"';
    return out;
}

/* Tells to, or with {0} the whole room, what p does or says. */
static int tell(rt_loop *l, rt_session to, const char *type, const person *p,
                const char *text, size_t len)
{
    char out[6 * (NICK + TEXT) + 64];
    char *at = out + sprintf(out, "{\"t\":\"%s\",\"n\":", type);
    at = quote(at, p->nick, strlen(p->nick));
    at = quote(at + sprintf(at, ",\"m\":"), text, len);
    *at++ = '}';
    if (to.id)
        return rt_send(l, to, RT_TEXT, out, (size_t)(at - out));
    return rt_group_send(l, p->room, RT_TEXT, out, (size_t)(at - out));
}

static void on_open(rt_loop *l, rt_session s)
{
    const rt_group_opts opts = {.max_members = MEMBERS};
    const rt_request *r = rt_request_of(l, s);
    person *p = calloc(1, sizeof *p);
    rt_session who[MEMBERS];
    char name[NAME];
    rt_set_user(l, s, p);
    if (!p || rt_query(r, "nick", p->nick, NICK) <= 0 ||
        rt_query(r, "room", name, NAME) <= 0 ||
        tell(l, s, "here", p, "", 0) < 0 || /* a nick that is not UTF-8 */
        rt_group_join(l, rt_group_open(l, name, &opts), s) < 0) {
        rt_close(l, s, 1008, "wants room and nick, or the room is full");
        return;
    }
    p->room = rt_group_find(l, name);
    size_t n = rt_group_members(l, p->room, who, MEMBERS);
    for (size_t i = 0; i < n && i < MEMBERS; i++)
        if (!rt_same(who[i], s))
            tell(l, s, "here", rt_user(l, who[i]), "", 0);
    tell(l, (rt_session){0}, "join", p, "", 0);
}

static void on_message(rt_loop *l, rt_session s, int kind, const void *data,
                       size_t len)
{
    if (kind == RT_TEXT)
        tell(l, (rt_session){0}, "say", rt_user(l, s), data, len);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    person *p = rt_user(l, s);
    (void)why;
    if (p && p->room.id) {
        rt_group_leave(l, p->room, s);
        tell(l, (rt_session){0}, "leave", p, "", 0);
        if (!rt_group_count(l, p->room))
            rt_group_close(l, p->room);
    }
    free(p);
}

int main(int argc, char **argv)
{
    rt_handler on = {.open = on_open, .message = on_message, .close = on_close};
    rt_listen_opts o = {
        .on = on, .max_message = TEXT, .rate_limit = 10, .rate_ms = 1000};
    const char *port = argc > 1 ? argv[1] : getenv("PORT"), *why = "no memory";
    rt_loop *l = rt_loop_new(NULL);
    char url[32];
    snprintf(url, sizeof url, "ws://:%s", port ? port : "9000");
    if (!l || (!rt_listen(l, url, &o).id && rt_error(l, &why)))
        return fprintf(stderr, "chat: %s\n", why), 1;
    printf("chat: listening on %s\n", url);
    fflush(stdout);
    return rt_run(l) != 0;
}
