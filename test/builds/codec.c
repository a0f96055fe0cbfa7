/*
 * A host with a wire protocol of its own: packets of one byte of type, three of
 * length, and a body.  A client shakes hands and gets a token, says a word and
 * hears it, loses its line, comes back with the token and hears what was said
 * meanwhile.  Ends with 0.
 */
#include "rtnet.h"
#include <stdio.h>
#include <string.h>

enum { SHAKE = 1, DATA, BEAT, KICK };
enum { TOKEN = 22, SECONDS = 5 };

static char token[TOKEN + 1];
static int heard, shaken, echoed, away, back, late;

static ptrdiff_t decode(void *ctx, const uint8_t *in, size_t n, size_t *at,
                        size_t *len, int *kind)
{
    (void)ctx;
    if (n < 4)
        return 0;
    if (in[0] < SHAKE || in[0] > KICK)
        return -1;
    *kind = in[0];
    *at = 4;
    *len = (size_t)in[1] << 16 | (size_t)in[2] << 8 | in[3];
    return (ptrdiff_t)(4 + *len);
}

static size_t head(void *ctx, uint8_t out[16], int kind, size_t len)
{
    (void)ctx;
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)(len >> 16);
    out[2] = (uint8_t)(len >> 8);
    out[3] = (uint8_t)len;
    return 4;
}

static size_t beat(void *ctx, uint8_t out[64])
{
    return head(ctx, out, BEAT, 0);
}

static size_t bye(void *ctx, uint8_t out[256], int code, const char *reason)
{
    (void)code;
    (void)reason;
    return head(ctx, out, KICK, 0);
}

static const rt_codec packets = {decode, head, beat, bye, NULL};

/* Who has a token comes back, and says how many messages came; who has none
   gets one. */
static void shake(rt_loop *l, rt_session s, const uint8_t *body, size_t len)
{
    char fresh[TOKEN + 1] = "";
    if (len == TOKEN + 1) {
        memcpy(fresh, body, TOKEN);
        if (rt_adopt(l, rt_find_token(l, fresh), s, body[TOKEN]) == 0)
            return;
    }
    if (rt_keep(l, s, 30000, fresh) == 0)
        rt_send(l, s, SHAKE, fresh, TOKEN);
}

static void on_packet(rt_loop *l, rt_session s, int kind, const void *data,
                      size_t len)
{
    if (kind == SHAKE)
        shake(l, s, (const uint8_t *)data, len);
    else if (kind == DATA)
        rt_send(l, s, DATA, data, len);
}

static void on_away(rt_loop *l, rt_session s)
{
    away++;
    rt_send(l, s, DATA, "late", 4);
}

static void on_back(rt_loop *l, rt_session s, uint64_t lost)
{
    (void)l;
    (void)s;
    back += lost == 0;
}

static void client_opens(rt_loop *l, rt_session s)
{
    uint8_t body[TOKEN + 1] = {0};
    memcpy(body, token, TOKEN);
    body[TOKEN] = (uint8_t)heard;
    rt_send(l, s, SHAKE, body, *token ? sizeof body : 0);
}

static void client_hears(rt_loop *l, rt_session s, int kind, const void *data,
                         size_t len)
{
    heard++;
    if (kind == SHAKE && len == TOKEN) {
        memcpy(token, data, TOKEN);
        shaken++;
        rt_send(l, s, DATA, "word", 4);
    } else if (kind == DATA && len == 4 && memcmp(data, "word", 4) == 0) {
        echoed++;
        rt_drop(l, s, 1001, "");
    } else if (kind == DATA && len == 4 && memcmp(data, "late", 4) == 0) {
        late++;
    }
}

static rt_session dial(rt_loop *l, const char *url)
{
    rt_dial_opts o;
    memset(&o, 0, sizeof o);
    o.framing = RT_CODEC;
    o.codec = &packets;
    o.on.open = client_opens;
    o.on.message = client_hears;
    return rt_dial(l, url, &o);
}

int main(void)
{
    rt_loop *l = rt_loop_new(NULL);
    rt_listen_opts o;
    uint64_t end;
    char url[64];
    int again = 0;

    memset(&o, 0, sizeof o);
    o.framing = RT_CODEC;
    o.codec = &packets;
    o.on.message = on_packet;
    o.on.away = on_away;
    o.on.back = on_back;
    if (!l)
        return 2;
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d",
             rt_listener_port(l, rt_listen(l, "tcp://127.0.0.1:0", &o)));
    if (!dial(l, url).id)
        return 2;
    for (end = rt_now(l) + SECONDS * 1000; !late && rt_now(l) < end;) {
        rt_poll(l, 20);
        if (away && !again++ && !dial(l, url).id)
            break;
    }
    rt_loop_free(l);
    printf("shaken %d, echoed %d, away %d, back %d, late %d\n", shaken, echoed,
           away, back, late);
    return !(shaken == 1 && echoed == 1 && back == 1 && late == 1);
}
