// Runs a user's shader.
#include "bench/shader.h"

#include "half.h"
#include "platform.h"
#include "random.h"

#include <math.h>
#include <string.h>
#if defined(QN_HAVE_SHADERC)
#include <glsl.h>
#endif

#define LARGEST_SHADER (4 << 20)

// ------------------------------------------------------------------------------------ loading

#if defined(QN_HAVE_SHADERC)
static qn_result compile(const char *path, const char *const *defines, uint32_t **words,
                         size_t *count)
{
    qn_glsl_result made;
    qn_result r = QN_OK;
    if (!qn_glsl_compile(".", path, defines, true, &made))
        r = qn_fail(QN_ERR_FORMAT, "%s", made.message ? made.message : "out of memory");
    else if (!(*words = qn_malloc(made.size)))
        r = qn_no_memory(made.size);
    else
        memcpy(*words, made.words, made.size);
    *count = made.size / 4;
    qn_glsl_free(&made);
    return r;
}
#else
static qn_result compile(const char *path, const char *const *defines, uint32_t **words,
                         size_t *count)
{
    (void)defines, (void)words, (void)count;
    return qn_fail(QN_ERR_UNSUPPORTED,
                   "%s is not SPIR-V, and this build has no GLSL compiler: compile it before "
                   "(glslc -O --target-env=vulkan1.2 -o FILE.spv FILE.comp), or build with shaderc "
                   "(Debian: libshaderc-dev)",
                   path);
}
#endif

qn_result qn_shader_load(const char *path, const char *const *defines, uint32_t **words,
                         size_t *count)
{
    char *text;
    size_t size;
    *words = NULL;
    QN_TRY(qn_read_file(path, LARGEST_SHADER, &text, &size));
    uint32_t first = 0;
    if (size >= 4) memcpy(&first, text, 4);
    qn_result r = QN_OK;
    if (first == 0x07230203u || first == 0x03022307u) {
        if (size % 4)
            r = qn_fail(QN_ERR_FORMAT, "%s: %zu bytes are not whole words", path, size);
        else if (!(*words = qn_malloc(size)))
            r = qn_no_memory(size);
        else
            memcpy(*words, text, size);
        *count = size / 4;
    } else if (memchr(text, 0, size)) {
        r = qn_fail(QN_ERR_FORMAT, "%s: neither SPIR-V nor text", path);
    } else if (!strstr(text, "#version")) {
        r = qn_fail(QN_ERR_FORMAT, "%s: neither SPIR-V nor GLSL: no #version in it", path);
    } else {
        r = compile(path, defines, words, count);
    }
    qn_free(text);
    return r;
}

// Capabilities that devices are opened with: of Vulkan 1.2 itself (0), or with one of ours.
static const struct {
    uint32_t id;
    const char *name;
    uint32_t cap; // qn_cap
    bool known;   // named only to be refused
} capabilities[] = {
    { 0, "Matrix", 0, false },
    { 1, "Shader", 0, false },
    { 9, "Float16", QN_CAP_F16_MATH, false },
    { 10, "Float64", 0, true },
    { 11, "Int64", 0, true },
    { 12, "Int64Atomics", 0, true },
    { 22, "Int16", 0, true },
    { 39, "Int8", QN_CAP_INT8_DOT, false },
    { 50, "ImageQuery", 0, false },
    { 61, "GroupNonUniform", QN_CAP_SUBGROUP, false },
    { 62, "GroupNonUniformVote", QN_CAP_SUBGROUP, false },
    { 63, "GroupNonUniformArithmetic", QN_CAP_SUBGROUP, false },
    { 64, "GroupNonUniformBallot", QN_CAP_SUBGROUP, false },
    { 65, "GroupNonUniformShuffle", QN_CAP_SUBGROUP, false },
    { 66, "GroupNonUniformShuffleRelative", 0, true },
    { 67, "GroupNonUniformClustered", 0, true },
    { 4433, "StorageBuffer16BitAccess", QN_CAP_F16_STORAGE, false },
    { 4448, "StorageBuffer8BitAccess", 0, true },
    { 5345, "VulkanMemoryModel", 0, true },
    { 5347, "PhysicalStorageBufferAddresses", 0, true },
    { 6018, "DotProductInput4x8BitPacked", QN_CAP_INT8_DOT, false },
    { 6019, "DotProduct", QN_CAP_INT8_DOT, false },
    { 6022, "CooperativeMatrixKHR", 0, true },
};

qn_result qn_shader_check(const char *name, const qn_spv_shader *s, const qn_device_info *dev)
{
    for (uint32_t i = 0; i < s->capability_count; i++) {
        size_t k = 0, count = sizeof capabilities / sizeof *capabilities;
        while (k < count && capabilities[k].id != s->capabilities[i]) k++;
        if (k == count || capabilities[k].known)
            return qn_fail(QN_ERR_UNSUPPORTED,
                           "%s needs capability %s%.0u, which quoin does not "
                           "enable",
                           name, k < count ? capabilities[k].name : "number ",
                           k < count ? 0 : s->capabilities[i]);
        if ((dev->caps & capabilities[k].cap) != capabilities[k].cap)
            return qn_fail(QN_ERR_UNSUPPORTED, "%s needs capability %s, which %s lacks", name,
                           capabilities[k].name, dev->name);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ buffers

static void put(const qn_spv_binding *b, unsigned char *to, uint32_t width, double v)
{
    if (b->scalar != QN_SPV_FLOAT) {
        int64_t n = (int64_t)v;
        memcpy(to, &n, width); // little-endian, as Vulkan is
    } else if (width == 8) {
        memcpy(to, &v, 8);
    } else if (width == 4) {
        float f = (float)v;
        memcpy(to, &f, 4);
    } else if (width == 2) {
        uint16_t h = qn_f16_from_f32((float)v);
        memcpy(to, &h, 2);
    }
}

static void fill(const qn_spv_binding *b, const qn_shader_buffer *o, uint64_t seed,
                 unsigned char *data)
{
    const uint32_t width = b->width ? b->width / 8 : 4;
    qn_random random = qn_random_start(seed, (uint64_t)b->set << 32 | b->binding);
    for (uint64_t i = 0; (i + 1) * width <= o->size; i++) {
        double v = 0;
        if (o->fill == QN_FILL_ONE) v = 1;
        if (o->fill == QN_FILL_INDEX) v = (double)i;
        if (o->fill == QN_FILL_RANDOM)
            v = b->scalar == QN_SPV_FLOAT ? 2 * qn_random_unit(&random) - 1
                                          : (double)qn_random_below(&random, 100);
        put(b, data + i * width, width, v);
    }
}

static qn_result read_exactly(const char *path, uint64_t size, char **data)
{
    size_t found;
    QN_TRY(qn_read_file(path, size + 1, data, &found));
    if (found == size) return QN_OK;
    qn_free(*data);
    *data = NULL;
    return qn_fail(QN_ERR_FORMAT, "%s has %zu bytes, the buffer %llu", path, found,
                   (unsigned long long)size);
}

static qn_result fill_buffer(const qn_shader_job *job, uint32_t i, qn_buffer *to)
{
    const qn_shader_buffer *o = &job->buffers[i];
    char *data = NULL;
    qn_result r = QN_OK;
    if (o->fill == QN_FILL_ZERO) return QN_OK; // new buffers hold zeros
    if (o->fill == QN_FILL_FILE)
        r = read_exactly(o->file, o->size, &data);
    else if (!(data = qn_calloc(o->size, 1)))
        r = qn_no_memory(o->size);
    else
        fill(&job->shader->bindings[i], o, job->seed, (unsigned char *)data);
    if (r == QN_OK) r = qn_buffer_write(to, 0, data, o->size);
    qn_free(data);
    return r;
}

// ------------------------------------------------------------------------------------ results

static double float_of(const char *at, uint32_t width)
{
    float f;
    double d;
    uint16_t h;
    if (width == 8) {
        memcpy(&d, at, 8);
        return d;
    }
    if (width == 4) {
        memcpy(&f, at, 4);
        return f;
    }
    memcpy(&h, at, 2);
    double m = h & 0x3ff;
    int e = h >> 10 & 31;
    d = e == 31 ? (m > 0 ? NAN : INFINITY) : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -d : d;
}

static bool near(double a, double b, double tolerance)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (a == b) return true;
    return fabs(a - b) <= tolerance * fmax(1, fmax(fabs(a), fabs(b)));
}

static qn_result compare(const qn_shader_job *job, uint32_t i, const char *got)
{
    const qn_spv_binding *b = &job->shader->bindings[i];
    const qn_shader_buffer *o = &job->buffers[i];
    const uint32_t width = b->width ? b->width / 8 : 4;
    char *expected;
    QN_TRY(read_exactly(o->expect, o->size, &expected));
    qn_result r = QN_OK;
    for (uint64_t at = 0; r == QN_OK && at + width <= o->size; at += width) {
        const char *x = got + at, *y = expected + at;
        if (!memcmp(x, y, width)) continue;
        if (b->scalar == QN_SPV_FLOAT) {
            double u = float_of(x, width), v = float_of(y, width);
            if (near(u, v, job->tolerance)) continue;
            r = qn_fail(QN_ERR_INVALID, "wrong: element %llu of binding %u is %.9g, expected %.9g",
                        (unsigned long long)(at / width), b->binding, u, v);
        } else {
            r = qn_fail(QN_ERR_INVALID, "wrong: element %llu of binding %u is not as in %s",
                        (unsigned long long)(at / width), b->binding, o->expect);
        }
    }
    qn_free(expected);
    return r;
}

static qn_result take_results(const qn_shader_job *job, qn_buffer *const *buffers)
{
    for (uint32_t i = 0; i < job->shader->binding_count; i++) {
        const qn_shader_buffer *o = &job->buffers[i];
        if (!o->expect && !o->output) continue;
        char *data = qn_malloc(o->size);
        if (!data) return qn_no_memory(o->size);
        qn_result r = qn_buffer_read(buffers[i], 0, data, o->size);
        if (r == QN_OK && o->output) r = qn_write_file(o->output, data, o->size);
        if (r == QN_OK && o->expect) r = compare(job, i, data);
        qn_free(data);
        QN_TRY(r);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ running

typedef struct running {
    qn_buffer *buffers[QN_SPV_BINDINGS];
    qn_program *program;
    qn_recorded work;
} running;

static qn_result open_program(qn_device *dev, const qn_shader_job *job, running *run)
{
    const qn_spv_shader *s = job->shader;
    qn_program_binding bindings[QN_SPV_BINDINGS];
    qn_program_constant constants[QN_SPV_CONSTANTS];
    for (uint32_t i = 0; i < s->binding_count; i++) {
        char name[64];
        snprintf(name, sizeof name, "binding %u of set %u", s->bindings[i].binding,
                 s->bindings[i].set);
        qn_buffer_opts opts = { .size = job->buffers[i].size, .name = name };
        QN_TRY(qn_context_add(qn_buffer_create(dev, &opts, &run->buffers[i]), "%s", name));
        QN_TRY(qn_context_add(fill_buffer(job, i, run->buffers[i]), "%s", name));
        bindings[i] = (qn_program_binding){
            .set = s->bindings[i].set,
            .binding = s->bindings[i].binding,
            .uniform = !s->bindings[i].storage,
            .range = { .buffer = run->buffers[i], .size = job->buffers[i].size },
        };
    }
    size_t given = 0; // the others keep what the module says
    for (uint32_t i = 0; i < s->constant_count; i++)
        if (job->given[i])
            constants[given++] = (qn_program_constant){ s->constants[i].id, job->constants[i] };
    const qn_program_opts opts = {
        .words = job->words,
        .size = job->word_count * 4,
        .entry = s->entry,
        .bindings = bindings,
        .binding_count = s->binding_count,
        .constants = constants,
        .constant_count = given,
        .push_size = (uint32_t)s->push_size,
    };
    return qn_program_create(dev, &opts, &run->program);
}

static qn_result run_all(qn_device *dev, const qn_shader_job *job, running *run, qn_times *times)
{
    QN_TRY(open_program(dev, job, run));
    QN_TRY(qn_recorded_open(dev, true, &run->work));
    run->work.timeout_ns = (uint64_t)(1e9 * job->limit);
    QN_TRY(qn_stream_program(run->work.stream, run->program, job->push, job->groups));
    double first;
    qn_result r = qn_recorded_run(&run->work, &first);
    if (r == QN_ERR_DEVICE_LOST)
        return qn_fail(r,
                       "one run did not end within %g s: an endless loop, too much work for one "
                       "dispatch, or a lost device",
                       job->limit);
    QN_TRY(r);
    QN_TRY(take_results(job, run->buffers));
    qn_measure_opts m = job->measure;
    if (first > 1) m.least = 3;
    return qn_measure(&m, qn_recorded_run, &run->work, times);
}

static double bytes_of(const qn_shader_job *job)
{
    double bytes = 0;
    for (uint32_t i = 0; i < job->shader->binding_count; i++) {
        const qn_spv_binding *b = &job->shader->bindings[i];
        bytes += (double)job->buffers[i].size * ((b->reads ? 1 : 0) + (b->writes ? 1 : 0));
    }
    return bytes;
}

qn_result qn_shader_run(qn_device *dev, const qn_shader_job *job, qn_bench_log *log)
{
    char variant[96], shape[96];
    snprintf(variant, sizeof variant, "groups of %ux%ux%u", job->local[0], job->local[1],
             job->local[2]);
    snprintf(shape, sizeof shape, "%ux%ux%u groups", job->groups[0], job->groups[1],
             job->groups[2]);
    qn_bench_record record = qn_bench_record_start("shader", job->name, variant, shape);
    running run = { 0 };
    qn_times times;
    qn_result r = run_all(dev, job, &run, &times);
    if (r == QN_OK)
        qn_bench_judge(&record, &times, job->flops, job->bytes > 0 ? job->bytes : bytes_of(job),
                       job->peaks);
    if (r == QN_OK && !record.note[0] && !(job->flops > 0))
        snprintf(record.note, sizeof record.note, "arithmetic not counted: --flops");
    const qn_result excused = qn_bench_excuse(&record, r);
    const qn_result added = qn_bench_log_add(log, &record);
    if (r == QN_ERR_DEVICE_LOST) return r; // closing would wait for it
    qn_stream_destroy(&run.work.stream);
    qn_program_destroy(&run.program);
    for (uint32_t i = 0; i < QN_SPV_BINDINGS; i++) qn_buffer_destroy(&run.buffers[i]);
    return excused != QN_OK ? excused : added;
}
