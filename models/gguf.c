/* gguf: see gguf.h.  The reader walks the header once with a cursor that knows how many bytes are left; nothing is allocated
 * before its size is known to fit the file.  Refuses: versions other than 3, big endian, unknown value types, nested arrays, duplicate keys or
 * tensor names, dimensions of 0, offsets that are not the running sum of padded sizes, tensors past the end of the file. */
#include "models/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEYS = 1 << 16, MAX_TENSORS = 1 << 16, MAX_NAME = 1 << 12, DEFAULT_ALIGN = 32 };

/* ---- types ----------------------------------------------------------------------------------------------------- */

static const struct {
    int         type;
    const char *name;
    unsigned    block, bytes; /* elements and bytes of one block */
} tensor_types[] = {
    { GT_F32, "f32", 1, 4 },   { GT_F16, "f16", 1, 2 },   { GT_Q4_0, "q4_0", 32, 18 },
    { GT_Q8_0, "q8_0", 32, 34 }, { GT_BF16, "bf16", 1, 2 },
};
enum { N_TYPES = sizeof tensor_types / sizeof tensor_types[0] };

const char *gguf_type_name(int type)
{
    for (int i = 0; i < N_TYPES; i++)
        if (tensor_types[i].type == type) return tensor_types[i].name;
    return NULL;
}

int gguf_type_of_name(const char *name)
{
    for (int i = 0; i < N_TYPES; i++)
        if (strcmp(tensor_types[i].name, name) == 0) return tensor_types[i].type;
    return -1;
}

size_t gguf_row_bytes(int type, uint64_t n)
{
    for (int i = 0; i < N_TYPES; i++) {
        size_t bytes;
        if (tensor_types[i].type != type) continue;
        if (n % tensor_types[i].block) return 0;
        return mul_size((size_t)(n / tensor_types[i].block), tensor_types[i].bytes, &bytes) ? 0 : bytes;
    }
    return 0;
}

/* Bytes of one scalar value; 0 for strings, arrays and unknown types. */
static size_t value_bytes(int type)
{
    static const unsigned char bytes[] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };
    return type >= 0 && type < (int)sizeof bytes ? bytes[type] : 0;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

struct gguf {
    char        *path;
    filemap      map;
    int          n_keys, n_tensors;
    gguf_key    *key;
    gguf_tensor *tensor;
    int         *key_order, *tensor_order; /* indices sorted by name, for look-ups and the duplicate check */
    arena        mem;                      /* string arrays */
};

typedef struct {
    const unsigned char *start, *p;
    size_t               left;
    const char          *path;
    err                 *e;
} cursor;

static size_t where(const cursor *c) { return (size_t)(c->p - c->start); }

static int take(cursor *c, size_t n, const unsigned char **p, const char *what)
{
    *p = c->p;
    if (c->left < n)
        return err_set(c->e, E_FORMAT, "%s: offset %zu: %s needs %zu bytes, %zu are left", c->path, where(c), what, n, c->left);
    c->p += n;
    c->left -= n;
    return OK;
}

static uint32_t le32(const unsigned char *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static uint64_t le64(const unsigned char *p) { return le32(p) | (uint64_t)le32(p + 4) << 32; }

static int take_u32(cursor *c, uint32_t *v, const char *what)
{
    const unsigned char *p;
    int                  r = take(c, 4, &p, what);
    if (r == OK) *v = le32(p);
    return r;
}

static int take_u64(cursor *c, uint64_t *v, const char *what)
{
    const unsigned char *p;
    int                  r = take(c, 8, &p, what);
    if (r == OK) *v = le64(p);
    return r;
}

static int take_str(cursor *c, str *s, uint64_t limit, const char *what)
{
    uint64_t             n;
    const unsigned char *p;
    int                  r = take_u64(c, &n, what);
    if (r) return r;
    if (n > limit || n > c->left)
        return err_set(c->e, E_FORMAT, "%s: offset %zu: %s has length %llu, %s is %llu", c->path, where(c) - 8, what,
                       (unsigned long long)n, n > c->left ? "what is left" : "the limit",
                       (unsigned long long)(n > c->left ? c->left : limit));
    if ((r = take(c, (size_t)n, &p, what)) != OK) return r;
    *s = (str){ (const char *)p, (size_t)n };
    return OK;
}

static int take_name(cursor *c, str *s, const char *what)
{
    size_t at = where(c);
    int    r  = take_str(c, s, MAX_NAME, what);
    if (r) return r;
    if (s->n == 0 || memchr(s->s, 0, s->n) || !utf8_valid(*s))
        return err_set(c->e, E_FORMAT, "%s: offset %zu: %s is empty, not UTF-8 or holds a NUL byte", c->path, at, what);
    return OK;
}

static int read_array(gguf *g, cursor *c, gguf_key *k)
{
    uint32_t type;
    uint64_t n;
    size_t   at = where(c), bytes;
    int      r;
    if ((r = take_u32(c, &type, "array type")) || (r = take_u64(c, &n, "array length"))) return r;
    k->elem = (int)type;
    k->n    = n;
    if (type == GV_STR) {
        if (n > c->left / 8) /* each string takes at least its length field */
            return err_set(c->e, E_FORMAT, "%s: offset %zu: array of %llu strings does not fit the %zu bytes left", c->path, at,
                           (unsigned long long)n, c->left);
        str *v = arena_new(&g->mem, (size_t)n, sizeof *v);
        if (!v) return err_set(c->e, E_NOMEM, "%s: out of memory for %llu strings", c->path, (unsigned long long)n);
        k->p = c->p;
        for (uint64_t i = 0; i < n; i++)
            if ((r = take_str(c, &v[i], UINT32_MAX, "string in array")) != OK) return r;
        k->strs = v;
        return OK;
    }
    size_t size = value_bytes((int)type);
    if (size == 0) return err_set(c->e, E_FORMAT, "%s: offset %zu: array of value type %u is not supported", c->path, at, type);
    if (n > c->left / size || mul_size((size_t)n, size, &bytes))
        return err_set(c->e, E_FORMAT, "%s: offset %zu: array of %llu values does not fit the %zu bytes left", c->path, at,
                       (unsigned long long)n, c->left);
    if ((r = take(c, bytes, &k->p, "array")) != OK) return r;
    for (uint64_t i = 0; type == GV_BOOL && i < n; i++)
        if (k->p[i] > 1) return err_set(c->e, E_FORMAT, "%s: offset %zu: bool is %u, 0 or 1 wanted", c->path, at, k->p[i]);
    return OK;
}

static int read_key(gguf *g, cursor *c, gguf_key *k)
{
    uint32_t type;
    int      r;
    if ((r = take_name(c, &k->name, "key name"))) return r;
    size_t at = where(c);
    if ((r = take_u32(c, &type, "value type"))) return r;
    k->type = (int)type;
    k->n    = 1;
    if (type == GV_ARR) return read_array(g, c, k);
    if (type == GV_STR) {
        str s;
        k->p = c->p;
        if ((r = take_str(c, &s, UINT32_MAX, "string value"))) return r;
        str *v = arena_new(&g->mem, 1, sizeof *v);
        if (!v) return err_set(c->e, E_NOMEM, "%s: out of memory", c->path);
        *v      = s;
        k->strs = v;
        return OK;
    }
    size_t size = value_bytes((int)type);
    if (size == 0) return err_set(c->e, E_FORMAT, "%s: offset %zu: value type %u is unknown", c->path, at, type);
    if ((r = take(c, size, &k->p, "value"))) return r;
    if (type == GV_BOOL && k->p[0] > 1) return err_set(c->e, E_FORMAT, "%s: offset %zu: bool is %u, 0 or 1 wanted", c->path, at + 4, k->p[0]);
    return OK;
}

static int read_tensor(cursor *c, gguf_tensor *t, uint64_t *offset)
{
    uint32_t n_dims, type;
    size_t   row, bytes, rows = 1;
    int      r;
    if ((r = take_name(c, &t->name, "tensor name"))) return r;
    size_t at = where(c);
    if ((r = take_u32(c, &n_dims, "tensor dimensions"))) return r;
    if (n_dims < 1 || n_dims > 4)
        return err_set(c->e, E_FORMAT, "%s: offset %zu: tensor %.*s has %u dimensions, 1 to 4 wanted", c->path, at, (int)t->name.n,
                       t->name.s, n_dims);
    t->n_dims = (int)n_dims;
    for (int d = 0; d < 4; d++) t->ne[d] = 1;
    for (uint32_t d = 0; d < n_dims; d++) {
        if ((r = take_u64(c, &t->ne[d], "tensor dimension"))) return r;
        if (t->ne[d] == 0 || t->ne[d] > INT64_MAX || (d && mul_size(rows, (size_t)t->ne[d], &rows)))
            return err_set(c->e, E_FORMAT, "%s: offset %zu: tensor %.*s: dimension %u is %llu", c->path, at, (int)t->name.n, t->name.s, d,
                           (unsigned long long)t->ne[d]);
    }
    if ((r = take_u32(c, &type, "tensor type")) || (r = take_u64(c, offset, "tensor offset"))) return r;
    t->type = (int)type;
    if (!gguf_type_name(t->type))
        return err_set(c->e, E_FORMAT, "%s: offset %zu: tensor %.*s has type %u; f32, f16, bf16, q8_0 or q4_0 wanted", c->path, at,
                       (int)t->name.n, t->name.s, type);
    row = gguf_row_bytes(t->type, t->ne[0]);
    if (row == 0 || mul_size(row, rows, &bytes))
        return err_set(c->e, E_FORMAT, "%s: offset %zu: tensor %.*s: rows of %llu elements do not fit type %s", c->path, at, (int)t->name.n,
                       t->name.s, (unsigned long long)t->ne[0], gguf_type_name(t->type));
    t->n_bytes = bytes;
    return OK;
}

/* Indices of n items sorted by name, by merging; names are reached through name_at. */
static str key_name(const gguf *g, int i) { return g->key[i].name; }
static str tensor_name(const gguf *g, int i) { return g->tensor[i].name; }
static int str_cmp(str a, str b)
{
    int r = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return r ? r : (a.n > b.n) - (a.n < b.n);
}

static int *sorted(const gguf *g, int n, str (*name_at)(const gguf *, int))
{
    int *a = malloc(((size_t)n + 1) * sizeof *a), *b = malloc(((size_t)n + 1) * sizeof *b);
    if (!a || !b) {
        free(a);
        free(b);
        return NULL;
    }
    for (int i = 0; i < n; i++) a[i] = i;
    for (int w = 1; w < n; w *= 2) {
        for (int lo = 0; lo < n; lo += 2 * w) {
            int mid = lo + w < n ? lo + w : n, hi = lo + 2 * w < n ? lo + 2 * w : n, i = lo, j = mid, k = lo;
            while (i < mid || j < hi)
                b[k++] = j >= hi || (i < mid && str_cmp(name_at(g, a[i]), name_at(g, a[j])) <= 0) ? a[i++] : a[j++];
        }
        int *t = a;
        a      = b;
        b      = t;
    }
    free(b);
    return a;
}

static int no_duplicates(const gguf *g, const int *order, int n, str (*name_at)(const gguf *, int), const char *what, err *e)
{
    for (int i = 1; i < n; i++) {
        str a = name_at(g, order[i]);
        if (str_eq(a, name_at(g, order[i - 1])))
            return err_set(e, E_FORMAT, "%s: %s %.*s is there twice", g->path, what, (int)a.n, a.s);
    }
    return OK;
}

static int find(const gguf *g, const int *order, int n, str (*name_at)(const gguf *, int), const char *name)
{
    str want = str_of(name);
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2, r = str_cmp(name_at(g, order[mid]), want);
        if (r == 0) return order[mid];
        if (r < 0) lo = mid + 1;
        else hi = mid;
    }
    return -1;
}

/* Place the tensors behind the header; offsets must be the running sum of padded sizes. */
static int place_tensors(gguf *g, cursor *c, const uint64_t *offset)
{
    uint64_t align = DEFAULT_ALIGN, want = 0;
    err     *e = c->e;
    if (gguf_get_u64(g, "general.alignment", &align, e) < 0) return e ? e->code : E_FORMAT;
    if (align < 8 || align > (1u << 20) || (align & (align - 1)))
        return err_set(e, E_FORMAT, "%s: general.alignment is %llu, a power of two from 8 to 2^20 wanted", g->path, (unsigned long long)align);
    size_t head = where(c), pad = (size_t)(-(uint64_t)head & (align - 1));
    if (g->n_tensors == 0) {
        if (c->left > pad) return err_set(e, E_FORMAT, "%s: offset %zu: %zu bytes behind the last header", g->path, head, c->left);
        return OK;
    }
    if (c->left < pad) return err_set(e, E_FORMAT, "%s: offset %zu: the file ends before the tensor data", g->path, head);
    const unsigned char *data = c->p + pad;
    size_t               size = c->left - pad, end = 0;
    for (int i = 0; i < g->n_tensors; i++) {
        gguf_tensor *t = &g->tensor[i];
        if (offset[i] != want)
            return err_set(e, E_FORMAT, "%s: tensor %.*s: data offset is %llu, %llu wanted", g->path, (int)t->name.n, t->name.s,
                           (unsigned long long)offset[i], (unsigned long long)want);
        if (want > size || size - want < t->n_bytes)
            return err_set(e, E_FORMAT, "%s: tensor %.*s: %zu bytes at data offset %llu, the file holds %zu", g->path, (int)t->name.n,
                           t->name.s, t->n_bytes, (unsigned long long)want, size);
        t->data = data + want;
        end     = (size_t)want + t->n_bytes;
        want    = end + (size_t)(-(uint64_t)t->n_bytes & (align - 1));
    }
    if (size > want || (size < want && size != end))
        return err_set(e, E_FORMAT, "%s: offset %zu: %zu bytes of tensor data, %zu wanted", g->path, head + pad, size, (size_t)want);
    return OK;
}

static int parse(gguf *g, err *e)
{
    cursor               c = { g->map.p, g->map.p, g->map.n, g->path, e };
    const unsigned char *magic;
    uint32_t             version;
    uint64_t             n_tensors, n_keys;
    int                  r;
    if ((r = take(&c, 4, &magic, "magic"))) return r;
    if (memcmp(magic, "GGUF", 4)) return err_set(e, E_FORMAT, "%s: not a GGUF file (its first four bytes are not \"GGUF\")", g->path);
    if ((r = take_u32(&c, &version, "version"))) return r;
    if (version != 3) return err_set(e, E_FORMAT, "%s: GGUF version is %u, 3 wanted", g->path, version);
    if ((r = take_u64(&c, &n_tensors, "tensor count")) || (r = take_u64(&c, &n_keys, "key count"))) return r;
    if (n_tensors > MAX_TENSORS || n_keys > MAX_KEYS || n_tensors > c.left / 25 || n_keys > c.left / 13)
        return err_set(e, E_FORMAT, "%s: offset 8: %llu tensors and %llu keys do not fit a file of %zu bytes", g->path,
                       (unsigned long long)n_tensors, (unsigned long long)n_keys, g->map.n);
    g->key           = calloc((size_t)n_keys + 1, sizeof *g->key);
    g->tensor        = calloc((size_t)n_tensors + 1, sizeof *g->tensor);
    uint64_t *offset = calloc((size_t)n_tensors + 1, sizeof *offset);
    r                = g->key && g->tensor && offset ? OK : err_set(e, E_NOMEM, "%s: out of memory", g->path);
    for (uint64_t i = 0; r == OK && i < n_keys; i++, g->n_keys++) r = read_key(g, &c, &g->key[i]);
    for (uint64_t i = 0; r == OK && i < n_tensors; i++, g->n_tensors++) r = read_tensor(&c, &g->tensor[i], &offset[i]);
    if (r == OK) {
        g->key_order    = sorted(g, g->n_keys, key_name);
        g->tensor_order = sorted(g, g->n_tensors, tensor_name);
        if (!g->key_order || !g->tensor_order) r = err_set(e, E_NOMEM, "%s: out of memory", g->path);
    }
    if (r == OK) r = no_duplicates(g, g->key_order, g->n_keys, key_name, "key", e);
    if (r == OK) r = no_duplicates(g, g->tensor_order, g->n_tensors, tensor_name, "tensor", e);
    if (r == OK) r = place_tensors(g, &c, offset);
    free(offset);
    return r;
}

int gguf_open(gguf **out, const char *path, err *e)
{
    *out    = NULL;
    gguf *g = calloc(1, sizeof *g);
    if (!g || !(g->path = strdup(path))) {
        free(g);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    int r = map_open(&g->map, path, e);
    if (r == OK) r = parse(g, e);
    if (r != OK) {
        gguf_close(g);
        return r;
    }
    *out = g;
    return OK;
}

void gguf_close(gguf *g)
{
    if (!g) return;
    map_close(&g->map);
    arena_free(&g->mem);
    free(g->key);
    free(g->tensor);
    free(g->key_order);
    free(g->tensor_order);
    free(g->path);
    free(g);
}

int                gguf_n_tensors(const gguf *g) { return g->n_tensors; }
const gguf_tensor *gguf_tensor_at(const gguf *g, int i) { return &g->tensor[i]; }
int                gguf_n_keys(const gguf *g) { return g->n_keys; }
const gguf_key    *gguf_key_at(const gguf *g, int i) { return &g->key[i]; }
const char        *gguf_path(const gguf *g) { return g->path; }
str                gguf_bytes(const gguf *g) { return (str){ (const char *)g->map.p, g->map.n }; }

const gguf_tensor *gguf_find(const gguf *g, const char *name)
{
    int i = find(g, g->tensor_order, g->n_tensors, tensor_name, name);
    return i < 0 ? NULL : &g->tensor[i];
}
const gguf_key *gguf_get(const gguf *g, const char *name)
{
    int i = find(g, g->key_order, g->n_keys, key_name, name);
    return i < 0 ? NULL : &g->key[i];
}

int64_t gguf_int_at(const gguf_key *k, uint64_t i)
{
    int                  type = k->type == GV_ARR ? k->elem : k->type;
    const unsigned char *p    = k->p + i * value_bytes(type);
    switch (type) {
    case GV_U8: case GV_BOOL: return p[0];
    case GV_I8: return (int8_t)p[0];
    case GV_U16: return p[0] | p[1] << 8;
    case GV_I16: return (int16_t)(p[0] | p[1] << 8);
    case GV_U32: return le32(p);
    case GV_I32: return (int32_t)le32(p);
    case GV_U64: case GV_I64: return (int64_t)le64(p);
    default: return 0;
    }
}

double gguf_float_at(const gguf_key *k, uint64_t i)
{
    int                  type = k->type == GV_ARR ? k->elem : k->type;
    const unsigned char *p    = k->p + i * value_bytes(type);
    if (type == GV_F32) {
        uint32_t u = le32(p);
        float    f;
        memcpy(&f, &u, 4);
        return f;
    }
    if (type == GV_F64) {
        uint64_t u = le64(p);
        double   f;
        memcpy(&f, &u, 8);
        return f;
    }
    return (double)gguf_int_at(k, i);
}

int gguf_get_u64(const gguf *g, const char *name, uint64_t *v, err *e)
{
    const gguf_key *k = gguf_get(g, name);
    if (!k) return 0;
    if (k->type == GV_ARR || k->type == GV_STR || k->type == GV_F32 || k->type == GV_F64 || k->type == GV_BOOL)
        return err_set(e, E_FORMAT, "%s: key %s has value type %d, an integer was wanted", g->path, name, k->type);
    int64_t x = gguf_int_at(k, 0);
    if (x < 0 && k->type != GV_U64) return err_set(e, E_FORMAT, "%s: key %s is %lld, at least 0 wanted", g->path, name, (long long)x);
    *v = (uint64_t)x;
    return 1;
}

int gguf_get_f64(const gguf *g, const char *name, double *v, err *e)
{
    const gguf_key *k = gguf_get(g, name);
    if (!k) return 0;
    if (k->type != GV_F32 && k->type != GV_F64)
        return err_set(e, E_FORMAT, "%s: key %s has value type %d, a float was wanted", g->path, name, k->type);
    *v = gguf_float_at(k, 0);
    return 1;
}

int gguf_get_bool(const gguf *g, const char *name, int *v, err *e)
{
    const gguf_key *k = gguf_get(g, name);
    if (!k) return 0;
    if (k->type != GV_BOOL) return err_set(e, E_FORMAT, "%s: key %s has value type %d, a bool was wanted", g->path, name, k->type);
    *v = k->p[0];
    return 1;
}

int gguf_get_str(const gguf *g, const char *name, str *v, err *e)
{
    const gguf_key *k = gguf_get(g, name);
    if (!k) return 0;
    if (k->type != GV_STR) return err_set(e, E_FORMAT, "%s: key %s has value type %d, a string was wanted", g->path, name, k->type);
    *v = k->strs[0];
    return 1;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

typedef struct {
    size_t bytes; /* of data */
} declared;

struct gguf_writer {
    char     *path;
    outfile  *out;
    buf       keys, names, infos; /* serialised keys; key and tensor names, each NUL-terminated; tensor records */
    uint64_t  n_keys;
    int       n_tensors, cap_tensors;
    declared *tensor;
    uint64_t  offset;   /* running data offset of the next declared tensor */
    int       begun;    /* header written */
    int       cur;      /* tensor whose data comes next */
    size_t    cur_done; /* bytes of it that came */
    err       first;    /* the first failure */
};

static void fail(gguf_writer *w, int code, const char *what, const char *name)
{
    if (w->first.code == OK) err_set(&w->first, code, "%s: %s%s%s", w->path, what, name ? " " : "", name ? name : "");
}

static void add32(buf *b, uint32_t v)
{
    unsigned char p[4] = { (unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16), (unsigned char)(v >> 24) };
    buf_add(b, p, 4);
}
static void add64(buf *b, uint64_t v)
{
    add32(b, (uint32_t)v);
    add32(b, (uint32_t)(v >> 32));
}
static void add_str(buf *b, str s)
{
    add64(b, s.n);
    buf_str(b, s);
}

/* Remember a name ('K' keys, 'T' tensors); 0 when it is new. */
static int remember(gguf_writer *w, char kind, const char *name)
{
    for (size_t i = 0; i < w->names.n; i += strlen(w->names.s + i) + 1)
        if (w->names.s[i] == kind && strcmp(w->names.s + i + 1, name) == 0) return -1;
    buf_chr(&w->names, kind);
    buf_add(&w->names, name, strlen(name) + 1);
    return 0;
}

static void start_key(gguf_writer *w, const char *key, int type)
{
    if (w->begun) fail(w, E_ARG, "key after tensor data:", key);
    if (remember(w, 'K', key)) fail(w, E_ARG, "key written twice:", key);
    add_str(&w->keys, str_of(key));
    add32(&w->keys, (uint32_t)type);
    w->n_keys++;
}

int gguf_create(gguf_writer **out, const char *path, err *e)
{
    *out           = NULL;
    gguf_writer *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    int r = out_open(&w->out, path, e);
    if (r) {
        gguf_discard(w);
        return r;
    }
    *out = w;
    return OK;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v) { start_key(w, key, GV_U32), add32(&w->keys, v); }
void gguf_put_u64(gguf_writer *w, const char *key, uint64_t v) { start_key(w, key, GV_U64), add64(&w->keys, v); }
void gguf_put_i32(gguf_writer *w, const char *key, int32_t v) { start_key(w, key, GV_I32), add32(&w->keys, (uint32_t)v); }
void gguf_put_f32(gguf_writer *w, const char *key, float v)
{
    uint32_t u;
    memcpy(&u, &v, 4);
    start_key(w, key, GV_F32);
    add32(&w->keys, u);
}
void gguf_put_f64(gguf_writer *w, const char *key, double v)
{
    uint64_t u;
    memcpy(&u, &v, 8);
    start_key(w, key, GV_F64);
    add64(&w->keys, u);
}
void gguf_put_bool(gguf_writer *w, const char *key, int v) { start_key(w, key, GV_BOOL), buf_chr(&w->keys, v != 0); }
void gguf_put_str(gguf_writer *w, const char *key, str v) { start_key(w, key, GV_STR), add_str(&w->keys, v); }

static void start_array(gguf_writer *w, const char *key, int elem, size_t n)
{
    start_key(w, key, GV_ARR);
    add32(&w->keys, (uint32_t)elem);
    add64(&w->keys, n);
}
void gguf_put_strs(gguf_writer *w, const char *key, const str *v, size_t n)
{
    start_array(w, key, GV_STR, n);
    for (size_t i = 0; i < n; i++) add_str(&w->keys, v[i]);
}
void gguf_put_i32s(gguf_writer *w, const char *key, const int32_t *v, size_t n)
{
    start_array(w, key, GV_I32, n);
    for (size_t i = 0; i < n; i++) add32(&w->keys, (uint32_t)v[i]);
}
void gguf_put_f32s(gguf_writer *w, const char *key, const float *v, size_t n)
{
    start_array(w, key, GV_F32, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &v[i], 4);
        add32(&w->keys, u);
    }
}

void gguf_put_key(gguf_writer *w, const gguf_key *k)
{
    char name[MAX_NAME + 1];
    memcpy(name, k->name.s, k->name.n);
    name[k->name.n] = 0;
    if (k->type == GV_ARR && k->elem == GV_STR) {
        gguf_put_strs(w, name, k->strs, (size_t)k->n);
    } else if (k->type == GV_ARR) {
        start_array(w, name, k->elem, (size_t)k->n);
        buf_add(&w->keys, k->p, (size_t)k->n * value_bytes(k->elem));
    } else if (k->type == GV_STR) {
        gguf_put_str(w, name, k->strs[0]);
    } else {
        start_key(w, name, k->type);
        buf_add(&w->keys, k->p, value_bytes(k->type));
    }
}

void gguf_declare(gguf_writer *w, const char *name, int type, int n_dims, const uint64_t *ne)
{
    size_t rows = 1, row = gguf_row_bytes(type, ne[0]), bytes;
    int    bad = row == 0;
    for (int d = 1; d < n_dims; d++) bad |= mul_size(rows, (size_t)ne[d], &rows);
    if (w->begun) fail(w, E_ARG, "tensor declared after data:", name);
    if (bad || mul_size(row, rows, &bytes)) {
        fail(w, E_ARG, "shape does not fit the type:", name);
        return;
    }
    if (remember(w, 'T', name)) fail(w, E_ARG, "tensor declared twice:", name);
    if (w->n_tensors == w->cap_tensors) {
        int       cap = w->cap_tensors ? w->cap_tensors * 2 : 64;
        declared *t   = realloc(w->tensor, (size_t)cap * sizeof *t);
        if (!t) {
            fail(w, E_NOMEM, "out of memory", NULL);
            return;
        }
        w->tensor      = t;
        w->cap_tensors = cap;
    }
    w->tensor[w->n_tensors++] = (declared){ bytes };
    add_str(&w->infos, str_of(name));
    add32(&w->infos, (uint32_t)n_dims);
    for (int d = 0; d < n_dims; d++) add64(&w->infos, ne[d]);
    add32(&w->infos, (uint32_t)type);
    add64(&w->infos, w->offset);
    w->offset += (bytes + DEFAULT_ALIGN - 1) / DEFAULT_ALIGN * DEFAULT_ALIGN;
}

static int write_header(gguf_writer *w, err *e)
{
    buf head = { 0 };
    int r;
    if (w->first.code == OK && (w->keys.oom || w->names.oom || w->infos.oom)) fail(w, E_NOMEM, "out of memory", NULL);
    if (w->first.code != OK) {
        if (e) *e = w->first;
        return w->first.code;
    }
    w->begun = 1;
    buf_add(&head, "GGUF", 4);
    add32(&head, 3);
    add64(&head, (uint64_t)w->n_tensors);
    add64(&head, w->n_keys);
    r = head.oom ? err_set(e, E_NOMEM, "%s: out of memory", w->path) : out_write(w->out, head.s, head.n, e);
    buf_free(&head);
    if (r == OK) r = out_write(w->out, w->keys.s, w->keys.n, e);
    if (r == OK) r = out_write(w->out, w->infos.s, w->infos.n, e);
    if (r == OK) r = out_pad(w->out, (size_t)(-out_tell(w->out) & (DEFAULT_ALIGN - 1)), e);
    return r;
}

int gguf_data(gguf_writer *w, const void *p, size_t n, err *e)
{
    const char *s = p;
    int         r = w->begun ? OK : write_header(w, e);
    while (r == OK && n) {
        if (w->cur >= w->n_tensors) return err_set(e, E_ARG, "%s: %zu bytes of tensor data more than declared", w->path, n);
        size_t want = w->tensor[w->cur].bytes - w->cur_done, k = n < want ? n : want;
        r = out_write(w->out, s, k, e);
        s += k;
        n -= k;
        w->cur_done += k;
        if (r == OK && w->cur_done == w->tensor[w->cur].bytes) {
            r = out_pad(w->out, (size_t)(-out_tell(w->out) & (DEFAULT_ALIGN - 1)), e);
            w->cur++;
            w->cur_done = 0;
        }
    }
    return r;
}

int gguf_finish(gguf_writer *w, err *e)
{
    int r = w->begun ? OK : write_header(w, e);
    if (r == OK && w->cur != w->n_tensors) r = err_set(e, E_ARG, "%s: data of %d tensors of %d came", w->path, w->cur, w->n_tensors);
    if (r == OK) r = out_commit(w->out, e);
    if (r == OK) {
        w->out = NULL;
        gguf_discard(w);
    }
    return r;
}

void gguf_discard(gguf_writer *w)
{
    if (!w) return;
    out_abort(w->out);
    buf_free(&w->keys);
    buf_free(&w->names);
    buf_free(&w->infos);
    free(w->tensor);
    free(w->path);
    free(w);
}
