"""All layers of a model in one call, where each is made of halves that the kernels know."""


cdef class MoeHalf(Half):
    """x + scale * after(what the chosen experts give for before(x))"""

    cdef moe_half_args args

    def __cinit__(self, Map router, tuple up, gate, tuple down, ptrdiff_t n_used, str activation, tuple constants,
                  bint fused, bint weigh_input, tuple routing, before, after, scale):
        """up, gate, down: as in Table.moe. routing: (bias, gate, select_by, groups, groups_used, cap, inverse_cap,
        normalise, least, scale), as in Table.route. Raises ValueError for what does not fit or has no kernel."""
        cdef moe_args *m = &self.args.moe
        _experts(m, up, gate, down, activation, constants, fused, weigh_input)
        self._begin(m.down.rows, before, after, scale)
        if m.up.columns != self.c.D:
            raise ValueError(f"experts: input of {m.up.columns}, output of {self.c.D}")
        _fits(router, m.E, self.c.D, "router")
        if not 1 <= n_used <= m.E:
            raise ValueError(f"{n_used} experts of {m.E} for a token")
        self.args.router, self.args.route.E, self.args.route.k, m.k = router.c, m.E, n_used, n_used
        _routing(&self.args.route, routing[0], routing[1:])
        m.scratch, self.args.counts = NULL, NULL
        self.held += [router, up, gate, down, routing]


cdef enum:
    ATTENTION, FFN, MIXTURE


cdef struct layer_step:
    int kind
    const void *args  # of the half
    ptrdiff_t turn    # which table of sines; -1: none
    ptrdiff_t number  # among the steps of its kind


cdef struct layer_pass:  # what all steps of a pass share
    const kernel_table *table
    ptrdiff_t T, n_shares
    ptrdiff_t last_only  # the step after which only the last token of each share goes on; the number of steps: none
    share_args *shares  # k, v: filled in for each step
    void ***k           # of each share, of each layer
    void ***v
    int threads


cdef class Places:
    """Where a cache has the keys and values of each layer, for as long as its rows stay where they are."""

    cdef list held
    cdef void **k
    cdef void **v
    cdef ptrdiff_t n, room
    cdef int kind

    def __cinit__(self, Layers layers not None, str kind, list rows):
        """rows: for each AttentionHalf, bytes of keys (room, K, Hd) and of values (room, K, Vd) of a kind
        (CACHE_KINDS)."""
        cdef uint8_t[:, :, ::1] k, v
        cdef const attend_args *a
        cdef ptrdiff_t i, at = 0
        self.kind = _index(CACHE_KINDS, kind, "cache type")
        self.held, self.n, self.room = list(rows), len(rows), -1
        if self.n != layers.n_attention:
            raise ValueError(f"rows of {self.n} layers for {layers.n_attention} with attention")
        self.k = <void **>calloc(self.n + 1, sizeof(void *))
        self.v = <void **>calloc(self.n + 1, sizeof(void *))
        if self.k == NULL or self.v == NULL:
            raise MemoryError(f"places of {self.n} layers")
        for i in range(layers.n):
            if layers.steps[i].kind != ATTENTION:
                continue
            k, v = rows[at]
            a = &(<const attention_half_args *>layers.steps[i].args).attend
            self.room = k.shape[0] if self.room < 0 else min(self.room, k.shape[0])
            if k.shape[1] != a.K or not _is_row(self.kind, k.shape[2], a.Hd) or self.room < 1:
                raise ValueError(f"layer {at}: {k.shape[0]} keys of {k.shape[1]} x {k.shape[2]} bytes do not fit")
            if v.shape[0] != k.shape[0] or v.shape[1] != a.K or not _is_row(self.kind, v.shape[2], a.Vd):
                raise ValueError(f"layer {at}: {v.shape[0]} values of {v.shape[1]} x {v.shape[2]} bytes do not fit")
            self.k[at], self.v[at] = &k[0, 0, 0], &v[0, 0, 0]
            at += 1

    def __dealloc__(self):
        free(self.k)
        free(self.v)


cdef class Layers:
    """Halves one after the other: what one makes of the stream, the next reads."""

    cdef layer_step *steps
    cdef list halves
    cdef readonly ptrdiff_t width, n_attention, n_mixture, n_turn
    cdef ptrdiff_t n, last_attention
    cdef const float **cos
    cdef const float **sin
    cdef int64_t **counts
    cdef ptrdiff_t *pairs  # that each table of sines turns

    def __cinit__(self, list halves, list turns):
        """turns: for each AttentionHalf, which of the tables that `run` is given turns it, -1 for none. Raises
        ValueError."""
        cdef Half half
        cdef layer_step *step
        cdef ptrdiff_t i
        self.halves, self.n, self.n_turn = list(halves), len(halves), max(turns, default=-1) + 1
        self.n_attention = self.n_mixture = 0
        self.last_attention = self.n
        if not halves or len(turns) != sum(isinstance(half, AttentionHalf) for half in halves):
            raise ValueError(f"{len(halves)} halves, {len(turns)} turns")
        self.steps = <layer_step *>calloc(self.n, sizeof(layer_step))
        self.cos = <const float **>calloc(self.n_turn + 1, sizeof(float *))
        self.sin = <const float **>calloc(self.n_turn + 1, sizeof(float *))
        self.counts = <int64_t **>calloc(self.n, sizeof(int64_t *))
        self.pairs = <ptrdiff_t *>calloc(self.n_turn + 1, sizeof(ptrdiff_t))
        if self.steps == NULL or self.cos == NULL or self.sin == NULL or self.counts == NULL or (
            self.pairs == NULL):
            raise MemoryError(f"places of {self.n} halves")
        self.width = (<Half?>halves[0]).c.D
        for i in range(self.n):
            half, step = halves[i], self.steps + i
            step.turn = -1
            if half.c.D != self.width:
                raise ValueError(f"layers of width {self.width} and {half.c.D}")
            if isinstance(half, AttentionHalf):
                step.kind, step.args, step.number = ATTENTION, &(<AttentionHalf>half).args, self.n_attention
                step.turn = turns[self.n_attention]
                if ((<AttentionHalf>half).args.turned > 0) != (step.turn >= 0):
                    raise ValueError(f"attention {self.n_attention} turns {(<AttentionHalf>half).args.turned} pairs "
                                     f"by table {step.turn}")
                self.n_attention += 1
                self.last_attention = i
            elif isinstance(half, FfnHalf):
                step.kind, step.args = FFN, &(<FfnHalf>half).args
            else:
                step.kind, step.args, step.number = MIXTURE, &(<MoeHalf?>half).args, self.n_mixture
                self.n_mixture += 1
                self.last_attention = self.n  # a mixture counts all tokens
            (<half_args *>step.args)[0] = half.c  # each kind's arguments begin with it

    def __dealloc__(self):
        free(self.steps)
        free(self.cos)
        free(self.sin)
        free(self.counts)
        free(self.pairs)

    def run(self, Table table not None, const float[:, ::1] x, list turns, list shares, list counts, fetch,
            float[:, ::1] out, int n_threads):
        """x (T, D) into out (T, D) or, where `narrows`, the last token of each sequence into out (sequences, D).

        turns: tables (cos (T, n), sin (T, n)). shares: for each sequence, in the order of its rows, its Places and the
        positions (n,) of its new tokens, one after the other: where in the cache they are written. counts: int64 (E,)
        for each mixture, to which its tokens are added. fetch(i, e): called where expert e of mixture i is not in
        memory; it puts it there. Raises ValueError for what does not fit.
        """
        cdef layer_pass p
        cdef size_t stream, most = 0
        cdef ptrdiff_t i, missing
        cdef const float *given
        cdef float *to
        cdef uint8_t *room
        p.table, p.T, p.n_shares, p.threads = table.c, x.shape[0], len(shares), _checked_threads(n_threads)
        p.last_only = self.last_attention if self.narrows and out.shape[0] == p.n_shares < p.T else self.n
        if p.T < 1 or x.shape[1] != self.width or out.shape[1] != self.width or (
            out.shape[0] != (p.T if p.last_only == self.n else p.n_shares)):
            raise ValueError(f"stream of {x.shape[0]} x {x.shape[1]} into {out.shape[0]} x {out.shape[1]}, "
                             f"expected a width of {self.width}")
        given = &x[0, 0]
        if given == &out[0, 0]:
            raise ValueError("layers do not write over what they read")
        self._take(turns, counts, p.T)
        p.shares = <share_args *>calloc(p.n_shares + 1, sizeof(share_args))
        p.k = <void ***>calloc(2 * p.n_shares + 1, sizeof(void **))
        p.v = p.k + p.n_shares
        try:
            if p.shares == NULL or p.k == NULL:
                raise MemoryError(f"places of {p.n_shares} sequences")
            self._divide(&p, shares)
            for i in range(self.n):
                most = max(most, self._step(&p, i, given, NULL, NULL))
            stream = (<size_t>p.T * <size_t>self.width * sizeof(float) + 63) // 64 * 64
            table._reserve(stream + most)
            room = table.scratch + stream
            try:
                with nogil:
                    for i in range(self.n):
                        to = &out[0, 0] if i == self.n - 1 else <float *>table.scratch  # halves add to it in place
                        self._step(&p, i, given, to, room)
                        if self.steps[i].kind == MIXTURE:
                            missing = self._missing(&p, i, <const int32_t *>room)
                            if missing >= 0:
                                with gil:
                                    self._fetch(&p, i, missing, <const int32_t *>room, fetch)
                            self._give(&p, i, given, to, room)
                        given = to
            finally:
                table.busy = False
        finally:
            free(p.shares)
            free(p.k)

    @property
    def narrows(self):
        """Whether after the last attention every token goes its own way, so that only those that are asked for need to."""
        return self.last_attention < self.n

    cdef int _take(self, list turns, list counts, ptrdiff_t T) except -1:
        """Tables of sines and places to count in. The caller holds the arrays."""
        cdef const float[:, ::1] cos, sin
        cdef int64_t[::1] count
        cdef ptrdiff_t i
        if len(turns) != self.n_turn or len(counts) != self.n_mixture:
            raise ValueError(f"{len(turns)} tables of sines and {len(counts)} counts, expected {self.n_turn} and "
                             f"{self.n_mixture}")
        for i, (cos, sin) in enumerate(turns):
            if cos.shape[0] != T or sin.shape[0] != T or sin.shape[1] != cos.shape[1]:
                raise ValueError(f"tables of sines: {cos.shape[0]} and {sin.shape[0]} rows for {T} tokens")
            self.cos[i], self.sin[i] = &cos[0, 0], &sin[0, 0]
            self.pairs[i] = cos.shape[1]
        for i in range(self.n):
            if self.steps[i].turn >= 0 and (
                (<const attention_half_args *>self.steps[i].args).turned != self.pairs[self.steps[i].turn]):
                raise ValueError(f"tables of sines: {self.pairs[self.steps[i].turn]} pairs do not fit")
            if self.steps[i].kind == MIXTURE:
                count = counts[self.steps[i].number]
                if count.shape[0] != (<const moe_half_args *>self.steps[i].args).moe.E:
                    raise ValueError(f"{count.shape[0]} counts for a mixture of another size")
                self.counts[self.steps[i].number] = &count[0]
        return 0

    cdef int _divide(self, layer_pass *p, list shares) except -1:
        """The rows of the stream among the sequences. The caller holds the arrays."""
        cdef Places places
        cdef const int64_t[::1] positions
        cdef share_args *at
        cdef ptrdiff_t i, t, row = 0
        for i, (places, positions) in enumerate(shares):
            at = p.shares + i
            at.row, at.T, at.kind, p.k[i], p.v[i] = row, positions.shape[0], places.kind, places.k, places.v
            if places.n != self.n_attention or at.T < 1 or positions[0] < 0:
                raise ValueError(f"sequence {i}: {at.T} tokens, places of {places.n} layers")
            for t in range(at.T):
                if positions[t] != positions[0] + t:
                    raise ValueError(f"sequence {i}: position {positions[t]} after {positions[t - 1]}")
            at.positions, at.S = &positions[0], positions[0] + at.T
            if places.n and at.S > places.room:
                raise ValueError(f"sequence {i}: position {at.S - 1} in a cache of {places.room}")
            row += at.T
        if row != p.T:
            raise ValueError(f"sequences of {row} tokens for a stream of {p.T}")
        return 0

    cdef size_t _step(self, layer_pass *p, ptrdiff_t i, const float *x, float *out, uint8_t *scratch) noexcept nogil:
        """Step i, of a mixture its first part; without scratch how many bytes of it are needed."""
        cdef attention_half_args attention
        cdef ffn_half_args ffn
        cdef moe_half_args mixture
        cdef layer_step *step = self.steps + i
        cdef ptrdiff_t s, T = p.n_shares if i > p.last_only else p.T
        if step.kind == ATTENTION:
            attention = (<const attention_half_args *>step.args)[0]
            _stream(&attention.half, T, x, out, scratch)
            attention.cos = self.cos[step.turn] if step.turn >= 0 else NULL
            attention.sin = self.sin[step.turn] if step.turn >= 0 else NULL
            for s in range(p.n_shares):
                p.shares[s].k, p.shares[s].v = p.k[s][step.number], p.v[s][step.number]
            attention.shares, attention.n_shares, attention.last_only = p.shares, p.n_shares, i == p.last_only
            return p.table.attention_half(&attention, p.threads)
        if step.kind == FFN:
            ffn = (<const ffn_half_args *>step.args)[0]
            _stream(&ffn.half, T, x, out, scratch)
            return p.table.ffn_half(&ffn, p.threads)
        mixture = self._mixture(p, i, x, out, scratch)
        return p.table.moe_half_route(&mixture, p.threads)

    cdef moe_half_args _mixture(self, layer_pass *p, ptrdiff_t i, const float *x, float *out,
                                uint8_t *scratch) noexcept nogil:
        cdef moe_half_args a = (<const moe_half_args *>self.steps[i].args)[0]
        _stream(&a.half, p.T, x, out, scratch)
        a.route.T, a.moe.T, a.counts = p.T, p.T, self.counts[self.steps[i].number]
        return a

    cdef void _give(self, layer_pass *p, ptrdiff_t i, const float *x, float *out, uint8_t *scratch) noexcept nogil:
        """The second part of a mixture's step."""
        cdef moe_half_args a = self._mixture(p, i, x, out, scratch)
        p.table.moe_half_give(&a, p.threads)

    cdef ptrdiff_t _missing(self, layer_pass *p, ptrdiff_t i, const int32_t *ids) noexcept nogil:
        """The first of the chosen experts that is not in memory, or -1."""
        cdef const moe_half_args *a = <const moe_half_args *>self.steps[i].args
        cdef ptrdiff_t pair
        for pair in range(p.T * a.route.k):
            if not _is_here(&a.moe, ids[pair]):
                return ids[pair]
        return -1

    cdef int _fetch(self, layer_pass *p, ptrdiff_t i, ptrdiff_t e, const int32_t *ids, fetch) except -1:
        """All that are not, by the caller's function."""
        cdef ptrdiff_t before = -1
        while e >= 0:
            if e == before:
                raise ValueError(f"expert {e} of mixture {self.steps[i].number} is not here")
            fetch(self.steps[i].number, e)
            before, e = e, self._missing(p, i, ids)
        return 0


cdef void _stream(half_args *c, ptrdiff_t T, const float *x, float *out, uint8_t *scratch) noexcept nogil:
    c.T, c.x, c.out, c.scratch = T, x, out, scratch
