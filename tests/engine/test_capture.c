// Captures: nothing without RenderDoc, one frame with it.
#include "device.h"

#include <dlfcn.h>

static void test_without(void **state)
{
    (void)state;
    assert_false(qn_capture_begin(qn_test_device()));
    assert_false(qn_capture_end(qn_test_device()));
}

static void test_with(void **state)
{
    (void)state;
    void *library = dlopen(QN_FAKE_RENDERDOC, RTLD_NOW | RTLD_GLOBAL);
    if (!library) fail_msg("%s", dlerror());
    const int *started = dlsym(library, "fake_started"), *ended = dlsym(library, "fake_ended"),
              *others = dlsym(library, "fake_others");
    assert_true(qn_capture_begin(qn_test_device()));
    assert_true(*started == 1 && *ended == 0);
    assert_true(qn_capture_end(qn_test_device()));
    assert_true(*started == 1 && *ended == 1 && *others == 0);
    dlclose(library);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_without),
                                        cmocka_unit_test(test_with) };
    qn_device_or_skip();
    return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
}
