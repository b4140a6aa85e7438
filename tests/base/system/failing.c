// Makes one system call fail as a file system does that does not know it:
// FAIL_CALL=fsync FAIL_ERRNO=22 LD_PRELOAD=./failing.so program
// FAIL_KIND=folder lets it fail for folders alone.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int fails(const char *call, int fd) {
    const char *chosen = getenv("FAIL_CALL"), *kind = getenv("FAIL_KIND");
    struct stat status;
    if (!chosen || strcmp(chosen, call)) return 0;
    if (kind && fd >= 0 && fstat(fd, &status) == 0 && !S_ISDIR(status.st_mode)) return 0;
    errno = atoi(getenv("FAIL_ERRNO"));
    return 1;
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

int fsync(int fd) { return fails("fsync", fd) ? -1 : REAL("fsync", int (*)(int))(fd); }

int flock(int fd, int operation) {
    return fails("flock", -1) ? -1 : REAL("flock", int (*)(int, int))(fd, operation);
}

int chmod(const char *path, mode_t mode) {
    return fails("chmod", -1) ? -1 : REAL("chmod", int (*)(const char *, mode_t))(path, mode);
}

int fchmod(int fd, mode_t mode) {
    return fails("chmod", -1) ? -1 : REAL("fchmod", int (*)(int, mode_t))(fd, mode);
}
