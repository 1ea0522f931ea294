/* tokenise: see tokenise.h.  The rules of mteval are regular expressions that rewrite a line one after the other; here each is a pass over
 * bytes.  They look at single ASCII characters only, so bytes and characters come to the same. */
#include "eval/tokenise.h"

#include <string.h>
#include <utf8proc.h>

static const char *const names[] = { "none", "mteval", "13a", "zh" };
enum { N_NAMES = sizeof names / sizeof names[0] };

int tokenise_of_name(const char *s)
{
    for (int i = 0; s && i < N_NAMES; i++)
        if (strcmp(s, names[i]) == 0) return i;
    return -1;
}

const char *tokenise_name(int kind) { return kind >= 0 && kind < N_NAMES ? names[kind] : NULL; }
const char *tokenise_names(void) { return "none, mteval, 13a, zh"; }

static int digit(char c) { return c >= '0' && c <= '9'; }
static int dot(char c) { return c == '.' || c == ','; }

/* Punctuation that always stands alone: {-~ [-` blank-& (-+ :-@ / ; not ' , - . */
static int apart(char c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') ||
           (c >= ':' && c <= '@') || c == '/';
}

static int python_space(uint32_t c, int with_separators)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000 || (with_separators && c >= 0x1C && c <= 0x1F);
}

/* White space squeezed to single blanks, none at the ends.  Python counts the four ASCII separators as white space, Perl does not. */
static void squeeze(str s, int with_separators, buf *out)
{
    int pending = 0;
    size_t start = out->n;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t   k = utf8_next(s.s + i, s.n - i, &cp);
        if (python_space(cp, with_separators)) {
            pending = 1;
        } else {
            if (pending && out->n > start) buf_chr(out, ' ');
            pending = 0;
            buf_add(out, s.s + i, k);
        }
        i += k;
    }
}

/* ---- the passes of mteval -------------------------------------------------------------------------------------- */

/* <skipped> goes, four entities become characters, one kind after the other as the replacements are written. */
static void entities(const buf *in, buf *out, buf *spare)
{
    static const char *const from[] = { "<skipped>", "&quot;", "&amp;", "&lt;", "&gt;" }, *const to[] = { "", "\"", "&", "<", ">" };
    buf_str(out, buf_view(in));
    for (int r = 0; r < 5; r++) {
        size_t n = strlen(from[r]);
        buf_reset(spare);
        for (size_t i = 0; i < out->n;) {
            if (out->n - i >= n && memcmp(out->s + i, from[r], n) == 0) {
                buf_str(spare, str_of(to[r]));
                i += n;
            } else {
                buf_chr(spare, out->s[i++]);
            }
        }
        buf swap = *out;
        *out     = *spare;
        *spare   = swap;
    }
}

/* s/([punctuation])/ $1 /g */
static void split_punctuation(const buf *in, buf *out)
{
    for (size_t i = 0; i < in->n; i++) {
        int lone = apart(in->s[i]);
        if (lone) buf_chr(out, ' ');
        buf_chr(out, in->s[i]);
        if (lone) buf_chr(out, ' ');
    }
}

/* s/([^0-9])([\.,])/$1 $2 /g */
static void split_after_no_digit(const buf *in, buf *out)
{
    for (size_t i = 0; i < in->n; i++) {
        buf_chr(out, in->s[i]);
        if (!digit(in->s[i]) && i + 1 < in->n && dot(in->s[i + 1])) {
            buf_chr(out, ' ');
            buf_chr(out, in->s[++i]);
            buf_chr(out, ' ');
        }
    }
}

/* s/([\.,])([^0-9])/ $1 $2/g */
static void split_before_no_digit(const buf *in, buf *out)
{
    for (size_t i = 0; i < in->n; i++) {
        if (dot(in->s[i]) && i + 1 < in->n && !digit(in->s[i + 1])) {
            buf_chr(out, ' ');
            buf_chr(out, in->s[i++]);
            buf_chr(out, ' ');
        }
        buf_chr(out, in->s[i]);
    }
}

/* s/([0-9])(-)/$1 $2 /g */
static void split_dash(const buf *in, buf *out)
{
    for (size_t i = 0; i < in->n; i++) {
        buf_chr(out, in->s[i]);
        if (digit(in->s[i]) && i + 1 < in->n && in->s[i + 1] == '-') {
            buf_str(out, STR(" - "));
            i++;
        }
    }
}

/* The four passes that mteval, 13a and zh share. */
static void western(buf *text, buf *spare)
{
    static void (*const pass[])(const buf *, buf *) = { split_punctuation, split_after_no_digit, split_before_no_digit, split_dash };
    for (int p = 0; p < 4; p++) {
        buf_reset(spare);
        pass[p](text, spare);
        buf swap = *text;
        *text    = *spare;
        *spare   = swap;
    }
}

static void mteval(int kind, str text, buf *out)
{
    buf a = { 0 }, b = { 0 }, c = { 0 };
    buf_str(&a, text);
    entities(&a, &b, &c);
    buf_reset(&a);
    buf_chr(&a, ' ');
    buf_str(&a, buf_view(&b));
    buf_chr(&a, ' ');
    for (size_t i = 0; kind == TOKENISE_MTEVAL && i < a.n; i++)
        if (a.s[i] >= 'A' && a.s[i] <= 'Z') a.s[i] = (char)(a.s[i] + 32);
    western(&a, &b);
    squeeze(buf_view(&a), kind == TOKENISE_13A, out);
    out->oom |= a.oom || b.oom || c.oom;
    buf_free(&a);
    buf_free(&b);
    buf_free(&c);
}

/* sacrebleu's ranges as Python compares them. */
static int chinese(uint32_t c)
{
    static const uint32_t range[][2] = {
        { 0x3400, 0x4DB5 }, { 0x4E00, 0x9FA5 }, { 0x9FA6, 0x9FBB }, { 0xF900, 0xFA2D }, { 0xFA30, 0xFA6A }, { 0xFA70, 0xFAD9 },
        { 0x2001, 0x2A6D }, { 0x2F81, 0x2FA1 }, { 0xFF00, 0xFFEF }, { 0x2E80, 0x2EFF }, { 0x3000, 0x303F }, { 0x31C0, 0x31EF },
        { 0x2F00, 0x2FDF }, { 0x2FF0, 0x2FFF }, { 0x3100, 0x312F }, { 0x31A0, 0x31BF }, { 0xFE10, 0xFE1F }, { 0xFE30, 0xFE4F },
        { 0x2600, 0x26FF }, { 0x2700, 0x27BF }, { 0x3200, 0x32FF }, { 0x3300, 0x33FF },
    };
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++)
        if (c >= range[i][0] && c <= range[i][1]) return 1;
    return 0;
}

static void zh(str text, buf *out)
{
    buf a = { 0 }, b = { 0 };
    while (text.n) { /* without white space at the ends, as the rules on neighbours see it */
        uint32_t cp;
        size_t   k = utf8_next(text.s, text.n, &cp);
        if (!python_space(cp, 1)) break;
        text.s += k;
        text.n -= k;
    }
    size_t end = 0;
    for (size_t i = 0; i < text.n;) {
        uint32_t cp;
        i += utf8_next(text.s + i, text.n - i, &cp);
        if (!python_space(cp, 1)) end = i;
    }
    for (size_t i = 0; i < end;) {
        uint32_t cp;
        size_t   k    = utf8_next(text.s + i, end - i, &cp);
        int      lone = chinese(cp);
        if (lone) buf_chr(&a, ' ');
        buf_add(&a, text.s + i, k);
        if (lone) buf_chr(&a, ' ');
        i += k;
    }
    western(&a, &b);
    squeeze(buf_view(&a), 1, out);
    out->oom |= a.oom || b.oom;
    buf_free(&a);
    buf_free(&b);
}

void tokenise(int kind, str text, buf *out)
{
    switch (kind) {
    case TOKENISE_NONE: squeeze(text, 1, out); break;
    case TOKENISE_ZH: zh(text, out); break;
    default: mteval(kind, text, out);
    }
}

int tokenise_next(str *rest, str *word)
{
    if (rest->n == 0) return 0;
    const char *blank = memchr(rest->s, ' ', rest->n);
    size_t      n     = blank ? (size_t)(blank - rest->s) : rest->n;
    *word             = (str){ rest->s, n };
    n += blank != NULL;
    rest->s += n;
    rest->n -= n;
    return 1;
}

void tokenise_lower(str word, buf *out)
{
    for (size_t i = 0; i < word.n;) {
        uint32_t cp;
        char     c[4];
        size_t   k = utf8_next(word.s + i, word.n - i, &cp);
        if (cp == UTF8_BAD) buf_add(out, word.s + i, k);
        else buf_add(out, c, utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), c));
        i += k;
    }
}
