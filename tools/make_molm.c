// Writes a model folder with the shapes of MoLM-350M-4B and random weights in bf16, 8.4 GB with all
// 24 layers: for trying sizes and speeds without the published files. Its tokenizer knows bytes only.
//
//     ninja -C build make_molm
//     build/apps/make_molm DIR [LAYERS [SEED]]
#include "fail.h"
#include "llm/parameters.h"
#include "mem.h"
#include "platform.h"

#include <quoin/io.h>
#include <quoin/tokenizer.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20 }; // values written at once

typedef struct writing {
    qn_safetensors_writer *w;
    const char *due;
    uint64_t random;
    uint16_t *piece;
} writing;

static qn_result declare(void *user, const qn_param_info *p)
{
    writing *x = user;
    return qn_safetensors_add(x->w, p->name, QN_ST_BF16, p->shape.rank, p->shape.dim);
}

static uint64_t next(uint64_t *s) // xorshift
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static uint16_t bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static qn_result write_one(void *user, const qn_param_info *p)
{
    writing *x = user;
    if (strcmp(p->name, x->due) != 0) return QN_OK;
    const bool one = p->kind == QN_PARAM_ONE, zero = p->kind == QN_PARAM_ZERO;
    // Uniform with the deviation 1/sqrt(inputs) for experts, 0.02 for all else.
    const double bound = sqrt(3) * (p->expert ? 1 / sqrt((double)p->shape.dim[1]) : 0.02);
    const float step = (float)(bound / 32768);
    for (int64_t left = qn_shape_count(p->shape); left > 0; left -= PIECE) {
        const int64_t n = left < PIECE ? left : PIECE;
        for (int64_t i = 0; i < n; i += 4) {
            uint64_t r = next(&x->random);
            for (int k = 0; k < 4; k++, r >>= 16)
                x->piece[i + k] = bf16((float)(int16_t)(r & 0xffff) * step);
        }
        for (int64_t i = 0; i < n && (one || zero); i++) x->piece[i] = bf16(one);
        QN_TRY(qn_safetensors_write(x->w, x->piece, (uint64_t)n * sizeof *x->piece));
    }
    return QN_OK;
}

static qn_result write_weights(const qn_model_config *c, const char *path, uint64_t seed)
{
    writing x = { .random = seed * 2 + 1 };
    x.piece = qn_malloc((PIECE + 4) * sizeof *x.piece);
    if (!x.piece) return qn_no_memory(PIECE * sizeof *x.piece);
    qn_result r = qn_safetensors_create(path, NULL, &x.w);
    if (r == QN_OK) r = qn_parameters(c, declare, &x);
    const qn_safetensor *t = NULL;
    while (r == QN_OK && (r = qn_safetensors_next(x.w, &t)) == QN_OK && t) {
        x.due = t->name;
        r = qn_parameters(c, write_one, &x);
    }
    if (r == QN_OK) r = qn_safetensors_commit(&x.w);
    if (x.w) qn_safetensors_abandon(&x.w);
    qn_free(x.piece);
    return r;
}

static qn_result write_tokenizer(const char *path)
{
    static const char *const special[] = { "<|endoftext|>" };
    qn_tokenizer *t;
    qn_tokenizer_train_opts o = { .size = 257, .special = special, .special_count = 1 };
    QN_TRY(qn_tokenizer_train(" ", 1, &o, &t));
    qn_result r = qn_tokenizer_save(t, path);
    qn_tokenizer_close(&t);
    return r;
}

static qn_result make(const char *dir, int64_t layers, uint64_t seed)
{
    qn_model_config c;
    QN_TRY(qn_model_preset("large", 50295, &c));
    c.n_layer = layers;
    c.n_head = 1;
    c.att_hidden = 1024;
    c.block_size = c.history_length = 512;
    c.aux_loss_weight = 0;
    QN_TRY(qn_make_dirs(dir));
    char *names[3];
    static const char *const files[] = { "config.json", "tokenizer.json", "model.safetensors" };
    for (int i = 0; i < 3; i++)
        if (!(names[i] = qn_path_join(dir, files[i]))) return qn_no_memory(strlen(dir));
    qn_result r = qn_model_config_write(&c, names[0]);
    if (r == QN_OK) r = write_tokenizer(names[1]);
    if (r == QN_OK) r = write_weights(&c, names[2], seed);
    for (int i = 0; i < 3; i++) qn_free(names[i]);
    return r;
}

int main(int argc, char **argv)
{
    const long layers = argc > 2 ? atol(argv[2]) : 24, seed = argc > 3 ? atol(argv[3]) : 1;
    if (argc < 2 || argc > 4 || layers < 1 || layers > 256 || seed < 0) {
        fprintf(stderr, "make_molm: expected DIR [LAYERS [SEED]]\n");
        return 2;
    }
    if (make(argv[1], layers, (uint64_t)seed) == QN_OK) return 0;
    fprintf(stderr, "make_molm: %s\n", qn_error_message());
    return 1;
}
