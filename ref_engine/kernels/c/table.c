/* The table of each instruction set that was compiled in. */
#include "table.h"

extern const kernel_table ref_engine_baseline;
#ifdef REF_ENGINE_X86
extern const kernel_table ref_engine_avx2, ref_engine_avx512, ref_engine_avx512_vnni;
#endif
#ifdef REF_ENGINE_NEON
extern const kernel_table ref_engine_neon;
#endif

const kernel_table *ref_engine_table(int isa)
{
    switch (isa) {
    case ISA_BASELINE:
        return &ref_engine_baseline;
#ifdef REF_ENGINE_X86
    case ISA_AVX2:
        return &ref_engine_avx2;
    case ISA_AVX512:
        return &ref_engine_avx512;
    case ISA_AVX512_VNNI:
        return &ref_engine_avx512_vnni;
#endif
#ifdef REF_ENGINE_NEON
    case ISA_NEON:
        return &ref_engine_neon;
#endif
    default:
        return NULL;
    }
}
