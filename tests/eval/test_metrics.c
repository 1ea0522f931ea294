/* metrics: every number equals what the published program gives on the sets of tests/vectors/metrics, edge cases included; and properties that no
 * set shows.  A set that lacks a number its kind must have fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/metrics.h"
#include "eval/porter.h"
#include "eval/tokenise.h"

static err          e;
static metric_space space;
#define OKAY(x) do { if ((x) != OK) fail_msg("%s: %s", #x, e.msg); } while (0)

typedef struct {
    json_t *j;
    int     n, *ref_at;
    str    *hyp, *ref;
} set;

static str text(const json_t *j) { return (str){ json_string_value(j), json_string_length(j) }; }

static set set_open(const char *name)
{
    char         path[200];
    json_error_t je;
    set          s = { 0 };
    snprintf(path, sizeof path, "tests/vectors/metrics/%s.json", name);
    s.j = json_load_file(path, 0, &je);
    if (!s.j) fail_msg("%s: %s", path, je.text);
    const json_t *hyp = json_object_get(s.j, "hyp"), *refs = json_object_get(s.j, "refs");
    s.n      = (int)json_array_size(hyp);
    int most = (int)json_integer_value(json_object_get(s.j, "n_refs"));
    s.hyp    = calloc((size_t)s.n, sizeof *s.hyp);
    s.ref    = calloc((size_t)s.n * (size_t)most, sizeof *s.ref);
    s.ref_at = calloc((size_t)s.n + 1, sizeof *s.ref_at);
    assert_true(s.n > 0 && json_array_size(refs) == (size_t)s.n);
    for (int i = 0; i < s.n; i++) {
        const json_t *r = json_array_get(refs, (size_t)i);
        s.hyp[i]        = text(json_array_get(hyp, (size_t)i));
        assert_int_equal(json_array_size(r), most);
        for (int k = 0; k < most; k++) s.ref[s.ref_at[i] + k] = text(json_array_get(r, (size_t)k));
        s.ref_at[i + 1] = s.ref_at[i] + most;
    }
    return s;
}

static void set_close(set *s)
{
    json_decref(s->j);
    free(s->hyp);
    free(s->ref);
    free(s->ref_at);
}

static void score(const metric_rows *m, const int *times, int which, double *v)
{
    int *count = metric_rows_scratch(m, &e);
    assert_non_null(count);
    metric_rows_score(m, times, which, count, v);
    for (int i = 0; i < m->grams.nodes; i++) assert_int_equal(count[i], 0);
    free(count);
}

static const char *where;
static int         compared;
static void near(const char *what, double got, const json_t *want, double tolerance)
{
    if (!want) fail_msg("%s: no %s in the set", where, what);
    double w = json_is_null(want) ? 0 : json_number_value(want); /* null: the program divides by zero; we say 0 */
    if (!(fabs(got - w) <= tolerance)) fail_msg("%s: %s is %.10g, wanted %.10g", where, what, got, w);
    compared++;
}
static const json_t *in(const json_t *j, const char *a, const char *b) { return json_object_get(json_object_get(j, a), b); }

/* BLEU and NIST to all nine orders that mteval prints, with and without case and smoothing. */
static void check_mteval(const set *s, int kind, const char *section, int smooth)
{
    lexicon   *l = lexicon_new();
    word_lines h, r;
    overlap   *o = calloc((size_t)s->n, sizeof *o), sum = { 0 };
    OKAY(word_lines_new(&h, l, s->hyp, s->n, kind, -1, &e));
    OKAY(word_lines_new(&r, l, s->ref, s->ref_at[s->n], kind, -1, &e));
    OKAY(overlap_count(&h, &r, s->ref_at, OVERLAP_MAX, lexicon_find(l, STR("0")), o, &e));
    for (int i = 0; i < s->n; i++) overlap_add(&sum, &o[i], 1);
    for (int n = 1; n <= OVERLAP_MAX; n++) {
        double bleu = smooth ? bleu_mteval(&sum, n) : bleu_plain(&sum, n);
        near(section, nist_score(&sum, n), json_array_get(in(s->j, section, "nist_cumulative_1to9"), (size_t)n - 1), 1e-9);
        near(section, bleu, json_array_get(in(s->j, section, "bleu_cumulative_1to9"), (size_t)n - 1), 1e-9);
    }
    free(o);
    word_lines_free(&h);
    word_lines_free(&r);
    lexicon_free(l);
}

static void check_plain(const set *s, const metric_rows *m, const double *v)
{
    static const char *const meteor = "meteor_nltk_alpha0.9_beta3_gamma0.5";
    char key[64];
    for (int n = 1; n <= 4; n++) {
        snprintf(key, sizeof key, "sacrebleu_bleu%d_tok_none_smooth_none", n);
        near(key, v[METRIC_BLEU1 + n - 1], in(s->j, "bleu", key), 1e-9);
        near("mteval_bleu", v[METRIC_MTEVAL_BLEU1 + n - 1], json_array_get(in(s->j, "mteval14_default", "bleu_cumulative_1to9"), (size_t)n - 1), 1e-9);
        near("entropy", v[METRIC_ENTROPY1 + n - 1], json_array_get(json_object_get(s->j, "entropy_1_to_4"), (size_t)n - 1), 1e-9);
    }
    for (int n = 1; n <= 5; n++)
        near("nist", v[METRIC_NIST1 + n - 1], json_array_get(in(s->j, "mteval14_default", "nist_cumulative_1to9"), (size_t)n - 1), 1e-9);
    near("meteor", v[METRIC_METEOR], in(s->j, meteor, "exact_porter_mean"), 1e-9);
    near("meteor_exact", v[METRIC_METEOR_EXACT], in(s->j, meteor, "exact_mean"), 1e-9);
    near("rouge_l", v[METRIC_ROUGE_L], in(s->j, "rouge_l", "pycocoevalcap_beta1p2_mean"), 1e-9);
    near("rouge_l_f1", v[METRIC_ROUGE_L_F1], in(s->j, "rouge_l", "google_f1_mean"), 1e-9);
    near("avg_len", v[METRIC_AVG_LEN], json_object_get(s->j, "avg_len"), 1e-9);
    const json_t *distinct = json_object_get(s->j, "distinct_1_2");
    for (int k = 0; k < 2; k++)
        if (json_is_array(distinct)) near("distinct", v[METRIC_DISTINCT1 + k], json_array_get(distinct, (size_t)k), 1e-9);
    for (int i = 0; i < s->n; i++) {
        near("meteor of a line", m->sentence[i].meteor, json_array_get(in(s->j, meteor, "exact_porter_per_sentence"), (size_t)i), 1e-9);
        near("exact meteor of a line", m->sentence[i].meteor_exact, json_array_get(in(s->j, meteor, "exact_per_sentence"), (size_t)i), 1e-9);
        near("rouge of a line", m->sentence[i].rouge_l, json_array_get(in(s->j, "rouge_l", "pycocoevalcap_per_sentence"), (size_t)i), 1e-9);
        near("rouge f1 of a line", m->sentence[i].rouge_l_f1, json_array_get(in(s->j, "rouge_l", "google_f1_max_over_refs_per_sentence"), (size_t)i), 1e-9);
        near("bleu of a line", bleu_sentence(&m->plain[i], 4), json_array_get(in(s->j, "bleu", "nltk_sentence_bleu4_method1"), (size_t)i), 1e-9);
    }
}

static void fixtures(void **state)
{
    static const char *const names[] = { "edge_all_empty", "edge_brevity_ties", "edge_mteval_tokenisation", "edge_no_overlap", "edge_perfect", "edge_short_lt4",
                                         "edge_single_token", "en_corrupted_multi5", "en_corrupted_single", "en_multi", "en_single",
                                         "zh_corrupted_single", "zh_multi" };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        set         s = set_open(where = names[i]);
        metric_rows m;
        double      v[METRICS], again[METRICS];
        int        *times = malloc((size_t)s.n * sizeof *times);
        compared = 0;
        check_mteval(&s, TOKENISE_MTEVAL, "mteval14_default", 1);
        check_mteval(&s, TOKENISE_13A, "mteval14_no_smoothing_c", 0);
        OKAY(metric_rows_new(&m, &space, s.hyp, s.n, s.ref, s.ref_at, TOKENISE_NONE, &e));
        score(&m, NULL, METRIC_SUMS | METRIC_VARIETY, v);
        check_plain(&s, &m, v);
        assert_true(compared > 50);
        for (int k = 0; k < s.n; k++) times[k] = 1; /* a weighting of ones is no weighting */
        score(&m, times, METRIC_SUMS | METRIC_VARIETY, again);
        for (int k = 0; k < METRICS; k++) assert_true(v[k] == again[k]);
        free(times);
        metric_rows_free(&m);
        set_close(&s);
    }
}

/* Weights are the same as lines that stand there several times, or not at all. */
static void weights_are_copies(void **state)
{
    (void)state;
    set          s     = set_open(where = "en_corrupted_multi5");
    int         *times = malloc((size_t)s.n * sizeof *times), n = 0;
    str         *hyp = calloc(3 * (size_t)s.n, sizeof *hyp), *ref = calloc(15 * (size_t)s.n, sizeof *ref);
    int         *ref_at = calloc(3 * (size_t)s.n + 1, sizeof *ref_at);
    metric_rows  m, c;
    double       a[METRICS], b[METRICS];
    for (int i = 0; i < s.n; i++) {
        times[i] = (int)rng_below(7, 0, (uint64_t)i, 4);
        for (int k = 0; k < times[i]; k++, n++) {
            hyp[n] = s.hyp[i];
            memcpy(ref + ref_at[n], s.ref + s.ref_at[i], 5 * sizeof *ref);
            ref_at[n + 1] = ref_at[n] + 5;
        }
    }
    OKAY(metric_rows_new(&m, &space, s.hyp, s.n, s.ref, s.ref_at, TOKENISE_NONE, &e));
    OKAY(metric_rows_new(&c, &space, hyp, n, ref, ref_at, TOKENISE_NONE, &e));
    score(&m, times, METRIC_SUMS | METRIC_VARIETY, a);
    score(&c, NULL, METRIC_SUMS | METRIC_VARIETY, b);
    for (int k = 0; k < METRICS; k++) {
        if (k >= METRIC_NIST1 && k <= METRIC_NIST5) continue; /* information is that of all references, drawn or not */
        if (k == METRIC_GENERIC || k == METRIC_SELF_BLEU) continue; /* properties of a line among the others */
        if (fabs(a[k] - b[k]) > 1e-12) fail_msg("%s: weighted %.15g, copied %.15g", metric_list[k].key, a[k], b[k]);
    }
    metric_rows_free(&m);
    metric_rows_free(&c);
    set_close(&s);
    free(times);
    free(hyp);
    free(ref);
    free(ref_at);
}

static void words_of(void **state)
{
    static const struct { int kind; const char *in, *out; } cases[] = {
        { TOKENISE_NONE, "  a\t b\xC2\xA0" "c\xE3\x80\x80" "D. \x1C e\r", "a b c D. e" },
        { TOKENISE_NONE, " \t ", "" },
        { TOKENISE_MTEVAL, "Hello, World! It's $3.50 (approx.) e-mail", "hello , world ! it's $ 3.50 ( approx . ) e-mail" },
        { TOKENISE_MTEVAL, "U.S.A. 10-20 1,000.5 don't", "u . s . a . 10 - 20 1,000.5 don't" },
        { TOKENISE_13A, "Wait... &quot;A&amp;B&quot; &lt;skipped&gt; 5.", "Wait . . . \" A & B \" < skipped > 5 ." },
        { TOKENISE_13A, ".5 <skipped>x ,y", ". 5 x , y" },
        { TOKENISE_MTEVAL, "a\x1C" "b", "a\x1C" "b" }, /* Perl's white space */
        { TOKENISE_13A, "a\x1C" "b", "a b" },          /* Python's */
        { TOKENISE_ZH, "我3.5元,ok? 好的。“嗯”…\xF0\xA0\x80\x80", "我 3.5 元 , ok ? 好 的 。 “ 嗯 ” … \xF0\xA0\x80\x80" },
        { TOKENISE_ZH, " 是5. ", "是 5." }, /* no blank behind the last character, so the rule for '.' has nothing to see */
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf b = { 0 };
        tokenise(cases[i].kind, str_of(cases[i].in), &b);
        assert_string_equal(b.s ? b.s : "", cases[i].out);
        assert_int_equal(tokenise_of_name(tokenise_name(cases[i].kind)), cases[i].kind);
        buf_free(&b);
    }
    assert_int_equal(tokenise_of_name("14"), -1);
}

static void stems(void **state)
{
    static const char *const cases[][2] = {
        { "caresses", "caress" }, { "ponies", "poni" }, { "ties", "tie" }, { "cats", "cat" }, { "agreed", "agre" }, { "feed", "feed" },
        { "plastered", "plaster" }, { "bled", "bled" }, { "motoring", "motor" }, { "sing", "sing" }, { "conflated", "conflat" }, { "sized", "size" },
        { "hopping", "hop" }, { "falling", "fall" }, { "filing", "file" }, { "happy", "happi" }, { "enjoy", "enjoy" }, { "sky", "sky" },
        { "relational", "relat" }, { "conditional", "condit" }, { "rational", "ration" }, { "digitizer", "digit" }, { "radically", "radic" },
        { "vietnamization", "vietnam" }, { "hopefulness", "hope" }, { "formality", "formal" }, { "sensibility", "sensibl" },
        { "electrical", "electr" }, { "goodness", "good" }, { "adjustment", "adjust" }, { "adoption", "adopt" }, { "controlling", "control" },
        { "rate", "rate" }, { "cease", "ceas" }, { "dying", "die" }, { "died", "die" }, { "spied", "spi" }, { "as", "as" }, { "geology", "geolog" },
        { "theology", "theolog" }, { "\xC3\xA9t\xC3\xA9s", "\xC3\xA9t\xC3\xA9" }, { "...", "..." }, { "", "" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        buf b = { 0 };
        porter_stem(str_of(cases[i][0]), &b);
        if (strcmp(b.s ? b.s : "", cases[i][1])) fail_msg("%s: %s, wanted %s", cases[i][0], b.s, cases[i][1]);
        buf_free(&b);
    }
}

/* mteval's prefix "0" is no prefix: its bigrams are informed by all words. */
static void zero_is_no_prefix(void **state)
{
    (void)state;
    lexicon   *l = lexicon_new();
    word_lines h;
    str        text[] = { STR("0 a b c") };
    int        at[]   = { 0, 1 };
    overlap    with, without;
    OKAY(word_lines_new(&h, l, text, 1, TOKENISE_NONE, -1, &e));
    OKAY(overlap_count(&h, &h, at, 2, lexicon_find(l, STR("0")), &with, &e));
    OKAY(overlap_count(&h, &h, at, 2, -1, &without, &e));
    assert_true(fabs(without.info[1]) < 1e-12 && fabs(with.info[1] - 2) < 1e-12); /* log2(4 / 1) for "0 a" */
    word_lines_free(&h);
    lexicon_free(l);
}

/* Brute force: self-BLEU with all others as references, repetition and generic by eye. */
static void alone(void **state)
{
    (void)state;
    set        s = set_open(where = "en_multi");
    lexicon   *l = lexicon_new();
    word_lines w;
    double    *fast = malloc((size_t)s.n * sizeof *fast);
    OKAY(word_lines_new(&w, l, s.hyp, s.n, TOKENISE_NONE, -1, &e));
    OKAY(variety_self_bleu(&w, fast, &e));
    for (int i = 0; i < s.n; i++) {
        str       *others = calloc((size_t)s.n, sizeof *others);
        word_lines h, r;
        overlap    o;
        int        at[2] = { 0, s.n - 1 };
        for (int k = 0, n = 0; k < s.n; k++)
            if (k != i) others[n++] = s.hyp[k];
        OKAY(word_lines_new(&h, l, &s.hyp[i], 1, TOKENISE_NONE, -1, &e));
        OKAY(word_lines_new(&r, l, others, s.n - 1, TOKENISE_NONE, -1, &e));
        OKAY(overlap_count(&h, &r, at, 4, -1, &o, &e));
        if (fabs(bleu_sentence(&o, 4) - fast[i]) > 1e-12) fail_msg("line %d: self-BLEU %.12g, wanted %.12g", i, fast[i], bleu_sentence(&o, 4));
        word_lines_free(&h);
        word_lines_free(&r);
        free(others);
    }
    word_lines_free(&w);
    free(fast);
    lexicon_free(l);
    set_close(&s);

    str         lines[] = { STR("ha ha ha"), STR("a b c d a b c"), STR("I see"), STR("i see"), STR("I SEE"), STR("a b a b"), STR("") };
    metric_rows m;
    double      v[METRICS];
    OKAY(metric_rows_new(&m, &space, lines, 7, NULL, NULL, TOKENISE_NONE, &e));
    score(&m, NULL, METRIC_SUMS | METRIC_VARIETY, v);
    assert_float_equal(v[METRIC_REPETITION], 2 / 7.0, 1e-12);
    assert_float_equal(v[METRIC_GENERIC], 3 / 7.0, 1e-12);
    assert_float_equal(v[METRIC_EMPTY], 1 / 7.0, 1e-12);
    assert_true(isnan(v[METRIC_BLEU1]) && isnan(v[METRIC_F1]));
    metric_rows_free(&m);
}

static void bags(void **state)
{
    (void)state;
    str         hyp[] = { STR("the cat The mat"), STR("x") }, ref[] = { STR("the the dog"), STR("a cat"), STR("y") };
    int         at[] = { 0, 2, 3 };
    metric_rows m;
    double      v[METRICS];
    buf         b = { 0 };
    OKAY(metric_rows_new(&m, &space, hyp, 2, ref, at, TOKENISE_NONE, &e));
    score(&m, NULL, METRIC_SUMS, v);
    assert_float_equal(v[METRIC_F1], (2.0 * 2 / 7) / 2, 1e-12);
    assert_true(isnan(v[METRIC_DISTINCT1]));
    OKAY(metric_signature(&m, &b));
    assert_non_null(strstr(b.s, "lines:2|refs:1-2|tok:none|"));
    buf_free(&b);
    metric_rows_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixtures), cmocka_unit_test(weights_are_copies), cmocka_unit_test(words_of), cmocka_unit_test(stems),
        cmocka_unit_test(zero_is_no_prefix), cmocka_unit_test(alone), cmocka_unit_test(bags),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    metric_space_free(&space);
    return failed;
}
