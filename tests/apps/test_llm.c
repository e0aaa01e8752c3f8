// The parts of a language model that need no training: description, windows, random
// numbers, rounding, decoding.
#include "llm/data.h"
#include "llm/decoder.h"
#include "half.h"
#include "random.h"
#include "tiny_lm.h"

#include <math.h>

// ------------------------------------------------------------------------------ description

static void test_config_round_trip(void **state)
{
    (void)state;
    static const char *const names[] = { "nano", "micro", "small", "base", "large" };
    for (int i = 0; i < 5; i++) {
        qn_model_config c, back;
        assert_ok(qn_model_preset(names[i], 1000, &c));
        c.gate_type = (qn_gate)(i % 3);
        c.activation = QN_SILU;
        c.aux_loss = QN_ROUTER_SWITCH;
        c.aux_loss_weight = 0.1 + i;
        c.tie_word_embeddings = i % 2;
        c.resid_pdrop = 0.3;
        assert_ok(qn_model_config_write(&c, scratch("round.json")));
        assert_ok(qn_model_config_read(scratch("round.json"), &back));
        char *x, *y;
        assert_ok(qn_model_config_text(&c, &x));
        assert_ok(qn_model_config_text(&back, &y));
        assert_string_equal(x, y);
        assert_true(back.aux_loss_weight == c.aux_loss_weight);
        assert_int_equal(back.n_layer, c.n_layer);
        qn_free(x);
        qn_free(y);
    }
    qn_model_config c;
    assert_fails(qn_model_preset("tiny", 1000, &c), QN_ERR_INVALID, "nano, micro, small");
}

static void test_config_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
        qn_result code;
    } rows[] = {
        { "[]", "object", QN_ERR_FORMAT },
        { "{\"n_embed\": 3}", "n_embed", QN_ERR_FORMAT },
        { "{\"n_embd\": 0}", "n_embd", QN_ERR_FORMAT },
        { "{\"n_embd\": 1.5}", "n_embd", QN_ERR_FORMAT },
        { "{\"n_layer\": 100000}", "n_layer", QN_ERR_FORMAT },
        { "{\"tie_word_embeddings\": 1}", "tie_word_embeddings", QN_ERR_FORMAT },
        { "{\"activation_function\": \"selu\"}", "selu", QN_ERR_FORMAT },
        { "{\"gate_type\": \"top\"}", "\"mlp\", \"linear\", \"gmm\"", QN_ERR_FORMAT },
        { "{\"att_func\": \"softmax\"}", "only stickbreaking", QN_ERR_FORMAT },
        { "{\"pre_norm\": false}", "only true", QN_ERR_FORMAT },
        { "{\"n_embd\": 8, \"hidden_size\": 8}", "same as n_embd", QN_ERR_FORMAT },
        { "{\"att_hidden\": 30, \"n_head\": 4}", "att_hidden 30", QN_ERR_INVALID },
        { "{\"att_hidden\": 4096, \"n_head\": 1}", "at most 1024", QN_ERR_INVALID },
        { "{\"k_att\": 3, \"n_att_experts\": 2}", "k_att 3", QN_ERR_INVALID },
        { "{\"k_mlp\": 5, \"n_mlp_experts\": 4}", "k_mlp 5", QN_ERR_INVALID },
        { "{\"sample_topk\": 3}", "sample_topk 3", QN_ERR_INVALID },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qn_model_config c = { .vocab_size = 42 };
        scratch_write_text("bad.json", rows[i].text);
        assert_fails(qn_model_config_read(scratch("bad.json"), &c), rows[i].code, rows[i].part);
        assert_non_null(strstr(qn_error_message(), "bad.json"));
        assert_int_equal(c.vocab_size, 42);
    }
}

// The published sizes, and the identity for the others. [moduleformer] section 2
static void test_parameter_counts(void **state)
{
    (void)state;
    qn_model_config c = {
        .vocab_size = 50295, .n_embd = 1024, .n_layer = 24, .n_head = 1, .att_hidden = 1024,
        .ffd_hidden = 2048, .n_att_experts = 16, .k_att = 2, .n_mlp_experts = 32, .k_mlp = 2,
        .gating_size = 256,
    };
    assert_int_equal(qn_model_count(&c).parameters, 4142526464);
    assert_int_equal((qn_model_count(&c).active + 5000000) / 10000000, 37);
    c.k_att = c.k_mlp = 4;
    assert_int_equal(qn_model_count(&c).parameters, 4142526464);
    assert_int_equal((qn_model_count(&c).active + 5000000) / 10000000, 67);
    c.k_att = c.k_mlp = 2;
    c.n_layer = 48;
    assert_int_equal(qn_model_count(&c).parameters, 8182046720);
    c.n_head = 8; // now keys and values have projections of their own
    c.att_hidden = 512;
    const int64_t V = c.vocab_size, C = 1024, A = 512, F = 2048, R = 256, L = 48;
    assert_int_equal(qn_model_count(&c).parameters,
                     2 * V * C + 2 * C + L * (2 * 16 * C * A + 2 * 32 * C * F + 4 * C +
                     2 * (R * C + R) + R * (16 + 32) + 2 * (A * C + A)));
}

// ------------------------------------------------------------------------------ data

// Each epoch visits every window once, from any index on; windows follow each other in the text.
static void test_windows(void **state)
{
    (void)state;
    enum { TOKENS = 1003, T = 10 };
    int32_t tokens[TOKENS], ids[T], labels[T];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i;
    qn_windows w = { tokens, TOKENS, T, 5 };
    const uint64_t n = qn_windows_per_epoch(&w);
    assert_true(n >= (TOKENS - 1) / T - 1 && n <= (TOKENS - 1) / T);
    int same_order = 0, first[2] = { -1, -1 };
    int32_t order[200];
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        bool seen[TOKENS] = { false };
        for (uint64_t i = 0; i < n; i++) {
            qn_windows_get(&w, epoch * n + i, ids, labels);
            for (int k = 0; k < T; k++) {
                assert_in_range(ids[k], 0, TOKENS - 2);
                assert_int_equal(ids[k], ids[0] + k);
                assert_int_equal(labels[k], ids[k] + 1);
                assert_false(seen[ids[k]]);
                seen[ids[k]] = true;
            }
            if (epoch == 0) order[i] = ids[0] / T;
            same_order += epoch == 1 && order[i] == ids[0] / T;
            if (i == 0 && epoch < 2) first[epoch] = ids[0];
        }
    }
    assert_true(same_order < 20);
    qn_windows_get(&w, n, ids, labels); // by index alone
    assert_int_equal(ids[0], first[1]);
    w.count = T;
    assert_int_equal(qn_windows_per_epoch(&w), 0);
    w.count = T + 1;
    assert_int_equal(qn_windows_per_epoch(&w), 1);
    qn_windows_get(&w, 7, ids, labels);
    assert_int_equal(ids[0], 0);
}

static void test_corpus_split(void **state)
{
    (void)state;
    char text[4000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i % 40 == 39 ? '\n' : 'a';
    qn_corpus c = { .text = text, .size = sizeof text };
    qn_slice train, held;
    assert_ok(qn_corpus_split(&c, 0.1, &train, &held));
    assert_int_equal(train.size + held.size, sizeof text);
    assert_ptr_equal(train.data + train.size, held.data);
    assert_int_equal(held.data[-1], '\n');
    assert_in_range(held.size, 360, 400);
    assert_ok(qn_corpus_split(&c, 0, &train, &held));
    assert_int_equal(held.size, 0);
    for (size_t i = 0; i + 1 < sizeof text; i += 2) memcpy(text + i, "\xc3\xa9", 2);
    assert_ok(qn_corpus_split(&c, 0.33333, &train, &held)); // characters stay whole
    assert_int_equal((unsigned char)held.data[0], 0xc3);
    c.size = 1;
    assert_fails(qn_corpus_split(&c, 0.5, &train, &held), QN_ERR_INVALID, "too short");
}

// ------------------------------------------------------------------------------ numbers

// Known answers that are published with the generator. [philox]
static void test_philox(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed, stream, counter;
        uint32_t words[4];
    } rows[] = {
        { 0, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { UINT64_MAX, UINT64_MAX, UINT64_MAX, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { 0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88,
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        qn_philox(rows[i].seed, rows[i].stream, rows[i].counter, out);
        assert_memory_equal(out, rows[i].words, sizeof out);
    }
}

static void test_random(void **state)
{
    (void)state;
    enum { DRAWS = 100000 };
    qn_random r = qn_random_start(1, 2);
    double sum = 0, square = 0, unit = 0;
    int below[7] = { 0 };
    for (int i = 0; i < DRAWS; i++) {
        double x = qn_random_normal(&r), u = qn_random_unit(&r);
        sum += x;
        square += x * x;
        unit += u;
        assert_true(u >= 0 && u < 1);
        below[qn_random_below(&r, 7)]++;
    }
    // Five standard deviations of each mean.
    assert_true(fabs(sum / DRAWS) < 5 / sqrt(DRAWS));
    assert_true(fabs(square / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(unit / DRAWS - 0.5) < 5 * sqrt(1 / 12.0 / DRAWS));
    for (int i = 0; i < 7; i++)
        assert_true(fabs(below[i] - DRAWS / 7.0) < 5 * sqrt(DRAWS * 6 / 49.0));
}

static void test_permute(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 1, 2, 3, 4, 5, 16, 17, 100, 257, 1000 };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const uint64_t n = sizes[s];
        uint64_t fixed = 0;
        bool hit[1000] = { false };
        for (uint64_t i = 0; i < n; i++) {
            uint64_t to = qn_permute(i, n, 99);
            assert_true(to < n);
            assert_false(hit[to]);
            hit[to] = true;
            fixed += to == i;
        }
        if (n >= 100) assert_true(fixed < 10);
    }
    assert_true(qn_permute(12345, (uint64_t)1 << 40, 1) < (uint64_t)1 << 40);
}

static double f16_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
    return h & 0x8000 ? -x : x;
}

static float bf16_value(uint16_t b)
{
    uint32_t u = (uint32_t)b << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

// Every 16-bit value comes back; what lies between two goes to the nearer, the middle to the even.
static void test_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float x = (float)f16_value((uint16_t)h);
        double next = h == 0x7bff ? 65536 : f16_value((uint16_t)(h + 1));
        float middle = (float)(((double)x + next) / 2); // exact: 12 bits
        assert_int_equal(qn_f16_from_f32(x), h);
        assert_int_equal(qn_f16_from_f32(-x), h | 0x8000);
        assert_int_equal(qn_f16_from_f32(nextafterf(middle, -1)), h);
        assert_int_equal(qn_f16_from_f32(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(qn_f16_from_f32(middle), h + (h & 1));
    }
    for (uint32_t b = 0; b < 0x7f80; b++) {
        uint32_t u = b << 16 | 0x8000;
        float middle;
        memcpy(&middle, &u, sizeof middle);
        assert_int_equal(qn_bf16_from_f32(bf16_value((uint16_t)b)), b);
        assert_int_equal(qn_bf16_from_f32(-bf16_value((uint16_t)b)), b | 0x8000);
        assert_int_equal(qn_bf16_from_f32(middle), b + (b & 1));
        assert_int_equal(qn_bf16_from_f32(nextafterf(middle, INFINITY)), b + 1);
        assert_int_equal(qn_bf16_from_f32(nextafterf(middle, -1)), b);
    }
    assert_int_equal(qn_f16_from_f32(INFINITY), 0x7c00);
    assert_int_equal(qn_f16_from_f32(-1e30f), 0xfc00);
    assert_int_equal(qn_bf16_from_f32(INFINITY), 0x7f80);
    assert_true((qn_f16_from_f32(NAN) & 0x7fff) > 0x7c00);
    assert_true((qn_bf16_from_f32(NAN) & 0x7fff) > 0x7f80);
}

// ------------------------------------------------------------------------------ decoding

enum { LENGTH = 21, VOCABULARY = 260 };

static void feed(qn_decoder *d, const int32_t *ids, int64_t piece, float *logits)
{
    qn_decoder_reset(d);
    for (int64_t at = 0; at < LENGTH; at += piece)
        assert_ok(qn_decoder_feed(d, ids + at, NULL, at + piece < LENGTH ? piece : LENGTH - at,
                                  logits));
    assert_int_equal(qn_decoder_used(d), LENGTH);
}

static void test_decoder(void **state)
{
    (void)state;
    qn_model_config c;
    scratch_write_text("config.json", TINY_CONFIG);
    assert_ok(qn_model_config_read(scratch("config.json"), &c));
    c.n_layer = 2;
    qn_store *w;
    qn_decoder *d;
    assert_ok(qn_store_create(qn_test_device(), "weights", &w));
    assert_ok(qn_model_declare(&c, w, QN_F32));
    assert_ok(qn_store_allocate(w));
    assert_ok(qn_model_initialise(&c, w, 6, false));
    assert_ok(qn_decoder_create(qn_test_device(), &c, w,
                                &(qn_decoder_opts){ .context = LENGTH + 1, .chunk = 8 }, &d));
    int32_t ids[LENGTH];
    for (int i = 0; i < LENGTH; i++) ids[i] = (i * 53 + 7) % VOCABULARY;
    static float one[VOCABULARY], some[VOCABULARY];
    feed(d, ids, 1, one);
    double most = 0;
    for (int i = 0; i < VOCABULARY; i++) most = fmax(most, fabs((double)one[i]));
    assert_true(most > 0);
    // Sums of at most 24 terms, through a dozen operations: 300 roundings of 2^-24 are 2e-5.
    static const int64_t pieces[] = { 2, 5, 8, LENGTH };
    for (int p = 0; p < 4; p++) {
        feed(d, ids, pieces[p], some);
        for (int i = 0; i < VOCABULARY; i++)
            assert_true(fabs((double)one[i] - (double)some[i]) <= 2e-5 * most);
    }
    assert_ok(qn_decoder_feed(d, ids, NULL, 1, NULL));
    assert_fails(qn_decoder_feed(d, ids, NULL, 1, NULL), QN_ERR_INVALID, "22 are filled");
    qn_decoder_reset(d);
    assert_fails(qn_decoder_feed(d, ids, NULL, 0, NULL), QN_ERR_INVALID, "no tokens");
    assert_fails(qn_decoder_feed(d, &(int32_t){ VOCABULARY }, NULL, 1, NULL), QN_ERR_INVALID,
                 "outside the vocabulary");
    assert_fails(qn_decoder_feed(d, &(int32_t){ -1 }, NULL, 1, NULL), QN_ERR_INVALID, "token -1");
    assert_int_equal(qn_decoder_used(d), 0);
    qn_decoder_destroy(&d);
    qn_store_destroy(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_round_trip), cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_parameter_counts),  cmocka_unit_test(test_windows),
        cmocka_unit_test(test_corpus_split),
        cmocka_unit_test(test_philox),            cmocka_unit_test(test_random),
        cmocka_unit_test(test_permute),           cmocka_unit_test(test_half),
        cmocka_unit_test(test_decoder),
    };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove) + qn_device_finish();
}
