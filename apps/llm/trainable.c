// Marking what patterns select.
#include "trainable.h"
#include "bricks/model.h"
#include "bricks/score.h"
#include "bricks/scores.h"
#include "fail.h"
#include "io/textbuf.h"
#include "mem.h"
#include "parameters.h"

#include <string.h>

// in [E, d, F] and out [E, F, d] of the marked neurons of a layer.
static void mark_neurons(const int32_t *top, size_t count, qn_shape shape, bool in, uint8_t *keep)
{
    const size_t rows = (size_t)shape.dim[1], columns = (size_t)shape.dim[2];
    const size_t F = in ? columns : rows;
    for (size_t i = 0; i < count; i++) {
        const size_t e = (size_t)top[i] / F, unit = (size_t)top[i] % F;
        uint8_t *body = keep + e * rows * columns;
        for (size_t r = 0; in && r < rows; r++) body[r * columns + unit] = 1;
        if (!in) memset(body + unit * columns, 1, columns);
    }
}

static qn_result mark_top(const qn_part *p, const char *name, qn_shape shape, uint8_t *keep)
{
    const bool in = qn_glob_match("*.mlpf.experts.weight", name);
    if (!in && !qn_glob_match("*.mlpf.output_experts.weight", name)) return QN_OK;
    const size_t n = (size_t)(p->experts * p->hidden), count = qn_score_top_count(p->share, n);
    float *score = NULL;
    int32_t *top = qn_malloc(count * sizeof *top);
    qn_result r = top ? qn_scores_layer(p->scores, p->scores_path, qn_brick_layer_of(name),
                                        p->function, n, &score)
                      : qn_no_memory(count * sizeof *top);
    if (r == QN_OK) r = qn_score_top(score, n, count, top);
    if (r == QN_OK) mark_neurons(top, count, shape, in, keep);
    qn_free(score);
    qn_free(top);
    return r;
}

static qn_result mark(void *user, const char *name, qn_shape shape, uint8_t *keep)
{
    const qn_part *p = user;
    if (p->scores) return mark_top(p, name, shape, keep);
    const int64_t rows = shape.rank ? shape.dim[0] : 1;
    const size_t size = (size_t)(qn_shape_count(shape) / rows);
    uint8_t *selected = qn_malloc((size_t)rows);
    if (!selected) return qn_no_memory((size_t)rows);
    int64_t count;
    qn_result r = qn_selection_rows(&p->selection, name, rows, selected, &count);
    for (int64_t i = 0; r == QN_OK && i < rows; i++)
        memset(keep + (size_t)i * size, selected[i], size);
    qn_free(selected);
    return r;
}

typedef struct names {
    const char **items;
    size_t count, capacity;
} names;

static qn_result add_name(void *user, const qn_param_info *p)
{
    names *n = user;
    QN_TRY(qn_grow((void **)&n->items, &n->capacity, n->count + 1, sizeof *n->items));
    n->items[n->count] = qn_strdup(p->name);
    return n->items[n->count] ? (n->count++, QN_OK) : qn_no_memory(strlen(p->name));
}

// A pattern that matches nothing is a mistake.
static qn_result check(void *user, const qn_model_config *c)
{
    qn_part *p = user;
    p->experts = c->n_mlp_experts;
    p->hidden = c->ffd_hidden;
    if (p->scores) return QN_OK; // layer by layer
    names n = { 0 };
    qn_result r = qn_parameters(c, add_name, &n);
    if (r == QN_OK) r = qn_selection_check(&p->selection, n.items, n.count);
    for (size_t i = 0; i < n.count; i++) qn_free((void *)n.items[i]);
    qn_free(n.items);
    return r;
}

qn_result qn_part_open(const char *const *items, size_t count, qn_part *out)
{
    qn_textbuf text = { 0 };
    *out = (qn_part){ .trainable = { .mark = mark, .check = check, .user = out } };
    for (size_t i = 0; i < count; i++) qn_textbuf_printf(&text, "%s%s", i ? "," : "", items[i]);
    qn_result r = qn_textbuf_status(&text);
    if (r == QN_OK && !(out->text = qn_strdup(qn_textbuf_get(&text)))) r = qn_no_memory(text.size);
    if (r == QN_OK) r = qn_selection_parse(items, count, &out->selection);
    qn_textbuf_free(&text);
    if (r != QN_OK) qn_part_close(out);
    return r;
}

qn_result qn_part_open_top(const char *scores, const char *function, double percent, qn_part *out)
{
    qn_textbuf text = { 0 };
    *out = (qn_part){ .trainable = { .mark = mark, .check = check, .user = out },
                      .share = percent / 100 };
    qn_textbuf_printf(&text, "%g percent of %s by %s", percent, function, scores);
    qn_result r = qn_textbuf_status(&text);
    out->text = r == QN_OK ? qn_strdup(qn_textbuf_get(&text)) : NULL;
    out->scores_path = qn_strdup(scores);
    if (!out->text || !out->scores_path) r = qn_no_memory(strlen(scores));
    if (r == QN_OK) r = qn_safetensors_open(scores, &out->scores);
    if (r == QN_OK) r = qn_scores_function(out->scores, scores, function, &out->function);
    qn_textbuf_free(&text);
    if (r != QN_OK) qn_part_close(out);
    return r;
}

void qn_part_close(qn_part *p)
{
    qn_safetensors_close(&p->scores);
    qn_free(p->scores_path);
    qn_selection_free(&p->selection);
    qn_free(p->text);
    *p = (qn_part){ 0 };
}
