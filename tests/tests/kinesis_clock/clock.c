/* Adds to the time of day as many seconds as the file holds that MILLSTREAM_CLOCK names, for programs that are
 * started with this library before the C library. Clocks that only measure stay as they are. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int ask(clockid_t, struct timespec *);

static const volatile long long *ahead;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("MILLSTREAM_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *shared = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        ahead = shared;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static ask *real;
    if (!real)
        real = (ask *)dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && clock == CLOCK_REALTIME && ahead)
        now->tv_sec += *ahead;
    return result;
}
