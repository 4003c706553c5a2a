#define REF_ENGINE_UNIT ref_engine_avx512
#define REF_ENGINE_NAME "avx512"
#define REF_ENGINE_VECTORS "vec_avx512.h"
#include "unit.h"
