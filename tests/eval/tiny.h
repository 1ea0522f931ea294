/* A tiny random pair for the tests of the evaluation.  Include after records.h. */
#ifndef DUET_TESTS_TINY_H
#define DUET_TESTS_TINY_H

#include "models/ops.h"

/* A model of the words in `vocab` with random weights, wide enough that draws differ, in the scratch folder. */
HELPER gpt2 *tiny_model(const char *name, const char *vocab, int n_ctx, int n_layer, int n_inner, uint64_t seed, int role)
{
    const char  *words = in_dir("vocab.txt"), *path = in_dir(name);
    tokenizer   *t;
    gpt2_tensor *list;
    gpt2        *m;
    size_t       n;
    spit(words, vocab, strlen(vocab));
    OKAY(tokenizer_open_wordpiece(&t, words, 1, &e));
    gpt2_config c = { .n_vocab = tokenizer_size(t), .n_ctx = n_ctx, .n_embd = 16, .n_head = 2, .n_layer = n_layer, .n_inner = n_inner, .eps = 1e-5f,
                      .act = ACT_GELU_NEW, .scale_attn = 1, .tied = 1 };
    assert_true(gpt2_tensors(&c, &list, &n, &e) > 0);
    free(list);
    float *slab = calloc(n, sizeof *slab);
    for (size_t i = 0; i < n; i++) slab[i] = (float)(0.5 * rng_normal(seed, 0, i));
    gpt2_meta meta = { .fmt = { FORMAT_CLS_SEP, tokenizer_specials(t).bos, tokenizer_specials(t).eos }, .role = role, .name = "tiny" };
    OKAY(gpt2_save(path, &c, slab, t, &meta, NULL, &e));
    free(slab);
    tokenizer_close(t);
    OKAY(gpt2_open(&m, path, &e));
    return m;
}

#endif
