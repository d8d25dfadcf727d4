/* Faults of a disk, for a process that LD_PRELOADs this: tests/test_machine_faults.py.
 *
 * Below the folder THORACLE_FAULTS_BELOW, while a file of this name is in THORACLE_FAULTS:
 *   read-only  whatever would write fails with EROFS, as on a file system that the kernel
 *              remounted after an error (a mount of our own cannot be, while files are open)
 *   slow       fsync and fdatasync take a tenth of a second longer
 *   clock      the clock of the day is this many seconds ahead; the file has the number
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static int on(const char *name)
{
    const char *folder = getenv("THORACLE_FAULTS");
    char path[4096];
    if (!folder)
        return 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return access(path, F_OK) == 0;
}

static int below(const char *path)
{
    const char *folder = getenv("THORACLE_FAULTS_BELOW");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static int open_below(int descriptor)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int refused(int there)
{
    if (!there || !on("read-only"))
        return 0;
    errno = EROFS;
    return 1;
}

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define MODE(flags, mode)                       \
    mode_t mode = 0;                            \
    if ((flags) & O_CREAT) {                    \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = va_arg(rest, mode_t);            \
        va_end(rest);                           \
    }

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...)                  \
    {                                                           \
        MODE(flags, mode)                                       \
        if (WRITES(flags) && refused(below(path)))              \
            return -1;                                          \
        return REAL(name)(path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                            \
    int name(int folder, const char *path, int flags, ...)      \
    {                                                           \
        MODE(flags, mode)                                       \
        if (WRITES(flags) && refused(below(path)))              \
            return -1;                                          \
        return REAL(name)(folder, path, flags, mode);           \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int descriptor, const void *content, size_t size)
{
    return refused(open_below(descriptor)) ? -1 : REAL(write)(descriptor, content, size);
}

#define PWRITE(name, offset_type)                                                       \
    ssize_t name(int descriptor, const void *content, size_t size, offset_type offset)  \
    {                                                                                   \
        return refused(open_below(descriptor)) ? -1                                     \
            : REAL(name)(descriptor, content, size, offset);                            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define SYNC(name)                              \
    int name(int descriptor)                    \
    {                                           \
        if (refused(open_below(descriptor)))    \
            return -1;                          \
        if (on("slow"))                         \
            usleep(100000);                     \
        return REAL(name)(descriptor);          \
    }
SYNC(fsync)
SYNC(fdatasync)

int rename(const char *from, const char *to)
{
    return refused(below(to)) ? -1 : REAL(rename)(from, to);
}

int unlink(const char *path)
{
    return refused(below(path)) ? -1 : REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
    return refused(below(path)) ? -1 : REAL(mkdir)(path, mode);
}

static long ahead(void)
{
    static long seconds;
    static long read_at = -1; /* in twentieths of a second */
    const char *folder = getenv("THORACLE_FAULTS");
    char path[4096], content[32];
    struct timespec now;
    REAL(clock_gettime)(CLOCK_MONOTONIC, &now);
    long moment = now.tv_sec * 20 + now.tv_nsec / 50000000;
    if (!folder || moment == read_at)
        return seconds;
    read_at = moment;
    snprintf(path, sizeof path, "%s/clock", folder);
    int descriptor = REAL(open)(path, O_RDONLY);
    ssize_t size = descriptor < 0 ? 0 : read(descriptor, content, sizeof content - 1);
    if (descriptor >= 0)
        close(descriptor);
    content[size > 0 ? size : 0] = 0;
    return seconds = atol(content);
}

int clock_gettime(clockid_t clock, struct timespec *found)
{
    int result = REAL(clock_gettime)(clock, found);
    if (result == 0 && clock == CLOCK_REALTIME)
        found->tv_sec += ahead();
    return result;
}
