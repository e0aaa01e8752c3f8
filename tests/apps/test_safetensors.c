// Safetensors: round trips, sharding, and files that lie or are cut short.
#include <quoin/io.h>

#include "scratch.h"

#include <math.h>

static void put_file(const char *name, const char *header, size_t data)
{
    size_t length = strlen(header), size = 8 + length + data;
    uint8_t *file = qn_calloc(1, size);
    assert_non_null(file);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)length >> 8 * i);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < data; i++) file[8 + length + i] = (uint8_t)i;
    scratch_write(name, file, size);
    qn_free(file);
}

// Writes the tensors of `names` in that order of declaration, each filled by its first letter.
typedef struct plan {
    const char *name;
    qn_st_dtype dtype;
    int rank;
    int64_t dim[3];
} plan;
static const plan plans[] = {
    { "half", QN_ST_F16, 2, { 3, 5 } },
    { "byte", QN_ST_U8, 1, { 7 } },
    { "wide", QN_ST_F64, 0, { 0 } },
    { "ints", QN_ST_I64, 3, { 2, 1, 2 } },
    { "flag", QN_ST_BOOL, 1, { 3 } },
    { "none", QN_ST_F32, 2, { 4, 0 } },
    { "brain", QN_ST_BF16, 1, { 9 } },
    { "float", QN_ST_F32, 2, { 2, 3 } },
    { "short", QN_ST_I16, 1, { 1 } },
    { "small", QN_ST_I8, 1, { 2 } },
    { "i32 \"\xC3\xA9\"", QN_ST_I32, 1, { 5 } },
};
enum { PLANS = sizeof plans / sizeof *plans };

static qn_result write_plans(const char *path, uint64_t limit, bool backwards)
{
    static const qn_st_meta meta[] = { { "format", "pt" }, { "note", "a\"b\n" } };
    qn_safetensors_opts opts = { .meta = meta, .meta_count = 2, .shard_limit = limit };
    qn_safetensors_writer *w = NULL;
    QN_TRY(qn_safetensors_create(path, &opts, &w));
    qn_result r = QN_OK;
    for (size_t i = 0; i < PLANS && r == QN_OK; i++) {
        const plan *p = &plans[backwards ? PLANS - 1 - i : i];
        r = qn_safetensors_add(w, p->name, p->dtype, p->rank, p->dim);
    }
    const qn_safetensor *t = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(w, &t)) == QN_OK && t) {
        uint8_t byte = (uint8_t)t->name[0] & 63;
        for (uint64_t i = 0; i < t->size && r == QN_OK; i++) r = qn_safetensors_write(w, &byte, 1);
    }
    if (r == QN_OK) return qn_safetensors_commit(&w);
    qn_safetensors_abandon(&w);
    return r;
}

static void check_plans(const qn_safetensors *s)
{
    assert_int_equal(qn_safetensors_count(s), PLANS);
    assert_null(qn_safetensors_at(s, PLANS));
    assert_null(qn_safetensors_find(s, "absent"));
    for (size_t i = 0; i + 1 < PLANS; i++)
        assert_true(strcmp(qn_safetensors_at(s, i)->name, qn_safetensors_at(s, i + 1)->name) < 0);
    for (size_t i = 0; i < PLANS; i++) {
        const qn_safetensor *t = qn_safetensors_find(s, plans[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, plans[i].dtype);
        assert_int_equal(t->rank, plans[i].rank);
        uint64_t count = 1;
        for (int d = 0; d < t->rank; d++) {
            assert_int_equal(t->dim[d], plans[i].dim[d]);
            count *= (uint64_t)t->dim[d];
        }
        assert_int_equal(t->count, count);
        assert_int_equal(t->size, count * qn_st_dtype_size(t->dtype));
        assert_int_equal((uintptr_t)t->data % qn_st_dtype_size(t->dtype), 0);
        for (uint64_t k = 0; k < t->size; k++)
            assert_int_equal(((const uint8_t *)t->data)[k], t->name[0] & 63);
    }
    size_t metas;
    const qn_st_meta *meta = qn_safetensors_meta(s, &metas);
    assert_int_equal(metas, 2);
    assert_string_equal(meta[1].key, "note");
    assert_string_equal(meta[1].value, "a\"b\n");
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    qn_safetensors *s;
    assert_ok(write_plans(scratch("a.safetensors"), 0, false));
    assert_ok(qn_safetensors_open(scratch("a.safetensors"), &s));
    check_plans(s);
    qn_safetensors_close(&s);
    assert_null(s);
}

static void the_order_of_declarations_does_not_matter(void **state)
{
    (void)state;
    size_t m, n;
    assert_ok(write_plans(scratch("a.safetensors"), 0, false));
    assert_ok(write_plans(scratch("b.safetensors"), 0, true));
    char *a, *b;
    scratch_read("a.safetensors", &a, &m);
    scratch_read("b.safetensors", &b, &n);
    assert_int_equal(m, n);
    assert_memory_equal(a, b, m);
    qn_free(a);
    qn_free(b);
}

static void models_are_sharded(void **state)
{
    (void)state;
    qn_safetensors *s;
    assert_ok(write_plans(scratch("model.safetensors"), 0, false));
    assert_ok(write_plans(scratch("model.safetensors"), 32, false));
    assert_false(qn_file_exists(scratch("model.safetensors"))); // it would hide the shards
    assert_true(qn_file_exists(scratch("model-00001-of-00006.safetensors")));
    assert_ok(qn_safetensors_open(scratch("model.safetensors.index.json"), &s));
    check_plans(s);
    qn_safetensors_close(&s);
    assert_ok(qn_safetensors_open(QN_SCRATCH_DIR, &s));
    check_plans(s);
    qn_safetensors_close(&s);
    assert_ok(write_plans(scratch("model.safetensors"), 1 << 20, false));
    assert_false(qn_file_exists(scratch("model.safetensors.index.json")));
    assert_ok(qn_safetensors_open(QN_SCRATCH_DIR, &s));
    check_plans(s);
    qn_safetensors_close(&s);
    assert_ok(qn_remove_tree(scratch("model.safetensors")));
}

static void an_empty_file_is_a_file(void **state)
{
    (void)state;
    qn_safetensors_writer *w;
    qn_safetensors *s;
    assert_ok(qn_safetensors_create(scratch("e.safetensors"), NULL, &w));
    assert_ok(qn_safetensors_commit(&w));
    assert_null(w);
    assert_ok(qn_safetensors_open(scratch("e.safetensors"), &s));
    assert_int_equal(qn_safetensors_count(s), 0);
    assert_null(qn_safetensors_find(s, "x"));
    qn_safetensors_close(&s);
    qn_safetensors_close(&s);
}

static void values_are_converted(void **state)
{
    (void)state;
    static const uint16_t half[] = { 0x3C00, 0xC000, 0x0001, 0x83FF, 0x0400,
                                     0x7BFF, 0x7C00, 0x7E01, 0x8000 };
    static const double half_values[] = { 1,     -2,       0x1p-24, -0x3FFp-24, 0x1p-14,
                                          65504, INFINITY, NAN,     -0.0 };
    static const uint16_t brain[] = { 0x3F80, 0xC040, 0x0001, 0x7F80 };
    static const double brain_values[] = { 1, -3, 0x1p-133, INFINITY };
    qn_safetensor h = { .name = "h", .dtype = QN_ST_F16, .count = 9, .data = half };
    qn_safetensor b = { .name = "b", .dtype = QN_ST_BF16, .count = 4, .data = brain };
    float f[9];
    double d[9];
    assert_ok(qn_safetensor_f32(&h, 0, 9, f));
    assert_ok(qn_safetensor_f64(&h, 0, 9, d));
    for (int i = 0; i < 9; i++) {
        assert_true(isnan(half_values[i]) ? isnan(f[i]) : f[i] == (float)half_values[i]);
        assert_true(isnan(half_values[i]) ? isnan(d[i]) : d[i] == half_values[i]);
        assert_int_equal(!!signbit(f[i]), !!(half[i] & 0x8000));
    }
    assert_ok(qn_safetensor_f32(&b, 1, 3, f));
    assert_ok(qn_safetensor_f64(&b, 0, 4, d));
    for (int i = 0; i < 3; i++) assert_true(f[i] == (float)brain_values[i + 1]);
    for (int i = 0; i < 4; i++) assert_true(d[i] == brain_values[i]);

    char bytes[25]; // unaligned on purpose
    static const double wide[] = { 0.1, -1e300, 3 };
    memcpy(bytes + 1, wide, sizeof wide);
    qn_safetensor w = { .name = "w", .dtype = QN_ST_F64, .count = 3, .data = bytes + 1 };
    assert_ok(qn_safetensor_f64(&w, 0, 3, d));
    assert_memory_equal(d, wide, sizeof wide);
    assert_ok(qn_safetensor_f32(&w, 0, 1, f));
    assert_true(f[0] == 0.1f);

    static const int16_t ints[] = { -32768, 32767 };
    static const uint8_t flags[] = { 0, 1, 255 };
    int64_t n[3];
    qn_safetensor i16 = { .name = "i", .dtype = QN_ST_I16, .count = 2, .data = ints };
    qn_safetensor flag = { .name = "f", .dtype = QN_ST_BOOL, .count = 3, .data = flags };
    qn_safetensor u8 = { .name = "u", .dtype = QN_ST_U8, .count = 3, .data = flags };
    qn_safetensor i8 = { .name = "s", .dtype = QN_ST_I8, .count = 3, .data = flags };
    assert_ok(qn_safetensor_i64(&i16, 0, 2, n));
    assert_true(n[0] == -32768 && n[1] == 32767);
    assert_ok(qn_safetensor_i64(&flag, 0, 3, n));
    assert_true(n[0] == 0 && n[1] == 1 && n[2] == 1);
    assert_ok(qn_safetensor_i64(&u8, 2, 1, n));
    assert_int_equal(n[0], 255);
    assert_ok(qn_safetensor_i64(&i8, 2, 1, n));
    assert_int_equal(n[0], -1);
    assert_fails(qn_safetensor_f32(&u8, 0, 1, f), QN_ERR_INVALID,
                 "tensor u: dtype U8, expected a floating-point type");
    assert_fails(qn_safetensor_i64(&h, 0, 1, n), QN_ERR_INVALID, "tensor h: dtype F16");
    assert_fails(qn_safetensor_f32(&h, 9, 1, f), QN_ERR_INVALID, "elements 9 and 1 more of 9");
    assert_fails(qn_safetensor_f32(&h, 1, UINT64_MAX, f), QN_ERR_INVALID, "of 9");
    assert_ok(qn_safetensor_f32(&h, 9, 0, f));
}

static void lying_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header, *message;
        size_t data;
    } cases[] = {
        { "[]", "does not begin with '{'", 0 },
        { " {}", "does not begin with '{'", 0 },
        { "{} x", "line 1, column 4", 0 },
        { "{\"a\":1}", "a: found 1, expected an object", 0 },
        { "{\"a\":{}}", "a.dtype: missing", 0 },
        { "{\"a\":{\"dtype\":\"F8_E4M3\"}}", "a: dtype \"F8_E4M3\" is not supported; expected one",
          0 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":4}}", "a.shape: found 4, expected an array", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
          "a.shape[0]: found -1", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,6]}}",
          "a.shape[0]: found 1.5", 6 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
          "span 4 bytes, but dtype and shape need 8", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
          "end at byte 8 of data, but the file has 7", 7 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
          "a.data_offsets[1]: found 0, expected an integer of at least 8", 8 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", "expected [begin, end]",
          8 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}",
          "expected [begin, end]", 8 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,2],\"data_offsets\":[0,0]}}",
          "more elements", 0 },
        { "{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,1073741824],\"data_offsets\":[0,0]}}",
          "more bytes", 0 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
          "found 9 dimensions, expected at most 8", 1 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[9007199254740993],\"data_offsets\":[0,1]}}",
          "a.shape[0]", 1 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"a\":{\"dtype\":\"U8\","
          "\"shape\":[2],\"data_offsets\":[2,4]}}",
          "\"a\" is there twice", 4 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\","
          "\"shape\":[2],\"data_offsets\":[1,3]}}",
          "tensor b: its data overlaps that of a", 3 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\","
          "\"shape\":[2],\"data_offsets\":[0,2]}}",
          "overlaps", 2 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
          "tensor a: bytes 0 to 1 before it belong to no tensor", 3 },
        { "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
          "3 bytes behind the last tensor", 5 },
        { "{}", "1 bytes behind the last tensor", 1 },
        { "{\"__metadata__\":{\"x\":1}}", "__metadata__.x: found 1, expected a string", 0 },
        { "{\"__metadata__\":[]}", "__metadata__: found an array", 0 },
        { "{\"\\u001b]0;x\":{}}", "?]0;x.dtype: missing", 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_safetensors *s = NULL;
        put_file("lie.safetensors", cases[i].header, cases[i].data);
        assert_fails(qn_safetensors_open(scratch("lie.safetensors"), &s), QN_ERR_FORMAT,
                     cases[i].message);
        assert_non_null(strstr(qn_error_message(), "lie.safetensors"));
        assert_null(s);
    }
    qn_safetensors *s;
    put_file("fine.safetensors",
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[2,3]},\"z\":{"
             "\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]},\"b\":{\"dtype\":\"I16\","
             "\"shape\":[1],\"data_offsets\":[0,2]}}   ",
             3);
    assert_ok(qn_safetensors_open(scratch("fine.safetensors"), &s));
    assert_int_equal(*(const uint8_t *)qn_safetensors_find(s, "a")->data, 2);
    qn_safetensors_close(&s);
}

static void lying_lengths_are_refused(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {
        0, 1, 3, 17, 100 << 20, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63
    };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        uint8_t file[24] = { 0 };
        for (int b = 0; b < 8; b++) file[b] = (uint8_t)(lengths[i] >> 8 * b);
        memcpy(file + 8, "{}              ", 16);
        qn_safetensors *s;
        scratch_write("length.safetensors", file, sizeof file);
        assert_fails(qn_safetensors_open(scratch("length.safetensors"), &s), QN_ERR_FORMAT,
                     "length");
    }
}

// Every beginning of a file is refused; no change of a byte does worse, and what still opens lies
// within the file.
static void damaged_files_are_harmless(void **state)
{
    (void)state;
    size_t size, header;
    assert_ok(write_plans(scratch("a.safetensors"), 0, false));
    char *file;
    scratch_read("a.safetensors", &file, &size);
    header = 8 + (uint8_t)file[0] + 256 * (size_t)(uint8_t)file[1];
    for (size_t n = 0; n < size; n++) {
        qn_safetensors *s;
        scratch_write("cut.safetensors", file, n);
        assert_int_equal(qn_safetensors_open(scratch("cut.safetensors"), &s), QN_ERR_FORMAT);
    }
    static const char bytes[] = "\0\"09-,{}]\xFF";
    for (size_t i = 0; i < header; i++)
        for (size_t k = 0; k < sizeof bytes - 1; k++) {
            char old = file[i];
            qn_safetensors *s;
            file[i] = bytes[k];
            scratch_write("hurt.safetensors", file, size);
            file[i] = old;
            qn_result r = qn_safetensors_open(scratch("hurt.safetensors"), &s);
            if (r != QN_OK) {
                assert_int_equal(r, QN_ERR_FORMAT);
                continue;
            }
            uint64_t sum = 0;
            for (size_t t = 0; t < qn_safetensors_count(s); t++)
                sum += qn_safetensors_at(s, t)->size;
            assert_int_equal(sum, size - header);
            qn_safetensors_close(&s);
        }
    qn_free(file);
}

static void lying_indexes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *index, *message;
        qn_result code;
    } cases[] = {
        { "{}", "weight_map: missing, expected an object", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":1}}", "weight_map.a: found 1", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"../fine.safetensors\"}}", "is not a plain file name",
          QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "is not a plain file name", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"x\\\\y\"}}", "is not a plain file name", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"C:x\"}}", "is not a plain file name", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"..\"}}", "is not a plain file name", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"\"}}", "is not a plain file name", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "gone.safetensors", QN_ERR_IO },
        { "{\"weight_map\":{\"q\":\"one.safetensors\"}}",
          "weight_map.q: one.safetensors has no such tensor", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}}",
          "is there twice", QN_ERR_FORMAT },
        { "{\"weight_map\":{\"a\":\"lies.index.json\"}}", "lies.index.json", QN_ERR_FORMAT },
    };
    put_file("one.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
             2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_safetensors *s = NULL;
        scratch_write_text("lies.index.json", cases[i].index);
        assert_fails(qn_safetensors_open(scratch("lies.index.json"), &s), cases[i].code,
                     cases[i].message);
        assert_null(s);
    }
}

static void folders_without_weights_say_so(void **state)
{
    (void)state;
    qn_safetensors *s;
    assert_ok(qn_make_dirs(scratch("pickled")));
    assert_fails(qn_safetensors_open(scratch("pickled"), &s), QN_ERR_IO,
                 "neither model.safetensors nor model.safetensors.index.json");
    scratch_write_text("pickled/pytorch_model.bin", "x");
    assert_fails(qn_safetensors_open(scratch("pickled"), &s), QN_ERR_UNSUPPORTED, "convert");
    assert_fails(qn_safetensors_open(scratch("absent.safetensors"), &s), QN_ERR_IO, "absent");
    assert_fails(qn_safetensors_open(NULL, &s), QN_ERR_INVALID, "path");
}

static void misuse_of_the_writer_is_refused(void **state)
{
    (void)state;
    qn_safetensors_writer *w;
    const qn_safetensor *t;
    const int64_t two[] = { 2 }, huge[] = { INT64_MAX, INT64_MAX }, minus[] = { -1 };
    const char *path = scratch("w.safetensors");
    size_t before = scratch_count();
    static const struct {
        const char *name, *message;
        qn_st_dtype dtype;
        int rank;
        int dims; // 0: two, 1: huge, 2: minus
    } bad[] = {
        { "", "cannot be the name", QN_ST_U8, 1, 0 },
        { "__metadata__", "cannot be the name", QN_ST_U8, 1, 0 },
        { "\xFF", "cannot be the name", QN_ST_U8, 1, 0 },
        { "a", "unknown dtype", (qn_st_dtype)77, 1, 0 },
        { "a", "9 dimensions", QN_ST_U8, 9, 0 },
        { "a", "dimension 1 is", QN_ST_U8, 2, 1 },
        { "a", "dimension 0 is -1", QN_ST_U8, 1, 2 },
        { "a", "more bytes than a file holds", QN_ST_F64, 1, 1 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_ok(qn_safetensors_create(path, NULL, &w));
        const int64_t *dim = bad[i].dims == 0 ? two : bad[i].dims == 1 ? huge : minus;
        assert_fails(qn_safetensors_add(w, bad[i].name, bad[i].dtype, bad[i].rank, dim),
                     QN_ERR_INVALID, bad[i].message);
        assert_fails(qn_safetensors_commit(&w), QN_ERR_INVALID, "given up");
    }
    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_fails(qn_safetensors_add(w, "a", QN_ST_U8, 1, two), QN_ERR_INVALID, "declared twice");
    qn_safetensors_abandon(&w);

    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_fails(qn_safetensors_write(w, "xy", 2), QN_ERR_INVALID, "data for no tensor");
    qn_safetensors_abandon(&w);

    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_ok(qn_safetensors_next(w, &t));
    assert_fails(qn_safetensors_write(w, "xyz", 3), QN_ERR_INVALID, "3 bytes, expected at most 2");
    qn_safetensors_abandon(&w);

    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_ok(qn_safetensors_add(w, "b", QN_ST_U8, 1, two));
    assert_ok(qn_safetensors_next(w, &t));
    assert_fails(qn_safetensors_add(w, "c", QN_ST_U8, 1, two), QN_ERR_INVALID, "after the first");
    qn_safetensors_abandon(&w);

    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_ok(qn_safetensors_next(w, &t));
    assert_ok(qn_safetensors_write(w, "x", 1));
    assert_fails(qn_safetensors_commit(&w), QN_ERR_INVALID, "tensor a: 1 of 2 bytes written");

    assert_ok(qn_safetensors_create(path, NULL, &w));
    assert_ok(qn_safetensors_add(w, "a", QN_ST_U8, 1, two));
    assert_fails(qn_safetensors_commit(&w), QN_ERR_INVALID, "tensor a: no data was written");

    const qn_st_meta twice[] = { { "k", "1" }, { "k", "2" } }, broken[] = { { "k", "\xFF" } };
    assert_fails(
        qn_safetensors_create(path, &(qn_safetensors_opts){ .meta = twice, .meta_count = 2 }, &w),
        QN_ERR_INVALID, "metadata k is there twice");
    assert_fails(
        qn_safetensors_create(path, &(qn_safetensors_opts){ .meta = broken, .meta_count = 1 }, &w),
        QN_ERR_INVALID, "metadata 0");
    assert_int_equal(scratch_count(), before); // nothing was left behind
}

static qn_result write_in_shards(void *state)
{
    (void)state;
    return write_plans(scratch("m.safetensors"), 100, false);
}

static qn_result read_back(void *path)
{
    qn_safetensors *s = NULL;
    QN_TRY(qn_safetensors_open(path, &s));
    check_plans(s);
    qn_safetensors_close(&s);
    return QN_OK;
}

static void memory_can_run_out(void **state)
{
    (void)state;
    char path[512];
    fail_each_allocation(write_in_shards, NULL);
    snprintf(path, sizeof path, "%s", scratch("m.safetensors.index.json"));
    fail_each_allocation(read_back, path);
}

// Every file of the project's golden data that is at hand.
static size_t open_all(const char *dir)
{
    char **names;
    size_t count, opened = 0;
    assert_ok(qn_list_dir(dir, &names, &count));
    for (size_t i = 0; i < count; i++) {
        char *path = qn_path_join(dir, names[i]);
        const char *dot = strrchr(names[i], '.');
        qn_safetensors *s;
        assert_non_null(path);
        if (qn_is_dir(path)) {
            opened += open_all(path);
        } else if (dot && !strcmp(dot, ".safetensors")) {
            assert_ok(qn_safetensors_open(path, &s));
            qn_safetensors_close(&s);
            opened++;
        }
        qn_free(path);
    }
    qn_free_names(names, count);
    return opened;
}

static void golden_files_open(void **state)
{
    (void)state;
    const char *dir = QN_SOURCE_DIR "/../shared/golden";
    print_message("%zu files below %s\n", qn_is_dir(dir) ? open_all(dir) : 0, dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(the_order_of_declarations_does_not_matter),
        cmocka_unit_test(models_are_sharded),
        cmocka_unit_test(an_empty_file_is_a_file),
        cmocka_unit_test(values_are_converted),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(lying_lengths_are_refused),
        cmocka_unit_test(damaged_files_are_harmless),
        cmocka_unit_test(lying_indexes_are_refused),
        cmocka_unit_test(folders_without_weights_say_so),
        cmocka_unit_test(misuse_of_the_writer_is_refused),
        cmocka_unit_test(memory_can_run_out),
        cmocka_unit_test(golden_files_open),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
