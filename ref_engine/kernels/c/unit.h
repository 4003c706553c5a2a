/* The bodies of all kernels, for the vector words and the name that the including unit_*.c has chosen. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "pack.h"
#include "table.h"

#ifdef REF_ENGINE_NO_INLINE /* fast to compile, for sanitisers */
#define OP static inline __attribute__((unused))
#else
#define OP static inline __attribute__((always_inline, unused))
#endif
#ifdef REF_ENGINE_NO_UNROLL
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#include REF_ENGINE_VECTORS

#include "activations.h"
#include "unpack.h"
#include "wide.h"
#include "linear.h"

#include "lanes.h"
#include "plain.h"

#include "elementary.h"
#include "pointwise.h"

#include "cached.h"
#include "scores.h"
#include "attention.h"
#include "recurrent.h"
#include "route.h"
#include "moe.h"

#include "halves.h"
#include "ceilings.h"

const kernel_table REF_ENGINE_UNIT = {
    REF_ENGINE_NAME, quantize32, quantizek, linear, round_plain, plain,
    rms_norm,        rope,       attend_scratch, attend, glu, activate, conv, soft_cap, route_scratch, route, moe_scratch, moe,
    attention_half,  ffn_half,  moe_half_route, moe_half_give, delta_scratch, delta, scan_scratch, scan,
    dots_alone, read_alone,
};
