/* tokenise: a line of text -> words, by the named rules of the tools that publish these metrics.  Knows no metric.  Total: any bytes
 * are legal, and ill-formed UTF-8 stays as it is.
 *
 *   none    split at white space (Python's str.split); the text was tokenised by whoever wrote it
 *   mteval  NIST's mteval-v13a/v14: ASCII letters lower-cased, punctuation apart, '.' and ',' kept between digits, '-' split after one
 *   13a     sacrebleu's name for the same rules with the case kept
 *   zh      sacrebleu's for Chinese: every Chinese character alone, then the rules of 13a (no entities).  Its table of ranges has two that
 *           are written "\u20000".."\u2a6d6" and so mean U+2001..U+2A6D: dashes, quotes and the ellipsis are apart too, and ideographs
 *           beyond U+FFFF are not.  Kept, for the numbers to be the same. */
#ifndef DUET_TOKENISE_H
#define DUET_TOKENISE_H

#include "models/base.h"

enum { TOKENISE_NONE = 0, TOKENISE_MTEVAL, TOKENISE_13A, TOKENISE_ZH };
int         tokenise_of_name(const char *s); /* -1 when unknown */
const char *tokenise_name(int kind);
const char *tokenise_names(void); /* "none, mteval, 13a, zh" for messages */

/* Append the words of `text` to `out` with one space between them; a line of white space gives nothing.  Check out->oom. */
void tokenise(int kind, str text, buf *out);
/* The next word of *rest (words with single spaces between them, as tokenise leaves them); 0 when there is none. */
int tokenise_next(str *rest, str *word);
/* `word` with every letter in lower case (Unicode, one to one: simple case mapping) appended to `out`. */
void tokenise_lower(str word, buf *out);

#endif
