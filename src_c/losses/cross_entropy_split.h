/* How a long row of classes is split over threads: into parts of a fixed number of classes, so that
 * the bits of a row do not depend on how many threads share it. */
#ifndef FASTLOSS_CROSS_ENTROPY_SPLIT_H
#define FASTLOSS_CROSS_ENTROPY_SPLIT_H

enum { FL_CLASSES_PER_PART = 16384 };

#endif
