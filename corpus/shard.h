/* shard: a corpus in tokens.  Owns the file: a streaming writer, and a reader over a map that believes nothing.  Turns stay turns (no separators, no
 * direction), so one shard serves forward and backward models.
 *
 * File, little endian:
 *   head      "DUETSHD1", u32 version 1, u32 bytes of an id (2 or 4), u32 n_vocab, u32 length of `hint`, 32 bytes tokenizer digest, f64 held-out share,
 *             u64 seed; then `hint` (how the tokenizer was named), zeros to a multiple of 8
 *   records   one per dialogue: u32 n_turns, u32 source, u64 group; per turn u32 n_ids, u32 characters, f32 weight, u32 speaker; then the ids of all turns in
 *             order, zeros to a multiple of 4
 *   sources   u32 count, u32 0; per source u32 length, the bytes, zeros to a multiple of 4
 *   index     zeros to a multiple of 8; u64 file offset of each training record, then of each held-out record
 *   tail      u64 offset of sources, offset of index, then for training and held-out: dialogues, turns, tokens (ids + one separator a turn), characters;
 *             32 bytes SHA-256 of everything before it; "DUETEND1"
 *
 * Held out are whole groups (all readings of a scene, all pieces of a dialogue) whose draw rng_unit(seed, group, 0) falls below the share: it
 * depends on what they say and the seed, never on their place.  When none does, the group with the least draw is taken. */
#ifndef DUET_SHARD_H
#define DUET_SHARD_H

#include "models/base.h"
#include "models/format.h"

enum { PART_TRAIN = 0, PART_HELD = 1 };
typedef struct {
    uint64_t dialogues, turns, tokens, chars; /* tokens: ids + one separator for each turn */
} shard_part;

/* ---- writing ---- */
typedef struct shard_writer shard_writer;
int shard_create(shard_writer **w, const char *path, const unsigned char digest[32], int n_vocab, str hint, double share, uint64_t seed, err *e);
/* A name for where the dialogues that follow come from (64 KiB at most, 65536 names). */
int shard_source(shard_writer *w, str name, err *e);
/* turns (n,) with text (for its length in characters) and ids.  Refuses ids out of range, weights that are not finite or negative. */
int shard_add(shard_writer *w, const turn *t, int n, uint64_t group, err *e);
/* Choose the held-out groups, write index and tail, put the file in its place; frees w when OK. */
int shard_finish(shard_writer *w, shard_part part[2], err *e);
void shard_discard(shard_writer *w); /* NULL is fine */

/* ---- reading ---- */
typedef struct shard shard;
/* Checks the head, the tail, the checksum and the index; records are checked when they are read. */
int  shard_open(shard **s, const char *path, err *e);
void shard_close(shard *s);
const char       *shard_path(const shard *s);
const shard_part *shard_about(const shard *s, int part);
int               shard_n_vocab(const shard *s);
const unsigned char *shard_tokenizer(const shard *s); /* (32,) digest */
str                  shard_hint(const shard *s);
const unsigned char *shard_sha256(const shard *s);    /* (32,) the checksum: names the data */
uint32_t             shard_n_sources(const shard *s);
str                  shard_source_name(const shard *s, uint32_t i);

typedef struct { /* zero-initialise; reused from call to call */
    turn    *turn;  /* (n,) ids, speaker, weight; text is empty */
    int     *chars; /* (n,) characters of each turn's text */
    int      n, cap;
    uint32_t source;
    uint64_t group;
    ivec     ids;
} shard_dialogue;
/* Dialogue i (< dialogues of the part).  E_FORMAT with the offset when the record does not hold together. */
int  shard_get(const shard *s, int part, uint64_t i, shard_dialogue *d, err *e);
void shard_dialogue_free(shard_dialogue *d);

#endif
