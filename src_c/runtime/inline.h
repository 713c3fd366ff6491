/* INLINE: inlined at every optimisation level, since a loop that contains a call is not vectorised;
 * not where branches are counted, which copies would multiply.
 *
 * NOINLINE: compiled by itself. The time of several passes of the compiler grows faster than the
 * size of a function. */
#ifndef FASTLOSS_INLINE_H
#define FASTLOSS_INLINE_H

#ifdef FASTLOSS_COVERAGE
#define INLINE inline
#else
#define INLINE inline __attribute__((always_inline))
#endif

#define NOINLINE __attribute__((noinline))

#endif
