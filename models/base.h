/* base: what every other file stands on.  Status and error text, string views, growable buffers, arenas, file maps,
 * atomic file replacement, SHA-256, the counter RNG, UTF-8 stepping, and making text safe for a terminal.
 * Knows nothing of models or dialogues.  Never prints, never exits, never reads the environment. */
#ifndef DUET_BASE_H
#define DUET_BASE_H

#include <stddef.h>
#include <stdint.h>

/* ---- status ---------------------------------------------------------------------------------------------------- */

enum { OK = 0, E_IO = -1, E_FORMAT = -2, E_NOMEM = -3, E_ARG = -4, E_LIMIT = -5, E_DB = -6, E_CANCEL = -7 };

typedef struct {
    int  code;
    char msg[240]; /* one line, no trailing newline; names the file, the object, what was wanted and what was got */
} err;

/* err_set(e, code, fmt, …): store a formatted message (cut at the end of the last whole UTF-8 character that fits, control bytes replaced
 * by '?') and give back `code`.  `e` may be NULL.  A macro, so that the compiler knows which code comes back. */
#define err_set(e, code, ...) (err_put(e, code, __VA_ARGS__), err_code(code))
static inline int err_code(int code) { return code; }
void err_put(err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Put "prefix: " before the message that is already there; returns e->code. */
int err_prefix(err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- views and buffers ----------------------------------------------------------------------------------------- */

typedef struct {
    const char *s;
    size_t      n;
} str; /* a view; may hold NUL bytes; never owned */

#define STR(lit) ((str){ "" lit, sizeof(lit) - 1 })
str str_of(const char *cstr);              /* NULL gives the empty view */
int str_eq(str a, str b);
int str_starts(str s, str prefix);
str str_trim(str s);                       /* without leading and trailing ASCII white space */

/* Growable byte buffer.  Appending to a buffer whose allocation failed does nothing; check `oom` once at the end.
 * While !oom and s != NULL, s[n] is 0. */
typedef struct {
    char  *s;
    size_t n, cap;
    int    oom;
} buf;
void buf_add(buf *b, const void *p, size_t n);
void buf_str(buf *b, str s);
void buf_chr(buf *b, char c);
void buf_fmt(buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_reset(buf *b);                    /* n = 0, memory kept, oom cleared */
void buf_free(buf *b);
str  buf_view(const buf *b);

/* Growable vectors of int (token ids) and float (weights); same rule for oom. */
typedef struct {
    int   *v;
    size_t n, cap;
    int    oom;
} ivec;
typedef struct {
    float *v;
    size_t n, cap;
    int    oom;
} fvec;
void ivec_push(ivec *a, int x);
void ivec_add(ivec *a, const int *x, size_t n);
void ivec_free(ivec *a);
void fvec_push(fvec *a, float x);
void fvec_free(fvec *a);

/* a*b (and a*b+c) without overflow: 0 and *out, or -1. */
int mul_size(size_t a, size_t b, size_t *out);
int add_size(size_t a, size_t b, size_t *out);

/* ---- arena ----------------------------------------------------------------------------------------------------- */

/* Memory with one lifetime.  Zero-initialise; arena_new returns zeroed memory aligned to 64 bytes, or NULL when memory
 * is out or n*size overflows.  arena_reset keeps the largest block for reuse.  arena_free gives everything back. */
typedef struct arena_block arena_block;
typedef struct {
    arena_block *head;
    size_t       used; /* bytes handed out since the last reset */
} arena;
void *arena_new(arena *a, size_t n, size_t size);
str   arena_str(arena *a, str s, err *e); /* a NUL-terminated copy; on failure s = NULL and e is set */
void  arena_reset(arena *a);
void  arena_free(arena *a);

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* A read-only private mapping of a regular file.  An empty file gives p = NULL, n = 0 and OK. */
typedef struct {
    const unsigned char *p;
    size_t               n;
} filemap;
int  map_open(filemap *m, const char *path, err *e);
void map_close(filemap *m);

/* A file that replaces `path` only when complete: written to a temporary file in the same directory, fsync, rename, fsync
 * of the directory.  out_commit finishes; out_abort (also after a failed commit, and harmless after a good one) leaves the
 * old file as it was.  Writes are buffered. */
typedef struct outfile outfile;
int      out_open(outfile **o, const char *path, err *e);
int      out_write(outfile *o, const void *p, size_t n, err *e);
int      out_pad(outfile *o, size_t n, err *e); /* n zero bytes */
uint64_t out_tell(const outfile *o);
int      out_commit(outfile *o, err *e);        /* frees o when OK */
void     out_abort(outfile *o);                 /* frees o; NULL is fine */
int      out_file(const char *path, str bytes, err *e); /* a whole file; nothing is left of it on an error */

/* Whole file into a buffer, refusing more than `limit` bytes. */
int read_file(const char *path, size_t limit, buf *b, err *e);

/* ---- SHA-256 --------------------------------------------------------------------------------------------------- */

typedef struct {
    _Alignas(16) unsigned char state[128];
} sha256;
void sha256_init(sha256 *h);
void sha256_add(sha256 *h, const void *p, size_t n);
void sha256_end(sha256 *h, unsigned char out[32]);
void sha256_hex(const unsigned char digest[32], char out[65]);
void random_bytes(void *p, size_t n); /* from the operating system, for salts and default seeds only */

/* ---- RNG ------------------------------------------------------------------------------------------------------- */

/* A counter generator: the value depends on the three numbers alone, so draw (candidate k, step t) is the same whatever
 * else was drawn.  Philox-4x32-10 (Salmon et al., SC'11) with key = seed, counter = (stream, step); first 64 bits. */
uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t step);
double   rng_unit(uint64_t seed, uint64_t stream, uint64_t step);            /* [0, 1), 53 bits */
double   rng_normal(uint64_t seed, uint64_t stream, uint64_t step);          /* N(0,1), Box-Muller on the 4 words */
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t step, uint64_t n); /* [0, n), n > 0 */

/* ---- text ------------------------------------------------------------------------------------------------------ */

/* One step over UTF-8 (Unicode 15, table 3-7: no surrogates, no overlongs, <= U+10FFFF).  Returns the number of bytes
 * consumed (>= 1, n must be > 0) and the code point; on ill-formed input *cp = UTF8_BAD and the maximal subpart is
 * consumed, as WHATWG decoding does. */
#define UTF8_BAD 0xFFFFFFFFu
size_t utf8_next(const char *s, size_t n, uint32_t *cp);
size_t utf8_put(uint32_t cp, char out[4]); /* bytes written; 0 if cp is no scalar value */
int    utf8_valid(str s);
/* `s` with every ill-formed part as U+FFFD, and every control character (C0, DEL, C1, bidi and line separators) made
 * visible as <U+001B>: safe to print on a terminal as one line. */
void buf_visible(buf *b, str s);

#endif
