/* IQ1_S and IQ1_M: quant/quantize_iq1.py. Three levels, shifted by an eighth up or down; all splits of the sorted weights
   into three runs are tried. */

static const float up[3] = {-0.875f, 0.125f, 1.125f}, down[3] = {-1.125f, -0.125f, 0.875f};

/* The best split so far; choice -1: none yet. */
typedef struct { vf scale, merit; vi i1, i2, choice; } split;

OP split no_split(void)
{
    split y = {splat(0), splat(-FLT_MAX), splat_int(-1), splat_int(-1), splat_int(-1)};
    return y;
}
OP void offer(split *best, int i1, int i2, int choice, vf xq, vf qq)
{
    vi better = (qq > 0) & (xq * xq > best->merit * qq);
    if (!any(better))
        return;
    best->scale = pick(better, xq / qq, best->scale);
    best->merit = pick(better, best->scale * xq, best->merit);
    best->i1 = pick_int(better, splat_int(i1), best->i1);
    best->i2 = pick_int(better, splat_int(i2), best->i2);
    best->choice = pick_int(better, splat_int(choice), best->choice);
}

/* The place of each weight in ascending order, equal ones as they come. */
OP void sorted_places(const vf *x, int n, vi *place)
{
    for (int i = 0; i < n; i++)
        place[i] = splat_int(0);
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++) {
            vi after = x[j] < x[i]; /* -1 where the later one comes first */
            place[i] -= after;
            place[j] += after + 1;
        }
}
OP void in_places(const vf *x, const vi *place, int n, vf *out)
{
    float *to = (float *)out;
    for (int i = 0; i < n; i++)
        for (int l = 0; l < LANES; l++)
            to[place[i][l] * LANES + l] = x[i][l];
}
/* sums of the first 0, 1, ... n */
OP void prefix_sums(const vf *terms, int n, vf *out)
{
    out[0] = splat(0);
    for (int i = 0; i < n; i++)
        out[i + 1] = out[i] + terms[i];
}

/* Groups of 32 (IQ1_S); choice 0: shifted up, 1: down. */
OP split best_split_32(const vf *x, const vf *w, const vi *place)
{
    enum { N = 32 };
    vf sorted[N], terms[N], sum_x[N + 1], sum_w[N + 1];
    split best = no_split();
    for (int i = 0; i < N; i++)
        terms[i] = w[i] * x[i];
    in_places(terms, place, N, sorted);
    prefix_sums(sorted, N, sum_x);
    in_places(w, place, N, sorted);
    prefix_sums(sorted, N, sum_w);
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++) {
            vf middle_x = sum_x[i2] - sum_x[i1], middle_w = sum_w[i2] - sum_w[i1];
            vf high_x = sum_x[N] - sum_x[i2], high_w = sum_w[N] - sum_w[i2];
            for (int c = 0; c < 2; c++) {
                const float *v = c ? down : up;
                offer(&best, i1, i2, c, sum_x[i1] * v[0] + middle_x * v[1] + high_x * v[2],
                      sum_w[i1] * v[0] * v[0] + middle_w * v[1] * v[1] + high_w * v[2] * v[2]);
            }
        }
    return best;
}

/* Groups of 16 (IQ1_M), each half of 8 with its own shift; choice 0: up up, 1: up down, 2: down up, 3: down down. */
OP split best_split_16(const vf *x, const vf *w, const vi *place)
{
    enum { N = 16 };
    vf sorted[N], terms[N], px[2][N + 1], pw[2][N + 1], tx[2][2], tw[2][2];
    float first[2], second[2];
    split best = no_split();
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < N; i++)
            terms[i] = i / 8 == h ? (vf)(w[i] * x[i]) : splat(0);
        in_places(terms, place, N, sorted);
        prefix_sums(sorted, N, px[h]);
        for (int i = 0; i < N; i++)
            terms[i] = i / 8 == h ? w[i] : splat(0);
        in_places(terms, place, N, sorted);
        prefix_sums(sorted, N, pw[h]);
    }
    for (int c = 0; c < 2; c++) {
        const float *v = c ? down : up;
        first[c] = v[0] * v[0] - v[1] * v[1];
        second[c] = v[1] * v[1] - v[2] * v[2];
        for (int h = 0; h < 2; h++) {
            tx[h][c] = px[h][N] * v[2];
            tw[h][c] = pw[h][N] * v[2] * v[2];
        }
    }
    for (int i1 = 0; i1 <= N; i1++)
        for (int i2 = i1; i2 <= N; i2++) {
            vf qx[2][2], qw[2][2];
            for (int h = 0; h < 2; h++) {
                vf both = px[h][i1] + px[h][i2];
                for (int c = 0; c < 2; c++) {
                    qx[h][c] = tx[h][c] - both;
                    qw[h][c] = tw[h][c] + pw[h][i1] * first[c] + pw[h][i2] * second[c];
                }
            }
            for (int c = 0; c < 4; c++)
                offer(&best, i1, i2, c, qx[0][c >> 1] + qx[1][c & 1], qw[0][c >> 1] + qw[1][c & 1]);
        }
    return best;
}

/* What is found for the groups of a batch, in order; shifts: bit p set where point p is shifted down. */
typedef struct {
    float scale[16 * LANES];
    uint16_t index[16 * LANES][4];
    uint8_t shifts[16 * LANES];
} found_levels;

/* value of coordinate i of a point that is shifted down where `low` */
OP vf level_at(vi number, int i, vi low)
{
    vi rank = number >> 2 * i & 3;
    vf u = pick(rank == 0, splat(up[0]), pick(rank == 1, splat(up[1]), splat(up[2])));
    vf d = pick(rank == 0, splat(down[0]), pick(rank == 1, splat(down[1]), splat(down[2])));
    return pick(low, d, u);
}

/* Scales, points and shifts of a strip of groups of n weights, from the best splits. */
OP int finish_strip(const codebook *grid, const vf *x, const vf *w, int n, split best, const vi *place, float zero_below,
                    int strip, found_levels *out)
{
    const int points = n / 8;
    float rows[LANES][32], weights[LANES][32];
    vf size = splat(0);
    for (int i = 0; i < n; i++)
        size = larger(magnitude(x[i]), size);
    vi used = (size >= zero_below) & (best.choice >= 0), turned = best.scale < 0, missed = splat_int(0), number[4], low[4];
    vf scale = pick(used, magnitude(best.scale), splat(0));
    vi choice = (points == 2 ? 1 : 3) * best.choice; /* one shift for all points is like the same for both */
    choice = pick_int(turned, 3 - choice, choice);
    for (int p = 0; p < points; p++) {
        vi bit = choice >> (points == 2 && p == 1 ? 0 : 1) & 1;
        low[p] = (bit != 0) & used;
        number[p] = splat_int(0);
        for (int i = 0; i < 8; i++) {
            vi at = place[8 * p + i], rank = -(at >= best.i1) - (at >= best.i2);
            number[p] |= pick_int(turned, 2 - rank, rank) << 2 * i;
        }
        number[p] &= used;
    }
    in_rows(x, n, rows);
    in_rows(w, n, weights);
    for (int p = 0; p < points; p++)
        for (int l = 0; l < LANES; l++)
            if (used[l] && grid->index_of[number[p][l]] < 0) {
                missed[l] = -1;
                number[p][l] = nearest_neighbour(grid, 8, number[p][l], rows[l] + 8 * p, weights[l] + 8 * p, scale[l],
                                                 low[p][l] ? down : up);
            }
    vf xq = splat(0), qq = splat(0);
    for (int i = 0; i < n; i++) {
        vf q = level_at(number[i / 8], i % 8, low[i / 8]);
        xq += w[i] * q * x[i];
        qq += w[i] * q * q;
    }
    int failed = too_large(x, w, n, 8, 3, scale, splat_int(-1));
    scale = pick(missed & (xq > 0) & (qq > 0), xq / qq, scale);
    store(out->scale + strip * LANES, scale);
    for (int l = 0; l < LANES; l++) {
        out->shifts[strip * LANES + l] = 0;
        for (int p = 0; p < points; p++) {
            out->index[strip * LANES + l][p] = used[l] ? (uint16_t)grid->index_of[number[p][l]] : 0;
            out->shifts[strip * LANES + l] |= (uint8_t)((low[p][l] & 1) << p);
        }
    }
    return failed;
}

/* The strip's weights, and what their errors cost. */
OP void open_levels(const batch *b, int strip, vf *x, vf *w)
{
    open_strip(b, strip, x, b->job->importance ? w : NULL);
    if (b->job->importance)
        weigh(x, spread_of(b, strip), b->n, w);
    for (int i = 0; i < b->n && !b->job->importance; i++)
        w[i] = x[i] * x[i];
}

static int quantize_iq1_s(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 32, 2);
    found_levels f;
    int failed = 0;
    for (int s = 0; s < strips(&b); s++) {
        vf x[32], w[32];
        vi place[32];
        open_levels(&b, s, x, w);
        sorted_places(x, 32, place);
        failed |= finish_strip(job->grid, x, w, 32, best_split_32(x, w, place), place, 1e-12f, s, &f);
    }
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 50, steps[8];
        float d = scale_steps(f.scale + 8 * k, 8, 15, 7, steps);
        put_half(out, d * 1.125f);
        for (int j = 0; j < 8; j++) {
            const uint16_t *index = f.index[8 * k + j];
            uint32_t word = d != 0 ? (uint32_t)(steps[j] | (f.shifts[8 * k + j] & 1) << 3) << 12 : 0;
            for (int p = 0; p < 4; p++) {
                out[2 + 4 * j + p] = (uint8_t)index[p];
                word |= (uint32_t)(index[p] >> 8) << 3 * p;
            }
            put_word(out + 34 + 2 * j, word, 2);
        }
    }
    return failed;
}

/* d once more by least squares over each block, with the points and steps that are stored. */
OP void refit_blocks(const batch *b, const found_levels *f, const uint8_t *steps, float *xq, float *qq)
{
    float terms[2][LANES * BLOCK];
    for (int s = 0; s < strips(b); s++) {
        vf x[16], w[16], tx[16], tw[16], step;
        vi number[2], low[2];
        open_levels(b, s, x, w);
        for (int l = 0; l < LANES; l++) {
            int g = s * LANES + l;
            step[l] = l < groups_left(b, s) ? (float)(2 * steps[g] + 1) : 0;
            for (int p = 0; p < 2; p++) {
                number[p][l] = b->job->grid->points[f->index[g][p]];
                low[p][l] = -(f->shifts[g] >> p & 1);
            }
        }
        for (int i = 0; i < 16; i++) {
            vf q = level_at(number[i / 8], i % 8, low[i / 8]) * step;
            tx[i] = w[i] * q * x[i];
            tw[i] = w[i] * q * q;
        }
        for (int l = 0; l < LANES && l < groups_left(b, s); l++)
            for (int i = 0; i < 16; i++) {
                terms[0][(s * LANES + l) * 16 + i] = tx[i][l];
                terms[1][(s * LANES + l) * 16 + i] = tw[i][l];
            }
    }
    sums_of_rows(terms[0], b->count, BLOCK, SUM, xq);
    sums_of_rows(terms[1], b->count, BLOCK, SUM, qq);
}

static int quantize_iq1_m(const quantize_job *job, ptrdiff_t first, int count)
{
    batch b = open_batch(job, first, count, 16, 2);
    found_levels f;
    uint8_t steps[16 * LANES];
    float d[LANES], xq[LANES], qq[LANES];
    int failed = 0;
    for (int s = 0; s < strips(&b); s++) {
        vf x[16], w[16];
        vi place[16];
        open_levels(&b, s, x, w);
        sorted_places(x, 16, place);
        failed |= finish_strip(job->grid, x, w, 16, best_split_16(x, w, place), place, 1e-7f, s, &f);
    }
    for (int k = 0; k < count; k++)
        d[k] = scale_steps(f.scale + 16 * k, 16, 15, 7, steps + 16 * k);
    refit_blocks(&b, &f, steps, xq, qq);
    for (int k = 0; k < count; k++) {
        uint8_t *out = job->out + (first + k) * 56;
        uint32_t half = float_to_half((qq[k] > 0 ? xq[k] / qq[k] : d[k]) * 1.1125f), words[4] = {0};
        memset(out, 0, 56);
        for (int j = 0; j < 16; j++) {
            int g = 16 * k + j, low = d[k] != 0 ? f.shifts[g] : 0;
            out[2 * j] = (uint8_t)f.index[g][0];
            out[2 * j + 1] = (uint8_t)f.index[g][1];
            out[32 + j] = (uint8_t)(f.index[g][0] >> 8 | (low & 1) << 3 | f.index[g][1] >> 8 << 4 | (low >> 1) << 7);
            words[j / 4] |= (uint32_t)steps[g] << 3 * (j % 4);
        }
        for (int i = 0; i < 4 && d[k] != 0; i++)
            put_word(out + 48 + 2 * i, words[i] | (half >> 4 * i & 15) << 12, 2);
    }
    return failed;
}
