/* csv: comma-separated values as RFC 4180 has them, with a header line.  UTF-8; reads LF and CRLF, and a byte order mark in front,
 * as spreadsheets write them; writes CRLF. */
#ifndef DUET_CSV_H
#define DUET_CSV_H

#include "models/base.h"

enum { CSV_COLUMNS = 64 };

/* Append one cell, in quotes where it needs them; `first`: of its line.  A text that a spreadsheet would take for a formula (it
 * begins with = + - @, a tab or CR, or with ' before one of those) gets a ' in front, which csv_plain takes off again. */
void csv_cell(buf *b, str s, int first);
void csv_end(buf *b);
str  csv_plain(str cell);

typedef struct {
    str    rest;   /* not yet read */
    int    line;   /* of the last record, from 1 */
    int    next;   /* line where `rest` begins */
    str    cell[CSV_COLUMNS];
    int    n;      /* cells of the last record */
} csv;
void csv_open(csv *c, str bytes);
/* The next record into cell[]: 1, 0 at the end, or E_FORMAT (a quote that does not close, or text behind one) with the line.
 * Cells live in the arena or in the bytes.  Empty lines are passed over. */
int csv_next(csv *c, arena *a, err *e);
/* Number of the column with this name in the record (the header), -1. */
int csv_column(const csv *c, const char *name);

#endif
