/* forget: erasing words while the chain of their digests stays: one exchange, a conversation, everything before a day, and the same
 * in the backups that were made of the store.  See history.h. */
#include "dialog/record.h"

#include <unistd.h>

/* Erase the words of one exchange, and the title if it was made of them.  The indices have to be told what they had indexed. */
static int erase(history *h, int64_t conv, int64_t id, str user, str said, err *e)
{
    static const char index[] = "INSERT INTO search(search,rowid,user_text,reply_text) VALUES('delete',?,?,?)";
    static const char grams[] = "INSERT INTO gram(gram,rowid,chars) VALUES('delete',?,grams(?,?))";
    static const char words[] = "UPDATE turn SET salt=NULL,prompt=NULL,user_text=NULL,user_ids=NULL,user_action=NULL,user_rule=NULL,"
                                "cut=NULL,evaluated=NULL,reply_text=NULL,reply_ids=NULL WHERE id=?";
    static const char cands[] = "UPDATE candidate SET salt=NULL,text=NULL,ids=NULL,ended=NULL,dup_of=NULL,fwd=NULL,bwd=NULL,"
                                "n_source=NULL,score=NULL,action=NULL,rule=NULL WHERE turn=?";
    static const char hits[]  = "DELETE FROM hit WHERE turn=?";
    static const char notes[] = "UPDATE judgment SET note='' WHERE turn=?"; /* it may quote */
    static const char title[] = "UPDATE conversation SET title='' WHERE id=? AND title=?";
    char              t[RECORD_TITLE];
    int               r = store_run(h, e, index, "itt", id, user, said);
    if (r == OK) r = store_run(h, e, grams, "itt", id, user, said);
    if (r == OK) r = store_run(h, e, words, "i", id);
    if (r == OK) r = store_run(h, e, cands, "i", id);
    if (r == OK) r = store_run(h, e, hits, "i", id);
    if (r == OK) r = store_run(h, e, notes, "i", id);
    return r == OK ? store_run(h, e, title, "it", conv, record_title(user, t)) : r;
}

int record_erase(history *h, int64_t conv, int n, int *count, err *e)
{
    static const char sql[]   = "SELECT id,user_text,reply_text FROM turn WHERE conv=?1 AND what<3 AND salt IS NOT NULL AND (?2=0 OR n=?2) "
                                "LIMIT 1";
    static const char title[] = "UPDATE conversation SET title='' WHERE id=?";
    arena             a       = { 0 };
    int               r;
    for (*count = 0;; ++*count) {
        cells c = { .h = h, .a = &a, .e = e, .table = "conversation", .id = conv };
        arena_reset(&a);
        r = store_query(&c, sql, "ii", conv, (int64_t)n);
        if (r || (r = store_step(&c)) <= 0) break;
        int64_t id   = cell_int(&c, 0, INT64_MIN, INT64_MAX);
        str     user = cell_text(&c, 1, TEXT_MAX), said = cell_text(&c, 2, TEXT_MAX);
        store_done(&c);
        if ((r = c.r) || (r = erase(h, conv, id, user, said, e))) break;
    }
    arena_free(&a);
    return r == OK && n == 0 ? store_run(h, e, title, "i", conv) : r;
}

/* In a transaction: erase, and say so in the chain.  n = 0: everything. */
static int forget_rows(history *h, int64_t conv, int n, str created, int *count, err *e)
{
    int r = record_erase(h, conv, n, count, e);
    return r == OK && *count > 0 ? record_mark(h, conv, ROW_FORGET, n, created, e) : r;
}

int record_finish(history *h, int r, int64_t *count, err *e)
{
    static const char merge[] = "INSERT INTO search(search) VALUES('optimize')", merge_grams[] = "INSERT INTO gram(gram) VALUES('optimize')";
    if (r == OK && *count > 0) r = store_run(h, e, merge, "");
    if (r == OK && *count > 0) r = store_run(h, e, merge_grams, "");
    r = store_finish(h, r, e);
    if (r) *count = 0;
    if (r || *count == 0) return r;
    r = store_flush(h, e);
    if (r) err_prefix(e, "forgotten, but the log beside the database keeps old pages while another program reads it");
    return r;
}

int hist_forget(history *h, int64_t conv, int n, str created, int *forgotten, err *e)
{
    unsigned char hash[CHAIN_HASH];
    int           count = 0, last, seen, noted, r = store_begin(h, 1, e);
    int64_t       erased;
    if (forgotten) *forgotten = 0;
    if (r) return r;
    noted = store_noted(h, conv, &seen);
    r     = record_last(h, conv, &last, hash, e);
    if (r == OK) r = forget_rows(h, conv, n, created, &count, e);
    if (r == OK && count == 0) r = err_set(e, E_ARG, "%s: nothing to forget there", store_path(h));
    erased = count;
    r      = record_finish(h, r, &erased, e);
    if (erased == 0 && noted) store_note(h, conv, seen);
    if (forgotten) *forgotten = (int)erased;
    return r;
}

/* ---- what is old ------------------------------------------------------------------------------------------------ */

/* The exchanges of a conversation from before a moment: all of it when nothing younger is left, else one by one. */
static int purge_one(history *h, int64_t conv, str before, str created, int64_t *exchanges, err *e)
{
    static const char younger[] = "SELECT 1 FROM turn WHERE conv=? AND what<3 AND salt IS NOT NULL AND created>=? LIMIT 1";
    static const char older[]   = "SELECT n FROM turn WHERE conv=? AND what<3 AND salt IS NOT NULL AND created<? ORDER BY n";
    arena             a         = { 0 };
    cells             c         = { .h = h, .e = e, .table = "conversation", .id = conv };
    int64_t          *ns        = NULL;
    int               n = 0, count = 0, all, r = store_query(&c, younger, "it", conv, before);
    if (r == OK) r = store_step(&c);
    store_done(&c);
    all = r == 0;
    if (r == 1) {
        r = store_query(&c, older, "it", conv, before);
        if (r == OK) r = record_ids(&c, &a, &ns, &n);
    }
    if (r == OK && all) {
        r = forget_rows(h, conv, 0, created, &count, e);
        *exchanges += count;
    }
    for (int i = 0; r == OK && i < n; i++) {
        r = forget_rows(h, conv, (int)ns[i], created, &count, e);
        *exchanges += count;
    }
    arena_free(&a);
    return r;
}

int hist_purge(history *h, str before, int dry, str created, int64_t *exchanges, int64_t *conversations, err *e)
{
    static const char which[] = "SELECT DISTINCT conv FROM turn WHERE what<3 AND salt IS NOT NULL AND created<? ORDER BY conv";
    static const char count[] = "SELECT count(*) FROM turn WHERE what<3 AND salt IS NOT NULL AND created<?";
    arena             a       = { 0 };
    cells             c       = { .h = h, .e = e, .table = "turn" };
    int64_t          *convs   = NULL;
    int               n = 0, r = store_begin(h, !dry, e);
    *exchanges = *conversations = 0;
    if (r) return r;
    r = store_query(&c, which, "t", before);
    if (r == OK) r = record_ids(&c, &a, &convs, &n);
    if (r == OK && dry && (r = store_query(&c, count, "t", before)) == OK && (r = store_step(&c)) == 1) {
        *exchanges = cell_int(&c, 0, 0, INT64_MAX);
        store_done(&c);
        r = c.r;
    }
    for (int i = 0; r == OK && !dry && i < n; i++) r = purge_one(h, convs[i], before, created, exchanges, e);
    *conversations = n;
    arena_free(&a);
    return dry ? store_finish(h, r, e) : record_finish(h, r, exchanges, e);
}

/* ---- the backups ------------------------------------------------------------------------------------------------ */

/* The conversation of `copy` that begins as `conv` of h does: the same key, the same day.  *id = 0: it is not there. */
static int same_conversation(history *h, int64_t conv, history *copy, int64_t *id, err *e)
{
    static const char sql[] = "SELECT id FROM conversation WHERE key=?";
    unsigned char     key[CHAIN_KEY];
    cells             c = { .h = copy, .e = e, .table = "conversation", .id = conv };
    int               r = record_key(h, conv, key, e);
    *id                 = 0;
    if (r == OK) r = store_query(&c, sql, "b", key, (int)CHAIN_KEY);
    if (r == OK && (r = store_step(&c)) == 1) *id = cell_int(&c, 0, 1, INT64_MAX);
    store_done(&c);
    return r < 0 ? r : c.r;
}

static int forget_copy(history *h, int64_t conv, const int *n, int n_n, str before, str created, history *copy, int64_t *many, err *e)
{
    int64_t id = 0, convs;
    int     count, r;
    if (before.n) return hist_purge(copy, before, 0, created, many, &convs, e);
    r = same_conversation(h, conv, copy, &id, e);
    for (int i = 0; r == OK && id && i < n_n; i++) {
        r = hist_forget(copy, id, n[i], created, &count, e);
        if (r == OK) *many += count;
        if (r == E_ARG) r = OK; /* made when those words were not there yet, or were gone */
    }
    return r;
}

int hist_forget_copies(history *h, int64_t conv, const int *n, int n_n, str before, str created, hist_tell *tell, void *ctx, err *e)
{
    arena      a = { 0 };
    hist_copy *b;
    int        n_b = 0, r = hist_backups(h, &a, &b, &n_b, e);
    for (int i = 0; r == OK && i < n_b; i++) {
        history *copy  = NULL;
        err      local = { 0 };
        int64_t  many  = 0;
        if (access(b[i].path.s, F_OK) != 0) continue; /* somebody has removed it, and the words with it */
        int s = hist_open(&copy, b[i].path.s, HIST_WRITE, &local);
        if (s == OK) s = forget_copy(h, conv, n, n_n, before, created, copy, &many, &local);
        hist_close(copy);
        tell(ctx, b[i].path.s, many, s == OK ? NULL : local.msg);
    }
    arena_free(&a);
    return r;
}
