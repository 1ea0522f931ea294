/* gguf: GGUF version 3 files, as bytes and keys.  A reader over a read-only map that believes nothing, and a streaming
 * writer.  Knows the format's value and tensor types; knows nothing of GPT-2.
 * Format: ggml docs/gguf.md.  Little endian only. */
#ifndef DUET_GGUF_H
#define DUET_GGUF_H

#include "models/base.h"

/* Tensor types (ggml's numbers). */
enum { GT_F32 = 0, GT_F16 = 1, GT_Q4_0 = 2, GT_Q8_0 = 8, GT_BF16 = 30 };
const char *gguf_type_name(int type);                          /* "f32", "q8_0", …; "type 99" is NULL */
int         gguf_type_of_name(const char *name);               /* -1 when unknown */
/* Bytes of one row of `n` elements; 0 when n is no whole number of blocks or the type is unknown or it overflows. */
size_t      gguf_row_bytes(int type, uint64_t n);

/* Value types (ggml's numbers). */
enum { GV_U8, GV_I8, GV_U16, GV_I16, GV_U32, GV_I32, GV_F32, GV_BOOL, GV_STR, GV_ARR, GV_U64, GV_I64, GV_F64 };

typedef struct gguf gguf;
typedef struct {
    str                  name;
    int                  type;
    int                  n_dims; /* 1..4 */
    uint64_t             ne[4];  /* ne[0] runs fastest: a matrix {in, out} is `out` rows of `in` */
    const unsigned char *data;   /* inside the map, aligned to the file's alignment */
    size_t               n_bytes;
} gguf_tensor;
typedef struct {
    str      name;
    int      type;  /* GV_… */
    int      elem;  /* element type when type == GV_ARR */
    uint64_t n;     /* elements when GV_ARR, else 1 */
    const unsigned char *p; /* first value byte */
    const str           *strs; /* (n,) when an array of strings, else NULL */
} gguf_key;

/* Open and check everything: magic, version, counts, lengths, types, duplicate names, alignment, offsets (the running sum of padded
 * sizes), overlaps, end of file.  E_IO, E_FORMAT (message has the byte offset), E_NOMEM, E_LIMIT.  The file is mapped,
 * not read. */
int  gguf_open(gguf **g, const char *path, err *e);
void gguf_close(gguf *g); /* NULL is fine */

int                gguf_n_tensors(const gguf *g);
const gguf_tensor *gguf_tensor_at(const gguf *g, int i);
const gguf_tensor *gguf_find(const gguf *g, const char *name); /* NULL when absent */
int                gguf_n_keys(const gguf *g);
const gguf_key    *gguf_key_at(const gguf *g, int i);
const gguf_key    *gguf_get(const gguf *g, const char *name);  /* NULL when absent */
const char        *gguf_path(const gguf *g);
str                gguf_bytes(const gguf *g);                  /* the whole file, for digests */

/* Typed look-ups: 1 found, 0 absent (*v untouched), <0 present with a wrong type or range (e set). */
int gguf_get_u64(const gguf *g, const char *name, uint64_t *v, err *e); /* any unsigned, or non-negative signed, integer */
int gguf_get_f64(const gguf *g, const char *name, double *v, err *e);   /* f32 or f64 */
int gguf_get_bool(const gguf *g, const char *name, int *v, err *e);
int gguf_get_str(const gguf *g, const char *name, str *v, err *e);
/* Element i (< k->n) of an integer array or scalar / float array or scalar. */
int64_t gguf_int_at(const gguf_key *k, uint64_t i);
double  gguf_float_at(const gguf_key *k, uint64_t i);

/* ---- writing: keys, then tensor declarations, then the data of each tensor in order ---- */

typedef struct gguf_writer gguf_writer;
int  gguf_create(gguf_writer **w, const char *path, err *e); /* replaces `path` only at gguf_finish */
/* The putters record failures inside; gguf_finish reports the first.  The same key twice is an error. */
void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_put_u64(gguf_writer *w, const char *key, uint64_t v);
void gguf_put_i32(gguf_writer *w, const char *key, int32_t v);
void gguf_put_f32(gguf_writer *w, const char *key, float v);
void gguf_put_f64(gguf_writer *w, const char *key, double v);
void gguf_put_bool(gguf_writer *w, const char *key, int v);
void gguf_put_str(gguf_writer *w, const char *key, str v);
void gguf_put_strs(gguf_writer *w, const char *key, const str *v, size_t n);
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n);
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n);
void gguf_put_key(gguf_writer *w, const gguf_key *k);        /* a copy of a key read elsewhere */
void gguf_declare(gguf_writer *w, const char *name, int type, int n_dims, const uint64_t *ne);
/* The next n bytes of tensor data; the pieces of all tensors in declared order, padding is added here. */
int  gguf_data(gguf_writer *w, const void *p, size_t n, err *e);
int  gguf_finish(gguf_writer *w, err *e);                    /* checks that all data came; frees w when OK */
void gguf_discard(gguf_writer *w);                           /* frees w, leaves the old file; NULL is fine */

#endif
