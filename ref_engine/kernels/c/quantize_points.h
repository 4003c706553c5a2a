/* The search that the quantisers to IQ2 and IQ3 share, and the neighbours that those to IQ1 need too:
   quant/codebook_search.py and quant/lattice.py with LANES groups side by side. */

#define NEAR_PADDING 16 /* entries after the last list that may be read */

/* What each of up to eight coordinates costs at each rank: tables that a rank looks up. */
#if LANES == 16
typedef struct { __m512 of[8]; } rank_costs;
OP vf looked_up_cost(const rank_costs *t, int width, int i, vi number)
{
    if (width == 8) /* the two low bits choose among four */
        return (vf)_mm512_permutevar_ps(t->of[i], _mm512_srli_epi32((__m512i)number, 2 * i));
    return (vf)_mm512_permutexvar_ps(_mm512_srli_epi32((__m512i)number, 3 * i), t->of[i]); /* four bits: eight twice */
}
OP vi load_numbers(const uint16_t *p) { return (vi)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
#define WIDE_(four) _mm512_broadcast_f32x4(four)
#define FROM_EIGHT_(eight) _mm512_broadcast_f32x8(eight)
#elif LANES == 8
typedef struct { __m256 of[8]; } rank_costs;
OP vf looked_up_cost(const rank_costs *t, int width, int i, vi number)
{
    if (width == 8)
        return (vf)_mm256_permutevar_ps(t->of[i], _mm256_srli_epi32((__m256i)number, 2 * i));
    return (vf)_mm256_permutevar8x32_ps(t->of[i], _mm256_srli_epi32((__m256i)number, 3 * i));
}
OP vi load_numbers(const uint16_t *p) { return (vi)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)); }
#define WIDE_(four) _mm256_broadcast_ps(&(four))
#define FROM_EIGHT_(eight) (eight)
#else
typedef struct { float of[8][8]; } rank_costs;
OP vf looked_up_cost(const rank_costs *t, int width, int i, vi number)
{
    int bits = width == 8 ? 2 : 3, last = (1 << bits) - 1;
    vf y;
    for (int l = 0; l < LANES; l++)
        y[l] = t->of[i][number[l] >> bits * i & last];
    return y;
}
OP vi load_numbers(const uint16_t *p)
{
    vi y;
    for (int l = 0; l < LANES; l++)
        y[l] = p[l];
    return y;
}
#endif

/* The costs w * (scale * level - x)^2 of a point's coordinates; level: what each rank stands for, (top + 1,) and up to
   8 numbers to read. */
OP rank_costs open_costs(int width, const float *x, const float *w, float scale, const float *level)
{
    rank_costs t;
#if LANES > 4
    if (width == 8) {
        __m256 xs = _mm256_loadu_ps(x), ws = _mm256_loadu_ps(w), at[3];
        for (int r = 0; r < 3; r++) {
            __m256 difference = _mm256_sub_ps(_mm256_set1_ps(scale * level[r]), xs);
            at[r] = _mm256_mul_ps(_mm256_mul_ps(ws, difference), difference);
        }
        for (int h = 0; h < 2; h++) {
            __m128 a = h ? _mm256_extractf128_ps(at[0], 1) : _mm256_castps256_ps128(at[0]);
            __m128 b = h ? _mm256_extractf128_ps(at[1], 1) : _mm256_castps256_ps128(at[1]);
            __m128 c = h ? _mm256_extractf128_ps(at[2], 1) : _mm256_castps256_ps128(at[2]), d = c;
            _MM_TRANSPOSE4_PS(a, b, c, d);
            t.of[4 * h] = WIDE_(a);
            t.of[4 * h + 1] = WIDE_(b);
            t.of[4 * h + 2] = WIDE_(c);
            t.of[4 * h + 3] = WIDE_(d);
        }
    } else {
        __m256 at = _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_loadu_ps(level));
        for (int i = 0; i < 4; i++) {
            __m256 difference = _mm256_sub_ps(at, _mm256_set1_ps(x[i]));
            __m256 cost = _mm256_mul_ps(_mm256_mul_ps(_mm256_set1_ps(w[i]), difference), difference);
            t.of[i] = FROM_EIGHT_(cost);
        }
    }
#else
    for (int i = 0; i < width; i++)
        for (int r = 0; r < (width == 8 ? 3 : 8); r++) {
            float difference = scale * level[r] - x[i];
            t.of[i][r] = w[i] * difference * difference;
        }
#endif
    return t;
}

/* Of the neighbours of a lattice point that is not in the codebook the first with the least error: its number. */
OP int nearest_neighbour(const codebook *grid, int width, int number, const float *x, const float *w, float scale,
                         const float *level)
{
    rank_costs costs = open_costs(width, x, w, scale, level);
    const uint16_t *list = grid->near + grid->start[number];
    const int n = grid->count[number];
    vf least = splat(FLT_MAX);
    vi place = splat_int(0), here = count_up();
    for (int j = 0; j < n; j += LANES, here += LANES) {
        vi candidates = load_numbers(list + j);
        vf error = looked_up_cost(&costs, width, 0, candidates);
        for (int i = 1; i < width; i++)
            error += looked_up_cost(&costs, width, i, candidates);
        vi better = (error < least) & (here < n);
        least = pick(better, error, least);
        place = pick_int(better, here, place);
    }
    float error = least[0];
    int best = place[0];
    for (int l = 1; l < LANES; l++)
        if (least[l] < error || (least[l] == error && place[l] < best)) {
            error = least[l];
            best = place[l];
        }
    return list[best];
}

/* Whether the square of an error that may occur in a search is not finite. */
OP int too_large(const vf *x, const vf *w, int n, int width, int ranks, vf scale, vi used)
{
    vi bad = splat_int(0);
    for (int i = 0; i < n; i++) {
        vf far = (float)(2 * ranks) * scale + magnitude(x[i]);
        bad |= ~((float)width * w[i] * far * far <= FLT_MAX);
    }
    return any(bad & used);
}

enum { REFIT_MISSED, REFIT_ALL_IF_MISSED, REFIT_ALL };
/* How one type searches: see `Search` in quant/codebook_search.py. n: weights in a group. */
typedef struct { int n, bits, width, top, tries, refit; float step; } search;
#define MOST_POINTS 8 /* in a group */

/* LANES groups in a search. */
typedef struct {
    vf x[32], w[32], root[32];         /* magnitudes; weights of their errors and their square roots */
    float rows[LANES][32], roots[LANES][32]; /* x and root, group by group */
    vi used;
} searched;

/* Numbers of the lattice points that weights named with this scale round to. */
OP void round_to_points(const search *s, const searched *g, vf inverse, vi *number)
{
    for (int p = 0; p < s->n / s->width; p++) {
        number[p] = splat_int(0);
        for (int i = 0; i < s->width; i++)
            number[p] |= nearest_in(0.5f * (inverse * g->x[p * s->width + i] - 1.0f), 0, s->top) << s->bits * i;
    }
}

/* Points that are not in the codebook, of the groups in `which`, give way to their neighbours. met: those that are. */
OP void into_codebook(const search *s, const codebook *grid, const searched *g, vf scale, vi which, vi *number, vi *met)
{
    static const float level[8] = {1, 3, 5, 7, 9, 11, 13, 15};
    for (int p = 0; p < s->n / s->width; p++) {
        met[p] = splat_int(-1);
        for (int l = 0; l < LANES; l++)
            if (which[l] && grid->index_of[number[p][l]] < 0) {
                const int at = p * s->width;
                met[p][l] = 0;
                number[p][l] = nearest_neighbour(grid, s->width, number[p][l], g->rows[l] + at, g->roots[l] + at, scale[l],
                                                 level);
            }
    }
}

/* sum(w x q) and sum(w q q), q = 2 * rank + 1 */
OP void point_sums(const search *s, const searched *g, const vi *number, vf *xq, vf *qq)
{
    vf sum_xq = splat(0), sum_qq = splat(0);
    for (int p = 0; p < s->n / s->width; p++)
        for (int i = 0; i < s->width; i++) {
            const int at = p * s->width + i;
            vf q = to_float(2 * (number[p] >> s->bits * i & ((1 << s->bits) - 1)) + 1);
            sum_xq += g->w[at] * g->x[at] * q;
            sum_qq += g->w[at] * q * q;
        }
    *xq = sum_xq;
    *qq = sum_qq;
}

/* The scale of each group, and the numbers of its points; the scale may be negative. start: the scale where no try has a
   finite merit. */
OP vf best_scale(const search *s, const codebook *grid, const searched *g, vf top, vf start, vi *number, int *failed)
{
    const float steps = (float)(2 * s->top + 1);
    const int points = s->n / s->width;
    vf scale = start, best = splat(0), xq, qq;
    vi exact[MOST_POINTS], tried[MOST_POINTS], met[MOST_POINTS], all_met = splat_int(-1);
    for (int p = 0; p < points; p++) {
        number[p] = splat_int(grid->points[0]);
        exact[p] = splat_int(s->refit == REFIT_MISSED ? -1 : 0);
    }
    vf coarsest = 1.0f / ((steps + (float)-s->tries * s->step) / top);
    *failed |= too_large(g->x, g->root, s->n, s->width, s->top + 1, coarsest, g->used);
    for (int i = -s->tries; i <= s->tries; i++) {
        vf inverse = (steps + (float)i * s->step) / top;
        round_to_points(s, g, inverse, tried);
        into_codebook(s, grid, g, 1.0f / inverse, g->used, tried, met);
        point_sums(s, g, tried, &xq, &qq);
        vi better = (qq > 0) & (xq * xq > best * qq);
        scale = pick(better, xq / qq, scale);
        best = pick(better, scale * xq, best);
        for (int p = 0; p < points; p++) {
            number[p] = pick_int(better, tried[p], number[p]);
            exact[p] = pick_int(better, met[p], exact[p]);
        }
    }
    for (int p = 0; p < points; p++)
        all_met &= exact[p];
    vi again = g->used & (scale > 0) & (s->refit == REFIT_ALL ? splat_int(-1) : ~all_met);
    if (!any(again))
        return scale;
    *failed |= too_large(g->x, g->root, s->n, s->width, s->top + 1, scale, again);
    round_to_points(s, g, 1.0f / scale, tried);
    into_codebook(s, grid, g, scale, again, tried, met);
    for (int p = 0; p < points; p++)
        number[p] = pick_int(s->refit == REFIT_MISSED ? (vi)(again & ~exact[p]) : again, tried[p], number[p]);
    point_sums(s, g, number, &xq, &qq);
    return pick(again & (qq > 0), xq / qq, scale);
}

/* Sign bytes of 8 weights each, as bits of words, and the magnitudes. even: with an even number of minus in each, by
   turning the cheapest weight's. */
OP void split_signs(const vf *x, const vf *w, int n, int even, vf *magnitudes, vi *bytes)
{
    for (int k = 0; k < n / 8; k++) {
        vi odd = splat_int(0), cheapest = splat_int(0), negative[8];
        vf least = w[8 * k] * x[8 * k] * x[8 * k];
        for (int i = 0; i < 8; i++) {
            negative[i] = x[8 * k + i] < 0;
            odd ^= negative[i];
            vf cost = w[8 * k + i] * x[8 * k + i] * x[8 * k + i];
            vi less = cost < least;
            least = pick(less, cost, least);
            cheapest = pick_int(less, splat_int(i), cheapest);
        }
        bytes[k] = splat_int(0);
        for (int i = 0; i < 8; i++) {
            if (even)
                negative[i] ^= odd & (cheapest == i);
            bytes[k] |= negative[i] & 1 << i;
            magnitudes[8 * k + i] = (vf)((vi)x[8 * k + i] ^ (negative[i] & INT32_MIN));
        }
    }
}

/* What a search finds for the groups of a batch, in order. */
typedef struct {
    float scale[16 * LANES];
    uint16_t index[16 * LANES][MOST_POINTS]; /* in the codebook */
    uint8_t signs[16 * LANES][4];
} found_points;

/* Searches a strip of weights x whose errors cost w; zero_below: groups whose largest magnitude is smaller (or is 0) are
   zeros. fitted: the first scale comes from `fit_positive` (IQ2_XXS). */
OP int search_strip(const search *s, const codebook *grid, const vf *x, const vf *w, int even, float zero_below, int fitted,
                    int strip, found_points *out)
{
    searched g;
    vi bytes[4], number[MOST_POINTS];
    int failed = 0;
    split_signs(x, w, s->n, even, g.x, bytes);
    vf top = g.x[0], start;
    for (int i = 0; i < s->n; i++) {
        top = larger(g.x[i], top);
        g.w[i] = w[i];
        g.root[i] = square_root(w[i]);
    }
    g.used = zero_below > 0 ? top >= zero_below : top != 0;
    if (fitted) {
        vi q[32];
        start = fit_positive(g.x, w, s->n, s->top + 2, q);
        top = start * (float)(s->top + 1);
        g.used &= top > 0;
    } else
        start = top / (float)(2 * s->top + 1);
    in_rows(g.x, s->n, g.rows);
    in_rows(g.root, s->n, g.roots);
    vf scale = best_scale(s, grid, &g, top, start, number, &failed);
    vi turned = scale < 0;
    for (int l = 0; l < LANES; l++) {
        const int at = strip * LANES + l, used = g.used[l] != 0;
        out->scale[at] = used ? fabsf(scale[l]) : 0;
        for (int p = 0; p < s->n / s->width; p++)
            out->index[at][p] = used ? (uint16_t)grid->index_of[number[p][l]] : 0;
        for (int k = 0; k < s->n / 8; k++)
            out->signs[at][k] = used ? (uint8_t)(bytes[k][l] ^ (turned[l] & 255)) : 0;
    }
    return failed;
}

/* A block's scales as 2 s + 1 steps of a `last`-th of the largest, s in 0 .. most; returns the step. */
OP float scale_steps(const float *scale, int n, float last, int most_, uint8_t *steps)
{
    float d = peak1(scale, n) / last, inverse = 1.0f / d;
    for (int i = 0; i < n; i++)
        steps[i] = (uint8_t)clip1(nearest_int1(0.5f * (inverse * scale[i] - 1.0f)), 0, most_);
    return d;
}
