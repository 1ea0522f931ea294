/* numbers: the store in figures.  See hist_stats in history.h. */
#include "dialog/store.h"

#include <math.h>

#define EXCHANGES "FROM turn WHERE what<3"

static int one_int(history *h, const char *sql, int64_t *v, err *e)
{
    cells c = { .h = h, .e = e, .table = "count" };
    int   r = store_query(&c, sql, "");
    if (r == OK && (r = store_step(&c)) == 1) {
        *v = cell_int(&c, 0, 0, INT64_MAX);
        store_done(&c);
        r = c.r;
    }
    return r;
}

/* Rows of (action, number) into v. */
static int by_action(history *h, const char *sql, int64_t v[5], err *e)
{
    cells c = { .h = h, .e = e, .table = "count" };
    int   r = store_query(&c, sql, "");
    while (r == OK && (r = store_step(&c)) == 1) {
        int64_t action = cell_int(&c, 0, RULE_NONE, RULE_BLOCK);
        v[action]      = cell_int(&c, 1, 0, INT64_MAX);
        r              = OK;
    }
    store_done(&c);
    return r;
}

/* Rows of (text, number). */
static int by_text(history *h, const char *sql, arena *a, hist_count **list, int *n, err *e)
{
    cells c = { .h = h, .a = a, .e = e, .table = "count" };
    int   r = store_query(&c, sql, "");
    *list   = NULL;
    *n      = 0;
    while (r == OK && (r = store_step(&c)) == 1) {
        *list = store_room(a, *list, *n, sizeof **list);
        if (*list) (*list)[(*n)++] = (hist_count){ cell_text(&c, 0, SHORT_MAX), cell_int(&c, 1, 0, INT64_MAX) };
        r = *list ? OK : store_no_memory(h, e);
    }
    store_done(&c);
    return r;
}

/* The value that `part` of the known times do not exceed (nearest rank). */
static int seconds_at(history *h, double part, double *v, err *e)
{
    static const char count[] = "SELECT count(*) " EXCHANGES " AND seconds IS NOT NULL";
    static const char sql[]   = "SELECT seconds " EXCHANGES " AND seconds IS NOT NULL ORDER BY seconds LIMIT 1 OFFSET ?";
    cells             c       = { .h = h, .e = e, .table = "count" };
    int64_t           n       = 0;
    int               r       = one_int(h, count, &n, e);
    *v                        = NAN;
    if (r || n == 0) return r;
    int64_t rank = (int64_t)ceil(part * (double)n);
    r            = store_query(&c, sql, "i", (rank > 0 ? rank : 1) - 1);
    if (r == OK && (r = store_step(&c)) == 1) {
        *v = cell_real(&c, 0);
        store_done(&c);
        r = c.r;
    }
    return r;
}

static int count_all(history *h, arena *a, hist_numbers *s, err *e)
{
    const struct {
        const char *sql;
        int64_t    *to;
    } one[] = {
        { "SELECT count(*) FROM conversation", &s->conversations },
        { "SELECT count(*) " EXCHANGES, &s->exchanges },
        { "SELECT count(*) FROM turn WHERE what=16", &s->undone },
        { "SELECT count(*) " EXCHANGES " AND salt IS NULL", &s->forgotten },
        { "SELECT count(*) FROM turn WHERE what=1", &s->refused },
        { "SELECT count(*) FROM turn WHERE what=2", &s->stock },
        { "SELECT count(*) " EXCHANGES " AND stale", &s->stale },
        { "SELECT count(*) FROM candidate", &s->candidates },
        { "SELECT count(*) FROM judgment", &s->judgments },
    };
    static const char user[]  = "SELECT user_action,count(*) " EXCHANGES " AND salt IS NOT NULL GROUP BY 1";
    static const char said[]  = "SELECT c.action,count(*) FROM turn t JOIN candidate c ON c.turn=t.id AND c.k=t.chosen WHERE t.what<3 AND "
                                "c.salt IS NOT NULL GROUP BY 1";
    static const char month[] = "SELECT substr(created,1,7),count(*) " EXCHANGES " GROUP BY 1 ORDER BY 1";
    static const char model[] = "SELECT fwd,count(*) " EXCHANGES " GROUP BY 1 ORDER BY 2 DESC,1";
    static const char ends[]  = "SELECT coalesce(min(created),''),coalesce(max(created),'') " EXCHANGES;
    cells             c       = { .h = h, .a = a, .e = e, .table = "count" };
    int               r       = OK;
    for (size_t i = 0; r == OK && i < sizeof one / sizeof one[0]; i++) r = one_int(h, one[i].sql, one[i].to, e);
    if (r == OK) r = by_action(h, user, s->user, e);
    if (r == OK) r = by_action(h, said, s->reply, e);
    if (r == OK) r = by_text(h, month, a, &s->month, &s->n_month, e);
    if (r == OK) r = by_text(h, model, a, &s->fwd, &s->n_fwd, e);
    if (r == OK) r = seconds_at(h, 0.5, &s->p50, e);
    if (r == OK) r = seconds_at(h, 0.95, &s->p95, e);
    if (r == OK) r = store_query(&c, ends, "");
    if (r == OK && (r = store_step(&c)) == 1) {
        s->first = cell_text(&c, 0, SHORT_MAX);
        s->last  = cell_text(&c, 1, SHORT_MAX);
        store_done(&c);
        r = c.r;
    }
    return r;
}

int hist_stats(history *h, arena *a, hist_numbers *s, err *e)
{
    *s    = (hist_numbers){ 0 };
    int r = store_begin(h, 0, e);
    if (r) return r;
    r = count_all(h, a, s, e);
    if (r == OK) s->bytes = store_bytes(h, &s->free_bytes, e);
    if (r == OK && s->bytes < 0) r = (int)s->bytes;
    return store_finish(h, r, e);
}
