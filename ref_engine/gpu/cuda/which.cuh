// Which rows of x a block multiplies by which matrix of a stack, and which rows of y it writes. T: rows at most.
#define ROWS 4   // warps of a block, each with a row of the weight
#define PAIRS 16 // of one expert that share what is read of its matrix

// Slots: with ids, slot s is row s / share of x times matrix ids[s]. Without, it is the `tokens` rows from row s on times
// matrix s % share: the only slot of one matrix, or a row for each of them in turn. Grid: (rows / ROWS, slots).
template <int T> struct Slot {
    int row, matrix, n, first_x;
    __device__ __forceinline__ Slot(const int *ids, int tokens, int share) {
        row = blockIdx.x * ROWS + threadIdx.x / WARP;
        matrix = ids ? ids[blockIdx.y] : (int)blockIdx.y % share;
        n = tokens;
        first_x = ids ? (int)blockIdx.y / share : (int)blockIdx.y;
    }
    __device__ __forceinline__ int x(int t) const { return first_x + t; }
    __device__ __forceinline__ int y(int t) const { return (int)blockIdx.y + t; }
};

// Pairs of a token and an expert, sorted by expert (experts.cu): those of one tile, which have the same one. Pair p is
// row p / share of x and row p of y. Grid: (tiles, rows / ROWS), so that who shares a matrix runs at the same time.
template <int T> struct Group {
    int row, matrix, n, of[T];
    const int *pairs;
    __device__ __forceinline__ Group(const int4 *tiles, const int *order, int share) {
        int4 tile = tiles[blockIdx.x];
        row = blockIdx.y * ROWS + threadIdx.x / WARP;
        matrix = tile.x, n = tile.z;
        pairs = order + tile.y;
#pragma unroll
        for (int t = 0; t < T; t++) of[t] = t < n ? pairs[t] / share : 0;
    }
    __device__ __forceinline__ int x(int t) const { return of[t]; }
    __device__ __forceinline__ int y(int t) const { return pairs[t]; }
};

// acc: what each thread of the warp has of the sums. bias: (matrices, rows) or null.
template <int T, class Which> __device__ __forceinline__ void
write_sums(const float *acc, const float *bias, float *y, const Which &s, int rows) {
    float b = bias ? bias[(long long)s.matrix * rows + s.row] : 0.0f;
#pragma unroll
    for (int t = 0; t < T; t++) {
        if (t >= s.n) break;
        float sum = warp_sum(acc[t]);
        if (threadIdx.x % WARP == 0) y[(long long)s.y(t) * rows + s.row] = sum + b;
    }
}
