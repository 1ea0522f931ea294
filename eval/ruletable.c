/* ruletable: see ruletable.h. */
#include "eval/ruletable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const safety_rule *rule_known(const safety *s, const char *digest, int rule)
{
    return s && strcmp(digest, safety_digest(s)) == 0 ? safety_rule_at(s, rule) : NULL;
}

const char *rule_name(const safety *s, const char *digest, int rule, char out[80])
{
    const safety_rule *r = rule_known(s, digest, rule);
    if (rule < 0) snprintf(out, 80, "-");
    else if (r) snprintf(out, 80, "%.*s", (int)r->id.n, r->id.s);
    else snprintf(out, 80, "rule %d of %.12s", rule, digest[0] ? digest : "?");
    return out;
}

rule_row *rule_table_row(rule_table *t, const safety *s, const char *digest, int rule)
{
    char               name[80];
    err                e;
    const safety_rule *known = rule_known(s, digest, rule);
    rule_name(s, digest, rule, name);
    for (int i = 0; i < t->n; i++)
        if (str_eq(t->row[i].name, str_of(name))) return &t->row[i];
    if (t->n == t->cap) {
        int       cap = t->cap ? 2 * t->cap : 32;
        rule_row *up  = arena_new(t->a, (size_t)cap, sizeof *up);
        if (!up) return NULL;
        if (t->n) memcpy(up, t->row, (size_t)t->n * sizeof *up);
        t->row = up;
        t->cap = cap;
    }
    rule_row row = { .name = arena_str(t->a, str_of(name), &e), .category = STR("") };
    if (known) row.category = arena_str(t->a, known->category, &e);
    if (!row.name.s || !row.category.s) return NULL;
    t->row[t->n] = row;
    return &t->row[t->n++];
}

static int by_name(const void *a, const void *b)
{
    str    p = ((const rule_row *)a)->name, q = ((const rule_row *)b)->name;
    size_t n = p.n < q.n ? p.n : q.n;
    int    c = memcmp(p.s, q.s, n);
    return c ? c : (p.n > q.n) - (p.n < q.n);
}

void rule_table_sort(rule_table *t)
{
    if (t->n) qsort(t->row, (size_t)t->n, sizeof *t->row, by_name);
}
