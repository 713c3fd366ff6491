/* Ctrl-C inside a unit that may take longer than a user waits. The driver, run.c, asks between
 * blocks. */
#ifndef FASTLOSS_INTERRUPT_H
#define FASTLOSS_INTERRUPT_H

#include <stdint.h>

/* Elements that take less, even if they wait for memory: only in longer units does a kernel ask. */
enum { FL_ASK_AFTER = 1 << 16 };

/* Whether the call was interrupted. The kernel then returns, with any result: it is discarded. */
int fl_is_interrupted(void);

/* The same, asked often enough in a loop after each entry, of which `done` are done. */
static inline int fl_is_interrupted_after(int64_t done)
{
    return done % FL_ASK_AFTER == 0 && fl_is_interrupted();
}

#endif
