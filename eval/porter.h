/* porter: the stem of an English word.  Porter, "An algorithm for suffix stripping", Program 14(3), 1980, with the extensions that
 * NLTK's PorterStemmer has by default, so that METEOR's stem stage is NLTK's: a table of irregular words; words of one or two
 * letters stay; ies/ied keep the e in words of four letters; y becomes i only after a consonant that does not begin the word; alli
 * is tried first and its result goes through step 2 again; bli for abli; fulli; logi; a vowel and a consonant alone count as cvc. */
#ifndef DUET_PORTER_H
#define DUET_PORTER_H

#include "models/base.h"

/* Append the stem of `word`, which is in lower case, to `out`.  Any bytes are legal; what is no ASCII letter counts as a consonant. */
void porter_stem(str word, buf *out);

#endif
