// Frames for graphics debuggers: RenderDoc through its in-application interface, when it has loaded
// itself into this process; AMD's profiler through the labels that it takes for a frame's ends.
#include "vk.h"

#include <dlfcn.h>

// The beginning of RenderDoc's table of functions, version 1.0. It only grows at its end.
typedef struct renderdoc {
    void (*before_start[19])(void); // nothing we call
    void (*start)(void *device, void *window);
    uint32_t (*is_capturing)(void);
    uint32_t (*end)(void *device, void *window); // 1: there is a capture
} renderdoc;

#define RENDERDOC_1_0 10000

static const renderdoc *find_renderdoc(void)
{
    void *library = dlopen("librenderdoc.so", RTLD_NOW | RTLD_NOLOAD);
    if (!library) return NULL;
    int (*get)(int version, void **out);
    *(void **)&get = dlsym(library, "RENDERDOC_GetAPI");
    void *table = NULL;
    if (get && get(RENDERDOC_1_0, &table) != 1) table = NULL;
    dlclose(library); // our reference; it stays loaded
    return table;
}

static void insert_label(qn_device *dev, const char *name)
{
    if (!dev->ctx->queue_label) return;
    VkDebugUtilsLabelEXT label = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
        .pLabelName = name,
    };
    pthread_mutex_lock(&dev->lock);
    dev->ctx->queue_label(dev->queue, &label);
    pthread_mutex_unlock(&dev->lock);
}

bool qn_capture_begin(qn_device *dev)
{
    const renderdoc *r = find_renderdoc();
    if (r) r->start(NULL, NULL);
    insert_label(dev, "AmdFrameBegin");
    return r != NULL;
}

bool qn_capture_end(qn_device *dev)
{
    insert_label(dev, "AmdFrameEnd");
    const renderdoc *r = find_renderdoc();
    return r && r->end(NULL, NULL) == 1;
}
