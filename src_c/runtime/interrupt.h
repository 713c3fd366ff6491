/* Ctrl-C inside a unit. */
#ifndef FASTLOSS_INTERRUPT_H
#define FASTLOSS_INTERRUPT_H

/* Work that a kernel may do between two questions, in classes; run.c asks between blocks, but a
 * unit may take longer than a user waits. */
enum { FL_ASK_AFTER = 1 << 16 };

/* Whether the caller's thread was interrupted. The kernel then returns, with any result: it is
 * discarded. Other threads finish their units. In runtime/run.c. */
int fl_is_interrupted(void);

#endif
