// Golden cases of merging: folders with cases.json (single tensors through single methods) and with
// e2e.json (whole models through recipes).
#ifndef QN_BRICKS_GOLDEN_H
#define QN_BRICKS_GOLDEN_H

#include "llm/golden.h"

// Whether the folder has a file of such cases.
bool qn_golden_merge_matches(const char *dir);
// Replays them; every one is a line. A case that cannot be run is a failed line.
void qn_golden_merge(qn_device *dev, const char *dir, qn_golden_report *report);

bool qn_golden_recipes_match(const char *dir);
void qn_golden_recipes(qn_device *dev, const char *dir, qn_golden_report *report);

#endif
