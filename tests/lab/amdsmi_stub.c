/* The part of a stand-in for AMD's libamd_smi.so that answers; stub_libraries.py adds every other symbol that the binding
   binds at import as "not supported". GPU_SETUP_STUB configures it: "count=2;error=34". */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
int gpu_setup_stub = 1;
static long sockets[8], processors[8];

static long setting(const char *name, long otherwise) {
    const char *all = getenv("GPU_SETUP_STUB"), *at = all ? strstr(all, name) : NULL;
    return at ? atol(at + strlen(name)) : otherwise;
}

int amdsmi_init(uint64_t flags) { (void)flags; return (int)setting("error=", 0); }
int amdsmi_shut_down(void) { return 0; }
int amdsmi_get_socket_handles(uint32_t *n, void **out) {
    if (!out) { *n = (uint32_t)setting("count=", 1); return 0; }
    for (uint32_t i = 0; i < *n; i++) out[i] = &sockets[i];
    return 0;
}
int amdsmi_get_processor_handles(void *socket, uint32_t *n, void **out) {
    *n = 1;
    if (out) out[0] = &processors[(long *)socket - sockets];
    return 0;
}
int amdsmi_get_gpu_device_bdf(void *p, uint64_t *out) { *out = (uint64_t)(3 + ((long *)p - processors)) << 8; return 0; }
int amdsmi_get_gpu_memory_total(void *p, uint32_t kind, uint64_t *out) { (void)p; (void)kind; *out = 25753026560ull; return 0; }
int amdsmi_get_gpu_memory_usage(void *p, uint32_t kind, uint64_t *out) { (void)p; (void)kind; *out = 858434218ull; return 0; }
int amdsmi_get_temp_metric(void *p, uint32_t sensor, uint32_t metric, int64_t *out) {
    (void)p; (void)metric;
    /* the memory's sensor answers nonsense, as a library newer than its binding does */
    *out = sensor == 0 ? 41 : sensor == 1 ? 47 : 2147483647;
    return 0;
}
