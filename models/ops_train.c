/* ops_train: the training half of ops.h.  Matrix products go to OpenBLAS (its OpenMP build: one pool of threads); everything else is a
 * vectorised pass over rows.  Refuses nothing: train.c has checked the shapes and ids. */
#include <cblas.h>
#include <math.h>
#include <omp.h>

#include "models/lanes.h"
#include "models/ops.h"

typedef uint32_t v8w __attribute__((vector_size(32)));

enum { PIECE = 64 /* rows of one partial sum */, PARALLEL_MIN = 1 << 14, COLS = 64, TILE = 64 /* queries at a time */ };

static size_t at(int r, int C) { return (size_t)r * (size_t)C; }
static int    least(int a, int b) { return a < b ? a : b; }

/* Run body(lo, hi) for pieces of PIECE rows of [0, n); `work` elements decide whether the other threads are woken. */
#define ROW_PIECES(n, work, lo, hi, body)                                                    \
    do {                                                                                     \
        int pieces_ = (int)OPS_PART(n), many_ = (size_t)(work) >= PARALLEL_MIN;              \
        _Pragma("omp parallel for schedule(static) if (many_)")                              \
        for (int i_ = 0; i_ < pieces_; i_++) {                                               \
            int lo = i_ * PIECE, hi = least(lo + PIECE, (n));                                \
            body;                                                                            \
        }                                                                                    \
    } while (0)

CLONES static void add_into(float *restrict y, const float *restrict x, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

/* y (w,) += the rows of part (k, w), in order. */
static void fold(float *y, const float *part, int n, int w)
{
    for (size_t k = 0; k < OPS_PART(n); k++) add_into(y, part + k * (size_t)w, (size_t)w);
}

/* ---- linear ---------------------------------------------------------------------------------------------------- */

CLONES static void rows_bias(float *restrict y, const float *restrict r, const float *restrict b, int n, int C)
{
    for (int i = 0; i < n; i++) {
        float *restrict yi = y + at(i, C);
        if (r) {
            const float *restrict ri = r + at(i, C);
#pragma omp simd
            for (int c = 0; c < C; c++) yi[c] = ri[c] + b[c];
        } else {
            memcpy(yi, b, (size_t)C * sizeof *yi);
        }
    }
}

/* The bias (and the residual) is put into y first and the product added to it: BLAS would have to clear y anyway. */
void ops_linear_add(float *y, const float *r, const float *x, const float *w, const float *b, int n, int in, int out)
{
    ROW_PIECES(n, at(n, out), lo, hi, rows_bias(y + at(lo, out), r ? r + at(lo, out) : NULL, b, hi - lo, out));
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, 1.0f, x, in, w, in, 1.0f, y, out);
}
void ops_linear(float *y, const float *x, const float *w, const float *b, int n, int in, int out) { ops_linear_add(y, NULL, x, w, b, n, in, out); }

void ops_linear_dx(float *dx, const float *dy, const float *w, int n, int in, int out)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, in, out, 1.0f, dy, out, w, in, 0.0f, dx, in);
}
void ops_linear_dw(float *dw, const float *dy, const float *x, int n, int in, int out)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, out, in, n, 1.0f, dy, out, x, in, 1.0f, dw, in);
}

static void rows_sum(float *s, const float *x, int n, int C)
{
    memset(s, 0, (size_t)C * sizeof *s);
    for (int r = 0; r < n; r++) add_into(s, x + at(r, C), (size_t)C);
}
void ops_bias_db(float *db, const float *dy, int n, int out, float *part)
{
    ROW_PIECES(n, at(n, out), lo, hi, rows_sum(part + at(lo / PIECE, out), dy + at(lo, out), hi - lo, out));
    fold(db, part, n, out);
}

/* ---- layernorm ------------------------------------------------------------------------------------------------- */

/* With xh = (x - mean) rstd and g = dy w:  dx += rstd (g - mean(g) - xh mean(g xh));  s (2, C) gets sums of dy xh and dy. */
CLONES static void layernorm_dx_rows(float *restrict dx, float *restrict s, const float *restrict dy, const float *restrict x,
                                     const float *restrict w, const float *restrict mean, const float *restrict rstd, int n, int C)
{
    float *restrict sw = s, *restrict sb = s + C;
    memset(s, 0, 2 * (size_t)C * sizeof *s);
    for (int r = 0; r < n; r++) {
        const float *restrict d = dy + at(r, C), *restrict xr = x + at(r, C);
        float *restrict o = dx + at(r, C);
        const float m = mean[r], k = rstd[r];
        v8    g0 = v8_set(0.0f), g1 = v8_set(0.0f);
        float t0 = 0.0f, t1 = 0.0f;
        int   c = 0;
        for (; c + 8 <= C; c += 8) {
            v8 dv = v8_load(d + c), xh = (v8_load(xr + c) - m) * k, g = dv * v8_load(w + c);
            g0 += g;
            g1 += g * xh;
            v8_store(sw + c, v8_load(sw + c) + dv * xh);
            v8_store(sb + c, v8_load(sb + c) + dv);
        }
        for (; c < C; c++) {
            float xh = (xr[c] - m) * k, g = d[c] * w[c];
            t0 += g;
            t1 += g * xh;
            sw[c] += d[c] * xh;
            sb[c] += d[c];
        }
        const float a = (v8_sum(g0) + t0) / (float)C, b = (v8_sum(g1) + t1) / (float)C;
#pragma omp simd
        for (int i = 0; i < C; i++) o[i] += k * (d[i] * w[i] - a - (xr[i] - m) * k * b);
    }
}

void ops_layernorm_dx(float *dx, float *dw, float *db, const float *dy, const float *x, const float *w, const float *mean, const float *rstd,
                      int n, int C, float *part)
{
    ROW_PIECES(n, at(n, C), lo, hi,
               layernorm_dx_rows(dx + at(lo, C), part + at(lo / PIECE, 2 * C), dy + at(lo, C), x + at(lo, C), w, mean + lo, rstd + lo, hi - lo, C));
    for (size_t k = 0; k < OPS_PART(n); k++) {
        add_into(dw, part + k * 2 * (size_t)C, (size_t)C);
        add_into(db, part + k * 2 * (size_t)C + C, (size_t)C);
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Each gives act(x) in *y and returns act'(x). */
LANE v8 d_gelu_new(v8 x, v8 *y) /* x s(2u): s + x s (1 - s) 2u' */
{
    v8 q = x * x, s = v8_sigmoid(1.59576912f * (x + 0.044715f * (q * x)));
    *y = x * s;
    return s + *y * (1.0f - s) * (1.59576912f * (1.0f + 0.134145f * q));
}
LANE v8 d_gelu(v8 x, v8 *y) /* x Phi(x): Phi + x phi(x) */
{
    v8 p = v8_phi(x);
    *y = x * p;
    return p + x * (0.398942280f * v8_exp(-0.5f * (x * x)));
}
LANE v8 d_relu(v8 x, v8 *y)
{
    *y = v8_select(x < 0.0f, v8_set(0.0f), x);
    return v8_select(x > 0.0f, v8_set(1.0f), v8_set(0.0f));
}
LANE v8 d_silu(v8 x, v8 *y)
{
    v8 s = v8_sigmoid(x);
    *y = x * s;
    return s + *y * (1.0f - s);
}
LANE v8 d_tanh(v8 x, v8 *y)
{
    *y = v8_tanh(x);
    return 1.0f - *y * *y;
}
LANE v8 d_quick_gelu(v8 x, v8 *y)
{
    v8 s = v8_sigmoid(1.702f * x);
    *y = x * s;
    return s + *y * (1.702f * (1.0f - s));
}

#define EACH(D)                                                                                 \
    for (int r = 0; r < n; r++) {                                                               \
        float *fr = f + at(r, F), *dr = d + at(r, F);                                           \
        size_t c = 0, left = (size_t)F % 8;                                                     \
        v8     y, g;                                                                            \
        for (; c + 8 <= (size_t)F; c += 8) {                                                    \
            g = D(v8_load(fr + c), &y);                                                         \
            g *= v8_load(dr + c);                                                               \
            v8_store(fr + c, y);                                                                \
            v8_store(dr + c, g);                                                                \
            v8_store(s + c, v8_load(s + c) + g);                                                \
        }                                                                                       \
        if (left) {                                                                             \
            g = D(v8_load_part(fr + c, left, 0.0f), &y);                                        \
            g *= v8_load_part(dr + c, left, 0.0f);                                              \
            v8_store_part(fr + c, y, left);                                                     \
            v8_store_part(dr + c, g, left);                                                     \
            v8_store_part(s + c, v8_load_part(s + c, left, 0.0f) + g, left);                    \
        }                                                                                       \
    }

CLONES static void act_dx_rows(float *f, float *d, float *s, int n, int F, int act)
{
    memset(s, 0, (size_t)F * sizeof *s);
    switch (act) {
    case ACT_GELU_NEW: EACH(d_gelu_new) break;
    case ACT_GELU: EACH(d_gelu) break;
    case ACT_RELU: EACH(d_relu) break;
    case ACT_SILU: EACH(d_silu) break;
    case ACT_TANH: EACH(d_tanh) break;
    case ACT_QUICK_GELU: EACH(d_quick_gelu) break;
    }
}

void ops_act_dx(float *f, float *d, float *db, int n, int F, int act, float *part)
{
    ROW_PIECES(n, at(n, F), lo, hi, act_dx_rows(f + at(lo, F), d + at(lo, F), part + at(lo / PIECE, F), hi - lo, F, act));
    fold(db, part, n, F);
}

/* ---- dropout --------------------------------------------------------------------------------------------------- */

/* splitmix64's finaliser: the key of one row of a mask. */
LANE uint64_t row_key(uint64_t key, uint64_t row)
{
    uint64_t z = key + (row + 1) * 0x9e3779b97f4a7c15ull;
    z          = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z          = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
/* 24 bits for each of columns col .. col+7: two rounds of multiply and xor-shift (constants of C. Wellons' lowbias32), the row's key put in twice. */
LANE v8i mask_bits(uint64_t key, uint32_t col)
{
    v8w h = (v8w){ 0, 1, 2, 3, 4, 5, 6, 7 } + col;
    h     = h * 0x9e3779b1u + (uint32_t)key;
    h     = (h ^ (h >> 16)) * 0x7feb352du;
    h ^= (uint32_t)(key >> 32);
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return (v8i)((h ^ (h >> 16)) >> 8);
}
LANE int32_t drop_below(float p) { return (int32_t)((double)p * 16777216.0); } /* bits under this: zero */

CLONES static void dropout_rows(float *y, const float *r, const float *x, int n, int C, ops_drop d, uint64_t row0)
{
    const float   up    = 1.0f / (1.0f - d.p);
    const int32_t below = drop_below(d.p);
    for (int i = 0; i < n; i++) {
        uint64_t     key = row_key(d.key, row0 + (uint64_t)i);
        const float *xi = x + at(i, C), *ri = r ? r + at(i, C) : NULL;
        float       *yi   = y + at(i, C);
        int          c    = 0;
        size_t       left = (size_t)C % 8;
        for (; c + 8 <= C; c += 8) {
            v8 v = v8_select(mask_bits(key, (uint32_t)c) < below, v8_set(0.0f), v8_load(xi + c) * up);
            v8_store(yi + c, ri ? v8_load(ri + c) + v : v);
        }
        if (left) {
            v8 v = v8_select(mask_bits(key, (uint32_t)c) < below, v8_set(0.0f), v8_load_part(xi + c, left, 0.0f) * up);
            v8_store_part(yi + c, ri ? v8_load_part(ri + c, left, 0.0f) + v : v, left);
        }
    }
}

void ops_dropout_add(float *y, const float *r, const float *x, int n, int C, ops_drop d, uint64_t row0)
{
    ROW_PIECES(n, at(n, C), lo, hi,
               dropout_rows(y + at(lo, C), r ? r + at(lo, C) : NULL, x + at(lo, C), hi - lo, C, d, row0 + (uint64_t)lo));
}
void ops_dropout(float *y, const float *x, int n, int C, ops_drop d, uint64_t row0) { ops_dropout_add(y, NULL, x, n, C, d, row0); }

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* A tile is at most TILE queries by all keys they see, rows padded to whole groups of eight lanes. */
static int tile_ld(int cols) { return (cols + 7) / 8 * 8; }
size_t ops_attention_scratch(int max_len) { return 2 * (size_t)TILE * (((size_t)max_len + 15) / 16 * 16); }

LANE v8i first_lanes(int n) { return (v8i){ 0, 1, 2, 3, 4, 5, 6, 7 } < n; }

/* Scores x (rows, ld); query r sees keys 0 .. i0 + r.  x becomes exp(x - max), dropped out, 0 for keys it does not see.
 * stat[r * step] = max, 1 / sum (the sum before dropout). */
CLONES static void tile_exp(float *x, int ld, int rows, int i0, float *stat, size_t step, ops_drop d, uint64_t row, uint64_t row_step)
{
    const int32_t below = drop_below(d.p);
    for (int r = 0; r < rows; r++, x += ld, stat += step, row += row_step) {
        const int n = i0 + r + 1, whole = n / 8 * 8;
        v8        m8 = v8_set(-INFINITY), sum = v8_set(0.0f);
        int       c;
        if (whole < n) v8_store(x + whole, v8_select(first_lanes(n - whole), v8_load(x + whole), m8));
        for (c = 0; c < n; c += 8) m8 = v8_max(m8, v8_load(x + c));
        const float m = v8_max_of(m8);
        if (below) {
            const uint64_t key = row_key(d.key, row);
            for (c = 0; c < n; c += 8) {
                v8 e = v8_exp(v8_load(x + c) - m);
                sum += e;
                v8_store(x + c, v8_select(mask_bits(key, (uint32_t)c) < below, v8_set(0.0f), e));
            }
        } else {
            for (c = 0; c < n; c += 8) {
                v8 e = v8_exp(v8_load(x + c) - m);
                sum += e;
                v8_store(x + c, e);
            }
        }
        for (; c < ld; c += 8) v8_store(x + c, v8_set(0.0f));
        stat[0] = m;
        stat[1] = 1.0f / v8_sum(sum);
    }
}

/* o (rows, hd), row stride C: each row times its 1 / sum and the dropout's 1 / (1 - p). */
CLONES static void tile_scale(float *o, int C, int rows, int hd, const float *stat, size_t step, float up)
{
    for (int r = 0; r < rows; r++, o += C, stat += step) {
        const float k = stat[1] * up;
#pragma omp simd
        for (int c = 0; c < hd; c++) o[c] *= k;
    }
}

/* x scores, y = dout v^T (rows, ld).  With p the probabilities and D = dout.out:  x becomes p dropped out (what multiplied v),
 * y becomes p (y dropped out - D), the gradient at the scores. */
CLONES static void tile_dx(float *x, float *y, int ld, int rows, int i0, const float *stat, size_t step, const float *dout, const float *out,
                           int C, int hd, ops_drop d, uint64_t row, uint64_t row_step)
{
    const int32_t below = drop_below(d.p);
    const float   up    = 1.0f / (1.0f - d.p);
    const v8      zero  = v8_set(0.0f);
    for (int r = 0; r < rows; r++, x += ld, y += ld, stat += step, row += row_step, dout += C, out += C) {
        const int n = i0 + r + 1, whole = n / 8 * 8;
        float     D = 0.0f;
        v8        d8 = zero;
        int       c = 0;
        for (; c + 8 <= hd; c += 8) d8 += v8_load(dout + c) * v8_load(out + c);
        for (; c < hd; c++) D += dout[c] * out[c];
        D += v8_sum(d8);
        if (whole < n) { /* exp(-inf) = 0 for the lanes behind the query */
            v8i in = first_lanes(n - whole);
            v8_store(x + whole, v8_select(in, v8_load(x + whole), v8_set(-INFINITY)));
            v8_store(y + whole, v8_select(in, v8_load(y + whole), zero));
        }
        const float    m = stat[0], inv = stat[1];
        const uint64_t key = below ? row_key(d.key, row) : 0;
        for (c = 0; c < n; c += 8) {
            v8 p = v8_exp(v8_load(x + c) - m) * inv, g = v8_load(y + c), q = p;
            if (below) {
                v8i gone = mask_bits(key, (uint32_t)c) < below;
                q        = v8_select(gone, zero, p * up);
                g        = v8_select(gone, zero, g * up);
            }
            v8_store(x + c, q);
            v8_store(y + c, p * (g - D));
        }
        for (; c < ld; c += 8) v8_store(x + c, zero), v8_store(y + c, zero);
    }
}

static void gemm(int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc)
{
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/* Row of the dropout mask for one query and head. */
static uint64_t mask_row(const ops_attn *a, int t, int h) { return (a->row0 + (uint64_t)t) * (uint64_t)a->n_head + (uint64_t)h; }

/* One head of one sequence of T rows starting at row t0.  Tiles of queries; keys behind the tile are never touched. */
static void head_forward(float *out, float *stat, const float *qkv, const ops_attn *a, int t0, int T, int h, float *x)
{
    const int    C = a->C, hd = C / a->n_head;
    const float *q = qkv + at(t0, 3 * C) + h * hd, *k = q + C, *v = k + C;
    for (int i = 0; i < T; i += TILE) {
        int    rows = least(TILE, T - i), cols = i + rows, ld = tile_ld(cols);
        float *o = out + at(t0 + i, C) + h * hd, *st = stat + 2 * (at(t0 + i, a->n_head) + (size_t)h);
        gemm(0, 1, rows, cols, hd, a->scale, q + at(i, 3 * C), 3 * C, k, 3 * C, 0.0f, x, ld);
        tile_exp(x, ld, rows, i, st, 2 * (size_t)a->n_head, a->drop, mask_row(a, t0 + i, h), (uint64_t)a->n_head);
        gemm(0, 0, rows, hd, cols, 1.0f, x, ld, v, 3 * C, 0.0f, o, C);
        tile_scale(o, C, rows, hd, st, 2 * (size_t)a->n_head, 1.0f / (1.0f - a->drop.p));
    }
}

static void head_backward(float *dqkv, const float *dout, const float *out, const float *stat, const float *qkv, const ops_attn *a, int t0,
                          int T, int h, float *x)
{
    const int    C = a->C, hd = C / a->n_head, S = 3 * C;
    const float *q = qkv + at(t0, S) + h * hd, *k = q + C, *v = k + C;
    float       *dq = dqkv + at(t0, S) + h * hd, *dk = dq + C, *dv = dk + C;
    /* From the last tile, which sees every key and so sets all of dk and dv, to the first; the others add. */
    for (int i = (T - 1) / TILE * TILE; i >= 0; i -= TILE) {
        int          rows = least(TILE, T - i), cols = i + rows, ld = tile_ld(cols);
        float       *y = x + (size_t)TILE * (size_t)ld, beta = cols == T ? 0.0f : 1.0f;
        const float *o = out + at(t0 + i, C) + h * hd, *g = dout + at(t0 + i, C) + h * hd, *st = stat + 2 * (at(t0 + i, a->n_head) + (size_t)h);
        gemm(0, 1, rows, cols, hd, a->scale, q + at(i, S), S, k, S, 0.0f, x, ld);
        gemm(0, 1, rows, cols, hd, 1.0f, g, C, v, S, 0.0f, y, ld);
        tile_dx(x, y, ld, rows, i, st, 2 * (size_t)a->n_head, g, o, C, hd, a->drop,
                mask_row(a, t0 + i, h), (uint64_t)a->n_head);
        gemm(1, 0, cols, hd, rows, 1.0f, x, ld, g, C, beta, dv, S);
        gemm(0, 0, rows, hd, cols, a->scale, y, ld, k, S, 0.0f, dq + at(i, S), S);
        gemm(1, 0, cols, hd, rows, a->scale, y, ld, q + at(i, S), S, beta, dk, S);
    }
}

/* Every (sequence, head) is a task of its own; inside the parallel region OpenBLAS runs on the calling thread. */
static void each_head(const ops_attn *a, float *dqkv, const float *dout, float *out, float *stat, const float *qkv)
{
    int max_len = 0, n = 0;
    for (int s = 0; s < a->n_seq; n += a->len[s++]) max_len = a->len[s] > max_len ? a->len[s] : max_len;
    size_t part = ops_attention_scratch(max_len);
#pragma omp parallel num_threads(a->threads) if (at(n, a->C) >= PARALLEL_MIN)
    {
        float *x = a->scratch + part * (size_t)omp_get_thread_num();
        int    t0 = 0;
        for (int s = 0; s < a->n_seq; t0 += a->len[s++]) {
#pragma omp for schedule(dynamic) nowait
            for (int h = 0; h < a->n_head; h++) {
                if (dqkv)
                    head_backward(dqkv, dout, out, stat, qkv, a, t0, a->len[s], h, x);
                else
                    head_forward(out, stat, qkv, a, t0, a->len[s], h, x);
            }
        }
    }
}
void ops_attention(float *out, float *stat, const float *qkv, const ops_attn *a) { each_head(a, NULL, NULL, out, stat, qkv); }
void ops_attention_dx(float *dqkv, const float *dout, const float *out, const float *stat, const float *qkv, const ops_attn *a)
{
    each_head(a, dqkv, dout, (float *)(uintptr_t)out, (float *)(uintptr_t)stat, qkv);
}

/* ---- embedding ------------------------------------------------------------------------------------------------- */

void ops_embed(float *x, const float *wte, const float *wpe, const int *id, const int *pos, int n, int C)
{
    ROW_PIECES(n, at(n, C), lo, hi, for (int r = lo; r < hi; r++) rows_bias(x + at(r, C), wte + at(id[r], C), wpe + at(pos[r], C), 1, C));
}

/* Tokens repeat, so the split is over columns: each thread owns some columns of every row. */
void ops_embed_dw(float *dwte, float *dwpe, const float *dx, const int *id, const int *pos, int n, int C)
{
#pragma omp parallel for schedule(static) if (at(n, C) >= PARALLEL_MIN)
    for (int c = 0; c < C; c += COLS) {
        size_t w = (size_t)least(COLS, C - c);
        for (int r = 0; r < n; r++) {
            const float *d = dx + at(r, C) + c;
            add_into(dwte + at(id[r], C) + c, d, w);
            add_into(dwpe + at(pos[r], C) + c, d, w);
        }
    }
}

/* ---- head and cross-entropy ------------------------------------------------------------------------------------ */

/* x (V,) logits become e = exp(x - max), except e[target] - sum; returns -log p[target] and sum. */
CLONES static double row_ce(float *x, int V, int target, float *sum)
{
    v8     m8 = v8_set(-INFINITY);
    v4d    s0 = { 0 }, s1 = { 0 };
    int    c = 0;
    size_t left = (size_t)V % 8;
    for (; c + 8 <= V; c += 8) m8 = v8_max(m8, v8_load(x + c));
    if (left) m8 = v8_max(m8, v8_load_part(x + c, left, -INFINITY));
    const float  m  = v8_max_of(m8);
    const double xt = (double)x[target];
    for (c = 0; c < V; c += 8) {
        v8 e = v8_exp((V - c >= 8 ? v8_load(x + c) : v8_load_part(x + c, left, -INFINITY)) - m);
        s0 += __builtin_convertvector(__builtin_shufflevector(e, e, 0, 1, 2, 3), v4d);
        s1 += __builtin_convertvector(__builtin_shufflevector(e, e, 4, 5, 6, 7), v4d);
        if (V - c >= 8)
            v8_store(x + c, e);
        else
            v8_store_part(x + c, e, left);
    }
    s0 += s1;
    const double s = (s0[0] + s0[2]) + (s0[1] + s0[3]);
    *sum = (float)s;
    x[target] -= *sum;
    return (double)m + log(s) - xt;
}

/* y = k x; y may be x. */
CLONES static void scale_row(float *y, const float *x, float k, int C)
{
#pragma omp simd
    for (int c = 0; c < C; c++) y[c] = x[c] * k;
}

/* The gradient at the logits is k_r (e - sum at the target), k_r = scale weight / sum: k_r goes to the C-wide rows of dx and of a copy of x, so that
 * the V-wide rows are passed over only twice. */
void ops_head(double *nll, float *dx, float *dw, const float *x, const float *w, const int *target, const float *weight, double scale, int n, int C,
              int V, float *logits, float *xs)
{
    enum { MOST = 512 };
    float     k[MOST];
    const int block = OPS_HEAD_ROWS(V);
    for (int b = 0; b < n; b += block) {
        const int rows = least(block, n - b);
        gemm(0, 1, rows, V, C, 1.0f, x + at(b, C), C, w, C, 0.0f, logits, V);
#pragma omp parallel for schedule(static) if (at(rows, V) >= PARALLEL_MIN)
        for (int r = 0; r < rows; r++) {
            float sum;
            nll[b + r] = row_ce(logits + at(r, V), V, target[b + r], &sum);
            k[r]       = (float)(scale * (double)weight[b + r] / (double)sum);
            if (dw) scale_row(xs + at(r, C), x + at(b + r, C), k[r], C);
        }
        if (!dw) continue;
        ops_linear_dx(dx + at(b, C), logits, w, rows, C, V);
        ops_linear_dw(dw, logits, xs, rows, C, V);
        for (int r = 0; r < rows; r++) scale_row(dx + at(b + r, C), dx + at(b + r, C), k[r], C);
    }
}

/* ---- the optimiser --------------------------------------------------------------------------------------------- */

CLONES static double sumsq_range(const float *x, size_t n)
{
    v4d    s0 = { 0 }, s1 = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        v8  v = v8_load(x + i);
        v4d a = __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3), v4d);
        v4d b = __builtin_convertvector(__builtin_shufflevector(v, v, 4, 5, 6, 7), v4d);
        s0 += a * a;
        s1 += b * b;
    }
    s0 += s1;
    double s = (s0[0] + s0[2]) + (s0[1] + s0[3]);
    for (; i < n; i++) s += (double)x[i] * (double)x[i];
    return s;
}
double ops_sumsq(const float *x, size_t n, double *part)
{
    const size_t step = 16384, pieces = OPS_SQ_PART(n);
    double       s    = 0.0;
#pragma omp parallel for schedule(static) if (pieces > 1)
    for (size_t i = 0; i < pieces; i++) part[i] = sumsq_range(x + i * step, n - i * step < step ? n - i * step : step);
    for (size_t i = 0; i < pieces; i++) s += part[i];
    return s;
}

CLONES static void adamw_range(float *restrict p, float *restrict g, float *restrict m, float *restrict v, size_t n, const ops_adam *a)
{
    const float b1 = (float)a->beta1, b2 = (float)a->beta2, r1 = (float)(1.0 - a->beta1), r2 = (float)(1.0 - a->beta2), coef = (float)a->coef;
    const float keep = (float)(1.0 - a->lr * a->decay), rate = (float)(a->lr / a->c1), root = (float)(1.0 / sqrt(a->c2)), eps = (float)a->eps;
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] * coef, mi = b1 * m[i] + r1 * gi, vi = b2 * v[i] + r2 * (gi * gi);
        m[i] = mi;
        v[i] = vi;
        p[i] = p[i] * keep - rate * (mi / (sqrtf(vi) * root + eps));
        g[i] = 0.0f;
    }
}
void ops_adamw(float *p, float *g, float *m, float *v, size_t n, const ops_adam *a)
{
    const size_t step = 16384;
#pragma omp parallel for schedule(static) if (n >= PARALLEL_MIN)
    for (size_t i = 0; i < n; i += step) adamw_range(p + i, g + i, m + i, v + i, n - i < step ? n - i : step, a);
}
