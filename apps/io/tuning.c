// The habits of drivers, as data, and the file of choices.
#include "io/tuning.h"

#include "io/json.h"
#include "mem.h"
#include "platform.h"

#include <inttypes.h>
#include <quoin/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const qn_habit qn_habits[] = {
    { "llvmpipe", "LP_NATIVE_VECTOR_WIDTH", "128|256|512", "bits of a vector" },
    { "llvmpipe", "LP_NUM_THREADS", "0|1|2|cpus", "worker threads; 0: the submitting one" },
    { 0 },
};

static char applied[256]; // the driver that the applied tuning was measured with

void qn_tuning_machine(char out[128])
{
    char *text, name[96] = "";
    size_t size;
    out[0] = 0;
    // Linux's file has no size; read by hand.
    FILE *f = fopen("/proc/cpuinfo", "r");
    text = f ? qn_malloc(1 << 14) : NULL;
    size = text ? fread(text, 1, (1 << 14) - 1, f) : 0;
    if (f) fclose(f);
    if (text) {
        text[size] = 0;
        const char *at = strstr(text, "model name");
        at = at ? strchr(at, ':') : NULL;
        if (at) sscanf(at + 1, " %95[^\n]", name);
    }
    qn_free(text);
    snprintf(out, 128, "%s x %ld", name, sysconf(_SC_NPROCESSORS_ONLN));
}

void qn_tuning_kernels(char out[17])
{
    snprintf(out, 17, "%016" PRIx64, qn_kernels_revision());
}

char *qn_tuning_path(void)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *cache = NULL, *dir = NULL, *path = NULL;
    if (base && base[0])
        cache = qn_strdup(base);
    else if (home && home[0])
        cache = qn_path_join(home, ".cache");
    if (cache) dir = qn_path_join(cache, "quoin");
    if (dir) path = qn_path_join(dir, "tuning.json");
    qn_free(cache);
    qn_free(dir);
    return path;
}

// ------------------------------------------------------------------------------------ file

qn_result qn_tuning_save(const qn_tuning *t, const char *path)
{
    char *dir = qn_strdup(path);
    if (!dir) return qn_no_memory(strlen(path));
    char *slash = strrchr(dir, '/');
    qn_result r = QN_OK;
    if (slash && slash != dir) {
        *slash = 0;
        r = qn_make_dirs(dir);
    }
    qn_free(dir);
    QN_TRY(r);
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_json_put_string(&w, "driver", t->driver);
    qn_json_put_string(&w, "machine", t->machine);
    qn_json_put_string(&w, "kernels", t->kernels);
    qn_json_put_object(&w, "environment");
    for (size_t i = 0; i < t->count; i++)
        qn_json_put_string(&w, t->choices[i].variable, t->choices[i].value);
    qn_json_put_end(&w, '}');
    qn_json_put_end(&w, '}');
    return qn_json_save(&w, path);
}

static qn_result read_text(qn_json v, const char *key, char *out, size_t size)
{
    const char *s;
    QN_TRY(qn_json_string(v, key, &s));
    if (strlen(s) >= size) return qn_json_fail(v, "%s is too long", key);
    snprintf(out, size, "%s", s);
    return QN_OK;
}

static qn_result read_choice(qn_json v, qn_tuning *out)
{
    const qn_habit *h = qn_habits;
    while (h->driver && strcmp(h->variable, qn_json_key(v)) != 0) h++;
    if (!h->driver || out->count == QN_TUNING_CHOICES)
        return qn_json_fail(v, "no driver's habit is called %.40s", qn_json_key(v));
    const char *value;
    QN_TRY(qn_json_string(v, NULL, &value));
    if (!value[0] || strlen(value) > 5 || strspn(value, "0123456789") != strlen(value))
        return qn_json_fail(v, "expected a number");
    out->choices[out->count].variable = h->variable;
    snprintf(out->choices[out->count++].value, 16, "%s", value);
    return QN_OK;
}

static qn_result read_all(qn_json root, qn_tuning *out)
{
    qn_json environment;
    QN_TRY(read_text(root, "driver", out->driver, sizeof out->driver));
    QN_TRY(read_text(root, "machine", out->machine, sizeof out->machine));
    QN_TRY(read_text(root, "kernels", out->kernels, sizeof out->kernels));
    QN_TRY(qn_json_object(root, "environment", &environment));
    for (qn_json v = qn_json_first(environment); v.node; v = qn_json_next(v))
        QN_TRY(read_choice(v, out));
    return QN_OK;
}

qn_result qn_tuning_load(const char *path, qn_tuning *out)
{
    qn_json_doc *doc;
    *out = (qn_tuning){ 0 };
    QN_TRY(qn_json_open(path, &(qn_json_limits){ .size = 1 << 16 }, &doc));
    qn_result r = read_all(qn_json_root(doc), out);
    qn_json_close(&doc);
    if (r != QN_OK) *out = (qn_tuning){ 0 };
    return r;
}

// ------------------------------------------------------------------------------------ use

void qn_tuning_apply(void)
{
    const char *wish = getenv("QUOIN_TUNING");
    char *path = qn_tuning_path(), machine[128], kernels[17];
    qn_tuning t;
    applied[0] = 0;
    if ((wish && !strcmp(wish, "0")) || !path || !qn_file_exists(path)) {
        qn_free(path);
        return;
    }
    qn_tuning_machine(machine);
    qn_tuning_kernels(kernels);
    if (qn_tuning_load(path, &t) != QN_OK) {
        qn_log(QN_LOG_WARN, "%s; it is not used: run quoin bench tune again", qn_error_message());
    } else if (strcmp(t.machine, machine) != 0) {
        qn_log(QN_LOG_INFO, "%s is of another machine (%s): it is not used", path, t.machine);
    } else if (strcmp(t.kernels, kernels) != 0) {
        qn_log(QN_LOG_INFO, "%s was measured with other shaders: it is not used", path);
    } else {
        for (size_t i = 0; i < t.count; i++)
            qn_env_default(t.choices[i].variable, t.choices[i].value);
        snprintf(applied, sizeof applied, "%s", t.driver);
    }
    qn_free(path);
}

void qn_tuning_check(const char *driver)
{
    if (applied[0] && strcmp(applied, driver) != 0)
        qn_log(QN_LOG_WARN,
               "the stored tuning is of driver \"%s\", this is \"%s\": run quoin bench "
               "tune again",
               applied, driver);
}
