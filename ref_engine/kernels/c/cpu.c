/* Which instruction sets this processor, and the operating system's saving of registers, can run. */
#include "table.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

static int has_f16c_and_fma(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1) && (c >> 12 & 1);
}

int ref_engine_cpu_has(int isa)
{
    __builtin_cpu_init(); /* asks cpuid and xgetbv */
    int avx2 = __builtin_cpu_supports("avx2") && has_f16c_and_fma();
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (isa == ISA_BASELINE)
        return 1;
    if (isa == ISA_AVX2)
        return avx2;
    if (isa == ISA_AVX512)
        return avx512;
    return isa == ISA_AVX512_VNNI && avx512 && __builtin_cpu_supports("avx512vnni");
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

#define DOT_PRODUCT (1UL << 20) /* HWCAP_ASIMDDP; older headers lack the name */

int ref_engine_cpu_has(int isa)
{
    return isa == ISA_BASELINE || (isa == ISA_NEON && (getauxval(AT_HWCAP) & DOT_PRODUCT) != 0);
}

#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>

int ref_engine_cpu_has(int isa)
{
    int there = 0;
    size_t size = sizeof there;
    if (isa == ISA_NEON && sysctlbyname("hw.optional.arm.FEAT_DotProd", &there, &size, NULL, 0) != 0)
        there = 1; /* systems that do not know the question run only on processors that have it */
    return isa == ISA_BASELINE || (isa == ISA_NEON && there);
}

#else
int ref_engine_cpu_has(int isa) { return isa == ISA_BASELINE; }
#endif
