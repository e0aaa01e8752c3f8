// What drivers let one choose by the environment, and what was found to be best on this machine by
// `quoin bench tune`. Kept in the cache folder; used by later runs before Vulkan is opened, where
// the variable is not set already. QUOIN_TUNING=0: not used.
#ifndef QN_TUNING_H
#define QN_TUNING_H

#include "fail.h"

typedef struct qn_habit {
    const char *driver;   // part of the driver's name
    const char *variable;
    const char *values;   // candidates, "256|512"; "cpus" stands for their number
    const char *what;
} qn_habit;
extern const qn_habit qn_habits[]; // a NULL driver ends it

#define QN_TUNING_CHOICES 8
typedef struct qn_tuning {
    char driver[256];  // what it was measured on
    char machine[128]; // processor and how many of them
    char kernels[17];  // of the shaders it was measured with
    struct {
        const char *variable; // of the table
        char value[16];
    } choices[QN_TUNING_CHOICES];
    size_t count;
} qn_tuning;

// The processor's name and count, "" where it is not known.
void qn_tuning_machine(char out[128]);
void qn_tuning_kernels(char out[17]);

// The file's path, from qn_malloc(); NULL: no folder for it, or no memory.
char *qn_tuning_path(void);
qn_result qn_tuning_save(const qn_tuning *t, const char *path);
// QN_ERR_FORMAT for what is not such a file or chooses what is not in the table.
qn_result qn_tuning_load(const char *path, qn_tuning *out);

// Sets the variables that the stored tuning chooses. A file of another machine or of other shaders
// is left alone, with a line in the log; a malformed one with a warning.
void qn_tuning_apply(void);
// Warns when the tuning that was applied was measured with another driver than this one.
void qn_tuning_check(const char *driver);

#endif
