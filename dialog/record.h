/* record: what record.c, which owns the rows of the chain, opens for its neighbours forget.c and transfer.c.  Inside a transaction
 * of the caller's where something is written. */
#ifndef DUET_RECORD_H
#define DUET_RECORD_H

#include "dialog/chain.h"
#include "dialog/store.h"

/* One row with everything that belongs to it, in the arena.  E_ARG: no such row; E_FORMAT: not what a row may be. */
int record_load(history *h, int64_t id, arena *a, chain_row *row, err *e);
/* Does the row agree with itself and with `prev`?  OK, or E_FORMAT with the difference. */
int record_check(history *h, const chain_row *row, const unsigned char prev[CHAIN_HASH], err *e);
/* A whole conversation.  OK; or E_FORMAT with the difference and *bad = the row's id; or another error.  *n_checked grows. */
int record_verify(history *h, int64_t conv, int64_t *bad, int64_t *n_checked, err *e);
/* Store a row that is complete: linked, digested, hashed (one whose words are forgotten has digests only).  It is read back and
 * compared: E_DB when it does not come back.  *id = its id. */
int record_put(history *h, const chain_row *row, int64_t *id, err *e);
/* Append a row that is no exchange: what = ROW_UNDO or ROW_FORGET. */
int record_mark(history *h, int64_t conv, int what, int target, str created, err *e);

/* Erase the words of exchange n, or of all when n = 0 (forget.c); *count = of how many.  The chain must say so: record_mark. */
int record_erase(history *h, int64_t conv, int n, int *count, err *e);
/* End the transaction as store_finish does; where words were erased (*count > 0) both indices drop them from their pages first,
 * and the log, which still has the old pages, is emptied.  *count = 0: nothing was committed; an error with *count > 0: it was,
 * only the log could not be emptied. */
int record_finish(history *h, int r, int64_t *count, err *e);

/* The random bytes that name a conversation wherever it is copied.  E_ARG: no such conversation. */
int record_key(history *h, int64_t conv, unsigned char key[CHAIN_KEY], err *e);
/* The start of a conversation's chain.  E_ARG: no such conversation. */
int record_start(history *h, int64_t conv, unsigned char hash[CHAIN_HASH], err *e);
/* Number and hash of the last row; 0 and the start of the chain when there is none. */
int record_last(history *h, int64_t conv, int *n, unsigned char hash[CHAIN_HASH], err *e);
/* Ids of a conversation's rows in order, exchanges alone or all. */
int record_rows(history *h, int64_t conv, int all, arena *a, int64_t **ids, int *n, err *e);
/* The numbers that a running statement gives, one a row, in the arena. */
int record_ids(cells *c, arena *a, int64_t **ids, int *n);

/* The title that a first line makes: its first 60 characters, white space and control characters as single blanks. */
enum { RECORD_TITLE = 240 };
str record_title(str line, char t[RECORD_TITLE]);

#endif
