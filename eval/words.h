/* words: texts as numbers.  A lexicon gives every distinct word an id; lines are ragged arrays of ids; n-grams are nodes of a trie, so that
 * equal n-grams have equal ids and nothing is ever confused.  Knows no metric. */
#ifndef DUET_WORDS_H
#define DUET_WORDS_H

#include "models/base.h"

typedef struct lexicon lexicon;
lexicon *lexicon_new(void); /* NULL when memory is out */
void     lexicon_free(lexicon *l);
int      lexicon_size(const lexicon *l);
str      lexicon_word(const lexicon *l, int id);
int      lexicon_find(const lexicon *l, str word);         /* -1 when it is not there */
int      lexicon_add(lexicon *l, str word, int *id, err *e); /* its id, new or old */
/* For each word that is there now: the id of its lower-case form, and of the Porter stem of that.  Both (lexicon_size,), malloc'ed.  Forms
 * that are no words yet become words (with higher ids, and no forms of their own). */
int      lexicon_forms(lexicon *l, int **lower, int **stem, err *e);

typedef struct {
    int     n;  /* lines */
    size_t *at; /* (n + 1,) line i is id[at[i]] … id[at[i + 1] - 1] */
    int    *id;
} word_lines;
/* Tokenise n lines (TOKENISE_…); when `again` is not -1, what comes out is tokenised a second time by that rule. */
int  word_lines_new(word_lines *w, lexicon *l, const str *line, int n, int kind, int again, err *e);
void word_lines_free(word_lines *w);
static inline int        word_count(const word_lines *w, int i) { return (int)(w->at[i + 1] - w->at[i]); }
static inline const int *word_ids(const word_lines *w, int i) { return w->id + w->at[i]; }

/* n-grams: node 0 is the empty one; a node is its prefix and one word more. */
typedef struct ngrams ngrams;
ngrams *ngrams_new(void);
void    ngrams_free(ngrams *g);
int     ngrams_size(const ngrams *g);                  /* nodes, the empty one included */
int     ngrams_prefix(const ngrams *g, int node);
int     ngrams_word(const ngrams *g, int node);        /* the last word */
int     ngrams_find(const ngrams *g, int prefix, int word); /* -1 */
int     ngrams_add(ngrams *g, int prefix, int word, int *node, err *e);

#endif
