// What texts remember: stores, rows of them, files.
#ifndef QN_MEMORY_STATE_H
#define QN_MEMORY_STATE_H

#include "memory.h"

// Row b of the state is row memory_rows[b] of the store.
void qn_memory_read(qn_graph *g, const qn_lm_opts *o, const qn_memory_shape *s, int layer,
                    qn_memory_state *out);
void qn_memory_write(qn_graph *g, const qn_lm_opts *o, int layer, const qn_memory_state *s);

#endif
