/* import: see import.h.  Reads foreign names, shapes and layouts and writes one GGUF, tensor by tensor: at most two storages and a few
 * rows are in memory.  Refuses what would be silently wrong: unknown or missing tensors, other shapes, a vocabulary of another
 * size, weights that are not finite, a head that contradicts its config. */
#include "models/import.h"

#include "models/foreign.h"
#include "models/hfconfig.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { PATH = 4096, ROWS = 16 /* converted at a time */ };

/* ---- files ---- */

static int join(char out[PATH], const char *dir, const char *name, err *e)
{
    size_t n     = strlen(dir);
    int    slash = n && dir[n - 1] != '/';
    if (snprintf(out, PATH, "%s%s%s", dir, slash ? "/" : "", name) >= PATH) return err_set(e, E_ARG, "%.80s…: the path is too long", dir);
    return OK;
}

/* 1 when dir/name is there; its path in out. */
static int have(char out[PATH], const char *dir, const char *name)
{
    struct stat st;
    return join(out, dir, name, NULL) == OK && stat(out, &st) == 0;
}

static int ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

/* The only *.pkl of a folder (DialoGPT's releases): 1, 0 when there is none, < 0. */
static int only_pkl(char out[PATH], const char *dir, err *e)
{
    DIR *d = opendir(dir);
    int  n = 0, r = OK;
    if (!d) return err_set(e, E_IO, "%s: %s", dir, strerror(errno));
    for (struct dirent *f; r == OK && (f = readdir(d));)
        if (ends_with(f->d_name, ".pkl") && n++ == 0) r = join(out, dir, f->d_name, e);
    closedir(d);
    if (r) return r;
    return n > 1 ? err_set(e, E_ARG, "%s: %d *.pkl files; name the one to import", dir, n) : n;
}

/* src -> its folder and its weight file (or index of shards). */
static int locate(const char *src, char dir[PATH], char weights[PATH], err *e)
{
    struct stat st;
    int         r;
    if (stat(src, &st)) return err_set(e, E_IO, "%s: %s", src, strerror(errno));
    if (!S_ISDIR(st.st_mode)) {
        if (strlen(src) >= PATH) return err_set(e, E_ARG, "%.80s…: the path is too long", src);
        strcpy(weights, src);
        strcpy(dir, src);
        char *slash = strrchr(dir, '/');
        if (slash) slash[slash == dir] = 0;
        else strcpy(dir, ".");
        return OK;
    }
    static const char *const names[] = { "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json" };
    if ((r = join(dir, src, "", e))) return r;
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--) dir[n - 1] = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (have(weights, dir, names[i])) return OK;
    if ((r = only_pkl(weights, dir, e)) < 0) return r;
    return r ? OK : err_set(e, E_IO, "%s: no model.safetensors, pytorch_model.bin or *.pkl in this folder", dir);
}

static int by_file(const void *a, const void *b) { return strcmp(((const hf_shard *)a)->file.s, ((const hf_shard *)b)->file.s); }

/* All shards of an index; every tensor must be in the file that the index says. */
static int open_shards(foreign *f, const char *dir, const char *index, err *e)
{
    arena     mem = { 0 };
    hf_shard *v   = NULL;
    size_t    n   = 0;
    char      path[PATH];
    int       r   = hfconfig_index(index, &mem, &v, &n, e);
    if (!r) qsort(v, n, sizeof *v, by_file);
    for (size_t i = 0; i < n && !r; i++)
        if (i == 0 || strcmp(v[i - 1].file.s, v[i].file.s))
            if ((r = join(path, dir, v[i].file.s, e)) == OK) r = foreign_add_file(f, path, e);
    if (!r) r = foreign_sort(f, e);
    for (size_t i = 0; i < n && !r; i++) {
        const foreign_tensor *t = foreign_find(f, v[i].name);
        if (!t || join(path, dir, v[i].file.s, e) || strcmp(foreign_path(f, t), path))
            r = err_set(e, E_FORMAT, "%s: tensor '%.80s' is not in %s", index, v[i].name.s, v[i].file.s);
    }
    arena_free(&mem);
    return r;
}

/* ---- names ---- */

static void strip(str *s, str prefix)
{
    if (str_starts(*s, prefix)) *s = (str){ s->s + prefix.n, s->n - prefix.n };
}

/* h.N.attn.bias and h.N.attn.masked_bias: the causal mask, stored as if it were a weight.  Not h.N.attn.c_attn.bias. */
static int is_mask(str s)
{
    if (!str_starts(s, STR("h."))) return 0;
    strip(&s, STR("h."));
    size_t digits = 0;
    while (digits < s.n && s.s[digits] >= '0' && s.s[digits] <= '9') digits++;
    s = (str){ s.s + digits, s.n - digits };
    return digits && (str_eq(s, STR(".attn.bias")) || str_eq(s, STR(".attn.masked_bias")));
}

/* Names as the tensor table has them, masks dropped, sorted. */
static int rename_all(foreign *f, err *e)
{
    int n = 0;
    for (int i = 0; i < f->n; i++) {
        foreign_tensor t = f->t[i];
        while (str_starts(t.name, STR("module."))) strip(&t.name, STR("module."));
        strip(&t.name, STR("transformer."));
        if (str_eq(t.name, STR("lm_head.decoder.weight"))) t.name = STR("lm_head.weight");
        if (!is_mask(t.name)) f->t[n++] = t;
    }
    f->n = n;
    return foreign_sort(f, e);
}

/* ---- matching ---- */

/* Tensor t of the table among the foreign ones, of the right type and shape. */
static foreign_tensor *match(const foreign *f, const gpt2_tensor *t, err *e)
{
    foreign_tensor *x = foreign_find(f, str_of(t->hf));
    if (!x) {
        err_set(e, E_FORMAT, "%s: tensor %s is missing", f->file[0].path, t->hf);
        return NULL;
    }
    if (x->type == FT_OTHER) {
        err_set(e, E_FORMAT, "%s: tensor %s holds integers or bools, not weights", foreign_path(f, x), t->hf);
        return NULL;
    }
    uint64_t rows = (uint64_t)t->rows, cols = (uint64_t)t->cols;
    int      flip = (t->flags & T_HF_TRANSPOSED) != 0, fits;
    if (t->vector) fits = x->n_dims == 1 && x->size[0] == cols;
    else fits = x->n_dims == 2 && x->size[flip] == rows && x->size[!flip] == cols;
    if (!fits) {
        char shape[128];
        foreign_shape(x, shape);
        if (t->vector)
            err_set(e, E_FORMAT, "%s: tensor %s has shape %s, config.json wants (%d,)", foreign_path(f, x), t->hf, shape, t->cols);
        else
            err_set(e, E_FORMAT, "%s: tensor %s has shape %s, config.json wants (%d, %d)", foreign_path(f, x), t->hf, shape,
                    flip ? t->cols : t->rows, flip ? t->rows : t->cols);
        return NULL;
    }
    return x;
}

/* 1 when two (rows, cols) matrices hold the same numbers, 0, < 0. */
static int equal(foreign *f, const foreign_tensor *a, const foreign_tensor *b, size_t rows, size_t cols, err *e)
{
    if (a->bytes == b->bytes && a->file == b->file && a->entry == b->entry && a->first == b->first && a->type == b->type &&
        a->stride[0] == b->stride[0] && a->stride[1] == b->stride[1])
        return 1; /* two names of one storage */
    float *x = calloc(2 * ROWS * cols, sizeof *x);
    int    r = x ? OK : err_set(e, E_NOMEM, "out of memory"), same = 1;
    for (size_t i = 0; i < rows && same && !r; i += ROWS) {
        size_t n = rows - i < ROWS ? rows - i : ROWS;
        if ((r = foreign_rows(f, a, 0, i, n, cols, x, e)) == OK) r = foreign_rows(f, b, 0, i, n, cols, x + n * cols, e);
        for (size_t k = 0; !r && same && k < n * cols; k++) same = x[k] == x[n * cols + k];
    }
    free(x);
    return r ? r : same;
}

/* Name a tensor of the file that is not among the n found ones: something this program would silently leave out of the model. */
static int complain_of_stranger(const foreign *f, foreign_tensor *const *found, int n, err *e)
{
    unsigned char *known = calloc((size_t)f->n, 1);
    if (!known) return err_set(e, E_NOMEM, "out of memory");
    int i = 0;
    for (int k = 0; k < n; k++) known[found[k] - f->t] = 1;
    while (known[i]) i++;
    free(known);
    return err_set(e, E_FORMAT, "%s: tensor '%.*s' is no part of a GPT-2 with this config.json", foreign_path(f, &f->t[i]),
                   (int)(f->t[i].name.n > 80 ? 80 : f->t[i].name.n), f->t[i].name.s);
}

/* The tensors of the config, each with its foreign counterpart; decides c->tied. */
static int match_all(foreign *f, hf_config *h, gpt2_tensor **list, foreign_tensor ***found, err *e)
{
    size_t   n_params, bytes = 0;
    uint64_t limit = foreign_bytes(f);
    int      n, used = 0, r;
    h->c.tied = 0;
    if ((n = gpt2_tensors(&h->c, list, &n_params, e)) < 0) return n;
    gpt2_tensor *t = *list;
    *found         = calloc((size_t)n, sizeof **found);
    if (!*found) return err_set(e, E_NOMEM, "out of memory");
    int headless = foreign_find(f, str_of(t[n - 1].hf)) == NULL; /* lm_head is the last */
    if (headless && h->tied == 0)
        return err_set(e, E_FORMAT, "%s: tensor %s is missing, and config.json says tie_word_embeddings false", f->file[0].path, t[n - 1].hf);
    for (int i = 0; i < n - headless; i++) {
        foreign_tensor *x = (*found)[i] = match(f, &t[i], e);
        if (!x) return E_FORMAT;
        used++;
        /* honest files hold each number once (but for the head): views that overlap could blow a small file up without end */
        size_t size = (size_t)t[i].rows * (size_t)t[i].cols * (x->type == FT_F64 ? 8 : x->type == FT_F32 ? 4 : 2);
        if (i < n - 1 && (add_size(bytes, size, &bytes) || bytes > limit))
            return err_set(e, E_FORMAT, "%s: the tensors are views of each other: they need more bytes than the file has", foreign_path(f, x));
    }
    if (used < f->n) return complain_of_stranger(f, *found, n - headless, e);
    r = headless ? 1 : equal(f, (*found)[0], (*found)[n - 1], (size_t)t[0].rows, (size_t)t[0].cols, e);
    if (r < 0) return r;
    if (!r && h->tied == 1)
        return err_set(e, E_FORMAT, "%s: lm_head.weight differs from wte.weight, and config.json says tie_word_embeddings true", f->file[0].path);
    h->c.tied = r;
    return n - r;
}

/* ---- vocabulary and layout ---- */

/* Vocabulary files of a folder: *t stays NULL when there are none. */
static int vocab_of_folder(const char *dir, int lower, tokenizer **t, err *e)
{
    char json[PATH], merges[PATH], txt[PATH], more[PATH];
    int  bpe = have(json, dir, "vocab.json"), wordpiece = have(txt, dir, "vocab.txt"), r;
    if (bpe && wordpiece) return err_set(e, E_FORMAT, "%s: both vocab.json and vocab.txt; name one with --vocab", dir);
    if (bpe) {
        if ((r = join(merges, dir, "merges.txt", e))) return r;
        return tokenizer_open_bpe(t, json, merges, e);
    }
    if (wordpiece) {
        if ((r = join(more, dir, "tokenizer_config.json", e))) return r;
        if (lower < 0 && (r = hfconfig_lower(more, &lower, e))) return r;
        return tokenizer_open_wordpiece(t, txt, lower != 0, e);
    }
    if (have(more, dir, "tokenizer.json"))
        return err_set(e, E_FORMAT, "%s: tokenizer.json alone cannot be read; vocab.json and merges.txt, or vocab.txt, are wanted (--vocab)", dir);
    return OK;
}

static int open_vocab(const char *dir, const import_opts *o, tokenizer **t, err *e)
{
    struct stat st;
    char        beside[PATH], path[PATH];
    int         lower = o->lower, r;
    *t                = NULL;
    if (!o->vocab) return vocab_of_folder(dir, lower, t, e);
    if (stat(o->vocab, &st)) return err_set(e, E_IO, "%s: %s", o->vocab, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        r = vocab_of_folder(o->vocab, lower, t, e);
        return r || *t ? r : err_set(e, E_IO, "%s: no vocab.json or vocab.txt in this folder", o->vocab);
    }
    if (strlen(o->vocab) >= PATH) return err_set(e, E_ARG, "--vocab: the path is too long");
    strcpy(beside, o->vocab);
    char *slash = strrchr(beside, '/');
    if (slash) slash[slash == beside] = 0;
    else strcpy(beside, ".");
    if (ends_with(o->vocab, ".json")) {
        if ((r = join(path, beside, "merges.txt", e))) return r;
        return tokenizer_open_bpe(t, o->vocab, path, e);
    }
    if ((r = join(path, beside, "tokenizer_config.json", e))) return r;
    if (lower < 0 && (r = hfconfig_lower(path, &lower, e))) return r;
    return tokenizer_open_wordpiece(t, o->vocab, lower != 0, e);
}

/* Layout and separators: stated, or from the vocabulary.  Special ids come from the vocabulary; config.json's are believed only where
 * there is no vocabulary, because GPT2-chitchat's say 50256 for a [SEP] of 102. */
static int choose_format(const hf_config *h, const tokenizer *t, int stated, format *f, err *e)
{
    int         kind = stated ? stated : h->about.fmt.kind;
    special_ids s    = { -1, -1, -1, -1, -1 };
    *f               = (format){ 0, -1, -1 };
    if (t) s = tokenizer_specials(t);
    else {
        s.bos = h->bos;
        s.eos = h->eos;
    }
    if (!kind && t && tokenizer_kind(t) == TOK_WORDPIECE && s.bos >= 0 && s.eos >= 0) kind = FORMAT_CLS_SEP;
    if (!kind && t && tokenizer_kind(t) == TOK_BPE && s.eos >= 0) kind = FORMAT_DIALOGPT;
    if (!kind) return OK;
    if (!t && kind == FORMAT_CLS_SEP && stated)
        return err_set(e, E_ARG, "format cls_sep wants a vocabulary: config.json does not say which ids [CLS] and [SEP] have");
    if (s.eos < 0 || (kind == FORMAT_CLS_SEP && s.bos < 0))
        return err_set(e, E_ARG, "format %s: the %s no %s", format_name(kind), t ? "vocabulary has" : "config.json names",
                       !t ? "eos_token_id" : kind == FORMAT_CLS_SEP ? "[CLS] and [SEP]" : "<|endoftext|>");
    *f = (format){ kind, kind == FORMAT_CLS_SEP ? s.bos : -1, s.eos };
    return OK;
}

static void choose_name(const char *dir, const import_opts *o, gpt2_meta *m)
{
    if (!o->name && m->name[0]) return;
    const char *slash = strrchr(dir, '/'), *name = o->name ? o->name : slash ? slash + 1 : dir;
    if (!o->name && (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) name = "";
    size_t n = 0, step, len = strlen(name);
    uint32_t cp;
    while (n < len && n + (step = utf8_next(name + n, len - n, &cp)) < sizeof m->name && cp != UTF8_BAD) n += step;
    memcpy(m->name, name, n);
    m->name[n] = 0;
}

/* ---- writing ---- */

static int write_tensor(gguf_writer *w, foreign *f, const foreign_tensor *x, const gpt2_tensor *t, int type, err *e)
{
    size_t cols = (size_t)t->cols, rows = (size_t)t->rows, row_bytes = gguf_row_bytes(type, cols), n = rows < ROWS ? rows : ROWS;
    int    r    = OK;
    float *v    = calloc(n * cols, sizeof *v);
    unsigned char *raw = malloc(row_bytes);
    if (!v || !raw) r = err_set(e, E_NOMEM, "no memory for rows of %s", t->hf);
    for (size_t i = 0; i < rows && !r; i += n) {
        if (n > rows - i) n = rows - i;
        r = foreign_rows(f, x, (t->flags & T_HF_TRANSPOSED) != 0, i, n, cols, v, e);
        for (size_t k = 0; k < n && !r; k++) {
            gpt2_row_encode(type, v + k * cols, raw, cols);
            r = gguf_data(w, raw, row_bytes, e);
        }
    }
    free(v);
    free(raw);
    return r;
}

static int write_model(const char *path, foreign *f, const hf_config *h, const tokenizer *t, const gpt2_meta *m, const gpt2_tensor *list,
                       foreign_tensor *const *found, int n, err *e)
{
    gguf_writer *w     = NULL;
    int         *types = calloc((size_t)n, sizeof *types);
    if (!types) return err_set(e, E_NOMEM, "out of memory");
    for (int i = 0; i < n; i++)
        types[i] = list[i].vector || strcmp(list[i].hf, "wpe.weight") == 0 ? GT_F32
                   : found[i]->type == FT_F16                             ? GT_F16
                   : found[i]->type == FT_BF16                            ? GT_BF16
                                                                          : GT_F32;
    int r = gguf_create(&w, path, e);
    if (!r) {
        gpt2_write_keys(w, &h->c, t, m, types);
        gpt2_write_declare(w, &h->c, types);
    }
    for (int i = 0; i < n && !r; i++) r = write_tensor(w, f, found[i], &list[i], types[i], e);
    if (!r) r = gguf_finish(w, e);
    if (r) gguf_discard(w);
    free(types);
    return r;
}

int import_model(const char *src, const char *out_gguf, const import_opts *opts, err *e)
{
    import_opts      o    = opts ? *opts : (import_opts){ .lower = -1 };
    char             dir[PATH], weights[PATH], config[PATH];
    foreign          f     = { 0 };
    hf_config        h     = { 0 };
    tokenizer       *t     = NULL;
    gpt2_tensor     *list  = NULL;
    foreign_tensor **found = NULL;
    int              n = 0, r;
    if ((r = locate(src, dir, weights, e)) || (r = join(config, dir, "config.json", e)) || (r = hfconfig_read(config, &h, e))) return r;
    r = ends_with(weights, ".index.json") ? open_shards(&f, dir, weights, e) : foreign_add_file(&f, weights, e);
    if (!r) r = rename_all(&f, e);
    if (!r && (n = match_all(&f, &h, &list, &found, e)) < 0) r = n;
    if (!r) r = open_vocab(dir, &o, &t, e);
    if (!r && t && tokenizer_size(t) != h.c.n_vocab)
        r = err_set(e, E_FORMAT, "the vocabulary of %s has %d tokens, vocab_size in %s is %d", o.vocab ? o.vocab : dir, tokenizer_size(t), config,
                    h.c.n_vocab);
    gpt2_meta m = h.about;
    if (!r && (r = choose_format(&h, t, o.format, &m.fmt, e))) err_prefix(e, "%s", src);
    if (!r) {
        m.role = o.role ? o.role : m.role ? m.role : ROLE_FORWARD;
        choose_name(dir, &o, &m);
        r = write_model(out_gguf, &f, &h, t, &m, list, found, n, e);
    }
    tokenizer_close(t);
    free(found);
    free(list);
    foreign_close(&f);
    return r;
}
