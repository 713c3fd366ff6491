/* Processors without work; Linux only, elsewhere none is ever reported. */
#ifndef FASTLOSS_IDLE_PROCESSORS_H
#define FASTLOSS_IDLE_PROCESSORS_H

/* For how many seconds, up to now, at least `threads` processors have been idle or computed for the
 * calling thread, which uses `own` of them while it computes. To read the counters takes as long as
 * a small call, so they are read only if `computed`, the seconds of computing so far, has grown
 * enough since; otherwise the last result is returned. */
double fl_idle_seconds(int threads, int own, double computed);

/* Starts the count of the calling thread at zero. */
void fl_idle_restart(void);

#endif
