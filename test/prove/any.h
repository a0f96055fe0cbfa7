/*
 * What a proof starts from: bytes and numbers that may be anything.  Each
 * `prove_` function is the main function of one analysis (test/prove/run.sh);
 * its comment is printed with the result.
 */
#ifndef ANY_H
#define ANY_H

#include <__fc_builtin.h>
#include <stddef.h>
#include <stdint.h>

static volatile uint8_t any_byte;
static volatile uint32_t any_32;
static volatile uint64_t any_64;
static volatile size_t any_size;

static inline size_t any_size_to(size_t most)
{
    size_t n = any_size;
    return n <= most ? n : most;
}

/* n bytes that end where the array ends: one byte too far is an alarm. */
static inline uint8_t *any_tail(uint8_t *array, size_t size, size_t n)
{
    Frama_C_make_unknown((char *)array, size);
    return array + size - n;
}

/* n bytes that begin where the array does: one byte before is an alarm. */
static inline uint8_t *any_first(uint8_t *array, size_t size)
{
    Frama_C_make_unknown((char *)array, size);
    return array;
}

/* As any_tail, but one byte earlier.  Frama-C's memcpy wants a byte also where
   it is to copy none, as C does not. */
static inline uint8_t *any_before_last(uint8_t *array, size_t size, size_t n)
{
    return any_tail(array, size, n + 1);
}

/* A text of any n bytes but NUL, and its NUL, at the end of the array. */
static inline char *any_text(char *array, size_t size, size_t n)
{
    size_t i;
    char *text = array + size - n - 1;
    /*@ loop unroll 512; */
    for (i = 0; i < n; i++)
        text[i] = (char)Frama_C_unsigned_char_interval(1, 255);
    text[n] = 0;
    return text;
}

#endif
