/* form: the sheet of one judge as something to take away: one HTML page that needs no network and no server, or a table for a spreadsheet.  Neither holds a system's name, nor
 * anything else that would tell which reply is whose; ballot.h reads both back. */
#ifndef DUET_FORM_H
#define DUET_FORM_H

#include "eval/study.h"

/* The page shows one unit after the other, keeps the answers in the browser, and lets the judge save them as CSV or JSON at any time; keys 1 2 = (y n), arrows.  In
 * the language of the study. */
int form_html(const study *s, str judge, buf *out, err *e);
/* Columns sheet, judge, item, before, line, reply 1, reply 2 (ssa: reply), and an empty one for each question. */
int form_csv(const study *s, str judge, buf *out, err *e);

#endif
