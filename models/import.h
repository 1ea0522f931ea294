/* import: foreign checkpoints -> one GGUF, and back.  The only place that knows foreign layouts: Hugging Face folders (config.json +
 * model.safetensors, sharded too, or pytorch_model.bin zip/legacy), DialoGPT .pkl, GPT2-chitchat folders.  Pickles go through a
 * whitelist unpickler: nothing in a file is ever executed. */
#ifndef DUET_IMPORT_H
#define DUET_IMPORT_H

#include "models/gpt2.h"

typedef struct {
    const char *vocab;  /* vocabulary file or folder when it is not in src; NULL */
    int         format; /* FORMAT_…; 0 = from the vocabulary: [SEP] -> cls_sep, <|endoftext|> -> dialogpt */
    int         role;   /* ROLE_…; 0 = forward */
    int         lower;  /* WordPiece: 1, 0, or -1 = from tokenizer_config.json (default 1) */
    const char *name;   /* general.name; NULL = the folder's name */
} import_opts;
/* src: a folder, or a weight file (or *.index.json) with config.json beside it.  Matrices keep the precision they came in (f16, bf16, f32; f64
 * becomes f32); vectors and positions become f32.  A head equal to the embedding is tied.  Vocabulary: o->vocab, else the folder's files, else
 * none.  Special ids come from the vocabulary; without one, from config.json.  What is not understood whole is refused: unknown or
 * missing tensors, other shapes, a vocabulary of another size, weights that are not finite.  o may be NULL.  On failure nothing is
 * written.  E_IO, E_FORMAT, E_LIMIT, E_ARG, E_NOMEM. */
int import_model(const char *src, const char *out_gguf, const import_opts *o, err *e);
/* GGUF -> folder with config.json, model.safetensors (f32/f16/bf16 as stored; quantised becomes f32) and the vocabulary files.  The object "duet"
 * in config.json keeps what Hugging Face has no word for (format, role, name, note), so that importing the folder gives the same file again. */
int export_model(const char *in_gguf, const char *out_dir, err *e);

#endif
