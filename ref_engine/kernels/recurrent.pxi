"""Recurrences and what lies around them: what goes into them is checked here."""


cdef int _has_shape(bint fits, str what) except -1:
    if not fits:
        raise ValueError(f"recurrence: {what} of another shape than the rest")
    return 0


def activate(Table table not None, str name, const float[::1] x, float[::1] y, int n_threads):
    """x (n,) into y (n,), as reference activation; one of ALONE_KINDS."""
    cdef int kind = _index(ALONE_KINDS, name, "activation")
    _checked_threads(n_threads)
    _has_shape(y.shape[0] == x.shape[0], "the output")
    if x.shape[0] == 0:
        return
    with nogil:
        table.c.activate(kind, &x[0], x.shape[0], &y[0], n_threads)


def causal_conv(Table table not None, const float[:, ::1] x, const float[:, ::1] before, const float[:, ::1] weight,
                ptrdiff_t step, float[:, ::1] y, int n_threads):
    """x (T, C), before ((W - 1) step, C) and weight (W, C) into y (T, C), as reference causal_conv."""
    cdef ptrdiff_t T = x.shape[0], C = x.shape[1], W = weight.shape[0]
    cdef const float *earlier = NULL
    _checked_threads(n_threads)
    _has_shape(T > 0 and C > 0 and W > 0 and step > 0, "x or a filter")
    _has_shape(weight.shape[1] == C and before.shape[0] == (W - 1) * step and before.shape[1] == C, "what came before")
    _has_shape(y.shape[0] == T and y.shape[1] == C, "the output")
    if before.shape[0]:
        earlier = &before[0, 0]
    with nogil:
        table.c.conv(&x[0, 0], earlier, &weight[0, 0], T, C, W, step, &y[0, 0], n_threads)


def gated_delta_rule(Table table not None, const float[:, :, ::1] q, const float[:, :, ::1] k, const float[:, :, ::1] v,
                     const float[:, :, ::1] decay, const float[:, ::1] beta, const float[:, :, ::1] before,
                     float[:, :, ::1] after, float[:, :, ::1] out, int n_threads):
    """q, k (T, H, Hd), v (T, H, Vd), decay (T, H, 1 or Hd), beta (T, H), the state before (Hd, H, Vd) into the state after
    and out (T, H, Vd), as reference gated_delta_rule."""
    cdef delta_args a
    cdef ptrdiff_t T = q.shape[0], H = q.shape[1], Hd = q.shape[2], Vd = v.shape[2]
    _checked_threads(n_threads)
    _has_shape(T > 0 and H > 0 and Hd > 0 and Vd > 0, "a query or value")
    _has_shape(k.shape[0] == T and k.shape[1] == H and k.shape[2] == Hd, "a key")
    _has_shape(v.shape[0] == T and v.shape[1] == H, "a value")
    _has_shape(decay.shape[0] == T and decay.shape[1] == H and decay.shape[2] in (1, Hd), "a decay")
    _has_shape(beta.shape[0] == T and beta.shape[1] == H, "a correction")
    _has_shape(before.shape[0] == Hd and before.shape[1] == H and before.shape[2] == Vd, "the state before")
    _has_shape(after.shape[0] == Hd and after.shape[1] == H and after.shape[2] == Vd, "the state after")
    _has_shape(out.shape[0] == T and out.shape[1] == H and out.shape[2] == Vd, "the output")
    a.T, a.H, a.Hd, a.Vd, a.W = T, H, Hd, Vd, decay.shape[2]
    a.q, a.k, a.v, a.decay, a.beta = &q[0, 0, 0], &k[0, 0, 0], &v[0, 0, 0], &decay[0, 0, 0], &beta[0, 0]
    a.before, a.after, a.out = &before[0, 0, 0], &after[0, 0, 0], &out[0, 0, 0]
    table._reserve(table.c.delta_scratch(&a, n_threads) * sizeof(float))
    a.scratch = <float *>table.scratch
    try:
        with nogil:
            table.c.delta(&a, n_threads)
    finally:
        table.busy = False


def ssm_scan(Table table not None, const float[:, :, ::1] x, const float[:, ::1] dt, const float[:, ::1] decay,
             const float[:, :, ::1] b, const float[:, :, ::1] c, const float[:, :, ::1] before,
             float[:, :, ::1] after, float[:, :, ::1] out, int n_threads):
    """x (T, H, P), dt (T, H), decay (H, 1 or N), b and c (T, G, N), the state before (N, H, P) into the state after and out
    (T, H, P), as reference ssm_scan. Sixteen features that follow each other belong to one group."""
    cdef scan_args a
    cdef ptrdiff_t T = x.shape[0], H = x.shape[1], P = x.shape[2], G = b.shape[1], N = b.shape[2]
    _checked_threads(n_threads)
    _has_shape(T > 0 and H > 0 and P > 0 and N > 0, "x or b")
    _has_shape(dt.shape[0] == T and dt.shape[1] == H, "a step")
    _has_shape(decay.shape[0] == H and decay.shape[1] in (1, N), "a decay")
    _has_shape(G > 0 and H % G == 0 and (G == 1 or H // G * P % 16 == 0), "a group")
    _has_shape(b.shape[0] == T and c.shape[0] == T and c.shape[1] == G and c.shape[2] == N, "b or c")
    _has_shape(before.shape[0] == N and before.shape[1] == H and before.shape[2] == P, "the state before")
    _has_shape(after.shape[0] == N and after.shape[1] == H and after.shape[2] == P, "the state after")
    _has_shape(out.shape[0] == T and out.shape[1] == H and out.shape[2] == P, "the output")
    a.T, a.H, a.P, a.N, a.G, a.W = T, H, P, N, G, decay.shape[1]
    a.x, a.dt, a.a, a.b, a.c = &x[0, 0, 0], &dt[0, 0], &decay[0, 0], &b[0, 0, 0], &c[0, 0, 0]
    a.before, a.after, a.out = &before[0, 0, 0], &after[0, 0, 0], &out[0, 0, 0]
    table._reserve(table.c.scan_scratch(&a, n_threads) * sizeof(float))
    a.scratch = <float *>table.scratch
    try:
        with nogil:
            table.c.scan(&a, n_threads)
    finally:
        table.busy = False
