/* exp, tanh and what is made of them: reference/elementary.py in sixteen lanes, operation by operation.

   Of up to TOGETHER vectors side by side: one alone waits for each of its some twenty operations in turn. */

#define ANY 0
#define BELOW_ZERO 1 /* or zero, or NaN: nothing overflows */

OP void exps(int range, int n, vf *x)
{
    static const float C[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                              4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const vf most = vf_set1(88.72283905206835f), least = vf_set1(-103.97208f), one = vf_set1(1.0f);
    vf twos[TOGETHER], r[TOGETHER], y[TOGETHER];
    vm low[TOGETHER];
    UNROLL for (int i = 0; i < n; i++)
    {
        low[i] = vm_less(x[i], least);
        vf clipped = range == BELOW_ZERO ? x[i] : vf_min(most, x[i]); /* in this order a NaN stays one */
        twos[i] = vf_rint(vf_mul(clipped, vf_set1(1.44269504088896341f)));
        r[i] = vf_add_exact(clipped, twos[i], vf_set1(-0.693359375f)); /* 8 bits times 9 */
        r[i] = vf_sub(r[i], vf_mul(twos[i], vf_set1(-2.12194440e-4f)));
        y[i] = vf_set1(C[0]);
    }
    UNROLL for (int j = 1; j < 6; j++)
        UNROLL for (int i = 0; i < n; i++) y[i] = vf_add(vf_mul(y[i], r[i]), vf_set1(C[j]));
    UNROLL for (int i = 0; i < n; i++)
    {
        y[i] = vf_add(vf_add(vf_mul(y[i], vf_mul(r[i], r[i])), r[i]), one);
        y[i] = vf_ldexp_but(low[i], y[i], twos[i]); /* results below normal numbers cost as much as a hundred others */
        x[i] = range == BELOW_ZERO ? y[i] : vf_select(vm_less(most, x[i]), vf_set1(INFINITY), y[i]);
    }
}

OP vf vf_exp(vf x)
{
    exps(ANY, 1, &x);
    return x;
}

OP vf vf_abs(vf x) { return vf_of_bits(vi_and(vi_of_bits(x), vi_set1(0x7fffffff))); }
OP vf vf_negative(vf x) { return vf_sub(vf_set1(-0.0f), x); }

OP void tanhs(int n, vf *x)
{
    static const float C[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                              -3.33332819422e-1f};
    const vf one = vf_set1(1.0f);
    vf z[TOGETHER], near[TOGETHER], far[TOGETHER];
    UNROLL for (int i = 0; i < n; i++)
    {
        z[i] = vf_mul(x[i], x[i]);
        near[i] = vf_set1(C[0]);
        far[i] = vf_add(vf_abs(x[i]), vf_abs(x[i]));
    }
    exps(ANY, n, far);
    UNROLL for (int j = 1; j < 5; j++)
        UNROLL for (int i = 0; i < n; i++) near[i] = vf_add(vf_mul(near[i], z[i]), vf_set1(C[j]));
    UNROLL for (int i = 0; i < n; i++)
    {
        near[i] = vf_add(vf_mul(vf_mul(near[i], z[i]), x[i]), x[i]);
        far[i] = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(far[i], one)));
        vi sign = vi_and(vi_of_bits(x[i]), vi_set1(INT32_MIN));
        vf signed_far = vf_of_bits(vi_or(vi_of_bits(vf_abs(far[i])), sign));
        x[i] = vf_select(vm_less(vf_abs(x[i]), vf_set1(0.625f)), near[i], signed_far);
    }
}

OP vf vf_relu(vf x) { return vf_add(vf_select(vm_less(x, vf_set1(0)), vf_set1(0), x), vf_set1(0)); }

OP void sigmoids(int n, vf *x)
{
    UNROLL for (int i = 0; i < n; i++) x[i] = vf_negative(x[i]);
    exps(ANY, n, x);
    UNROLL for (int i = 0; i < n; i++) x[i] = vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), x[i]));
}

OP void silus(int n, vf *x)
{
    vf e[TOGETHER];
    UNROLL for (int i = 0; i < n; i++) e[i] = vf_negative(x[i]);
    exps(ANY, n, e);
    UNROLL for (int i = 0; i < n; i++) x[i] = vf_div(x[i], vf_add(vf_set1(1.0f), e[i]));
}

OP void gelus(int n, vf *x)
{
    vf inner[TOGETHER];
    UNROLL for (int i = 0; i < n; i++)
    {
        vf square = vf_mul(vf_mul(vf_set1(0.044715f), x[i]), x[i]);
        inner[i] = vf_mul(vf_mul(vf_set1(0.79788456080286535587989211986876f), x[i]), vf_add(vf_set1(1.0f), square));
    }
    tanhs(n, inner);
    UNROLL for (int i = 0; i < n; i++)
        x[i] = vf_mul(vf_mul(vf_set1(0.5f), x[i]), vf_add(vf_set1(1.0f), inner[i]));
}

/* n vectors, an activation's name, without a gate. */
OP void activations(int kind, int n, vf *x)
{
    if (kind == GLU_SILU)
        silus(n, x);
    else if (kind == GLU_GELU)
        gelus(n, x);
    else
        UNROLL for (int i = 0; i < n; i++)
        {
            x[i] = vf_relu(x[i]);
            x[i] = kind == GLU_RELU_SQR ? vf_mul(x[i], x[i]) : x[i];
        }
}

OP vf vf_soft_cap(vf x, float inverse_cap, float cap)
{
    x = vf_mul(x, vf_set1(inverse_cap));
    tanhs(1, &x);
    return vf_mul(x, vf_set1(cap));
}

OP vf vf_at_most(vf x, float limit) { return vf_min(vf_set1(limit), x); } /* in this order a NaN stays one */
OP vf vf_clip(vf x, float limit) { return vf_at_most(vf_max(vf_set1(-limit), x), limit); }

/* n vectors of a gated unit of reference/ffn.py with its constants c, in place of the gate. */
OP void units(int kind, const float *c, int n, vf *gate, const vf *up)
{
    const vf one = vf_set1(1.0f);
    vf g[TOGETHER], e[TOGETHER];
    if (kind == GLU_SWIGLU_OAI) {
        UNROLL for (int i = 0; i < n; i++) g[i] = vf_at_most(gate[i], c[1]);
        UNROLL for (int i = 0; i < n; i++) e[i] = vf_mul(vf_set1(c[0]), vf_negative(g[i]));
        exps(ANY, n, e);
        UNROLL for (int i = 0; i < n; i++)
            gate[i] = vf_mul(vf_div(g[i], vf_add(one, e[i])), vf_add(vf_clip(up[i], c[1]), one));
    } else if (kind == GLU_SWIGLU_CLAMP) {
        UNROLL for (int i = 0; i < n; i++) gate[i] = vf_at_most(gate[i], c[0]);
        silus(n, gate);
        UNROLL for (int i = 0; i < n; i++) gate[i] = vf_mul(gate[i], vf_clip(up[i], c[0]));
    } else if (kind == GLU_SWIGLU_LIMIT) {
        silus(n, gate);
        UNROLL for (int i = 0; i < n; i++) gate[i] = vf_mul(vf_at_most(gate[i], c[0]), vf_clip(up[i], c[0]));
    } else if (kind == GLU_SITU) {
        UNROLL for (int i = 0; i < n; i++) g[i] = vf_mul(gate[i], vf_set1(1.0f / c[0]));
        UNROLL for (int i = 0; i < n; i++) e[i] = c[1] > 0 ? vf_mul(up[i], vf_set1(1.0f / c[1])) : up[i];
        tanhs(n, g);
        if (c[1] > 0)
            tanhs(n, e);
        sigmoids(n, gate);
        UNROLL for (int i = 0; i < n; i++)
            gate[i] = vf_mul(vf_mul(vf_mul(g[i], vf_set1(c[0])), gate[i]), c[1] > 0 ? vf_mul(e[i], vf_set1(c[1])) : e[i]);
    } else {
        activations(kind, n, gate);
        UNROLL for (int i = 0; i < n; i++) gate[i] = vf_mul(gate[i], up[i]);
    }
}
