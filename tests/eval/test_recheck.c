/* recheck: against a count of the same texts by hand (the rules of this world are single characters), kind by kind. */
#include "tests/eval/world.h"

#include "eval/recheck.h"

/* Characters that the replies of this world are made of. */
static const char then_text[] = "[rule t.block]\ncategory: test\nwhere: user\naction: block\npattern: 影\nmessage zh: x\nmessage en: y\n"
                                "[rule t.red]\ncategory: test\nwhere: both\naction: redact\npattern: 谁\nlabel zh: 略\n"
                                "[rule t.flag]\ncategory: test\nwhere: both\naction: flag\npattern: 吗\n"
                                "[rule t.reply]\ncategory: test\nwhere: reply\naction: block\npattern: 吃\nmessage zh: x\nmessage en: y\n",
                  now_text[]  = "[rule n.block]\ncategory: new\nwhere: both\naction: block\npattern: 饭\nmessage zh: x\nmessage en: y\n"
                                "[rule n.warn]\ncategory: new\nwhere: both\naction: warn\npattern: 吗\nmessage zh: x\nmessage en: y\n"
                                "[rule t.reply]\ncategory: test\nwhere: reply\naction: block\npattern: 吃\nmessage zh: x\nmessage en: y\n";

static safety *open_text(const char *name, const char *text)
{
    safety     *s;
    const char *p = in_dir(name);
    spit(p, text, strlen(text));
    OKAY(safety_open(&s, &p, 1, &e));
    return s;
}

static int has(str s, const char *w) { return memmem(s.s, s.n, w, strlen(w)) != NULL; }
/* What the two packs say, by hand. */
static int was_action(str t, int is_reply)
{
    if (has(t, is_reply ? "吃" : "影")) return RULE_BLOCK;
    return has(t, "谁") ? RULE_REDACT : has(t, "吗") ? RULE_FLAG : RULE_NONE;
}
static int is_action(str t, int is_reply)
{
    if (has(t, "饭") || (is_reply && has(t, "吃"))) return RULE_BLOCK;
    return has(t, "吗") ? RULE_WARN : RULE_NONE;
}

typedef struct {
    int64_t kind[RECHECK_KINDS];
    int     items, shown_blocked, stop_at;
} seen;
static int see(void *ctx, const recheck_item *x)
{
    seen *s = ctx;
    assert_true(x->kind > RECHECK_SAME && x->kind < RECHECK_KINDS);
    int was = was_action(x->text, x->k >= 0), is = is_action(x->text, x->k >= 0);
    assert_int_equal(x->is, is);
    if (x->kind != RECHECK_PARTLY) assert_int_equal(x->was, was);
    if (x->kind == RECHECK_BLOCKED) assert_true(is == RULE_BLOCK && was != RULE_BLOCK);
    if (x->kind == RECHECK_ALLOWED) assert_true(is != RULE_BLOCK && was == RULE_BLOCK);
    if (x->is == RULE_WARN) assert_string_equal(x->is_rule, "n.warn");
    s->kind[x->kind]++;
    s->shown_blocked += x->kind == RECHECK_BLOCKED && x->k >= 0 && x->shown;
    return ++s->items == s->stop_at;
}

/* The same count over the store by hand. */
static void count_by_hand(history *h, const int64_t *id, int n, int64_t kind[RECHECK_KINDS], int64_t texts[2])
{
    memset(kind, 0, RECHECK_KINDS * sizeof *kind);
    texts[0] = texts[1] = 0;
    for (int i = 0; i < n; i++) {
        exchange x;
        OKAY(hist_exchange(h, id[i], &mem, &x, &e));
        for (int k = -1; k < x.r.n; k++) {
            str t = k < 0 ? x.r.user_text : x.r.cand[k].text;
            if (k >= 0 && (x.r.cand[k].fate == CAND_DUPLICATE || x.r.cand[k].fate == CAND_EMPTY)) continue;
            texts[k >= 0]++;
            int was = k < 0 ? x.r.user_v.action : was_action(t, 1), is = is_action(t, k >= 0);
            if (is == RULE_BLOCK && was != RULE_BLOCK) kind[RECHECK_BLOCKED]++;
            else if (is == was && is == RULE_BLOCK && has(t, "饭")) kind[RECHECK_RULE]++; /* n.block comes before t.reply */
            else if (is == was) kind[RECHECK_SAME]++;
            else if (was == RULE_REDACT) kind[RECHECK_PARTLY]++;
            else kind[was == RULE_BLOCK ? RECHECK_ALLOWED : RECHECK_ACTION]++;
        }
    }
}

static void counts_are_true(void **state)
{
    (void)state;
    history     *h = open_new(in_dir("recheck.db"));
    responder   *r;
    safety      *then = open_text("then.rules", then_text), *now = open_text("now.rules", now_text);
    int64_t      row[9], *id, kind[RECHECK_KINDS], texts[2], blocked = 0, was = 0;
    int          n;
    respond_opts o = respond_defaults();
    o.mode          = MODE_MMI;
    o.temperature   = 0.8f;
    o.n_cand       = 32;
    o.max_new      = 8;
    OKAY(responder_new(&r, fwd, bwd, then, &e));
    int64_t conv = make_talk(h, r, row);
    for (o.seed = 1; o.seed < 12; o.seed++) talk(h, r, conv, "你好", &o);
    OKAY(hist_turn_ids(h, 0, &mem, &id, &n, &e));
    assert_int_equal(n, 18);
    count_by_hand(h, id, n, kind, texts);
    for (int k = RECHECK_SAME; k < RECHECK_KINDS; k++)
        if (kind[k] == 0) fail_msg("this world has nothing that is %s", recheck_name(k));

    seen        s = { 0 };
    recheck_sum sum;
    OKAY(recheck(h, id, n, then, now, see, &s, &mem, &sum, &e));
    for (int k = RECHECK_SAME; k < RECHECK_KINDS; k++) {
        assert_int_equal(sum.kind[k], kind[k]);
        if (k > RECHECK_SAME) assert_int_equal(s.kind[k], kind[k]);
    }
    assert_int_equal(sum.n_lines, texts[0]);
    assert_int_equal(sum.n_candidates, texts[1]);
    assert_int_equal(sum.replies_blocked, s.shown_blocked);
    assert_true(recheck_differs(&sum));
    assert_int_equal(sum.rules.n, 5); /* t.block, t.flag, t.reply, n.block, n.warn; t.red hit only what is gone */
    for (int i = 0; i < sum.rules.n; i++) {
        assert_true(i == 0 || strcmp(sum.rules.row[i - 1].name.s, sum.rules.row[i].name.s) < 0);
        assert_true(sum.rules.row[i].category.n > 0);
        blocked += str_eq(sum.rules.row[i].name, STR("n.block")) ? sum.rules.row[i].n[1] : 0;
        was += sum.rules.row[i].n[0];
    }
    assert_int_equal(blocked, kind[RECHECK_BLOCKED] + kind[RECHECK_RULE]);
    assert_true(was > 0);

    /* The same rules again: nothing but the redacted line, which is not whole. */
    s = (seen){ 0 };
    OKAY(recheck(h, id, n, then, then, see, &s, &mem, &sum, &e));
    assert_false(recheck_differs(&sum));
    assert_int_equal(sum.kind[RECHECK_PARTLY], 1);
    assert_int_equal(sum.kind[RECHECK_SAME] + 1, texts[0] + texts[1]);

    /* Rules of then not at hand: their numbers and digest stand for the names, and names are not compared. */
    s = (seen){ 0 };
    OKAY(recheck(h, id, n, NULL, now, see, &s, &mem, &sum, &e));
    assert_int_equal(sum.kind[RECHECK_RULE], 0);
    assert_int_equal(sum.kind[RECHECK_BLOCKED], kind[RECHECK_BLOCKED]);
    int numbered = 0;
    for (int i = 0; i < sum.rules.n; i++) numbered += strncmp(sum.rules.row[i].name.s, "rule ", 5) == 0 && sum.rules.row[i].category.n == 0 && sum.rules.row[i].n[1] == 0;
    assert_int_equal(numbered, 3);

    s = (seen){ .stop_at = 2 };
    assert_int_equal(recheck(h, id, n, then, now, see, &s, &mem, &sum, &e), E_CANCEL);
    assert_int_equal(s.items, 2);
    OKAY(hist_forget(h, conv, 1, STR("x"), NULL, &e));
    s = (seen){ 0 };
    OKAY(recheck(h, id, n, then, now, see, &s, &mem, &sum, &e));
    assert_int_equal(sum.n_forgotten, 1);
    safety_close(then);
    safety_close(now);
    responder_free(r);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(counts_are_true) };
    return cmocka_run_group_tests_name("recheck", tests, make_world, drop_world);
}
