// CSV: what is accepted is rectangular, and becomes finite numbers or a refusal.
#include "mem.h"
#include "tab/prep.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qn_tab_table *t;
    qn_tab_prep *p;
    if (qn_tab_table_parse("fuzz", (const char *)data, size, &t) != QN_OK) return 0;
    for (size_t i = 0; i < t->rows * t->columns; i++)
        if (!t->cells[i]) abort();
    for (int regression = 0; regression < 2; regression++) {
        if (qn_tab_prep_fit(t, NULL, regression, NULL, 0, &p) != QN_OK) continue;
        size_t cells = t->rows * p->features;
        if (cells < 1 << 20) {
            float *x = qn_malloc(cells * sizeof *x);
            if (qn_tab_prep_apply(p, t, x, NULL, NULL) == QN_OK)
                for (size_t i = 0; i < cells; i++)
                    if (isnan(x[i])) abort();
            qn_free(x);
        }
        qn_tab_prep_free(&p);
    }
    qn_tab_table_close(&t);
    return 0;
}
