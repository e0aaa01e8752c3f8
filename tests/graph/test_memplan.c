// The arena's plan: whatever lives at the same time lies apart, in no more memory than needed.
#include "device.h"
#include "graph_impl.h"
#include "random.h"

#include <stdlib.h>

enum { MOST = 120, STEPS = 40, ALIGN = 256 };

static uint64_t aligned(uint64_t x)
{
    return (x + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t random_items(qn_lifetime *items, uint64_t seed, uint64_t largest)
{
    qn_random rng = qn_random_start(seed, 0);
    size_t count = 1 + qn_random_below(&rng, MOST);
    for (size_t i = 0; i < count; i++) {
        int first = (int)qn_random_below(&rng, STEPS);
        int length = (int)qn_random_below(&rng, qn_random_below(&rng, 4) ? 4 : STEPS);
        items[i] = (qn_lifetime){
            // Many of one size, as in a network of equal layers.
            .size = qn_random_below(&rng, 2) ? 4096 : 1 + qn_random_below(&rng, largest),
            .first = first,
            .last = first + length,
        };
    }
    return count;
}

static void assert_apart(const qn_lifetime *items, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const qn_lifetime *a = &items[i];
        assert_int_equal(a->offset % ALIGN, 0);
        for (size_t j = 0; j < i; j++) {
            const qn_lifetime *b = &items[j];
            bool meet = a->first <= b->last && b->first <= a->last;
            bool apart = a->offset + a->size <= b->offset || b->offset + b->size <= a->offset;
            if (meet && !apart)
                fail_msg("items %zu and %zu of %zu share bytes at the same time", j, i, count);
        }
    }
}

// What lives at one step has to fit at least.
static uint64_t largest_level(const qn_lifetime *items, size_t count)
{
    uint64_t most = 0;
    for (int step = 0; step < 2 * STEPS; step++) {
        uint64_t level = 0;
        for (size_t i = 0; i < count; i++)
            if (items[i].first <= step && step <= items[i].last) level += items[i].size;
        if (level > most) most = level;
    }
    return most;
}

static void test_random_lifetimes(void **state)
{
    (void)state;
    qn_lifetime items[MOST];
    for (uint64_t seed = 0; seed < 300; seed++) {
        size_t count = random_items(items, seed, 20000);
        uint64_t total, sum = 0, end = 0;
        assert_ok(qn_memplan(items, count, ALIGN, 0, &total));
        assert_apart(items, count);
        for (size_t i = 0; i < count; i++) {
            sum += aligned(items[i].size);
            if (items[i].offset + items[i].size > end) end = items[i].offset + items[i].size;
        }
        assert_int_equal(total, end);
        assert_true(total <= sum);
        assert_true(total >= largest_level(items, count));
    }
}

static void test_chunks(void **state)
{
    (void)state;
    enum { CHUNK = 80 * ALIGN };
    qn_lifetime items[MOST];
    for (uint64_t seed = 0; seed < 300; seed++) {
        size_t count = random_items(items, seed + 1000, CHUNK);
        uint64_t total;
        assert_ok(qn_memplan(items, count, ALIGN, CHUNK, &total));
        assert_apart(items, count);
        for (size_t i = 0; i < count; i++)
            if (items[i].offset / CHUNK != (items[i].offset + items[i].size - 1) / CHUNK)
                fail_msg("seed %d: item %zu straddles two chunks", (int)seed, i);
        assert_true(total >= largest_level(items, count));
    }
}

// One after the other they share the same bytes; all at once they need all.
static void test_chains_and_crowds(void **state)
{
    (void)state;
    enum { COUNT = 30 };
    qn_lifetime items[COUNT];
    uint64_t total;
    for (int i = 0; i < COUNT; i++) items[i] = (qn_lifetime){ .size = 512, .first = i, .last = i };
    assert_ok(qn_memplan(items, COUNT, ALIGN, 0, &total));
    assert_int_equal(total, 512);
    for (int i = 0; i < COUNT; i++) items[i].last = i + 1; // each is read by the next
    assert_ok(qn_memplan(items, COUNT, ALIGN, 0, &total));
    assert_int_equal(total, 1024);
    for (int i = 0; i < COUNT; i++) items[i].last = COUNT;
    assert_ok(qn_memplan(items, COUNT, ALIGN, 0, &total));
    assert_int_equal(total, COUNT * 512);
    assert_ok(qn_memplan(items, 0, ALIGN, 0, &total));
    assert_int_equal(total, 0);
}

static void test_same_items_same_plan(void **state)
{
    (void)state;
    qn_lifetime a[MOST], b[MOST];
    size_t count = random_items(a, 5, 9000);
    random_items(b, 5, 9000);
    uint64_t x, y;
    assert_ok(qn_memplan(a, count, ALIGN, 0, &x));
    assert_ok(qn_memplan(b, count, ALIGN, 0, &y));
    assert_int_equal(x, y);
    for (size_t i = 0; i < count; i++) assert_int_equal(a[i].offset, b[i].offset);
}

static void test_too_large(void **state)
{
    (void)state;
    qn_lifetime item = { .size = 4097 };
    uint64_t total;
    assert_fails(qn_memplan(&item, 1, ALIGN, 4096, &total), QN_ERR_UNSUPPORTED, "4097 bytes");
    item.size = 4096;
    assert_ok(qn_memplan(&item, 1, ALIGN, 4096, &total));
    assert_int_equal(total, 4096);
}

static void test_no_memory(void **state)
{
    (void)state;
    qn_lifetime item = { .size = 16 };
    uint64_t total;
    for (int n = 1; n <= 2; n++) {
        qn_alloc_fail_at(n);
        qn_result r = qn_memplan(&item, 1, ALIGN, 0, &total);
        qn_alloc_fail_at(0);
        assert_int_equal(r, QN_ERR_NO_MEMORY);
    }
    assert_ok(qn_memplan(&item, 1, ALIGN, 0, &total));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_lifetimes), cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_chains_and_crowds), cmocka_unit_test(test_same_items_same_plan),
        cmocka_unit_test(test_too_large), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
