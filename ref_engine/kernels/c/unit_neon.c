#define REF_ENGINE_UNIT ref_engine_neon
#define REF_ENGINE_NAME "neon"
#define REF_ENGINE_VECTORS "vec_neon.h"
#include "unit.h"
