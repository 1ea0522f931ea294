/* history: the SQLite store.  Schema, append in one transaction, verify before commit, list/show/search, resume, forget.  The
 * only file that includes sqlite3.h; what of a row enters the hash chain is chain.h's.  Nothing is shown to a person that is
 * not committed here first. The prefix is hist_: readline's library exports history_list, history_get, history_search and more. */
#ifndef DUET_HISTORY_H
#define DUET_HISTORY_H

#include "dialog/respond.h"

typedef struct history history;
/* READ: must exist, no row is ever changed.  WRITE: created when missing, mode 0600.  MEMORY: a private one, the path is ignored. */
enum { HIST_READ = 1, HIST_WRITE = 2, HIST_MEMORY = 4 };
/* WAL, foreign keys, synchronous=FULL, busy timeout 5 s; refuses a foreign file (application_id), a newer schema
 * (user_version), a directory, a file it may not write: E_DB/E_IO with the path, and the file untouched.  WRITE brings an older
 * schema up to date in one transaction; READ reads it as it is, byte for byte unchanged.  HIST_WRITE makes the last folder of the path when it is missing (mode 0700), not those above it: a typo
 * there is an error. */
int  hist_open(history **h, const char *path, int flags, err *e);
void hist_close(history *h); /* NULL is fine */

/* What is read back is believed to be nothing but bytes: types, lengths and ranges are checked; a row that fails is E_FORMAT,
 * naming row and column. Limits, for reading and writing (E_LIMIT): texts 16 MiB, 4 Mi tokens, 4096 candidates, 65536 rule hits
 * in an exchange, titles 1000 bytes. */

typedef struct {
    int64_t id;
    str     title, created; /* UTC, 2026-11-24T15:04:05Z */
    str     fwd, bwd;       /* model digests at its last exchange */
    str     tags;           /* in byte order, a blank between them */
    int     n_turns;        /* user+bot pairs that are not undone */
} conversation;
int hist_new(history *h, str title, int64_t *id, err *e);
/* Newest first (by the last row added, then by creation); at most `limit` (0 = all); in the arena. */
int hist_list(history *h, int limit, arena *a, conversation **list, int *n, err *e);
int hist_tagged(history *h, str tag, int limit, arena *a, conversation **list, int *n, err *e); /* those with the tag alone */
int hist_get(history *h, int64_t conv, arena *a, conversation *c, err *e); /* E_ARG: no such conversation */
int hist_set_title(history *h, int64_t conv, str title, err *e);

/* One exchange: the user's line and the reply record, as one row set in one transaction.  `created` comes from the caller's
 * clock (UTC text).  Before COMMIT the rows are read back and re-hashed: E_DB and nothing stored when they differ.  *turn = its
 * id.  The conversation's title is set from the first line when empty (not from a refused one). Two programs may go on with one
 * conversation at once.  hist_turns(before = 0) notes how far this handle has read; an exchange appended while others have
 * added rows since is marked stale: its reply did not know them, so it cannot be replayed from the rows before it. */
int hist_append(history *h, int64_t conv, const reply *r, const respond_opts *o, str created, double seconds, int64_t *turn, err *e);
/* Mark the last exchange that is neither undone nor forgotten as undone: it stays in the record and in the chain (an undo is itself a chained
 * row), later context skips it. *undone = the exchange's id; may be NULL. */
int hist_undo(history *h, int64_t conv, str created, int64_t *undone, err *e); /* E_ARG: nothing to undo */
/* Erase the words of one exchange (its number n), or of all so far (n = 0, the title too): texts, ids, hits, scores, salts and
 * the notes of judgments are gone from the file, its indices and its log; digests stay and a chained row says so.  Scores of
 * later exchanges, which were computed with those words in their context, stay.  *forgotten = exchanges erased; when that is not
 * 0 and yet there is an error, the words are gone from the file, and only its log could not be emptied: another program is
 * reading.  E_ARG: nothing to forget there. */
int hist_forget(history *h, int64_t conv, int n, str created, int *forgotten, err *e);
/* Forget every exchange created before `before` (UTC text, or the beginning of one).  dry: only count.  An error with *exchanges
 * > 0: as in hist_forget. */
int hist_purge(history *h, str before, int dry, str created, int64_t *exchanges, int64_t *conversations, err *e);
/* The same in every backup that was made of this store and is still where it was put: with `before` empty what
 * hist_forget(conv, n[i]) forgot, else what hist_purge(before) did.  Tells of each: exchanges erased; failed: why it could not be
 * done, else NULL. */
typedef void hist_tell(void *ctx, const char *path, int64_t exchanges, const char *failed);
int hist_forget_copies(history *h, int64_t conv, const int *n, int n_n, str before, str created, hist_tell *tell, void *ctx, err *e);

typedef struct {
    int64_t      id, conv;
    int          n;        /* number of the row in its conversation, 1..; undo and forget rows have numbers too */
    int          undone;
    int          forgotten; /* the words are erased: r has kind, chosen, digests and fates, everything else is empty or NaN */
    int          stale;    /* see hist_append */
    str          created;
    double       seconds;
    str          opts;     /* respond_opts_format */
    uint64_t     seed;
    reply        r;        /* as stored; digests point into the arena */
    unsigned char hash[32];
} exchange;
int hist_exchange(history *h, int64_t turn, arena *a, exchange *x, err *e); /* E_ARG: no such exchange */
/* All exchanges of a conversation in order. */
int hist_exchanges(history *h, int64_t conv, arena *a, exchange **list, int *n, err *e);
/* The turns (user, bot, user, bot…) that feed a model: what respond's `hist` will be for the next exchange (before = 0), or was
 * for exchange number `before` (the rows in front of it, undone ones left out as undos stood then).  Forgotten ones left out,
 * refused ones hidden. */
int hist_turns(history *h, int64_t conv, int before, arena *a, turn **list, int *n, err *e);
/* Ids of exchanges, oldest first: all, or the last `limit`. */
int hist_turn_ids(history *h, int limit, arena *a, int64_t **ids, int *n, err *e);

typedef struct {
    int64_t conv, turn;
    int     speaker;
    str     created, snippet; /* snippet with the hit between \x01 and \x02 */
} history_found;
typedef struct {        /* what is empty, 0 or (speaker, verdict) -1 lets everything pass */
    str     since, until; /* beginnings of a `created`, as "2026-11" or "2026-11-24T15"; until: that month or hour included */
    int     speaker;      /* 0 the user's lines, 1 the replies */
    int     verdict;      /* RULE_…, on the line itself: the user's, or the chosen candidate's */
    str     model;        /* beginning of the digest of the forward or backward model */
    str     tag;
    int64_t conv;
} hist_filter;
/* Lines that contain `query` as it stands (no search syntax), newest first, at most `limit` (0 = all).  Three characters and
 * more: case-insensitive in any script; one or two: in ASCII only.  Undone exchanges included.  f NULL: no filter.  E_ARG:
 * empty, no UTF-8, or a NUL in it. */
int hist_search(history *h, str query, const hist_filter *f, int limit, arena *a, history_found **list, int *n, err *e);

/* Counts over the whole store. */
typedef struct {
    str     key;
    int64_t n;
} hist_count;
typedef struct {
    int64_t     conversations, exchanges, undone, forgotten, refused, stock, stale, candidates, judgments;
    int64_t     user[5], reply[5];  /* verdicts RULE_NONE … RULE_BLOCK on the users' lines and on the chosen replies */
    str         first, last;        /* days of the first and the last exchange; empty */
    double      p50, p95;           /* seconds a reply took; NaN when none is known */
    hist_count *month, *fwd;        /* exchanges by month, by digest of the forward model */
    int         n_month, n_fwd;
    int64_t     bytes, free_bytes;  /* of the file; of those not in use */
} hist_numbers;
int hist_stats(history *h, arena *a, hist_numbers *s, err *e);

/* Copy the store as it stands to a new file, mode 0600, while others go on reading and writing.  E_IO when there is something at
 * `path` already: a backup replaces nothing.  The file appears whole or not at all, and the store remembers where it is. */
int hist_backup(history *h, const char *path, str created, err *e);
typedef struct {
    str path, created;
} hist_copy;
int hist_backups(history *h, arena *a, hist_copy **list, int *n, err *e);
/* Rewrite the file without what is not in use.  Needs as much room again; others must wait.  Bytes before and after. */
int hist_vacuum(history *h, int64_t *before, int64_t *after, err *e);

/* Recompute the chain of a conversation (0 = all) with the same routine that guards COMMIT.  OK and *bad = 0, or OK and *bad =
 * id of the first bad turn with `what` (in the arena) naming the difference; *bad = -1 when the fault is not in one turn
 * (damaged pages, rows that belong to nothing). */
int hist_verify(history *h, int64_t conv, arena *a, int64_t *bad, str *what, int64_t *n_checked, err *e);
/* Hash of the last row of a conversation and its number (0 and the chain's start when there is no row).  Kept elsewhere, it
 * shows a tail that was cut off afterwards, which the chain itself cannot. */
int hist_head(history *h, int64_t conv, int *n, unsigned char hash[32], err *e);
/* Hash of row n as it is stored.  E_ARG: no such row. */
int hist_hash(history *h, int64_t conv, int n, unsigned char hash[32], err *e);

/* ---- what people say about the record: not part of the hash chain, may change ---------------------------------------- */

/* A reader's judgment of the reply in exchange `turn`: one a reader a turn, a later one replaces it.  reader: 1 to 200 bytes of
 * UTF-8; note: at most 4096 bytes (both E_ARG); E_ARG too for an unknown label and for a turn that is no exchange.  Forgetting
 * the turn empties the note and leaves the label. */
enum { JUDGE_OK, JUDGE_REPETITION, JUDGE_UNSAFE, JUDGE_OFF_TOPIC, JUDGE_OTHER, JUDGE_LABELS };
const char *hist_label_name(int label);         /* "ok", "repetition", "unsafe", "off-topic", "other"; NULL */
int         hist_label_of_name(const char *s); /* -1 */
int hist_judge(history *h, int64_t turn, str reader, int label, str note, str created, err *e);
typedef struct {
    int64_t turn;
    str     reader, note, created;
    int     label;
} judgment;
/* All of them, by turn and reader. */
int hist_judgments(history *h, arena *a, judgment **list, int *n, err *e);

/* Tags of a conversation: 1 to 100 bytes of UTF-8 without white space and control characters (E_ARG).  Setting one that is there
 * and taking off one that is not are OK and change nothing: *changed tells; may be NULL. */
int hist_tag(history *h, int64_t conv, str name, int on, int *changed, err *e);

#endif
