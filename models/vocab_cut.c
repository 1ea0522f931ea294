/* vocab_cut: a vocabulary with fewer entries.  Keeps what every text needs, whatever was asked. */
#include "models/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

/* An entry that is one character, "##" not counted; *ascii. */
static int one_character(str s, int *ascii)
{
    uint32_t cp;
    if (s.n > 2 && str_starts(s, tok_gluing)) s = (str){ s.s + 2, s.n - 2 };
    if (s.n == 0) return 0;
    int whole = utf8_next(s.s, s.n, &cp) == s.n;
    *ascii    = cp < 128;
    return whole;
}

static int needed(const tokenizer *t, int id, int drop_characters)
{
    int ascii = 0;
    if (t->type[id] == TYPE_CONTROL || id == t->sp.unk || id == t->sp.bos || id == t->sp.eos || id == t->sp.pad || id == t->sp.mask) return 1;
    if (t->kind == TOK_BPE) return t->bytes[id].n == 1;
    return one_character(t->tok[id], &ascii) && (ascii || !drop_characters);
}

/* The parts of every merge that gives a token that stays, stay: merging meets them on its way. */
static void add_parts(const tokenizer *t, unsigned char *stays)
{
    for (int again = 1; again;) {
        again = 0;
        for (int i = t->n_merges - 1; i >= 0; i--) { /* parts come before what they make, as a rule: one pass, and one to see it */
            bpe_merge m = t->merge[i];
            if (m.a < 0 || m.b < 0 || m.id >= t->n || !stays[m.id] || (stays[m.a] && stays[m.b])) continue;
            stays[m.a] = stays[m.b] = 1;
            again                   = 1;
        }
    }
}

static int fill(tokenizer *c, const tokenizer *t, const int *ids, const int *new_id, err *e)
{
    static const char where[] = "the smaller vocabulary";
    int r = OK;
    for (int i = 0; r == OK && i < c->n; i++) {
        c->type[i] = t->type[ids[i]] == TYPE_CONTROL ? TYPE_CONTROL : 0;
        r          = tok_set(c, i, t->tok[ids[i]], where, e);
    }
    const int from[] = { t->sp.unk, t->sp.bos, t->sp.eos, t->sp.pad, t->sp.mask };
    int *const to[]  = { &c->sp.unk, &c->sp.bos, &c->sp.eos, &c->sp.pad, &c->sp.mask };
    for (int k = 0; k < 5; k++) *to[k] = from[k] < 0 ? -1 : new_id[from[k]];
    if (r == OK) r = tok_index(c, where, e);
    if (r || t->kind == TOK_WORDPIECE) return r ? r : tok_finish(c, where, e);
    r = bpe_reserve(c, (size_t)t->n_merges, where, e);
    for (int i = 0; r == OK && i < t->n_merges; i++) {
        bpe_merge m = t->merge[i];
        if (m.a < 0 || m.b < 0 || m.id >= t->n || new_id[m.a] < 0 || new_id[m.b] < 0 || new_id[m.id] < 0) continue;
        r = bpe_add_merge(c, t->merge_text[i], 1, where, (size_t)i, e);
    }
    return r ? r : tok_finish(c, where, e);
}

int tokenizer_cut(tokenizer **out, const tokenizer *t, const unsigned char *keep, int drop_characters, ivec *ids, err *e)
{
    size_t         n      = (size_t)t->n;
    tokenizer     *c      = NULL;
    unsigned char *stays  = malloc(n);
    int           *new_id = malloc(n * sizeof *new_id);
    int            r      = stays && new_id ? OK : err_set(e, E_NOMEM, "out of memory for %zu tokens", n);
    *out                  = NULL;
    ids->n                = 0;
    for (int id = 0; r == OK && id < t->n; id++) stays[id] = keep[id] || needed(t, id, drop_characters);
    if (r == OK && t->kind == TOK_BPE) add_parts(t, stays);
    for (int id = 0; r == OK && id < t->n; id++) {
        new_id[id] = stays[id] ? (int)ids->n : -1;
        if (stays[id]) ivec_push(ids, id);
    }
    if (r == OK && ids->oom) r = err_set(e, E_NOMEM, "out of memory for %zu tokens", n);
    if (r == OK) r = tok_new(&c, t->kind, t->lower, ids->n, "the smaller vocabulary", e);
    if (r == OK) r = fill(c, t, ids->v, new_id, e);
    if (r) tokenizer_close(c);
    else *out = c;
    free(stays);
    free(new_id);
    return r;
}
