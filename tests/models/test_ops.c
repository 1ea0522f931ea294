/* ops, shared section: accuracy against libm in double, and the contract: the same bits on the AVX2 path and on the baseline path, at any place in a
 * buffer, in any number of rows, and for any number of threads. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "models/base.h"
#include "models/ops.h"

/* The same source once more, without run-time dispatch: the baseline path. */
#define CLONES
#define ops_act_of_name plain_act_of_name
#define ops_act_name    plain_act_name
#define ops_layernorm   plain_layernorm
#define ops_act         plain_act
#define ops_add         plain_add
#define ops_exp         plain_exp
#define ops_softmax     plain_softmax
#define ops_tops        plain_tops
#define ops_lse_end     plain_lse_end
#define ops_lse_add     plain_lse_add
#define ops_scale       plain_scale
#define ops_exp_row     plain_exp_row
#define ops_logsumexp   plain_logsumexp
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#include "models/ops.c"
#undef ops_act_of_name
#undef ops_act_name
#undef ops_layernorm
#undef ops_act
#undef ops_add
#undef ops_exp
#undef ops_softmax
#undef ops_tops
#undef ops_lse_end
#undef ops_lse_add
#undef ops_scale
#undef ops_exp_row
#undef ops_logsumexp

static float *noise(size_t n, double scale, uint64_t stream)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(scale * rng_normal(7, stream, i));
    return x;
}

static double act_exact(int act, double x)
{
    switch (act) {
    case ACT_GELU_NEW: return 0.5 * x * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2.0));
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_SILU: return x / (1.0 + exp(-x));
    case ACT_TANH: return tanh(x);
    default: return x / (1.0 + exp(-1.702 * x));
    }
}

static void test_act(void **s)
{
    (void)s;
    enum { N = 40001 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    for (int i = 0; i < N; i++) x[i] = (float)(i - 20000) / 1000.0f; /* -20 .. 20 */
    for (int act = ACT_GELU_NEW; act <= ACT_QUICK_GELU; act++) {
        ops_act(y, x, N, act);
        /* one rounding of x in the argument and a few of the result: 4e-7 of max(1, |y|) */
        for (int i = 0; i < N; i++) {
            double want = act_exact(act, (double)x[i]);
            if (!(fabs((double)y[i] - want) <= 4e-7 * fmax(1.0, fabs(want))))
                fail_msg("%s(%g) = %.9g, not %.9g", ops_act_name(act), (double)x[i], (double)y[i], want);
        }
        assert_int_equal(ops_act_of_name(ops_act_name(act)), act);
        float odd[] = { INFINITY, NAN, 1e30f, -1e30f, 0.0f };
        ops_act(odd, odd, 5, act);
        assert_true(odd[0] == (act == ACT_TANH ? 1.0f : INFINITY));
        assert_true(isnan(odd[1]));
        assert_true(odd[2] == (act == ACT_TANH ? 1.0f : 1e30f));
        assert_true(odd[3] == (act == ACT_TANH ? -1.0f : 0.0f));
        assert_true(odd[4] == 0.0f);
    }
    assert_int_equal(ops_act_of_name("gelu_pytorch_tanh"), ACT_GELU_NEW);
    assert_int_equal(ops_act_of_name("swish"), ACT_SILU);
    assert_int_equal(ops_act_of_name("gelu_"), -1);
    assert_int_equal(ops_act_of_name(NULL), -1);
    assert_null(ops_act_name(6));
    free(x), free(y);
}

static void test_exp(void **s)
{
    (void)s;
    double worst = 0;
    for (int i = -870000; i <= 885000; i += 7) {
        float  x = (float)i / 1e4f;
        double want = exp((double)x), got = (double)ops_exp(x);
        worst = fmax(worst, fabs(got / want - 1.0));
    }
    assert_true(worst < 2 * 1.1920929e-7); /* two units in the last place at most */
    assert_true(ops_exp(-104.1f) == 0.0f && ops_exp(-INFINITY) == 0.0f);
    assert_true(ops_exp(-100.0f) > 0.0f); /* a denormal */
    assert_true(isinf(ops_exp(88.8f)) && isinf(ops_exp(INFINITY)));
    assert_true(isnan(ops_exp(NAN)));
    assert_true(ops_exp(0.0f) == 1.0f);
}

static void test_softmax(void **s)
{
    (void)s;
    for (int n = 1; n < 70; n++) {
        float *x = noise((size_t)n, 3.0, (uint64_t)n), *y = malloc((size_t)n * sizeof *y);
        memcpy(y, x, (size_t)n * sizeof *y);
        ops_softmax(y, n);
        double sum = 0, top = -INFINITY, lse = 0;
        for (int i = 0; i < n; i++) top = fmax(top, (double)x[i]);
        for (int i = 0; i < n; i++) lse += exp((double)x[i] - top);
        lse = top + log(lse);
        for (int i = 0; i < n; i++) {
            assert_true(fabs((double)y[i] - exp((double)x[i] - lse)) < 3e-7);
            sum += (double)y[i];
        }
        assert_true(fabs(sum - 1.0) < 1e-6);
        assert_true(fabs(ops_logsumexp(x, n) - lse) < 2e-7 * fmax(1.0, fabs(lse)));
        free(x), free(y);
    }
    float gone[3] = { -INFINITY, -INFINITY, -INFINITY }, bad[3] = { 0, NAN, 1 }, one[2] = { -INFINITY, 5 };
    assert_true(ops_logsumexp(gone, 3) == -(double)INFINITY);
    assert_true(ops_logsumexp(gone, 0) == -(double)INFINITY);
    assert_true(isnan(ops_logsumexp(bad, 3)));
    assert_true(ops_logsumexp(one, 2) == 5.0);
    float big[2] = { INFINITY, 0 };
    assert_true(ops_logsumexp(big, 2) == (double)INFINITY);
    ops_softmax(gone, 3);
    assert_true(gone[0] == 0.0f && gone[1] == 0.0f && gone[2] == 0.0f);
    ops_softmax(bad, 3);
    assert_true(isnan(bad[0]));
    ops_softmax(one, 2);
    assert_true(one[0] == 0.0f && one[1] == 1.0f);
    ops_softmax(one, 0);
}

/* A row in pieces of whole chunks gives the bits of the row in one. */
static void test_pieces(void **s)
{
    (void)s;
    enum { N = 9 * OPS_LSE_CHUNK + 77 };
    float *x = noise(N, 6.0, 23);
    x[3 * OPS_LSE_CHUNK + 5] = 40.0f; /* the maximum comes late */
    for (int i = 0; i < OPS_LSE_CHUNK; i++) x[6 * OPS_LSE_CHUNK + i] = -INFINITY;
    double whole = ops_logsumexp(x, N), exact = 0;
    for (int i = 0; i < N; i++) exact += exp((double)x[i] - 40.0);
    assert_true(fabs(whole - (40.0 + log(exact))) < 2e-7 * 40);
    for (int step = OPS_LSE_CHUNK; step <= 10 * OPS_LSE_CHUNK; step += OPS_LSE_CHUNK) {
        ops_lse l = OPS_LSE_NONE;
        for (int i = 0; i < N; i += step) ops_lse_add(&l, x + i, N - i < step ? N - i : step);
        double d = ops_lse_end(&l);
        assert_memory_equal(&d, &whole, sizeof d);
    }
    x[N - 1] = NAN;
    assert_true(isnan(ops_logsumexp(x, N)));
    for (int i = 0; i < OPS_LSE_CHUNK; i++) x[i] = -INFINITY; /* chunks of nothing come first */
    x[1] = NAN;
    assert_true(isnan(ops_logsumexp(x, 2 * OPS_LSE_CHUNK)));
    x[1] = -INFINITY;
    assert_true(isfinite(ops_logsumexp(x, 2 * OPS_LSE_CHUNK)));
    x[2 * OPS_LSE_CHUNK] = INFINITY;
    assert_true(isinf(ops_logsumexp(x, N - 1)));
    free(x);
}

static void test_layernorm(void **s)
{
    (void)s;
    static const int sizes[] = { 1, 7, 8, 9, 15, 16, 17, 24, 31, 42, 256, 1000 };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int    C = sizes[k], n = 3;
        float *x = noise((size_t)(n * C), 2.0, 1), *w = noise((size_t)C, 1.0, 2), *b = noise((size_t)C, 1.0, 3), *y = malloc((size_t)(n * C) * sizeof *y);
        float  mean[3], rstd[3];
        for (int i = 0; i < C; i++) x[C + i] += 100.0f; /* a large mean must not drown the variance */
        ops_layernorm(y, mean, rstd, x, w, b, n, C, 1e-5f);
        for (int r = 0; r < n; r++) {
            double m = 0, v = 0;
            for (int i = 0; i < C; i++) m += (double)x[r * C + i];
            m /= C;
            for (int i = 0; i < C; i++) v += ((double)x[r * C + i] - m) * ((double)x[r * C + i] - m);
            double rs = 1 / sqrt(v / C + 1e-5);
            assert_true(fabs((double)mean[r] - m) < 2e-5);
            /* the mean near 100 is rounded to 7.6e-6, which rstd multiplies */
            for (int i = 0; i < C && C > 1; i++) {
                double want = ((double)x[r * C + i] - m) * rs * (double)w[i] + (double)b[i];
                assert_true(fabs((double)y[r * C + i] - want) < 3e-5 * (1 + rs) * (1 + fabs((double)w[i])));
            }
        }
        free(x), free(w), free(b), free(y);
    }
}

static void test_tops(void **s)
{
    (void)s;
    enum { N = 333 };
    for (int n = 0; n <= N; n = n < 70 ? n + 1 : n + 29) {
        float *x = noise((size_t)N, 3.0, 17), top[(N + OPS_TOP_BLOCK - 1) / OPS_TOP_BLOCK], other[sizeof top / sizeof *top];
        int    alive = 0;
        for (int i = 0; i < n; i += 5) x[i] = i % 3 ? NAN : -INFINITY;
        for (int i = 2 * OPS_TOP_BLOCK; i < 3 * OPS_TOP_BLOCK; i++) x[i] = i % 2 ? NAN : -INFINITY; /* a block of nothing */
        if (n > 200) x[200] = INFINITY;
        for (int i = 0; i < n; i++) alive += x[i] > -INFINITY;
        assert_int_equal(ops_tops(top, x, n), alive);
        assert_int_equal(plain_tops(other, x, n), alive);
        for (int b = 0; b * OPS_TOP_BLOCK < n; b++) {
            float m = -INFINITY;
            for (int i = b * OPS_TOP_BLOCK; i < n && i < (b + 1) * OPS_TOP_BLOCK; i++) m = x[i] > m ? x[i] : m;
            assert_true(top[b] == m && other[b] == m);
        }
        free(x);
    }
}

/* ---- the contract ---- */

#define SAME(a, b, n) assert_memory_equal(a, b, (n) * sizeof(float))

static void test_paths(void **s)
{
    (void)s;
    for (int n = 1; n <= 300; n = n < 40 ? n + 1 : n + 37) {
        size_t N = (size_t)n;
        float *x = noise(N, 4.0, 11), *w = noise(N, 1.0, 12), *a = malloc(N * 4), *b = malloc(N * 4);
        for (int act = 0; act <= ACT_QUICK_GELU; act++) {
            ops_act(a, x, N, act);
            plain_act(b, x, N, act);
            SAME(a, b, N);
        }
        ops_layernorm(a, NULL, NULL, x, w, w, 1, n, 1e-5f);
        plain_layernorm(b, NULL, NULL, x, w, w, 1, n, 1e-5f);
        SAME(a, b, N);
        memcpy(a, x, N * 4), memcpy(b, x, N * 4);
        ops_softmax(a, n), plain_softmax(b, n);
        SAME(a, b, N);
        ops_add(a, x, N), plain_add(b, x, N);
        SAME(a, b, N);
        ops_scale(a, 0.3f, n), plain_scale(b, 0.3f, n);
        SAME(a, b, N);
        double p = ops_logsumexp(x, n), q = plain_logsumexp(x, n);
        assert_memory_equal(&p, &q, sizeof p);
        float f = ops_exp(x[0]), g = plain_exp(x[0]);
        SAME(&f, &g, 1);
        free(x), free(w), free(a), free(b);
    }
}

/* An element, or a row, gives the same bits wherever it sits and whatever is around it. */
static void test_place(void **s)
{
    (void)s;
    enum { N = 131 };
    float *x = noise(N + 8, 3.0, 21), a[N], b[N];
    for (int act = 0; act <= ACT_QUICK_GELU; act++) {
        ops_act(a, x, N, act);
        for (int i = 0; i < N; i++) {
            ops_act(b, x + i, 1, act);
            SAME(&a[i], b, 1);
        }
    }
    static const int sizes[] = { 5, 16, 23, 64, 131 };
    for (int k = 0; k < 5; k++) {
        int   n = sizes[k];
        float shifted[N + 8];
        for (int off = 0; off < 8; off++) {
            memcpy(shifted + off, x, (size_t)n * 4);
            ops_softmax(shifted + off, n);
            memcpy(a, x, (size_t)n * 4);
            ops_softmax(a, n);
            SAME(a, shifted + off, (size_t)n);
        }
    }
    free(x);
}

static void test_threads(void **s)
{
    (void)s;
    int    n = 300, C = 200, was = omp_get_max_threads();
    size_t N = (size_t)n * (size_t)C;
    float *x = noise(N, 3.0, 31), *w = noise((size_t)C, 1.0, 32), *a = malloc(N * 4), *b = malloc(N * 4), *m1 = malloc(1200), *m2 = malloc(1200);
    for (int threads = 1; threads <= 4; threads++) {
        omp_set_num_threads(threads);
        float *y = threads == 1 ? a : b, *m = threads == 1 ? m1 : m2;
        ops_layernorm(y, m, NULL, x, w, w, n, C, 1e-5f);
        ops_act(y, y, N, ACT_GELU_NEW);
        ops_add(y, x, N);
        if (threads > 1) {
            SAME(a, b, N);
            SAME(m1, m2, (size_t)n);
        }
    }
    omp_set_num_threads(was);
    for (int r = 0; r < n; r += 37) { /* a row alone */
        ops_layernorm(b, NULL, NULL, x + r * C, w, w, 1, C, 1e-5f);
        ops_act(b, b, (size_t)C, ACT_GELU_NEW);
        ops_add(b, x + r * C, (size_t)C);
        SAME(a + r * C, b, (size_t)C);
    }
    free(x), free(w), free(a), free(b), free(m1), free(m2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_act), cmocka_unit_test(test_exp), cmocka_unit_test(test_softmax), cmocka_unit_test(test_tops), cmocka_unit_test(test_pieces), cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_paths), cmocka_unit_test(test_place), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("ops", tests, NULL, NULL);
}
