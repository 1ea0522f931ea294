/* synth: see synth.h. */
#include "eval/synth.h"

#include <stdlib.h>
#include <string.h>

#include "models/ops.h"

static const struct {
    const char *name;
    int         n_vocab, n_ctx, n_embd, n_head, n_layer;
} sizes[] = {
    { "124M", 50257, 1024, 768, 12, 12 },   { "345M", 50257, 1024, 1024, 16, 24 }, { "774M", 50257, 1024, 1280, 20, 36 },
    { "1558M", 50257, 1024, 1600, 25, 48 }, { "tiny", 500, 128, 64, 4, 2 },
};

int synth_config(const char *size, gpt2_config *c, err *e)
{
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (strcmp(size, sizes[i].name) == 0) {
            *c = (gpt2_config){ .n_vocab = sizes[i].n_vocab, .n_ctx = sizes[i].n_ctx, .n_embd = sizes[i].n_embd, .n_head = sizes[i].n_head,
                                .n_layer = sizes[i].n_layer, .n_inner = 4 * sizes[i].n_embd, .eps = 1e-5f, .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
            return OK;
        }
    return err_set(e, E_ARG, "no size '%s'; there are 124M, 345M, 774M, 1558M and tiny", size);
}

/* n weights from number `at` of tensor t on.  Only sums and products that are exact or rounded once: the same everywhere. */
static void fill(const gpt2_tensor *t, uint64_t seed, uint64_t stream, size_t at, float *out, size_t n)
{
    int norm = strstr(t->hf, "ln_") != NULL, weight = strstr(t->hf, ".weight") != NULL;
    float scale = (strcmp(t->hf, "wpe.weight") == 0 ? 0.01f : 0.02f) * 1.7320508f / 65536.0f; /* four uniform numbers have variance 1/3 */
    for (size_t i = 0; i < n; i++) {
        uint64_t u = rng_u64(seed, stream, at + i);
        int      s = (int)(u & 0xffff) + (int)(u >> 16 & 0xffff) + (int)(u >> 32 & 0xffff) + (int)(u >> 48) - 2 * 65535;
        out[i]     = norm ? (float)weight : (float)s * scale;
    }
}

/* A tensor, some rows at a time, made and encoded by all threads. */
static int write_tensor(gguf_writer *w, const gpt2_tensor *t, int type, uint64_t seed, uint64_t stream, err *e)
{
    enum { STEP = 1 << 20 }; /* values */
    size_t cols = (size_t)t->cols, rows = (size_t)t->rows, row = gguf_row_bytes(type, cols), step = STEP / cols ? STEP / cols : 1;
    float         *x    = malloc((step < rows ? step : rows) * cols * sizeof *x);
    unsigned char *data = malloc((step < rows ? step : rows) * row);
    int            r    = x && data ? OK : err_set(e, E_NOMEM, "out of memory for %zu values of %s", step * cols, t->gguf);
    for (size_t r0 = 0; r0 < rows && r == OK; r0 += step) {
        size_t n = rows - r0 < step ? rows - r0 : step;
#pragma omp parallel for schedule(static)
        for (size_t i = 0; i < n; i++) {
            fill(t, seed, stream, (r0 + i) * cols, x + i * cols, cols);
            gpt2_row_encode(type, x + i * cols, data + i * row, cols);
        }
        r = gguf_data(w, data, n * row, e);
    }
    free(x);
    free(data);
    return r;
}

static int write_all(gguf_writer *w, const gpt2_config *c, const gpt2_tensor *list, int n, const int *types, uint64_t seed, err *e)
{
    gpt2_meta m = { .name = "random weights", .note = "made for measuring speed: it knows nothing" };
    gpt2_write_keys(w, c, NULL, &m, types);
    gpt2_write_declare(w, c, types);
    for (int i = 0; i < n; i++) {
        int r = write_tensor(w, &list[i], types[i], seed, (uint64_t)i, e);
        if (r) return r;
    }
    return gguf_finish(w, e);
}

int synth_write(const char *path, const gpt2_config *c, int type, uint64_t seed, err *e)
{
    gpt2_tensor *list;
    gguf_writer *w = NULL;
    size_t       n_params;
    int          r = gpt2_config_check(c, e), n, *types = NULL;
    if (r) return r;
    if ((n = gpt2_tensors(c, &list, &n_params, e)) < 0) return n;
    if (!(types = calloc((size_t)n, sizeof *types))) r = err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < n && r == OK; i++) {
        types[i] = list[i].vector || strcmp(list[i].hf, "wpe.weight") == 0 ? GT_F32 : type;
        if (!gguf_row_bytes(types[i], (uint64_t)list[i].cols))
            r = err_set(e, E_ARG, "%s: rows of %d values cannot be %s", list[i].gguf, list[i].cols, gguf_type_name(type));
    }
    if (r == OK) r = gguf_create(&w, path, e);
    if (r == OK && (r = write_all(w, c, list, n, types, seed, e))) gguf_discard(w);
    free(types);
    free(list);
    return r;
}
