/* ballot: judgments of a study (study.h).  Owns the log, a line of JSON for each, written when it is given, and the forms that come back from judges who
 * sat elsewhere.  Asks nobody.
 *
 * A line: {"unit": 17, "judge": "anna", "answers": {"relevance": "a" | "b" | "tie", …} | {"sensible": true, …}, "by": "terminal" | "form", "at": UTC, "seconds": 9.5},
 * or {"undo": 17, "judge": "anna", "at": UTC}: that judgment no longer counts.  Lines are only ever appended, whole, in one write. */
#ifndef DUET_BALLOT_H
#define DUET_BALLOT_H

#include "eval/study.h"

/* pair: 1 the first system of the unit (a), -1 the second (b), 0 a tie.  ssa: 1 yes, 0 no. */
typedef struct {
    int    unit;
    str    judge;
    int    answer[STUDY_QUESTIONS];
    double seconds; /* NaN: unknown */
} ballot;

/* All judgments that count, in the order they were given; a file that is not there holds none.  A last line without its end is left out (it was being written
 * when somebody pulled the plug) and *torn is its place, else -1.  Errors name file and line: another study's, an unknown unit, a judgment twice. */
int ballots_read(const study *s, const char *path, arena *a, ballot **list, int *n, long *torn, err *e);
const ballot *ballot_find(const ballot *list, int n, int unit, str judge); /* NULL */

/* Appends to the log; cuts a torn line off before (ballots_read says where), and is on the disk when it returns. */
typedef struct ballot_log ballot_log;
int  ballot_log_open(ballot_log **l, const char *path, long torn, err *e);
int  ballot_log_add(ballot_log *l, const study *s, const ballot *x, const char *by, const char *at, err *e);
int  ballot_log_undo(ballot_log *l, int unit, str judge, const char *at, err *e);
void ballot_log_close(ballot_log *l);

/* Answers as they are written: '1' the first reply shown, '2' the second, '=' (or 0, tie) a tie; y n for ssa. */
int ballot_answer_of(int kind, str word, int swapped, int *answer); /* 0, or -1: none of them */

/* A form that came back, CSV (columns sheet, judge, item and the questions) or JSON ({"sheet", "judge", "answers": [{"item", "answers": […], "seconds"}]}); items are
 * numbered from 1 in the judge's own order.  Rows without any
 * answer are passed over.  judge: as the form says.  E_FORMAT with one line: another sheet (by its digest), an unknown item, an item twice, an answer that is none, one that is
 * missing. */
int ballots_from_form(const study *s, str bytes, const char *name, arena *a, ballot **list, int *n, err *e);

#endif
