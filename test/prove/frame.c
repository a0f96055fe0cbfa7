/* Heads of frames, their masks, close frames. */
#include "ws.c"

#include "any.h"

/* rt__frame_read: any 0 to 14 bytes, both roles */
void prove_frame_read(void)
{
    uint8_t room[14];
    rt__frame f;
    size_t n;
    int masked, size;
    n = any_size_to(14);
    //@ split n;
    masked = Frama_C_interval(0, 1);
    //@ split masked;
    size = rt__frame_read(any_tail(room, 14, n), n, masked, &f);
    //@ assert size <= n && size >= -1;
}

/* rt__frame_read: any 0 to 14 bytes, both roles, nothing before them */
void prove_frame_first(void)
{
    uint8_t room[14];
    rt__frame f;
    size_t n;
    n = any_size_to(14);
    //@ split n;
    rt__frame_read(any_first(room, 14), n, Frama_C_interval(0, 1), &f);
}

/* rt__frame_write: any opcode, any length, with and without a mask */
void prove_frame_write(void)
{
    uint8_t out[14], key[4], bare[10];
    int op = Frama_C_interval(0, 15);
    size_t size;
    any_tail(key, 4, 4);
    size = rt__frame_write(out, op, any_size, key);
    //@ assert 6 <= size <= 14;
    size = rt__frame_write(bare, op, any_size, NULL);
    //@ assert 2 <= size <= 10;
}

enum { MASKED = 80 }; /* a block, words, and bytes */

/* rt__mask: any 0 to 80 bytes, each phase, in place */
void prove_mask_in_place(void)
{
    uint8_t room[MASKED], key[4], *p;
    size_t n, phase, ascii;
    any_tail(key, 4, 4);
    n = any_size_to(MASKED);
    //@ split n;
    phase = any_size_to(3);
    //@ split phase;
    p = any_tail(room, MASKED, n);
    ascii = rt__mask(p, p, n, key, phase);
    //@ assert ascii <= n;
}

/* rt__mask_words: any 0 to 80 bytes, each phase, to another place */
void prove_mask_away(void)
{
    uint8_t room[MASKED], out[MASKED], key[4], *p;
    size_t n, phase, ascii;
    any_tail(key, 4, 4);
    n = any_size_to(MASKED);
    //@ split n;
    p = any_tail(room, MASKED, n);
    phase = any_size_to(3);
    //@ split phase;
    ascii = rt__mask_words(out + MASKED - n, p, n, key, phase);
    //@ assert ascii <= n;
}

/* rt__close_code_valid: any int */
void prove_close_code(void)
{
    int code = (int)any_32, good = rt__close_code_valid(code);
    //@ assert good ==> 1000 <= code <= 4999;
}

enum { CLOSED = 16 };

/* close_read: a close frame of any 0 to 16 bytes */
void prove_close_read(void)
{
    uint8_t room[CLOSED + 1], *p;
    char reason[RT__REASON + 1];
    size_t n;
    int code;
    n = any_size_to(CLOSED);
    //@ split n;
    p = n == 2 ? any_before_last(room, CLOSED + 1, n)
               : any_tail(room, CLOSED + 1, n);
    code = close_read(p, n, reason);
    //@ assert code == -1002 || code == -1007 || 1000 <= code <= 4999;
}
