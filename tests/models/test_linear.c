/* linear: every path, tile size and thread count gives the bits of one chain of fmaf per output. */
#include "models/gpt2.h"
#include "models/linear.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int  paths[] = { LINEAR_C, LINEAR_AVX2, LINEAR_AVX512 };
static const char *const names[] = { "c", "avx2", "avx512" };

static float *noise(size_t n, uint64_t stream, float scale)
{
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (float)rng_normal(7, stream, i) * scale;
    return x;
}

/* What linear.h promises, straight from its words. */
static void reference(float *y, const float *x, const float *w, const float *b, int n, int rows, int cols)
{
    for (int r = 0; r < n; r++)
        for (int o = 0; o < rows; o++) {
            float acc = b ? b[o] : 0;
            for (int k = 0; k < cols; k++) acc = fmaf(x[(size_t)r * cols + k], w[(size_t)o * cols + k], acc);
            y[(size_t)r * rows + o] = acc;
        }
}

/* A matrix of a type and its values after that type's rounding. */
static void encode(int type, float *w, int rows, int cols, unsigned char **bytes)
{
    size_t row = gguf_row_bytes(type, (uint64_t)cols);
    *bytes     = malloc(row * rows);
    assert_non_null(*bytes);
    for (int r = 0; r < rows; r++) {
        gpt2_row_encode(type, w + (size_t)r * cols, *bytes + r * row, (size_t)cols);
        gpt2_row_decode(type, *bytes + r * row, w + (size_t)r * cols, (size_t)cols);
    }
}

static void same_bits(const float *a, const float *b, size_t n, const char *what, int rows)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4)) fail_msg("%s, %d rows: value %zu is %a, %a wanted", what, rows, i, (double)a[i], (double)b[i]);
}

static void one_shape(int type, int rows, int cols, int with_bias)
{
    enum { MOST = 37 }; /* rows of x: more than two tiles of every path, and odd */
    static const int counts[] = { 1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 14, 15, 16, 29, MOST };
    err            e;
    linear         w;
    unsigned char *bytes;
    float *values = noise((size_t)rows * cols, 1, 0.3f), *b = noise((size_t)rows, 2, 1), *x = noise((size_t)MOST * cols, 3, 1);
    float *want = malloc(sizeof(float) * MOST * rows), *got = malloc(sizeof(float) * (MOST * (size_t)rows + 1));
    float *scratch = malloc(sizeof(float) * MOST * cols);
    encode(type, values, rows, cols, &bytes);
    assert_int_equal(linear_pack(&w, rows, cols, type, bytes, with_bias ? b : NULL, &e), OK);
    reference(want, x, values, with_bias ? b : NULL, MOST, rows, cols);
    for (size_t p = 0; p < 3; p++) {
        if (linear_force_path(paths[p])) continue;
        assert_string_equal(linear_path_name(), names[p]);
        for (int threads = 1; threads <= 4; threads *= 2) {
            omp_set_num_threads(threads);
            for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
                size_t n = (size_t)counts[i] * rows;
                memset(got, 0xff, (n + 1) * sizeof *got);
                uint32_t after = 0;
                linear_apply(got, x, counts[i], &w, scratch);
                same_bits(got, want, n, names[p], counts[i]);
                memcpy(&after, got + n, 4);
                assert_int_equal(after, 0xffffffff); /* nothing written behind the result */
            }
        }
    }
    float *row = malloc(sizeof(float) * cols);
    for (int r = 0; r < rows; r++) {
        linear_row(&w, r, row);
        same_bits(row, values + (size_t)r * cols, (size_t)cols, "linear_row", r);
    }
    linear_free(&w);
    free(row), free(bytes), free(values), free(b), free(x), free(want), free(got), free(scratch);
    assert_int_equal(linear_force_path(LINEAR_BEST), OK);
    omp_set_num_threads(omp_get_num_procs());
}

static void all_paths_agree(void **s)
{
    (void)s;
    one_shape(GT_F32, 1, 1, 1);
    one_shape(GT_F32, 5, 3, 0);
    one_shape(GT_F32, 16, 7, 1);
    one_shape(GT_F32, 131, 42, 1);
    one_shape(GT_F32, 200, 64, 0);
    one_shape(GT_F16, 131, 42, 1);
    one_shape(GT_BF16, 77, 33, 1);
    one_shape(GT_Q8_0, 40, 64, 1);
    one_shape(GT_Q4_0, 40, 96, 0);
}

/* Large enough for threads, several blocks of rows, and a grid with more than one row (few panels, many threads). */
static void threads_agree(void **s)
{
    (void)s;
    static const struct { int n, rows, cols; } shapes[] = { { 300, 40, 513 }, { 70, 600, 96 }, { 1, 4000, 96 } };
    for (size_t i = 0; i < 3; i++) {
        int    n = shapes[i].n, rows = shapes[i].rows, cols = shapes[i].cols;
        err    e;
        linear w;
        float *values = noise((size_t)rows * cols, 4, 0.3f), *x = noise((size_t)n * cols, 5, 1), *scratch = malloc(sizeof(float) * n * cols);
        float *want = malloc(sizeof(float) * n * rows), *got = malloc(sizeof(float) * n * rows);
        assert_int_equal(linear_pack(&w, rows, cols, GT_F32, values, NULL, &e), OK);
        reference(want, x, values, NULL, n, rows, cols);
        for (int threads = 1; threads <= 7; threads += 3) {
            omp_set_num_threads(threads);
            linear_apply(got, x, n, &w, scratch);
            same_bits(got, want, (size_t)n * rows, "threads", threads);
        }
        omp_set_num_threads(omp_get_num_procs());
        linear_free(&w);
        free(values), free(x), free(scratch), free(want), free(got);
    }
}

/* Strided chains with a start value, as attention uses them: k-step wider than a panel, continued in two pieces. */
static void chains_continue(void **s)
{
    (void)s;
    enum { M = 4, K = 21, OUT = 40, STEP = 48 };
    float *x = noise(M * K, 6, 1), *w = noise(K * STEP, 8, 1), whole[M * STEP], parts[M * STEP], want;
    for (size_t p = 0; p < 3; p++) {
        if (linear_force_path(paths[p])) continue;
        for (int m = 1; m <= M; m++) {
            memset(parts, 0, sizeof parts);
            linear_job j = { .x = x, .m = m, .k = K, .n_out = OUT, .w = w, .k_step = STEP, .panel_step = 16, .y = whole, .y_step = STEP };
            linear_chains(&j);
            j.y = parts, j.init = parts, j.init_step = STEP, j.k = 9;
            linear_chains(&j);
            j.x = x + 9 * m, j.w = w + 9 * STEP, j.k = K - 9;
            linear_chains(&j);
            for (int r = 0; r < m; r++)
                for (int o = 0; o < OUT; o++) {
                    want = 0;
                    for (int i = 0; i < K; i++) want = fmaf(x[i * m + r], w[i * STEP + o], want);
                    same_bits(&whole[r * STEP + o], &want, 1, names[p], m);
                    same_bits(&parts[r * STEP + o], &want, 1, names[p], m);
                }
        }
    }
    assert_int_equal(linear_force_path(LINEAR_BEST), OK);
    free(x), free(w);
}

static void refuses(void **s)
{
    (void)s;
    err    e;
    linear w;
    float  v[20 * 3] = { 0 };
    v[17 * 3 + 2]    = NAN;
    v[18 * 3]        = INFINITY;
    assert_int_equal(linear_pack(&w, 20, 3, GT_F32, v, NULL, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "row 17"));
    assert_null(w.panel);
    uint16_t h[16] = { [9] = 0x7c00 }; /* infinity in binary16 */
    assert_int_equal(linear_pack(&w, 2, 8, GT_F16, h, NULL, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "row 1"));
    assert_int_equal(linear_pack(&w, 2, 33, GT_Q8_0, v, NULL, &e), E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_paths_agree),
        cmocka_unit_test(threads_agree),
        cmocka_unit_test(chains_continue),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
