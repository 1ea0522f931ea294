/* keyset: a set of 128-bit keys, for duplicates.  Keys are prefixes of SHA-256, so equal keys mean equal texts for every practical purpose. */
#ifndef DUET_KEYSET_H
#define DUET_KEYSET_H

#include "models/base.h"

typedef struct {
    uint64_t hi, lo;
} key128;
typedef struct {
    key128 *slot; /* (cap,) open addressing; {0,0} is free, a key of zeros is stored as {0,1} */
    size_t  n, cap;
} keyset;

/* 1 it was new, 0 it was there already, E_NOMEM. */
int  keyset_add(keyset *s, key128 k, err *e);
void keyset_clear(keyset *s); /* empty, memory kept */
void keyset_free(keyset *s);
/* First 128 bits of a finished hash. */
key128 key_of_hash(sha256 *h);

#endif
