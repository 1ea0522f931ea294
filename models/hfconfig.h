/* hfconfig: the JSON files of a Hugging Face folder that are no weights and no vocabulary: config.json both ways, tokenizer_config.json, the index of
 * sharded weights.  Believes no number: whole numbers in the ranges of gpt2_config_check, finite reals, no key twice. */
#ifndef DUET_HFCONFIG_H
#define DUET_HFCONFIG_H

#include "models/gpt2.h"

typedef struct {
    gpt2_config c;
    int         tied;     /* tie_word_embeddings: 1, 0, or -1 not stated */
    int         bos, eos; /* bos_token_id, eos_token_id; -1 = none or out of range.  Wrong in the wild: a vocabulary knows better */
    gpt2_meta   about;    /* what export_model wrote into "duet": role, name, note, data_sha256, format kind; zeros otherwise */
} hf_config;
/* Sizes that are missing are an error, never a guess; absent options have GPT2Config's defaults. */
int hfconfig_read(const char *path, hf_config *h, err *e);
/* config.json for a model; `t` may be NULL.  torch_dtype: "float32", "float16", "bfloat16". */
int hfconfig_write(const char *path, const gpt2_config *c, const gpt2_meta *m, const tokenizer *t, const char *torch_dtype, err *e);

/* do_lower_case of a tokenizer_config.json: 1, 0, or -1 when the file or the key is not there. */
int hfconfig_lower(const char *path, int *lower, err *e);

/* weight_map of a *.index.json: tensor name -> file name (no folder parts).  strs in `mem`. */
typedef struct {
    str name, file;
} hf_shard;
int hfconfig_index(const char *path, arena *mem, hf_shard **v, size_t *n, err *e);

#endif
