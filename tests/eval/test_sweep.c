/* sweep: its plan, and that a point ranked from a drawing is what respond() says when it is asked with the point's own options. */
#include "tests/dialog/records.h"
#include "tests/eval/tiny.h"

#include "eval/batch.h"
#include "eval/sweep.h"

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n你\n好\n我\n是\n谁\n吗\n的\n天\n气\n很\n不\n错\n吃\n饭\n了\n";
static gpt2   *fwd, *bwd;
static testset set;

static int make_world(void **s)
{
    (void)s;
    buf b = { 0 };
    fwd = tiny_model("fwd.gguf", vocab, 48, 1, 32, 1, ROLE_FORWARD);
    bwd = tiny_model("bwd.gguf", vocab, 48, 1, 32, 2, ROLE_BACKWARD);
    for (int i = 0; i < 12; i++) buf_fmt(&b, "{\"history\": [\"你好吗\"], \"text\": \"%s\", \"reference\": \"很好\"}\n", i == 4 ? "" : i % 2 ? "天气很好" : "你是谁");
    spit(in_dir("set.jsonl"), b.s, b.n);
    buf_free(&b);
    OKAY(testset_read(&set, in_dir("set.jsonl"), &e));
    return 0;
}
static int drop_world(void **s)
{
    testset_free(&set);
    gpt2_close(fwd);
    gpt2_close(bwd);
    return drop_folder(s);
}

static sweep_grid grid_of(int full)
{
    sweep_grid g = { .base = respond_defaults(), .lambda = { 0, 0.5f, 1 }, .n_lambda = 3, .n = { 1, 3, 6 }, .n_n = 3, .mode = { MODE_BIDI, MODE_FORWARD, MODE_MMI, MODE_SAMPLED, MODE_JOINT, MODE_NONE },
                     .n_mode = 6, .temperature = { 0.5f, 1 }, .n_temperature = 2, .full = full };
    g.base.n_cand  = 3;
    g.base.max_new = 6;
    g.base.seed    = 5;
    return g;
}

static void plans(void **state)
{
    (void)state;
    arena      a = { 0 };
    sweep_plan p;
    sweep_grid g = grid_of(0);
    OKAY(sweep_plan_new(&g, &a, &p, &e));
    /* Five modes without lambda: N 1 3 6 at the crossing's temperature, and T 1: 4 each; bidi: those and lambda 0, 0.5, 1 beside its own 0.7. */
    assert_int_equal(p.n, 5 * 4 + 7);
    assert_string_equal(p.point[0].name, "forward n=3 t=0.5");
    assert_int_equal(p.n_drawing, 4); /* two temperatures, and joint's own two */
    for (int k = 0; k < p.n_drawing; k++) assert_int_equal(p.drawing[k].o.n_cand, p.drawing[k].o.temperature == 0.5f ? 6 : 3);
    for (int i = 0; i < p.n; i++) {
        const sweep_drawing *d = &p.drawing[p.point[i].drawing];
        assert_true(d->o.temperature == p.point[i].o.temperature && d->o.n_cand >= p.point[i].o.n_cand && d->o.seed == 5);
        assert_int_equal(d->o.mode, p.point[i].o.mode == MODE_JOINT ? MODE_JOINT : MODE_SAMPLED);
        for (int k = 0; k < i; k++) assert_string_not_equal(p.point[i].name, p.point[k].name);
    }
    g = grid_of(1);
    OKAY(sweep_plan_new(&g, &a, &p, &e));
    assert_int_equal(p.n, 5 * 3 * 2 + 4 * 3 * 2);
    g.n_mode  = 1;
    g.mode[0] = g.base.mode = MODE_FORWARD; /* no backward model is needed then */
    OKAY(sweep_plan_new(&g, &a, &p, &e));
    assert_true(p.n == 6 && p.n_drawing == 2 && p.drawing[0].o.mode == MODE_FORWARD);
    g.lambda[0] = 2;
    g.mode[0] = g.base.mode = MODE_BIDI;
    assert_int_equal(sweep_plan_new(&g, &a, &p, &e), E_ARG);
    arena_free(&a);
}

/* Every point against a batch of its own. */
static void choices(void **state)
{
    (void)state;
    arena      a = { 0 };
    sweep_plan p;
    sweep_grid g = grid_of(1);
    responder *r;
    json_t    *drawn[8], *own;
    reply      stock;
    int        differ = 0;
    OKAY(sweep_plan_new(&g, &a, &p, &e));
    OKAY(responder_new(&r, fwd, bwd, NULL, &e));
    OKAY(respond(r, NULL, 0, STR(""), &g.base, &a, &stock, &e));
    for (int k = 0; k < p.n_drawing; k++) {
        char name[80];
        snprintf(name, sizeof name, "%s.jsonl", p.drawing[k].name);
        OKAY(batch_generate(&r, 1, 0, &set, &p.drawing[k].o, in_dir(name), NULL, NULL, &e));
        OKAY(batch_read(in_dir(name), set.n, &drawn[k], &e));
    }
    for (int i = 0; i < p.n; i++) {
        char name[32];
        snprintf(name, sizeof name, "own%d.jsonl", i);
        OKAY(batch_generate(&r, 1, 0, &set, &p.point[i].o, in_dir(name), NULL, NULL, &e));
        OKAY(batch_read(in_dir(name), set.n, &own, &e));
        for (int k = 0; k < set.n; k++) {
            sweep_reply x;
            OKAY(sweep_choose(json_array_get(drawn[p.point[i].drawing], (size_t)k), k, &p.point[i].o, stock.text, &a, &x, &e));
            if (!str_eq(x.text, batch_reply(own, k))) fail_msg("%s, item %d: '%.*s' and '%.*s'", p.point[i].name, k, (int)x.text.n, x.text.s, (int)batch_reply(own, k).n, batch_reply(own, k).s);
            assert_int_equal(x.chosen, json_integer_value(json_object_get(json_array_get(own, (size_t)k), "chosen")));
            differ += x.chosen > 0;
        }
        json_decref(own);
    }
    assert_true(differ > 100); /* the points do choose */
    sweep_reply x;
    respond_opts many = g.base;
    many.n_cand = 7;
    assert_int_equal(sweep_choose(json_array_get(drawn[0], 0), 0, &many, stock.text, &a, &x, &e), E_ARG);
    json_t *bad = json_pack("{s:s, s:s, s:[{s:s}]}", "kind", "model", "reply", "x", "candidates", "fate", "good");
    many.n_cand = 1;
    assert_int_equal(sweep_choose(bad, 0, &many, stock.text, &a, &x, &e), E_FORMAT);
    json_decref(bad);
    for (int k = 0; k < p.n_drawing; k++) json_decref(drawn[k]);
    responder_free(r);
    arena_free(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(plans), cmocka_unit_test(choices) };
    if (make_folder()) return 1;
    return cmocka_run_group_tests(tests, make_world, drop_world);
}
