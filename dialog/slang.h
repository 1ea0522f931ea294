/* slang: written one way, read another.  English text speak, vowels starred out and the common misspellings of words that rules look
 * for; pinyin, whole or by its initial, in the place of a Chinese character ("冰du", "sha了他", "手qiang").  Two tables, no state, no
 * text of its own: normal.c asks word by word.
 *
 * What comes back is only a reading: "2" is "to" even in "2 apples".  It belongs into a form that is matched beside the plain one. */
#ifndef DUET_SLANG_H
#define DUET_SLANG_H

#include "models/base.h"

/* The words that an English word (lower case, letters, digits, apostrophes) stands for; n = 0: itself.  A static string. */
str slang_word(str word);
/* What a run of Latin letters or digits stands for beside Chinese: left and right are the characters before and after it, 0 where there is
 * no Han character.  Words of which a neighbour is a part come first, then whole words, then single syllables.  n = 0: nothing. */
str slang_pinyin(str run, uint32_t left, uint32_t right);

#endif
