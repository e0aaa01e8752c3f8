// Barriers between accesses: against a model of single bytes, and by deleting each in turn.
#include "device.h"
#include "hazard.h"

#include <string.h>

static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)seed * n) >> 32);
}

enum { BUFFERS = 3, BYTES = 40, STEPS = 60, MOST = 4 };

// Who touched each byte since the last barrier.
typedef struct model {
    bool read[BUFFERS][BYTES], written[BUFFERS][BYTES];
} model;

static bool model_conflicts(const model *m, const qn_access *a)
{
    for (uint64_t i = a->offset; i < a->offset + a->size; i++)
        if (m->written[a->buffer][i] || (a->write && m->read[a->buffer][i])) return true;
    return false;
}

static void model_note(model *m, const qn_access *a)
{
    for (uint64_t i = a->offset; i < a->offset + a->size; i++)
        (a->write ? m->written : m->read)[a->buffer][i] = true;
}

static size_t random_step(qn_access *out)
{
    size_t count = random_below(MOST + 1);
    for (size_t i = 0; i < count; i++) {
        uint32_t offset = random_below(BYTES);
        out[i] = (qn_access){ .buffer = random_below(BUFFERS),
                              .offset = offset,
                              .size = 1 + random_below(BYTES - offset < 9 ? BYTES - offset : 9),
                              .write = random_below(3) == 0 };
    }
    return count;
}

static void barriers_are_those_of_the_model(void **state)
{
    (void)state;
    for (uint32_t list = 0; list < 500; list++) {
        seed = list;
        qn_hazards h = { 0 };
        model m = { 0 };
        for (int step = 0; step < STEPS; step++) {
            qn_access a[MOST];
            size_t count = random_step(a);
            bool expected = false;
            for (size_t i = 0; i < count; i++) expected |= model_conflicts(&m, &a[i]);
            if (expected) m = (model){ 0 };
            for (size_t i = 0; i < count; i++) model_note(&m, &a[i]);
            assert_int_equal(qn_hazards_step(&h, a, count), expected);
        }
    }
}

static void every_barrier_is_needed(void **state)
{
    (void)state;
    size_t deleted = 0, first, second;
    for (uint32_t list = 0; list < 100; list++) {
        seed = 1000 + list;
        qn_hazards h = { 0 };
        qn_trace t = { 0 };
        for (int step = 0; step < STEPS; step++) {
            qn_access a[MOST];
            size_t count = random_step(a);
            bool barrier = qn_hazards_step(&h, a, count);
            assert_ok(qn_trace_add(&t, barrier, a, count));
        }
        assert_true(qn_trace_ordered(&t, &first, &second));
        for (size_t i = 0; i < t.count; i++) {
            if (!t.steps[i].barrier) continue;
            t.steps[i].barrier = false;
            assert_false(qn_trace_ordered(&t, &first, &second));
            assert_true(first < i && i <= second);
            t.steps[i].barrier = true;
            deleted++;
        }
        qn_trace_free(&t);
    }
    assert_true(deleted > 1000);
}

static qn_access at(uint64_t offset, uint64_t size, bool write)
{
    return (qn_access){ .buffer = 1, .offset = offset, .size = size, .write = write };
}

static void kinds_of_hazard(void **state)
{
    (void)state;
    static const struct {
        bool first, second, barrier; // writes?
    } cases[] = {
        { false, false, false }, { true, false, true }, { false, true, true }, { true, true, true }
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_hazards h = { 0 };
        qn_access a = at(0, 256, cases[i].first), b = at(255, 1, cases[i].second);
        assert_false(qn_hazards_step(&h, &a, 1));
        assert_int_equal(qn_hazards_step(&h, &b, 1), cases[i].barrier);
    }
    qn_hazards h = { 0 };
    qn_access a = at(0, 256, true), beside = at(256, 256, true);
    assert_false(qn_hazards_step(&h, &a, 1));
    assert_false(qn_hazards_step(&h, &beside, 1));
    beside.buffer = 2;
    beside.offset = 0;
    assert_false(qn_hazards_step(&h, &beside, 1));
}

// A step that reads and writes the same bytes is not in conflict with itself.
static void in_place_needs_no_barrier(void **state)
{
    (void)state;
    qn_hazards h = { 0 };
    qn_access a[] = { at(0, 64, false), at(0, 64, true) };
    assert_false(qn_hazards_step(&h, a, 2));
    assert_true(qn_hazards_step(&h, a, 2));
}

static void a_full_list_means_a_barrier(void **state)
{
    (void)state;
    qn_hazards h = { 0 };
    uint32_t barriers = 0;
    for (uint64_t i = 0; i < 3 * QN_HAZARD_ACCESSES; i++) {
        qn_access a = at(64 * i, 64, true);
        barriers += qn_hazards_step(&h, &a, 1);
    }
    assert_int_equal(barriers, 2);
    // Reads of the same range take one place.
    qn_hazards_clear(&h);
    for (int i = 0; i < 10 * QN_HAZARD_ACCESSES; i++) {
        qn_access a = at(0, 64, false);
        assert_false(qn_hazards_step(&h, &a, 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_are_those_of_the_model),
        cmocka_unit_test(every_barrier_is_needed),
        cmocka_unit_test(kinds_of_hazard),
        cmocka_unit_test(in_place_needs_no_barrier),
        cmocka_unit_test(a_full_list_means_a_barrier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
