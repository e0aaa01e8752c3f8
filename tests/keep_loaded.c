// For builds with a leak detector: keeps shared libraries in memory until the program ends.
//
// Mesa's software driver holds 128 bytes through a variable of its own until exit. The Vulkan
// loader unloads the driver with the instance; from then on nothing points to those bytes and no
// symbol says whose they are. With the driver still loaded they are reachable, and every leak that
// is reported is a real one.
#include <dlfcn.h>

__attribute__((visibility("default"))) int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
