/* foreign: see foreign.h. */
#include "models/foreign.h"

#include "models/pickle.h"
#include "models/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 1 << 17, MAX_FILES = 1 << 10 };

/* ---- the set ---- */

int foreign_add(foreign *f, const foreign_tensor *t, int copy, err *e)
{
    const char *path = f->file[f->n_file - 1].path;
    if (f->n == MAX_TENSORS) return err_set(e, E_LIMIT, "%s: more than %d tensors", path, MAX_TENSORS);
    if (f->n == f->cap) {
        int             cap = f->cap ? 2 * f->cap : 256;
        foreign_tensor *p   = realloc(f->t, (size_t)cap * sizeof *p);
        if (!p) return err_set(e, E_NOMEM, "%s: out of memory", path);
        f->t   = p;
        f->cap = cap;
    }
    foreign_tensor *x = &f->t[f->n];
    *x                = *t;
    x->file           = f->n_file - 1;
    if (copy) {
        x->name = arena_str(&f->mem, t->name, e);
        if (!x->name.s) return E_NOMEM;
    }
    f->n++;
    return OK;
}

static int by_name(const void *pa, const void *pb)
{
    const foreign_tensor *a = pa, *b = pb;
    size_t                n = a->name.n < b->name.n ? a->name.n : b->name.n;
    int                   d = n ? memcmp(a->name.s, b->name.s, n) : 0;
    return d ? d : (a->name.n > b->name.n) - (a->name.n < b->name.n);
}

int foreign_sort(foreign *f, err *e)
{
    if (f->n) qsort(f->t, (size_t)f->n, sizeof *f->t, by_name);
    for (int i = 1; i < f->n; i++)
        if (by_name(&f->t[i - 1], &f->t[i]) == 0)
            return err_set(e, E_FORMAT, "%s: tensor '%.*s' is there twice", foreign_path(f, &f->t[i]),
                           (int)(f->t[i].name.n > 80 ? 80 : f->t[i].name.n), f->t[i].name.s);
    return OK;
}

foreign_tensor *foreign_find(const foreign *f, str name)
{
    foreign_tensor key = { .name = name };
    return f->n ? bsearch(&key, f->t, (size_t)f->n, sizeof *f->t, by_name) : NULL;
}

const char *foreign_path(const foreign *f, const foreign_tensor *t) { return f->file[t->file].path; }

uint64_t foreign_bytes(const foreign *f)
{
    uint64_t n = 0;
    for (int i = 0; i < f->n_file; i++) n += f->file[i].map.n;
    return n;
}

/* ---- opening ---- */

/* What people hand in by mistake, told from the first bytes; NULL when it may be a checkpoint. */
static const char *mistaken(const unsigned char *p, size_t n)
{
    static const struct {
        const char *magic, *what;
        size_t      n, at;
    } kinds[] = {
        { "version https://git-lfs", "a git LFS pointer, not the file itself (git lfs pull fetches it)", 23, 0 },
        { "GGUF", "a GGUF file already: no import is needed", 4, 0 },
        { "\x89HDF", "a Keras/HDF5 file; the PyTorch or safetensors weights are wanted", 4, 0 },
        { "\x1f\x8b", "gzip-compressed; unpack it first", 2, 0 },
        { "ustar", "a tar archive; unpack it first", 5, 257 },
        { "<", "a web page or XML text, not weights", 1, 0 },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (n >= kinds[i].at + kinds[i].n && memcmp(p + kinds[i].at, kinds[i].magic, kinds[i].n) == 0) return kinds[i].what;
    return NULL;
}

static int has_suffix(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

int foreign_add_file(foreign *f, const char *path, err *e)
{
    if (f->n_file == MAX_FILES) return err_set(e, E_LIMIT, "%s: more than %d weight files", path, MAX_FILES);
    foreign_file *list = realloc(f->file, ((size_t)f->n_file + 1) * sizeof *list);
    if (!list) return err_set(e, E_NOMEM, "%s: out of memory", path);
    f->file            = list;
    foreign_file *file = &list[f->n_file];
    *file              = (foreign_file){ .path = malloc(strlen(path) + 1) };
    if (!file->path) return err_set(e, E_NOMEM, "%s: out of memory", path);
    strcpy(file->path, path);
    f->n_file++;
    int r = map_open(&file->map, path, e);
    if (r) return r;
    const unsigned char *p = file->map.p;
    size_t               n = file->map.n;
    if (n == 0) return err_set(e, E_FORMAT, "%s: the file is empty", path);
    const char *what = mistaken(p, n);
    if (what && !(n > 8 && p[8] == '{' && has_suffix(path, ".safetensors"))) return err_set(e, E_FORMAT, "%s: this is %s", path, what);
    if (n >= 4 && memcmp(p, "PK\3\4", 4) == 0) return pickle_read_zip(f, e);
    if (has_suffix(path, ".safetensors") || (n > 8 && p[8] == '{')) return safetensors_read(f, e);
    if (p[0] == 0x80) return pickle_read_legacy(f, e);
    return err_set(e, E_FORMAT, "%s: neither safetensors nor a PyTorch checkpoint (zip or pickle)", path);
}

void foreign_close(foreign *f)
{
    for (int i = 0; i < f->n_file; i++) {
        if (f->file[i].zip) pickle_zip_close(f->file[i].zip);
        map_close(&f->file[i].map);
        free(f->file[i].path);
    }
    free(f->file);
    free(f->held[0].p);
    free(f->held[1].p);
    free(f->t);
    arena_free(&f->mem);
    *f = (foreign){ 0 };
}

/* ---- values ---- */

/* The bytes of a tensor's storage, valid until the second next call with another storage. */
static int storage(foreign *f, const foreign_tensor *t, const unsigned char **p, err *e)
{
    *p = t->bytes;
    if (t->bytes || t->n_bytes == 0) return OK;
    for (int i = 0; i < 2; i++)
        if (f->held[i].p && f->held[i].file == t->file && f->held[i].entry == t->entry) {
            f->next = !i;
            *p      = f->held[i].p;
            return OK;
        }
    int i = f->next;
    free(f->held[i].p);
    f->held[i].p = malloc(t->n_bytes);
    if (!f->held[i].p) return err_set(e, E_NOMEM, "%s: no memory for %zu bytes of weights", foreign_path(f, t), t->n_bytes);
    int r = pickle_zip_read(f->file[t->file].zip, foreign_path(f, t), t->entry, f->held[i].p, t->n_bytes, e);
    if (r) {
        free(f->held[i].p);
        f->held[i].p = NULL;
        return r;
    }
    f->held[i].file  = t->file;
    f->held[i].entry = t->entry;
    f->next          = !i;
    *p               = f->held[i].p;
    return OK;
}

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mant = h & 0x3ff;
    int      ex   = h >> 10 & 31;
    if (ex == 0) { /* zero and subnormals: mant * 2^-24, exact in f32 */
        float v = (float)mant * 0x1p-24f;
        return sign ? -v : v;
    }
    uint32_t u = sign | (ex == 31 ? 0x7f800000u : (uint32_t)(ex + 112) << 23) | mant << 13;
    float    v;
    memcpy(&v, &u, sizeof v);
    return v;
}

static float value(int type, const unsigned char *p, uint64_t i)
{
    uint16_t h;
    uint32_t u;
    float    v;
    double   d;
    switch (type) {
    case FT_F32: memcpy(&v, p + 4 * i, 4); return v;
    case FT_F16: memcpy(&h, p + 2 * i, 2); return from_half(h);
    case FT_BF16:
        memcpy(&h, p + 2 * i, 2);
        u = (uint32_t)h << 16;
        memcpy(&v, &u, sizeof v);
        return v;
    default: memcpy(&d, p + 8 * i, 8); return (float)d;
    }
}

int foreign_rows(foreign *f, const foreign_tensor *t, int transposed, uint64_t from, uint64_t n, uint64_t cols, float *out, err *e)
{
    const unsigned char *p;
    int                  r = storage(f, t, &p, e);
    if (r) return r;
    uint64_t down = t->n_dims == 2 ? t->stride[transposed ? 1 : 0] : 0;
    uint64_t over = t->n_dims == 2 ? t->stride[transposed ? 0 : 1] : t->stride[0];
    for (uint64_t c = 0; c < cols; c++) /* columns outside: with Conv1D's order `n` neighbours come from one cache line */
        for (uint64_t i = 0; i < n; i++) {
            float v = value(t->type, p, t->first + (from + i) * down + c * over);
            if (!isfinite(v))
                return err_set(e, E_FORMAT, "%s: %.*s[%llu, %llu] is %s", foreign_path(f, t), (int)t->name.n, t->name.s,
                               (unsigned long long)(transposed ? c : from + i), (unsigned long long)(transposed ? from + i : c),
                               isnan(v) ? "not a number" : "infinite, or too large for f32");
            out[i * cols + c] = v;
        }
    return OK;
}

void foreign_shape(const foreign_tensor *t, char out[128])
{
    size_t at = (size_t)snprintf(out, 128, "(");
    for (int d = 0; d < t->n_dims && at < 100; d++)
        at += (size_t)snprintf(out + at, 128 - at, d ? ", %llu" : "%llu", (unsigned long long)t->size[d]);
    snprintf(out + at, 128 - at, t->n_dims == 1 ? ",)" : ")");
}
