// What the C library leaves out: clock, mapped files, atomic writes, directories, threads' env.
#ifndef QN_PLATFORM_H
#define QN_PLATFORM_H

#include <quoin/base.h>

// Seconds of a monotonic clock.
QN_API double qn_clock(void);
// CPU seconds that the calling thread has used.
QN_API double qn_thread_clock(void);

// A file mapped read-only. An empty file maps to size 0 with data non-NULL.
typedef struct qn_mapping {
    const void *data;
    uint64_t size;
} qn_mapping;
QN_API qn_result qn_map_file(const char *path, qn_mapping *out);
QN_API void qn_unmap_file(qn_mapping *m);
// The bytes are not needed in memory for now (they stay in the file); or will be soon.
QN_API void qn_map_release(const void *data, uint64_t size);
QN_API void qn_map_prefetch(const void *data, uint64_t size);
// A hint: fresh memory of our own that is going to be large and read with long strides should get
// large pages.
QN_API void qn_map_large_pages(void *data, uint64_t size);

// Reads a whole file of at most `limit` bytes, adds a NUL behind it; free with qn_free().
QN_API qn_result qn_read_file(const char *path, uint64_t limit, char **data, size_t *size);

// Writes beside `path`, flushes to the disk, renames over it: the file has either its old or
// its new content, whatever happens meanwhile.
QN_API qn_result qn_write_file(const char *path, const void *data, size_t size);

// The same in pieces: open, write as often as wanted, then commit or abandon.
typedef struct qn_atomic_file qn_atomic_file;
QN_API qn_result qn_atomic_open(const char *path, qn_atomic_file **out);
QN_API qn_result qn_atomic_write(qn_atomic_file *f, const void *data, size_t size);
// Takes the room for `size` bytes in all, so that a full disk shows before the work; says nothing
// where the file system cannot do that.
QN_API qn_result qn_atomic_reserve(qn_atomic_file *f, uint64_t size);
QN_API qn_result qn_atomic_commit(qn_atomic_file **f); // closes and frees in every case
QN_API void qn_atomic_abandon(qn_atomic_file **f);

// Creates the directory and its parents; one that exists is fine.
QN_API qn_result qn_make_dirs(const char *path);
// What qn_make_dirs() would answer, as far as can be told without writing: the nearest existing
// part of the path has to be a directory that may be written to.
QN_API qn_result qn_check_dirs(const char *path);
QN_API bool qn_file_exists(const char *path);
QN_API bool qn_is_dir(const char *path);
// Whether two paths lead to the same existing file or directory.
QN_API bool qn_same_file(const char *a, const char *b);
// Bytes that are free where `path` (a directory) lies; UINT64_MAX: not known.
QN_API uint64_t qn_disk_free(const char *path);
// When the file was last written, in nanoseconds of the system's clock; 0: there is none.
QN_API uint64_t qn_file_time(const char *path);
// Removes a directory and everything in it; a missing one is fine.
QN_API qn_result qn_remove_tree(const char *path);
// rename() with a sentence on failure. Replaces a file; `to` must not be a non-empty directory.
QN_API qn_result qn_rename(const char *from, const char *to);

// Names in a directory without "." and "..", sorted bytewise. Free with qn_free_names().
QN_API qn_result qn_list_dir(const char *path, char ***names, size_t *count);
QN_API void qn_free_names(char **names, size_t count);

// "dir/name" in a fresh allocation; NULL: out of memory.
QN_API char *qn_path_join(const char *dir, const char *name);

// Main memory in bytes: what this process could have at most, and what is free for it now. Both
// respect a container's limit.
typedef struct qn_machine_memory {
    uint64_t total, available;
} qn_machine_memory;
QN_API qn_machine_memory qn_machine_memory_now(void);

// The most main memory that this process has held so far, in bytes; mapped files count while they
// are in memory.
QN_API uint64_t qn_memory_peak(void);

// Sets an environment variable unless it is set already.
QN_API void qn_env_default(const char *name, const char *value);

#endif
