/* prune: taking out nothing is the identity to the bit; what is taken out is the same as what is masked; what does nothing is what goes first; a smaller vocabulary
 * reads the same text with the same logits; refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "models/ops.h"
#include "models/prune.h"

static err e;
#define TRY(call)                                               \
    do {                                                        \
        if ((call) != OK) fail_msg("%s: %s", #call, e.msg);     \
    } while (0)

/* ---- a model and its logits ------------------------------------------------------------------------------------ */

enum { LEN = 12, V = 50 };
static char in_path[64], out_path[64];

static gpt2_config config(int by_layer)
{
    return (gpt2_config){ .n_vocab = V, .n_ctx = 16, .n_embd = 24, .n_head = 3, .n_layer = 3, .n_inner = 40, .eps = 1e-5f, .act = ACT_GELU_NEW, .scale_attn = 1,
                          .scale_attn_by_layer = by_layer, .tied = 1 };
}

/* Every number drawn, large enough that every part matters. */
static float *weights(const gpt2_config *c, gpt2_params *p)
{
    gpt2_tensor *list;
    size_t       n;
    int          n_t = gpt2_tensors(c, &list, &n, &e);
    float       *x   = malloc(n * sizeof *x);
    for (int i = 0; i < n_t; i++)
        for (size_t k = 0; k < (size_t)list[i].rows * (size_t)list[i].cols; k++)
            x[list[i].offset + k] = (float)(0.3 * rng_normal(7, (uint64_t)i, k)) + (strstr(list[i].gguf, "norm.weight") ? 1.0f : 0.0f);
    free(list);
    TRY(gpt2_params_map(p, c, x, &e));
    return x;
}

static const int ids[LEN] = { 3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32 };

/* Logits of the last of n ids. */
static float *file_logits(const char *path, const int *id, int n, int n_vocab)
{
    gpt2  *m;
    float *out = malloc((size_t)n_vocab * sizeof *out);
    TRY(gpt2_open(&m, path, &e));
    gpt2_cache *cache = gpt2_cache_new(m, n, 1, 1, n, &e);
    assert_non_null(cache);
    TRY(gpt2_sync(m, cache, id, n, out, NULL, &e));
    gpt2_cache_free(cache);
    gpt2_close(m);
    return out;
}

static float *logits(const gpt2_config *c, const float *slab)
{
    TRY(gpt2_save(in_path, c, slab, NULL, &(gpt2_meta){ 0 }, NULL, &e));
    return file_logits(in_path, ids, LEN, c->n_vocab);
}

static void assert_close(const float *a, const float *b, int n)
{
    double spread = 0, most = 0;
    for (int i = 0; i < n; i++) spread = fmax(spread, fabs((double)b[i])), most = fmax(most, fabs((double)a[i] - (double)b[i]));
    if (!(most <= 1e-5 * spread)) fail_msg("logits differ by %g of %g", most, spread);
}

static void zero(float *x, int n, int stride)
{
    for (int i = 0; i < n; i++) x[(size_t)i * (size_t)stride] = 0;
}

/* A sample for the scores: two sequences, all but the first of each a target. */
static const int   sample_len[2] = { 7, 5 };
static const float sample_weight[LEN] = { 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1 };
static const train_batch sample = { LEN, 2, ids, sample_len, sample_weight };
static const prune_data  measured = { &sample, 1, NULL, 0, NULL, NULL };

static int same_bytes(const char *a, const char *b)
{
    filemap x, y;
    TRY(map_open(&x, a, &e));
    TRY(map_open(&y, b, &e));
    int same = x.n == y.n && memcmp(x.p, y.p, x.n) == 0;
    map_close(&x);
    map_close(&y);
    return same;
}

/* ---- structure ------------------------------------------------------------------------------------------------- */

static void nothing_is_the_identity(void **state)
{
    (void)state;
    static const int kinds[] = { GT_F32, GT_F16, GT_BF16, GT_Q8_0 };
    gpt2_config      c = config(1);
    c.n_embd = 32, c.n_head = 2, c.n_inner = 64, c.tied = 0;
    gpt2_params  p;
    float       *x = weights(&c, &p);
    gpt2_tensor *list;
    size_t       n;
    int          n_t = gpt2_tensors(&c, &list, &n, &e), types[64];
    prune_report r;
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < n_t; i++) types[i] = list[i].vector || i == 1 ? GT_F32 : kinds[k];
        TRY(gpt2_save(in_path, &c, x, NULL, &(gpt2_meta){ .name = "whole", .role = ROLE_BACKWARD, .note = "of the test" }, types, &e));
        TRY(prune_file(in_path, out_path, &(prune_want){ 0 }, &(prune_data){ 0 }, &r, &e));
        assert_true(same_bytes(in_path, out_path));
        assert_int_equal(r.from.params, r.to.params);
        prune_report_free(&r);
    }
    free(list);
    gpt2_params_free(&p);
    free(x);
}

/* Layers 0 and 2, columns and nothing else: the same logits as with layer 1 and the other columns masked, also where the scale depends on the layer. */
static void cut_is_masked(void **state)
{
    (void)state;
    for (int by_layer = 0; by_layer < 2; by_layer++) {
        gpt2_config c = config(by_layer), to;
        gpt2_params p;
        prune_cut   k;
        float      *x = weights(&c, &p), *small;
        TRY(prune_cut_new(&k, &c, &e));
        k.n_layer = 2, k.layer[1] = 2;
        k.n_inner = 31;
        for (int l = 0; l < 2; l++)
            for (int i = 0, f = 0; f < 40; f++)
                if ((f + l) % 4 != 1 || f > 35) k.column[l * 31 + i++] = f;
        TRY(prune_apply(&c, x, &k, &to, &small, &e));
        assert_int_equal(to.n_layer, 2);
        assert_int_equal(to.n_inner, 31);
        float *cut = logits(&to, small), *whole = logits(&c, x);
        zero(p.h[1].attn_proj_w, 24 * 24, 1), zero(p.h[1].attn_proj_b, 24, 1), zero(p.h[1].mlp_proj_w, 24 * 40, 1), zero(p.h[1].mlp_proj_b, 24, 1);
        for (int l = 0; l < 2; l++)
            for (int f = 0; f <= 35; f++)
                if ((f + l) % 4 == 1) zero(p.h[2 * l].mlp_proj_w + f, 24, 40);
        float *masked = logits(&c, x);
        assert_close(cut, masked, V);
        assert_true(fabsf(whole[0] - masked[0]) > 1e-3f); /* the mask is no empty one */
        free(cut), free(whole), free(masked), free(small), free(x);
        prune_cut_free(&k);
        gpt2_params_free(&p);
    }
}

/* Layer 1 adds nothing, five columns of the others add nothing: they are what goes, and no logit changes. */
static void idle_parts_go_first(void **state)
{
    (void)state;
    gpt2_config c = config(0);
    gpt2_params p;
    float      *x = weights(&c, &p);
    zero(p.h[1].attn_proj_w, 24 * 24, 1), zero(p.h[1].attn_proj_b, 24, 1), zero(p.h[1].mlp_proj_w, 24 * 40, 1), zero(p.h[1].mlp_proj_b, 24, 1);
    for (int l = 0; l < 3; l += 2)
        for (int f = l; f < 25 + l; f += 5) zero(p.h[l].mlp_proj_w + f, 24, 40);
    int said[LEN] = { 3 }; /* what the model itself would say: every other change costs loss */
    free(logits(&c, x));
    for (int n = 1; n < LEN; n++) {
        float *l = file_logits(in_path, said, n, V);
        for (int i = 1; i < V; i++)
            if (l[i] > l[said[n]]) said[n] = i;
        free(l);
    }
    const int         one = LEN;
    const float       all[LEN] = { 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    const train_batch own      = { LEN, 1, said, &one, all };
    float            *before   = logits(&c, x);
    prune_report      r;
    TRY(prune_file(in_path, out_path, &(prune_want){ .layers = 1, .inner = 5 }, &(prune_data){ &own, 1, NULL, 0, NULL, NULL }, &r, &e));
    assert_int_equal(r.to.n_layer, 2);
    assert_int_equal(r.layer[0], 0);
    assert_int_equal(r.layer[1], 2);
    assert_int_equal(r.to.n_inner, 35);
    assert_true(fabs(r.from.nll - r.to.nll) < 1e-5);
    float *after = file_logits(out_path, ids, LEN, V);
    assert_close(after, before, V);
    prune_report_free(&r);
    gpt2_params_free(&p);
    free(before), free(after), free(x);
}

/* A model of 48 channels whose second 24 repeat the first (so mean and variance are those of 24) and are read by nobody, and whose heads 1, 3 and 4 write
 * nothing.  Half of the heads out, and with them half of the channels: the logits of the same model of 24 channels. */
static void heads_go_with_channels(void **state)
{
    (void)state;
    static const int at[3] = { 0, 2, 5 }; /* where the heads of the small model sit in the wide one */
    gpt2_config  c = config(0), w = c;
    gpt2_params  p, q;
    float       *x = weights(&c, &p), *want = logits(&c, x);
    w.n_embd = 48, w.n_head = 6;
    float *y = weights(&w, &q);
    for (int i = 0; i < V; i++)
        for (int j = 0; j < 48; j++) q.wte[i * 48 + j] = p.wte[i * 24 + j % 24];
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 48; j++) q.wpe[i * 48 + j] = p.wpe[i * 24 + j % 24];
    for (int j = 0; j < 48; j++) q.ln_f_w[j] = j < 24 ? p.ln_f_w[j] : 0, q.ln_f_b[j] = j < 24 ? p.ln_f_b[j] : 0;
    for (int l = 0; l < 3; l++) {
        const gpt2_layer *s = &p.h[l];
        gpt2_layer       *d = &q.h[l];
        for (int j = 0; j < 48; j++) {
            int in = j < 24;
            d->ln_1_w[j] = in ? s->ln_1_w[j] : 0, d->ln_1_b[j] = in ? s->ln_1_b[j] : 0;
            d->ln_2_w[j] = in ? s->ln_2_w[j] : 0, d->ln_2_b[j] = in ? s->ln_2_b[j] : 0;
            d->attn_proj_b[j] = s->attn_proj_b[j % 24], d->mlp_proj_b[j] = s->mlp_proj_b[j % 24];
            for (int f = 0; f < 40; f++) d->mlp_proj_w[j * 40 + f] = s->mlp_proj_w[j % 24 * 40 + f];
            zero(d->attn_proj_w + j * 48, 48, 1);
            for (int h = 0; h < 3; h++)
                for (int i = 0; i < 8; i++) d->attn_proj_w[j * 48 + at[h] * 8 + i] = s->attn_proj_w[j % 24 * 24 + h * 8 + i];
        }
        for (int f = 0; f < 40; f++) {
            d->c_fc_b[f] = s->c_fc_b[f];
            for (int j = 0; j < 24; j++) d->c_fc_w[f * 48 + j] = s->c_fc_w[f * 24 + j];
        }
        for (int t = 0; t < 3; t++)
            for (int h = 0; h < 3; h++)
                for (int i = 0; i < 8; i++) {
                    int to = t * 48 + at[h] * 8 + i, from = t * 24 + h * 8 + i;
                    d->c_attn_b[to] = s->c_attn_b[from];
                    for (int j = 0; j < 24; j++) d->c_attn_w[to * 48 + j] = s->c_attn_w[from * 24 + j];
                }
    }
    float *wide = logits(&w, y);
    assert_close(wide, want, V);
    prune_report r;
    TRY(prune_file(in_path, out_path, &(prune_want){ .heads = 0.5 }, &measured, &r, &e));
    assert_int_equal(r.to.n_head, 3);
    assert_int_equal(r.to.n_embd, 24);
    float *cut = file_logits(out_path, ids, LEN, V);
    assert_close(cut, want, V);
    prune_report_free(&r);
    gpt2_params_free(&p), gpt2_params_free(&q);
    free(x), free(y), free(want), free(wide), free(cut);
}

typedef struct {
    size_t most;
    double least;
    int    n;
} seen;
static void see(void *ctx, const prune_shape *t, const int *layer)
{
    seen *s = ctx;
    for (int i = 1; i < t->n_layer; i++) assert_true(layer[i] > layer[i - 1]);
    if (t->params <= s->most && t->nll < s->least) s->least = t->nll;
    s->n++;
}

/* What is written meets the share and has the least loss of all that was tried and meets it. */
static void shares(void **state)
{
    (void)state;
    gpt2_config c = config(0);
    gpt2_params p;
    float      *x = weights(&c, &p);
    free(logits(&c, x));
    prune_report r;
    for (double share = 0.1; share < 0.6; share += 0.2) {
        seen       look = { (size_t)((1 - share) * 15072), INFINITY, 0 };
        prune_data data = { &sample, 1, NULL, 0, see, &look };
        TRY(prune_file(in_path, out_path, &(prune_want){ .share = share }, &data, &r, &e));
        assert_int_equal(r.from.params, 15072 /* 50*24 + 16*24 + 3 (4*24 + 72*24+72 + 24*24+24 + 40*24+40 + 24*40+24) + 48 */);
        assert_true((double)r.to.params <= (1 - share) * (double)r.from.params);
        assert_true(look.n > 3 && fabs(r.to.nll - look.least) < 1e-12);
        gguf       *g;
        gpt2_config to;
        TRY(gguf_open(&g, out_path, &e));
        TRY(gpt2_read_config(g, &to, &e));
        TRY(gpt2_check_tensors(g, &to, &e));
        assert_int_equal(to.n_embd / to.n_head, 8);
        gguf_close(g);
        prune_report_free(&r);
    }
    static const struct {
        prune_want  want;
        const char *says;
    } bad[] = {
        { { .share = 1 }, "share 1: more than 0 and less than 1" },
        { { .share = -0.5 }, "share -0.5" },
        { { .share = 0.99 }, "are not so much of" },
        { { .share = 0.2, .layers = 1 }, "not together" },
        { { .layers = 3 }, "layers 3: there are 3" },
        { { .layers = 7 }, "layers 7: there are 3" },
        { { .layers = 0.1 }, "less than one" },
        { { .heads = 0.9 }, "heads 0.9: that share of 3 is all" },
        { { .inner = 1.5 }, "inner 1.5: a share below 1 or a whole number" },
        { { .inner = -1 }, "inner -1" },
    };
    unlink(out_path);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(prune_file(in_path, out_path, &bad[i].want, &measured, &r, &e), E_ARG);
        if (!strstr(e.msg, bad[i].says)) fail_msg("'%s' is not in '%s'", bad[i].says, e.msg);
        assert_int_not_equal(access(out_path, F_OK), 0);
    }
    assert_int_equal(prune_file(in_path, out_path, &(prune_want){ .inner = 3 }, &(prune_data){ 0 }, &r, &e), E_ARG);
    assert_string_equal(e.msg, "no dialogues to measure on");
    unsigned char keep[V] = { 1 };
    assert_int_equal(prune_file(in_path, out_path, &(prune_want){ 0 }, &(prune_data){ .keep = keep }, &r, &e), E_ARG);
    assert_non_null(strstr(e.msg, "no vocabulary to prune"));
    gpt2_params_free(&p);
    free(x);
}

/* ---- vocabulary ------------------------------------------------------------------------------------------------ */

static const char *const lines[] = {
    "the cat sat on the mat and the hat", "a cat in a hat", "the rats that chatted", "they sat at the table and ate the rice", "that is the rate of the rats",
    "今天天气很好", "明天我们去看电影", "今天我很高兴", "Good morning, everyone!", "I don't think so.", "电影很好看",
};
enum { LINES = sizeof lines / sizeof *lines };

static tokenizer *vocabulary(int kind)
{
    tokenizer_trainer *tr;
    tokenizer         *t;
    TRY(tokenizer_trainer_new(&tr, kind, 0, &e));
    for (int i = 0; i < LINES; i++) TRY(tokenizer_trainer_add(tr, str_of(lines[i]), 4, &e));
    TRY(tokenizer_trainer_build(tr, 340, 2, &t, &e));
    tokenizer_trainer_free(tr);
    return t;
}

static void encode(const tokenizer *t, const char *s, ivec *out)
{
    out->n = 0;
    TRY(tokenizer_encode(t, str_of(s), out, &e));
}

/* Kept: what the lines up to `used` need. */
static void shrink(int kind, int used, int drop)
{
    tokenizer    *t = vocabulary(kind), *small;
    int           n = tokenizer_size(t);
    unsigned char keep[512] = { 0 };
    ivec          got = { 0 }, was = { 0 };
    for (int i = 0; i < used; i++) {
        encode(t, lines[i], &was);
        for (size_t k = 0; k < was.n; k++) keep[was.v[k]] = 1;
    }
    gpt2_config c = config(0);
    gpt2_params p;
    c.n_vocab     = n;
    float *x      = weights(&c, &p);
    gpt2_meta meta = { .fmt = { kind == TOK_BPE ? FORMAT_DIALOGPT : FORMAT_CLS_SEP, kind == TOK_BPE ? -1 : tokenizer_specials(t).bos, tokenizer_specials(t).eos } };
    TRY(gpt2_save(in_path, &c, x, t, &meta, NULL, &e));
    prune_report r;
    TRY(prune_file(in_path, out_path, &(prune_want){ 0 }, &(prune_data){ .keep = keep, .drop_characters = drop }, &r, &e));
    assert_int_equal(r.vocab_from, n);
    assert_true(r.vocab_to < n);
    gguf *g;
    TRY(gguf_open(&g, out_path, &e));
    TRY(tokenizer_from_gguf(&small, g, &e));
    assert_int_equal(tokenizer_size(small), r.vocab_to);
    for (int i = 0; i < used; i++) { /* the lines it was made for: the same tokens under other numbers */
        encode(t, lines[i], &was);
        encode(small, lines[i], &got);
        assert_int_equal(was.n, got.n);
        for (size_t k = 0; k < was.n; k++) assert_true(str_eq(tokenizer_token(t, was.v[k]), tokenizer_token(small, got.v[k])));
    }
    for (int i = 0; i < LINES; i++) { /* and every other line can still be written */
        buf text = { 0 };
        int unknown = 0;
        encode(small, lines[i], &got);
        for (size_t k = 0; k < got.n; k++) unknown += got.v[k] == tokenizer_specials(small).unk;
        TRY(tokenizer_decode(small, got.v, got.n, &text, &e));
        if (drop && (i == 6 || i == 7 || i == 10)) assert_true(unknown > 0);
        else assert_int_equal(unknown, 0);
        if (!unknown) assert_true(str_eq(buf_view(&text), str_of(lines[i])));
        buf_free(&text);
    }
    special_ids a = tokenizer_specials(t), b = tokenizer_specials(small);
    assert_true(str_eq(tokenizer_token(t, a.eos), tokenizer_token(small, b.eos)));
    assert_int_equal(a.unk < 0, b.unk < 0);
    encode(t, lines[0], &was); /* logits of kept tokens, to the bit */
    encode(small, lines[0], &got);
    int    len    = (int)(was.n < 16 ? was.n : 16);
    float *before = file_logits(in_path, was.v, len, n), *after = file_logits(out_path, got.v, len, r.vocab_to);
    for (int id = 0; id < r.vocab_to; id++) {
        int old = tokenizer_find(t, tokenizer_token(small, id));
        assert_true(old >= 0);
        assert_memory_equal(&before[old], &after[id], sizeof(float));
    }
    gguf_close(g);
    prune_report_free(&r);
    gpt2_params_free(&p);
    ivec_free(&got), ivec_free(&was);
    free(before), free(after), free(x);
    tokenizer_close(t), tokenizer_close(small);
}

static void vocabulary_bpe(void **state)
{
    (void)state;
    shrink(TOK_BPE, 3, 0);
    shrink(TOK_BPE, 6, 0);
    tokenizer *t = vocabulary(TOK_BPE), *small;
    ivec       map = { 0 }, got = { 0 };
    unsigned char keep[512] = { 0 };
    int deep = tokenizer_find(t, STR("\u0120chatted"));
    assert_true(deep >= 0);
    keep[deep] = 1; /* one token: the parts of its merges stay with it, and all 256 bytes */
    TRY(tokenizer_cut(&small, t, keep, 0, &map, &e));
    assert_true(tokenizer_size(small) >= 257 && tokenizer_size(small) < tokenizer_size(t));
    buf word = { 0 }, every = { 0 };
    TRY(tokenizer_decode(t, &deep, 1, &word, &e));
    assert_true(str_eq(buf_view(&word), STR(" chatted")));
    TRY(tokenizer_encode(small, buf_view(&word), &got, &e));
    assert_int_equal(got.n, 1);
    assert_int_equal(map.v[got.v[0]], deep);
    for (int b = 0; b < 256; b++) buf_chr(&every, (char)b);
    got.n = 0;
    buf_reset(&word);
    TRY(tokenizer_encode(small, buf_view(&every), &got, &e));
    TRY(tokenizer_decode(small, got.v, got.n, &word, &e));
    assert_true(str_eq(buf_view(&every), buf_view(&word)));
    buf_free(&word), buf_free(&every);
    ivec_free(&map), ivec_free(&got);
    tokenizer_close(t), tokenizer_close(small);
}

static void vocabulary_wordpiece(void **state)
{
    (void)state;
    shrink(TOK_WORDPIECE, 3, 0);
    shrink(TOK_WORDPIECE, 6, 1);
}

static int setup(void **state)
{
    (void)state;
    snprintf(in_path, sizeof in_path, "/tmp/duet-prune-%ld-in.gguf", (long)getpid());
    snprintf(out_path, sizeof out_path, "/tmp/duet-prune-%ld-out.gguf", (long)getpid());
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    unlink(in_path);
    unlink(out_path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_the_identity), cmocka_unit_test(cut_is_masked),  cmocka_unit_test(idle_parts_go_first),
        cmocka_unit_test(heads_go_with_channels),  cmocka_unit_test(shares),         cmocka_unit_test(vocabulary_bpe),
        cmocka_unit_test(vocabulary_wordpiece),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
