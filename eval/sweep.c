/* sweep: see sweep.h. */
#include "eval/sweep.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for a sweep"); }

/* ---- the plan -------------------------------------------------------------------------------------------------- */

static int needs_reverse(int mode) { return mode != MODE_FORWARD && mode != MODE_NONE; }

static int same(const respond_opts *a, const respond_opts *b)
{
    return a->mode == b->mode && a->n_cand == b->n_cand && a->temperature == b->temperature && (a->mode != MODE_BIDI || a->lambda == b->lambda);
}

static void name_point(sweep_point *p)
{
    const respond_opts *o = &p->o;
    char                lambda[32] = "";
    if (o->mode == MODE_BIDI) snprintf(lambda, sizeof lambda, " l=%.6g", (double)o->lambda);
    snprintf(p->name, sizeof p->name, "%s%s n=%d t=%.6g", respond_mode_name(o->mode), lambda, o->n_cand, (double)o->temperature);
}

static int add_point(sweep_plan *p, const respond_opts *o, err *e)
{
    for (int i = 0; i < p->n; i++)
        if (same(&p->point[i].o, o)) return OK;
    if (p->n == SWEEP_POINTS) return err_set(e, E_LIMIT, "more than %d settings", SWEEP_POINTS);
    int r = respond_opts_check(o, e);
    if (r) return r;
    p->point[p->n].o = *o;
    name_point(&p->point[p->n++]);
    return OK;
}

/* All points of one mode: the crossing, then along each axis; or every combination. */
static int add_mode(sweep_plan *p, const sweep_grid *g, int mode, err *e)
{
    int r = OK, lambdas = mode == MODE_BIDI ? g->n_lambda : 0;
    for (int t = -1; t < g->n_temperature; t++)
        for (int n = -1; n < g->n_n; n++)
            for (int l = -1; l < lambdas && r == OK; l++) {
                respond_opts o = g->base;
                if ((t >= 0) + (n >= 0) + (l >= 0) > 1 && !g->full) continue;
                o.mode = mode;
                if (t >= 0) o.temperature = g->temperature[t];
                if (n >= 0) o.n_cand = g->n[n];
                if (l >= 0) o.lambda = g->lambda[l];
                r = add_point(p, &o, e);
            }
    return r;
}

/* The run that a point is ranked from; made when it is not there, with as many candidates as any of its points wants. */
static int add_drawing(sweep_plan *p, sweep_point *x, int reverse)
{
    respond_opts o = x->o;
    int          k = 0;
    o.mode   = o.mode == MODE_JOINT ? MODE_JOINT : reverse ? MODE_SAMPLED : MODE_FORWARD;
    o.lambda = respond_defaults().lambda; /* of no consequence there */
    while (k < p->n_drawing && !(p->drawing[k].o.mode == o.mode && p->drawing[k].o.temperature == o.temperature)) k++;
    if (k == p->n_drawing) {
        p->drawing[k].o = o;
        snprintf(p->drawing[k].name, sizeof p->drawing[k].name, "t%.6g%s", (double)o.temperature, o.mode == MODE_JOINT ? "-joint" : "");
        p->n_drawing++;
    }
    if (o.n_cand > p->drawing[k].o.n_cand) p->drawing[k].o.n_cand = o.n_cand;
    return k;
}

int sweep_plan_new(const sweep_grid *g, arena *a, sweep_plan *p, err *e)
{
    int r = OK, forward = 0, reverse = 0;
    *p    = (sweep_plan){ .point = arena_new(a, SWEEP_POINTS, sizeof *p->point), .drawing = arena_new(a, SWEEP_POINTS, sizeof *p->drawing) };
    if (!p->point || !p->drawing) return no_memory(e);
    for (int m = 0; m < g->n_mode; m++) forward |= g->mode[m] == MODE_FORWARD;
    if (forward) r = add_mode(p, g, MODE_FORWARD, e);
    if (r == OK) r = add_mode(p, g, g->base.mode, e);
    for (int m = 0; m < g->n_mode && r == OK; m++) r = add_mode(p, g, g->mode[m], e);
    for (int i = 0; i < p->n; i++) reverse |= needs_reverse(p->point[i].o.mode);
    for (int i = 0; i < p->n && r == OK; i++) p->point[i].drawing = add_drawing(p, &p->point[i], reverse);
    return r;
}

/* ---- the choice ------------------------------------------------------------------------------------------------ */

static int fate_of(const char *name)
{
    for (int f = CAND_OK; f <= CAND_NAN; f++)
        if (name && strcmp(name, respond_fate_name(f)) == 0) return f;
    return -1;
}

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static str text(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return (str){ json_string_value(v), json_string_length(v) };
}

static int read_candidate(const json_t *j, int mode, candidate *c, err *e)
{
    *c = (candidate){ .text = text(j, "text"), .n = (int)json_integer_value(json_object_get(j, "tokens")), .ended = json_is_true(json_object_get(j, "ended")),
                      .fate = fate_of(json_string_value(json_object_get(j, "fate"))), .dup_of = -1, .fwd = number(j, "fwd"), .bwd = number(j, "bwd"),
                      .score = number(j, "score"), .v = { .rule = -1 } };
    if (c->fate < 0 || !json_is_string(json_object_get(j, "text"))) return err_set(e, E_FORMAT, "a candidate without text or fate");
    if (c->fate == CAND_NAN) c->fate = CAND_OK; /* the ranking finds that out again */
    /* Mode sampled ranks by bwd a source token; the other scores there are no whole multiples of anything. */
    if (mode != MODE_JOINT && isfinite(c->bwd) && isfinite(c->score) && c->score < 0) c->n_source = (int)lround(c->bwd / c->score);
    return OK;
}

int sweep_choose(const json_t *line, int item, const respond_opts *o, str stock, arena *a, sweep_reply *out, err *e)
{
    const json_t *cands = json_object_get(line, "candidates"), *kind = json_object_get(line, "kind");
    respond_opts  mine  = *o;
    int           n = (int)json_array_size(cands), r = OK, chosen;
    *out = (sweep_reply){ .text = text(line, "reply"), .chosen = -1, .fwd = NAN, .bwd = NAN };
    if (!json_is_string(kind) || !out->text.s) return err_set(e, E_FORMAT, "item %d: a line without kind or reply", item + 1);
    if (n == 0) return OK; /* refused, stock for a line without a token, or an error: no setting changes that */
    if (n < o->n_cand) return err_set(e, E_ARG, "item %d: %d candidates are there, %d wanted", item + 1, n, o->n_cand);
    candidate *c = arena_new(a, (size_t)o->n_cand, sizeof *c);
    if (!c) return no_memory(e);
    for (int k = 0; k < o->n_cand && r == OK; k++) r = read_candidate(json_array_get(cands, (size_t)k), o->mode, &c[k], e);
    mine.seed = rng_u64(o->seed, (uint64_t)item, 0);
    if (r == OK) r = respond_rank(c, o->n_cand, &mine, &chosen, e);
    if (r) return err_prefix(e, "item %d", item + 1);
    if (chosen < 0) {
        out->text = stock;
        return OK;
    }
    *out = (sweep_reply){ c[chosen].text, chosen, c[chosen].fwd, c[chosen].bwd, c[chosen].n + c[chosen].ended, c[chosen].n_source };
    return OK;
}
