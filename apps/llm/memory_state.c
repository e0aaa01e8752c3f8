// What texts remember: stores, rows of them, files.
#include "memory_state.h"
#include "fail.h"
#include "mem.h"

#include <stdio.h>
#include <string.h>

enum { NAME = 64 };
static const char *const parts[] = { "F", "C", "conv" };

static void name_of(char name[NAME], int layer, int part)
{
    snprintf(name, NAME, "layers.%d.sr.%s", layer, parts[part]);
}

qn_result qn_lm_declare_memory(const qn_model_config *c, qn_store *memory, int64_t rows)
{
    for (int i = 0; i < c->n_layer; i++) {
        qn_memory_shape s;
        if (!qn_memory_of(c, i, &s)) continue;
        const int64_t width = s.heads * (2 * s.keys + s.values);
        const int64_t matrix = s.heads * s.keys * s.values;
        const int64_t size[] = { matrix, matrix, (s.taps - 1) * width };
        const bool is[] = { true, s.full, s.taps > 1 };
        for (int p = 0; p < 3; p++) {
            char name[NAME];
            name_of(name, i, p);
            if (is[p]) QN_TRY(qn_store_add(memory, name, QN_F32, QN_SHAPE(rows, 1, size[p])));
        }
    }
    return QN_OK;
}

// The store's tensor [rows, 1, everything of a row].
static const qn_tensor *table(qn_graph *g, const qn_lm_opts *o, int layer, int part)
{
    char name[NAME];
    name_of(name, layer, part);
    return qn_store_find(o->memory, name) ? qn_frozen(g, o->memory, name) : NULL;
}

void qn_memory_read(qn_graph *g, const qn_lm_opts *o, const qn_memory_shape *s, int layer,
                    qn_memory_state *out)
{
    const qn_shape matrix = QN_SHAPE(o->batch, s->heads, s->keys, s->values);
    const qn_shape rows = QN_SHAPE(o->batch, s->taps - 1, s->heads * (2 * s->keys + s->values));
    const qn_tensor **to[] = { &out->plastic, &out->consolidated, &out->before };
    for (int p = 0; p < 3; p++) {
        const qn_tensor *t = table(g, o, layer, p);
        if (t && o->memory_rows) {
            t = qn_reshape(g, t, QN_SHAPE(t->shape.dim[0], t->shape.dim[2]));
            t = qn_embedding(g, t, o->memory_rows);
        }
        *to[p] = t ? qn_reshape(g, t, p == 2 ? rows : matrix) : NULL;
    }
}

void qn_memory_write(qn_graph *g, const qn_lm_opts *o, int layer, const qn_memory_state *s)
{
    const qn_tensor *const from[] = { s->plastic, s->consolidated, s->before };
    for (int p = 0; p < 3; p++) {
        const qn_tensor *t = table(g, o, layer, p);
        if (!t || !from[p]) continue;
        const qn_tensor *x = qn_reshape(g, from[p], QN_SHAPE(o->batch, 1, t->shape.dim[2]));
        if (o->memory_rows)
            qn_assign_rows(g, t, o->memory_rows, x);
        else
            qn_assign(g, t, x);
    }
}
