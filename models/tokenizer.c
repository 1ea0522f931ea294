/* tokenizer: see tokenizer.h.  Owns the type: string table, special tokens, digest, and the tokenizer.* keys of a GGUF.  The
 * algorithms are in bpe.c and wordpiece.c, vocabulary files in vocab.c, training in vocab_build.c.
 * Refuses: tokens that are not UTF-8, longer than 1024 bytes or with control characters; BPE without a token for each of the 256
 * bytes or with a token twice; WordPiece without [UNK]. */
#include "models/tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- building the type ----------------------------------------------------------------------------------------- */

shown show_str(str s)
{
    shown  v = { { 0 } };
    size_t n = 0, k;
    while (n < s.n && n < 40) {
        uint32_t cp;
        k = utf8_next(s.s + n, s.n - n, &cp);
        if (n + k > 40) break;
        n += k;
    }
    memcpy(v.s, s.s, n);
    if (n < s.n) memcpy(v.s + n, "…", 3);
    return v;
}

int tok_new(tokenizer **out, int kind, int lower, size_t n, const char *where, err *e)
{
    *out = NULL;
    if (n == 0) return err_set(e, E_FORMAT, "%s: the vocabulary is empty", where);
    if (n > MAX_TOKENS) return err_set(e, E_LIMIT, "%s: %zu tokens, the limit is %d", where, n, MAX_TOKENS);
    tokenizer *t = calloc(1, sizeof *t);
    if (!t) return err_set(e, E_NOMEM, "%s: out of memory", where);
    t->kind  = kind;
    t->lower = kind == TOK_WORDPIECE && lower;
    t->n     = (int)n;
    t->sp    = (special_ids){ -1, -1, -1, -1, -1 };
    t->tok   = arena_new(&t->mem, n, sizeof *t->tok);
    t->disk  = arena_new(&t->mem, n, sizeof *t->disk);
    t->type  = arena_new(&t->mem, n, sizeof *t->type);
    if (!t->tok || !t->disk || !t->type) {
        tokenizer_close(t);
        return err_set(e, E_NOMEM, "%s: out of memory for %zu tokens", where, n);
    }
    *out = t;
    return OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    arena_free(&t->mem);
    free(t->slot);
    free(t->pair);
    free(t);
}

static const str prefix = { "\xE2\x96\x81", 3 }; /* U+2581, before every GGUF token that starts a word */

int tok_set(tokenizer *t, int id, str s, const char *where, err *e)
{
    if (s.n > MAX_TOKEN_BYTES) return err_set(e, E_FORMAT, "%s: token %d has %zu bytes, the limit is %d", where, id, s.n, MAX_TOKEN_BYTES);
    if (!utf8_valid(s)) return err_set(e, E_FORMAT, "%s: token %d is not valid UTF-8", where, id);
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.s[i] < 32 || s.s[i] == 127)
            return err_set(e, E_FORMAT, "%s: token %d has the control character 0x%02x", where, id, (unsigned)(unsigned char)s.s[i]);
    char *p = arena_new(&t->mem, s.n + prefix.n + 1, 1);
    if (!p) return err_set(e, E_NOMEM, "%s: out of memory for tokens", where);
    memcpy(p, prefix.s, prefix.n);
    if (s.n) memcpy(p + prefix.n, s.s, s.n);
    t->tok[id]  = (str){ p + prefix.n, s.n };
    t->disk[id] = (str){ p, s.n + prefix.n };
    return OK;
}

/* [CLS], [unused7], [speaker1]: cannot come out of a text, as brackets are words of their own; and <|endoftext|> and its like, which
 * the split pattern cuts. */
static int looks_special(int kind, str s)
{
    const char *open = kind == TOK_BPE ? "<|" : "[", *close = kind == TOK_BPE ? "|>" : "]";
    size_t      k = strlen(open);
    if (s.n <= 2 * k || memcmp(s.s, open, k) || memcmp(s.s + s.n - k, close, k)) return 0;
    for (size_t i = k; i < s.n - k; i++)
        if (!memchr("_-", s.s[i], 2) && !(uni_class((unsigned char)s.s[i]) & (UC_LETTER | UC_NUMBER))) return 0;
    return 1;
}

int tok_lookup(const tokenizer *t, uint64_t h, str pre, str s)
{
    for (size_t i = (size_t)(h ^ h >> 32) & t->mask;; i = (i + 1) & t->mask) {
        int id = t->slot[i];
        if (id < 0) return -1;
        str v = t->tok[id];
        if (v.n == pre.n + s.n && memcmp(v.s, pre.s, pre.n) == 0 && memcmp(v.s + pre.n, s.s, s.n) == 0) return id;
    }
}

static int index_strings(tokenizer *t, const char *where, err *e)
{
    size_t size = 16;
    while (size < (size_t)t->n * 2) size *= 2;
    if (!(t->slot = malloc(size * sizeof *t->slot))) return err_set(e, E_NOMEM, "%s: out of memory for %d tokens", where, t->n);
    t->mask = size - 1;
    for (size_t i = 0; i < size; i++) t->slot[i] = -1;
    for (int id = 0; id < t->n; id++) {
        str      s = t->tok[id];
        uint64_t h = tok_hash(TOK_HASH0, s.s, s.n);
        size_t   i = (size_t)(h ^ h >> 32) & t->mask;
        while (t->slot[i] >= 0 && !str_eq(t->tok[t->slot[i]], s)) i = (i + 1) & t->mask;
        if (t->slot[i] >= 0 && t->kind == TOK_BPE)
            return err_set(e, E_FORMAT, "%s: token \"%s\" is there twice (%d and %d)", where, show_str(s).s, t->slot[i], id);
        t->slot[i]   = id; /* WordPiece: the last id wins, as in the reference */
        size_t piece = s.n > 2 && str_starts(s, tok_gluing) ? s.n - 2 : s.n;
        if (piece > t->max_piece) t->max_piece = piece;
    }
    return OK;
}

static void name_special(const tokenizer *t, int *id, const char *name)
{
    if (*id < 0) *id = tokenizer_find(t, str_of(name));
}

int tok_index(tokenizer *t, const char *where, err *e)
{
    int r = index_strings(t, where, e);
    if (r) return r;
    for (int id = 0; id < t->n; id++)
        if (t->type[id] != TYPE_CONTROL) t->type[id] = looks_special(t->kind, t->tok[id]) ? TYPE_CONTROL : TYPE_NORMAL;
    if (t->kind == TOK_BPE) {
        name_special(t, &t->sp.eos, "<|endoftext|>");
        if (t->sp.bos < 0) t->sp.bos = t->sp.eos;
        return bpe_index_bytes(t, where, e);
    }
    name_special(t, &t->sp.unk, "[UNK]");
    name_special(t, &t->sp.bos, "[CLS]");
    name_special(t, &t->sp.eos, "[SEP]");
    name_special(t, &t->sp.pad, "[PAD]");
    name_special(t, &t->sp.mask, "[MASK]");
    return t->sp.unk < 0 ? err_set(e, E_FORMAT, "%s: the vocabulary has no [UNK]", where) : OK;
}

/* ---- GGUF forms of WordPiece tokens ---------------------------------------------------------------------------- */

/* llama.cpp's "bert": "##x" is stored as "x", "[x]" as it is, every other piece with U+2581 before it. */
static int bracketed(str s) { return s.n >= 2 && s.s[0] == '[' && s.s[s.n - 1] == ']'; }

/* What a reader takes `disk` for: *glued = 1 when for a "##" piece. */
static str undisk(str disk, int *glued)
{
    *glued = 0;
    if (bracketed(disk)) return disk;
    if (str_starts(disk, prefix)) return (str){ disk.s + prefix.n, disk.n - prefix.n };
    *glued = 1;
    return disk;
}

/* Disk forms, and the list of those that undisk would read wrongly ("##▁", "##[x]"). */
static int disk_forms(tokenizer *t, const char *where, err *e)
{
    size_t n_glued = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass && !(t->glued = arena_new(&t->mem, n_glued + 1, sizeof *t->glued)))
            return err_set(e, E_NOMEM, "%s: out of memory for tokens", where);
        for (int id = 0; id < t->n; id++) {
            str s = t->tok[id];
            int glued;
            if (bracketed(s)) t->disk[id] = s;
            if (t->kind != TOK_WORDPIECE) t->disk[id] = s;
            if (t->kind != TOK_WORDPIECE || bracketed(s) || !str_starts(s, tok_gluing)) continue;
            t->disk[id] = (str){ s.s + 2, s.n - 2 };
            undisk(t->disk[id], &glued);
            if (glued) continue;
            if (pass) t->glued[t->n_glued++] = id;
            else n_glued++;
        }
    }
    return OK;
}

/* ---- digest ---------------------------------------------------------------------------------------------------- */

static void hash_int(sha256 *h, int64_t v)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++) b[i] = (unsigned char)((uint64_t)v >> 8 * i);
    sha256_add(h, b, sizeof b);
}

static void hash_str(sha256 *h, str s)
{
    hash_int(h, (int64_t)s.n);
    sha256_add(h, s.s, s.n);
}

/* SHA-256 over "duet tokenizer 1", kind, lower, the five special ids, n, every token (length, bytes, type), the number of merges, every
 * merge (ids a, b, result); numbers as 8 bytes little endian. */
static void take_digest(tokenizer *t)
{
    sha256 h;
    sha256_init(&h);
    hash_str(&h, STR("duet tokenizer 1"));
    const int head[] = { t->kind, t->lower, t->sp.unk, t->sp.bos, t->sp.eos, t->sp.pad, t->sp.mask, t->n };
    for (size_t i = 0; i < sizeof head / sizeof *head; i++) hash_int(&h, head[i]);
    for (int id = 0; id < t->n; id++) hash_str(&h, t->tok[id]), hash_int(&h, t->type[id]);
    hash_int(&h, t->n_merges);
    for (int i = 0; i < t->n_merges; i++) hash_int(&h, t->merge[i].a), hash_int(&h, t->merge[i].b), hash_int(&h, t->merge[i].id);
    sha256_end(&h, t->digest);
}

int tok_finish(tokenizer *t, const char *where, err *e)
{
    int r = disk_forms(t, where, e);
    if (r == OK && t->kind == TOK_BPE) r = bpe_index_pairs(t, where, e);
    if (r == OK) take_digest(t);
    return r;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------ */

#define KEY "tokenizer.ggml."

static int read_special(const gguf *g, const char *key, int n, int *id, err *e)
{
    uint64_t v;
    int      r = gguf_get_u64(g, key, &v, e);
    if (r <= 0) return r;
    if (v >= (uint64_t)n)
        return err_set(e, E_FORMAT, "%s: %s is %llu, the vocabulary has %d tokens", gguf_path(g), key, (unsigned long long)v, n);
    *id = (int)v;
    return OK;
}

static int read_tokens(tokenizer *t, const gguf *g, const gguf_key *tokens, err *e)
{
    const gguf_key *type  = gguf_get(g, KEY "token_type"), *glued = gguf_get(g, "duet.tokenizer.continuation");
    const char     *path  = gguf_path(g);
    char            joined[MAX_TOKEN_BYTES + 2];
    int             r, is_glued;
    if (type && (type->type != GV_ARR || (type->elem != GV_I32 && type->elem != GV_U32) || type->n != tokens->n))
        return err_set(e, E_FORMAT, "%s: " KEY "token_type is not an array of %d integers", path, t->n);
    if (glued && (glued->type != GV_ARR || glued->elem != GV_I32))
        return err_set(e, E_FORMAT, "%s: duet.tokenizer.continuation is not an array of i32", path);
    uint64_t n_glued = 0;
    for (int id = 0; id < t->n; id++) {
        str s = tokens->strs[id];
        if (type && gguf_int_at(type, (uint64_t)id) == TYPE_CONTROL) t->type[id] = TYPE_CONTROL;
        if (t->kind == TOK_WORDPIECE) {
            s = undisk(s, &is_glued);
            if (glued && n_glued < glued->n && gguf_int_at(glued, n_glued) == id) n_glued++, is_glued = 1, s = tokens->strs[id];
            if (is_glued && s.n <= MAX_TOKEN_BYTES - 2) {
                memcpy(joined, "##", 2);
                if (s.n) memcpy(joined + 2, s.s, s.n);
                s = (str){ joined, s.n + 2 };
            }
        }
        if ((r = tok_set(t, id, s, path, e)) != OK) return r;
    }
    if (glued && n_glued != glued->n)
        return err_set(e, E_FORMAT, "%s: duet.tokenizer.continuation is not an ascending list of token ids", path);
    return OK;
}

static int read_ids(tokenizer *t, const gguf *g, err *e)
{
    const struct { const char *key; int *id; } bert[] = {
        { KEY "unknown_token_id", &t->sp.unk },   { KEY "bos_token_id", &t->sp.bos }, { KEY "cls_token_id", &t->sp.bos },
        { KEY "eos_token_id", &t->sp.eos },       { KEY "separator_token_id", &t->sp.eos }, { KEY "seperator_token_id", &t->sp.eos },
        { KEY "padding_token_id", &t->sp.pad },   { KEY "mask_token_id", &t->sp.mask },
    };
    for (size_t i = 0; i < sizeof bert / sizeof *bert; i++) {
        int r = read_special(g, bert[i].key, t->n, bert[i].id, e);
        if (r < 0) return r;
    }
    return OK;
}

static int read_merges(tokenizer *t, const gguf *g, err *e)
{
    const gguf_key *m    = gguf_get(g, KEY "merges");
    const char     *path = gguf_path(g);
    int             r;
    if (!m || m->type != GV_ARR || m->elem != GV_STR)
        return err_set(e, E_FORMAT, "%s: " KEY "merges is missing or no array of strings", path);
    if ((r = bpe_reserve(t, (size_t)m->n, path, e)) != OK) return r;
    for (uint64_t i = 0; i < m->n; i++)
        if ((r = bpe_add_merge(t, m->strs[i], 0, path, (size_t)i, e)) != OK) return r;
    return OK;
}

int tokenizer_from_gguf(tokenizer **out, const gguf *g, err *e)
{
    str         model, pre;
    const char *path  = gguf_path(g);
    int         lower = 1, r; /* absent: what llama.cpp does with every "bert" */
    tokenizer  *t;
    *out = NULL;
    if ((r = gguf_get_str(g, KEY "model", &model, e)) < 0) return r;
    if (r == 0) return err_set(e, E_FORMAT, "%s: no key " KEY "model", path);
    if (str_eq(model, STR("no_vocab"))) return OK;
    int kind = str_eq(model, STR("gpt2")) ? TOK_BPE : str_eq(model, STR("bert")) ? TOK_WORDPIECE : 0;
    if (!kind) return err_set(e, E_FORMAT, "%s: tokenizer \"%s\" is not supported (only gpt2, bert, no_vocab)", path, show_str(model).s);
    if ((r = gguf_get_str(g, KEY "pre", &pre, e)) < 0) return r;
    if (r == 1 && kind == TOK_BPE && !str_eq(pre, STR("gpt-2")) && !str_eq(pre, STR("gpt2")))
        return err_set(e, E_FORMAT, "%s: " KEY "pre is \"%s\"; only the split pattern \"gpt-2\" is known", path, show_str(pre).s);
    if ((r = gguf_get_bool(g, "duet.tokenizer.lower", &lower, e)) < 0) return r;
    const gguf_key *tokens = gguf_get(g, KEY "tokens");
    if (!tokens || tokens->type != GV_ARR || tokens->elem != GV_STR)
        return err_set(e, E_FORMAT, "%s: " KEY "tokens is missing or no array of strings", path);
    if ((r = tok_new(&t, kind, lower, (size_t)tokens->n, path, e)) != OK) return r;
    if ((r = read_tokens(t, g, tokens, e)) == OK && (r = read_ids(t, g, e)) == OK && (r = tok_index(t, path, e)) == OK &&
        (kind == TOK_WORDPIECE || (r = read_merges(t, g, e)) == OK) && (r = tok_finish(t, path, e)) == OK) {
        *out = t;
        return OK;
    }
    tokenizer_close(t);
    return r;
}

static void put_id(gguf_writer *w, const char *key, int id)
{
    if (id >= 0) gguf_put_u32(w, key, (uint32_t)id);
}

void tokenizer_to_gguf(const tokenizer *t, gguf_writer *w)
{
    if (!t) {
        gguf_put_str(w, KEY "model", STR("no_vocab"));
        return;
    }
    int bert = t->kind == TOK_WORDPIECE;
    gguf_put_str(w, KEY "model", bert ? STR("bert") : STR("gpt2"));
    gguf_put_str(w, KEY "pre", bert ? STR("default") : STR("gpt-2"));
    gguf_put_strs(w, KEY "tokens", t->disk, (size_t)t->n);
    gguf_put_i32s(w, KEY "token_type", t->type, (size_t)t->n);
    put_id(w, KEY "bos_token_id", t->sp.bos);
    put_id(w, KEY "eos_token_id", t->sp.eos);
    put_id(w, KEY "unknown_token_id", t->sp.unk);
    put_id(w, KEY "padding_token_id", t->sp.pad);
    put_id(w, KEY "mask_token_id", t->sp.mask);
    gguf_put_bool(w, KEY "add_bos_token", 0);
    gguf_put_bool(w, KEY "add_eos_token", 0);
    if (!bert) {
        gguf_put_strs(w, KEY "merges", t->merge_text, (size_t)t->n_merges);
        return;
    }
    gguf_put_u32(w, KEY "token_type_count", 1);
    put_id(w, KEY "cls_token_id", t->sp.bos);
    put_id(w, KEY "seperator_token_id", t->sp.eos); /* sic: llama.cpp's spelling */
    gguf_put_bool(w, "duet.tokenizer.lower", t->lower);
    if (t->n_glued) gguf_put_i32s(w, "duet.tokenizer.continuation", t->glued, t->n_glued);
}

/* ---- questions ------------------------------------------------------------------------------------------------- */

int         tokenizer_kind(const tokenizer *t) { return t->kind; }
int         tokenizer_lower(const tokenizer *t) { return t->lower; }
int         tokenizer_size(const tokenizer *t) { return t->n; }
special_ids tokenizer_specials(const tokenizer *t) { return t->sp; }
int         tokenizer_find(const tokenizer *t, str s) { return tok_lookup(t, tok_hash(TOK_HASH0, s.s, s.n), (str){ "", 0 }, s); }
str         tokenizer_token(const tokenizer *t, int id) { return id >= 0 && id < t->n ? t->tok[id] : (str){ "", 0 }; }
int         tokenizer_is_special(const tokenizer *t, int id) { return id >= 0 && id < t->n && t->type[id] == TYPE_CONTROL; }
void        tokenizer_digest(const tokenizer *t, unsigned char out[32]) { memcpy(out, t->digest, 32); }

int tokenizer_encode(const tokenizer *t, str text, ivec *ids, err *e)
{
    int r = t->kind == TOK_BPE ? bpe_encode(t, text, ids, e) : wp_encode(t, text, ids, e);
    return r == OK && ids->oom ? err_set(e, E_NOMEM, "out of memory for the tokens of a text of %zu bytes", text.n) : r;
}

int tokenizer_decode(const tokenizer *t, const int *ids, size_t n, buf *out, err *e)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= t->n) return err_set(e, E_ARG, "token id %d at %zu: the vocabulary has %d tokens", ids[i], i, t->n);
    if (t->kind == TOK_WORDPIECE) wp_decode(t, ids, n, out);
    else
        for (size_t i = 0; i < n; i++) buf_str(out, t->bytes[ids[i]]);
    return out->oom ? err_set(e, E_NOMEM, "out of memory for the text of %zu tokens", n) : OK;
}
