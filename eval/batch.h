/* batch: the replies of a system to a whole test set.  One line of output for each item, in order, whatever happens to it; a run that was
 * killed goes on where it stopped and leaves the same bytes.  Owns the settings file of a system and the file of its replies. */
#ifndef DUET_BATCH_H
#define DUET_BATCH_H

#include <jansson.h>

#include "dialog/respond.h"
#include "eval/testset.h"

/* A settings file: lines "key: value", # begins a comment.
 *   name      in tables and file names: letters, digits, . _ -; default: the file's name without its end
 *   forward   the forward model    (files: relative to the settings file's folder)
 *   backward  the backward model
 *   options   what respond_opts_format writes, or a part of it: "mode=bidi n=16 lambda=0.7 seed=1"
 *   rules     none, or a rule pack; default: none
 *   replies   instead of all these: a text file, line i is the reply to item i */
typedef struct {
    str          name;
    const char  *forward, *backward, *rules, *replies; /* NULL: not given */
    respond_opts opts;
} system_spec;
/* Everything lives in `a`.  Errors name file and line. */
int system_read(system_spec *s, const char *path, arena *a, err *e);

/* Told at the start and whenever lines have been written; non-zero stops the run with E_CANCEL (what is done stays). */
typedef int batch_progress(void *ctx, int done, int total);

/* Contexts that batch_generate answers side by side with each responder when it is not told: what 256 MB of keys, values and logits hold, at
 * most 8. */
int batch_together(const responder *r, const respond_opts *o);
/* Replies of item i are respond()'s with seed rng_u64(o->seed, i, 0), as `duet reply` has for line i.  n_r responders of the same models and rules
 * share the work, each on contexts of its own, `together` of them at a time (1 to 16, 0: batch_together()); neither number changes the result.
 * Memory: respond_job_bytes() for each context under way, and the lines that wait for one before them.  There is no padding in a batch, so
 * items need not be sorted by length: they are taken in order, and a kill loses only what is under way.  The lines go to <path>.part, whole lines of
 * which are kept when it is there already, and <path> appears when all is done; when <path> is there, nothing is done.  <path>.settings says what
 * made it (set, models, rules, options, arithmetic); a file there that says something else is E_ARG.
 *
 * A line: {"item": i, "reply", "kind": "model" | "refused" | "stock" | "error", "chosen", "candidates": [{"text", "fate", "verdict", "fwd", "bwd", "score", "tokens",
 * "ended"}], "reference": {"logp", "tokens"}}; reference: the first one under the forward model, its separator included (null without).  An item
 * that cannot be answered (a text too long for the rules, a character that the vocabulary lacks) has an empty reply, kind "error" and "error":
 * why; the run goes on.  Memory and files that fail stop it. */
int batch_generate(responder *const *r, int n_r, int together, const testset *t, const respond_opts *o, const char *path, batch_progress *f, void *ctx, err *e);

/* Two perplexities of the references from the lines of batch_generate: exp(sum of NLL / sum of tokens), and DialoGPT's exp(mean over items of NLL /
 * tokens); and that of the sum per character and per word (tokenise: TOKENISE_…) of the references, so that vocabularies compare.  NaN without. */
typedef struct {
    double token, item, character, word;
} perplexities;
/* The lines of a finished file as a JSON array, for free() with json_decref; E_FORMAT when it has other than n whole lines with a "reply". */
int batch_read(const char *path, int n, json_t **lines, err *e);
/* A view of the reply of line i. */
str batch_reply(const json_t *lines, int i);
int batch_perplexities(const json_t *lines, const testset *t, int tokenise, perplexities *p, err *e);

#endif
