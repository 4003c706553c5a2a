/* Dot products of float32 in sixteen lanes (reference/sums.py), for plain weights and for attention. */

OP ptrdiff_t item_bytes(int kind) { return kind == P_F32 ? 4 : 2; }

/* Sixteen numbers as float32. */
OP vf load16(int kind, const uint8_t *p)
{
    if (kind == P_F32)
        return vf_load((const float *)p);
    if (kind == P_F16)
        return vf_load_half(p);
    int32_t bits[16];
    for (int l = 0; l < 16; l++) {
        uint16_t upper;
        memcpy(&upper, p + 2 * l, 2);
        bits[l] = (int32_t)((uint32_t)upper << 16);
    }
    return vf_of_bits(vi_load(bits));
}

/* The first n of sixteen numbers, the rest zeros. */
OP vf load_some(int kind, const uint8_t *p, ptrdiff_t n)
{
    uint8_t all[64] = {0};
    memcpy(all, p, (size_t)(n * item_bytes(kind)));
    return load16(kind, all);
}

/* acc + a * b. exact: the product is one of two float16 and needs no rounding. */
OP vf add_product(int exact, vf acc, vf a, vf b) { return exact ? vf_add_exact(acc, a, b) : vf_add(acc, vf_mul(a, b)); }

/* q (n,) with 16 rows of `stride` bytes at `rows` -> lane k: the dot product with row k; n a multiple of 16 */
OP vf dot16_whole(int kind, int exact, const float *q, ptrdiff_t n, const uint8_t *rows, ptrdiff_t stride)
{
    vf acc[16];
    UNROLL for (int k = 0; k < 16; k++) acc[k] = vf_set1(0);
    for (ptrdiff_t i = 0; i < n; i += 16) {
        const uint8_t *at = rows + i * item_bytes(kind);
        vf qi = vf_load(q + i);
        UNROLL for (int k = 0; k < 16; k++)
            acc[FOLD_SLOT(k)] = add_product(exact, acc[FOLD_SLOT(k)], qi, load16(kind, at + k * stride));
    }
    return vf_fold16(acc);
}

/* The same for any n and for `count` rows, up to 16. */
OP vf dot16_ragged(int kind, int exact, const float *q, ptrdiff_t n, const uint8_t *rows, ptrdiff_t stride,
                   int count)
{
    vf acc[16];
    for (int k = 0; k < 16; k++)
        acc[k] = vf_set1(0);
    for (ptrdiff_t i = 0; i < n; i += 16) {
        ptrdiff_t some = n - i < 16 ? n - i : 16;
        const uint8_t *at = rows + i * item_bytes(kind);
        vf qi = load_some(P_F32, (const uint8_t *)(q + i), some);
        for (int k = 0; k < count; k++) {
            vf row = some == 16 ? load16(kind, at + k * stride) : load_some(kind, at + k * stride, some);
            acc[FOLD_SLOT(k)] = add_product(exact, acc[FOLD_SLOT(k)], qi, row);
        }
    }
    return vf_fold16(acc);
}

OP vf dot16(int kind, int exact, const float *q, ptrdiff_t n, const uint8_t *rows, ptrdiff_t stride, int count)
{
    return count == 16 && n % 16 == 0 ? dot16_whole(kind, exact, q, n, rows, stride)
                                      : dot16_ragged(kind, exact, q, n, rows, stride, count);
}

OP float lane_fold(vf a)
{
    float v[16];
    vf_store(v, a);
    for (int n = 8; n; n /= 2)
        for (int l = 0; l < n; l++)
            v[l] += v[l + n];
    return v[0];
}
