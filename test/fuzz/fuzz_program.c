/*
 * A whole program out of bytes: the world of the callback bomb, in which the
 * bytes choose what the kernel does, what comes to pass between two turns, and
 * which calls each callback makes with what.
 */
#include "../bomb.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin();
    if (bomb_run_bytes(data, size, 0, NULL))
        fuzz_wrong("%s", sim_fault_text());
    return fuzz_end();
}
