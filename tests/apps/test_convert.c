// Models between folders and GGUF files, between number formats, and onto a device.
#include "half.h"
#include "io/gguf.h"
#include "llm/convert.h"
#include "llm/generate.h"
#include "llm/runner.h"
#include "tiny_lm.h"

#include <quoin/blocks.h>
#include <quoin/io.h>

#include <math.h>

// Rows that are whole blocks, and some that are not.
#define BLOCK_CONFIG                                                                               \
    "{\"model_type\": \"moduleformer\", \"vocab_size\": 260, \"n_embd\": 32, \"n_layer\": 2, "     \
    "\"n_head\": 1, \"att_hidden\": 32, \"ffd_hidden\": 64, \"n_att_experts\": 2, \"k_att\": 1, "  \
    "\"n_mlp_experts\": 4, \"k_mlp\": 2, \"gating_size\": 8, \"bos_token_id\": 0, "                \
    "\"eos_token_id\": 0}"

static qn_model_config config;

// A folder "model" with random weights in f32.
static int make_model(void **state)
{
    if (scratch_make(state)) return -1;
    qn_store *w;
    assert_ok(qn_make_dirs(scratch("model")));
    scratch_write_text("model/config.json", BLOCK_CONFIG);
    assert_ok(qn_model_config_read(scratch("model/config.json"), &config));
    static const char *const special[] = { "<|endoftext|>" };
    qn_tokenizer *t;
    qn_tokenizer_train_opts o = { .size = 257, .special = special, .special_count = 1 };
    assert_ok(qn_tokenizer_train("a b", 3, &o, &t));
    assert_ok(qn_tokenizer_save(t, scratch("model/tokenizer.json")));
    qn_tokenizer_close(&t);
    assert_ok(qn_store_create(qn_test_device(), "weights", &w));
    assert_ok(qn_model_declare(&config, w, QN_F32));
    assert_ok(qn_store_allocate(w));
    assert_ok(qn_model_initialise(&config, w, 3, false));
    assert_ok(qn_model_save(w, scratch("model")));
    qn_store_destroy(&w);
    return 0;
}

static void convert(const char *from, const char *to, qn_dtype weights)
{
    qn_convert_opts o = { .weights = weights };
    assert_ok(qn_convert(scratch(from), scratch(to), &o));
}

static void assert_same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    scratch_read(a, &x, &n);
    scratch_read(b, &y, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    qn_free(x);
    qn_free(y);
}

// f32 comes back bit by bit, from a GGUF file and from one made of it; 16 bits are rounded once.
static void test_round_trips(void **state)
{
    (void)state;
    convert("model", "a.gguf", QN_AS_STORED);
    convert("a.gguf", "back", QN_AS_STORED);
    assert_same_file("model/model.safetensors", "back/model.safetensors");
    convert("back", "b.gguf", QN_F32);
    convert("b.gguf", "c.gguf", QN_AS_STORED);
    convert("model", "bf16", QN_BF16);
    convert("bf16", "d.gguf", QN_AS_STORED);
    convert("d.gguf", "bf16_again", QN_AS_STORED);
    assert_same_file("bf16/model.safetensors", "bf16_again/model.safetensors");
    convert("model", "q8.gguf", QN_Q8_0);
    convert("q8.gguf", "q8_again.gguf", QN_AS_STORED);
    qn_safetensors *st, *half;
    assert_ok(qn_safetensors_open(scratch("model"), &st));
    assert_ok(qn_safetensors_open(scratch("bf16"), &half));
    const char *name = "transformer.h.1.mlpf.experts.weight";
    const qn_safetensor *x = qn_safetensors_find(st, name), *y = qn_safetensors_find(half, name);
    assert_int_equal(y->dtype, QN_ST_BF16);
    for (uint64_t i = 0; i < x->count; i++) {
        float v;
        uint16_t h;
        memcpy(&v, (const char *)x->data + 4 * i, sizeof v);
        memcpy(&h, (const char *)y->data + 2 * i, sizeof h);
        assert_int_equal(h, qn_bf16_from_f32(v));
    }
    qn_safetensors_close(&st);
    qn_safetensors_close(&half);
}

// Which tensors are quantised, and that each is what the double reference says of its blocks.
static void test_quantised_files(void **state)
{
    (void)state;
    static const qn_dtype types[] = { QN_Q8_0, QN_Q4_0 };
    static const uint32_t file[] = { QN_GGUF_TENSOR_Q8_0, QN_GGUF_TENSOR_Q4_0 };
    for (int k = 0; k < 2; k++) {
        convert("model", "q.gguf", types[k]);
        qn_gguf *g;
        qn_safetensors *st;
        int64_t n;
        assert_ok(qn_gguf_open(scratch("q.gguf"), &g));
        assert_ok(qn_safetensors_open(scratch("model"), &st));
        assert_true(qn_gguf_integer_of(g, "moduleformer.block_count", &n) && n == 2);
        assert_true(qn_gguf_integer_of(g, "general.quantization_version", &n) && n == 2);
        static const struct {
            const char *name;
            bool quantised;
        } rows[] = { { "token_embd.weight", false },          { "output.weight", true },
                     { "output_norm.bias", false },           { "blk.0.attn_norm.weight", false },
                     { "blk.1.attn_q_exps.weight", true },    { "blk.0.ffn_down_exps.weight", true },
                     { "blk.1.attn_gate_inp.w_gate.0.weight", false },
                     { "blk.0.ffn_gate_inp.w_gate.3.weight", false } };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const qn_gguf_tensor *t = qn_gguf_find(g, rows[i].name);
            assert_non_null(t);
            assert_int_equal(t->type, rows[i].quantised ? file[k] : QN_GGUF_TENSOR_F32);
        }
        const qn_gguf_tensor *t = qn_gguf_find(g, "blk.1.ffn_up_exps.weight");
        const qn_safetensor *x = qn_safetensors_find(st, "transformer.h.1.mlpf.experts.weight");
        assert_int_equal(t->count, x->count);
        const uint32_t size = qn_block_bytes(types[k]);
        for (uint64_t b = 0; b < t->count / 32; b++) {
            const uint8_t *block = (const uint8_t *)t->data + b * size;
            double d = (double)qn_f32_from_f16((uint16_t)(block[0] | block[1] << 8)), most = 0;
            float v[32];
            memcpy(v, (const char *)x->data + b * sizeof v, sizeof v);
            for (int i = 0; i < 32; i++) most = fmax(most, fabs((double)v[i]));
            for (int i = 0; i < 32; i++) {
                double q = k == 0 ? (int8_t)block[2 + i]
                                  : (i < 16 ? block[2 + i] & 15 : block[i - 14] >> 4) - 8;
                // Half a step; a step at the side that Q4_0 cuts off.
                double bound = most * (k == 0 ? 0.5 / 127 : 1.0 / 8) + most * 0x1p-10;
                assert_true(fabs(d * q - (double)v[i]) <= bound);
            }
        }
        qn_gguf_close(&g);
        qn_safetensors_close(&st);
    }
}

// Mean log-probability of a text with weights kept in a way.
static double score_of(const char *path, qn_dtype weights)
{
    enum { LENGTH = 40 };
    qn_folder f;
    qn_runner *r;
    int32_t text[LENGTH];
    qn_token_score s[LENGTH];
    double sum = 0;
    for (int i = 0; i < LENGTH; i++) text[i] = (i * 89 + 5) % 257;
    assert_ok(qn_folder_open(qn_test_device(), scratch(path), weights, &f));
    qn_runner_opts o = { .context = LENGTH };
    assert_ok(qn_runner_create(qn_test_device(), &f.config, f.weights, &o, &r));
    assert_ok(qn_runner_score(r, 0, text, LENGTH, s));
    for (int i = 1; i < LENGTH; i++) sum += (double)s[i].logprob;
    qn_runner_destroy(&r);
    qn_folder_close(&f);
    return sum / (LENGTH - 1);
}

// However a type gets onto the device, it computes the same; and close to the original.
static void test_loading(void **state)
{
    (void)state;
    static const qn_dtype types[] = { QN_F32, QN_F16, QN_BF16, QN_Q8_0, QN_Q4_0 };
    const double exact = score_of("model", QN_F32);
    for (int k = 0; k < 5; k++) {
        convert("model", "way.gguf", types[k]);
        const double converted = score_of("way.gguf", QN_AS_STORED);
        const double rounded = score_of("model", types[k]);
        // The f16 and bf16 embeddings of the file are f32 when loaded from the folder.
        const double same = types[k] == QN_F16 || types[k] == QN_BF16 ? 1e-2 : 0;
        assert_true(fabs(converted - rounded) <= same);
        assert_true(fabs(converted - exact) < (types[k] == QN_Q4_0 ? 0.2 : 0.05));
    }
    assert_true(score_of("model", QN_AS_STORED) == exact);
}

static bool stop(void *user, uint64_t done, uint64_t total)
{
    (void)total;
    *(uint64_t *)user = done;
    return false;
}

static void test_stopped(void **state)
{
    (void)state;
    uint64_t done = 0;
    qn_convert_opts o = { .weights = QN_F32, .progress = { stop, &done } };
    assert_fails(qn_convert(scratch("model"), scratch("none.gguf"), &o), QN_ERR_CANCELLED, "stopped");
    assert_true(done > 0);
    assert_false(qn_file_exists(scratch("none.gguf")));
    qn_folder f;
    qn_folder_opts open = { QN_F32, { stop, &done } };
    assert_fails(qn_folder_open_with(qn_test_device(), scratch("model"), &open, &f),
                 QN_ERR_CANCELLED, "stopped");
}

static qn_result convert_q4(void *state)
{
    (void)state;
    qn_convert_opts o = { .weights = QN_Q4_0 };
    return qn_convert(scratch("model"), scratch("alloc.gguf"), &o);
}

static void test_allocations(void **state)
{
    fail_each_allocation(convert_q4, *state);
}

// What is written over a good file's bytes, and what is said then.
static void test_damaged(void **state)
{
    (void)state;
    char *data;
    size_t size;
    qn_gguf *g;
    convert("model", "whole.gguf", QN_AS_STORED);
    scratch_read("whole.gguf", &data, &size);
    for (size_t cut = 0; cut < size; cut += cut < 400 ? 1 : size / 50) { // every cut is noticed
        scratch_write("cut.gguf", data, cut);
        qn_folder f;
        qn_result r = qn_folder_open(qn_test_device(), scratch("cut.gguf"), QN_AS_STORED, &f);
        assert_true(r == QN_ERR_FORMAT);
        assert_non_null(strstr(qn_error_message(), "cut.gguf"));
    }
    static const struct {
        size_t at;
        char byte;
        qn_result code;
        const char *part;
    } rows[] = { { 0, 'X', QN_ERR_FORMAT, "does not start with" },
                 { 4, 1, QN_ERR_UNSUPPORTED, "version 1, expected 2 or 3" },
                 { 4, 9, QN_ERR_UNSUPPORTED, "version 9" },
                 { 15, 1, QN_ERR_FORMAT, "do not fit" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char old = data[rows[i].at];
        data[rows[i].at] = rows[i].byte;
        scratch_write("odd.gguf", data, size);
        assert_fails(qn_gguf_open(scratch("odd.gguf"), &g), rows[i].code, rows[i].part);
        data[rows[i].at] = old;
    }
    qn_free(data);
    qn_gguf_writer *w;
    qn_folder f;
    assert_ok(qn_gguf_create(scratch("other.gguf"), &w));
    assert_ok(qn_gguf_put_text(w, "general.architecture", "llama"));
    assert_ok(qn_gguf_commit(&w));
    assert_fails(qn_folder_open(qn_test_device(), scratch("other.gguf"), QN_AS_STORED, &f),
                 QN_ERR_UNSUPPORTED, "\"llama\", only moduleformer");
    assert_fails(qn_folder_open(qn_test_device(), scratch("missing.gguf"), QN_AS_STORED, &f),
                 QN_ERR_IO, "missing.gguf");
    qn_convert_opts o = { .weights = QN_Q8_0 };
    assert_fails(qn_convert(scratch("model"), scratch("folder"), &o), QN_ERR_UNSUPPORTED,
                 "write a .gguf file");
    assert_fails(qn_convert(scratch("model"), scratch("model"), &o), QN_ERR_INVALID,
                 "over itself");
    assert_ok(qn_make_dirs(scratch("pickled")));
    scratch_write_text("pickled/config.json", BLOCK_CONFIG);
    scratch_write_text("pickled/pytorch_model.bin", "x");
    assert_ok(qn_write_file(scratch("pickled/tokenizer.json"), "{}", 2));
    qn_safetensors *st;
    assert_fails(qn_safetensors_open(scratch("pickled"), &st), QN_ERR_UNSUPPORTED,
                 "convert them to safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trips), cmocka_unit_test(test_quantised_files),
        cmocka_unit_test(test_loading),     cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_allocations), cmocka_unit_test(test_damaged),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, make_model, scratch_remove) + qn_device_finish();
}
