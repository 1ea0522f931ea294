/* vocab_build: a trained vocabulary against examples worked by hand and against the plain algorithm; it does not depend on the order of
 * the lines; it can be written and read. */
#include "models/tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define V "tests/vectors/tokenizer/"
static char       dir[] = "/tmp/duet-vocab-XXXXXX";
static tokenizer *gpt2;

static ivec encode(const tokenizer *t, str s)
{
    ivec v = { 0 };
    err  e;
    assert_int_equal(tokenizer_encode(t, s, &v, &e), OK);
    return v;
}

static buf decode(const tokenizer *t, const ivec *v)
{
    buf b = { 0 };
    err e;
    assert_int_equal(tokenizer_decode(t, v->v, v->n, &b, &e), OK);
    buf_str(&b, (str){ "", 0 });
    return b;
}

static int digests_equal(const tokenizer *a, const tokenizer *b)
{
    unsigned char x[32], y[32];
    tokenizer_digest(a, x);
    tokenizer_digest(b, y);
    return memcmp(x, y, 32) == 0;
}

/* Written as vocabulary files and read again, it is the same tokenizer. */
static void check_export(const tokenizer *t)
{
    static const char *const file[] = { "vocab.json", "merges.txt", "vocab.txt", "tokenizer_config.json" };
    tokenizer *back;
    char       path[300];
    err        e;
    assert_int_equal(tokenizer_export(t, dir, &e), OK);
    int r = tokenizer_kind(t) == TOK_BPE ? tokenizer_open_bpe(&back, dir, NULL, &e)
                                         : tokenizer_open_wordpiece(&back, dir, tokenizer_lower(t), &e);
    if (r) fail_msg("%s", e.msg);
    assert_true(digests_equal(t, back));
    tokenizer_close(back);
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, file[i]);
        unlink(path);
    }
}

/* A vocabulary from n lines, in the order given or (shuffle > 0) in one drawn. */
static tokenizer *train(int kind, int lower, int size, double min_count, const char *const *line, const double *weight, size_t n,
                        uint64_t shuffle)
{
    tokenizer_trainer *tr;
    tokenizer         *t;
    err                e;
    size_t            *order = malloc((n + 1) * sizeof *order);
    assert_non_null(order);
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n; shuffle && i > 1; i--) {
        size_t j = rng_below(shuffle, 0, i, i), x = order[i - 1];
        order[i - 1] = order[j], order[j] = x;
    }
    assert_int_equal(tokenizer_trainer_new(&tr, kind, lower, &e), OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tokenizer_trainer_add(tr, str_of(line[order[i]]), weight ? weight[order[i]] : 1, &e), OK);
    int r = tokenizer_trainer_build(tr, size, min_count, &t, &e);
    if (r) fail_msg("%s", e.msg);
    tokenizer_trainer_free(tr);
    free(order);
    return t;
}

/* The worked example of Sennrich et al.: low x5, lower x2, newest x6, widest x3, as words after a space. */
static void trained_bpe(void **s)
{
    (void)s;
    static const char *const line[] = { " low", " lower", " newest", " widest" };
    static const double      weight[] = { 5, 2, 6, 3 };
    /* By hand: e s and s t are seen 9 times, e comes first; es t 9; then l o, o w and Ġ l 7 each, and Ġ (220) comes after the letters;
     * Ġ lo and lo w 7 each, and lo (258) comes after Ġ; Ġlo w 7; then e w, n e, Ġ n, w est 6 each. */
    static const char *const want[] = { "es", "est", "lo", "\xC4\xA0lo", "\xC4\xA0low", "ew" };
    tokenizer *t = train(TOK_BPE, 0, 257 + 6, 2, line, weight, 4, 0);
    assert_int_equal(tokenizer_size(t), 263);
    for (int i = 0; i < 6; i++) {
        str got = tokenizer_token(t, 256 + i);
        if (!str_eq(got, str_of(want[i]))) fail_msg("merge %d is %.*s", i, (int)got.n, got.s);
    }
    assert_int_equal(tokenizer_specials(t).eos, 262);
    for (int id = 0; id < 256; id++) assert_true(str_eq(tokenizer_token(t, id), tokenizer_token(gpt2, id))); /* GPT-2's order */
    const str text = STR("low lower \xFF\x00 new\n\n");
    ivec      ids  = encode(t, text);
    buf       back = decode(t, &ids);
    assert_true(str_eq(buf_view(&back), text));
    ivec_free(&ids), buf_free(&back);
    check_export(t);
    tokenizer_close(t);
    t = train(TOK_BPE, 0, 1000, 100, line, weight, 4, 0); /* no pair is seen 100 times */
    assert_int_equal(tokenizer_size(t), 257);
    check_export(t);
    tokenizer_close(t);
}

static void trained_wordpiece(void **s)
{
    (void)s;
    static const char *const line[] = { "你好你好吗", "Ünited 你 united", "uniter 再", "don't!", "united!" };
    tokenizer *t = train(TOK_WORDPIECE, 1, 400, 2, line, NULL, 5, 0);
    static const char *const first[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "n", "t" /* 5 each */,
                                         "d", "e", "i", "u" /* 4 each */, "你" };
    for (size_t i = 0; i < sizeof first / sizeof *first; i++) assert_int_equal(tokenizer_find(t, str_of(first[i])), (int)i);
    assert_true(tokenizer_find(t, STR("你")) > 0 && tokenizer_find(t, STR("好")) > 0);
    assert_int_equal(tokenizer_find(t, STR("吗")), -1); /* seen once */
    static const char *const always[] = { "a", "z", "q", "0", "9", "##z", "##0", "!", "~", "，", "。", "？", "“", "…" };
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) assert_true(tokenizer_find(t, str_of(always[i])) > 0);
    assert_int_equal(tokenizer_find(t, STR("A")), -1);
    assert_true(tokenizer_find(t, STR("united")) > 0);
    assert_int_equal(tokenizer_find(t, STR("don")), -1); /* seen once */
    ivec ids = encode(t, STR("United 你好吗 再 q9"));
    buf  b   = decode(t, &ids);
    assert_string_equal(b.s, "united你好q9");
    ivec_free(&ids), buf_free(&b);
    check_export(t);
    tokenizer_close(t);
}

static void trained_in_any_order(void **s)
{
    (void)s;
    enum { N = 1500 };
    static char        text[N][80];
    static const char *line[N];
    double             weight[N];
    static const char *const syllable[] = { "ka", "to", "ri", " ", "mun", "你", "好", "的", "ing", ", ", "é", "st", "aa" };
    for (uint64_t i = 0; i < N; i++) {
        text[i][0] = 0;
        for (uint64_t k = 0, n = 1 + rng_below(5, i, 0, 11); k < n; k++) strcat(text[i], syllable[rng_below(5, i, k + 1, 13)]);
        line[i]   = text[i];
        weight[i] = 0.1 + 3 * rng_unit(6, i, 0); /* sums of these depend on their order in floating point */
    }
    for (int kind = TOK_BPE; kind <= TOK_WORDPIECE; kind++) {
        tokenizer *a = train(kind, 1, 600, 1, line, weight, N, 0);
        assert_true(tokenizer_size(a) > 500);
        for (uint64_t seed = 1; seed <= 4; seed++) {
            tokenizer *b = train(kind, 1, 600, 1, line, weight, N, seed);
            assert_true(digests_equal(a, b));
            tokenizer_close(b);
        }
        weight[0] += 50; /* the counts do matter */
        tokenizer *c = train(kind, 1, 600, 1, line, weight, N, 0);
        assert_false(digests_equal(a, c));
        weight[0] -= 50;
        tokenizer_close(a), tokenizer_close(c);
    }
}

/* Pair counts kept up to date must be the counts a recount gives: the merges of the trainer are those of the plain algorithm. */
static void trained_by_the_book(void **s)
{
    (void)s;
    enum { WORDS = 60, LEN = 24, MERGES = 120 };
    static char        text[WORDS][LEN + 1];
    static const char *line[WORDS];
    static int         sym[WORDS][LEN], len[WORDS];
    static char        name[256 + MERGES][LEN + 1]; /* words of at most LEN letters */
    for (uint64_t w = 0; w < WORDS; w++) {
        len[w] = (int)(1 + rng_below(8, w, 0, LEN));
        for (int i = 0; i < len[w]; i++) text[w][i] = (char)('a' + rng_below(8, w, (uint64_t)i + 1, 3));
        line[w] = text[w];
        for (int i = 0; i < len[w]; i++) sym[w][i] = tokenizer_find(gpt2, (str){ &text[w][i], 1 }); /* the same ids of single bytes */
    }
    tokenizer *t = train(TOK_BPE, 0, 257 + MERGES, 1, line, NULL, WORDS, 0);
    for (int id = 0; id < 256; id++) snprintf(name[id], sizeof name[id], "%.*s", (int)tokenizer_token(t, id).n, tokenizer_token(t, id).s);
    int n = 256, done;
    for (; n < tokenizer_size(t) - 1; n += done) {
        int best = 0, a = 0, b = 0;
        for (int w = 0; w < WORDS; w++)
            for (int i = 0; i + 1 < len[w]; i++) {
                int x = sym[w][i], y = sym[w][i + 1], c = 0;
                for (int v = 0; v < WORDS; v++)
                    for (int k = 0; k + 1 < len[v]; k++) c += sym[v][k] == x && sym[v][k + 1] == y;
                if (c > best || (c == best && (x < a || (x == a && y < b)))) best = c, a = x, b = y;
            }
        assert_true(best > 0);
        char joined[2 * LEN + 1];
        snprintf(joined, sizeof joined, "%s%s", name[a], name[b]);
        int c = 256;
        while (c < n && strcmp(name[c], joined)) c++;
        done = c == n; /* another pair may have given the same string */
        if (done) {
            snprintf(name[n], sizeof name[n], "%.24s", joined);
            str got = tokenizer_token(t, n);
            if (!str_eq(got, str_of(joined))) fail_msg("token %d is %.*s, by the book %s", n, (int)got.n, got.s, joined);
        }
        for (int w = 0; w < WORDS; w++) {
            int k = 0;
            for (int i = 0; i < len[w]; i++, k++) {
                if (i + 1 < len[w] && sym[w][i] == a && sym[w][i + 1] == b) sym[w][k] = c, i++;
                else sym[w][k] = sym[w][i];
            }
            len[w] = k;
        }
    }
    assert_true(n > 256 + 50);
    tokenizer_close(t);
}

static void trainer_limits(void **s)
{
    (void)s;
    tokenizer_trainer *tr;
    tokenizer         *t;
    err                e;
    assert_int_equal(tokenizer_trainer_new(&tr, 9, 0, &e), E_ARG);
    assert_int_equal(tokenizer_trainer_new(&tr, TOK_BPE, 0, &e), OK);
    assert_int_equal(tokenizer_trainer_add(tr, STR("x"), -1, &e), E_ARG);
    assert_int_equal(tokenizer_trainer_add(tr, STR("x"), (double)NAN, &e), E_ARG);
    assert_int_equal(tokenizer_trainer_build(tr, 256, 1, &t, &e), E_ARG);
    assert_int_equal(tokenizer_trainer_build(tr, 1 << 30, 1, &t, &e), E_ARG);
    assert_int_equal(tokenizer_trainer_build(tr, 300, 1, &t, &e), OK); /* nothing to merge */
    assert_int_equal(tokenizer_size(t), 257);
    tokenizer_close(t), tokenizer_trainer_free(tr);
    assert_int_equal(tokenizer_trainer_new(&tr, TOK_WORDPIECE, 1, &e), OK);
    assert_int_equal(tokenizer_trainer_build(tr, 50, 1, &t, &e), E_ARG);
    assert_non_null(strstr(e.msg, "needs at least"));
    tokenizer_trainer_free(tr);
    tokenizer_trainer_free(NULL);
}

static int set_up(void **s)
{
    (void)s;
    err e;
    return mkdtemp(dir) ? tokenizer_open_bpe(&gpt2, V "gpt2_vocab.json", V "gpt2_merges.txt", &e) : -1;
}

static int tear_down(void **s)
{
    (void)s;
    tokenizer_close(gpt2);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trained_bpe),
        cmocka_unit_test(trained_wordpiece),
        cmocka_unit_test(trained_in_any_order),
        cmocka_unit_test(trained_by_the_book),
        cmocka_unit_test(trainer_limits),
    };
    return cmocka_run_group_tests_name("vocab_build", tests, set_up, tear_down);
}
