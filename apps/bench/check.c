// Runs registered suites and reports: lines for people, JSON to share.
#include "check.h"

#include "fail.h"
#include "mem.h"
#include "nearest.h"
#include "platform.h"

#include <cJSON.h>
#include <string.h>

static const qn_check_suite *suites; // ended by a row without a name

void qn_check_register(const qn_check_suite *table)
{
    suites = table;
}

const qn_check_suite *qn_check_suites(void)
{
    return suites;
}

qn_result qn_check_open(qn_context *ctx, const char *select, qn_device *devs[2], size_t *count)
{
    devs[0] = devs[1] = NULL;
    *count = 0;
    QN_TRY(qn_device_create(ctx, &(qn_device_opts){ .select = select }, &devs[0]));
    if (qn_device_describe(devs[0])->kernel_class == QN_CLASS_FLAT) {
        qn_device_opts opts = { .select = select, .hide = QN_CAP_SUBGROUP | QN_CAP_TEXEL };
        qn_result r = qn_device_create(ctx, &opts, &devs[1]);
        if (r != QN_OK) {
            qn_device_destroy(&devs[0]);
            return r;
        }
    }
    *count = devs[1] ? 2 : 1;
    return QN_OK;
}

static qn_result unknown_op(const char *op)
{
    char known[1024] = "";
    size_t used = 0;
    qn_nearest near = { .word = op };
    for (const qn_check_suite *s = suites; s->op; s++) qn_nearest_offer(&near, s->op);
    if (near.best) {
        return qn_fail(QN_ERR_INVALID, "no operation is called \"%s\"; did you mean \"%s\"?", op,
                       near.best);
    }
    for (const qn_check_suite *s = suites; s->op; s++) {
        int n = snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", s->op);
        if (n < 0 || (size_t)n >= sizeof known - used) break;
        used += (size_t)n;
    }
    return qn_fail(QN_ERR_INVALID, "no operation is called \"%s\"; there are: %s", op, known);
}

static bool is_listed(const char *const *ops, size_t count, const char *op)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(ops[i], op) == 0) return true;
    return false;
}

static bool is_known(const char *op)
{
    for (const qn_check_suite *s = suites; s->op; s++)
        if (strcmp(s->op, op) == 0) return true;
    return false;
}

qn_result qn_check_known(const char *const *ops, size_t count)
{
    if (!suites || !suites->op)
        return qn_fail(QN_ERR_UNSUPPORTED, "this program was built without the cases to check");
    for (size_t i = 0; i < count; i++)
        if (!is_known(ops[i])) return unknown_op(ops[i]);
    return QN_OK;
}

static void op_free(qn_check_op *op)
{
    qn_free(op->cases);
    *op = (qn_check_op){ 0 };
}

qn_result qn_check_ops(qn_device *const *devs, size_t count, const qn_check_opts *opts,
                       qn_check_report *out)
{
    static const qn_check_opts all = { 0 };
    if (!opts) opts = &all;
    if (!count) return qn_fail(QN_ERR_INVALID, "a check needs a device");

    QN_TRY(qn_check_known(opts->ops, opts->op_count));

    double start = qn_clock();
    qn_check_report report = { .device = *qn_device_describe(devs[0]) };
    size_t cap = 0;
    for (const qn_check_suite *s = suites; s->op; s++) {
        if (opts->op_count && !is_listed(opts->ops, opts->op_count, s->op)) continue;
        qn_check_op op = { .op = s->op };
        double began = qn_clock();
        qn_result r = s->run(s, devs, count, opts->filter, &op);
        if (r == QN_OK)
            r = qn_grow((void **)&report.ops, &cap, report.count + 1, sizeof *report.ops);
        if (r != QN_OK) {
            op_free(&op);
            qn_check_free(&report);
            return qn_context_add(r, "checking %s", s->op);
        }
        op.seconds = qn_clock() - began;
        op.failed = 0;
        for (size_t i = 0; i < op.count; i++)
            op.failed += op.cases[i].failure[0] != 0;
        report.ops[report.count++] = op;
        report.failed += op.failed;
        report.passed += op.count - op.failed;
        if (opts->done) opts->done(opts->user, &report.ops[report.count - 1]);
    }
    report.seconds = qn_clock() - start;
    *out = report;
    return QN_OK;
}

void qn_check_free(qn_check_report *report)
{
    for (size_t i = 0; i < report->count; i++)
        op_free(&report->ops[i]);
    qn_free(report->ops);
    *report = (qn_check_report){ 0 };
}

static const qn_check_case *worst_case(const qn_check_op *op)
{
    const qn_check_case *worst = NULL;
    for (size_t i = 0; i < op->count; i++)
        if (op->cases[i].tensor[0] && (!worst || !(op->cases[i].units <= worst->units)))
            worst = &op->cases[i];
    return worst;
}

void qn_check_print_op(FILE *out, const qn_check_op *op)
{
    const qn_check_case *w = worst_case(op);
    fprintf(out, "%-6s %-18s %4zu cases  ", op->failed ? "FAILED" : "ok", op->op, op->count);
    if (w)
        fprintf(out, "worst %5.3f of tolerance, %.1e relative (%s %s[%lld], %s)  ", w->units,
                w->relative, w->name, w->tensor, (long long)w->index, w->form);
    fprintf(out, "%.2f s\n", op->seconds);
    for (size_t i = 0; i < op->count; i++)
        if (op->cases[i].failure[0])
            fprintf(out, "       %s: %s\n", op->cases[i].name, op->cases[i].failure);
}

void qn_check_print(FILE *out, const qn_check_report *report)
{
    fprintf(out, "%s, %s\n", report->device.name, report->device.driver);
    for (size_t i = 0; i < report->count; i++)
        qn_check_print_op(out, &report->ops[i]);
    fprintf(out, "%zu passed, %zu failed, %.1f s\n", report->passed, report->failed,
            report->seconds);
}

static bool add_device(cJSON *root, const qn_device_info *info)
{
    cJSON *dev = cJSON_AddObjectToObject(root, "device");
    cJSON *caps = dev ? cJSON_AddArrayToObject(dev, "caps") : NULL;
    if (!caps) return false;
    for (uint32_t bit = 1; bit; bit <<= 1) {
        if (!(info->caps & bit) || !qn_cap_name(bit)) continue;
        cJSON *name = cJSON_CreateString(qn_cap_name(bit));
        if (!name || !cJSON_AddItemToArray(caps, name)) return false;
    }
    char uuid[2 * sizeof info->uuid + 1];
    for (size_t i = 0; i < sizeof info->uuid; i++)
        snprintf(uuid + 2 * i, 3, "%02x", info->uuid[i]);
    const char *kernels = info->kernel_class == QN_CLASS_FLAT ? "flat" : "tiled";
    return cJSON_AddStringToObject(dev, "name", info->name) &&
           cJSON_AddStringToObject(dev, "driver", info->driver) &&
           cJSON_AddStringToObject(dev, "uuid", uuid) &&
           cJSON_AddStringToObject(dev, "class", kernels) &&
           cJSON_AddStringToObject(dev, "quirks", info->quirks) &&
           cJSON_AddNumberToObject(dev, "vendor", info->vendor) &&
           cJSON_AddNumberToObject(dev, "device", info->device) &&
           cJSON_AddNumberToObject(dev, "driver_version", info->driver_version) &&
           cJSON_AddNumberToObject(dev, "api_version", info->api_version) &&
           cJSON_AddNumberToObject(dev, "subgroup_size", info->subgroup_size);
}

static bool add_case(cJSON *list, const qn_check_case *c)
{
    cJSON *item = cJSON_CreateObject();
    if (!item || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return false;
    }
    if (!cJSON_AddStringToObject(item, "name", c->name) ||
        !cJSON_AddBoolToObject(item, "passed", !c->failure[0]) ||
        !cJSON_AddNumberToObject(item, "seconds", c->seconds))
        return false;
    if (c->failure[0] && !cJSON_AddStringToObject(item, "failure", c->failure)) return false;
    if (!c->tensor[0]) return true;
    return cJSON_AddNumberToObject(item, "units", c->units) &&
           cJSON_AddNumberToObject(item, "relative", c->relative) &&
           cJSON_AddStringToObject(item, "tensor", c->tensor) &&
           cJSON_AddNumberToObject(item, "index", (double)c->index) &&
           cJSON_AddStringToObject(item, "form", c->form);
}

static bool add_op(cJSON *list, const qn_check_op *op)
{
    cJSON *item = cJSON_CreateObject();
    if (!item || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return false;
    }
    cJSON *cases = cJSON_AddArrayToObject(item, "cases");
    if (!cases || !cJSON_AddStringToObject(item, "op", op->op) ||
        !cJSON_AddNumberToObject(item, "failed", (double)op->failed) ||
        !cJSON_AddNumberToObject(item, "seconds", op->seconds))
        return false;
    for (size_t i = 0; i < op->count; i++)
        if (!add_case(cases, &op->cases[i])) return false;
    return true;
}

qn_result qn_check_json(const qn_check_report *report, char **text)
{
    cJSON *root = cJSON_CreateObject();
    bool good = root && cJSON_AddStringToObject(root, "version", qn_version()) &&
                add_device(root, &report->device) &&
                cJSON_AddNumberToObject(root, "passed", (double)report->passed) &&
                cJSON_AddNumberToObject(root, "failed", (double)report->failed) &&
                cJSON_AddNumberToObject(root, "seconds", report->seconds);
    cJSON *ops = good ? cJSON_AddArrayToObject(root, "ops") : NULL;
    good = ops;
    for (size_t i = 0; good && i < report->count; i++)
        good = add_op(ops, &report->ops[i]);
    char *printed = good ? cJSON_Print(root) : NULL;
    char *copy = printed ? qn_strdup(printed) : NULL;
    cJSON_free(printed);
    cJSON_Delete(root);
    if (!copy) return qn_no_memory(0);
    *text = copy;
    return QN_OK;
}
