/* A libopapi in which every kernel is there and refuses.
 *
 * Without the library torch_npu cannot tell a missing kernel from a missing card, and may take another way for that
 * reason alone. With this one, an operator that answers has computed on the host, and one that is to run on the
 * card is refused aloud. opapi_names.h is written by build_stub.py.
 */
#include "refusal.h"

#define REFUSE(name) \
    long name(void) { return emu_refuse(#name); }

#include "opapi_names.h"
