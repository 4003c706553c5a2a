/* exp, tanh and what is made of them: reference/elementary.py in sixteen lanes, operation by operation. */

OP vf polynomial(const float *c, int n, vf x)
{
    vf y = vf_set1(c[0]);
    UNROLL for (int i = 1; i < n; i++) y = vf_add(vf_mul(y, x), vf_set1(c[i]));
    return y;
}

OP vf vf_exp(vf x)
{
    static const float C[] = {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                              4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f};
    const vf most = vf_set1(88.72283905206835f), least = vf_set1(-103.97208f), one = vf_set1(1.0f);
    vf clipped = vf_min(most, vf_max(least, x)); /* in this order a NaN stays one */
    vf n = vf_rint(vf_mul(clipped, vf_set1(1.44269504088896341f)));
    vf r = vf_sub(vf_sub(clipped, vf_mul(n, vf_set1(0.693359375f))), vf_mul(n, vf_set1(-2.12194440e-4f)));
    vf y = vf_add(vf_add(vf_mul(polynomial(C, 6, r), vf_mul(r, r)), r), one);
    y = vf_ldexp(y, n);
    y = vf_select(vm_less(x, least), vf_set1(0), y);
    return vf_select(vm_less(most, x), vf_set1(INFINITY), y);
}

OP vf vf_abs(vf x) { return vf_of_bits(vi_and(vi_of_bits(x), vi_set1(0x7fffffff))); }
OP vf vf_negative(vf x) { return vf_sub(vf_set1(-0.0f), x); }

OP vf vf_tanh(vf x)
{
    static const float C[] = {-5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f, 1.33314422036e-1f,
                              -3.33332819422e-1f};
    const vf one = vf_set1(1.0f);
    vf a = vf_abs(x), z = vf_mul(x, x);
    vf near = vf_add(vf_mul(vf_mul(polynomial(C, 5, z), z), x), x);
    vf far = vf_sub(one, vf_div(vf_set1(2.0f), vf_add(vf_exp(vf_add(a, a)), one)));
    vi sign = vi_and(vi_of_bits(x), vi_set1(INT32_MIN));
    vf signed_far = vf_of_bits(vi_or(vi_of_bits(vf_abs(far)), sign));
    return vf_select(vm_less(a, vf_set1(0.625f)), near, signed_far);
}

OP vf vf_relu(vf x) { return vf_add(vf_select(vm_less(x, vf_set1(0)), vf_set1(0), x), vf_set1(0)); }

/* One of an activation's name, without a gate. */
OP vf vf_activation(int kind, vf x)
{
    const vf one = vf_set1(1.0f);
    if (kind == GLU_SILU)
        return vf_div(x, vf_add(one, vf_exp(vf_negative(x))));
    if (kind == GLU_RELU)
        return vf_relu(x);
    if (kind == GLU_RELU_SQR) {
        vf y = vf_relu(x);
        return vf_mul(y, y);
    }
    vf square = vf_mul(vf_mul(vf_set1(0.044715f), x), x);
    vf inner = vf_mul(vf_mul(vf_set1(0.79788456080286535587989211986876f), x), vf_add(one, square));
    return vf_mul(vf_mul(vf_set1(0.5f), x), vf_add(one, vf_tanh(inner)));
}

OP vf vf_soft_cap(vf x, float inverse_cap, float cap)
{
    return vf_mul(vf_tanh(vf_mul(x, vf_set1(inverse_cap))), vf_set1(cap));
}

OP vf vf_sigmoid(vf x) { return vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), vf_exp(vf_negative(x)))); }
OP vf vf_at_most(vf x, float limit) { return vf_min(vf_set1(limit), x); } /* in this order a NaN stays one */
OP vf vf_clip(vf x, float limit) { return vf_at_most(vf_max(vf_set1(-limit), x), limit); }

/* A gated unit of reference/ffn.py with its constants c. */
OP vf vf_unit(int kind, const float *c, vf gate, vf up)
{
    const vf one = vf_set1(1.0f);
    if (kind == GLU_SWIGLU_OAI) {
        vf g = vf_at_most(gate, c[1]), e = vf_exp(vf_mul(vf_set1(c[0]), vf_negative(g)));
        return vf_mul(vf_div(g, vf_add(one, e)), vf_add(vf_clip(up, c[1]), one));
    }
    if (kind == GLU_SWIGLU_CLAMP)
        return vf_mul(vf_activation(GLU_SILU, vf_at_most(gate, c[0])), vf_clip(up, c[0]));
    if (kind == GLU_SWIGLU_LIMIT)
        return vf_mul(vf_at_most(vf_activation(GLU_SILU, gate), c[0]), vf_clip(up, c[0]));
    if (kind == GLU_SITU) {
        vf act = vf_mul(vf_tanh(vf_mul(gate, vf_set1(1.0f / c[0]))), vf_set1(c[0]));
        if (c[1] > 0)
            up = vf_mul(vf_tanh(vf_mul(up, vf_set1(1.0f / c[1]))), vf_set1(c[1]));
        return vf_mul(vf_mul(act, vf_sigmoid(gate)), up);
    }
    return vf_mul(vf_activation(kind, gate), up);
}
