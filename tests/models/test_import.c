/* import and export: every container and naming that GPT-2 checkpoints come in gives the same numbers, the numbers are the reference's,
 * and what goes out comes back.  With DUET_FIXTURES=…/fixtures/models the first two run over all variants of that folder instead of those in tests/vectors. */
#define _GNU_SOURCE
#include "models/import.h"

#include "models/ops.h"
#include "models/sample.h"
#include "models/unpickle.h"

#include <dirent.h>
#include <ftw.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char scratch[200];
static const char *vectors = "tests/vectors/import";

/* ---- help ---- */

static char *in_scratch(const char *name)
{
    static char path[8][600];
    static int  next;
    char       *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", scratch, name);
    return p;
}

static int import_to(const char *src, const char *out, const char *name, err *e)
{
    return import_model(src, out, &(import_opts){ .lower = -1, .name = name }, e);
}

/* The whole model as floats; NULL never. */
static float *slab_of(const char *path, gpt2_config *c, size_t *n)
{
    gguf        *g;
    err          e = { 0 };
    gpt2_tensor *list;
    if (gguf_open(&g, path, &e) || gpt2_read_config(g, c, &e)) fail_msg("%s", e.msg);
    assert_true(gpt2_tensors(c, &list, n, &e) > 0);
    float *slab = malloc(*n * sizeof *slab);
    if (gpt2_read_slab(g, c, slab, &e)) fail_msg("%s", e.msg);
    free(list);
    gguf_close(g);
    return slab;
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void copy(const char *from, const char *to)
{
    buf b = { 0 };
    err e = { 0 };
    if (read_file(from, 1 << 24, &b, &e)) fail_msg("%s", e.msg);
    FILE *f = fopen(to, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.s, 1, b.n, f), b.n);
    fclose(f);
    buf_free(&b);
}

static void same_bytes(const char *a, const char *b)
{
    buf x = { 0 }, y = { 0 };
    err e = { 0 };
    if (read_file(a, 1 << 28, &x, &e) || read_file(b, 1 << 28, &y, &e)) fail_msg("%s", e.msg);
    assert_int_equal(x.n, y.n);
    assert_memory_equal(x.s, y.s, x.n);
    buf_free(&x);
    buf_free(&y);
}

/* What the variant's name says of its precision: the folder of expected results. */
static const char *precision(const char *variant)
{
    return strstr(variant, "mixed") ? "mixed" : strstr(variant, "bf16") ? "bf16" : strstr(variant, "f16") ? "f16" : "f32";
}

/* Every mK/variant of `vectors` to fn. */
static int for_each_variant(void (*fn)(const char *model, const char *variant))
{
    int n = 0;
    for (int k = 1; k <= 9; k++) {
        char model[300];
        snprintf(model, sizeof model, "%s/m%d", vectors, k);
        struct dirent **v;
        int             found = scandir(model, &v, NULL, alphasort);
        for (int i = 0; i < found; i++) {
            if (v[i]->d_name[0] != '.' && strncmp(v[i]->d_name, "expected", 8)) fn(model, v[i]->d_name), n++;
            free(v[i]);
        }
        if (found >= 0) free(v);
    }
    return n;
}

/* ---- the numbers ---- */

static float *first_slab; /* of the model's variants of one precision */
static size_t first_n;
static char   first_of[400];

/* Two variants of one model and precision hold the same bits, though one parser read safetensors and another a pickle. */
static void compare_slabs(const char *model, const char *variant)
{
    char        src[600], key[400];
    err         e = { 0 };
    gpt2_config c;
    size_t      n;
    snprintf(src, sizeof src, "%s/%s", model, variant);
    snprintf(key, sizeof key, "%s/%s", model, precision(variant));
    char *out = in_scratch("slab.gguf");
    if (import_to(src, out, "x", &e)) fail_msg("%s: %s", src, e.msg);
    float *slab = slab_of(out, &c, &n);
    if (strcmp(key, first_of) == 0) {
        assert_int_equal(n, first_n);
        for (size_t i = 0; i < n; i++)
            if (memcmp(&slab[i], &first_slab[i], sizeof *slab))
                fail_msg("%s: float %zu is %.9g, %.9g wanted", src, i, (double)slab[i], (double)first_slab[i]);
        free(slab);
        return;
    }
    free(first_slab);
    first_slab = slab;
    first_n    = n;
    strcpy(first_of, key);
}

static void variants_agree(void **s)
{
    (void)s;
    assert_true(for_each_variant(compare_slabs) >= 18);
    free(first_slab);
    first_slab = NULL;
}

/* NumPy 1.0, little-endian float64, C order, 2-D: a malloc'ed (T, V). */
static double *read_npy(const char *path, int T, int V)
{
    buf  b = { 0 };
    err  e = { 0 };
    char shape[64];
    if (access(path, F_OK)) return NULL;
    if (read_file(path, 1 << 26, &b, &e)) fail_msg("%s", e.msg);
    size_t head = 10 + (unsigned char)b.s[8] + 256 * (size_t)(unsigned char)b.s[9];
    snprintf(shape, sizeof shape, "(%d, %d)", T, V);
    assert_non_null(memmem(b.s, head, shape, strlen(shape)));
    assert_non_null(memmem(b.s, head, "<f8", 3));
    assert_int_equal(b.n, head + (size_t)T * (size_t)V * 8);
    double *v = malloc((size_t)T * (size_t)V * 8);
    memcpy(v, b.s + head, (size_t)T * (size_t)V * 8);
    buf_free(&b);
    return v;
}

/* Tolerances of the fixtures for float32 programs: logits 5e-4, sums of log-probabilities 1e-3.  PyTorch's own float32 is off by 2.3e-5. */
static void check_sequence(const gpt2 *m, json_t *seq, const char *dir, const char *what)
{
    err    e   = { 0 };
    int    n   = (int)json_array_size(json_object_get(seq, "ids")), V = gpt2_cfg(m)->n_vocab;
    int   *row = calloc(3 * (size_t)n, sizeof *row);
    unsigned char *want = malloc((size_t)n);
    for (int t = 0; t < n; t++) {
        row[t]         = (int)json_integer_value(json_array_get(json_object_get(seq, "ids"), (size_t)t));
        row[n + t]     = -1;
        row[2 * n + t] = t;
        want[t]        = 1;
    }
    float       *logits = malloc((size_t)n * (size_t)V * sizeof *logits);
    gpt2_cache  *cache  = gpt2_cache_new(m, n, 0, 0, n, &e);
    if (!cache || gpt2_forward(m, cache, &(gpt2_batch){ n, row, row + n, row + 2 * n, want }, logits, &e)) fail_msg("%s: %s", what, e.msg);
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, json_string_value(json_object_get(seq, "logits")));
    double *expected = read_npy(path, n, V), worst = 0, sum = 0, sum_expected = 0;
    for (int i = 0; expected && i < n * V; i++) worst = fmax(worst, fabs(expected[i] - (double)logits[i]));
    if (!(worst <= 5e-4)) fail_msg("%s: a logit is off by %g", what, worst);
    for (int t = 0; t + 1 < n; t++) {
        sum += sample_logprob(logits + (size_t)t * (size_t)V, V, row[t + 1]);
        sum_expected += json_real_value(json_array_get(json_object_get(seq, "token_logprobs"), (size_t)t));
    }
    if (!(fabs(sum - sum_expected) <= 1e-3)) fail_msg("%s: sum of log-probabilities %.6f, %.6f wanted", what, sum, sum_expected);
    gpt2_cache_free(cache);
    free(expected);
    free(logits);
    free(row);
    free(want);
}

static void check_greedy(const gpt2 *m, json_t *g, const char *what)
{
    err     e = { 0 };
    json_t *prompt = json_object_get(g, "prompt"), *output = json_object_get(g, "output");
    ivec    ids = { 0 };
    int     V = gpt2_cfg(m)->n_vocab, total = (int)(json_array_size(prompt) + json_array_size(output));
    float  *logits = malloc((size_t)V * sizeof *logits);
    gpt2_cache *cache = gpt2_cache_new(m, total, 0, 0, 8, &e);
    assert_non_null(cache);
    for (size_t i = 0; i < json_array_size(prompt); i++) ivec_push(&ids, (int)json_integer_value(json_array_get(prompt, i)));
    for (size_t i = 0; i < json_array_size(output); i++) {
        if (gpt2_sync(m, cache, ids.v, (int)ids.n, logits, NULL, &e)) fail_msg("%s: %s", what, e.msg);
        int best = 0;
        for (int k = 1; k < V; k++) best = logits[k] > logits[best] ? k : best;
        int wanted = (int)json_integer_value(json_array_get(output, i));
        if (best != wanted) fail_msg("%s: greedy token %zu is %d, %d wanted", what, i, best, wanted);
        ivec_push(&ids, best);
    }
    ivec_free(&ids);
    free(logits);
    gpt2_cache_free(cache);
}

static void compare_with_reference(const char *model, const char *variant)
{
    char         src[600], dir[600], expected[700];
    err          e   = { 0 };
    char        *out = in_scratch("ref.gguf");
    gpt2        *m;
    json_error_t je;
    snprintf(src, sizeof src, "%s/%s", model, variant);
    snprintf(dir, sizeof dir, "%s/expected_%s", model, precision(variant));
    snprintf(expected, sizeof expected, "%s/expected.json", dir);
    if (import_to(src, out, NULL, &e) || gpt2_open(&m, out, &e)) fail_msg("%s: %s", src, e.msg);
    json_t *j = json_load_file(expected, 0, &je), *x;
    if (!j) fail_msg("%s: %s", expected, je.text);
    size_t i;
    assert_true(json_array_size(json_object_get(j, "sequences")) >= 3);
    json_array_foreach (json_object_get(j, "sequences"), i, x)
        check_sequence(m, x, dir, src);
    json_array_foreach (json_object_get(j, "greedy"), i, x)
        check_greedy(m, x, src);
    json_decref(j);
    gpt2_close(m);
}

static void logits_are_the_references(void **s)
{
    (void)s;
    assert_true(for_each_variant(compare_with_reference) >= 18);
}

/* The layout, told without any parser of ours: element [i][o] of Conv1D's (in, out) is our row o, column i. */
static void conv1d_is_transposed(void **s)
{
    (void)s;
    const char *src = "tests/vectors/import/m1/st_f32_prefix";
    char       *out = in_scratch("t.gguf");
    buf         b   = { 0 };
    err         e   = { 0 };
    gpt2_config c;
    size_t      n, head = 0;
    assert_int_equal(read_file("tests/vectors/import/m1/st_f32_prefix/model.safetensors", 1 << 24, &b, &e), OK);
    memcpy(&head, b.s, 8);
    json_t *j = json_loadb(b.s + 8, head, 0, NULL);
    assert_non_null(j);
    if (import_to(src, out, NULL, &e)) fail_msg("%s", e.msg);
    float       *slab = slab_of(out, &c, &n);
    gpt2_tensor *list;
    int          count = gpt2_tensors(&c, &list, &n, &e), matrices = 0;
    for (int k = 0; k < count; k++) {
        char name[96];
        snprintf(name, sizeof name, "transformer.%s", list[k].hf);
        json_t *t = json_object_get(j, name);
        assert_non_null(t);
        const char *data = b.s + 8 + head + json_integer_value(json_array_get(json_object_get(t, "data_offsets"), 0));
        int         turned = strstr(name, ".c_attn.weight") || strstr(name, ".c_proj.weight") || strstr(name, ".c_fc.weight");
        matrices += turned;
        for (int r = 0; r < list[k].rows; r++)
            for (int i = 0; i < list[k].cols; i++) {
                float  v;
                size_t at = turned ? (size_t)i * (size_t)list[k].rows + (size_t)r : (size_t)r * (size_t)list[k].cols + (size_t)i;
                memcpy(&v, data + 4 * at, 4);
                assert_true(v == slab[list[k].offset + (size_t)r * (size_t)list[k].cols + (size_t)i]);
            }
    }
    assert_int_equal(matrices, 4 * c.n_layer);
    free(list);
    free(slab);
    json_decref(j);
    buf_free(&b);
}

/* Matrices keep the type they came in; vectors and positions are f32. */
static void types_are_kept(void **s)
{
    (void)s;
    static const struct {
        const char *src;
        int         type;
    } cases[] = {
        { "m2/pt_zip_bf16_prefix", GT_BF16 },       { "m2/st_bf16_prefix", GT_BF16 },
        { "m2/st_mixed_f16_matrices_f32_vectors", GT_F16 }, { "m3/dialogpt_legacy_f16_lm_head_decoder", GT_F16 },
        { "m1/pt_zip_f64", GT_F32 },                { "m1/st_f32_prefix", GT_F32 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char  src[300], *out = in_scratch("type.gguf");
        err   e = { 0 };
        gguf *g;
        snprintf(src, sizeof src, "tests/vectors/import/%s", cases[i].src);
        if (import_to(src, out, NULL, &e) || gguf_open(&g, out, &e)) fail_msg("%s", e.msg);
        assert_int_equal(gguf_find(g, "token_embd.weight")->type, cases[i].type);
        assert_int_equal(gguf_find(g, "blk.1.ffn_down.weight")->type, cases[i].type);
        assert_int_equal(gguf_find(g, "position_embd.weight")->type, GT_F32);
        assert_int_equal(gguf_find(g, "blk.0.attn_qkv.bias")->type, GT_F32);
        assert_int_equal(gguf_find(g, "output_norm.weight")->type, GT_F32);
        gguf_close(g);
    }
}

/* ---- there and back ---- */

static void round_trip_of(const char *model, const char *variant)
{
    char src[600], *a = in_scratch("a.gguf"), *dir = in_scratch("hf"), *b = in_scratch("b.gguf");
    err  e = { 0 };
    snprintf(src, sizeof src, "%s/%s", model, variant);
    if (import_to(src, a, NULL, &e) || export_model(a, dir, &e) || import_to(dir, b, NULL, &e)) fail_msg("%s: %s", src, e.msg);
    same_bytes(a, b);
}

static void export_then_import_is_identity(void **s)
{
    (void)s;
    assert_true(for_each_variant(round_trip_of) >= 18);
}

/* A model with a vocabulary, drawn at random: rows of 8. */
static void make_model(const char *path, const tokenizer *t, int n_vocab, const gpt2_meta *m, const gpt2_config *base)
{
    err          e = { 0 };
    gpt2_config  c = base ? *base
                          : (gpt2_config){ .n_vocab = n_vocab, .n_ctx = 6, .n_embd = 8, .n_head = 2, .n_layer = 1, .n_inner = 12, .eps = 1e-5f,
                                           .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
    gpt2_tensor *list;
    size_t       n;
    assert_true(gpt2_tensors(&c, &list, &n, &e) > 0);
    float *slab = malloc(n * sizeof *slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)rng_normal(7, 0, i);
    if (gpt2_save(path, &c, slab, t, m, NULL, &e)) fail_msg("%s", e.msg);
    free(slab);
    free(list);
}

static void vocabulary_and_meta_come_back(void **s)
{
    (void)s;
    tokenizer *t;
    err        e = { 0 };
    char      *a = in_scratch("v.gguf"), *dir = in_scratch("v-hf"), *b = in_scratch("v2.gguf");
    gpt2_meta  m = { .fmt = { FORMAT_CLS_SEP, 0, 0 }, .role = ROLE_BACKWARD, .name = "小模型", .note = "made up, MIT" };
    memset(m.data_sha256, 'a', 64);
    if (tokenizer_open_wordpiece(&t, "tests/vectors/tokenizer/chitchat_vocab.txt", 0, &e)) fail_msg("%s", e.msg);
    m.fmt.bos = tokenizer_specials(t).bos;
    m.fmt.sep = tokenizer_specials(t).eos;
    make_model(a, t, tokenizer_size(t), &m, NULL);
    tokenizer_close(t);
    if (export_model(a, dir, &e) || import_to(dir, b, NULL, &e)) fail_msg("%s", e.msg);
    same_bytes(a, b);
    copy("tests/vectors/tokenizer/chitchat_vocab.txt", in_scratch("plain.txt")); /* the exported list is the one that went in */
    char vocab[700];
    snprintf(vocab, sizeof vocab, "%s/vocab.txt", dir);
    tokenizer    *u;
    unsigned char d1[32], d2[32];
    assert_int_equal(tokenizer_open_wordpiece(&t, vocab, 0, &e), OK);
    assert_int_equal(tokenizer_open_wordpiece(&u, in_scratch("plain.txt"), 0, &e), OK);
    tokenizer_digest(t, d1);
    tokenizer_digest(u, d2);
    assert_memory_equal(d1, d2, 32);
    tokenizer_close(t);
    tokenizer_close(u);

    dir = in_scratch("v-bpe");
    m   = (gpt2_meta){ .fmt = { FORMAT_DIALOGPT, -1, 50256 }, .role = ROLE_FORWARD, .name = "bpe" };
    if (tokenizer_open_bpe(&t, "tests/vectors/tokenizer/gpt2_vocab.json", "tests/vectors/tokenizer/gpt2_merges.txt", &e)) fail_msg("%s", e.msg);
    make_model(a, t, 50257, &m, NULL);
    tokenizer_close(t);
    if (export_model(a, dir, &e) || import_to(dir, b, NULL, &e)) fail_msg("%s", e.msg);
    same_bytes(a, b);
}

/* Quantised matrices go out as the floats they stand for. */
static void quantised_goes_out_as_f32(void **s)
{
    (void)s;
    char       *dir = in_scratch("q-hf"), *b = in_scratch("q.gguf");
    err         e = { 0 };
    gpt2_config c, d;
    size_t      n, k;
    if (export_model("tests/vectors/models/tiny_q8_0.gguf", dir, &e) || import_to(dir, b, NULL, &e)) fail_msg("%s", e.msg);
    float *x = slab_of("tests/vectors/models/tiny_q8_0.gguf", &c, &n), *y = slab_of(b, &d, &k);
    assert_int_equal(n, k);
    assert_memory_equal(x, y, n * sizeof *x);
    free(x);
    free(y);
}

/* ---- what is decided, and what is refused ---- */

/* A folder from the base config and weights, one key of config.json replaced (value as JSON text; NULL removes it). */
static char *folder_with(const char *name, const char *from, const char *key, const char *value)
{
    char        *dir = in_scratch(name), path[700];
    json_error_t je;
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/config.json", from);
    json_t *j = json_load_file(path, 0, &je);
    assert_non_null(j);
    if (key && value) json_object_set_new(j, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else if (key) json_object_del(j, key);
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(json_dump_file(j, path, 0), 0);
    json_decref(j);
    char source[700];
    snprintf(source, sizeof source, "%s/model.safetensors", from);
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    copy(source, path);
    return dir;
}

static void refused(const char *src, const import_opts *o, const char *w1, const char *w2)
{
    err   e   = { 0 };
    char *out = in_scratch("refused.gguf");
    int   r   = import_model(src, out, o ? o : &(import_opts){ .lower = -1 }, &e);
    if (r == OK) fail_msg("%s was imported; a message with '%s' was wanted", src, w1);
    assert_int_equal(r, e.code);
    if (!strstr(e.msg, w1) || (w2 && !strstr(e.msg, w2))) fail_msg("%s: '%s' and '%s' are wanted in: %s", src, w1, w2 ? w2 : "", e.msg);
    assert_int_equal(access(out, F_OK), -1); /* nothing half-made is left */
}

static void config_is_not_guessed(void **s)
{
    (void)s;
    const char *m1 = "tests/vectors/import/m1/st_f32_prefix";
    refused(folder_with("c1", m1, "n_embd", NULL), NULL, "n_embd is missing", NULL);
    refused(folder_with("c2", m1, "n_positions", "63"), NULL, "(64, 32)", "(63, 32)");
    refused(folder_with("c3", m1, "n_layer", "1"), NULL, "h.1.", "no part");
    refused(folder_with("c4", m1, "n_layer", "3"), NULL, "h.2.ln_1.weight", "missing");
    refused(folder_with("c5", m1, "n_head", "3"), NULL, "n_head 3", NULL);
    refused(folder_with("c6", m1, "model_type", "\"llama\""), NULL, "llama", "gpt2");
    refused(folder_with("c7", m1, "activation_function", "\"mish\""), NULL, "mish", NULL);
    refused(folder_with("c8", m1, "vocab_size", "97.0"), NULL, "vocab_size", "whole number");
    refused(folder_with("c9", "tests/vectors/import/m1/st_f32_noprefix_nometa_unaligned", "tie_word_embeddings", "false"), NULL, "lm_head.weight is missing", "tie_word_embeddings");
    refused(folder_with("c10", m1, "add_cross_attention", "true"), NULL, "cross", NULL);
    refused(folder_with("c11", m1, "layer_norm_epsilon", "\"1e-5\""), NULL, "layer_norm_epsilon", NULL);
    refused("tests/vectors/import", NULL, "no model.safetensors", NULL);
    refused("tests/vectors/import/m1/st_f32_prefix/config.json", NULL, "config.json", "neither");
    /* CDial's configs have an n_ctx of one less: n_positions is what counts */
    char       *out = in_scratch("ctx.gguf");
    err         e   = { 0 };
    gpt2_config c;
    size_t      n;
    if (import_to(folder_with("c12", m1, "n_ctx", "63"), out, NULL, &e)) fail_msg("%s", e.msg);
    free(slab_of(out, &c, &n));
    assert_int_equal(c.n_ctx, 64);
    if (import_to(folder_with("c13", m1, "n_positions", NULL), out, NULL, &e)) fail_msg("%s", e.msg);
    free(slab_of(out, &c, &n));
    assert_int_equal(c.n_ctx, 64);
}

/* lm_head: equal to wte is tied; another is untied, unless config.json says that cannot be. */
static void head_is_tied_when_equal(void **s)
{
    (void)s;
    err          e = { 0 };
    char        *a = in_scratch("h.gguf"), *dir = in_scratch("h-hf"), *b = in_scratch("h2.gguf");
    gpt2_config  c = { .n_vocab = 11, .n_ctx = 6, .n_embd = 8, .n_head = 2, .n_layer = 1, .n_inner = 12, .eps = 1e-5f, .act = ACT_RELU,
                       .scale_attn = 1 }, d;
    gpt2_meta    m = { 0 };
    gpt2_tensor *list;
    size_t       n, k;
    int          count = gpt2_tensors(&c, &list, &n, &e);
    float       *slab  = malloc(n * sizeof *slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)rng_normal(3, 0, i);
    for (int equal = 0; equal < 2; equal++) {
        if (equal) memcpy(slab + list[count - 1].offset, slab, 88 * sizeof *slab); /* wte is the first */
        if (gpt2_save(a, &c, slab, NULL, &m, NULL, &e) || export_model(a, dir, &e) || import_to(dir, b, NULL, &e)) fail_msg("%s", e.msg);
        float *back = slab_of(b, &d, &k);
        assert_int_equal(d.tied, equal);
        assert_int_equal(d.act, ACT_RELU);
        assert_memory_equal(back, slab, k * sizeof *slab);
        free(back);
        if (!equal) refused(folder_with("h-says", dir, "tie_word_embeddings", "true"), NULL, "lm_head.weight differs", NULL);
        if (!equal) { /* config silent: the file decides */
            if (import_to(folder_with("h-silent", dir, "tie_word_embeddings", NULL), b, NULL, &e)) fail_msg("%s", e.msg);
            free(slab_of(b, &d, &k));
            assert_int_equal(d.tied, 0);
        }
    }
    free(slab);
    free(list);
}

static void vocabulary_must_fit(void **s)
{
    (void)s;
    import_opts o   = { .lower = -1, .vocab = "tests/vectors/tokenizer/chitchat_vocab.txt" };
    const char *m1  = "tests/vectors/import/m1/st_f32_prefix";
    err         e   = { 0 };
    refused(m1, &o, "13317 tokens", "is 97");
    refused(m1, &(import_opts){ .lower = -1, .format = FORMAT_CLS_SEP }, "cls_sep wants a vocabulary", NULL);
    refused(m1, &(import_opts){ .lower = -1, .vocab = "tests/vectors/none.txt" }, "none.txt", NULL);
    refused(m1, &(import_opts){ .lower = -1, .vocab = "tests/vectors/import" }, "no vocab.json or vocab.txt", NULL);

    /* GPT2-chitchat: config.json says eos 50256; [SEP] of the vocabulary is 102 */
    char *a = in_scratch("cc.gguf"), *dir = in_scratch("cc-hf"), *b = in_scratch("cc2.gguf"), path[700];
    make_model(a, NULL, 13317, &(gpt2_meta){ 0 }, NULL);
    assert_int_equal(export_model(a, dir, &e), OK);
    char *chitchat = folder_with("cc", dir, "eos_token_id", "50256");
    refused(chitchat, &(import_opts){ .lower = -1, .format = FORMAT_DIALOGPT }, "eos_token_id", NULL); /* out of range is no answer */
    snprintf(path, sizeof path, "%s/vocab.txt", chitchat);
    copy("tests/vectors/tokenizer/chitchat_vocab.txt", path);
    for (int cased = 0; cased < 2; cased++) {
        snprintf(path, sizeof path, "%s/tokenizer_config.json", chitchat);
        if (cased) write_text(path, "{\"do_lower_case\": false}");
        gpt2 *m;
        if (import_to(chitchat, b, NULL, &e) || gpt2_open(&m, b, &e)) fail_msg("%s", e.msg);
        assert_int_equal(gpt2_about(m)->fmt.kind, FORMAT_CLS_SEP);
        assert_int_equal(gpt2_about(m)->fmt.sep, 102);
        assert_int_equal(gpt2_about(m)->fmt.bos, 101);
        assert_int_equal(gpt2_about(m)->role, ROLE_FORWARD);
        assert_string_equal(gpt2_about(m)->name, "cc");
        assert_int_equal(tokenizer_lower(gpt2_tokenizer(m)), !cased);
        gpt2_close(m);
    }
    snprintf(path, sizeof path, "%s/vocab.json", chitchat);
    write_text(path, "{}");
    refused(chitchat, NULL, "both vocab.json and vocab.txt", NULL);
}

/* DialoGPT's releases: a .pkl of any name, given alone or as the only one of its folder. */
static void pkl_by_folder_and_by_name(void **s)
{
    (void)s;
    char *dir = in_scratch("dialogpt"), path[700], *a = in_scratch("p1.gguf"), *b = in_scratch("p2.gguf");
    err   e   = { 0 };
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/config.json", dir);
    copy("tests/vectors/import/m3/dialogpt_legacy_f16_lm_head_decoder/config.json", path);
    snprintf(path, sizeof path, "%s/small_ft.pkl", dir);
    copy("tests/vectors/import/m3/dialogpt_legacy_f16_lm_head_decoder/pytorch_model.bin", path);
    if (import_to(dir, a, NULL, &e) || import_to(path, b, NULL, &e)) fail_msg("%s", e.msg);
    same_bytes(a, b);
    char more[700];
    snprintf(more, sizeof more, "%s/reverse.pkl", dir);
    copy(path, more);
    refused(dir, NULL, "2 *.pkl files", NULL);
}

/* ---- hostile bytes ---- */

/* Every proper prefix of a checkpoint is refused; every single changed byte is refused or gives finite weights; neither disturbs the program. */
static void bend(const char *base, const char *file)
{
    buf   b = { 0 };
    err   e = { 0 };
    char *dir = in_scratch("bent"), path[700], *out = in_scratch("bent.gguf");
    mkdir(dir, 0777);
    snprintf(path, sizeof path, "%s/config.json", dir);
    copy("tests/vectors/corrupt/config.json", path);
    assert_int_equal(read_file(base, 1 << 20, &b, &e), OK);
    snprintf(path, sizeof path, "%s/%s", dir, file);
    copy(base, path);
    if (import_to(dir, out, NULL, &e)) fail_msg("%s: %s", base, e.msg);
    FILE *f = fopen(path, "r+b");
    setvbuf(f, NULL, _IONBF, 0);
    size_t step = b.n / 400 + 1; /* 400 places spread over the file, and all of the first 200 bytes */
    for (size_t i = 0; i < b.n; i += i < 200 ? 1 : step) {
        char flipped = (char)(b.s[i] ^ (1 << i % 8));
        fseek(f, (long)i, SEEK_SET);
        fwrite(&flipped, 1, 1, f);
        e     = (err){ 0 };
        int r = import_to(dir, out, NULL, &e);
        if (r && (r != e.code || !e.msg[0] || strchr(e.msg, '\n'))) fail_msg("byte %zu: no proper message", i);
        fseek(f, (long)i, SEEK_SET);
        fwrite(b.s + i, 1, 1, f);
    }
    for (size_t n = b.n; n-- > 0; n -= n > 200 && n > step ? step - 1 : 0) {
        assert_int_equal(ftruncate(fileno(f), (off_t)n), 0);
        e = (err){ 0 };
        if (import_to(dir, out, NULL, &e) == OK) fail_msg("%s cut to %zu bytes was imported", base, n);
        assert_true(e.msg[0] && !strchr(e.msg, '\n'));
    }
    fclose(f);
    unlink(path);
    buf_free(&b);
}
static void bent_safetensors(void **s)
{
    (void)s;
    bend("tests/vectors/corrupt/model.safetensors", "model.safetensors");
}
static void bent_zip(void **s)
{
    (void)s;
    bend("tests/vectors/corrupt/zip.bin", "pytorch_model.bin");
}
static void bent_legacy(void **s)
{
    (void)s;
    bend("tests/vectors/corrupt/legacy.bin", "pytorch_model.bin");
}

static int run_pickle(str in, pickled *out, arena *mem, err *e)
{
    *e = (err){ 0 };
    return unpickle(mem, in, 0, out, e);
}

/* The machine builds values and refuses everything that could act. */
static void unpickler_is_closed(void **s)
{
    (void)s;
    arena   mem = { 0 };
    pickled p;
    err     e;
    assert_int_equal(run_pickle(STR("\x80\x02}q\0X\1\0\0\0aK\7s."), &p, &mem, &e), OK);
    assert_int_equal(p.top->kind, PV_DICT);
    assert_int_equal(p.top->seq.n, 2);
    assert_int_equal(p.top->seq.v[1]->i, 7);
    assert_int_equal(run_pickle(STR("\x80\x02J\xff\xff\xff\xff."), &p, &mem, &e), OK);
    assert_int_equal(p.top->i, -1);
    assert_int_equal(run_pickle(STR("\x80\x02\x8a\x02\x00\x80."), &p, &mem, &e), OK);
    assert_int_equal(p.top->i, -32768);
    assert_int_equal(run_pickle(STR("\x80\x02" "ccollections\nOrderedDict\n)R."), &p, &mem, &e), OK);
    assert_int_equal(p.top->kind, PV_DICT);
    static const struct {
        str         in;
        const char *word;
    } refusals[] = {
        { STR("\x80\x02" "cos\nsystem\nX\2\0\0\0id\x85R."), "os.system" },
        { STR("\x80\x04\x8c\x05posix\x8c\x06system\x93."), "posix.system" },
        { STR("\x80\x02" "ctorch.storage\n_load_from_bytes\n."), "torch.storage._load_from_bytes" },
        { STR("\x80\x02" "ccollections\nOrderedDictX\n."), "OrderedDictX" },
        { STR("\x80\x02(ios\nsystem\n."), "0x69" },                            /* INST */
        { STR("\x80\x02(cos\nsystem\no."), "os.system" },                      /* OBJ */
        { STR("\x80\x02\x82\x01."), "0x82" },                                  /* EXT1 */
        { STR("\x80\x02" "ccollections\nOrderedDict\n)\x81."), "0x81" },          /* NEWOBJ */
        { STR("Pid\n."), "0x50" },                                             /* PERSID */
        { STR("\x80\x02" "ctorch\nFloatStorage\n)R."), "storage type" },          /* storages cannot be called */
        { STR("\x80\x02K\1K\2."), "more or less than one" },
        { STR("\x80\x02(."), "more or less than one" },
        { STR("\x80\x02K\1(K\2\x86."), "stack is empty" },                     /* a tuple may not reach below a mark */
        { STR("\x80\x02](K\1K\2u."), "no dict" },
        { STR("\x80\x02}(K\1u."), "without a value" },
        { STR("\x80\x02K\1r\xff\xff\xff\xff."), "memo number" },
        { STR("\x80\x02h\5."), "never set" },
        { STR("\x80\x02K\1"), "without STOP" },
        { STR("\x80\x02X\xff\xff\xff\xff" "ab."), "4294967295 bytes wanted" },
    };
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        if (run_pickle(refusals[i].in, &p, &mem, &e) == OK) fail_msg("refusal %zu was accepted", i);
        if (!strstr(e.msg, refusals[i].word)) fail_msg("refusal %zu: '%s' is wanted in: %s", i, refusals[i].word, e.msg);
    }
    /* a list that is copied again and again through the memo ends at a limit, not at the end of memory */
    buf b = { 0 };
    buf_str(&b, STR("\x80\x02(]("));
    for (int i = 0; i < 60000; i++) buf_str(&b, STR("K\1"));
    buf_str(&b, STR("eq\0"));
    for (int i = 0; i < 1000; i++) buf_str(&b, STR("h\0"));
    buf_str(&b, STR("l."));
    assert_int_equal(run_pickle(buf_view(&b), &p, &mem, &e), OK); /* sharing is free */
    buf_reset(&b);
    buf_str(&b, STR("\x80\x02(]("));
    for (int i = 0; i < 60000; i++) buf_str(&b, STR("K\1K\1\x86"));
    buf_str(&b, STR("e\x85q\0" "ccollections\nOrderedDict\nq\1"));
    for (int i = 0; i < 1000; i++) buf_str(&b, STR("h\1h\0R"));
    buf_str(&b, STR("l."));
    assert_int_equal(run_pickle(buf_view(&b), &p, &mem, &e), E_LIMIT);
    assert_true(mem.used < 256u << 20);
    buf_free(&b);
    arena_free(&mem);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *w)
{
    (void)st, (void)flag, (void)w;
    return remove(path);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR"), *all = getenv("DUET_FIXTURES");
    snprintf(scratch, sizeof scratch, "%s/duet-import-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(scratch)) return 1;
    if (all && *all) vectors = all;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variants_agree),
        cmocka_unit_test(logits_are_the_references),
        cmocka_unit_test(conv1d_is_transposed),
        cmocka_unit_test(types_are_kept),
        cmocka_unit_test(export_then_import_is_identity),
        cmocka_unit_test(vocabulary_and_meta_come_back),
        cmocka_unit_test(quantised_goes_out_as_f32),
        cmocka_unit_test(config_is_not_guessed),
        cmocka_unit_test(head_is_tied_when_equal),
        cmocka_unit_test(vocabulary_must_fit),
        cmocka_unit_test(pkl_by_folder_and_by_name),
        cmocka_unit_test(bent_safetensors),
        cmocka_unit_test(bent_zip),
        cmocka_unit_test(bent_legacy),
        cmocka_unit_test(unpickler_is_closed),
    };
    int failed = cmocka_run_group_tests_name("import", tests, NULL, NULL);
    nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return failed;
}
