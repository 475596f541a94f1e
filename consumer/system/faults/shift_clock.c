/* Preloaded into a process, this shifts its wall clock by the seconds (int64) that stand in the file SHIFT_CLOCK_FILE
 * names, from one look to the next. Its monotonic clock is left alone, as by a real jump. See clock.py.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define NO_UPTIME 1000000000 /* seconds: a later moment is of the wall clock, an earlier one of the monotonic */

typedef int posix_wait(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
typedef int c11_wait(cnd_t *, mtx_t *, const struct timespec *);

static const volatile int64_t *shift;
static posix_wait *real_posix_wait;
static c11_wait *real_c11_wait;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("SHIFT_CLOCK_FILE");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *at = mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
        shift = at == MAP_FAILED ? NULL : at;
        close(file);
    }
    real_posix_wait = (posix_wait *)dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2"); /* not the oldest */
    if (!real_posix_wait) real_posix_wait = (posix_wait *)dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    real_c11_wait = (c11_wait *)dlsym(RTLD_NEXT, "cnd_timedwait");
}

static int64_t seconds(void) { return shift ? *shift : 0; }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += seconds();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}

int timespec_get(struct timespec *now, int base) { return clock_gettime(CLOCK_REALTIME, now) ? 0 : base; }

/* A deadline was reckoned by the shifted clock, and the kernel goes by its own. */
static struct timespec real_deadline(const struct timespec *deadline) {
    struct timespec real = *deadline;
    if (real.tv_sec > NO_UPTIME) real.tv_sec -= seconds();
    return real;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline) {
    struct timespec real = real_deadline(deadline);
    return real_posix_wait(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline) {
    struct timespec real = real_deadline(deadline);
    return real_c11_wait(condition, mutex, &real);
}
