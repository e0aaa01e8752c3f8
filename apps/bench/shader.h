// A user's own compute shader: loaded, compiled where it is GLSL, run on filled buffers, checked
// against expected outputs, timed.
#ifndef QN_BENCH_SHADER_H
#define QN_BENCH_SHADER_H

#include "bench/measure.h"
#include "bench/spirv.h"

#define QN_SHADER_ARGS 128 // bytes of push constants

// Reads SPIR-V, or compiles GLSL where this build can; `defines` are "NAME" or "NAME=VALUE" and
// end with NULL. QN_ERR_FORMAT with the compiler's message, which names file and line.
qn_result qn_shader_load(const char *path, const char *const *defines, uint32_t **words,
                         size_t *count);

// QN_ERR_UNSUPPORTED naming the first capability that this device, as quoin opens it, lacks.
qn_result qn_shader_check(const char *name, const qn_spv_shader *s, const qn_device_info *dev);

typedef enum qn_shader_fill {
    QN_FILL_RANDOM = 0, // floats in [-1, 1), whole numbers from 0 to 99
    QN_FILL_ZERO,
    QN_FILL_ONE,
    QN_FILL_INDEX, // 0, 1, 2, ...
    QN_FILL_FILE,  // the buffer's bytes
} qn_shader_fill;

typedef struct qn_shader_buffer {
    uint64_t size; // bytes
    qn_shader_fill fill;
    const char *file;   // QN_FILL_FILE
    const char *expect; // a file with what it must hold after one run; NULL: not compared
    const char *output; // where to write what it holds after one run; NULL: nowhere
} qn_shader_buffer;

typedef struct qn_shader_job {
    const char *name;
    const uint32_t *words;
    size_t word_count;
    const qn_spv_shader *shader;
    qn_shader_buffer buffers[QN_SPV_BINDINGS]; // as the shader's bindings
    uint32_t constants[QN_SPV_CONSTANTS];      // as the shader's constants
    bool given[QN_SPV_CONSTANTS];              // false: the module's own value; one of an id
    unsigned char push[QN_SHADER_ARGS];
    uint32_t groups[3], local[3]; // local: as it is with these constants
    double flops, bytes;          // of a run; bytes 0: every buffer once, as it is declared
    double tolerance;             // of floats: relative to the larger of the two, or to 1
    double limit;                 // seconds one run may take
    uint64_t seed;
    qn_measure_opts measure;
    const qn_peaks *peaks;
} qn_shader_job;

// Appends one record, whatever happened; a lost device, also by a run over its limit, is returned
// as well: the device is of no use then.
qn_result qn_shader_run(qn_device *dev, const qn_shader_job *job, qn_bench_log *log);

#endif
