/* dialogue: every reader, its borders and its errors; the ids of GPT2-chitchat and DialoGPT where those make no known mistake. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "models/tokenizer.h"
#include "tests/corpus/help.h"

static const read_opts defaults = { .readings = 10, .seed = 1 };

static int read_text(int type, str bytes, collector *c, read_counts *rc, int skip_bad, err *e)
{
    read_opts o = defaults;
    o.type      = type;
    o.skip_bad  = skip_bad;
    return dialogue_read_bytes(bytes, "in", &o, rc, collect, c, e);
}

static void want(int type, const char *bytes, size_t n, int details, const char *text)
{
    collector   c  = { .details = details };
    read_counts rc = { 0 };
    err         e  = { 0 };
    int         r  = read_text(type, (str){ bytes, n }, &c, &rc, 0, &e);
    if (r) fail_msg("%s", e.msg);
    assert_string_equal(c.text.s ? c.text.s : "", text);
    buf_free(&c.text);
}
#define WANT(type, bytes, details, text) want(type, bytes, sizeof(bytes) - 1, details, text)

static void want_error(int type, const char *bytes, const char *part)
{
    collector   c  = { 0 };
    read_counts rc = { 0 };
    err         e  = { 0 };
    int         r  = read_text(type, S(bytes), &c, &rc, 0, &e);
    if (r >= 0 || !strstr(e.msg, part)) fail_msg("status %d, '%s', wanted '%s'", r, e.msg, part);
    buf_free(&c.text);
}

static void text_borders(void **state)
{
    (void)state;
    WANT(INPUT_TEXT, "a\nb\n\nc\nd", 0, "a/b\nc/d\n");
    WANT(INPUT_TEXT, "\xEF\xBB\xBF" "a\r\nb\r\n\r\nc\nd\n\n\n\n", 0, "a/b\nc/d\n");
    WANT(INPUT_TEXT, "\n\r\n \t \n\na\r\n b \n\t\n\xE4\xBD\xA0\n", 0, "a/b\n\xE4\xBD\xA0\n");
    WANT(INPUT_TEXT, "", 0, "");
    str rest = STR("a\r\n\nb\r"), line;
    assert_true(next_line(&rest, &line) && str_eq(line, STR("a")));
    assert_true(next_line(&rest, &line) && line.n == 0);
    assert_true(next_line(&rest, &line) && str_eq(line, STR("b")) && !next_line(&rest, &line));
    WANT(INPUT_TEXT, "\n\n\n", 0, "");
    WANT(INPUT_TEXT, "a\0b\nc", 1, "0:1:a\0b/1:1:c\n"); /* compared up to the NUL; the length is checked below */
    collector   c  = { 0 };
    read_counts rc = { 0 };
    assert_int_equal(read_text(INPUT_TEXT, (str){ "a\0b\nc", 5 }, &c, &rc, 0, NULL), OK);
    assert_int_equal(c.text.n, 6);
    assert_int_equal(rc.dialogues, 1);
    buf_free(&c.text);
}

static void tsv_weights(void **state)
{
    (void)state;
    WANT(INPUT_TSV, "0.0 hello there\t1.0 hi , how are you ?\r\n", 1, "0:0:hello there/1:1:hi , how are you ?\n");
    WANT(INPUT_TSV, "2 weeks ago\tnan\n", 1, "0:1:2 weeks ago/1:1:nan\n");
    WANT(INPUT_TSV, "3.5 stars\t1.5 l\n\ninf\t-0.5 x\n", 1, "0:1:3.5 stars/1:1:1.5 l\n0:1:inf/1:1:-0.5 x\n");
    WANT(INPUT_TSV, "0.25 a EOS 0.5  b   c EOS d\t1.000 e", 1, "0:0.25:a/1:0.5:b c/0:1:d/1:1:e\n");
    want_error(INPUT_TSV, "a\tb\nno tab\n", "in:2: wanted two fields");
    want_error(INPUT_TSV, "a\tb\tc\n", "in:1: wanted two fields");
    want_error(INPUT_TSV, "0.0 \tb\n", "in:1: an empty turn");
    want_error(INPUT_TSV, "a EOS  EOS b\tc\n", "in:1: an empty turn");
    collector   c  = { 0 };
    read_counts rc = { 0 };
    assert_int_equal(read_text(INPUT_TSV, S("a\tb\nbad\n0.0 c\t1.0 d\n\tx\n"), &c, &rc, 1, NULL), OK);
    assert_string_equal(c.text.s, "a/b\nc/d\n");
    assert_int_equal(rc.bad_lines, 2);
    buf_free(&c.text);
}

static void json_shapes(void **state)
{
    (void)state;
    WANT(INPUT_JSON, "[\"a\",\"b\"]", 1, "0:1:a/1:1:b\n");
    WANT(INPUT_JSON, "[[\"a\",\"b\"],[\"c\"]]", 0, "a/b\nc\n");
    WANT(INPUT_JSON, "{\"turns\":[\"a\",{\"text\":\"b\",\"weight\":0.5}]}", 1, "0:1:a/1:0.5:b\n");
    WANT(INPUT_JSON, "[{\"dialogue\":[\"a\",\"b\"]},[\"c\",\"d\"]]", 0, "a/b\nc/d\n");
    WANT(INPUT_JSON, "[{\"conversations\":[{\"from\":\"system\",\"value\":\"s\"},{\"from\":\"human\",\"value\":\"a\"},{\"from\":\"gpt\",\"value\":\"b\"}]}]", 1,
         "0:1:a/1:1:b\n");
    WANT(INPUT_JSON, "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]", 1, "0:1:a/1:1:b\n");
    WANT(INPUT_JSON, "[]", 0, "");
    WANT(INPUT_JSON, " \n", 0, "");
    WANT(INPUT_JSONL, "[\"a\",\"b\"]\n\n{\"messages\":[{\"content\":\"c\"}]}\r\n", 0, "a/b\nc\n");
    want_error(INPUT_JSON, "[[\"a\"],[1]]", "in: dialogue 2: a turn is neither");
    want_error(INPUT_JSON, "{\"turn\":[]}", "in:1: wanted a dialogue");
    want_error(INPUT_JSON, "[\"a\",\n\"b\"", "in:2:");
    want_error(INPUT_JSON, "{\"turns\":[],\"turns\":[]}", "in:1: duplicate");
    want_error(INPUT_JSONL, "[\"a\"]\n[\"b\"\n", "in:2:");
    want_error(INPUT_JSONL, "[{\"text\":\"a\",\"weight\":-1}]", "in:1: the weight");
    want_error(INPUT_JSONL, "[{\"text\":\"a\",\"from\":[]}]", "in:1: the speaker");
    collector   c  = { 0 };
    read_counts rc = { 0 };
    assert_int_equal(read_text(INPUT_JSONL, S("[\"a\"]\n{}\nx\n[\"b\"]"), &c, &rc, 1, NULL), OK);
    assert_string_equal(c.text.s, "a\nb\n");
    assert_int_equal(rc.bad_lines, 2);
    buf_free(&c.text);
    char *deep = malloc(200001); /* deep nesting is refused, not recursed into */
    memset(deep, '[', 200000);
    deep[200000] = 0;
    want_error(INPUT_JSON, deep, "in:1:");
    free(deep);
}

static void folders(void **state)
{
    (void)state;
    char cmd[700];
    snprintf(cmd, sizeof cmd, "mkdir -p '%s'", scratch("f/g"));
    assert_int_equal(system(cmd), 0);
    put_file(scratch("f/b.txt"), "c\nd\n", 4);
    put_file(scratch("f/a.tsv"), "a\tb\n", 4);
    put_file(scratch("f/notes.md"), "x\ny\n", 4);
    collector   c  = { 0 };
    read_counts rc = { 0 };
    err         e;
    assert_int_equal(dialogue_read(scratch("f"), &defaults, &rc, collect, &c, &e), OK);
    assert_string_equal(c.text.s, "a/b\nc/d\n");
    assert_int_equal(rc.files, 2);
    put_file(scratch("f/z.scene"), "U: {x}\nB: b\n", 12); /* now only scenes count, and they use slots.txt of the folder */
    put_file(scratch("f/slots.txt"), "x: one\n", 7);
    buf_reset(&c.text);
    assert_int_equal(dialogue_read(scratch("f"), &defaults, &rc, collect, &c, &e), OK);
    assert_string_equal(c.text.s, "one/b\n");
    assert_int_equal(dialogue_read(scratch("f/g"), &defaults, &rc, collect, &c, &e), E_ARG);
    assert_int_equal(dialogue_read(scratch("f/none"), &defaults, &rc, collect, &c, &e), E_IO);
    buf_free(&c.text);
}

/* ---- against the source systems -------------------------------------------------------------------------------- */

typedef struct {
    tokenizer *t;
    format     f;
    int        reversed, loss_all;
    ivec       id[64];
    fvec       w[64];
    int        n;
} rows;
static int to_row(void *ctx, const dialogue *d, err *e)
{
    rows *r   = ctx;
    ivec  ids = { 0 };
    turn  t[64];
    for (int i = 0; i < d->n; i++) {
        size_t from = ids.n;
        t[i]        = d->turn[i];
        assert_int_equal(tokenizer_encode(r->t, t[i].text, &ids, e), OK);
        t[i].n = (int)(ids.n - from);
    }
    for (int i = 0, at = 0; i < d->n; at += t[i++].n) t[i].id = ids.v + at;
    int rc = format_train(&r->f, t, d->n, r->reversed, r->loss_all, &r->id[r->n], &r->w[r->n], e);
    r->n++;
    ivec_free(&ids);
    return rc;
}
static void rows_free(rows *r)
{
    for (int i = 0; i < 64; i++) ivec_free(&r->id[i]), fvec_free(&r->w[i]);
    tokenizer_close(r->t);
}

static void chitchat_ids(void **state)
{
    (void)state;
    static const struct {
        const char *file, *key;
    } cases[] = { { "lf", "lf" },
                  { "crlf", "crlf" },
                  { "lf_final_newline", "lf" },      /* their extra empty turn at the end is dropped: the ids are those of "lf" */
                  { "lf_two_final_newlines", "lf" }, /* and their extra empty dialogue */
                  { "triple_blank", "lf" } };        /* and the empty first turn */
    json_t *all = json_load_file("tests/vectors/dialog/chitchat.json", 0, NULL);
    assert_non_null(all);
    for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
        char path[128];
        snprintf(path, sizeof path, "tests/vectors/corpus/chitchat_train_%s.txt", cases[k].file);
        rows        r  = { .f = { FORMAT_CLS_SEP, 101, 102 }, .loss_all = 1 };
        read_counts rc = { 0 };
        err         e;
        assert_int_equal(tokenizer_open_wordpiece(&r.t, "tests/vectors/tokenizer/chitchat_vocab.txt", 1, &e), OK);
        assert_int_equal(dialogue_read(path, &defaults, &rc, to_row, &r, &e), OK);
        json_t *want_rows = json_object_get(json_object_get(all, "preprocess"), cases[k].key);
        assert_int_equal(r.n, json_array_size(want_rows));
        for (int i = 0; i < r.n; i++) {
            json_t *w = json_array_get(want_rows, (size_t)i);
            assert_int_equal(r.id[i].n, json_array_size(w));
            for (size_t t = 0; t < r.id[i].n; t++) assert_int_equal(r.id[i].v[t], json_integer_value(json_array_get(w, t)));
        }
        rows_free(&r);
    }
    json_decref(all);
}

static void dialogpt_features(void **state)
{
    (void)state;
    json_t *all = json_load_file("tests/vectors/dialog/dialogpt_prepro.json", 0, NULL), *c;
    size_t  i;
    int     compared = 0, skipped = 0;
    assert_non_null(all);
    for (int reversed = 0; reversed < 2; reversed++) {
        rows        r  = { .f = { FORMAT_DIALOGPT, -1, 50256 }, .reversed = reversed };
        read_counts rc = { 0 };
        err         e;
        assert_int_equal(tokenizer_open_bpe(&r.t, "tests/vectors/tokenizer/gpt2_vocab.json", "tests/vectors/tokenizer/gpt2_merges.txt", &e), OK);
        assert_int_equal(dialogue_read("tests/vectors/dialog/dialogpt_train.tsv", &defaults, &rc, to_row, &r, &e), OK);
        assert_int_equal(r.n, 11);
        json_array_foreach(json_object_get(all, "cases"), i, c)
        {
            if (json_integer_value(json_object_get(c, "max_seq_len")) != 128 || json_is_true(json_object_get(c, "reverse")) != reversed) continue;
            json_t *features = json_object_get(c, "features"), *weights = json_object_get(c, "weights");
            int     line     = (int)json_integer_value(json_object_get(c, "line"));
            double  sum      = 0;
            for (size_t t = 0; t < r.w[line].n; t++) sum += (double)r.w[line].v[t];
            if (!json_array_size(features) && !reversed) { /* no target: prepro makes nothing of it, the loader skips it */
                assert_true(sum == 0);
                skipped++;
                continue;
            }
            int zero = 0;
            for (size_t t = 0; t < json_array_size(weights); t++) zero |= json_number_value(json_array_get(weights, t)) == 0;
            if (reversed && zero) { /* DialoGPT#41: its weights make the wrong turns targets, or none; ours are targets */
                assert_true(sum > 0 || line == 5);
                skipped++;
                continue;
            }
            json_t *f   = json_array_get(features, 0), *ids = json_object_get(f, "input_ids"), *labels = json_object_get(f, "lm_labels");
            size_t  len = r.id[line].n - 1; /* theirs has no last separator in the ids */
            for (size_t t = 0; t < json_array_size(ids); t++) {
                int id    = (int)json_integer_value(json_array_get(ids, t)), label = (int)json_integer_value(json_array_get(labels, t));
                int ours  = t < len ? r.id[line].v[t] : 0, target = t < len && r.w[line].v[t + 1] > 0 ? r.id[line].v[t + 1] : -1;
                if (id != ours || label != target) fail_msg("line %d, reverse %d, token %zu: %d %d, want %d %d", line, reversed, t, ours, target, id, label);
            }
            compared++;
        }
        rows_free(&r);
    }
    assert_int_equal(compared, 13);
    assert_int_equal(skipped, 9);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_borders),  cmocka_unit_test(tsv_weights),  cmocka_unit_test(json_shapes),
        cmocka_unit_test(folders),       cmocka_unit_test(chitchat_ids), cmocka_unit_test(dialogpt_features),
    };
    return cmocka_run_group_tests_name("dialogue", tests, NULL, scratch_remove);
}
