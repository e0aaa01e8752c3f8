// Graphs for people: one line a node, or a drawing for Graphviz.
#include "graph_impl.h"

static const char *leaf_name(leaf_kind k)
{
    static const char *const names[] = {
        [LEAF_INPUT] = "input", [LEAF_CONSTANT] = "constant", [LEAF_STORED] = "stored",
    };
    return names[k];
}

static qn_result finished(FILE *out)
{
    return ferror(out) ? qn_fail(QN_ERR_IO, "writing the graph's dump did not work") : QN_OK;
}

qn_result qn_graph_dump_text(const qn_graph *g, FILE *out)
{
    char shape[QN_SHAPE_TEXT];
    for (size_t i = 0; i < g->tensor_count; i++) {
        const tensor_impl *t = g->tensors[i];
        if (t->leaf)
            fprintf(out, "%%%d = %s %s %s  # %s\n", t->id, leaf_name(t->leaf),
                    qn_dtype_name(t->t.dtype), qn_shape_format(t->t.shape, shape), t->t.name);
    }
    for (size_t i = 0; i < g->node_count; i++) {
        const qn_node *n = &g->nodes[i]->n;
        for (int o = 0; o < n->outputs; o++)
            fprintf(out, "%s%%%d", o ? ", " : "", impl(n->out[o])->id);
        fprintf(out, " = %s(", n->op->name);
        for (int k = 0; k < n->inputs; k++)
            if (n->in[k])
                fprintf(out, "%s%%%d", k ? ", " : "", impl(n->in[k])->id);
            else
                fprintf(out, "%s-", k ? ", " : "");
        fprintf(out, ")");
        for (int o = 0; o < n->outputs; o++)
            fprintf(out, " %s %s", qn_dtype_name(n->out[o]->dtype),
                    qn_shape_format(n->out[o]->shape, shape));
        fprintf(out, "  # %s\n", n->name);
    }
    return finished(out);
}

// A DOT string: quotes and backslashes escaped.
static void quoted(FILE *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') fputc('\\', out);
        fputc(*s, out);
    }
}

qn_result qn_graph_dump_dot(const qn_graph *g, FILE *out)
{
    char shape[QN_SHAPE_TEXT];
    fprintf(out, "digraph quoin {\n  node [shape=box, fontname=sans];\n");
    for (size_t i = 0; i < g->tensor_count; i++) {
        const tensor_impl *t = g->tensors[i];
        if (!t->leaf) continue;
        fprintf(out, "  t%d [shape=ellipse, label=\"", t->id);
        quoted(out, t->t.name);
        fprintf(out, "\\n%s %s\"];\n", qn_dtype_name(t->t.dtype),
                qn_shape_format(t->t.shape, shape));
    }
    for (size_t i = 0; i < g->node_count; i++) {
        const qn_node *n = &g->nodes[i]->n;
        fprintf(out, "  n%zu [label=\"%s\\n", i, n->op->name);
        quoted(out, n->name);
        fprintf(out, "\"];\n");
        for (int k = 0; k < n->inputs; k++) {
            if (!n->in[k]) continue;
            const tensor_impl *t = impl(n->in[k]);
            if (t->leaf)
                fprintf(out, "  t%d -> n%zu;\n", t->id, i);
            else
                fprintf(out, "  n%d -> n%zu [label=\"%s\"];\n", t->node->index, i,
                        qn_shape_format(t->t.shape, shape));
        }
    }
    fprintf(out, "}\n");
    return finished(out);
}
