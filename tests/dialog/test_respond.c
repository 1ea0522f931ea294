/* respond: the same arguments give the same record to the bit, whatever the threads, the batch and the cache; scores are
 * what a plain forward pass gives; and every rule about who may be chosen. */
#define _GNU_SOURCE
#include "dialog/respond.h"

#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/ops.h"

/* ---- a small world: a vocabulary, two random models, rules -------------------------------------------------------- */

enum { FWD, BWD, OTHER, VOCAB, VOCAB2, RULES, SHORT, FWD_D, BWD_D, N_PATHS };
static char dir[200], paths[N_PATHS][300];

static const char vocab[] = "[PAD]\n[unused1]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n你\n好\n我\n是\n谁\n吗\n的\n天\n气\n很\n不\n错\n吃\n饭\n了\n想\n去\n看\n电\n影\n和\n"
                            "朋\n友\n今\n明\n，\n。\n！\n？\n,\n.\n!\n?\nhello\nworld\nhow\nare\nyou\nfine\nno\nyes\na\nb\n##c\n##d\n1\n2\n3\n哈\n啊\n呢\n吧\n在\n家\n";

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* Weights wide enough that draws differ and that contexts matter. */
static void write_model(const char *path, const char *vocab_file, uint64_t seed, int role, int n_ctx, int kind)
{
    tokenizer *t;
    err        e = { 0 };
    assert_int_equal(tokenizer_open_wordpiece(&t, vocab_file, 1, &e), OK);
    gpt2_config  c = { .n_vocab = tokenizer_size(t), .n_ctx = n_ctx, .n_embd = 16, .n_head = 2, .n_layer = 2, .n_inner = 64,
                       .eps = 1e-5f, .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
    gpt2_tensor *list;
    size_t       n;
    int          k = gpt2_tensors(&c, &list, &n, &e);
    assert_true(k > 0);
    float *slab = calloc(n, sizeof *slab);
    assert_non_null(slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)(0.5 * rng_normal(seed, 0, i));
    free(list);
    gpt2_meta m = { .fmt = { kind, kind == FORMAT_CLS_SEP ? tokenizer_specials(t).bos : -1, tokenizer_specials(t).eos },
                    .role = role };
    snprintf(m.name, sizeof m.name, "tiny");
    if (gpt2_save(path, &c, slab, t, &m, NULL, &e)) fail_msg("%s", e.msg);
    free(slab);
    tokenizer_close(t);
}

static gpt2 *open_model(int which)
{
    gpt2 *m;
    err   e = { 0 };
    if (gpt2_open(&m, paths[which], &e)) fail_msg("%s", e.msg);
    return m;
}

static gpt2 *fwd, *bwd;

static int setup(void **state)
{
    (void)state;
    static const char *const names[] = { "fwd.gguf", "bwd.gguf", "other.gguf", "vocab.txt", "vocab2.txt", "test.rules",
                                         "short.gguf", "fwd-d.gguf", "bwd-d.gguf" };
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/duet-respond-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return -1;
    for (int i = 0; i < N_PATHS; i++) snprintf(paths[i], sizeof paths[i], "%s/%s", dir, names[i]);
    write_file(paths[VOCAB], vocab);
    char other[sizeof vocab + 8];
    snprintf(other, sizeof other, "%s新\n", vocab);
    write_file(paths[VOCAB2], other);
    write_model(paths[FWD], paths[VOCAB], 1, ROLE_FORWARD, 64, FORMAT_CLS_SEP);
    write_model(paths[BWD], paths[VOCAB], 2, ROLE_BACKWARD, 64, FORMAT_CLS_SEP);
    write_model(paths[OTHER], paths[VOCAB2], 3, ROLE_BACKWARD, 64, FORMAT_CLS_SEP);
    write_model(paths[SHORT], paths[VOCAB], 4, ROLE_BACKWARD, 40, FORMAT_CLS_SEP);
    write_model(paths[FWD_D], paths[VOCAB], 5, ROLE_FORWARD, 64, FORMAT_DIALOGPT);
    write_model(paths[BWD_D], paths[VOCAB], 6, ROLE_BACKWARD, 64, FORMAT_DIALOGPT);
    fwd = open_model(FWD);
    bwd = open_model(BWD);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gpt2_close(fwd);
    gpt2_close(bwd);
    for (int i = 0; i < N_PATHS; i++) unlink(paths[i]);
    return rmdir(dir);
}

static respond_opts opts(void)
{
    respond_opts o = respond_defaults();
    o.n_cand       = 16;
    o.max_new      = 12;
    o.seed         = 77;
    return o;
}

/* One fresh responder, one turn. */
typedef struct {
    responder *r;
    arena      a;
    reply      rep;
    err        e;
} once;

static void once_open(once *t, gpt2 *b, const safety *rules)
{
    memset(t, 0, sizeof *t);
    if (responder_new(&t->r, fwd, b, rules, &t->e)) fail_msg("%s", t->e.msg);
}

static void once_run(once *t, const turn *hist, int n, const char *line, const respond_opts *o)
{
    if (respond(t->r, hist, n, str_of(line), o, &t->a, &t->rep, &t->e)) fail_msg("%s", t->e.msg);
}

static void once_close(once *t)
{
    responder_free(t->r);
    arena_free(&t->a);
}

static int same_double(double a, double b) { return memcmp(&a, &b, sizeof a) == 0; }

static void same_candidate(const candidate *a, const candidate *b, int scores)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->id, b->id, (size_t)a->n * sizeof *a->id);
    assert_true(str_eq(a->text, b->text));
    assert_int_equal(a->ended, b->ended);
    assert_true(same_double(a->fwd, b->fwd));
    if (!scores) return;
    assert_int_equal(a->fate, b->fate);
    assert_int_equal(a->dup_of, b->dup_of);
    assert_true(same_double(a->bwd, b->bwd) && same_double(a->score, b->score));
}

static void same_reply(const reply *a, const reply *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->chosen, b->chosen);
    assert_int_equal(a->n, b->n);
    assert_true(str_eq(a->text, b->text));
    assert_string_equal(a->prompt_digest, b->prompt_digest);
    for (int k = 0; k < a->n; k++) same_candidate(&a->cand[k], &b->cand[k], 1);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static void options_round_trip(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        respond_opts o = respond_defaults(), back;
        buf          a = { 0 }, b = { 0 };
        err          e = { 0 };
        o.mode        = (int)rng_below(5, 0, i, 6);
        o.n_cand      = 1 + (int)rng_below(5, 1, i, 256);
        o.temperature = (float)rng_unit(5, 2, i) * 3;
        o.top_p       = (float)rng_unit(5, 3, i);
        o.lambda      = (float)rng_unit(5, 4, i);
        o.gamma       = (float)rng_normal(5, 5, i) * 1e-3f;
        o.rep_penalty = 0.5f + (float)rng_unit(5, 6, i);
        o.seed        = i ? rng_u64(5, 7, i) : UINT64_MAX;
        o.lang        = (int)(i & 1);
        assert_int_equal(respond_opts_format(&o, &a), OK);
        if (respond_opts_parse(&back, buf_view(&a), &e)) fail_msg("%s", e.msg);
        assert_int_equal(respond_opts_format(&back, &b), OK);
        assert_string_equal(a.s, b.s);
        assert_true(back.seed == o.seed && back.temperature == o.temperature && back.gamma == o.gamma && back.mode == o.mode);
        assert_null(strchr(a.s, '\n'));
        buf_free(&a);
        buf_free(&b);
    }
    static const char *const bad[] = { "mode=MMI", "n=0", "n=257", "n=", "n", "n=3 n=3", "nn=3", "top_p=nan", "top_p=1.5",
                                       "seed=-1", "seed=18446744073709551616", "temperature=0x1p3", "temperature=inf", "n=3x",
                                       "min_new=9 max_new=8", "n=99999999999", "lambda=", "mode=", "gamma=1e99" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        respond_opts o;
        err          e = { 0 };
        if (respond_opts_parse(&o, str_of(bad[i]), &e) != E_ARG) fail_msg("'%s' was taken", bad[i]);
        assert_true(e.msg[0] != 0);
    }
    respond_opts o, d = respond_defaults();
    assert_int_equal(respond_opts_parse(&o, STR("  "), NULL), OK);
    assert_true(o.n_cand == d.n_cand && o.top_k == d.top_k && o.mode == d.mode);
    for (int m = 0; respond_mode_name(m); m++) assert_int_equal(respond_mode_of_name(respond_mode_name(m)), m);
    assert_int_equal(respond_mode_of_name("best"), -1);
}

/* ---- the same arguments, the same record --------------------------------------------------------------------------- */

static void threads_and_caches_change_nothing(void **state)
{
    (void)state;
    respond_opts o    = opts();
    int          many = omp_get_max_threads();
    once         cold, warm;
    once_open(&cold, bwd, NULL);
    omp_set_num_threads(1);
    once_run(&cold, NULL, 0, "你好吗？", &o);
    assert_int_equal(cold.rep.kind, REPLY_MODEL);
    assert_int_equal(cold.rep.n, 16);

    /* Another responder, two threads, a cache that has seen other turns of other sizes. */
    once_open(&warm, bwd, NULL);
    omp_set_num_threads(2);
    respond_opts small = o;
    small.n_cand       = 3;
    small.max_new      = 5;
    once_run(&warm, NULL, 0, "你好", &small);
    small.n_cand = 40;
    once_run(&warm, NULL, 0, "你好吗？今天天气很不错", &small);
    once_run(&warm, NULL, 0, "你好吗？", &o);
    same_reply(&cold.rep, &warm.rep);

    /* A conversation, each turn with what the cache kept, against each turn cold. */
    turn hist[8];
    int  n = 0;
    for (int i = 0; i < 4; i++) {
        once        fresh;
        const char *line = i & 1 ? "hello, how are you" : "我想去看电影";
        respond_opts oi  = o;
        oi.seed          = (uint64_t)i;
        once_run(&warm, hist, n, line, &oi);
        once_open(&fresh, bwd, NULL);
        once_run(&fresh, hist, n, line, &oi);
        same_reply(&fresh.rep, &warm.rep);
        if (i) assert_true(warm.rep.evaluated < fresh.rep.evaluated);
        assert_int_equal(respond_turn(warm.r, str_of(line), 0, &warm.a, &hist[n++], &warm.e), OK);
        hist[n++] = (turn){ .text = warm.rep.text, .id = warm.rep.id, .n = warm.rep.n_id, .speaker = 1, .weight = 1 };
        once_close(&fresh);
    }
    /* History as text alone means the same as with ids. */
    turn texts[8];
    for (int i = 0; i < 2; i++) texts[i] = (turn){ .text = hist[0].text, .speaker = i, .weight = 1 };
    turn ids[2] = { hist[0], hist[0] };
    once a, b;
    once_open(&a, bwd, NULL);
    once_open(&b, bwd, NULL);
    once_run(&a, texts, 2, "你好", &o);
    once_run(&b, ids, 2, "你好", &o);
    same_reply(&a.rep, &b.rep);
    once_close(&a);
    once_close(&b);
    omp_set_num_threads(many);
    once_close(&cold);
    once_close(&warm);
}

static void candidate_alone_equals_candidate_of_many(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         all, one;
    once_open(&all, bwd, NULL);
    once_run(&all, NULL, 0, "你是谁", &o);
    once_open(&one, bwd, NULL);
    for (int k = 0; k < o.n_cand; k++) {
        respond_opts ok = o;
        ok.n_cand       = 1;
        ok.first_cand   = k;
        once_run(&one, NULL, 0, "你是谁", &ok);
        same_candidate(&one.rep.cand[0], &all.rep.cand[k], 0);
        const candidate *c = &all.rep.cand[k];
        if (c->fate == CAND_OK) assert_true(same_double(one.rep.cand[0].bwd, c->bwd));
    }
    int distinct = 0, ended = 0;
    for (int k = 0; k < o.n_cand; k++) {
        distinct += all.rep.cand[k].fate != CAND_DUPLICATE;
        ended += all.rep.cand[k].ended;
    }
    assert_true(distinct > 8 && ended > 0); /* else this test would see little */
    respond_opts other = o;
    other.seed++;
    once_run(&one, NULL, 0, "你是谁", &other);
    int differ = 0;
    for (int k = 0; k < o.n_cand; k++) differ += !str_eq(one.rep.cand[k].text, all.rep.cand[k].text);
    assert_true(differ > 8);
    once_close(&all);
    once_close(&one);
}

/* ---- scores against a plain forward pass --------------------------------------------------------------------------- */

/* log P(id[t] | id[..t-1]) for t in [1, n), by one gpt2_forward. */
static void brute(const gpt2 *m, const int *id, int n, double *logp)
{
    err         e = { 0 };
    size_t      V = (size_t)gpt2_cfg(m)->n_vocab;
    gpt2_cache *c = gpt2_cache_new(m, n, 1, 1, n, &e);
    float      *x = malloc((size_t)n * V * sizeof *x);
    int        *b = calloc((size_t)n * 3, sizeof *b);
    unsigned char *want = malloc((size_t)n);
    assert_true(c && x && b && want);
    for (int i = 0; i < n; i++) b[i] = id[i], b[n + i] = -1, b[2 * n + i] = i, want[i] = 1;
    if (gpt2_forward(m, c, &(gpt2_batch){ n, b, b + n, b + 2 * n, want }, x, &e)) fail_msg("%s", e.msg);
    for (int t = 1; t < n; t++) logp[t] = sample_logprob(x + (size_t)(t - 1) * V, (int)V, id[t]);
    free(x);
    free(b);
    free(want);
    gpt2_cache_free(c);
}

static const char *const two_turns[] = { "今天天气很不错", "我想去看电影" };

static void scores_are_the_models_own(void **state)
{
    (void)state;
    once t;
    once_open(&t, bwd, NULL);
    turn hist[3];
    for (int i = 0; i < 2; i++) assert_int_equal(respond_turn(t.r, str_of(two_turns[i]), i, &t.a, &hist[i], &t.e), OK);
    assert_int_equal(respond_turn(t.r, STR("你吃饭了吗？"), 0, &t.a, &hist[2], &t.e), OK);
    const format *f = &gpt2_about(fwd)->fmt;
    for (int mode = MODE_MMI; mode <= MODE_JOINT; mode++)
        for (int source = 0; source <= 2; source++) {
            respond_opts o = opts();
            o.mode         = mode;
            o.source_turns = source;
            once_run(&t, hist, 2, "你吃饭了吗？", &o);
            for (int k = 0; k < t.rep.n; k++) {
                const candidate *c = &t.rep.cand[k];
                double           lp[64], fw = 0, bw = 0, all = 0;
                int              from;
                ivec             v = { 0 };
                assert_int_equal(format_prompt(f, hist, 3, 0, 64, &v, NULL, NULL, &t.e), OK);
                int head = (int)v.n;
                ivec_add(&v, c->id, (size_t)c->n);
                if (c->ended) ivec_push(&v, f->sep);
                brute(fwd, v.v, (int)v.n, lp);
                for (int i = head; i < (int)v.n; i++) fw += lp[i];
                assert_true(fabs(fw - c->fwd) < 1e-9); /* the same floats; only the sum may group differently */
                v.n = 0;
                if (c->fate == CAND_OK) {
                    assert_int_equal(format_reverse(f, hist, 3, source, c->id, c->n, 64, &v, &from, &t.e), OK);
                    brute(bwd, v.v, (int)v.n, lp);
                    for (int i = 1; i < (int)v.n; i++) all += lp[i];
                    for (int i = from; i < (int)v.n; i++) bw += lp[i]; /* the reply is masked */
                    assert_int_equal(c->n_source, (int)v.n - from);
                    assert_true(fabs(bw - c->bwd) < 1e-9);
                    double want = mode == MODE_MMI ? bw : mode == MODE_BIDI ? (double)o.lambda * bw + (1 - (double)o.lambda) * fw : all / ((int)v.n - 1);
                    assert_true(fabs(want - c->score) < 1e-9);
                    assert_true(fabs(all - bw) > 1e-3); /* the two rankings are two things */
                } else {
                    assert_true(c->fate == CAND_DUPLICATE || isnan(c->bwd));
                }
                ivec_free(&v);
            }
        }

    /* Given replies score as drawn ones did. */
    respond_opts o = opts();
    o.mode         = MODE_BIDI;
    once_run(&t, hist, 2, "你吃饭了吗？", &o);
    candidate again[16];
    memcpy(again, t.rep.cand, sizeof again);
    for (int k = 0; k < 16; k++) again[k].fwd = again[k].bwd = again[k].score = 0;
    if (respond_score(t.r, hist, 3, again, 16, &o, &t.e)) fail_msg("%s", t.e.msg);
    int chosen;
    assert_int_equal(respond_rank(again, 16, &o, &chosen, &t.e), OK);
    assert_int_equal(chosen, t.rep.chosen);
    for (int k = 0; k < 16; k++)
        if (again[k].fate == CAND_OK) {
            assert_true(fabs(again[k].fwd - t.rep.cand[k].fwd) < 1e-9);
            assert_true(same_double(again[k].bwd, t.rep.cand[k].bwd));
        }
    once_close(&t);
}

/* The same without a [CLS]: DialoGPT's layout. */
static void scores_in_dialogpt_layout(void **state)
{
    gpt2 *f = fwd, *b = bwd;
    fwd = open_model(FWD_D);
    bwd = open_model(BWD_D);
    scores_are_the_models_own(state);
    gpt2_close(fwd);
    gpt2_close(bwd);
    fwd = f;
    bwd = b;
}

static void every_mode_chooses_by_its_rule(void **state)
{
    (void)state;
    once t;
    once_open(&t, bwd, NULL);
    for (int mode = 0; mode <= MODE_NONE; mode++) {
        respond_opts o = opts();
        o.mode         = mode;
        once_run(&t, NULL, 0, "你好吗", &o);
        assert_int_equal(t.rep.kind, REPLY_MODEL);
        const candidate *best = &t.rep.cand[t.rep.chosen];
        assert_int_equal(best->fate, CAND_OK);
        assert_true(str_eq(t.rep.text, best->text));
        for (int k = 0; k < t.rep.n; k++) {
            const candidate *c = &t.rep.cand[k];
            if (c->fate != CAND_OK) continue;
            if (mode == MODE_NONE) {
                assert_true(t.rep.chosen <= k && isnan(c->score) && isnan(c->bwd));
                continue;
            }
            if (mode != MODE_SAMPLED) assert_true(best->score >= c->score);
            if (mode == MODE_FORWARD) assert_true(isnan(c->bwd) && fabs(c->score - c->fwd / (c->n + c->ended)) < 1e-12);
            if (mode == MODE_SAMPLED) assert_true(fabs(c->score - c->bwd / c->n_source) < 1e-12);
        }
    }
    once_close(&t);
}

/* ---- ranking alone ------------------------------------------------------------------------------------------------- */

static candidate C(int fate, double f, double b)
{
    return (candidate){ .fate = fate, .dup_of = -1, .n = 3, .fwd = f, .bwd = b, .n_source = 2, .score = NAN };
}

static int rank(candidate *c, int n, int mode)
{
    respond_opts o = opts();
    int          chosen;
    err          e;
    o.mode   = mode;
    o.lambda = 0.5f;
    assert_int_equal(respond_rank(c, n, &o, &chosen, &e), OK);
    return chosen;
}

static void ranking(void **state)
{
    (void)state;
    candidate plain[] = { C(CAND_OK, -1, -5), C(CAND_OK, -9, -3), C(CAND_OK, -2, -4) };
    assert_int_equal(rank(plain, 3, MODE_MMI), 1);
    assert_int_equal(rank(plain, 3, MODE_BIDI), 0); /* -3, -6, -3: the better forward score decides */
    assert_int_equal(rank(plain, 3, MODE_FORWARD), 0);
    assert_int_equal(rank(plain, 3, MODE_NONE), 0);

    candidate ties[] = { C(CAND_OK, -2, -4), C(CAND_OK, -1, -4), C(CAND_OK, -1, -4), C(CAND_OK, NAN, -4) };
    assert_int_equal(rank(ties, 4, MODE_MMI), 1);

    candidate nans[] = { C(CAND_OK, -1, NAN), C(CAND_OK, -9, -INFINITY), C(CAND_OK, -1, NAN) };
    assert_int_equal(rank(nans, 3, MODE_MMI), 1);
    assert_int_equal(nans[0].fate, CAND_NAN);
    candidate all_nan[] = { C(CAND_OK, -2, NAN), C(CAND_OK, -1, NAN), C(CAND_OK, NAN, NAN) };
    assert_int_equal(rank(all_nan, 3, MODE_MMI), 1); /* never an empty reply because of a NaN */
    assert_int_equal(rank(all_nan, 3, MODE_SAMPLED), 1);

    candidate echo[] = { C(CAND_ECHO, -1, -1), C(CAND_BLOCKED, 0, 0), C(CAND_OK, -50, -50), C(CAND_EMPTY, 0, 0) };
    for (int mode = 0; mode <= MODE_NONE; mode++) {
        for (int k = 0; k < 4; k++) echo[k].score = -1;
        assert_int_equal(rank(echo, 4, mode), 2);
    }
    candidate only_echo[] = { C(CAND_BLOCKED, 0, 0), C(CAND_ECHO, -1, NAN), C(CAND_ECHO, -2, -3) };
    assert_int_equal(rank(only_echo, 3, MODE_MMI), 2);
    candidate none[] = { C(CAND_BLOCKED, 0, 0), C(CAND_EMPTY, 0, 0) };
    assert_int_equal(rank(none, 2, MODE_MMI), -1);
    assert_int_equal(rank(NULL, 0, MODE_MMI), -1);

    candidate twin[] = { C(CAND_OK, -1, -2), C(CAND_DUPLICATE, NAN, NAN), C(CAND_OK, -1, -9) };
    twin[1].dup_of = 0;
    assert_int_equal(rank(twin, 3, MODE_MMI), 0);
    assert_true(twin[1].bwd == -2 && twin[1].score == -2 && twin[1].fate == CAND_DUPLICATE);
}

/* Sampled: frequencies over seeds follow softmax(mean / temperature). */
static void sampled_mode_draws(void **state)
{
    (void)state;
    enum { N = 4000 };
    int          count[4] = { 0 };
    respond_opts o        = opts();
    o.mode                = MODE_SAMPLED;
    for (uint64_t s = 0; s < N; s++) {
        candidate c[] = { C(CAND_OK, -1, -2), C(CAND_OK, -1, -3), C(CAND_BLOCKED, 0, 0), C(CAND_OK, -1, -2.5) };
        int       chosen;
        err       e;
        o.seed = s;
        assert_int_equal(respond_rank(c, 4, &o, &chosen, &e), OK);
        count[chosen]++;
    }
    double w[] = { exp(-1 / 0.5), exp(-1.5 / 0.5), 0, exp(-1.25 / 0.5) }, sum = w[0] + w[1] + w[3];
    for (int k = 0; k < 4; k++) { /* five standard deviations */
        double p = w[k] / sum;
        assert_true(fabs(count[k] - N * p) <= 5 * sqrt(N * p * (1 - p)));
    }
}

static void echoes(void **state)
{
    (void)state;
    assert_true(respond_is_echo(STR("你好吗？"), STR("你好吗")));
    assert_true(respond_is_echo(STR("How are you?"), STR(" how are YOU !!")));
    assert_true(respond_is_echo(STR("？！"), STR("？！")));
    assert_false(respond_is_echo(STR("？！"), STR("！？")));
    assert_false(respond_is_echo(STR("你好吗"), STR("你好")));
    assert_false(respond_is_echo(STR("你好"), STR("你好吗")));
    assert_false(respond_is_echo(STR("1 2"), STR("13")));
    assert_false(respond_is_echo(STR(""), STR("a")));
}

/* ---- fates in a real turn ------------------------------------------------------------------------------------------ */

static void what_is_drawn_is_legal(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t;
    o.n_cand      = 64;
    o.temperature = 2;
    o.top_k       = 0;
    o.top_p       = 1;
    o.min_new     = 3;
    o.no_repeat   = 2;
    once_open(&t, bwd, NULL);
    once_run(&t, NULL, 0, "你好", &o);
    const tokenizer *tok = gpt2_tokenizer(fwd);
    for (int k = 0; k < t.rep.n; k++) {
        const candidate *c = &t.rep.cand[k];
        assert_true(c->n >= 3 && c->n <= o.max_new && (c->ended || c->n == o.max_new));
        for (int i = 0; i < c->n; i++) {
            assert_false(tokenizer_is_special(tok, c->id[i]));
            for (int j = 0; i >= 1 && j + 1 < i; j++) assert_false(c->id[j] == c->id[i - 1] && c->id[j + 1] == c->id[i]);
        }
        if (c->fate == CAND_DUPLICATE) assert_true(c->dup_of >= 0 && c->dup_of < k && t.rep.cand[c->dup_of].dup_of < 0);
    }
    /* Greedy: one distinct candidate, the rest are its duplicates with its numbers. */
    o             = opts();
    o.temperature = 0;
    once_run(&t, NULL, 0, "你好", &o);
    assert_int_equal(t.rep.chosen, 0);
    for (int k = 1; k < t.rep.n; k++) {
        assert_int_equal(t.rep.cand[k].fate, CAND_DUPLICATE);
        assert_true(same_double(t.rep.cand[k].bwd, t.rep.cand[0].bwd) && same_double(t.rep.cand[k].fwd, t.rep.cand[0].fwd));
    }
    /* With the separator allowed at once, empty candidates come, are never chosen and never scored. */
    o         = opts();
    o.min_new = 0;
    o.n_cand  = 256;
    once_run(&t, NULL, 0, "你好", &o);
    int empty = 0;
    for (int k = 0; k < t.rep.n; k++)
        if (t.rep.cand[k].n == 0) {
            empty++;
            assert_true(t.rep.cand[k].fate == CAND_EMPTY && t.rep.cand[k].ended && isnan(t.rep.cand[k].score));
        }
    assert_true(empty > 0);
    assert_true(t.rep.cand[t.rep.chosen].n > 0);
    /* The user's own line back: scored like the others, never chosen while there is anything else; alone it is the reply. */
    o.max_new = o.min_new = 1;
    o.top_k               = 0;
    o.top_p               = 1;
    o.temperature         = 30; /* nearly flat: all of the vocabulary comes up */
    once_run(&t, NULL, 0, "哈！", &o);
    int echo = -1;
    for (int k = 0; k < t.rep.n && echo < 0; k++)
        if (t.rep.cand[k].fate == CAND_ECHO) echo = k;
    assert_true(echo >= 0 && echo != t.rep.chosen);
    assert_true(str_eq(t.rep.cand[echo].text, STR("哈")) && !isnan(t.rep.cand[echo].bwd));
    o.n_cand     = 1;
    o.first_cand = echo;
    once_run(&t, NULL, 0, "哈！", &o);
    assert_true(t.rep.kind == REPLY_MODEL && t.rep.chosen == 0 && t.rep.cand[0].fate == CAND_ECHO);
    once_close(&t);
}

static safety *rules_of(const char *text)
{
    safety     *s;
    err         e = { 0 };
    const char *p = paths[RULES];
    write_file(p, text);
    if (safety_open(&s, &p, 1, &e)) fail_msg("%s", e.msg);
    return s;
}

static void safety_decides(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t;
    /* The user's line is blocked: the rule's words, no model work. */
    safety *s = rules_of("[rule t.user]\ncategory: test\nwhere: user\naction: block\npattern: 影\nmessage zh: 不聊这个\nmessage en: not that\n");
    once_open(&t, bwd, s);
    once_run(&t, NULL, 0, "我想去看电影", &o);
    assert_int_equal(t.rep.kind, REPLY_REFUSED);
    assert_true(str_eq(t.rep.text, STR("不聊这个")));
    assert_true(t.rep.n == 0 && t.rep.chosen == -1 && t.rep.evaluated == 0 && t.rep.prompt_digest[0] == 0 &&
                t.rep.user_v.action == RULE_BLOCK);
    o.lang = 1;
    once_run(&t, NULL, 0, "我想去看电影", &o);
    assert_true(str_eq(t.rep.text, STR("not that")));
    once_run(&t, NULL, 0, "你好", &o);
    assert_int_equal(t.rep.kind, REPLY_MODEL);
    once_close(&t);
    safety_close(s);

    /* Every candidate is blocked: a stock line; the candidates stay in the record, unscored. */
    s = rules_of("[rule t.all]\ncategory: test\nwhere: reply\naction: block\npattern: .\nmessage zh: x\nmessage en: y\n");
    once_open(&t, bwd, s);
    once_run(&t, NULL, 0, "你好", &o);
    assert_int_equal(t.rep.kind, REPLY_STOCK);
    assert_true(t.rep.chosen == -1 && t.rep.n == o.n_cand && t.rep.text.n > 0 && t.rep.n_id > 0);
    for (int k = 0; k < t.rep.n; k++) {
        const candidate *c = &t.rep.cand[k];
        assert_true(c->fate == CAND_BLOCKED || c->fate == CAND_DUPLICATE);
        assert_true(c->text.n > 0 && isnan(c->bwd) && isnan(c->score) && !isnan(c->fwd) && c->v.action == RULE_BLOCK);
    }
    once_close(&t);
    safety_close(s);

    /* Some are blocked: the next best survives, with the scores it has without rules. */
    once free_of_rules;
    o = opts();
    once_open(&free_of_rules, bwd, NULL);
    once_run(&free_of_rules, NULL, 0, "你好", &o);
    int         best = free_of_rules.rep.chosen;
    const char *word = NULL;
    str         text = free_of_rules.rep.text;
    uint32_t    cp;
    char        one[8] = "", pack[400];
    for (size_t i = 0; i < text.n && !word;) {
        size_t k = utf8_next(text.s + i, text.n - i, &cp);
        if (cp >= 0x4E00 && cp < 0x9FFF) memcpy(one, text.s + i, k), word = one;
        i += k;
    }
    assert_non_null(word);
    snprintf(pack, sizeof pack,
             "[rule t.some]\ncategory: test\nwhere: reply\naction: block\npattern: %s\nmessage zh: x\nmessage en: y\n", word);
    s = rules_of(pack);
    once_open(&t, bwd, s);
    once_run(&t, NULL, 0, "你好", &o);
    assert_int_equal(t.rep.cand[best].fate, CAND_BLOCKED);
    assert_true(t.rep.kind == REPLY_MODEL && t.rep.chosen != best && !strstr(t.rep.text.s, word));
    for (int k = 0; k < t.rep.n; k++)
        if (t.rep.cand[k].fate == CAND_OK) assert_true(same_double(t.rep.cand[k].score, free_of_rules.rep.cand[k].score));
    once_close(&t);
    safety_close(s);

    /* Redaction: no candidate leaves with the word, in text or in tokens, but all are scored as they were drawn; the reply is the
     * chosen one; the user's line is redacted before anything reads it; and a second run gives the same record. */
    snprintf(pack, sizeof pack,
             "[rule t.red]\ncategory: test\nwhere: both\naction: redact\npattern: %s\nlabel zh: 略\nlabel en: x\n", word);
    s = rules_of(pack);
    once_open(&t, bwd, s);
    once_run(&t, NULL, 0, "你好", &o);
    if (!strstr("你好", word)) {
        assert_int_equal(t.rep.chosen, best);
        assert_true(strstr(free_of_rules.rep.cand[best].text.s, word) && strstr(t.rep.text.s, "略"));
        assert_true(t.rep.text.s == t.rep.cand[best].text.s && t.rep.id == t.rep.cand[best].id && t.rep.n_id == t.rep.cand[best].n);
        for (int k = 0; k < t.rep.n; k++) {
            const candidate *c = &t.rep.cand[k], *raw = &free_of_rules.rep.cand[k];
            buf              said = { 0 };
            assert_null(strstr(c->text.s, word));
            assert_true(same_double(c->score, raw->score) && same_double(c->fwd, raw->fwd) && same_double(c->bwd, raw->bwd));
            if (c->n) assert_int_equal(tokenizer_decode(gpt2_tokenizer(fwd), c->id, c->n, &said, &t.e), OK);
            buf_chr(&said, 0);
            assert_null(strstr(said.s, word));
            assert_true(strstr(raw->text.s, word) ? c->v.action == RULE_REDACT : c->n == raw->n);
            buf_free(&said);
        }
    }
    char line[64];
    snprintf(line, sizeof line, "你好%s吗", word);
    once_run(&t, NULL, 0, line, &o);
    assert_true(!strstr(t.rep.user_text.s, word) && t.rep.user_v.action == RULE_REDACT);
    once_close(&t);
    once_close(&free_of_rules);
    safety_close(s);
}

/* ---- edges ----------------------------------------------------------------------------------------------------------- */

static void long_contexts(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t;
    buf          longest = { 0 };
    for (int i = 0; i < 100; i++) buf_str(&longest, STR("你好吗今天"));
    once_open(&t, bwd, NULL);
    turn hist[20];
    for (int i = 0; i < 20; i++) assert_int_equal(respond_turn(t.r, str_of(two_turns[i & 1]), i & 1, &t.a, &hist[i], &t.e), OK);
    o.max_turns    = 0;
    o.source_turns = 0;
    o.max_new      = 1000; /* clipped to half of 64 */
    o.no_repeat    = 0;
    once_run(&t, hist, 20, "你是谁", &o);
    assert_int_equal(t.rep.cut, 0);
    /* A backward model of 40 positions: the sources must be cut, and alike for all whatever their length. */
    once  shorter;
    gpt2 *m      = open_model(SHORT);
    int   source = 0, least = 99, most = 0;
    once_open(&shorter, m, NULL);
    once_run(&shorter, hist, 20, "你是谁", &o);
    for (int k = 0; k < shorter.rep.n; k++) {
        const candidate *c = &shorter.rep.cand[k];
        assert_true(c->n <= 20);
        if (c->fate != CAND_OK) continue;
        assert_true(source == 0 || c->n_source == source);
        source = c->n_source;
        least  = c->n < least ? c->n : least;
        most   = c->n > most ? c->n : most;
        assert_true(isfinite(c->score));
    }
    assert_true(source > 4 && most > least + 9);
    once_close(&shorter);
    gpt2_close(m);
    once_run(&t, hist, 20, longest.s, &o); /* one line longer than everything */
    assert_int_equal(t.rep.cut, 500 - (32 - 2));
    assert_int_equal(t.rep.kind, REPLY_MODEL);
    o.max_new = 1;
    o.n_cand  = 256;
    once_run(&t, hist, 20, longest.s, &o);
    assert_int_equal(t.rep.cut, 500 - (63 - 2));
    assert_int_equal(t.rep.kind, REPLY_MODEL);
    once_close(&t);
    buf_free(&longest);
}

static void lines_without_words(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t, u;
    once_open(&t, bwd, NULL);
    once_open(&u, bwd, NULL);
    static const char *const blank[] = { "", "   ", "\x01\x02", "\xff\xfe" };
    for (int i = 0; i < 4; i++) {
        once_run(&t, NULL, 0, blank[i], &o);
        assert_true(t.rep.kind == REPLY_STOCK && t.rep.n == 0 && t.rep.text.n > 0);
    }
    /* Hidden and empty turns are as if they were not there. */
    turn hist[4], seen[2];
    for (int i = 0; i < 4; i++)
        assert_int_equal(respond_turn(t.r, str_of(i == 2 ? "" : two_turns[i & 1]), i & 1, &t.a, &hist[i], &t.e), OK);
    hist[1].hidden = 1;
    seen[0]        = hist[0];
    seen[1]        = hist[3];
    once_run(&t, hist, 4, "你好", &o);
    once_run(&u, seen, 2, "你好", &o);
    same_reply(&t.rep, &u.rep);
    once_close(&t);
    once_close(&u);
}

static int stop_at, calls;
static int stop(void *ctx, int done, int total, int scoring)
{
    (void)ctx;
    assert_true(done >= 0 && done <= total && (scoring == 0 || scoring == 1));
    return ++calls >= stop_at;
}

static void cancelling(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t, fresh;
    once_open(&t, bwd, NULL);
    once_open(&fresh, bwd, NULL);
    once_run(&fresh, NULL, 0, "你好吗", &o);
    int total;
    calls   = 0;
    stop_at = 1000;
    responder_on_progress(t.r, stop, NULL);
    once_run(&t, NULL, 0, "你好吗", &o);
    total = calls;
    assert_true(total >= 3);
    for (stop_at = 1; stop_at <= total; stop_at++) { /* wherever it is stopped, the next turn is unharmed */
        calls = 0;
        responder_on_progress(t.r, stop, NULL);
        assert_int_equal(respond(t.r, NULL, 0, STR("你好吗"), &o, &t.a, &t.rep, &t.e), E_CANCEL);
        responder_on_progress(t.r, NULL, NULL);
        once_run(&t, NULL, 0, "你好吗", &o);
        same_reply(&t.rep, &fresh.rep);
    }
    once_close(&t);
    once_close(&fresh);
}

static void refusals(void **state)
{
    (void)state;
    responder *r;
    err        e     = { 0 };
    gpt2      *other = open_model(OTHER);
    assert_int_equal(responder_new(&r, fwd, other, NULL, &e), E_ARG);
    assert_non_null(strstr(e.msg, paths[FWD]));
    assert_non_null(strstr(e.msg, paths[OTHER]));
    assert_int_equal(responder_new(&r, bwd, fwd, NULL, &e), E_ARG);
    assert_non_null(strstr(e.msg, paths[BWD]));
    assert_null(r);
    gpt2_close(other);
    responder_free(NULL);

    once t;
    once_open(&t, NULL, NULL);
    respond_opts o = opts();
    for (int mode = 0; mode <= MODE_NONE; mode++) {
        o.mode  = mode;
        int got = respond(t.r, NULL, 0, STR("你好"), &o, &t.a, &t.rep, &t.e);
        assert_int_equal(got, mode == MODE_FORWARD || mode == MODE_NONE ? OK : E_ARG);
        if (got) assert_non_null(strstr(t.e.msg, respond_mode_name(mode)));
        else assert_string_equal(t.rep.bwd_digest, "");
    }
    o.n_cand = 0;
    assert_int_equal(respond(t.r, NULL, 0, STR("你好"), &o, &t.a, &t.rep, &t.e), E_ARG);
    o        = opts();
    o.mode   = MODE_FORWARD;
    o.lambda = NAN;
    assert_int_equal(respond(t.r, NULL, 0, STR("你好"), &o, &t.a, &t.rep, &t.e), E_ARG);
    once_close(&t);
}

static void the_record(void **state)
{
    (void)state;
    respond_opts o = opts();
    once         t;
    once_open(&t, bwd, NULL);
    once_run(&t, NULL, 0, "你好", &o);
    assert_string_equal(t.rep.fwd_digest, gpt2_digest(fwd));
    assert_string_equal(t.rep.bwd_digest, gpt2_digest(bwd));
    assert_string_equal(t.rep.rules_digest, "");
    assert_int_equal(strlen(t.rep.prompt_digest), 64);
    assert_non_null(strstr(t.rep.numerics, "ops"));
    assert_true(str_eq(t.rep.user_text, STR("你好")) && t.rep.n_user_id == 2);
    assert_true(t.rep.evaluated == 4); /* [CLS] 你 好 [SEP] */
    assert_ptr_equal(responder_fwd(t.r), fwd);
    assert_ptr_equal(responder_bwd(t.r), bwd);
    once_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_round_trip),      cmocka_unit_test(threads_and_caches_change_nothing),
        cmocka_unit_test(candidate_alone_equals_candidate_of_many), cmocka_unit_test(scores_are_the_models_own),
        cmocka_unit_test(scores_in_dialogpt_layout),
        cmocka_unit_test(every_mode_chooses_by_its_rule), cmocka_unit_test(ranking), cmocka_unit_test(sampled_mode_draws),
        cmocka_unit_test(echoes),                  cmocka_unit_test(what_is_drawn_is_legal),
        cmocka_unit_test(safety_decides),          cmocka_unit_test(long_contexts),
        cmocka_unit_test(lines_without_words),     cmocka_unit_test(cancelling),
        cmocka_unit_test(refusals),                cmocka_unit_test(the_record),
    };
    return cmocka_run_group_tests_name("respond", tests, setup, teardown);
}
