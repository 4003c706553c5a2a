/* Which scale (and minimum) suits a group of weights best: quant/fit.py with LANES groups side by side. n is a constant
   wherever these are called. */

#define ZERO_BELOW 1e-15f

/* Of each group the value of largest magnitude, the first of equals; NaN is passed over. */
OP vf largest(const vf *x, int n)
{
    vf top = splat(0), size = splat(0);
    for (int i = 0; i < n; i++) {
        vf a = magnitude(x[i]);
        vi more = size < a;
        size = pick(more, a, size);
        top = pick(more, x[i], top);
    }
    return top;
}

OP void signed_sums(const vf *x, const vf *w, int n, int nmax, vf inverse, vf *xq, vf *qq)
{
    vf sum_xq = splat(0), sum_qq = splat(0);
    for (int i = 0; i < n; i++) {
        vf q = nearest_between(inverse * x[i], -nmax, nmax - 1);
        sum_xq += w[i] * x[i] * q;
        sum_qq += w[i] * q * q;
    }
    *xq = sum_xq;
    *qq = sum_qq;
}

/* `fit_signed`: q gets integers -nmax .. nmax - 1; returns the scales. */
OP vf fit_signed(const vf *x, const vf *w, int n, int nmax, vi *q)
{
    vf top = largest(x, n), chosen = (float)-nmax / top, xq, qq;
    signed_sums(x, w, n, nmax, chosen, &xq, &qq);
    vf scale = pick(qq != 0, xq / qq, splat(0)), best = scale * xq;
    for (int step = -9; step <= 9; step++) {
        if (step == 0)
            continue;
        vf inverse = -((float)nmax + 0.1f * (float)step) / top;
        signed_sums(x, w, n, nmax, inverse, &xq, &qq);
        vi better = (qq > 0) & (xq * xq > best * qq);
        if (!any(better))
            continue;
        scale = pick(better, xq / qq, scale);
        best = pick(better, scale * xq, best);
        chosen = pick(better, inverse, chosen);
    }
    vi zero = magnitude(top) < ZERO_BELOW;
    for (int i = 0; i < n; i++)
        q[i] = pick_int(zero, splat_int(-nmax), nearest_in(chosen * x[i], -nmax, nmax - 1));
    return pick(zero, splat(0), scale);
}

/* Change one integer at a time, up to five rounds, wherever (sum wxq)^2 / sum wqq grows. positive: the integers are kept
   in unsigned bytes. A group in which a round changed nothing changes no more. */
OP void descend(const vf *x, const vf *w, int n, int low, int high, int positive, vf *q, vf *sum_xq, vf *sum_qq)
{
    vf xq = *sum_xq, qq = *sum_qq;
    for (int round = 0; round < 5; round++) {
        vi changed = splat_int(0);
        for (int i = 0; i < n; i++) {
            vf wx = w[i] * x[i], rest_xq = xq - wx * q[i], rest_qq = qq - w[i] * q[i] * q[i];
            vi whole = nearest_in(x[i] * rest_qq / rest_xq, low, high);
            vf new = to_float(whole), new_xq = rest_xq + wx * new, new_qq = rest_qq + w[i] * new * new;
            vi allowed = (rest_xq > 0) & (new != q[i]) & ((positive ? rest_qq : new_qq) > 0);
            vi better = allowed & (new_xq * new_xq * qq > xq * xq * new_qq);
            q[i] = pick(better, positive ? to_float(whole & 255) : new, q[i]);
            xq = pick(better, new_xq, xq);
            qq = pick(better, new_qq, qq);
            changed |= better;
        }
        if (!any(changed))
            break;
    }
    *sum_xq = xq;
    *sum_qq = qq;
}

/* `fit_three_bits`: q gets integers -4 .. 3. */
OP vf fit_three_bits(const vf *x, int n, vi *q)
{
    vf w[32], tried[32], xq = splat(0), qq = splat(0), top = largest(x, n), inverse = -4.0f / top;
    for (int i = 0; i < n; i++) {
        w[i] = x[i] * x[i];
        tried[i] = nearest_between(inverse * x[i], -4, 3);
        xq += w[i] * x[i] * tried[i];
        qq += w[i] * tried[i] * tried[i];
    }
    descend(x, w, n, -4, 3, 0, tried, &xq, &qq);
    vi zero = magnitude(top) < ZERO_BELOW;
    for (int i = 0; i < n; i++)
        q[i] = pick_int(zero, splat_int(-4), __builtin_convertvector(tried[i], vi));
    return pick(zero | ~(qq > 0), splat(0), xq / qq);
}

OP vf minimum_error(const vf *x, const vf *w, const vf *q, int n, vf scale, vf low, int absolute)
{
    vf error = splat(0);
    for (int i = 0; i < n; i++) {
        vf difference = scale * q[i] + low - x[i];
        error += w[i] * (absolute ? magnitude(difference) : (vf)(difference * difference));
    }
    return error;
}

/* `fit_with_minimum`: q gets integers 0 .. nmax, *minimum what is subtracted; returns the scales. */
OP vf fit_with_minimum(const vf *x, const vf *w, int n, int nmax, float first, float step, int tries, int absolute, vi *q,
                       vf *minimum)
{
    vf low = x[0], high = x[0], sum_w = w[0], sum_x = w[0] * x[0], tried[32];
    for (int i = 1; i < n; i++) {
        low = pick(x[i] < low, x[i], low);
        high = pick(x[i] > high, x[i], high);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    low = pick(low > 0, splat(0), low);
    vi flat = high <= low;
    vf start = low, inverse = (float)nmax / (high - low), scale = 1.0f / inverse;
    for (int i = 0; i < n; i++) {
        q[i] = nearest_in(inverse * (x[i] - low), 0, nmax);
        tried[i] = to_float(q[i]);
    }
    vf least_error = minimum_error(x, w, tried, n, scale, low, absolute);
    for (int t = 0; t <= tries; t++) {
        vf sum_q = splat(0), sum_qq = splat(0), sum_xq = splat(0);
        inverse = (first + step * (float)t + (float)nmax) / (high - low);
        for (int i = 0; i < n; i++) {
            vf k = nearest_between(inverse * (x[i] - low), 0, nmax), wk = w[i] * k;
            tried[i] = k;
            sum_q += wk;
            sum_qq += wk * k;
            sum_xq += wk * x[i];
        }
        vf det = sum_w * sum_qq - sum_q * sum_q;
        vf slope = (sum_w * sum_xq - sum_x * sum_q) / det, offset = (sum_qq * sum_x - sum_q * sum_xq) / det;
        vi above = offset > 0;
        slope = pick(above, sum_xq / sum_qq, slope);
        offset = pick(above, splat(0), offset);
        vf error = minimum_error(x, w, tried, n, slope, offset, absolute);
        vi better = (det > 0) & (error < least_error);
        if (!any(better))
            continue;
        for (int i = 0; i < n; i++)
            q[i] = pick_int(better, __builtin_convertvector(tried[i], vi), q[i]);
        least_error = pick(better, error, least_error);
        scale = pick(better, slope, scale);
        low = pick(better, offset, low);
    }
    for (int i = 0; i < n; i++)
        q[i] &= ~flat;
    *minimum = -pick(flat, start, low);
    return pick(flat, splat(0), scale);
}

/* `fit_positive`: q gets integers 0 .. nmax, kept in a byte; returns the scales. */
OP vf fit_positive(const vf *x, const vf *w, int n, int nmax, vi *q)
{
    vf high = splat(0), kept[32];
    for (int i = 0; i < n; i++)
        high = larger(high, x[i]);
    vf chosen = (float)nmax / high, scale = 1.0f / chosen, least_error = splat(0);
    for (int i = 0; i < n; i++) {
        vf difference = x[i] - scale * to_float(nearest_int(chosen * x[i]) & 255);
        least_error += w[i] * difference * difference;
    }
    for (int step = -4; step <= 4; step++) {
        if (step == 0)
            continue;
        vf inverse = (0.1f * (float)step + (float)nmax) / high, error = splat(0);
        scale = 1.0f / inverse;
        for (int i = 0; i < n; i++) {
            vf difference = x[i] - scale * to_float(least_of(nearest_int(inverse * x[i]), splat_int(nmax)));
            error += w[i] * difference * difference;
        }
        vi better = error < least_error;
        least_error = pick(better, error, least_error);
        chosen = pick(better, inverse, chosen);
    }
    vf xq = splat(0), qq = splat(0);
    for (int i = 0; i < n; i++) {
        vi whole = least_of(nearest_int(chosen * x[i]), splat_int(nmax));
        vf k = to_float(whole);
        kept[i] = to_float(whole & 255);
        xq += w[i] * x[i] * k;
        qq += w[i] * k * k;
    }
    descend(x, w, n, -(1 << 23), nmax, 1, kept, &xq, &qq);
    vi zero = high < ZERO_BELOW;
    for (int i = 0; i < n; i++)
        q[i] = pick_int(zero, splat_int(0), __builtin_convertvector(kept[i], vi));
    return pick(zero | ~(qq > 0), splat(0), xq / qq);
}
