/* store: the door to SQLite that history.c opens for its neighbours record.c, shelf.c, notes.c, which know tables and rows but not
 * sqlite3.h. Statements by their text, prepared once; cells read with type, length and range checked, because SQLite lets any
 * cell hold anything. */
#ifndef DUET_STORE_H
#define DUET_STORE_H

#include "dialog/history.h"

enum { TEXT_MAX = 16 << 20, IDS_MAX = 4 << 20, CAND_MAX = 4096, HIT_MAX = 65536, TITLE_MAX = 1000 };
enum { SHORT_MAX = 4096 }; /* digests, options, dates */

const char *store_path(const history *h);
int         store_no_memory(const history *h, err *e);

/* The rows of one running statement.  The first failure is kept in r; after it every cell_… gives zeros. */
typedef struct {
    history    *h;
    void       *st;
    arena      *a; /* texts and ids are copied there */
    err        *e;
    const char *table; /* named in messages, with … */
    int64_t     id;    /* … the turn or conversation */
    int         r;
} cells;

/* Start `sql` (a static string: it is the key under which the statement is kept) with parameters by type: i int64_t, d double
 * (NaN is NULL), t str, b bytes (pointer, int), n NULL.  They are not copied: they must live until the last step.  A statement
 * runs once at a time. */
int  store_query(cells *c, const char *sql, const char *types, ...);
int  store_step(cells *c);  /* 1 a row; 0 no more; <0 an error, this or an earlier one of the cells */
void store_done(cells *c);  /* before the last row was reached */
int  store_run(history *h, err *e, const char *sql, const char *types, ...); /* no rows wanted */
int  store_begin(history *h, int write, err *e);
int  store_finish(history *h, int r, err *e); /* commit when r is OK; roll back otherwise, or when that fails */
int64_t store_last_id(const history *h);
int     store_changes(const history *h);
int     store_has_grams(const history *h);  /* 0: an older file opened for reading, which has no table gram */
int     store_has_days(const history *h);   /* 0: the same without the table day and the indices over verdicts */
int     store_is_damaged(const history *h); /* SQLite has found the file's structure broken */
int64_t store_bytes(history *h, int64_t *unused, err *e); /* of the file, and of its unused pages; <0 an error */
int     store_flush(history *h, err *e);    /* the log into the file, and emptied */

int           cell_null(const cells *c, int col);
int64_t       cell_int(cells *c, int col, int64_t lo, int64_t hi);
double        cell_real(cells *c, int col);                 /* NULL is NaN */
str           cell_text(cells *c, int col, int max);        /* NUL-terminated copy */
const char   *cell_cstr(cells *c, int col, int max);        /* and no NUL in it */
void          cell_bytes(cells *c, int col, void *out, int n);
const int    *cell_ids(cells *c, int col, int *n);          /* token ids, none negative */
void          cell_bad(cells *c, int col, const char *why); /* E_FORMAT: a check of the caller's own failed */

/* Room for one more in an array of the arena that grows as it fills; NULL when memory is out. */
void *store_room(arena *a, void *old, int n, size_t size);

/* notes.c, inside a transaction of the caller's: see hist_judge, hist_tag, hist_judgments (conv 0: all). */
int store_put_judgment(history *h, int64_t id, str reader, int label, str note, str created, err *e);
int store_put_tag(history *h, int64_t conv, str name, int on, int *changed, err *e);
int store_judgments(history *h, int64_t conv, arena *a, judgment **list, int *n, err *e);
int store_note_copy(history *h, str path, str created, err *e); /* a backup was made there */

/* How far this handle has read one conversation (see hist_append): row n of conv, 0 = nothing noted. */
void store_note(history *h, int64_t conv, int n);
int  store_noted(const history *h, int64_t conv, int *n); /* 1 when conv is the one noted */

#endif
