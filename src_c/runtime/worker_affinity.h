/* Workers kept off the caller's processor; Linux only, elsewhere nothing is done.
 *
 * When calls are rare the workers sleep in between, and the kernel may wake one on the processor
 * of the caller, who then spins at the end of the region for the very thread that it keeps from
 * running: milliseconds lost for work of microseconds. So a worker may run on every processor
 * that the caller may use, but for the one where the caller is. The caller's own affinity is
 * never touched, so threads that it starts do not inherit a restricted mask. */
#ifndef FASTLOSS_WORKER_AFFINITY_H
#define FASTLOSS_WORKER_AFFINITY_H

typedef struct fl_team fl_team;

/* Once, before any region. Workers that the user binds are left alone. */
void fl_affinity_initialise(void);

/* Call from the caller, before each region. NULL: leave the workers where they are. */
fl_team *fl_place_team(void);

/* Call from the worker `number`, in each region. */
void fl_join_team(fl_team *team, int number);

/* New threads of libgomp report before the region begins, and the caller spins for them: again
 * milliseconds if one is on its processor. libgomp hardly spins when it has more threads than
 * there are processors, so a team that is new gets one thread too many, which does nothing and
 * ends with the next call (2.7 -> 0.4 ms for the first call of a thread). */
int fl_spare_threads(const fl_team *team, int threads);

/* The thread id of worker `number`, or 0. For tests. */
int fl_team_worker(const fl_team *team, int number);

#endif
