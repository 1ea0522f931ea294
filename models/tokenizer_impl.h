/* tokenizer_impl: what the parts of the tokenizer share: unicode.c (character classes), vocab.c (vocabulary files), bpe.c, wordpiece.c,
 * vocab_build.c (training) and tokenizer.c (the type itself, specials, digest, GGUF).  Nobody else includes this. */
#ifndef DUET_TOKENIZER_IMPL_H
#define DUET_TOKENIZER_IMPL_H

#include "models/tokenizer.h"

/* ---- unicode.c ------------------------------------------------------------------------------------------------- */

enum { UC_LETTER = 1, UC_NUMBER = 2, UC_SPACE = 4, UC_PUNCT = 8, UC_MARK = 16, UC_CONTROL = 32 };
/* Classes of a code point: letter = L*, number = N*, mark = Mn, control = Cc, Cf, Co, Cs (not Cn: the reference keeps what is
 * unassigned), punctuation = P* and all ASCII that is neither letter, digit, space nor control (BERT's rule), space = White_Space.
 * UTF8_BAD has no class. */
unsigned uni_class(uint32_t cp);
int      uni_is_cjk(uint32_t cp);             /* the eight ranges BERT puts spaces around */
enum { UNI_MAX = 8 };
int      uni_decompose(uint32_t cp, uint32_t out[UNI_MAX]); /* canonical, full; returns how many (>= 1) */
uint32_t uni_lower(uint32_t cp);              /* simple lower-casing */
int      uni_combining(uint32_t cp);          /* canonical combining class */

/* ---- the type -------------------------------------------------------------------------------------------------- */

enum {
    MAX_TOKENS = 1 << 20,      /* more is no vocabulary */
    MAX_TOKEN_BYTES = 1 << 10, /* GPT-2's longest has 256 */
    MAX_VOCAB_FILE = 1 << 26,
    TYPE_NORMAL = 1, TYPE_CONTROL = 3, /* tokenizer.ggml.token_type */
};

typedef struct {
    int a, b, id; /* tokens a and b, side by side, become id; the index in the list is the rank */
} bpe_merge;
typedef struct {
    uint64_t key; /* a << 32 | b; ~0 = free */
    int      rank;
} bpe_slot;

struct tokenizer {
    int         kind, lower, n;
    arena       mem;        /* owns everything below but the tables */
    str        *tok;        /* (n,) as the vocabulary file writes them */
    str        *disk;       /* (n,) as the GGUF writes them */
    int32_t    *type;       /* (n,) TYPE_… */
    special_ids sp;
    int        *slot;       /* (mask + 1,) string -> id, -1 = free */
    size_t      mask;
    size_t      max_piece;  /* bytes of the longest token, "##" not counted */
    int32_t    *glued;      /* (n_glued,) WordPiece: ids whose disk form does not show that they are "##" pieces */
    size_t      n_glued;
    /* BPE only */
    str        *bytes;      /* (n,) what the token decodes to; empty for control tokens */
    int         byte_id[256];
    bpe_merge  *merge;      /* (n_merges,) */
    str        *merge_text; /* (n_merges,) "a b" */
    int         n_merges;
    bpe_slot   *pair;       /* (pair_mask + 1,) */
    size_t      pair_mask;
    unsigned char digest[32];
};

/* A new tokenizer with room for n tokens (types 0 = decide by name).  `where` names the source in messages. */
int tok_new(tokenizer **t, int kind, int lower, size_t n, const char *where, err *e);
/* Set token `id` to a copy of s: checks length, UTF-8 and control characters. */
int tok_set(tokenizer *t, int id, str s, const char *where, err *e);
/* After all tokens: string table, types, specials by name where sp is -1, byte table. */
int tok_index(tokenizer *t, const char *where, err *e);
/* After tok_index and the merges: pair table, disk forms, digest. */
int tok_finish(tokenizer *t, const char *where, err *e);
/* Strings of the vocabulary by incremental hash: h = tok_hash(TOK_HASH0, …) over any split of the bytes. */
#define TOK_HASH0 UINT64_C(0xcbf29ce484222325)
static inline uint64_t tok_hash(uint64_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
    return h;
}
/* Id of the token whose bytes are prefix + s, with h their hash; -1 when there is none. */
int tok_lookup(const tokenizer *t, uint64_t h, str prefix, str s);

/* ---- bpe.c ----------------------------------------------------------------------------------------------------- */

extern const str     tok_gluing; /* "##" */
uint32_t bpe_char_of_byte(int byte);                        /* GPT-2's byte alphabet */
int      bpe_index_bytes(tokenizer *t, const char *where, err *e);
int      bpe_reserve(tokenizer *t, size_t n, const char *where, err *e);
int      bpe_add_merge(tokenizer *t, str line, int strict, const char *where, size_t line_no, err *e); /* "a b" */
int      bpe_index_pairs(tokenizer *t, const char *where, err *e);
size_t   bpe_word(str text, size_t from);                   /* end of the word of the split pattern that starts at `from` */
int      bpe_encode(const tokenizer *t, str text, ivec *ids, err *e);

/* ---- wordpiece.c ----------------------------------------------------------------------------------------------- */

enum { MAX_WORD_CHARS = 100 };
void wp_normalise(str text, int lower, buf *out);           /* words of BERT's pre-tokeniser, separated by spaces */
int  wp_encode(const tokenizer *t, str text, ivec *ids, err *e);
void wp_decode(const tokenizer *t, const int *ids, size_t n, buf *out);

/* A piece of a text or file name for a message: at most 40 bytes, whole characters. */
typedef struct {
    char s[48];
} shown;
shown show_str(str s);

#endif
