#define REF_ENGINE_QUANTIZE ref_engine_quantize_baseline
#include "quantize_unit.h"
