/* grams: see grams.h. */
#include "dialog/grams.h"

#include <stdlib.h>

/* A set of grams: open addressing, at most half full.  A gram is 1 + the character before, or 0, then the character. */
typedef struct {
    uint64_t *slot; /* (cap,) 0 = free */
    size_t    n, cap;
} gram_set;

static uint64_t *find(const gram_set *s, uint64_t gram)
{
    size_t i = (size_t)(gram * 0x9E3779B97F4A7C15u >> 20) & (s->cap - 1);
    while (s->slot[i] && s->slot[i] != gram) i = (i + 1) & (s->cap - 1);
    return &s->slot[i];
}

static int grow(gram_set *s)
{
    gram_set up = { .n = s->n, .cap = s->cap ? 2 * s->cap : 256 };
    up.slot     = calloc(up.cap, sizeof *up.slot);
    if (!up.slot) return E_NOMEM;
    for (size_t i = 0; i < s->cap; i++)
        if (s->slot[i]) *find(&up, s->slot[i]) = s->slot[i];
    free(s->slot);
    *s = up;
    return OK;
}

static void put_char(buf *out, uint32_t cp)
{
    char   c[4];
    int    plain = (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || cp >= 128;
    size_t n     = utf8_put(plain ? cp : 0xE000 + cp, c);
    buf_add(out, c, n);
}
static uint32_t fold(uint32_t cp) { return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp; }

static int put_new(buf *out, gram_set *s, uint32_t before, uint32_t cp)
{
    uint64_t gram = (uint64_t)before << 32 | (cp + 1), *slot;
    if (2 * s->n >= s->cap && grow(s)) return E_NOMEM;
    slot = find(s, gram);
    if (*slot) return OK;
    *slot = gram;
    s->n++;
    if (before) put_char(out, before - 1);
    put_char(out, cp);
    buf_chr(out, ' ');
    return OK;
}

static int put_text(buf *out, gram_set *s, str t)
{
    uint32_t before = 0, cp; /* 1 + the character */
    for (size_t i = 0; i < t.n;) {
        i += utf8_next(t.s + i, t.n - i, &cp);
        if (cp == UTF8_BAD) {
            before = 0;
            continue;
        }
        cp = fold(cp);
        if (put_new(out, s, 0, cp) || (before && put_new(out, s, before, cp))) return E_NOMEM;
        before = cp + 1;
    }
    return OK;
}

int grams_put(buf *out, str a, str b)
{
    gram_set s = { 0 };
    int      r = put_text(out, &s, a);
    if (r == OK) r = put_text(out, &s, b);
    free(s.slot);
    return r || out->oom ? E_NOMEM : OK;
}

void grams_query(buf *out, str query)
{
    uint32_t cp;
    for (size_t i = 0; i < query.n;) {
        i += utf8_next(query.s + i, query.n - i, &cp);
        put_char(out, fold(cp));
    }
}
