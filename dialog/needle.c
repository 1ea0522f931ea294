/* needle: see needle.h.  A small recursive descent over the pattern carries two facts upward for each part: the finite set of
 * strings it matches, if that is small ("exact"), and the best set of strings one of which it must contain ("need"). */
#include "dialog/needle.h"

#include <stdlib.h>
#include <string.h>

#include "dialog/normal.h"

enum { MAX_SET = 512, MAX_CROSS = 128, MAX_CLASS = 16, MAX_DEPTH = 40, MAX_NEEDLE = 64 };

typedef struct {
    str *v;
    int  n;
} set;
typedef struct {
    int exact; /* `is` holds every string of the part */
    set is;
    set need[NEEDLE_SETS]; /* better first; n = 0: nothing known */
} part;
typedef struct {
    const char *p, *end;
    arena      *a;
    int         depth, strange, oom; /* strange: something this reader does not follow */
    uint32_t    foreign;
} reader;

static const part NOTHING = { 0 };

static part exact_of(reader *r, const char *s, size_t n)
{
    part p = { .exact = 1 };
    char *c = arena_new(r->a, n + 1, 1);
    p.is.v  = arena_new(r->a, 1, sizeof *p.is.v);
    if (!c || !p.is.v) {
        r->oom = 1;
        return NOTHING;
    }
    if (n) memcpy(c, s, n);
    p.is.v[0] = (str){ c, n };
    p.is.n    = 1;
    return p;
}

static size_t shortest(set s)
{
    size_t m = s.n ? SIZE_MAX : 0;
    for (int i = 0; i < s.n; i++)
        if (s.v[i].n < m) m = s.v[i].n;
    return m;
}

/* Longer needles are rarer; six bytes (two Han characters) are rare enough, then fewer is better. */
static set better(set a, set b)
{
    size_t la = shortest(a), lb = shortest(b);
    if (la == 0) return lb == 0 ? (set){ 0 } : b;
    if (lb == 0) return a;
    if (la > 6) la = 6;
    if (lb > 6) lb = 6;
    if (la != lb) return la > lb ? a : b;
    return a.n <= b.n ? a : b;
}

static set need_of(part p) { return p.exact ? better(p.is, (set){ 0 }) : p.need[0]; }

/* Another set that is needed: keep the best ones. */
static void add_need(part *p, set s)
{
    set first = better(p->need[0], s);
    if (first.n == 0) return;
    if (first.v == p->need[0].v) p->need[1] = better(p->need[1], s);
    else p->need[1] = p->need[0], p->need[0] = first;
}

static set joined(reader *r, set a, set b)
{
    set c = { arena_new(r->a, (size_t)(a.n + b.n), sizeof *c.v), a.n + b.n };
    if (!c.v) {
        r->oom = 1;
        return (set){ 0 };
    }
    if (a.n) memcpy(c.v, a.v, (size_t)a.n * sizeof *c.v);
    if (b.n) memcpy(c.v + a.n, b.v, (size_t)b.n * sizeof *c.v);
    return c;
}

static int crossable(set a, set b)
{
    if (a.n * b.n > MAX_CROSS) return 0;
    for (int i = 0; i < a.n; i++)
        for (int k = 0; k < b.n; k++)
            if (a.v[i].n + b.v[k].n > MAX_NEEDLE) return 0;
    return 1;
}

static set crossed(reader *r, set a, set b)
{
    set c = { arena_new(r->a, (size_t)(a.n * b.n), sizeof *c.v), 0 };
    for (int i = 0; c.v && i < a.n; i++) {
        for (int k = 0; k < b.n; k++) {
            size_t n = a.v[i].n + b.v[k].n;
            char  *s = arena_new(r->a, n + 1, 1);
            if (!s) {
                r->oom = 1;
                return c;
            }
            if (a.v[i].n) memcpy(s, a.v[i].s, a.v[i].n);
            if (b.v[k].n) memcpy(s + a.v[i].n, b.v[k].s, b.v[k].n);
            c.v[c.n++] = (str){ s, n };
        }
    }
    if (!c.v) r->oom = 1;
    return c;
}

static int at(const reader *r, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(r->end - r->p) >= n && memcmp(r->p, word, n) == 0;
}

static part literal(reader *r, uint32_t cp)
{
    char   s[4];
    size_t n = utf8_put(cp, s);
    if (n == 0) {
        r->strange = 1;
        return NOTHING;
    }
    if (!r->foreign && !(cp >= 'a' && cp <= 'z') && normal_cp(cp) != cp) r->foreign = cp;
    return exact_of(r, s, n);
}

/* \x{...} after the x, or \xhh. */
static int hex(reader *r, uint32_t *cp)
{
    int braced = r->p < r->end && *r->p == '{', n = 0;
    r->p += braced;
    *cp = 0;
    while (r->p < r->end && n < (braced ? 6 : 2)) {
        const char *d = strchr("0123456789abcdef0123456789ABCDEF", *r->p);
        if (!d || !*r->p) break;
        *cp = *cp * 16 + (uint32_t)((d - "0123456789abcdef0123456789ABCDEF") % 16);
        r->p++;
        n++;
    }
    if (!n || (braced && !(r->p < r->end && *r->p == '}'))) return -1;
    r->p += braced;
    return 0;
}

/* After the backslash.  *cp is the literal when there is one (returns 1); 0: a class of characters; 2: matches no text; -1: strange. */
static int escape(reader *r, uint32_t *cp)
{
    if (r->p >= r->end) return -1;
    unsigned char c = (unsigned char)*r->p++;
    if (c == 'x') return hex(r, cp) ? -1 : 1;
    if (c == 'p' || c == 'P') {
        if (r->p < r->end && *r->p == '{')
            while (r->p < r->end && *r->p != '}') r->p++;
        if (r->p < r->end) r->p++;
        return 0;
    }
    if (c == 'N' && r->p < r->end && *r->p == '{') return -1;
    if (c && strchr("dDsSwWhHvVNRX", c)) return 0;
    if (c && strchr("bBAzZGK", c)) return 2; /* \K moves the start of the match, not what must be there */
    if (c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return -1;
    *cp = c;
    return 1;
}

static part class_of(reader *r) /* after '[' */
{
    int      many = 0, first = 1, n = 0;
    uint32_t cps[MAX_CLASS];
    if (r->p < r->end && *r->p == '^') many = 1, r->p++;
    while (r->p < r->end && (first || *r->p != ']')) {
        uint32_t cp = 0;
        first       = 0;
        if (at(r, "[:") || at(r, "[.") || at(r, "[=")) {
            r->strange = 1;
            return NOTHING;
        }
        if (*r->p == '\\') {
            r->p++;
            int k = r->p < r->end && *r->p == 'b' ? -1 : escape(r, &cp);
            if (k < 0 || k == 2) {
                r->strange = 1;
                return NOTHING;
            }
            many |= k == 0;
        } else {
            r->p += utf8_next(r->p, (size_t)(r->end - r->p), &cp);
        }
        uint32_t last = cp;
        if (r->p + 1 < r->end && *r->p == '-' && r->p[1] != ']') {
            r->p++;
            r->p += utf8_next(r->p, (size_t)(r->end - r->p), &last);
            many |= last == '\\' || last < cp || last - cp >= MAX_CLASS; /* an escape as the end of a range is left to PCRE2 */
        }
        for (; cp <= last && !many; cp++) {
            if (n == MAX_CLASS) many = 1;
            else cps[n++] = cp;
        }
    }
    if (r->p >= r->end) {
        r->strange = 1;
        return NOTHING;
    }
    r->p++;
    if (many) return NOTHING;
    part p = { .exact = 1 };
    for (int i = 0; i < n; i++) {
        part one = literal(r, cps[i]);
        if (r->strange || r->oom) return NOTHING;
        p.is = joined(r, p.is, one.is);
    }
    return p;
}

static part alternatives(reader *r);

static part parenthesis(reader *r) /* after '(' */
{
    int silent = 0;
    if (at(r, "?")) {
        if (at(r, "?:")) r->p += 2;
        else if (at(r, "?>") || at(r, "?|")) r->p += 2;
        else if (at(r, "?=") || at(r, "?!")) r->p += 2, silent = 1;
        else if (at(r, "?<=") || at(r, "?<!")) r->p += 3, silent = 1;
        else {
            r->strange = 1;
            return NOTHING;
        }
    } else if (at(r, "*")) {
        r->strange = 1;
        return NOTHING;
    }
    part p = alternatives(r);
    if (r->strange || r->oom) return NOTHING;
    if (r->p >= r->end || *r->p != ')') {
        r->strange = 1;
        return NOTHING;
    }
    r->p++;
    return silent ? exact_of(r, "", 0) : p;
}

/* A quantifier, if one stands here: 0 none, 1 with the lower bound in *min and the upper in *max (-1 without end). */
static int quantifier(reader *r, int *min, int *max)
{
    if (r->p >= r->end) return 0;
    char c = *r->p;
    if (c == '*') *min = 0, *max = -1, r->p++;
    else if (c == '+') *min = 1, *max = -1, r->p++;
    else if (c == '?') *min = 0, *max = 1, r->p++;
    else if (c == '{') {
        const char *q = r->p + 1;
        int digits = 0;
        for (*min = 0; q < r->end && *q >= '0' && *q <= '9' && digits < 6; q++, digits++) *min = *min * 10 + (*q - '0');
        if (!digits) return 0;
        *max = *min;
        if (q < r->end && *q == ',') {
            *max = -1;
            for (q++; q < r->end && *q >= '0' && *q <= '9'; q++) *max = *max < 0 ? *q - '0' : *max > 99999 ? *max : *max * 10 + (*q - '0');
        }
        if (q >= r->end || *q != '}') return 0;
        r->p = q + 1;
    } else return 0;
    if (r->p < r->end && (*r->p == '?' || *r->p == '+')) r->p++;
    return 1;
}

static part atom(reader *r)
{
    uint32_t cp;
    char     c = *r->p;
    if (c == '(') return r->p++, parenthesis(r);
    if (c == '[') return r->p++, class_of(r);
    if (c == '.') return r->p++, NOTHING;
    if (c == '^' || c == '$') return r->p++, exact_of(r, "", 0);
    if (c == '*' || c == '+' || c == '?' || c == '{') { /* a brace that is no quantifier here may be one in another PCRE2 */
        r->strange = 1;
        return NOTHING;
    }
    if (c == '\\') {
        r->p++;
        int k = escape(r, &cp);
        if (k == 1) return literal(r, cp);
        if (k == 2) return exact_of(r, "", 0);
        if (k < 0) r->strange = 1;
        return NOTHING;
    }
    r->p += utf8_next(r->p, (size_t)(r->end - r->p), &cp);
    return literal(r, cp);
}

static part sequence(reader *r)
{
    part all = exact_of(r, "", 0);
    set  run = all.is;
    int  whole = 1; /* run is still everything since the start */
    while (!r->strange && !r->oom && r->p < r->end && *r->p != '|' && *r->p != ')') {
        int  min = 1, max = 1;
        part p = atom(r);
        if (r->strange || r->oom) return NOTHING;
        if (quantifier(r, &min, &max)) {
            if (p.exact && min == 0 && max == 1) p.is = joined(r, p.is, exact_of(r, "", 0).is);
            else if (min == 0) p = NOTHING;
            else if (min != 1 || max != 1) p = (part){ .need = { need_of(p) } };
        }
        if (r->oom) return NOTHING;
        if (p.exact && p.is.n && crossable(run, p.is)) {
            run = crossed(r, run, p.is);
            continue;
        }
        add_need(&all, run);
        whole = 0;
        if (p.exact && p.is.n) {
            run = p.is;
        } else {
            for (int k = 0; k < NEEDLE_SETS; k++) add_need(&all, p.need[k]);
            run = exact_of(r, "", 0).is;
        }
    }
    if (r->strange || r->oom) return NOTHING;
    if (whole) return (part){ .exact = 1, .is = run };
    add_need(&all, run);
    all.exact = 0;
    return all;
}

static part alternatives(reader *r)
{
    if (++r->depth > MAX_DEPTH) {
        r->strange = 1;
        return NOTHING;
    }
    part p = sequence(r);
    while (!r->strange && !r->oom && r->p < r->end && *r->p == '|') {
        r->p++;
        part q = sequence(r);
        if (r->strange || r->oom) return NOTHING;
        if (p.exact && q.exact && p.is.n + q.is.n <= MAX_SET) {
            p.is = joined(r, p.is, q.is);
            continue;
        }
        set a = need_of(p), b = need_of(q);
        p = NOTHING;
        if (a.n && b.n && a.n + b.n <= MAX_SET) p.need[0] = joined(r, a, b);
    }
    r->depth--;
    return p;
}

int needles_of(str pattern, arena *a, str *needle_out[NEEDLE_SETS], int n[NEEDLE_SETS], uint32_t *foreign, err *e)
{
    reader r = { .p = pattern.s, .end = pattern.s + pattern.n, .a = a };
    part   p = alternatives(&r);
    if (r.oom) return err_set(e, E_NOMEM, "out of memory reading a pattern of %zu bytes", pattern.n);
    if (r.p < r.end) r.strange = 1;
    *foreign = r.strange ? 0 : r.foreign;
    if (p.exact) p.need[0] = need_of(p);
    for (int k = 0; k < NEEDLE_SETS; k++) {
        needle_out[k] = r.strange ? NULL : p.need[k].v;
        n[k]          = r.strange ? 0 : p.need[k].n;
    }
    return OK;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

/* Of the first three bytes of a needle or of a place in the text. */
static unsigned bucket(const char *s)
{
    unsigned three = (unsigned char)s[0] | (unsigned)(unsigned char)s[1] << 8 | (unsigned)(unsigned char)s[2] << 16;
    return (three * 2654435761u) >> 19; /* 13 bits: NEEDLE_BUCKETS */
}

static unsigned group(const needle *x) /* the sort key: length class, then place in its table */
{
    if (x->s.n <= 2) return (unsigned)(x->s.n - 1) << 8 | (unsigned char)x->s.s[0];
    return 512 + bucket(x->s.s);
}

static int by_group(const void *x, const void *y)
{
    const needle *a = x, *b = y;
    unsigned      ga = group(a), gb = group(b);
    if (ga != gb) return ga < gb ? -1 : 1;
    size_t m = a->s.n < b->s.n ? a->s.n : b->s.n;
    int    c = memcmp(a->s.s, b->s.s, m);
    if (c) return c;
    if (a->s.n != b->s.n) return a->s.n < b->s.n ? -1 : 1;
    if (a->pattern != b->pattern) return a->pattern < b->pattern ? -1 : 1;
    return a->set < b->set ? -1 : a->set > b->set;
}

int needle_table_build(needle_table *t, needle *v, int n, arena *a, err *e)
{
    *t       = (needle_table){ .v = v, .n = n };
    t->two   = arena_new(a, 257, sizeof *t->two);
    t->start = arena_new(a, NEEDLE_BUCKETS + 1, sizeof *t->start);
    if (!t->two || !t->start) return err_set(e, E_NOMEM, "out of memory for the table of %d needles", n);
    if (n) qsort(v, (size_t)n, sizeof *v, by_group);
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (kept == 0 || by_group(&v[kept - 1], &v[i]) != 0) v[kept++] = v[i];
    t->n = n = kept;
    for (int i = n - 1; i >= 0; i--) {
        unsigned char h[4] = { 0 }, m[4] = { 0 };
        size_t        k = v[i].s.n < 4 ? v[i].s.n : 4;
        memcpy(h, v[i].s.s, k);
        memset(m, 0xFF, k);
        memcpy(&v[i].head, h, 4);
        memcpy(&v[i].mask, m, 4);
        v[i].run = i + 1 < n && str_eq(v[i].s, v[i + 1].s) ? v[i + 1].run + 1 : 1;
        if (v[i].s.n == 1) t->one++;
        else if (v[i].s.n == 2) t->two[(unsigned char)v[i].s.s[0] + 1]++;
        else t->start[bucket(v[i].s.s) + 1]++;
    }
    t->two[0] = (uint32_t)t->one;
    for (int c = 0; c < 256; c++) t->two[c + 1] += t->two[c];
    t->start[0] = t->two[256];
    for (int h = 0; h < NEEDLE_BUCKETS; h++) t->start[h + 1] += t->start[h];
    return OK;
}

static void mark(uint64_t *const *seen, const needle *x)
{
    for (int i = 0; i < x->run; i++) seen[x[i].set][x[i].pattern / 64] |= (uint64_t)1 << (x[i].pattern % 64);
}

void needle_scan(const needle_table *t, str text, uint64_t *const seen[NEEDLE_SETS])
{
    unsigned char has[256] = { 0 };
    for (size_t i = 0; i < text.n; i++) {
        size_t        left = text.n - i;
        unsigned char c    = (unsigned char)text.s[i];
        has[c] = 1;
        for (uint32_t k = t->two[c]; k < t->two[c + 1]; k += (uint32_t)t->v[k].run)
            if (left > 1 && text.s[i + 1] == t->v[k].s.s[1]) mark(seen, &t->v[k]);
        if (left < 3) continue;
        unsigned h = bucket(text.s + i);
        uint32_t k = t->start[h], end = t->start[h + 1];
        if (k == end) continue;
        uint32_t four = 0;
        memcpy(&four, text.s + i, left < 4 ? left : 4);
        for (; k < end; k += (uint32_t)t->v[k].run) {
            const needle *x = &t->v[k];
            if (((four ^ x->head) & x->mask) == 0 && x->s.n <= left && memcmp(x->s.s, text.s + i, x->s.n) == 0) mark(seen, x);
        }
    }
    for (int k = 0; k < t->one; k += t->v[k].run)
        if (has[(unsigned char)t->v[k].s.s[0]]) mark(seen, &t->v[k]);
}
