/* sweep: many settings of the ranking from few drawings.  Candidate k's tokens depend on (seed, k, step) and the temperature alone, so one file of
 * batch_generate with the most candidates holds every smaller N as a prefix, and every way to rank what it has scores for.  Owns the list of
 * points and the choice among stored candidates; draws nothing itself. */
#ifndef DUET_SWEEP_H
#define DUET_SWEEP_H

#include <jansson.h>

#include "dialog/respond.h"

enum { SWEEP_VALUES = 64, SWEEP_POINTS = 512 };
typedef struct {
    respond_opts base;                  /* everything that is not swept; its lambda, n_cand, mode and temperature are where the axes cross */
    float        lambda[SWEEP_VALUES];  /* of bidi */
    int          n_lambda;
    int          n[SWEEP_VALUES];
    int          n_n;
    int          mode[SWEEP_VALUES];
    int          n_mode;
    float        temperature[SWEEP_VALUES];
    int          n_temperature;
    int          full;                  /* every combination; else only one axis at a time leaves the crossing */
} sweep_grid;

typedef struct {
    respond_opts o;
    char         name[80];  /* "bidi l=0.7 n=16 t=0.5": lambda where it counts */
    int          drawing;   /* index of the drawing it is ranked from */
} sweep_point;
/* What must be drawn: the options of one run of batch_generate.  Every mode but joint is ranked from a run in mode `sampled`, whose lines hold both scores and
 * the length of the source; joint has scores of its own and hence runs of its own.  Forward and none alone need no backward model: mode `forward`. */
typedef struct {
    respond_opts o;
    char         name[64];  /* of the file: "t0.5", "t0.5-joint" */
} sweep_drawing;
typedef struct {
    sweep_point   *point;   /* (n,) the first is the baseline: forward at the crossing when forward is swept, else the crossing itself */
    int            n;
    sweep_drawing *drawing; /* (n_drawing,) */
    int            n_drawing;
} sweep_plan;
/* Values that are missing on an axis are the base's own; the base's own are always on it.  No value twice.  E_ARG: a value out of range, too many points. */
int sweep_plan_new(const sweep_grid *g, arena *a, sweep_plan *p, err *e);

typedef struct {
    str    text;          /* "" for an item that could not be answered */
    int    chosen;        /* -1: stock, refused or error */
    double fwd, bwd;      /* of the chosen one; NaN without */
    int    tokens, source;/* of the chosen one (its separator counts), of the line it answers */
} sweep_reply;
/* What respond() would have said with options o, from a line of a drawing with at least o->n_cand candidates: respond_rank over the first o->n_cand.
 * stock: what is said when none of them is usable.  item: for the draw of mode sampled, as batch.h has it. */
int sweep_choose(const json_t *line, int item, const respond_opts *o, str stock, arena *a, sweep_reply *out, err *e);

#endif
