/* compress: see compress.h. */
#include "models/compress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int type_for(const gpt2_tensor *t, int type, const compress_choice *choice, int n_choice)
{
    if (t->vector || strcmp(t->gguf, "position_embd.weight") == 0) return GT_F32;
    for (int i = 0; i < n_choice; i++)
        if (strstr(t->gguf, choice[i].part)) type = choice[i].type;
    return gguf_row_bytes(type, (uint64_t)t->cols) ? type : GT_F16;
}

static int check_choices(const gpt2_tensor *list, int n, const compress_choice *choice, int n_choice, err *e)
{
    for (int i = 0; i < n_choice; i++) {
        int hits = 0;
        for (int k = 0; k < n; k++) hits += !list[k].vector && strstr(list[k].gguf, choice[i].part) != NULL;
        if (!hits) return err_set(e, E_ARG, "no matrix has '%s' in its name", choice[i].part);
    }
    return OK;
}

/* What rounding to the type does to a matrix. */
static double error_of(const gpt2_tensor *t, const float *x, int type, unsigned char *row, float *back)
{
    double sum = 0, off = 0;
    for (int r = 0; r < t->rows; r++) {
        const float *from = x + (size_t)r * (size_t)t->cols;
        gpt2_row_encode(type, from, row, (size_t)t->cols);
        gpt2_row_decode(type, row, back, (size_t)t->cols);
        for (int i = 0; i < t->cols; i++) {
            double d = (double)back[i] - (double)from[i];
            sum += (double)from[i] * (double)from[i];
            off += d * d;
        }
    }
    return sum > 0 ? sqrt(off / sum) : 0;
}

static int make_report(const gguf *g, const gpt2_tensor *list, int n, const int *types, const float *slab, compress_line **report, int *n_lines, err *e)
{
    int widest = 1;
    for (int i = 0; i < n; i++) widest = list[i].cols > widest ? list[i].cols : widest;
    compress_line *line = calloc((size_t)n, sizeof *line);
    unsigned char *row  = malloc((size_t)widest * sizeof(float));
    float         *back = malloc((size_t)widest * sizeof(float));
    int            k    = 0;
    for (int i = 0; line && row && back && i < n; i++) {
        const gguf_tensor *old = gguf_find(g, list[i].gguf);
        if (list[i].vector || !old) continue;
        compress_line *l = &line[k++];
        memcpy(l->name, list[i].gguf, sizeof l->name);
        l->from       = old->type;
        l->to         = types[i];
        l->bytes_from = old->n_bytes;
        l->bytes_to   = gguf_row_bytes(types[i], (uint64_t)list[i].cols) * (size_t)list[i].rows;
        l->error      = error_of(&list[i], slab + list[i].offset, types[i], row, back);
    }
    int r = line && row && back ? OK : err_set(e, E_NOMEM, "out of memory");
    free(row);
    free(back);
    if (r) {
        free(line);
        return r;
    }
    *report  = line;
    *n_lines = k;
    return OK;
}

/* Another text for one of the model's own; NULL leaves it. */
static int put_text(char *to, size_t room, const char *text, const char *what, err *e)
{
    if (!text) return OK;
    if (strlen(text) >= room) return err_set(e, E_ARG, "the %s has %zu bytes, wanted at most %zu", what, strlen(text), room - 1);
    strcpy(to, text);
    return OK;
}

static int quantize(const gguf *g, const char *out, int type, const compress_choice *choice, int n_choice, const char *name, const char *note,
                    compress_line **report, int *n_lines, err *e)
{
    gpt2_config  c;
    gpt2_meta    meta;
    tokenizer   *tok  = NULL;
    gpt2_tensor *list = NULL;
    float       *slab = NULL;
    int         *types = NULL, n = 0;
    size_t       n_params = 0, bytes;
    int          r = gpt2_read_config(g, &c, e);
    if (r == OK) r = tokenizer_from_gguf(&tok, g, e);
    if (r == OK) r = gpt2_read_meta(g, tok, &meta, e);
    if (r == OK) r = put_text(meta.name, sizeof meta.name, name, "name", e);
    if (r == OK) r = put_text(meta.note, sizeof meta.note, note, "note", e);
    if (r == OK) r = (n = gpt2_tensors(&c, &list, &n_params, e)) < 0 ? n : OK;
    if (r == OK) r = check_choices(list, n, choice, n_choice, e);
    if (r == OK) {
        types = calloc((size_t)n, sizeof *types);
        slab  = mul_size(n_params, sizeof *slab, &bytes) ? NULL : malloc(bytes);
        if (!types || !slab) r = err_set(e, E_NOMEM, "%s: out of memory for %zu weights", gguf_path(g), n_params);
    }
    if (r == OK) r = gpt2_read_slab(g, &c, slab, e);
    for (int i = 0; r == OK && i < n; i++) types[i] = type_for(&list[i], type, choice, n_choice);
    if (r == OK) r = make_report(g, list, n, types, slab, report, n_lines, e);
    if (r == OK && (r = gpt2_save(out, &c, slab, tok, &meta, types, e)) != OK) {
        free(*report);
        *report = NULL;
    }
    free(types);
    free(slab);
    free(list);
    tokenizer_close(tok);
    return r;
}

int compress_quantize(const char *in, const char *out, int type, const compress_choice *choice, int n_choice, const char *name, const char *note,
                      compress_line **report, int *n, err *e)
{
    gguf *g;
    *report = NULL;
    *n      = 0;
    int r   = gguf_open(&g, in, e);
    if (r) return r;
    r = quantize(g, out, type, choice, n_choice, name, note, report, n, e);
    gguf_close(g);
    return r;
}
