#define REF_ENGINE_UNIT ref_engine_avx512_vnni
#define REF_ENGINE_NAME "avx512_vnni"
#define REF_ENGINE_VECTORS "vec_avx512.h"
#define REF_ENGINE_VNNI
#include "unit.h"
