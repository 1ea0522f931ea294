/* clean: see clean.h. */
#include "corpus/clean.h"
#include "corpus/keyset.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *about;
} rules[CLEAN_N] = {
    [CLEAN_EMPTY]     = { "empty", "empty turn" },
    [CLEAN_UTF8]      = { "utf8", "ill-formed UTF-8 in a turn" },
    [CLEAN_CONTROL]   = { "control", "control characters in a turn" },
    [CLEAN_LONG]      = { "long", "turn too long" },
    [CLEAN_REPEAT]    = { "repeat", "word or character repeated in a turn" },
    [CLEAN_ADDRESS]   = { "address", "web or mail address in a turn" },
    [CLEAN_NUMBER]    = { "number", "long number in a turn" },
    [CLEAN_MARKUP]    = { "markup", "markup in a turn" },
    [CLEAN_FEW]       = { "few", "dialogue (or what is left of it) with too few turns" },
    [CLEAN_MANY]      = { "many", "dialogue cut at the greatest number of turns" },
    [CLEAN_DUPLICATE] = { "duplicate", "duplicate dialogue" },
};

const char *clean_name(int r) { return r >= 0 && r < CLEAN_N ? rules[r].name : "?"; }
const char *clean_about(int r) { return r >= 0 && r < CLEAN_N ? rules[r].about : "?"; }
int         clean_of_name(str s)
{
    for (int r = 0; r < CLEAN_N; r++)
        if (str_eq(s, str_of(rules[r].name))) return r;
    return -1;
}

clean_opts clean_defaults(void) { return (clean_opts){ .min_turns = 2, .max_chars = 400, .word_run = 3, .char_run = 6 }; }

struct cleaner {
    clean_opts   o;
    clean_counts c;
    keyset       seen;
    buf          text;  /* normalised turns of the dialogue in hand, end to end */
    size_t      *end;   /* (cap,) their ends */
    turn        *turn;  /* (cap,) */
    size_t       cap;
};

int cleaner_new(cleaner **out, const clean_opts *o, err *e)
{
    *out = NULL;
    if (o->min_turns < 1 || o->max_turns < 0 || (o->max_turns && o->max_turns < o->min_turns))
        return err_set(e, E_ARG, "turns of a dialogue: from %d to %d is no range", o->min_turns, o->max_turns);
    if (o->max_chars < 1 || o->word_run < 2 || o->char_run < 2)
        return err_set(e, E_ARG, "limits of a turn: %d characters, runs of %d words and %d characters: at least 1, 2 and 2 wanted", o->max_chars,
                       o->word_run, o->char_run);
    if (o->off & (1u << CLEAN_EMPTY | 1u << CLEAN_UTF8)) return err_set(e, E_ARG, "rules 'empty' and 'utf8' cannot be switched off");
    cleaner *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, E_NOMEM, "out of memory");
    c->o = *o;
    *out = c;
    return OK;
}

void cleaner_free(cleaner *c)
{
    if (!c) return;
    keyset_free(&c->seen);
    buf_free(&c->text);
    free(c->end);
    free(c->turn);
    free(c);
}

const clean_counts *cleaner_counts(const cleaner *c) { return &c->c; }

/* ---- one turn -------------------------------------------------------------------------------------------------- */

static int is_blank(uint32_t c)
{
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}
static int is_control(uint32_t c)
{
    return c < 32 || (c >= 127 && c < 160) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || (c >= 0xE000 && c <= 0xF8FF) ||
           c >= 0xF0000;
}
static int is_alnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_alpha(char c) { return is_alnum(c) && !is_digit(c); }

/* Does s hold `word` (lower case) at i, whatever the case? */
static int at_word(str s, size_t i, const char *word)
{
    for (; *word; word++, i++)
        if (i >= s.n || (is_alpha(s.s[i]) ? (s.s[i] | 32) : s.s[i]) != *word) return 0;
    return 1;
}

static int has_address(str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] == ':' && at_word(s, i, "://")) return 1;
        if ((i == 0 || !is_alnum(s.s[i - 1])) && at_word(s, i, "www.")) return 1;
        if (s.s[i] == '@' && i && is_alnum(s.s[i - 1])) { /* x@host.tld */
            size_t k = i + 1;
            while (k < s.n && (is_alnum(s.s[k]) || s.s[k] == '-')) k++;
            if (k > i + 1 && k + 1 < s.n && s.s[k] == '.' && is_alpha(s.s[k + 1])) return 1;
        }
    }
    return 0;
}

static int has_number(str s)
{
    for (size_t i = 0, run = 0; i < s.n; i++) {
        run = is_digit(s.s[i]) ? run + 1 : 0;
        if (run == 7) return 1;
    }
    return 0;
}

static int has_markup(str s)
{
    for (size_t i = 0; i < s.n; i++) {
        size_t k = i + 1;
        if (s.s[i] == '<' && k < s.n && (is_alpha(s.s[k]) || s.s[k] == '/')) {
            while (k < s.n && s.s[k] != '>' && s.s[k] != '<') k++;
            if (k < s.n && s.s[k] == '>') return 1;
        } else if (s.s[i] == '&') {
            if (k < s.n && s.s[k] == '#') k++;
            size_t from = k;
            while (k < s.n && k < from + 8 && is_alnum(s.s[k])) k++;
            if (k > from && k < s.n && s.s[k] == ';') return 1;
        } else if (s.s[i] == ']' && k < s.n && s.s[k] == '(') {
            return 1;
        }
    }
    return 0;
}

static int has_repeat(str s, int word_run, int char_run)
{
    str      word = { NULL, 0 };
    uint32_t last = 0;
    int      words = 0, chars = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t c;
        size_t   k = utf8_next(s.s + i, s.n - i, &c);
        if (c != ' ') {
            chars = c == last ? chars + 1 : 1;
            if (chars >= char_run) return 1;
        }
        last = c;
        if (c != ' ' && (i == 0 || s.s[i - 1] == ' ')) {
            const char *sp = memchr(s.s + i, ' ', s.n - i);
            str         w  = { s.s + i, sp ? (size_t)(sp - (s.s + i)) : s.n - i };
            words          = word.s && str_eq(w, word) ? words + 1 : 1;
            word           = w;
            if (words >= word_run) return 1;
        }
        i += k;
    }
    return 0;
}

int clean_turn(const clean_opts *o, str text, buf *out)
{
    size_t from = out->n, chars = 0;
    int    control = 0, broken = 0, blank = 0;
    for (size_t i = 0; i < text.n;) {
        uint32_t c;
        size_t   k = utf8_next(text.s + i, text.n - i, &c);
        if (c == UTF8_BAD || c == 0xFFFD) broken = 1;
        else if (is_blank(c)) blank = 1;
        else if (c != 0xFEFF && c != 0x200B) {
            if (is_control(c)) control = 1;
            if (blank && chars) buf_chr(out, ' '), chars++;
            buf_add(out, text.s + i, k);
            blank = 0;
            chars++;
        }
        i += k;
    }
    if (out->oom) return -1; /* the caller looks at oom */
    str s = { out->s ? out->s + from : "", out->n - from };
    if (broken) return CLEAN_UTF8;
    if (!s.n) return CLEAN_EMPTY;
    if (control && !(o->off >> CLEAN_CONTROL & 1)) return CLEAN_CONTROL;
    if (chars > (size_t)o->max_chars && !(o->off >> CLEAN_LONG & 1)) return CLEAN_LONG;
    if (!(o->off >> CLEAN_REPEAT & 1) && has_repeat(s, o->word_run, o->char_run)) return CLEAN_REPEAT;
    if (!(o->off >> CLEAN_ADDRESS & 1) && has_address(s)) return CLEAN_ADDRESS;
    if (!(o->off >> CLEAN_NUMBER & 1) && has_number(s)) return CLEAN_NUMBER;
    if (!(o->off >> CLEAN_MARKUP & 1) && has_markup(s)) return CLEAN_MARKUP;
    return -1;
}

/* ---- one dialogue ---------------------------------------------------------------------------------------------- */

/* Judge and hand on turns [from, to) of the dialogue in hand. */
static int piece(cleaner *c, const dialogue *d, size_t from, size_t to, dialogue_sink *sink, void *ctx, err *e)
{
    const clean_opts *o = &c->o;
    size_t            n = to - from;
    if (n == 0) return OK;
    if (n < (size_t)o->min_turns && !(o->off >> CLEAN_FEW & 1)) {
        c->c.hit[CLEAN_FEW]++;
        return OK;
    }
    if (o->max_turns && n > (size_t)o->max_turns && !(o->off >> CLEAN_MANY & 1)) {
        c->c.hit[CLEAN_MANY]++;
        n = (size_t)o->max_turns;
    }
    if (!(o->off >> CLEAN_DUPLICATE & 1)) {
        sha256 h;
        sha256_init(&h);
        for (size_t i = 0; i < n; i++) {
            uint64_t len = c->turn[from + i].text.n;
            sha256_add(&h, &len, sizeof len);
            sha256_add(&h, c->turn[from + i].text.s, len);
        }
        int fresh = keyset_add(&c->seen, key_of_hash(&h), e);
        if (fresh < 0) return fresh;
        if (!fresh) {
            c->c.hit[CLEAN_DUPLICATE]++;
            return OK;
        }
    }
    dialogue out = *d;
    out.turn     = c->turn + from;
    out.n        = (int)n;
    c->c.out++;
    c->c.turns_out += n;
    return sink(ctx, &out, e);
}

int cleaner_push(cleaner *c, const dialogue *d, dialogue_sink *sink, void *ctx, err *e)
{
    size_t n = (size_t)d->n, n_bad = 0;
    c->c.in++;
    c->c.turns_in += n;
    if (n > c->cap) {
        size_t *end = realloc(c->end, n * sizeof *end);
        if (end) c->end = end;
        turn *t = realloc(c->turn, n * sizeof *t);
        if (t) c->turn = t;
        if (!end || !t) return err_set(e, E_NOMEM, "%s:%ld: out of memory", d->file, d->line);
        c->cap = n;
    }
    buf_reset(&c->text);
    for (size_t i = 0; i < n; i++) {
        int broken = clean_turn(&c->o, d->turn[i].text, &c->text);
        c->turn[i] = d->turn[i];
        c->end[i]  = c->text.n;
        c->turn[i].hidden = broken >= 0; /* marks the cuts until the pieces go out */
        if (broken >= 0) c->c.hit[broken]++, n_bad++;
    }
    if (c->text.oom) return err_set(e, E_NOMEM, "%s:%ld: out of memory", d->file, d->line);
    if (n_bad && c->o.whole) return OK;
    for (size_t i = 0; i < n; i++) {
        size_t from     = i ? c->end[i - 1] : 0;
        c->turn[i].text = (str){ c->text.s + from, c->end[i] - from };
    }
    size_t from = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && !c->turn[i].hidden) continue;
        int rc = piece(c, d, from, i, sink, ctx, e);
        if (rc) return rc;
        from = i + 1;
    }
    return OK;
}
