/* The runtime of CANN (libascendcl) on host memory: devices, streams, events, memory, copies.
 *
 * Device memory is host memory, and everything has happened when a call returns, so that streams and events
 * have nothing to do. Operators are launched through aclop*, which is refused: operators are computed by
 * host_kernels.py, above this library, and one that arrives here has been forgotten there.
 *
 * Environment: EMU_NPU_COUNT cards (1), EMU_NPU_SOC the processor's name (Ascend910B2).
 * Signatures: acl/acl_rt.h of CANN 8.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "refusal.h"

typedef int aclError;
typedef void *Handle;

enum { OK = 0, OUT_OF_MEMORY = 207001, ALIGNMENT = 512 };

/* --- refusals --- */

static long refusals;
static char latest[128];

long emu_refuse(const char *name) {
    refusals++;
    snprintf(latest, sizeof latest, "%s", name);
    fprintf(stderr, "[emu] un-emulated CANN call: %s\n", name);
    return REFUSED;
}

long emu_refusals(void) { return refusals; }
const char *emu_latest_refusal(void) { return latest; }

/* --- devices --- */

static int current_device;
static int context;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

aclError aclInit(const char *config) { return OK; }
aclError aclFinalize(void) { return OK; }

aclError aclrtGetDeviceCount(uint32_t *count) {
    *count = atoi(setting("EMU_NPU_COUNT", "1"));
    return OK;
}

aclError aclrtSetDevice(int device) {
    current_device = device;
    return OK;
}

aclError aclrtGetDevice(int *device) {
    *device = current_device;
    return OK;
}

aclError aclrtResetDevice(int device) { return OK; }
const char *aclrtGetSocName(void) { return setting("EMU_NPU_SOC", "Ascend910B2"); }

aclError aclrtDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = 1;
    return OK;
}

aclError aclrtGetCurrentContext(Handle *found) {
    *found = &context;
    return OK;
}

aclError aclrtSetCurrentContext(Handle chosen) { return OK; }

aclError aclrtGetPrimaryCtxState(int device, uint32_t *flags, int *active) {
    if (flags) *flags = 0;
    *active = 1;
    return OK;
}

aclError aclGetDeviceCapability(uint32_t device, int what, int64_t *value) {
    *value = 24; /* cores, of either kind */
    return OK;
}

aclError aclrtGetDeviceInfo(uint32_t device, int what, int64_t *value) {
    return aclGetDeviceCapability(device, what, value);
}

aclError aclrtDeviceGetUuid(int device, char uuid[16]) {
    memset(uuid, 0, 16);
    uuid[15] = device;
    return OK;
}

aclError aclGetCannAttribute(int attribute, int32_t *value) {
    *value = 1; /* whatever is asked for, infinities and NaN above all, is there */
    return OK;
}

aclError aclsysGetCANNVersion(int package, void *version) { return OK; } /* left empty: no version */

aclError aclsysGetVersionStr(const char *package, char *version) {
    *version = 0;
    return OK;
}

aclError aclrtGetSysParamOpt(int option, int64_t *value) {
    *value = 0;
    return OK;
}

/* --- errors --- */

const char *aclGetRecentErrMsg(void) { return "the emulation of CANN has no more to say"; }
aclError aclrtPeekAtLastError(int level) { return OK; }
aclError aclrtGetLastError(int level) { return OK; }

/* --- streams and events: nothing is ever pending --- */

static aclError handle(Handle *made) {
    *made = malloc(16);
    return *made ? OK : OUT_OF_MEMORY;
}

static aclError discard(Handle made) {
    free(made);
    return OK;
}

aclError aclrtCreateStream(Handle *stream) { return handle(stream); }
aclError aclrtCreateStreamWithConfig(Handle *stream, uint32_t priority, uint32_t flags) { return handle(stream); }
aclError aclrtDestroyStream(Handle stream) { return discard(stream); }
aclError aclrtDestroyStreamForce(Handle stream) { return discard(stream); }
aclError aclrtSynchronizeStream(Handle stream) { return OK; }
aclError aclrtSynchronizeStreamWithTimeout(Handle stream, int milliseconds) { return OK; }
aclError aclrtSynchronizeDevice(void) { return OK; }
aclError aclrtSynchronizeDeviceWithTimeout(int milliseconds) { return OK; }
aclError aclrtSetStreamFailureMode(Handle stream, uint64_t mode) { return OK; }

aclError aclrtStreamQuery(Handle stream, int *status) {
    *status = 0; /* ACL_STREAM_STATUS_COMPLETE */
    return OK;
}

aclError aclrtStreamGetId(Handle stream, int *id) {
    *id = 1;
    return OK;
}

aclError aclmdlRICaptureGetInfo(Handle stream, int *status, Handle *graph) {
    *status = 0; /* ACL_MODEL_RI_CAPTURE_STATUS_NONE */
    *graph = NULL;
    return OK;
}

aclError aclrtCreateEventWithFlag(Handle *event, uint32_t flags) { return handle(event); }
aclError aclrtCreateEventExWithFlag(Handle *event, uint32_t flags) { return handle(event); }
aclError aclrtDestroyEvent(Handle event) { return discard(event); }
aclError aclrtRecordEvent(Handle event, Handle stream) { return OK; }
aclError aclrtResetEvent(Handle event, Handle stream) { return OK; }
aclError aclrtSynchronizeEvent(Handle event) { return OK; }
aclError aclrtStreamWaitEvent(Handle stream, Handle event) { return OK; }

aclError aclrtQueryEventStatus(Handle event, int *status) {
    *status = 1; /* ACL_EVENT_RECORDED_STATUS_COMPLETE */
    return OK;
}

aclError aclrtQueryEventWaitStatus(Handle event, int *status) { return aclrtQueryEventStatus(event, status); }

aclError aclrtEventElapsedTime(float *milliseconds, Handle start, Handle end) {
    *milliseconds = 0.0f;
    return OK;
}

aclError aclrtLaunchCallback(void (*callback)(void *), void *argument, int block, Handle stream) {
    callback(argument);
    return OK;
}

aclError aclrtLaunchHostFunc(Handle stream, void (*callback)(void *), void *argument) {
    callback(argument);
    return OK;
}

/* --- memory --- */

aclError aclrtMalloc(void **memory, size_t bytes, int policy) {
    *memory = aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
    return *memory ? OK : OUT_OF_MEMORY;
}

aclError aclrtMallocAlign32(void **memory, size_t bytes, int policy) { return aclrtMalloc(memory, bytes, policy); }
aclError aclrtMallocHost(void **memory, size_t bytes) { return aclrtMalloc(memory, bytes, 0); }
aclError aclrtMallocHostWithCfg(void **memory, uint64_t bytes, void *config) { return aclrtMalloc(memory, bytes, 0); }
aclError aclrtFree(void *memory) { return discard(memory); }
aclError aclrtFreeHost(void *memory) { return discard(memory); }

aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, int kind) {
    memcpy(to, from, bytes);
    return OK;
}

aclError aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t bytes, int kind, Handle stream) {
    return aclrtMemcpy(to, room, from, bytes, kind);
}

aclError aclrtMemcpyAsyncWithCondition(void *to, size_t room, const void *from, size_t bytes, int kind, Handle stream) {
    return aclrtMemcpy(to, room, from, bytes, kind);
}

aclError aclrtMemset(void *memory, size_t room, int32_t value, size_t bytes) {
    memset(memory, value, bytes);
    return OK;
}

aclError aclrtMemsetAsync(void *memory, size_t room, int32_t value, size_t bytes, Handle stream) {
    return aclrtMemset(memory, room, value, bytes);
}

aclError aclrtGetMemInfo(int attribute, size_t *available, size_t *total) {
    *available = 8ull << 30;
    *total = 16ull << 30;
    return OK;
}

/* --- compile options of operators: asked for at start-up, and never used --- */

size_t aclGetCompileoptSize(int option) { return 32; }

aclError aclGetCompileopt(int option, char *value, size_t room) {
    if (room) strncpy(value, "0", room);
    return OK;
}
