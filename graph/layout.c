// Reachability, lifetimes, in-place outputs and direct placement of assigned values.
#include "layout.h"

#include <string.h>

void qn_layout_free(qn_layout *l)
{
    qn_free(l->steps);
    qn_free(l->storage_of);
    qn_free(l->storages);
    *l = (qn_layout){ 0 };
}

static int root(const qn_layout *l, int s)
{
    while (s >= 0 && l->storages[s].merged >= 0) s = l->storages[s].merged;
    return s;
}

static int storage_index(const qn_layout *l, const qn_tensor *t)
{
    return t ? root(l, l->storage_of[impl(t)->id]) : -1;
}

const qn_home *qn_layout_find(const qn_layout *l, const qn_tensor *t)
{
    int s = storage_index(l, t);
    return s < 0 ? NULL : &l->storages[s];
}

// Marks what outputs and effects need; fills steps.
static qn_result choose_steps(const qn_graph *g, const qn_plan_opts *opts, qn_layout *l)
{
    bool *wanted = qn_calloc(g->tensor_count, sizeof *wanted);
    l->steps = qn_calloc(g->node_count, sizeof *l->steps);
    if (!wanted || !l->steps) {
        qn_free(wanted);
        return qn_no_memory(g->tensor_count);
    }
    for (size_t i = 0; i < opts->output_count; i++) wanted[impl(opts->outputs[i])->id] = true;
    for (size_t i = g->node_count; i-- > 0;) {
        const node_impl *node = g->nodes[i];
        bool keep = node->n.op->effect;
        for (int o = 0; o < node->n.outputs; o++) keep |= wanted[impl(node->n.out[o])->id];
        if (!keep) continue;
        for (int k = 0; k < node->n.inputs; k++)
            if (node->n.in[k]) wanted[impl(node->n.in[k])->id] = true;
        l->steps[l->step_count++] = node;
    }
    for (int i = 0, j = l->step_count - 1; i < j; i++, j--) {
        const node_impl *swap = l->steps[i];
        l->steps[i] = l->steps[j];
        l->steps[j] = swap;
    }
    for (size_t i = 0; i < g->tensor_count; i++)
        l->storage_of[i] = g->tensors[i]->leaf && wanted[i] ? 0 : -1;
    qn_free(wanted);
    return QN_OK;
}

static int add_storage(qn_layout *l, qn_home s)
{
    s.merged = -1;
    l->storages[l->storage_count] = s;
    return l->storage_count++;
}

static void place_leaves(const qn_graph *g, qn_layout *l)
{
    for (size_t i = 0; i < g->tensor_count; i++) {
        if (l->storage_of[i] < 0) continue;
        const tensor_impl *t = g->tensors[i];
        qn_home s = { .first = -1, .size = tensor_bytes(&t->t) };
        if (t->leaf == LEAF_STORED) {
            s.place = QN_PLACE_STORED;
            s.store = t->store;
            s.offset = t->store_offset;
        } else {
            s.place = QN_PLACE_INPUT;
            s.offset = l->inputs;
            l->inputs += (s.size + QN_RANGE_ALIGN - 1) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
        }
        l->storage_of[i] = add_storage(l, s);
    }
}

static void place_nodes(qn_layout *l)
{
    for (int step = 0; step < l->step_count; step++) {
        const qn_node *n = &l->steps[step]->n;
        for (int k = 0; k < n->inputs; k++) {
            if (!n->in[k]) continue;
            qn_home *s = &l->storages[storage_index(l, n->in[k])];
            if (s->last < step) s->last = step;
        }
        for (int o = 0; o < n->outputs; o++) {
            int at;
            if (o == 0 && n->op->alias)
                at = storage_index(l, n->in[n->op->alias - 1]);
            else
                at = add_storage(l, (qn_home){ .place = QN_PLACE_ARENA, .first = step,
                                                  .last = step, .size = tensor_bytes(n->out[o]) });
            l->storage_of[impl(n->out[o])->id] = at;
        }
    }
}

static bool overlap(const qn_home *a, const qn_home *b)
{
    return a == b || (a->place == QN_PLACE_STORED && b->place == QN_PLACE_STORED &&
                      a->store == b->store && a->offset < b->offset + b->size &&
                      b->offset < a->offset + a->size);
}

static bool touches(const qn_layout *l, const qn_node *n, const qn_home *s)
{
    for (int k = 0; k < n->inputs; k++) {
        const qn_home *in = n->in[k] ? qn_layout_find(l, n->in[k]) : NULL;
        if (in && overlap(in, s)) return true;
    }
    return false;
}

// May the node that computes `s` write straight over the stored `p`, which it may read as well?
static bool can_compute_into(const qn_layout *l, const qn_home *s, const qn_home *p)
{
    const qn_node *maker = &l->steps[s->first]->n;
    if (!maker->out[0] || qn_layout_find(l, maker->out[0]) != s) return !touches(l, maker, p);
    for (int k = 0; k < maker->inputs; k++) {
        const qn_home *in = maker->in[k] ? qn_layout_find(l, maker->in[k]) : NULL;
        if (!in || !overlap(in, p)) continue;
        bool same = in->offset == p->offset && in->size == p->size;
        if (!same || !(maker->op->inplace & 1u << k)) return false;
    }
    return true;
}

// An assigned value that nobody disturbs is computed where it is to be stored.
static void place_assigned(qn_layout *l)
{
    for (int step = 0; step < l->step_count; step++) {
        const qn_node *n = &l->steps[step]->n;
        if (!n->op->assigns) continue;
        qn_home *p = &l->storages[storage_index(l, n->in[0])];
        int at = storage_index(l, n->in[1]);
        qn_home *s = &l->storages[at];
        if (p->place != QN_PLACE_STORED || s->place != QN_PLACE_ARENA || s->output ||
            s->size != p->size || !can_compute_into(l, s, p))
            continue;
        bool disturbed = false;
        for (int i = s->first + 1; i < step; i++) disturbed |= touches(l, &l->steps[i]->n, p);
        for (int i = step + 1; i <= s->last && i < l->step_count; i++)
            disturbed |= l->steps[i]->n.op->effect && touches(l, &l->steps[i]->n, p);
        if (disturbed) continue;
        s->place = QN_PLACE_STORED;
        s->store = p->store;
        s->offset = p->offset;
    }
}

static void merge_inplace(qn_layout *l)
{
    for (int step = 0; step < l->step_count; step++) {
        const qn_node *n = &l->steps[step]->n;
        if (!n->op->inplace || n->op->alias) continue;
        int o = storage_index(l, n->out[0]);
        if (l->storages[o].place != QN_PLACE_ARENA) continue;
        for (int k = 0; k < n->inputs; k++) {
            if (!n->in[k] || !(n->op->inplace & 1u << k)) continue;
            int i = storage_index(l, n->in[k]);
            qn_home *in = &l->storages[i], *out = &l->storages[o];
            bool shared = false; // another input that may not be overwritten
            for (int j = 0; j < n->inputs; j++)
                shared |= j != k && n->in[j] && storage_index(l, n->in[j]) == i &&
                          !(n->op->inplace & 1u << j);
            if (in->place != QN_PLACE_ARENA || in->last != step || in->output || shared ||
                in->size != out->size)
                continue;
            in->last = out->last;
            in->output = out->output;
            out->merged = i;
            break;
        }
    }
}

static qn_result place_arena(qn_layout *l, bool reuse, uint64_t chunk)
{
    qn_lifetime *items = qn_calloc((size_t)l->storage_count + 1, sizeof *items);
    int *which = qn_calloc((size_t)l->storage_count + 1, sizeof *which);
    qn_result r = items && which ? QN_OK : qn_no_memory((size_t)l->storage_count * sizeof *items);
    size_t count = 0;
    for (int i = 0; r == QN_OK && i < l->storage_count; i++) {
        const qn_home *s = &l->storages[i];
        if (s->place != QN_PLACE_ARENA || s->merged >= 0) continue;
        items[count] = (qn_lifetime){
            .size = s->size + 2 * l->guard,
            .first = reuse ? s->first : 0,
            .last = reuse ? s->last : l->step_count,
        };
        l->unshared += (s->size + QN_RANGE_ALIGN - 1) / QN_RANGE_ALIGN * QN_RANGE_ALIGN;
        which[count++] = i;
    }
    if (r == QN_OK) r = qn_memplan(items, count, QN_RANGE_ALIGN, chunk, &l->arena);
    for (size_t i = 0; r == QN_OK && i < count; i++)
        l->storages[which[i]].offset = items[i].offset + l->guard;
    qn_free(items);
    qn_free(which);
    return r;
}

qn_result qn_layout_make(const qn_graph *g, const qn_plan_opts *opts, uint64_t max_allocation,
                         qn_layout *out)
{
    qn_layout l = { .guard = opts->poison ? QN_RANGE_ALIGN : 0 };
    l.storage_of = qn_calloc(g->tensor_count + 1, sizeof *l.storage_of);
    l.storages = qn_calloc(g->tensor_count + 1, sizeof *l.storages);
    qn_result r = l.storage_of && l.storages ? QN_OK : qn_no_memory(g->tensor_count * sizeof(int));
    if (r == QN_OK) r = choose_steps(g, opts, &l);
    if (r == QN_OK) {
        place_leaves(g, &l);
        place_nodes(&l);
        for (size_t i = 0; i < opts->output_count; i++) {
            qn_home *s = &l.storages[storage_index(&l, opts->outputs[i])];
            s->output = true;
            s->last = l.step_count;
        }
        if (!opts->no_inplace) {
            place_assigned(&l);
            merge_inplace(&l);
        }
        r = place_arena(&l, !opts->poison, max_allocation / QN_RANGE_ALIGN * QN_RANGE_ALIGN);
    }
    if (r == QN_OK)
        *out = l;
    else
        qn_layout_free(&l);
    return r;
}
