#define REF_ENGINE_UNIT ref_engine_baseline
#define REF_ENGINE_NAME "baseline"
#define REF_ENGINE_NO_UNROLL /* lanes are loops already */
#define REF_ENGINE_VECTORS "vec_baseline.h"
#include "unit.h"
