/* Which instruction sets this processor runs, the kernels of each, and the table of losses.
 * Compiled with baseline flags only, since it runs before anything is known of the processor. */
#include "fastloss.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* setup.py passes FL_FOR_EACH_ISA(F, argument): F(baseline, argument) F(avx2, argument) ..., the
 * instruction sets of this build, weakest first. */
#define DECLARE(isa, function, type) type function##_##isa##_f32, function##_##isa##_f64;
#define DECLARE_KERNEL(isa, family) DECLARE(isa, fl_##family, fl_kernel)
#define DECLARE_SERVICES(isa, unused) \
    DECLARE(isa, fl_store, fl_store_fn) DECLARE(isa, fl_vector_math, fl_vector_math_fn)

#define FAMILY(name, ...) FL_FOR_EACH_ISA(DECLARE_KERNEL, name)
#include "families.def"
#undef FAMILY
FL_FOR_EACH_ISA(DECLARE_SERVICES, )

#define SERVICES(isa, unused) \
    {#isa, \
     {fl_store_##isa##_f32, fl_store_##isa##_f64}, \
     {fl_vector_math_##isa##_f32, fl_vector_math_##isa##_f64}},
static const fl_services services[] = {FL_FOR_EACH_ISA(SERVICES, )};

enum { ISAS = sizeof services / sizeof *services };

/* [family][instruction set][is_double] */
#define KERNELS(isa, family) {fl_##family##_##isa##_f32, fl_##family##_##isa##_f64},
static fl_kernel *const kernels[FL_FAMILIES][ISAS][2] = {
#define FAMILY(name, ...) {FL_FOR_EACH_ISA(KERNELS, name)},
#include "families.def"
#undef FAMILY
};

/* __builtin_cpu_supports also asks whether the operating system saves the wide registers; some
 * compilers' version does not know F16C. */
static int is_supported(const char *isa)
{
#if defined(__x86_64__)
    unsigned int eax, ebx, ecx = 0, edx;
    __builtin_cpu_init();
    int f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    if (!strcmp(isa, "avx2"))
        return avx2;
    if (!strcmp(isa, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    return !strcmp(isa, "baseline");
}

static int selected;

int fl_isa_built_count(void) { return ISAS; }

int fl_isa_count(void)
{
    int n = 0;
    while (n < ISAS && is_supported(services[n].isa))
        n++;
    return n;
}

const char *fl_isa_name(int index) { return services[index].isa; }
void fl_isa_select(int index) { selected = index; }
int fl_isa_selected(void) { return selected; }
const fl_services *fl_selected_services(void) { return &services[selected]; }

fl_kernel *fl_selected_kernel(const fl_call *call)
{
    return kernels[call->family][selected][call->is_double];
}

/* ---- The table of losses -----------------------------------------------------------------------
 */

static const fl_loss losses[] = {
#define ELEMENTWISE(name, arrays, x, y, z) \
    {#name, \
     FL_FAMILY_elementwise, \
     FL_SHAPES_EQUAL, \
     {{FL_PER_UNIT, x}, {FL_PER_UNIT, y}, {FL_PER_UNIT, z}}},
#define ROWS(family, name, axis, x, y, z) \
    {#name, FL_FAMILY_##family, FL_SHAPES_##axis##_AXIS, {x, y, z}},
#define SEQUENCES(family, name, x, y) \
    {#name, FL_FAMILY_##family, FL_SHAPES_SEQUENCES, {x, y, NONE}},
#define ROW(domain) {FL_PER_ENTRY, FL_##domain}
#define UNIT(domain) {FL_PER_UNIT, FL_##domain}
#define SHARED(domain) {FL_SHARED, FL_##domain}
#define NONE {FL_ABSENT, FL_ANY}
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
#undef SEQUENCES
#undef ROW
#undef UNIT
#undef SHARED
#undef NONE
};

int fl_find_formula(const char *name, fl_loss *loss)
{
    for (int i = 0; i < FL_FORMULAS; i++)
        if (!strcmp(losses[i].name, name)) {
            *loss = losses[i];
            return i;
        }
    return -1;
}
