// quoin/engine.h: devices, buffers, kernels, streams. No Vulkan type appears here.
#ifndef QUOIN_ENGINE_H
#define QUOIN_ENGINE_H

#include <quoin/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qn_device qn_device;
typedef struct qn_buffer qn_buffer;
typedef struct qn_stream qn_stream;

// What a device can do beyond Vulkan 1.2's guarantees. An absent capability never forbids an
// operation; it selects another kernel.
typedef enum qn_cap {
    QN_CAP_SUBGROUP = 1 << 0,       // basic, vote, arithmetic, ballot, shuffle in compute
    QN_CAP_TEXEL = 1 << 1,          // vec4 texel buffers large enough for any tensor (2^26 texels)
    QN_CAP_F16_STORAGE = 1 << 2,    // 16-bit values in buffers
    QN_CAP_F16_MATH = 1 << 3,
    QN_CAP_INT8_DOT = 1 << 4,
    QN_CAP_MATRIX = 1 << 5,         // cooperative matrices, either dialect
    QN_CAP_UNIFIED_MEMORY = 1 << 6, // the host can map device memory: no staging copies
    QN_CAP_TIMESTAMPS = 1 << 7,
    QN_CAP_MEMORY_BUDGET = 1 << 8,  // the driver tells how much memory is free
} qn_cap;

// The one-word name of a single capability bit, "subgroup"; NULL for an unknown bit.
QN_API const char *qn_cap_name(uint32_t bit);

// Which family of kernels suits a device; decided once, from its properties.
typedef enum qn_class {
    QN_CLASS_FLAT,  // CPU drivers: one subgroup per workgroup, texel reads, no shared memory.
                    // Implies QN_CAP_SUBGROUP and QN_CAP_TEXEL.
    QN_CLASS_TILED, // everything else: shared memory and register tiles
} qn_class;

typedef struct qn_device_info {
    char name[256], driver[256];
    uint8_t uuid[16];        // stable across runs; keys the pipeline cache
    uint32_t vendor, device; // PCI ids
    uint32_t driver_version, api_version;
    uint64_t memory, budget; // bytes: device-local in total, free for us now
    uint64_t max_binding;    // bytes one binding may span
    uint64_t max_allocation; // bytes one allocation may have
    uint32_t caps;           // qn_cap bits, after hiding
    uint32_t subgroup_size, shared_memory, max_invocations, max_groups;
    uint32_t max_storage_buffers; // per shader stage
    uint32_t compute_units;  // 0: unknown
    qn_class kernel_class;
    bool software;           // a CPU implementation such as lavapipe
    bool discrete;
    char quirks[256];        // names of the quirk rows that apply, comma separated
    char reason[256];        // why this rank: "discrete GPU", "software driver: last resort"
} qn_device_info;

typedef struct qn_device_opts {
    const char *select;      // index in qn_device_list() order, UUID prefix or part of the name;
                             // NULL: the best one
    uint32_t hide;           // qn_cap bits to pretend away, for tests and bug reports. Hiding
                             // SUBGROUP or TEXEL makes a flat device tiled.
    uint64_t memory_limit;   // bytes of device memory we may take; 0: the budget
    bool force_staging;      // tests: copy through staging even where memory is unified
    uint32_t lose_at_submit; // tests: the n-th submission reports a lost device; 0: never
    const char *cache_dir;   // pipeline cache; NULL: $XDG_CACHE_HOME/quoin; "": none
} qn_device_opts;

// Best device first. Writes at most `capacity` entries; *count is how many exist.
// QN_ERR_NO_DEVICE with advice when there is none.
QN_API qn_result qn_device_list(qn_context *ctx, qn_device_info *out, size_t capacity,
                                size_t *count);

// Thread-safe. A device outlives everything made from it. An unknown `select` lists what exists.
QN_API qn_result qn_device_create(qn_context *ctx, const qn_device_opts *opts, qn_device **out);
QN_API void qn_device_destroy(qn_device **dev);
QN_API const qn_device_info *qn_device_describe(const qn_device *dev);
// QN_OK, or QN_ERR_DEVICE_LOST with the message of the loss.
QN_API qn_result qn_device_status(const qn_device *dev);

typedef struct qn_device_usage {
    uint64_t allocated, peak, limit; // bytes of device memory held by us
    uint32_t pipelines;              // created so far
    uint32_t pipelines_cached;       // of these, found in the cache file
} qn_device_usage;
QN_API qn_device_usage qn_device_usage_now(const qn_device *dev);

typedef enum qn_memory {
    QN_MEMORY_DEVICE = 0, // fast for kernels
    QN_MEMORY_UPLOAD,     // host writes, device reads
    QN_MEMORY_READBACK,   // device writes, host reads (host-cached where offered)
} qn_memory;

typedef struct qn_buffer_opts {
    uint64_t size; // bytes, required; rounded up to 256
    qn_memory memory;
    const char *name; // shown in errors, captures and memory reports; copied
} qn_buffer_opts;

// New buffers hold zeros. QN_ERR_NO_DEVICE_MEMORY names the request, the limit and the three
// largest holders.
QN_API qn_result qn_buffer_create(qn_device *dev, const qn_buffer_opts *opts, qn_buffer **out);
QN_API void qn_buffer_destroy(qn_buffer **buf); // the device must be done with it
QN_API uint64_t qn_buffer_size(const qn_buffer *buf);
// Blocking copies; staged where the memory cannot be mapped. They wait for submitted work.
QN_API qn_result qn_buffer_write(qn_buffer *buf, uint64_t offset, const void *data, uint64_t size);
QN_API qn_result qn_buffer_read(qn_buffer *buf, uint64_t offset, void *data, uint64_t size);
QN_API qn_result qn_buffer_fill(qn_buffer *buf, uint64_t offset, uint64_t size, uint32_t word);
// The mapped memory, or NULL when this buffer cannot be mapped. No waiting, no flushing needed
// (mapped memory is always coherent).
QN_API void *qn_buffer_map(qn_buffer *buf);

#define QN_RANGE_ALIGN 256 // bytes: every range given to a dispatch starts at a multiple
typedef struct qn_range {
    qn_buffer *buffer;
    uint64_t offset, size; // bytes; size 0: the rest of the buffer
} qn_range;

// The kernels, by row of the table.
typedef enum qn_kernel {
#define QN_KERNEL(id, file, bindings, constants, forms) QN_K_##id,
#include <quoin/kernels.def>
#undef QN_KERNEL
    QN_KERNEL_COUNT
} qn_kernel;

QN_API const char *qn_kernel_name(qn_kernel k); // the row's id
// Changes when one of the built-in shaders does.
QN_API uint64_t qn_kernels_revision(void);
// The form of a kernel this device gets: "flat", "portable"; "none" when it has no usable form.
QN_API const char *qn_kernel_form(const qn_device *dev, qn_kernel k);

// How a kernel's 'x' bindings are stored; a column of the forms. See shaders/types.glsl.
typedef enum qn_storage {
    QN_STORE_F32 = 0,
    QN_STORE_F16,
    QN_STORE_BF16,
    QN_STORE_Q8_0, // integers of blocks of 32; their f16 scales are the 's' binding
    QN_STORE_Q4_0,
} qn_storage;

#define QN_MAX_BINDINGS 12
#define QN_MAX_CONSTANTS 12
#define QN_MAX_ARGS 128 // bytes, the guaranteed minimum of push constants

// One dispatch. The kernel table fixes how many buffers a kernel takes, which it writes and how
// it reads them; everything given here is checked against the table.
typedef struct qn_dispatch {
    qn_kernel kernel;
    qn_storage storage;                   // of the 'x' bindings
    qn_range buffers[QN_MAX_BINDINGS];    // in binding order; a NULL buffer binds a dummy
    const void *args;                     // the struct shared by C and GLSL
    uint32_t args_size;
    uint32_t constants[QN_MAX_CONSTANTS]; // constant_id 1, 2, ...; id 0 is the workgroup size
    uint32_t group_size;                  // constant_id 0 of a portable form; 0: 64. Flat forms
                                          // get the subgroup size unless the row says W.
    uint32_t groups[3];                   // each at least 1 and within the device's limit
    uint64_t rounds;                      // loop rounds of the busiest invocation, 0: under 1,000.
                                          // Checked against the device's limit.
} qn_dispatch;

// An ordered recording of GPU work, submitted as often as wanted. Hazards follow from the table's
// read and write marks, so callers never write a barrier. One thread at a time.
typedef struct qn_stream_opts {
    bool profile; // time every span; costs a little
} qn_stream_opts;
QN_API qn_result qn_stream_create(qn_device *dev, const qn_stream_opts *opts, qn_stream **out);
QN_API void qn_stream_destroy(qn_stream **s); // waits for its work
QN_API qn_result qn_stream_dispatch(qn_stream *s, const qn_dispatch *d);
QN_API qn_result qn_stream_copy(qn_stream *s, qn_range dst, qn_range src); // dst.size bytes
QN_API qn_result qn_stream_fill(qn_stream *s, qn_range dst, uint32_t word);
// Opens a span: a debug label, and a timed interval when profiling. The label must live as long
// as the stream.
QN_API qn_result qn_stream_mark(qn_stream *s, const char *label);
// What follows goes into another submission, so that none lasts too long.
QN_API qn_result qn_stream_cut(qn_stream *s);
// The first submit ends the recording.
QN_API qn_result qn_stream_submit(qn_stream *s);
// QN_ERR_DEVICE_LOST also when timeout_ns pass without the work being done. UINT64_MAX: no limit.
QN_API qn_result qn_stream_wait(qn_stream *s, uint64_t timeout_ns);

// A compute shader of the caller's own, not in the kernel table: SPIR-V for Vulkan 1.2, storage and
// uniform buffers in sets 0 to 3, push constants. What the module declares must be what is given
// here, and what it needs beyond Vulkan 1.2's guarantees must be among the device's capabilities:
// neither is checked. Buffers must outlive the program.
#define QN_PROGRAM_BINDINGS 32
#define QN_PROGRAM_CONSTANTS 64
typedef struct qn_program qn_program;
typedef struct qn_program_binding {
    uint32_t set, binding;
    bool uniform; // a uniform buffer; else a storage buffer
    qn_range range;
} qn_program_binding;
typedef struct qn_program_constant {
    uint32_t id, value; // constant_id; the bits of a 32-bit value
} qn_program_constant;
typedef struct qn_program_opts {
    const uint32_t *words;
    size_t size;       // bytes
    const char *entry; // "main"
    const qn_program_binding *bindings;
    size_t binding_count;
    const qn_program_constant *constants;
    size_t constant_count;
    uint32_t push_size; // bytes of push constants
} qn_program_opts;
QN_API qn_result qn_program_create(qn_device *dev, const qn_program_opts *opts, qn_program **out);
QN_API void qn_program_destroy(qn_program **p); // the device must be done with it
// Records a dispatch; every binding counts as written. `push` has the program's push_size bytes.
QN_API qn_result qn_stream_program(qn_stream *s, const qn_program *p, const void *push,
                                   const uint32_t groups[3]);

typedef struct qn_span {
    const char *label;
    double seconds; // device time
} qn_span;
// Spans of the last finished submit, in order. Waits. Writes at most `capacity`.
QN_API qn_result qn_stream_timings(qn_stream *s, qn_span *out, size_t capacity, size_t *count);

// What is submitted between the two becomes one frame of a graphics debugger: a capture where
// RenderDoc has loaded itself into this process, and labels that AMD's profiler takes for the ends
// of a frame. Without either: nothing. True when RenderDoc is there; when it has made a capture.
QN_API bool qn_capture_begin(qn_device *dev);
QN_API bool qn_capture_end(qn_device *dev);

typedef struct qn_stream_stats {
    uint32_t dispatches, barriers, copies, submissions; // recorded
    double longest;                                     // seconds of the longest submission seen
} qn_stream_stats;
QN_API qn_stream_stats qn_stream_describe(const qn_stream *s);

#ifdef __cplusplus
}
#endif
#endif
