/* Products of queries with the keys that they see: what attention.h begins with. */
#define QUERIES 4 /* that share the loads of keys and values */
#define FETCH_KEYS 32
#define MOST_ROWS 32         /* queries that pass over keys and values while a core's nearest cache holds them */
#define SOFT_ROWS 8          /* whose softmax is computed together, up to 16 */
#define MOST_SCORES (1 << 18) /* of those queries: what its second cache holds */

/* One query of one head: what it reads, its place for scores, what it writes. */
typedef struct {
    float *q, *p, *out;
    const float *sink; /* one more score, which takes weight and gives nothing; NULL for none */
    ptrdiff_t from, end;
} attend_row;

/* The keys and values of one head. */
typedef struct {
    const uint8_t *k, *v;
    const float *turned;    /* in place of k: blocks of sixteen keys, each (Hd, 16), or as `turn_blocks` leaves them */
    ptrdiff_t k_key, v_key; /* bytes from one key to the next */
    ptrdiff_t first;        /* the key whose values v begins with */
    float *sixteen;         /* room for as many keys or values of float32 */
    int fetch;              /* ask for the keys and values of all heads ahead: nobody has read them yet */
} attend_keys;

OP ptrdiff_t first_key(const attend_args *a, ptrdiff_t t)
{
    ptrdiff_t from = a->window ? (ptrdiff_t)a->positions[t] - a->window + 1 : 0;
    return from > 0 ? from : 0;
}
OP ptrdiff_t end_key(const attend_args *a, ptrdiff_t t)
{
    ptrdiff_t end = (ptrdiff_t)a->positions[t] + 1;
    return end < a->S ? end : a->S;
}

#define PADDED_KEYS(a) (((a)->S + 15) / 16 * 16)
#define SCORES_OF_ROW(a) (PADDED_KEYS(a) + 16 * TOGETHER)
/* Many queries: keys turned and values in float32 first. Those who read values in blocks all see the same keys. */
#define TURNS(a) ((a)->T >= ((a)->kind == C_Q8_0 ? 2 : QUERIES))

/* Queries that a thread has in hand, a multiple of QUERIES. */
OP ptrdiff_t rows_in_hand(const attend_args *a)
{
    const ptrdiff_t shared = a->kind == C_Q8_0 ? (a->H / a->K + QUERIES - 1) / QUERIES * QUERIES : QUERIES;
    ptrdiff_t rows = TURNS(a) ? MOST_SCORES / SCORES_OF_ROW(a) / QUERIES * QUERIES : shared;
    return rows < QUERIES ? QUERIES : rows > MOST_ROWS ? MOST_ROWS : rows;
}

/* Floats from a query's scores to the next one's: itself lies between, unless it is rounded to blocks. */
OP ptrdiff_t row_floats(const attend_args *a) { return SCORES_OF_ROW(a) + a->Hd; }

/* Floats of a query in blocks. */
OP ptrdiff_t rounded_floats(const attend_args *a) { return a->kind == C_Q8_0 ? a->Hd / 32 * (X32_BYTES / 4) : 0; }

/* Floats of sixteen keys of a head, turned. */
OP ptrdiff_t turned_floats(const attend_args *a) { return a->kind == C_Q8_0 ? a->Hd / 32 * (WIDE_M / 4) : 16 * a->Hd; }

/* Floats of each thread: scores, queries, some keys or values. */
OP ptrdiff_t own_floats(const attend_args *a)
{
    const ptrdiff_t keys = turned_floats(a), values = 16 * a->Vd;
    return rows_in_hand(a) * (row_floats(a) + rounded_floats(a)) + (keys > values ? keys : values);
}

OP int clip16(ptrdiff_t n) { return n < 0 ? 0 : n > 16 ? 16 : (int)n; }

/* Products of n queries with one or two blocks of sixteen keys that are turned, (Hd, 16), into their places. The sums are
   those of `lane_fold`, without moving anything between lanes: each vector here is one lane of sixteen dot products.
   Two blocks share the loads of the queries. */
OP void dots_of(int exact, int n, int blocks, const attend_row *row, ptrdiff_t Hd, const float *k, ptrdiff_t s)
{
    vf sums[2][2][QUERIES]; /* of even and of odd lanes */
    UNROLL for (int step = 0; step < 4; step++)
    {
        const int first = step == 1 ? 2 : step == 2 ? 1 : step; /* of eight: the order in which they are added up */
        vf four[2][QUERIES];
        UNROLL for (int quarter = 0; quarter < 2; quarter++)
        {
            const ptrdiff_t lane = first + 4 * quarter;
            vf acc[2][2][QUERIES]; /* of this lane and the one eight later */
            UNROLL for (int j = 0; j < 2; j++)
                UNROLL for (int b = 0; b < blocks; b++)
                    UNROLL for (int t = 0; t < n; t++) acc[j][b][t] = vf_set1(0);
            for (ptrdiff_t i = lane; i < Hd; i += 16)
                UNROLL for (int j = 0; j < 2; j++)
                {
                    const ptrdiff_t at = i + 8 * j;
                    if (at >= Hd)
                        break;
                    vf key[2];
                    UNROLL for (int b = 0; b < blocks; b++) key[b] = vf_load(k + 16 * (at + b * Hd));
                    UNROLL for (int t = 0; t < n; t++)
                    {
                        const vf q = vf_set1(row[t].q[at]);
                        UNROLL for (int b = 0; b < blocks; b++)
                            acc[j][b][t] = add_product(exact, acc[j][b][t], key[b], q);
                    }
                }
            UNROLL for (int b = 0; b < blocks; b++)
                UNROLL for (int t = 0; t < n; t++)
                {
                    vf two = vf_add(acc[0][b][t], acc[1][b][t]);
                    four[b][t] = quarter ? vf_add(four[b][t], two) : two;
                }
        }
        UNROLL for (int b = 0; b < blocks; b++)
            UNROLL for (int t = 0; t < n; t++)
                sums[step / 2][b][t] = step % 2 ? vf_add(sums[step / 2][b][t], four[b][t]) : four[b][t];
    }
    UNROLL for (int b = 0; b < blocks; b++)
        UNROLL for (int t = 0; t < n; t++) vf_store(row[t].p + s + 16 * b, vf_add(sums[0][b][t], sums[1][b][t]));
}

/* Loops whose ends a compiler knows need no tests inside. */
OP void dots_turned(int exact, int n, int blocks, const attend_row *row, ptrdiff_t Hd, const float *k, ptrdiff_t s)
{
    if (Hd == 64 && n > 1)
        dots_of(exact, n, blocks, row, 64, k, s);
    else if (Hd % 16 == 0)
        dots_of(exact, n, blocks, row, Hd / 16 * 16, k, s);
    else
        dots_of(exact, n, blocks, row, Hd, k, s);
}

/* `count` keys or values of all heads, some keys after those at p. */
OP void fetch_keys(const uint8_t *p, ptrdiff_t key, int count)
{
    for (ptrdiff_t i = 0; i < count * key; i += 64)
        __builtin_prefetch(p + FETCH_KEYS * key + i);
}

/* The keys that n queries see: any of them, and all of them (from == end: none that all see). */
typedef struct {
    ptrdiff_t from, end, all_from, all_end;
} attend_span;

OP attend_span span_of(const attend_args *a, const attend_row *row, int n)
{
    attend_span span = {a->S, 0, 0, a->S};
    for (int t = 0; t < n; t++) {
        span.from = row[t].from < span.from ? row[t].from : span.from;
        span.end = row[t].end > span.end ? row[t].end : span.end;
        span.all_from = row[t].from > span.all_from ? row[t].from : span.all_from;
        span.all_end = row[t].end < span.all_end ? row[t].end : span.all_end;
    }
    if (span.all_from >= span.all_end)
        span.all_from = span.all_end = a->S;
    return span;
}

/* q . k of the keys that any of n queries sees, which share a block of keys after the other. */
OP void products_turned(const attend_args *a, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span span = span_of(a, row, n);
    for (ptrdiff_t s = span.from / 16 * 16; s < span.end; s += 32) {
        const float *k = keys->turned + s * a->Hd;
        int t = 0;
        for (; t + QUERIES <= n; t += QUERIES) {
            attend_span own = span_of(a, row + t, QUERIES);
            if (s + 32 <= own.from || s >= own.end)
                continue;
            if (s + 16 < own.end)
                dots_turned(exact, QUERIES, 2, row + t, a->Hd, k, s);
            else
                dots_turned(exact, QUERIES, 1, row + t, a->Hd, k, s);
        }
        for (; t < n; t++)
            for (ptrdiff_t at = s; at < s + 32 && at < row[t].end; at += 16)
                dots_turned(exact, 1, 1, row + t, a->Hd, keys->turned + at * a->Hd, at);
    }
}

/* The same of keys as they lie in the cache. */
OP void products(const attend_args *a, int kind, int exact, const attend_keys *keys, const attend_row *row, int n)
{
    attend_span span = span_of(a, row, n);
    for (ptrdiff_t s = span.from / 16 * 16; s < span.end; s += 16) {
        const uint8_t *k = keys->k + s * keys->k_key;
        if (keys->fetch)
            fetch_keys(k, keys->k_key, 16);
        const int some = clip16(a->S - s), converted = kind == C_F16 && n > 1;
        if (converted)
            for (int l = 0; l < some; l++)
                to_float(kind, k + l * keys->k_key, a->Hd, keys->sixteen + l * a->Hd);
        for (int t = 0; t < n; t++)
            if (converted)
                vf_store(row[t].p + s, dot16(C_F32, exact, row[t].q, a->Hd, (const uint8_t *)keys->sixteen, a->Hd * 4, some));
            else
                vf_store(row[t].p + s, dot16(kind, exact, row[t].q, a->Hd, k, keys->k_key, some));
    }
}

/* Sixteen keys in blocks, `key` bytes from one to the next, from `count` on zeros, as a tile reads them (wide.h). */
OP void turn_blocks(const uint8_t *k, ptrdiff_t key, int count, ptrdiff_t blocks, uint8_t *out)
{
    for (ptrdiff_t b = 0; b < blocks; b++, k += C_BLOCK_BYTES, out += WIDE_M)
        for (int l = 0; l < 16; l++) {
            uint8_t block[C_BLOCK_BYTES] = {0};
            uint16_t half;
            if (l < count)
                memcpy(block, k + l * key, C_BLOCK_BYTES);
            for (int j = 0; j < 8; j++) {
                uint32_t quad;
                memcpy(&quad, block + 2 + 4 * j, 4);
                quad ^= 0x80808080;
                memcpy(out + 64 * j + 4 * l, &quad, 4);
            }
            memcpy(&half, block, 2);
            ((float *)(out + WIDE_D))[l] = half_to_float(half);
        }
}
TILE_OF(keys_1, tile32, W_Q8_0, 1, 1)
TILE_OF(keys_2, tile32, W_Q8_0, 2, 1)
TILE_OF(keys_4, tile32, W_Q8_0, 4, 1)
TILE_OF(keys_8, tile32, W_Q8_0, 8, 1)
static const tile_function KEYS_TILES[5] = {keys_1, keys_2, keys_4, keys_8, W_Q8_0_wide};

/* The same of keys in blocks, turned or not. The scores of n rows are `stride` apart. */
OP void products_blocks(const attend_args *a, const attend_keys *keys, const attend_row *row, int n, ptrdiff_t stride)
{
    const attend_span span = span_of(a, row, n);
    const ptrdiff_t blocks = a->Hd / 32;
    attend_span spans[MOST_ROWS];
    int m;
    for (int t = 0; t < n; t += m) {
        m = tile_at(n - t);
        spans[t] = span_of(a, row + t, m);
    }
    for (ptrdiff_t s = span.from / 16 * 16; s < span.end; s += 16) {
        const uint8_t *wide = (const uint8_t *)(keys->turned + s / 16 * turned_floats(a)), *k = keys->k + s * keys->k_key;
        if (!keys->turned) {
            if (keys->fetch)
                fetch_keys(k, keys->k_key, 16);
            turn_blocks(k, keys->k_key, clip16(a->S - s), blocks, (uint8_t *)keys->sixteen);
            wide = (const uint8_t *)keys->sixteen;
        }
        for (int t = 0; t < n; t += m) {
            m = tile_at(n - t);
            if (s + 16 > spans[t].from && s < spans[t].end)
                KEYS_TILES[m > 8 ? 4 : m == 8 ? 3 : m / 2](wide, (const uint8_t *)row[t].q, blocks, row[t].p + s, stride, 16);
        }
    }
}
