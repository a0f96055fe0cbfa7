/*
 * A program of somebody else's, as small as one can be that needs most of the
 * library: dials a server, its own or that of a URL, says a word and wants to
 * hear it.  consumer [URL]; says the version of the library it runs with, and
 * ends with 0 when the word came back and the header is of that version.
 */
#include <rtnet.h>
#include <stdio.h>
#include <string.h>

static int heard;

static void on_word(rt_loop *l, rt_session s, int kind, const void *data,
                    size_t len)
{
    rt_send(l, s, kind, data, len);
}

static void on_open(rt_loop *l, rt_session s)
{
    rt_send(l, s, RT_TEXT, "word", 4);
}

static void on_answer(rt_loop *l, rt_session s, int kind, const void *data,
                      size_t len)
{
    (void)s;
    heard = kind == RT_TEXT && len == 4 && memcmp(data, "word", 4) == 0;
    if (heard)
        rt_stop(l);
}

static void on_close(rt_loop *l, rt_session s, const rt_end *why)
{
    (void)s;
    if (heard)
        return;
    fprintf(stderr, "consumer: closed %d %s\n", why->code, why->reason);
    rt_stop(l);
}

/* Where the server is: at the URL given, or here. */
static int url_of(rt_loop *l, const char *given, char *url, size_t cap)
{
    rt_listen_opts o;
    rt_listener here;
    if (given)
        return snprintf(url, cap, "%s", given) < (int)cap;
    memset(&o, 0, sizeof o);
    o.on.message = on_word;
    here = rt_listen(l, "ws://127.0.0.1:0", &o);
    snprintf(url, cap, "ws://127.0.0.1:%d/", rt_listener_port(l, here));
    return here.id != 0;
}

static int same_version(void)
{
    char header[32];
    snprintf(header, sizeof header, "%d.%d.%d", RT_VERSION_MAJOR,
             RT_VERSION_MINOR, RT_VERSION_PATCH);
    printf("%s\n", rt_version());
    return strcmp(header, rt_version()) == 0;
}

int main(int argc, char **argv)
{
    rt_loop *l = rt_loop_new(NULL);
    rt_dial_opts o;
    char url[64];

    memset(&o, 0, sizeof o);
    o.on.open = on_open;
    o.on.message = on_answer;
    o.on.close = on_close;
    if (!same_version() || !l ||
        !url_of(l, argc > 1 ? argv[1] : NULL, url, sizeof url) ||
        !rt_dial(l, url, &o).id)
        return 2;
    rt_run(l);
    rt_loop_free(l);
    return !heard;
}
