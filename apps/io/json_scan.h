// The strict check of a JSON text that runs before it is built.
#ifndef QN_JSON_SCAN_H
#define QN_JSON_SCAN_H

#include "json.h"

// RFC 8259, and further: valid UTF-8, no lone surrogates, no NUL in keys, numbers of at most 60
// characters. QN_ERR_FORMAT with line and column otherwise. *nuls counts the NULs in strings.
qn_result qn_json_scan(const char *name, const char *text, size_t size, uint32_t depth,
                       uint64_t values, size_t *nuls);

#endif
