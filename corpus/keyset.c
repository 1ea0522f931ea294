/* keyset: see keyset.h. */
#include "corpus/keyset.h"

#include <stdlib.h>
#include <string.h>

static size_t place(const key128 *slot, size_t cap, key128 k)
{
    size_t i = (size_t)k.hi & (cap - 1);
    while ((slot[i].hi | slot[i].lo) && (slot[i].hi != k.hi || slot[i].lo != k.lo)) i = (i + 1) & (cap - 1);
    return i;
}

int keyset_add(keyset *s, key128 k, err *e)
{
    if (!(k.hi | k.lo)) k.lo = 1;
    if (s->n >= s->cap / 2) {
        size_t  cap = s->cap ? s->cap * 2 : 256;
        key128 *big = cap > s->cap ? calloc(cap, sizeof *big) : NULL;
        if (!big) return err_set(e, E_NOMEM, "out of memory for %zu keys", s->n);
        for (size_t i = 0; i < s->cap; i++)
            if (s->slot[i].hi | s->slot[i].lo) big[place(big, cap, s->slot[i])] = s->slot[i];
        free(s->slot);
        s->slot = big;
        s->cap  = cap;
    }
    size_t i = place(s->slot, s->cap, k);
    if (s->slot[i].hi | s->slot[i].lo) return 0;
    s->slot[i] = k;
    s->n++;
    return 1;
}

void keyset_clear(keyset *s)
{
    if (s->slot) memset(s->slot, 0, s->cap * sizeof *s->slot);
    s->n = 0;
}

void keyset_free(keyset *s)
{
    free(s->slot);
    *s = (keyset){ 0 };
}

key128 key_of_hash(sha256 *h)
{
    unsigned char d[32];
    key128        k;
    sha256_end(h, d);
    memcpy(&k, d, sizeof k);
    return k;
}
