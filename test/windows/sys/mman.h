/* Pages of our own, for guard.h. */
#include "../posix.h"

enum { PROT_NONE = 0, PROT_READ = 1, PROT_WRITE = 2 };
enum { MAP_PRIVATE = 1, MAP_ANONYMOUS = 2, _SC_PAGESIZE = 1 };
#define MAP_FAILED NULL

static inline void *mmap(void *at, size_t n, int prot, int flags, int fd,
                         int from)
{
    (void)at;
    (void)prot;
    (void)flags;
    (void)fd;
    (void)from;
    return VirtualAlloc(NULL, n, MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS);
}

static inline int mprotect(void *at, size_t n, int prot)
{
    DWORD old;
    return VirtualProtect(at, n,
                          prot == PROT_NONE   ? PAGE_NOACCESS
                          : prot & PROT_WRITE ? PAGE_READWRITE
                                              : PAGE_READONLY,
                          &old)
               ? 0
               : -1;
}

static inline int munmap(void *at, size_t n)
{
    (void)n;
    return VirtualFree(at, 0, MEM_RELEASE) ? 0 : -1;
}

static inline long sysconf(int what)
{
    SYSTEM_INFO info;
    (void)what;
    GetSystemInfo(&info);
    return (long)info.dwPageSize;
}
