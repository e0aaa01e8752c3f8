// Merge recipes: the YAML of mergekit, read and checked. Parameters stay trees that are evaluated
// for each tensor.
#ifndef QN_RECIPE_H
#define QN_RECIPE_H

#include "method.h"
#include "yaml.h"

// "PATH[@revision][+LORA[@revision]]", or the same as a map.
typedef struct qn_model_ref {
    const char *text;        // as in the recipe
    const char *path, *lora; // lora NULL: none
    const qn_yaml *at;       // for messages; NULL: from the command line
} qn_model_ref;
qn_result qn_model_ref_parse(qn_arena *a, const char *text, qn_model_ref *out);
bool qn_model_ref_equal(const qn_model_ref *a, const qn_model_ref *b);

typedef struct qn_recipe_source {
    qn_model_ref model;
    bool ranged;
    int64_t first, end;    // layers, end not included; ranged false: all
    const qn_yaml *params; // NULL: none
} qn_recipe_source;

typedef struct qn_recipe_slice {
    qn_recipe_source *sources;
    size_t count;
    const qn_yaml *params;
    bool has_base;
    qn_model_ref base;
    const qn_yaml *at;
} qn_recipe_slice;

typedef struct qn_recipe {
    const char *name; // NULL: the final output
    const qn_method *method;
    qn_recipe_slice *slices;
    size_t slice_count;
    bool listed_models; // `models`: one slice with every layer
    bool has_base;
    qn_model_ref base;
    const qn_yaml *params, *module_params;
    const char *dtype, *out_dtype; // NULL: as stored
    const char *tokenizer_source;  // NULL: not asked for; "union", "base" or a model
    const qn_yaml *tokens;         // tokenizer.tokens
    int64_t pad_to_multiple_of;    // 0: none
    const char *chat_template;
    const qn_yaml *root;
} qn_recipe;

typedef struct qn_recipes {
    qn_yaml_docs docs;
    qn_arena arena;
    char *text;
    qn_recipe *items;
    size_t count;
} qn_recipes;

qn_result qn_recipes_open(const char *path, qn_recipes *out);
qn_result qn_recipes_parse(const char *name, const char *text, size_t size, qn_recipes *out);
void qn_recipes_close(qn_recipes *r);

// A parameter for one tensor: the first of the scopes that has a value for a tensor of this name at
// position t (0 to 1). *found is false when none has.
qn_result qn_recipe_evaluate(const qn_yaml *const *scopes, size_t count, const char *param,
                             const char *tensor, double t, double *out, bool *found);

#endif
