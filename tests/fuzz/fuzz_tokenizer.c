// Tokenizers. The input is a tokenizer.json, a NUL and a text; or, where the first part is not
// a tokenizer, a text alone, on which one is trained first.
#include "mem.h"
#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good) abort();
}

// Encodes and decodes in every way. Only tokens that strip blanks may lose any of the text.
static void use(const qn_tokenizer *t, const uint8_t *text, size_t size)
{
    qn_text back = { 0 }, repaired = { 0 }, streamed = { 0 };
    qn_token_stream stream = { .tokenizer = t };
    bool strips = false;
    for (size_t i = 0; i < t->count; i++) strips |= t->tokens[i].lstrip || t->tokens[i].rstrip;
    for (int plain = 0; plain < 2; plain++) {
        qn_tokens ids = { 0 };
        qn_result r = qn_tokenizer_encode(t, text, size, &(qn_encode_opts){ .plain = plain }, &ids);
        check(r == QN_OK || r == QN_ERR_UNSUPPORTED); // a pattern that backtracks without end
        back.size = repaired.size = streamed.size = 0;
        if (r == QN_OK) {
            check(qn_tokenizer_decode(t, ids.id, ids.count, NULL, &back) == QN_OK);
            check(qn_tokenizer_decode(t, ids.id, ids.count, &(qn_decode_opts){ .repair = true },
                                      &repaired) == QN_OK);
            for (size_t i = 0; i < ids.count; i++)
                check(qn_token_stream_push(&stream, ids.id[i], &streamed) == QN_OK);
            check(qn_token_stream_finish(&stream, &streamed) == QN_OK);
            check(streamed.size == repaired.size);
            check(!memcmp(streamed.data, repaired.data, streamed.size));
            bool same = back.size == size && !memcmp(back.data, text, size);
            check(same || (strips && !plain));
        }
        qn_tokens_free(&ids);
    }
    qn_text_free(&back);
    qn_text_free(&repaired);
    qn_text_free(&streamed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { TEXT = 600 }; // enough for every path, and quick
    qn_tokenizer *t;
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t first = end ? (size_t)(end - data) : 0;
    if (end && qn_tokenizer_parse("fuzz", (const char *)data, first, &t) == QN_OK) {
        size -= first + 1;
        use(t, end + 1, size < TEXT ? size : TEXT);
        qn_tokenizer_close(&t);
        return 0;
    }
    if (size > TEXT) size = TEXT;
    static const char *const special[] = { "<|e|>", "ab" };
    qn_tokenizer_train_opts opts = {
        .size = 300, .special = special, .special_count = 2, .pattern = size & 1 ? "llama3" : NULL
    };
    check(qn_tokenizer_train(data, size, &opts, &t) == QN_OK);
    use(t, data, size);
    qn_tokenizer_close(&t);
    return 0;
}
