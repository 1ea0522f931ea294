/* readers: against published worked examples, and the sample against what is asked of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "eval/doubt.h"
#include "eval/readers.h"

static err   e;
static arena mem;
#define OKAY(call) do { int rc_ = (call); if (rc_) fail_msg("%s: %d: %s", #call, rc_, e.msg); } while (0)

/* Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units, missing data;
 * nominal alpha = 0.743. */
static void krippendorff_example(void **s)
{
    (void)s;
    static const int value[4][12] = { { 1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0 }, { 1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3 },
                                      { 0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0 }, { 1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0 } };
    static const char *const names[] = { "d", "b", "c", "a" };
    reading     r[48];
    int         n = 0;
    readers_sum sum;
    for (int u = 11; u >= 0; u--)
        for (int o = 0; o < 4; o++)
            if (value[o][u]) r[n++] = (reading){ 100 + u, str_of(names[o]), value[o][u] - 1 };
    OKAY(readers_agree(r, n, 5, &mem, &sum, &e));
    assert_true(fabs(sum.alpha - 0.743) < 0.0005);
    assert_int_equal(sum.n_one, 4);
    assert_string_equal(sum.one[0].reader.s, "a");
    assert_int_equal(sum.one[0].n, 11);
    assert_int_equal(sum.n_pair, 6);
    assert_int_equal(sum.n_turns, 12);
    assert_int_equal(sum.n_shared, 11);
    double share = 0;
    for (int i = 0; i < 5; i++) share += sum.share[i];
    assert_true(fabs(share - 1) < 1e-12);
}

/* The example of Cohen's kappa that textbooks use: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: kappa 0.4. */
static void cohen_example(void **s)
{
    (void)s;
    static const int cells[4][3] = { { 0, 0, 20 }, { 0, 1, 5 }, { 1, 0, 10 }, { 1, 1, 15 } };
    reading     r[120];
    int         n = 0, turn = 0;
    readers_sum sum;
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < cells[c][2]; i++) {
            r[n++] = (reading){ ++turn, STR("x"), cells[c][0] };
            r[n++] = (reading){ turn, STR("y"), cells[c][1] };
        }
    r[n++] = (reading){ 1000, STR("x"), 1 }; /* read by one alone: no pair */
    OKAY(readers_agree(r, n, 2, &mem, &sum, &e));
    assert_int_equal(sum.n_pair, 1);
    assert_int_equal(sum.pair[0].n, 50);
    assert_true(fabs(sum.pair[0].kappa - 0.4) < 1e-12 && fabs(sum.pair[0].observed - 0.7) < 1e-12);
    r[n++] = (reading){ 1, STR("x"), 1 }; /* x thinks again: the last word counts */
    r[n++] = (reading){ 1, STR("x"), 0 };
    r[n++] = (reading){ 1, STR("x"), 1 };
    OKAY(readers_agree(r, n, 2, &mem, &sum, &e));
    assert_true(fabs(sum.pair[0].observed - 34.0 / 50) < 1e-12);
    assert_int_equal(sum.one[0].n, 51);
}

static void nothing_to_agree_on(void **s)
{
    (void)s;
    readers_sum sum;
    reading     r[] = { { 1, STR("x"), 0 }, { 1, STR("y"), 0 }, { 2, STR("x"), 0 }, { 2, STR("y"), 0 } };
    OKAY(readers_agree(r, 4, 5, &mem, &sum, &e));
    assert_true(isnan(sum.alpha) && isnan(sum.pair[0].kappa) && sum.pair[0].observed == 1); /* one label: chance explains it */
    OKAY(readers_agree(r, 1, 5, &mem, &sum, &e));
    assert_int_equal(sum.n_pair, 0);
    assert_true(isnan(sum.alpha) && sum.share[0] == 1);
    OKAY(readers_agree(NULL, 0, 5, &mem, &sum, &e));
    assert_int_equal(sum.n_turns, 0);
    r[2].label = 5;
    assert_int_equal(readers_agree(r, 4, 5, &mem, &sum, &e), E_ARG);
}

static void samples(void **s)
{
    (void)s;
    enum { N = 1000, K = 50 };
    int64_t id[N], a[N], b[N], more[N + 1];
    int     in[N] = { 0 };
    for (int i = 0; i < N; i++) more[i] = id[i] = 3 * i + 7;
    more[N] = 9999;
    assert_int_equal(readers_sample(id, N, K, 1, a, &e), K);
    assert_int_equal(readers_sample(id, N, K, 1, b, &e), K);
    assert_memory_equal(a, b, K * sizeof *a);
    for (int i = 0; i < K; i++) {
        assert_true(a[i] % 3 == 1 && a[i] >= 7 && a[i] < 7 + 3 * N);
        assert_int_equal(in[(a[i] - 7) / 3]++, 0); /* none twice */
    }
    assert_int_equal(readers_sample(more, N + 1, K, 1, b, &e), K);
    int moved = 0;
    for (int i = 0; i < K; i++) moved += !(b[i] != 9999 && in[(b[i] - 7) / 3]);
    assert_true(moved <= 1);
    assert_int_equal(readers_sample(id, N, K, 2, b, &e), K);
    int same = 0;
    for (int i = 0; i < K; i++) same += in[(b[i] - 7) / 3];
    assert_true(same < 15); /* 2.5 are expected */
    assert_int_equal(readers_sample(id, 10, K, 3, b, &e), 10);
    /* Every id is as likely as any other: over 400 seeds each is drawn 20 times, sd 4.4. */
    int hits[N] = { 0 };
    for (uint64_t seed = 0; seed < 400; seed++) {
        readers_sample(id, N, K, seed, b, &e);
        for (int i = 0; i < K; i++) hits[(b[i] - 7) / 3]++;
    }
    for (int i = 0; i < N; i++) assert_in_range(hits[i], 2, 42);
}

/* Wilson's interval for 10 of 100: 0.0552 to 0.1744. */
static void intervals(void **s)
{
    (void)s;
    double lo, hi;
    doubt_wilson(10, 100, &lo, &hi);
    assert_true(fabs(lo - 0.05523) < 5e-5 && fabs(hi - 0.17437) < 5e-5);
    doubt_wilson(0, 50, &lo, &hi);
    assert_true(fabs(lo) < 1e-12 && fabs(hi - 0.07135) < 5e-5);
    doubt_wilson(0, 0, &lo, &hi);
    assert_true(lo == 0 && hi == 1);
}

/* Fleiss, "Measuring nominal scale agreement among many raters" (Psychological Bulletin 76, 1971), table 1: 30 patients, six psychiatrists each, five diagnoses:
 * kappa 0.430, the diagnoses' shares .144 .144 .167 .306 .239. */
static const int diagnoses[30][5] = {
    { 0, 0, 0, 6, 0 }, { 0, 3, 0, 0, 3 }, { 0, 1, 4, 0, 1 }, { 0, 0, 0, 0, 6 }, { 0, 3, 0, 3, 0 }, { 2, 0, 4, 0, 0 }, { 0, 0, 4, 0, 2 }, { 2, 0, 3, 1, 0 }, { 2, 0, 0, 4, 0 }, { 0, 0, 0, 0, 6 },
    { 1, 0, 0, 5, 0 }, { 1, 1, 0, 4, 0 }, { 0, 3, 3, 0, 0 }, { 1, 0, 0, 5, 0 }, { 0, 2, 0, 3, 1 }, { 0, 0, 5, 0, 1 }, { 3, 0, 0, 1, 2 }, { 5, 1, 0, 0, 0 }, { 0, 2, 0, 4, 0 }, { 1, 0, 2, 0, 3 },
    { 0, 0, 0, 0, 6 }, { 0, 1, 0, 5, 0 }, { 0, 2, 0, 1, 3 }, { 2, 0, 0, 4, 0 }, { 1, 0, 0, 4, 1 }, { 0, 5, 0, 1, 0 }, { 4, 0, 0, 0, 2 }, { 0, 2, 0, 4, 0 }, { 1, 0, 5, 0, 0 }, { 0, 0, 0, 0, 6 },
};
static void fleiss_example(void **s)
{
    (void)s;
    static const double share[5] = { .144, .144, .167, .306, .239 };
    reading     r[180];
    int         n = 0;
    readers_sum sum;
    for (int k = 0; k < 5; k++) {
        int total = 0;
        for (int i = 0; i < 30; i++) total += diagnoses[i][k];
        assert_true(fabs(total / 180.0 - share[k]) < 0.0006);
    }
    assert_true(fabs(readers_fleiss(&diagnoses[0][0], 30, 5, 6) - 0.430) < 0.0005);
    /* The same through single readings; a patient whom only two have seen changes nothing. */
    static const char *const names[] = { "a", "b", "c", "d", "e", "f" };
    for (int i = 0; i < 30; i++)
        for (int k = 0, at = 0; k < 5; k++)
            for (int c = 0; c < diagnoses[i][k]; c++) r[n++] = (reading){ i, str_of(names[at++]), k };
    r[178].turn = r[179].turn = 99;
    OKAY(readers_agree(r, n, 5, &mem, &sum, &e));
    assert_true(sum.fleiss_m == 6 && sum.fleiss_n == 29 && fabs(sum.fleiss - readers_fleiss(&diagnoses[0][0], 29, 5, 6)) < 1e-12);
}

/* The example of ten subjects, fourteen raters and five categories that Wikipedia works out in "Fleiss' kappa": 0.210. */
static void fleiss_second_example(void **s)
{
    (void)s;
    static const int count[10][5] = { { 0, 0, 0, 0, 14 }, { 0, 2, 6, 4, 2 }, { 0, 0, 3, 5, 6 }, { 0, 3, 9, 2, 0 }, { 2, 2, 8, 1, 1 },
                                      { 7, 7, 0, 0, 0 },  { 3, 2, 6, 3, 0 }, { 2, 5, 3, 2, 2 }, { 6, 5, 2, 1, 0 }, { 0, 2, 2, 3, 7 } };
    assert_true(fabs(readers_fleiss(&count[0][0], 10, 5, 14) - 0.210) < 0.0005);
    static const int one[2][2] = { { 3, 0 }, { 3, 0 } };
    assert_true(isnan(readers_fleiss(&one[0][0], 2, 2, 3)));
    static const int full[2][2] = { { 3, 0 }, { 0, 3 } };
    assert_true(fabs(readers_fleiss(&full[0][0], 2, 2, 3) - 1) < 1e-12);
}

/* Siegel, "Nonparametric Statistics" (1956), table D: 3 of 14 signs, one-tailed p .029; 2 of 12: .019; 5 of 10: half and more. */
static void sign_test(void **s)
{
    (void)s;
    assert_true(fabs(doubt_sign(11, 3) / 2 - .029) < 0.0005 && fabs(doubt_sign(3, 11) - doubt_sign(11, 3)) < 1e-12);
    assert_true(fabs(doubt_sign(2, 10) / 2 - .019) < 0.0005);
    assert_true(doubt_sign(5, 5) == 1 && doubt_sign(0, 0) == 1 && fabs(doubt_sign(1, 0) - 1) < 1e-12);
    assert_true(fabs(doubt_sign(600, 400) - 2.73e-10) < 0.02e-10); /* no overflow on the way */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(krippendorff_example), cmocka_unit_test(cohen_example), cmocka_unit_test(nothing_to_agree_on),
        cmocka_unit_test(samples),              cmocka_unit_test(intervals),     cmocka_unit_test(fleiss_example),
        cmocka_unit_test(fleiss_second_example), cmocka_unit_test(sign_test),
    };
    int r = cmocka_run_group_tests_name("readers", tests, NULL, NULL);
    arena_free(&mem);
    return r;
}
