/* Whether threads can be created. libgomp ends the process if it cannot create one: by
 * RLIMIT_NPROC, a cgroup's limit of tasks, or RLIMIT_AS. POSIX only, elsewhere every thread is
 * assumed to be possible. */
#ifndef FASTLOSS_THREAD_SUPPLY_H
#define FASTLOSS_THREAD_SUPPLY_H

#include <stddef.h>

/* How many of `wanted` threads, with stacks of this size, can exist now besides those that exist:
 * creates them and ends them. */
int fl_creatable_threads(int wanted, size_t stack_bytes);

#endif
