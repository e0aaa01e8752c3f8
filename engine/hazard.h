// Which barriers lie between accesses. Pure: numbers only, no GPU. A barrier orders everything
// before it against everything behind it, which costs no more than one for a single buffer.
#ifndef QN_HAZARD_H
#define QN_HAZARD_H

#include <quoin/base.h>

typedef struct qn_access {
    uint64_t buffer; // any number that tells buffers apart
    uint64_t offset, size;
    bool write; // reading and writing counts as writing
} qn_access;

#define QN_HAZARD_ACCESSES 128
typedef struct qn_hazards {
    qn_access reads[QN_HAZARD_ACCESSES], writes[QN_HAZARD_ACCESSES]; // since the last barrier
    size_t read_count, write_count;
} qn_hazards;

// Whether a barrier must come before a step with these accesses; takes note of them. At most
// QN_HAZARD_ACCESSES. Also true when there is no room left to take note of them otherwise.
bool qn_hazards_step(qn_hazards *h, const qn_access *accesses, size_t count);
// Everything so far is ordered.
void qn_hazards_clear(qn_hazards *h);

// A list of steps as they were recorded, to be judged afterwards by other means than above.
typedef struct qn_trace {
    struct qn_trace_step {
        size_t first, count; // of accesses
        bool barrier;        // one lies before this step
    } *steps;
    size_t count, capacity;
    qn_access *accesses;
    size_t access_count, access_capacity;
} qn_trace;

qn_result qn_trace_add(qn_trace *t, bool barrier, const qn_access *accesses, size_t count);
void qn_trace_free(qn_trace *t);
// Whether every two steps in conflict have a barrier between them. If not, *first and *second
// are the steps of an unordered pair.
bool qn_trace_ordered(const qn_trace *t, size_t *first, size_t *second);

#endif
