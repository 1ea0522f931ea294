/* sample: the filters against PyTorch's numbers, the draw against its own distribution, and the corners: ties, bans, NaN,
 * infinities. */
#include "models/sample.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { V_MAX = 500 };

static const sample_opts plain = { .temperature = 1, .rep_penalty = 1, .sep = -1 };

static int ints_of(const json_t *a, int *out)
{
    size_t  i;
    json_t *x;
    json_array_foreach(a, i, x) out[i] = (int)json_integer_value(x);
    return (int)json_array_size(a);
}

static double real(const json_t *c, const char *key, double otherwise)
{
    const json_t *x = json_object_get(c, key);
    return json_is_number(x) ? json_number_value(x) : otherwise;
}

static int is_tie_case(const char *note) { return strstr(note, "all equal") && strstr(note, "sort order"); }

static void filters_agree_with_pytorch(void **state)
{
    (void)state;
    json_error_t je;
    json_t      *root = json_load_file("tests/vectors/sampling/filter.json", 0, &je), *c;
    size_t       n;
    assert_non_null(root);
    const json_t *cases = json_object_get(root, "cases");
    assert_int_equal(json_array_size(cases), 85);
    json_array_foreach(cases, n, c) {
        float   logits[V_MAX];
        double  got[V_MAX], want[V_MAX] = { 0 };
        int     seen[64], ban[64], kept = 0, want_kept = 0;
        size_t  i;
        json_t *x;
        const char *key, *note = json_string_value(json_object_get(c, "note"));
        int hf = strcmp(json_string_value(json_object_get(c, "flavour")), "hf") == 0,
            V = (int)json_array_size(json_object_get(c, "logits"));
        assert_in_range(V, 1, V_MAX);
        json_array_foreach(json_object_get(c, "logits"), i, x) logits[i] = (float)json_number_value(x);
        int         n_seen = ints_of(json_object_get(c, "generated_ids"), seen);
        sample_opts o      = plain;
        o.temperature      = (float)real(c, "temperature", 1);
        o.top_k            = (int)real(c, "top_k", 0);
        o.top_p            = (float)real(c, "top_p", 1);
        o.rep_penalty      = (float)real(c, "repetition_penalty", 1);
        o.rep_rule         = hf ? PENALTY_SIGNED : PENALTY_DIVIDE;
        o.top_p_rule       = hf ? TOP_P_SMALLEST : TOP_P_BEFORE;
        o.ban              = ban;
        o.n_ban            = ints_of(json_object_get(c, "banned"), ban);
        if (hf && o.top_p == 0) o.top_p = 1e-30f; /* 0 is off here; Hugging Face's 0 is the limit of small ones: one token */
        json_object_foreach(json_object_get(c, "probs"), key, x) want[atoi(key)] = json_number_value(x);

        sample_space *s = sample_space_new(V);
        assert_non_null(s);
        sample_probs(logits, V, &o, seen, n_seen, NULL, 0, got, s);
        if (is_tie_case(note)) { /* which of the equal ones stay is open: sizes and values are not */
            for (int v = 0; v < V; v++) {
                kept += got[v] > 0;
                want_kept += want[v] > 0;
            }
            assert_int_equal(kept, want_kept);
            for (int v = 0; v < V; v++) assert_true(got[v] == 0 || fabs(got[v] - 1.0 / kept) < 1e-12);
        } else {
            for (int v = 0; v < V; v++) {
                /* 1e-6: the fixture's own bound (its logits have six decimals, ours are floats) */
                if (fabs(got[v] - want[v]) > 1e-6)
                    fail_msg("case %d (%s) id %d: %.9g, want %.9g", (int)n, note, v, got[v], want[v]);
                if ((got[v] > 0) != (want[v] > 0)) fail_msg("case %d (%s) id %d: kept differs", (int)n, note, v);
            }
        }
        sample_space_free(s);
    }
    json_decref(root);
}

/* Frequencies of draws over a grid of u equal the probabilities: N draws at (i + 0.5) / N miss each id by at most one. */
static void draw_follows_probs(void **state)
{
    (void)state;
    enum { V = 97, N = 20000 };
    float  logits[V];
    double p[V];
    int    count[V];
    for (int i = 0; i < V; i++) logits[i] = (float)(rng_normal(3, 0, (uint64_t)i) * 2);
    logits[10] = logits[11] = logits[12];
    sample_space *s = sample_space_new(V);
    for (int k = 0; k < 4; k++) {
        sample_opts o = plain;
        o.temperature = 0.8f;
        o.top_k       = k & 1 ? 20 : 0;
        o.top_p       = k & 2 ? 0.9f : 1;
        sample_probs(logits, V, &o, NULL, 0, NULL, 0, p, s);
        memset(count, 0, sizeof count);
        for (int i = 0; i < N; i++) count[sample_draw(logits, V, &o, NULL, 0, NULL, 0, (i + 0.5) / N, s)]++;
        for (int v = 0; v < V; v++) assert_true(fabs(count[v] - p[v] * N) <= 1.0 + 1e-6);
    }
    sample_space_free(s);
}

/* The walk goes down the distribution: u = 0 is the likeliest, equal logits by id, u next to 1 the last kept. */
static void walk_order(void **state)
{
    (void)state;
    const float   logits[] = { 0, 2, 1, 2, 1, -5 };
    sample_space *s = sample_space_new(6);
    sample_opts   o = plain;
    const double  top = 1 - 0x1p-53;
    double        p[6], at = 0;
    const int     order[] = { 1, 3, 2, 4, 0, 5 };
    sample_probs(logits, 6, &o, NULL, 0, NULL, 0, p, s);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, at + p[order[i]] / 2, s), order[i]);
        at += p[order[i]];
    }
    assert_true(fabs(at - 1) < 1e-14); /* six roundings */
    assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, 0, s), 1);
    assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, top, s), 5);
    o.top_k = 3; /* 1 and 3, then the tie 2 = 4 survives whole */
    assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, top, s), 4);
    o.top_k = 1;
    assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, top, s), 3);
    o.temperature = 0; /* greedy: the lowest id of the best, whatever u */
    assert_int_equal(sample_draw(logits, 6, &o, NULL, 0, NULL, 0, top, s), 1);
    sample_probs(logits, 6, &o, NULL, 0, NULL, 0, p, s);
    assert_true(p[1] == 1 && p[3] == 0);
    sample_space_free(s);
}

/* top-k by heap equals top-k by counting, for every k, with many ties. */
static void top_k_counts(void **state)
{
    (void)state;
    enum { V = 200 };
    float  logits[V];
    double p[V];
    for (int i = 0; i < V; i++) logits[i] = (float)rng_below(9, 0, (uint64_t)i, 40) / 8;
    sample_space *s = sample_space_new(V);
    for (int k = 1; k <= V + 1; k++) {
        sample_opts o = plain;
        o.top_k       = k;
        sample_probs(logits, V, &o, NULL, 0, NULL, 0, p, s);
        for (int i = 0; i < V; i++) {
            int better = 0;
            for (int j = 0; j < V; j++) better += logits[j] > logits[i];
            assert_int_equal(p[i] > 0, better < k);
        }
    }
    sample_space_free(s);
}

static void penalty_bans_and_lifting(void **state)
{
    (void)state;
    const float   logits[] = { 5, 4, 3, 2 };
    sample_space *s = sample_space_new(4);
    sample_opts   o = plain;
    int           ban[] = { 0, 1, -3, 99 }; /* ids outside the vocabulary are nobody's */
    o.temperature   = 0;
    o.ban           = ban;
    o.n_ban         = 4;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, NULL, 0, 0, s), 2);
    o.sep = 2; /* minimum length bans it until enough tokens are drawn */
    o.min_new = 2;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 3 }, 1, 0, s), 3);
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 3, 3 }, 2, 0, s), 2);

    /* no-repeat: 3 2 | 3 -> 2 would close "3 2" again */
    o = plain;
    o.temperature = 0;
    o.no_repeat   = 2;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 1, 0, 1 }, 3, 0, s), 1);
    o.no_repeat = 1;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 1, 0, 1 }, 3, 0, s), 2);
    o.no_repeat = 5;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 1, 0, 1 }, 3, 0, s), 0);

    /* Everything banned: the n-gram goes first, then the minimum length, then the list. */
    int all[] = { 0, 1, 3 };
    o.no_repeat = 1;
    o.sep       = 2;
    o.ban       = all;
    o.n_ban     = 3;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, (int[]){ 2 }, 1, 0, s), 2);
    o.no_repeat = 0;
    o.min_new   = 9;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, NULL, 0, 0, s), 2);
    int every[] = { 0, 1, 2, 3 };
    o.ban   = every;
    o.n_ban = 4;
    assert_int_equal(sample_draw(logits, 4, &o, NULL, 0, NULL, 0, 0, s), 0);

    /* A penalty counts once per id, and ids outside are ignored. */
    o = plain;
    o.temperature = 0;
    o.rep_penalty = 1.3f;
    assert_int_equal(sample_draw(logits, 4, &o, (int[]){ 0, 0, 0, -1, 4 }, 5, NULL, 0, 0, s), 1);
    const float   close[] = { 5, 4.9f, 0, 0 };
    o.rep_penalty = 1.01f; /* once: 4.95 > 4.9; three times would be 4.85 */
    assert_int_equal(sample_draw(close, 4, &o, (int[]){ 0, 0, 0 }, 3, NULL, 0, 0, s), 0);
    sample_space_free(s);
}

static void numbers_that_are_none(void **state)
{
    (void)state;
    sample_space *s = sample_space_new(4);
    const float   nan_first[] = { NAN, -INFINITY, 1, 0 }, none[] = { NAN, -INFINITY, NAN, -INFINITY },
        inf[] = { 1, INFINITY, 3, INFINITY };
    double        p[4];
    for (int t = 0; t < 2; t++) {
        sample_opts o = plain;
        o.temperature = (float)t;
        for (int u = 0; u < 10; u++) {
            int id = sample_draw(nan_first, 4, &o, NULL, 0, NULL, 0, u / 10.0, s);
            assert_true(id == 2 || (t && id == 3));
            assert_int_equal(sample_draw(none, 4, &o, NULL, 0, NULL, 0, u / 10.0, s), 0);
            id = sample_draw(inf, 4, &o, NULL, 0, NULL, 0, u / 10.0, s);
            assert_true(id == 1 || (t && id == 3));
        }
    }
    sample_opts o = plain;
    o.temperature = 1e-30f; /* differences overflow to -inf: still a distribution */
    sample_probs(inf, 4, &o, NULL, 0, NULL, 0, p, s);
    assert_true(p[0] == 0 && p[1] == 0.5 && p[3] == 0.5);
    o.ban   = (int[]){ 2, 3 }; /* what is left has no finite logit: the ban is lifted rather than NaN drawn */
    o.n_ban = 2;
    assert_int_equal(sample_draw(nan_first, 4, &o, NULL, 0, NULL, 0, 0.3, s), 2);
    sample_space_free(s);
    assert_null(sample_space_new(0));
}

/* The same call gives the same answer whatever the scratch went through before. */
static void scratch_has_no_memory(void **state)
{
    (void)state;
    enum { V = 50 };
    float  logits[V];
    double p[V], q[V];
    for (int i = 0; i < V; i++) logits[i] = (float)rng_normal(4, 1, (uint64_t)i);
    sample_space *old = sample_space_new(V), *fresh = sample_space_new(V);
    for (int k = 0; k < 50; k++) {
        sample_opts o = { .temperature = 0.5f + (float)k / 50, .top_k = k % 7, .top_p = (float)(k % 5) / 4,
                          .rep_penalty = 1.2f, .sep = -1 };
        int         seen[] = { k, (k * 7) % V };
        sample_draw(logits, V, &o, seen, 2, seen, 2, 0.5, old);
    }
    sample_opts o = { .temperature = 0.9f, .top_k = 12, .top_p = 0.8f, .rep_penalty = 1.1f, .sep = -1 };
    sample_probs(logits, V, &o, (int[]){ 3, 4 }, 2, NULL, 0, p, old);
    sample_probs(logits, V, &o, (int[]){ 3, 4 }, 2, NULL, 0, q, fresh);
    assert_memory_equal(p, q, sizeof p);
    sample_space_free(old);
    sample_space_free(fresh);
}

static void logprob_is_log_softmax(void **state)
{
    (void)state;
    const float logits[] = { 1, 2, 3 };
    double      z = log(exp(1) + exp(2) + exp(3));
    /* ops_exp is a float */
    for (int i = 0; i < 3; i++) assert_true(fabs(sample_logprob(logits, 3, i) - ((double)logits[i] - z)) < 1e-6);
}

/* ---- against the rule, written down without any cleverness ---- */

static double naive_z(const float *logits, const sample_opts *o, const int *seen, int n_seen, const int *reply, int n_reply, int id)
{
    double z = (double)logits[id];
    if (isnan(z)) z = -INFINITY;
    if (z == INFINITY) z = 1.7976931348623157e308;
    for (int i = 0; i < n_seen; i++)
        if (seen[i] == id && z != -INFINITY) {
            z = z < 0 && o->rep_rule == PENALTY_SIGNED ? z * (double)o->rep_penalty : z / (double)o->rep_penalty;
            break;
        }
    for (int i = 0; i < o->n_ban; i++)
        if (o->ban[i] == id) z = -INFINITY;
    if (id == o->sep && n_reply < o->min_new) z = -INFINITY;
    for (int i = 0; i < n_reply - 1; i++)
        if (o->no_repeat == 2 && reply[i] == reply[n_reply - 1] && reply[i + 1] == id) z = -INFINITY;
    return z > 1.7976931348623157e308 ? 1.7976931348623157e308 : z;
}

/* Sorted, cut, summed: kept ids in the order of the walk, with their probabilities. */
static int naive(const float *logits, int V, const sample_opts *o, const int *seen, int n_seen, const int *reply, int n_reply, int *id, double *p)
{
    double *z = malloc((size_t)V * sizeof *z), sum = 0, mass = 0;
    int     n = 0, keep, cut;
    for (int i = 0; i < V; i++) {
        z[i] = naive_z(logits, o, seen, n_seen, reply, n_reply, i);
        if (z[i] == -INFINITY) continue;
        int at = n++;
        for (; at > 0 && z[id[at - 1]] < z[i]; at--) id[at] = id[at - 1]; /* equal ones stay in the order of ids */
        id[at] = i;
    }
    cut = o->top_k > 0 && o->top_k < n ? o->top_k : n;
    while (cut < n && z[id[cut]] == z[id[cut - 1]]) cut++;
    for (int i = 0; i < cut; i++) sum += p[i] = exp((z[id[i]] - z[id[0]]) / (double)o->temperature);
    for (keep = 0; keep < cut && (keep == 0 || o->top_p <= 0 || o->top_p >= 1 || mass < (double)o->top_p * sum - 1e-12); keep++) mass += p[keep];
    for (int i = 0; i < keep; i++) p[i] /= mass;
    free(z);
    return keep;
}

static void selection_is_the_total_order(void **state)
{
    (void)state;
    enum { MOST = 3000, TRIES = 400 };
    static float  logits[MOST];
    static double p[MOST], got[MOST];
    static int    id[MOST], seen[200], ban[200], reply[8];
    int           grid = 0;
    for (uint64_t t = 0; t < TRIES; t++) {
        int V = 1 + (int)rng_below(5, t, 0, t % 4 ? 300 : MOST), n_seen = (int)rng_below(5, t, 1, 200), n_reply = (int)rng_below(5, t, 2, 8);
        sample_opts o = { .temperature = 0.5f + (float)rng_unit(5, t, 3), .top_k = (int)rng_below(5, t, 4, 80), .top_p = rng_below(5, t, 5, 3) ? 0.9f : 0,
                          .rep_penalty = rng_below(5, t, 6, 3) ? 1.3f : 1, .rep_rule = (int)rng_below(5, t, 7, 2), .no_repeat = 2, .min_new = 4,
                          .sep = (int)rng_below(5, t, 8, (uint64_t)V), .ban = ban, .n_ban = (int)rng_below(5, t, 9, 200) };
        for (int i = 0; i < V; i++) {
            logits[i] = (float)(3 * rng_normal(6, t, (uint64_t)i));
            if (t % 3 == 0) logits[i] = roundf(logits[i]), grid++;                 /* many ties */
            if (rng_below(7, t, (uint64_t)i, 50) == 0) logits[i] = i % 2 ? NAN : -INFINITY;
        }
        for (int i = 0; i < 200; i++) seen[i] = (int)rng_below(8, t, (uint64_t)i, (uint64_t)V), ban[i] = (int)rng_below(9, t, (uint64_t)i, (uint64_t)V);
        for (int i = 0; i < 8; i++) reply[i] = (int)rng_below(10, t, (uint64_t)i, V < 3 ? 1 : 3);
        if (V < 250) o.n_ban /= 40;
        int n = naive(logits, V, &o, seen, n_seen, reply, n_reply, id, p);
        if (n == 0) continue; /* lifting of bans has its own test */
        sample_space *s = sample_space_new(V);
        sample_probs(logits, V, &o, seen, n_seen, reply, n_reply, got, s);
        int kept = 0;
        for (int i = 0; i < V; i++) kept += got[i] > 0;
        if (kept != n) fail_msg("try %d: %d ids kept, want %d", (int)t, kept, n);
        double mass = 0;
        for (int i = 0; i < n; i++) {
            if (fabs(got[id[i]] - p[i]) > 1e-12) fail_msg("try %d id %d: %.17g, want %.17g", (int)t, id[i], got[id[i]], p[i]);
            int drawn = sample_draw(logits, V, &o, seen, n_seen, reply, n_reply, mass + p[i] / 2, s); /* the middle of its share */
            if (p[i] > 1e-9 && drawn != id[i]) fail_msg("try %d: place %d of the walk is %d, want %d", (int)t, i, drawn, id[i]);
            mass += p[i];
        }
        o.temperature = 0;
        assert_int_equal(sample_draw(logits, V, &o, seen, n_seen, reply, n_reply, 0.5, s), id[0]);
        sample_space_free(s);
    }
    assert_true(grid > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_agree_with_pytorch), cmocka_unit_test(draw_follows_probs),    cmocka_unit_test(walk_order),
        cmocka_unit_test(selection_is_the_total_order), cmocka_unit_test(top_k_counts),               cmocka_unit_test(penalty_bans_and_lifting),
        cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(scratch_has_no_memory),      cmocka_unit_test(logprob_is_log_softmax),
    };
    return cmocka_run_group_tests_name("sample", tests, NULL, NULL);
}
