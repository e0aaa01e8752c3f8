// info: which devices there are, which one would be used and why, and what it gets.
#include "cli/command.h"
#include "cli/help.h"
#include "cli/report.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

typedef struct info_opts {
    bool kernels;
} info_opts;

static const qn_opt options[] = {
    { "kernels", 'k', QN_AT_FLAG(info_opts, kernels),
      .help = "list every kernel and the form the chosen device gets" },
    { 0 },
};

typedef struct found {
    qn_device_info *devices;
    size_t count, chosen;
} found;

static const char *class_name(const qn_device_info *d)
{
    return d->kernel_class == QN_CLASS_FLAT ? "flat" : "tiled";
}

static void format_uuid(const qn_device_info *d, char text[33])
{
    for (int i = 0; i < 16; i++) snprintf(text + 2 * i, 3, "%02x", d->uuid[i]);
}

// "1.3.230", as Vulkan packs versions.
static void format_version(uint32_t v, char text[24])
{
    snprintf(text, 24, "%u.%u.%u", (v >> 22) & 0x7f, (v >> 12) & 0x3ff, v & 0xfff);
}

static qn_result list_devices(qn_context *ctx, found *f)
{
    QN_TRY(qn_device_list(ctx, NULL, 0, &f->count));
    f->devices = qn_calloc(f->count, sizeof *f->devices);
    if (!f->devices) return qn_no_memory(f->count * sizeof *f->devices);
    size_t capacity = f->count; // a device may have gone or come meanwhile
    QN_TRY(qn_device_list(ctx, f->devices, capacity, &f->count));
    if (f->count > capacity) f->count = capacity;
    return QN_OK;
}

static size_t index_of(const found *f, const qn_device_info *d)
{
    for (size_t i = 0; i < f->count; i++) {
        bool same = !memcmp(f->devices[i].uuid, d->uuid, sizeof d->uuid) &&
                    !strcmp(f->devices[i].name, d->name);
        if (same) return i;
    }
    return 0;
}

// How many kernels have each form on the device: "flat", "portable", "none".
static size_t count_form(const qn_device *dev, const char *form)
{
    size_t n = 0;
    for (int k = 0; k < QN_KERNEL_COUNT; k++) n += !strcmp(qn_kernel_form(dev, (qn_kernel)k), form);
    return n;
}

// ------------------------------------------------------------------------------------ text

static void text_caps(const qn_device_info *d)
{
    printf("  capabilities  ");
    for (uint32_t bit = 1; qn_cap_name(bit); bit <<= 1) {
        printf("%s%s", d->caps & bit ? "" : "no ", qn_cap_name(bit));
        if (qn_cap_name(bit << 1)) printf(", ");
    }
    printf("\n");
}

// why: NULL for a device that would not be used.
static void text_device(const qn_device_info *d, size_t index, const char *why)
{
    char api[24], uuid[33], a[24], b[24], c[24];
    format_version(d->api_version, api);
    format_uuid(d, uuid);
    printf("%zu: %s%s%s\n", index, d->name, why ? "  <- would be used: " : "", why ? why : "");
    printf("  rank          %s\n", d->reason);
    printf("  driver        %s, Vulkan %s\n", d->driver, api);
    printf("  kind          %s, %s kernels\n",
           d->software   ? "software"
           : d->discrete ? "discrete"
                         : "integrated",
           class_name(d));
    printf("  memory        %s, %s free; one binding up to %s\n",
           qn_format_size(d->memory, a, sizeof a), qn_format_size(d->budget, b, sizeof b),
           qn_format_size(d->max_binding, c, sizeof c));
    printf("  limits        subgroup %u, workgroup %u, shared memory %s, %u storage buffers",
           d->subgroup_size, d->max_invocations, qn_format_size(d->shared_memory, a, sizeof a),
           d->max_storage_buffers);
    if (d->compute_units) printf(", %u compute units", d->compute_units);
    printf("\n");
    text_caps(d);
    printf("  quirks        %s\n", *d->quirks ? d->quirks : "none");
    printf("  uuid          %s\n", uuid);
}

static qn_result text_kernels(const qn_device *dev)
{
    static const qn_column columns[] = { { .key = "kernel" }, { .key = "form" } };
    qn_report *report;
    QN_TRY(qn_report_open(stdout, QN_REPORT_TEXT, columns, 2, &report));
    qn_result r = QN_OK;
    for (int k = 0; k < QN_KERNEL_COUNT && r == QN_OK; k++) {
        r = qn_report_row(report, (qn_value[]){ QN_TEXT(qn_kernel_name((qn_kernel)k)),
                                                QN_TEXT(qn_kernel_form(dev, (qn_kernel)k)) });
    }
    qn_result closed = qn_report_close(&report);
    return r == QN_OK ? closed : r;
}

static qn_result print_text(const qn_cli *cli, const found *f, const qn_device *dev,
                            const info_opts *o)
{
    qn_textbuf build = { 0 };
    qn_build_text(&build);
    printf("%s\n", qn_textbuf_get(&build));
    qn_textbuf_free(&build);
    const char *why = cli->device ? "--device" : f->count > 1 ? "the best" : "the only one";
    for (size_t i = 0; i < f->count; i++) {
        bool chosen = i == f->chosen;
        text_device(chosen ? qn_device_describe(dev) : &f->devices[i], i, chosen ? why : NULL);
    }
    size_t none = count_form(dev, "none");
    printf("\nkernels: %zu flat, %zu portable", count_form(dev, "flat"),
           count_form(dev, "portable"));
    if (none) printf(", %zu without a usable form", none);
    printf("%s\n", o->kernels ? "\n" : "; --kernels lists them");
    return o->kernels ? text_kernels(dev) : QN_OK;
}

// ------------------------------------------------------------------------------------ JSON

// Drivers name themselves; whatever bytes they use, the document stays valid.
static void put_clean(qn_json_writer *w, const char *key, const char *s)
{
    qn_textbuf t = { 0 };
    qn_textbuf_clean(&t, s);
    if (t.failed && w->status == QN_OK) w->status = qn_textbuf_status(&t);
    qn_json_put_string(w, key, qn_textbuf_get(&t));
    qn_textbuf_free(&t);
}

static void json_device(qn_json_writer *w, const qn_device_info *d, size_t index, bool chosen)
{
    char api[24], uuid[33];
    format_version(d->api_version, api);
    format_uuid(d, uuid);
    qn_json_put_object(w, NULL);
    qn_json_put_int(w, "index", (int64_t)index);
    qn_json_put_bool(w, "chosen", chosen);
    put_clean(w, "name", d->name);
    put_clean(w, "driver", d->driver);
    put_clean(w, "reason", d->reason);
    qn_json_put_string(w, "uuid", uuid);
    qn_json_put_string(w, "vulkan", api);
    qn_json_put_int(w, "vendor", d->vendor);
    qn_json_put_int(w, "device", d->device);
    qn_json_put_int(w, "driver_version", d->driver_version);
    qn_json_put_bool(w, "software", d->software);
    qn_json_put_bool(w, "discrete", d->discrete);
    qn_json_put_string(w, "class", class_name(d));
    qn_json_put_int(w, "memory", (int64_t)d->memory);
    qn_json_put_int(w, "budget", (int64_t)d->budget);
    qn_json_put_int(w, "max_binding", (int64_t)d->max_binding);
    qn_json_put_int(w, "max_allocation", (int64_t)d->max_allocation);
    qn_json_put_int(w, "subgroup_size", d->subgroup_size);
    qn_json_put_int(w, "shared_memory", d->shared_memory);
    qn_json_put_int(w, "max_invocations", d->max_invocations);
    qn_json_put_int(w, "max_groups", d->max_groups);
    qn_json_put_int(w, "max_storage_buffers", d->max_storage_buffers);
    qn_json_put_int(w, "compute_units", d->compute_units);
    qn_json_put_array(w, "capabilities");
    for (uint32_t bit = 1; qn_cap_name(bit); bit <<= 1) {
        if (d->caps & bit) qn_json_put_string(w, NULL, qn_cap_name(bit));
    }
    qn_json_put_end(w, ']');
    put_clean(w, "quirks", d->quirks);
    qn_json_put_end(w, '}');
}

static qn_result print_json(const found *f, const qn_device *dev)
{
    qn_json_writer w = { 0 };
    qn_json_put_object(&w, NULL);
    qn_build_json(&w);
    qn_json_put_array(&w, "devices");
    for (size_t i = 0; i < f->count; i++) {
        bool chosen = i == f->chosen;
        json_device(&w, chosen ? qn_device_describe(dev) : &f->devices[i], i, chosen);
    }
    qn_json_put_end(&w, ']');
    qn_json_put_object(&w, "kernels");
    for (int k = 0; k < QN_KERNEL_COUNT; k++) {
        qn_json_put_string(&w, qn_kernel_name((qn_kernel)k), qn_kernel_form(dev, (qn_kernel)k));
    }
    qn_json_put_end(&w, '}');
    qn_json_put_end(&w, '}');
    qn_result r = w.status;
    if (r == QN_OK) printf("%.*s\n", (int)w.size, w.text);
    qn_json_writer_free(&w);
    return r;
}

// ------------------------------------------------------------------------------------ command

static int run(const qn_cli *cli, const void *opts)
{
    const info_opts *o = opts;
    qn_context *ctx = NULL;
    qn_device *dev = NULL;
    found f = { 0 };
    qn_result r = qn_cli_open_context(cli, &ctx);
    if (r == QN_OK) r = list_devices(ctx, &f);
    if (r == QN_OK) r = qn_cli_open_device(cli, ctx, &dev);
    if (r == QN_OK) {
        f.chosen = index_of(&f, qn_device_describe(dev));
        r = cli->json ? print_json(&f, dev) : print_text(cli, &f, dev, o);
    }
    int status = qn_cli_result(r);
    qn_device_destroy(&dev);
    qn_context_destroy(&ctx);
    qn_free(f.devices);
    return status;
}

const qn_command qn_command_info = {
    .about = "Lists the Vulkan devices, best first, with what they can do, how much memory is "
             "free, which peculiarities of their drivers are worked around, and why each has its "
             "rank. The one that other commands would use is marked; --device chooses another.\n\n"
             "A capability that a device lacks never removes an operation: it selects another "
             "form of a kernel. Without any Vulkan driver the command says what to install and "
             "ends with status 3.",
    .examples = "quoin info\nquoin info --kernels --device llvmpipe\nquoin info --json",
    .options = options,
    .opts_size = sizeof(info_opts),
    .run = run,
};
