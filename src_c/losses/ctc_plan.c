/* The plan of CTC: a unit is a sequence. */
#include "runtime/plan.h"

/* Classes above which nearly every cache line of a frame is overwritten completely. */
enum { MIN_STREAMED_CLASSES = 512 };

/* The sum is the same whether sequences run whole or split. */
int64_t fl_ctc_block(const fl_call *call)
{
    (void)call;
    return 1;
}

/* A state of the lattice counts as an element. */
double fl_ctc_work(const fl_call *call, fl_phase phase)
{
    double work = fl_plain_work(call, phase);
    for (int64_t n = 0; n < call->units; n++)
        work += (double)call->sequences.frames[n] * (2 * (double)call->sequences.labels[n] + 1);
    return work;
}

/* Two parts: the alpha pass and the beta pass. */
int64_t fl_ctc_parts(const fl_call *call)
{
    (void)call;
    return 2;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b > 0) {
        int64_t remainder = a % b;
        a = b;
        b = remainder;
    }
    return a;
}

/* Entries of neighbouring sequences may share cache lines, for which threads would contend: those
 * that run at the same time are far apart. */
int64_t fl_ctc_stride(int64_t blocks)
{
    int64_t stride = blocks * 5 / 8;
    while (stride > 1 && common_divisor(stride, blocks) > 1)
        stride--;
    return stride > 1 ? stride : 1;
}

int fl_ctc_streaming(const fl_call *call) { return call->sequences.C >= MIN_STREAMED_CLASSES; }
