/* Which instruction sets this processor runs, and the table of losses by name. Compiled with
 * baseline flags only, since it runs before anything is known of the processor. */
#include "fastloss.h"

#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* The instruction sets of this build, weakest first; FL_ISA_LIST comes from setup.py: ISA(baseline)
 * ISA(avx2) ... */
#define ISA(name) \
    fl_kernel fl_elementwise_##name##_f32, fl_elementwise_##name##_f64; \
    fl_kernel fl_cross_entropy_##name##_f32, fl_cross_entropy_##name##_f64; \
    fl_kernel fl_margin_##name##_f32, fl_margin_##name##_f64; \
    fl_kernel fl_embedding_##name##_f32, fl_embedding_##name##_f64; \
    fl_kernel fl_ctc_##name##_f32, fl_ctc_##name##_f64; \
    fl_store_fn fl_store_##name##_f32, fl_store_##name##_f64; \
    fl_vector_math_fn fl_vector_math_##name##_f32, fl_vector_math_##name##_f64;
FL_ISA_LIST
#undef ISA

static const fl_kernels table[] = {
#define ISA(name) \
    {#name, \
     {{fl_elementwise_##name##_f32, fl_cross_entropy_##name##_f32, fl_margin_##name##_f32, \
       fl_embedding_##name##_f32, fl_ctc_##name##_f32}, \
      {fl_elementwise_##name##_f64, fl_cross_entropy_##name##_f64, fl_margin_##name##_f64, \
       fl_embedding_##name##_f64, fl_ctc_##name##_f64}}, \
     {fl_store_##name##_f32, fl_store_##name##_f64}, \
     {fl_vector_math_##name##_f32, fl_vector_math_##name##_f64}},
    FL_ISA_LIST
#undef ISA
};

/* __builtin_cpu_supports asks the operating system too whether it saves the wide registers; it does
 * not know F16C in every compiler. */
static int runs(const char *isa)
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

int fl_isa_built_count(void) { return (int)(sizeof table / sizeof *table); }

int fl_isa_count(void)
{
    int n = 0;
    while (n < fl_isa_built_count() && runs(table[n].isa))
        n++;
    return n;
}

const char *fl_isa_name(int index) { return table[index].isa; }
void fl_isa_select(int index) { selected = index; }
int fl_isa_selected(void) { return selected; }
const fl_kernels *fl_kernels_selected(void) { return &table[selected]; }

static const fl_loss losses[] = {
#define ELEMENTWISE(name, arrays, x, y, z) \
    {#name, \
     FL_FAMILY_elementwise, \
     FL_NO_ROW, \
     {{FL_PER_UNIT, x}, {FL_PER_UNIT, y}, {FL_PER_UNIT, z}}},
#define ROWS(family, name, axis, x, y, z) {#name, FL_FAMILY_##family, FL_##axis##_AXIS, {x, y, z}},
#define ROW(domain) {FL_PER_ENTRY, FL_##domain}
#define UNIT(domain) {FL_PER_UNIT, FL_##domain}
#define NONE {FL_ABSENT, FL_ANY}
#include "losses.def"
#undef ELEMENTWISE
#undef ROWS
#undef ROW
#undef UNIT
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
