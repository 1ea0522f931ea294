/* respond_opts: how candidates are drawn and ranked, as numbers, as a line of text and back; see respond.h. */
#include "dialog/respond.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = { "mmi", "bidi", "joint", "sampled", "forward", "none" };
static const char *const fate_names[] = { "ok", "empty", "duplicate", "blocked", "echo", "nan" };
enum { N_MODES = sizeof mode_names / sizeof mode_names[0], N_FATES = sizeof fate_names / sizeof fate_names[0] };

const char *respond_mode_name(int mode) { return mode >= 0 && mode < N_MODES ? mode_names[mode] : NULL; }
const char *respond_fate_name(int fate) { return fate >= 0 && fate < N_FATES ? fate_names[fate] : NULL; }

int respond_mode_of_name(const char *s)
{
    for (int i = 0; s && i < N_MODES; i++)
        if (strcmp(s, mode_names[i]) == 0) return i;
    return -1;
}

/* mode, lambda, temperature and max_turns: what suits the shipped pair best (models/weights/duet-zh.md says how that was found). */
respond_opts respond_defaults(void)
{
    return (respond_opts){ .mode = MODE_BIDI, .n_cand = 16, .max_new = 48, .min_new = 1, .max_turns = 3, .source_turns = 1,
                           .top_k = 40, .rep_scope = PENALTY_SCOPE_REPLY, .no_repeat = 4, .top_p = 0.9f, .temperature = 0.5f,
                           .rep_penalty = 1.1f, .lambda = 0.7f, .mmi_temperature = 0.5f };
}

/* One list for writing, reading and checking.  Order = order on the canonical line. */
enum { K_MODE, K_INT, K_REAL, K_SEED };
static const struct {
    const char *key;
    int         kind;
    size_t      at;
    double      lo, hi;
} fields[] = {
#define F(key, kind, member, lo, hi) { key, kind, offsetof(respond_opts, member), lo, hi }
    F("mode", K_MODE, mode, 0, N_MODES - 1),
    F("n", K_INT, n_cand, 1, RESPOND_MAX_CAND),
    F("first", K_INT, first_cand, 0, RESPOND_CHOICE_STREAM - RESPOND_MAX_CAND),
    F("max_new", K_INT, max_new, 1, RESPOND_MAX_NEW),
    F("min_new", K_INT, min_new, 0, RESPOND_MAX_NEW),
    F("max_turns", K_INT, max_turns, 0, 1e6),
    F("source_turns", K_INT, source_turns, 0, 1e6),
    F("temperature", K_REAL, temperature, 0, 1e3),
    F("top_k", K_INT, top_k, 0, 1e9),
    F("top_p", K_REAL, top_p, 0, 1),
    F("top_p_rule", K_INT, top_p_rule, TOP_P_SMALLEST, TOP_P_BEFORE),
    F("rep_penalty", K_REAL, rep_penalty, 1e-3, 1e3),
    F("rep_rule", K_INT, rep_rule, PENALTY_SIGNED, PENALTY_DIVIDE),
    F("rep_scope", K_INT, rep_scope, PENALTY_SCOPE_ALL, PENALTY_SCOPE_REPLY),
    F("no_repeat", K_INT, no_repeat, 0, RESPOND_MAX_NEW),
    F("lambda", K_REAL, lambda, 0, 1),
    F("gamma", K_REAL, gamma, -1e6, 1e6),
    F("mmi_temperature", K_REAL, mmi_temperature, 1e-6, 1e6),
    F("lang", K_INT, lang, 0, 1),
    F("seed", K_SEED, seed, 0, 0),
#undef F
};
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

static double field_value(const respond_opts *o, int i)
{
    const char *p = (const char *)o + fields[i].at;
    return fields[i].kind == K_REAL ? (double)*(const float *)p : (double)*(const int *)p;
}

int respond_opts_check(const respond_opts *o, err *e)
{
    for (int i = 0; i < N_FIELDS; i++) {
        if (fields[i].kind == K_SEED) continue;
        double v = field_value(o, i);
        if (!(v >= fields[i].lo && v <= fields[i].hi))
            return err_set(e, E_ARG, "option %s is %.9g, wanted %.9g to %.9g", fields[i].key, v, fields[i].lo, fields[i].hi);
    }
    if (o->min_new > o->max_new) return err_set(e, E_ARG, "option min_new is %d, more than max_new %d", o->min_new, o->max_new);
    return OK;
}

int respond_opts_format(const respond_opts *o, buf *out)
{
    for (int i = 0; i < N_FIELDS; i++) {
        const char *p = (const char *)o + fields[i].at;
        buf_fmt(out, "%s%s=", i ? " " : "", fields[i].key);
        switch (fields[i].kind) {
        case K_MODE: buf_str(out, str_of(respond_mode_name(*(const int *)p))); break;
        case K_INT: buf_fmt(out, "%d", *(const int *)p); break;
        case K_REAL: buf_fmt(out, "%.9g", (double)*(const float *)p); break;
        default: buf_fmt(out, "%llu", (unsigned long long)*(const uint64_t *)p);
        }
    }
    return out->oom ? E_NOMEM : OK;
}

/* One value into its member; -1 when the text is none.  Digits are checked first: strtod and its kin take more than we write. */
static int field_store(respond_opts *o, int i, const char *v)
{
    char *p = (char *)o + fields[i].at, *end = NULL;
    if (fields[i].kind == K_MODE) return (*(int *)p = respond_mode_of_name(v)) < 0 ? -1 : 0;
    const char *legal = fields[i].kind == K_REAL ? "0123456789+-.e" : fields[i].kind == K_INT ? "0123456789-" : "0123456789";
    if (!*v || strspn(v, legal) != strlen(v)) return -1;
    if (fields[i].kind == K_REAL) {
        *(float *)p = strtof(v, &end);
    } else if (fields[i].kind == K_INT) {
        long x    = strtol(v, &end, 10);
        *(int *)p = (int)x;
        if (x != (long)(int)x) return -1;
    } else {
        unsigned long long x = strtoull(v, &end, 10);
        char               back[24];
        snprintf(back, sizeof back, "%llu", x);
        if (strcmp(back, v) != 0) return -1; /* too large, or leading zeros */
        *(uint64_t *)p = x;
    }
    return *end ? -1 : 0;
}

int respond_opts_parse(respond_opts *o, str s, err *e)
{
    int given[N_FIELDS] = { 0 };
    *o = respond_defaults();
    while ((s = str_trim(s)).n) {
        char   word[80];
        size_t n = 0;
        while (n < s.n && s.s[n] != ' ') n++;
        if (n >= sizeof word) return err_set(e, E_ARG, "options: '%.40s…' is too long for an option", s.s);
        memcpy(word, s.s, n);
        word[n] = 0;
        s.s += n;
        s.n -= n;
        char *eq = strchr(word, '=');
        if (!eq || strlen(word) != n) return err_set(e, E_ARG, "options: '%s' is not key=value", word);
        *eq   = 0;
        int i = 0;
        while (i < N_FIELDS && strcmp(fields[i].key, word) != 0) i++;
        if (i == N_FIELDS) return err_set(e, E_ARG, "options: no option '%s'", word);
        if (given[i]++) return err_set(e, E_ARG, "options: %s is given twice", word);
        if (field_store(o, i, eq + 1)) return err_set(e, E_ARG, "options: %s=%s is no value for it", word, eq + 1);
    }
    return respond_opts_check(o, e);
}
