/* audit_report: see audit_report.h. */
#include "eval/audit_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval/audit.h"
#include "eval/doubt.h"
#include "eval/page.h"
#include "eval/readers.h"
#include "eval/tally.h"

enum { LONGEST = 10 /* conversations listed */, POINTS = 1500 /* drawn */ };

typedef struct {
    history                 *h;
    const audit_report_opts *o;
    arena                    mem;
    tally                    t;
    audit_fault             *fault;
    int                      n_fault;
    int64_t                  n_rows;
    conversation            *conv;
    int                      n_conv;
} report;

static double percent(int64_t k, int64_t n) { return n ? 100.0 * (double)k / (double)n : 0; }

/* ---- the parts ------------------------------------------------------------------------------------------------- */

static void put_head(buf *b, report *r)
{
    const tally *t = &r->t;
    page_tiles(b);
    if (r->n_fault) page_tile(b, -1, "the chain of hashes", "%d fault%s", r->n_fault, r->n_fault == 1 ? "" : "s");
    else page_tile(b, 1, "the chain of hashes", "holds");
    page_tile(b, 0, "exchanges", "%lld", (long long)t->n_turns);
    page_tile(b, 0, "conversations", "%d", r->n_conv);
    page_tile(b, 0, "answered by the model", "%.1f %%", percent(t->kind[REPLY_MODEL], t->n_turns));
    page_tile(b, 0, "refused by a rule", "%lld", (long long)t->kind[REPLY_REFUSED]);
    page_tile(b, 0, "stock replies", "%lld", (long long)t->kind[REPLY_STOCK]);
    page_tile(b, 0, "median time of a reply", "%.2f s", tally_quantile(&t->seconds, .5));
    page_tiles_end(b);
    if (r->o->is_part) page_note(b, "Only a part of the store was counted; the chain was checked whole.");
    if (t->n_undone || t->n_forgotten || t->n_stale)
        page_note(b, "Of the exchanges, %lld were undone later, %lld are forgotten (their words are erased; digests and fates stay), and %lld were stored "
                     "while another program had added rows that they did not know.",
                  (long long)t->n_undone, (long long)t->n_forgotten, (long long)t->n_stale);
}

static void put_chain(buf *b, report *r)
{
    page_section(b, "chain", "The record");
    if (r->n_fault == 0) {
        page_note(b, "%lld rows in %d conversations were read and hashed again, and every hash is what is stored: no text, score, verdict or order was changed, "
                     "and no row was taken out from between others. A tail that was cut off cannot show here; the hashes of \"duet history head\", kept elsewhere, show it.",
                  (long long)r->n_rows, r->n_conv);
    } else {
        page_note(b, "%lld rows are good. The first fault of each conversation, or of the file:", (long long)r->n_rows);
        page_table(b, "conversation|turn|what differs");
        for (int i = 0; i < r->n_fault; i++) {
            page_row(b);
            if (r->fault[i].conv) page_cell_num(b, "%lld", (long long)r->fault[i].conv);
            else page_cell(b, STR("the file"));
            if (r->fault[i].turn > 0) page_cell_num(b, "%lld", (long long)r->fault[i].turn);
            else page_cell(b, STR("–"));
            page_cell(b, r->fault[i].what);
        }
        page_table_end(b);
    }
    page_table(b, "#exchanges|forward model|backward model|rules|arithmetic");
    for (int i = 0; i < r->t.n_setup; i++) {
        const tally_setup *s       = &r->t.setup[i];
        const char        *hash[3] = { s->fwd, s->bwd, s->rules };
        page_row(b);
        page_cell_num(b, "%lld", (long long)s->n);
        for (int k = 0; k < 3; k++) {
            char d[20];
            snprintf(d, sizeof d, "%.12s", hash[k][0] ? hash[k] : "none");
            page_cell(b, str_of(d));
        }
        page_cell(b, str_of(s->numerics));
    }
    page_table_end(b);
}

static void put_volume(buf *b, report *r)
{
    const tally_time *t = &r->t.time;
    char              note[160];
    const page_series s[] = { { "by the model", NULL, t->kind[REPLY_MODEL], t->n, NULL, NULL }, { "refused", NULL, t->kind[REPLY_REFUSED], t->n, NULL, NULL },
                              { "stock reply", NULL, t->kind[REPLY_STOCK], t->n, NULL, NULL } };
    page_section(b, "volume", "How much, and how fast");
    page_figures(b);
    snprintf(note, sizeof note, "exchanges by %s, UTC%s", t->unit, t->undated ? "; those without a readable date are left out" : "");
    page_columns(b, "Volume over time", note, t->name, t->n, s, 3);

    const tally_list *q      = &r->t.seconds;
    const page_series time   = { "seconds", q->v, NULL, q->n, NULL, NULL };
    const page_mark   mark[] = { { "p50", tally_quantile(q, .5) }, { "p95", tally_quantile(q, .95) }, { "p99", tally_quantile(q, .99) } };
    snprintf(note, sizeof note, "seconds, all candidates included; p50 %.3g, p95 %.3g, p99 %.3g, longest %.3g; share of exchanges", mark[0].x, mark[1].x,
             mark[2].x, tally_quantile(q, 1));
    page_histogram(b, "Time of a reply", note, &time, 1, mark, 3);
    page_figures_end(b);
}

static void put_actions(buf *b, const char *title, const char *note, const int64_t n[5])
{
    static const int colour[5] = { 5, 0, 1, 4, 3 };
    page_bar         bar[5];
    int              m = 0;
    for (int i = RULE_BLOCK; i >= RULE_FLAG; i--)
        bar[m++] = (page_bar){ str_of(safety_action_name(i)), (double)n[i], colour[i] };
    page_bars(b, title, note, bar, m, "%.0f");
}

static void put_rules(buf *b, report *r)
{
    const tally *t = &r->t;
    int64_t      lines = 0, cands = 0;
    char         note[2][120];
    page_section(b, "rules", "What the rules did");
    for (int i = 0; i < 5; i++) lines += t->line_action[i], cands += t->cand_action[i];
    snprintf(note[0], sizeof note[0], "of %lld lines; nothing hit in %lld", (long long)lines, (long long)t->line_action[RULE_NONE]);
    snprintf(note[1], sizeof note[1], "of %lld candidates; nothing hit in %lld", (long long)cands, (long long)t->cand_action[RULE_NONE]);
    page_figures(b);
    put_actions(b, "Verdicts on the users' lines", note[0], t->line_action);
    put_actions(b, "Verdicts on the models' candidates", note[1], t->cand_action);
    page_figures_end(b);
    if (t->rules.n == 0) return;
    page_table(b, "rule|category|#lines|#candidates|#replies shown");
    for (int i = 0; i < t->rules.n; i++) {
        const rule_row *x = &t->rules.row[i];
        page_row(b);
        page_cell(b, x->name);
        page_cell(b, x->category);
        for (int k = 0; k < RULE_COUNTS; k++) page_cell_num(b, "%lld", (long long)x->n[k]);
    }
    page_table_end(b);
}

static void put_rate(buf *b, int64_t k, int64_t n)
{
    double lo, hi;
    doubt_wilson((double)k, (double)n, &lo, &hi);
    if (n) page_cell_num(b, "%.1f (%.1f–%.1f)", 1000.0 * (double)k / (double)n, 1000 * lo, 1000 * hi);
    else page_cell_num(b, "–");
}

static void put_faults(buf *b, report *r)
{
    const tally *t = &r->t;
    page_section(b, "faults", "Faults per 1000 replies");
    page_note(b, "Counted by machine over %lld replies that were shown and %lld candidates that were drawn; in brackets the 95 %% interval (Wilson). For comparison: "
                 "of 1000 replies of CDial-GPT its authors counted by hand 23 with repetition, 9 with dirty words and 2 otherwise bad. A machine's count is not a "
                 "reader's: \"duet audit sample\" asks readers.",
              (long long)t->n_shown, (long long)t->n_drawn);
    page_table(b, "fault|#shown, per 1000|#drawn, per 1000|what is counted");
    for (int i = 0; i < TALLY_FAULTS; i++) {
        page_row(b);
        page_cell(b, str_of(tally_fault_name(i)));
        put_rate(b, t->of_shown[i], t->n_shown);
        put_rate(b, t->of_drawn[i], t->n_drawn);
        page_cell(b, str_of(tally_fault_what(i)));
    }
    page_table_end(b);
}

/* What people judged, when anybody did. */
static int put_readers(buf *b, report *r, err *e)
{
    judgment   *list;
    readers_sum s;
    double      lo, hi;
    int         n, got = hist_judgments(r->h, &r->mem, &list, &n, e);
    reading    *v      = got == OK ? arena_new(&r->mem, (size_t)n, sizeof *v) : NULL;
    if (got) return got;
    if (!v) return err_set(e, E_NOMEM, "out of memory for judgments");
    for (int i = 0; i < n; i++) v[i] = (reading){ list[i].turn, list[i].reader, list[i].label };
    got = readers_agree(v, n, JUDGE_LABELS, &r->mem, &s, e);
    if (got || n == 0) return got;
    page_section(b, "readers", "What readers said");
    page_note(b, "%d replies were judged, %d of them by two readers and more. Where readers differ, each has a part of the reply. The interval (95 %%, Wilson) is the "
                 "sample's.", s.n_turns, s.n_shared);
    page_table(b, "judgment|#per 1000 replies");
    for (int k = 0; k < JUDGE_LABELS; k++) {
        page_row(b);
        page_cell(b, str_of(hist_label_name(k)));
        doubt_wilson(s.share[k] * s.n_turns, s.n_turns, &lo, &hi);
        page_cell_num(b, "%.1f (%.1f–%.1f)", 1000 * s.share[k], 1000 * lo, 1000 * hi);
    }
    page_table_end(b);
    if (s.n_pair == 0) return OK;
    page_table(b, "reader|reader|#both judged|#alike|#Cohen's kappa");
    for (int i = 0; i < s.n_pair; i++) {
        const readers_pair *p = &s.pair[i];
        page_row(b);
        page_cell(b, s.one[p->a].reader);
        page_cell(b, s.one[p->b].reader);
        page_cell_num(b, "%d", p->n);
        if (p->n) page_cell_num(b, "%.1f %%", 100 * p->observed);
        else page_cell_num(b, "–");
        if (isnan(p->kappa)) page_cell_num(b, "–");
        else page_cell_num(b, "%.3f", p->kappa);
    }
    page_table_end(b);
    if (!isnan(s.alpha)) page_note(b, "Krippendorff's alpha over all readers: %.3f.", s.alpha);
    return OK;
}

/* Every so many-th pair, so that a large store stays a small page. */
static int thin(const tally_list *x, const tally_list *y, double *px, double *py, int most)
{
    int every = (x->n - 1) / most + 1, n = 0;
    for (int i = 0; i < x->n; i += every, n++) px[n] = x->v[i], py[n] = y->v[i];
    return n;
}

static int put_scores(buf *b, report *r, err *e)
{
    const tally      *t     = &r->t;
    const page_series fwd[] = { { "all usable candidates", t->fwd.v, NULL, t->fwd.n, NULL, NULL }, { "chosen", t->fwd_chosen.v, NULL, t->fwd_chosen.n, NULL, NULL } };
    const page_series bwd[] = { { "all usable candidates", t->bwd.v, NULL, t->bwd.n, NULL, NULL }, { "chosen", t->bwd_chosen.v, NULL, t->bwd_chosen.n, NULL, NULL } };
    double           *p     = arena_new(&r->mem, (size_t)POINTS * 4 + 4, sizeof *p);
    page_bar          bar[6];
    if (!p) return err_set(e, E_NOMEM, "out of memory for a report");
    page_section(b, "choice", "How replies were chosen");
    page_note(b, "%lld candidates for %lld exchanges. In %lld of the %lld exchanges with two usable candidates and more (%.0f %%) the ranking chose another one than the "
                 "likeliest per token, which a bot without it would have said.",
              (long long)t->n_cand, (long long)(t->candidates.n), (long long)t->n_moved, (long long)t->n_ranked, percent(t->n_moved, t->n_ranked));
    for (int i = 0; i < 6; i++) bar[i] = (page_bar){ str_of(respond_fate_name(i)), percent(t->fate[i], t->n_cand), i == CAND_OK ? 2 : i == CAND_BLOCKED ? 3 : 5 };
    page_figures(b);
    page_bars(b, "Fates of the candidates", "% of all that were drawn", bar, 6, "%.2f");
    page_histogram(b, "Forward score", "log P(reply | context) per token: how likely the reply is", fwd, 2, NULL, 0);
    page_histogram(b, "Backward score", "log P(line | reply) per token: how well the reply tells what it answers", bwd, 2, NULL, 0);
    page_series s[2] = { { "candidates", p, p + POINTS + 1, 0, NULL, NULL }, { "chosen", p + 2 * POINTS + 2, p + 3 * POINTS + 3, 0, NULL, NULL } };
    s[0].n = thin(&t->fwd, &t->bwd, p, p + POINTS + 1, POINTS);
    s[1].n = thin(&t->fwd_chosen, &t->bwd_chosen, p + 2 * POINTS + 2, p + 3 * POINTS + 3, POINTS / 3);
    page_plot(b, "Both scores", "each point a candidate, per token", PAGE_POINTS, "forward", "backward", s, 2);
    page_figures_end(b);
    return OK;
}

static int by_length(const void *a, const void *b)
{
    const conversation *p = a, *q = b;
    return p->n_turns != q->n_turns ? (p->n_turns < q->n_turns) - (p->n_turns > q->n_turns) : (p->id > q->id) - (p->id < q->id);
}

static int put_longest(buf *b, report *r, err *e)
{
    qsort(r->conv, (size_t)r->n_conv, sizeof *r->conv, by_length);
    page_section(b, "longest", "The longest conversations");
    page_table(b, "#conversation|title|#exchanges|#rows|#begun|last hash of its chain");
    for (int i = 0; i < r->n_conv && i < LONGEST; i++) {
        unsigned char hash[32];
        char          hex[65];
        int           n, got = hist_head(r->h, r->conv[i].id, &n, hash, e);
        if (got) return got;
        sha256_hex(hash, hex);
        page_row(b);
        page_cell_num(b, "%lld", (long long)r->conv[i].id);
        page_cell(b, r->conv[i].title);
        page_cell_num(b, "%d", r->conv[i].n_turns);
        page_cell_num(b, "%d", n);
        page_cell_num(b, "%.*s", (int)r->conv[i].created.n, r->conv[i].created.s);
        page_cell(b, (str){ hex, 16 });
    }
    page_table_end(b);
    return OK;
}

static int put_samples(buf *b, report *r, err *e)
{
    int64_t *id = arena_new(&r->mem, (size_t)r->o->n_sample, sizeof *id);
    int      n  = id ? readers_sample(r->o->id, r->o->n, r->o->n_sample, r->o->seed, id, e) : err_set(e, E_NOMEM, "out of memory for a sample");
    if (n < 0) return n;
    page_section(b, "samples", "Samples");
    page_note(b, "%d exchanges at random (seed %llu). \"duet audit why TURN\" explains one.", n, (unsigned long long)r->o->seed);
    for (int i = 0; i < n; i++) {
        arena        a = { 0 };
        exchange     x;
        respond_opts o;
        int          got = hist_exchange(r->h, id[i], &a, &x, e);
        if (got == OK) {
            const char *mode = x.r.kind == REPLY_REFUSED ? "refused" : x.r.kind == REPLY_STOCK ? "stock reply" :
                               respond_opts_parse(&o, x.opts, NULL) ? "model" : respond_mode_name(o.mode);
            page_card(b, "turn %lld · conversation %lld, row %d · %s · %d candidates%s", (long long)x.id, (long long)x.conv, x.n, mode, x.r.n,
                      x.forgotten ? " · forgotten" : x.undone ? " · undone" : "");
            if (!x.forgotten) {
                page_say(b, STR("user"), x.r.user_text);
                page_say(b, STR("duet"), x.r.text);
            }
            page_card_end(b);
        }
        arena_free(&a);
        if (got) return got;
    }
    return OK;
}

static int put_page(buf *b, report *r, err *e)
{
    char title[300];
    snprintf(title, sizeof title, "Audit of %.200s", r->o->name);
    page_begin(b, "en", str_of(title));
    page_note(b, "Made %.*s by duet %s. Everything here was read from the store; nothing was generated for this page.", (int)r->o->made.n, r->o->made.s, DUET_VERSION);
    put_head(b, r);
    put_chain(b, r);
    put_volume(b, r);
    put_rules(b, r);
    put_faults(b, r);
    int got = put_readers(b, r, e);
    if (got == OK) got = put_scores(b, r, e);
    if (got == OK) got = put_longest(b, r, e);
    if (got == OK && r->o->n_sample > 0) got = put_samples(b, r, e);
    page_end(b);
    return got == OK && b->oom ? err_set(e, E_NOMEM, "out of memory for a report") : got;
}

int audit_report(history *h, const audit_report_opts *o, buf *page, int *sound, err *e)
{
    report r   = { .h = h, .o = o };
    int    got = audit_verify(h, &r.mem, &r.fault, &r.n_fault, &r.n_rows, e);
    *sound     = got == OK && r.n_fault == 0;
    if (got == OK) got = tally_store(h, o->id, o->n, o->rules, &r.mem, &r.t, e);
    if (got == OK) got = hist_list(h, 0, &r.mem, &r.conv, &r.n_conv, e);
    if (got == OK) got = put_page(page, &r, e);
    arena_free(&r.mem);
    return got;
}
