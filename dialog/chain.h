/* chain: what of a stored row enters the hash chain of its conversation, byte for byte.  Pure: no database, no memory of its own.
 * Anyone can re-implement it from this page.
 *
 * Bytes.  u64: 8 bytes, little endian (signed numbers in two's complement).  f64: the 8 bytes of the IEEE double, little endian; every
 * NaN is 0x7ff8000000000000 and -0 is +0.  text: u64 length, then the bytes.  ids: u64 count, then 4 bytes little endian each.
 * verdict: u64 action, u64 rule, u64 number of hits, then for each hit u64 rule, u64 limit, u64 from, u64 to.
 *
 *   start     = SHA-256( "duet conversation 1" ‖ the conversation's 16 key bytes ‖ text created )
 *   said      = SHA-256( salt(32) ‖ "said" ‖ text prompt digest ‖ text user ‖ ids user ‖ verdict user ‖ u64 cut ‖ u64 evaluated ‖
 *                        text reply ‖ ids reply )
 *   drawn[k]  = SHA-256( salt(32) ‖ "drawn" ‖ text ‖ ids ‖ u64 ended ‖ u64 dup_of ‖ f64 fwd ‖ f64 bwd ‖ u64 n_source ‖ f64 score ‖
 *                        verdict )
 *   hash      = SHA-256( prev(32) ‖ u64 n ‖ u64 what ‖ u64 target ‖ u64 stale ‖ text opts ‖ u64 seed ‖ text fwd ‖ text bwd ‖ text rules ‖
 *                        text numerics ‖ u64 chosen ‖ text created ‖ f64 seconds ‖ u64 length of said (0 or 32) ‖ said ‖
 *                        u64 candidates ‖ for each: u64 k ‖ u64 fate ‖ drawn[k] )
 *   prev      = hash of the row before in the conversation; `start` for the first
 *
 * Everything that would tell or confirm the words (texts, ids, rule hits, scores, the prompt's digest) is inside the salted digests, so
 * that `forget` can erase words and salts, and the chain of digests still verifies.  Row ids and titles are names, not part of the record. */
#ifndef DUET_CHAIN_H
#define DUET_CHAIN_H

#include "dialog/history.h"

enum { ROW_UNDO = 16, ROW_FORGET = 17 }; /* `what` of rows that are no exchange; exchanges have REPLY_… */
enum { CHAIN_KEY = 16, CHAIN_SALT = 32, CHAIN_HASH = 32 };

typedef struct {
    unsigned char salt[CHAIN_SALT], drawn[CHAIN_HASH];
} chain_cand;
typedef struct {
    exchange      x;
    int           what;   /* REPLY_… or ROW_… */
    int           target; /* number of the row that an undo or forget row is about; 0 */
    int           n_said; /* bytes of said: 32 for exchanges, else 0 */
    unsigned char salt[CHAIN_SALT], said[CHAIN_HASH], prev[CHAIN_HASH];
    chain_cand   *c;      /* (x.r.n,) */
} chain_row;              /* x.hash is the stored hash; x.forgotten: salts and words are gone, only digests are left */

void chain_start(const unsigned char key[CHAIN_KEY], str created, unsigned char out[CHAIN_HASH]);
/* The digests of the words, from salts and words, into said and c[k].drawn. */
void chain_digests(chain_row *r);
/* The row's hash from prev, the open columns and the digests. */
void chain_hash(const chain_row *r, unsigned char out[CHAIN_HASH]);
/* Recompute everything: NULL when all agrees with `prev`, the digests and x.hash; else what differs.  *k = the candidate it is
 * about, or -1. */
const char *chain_check(const chain_row *r, const unsigned char prev[CHAIN_HASH], int *k);

#endif
