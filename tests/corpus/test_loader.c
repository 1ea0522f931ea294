/* loader: order, windows, direction, mixing, the held-out part, and going on from a state. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "corpus/loader.h"
#include "tests/corpus/help.h"

enum { EOS = 0, VOCAB = 60000 };
static const format dialogpt = { FORMAT_DIALOGPT, -1, EOS }, cls_sep = { FORMAT_CLS_SEP, 1, EOS };

/* `n` dialogues; turn t of dialogue i has length len(i, t) and is made of one id that names it: base + i * 16 + t. */
static shard *make(const char *name, int base, int n, int turns, const int *len, int n_len, double share, const float *weight)
{
    shard_writer *w;
    shard        *s;
    err           e;
    char          path[512];
    unsigned char digest[32] = { 9 };
    snprintf(path, sizeof path, "%s", scratch(name));
    if (shard_create(&w, path, digest, VOCAB, STR(""), share, 1, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < n; i++) {
        static int id[16][400];
        turn       t[16];
        for (int k = 0; k < turns; k++) {
            t[k] = (turn){ .text = STR("ab"), .id = id[k], .n = len[(i * turns + k) % n_len], .weight = weight ? weight[k] : 1 };
            for (int j = 0; j < t[k].n; j++) id[k][j] = base + i * 16 + k;
        }
        if (shard_add(w, t, turns, (uint64_t)i, &e)) fail_msg("%s", e.msg);
    }
    if (shard_finish(w, NULL, &e) || shard_open(&s, path, &e)) fail_msg("%s", e.msg);
    return s;
}

static loader *open_loader(shard **s, int n, loader_opts o)
{
    loader *l;
    err     e;
    if (loader_new(&l, (const shard *const *)s, n, &o, &e)) fail_msg("%s", e.msg);
    return l;
}

static void permutation(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 1, 2, 3, 4, 5, 16, 17, 100, 1000, 4097 };
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        uint64_t       n = sizes[k], moved = 0;
        unsigned char *seen = calloc(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t j = shuffled(5, 3, n, i);
            assert_true(j < n && !seen[j]);
            seen[j] = 1;
            moved += j != i;
        }
        if (n >= 100) assert_true(moved > n * 9 / 10);
        free(seen);
    }
    uint64_t same = 0;
    for (uint64_t i = 0; i < 1000; i++) same += shuffled(5, 3, 1000, i) == shuffled(5, 4, 1000, i);
    assert_true(same < 20); /* another epoch, another order: 1 expected */
    uint64_t big = shuffled(1, 1, (uint64_t)1 << 62, 12345); /* no overflow near the top */
    assert_true(big < (uint64_t)1 << 62);
}

/* Over one epoch: how often each turn is a target, with its separator; rows fit; weights begin with 0. */
typedef struct {
    int    target[16 * 64], rows;
    double tokens;
} tally;
static void count_rows(const batch *b, const loader_opts *o, int base, tally *c)
{
    size_t at = 0;
    assert_int_equal(b->id.n, b->weight.n);
    assert_true(b->b.n_tok <= o->max_tok && b->b.n_seq <= o->max_seq && b->b.n_tok == (int)b->id.n && b->b.n_seq == (int)b->len.n);
    double sum = 0;
    for (size_t r = 0; r < b->len.n; r++) {
        int n = b->len.v[r];
        assert_true(n <= o->n_ctx && b->weight.v[at] == 0);
        if (o->fmt.bos >= 0) assert_int_equal(b->id.v[at], o->fmt.bos);
        for (int t = o->fmt.bos >= 0; t < n;) {
            int k = b->id.v[at + (size_t)t] - base, on = b->weight.v[at + (size_t)t + 1] > 0; /* the second token of the turn speaks for it, see below */
            int m = 0;
            while (b->id.v[at + (size_t)(t + m)] == base + k) m++;
            assert_int_equal(b->id.v[at + (size_t)(t + m)], EOS);
            for (int j = t ? 0 : 1; j <= m; j++) assert_int_equal(b->weight.v[at + (size_t)(t + j)] > 0, on);
            c->target[k] += on;
            t += m + 1;
        }
        for (int t = 0; t < n; t++) sum += (double)b->weight.v[at + (size_t)t];
        at += (size_t)n;
    }
    assert_true(fabs(sum - b->n_target) < 1e-6);
    c->rows += (int)b->len.n;
    c->tokens += (double)b->id.n;
}

static void windows(void **state)
{
    (void)state;
    /* 40 dialogues of 8 turns, 2 to 9 tokens; rows of 24 tokens hold two to five turns; two neighbours always fit (9 + 1 + 9 + 1 + bos). */
    static const int len[] = { 3, 9, 2, 5, 4, 9, 9, 2, 6, 7, 8 };
    shard           *s     = make("w", 2, 40, 8, len, 11, 0, NULL);
    for (int mode = 0; mode < 8; mode++) {
        loader_opts o = { mode & 1 ? cls_sep : dialogpt, .reversed = mode >> 1 & 1, .loss_all = mode >> 2 & 1, .n_ctx = 24, .max_tok = 60, .max_seq = 9, .seed = 3 };
        loader     *l = open_loader(&s, 1, o);
        batch       b = { 0 };
        tally       c = { .rows = 0 };
        while (loader_epochs(l, 0) < 1) {
            assert_int_equal(loader_next(l, &b, NULL), OK);
            count_rows(&b, &o, 2, &c);
        }
        /* The last batch may have begun the next epoch: count only what is past doubt, each turn of the first epoch at most once plus that batch. */
        int once = 0, more = 0;
        for (int i = 0; i < 40; i++)
            for (int k = 0; k < 8; k++) {
                int first = k == (o.reversed ? 7 : 0), n = c.target[i * 16 + k];
                if (first && !o.loss_all) {
                    assert_int_equal(n, 0);
                    continue;
                }
                assert_true(n >= 1); /* nothing is forgotten */
                once += n == 1;
                more += n > 1;
            }
        assert_true(more <= 10); /* turns of the batch that began epoch two: 60 tokens at most */
        assert_true(once > 240);
        assert_int_equal(loader_left_out(l), 0);
        batch_free(&b);
        loader_free(l);
    }
    shard_close(s);
}

static void too_long(void **state)
{
    (void)state;
    /* turns: 5, 30 (never fits 24), 5, 15, 12 (does not fit beside 15), 3 */
    static const int len[] = { 5, 30, 5, 15, 12, 3 };
    shard           *s     = make("l", 2, 1, 6, len, 6, 0, NULL);
    loader_opts      o     = { dialogpt, .n_ctx = 24, .max_tok = 24, .max_seq = 9, .seed = 3 };
    loader          *l     = open_loader(&s, 1, o);
    batch            b     = { 0 };
    /* rows of an epoch: {5, 15}; {12, 3}: the turn of 5 before the long one has nobody to answer */
    static const int want[][4] = { { 4, 5, 5, 15 }, { 6, 12, 7, 3 } };
    for (int r = 0; r < 4; r++) {
        assert_int_equal(loader_next(l, &b, NULL), OK);
        const int *w = want[r & 1];
        assert_int_equal(b.b.n_seq, 1);
        assert_int_equal(b.b.n_tok, w[1] + w[3] + 2);
        assert_int_equal(b.id.v[0], w[0]);
        assert_int_equal(b.id.v[w[1] + 1], w[2]);
        assert_true(b.n_target == w[3] + 1);
        assert_true(b.chars == 3); /* two characters and the end */
    }
    assert_true(loader_left_out(l) >= 2);
    batch_free(&b);
    loader_free(l);
    shard_close(s);
}

static void refusals(void **state)
{
    (void)state;
    static const int   two[] = { 2 };
    static const float first_only[] = { 1, 0 };
    shard             *a = make("r1", 2, 4, 2, two, 1, 0, first_only), *b = make("r2", 2, 1, 1, two, 1, 0, NULL);
    loader            *l;
    err                e;
    loader_opts        o = { dialogpt, .n_ctx = 24, .max_tok = 48, .max_seq = 9 };
    assert_int_equal(loader_new(&l, (const shard *const *)&a, 1, &o, &e), E_FORMAT); /* forward: the only target has weight 0 */
    assert_non_null(strstr(e.msg, "no target tokens"));
    o.reversed = 1; /* DialoGPT's own weights, reversed: the source is the target (its issue 41) */
    l          = open_loader(&a, 1, o);
    loader_free(l);
    assert_int_equal(loader_new(&l, (const shard *const *)&b, 1, &o, &e), E_FORMAT);
    o.max_tok = 20;
    assert_int_equal(loader_new(&l, (const shard *const *)&a, 1, &o, &e), E_ARG);
    o.n_ctx = 2;
    assert_int_equal(loader_new(&l, (const shard *const *)&a, 1, &o, &e), E_ARG);
    shard_close(a);
    shard_close(b);
}

static void mixing(void **state)
{
    (void)state;
    static const int la[] = { 3, 4 }, lb[] = { 8, 2, 5 };
    shard           *s[2] = { make("m1", 100, 50, 2, la, 2, 0, NULL), make("m2", 2000, 80, 4, lb, 3, 0, NULL) };
    loader_opts      o    = { dialogpt, .n_ctx = 40, .max_tok = 200, .max_seq = 60, .seed = 1 };
    loader          *l    = open_loader(s, 2, o);
    batch            b    = { 0 };
    double           share[] = { 0.75, 0.25 }, got[2] = { 0 };
    assert_int_equal(loader_mix(l, share, NULL), OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(loader_next(l, &b, NULL), OK);
        size_t at = 0;
        for (size_t r = 0; r < b.len.n; at += (size_t)b.len.v[r++]) got[b.id.v[at] >= 2000] += b.len.v[r];
    }
    assert_true(fabs(got[0] / (got[0] + got[1]) - 0.75) < 0.005); /* never further off than about one row */
    double none[] = { 0, 1 };
    assert_int_equal(loader_mix(l, none, NULL), OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(loader_next(l, &b, NULL), OK);
        assert_true(i == 0 || b.id.v[0] >= 2000);
    }
    double bad[] = { 0, 0 }, worse[] = { -1, 2 };
    assert_int_equal(loader_mix(l, bad, NULL), E_ARG);
    assert_int_equal(loader_mix(l, worse, NULL), E_ARG);
    batch_free(&b);
    loader_free(l);
    shard_close(s[0]);
    shard_close(s[1]);
}

static void resuming(void **state)
{
    (void)state;
    static const int la[] = { 3, 9, 2, 5 }, lb[] = { 8, 2, 5 };
    shard           *s[2] = { make("s1", 100, 30, 6, la, 4, 0, NULL), make("s2", 2000, 20, 4, lb, 3, 0, NULL) };
    loader_opts      o    = { cls_sep, .n_ctx = 24, .max_tok = 70, .max_seq = 20, .seed = 1, .loss_all = 1 };
    loader          *a = open_loader(s, 2, o), *c = open_loader(s, 2, o);
    batch            x = { 0 }, y = { 0 };
    double           share[] = { 0.3, 0.7 };
    err              e;
    assert_int_equal(loader_mix(a, share, NULL), OK);
    assert_int_equal(loader_mix(c, share, NULL), OK);
    for (int i = 0; i < 150; i++) { /* a runs on; c is set to a's state each time and must give the same */
        buf st = { 0 };
        assert_int_equal(loader_state(a, &st, NULL), OK);
        if (i % 3 == 0 && loader_restore(c, buf_view(&st), &e)) fail_msg("%s", e.msg);
        assert_int_equal(loader_next(a, &x, NULL), OK);
        assert_int_equal(loader_next(c, &y, NULL), OK);
        assert_int_equal(x.id.n, y.id.n);
        assert_memory_equal(x.id.v, y.id.v, x.id.n * sizeof(int));
        assert_memory_equal(x.weight.v, y.weight.v, x.id.n * sizeof(float));
        for (size_t n = 0; i == 7 && n < st.n; n++) { /* a state that was cut is refused, or is a whole one for other numbers */
            err  ce = { 0 };
            int  rc = loader_restore(c, (str){ st.s, n }, &ce);
            assert_true(rc == OK || ce.msg[0]);
            assert_true(rc != OK || n > 80);
        }
        if (i == 7) assert_int_equal(loader_restore(c, buf_view(&st), &e), OK);
        if (i == 7) assert_int_equal(loader_next(c, &y, NULL), OK);
        if (i == 20) {
            o.seed     = 2; /* other options: another order, so the state is not its own */
            loader *d  = open_loader(s, 2, o);
            assert_int_equal(loader_restore(d, buf_view(&st), &e), E_ARG);
            assert_int_equal(loader_restore(a, STR("loader 1 x"), &e), E_ARG);
            assert_int_equal(loader_restore(a, STR("hello"), &e), E_FORMAT);
            loader_free(d);
        }
        buf_free(&st);
    }
    batch_free(&x);
    batch_free(&y);
    loader_free(a);
    loader_free(c);
    shard_close(s[0]);
    shard_close(s[1]);
}

static void held(void **state)
{
    (void)state;
    static const int len[] = { 3, 9, 2, 5, 4, 9, 9, 2, 6, 7, 8 };
    shard           *s     = make("h", 2, 60, 8, len, 11, 0.4, NULL);
    loader_opts      o     = { dialogpt, .n_ctx = 24, .max_tok = 50, .max_seq = 9, .seed = 3 };
    loader          *l     = open_loader(&s, 1, o);
    batch            b     = { 0 };
    uint64_t         n     = shard_about(s, PART_HELD)->dialogues;
    assert_true(n > 10 && n < 40);
    for (int pass = 0; pass < 2; pass++) { /* twice the same, whatever the training order does between */
        loader_place p = { 0 };
        tally        c = { .rows = 0 };
        int          rc, targets = 0;
        while ((rc = loader_held(l, 0, &p, 0, &b, NULL)) == 1) count_rows(&b, &o, 2, &c);
        assert_int_equal(rc, OK);
        for (int i = 0; i < 60 * 16; i++) {
            assert_true(c.target[i] <= 1); /* exactly once */
            targets += c.target[i];
        }
        assert_int_equal(targets, 7 * n);
        assert_int_equal(loader_held(l, 0, &p, 0, &b, NULL), 0);
        assert_int_equal(loader_next(l, &b, NULL), OK);
    }
    loader_place p   = { 0 };
    uint64_t     sum = 0;
    while (loader_held(l, 0, &p, 100, &b, NULL) == 1) sum += b.id.n;
    assert_in_range(sum, 100, 124); /* the row that passes the limit is the last */
    batch_free(&b);
    loader_free(l);
    shard_close(s);
}

/* join: a dialogue may go on in the row of the one before.  One beginning to a row, nothing lost, nothing longer than a row, targets as without it; a resumed
 * loader decides alike. */
static void joining(void **state)
{
    (void)state;
    static const int la[] = { 3, 2 };
    for (int reversed = 0; reversed < 2; reversed++) {
        shard      *s = make(reversed ? "j2" : "j1", 100, 60, 2, la, 2, 0, NULL);
        loader_opts o = { cls_sep, .reversed = reversed, .loss_all = 1, .n_ctx = 24, .max_tok = 240, .max_seq = 90, .seed = 2 };
        double      rows[2] = { 0 }, dialogues[2] = { 0 };
        for (int join = 0; join < 2; join++) {
            o.join    = join ? 0.7 : 0;
            loader *l = open_loader(&s, 1, o), *again = open_loader(&s, 1, o);
            batch   b = { 0 }, c = { 0 };
            buf     place = { 0 };
            for (int i = 0; i < 40; i++) {
                buf_reset(&place);
                assert_int_equal(loader_state(l, &place, NULL), OK);
                assert_int_equal(loader_next(l, &b, NULL), OK);
                assert_int_equal(loader_restore(again, buf_view(&place), NULL), OK);
                assert_int_equal(loader_next(again, &c, NULL), OK);
                assert_int_equal(b.id.n, c.id.n);
                assert_memory_equal(b.id.v, c.id.v, b.id.n * sizeof *b.id.v);
                assert_memory_equal(b.len.v, c.len.v, b.len.n * sizeof *b.len.v);
                assert_int_equal(b.b.n_tok, (int)b.id.n);
                assert_int_equal(b.weight.n, b.id.n);
                size_t at = 0;
                for (size_t r = 0; r < b.len.n; r++) {
                    int n = b.len.v[r];
                    assert_in_range(n, 1 + 7, 24); /* the beginning and 3 + 1 + 2 + 1 tokens of each dialogue */
                    assert_int_equal((n - 1) % 7, 0);
                    for (int t = 0; t < n; t++) {
                        assert_int_equal(b.id.v[at + (size_t)t] == cls_sep.bos, t == 0);
                        assert_true(b.weight.v[at + (size_t)t] == (t > 0 ? 1.0f : 0.0f));
                    }
                    for (int t = 1; t < n; t += 7) { /* whole dialogues, each in its order */
                        int first = b.id.v[at + (size_t)t] - 100, last = b.id.v[at + (size_t)t + 5] - 100;
                        assert_int_equal(first / 16, last / 16);
                        assert_int_equal(first % 16, reversed);
                        assert_int_equal(last % 16, !reversed);
                    }
                    at += (size_t)n;
                    dialogues[join] += (n - 1) / 7;
                }
                assert_int_equal(at, b.id.n);
                rows[join] += (double)b.len.n;
            }
            batch_free(&b);
            batch_free(&c);
            buf_free(&place);
            loader_free(l);
            loader_free(again);
        }
        assert_true(dialogues[0] == rows[0]);
        assert_true(dialogues[1] > 1.6 * rows[1]); /* 0.7 of them go on, but at most three share a row */
        shard_close(s);
    }
    shard      *s = make("j3", 2, 4, 2, la, 2, 0, NULL);
    loader_opts o = { cls_sep, .loss_all = 1, .n_ctx = 24, .max_tok = 48, .max_seq = 9, .join = 1.5 };
    loader     *l;
    err         e;
    assert_int_equal(loader_new(&l, (const shard *const *)&s, 1, &o, &e), E_ARG);
    shard_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutation), cmocka_unit_test(windows),  cmocka_unit_test(too_long), cmocka_unit_test(refusals),
        cmocka_unit_test(mixing),      cmocka_unit_test(resuming), cmocka_unit_test(held), cmocka_unit_test(joining),
    };
    return cmocka_run_group_tests_name("loader", tests, NULL, scratch_remove);
}
