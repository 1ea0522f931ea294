/* chain: the bytes are those that chain.h lays down, and every tampering is seen. */
#include "tests/dialog/records.h"

/* ---- the chain ---- */

/* The bytes as chain.h lays them down, computed by an independent program (Python's hashlib and struct). */
static void known_hashes(void **s)
{
    (void)s;
    unsigned char key[16], out[32];
    char          hex[65];
    for (int i = 0; i < 16; i++) key[i] = (unsigned char)i;
    chain_start(key, STR("2026-11-24T15:04:05Z"), out);
    sha256_hex(out, hex);
    assert_string_equal(hex, "08ca51e572bf52f6c64cf8cc538d485efc5fac699f8051d1067ca5c2b44ba619");
    int        user_id[] = { 5, 6, 70000 }, id[] = { 7 }, cid[] = { 7, 8 };
    safety_hit hit       = { 3, 1, 2, 9 };
    candidate  c[2]      = { { .text = { "ab", 2 }, .id = cid, .n = 2, .ended = 1, .fate = CAND_OK, .dup_of = -1, .fwd = -1.5, .bwd = -0.0, .n_source = 4,
                               .score = -0.1, .v = { .rule = -1 } },
                             { .text = { "", 0 }, .fate = CAND_EMPTY, .dup_of = -1, .fwd = -NAN, .bwd = NAN, .score = NAN, .v = { RULE_BLOCK, 3, 1, &hit } } };
    chain_cand cc[2];
    chain_row  row = { .what = REPLY_MODEL, .n_said = 32, .c = cc };
    row.x          = (exchange){ .n = 2, .created = STR("2026-11-24T15:04:06Z"), .seconds = 0.5, .opts = STR("mode=mmi"), .seed = UINT64_MAX, .stale = 1 };
    row.x.r        = (reply){ .text = STR("ab"), .id = id, .n_id = 1, .chosen = 0, .n = 2, .cand = c, .user_v = { RULE_FLAG, 3, 1, &hit },
                              .user_text = { "h\xC3\xA9\0", 4 }, .user_id = user_id, .n_user_id = 3, .cut = 1, .evaluated = 2, .prompt_digest = "d0",
                              .fwd_digest = "f0", .bwd_digest = "", .rules_digest = "r0", .numerics = "n0" };
    memcpy(row.prev, out, 32);
    memset(row.salt, 0x11, 32);
    memset(cc[0].salt, 0x22, 32);
    memset(cc[1].salt, 0x33, 32);
    chain_digests(&row);
    sha256_hex(row.said, hex);
    assert_string_equal(hex, "7e95f1095b54b5deca8148b74347fdf11173c0f17f3a59066d8c451332c9ca63");
    sha256_hex(cc[1].drawn, hex);
    assert_string_equal(hex, "6cf7275bbd0ca3be157b845331632905eee95ed4e8b6606852b87c0258371a9f");
    chain_hash(&row, row.x.hash);
    sha256_hex(row.x.hash, hex);
    assert_string_equal(hex, "18f29ff89ef84d08717316973a02455835c515cfe5c028d8727d5004df4b3a52");
    int k;
    assert_null(chain_check(&row, out, &k));
    c[1].v.hit[0].to = 10; /* shared with the user's verdict: that is met first */
    assert_non_null(chain_check(&row, out, &k));
    assert_int_equal(k, -1);
}

/* Does opening or verifying `path` show that something is wrong? */
static int seen(const char *path, char *what, size_t n)
{
    history *h;
    int64_t  bad = 0, count;
    str      w;
    arena    a = { 0 };
    int      r = hist_open(&h, path, HIST_READ, &e);
    if (r == OK) {
        r = hist_verify(h, 0, &a, &bad, &w, &count, &e);
        hist_close(h);
    }
    snprintf(what, n, "%s", r ? e.msg : bad ? w.s : "");
    arena_free(&a);
    return r != OK || bad != 0;
}

static const struct {
    const char *table, *columns;
} all_columns[] = {
    { "conversation", "id key created" },
    { "turn", "id conv n what target stale opts seed fwd bwd rules numerics chosen n_cand created seconds salt prompt user_text user_ids user_action "
              "user_rule cut evaluated reply_text reply_ids said prev hash" },
    { "candidate", "turn k fate salt text ids ended dup_of fwd bwd n_source score action rule drawn" },
    { "hit", "turn k i rule capped first last" },
};

static void every_cell_is_guarded(void **s)
{
    (void)s;
    /* What a cell becomes; %s is the column. */
    static const char *const change[] = { "coalesce(%s,0)+1", "'x'", "NULL", "CAST(zeroblob(coalesce(length(%s),32)) AS BLOB)", "%s||'x'", "-coalesce(%s,1)",
                                          "%s||char(0)||'x'", "CAST(%s AS TEXT)", "CAST(%s AS BLOB)", "1e300", "x''", "9223372036854775807",
                                          "substr(%s,1,length(%s)-1)", "coalesce(%s,1)*(1+1e-15)" };
    static const char *const where[] = { "0", "1", "2", "5", "11" };
    const char *path = in_dir("guard.db"), *copy = in_dir("guard-copy.db");
    char        what[300];
    int         done = 0;
    size_t      n;
    make_record(path);
    unsigned char *bytes = slurp(path, &n);
    for (size_t t = 0; t < sizeof all_columns / sizeof all_columns[0]; t++) {
        char columns[400], *save = NULL;
        snprintf(columns, sizeof columns, "%s", all_columns[t].columns);
        for (char *col = strtok_r(columns, " ", &save); col; col = strtok_r(NULL, " ", &save)) {
            int here = 0;
            for (size_t k = 0; k < sizeof change / sizeof change[0]; k++) {
                char to[200], sql[900];
                const char *row = where[(k + t) % (sizeof where / sizeof where[0])], *table = all_columns[t].table;
                if (strcmp(table, "conversation") == 0) row = k % 2 ? "1" : "0";
                snprintf(to, sizeof to, change[k], col, col, col);
                const char *key = strcmp(table, "candidate") == 0 ? "(turn,k)" : strcmp(table, "hit") == 0 ? "(turn,k,i)" : "id",
                           *keys = strcmp(table, "candidate") == 0 ? "turn,k" : strcmp(table, "hit") == 0 ? "turn,k,i" : "id";
                snprintf(sql, sizeof sql, "UPDATE %s SET %s=%s WHERE %s=(SELECT %s FROM %s ORDER BY %s LIMIT 1 OFFSET %s) AND %s IS NOT %s", table, col, to,
                         key, keys, table, keys, row, col, to);
                drop(copy);
                spit(copy, bytes, n);
                /* Text affinity may turn the new value into the old one: then the file is as it was, and nothing is to be
                 * found. */
                int changed = raw(copy, "%s", sql);
                if (changed <= 0) continue;
                char same[900];
                snprintf(same, sizeof same, "ATTACH '%s' AS o; SELECT count(*) FROM (SELECT * FROM main.%s EXCEPT SELECT * FROM o.%s)", path, table, table);
                if (raw_int(copy, same) == 0) continue;
                if (!seen(copy, what, sizeof what)) fail_msg("not seen: %s", sql);
                here++;
                done++;
            }
            if (here < 2) fail_msg("only %d changes of %s.%s took", here, all_columns[t].table, col);
        }
    }
    drop(copy);
    free(bytes);
    print_message("%d changed cells, all seen\n", done);
    assert_true(done >= 200);
}

static void rows_cannot_go_or_change_places(void **s)
{
    (void)s;
    static const struct {
        const char *sql;
        int         tail; /* a cut tail: only the head shows it */
    } act[] = {
        { "DELETE FROM turn WHERE id=2", 0 },
        { "DELETE FROM turn WHERE conv=1 AND n=1", 0 },
        { "DELETE FROM turn WHERE conv=1 AND n=3", 0 }, /* the undo row */
        { "DELETE FROM candidate WHERE turn=4 AND k=5", 0 },
        { "DELETE FROM candidate WHERE turn=4 AND k=0", 0 },
        { "DELETE FROM candidate WHERE turn=4", 0 },
        { "DELETE FROM hit WHERE turn=4 AND k=-1 AND i=1", 0 },
        { "DELETE FROM hit WHERE turn=4 AND k=-1", 0 },
        { "DELETE FROM hit WHERE turn=4", 0 },
        { "DELETE FROM conversation WHERE id=2", 0 },
        { "INSERT INTO hit SELECT turn,k,i+10,rule,capped,first,last FROM hit WHERE turn=4", 0 },
        { "INSERT INTO hit VALUES(4,77,0,0,0,0,0)", 0 },
        { "INSERT INTO hit VALUES(999,0,0,0,0,0,0)", 0 },
        { "INSERT INTO candidate SELECT turn,k+6,fate,salt,text,ids,ended,dup_of,fwd,bwd,n_source,score,action,rule,drawn FROM candidate WHERE turn=4", 0 },
        { "INSERT INTO candidate SELECT 999,k,fate,salt,text,ids,ended,dup_of,fwd,bwd,n_source,score,action,rule,drawn FROM candidate WHERE turn=4", 0 },
        { "UPDATE turn SET n=100 WHERE conv=1 AND n=1; UPDATE turn SET n=1 WHERE conv=1 AND n=2; UPDATE turn SET n=2 WHERE conv=1 AND n=100", 0 },
        { "UPDATE turn SET n=n+1000 WHERE conv=1; UPDATE turn SET n=n-999 WHERE conv=1", 0 },
        { "UPDATE candidate SET k=100 WHERE turn=4 AND k=0; UPDATE candidate SET k=0 WHERE turn=4 AND k=1; UPDATE candidate SET k=1 WHERE turn=4 AND k=100", 0 },
        { "UPDATE hit SET i=100 WHERE turn=4 AND k=-1 AND i=0; UPDATE hit SET i=0 WHERE turn=4 AND k=-1 AND i=1; UPDATE hit SET i=1 WHERE turn=4 AND i=100", 0 },
        { "UPDATE turn SET conv=9 WHERE conv=1; UPDATE turn SET conv=1 WHERE conv=2; UPDATE turn SET conv=2 WHERE conv=9", 0 },
        { "UPDATE candidate SET turn=999 WHERE turn=1; UPDATE candidate SET turn=1 WHERE turn=4; UPDATE candidate SET turn=4 WHERE turn=999", 0 },
        { "UPDATE turn SET (user_text,user_ids,salt,said)=(SELECT user_text,user_ids,salt,said FROM turn WHERE id=4) WHERE id=1", 0 },
        { "UPDATE candidate SET text=(SELECT text FROM candidate c WHERE c.turn=candidate.turn AND c.k=5-candidate.k) WHERE turn=4", 0 },
        /* an erasure that nobody announced, and words that came back */
        { "UPDATE turn SET salt=NULL,prompt=NULL,user_text=NULL,user_ids=NULL,user_action=NULL,user_rule=NULL,cut=NULL,evaluated=NULL,reply_text=NULL,"
          "reply_ids=NULL WHERE id=4; UPDATE candidate SET salt=NULL,text=NULL,ids=NULL,ended=NULL,dup_of=NULL,fwd=NULL,bwd=NULL,n_source=NULL,score=NULL,"
          "action=NULL,rule=NULL WHERE turn=4; DELETE FROM hit WHERE turn=4", 0 },
        { "UPDATE turn SET user_text='back' WHERE salt IS NULL AND what<3", 0 },
        { "UPDATE candidate SET text='back' WHERE salt IS NULL", 0 },
        { "DROP TABLE hit", 0 },
        { "DROP TABLE conversation", 0 },
        { "ALTER TABLE turn RENAME TO t; CREATE VIEW turn AS SELECT * FROM t", 0 },
        { "DELETE FROM turn WHERE conv=1 AND n=5", 1 },
    };
    const char *path = in_dir("rows-guard.db"), *copy = in_dir("rows.db");
    char        what[300];
    size_t      n;
    make_record(path);
    unsigned char *bytes = slurp(path, &n), before[32], after[32];
    history    *h;
    int         row;
    for (size_t i = 0; i < sizeof act / sizeof act[0]; i++) {
        drop(copy);
        spit(copy, bytes, n);
        if (raw(copy, "%s", act[i].sql) < 0) fail_msg("SQLite refused: %s", act[i].sql);
        if (!act[i].tail && !seen(copy, what, sizeof what)) fail_msg("not seen: %s", act[i].sql);
        if (!act[i].tail) assert_non_null(strstr(what, "rows.db"));
        if (i < 3) assert_non_null(strstr(what, "is missing")); /* a gap is called a gap */
        if (!act[i].tail) continue;
        OKAY(hist_open(&h, path, HIST_READ, &e));
        OKAY(hist_head(h, 1, &row, before, &e));
        assert_int_equal(row, 5);
        hist_close(h);
        OKAY(hist_open(&h, copy, HIST_READ, &e));
        OKAY(hist_head(h, 1, &row, after, &e));
        assert_memory_not_equal(before, after, 32);
        hist_close(h);
    }
    drop(copy);
    free(bytes);
}

/* Any flipped byte of the file is seen, or has changed nothing of the record (unused bytes, the search index). */
static void flipped_bytes(void **s)
{
    (void)s;
    const char *path = in_dir("flip-guard.db"), *copy = in_dir("flip.db");
    size_t      n;
    make_record(path);
    unsigned char *bytes = slurp(path, &n);
    history    *h;
    exchange   *was[3], *is;
    int         n_was[3], n_is, seen_n = 0, tried = 0;
    char        what[300];
    OKAY(hist_open(&h, path, HIST_READ, &e));
    for (int c = 0; c < 3; c++) OKAY(hist_exchanges(h, c + 1, &mem, &was[c], &n_was[c], &e));
    hist_close(h);
    for (int i = 0; i < 250; i++, tried++) {
        size_t at = (size_t)draw((int)n);
        unsigned char was_at = bytes[at];
        drop(copy);
        bytes[at] ^= (unsigned char)(1 << draw(8));
        spit(copy, bytes, n);
        if (seen(copy, what, sizeof what)) seen_n++;
        else {
            OKAY(hist_open(&h, copy, HIST_READ, &e));
            for (int c = 0; c < 3; c++) {
                arena a = { 0 };
                OKAY(hist_exchanges(h, c + 1, &a, &is, &n_is, &e));
                assert_int_equal(n_is, n_was[c]);
                for (int k = 0; k < n_is; k++) {
                    same_reply(&was[c][k].r, &is[k].r);
                    same_text(was[c][k].opts, is[k].opts);
                    assert_int_equal(was[c][k].undone, is[k].undone);
                }
                arena_free(&a);
            }
            hist_close(h);
        }
        bytes[at] = was_at;
    }
    print_message("%d of %d flipped bytes seen, the others changed no record\n", seen_n, tried);
    assert_true(seen_n > 20);
    drop(copy);
    free(bytes);
}

/* ---- verify before commit ---- */

static void what_cannot_be_read_back_is_not_stored(void **s)
{
    (void)s;
    /* A file whose columns bend what is put into them: the reply's seconds become text, or the row is refused. */
    static const char *const bend[] = { "replace(sql,'seconds  REAL','seconds  TEXT')", "replace(sql,'chosen   INTEGER','chosen   TEXT')",
                                        "replace(sql,'reply_text TEXT','reply_text BLOB CHECK(0)')" };
    const char *path = in_dir("bend.db");
    for (int i = 0; i < 3; i++) {
        history *h = open_new(path);
        int64_t  conv, id;
        OKAY(hist_new(h, STR(""), &conv, &e));
        say(h, conv, "fine", 1);
        hist_close(h);
        assert_true(raw(path, "PRAGMA writable_schema=ON; UPDATE sqlite_schema SET sql=%s WHERE name='turn'", bend[i]) > 0);
        OKAY(hist_open(&h, path, HIST_WRITE, &e));
        reply        r = some_reply(2, "bent", "bent", 2);
        respond_opts o = respond_defaults();
        e.msg[0]       = 0;
        assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 0.5, &id, &e), E_DB);
        if (i < 2) assert_non_null(strstr(e.msg, "not stored"));
        hist_close(h);
        assert_int_equal(raw_int(path, "SELECT count(*) FROM turn"), 1);
        assert_int_equal(raw_int(path, "SELECT count(*) FROM candidate"), 3);
    }
    /* A trigger that would alter rows does not run. */
    history *h = open_new(path);
    int64_t  conv;
    OKAY(hist_new(h, STR(""), &conv, &e));
    hist_close(h);
    assert_true(raw(path, "CREATE TRIGGER evil AFTER INSERT ON candidate BEGIN UPDATE turn SET reply_text='evil'; END") >= 0);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    say(h, conv, "fine", 1);
    sound(h);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_hashes),
        cmocka_unit_test(every_cell_is_guarded),
        cmocka_unit_test(rows_cannot_go_or_change_places),
        cmocka_unit_test(flipped_bytes),
        cmocka_unit_test(what_cannot_be_read_back_is_not_stored),
    };
    return cmocka_run_group_tests_name("chain", tests, NULL, drop_folder);
}
