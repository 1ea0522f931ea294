/* why: the steps are what made the stored reply, their numbers add up to the stored scores, and watching changes nothing. */
#include "tests/eval/world.h"

#include "eval/why.h"

static why ask(history *h, int64_t id, audit_models *m, int k, int top)
{
    why w;
    OKAY(why_turn(h, id, m, k, top, &mem, &w, &e));
    return w;
}

/* The filtered distribution once more, from the definition: walk down from the likeliest. */
static void check_step(const why_step *s)
{
    assert_true(s->u >= s->from - 1e-12 && s->u < s->to + 1e-12);
    assert_true(fabs(s->to - s->from - s->drawn.after) < 1e-12);
    assert_true(s->drawn.after > 0 && s->to <= 1 + 1e-9 && s->kept >= 1);
    assert_true(fabs(s->drawn.before - exp(s->logp)) < 1e-12);
    double sum = 0, kept = 0;
    for (int i = 0; i < s->n_top; i++) {
        assert_true(i == 0 || s->top[i].before <= s->top[i - 1].before);
        sum += s->top[i].before;
        kept += s->top[i].after;
        if (s->top[i].id == s->drawn.id) assert_int_equal(s->rank, i + 1);
    }
    assert_true(sum <= 1 + 1e-6 && kept <= 1 + 1e-9); /* the log-sum-exp is of floats */
    if (s->n_top == gpt2_cfg(fwd)->n_vocab) assert_true(fabs(sum - 1) < 1e-6 && fabs(kept - 1) < 1e-9); /* all of them */
}

static void steps_make_the_reply(void **s)
{
    (void)s;
    history   *h = open_new(in_dir("why.db"));
    responder *r;
    int64_t    id[9];
    int        V = gpt2_cfg(fwd)->n_vocab, watched = 0;
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    make_talk(h, r, id);
    audit_models m = { r, rules };
    for (int i = 1; i <= 8; i++) {
        if (i == 5) continue;
        why w = ask(h, id[i], &m, -1, V);
        assert_int_equal(w.again.result, AUDIT_IDENTICAL);
        for (int k = -1; k < w.x.r.n; k++) {
            if (k >= 0) w = ask(h, id[i], &m, k, V);
            if (w.candidate < 0) continue;
            const candidate *c = &w.x.r.cand[w.candidate];
            assert_int_equal(w.again.result, AUDIT_IDENTICAL); /* watched, and still the same */
            assert_true(w.agree);
            assert_int_equal(w.n_step, c->n + c->ended);
            double sum = 0;
            for (int t = 0; t < w.n_step; t++) {
                check_step(&w.step[t]);
                assert_int_equal(w.step[t].n_top, V);
                if (t < c->n) assert_int_equal(w.step[t].drawn.id, c->id[t]);
                sum += w.step[t].logp;
            }
            if (c->fate == CAND_OK) assert_true(sum == c->fwd); /* the same additions in the same order */
            if (c->fate == CAND_OK && w.o.mode != MODE_FORWARD) {
                sum = 0;
                assert_int_equal(w.n_source, c->n_source);
                for (int t = 0; t < w.n_source; t++) sum += w.source[t].logp;
                assert_true(fabs(sum - c->bwd) < 1e-9);
                watched++;
            } else if (c->fate == CAND_BLOCKED || c->fate == CAND_EMPTY) assert_int_equal(w.n_source, 0);
        }
    }
    assert_true(watched > 10);
    why w = ask(h, id[1], &m, -1, 3);
    assert_int_equal(w.step[0].n_top, 3);
    assert_int_equal(w.n_before, 0);
    w = ask(h, id[4], &m, -1, 3);
    assert_int_equal(w.n_before, 6); /* three exchanges, one of them refused */
    assert_true(w.before[2].hidden && w.x.undone);
    w = ask(h, id[6], &m, -1, 3);
    assert_int_equal(w.n_before, 6); /* the fourth is undone */
    why      x;
    assert_int_equal(why_turn(h, id[1], &m, 8, 3, &mem, &x, &e), E_ARG);
    assert_int_equal(why_turn(h, id[2], &m, 0, 3, &mem, &x, &e), E_ARG);
    assert_int_equal(why_turn(h, 99999, &m, -1, 3, &mem, &x, &e), E_ARG);
    responder_free(r);
    hist_close(h);
}

/* Five candidates made by hand: what each way to choose takes is known. */
static void choices_are_true(void **s)
{
    (void)s;
    candidate c[] = {
        { .text = STR("a"), .n = 3, .ended = 1, .fate = CAND_BLOCKED, .dup_of = -1, .fwd = -1, .bwd = NAN, .score = NAN },
        { .text = STR("b"), .n = 3, .ended = 1, .fate = CAND_OK, .dup_of = -1, .fwd = -4, .bwd = -9, .n_source = 3, .score = -9 },   /* -1 a token */
        { .text = STR("c"), .n = 1, .ended = 1, .fate = CAND_OK, .dup_of = -1, .fwd = -3, .bwd = -8, .n_source = 3, .score = -8 },   /* -1.5 */
        { .text = STR("d"), .n = 4, .ended = 1, .fate = CAND_OK, .dup_of = -1, .fwd = -9, .bwd = -2, .n_source = 3, .score = -2 },   /* -1.8 */
        { .text = STR("e"), .n = 2, .ended = 0, .fate = CAND_NAN, .dup_of = -1, .fwd = -9, .bwd = NAN, .n_source = 3, .score = NAN },
    };
    reply        r = { .kind = REPLY_MODEL, .user_text = STR("u"), .n = 5, .cand = c, .chosen = 3 };
    respond_opts o = respond_defaults();
    why_choice   by[WHY_CHOICES];
    static const struct {
        const char *name;
        int         chosen;
    } wants[] = { { "mmi", 3 }, { "bidi", 2 }, { "sampled", 1 }, { "forward", 1 }, { "none", 1 }, { "likeliest", 2 } };
    o.mode            = MODE_MMI;
    o.lambda          = 0.5f;
    o.mmi_temperature = 1000; /* nearly even: the seed picks */
    int n             = why_choices(&r, &o, by, &mem, &e);
    assert_int_equal(n, 6);
    for (int i = 0; i < n; i++) {
        assert_string_equal(by[i].name, wants[i].name);
        if (i != 2) assert_int_equal(by[i].chosen, wants[i].chosen);
        else assert_true(by[i].chosen >= 1 && by[i].chosen <= 3);
    }
    assert_int_equal(c[4].fate, CAND_NAN); /* the record is not touched */
    o.mode = MODE_FORWARD;
    for (int k = 0; k < 5; k++) c[k].bwd = NAN;
    n = why_choices(&r, &o, by, &mem, &e);
    assert_int_equal(n, 3);
    assert_string_equal(by[0].name, "forward");
    for (int k = 0; k < 5; k++) c[k].fate = CAND_BLOCKED;
    assert_int_equal(why_choices(&r, &o, by, &mem, &e), 3);
    for (int i = 0; i < 3; i++) assert_int_equal(by[i].chosen, -1);
}

/* Another model, no models at all, forgotten words: said, not shown as if it were true. */
static void what_is_not_recomputed(void **s)
{
    (void)s;
    history   *h = open_new(in_dir("not.db"));
    responder *r, *other;
    int64_t    id[9], conv;
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    OKAY(responder_new(&other, fwd, NULL, rules, &e));
    conv           = make_talk(h, r, id);
    audit_models m = { other, rules };
    why          w = ask(h, id[1], &m, -1, 3);
    assert_int_equal(w.again.result, AUDIT_NOT_COMPARABLE);
    assert_non_null(strstr(w.again.what, "backward model"));
    assert_int_equal(w.n_step, 0);
    assert_true(w.n_by > 0);
    w = ask(h, id[1], NULL, -1, 3);
    assert_int_equal(w.again.result, AUDIT_NOT_COMPARABLE);
    assert_true(w.n_by > 0 && w.n_step == 0);
    OKAY(hist_forget(h, conv, 1, STR("x"), NULL, &e));
    m.r = r;
    w   = ask(h, id[1], &m, -1, 3);
    assert_non_null(strstr(w.again.what, "forgotten"));
    assert_int_equal(w.n_by + w.n_step, 0);
    responder_free(other);
    responder_free(r);
    hist_close(h);
}

/* A record in which another token was written: the steps stop where they leave it. */
static void a_false_record_shows(void **s)
{
    (void)s;
    const char *path = in_dir("false.db");
    history    *h    = open_new(path);
    responder  *r;
    int64_t     id[9];
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    make_talk(h, r, id);
    audit_models m = { r, rules };
    why          w = ask(h, id[1], &m, -1, 3);
    int          k = w.candidate;
    assert_true(w.agree && w.n_step >= 3);
    hist_close(h);
    buf hex = { 0 };
    for (int i = 0; i < w.x.r.cand[k].n; i++) buf_fmt(&hex, "%02x000000", w.x.r.cand[k].id[i] ^ (i == 0));
    assert_int_equal(raw(path, "UPDATE candidate SET ids=X'%s' WHERE turn=%lld AND k=%d", hex.s, (long long)id[1], k), 1);
    buf_free(&hex);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    w = ask(h, id[1], &m, -1, 3);
    assert_int_equal(w.again.result, AUDIT_DIFFERENT);
    assert_non_null(strstr(w.again.what, "tokens"));
    assert_false(w.agree);
    assert_int_equal(w.n_step, 1);
    responder_free(r);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_make_the_reply),
        cmocka_unit_test(choices_are_true),
        cmocka_unit_test(what_is_not_recomputed),
        cmocka_unit_test(a_false_record_shows),
    };
    return cmocka_run_group_tests_name("why", tests, make_world, drop_world);
}
