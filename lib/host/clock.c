#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

uint64_t pdr_host_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int pdr_host_boot(uint64_t *boot, pdr_error *err)
{
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    char              id[64];
    uint64_t          h = 0xcbf29ce484222325u; /* FNV-1a */
    ssize_t           n, got = 0;
    int               fd;

    if (!boot) return pdr_host_fail(err, PDR_E_INVALID, "boot is NULL");
    if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) return pdr_host_fail_errno(err, "cannot open", path);
    while ((n = read(fd, id + got, sizeof id - (size_t)got)) > 0 || (n < 0 && errno == EINTR)) got += n > 0 ? n : 0;
    if (n < 0) {
        pdr_host_fail_errno(err, "cannot read", path);
        close(fd);
        return PDR_E_SYSTEM;
    }
    close(fd);
    if (got < 36) return pdr_host_fail(err, PDR_E_SYSTEM, "%s holds no boot id", path);
    for (ssize_t i = 0; i < 36; i++) h = (h ^ (unsigned char)id[i]) * 0x100000001b3u;
    *boot = h ? h : 1;
    return PDR_OK;
}

int pdr_host_seed(uint64_t *seed, pdr_error *err)
{
    if (!seed) return pdr_host_fail(err, PDR_E_INVALID, "seed is NULL");
    do {
        ssize_t n = getrandom(seed, sizeof *seed, 0);
        if (n < 0 && errno != EINTR) return pdr_host_fail_errno(err, "cannot read", "the system's random source");
        if (n != (ssize_t)sizeof *seed) *seed = 0;
    } while (!*seed);
    return PDR_OK;
}
