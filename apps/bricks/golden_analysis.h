// Golden cases of analysis, partition, experts, adapters and gates: folders with bricks.json.
#ifndef QN_BRICKS_GOLDEN_ANALYSIS_H
#define QN_BRICKS_GOLDEN_ANALYSIS_H

#include "llm/golden.h"

bool qn_golden_bricks_matches(const char *dir);
// Every part of bricks.json is a line. A part that cannot be replayed is a failed line.
void qn_golden_bricks(const char *dir, qn_golden_report *report);

#endif
