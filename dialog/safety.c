/* safety: see safety.h.  The text is brought into its forms (normal.h), each form is cut into windows, the needles of all patterns are
 * looked up in a window (needle.h), and only patterns that can match are given to PCRE2.
 *
 * Limits, in PCRE2's own counting of steps from one starting point: GEAR_LOW is more than any pattern of the packs needs on ordinary
 * talk (they need about 60).  A window where it is not enough is tried again with GEAR_HIGH, at most HARD_WINDOWS times in one check.
 * What fails then is a limit hit, and that pattern is not run again in this check.  So the cost of a check grows with the text, not with
 * a power of it, whatever the patterns. */
#include "dialog/safety.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "dialog/identity.h"
#include "dialog/needle.h"
#include "dialog/normal.h"
#include "dialog/pack.h"

enum {
    GEAR_LOW = 150, GEAR_HIGH = 5000, HARD_WINDOWS = 8,
    INTERPRETED  = 10, /* times as many for PCRE2 without JIT, which counts each alternative it tries */
    HEAP_LIMIT   = 4096, /* KiB, for PCRE2 without JIT */
    DEPTH_LIMIT  = 5000,
    PARENS_LIMIT = 60,
    MAX_PACKS    = 64,
    NEEDLE_ENOUGH = 10, /* bytes: longer ones are hardly rarer, and only more */
    MAX_HITS     = 64, /* of one pattern in one text, unless it redacts */
};

typedef struct {
    pcre2_code *re;
    int         rule;
} pattern;

struct safety {
    arena        a;
    pack_rule   *rule; /* (n_rule,) */
    int          n_rule;
    pattern     *pat;  /* (n_pat,) */
    int          n_pat, n_word; /* n_word 64-bit words hold one bit for each pattern */
    uint64_t    *always[NEEDLE_SETS]; /* patterns without a first, a second set of needles */
    uint64_t    *side[2], *bared; /* patterns for the user's side and the reply's; patterns that look at the bare forms too */
    needle_table needles;
    int          steps; /* 1, or INTERPRETED when some pattern could not be compiled to machine code */
    char         digest[65];
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

typedef struct {
    char *path[MAX_PACKS];
    int   n;
} paths;

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int add_path(safety *s, paths *f, const char *dir, const char *name, err *e)
{
    if (f->n == MAX_PACKS) return err_set(e, E_LIMIT, "%s: more than %d rule packs", dir, MAX_PACKS);
    size_t d = strlen(dir), n = name ? strlen(name) : 0;
    char  *p = arena_new(&s->a, d + n + 2, 1);
    if (!p) return err_set(e, E_NOMEM, "out of memory listing %s", dir);
    memcpy(p, dir, d);
    if (name) {
        if (d && p[d - 1] != '/') p[d++] = '/';
        memcpy(p + d, name, n);
    }
    f->path[f->n++] = p;
    return OK;
}

static int list_folder(safety *s, paths *f, const char *path, err *e)
{
    DIR *d = opendir(path);
    if (!d) return err_set(e, E_IO, "%s: cannot open the folder: %s", path, strerror(errno));
    int first = f->n, rc = OK;
    for (struct dirent *x; rc == OK && (x = readdir(d));) {
        size_t n = strlen(x->d_name);
        if (n > 6 && x->d_name[0] != '.' && strcmp(x->d_name + n - 6, ".rules") == 0) rc = add_path(s, f, path, x->d_name, e);
    }
    closedir(d);
    if (rc == OK && f->n == first) rc = err_set(e, E_FORMAT, "%s: no *.rules in the folder", path);
    if (rc == OK) qsort(f->path + first, (size_t)(f->n - first), sizeof f->path[0], by_name);
    return rc;
}

static int load_packs(safety *s, const paths *f, err *e)
{
    sha256        h;
    unsigned char sum[32], head[8] = { 'r', 'u', 'l', 'e', 's', '1', 'n', NORMAL_VERSION };
    buf           b  = { 0 };
    int           rc = OK;
    s->rule = arena_new(&s->a, PACK_MAX_RULES, sizeof *s->rule);
    if (!s->rule) return err_set(e, E_NOMEM, "out of memory for the rules");
    sha256_init(&h);
    sha256_add(&h, head, sizeof head);
    for (int i = 0; i < f->n && rc == OK; i++) {
        unsigned char len[8];
        buf_reset(&b);
        rc = read_file(f->path[i], PACK_MAX_FILE, &b, e);
        if (rc == OK) rc = pack_read(f->path[i], buf_view(&b), s->rule, &s->n_rule, PACK_MAX_RULES, &s->a, e);
        for (int k = 0; k < 8; k++) len[k] = (unsigned char)((uint64_t)b.n >> 8 * k);
        sha256_add(&h, len, sizeof len);
        sha256_add(&h, buf_view(&b).s, b.n);
    }
    sha256_end(&h, sum);
    sha256_hex(sum, s->digest);
    buf_free(&b);
    return rc;
}

/* The repeat at s[i], just behind an atom: 0 none, 1 limited, 2 without limit; *skip: its bytes. */
static int repeat_at(str s, size_t i, size_t *skip)
{
    *skip = 0;
    if (i >= s.n) return 0;
    *skip = 1;
    if (s.s[i] == '*' || s.s[i] == '+') return 2;
    if (s.s[i] == '?') return 1;
    size_t k = i + 1;
    while (s.s[i] == '{' && k < s.n && ((s.s[k] >= '0' && s.s[k] <= '9') || s.s[k] == ',')) k++;
    if (s.s[i] != '{' || k == i + 1 || k >= s.n || s.s[k] != '}') return *skip = 0, 0;
    *skip = k + 1 - i;
    return s.s[k - 1] == ',' ? 2 : 1;
}

/* Whether an unlimited repeat contains a look-around with an unlimited repeat of its own, as (?:(?=a+)a)+ does.  What happens inside a
 * look-around is not seen by the step limit of PCRE2's machine code, so such a pattern could take the cube of a window's length. */
static int unbounded_look(str s)
{
    enum { OPEN = 1, LOOK = 2, DEEP = 4 }; /* an unlimited repeat; is a look-around; contains a look-around with an unlimited repeat */
    unsigned char level[PARENS_LIMIT + 2] = { 0 };
    size_t        d = 0, skip;
    for (size_t i = 0; i < s.n;) {
        int closed = 0;
        if (s.s[i] == '\\') {
            i += 2;
        } else if (s.s[i] == '[') {
            for (i += 1 + (i + 1 < s.n && s.s[i + 1] == '^'), i++; i < s.n && s.s[i] != ']'; i++) i += s.s[i] == '\\';
            i++;
        } else if (s.s[i] == '(' && d < PARENS_LIMIT) {
            str t = { s.s + i, s.n - i };
            level[++d] = (t.n > 3 && t.s[1] == '?' && (t.s[2] == '=' || t.s[2] == '!' || (t.s[2] == '<' && (t.s[3] == '=' || t.s[3] == '!')))) ? LOOK : 0;
            i += t.n > 2 && t.s[1] == '?' ? 2 : 1;
            continue;
        } else {
            closed = s.s[i] == ')' && d > 0;
            i++;
        }
        int inner = closed ? level[d--] : 0, how = repeat_at(s, i, &skip);
        if ((inner & DEEP) && how == 2) return 1;
        if ((inner & LOOK) && (inner & OPEN)) inner |= DEEP;
        level[d] |= (unsigned char)((inner & (OPEN | DEEP)) | (how == 2 ? OPEN : 0));
        i += skip;
        if (skip && i < s.n && (s.s[i] == '?' || s.s[i] == '+')) i++; /* lazy, possessive */
    }
    return 0;
}

static int compile(pattern *p, const pack_rule *x, int k, pcre2_compile_context *cc, int *steps, err *e)
{
    int        code, might_be_empty = 0;
    PCRE2_SIZE at;
    str        t = x->pattern[k];
    /* text is lower case with spaces for line ends, so no CASELESS and no MULTILINE; parentheses only group */
    p->re = pcre2_compile((PCRE2_SPTR)t.s, t.n,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL | PCRE2_NO_AUTO_CAPTURE | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C, &code,
                          &at, cc);
    if (!p->re) {
        PCRE2_UCHAR why[120];
        pcre2_get_error_message(code, why, sizeof why);
        size_t from = at > 16 ? at - 16 : 0;
        if (from > t.n) from = t.n;
        while (from < t.n && ((unsigned char)t.s[from] & 0xC0) == 0x80) from++;
        size_t show = t.n - from < 32 ? t.n - from : 32;
        return err_set(e, E_FORMAT, "%s:%d: rule %.*s: %s at offset %zu, near \"%.*s\"", x->r.file, x->pattern_line[k], (int)x->r.id.n, x->r.id.s,
                       (const char *)why, (size_t)at, (int)show, t.s + from);
    }
    if (pcre2_pattern_info(p->re, PCRE2_INFO_MATCHEMPTY, &might_be_empty) == 0 && might_be_empty)
        return err_set(e, E_FORMAT, "%s:%d: rule %.*s: the pattern can match nothing at all, so it would hit every text", x->r.file,
                       x->pattern_line[k], (int)x->r.id.n, x->r.id.s);
    if (unbounded_look(t))
        return err_set(e, E_FORMAT, "%s:%d: rule %.*s: a look-around with an unlimited repeat stands inside an unlimited repeat: nothing bounds its cost",
                       x->r.file, x->pattern_line[k], (int)x->r.id.n, x->r.id.s);
    /* Without JIT (no support on this CPU, no executable memory) the interpreter does the same, slower. */
    if (pcre2_jit_compile(p->re, PCRE2_JIT_COMPLETE) != 0) *steps = INTERPRETED;
    return OK;
}

static void set_bit(uint64_t *v, int i) { v[i / 64] |= (uint64_t)1 << (i % 64); }

static int foreign_letter(const pack_rule *x, int k, uint32_t cp, err *e)
{
    char     c[5] = { 0 }, d[5] = { 0 };
    uint32_t to = normal_cp(cp);
    utf8_put(cp, c);
    if (to) utf8_put(to, d);
    return err_set(e, E_FORMAT, "%s:%d: rule %.*s: \"%s\" (U+%04X) can never match: the text %s%s%s before matching", x->r.file, x->pattern_line[k],
                   (int)x->r.id.n, x->r.id.s, c, (unsigned)cp, to ? "has it as \"" : "loses it", d, to ? "\"" : "");
}

/* Needles of pattern i into list[*n..), which grows. */
static int gather_needles(safety *s, int i, int k, needle **list, size_t *n, size_t *cap, arena *scratch, err *e)
{
    const pack_rule *x = &s->rule[s->pat[i].rule];
    str     *v[NEEDLE_SETS];
    int      m[NEEDLE_SETS];
    uint32_t foreign;
    int      rc = needles_of(x->pattern[k], scratch, v, m, &foreign, e);
    if (rc != OK) return rc;
    if (foreign) return foreign_letter(x, k, foreign, e);
    for (int q = 0; q < NEEDLE_SETS; q++) {
        if (m[q] == 0) set_bit(s->always[q], i);
        while (*cap - *n < (size_t)m[q]) {
            size_t  c = *cap ? *cap * 2 : 1024;
            needle *p = realloc(*list, c * sizeof *p);
            if (!p) return err_set(e, E_NOMEM, "out of memory for the needles of %d rules", s->n_rule);
            *list = p;
            *cap  = c;
        }
        for (int j = 0; j < m[q]; j++) {
            if (v[q][j].n > NEEDLE_ENOUGH) v[q][j].n = NEEDLE_ENOUGH; /* the beginning of a needle is one as well */
            str kept = arena_str(&s->a, v[q][j], e);
            if (!kept.s) return E_NOMEM;
            (*list)[(*n)++] = (needle){ .s = kept, .pattern = i, .set = q };
        }
    }
    return OK;
}

static int compile_all(safety *s, err *e)
{
    pcre2_compile_context *cc      = pcre2_compile_context_create(NULL);
    arena                  scratch = { 0 };
    needle                *list    = NULL;
    size_t                 n = 0, cap = 0;
    int                    rc = OK, total = 0;
    for (int r = 0; r < s->n_rule; r++) total += s->rule[r].n_pattern;
    s->steps   = 1;
    s->n_word  = total / 64 + 1;
    s->pat     = arena_new(&s->a, (size_t)total, sizeof *s->pat);
    for (int q = 0; q < NEEDLE_SETS; q++) s->always[q] = arena_new(&s->a, (size_t)s->n_word, sizeof *s->always[q]);
    s->bared   = arena_new(&s->a, (size_t)s->n_word, sizeof *s->bared);
    s->side[0] = arena_new(&s->a, (size_t)s->n_word, sizeof *s->side[0]);
    s->side[1] = arena_new(&s->a, (size_t)s->n_word, sizeof *s->side[1]);
    if (!cc || !s->pat || !s->always[0] || !s->always[1] || !s->bared || !s->side[0] || !s->side[1]) {
        rc = err_set(e, E_NOMEM, "out of memory for %d patterns", total);
        goto out;
    }
    pcre2_set_parens_nest_limit(cc, PARENS_LIMIT);
    for (int r = 0; r < s->n_rule; r++) {
        const pack_rule *x = &s->rule[r];
        for (int k = 0; k < x->n_pattern; k++) {
            int i = s->n_pat++;
            s->pat[i].rule = r;
            if (x->r.where & WHERE_USER) set_bit(s->side[0], i);
            if (x->r.where & WHERE_REPLY) set_bit(s->side[1], i);
            if (!x->view_plain) set_bit(s->bared, i);
            rc = compile(&s->pat[i], x, k, cc, &s->steps, e);
            if (rc == OK) rc = gather_needles(s, i, k, &list, &n, &cap, &scratch, e);
            arena_reset(&scratch);
            if (rc != OK) goto out;
        }
    }
    needle *kept = arena_new(&s->a, n, sizeof *kept);
    if (!kept) {
        rc = err_set(e, E_NOMEM, "out of memory for %zu needles", n);
        goto out;
    }
    if (n) memcpy(kept, list, n * sizeof *kept);
    rc = needle_table_build(&s->needles, kept, (int)n, &s->a, e);
out:
    free(list);
    arena_free(&scratch);
    pcre2_compile_context_free(cc);
    return rc;
}

int safety_open(safety **out, const char *const *path, int n_path, err *e)
{
    *out      = NULL;
    safety *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, E_NOMEM, "out of memory for the rules");
    paths f  = { .n = 0 };
    int   rc = OK;
    for (int i = 0; i < n_path && rc == OK; i++) {
        struct stat st;
        if (stat(path[i], &st) == 0 && S_ISDIR(st.st_mode)) rc = list_folder(s, &f, path[i], e);
        else rc = add_path(s, &f, path[i], NULL, e);
    }
    if (rc == OK) rc = load_packs(s, &f, e);
    if (rc == OK) rc = compile_all(s, e);
    if (rc == OK) *out = s;
    else safety_close(s);
    return rc;
}

void safety_close(safety *s)
{
    if (!s) return;
    for (int i = 0; i < s->n_pat; i++) pcre2_code_free(s->pat[i].re);
    arena_free(&s->a);
    free(s);
}

int                safety_n_rules(const safety *s) { return s->n_rule; }
const safety_rule *safety_rule_at(const safety *s, int i) { return i >= 0 && i < s->n_rule ? &s->rule[i].r : NULL; }
const char        *safety_digest(const safety *s) { return s->digest; }

int safety_find_rule(const safety *s, str id)
{
    for (int i = 0; i < s->n_rule; i++)
        if (str_eq(s->rule[i].r.id, id)) return i;
    return -1;
}

const char *safety_action_name(int action)
{
    static const char *const names[] = { "none", "flag", "warn", "redact", "block" };
    return action >= RULE_NONE && action <= RULE_BLOCK ? names[action] : "?";
}

/* ---- matching --------------------------------------------------------------------------------------------------- */

typedef struct {
    const safety        *s;
    pcre2_match_data    *md;
    pcre2_match_context *gear[2];
    uint64_t            *ask, *dead; /* patterns wanted; patterns that ran into the limit */
    uint64_t            *seen[NEEDLE_SETS];
    int                 *count;      /* hits of each pattern in this form */
    int                  hard;       /* windows still allowed in the high gear */
    safety_hit          *hit;
    size_t               n, cap;
    size_t               text_n;     /* bytes of the original */
} matcher;

static int add_hit(matcher *m, int rule, int limit, size_t from, size_t to, err *e)
{
    if (m->n == m->cap) {
        size_t      bytes, cap = m->cap ? m->cap * 2 : 16;
        safety_hit *p = mul_size(cap, sizeof *p, &bytes) ? NULL : realloc(m->hit, bytes);
        if (!p) return err_set(e, E_NOMEM, "out of memory for %zu hits", cap);
        m->hit = p;
        m->cap = cap;
    }
    m->hit[m->n++] = (safety_hit){ rule, limit, from, to };
    return OK;
}

/* One pattern on one window: matches that begin in [from, until) and end by `end`. */
static int run_pattern(matcher *m, int i, const normal *x, size_t from, size_t until, size_t end, err *e)
{
    const pattern   *p    = &m->s->pat[i];
    const pack_rule *r    = &m->s->rule[p->rule];
    uint32_t         opts = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | (end < x->text.n ? PCRE2_NOTEOL : 0);
    int              high = 0;
    for (size_t at = from; at < until;) {
        pcre2_set_offset_limit(m->gear[high], until - 1);
        int rc = pcre2_match(p->re, (PCRE2_SPTR)x->text.s, end, at, opts, m->md, m->gear[high]);
        if (rc == PCRE2_ERROR_NOMATCH) return OK;
        if (rc < 0) {
            if (!high && m->hard > 0) {
                m->hard--;
                high = 1;
                continue;
            }
            set_bit(m->dead, i);
            return add_hit(m, p->rule, 1, (size_t)x->from.v[from], m->text_n, e);
        }
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(m->md);
        size_t a = o[0], b = o[1];
        int    good = a < b && b <= end && (r->check == IDENTITY_NONE || identity_holds(r->check, (str){ x->text.s + a, b - a }));
        if (good) {
            int arc = add_hit(m, p->rule, 0, (size_t)x->from.v[a], (size_t)x->to.v[b - 1], e);
            if (arc != OK) return arc;
            if (r->r.action != RULE_REDACT && ++m->count[i] >= MAX_HITS) return OK;
        }
        size_t next = good ? b : a + 1;
        at = next > at ? next : at + 1;
        while (at < until && ((unsigned char)x->text.s[at] & 0xC0) == 0x80) at++;
    }
    return OK;
}

static int char_start(const normal *x, size_t at)
{
    while (at < x->text.n && ((unsigned char)x->text.s[at] & 0xC0) == 0x80) at++;
    return (int)at;
}

static int run_form(matcher *m, const normal *x, const uint64_t *mask, err *e)
{
    const safety *s = m->s;
    memset(m->count, 0, (size_t)s->n_pat * sizeof *m->count);
    for (size_t from = 0; from < x->text.n;) {
        size_t until = x->text.n - from > SAFETY_WINDOW ? (size_t)char_start(x, from + SAFETY_WINDOW) : x->text.n;
        size_t end   = x->text.n - until > SAFETY_REACH ? (size_t)char_start(x, until + SAFETY_REACH) : x->text.n;
        for (int q = 0; q < NEEDLE_SETS; q++) memcpy(m->seen[q], s->always[q], (size_t)s->n_word * sizeof *m->seen[q]);
        needle_scan(&s->needles, (str){ x->text.s + from, end - from }, m->seen);
        for (int w = 0; w < s->n_word; w++) {
            uint64_t todo = m->seen[0][w] & m->seen[1][w] & m->ask[w] & ~m->dead[w] & (mask ? mask[w] : ~(uint64_t)0);
            for (; todo; todo &= todo - 1) {
                int i = w * 64 + __builtin_ctzll(todo);
                if (m->count[i] >= MAX_HITS) continue;
                int rc = run_pattern(m, i, x, from, until, end, e);
                if (rc != OK) return rc;
            }
        }
        from = until;
    }
    return OK;
}

static int same_text(const normal *a, const normal *b) { return str_eq(buf_view(&a->text), buf_view(&b->text)); }

static int run_forms(matcher *m, str text, err *e)
{
    normal plain = { 0 }, one = { 0 }, two = { 0 };
    int    rc = normal_plain(&plain, text, e);
    if (rc == OK) rc = run_form(m, &plain, NULL, e);
    if (rc == OK) rc = normal_bare(&one, &plain, 1, e);
    if (rc == OK && !same_text(&one, &plain)) {
        rc = run_form(m, &one, m->s->bared, e);
        if (rc == OK) rc = normal_bare(&two, &plain, 2, e);
        if (rc == OK && !same_text(&two, &plain) && !same_text(&two, &one)) rc = run_form(m, &two, m->s->bared, e);
    }
    normal_free(&plain);
    normal_free(&one);
    normal_free(&two);
    return rc;
}

static int by_rule(const void *x, const void *y)
{
    const safety_hit *a = x, *b = y;
    if (a->rule != b->rule) return a->rule < b->rule ? -1 : 1;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    return a->to < b->to ? -1 : a->to > b->to;
}

static int by_place(const void *x, const void *y)
{
    const safety_hit *a = x, *b = y;
    if (a->from != b->from) return a->from < b->from ? -1 : 1;
    if (a->to != b->to) return a->to > b->to ? -1 : 1;
    return a->rule < b->rule ? -1 : a->rule > b->rule;
}

/* One rule's overlapping hits become one; then all by position, longer first. */
static size_t tidy(safety_hit *h, size_t n)
{
    if (n == 0) return 0;
    size_t k = 0;
    qsort(h, n, sizeof *h, by_rule);
    for (size_t i = 1; i < n; i++) {
        if (h[i].rule == h[k].rule && h[i].from < h[k].to) {
            if (h[i].to > h[k].to) h[k].to = h[i].to;
            h[k].limit |= h[i].limit;
        } else {
            h[++k] = h[i];
        }
    }
    qsort(h, k + 1, sizeof *h, by_place);
    return k + 1;
}

/* The hits of the patterns in `ask` on text, in m->hit, which the caller frees. */
static int match_text(matcher *m, const safety *s, const uint64_t *ask, str text, err *e)
{
    arena  scratch = { 0 };
    size_t words   = (size_t)s->n_word;
    int    rc      = OK;
    *m = (matcher){ .s = s, .hard = HARD_WINDOWS, .text_n = text.n };
    m->ask     = arena_new(&scratch, words, sizeof *m->ask);
    m->dead    = arena_new(&scratch, words, sizeof *m->dead);
    for (int q = 0; q < NEEDLE_SETS; q++) m->seen[q] = arena_new(&scratch, words, sizeof *m->seen[q]);
    m->count   = arena_new(&scratch, (size_t)s->n_pat, sizeof *m->count);
    m->md      = pcre2_match_data_create(1, NULL);
    m->gear[0] = pcre2_match_context_create(NULL);
    m->gear[1] = pcre2_match_context_create(NULL);
    if (!m->ask || !m->dead || !m->seen[0] || !m->seen[1] || !m->count || !m->md || !m->gear[0] || !m->gear[1]) {
        rc = err_set(e, E_NOMEM, "out of memory checking a text");
    } else {
        memcpy(m->ask, ask, words * sizeof *ask);
        for (int g = 0; g < 2; g++) {
            pcre2_set_match_limit(m->gear[g], (uint32_t)(s->steps * (g ? GEAR_HIGH : GEAR_LOW)));
            pcre2_set_depth_limit(m->gear[g], DEPTH_LIMIT);
            pcre2_set_heap_limit(m->gear[g], HEAP_LIMIT);
        }
        rc = run_forms(m, text, e);
    }
    pcre2_match_context_free(m->gear[0]);
    pcre2_match_context_free(m->gear[1]);
    pcre2_match_data_free(m->md);
    arena_free(&scratch);
    if (rc == OK) m->n = tidy(m->hit, m->n);
    return rc;
}

int safety_check(const safety *s, str text, int where, arena *a, verdict *v, err *e)
{
    *v = (verdict){ .action = RULE_NONE, .rule = -1 };
    if (where != WHERE_USER && where != WHERE_REPLY) return err_set(e, E_ARG, "a text to check is the user's or a reply, not %d", where);
    if (s->n_pat == 0 || text.n == 0) return OK;
    matcher m;
    int     rc = match_text(&m, s, s->side[where == WHERE_REPLY], text, e);
    if (rc == OK && m.n > INT32_MAX) rc = err_set(e, E_LIMIT, "%zu hits in one text", m.n);
    if (rc == OK && m.n) {
        v->hit = arena_new(a, m.n, sizeof *v->hit);
        if (!v->hit) rc = err_set(e, E_NOMEM, "out of memory for %zu hits", m.n);
    }
    if (rc == OK && m.n) {
        memcpy(v->hit, m.hit, m.n * sizeof *v->hit);
        v->n_hit = (int)m.n;
        for (size_t i = 0; i < m.n; i++) {
            int r = m.hit[i].rule, action = s->rule[r].r.action;
            if (action > v->action || (action == v->action && r < v->rule)) v->action = action, v->rule = r;
        }
    }
    free(m.hit);
    return rc;
}

int safety_redact(const safety *s, str text, const verdict *v, arena *a, str *out, err *e)
{
    buf    b  = { 0 };
    size_t at = 0;
    int    han = 0, any = 0;
    *out = text;
    for (int i = 0; i < v->n_hit; i++) any |= s->rule[v->hit[i].rule].r.action == RULE_REDACT;
    if (!any) return OK;
    for (size_t i = 0; i < text.n && !han;) {
        uint32_t cp;
        i += utf8_next(text.s + i, text.n - i, &cp);
        han = cp != UTF8_BAD && normal_is_han(cp);
    }
    for (int i = 0; i < v->n_hit; i++) {
        const safety_hit  *h = &v->hit[i];
        const safety_rule *r = &s->rule[h->rule].r;
        if (r->action != RULE_REDACT || h->to > text.n || h->to <= at) continue;
        if (h->from >= at) {
            str first = han ? r->label_zh : r->label_en, second = han ? r->label_en : r->label_zh;
            buf_add(&b, text.s + at, h->from - at);
            buf_chr(&b, '[');
            buf_str(&b, first.n ? first : second.n ? second : r->category);
            buf_chr(&b, ']');
        }
        at = h->to; /* a span that overlaps the last one goes with it */
    }
    buf_add(&b, text.s + at, text.n - at);
    int rc = b.oom ? err_set(e, E_NOMEM, "out of memory redacting a text") : OK;
    if (rc == OK) {
        *out = arena_str(a, buf_view(&b), e);
        if (!out->s) rc = E_NOMEM;
    }
    buf_free(&b);
    return rc;
}

int safety_selftest(const safety *s, void (*fail)(void *ctx, const safety_rule *r, str test, int wanted), void *ctx, int *n_tests, err *e)
{
    uint64_t *ask = calloc((size_t)s->n_word, sizeof *ask);
    int       failures = 0, n = 0, rc = OK;
    if (!ask) return err_set(e, E_NOMEM, "out of memory testing the rules");
    for (int r = 0, first = 0; r < s->n_rule && rc == OK; first += s->rule[r++].n_pattern) {
        const pack_rule *x = &s->rule[r];
        memset(ask, 0, (size_t)s->n_word * sizeof *ask);
        for (int k = 0; k < x->n_pattern; k++) set_bit(ask, first + k);
        for (int t = 0; t < x->n_test && rc == OK; t++) {
            matcher m;
            rc = match_text(&m, s, ask, x->test[t], e);
            int hit = m.n > 0;
            free(m.hit);
            n++;
            if (rc == OK && hit != x->test_wanted[t]) {
                failures++;
                if (fail) fail(ctx, &x->r, x->test[t], x->test_wanted[t]);
            }
        }
    }
    free(ask);
    if (n_tests) *n_tests = n;
    return rc == OK ? failures : rc;
}
