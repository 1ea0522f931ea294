/* A small world for the tests of the audit: two random models, real rules, conversations with everything in them.  Include
 * first. */
#ifndef DUET_TESTS_WORLD_H
#define DUET_TESTS_WORLD_H

#include "tests/dialog/records.h"
#include "tests/eval/tiny.h"


static const char vocab[] = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n你\n好\n我\n是\n谁\n吗\n的\n天\n气\n很\n不\n错\n吃\n饭\n了\n想\n去\n看\n电\n影\n和\n，\n。\n？\n";
static const char rules_text[] = "[rule t.block]\ncategory: test\nwhere: user\naction: block\npattern: 影\nmessage zh: 不聊这个\nmessage en: not that\n"
                                 "[rule t.red]\ncategory: test\nwhere: both\naction: redact\npattern: 谁\nlabel zh: 略\nlabel en: x\n"
                                 "[rule t.flag]\ncategory: test\nwhere: both\naction: flag\npattern: 天\n"
                                 "[rule t.reply]\ncategory: test\nwhere: reply\naction: block\npattern: 错\nmessage zh: x\nmessage en: y\n";
static gpt2   *fwd, *bwd;
static safety *rules;

HELPER int make_world(void **s)
{
    (void)s;
    const char *p = in_dir("test.rules");
    fwd           = tiny_model("fwd.gguf", vocab, 64, 2, 64, 1, ROLE_FORWARD);
    bwd           = tiny_model("bwd.gguf", vocab, 64, 2, 64, 2, ROLE_BACKWARD);
    spit(p, rules_text, sizeof rules_text - 1);
    OKAY(safety_open(&rules, &p, 1, &e));
    return 0;
}
HELPER int drop_world(void **s)
{
    safety_close(rules);
    gpt2_close(fwd);
    gpt2_close(bwd);
    return drop_folder(s);
}

/* One line answered and stored, as chat does it. */
HELPER int64_t talk(history *h, responder *r, int64_t conv, const char *line, const respond_opts *o)
{
    arena   a = { 0 };
    turn   *t;
    reply   rep;
    int     n;
    int64_t id;
    OKAY(hist_turns(h, conv, 0, &a, &t, &n, &e));
    OKAY(respond(r, t, n, str_of(line), o, &a, &rep, &e));
    OKAY(hist_append(h, conv, &rep, o, STR("2026-11-24T15:04:05Z"), 0.1, &id, &e));
    arena_free(&a);
    return id;
}

/* A conversation with everything in it.  Rows: 1 model, 2 refused, 3 redacted line, 4 model, 5 undo of 4, 6 model in another
 * mode, 7 model, 8 a line without a word the models know (stock). */
HELPER int64_t make_talk(history *h, responder *r, int64_t id[9])
{
    int64_t      conv;
    respond_opts o = respond_defaults();
    o.mode        = MODE_MMI; /* tests do not lean on what suits the shipped pair */
    o.temperature = 0.8f;
    o.lambda      = 0.5f;
    o.max_turns   = 8;
    o.n_cand       = 8;
    o.max_new      = 8;
    o.seed         = 4711;
    OKAY(hist_new(h, STR(""), &conv, &e));
    id[1] = talk(h, r, conv, "你好吗", &o);
    id[2] = talk(h, r, conv, "我想看电影", &o);
    id[3] = talk(h, r, conv, "你是谁", &o);
    o.seed++;
    id[4] = talk(h, r, conv, "天气不错", &o);
    OKAY(hist_undo(h, conv, STR("2026-11-24T15:04:06Z"), NULL, &e));
    o.mode = MODE_SAMPLED;
    id[6]  = talk(h, r, conv, "天气很好", &o);
    o.mode = MODE_JOINT;
    id[7]  = talk(h, r, conv, "吃饭了吗", &o);
    id[8]  = talk(h, r, conv, "   ", &o);
    return conv;
}

#endif
