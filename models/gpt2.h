/* gpt2: config, the tensor table, opening and writing a model file, the KV cache, the one inference forward, scoring.
 * GPT-2 as in Radford et al. 2019 and Hugging Face's GPT2LMHeadModel: pre-LN blocks, learned positions, final LN, tied head.
 * Every matrix is in GGUF order, here and everywhere in this program: (rows = out, cols = in), y = W x + b. */
#ifndef DUET_GPT2_H
#define DUET_GPT2_H

#include "models/base.h"
#include "models/format.h"
#include "models/gguf.h"
#include "models/tokenizer.h"

typedef struct {
    int   n_vocab, n_ctx, n_embd, n_head, n_layer, n_inner;
    float eps;               /* layer_norm_epsilon */
    int   act;               /* ACT_… of ops.h */
    int   scale_attn;        /* 1: divide by sqrt(head size) */
    int   scale_attn_by_layer; /* 1: divide by (layer + 1) too (scale_attn_by_inverse_layer_idx) */
    int   tied;              /* 1: lm_head is wte */
} gpt2_config;
/* All sizes positive, head divides embedding, products in range (n_vocab <= 2^24, n_ctx <= 2^20, n_embd, n_inner <= 2^17,
 * n_layer <= 1024), eps finite and > 0. */
int gpt2_config_check(const gpt2_config *c, err *e);

/* ---- the tensor table: one static list; everything that touches weights walks it ---- */

enum { T_HF_TRANSPOSED = 1 /* Conv1D: (in, out) on Hugging Face's side */, T_DECAY = 2 /* AdamW decays it */, T_OPTIONAL = 4 /* lm_head */ };
typedef struct {
    char   hf[64], gguf[64]; /* "h.0.attn.c_attn.weight", "blk.0.attn_qkv.weight" */
    int    layer;            /* -1 outside the blocks */
    int    rows, cols;       /* a vector has rows = 1 */
    int    vector;           /* 1-D on disk */
    int    flags;
    size_t offset;           /* of its first float in a slab */
} gpt2_tensor;
/* The tensors of a config in file order: token_embd, position_embd, blk.0…, output_norm, output (only when untied).
 * Returns their number and a malloc'ed list, or E_NOMEM/E_LIMIT. *n_params = floats in a slab. */
int gpt2_tensors(const gpt2_config *c, gpt2_tensor **list, size_t *n_params, err *e);

/* Named pointers over a slab of n_params floats. */
typedef struct {
    float *ln_1_w, *ln_1_b;       /* (C,) */
    float *c_attn_w, *c_attn_b;   /* (3C, C), (3C,) */
    float *attn_proj_w, *attn_proj_b; /* (C, C), (C,) */
    float *ln_2_w, *ln_2_b;       /* (C,) */
    float *c_fc_w, *c_fc_b;       /* (F, C), (F,) */
    float *mlp_proj_w, *mlp_proj_b; /* (C, F), (C,) */
} gpt2_layer;
typedef struct {
    float *wte, *wpe;             /* (V, C), (P, C) */
    gpt2_layer *h;                /* (n_layer,) malloc'ed */
    float *ln_f_w, *ln_f_b;       /* (C,) */
    float *lm_head;               /* (V, C); == wte when tied */
} gpt2_params;
int  gpt2_params_map(gpt2_params *p, const gpt2_config *c, float *slab, err *e);
void gpt2_params_free(gpt2_params *p);

/* ---- the model file ---- */

enum { ROLE_FORWARD = 1, ROLE_BACKWARD = 2 };
typedef struct {
    format fmt;                /* kind 0 = none stated (plain GPT-2: no dialogue layout) */
    int    role;               /* ROLE_… ; 0 unknown */
    char   name[128];          /* general.name */
    char   data_sha256[65];    /* "" unknown */
    char   note[512];          /* licence and origin, shown by duet show */
} gpt2_meta;
int gpt2_read_config(const gguf *g, gpt2_config *c, err *e);
int gpt2_read_meta(const gguf *g, const tokenizer *t /* may be NULL */, gpt2_meta *m, err *e);
/* All weights as f32 into a slab of n_params floats, whatever their types; checks shapes and finiteness. */
int gpt2_read_slab(const gguf *g, const gpt2_config *c, float *slab, err *e);
/* The pieces of it.  All tensors of the config are there with their shapes, and no others but opt.*: */
int gpt2_check_tensors(const gguf *g, const gpt2_config *c, err *e);
/* One tensor in the file, its shape checked; NULL with e set. */
const gguf_tensor *gpt2_file_tensor(const gguf *g, const gpt2_tensor *t, err *e);
/* Its floats, (rows, cols); refuses numbers that are not finite. */
int gpt2_tensor_decode(const gguf *g, const gpt2_tensor *t, float *out, err *e);
/* The three parts of writing a model; a checkpoint puts its own keys and tensors between and after them.
 * types (n_tensors,) GT_… per tensor of gpt2_tensors(), NULL = all f32; vectors and position_embd must be f32. */
void gpt2_write_keys(gguf_writer *w, const gpt2_config *c, const tokenizer *t, const gpt2_meta *m, const int *types);
void gpt2_write_declare(gguf_writer *w, const gpt2_config *c, const int *types);
int  gpt2_write_data(gguf_writer *w, const gpt2_config *c, const float *slab, const int *types, err *e);
/* The three in one. */
int gpt2_save(const char *path, const gpt2_config *c, const float *slab, const tokenizer *t, const gpt2_meta *m, const int *types, err *e);
/* One row of `n` floats to/from a GGUF type (f32, f16, bf16; q8_0 and q4_0 with n a multiple of 32); round to nearest even. */
void gpt2_row_encode(int type, const float *x, void *out, size_t n);
void gpt2_row_decode(int type, const void *in, float *x, size_t n);

/* ---- an open model: immutable, shared by threads ---- */

typedef struct gpt2 gpt2;
int                gpt2_open(gpt2 **m, const char *path, err *e);
void               gpt2_close(gpt2 *m); /* NULL is fine */
const gpt2_config *gpt2_cfg(const gpt2 *m);
const gpt2_meta   *gpt2_about(const gpt2 *m);
const tokenizer   *gpt2_tokenizer(const gpt2 *m); /* NULL: no_vocab */
const char        *gpt2_path(const gpt2 *m);
const char        *gpt2_digest(gpt2 *m);          /* SHA-256 of the file in hex; computed at the first call, thread-safe */

/* ---- inference ---- */

typedef struct { /* a flat ragged batch: row r feeds id[r] at pos[r] to sequence seq[r]; -1 = the shared prefix (-1 - p = prefix p) */
    int n, *id, *seq, *pos;
    unsigned char *want; /* want[r]: give me logits for this row */
} gpt2_batch;

typedef struct gpt2_cache gpt2_cache; /* one prefix that all sequences see + n_seq private tails; remembers its ids */
/* prefix_max + tail_max may exceed n_ctx; positions may not.  All memory of a forward is allocated here (max_rows rows at a time;
 * a batch with more rows is run in slices, prefix rows first). */
gpt2_cache *gpt2_cache_new(const gpt2 *m, int prefix_max, int n_seq, int tail_max, int max_rows, err *e);
/* Several prefixes, so that one forward runs the rows of many contexts: sequences each * p … each * p + each - 1 see prefix p. */
gpt2_cache *gpt2_caches_new(const gpt2 *m, int n_prefix, int prefix_max, int each, int tail_max, int max_rows, err *e);
void        gpt2_cache_free(gpt2_cache *c);
void        gpt2_cache_clear_tails(gpt2_cache *c); /* forget all private tails, keep the prefixes */
/* Sequence `to` becomes what `from`, of the same prefix, is: two that part need the common beginning computed only once. */
void        gpt2_cache_copy_tail(gpt2_cache *c, int from, int to);

/* Evaluate the batch.  Rows of one sequence come in rising positions that continue what the cache holds (the prefix has
 * length L: tails start at position L).  logits (wanted rows, V) in row order.  Row-invariant: a row's result is the same
 * bits alone, among others, in a long prefill, for any number of threads.  E_ARG on a bad row (named), E_LIMIT past n_ctx or
 * the cache. */
int gpt2_forward(const gpt2 *m, gpt2_cache *c, const gpt2_batch *b, float *logits, err *e);

/* Make prefix == ids[0..n), reusing what matches what the cache remembers (a matching tail is adopted into the prefix),
 * tails cleared; logits (V,) of the last position, never NULL.  n >= 1.  *evaluated (may be NULL) = tokens that had to be
 * computed. */
int gpt2_sync(const gpt2 *m, gpt2_cache *c, const int *ids, int n, float *logits, int *evaluated, err *e);
/* The same for prefix p and the tails on it. */
int gpt2_sync_at(const gpt2 *m, gpt2_cache *c, int p, const int *ids, int n, float *logits, int *evaluated, err *e);

/* Teacher-forced scores: logp[k] = sum over t in [from[k], n[k]) of log P(ids[k][t] | ids[k][..t-1]) (natural log, double,
 * fixed order); from >= 1. One ragged batch of all sequences, common prefixes evaluated once, no V-wide logits kept.  tok
 * (may be NULL): tok[k] is an array (n[k],) that receives each token's log-prob from `from` on. */
int gpt2_score(const gpt2 *m, const int *const *ids, const int *n, const int *from, int n_seq, double *logp, double *const *tok, err *e);

#endif
