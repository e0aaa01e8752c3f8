// Edit distance and the choice of the nearest name.
#include "nearest.h"

#include <string.h>

#define LONGEST 63

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

size_t qn_edit_distance(const char *a, const char *b)
{
    size_t rows[3][LONGEST + 1]; // of the table: two above, one above, current
    size_t n = strnlen(a, LONGEST), m = strnlen(b, LONGEST);
    size_t *above2 = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) above[j] = j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t cost = a[i - 1] != b[j - 1];
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = min3(row[j], above2[j - 2] + 1, row[j]);
            }
        }
        size_t *free_row = above2;
        above2 = above;
        above = row;
        row = free_row;
    }
    return above[m];
}

void qn_nearest_offer(qn_nearest *n, const char *candidate)
{
    size_t length = strlen(n->word);
    size_t allowed = length / 3 ? length / 3 : 1;
    size_t d = qn_edit_distance(n->word, candidate);
    // A word that was cut short ("gen") is as clear as a mistyped one.
    if (length >= 2 && !strncmp(n->word, candidate, length) && d > allowed) d = allowed;
    if (d > allowed || (n->best && d >= n->distance)) return;
    n->best = candidate;
    n->distance = d;
}
