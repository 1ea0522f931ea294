/* vocab_build: a new vocabulary from a corpus.  Words are counted first, so the corpus may be far larger than memory; then pairs of
 * neighbouring symbols are merged, most frequent first, over the table of distinct words (Sennrich et al. 2016), with pair
 * counts kept up to date and a heap of candidates.
 *
 * Deterministic: weights are counted in whole 1/65536ths, so sums do not depend on order; ties go to the smaller (left id, right id).
 * The vocabulary is
 *   BPE       256 bytes in GPT-2's order, the merges by rank, <|endoftext|>
 *   WordPiece [PAD] [UNK] [CLS] [SEP] [MASK]; single characters by count; "##" characters by count; merged pieces by rank
 * and may be smaller than asked for when the corpus has no more pairs.  ASCII letters and digits (also "##") and common punctuation are
 * always in a WordPiece vocabulary. */
#include "models/tokenizer_impl.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 65536.0 /* one count */
enum { MAX_UNICODE = 0x110000 };

/* ---- counting words -------------------------------------------------------------------------------------------- */

typedef struct {
    size_t   at; /* in trainer.words */
    uint32_t n;
    uint64_t hash, count;
} counted;

struct tokenizer_trainer {
    int       kind, lower;
    buf       words;
    counted  *word;
    size_t    n, cap;
    uint32_t *slot; /* (mask + 1,) index + 1 into word, 0 = free */
    size_t    mask;
    buf       norm;
};

int tokenizer_trainer_new(tokenizer_trainer **out, int kind, int lower, err *e)
{
    *out = NULL;
    if (kind != TOK_BPE && kind != TOK_WORDPIECE) return err_set(e, E_ARG, "vocabulary kind %d is not known", kind);
    tokenizer_trainer *tr = calloc(1, sizeof *tr);
    if (!tr) return err_set(e, E_NOMEM, "out of memory for a vocabulary trainer");
    tr->kind  = kind;
    tr->lower = lower;
    *out      = tr;
    return OK;
}

void tokenizer_trainer_free(tokenizer_trainer *tr)
{
    if (!tr) return;
    buf_free(&tr->words);
    buf_free(&tr->norm);
    free(tr->word);
    free(tr->slot);
    free(tr);
}

static uint64_t add_counts(uint64_t a, uint64_t b) { return a > UINT64_MAX / 4 - b ? UINT64_MAX / 4 : a + b; }

/* Room for one more word in list and table. */
static int make_room(tokenizer_trainer *tr)
{
    if (tr->n == tr->cap) {
        size_t   cap = tr->cap ? tr->cap * 2 : 4096;
        counted *v   = cap < UINT32_MAX ? realloc(tr->word, cap * sizeof *v) : NULL;
        if (!v) return -1;
        tr->word = v, tr->cap = cap;
    }
    if (tr->slot && tr->n * 2 < tr->mask) return 0;
    size_t    size = tr->slot ? (tr->mask + 1) * 2 : 8192;
    uint32_t *slot = calloc(size, sizeof *slot);
    if (!slot) return -1;
    for (size_t i = 0; i < tr->n; i++) {
        size_t k = (size_t)(tr->word[i].hash ^ tr->word[i].hash >> 32) & (size - 1);
        while (slot[k]) k = (k + 1) & (size - 1);
        slot[k] = (uint32_t)i + 1;
    }
    free(tr->slot);
    tr->slot = slot, tr->mask = size - 1;
    return 0;
}

static int count_word(tokenizer_trainer *tr, str s, uint64_t count)
{
    uint64_t h = tok_hash(TOK_HASH0, s.s, s.n);
    if (s.n > UINT32_MAX || make_room(tr)) return -1;
    size_t k = (size_t)(h ^ h >> 32) & tr->mask;
    for (; tr->slot[k]; k = (k + 1) & tr->mask) {
        counted *w = &tr->word[tr->slot[k] - 1];
        if (w->hash != h || w->n != s.n || memcmp(tr->words.s + w->at, s.s, s.n)) continue;
        w->count = add_counts(w->count, count);
        return 0;
    }
    tr->word[tr->n] = (counted){ tr->words.n, (uint32_t)s.n, h, count };
    buf_add(&tr->words, s.s, s.n);
    tr->slot[k] = (uint32_t)++tr->n;
    return tr->words.oom ? -1 : 0;
}

int tokenizer_trainer_add(tokenizer_trainer *tr, str text, double weight, err *e)
{
    if (!(weight >= 0) || weight > 1e6) return err_set(e, E_ARG, "weight %g of a line of the corpus is not in 0..1e6", weight);
    uint64_t count = (uint64_t)llround(weight * UNIT);
    int      bad   = 0;
    if (count == 0) return OK;
    if (tr->kind == TOK_BPE) {
        for (size_t at = 0, end; at < text.n && !bad; at = end) {
            end = bpe_word(text, at);
            bad = count_word(tr, (str){ text.s + at, end - at }, count);
        }
    } else {
        buf_reset(&tr->norm);
        wp_normalise(text, tr->lower, &tr->norm);
        bad = tr->norm.oom;
        for (size_t at = 0, end; at < tr->norm.n && !bad; at = end + 1) {
            const char *p = memchr(tr->norm.s + at, ' ', tr->norm.n - at);
            end           = p ? (size_t)(p - tr->norm.s) : tr->norm.n;
            if (end > at) bad = count_word(tr, (str){ tr->norm.s + at, end - at }, count);
        }
    }
    return bad ? err_set(e, E_NOMEM, "out of memory for the words of the corpus (%zu distinct so far)", tr->n) : OK;
}

/* ---- symbols and pairs ----------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t  key;   /* left << 32 | right */
    uint64_t  count;
    uint32_t *at;    /* words where the pair was seen, perhaps no longer */
    uint32_t  n, cap;
    int       touched, merged; /* touched: last merge that raised count */
} pair;
typedef struct {
    uint64_t count, key;
    uint32_t pair;
} offer;
typedef struct {
    size_t   start; /* in seq */
    uint32_t n;
    uint64_t count;
} segment;

typedef struct {
    int       kind, lower, size;
    arena     mem;
    str      *sym; /* (size,) the vocabulary so far */
    int       n_sym;
    int      *slot; /* string -> symbol + 1 */
    size_t    slot_mask;
    int      *seq;
    segment  *word;
    size_t    n_words;
    pair     *pair;
    uint32_t  n_pairs, cap_pairs, *pair_slot; /* index + 1 */
    size_t    pair_mask;
    offer    *heap;
    size_t    n_heap, cap_heap;
    uint64_t *merges; /* keys in order of rank */
    int       n_merges, oom;
} builder;

static void builder_free(builder *b)
{
    for (uint32_t i = 0; i < b->n_pairs; i++) free(b->pair[i].at);
    free(b->pair);
    free(b->pair_slot);
    free(b->heap);
    free(b->seq);
    free(b->word);
    arena_free(&b->mem);
}

static size_t symbol_slot(const builder *b, str s)
{
    uint64_t h = tok_hash(TOK_HASH0, s.s, s.n);
    size_t   k = (size_t)(h ^ h >> 32) & b->slot_mask;
    while (b->slot[k] && !str_eq(b->sym[b->slot[k] - 1], s)) k = (k + 1) & b->slot_mask;
    return k;
}

static int find_symbol(const builder *b, str s) { return b->slot[symbol_slot(b, s)] - 1; }

static int add_symbol(builder *b, str s)
{
    size_t k = symbol_slot(b, s);
    if (b->slot[k]) return b->slot[k] - 1;
    assert(b->n_sym < b->size);
    str copy = arena_str(&b->mem, s, NULL);
    if (!copy.s) {
        b->oom = 1;
        return 0;
    }
    b->sym[b->n_sym] = copy;
    b->slot[k]       = b->n_sym + 1;
    return b->n_sym++;
}

static int sooner(offer a, offer b) { return a.count != b.count ? a.count > b.count : a.key < b.key; }

static void heap_push(builder *b, uint32_t p)
{
    if (b->n_heap == b->cap_heap) {
        size_t cap = b->cap_heap ? b->cap_heap * 2 : 4096;
        offer *v   = realloc(b->heap, cap * sizeof *v);
        if (!v) {
            b->oom = 1;
            return;
        }
        b->heap = v, b->cap_heap = cap;
    }
    offer  o = { b->pair[p].count, b->pair[p].key, p };
    size_t i = b->n_heap++;
    for (; i > 0 && sooner(o, b->heap[(i - 1) / 2]); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = o;
}

static offer heap_pop(builder *b)
{
    offer  top = b->heap[0], o = b->heap[--b->n_heap];
    size_t i = 0, k;
    for (; (k = 2 * i + 1) < b->n_heap; i = k) {
        if (k + 1 < b->n_heap && sooner(b->heap[k + 1], b->heap[k])) k++;
        if (!sooner(b->heap[k], o)) break;
        b->heap[i] = b->heap[k];
    }
    b->heap[i] = o;
    return top;
}

static size_t key_slot(const builder *b, uint64_t key, size_t mask, const uint32_t *slot)
{
    size_t k = (size_t)(key * UINT64_C(0x9E3779B97F4A7C15) >> 32) & mask;
    while (slot[k] && b->pair[slot[k] - 1].key != key) k = (k + 1) & mask;
    return k;
}

static void grow_pairs(builder *b)
{
    uint32_t  cap  = b->cap_pairs ? b->cap_pairs * 2 : 4096;
    pair     *v    = cap > b->cap_pairs ? realloc(b->pair, cap * sizeof *v) : NULL;
    uint32_t *slot = v ? calloc((size_t)cap * 2, sizeof *slot) : NULL;
    if (v) b->pair = v;
    if (!slot) {
        b->oom = 1;
        return;
    }
    for (uint32_t i = 0; i < b->n_pairs; i++) slot[key_slot(b, b->pair[i].key, (size_t)cap * 2 - 1, slot)] = i + 1;
    free(b->pair_slot);
    b->pair_slot = slot, b->pair_mask = (size_t)cap * 2 - 1, b->cap_pairs = cap;
}

/* The pair (left, right), made when it is new; NULL when memory is out. */
static pair *pair_of(builder *b, int left, int right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    if (b->n_pairs == b->cap_pairs) grow_pairs(b);
    if (b->oom) return NULL;
    size_t k = key_slot(b, key, b->pair_mask, b->pair_slot);
    if (!b->pair_slot[k]) {
        b->pair[b->n_pairs] = (pair){ .key = key, .touched = -1 };
        b->pair_slot[k]     = ++b->n_pairs;
    }
    return &b->pair[b->pair_slot[k] - 1];
}

static void add_pair(builder *b, int left, int right, uint32_t word, int merge, ivec *touched)
{
    pair *p = pair_of(b, left, right);
    if (!p) return;
    p->count = add_counts(p->count, b->word[word].count);
    if (touched && p->touched != merge) {
        p->touched = merge;
        ivec_push(touched, (int)(p - b->pair));
        b->oom |= touched->oom;
    }
    if (p->n && p->at[p->n - 1] == word) return;
    if (p->n == p->cap) {
        uint32_t  cap = p->cap ? p->cap + p->cap / 2 + 1 : 2;
        uint32_t *v   = realloc(p->at, cap * sizeof *v);
        if (!v) {
            b->oom = 1;
            return;
        }
        p->at = v, p->cap = cap;
    }
    p->at[p->n++] = word;
}

static void lower_count(builder *b, int left, int right, uint64_t count)
{
    pair *p = pair_of(b, left, right);
    if (p) p->count = p->count > count ? p->count - count : 0;
}

/* ---- merging --------------------------------------------------------------------------------------------------- */

/* Replace every a b in the word by c and correct the counts of the pairs around. */
static void merge_in_word(builder *b, uint32_t w, int a, int bb, int c, int merge, ivec *touched)
{
    segment *s = &b->word[w];
    int     *v = b->seq + s->start;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n && !b->oom; i++) {
        if (v[i] != a || i + 1 == s->n || v[i + 1] != bb) {
            v[n++] = v[i];
            continue;
        }
        lower_count(b, a, bb, s->count);
        if (n > 0) {
            lower_count(b, v[n - 1], a, s->count);
            add_pair(b, v[n - 1], c, w, merge, touched);
        }
        if (i + 2 < s->n) {
            lower_count(b, bb, v[i + 2], s->count);
            add_pair(b, c, v[i + 2], w, merge, touched);
        }
        v[n++] = c;
        i++;
    }
    s->n = n;
}

/* The string of left and right together; empty when it is longer than a token may be. */
static str join(const builder *b, int left, int right, char out[2 * MAX_TOKEN_BYTES])
{
    str l = b->sym[left], r = b->sym[right];
    if (b->kind == TOK_WORDPIECE) r = (str){ r.s + 2, r.n - 2 }; /* always a "##" piece */
    if (l.n + r.n > MAX_TOKEN_BYTES) return (str){ 0 };
    memcpy(out, l.s, l.n);
    memcpy(out + l.n, r.s, r.n);
    return (str){ out, l.n + r.n };
}

/* Merge until the vocabulary has `size` symbols or no pair is left with at least `least` counts. */
static void merge_all(builder *b, int size, uint64_t least)
{
    ivec touched = { 0 };
    char text[2 * MAX_TOKEN_BYTES];
    for (uint32_t i = 0; i < b->n_pairs; i++) heap_push(b, i);
    for (int merge = 0; b->n_sym < size && b->n_merges < 2 * size && b->n_heap && !b->oom; merge++) {
        offer     o = heap_pop(b);
        pair     *p = &b->pair[o.pair];
        int       left = (int)(o.key >> 32), right = (int)(uint32_t)o.key;
        if (p->count != o.count) { /* stale; raised counts have been offered already */
            if (p->count && p->count < o.count) heap_push(b, o.pair);
            continue;
        }
        if (p->count < least || p->count == 0) break;
        str s = join(b, left, right, text);
        if (!s.s) {
            p->count = 0;
            continue;
        }
        int       c  = add_symbol(b, s);
        uint32_t *at = p->at, n = p->n;
        if (!p->merged) b->merges[b->n_merges++] = o.key;
        p->merged = 1;
        p->at = NULL, p->n = p->cap = 0;
        touched.n = 0;
        for (uint32_t i = 0; i < n && !b->oom; i++) merge_in_word(b, at[i], left, right, c, merge, &touched);
        free(at);
        for (size_t i = 0; i < touched.n && !b->oom; i++) heap_push(b, (uint32_t)touched.v[i]);
    }
    ivec_free(&touched);
}

/* ---- the alphabet ---------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t count;
    uint32_t cp;
    int      glued, always;
} letter;

static int by_count(const void *x, const void *y)
{
    const letter *a = x, *b = y;
    if (a->count != b->count) return a->count < b->count ? 1 : -1;
    if (a->glued != b->glued) return a->glued - b->glued;
    return a->cp < b->cp ? -1 : a->cp > b->cp;
}

static int by_place(const void *x, const void *y)
{
    const letter *a = x, *b = y;
    return a->glued != b->glued ? a->glued - b->glued : by_count(x, y);
}

static int by_need(const void *x, const void *y)
{
    const letter *a = x, *b = y;
    return a->always != b->always ? b->always - a->always : by_count(x, y);
}

static int ascii_letter(uint32_t c, int lower) { return (c >= 'a' && c <= 'z') || (!lower && c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

static int common_punct(uint32_t c)
{
    static const uint32_t wide[] = { 0xB7, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2026, 0x3001, 0x3002, 0x300A, 0x300B, 0x3010, 0x3011,
                                     0xFF01, 0xFF08, 0xFF09, 0xFF0C, 0xFF1A, 0xFF1B, 0xFF1F, 0xFF5E };
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (wide[i] == c) return 1;
    return c < 128 && uni_class(c) == UC_PUNCT;
}

static str letter_text(const letter *l, char out[8])
{
    size_t k = l->glued ? 2 : 0;
    memcpy(out, "##", 2);
    return (str){ out, k + utf8_put(l->cp, out + k) };
}

/* Characters of the words, at the start and inside: counts (2, MAX_UNICODE).  Words that will be [UNK] for their length do not count. */
static void count_letters(tokenizer_trainer *tr, uint64_t *counts)
{
    for (size_t i = 0; i < tr->n; i++) {
        str      s = { tr->words.s + tr->word[i].at, tr->word[i].n };
        uint32_t cp;
        size_t   chars = 0;
        for (size_t k = 0; k < s.n; chars++) k += utf8_next(s.s + k, s.n - k, &cp);
        if (chars > MAX_WORD_CHARS) continue;
        for (size_t k = 0; k < s.n;) {
            size_t at = k;
            k += utf8_next(s.s + k, s.n - k, &cp);
            if (cp >= MAX_UNICODE) continue;
            counts[cp] = add_counts(counts[cp], tr->word[i].count);
            if (at) counts[MAX_UNICODE + cp] = add_counts(counts[MAX_UNICODE + cp], tr->word[i].count);
        }
    }
}

static int letters(tokenizer_trainer *tr, builder *b, uint64_t least, err *e)
{
    static const char *const special[] = { "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]" };
    enum { N_SPECIAL = sizeof special / sizeof *special };
    uint64_t *counts = calloc(2 * MAX_UNICODE, sizeof *counts);
    size_t    n = 0, need = 0;
    letter   *v = NULL;
    char      text[8];
    if (counts) {
        count_letters(tr, counts);
        for (int pass = 0; pass < 2; pass++) {
            if (pass && !(v = malloc((n + 1) * sizeof *v))) break;
            n = need = 0;
            for (uint32_t i = 0; i < 2 * MAX_UNICODE; i++) {
                letter l = { counts[i], i % MAX_UNICODE, i >= MAX_UNICODE, 0 };
                l.always = ascii_letter(l.cp, b->lower) || (!l.glued && common_punct(l.cp));
                if (!l.always && (l.count == 0 || l.count < least)) continue;
                if (pass) v[n] = l;
                n++, need += (size_t)l.always;
            }
        }
    }
    free(counts);
    if (!v) return err_set(e, E_NOMEM, "out of memory for the characters of the corpus");
    if (need + N_SPECIAL > (size_t)b->size) {
        free(v);
        return err_set(e, E_ARG, "a WordPiece vocabulary needs at least %zu tokens, %d asked for", need + N_SPECIAL, b->size);
    }
    for (int i = 0; i < N_SPECIAL; i++) add_symbol(b, str_of(special[i]));
    qsort(v, n, sizeof *v, by_need);
    if (n > (size_t)b->size - N_SPECIAL) n = (size_t)b->size - N_SPECIAL;
    qsort(v, n, sizeof *v, by_place);
    for (size_t i = 0; i < n; i++) add_symbol(b, letter_text(&v[i], text));
    free(v);
    return OK;
}

static void bytes(builder *b)
{
    for (int pass = 0; pass < 2; pass++) /* GPT-2's order: the bytes that print, then the rest */
        for (int byte = 0; byte < 256; byte++) {
            char     u[4];
            uint32_t c = bpe_char_of_byte(byte);
            if ((c >= 256) == pass) add_symbol(b, (str){ u, utf8_put(c, u) });
        }
}

/* ---- building -------------------------------------------------------------------------------------------------- */

/* Words of two symbols or more, as symbols, and their pairs.  A WordPiece word with a character outside the alphabet is left out: it will be
 * [UNK]. */
static int spread_words(tokenizer_trainer *tr, builder *b)
{
    int    byte_sym[256];
    char   u[8];
    size_t n = 0;
    b->seq  = malloc((tr->words.n + 1) * sizeof *b->seq);
    b->word = malloc((tr->n + 1) * sizeof *b->word);
    if (!b->seq || !b->word) return -1;
    for (int c = 0; c < 256 && b->kind == TOK_BPE; c++) byte_sym[c] = find_symbol(b, (str){ u, utf8_put(bpe_char_of_byte(c), u) });
    for (size_t i = 0; i < tr->n; i++) {
        str     s = { tr->words.s + tr->word[i].at, tr->word[i].n };
        segment w = { n, 0, tr->word[i].count };
        for (size_t k = 0; k < s.n;) {
            letter l  = { .glued = k > 0 };
            int    id;
            if (b->kind == TOK_BPE) {
                id = byte_sym[(unsigned char)s.s[k++]];
            } else {
                k += utf8_next(s.s + k, s.n - k, &l.cp);
                id = find_symbol(b, letter_text(&l, u));
            }
            b->seq[w.start + w.n++] = id;
            if (id < 0 || (b->kind == TOK_WORDPIECE && w.n > MAX_WORD_CHARS)) {
                w.n = 0;
                break;
            }
        }
        if (w.n < 2) continue;
        n += w.n;
        b->word[b->n_words] = w;
        for (uint32_t k = 0; k + 1 < w.n; k++) add_pair(b, b->seq[w.start + k], b->seq[w.start + k + 1], (uint32_t)b->n_words, 0, NULL);
        b->n_words++;
    }
    return 0;
}

static int to_tokenizer(const builder *b, tokenizer **out, err *e)
{
    static const char where[] = "new vocabulary";
    char              line[2 * MAX_TOKEN_BYTES + 2];
    tokenizer        *t;
    int               r = tok_new(&t, b->kind, b->lower, (size_t)b->n_sym, where, e);
    if (r) return r;
    for (int i = 0; r == OK && i < b->n_sym; i++) r = tok_set(t, i, b->sym[i], where, e);
    if (r == OK) r = tok_index(t, where, e);
    if (r == OK && b->kind == TOK_BPE) r = bpe_reserve(t, (size_t)b->n_merges, where, e);
    for (int i = 0; r == OK && b->kind == TOK_BPE && i < b->n_merges; i++) {
        str l = b->sym[b->merges[i] >> 32], m = b->sym[(uint32_t)b->merges[i]];
        memcpy(line, l.s, l.n);
        line[l.n] = ' ';
        memcpy(line + l.n + 1, m.s, m.n);
        r = bpe_add_merge(t, (str){ line, l.n + 1 + m.n }, 1, where, (size_t)i + 1, e);
    }
    if (r == OK) r = tok_finish(t, where, e);
    if (r) tokenizer_close(t);
    else *out = t;
    return r;
}

int tokenizer_trainer_build(tokenizer_trainer *tr, int size, double min_count, tokenizer **t, err *e)
{
    builder b = { .kind = tr->kind, .lower = tr->lower, .size = size };
    int     r = OK;
    *t = NULL;
    if (!(min_count >= 0) || min_count > 1e9) return err_set(e, E_ARG, "least count %g is not in 0..1e9", min_count);
    int smallest = tr->kind == TOK_BPE ? 257 : 1; /* WordPiece: letters() knows better */
    if (size < smallest || size > MAX_TOKENS) return err_set(e, E_ARG, "vocabulary size %d is not in %d..%d", size, smallest, MAX_TOKENS);
    uint64_t least = (uint64_t)llround(min_count * UNIT);
    size_t   slots = 16;
    while (slots < (size_t)size * 2) slots *= 2;
    b.sym       = arena_new(&b.mem, (size_t)size, sizeof *b.sym);
    b.slot      = arena_new(&b.mem, slots, sizeof *b.slot);
    /* Different pairs may give one string, so there can be more merges than symbols; each string of n bytes has n - 1 splits at most, and
     * past twice the size nothing is won. */
    b.merges    = arena_new(&b.mem, (size_t)size * 2, sizeof *b.merges);
    b.slot_mask = slots - 1;
    b.oom       = !b.sym || !b.slot || !b.merges;
    if (!b.oom && tr->kind == TOK_WORDPIECE) r = letters(tr, &b, least, e);
    if (!b.oom && tr->kind == TOK_BPE) bytes(&b);
    if (!b.oom && r == OK && spread_words(tr, &b)) b.oom = 1;
    if (!b.oom && r == OK) merge_all(&b, tr->kind == TOK_BPE ? size - 1 : size, least);
    if (!b.oom && r == OK && tr->kind == TOK_BPE) add_symbol(&b, STR("<|endoftext|>"));
    if (b.oom) r = err_set(e, E_NOMEM, "out of memory while building a vocabulary from %zu distinct words", tr->n);
    if (r == OK) r = to_tokenizer(&b, t, e);
    builder_free(&b);
    return r;
}
