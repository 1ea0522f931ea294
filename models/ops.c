/* ops: see ops.h.  The part that inference and training share.  Every result is a pure function of its row: sixteen partial sums in fixed lanes,
 * no libm, no contraction, so that AVX2 and SSE2 give the same bits, and so does any split over threads. */
#include "models/ops.h"

#include <math.h>

#include "models/lanes.h"

/* Below this many elements a pass is not worth waking the other threads for. */
enum { PARALLEL_MIN = 1 << 15, CHUNK = 4096 };

static const struct {
    const char *name;
    int         act;
} act_names[] = {
    { "gelu_new", ACT_GELU_NEW }, { "gelu", ACT_GELU }, { "relu", ACT_RELU }, { "silu", ACT_SILU }, { "tanh", ACT_TANH },
    { "quick_gelu", ACT_QUICK_GELU }, /* the names written come first, in the order of the enum; other spellings follow */
    { "gelu_pytorch_tanh", ACT_GELU_NEW }, { "gelu_fast", ACT_GELU_NEW }, { "swish", ACT_SILU },
};

int ops_act_of_name(const char *name)
{
    for (size_t i = 0; name && i < sizeof act_names / sizeof *act_names; i++)
        if (strcmp(name, act_names[i].name) == 0) return act_names[i].act;
    return -1;
}
const char *ops_act_name(int act) { return act >= ACT_GELU_NEW && act <= ACT_QUICK_GELU ? act_names[act].name : NULL; }

/* ---- layernorm ------------------------------------------------------------------------------------------------- */

CLONES static void layernorm_rows(float *out, float *mean, float *rstd, const float *x, const float *w, const float *b, int n, int C, float eps)
{
    for (int r = 0; r < n; r++) {
        const float *xr = x + (size_t)r * (size_t)C;
        float       *or = out + (size_t)r * (size_t)C, sum, var;
        LANE_SUM(sum, xr, C, 0.0f, e, e);
        float m = sum / (float)C;
        LANE_SUM(var, xr, C, m, e, (e - m) * (e - m));
        float s = 1.0f / sqrtf(var / (float)C + eps);
        int   c = 0;
        for (; c + 8 <= C; c += 8) v8_store(or + c, (v8_load(xr + c) - m) * s * v8_load(w + c) + v8_load(b + c));
        for (; c < C; c++) or[c] = (xr[c] - m) * s * w[c] + b[c];
        if (mean) mean[r] = m;
        if (rstd) rstd[r] = s;
    }
}

void ops_layernorm(float *out, float *mean, float *rstd, const float *x, const float *w, const float *b, int n, int C, float eps)
{
    const int step = 16; /* rows */
    if ((size_t)n * (size_t)C < PARALLEL_MIN) {
        layernorm_rows(out, mean, rstd, x, w, b, n, C, eps);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int r = 0; r < n; r += step) {
        size_t at = (size_t)r * (size_t)C;
        layernorm_rows(out + at, mean ? mean + r : NULL, rstd ? rstd + r : NULL, x + at, w, b, n - r < step ? n - r : step, C, eps);
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* gelu_new: x/2 (1 + tanh u) is x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3), which loses nothing by cancellation. */
LANE v8 act_gelu_new(v8 x) { return x * v8_sigmoid(1.59576912f * (x + 0.044715f * (x * x * x))); }
LANE v8 act_gelu(v8 x) { return x * v8_phi(x); }
LANE v8 act_relu(v8 x) { return v8_select(x < 0.0f, v8_set(0.0f), x); }
LANE v8 act_silu(v8 x) { return x * v8_sigmoid(x); }
LANE v8 act_quick_gelu(v8 x) { return x * v8_sigmoid(1.702f * x); }

#define EACH(F)                                                                                         \
    do {                                                                                                \
        size_t i = 0;                                                                                   \
        for (; i + 8 <= n; i += 8) v8_store(out + i, F(v8_load(x + i)));                                \
        if (i < n) v8_store_part(out + i, F(v8_load_part(x + i, n - i, 0.0f)), n - i);                  \
    } while (0)

CLONES static void act_range(float *out, const float *x, size_t n, int act)
{
    switch (act) {
    case ACT_GELU_NEW: EACH(act_gelu_new); break;
    case ACT_GELU: EACH(act_gelu); break;
    case ACT_RELU: EACH(act_relu); break;
    case ACT_SILU: EACH(act_silu); break;
    case ACT_TANH: EACH(v8_tanh); break;
    case ACT_QUICK_GELU: EACH(act_quick_gelu); break;
    }
}

void ops_act(float *out, const float *x, size_t n, int act)
{
    if (n < PARALLEL_MIN) {
        act_range(out, x, n, act);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK) act_range(out + i, x + i, n - i < CHUNK ? n - i : CHUNK, act);
}

CLONES static void add_range(float *x, const float *y, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) v8_store(x + i, v8_load(x + i) + v8_load(y + i));
    for (; i < n; i++) x[i] += y[i];
}

void ops_add(float *x, const float *y, size_t n)
{
    if (n < PARALLEL_MIN) {
        add_range(x, y, n);
        return;
    }
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += CHUNK) add_range(x + i, y + i, n - i < CHUNK ? n - i : CHUNK);
}

/* ---- exp, softmax, log of a sum -------------------------------------------------------------------------------- */

CLONES float ops_exp(float x) { return v8_exp(v8_set(x))[0]; }

/* Largest of n floats, NaN skipped; -inf when there is none. */
LANE float row_max(const float *x, size_t n)
{
    v8     m = v8_set(-INFINITY);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) m = v8_max(m, v8_load(x + i));
    if (i < n) m = v8_max(m, v8_load_part(x + i, n - i, -INFINITY));
    return v8_max_of(m);
}

CLONES int ops_tops(float *top, const float *x, int n)
{
    v8i none = { 0 };
    int dead = 0;
    for (int i = 0; i < n; i += OPS_TOP_BLOCK, top++) {
        v8 m = v8_set(-INFINITY), lowest = m;
        if (n - i >= OPS_TOP_BLOCK) {
            for (int j = 0; j < OPS_TOP_BLOCK; j += 8) {
                v8 a = v8_load(x + i + j);
                m    = v8_max(m, a);
                none += ~(a > lowest); /* -1 for each that is NaN or -inf */
            }
            *top = v8_max_of(m);
        } else {
            *top = row_max(x + i, (size_t)(n - i));
            for (int j = i; j < n; j++) dead += !(x[j] > -INFINITY);
        }
    }
    for (int j = 0; j < 8; j++) dead -= none[j];
    return n - dead;
}

CLONES float ops_exp_row(float *x, int n)
{
    size_t len = n > 0 ? (size_t)n : 0, i = 0;
    float  m = row_max(x, len), sum;
    v8     s0 = v8_set(0.0f), s1 = s0, e;
    if (m == -INFINITY) m = 0.0f; /* exp(-inf - 0) is 0; a NaN stays one */
    for (; i + 16 <= len; i += 16) {
        e = v8_exp_down(v8_load(x + i) - m), s0 += e;
        v8_store(x + i, e);
        e = v8_exp_down(v8_load(x + i + 8) - m), s1 += e;
        v8_store(x + i + 8, e);
    }
    for (; i < len; i += 8) {
        size_t part = len - i < 8 ? len - i : 8;
        e = v8_exp_down(v8_load_part(x + i, part, -INFINITY) - m);
        if (i % 16) s1 += e;
        else s0 += e;
        v8_store_part(x + i, e, part);
    }
    sum = v8_sum(s0 + s1);
    return sum == 0.0f ? 0.0f : 1.0f / sum;
}

CLONES void ops_scale(float *x, float by, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) v8_store(x + i, v8_load(x + i) * by);
    for (; i < n; i++) x[i] *= by;
}

void ops_softmax(float *x, int n) { ops_scale(x, ops_exp_row(x, n), n); }

/* Natural logarithm of a positive normal double, error below 1e-15 relative; the same bits everywhere, which libm does not promise.
 * x = 2^k m with m in [1/sqrt 2, sqrt 2); log m = 2 atanh s, s = (m - 1) / (m + 1), by its series. */
static double log_fixed(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    int k = (int)(u >> 52) - 1023;
    u     = (u & 0xfffffffffffffull) | (1023ull << 52);
    double m;
    memcpy(&m, &u, 8);
    if (m > 1.4142135623730951) m *= 0.5, k++;
    double s = (m - 1.0) / (m + 1.0), q = s * s, p = 0.0;
    for (int d = 25; d >= 3; d -= 2) p = (p + 1.0 / d) * q;
    return (double)k * 0.69314718055994531 + 2.0 * (s + s * p);
}

/* The largest of n <= OPS_LSE_CHUNK floats and the sum of exp(x - largest), in sixteen partial sums. */
CLONES static float chunk_of(const float *x, size_t n, float *sum)
{
    float m = row_max(x, n), shift = m == -INFINITY ? 0.0f : m;
    LANE_SUM(*sum, x, n, -INFINITY, e, v8_exp_down(e - shift));
    return m;
}

void ops_lse_add(ops_lse *s, const float *x, int n)
{
    for (int i = 0; i < n; i += OPS_LSE_CHUNK) {
        float sum, m = chunk_of(x + i, (size_t)(n - i < OPS_LSE_CHUNK ? n - i : OPS_LSE_CHUNK), &sum);
        if (m > s->max) {
            s->sum = s->sum * (double)ops_exp(s->max - m) + (double)sum;
            s->max = m;
        } else {
            s->sum += (double)sum * (m == -INFINITY ? 1.0 : (double)ops_exp(m - s->max));
        }
    }
}

double ops_lse_end(const ops_lse *s)
{
    if (s->max == INFINITY) return (double)INFINITY;
    if (s->sum == 0.0) return -(double)INFINITY;
    return s->sum == s->sum ? (s->max == -INFINITY ? 0.0 : (double)s->max) + log_fixed(s->sum) : s->sum;
}

double ops_logsumexp(const float *x, int n)
{
    ops_lse s = OPS_LSE_NONE;
    ops_lse_add(&s, x, n);
    return ops_lse_end(&s);
}
