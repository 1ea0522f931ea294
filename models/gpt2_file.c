/* gpt2_file: what a GPT-2 is on disk and in a slab: config checks, the tensor table, reading and writing GGUF, row encodings.
 * Refuses: sizes out of range, a missing, extra or misshapen tensor, weights that are not finite, types a tensor may not have.
 * Nothing is allocated from a number in a file before the file's own tensors have been checked against it. */
#include "models/gpt2.h"

#include "models/ops.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- config ---------------------------------------------------------------------------------------------------- */

enum { MAX_VOCAB = 1 << 24, MAX_CTX = 1 << 20, MAX_WIDTH = 1 << 17, MAX_LAYER = 1024 };

static int in_range(const char *name, int v, int max, err *e)
{
    return v >= 1 && v <= max ? OK : err_set(e, E_FORMAT, "%s is %d, 1 to %d wanted", name, v, max);
}

int gpt2_config_check(const gpt2_config *c, err *e)
{
    int r;
    if ((r = in_range("n_vocab", c->n_vocab, MAX_VOCAB, e)) || (r = in_range("n_ctx", c->n_ctx, MAX_CTX, e)) ||
        (r = in_range("n_embd", c->n_embd, MAX_WIDTH, e)) || (r = in_range("n_head", c->n_head, MAX_WIDTH, e)) ||
        (r = in_range("n_inner", c->n_inner, MAX_WIDTH, e)) || (r = in_range("n_layer", c->n_layer, MAX_LAYER, e)))
        return r;
    if (c->n_embd % c->n_head)
        return err_set(e, E_FORMAT, "n_embd %d is no multiple of n_head %d", c->n_embd, c->n_head);
    if (!isfinite(c->eps) || c->eps <= 0)
        return err_set(e, E_FORMAT, "layer_norm_epsilon is %g, a positive number wanted", (double)c->eps);
    if (!ops_act_name(c->act)) return err_set(e, E_FORMAT, "activation function %d is unknown", c->act);
    if ((c->scale_attn | c->scale_attn_by_layer | c->tied) & ~1) return err_set(e, E_FORMAT, "a flag of the config is not 0 or 1");
    return OK;
}

/* ---- the tensor table ------------------------------------------------------------------------------------------ */

enum { D_1, D_C, D_3C, D_F, D_V, D_P }; /* dimensions by name */
enum { IN_HEAD, IN_BLOCK, IN_TAIL };    /* before, inside, after the blocks */

static const struct {
    int         where;
    size_t      field; /* of its pointer in gpt2_params or gpt2_layer */
    const char *hf, *gguf;
    int         rows, cols, flags;
} table[] = {
    { IN_HEAD, offsetof(gpt2_params, wte), "wte.weight", "token_embd.weight", D_V, D_C, T_DECAY },
    { IN_HEAD, offsetof(gpt2_params, wpe), "wpe.weight", "position_embd.weight", D_P, D_C, T_DECAY },
    { IN_BLOCK, offsetof(gpt2_layer, ln_1_w), "ln_1.weight", "attn_norm.weight", D_1, D_C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, ln_1_b), "ln_1.bias", "attn_norm.bias", D_1, D_C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, c_attn_w), "attn.c_attn.weight", "attn_qkv.weight", D_3C, D_C, T_HF_TRANSPOSED | T_DECAY },
    { IN_BLOCK, offsetof(gpt2_layer, c_attn_b), "attn.c_attn.bias", "attn_qkv.bias", D_1, D_3C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, attn_proj_w), "attn.c_proj.weight", "attn_output.weight", D_C, D_C, T_HF_TRANSPOSED | T_DECAY },
    { IN_BLOCK, offsetof(gpt2_layer, attn_proj_b), "attn.c_proj.bias", "attn_output.bias", D_1, D_C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, ln_2_w), "ln_2.weight", "ffn_norm.weight", D_1, D_C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, ln_2_b), "ln_2.bias", "ffn_norm.bias", D_1, D_C, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, c_fc_w), "mlp.c_fc.weight", "ffn_up.weight", D_F, D_C, T_HF_TRANSPOSED | T_DECAY },
    { IN_BLOCK, offsetof(gpt2_layer, c_fc_b), "mlp.c_fc.bias", "ffn_up.bias", D_1, D_F, 0 },
    { IN_BLOCK, offsetof(gpt2_layer, mlp_proj_w), "mlp.c_proj.weight", "ffn_down.weight", D_C, D_F, T_HF_TRANSPOSED | T_DECAY },
    { IN_BLOCK, offsetof(gpt2_layer, mlp_proj_b), "mlp.c_proj.bias", "ffn_down.bias", D_1, D_C, 0 },
    { IN_TAIL, offsetof(gpt2_params, ln_f_w), "ln_f.weight", "output_norm.weight", D_1, D_C, 0 },
    { IN_TAIL, offsetof(gpt2_params, ln_f_b), "ln_f.bias", "output_norm.bias", D_1, D_C, 0 },
    { IN_TAIL, offsetof(gpt2_params, lm_head), "lm_head.weight", "output.weight", D_V, D_C, T_DECAY | T_OPTIONAL },
};
enum { N_HEAD = 2, N_BLOCK = 12, N_TAIL = 3 };
_Static_assert(sizeof table / sizeof table[0] == N_HEAD + N_BLOCK + N_TAIL, "the counts above are those of the table");

static int dim(const gpt2_config *c, int d)
{
    switch (d) {
    case D_C: return c->n_embd;
    case D_3C: return 3 * c->n_embd;
    case D_F: return c->n_inner;
    case D_V: return c->n_vocab;
    case D_P: return c->n_ctx;
    default: return 1;
    }
}

static int n_tensors(const gpt2_config *c) { return N_HEAD + N_BLOCK * c->n_layer + N_TAIL - (c->tied ? 1 : 0); }

/* Row of the table that describes tensor i of a config; *layer = its block or -1. */
static int table_row(const gpt2_config *c, int i, int *layer)
{
    *layer = -1;
    if (i < N_HEAD) return i;
    i -= N_HEAD;
    if (i >= N_BLOCK * c->n_layer) return N_HEAD + N_BLOCK + i - N_BLOCK * c->n_layer;
    *layer = i / N_BLOCK;
    return N_HEAD + i % N_BLOCK;
}

/* Tensor i of a config, all but its offset. */
static void tensor_at(const gpt2_config *c, int i, gpt2_tensor *t)
{
    int row   = table_row(c, i, &t->layer);
    t->rows   = dim(c, table[row].rows);
    t->cols   = dim(c, table[row].cols);
    t->vector = table[row].rows == D_1;
    t->flags  = table[row].flags;
    t->offset = 0;
    if (t->layer < 0) {
        snprintf(t->hf, sizeof t->hf, "%s", table[row].hf);
        snprintf(t->gguf, sizeof t->gguf, "%s", table[row].gguf);
    } else {
        snprintf(t->hf, sizeof t->hf, "h.%d.%s", t->layer, table[row].hf);
        snprintf(t->gguf, sizeof t->gguf, "blk.%d.%s", t->layer, table[row].gguf);
    }
}

int gpt2_tensors(const gpt2_config *c, gpt2_tensor **list, size_t *n_params, err *e)
{
    int    n = n_tensors(c);
    size_t offset = 0, size;
    *list          = NULL;
    gpt2_tensor *t = calloc((size_t)n, sizeof *t);
    if (!t) return err_set(e, E_NOMEM, "out of memory for a list of %d tensors", n);
    for (int i = 0; i < n; i++) {
        tensor_at(c, i, &t[i]);
        t[i].offset = offset;
        if (mul_size((size_t)t[i].rows, (size_t)t[i].cols, &size) || add_size(offset, size, &offset) || offset > SIZE_MAX / 16) {
            free(t);
            return err_set(e, E_LIMIT, "the model has too many parameters for this machine's addresses");
        }
    }
    *list     = t;
    *n_params = offset;
    return n;
}

int gpt2_params_map(gpt2_params *p, const gpt2_config *c, float *slab, err *e)
{
    memset(p, 0, sizeof *p);
    p->h = calloc((size_t)c->n_layer, sizeof *p->h);
    if (!p->h) return err_set(e, E_NOMEM, "out of memory for %d layers", c->n_layer);
    for (int i = 0, n = n_tensors(c); i < n; i++) {
        gpt2_tensor t;
        int         layer, row = table_row(c, i, &layer);
        char       *base = layer < 0 ? (char *)p : (char *)&p->h[layer];
        tensor_at(c, i, &t);
        memcpy(base + table[row].field, &slab, sizeof slab); /* the field is a float * */
        slab += (size_t)t.rows * (size_t)t.cols;
    }
    if (c->tied) p->lm_head = p->wte;
    return OK;
}

void gpt2_params_free(gpt2_params *p)
{
    free(p->h);
    memset(p, 0, sizeof *p);
}

/* ---- row encodings --------------------------------------------------------------------------------------------- */

static uint32_t f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static float f32_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}
static unsigned le16(const unsigned char *p) { return p[0] | (unsigned)p[1] << 8; }
static void     put16(unsigned char *p, unsigned v)
{
    p[0] = (unsigned char)v;
    p[1] = (unsigned char)(v >> 8);
}

/* IEEE binary16, round to nearest even; too large becomes infinity, NaN stays NaN. */
static unsigned f16_encode(float x)
{
    uint32_t u = f32_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a >= 0x7f800000) return sign | 0x7c00 | (a > 0x7f800000 ? 0x200 : 0);
    if (a >= 0x38800000) { /* normal in binary16; a carry out of the mantissa goes into the exponent, up to infinity */
        uint32_t h = (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13;
        return sign | (h > 0x7c00 ? 0x7c00 : h);
    }
    if (a < 0x33000000) return sign; /* below half of the smallest subnormal */
    int      shift = 126 - (int)(a >> 23); /* 14..24: the value in units of 2^-24 is m >> shift */
    uint32_t m = (a & 0x7fffff) | 0x800000, half = 1u << (shift - 1), rest = m & (2 * half - 1), q = m >> shift;
    return sign | (q + (rest > half || (rest == half && (q & 1))));
}

static float f16_decode(unsigned h)
{
    uint32_t sign = (h & 0x8000u) << 16, a = h & 0x7fff;
    if (a >= 0x7c00) return f32_of(sign | 0x7f800000 | (a & 0x3ff) << 13);
    if (a >= 0x400) return f32_of(sign | ((a << 13) + 0x38000000));
    float x = (float)a * 0x1p-24f;
    return sign ? -x : x;
}

static unsigned bf16_encode(float x)
{
    uint32_t u = f32_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000) return u >> 16 | 0x40;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

/* q8_0 (ggml): blocks of 32 = binary16 scale d, then 32 signed bytes; x = d * q, d = max|x| / 127. */
static void q8_0_encode(const float *x, unsigned char *out, size_t n)
{
    for (size_t b = 0; b < n / 32; b++, x += 32, out += 34) {
        float most = 0;
        for (int i = 0; i < 32; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
        float d = most / 127, inv = d != 0 ? 1 / d : 0;
        put16(out, f16_encode(d));
        for (int i = 0; i < 32; i++) {
            float q    = isfinite(inv) ? rintf(x[i] * inv) : 0; /* a block so small that 1/d overflows has d = 0 in binary16 */
            out[2 + i] = (unsigned char)(signed char)(q > 127 ? 127 : q < -127 ? -127 : q == q ? q : 0);
        }
    }
}

static void q8_0_decode(const unsigned char *in, float *x, size_t n)
{
    for (size_t b = 0; b < n / 32; b++, x += 32, in += 34) {
        float d = f16_decode(le16(in));
        for (int i = 0; i < 32; i++) x[i] = d * (float)(signed char)in[2 + i]; /* 11 + 7 bits: exact */
    }
}

/* q4_0 (ggml): blocks of 32 = binary16 scale d, then 16 bytes whose low nibbles are elements 0..15 and high ones 16..31;
 * x = d * (q - 8), d = (the element largest in magnitude) / -8. */
static void q4_0_encode(const float *x, unsigned char *out, size_t n)
{
    for (size_t b = 0; b < n / 32; b++, x += 32, out += 18) {
        float most = 0;
        for (int i = 0; i < 32; i++) most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
        float    d = most / -8, inv = d != 0 ? 1 / d : 0;
        unsigned q[32];
        put16(out, f16_encode(d));
        for (int i = 0; i < 32; i++) {
            float v = isfinite(inv) ? x[i] * inv + 8.5f : 8.5f;
            q[i]    = v >= 15 ? 15 : v >= 0 ? (unsigned)v : 0;
        }
        for (int i = 0; i < 16; i++) out[2 + i] = (unsigned char)(q[i] | q[i + 16] << 4);
    }
}

static void q4_0_decode(const unsigned char *in, float *x, size_t n)
{
    for (size_t b = 0; b < n / 32; b++, x += 32, in += 18) {
        float d = f16_decode(le16(in));
        for (int i = 0; i < 16; i++) {
            x[i]      = d * (float)((in[2 + i] & 15) - 8);
            x[i + 16] = d * (float)((in[2 + i] >> 4) - 8);
        }
    }
}

void gpt2_row_encode(int type, const float *x, void *out, size_t n)
{
    unsigned char *p = out;
    switch (type) {
    case GT_F32: memcpy(p, x, n * 4); break;
    case GT_F16:
        for (size_t i = 0; i < n; i++) put16(p + 2 * i, f16_encode(x[i]));
        break;
    case GT_BF16:
        for (size_t i = 0; i < n; i++) put16(p + 2 * i, bf16_encode(x[i]));
        break;
    case GT_Q8_0: q8_0_encode(x, p, n); break;
    case GT_Q4_0: q4_0_encode(x, p, n); break;
    }
}

void gpt2_row_decode(int type, const void *in, float *x, size_t n)
{
    const unsigned char *p = in;
    switch (type) {
    case GT_F32: memcpy(x, p, n * 4); break;
    case GT_F16:
        for (size_t i = 0; i < n; i++) x[i] = f16_decode(le16(p + 2 * i));
        break;
    case GT_BF16:
        for (size_t i = 0; i < n; i++) x[i] = f32_of((uint32_t)le16(p + 2 * i) << 16);
        break;
    case GT_Q8_0: q8_0_decode(p, x, n); break;
    case GT_Q4_0: q4_0_decode(p, x, n); break;
    }
}

/* 1 when all n floats are finite: an exponent of all ones is inf or NaN. */
static int all_finite(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (f32_bits(x[i]) & 0x7f800000) == 0x7f800000;
    return !bad;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

/* A required integer key that fits an int. */
static int need_int(const gguf *g, const char *key, int *v, err *e)
{
    uint64_t x;
    int      r = gguf_get_u64(g, key, &x, e);
    if (r < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: key %s is missing", gguf_path(g), key);
    if (x > INT_MAX) return err_set(e, E_FORMAT, "%s: key %s is %llu, too large", gguf_path(g), key, (unsigned long long)x);
    *v = (int)x;
    return OK;
}

static int check_arch(const gguf *g, err *e)
{
    str arch;
    int r = gguf_get_str(g, "general.architecture", &arch, e);
    if (r < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: key general.architecture is missing", gguf_path(g));
    if (!str_eq(arch, STR("gpt2")))
        return err_set(e, E_FORMAT, "%s: general.architecture is \"%.*s\", \"gpt2\" wanted", gguf_path(g),
                       (int)(arch.n < 40 ? arch.n : 40), arch.s);
    return OK;
}

/* The keys that GPT-2 has in Hugging Face's config but not in GGUF. */
static int read_variants(const gguf *g, gpt2_config *c, err *e)
{
    str name;
    int r = gguf_get_str(g, "duet.activation", &name, e);
    if (r < 0) return r;
    if (r == 1) {
        char word[32] = "";
        if (name.n < sizeof word) memcpy(word, name.s, name.n);
        c->act = ops_act_of_name(word);
        if (c->act < 0)
            return err_set(e, E_FORMAT, "%s: duet.activation \"%.*s\" is unknown", gguf_path(g),
                           (int)(name.n < 40 ? name.n : 40), name.s);
    }
    if ((r = gguf_get_bool(g, "duet.scale_attn_weights", &c->scale_attn, e)) < 0) return r;
    if ((r = gguf_get_bool(g, "duet.scale_attn_by_inverse_layer_idx", &c->scale_attn_by_layer, e)) < 0) return r;
    return OK;
}

int gpt2_read_config(const gguf *g, gpt2_config *c, err *e)
{
    gpt2_config got = { .act = ACT_GELU_NEW, .scale_attn = 1 };
    double      eps = 0;
    uint64_t    vocab;
    int         r;
    if ((r = check_arch(g, e)) || (r = need_int(g, "gpt2.context_length", &got.n_ctx, e)) ||
        (r = need_int(g, "gpt2.embedding_length", &got.n_embd, e)) || (r = need_int(g, "gpt2.block_count", &got.n_layer, e)) ||
        (r = need_int(g, "gpt2.attention.head_count", &got.n_head, e)) ||
        (r = need_int(g, "gpt2.feed_forward_length", &got.n_inner, e)))
        return r;
    if ((r = gguf_get_f64(g, "gpt2.attention.layer_norm_epsilon", &eps, e)) < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: key gpt2.attention.layer_norm_epsilon is missing", gguf_path(g));
    got.eps = (float)eps;
    if ((r = read_variants(g, &got, e))) return r;
    const gguf_tensor *wte = gguf_find(g, "token_embd.weight");
    if (!wte) return err_set(e, E_FORMAT, "%s: tensor token_embd.weight is missing", gguf_path(g));
    if (wte->n_dims != 2 || wte->ne[1] > MAX_VOCAB)
        return err_set(e, E_FORMAT, "%s: token_embd.weight has %d dimensions and %llu rows; 2 and at most %d wanted", gguf_path(g),
                       wte->n_dims, (unsigned long long)wte->ne[1], MAX_VOCAB);
    got.n_vocab = (int)wte->ne[1];
    if ((r = gguf_get_u64(g, "gpt2.vocab_size", &vocab, e)) < 0) return r;
    if (r == 1 && vocab != (uint64_t)got.n_vocab)
        return err_set(e, E_FORMAT, "%s: gpt2.vocab_size is %llu, token_embd.weight has %d rows", gguf_path(g),
                       (unsigned long long)vocab, got.n_vocab);
    got.tied = gguf_find(g, "output.weight") == NULL;
    if ((r = gpt2_config_check(&got, e))) {
        err_prefix(e, "%s", gguf_path(g));
        return r;
    }
    *c = got;
    return OK;
}

/* Text of a key into a char array, cut behind the last whole character that fits; absent gives "". */
static int read_text(const gguf *g, const char *key, char *out, size_t size, err *e)
{
    str s = { NULL, 0 };
    int r = gguf_get_str(g, key, &s, e);
    if (r < 0) return r;
    size_t n = 0, step;
    uint32_t cp;
    while (n < s.n && s.s[n] && n + (step = utf8_next(s.s + n, s.n - n, &cp)) < size) n += step;
    if (n) memcpy(out, s.s, n);
    out[n] = 0;
    return OK;
}

/* The separators of a dialogue layout: from the vocabulary's special tokens; without a vocabulary from the id keys. */
static int read_format(const gguf *g, const tokenizer *t, format *f, err *e)
{
    char     name[32];
    uint64_t bos = UINT64_MAX, eos = UINT64_MAX;
    int      r = read_text(g, "duet.format", name, sizeof name, e);
    *f = (format){ 0, -1, -1 };
    if (r) return r;
    int stated = name[0] ? format_of_name(name) : 0;
    if (name[0] && !stated) return err_set(e, E_FORMAT, "%s: duet.format \"%s\" is unknown", gguf_path(g), name);
    special_ids s = { -1, -1, -1, -1, -1 };
    if (t) {
        s = tokenizer_specials(t);
    } else {
        if ((r = gguf_get_u64(g, "tokenizer.ggml.bos_token_id", &bos, e)) < 0) return r;
        if ((r = gguf_get_u64(g, "tokenizer.ggml.eos_token_id", &eos, e)) < 0) return r;
        if (bos < MAX_VOCAB) s.bos = (int)bos;
        if (eos < MAX_VOCAB) s.eos = (int)eos;
    }
    int kind = stated;
    if (!kind && t && tokenizer_kind(t) == TOK_WORDPIECE && s.bos >= 0 && s.eos >= 0) kind = FORMAT_CLS_SEP;
    if (!kind && t && tokenizer_kind(t) == TOK_BPE && s.eos >= 0) kind = FORMAT_DIALOGPT;
    if (!kind) return OK;
    if (s.eos < 0 || (kind == FORMAT_CLS_SEP && s.bos < 0))
        return err_set(e, E_FORMAT, "%s: the vocabulary has not the special tokens that duet.format \"%s\" needs", gguf_path(g), name);
    *f = (format){ kind, kind == FORMAT_CLS_SEP ? s.bos : -1, s.eos };
    return OK;
}

int gpt2_read_meta(const gguf *g, const tokenizer *t, gpt2_meta *m, err *e)
{
    char role[16];
    int  r;
    memset(m, 0, sizeof *m);
    if ((r = read_format(g, t, &m->fmt, e)) || (r = read_text(g, "duet.role", role, sizeof role, e)) ||
        (r = read_text(g, "general.name", m->name, sizeof m->name, e)) ||
        (r = read_text(g, "duet.data_sha256", m->data_sha256, sizeof m->data_sha256, e)) ||
        (r = read_text(g, "duet.note", m->note, sizeof m->note, e)))
        return r;
    m->role = strcmp(role, "forward") == 0 ? ROLE_FORWARD : strcmp(role, "backward") == 0 ? ROLE_BACKWARD : 0;
    if (role[0] && !m->role) return err_set(e, E_FORMAT, "%s: duet.role \"%s\" is neither forward nor backward", gguf_path(g), role);
    if (m->data_sha256[0] && strspn(m->data_sha256, "0123456789abcdef") != 64)
        return err_set(e, E_FORMAT, "%s: duet.data_sha256 is not 64 hex digits", gguf_path(g));
    return OK;
}

const gguf_tensor *gpt2_file_tensor(const gguf *g, const gpt2_tensor *t, err *e)
{
    const gguf_tensor *f = gguf_find(g, t->gguf);
    if (!f) {
        err_set(e, E_FORMAT, "%s: tensor %s is missing", gguf_path(g), t->gguf);
        return NULL;
    }
    uint64_t rows = f->ne[1];
    if (f->n_dims != (t->vector ? 1 : 2) || f->ne[0] != (uint64_t)t->cols || rows != (uint64_t)t->rows) {
        err_set(e, E_FORMAT, "%s: tensor %s has %d dimensions {%llu, %llu}, {%d, %d} wanted", gguf_path(g), t->gguf, f->n_dims,
                (unsigned long long)f->ne[0], (unsigned long long)rows, t->cols, t->rows);
        return NULL;
    }
    return f;
}

int gpt2_check_tensors(const gguf *g, const gpt2_config *c, err *e)
{
    int n = n_tensors(c), others = 0;
    for (int i = 0; i < n; i++) {
        gpt2_tensor t;
        tensor_at(c, i, &t);
        if (!gpt2_file_tensor(g, &t, e)) return E_FORMAT;
    }
    for (int i = 0; i < gguf_n_tensors(g); i++) others += str_starts(gguf_tensor_at(g, i)->name, STR("opt."));
    if (gguf_n_tensors(g) - others == n) return OK;
    return err_set(e, E_FORMAT, "%s: %d tensors, a GPT-2 of %d layers has %d", gguf_path(g), gguf_n_tensors(g) - others, c->n_layer, n);
}

int gpt2_tensor_decode(const gguf *g, const gpt2_tensor *t, float *out, err *e)
{
    const gguf_tensor *f = gpt2_file_tensor(g, t, e);
    if (!f) return E_FORMAT;
    size_t cols = (size_t)t->cols, row_bytes = gguf_row_bytes(f->type, cols);
    int    bad = t->rows;
#pragma omp parallel for schedule(static) reduction(min : bad) if ((size_t)t->rows * cols > 1u << 20)
    for (int i = 0; i < t->rows; i++) {
        gpt2_row_decode(f->type, f->data + (size_t)i * row_bytes, out + (size_t)i * cols, cols);
        if (!all_finite(out + (size_t)i * cols, cols) && i < bad) bad = i;
    }
    if (bad < t->rows)
        return err_set(e, E_FORMAT, "%s: tensor %s row %d holds a number that is not finite", gguf_path(g), t->gguf, bad);
    return OK;
}

int gpt2_read_slab(const gguf *g, const gpt2_config *c, float *slab, err *e)
{
    int r = gpt2_check_tensors(g, c, e);
    for (int i = 0, n = n_tensors(c); r == OK && i < n; i++) {
        gpt2_tensor t;
        tensor_at(c, i, &t);
        r = gpt2_tensor_decode(g, &t, slab, e);
        slab += (size_t)t.rows * (size_t)t.cols;
    }
    return r;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static int type_of(const int *types, int i) { return types ? types[i] : GT_F32; }

/* general.file_type as llama.cpp numbers it: the type of most matrix elements. */
static uint32_t file_type(const gpt2_config *c, const int *types, int *quantised)
{
    static const struct {
        int      type;
        uint32_t number;
    } known[] = { { GT_F32, 0 }, { GT_F16, 1 }, { GT_Q4_0, 2 }, { GT_Q8_0, 7 }, { GT_BF16, 32 } };
    size_t   best = 0;
    uint32_t number = 0;
    *quantised = 0;
    for (size_t k = 0; k < sizeof known / sizeof known[0]; k++) {
        size_t size = 0;
        for (int i = 0, n = n_tensors(c); i < n; i++) {
            gpt2_tensor t;
            tensor_at(c, i, &t);
            if (!t.vector && type_of(types, i) == known[k].type) size += (size_t)t.rows * (size_t)t.cols;
        }
        if (size && (known[k].type == GT_Q4_0 || known[k].type == GT_Q8_0)) *quantised = 1;
        if (size > best) best = size, number = known[k].number;
    }
    return number;
}

void gpt2_write_keys(gguf_writer *w, const gpt2_config *c, const tokenizer *t, const gpt2_meta *m, const int *types)
{
    int      quantised;
    uint32_t kind = file_type(c, types, &quantised);
    gguf_put_str(w, "general.architecture", STR("gpt2"));
    if (m->name[0]) gguf_put_str(w, "general.name", str_of(m->name));
    gguf_put_u32(w, "general.file_type", kind);
    if (quantised) gguf_put_u32(w, "general.quantization_version", 2);
    gguf_put_u32(w, "gpt2.context_length", (uint32_t)c->n_ctx);
    gguf_put_u32(w, "gpt2.embedding_length", (uint32_t)c->n_embd);
    gguf_put_u32(w, "gpt2.block_count", (uint32_t)c->n_layer);
    gguf_put_u32(w, "gpt2.feed_forward_length", (uint32_t)c->n_inner);
    gguf_put_u32(w, "gpt2.attention.head_count", (uint32_t)c->n_head);
    gguf_put_f32(w, "gpt2.attention.layer_norm_epsilon", c->eps);
    gguf_put_u32(w, "gpt2.vocab_size", (uint32_t)c->n_vocab);
    gguf_put_str(w, "duet.activation", str_of(ops_act_name(c->act)));
    gguf_put_bool(w, "duet.scale_attn_weights", c->scale_attn);
    gguf_put_bool(w, "duet.scale_attn_by_inverse_layer_idx", c->scale_attn_by_layer);
    if (m->fmt.kind) gguf_put_str(w, "duet.format", str_of(format_name(m->fmt.kind)));
    if (m->role) gguf_put_str(w, "duet.role", m->role == ROLE_FORWARD ? STR("forward") : STR("backward"));
    if (m->data_sha256[0]) gguf_put_str(w, "duet.data_sha256", str_of(m->data_sha256));
    if (m->note[0]) gguf_put_str(w, "duet.note", str_of(m->note));
    tokenizer_to_gguf(t, w);
    if (!t && m->fmt.kind) { /* with a vocabulary its special tokens say it */
        if (m->fmt.bos >= 0) gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)m->fmt.bos);
        gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)m->fmt.sep);
    }
}

void gpt2_write_declare(gguf_writer *w, const gpt2_config *c, const int *types)
{
    for (int i = 0, n = n_tensors(c); i < n; i++) {
        gpt2_tensor t;
        tensor_at(c, i, &t);
        uint64_t ne[2] = { (uint64_t)t.cols, (uint64_t)t.rows };
        gguf_declare(w, t.gguf, type_of(types, i), t.vector ? 1 : 2, ne);
    }
}

/* Vectors and position_embd stay f32 (llama.cpp wants it); matrix rows must be whole blocks of their type. */
static int check_types(const gpt2_config *c, const int *types, err *e)
{
    for (int i = 0, n = n_tensors(c); i < n; i++) {
        gpt2_tensor t;
        tensor_at(c, i, &t);
        int type = type_of(types, i), plain = t.vector || strcmp(t.gguf, "position_embd.weight") == 0;
        if (plain && type != GT_F32) return err_set(e, E_ARG, "tensor %s must be stored as f32", t.gguf);
        if (!gguf_type_name(type)) return err_set(e, E_ARG, "tensor %s: type %d is unknown", t.gguf, type);
        if (!gguf_row_bytes(type, (uint64_t)t.cols))
            return err_set(e, E_ARG, "tensor %s: rows of %d are no whole blocks of %s", t.gguf, t.cols, gguf_type_name(type));
    }
    return OK;
}

/* Rows of one tensor, encoded; refuses what the type cannot hold. */
static int write_rows(gguf_writer *w, const gpt2_tensor *t, int type, const float *x, err *e)
{
    size_t cols = (size_t)t->cols, bytes = gguf_row_bytes(type, cols);
    int    r = OK;
    float *back = malloc(cols * sizeof *back); /* the row as a reader will see it */
    unsigned char *row = malloc(bytes);
    if (!back || !row) r = err_set(e, E_NOMEM, "out of memory for a row of %s", t->gguf);
    for (int i = 0; r == OK && i < t->rows; i++, x += cols) {
        gpt2_row_encode(type, x, row, cols);
        gpt2_row_decode(type, row, back, cols);
        if (!all_finite(x, cols) || !all_finite(back, cols))
            r = err_set(e, E_ARG, "tensor %s row %d holds a number that is not finite or does not fit %s", t->gguf, i,
                        gguf_type_name(type));
        else
            r = gguf_data(w, row, bytes, e);
    }
    free(back);
    free(row);
    return r;
}

int gpt2_write_data(gguf_writer *w, const gpt2_config *c, const float *slab, const int *types, err *e)
{
    int r = check_types(c, types, e);
    for (int i = 0, n = n_tensors(c); r == OK && i < n; i++) {
        gpt2_tensor t;
        tensor_at(c, i, &t);
        r = write_rows(w, &t, type_of(types, i), slab, e);
        slab += (size_t)t.rows * (size_t)t.cols;
    }
    return r;
}

int gpt2_save(const char *path, const gpt2_config *c, const float *slab, const tokenizer *t, const gpt2_meta *m, const int *types, err *e)
{
    gguf_writer *w = NULL;
    int          r;
    if ((r = gpt2_config_check(c, e)) || (r = check_types(c, types, e)) || (r = gguf_create(&w, path, e))) return r;
    gpt2_write_keys(w, c, t, m, types);
    gpt2_write_declare(w, c, types);
    r = gpt2_write_data(w, c, slab, types, e);
    if (r == OK) r = gguf_finish(w, e);
    if (r) gguf_discard(w);
    return r;
}
