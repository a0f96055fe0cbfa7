/*
 * What the fuzz targets share.  A target is one file fuzz_NAME.c with
 * LLVMFuzzerTestOneInput, and a word in FUZZ in test/Makefile; libFuzzer,
 * AFL++ and the replay program (replay.c) call it alike.
 *
 * A target plays its input against the unmodified library on the simulated
 * kernel, tells what came of it, and notes what must not be:
 *
 *   static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut);
 *   int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
 *   {
 *       return fuzz_three_ways(play, data, size);
 *   }
 *
 * One that has no stream to cut: fuzz_begin(); ... return fuzz_end();
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- what came of it ----------------------------------------------------- */

/* Told apart, as cutting an input may change the order between these, but
   never within one: the upcalls, the data that the library sends, and its
   control frames (or whatever else may overtake data). */
enum fuzz_channel { FUZZ_APP, FUZZ_DATA, FUZZ_CONTROL, FUZZ_CHANNELS };

/* A line; and one that ends with bytes in hex. */
void fuzz_tell(enum fuzz_channel c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void fuzz_tell_bytes(enum fuzz_channel c, const char *word, const void *data,
                     size_t len);

/* All that was told in the first play of the last input, a line each, with
   "app ", "data " or "control " in front. */
const char *fuzz_events(void);

/* ---- what must not be ---------------------------------------------------- */

/* An oracle says no.  The first text counts. */
void fuzz_wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Begins and ends one input.  At the end a fault is fatal, so that a fuzzer
   sees it; with fuzz_mild, 1 is returned and fuzz_fault tells it. */
void fuzz_begin(void);
int fuzz_end(void);
extern int fuzz_mild;
const char *fuzz_fault(void);

/* ---- cutting ------------------------------------------------------------- */

enum fuzz_way { FUZZ_WHOLE, FUZZ_BYTES, FUZZ_SPLIT, FUZZ_WAYS };

struct fuzz_cut {
    enum fuzz_way way;
    uint64_t state;
    size_t size, pieces;
};

/* How many of the bytes that are left come next; at least 1. */
size_t fuzz_piece(struct fuzz_cut *cut, size_t left);

/*
 * Plays an input whole, byte by byte, and cut up as its second byte says (the
 * first is left to the target); what is told must be the same.  Inputs shorter
 * than 2 are none.  With fuzz_once it is played whole only.
 */
typedef void fuzz_play(const uint8_t *data, size_t size, struct fuzz_cut *cut);
int fuzz_three_ways(fuzz_play *play, const uint8_t *data, size_t size);
extern int fuzz_once;

/* ---- how much it may cost ------------------------------------------------ */

/* Steps of the library: one for each branch it takes, counted in the replay
   program only (steps.c). */
extern uint64_t fuzz_steps;

struct fuzz_cost {
    uint64_t calls, steps;
    size_t heap;
};

/* From here on is counted. */
void fuzz_cost_begin(struct fuzz_cost *c);

/* System calls are linear in the pieces, steps in bytes and pieces; the heap
   has grown by no more than that and 4 for each byte. */
void fuzz_cost_end(const struct fuzz_cost *c, size_t bytes, size_t pieces,
                   size_t heap);

/* ---- UTF-8, one character at a time -------------------------------------- */

int fuzz_utf8(const uint8_t *p, size_t n);

#endif
