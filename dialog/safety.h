/* safety: rule packs.  Text files of PCRE2 patterns (the form is described in pack.h), each with id, category, where, action, pattern,
 * messages and its own tests.  Loads and compiles them, checks a text -> verdict with rule ids and spans, redacts.  Knows nothing of
 * models or databases.
 *
 * What a rule sees is never the raw text but two forms of it (normal.h): what it says (NFKC, lower case, no zero-width or combining
 * tricks, simplified Han) and what remains when disguises are taken off (look-alike letters, leetspeak, spelled-out words).  Spans are
 * those of the original text.
 *
 * No pattern and no text can stall a turn.  A text is matched window by window: SAFETY_WINDOW bytes of a form in which a match may
 * begin, and SAFETY_REACH more into which it may extend (a match longer than that may be missed), to the end however long the text is.
 * Every attempt is limited in steps, and only a few windows of one check may take many.  A pattern that runs into its limit counts as a
 * hit of its rule with limit = 1, from that window to the end of the text, and is not run again on it.  No clock is involved: the same
 * text gives the same verdict. */
#ifndef DUET_SAFETY_H
#define DUET_SAFETY_H

#include "models/base.h"

enum { WHERE_USER = 1, WHERE_REPLY = 2, WHERE_BOTH = 3 };
enum { RULE_NONE = 0, RULE_FLAG = 1, RULE_WARN = 2, RULE_REDACT = 3, RULE_BLOCK = 4 }; /* rising severity */
enum { SAFETY_WINDOW = 1024, SAFETY_REACH = 512 };

typedef struct safety safety;
typedef struct {
    str id, category;
    int where, action;
    str message_zh, message_en; /* what the person reads when a line is blocked or warned about; may be empty */
    str label_zh, label_en;     /* what a redacted span is shown as; "" falls back to the other, then to the category */
    const char *file;           /* where it is written */
    int         line;
} safety_rule;
typedef struct {
    int    rule;     /* index for safety_rule_at */
    int    limit;    /* 1: the match limit was hit; counts as a hit */
    size_t from, to; /* bytes of the original text */
} safety_hit;
typedef struct {
    int         action; /* the most severe, RULE_NONE when nothing hit */
    int         rule;   /* the first rule of the packs with that action, -1 */
    int         n_hit;
    safety_hit *hit;    /* (n_hit,) in the arena, by position; one rule's overlapping hits are one */
} verdict;

/* Load packs: each path is a *.rules file or a folder of them (sorted by name).  n_path 0 gives an empty set.  Errors name file and line. */
int  safety_open(safety **s, const char *const *path, int n_path, err *e);
void safety_close(safety *s);
int  safety_n_rules(const safety *s);
const safety_rule *safety_rule_at(const safety *s, int i);
int                safety_find_rule(const safety *s, str id); /* index, -1 */
/* SHA-256, hex, over the bytes of the packs in order and the version of the normalisation; the empty set has one too. */
const char        *safety_digest(const safety *s);
const char        *safety_action_name(int action); /* "none", "flag", "warn", "redact", "block" */

/* Check one text.  where = WHERE_USER or WHERE_REPLY.  Total: no pattern or text may fail or stall; invalid UTF-8 is checked as U+FFFD.
 * Errors: E_NOMEM; E_LIMIT for a text over NORMAL_MAX bytes. */
int safety_check(const safety *s, str text, int where, arena *a, verdict *v, err *e);
/* The text with the spans of redacting hits replaced by [label] (zh where the text has Han characters); a view of `text` itself when there
 * are none. */
int safety_redact(const safety *s, str text, const verdict *v, arena *a, str *out, err *e);
/* Run the tests that the packs carry, each against its own rule alone: calls back for each failure; returns the number of failures or <0. */
int safety_selftest(const safety *s, void (*fail)(void *ctx, const safety_rule *r, str test, int wanted), void *ctx, int *n_tests, err *e);

#endif
