/* What the emulation does not compute it refuses aloud: a stub that answered "done" would leave garbage behind. */
#ifndef REFUSAL_H
#define REFUSAL_H

#define REFUSED 500002 /* ACL_ERROR_GE_FAILURE */

/* Prints "[emu] un-emulated CANN call: NAME", counts it, and returns REFUSED. */
long emu_refuse(const char *name);

/* How many calls this process has been refused. */
long emu_refusals(void);

/* The name of the latest, or "". */
const char *emu_latest_refusal(void);

#endif
