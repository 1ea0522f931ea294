/* normal: the forms of a text that rules are matched against, every byte mapped back to the original.
 *
 *   plain  what the text says: Unicode NFKC with case folding and without ignorable code points (zero-width and bidi
 *          controls, variation selectors, soft hyphens); generic combining marks dropped (U+0300 block and its kin: "fück"
 *          and overstruck letters become "fuck"); decimal digits of all common scripts as 0-9; control characters and every kind
 *          of space as one ' ', runs of them as one; ill-formed UTF-8 as U+FFFD; traditional Han characters of a table as simplified;
 *          curly apostrophes, primes and quotation marks as ' and ", every dash as -.
 *   bare   the plain form with disguises taken off: look-alike letters (Cyrillic, Greek, small capitals, enclosed letters)
 *          as Latin; digits and signs inside words as letters ("sh1t"); spaced or punctuated single letters joined
 *          ("f.u.c.k", "f u c k"), word parts with one sign between them too ("fu-ck"); separators between Han characters
 *          dropped where one side stands alone ("傻 逼"); a letter repeated three times or more written `keep` times; then text
 *          speak, starred words and pinyin among Chinese as the words meant (slang.h).
 *          There are two: with keep 1 the signs 1 ! | are i, with keep 2 they are l, and an "a" or "i" before spelled
 *          letters stays a word.  It is for looking, not for reading: a harmless sentence may turn into nonsense, so it
 *          is matched beside the plain form, never instead of it.
 *
 * Knows nothing of rules. */
#ifndef DUET_NORMAL_H
#define DUET_NORMAL_H

#include "models/base.h"

enum { NORMAL_VERSION = 2 }; /* raised whenever a form changes: it enters the digest of the rules */
enum { NORMAL_MAX = 1 << 28 }; /* bytes of the longest text taken */

typedef struct {
    buf  text;     /* valid UTF-8 */
    ivec from, to; /* (text.n,) byte i of text came from original bytes from[i] to to[i]-1 */
} normal;

/* `out` is overwritten; zero-initialise it once and it keeps its memory from call to call.  E_LIMIT: text over NORMAL_MAX; E_NOMEM. */
int normal_plain(normal *out, str text, err *e);
/* keep = 1 or 2. */
int normal_bare(normal *out, const normal *plain, int keep, err *e);
void normal_free(normal *x);
/* The code point as it appears in a plain text when that is one code point: cp itself when it is left alone; 0 when it vanishes or becomes
 * several.  For telling authors of rules about letters that can never match. */
uint32_t normal_cp(uint32_t cp);
int      normal_is_han(uint32_t cp);

#endif
