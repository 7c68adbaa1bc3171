/* A stand-in for NVIDIA's libnvidia-ml.so.1, for tests of the real Python binding without a GPU.
   GPU_SETUP_STUB configures it: "count=2;driver=580.95.05;error=18;lost=1;hang=1;stubborn=1".
   Functions that it lacks are part of the test: the binding must give null for their values. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int status;
typedef void *device;

/* by this symbol bindings.py knows that no driver answered */
int gpu_setup_stub = 1;

static int devices[16];

static const char *setting(const char *name, const char *otherwise) {
    static char values[8][128];
    static int next;
    const char *at = getenv("GPU_SETUP_STUB");
    size_t length = strlen(name);
    while (at && *at) {
        if (!strncmp(at, name, length) && at[length] == '=') {
            size_t size = strcspn(at += length + 1, ";");
            char *value = values[next++ % 8];
            snprintf(value, sizeof values[0], "%.*s", (int)size, at);
            return value;
        }
        at = strchr(at, ';');
        if (at) at++;
    }
    return otherwise;
}

static long number(const char *name, const char *otherwise) { return strtol(setting(name, otherwise), NULL, 0); }
static int position(device d) { return (int)((int *)d - devices); }

status nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    /* without persistence mode a start takes seconds */
    usleep((useconds_t)number("slow_ms", "0") * 1000);
    /* noise, as some libraries make it */
    if (number("noise", "0")) { printf("nvml: hello\n"); fflush(stdout); }
    if (number("stubborn", "0")) { sigset_t all; sigfillset(&all); sigprocmask(SIG_BLOCK, &all, NULL); }
    while (number("hang", "0")) pause();
    if (number("crash", "0")) abort();
    return (status)number("error", "0");
}
status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
status nvmlShutdown(void) { return 0; }

const char *nvmlErrorString(status code) {
    switch (code) {
    case 3: return "Not Supported";
    case 4: return "Insufficient Permissions";
    case 9: return "Driver Not Loaded";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    case 17: return "The operating system has blocked the request";
    default: return "Unknown Error";
    }
}

status nvmlSystemGetDriverVersion(char *out, unsigned size) {
    snprintf(out, size, "%s", setting("driver", "580.95.05"));
    return 0;
}
status nvmlSystemGetCudaDriverVersion(int *out) { *out = (int)number("cuda", "13000"); return 0; }
status nvmlSystemGetCudaDriverVersion_v2(int *out) { return nvmlSystemGetCudaDriverVersion(out); }
status nvmlDeviceGetCount_v2(unsigned *out) { *out = (unsigned)number("count", "1"); return 0; }
status nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) {
    if (index >= 16) return 2;
    if (number("lost", "-1") == (long)index) return 15;
    *out = &devices[index];
    return 0;
}
status nvmlDeviceGetName(device d, char *out, unsigned size) {
    (void)d;
    snprintf(out, size, "%s", setting("name", "NVIDIA GeForce RTX 3090"));
    return 0;
}
status nvmlDeviceGetUUID(device d, char *out, unsigned size) {
    snprintf(out, size, "GPU-00000000-0000-0000-0000-%012d", position(d));
    return 0;
}
struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char address[32]; };
status nvmlDeviceGetPciInfo_v3(device d, struct pci *out) {
    memset(out, 0, sizeof *out);
    out->bus = 1 + position(d);
    snprintf(out->address, sizeof out->address, "00000000:%02X:00.0", out->bus + 9 * position(d));
    return 0;
}
struct memory { unsigned long long total, available, used; };
status nvmlDeviceGetMemoryInfo(device d, struct memory *out) {
    (void)d;
    out->total = 25769803776ull;
    out->used = 432013312ull;
    out->available = out->total - out->used;
    return 0;
}
status nvmlDeviceGetTemperature(device d, int sensor, unsigned *out) { (void)sensor; *out = 38 + position(d); return 0; }
status nvmlDeviceGetPowerUsage(device d, unsigned *out) { (void)d; *out = 31500; return 0; }
status nvmlDeviceGetPowerManagementLimit(device d, unsigned *out) { (void)d; *out = 300000; return 0; }
status nvmlDeviceGetPowerManagementDefaultLimit(device d, unsigned *out) { (void)d; *out = 350000; return 0; }
status nvmlDeviceGetPowerManagementLimitConstraints(device d, unsigned *low, unsigned *high) {
    (void)d; *low = 100000; *high = 390000; return 0;
}
status nvmlDeviceGetTotalEnergyConsumption(device d, unsigned long long *out) {
    static unsigned long long spent = 1000;
    (void)d; *out = spent += 500; return 0;
}
status nvmlDeviceGetComputeMode(device d, int *out) { (void)d; *out = 0; return 0; }
status nvmlDeviceGetPersistenceMode(device d, int *out) { (void)d; *out = 1; return 0; }
status nvmlDeviceGetMigMode(device d, unsigned *now, unsigned *later) { (void)d; (void)now; (void)later; return 3; }
status nvmlDeviceGetTotalEccErrors(device d, int type, int counter, unsigned long long *out) {
    (void)d; *out = type == 1 && counter == 0 ? (unsigned long long)number("ecc", "0") : 0; return 0;
}
status nvmlDeviceGetRemappedRows(device d, unsigned *fixed, unsigned *lost, unsigned *pending, unsigned *failed) {
    (void)d; *fixed = 1; *lost = 2; *pending = 1; *failed = 0; return 0;
}
status nvmlDeviceGetCudaComputeCapability(device d, int *major, int *minor) { (void)d; *major = 8; *minor = 6; return 0; }
/* only with compute=PID and graphics=PID, clock=MHz, limit=MILLIWATTS: without them not supported */
struct process { unsigned pid; unsigned long long memory; unsigned instance, compute_instance; };
static status processes(const char *kind, unsigned *count, struct process *out) {
    long pid = number(kind, "-1");
    unsigned room = *count;
    if (pid < 0) return 3;
    *count = pid > 0;
    if (*count > room) return 7;
    if (pid > 0) { out->pid = (unsigned)pid; out->memory = 1ull << 30; out->instance = out->compute_instance = ~0u; }
    return 0;
}
status nvmlDeviceGetComputeRunningProcesses_v3(device d, unsigned *count, struct process *out) {
    (void)d; return processes("compute", count, out);
}
status nvmlDeviceGetGraphicsRunningProcesses_v3(device d, unsigned *count, struct process *out) {
    (void)d; return processes("graphics", count, out);
}
status nvmlDeviceGetClockInfo(device d, int kind, unsigned *out) {
    (void)d; (void)kind;
    if (number("clock", "0") == 0) return 3;
    *out = (unsigned)number("clock", "0"); return 0;
}
status nvmlDeviceGetEnforcedPowerLimit(device d, unsigned *out) {
    (void)d;
    if (number("limit", "0") == 0) return 3;
    *out = (unsigned)number("limit", "0"); return 0;
}
