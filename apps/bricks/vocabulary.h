// One vocabulary for models that have different ones: which tokens the output has, and which row of
// which model stands for each of them in embeddings and heads.
#ifndef QN_VOCABULARY_H
#define QN_VOCABULARY_H

#include "plan.h"

// A token of a tokenizer's files.
typedef struct qn_vocab_token {
    const char *text;
    int64_t id;
    bool added, special;
} qn_vocab_token;

typedef struct qn_vocabulary qn_vocabulary;

// What the recipe's tokenizer keys ask for.
qn_result qn_vocabulary_make(qn_merge_plan *p, qn_vocabulary **out);
void qn_vocabulary_free(qn_vocabulary **v);
int64_t qn_vocabulary_rows(const qn_vocabulary *v); // of embeddings, padding included
// Makes a model's source of the tensor `name` yield rows in the order of this vocabulary.
qn_result qn_vocabulary_source(qn_vocabulary *v, size_t model, const char *name,
                               qn_tensor_source *source);
// Tokens of the output, by id, the ones that its tokenizer files lack last.
const qn_vocab_token *qn_vocabulary_tokens(const qn_vocabulary *v, size_t *count, size_t *old);
// The folder whose tokenizer files the output takes.
const char *qn_vocabulary_dir(const qn_vocabulary *v);

#endif
