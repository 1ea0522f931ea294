/* testset: files of test items: a context, the line to answer last, and the replies that people gave.  Owns the reading; knows no model.
 *
 *   .jsonl        {"history": ["…", …], "text": "…", "references": ["…", …]} on each line: what `duet reply --jsonl` takes, and references
 *                 ("reference": "…" for one; none is legal); a line without "text" is a dialogue as corpus/dialogue.h has them
 *   .tsv          DialoGPT: context turns joined by " EOS ", then one reference in each further field; turn weights are left out
 *   .refs.txt     DSTC-7's references (DialoGPT's dstc/dstc.py): key, then "score|reply" or "reply" in each further field; there are no contexts in such a file, so the
 *                 key stands in the place of the line (keyed): replies from elsewhere can be scored, models cannot answer.  dstc.py repeats references until there are n_refs and
 *                 puts another in the place of number `vshuman`; here each counts once
 *   others        dialogues (text with blank lines between them, scenes, JSON): the last turn is the reference of what is before it */
#ifndef DUET_TESTSET_H
#define DUET_TESTSET_H

#include "models/base.h"

typedef struct {
    const str *turn; /* (n_turn,) oldest first; the last is the line to answer */
    int        n_turn;
    const str *ref;  /* (n_ref,) */
    int        n_ref;
} test_item;
typedef struct {
    int        n;
    test_item *item;
    int        cap;
    arena      mem;        /* owns the texts */
    char       digest[65]; /* SHA-256 of the file */
    int        keyed;      /* the turns are keys, not lines */
} testset;
/* A regular file.  Errors name file and line: a dialogue of one turn, a reference that is no string, …  An empty set is an error. */
int  testset_read(testset *t, const char *path, err *e);
void testset_free(testset *t);
/* All references laid flat for metrics.h: *ref (malloc'ed) and *at (n + 1,), malloc'ed; *at NULL when an item has none. */
int  testset_references(const testset *t, str **ref, int **at, err *e);

#endif
