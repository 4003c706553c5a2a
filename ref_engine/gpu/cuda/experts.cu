// Which tokens go to which expert.
//
// A slot is one choice of a token: number token * k + rank. The slots of an expert are put together, in groups of at most
// `each`, so that a product reads the expert's weights once for all of a group. Nothing of it is known to the host.

// One block of threads. ids: (n_slots,) experts. groups: (n_groups, 3), an expert, where its slots begin in `slots`, and
// how many they are, none for those left over. Shared memory: 2 * (n_experts + 1) ints.
extern "C" __global__ void __launch_bounds__(256) group_slots(
    const int *ids, int *groups, int *slots, int n_slots, int n_experts, int n_groups, int each) {
    extern __shared__ int buffer[];
    int *first = buffer, *first_group = buffer + n_experts + 1;
    for (int e = threadIdx.x; e < n_experts; e += blockDim.x) {
        int n = 0;
        for (int s = 0; s < n_slots; s++) n += ids[s] == e;
        first[e + 1] = n, first_group[e + 1] = (n + each - 1) / each;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        first[0] = first_group[0] = 0;
        for (int e = 0; e < n_experts; e++) first[e + 1] += first[e], first_group[e + 1] += first_group[e];
    }
    __syncthreads();
    for (int e = threadIdx.x; e < n_experts; e += blockDim.x) {
        int at = first[e], end = first[e + 1], g = first_group[e];
        for (int i = at; i < end; i += each, g++)
            groups[3 * g] = e, groups[3 * g + 1] = i, groups[3 * g + 2] = end - i < each ? end - i : each;
        for (int s = 0; s < n_slots && at < end; s++)
            if (ids[s] == e) slots[at++] = s;
    }
    for (int g = first_group[n_experts] + threadIdx.x; g < n_groups; g += blockDim.x)
        groups[3 * g] = groups[3 * g + 1] = groups[3 * g + 2] = 0;
}

// y (n_slots, D) -> out (T, D): the terms of a token times their weights, added in the order of its choices.
// weights: (n_slots,), or null for a plain sum. Grid: (T, D / 256).
extern "C" __global__ void __launch_bounds__(256)
add_choices(const float *y, const float *weights, float *out, int D, int k) {
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    if (column >= D) return;
    long long t = blockIdx.x;
    float sum = 0;
    for (int r = 0; r < k; r++) {
        float term = y[(t * k + r) * D + column];
        if (weights) term = __fmul_rn(term, weights[t * k + r]);
        sum = r ? __fadd_rn(sum, term) : term;
    }
    out[t * D + column] = sum;
}
