// The one device that a test program shares between its tests, under the validation layer.
//
//   int main(void)
//   {
//       const struct CMUnitTest tests[] = { ... };
//       qn_device_or_skip();
//       return cmocka_run_group_tests(tests, NULL, NULL) + qn_device_finish();
//   }
#ifndef QN_TEST_DEVICE_H
#define QN_TEST_DEVICE_H

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <quoin/engine.h>

// Opens the context and the device. Ends the program with status 77, saying why, where there is
// no Vulkan device. Validation is on unless QUOIN_VALIDATE=0 or the layer is missing.
void qn_device_or_skip(void);
qn_context *qn_test_context(void);
qn_device *qn_test_device(void);

// Another device of the same context that lacks the capabilities in `hide`; destroy it with
// qn_device_destroy().
qn_device *qn_test_device_hiding(uint32_t hide);
// The same from options of one's own; no cache file unless they name one.
qn_device *qn_test_device_with(const qn_device_opts *opts);

// A zeroed buffer of `size` bytes in device memory.
qn_buffer *qn_test_buffer(qn_device *dev, uint64_t size, const char *name);
// Records y[i] = start + i for i < count.
qn_result qn_test_fill_index(qn_stream *s, qn_range y, uint32_t count, uint32_t start);

// Closes both; 0, or 1 when the validation layer had something to say.
int qn_device_finish(void);

// Keeps every driver and layer loaded until the program ends: a leak checker cannot tell whose
// memory is lost when the module that held it is gone. Contexts made by tests need it too.
void qn_keep_drivers(void);

// Asserts that a call succeeded, printing the message when it did not.
#define assert_ok(call) qn_assert_ok(call, #call, __FILE__, __LINE__)
void qn_assert_ok(qn_result r, const char *call, const char *file, int line);
// Asserts that a call failed with `code` and that its message contains `part`.
#define assert_fails(call, code, part) qn_assert_fails(call, code, part, #call, __FILE__, __LINE__)
void qn_assert_fails(qn_result r, qn_result code, const char *part, const char *call,
                     const char *file, int line);

#endif
