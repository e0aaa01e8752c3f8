// `quoin bench shader FILE...`: options to a job, each file in a process of its own.
#include "bench/bench_command.h"
#include "bench/child.h"
#include "bench/shader.h"
#include "nearest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------ settings

// "KEY=VALUE" apart; the key is copied.
static qn_result split(const char *option, const char *item, char key[64], const char **value)
{
    const char *equals = strchr(item, '=');
    char quoted[QN_QUOTED];
    if (!equals || equals == item || (size_t)(equals - item) >= 64 || !equals[1])
        return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected WHICH=VALUE", option,
                       qn_quote(item, quoted));
    snprintf(key, 64, "%.*s", (int)(equals - item), item);
    *value = equals + 1;
    return QN_OK;
}

// "1", "0.1" (set and binding) or a name.
static qn_result find_binding(const qn_spv_shader *s, const char *option, const char *key,
                              uint32_t *out)
{
    unsigned set = 0, binding = 0;
    int end = 0;
    bool numbers = sscanf(key, "%u.%u%n", &set, &binding, &end) == 2 && !key[end];
    if (!numbers) {
        set = 0;
        numbers = sscanf(key, "%u%n", &binding, &end) == 1 && !key[end];
    }
    qn_nearest near = { .word = key };
    for (uint32_t i = 0; i < s->binding_count; i++) {
        const qn_spv_binding *b = &s->bindings[i];
        *out = i;
        if (numbers ? b->set == set && b->binding == binding : !strcmp(b->name, key)) return QN_OK;
        if (b->name[0]) qn_nearest_offer(&near, b->name);
    }
    char quoted[QN_QUOTED];
    return qn_fail(QN_ERR_INVALID, "--%s: the shader has no binding %s%s%s%s", option,
                   qn_quote(key, quoted), near.best ? "; did you mean '" : "",
                   near.best ? near.best : "", near.best ? "'?" : "");
}

// A number as the bits of a scalar of `width` bits.
static qn_result number_bits(const char *option, const char *text, qn_spv_scalar scalar,
                             uint32_t width, uint64_t *bits)
{
    char *end, quoted[QN_QUOTED];
    errno = 0;
    if (scalar == QN_SPV_FLOAT) {
        double v = strtod(text, &end);
        float f = (float)v;
        *bits = 0;
        if (width == 64) memcpy(bits, &v, 8);
        if (width == 32) memcpy(bits, &f, 4);
        if (*end || end == text || (width != 32 && width != 64))
            return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected a number", option,
                           qn_quote(text, quoted));
        return QN_OK;
    }
    if (scalar == QN_SPV_BOOL && (!strcmp(text, "true") || !strcmp(text, "false"))) {
        *bits = !strcmp(text, "true");
        return QN_OK;
    }
    bool minus = text[0] == '-';
    *bits = minus ? (uint64_t)strtoll(text, &end, 0) : strtoull(text, &end, 0);
    const uint64_t most = width >= 64 ? UINT64_MAX : (UINT64_C(1) << width) - 1;
    bool fits =
        minus ? scalar == QN_SPV_INT && (width >= 64 || *bits >= ~(most >> 1)) : *bits <= most;
    if (*end || end == text || errno || !fits)
        return qn_fail(QN_ERR_INVALID, "--%s: found %s, expected a whole number of %u bits", option,
                       qn_quote(text, quoted), width);
    return QN_OK;
}

static qn_result set_constants(const qn_bench_opts *o, qn_shader_job *job)
{
    const qn_spv_shader *s = job->shader;
    for (uint32_t i = 0; i < s->constant_count; i++) job->constants[i] = s->constants[i].value;
    for (size_t k = 0; k < o->constants.count; k++) {
        char key[64], *end, quoted[QN_QUOTED];
        const char *value;
        QN_TRY(split("constant", o->constants.items[k], key, &value));
        unsigned long id = strtoul(key, &end, 10);
        uint32_t i = 0;
        while (i < s->constant_count &&
               (*end ? strcmp(s->constants[i].name, key) != 0 : s->constants[i].id != id))
            i++;
        if (i == s->constant_count)
            return qn_fail(QN_ERR_INVALID, "--constant: the shader has no constant %s",
                           qn_quote(key, quoted));
        if (s->constants[i].width != 32)
            return qn_fail(QN_ERR_UNSUPPORTED, "--constant: %s has %u bits, 32 were expected", key,
                           s->constants[i].width);
        uint64_t bits;
        QN_TRY(number_bits("constant", value, s->constants[i].scalar, 32, &bits));
        job->constants[i] = (uint32_t)bits;
        job->given[i] = true;
    }
    for (int d = 0; d < 3; d++) {
        job->local[d] = s->local[d];
        for (uint32_t i = 0; i < s->constant_count; i++)
            if (s->constants[i].id == s->local_constant[d] && job->given[i])
                job->local[d] = job->constants[i];
    }
    return QN_OK;
}

static qn_result set_push(const qn_bench_opts *o, qn_shader_job *job)
{
    const qn_spv_shader *s = job->shader;
    if (s->push_size > QN_SHADER_ARGS)
        return qn_fail(QN_ERR_UNSUPPORTED, "%llu bytes of push constants, at most %d can be given",
                       (unsigned long long)s->push_size, QN_SHADER_ARGS);
    for (size_t k = 0; k < o->push.count; k++) {
        char key[64], quoted[QN_QUOTED];
        const char *value;
        QN_TRY(split("push", o->push.items[k], key, &value));
        uint32_t i = 0;
        qn_nearest near = { .word = key };
        for (; i < s->member_count && strcmp(s->members[i].name, key) != 0; i++)
            if (s->members[i].name[0]) qn_nearest_offer(&near, s->members[i].name);
        if (i == s->member_count)
            return qn_fail(QN_ERR_INVALID, "--push: the shader has no push constant %s%s%s%s",
                           qn_quote(key, quoted), near.best ? "; did you mean '" : "",
                           near.best ? near.best : "", near.best ? "'?" : "");
        const qn_spv_member *m = &s->members[i];
        uint64_t bits;
        if (m->scalar == QN_SPV_NONE || m->size * 8 != m->width || m->width % 8 ||
            m->offset + m->size > s->push_size)
            return qn_fail(QN_ERR_UNSUPPORTED, "--push: %s is no single number", key);
        QN_TRY(number_bits("push", value, m->scalar, m->width, &bits));
        memcpy(job->push + m->offset, &bits, m->size);
    }
    return QN_OK;
}

// ------------------------------------------------------------------------------------ buffers

static qn_result check_bindings(const qn_shader_job *job)
{
    const qn_spv_shader *s = job->shader;
    for (uint32_t i = 0; i < s->binding_count; i++) {
        const qn_spv_binding *b = &s->bindings[i];
        if (b->other)
            return qn_fail(QN_ERR_UNSUPPORTED,
                           "%s: binding %u of set %u (%s) is %s; only storage and uniform buffers "
                           "can be filled",
                           job->name, b->binding, b->set, b->name, b->other);
        if (b->count != 1)
            return qn_fail(QN_ERR_UNSUPPORTED,
                           "%s: binding %u of set %u (%s) is an array of buffers, which cannot be "
                           "filled",
                           job->name, b->binding, b->set, b->name);
        for (uint32_t k = 0; k < i; k++)
            if (s->bindings[k].set == b->set && s->bindings[k].binding == b->binding &&
                s->bindings[k].storage != b->storage)
                return qn_fail(QN_ERR_UNSUPPORTED, "%s: binding %u of set %u is two things",
                               job->name, b->binding, b->set);
    }
    return QN_OK;
}

static qn_result set_sizes(const qn_bench_opts *o, qn_shader_job *job)
{
    const qn_spv_shader *s = job->shader;
    for (uint32_t i = 0; i < s->binding_count; i++) {
        const qn_spv_binding *b = &s->bindings[i];
        uint64_t array;
        if (!qn_mul_u64(b->stride, (uint64_t)o->elements, &array) ||
            !qn_add_u64(b->fixed, array, &job->buffers[i].size))
            return qn_fail(QN_ERR_INVALID, "binding %u: its size does not fit", b->binding);
        if (!job->buffers[i].size) job->buffers[i].size = 256; // an empty block
    }
    for (size_t k = 0; k < o->sizes.count; k++) {
        char key[64], quoted[QN_QUOTED];
        const char *value;
        uint32_t i;
        QN_TRY(split("size", o->sizes.items[k], key, &value));
        QN_TRY(find_binding(s, "size", key, &i));
        if (!qn_parse_size(value, &job->buffers[i].size) || !job->buffers[i].size)
            return qn_fail(QN_ERR_INVALID, "--size: found %s, expected bytes as in 4096, 16M",
                           qn_quote(value, quoted));
    }
    return QN_OK;
}

static qn_result set_fills(const qn_bench_opts *o, qn_shader_job *job)
{
    static const char words[] = "random|zero|one|index";
    for (size_t k = 0; k < o->fills.count; k++) {
        char key[64], quoted[QN_QUOTED];
        const char *value;
        uint32_t i;
        QN_TRY(split("fill", o->fills.items[k], key, &value));
        QN_TRY(find_binding(job->shader, "fill", key, &i));
        if (value[0] == '@') {
            job->buffers[i].fill = QN_FILL_FILE;
            job->buffers[i].file = value + 1;
            continue;
        }
        int word = qn_words_find(words, value);
        if (word < 0)
            return qn_fail(QN_ERR_INVALID,
                           "--fill: found %s, expected random, zero, one, index or @FILE",
                           qn_quote(value, quoted));
        job->buffers[i].fill = (qn_shader_fill)word;
    }
    return QN_OK;
}

static qn_result set_files(const char *option, const qn_opt_list *list, qn_shader_job *job)
{
    for (size_t k = 0; k < list->count; k++) {
        char key[64];
        const char *value;
        uint32_t i;
        QN_TRY(split(option, list->items[k], key, &value));
        QN_TRY(find_binding(job->shader, option, key, &i));
        if (!strcmp(option, "expect"))
            job->buffers[i].expect = value;
        else
            job->buffers[i].output = value;
    }
    return QN_OK;
}

// As asked for; else as many groups along x as give an invocation for each element.
static qn_result set_groups(const qn_bench_opts *o, const qn_device_info *dev, qn_shader_job *job)
{
    if (o->groups.count > 3)
        return qn_fail(QN_ERR_INVALID, "--groups: found %zu numbers, expected X,Y,Z",
                       o->groups.count);
    for (size_t i = 0; i < 3; i++) {
        uint64_t bits = 1;
        if (i < o->groups.count)
            QN_TRY(number_bits("groups", o->groups.items[i], QN_SPV_UINT, 32, &bits));
        job->groups[i] = (uint32_t)bits;
    }
    uint64_t inside = (uint64_t)job->local[0] * job->local[1] * job->local[2];
    if (!inside || inside > dev->max_invocations)
        return qn_fail(QN_ERR_UNSUPPORTED, "%s: groups of %ux%ux%u invocations, but %s allows %u",
                       job->name, job->local[0], job->local[1], job->local[2], dev->name,
                       dev->max_invocations);
    if (o->groups.count) return QN_OK;
    uint64_t groups = ((uint64_t)o->elements + inside - 1) / inside;
    if (groups > dev->max_groups)
        return qn_fail(
            QN_ERR_INVALID,
            "%s: %llu groups along x would be needed, but %s allows %u: give --groups, a "
            "larger workgroup, or fewer --elements",
            job->name, (unsigned long long)groups, dev->name, dev->max_groups);
    job->groups[0] = (uint32_t)groups;
    return QN_OK;
}

static qn_result make_job(const qn_bench_run *run, const qn_device_info *dev, qn_shader_job *job)
{
    const qn_bench_opts *o = run->o;
    QN_TRY(qn_shader_check(job->name, job->shader, dev));
    QN_TRY(check_bindings(job));
    QN_TRY(set_constants(o, job));
    QN_TRY(set_push(o, job));
    QN_TRY(set_sizes(o, job));
    QN_TRY(set_fills(o, job));
    QN_TRY(set_files("expect", &o->expect, job));
    QN_TRY(set_files("output", &o->outputs, job));
    QN_TRY(set_groups(o, dev, job));
    job->flops = o->flops;
    job->bytes = o->bytes;
    job->tolerance = o->tolerance;
    job->limit = o->limit;
    job->seed = (uint64_t)run->cli->seed;
    job->measure = (qn_measure_opts){ .seconds = o->seconds };
    return QN_OK;
}

// ------------------------------------------------------------------------------------ telling

static const char *scalar_name(qn_spv_scalar s)
{
    static const char *const names[] = { "mixed", "bool", "int", "uint", "float" };
    return names[s];
}

static void tell(const qn_cli *cli, const qn_shader_job *job)
{
    const qn_spv_shader *s = job->shader;
    qn_cli_note(cli, "%s: entry %s, groups of %ux%ux%u", job->name, s->entry, job->local[0],
                job->local[1], job->local[2]);
    for (uint32_t i = 0; i < s->binding_count; i++) {
        const qn_spv_binding *b = &s->bindings[i];
        char size[24];
        qn_cli_note(cli, "  binding %u.%u %s: %s buffer, %s%s%s, %s%u, %s", b->set, b->binding,
                    b->name, b->storage ? "storage" : "uniform", b->reads ? "read" : "",
                    b->reads && b->writes ? " and " : "", b->writes ? "written" : "",
                    scalar_name(b->scalar), b->width,
                    qn_format_size(job->buffers[i].size, size, sizeof size));
    }
    for (uint32_t i = 0; i < s->member_count; i++) {
        const qn_spv_member *m = &s->members[i];
        qn_cli_note(cli, "  push constant %s: %s%u at byte %u", m->name, scalar_name(m->scalar),
                    m->width, m->offset);
    }
    for (uint32_t i = 0; i < s->constant_count; i++)
        qn_cli_note(cli, "  constant %u %s: %s, bits %#x", s->constants[i].id, s->constants[i].name,
                    scalar_name(s->constants[i].scalar), job->constants[i]);
    if (s->push_size && !qn_opts_given(cli->parsed, "push"))
        qn_cli_note(cli, "  push constants are zero: set them with --push NAME=VALUE");
}

// ------------------------------------------------------------------------------------ the child

// One file's work.
typedef struct work {
    qn_bench_run *run;
    const char *path, *name;
    int out;           // in the child
    char message[512]; // in the parent: why there is no record
    bool unsupported;
} work;

static void send_record(void *user, const qn_bench_record *r)
{
    work *w = user;
    char *line;
    if (qn_bench_json_line(&w->run->log, r, &line) != QN_OK) return;
    dprintf(w->out, "%s\n", line);
    qn_free(line);
}

static qn_result measure_file(work *w, const qn_spv_shader *s, const uint32_t *words, size_t count)
{
    qn_bench_run *run = w->run;
    qn_shader_job job = { .name = w->name, .words = words, .word_count = count, .shader = s };
    QN_TRY(make_job(run, qn_device_describe(run->dev), &job));
    tell(run->cli, &job);
    QN_TRY(qn_peaks_measure(run->dev, &(qn_measure_opts){ .seconds = 0.1 }, NULL, &run->peaks));
    job.peaks = &run->peaks;
    return qn_shader_run(run->dev, &job, &run->log);
}

static qn_result work_on(work *w)
{
    qn_bench_run *run = w->run;
    const char **defines = qn_calloc(run->o->defines.count + 1, sizeof *defines);
    if (!defines) return qn_no_memory(sizeof *defines);
    for (size_t i = 0; i < run->o->defines.count; i++) defines[i] = run->o->defines.items[i];
    uint32_t *words = NULL;
    size_t count = 0;
    qn_spv_shader *s = qn_calloc(1, sizeof *s);
    qn_result r = s ? qn_shader_load(w->path, defines, &words, &count) : qn_no_memory(sizeof *s);
    if (r == QN_OK) r = qn_spv_read(w->path, words, count, s);
    if (r == QN_OK) r = qn_cli_open(run->cli, &run->ctx, &run->dev);
    if (r == QN_OK) qn_bench_log_start(&run->log, qn_device_describe(run->dev));
    if (r == QN_OK) r = measure_file(w, s, words, count);
    // A lost or busy device is not waited for: the process ends here.
    if (r != QN_ERR_DEVICE_LOST) {
        qn_device_destroy(&run->dev);
        qn_context_destroy(&run->ctx);
    }
    qn_free(s);
    qn_free(words);
    qn_free(defines);
    return r;
}

static int child(void *user, int out)
{
    work *w = user;
    w->out = out;
    w->run->log = (qn_bench_log){ .done = send_record, .user = w };
    qn_result r = work_on(w);
    if (r == QN_OK || w->run->log.count) return 0; // the record tells
    int status = qn_cli_result(r);
    char message[512]; // on one line; a compiler's has several
    snprintf(message, sizeof message, "%.500s", qn_error_message());
    for (char *c = message; *c; c++)
        if (*c == '\n') *c = ';';
    dprintf(out, "%c%s\n", r == QN_ERR_UNSUPPORTED ? '-' : '!', message);
    return status;
}

// ------------------------------------------------------------------------------------ the parent

static void receive(void *user, const char *line)
{
    work *w = user;
    w->unsupported = line[0] == '-';
    if (line[0] == '!' || line[0] == '-')
        snprintf(w->message, sizeof w->message, "%.500s", line + 1);
    else if (qn_bench_read_line(&w->run->log, w->name, line, strlen(line)) != QN_OK)
        snprintf(w->message, sizeof w->message, "%.500s", qn_error_message());
}

static qn_result add_fault(work *w, qn_child_end end, int code)
{
    qn_bench_record r = qn_bench_record_start("shader", w->name, "", "");
    r.status = w->unsupported ? QN_BENCH_UNSUPPORTED : QN_BENCH_FAILED;
    if (end == QN_CHILD_LIMIT)
        snprintf(r.note, sizeof r.note,
                 "the driver did not answer within the time limit: its process was ended");
    else if (end == QN_CHILD_SIGNAL)
        snprintf(r.note, sizeof r.note, "the process that ran it crashed (signal %d)", code);
    else
        snprintf(r.note, sizeof r.note, "%.250s", w->message[0] ? w->message : "no result");
    return qn_bench_log_add(&w->run->log, &r);
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static qn_result measure_shaders(qn_bench_run *run)
{
    const qn_bench_opts *o = run->o;
    for (size_t i = 0; i < run->cli->arg_count; i++) {
        work w = { .run = run, .path = run->cli->args[i], .name = file_name(run->cli->args[i]) };
        // Compiling and the warm-up may each take the limit; the measurements their own time.
        const qn_child c = { .work = child,
                             .line = receive,
                             .go_on = qn_bench_go_on,
                             .user = &w,
                             .limit = 3 * o->limit + 2 * o->seconds + 20 };
        const size_t before = run->log.count;
        qn_child_end end;
        int code;
        QN_TRY(qn_child_run(&c, &end, &code));
        if (end == QN_CHILD_STOPPED) return qn_fail(QN_ERR_CANCELLED, "interrupted");
        if (code == QN_EXIT_NO_DEVICE && end == QN_CHILD_EXITED)
            return qn_fail(QN_ERR_NO_DEVICE, "%s", w.message);
        if (run->log.count == before) QN_TRY(add_fault(&w, end, code));
    }
    return QN_OK;
}

static int run_shader(const qn_cli *cli, const void *opts)
{
    return qn_bench_do(cli, opts,
                       &(qn_bench_part){ .no_device = true, .measure = measure_shaders });
}

static const qn_opt options[] = {
    QN_BENCH_MEASURING,
    { "groups", 0, QN_AT_LIST(qn_bench_opts, groups), .value = "X,Y,Z", .section = "Shader",
      .help = "groups to dispatch (default: an invocation for each element)" },
    { "elements", 0, QN_AT_INT(qn_bench_opts, elements), .initial = "1048576", .min = 1,
      .max = 1e12, .help = "elements of arrays without a length" },
    { "size", 0, QN_AT_LIST(qn_bench_opts, sizes), .value = "BINDING=BYTES",
      .help = "bytes of a buffer; bindings by name, number, or set.number" },
    { "fill", 0, QN_AT_LIST(qn_bench_opts, fills), .value = "BINDING=WHAT",
      .help = "random (default), zero, one, index or @FILE" },
    { "constant", 0, QN_AT_LIST(qn_bench_opts, constants), .value = "ID=VALUE",
      .help = "a specialisation constant, by constant_id or name" },
    { "push", 0, QN_AT_LIST(qn_bench_opts, push), .value = "NAME=VALUE",
      .help = "a push constant (default: zero)" },
    { "define", 'D', QN_AT_LIST(qn_bench_opts, defines), .value = "NAME[=VALUE]",
      .help = "a macro for GLSL" },
    { "expect", 0, QN_AT_LIST(qn_bench_opts, expect), .value = "BINDING=FILE",
      .help = "what a buffer must hold after one run" },
    { "tolerance", 0, QN_AT_FLOAT(qn_bench_opts, tolerance), .initial = "1e-5", .min = 0, .max = 1,
      .help = "of expected floats: relative to the larger, or to 1" },
    { "output", 0, QN_AT_LIST(qn_bench_opts, outputs), .value = "BINDING=FILE",
      .help = "write what a buffer holds after one run" },
    { "flops", 0, QN_AT_FLOAT(qn_bench_opts, flops), .min = 0, .max = INFINITY,
      .help = "arithmetic operations of a run, for its place under the roofline" },
    { "bytes", 0, QN_AT_FLOAT(qn_bench_opts, bytes), .min = 0, .max = INFINITY,
      .help = "bytes a run moves (default: every buffer once, as it is declared)" },
    { "limit", 0, QN_AT_FLOAT(qn_bench_opts, limit), .initial = "10", .min = 0.01, .max = 86400,
      .help = "seconds that one run may take" },
    { 0 },
};

const qn_command qn_command_bench_shader = {
    .args = "FILE...",
    .args_min = 1,
    .args_max = -1,
    .about = "Runs compute shaders of your own, each in a process of its own: says what they bind, "
             "fills the buffers, compares what was expected, measures, and tells how near a "
             "ceiling they come. One that does not end within --limit, crashes the driver or loses "
             "the device is reported, and the other results are kept.",
    .examples = "quoin bench shader axpy.comp --push n=1048576,a=2 --flops 2097152\n"
                "quoin bench shader a.comp b.spv --elements 65536 --fill keys=index\n"
                "quoin bench shader scan.comp --groups 512,1,1 --expect sums=expected.bin",
    .options = options,
    .opts_size = sizeof(qn_bench_opts),
    .run = run_shader,
};
