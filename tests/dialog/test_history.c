/* history: what goes in comes out to the bit; undo, forget, titles, search.  The replies are made by hand: no model is needed. */
#include "tests/dialog/records.h"

/* ---- round trip ---- */

static void fields_come_back(void **s)
{
    (void)s;
    const char *path = in_dir("round.db");
    history    *h    = open_new(path);
    int64_t     conv;
    OKAY(hist_new(h, STR(""), &conv, &e));
    reply rs[4];
    rs[0] = some_reply(8, "你好，世界 👋🏽 e\u0301", "再见 🫥", 1);
    rs[0].text            = (str){ "a\0b\0", 4 };
    rs[0].cand[0].text    = (str){ "\0\0\0", 3 };
    rs[0].cand[1].fwd     = -INFINITY;
    rs[0].cand[1].bwd     = INFINITY;
    rs[0].cand[1].score   = -0.0;
    rs[0].cand[2].fwd     = 5e-324; /* the smallest double */
    rs[0].cand[2].bwd     = -1.7976931348623157e308;
    rs[0].cand[2].score   = 1e15; /* SQLite keeps whole reals as integers on disk */
    rs[0].cand[3].fwd     = -NAN;
    rs[0].cand[3].bwd     = 0.1 + 0.2;
    rs[1] = some_reply(0, "refused", "no", 2);
    rs[1].kind          = REPLY_REFUSED;
    rs[1].chosen        = -1;
    rs[1].prompt_digest[0] = 0;
    rs[1].bwd_digest    = "";
    rs[2] = some_reply(2, "x", "y", 3);
    size_t big = 1 << 20;
    char  *m   = arena_new(&mem, big, 1);
    for (size_t i = 0; i < big; i++) m[i] = (char)draw(256); /* any bytes, no UTF-8 */
    rs[2].user_text         = (str){ m, big };
    rs[2].cand[1].text      = (str){ m, big };
    rs[2].user_id           = some_ids(300000);
    rs[2].n_user_id         = 300000;
    rs[3]                   = (reply){ .kind = REPLY_STOCK, .chosen = -1, .text = STR(""), .user_text = STR(""), .user_v.rule = -1,
                                       .fwd_digest = "", .bwd_digest = "", .rules_digest = "", .numerics = "" };
    respond_opts o          = respond_defaults();
    buf          line       = { 0 };
    int64_t      id[4];
    for (int i = 0; i < 4; i++) {
        o.seed = UINT64_MAX - (uint64_t)i;
        OKAY(hist_append(h, conv, &rs[i], &o, STR("2026-11-24T15:04:05Z"), i == 3 ? NAN : 1.5 * i, &id[i], &e));
    }
    for (int again = 0; again < 2; again++) {
        exchange x, *all;
        int      n;
        for (int i = 0; i < 4; i++) {
            OKAY(hist_exchange(h, id[i], &mem, &x, &e));
            same_reply(&rs[i], &x.r);
            assert_int_equal(x.id, id[i]);
            assert_int_equal(x.conv, conv);
            assert_int_equal(x.n, i + 1);
            assert_int_equal(x.undone | x.stale | x.forgotten, 0);
            assert_true(x.seed == UINT64_MAX - (uint64_t)i);
            same_double(x.seconds, i == 3 ? NAN : 1.5 * i);
            same_text(x.created, STR("2026-11-24T15:04:05Z"));
            o.seed = x.seed;
            buf_reset(&line);
            OKAY(respond_opts_format(&o, &line));
            same_text(x.opts, buf_view(&line));
        }
        OKAY(hist_exchanges(h, conv, &mem, &all, &n, &e));
        assert_int_equal(n, 4);
        same_reply(&rs[3], &all[3].r);
        sound(h);
        hist_close(h);
        OKAY(hist_open(&h, path, again ? HIST_WRITE : HIST_READ, &e));
    }
    hist_close(h);
    buf_free(&line);
}

static void reading_never_writes(void **s)
{
    (void)s;
    const char *path = in_dir("round.db");
    history    *h;
    int64_t     id;
    OKAY(hist_open(&h, path, HIST_READ, &e));
    assert_int_equal(hist_new(h, STR("t"), &id, &e), E_IO);
    assert_non_null(strstr(e.msg, "may not be written"));
    sound(h);
    hist_close(h);
    char side[600];
    snprintf(side, sizeof side, "%s-wal", path);
    assert_int_equal(access(side, F_OK), -1); /* and nothing is left beside it */
    snprintf(side, sizeof side, "%s-shm", path);
    assert_int_equal(access(side, F_OK), -1);
}

static void memory_store(void **s)
{
    (void)s;
    history *h;
    int64_t  conv;
    OKAY(hist_open(&h, NULL, HIST_MEMORY, &e));
    OKAY(hist_new(h, STR(""), &conv, &e));
    say(h, conv, "nobody will know", 1);
    sound(h);
    hist_close(h);
    assert_int_equal(access(":memory:", F_OK), -1);
}

static void injection_is_text(void **s)
{
    (void)s;
    static const char *const nasty[] = { "'; DROP TABLE turn; --", "\"; DELETE FROM candidate; --", "%s%n%x", "x' OR '1'='1", "\x1b[2J", "NULL",
                                         "1e999", "a\" OR rowid NOT NULL OR \"b", "* NEAR(", "user_text : x", "\\", "%", "_" };
    const char *path = in_dir("inject.db");
    history    *h    = open_new(path);
    for (size_t i = 0; i < sizeof nasty / sizeof nasty[0]; i++) {
        int64_t        conv;
        conversation   c;
        history_found *f;
        exchange       x;
        int            n;
        str            t = str_of(nasty[i]);
        OKAY(hist_new(h, t, &conv, &e));
        reply r        = some_reply(1, "", "", 0);
        r.user_text    = r.text = r.cand[0].text = t;
        r.fwd_digest   = r.bwd_digest = r.rules_digest = r.numerics = nasty[i];
        snprintf(r.prompt_digest, sizeof r.prompt_digest, "%s", nasty[i]);
        respond_opts o = respond_defaults();
        int64_t      id;
        OKAY(hist_append(h, conv, &r, &o, t, 1, &id, &e));
        OKAY(hist_exchange(h, id, &mem, &x, &e));
        same_reply(&r, &x.r);
        OKAY(hist_get(h, conv, &mem, &c, &e));
        same_text(c.title, t);
        OKAY(hist_set_title(h, conv, STR("'); DROP TABLE hit; --"), &e));
        OKAY(hist_search(h, t, NULL, 0, &mem, &f, &n, &e));
        int here = 0;
        for (int k = 0; k < n; k++) here += f[k].turn == id;
        assert_int_equal(here, 2);
    }
    sound(h);
    hist_close(h);
}

/* ---- conversations, undo, turns ---- */

static void lists_and_titles(void **s)
{
    (void)s;
    history      *h = open_new(in_dir("list.db"));
    int64_t       a, b, c;
    conversation *l, one;
    int           n;
    respond_opts  o = respond_defaults();
    int64_t       id;
    OKAY(hist_list(h, 0, &mem, &l, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_new(h, STR(""), &a, &e));
    OKAY(hist_new(h, STR("named"), &b, &e));
    reply r     = some_reply(2, "  first\tline\n\nwith   blanks ", "ok", 1);
    reply bad   = some_reply(0, "something vile", "no", 1);
    bad.kind    = REPLY_REFUSED;
    bad.chosen  = -1;
    OKAY(hist_append(h, a, &bad, &o, STR("2030-01-01T00:00:01Z"), 1, &id, &e));
    OKAY(hist_append(h, a, &r, &o, STR("2030-01-01T00:00:02Z"), 1, &id, &e));
    OKAY(hist_append(h, b, &r, &o, STR("2030-01-01T00:00:03Z"), 1, &id, &e));
    OKAY(hist_append(h, a, &r, &o, STR("2030-01-01T00:00:04Z"), 1, &id, &e));
    OKAY(hist_list(h, 0, &mem, &l, &n, &e));
    assert_int_equal(n, 2);
    assert_int_equal(l[0].id, a); /* the last to be added to comes first */
    same_text(l[0].title, STR("first line with blanks 1"));
    same_text(l[1].title, STR("named"));
    assert_int_equal(l[0].n_turns, 3);
    assert_int_equal(l[0].created.n, 20);
    same_text(l[0].fwd, str_of(r.fwd_digest));
    OKAY(hist_list(h, 1, &mem, &l, &n, &e));
    assert_int_equal(n, 1);
    OKAY(hist_set_title(h, a, STR("人生"), &e));
    OKAY(hist_get(h, a, &mem, &one, &e));
    same_text(one.title, STR("人生"));
    OKAY(hist_undo(h, a, STR("2030-01-01T00:00:05Z"), NULL, &e));
    OKAY(hist_get(h, a, &mem, &one, &e));
    assert_int_equal(one.n_turns, 2);
    assert_int_equal(hist_get(h, 99, &mem, &one, &e), E_ARG);
    assert_int_equal(hist_set_title(h, 99, STR("x"), &e), E_ARG);
    assert_int_equal(hist_append(h, 99, &r, &o, STR("x"), 1, &id, &e), E_ARG);
    for (int i = 0; i < 40; i++) OKAY(hist_new(h, STR("t"), &c, &e));
    OKAY(hist_list(h, 0, &mem, &l, &n, &e));
    assert_int_equal(n, 42);
    sound(h);
    hist_close(h);
}

static void undo_and_what_feeds_a_model(void **s)
{
    (void)s;
    history *h = open_new(in_dir("undo.db"));
    int64_t  conv, id[6], gone, *ids;
    turn    *t;
    int      n;
    exchange x, *all;
    OKAY(hist_new(h, STR(""), &conv, &e));
    assert_int_equal(hist_undo(h, conv, STR("x"), &gone, &e), E_ARG);
    assert_int_equal(hist_undo(h, 77, STR("x"), &gone, &e), E_ARG);
    id[1] = say(h, conv, "one", 1);                   /* row 1 */
    id[2] = say(h, conv, "two", 2);                   /* row 2 */
    id[3] = say(h, conv, "three", 3);                 /* row 3 */
    OKAY(hist_undo(h, conv, STR("x"), &gone, &e));    /* row 4 undoes 3 */
    assert_int_equal(gone, id[3]);
    OKAY(hist_undo(h, conv, STR("x"), &gone, &e));    /* row 5 undoes 2 */
    assert_int_equal(gone, id[2]);
    reply refused  = some_reply(0, "vile", "no", 4);
    refused.kind   = REPLY_REFUSED;
    refused.chosen = -1;
    id[4] = add(h, conv, &refused);                   /* row 6 */
    id[5] = say(h, conv, "five", 5);                  /* row 7 */
    OKAY(hist_turns(h, conv, 0, &mem, &t, &n, &e));
    assert_int_equal(n, 6);
    same_text(t[0].text, STR("one 1"));
    same_text(t[1].text, STR("reply 1"));
    assert_int_equal(t[0].speaker, 0);
    assert_int_equal(t[1].speaker, 1);
    assert_int_equal(t[0].hidden + t[1].hidden, 0);
    assert_int_equal(t[2].hidden + t[3].hidden, 2);
    same_text(t[4].text, STR("five 5"));
    assert_true(t[0].weight == 1);
    OKAY(hist_exchange(h, id[5], &mem, &x, &e));
    same_ids(t[5].id, t[5].n, x.r.id, x.r.n_id);
    assert_int_equal(x.n, 7);
    OKAY(hist_turns(h, conv, 3, &mem, &t, &n, &e)); /* before the third: the second was not undone yet */
    assert_int_equal(n, 4);
    same_text(t[2].text, STR("two 2"));
    OKAY(hist_turns(h, conv, 5, &mem, &t, &n, &e));
    assert_int_equal(n, 4);
    OKAY(hist_turns(h, conv, 6, &mem, &t, &n, &e));
    assert_int_equal(n, 2);
    OKAY(hist_turns(h, conv, 1, &mem, &t, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_exchanges(h, conv, &mem, &all, &n, &e));
    assert_int_equal(n, 5);
    for (int i = 0; i < 5; i++) assert_int_equal(all[i].undone, i == 1 || i == 2);
    OKAY(hist_turn_ids(h, 0, &mem, &ids, &n, &e));
    assert_int_equal(n, 5);
    OKAY(hist_turn_ids(h, 2, &mem, &ids, &n, &e));
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], id[4]);
    assert_int_equal(ids[1], id[5]);
    assert_int_equal(hist_exchange(h, id[3] + 1, &mem, &x, &e), E_ARG); /* an undo row */
    assert_int_equal(hist_exchange(h, 12345, &mem, &x, &e), E_ARG);
    assert_int_equal(hist_turns(h, 77, 0, &mem, &t, &n, &e), E_ARG);
    sound(h);
    hist_close(h);
}

static void limits(void **s)
{
    (void)s;
    history *h = open_new(in_dir("limits.db"));
    int64_t  conv, id;
    char     big[1200] = { 0 };
    OKAY(hist_new(h, STR(""), &conv, &e));
    reply        r = some_reply(1, "a", "b", 1);
    respond_opts o = respond_defaults();
    size_t       n = (16 << 20) + 1;
    char        *m = calloc(n, 1);
    r.text         = (str){ m, n };
    assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e), E_LIMIT);
    r.text.n--;
    OKAY(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e));
    r.text.n = 1;
    r.n      = 4097;
    assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e), E_LIMIT);
    r.n    = 1;
    r.kind = 3;
    assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e), E_ARG);
    r.kind   = REPLY_MODEL;
    r.chosen = 5; /* no such candidate: what the reader would refuse is not written */
    assert_int_equal(hist_append(h, conv, &r, &o, STR("x"), 1, &id, &e), E_DB);
    assert_int_equal(hist_set_title(h, conv, (str){ big, sizeof big }, &e), E_LIMIT);
    assert_int_equal(hist_new(h, (str){ big, sizeof big }, &id, &e), E_LIMIT);
    sound(h);
    hist_close(h);
    free(m);
}

/* ---- forgetting and finding ---- */

static void forgotten_words_are_gone(void **s)
{
    (void)s;
    const char *path = in_dir("forget.db");
    char        wal[600];
    snprintf(wal, sizeof wal, "%s-wal", path);
    history *h = open_new(path);
    int64_t  conv, id[4];
    int      n;
    exchange x;
    turn    *t;
    unsigned char before[32], after[32];
    OKAY(hist_new(h, STR(""), &conv, &e));
    id[0] = say(h, conv, "alpha bravo xylophone", 0);
    id[1] = say(h, conv, "charlie delta quagmire", 1);
    id[2] = say(h, conv, "echo foxtrot zeppelin", 2);
    hist_close(h); /* words are in the file now, not only in the log */
    assert_true(holds(path, "quagmire") && holds(path, "xylophone"));
    static const char in_index[] = "SELECT count(*) FROM search_data WHERE instr(block,CAST('xyl' AS BLOB))>0";
    assert_true(raw_int(path, in_index) > 0);
    OKAY(hist_open(&h, path, HIST_WRITE, &e));
    OKAY(hist_head(h, conv, &n, before, &e));
    assert_int_equal(hist_forget(h, conv, 9, STR("x"), &n, &e), E_ARG);
    assert_int_equal(hist_forget(h, 99, 0, STR("x"), &n, &e), E_ARG);
    OKAY(hist_forget(h, conv, 2, STR("2026-11-24T15:04:10Z"), &n, &e));
    assert_int_equal(n, 1);
    assert_int_equal(hist_forget(h, conv, 2, STR("x"), &n, &e), E_ARG); /* it is gone already */
    OKAY(hist_head(h, conv, &n, after, &e));
    assert_int_equal(n, 4);
    sound(h);
    assert_false(holds(path, "quagmire") || holds(wal, "quagmire"));
    assert_false(holds(path, "candidate 2 of 1") || holds(wal, "candidate 2 of 1"));
    assert_true(holds(path, "xylophone"));
    OKAY(hist_exchange(h, id[1], &mem, &x, &e));
    assert_int_equal(x.forgotten, 1);
    assert_int_equal(x.r.user_text.n + x.r.text.n, 0);
    assert_int_equal(x.r.n, 3);
    assert_true(isnan(x.r.cand[0].fwd));
    OKAY(hist_turns(h, conv, 0, &mem, &t, &n, &e));
    assert_int_equal(n, 4);
    history_found *f;
    OKAY(hist_search(h, STR("quagmire"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_search(h, STR("gm"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 0);
    id[3] = say(h, conv, "golf hotel", 3); /* the chain goes on */
    conversation c;
    OKAY(hist_get(h, conv, &mem, &c, &e));
    same_text(c.title, STR("alpha bravo xylophone 0"));
    OKAY(hist_forget(h, conv, 0, STR("2026-11-24T15:04:11Z"), &n, &e));
    assert_int_equal(n, 3);
    OKAY(hist_get(h, conv, &mem, &c, &e));
    assert_int_equal(c.title.n, 0);
    assert_false(holds(path, "xylophone") || holds(path, "zeppelin") || holds(path, "hotel"));
    id[3] = say(h, conv, "after all that", 4);
    sound(h);
    hist_close(h);
    assert_int_equal(raw_int(path, in_index), 0);
    assert_false(holds(path, "xylophone") || holds(path, "zeppelin") || holds(path, "hotel"));
}

static void finding(void **s)
{
    (void)s;
    history       *h = open_new(in_dir("find.db"));
    history_found *f;
    int64_t        conv, id[3];
    int            n;
    OKAY(hist_new(h, STR(""), &conv, &e));
    id[0] = say(h, conv, "I like Kölsch and 100% cotton_socks", 1);
    id[1] = say(h, conv, "今天天气不错，我们去公园散步吧", 2);
    reply r     = some_reply(1, "", "", 3);
    r.user_text = STR("left \x01 control \x02 then ÄPFEL and more text that goes on and on and on for a good while");
    id[2]       = add(h, conv, &r);
    OKAY(hist_search(h, STR("kölSCH"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    assert_int_equal(f[0].turn, id[0]);
    assert_int_equal(f[0].conv, conv);
    assert_int_equal(f[0].speaker, 0);
    same_text(f[0].snippet, STR("I like \x01Kölsch\x02 and 100% cotton_socks 1"));
    OKAY(hist_search(h, STR("äpfel"), NULL, 0, &mem, &f, &n, &e)); /* folded beyond ASCII */
    assert_int_equal(n, 1);
    same_text(f[0].snippet, STR("left   control   then \x01ÄPFEL\x02 and more text that goes on an…"));
    OKAY(hist_search(h, STR("公园散步"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    same_text(f[0].snippet, STR("今天天气不错，我们去\x01公园散步\x02吧 2"));
    OKAY(hist_search(h, STR("公"), NULL, 0, &mem, &f, &n, &e)); /* one character */
    assert_int_equal(n, 1);
    same_text(f[0].snippet, STR("今天天气不错，我们去\x01公\x02园散步吧 2"));
    OKAY(hist_search(h, STR("公园"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    OKAY(hist_search(h, STR("0%"), NULL, 0, &mem, &f, &n, &e)); /* no wildcard */
    assert_int_equal(n, 1);
    OKAY(hist_search(h, STR("_"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    OKAY(hist_search(h, STR("100% c"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    OKAY(hist_search(h, STR("li%ke"), NULL, 0, &mem, &f, &n, &e));
    assert_int_equal(n, 0);
    OKAY(hist_search(h, STR("Kölsch OR 今天天"), NULL, 0, &mem, &f, &n, &e)); /* no syntax */
    assert_int_equal(n, 0);
    OKAY(hist_search(h, STR("reply"), NULL, 0, &mem, &f, &n, &e)); /* the bot's words, newest first */
    assert_int_equal(n, 2);
    assert_int_equal(f[0].turn, id[1]);
    assert_int_equal(f[0].speaker, 1);
    OKAY(hist_search(h, STR("reply"), NULL, 1, &mem, &f, &n, &e));
    assert_int_equal(n, 1);
    OKAY(hist_undo(h, conv, STR("x"), NULL, &e));
    OKAY(hist_search(h, STR("ÄPFEL"), NULL, 0, &mem, &f, &n, &e)); /* undone, still in the record */
    assert_int_equal(n, 1);
    assert_int_equal(hist_search(h, STR(""), NULL, 0, &mem, &f, &n, &e), E_ARG);
    assert_int_equal(hist_search(h, STR("a\0b"), NULL, 0, &mem, &f, &n, &e), E_ARG);
    assert_int_equal(hist_search(h, STR("\xff\xfe\xfd"), NULL, 0, &mem, &f, &n, &e), E_ARG);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_come_back),
        cmocka_unit_test(reading_never_writes),
        cmocka_unit_test(memory_store),
        cmocka_unit_test(injection_is_text),
        cmocka_unit_test(lists_and_titles),
        cmocka_unit_test(undo_and_what_feeds_a_model),
        cmocka_unit_test(limits),
        cmocka_unit_test(forgotten_words_are_gone),
        cmocka_unit_test(finding),
    };
    return cmocka_run_group_tests_name("history", tests, NULL, drop_folder);
}
