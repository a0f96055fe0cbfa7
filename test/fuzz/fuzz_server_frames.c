/* Frames that the library reads as a server. */
#include "frames.h"

static void play(const uint8_t *data, size_t size, struct fuzz_cut *cut)
{
    frames_play(data, size, cut, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_three_ways(play, data, size);
}
