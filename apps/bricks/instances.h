// Sets of examples, one file for each function: NAME.jsonl ({"prompt", "response"} a line) or NAME.txt
// (one example a line, all of it prompt).
#ifndef QN_BRICKS_INSTANCES_H
#define QN_BRICKS_INSTANCES_H

#include "llm/generate.h"

typedef struct qn_instance {
    size_t first, count; // its tokens
    size_t prompt;       // of these, how many belong to the prompt; at least 1
    int function;
} qn_instance;

typedef struct qn_instances {
    char **functions; // names, sorted
    size_t function_count;
    qn_instance *items; // by function
    size_t count, capacity;
    qn_tokens tokens;
} qn_instances;

// Reads at most `most` examples a file (0: all), each cut to `length` tokens; those with fewer than
// two tokens are passed over. A folder without such a file, or a file without an example, is refused.
qn_result qn_instances_open(const char *dir, const qn_tokenizer *t, size_t length, size_t most,
                            qn_instances *out);
void qn_instances_close(qn_instances *s);

// Fills a batch of `rows` rows of `length`: instances first, first + 1, ...; labels of what is not
// there are QN_IGNORE. Returns how many were placed.
size_t qn_instances_batch(const qn_instances *s, size_t first, size_t rows, size_t length,
                          int32_t *ids, int32_t *labels);

#endif
