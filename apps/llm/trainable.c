// Marking what patterns select.
#include "trainable.h"
#include "fail.h"
#include "io/textbuf.h"
#include "mem.h"
#include "parameters.h"

#include <string.h>

static qn_result mark(void *user, const char *name, qn_shape shape, uint8_t *keep)
{
    const qn_part *p = user;
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
    const qn_part *p = user;
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

void qn_part_close(qn_part *p)
{
    qn_selection_free(&p->selection);
    qn_free(p->text);
    *p = (qn_part){ 0 };
}
