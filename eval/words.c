/* words: see words.h.  Both tables are open addressing with linear probing, at most half full. */
#include "eval/words.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "eval/porter.h"
#include "eval/tokenise.h"

/* ---- a table of ints: slots hold index + 1, 0 is free ----------------------------------------------------------- */

typedef struct {
    int   *slot;
    size_t mask; /* size - 1 */
} table;

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xFF51AFD7ED558CCDu;
    x ^= x >> 33;
    x *= 0xC4CEB9FE1A85EC53u;
    return x ^ (x >> 33);
}

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for words"); }

/* Room for one more; `hash` gives the hash of entry i. */
static int table_grow(table *t, int n, uint64_t (*hash)(const void *ctx, int i), const void *ctx, err *e)
{
    if (t->slot && 2 * ((size_t)n + 1) <= t->mask + 1) return OK;
    if (n >= INT_MAX / 4) return err_set(e, E_LIMIT, "more than %d distinct words or n-grams", n);
    size_t size = t->slot ? 2 * (t->mask + 1) : 1024;
    int   *slot = calloc(size, sizeof *slot);
    if (!slot) return no_memory(e);
    free(t->slot);
    t->slot = slot;
    t->mask = size - 1;
    for (int i = 0; i < n; i++) {
        size_t at = (size_t)hash(ctx, i) & t->mask;
        while (slot[at]) at = (at + 1) & t->mask;
        slot[at] = i + 1;
    }
    return OK;
}

/* ---- lexicon --------------------------------------------------------------------------------------------------- */

struct lexicon {
    arena  mem;
    str   *word; /* (n,) in mem */
    int    n, cap;
    table  t;
};

static uint64_t hash_str(str s)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < s.n; i++) h = (h ^ (unsigned char)s.s[i]) * 0x100000001B3u;
    return mix(h);
}

static uint64_t hash_word(const void *ctx, int i) { return hash_str(((const lexicon *)ctx)->word[i]); }

lexicon *lexicon_new(void) { return calloc(1, sizeof(lexicon)); }

void lexicon_free(lexicon *l)
{
    if (!l) return;
    arena_free(&l->mem);
    free(l->word);
    free(l->t.slot);
    free(l);
}

int lexicon_size(const lexicon *l) { return l->n; }
str lexicon_word(const lexicon *l, int id) { return l->word[id]; }

int lexicon_find(const lexicon *l, str word)
{
    if (!l->t.slot) return -1;
    for (size_t at = (size_t)hash_str(word) & l->t.mask; l->t.slot[at]; at = (at + 1) & l->t.mask)
        if (str_eq(l->word[l->t.slot[at] - 1], word)) return l->t.slot[at] - 1;
    return -1;
}

int lexicon_add(lexicon *l, str word, int *id, err *e)
{
    if ((*id = lexicon_find(l, word)) >= 0) return OK;
    int r = table_grow(&l->t, l->n, hash_word, l, e);
    if (r) return r;
    if (l->n == l->cap) {
        int  cap = l->cap ? 2 * l->cap : 256;
        str *v   = realloc(l->word, (size_t)cap * sizeof *v);
        if (!v) return no_memory(e);
        l->word = v;
        l->cap  = cap;
    }
    str own = arena_str(&l->mem, word, e);
    if (!own.s) return E_NOMEM;
    size_t at = (size_t)hash_str(word) & l->t.mask;
    while (l->t.slot[at]) at = (at + 1) & l->t.mask;
    l->word[l->n]  = own;
    *id            = l->n++;
    l->t.slot[at] = l->n;
    return OK;
}

int lexicon_forms(lexicon *l, int **lower, int **stem, err *e)
{
    int n = l->n, r = OK;
    buf b  = { 0 };
    *lower = malloc(((size_t)n + 1) * sizeof **lower);
    *stem  = malloc(((size_t)n + 1) * sizeof **stem);
    if (!*lower || !*stem) r = no_memory(e);
    for (int i = 0; i < n && r == OK; i++) {
        buf_reset(&b);
        tokenise_lower(l->word[i], &b);
        if (b.oom) r = no_memory(e);
        if (r == OK) r = lexicon_add(l, buf_view(&b), &(*lower)[i], e);
    }
    for (int i = 0; i < n && r == OK; i++) {
        buf_reset(&b);
        porter_stem(l->word[(*lower)[i]], &b);
        if (b.oom) r = no_memory(e);
        if (r == OK) r = lexicon_add(l, buf_view(&b), &(*stem)[i], e);
    }
    buf_free(&b);
    if (r) {
        free(*lower);
        free(*stem);
        *lower = *stem = NULL;
    }
    return r;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

int word_lines_new(word_lines *w, lexicon *l, const str *line, int n, int kind, int again, err *e)
{
    buf  a = { 0 }, b = { 0 };
    ivec ids = { 0 };
    int  r   = OK;
    *w       = (word_lines){ .n = n, .at = malloc(((size_t)n + 1) * sizeof *w->at) };
    if (!w->at) return no_memory(e);
    w->at[0] = 0;
    for (int i = 0; i < n && r == OK; i++) {
        str rest, word;
        buf_reset(&a);
        tokenise(kind, line[i], &a);
        rest = buf_view(&a);
        if (again >= 0) {
            buf_reset(&b);
            tokenise(again, rest, &b);
            rest = buf_view(&b);
        }
        if (a.oom || b.oom) r = no_memory(e);
        while (r == OK && tokenise_next(&rest, &word)) {
            int id;
            r = lexicon_add(l, word, &id, e);
            ivec_push(&ids, id);
        }
        w->at[i + 1] = ids.n;
    }
    if (r == OK && ids.oom) r = no_memory(e);
    w->id = ids.v;
    buf_free(&a);
    buf_free(&b);
    if (r) word_lines_free(w);
    return r;
}

void word_lines_free(word_lines *w)
{
    free(w->at);
    free(w->id);
    *w = (word_lines){ 0 };
}

/* ---- n-grams --------------------------------------------------------------------------------------------------- */

typedef struct {
    int prefix, word;
} gram;
struct ngrams {
    gram *v; /* (n,) v[0] is the empty one */
    int   n, cap;
    table t;
};

static uint64_t hash_gram(const void *ctx, int i)
{
    const gram *g = &((const ngrams *)ctx)->v[i];
    return mix((uint64_t)(uint32_t)g->prefix << 32 | (uint32_t)g->word);
}

ngrams *ngrams_new(void)
{
    ngrams *g = calloc(1, sizeof *g);
    if (g && !(g->v = malloc(1024 * sizeof *g->v))) {
        free(g);
        return NULL;
    }
    if (g) {
        g->v[0] = (gram){ -1, -1 };
        g->n    = 1;
        g->cap  = 1024;
    }
    return g;
}

void ngrams_free(ngrams *g)
{
    if (!g) return;
    free(g->v);
    free(g->t.slot);
    free(g);
}

int ngrams_size(const ngrams *g) { return g->n; }
int ngrams_prefix(const ngrams *g, int node) { return g->v[node].prefix; }
int ngrams_word(const ngrams *g, int node) { return g->v[node].word; }

int ngrams_find(const ngrams *g, int prefix, int word)
{
    if (!g->t.slot || prefix < 0) return -1;
    for (size_t at = (size_t)mix((uint64_t)(uint32_t)prefix << 32 | (uint32_t)word) & g->t.mask; g->t.slot[at]; at = (at + 1) & g->t.mask) {
        const gram *x = &g->v[g->t.slot[at] - 1];
        if (x->prefix == prefix && x->word == word) return g->t.slot[at] - 1;
    }
    return -1;
}

int ngrams_add(ngrams *g, int prefix, int word, int *node, err *e)
{
    if ((*node = ngrams_find(g, prefix, word)) >= 0) return OK;
    int r = table_grow(&g->t, g->n, hash_gram, g, e);
    if (r) return r;
    if (g->n == g->cap) {
        gram *v = realloc(g->v, 2 * (size_t)g->cap * sizeof *v);
        if (!v) return no_memory(e);
        g->v = v;
        g->cap *= 2;
    }
    g->v[g->n] = (gram){ prefix, word };
    size_t at  = (size_t)hash_gram(g, g->n) & g->t.mask;
    while (g->t.slot[at]) at = (at + 1) & g->t.mask;
    *node         = g->n++;
    g->t.slot[at] = g->n;
    return OK;
}
