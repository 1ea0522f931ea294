/* porter: see porter.h.  A word is an array of code points that only gets shorter or changes its end; a rule is a suffix, what it becomes and
 * what the part before it must be like. */
#include "eval/porter.h"

#include <string.h>

enum { LONGEST = 256 /* longer words stay as they are */ };
typedef struct {
    uint32_t c[LONGEST + 8];
    int      n;
} letters;

static int is_vowel(uint32_t c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

static int is_consonant(const letters *w, int i)
{
    int flips = 0; /* y is a consonant at the start or behind a vowel: a run of y alternates */
    while (w->c[i] == 'y' && i > 0) i--, flips++;
    int consonant = w->c[i] == 'y' || !is_vowel(w->c[i]);
    return flips % 2 ? !consonant : consonant;
}

/* m in [C](VC)^m[V], of the first n letters. */
static int measure(const letters *w, int n)
{
    int m = 0;
    for (int i = 1; i < n; i++) m += is_consonant(w, i) && !is_consonant(w, i - 1);
    return m;
}

static int has_vowel(const letters *w, int n)
{
    for (int i = 0; i < n; i++)
        if (!is_consonant(w, i)) return 1;
    return 0;
}

static int ends_double(const letters *w)
{
    int n = w->n;
    return n >= 2 && w->c[n - 1] == w->c[n - 2] && is_consonant(w, n - 1);
}

static int ends_cvc(const letters *w, int n)
{
    if (n == 2) return !is_consonant(w, 0) && is_consonant(w, 1);
    return n >= 3 && is_consonant(w, n - 3) && !is_consonant(w, n - 2) && is_consonant(w, n - 1) && w->c[n - 1] != 'w' &&
           w->c[n - 1] != 'x' && w->c[n - 1] != 'y';
}

static int ends(const letters *w, const char *suffix)
{
    int n = (int)strlen(suffix);
    if (n > w->n) return 0;
    for (int i = 0; i < n; i++)
        if (w->c[w->n - n + i] != (unsigned char)suffix[i]) return 0;
    return 1;
}

static void put(letters *w, int stem, const char *end)
{
    w->n = stem;
    while (*end) w->c[w->n++] = (unsigned char)*end++;
}

enum { ALWAYS, M_GT_0, M_GT_1, ION, LOGI };
typedef struct {
    const char *suffix, *to;
    int         when;
} rule;

/* The first rule whose suffix is there decides, whether its condition holds or not. */
static void apply(letters *w, const rule *r)
{
    for (; r->suffix; r++) {
        if (!ends(w, r->suffix)) continue;
        int stem = w->n - (int)strlen(r->suffix), ok = 1;
        switch (r->when) {
        case M_GT_0: ok = measure(w, stem) > 0; break;
        case M_GT_1: ok = measure(w, stem) > 1; break;
        case ION: ok = measure(w, stem) > 1 && (w->c[stem - 1] == 's' || w->c[stem - 1] == 't'); break;
        case LOGI: ok = measure(w, stem + 1) > 0; break;
        default: break;
        }
        if (ok) put(w, stem, r->to);
        return;
    }
}

static void step_1a(letters *w)
{
    static const rule rules[] = { { "sses", "ss", ALWAYS }, { "ies", "i", ALWAYS }, { "ss", "ss", ALWAYS }, { "s", "", ALWAYS }, { NULL, NULL, 0 } };
    if (w->n == 4 && ends(w, "ies")) put(w, 1, "ie");
    else apply(w, rules);
}

static void step_1b(letters *w)
{
    static const rule rules[] = { { "at", "ate", ALWAYS }, { "bl", "ble", ALWAYS }, { "iz", "ize", ALWAYS }, { NULL, NULL, 0 } };
    if (ends(w, "ied")) {
        put(w, w->n - 3, w->n == 4 ? "ie" : "i");
        return;
    }
    if (ends(w, "eed")) {
        if (measure(w, w->n - 3) > 0) w->n--;
        return;
    }
    if (ends(w, "ed") && has_vowel(w, w->n - 2)) w->n -= 2;
    else if (ends(w, "ing") && has_vowel(w, w->n - 3)) w->n -= 3;
    else return;
    if (ends(w, "at") || ends(w, "bl") || ends(w, "iz")) {
        apply(w, rules);
    } else if (ends_double(w)) {
        uint32_t last = w->c[w->n - 1];
        if (last != 'l' && last != 's' && last != 'z') w->n--;
    } else if (measure(w, w->n) == 1 && ends_cvc(w, w->n)) {
        put(w, w->n, "e");
    }
}

static void step_1c(letters *w)
{
    if (ends(w, "y") && w->n > 2 && is_consonant(w, w->n - 2)) w->c[w->n - 1] = 'i';
}

static void step_2(letters *w)
{
    static const rule rules[] = {
        { "ational", "ate", M_GT_0 }, { "tional", "tion", M_GT_0 }, { "enci", "ence", M_GT_0 },    { "anci", "ance", M_GT_0 },
        { "izer", "ize", M_GT_0 },    { "bli", "ble", M_GT_0 },     { "alli", "al", M_GT_0 },      { "entli", "ent", M_GT_0 },
        { "eli", "e", M_GT_0 },       { "ousli", "ous", M_GT_0 },   { "ization", "ize", M_GT_0 },  { "ation", "ate", M_GT_0 },
        { "ator", "ate", M_GT_0 },    { "alism", "al", M_GT_0 },    { "iveness", "ive", M_GT_0 },  { "fulness", "ful", M_GT_0 },
        { "ousness", "ous", M_GT_0 }, { "aliti", "al", M_GT_0 },    { "iviti", "ive", M_GT_0 },    { "biliti", "ble", M_GT_0 },
        { "fulli", "ful", M_GT_0 },   { "logi", "log", LOGI },      { NULL, NULL, 0 },
    };
    while (ends(w, "alli") && measure(w, w->n - 4) > 0) w->n -= 2;
    apply(w, rules);
}

static void step_3(letters *w)
{
    static const rule rules[] = { { "icate", "ic", M_GT_0 }, { "ative", "", M_GT_0 }, { "alize", "al", M_GT_0 }, { "iciti", "ic", M_GT_0 },
                                  { "ical", "ic", M_GT_0 },  { "ful", "", M_GT_0 },   { "ness", "", M_GT_0 },    { NULL, NULL, 0 } };
    apply(w, rules);
}

static void step_4(letters *w)
{
    static const rule rules[] = {
        { "al", "", M_GT_1 },   { "ance", "", M_GT_1 },  { "ence", "", M_GT_1 }, { "er", "", M_GT_1 },  { "ic", "", M_GT_1 },
        { "able", "", M_GT_1 }, { "ible", "", M_GT_1 },  { "ant", "", M_GT_1 },  { "ement", "", M_GT_1 }, { "ment", "", M_GT_1 },
        { "ent", "", M_GT_1 },  { "ion", "", ION },      { "ou", "", M_GT_1 },   { "ism", "", M_GT_1 }, { "ate", "", M_GT_1 },
        { "iti", "", M_GT_1 },  { "ous", "", M_GT_1 },   { "ive", "", M_GT_1 },  { "ize", "", M_GT_1 }, { NULL, NULL, 0 },
    };
    apply(w, rules);
}

static void step_5(letters *w)
{
    if (ends(w, "e")) {
        int m = measure(w, w->n - 1);
        if (m > 1 || (m == 1 && !ends_cvc(w, w->n - 1))) w->n--;
    }
    if (ends(w, "ll") && measure(w, w->n - 1) > 1) w->n--;
}

static const char *irregular(str word)
{
    static const char *const table[][2] = {
        { "sky", "sky" },       { "skies", "sky" },     { "dying", "die" },       { "lying", "lie" },        { "tying", "tie" },
        { "news", "news" },     { "innings", "inning" }, { "inning", "inning" },  { "outings", "outing" },   { "outing", "outing" },
        { "cannings", "canning" }, { "canning", "canning" }, { "howe", "howe" },  { "proceed", "proceed" },  { "exceed", "exceed" },
        { "succeed", "succeed" },
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (str_eq(word, str_of(table[i][0]))) return table[i][1];
    return NULL;
}

void porter_stem(str word, buf *out)
{
    letters     w     = { .n = 0 };
    const char *known = irregular(word);
    if (known) {
        buf_str(out, str_of(known));
        return;
    }
    for (size_t i = 0; i < word.n && w.n <= LONGEST;) {
        i += utf8_next(word.s + i, word.n - i, &w.c[w.n]);
        if (w.c[w.n++] == UTF8_BAD) w.n = LONGEST + 1; /* no word: stays as it is */
    }
    if (w.n <= 2 || w.n > LONGEST) {
        buf_str(out, word);
        return;
    }
    step_1a(&w);
    step_1b(&w);
    step_1c(&w);
    step_2(&w);
    step_3(&w);
    step_4(&w);
    step_5(&w);
    for (int i = 0; i < w.n; i++) {
        char c[4];
        buf_add(out, c, utf8_put(w.c[i], c));
    }
}
