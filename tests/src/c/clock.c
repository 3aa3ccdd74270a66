/* The wall clock of one program, some seconds off: for LD_PRELOAD. Monotonic clocks stay as they are. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t id, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, time);
    if (!failed && id == CLOCK_REALTIME) {
        const char *off = getenv("CLOCK_OFF_SECONDS");
        if (off)
            time->tv_sec += atoll(off);
    }
    return failed;
}
