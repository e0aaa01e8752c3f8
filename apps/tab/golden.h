// Golden cases of HyperTab for `quoin check golden`: folders with case.json and tensors.safetensors.
#ifndef QN_TAB_GOLDEN_H
#define QN_TAB_GOLDEN_H

#include "llm/golden.h"

bool qn_tab_golden_matches(const char *dir);
qn_result qn_tab_golden(qn_golden_case *c);

#endif
