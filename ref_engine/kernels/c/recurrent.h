/* Recurrences (reference/delta.py, reference/ssm.py): sixteen columns of a state pass through all tokens in a core's
   nearest cache, a vector for each row. Sums over the rows are those of `lane_dot`: vector l adds rows l, l + 16, ... */

#define LANES 16

/* Their sum, in the order of `lane_fold`. */
OP vf lanes_folded(vf *acc)
{
    UNROLL for (int n = LANES / 2; n; n /= 2)
        UNROLL for (int l = 0; l < n; l++) acc[l] = vf_add(acc[l], acc[l + n]);
    return acc[0];
}

OP vf load_columns(const float *x, int n) { return n == 16 ? vf_load(x) : load_some(P_F32, (const uint8_t *)x, n); }

/* Columns of rows `stride` apart into or out of a place of their own. */
static void take_columns(const float *state, ptrdiff_t rows, ptrdiff_t stride, int n, float *own)
{
    for (ptrdiff_t i = 0; i < rows; i++)
        vf_store(own + 16 * i, load_columns(state + i * stride, n));
}
static void put_columns(const float *own, ptrdiff_t rows, ptrdiff_t stride, int n, float *state)
{
    for (ptrdiff_t i = 0; i < rows; i++)
        store_rows(state + i * stride, vf_load(own + 16 * i), n);
}

/* Floats: what is kept of each state at each token, and the columns of each thread. */
static size_t delta_scratch(const delta_args *a, int threads)
{
    return (size_t)(ALIGN64(a->T * a->H * a->W) + threads * 16 * a->Hd);
}

/* One token: its key corrects the columns, its query reads them. whole: Hd is a multiple of LANES. */
OP vf delta_step(int whole, int each, const float *kept, const float *k, const float *q, vf v, vf beta, ptrdiff_t Hd,
                 float *own)
{
    vf acc[LANES];
    UNROLL for (int l = 0; l < LANES; l++) acc[l] = vf_set1(0);
    for (ptrdiff_t i = 0; i < Hd; i += LANES)
        UNROLL for (int l = 0; l < LANES; l++)
        {
            if (!whole && i + l >= Hd)
                break;
            const vf s = vf_mul(vf_load(own + 16 * (i + l)), vf_set1(kept[each ? i + l : 0]));
            vf_store(own + 16 * (i + l), s);
            acc[l] = vf_add(acc[l], vf_mul(s, vf_set1(k[i + l])));
        }
    const vf change = vf_mul(vf_sub(v, lanes_folded(acc)), beta);
    UNROLL for (int l = 0; l < LANES; l++) acc[l] = vf_set1(0);
    for (ptrdiff_t i = 0; i < Hd; i += LANES)
        UNROLL for (int l = 0; l < LANES; l++)
        {
            if (!whole && i + l >= Hd)
                break;
            const vf s = vf_add(vf_load(own + 16 * (i + l)), vf_mul(vf_set1(k[i + l]), change));
            vf_store(own + 16 * (i + l), s);
            acc[l] = vf_add(acc[l], vf_mul(s, vf_set1(q[i + l])));
        }
    return lanes_folded(acc);
}

/* Values `at` .. of head h. */
static void delta_columns(const delta_args *a, const float *kept, ptrdiff_t h, ptrdiff_t at, float *own)
{
    const ptrdiff_t H = a->H, Hd = a->Hd, Vd = a->Vd;
    const int n = Vd - at < 16 ? (int)(Vd - at) : 16;
    const vf scale = vf_set1(1.0f / sqrtf((float)Hd));
    take_columns(a->before + h * Vd + at, Hd, H * Vd, n, own);
    for (ptrdiff_t t = 0; t < a->T; t++) {
        const ptrdiff_t row = t * H + h;
        const float *k = a->k + row * Hd, *q = a->q + row * Hd, *e = kept + row * a->W;
        const vf v = load_columns(a->v + row * Vd + at, n), beta = vf_set1(a->beta[row]);
        const vf y = a->W > 1       ? delta_step(0, 1, e, k, q, v, beta, Hd, own)
                     : Hd % LANES ? delta_step(0, 0, e, k, q, v, beta, Hd, own)
                                  : delta_step(1, 0, e, k, q, v, beta, Hd / LANES * LANES, own);
        store_rows(a->out + row * Vd + at, vf_mul(y, scale), n);
    }
    put_columns(own, Hd, H * Vd, n, a->after + h * Vd + at);
}

static void delta(const delta_args *a, int threads)
{
    const ptrdiff_t n = a->T * a->H * a->W, blocks = (a->Vd + 15) / 16;
    float *kept = a->scratch, *own = kept + ALIGN64(n);
#pragma omp parallel for num_threads(threads) schedule(static) if (n >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < n; i += 16) {
        const int here = n - i < 16 ? (int)(n - i) : 16;
        store_rows(kept + i, vf_exp(load_columns(a->decay + i, here)), here);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (a->T * a->H * a->Hd * a->Vd >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < a->H * blocks; i++)
        delta_columns(a, kept, i / blocks, i % blocks * 16, own + thread_number() * 16 * a->Hd);
}

/* Floats of each thread: columns of the state and their decays. */
static size_t scan_scratch(const scan_args *a, int threads) { return (size_t)(threads * 16 * (a->N + a->W)); }

/* Sixteen columns, that is features of one head or of some, of one group. */
static void scan_columns(const scan_args *a, ptrdiff_t at, float *own)
{
    const ptrdiff_t H = a->H, P = a->P, N = a->N, columns = H * P;
    const int n = columns - at < 16 ? (int)(columns - at) : 16;
    const ptrdiff_t group = at / P / (H / a->G);
    float *decays = own + 16 * N, lanes[16] = {0};
    ptrdiff_t head[16];
    for (int l = 0; l < n; l++) {
        head[l] = (at + l) / P;
        for (ptrdiff_t i = 0; i < a->W; i++)
            decays[16 * i + l] = a->a[head[l] * a->W + i];
    }
    for (ptrdiff_t i = 0; n < 16 && i < a->W; i++)
        memset(decays + 16 * i + n, 0, (size_t)(16 - n) * 4);
    take_columns(a->before + at, N, columns, n, own);
    for (ptrdiff_t t = 0; t < a->T; t++) {
        const float *b = a->b + (t * a->G + group) * N, *c = a->c + (t * a->G + group) * N;
        for (int l = 0; l < n; l++)
            lanes[l] = a->dt[t * H + head[l]];
        const vf dt = vf_load(lanes), x = vf_mul(load_columns(a->x + t * columns + at, n), dt);
        vf acc[LANES], kept = vf_exp(vf_mul(dt, vf_load(decays)));
        UNROLL for (int l = 0; l < LANES; l++) acc[l] = vf_set1(0);
        for (ptrdiff_t i = 0; i < N; i += LANES)
            UNROLL for (int l = 0; l < LANES; l++)
            {
                if (i + l >= N)
                    break;
                if (a->W > 1 && i + l)
                    kept = vf_exp(vf_mul(dt, vf_load(decays + 16 * (i + l))));
                const vf s = vf_add(vf_mul(vf_load(own + 16 * (i + l)), kept), vf_mul(vf_set1(b[i + l]), x));
                vf_store(own + 16 * (i + l), s);
                acc[l] = vf_add(acc[l], vf_mul(s, vf_set1(c[i + l])));
            }
        store_rows(a->out + t * columns + at, lanes_folded(acc), n);
    }
    put_columns(own, N, columns, n, a->after + at);
}

static void scan(const scan_args *a, int threads)
{
    const ptrdiff_t columns = a->H * a->P;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (a->T * columns * a->N >= WORTH_THREADS)
    for (ptrdiff_t i = 0; i < (columns + 15) / 16; i++)
        scan_columns(a, 16 * i, a->scratch + thread_number() * 16 * (a->N + a->W));
}
