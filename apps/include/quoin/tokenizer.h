// quoin/tokenizer.h: byte-level BPE as GPT-2, CodeGen and ModuleFormer use it. Bytes in, token ids
// out; any bytes survive encoding and decoding, valid UTF-8 or not.
#ifndef QUOIN_TOKENIZER_H
#define QUOIN_TOKENIZER_H

#include <quoin/base.h>

#ifdef __cplusplus
extern "C" {
#endif

// Token ids and bytes that calls append to. Zero-initialise; keep one for many calls.
typedef struct qn_tokens {
    int32_t *id;
    size_t count, capacity;
} qn_tokens;
typedef struct qn_text {
    char *data; // after a call that appends: a NUL follows the last byte
    size_t size, capacity;
} qn_text;
QN_API void qn_tokens_free(qn_tokens *t);
QN_API void qn_text_free(qn_text *t);

// Immutable once open, hence thread-safe.
typedef struct qn_tokenizer qn_tokenizer;

// `path` is a tokenizer.json, or a directory with one, or a directory with vocab.json, merges.txt
// and perhaps added_tokens.json. What such a file can ask for and this library does not do
// (normalizers, other models) is QN_ERR_UNSUPPORTED and named. Of a vocab.json, <|endoftext|> is
// taken as special.
QN_API qn_result qn_tokenizer_open(const char *path, qn_tokenizer **out);
QN_API void qn_tokenizer_close(qn_tokenizer **t);

// Writes a tokenizer.json, atomically. Tokenizers read from it behave the same.
QN_API qn_result qn_tokenizer_save(const qn_tokenizer *t, const char *path);

// One more than the highest id. Ids in between may be unused.
QN_API int32_t qn_tokenizer_size(const qn_tokenizer *t);
// The id of an added token's text or of a vocabulary entry as files spell it; -1: none.
QN_API int32_t qn_tokenizer_find(const qn_tokenizer *t, const char *token);
// What a token decodes to (not terminated); NULL when the id is unused.
QN_API const char *qn_token_bytes(const qn_tokenizer *t, int32_t id, size_t *size);
QN_API bool qn_token_is_special(const qn_tokenizer *t, int32_t id);

typedef struct qn_encode_opts {
    bool plain; // text from strangers: added tokens spelled out in it are ordinary text
    bool blanks_only; // the same, but for added tokens that are runs of blanks: code keeps them
    bool sequence; // put the file's beginning and end tokens around, if it names any
} qn_encode_opts;

// Appends the tokens of the text, of less than 2 GiB.
QN_API qn_result qn_tokenizer_encode(const qn_tokenizer *t, const void *text, size_t size,
                                     const qn_encode_opts *opts, qn_tokens *out);

typedef struct qn_decode_opts {
    bool skip_special; // leave special tokens out
    bool repair;       // U+FFFD instead of bytes that are not valid UTF-8
} qn_decode_opts;

// Appends the bytes of the tokens. An id that is not in use is QN_ERR_INVALID.
QN_API qn_result qn_tokenizer_decode(const qn_tokenizer *t, const int32_t *ids, size_t count,
                                     const qn_decode_opts *opts, qn_text *out);

// Decoding as tokens arrive. What is appended is always whole characters; the beginning of one is
// held back until its rest comes. All of it together is what decoding with `repair` gives.
typedef struct qn_token_stream {
    const qn_tokenizer *tokenizer;
    bool skip_special;
    uint8_t held[4];
    uint32_t held_size;
} qn_token_stream;
QN_API qn_result qn_token_stream_push(qn_token_stream *s, int32_t id, qn_text *out);
QN_API qn_result qn_token_stream_finish(qn_token_stream *s, qn_text *out); // and starts anew

typedef struct qn_tokenizer_train_opts {
    uint32_t size;              // of the vocabulary, required: at least special_count + 256
    const char *const *special; // get the first ids; NULL: none
    size_t special_count;
    const char *const *added; // get ids behind the vocabulary: runs of spaces, say
    size_t added_count;
    const char *pattern; // "gpt2" (NULL), "llama3" or a regular expression of one's own
    // Called now and then; false stops the training with QN_ERR_CANCELLED.
    bool (*progress)(void *user, uint32_t tokens, uint32_t size);
    void *user;
} qn_tokenizer_train_opts;

// Learns merges: the most frequent pair first, of equally frequent ones that with the smaller
// left, then right id. Stops early when no pair is left.
QN_API qn_result qn_tokenizer_train(const void *text, size_t size,
                                    const qn_tokenizer_train_opts *opts, qn_tokenizer **out);

#ifdef __cplusplus
}
#endif
#endif
