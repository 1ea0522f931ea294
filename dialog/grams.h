/* grams: the characters of a text and its pairs of neighbouring characters, as words of an index that splits at blanks.  It makes
 * one- and two-character queries fast; what it finds must be looked at, for it says only that a text may hold them. */
#ifndef DUET_GRAMS_H
#define DUET_GRAMS_H

#include "models/base.h"

/* Every character and every pair of neighbours of `a` and of `b`, each once, a blank behind each.  ASCII letters in lower case;
 * other ASCII characters but digits as U+E000 + code, so that a tokenizer which knows letters, digits and everything beyond
 * ASCII keeps each word whole.  Ill-formed bytes are left out and part their neighbours.  E_NOMEM. */
int grams_put(buf *out, str a, str b);
/* The one word of a query of one or two characters (well-formed). */
void grams_query(buf *out, str query);

#endif
