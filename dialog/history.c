/* history: the file itself.  Schema, opening and refusing, statements, typed cells; see history.h and store.h.  What the rows
 * mean is record.c's and shelf.c's. */
#include "dialog/grams.h"
#include "dialog/store.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { APPLICATION_ID = 0x44756574 /* "Duet" */, VERSION = 3, BUSY_MS = 5000, VALUE_MAX = 256 << 20 };

/* ---- schema ---------------------------------------------------------------------------------------------------- */

/* UPGRADE[v] takes a file of user_version v to v + 1; an empty file has version 0.  Rows of the chain are never touched by one. */
static const char *const UPGRADE[VERSION] = {
    "CREATE TABLE conversation(\n"
    "  id       INTEGER PRIMARY KEY, -- its name in this file\n"
    "  key      BLOB NOT NULL,       -- 16 random bytes: with `created`, the start of its hash chain\n"
    "  title    TEXT NOT NULL,       -- for lists; may change, so it is not in the chain\n"
    "  created  TEXT NOT NULL        -- UTC, 2026-11-24T15:04:05Z, as everywhere\n"
    ");\n"
    "-- One row for each link of a conversation's chain: an exchange (the user's line and the reply to it), an undo, a forget.\n"
    "-- The bytes that are hashed are laid down in dialog/chain.h.\n"
    "CREATE TABLE turn(\n"
    "  id       INTEGER PRIMARY KEY,\n"
    "  conv     INTEGER NOT NULL REFERENCES conversation(id),\n"
    "  n        INTEGER NOT NULL,    -- 1, 2, 3… in its conversation\n"
    "  what     INTEGER NOT NULL,    -- exchange: 0 answered by the model, 1 refused, 2 stock reply; 16 undo, 17 forget\n"
    "  target   INTEGER NOT NULL,    -- undo, forget: n of the exchange (forget: 0 = all before); else 0\n"
    "  stale    INTEGER NOT NULL,    -- 1: the reply did not know the row before it\n"
    "  opts     TEXT NOT NULL,       -- how candidates were drawn and ranked, one line\n"
    "  seed     INTEGER NOT NULL,    -- 64 bits, stored as a signed number\n"
    "  fwd      TEXT NOT NULL,       -- SHA-256 of the forward model's file, in hex\n"
    "  bwd      TEXT NOT NULL,       -- of the backward model's; empty when there was none\n"
    "  rules    TEXT NOT NULL,       -- of the safety rules\n"
    "  numerics TEXT NOT NULL,       -- the arithmetic: equal names give equal bits\n"
    "  chosen   INTEGER NOT NULL,    -- candidate.k of the reply, -1 when it is none of them\n"
    "  n_cand   INTEGER NOT NULL,    -- rows of this turn in candidate\n"
    "  created  TEXT NOT NULL,\n"
    "  seconds  REAL,                -- time the reply took\n"
    "  -- What would tell or confirm the words: NULL after forget, and in rows that are no exchange.\n"
    "  salt     BLOB,                -- 32 random bytes\n"
    "  prompt   TEXT,                -- SHA-256 of the prompt's ids, in hex\n"
    "  user_text TEXT,               -- as stored and fed: redacted if a rule says so\n"
    "  user_ids BLOB,                -- int32 little endian\n"
    "  user_action INTEGER,          -- verdict on the user's line: 0 none … 4 block\n"
    "  user_rule INTEGER,            -- index in the rules, -1 none\n"
    "  cut      INTEGER,             -- tokens cut from the front of the line\n"
    "  evaluated INTEGER,            -- prompt tokens that had to be computed\n"
    "  reply_text TEXT,\n"
    "  reply_ids BLOB,               -- as the reply enters later context\n"
    "  -- The chain.\n"
    "  said     BLOB,                -- salted digest of the ten columns above and the line's hits; NULL when no exchange\n"
    "  prev     BLOB NOT NULL,       -- hash of the row before in this conversation\n"
    "  hash     BLOB NOT NULL,\n"
    "  UNIQUE(conv, n)\n"
    ");\n"
    "CREATE INDEX undo ON turn(conv, target) WHERE what = 16;\n"
    "CREATE TABLE candidate(\n"
    "  turn     INTEGER NOT NULL REFERENCES turn(id),\n"
    "  k        INTEGER NOT NULL,    -- 0 … n_cand-1\n"
    "  fate     INTEGER NOT NULL,    -- 0 usable, 1 empty, 2 duplicate, 3 blocked, 4 echo, 5 NaN\n"
    "  salt     BLOB,                -- this and what follows, but for drawn, is NULL after forget\n"
    "  text     TEXT,\n"
    "  ids      BLOB,\n"
    "  ended    INTEGER,             -- 1: the model closed the reply itself\n"
    "  dup_of   INTEGER,             -- k of its equal, -1\n"
    "  fwd      REAL,                -- log P(reply | context); NULL is NaN, here and below\n"
    "  bwd      REAL,                -- log P(source | reply)\n"
    "  n_source INTEGER,             -- tokens behind bwd\n"
    "  score    REAL,                -- what was ranked by\n"
    "  action   INTEGER,             -- verdict on the text\n"
    "  rule     INTEGER,\n"
    "  drawn    BLOB NOT NULL,       -- salted digest of text … rule and the hits\n"
    "  PRIMARY KEY(turn, k)\n"
    ") WITHOUT ROWID;\n"
    "CREATE TABLE hit(\n"
    "  turn     INTEGER NOT NULL REFERENCES turn(id),\n"
    "  k        INTEGER NOT NULL,    -- the candidate it is in; -1: the user's line\n"
    "  i        INTEGER NOT NULL,    -- 0, 1, 2…\n"
    "  rule     INTEGER NOT NULL,    -- index in the rules named by turn.rules\n"
    "  capped   INTEGER NOT NULL,    -- 1: the match limit was reached\n"
    "  first    INTEGER NOT NULL,    -- bytes of the text before redaction: [first, last)\n"
    "  last     INTEGER NOT NULL,\n"
    "  PRIMARY KEY(turn, k, i)\n"
    ") WITHOUT ROWID;\n"
    "-- Not part of the record: an index over turn, which can be made again from it.\n"
    "CREATE VIRTUAL TABLE search USING fts5(user_text, reply_text, content='turn', content_rowid='id', tokenize='trigram');\n",

    "-- What people say about the record.  Not part of the hash chain: it may change, and nothing vouches for it.\n"
    "CREATE TABLE judgment(\n"
    "  turn     INTEGER NOT NULL REFERENCES turn(id),\n"
    "  reader   TEXT NOT NULL,       -- who judged; one judgment a reader a turn\n"
    "  label    INTEGER NOT NULL,    -- 0 ok, 1 repetition, 2 unsafe, 3 off-topic, 4 other\n"
    "  note     TEXT NOT NULL,       -- in the reader's words; emptied when the turn is forgotten\n"
    "  created  TEXT NOT NULL,\n"
    "  PRIMARY KEY(turn, reader)\n"
    ") WITHOUT ROWID;\n"
    "CREATE TABLE tag(\n"
    "  conv     INTEGER NOT NULL REFERENCES conversation(id),\n"
    "  name     TEXT NOT NULL,\n"
    "  PRIMARY KEY(conv, name)\n"
    ") WITHOUT ROWID;\n"
    "CREATE INDEX tagged ON tag(name, conv);\n"
    "-- Copies that `duet history backup` made: forget goes there too.\n"
    "CREATE TABLE backup(\n"
    "  path     TEXT PRIMARY KEY,    -- absolute\n"
    "  created  TEXT NOT NULL\n"
    ") WITHOUT ROWID;\n"
    "CREATE INDEX turn_created ON turn(created);\n"
    "-- For words of one or two characters, as most Chinese ones are: every character and pair of characters of an exchange, in the\n"
    "-- form of dialog/grams.h.  An index over turn as search is.\n"
    "CREATE VIRTUAL TABLE gram USING fts5(chars, content='', detail='none', columnsize=0, tokenize='ascii');\n"
    "INSERT INTO gram(rowid,chars) SELECT id,grams(user_text,reply_text) FROM turn WHERE salt IS NOT NULL;\n",

    "-- Where the rows of a day are, so that a search by date need not read the words of a whole store.\n"
    "CREATE TABLE day(\n"
    "  day      TEXT PRIMARY KEY,    -- the first ten characters of turn.created\n"
    "  lo       INTEGER NOT NULL,    -- its rows have ids in [lo, hi]; rows of other days may be among them\n"
    "  hi       INTEGER NOT NULL\n"
    ") WITHOUT ROWID;\n"
    "INSERT INTO day SELECT substr(created,1,10),min(id),max(id) FROM turn GROUP BY 1;\n"
    "-- Verdicts are rare among lines: these two stay small.\n"
    "CREATE INDEX judged_line ON turn(user_action) WHERE user_action > 0;\n"
    "CREATE INDEX judged_candidate ON candidate(action, turn) WHERE action > 0;\n",
};

/* What a file of an older schema lacks, for those who only read it: empty, and in memory. */
static const char LACKS[] = "PRAGMA temp_store=MEMORY;\n"
                            "CREATE TEMP TABLE judgment(turn,reader,label,note,created);\n"
                            "CREATE TEMP TABLE tag(conv,name);\n"
                            "CREATE TEMP TABLE backup(path,created);\n";

typedef struct {
    const char   *sql; /* the caller's pointer */
    sqlite3_stmt *st;
} prepared;
struct history {
    sqlite3  *db;
    char     *path;
    prepared *p; /* (n_p,) */
    int       n_p;
    int       version; /* of the schema the file has */
    int64_t   seen_conv;
    int       seen_n;
    int       damaged; /* SQLite found the file's structure broken */
};

const char *store_path(const history *h) { return h->path; }
int         store_no_memory(const history *h, err *e) { return err_set(e, E_NOMEM, "%s: out of memory", h->path); }
int64_t     store_last_id(const history *h) { return sqlite3_last_insert_rowid(h->db); }
int         store_changes(const history *h) { return sqlite3_changes(h->db); }
int         store_has_grams(const history *h) { return h->version >= 2; }
int         store_has_days(const history *h) { return h->version >= 3; }

void *store_room(arena *a, void *old, int n, size_t size)
{
    if (n < 16 ? n != 0 : n & (n - 1)) return old; /* grows at 0, 16, 32, 64… */
    void *p = n > INT32_MAX / 4 ? NULL : arena_new(a, n ? 2 * (size_t)n : 16, size);
    if (p && n) memcpy(p, old, (size_t)n * size);
    return p;
}

void store_note(history *h, int64_t conv, int n)
{
    h->seen_conv = conv;
    h->seen_n    = n;
}
int store_noted(const history *h, int64_t conv, int *n)
{
    *n = h->seen_n;
    return h->seen_conv == conv;
}

/* ---- statements ------------------------------------------------------------------------------------------------ */

static const char *io_name(int rc)
{
    switch (rc) {
    case SQLITE_IOERR_READ:
    case SQLITE_IOERR_SHORT_READ: return "reading";
    case SQLITE_IOERR_WRITE: return "writing (is the disk full?)";
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_DIR_FSYNC: return "writing through to the disk";
    case SQLITE_IOERR_TRUNCATE: return "shortening the file";
    case SQLITE_IOERR_SHMOPEN:
    case SQLITE_IOERR_SHMSIZE:
    case SQLITE_IOERR_SHMMAP: return "making the -shm file beside it";
    default: return "input or output";
    }
}
static int db_err(history *h, int rc, err *e)
{
    h->damaged |= (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
    const char *m  = h->db ? sqlite3_errmsg(h->db) : sqlite3_errstr(rc);
    int         en = h->db ? sqlite3_system_errno(h->db) : 0;
    switch (rc & 0xff) {
    case SQLITE_NOMEM: return store_no_memory(h, e);
    case SQLITE_BUSY:
    case SQLITE_LOCKED: return err_set(e, E_DB, "%s: locked by another program (waited %d s)", h->path, BUSY_MS / 1000);
    case SQLITE_FULL: return err_set(e, E_DB, "%s: no room left for the file to grow; nothing was stored", h->path);
    case SQLITE_CORRUPT: return err_set(e, E_DB, "%s: the file is damaged: %s", h->path, m);
    case SQLITE_NOTADB: return err_set(e, E_DB, "%s: not a database", h->path);
    case SQLITE_READONLY: return err_set(e, E_IO, "%s: may not be written", h->path);
    case SQLITE_CANTOPEN: return err_set(e, E_IO, "%s: cannot open: %s", h->path, en ? strerror(en) : m);
    case SQLITE_IOERR:
        m = io_name(sqlite3_extended_errcode(h->db));
        return en ? err_set(e, E_IO, "%s: %s failed: %s", h->path, m, strerror(en)) : err_set(e, E_IO, "%s: %s failed", h->path, m);
    default: return err_set(e, E_DB, "%s: %s", h->path, m);
    }
}
int store_is_damaged(const history *h) { return h->damaged; }

static int prepare(history *h, const char *sql, sqlite3_stmt **st, err *e)
{
    for (int i = 0; i < h->n_p; i++)
        if (h->p[i].sql == sql) {
            *st = h->p[i].st;
            sqlite3_reset(*st);
            return OK;
        }
    prepared *p = realloc(h->p, ((size_t)h->n_p + 1) * sizeof *p);
    if (!p) return store_no_memory(h, e);
    h->p   = p;
    int rc = sqlite3_prepare_v3(h->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL);
    if (rc) return db_err(h, rc, e);
    p[h->n_p++] = (prepared){ sql, *st };
    return OK;
}

static int start(cells *c, const char *sql, const char *types, va_list ap)
{
    sqlite3_stmt *st;
    int           rc = SQLITE_OK;
    if ((c->r = prepare(c->h, sql, &st, c->e))) return c->r;
    for (int i = 1; *types && rc == SQLITE_OK; types++, i++) {
        if (*types == 'i') rc = sqlite3_bind_int64(st, i, va_arg(ap, int64_t));
        else if (*types == 'd') rc = sqlite3_bind_double(st, i, va_arg(ap, double)); /* NaN becomes NULL */
        else if (*types == 't') {
            str s = va_arg(ap, str);
            rc    = sqlite3_bind_text64(st, i, s.n ? s.s : "", s.n, SQLITE_STATIC, SQLITE_UTF8);
        } else if (*types == 'b') {
            const void *p = va_arg(ap, const void *);
            int         n = va_arg(ap, int);
            rc            = n ? sqlite3_bind_blob(st, i, p, n, SQLITE_STATIC) : sqlite3_bind_zeroblob(st, i, 0);
        } else rc = sqlite3_bind_null(st, i);
    }
    c->st = st;
    if (rc) c->r = db_err(c->h, rc, c->e);
    return c->r;
}

int store_query(cells *c, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    int r = start(c, sql, types, ap);
    va_end(ap);
    return r;
}

int store_step(cells *c)
{
    if (c->r == OK) {
        int rc = sqlite3_step(c->st);
        if (rc == SQLITE_ROW) return 1;
        if (rc != SQLITE_DONE) c->r = db_err(c->h, rc, c->e);
    }
    store_done(c);
    return c->r;
}

void store_done(cells *c)
{
    if (c->st) {
        sqlite3_reset(c->st);
        sqlite3_clear_bindings(c->st);
    }
    c->st = NULL;
}

int store_run(history *h, err *e, const char *sql, const char *types, ...)
{
    cells   c = { .h = h, .e = e };
    va_list ap;
    va_start(ap, types);
    int r = start(&c, sql, types, ap);
    va_end(ap);
    while (r == OK && (r = store_step(&c)) == 1) r = OK;
    store_done(&c);
    return r;
}

int store_begin(history *h, int write, err *e)
{
    static const char sql_write[] = "BEGIN IMMEDIATE", sql_read[] = "BEGIN";
    return store_run(h, e, write ? sql_write : sql_read, "");
}

int store_finish(history *h, int r, err *e)
{
    static const char sql_commit[] = "COMMIT", sql_rollback[] = "ROLLBACK";
    if (r == OK) r = store_run(h, e, sql_commit, "");
    if (!sqlite3_get_autocommit(h->db)) store_run(h, NULL, sql_rollback, "");
    return r;
}

int store_flush(history *h, err *e)
{
    int rc = sqlite3_wal_checkpoint_v2(h->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return rc ? db_err(h, rc, e) : OK;
}

/* ---- the whole file --------------------------------------------------------------------------------------------- */

static int pragma_int(history *h, const char *sql, int64_t *v, err *e)
{
    cells c = { .h = h, .e = e, .table = "pragma" };
    int   r = store_query(&c, sql, "");
    if (r == OK && (r = store_step(&c)) == 0) return err_set(e, E_DB, "%s: no answer to: %s", h->path, sql);
    if (r < 0) return r;
    *v = cell_int(&c, 0, INT64_MIN, INT64_MAX);
    store_done(&c);
    return c.r;
}

static int exec(history *h, const char *sql, err *e)
{
    int rc = sqlite3_exec(h->db, sql, NULL, NULL, NULL);
    return rc ? db_err(h, rc, e) : OK;
}

int64_t store_bytes(history *h, int64_t *unused, err *e)
{
    int64_t page = 0, pages = 0, free_pages = 0;
    int     r = pragma_int(h, "PRAGMA page_size", &page, e);
    if (r == OK) r = pragma_int(h, "PRAGMA page_count", &pages, e);
    if (r == OK) r = pragma_int(h, "PRAGMA freelist_count", &free_pages, e);
    if (unused) *unused = free_pages * page;
    return r ? r : pages * page;
}

/* The copy into an open connection, in one step: a snapshot, which lets others write meanwhile. */
static int copy_pages(history *h, sqlite3 *to, const char *path, err *e)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", h->db, "main");
    if (!b) return err_set(e, E_DB, "%s: no copy can be made: %s", path, sqlite3_errmsg(to));
    int step = sqlite3_backup_step(b, -1);
    for (int i = 0; ((step & 0xff) == SQLITE_BUSY || (step & 0xff) == SQLITE_LOCKED) && i < BUSY_MS / 50; i++) {
        sqlite3_sleep(50);
        step = sqlite3_backup_step(b, -1);
    }
    int rc = sqlite3_backup_finish(b);
    if (step == SQLITE_DONE && rc == SQLITE_OK) return OK;
    if (step == SQLITE_DONE) step = rc;
    return err_set(e, (step & 0xff) == SQLITE_FULL || (step & 0xff) == SQLITE_IOERR ? E_IO : E_DB, "%s: the copy failed: %s", path,
                   sqlite3_errstr(step));
}

int hist_backup(history *h, const char *path, str created, err *e)
{
    struct stat st;
    sqlite3    *to = NULL;
    char       *full;
    buf         temp = { 0 };
    if (lstat(path, &st) == 0) return err_set(e, E_IO, "%s: is there already; a backup replaces nothing", path);
    buf_fmt(&temp, "%s.XXXXXX", path);
    if (temp.oom) return store_no_memory(h, e);
    int fd = mkstemp(temp.s); /* mode 0600 */
    int r  = fd < 0 ? err_set(e, E_IO, "%s: cannot create: %s", path, strerror(errno)) : OK;
    if (r == OK && sqlite3_open_v2(temp.s, &to, SQLITE_OPEN_READWRITE, NULL)) r = err_set(e, E_IO, "%s: cannot open", path);
    if (r == OK) r = copy_pages(h, to, path, e);
    sqlite3_close(to);
    if (r == OK && fsync(fd) != 0) r = err_set(e, E_IO, "%s: cannot write through to the disk: %s", path, strerror(errno));
    if (r == OK && link(temp.s, path) != 0) r = err_set(e, E_IO, "%s: cannot create: %s", path, strerror(errno));
    if (fd >= 0) {
        close(fd);
        unlink(temp.s);
    }
    buf_free(&temp);
    if (r) return r;
    full = realpath(path, NULL);
    r    = store_note_copy(h, str_of(full ? full : path), created, e);
    free(full);
    if (r) err_prefix(e, "the backup is made, but the store could not note where");
    return r;
}

int hist_vacuum(history *h, int64_t *before, int64_t *after, err *e)
{
    *before = store_bytes(h, NULL, e);
    int r   = *before < 0 ? (int)*before : exec(h, "INSERT INTO search(search) VALUES('optimize'); INSERT INTO gram(gram) VALUES('optimize'); VACUUM", e);
    if (r == OK) r = store_flush(h, e);
    if (r == OK) *after = store_bytes(h, NULL, e);
    return r == OK && *after < 0 ? (int)*after : r;
}

/* ---- cells ----------------------------------------------------------------------------------------------------- */

void cell_bad(cells *c, int col, const char *why)
{
    if (c->r == OK)
        c->r = err_set(c->e, E_FORMAT, "%s: %s %lld, column %s: %s", c->h->path, c->table, (long long)c->id,
                       sqlite3_column_name(c->st, col), why);
}
int cell_null(const cells *c, int col) { return c->r == OK && sqlite3_column_type(c->st, col) == SQLITE_NULL; }

int64_t cell_int(cells *c, int col, int64_t lo, int64_t hi)
{
    if (c->r) return 0;
    int64_t v = sqlite3_column_int64(c->st, col);
    if (sqlite3_column_type(c->st, col) != SQLITE_INTEGER) cell_bad(c, col, "not a whole number");
    else if (v < lo || v > hi) cell_bad(c, col, "number out of range");
    return c->r ? 0 : v;
}

double cell_real(cells *c, int col)
{
    if (c->r || cell_null(c, col)) return NAN;
    if (sqlite3_column_type(c->st, col) != SQLITE_FLOAT) cell_bad(c, col, "not a real number");
    return c->r ? NAN : sqlite3_column_double(c->st, col);
}

str cell_text(cells *c, int col, int max)
{
    if (c->r) return STR("");
    int type = sqlite3_column_type(c->st, col); /* asked before column_text, which may convert */
    str s    = { (const char *)sqlite3_column_text(c->st, col), (size_t)sqlite3_column_bytes(c->st, col) };
    if (type != SQLITE_TEXT) cell_bad(c, col, "not text");
    else if (!s.s) c->r = store_no_memory(c->h, c->e);
    else if (s.n > (size_t)max) cell_bad(c, col, "text too long");
    if (c->r) return STR("");
    s = arena_str(c->a, s, c->e);
    if (s.s) return s;
    c->r = E_NOMEM;
    return STR("");
}

const char *cell_cstr(cells *c, int col, int max)
{
    str s = cell_text(c, col, max);
    if (memchr(s.s, 0, s.n)) cell_bad(c, col, "a NUL in it");
    return s.s;
}

void cell_bytes(cells *c, int col, void *out, int n)
{
    if (c->r) return;
    int is_blob = sqlite3_column_type(c->st, col) == SQLITE_BLOB;
    if (!is_blob || sqlite3_column_bytes(c->st, col) != n) cell_bad(c, col, "not a blob of the right size");
    else memcpy(out, sqlite3_column_blob(c->st, col), (size_t)n);
}

const int *cell_ids(cells *c, int col, int *n)
{
    *n = 0;
    if (c->r) return NULL;
    int bytes = sqlite3_column_bytes(c->st, col), is_blob = sqlite3_column_type(c->st, col) == SQLITE_BLOB;
    if (!is_blob || bytes % 4 || bytes / 4 > IDS_MAX) return cell_bad(c, col, "not a blob of token ids"), NULL;
    int *id = arena_new(c->a, (size_t)bytes / 4, sizeof *id);
    if (!id) return c->r = store_no_memory(c->h, c->e), NULL;
    if (bytes) memcpy(id, sqlite3_column_blob(c->st, col), (size_t)bytes); /* the program runs on little-endian machines only (gguf.h) */
    for (int i = 0; i < bytes / 4; i++)
        if (id[i] < 0) return cell_bad(c, col, "a negative token id"), NULL;
    *n = bytes / 4;
    return id;
}

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* What kind of file is it?  *version = its user_version, 0 for one that is still empty. */
static int identify(history *h, int64_t *version, err *e)
{
    int64_t id = 0, tables = 0;
    int     r  = pragma_int(h, "PRAGMA application_id", &id, e);
    if (r == OK) r = pragma_int(h, "PRAGMA user_version", version, e);
    if (r == OK) r = pragma_int(h, "SELECT count(*) FROM sqlite_schema", &tables, e);
    if (r) return r;
    if (id == 0 && *version == 0 && tables == 0) return OK;
    if (id != APPLICATION_ID)
        return err_set(e, E_DB, "%s: a database of another program (application id %lld), not Duet's", h->path, (long long)id);
    if (*version > VERSION)
        return err_set(e, E_DB, "%s: written by a newer Duet (schema %lld; this one knows up to %d)", h->path, (long long)*version, VERSION);
    if (*version < 1) return err_set(e, E_DB, "%s: schema version %lld, which never was", h->path, (long long)*version);
    return OK;
}

/* Bring the schema to VERSION.  Asked again inside the transaction: another program may have been first. */
static int upgrade(history *h, err *e)
{
    int64_t v;
    int     r = store_begin(h, 1, e);
    if (r) return r;
    r = identify(h, &v, e);
    while (r == OK && v < VERSION) r = exec(h, UPGRADE[v++], e);
    if (r == OK) r = exec(h, "PRAGMA application_id=1148544372; PRAGMA user_version=3", e);
    r = store_finish(h, r, e);
    if (r) err_prefix(e, "the schema was not brought up to date, the file is as it was");
    return r;
}
_Static_assert(APPLICATION_ID == 1148544372 && VERSION == 3, "the pragmas in upgrade take no parameters: keep them equal");

/* Write-ahead log.  Two programs that open a new file at once can be told "busy" without the usual wait, so wait here. */
static int use_wal(history *h, err *e)
{
    for (int i = 0;; i++) {
        int rc = sqlite3_exec(h->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);
        if (rc == SQLITE_OK) return OK; /* a file system without shared memory keeps the old journal, which is as safe */
        if ((rc & 0xff) != SQLITE_BUSY || i == BUSY_MS / 50) return db_err(h, rc, e);
        nanosleep(&(struct timespec){ .tv_nsec = 50 * 1000000 }, NULL);
    }
}

/* Refuse by the bytes, before SQLite sees the file: `path` as the system has it.  *size = its length; a missing file has none
 * and is made when `write`. */
static int look(const char *path, int write, err *e)
{
    struct stat   st;
    unsigned char b[100];
    if (stat(path, &st) != 0) {
        if (errno != ENOENT || !write) return err_set(e, E_IO, "%s: %s", path, strerror(errno));
        const char *slash = strrchr(path, '/');
        char       *dir   = slash && slash > path ? strndup(path, (size_t)(slash - path)) : NULL;
        if (dir && stat(dir, &st) != 0 && mkdir(dir, 0700) != 0 && errno != EEXIST) {
            int r = err_set(e, E_IO, "%s: cannot make the folder %s: %s", path, dir, strerror(errno));
            free(dir);
            return r;
        }
        free(dir);
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0) return err_set(e, E_IO, "%s: cannot create: %s", path, strerror(errno));
        int bad = fchmod(fd, 0600); /* SQLite gives -wal and -shm the same mode */
        close(fd);
        return bad ? err_set(e, E_IO, "%s: cannot make it private: %s", path, strerror(errno)) : OK;
    }
    if (!S_ISREG(st.st_mode))
        return err_set(e, E_IO, "%s: not a file but a %s", path, S_ISDIR(st.st_mode) ? "folder" : "device, pipe or socket");
    if (st.st_size == 0) return write ? OK : err_set(e, E_DB, "%s: empty, no conversation was ever stored in it", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(e, E_IO, "%s: cannot open: %s", path, strerror(errno));
    ssize_t n = read(fd, b, sizeof b);
    close(fd);
    if (n < (ssize_t)sizeof b || memcmp(b, "SQLite format 3", 16) != 0) return err_set(e, E_DB, "%s: not a database, or an encrypted one, which Duet cannot open", path);
    uint32_t id = (uint32_t)b[68] << 24 | (uint32_t)b[69] << 16 | (uint32_t)b[70] << 8 | b[71];
    if (id != 0 && id != APPLICATION_ID)
        return err_set(e, E_DB, "%s: a database of another program (application id %lu), not Duet's", path, (unsigned long)id);
    return OK;
}

/* "file:…?immutable=1" for a file in a folder where SQLite cannot make its -shm file. */
static void immutable_name(const char *path, buf *out)
{
    buf_str(out, STR("file:"));
    for (const char *p = path; *p; p++)
        if (strchr("%?#", *p)) buf_fmt(out, "%%%02X", (unsigned)*p);
        else buf_chr(out, *p);
    buf_str(out, STR("?immutable=1"));
}

/* grams(text, text) in SQL: see grams.h. */
static void sql_grams(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    buf b = { 0 };
    str t[2];
    for (int i = 0; i < n; i++) {
        const char *s = (const char *)sqlite3_value_text(v[i]);
        t[i]          = (str){ s, s ? (size_t)sqlite3_value_bytes(v[i]) : 0 };
    }
    if (grams_put(&b, t[0], t[1]) == OK) sqlite3_result_text64(ctx, b.s ? b.s : "", b.n, SQLITE_TRANSIENT, SQLITE_UTF8);
    else sqlite3_result_error_nomem(ctx);
    buf_free(&b);
}

static int open_db(history *h, const char *name, int flags, err *e)
{
    int rc = sqlite3_open_v2(name, &h->db, flags | SQLITE_OPEN_FULLMUTEX, NULL);
    if (rc) return db_err(h, rc, e);
    sqlite3_extended_result_codes(h->db, 1);
    sqlite3_busy_timeout(h->db, BUSY_MS);
    sqlite3_limit(h->db, SQLITE_LIMIT_LENGTH, VALUE_MAX);
    sqlite3_limit(h->db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, SHORT_MAX);
    /* The file is no more trusted than a letter from a stranger: nothing stored in it may run. */
    sqlite3_db_config(h->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(h->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(h->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(h->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    rc = sqlite3_create_function_v2(h->db, "grams", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, NULL, sql_grams, NULL, NULL, NULL);
    if (rc) return db_err(h, rc, e);
    return exec(h, "PRAGMA foreign_keys=ON; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON; PRAGMA cell_size_check=ON", e);
}

static void shut(history *h)
{
    for (int i = 0; i < h->n_p; i++) sqlite3_finalize(h->p[i].st);
    h->n_p = 0;
    sqlite3_close(h->db);
    h->db = NULL;
}

/* For reading, a connection that may write but is told not to is the first choice: as the last one to close it takes the log
 * and the -shm file away again, where a read-only one would leave them behind.  Where that cannot be: read-only; and where
 * SQLite cannot make its -shm file and there is no log, and so no writer either: immutable. */
static int open_read(history *h, const char *name, err *e)
{
    struct stat st;
    int64_t     v = 0;
    int         r = OK;
    buf         b = { 0 };
    for (int way = 0; way < 3; way++) {
        int rc = h->db ? sqlite3_errcode(h->db) & 0xff : SQLITE_OK;
        if (way > 0 && (r == OK || (rc != SQLITE_CANTOPEN && rc != SQLITE_READONLY))) break;
        buf_reset(&b);
        buf_fmt(&b, "%s-wal", name);
        if (way == 2 && !b.oom && stat(b.s, &st) == 0 && st.st_size > 0) break;
        shut(h);
        buf_reset(&b);
        if (way == 2) immutable_name(name, &b);
        else buf_str(&b, str_of(name));
        int flags = way == 0 ? SQLITE_OPEN_READWRITE : way == 1 ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READONLY | SQLITE_OPEN_URI;
        r         = b.oom ? store_no_memory(h, e) : open_db(h, b.s, flags, e);
        if (r == OK) r = identify(h, &v, e);
        if (r == OK && v > 0 && v < VERSION) r = exec(h, LACKS, e);
        if (r == OK) r = exec(h, "PRAGMA query_only=ON", e);
    }
    buf_free(&b);
    h->version = (int)v;
    return r == OK && v == 0 ? err_set(e, E_DB, "%s: empty, no conversation was ever stored in it", h->path) : r;
}

static int open_write(history *h, const char *name, int in_memory, err *e)
{
    int64_t v = 0;
    int     r = open_db(h, name, in_memory ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READWRITE, e);
    if (r == OK && sqlite3_db_readonly(h->db, "main") == 1) r = err_set(e, E_IO, "%s: may not be written", h->path);
    if (r == OK) r = identify(h, &v, e);
    if (r == OK && !in_memory) r = use_wal(h, e);
    if (r == OK && v < VERSION) r = upgrade(h, e);
    h->version = VERSION;
    return r;
}

int hist_open(history **out, const char *path, int flags, err *e)
{
    int in_memory = (flags & HIST_MEMORY) != 0, write = (flags & HIST_WRITE) != 0;
    buf name      = { 0 };
    *out          = NULL;
    if (in_memory) path = ":memory:";
    else if (!path[0]) return err_set(e, E_ARG, "the database has an empty name");
    int r = in_memory ? OK : look(path, write, e);
    if (r) return r;
    /* A name like "file:x?mode=…" or ":memory:" means something to SQLite; behind a folder it is a name. */
    buf_fmt(&name, "%s%s", in_memory || path[0] == '/' ? "" : "./", path);
    history *h = calloc(1, sizeof *h);
    if (!h || name.oom || !(h->path = strdup(path))) {
        buf_free(&name);
        hist_close(h);
        return err_set(e, E_NOMEM, "%s: out of memory", path);
    }
    r = in_memory || write ? open_write(h, name.s, in_memory, e) : open_read(h, name.s, e);
    buf_free(&name);
    if (r) {
        hist_close(h);
        return r;
    }
    *out = h;
    return OK;
}

void hist_close(history *h)
{
    if (!h) return;
    shut(h);
    free(h->p);
    free(h->path);
    free(h);
}
