// -- blocks of 256: eight units each; n = number of the block in the stream, unit = number in the row ------------------

__device__ __forceinline__ void two_runs(Unit &u, int unit, int first, int second) {
    u.column[0] = (unit & ~7) * 32 + first, u.column[1] = (unit & ~7) * 32 + second;
}

// The scales and minima of Q4_K and Q5_K, of 6 bits: p the 12 bytes, j the number of 32 weights
__device__ __forceinline__ void six_bits(const u8 *p, int j, int &scale, int &min) {
    if (j < 4) {
        scale = p[j] & 63, min = p[j + 4] & 63;
    } else {
        scale = (p[j + 4] & 15) | (p[j - 4] >> 6) << 4;
        min = p[j + 4] >> 4 | (p[j] >> 6) << 4;
    }
}

// b: d, dmin and the 12 bytes of a block of Q4_K or Q5_K
__device__ __forceinline__ void scales_with_mins(Unit &u, const u8 *b, int run) {
    float d = half_at(b), dmin = half_at(b + 2);
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int scale, min;
        six_bits(b + 4, 2 * run + h, scale, min);
        u.d[h] = __fmul_rn(d, (float)scale), u.m[h] = __fmul_rn(dmin, (float)min);
    }
}

struct Q4_K {  // a: nibbles, b: d, dmin, scales
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7, run = j / 2, at = j % 2 * 16;
        low_and_high(u, s.a + n * 128 + j * 16);
        scales_with_mins(u, s.b + n * 16, run);
        two_runs(u, unit, 64 * run + at, 64 * run + 32 + at);
    }
};

struct Q5_K {  // a: nibbles, b: d, dmin, scales, c: fifth bits
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7, run = j / 2, at = j % 2 * 16;
        low_and_high(u, s.a + n * 128 + j * 16);
        int4 v = load<int4>(s.c + n * 32 + at);
        int high[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u.q[i] |= (high[i] >> 2 * run & 0x01010101) << 4;
            u.q[i + 4] |= (high[i] >> (2 * run + 1) & 0x01010101) << 4;
        }
        scales_with_mins(u, s.b + n * 16, run);
        two_runs(u, unit, 64 * run + at, 64 * run + 32 + at);
    }
};

struct Q6_K {  // a: nibbles, b: high two bits, c: scales, e: d
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7, half = j / 4, run = j % 4 / 2, at = j % 2 * 16;
        low_and_high(u, s.a + n * 128 + j * 16);
        int4 v = load<int4>(s.b + n * 64 + half * 32 + at);
        int high[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u.q[i] = bytes_less(u.q[i] | (high[i] >> 2 * run & 0x03030303) << 4, 32);
            u.q[i + 4] = bytes_less(u.q[i + 4] | (high[i] >> (2 * run + 4) & 0x03030303) << 4, 32);
        }
        int first = 128 * half + 32 * run + at;
        const i8 *scales = (const i8 *)s.c + n * 16;
        float d = half_at(s.e + n * 2);
        u.d[0] = __fmul_rn(d, (float)scales[first / 16]), u.d[1] = __fmul_rn(d, (float)scales[first / 16 + 4]);
        u.m[0] = u.m[1] = 0;
        two_runs(u, unit, first, first + 64);
    }
};

// Of the 16 bytes from p: bits 2 run, 2 run + 1, and the two after them
__device__ __forceinline__ void pairs_of_bits(Unit &u, const u8 *p, int run) {
    int4 v = load<int4>(p);
    int all[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u.q[i] = all[i] >> 2 * run & 0x03030303;
        u.q[i + 4] = all[i] >> (2 * run + 2) & 0x03030303;
    }
}

struct Q2_K {  // a: pairs of bits, b: scales, c: d, dmin
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7, half = j / 4, run = j % 4 / 2 * 2, at = j % 2 * 16, first = 128 * half + 32 * run + at;
        pairs_of_bits(u, s.a + n * 64 + half * 32 + at, run);
        float d = half_at(s.c + n * 4), dmin = half_at(s.c + n * 4 + 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int scale = s.b[n * 16 + first / 16 + 2 * h];
            u.d[h] = __fmul_rn(d, (float)(scale & 15)), u.m[h] = __fmul_rn(dmin, (float)(scale >> 4));
        }
        two_runs(u, unit, first, first + 32);
    }
};

struct Q3_K {  // a: pairs of bits, b: third bits, c: scales, e: d
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7, half = j / 4, run = j % 4 / 2 * 2, at = j % 2 * 16, first = 128 * half + 32 * run + at;
        pairs_of_bits(u, s.a + n * 64 + half * 32 + at, run);
        int4 v = load<int4>(s.b + n * 32 + at);
        int high[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            u.q[i] = bytes_less(u.q[i] | (high[i] >> (4 * half + run) & 0x01010101) << 2, 4);
            u.q[i + 4] = bytes_less(u.q[i + 4] | (high[i] >> (4 * half + run + 1) & 0x01010101) << 2, 4);
        }
        const u8 *p = s.c + n * 12;
        float d = half_at(s.e + n * 2);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int g = first / 16 + 2 * h;
            int scale = (p[g % 8] >> g / 8 * 4 & 15) | (p[8 + g % 4] >> g / 4 * 2 & 3) << 4;
            u.d[h] = __fmul_rn(d, (float)(scale - 32)), u.m[h] = 0;
        }
        two_runs(u, unit, first, first + 32);
    }
};

struct IQ4_XS {  // a: nibbles, b: d, high bits of the scales, low bits
    static constexpr int SIZE = 256;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int j = unit & 7;
        low_and_high(u, s.a + n * 128 + j * 16);
#pragma unroll
        for (int i = 0; i < 8; i++) u.q[i] = of_iq4(u.q[i]);
        const u8 *b = s.b + n * 8;
        int scale = (b[4 + j / 2] >> j % 2 * 4 & 15) | (load<u16>(b + 2) >> 2 * j & 3) << 4;
        u.d[0] = u.d[1] = __fmul_rn(half_at(b), (float)(scale - 32));
        u.m[0] = u.m[1] = 0;
        two_runs(u, unit, 32 * j, 32 * j + 16);
    }
};
