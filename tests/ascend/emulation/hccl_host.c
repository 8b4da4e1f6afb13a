/* Collectives (libhccl) between processes of one machine, over POSIX shared memory.
 *
 * A communicator is a block of shared memory: a header with a barrier, and a slot for each rank. In every
 * collective each rank writes its data into its slot, waits for the others, reads what it needs, and waits
 * again, a slotful at a time. A reduction adds the ranks up in order, so that all ranks get the same bits.
 *
 * Not there, and refused: send and receive, all-to-all, communicators within communicators, several machines.
 * Environment: EMU_HCCL_TRACE prints every call.
 * Signatures and enumerations: hccl/hccl.h and hccl/hccl_types.h of CANN 8.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int HcclResult;
typedef void *Stream;

enum { HCCL_SUCCESS = 0, HCCL_E_PARA = 1, HCCL_E_MEMORY = 3, HCCL_E_NOT_SUPPORT = 5, HCCL_E_INTERNAL = 8 };
enum { INT8, INT16, INT32, FP16, FP32, INT64, UINT64, UINT8, UINT16, UINT32, FP64, BFP16 };
enum { SUM, PROD, MAX, MIN };
enum { HEADER = 4096, SLOT = 32 << 20, NAME = 128, ROOT_INFO = 4108, PATIENCE_SECONDS = 300 };

typedef struct {
    _Atomic int arrived;
    _Atomic int turn;
} Header;

typedef struct {
    Header *header;
    char *slots;
    uint32_t ranks, rank;
    char name[NAME];
} Comm;

/* --- waiting for each other --- */

static void give_up(const Comm *comm) {
    fprintf(stderr, "[emu] HCCL: rank %u of %u waited %d s for the others\n", comm->rank, comm->ranks, PATIENCE_SECONDS);
    abort();
}

static void barrier(Comm *comm) {
    int turn = atomic_load(&comm->header->turn);
    if (atomic_fetch_add(&comm->header->arrived, 1) == (int)comm->ranks - 1) {
        atomic_store(&comm->header->arrived, 0);
        atomic_fetch_add(&comm->header->turn, 1);
        return;
    }
    time_t deadline = time(NULL) + PATIENCE_SECONDS;
    for (int tries = 0; atomic_load(&comm->header->turn) == turn; tries++) {
        if (tries < 200) {
            sched_yield();
            continue;
        }
        usleep(50);
        if (time(NULL) > deadline) give_up(comm);
    }
}

static char *slot(Comm *comm, uint32_t rank) { return comm->slots + (size_t)rank * SLOT; }

/* --- arithmetic --- */

static size_t width_of(int type) {
    switch (type) {
        case INT16: case FP16: case UINT16: case BFP16: return 2;
        case INT32: case FP32: case UINT32: return 4;
        case INT64: case UINT64: case FP64: return 8;
        default: return 1;
    }
}

static float from_half(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, 2);
    return (float)half;
}

static uint16_t to_half(float value) {
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}

static float from_bfloat(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

static uint16_t to_bfloat(float value) {
    uint32_t wide;
    memcpy(&wide, &value, 4);
    wide += 0x7fff + ((wide >> 16) & 1); /* to the nearest, ties to even */
    return wide >> 16;
}

#define COMBINED(a, b) (op == SUM ? (a) + (b) : op == PROD ? (a) * (b) : op == MAX ? ((a) > (b) ? (a) : (b)) : ((a) < (b) ? (a) : (b)))

#define COMBINE(T)                                                     \
    do {                                                               \
        T *to = total;                                                 \
        const T *from = other;                                         \
        for (uint64_t i = 0; i < count; i++) to[i] = COMBINED(to[i], from[i]); \
        return HCCL_SUCCESS;                                           \
    } while (0)

#define COMBINE_16(READ, WRITE)                                        \
    do {                                                               \
        uint16_t *to = total;                                          \
        const uint16_t *from = other;                                  \
        for (uint64_t i = 0; i < count; i++) {                         \
            float a = READ(to[i]), b = READ(from[i]);                  \
            to[i] = WRITE(COMBINED(a, b));                             \
        }                                                              \
        return HCCL_SUCCESS;                                           \
    } while (0)

static HcclResult combine(void *total, const void *other, uint64_t count, int type, int op) {
    switch (type) {
        case INT8: COMBINE(int8_t);
        case UINT8: COMBINE(uint8_t);
        case INT16: COMBINE(int16_t);
        case INT32: COMBINE(int32_t);
        case INT64: COMBINE(int64_t);
        case UINT64: COMBINE(uint64_t);
        case FP32: COMBINE(float);
        case FP64: COMBINE(double);
        case FP16: COMBINE_16(from_half, to_half);
        case BFP16: COMBINE_16(from_bfloat, to_bfloat);
        default: return HCCL_E_NOT_SUPPORT;
    }
}

/* The ranks' slots combined in order of rank, into `total`. */
static HcclResult combine_slots(Comm *comm, char *total, uint64_t count, int type, int op) {
    memcpy(total, slot(comm, 0), count * width_of(type));
    for (uint32_t rank = 1; rank < comm->ranks; rank++) {
        HcclResult result = combine(total, slot(comm, rank), count, type, op);
        if (result != HCCL_SUCCESS) return result;
    }
    return HCCL_SUCCESS;
}

/* --- communicators --- */

static void trace(const Comm *comm, const char *what, uint64_t count, int type) {
    static int wanted = -1;
    if (wanted < 0) wanted = getenv("EMU_HCCL_TRACE") != NULL;
    if (wanted) fprintf(stderr, "[hccl %u/%u] %s of %lu, type %d\n", comm->rank, comm->ranks, what, (unsigned long)count, type);
}

HcclResult HcclGetRootInfo(char *root_info) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(root_info, 0, ROOT_INFO);
    snprintf(root_info, NAME, "/emulated_hccl_%d_%ld%09ld", getpid(), (long)now.tv_sec, now.tv_nsec);
    return HCCL_SUCCESS;
}

HcclResult HcclCommInitRootInfo(uint32_t ranks, const char *root_info, uint32_t rank, void **made) {
    size_t bytes = HEADER + (size_t)ranks * SLOT;
    int file = shm_open(root_info, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, bytes)) return HCCL_E_INTERNAL;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    Comm *comm = calloc(1, sizeof *comm);
    if (memory == MAP_FAILED || !comm) return HCCL_E_MEMORY;
    comm->header = (Header *)memory;
    comm->slots = memory + HEADER;
    comm->ranks = ranks;
    comm->rank = rank;
    snprintf(comm->name, NAME, "%s", root_info);
    barrier(comm); /* all have opened it: its name can go */
    if (rank == 0) shm_unlink(root_info);
    trace(comm, "communicator", ranks, -1);
    *made = comm;
    return HCCL_SUCCESS;
}

HcclResult HcclCommInitRootInfoConfig(uint32_t ranks, const char *root_info, uint32_t rank, void *config, void **made) {
    return HcclCommInitRootInfo(ranks, root_info, rank, made);
}

HcclResult HcclCommDestroy(Comm *comm) {
    munmap(comm->header, HEADER + (size_t)comm->ranks * SLOT);
    free(comm);
    return HCCL_SUCCESS;
}

HcclResult HcclGetCommName(Comm *comm, char *name) {
    strcpy(name, comm->name);
    return HCCL_SUCCESS;
}

HcclResult HcclGetRankSize(Comm *comm, uint32_t *ranks) {
    *ranks = comm->ranks;
    return HCCL_SUCCESS;
}

HcclResult HcclGetRankId(Comm *comm, uint32_t *rank) {
    *rank = comm->rank;
    return HCCL_SUCCESS;
}

HcclResult HcclGetCommAsyncError(Comm *comm, HcclResult *error) {
    *error = HCCL_SUCCESS;
    return HCCL_SUCCESS;
}

uint32_t HcclGetCommConfigCapability(void) { return 3; }
HcclResult HcclSetConfig(int config, int value) { return HCCL_SUCCESS; }
const char *HcclGetErrorString(HcclResult result) { return "an error of the emulated HCCL"; }

/* --- collectives, `part` elements from `done` at a time --- */

#define FOR_EACH_PART(count, width) \
    for (uint64_t done = 0, part; done < (count) && (part = (count) - done < SLOT / (width) ? (count) - done : SLOT / (width)); done += part)

HcclResult HcclAllReduce(char *send, char *receive, uint64_t count, int type, int op, Comm *comm, Stream stream) {
    HcclResult result = HCCL_SUCCESS;
    size_t width = width_of(type);
    trace(comm, "all-reduce", count, type);
    FOR_EACH_PART(count, width) {
        memcpy(slot(comm, comm->rank), send + done * width, part * width);
        barrier(comm);
        result |= combine_slots(comm, receive + done * width, part, type, op);
        barrier(comm);
    }
    return result;
}

HcclResult HcclReduce(char *send, char *receive, uint64_t count, int type, int op, uint32_t root, Comm *comm, Stream stream) {
    HcclResult result = HCCL_SUCCESS;
    size_t width = width_of(type);
    trace(comm, "reduce", count, type);
    FOR_EACH_PART(count, width) {
        memcpy(slot(comm, comm->rank), send + done * width, part * width);
        barrier(comm);
        if (comm->rank == root) result |= combine_slots(comm, receive + done * width, part, type, op);
        barrier(comm);
    }
    return result;
}

HcclResult HcclReduceScatter(char *send, char *receive, uint64_t count, int type, int op, Comm *comm, Stream stream) {
    HcclResult result = HCCL_SUCCESS;
    size_t width = width_of(type);
    trace(comm, "reduce-scatter", count, type);
    for (uint32_t target = 0; target < comm->ranks; target++) {
        FOR_EACH_PART(count, width) {
            memcpy(slot(comm, comm->rank), send + (target * count + done) * width, part * width);
            barrier(comm);
            if (comm->rank == target) result |= combine_slots(comm, receive + done * width, part, type, op);
            barrier(comm);
        }
    }
    return result;
}

HcclResult HcclBroadcast(char *buffer, uint64_t count, int type, uint32_t root, Comm *comm, Stream stream) {
    size_t width = width_of(type);
    trace(comm, "broadcast", count, type);
    FOR_EACH_PART(count, width) {
        if (comm->rank == root) memcpy(slot(comm, root), buffer + done * width, part * width);
        barrier(comm);
        if (comm->rank != root) memcpy(buffer + done * width, slot(comm, root), part * width);
        barrier(comm);
    }
    return HCCL_SUCCESS;
}

HcclResult HcclAllGather(char *send, char *receive, uint64_t count, int type, Comm *comm, Stream stream) {
    size_t width = width_of(type);
    trace(comm, "all-gather", count, type);
    FOR_EACH_PART(count, width) {
        memcpy(slot(comm, comm->rank), send + done * width, part * width);
        barrier(comm);
        for (uint32_t rank = 0; rank < comm->ranks; rank++)
            memcpy(receive + (rank * count + done) * width, slot(comm, rank), part * width);
        barrier(comm);
    }
    return HCCL_SUCCESS;
}

HcclResult HcclBarrier(Comm *comm, Stream stream) {
    trace(comm, "barrier", 0, -1);
    barrier(comm);
    return HCCL_SUCCESS;
}
