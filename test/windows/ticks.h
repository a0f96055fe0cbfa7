/*
 * The clock of this process, for clock.h: the library and winpthreads both ask
 * the counter, through a pointer that the linker finds here before it looks in
 * the library of imports.
 */
#ifndef WINDOWS_TICKS_H
#define WINDOWS_TICKS_H

#include "posix.h"

static BOOL WINAPI ticks_now(LARGE_INTEGER *out)
{
    static BOOL(WINAPI * real)(LARGE_INTEGER *);
    LARGE_INTEGER per_second;
    if (!real) {
        FARPROC found = GetProcAddress(GetModuleHandleA("kernel32.dll"),
                                       "QueryPerformanceCounter");
        memcpy(&real, &found, sizeof real);
    }
    QueryPerformanceFrequency(&per_second);
    if (!real(out))
        return FALSE;
    out->QuadPart += (LONGLONG)clock_ahead * per_second.QuadPart / 1000;
    if (still_us)
        out->QuadPart = (LONGLONG)still_us * per_second.QuadPart / 1000000;
    return TRUE;
}

extern BOOL(WINAPI *const __imp_QueryPerformanceCounter)(LARGE_INTEGER *);
BOOL(WINAPI *const __imp_QueryPerformanceCounter)(LARGE_INTEGER *) = ticks_now;

#endif
