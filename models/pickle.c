/* pickle: see pickle.h. */
#include "models/pickle.h"

#include "models/unpickle.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

/* The object pickle of the largest model this program admits is 3 MB. */
enum { MAX_PICKLE = 16 << 20, MAX_ENTRIES = 1 << 17 };

/* ---- the state dict ---- */

static int foreign_type(int dtype)
{
    switch (dtype) {
    case PD_F32: return FT_F32;
    case PD_F16: return FT_F16;
    case PD_BF16: return FT_BF16;
    case PD_F64: return FT_F64;
    default: return FT_OTHER;
    }
}

static int holds_tensors(const pvalue *d)
{
    if (d->kind != PV_DICT) return 0;
    for (size_t i = 0; i + 1 < d->seq.n; i += 2)
        if (d->seq.v[i]->kind == PV_STR && d->seq.v[i + 1]->kind == PV_TENSOR) return 1;
    return 0;
}

/* The dict of tensors: `top` itself or what a training script put around it. */
static const pvalue *state_dict(const pvalue *top, const char *path, err *e)
{
    if (top->kind != PV_DICT) {
        err_set(e, E_FORMAT, "%s: the pickle holds no dict of tensors", path);
        return NULL;
    }
    if (holds_tensors(top)) return top;
    static const char *const wraps[] = { "state_dict", "model_state_dict", "model" };
    for (size_t k = 0; k < sizeof wraps / sizeof wraps[0]; k++)
        for (size_t i = 0; i + 1 < top->seq.n; i += 2)
            if (top->seq.v[i]->kind == PV_STR && str_eq(top->seq.v[i]->s, str_of(wraps[k])) && holds_tensors(top->seq.v[i + 1]))
                return top->seq.v[i + 1];
    err_set(e, E_FORMAT, "%s: the pickle's dict holds no tensors", path);
    return NULL;
}

/* Put every tensor of the state dict into the set; place() says where a storage's bytes are. */
typedef int (*placer)(void *ctx, const pvalue *storage, size_t n_bytes, foreign_tensor *t, err *e);
static int add_tensors(foreign *f, const pvalue *top, placer place, void *ctx, err *e)
{
    const char   *path = f->file[f->n_file - 1].path;
    const pvalue *dict = state_dict(top, path, e);
    if (!dict) return E_FORMAT;
    for (size_t i = 0; i + 1 < dict->seq.n; i += 2) {
        const pvalue *key = dict->seq.v[i], *v = dict->seq.v[i + 1];
        if (key->kind != PV_STR) return err_set(e, E_FORMAT, "%s: a key of the state dict is not text", path);
        int shown = key->s.n > 80 ? 80 : (int)key->s.n;
        if (v->kind != PV_TENSOR) return err_set(e, E_FORMAT, "%s: '%.*s' is no tensor", path, shown, key->s.s);
        const pickle_tensor *p = v->tensor;
        foreign_tensor       t = { .name = key->s, .type = foreign_type(p->storage->storage.dtype), .n_dims = p->n_dims, .first = p->first };
        memcpy(t.size, p->size, sizeof t.size);
        memcpy(t.stride, p->stride, sizeof t.stride);
        if (mul_size((size_t)p->storage->storage.count, unpickle_dtype_bytes(p->storage->storage.dtype), &t.n_bytes))
            return err_set(e, E_FORMAT, "%s: the storage of '%.*s' is too large", path, shown, key->s.s);
        int r = place(ctx, p->storage, t.n_bytes, &t, e);
        if (r) return err_prefix(e, "%s: '%.*s'", path, shown, key->s.s);
        if ((r = foreign_add(f, &t, 1, e))) return r;
    }
    return OK;
}

/* ---- zip ---- */

static const char *zip_text(zip_t *z)
{
    return zip_error_strerror(zip_get_error(z));
}

int pickle_zip_read(void *zip, const char *path, uint64_t entry, unsigned char *out, size_t n, err *e)
{
    zip_t      *z  = zip;
    zip_file_t *zf = zip_fopen_index(z, entry, 0);
    if (!zf) return err_set(e, E_FORMAT, "%s: entry '%.80s': %s", path, zip_get_name(z, entry, ZIP_FL_ENC_RAW), zip_text(z));
    size_t got = 0;
    for (zip_int64_t k = 1; got < n && k > 0; got += k > 0 ? (size_t)k : 0) k = zip_fread(zf, out + got, n - got);
    unsigned char more;
    zip_int64_t   end = got == n ? zip_fread(zf, &more, 1) : -1; /* the read at the end is the one that compares checksums */
    int           r   = OK;
    if (end != 0) {
        const char *why = zip_error_strerror(zip_file_get_error(zf));
        r = err_set(e, E_FORMAT, "%s: entry '%.80s': %s", path, zip_get_name(z, entry, ZIP_FL_ENC_RAW),
                    end > 0 ? "longer than it says" : zip_error_code_zip(zip_file_get_error(zf)) ? why : "shorter than it says");
    }
    zip_fclose(zf);
    return r;
}

void pickle_zip_close(void *zip) { zip_discard(zip); }

typedef struct {
    zip_t      *z;
    const char *path;
    char        prefix[256]; /* "pytorch_model/" */
    size_t      n_prefix, n_file;
} archive;

/* Index and size of entry prefix + name: 1 found, 0 absent, < 0. */
static int find_entry(const archive *a, const char *name, uint64_t *entry, size_t *n, err *e)
{
    char full[512];
    if (a->n_prefix + strlen(name) >= sizeof full) return err_set(e, E_FORMAT, "%s: an entry name of more than 500 bytes", a->path);
    memcpy(full, a->prefix, a->n_prefix);
    strcpy(full + a->n_prefix, name);
    zip_int64_t i = zip_name_locate(a->z, full, ZIP_FL_ENC_RAW);
    if (i < 0) return 0;
    zip_stat_t st;
    zip_stat_init(&st);
    zip_uint64_t need = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
    if (zip_stat_index(a->z, (zip_uint64_t)i, 0, &st) || (st.valid & need) != need)
        return err_set(e, E_FORMAT, "%s: entry '%s' cannot be read", a->path, full);
    if (st.encryption_method != ZIP_EM_NONE) return err_set(e, E_FORMAT, "%s: entry '%s' is encrypted", a->path, full);
    if (st.comp_method != ZIP_CM_STORE || st.comp_size != st.size)
        return err_set(e, E_FORMAT, "%s: entry '%s' is compressed; PyTorch stores entries as they are", a->path, full);
    if (st.size > a->n_file)
        return err_set(e, E_FORMAT, "%s: entry '%s' claims %llu bytes, the file has %zu", a->path, full, (unsigned long long)st.size, a->n_file);
    *entry = (uint64_t)i;
    *n     = (size_t)st.size;
    return 1;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Names are unique, and exactly one ends in data.pkl: what stands before it is the prefix of all others. */
static int survey(archive *a, err *e)
{
    zip_int64_t n = zip_get_num_entries(a->z, 0);
    if (n <= 0 || n > MAX_ENTRIES) return err_set(e, E_FORMAT, "%s: an archive of %lld entries", a->path, (long long)n);
    const char **names = malloc((size_t)n * sizeof *names);
    if (!names) return err_set(e, E_NOMEM, "%s: out of memory", a->path);
    int r = OK, pickles = 0;
    for (zip_int64_t i = 0; i < n && !r; i++) {
        const char *name = names[i] = zip_get_name(a->z, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
        if (!name) {
            r = err_set(e, E_FORMAT, "%s: entry %lld has no name", a->path, (long long)i);
            break;
        }
        size_t len = strlen(name);
        if (len < 8 || strcmp(name + len - 8, "data.pkl") || (len > 8 && name[len - 9] != '/')) continue;
        if (len - 8 >= sizeof a->prefix) r = err_set(e, E_FORMAT, "%s: an entry name of %zu bytes", a->path, len);
        else if (pickles++) r = err_set(e, E_FORMAT, "%s: more than one data.pkl", a->path);
        else memcpy(a->prefix, name, a->n_prefix = len - 8);
    }
    if (!r) {
        qsort(names, (size_t)n, sizeof *names, by_text);
        for (zip_int64_t i = 1; i < n && !r; i++)
            if (strcmp(names[i - 1], names[i]) == 0) r = err_set(e, E_FORMAT, "%s: entry '%.80s' is there twice", a->path, names[i]);
    }
    if (!r && !pickles) r = err_set(e, E_FORMAT, "%s: a zip archive without data.pkl is no PyTorch checkpoint", a->path);
    free(names);
    return r;
}

/* A small text entry (version, byteorder): 1 and its text, 0 absent, < 0. */
static int small_entry(const archive *a, const char *name, char out[16], err *e)
{
    uint64_t entry;
    size_t   n;
    int      r = find_entry(a, name, &entry, &n, e);
    if (r <= 0) return r;
    if (n >= 16) return err_set(e, E_FORMAT, "%s: entry '%s' has %zu bytes", a->path, name, n);
    if ((r = pickle_zip_read(a->z, a->path, entry, (unsigned char *)out, n, e))) return r;
    while (n && (out[n - 1] == '\n' || out[n - 1] == '\r')) n--;
    out[n] = 0;
    return 1;
}

static int place_in_zip(void *ctx, const pvalue *s, size_t n_bytes, foreign_tensor *t, err *e)
{
    const archive *a = ctx;
    char           name[256];
    size_t         n, k = s->storage.key.n; /* unpickle.c admits 1..200 bytes */
    if (memchr(s->storage.key.s, 0, k)) return err_set(e, E_FORMAT, "its storage has a NUL in its name");
    memcpy(name, "data/", 5);
    memcpy(name + 5, s->storage.key.s, k);
    name[5 + k] = 0;
    int r       = find_entry(a, name, &t->entry, &n, e);
    if (r < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "its storage '%s' is missing", name);
    if (n != n_bytes) return err_set(e, E_FORMAT, "its storage '%s' should have %zu bytes and has %zu", name, n_bytes, n);
    return OK;
}

int pickle_read_zip(foreign *f, err *e)
{
    foreign_file *file = &f->file[f->n_file - 1];
    zip_error_t   ze;
    zip_error_init(&ze);
    zip_source_t *src = zip_source_buffer_create(file->map.p, file->map.n, 0, &ze);
    zip_t        *z   = src ? zip_open_from_source(src, ZIP_RDONLY | ZIP_CHECKCONS, &ze) : NULL;
    if (!z) {
        int r = err_set(e, E_FORMAT, "%s: as a zip archive: %s", file->path, zip_error_strerror(&ze));
        if (src) zip_source_free(src);
        zip_error_fini(&ze);
        return r;
    }
    zip_error_fini(&ze);
    file->zip        = z;
    archive  a       = { .z = z, .path = file->path, .n_file = file->map.n };
    char     text[16];
    uint64_t entry;
    size_t   n;
    int      r = survey(&a, e);
    if (r) return r;
    if ((r = small_entry(&a, "version", text, e)) < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: a zip archive without the entry '%sversion' is no PyTorch checkpoint", a.path, a.prefix);
    char *end;
    long  version = strtol(text, &end, 10);
    if (end == text || *end || version < 1 || version > 10) return err_set(e, E_FORMAT, "%s: archive version '%s', wanted 1 to 10", a.path, text);
    if ((r = small_entry(&a, "byteorder", text, e)) < 0) return r;
    if (r == 1 && strcmp(text, "little")) return err_set(e, E_FORMAT, "%s: byte order '%s', wanted little", a.path, text);
    if ((r = find_entry(&a, "data.pkl", &entry, &n, e)) < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: data.pkl cannot be found again", a.path);
    if (n > MAX_PICKLE) return err_set(e, E_LIMIT, "%s: data.pkl has %zu bytes, %d is the most", a.path, n, MAX_PICKLE);
    unsigned char *pkl = malloc(n + 1);
    if (!pkl) return err_set(e, E_NOMEM, "%s: out of memory", a.path);
    arena   mem = { 0 };
    pickled obj;
    r = pickle_zip_read(z, a.path, entry, pkl, n, e);
    if (!r && (r = unpickle(&mem, (str){ (const char *)pkl, n }, 0, &obj, e))) err_prefix(e, "%s: data.pkl", a.path);
    if (!r && obj.used != n) r = err_set(e, E_FORMAT, "%s: data.pkl: %zu bytes follow its end", a.path, n - obj.used);
    if (!r) r = add_tensors(f, obj.top, place_in_zip, &a, e);
    arena_free(&mem);
    free(pkl);
    return r;
}

/* ---- legacy: pickles (magic, protocol, system, object, keys), then for each key a count of elements and the elements ---- */

typedef struct {
    const pvalue        *s;
    const unsigned char *p; /* its bytes, once found */
} place;
typedef struct {
    place *v; /* sorted by key, one for each */
    size_t n;
} places;

static int by_key(const void *pa, const void *pb)
{
    const place *a = pa, *b = pb;
    str          x = a->s->storage.key, y = b->s->storage.key;
    int          d = memcmp(x.s, y.s, x.n < y.n ? x.n : y.n);
    return d ? d : (x.n > y.n) - (x.n < y.n);
}

static place *place_of(const places *all, const pvalue *s)
{
    place key = { .s = s };
    return all->n ? bsearch(&key, all->v, all->n, sizeof *all->v, by_key) : NULL;
}

/* The storages of the object, each once. */
static int gather(const pickled *obj, places *all, err *e)
{
    if (!(all->v = calloc(obj->n_storage + 1, sizeof *all->v))) return err_set(e, E_NOMEM, "out of memory");
    for (size_t i = 0; i < obj->n_storage; i++) all->v[i].s = obj->storage[i];
    if (obj->n_storage) qsort(all->v, obj->n_storage, sizeof *all->v, by_key);
    for (size_t i = 0; i < obj->n_storage; i++) {
        const pvalue *s = all->v[i].s, *before = all->n ? all->v[all->n - 1].s : NULL;
        if (before && str_eq(before->storage.key, s->storage.key)) {
            if (before->storage.count != s->storage.count || before->storage.dtype != s->storage.dtype)
                return err_set(e, E_FORMAT, "storage '%.*s' is described in two ways", (int)s->storage.key.n, s->storage.key.s);
            continue;
        }
        all->v[all->n++] = all->v[i];
    }
    return OK;
}

static int place_in_stream(void *ctx, const pvalue *s, size_t n_bytes, foreign_tensor *t, err *e)
{
    const place *p = place_of(ctx, s);
    if (!p || !p->p) return err_set(e, E_FORMAT, "its storage '%.*s' is missing", (int)s->storage.key.n, s->storage.key.s);
    t->bytes = n_bytes ? p->p : NULL;
    return OK;
}

/* Walk the data behind the pickles: in.s[at..). */
static int find_storages(const pvalue *keys, str in, size_t at, places *all, err *e)
{
    if (keys->kind != PV_LIST) return err_set(e, E_FORMAT, "the list of storages is missing");
    for (size_t i = 0; i < keys->seq.n; i++) {
        const pvalue *k = keys->seq.v[i];
        if (k->kind != PV_STR || k->s.n == 0 || k->s.n > 200) return err_set(e, E_FORMAT, "storage %zu of the list has no proper name", i);
        pvalue   want = { .kind = PV_STORAGE, .storage = { .key = k->s } };
        place   *p    = place_of(all, &want);
        uint64_t count = 0;
        size_t   bytes;
        if (!p) return err_set(e, E_FORMAT, "storage '%.*s' belongs to no tensor", (int)k->s.n, k->s.s);
        if (p->p) return err_set(e, E_FORMAT, "storage '%.*s' is listed twice", (int)k->s.n, k->s.s);
        if (in.n - at < 8) return err_set(e, E_FORMAT, "the file ends before storage '%.*s'", (int)k->s.n, k->s.s);
        for (int b = 7; b >= 0; b--) count = count << 8 | (unsigned char)in.s[at + (size_t)b];
        at += 8;
        if (count != p->s->storage.count)
            return err_set(e, E_FORMAT, "storage '%.*s' says %llu elements, its tensor %llu", (int)k->s.n, k->s.s, (unsigned long long)count,
                           (unsigned long long)p->s->storage.count);
        if (mul_size((size_t)count, unpickle_dtype_bytes(p->s->storage.dtype), &bytes) || bytes > in.n - at)
            return err_set(e, E_FORMAT, "storage '%.*s' of %llu elements is longer than the %zu bytes left", (int)k->s.n, k->s.s,
                           (unsigned long long)count, in.n - at);
        p->p = (const unsigned char *)in.s + at;
        at += bytes;
    }
    return at == in.n ? OK : err_set(e, E_FORMAT, "%zu bytes follow the last storage", in.n - at);
}

static int check_legacy_head(const pickled *v, err *e)
{
    static const unsigned char magic[10] = { 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19 };
    if (v[0].top->kind != PV_LONG || !str_eq(v[0].top->s, (str){ (const char *)magic, sizeof magic }))
        return err_set(e, E_FORMAT, "a pickle, but not of PyTorch (the magic number is missing)");
    if (v[1].top->kind != PV_INT || v[1].top->i != 1001) return err_set(e, E_FORMAT, "a PyTorch file of another protocol than 1001");
    if (v[2].top->kind != PV_DICT) return err_set(e, E_FORMAT, "the description of the writing system is missing");
    for (size_t i = 0; i + 1 < v[2].top->seq.n; i += 2)
        if (v[2].top->seq.v[i]->kind == PV_STR && str_eq(v[2].top->seq.v[i]->s, STR("little_endian")) &&
            (v[2].top->seq.v[i + 1]->kind != PV_BOOL || !v[2].top->seq.v[i + 1]->i))
            return err_set(e, E_FORMAT, "written on a big-endian machine");
    return OK;
}

int pickle_read_legacy(foreign *f, err *e)
{
    const foreign_file *file = &f->file[f->n_file - 1];
    str                 in   = { (const char *)file->map.p, file->map.n };
    arena               mem  = { 0 };
    pickled             v[5]; /* magic number, protocol, system, object, keys */
    places              all = { 0 };
    size_t              at  = 0;
    int                 r   = OK;
    for (int i = 0; i < 5 && !r; i++) {
        str rest = { in.s + at, in.n - at < MAX_PICKLE ? in.n - at : MAX_PICKLE };
        r        = unpickle(&mem, rest, at, &v[i], e);
        if (!r) at += v[i].used;
        if (!r && i == 0 && v[0].top->kind != PV_LONG) r = err_set(e, E_FORMAT, "a pickle, but not of PyTorch (the magic number is missing)");
        if (!r && i == 2) r = check_legacy_head(v, e);
    }
    if (!r) r = gather(&v[3], &all, e);
    if (!r) r = find_storages(v[4].top, in, at, &all, e);
    if (r) err_prefix(e, "%s", file->path);
    else r = add_tensors(f, v[3].top, place_in_stream, &all, e);
    free(all.v);
    arena_free(&mem);
    return r;
}
