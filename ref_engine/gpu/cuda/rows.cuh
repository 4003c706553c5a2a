// Rows of an array of up to three axes, whose last one lies together: row r = outer * inner + i is at
// outer * outer_stride + i * inner_stride. Strides count numbers.
struct Rows {
    int inner;
    long long outer_stride, inner_stride;
};

__device__ __forceinline__ long long row_at(Rows x, long long row) {
    return row / x.inner * x.outer_stride + row % x.inner * x.inner_stride;
}

#define ROWS_OF(name) int name##_inner, long long name##_outer_stride, long long name##_inner_stride
#define AS_ROWS(name) Rows{name##_inner, name##_outer_stride, name##_inner_stride}
