/* The stack that is left on a thread. */
#ifndef FASTLOSS_STACK_H
#define FASTLOSS_STACK_H

#include <stddef.h>

/* More than a call needs: `python -m tools.check_stack`. */
enum { FL_STACK_BYTES = 192 << 10 };

/* Bytes between the caller's frame and the end of its stack, SIZE_MAX if unknown. */
size_t fl_stack_left(void);

/* The size of a worker's stack, by OMP_STACKSIZE or the system's default; 0 if unknown. */
size_t fl_worker_stack_bytes(void);

#endif
