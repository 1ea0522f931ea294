/* audit: a true record replays to the bit, with two small random models and real rules; every single change of what comes out
 * is seen and named; what cannot be compared is said to be so, not passed. */
#include "tests/eval/world.h"

#include "eval/audit.h"
#include "models/linear.h"

#include <omp.h>

static audit_result replay(history *h, int64_t id, const audit_machine *m)
{
    audit_result x;
    arena        a = { 0 };
    OKAY(audit_replay(h, id, m, &a, &x, &e));
    arena_free(&a);
    assert_int_equal(x.turn, id);
    assert_true((x.result == AUDIT_IDENTICAL) == (x.what[0] == 0));
    return x;
}
static void wants(history *h, int64_t id, const audit_machine *m, int result, const char *word)
{
    audit_result x = replay(h, id, m);
    if (x.result != result || !strstr(x.what, word))
        fail_msg("%s (%s), wanted %s with '%s'", audit_result_name(x.result), x.what, audit_result_name(result), word);
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void a_true_record_replays(void **s)
{
    (void)s;
    history   *h = open_new(in_dir("true.db"));
    responder *r, *fresh;
    int64_t    id[9];
    OKAY(responder_new(&r, fwd, bwd, rules, &e));
    make_talk(h, r, id);
    hist_close(h);
    OKAY(hist_open(&h, in_dir("true.db"), HIST_READ, &e));
    exchange x;
    OKAY(hist_exchange(h, id[2], &mem, &x, &e));
    assert_int_equal(x.r.kind, REPLY_REFUSED);
    OKAY(hist_exchange(h, id[3], &mem, &x, &e));
    assert_int_equal(x.r.user_v.action, RULE_REDACT);
    OKAY(hist_exchange(h, id[8], &mem, &x, &e));
    assert_int_equal(x.r.kind, REPLY_STOCK);
    /* another responder, other threads, backwards: no state carries over */
    OKAY(responder_new(&fresh, fwd, bwd, rules, &e));
    audit_models  am = { fresh, rules };
    audit_machine m  = audit_machine_of(&am);
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        for (int i = 8; i >= 1; i--)
            if (i != 5) wants(h, id[i], &m, AUDIT_IDENTICAL, "");
    }
    audit_result x5;
    assert_int_equal(audit_replay(h, id[4] + 1, &m, &mem, &x5, &e), E_ARG); /* the undo row */
    responder_free(fresh);
    responder_free(r);
    hist_close(h);
}

/* A machine that answers truly and then bends one thing. */
enum { B_NONE, B_KIND, B_CHOSEN, B_PROMPT, B_TEXT, B_REPLY_IDS, B_CUT, B_VERDICT, B_COUNT, B_IDS, B_CTEXT, B_ENDED, B_FATE, B_DUP, B_FWD, B_BWD, B_SOURCE,
       B_SCORE, B_CVERDICT, B_FAIL, B_NUMERICS, B_ALL };
typedef struct {
    audit_models  real;
    audit_machine m;
    int           bend, at; /* at: the candidate */
    double        shift;    /* of a score, in given() */
    int           given_bend;
    responder    *other;    /* that answers in given() */
} bender;

static int bent_respond(void *ctx, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *er)
{
    bender *b = ctx;
    int     r = respond(b->real.r, hist, n, user, o, a, out, er);
    if (r) return r;
    candidate *c  = out->n ? &out->cand[b->at] : NULL;
    int       *id = arena_new(a, 64, sizeof *id);
    switch (b->bend) {
    case B_KIND: out->kind = REPLY_STOCK; break;
    case B_CHOSEN: out->chosen = (out->chosen + 1) % out->n; break;
    case B_PROMPT: out->prompt_digest[5] ^= 1; break;
    case B_TEXT: out->text.n--; break;
    case B_REPLY_IDS: out->n_id--; break;
    case B_CUT: out->cut++; break;
    case B_VERDICT: out->user_v.action++; break;
    case B_COUNT: out->n--; break;
    case B_IDS:
        memcpy(id, c->id, (size_t)c->n * sizeof *id);
        id[0] ^= 1;
        c->id = id;
        break;
    case B_CTEXT: c->text = STR("x"); break;
    case B_ENDED: c->ended ^= 1; break;
    case B_FATE: c->fate ^= 1; break;
    case B_DUP: c->dup_of++; break;
    case B_FWD: c->fwd = nextafter(c->fwd, 0); break; /* one bit */
    case B_BWD: c->bwd = nextafter(c->bwd, 0); break;
    case B_SOURCE: c->n_source++; break;
    case B_SCORE: c->score = nextafter(c->score, 0); break;
    case B_CVERDICT: c->v.rule++; break;
    case B_FAIL: return err_set(er, E_LIMIT, "no reply today");
    case B_NUMERICS:
        out->numerics = "another arithmetic";
        if (out->n) out->cand[0].fwd += 1, out->chosen = 0; /* may differ then: other draws */
        break;
    default: break;
    }
    return OK;
}
static int bent_given(void *ctx, const turn *hist, int n, str user, const respond_opts *o, const candidate *cand, arena *a, reply *out, err *er)
{
    bender *b = ctx;
    int     r = respond_given(b->other ? b->other : b->real.r, hist, n, user, o, cand, a, out, er);
    if (r || !out->n) return r;
    if (b->shift != 0) out->cand[b->at].fwd += b->shift;
    if (b->given_bend == B_CTEXT) out->cand[b->at].text = STR("x");
    if (b->given_bend == B_CVERDICT) out->cand[b->at].v.rule++;
    if (b->given_bend == B_FATE) out->cand[b->at].fate ^= 1;
    if (b->given_bend == B_PROMPT) out->prompt_digest[5] ^= 1;
    return OK;
}
static int bent_redacts(void *ctx, int rule) { return safety_rule_at(((bender *)ctx)->real.rules, rule)->action == RULE_REDACT; }

static void bender_open(bender *b)
{
    *b = (bender){ .real.rules = rules };
    OKAY(responder_new(&b->real.r, fwd, bwd, rules, &e));
    b->m         = audit_machine_of(&b->real);
    b->m.ctx     = b;
    b->m.respond = bent_respond;
    b->m.given   = bent_given;
    b->m.redacts = bent_redacts;
}

static void every_difference_is_seen(void **s)
{
    (void)s;
    static const char *const named[B_ALL] = { "", "stock line", "was chosen", "prompt", "reply text", "reply tokens", "cut", "verdict on", "there were", "tokens",
                                              "text", "end", "fate", "dup_of", "fwd", "bwd", "n_source", "score", "verdict", "no reply today" };
    history *h = open_new(in_dir("bent.db"));
    bender   b;
    int64_t  id[9];
    exchange x;
    bender_open(&b);
    make_talk(h, b.real.r, id);
    OKAY(hist_exchange(h, id[1], &mem, &x, &e));
    assert_true(x.r.chosen >= 0 && x.r.cand[x.r.chosen].n > 0);
    b.at = x.r.chosen; /* one that has all the numbers */
    for (b.bend = B_NONE; b.bend < B_NUMERICS; b.bend++) wants(h, id[1], &b.m, b.bend ? AUDIT_DIFFERENT : AUDIT_IDENTICAL, named[b.bend]);
    b.bend = B_FWD; /* the last candidate counts as much as the first */
    b.at   = x.r.n - 1;
    wants(h, id[1], &b.m, AUDIT_DIFFERENT, "candidate 7: fwd");
    b.bend = B_KIND;
    wants(h, id[2], &b.m, AUDIT_DIFFERENT, "it was refused");
    b.bend = B_VERDICT; /* of a redacted line the raw one is not there: its verdict is not compared */
    wants(h, id[3], &b.m, AUDIT_IDENTICAL, "");
    responder_free(b.real.r);
    hist_close(h);
}

static void other_arithmetic_is_scored_again(void **s)
{
    (void)s;
    history *h = open_new(in_dir("arith.db"));
    bender   b;
    int64_t  id[9];
    exchange x;
    bender_open(&b);
    make_talk(h, b.real.r, id);
    b.bend = B_NUMERICS;
    OKAY(hist_exchange(h, id[1], &mem, &x, &e));
    for (b.at = 0; x.r.cand[b.at].fate != CAND_OK; b.at++) {} /* one that is scored */
    for (int i = 1; i <= 7; i++) {
        if (i == 2 || i == 5) continue;
        b.shift        = 0;
        audit_result a = replay(h, id[i], &b.m);
        assert_int_equal(a.result, AUDIT_WITHIN);
        assert_true(a.n_compared > 0);
        /* The same arithmetic in truth, but other batches: respond() scores what it draws step by step, respond_given all at
         * once.  Row-invariant, so no bit differs. */
        assert_true(a.max_dlogp == 0);
    }
    b.shift = 0.009; /* the tolerance is 0.01 */
    wants(h, id[1], &b.m, AUDIT_WITHIN, "another arithmetic");
    b.shift = 0.011;
    wants(h, id[1], &b.m, AUDIT_DIFFERENT, "another arithmetic");
    b.m.tolerance = 0.02;
    wants(h, id[1], &b.m, AUDIT_WITHIN, "another arithmetic");
    wants(h, id[2], &b.m, AUDIT_IDENTICAL, ""); /* a refusal needs no arithmetic */
    wants(h, id[8], &b.m, AUDIT_NOT_COMPARABLE, "no scores");
    /* What is no score has no tolerance. */
    static const int         bends[] = { B_CTEXT, B_CVERDICT, B_FATE, B_PROMPT };
    static const char *const words[] = { "text", "verdict", "fate", "prompt" };
    b.shift                          = 0;
    for (int i = 0; i < 4; i++) {
        b.given_bend = bends[i];
        wants(h, id[1], &b.m, AUDIT_DIFFERENT, words[i]);
    }
    responder_free(b.real.r);
    hist_close(h);
}

/* A record whose hashes are right again (here: nobody looks at them) but that says another thing was chosen, or said. */
static void a_false_choice_is_seen(void **s)
{
    (void)s;
    static const char *const lies[] = { "UPDATE turn SET chosen=(chosen+1)%%8 WHERE id=%lld", "UPDATE turn SET reply_text='我很好' WHERE id=%lld",
                                        "UPDATE candidate SET score=score+0.005 WHERE turn=%lld AND k=(SELECT chosen FROM turn WHERE id=turn)" };
    for (int i = 0; i < 3; i++) {
        const char *path = in_dir("lie.db");
        history    *h    = open_new(path);
        bender      b;
        int64_t     id[9];
        bender_open(&b);
        make_talk(h, b.real.r, id);
        hist_close(h);
        assert_int_equal(raw(path, lies[i], (long long)id[1]), 1);
        OKAY(hist_open(&h, path, HIST_READ, &e));
        wants(h, id[1], &b.m, AUDIT_DIFFERENT, i == 2 ? "score" : "");
        b.bend = B_NUMERICS;
        /* A score that lies within the tolerance is not what mode mmi ranks by, bwd; the ranking makes it anew and sees nothing. */
        wants(h, id[1], &b.m, i == 2 ? AUDIT_WITHIN : AUDIT_DIFFERENT, "arithmetic");
        b.m.tolerance = 0.004;
        wants(h, id[1], &b.m, AUDIT_DIFFERENT, "arithmetic");
        responder_free(b.real.r);
        hist_close(h);
    }
}

/* Arithmetic that really differs: the same weights through half precision.  And none that does: the paths of this processor. */
static gpt2 *half(const char *from, const char *name)
{
    gguf        *g;
    gpt2_config  c;
    gpt2_meta    meta;
    gpt2_tensor *list;
    tokenizer   *t;
    gpt2        *m;
    size_t       n;
    OKAY(gguf_open(&g, from, &e));
    OKAY(gpt2_read_config(g, &c, &e));
    OKAY(tokenizer_from_gguf(&t, g, &e));
    OKAY(gpt2_read_meta(g, t, &meta, &e));
    int          n_t   = gpt2_tensors(&c, &list, &n, &e);
    float       *slab  = calloc(n, sizeof *slab);
    int         *types = calloc((size_t)n_t, sizeof *types);
    OKAY(gpt2_read_slab(g, &c, slab, &e));
    for (int i = 0; i < n_t; i++) types[i] = list[i].vector || strstr(list[i].hf, "wpe") ? GT_F32 : GT_F16;
    OKAY(gpt2_save(in_dir(name), &c, slab, t, &meta, types, &e));
    OKAY(gpt2_open(&m, in_dir(name), &e));
    free(types);
    free(slab);
    free(list);
    tokenizer_close(t);
    gguf_close(g);
    return m;
}

static void paths_and_precisions(void **s)
{
    (void)s;
    history *h = open_new(in_dir("paths.db"));
    bender   b;
    int64_t  id[9];
    double   most = 0;
    bender_open(&b);
    make_talk(h, b.real.r, id);
    for (int path = LINEAR_C; path < LINEAR_BEST; path++) {
        if (linear_force_path(path)) continue; /* not on this processor */
        for (int i = 1; i <= 8; i++)
            if (i != 5) wants(h, id[i], &b.m, AUDIT_IDENTICAL, "");
    }
    assert_int_equal(linear_force_path(LINEAR_BEST), OK);

    gpt2 *f = half(in_dir("fwd.gguf"), "fwd16.gguf"), *w = half(in_dir("bwd.gguf"), "bwd16.gguf");
    OKAY(responder_new(&b.other, f, w, rules, &e));
    b.bend        = B_NUMERICS;
    b.m.tolerance = 1;
    for (int i = 1; i <= 7; i++) {
        if (i == 2 || i == 5) continue;
        audit_result x = replay(h, id[i], &b.m);
        assert_int_equal(x.result, AUDIT_WITHIN);
        if (x.max_dlogp > most) most = x.max_dlogp;
        assert_true(x.max_dlogp > 0);
        b.m.tolerance = x.max_dlogp * .99;
        wants(h, id[i], &b.m, AUDIT_DIFFERENT, "candidate");
        b.m.tolerance = 1;
    }
    assert_true(most < 0.3); /* 0.5-sized weights, eight tokens: relative steps of 2^-11 */
    responder_free(b.other);
    gpt2_close(f);
    gpt2_close(w);
    responder_free(b.real.r);
    hist_close(h);
}

static void what_cannot_be_compared(void **s)
{
    (void)s;
    history *h = open_new(in_dir("cannot.db")), *other;
    bender   b;
    int64_t  id[9], stale, blocked;
    turn    *t;
    int      n;
    bender_open(&b);
    int64_t       conv = make_talk(h, b.real.r, id);
    audit_machine m    = b.m;
    m.fwd = "f00";
    wants(h, id[1], &m, AUDIT_NOT_COMPARABLE, "forward model");
    m     = b.m;
    m.bwd = "";
    wants(h, id[1], &m, AUDIT_NOT_COMPARABLE, "backward model");
    m       = b.m;
    m.rules = "x";
    wants(h, id[1], &m, AUDIT_NOT_COMPARABLE, "rules");
    /* A line that was redacted and blocked: what was blocked may be what is gone. */
    respond_opts o = respond_defaults();
    o.n_cand       = 2;
    blocked        = talk(h, b.real.r, conv, "谁看电影", &o);
    exchange x;
    OKAY(hist_exchange(h, blocked, &mem, &x, &e));
    assert_int_equal(x.r.kind, REPLY_REFUSED);
    wants(h, blocked, &b.m, AUDIT_IDENTICAL, ""); /* here it is still there */
    /* Two programs in one conversation. */
    OKAY(hist_turns(h, conv, 0, &mem, &t, &n, &e));
    OKAY(hist_open(&other, in_dir("cannot.db"), HIST_WRITE, &e));
    talk(other, b.real.r, conv, "你好", &o);
    hist_close(other);
    reply rep;
    OKAY(respond(b.real.r, t, n, STR("我很好"), &o, &mem, &rep, &e));
    OKAY(hist_append(h, conv, &rep, &o, STR("x"), 0, &stale, &e));
    wants(h, stale, &b.m, AUDIT_NOT_COMPARABLE, "another program");
    /* Forgetting. */
    OKAY(hist_forget(h, conv, 1, STR("x"), NULL, &e));
    wants(h, id[1], &b.m, AUDIT_NOT_COMPARABLE, "forgotten");
    wants(h, id[3], &b.m, AUDIT_NOT_COMPARABLE, "words before it");
    responder_free(b.real.r);
    hist_close(h);
}

static void faults_are_listed(void **s)
{
    (void)s;
    const char  *path = in_dir("faults.db");
    history     *h;
    audit_fault *f;
    int          n;
    int64_t      rows;
    make_record(path);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    OKAY(audit_verify(h, &mem, &f, &n, &rows, &e));
    assert_int_equal(n, 0);
    assert_int_equal(rows, 3 * 5 + 1);
    hist_close(h);
    assert_int_equal(raw(path, "UPDATE turn SET reply_text='x' WHERE conv=1 AND n=2; UPDATE turn SET seed=1 WHERE conv=3 AND n=5"), 2);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    OKAY(audit_verify(h, &mem, &f, &n, &rows, &e));
    assert_int_equal(n, 2);
    assert_int_equal(f[0].conv, 1);
    assert_int_equal(f[1].conv, 3);
    assert_int_equal(rows, 1 + 5 + 4);
    assert_non_null(strstr(f[0].what.s, "digest"));
    hist_close(h);
    make_record(path);
    assert_int_equal(raw(path, "INSERT INTO hit VALUES(999,0,0,0,0,0,0)"), 1);
    OKAY(hist_open(&h, path, HIST_READ, &e));
    OKAY(audit_verify(h, &mem, &f, &n, &rows, &e));
    assert_int_equal(n, 1);
    assert_int_equal(f[0].conv, 0);
    assert_int_equal(f[0].turn, -1);
    hist_close(h);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_true_record_replays),
        cmocka_unit_test(every_difference_is_seen),
        cmocka_unit_test(other_arithmetic_is_scored_again),
        cmocka_unit_test(a_false_choice_is_seen),
        cmocka_unit_test(paths_and_precisions),
        cmocka_unit_test(what_cannot_be_compared),
        cmocka_unit_test(faults_are_listed),
    };
    return cmocka_run_group_tests_name("audit", tests, make_world, drop_world);
}
