/* safetensors: see safetensors.h. */
#include "models/safetensors.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* Names and numbers of the 12k tensors of the largest model this program admits take 2 MB of JSON. */
enum { MAX_HEADER = 8 << 20 };

static const struct {
    const char *name;
    int         type;
    unsigned    bytes;
} dtypes[] = {
    { "F32", FT_F32, 4 },   { "F16", FT_F16, 2 },   { "BF16", FT_BF16, 2 }, { "F64", FT_F64, 8 },   { "BOOL", FT_OTHER, 1 }, { "U8", FT_OTHER, 1 },
    { "I8", FT_OTHER, 1 },  { "I16", FT_OTHER, 2 }, { "U16", FT_OTHER, 2 }, { "I32", FT_OTHER, 4 }, { "U32", FT_OTHER, 4 },
    { "I64", FT_OTHER, 8 }, { "U64", FT_OTHER, 8 }, { "F8_E4M3", FT_OTHER, 1 }, { "F8_E5M2", FT_OTHER, 1 },
};
enum { N_DTYPES = sizeof dtypes / sizeof dtypes[0] };

typedef struct {
    uint64_t begin, end;
    int      tensor;
} extent;

static int by_place(const void *pa, const void *pb)
{
    const extent *a = pa, *b = pb;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return (a->end > b->end) - (a->end < b->end);
}

static int non_negative(const json_t *j, uint64_t *u)
{
    if (!json_is_integer(j) || json_integer_value(j) < 0) return -1;
    *u = (uint64_t)json_integer_value(j);
    return 0;
}

/* One entry of the header -> t and its place; what is wrong with it, or NULL. */
static const char *read_entry(json_t *j, foreign_tensor *t, extent *x)
{
    const char *dtype = json_string_value(json_object_get(j, "dtype"));
    json_t     *shape = json_object_get(j, "shape"), *offsets = json_object_get(j, "data_offsets");
    uint64_t    bytes = 0;
    if (!dtype) return "has no dtype";
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(dtype, dtypes[i].name) == 0) {
            t->type = dtypes[i].type;
            bytes   = dtypes[i].bytes;
        }
    if (!bytes) return "has a dtype that is not known";
    if (!json_is_array(shape)) return "has no shape";
    if (json_array_size(shape) > FOREIGN_DIMS) return "has more than 8 dimensions";
    t->n_dims = (int)json_array_size(shape);
    for (int d = t->n_dims - 1; d >= 0; d--) {
        if (non_negative(json_array_get(shape, (size_t)d), &t->size[d])) return "has a shape that is not made of whole numbers";
    }
    uint64_t stride = 1;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        t->stride[d] = stride;
        if (__builtin_mul_overflow(stride, t->size[d], &stride)) return "has a shape whose product overflows";
    }
    if (__builtin_mul_overflow(bytes, stride, &bytes)) return "has a shape whose product overflows";
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || non_negative(json_array_get(offsets, 0), &x->begin) ||
        non_negative(json_array_get(offsets, 1), &x->end))
        return "has data_offsets that are not two whole numbers";
    if (x->begin > x->end) return "has data_offsets in reverse";
    if (x->end - x->begin != bytes) return "has a shape that does not fit its data_offsets";
    t->n_bytes = (size_t)bytes;
    return NULL;
}

static int read_header(foreign *f, json_t *root, const unsigned char *data, uint64_t n_data, extent *x, err *e)
{
    const char *path = f->file[f->n_file - 1].path, *name;
    json_t     *j;
    int         n = 0, base = f->n;
    json_object_foreach (root, name, j) {
        if (strcmp(name, "__metadata__") == 0) {
            const char *key;
            json_t     *v;
            if (!json_is_object(j)) return err_set(e, E_FORMAT, "%s: __metadata__ is no object", path);
            json_object_foreach (j, key, v)
                if (!json_is_string(v)) return err_set(e, E_FORMAT, "%s: __metadata__ '%.80s' is no string", path, key);
            continue;
        }
        foreign_tensor t    = { .name = str_of(name) };
        const char    *what = read_entry(j, &t, &x[n]);
        if (what) return err_set(e, E_FORMAT, "%s: tensor '%.80s' %s", path, name, what);
        if (x[n].end > n_data)
            return err_set(e, E_FORMAT, "%s: tensor '%.80s' ends at byte %llu of the data, which has %llu", path, name, (unsigned long long)x[n].end,
                           (unsigned long long)n_data);
        t.bytes     = t.n_bytes ? data + x[n].begin : NULL;
        x[n].tensor = base + n;
        int r       = foreign_add(f, &t, 1, e);
        if (r) return r;
        n++;
    }
    if (n) qsort(x, (size_t)n, sizeof *x, by_place);
    uint64_t at = 0;
    for (int i = 0; i < n; i++) {
        if (x[i].begin != at)
            return err_set(e, E_FORMAT, "%s: tensor '%.80s' begins at byte %llu of the data, the one before ends at %llu (%s)", path,
                           f->t[x[i].tensor].name.s, (unsigned long long)x[i].begin, (unsigned long long)at, x[i].begin < at ? "overlap" : "hole");
        at = x[i].end;
    }
    if (at != n_data) return err_set(e, E_FORMAT, "%s: %llu bytes follow the last tensor", path, (unsigned long long)(n_data - at));
    return OK;
}

int safetensors_read(foreign *f, err *e)
{
    const foreign_file *file = &f->file[f->n_file - 1];
    uint64_t            n    = 0;
    if (file->map.n < 8) return err_set(e, E_FORMAT, "%s: %zu bytes are too few for a safetensors file", file->path, file->map.n);
    for (int i = 7; i >= 0; i--) n = n << 8 | file->map.p[i];
    if (n > file->map.n - 8)
        return err_set(e, E_FORMAT, "%s: the header claims %llu bytes, the file has %zu", file->path, (unsigned long long)n, file->map.n - 8);
    if (n > MAX_HEADER)
        return err_set(e, E_LIMIT, "%s: a header of %llu bytes; %d is the most", file->path, (unsigned long long)n, MAX_HEADER);
    json_error_t je;
    json_t      *root = json_loadb((const char *)file->map.p + 8, (size_t)n, JSON_REJECT_DUPLICATES, &je);
    if (!root) return err_set(e, E_FORMAT, "%s: header: %s (at byte %d)", file->path, je.text, je.position);
    extent *x = NULL;
    int     r = OK;
    if (!json_is_object(root)) r = err_set(e, E_FORMAT, "%s: the header is no JSON object", file->path);
    else if (!(x = malloc((json_object_size(root) + 1) * sizeof *x))) r = err_set(e, E_NOMEM, "%s: out of memory", file->path);
    else r = read_header(f, root, file->map.p + 8 + n, file->map.n - 8 - n, x, e);
    free(x);
    json_decref(root);
    return r;
}

int safetensors_header(const foreign_tensor *t, int n, buf *out, err *e)
{
    json_t  *root = json_object();
    uint64_t at   = 0;
    int      bad  = !root || json_object_set_new(root, "__metadata__", json_pack("{s:s}", "format", "pt"));
    for (int i = 0; i < n && !bad; i++) {
        int      k     = t[i].type == FT_F32 ? 0 : t[i].type == FT_F16 ? 1 : 2;
        uint64_t bytes = dtypes[k].bytes;
        json_t  *shape = json_array();
        for (int d = 0; d < t[i].n_dims; d++) {
            bytes *= t[i].size[d];
            bad |= json_array_append_new(shape, json_integer((json_int_t)t[i].size[d]));
        }
        bad |= json_object_setn_new(root, t[i].name.s, t[i].name.n,
                                    json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtypes[k].name, "shape", shape, "data_offsets", (json_int_t)at,
                                              (json_int_t)(at + bytes)));
        at += bytes;
    }
    char *text = bad ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (!text) return err_set(e, E_NOMEM, "safetensors header: out of memory");
    size_t        len = strlen(text), padded = (len + 7) & ~(size_t)7;
    unsigned char head[8];
    for (int i = 0; i < 8; i++) head[i] = (unsigned char)((uint64_t)padded >> 8 * i);
    buf_add(out, head, sizeof head);
    buf_add(out, text, len);
    for (; len < padded; len++) buf_chr(out, ' ');
    free(text);
    return out->oom ? err_set(e, E_NOMEM, "safetensors header: out of memory") : OK;
}
