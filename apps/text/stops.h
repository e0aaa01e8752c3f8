// Stop strings in text that arrives piece by piece: nothing of a stop string, and nothing that may
// yet become one, is handed on.
#ifndef QN_STOPS_H
#define QN_STOPS_H

#include <quoin/tokenizer.h>

// Zero-initialise, set the strings (none of them empty; they have to outlive this).
typedef struct qn_stops {
    const char *const *stop;
    size_t count;
    qn_text held; // the beginning of a stop string, perhaps
    size_t at;    // of the stop strings, the one that was found
    bool hit;
} qn_stops;

// Appends to `out` what is certain not to belong to a stop string. Sets `hit` and drops the rest
// once one was found: the first that is complete, of several the longest. How the text is cut into
// pieces makes no difference.
qn_result qn_stops_push(qn_stops *s, const char *bytes, size_t size, qn_text *out);
// Appends what was held back: the text ends here.
qn_result qn_stops_finish(qn_stops *s, qn_text *out);
void qn_stops_free(qn_stops *s);

#endif
