/* gpt2: against PyTorch's results; and against itself, bit for bit: however rows are cut into batches, wherever keys lie,
 * with any number of threads and on every processor path, a row's logits are the same. */
#include "models/cache.h"
#include "models/gpt2.h"
#include "models/linear.h"
#include "models/ops.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/vectors.h"

#define VECTORS "tests/vectors/models/"

static char dir[64], path[128];

static const char *in_dir(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static gpt2 *open_ok(const char *file)
{
    gpt2 *m;
    err   e;
    if (gpt2_open(&m, file, &e)) fail_msg("%s", e.msg);
    return m;
}

/* ---- models from reference files ------------------------------------------------------------------------------- */

/* Hugging Face weights into a slab, in our order: Conv1D matrices are (in, out) there. */
static float *slab_of(const char *safetensors, const gpt2_config *c)
{
    size_t         size, n_params, n;
    gpt2_tensor   *list;
    err            e;
    unsigned char *file = vec_slurp(safetensors, &size);
    int            count = gpt2_tensors(c, &list, &n_params, &e);
    float         *slab = malloc(n_params * sizeof *slab);
    assert_true(count > 0);
    assert_non_null(slab);
    for (int i = 0; i < count; i++) {
        const gpt2_tensor *t = &list[i];
        const char        *from = (const char *)safetensors_find(file, t->hf, &n);
        assert_int_equal(n, (size_t)t->rows * t->cols);
        for (int r = 0; r < t->rows; r++)
            for (int k = 0; k < t->cols; k++) {
                size_t at = t->flags & T_HF_TRANSPOSED ? (size_t)k * t->rows + r : (size_t)r * t->cols + k;
                memcpy(slab + t->offset + (size_t)r * t->cols + k, from + 4 * at, 4);
            }
    }
    free(list);
    free(file);
    return slab;
}

static void read_config_line(const char *s, gpt2_config *c)
{
    char act[32];
    memset(c, 0, sizeof *c);
    assert_int_equal(sscanf(s, "%d %d %d %d %d %d %f %31s %d %d %d", &c->n_vocab, &c->n_ctx, &c->n_embd, &c->n_head, &c->n_layer, &c->n_inner,
                            &c->eps, act, &c->scale_attn, &c->scale_attn_by_layer, &c->tied), 11);
    c->act = ops_act_of_name(act);
}

/* mK.safetensors -> a GGUF of our own -> an open model. */
static gpt2 *open_reference(const char *name, const int *types)
{
    char        file[128];
    size_t      n;
    gpt2_config c;
    err         e;
    gpt2_meta   meta = { .role = ROLE_FORWARD, .name = "reference" };
    snprintf(file, sizeof file, VECTORS "%s.txt", name);
    char *text = (char *)vec_slurp(file, &n);
    assert_memory_equal(text, "config ", 7);
    read_config_line(text + 7, &c);
    free(text);
    snprintf(file, sizeof file, VECTORS "%s.safetensors", name);
    float *slab = slab_of(file, &c);
    if (gpt2_save(in_dir("reference.gguf"), &c, slab, NULL, &meta, types, &e)) fail_msg("%s", e.msg);
    free(slab);
    return open_ok(path);
}

/* ---- ways to evaluate a sequence ------------------------------------------------------------------------------- */

/* ids (n,) as one batch to sequence `seq` of a cache that holds `at` of it; logits (n, V) of every row. */
static void feed(const gpt2 *m, gpt2_cache *c, const int *ids, int n, int seq, int at, float *logits)
{
    err           e;
    int          *s = malloc(sizeof(int) * n), *p = malloc(sizeof(int) * n);
    unsigned char *w = malloc((size_t)n);
    for (int i = 0; i < n; i++) s[i] = seq, p[i] = at + i, w[i] = 1;
    gpt2_batch b = { n, (int *)ids, s, p, w };
    if (gpt2_forward(m, c, &b, logits, &e)) fail_msg("%s", e.msg);
    free(s), free(p), free(w);
}

static gpt2_cache *cache_ok(const gpt2 *m, int prefix, int n_seq, int tail, int rows)
{
    err         e;
    gpt2_cache *c = gpt2_cache_new(m, prefix, n_seq, tail, rows, &e);
    if (!c) fail_msg("%s", e.msg);
    return c;
}

/* All logits of a sequence by one cold prefill; the caller frees. */
static float *cold(const gpt2 *m, const int *ids, int n)
{
    float      *logits = malloc(sizeof(float) * n * gpt2_cfg(m)->n_vocab);
    gpt2_cache *c = cache_ok(m, n, 0, 0, n);
    assert_non_null(logits);
    feed(m, c, ids, n, -1, 0, logits);
    gpt2_cache_free(c);
    return logits;
}

static void same_bits(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], 4)) fail_msg("%s: value %zu is %a, %a wanted", what, i, (double)a[i], (double)b[i]);
}

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static float gap(const float *x, int n) /* between the two largest */
{
    int   best = argmax(x, n);
    float next = -INFINITY;
    for (int i = 0; i < n; i++)
        if (i != best && x[i] > next) next = x[i];
    return x[best] - next;
}

/* ids of some length within the vocabulary, the same every time */
static int *some_ids(const gpt2 *m, int n, uint64_t stream)
{
    int *ids = malloc(sizeof(int) * n);
    assert_non_null(ids);
    for (int i = 0; i < n; i++) ids[i] = (int)rng_below(11, stream, (uint64_t)i, (uint64_t)gpt2_cfg(m)->n_vocab);
    return ids;
}

/* ---- against PyTorch ------------------------------------------------------------------------------------------- */

/* Tolerance of logits: PyTorch's own float32 is off by up to 2.3e-5 from float64 on these models; 5e-4 leaves room for
 * another order of sums but not for another formula (the erf GELU in place of the tanh one moves them by more than 1e-3). */
#define TOL_LOGIT 5e-4
#define TOL_ROUGH 0.04 /* of the logits' RMS; measured: 0.022 */
#define TOL_SUM 1e-3 /* of a sum of log-probabilities */

static void check_greedy(const gpt2 *m, char *prompt_line, char *greedy_line)
{
    int         n, want_n, V = gpt2_cfg(m)->n_vocab, *prompt = vec_ints(&prompt_line, &n), *want = vec_ints(&greedy_line, &want_n);
    err         e;
    float      *logits = malloc(sizeof(float) * V);
    gpt2_cache *c = cache_ok(m, n, 1, want_n, 8);
    assert_int_equal(gpt2_sync(m, c, prompt, n, logits, NULL, &e), OK);
    for (int i = 0; i < want_n; i++) {
        int id = argmax(logits, V);
        assert_int_equal(id, want[i]);
        if (i < want_n - 1) feed(m, c, &id, 1, 0, n + i, logits);
    }
    gpt2_cache_free(c);
    free(logits), free(prompt), free(want);
}

static void check_logits(const gpt2 *m, const int *ids, int n, const float *want, double tol)
{
    int    V = gpt2_cfg(m)->n_vocab;
    float *got = cold(m, ids, n);
    for (int i = 0; i < n * V; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tol))
            fail_msg("logit %d of position %d is %g, %g wanted", i % V, i / V, (double)got[i], (double)want[i]);
    free(got);
}

/* With rounded activations: the distance of all logits together, as a share of their size. */
static void check_logits_roughly(const gpt2 *m, const int *ids, int n, const float *want, double tol)
{
    int    V = gpt2_cfg(m)->n_vocab;
    float *got = cold(m, ids, n);
    double off = 0, size = 0;
    for (int i = 0; i < n * V; i++) {
        off += pow((double)got[i] - (double)want[i], 2);
        size += pow((double)want[i], 2);
    }
    if (!(sqrt(off / size) <= tol)) fail_msg("logits are off by %g of their size, %g allowed", sqrt(off / size), tol);
    free(got);
}

static void check_token_logprobs(const gpt2 *m, const int *ids, int n, char *line)
{
    int           count, from = 1;
    double       *want = vec_doubles(&line, &count), sum, *tok = malloc(sizeof(double) * n);
    double *const toks[] = { tok };
    err           e;
    assert_int_equal(count, n - 1);
    assert_int_equal(gpt2_score(m, &ids, &n, &from, 1, &sum, toks, &e), OK);
    for (int t = 1; t < n; t++) assert_true(fabs(tok[t] - want[t - 1]) <= TOL_LOGIT);
    free(want), free(tok);
}

static void reference_model(const char *name)
{
    char   file[128];
    size_t size, row = 0;
    gpt2  *m = open_reference(name, NULL);
    int    V = gpt2_cfg(m)->n_vocab, n = 0, *ids = NULL, seen[4] = { 0 };
    err    e;
    snprintf(file, sizeof file, VECTORS "%s.logits.npy", name);
    npy want = npy_read(file);
    snprintf(file, sizeof file, VECTORS "%s.txt", name);
    char *text = (char *)vec_slurp(file, &size), *prompt = NULL, *save = NULL;
    assert_int_equal(want.shape[1], V);
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *p = strchr(line, ' ') + 1;
        if (strncmp(line, "seq ", 4) == 0) {
            free(ids);
            ids = vec_ints(&p, &n);
            check_logits(m, ids, n, want.v + row * V, TOL_LOGIT);
            row += (size_t)n;
            seen[0]++;
        } else if (strncmp(line, "argmax ", 7) == 0) {
            int    k, *best = vec_ints(&p, &k);
            float *got = cold(m, ids, n);
            for (int i = 0; i < n; i++)
                if (gap(want.v + (row - n + i) * V, V) >= 1e-3f) assert_int_equal(argmax(got + (size_t)i * V, V), best[i]);
            free(best), free(got);
        } else if (strncmp(line, "logp ", 5) == 0) {
            check_token_logprobs(m, ids, n, p);
            seen[1]++;
        } else if (strncmp(line, "mmi ", 4) == 0) {
            int    from = (int)strtol(p, &p, 10), k;
            double sum = strtod(p, &p), got;
            int   *all = vec_ints(&p, &k);
            assert_int_equal(gpt2_score(m, (const int *const[]){ all }, &k, &from, 1, &got, NULL, &e), OK);
            assert_true(fabs(got - sum) <= TOL_SUM);
            free(all);
            seen[2]++;
        } else if (strncmp(line, "prompt ", 7) == 0) {
            prompt = p;
        } else if (strncmp(line, "greedy ", 7) == 0) {
            check_greedy(m, prompt, p);
            seen[3]++;
        }
    }
    assert_int_equal(row, want.shape[0]);
    for (int i = 0; i < 4; i++) assert_true(seen[i] > 0);
    free(ids), free(text), free(want.v);
    gpt2_close(m);
}
static void reference_m1(void **s) { (void)s, reference_model("m1"); }
static void reference_m4(void **s) { (void)s, reference_model("m4"); }
static void reference_m5(void **s) { (void)s, reference_model("m5"); }
static void reference_m6(void **s) { (void)s, reference_model("m6"); }

/* Keys and values of m1's first sequence: (layer, head, T, D).  2e-4: they are one matrix product away from the logits'
 * tolerance. */
static void reference_kv(void **s)
{
    (void)s;
    size_t size;
    int    n;
    gpt2  *m = open_reference("m1", NULL);
    char  *text = (char *)vec_slurp(VECTORS "m1.txt", &size), *p = strstr(text, "\nseq ") + 5;
    int   *ids = vec_ints(&p, &n), D = gpt2_cfg(m)->n_embd / gpt2_cfg(m)->n_head, H = gpt2_cfg(m)->n_head;
    npy    k = npy_read(VECTORS "m1.kcache.npy"), v = npy_read(VECTORS "m1.vcache.npy");
    assert_int_equal(k.shape[2], n);
    assert_int_equal(k.shape[3], D);
    gpt2_cache *c = cache_ok(m, n, 0, 0, n);
    float      *logits = malloc(sizeof(float) * n * gpt2_cfg(m)->n_vocab);
    feed(m, c, ids, n, -1, 0, logits);
    for (size_t i = 0; i < k.n; i++) {
        size_t d = i % D, t = i / D % n, head = i / D / n; /* head counts through the layers */
        const float *kh = c->prefix->k + head * c->prefix_cap * D, *vh = c->prefix->v + head * c->prefix_cap * c->lanes;
        assert_true(fabsf(kh[(t / 16) * D * 16 + d * 16 + t % 16] - k.v[i]) <= 2e-4f);
        assert_true(fabsf(vh[t * c->lanes + d] - v.v[i]) <= 2e-4f);
    }
    assert_int_equal(k.n, (size_t)gpt2_cfg(m)->n_layer * H * n * D);
    gpt2_cache_free(c);
    free(logits), free(ids), free(text), free(k.v), free(v.v);
    gpt2_close(m);
}

/* Files that llama.cpp reads.  The reference has de-quantised weights and exact activations; ours are rounded to 8 bits in every product of a q8_0 matrix,
 * which moves the logits of this file by ROUGH of their size at most. */
static void gguf_file(const char *file, const char *kind)
{
    char   name[128];
    size_t size, row = 0;
    int    n;
    gpt2  *m = open_ok(file);
    snprintf(name, sizeof name, VECTORS "gguf_%s.logits.npy", kind);
    npy   want = npy_read(name);
    char *text = (char *)vec_slurp(VECTORS "gguf.txt", &size), *prompt = NULL, *save = NULL;
    int   ours = 0, greedy = 0, rough = strcmp(kind, "q8_0") == 0;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *p = strchr(line, ' ') + 1;
        if (strncmp(line, "seq ", 4) == 0) {
            int *ids = vec_ints(&p, &n);
            if (rough) check_logits_roughly(m, ids, n, want.v + row * want.shape[1], TOL_ROUGH);
            else check_logits(m, ids, n, want.v + row * want.shape[1], TOL_LOGIT);
            row += (size_t)n;
            free(ids);
        } else if (strncmp(line, "kind ", 5) == 0) {
            ours = strcmp(p, kind) == 0;
        } else if (strncmp(line, "prompt ", 7) == 0) {
            prompt = p;
        } else if (ours) {
            if (!rough) check_greedy(m, prompt, p); /* the best two of random weights are too near each other for rounded activations */
            greedy++;
        }
    }
    assert_int_equal(row, want.shape[0]);
    assert_true(greedy > 0);
    free(text), free(want.v);
    gpt2_close(m);
}
static void gguf_files(void **s)
{
    (void)s;
    gguf_file(VECTORS "tiny_f32.gguf", "f32");
    gguf_file(VECTORS "tiny_f16_align64.gguf", "f16");
    gguf_file(VECTORS "tiny_f16_output_tensor.gguf", "f16");
    gguf_file(VECTORS "tiny_f16_bert_tokenizer.gguf", "f16");
    gguf_file(VECTORS "tiny_q8_0.gguf", "q8_0");
}

static void dialogue_layout_comes_from_the_vocabulary(void **s)
{
    (void)s;
    gpt2 *bpe = open_ok(VECTORS "tiny_f32.gguf"), *bert = open_ok(VECTORS "tiny_f16_bert_tokenizer.gguf");
    assert_int_equal(gpt2_about(bpe)->fmt.kind, FORMAT_DIALOGPT);
    assert_int_equal(gpt2_about(bpe)->fmt.bos, -1);
    assert_int_equal(gpt2_about(bpe)->fmt.sep, 299);
    assert_int_equal(gpt2_about(bert)->fmt.kind, FORMAT_CLS_SEP);
    assert_int_equal(gpt2_about(bert)->fmt.bos, tokenizer_find(gpt2_tokenizer(bert), STR("[CLS]")));
    assert_int_equal(gpt2_about(bert)->fmt.sep, tokenizer_find(gpt2_tokenizer(bert), STR("[SEP]")));
    gpt2_close(bpe);
    gpt2_close(bert);
}

/* ---- against itself -------------------------------------------------------------------------------------------- */

enum { N = 40 };

/* One sequence in every way it can reach the model; `want` are the logits of a cold prefill. */
static void every_way(const gpt2 *m, const int *ids, const float *want)
{
    size_t V = (size_t)gpt2_cfg(m)->n_vocab;
    float *got = malloc(sizeof(float) * N * V);
    gpt2_cache *c = cache_ok(m, N, 3, N, 7); /* slices of 7 rows */
    feed(m, c, ids, N, -1, 0, got);
    same_bits(got, want, N * V, "slices");
    gpt2_cache_free(c);

    c = cache_ok(m, N, 0, 0, N);
    for (int i = 0; i < N; i++) feed(m, c, ids + i, 1, -1, i, got + (size_t)i * V);
    same_bits(got, want, N * V, "one token at a time");
    gpt2_cache_free(c);

    static const int cuts[] = { 1, 5, 15, 16, 17, 33 };
    for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
        int at = cuts[k];
        c = cache_ok(m, N, 2, N, N);
        feed(m, c, ids, at, -1, 0, got);
        feed(m, c, ids + at, N - at, -1, at, got + (size_t)at * V);
        same_bits(got, want, N * V, "two chunks");
        gpt2_cache_free(c);
        c = cache_ok(m, N, 2, N, N);
        feed(m, c, ids, at, -1, 0, got);
        feed(m, c, ids + at, N - at, 1, at, got + (size_t)at * V);
        same_bits(got, want, N * V, "prefix and tail");
        gpt2_cache_free(c);
    }
    c = cache_ok(m, 0, 2, N, N);
    feed(m, c, ids, N, 1, 0, got);
    same_bits(got, want, N * V, "a tail alone");
    gpt2_cache_free(c);
    free(got);
}

static void agree_on(const char *name, const int *types)
{
    gpt2  *m = open_reference(name, types);
    int   *ids = some_ids(m, N, 1);
    size_t V = (size_t)gpt2_cfg(m)->n_vocab;
    omp_set_num_threads(1);
    float *want = cold(m, ids, N);
    every_way(m, ids, want);
    for (int threads = 2; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        float *got = cold(m, ids, N);
        same_bits(got, want, N * V, "threads");
        free(got);
    }
    for (int p = 0; p < LINEAR_PATHS; p++) {
        if (linear_force_path(p)) continue;
        float *got = cold(m, ids, N);
        same_bits(got, want, N * V, linear_path_name());
        free(got);
    }
    assert_int_equal(linear_force_path(LINEAR_BEST), OK);
    omp_set_num_threads(omp_get_num_procs());
    free(want), free(ids);
    gpt2_close(m);
}

static void agreement(void **s)
{
    (void)s;
    int types[40];
    agree_on("m1", NULL);
    agree_on("m5", NULL);
    agree_on("m6", NULL);
    for (int i = 0; i < 40; i++) { /* m1: 2 + 12 * 2 + 2 tensors; matrices are even ones of each block */
        int k = (i - 2) % 12;
        types[i] = i == 0 || (i >= 2 && i < 26 && (k == 2 || k == 4 || k == 8 || k == 10)) ? GT_BF16 : GT_F32;
    }
    agree_on("m1", types);
}

/* Many candidates, decoded together, each in its own tail and of its own length; each equals the cold run of its whole
 * sequence. */
static void candidates(void **s)
{
    (void)s;
    enum { P = 9, K = 11, T = 12 };
    gpt2   *m = open_reference("m1", NULL);
    size_t  V = (size_t)gpt2_cfg(m)->n_vocab;
    err     e;
    int     id[K], seq[K], pos[K], *prompt = some_ids(m, P, 2), all[K][P + T];
    unsigned char want[K];
    float  *got[K], *logits = malloc(sizeof(float) * K * V);
    gpt2_cache *c = cache_ok(m, P, K, T, 4); /* more candidates than rows at a time */
    feed(m, c, prompt, P, -1, 0, (float[P * 97]){ 0 });
    for (int k = 0; k < K; k++) {
        int *tail = some_ids(m, T, 100 + (uint64_t)k);
        memcpy(all[k], prompt, sizeof(int) * P);
        memcpy(all[k] + P, tail, sizeof(int) * T);
        free(tail);
        got[k] = calloc((size_t)T * V, sizeof(float));
    }
    for (int t = 0; t < T; t++) {
        int n = 0;
        for (int k = K - 1; k >= 0; k--) { /* candidate k ends after k + 2 tokens; order of rows is free */
            if (t >= k + 2) continue;
            id[n] = all[k][P + t], seq[n] = k, pos[n] = P + t;
            want[n++] = k % 3 != 1; /* not every row's logits are wanted */
        }
        gpt2_batch b = { n, id, seq, pos, want };
        assert_int_equal(gpt2_forward(m, c, &b, logits, &e), OK);
        for (int r = 0, w = 0; r < n; r++)
            if (want[r]) memcpy(got[seq[r]] + (size_t)t * V, logits + (size_t)w++ * V, V * sizeof(float));
    }
    for (int k = 0; k < K; k++) {
        int    len = k + 2 < T ? k + 2 : T;
        float *one = cold(m, all[k], P + len);
        if (k % 3 != 1) same_bits(got[k], one + P * V, (size_t)len * V, "candidate");
        free(one), free(got[k]);
    }
    gpt2_cache_free(c);
    free(prompt), free(logits);
    gpt2_close(m);
}

/* Prefix rows and rows of several tails in one batch, out of order, in slices that cut through them; logits come in row order. */
static void mixed_batch(void **s)
{
    (void)s;
    enum { P = 6, T = 5, ROWS = P + 2 * T };
    gpt2  *m = open_reference("m4", NULL);
    size_t V = (size_t)gpt2_cfg(m)->n_vocab;
    int   *a = some_ids(m, P + T, 3), *b = some_ids(m, P + T, 4), id[ROWS], seq[ROWS], pos[ROWS];
    unsigned char want[ROWS];
    err    e;
    memcpy(b, a, sizeof(int) * P);
    float *all_a = cold(m, a, P + T), *all_b = cold(m, b, P + T), *got = malloc(sizeof(float) * ROWS * V);
    int    n = 0;
    for (int i = 0; i < T; i++) { /* tails before the prefix, interleaved */
        id[n] = b[P + i], seq[n] = 1, pos[n] = P + i, want[n++] = 1;
        id[n] = a[P + i], seq[n] = 0, pos[n] = P + i, want[n++] = (unsigned char)(i % 2);
    }
    for (int i = 0; i < P; i++) id[n] = a[i], seq[n] = -1, pos[n] = i, want[n++] = (unsigned char)(i != 2);
    for (int rows = 1; rows <= ROWS; rows += 3) {
        gpt2_cache *c = cache_ok(m, P, 2, T, rows);
        gpt2_batch  batch = { n, id, seq, pos, want };
        assert_int_equal(gpt2_forward(m, c, &batch, got, &e), OK);
        for (int r = 0, w = 0; r < n; r++)
            if (want[r]) same_bits(got + (size_t)w++ * V, (seq[r] == 1 ? all_b : all_a) + (size_t)pos[r] * V, V, "mixed batch");
        gpt2_cache_free(c);
    }
    free(a), free(b), free(all_a), free(all_b), free(got);
    gpt2_close(m);
}

/* Three contexts in one cache: synced one by one, their tails fed in common batches whose rows go to and fro between them; a tail that
 * is copied goes on as its source would. */
static void several_prefixes(void **s)
{
    (void)s;
    enum { CTX = 3, EACH = 2, T = 20, MOST = 30, PART = 17 /* tokens after which the second tail of a context leaves the first */ };
    gpt2  *m = open_reference("m4", NULL);
    size_t V = (size_t)gpt2_cfg(m)->n_vocab;
    int    P[CTX] = { 9, 3, 17 }, *all[CTX * EACH], id[CTX * EACH], seq[CTX * EACH], pos[CTX * EACH], done;
    float *want[CTX * EACH], *got = malloc(sizeof(float) * CTX * EACH * V);
    err    e;
    unsigned char yes[CTX * EACH];
    memset(yes, 1, sizeof yes);
    assert_true(MOST + T <= gpt2_cfg(m)->n_ctx);
    for (int q = 0; q < CTX * EACH; q++) {
        all[q] = some_ids(m, MOST + T, 40 + (uint64_t)q);
        if (q % EACH) memcpy(all[q], all[q - 1], sizeof(int) * (size_t)(P[q / EACH] + PART));
        want[q] = cold(m, all[q], P[q / EACH] + T);
    }
    for (int rows = 1; rows <= 8; rows += 7) {
        gpt2_cache *c = gpt2_caches_new(m, CTX, MOST, EACH, T, rows, &e);
        assert_non_null(c);
        for (int p = CTX - 1; p >= 0; p--) {
            assert_int_equal(gpt2_sync_at(m, c, p, all[p * EACH], P[p], got, &done, &e), OK);
            assert_int_equal(done, P[p]);
            same_bits(got, want[p * EACH] + (size_t)(P[p] - 1) * V, V, "prefix");
        }
        for (int t = 0; t < T; t++) {
            int n = 0;
            for (int k = 0; k < EACH; k++)
                for (int p = 0; p < CTX; p++) {
                    int q = p * EACH + k;
                    if (k && t < PART) continue;
                    if (k && t == PART) gpt2_cache_copy_tail(c, q - 1, q);
                    id[n] = all[q][P[p] + t], seq[n] = q, pos[n++] = P[p] + t;
                }
            if (t == PART) /* copied before the first of them went on */
                for (int p = 0; p < CTX; p++) assert_int_equal(c->tail[p * EACH + 1].n, PART);
            assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ n, id, seq, pos, yes }, got, &e), OK);
            for (int r = 0; r < n; r++) same_bits(got + (size_t)r * V, want[seq[r]] + (size_t)pos[r] * V, V, "row of one of several contexts");
        }
        /* a prefix grows by its own tail; the others keep theirs */
        assert_int_equal(gpt2_sync_at(m, c, 1, all[3], P[1] + T, got, &done, &e), OK);
        same_bits(got, want[3] + (size_t)(P[1] + T - 1) * V, V, "adopted");
        assert_int_equal(done, 1);
        assert_true(c->tail[2].n == 0 && c->tail[0].n == T && c->prefix[0].n == P[0]);
        id[0] = 1, seq[0] = -1, pos[0] = P[0];
        assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ 1, id, seq, pos, NULL }, NULL, &e), E_ARG); /* tails stand on it */
        id[0] = all[2][P[1] + T], seq[0] = -2, pos[0] = P[1] + T;
        assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ 1, id, seq, pos, NULL }, NULL, &e), OK);
        seq[0] = -1 - CTX;
        assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ 1, id, seq, pos, NULL }, NULL, &e), E_ARG);
        assert_int_equal(gpt2_sync_at(m, c, CTX, all[0], 3, got, NULL, &e), E_ARG);
        gpt2_cache_free(c);
    }
    assert_null(gpt2_caches_new(m, 0, 8, 1, 8, 8, &e));
    assert_null(gpt2_caches_new(m, 1 << 12, 8, 1 << 12, 8, 8, &e));
    for (int q = 0; q < CTX * EACH; q++) free(all[q]), free(want[q]);
    free(got);
    gpt2_close(m);
}

static void sync_reuses(void **s)
{
    (void)s;
    enum { P = 20, T = 10, MOST = 60 };
    gpt2  *m = open_reference("m1", NULL);
    size_t V = (size_t)gpt2_cfg(m)->n_vocab;
    int   *ids = some_ids(m, MOST, 5), done;
    err    e;
    float *want = cold(m, ids, MOST), *got = malloc(sizeof(float) * V), *tail = malloc(sizeof(float) * T * V);
    gpt2_cache *c = cache_ok(m, MOST, 3, T, 16);
#define SYNC(n, evaluated)                                                       \
    do {                                                                         \
        if (gpt2_sync(m, c, ids, n, got, &done, &e)) fail_msg("%s", e.msg);      \
        same_bits(got, want + (size_t)((n) - 1) * V, V, "sync");                 \
        assert_int_equal(done, evaluated);                                       \
    } while (0)
    SYNC(P, P);
    SYNC(P, 1);          /* all there: only the last again */
    SYNC(P + 5, 5);      /* longer */
    SYNC(7, 1);          /* shorter */
    SYNC(P, P - 7);
    /* three candidates; the second is what comes next in ids, but for its last token */
    for (int k = 0; k < 3; k++) {
        int cand[T];
        memcpy(cand, ids + P, sizeof cand);
        if (k != 1) cand[k] = (cand[k] + 1) % (int)V;
        feed(m, c, cand, T, k, P, tail);
        if (k == 1) same_bits(tail, want + P * V, T * V, "tail");
    }
    SYNC(P + T + 4, 4); /* the tail was adopted */
    int saved = ids[3];
    ids[3] = (saved + 1) % (int)V; /* a prompt that differs early: all behind is computed anew */
    float *other = cold(m, ids, 30);
    assert_int_equal(gpt2_sync(m, c, ids, 30, got, &done, &e), OK);
    same_bits(got, other + 29 * V, V, "changed prompt");
    assert_int_equal(done, 27);
    ids[3] = saved;
    SYNC(MOST, MOST - 3);
    /* a tail that ends in the middle of what is asked for, then a prompt that ends inside a tail */
    SYNC(P, 1);
    feed(m, c, ids + P, T, 2, P, tail);
    SYNC(P + 3, 1);
    feed(m, c, ids + P + 3, 2, 0, P + 3, tail);
    assert_int_equal(gpt2_sync(m, c, ids, 0, got, &done, &e), E_ARG);
    assert_int_equal(gpt2_sync(m, c, ids, MOST + 1, got, &done, &e), E_LIMIT);
    SYNC(P + 5, 1);
#undef SYNC
    gpt2_cache_free(c);
    free(ids), free(want), free(other), free(got), free(tail);
    gpt2_close(m);
}

/* More rows of logits than are kept at a time have parts of so large a vocabulary. */
static gpt2 *open_wide(void)
{
    gpt2_config  c = { .n_vocab = 6001, .n_ctx = 40, .n_embd = 32, .n_head = 2, .n_layer = 2, .n_inner = 64, .eps = 1e-5f, .scale_attn = 1, .tied = 1 };
    gpt2_meta    meta = { .name = "wide" };
    gpt2_tensor *list;
    size_t       n;
    err          e;
    assert_true(gpt2_tensors(&c, &list, &n, &e) > 0);
    free(list);
    float *slab = malloc(n * sizeof *slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)(0.4 * rng_normal(77, 0, i));
    if (gpt2_save(in_dir("reference.gguf"), &c, slab, NULL, &meta, NULL, &e)) fail_msg("%s", e.msg);
    free(slab);
    return open_ok(path);
}

/* Scores are logits[id] - logsumexp(logits) of the forward, bit for bit, whatever is shared and however many sequences come. */
static void score_is_forward(gpt2 *m, int n_seq, int shared)
{
    size_t  V = (size_t)gpt2_cfg(m)->n_vocab;
    int     most = gpt2_cfg(m)->n_ctx, *n = malloc(sizeof(int) * n_seq), *from = malloc(sizeof(int) * n_seq);
    int   **ids = malloc(sizeof(int *) * n_seq);
    double *sum = malloc(sizeof(double) * n_seq), **tok = malloc(sizeof(double *) * n_seq), one;
    err     e;
    for (int k = 0; k < n_seq; k++) {
        ids[k] = some_ids(m, most, 200 + (uint64_t)k);
        for (int i = 0; k && i < shared; i++) ids[k][i] = ids[0][i];
        n[k]    = k == 0 ? most : shared + (int)rng_below(3, 9, (uint64_t)k, (uint64_t)(most - shared)) + 1;
        from[k] = 1 + (int)rng_below(3, 10, (uint64_t)k, (uint64_t)n[k]);
        tok[k]  = k % 2 ? malloc(sizeof(double) * n[k]) : NULL;
    }
    if (gpt2_score(m, (const int *const *)ids, n, from, n_seq, sum, (double *const *)tok, &e)) fail_msg("%s", e.msg);
    for (int k = 0; k < n_seq; k++) {
        float *logits = cold(m, ids[k], n[k]);
        double total = 0;
        for (int t = from[k]; t < n[k]; t++) {
            const float *row = logits + (size_t)(t - 1) * V;
            double       p = (double)row[ids[k][t]] - ops_logsumexp(row, (int)V);
            if (tok[k]) assert_memory_equal(&tok[k][t], &p, sizeof p);
            total += p;
        }
        assert_memory_equal(&sum[k], &total, sizeof total);
        assert_int_equal(gpt2_score(m, (const int *const[]){ ids[k] }, &n[k], &from[k], 1, &one, NULL, &e), OK);
        assert_memory_equal(&one, &total, sizeof total); /* alone and among others */
        free(logits);
    }
    for (int k = 0; k < n_seq; k++) free(ids[k]), free(tok[k]);
    free(n), free(from), free(ids), free(sum), free(tok);
    gpt2_close(m);
}
static void scores(void **s)
{
    (void)s;
    score_is_forward(open_reference("m1", NULL), 1, 0);
    score_is_forward(open_reference("m1", NULL), 23, 0);  /* 23 sequences of up to 64 tokens: several groups, several slices */
    score_is_forward(open_reference("m1", NULL), 23, 3);  /* a few shared tokens, again in every slice */
    score_is_forward(open_reference("m5", NULL), 9, 17);
    score_is_forward(open_reference("m6", NULL), 5, 39);  /* all but one token shared */
    score_is_forward(open_wide(), 23, 1);
    score_is_forward(open_wide(), 12, 20);
}

/* One model, a cache for each thread, at the same time. */
enum { TALKERS = 3 };
typedef struct {
    const gpt2  *m;
    const int   *ids;
    const float *want;
    int          bad;
} talker;
static void *talk(void *arg)
{
    talker *t = arg;
    size_t  V = (size_t)gpt2_cfg(t->m)->n_vocab;
    float  *got = malloc(sizeof(float) * V);
    for (int round = 0; round < 20; round++) {
        err         e;
        int         n = N - round;
        gpt2_cache *c = gpt2_cache_new(t->m, N, 0, 0, 5, &e);
        t->bad += !c || gpt2_sync(t->m, c, t->ids, n, got, NULL, &e) != OK ||
                  memcmp(got, t->want + (size_t)(n - 1) * V, sizeof(float) * V) != 0;
        gpt2_cache_free(c);
    }
    free(got);
    return NULL;
}
static void talkers(void **s)
{
    (void)s;
    gpt2     *m = open_reference("m1", NULL);
    talker    t[TALKERS];
    pthread_t id[TALKERS];
    for (int i = 0; i < TALKERS; i++) {
        int *ids = some_ids(m, N, 50 + (uint64_t)i);
        t[i]     = (talker){ m, ids, cold(m, ids, N), 0 };
    }
    for (int i = 0; i < TALKERS; i++) assert_int_equal(pthread_create(&id[i], NULL, talk, &t[i]), 0);
    for (int i = 0; i < TALKERS; i++) {
        pthread_join(id[i], NULL);
        assert_int_equal(t[i].bad, 0);
        free((void *)t[i].ids);
        free((void *)t[i].want);
    }
    gpt2_close(m);
}

static void score_refuses(void **s)
{
    (void)s;
    gpt2  *m = open_reference("m6", NULL);
    int    P = gpt2_cfg(m)->n_ctx, *ids = some_ids(m, P + 1, 1), bad[3] = { 1, 101, 2 };
    double sum = 5;
    err    e;
    const int *const long_ids[] = { ids }, *const bad_ids[] = { bad };
    assert_int_equal(gpt2_score(m, long_ids, (int[]){ P + 1 }, (int[]){ 1 }, 1, &sum, NULL, &e), E_LIMIT);
    assert_int_equal(gpt2_score(m, long_ids, (int[]){ P }, (int[]){ 0 }, 1, &sum, NULL, &e), E_ARG);
    assert_int_equal(gpt2_score(m, long_ids, (int[]){ P }, (int[]){ P + 1 }, 1, &sum, NULL, &e), E_ARG);
    assert_int_equal(gpt2_score(m, bad_ids, (int[]){ 3 }, (int[]){ 1 }, 1, &sum, NULL, &e), E_ARG);
    assert_int_equal(gpt2_score(m, long_ids, (int[]){ 1 }, (int[]){ 1 }, 1, &sum, NULL, &e), OK); /* no targets */
    assert_true(sum == 0);
    assert_int_equal(gpt2_score(m, long_ids, (int[]){ P }, (int[]){ P }, 1, &sum, NULL, &e), OK);
    assert_true(sum == 0);
    assert_int_equal(gpt2_score(m, NULL, NULL, NULL, 0, NULL, NULL, &e), OK);
    free(ids);
    gpt2_close(m);
}

static void bad_batches(void **s)
{
    (void)s;
    gpt2       *m = open_reference("m6", NULL), *other = open_ok(path);
    int         V = gpt2_cfg(m)->n_vocab, P = gpt2_cfg(m)->n_ctx, *ids = some_ids(m, P, 1);
    float      *logits = malloc(sizeof(float) * 64 * V), *want = cold(m, ids, P);
    gpt2_cache *c = cache_ok(m, P + 5, 2, 3, 8);
    err         e;
    feed(m, c, ids, 4, -1, 0, logits);
#define REFUSED(code, ...)                                                                     \
    do {                                                                                       \
        int rows[][3] = { __VA_ARGS__ }, n = (int)(sizeof rows / sizeof *rows), r3[3][8];       \
        for (int i = 0; i < n; i++) r3[0][i] = rows[i][0], r3[1][i] = rows[i][1], r3[2][i] = rows[i][2]; \
        gpt2_batch b = { n, r3[0], r3[1], r3[2], NULL };                                        \
        assert_int_equal(gpt2_forward(m, c, &b, NULL, &e), code);                               \
        assert_true(e.msg[0] && !strchr(e.msg, '\n'));                                         \
    } while (0)
    REFUSED(E_ARG, { V, -1, 4 });                              /* token */
    REFUSED(E_ARG, { -1, -1, 4 });
    REFUSED(E_ARG, { 1, 2, 4 });                               /* sequence */
    REFUSED(E_ARG, { 1, -2, 4 });
    REFUSED(E_ARG, { 1, -1, 3 });                              /* position again */
    REFUSED(E_ARG, { 1, -1, 5 });                              /* a gap */
    REFUSED(E_ARG, { 1, 0, 3 });                               /* a tail inside the prefix */
    REFUSED(E_ARG, { 1, 0, 4 }, { 1, 0, 4 });
    REFUSED(E_ARG, { 1, 0, 4 }, { 1, -1, 4 });                 /* the prefix grows in this batch: tails begin behind it */
    REFUSED(E_LIMIT, { 1, 0, 4 }, { 1, 0, 5 }, { 1, 0, 6 }, { 1, 0, 7 }); /* tail_max is 3 */
    unsigned char yes = 1;
    assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ 1, (int[]){ 1 }, (int[]){ -1 }, (int[]){ 4 }, &yes }, NULL, &e), E_ARG);
    assert_int_equal(gpt2_forward(other, c, &(gpt2_batch){ 1, (int[]){ 1 }, (int[]){ -1 }, (int[]){ 4 }, NULL }, NULL, &e), E_ARG);
    assert_int_equal(gpt2_forward(m, c, &(gpt2_batch){ 0 }, NULL, &e), OK);
    /* nothing of all that has left a trace */
    feed(m, c, ids + 4, P - 4, -1, 4, logits);
    same_bits(logits, want + 4 * V, (size_t)(P - 4) * V, "after refusals");
    REFUSED(E_LIMIT, { 1, -1, P });                            /* past n_ctx */
    assert_int_equal(gpt2_sync(m, c, ids, 10, logits, NULL, &e), OK);
    feed(m, c, ids + 10, 2, 1, 10, logits);
    REFUSED(E_ARG, { 1, -1, 10 });                             /* the prefix under a tail */
    gpt2_cache_clear_tails(c);
    feed(m, c, ids + 10, 1, -1, 10, logits);
    same_bits(logits, want + 10 * V, (size_t)V, "after clearing");
#undef REFUSED
    gpt2_cache_free(c);
    assert_null(gpt2_cache_new(m, -1, 0, 0, 8, &e));
    assert_null(gpt2_cache_new(m, 8, 1, 8, 0, &e));
    free(ids), free(logits), free(want);
    gpt2_close(m);
    gpt2_close(other);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void config_ranges(void **s)
{
    (void)s;
    const gpt2_config good = { 10, 8, 12, 3, 2, 48, 1e-5f, ACT_GELU_NEW, 1, 0, 1 };
    gpt2_config       c = good;
    err               e;
    assert_int_equal(gpt2_config_check(&c, &e), OK);
#define BAD(field, value)                                          \
    do {                                                           \
        c       = good;                                            \
        c.field = value;                                           \
        assert_int_equal(gpt2_config_check(&c, &e), E_FORMAT);     \
    } while (0)
    BAD(n_vocab, 0);
    BAD(n_vocab, (1 << 24) + 1);
    BAD(n_ctx, -1);
    BAD(n_ctx, (1 << 20) + 1);
    BAD(n_embd, 0);
    BAD(n_embd, 13);
    BAD(n_embd, (1 << 17) + 1);
    BAD(n_head, 0);
    BAD(n_head, 5);
    BAD(n_layer, 0);
    BAD(n_layer, 1025);
    BAD(n_inner, 0);
    BAD(n_inner, (1 << 17) + 1);
    BAD(eps, 0);
    BAD(eps, -1e-5f);
    BAD(eps, NAN);
    BAD(eps, INFINITY);
    BAD(act, 99);
    BAD(act, -1);
    BAD(tied, 2);
#undef BAD
}

static void tensor_table(void **s)
{
    (void)s;
    const gpt2_config c = { 10, 8, 12, 3, 2, 40, 1e-5f, ACT_GELU_NEW, 1, 0, 0 };
    gpt2_tensor *t;
    gpt2_params  p;
    size_t       n;
    err          e;
    assert_int_equal(gpt2_tensors(&c, &t, &n, &e), 2 + 24 + 3);
    size_t block = 2 * 12 + 36 * 12 + 36 + 12 * 12 + 12 + 2 * 12 + 40 * 12 + 40 + 12 * 40 + 12;
    assert_int_equal(n, 10 * 12 + 8 * 12 + 2 * block + 2 * 12 + 10 * 12);
    float *slab = malloc(n * sizeof *slab);
    assert_int_equal(gpt2_params_map(&p, &c, slab, &e), OK);
    /* the names of the list and the pointers of the map are the same places */
    const struct { const char *hf; float *at; int rows, cols; } some[] = {
        { "wte.weight", p.wte, 10, 12 }, { "wpe.weight", p.wpe, 8, 12 }, { "h.1.attn.c_attn.weight", p.h[1].c_attn_w, 36, 12 },
        { "h.0.attn.c_attn.bias", p.h[0].c_attn_b, 1, 36 }, { "h.1.mlp.c_fc.weight", p.h[1].c_fc_w, 40, 12 },
        { "h.1.mlp.c_proj.weight", p.h[1].mlp_proj_w, 12, 40 }, { "h.0.ln_2.bias", p.h[0].ln_2_b, 1, 12 },
        { "ln_f.weight", p.ln_f_w, 1, 12 }, { "lm_head.weight", p.lm_head, 10, 12 },
    };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        int k = 0;
        while (strcmp(t[k].hf, some[i].hf)) k++;
        assert_ptr_equal(slab + t[k].offset, some[i].at);
        assert_int_equal(t[k].rows, some[i].rows);
        assert_int_equal(t[k].cols, some[i].cols);
        assert_int_equal(t[k].vector, some[i].rows == 1);
    }
    gpt2_params_free(&p);
    free(t);
    gpt2_config tied = c;
    tied.tied        = 1;
    assert_int_equal(gpt2_tensors(&tied, &t, &n, &e), 2 + 24 + 2);
    assert_int_equal(gpt2_params_map(&p, &tied, slab, &e), OK);
    assert_ptr_equal(p.lm_head, p.wte);
    gpt2_params_free(&p);
    free(t), free(slab);
}

/* Every binary16 and bfloat16 there is survives; ties go to even; the compiler's own conversion is the oracle where it has
 * one. */
static void row_types(void **s)
{
    (void)s;
    for (unsigned h = 0; h < 65536; h++) {
        uint16_t in = (uint16_t)h, back;
        float    x;
        gpt2_row_decode(GT_F16, &in, &x, 1);
        gpt2_row_encode(GT_F16, &x, &back, 1);
        if ((h & 0x7c00) != 0x7c00 || !(h & 0x3ff)) assert_int_equal(back, in);
        else assert_true(isnan(x) && (back & 0x7c00) == 0x7c00 && (back & 0x3ff));
        gpt2_row_decode(GT_BF16, &in, &x, 1);
        gpt2_row_encode(GT_BF16, &x, &back, 1);
        if (!isnan(x)) assert_int_equal(back, in);
        else assert_true((back & 0x7f80) == 0x7f80 && (back & 0x7f));
    }
    static const struct { float x; uint16_t f16, bf16; } known[] = {
        { 1.0f, 0x3c00, 0x3f80 }, { -2.0f, 0xc000, 0xc000 }, { 65504.0f, 0x7bff, 0x4780 }, { 65519.9f, 0x7bff, 0x4780 },
        { 65520.0f, 0x7c00, 0x4780 }, { 0x1p-24f, 0x0001, 0x3380 }, { 0x1p-25f, 0x0000, 0x3300 }, { 0x1.000002p-25f, 0x0001, 0x3300 },
        { 0x1.8p-24f, 0x0002, 0x33c0 }, { 0x1.ffcp-15f, 0x0400, 0x3880 }, { 1.00048828125f, 0x3c00, 0x3f80 },
        { 1.00146484375f, 0x3c02, 0x3f80 }, { 1.01171875f, 0x3c0c, 0x3f82 }, { 1.00390625f, 0x3c04, 0x3f80 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint16_t got;
        gpt2_row_encode(GT_F16, &known[i].x, &got, 1);
        assert_int_equal(got, known[i].f16);
        gpt2_row_encode(GT_BF16, &known[i].x, &got, 1);
        assert_int_equal(got, known[i].bf16);
    }
#if defined(__FLT16_MANT_DIG__)
    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t u = (uint32_t)rng_u64(1, 2, i);
        float    x;
        memcpy(&x, &u, 4);
        if (isnan(x)) continue;
        _Float16 want = (_Float16)x;
        uint16_t got;
        gpt2_row_encode(GT_F16, &x, &got, 1);
        assert_memory_equal(&got, &want, 2);
    }
#endif
}

/* Quantised rows: the error of an element is at most half a step, the step being max / 127 (q8_0) or max / 8 (q4_0), and the
 * scale's own rounding. */
static void row_quantised(void **s)
{
    (void)s;
    float         x[64], y[64];
    unsigned char row[2 * 34];
    for (int round = 0; round < 200; round++) {
        float most[2] = { 0, 0 }, size = powf(10, (float)(round % 6) - 2);
        for (int i = 0; i < 64; i++) {
            x[i]         = (float)rng_normal(5, (uint64_t)round, (uint64_t)i) * size;
            most[i / 32] = fabsf(x[i]) > most[i / 32] ? fabsf(x[i]) : most[i / 32];
        }
        gpt2_row_encode(GT_Q8_0, x, row, 64);
        gpt2_row_decode(GT_Q8_0, row, y, 64);
        for (int i = 0; i < 64; i++) assert_true(fabsf(x[i] - y[i]) <= most[i / 32] * (0.5f / 127 + 1e-3f));
        gpt2_row_encode(GT_Q4_0, x, row, 64);
        gpt2_row_decode(GT_Q4_0, row, y, 64);
        for (int i = 0; i < 64; i++) assert_true(fabsf(x[i] - y[i]) <= most[i / 32] * (1.0f / 8 + 1e-3f)); /* +8 is clipped to +7 */
    }
    memset(x, 0, sizeof x);
    x[40] = 1e-40f; /* a block whose scale vanishes */
    gpt2_row_encode(GT_Q8_0, x, row, 64);
    gpt2_row_decode(GT_Q8_0, row, y, 64);
    for (int i = 0; i < 64; i++) assert_true(y[i] == 0);
}

/* The q8_0 file that ggml's own tools wrote from the f32 file. */
static void q8_0_is_ggmls(void **s)
{
    (void)s;
    gguf *f, *q;
    err   e;
    int   tensors = 0, bytes = 0, differ = 0;
    assert_int_equal(gguf_open(&f, VECTORS "tiny_f32.gguf", &e), OK);
    assert_int_equal(gguf_open(&q, VECTORS "tiny_q8_0.gguf", &e), OK);
    for (int i = 0; i < gguf_n_tensors(q); i++) {
        const gguf_tensor *t = gguf_tensor_at(q, i), *from;
        char               name[64];
        snprintf(name, sizeof name, "%.*s", (int)t->name.n, t->name.s);
        from = gguf_find(f, name);
        if (t->type != GT_Q8_0) continue;
        unsigned char *row = malloc(t->n_bytes);
        float         *x = malloc(from->n_bytes);
        memcpy(x, from->data, from->n_bytes);
        gpt2_row_encode(GT_Q8_0, x, row, from->n_bytes / 4);
        for (size_t k = 0; k < t->n_bytes; k++) bytes++, differ += row[k] != t->data[k];
        free(row), free(x);
        tensors++;
    }
    assert_int_equal(tensors, 9);
    assert_true(bytes > 100000);
    assert_int_equal(differ, 0);
    gguf_close(f);
    gguf_close(q);
}

static void save_and_open(void **s)
{
    (void)s;
    const gpt2_config c = { 50, 16, 64, 4, 1, 96, 1e-6f, ACT_SILU, 0, 1, 0 };
    gpt2_meta    meta = { { FORMAT_CLS_SEP, 3, 4 }, ROLE_BACKWARD, "名字", "", "a note" }, back;
    gpt2_config  got;
    gpt2_tensor *t;
    size_t       n;
    err          e;
    gguf        *g;
    gpt2        *m;
    int          types[17], count = gpt2_tensors(&c, &t, &n, &e);
    float       *slab = malloc(n * sizeof *slab), *again = malloc(n * sizeof *again);
    memset(meta.data_sha256, 'a', 64);
    for (size_t i = 0; i < n; i++) slab[i] = (float)rng_normal(1, 1, i);
    assert_int_equal(count, 17);
    assert_int_equal(gpt2_save(in_dir("saved.gguf"), &c, slab, NULL, &meta, NULL, &e), OK);
    assert_int_equal(gguf_open(&g, path, &e), OK);
    assert_int_equal(gpt2_read_config(g, &got, &e), OK);
    assert_memory_equal(&got, &c, sizeof c);
    assert_int_equal(gpt2_read_meta(g, NULL, &back, &e), OK);
    assert_memory_equal(&back.fmt, &meta.fmt, sizeof meta.fmt);
    assert_int_equal(back.role, meta.role);
    assert_string_equal(back.name, meta.name);
    assert_string_equal(back.note, meta.note);
    assert_string_equal(back.data_sha256, meta.data_sha256);
    assert_int_equal(gpt2_read_slab(g, &c, again, &e), OK);
    assert_memory_equal(slab, again, n * sizeof *slab);
    gguf_close(g);
    m = open_ok(path);
    const char *digest = gpt2_digest(m);
    assert_int_equal(strspn(digest, "0123456789abcdef"), 64);
    assert_string_equal(digest, gpt2_digest(m));
    sha256         h;
    size_t         size;
    unsigned char  sum[32], *bytes = vec_slurp(path, &size);
    char           hex[65];
    sha256_init(&h);
    sha256_add(&h, bytes, size);
    sha256_end(&h, sum);
    sha256_hex(sum, hex);
    assert_string_equal(digest, hex);
    free(bytes);
    assert_string_equal(gpt2_path(m), path);
    gpt2_close(m);

    /* other types: what is read is what gpt2_row_decode says of what gpt2_row_encode wrote */
    static const int kinds[] = { GT_F16, GT_BF16, GT_Q8_0, GT_Q4_0 };
    for (size_t k = 0; k < 4; k++) {
        unsigned char *row = malloc(4 * 192); /* the longest row is c_attn.bias */
        for (int i = 0; i < count; i++) types[i] = t[i].vector || i == 1 ? GT_F32 : kinds[k];
        assert_int_equal(gpt2_save(in_dir("saved.gguf"), &c, slab, NULL, &meta, types, &e), OK);
        assert_int_equal(gguf_open(&g, path, &e), OK);
        assert_int_equal(gpt2_read_slab(g, &c, again, &e), OK);
        gguf_close(g);
        for (int i = 0; i < count; i++)
            for (int r = 0; r < t[i].rows; r++) {
                float  want[192];
                size_t at = t[i].offset + (size_t)r * t[i].cols;
                gpt2_row_encode(types[i], slab + at, row, (size_t)t[i].cols);
                gpt2_row_decode(types[i], row, want, (size_t)t[i].cols);
                assert_memory_equal(again + at, want, sizeof(float) * t[i].cols);
            }
        free(row);
    }
    types[1] = GT_F16; /* position_embd */
    assert_int_equal(gpt2_save(in_dir("refused.gguf"), &c, slab, NULL, &meta, types, &e), E_ARG);
    types[1] = GT_F32;
    for (int i = 0; i < count; i++) types[i] = GT_F32;
    types[0] = GT_F16;
    slab[5]  = 1e6f; /* too large for binary16 */
    assert_int_equal(gpt2_save(path, &c, slab, NULL, &meta, types, &e), E_ARG);
    slab[5] = NAN;
    assert_int_equal(gpt2_save(path, &c, slab, NULL, &meta, NULL, &e), E_ARG);
    assert_int_equal(access(path, F_OK), -1);
    free(t), free(slab), free(again);
}

/* A vocabulary and the dialogue layout survive a save; the tokenizer of a wrong size is refused. */
static void save_with_vocabulary(void **s)
{
    (void)s;
    gpt2       *m = open_ok(VECTORS "tiny_f16_bert_tokenizer.gguf"), *again;
    gpt2_config c = *gpt2_cfg(m);
    gpt2_meta   meta = *gpt2_about(m);
    gguf       *g;
    err         e;
    gpt2_tensor *t;
    size_t      n;
    unsigned char a[32], b[32];
    assert_int_equal(gguf_open(&g, VECTORS "tiny_f16_bert_tokenizer.gguf", &e), OK);
    assert_true(gpt2_tensors(&c, &t, &n, &e) > 0);
    float *slab = malloc(n * sizeof *slab);
    assert_int_equal(gpt2_read_slab(g, &c, slab, &e), OK);
    gguf_close(g);
    assert_int_equal(gpt2_save(in_dir("vocab.gguf"), &c, slab, gpt2_tokenizer(m), &meta, NULL, &e), OK);
    again = open_ok(path);
    tokenizer_digest(gpt2_tokenizer(m), a);
    tokenizer_digest(gpt2_tokenizer(again), b);
    assert_memory_equal(a, b, 32);
    assert_memory_equal(&gpt2_about(again)->fmt, &meta.fmt, sizeof meta.fmt);
    gpt2_close(again);
    c.n_vocab--; /* one row of the embedding less: the same file with another number of rows */
    assert_int_equal(gpt2_save(path, &c, slab, gpt2_tokenizer(m), &meta, NULL, &e), OK);
    assert_int_equal(gpt2_open(&again, path, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "299"));
    assert_null(again);
    free(t), free(slab);
    gpt2_close(m);
}

/* Damage done with the writer: keys and tensors that do not fit each other. */
enum { KEEP, NO_EPS, OTHER_ARCH, MANY_LAYERS, NO_TENSOR, EXTRA_TENSOR, OPT_TENSOR, BAD_SHAPE, NAN_WEIGHT, WRONG_VOCAB,
       BAD_ACT, BAD_ROLE, BAD_FORMAT, HEADS_7 };
static void write_damaged(int how)
{
    const gpt2_config c = { 20, 8, 12, 3, 1, 24, 1e-5f, ACT_GELU_NEW, 1, 0, 1 };
    gguf_writer *w;
    err          e;
    gpt2_tensor *t;
    size_t       n;
    int          count = gpt2_tensors(&c, &t, &n, &e);
    float       *zeros = calloc(n, sizeof *zeros);
    assert_int_equal(gguf_create(&w, in_dir("damaged.gguf"), &e), OK);
    gguf_put_str(w, "general.architecture", how == OTHER_ARCH ? STR("llama") : STR("gpt2"));
    gguf_put_u32(w, "gpt2.context_length", 8);
    gguf_put_u32(w, "gpt2.embedding_length", 12);
    gguf_put_u32(w, "gpt2.block_count", how == MANY_LAYERS ? 1000000000 : 1);
    gguf_put_u32(w, "gpt2.feed_forward_length", 24);
    gguf_put_u32(w, "gpt2.attention.head_count", how == HEADS_7 ? 7 : 3);
    if (how != NO_EPS) gguf_put_f32(w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    if (how == WRONG_VOCAB) gguf_put_u32(w, "gpt2.vocab_size", 21);
    if (how == BAD_ACT) gguf_put_str(w, "duet.activation", STR("softplus"));
    if (how == BAD_ROLE) gguf_put_str(w, "duet.role", STR("sideways"));
    if (how == BAD_FORMAT) gguf_put_str(w, "duet.format", STR("dialogpt")); /* without a vocabulary, and no id for its separator */
    tokenizer_to_gguf(NULL, w);
    for (int i = 0; i < count; i++) {
        uint64_t ne[2] = { (uint64_t)t[i].cols, (uint64_t)t[i].rows };
        if (how == BAD_SHAPE && i == 4) ne[0] = 36, ne[1] = 12; /* c_attn as Hugging Face has it */
        if (how == NO_TENSOR && i == count - 1) continue;
        gguf_declare(w, t[i].gguf, GT_F32, t[i].vector ? 1 : 2, ne);
    }
    if (how == EXTRA_TENSOR) gguf_declare(w, "rope_freqs.weight", GT_F32, 1, (uint64_t[]){ 4 });
    if (how == OPT_TENSOR) gguf_declare(w, "opt.m.token_embd.weight", GT_F32, 1, (uint64_t[]){ 4 });
    if (how == NAN_WEIGHT) zeros[t[4].offset + 7] = NAN;
    for (int i = 0; i < count; i++)
        if (how != NO_TENSOR || i < count - 1) assert_int_equal(gguf_data(w, zeros + t[i].offset, sizeof(float) * t[i].rows * t[i].cols, &e), OK);
    if (how == EXTRA_TENSOR || how == OPT_TENSOR) assert_int_equal(gguf_data(w, zeros, 16, &e), OK);
    if (gguf_finish(w, &e)) fail_msg("%s", e.msg);
    free(t), free(zeros);
}

static void damaged_files(void **s)
{
    (void)s;
    static const struct { int how; const char *says; } cases[] = {
        { KEEP, NULL }, { OPT_TENSOR, NULL }, { NO_EPS, "layer_norm_epsilon is missing" }, { OTHER_ARCH, "llama" }, { MANY_LAYERS, "n_layer" },
        { NO_TENSOR, "output_norm.bias" }, { EXTRA_TENSOR, "17 tensors" }, { BAD_SHAPE, "blk.0.attn_qkv.weight" },
        { NAN_WEIGHT, "blk.0.attn_qkv.weight" },
        { WRONG_VOCAB, "vocab_size" }, { BAD_ACT, "softplus" }, { BAD_ROLE, "sideways" }, { BAD_FORMAT, "dialogpt" }, { HEADS_7, "n_head 7" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        gpt2 *m = NULL;
        err   e = { 0 };
        write_damaged(cases[i].how);
        int r = gpt2_open(&m, path, &e);
        if (!cases[i].says) {
            if (r) fail_msg("%s", e.msg);
            gpt2_close(m);
            continue;
        }
        assert_int_equal(r, E_FORMAT);
        assert_null(m);
        if (!strstr(e.msg, cases[i].says) || !strstr(e.msg, path)) fail_msg("\"%s\" does not name %s or the file", e.msg, cases[i].says);
    }
}

static int make_dir(void **s)
{
    (void)s;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.40s/duet-gpt2-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}
static int drop_dir(void **s)
{
    (void)s;
    static const char *const files[] = { "reference.gguf", "saved.gguf", "vocab.gguf", "damaged.gguf" };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(in_dir(files[i]));
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_ranges),
        cmocka_unit_test(tensor_table),
        cmocka_unit_test(row_types),
        cmocka_unit_test(row_quantised),
        cmocka_unit_test(q8_0_is_ggmls),
        cmocka_unit_test(save_and_open),
        cmocka_unit_test(save_with_vocabulary),
        cmocka_unit_test(damaged_files),
        cmocka_unit_test(reference_m1),
        cmocka_unit_test(reference_m4),
        cmocka_unit_test(reference_m5),
        cmocka_unit_test(reference_m6),
        cmocka_unit_test(reference_kv),
        cmocka_unit_test(gguf_files),
        cmocka_unit_test(dialogue_layout_comes_from_the_vocabulary),
        cmocka_unit_test(agreement),
        cmocka_unit_test(candidates),
        cmocka_unit_test(mixed_batch),
        cmocka_unit_test(several_prefixes),
        cmocka_unit_test(sync_reuses),
        cmocka_unit_test(scores),
        cmocka_unit_test(talkers),
        cmocka_unit_test(score_refuses),
        cmocka_unit_test(bad_batches),
    };
    return cmocka_run_group_tests_name("gpt2", tests, make_dir, drop_dir);
}
