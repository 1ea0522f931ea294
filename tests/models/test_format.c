/* format: the layouts of DialoGPT and GPT2-chitchat as those programs make them, and what happens when things do not fit. */
#include "models/format.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "models/tokenizer.h"

enum { EOS = 9, CLS = 7, SEP = 8, MAX_TURNS = 16 };
static const format dialogpt = { FORMAT_DIALOGPT, -1, EOS }, cls_sep = { FORMAT_CLS_SEP, CLS, SEP };

static turn T(const int *id, int n, float weight) { return (turn){ .id = id, .n = n, .weight = weight }; }

static void same_ids(const ivec *got, const int *want, size_t n)
{
    assert_int_equal(got->n, n);
    for (size_t i = 0; i < n; i++)
        if (got->v[i] != want[i]) fail_msg("position %zu: %d, want %d", i, got->v[i], want[i]);
}
#define SAME(got, ...) same_ids(got, (int[]){ __VA_ARGS__ }, sizeof((int[]){ __VA_ARGS__ }) / sizeof(int))

static const int a[] = { 1, 2, 3 }, b[] = { 4, 5 }, c[] = { 6 };

static void prompts(void **state)
{
    (void)state;
    turn t[] = { T(a, 3, 1), T(b, 2, 1), T(c, 1, 1) };
    ivec v   = { 0 };
    int  first, cut;
    err  e;
    assert_int_equal(format_prompt(&dialogpt, t, 3, 0, 100, &v, &first, &cut, &e), OK);
    SAME(&v, 1, 2, 3, EOS, 4, 5, EOS, 6, EOS);
    assert_int_equal(format_length(&dialogpt, t, 3), v.n);
    assert_true(first == 0 && cut == 0);
    v.n = 0;
    assert_int_equal(format_prompt(&cls_sep, t, 3, 2, 100, &v, &first, &cut, &e), OK);
    SAME(&v, CLS, 4, 5, SEP, 6, SEP);
    assert_int_equal(first, 1);
    assert_int_equal(format_length(&cls_sep, t, 3), 10);

    v.n = 0; /* 9 ids exactly fit 9; 8 lose the oldest turn whole */
    assert_int_equal(format_prompt(&dialogpt, t, 3, 0, 9, &v, &first, &cut, &e), OK);
    assert_int_equal(v.n, 9);
    v.n = 0;
    assert_int_equal(format_prompt(&dialogpt, t, 3, 0, 8, &v, &first, &cut, &e), OK);
    SAME(&v, 4, 5, EOS, 6, EOS);
    assert_true(first == 1 && cut == 0);

    v.n = 0; /* a hidden turn is no turn; an older one that would fit does not jump over one that does not */
    t[1].hidden = 1;
    assert_int_equal(format_prompt(&cls_sep, t, 3, 2, 100, &v, &first, NULL, &e), OK);
    SAME(&v, CLS, 1, 2, 3, SEP, 6, SEP);
    turn gap[] = { T(c, 1, 1), T(a, 3, 1), T(c, 1, 1) };
    v.n = 0;
    assert_int_equal(format_prompt(&dialogpt, gap, 3, 0, 5, &v, &first, &cut, &e), OK);
    SAME(&v, 6, EOS);
    assert_int_equal(first, 2);

    v.n = 0; /* one line longer than everything: its beginning goes */
    assert_int_equal(format_prompt(&cls_sep, t, 1, 0, 4, &v, &first, &cut, &e), OK);
    SAME(&v, CLS, 2, 3, SEP);
    assert_true(first == 0 && cut == 1);
    v.n = 0;
    assert_int_equal(format_prompt(&dialogpt, gap, 2, 0, 3, &v, &first, &cut, &e), OK);
    SAME(&v, 2, 3, EOS);
    assert_true(first == 1 && cut == 1);

    v.n = 0;
    assert_int_equal(format_prompt(&cls_sep, t, 3, 0, 2, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(format_prompt(&dialogpt, t, 3, 0, -1, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(format_prompt(&dialogpt, t + 1, 1, 0, 50, &v, &first, &cut, &e), E_ARG); /* only hidden ones */
    assert_int_equal(format_prompt(&dialogpt, t, 0, 0, 50, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(format_prompt(&(format){ FORMAT_DIALOGPT, -1, -1 }, t, 1, 0, 50, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(format_prompt(&(format){ 0, -1, 3 }, t, 1, 0, 50, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(format_prompt(&(format){ FORMAT_CLS_SEP, -1, 3 }, t, 1, 0, 50, &v, &first, &cut, &e), E_ARG);
    assert_int_equal(v.n, 0);
    ivec_free(&v);
}

static void reversed_inputs(void **state)
{
    (void)state;
    turn      t[] = { T(a, 3, 1), T(b, 2, 1), T(c, 1, 1) };
    const int r[] = { 11, 12 };
    ivec      v   = { 0 };
    int       from;
    err       e;
    assert_int_equal(format_reverse(&dialogpt, t, 3, 0, r, 2, 100, &v, &from, &e), OK);
    SAME(&v, 11, 12, EOS, 6, EOS, 4, 5, EOS, 1, 2, 3, EOS); /* turns turned round, tokens not */
    assert_int_equal(from, 3);
    v.n = 0;
    assert_int_equal(format_reverse(&cls_sep, t, 3, 1, r, 2, 100, &v, &from, &e), OK);
    SAME(&v, CLS, 11, 12, SEP, 6, SEP);
    assert_int_equal(from, 4);
    v.n = 0;
    assert_int_equal(format_reverse(&cls_sep, t, 3, 0, r, 2, 10, &v, &from, &e), OK); /* the oldest does not fit */
    SAME(&v, CLS, 11, 12, SEP, 6, SEP, 4, 5, SEP);
    v.n = 0;
    assert_int_equal(format_reverse(&cls_sep, t, 1, 0, r, 2, 6, &v, &from, &e), OK); /* one source, its tail cut */
    SAME(&v, CLS, 11, 12, SEP, 1, 2);
    v.n = 0;
    assert_int_equal(format_reverse(&cls_sep, t, 1, 0, r, 2, 4, &v, &from, &e), E_LIMIT);
    assert_int_equal(format_reverse(&cls_sep, t, 0, 0, r, 2, 40, &v, &from, &e), E_ARG);
    v.n = 0;
    ivec_push(&v, 99); /* appended behind what is there; from counts from the start of ids */
    t[2].hidden = 1;
    assert_int_equal(format_reverse(&dialogpt, t, 3, 1, r, 2, 100, &v, &from, &e), OK);
    SAME(&v, 99, 11, 12, EOS, 4, 5, EOS);
    assert_int_equal(from, 4);
    ivec_free(&v);
}

static void same_weights(const fvec *w, const float *want, size_t n)
{
    assert_int_equal(w->n, n);
    for (size_t i = 0; i < n; i++)
        if (w->v[i] != want[i]) fail_msg("weight %zu: %g, want %g", i, (double)w->v[i], (double)want[i]);
}
#define WEIGHTS(got, ...) same_weights(got, (float[]){ __VA_ARGS__ }, sizeof((float[]){ __VA_ARGS__ }) / sizeof(float))

static void training_rows(void **state)
{
    (void)state;
    turn t[] = { T(a, 3, 0), T(b, 2, 1), T(c, 1, 0.5f) };
    ivec v = { 0 };
    fvec w = { 0 };
    err  e;
    assert_int_equal(format_train(&dialogpt, t, 3, 0, 0, &v, &w, &e), OK);
    SAME(&v, 1, 2, 3, EOS, 4, 5, EOS, 6, EOS);
    WEIGHTS(&w, 0, 0, 0, 0, 1, 1, 1, 0.5f, 0.5f);
    v.n = w.n = 0; /* reversed: the source of weight 0 is what must be learned */
    assert_int_equal(format_train(&dialogpt, t, 3, 1, 0, &v, &w, &e), OK);
    SAME(&v, 6, EOS, 4, 5, EOS, 1, 2, 3, EOS);
    WEIGHTS(&w, 0, 0, 1, 1, 1, 1, 1, 1, 1);
    v.n = w.n = 0;
    assert_int_equal(format_train(&cls_sep, t, 3, 0, 1, &v, &w, &e), OK);
    SAME(&v, CLS, 1, 2, 3, SEP, 4, 5, SEP, 6, SEP);
    WEIGHTS(&w, 0, 0, 0, 0, 0, 1, 1, 1, 0.5f, 0.5f);
    v.n = w.n = 0;
    t[0].weight = 1; /* everything but the first id is a target; without a BOS that is the first token of the first turn */
    assert_int_equal(format_train(&dialogpt, t, 2, 0, 1, &v, &w, &e), OK);
    WEIGHTS(&w, 0, 1, 1, 1, 1, 1, 1);
    v.n = w.n = 0; /* all alike: nothing is lifted */
    t[0].weight = t[1].weight = 0;
    assert_int_equal(format_train(&dialogpt, t, 2, 1, 0, &v, &w, &e), OK);
    WEIGHTS(&w, 0, 0, 0, 0, 0, 0, 0);
    v.n = w.n = 0;
    t[1].hidden = 1;
    assert_int_equal(format_train(&dialogpt, t, 2, 0, 1, &v, &w, &e), OK);
    SAME(&v, 1, 2, 3, EOS);
    assert_int_equal(format_train(&dialogpt, t + 1, 1, 0, 1, &v, &w, &e), E_ARG);
    t[0].weight = -1;
    assert_int_equal(format_train(&dialogpt, t, 1, 0, 1, &v, &w, &e), E_ARG);
    ivec_free(&v);
    fvec_free(&w);
}

/* ---- the reference programs' own outputs ------------------------------------------------------------------------ */

static json_t *load(const char *path)
{
    json_error_t je;
    json_t      *j = json_load_file(path, 0, &je);
    if (!j) fail_msg("%s: %s", path, je.text);
    return j;
}

typedef struct {
    turn t[MAX_TURNS];
    ivec ids[MAX_TURNS];
    int  n;
} dialogue;

static void add_turn(dialogue *d, const tokenizer *t, str text, float weight)
{
    err e;
    assert_true(d->n < MAX_TURNS);
    assert_int_equal(tokenizer_encode(t, text, &d->ids[d->n], &e), OK);
    d->t[d->n] = T(d->ids[d->n].v, (int)d->ids[d->n].n, weight);
    d->n++;
}

static void drop(dialogue *d)
{
    for (int i = 0; i < d->n; i++) ivec_free(&d->ids[i]);
    memset(d, 0, sizeof *d);
}

static void history_of(dialogue *d, const tokenizer *t, const json_t *list)
{
    size_t  i;
    json_t *x;
    json_array_foreach(list, i, x) add_turn(d, t, str_of(json_string_value(x)), 1);
}

static void same_as_json(const ivec *got, const json_t *want)
{
    assert_int_equal(got->n, json_array_size(want));
    for (size_t i = 0; i < got->n; i++) assert_int_equal(got->v[i], json_integer_value(json_array_get(want, i)));
}

static void gpt2_chitchat(void **state)
{
    (void)state;
    err        e;
    tokenizer *t;
    size_t     i;
    json_t    *root = load("tests/vectors/dialog/chitchat.json"), *x;
    assert_int_equal(tokenizer_open_wordpiece(&t, "tests/vectors/tokenizer/chitchat_vocab.txt", 1, &e), OK);
    format f = { FORMAT_CLS_SEP, tokenizer_specials(t).bos, tokenizer_specials(t).eos };
    assert_true(f.bos == 101 && f.sep == 102);
    json_array_foreach(json_object_get(root, "interact"), i, x) {
        dialogue d = { 0 };
        ivec     v = { 0 };
        history_of(&d, t, json_object_get(x, "history"));
        int max = (int)json_integer_value(json_object_get(x, "max_history_len"));
        assert_int_equal(format_prompt(&f, d.t, d.n, max, 300, &v, NULL, NULL, &e), OK);
        same_as_json(&v, json_object_get(x, "input_ids"));
        ivec_free(&v);
        drop(&d);
    }
    assert_int_equal(i, 4);
    json_array_foreach(json_object_get(root, "mmi"), i, x) {
        dialogue d = { 0 };
        ivec     v = { 0 }, r = { 0 };
        int      from, max = (int)json_integer_value(json_object_get(x, "max_history_len"));
        history_of(&d, t, json_object_get(x, "history"));
        assert_int_equal(tokenizer_encode(t, str_of(json_string_value(json_object_get(x, "response"))), &r, &e), OK);
        assert_int_equal(format_reverse(&f, d.t, d.n, max, r.v, (int)r.n, 300, &v, &from, &e), OK);
        same_as_json(&v, json_object_get(x, "mmi_input_ids_intended"));
        assert_int_equal(from, r.n + 2);
        ivec_free(&v);
        ivec_free(&r);
        drop(&d);
    }
    assert_int_equal(i, 2);
    json_decref(root);
    tokenizer_close(t);
}

/* The turns of line `n` of the TSV: " EOS " and TAB between turns, a number before a turn is its weight, words joined by
 * one space; a target of weight 0 is dropped (prepro.py). */
static void read_tsv(dialogue *d, const tokenizer *t, int n)
{
    char  line[4096], all[4200], words[4096] = "";
    float weight = 1;
    int   fresh  = 1;
    FILE *f      = fopen("tests/vectors/dialog/dialogpt_train.tsv", "r");
    assert_non_null(f);
    for (int i = 0; i <= n; i++) assert_non_null(fgets(line, sizeof line, f));
    fclose(f);
    char *tab = strchr(line, '\t');
    assert_non_null(tab);
    *tab = 0;
    snprintf(all, sizeof all, "%s EOS %s", line, tab + 1);
    for (char *save = NULL, *w = strtok_r(all, " \n", &save), *end; w; w = strtok_r(NULL, " \n", &save)) {
        if (strcmp(w, "EOS") == 0) {
            add_turn(d, t, str_of(words), weight);
            words[0] = 0;
            weight   = 1;
            fresh    = 1;
            continue;
        }
        float x = strtof(w, &end);
        if (fresh && !*end) weight = x;
        else snprintf(strchr(words, 0), sizeof words - strlen(words), "%s%s", words[0] ? " " : "", w);
        fresh = 0;
    }
    if (weight != 0) add_turn(d, t, str_of(words), weight);
}

static void dialogpt_prepro(void **state)
{
    (void)state;
    err        e;
    tokenizer *t;
    size_t     i, compared = 0;
    json_t    *root = load("tests/vectors/dialog/dialogpt_prepro.json"), *x;
    assert_int_equal(tokenizer_open_bpe(&t, "tests/vectors/tokenizer/gpt2_vocab.json",
                                        "tests/vectors/tokenizer/gpt2_merges.txt", &e), OK);
    format f = { FORMAT_DIALOGPT, -1, tokenizer_specials(t).eos };
    assert_int_equal(f.sep, 50256);
    json_array_foreach(json_object_get(root, "cases"), i, x) {
        const json_t *features = json_object_get(x, "features");
        /* nothing is cut here */
        if (json_integer_value(json_object_get(x, "max_seq_len")) != 128 || json_array_size(features) == 0) continue;
        dialogue d = { 0 };
        ivec     v = { 0 };
        fvec     w = { 0 };
        int      reverse = json_is_true(json_object_get(x, "reverse")), mixed = 0;
        read_tsv(&d, t, (int)json_integer_value(json_object_get(x, "line")));
        for (int k = 1; k < d.n; k++) mixed |= d.t[k].weight != d.t[0].weight;
        assert_int_equal(format_train(&f, d.t, d.n, reverse, 0, &v, &w, &e), OK);
        const json_t *feature = json_array_get(features, 0), *ids = json_object_get(feature, "input_ids"),
                     *labels = json_object_get(feature, "lm_labels"), *pw = json_object_get(feature, "weights");
        size_t theirs = json_array_size(ids); /* padded to a multiple of 8; a last turn of weight 0 is left out */
        assert_true(theirs % 8 == 0 && (mixed || v.n - 1 <= theirs) && theirs < v.n - 1 + 8);
        for (size_t k = 0; k + 1 < v.n && k < theirs; k++) {
            if (v.v[k] == f.sep && json_integer_value(json_array_get(ids, k)) == 0) break; /* their padding */
            int    label = (int)json_integer_value(json_array_get(labels, k));
            double lw    = json_number_value(json_array_get(pw, k));
            assert_int_equal(v.v[k], json_integer_value(json_array_get(ids, k)));
            if (label >= 0) { /* every target of theirs is one of ours, with their weight */
                assert_int_equal(v.v[k + 1], label);
                assert_true((double)w.v[k + 1] == lw);
            } else if (!(reverse && mixed)) { /* and the other way, but that reversed we also learn the sources of weight 0 */
                assert_true(w.v[k + 1] == 0);
            }
        }
        compared++;
        ivec_free(&v);
        fvec_free(&w);
        drop(&d);
    }
    assert_int_equal(compared, 17);
    json_decref(root);
    tokenizer_close(t);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(format_name(FORMAT_DIALOGPT), "dialogpt");
    assert_int_equal(format_of_name("cls_sep"), FORMAT_CLS_SEP);
    assert_int_equal(format_of_name("CLS"), 0);
    assert_int_equal(format_of_name(NULL), 0);
    assert_null(format_name(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts),       cmocka_unit_test(reversed_inputs), cmocka_unit_test(training_rows),
        cmocka_unit_test(gpt2_chitchat), cmocka_unit_test(dialogpt_prepro), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
