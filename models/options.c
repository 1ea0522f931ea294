/* options: see options.h. */
#include "models/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Does `word` (n bytes, up to '=') spell one of the comma-separated names of o? */
static int spells(const option *o, const char *word, size_t n)
{
    for (const char *p = o->name;;) {
        const char *end = strchr(p, ',');
        size_t      k   = end ? (size_t)(end - p) : strlen(p);
        if (k == n && memcmp(p, word, n) == 0) return 1;
        if (!end) return 0;
        p = end + 1;
    }
}

static int parse_int(const char *v, long long lo, long long hi, long long *out)
{
    char *end;
    errno = 0;
    *out  = strtoll(v, &end, 10);
    return end == v || *end || errno || *out < lo || *out > hi ? -1 : 0;
}

static int parse_real(const char *v, double *out)
{
    char *end;
    errno = 0;
    *out  = strtod(v, &end);
    return end == v || *end || !isfinite(*out) ? -1 : 0;
}

static int store(const option *o, const char *name, const char *v, err *e)
{
    long long i;
    double    d;
    switch (o->kind) {
    case OPT_INT:
        if (parse_int(v, INT32_MIN, INT32_MAX, &i)) return err_set(e, E_ARG, "%s: '%s' is not a whole number", name, v);
        *(int *)o->to = (int)i;
        return OK;
    case OPT_LONG:
        if (parse_int(v, INT64_MIN, INT64_MAX, &i)) return err_set(e, E_ARG, "%s: '%s' is not a whole number", name, v);
        *(long *)o->to = (long)i;
        return OK;
    case OPT_U64: {
        char *end;
        errno                = 0;
        unsigned long long u = strtoull(v, &end, 10);
        if (end == v || *end || errno || strchr(v, '-')) return err_set(e, E_ARG, "%s: '%s' is not a whole number from 0 to 2^64-1", name, v);
        *(uint64_t *)o->to = u;
        return OK;
    }
    case OPT_FLOAT:
        if (parse_real(v, &d) || !isfinite((float)d)) return err_set(e, E_ARG, "%s: '%s' is not a number", name, v);
        *(float *)o->to = (float)d;
        return OK;
    case OPT_DOUBLE:
        if (parse_real(v, &d)) return err_set(e, E_ARG, "%s: '%s' is not a number", name, v);
        *(double *)o->to = d;
        return OK;
    case OPT_STR: *(const char **)o->to = v; return OK;
    default: {
        opt_list *l = o->to;
        if (l->n == (int)(sizeof l->v / sizeof l->v[0])) return err_set(e, E_ARG, "%s: given more than %d times", name, l->n);
        l->v[l->n++] = v;
        return OK;
    }
    }
}

int options_parse(const option *o, int argc, char **argv, const char **pos, int max_pos, int *n_pos, err *e)
{
    int words_only = 0, n = 0;
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--") == 0) break;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return OPTIONS_HELP;
    for (int i = 0; i < argc; i++) {
        char *w = argv[i];
        if (!words_only && strcmp(w, "--") == 0) {
            words_only = 1;
            continue;
        }
        if (words_only || w[0] != '-' || w[1] == 0) {
            if (n == max_pos) return err_set(e, E_ARG, "unexpected word '%s'", w);
            pos[n++] = w;
            continue;
        }
        const char   *eq   = strchr(w, '=');
        size_t        len  = eq ? (size_t)(eq - w) : strlen(w);
        const option *hit  = NULL;
        for (const option *k = o; k->name && !hit; k++)
            if (k->kind != OPT_GROUP && spells(k, w, len)) hit = k;
        if (!hit) return err_set(e, E_ARG, "unknown option '%s'", w);
        if (hit->kind == OPT_FLAG) {
            if (eq) return err_set(e, E_ARG, "%.*s takes no argument", (int)len, w);
            *(int *)hit->to = 1;
            continue;
        }
        if (hit->kind == OPT_STR2) {
            if (eq || i + 2 >= argc) return err_set(e, E_ARG, "%.*s wants two arguments: %s", (int)len, w, hit->arg);
            ((const char **)hit->to)[0] = argv[++i];
            ((const char **)hit->to)[1] = argv[++i];
            continue;
        }
        if (!eq && i + 1 >= argc) return err_set(e, E_ARG, "%s wants an argument: %s", w, hit->arg);
        char name[64];
        size_t k = len < sizeof name - 1 ? len : sizeof name - 1;
        memcpy(name, w, k);
        name[k] = 0;
        int r   = store(hit, name, eq ? eq + 1 : argv[++i], e);
        if (r) return r;
    }
    *n_pos = n;
    return OK;
}

void options_help(buf *out, const char *usage, const char *about, const option *o)
{
    buf_fmt(out, "usage: duet %s\n\n%s\n", usage, about);
    if (o->name) buf_str(out, STR("\noptions:\n"));
    for (; o->name; o++) {
        if (o->kind == OPT_GROUP) {
            buf_fmt(out, "\n%s\n", o->name);
            continue;
        }
        size_t at = out->n;
        buf_str(out, STR("  "));
        for (const char *p = o->name; *p; p++) buf_fmt(out, *p == ',' ? ", " : "%c", *p);
        if (o->arg) buf_fmt(out, " %s", o->arg);
        if (out->n - at > 27) buf_fmt(out, "\n%28s", "");
        else buf_fmt(out, "%*s", (int)(28 - (out->n - at)), "");
        buf_fmt(out, "%s\n", o->help);
    }
}
