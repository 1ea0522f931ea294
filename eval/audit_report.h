/* audit_report: one HTML page about a store, for somebody who must judge it: is the record whole, what was said, what did the rules
 * do, how was chosen, how long did it take. */
#ifndef DUET_AUDIT_REPORT_H
#define DUET_AUDIT_REPORT_H

#include "dialog/history.h"
#include "models/base.h"

typedef struct {
    const char    *name;    /* of the store, for the title */
    str            made;    /* the caller's clock, UTC */
    const int64_t *id;      /* (n,) exchanges to count, oldest first */
    int            n;
    int            is_part; /* not all exchanges of the store */
    const safety  *rules;   /* names of rules; NULL: none at hand */
    int            n_sample;
    uint64_t       seed;    /* of the sample, see readers.h */
} audit_report_opts;
/* Verifies, counts, appends the page.  *sound = every hash holds. */
int audit_report(history *h, const audit_report_opts *o, buf *page, int *sound, err *e);

#endif
