// A folder for one test program's files, and ways to damage them.
#ifndef QN_TEST_SCRATCH_H
#define QN_TEST_SCRATCH_H

#include "device.h"
#include "fail.h"
#include "mem.h"
#include "platform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline int scratch_make(void **state)
{
    (void)state;
    return qn_remove_tree(QN_SCRATCH_DIR) == QN_OK && qn_make_dirs(QN_SCRATCH_DIR) == QN_OK ? 0
                                                                                            : -1;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    return qn_remove_tree(QN_SCRATCH_DIR) == QN_OK ? 0 : -1;
}

// A path in the folder; the last eight stay valid.
static inline const char *scratch(const char *name)
{
    static char path[8][512];
    static unsigned next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", QN_SCRATCH_DIR, name);
    return p;
}

// Without the flush to the disk that qn_write_file() does, and that some file systems do when a
// file is cut and written again: tests write thousands.
static inline void scratch_write(const char *name, const void *data, size_t size)
{
    remove(scratch(name));
    FILE *f = fopen(scratch(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static inline void scratch_write_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

static inline void scratch_read(const char *name, char **data, size_t *size)
{
    assert_ok(qn_read_file(scratch(name), 1 << 24, data, size));
}

static inline size_t scratch_count(void)
{
    char **names;
    size_t count;
    assert_ok(qn_list_dir(QN_SCRATCH_DIR, &names, &count));
    qn_free_names(names, count);
    return count;
}

// Calls run(state) with the first, then the second, ... allocation failing until it succeeds.
// Every failure before that has to be QN_ERR_NO_MEMORY.
static inline void fail_each_allocation(qn_result (*run)(void *state), void *state)
{
    for (int64_t n = 1;; n++) {
        qn_alloc_fail_at(n);
        qn_result r = run(state);
        qn_alloc_fail_at(0);
        if (r == QN_OK) {
            assert_true(n > 1);
            return;
        }
        if (r != QN_ERR_NO_MEMORY) fail_msg("allocation %d: %s", (int)n, qn_error_message());
    }
}

#endif
