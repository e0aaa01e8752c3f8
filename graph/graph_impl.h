// What graphs, stores and plans know of each other (private to graph/).
#ifndef QN_GRAPH_IMPL_H
#define QN_GRAPH_IMPL_H

#include "op.h"

typedef enum leaf_kind { LEAF_NONE = 0, LEAF_INPUT, LEAF_CONSTANT, LEAF_STORED } leaf_kind;

typedef struct tensor_impl {
    qn_tensor t; // first, so that the two pointers are the same
    int id;      // position in graph->tensors
    leaf_kind leaf;
    const struct node_impl *node; // NULL for leaves
    qn_store *store;              // LEAF_STORED
    uint64_t store_offset;        // bytes
    const void *data;             // LEAF_CONSTANT
} tensor_impl;

typedef struct node_impl {
    qn_node n; // first
    int index; // position in graph->nodes, which is the order of execution
} node_impl;

struct qn_graph {
    qn_device *dev;
    qn_arena arena;
    tensor_impl **tensors;
    size_t tensor_count, tensor_cap;
    node_impl **nodes;
    size_t node_count, node_cap;
    char scope[256];
    size_t scope_end[16]; // lengths of the scope before each nested name
    int scope_depth;
    const char *gradient_of; // name of the node whose gradient is being built, or NULL
    qn_result status;
    char *message;
};

static inline const tensor_impl *impl(const qn_tensor *t)
{
    return (const tensor_impl *)t;
}

static inline uint64_t tensor_bytes(const qn_tensor *t)
{
    return qn_dtype_bytes(t->dtype, (uint64_t)qn_shape_count(t->shape));
}

// store.c
// The buffer that holds a byte of the store; *offset becomes the place within it. NULL before
// allocation.
qn_buffer *qn_store_buffer(const qn_store *s, uint64_t *offset);
// Whether it takes more than one buffer.
bool qn_store_is_split(const qn_store *s);
const char *qn_store_name(const qn_store *s);

// store.c: the entry whose name is nearest, or NULL when none is near.
const char *qn_nearest_entry(const qn_store *s, const char *name);

// memplan.c: offsets for things with lifetimes. Pure.
typedef struct qn_lifetime {
    uint64_t size;   // bytes, > 0
    int first, last; // first and last step at which it exists, inclusive
    uint64_t offset; // result
} qn_lifetime;
// Two items whose lifetimes meet never overlap; offsets are multiples of `align`; none straddles
// a multiple of `chunk` (0: no chunks). *total is the end of the highest one.
// QN_ERR_UNSUPPORTED when an item is larger than a chunk.
qn_result qn_memplan(qn_lifetime *items, size_t count, uint64_t align, uint64_t chunk,
                     uint64_t *total);

#endif
