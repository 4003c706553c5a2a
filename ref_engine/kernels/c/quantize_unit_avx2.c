#define REF_ENGINE_QUANTIZE ref_engine_quantize_avx2
#include "quantize_unit.h"
