// The tokenizer: golden folders, both forms of files, refusals, streams, hostile text, training.
#include <quoin/tokenizer.h>

#include "scratch.h"
#include "text/golden.h"
#include "text/pretokenize.h"

#define GOLDEN QN_SOURCE_DIR "/tests/golden/tokenizer"

typedef struct tally {
    int passed, failed;
} tally;

static void count_line(void *user, const char *name, bool passed, const char *detail)
{
    tally *t = user;
    *(passed ? &t->passed : &t->failed) += 1;
    assert_true(*name && passed == !*detail);
}

static void show_line(void *user, const char *name, bool passed, const char *detail)
{
    count_line(user, name, passed, detail);
    if (!passed) print_error("%s: %s\n", name, detail);
}

static tally replay(const char *dir)
{
    tally t = { 0 };
    assert_true(qn_golden_tokenizer_matches(dir));
    assert_ok(qn_golden_tokenizer(dir, show_line, &t));
    assert_int_equal(t.failed, 0);
    assert_true(t.passed > 0);
    return t;
}

static void golden_folders_match(void **state)
{
    (void)state;
    assert_int_equal(replay(GOLDEN).passed, 7);
    assert_int_equal(replay(GOLDEN "/small").passed, 36);
    assert_int_equal(replay(GOLDEN "/stripping").passed, 43);
    assert_false(qn_golden_tokenizer_matches(QN_SOURCE_DIR "/tests"));
    const char *shared = QN_SOURCE_DIR "/../shared/golden/tokenizer";
    if (!qn_is_dir(shared)) return;
    replay(shared);
    replay(QN_SOURCE_DIR "/../shared/golden/tokenizer/t512");
    replay(QN_SOURCE_DIR "/../shared/golden/tokenizer/t4096");
}

// What the replay reports when something is wrong.
static void golden_faults_are_seen(void **state)
{
    (void)state;
    size_t size;
    char *json;
    tally t = { 0 };
    assert_ok(qn_read_file(GOLDEN "/small/tokenizer.json", 1 << 20, &json, &size));
    scratch_write("tokenizer.json", json, size);
    qn_free(json);
    scratch_write_text("encodings.json",
                       "{\"encode\": [{\"name\": \"a\", \"text\": \"a\", \"ids\": [1]},"
                       " {\"name\": \"b\", \"text\": \"b\", \"ids\": []}],"
                       " \"decode\": [{\"name\": \"c\", \"ids\": [1], \"bytes_hex\": \"00\"}]}");
    scratch_write_text("trainer_cases.json",
                       "[{\"name\": \"d\", \"text\": \"aa aa\", \"size\": 257, \"special\": [],"
                       " \"merges\": [[\"a\", \"b\"]], \"n_vocab\": 257}]");
    scratch_write_text("corpus.txt", "some text");
    scratch_write_text("corpus_fingerprint.json",
                       "{\"corpus\": \"corpus.txt\", \"bytes\": 9, \"n_ids\": 3, \"first_ids\": [],"
                       " \"fnv1a64_over_ids_as_integers\": \"0000000000000000\"}");
    assert_ok(qn_golden_tokenizer(QN_SCRATCH_DIR, count_line, &t));
    assert_int_equal(t.failed, 5);
    assert_int_equal(t.passed, 0);
    scratch_write_text("corpus_fingerprint.json", "{\"corpus\": \"../../secret\"}");
    assert_fails(qn_golden_tokenizer(QN_SCRATCH_DIR, count_line, &t), QN_ERR_FORMAT, "corpus");
    static const char *const files[] = { "tokenizer.json", "encodings.json", "trainer_cases.json",
                                         "corpus.txt", "corpus_fingerprint.json" };
    for (size_t i = 0; i < 5; i++) assert_ok(qn_remove_tree(scratch(files[i])));
}

static qn_tokenizer *open_small(void)
{
    qn_tokenizer *t;
    assert_ok(qn_tokenizer_open(GOLDEN "/small", &t));
    return t;
}

static const char text[] = "It's the bridge<|endoftext|>  n\xC3\xA9 \xFF\xE6\xA9\x8B\n\n x = 12;";

static void expect_same_tokens(const qn_tokenizer *a, const qn_tokenizer *b)
{
    qn_tokens p = { 0 }, q = { 0 };
    assert_ok(qn_tokenizer_encode(a, text, sizeof text - 1, NULL, &p));
    assert_ok(qn_tokenizer_encode(b, text, sizeof text - 1, NULL, &q));
    assert_int_equal(p.count, q.count);
    assert_memory_equal(p.id, q.id, p.count * sizeof *p.id);
    qn_tokens_free(&p);
    qn_tokens_free(&q);
}

static void saved_files_behave_the_same(void **state)
{
    (void)state;
    static const char *const folders[] = { GOLDEN "/small", GOLDEN "/stripping" };
    for (int i = 0; i < 2; i++) {
        qn_tokenizer *t, *back;
        size_t m, n;
        assert_ok(qn_tokenizer_open(folders[i], &t));
        assert_ok(qn_tokenizer_save(t, scratch("saved.json")));
        assert_ok(qn_tokenizer_open(scratch("saved.json"), &back));
        expect_same_tokens(t, back);
        assert_int_equal(qn_tokenizer_size(t), qn_tokenizer_size(back));
        assert_ok(qn_tokenizer_save(back, scratch("again.json")));
        char *a, *b;
        scratch_read("saved.json", &a, &m);
        scratch_read("again.json", &b, &n);
        assert_int_equal(m, n);
        assert_memory_equal(a, b, m);
        qn_free(a);
        qn_free(b);
        qn_tokenizer_close(&t);
        qn_tokenizer_close(&back);
        assert_null(t);
    }
}

// vocab.json, merges.txt and added_tokens.json made from a tokenizer.json.
static void write_older_form(const qn_tokenizer *t)
{
    size_t size;
    assert_ok(qn_make_dirs(scratch("older")));
    assert_ok(qn_tokenizer_save(t, scratch("saved.json")));
    char *json;
    scratch_read("saved.json", &json, &size);
    char *vocab = strstr(json, "\"vocab\": {") + strlen("\"vocab\": ");
    char *merges = strstr(json, "\"merges\": [") + strlen("\"merges\": [");
    char *end = strchr(vocab, '}'); // a key with a brace is not among the first
    while (end[1] != ',' || end[2] != '\n') end = strchr(end + 1, '}');
    scratch_write("older/vocab.json", vocab, (size_t)(end + 1 - vocab));
    FILE *f = fopen(scratch("older/merges.txt"), "wb");
    assert_non_null(f);
    fputs("#version: 0.2\r\n", f);
    for (char *line = strtok(merges, "\n"); line; line = strtok(NULL, "\n")) {
        char *first = strchr(line, '"'), *last = strrchr(line, '"');
        if (!first) break;
        for (char *p = first + 1; p < last; p++)
            if (*p != '\\') fputc(*p, f); // only '"' and '\' are escaped here, never both
        fputs("\r\n", f);
    }
    assert_int_equal(fclose(f), 0);
    qn_free(json);
}

static void the_older_form_behaves_the_same(void **state)
{
    (void)state;
    qn_tokenizer *t = open_small(), *older;
    write_older_form(t);
    assert_ok(qn_tokenizer_open(scratch("older"), &older));
    expect_same_tokens(t, older);
    assert_true(qn_token_is_special(older, qn_tokenizer_find(older, "<|endoftext|>")));
    qn_tokenizer_close(&older);
    scratch_write_text("older/added_tokens.json", "{\"  \": 320, \"<|endoftext|>\": 0}");
    assert_ok(qn_tokenizer_open(scratch("older"), &older));
    assert_int_equal(qn_tokenizer_find(older, "  "), 320);
    assert_int_equal(qn_tokenizer_size(older), 321);
    qn_tokenizer_close(&older);
    scratch_write_text("older/added_tokens.json", "{\"  \": 5}");
    assert_fails(qn_tokenizer_open(scratch("older"), &older), QN_ERR_FORMAT,
                 "added_tokens.json: added token \"  \": id 5 belongs to");
    assert_ok(qn_remove_tree(scratch("older/added_tokens.json")));
    scratch_write_text("older/merges.txt", "#version: 0.2\nh e\nt h e\n");
    assert_fails(qn_tokenizer_open(scratch("older"), &older), QN_ERR_FORMAT,
                 "merges.txt: line 3: found \"t h e\", expected two tokens");
    scratch_write_text("older/merges.txt", "q z\n");
    assert_fails(qn_tokenizer_open(scratch("older"), &older), QN_ERR_FORMAT,
                 "merges.txt: line 1: \"qz\" is not in the vocabulary");
    assert_ok(qn_remove_tree(scratch("older/merges.txt")));
    assert_fails(qn_tokenizer_open(scratch("older"), &older), QN_ERR_IO, "nor vocab.json");
    qn_tokenizer_close(&t);
}

// The text of the small tokenizer with its first `from` replaced by `to`.
static void write_changed(const char *name, const char *from, const char *to)
{
    size_t size;
    char *json;
    assert_ok(qn_read_file(GOLDEN "/small/tokenizer.json", 1 << 20, &json, &size));
    char *at = strstr(json, from);
    assert_non_null(at);
    char *changed = qn_malloc(size + strlen(to) + 1);
    assert_non_null(changed);
    snprintf(changed, size + strlen(to) + 1, "%.*s%s%s", (int)(at - json), json, to,
             at + strlen(from));
    scratch_write_text(name, changed);
    qn_free(changed);
    qn_free(json);
}

#define PRE                                                                                        \
    "\"pre_tokenizer\": {\n  \"type\": \"ByteLevel\",\n  \"add_prefix_space\": false,\n"           \
    "  \"trim_offsets\": true,\n  \"use_regex\": true\n }"
#define POST                                                                                       \
    "\"post_processor\": {\n  \"type\": \"ByteLevel\",\n  \"add_prefix_space\": false,\n"          \
    "  \"trim_offsets\": false,\n  \"use_regex\": true\n }"
#define SPLIT(pattern, rest)                                                                       \
    "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", "       \
    "\"pattern\": {\"Regex\": \"" pattern "\"}, \"behavior\": \"Isolated\", \"invert\": false}, "  \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}" rest "]}"

static void what_is_not_done_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
        qn_result code;
    } cases[] = {
        { "\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "model: type \"WordPiece\"",
          QN_ERR_UNSUPPORTED },
        { "\"dropout\": null", "\"dropout\": 0.1", "model.dropout: this setting",
          QN_ERR_UNSUPPORTED },
        { "\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback",
          QN_ERR_UNSUPPORTED },
        { "\"end_of_word_suffix\": \"\"", "\"end_of_word_suffix\": \"</w>\"", "end_of_word_suffix",
          QN_ERR_UNSUPPORTED },
        { "\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", "normalizer: type \"NFC\"",
          QN_ERR_UNSUPPORTED },
        { PRE, "\"pre_tokenizer\": {\"type\": \"Metaspace\"}", "pre_tokenizer: type \"Metaspace\"",
          QN_ERR_UNSUPPORTED },
        { PRE, "\"pre_tokenizer\": null", "pre_tokenizer: found null, expected an object",
          QN_ERR_FORMAT },
        { "\"add_prefix_space\": false", "\"add_prefix_space\": true", "add_prefix_space",
          QN_ERR_UNSUPPORTED },
        { "\"use_regex\": true", "\"use_regex\": false", "ByteLevel without its pattern",
          QN_ERR_UNSUPPORTED },
        { PRE, SPLIT("a", ", {\"type\": \"Digits\"}"), "pretokenizers[2]: type \"Digits\"",
          QN_ERR_UNSUPPORTED },
        { PRE, SPLIT("(", ""), "splitting pattern \"(\"", QN_ERR_FORMAT },
        { PRE, SPLIT("\\\\w+", ""), "is not supported", QN_ERR_UNSUPPORTED },
        { PRE, SPLIT("[a&&b]", ""), "is not supported", QN_ERR_UNSUPPORTED },
        { PRE, SPLIT("a\\\\", ""), "is not supported", QN_ERR_UNSUPPORTED },
        { POST, "\"post_processor\": {\"type\": \"BertProcessing\"}",
          "post_processor: type \"BertProcessing\"", QN_ERR_UNSUPPORTED },
        { "\"single_word\": false", "\"single_word\": true", "added_tokens[0].single_word",
          QN_ERR_UNSUPPORTED },
        { "\"id\": 0", "\"id\": 1", "id 1, but the vocabulary says 0", QN_ERR_FORMAT },
        { "\"id\": 0", "\"id\": -1", "added_tokens[0].id: found -1", QN_ERR_FORMAT },
        { "\"content\": \"<|endoftext|>\"", "\"content\": \"\"", "an added token of 0 bytes",
          QN_ERR_FORMAT },
        { "\"content\": \"<|endoftext|>\"", "\"content\": \"x y\"", "id 0 belongs to",
          QN_ERR_FORMAT },
        { "\"!\": 1,", "\"!\": 2,", "have the same id 2", QN_ERR_FORMAT },
        { "\"!\": 1,", "\"!\": 3000000,",
          "model.vocab.!: found 3000000, expected an integer from 0 to", QN_ERR_FORMAT },
        { "\"!\": 1,", "", "the vocabulary lacks a token for byte 0x21", QN_ERR_FORMAT },
        { "\"!\": 1,", "\"!\": 1, \"a b\": 500,", "\"a b\" is not spelled in the characters",
          QN_ERR_UNSUPPORTED },
        { "\"!\": 1,", "\"!\": 1, \"\": 500,", "a token of 0 bytes", QN_ERR_FORMAT },
        { "\"merges\": [", "\"merges\": [\"t\",",
          "model.merges[0]: found \"t\", expected two tokens", QN_ERR_FORMAT },
        { "\"merges\": [", "\"merges\": [\"t h e\",", "model.merges[0]: found", QN_ERR_FORMAT },
        { "\"merges\": [", "\"merges\": [[\"t\"],", "model.merges[0]", QN_ERR_FORMAT },
        { "\"merges\": [", "\"merges\": [[\"t\", \"q\"],",
          "model.merges[0]: \"tq\" is not in the vocabulary", QN_ERR_FORMAT },
        { "\"merges\": [", "\"merges\": [[\"t\", \"h\", \"e\"],", "expected a pair",
          QN_ERR_FORMAT },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_tokenizer *t = NULL;
        write_changed("changed.json", cases[i].from, cases[i].to);
        assert_fails(qn_tokenizer_open(scratch("changed.json"), &t), cases[i].code,
                     cases[i].message);
        assert_non_null(strstr(qn_error_message(), "changed.json"));
        assert_null(t);
    }
    qn_tokenizer *t;
    assert_fails(qn_tokenizer_open(scratch("gone.json"), &t), QN_ERR_IO, "gone.json");
}

static qn_tokens encode(const qn_tokenizer *t, const char *s, const qn_encode_opts *opts)
{
    qn_tokens out = { 0 };
    assert_ok(qn_tokenizer_encode(t, s, strlen(s), opts, &out));
    return out;
}

static void expect_tokens(const qn_tokenizer *t, const char *s, const qn_encode_opts *opts,
                          const char *const *want)
{
    qn_tokens got = encode(t, s, opts);
    size_t i = 0;
    for (; want[i]; i++) {
        size_t size;
        assert_true(i < got.count);
        const char *bytes = qn_token_bytes(t, got.id[i], &size);
        assert_int_equal(size, strlen(want[i]));
        assert_memory_equal(bytes, want[i], size);
    }
    assert_int_equal(got.count, i);
    qn_tokens_free(&got);
}

static void options_of_files_are_honoured(void **state)
{
    (void)state;
    qn_tokenizer *t, *back;
    qn_encode_opts sequence = { .sequence = true }, plain = { .plain = true };

    write_changed(
        "template.json", POST,
        "\"post_processor\": {\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}, "
        "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"S\"}}, "
        "{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"E\"}}], "
        "\"special_tokens\": "
        "{\"S\": {\"ids\": [0]}, \"E\": {\"ids\": [2, 0]}}}]}");
    assert_ok(qn_tokenizer_open(scratch("template.json"), &t));
    assert_ok(qn_tokenizer_save(t, scratch("saved.json")));
    assert_ok(qn_tokenizer_open(scratch("saved.json"), &back));
    for (int i = 0; i < 2; i++) {
        const qn_tokenizer *k = i ? back : t;
        expect_tokens(k, "a", NULL, (const char *[]){ "a", NULL });
        expect_tokens(k, "a", &sequence,
                      (const char *[]){ "<|endoftext|>", "a", "\"", "<|endoftext|>", NULL });
    }
    qn_tokens p = encode(t, "<|endoftext|>", NULL), q = encode(t, "<|endoftext|>", &plain);
    assert_int_equal(p.count, 1);
    assert_int_equal(p.id[0], 0);
    assert_true(q.count > 1);
    qn_tokens_free(&p);
    qn_tokens_free(&q);
    qn_tokenizer_close(&t);
    qn_tokenizer_close(&back);

    // Digits one by one, everything else in one piece. \s must not take U+180E.
    write_changed("split.json", PRE, SPLIT("\\\\p{N}|\\\\s+|[\\\\S]a", ""));
    assert_ok(qn_tokenizer_open(scratch("split.json"), &t));
    expect_tokens(t, "12", NULL, (const char *[]){ "1", "2", NULL });
    assert_ok(qn_tokenizer_save(t, scratch("saved.json")));
    assert_ok(qn_tokenizer_open(scratch("saved.json"), &back));
    expect_same_tokens(t, back);
    qn_tokenizer_close(&t);
    qn_tokenizer_close(&back);

    write_changed("whole.json", "\"ignore_merges\": false", "\"ignore_merges\": true");
    assert_ok(qn_tokenizer_open(scratch("whole.json"), &t));
    expect_tokens(t, " the", NULL, (const char *[]){ " the", NULL });
    qn_tokenizer_close(&t);
}

static void expect_pieces(const char *pattern, const char *s, const char *const *want)
{
    qn_splitter *splitter;
    qn_pieces p;
    uint8_t *clean;
    size_t begin, end, i = 0;
    assert_ok(qn_splitter_create(pattern, &splitter));
    assert_ok(qn_pieces_create(splitter, &p));
    assert_ok(qn_clean_utf8((const uint8_t *)s, strlen(s), &clean));
    qn_pieces_start(&p, clean ? clean : (const uint8_t *)s, strlen(s));
    for (;; i++) {
        assert_ok(qn_pieces_next(&p, &begin, &end));
        if (begin == end) break;
        assert_non_null(want[i]);
        assert_int_equal(end - begin, strlen(want[i]));
        assert_memory_equal(s + begin, want[i], end - begin);
    }
    assert_null(want[i]);
    qn_free(clean);
    qn_pieces_destroy(&p);
    qn_splitter_destroy(&splitter);
}

static void patterns_split_as_they_say(void **state)
{
    (void)state;
    expect_pieces(NULL, "It's  a\n\n b1!\xFF?",
                  (const char *[]){ "It", "'s", " ", " a", "\n\n", " b", "1", "!\xFF?", NULL });
    expect_pieces("llama3", "I'LL 12345!\n\nx  y",
                  (const char *[]){ "I", "'LL", " ", "123", "45", "!\n\n", "x", " ", " y", NULL });
    expect_pieces("b+", "abba", (const char *[]){ "a", "bb", "a", NULL });
    expect_pieces("x*", "ab", (const char *[]){ "ab", NULL }); // empty matches count nothing
}

static void streams_give_whole_characters(void **state)
{
    (void)state;
    qn_tokenizer *t = open_small();
    qn_tokens ids = encode(t,
                           "\xF0\x9F\x8C\x89 \xE6\xA9\x8B\xE6\xFF"
                           "a\xF0\x9F<|endoftext|>\xC3",
                           NULL);
    qn_token_stream s = { .tokenizer = t, .skip_special = true };
    qn_text out = { 0 }, whole = { 0 };
    for (size_t i = 0; i < ids.count; i++) {
        assert_ok(qn_token_stream_push(&s, ids.id[i], &out));
        for (size_t k = 0; k < out.size;) { // valid after every step
            unsigned char c = (unsigned char)out.data[k];
            size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
            assert_true(k + n <= out.size);
            for (size_t j = 1; j < n; j++) assert_int_equal(out.data[k + j] & 0xC0, 0x80);
            k += n;
        }
    }
    assert_ok(qn_token_stream_finish(&s, &out));
    assert_string_equal(out.data, "\xF0\x9F\x8C\x89 \xE6\xA9\x8B\xEF\xBF\xBD\xEF\xBF\xBD"
                                  "a\xEF\xBF\xBD\xEF\xBF\xBD");
    assert_ok(qn_tokenizer_decode(
        t, ids.id, ids.count, &(qn_decode_opts){ .skip_special = true, .repair = true }, &whole));
    assert_int_equal(whole.size, out.size);
    assert_memory_equal(whole.data, out.data, out.size);

    size_t before = out.size;
    assert_fails(qn_token_stream_push(&s, 320, &out), QN_ERR_INVALID,
                 "token 320 is not in the vocabulary of 320");
    assert_fails(qn_tokenizer_decode(t, (const int32_t[]){ 5, -1 }, 2, NULL, &out), QN_ERR_INVALID,
                 "token -1");
    assert_int_equal(out.size, before);
    qn_text_free(&out);
    qn_text_free(&whole);
    qn_tokens_free(&ids);
    qn_tokenizer_close(&t);
}

// Time that grows with the square of a piece would keep these for hours.
static void long_pieces_are_no_trap(void **state)
{
    (void)state;
    enum { SIZE = 4 << 20 };
    static const char *const units[] = { "a", " ", "\xFF", "ab", "'s", "\n ", "<|endoftext|" };
    qn_tokenizer *t = open_small(), *trained;
    char *s = qn_malloc(SIZE);
    assert_non_null(s);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        qn_tokens ids = { 0 };
        qn_text back = { 0 };
        for (size_t i = 0, n = strlen(units[u]); i < SIZE; i++) s[i] = units[u][i % n];
        assert_ok(qn_tokenizer_encode(t, s, SIZE, NULL, &ids));
        assert_ok(qn_tokenizer_decode(t, ids.id, ids.count, NULL, &back));
        assert_int_equal(back.size, SIZE);
        assert_memory_equal(back.data, s, SIZE);
        qn_tokens_free(&ids);
        qn_text_free(&back);
    }
    qn_tokenizer_train_opts opts = { .size = 300 };
    memset(s, 'a', SIZE);
    assert_ok(qn_tokenizer_train(s, SIZE, &opts, &trained));
    assert_int_equal(qn_tokenizer_size(trained), 256 + 22); // 2^22 letters: halved 22 times
    qn_tokenizer_close(&trained);
    qn_tokenizer_close(&t);
    qn_free(s);
    assert_fails(qn_tokenizer_encode(NULL, NULL, (size_t)1 << 31, NULL, NULL), QN_ERR_INVALID,
                 "2 GiB");
}

static bool stop_at_260(void *user, uint32_t tokens, uint32_t size)
{
    *(uint32_t *)user = size;
    return tokens < 260;
}

static void training_obeys_its_options(void **state)
{
    (void)state;
    static const char corpus[] = "the thing then this, the thing then this; 12 12 12";
    static const char *const special[] = { "<|e|>", "x y" }, *const added[] = { "  ", "the" };
    qn_tokenizer *t = NULL, *back;
    uint32_t size = 0;
    qn_tokenizer_train_opts opts = { .size = 264,
                                     .special = special,
                                     .special_count = 2,
                                     .added = added,
                                     .added_count = 2,
                                     .pattern = "llama3" };
    assert_ok(qn_tokenizer_train(corpus, sizeof corpus - 1, &opts, &t));
    assert_int_equal(qn_tokenizer_find(t, "<|e|>"), 0);
    assert_int_equal(qn_tokenizer_find(t, "x y"), 1);
    assert_int_equal(qn_tokenizer_find(t, "!"), 2);
    assert_int_equal(qn_tokenizer_find(t, "  "), 264);
    assert_int_equal(qn_tokenizer_find(t, "absent"), -1);
    assert_true(qn_token_is_special(t, 1));
    assert_false(qn_token_is_special(t, 264));
    assert_ok(qn_tokenizer_save(t, scratch("trained.json")));
    assert_ok(qn_tokenizer_open(scratch("trained.json"), &back));
    expect_same_tokens(t, back);
    qn_tokenizer_close(&back);
    qn_tokenizer_close(&t);

    opts.progress = stop_at_260;
    opts.user = &size;
    assert_fails(qn_tokenizer_train(corpus, sizeof corpus - 1, &opts, &t), QN_ERR_CANCELLED,
                 "stopped");
    assert_int_equal(size, 264);
    assert_null(t);
    static const struct {
        const char *special[2], *pattern, *message;
        uint32_t size;
        qn_result code;
    } bad[] = {
        { { "<s>", "</s>" }, NULL, "a vocabulary of 257, expected 258", 257, QN_ERR_INVALID },
        { { "<s>", "<s>" }, NULL, "token \"<s>\" is in the vocabulary twice", 300, QN_ERR_INVALID },
        { { "<s>", "a" }, NULL, "token \"a\" is in the vocabulary twice", 300, QN_ERR_INVALID },
        { { "<s>", "" }, NULL, "a token of 0 bytes", 300, QN_ERR_INVALID },
        { { "<s>", "\xFF" }, NULL, "special token 1 is not valid UTF-8", 300, QN_ERR_INVALID },
        { { "<s>", "</s>" }, "(", "splitting pattern", 300, QN_ERR_INVALID },
        { { "<s>", "</s>" }, NULL, "expected 258 to", 1 << 30, QN_ERR_INVALID },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        qn_tokenizer_train_opts o = { .size = bad[i].size,
                                      .special = bad[i].special,
                                      .special_count = 2,
                                      .pattern = bad[i].pattern };
        assert_fails(qn_tokenizer_train(corpus, sizeof corpus - 1, &o, &t), bad[i].code,
                     bad[i].message);
    }
}

// Every beginning of a file is refused, and no change of a byte does worse.
static void damaged_files_are_harmless(void **state)
{
    (void)state;
    size_t size;
    char *json;
    qn_tokenizer *t;
    assert_ok(qn_read_file(GOLDEN "/stripping/tokenizer.json", 1 << 20, &json, &size));
    for (size_t n = 0; n + 1 < size; n++) {
        scratch_write("cut.json", json, n);
        assert_int_equal(qn_tokenizer_open(scratch("cut.json"), &t), QN_ERR_FORMAT);
    }
    static const char bytes[] = "\"09,{]x ";
    for (size_t i = 0; i < size; i++) {
        char old = json[i];
        json[i] = bytes[i % (sizeof bytes - 1)];
        scratch_write("hurt.json", json, size);
        json[i] = old;
        qn_result r = qn_tokenizer_open(scratch("hurt.json"), &t);
        assert_true(r == QN_OK || r == QN_ERR_FORMAT || r == QN_ERR_UNSUPPORTED);
        if (r != QN_OK) continue;
        qn_tokens ids = encode(t, text, NULL);
        qn_tokens_free(&ids);
        qn_tokenizer_close(&t);
    }
    qn_free(json);
}

static qn_result use(void *state)
{
    (void)state;
    qn_tokenizer *t = NULL;
    qn_tokens ids = { 0 };
    qn_text out = { 0 };
    QN_TRY(qn_tokenizer_open(GOLDEN "/stripping", &t));
    qn_result r = qn_tokenizer_encode(t, text, sizeof text - 1, NULL, &ids);
    if (r == QN_OK) r = qn_tokenizer_decode(t, ids.id, ids.count, NULL, &out);
    qn_tokens_free(&ids);
    qn_text_free(&out);
    qn_tokenizer_close(&t);
    return r;
}

static qn_result use_older(void *state)
{
    (void)state;
    qn_tokenizer *t = NULL;
    QN_TRY(qn_tokenizer_open(scratch("older"), &t));
    qn_tokenizer_close(&t);
    return QN_OK;
}

static qn_result train_and_save(void *state)
{
    (void)state;
    qn_tokenizer *t = NULL;
    qn_tokenizer_train_opts opts = { .size = 262,
                                     .special = (const char *const[]){ "<|e|>" },
                                     .special_count = 1 };
    QN_TRY(qn_tokenizer_train(text, sizeof text - 1, &opts, &t));
    qn_result r = qn_tokenizer_save(t, scratch("saved.json"));
    qn_tokenizer_close(&t);
    return r;
}

static void memory_can_run_out(void **state)
{
    (void)state;
    qn_tokenizer *t = open_small();
    write_older_form(t);
    qn_tokenizer_close(&t);
    fail_each_allocation(use, NULL);
    fail_each_allocation(use_older, NULL);
    fail_each_allocation(train_and_save, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_folders_match),
        cmocka_unit_test(golden_faults_are_seen),
        cmocka_unit_test(saved_files_behave_the_same),
        cmocka_unit_test(the_older_form_behaves_the_same),
        cmocka_unit_test(what_is_not_done_is_refused_by_name),
        cmocka_unit_test(options_of_files_are_honoured),
        cmocka_unit_test(patterns_split_as_they_say),
        cmocka_unit_test(streams_give_whole_characters),
        cmocka_unit_test(long_pieces_are_no_trap),
        cmocka_unit_test(training_obeys_its_options),
        cmocka_unit_test(damaged_files_are_harmless),
        cmocka_unit_test(memory_can_run_out),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
