/* INLINE: inlined at every optimisation level, since a loop that contains a call is not vectorised.
 */
#ifndef FASTLOSS_INLINE_H
#define FASTLOSS_INLINE_H

#define INLINE inline __attribute__((always_inline))

#endif
