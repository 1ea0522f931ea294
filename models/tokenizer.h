/* tokenizer: bytes to token ids and back.  Byte-level BPE (GPT-2) and BERT WordPiece behind one type, read from and written to a
 * GGUF, built from vocabulary files, or trained on a corpus.  User text is never parsed for special tokens: the
 * characters "[SEP]" or "<|endoftext|>" in a line are ordinary text.  Immutable after opening, shared by threads.
 *
 * Policy for invalid UTF-8.  BPE: every ill-formed byte is kept (one character of class "other" in the split pattern), so
 * decode(encode(x)) == x for all bytes.  WordPiece: ill-formed parts become U+FFFD, which BERT's cleaning drops. */
#ifndef DUET_TOKENIZER_H
#define DUET_TOKENIZER_H

#include "models/base.h"
#include "models/gguf.h"

typedef struct tokenizer tokenizer;
enum { TOK_BPE = 1, TOK_WORDPIECE = 2 };

/* Vocabulary files.  BPE: `vocab_json` is the file or its folder, merges_txt = NULL is merges.txt beside it; WordPiece: vocab.txt or its
 * folder.  `lower`: lower-case and strip accents (BERT uncased).  Errors name file and line or token; vocab.c says what is accepted. */
int  tokenizer_open_bpe(tokenizer **t, const char *vocab_json, const char *merges_txt, err *e);
int  tokenizer_open_wordpiece(tokenizer **t, const char *vocab_txt, int lower, err *e);
/* From the tokenizer.ggml.* keys of a GGUF (models "gpt2" and "bert").  "no_vocab": OK with *t = NULL.  Without duet.tokenizer.lower a
 * "bert" is lower-cased, as llama.cpp does with every such file. */
int  tokenizer_from_gguf(tokenizer **t, const gguf *g, err *e);
/* All tokenizer.ggml.* keys, as llama.cpp wants them (see models/MODEL.md), and for "bert" duet.tokenizer.lower (bool) and, rarely,
 * duet.tokenizer.continuation (i32 ids of "##" pieces whose stored form does not show it).  Reading them back gives the
 * same digest.  t = NULL writes "no_vocab". */
void tokenizer_to_gguf(const tokenizer *t, gguf_writer *w);
/* Vocabulary files into a folder: vocab.json + merges.txt, or vocab.txt (and tokenizer_config.json with do_lower_case). */
int  tokenizer_export(const tokenizer *t, const char *dir, err *e);
void tokenizer_close(tokenizer *t); /* NULL is fine */

int  tokenizer_kind(const tokenizer *t);
int  tokenizer_lower(const tokenizer *t);
int  tokenizer_size(const tokenizer *t); /* n_vocab */
/* Special ids, -1 when the vocabulary has none: unknown, [CLS]/bos, [SEP]/eos, [PAD], [MASK].  BPE: eos = "<|endoftext|>". */
typedef struct {
    int unk, bos, eos, pad, mask;
} special_ids;
special_ids tokenizer_specials(const tokenizer *t);
int         tokenizer_find(const tokenizer *t, str token); /* id of a vocabulary entry as written in the vocabulary file, or -1 */
str         tokenizer_token(const tokenizer *t, int id);   /* that entry; empty when id is out of range */
int         tokenizer_is_special(const tokenizer *t, int id); /* control tokens: [word], <|word|>, and what a GGUF marks so */
/* 32 bytes that identify vocabulary + rules: SHA-256 over kind, flags, special ids, tokens with their types, merges. */
void        tokenizer_digest(const tokenizer *t, unsigned char out[32]);

/* Append the ids of `text` to `ids` (check ids->oom is done inside).  Any bytes are legal; E_ARG when a BPE vocabulary has no token
 * for a part of the text (a cut vocabulary opens, and says so here, with nothing appended). */
int tokenizer_encode(const tokenizer *t, str text, ivec *ids, err *e);
/* Append the text of ids to `out`.  Special tokens give nothing.  An id out of range is E_ARG.
 * BPE gives the exact bytes.  WordPiece has lost the spaces and puts them back by rule, so that for what people write the text reads as
 * it was, and encoding it again gives the same ids (but for [UNK]).  "##" pieces are glued.  Between two words stands one space, except
 *   - beside a CJK ideograph or East Asian punctuation: none;
 *   - none before , . ! ? : ; ) ] } % ~ … ”, none after ( [ { @ # $ “ ‘, none on either side of / \ _ — –;
 *   - " and ' open and close by turns: none inside; ' after a word ending in s closes or is a possessive (dogs' house);
 *   - ' as apostrophe: it's, don't, we're, 80's, o'clock, O'Brien, y'all, ma'am, c'mon; ’ likewise, else closing;
 *   - numbers: 3.5, 1,000 (at most three digits, comma, three digits), 12:30; single letters: e.g., p.m. (not before i or a);
 *   - - between letters or digits and in --: none; before a number at the start of a phrase: -5; else both sides spaced;
 *   - & beside a single letter: r&b, at&t;  :) ;( stand together, spaced from the word before. */
int tokenizer_decode(const tokenizer *t, const int *ids, size_t n, buf *out, err *e);

/* ---- a smaller vocabulary ---- */
/* The entries with keep[id] (n_vocab,) and those that every text needs: special and control tokens; BPE: the single bytes, and the parts of every merge that
 * gives a token that stays (merges with all three in place stay, in their order); WordPiece: every entry of one character, with drop_characters only the
 * ASCII ones.  ids: old id of each new one, rising.  A text whose old tokens all stay (and, WordPiece, are not [UNK]) has the same tokens under their new ids;
 * any other is cut into smaller pieces, with drop_characters also [UNK]. */
int tokenizer_cut(tokenizer **out, const tokenizer *t, const unsigned char *keep, int drop_characters, ivec *ids, err *e);

/* ---- building a vocabulary ---- */
typedef struct tokenizer_trainer tokenizer_trainer;
/* kind TOK_BPE (byte-level, starts from the 256 bytes) or TOK_WORDPIECE (BERT cleaning; every CJK character is a word of its own; Latin
 * words are split into characters and merged up to `size` by pair frequency).  Characters seen fewer than min_count
 * times become [UNK] (WordPiece; ASCII letters, digits and common punctuation are always in), and pairs seen fewer times are not
 * merged (both kinds), so the vocabulary can be smaller than `size`.  E_ARG when `size` cannot hold what must be in: 257 for
 * BPE, about 130 (lower) or 180 (cased) for WordPiece.
 * A line's weight is 0..1e6, counted in 1/65536ths.  Deterministic: the same lines in any order give the same vocabulary. */
int  tokenizer_trainer_new(tokenizer_trainer **tr, int kind, int lower, err *e);
int  tokenizer_trainer_add(tokenizer_trainer *tr, str text, double weight, err *e);
int  tokenizer_trainer_build(tokenizer_trainer *tr, int size, double min_count, tokenizer **t, err *e);
void tokenizer_trainer_free(tokenizer_trainer *tr);

#endif
