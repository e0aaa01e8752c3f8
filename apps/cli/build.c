// What this build is: version, compiler, optional parts.
#include "cli/help.h"
#include "io/json.h"

#include <stdio.h>

#if defined(__clang__)
#define COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPILER "gcc " __VERSION__
#else
#define COMPILER "unknown"
#endif

// Rows of "version" and of "info": a name and its value; flags are "yes" and "no".
static const struct {
    const char *key, *value;
} facts[] = {
    { "compiler", COMPILER },
    { "build", QN_BUILD_TYPE },
    { "sanitizers", QN_BUILD_SANITIZE[0] ? QN_BUILD_SANITIZE : "none" },
    { "run_time_shaders", QN_HAVE_SHADERC ? "yes" : "no" },
};

void qn_build_json(qn_json_writer *w)
{
    qn_json_put_string(w, "version", qn_version());
    qn_json_put_object(w, "build");
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        qn_json_put_string(w, facts[i].key, facts[i].value);
    }
    qn_json_put_int(w, "kernels", QN_KERNEL_COUNT);
    qn_json_put_end(w, '}');
}

void qn_build_text(qn_textbuf *t)
{
    qn_textbuf_printf(t, "quoin %s (", qn_version());
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        for (const char *s = facts[i].key; *s; s++)
            qn_textbuf_printf(t, "%c", *s == '_' ? ' ' : *s);
        qn_textbuf_printf(t, ": %s, ", facts[i].value);
    }
    qn_textbuf_printf(t, "kernels: %d)\n", QN_KERNEL_COUNT);
}
