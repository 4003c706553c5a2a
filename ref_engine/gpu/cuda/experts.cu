// What goes on around the products of experts: who has which tokens, and what a token's experts give together. ids (n,):
// of each pair of a token and an expert, the expert; one that is none's is in no group.
#define WARPS 4  // of a block

// counts (experts,): pairs of each expert, added to what is there or in its place. A warp for each.
extern "C" __global__ void __launch_bounds__(WARPS * WARP)
count_experts(const int *ids, long long n, long long *counts, int experts, int added) {
    int e = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (e >= experts) return;
    int own = 0;
    for (long long i = lane; i < n; i += WARP) own += ids[i] == e;
    own = warp_sum(own);
    if (lane == 0) counts[e] = own + (added ? counts[e] : 0);
}

// order (n,): the pairs sorted by expert, those of one expert as they come. tiles (most,): expert, first place in
// `order`, and how many of the expert's pairs, at most `each`; those behind the last have none. A warp for each expert.
extern "C" __global__ void __launch_bounds__(WARPS * WARP)
group(const int *ids, int n, const long long *counts, int *order, int4 *tiles, int experts, int each, int most) {
    int e = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    if (e >= experts) return;
    int place = 0, tile = 0;  // where the expert's begin
    for (int i = lane; i < e; i += WARP) {
        int c = (int)counts[i];
        place += c, tile += (c + each - 1) / each;
    }
    place = warp_sum(place), tile = warp_sum(tile);
    int own = (int)counts[e], end = tile + (own + each - 1) / each;
    for (int i = lane; tile + i < end; i += WARP)
        tiles[tile + i] = int4{e, place + i * each, min(each, own - i * each), 0};
    if (e == experts - 1)
        for (int i = end + lane; i < most; i += WARP) tiles[i] = int4{0, 0, 0, 0};
    for (int first = 0; first < n; first += WARP) {
        bool mine = first + lane < n && ids[first + lane] == e;
        unsigned all = __ballot_sync(WHOLE, mine);
        if (mine) order[place + __popc(all & ((1u << lane) - 1))] = first + lane;
        place += __popc(all);
    }
}

// What a token's experts gave, (tokens, k, width), times their weights (tokens, k) and added in the order of the
// ranking, every step rounded: (tokens, width). Without weights they are only added. A token with an id that is no
// expert's gets NaN. A thread for each sum.
extern "C" __global__ void __launch_bounds__(256)
weighted_sum(const float *y, const int *ids, const float *weights, float *out, long long n, int k, int width,
             int experts) {
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long token = i / width, at = token * k * width + i % width;
    float total = 0;
    for (int r = 0; r < k; r++) {
        bool there = (unsigned)ids[token * k + r] < (unsigned)experts;
        float v = there ? y[at + (long long)r * width] : __uint_as_float(0x7fc00000u);
        if (weights) v = __fmul_rn(v, weights[token * k + r]);
        total = r ? __fadd_rn(total, v) : v;
    }
    out[i] = total;
}
