// Weights of a block type, 32 at a time: what one thread takes in hand.
//
// A unit is the 16 bytes whose low nibbles are 16 neighbouring weights and whose high nibbles are 16 others, or as many
// bits in types of other widths. value = d * q - m, with a scale and a minimum for each half. The parts of the blocks
// lie apart (see packed.py): a, b, c, e are the streams of the type, block after block.
struct Unit {
    int q[8];       // signed bytes: the 16 weights from column[0], then those from column[1]
    int column[2];  // counted from the start of the row
    float d[2], m[2];
};

struct Streams {
    const u8 *a, *b, *c, *e;
};

#define LOW 0x0f0f0f0f

// n off each byte of x, where all bytes are below 128 and n is at most 128
__device__ __forceinline__ int bytes_less(int x, int n) {
    return (((unsigned)x | 0x80808080u) - (unsigned)n * 0x01010101u) ^ 0x80808080u;
}

// Bits 0 .. 3 of x as bit 0 of the four bytes
__device__ __forceinline__ int spread(unsigned x) { return ((x & 15) * 0x00204081u) & 0x01010101u; }

// Four bytes with a number below 16 each -> what the table of 16 bytes (t0: entries 0 .. 3, ...) has there
__device__ __forceinline__ int looked_up(int x, unsigned t0, unsigned t1, unsigned t2, unsigned t3) {
    unsigned s = (unsigned)x;
    s = (s | s >> 4) & 0x00ff00ffu;
    s = (s | s >> 8) & 0xffffu;
    unsigned first = __byte_perm(t0, t1, s & 0x7777u), second = __byte_perm(t2, t3, s & 0x7777u);
    return (int)__byte_perm(first, second, 0x3210u | (s & 0x8888u) >> 1);
}

__device__ __forceinline__ int of_iq4(int x) { return looked_up(x, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u); }

__device__ __forceinline__ int of_e2m1(int x) {  // twice the value
    return looked_up(x, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu);
}

__device__ __forceinline__ void low_and_high(Unit &u, const u8 *p) {
    int4 v = load<int4>(p);
    u.q[0] = v.x & LOW, u.q[1] = v.y & LOW, u.q[2] = v.z & LOW, u.q[3] = v.w & LOW;
    u.q[4] = v.x >> 4 & LOW, u.q[5] = v.y >> 4 & LOW, u.q[6] = v.z >> 4 & LOW, u.q[7] = v.w >> 4 & LOW;
}

__device__ __forceinline__ void whole_block(Unit &u, int unit, float d, float m) {
    u.column[0] = unit * 32, u.column[1] = unit * 32 + 16;
    u.d[0] = u.d[1] = d, u.m[0] = u.m[1] = m;
}

// -- blocks of 32: unit = block; n = number of the block in the stream -------------------------------------------------

struct Q4_0 {  // a: nibbles, b: d
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
#pragma unroll
        for (int i = 0; i < 8; i++) u.q[i] = bytes_less(u.q[i], 8);
        whole_block(u, unit, half_at(s.b + n * 2), 0);
    }
};

struct Q4_1 {  // a: nibbles, b: d, m
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
        whole_block(u, unit, half_at(s.b + n * 4), -half_at(s.b + n * 4 + 2));
    }
};

__device__ __forceinline__ void fifth_bits(Unit &u, unsigned high) {
#pragma unroll
    for (int i = 0; i < 8; i++) u.q[i] |= spread(high >> 4 * i) << 4;
}

struct Q5_0 {  // a: nibbles, b: fifth bits, c: d
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
        fifth_bits(u, load<unsigned>(s.b + n * 4));
#pragma unroll
        for (int i = 0; i < 8; i++) u.q[i] = bytes_less(u.q[i], 16);
        whole_block(u, unit, half_at(s.c + n * 2), 0);
    }
};

struct Q5_1 {  // a: nibbles, b: fifth bits, c: d, m
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
        fifth_bits(u, load<unsigned>(s.b + n * 4));
        whole_block(u, unit, half_at(s.c + n * 4), -half_at(s.c + n * 4 + 2));
    }
};

struct Q8_0 {  // a: bytes, b: d
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        int4 v = load<int4>(s.a + n * 32), w = load<int4>(s.a + n * 32 + 16);
        u.q[0] = v.x, u.q[1] = v.y, u.q[2] = v.z, u.q[3] = v.w;
        u.q[4] = w.x, u.q[5] = w.y, u.q[6] = w.z, u.q[7] = w.w;
        whole_block(u, unit, half_at(s.b + n * 2), 0);
    }
};

struct IQ4_NL {  // a: nibbles, b: d
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
#pragma unroll
        for (int i = 0; i < 8; i++) u.q[i] = of_iq4(u.q[i]);
        whole_block(u, unit, half_at(s.b + n * 2), 0);
    }
};

struct MXFP4 {  // a: nibbles, b: exponent
    static constexpr int SIZE = 32;
    static __device__ __forceinline__ void unit(Unit &u, Streams s, long long n, int unit) {
        low_and_high(u, s.a + n * 16);
#pragma unroll
        for (int i = 0; i < 8; i++) u.q[i] = of_e2m1(u.q[i]);
        unsigned e = s.b[n];  // 2^(e - 128); the two smallest are denormal, zero under CuPy's -ftz=true
        whole_block(u, unit, __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0);
    }
};
