/* The checks of UTF-8. */
#include "ws.c"

#include "any.h"

enum { CHECKED = 80 }; /* a block, words, bytes */

/* rt__utf8_feed: any 0 to 80 bytes, from any state */
void prove_utf8_feed(void)
{
    uint8_t room[CHECKED];
    rt__utf8 u;
    size_t n;
    n = any_size_to(CHECKED);
    //@ split n;
    u.need = any_byte;
    rt__utf8_feed(&u, any_tail(room, CHECKED, n), n);
}

/* rt__utf8_feed_words: any 0 to 80 bytes, from any state */
void prove_utf8_feed_words(void)
{
    uint8_t room[CHECKED];
    rt__utf8 u;
    size_t n;
    n = any_size_to(CHECKED);
    //@ split n;
    u.need = any_byte;
    rt__utf8_feed_words(&u, any_tail(room, CHECKED, n), n);
}

/* rt__utf8_valid: any 0 to 80 bytes */
void prove_utf8_valid(void)
{
    uint8_t room[CHECKED];
    size_t n;
    n = any_size_to(CHECKED);
    //@ split n;
    rt__utf8_valid(any_tail(room, CHECKED, n), n);
}

/* rt__utf8_feed: any 0 to 16 bytes, from any state, nothing before them */
void prove_utf8_first(void)
{
    uint8_t room[16];
    rt__utf8 u;
    size_t n;
    n = any_size_to(16);
    //@ split n;
    u.need = any_byte;
    rt__utf8_feed(&u, any_first(room, 16), n);
}
