/* clean: what enters a corpus and what does not, with a count for every reason.  Owns normalisation, the rules and the search for duplicates.
 *
 * Every turn is normalised first: white space of any kind (also U+00A0, U+3000) becomes single spaces, the ends are trimmed, U+FEFF and U+200B go.
 * A bad *turn* is cut out: the dialogue ends before it and what follows it begins another one, since a reply must never look as if it answered
 * something else (with `whole`, the entire dialogue is dropped).  Rules about *dialogues* drop them (or, CLEAN_MANY, their tail). */
#ifndef DUET_CLEAN_H
#define DUET_CLEAN_H

#include "corpus/dialogue.h"

enum {
    CLEAN_EMPTY,     /* turn: nothing but white space and marks that are not seen */
    CLEAN_UTF8,      /* turn: ill-formed UTF-8, or U+FFFD where somebody met it before us */
    CLEAN_CONTROL,   /* turn: control characters, bidi overrides, private use */
    CLEAN_LONG,      /* turn: more than max_chars characters */
    CLEAN_REPEAT,    /* turn: the same word word_run times in a row, or the same character char_run times */
    CLEAN_ADDRESS,   /* turn: a web or mail address */
    CLEAN_NUMBER,    /* turn: seven digits or more in a row (telephone and account numbers) */
    CLEAN_MARKUP,    /* turn: <tag>, &entity; or [link](…) */
    CLEAN_FEW,       /* dialogue: fewer than min_turns turns left */
    CLEAN_MANY,      /* dialogue: turns past max_turns are left out */
    CLEAN_DUPLICATE, /* dialogue: the same turns came before */
    CLEAN_N
};
const char *clean_name(int reason); /* "empty", "utf8", …, "duplicate" */
const char *clean_about(int reason); /* a few words for reports and help */
int         clean_of_name(str s);   /* -1 unknown */

typedef struct {
    unsigned off;       /* bit r: rule r is switched off; CLEAN_EMPTY and CLEAN_UTF8 cannot be */
    int      whole;     /* 1: a bad turn drops the entire dialogue */
    int      min_turns; /* >= 1 */
    int      max_turns; /* 0 = any */
    int      max_chars; /* of a turn */
    int      word_run;  /* words are parted by spaces; letters are compared as they are */
    int      char_run;  /* any character but the space */
} clean_opts;
clean_opts clean_defaults(void); /* all rules on, cut, 2 turns or more, any number, 400 characters, 3 words, 6 characters */

typedef struct {
    uint64_t in, out;             /* dialogues */
    uint64_t turns_in, turns_out;
    uint64_t hit[CLEAN_N];        /* turns or dialogues the rule took; a turn counts for the first rule it breaks */
} clean_counts;

typedef struct cleaner cleaner;
int  cleaner_new(cleaner **c, const clean_opts *o, err *e);
void cleaner_free(cleaner *c);
const clean_counts *cleaner_counts(const cleaner *c);
/* Clean one dialogue and hand what is left of it (0, 1 or more dialogues, of the same group) to the sink. */
int cleaner_push(cleaner *c, const dialogue *d, dialogue_sink *sink, void *ctx, err *e);
/* The first rule that this turn breaks, or -1; the normalised text is appended to `out`. */
int clean_turn(const clean_opts *o, str text, buf *out);

#endif
