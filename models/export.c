/* export: a GGUF -> a Hugging Face folder: config.json, model.safetensors, the vocabulary.  The declaration is in import.h; the way back of
 * import.c, whose result it turns into the same bytes again. */
#include "models/import.h"

#include "models/foreign.h"
#include "models/hfconfig.h"
#include "models/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 4096 };

/* The type a tensor has over there: quantised ones become f32. */
static int type_there(int type) { return type == GT_F16 ? FT_F16 : type == GT_BF16 ? FT_BF16 : FT_F32; }
static int type_here(int type) { return type == GT_F16 || type == GT_BF16 ? type : GT_F32; }

/* One tensor (rows, cols), turned to (cols, rows) for Conv1D. */
static int write_tensor(outfile *o, const gpt2_tensor *t, const gguf_tensor *g, err *e)
{
    size_t rows = (size_t)t->rows, cols = (size_t)t->cols, row_bytes = gguf_row_bytes(g->type, cols);
    int    to = type_here(g->type), flip = (t->flags & T_HF_TRANSPOSED) != 0, r = OK;
    size_t width = flip ? rows : cols, height = flip ? cols : rows;
    float *v = calloc(flip ? rows * cols : cols, sizeof *v), *line = calloc(width, sizeof *line);
    unsigned char *raw = malloc(gguf_row_bytes(to, width));
    if (!v || !line || !raw) r = err_set(e, E_NOMEM, "no memory for tensor %s", t->hf);
    for (size_t i = 0; flip && i < rows && !r; i++) gpt2_row_decode(g->type, g->data + i * row_bytes, v + i * cols, cols);
    for (size_t i = 0; i < height && !r; i++) {
        if (flip)
            for (size_t k = 0; k < width; k++) line[k] = v[k * cols + i];
        else gpt2_row_decode(g->type, g->data + i * row_bytes, line, cols);
        gpt2_row_encode(to, line, raw, width);
        r = out_write(o, raw, gguf_row_bytes(to, width), e);
    }
    free(v);
    free(line);
    free(raw);
    return r;
}

static int write_weights(const char *path, const gguf *g, const gpt2_tensor *list, int n, err *e)
{
    foreign_tensor *head = calloc((size_t)n, sizeof *head);
    arena           mem  = { 0 };
    buf             b    = { 0 };
    outfile        *o    = NULL;
    int             r    = head ? OK : err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < n && !r; i++) {
        char               name[128];
        const gguf_tensor *x = gpt2_file_tensor(g, &list[i], e);
        if (!x) {
            r = E_FORMAT;
            break;
        }
        snprintf(name, sizeof name, "%s%s", list[i].flags & T_OPTIONAL ? "" : "transformer.", list[i].hf);
        int flip = (list[i].flags & T_HF_TRANSPOSED) != 0;
        head[i]  = (foreign_tensor){ .name = arena_str(&mem, str_of(name), e), .type = type_there(x->type), .n_dims = list[i].vector ? 1 : 2 };
        head[i].size[flip]  = (uint64_t)(list[i].vector ? list[i].cols : list[i].rows);
        if (!list[i].vector) head[i].size[!flip] = (uint64_t)list[i].cols;
        if (!head[i].name.s) r = E_NOMEM;
    }
    if (!r) r = safetensors_header(head, n, &b, e);
    if (!r) r = out_open(&o, path, e);
    if (!r) r = out_write(o, b.s, b.n, e);
    for (int i = 0; i < n && !r; i++) r = write_tensor(o, &list[i], gpt2_file_tensor(g, &list[i], e), e);
    if (!r) r = out_commit(o, e);
    if (r) out_abort(o);
    buf_free(&b);
    arena_free(&mem);
    free(head);
    return r;
}

/* What most numbers are stored as, in Hugging Face's words. */
static const char *torch_dtype(const gguf *g, const gpt2_tensor *list, int n)
{
    size_t count[3] = { 0, 0, 0 };
    for (int i = 0; i < n; i++) {
        const gguf_tensor *x = gguf_find(g, list[i].gguf);
        if (x) count[type_there(x->type) - FT_F32] += (size_t)list[i].rows * (size_t)list[i].cols;
    }
    return count[0] >= count[1] && count[0] >= count[2] ? "float32" : count[1] >= count[2] ? "float16" : "bfloat16";
}

int export_model(const char *in_gguf, const char *out_dir, err *e)
{
    gguf        *g    = NULL;
    tokenizer   *t    = NULL;
    gpt2_tensor *list = NULL;
    gpt2_config  c;
    gpt2_meta    m;
    size_t       n_params;
    char         path[PATH];
    int          n = 0, r;
    if (strlen(out_dir) > PATH - 32) return err_set(e, E_ARG, "%.80s…: the path is too long", out_dir);
    if ((r = gguf_open(&g, in_gguf, e)) == OK && (r = gpt2_read_config(g, &c, e)) == OK && (r = tokenizer_from_gguf(&t, g, e)) == OK &&
        (r = gpt2_read_meta(g, t, &m, e)) == OK && (n = gpt2_tensors(&c, &list, &n_params, e)) < 0)
        r = n;
    if (!r && t && tokenizer_size(t) != c.n_vocab)
        r = err_set(e, E_FORMAT, "%s: %d tokens in the vocabulary, %d rows in token_embd.weight", in_gguf, tokenizer_size(t), c.n_vocab);
    if (!r && mkdir(out_dir, 0777) && errno != EEXIST) r = err_set(e, E_IO, "%s: %s", out_dir, strerror(errno));
    if (!r) {
        snprintf(path, sizeof path, "%s/model.safetensors", out_dir);
        r = write_weights(path, g, list, n, e);
    }
    if (!r && t) r = tokenizer_export(t, out_dir, e);
    if (!r) {
        snprintf(path, sizeof path, "%s/config.json", out_dir);
        r = hfconfig_write(path, &c, &m, t, torch_dtype(g, list, n), e);
    }
    free(list);
    tokenizer_close(t);
    gguf_close(g);
    return r;
}
