// The pipeline cache's file: a header of ours, so that a driver never sees bytes that are damaged
// or another driver's, then what vkGetPipelineCacheData() gave.
#include "cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_VERSION 1
#define LARGEST_FILE (UINT64_C(1) << 30)

// All fields are naturally aligned, so the struct is the file's layout.
typedef struct cache_header {
    char magic[8];
    uint32_t version, driver_version;
    uint8_t uuid[16];
    uint64_t size, checksum; // of the data behind the header
} cache_header;

static const char magic[8] = "qnpcache";

// FNV-1a, 64 bits.
static uint64_t checksum_of(const void *data, size_t size)
{
    const uint8_t *p = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++) h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    return h;
}

static cache_header header_for(const qn_device *dev, const void *data, size_t size)
{
    cache_header h = {
        .version = FORMAT_VERSION,
        .driver_version = dev->info.driver_version,
        .size = size,
        .checksum = checksum_of(data, size),
    };
    memcpy(h.magic, magic, sizeof magic);
    memcpy(h.uuid, dev->info.uuid, sizeof h.uuid);
    return h;
}

// "<dir>/pipelines-<uuid>.bin"; NULL where no directory is known.
static char *path_of(const qn_device *dev, const char *dir)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char name[64] = "pipelines-", folder[1024];
    for (size_t i = 0; i < sizeof dev->info.uuid; i++)
        snprintf(name + strlen(name), 3, "%02x", dev->info.uuid[i]);
    strcat(name, ".bin");
    if (!dir) {
        int n;
        if (base && base[0])
            n = snprintf(folder, sizeof folder, "%s/quoin", base);
        else if (home && home[0])
            n = snprintf(folder, sizeof folder, "%s/.cache/quoin", home);
        else
            return NULL;
        if (n < 0 || (size_t)n >= sizeof folder) return NULL;
        dir = folder;
    }
    return dir[0] ? qn_path_join(dir, name) : NULL;
}

// The data inside a file's bytes, NULL where they are not what this device wrote.
static const void *unwrap(const qn_device *dev, const char *bytes, size_t size, size_t *data_size)
{
    cache_header found;
    if (size < sizeof found) return NULL;
    memcpy(&found, bytes, sizeof found);
    const void *data = bytes + sizeof found;
    *data_size = size - sizeof found;
    cache_header expected = header_for(dev, data, *data_size);
    return memcmp(&found, &expected, sizeof found) ? NULL : data;
}

static VkResult create(qn_device *dev, const void *data, size_t size, VkPipelineCache *out)
{
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
        .initialDataSize = size,
        .pInitialData = data,
    };
    return dev->vk.vkCreatePipelineCache(dev->handle, &info, NULL, out);
}

qn_result qn_cache_open(qn_device *dev, const char *dir, qn_cache *cache)
{
    *cache = (qn_cache){ .path = path_of(dev, dir) };
    char *bytes = NULL;
    size_t size = 0, data_size = 0;
    const void *data = NULL;
    if (cache->path && qn_file_exists(cache->path)) {
        if (qn_read_file(cache->path, LARGEST_FILE, &bytes, &size) == QN_OK)
            data = unwrap(dev, bytes, size, &data_size);
        if (!data) qn_log(QN_LOG_INFO, "%s does not fit this device: starting empty", cache->path);
    }
    VkResult r = VK_ERROR_UNKNOWN;
    if (data) {
        cache->checksum = checksum_of(data, data_size);
        r = create(dev, data, data_size, &cache->handle);
    }
    if (r != VK_SUCCESS) r = create(dev, NULL, 0, &cache->handle);
    qn_free(bytes);
    return qn_vk_result(dev, r, "creating the pipeline cache");
}

static qn_result write_cache(const qn_device *dev, const char *path, const void *data, size_t size)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? qn_strndup(path, (size_t)(slash - path)) : qn_strdup(".");
    if (!folder) return qn_no_memory(strlen(path));
    qn_result r = folder[0] ? qn_make_dirs(folder) : QN_OK;
    qn_free(folder);
    QN_TRY(r);
    qn_atomic_file *f;
    QN_TRY(qn_atomic_open(path, &f));
    cache_header header = header_for(dev, data, size);
    r = qn_atomic_write(f, &header, sizeof header);
    if (r == QN_OK) r = qn_atomic_write(f, data, size);
    if (r == QN_OK) return qn_atomic_commit(&f);
    qn_atomic_abandon(&f);
    return r;
}

static void save(qn_device *dev, const qn_cache *cache)
{
    size_t size = 0;
    if (dev->vk.vkGetPipelineCacheData(dev->handle, cache->handle, &size, NULL) != VK_SUCCESS)
        return;
    void *data = qn_malloc(size);
    if (data &&
        dev->vk.vkGetPipelineCacheData(dev->handle, cache->handle, &size, data) == VK_SUCCESS &&
        checksum_of(data, size) != cache->checksum &&
        write_cache(dev, cache->path, data, size) != QN_OK)
        qn_log(QN_LOG_WARN, "the pipeline cache was not kept: %s", qn_error_message());
    qn_free(data);
}

void qn_cache_close(qn_device *dev, qn_cache *cache, bool changed)
{
    if (cache->handle && cache->path && changed) save(dev, cache);
    if (cache->handle) dev->vk.vkDestroyPipelineCache(dev->handle, cache->handle, NULL);
    qn_free(cache->path);
    *cache = (qn_cache){ 0 };
}
