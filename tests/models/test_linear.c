/* linear: every path, tile size and thread count gives the bits that linear.h promises: one chain of fmaf per output for f32, f16 and bf16, exact block
 * sums for q8_0 and q4_0.  Also built for other processors alone (make check-arm), so it uses nothing but models/. */
#include "models/gpt2.h"
#include "models/linear.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[LINEAR_PATHS] = { "c", "avx2", "avx-vnni", "avx512", "avx512-vnni", "neon" };

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

static int in_blocks(int type) { return type == GT_Q8_0 || type == GT_Q4_0; }

/* The same for matrices in blocks, from their bytes in the file, and the distance from exact arithmetic that is allowed. */
static void block_reference(float *y, double *exact, double *bound, const float *x, const unsigned char *w, int type, const float *b, int n, int rows,
                            int cols)
{
    size_t size = gguf_row_bytes(type, 32);
    for (int r = 0; r < n; r++)
        for (int o = 0; o < rows; o++) {
            float  acc = b ? b[o] : 0;
            double sum = acc, round_x = 0, steps = fabs((double)acc);
            for (int k = 0; k < cols / 32; k++) {
                const unsigned char *block = w + ((size_t)o * (cols / 32) + k) * size;
                const float         *xb = x + (size_t)r * cols + 32 * k;
                float                most = 0, d, s, codes[32], near = 0;
                int                  total = 0, bad = 0;
                gpt2_row_decode(GT_F16, block, &d, 1);
                for (int i = 0; i < 32; i++) {
                    codes[i] = type == GT_Q8_0 ? (signed char)block[2 + i] : (i < 16 ? block[2 + i] & 15 : block[2 + i - 16] >> 4) - 8;
                    bad |= !(fabsf(xb[i]) < 0x1p80f);
                    most = fabsf(xb[i]) > most ? fabsf(xb[i]) : most;
                }
                s = bad ? NAN : most < 0x1p-118f ? 0 : most / 127;
                for (int i = 0; i < 32; i++) {
                    if (s > 0) total += (int)codes[i] * (int)rintf(xb[i] * (127 / most));
                    sum += (double)d * (double)codes[i] * (double)xb[i];
                    near += fabsf(codes[i]);
                }
                acc = fmaf((float)total, d * s, acc);
                round_x += (double)most / 254 * (1 + 0x1p-20) * fabs((double)d) * (double)near;
                steps += fabs((double)total * (double)d * (double)s);
            }
            y[(size_t)r * rows + o]     = acc;
            exact[(size_t)r * rows + o] = sum;
            bound[(size_t)r * rows + o] = round_x + (cols / 32 + 2) * 0x1p-24 * steps + 0x1p-126;
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
    enum { MOST = 40 }; /* rows of x: more than two tiles of every path */
    err            e;
    linear         w;
    unsigned char *bytes;
    float *values = noise((size_t)rows * cols, 1, 0.3f), *b = noise((size_t)rows, 2, 1), *x = noise((size_t)MOST * cols, 3, 1);
    float *want = malloc(sizeof(float) * MOST * rows), *got = malloc(sizeof(float) * (MOST * (size_t)rows + 1));
    float *scratch = malloc(sizeof(float) * MOST * cols);
    encode(type, values, rows, cols, &bytes);
    assert_int_equal(linear_pack(&w, rows, cols, type, bytes, with_bias ? b : NULL, &e), OK);
    if (in_blocks(type)) {
        double *exact = malloc(sizeof(double) * MOST * rows), *bound = malloc(sizeof(double) * MOST * rows);
        block_reference(want, exact, bound, x, bytes, type, with_bias ? b : NULL, MOST, rows, cols);
        for (int i = 0; i < MOST * rows; i++)
            if (fabs(want[i] - exact[i]) > bound[i]) fail_msg("value %d is %a, exactly %a: %a is allowed", i, (double)want[i], exact[i], bound[i]);
        free(exact), free(bound);
    } else {
        reference(want, x, values, with_bias ? b : NULL, MOST, rows, cols);
    }
    for (int p = 0; p < LINEAR_PATHS; p++) {
        if (linear_force_path(p)) continue;
        assert_string_equal(linear_path_name(), names[p]);
        for (int threads = 1; threads <= 4; threads *= 2) {
            omp_set_num_threads(threads);
            for (int count = 1; count <= MOST; count += threads) {
                size_t n = (size_t)count * rows;
                memset(got, 0xff, (n + 1) * sizeof *got);
                uint32_t after = 0;
                linear_apply(got, x, count, &w, scratch);
                same_bits(got, want, n, names[p], count);
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
    one_shape(GT_Q8_0, 1, 32, 1);
    one_shape(GT_Q8_0, 40, 64, 1);
    one_shape(GT_Q8_0, 77, 192, 0);
    one_shape(GT_Q8_0, 15, 416, 1);
    one_shape(GT_Q4_0, 1, 32, 0);
    one_shape(GT_Q4_0, 40, 96, 0);
    one_shape(GT_Q4_0, 77, 192, 1);
    one_shape(GT_Q4_0, 33, 416, 1);
}

/* A part of the outputs is those outputs: where the panels of a type lie is linear.c's to know. */
static void parts_are_the_whole(void **s)
{
    (void)s;
    enum { ROWS = 75, COLS = 96, N = 5 };
    static const int types[] = { GT_F32, GT_F16, GT_BF16, GT_Q8_0, GT_Q4_0 };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        err            e;
        linear         w;
        unsigned char *bytes;
        float *values = noise((size_t)ROWS * COLS, 11, 0.3f), *b = noise(ROWS, 12, 1), *x = noise((size_t)N * COLS, 13, 1);
        float *want = malloc(sizeof(float) * N * ROWS), *got = malloc(sizeof(float) * N * ROWS), *scratch = malloc(sizeof(float) * N * COLS);
        encode(types[t], values, ROWS, COLS, &bytes);
        assert_int_equal(linear_pack(&w, ROWS, COLS, types[t], bytes, b, &e), OK);
        linear_apply(want, x, N, &w, scratch);
        for (int from = 0; from < ROWS; from += 32) {
            int    n    = ROWS - from < 32 ? ROWS - from : 32;
            linear part = linear_part(&w, from, n);
            linear_apply(got, x, N, &part, scratch);
            for (int r = 0; r < N; r++) same_bits(got + (size_t)r * n, want + (size_t)r * ROWS + from, (size_t)n, "part", from);
        }
        linear_free(&w);
        free(values), free(b), free(x), free(want), free(got), free(scratch), free(bytes);
    }
}

/* Large enough for threads, several blocks of rows, and a grid with more than one row (few panels, many threads). */
static void threads_agree(void **s)
{
    (void)s;
    static const struct { int type, n, rows, cols; } shapes[] = { { GT_F32, 300, 40, 513 }, { GT_F32, 70, 600, 96 }, { GT_F32, 1, 4000, 96 },
                                                                  { GT_Q8_0, 600, 40, 512 }, { GT_Q8_0, 70, 600, 96 }, { GT_Q8_0, 1, 4000, 96 },
                                                                  { GT_Q4_0, 600, 40, 512 }, { GT_Q4_0, 1, 4000, 96 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int    type = shapes[i].type, n = shapes[i].n, rows = shapes[i].rows, cols = shapes[i].cols;
        err    e;
        linear w;
        float *values = noise((size_t)rows * cols, 4, 0.3f), *x = noise((size_t)n * cols, 5, 1), *scratch = malloc(sizeof(float) * n * cols);
        float *want = malloc(sizeof(float) * n * rows), *got = malloc(sizeof(float) * n * rows);
        double *exact = malloc(sizeof(double) * n * rows), *bound = malloc(sizeof(double) * n * rows);
        unsigned char *bytes;
        encode(type, values, rows, cols, &bytes);
        assert_int_equal(linear_pack(&w, rows, cols, type, bytes, NULL, &e), OK);
        if (in_blocks(type)) block_reference(want, exact, bound, x, bytes, type, NULL, n, rows, cols);
        else reference(want, x, values, NULL, n, rows, cols);
        for (int threads = 1; threads <= 7; threads += 3) {
            omp_set_num_threads(threads);
            linear_apply(got, x, n, &w, scratch);
            same_bits(got, want, (size_t)n * rows, "threads", threads);
        }
        omp_set_num_threads(omp_get_num_procs());
        linear_free(&w);
        free(values), free(bytes), free(x), free(scratch), free(want), free(got), free(exact), free(bound);
    }
}

/* Strided chains with a start value, as attention uses them: k-step wider than a panel, continued in two pieces. */
static void chains_continue(void **s)
{
    (void)s;
    enum { M = 4, K = 21, OUT = 40, STEP = 48 };
    float *x = noise(M * K, 6, 1), *w = noise(K * STEP, 8, 1), whole[M * STEP], parts[M * STEP], want;
    for (int p = 0; p < LINEAR_PATHS; p++) {
        if (linear_force_path(p)) continue;
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

/* What a file or a network can bring at worst: codes of -128, scales from the smallest to the largest binary16, without and with sign; activations that
 * are 0, all -127 steps, tiny, huge, infinite, not a number. */
static void extremes(void **s)
{
    (void)s;
    enum { ROWS = 35, COLS = 128, N = 24 };
    static const uint16_t scales[] = { 0, 1, 0x8001, 0x3ff, 0x400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x1234 };
    static const float    sizes[]  = { 0, 0x1p-149f, 0x1p-119f, 0x1p-118f, 1e-30f, 1, 1e20f, 0x1.fffffep79f, 0x1p80f, 3e38f, INFINITY, NAN };
    for (int kind = 0; kind < 2; kind++) {
        int            type = kind ? GT_Q4_0 : GT_Q8_0;
        size_t         size = gguf_row_bytes(type, 32);
        unsigned char *bytes = malloc(size * ROWS * COLS / 32);
        float         *x = malloc(sizeof(float) * N * COLS), *scratch = malloc(sizeof(float) * N * COLS);
        float         *want = malloc(sizeof(float) * N * ROWS), *got = malloc(sizeof(float) * N * ROWS);
        double        *exact = malloc(sizeof(double) * N * ROWS), *bound = malloc(sizeof(double) * N * ROWS);
        for (size_t i = 0; i < ROWS * COLS / 32; i++) {
            uint16_t d = scales[rng_u64(1, 2, i) % 10];
            memcpy(bytes + i * size, &d, 2);
            for (size_t k = 2; k < size; k++) bytes[i * size + k] = i % 3 == 0 ? 0x80 : i % 3 == 1 ? 0x7f : (unsigned char)rng_u64(3, i, k);
        }
        for (int r = 0; r < N; r++)
            for (int k = 0; k < COLS; k++) { /* one block of a size, the others ordinary; even rows all of one sign and magnitude */
                float most = k / 32 == r % 4 ? sizes[r / 2] : 1, some = (float)(rng_u64(4, (uint64_t)r, (uint64_t)k) % 2001) / 1000 - 1;
                x[r * COLS + k] = r % 2 ? (k % 32 == 5 ? most : most < 1e38f ? most * some : some) : -most;
            }
        err    e;
        linear w;
        assert_int_equal(linear_pack(&w, ROWS, COLS, type, bytes, NULL, &e), OK);
        block_reference(want, exact, bound, x, bytes, type, NULL, N, ROWS, COLS);
        for (int r = 0; r < N; r++)
            for (int o = 0; o < ROWS; o++) {
                size_t   i = (size_t)r * ROWS + o;
                uint32_t nan = 0x7fc00000;
                if (r / 2 >= 8) assert_memory_equal(&want[i], &nan, 4);
                else if (fabs(want[i] - exact[i]) > bound[i]) fail_msg("row %d: %a, exactly %a: %a is allowed", r, (double)want[i], exact[i], bound[i]);
            }
        for (int p = 0; p < LINEAR_PATHS; p++) {
            if (linear_force_path(p)) continue;
            for (int n = 1; n <= N; n++) {
                linear_apply(got, x + (N - n) * COLS, n, &w, scratch);
                same_bits(got, want + (N - n) * ROWS, (size_t)n * ROWS, names[p], n);
            }
        }
        assert_int_equal(linear_force_path(LINEAR_BEST), OK);
        linear_free(&w);
        uint16_t inf = 0xfc00;
        memcpy(bytes + 34 * (COLS / 32) * size + size, &inf, 2); /* the second block of the last row */
        assert_int_equal(linear_pack(&w, ROWS, COLS, type, bytes, NULL, &e), E_FORMAT);
        assert_non_null(strstr(e.msg, "row 34"));
        free(bytes), free(x), free(scratch), free(want), free(got), free(exact), free(bound);
    }
}

/* Says what this run was able to try. */
static void best_path(void **s)
{
    (void)s;
    for (int p = 0; p < LINEAR_PATHS; p++)
        if (linear_force_path(p) == OK) printf("linear: path %s passed\n", linear_path_name());
    assert_int_equal(linear_force_path(LINEAR_BEST), OK);
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
        cmocka_unit_test(parts_are_the_whole),
        cmocka_unit_test(threads_agree),
        cmocka_unit_test(chains_continue),
        cmocka_unit_test(extremes),
        cmocka_unit_test(refuses),
        cmocka_unit_test(best_path),
    };
    return cmocka_run_group_tests_name("linear", tests, NULL, NULL);
}
