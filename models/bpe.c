/* bpe: GPT-2's byte-level BPE.  The split pattern
 *     's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * walked by hand, then merges by rank inside each word.  Source: Radford et al. 2019 and the pattern published with GPT-2.
 * An ill-formed byte is a character of the third class and keeps its value, so encoding loses nothing. */
#include "models/tokenizer_impl.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* NO_TOKEN: a byte or the result of a merge that the vocabulary does not hold.  It may come up while a word is merged, and
 * bpe_encode refuses a text in which it stays. */
enum { SHORT_WORD = 64, NO_RANK = INT_MAX, NO_TOKEN = INT_MAX };

/* ---- the byte alphabet ----------------------------------------------------------------------------------------- */

static int prints(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

/* Bytes that print stand for themselves; the other 68 are numbered from U+0100 on. */
uint32_t bpe_char_of_byte(int byte)
{
    if (prints(byte)) return (uint32_t)byte;
    uint32_t c = 256;
    for (int b = 0; b < byte; b++) c += !prints(b);
    return c;
}

/* The bytes that each token stands for, and the token of each single byte. */
int bpe_index_bytes(tokenizer *t, const char *where, err *e)
{
    int byte_of[324];
    for (int i = 0; i < 324; i++) byte_of[i] = -1;
    for (int b = 0; b < 256; b++) byte_of[bpe_char_of_byte(b)] = b, t->byte_id[b] = NO_TOKEN;
    t->bytes = arena_new(&t->mem, (size_t)t->n, sizeof *t->bytes);
    if (!t->bytes) return err_set(e, E_NOMEM, "%s: out of memory for %d tokens", where, t->n);
    for (int id = 0; id < t->n; id++) {
        str   s = t->tok[id];
        char *p;
        if (t->type[id] == TYPE_CONTROL) continue;
        if (s.n == 0) return err_set(e, E_FORMAT, "%s: token %d is empty", where, id);
        if (!(p = arena_new(&t->mem, s.n, 1))) return err_set(e, E_NOMEM, "%s: out of memory for tokens", where);
        t->bytes[id].s = p;
        for (size_t i = 0; i < s.n;) {
            uint32_t cp;
            i += utf8_next(s.s + i, s.n - i, &cp);
            if (cp >= 324 || byte_of[cp] < 0)
                return err_set(e, E_FORMAT, "%s: token %d \"%s\" has a character outside the GPT-2 byte alphabet", where, id, show_str(s).s);
            p[t->bytes[id].n++] = (char)byte_of[cp];
        }
        if (t->bytes[id].n == 1) t->byte_id[(unsigned char)p[0]] = id;
    }
    return OK;
}

/* ---- merges ---------------------------------------------------------------------------------------------------- */

int bpe_reserve(tokenizer *t, size_t n, const char *where, err *e)
{
    if (n > MAX_TOKENS) return err_set(e, E_LIMIT, "%s: %zu merges, the limit is %d", where, n, MAX_TOKENS);
    t->merge      = arena_new(&t->mem, n + 1, sizeof *t->merge);
    t->merge_text = arena_new(&t->mem, n + 1, sizeof *t->merge_text);
    return t->merge && t->merge_text ? OK : err_set(e, E_NOMEM, "%s: out of memory for %zu merges", where, n);
}

static int is_control(const tokenizer *t, int id) { return id >= 0 && t->type[id] == TYPE_CONTROL; }

/* The next merge in order of rank.  Its parts and its result should be in the vocabulary: with one missing, a reader that goes on
 * silently gives other ids than the model was trained with.  `strict` refuses such a merge (vocabulary files: they do not
 * belong together); otherwise it is kept (a GGUF may hold any, llama.cpp opens it too) and the text that meets it is refused. */
int bpe_add_merge(tokenizer *t, str line, int strict, const char *where, size_t line_no, err *e)
{
    const char *space = memchr(line.s, ' ', line.n);
    size_t      left  = space ? (size_t)(space - line.s) : line.n;
    char        joined[2 * MAX_TOKEN_BYTES];
    if (line.n > 2 * MAX_TOKEN_BYTES) return err_set(e, E_FORMAT, "%s:%zu: a merge of %zu bytes", where, line_no, line.n);
    if (!space || left == 0 || left + 1 == line.n || memchr(space + 1, ' ', line.n - left - 1))
        return err_set(e, E_FORMAT, "%s:%zu: \"%s\" is not two tokens with one space between", where, line_no, show_str(line).s);
    str a = { line.s, left }, b = { space + 1, line.n - left - 1 };
    memcpy(joined, a.s, a.n);
    memcpy(joined + a.n, b.s, b.n);
    bpe_merge m = { tokenizer_find(t, a), tokenizer_find(t, b), tokenizer_find(t, (str){ joined, a.n + b.n }) };
    if (strict && (m.a < 0 || m.b < 0 || m.id < 0))
        return err_set(e, E_FORMAT, "%s:%zu: \"%s\": the %s is not in the vocabulary", where, line_no, show_str(line).s,
                       m.a < 0 ? "first token" : m.b < 0 ? "second token" : "merged token");
    if (is_control(t, m.a) || is_control(t, m.b) || is_control(t, m.id))
        return err_set(e, E_FORMAT, "%s:%zu: \"%s\" merges into or from a control token", where, line_no, show_str(line).s);
    t->merge_text[t->n_merges] = arena_str(&t->mem, line, e);
    if (!t->merge_text[t->n_merges].s) return e ? e->code : E_NOMEM;
    if (m.id < 0) m.id = NO_TOKEN;
    t->merge[t->n_merges++] = m;
    return OK;
}

static size_t pair_at(const tokenizer *t, uint64_t key)
{
    size_t i = (size_t)((key * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & t->pair_mask;
    while (t->pair[i].key != key && t->pair[i].key != UINT64_MAX) i = (i + 1) & t->pair_mask;
    return i;
}

static uint64_t pair_key(int a, int b) { return (uint64_t)(uint32_t)a << 32 | (uint32_t)b; }

int bpe_index_pairs(tokenizer *t, const char *where, err *e)
{
    size_t size = 16;
    while (size < (size_t)t->n_merges * 2) size *= 2;
    if (!(t->pair = malloc(size * sizeof *t->pair))) return err_set(e, E_NOMEM, "%s: out of memory for merges", where);
    t->pair_mask = size - 1;
    for (size_t i = 0; i < size; i++) t->pair[i] = (bpe_slot){ UINT64_MAX, NO_RANK };
    for (int r = 0; r < t->n_merges; r++) {
        if (t->merge[r].a < 0 || t->merge[r].b < 0) continue; /* can never be met */
        bpe_slot *s = &t->pair[pair_at(t, pair_key(t->merge[r].a, t->merge[r].b))];
        if (s->key != UINT64_MAX)
            return err_set(e, E_FORMAT, "%s: merge \"%s\" is there twice (%d and %d)", where, show_str(t->merge_text[r]).s, s->rank, r);
        *s = (bpe_slot){ pair_key(t->merge[r].a, t->merge[r].b), r };
    }
    return OK;
}

static int rank_of(const tokenizer *t, int a, int b) { return t->pair[pair_at(t, pair_key(a, b))].rank; }

/* ---- splitting ------------------------------------------------------------------------------------------------- */

enum { KIND_SPACE, KIND_LETTER, KIND_NUMBER, KIND_OTHER };

static int kind_at(str s, size_t at, size_t *n)
{
    uint32_t cp = (unsigned char)s.s[at];
    *n          = 1;
    if (cp >= 128) *n = utf8_next(s.s + at, s.n - at, &cp);
    unsigned c = uni_class(cp);
    return c & UC_SPACE ? KIND_SPACE : c & UC_LETTER ? KIND_LETTER : c & UC_NUMBER ? KIND_NUMBER : KIND_OTHER;
}

/* Bytes of 's 't 're 've 'm 'll 'd at `at` (where the apostrophe is), else 0. */
static size_t contraction(str s, size_t at)
{
    size_t left = s.n - at;
    if (left < 2) return 0;
    char a = s.s[at + 1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (left < 3) return 0;
    char b = s.s[at + 2];
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

size_t bpe_word(str s, size_t from)
{
    size_t n, at = from, last = from;
    if (s.s[at] == '\'' && (n = contraction(s, at)) != 0) return at + n;
    int kind = kind_at(s, at, &n);
    at += n;
    if (kind == KIND_SPACE && s.s[from] == ' ' && at < s.n) {
        int next = kind_at(s, at, &n); /* one space may lead a word */
        if (next != KIND_SPACE) kind = next, at += n;
    }
    while (at < s.n && kind_at(s, at, &n) == kind) last = at, at += n;
    /* \s+(?!\S): white space before a word leaves its last character to the word, unless that is all there is. */
    return kind == KIND_SPACE && at < s.n && last > from ? last : at;
}

/* ---- merging --------------------------------------------------------------------------------------------------- */

/* The pair of lowest rank, leftmost first, until none is left: quadratic, for words of a few bytes. */
static size_t merge_short(const tokenizer *t, int *id, size_t n)
{
    int rank[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(t, id[i], id[i + 1]);
    while (n > 1) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at]) at = i;
        if (rank[at] == NO_RANK) break;
        id[at] = t->merge[rank[at]].id;
        n--;
        memmove(id + at + 1, id + at + 2, (n - at - 1) * sizeof *id);
        if (at + 1 < n) memmove(rank + at + 1, rank + at + 2, (n - at - 2) * sizeof *rank);
        if (at + 1 < n) rank[at] = rank_of(t, id[at], id[at + 1]);
        if (at > 0) rank[at - 1] = rank_of(t, id[at - 1], id[at]);
    }
    return n;
}

/* The same result for any length in O(n log n): a linked list of symbols and a heap of candidate pairs (rank, place), some of them stale. */
typedef struct {
    int id, prev, next; /* id -1: merged away; prev, next -1: none */
} node;
typedef struct {
    int rank, at;
} cand;
typedef struct {
    cand  *v;
    size_t n, cap;
} cheap;

static int before(cand a, cand b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static int cheap_push(cheap *h, cand c)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 256;
        cand  *v   = realloc(h->v, cap * sizeof *v);
        if (!v) return -1;
        h->v = v, h->cap = cap;
    }
    size_t i = h->n++;
    for (; i > 0 && before(c, h->v[(i - 1) / 2]); i = (i - 1) / 2) h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = c;
    return 0;
}

static cand cheap_pop(cheap *h)
{
    cand   top = h->v[0], c = h->v[--h->n];
    size_t i = 0, k;
    for (; (k = 2 * i + 1) < h->n; i = k) {
        if (k + 1 < h->n && before(h->v[k + 1], h->v[k])) k++;
        if (!before(h->v[k], c)) break;
        h->v[i] = h->v[k];
    }
    h->v[i] = c;
    return top;
}

static int offer(const tokenizer *t, cheap *h, const node *l, int at)
{
    if (at < 0 || l[at].next < 0) return 0;
    int r = rank_of(t, l[at].id, l[l[at].next].id);
    return r == NO_RANK ? 0 : cheap_push(h, (cand){ r, at });
}

static int merge_long(const tokenizer *t, str word, ivec *ids, err *e)
{
    cheap h   = { 0 };
    int   bad = 0;
    if (word.n > INT_MAX / 2) return err_set(e, E_LIMIT, "a word of %zu bytes is too long to encode", word.n);
    node *l = malloc(word.n * sizeof *l);
    if (!l) return err_set(e, E_NOMEM, "out of memory for a word of %zu bytes", word.n);
    for (int i = 0, n = (int)word.n; i < n; i++) l[i] = (node){ t->byte_id[(unsigned char)word.s[i]], i - 1, i + 1 < n ? i + 1 : -1 };
    for (int i = 0; i < (int)word.n && !bad; i++) bad = offer(t, &h, l, i);
    while (h.n && !bad) {
        cand c = cheap_pop(&h);
        int  b = l[c.at].id < 0 ? -1 : l[c.at].next;
        if (b < 0 || rank_of(t, l[c.at].id, l[b].id) != c.rank) continue; /* stale */
        l[c.at].id   = t->merge[c.rank].id;
        l[c.at].next = l[b].next;
        l[b].id      = -1;
        if (l[b].next >= 0) l[l[b].next].prev = c.at;
        bad = offer(t, &h, l, c.at) || offer(t, &h, l, l[c.at].prev);
    }
    for (int i = 0; i >= 0 && !bad; i = l[i].next) ivec_push(ids, l[i].id);
    free(l);
    free(h.v);
    return bad ? err_set(e, E_NOMEM, "out of memory for a word of %zu bytes", word.n) : OK;
}

int bpe_encode(const tokenizer *t, str text, ivec *ids, err *e)
{
    const size_t start = ids->n;
    for (size_t at = 0, end; at < text.n; at = end) {
        end           = bpe_word(text, at);
        size_t n      = end - at, first = ids->n;
        int    id[SHORT_WORD];
        if (n > SHORT_WORD) {
            int r = merge_long(t, (str){ text.s + at, n }, ids, e);
            if (r) return r;
        } else {
            for (size_t i = 0; i < n; i++) id[i] = t->byte_id[(unsigned char)text.s[at + i]];
            ivec_add(ids, id, merge_short(t, id, n));
        }
        for (size_t i = first; i < ids->n; i++)
            if (ids->v[i] == NO_TOKEN) {
                ids->n = start;
                return err_set(e, E_ARG, "the vocabulary has no token for a part of \"%s\"", show_str((str){ text.s + at, n }).s);
            }
    }
    return OK;
}
