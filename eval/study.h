/* study: what people are asked to judge, blind.  From the replies of several systems to the same lines: which ones are laid before a judge, in which order
 * and on which side, so that neither tells which system said it.  Owns the key file, which says everything and stays with whoever runs the study; knows no
 * judgments (ballot.h) and shows nothing.
 *
 * Two kinds of questions: `pair` lays two replies side by side and asks DialoGPT's three questions (Zhang et al. 2020): relevance, informativeness,
 * human-likeness: the first, the second, or a tie.  `ssa` lays one reply down and asks whether it is sensible, and whether it is specific (Adiwardana et al. 2020).
 * Equal replies of two systems are a tie without being asked, and are judged once for `ssa`. */
#ifndef DUET_STUDY_H
#define DUET_STUDY_H

#include <jansson.h>

#include "eval/testset.h"

enum { STUDY_PAIR, STUDY_SSA };
enum { STUDY_SYSTEMS = 16, STUDY_QUESTIONS = 3 };
typedef struct {
    const char *key;          /* "relevance" */
    const char *name[2];      /* as a judge reads it; 0 en, 1 zh */
    const char *ask[2];
} study_question;
const study_question *study_questions(int kind, int *n);

typedef struct {
    int item;             /* of item[] */
    int a, b;             /* pair: the systems, a < b.  ssa: a the first system that said it, b -1 */
    unsigned systems;     /* ssa: bit s: system s said it */
    str reply[2];         /* of a and b */
} study_unit;
typedef struct {
    int        number;    /* in the test set, from 0 */
    const str *turn;      /* (n_turn,) oldest first, the line answered last */
    int        n_turn;
} study_item;
typedef struct {
    int         kind, lang; /* lang: 0 en, 1 zh: what judges are addressed in */
    uint64_t    seed;
    str         system[STUDY_SYSTEMS];
    int         n_system;
    study_item *item;     /* (n_item,) */
    int         n_item;
    study_unit *unit;     /* (n,) to be judged */
    int         n;
    study_unit *same;     /* pair: (n_same,) equal replies among those that were drawn: ties */
    int         n_same;
    char        digest[65]; /* SHA-256 of all this */
} study;

typedef struct {
    int            kind, lang, most; /* most: units to judge; 0: all */
    uint64_t       seed;
    int            n;
    const str     *name;             /* (n,) of the systems, no two alike */
    const str *const *reply;         /* (n,) each (t->n,) */
} study_plan;
/* Units are drawn in the order of a hash of the seed until `most` of them have something to judge.  Everything lives in `a`; texts stay the caller's. */
int study_make(study *s, const study_plan *p, const testset *t, arena *a, err *e);
/* The key file: JSON, whole or not at all.  Reading checks it against its own digest. */
int study_write(const study *s, const char *path, err *e);
int study_read(study *s, const char *path, arena *a, err *e);

/* Is this a judge's name?  1 to 64 bytes of UTF-8 without control characters, no blank at either end. */
int study_judge_ok(str judge);
/* The order for one judge: unit[i] comes i-th; swapped[i]: b is shown first.  A function of the seed and the name. */
int study_order(const study *s, str judge, int *unit /* (n,) */, unsigned char *swapped /* (n,) */, err *e);
/* Names the sheet of one judge: SHA-256 of the study's digest and the name. */
void study_sheet(const study *s, str judge, char out[65]);

#endif
