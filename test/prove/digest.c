/* SHA-1 and base64. */
#include "ws.c"

#include "any.h"

enum { HASHED = 70, CODED = 32 };

/* rt__sha1: any 0 to 70 bytes */
void prove_sha1(void)
{
    uint8_t room[HASHED + 1], out[20];
    size_t n;
    n = any_size_to(HASHED);
    //@ split n;
    rt__sha1(n % 64 == 0 ? any_before_last(room, HASHED + 1, n)
                         : any_tail(room, HASHED + 1, n),
             n, out);
}

/* rt__base64: any 0 to 32 bytes, to the room that they need */
void prove_base64(void)
{
    uint8_t room[CODED];
    char out[45];
    size_t n;
    n = any_size_to(CODED);
    //@ split n;
    rt__base64(any_tail(room, CODED, n), n, out + 44 - (n + 2) / 3 * 4);
}

/* rt__accept_key: any 24 bytes */
void prove_accept_key(void)
{
    char key[24], out[29];
    any_tail((uint8_t *)key, 24, 24);
    rt__accept_key(key, out);
}
