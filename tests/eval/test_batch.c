/* testset, rank, batch: what is read is what is written there; the place of the true reply; the same bytes of a batch with one worker and with
 * three, and after being killed anywhere. */
#include "tests/dialog/records.h"
#include "tests/eval/tiny.h"

#include "eval/batch.h"
#include "eval/doubt.h"
#include "eval/rank.h"
#include "eval/tokenise.h"

static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n你\n好\n我\n是\n谁\n吗\n的\n天\n气\n很\n不\n错\n吃\n饭\n了\n想\n去\n看\n电\n影\n";
static gpt2   *fwd, *bwd;
static testset set;

/* Thirteen items, one with an empty line to answer, one with a reference longer than the context. */
static int make_world(void **s)
{
    (void)s;
    buf         b    = { 0 };
    const char *path = in_dir("set.jsonl");
    fwd = tiny_model("fwd.gguf", vocab, 48, 1, 32, 1, ROLE_FORWARD);
    bwd = tiny_model("bwd.gguf", vocab, 48, 1, 32, 2, ROLE_BACKWARD);
    for (int i = 0; i < 12; i++) buf_fmt(&b, "{\"history\": [\"你好吗\"], \"text\": \"%s\", \"references\": [\"我想去看电影%d\", \"好\"]}\n", i == 4 ? "" : i % 2 ? "天气很好" : "你是谁", i);
    buf_str(&b, STR("{\"text\": \"吃饭了吗\", \"reference\": \""));
    for (int i = 0; i < 60; i++) buf_str(&b, STR("好"));
    buf_str(&b, STR("\"}\n\n"));
    spit(path, b.s, b.n);
    buf_free(&b);
    OKAY(testset_read(&set, path, &e));
    return 0;
}
static int drop_world(void **s)
{
    testset_free(&set);
    gpt2_close(fwd);
    gpt2_close(bwd);
    return drop_folder(s);
}

/* ---- test sets -------------------------------------------------------------------------------------------------- */

static void sets(void **state)
{
    (void)state;
    testset t;
    assert_int_equal(set.n, 13);
    assert_true(set.item[0].n_turn == 2 && set.item[0].n_ref == 2 && str_eq(set.item[0].turn[1], STR("你是谁")) && str_eq(set.item[3].ref[0], STR("我想去看电影3")));
    assert_true(set.item[4].turn[1].n == 0 && set.item[12].n_turn == 1 && set.item[12].n_ref == 1);
    str *ref;
    int *at;
    OKAY(testset_references(&set, &ref, &at, &e));
    assert_true(at[13] == 25 && str_eq(ref[at[5] + 1], STR("好")));
    free(ref);
    free(at);

    static const char tsv[] = "0.0 a b EOS 1.0 c\t1.0 d e\tf\nx\ty\n", text[] = "a\nb\nc\n\nd\ne\n";
    spit(in_dir("s.tsv"), tsv, sizeof tsv - 1);
    OKAY(testset_read(&t, in_dir("s.tsv"), &e));
    assert_true(t.n == 2 && t.item[0].n_turn == 2 && t.item[0].n_ref == 2 && str_eq(t.item[0].turn[0], STR("a b")) && str_eq(t.item[0].ref[1], STR("f")));
    testset_free(&t);
    spit(in_dir("s.txt"), text, sizeof text - 1);
    OKAY(testset_read(&t, in_dir("s.txt"), &e));
    assert_true(t.n == 2 && t.item[0].n_turn == 2 && str_eq(t.item[0].ref[0], STR("c")) && str_eq(t.item[1].turn[0], STR("d")));
    testset_free(&t);

    static const char refs[] = "k1\t2|so let em\tsubbed .\t-1.5|a | b\nk2\tc|d\n";
    spit(in_dir("s.refs.txt"), refs, sizeof refs - 1);
    OKAY(testset_read(&t, in_dir("s.refs.txt"), &e));
    assert_true(t.keyed && t.n == 2 && t.item[0].n_turn == 1 && t.item[0].n_ref == 3 && str_eq(t.item[0].turn[0], STR("k1")) && str_eq(t.item[0].ref[0], STR("so let em")));
    assert_true(str_eq(t.item[0].ref[1], STR("subbed .")) && str_eq(t.item[0].ref[2], STR("a | b")) && str_eq(t.item[1].ref[0], STR("c|d")));
    testset_free(&t);

    static const struct { const char *name, *text, *says; } bad[] = {
        { "b.refs.txt", "k1\ta\nk2\n", ":2: no tab" },
        { "b.refs.txt", "k1\t1|\n", ":1: a reference is empty" },
        { "b.jsonl", "{\"text\": \"a\"}\n{\"text\": 5}\n", ":2: \"text\" is no string" },
        { "b.jsonl", "{\"text\": \"a\", \"references\": [\"b\", 1]}\n", ":1: a reference is no string" },
        { "b.jsonl", "{\"text\": \"a\", \"history\": \"b\"}\n", "\"history\" is no array" },
        { "b.jsonl", "{\"text\": \n", ":1: not JSON" },
        { "b.tsv", "a b\n", ":1: no tab" },
        { "b.txt", "a\nb\n\nc\n", ":4: a dialogue of one turn" },
        { "b.jsonl", "\n", "no test items" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        spit(in_dir(bad[i].name), bad[i].text, strlen(bad[i].text));
        assert_true(testset_read(&t, in_dir(bad[i].name), &e) < 0);
        if (!strstr(e.msg, bad[i].says)) fail_msg("%s: wanted %s", e.msg, bad[i].says);
    }
}

static void systems(void **state)
{
    (void)state;
    arena       a = { 0 };
    system_spec s;
    static const char good[] = "# forward alone\nforward: m.gguf\n options :  mode=forward n=3 seed=9 \n", other[] = "name: people\nreplies: /x/y.txt\n";
    spit(in_dir("greedy.run.txt"), good, sizeof good - 1);
    OKAY(system_read(&s, in_dir("greedy.run.txt"), &a, &e));
    assert_true(str_eq(s.name, STR("greedy.run")) && strcmp(s.forward, in_dir("m.gguf")) == 0 && !s.backward && !s.replies && s.opts.mode == MODE_FORWARD && s.opts.n_cand == 3);
    spit(in_dir("o"), other, sizeof other - 1);
    OKAY(system_read(&s, in_dir("o"), &a, &e));
    assert_true(str_eq(s.name, STR("people")) && strcmp(s.replies, "/x/y.txt") == 0);
    static const char *const bad[][2] = {
        { "forward: a\nreplies: b\n", "wanted either" }, { "name: a\n", "wanted either" }, { "name: ../a\n", "o:1: a name is" }, { "forward: a\nmodel: b\n", "o:2: no setting 'model'" },
        { "forward: a\noptions: n=0\n", "o:2: option n is 0" }, { "hello\n", "o:1: 'hello' is no" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        spit(in_dir("o"), bad[i][0], strlen(bad[i][0]));
        assert_true(system_read(&s, in_dir("o"), &a, &e) < 0);
        if (!strstr(e.msg, bad[i][1])) fail_msg("%s: wanted %s", e.msg, bad[i][1]);
    }
    arena_free(&a);
}

/* ---- rank ------------------------------------------------------------------------------------------------------- */

static void ranking(void **state)
{
    (void)state;
    candidate c[4] = { { .score = 2 }, { .score = 1 }, { .score = 3 }, { .score = 2 } };
    assert_int_equal(rank_place(c, 4), 3); /* one better, one as good */
    c[2].score = NAN;
    assert_int_equal(rank_place(c, 4), 2);
    c[0].score = NAN;
    assert_int_equal(rank_place(c, 4), 4);
    int         place[] = { 1, 0, 2, 0, 6, 0, 1, 0 };
    rank_scores s       = rank_summary(place, 4, 2);
    assert_float_equal(s.hits1, 0.5, 1e-12);
    assert_float_equal(s.hits5, 0.75, 1e-12);
    assert_float_equal(s.mrr, (1 + 0.5 + 1 / 6.0 + 1) / 4, 1e-12);
    double lo, hi;
    doubt_wilson(8, 10, &lo, &hi);
    assert_true(fabs(lo - 0.4901625) < 1e-6 && fabs(hi - 0.9433178) < 1e-6); /* Newcombe 1998's method 3 */
    doubt_wilson(0, 10, &lo, &hi);
    assert_true(lo == 0 && fabs(hi - 0.2775328) < 1e-6);

    str       text[13];
    rank_opts o = { .k = 6, .seed = 3 };
    OKAY(rank_candidates(&set, 2, &o, text, &e));
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < i; k++) assert_false(str_eq(text[i], text[k]));
    assert_true(str_eq(text[0], set.item[2].ref[0]));
    o.k = 14;
    assert_int_equal(rank_candidates(&set, 2, &o, (str[14]){ { 0 } }, &e), E_ARG);

    responder *r;
    arena      a = { 0 };
    int        p[RANK_MODES], q[RANK_MODES];
    respond_opts ro = respond_defaults();
    o.k = 5;
    OKAY(responder_new(&r, fwd, bwd, NULL, &e));
    OKAY(rank_item(r, &set, 12, &o, &ro, &a, p, &e)); /* its own reply is longer than half of the context */
    OKAY(rank_item(r, &set, 2, &o, &ro, &a, p, &e));
    OKAY(rank_item(r, &set, 2, &o, &ro, &a, q, &e));
    for (int m = 0; m < RANK_MODES; m++) assert_true(p[m] >= 1 && p[m] <= 5 && p[m] == q[m]);
    ro.lambda = 1; /* then bidi is mmi */
    OKAY(rank_item(r, &set, 2, &o, &ro, &a, q, &e));
    assert_true(q[RANK_BIDI] == p[RANK_MMI]);
    assert_int_equal(rank_item(r, &set, 4, &o, &ro, &a, q, &e), E_ARG);
    responder_free(r);
    arena_free(&a);
}

/* ---- batch ------------------------------------------------------------------------------------------------------ */

static str whole(const char *path, buf *b)
{
    OKAY(read_file(path, 1 << 24, b, &e));
    return buf_view(b);
}
static int count;
static int stop_after(void *ctx, int done, int total)
{
    assert_true(done <= total);
    return ctx && ++count >= *(int *)ctx;
}

static void batches(void **state)
{
    (void)state;
    respond_opts o = respond_defaults();
    responder   *r[3];
    buf          one = { 0 }, other = { 0 };
    json_t      *lines;
    o.n_cand = 3;
    o.max_new = 6;
    for (int i = 0; i < 3; i++) OKAY(responder_new(&r[i], fwd, bwd, NULL, &e));
    OKAY(batch_generate(r, 1, 0, &set, &o, in_dir("one.jsonl"), stop_after, NULL, &e));
    OKAY(batch_generate(r, 3, 0, &set, &o, in_dir("three.jsonl"), NULL, NULL, &e));
    whole(in_dir("one.jsonl"), &one);
    for (int together = 1; together <= 5; together += 2) { /* a few contexts side by side, or one after another */
        OKAY(batch_generate(r, 1 + together % 2, together, &set, &o, in_dir("some.jsonl"), NULL, NULL, &e));
        assert_true(str_eq(whole(in_dir("some.jsonl"), &other), buf_view(&one)));
        unlink(in_dir("some.jsonl"));
    }
    assert_int_equal(batch_generate(r, 1, 17, &set, &o, in_dir("some.jsonl"), NULL, NULL, &e), E_ARG);
    assert_true(str_eq(whole(in_dir("three.jsonl"), &other), buf_view(&one)));
    assert_int_equal(access(in_dir("one.jsonl.part"), F_OK), -1);

    OKAY(batch_read(in_dir("one.jsonl"), 13, &lines, &e));
    for (int i = 0; i < 13; i++) assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, (size_t)i), "item")), i);
    assert_string_equal(json_string_value(json_object_get(json_array_get(lines, 4), "kind")), "stock"); /* a line without words has its line */
    assert_true(batch_reply(lines, 4).n > 0);
    perplexities p;
    OKAY(batch_perplexities(lines, &set, TOKENISE_ZH, &p, &e));
    assert_true(p.token > 1 && p.item > 1 && p.character > 1 && p.word > 1 && isfinite(p.token + p.item));
    { /* the reference's log-prob is respond_score's */
        arena     a = { 0 };
        turn      t[2], ref;
        respond_opts f = o;
        f.mode = MODE_FORWARD;
        OKAY(respond_turn(r[0], set.item[0].turn[0], 0, &a, &t[0], &e));
        OKAY(respond_turn(r[0], set.item[0].turn[1], 0, &a, &t[1], &e));
        OKAY(respond_turn(r[0], set.item[0].ref[0], 1, &a, &ref, &e));
        candidate c = { .id = ref.id, .n = ref.n, .ended = 1, .fate = CAND_OK, .dup_of = -1 };
        OKAY(respond_score(r[0], t, 2, &c, 1, &f, &e));
        assert_true(json_number_value(json_object_get(json_object_get(json_array_get(lines, 0), "reference"), "logp")) == c.fwd);
        arena_free(&a);
    }
    json_decref(lines);
    assert_int_equal(batch_read(in_dir("one.jsonl"), 12, &lines, &e), E_FORMAT);

    for (int stop = 2; stop <= 4; stop++) { /* stopped (told at the start too), then cut inside a line as by kill -9, then another number of workers */
        count = 0;
        assert_int_equal(batch_generate(r, 1, 0, &set, &o, in_dir("cut.jsonl"), stop_after, &stop, &e), E_CANCEL);
        struct stat st;
        assert_int_equal(stat(in_dir("cut.jsonl.part"), &st), 0);
        assert_int_equal(truncate(in_dir("cut.jsonl.part"), st.st_size - 7 * stop), 0);
        OKAY(batch_generate(r, 2, 0, &set, &o, in_dir("cut.jsonl"), NULL, NULL, &e));
        assert_true(str_eq(whole(in_dir("cut.jsonl"), &other), buf_view(&one)));
        unlink(in_dir("cut.jsonl"));
    }
    o.seed = 2;
    assert_int_equal(batch_generate(r, 1, 0, &set, &o, in_dir("one.jsonl"), NULL, NULL, &e), E_ARG);
    assert_non_null(strstr(e.msg, "made with another set"));
    OKAY(batch_generate(r, 1, 0, &set, &o, in_dir("seed.jsonl"), NULL, NULL, &e));
    assert_false(str_eq(whole(in_dir("seed.jsonl"), &other), buf_view(&one)));
    for (int i = 0; i < 3; i++) responder_free(r[i]);
    buf_free(&one);
    buf_free(&other);
}

/* A vocabulary of the letters of the English stock line, c not among them: the item that needs it has a line that says so, and the others are answered. */
static void bad_item(void **state)
{
    (void)state;
    static const char words[] = "{\".\": 0, \"?\": 1, \"I\": 2, \"T\": 3, \"a\": 4, \"e\": 5, \"h\": 6, \"i\": 7, \"l\": 8, \"m\": 9, \"n\": 10, \"o\": 11, \"r\": 12, \"s\": 13, \"t\": 14, \"u\": 15, \"w\": 16, \"y\": 17, \"\xC4\xA0\": 18, \"<|endoftext|>\": 19}",
                      merges[] = "#version: 0.2\n",
                      items[] = "{\"text\": \"am\", \"reference\": \"a\"}\n{\"text\": \"mac\", \"reference\": \"m\"}\n{\"text\": \"t\", \"reference\": \"tc\"}\n{\"text\": \"ta\"}\n";
    tokenizer   *tok;
    gpt2_tensor *list;
    gpt2        *m;
    responder   *r;
    testset      t;
    json_t      *lines;
    size_t       n;
    respond_opts o = respond_defaults();
    spit(in_dir("vocab.json"), words, sizeof words - 1);
    spit(in_dir("merges.txt"), merges, sizeof merges - 1);
    spit(in_dir("bad.jsonl"), items, sizeof items - 1);
    OKAY(tokenizer_open_bpe(&tok, in_dir("vocab.json"), in_dir("merges.txt"), &e));
    gpt2_config c = { .n_vocab = 20, .n_ctx = 32, .n_embd = 16, .n_head = 2, .n_layer = 1, .n_inner = 32, .eps = 1e-5f, .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
    assert_true(gpt2_tensors(&c, &list, &n, &e) > 0);
    free(list);
    float *slab = calloc(n, sizeof *slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)(0.5 * rng_normal(3, 0, i));
    gpt2_meta meta = { .fmt = { FORMAT_DIALOGPT, -1, 19 }, .role = ROLE_FORWARD, .name = "ab" };
    OKAY(gpt2_save(in_dir("ab.gguf"), &c, slab, tok, &meta, NULL, &e));
    free(slab);
    tokenizer_close(tok);
    OKAY(gpt2_open(&m, in_dir("ab.gguf"), &e));
    OKAY(responder_new(&r, m, NULL, NULL, &e));
    OKAY(testset_read(&t, in_dir("bad.jsonl"), &e));
    o.n_cand = 2;
    o.lang   = 1;
    assert_int_equal(batch_generate(&r, 1, 0, &t, &o, in_dir("bad.out"), NULL, NULL, &e), E_ARG); /* mmi without a backward model is no fault of an item */
    o.mode = MODE_FORWARD;
    OKAY(batch_generate(&r, 1, 0, &t, &o, in_dir("bad.out"), NULL, NULL, &e));
    OKAY(batch_read(in_dir("bad.out"), 4, &lines, &e));
    for (size_t i = 0; i < 4; i++) {
        const json_t *line = json_array_get(lines, i), *why = json_object_get(line, "error");
        assert_int_equal(why != NULL, i == 1 || i == 2);
        assert_int_equal(strcmp(json_string_value(json_object_get(line, "kind")), "error") == 0, i == 1 || i == 2);
        assert_int_equal(json_is_null(json_object_get(line, "reference")), i > 0);
    }
    json_decref(lines);
    testset_free(&t);
    responder_free(r);
    gpt2_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sets), cmocka_unit_test(systems), cmocka_unit_test(ranking), cmocka_unit_test(batches), cmocka_unit_test(bad_item) };
    if (make_folder()) return 1;
    return cmocka_run_group_tests(tests, make_world, drop_world);
}
