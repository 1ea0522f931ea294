/* needle: what a pattern cannot match without.  From the text of a regular expression two sets of literal strings are worked out
 * of each of which every match contains at least one; a text that misses either need not be given to the matcher at all.  A table of the needles of many
 * patterns finds in one pass over a text which patterns are worth running.
 *
 * Understood: literals, escaped punctuation, \x{...}, classes, groups, alternatives, quantifiers, anchors, look-around, atomic groups.
 * Everything else (back references, recursion, conditionals, inline options, verbs, \Q) makes the answer "no needles", which is always
 * safe: such a pattern is run on every text.  Knows nothing of rules or of PCRE2. */
#ifndef DUET_NEEDLE_H
#define DUET_NEEDLE_H

#include "models/base.h"

enum { NEEDLE_SETS = 2 };
/* The needles of a pattern (valid UTF-8), in arena `a`; n[k] = 0: no k-th set.  When a literal character of the pattern is not left alone
 * by normal_plain, *foreign is the first such (else 0): it can never match. */
int needles_of(str pattern, arena *a, str *needle[NEEDLE_SETS], int n[NEEDLE_SETS], uint32_t *foreign, err *e);

typedef struct {
    str      s;
    int      pattern, set;
    int      run;        /* this many needles from here on are the same string */
    uint32_t head, mask; /* its first four bytes, for a quick comparison */
} needle;
enum { NEEDLE_BUCKETS = 8192 };
typedef struct {
    needle   *v;      /* sorted: those of one byte, of two bytes, then the rest grouped by bucket */
    int       n, one; /* how many in all, how many of one byte */
    uint32_t *two;    /* (257,) the needles of two bytes by their first byte */
    uint32_t *start;  /* (NEEDLE_BUCKETS + 1,) the others by a hash of their first three */
} needle_table;
/* Build over v (n,), of which s, pattern and set are given; v is sorted in place, without its duplicates,
 * and must outlive the table.  The rest lives in the arena. */
int needle_table_build(needle_table *t, needle *v, int n, arena *a, err *e);
/* Set bit p of seen[k] for every pattern p one of whose needles of set k lies in text. */
void needle_scan(const needle_table *t, str text, uint64_t *const seen[NEEDLE_SETS]);

#endif
