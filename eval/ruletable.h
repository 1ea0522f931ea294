/* ruletable: counts by rule, for records whose rules are numbers in packs that may or may not be at hand. */
#ifndef DUET_RULETABLE_H
#define DUET_RULETABLE_H

#include "dialog/safety.h"

/* The id of a rule into out, or "rule 7 of 1a2b3c4d5e6f" when s (may be NULL) is not the set of that digest; "-" for rule < 0. */
const char *rule_name(const safety *s, const char *digest, int rule, char out[80]);
/* The rule itself when s is the set of that digest, else NULL. */
const safety_rule *rule_known(const safety *s, const char *digest, int rule);

enum { RULE_COUNTS = 3 };
typedef struct {
    str     name, category; /* category empty when the rule is not at hand */
    int64_t n[RULE_COUNTS]; /* what they count is the caller's */
} rule_row;
typedef struct {
    arena    *a;
    rule_row *row; /* (n,) */
    int       n, cap;
} rule_table;       /* start with { .a = an arena } */
/* The row of a rule, made when it is not there; NULL: memory is out.  Good until the next call. */
rule_row *rule_table_row(rule_table *t, const safety *s, const char *digest, int rule);
void      rule_table_sort(rule_table *t); /* by name */

#endif
