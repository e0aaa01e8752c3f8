// Recipes: whatever the text, reading ends, and what is accepted can be evaluated.
#include "bricks/recipe.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *user, qn_log_level level, const char *line)
{
    (void)user;
    (void)level;
    (void)line;
}

static void evaluate(const qn_recipe *r, const qn_recipe_source *s)
{
    const qn_yaml *scopes[] = { s->params, r->params };
    for (size_t i = 0; i < r->method->param_count; i++)
        for (int t = 0; t <= 4; t++) {
            double value = 0;
            bool found;
            const char *name = qn_merge_param_name(r->method->params[i].param);
            if (qn_recipe_evaluate(scopes, 2, name, "model.layers.1.mlp.up_proj.weight", t / 4.0,
                                   &value, &found) != QN_OK)
                abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qn_recipes all;
    qn_log_set(ignore, NULL, QN_LOG_OFF);
    if (qn_recipes_parse("fuzz", (const char *)data, size, &all) != QN_OK) return 0;
    if (!all.count) abort();
    for (size_t i = 0; i < all.count; i++) {
        const qn_recipe *r = &all.items[i];
        if (!r->method || !r->slice_count) abort();
        for (size_t k = 0; k < r->slice_count; k++) {
            if (!r->slices[k].count) abort();
            for (size_t n = 0; n < r->slices[k].count; n++) {
                if (!r->slices[k].sources[n].model.path) abort();
                evaluate(r, &r->slices[k].sources[n]);
            }
        }
    }
    qn_recipes_close(&all);
    return 0;
}
