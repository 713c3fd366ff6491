/* Processors without work, on Linux; elsewhere none is ever reported.
 *
 * The kernel counts the idle time of the whole machine, so the result is meaningful only in a
 * process that may use all processors. */
#ifndef FASTLOSS_IDLE_PROCESSORS_H
#define FASTLOSS_IDLE_PROCESSORS_H

/* Returns the seconds, up to now, during which at least `threads` processors were idle or computed
 * for the calling thread, which uses `team` of them while it computes. Reading the counters takes
 * as long as a small call: they are read if `computed`, the seconds of computing so far, has grown
 * enough since the last reading, whose result is returned otherwise. */
double fl_idle_seconds(int threads, int team, double computed);

/* Starts the count of the calling thread at zero. */
void fl_idle_restart(void);

/* The idle time in the text of /proc/uptime, in seconds; negative for another text. */
double fl_parse_idle(const char *text);

#endif
