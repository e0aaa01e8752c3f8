// Manual pages as text: gzipped or plain roff files of a directory, macros and escapes taken out.
#ifndef QN_MANUAL_H
#define QN_MANUAL_H

#include <quoin/base.h>

// Whether this build can read compressed pages.
bool qn_manual_supported(void);
// The text of one page in a fresh buffer (qn_free); *size 0 for a page without any.
qn_result qn_manual_read(const char *path, char **text, size_t *size);

// Plain text of roff source, written over it; returns its size. Exposed for tests.
size_t qn_roff_strip(char *roff, size_t size);

#endif
