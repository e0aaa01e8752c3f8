// POSIX: clocks, mapped files, atomic writes, directories, environment.
#include "platform.h"
#include "fail.h"
#include "mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static qn_result io_error(const char *doing, const char *path)
{
    int e = errno;
    char reason[128];
#if defined(__GLIBC__)
    const char *text = strerror_r(e, reason, sizeof reason);
#else
    const char *text = strerror_r(e, reason, sizeof reason) ? "unknown error" : reason;
#endif
    return qn_fail(e == ENOMEM ? QN_ERR_NO_MEMORY : QN_ERR_IO, "%s %s: %s", doing, path, text);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double qn_clock(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double qn_thread_clock(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

// ---------------------------------------------------------------------------------- reading

// Opens for reading; anything but a regular file (a directory, a pipe) is refused, since its
// size would mean nothing.
static qn_result open_regular(const char *path, int *fd, uint64_t *size)
{
    int f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f < 0) return io_error("opening", path);
    struct stat st;
    if (fstat(f, &st) != 0) {
        qn_result r = io_error("reading", path);
        close(f);
        return r;
    }
    if (!S_ISREG(st.st_mode)) {
        close(f);
        return qn_fail(QN_ERR_IO, "opening %s: not a regular file", path);
    }
    *fd = f;
    *size = (uint64_t)st.st_size;
    return QN_OK;
}

qn_result qn_map_file(const char *path, qn_mapping *out)
{
    int fd;
    uint64_t size;
    QN_TRY(open_regular(path, &fd, &size));
    if (size > SIZE_MAX) {
        close(fd);
        return qn_fail(QN_ERR_IO, "mapping %s: %llu bytes do not fit the address space", path,
                       (unsigned long long)size);
    }
    const void *data = ""; // mmap() refuses an empty range
    if (size) {
        data = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            qn_result r = io_error("mapping", path);
            close(fd);
            return r;
        }
    }
    close(fd);
    *out = (qn_mapping){ .data = data, .size = size };
    return QN_OK;
}

void qn_unmap_file(qn_mapping *m)
{
    if (m->size) munmap((void *)(uintptr_t)m->data, (size_t)m->size);
    *m = (qn_mapping){ 0 };
}

static void advise(const void *data, uint64_t size, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)data;
    uintptr_t first = at / page * page, end = at + (uintptr_t)size;
    if (end > first) madvise((void *)first, end - first, advice);
}

void qn_map_release(const void *data, uint64_t size)
{
    advise(data, size, MADV_DONTNEED); // of a private mapping that nobody wrote: nothing is lost
}

void qn_map_prefetch(const void *data, uint64_t size)
{
    advise(data, size, MADV_WILLNEED);
}

// MADV_HUGEPAGE is a hint of Linux; others have their own ways.
void qn_map_large_pages(void *data, uint64_t size)
{
#ifdef MADV_HUGEPAGE
    advise(data, size, MADV_HUGEPAGE);
#else
    (void)data, (void)size;
#endif
}

// Reads until `size` bytes are there or the file ends.
static qn_result read_all(int fd, const char *path, char *data, size_t size, size_t *got)
{
    *got = 0;
    while (*got < size) {
        ssize_t n = read(fd, data + *got, size - *got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error("reading", path);
        if (n == 0) break;
        *got += (size_t)n;
    }
    return QN_OK;
}

qn_result qn_read_file(const char *path, uint64_t limit, char **data, size_t *size)
{
    int fd;
    uint64_t bytes;
    QN_TRY(open_regular(path, &fd, &bytes));
    if (bytes > limit || bytes >= SIZE_MAX) {
        close(fd);
        return qn_fail(QN_ERR_IO, "reading %s: %llu bytes, at most %llu expected", path,
                       (unsigned long long)bytes, (unsigned long long)limit);
    }
    char *text = qn_malloc((size_t)bytes + 1);
    qn_result r = QN_OK;
    size_t got = 0;
    if (!text)
        r = qn_no_memory((size_t)bytes + 1);
    else
        r = read_all(fd, path, text, (size_t)bytes, &got);
    close(fd);
    if (r != QN_OK) {
        qn_free(text);
        return r;
    }
    text[got] = 0;
    *data = text;
    *size = got;
    return QN_OK;
}

// ---------------------------------------------------------------------------------- writing

struct qn_atomic_file {
    char *path, *temporary;
    int fd;
};

// The directory that holds `path`, in a fresh allocation.
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return qn_strdup(".");
    return qn_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

// A rename reaches the disk when its directory does.
static qn_result sync_parent(const char *path)
{
    char *dir = parent_of(path);
    if (!dir) return qn_no_memory(strlen(path) + 1);
    qn_result r = QN_OK;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        r = io_error("opening", dir);
    else if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
        r = io_error("flushing", dir); // some file systems cannot flush directories
    if (fd >= 0) close(fd);
    qn_free(dir);
    return r;
}

static void atomic_free(qn_atomic_file *f)
{
    if (f->fd >= 0) close(f->fd);
    qn_free(f->path);
    qn_free(f->temporary);
    qn_free(f);
}

// Opens a new file beside f->path whose name nobody else has.
static qn_result open_temporary(qn_atomic_file *f)
{
    static atomic_uint counter;
    size_t size = strlen(f->path) + 48;
    f->temporary = qn_malloc(size);
    if (!f->temporary) return qn_no_memory(size);
    for (int attempt = 0; attempt < 100; attempt++) { // names left by a killed process
        snprintf(f->temporary, size, "%s.%ld-%u.tmp", f->path, (long)getpid(),
                 atomic_fetch_add(&counter, 1));
        f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (f->fd >= 0 || errno != EEXIST) break;
    }
    return f->fd >= 0 ? QN_OK : io_error("writing", f->path);
}

qn_result qn_atomic_open(const char *path, qn_atomic_file **out)
{
    if (!path[0]) return qn_fail(QN_ERR_IO, "writing a file: its path is empty");
    if (qn_is_dir(path)) return qn_fail(QN_ERR_IO, "writing %s: it is a directory", path);
    qn_atomic_file *f = qn_calloc(1, sizeof *f);
    if (!f) return qn_no_memory(sizeof *f);
    f->fd = -1;
    f->path = qn_strdup(path);
    qn_result r = f->path ? open_temporary(f) : qn_no_memory(strlen(path) + 1);
    if (r != QN_OK) {
        atomic_free(f);
        return r;
    }
    struct stat old; // the new file keeps the permissions of the one it replaces
    if (stat(path, &old) == 0) (void)!fchmod(f->fd, old.st_mode & 07777);
    *out = f;
    return QN_OK;
}

qn_result qn_atomic_write(qn_atomic_file *f, const void *data, size_t size)
{
    const char *p = data;
    while (size) {
        ssize_t n = write(f->fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return io_error("writing", f->path);
        p += n;
        size -= (size_t)n;
    }
    return QN_OK;
}

qn_result qn_atomic_reserve(qn_atomic_file *f, uint64_t size)
{
#if defined(__linux__)
    if (size > INT64_MAX) return qn_fail(QN_ERR_INVALID, "writing %s: too many bytes", f->path);
    int r;
    do {
        r = fallocate(f->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)size);
    } while (r != 0 && errno == EINTR);
    if (r != 0 && errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL)
        return qn_context_add(io_error("taking room for", f->path), "%llu bytes",
                              (unsigned long long)size);
#else
    (void)f;
    (void)size;
#endif
    return QN_OK;
}

qn_result qn_atomic_commit(qn_atomic_file **file)
{
    qn_atomic_file *f = *file;
    *file = NULL;
    qn_result r = QN_OK;
    if (fsync(f->fd) != 0 && errno != EINVAL && errno != ENOTSUP) r = io_error("writing", f->path);
    int closed = close(f->fd);
    f->fd = -1;
    if (r == QN_OK && closed != 0) r = io_error("writing", f->path);
    if (r == QN_OK && rename(f->temporary, f->path) != 0) r = io_error("replacing", f->path);
    if (r == QN_OK)
        r = sync_parent(f->path);
    else
        unlink(f->temporary);
    atomic_free(f);
    return r;
}

void qn_atomic_abandon(qn_atomic_file **f)
{
    if (!*f) return;
    unlink((*f)->temporary);
    atomic_free(*f);
    *f = NULL;
}

qn_result qn_write_file(const char *path, const void *data, size_t size)
{
    qn_atomic_file *f;
    QN_TRY(qn_atomic_open(path, &f));
    qn_result r = qn_atomic_write(f, data, size);
    if (r == QN_OK) return qn_atomic_commit(&f);
    qn_atomic_abandon(&f);
    return r;
}

// ---------------------------------------------------------------------------------- directories

bool qn_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool qn_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

uint64_t qn_disk_free(const char *path)
{
    struct statvfs st;
    if (statvfs(path, &st) != 0) return UINT64_MAX;
    return (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
}

bool qn_same_file(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

uint64_t qn_file_time(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return 0;
    return (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
}

qn_result qn_make_dirs(const char *path)
{
    if (!path[0]) return qn_fail(QN_ERR_IO, "creating a directory: its path is empty");
    char *p = qn_strdup(path);
    if (!p) return qn_no_memory(strlen(path) + 1);
    qn_result r = QN_OK;
    for (char *end = p + 1; r == QN_OK; end++) {
        if (*end != '/' && *end != 0) continue;
        bool last = *end == 0;
        *end = 0;
        if (mkdir(p, 0777) != 0 && !qn_is_dir(p)) {
            if (errno == EEXIST) errno = ENOTDIR;
            r = io_error("creating", p);
        }
        if (last) break;
        *end = '/';
    }
    qn_free(p);
    return r;
}

qn_result qn_check_dirs(const char *path)
{
    if (!path[0]) return qn_fail(QN_ERR_IO, "creating a directory: its path is empty");
    char *p = qn_strdup(path);
    if (!p) return qn_no_memory(strlen(path) + 1);
    while (access(p, F_OK) != 0 && errno == ENOENT) {
        char *slash = strrchr(p, '/');
        if (!slash)
            strcpy(p, "."); // path is not empty: there is room
        else if (slash == p)
            p[1] = 0;
        else
            *slash = 0;
    }
    qn_result r = QN_OK;
    if (!qn_is_dir(p)) {
        errno = ENOTDIR;
        r = io_error("creating", path);
    } else if (access(p, W_OK | X_OK) != 0) {
        r = io_error("writing to", p);
    }
    qn_free(p);
    return r;
}

qn_result qn_rename(const char *from, const char *to)
{
    if (rename(from, to) == 0) return QN_OK;
    return qn_context_add(io_error("to", to), "renaming %s", from);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

qn_result qn_list_dir(const char *path, char ***names, size_t *count)
{
    DIR *dir = opendir(path);
    if (!dir) return io_error("listing", path);
    void *list = NULL;
    size_t n = 0, capacity = 0;
    qn_result r = QN_OK;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            if (errno) r = io_error("listing", path);
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        r = qn_grow(&list, &capacity, n + 1, sizeof(char *));
        if (r != QN_OK) break;
        char *name = qn_strdup(entry->d_name);
        if (!name) {
            r = qn_no_memory(strlen(entry->d_name) + 1);
            break;
        }
        ((char **)list)[n++] = name;
    }
    closedir(dir);
    if (r != QN_OK) {
        qn_free_names(list, n);
        return r;
    }
    if (n) qsort(list, n, sizeof(char *), compare_names);
    *names = list;
    *count = n;
    return QN_OK;
}

void qn_free_names(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++) qn_free(names[i]);
    qn_free(names);
}

// Links are removed, never followed.
qn_result qn_remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT ? QN_OK : io_error("removing", path);
    if (!S_ISDIR(st.st_mode)) return unlink(path) == 0 ? QN_OK : io_error("removing", path);
    char **names;
    size_t count;
    QN_TRY(qn_list_dir(path, &names, &count));
    qn_result r = QN_OK;
    for (size_t i = 0; i < count && r == QN_OK; i++) {
        char *child = qn_path_join(path, names[i]);
        r = child ? qn_remove_tree(child) : qn_no_memory(strlen(path) + strlen(names[i]) + 2);
        qn_free(child);
    }
    qn_free_names(names, count);
    if (r == QN_OK && rmdir(path) != 0) r = io_error("removing", path);
    return r;
}

char *qn_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    bool slash = n && dir[n - 1] != '/';
    char *path = qn_malloc(n + slash + m + 1);
    if (!path) return NULL;
    memcpy(path, dir, n);
    if (slash) path[n] = '/';
    memcpy(path + n + slash, name, m + 1);
    return path;
}

// ---------------------------------------------------------------------------------- the machine

void qn_env_default(const char *name, const char *value)
{
    setenv(name, value, 0);
}

uint64_t qn_memory_peak(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (uint64_t)u.ru_maxrss * 1024 : 0;
}

// A number of bytes in a small file of the kernel's; `fallback` when there is none.
static uint64_t number_in_file(const char *path, const char *key, uint64_t fallback)
{
    FILE *f = fopen(path, "re");
    if (!f) return fallback;
    char line[256];
    unsigned long long value = fallback;
    while (fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        if (strncmp(line, key, n) == 0 && sscanf(line + n, "%llu", &value) == 1) break;
    }
    fclose(f);
    return value;
}

qn_machine_memory qn_machine_memory_now(void)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t total = page * (uint64_t)sysconf(_SC_PHYS_PAGES);
    uint64_t free_kib = number_in_file("/proc/meminfo", "MemAvailable:", total / 2048);
    qn_machine_memory m = { .total = total, .available = free_kib * 1024 };
    // A container may have less than the machine.
    uint64_t limit = number_in_file("/sys/fs/cgroup/memory.max", "", UINT64_MAX);
    uint64_t used = number_in_file("/sys/fs/cgroup/memory.current", "", 0);
    if (limit < m.total) m.total = limit;
    uint64_t left = limit > used ? limit - used : 0;
    if (left < m.available) m.available = left;
    return m;
}
