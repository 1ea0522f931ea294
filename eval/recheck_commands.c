/* audit rules: prints what recheck.h found out.  Program code. */
#include <stdio.h>
#include <string.h>

#include "eval/audit_commands.h"
#include "eval/recheck.h"

typedef struct {
    const audit_job *j;
    json_t          *list;
} printer;

static int put_item(void *ctx, const recheck_item *x)
{
    printer *p = ctx;
    char     what[24];
    if (p->j->json) {
        json_array_append_new(p->list, json_pack("{s:I, s:I, s:i, s:o, s:b, s:s, s:s, s:s, s:s, s:s, s:o}", "turn", (json_int_t)x->turn, "conversation",
                                                 (json_int_t)x->conv, "n", x->n, "candidate", x->k < 0 ? json_null() : json_integer(x->k), "shown",
                                                 x->shown, "what", recheck_name(x->kind), "was", safety_action_name(x->was), "is",
                                                 safety_action_name(x->is), "was_rule", x->was_rule, "is_rule", x->is_rule, "text", js_text(x->text)));
        return 0;
    }
    if (x->k < 0) snprintf(what, sizeof what, "user");
    else snprintf(what, sizeof what, x->shown ? "reply" : "candidate %d", x->k);
    printf("%-16s  turn %-6lld %-13s %s %s -> %s %s  ", recheck_name(x->kind), (long long)x->turn, what, safety_action_name(x->was), x->was_rule,
           safety_action_name(x->is), x->is_rule);
    put_visible(x->text);
    putchar('\n');
    return 0;
}

static void put_sum(const recheck_sum *s)
{
    int wide = 4, unnamed = 0;
    for (int i = 0; i < s->rules.n; i++) {
        if ((int)s->rules.row[i].name.n > wide) wide = (int)s->rules.row[i].name.n;
        unnamed |= !s->rules.row[i].category.n;
    }
    if (s->rules.n) printf("%-*s  %8s %8s %8s  category\n", wide, "rule", "then", "now", "");
    for (int i = 0; i < s->rules.n; i++) {
        const rule_row *r = &s->rules.row[i];
        printf("%-*.*s  %8lld %8lld ", wide, (int)r->name.n, r->name.s, (long long)r->n[0], (long long)r->n[1]);
        if (r->n[1] == r->n[0]) printf("%8s", "=");
        else printf("%+8lld", (long long)(r->n[1] - r->n[0]));
        printf("  %.*s\n", (int)r->category.n, r->category.n ? r->category.s : "");
    }
    printf("%lld lines and %lld candidates judged again", (long long)s->n_lines, (long long)s->n_candidates);
    if (s->n_forgotten) printf(", %lld exchanges are forgotten", (long long)s->n_forgotten);
    for (int k = RECHECK_BLOCKED; k < RECHECK_KINDS; k++)
        if (s->kind[k] || k <= RECHECK_ACTION) printf("%s %lld %s", k == RECHECK_BLOCKED ? ":" : ",", (long long)s->kind[k], recheck_name(k));
    putchar('\n');
    if (unnamed) puts("rules shown by number are of packs that are not at hand: --rules names them");
    if (s->replies_blocked) printf("%lld of the newly blocked were shown as replies\n", (long long)s->replies_blocked);
}

static int put_sum_json(const recheck_sum *s, const safety *now, json_t *list, err *e)
{
    json_t *rules = json_array();
    for (int i = 0; i < s->rules.n; i++)
        json_array_append_new(rules, json_pack("{s:o, s:o, s:I, s:I}", "rule", js_text(s->rules.row[i].name), "category", js_text(s->rules.row[i].category), "was",
                                               (json_int_t)s->rules.row[i].n[0], "is", (json_int_t)s->rules.row[i].n[1]));
    return js_line(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "rules", safety_digest(now), "lines", (json_int_t)s->n_lines,
                              "candidates", (json_int_t)s->n_candidates, "forgotten", (json_int_t)s->n_forgotten, "newly_blocked",
                              (json_int_t)s->kind[RECHECK_BLOCKED], "newly_allowed", (json_int_t)s->kind[RECHECK_ALLOWED], "other_action",
                              (json_int_t)s->kind[RECHECK_ACTION], "other_rule", (json_int_t)s->kind[RECHECK_RULE], "not_judged_whole",
                              (json_int_t)s->kind[RECHECK_PARTLY], "replies_blocked", (json_int_t)s->replies_blocked, "by_rule", rules, "changes", list),
                    e);
}

int audit_run_rules(audit_job *j, int *status, err *e)
{
    arena       a    = { 0 };
    int64_t    *id;
    int         n;
    safety     *now  = NULL;
    open_names  with = { .rules = j->with, .prefix = j->names.prefix };
    recheck_sum sum;
    printer     p = { j, j->json ? json_array() : NULL };
    int         r = open_rules(&with, &now, e);
    if (r == OK) r = audit_open_rules(j, e);
    if (r == OK) r = audit_chosen_turns(j, &a, &id, &n, e);
    if (r == OK) r = recheck(j->h, id, n, j->pack, now, put_item, &p, &a, &sum, e);
    if (r == OK && j->json) r = put_sum_json(&sum, now, p.list, e), p.list = NULL;
    else if (r == OK) put_sum(&sum);
    if (r == OK) *status = recheck_differs(&sum) ? EXIT_DIFFERS : EXIT_OK;
    json_decref(p.list);
    safety_close(now);
    arena_free(&a);
    return r;
}
