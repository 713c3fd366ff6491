/* The controller of team sizes; see team_size.h. */
#include "runtime/team_size.h"

#include <math.h>

/* Seconds. A new or sleeping team loses time in its first regions, hence a credit, for each thread
 * that a probe adds. The balance is bounded above, so that a long gain does not hide new losses.
 * One region counts at most LONGEST, so that a suspended machine is soon forgotten. */
static const double START_CREDIT = 2e-3, PROBE_CREDIT = 0.3e-3, MAX_CREDIT = 10e-3, LONGEST = 50e-3;
static const double MIN_PATIENCE = 10e-3, MAX_PATIENCE = 1;
static const double PATIENCE_PER_LOSS = 16;
static const double MIN_IDLE = 20e-3, MAX_IDLE = 1;

/* Threads that compute at the same time compete for memory bandwidth and lower the clock frequency:
 * on fewer threads a block takes this fraction of the time. */
static const double ALONE = 0.8;

/* Seconds in which the slowdown that was measured at a smaller size fades, and the work that the
 * ideal, no slowdown, counts as. */
static const double FADING = 0.5, PRIOR_WORK = 1e-3;

static double min(double a, double b) { return a < b ? a : b; }

static double within(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

void fl_team_control_init(fl_team_control *c)
{
    *c = (fl_team_control){
        .balance = START_CREDIT, .patience = MIN_PATIENCE / 4, .idle_wait = MIN_IDLE};
}

int fl_team_probe_size(const fl_team_control *c, int allowed)
{
    return c->size == 0 || c->size > allowed / 2 ? allowed : 2 * c->size;
}

static void adopt(fl_team_control *c, int size, double credit)
{
    c->size = size;
    c->balance = credit;
    c->gained = c->computed = 0;
}

int fl_team_size(fl_team_control *c, int allowed, double idle)
{
    if (c->size == 0 || c->size >= allowed)
        return allowed;
    const int hinted = idle >= c->idle_wait;
    if (!hinted && c->computed < (c->rising ? MIN_PATIENCE : c->patience))
        return c->size;
    const int size = fl_team_probe_size(c, allowed);
    adopt(c, size, PROBE_CREDIT * (size - c->size));
    c->rising = 1;
    c->hinted = hinted;
    c->probes++;
    return size;
}

double fl_region_work(const fl_region *r)
{
    const int possible = r->threads >= 1 && r->first_blocks > 0 &&
                         r->first_blocks <= r->caller_blocks && r->caller_blocks <= r->blocks &&
                         r->first > 0 && r->caller >= r->first && r->total >= r->caller &&
                         r->total < INFINITY;
    if (!possible)
        return NAN;
    /* The caller may have been preempted, but rarely both in its first grain and after it: the
     * smaller time per block is used. */
    double block = r->first / (double)r->first_blocks;
    if (r->caller_blocks > r->first_blocks && r->caller > r->first)
        block = min(block, (r->caller - r->first) / (double)(r->caller_blocks - r->first_blocks));
    /* All threads together did no more than this. */
    return min(block * (double)r->blocks, r->threads * r->total);
}

/* Time and work of regions of the present size, which is below the allowed one. */
static void measure(fl_team_control *c, int size, double total, double work)
{
    if (c->measured_size != size) {
        c->measured_size = size;
        c->measured_total = c->measured_work = 0;
    }
    c->measured_total += total;
    c->measured_work += work;
}

static void fade(fl_team_control *c, double factor)
{
    c->measured_total *= factor;
    c->measured_work *= factor;
}

/* Seconds of a region on `size` threads for each second of work. */
static double slowdown(const fl_team_control *c, int size)
{
    const double ideal = 1.0 / size;
    if (c->measured_size != size)
        return ideal;
    return (c->measured_total + ideal * PRIOR_WORK) / (c->measured_work + PRIOR_WORK);
}

static void reduce(fl_team_control *c, int size)
{
    if (c->gained > 0) { /* the larger size gained overall: the next probe is earlier */
        c->patience = within(c->patience / 4, MIN_PATIENCE, MAX_PATIENCE);
        c->idle_wait = MIN_IDLE;
    } else {
        const double patience = fmax(4 * c->patience, PATIENCE_PER_LOSS * -c->gained);
        c->patience = within(patience, MIN_PATIENCE, MAX_PATIENCE);
        if (c->hinted)
            c->idle_wait = min(4 * c->idle_wait, MAX_IDLE);
    }
    c->rising = c->hinted = 0;
    c->reductions++;
    fade(c, 0.5);
    adopt(c, size, 0);
}

void fl_team_observe(fl_team_control *c, const fl_region *r)
{
    const double work = fl_region_work(r), total = min(r->total, LONGEST);
    const int size = c->size == 0 || c->size > r->allowed ? r->allowed : c->size;
    if (isnan(work) || r->threads != size)
        return;
    c->computed += total;
    if (size < r->allowed)
        measure(c, size, total, work * (total / r->total));
    if (size == 1)
        return;
    const double fewer = ALONE * slowdown(c, size / 2) * work;
    const double gain = within(fewer - r->total, -LONGEST, LONGEST);
    if (c->measured_size < size)
        fade(c, 1 - min(total / FADING, 1));
    c->gained += gain;
    c->balance = min(c->balance + gain, MAX_CREDIT);
    if (c->balance < 0)
        reduce(c, size / 2);
}
