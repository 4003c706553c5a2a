#define REF_ENGINE_UNIT ref_engine_avx2
#define REF_ENGINE_NAME "avx2"
#define REF_ENGINE_VECTORS "vec_avx2.h"
#include "unit.h"
