// Reads weights tensor by tensor, converts them piece by piece, writes them in the other format.
#include "convert.h"
#include "fail.h"
#include "generate.h"
#include "mem.h"
#include "platform.h"
#include "text/bpe.h"
#include "weights.h"

#include <quoin/blocks.h>

#include <string.h>

enum { PIECE = 1 << 20 }; // values at once, a multiple of any block
static const uint64_t shard_limit = UINT64_C(5000000000);

typedef struct conversion {
    const qn_weights *from;
    const qn_model_config *config;
    const qn_convert_opts *o;
    qn_gguf_writer *gguf;      // one of the two
    qn_safetensors_writer *st;
    const char *due;           // safetensors: the tensor that is to be written
    uint64_t done, total;
    uint64_t of_type[QN_DTYPE_COUNT]; // bytes of matrices
    float *piece;
    uint8_t *blocks;
} conversion;

// ------------------------------------------------------------------------------ data

static qn_result write_bytes(conversion *c, const void *data, uint64_t size)
{
    QN_TRY(c->gguf ? qn_gguf_write(c->gguf, data, size) : qn_safetensors_write(c->st, data, size));
    c->done += size;
    const qn_load_progress *p = &c->o->progress;
    if (!p->report || p->report(p->user, c->done, c->total)) return QN_OK;
    return qn_fail(QN_ERR_CANCELLED, "the conversion was stopped");
}

static qn_result write_piece(conversion *c, const qn_param_info *p, const qn_weight *w,
                             qn_dtype type, uint64_t first, uint64_t n)
{
    if (type == w->dtype) { // blocks too: file to file
        const uint64_t size = qn_dtype_is_block(type) ? n / QN_BLOCK * qn_block_bytes(type)
                                                      : n * qn_dtype_size(type);
        const uint64_t at = qn_dtype_is_block(type) ? first / QN_BLOCK * qn_block_bytes(type)
                                                    : first * qn_dtype_size(type);
        return write_bytes(c, (const char *)w->data + at, size);
    }
    QN_TRY(qn_weight_f32(w, first, n, c->piece));
    if (type == QN_F32) return write_bytes(c, c->piece, n * sizeof *c->piece);
    if (!qn_dtype_is_block(type)) {
        qn_narrow(c->piece, (size_t)n, type);
        return write_bytes(c, c->piece, n * qn_dtype_size(type));
    }
    if (!qn_blocks_from_f32(type, c->piece, (size_t)(n / QN_BLOCK), c->blocks))
        return qn_fail(QN_ERR_FORMAT, "tensor %s holds NaN, infinity or values too large for %s",
                       p->name, qn_dtype_name(type));
    return write_bytes(c, c->blocks, n / QN_BLOCK * qn_block_bytes(type));
}

// Embeddings keep their type in files; devices widen them. Vectors are f32, as in every reader.
static qn_dtype type_of(const conversion *c, const qn_param_info *p, const qn_weight *w)
{
    if (p->kind != QN_PARAM_EMBEDDING) return qn_weight_kept(p, w, c->o->weights);
    qn_dtype stored = w->dtype == QN_DTYPE_COUNT ? QN_F32 : w->dtype, wanted = c->o->weights;
    return wanted == QN_AS_STORED || qn_dtype_is_block(wanted) ? stored : wanted;
}

static qn_result write_one(void *user, const qn_param_info *p)
{
    conversion *c = user;
    qn_weight w;
    if (c->due && strcmp(c->due, p->name) != 0) return QN_OK;
    QN_TRY(qn_weights_find(c->from, p, &w));
    const qn_dtype type = type_of(c, p, &w);
    for (uint64_t at = 0; at < w.count; at += PIECE)
        QN_TRY(write_piece(c, p, &w, type, at, w.count - at < PIECE ? w.count - at : PIECE));
    qn_map_release(w.data, w.size);
    return QN_OK;
}

// ------------------------------------------------------------------------------ declarations

static uint32_t gguf_type(qn_dtype t)
{
    static const uint32_t types[QN_DTYPE_COUNT] = {
        [QN_F32] = QN_GGUF_TENSOR_F32,   [QN_F16] = QN_GGUF_TENSOR_F16,
        [QN_BF16] = QN_GGUF_TENSOR_BF16, [QN_Q8_0] = QN_GGUF_TENSOR_Q8_0,
        [QN_Q4_0] = QN_GGUF_TENSOR_Q4_0,
    };
    return types[t];
}

static qn_result declare_one(void *user, const qn_param_info *p)
{
    conversion *c = user;
    qn_weight w;
    QN_TRY(qn_weights_find(c->from, p, &w));
    const qn_dtype type = type_of(c, p, &w);
    const uint64_t bytes = qn_gguf_bytes(gguf_type(type), w.count);
    c->total += bytes;
    c->of_type[type] += bytes;
    if (c->gguf) {
        char name[QN_GGUF_NAME];
        return qn_gguf_add(c->gguf, qn_gguf_name_of(p->name, name), gguf_type(type), p->shape.rank,
                           p->shape.dim);
    }
    if (qn_dtype_is_block(type))
        return qn_fail(QN_ERR_UNSUPPORTED, "a folder of safetensors cannot hold %s weights; write a "
                                           ".gguf file", qn_dtype_name(type));
    const qn_st_dtype st = type == QN_F16 ? QN_ST_F16 : type == QN_BF16 ? QN_ST_BF16 : QN_ST_F32;
    return qn_safetensors_add(c->st, p->name, st, p->shape.rank, p->shape.dim);
}

// What most of the bytes are, as general.file_type counts.
static uint32_t file_type(const conversion *c)
{
    static const uint32_t types[QN_DTYPE_COUNT] = {
        [QN_F32] = 0, [QN_F16] = 1, [QN_BF16] = 32, [QN_Q8_0] = 7, [QN_Q4_0] = 2,
    };
    int most = QN_F32;
    for (int t = 0; t < QN_DTYPE_COUNT; t++)
        if (c->of_type[t] > c->of_type[most]) most = t;
    return types[most];
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static qn_result put_metadata(conversion *c, const char *from, const qn_tokenizer *tokenizer)
{
    qn_gguf_writer *w = c->gguf;
    const qn_model_config *m = c->config;
    char *config = NULL, *tokens = NULL;
    qn_result r = qn_model_config_text(m, &config);
    if (r == QN_OK) r = qn_tokenizer_text(tokenizer, &tokens);
    if (r == QN_OK) r = qn_gguf_put_text(w, "general.architecture", "moduleformer");
    if (r == QN_OK) r = qn_gguf_put_text(w, "general.name", base_name(from));
    if (r == QN_OK) r = qn_gguf_put_u32(w, "general.file_type", file_type(c));
    if (r == QN_OK) r = qn_gguf_put_u32(w, "general.quantization_version", 2);
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        { "moduleformer.context_length", m->block_size + m->history_length },
        { "moduleformer.embedding_length", m->n_embd },
        { "moduleformer.block_count", m->n_layer },
        { "moduleformer.feed_forward_length", m->ffd_hidden },
        { "moduleformer.attention.head_count", m->n_head },
        { "moduleformer.attention.head_count_kv", m->n_head },
        { "moduleformer.expert_count", m->n_mlp_experts },
        { "moduleformer.expert_used_count", m->k_mlp },
        { "moduleformer.vocab_size", m->vocab_size },
        { "tokenizer.ggml.bos_token_id", m->bos_token_id },
        { "tokenizer.ggml.eos_token_id", m->eos_token_id },
    };
    for (size_t i = 0; r == QN_OK && i < sizeof numbers / sizeof *numbers; i++)
        r = qn_gguf_put_u32(w, numbers[i].key, (uint32_t)numbers[i].value);
    if (r == QN_OK) r = qn_gguf_put_f32(w, "moduleformer.attention.layer_norm_epsilon", 1e-5f);
    if (r == QN_OK) r = qn_gguf_put_text(w, "quoin.config", config);
    if (r == QN_OK) r = qn_gguf_put_text(w, "tokenizer.huggingface.json", tokens);
    qn_free(config);
    qn_free(tokens);
    return r;
}

// ------------------------------------------------------------------------------ files

static qn_result write_gguf(conversion *c, const char *from, const char *to,
                            const qn_tokenizer *tokenizer)
{
    QN_TRY(qn_gguf_create(to, &c->gguf));
    qn_result r = qn_parameters(c->config, declare_one, c);
    if (r == QN_OK) r = put_metadata(c, from, tokenizer);
    if (r == QN_OK) r = qn_parameters(c->config, write_one, c);
    if (r == QN_OK) return qn_gguf_commit(&c->gguf);
    qn_gguf_abandon(&c->gguf);
    return r;
}

static qn_result in_folder(const char *dir, const char *name, char **out)
{
    *out = qn_path_join(dir, name);
    return *out ? QN_OK : qn_no_memory(strlen(dir));
}

static qn_result write_tensors(conversion *c, const char *to)
{
    static const qn_st_meta meta[] = { { "format", "pt" } };
    char *path;
    QN_TRY(in_folder(to, "model.safetensors", &path));
    qn_safetensors_opts opts = { .meta = meta, .meta_count = 1, .shard_limit = shard_limit };
    qn_result r = qn_safetensors_create(path, &opts, &c->st);
    qn_free(path);
    if (r == QN_OK) r = qn_parameters(c->config, declare_one, c);
    const qn_safetensor *t = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(c->st, &t)) == QN_OK && t) {
        c->due = t->name;
        r = qn_parameters(c->config, write_one, c);
    }
    if (r == QN_OK) return qn_safetensors_commit(&c->st);
    if (c->st) qn_safetensors_abandon(&c->st);
    return r;
}

static qn_result write_folder(conversion *c, const char *to, const qn_tokenizer *tokenizer)
{
    char *config = NULL, *tokens = NULL;
    qn_result r = qn_make_dirs(to);
    if (r == QN_OK) r = write_tensors(c, to);
    if (r == QN_OK) r = in_folder(to, "config.json", &config);
    if (r == QN_OK) r = in_folder(to, "tokenizer.json", &tokens);
    if (r == QN_OK) r = qn_tokenizer_save(tokenizer, tokens);
    if (r == QN_OK) r = qn_model_config_write(c->config, config);
    qn_free(config);
    qn_free(tokens);
    return r;
}

qn_result qn_convert(const char *from, const char *to, const qn_convert_opts *opts)
{
    qn_folder f = { 0 };
    qn_weights w = { 0 };
    if (qn_same_file(from, to))
        return qn_fail(QN_ERR_INVALID, "%s would be written over itself", from);
    QN_TRY(qn_folder_parts(from, &w, &f));
    conversion c = { .from = &w, .config = &f.config, .o = opts };
    c.piece = qn_malloc(PIECE * sizeof *c.piece);
    c.blocks = qn_malloc(PIECE / QN_BLOCK * 34);
    qn_result r = c.piece && c.blocks ? QN_OK : qn_no_memory(PIECE * sizeof *c.piece);
    if (r == QN_OK) r = qn_context_add(qn_weights_check(&w, &f.config), "%s", from);
    if (r == QN_OK)
        r = qn_is_gguf(to) ? write_gguf(&c, from, to, f.tokenizer)
                           : write_folder(&c, to, f.tokenizer);
    qn_free(c.piece);
    qn_free(c.blocks);
    qn_weights_close(&w);
    qn_folder_close(&f);
    return r;
}
