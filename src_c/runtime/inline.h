/* INLINE: inlined at every optimisation level, since a loop that contains a call is not vectorised;
 * not where branches are counted, which copies would multiply. */
#ifndef FASTLOSS_INLINE_H
#define FASTLOSS_INLINE_H

#ifdef FASTLOSS_COVERAGE
#define INLINE inline
#else
#define INLINE inline __attribute__((always_inline))
#endif

#endif
