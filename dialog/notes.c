/* notes: what stands beside the record and is not in its hash chain: judgments of readers, tags, which backups there are.  See
 * history.h. */
#include "dialog/store.h"

#include <string.h>

enum { READER_MAX = 200, TAG_MAX = 100 };

/* ---- judgments ------------------------------------------------------------------------------------------------- */

static const char *const labels[JUDGE_LABELS] = { "ok", "repetition", "unsafe", "off-topic", "other" };

const char *hist_label_name(int label) { return label >= 0 && label < JUDGE_LABELS ? labels[label] : NULL; }
int         hist_label_of_name(const char *s)
{
    for (int i = 0; i < JUDGE_LABELS; i++)
        if (strcmp(labels[i], s) == 0) return i;
    return -1;
}

static int is_text(str s, size_t most) { return s.n <= most && utf8_valid(s) && !(s.n && memchr(s.s, 0, s.n)); }

int store_put_judgment(history *h, int64_t id, str reader, int label, str note, str created, err *e)
{
    static const char sql[]   = "INSERT INTO judgment(turn,reader,label,note,created) SELECT id,?2,?3,?4,?5 FROM turn WHERE id=?1 AND what<3 "
                                "ON CONFLICT(turn,reader) DO UPDATE SET label=excluded.label,note=excluded.note,created=excluded.created";
    if (!hist_label_name(label)) return err_set(e, E_ARG, "%s: a judgment with the unknown label %d", store_path(h), label);
    if (reader.n == 0 || !is_text(reader, READER_MAX))
        return err_set(e, E_ARG, "%s: a reader's name is 1 to %d bytes of UTF-8", store_path(h), READER_MAX);
    if (!is_text(note, SHORT_MAX)) return err_set(e, E_ARG, "%s: a note is at most %d bytes of UTF-8", store_path(h), SHORT_MAX);
    int r = store_run(h, e, sql, "ititt", id, reader, (int64_t)label, note, created);
    if (r == OK && store_changes(h) == 0) r = err_set(e, E_ARG, "%s: there is no exchange %lld", store_path(h), (long long)id);
    return r;
}

int hist_judge(history *h, int64_t id, str reader, int label, str note, str created, err *e)
{
    int r = store_begin(h, 1, e);
    return r ? r : store_finish(h, store_put_judgment(h, id, reader, label, note, created, e), e);
}

int store_judgments(history *h, int64_t conv, arena *a, judgment **list, int *n, err *e)
{
    static const char all[] = "SELECT turn,reader,label,note,created FROM judgment ORDER BY turn,reader";
    static const char one[] = "SELECT turn,reader,label,note,created FROM judgment WHERE turn IN (SELECT id FROM turn WHERE conv=?) "
                              "ORDER BY turn,reader";
    cells             c     = { .h = h, .a = a, .e = e, .table = "judgment of turn" };
    int               r     = conv ? store_query(&c, one, "i", conv) : store_query(&c, all, "");
    *list                   = NULL;
    *n                      = 0;
    while (r == OK && (r = store_step(&c)) == 1) {
        r     = OK;
        *list = store_room(a, *list, *n, sizeof **list);
        if (!*list) {
            r = store_no_memory(h, e);
            break;
        }
        judgment *j = &(*list)[(*n)++];
        j->turn = c.id = cell_int(&c, 0, INT64_MIN, INT64_MAX);
        j->reader      = cell_text(&c, 1, SHORT_MAX);
        j->label       = (int)cell_int(&c, 2, 0, JUDGE_LABELS - 1);
        j->note        = cell_text(&c, 3, SHORT_MAX);
        j->created     = cell_text(&c, 4, SHORT_MAX);
    }
    store_done(&c);
    return r;
}

int hist_judgments(history *h, arena *a, judgment **list, int *n, err *e) { return store_judgments(h, 0, a, list, n, e); }

/* ---- tags ------------------------------------------------------------------------------------------------------ */

/* 1 yes, 0 no, E_NOMEM. */
static int is_tag(str s)
{
    static const char *const blanks[] = { " ", "\xC2\xA0", "\xE3\x80\x80" }; /* ASCII, no-break, ideographic */
    buf                      b        = { 0 };
    int                      good     = s.n > 0 && is_text(s, TAG_MAX);
    if (good) buf_visible(&b, s); /* what it makes visible has no place in a tag */
    if (b.oom) return E_NOMEM;
    good = good && str_eq(buf_view(&b), s);
    for (size_t i = 0; good && i < sizeof blanks / sizeof blanks[0]; i++) good = !strstr(b.s, blanks[i]);
    buf_free(&b);
    return good;
}

int store_put_tag(history *h, int64_t conv, str name, int on, int *changed, err *e)
{
    static const char there[] = "SELECT 1 FROM conversation WHERE id=?";
    static const char put[]   = "INSERT OR IGNORE INTO tag(conv,name) VALUES(?,?)";
    static const char take[]  = "DELETE FROM tag WHERE conv=? AND name=?";
    cells             c       = { .h = h, .e = e, .table = "conversation", .id = conv };
    int good = is_tag(name);
    if (good < 0) return store_no_memory(h, e);
    if (!good) return err_set(e, E_ARG, "%s: a tag is 1 to %d bytes of UTF-8 without blanks and control characters", store_path(h),
                              TAG_MAX);
    int r = store_query(&c, there, "i", conv);
    if (r == OK && (r = store_step(&c)) == 0)
        r = err_set(e, E_ARG, "%s: there is no conversation %lld", store_path(h), (long long)conv);
    store_done(&c);
    if (r == 1) r = on ? store_run(h, e, put, "it", conv, name) : store_run(h, e, take, "it", conv, name);
    if (r == OK && changed) *changed = store_changes(h);
    return r;
}

int hist_tag(history *h, int64_t conv, str name, int on, int *changed, err *e)
{
    int r = store_begin(h, 1, e);
    return r ? r : store_finish(h, store_put_tag(h, conv, name, on, changed, e), e);
}

/* ---- backups --------------------------------------------------------------------------------------------------- */

int store_note_copy(history *h, str path, str created, err *e)
{
    static const char sql[] = "INSERT OR REPLACE INTO backup(path,created) VALUES(?,?)";
    int               r     = store_begin(h, 1, e);
    return r ? r : store_finish(h, store_run(h, e, sql, "tt", path, created), e);
}

int hist_backups(history *h, arena *a, hist_copy **list, int *n, err *e)
{
    static const char sql[] = "SELECT path,created FROM backup ORDER BY created,path";
    cells             c     = { .h = h, .a = a, .e = e, .table = "backup" };
    int               r     = store_query(&c, sql, "");
    *list                   = NULL;
    *n                      = 0;
    while (r == OK && (r = store_step(&c)) == 1) {
        *list = store_room(a, *list, *n, sizeof **list);
        if (*list) (*list)[(*n)++] = (hist_copy){ .path = str_of(cell_cstr(&c, 0, SHORT_MAX)), .created = cell_text(&c, 1, SHORT_MAX) };
        r = *list ? OK : store_no_memory(h, e);
    }
    store_done(&c);
    return r;
}
