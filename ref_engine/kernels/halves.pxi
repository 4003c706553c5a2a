"""Half a layer in one call: what stays the same from pass to pass is checked and laid down once."""


cdef class Map:
    """The weight of a linear map and its bias: of a block type repacked, or of a plain type as it lies in the file."""

    cdef expert_map c
    cdef const uint8_t *data
    cdef object held

    def __cinit__(self, weight not None, const float[::1] bias):
        """weight: Packed, or (type, bytes, rows, columns); bias: (rows,) or None. Raises ValueError where they do not
        fit."""
        cdef Packed packed
        cdef const uint8_t[::1] stored
        self.held = (weight, bias)
        self.c.bias = self.c.scale = NULL
        if isinstance(weight, Packed):
            packed = weight
            self.c.kind, self.c.rows, self.c.columns, self.data = packed.kind, packed.rows, packed.columns, packed.data
        else:
            type, stored, rows, columns = weight
            kind = _index(PLAIN_KINDS, type, "weight type")
            if rows < 1 or columns < 1 or rows * columns * _PLAIN_BYTES[kind] != stored.shape[0]:
                raise ValueError(f"{stored.shape[0]} bytes for {rows} rows of {columns} {type} weights")
            self.c.kind, self.c.rows, self.c.columns, self.data = W_KINDS + kind, rows, columns, &stored[0]
        self.c.data = &self.data
        if bias is not None:
            if bias.shape[0] != self.c.rows:
                raise ValueError(f"a bias of {bias.shape[0]} for {self.c.rows} rows")
            self.c.bias = &bias[0]


cdef bint _is_row(int kind, ptrdiff_t nbytes, ptrdiff_t n) noexcept:
    """Whether so many bytes are n numbers of a cache of a kind."""
    return nbytes == cached_bytes(kind, n) and (kind != C_Q8_0 or n % 32 == 0)


cdef int _fits(Map m, ptrdiff_t rows, ptrdiff_t columns, str what) except -1:
    if m is None or m.c.rows != rows or m.c.columns != columns:
        raise ValueError(f"{what}: expected {rows} x {columns}")
    return 0


cdef class Half:
    """What both halves have: norms around them, and how much of them is added to the stream."""

    cdef half_args c
    cdef list held

    cdef int _begin(self, ptrdiff_t width, before, after, scale) except -1:
        self.held = []
        self.c.D = width
        self._norm(&self.c.before, before, width)
        self._norm(&self.c.after, after, width)
        self.c.scaled, self.c.scale = scale is not None, 1.0 if scale is None else scale
        return 0

    cdef int _norm(self, norm_args *to, norm, ptrdiff_t n) except -1:
        """norm: (weight (n,) or None, eps), or None where there is none."""
        cdef const float[::1] weight
        to.there, to.weight, to.eps = norm is not None, NULL, 0.0
        if norm is None:
            return 0
        weight, to.eps = norm
        if n < 1 or (weight is not None and weight.shape[0] != n):
            raise ValueError(f"norm of {n}: its weight has another length")
        if weight is not None:
            to.weight = &weight[0]
            self.held.append(weight)
        return 0

    cdef int _stream(self, half_args *c, const float[:, ::1] x, float[:, ::1] out) except -1:
        c[0] = self.c
        if x.shape[0] < 1 or x.shape[1] != c.D or out.shape[0] != x.shape[0] or out.shape[1] != c.D:
            raise ValueError(f"stream of {x.shape[0]} x {x.shape[1]} into {out.shape[0]} x {out.shape[1]}, "
                             f"expected a width of {c.D}")
        if &x[0, 0] == &out[0, 0]:
            raise ValueError("half a layer does not write over what it reads")
        c.T, c.x, c.out, c.scratch = x.shape[0], &x[0, 0], &out[0, 0], NULL
        return 0


cdef class FfnHalf(Half):
    """x + scale * after(down(unit(gate(before(x)), up(before(x)))))"""

    cdef ffn_half_args args

    def __cinit__(self, Map up, gate, Map down, str activation, tuple constants, bint gated, before, after, scale):
        """fused where it is gated and has no gate: the first half of up's rows, whole groups of 16, is the gate.

        before, after: (weight or None, eps), or None; scale: a number or None. Raises ValueError for what does not
        fit or has no kernel.
        """
        cdef ptrdiff_t F = down.c.columns, D = down.c.rows
        cdef bint fused = gated and gate is None
        self._begin(D, before, after, scale)
        _fits(up, 2 * F if fused else F, D, "up")
        if fused and F % 16:
            raise ValueError(f"halves of {F} rows are not whole groups of 16")
        if gate is not None:
            _fits(gate, F, D, "gate")
            self.args.gate = (<Map>gate).c
        self.args.up, self.args.down, self.args.gated, self.args.fused = up.c, down.c, gated, fused
        self.args.unit = _unit(activation, constants, gated, self.args.constants)
        self.held += [up, gate, down]

    def run(self, Table table not None, const float[:, ::1] x, float[:, ::1] out, int n_threads):
        """x (T, D) into out (T, D)."""
        cdef ffn_half_args a = self.args
        _checked_threads(n_threads)
        self._stream(&a.half, x, out)
        table._reserve(table.c.ffn_half(&a, n_threads))
        a.half.scratch = table.scratch
        try:
            with nogil:
                table.c.ffn_half(&a, n_threads)
        finally:
            table.busy = False


cdef class AttentionHalf(Half):
    """x + scale * after(output(attend(turned queries, all keys, all values)))"""

    cdef attention_half_args args
    cdef share_args *shares
    cdef ptrdiff_t room

    def __cinit__(self, Map q, Map k, Map v, Map output, ptrdiff_t n_head, ptrdiff_t n_head_kv, q_norm, k_norm,
                  ptrdiff_t turned, bint adjacent, float query_scale, float scale, ptrdiff_t window, float cap,
                  float inverse_cap, const float[::1] sinks, before, after, residual_scale):
        """turned: pairs of each head that the position turns, 0 for none.

        Norms are (weight or None, eps), or None; window 0: all keys; cap 0: none; sinks (H,) or None. Raises ValueError
        for what does not fit.
        """
        cdef attend_args *a = &self.args.attend
        self.shares, self.room = NULL, 0
        if n_head < 1 or n_head_kv < 1 or n_head % n_head_kv or q.c.rows % n_head or v.c.rows % n_head_kv:
            raise ValueError(f"{n_head} heads over {n_head_kv} do not fit {q.c.rows} and {v.c.rows} rows")
        a.H, a.K, a.Hd, a.Vd = n_head, n_head_kv, q.c.rows // n_head, v.c.rows // n_head_kv
        if a.Hd > MOST_HEAD or turned < 0 or 2 * turned > a.Hd:
            raise ValueError(f"heads of {a.Hd}, {turned} pairs turned: expected up to {MOST_HEAD}")
        if window < 0 or not isfinite(cap):
            raise ValueError(f"attention: window {window}, cap {cap}")
        self._begin(output.c.rows, before, after, residual_scale)
        _fits(q, a.H * a.Hd, self.c.D, "queries")
        _fits(k, a.K * a.Hd, self.c.D, "keys")
        _fits(v, a.K * a.Vd, self.c.D, "values")
        _fits(output, self.c.D, a.H * a.Vd, "output")
        self._norm(&self.args.q_norm, q_norm, a.Hd)
        self._norm(&self.args.k_norm, k_norm, a.Hd)
        self.args.q, self.args.k, self.args.v, self.args.output = q.c, k.c, v.c, output.c
        self.args.turned, self.args.adjacent, self.args.query_scale = turned, adjacent, query_scale
        a.scale, a.window, a.cap, a.inverse_cap, a.sinks = scale, window, cap, inverse_cap, NULL
        if sinks is not None:
            if sinks.shape[0] != a.H:
                raise ValueError(f"{sinks.shape[0]} sinks for {a.H} heads")
            a.sinks = &sinks[0]
        self.held += [q, k, v, output, sinks]

    def __dealloc__(self):
        free(self.shares)

    def run(self, Table table not None, const float[:, ::1] x, const float[:, ::1] cos, const float[:, ::1] sin,
            list shares, float[:, ::1] out, int n_threads):
        """x (T, D) into out (T, D). cos, sin: (T, turned), or None where nothing turns.

        shares: for each sequence, in the order of its rows, (positions (n,), kind (CACHE_KINDS), bytes of keys
        (S, K, Hd), of values (S, K, Vd)), whose last n rows are written.
        """
        cdef attention_half_args a = self.args
        _checked_threads(n_threads)
        self._stream(&a.half, x, out)
        a.cos = a.sin = NULL
        if a.turned:
            if cos is None or sin is None or cos.shape[0] != a.half.T or sin.shape[0] != a.half.T or (
                cos.shape[1] != a.turned or sin.shape[1] != a.turned):
                raise ValueError(f"tables of sines: expected {a.half.T} x {a.turned}")
            a.cos, a.sin = &cos[0, 0], &sin[0, 0]
        self._places(shares, a.half.T)
        a.shares, a.n_shares = self.shares, len(shares)
        table._reserve(table.c.attention_half(&a, n_threads))
        a.half.scratch = table.scratch
        try:
            with nogil:
                table.c.attention_half(&a, n_threads)
        finally:
            table.busy = False

    cdef int _places(self, list shares, ptrdiff_t T) except -1:
        """Where each sequence's rows are. The caller holds the arrays."""
        cdef const int64_t[::1] positions
        cdef uint8_t[:, :, ::1] k, v
        cdef ptrdiff_t i, t, row = 0
        cdef attend_args *a = &self.args.attend
        cdef share_args *at
        if len(shares) > self.room:
            free(self.shares)
            self.room = 0
            self.shares = <share_args *>calloc(len(shares), sizeof(share_args))
            if self.shares == NULL:
                raise MemoryError(f"places of {len(shares)} sequences")
            self.room = len(shares)
        for i, (positions, kind, k, v) in enumerate(shares):
            at = self.shares + i
            at.kind = _index(CACHE_KINDS, kind, "cache type")
            at.row, at.T, at.S = row, positions.shape[0], k.shape[0]
            if at.T < 1 or at.S < at.T or v.shape[0] != at.S or k.shape[1] != a.K or v.shape[1] != a.K:
                raise ValueError(f"sequence {i}: {at.T} tokens, {k.shape[0]} x {k.shape[1]} keys, {v.shape[0]} x "
                                 f"{v.shape[1]} values do not fit")
            if not _is_row(at.kind, k.shape[2], a.Hd) or not _is_row(at.kind, v.shape[2], a.Vd):
                raise ValueError(f"sequence {i}: keys of {k.shape[2]} and values of {v.shape[2]} bytes")
            for t in range(at.T):
                if positions[t] < 0 or (a.window and positions[t] - a.window + 1 >= at.S):
                    raise ValueError(f"position {positions[t]} sees none of {at.S} keys")
            at.positions, at.k, at.v = &positions[0], &k[0, 0, 0], &v[0, 0, 0]
            row += at.T
        if row != T:
            raise ValueError(f"sequences of {row} tokens for a stream of {T}")
        return 0
