/* base: see base.h. */
#define _GNU_SOURCE
#include "models/base.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- status ---------------------------------------------------------------------------------------------------- */

/* Make msg[0..n) one printable line that ends on a character boundary. */
static void msg_clean(char *msg, size_t cap)
{
    size_t n = strlen(msg), i = 0;
    while (i < n) {
        uint32_t cp;
        size_t   k = utf8_next(msg + i, n - i, &cp);
        if (cp == UTF8_BAD) {
            if (i + k == n && n + 1 == cap) { /* a character cut by the end of the array */
                msg[i] = 0;
                return;
            }
            memset(msg + i, '?', k);
        } else if (cp < 32 || (cp >= 127 && cp < 160)) {
            memset(msg + i, '?', k);
        }
        i += k;
    }
}

void err_put(err *e, int code, const char *fmt, ...)
{
    if (!e) return;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    msg_clean(e->msg, sizeof e->msg);
}

int err_prefix(err *e, const char *fmt, ...)
{
    if (!e) return E_ARG;
    char    head[sizeof e->msg], both[2 * sizeof e->msg + 4];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    snprintf(both, sizeof both, "%s: %s", head, e->msg);
    memcpy(e->msg, both, sizeof e->msg - 1);
    e->msg[sizeof e->msg - 1] = 0;
    msg_clean(e->msg, sizeof e->msg);
    return e->code;
}

/* ---- views and buffers ----------------------------------------------------------------------------------------- */

str str_of(const char *c) { return (str){ c ? c : "", c ? strlen(c) : 0 }; }
int str_eq(str a, str b) { return a.n == b.n && (a.n == 0 || memcmp(a.s, b.s, a.n) == 0); }
int str_starts(str s, str p) { return s.n >= p.n && (p.n == 0 || memcmp(s.s, p.s, p.n) == 0); }

static int is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

str str_trim(str s)
{
    while (s.n && is_space(s.s[0])) s.s++, s.n--;
    while (s.n && is_space(s.s[s.n - 1])) s.n--;
    return s;
}

int mul_size(size_t a, size_t b, size_t *out) { return __builtin_mul_overflow(a, b, out) ? -1 : 0; }
int add_size(size_t a, size_t b, size_t *out) { return __builtin_add_overflow(a, b, out) ? -1 : 0; }

/* Room for `more` further elements of `size` bytes; 0 or -1. */
static int grow(void **p, size_t n, size_t *cap, size_t more, size_t size)
{
    size_t need, bytes;
    if (add_size(n, more, &need)) return -1;
    if (need <= *cap) return 0;
    size_t c = *cap ? *cap : 32;
    while (c < need)
        if (mul_size(c, 2, &c)) return -1;
    if (mul_size(c, size, &bytes)) return -1;
    void *q = realloc(*p, bytes);
    if (!q) return -1;
    *p   = q;
    *cap = c;
    return 0;
}

void buf_add(buf *b, const void *p, size_t n)
{
    size_t need;
    if (b->oom) return;
    if (add_size(n, 1, &need) || grow((void **)&b->s, b->n, &b->cap, need, 1)) {
        b->oom = 1;
        return;
    }
    if (n) memcpy(b->s + b->n, p, n);
    b->n += n;
    b->s[b->n] = 0;
}
void buf_str(buf *b, str s) { buf_add(b, s.s, s.n); }
void buf_chr(buf *b, char c) { buf_add(b, &c, 1); }

void buf_fmt(buf *b, const char *fmt, ...)
{
    va_list ap, aq;
    if (b->oom) return;
    va_start(ap, fmt);
    va_copy(aq, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || grow((void **)&b->s, b->n, &b->cap, (size_t)n + 1, 1)) {
        b->oom = 1;
    } else {
        vsnprintf(b->s + b->n, (size_t)n + 1, fmt, aq);
        b->n += (size_t)n;
    }
    va_end(aq);
}
void buf_reset(buf *b)
{
    b->n   = 0;
    b->oom = 0;
    if (b->s) b->s[0] = 0;
}
void buf_free(buf *b)
{
    free(b->s);
    *b = (buf){ 0 };
}
str buf_view(const buf *b) { return (str){ b->s ? b->s : "", b->n }; }

void ivec_push(ivec *a, int x) { ivec_add(a, &x, 1); }
void ivec_add(ivec *a, const int *x, size_t n)
{
    if (a->oom || n == 0) return;
    if (grow((void **)&a->v, a->n, &a->cap, n, sizeof *a->v)) {
        a->oom = 1;
        return;
    }
    memcpy(a->v + a->n, x, n * sizeof *x);
    a->n += n;
}
void ivec_free(ivec *a)
{
    free(a->v);
    *a = (ivec){ 0 };
}
void fvec_push(fvec *a, float x)
{
    if (a->oom) return;
    if (grow((void **)&a->v, a->n, &a->cap, 1, sizeof *a->v)) {
        a->oom = 1;
        return;
    }
    a->v[a->n++] = x;
}
void fvec_free(fvec *a)
{
    free(a->v);
    *a = (fvec){ 0 };
}

/* ---- arena ----------------------------------------------------------------------------------------------------- */

enum { ALIGN = 64, BLOCK_MIN = 1 << 16 };

struct arena_block {
    arena_block *next;
    size_t       cap, used; /* bytes behind the header */
    char        *mem;       /* first aligned byte */
};

static arena_block *block_new(size_t cap)
{
    size_t total;
    if (add_size(cap, sizeof(arena_block) + ALIGN, &total)) return NULL;
    arena_block *b = malloc(total);
    if (!b) return NULL;
    b->next = NULL;
    b->cap  = cap;
    b->used = 0;
    b->mem  = (char *)(((uintptr_t)(b + 1) + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    return b;
}

void *arena_new(arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (mul_size(n, size, &bytes) || bytes > SIZE_MAX - ALIGN) return NULL;
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (bytes == 0) bytes = ALIGN;
    if (!a->head || a->head->cap - a->head->used < bytes) {
        size_t cap = a->head && a->head->cap < ((size_t)1 << 24) ? a->head->cap * 2 : BLOCK_MIN;
        arena_block *b = block_new(bytes > cap ? bytes : cap);
        if (!b) return NULL;
        b->next = a->head;
        a->head = b;
    }
    void *p = a->head->mem + a->head->used;
    a->head->used += bytes;
    a->used += bytes;
    return memset(p, 0, bytes);
}

str arena_str(arena *a, str s, err *e)
{
    char *p = s.n < SIZE_MAX ? arena_new(a, s.n + 1, 1) : NULL;
    if (!p) {
        err_set(e, E_NOMEM, "out of memory copying %zu bytes of text", s.n);
        return (str){ NULL, 0 };
    }
    if (s.n) memcpy(p, s.s, s.n);
    return (str){ p, s.n };
}

void arena_reset(arena *a)
{
    arena_block *keep = a->head;
    for (arena_block *b = a->head; b; b = b->next)
        if (b->cap > keep->cap) keep = b;
    for (arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (b != keep) free(b);
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    a->head = keep;
    a->used = 0;
}

void arena_free(arena *a)
{
    for (arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (arena){ 0 };
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

int map_open(filemap *m, const char *path, err *e)
{
    struct stat st;
    m->p = NULL;
    m->n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return err_set(e, E_IO, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0) {
        int en = errno;
        close(fd);
        return err_set(e, E_IO, "%s: cannot stat: %s", path, strerror(en));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, E_IO, "%s: not a regular file%s", path, S_ISDIR(st.st_mode) ? " but a directory" : "");
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int en = errno;
            close(fd);
            return err_set(e, E_IO, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(en));
        }
        m->p = p;
        m->n = (size_t)st.st_size;
    }
    close(fd);
    return OK;
}

void map_close(filemap *m)
{
    if (m->p) munmap((void *)m->p, m->n);
    m->p = NULL;
    m->n = 0;
}

struct outfile {
    char    *path, *tmp, *dir;
    int      fd;
    uint64_t pos;
    size_t   fill;
    char     block[1 << 16];
};

int out_open(outfile **out, const char *path, err *e)
{
    *out = NULL;
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return err_set(e, E_IO, "%s: is a directory, a file name was wanted", path);
    outfile *o = calloc(1, sizeof *o);
    if (!o) return err_set(e, E_NOMEM, "%s: out of memory", path);
    o->fd             = -1;
    const char *slash = strrchr(path, '/');
    o->path           = strdup(path);
    o->dir            = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    if (asprintf(&o->tmp, "%s.tmp-XXXXXX", path) < 0) o->tmp = NULL;
    if (!o->path || !o->dir || !o->tmp) {
        out_abort(o);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    o->fd = mkostemp(o->tmp, O_CLOEXEC);
    if (o->fd < 0) {
        int en = errno;
        free(o->tmp);
        o->tmp = NULL;
        out_abort(o);
        return err_set(e, E_IO, "%s: cannot create: %s", path, strerror(en));
    }
    mode_t mask = umask(0);
    umask(mask);
    if (fchmod(o->fd, stat(path, &st) == 0 ? st.st_mode & 0777 : 0666 & ~mask) != 0) { /* keeps 0600 on failure: still readable */ }
    *out = o;
    return OK;
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int out_flush(outfile *o, err *e)
{
    if (o->fill && write_all(o->fd, o->block, o->fill) != 0)
        return err_set(e, E_IO, "%s: cannot write: %s", o->path, strerror(errno));
    o->fill = 0;
    return OK;
}

int out_write(outfile *o, const void *p, size_t n, err *e)
{
    const char *s = p;
    o->pos += n;
    if (n >= sizeof o->block) {
        int r = out_flush(o, e);
        if (r) return r;
        return write_all(o->fd, s, n) ? err_set(e, E_IO, "%s: cannot write: %s", o->path, strerror(errno)) : OK;
    }
    if (o->fill + n > sizeof o->block) {
        int r = out_flush(o, e);
        if (r) return r;
    }
    if (n) memcpy(o->block + o->fill, s, n);
    o->fill += n;
    return OK;
}

int out_pad(outfile *o, size_t n, err *e)
{
    static const char zero[256];
    while (n) {
        size_t k = n < sizeof zero ? n : sizeof zero;
        int    r = out_write(o, zero, k, e);
        if (r) return r;
        n -= k;
    }
    return OK;
}

uint64_t out_tell(const outfile *o) { return o->pos; }

int out_commit(outfile *o, err *e)
{
    int r = out_flush(o, e);
    if (r) return r;
    if (fsync(o->fd) != 0 && errno != EINVAL && errno != EROFS) return err_set(e, E_IO, "%s: cannot fsync: %s", o->path, strerror(errno));
    int fd = o->fd;
    o->fd  = -1;
    if (close(fd) != 0) return err_set(e, E_IO, "%s: cannot close: %s", o->path, strerror(errno));
    if (rename(o->tmp, o->path) != 0) return err_set(e, E_IO, "%s: cannot rename into place: %s", o->path, strerror(errno));
    free(o->tmp);
    o->tmp = NULL;
    int d  = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d >= 0) {
        fsync(d); /* the data is safe; some file systems refuse fsync on directories */
        close(d);
    }
    out_abort(o);
    return OK;
}

void out_abort(outfile *o)
{
    if (!o) return;
    if (o->fd >= 0) close(o->fd);
    if (o->tmp) unlink(o->tmp);
    free(o->tmp);
    free(o->path);
    free(o->dir);
    free(o);
}

int out_file(const char *path, str bytes, err *e)
{
    outfile *f = NULL;
    int      r = out_open(&f, path, e);
    if (r == OK) r = out_write(f, bytes.s, bytes.n, e);
    if (r == OK) r = out_commit(f, e);
    if (r) out_abort(f);
    return r;
}

int read_file(const char *path, size_t limit, buf *b, err *e)
{
    filemap m;
    int     r = map_open(&m, path, e);
    if (r) return r;
    if (m.n > limit) {
        size_t n = m.n;
        map_close(&m);
        return err_set(e, E_LIMIT, "%s: %zu bytes, at most %zu wanted", path, n, limit);
    }
    buf_reset(b);
    buf_add(b, m.p ? (const void *)m.p : "", m.n);
    map_close(&m);
    return b->oom ? err_set(e, E_NOMEM, "%s: out of memory", path) : OK;
}

/* ---- SHA-256 --------------------------------------------------------------------------------------------------- */

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(((sha256 *)0)->state), "sha256.state too small");

void sha256_init(sha256 *h) { crypto_hash_sha256_init((crypto_hash_sha256_state *)h->state); }
void sha256_add(sha256 *h, const void *p, size_t n)
{
    if (n) crypto_hash_sha256_update((crypto_hash_sha256_state *)h->state, p, n);
}
void sha256_end(sha256 *h, unsigned char out[32]) { crypto_hash_sha256_final((crypto_hash_sha256_state *)h->state, out); }
void sha256_hex(const unsigned char d[32], char out[65]) { sodium_bin2hex(out, 65, d, 32); }
void random_bytes(void *p, size_t n) { randombytes_buf(p, n); }

/* ---- RNG: Philox-4x32-10 --------------------------------------------------------------------------------------- */

static void philox(uint64_t key, uint64_t hi, uint64_t lo, uint32_t out[4])
{
    uint32_t c[4] = { (uint32_t)lo, (uint32_t)(lo >> 32), (uint32_t)hi, (uint32_t)(hi >> 32) };
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int r = 0; r < 10; r++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c[3] ^ k1;
        c[0] = n0;
        c[1] = (uint32_t)p1;
        c[2] = n2;
        c[3] = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t step)
{
    uint32_t w[4];
    philox(seed, stream, step, w);
    return (uint64_t)w[1] << 32 | w[0];
}
double rng_unit(uint64_t seed, uint64_t stream, uint64_t step) { return (double)(rng_u64(seed, stream, step) >> 11) * 0x1p-53; }
double rng_normal(uint64_t seed, uint64_t stream, uint64_t step)
{
    uint32_t w[4];
    philox(seed, stream, step, w);
    double u = ((double)(((uint64_t)w[1] << 32 | w[0]) >> 11) + 0.5) * 0x1p-53;
    double v = (double)(((uint64_t)w[3] << 32 | w[2]) >> 11) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586476925287 * v);
}
uint64_t rng_below(uint64_t seed, uint64_t stream, uint64_t step, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)rng_u64(seed, stream, step) * n) >> 64);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

size_t utf8_next(const char *str_, size_t n, uint32_t *cp)
{
    const unsigned char *s = (const unsigned char *)str_;
    unsigned             c = s[0], lo = 0x80, hi = 0xBF;
    size_t               need;
    uint32_t             v;
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    *cp = UTF8_BAD;
    if (c >= 0xC2 && c <= 0xDF) need = 1, v = c & 0x1F;
    else if (c >= 0xE0 && c <= 0xEF) {
        need = 2, v = c & 0x0F;
        if (c == 0xE0) lo = 0xA0;
        if (c == 0xED) hi = 0x9F;
    } else if (c >= 0xF0 && c <= 0xF4) {
        need = 3, v = c & 0x07;
        if (c == 0xF0) lo = 0x90;
        if (c == 0xF4) hi = 0x8F;
    } else return 1;
    for (size_t i = 1; i <= need; i++) {
        if (i >= n || s[i] < lo || s[i] > hi) return i;
        v  = v << 6 | (s[i] & 0x3F);
        lo = 0x80;
        hi = 0xBF;
    }
    *cp = v;
    return need + 1;
}

size_t utf8_put(uint32_t cp, char out[4])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xD800 && cp <= 0xDFFF) return 0;
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    if (cp > 0x10FFFF) return 0;
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

int utf8_valid(str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += utf8_next(s.s + i, s.n - i, &cp);
        if (cp == UTF8_BAD) return 0;
    }
    return 1;
}

void buf_visible(buf *b, str s)
{
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t   k = utf8_next(s.s + i, s.n - i, &cp);
        if (cp == UTF8_BAD) buf_str(b, STR("\xEF\xBF\xBD"));
        else if (cp < 32 || (cp >= 127 && cp < 160) || cp == 0x2028 || cp == 0x2029 || cp == 0x200E || cp == 0x200F ||
                 cp == 0x061C || (cp >= 0x202A && cp <= 0x202E) || (cp >= 0x2066 && cp <= 0x2069))
            buf_fmt(b, "<U+%04X>", (unsigned)cp);
        else buf_add(b, s.s + i, k);
        i += k;
    }
}
