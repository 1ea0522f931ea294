/* poll: see poll.h. */
#include "eval/poll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dialog/json.h"
#include "eval/doubt.h"
#include "eval/page.h"

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the judgments"); }

/* ---- counting -------------------------------------------------------------------------------------------------- */

/* Sum of the answers to question k of unit u, and their number. */
static int sum_of(const ballot *list, int n, int u, int k, int *sum)
{
    int votes = 0;
    *sum      = 0;
    for (int i = 0; i < n; i++)
        if (list[i].unit == u) *sum += list[i].answer[k], votes++;
    return votes;
}

static void close_versus(poll_versus *v)
{
    double of[3] = { v->win, v->tie, v->loss }, votes = v->vote[0] + v->vote[1] + v->vote[2];
    for (int k = 0; k < 3; k++) {
        doubt_wilson(of[k], v->n, &v->lo[k], &v->hi[k]);
        v->vote[k] = votes > 0 ? v->vote[k] / votes : NAN;
    }
    v->p = doubt_sign((int)v->win, (int)v->loss);
}

static void add_verdict(poll_versus *v, int sum)
{
    v->n++;
    v->win += sum > 0;
    v->tie += sum == 0;
    v->loss += sum < 0;
}

static void count_pair(const study *s, const ballot *list, int n, poll_pair *x, int n_q)
{
    for (int i = 0; i < s->n_same; i++) x->n_same += s->same[i].a == x->a && s->same[i].b == x->b;
    for (int u = 0; u < s->n; u++) {
        if (s->unit[u].a != x->a || s->unit[u].b != x->b) continue;
        for (int k = 0; k < n_q; k++) {
            int sum;
            if (!sum_of(list, n, u, k, &sum)) continue;
            add_verdict(&x->q[k], sum);
            for (int i = 0; i < n; i++)
                if (list[i].unit == u) x->q[k].vote[1 - list[i].answer[k]]++;
        }
    }
}

/* The unit in which a system speaks on an item, -1. */
static int unit_of(const study *s, int item, int system)
{
    for (int u = 0; u < s->n; u++)
        if (s->unit[u].item == item && s->unit[u].systems >> system & 1) return u;
    return -1;
}

static void count_ssa_pair(const study *s, const ballot *list, int n, poll_pair *x)
{
    for (int i = 0; i < s->n_item; i++) {
        int ua = unit_of(s, i, x->a), ub = unit_of(s, i, x->b);
        for (int k = 0; k < 2 && ua >= 0 && ub >= 0; k++) {
            int sa, sb, na = sum_of(list, n, ua, k, &sa), nb = sum_of(list, n, ub, k, &sb);
            if (!na || !nb) continue;
            int sign = (sa * nb > sb * na) - (sa * nb < sb * na); /* of the means */
            add_verdict(&x->q[k], sign);
            x->q[k].vote[1 - sign]++;
        }
    }
}

static void count_shares(const study *s, const ballot *list, int n, poll *p)
{
    for (int y = 0; y < s->n_system; y++) {
        for (int k = 0; k < 2; k++) {
            poll_share *x   = &p->system[y][k];
            double      yes = 0;
            for (int u = 0; u < s->n; u++) {
                int sum, votes = s->unit[u].systems >> y & 1 ? sum_of(list, n, u, k, &sum) : 0;
                if (!votes) continue;
                x->n++;
                yes += (double)sum / votes;
            }
            x->share = x->n ? yes / x->n : NAN;
            doubt_wilson(yes, x->n, &x->lo, &x->hi);
        }
        p->ssa[y] = (p->system[y][0].share + p->system[y][1].share) / 2;
    }
}

static int agreement(const ballot *list, int n, int k, int kind, arena *a, readers_sum *out, err *e)
{
    reading *r = arena_new(a, (size_t)n, sizeof *r);
    if (!r) return no_memory(e);
    for (int i = 0; i < n; i++) r[i] = (reading){ list[i].unit, list[i].judge, kind == STUDY_SSA ? list[i].answer[k] : list[i].answer[k] + 1 };
    return readers_agree(r, n, kind == STUDY_SSA ? 2 : 3, a, out, e);
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

static int median_seconds(const ballot *list, int n, arena *a, double *out, err *e)
{
    double *v = arena_new(a, (size_t)n, sizeof *v);
    int     m = 0;
    if (!v) return no_memory(e);
    for (int i = 0; i < n; i++)
        if (isfinite(list[i].seconds)) v[m++] = list[i].seconds;
    qsort(v, (size_t)m, sizeof *v, by_size);
    *out = m ? v[m / 2] : NAN;
    return OK;
}

/* How often the first and the second of the two that a judge saw won. */
static int count_sides(const study *s, const ballot *list, int n, int n_q, arena *a, poll *p, err *e)
{
    int           *unit    = arena_new(a, (size_t)s->n, sizeof *unit), r = OK;
    unsigned char *swapped = arena_new(a, (size_t)s->n, 1), *by_unit = arena_new(a, (size_t)s->n, 1);
    if (!unit || !swapped || !by_unit) return no_memory(e);
    for (int j = 0; j < p->agree[0].n_one && r == OK; j++) {
        str judge = p->agree[0].one[j].reader;
        r         = study_order(s, judge, unit, swapped, e);
        for (int i = 0; i < s->n; i++) by_unit[unit[i]] = swapped[i];
        for (int i = 0; i < n && r == OK; i++)
            for (int k = 0; k < n_q && str_eq(list[i].judge, judge); k++) {
                int shown = by_unit[list[i].unit] ? -list[i].answer[k] : list[i].answer[k];
                p->first_won += shown > 0;
                p->second_won += shown < 0;
            }
    }
    p->side_p = doubt_sign(p->first_won, p->second_won);
    return r;
}

int poll_count(const study *s, const ballot *list, int n, arena *a, poll *p, err *e)
{
    int n_q, r = OK;
    study_questions(s->kind, &n_q);
    *p      = (poll){ .s = s, .n_judgments = n, .seconds = NAN, .side_p = 1 };
    p->pair = arena_new(a, POLL_PAIRS, sizeof *p->pair);
    if (!p->pair) return no_memory(e);
    for (int i = 0; i < s->n_system; i++)
        for (int k = i + 1; k < s->n_system; k++) {
            poll_pair *x = &p->pair[p->n_pair++];
            *x           = (poll_pair){ .a = i, .b = k };
            if (s->kind == STUDY_PAIR) count_pair(s, list, n, x, n_q);
            else count_ssa_pair(s, list, n, x);
            for (int q = 0; q < n_q; q++) close_versus(&x->q[q]);
        }
    if (s->kind == STUDY_SSA) count_shares(s, list, n, p);
    for (int k = 0; k < n_q && r == OK; k++) r = agreement(list, n, k, s->kind, a, &p->agree[k], e);
    if (r == OK) p->n_units = p->agree[0].n_turns;
    if (r == OK && s->kind == STUDY_PAIR) r = count_sides(s, list, n, n_q, a, p, e);
    return r ? r : median_seconds(list, n, a, &p->seconds, e);
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

static void put_name(buf *out, str s) { buf_visible(out, s); }

static void put_versus(const poll_versus *v, const char *name, buf *out)
{
    double of[3] = { v->win, v->tie, v->loss };
    buf_fmt(out, "  %-16s", name);
    for (int k = 0; k < 3; k++) buf_fmt(out, " %4.0f %5.1f%% [%4.1f, %5.1f]", of[k], v->n ? 100 * of[k] / v->n : 0, 100 * v->lo[k], 100 * v->hi[k]);
    buf_fmt(out, "  %.4f\n", v->p);
}

static void put_pair(const poll *p, const poll_pair *x, buf *out)
{
    int                   n_q;
    const study_question *q = study_questions(p->s->kind, &n_q);
    buf_chr(out, '\n');
    put_name(out, p->s->system[x->a]);
    buf_str(out, STR(" against "));
    put_name(out, p->s->system[x->b]);
    buf_fmt(out, ": %d units judged", x->q[0].n);
    if (p->s->kind == STUDY_PAIR) buf_fmt(out, ", %d more had equal replies and were not shown", x->n_same);
    buf_fmt(out, "\n  %-16s %-25s %-25s %-25s  p\n", "", "wins", "ties", "losses");
    for (int k = 0; k < n_q; k++) put_versus(&x->q[k], q[k].name[0], out);
    for (int k = 0; k < n_q && x->n_same && x->q[k].n; k++)
        buf_fmt(out, "  %s with the equal ones as ties: %.1f / %.1f / %.1f %%\n", q[k].name[0], 100 * x->q[k].win / (x->q[k].n + x->n_same), 100 * (x->q[k].tie + x->n_same) / (x->q[k].n + x->n_same),
                100 * x->q[k].loss / (x->q[k].n + x->n_same));
}

static void put_agreement(const readers_sum *s, const char *name, buf *out)
{
    buf_fmt(out, "  %-16s", name);
    if (isnan(s->alpha)) buf_str(out, STR(" nothing to tell apart (one answer everywhere, or nothing judged twice)\n"));
    else buf_fmt(out, " Krippendorff's alpha %.3f over %d units", s->alpha, s->n_shared);
    if (!isnan(s->alpha) && s->fleiss_m) {
        if (isnan(s->fleiss)) buf_fmt(out, "; Fleiss' kappa undefined\n");
        else buf_fmt(out, "; Fleiss' kappa %.3f over the %d with %d judges\n", s->fleiss, s->fleiss_n, s->fleiss_m);
    } else if (!isnan(s->alpha)) buf_chr(out, '\n');
    for (int i = 0; i < s->n_pair && !isnan(s->alpha); i++) {
        const readers_pair *x = &s->pair[i];
        if (!x->n) continue;
        buf_str(out, STR("    "));
        put_name(out, s->one[x->a].reader);
        buf_str(out, STR(" and "));
        put_name(out, s->one[x->b].reader);
        buf_fmt(out, ": %d both, %.1f %% alike, Cohen's kappa %.3f\n", x->n, 100 * x->observed, x->kappa);
    }
}

int poll_text(const poll *p, buf *out, err *e)
{
    int                   n_q;
    const study         *s = p->s;
    const study_question *q = study_questions(s->kind, &n_q);
    buf_fmt(out, "%d judgments of %d units (of %d) by %d judge%s", p->n_judgments, p->n_units, s->n, p->agree[0].n_one, p->agree[0].n_one == 1 ? "" : "s");
    if (isfinite(p->seconds)) buf_fmt(out, ", median %.0f s each", p->seconds);
    buf_chr(out, '\n');
    for (int i = 0; i < p->agree[0].n_one; i++) {
        buf_str(out, STR("  "));
        put_name(out, p->agree[0].one[i].reader);
        buf_fmt(out, ": %d of %d\n", p->agree[0].one[i].n, s->n);
    }
    if (s->kind == STUDY_SSA) {
        buf_fmt(out, "\n%-24s %6s  %-24s %-24s %s\n", "", "n", "sensible", "specific", "SSA");
        for (int y = 0; y < s->n_system; y++) {
            const poll_share *x = p->system[y];
            size_t            at = out->n;
            put_name(out, s->system[y]);
            while (out->n < at + 24) buf_chr(out, ' ');
            buf_fmt(out, " %6d", x[0].n);
            for (int k = 0; k < 2; k++) buf_fmt(out, "  %5.1f%% [%4.1f, %5.1f]    ", 100 * x[k].share, 100 * x[k].lo, 100 * x[k].hi);
            buf_fmt(out, " %.1f%%\n", 100 * p->ssa[y]);
        }
    }
    for (int i = 0; i < p->n_pair; i++) put_pair(p, &p->pair[i], out);
    buf_str(out, STR("\nIn brackets Wilson's 95 % intervals; p: exact sign test of wins against losses. Of several judges the majority speaks for a unit.\n"));
    if (s->kind == STUDY_PAIR && p->first_won + p->second_won)
        buf_fmt(out, "The reply shown first won %d times, the second %d (sign test p %.4f%s).\n", p->first_won, p->second_won, p->side_p, p->side_p < 0.05 ? ": the side pulls" : "");
    if (p->agree[0].n_one < 2) buf_str(out, STR("\nAgreement takes two judges.\n"));
    else {
        buf_str(out, STR("\nagreement\n"));
        for (int k = 0; k < n_q; k++) put_agreement(&p->agree[k], q[k].name[0], out);
    }
    return out->oom ? no_memory(e) : OK;
}

/* ---- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *versus_json(const poll_versus *v)
{
    return json_pack("{s:i, s:f, s:f, s:f, s:[[f,f],[f,f],[f,f]], s:[o,o,o], s:f}", "units", v->n, "wins", v->win, "ties", v->tie, "losses", v->loss, "intervals", v->lo[0], v->hi[0], v->lo[1], v->hi[1],
                     v->lo[2], v->hi[2], "votes", js_real(v->vote[0]), js_real(v->vote[1]), js_real(v->vote[2]), "p", v->p);
}

static json_t *agreement_json(const readers_sum *s)
{
    json_t *pairs = json_array();
    for (int i = 0; i < s->n_pair; i++)
        json_array_append_new(pairs, json_pack("{s:o, s:o, s:i, s:o, s:o}", "a", js_text(s->one[s->pair[i].a].reader), "b", js_text(s->one[s->pair[i].b].reader), "both", s->pair[i].n, "alike",
                                               js_real(s->pair[i].observed), "cohen_kappa", js_real(s->pair[i].kappa)));
    return json_pack("{s:o, s:i, s:o, s:i, s:i, s:o}", "krippendorff_alpha", js_real(s->alpha), "shared", s->n_shared, "fleiss_kappa", js_real(s->fleiss), "fleiss_judges", s->fleiss_m, "fleiss_units",
                     s->fleiss_n, "pairs", pairs);
}

json_t *poll_json(const poll *p, err *e)
{
    int                   n_q;
    const study          *s = p->s;
    const study_question *q = study_questions(s->kind, &n_q);
    json_t *pairs = json_array(), *agree = json_object(), *judges = json_object(), *systems = json_array();
    for (int i = 0; i < p->n_pair; i++) {
        const poll_pair *x = &p->pair[i];
        json_t          *o = json_pack("{s:o, s:o, s:i}", "a", js_text(s->system[x->a]), "b", js_text(s->system[x->b]), "equal_replies", x->n_same);
        for (int k = 0; k < n_q; k++) json_object_set_new(o, q[k].key, versus_json(&x->q[k]));
        json_array_append_new(pairs, o);
    }
    for (int k = 0; k < n_q; k++) json_object_set_new(agree, q[k].key, agreement_json(&p->agree[k]));
    for (int i = 0; i < p->agree[0].n_one; i++) {
        json_t *name = js_text(p->agree[0].one[i].reader);
        json_object_set_new(judges, json_string_value(name), json_integer(p->agree[0].one[i].n));
        json_decref(name);
    }
    for (int y = 0; y < s->n_system; y++) {
        json_t *o = json_pack("{s:o}", "name", js_text(s->system[y]));
        for (int k = 0; k < 2 && s->kind == STUDY_SSA; k++)
            json_object_set_new(o, q[k].key, json_pack("{s:i, s:o, s:f, s:f}", "n", p->system[y][k].n, "share", js_real(p->system[y][k].share), "lo", p->system[y][k].lo, "hi", p->system[y][k].hi));
        if (s->kind == STUDY_SSA) json_object_set_new(o, "ssa", js_real(p->ssa[y]));
        json_array_append_new(systems, o);
    }
    json_t *root = json_pack("{s:s, s:s, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:{s:i, s:i, s:f}}", "study", s->digest, "kind", s->kind == STUDY_SSA ? "ssa" : "pair", "units", s->n, "judged",
                             p->n_units, "judgments", p->n_judgments, "median_seconds", js_real(p->seconds), "judges", judges, "systems", systems, "pairs", pairs, "agreement", agree, "sides",
                             "first", p->first_won, "second", p->second_won, "p", p->side_p);
    if (!root) no_memory(e);
    return root;
}

/* ---- the page -------------------------------------------------------------------------------------------------- */

static void put_bars(buf *out, const poll *p, const poll_pair *x)
{
    int                   n_q;
    const study_question *q = study_questions(p->s->kind, &n_q);
    page_table(out, "question|#wins|#ties|#losses|#p");
    for (int k = 0; k < n_q; k++) {
        const poll_versus *v = &x->q[k];
        double             of[3] = { v->win, v->tie, v->loss };
        buf                cell = { 0 };
        page_row(out);
        page_cell(out, str_of(q[k].name[0]));
        for (int i = 0; i < 3; i++) {
            buf_reset(&cell);
            buf_fmt(&cell, "%.0f, %.1f %%<br><small>[%.1f, %.1f]</small>", of[i], v->n ? 100 * of[i] / v->n : 0, 100 * v->lo[i], 100 * v->hi[i]);
            page_cell_html(out, i != 1 && v->p < 0.05 && of[i] > of[2 - i], &cell);
        }
        page_cell_num(out, "%.4f", v->p);
        out->oom |= cell.oom;
        buf_free(&cell);
    }
    page_table_end(out);
}

static void put_answers(buf *out, const study *s, const ballot *x, const study_question *q, int n_q)
{
    buf b = { 0 };
    for (int k = 0; k < n_q; k++)
        buf_fmt(&b, "%s%s %s", k ? ", " : "", q[k].name[0], s->kind == STUDY_SSA ? x->answer[k] ? "yes" : "no" : x->answer[k] > 0 ? "first" : x->answer[k] < 0 ? "second" : "tie");
    page_say(out, x->judge, buf_view(&b));
    out->oom |= b.oom;
    buf_free(&b);
}

static void put_unit(buf *out, const poll *p, const ballot *list, int n, int u)
{
    int                   n_q;
    const study          *s = p->s;
    const study_question *q = study_questions(s->kind, &n_q);
    const study_unit     *x = &s->unit[u];
    const study_item     *item = &s->item[x->item];
    page_card(out, "item %d", item->number + 1);
    for (int k = 0; k < item->n_turn; k++) page_say(out, (item->n_turn - 1 - k) & 1 ? STR(">") : STR("<"), item->turn[k]);
    for (int side = 0; side < 1 + (x->b >= 0); side++) {
        buf name = { 0 };
        for (int y = 0; y < s->n_system; y++)
            if (x->b >= 0 ? y == (side ? x->b : x->a) : (int)(x->systems >> y & 1)) {
                if (name.n) buf_str(&name, STR(", "));
                buf_str(&name, s->system[y]);
            }
        page_say(out, buf_view(&name), x->reply[side]);
        out->oom |= name.oom;
        buf_free(&name);
    }
    for (int i = 0; i < n; i++)
        if (list[i].unit == u) put_answers(out, s, &list[i], q, n_q);
    page_card_end(out);
}

int poll_html(const poll *p, const ballot *list, int n, buf *out, err *e)
{
    int                   n_q;
    const study          *s = p->s;
    const study_question *q = study_questions(s->kind, &n_q);
    page_begin(out, "en", STR("Duet: what the judges found"));
    page_tiles(out);
    page_tile(out, 0, "judgments", "%d", p->n_judgments);
    page_tile(out, 0, "units judged", "%d of %d", p->n_units, s->n);
    page_tile(out, 0, "judges", "%d", p->agree[0].n_one);
    if (isfinite(p->seconds)) page_tile(out, 0, "seconds each, median", "%.0f", p->seconds);
    page_tiles_end(out);
    if (s->kind == STUDY_SSA) {
        page_section(out, "ssa", "Sensible and specific");
        page_table(out, "system|#replies|#sensible|#specific|#SSA");
        for (int y = 0; y < s->n_system; y++) {
            page_row(out);
            page_cell(out, s->system[y]);
            page_cell_num(out, "%d", p->system[y][0].n);
            for (int k = 0; k < 2; k++) page_cell_num(out, "%.1f %% [%.1f, %.1f]", 100 * p->system[y][k].share, 100 * p->system[y][k].lo, 100 * p->system[y][k].hi);
            page_cell_num(out, "%.1f %%", 100 * p->ssa[y]);
        }
        page_table_end(out);
    }
    page_section(out, "pairs", "Side by side");
    for (int i = 0; i < p->n_pair; i++) {
        page_note(out, "%.*s against %.*s: %d units judged, %d more had equal replies.", (int)s->system[p->pair[i].a].n, s->system[p->pair[i].a].s, (int)s->system[p->pair[i].b].n,
                  s->system[p->pair[i].b].s, p->pair[i].q[0].n, p->pair[i].n_same);
        put_bars(out, p, &p->pair[i]);
    }
    page_note(out, "Wins, ties and losses of the first one; in brackets Wilson's 95 %% intervals; p: exact sign test of wins against losses. Of several judges the majority speaks for a unit.");
    if (s->kind == STUDY_PAIR) page_note(out, "The reply shown first won %d times, the second %d (sign test p %.4f).", p->first_won, p->second_won, p->side_p);
    page_section(out, "agreement", "Agreement");
    if (p->agree[0].n_one < 2) page_note(out, "Agreement takes two judges.");
    else {
        page_table(out, "question|#Krippendorff's alpha|#Fleiss' kappa|#units judged twice and more");
        for (int k = 0; k < n_q; k++) {
            page_row(out);
            page_cell(out, str_of(q[k].name[0]));
            page_cell_num(out, "%.3f", p->agree[k].alpha);
            page_cell_num(out, "%.3f", p->agree[k].fleiss);
            page_cell_num(out, "%d", p->agree[k].n_shared);
        }
        page_table_end(out);
    }
    page_section(out, "units", "Every judgment");
    for (int u = 0; u < s->n; u++) {
        int sum;
        if (sum_of(list, n, u, 0, &sum)) put_unit(out, p, list, n, u);
    }
    page_end(out);
    return out->oom ? no_memory(e) : OK;
}
