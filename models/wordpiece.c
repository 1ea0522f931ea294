/* wordpiece: BERT's basic tokeniser and greedy longest match, and the way back to readable text.
 * Source: Devlin et al. 2018 and the behaviour of BertTokenizerFast, which GPT2-chitchat models are trained with; the one
 * difference is ours on purpose: "[SEP]" and its like in a text are ordinary characters. */
#include "models/tokenizer_impl.h"

#include <string.h>

const str tok_gluing = { "##", 2 };

/* ---- normalising ----------------------------------------------------------------------------------------------- */

/* Combining marks that wait for canonical order.  A word of more than MAX_WORD_CHARS is [UNK] whatever its order, so longer runs
 * are not sorted. */
typedef struct {
    buf     *out;
    uint32_t run[MAX_WORD_CHARS];
    int      class[MAX_WORD_CHARS];
    int      n;
} writer;

static void space(buf *b)
{
    if (b->n && b->s[b->n - 1] != ' ') buf_chr(b, ' ');
}

static void put(writer *w, uint32_t cp)
{
    char   u[4];
    size_t n = utf8_put(cp, u);
    if (uni_class(cp) & UC_PUNCT) { /* a word of its own */
        space(w->out);
        buf_add(w->out, u, n);
        buf_chr(w->out, ' ');
    } else {
        buf_add(w->out, u, n);
    }
}

static void flush(writer *w)
{
    for (int i = 0; i < w->n; i++) put(w, w->run[i]);
    w->n = 0;
}

static void put_lower(writer *w, uint32_t cp)
{
    uint32_t d[UNI_MAX];
    int      n = uni_decompose(cp, d);
    for (int k = 0; k < n; k++) {
        int class = uni_combining(d[k]), i = w->n;
        if (class == 0 || w->n == MAX_WORD_CHARS) flush(w), i = 0;
        if (uni_class(d[k]) & UC_MARK) continue; /* accents go */
        if (class == 0) {
            put(w, uni_lower(d[k]));
            continue;
        }
        for (; i > 0 && w->class[i - 1] > class; i--) w->run[i] = w->run[i - 1], w->class[i] = w->class[i - 1];
        w->run[i] = uni_lower(d[k]), w->class[i] = class;
        w->n++;
    }
}

/* Steps in the reference's order: drop NUL, U+FFFD, controls; white space to ' '; spaces around CJK; lower: NFD, drop Mn,
 * lower-case; spaces around punctuation. */
void wp_normalise(str text, int lower, buf *out)
{
    writer w = { .out = out };
    for (size_t at = 0; at < text.n;) {
        uint32_t cp = (unsigned char)text.s[at];
        if (cp < 128) { /* most of English, without look-ups */
            at++;
            if (uni_class(cp) == UC_CONTROL) continue;
            flush(&w);
            if (cp >= 'a' && cp <= 'z') buf_chr(out, (char)cp);
            else if (cp >= 'A' && cp <= 'Z') buf_chr(out, (char)(lower ? cp + 32 : cp));
            else if (cp == ' ' || cp == '\t' || cp == '\n' || cp == '\r') space(out);
            else if (cp > 32) put(&w, cp);
            continue;
        }
        at += utf8_next(text.s + at, text.n - at, &cp);
        unsigned class = uni_class(cp);
        if (cp == UTF8_BAD || cp == 0xFFFD || class & UC_CONTROL) continue;
        if (class & UC_SPACE) {
            flush(&w);
            space(out);
            continue;
        }
        int cjk = uni_is_cjk(cp);
        if (cjk) flush(&w), space(out);
        if (lower) put_lower(&w, cp);
        else put(&w, cp);
        if (cjk) flush(&w), space(out);
    }
    flush(&w);
}

/* ---- matching -------------------------------------------------------------------------------------------------- */

static int is_inside(char c) { return ((unsigned char)c & 0xC0) == 0x80; }

/* Greedy: at each place the longest piece of the vocabulary; a word with a place where none fits is one [UNK]. */
static void encode_word(const tokenizer *t, str w, ivec *ids)
{
    uint64_t hash[4 * MAX_WORD_CHARS + 1];
    size_t   chars = 0, mark = ids->n;
    for (size_t i = 0; i < w.n; i++) chars += !is_inside(w.s[i]);
    for (size_t at = 0; at < w.n && chars <= MAX_WORD_CHARS;) {
        size_t longest = w.n - at < t->max_piece ? w.n - at : t->max_piece;
        str    prefix  = at ? tok_gluing : (str){ "", 0 };
        int    id      = -1;
        hash[0]        = tok_hash(TOK_HASH0, prefix.s, prefix.n);
        for (size_t i = 0; i < longest; i++) hash[i + 1] = tok_hash(hash[i], w.s + at + i, 1);
        size_t n = longest;
        for (; n > 0; n--) {
            if (at + n < w.n && is_inside(w.s[at + n])) continue;
            id = tok_lookup(t, hash[n], prefix, (str){ w.s + at, n });
            if (id >= 0 && t->type[id] != TYPE_CONTROL) break;
            id = -1;
        }
        if (id < 0) break;
        ivec_push(ids, id);
        if ((at += n) == w.n) return;
    }
    ids->n = mark;
    ivec_push(ids, t->sp.unk);
}

int wp_encode(const tokenizer *t, str text, ivec *ids, err *e)
{
    buf b = { 0 };
    wp_normalise(text, t->lower, &b);
    for (size_t at = 0, end; at < b.n && !b.oom; at = end + 1) {
        const char *p = memchr(b.s + at, ' ', b.n - at);
        end           = p ? (size_t)(p - b.s) : b.n;
        if (end > at) encode_word(t, (str){ b.s + at, end - at }, ids);
    }
    int oom = b.oom;
    buf_free(&b);
    return oom ? err_set(e, E_NOMEM, "out of memory for a text of %zu bytes", text.n) : OK;
}

/* ---- joining --------------------------------------------------------------------------------------------------- */

/* A word on the way out: a run of ids of which only the first is no "##" piece (or is one, where a text starts so). */
typedef struct {
    uint32_t first, last; /* its first and last character */
    size_t   chars;       /* 0: no word (before the first, after the last) */
    int      digits;      /* nothing but ASCII digits */
    str      head;        /* its first piece, when it is the only one; else empty */
} word;

static str piece(const tokenizer *t, int id, int *glued)
{
    str s  = t->tok[id];
    *glued = s.n > 2 && s.s[0] == '#' && s.s[1] == '#';
    return *glued ? (str){ s.s + 2, s.n - 2 } : s;
}

static size_t skip_special(const tokenizer *t, const int *ids, size_t n, size_t i)
{
    while (i < n && t->type[ids[i]] == TYPE_CONTROL) i++;
    return i;
}

/* The word at i (no special there); returns where it ends. */
static size_t read_word(const tokenizer *t, const int *ids, size_t n, size_t i, word *w)
{
    int pieces = 0, glued;
    *w         = (word){ .digits = 1 };
    for (; i < n && t->type[ids[i]] != TYPE_CONTROL; i++) {
        str s = piece(t, ids[i], &glued);
        if (pieces && !glued) break;
        w->head = pieces++ ? (str){ "", 0 } : s;
        for (size_t k = 0; k < s.n;) {
            uint32_t cp;
            k += utf8_next(s.s + k, s.n - k, &cp);
            if (w->chars++ == 0) w->first = cp;
            w->last = cp;
            if (cp < '0' || cp > '9') w->digits = 0;
        }
    }
    return i;
}

static int is(const word *w, uint32_t c) { return w->chars == 1 && w->first == c; }
static int one_of(const word *w, const char *set) { return w->chars == 1 && w->first < 128 && w->first && strchr(set, (int)w->first); }
static int alnum(uint32_t c) { return (uni_class(c) & (UC_LETTER | UC_NUMBER)) != 0; }
static int letter(uint32_t c) { return (uni_class(c) & UC_LETTER) != 0; }
static int apostrophe(const word *w) { return is(w, '\'') || is(w, 0x2019); }

/* Characters that take no space on either side: CJK ideographs, and East Asian and full-width punctuation.  Each is a word of its own to
 * the encoder, so leaving the space out never joins two words into one. */
static int no_spaces(uint32_t c)
{
    int east = (c >= 0x3000 && c <= 0x303F) || c == 0x30FB || (c >= 0xFE30 && c <= 0xFE4F) || (c >= 0xFF00 && c <= 0xFFEF);
    return uni_is_cjk(c) || (east && uni_class(c) & UC_PUNCT);
}

/* it's, don't, the 80's, o'clock, O'Brien, y'all, ma'am, c'mon: `a` ' `c`. */
static int contracts(const word *a, const word *c)
{
    static const char *const tail[] = { "s", "t", "re", "ve", "m", "ll", "d", "S", "T", "RE", "VE", "M", "LL", "D" };
    if (!a->chars || !c->chars || !alnum(a->last) || !letter(c->first)) return 0;
    for (size_t i = 0; i < sizeof tail / sizeof *tail; i++)
        if (str_eq(c->head, str_of(tail[i]))) return 1;
    return one_of(a, "oOyYdDlL") || (str_eq(a->head, STR("ma")) && str_eq(c->head, STR("am"))) ||
           (one_of(a, "cC") && str_eq(c->head, STR("mon")));
}

/* State of the join: which quotation marks are open, whether the word before asked for no space after it. */
typedef struct {
    int open_double, open_single, glue;
} joint;

/* Space between a and b?  c follows b.  Rules in order, documented in tokenizer.h. */
static int spaced(joint *j, const word *a, const word *b, const word *c)
{
    int glue = j->glue, left = 1; /* left: a space may stand before b */
    j->glue = 0;
    if (is(b, '"') || (apostrophe(b) && !contracts(a, c))) {
        int *open = is(b, '"') ? &j->open_double : &j->open_single;
        if (is(b, 0x2019) || (!is(b, '"') && !*open && a->last == 's')) left = 0; /* closing, or the dogs' house */
        else if (*open) left = 0, *open = 0;
        else j->glue = 1, *open = 1;
    } else if (apostrophe(b)) {
        left = 0, j->glue = 1;
    } else if (one_of(b, ":;") && one_of(c, "()") && a->chars && alnum(a->last)) {
        j->glue = 1; /* :) */
    } else if (one_of(b, ",.!?:;)]}%~") || is(b, 0x201D) || is(b, 0x2026)) {
        left = 0;
        if (a->digits && c->digits && a->chars && c->chars)
            j->glue = is(b, '.') || (is(b, ',') && a->chars <= 3 && c->chars == 3) || (is(b, ':') && a->chars <= 2 && c->chars == 2);
        else if (is(b, '.') && a->chars == 1 && c->chars == 1 && letter(a->last) && letter(c->first))
            j->glue = !one_of(c, "iIaA"); /* e.g., p.m., but "so am i. i" */
    } else if (one_of(b, "([{@#$") || is(b, 0x201C) || is(b, 0x2018)) {
        j->glue = 1;
    } else if (one_of(b, "/_\\") || is(b, 0x2014) || is(b, 0x2013)) {
        left = 0, j->glue = 1;
    } else if (is(b, '&') && a->chars && c->chars && alnum(a->last) && alnum(c->first) && (a->chars == 1 || c->chars == 1)) {
        left = 0, j->glue = 1; /* r&b, at&t */
    } else if (is(b, '-')) {
        left    = !(a->chars && (alnum(a->last) || is(a, '-')));
        j->glue = c->chars && (is(c, '-') || (left ? c->digits : alnum(c->first)));
    }
    return a->chars && left && !glue && !no_spaces(a->last) && !no_spaces(b->first);
}

void wp_decode(const tokenizer *t, const int *ids, size_t n, buf *out)
{
    word   a = { 0 }, b, c;
    joint  j  = { 0 };
    size_t at = skip_special(t, ids, n, 0), end;
    if (at == n) return;
    end = read_word(t, ids, n, at, &b);
    while (at < n) {
        size_t next = skip_special(t, ids, n, end), next_end = next;
        c = (word){ 0 };
        if (next < n) next_end = read_word(t, ids, n, next, &c);
        if (b.chars) {
            if (spaced(&j, &a, &b, &c)) buf_chr(out, ' ');
            for (size_t i = at; i < end; i++) {
                int glued;
                buf_str(out, piece(t, ids[i], &glued));
            }
            a = b;
        }
        b = c, at = next, end = next_end;
    }
}
