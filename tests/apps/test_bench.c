// `quoin bench`: figures from times, records to files and back, and what the program says.
#include "bench/compare.h"
#include "bench/measure.h"
#include "bench/spirv.h"
#include "cli/command.h"
#include "io/json.h"
#include "io/tuning.h"
#include "scratch.h"

#include <fcntl.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------ figures

static void test_times(void **state)
{
    (void)state;
    double one[] = { 3 };
    qn_times t = qn_times_of(one, 1);
    assert_true(t.median == 3 && t.p10 == 3 && t.p90 == 3 && t.runs == 1);
    double many[] = { 5, 1, 4, 2, 3, 11, 6, 10, 8, 7, 9 };
    t = qn_times_of(many, 11);
    assert_true(t.median == 6 && t.p10 == 2 && t.p90 == 10 && t.runs == 11);
    double two[] = { 4, 2 };
    assert_true(qn_times_of(two, 2).median == 3);
}

typedef struct counter {
    int calls, fail_at;
} counter;

static qn_result once(void *user, double *seconds)
{
    counter *c = user;
    if (++c->calls == c->fail_at) return qn_fail(QN_ERR_DEVICE_LOST, "gone");
    seconds[0] = c->calls == 1 ? 100 : 2; // the first compiles and does not count
    seconds[1] = 7;
    return QN_OK;
}

static void test_measuring(void **state)
{
    (void)state;
    counter c = { 0 };
    qn_times t[2];
    qn_measure_opts opts = { .seconds = 1e-9, .least = 6 };
    assert_ok(qn_measure_parts(&opts, once, &c, 2, t));
    assert_int_equal(c.calls, 7);
    assert_true(t[0].median == 2 && t[0].p90 == 2 && t[1].median == 7);
    opts = (qn_measure_opts){ .seconds = 60, .most = 9 };
    c = (counter){ 0 };
    assert_ok(qn_measure_parts(&opts, once, &c, 2, t));
    assert_int_equal(t[0].runs, 9);
    for (int at = 1; at < 4; at++) {
        c = (counter){ .fail_at = at };
        assert_int_equal(qn_measure_parts(&opts, once, &c, 2, t), QN_ERR_DEVICE_LOST);
    }
}

static const qn_peaks peaks = {
    .types = { [QN_PEAK_F32] = { 1e9 } },
    .copies = { { 1e6, 8e9 }, { 1e7, 2e9 }, { 1e8, 1e9 } },
};

static void test_ceilings(void **state)
{
    (void)state;
    assert_true(qn_peak_memory(&peaks, 10) == 8e9);
    assert_true(qn_peak_memory(&peaks, 1e6) == 8e9);
    assert_true(qn_peak_memory(&peaks, 2e6) == 2e9);
    assert_true(qn_peak_memory(&peaks, 1e9) == 1e9); // beyond the largest copy
    const qn_peaks none = { 0 };
    assert_true(qn_peak_memory(&none, 1e6) == 0);

    qn_times t = { .median = 0.5, .p10 = 0.4, .p90 = 0.6, .runs = 9 };
    qn_bench_record r = qn_bench_record_start("ops", "a", "b", "c");
    qn_bench_judge(&r, &t, 1e8, 1e6, &peaks); // 0.1 s of arithmetic, 0.000125 s of memory
    assert_true(fabs(r.fraction_of_peak - 0.2) < 1e-12 && fabs(r.gflops - 0.2) < 1e-12);
    assert_string_equal(r.bound, "arithmetic");
    assert_int_equal(r.status, QN_BENCH_OK);
    r = qn_bench_record_start("ops", "a", "b", "c");
    qn_bench_judge(&r, &t, 1e6, 1e8, &peaks);
    assert_string_equal(r.bound, "memory");
    assert_true(fabs(r.fraction_of_peak - 0.2) < 1e-12);
    // More than the device can do is said, not believed.
    r = qn_bench_record_start("ops", "a", "b", "c");
    qn_bench_judge(&r, &t, 1e9, 0, &peaks);
    assert_int_equal(r.status, QN_BENCH_FLAGGED);
    // What was not counted has no rate; nothing takes no time.
    r = qn_bench_record_start("ops", "a", "b", "c");
    qn_bench_judge(&r, &t, 0, 0, &peaks);
    assert_true(isnan(r.gflops) && isnan(r.gbytes_per_s) && isnan(r.fraction_of_peak));
    t.median = 0;
    qn_bench_judge(&r, &t, 1, 1, &peaks);
    assert_int_equal(r.status, QN_BENCH_FLAGGED);
    assert_true(isnan(r.gflops));
}

static void test_excuses(void **state)
{
    (void)state;
    qn_bench_record r = qn_bench_record_start("ops", "a", "b", "c");
    assert_ok(qn_bench_excuse(&r, qn_fail(QN_ERR_UNSUPPORTED, "lacks it")));
    assert_int_equal(r.status, QN_BENCH_UNSUPPORTED);
    assert_string_equal(r.note, "lacks it");
    assert_ok(qn_bench_excuse(&r, qn_fail(QN_ERR_INVALID, "wrong")));
    assert_int_equal(r.status, QN_BENCH_FAILED);
    assert_int_equal(qn_bench_excuse(&r, qn_fail(QN_ERR_DEVICE_LOST, "gone")), QN_ERR_DEVICE_LOST);
}

// ------------------------------------------------------------------------------------ files

static qn_result save_and_load(void *state)
{
    qn_bench_log *log = state, back = { 0 };
    QN_TRY(qn_bench_save(log, scratch("log.jsonl")));
    qn_result r = qn_bench_load(scratch("log.jsonl"), &back);
    if (r != QN_OK) return r;
    assert_int_equal(back.count, log->count);
    assert_string_equal(back.device, log->device);
    for (size_t i = 0; i < back.count; i++) {
        const qn_bench_record *a = &log->records[i], *b = &back.records[i];
        assert_string_equal(a->bench, b->bench);
        assert_string_equal(a->variant, b->variant);
        assert_string_equal(a->form, b->form);
        assert_int_equal(a->status, b->status);
        assert_true(a->seconds_p90 == b->seconds_p90 || isnan(b->seconds_p90));
        assert_true(isnan(a->gflops) == isnan(b->gflops));
    }
    qn_bench_log_free(&back);
    return QN_OK;
}

static void test_files(void **state)
{
    (void)state;
    qn_bench_log log = { .device = "a \"device\"", .driver = "d", .commit = "c", .form = "flat" };
    qn_bench_record r = qn_bench_record_start("ops", "matmul", "forward", "[3,4]");
    qn_bench_judge(&r, &(qn_times){ .median = 0.1, .p10 = 0.09, .p90 = 0.3, .runs = 12 }, 1e7, 1e6,
                   &peaks);
    assert_ok(qn_bench_log_add(&log, &r));
    r = qn_bench_record_start("peak", "i8", "", "");
    r.status = QN_BENCH_UNSUPPORTED;
    assert_ok(qn_bench_log_add(&log, &r));
    fail_each_allocation(save_and_load, &log);
    qn_bench_log_free(&log);
}

#define LINE                                                                                       \
    "{\"bench\":\"ops\",\"name\":\"a\",\"variant\":\"v\",\"shape\":\"s\",\"form\":\"flat\","       \
    "\"bound\":\"\",\"note\":\"\",\"status\":\"%s\",\"seconds_median\":%s,\"device\":\"%s\","      \
    "\"driver\":\"d\",\"commit\":\"c\"}\n"

static void refuse(const char *text, const char *message)
{
    qn_bench_log log;
    scratch_write_text("bad.jsonl", text);
    qn_result r = qn_bench_load(scratch("bad.jsonl"), &log);
    assert_int_equal(r, QN_ERR_FORMAT);
    if (!strstr(qn_error_message(), message)) fail_msg("%s", qn_error_message());
    assert_int_equal(log.count, 0);
}

static void test_bad_files(void **state)
{
    (void)state;
    char text[2048];
    refuse("", "no record");
    refuse("\n\n", "no record");
    refuse("{\"bench\":1}\n", "record 1");
    refuse("[]\n", "expected an object");
    refuse("{\n", "record 1");
    snprintf(text, sizeof text, LINE, "odd", "1", "d");
    refuse(text, "status");
    snprintf(text, sizeof text, LINE, "ok", "-1", "d");
    refuse(text, "seconds_median");
    snprintf(text, sizeof text, LINE LINE, "ok", "1", "d", "ok", "1", "e");
    refuse(text, "record 2");
    qn_bench_log log;
    assert_int_equal(qn_bench_load(scratch("absent"), &log), QN_ERR_IO);
}

// ------------------------------------------------------------------------------------ changes

static void add(qn_bench_log *log, const char *name, double p10, double median, double p90)
{
    qn_bench_record r = qn_bench_record_start("ops", name, "forward", "[8]");
    r.seconds_p10 = p10;
    r.seconds_median = median;
    r.seconds_p90 = p90;
    if (!(median > 0)) r.status = QN_BENCH_FAILED;
    assert_ok(qn_bench_log_add(log, &r));
}

static void test_comparing(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double before[3], after[3];
        qn_bench_verdict verdict;
    } rows[] = {
        { "within the noise", { 1, 2, 4 }, { 3.9, 4, 5 }, QN_DIFF_SAME },
        { "slower", { 1, 2, 3 }, { 3.1, 4, 5 }, QN_DIFF_SLOWER },
        { "hardly slower", { 3, 3, 3 }, { 3.05, 3.05, 3.05 }, QN_DIFF_SAME },
        { "faster", { 3, 4, 5 }, { 1, 2, 2.9 }, QN_DIFF_FASTER },
        { "broken", { 1, 1, 1 }, { NAN, NAN, NAN }, QN_DIFF_BROKEN },
        { "mended", { NAN, NAN, NAN }, { 1, 1, 1 }, QN_DIFF_MENDED },
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    qn_bench_log a = { 0 }, b = { 0 };
    qn_bench_diffs d;
    for (int i = 0; i < ROWS; i++) {
        add(&a, rows[i].name, rows[i].before[0], rows[i].before[1], rows[i].before[2]);
        add(&b, rows[ROWS - 1 - i].name, rows[ROWS - 1 - i].after[0], rows[ROWS - 1 - i].after[1],
            rows[ROWS - 1 - i].after[2]); // in another order
    }
    add(&a, "gone", 1, 1, 1);
    add(&b, "new", 1, 1, 1);
    assert_ok(qn_bench_compare(&a, &b, &d));
    assert_int_equal(d.count, ROWS + 2);
    for (int i = 0; i < ROWS; i++)
        if (d.rows[i].verdict != rows[i].verdict)
            fail_msg("%s: %s", rows[i].name, qn_bench_verdict_name(d.rows[i].verdict));
    assert_int_equal(d.rows[ROWS].verdict, QN_DIFF_MISSING);
    assert_int_equal(d.rows[ROWS + 1].verdict, QN_DIFF_NEW);
    assert_true(qn_bench_diffs_bad(&d));
    qn_bench_diffs_free(&d);
    assert_ok(qn_bench_compare(&a, &a, &d));
    assert_false(qn_bench_diffs_bad(&d));
    qn_bench_diffs_free(&d);
    b.records[0].shape[0] = 'x';
    for (size_t i = 0; i < b.count; i++) b.records[i].shape[1] = 'x';
    assert_int_equal(qn_bench_compare(&a, &b, &d), QN_ERR_INVALID);
    qn_bench_log_free(&a);
    qn_bench_log_free(&b);
}

// ------------------------------------------------------------------------------------ tuning

static void store(const char *machine, const char *kernels, const char *environment)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"driver\":\"d\",\"machine\":\"%s\",\"kernels\":\"%s\",\"environment\":{%s}}",
             machine, kernels, environment);
    assert_ok(qn_make_dirs(scratch("quoin")));
    scratch_write_text("quoin/tuning.json", text);
}

static const char *applied(void)
{
    unsetenv("LP_NATIVE_VECTOR_WIDTH");
    qn_tuning_apply();
    const char *v = getenv("LP_NATIVE_VECTOR_WIDTH");
    return v ? v : "none";
}

// What fits this machine and these shaders is used; everything else is left alone.
static void test_tuning(void **state)
{
    (void)state;
    char machine[128], kernels[17];
    const char *old = getenv("XDG_CACHE_HOME");
    char *keep = old ? qn_strdup(old) : NULL;
    setenv("XDG_CACHE_HOME", QN_SCRATCH_DIR, 1);
    qn_log_set(NULL, NULL, QN_LOG_OFF);
    qn_tuning_machine(machine);
    qn_tuning_kernels(kernels);
    static const char width[] = "\"LP_NATIVE_VECTOR_WIDTH\":\"512\"";
    assert_string_equal(applied(), "none"); // there is no file
    store(machine, kernels, width);
    assert_string_equal(applied(), "512");
    setenv("LP_NATIVE_VECTOR_WIDTH", "256", 1); // the user's choice counts
    qn_tuning_apply();
    assert_string_equal(getenv("LP_NATIVE_VECTOR_WIDTH"), "256");
    setenv("QUOIN_TUNING", "0", 1);
    assert_string_equal(applied(), "none");
    unsetenv("QUOIN_TUNING");
    store("another machine", kernels, width);
    assert_string_equal(applied(), "none");
    store(machine, "0000000000000000", width);
    assert_string_equal(applied(), "none");
    static const char *const wrong[] = {
        "\"PATH\":\"1\"",
        "\"LP_NATIVE_VECTOR_WIDTH\":\"5;rm\"",
        "\"LP_NATIVE_VECTOR_WIDTH\":512",
        "\"LP_NATIVE_VECTOR_WIDTH\":\"\"",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        qn_tuning t;
        store(machine, kernels, wrong[i]);
        assert_int_equal(qn_tuning_load(scratch("quoin/tuning.json"), &t), QN_ERR_FORMAT);
        assert_string_equal(applied(), "none");
    }
    scratch_write_text("quoin/tuning.json", "{");
    assert_string_equal(applied(), "none");
    qn_log_set(NULL, NULL, QN_LOG_DEFAULT);
    unsetenv("XDG_CACHE_HOME");
    if (keep) setenv("XDG_CACHE_HOME", keep, 1);
    qn_free(keep);
}

// ------------------------------------------------------------------------------------ shaders

static void read_corpus(const char *name, uint32_t **words, size_t *count)
{
    char path[512], *data;
    size_t size;
    snprintf(path, sizeof path, QN_SOURCE_DIR "/tests/fuzz/corpus/fuzz_spirv/%s", name);
    assert_ok(qn_read_file(path, 1 << 20, &data, &size));
    *words = malloc(size);
    assert_non_null(*words);
    memcpy(*words, data, size);
    *count = size / 4;
    qn_free(data);
}

static const qn_spv_binding *binding(const qn_spv_shader *s, uint32_t set, uint32_t number)
{
    for (uint32_t i = 0; i < s->binding_count; i++)
        if (s->bindings[i].set == set && s->bindings[i].binding == number) return &s->bindings[i];
    fail_msg("no binding %u.%u", set, number);
    return NULL;
}

static void test_reflection(void **state)
{
    (void)state;
    static qn_spv_shader s;
    uint32_t *words;
    size_t count;
    read_corpus("blocks", &words, &count);
    assert_ok(qn_spv_read("blocks", words, count, &s));
    assert_string_equal(s.entry, "main");
    assert_true(s.local[0] == 1 && s.local[1] == 2 && s.local[2] == 1);
    assert_true(s.local_constant[0] == 0 && s.local_constant[1] == QN_SPV_NO_ID);
    const qn_spv_binding *x = binding(&s, 0, 0), *y = binding(&s, 0, 1), *u = binding(&s, 1, 2);
    assert_true(x->storage && x->reads && !x->writes && x->fixed == 16 && x->stride == 16);
    assert_true(x->scalar == QN_SPV_FLOAT && x->width == 32);
    assert_true(y->storage && !y->reads && y->writes && y->fixed == 0 && y->stride == 8);
    assert_true(y->scalar == QN_SPV_INT);
    assert_true(!u->storage && !u->writes && u->fixed == 7 * 16 && !u->stride);
    assert_int_equal(s.member_count, 3);
    assert_true(s.push_size == 80 && s.members[1].offset == 16 && s.members[2].offset == 32);
    assert_string_equal(s.members[0].name, "n");
    assert_int_equal(s.constant_count, 3);
    // Every cut gives an answer, never a look beyond the end (the sanitizers watch).
    for (size_t n = 0; n < count; n++) {
        uint32_t *part = malloc(n * 4 + 1);
        memcpy(part, words, n * 4);
        qn_spv_read("cut", part, n, &s);
        free(part);
    }
    free(words);
    read_corpus("images", &words, &count);
    assert_ok(qn_spv_read("images", words, count, &s));
    assert_non_null(binding(&s, 0, 0)->other);
    assert_int_equal(binding(&s, 0, 1)->count, 3);
    words[0]++;
    assert_int_equal(qn_spv_read("magic", words, count, &s), QN_ERR_FORMAT);
    free(words);
}

// ------------------------------------------------------------------------------------ program

static char *out, *err;
static int status;

static void open_as(const char *path, int target)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || dup2(fd, target) < 0) _exit(127);
}

static void run(char *const *args)
{
    char *argv[24] = { QN_PROGRAM, "bench" };
    for (int i = 0; args[i]; i++) argv[i + 2] = args[i];
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        open_as(QN_SCRATCH_DIR "/stdout", 1);
        open_as(QN_SCRATCH_DIR "/stderr", 2);
        execv(argv[0], argv);
        _exit(127);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    size_t size;
    qn_free(out);
    qn_free(err);
    out = err = NULL;
    scratch_read("stdout", &out, &size);
    scratch_read("stderr", &err, &size);
}
#define RUN(...) run((char *[]){ __VA_ARGS__, NULL })

static void expect(int code, const char *message)
{
    if (status != code || !strstr(err, message)) fail_msg("status %d: %s", status, err);
}

static void test_misuse(void **state)
{
    (void)state;
    RUN("peek");
    expect(QN_EXIT_MISUSED, "did you mean 'peak'?");
    RUN("compare", "one");
    expect(QN_EXIT_MISUSED, "found 1 arguments, expected BEFORE AFTER");
    RUN("shader");
    expect(QN_EXIT_MISUSED, "expected FILE...");
    RUN("peak", "more");
    expect(QN_EXIT_MISUSED, "found 1 arguments, expected none");
    RUN("peak", "--json", "--csv");
    expect(QN_EXIT_MISUSED, "not both");
    RUN("ops", "matmull");
    expect(QN_EXIT_MISUSED, "did you mean \"matmul\"?");
    RUN("ops", "matmul", "--case", "no such");
    expect(QN_EXIT_FAILED, "no case");
}

// Every line of --json carries every member, and the same records are in the saved file.
static void test_operations(void **state)
{
    (void)state;
    RUN("ops", "combine", "counting_sort", "--time", "0.001", "--json", "--save",
        (char *)scratch("o.jsonl"));
    assert_int_equal(status, QN_EXIT_DONE);
    static const char *const members[] = {
        "device", "driver",         "commit",           "variant",
        "shape",  "seconds_median", "seconds_p10",      "seconds_p90",
        "gflops", "gbytes_per_s",   "fraction_of_peak", "status",
    };
    size_t lines = 0;
    for (char *line = out, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        qn_json_doc *doc;
        assert_ok(qn_json_parse("line", line, (size_t)(end - line), NULL, &doc));
        for (size_t i = 0; i < sizeof members / sizeof *members; i++)
            if (!qn_json_find(qn_json_root(doc), members[i]).node) fail_msg("no %s", members[i]);
        qn_json_close(&doc);
    }
    assert_true(lines >= 3); // combine forward and backward, two sorts
    qn_bench_log log;
    assert_ok(qn_bench_load(scratch("o.jsonl"), &log));
    assert_int_equal(log.count, lines);
    for (size_t i = 0; i < log.count; i++) {
        assert_true(log.records[i].seconds_median > 0);
        log.records[i].seconds_p90 *= 1e-9; // a past that cannot be reached again
    }
    assert_ok(qn_bench_save(&log, scratch("past.jsonl")));
    snprintf(log.device, sizeof log.device, "another");
    assert_ok(qn_bench_save(&log, scratch("other.jsonl")));
    qn_bench_log_free(&log);
    RUN("compare", (char *)scratch("o.jsonl"), (char *)scratch("o.jsonl"));
    assert_int_equal(status, QN_EXIT_DONE);
    RUN("compare", (char *)scratch("past.jsonl"), (char *)scratch("o.jsonl"));
    assert_int_equal(status, QN_EXIT_FAILED);
    RUN("ops", "combine", "--time", "0.001", "--forward-only", "--baseline",
        (char *)scratch("past.jsonl"), "--html", (char *)scratch("p.html"), "--svg",
        (char *)scratch("svg"));
    expect(QN_EXIT_FAILED, "in the baseline");
    char *page;
    size_t size;
    scratch_read("p.html", &page, &size);
    assert_non_null(strstr(page, "</html>"));
    assert_null(strstr(page, "src=")); // nothing beside it
    qn_free(page);
    assert_true(qn_file_exists(scratch("svg/roofline.svg")) &&
                qn_file_exists(scratch("svg/bars.svg")));
    RUN("ops", "combine", "--baseline", (char *)scratch("other.jsonl"));
    expect(QN_EXIT_FAILED, "was measured on \"another\"");
    RUN("ops", "scale", "--time", "0.001", "--forward-only", "--baseline",
        (char *)scratch("o.jsonl"));
    expect(QN_EXIT_FAILED, "nothing to compare");
    RUN("report", (char *)scratch("o.jsonl"), (char *)scratch("other.jsonl"));
    expect(QN_EXIT_FAILED, "the files before it");
}

static const char doubling[] = "#version 450\n"
                               "layout(local_size_x = 64) in;\n"
                               "layout(push_constant) uniform P { uint n; float a; };\n"
                               "layout(binding = 0) readonly buffer X { float x[]; };\n"
                               "layout(binding = 1) buffer Y { float y[]; };\n"
                               "void main() {\n"
                               "    uint i = gl_GlobalInvocationID.x;\n"
                               "    if (i < n) y[i] = a * x[i];\n"
                               "}\n";
static const char endless[] = "#version 450\n"
                              "layout(local_size_x = 64) in;\n"
                              "layout(binding = 0) buffer Y { uint y[]; };\n"
                              "void main() {\n"
                              "    uint i = gl_GlobalInvocationID.x;\n"
                              "    while (y[i] != 4000000000u) y[i] = y[i] * 3u + i;\n"
                              "}\n";

static void out_has(const char *text)
{
    if (!strstr(out, text)) fail_msg("no \"%s\" in: %s%s", text, out, err);
}

// A wrong file, an endless one and a wrong result do not take the good result with them.
static void test_shaders(void **state)
{
    (void)state;
    float twos[256], wrong[256];
    for (int i = 0; i < 256; i++) twos[i] = wrong[i] = 2;
    wrong[200] = 3;
    scratch_write("twos", twos, sizeof twos);
    scratch_write("wrong", wrong, sizeof wrong);
    scratch_write_text("doubling.comp", doubling);
    scratch_write_text("endless.comp", endless);
    scratch_write_text("bad.comp", "#version 450\nvoid main() {\n  int x = nothing;\n}\n");
    char good[600], bad[600];
    snprintf(good, sizeof good, "Y=%s", scratch("twos"));
    snprintf(bad, sizeof bad, "Y=%s", scratch("wrong"));
#define DOUBLING                                                                                   \
    "--elements", "256", "--push", "n=256,a=2", "--fill", "X=one", "--time", "0.001", "--csv"
    char *file = (char *)scratch("doubling.comp");
    RUN("shader", (char *)scratch("bad.comp"), file, DOUBLING, "--expect", good, "--flops", "256");
    if (strstr(err, "no GLSL compiler")) return; // this build cannot
    assert_int_equal(status, QN_EXIT_FAILED);
    out_has("bad.comp:3: error");
    out_has("shader,doubling.comp,groups of 64x1x1,4x1x1 groups,");
    out_has(",ok,");
    RUN("shader", file, DOUBLING, "--expect", bad);
    assert_int_equal(status, QN_EXIT_FAILED);
    out_has("element 200 of binding 1 is 2, expected 3");
    RUN("shader", (char *)scratch("endless.comp"), file, "--limit", "1", "--time", "0.001");
    assert_int_equal(status, QN_EXIT_FAILED);
    out_has("one run did not end within 1 s");
    out_has("doubling.comp  groups of 64x1x1");
}

static void test_models(void **state)
{
    (void)state;
    RUN("model", "--preset", "nano", "--prompts", "5", "--texts", "2", "--tokens", "4", "--batch",
        "1", "--length", "8", "--time", "0.001", "--csv");
    assert_int_equal(status, QN_EXIT_DONE);
    out_has("model,nano,\"prompt of 5, to the first token\",1 text,");
    out_has("model,nano,decode behind 5,2 texts,");
    out_has("model,nano,training step,1x8,");
    RUN("model", "--preset", "nani");
    expect(QN_EXIT_MISUSED, "nano");
    RUN("model", "--prompts", "0");
    expect(QN_EXIT_MISUSED, "expected numbers from 1");
    RUN("model", "no such folder");
    expect(QN_EXIT_FAILED, "no such folder");
}

static int clean(void **state)
{
    qn_free(out);
    qn_free(err);
    return scratch_remove(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),      cmocka_unit_test(test_measuring),
        cmocka_unit_test(test_ceilings),   cmocka_unit_test(test_excuses),
        cmocka_unit_test(test_files),      cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_comparing),  cmocka_unit_test(test_tuning),
        cmocka_unit_test(test_reflection), cmocka_unit_test(test_shaders),
        cmocka_unit_test(test_models),     cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_operations),
    };
    return cmocka_run_group_tests(tests, scratch_make, clean);
}
