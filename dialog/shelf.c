/* shelf: conversations as a list, and their titles.  See history.h. */
#include "dialog/store.h"

/* ---- conversations --------------------------------------------------------------------------------------------- */

#define LAST_OF(col) "coalesce((SELECT " col " FROM turn WHERE conv=c.id AND what<3 ORDER BY n DESC LIMIT 1),'')"
#define COUNT "(SELECT count(*) FROM turn t WHERE t.conv=c.id AND t.what<3 AND NOT EXISTS(SELECT 1 FROM turn u WHERE u.conv=t.conv AND " \
              "u.what=16 AND u.target=t.n))"
#define TAGS "(SELECT group_concat(name,' ') FROM (SELECT name FROM tag WHERE conv=c.id ORDER BY name))"
#define CONV_COLS "c.id,c.title,c.created," LAST_OF("fwd") "," LAST_OF("bwd") "," COUNT ",coalesce(" TAGS ",'')"

int hist_new(history *h, str title, int64_t *id, err *e)
{
    static const char sql[] = "INSERT INTO conversation(key,title,created) VALUES(?,?,strftime('%Y-%m-%dT%H:%M:%SZ','now'))";
    unsigned char     key[16];
    if (title.n > TITLE_MAX) return err_set(e, E_LIMIT, "%s: a title of %zu bytes, at most %d", store_path(h), title.n, TITLE_MAX);
    random_bytes(key, sizeof key);
    int r = store_begin(h, 1, e);
    if (r) return r;
    r   = store_run(h, e, sql, "bt", key, (int)sizeof key, title);
    *id = store_last_id(h);
    r   = store_finish(h, r, e);
    if (r == OK) store_note(h, *id, 0);
    return r;
}

static void load_conversation(cells *c, conversation *v)
{
    v->id      = cell_int(c, 0, INT64_MIN, INT64_MAX);
    c->id      = v->id;
    v->title   = cell_text(c, 1, SHORT_MAX);
    v->created = cell_text(c, 2, SHORT_MAX);
    v->fwd     = cell_text(c, 3, SHORT_MAX);
    v->bwd     = cell_text(c, 4, SHORT_MAX);
    v->n_turns = (int)cell_int(c, 5, 0, INT32_MAX);
    v->tags    = cell_text(c, 6, TEXT_MAX);
}

int hist_tagged(history *h, str tag, int limit, arena *a, conversation **list, int *n, err *e)
{
    /* Chosen and sorted by two columns first, so that the rest is looked up for `limit` of them only. */
    static const char sql[] = "SELECT " CONV_COLS " FROM (SELECT id,coalesce((SELECT created FROM turn WHERE conv=k.id ORDER BY n DESC LIMIT 1),"
                              "created) AS at,coalesce((SELECT id FROM turn WHERE conv=k.id ORDER BY n DESC LIMIT 1),0) AS last FROM conversation k "
                              "WHERE ?2='' OR id IN (SELECT conv FROM tag WHERE name=?2) ORDER BY at DESC,last DESC,id DESC LIMIT ?1) o "
                              "JOIN conversation c ON c.id=o.id ORDER BY o.at DESC,o.last DESC,o.id DESC";
    cells             c     = { .h = h, .a = a, .e = e, .table = "conversation" };
    int               r     = store_query(&c, sql, "it", limit > 0 ? (int64_t)limit : (int64_t)-1, tag);
    *list                   = NULL;
    *n                      = 0;
    while (r == OK && (r = store_step(&c)) == 1) {
        r     = OK;
        *list = store_room(a, *list, *n, sizeof **list);
        if (!*list) r = store_no_memory(h, e);
        else load_conversation(&c, &(*list)[(*n)++]);
    }
    store_done(&c);
    return r;
}

int hist_list(history *h, int limit, arena *a, conversation **list, int *n, err *e)
{
    return hist_tagged(h, STR(""), limit, a, list, n, e);
}

int hist_get(history *h, int64_t conv, arena *a, conversation *v, err *e)
{
    static const char sql[] = "SELECT " CONV_COLS " FROM conversation c WHERE c.id=?";
    cells             c     = { .h = h, .a = a, .e = e, .table = "conversation", .id = conv };
    int               r     = store_query(&c, sql, "i", conv);
    if (r == OK && (r = store_step(&c)) == 0)
        return err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    if (r < 0) return r;
    load_conversation(&c, v);
    store_done(&c);
    return c.r;
}

int hist_set_title(history *h, int64_t conv, str title, err *e)
{
    static const char sql[] = "UPDATE conversation SET title=? WHERE id=?";
    if (title.n > TITLE_MAX) return err_set(e, E_LIMIT, "%s: a title of %zu bytes, at most %d", store_path(h), title.n, TITLE_MAX);
    int r = store_begin(h, 1, e);
    if (r) return r;
    r = store_run(h, e, sql, "ti", title, conv);
    if (r == OK && store_changes(h) == 0) r = err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    return store_finish(h, r, e);
}
