// Free pieces of a block, against a model of single units.
#include "device.h"
#include "mem.h"
#include "ranges.h"

#include <string.h>

static uint32_t seed = 1;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * n) >> 32);
}

// The longest run of free units, and whether one of `size` starts at a multiple of `align`.
static uint64_t largest_run(const bool *used, uint64_t size)
{
    uint64_t largest = 0, run = 0;
    for (uint64_t i = 0; i < size; i++) {
        run = used[i] ? 0 : run + 1;
        if (run > largest) largest = run;
    }
    return largest;
}

static bool has_room(const bool *used, uint64_t units, uint64_t size, uint64_t align)
{
    for (uint64_t at = 0; at + size <= units; at += align) {
        uint64_t i = 0;
        while (i < size && !used[at + i]) i++;
        if (i == size) return true;
    }
    return false;
}

static void random_takes_and_gives(void **state)
{
    (void)state;
    enum { UNITS = 300, HELD = 64, ROUNDS = 20000 };
    bool used[UNITS] = { false };
    qn_piece held[HELD];
    size_t count = 0;
    uint32_t refused = 0;
    qn_ranges r;
    assert_ok(qn_ranges_init(&r, UNITS));
    for (int round = 0; round < ROUNDS; round++) {
        if (count < HELD && random_below(2)) {
            uint64_t size = 1 + random_below(20), align = UINT64_C(1) << random_below(4), offset;
            bool found;
            assert_ok(qn_ranges_take(&r, size, align, &offset, &found));
            assert_int_equal(found, has_room(used, UNITS, size, align));
            if (!found) {
                refused++;
                continue;
            }
            assert_int_equal(offset % align, 0);
            for (uint64_t i = 0; i < size; i++) {
                assert_false(used[offset + i]);
                used[offset + i] = true;
            }
            held[count++] = (qn_piece){ offset, size };
        } else if (count) {
            size_t i = random_below((uint32_t)count);
            memset(used + held[i].offset, 0, held[i].size);
            qn_ranges_give(&r, held[i].offset, held[i].size);
            held[i] = held[--count];
        }
        assert_int_equal(qn_ranges_largest(&r), largest_run(used, UNITS));
    }
    assert_true(refused > 100); // else fragmentation was not tried
    while (count--) qn_ranges_give(&r, held[count].offset, held[count].size);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.taken, 0);
    assert_int_equal(qn_ranges_largest(&r), UNITS);
    qn_ranges_free(&r);
}

static void the_smallest_piece_that_fits_is_taken(void **state)
{
    (void)state;
    qn_ranges r;
    uint64_t a, b, c, d;
    bool found;
    assert_ok(qn_ranges_init(&r, 100));
    assert_ok(qn_ranges_take(&r, 30, 1, &a, &found)); // becomes a hole of 30
    assert_ok(qn_ranges_take(&r, 1, 1, &b, &found));
    assert_ok(qn_ranges_take(&r, 10, 1, &c, &found)); // becomes a hole of 10
    assert_ok(qn_ranges_take(&r, 1, 1, &d, &found));
    qn_ranges_give(&r, a, 30);
    qn_ranges_give(&r, c, 10);
    uint64_t e;
    assert_ok(qn_ranges_take(&r, 8, 1, &e, &found));
    assert_true(found);
    assert_int_equal(e, c);
    qn_ranges_free(&r);
}

// Giving back needs no memory, however broken up the block is.
static void giving_never_allocates(void **state)
{
    (void)state;
    enum { N = 100 };
    qn_ranges r;
    uint64_t offsets[N];
    bool found;
    assert_ok(qn_ranges_init(&r, N));
    for (int i = 0; i < N; i++) assert_ok(qn_ranges_take(&r, 1, 1, &offsets[i], &found));
    qn_alloc_fail_at(1);
    for (int i = 0; i < N; i += 2) qn_ranges_give(&r, offsets[i], 1);
    for (int i = 1; i < N; i += 2) qn_ranges_give(&r, offsets[i], 1);
    qn_alloc_fail_at(0);
    assert_int_equal(qn_ranges_largest(&r), N);
    qn_ranges_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_takes_and_gives),
        cmocka_unit_test(the_smallest_piece_that_fits_is_taken),
        cmocka_unit_test(giving_never_allocates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
