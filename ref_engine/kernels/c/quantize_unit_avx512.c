#define REF_ENGINE_QUANTIZE ref_engine_quantize_avx512
#include "quantize_unit.h"
