/* respond: the heart.  (history, user text, options + seed) -> a reply record with all candidates.  No database, clock,
 * terminal or hidden state: the same arguments give the same record, to the bit, whatever the batch, the threads or what
 * the cache holds. */
#ifndef DUET_RESPOND_H
#define DUET_RESPOND_H

#include "dialog/safety.h"
#include "models/gpt2.h"
#include "models/sample.h"

/* How candidates are ranked.  Separators count as tokens; a reply that was cut off is scored as if its separator had come.
 *   mmi     : log P(source | reply) under the reverse model, reply masked (Li et al. 2016; Zhang et al. 2020)
 *   bidi    : lambda * bwd + (1 - lambda) * fwd + gamma * tokens of the reply   (MMI-bidi)
 *   joint   : minus the mean NLL of everything, reply included (GPT2-chitchat's interact_mmi.py)
 *   sampled : drawn from softmax(mean log P per source token / mmi_temperature) (LHolten)
 *   forward : fwd / tokens, no reverse model needed
 *   none    : the first usable candidate */
enum { MODE_MMI = 0, MODE_BIDI, MODE_JOINT, MODE_SAMPLED, MODE_FORWARD, MODE_NONE };
const char *respond_mode_name(int mode);
int         respond_mode_of_name(const char *s); /* -1 */

typedef struct {
    int      mode, n_cand, max_new, min_new, max_turns, source_turns;
    /* candidate 0 draws what candidate first_cand of a larger turn would: k of N alone is n_cand 1, first_cand k */
    int      first_cand;
    int      top_k, top_p_rule, rep_rule, rep_scope, no_repeat; /* as in sample.h */
    float    top_p, temperature, rep_penalty;
    float    lambda, gamma, mmi_temperature;
    int      lang; /* 0 zh, 1 en: language of stock replies and refusals */
    uint64_t seed;
} respond_opts;
respond_opts respond_defaults(void);
enum { RESPOND_MAX_CAND = 256, RESPOND_MAX_NEW = 1024, RESPOND_CHOICE_STREAM = 1 << 20 /* of the RNG: no candidate draws from it */ };
/* One canonical line "mode=mmi n=16 …" that respond_opts_parse reads back exactly (floats as %.9g); what history stores. */
int respond_opts_format(const respond_opts *o, buf *out);
int respond_opts_parse(respond_opts *o, str s, err *e);       /* starts from defaults; unknown key or bad value: E_ARG */
int respond_opts_check(const respond_opts *o, err *e);        /* ranges */

const char *respond_fate_name(int fate); /* "ok", "empty", "duplicate", "blocked", "echo", "nan" */
/* Fate of a candidate.  An echo is ranked only when no CAND_OK is left, a NaN only when no echo is either. */
enum { CAND_OK = 0, CAND_EMPTY, CAND_DUPLICATE, CAND_BLOCKED, CAND_ECHO, CAND_NAN };
typedef struct {
    str        text;     /* redacted if a rule says so, like the reply itself; scores and verdict are those of what was drawn */
    const int *id;       /* (n,) without the separator; of a redacted text: its own tokens, not the drawn ones */
    int        n, ended; /* ended: the separator was drawn (else max_new or the context ended it) */
    int        fate;     /* CAND_… */
    int        dup_of;   /* index of the equal candidate when CAND_DUPLICATE, else -1 */
    double     fwd;      /* log P(reply + separator if ended | context), unfiltered; NaN not computed */
    double     bwd;      /* log P(source | reply); NaN when not scored */
    int        n_source; /* tokens behind bwd */
    double     score;    /* what the mode ranks by; NaN when not ranked */
    verdict    v;        /* of safety on the text */
} candidate;

enum { REPLY_MODEL = 0, REPLY_REFUSED /* the user's line was blocked */, REPLY_STOCK /* no usable candidate */ };
typedef struct {
    int        kind;
    str        text;      /* what is shown (redacted if a rule says so) */
    const int *id;        /* tokens of the shown reply as it enters later context */
    int        n_id;
    int        chosen;    /* index, -1 when kind != REPLY_MODEL */
    int        n;         /* candidates */
    candidate *cand;
    verdict    user_v;    /* of safety on the user's line */
    str        user_text; /* the user's line as stored and fed (redacted if a rule says so) */
    const int *user_id;
    int        n_user_id;
    int        cut;       /* tokens cut from the front of a line longer than the context */
    int        evaluated; /* prompt tokens that had to be computed */
    char       prompt_digest[65]; /* SHA-256 of the prompt ids */
    const char *fwd_digest, *bwd_digest, *rules_digest, *numerics; /* bwd "" when none */
} reply;

typedef struct responder responder;
/* fwd and bwd (may be NULL) stay the caller's; they must share a tokenizer (E_ARG names both files) and not be swapped.
 * rules may be NULL. */
int  responder_new(responder **r, gpt2 *fwd, gpt2 *bwd, const safety *rules, err *e);
void responder_free(responder *r);
void responder_set_rules(responder *r, const safety *rules);
gpt2 *responder_fwd(const responder *r);
gpt2 *responder_bwd(const responder *r); /* NULL when none */
/* Called from time to time with candidates finished; return non-zero to stop: respond gives E_CANCEL and nothing is lost. */
typedef int respond_progress(void *ctx, int done, int total, int scoring);
void responder_on_progress(responder *r, respond_progress *f, void *ctx);

/* What the sampler saw when it drew one token; the pointers are good until the call returns. */
typedef struct {
    int                step;         /* tokens of the reply drawn before */
    const float       *logits;       /* (n_vocab,) */
    int                n_vocab;
    const sample_opts *o;
    const int         *seen, *reply; /* (n_seen,), (n_reply,) as sample_draw had them */
    int                n_seen, n_reply;
    double             u;
    int                id;           /* what was drawn; the separator ends the reply */
} respond_draw;
/* Watch candidate k being made: every draw in order; and, when the reverse model judges it, the log-prob of each token of the
 * source.  One thread at a time calls.  Watching changes no result. */
typedef struct {
    int   k;
    void *ctx;
    void (*draw)(void *ctx, const respond_draw *d);
    void (*source)(void *ctx, const int *id, const double *logp, int n);
} respond_watch;
void responder_watch(responder *r, const respond_watch *w); /* copied; NULL: watch nobody (again) */

/* hist (n,) oldest first, without the new line; their ids must come from the same tokenizer (turns with text and no ids
 * are tokenised here, turns without either are skipped).  Everything in *out lives in `a`.
 *   - A user line that safety blocks: REPLY_REFUSED with the rule's message; the models do nothing, prompt_digest is
 *     "".
 *   - A line without a single token, or no usable candidate: REPLY_STOCK with a plain line in the options' language.
 *   - max_new is clipped to half of the context of either model; the prompt gets what is left of the forward model's.
 *   - All candidates are scored against the same source: the last source_turns turns of those kept in the prompt (0 =
 *     all of them), newest first,
 *     cut alike for all when the longest candidate leaves no room for more. */
int respond(responder *r, const turn *hist, int n, str user, const respond_opts *o, arena *a, reply *out, err *e);
/* Tokenise a turn's text into the arena (for histories that come as text). */
int respond_turn(responder *r, str text, int speaker, arena *a, turn *out, err *e);

/* ---- the parts, for evaluation, audit and tests ---- */

/* Teacher-forced scores of given replies: turns (n,) oldest first, the line to answer last.  In: id, n, ended, fate of
 * each candidate.  Out for those with fate CAND_OK or CAND_ECHO: fwd; and when the mode has use for it bwd, n_source (and
 * score in joint mode).  The numbers of the others become NaN. */
int respond_score(responder *r, const turn *turns, int n, candidate *cand, int n_cand, const respond_opts *o, err *e);
/* respond() with the tokens of the candidates given instead of drawn (teacher forcing): given[k] for k < o->n_cand has id, n, ended
 * as a reply record has them; the rest is done again.  fwd stays NaN where nothing is scored (empty, blocked).  E_ARG: ids that this
 * model cannot have drawn.  given NULL: respond(). */
int respond_given(responder *r, const turn *hist, int n, str user, const respond_opts *o, const candidate *given, arena *a, reply *out, err *e);
/* Score and choose: sets score (joint: already there) and CAND_NAN, gives duplicates the numbers of their first.  *chosen
 * = -1 when nothing is usable. Order: score desc, fwd desc, index asc; NaN last. */
int respond_rank(candidate *cand, int n, const respond_opts *o, int *chosen, err *e);
/* Is the reply the user's own line, apart from ASCII case, white space and punctuation (ASCII and CJK)? */
int respond_is_echo(str user, str text);

#endif
