/* pack: the text form of rules.  Reads the bytes of a *.rules file into a list of rules, refusing whatever is not understood with file and line.
 * Knows nothing of regular expressions: patterns stay text here.
 *
 * A pack is UTF-8, one statement a line, blank lines and lines starting with # ignored:
 *
 *     let how: 怎么|如何|怎样                 a piece of pattern, used as @{how}, which becomes (?:怎么|如何|怎样); from here to the end of the file
 *     [rule zh.weapons.01]                   begins a rule; the id is a-z 0-9 . _ - and unique over all packs
 *     category: violence                     a-z 0-9 -                                                          (required)
 *     where: user                            user | reply | both                                                (required)
 *     action: block                          block | redact | warn | flag                                       (required)
 *     pattern: @{how}.{0,8}(?:炸弹|炸药)      PCRE2; may be repeated: any of them hits                           (required)
 *                                            An unlimited repeat must not contain a look-around that repeats without limit: nothing would bound its cost
 *     view: plain                            plain or both (default). plain: only the text as it is said; else with disguises taken off as well (see normal.h)
 *     check: luhn                            the span must also pass this check (see identity.h)
 *     label zh: 手机号 / label en: phone       what a redacted span is shown as: [手机号]                          (redact: at least one)
 *     message zh: … / message en: …          what the person reads                                              (block, warn: both)
 *     match: 怎么做炸弹                       a text the rule must hit; may be repeated
 *     nomatch: 怎么做蛋糕                     a text it must not hit; may be repeated
 *
 * Rules are in order of importance: when several rules of one action hit, the first one speaks.  Files are ordered by name. */
#ifndef DUET_PACK_H
#define DUET_PACK_H

#include "dialog/safety.h"

enum {
    PACK_MAX_FILE    = 4 << 20, /* bytes */
    PACK_MAX_LINE    = 8192,    /* bytes */
    PACK_MAX_RULES   = 4096,    /* over all files */
    PACK_MAX_PATTERN = 32768,   /* bytes, after @{…} */
    PACK_MAX_PER_RULE = 128,    /* patterns of a rule */
    PACK_MAX_TESTS   = 256,     /* tests of a rule */
    PACK_MAX_LETS    = 256,     /* of a file */
};

typedef struct {
    safety_rule r;
    int         view_plain, check; /* check: identity number or IDENTITY_NONE */
    int         n_pattern, n_test;
    str        *pattern;           /* (n_pattern,) with @{…} replaced */
    int        *pattern_line;
    str        *test;              /* (n_test,) */
    int        *test_wanted;       /* 1 match, 0 nomatch */
} pack_rule;

/* Append the rules of one file to list[*n..cap).  Everything kept lives in `a`; bytes may go afterwards.  `file` names it in messages. */
int pack_read(const char *file, str bytes, pack_rule *list, int *n, int cap, arena *a, err *e);

#endif
