/* format: see format.h.  Pure arithmetic over token ids: no tokenizer, no model.  Refuses a layout without a separator. */
#include "models/format.h"

#include <limits.h>
#include <string.h>

const char *format_name(int kind)
{
    return kind == FORMAT_DIALOGPT ? "dialogpt" : kind == FORMAT_CLS_SEP ? "cls_sep" : NULL;
}

int format_of_name(const char *s)
{
    if (!s) return 0;
    return strcmp(s, "dialogpt") == 0 ? FORMAT_DIALOGPT : strcmp(s, "cls_sep") == 0 ? FORMAT_CLS_SEP : 0;
}

static int check(const format *f, const turn *turns, int n, err *e)
{
    if (!format_name(f->kind)) return err_set(e, E_ARG, "format: the model states no dialogue layout (kind %d)", f->kind);
    if (f->sep < 0) return err_set(e, E_ARG, "format %s: no id for the separator that closes a turn", format_name(f->kind));
    if (f->kind == FORMAT_CLS_SEP && f->bos < 0) return err_set(e, E_ARG, "format cls_sep: no id for [CLS]");
    for (int i = 0; i < n; i++)
        if (turns[i].n < 0 || (turns[i].n > 0 && !turns[i].id))
            return err_set(e, E_ARG, "format: turn %d of %d has no ids (n = %d)", i + 1, n, turns[i].n);
    return OK;
}

static size_t bos_size(const format *f) { return f->bos >= 0; }

size_t format_length(const format *f, const turn *turns, int n)
{
    size_t sum = bos_size(f);
    for (int i = 0; i < n; i++)
        if (!turns[i].hidden) sum += (size_t)turns[i].n + 1;
    return sum;
}

static int check_oom(const ivec *ids, err *e) { return ids->oom ? err_set(e, E_NOMEM, "format: out of memory") : OK; }

int format_prompt(const format *f, const turn *turns, int n, int max_turns, int budget, ivec *ids, int *first, int *cut, err *e)
{
    int r = check(f, turns, n, e);
    if (r) return r;
    size_t bos = bos_size(f);
    if (budget < 0 || (size_t)budget < bos + 2)
        return err_set(e, E_ARG, "format: a prompt of at most %d tokens cannot hold one token and its separators", budget);

    /* From the newest turn backwards: how many whole turns fit. */
    size_t room = (size_t)budget - bos;
    int    last = -1, oldest = -1, kept = 0, cut_n = 0;
    for (int i = n - 1; i >= 0; i--) {
        if (turns[i].hidden) continue;
        size_t need = (size_t)turns[i].n + 1;
        if (last < 0) { /* the newest turn is always kept, cut at the front if it must be */
            last = oldest = i;
            if (need > room) cut_n = (int)(need - room);
            room -= cut_n ? room : need;
        } else {
            if (need > room) break;
            room -= need;
            oldest = i;
        }
        if (++kept == max_turns || cut_n) break; /* max_turns 0 is never reached: no limit */
    }
    if (last < 0) return err_set(e, E_ARG, "format: no visible turn to answer among %d", n);

    if (bos) ivec_push(ids, f->bos);
    for (int i = oldest; i <= last; i++) {
        if (turns[i].hidden) continue;
        int skip = i == last ? cut_n : 0;
        if (skip < turns[i].n) ivec_add(ids, turns[i].id + skip, (size_t)(turns[i].n - skip));
        ivec_push(ids, f->sep);
    }
    if (first) *first = oldest;
    if (cut) *cut = cut_n;
    return check_oom(ids, e);
}

int format_reverse(const format *f, const turn *turns, int n, int n_source, const int *reply, int n_reply, int budget, ivec *ids,
                   int *from, err *e)
{
    int r = check(f, turns, n, e);
    if (r) return r;
    if (n_reply < 0 || (n_reply > 0 && !reply)) return err_set(e, E_ARG, "format: a reply of %d tokens without ids", n_reply);
    size_t head = bos_size(f) + (size_t)n_reply + 1;
    if (budget < 0 || (size_t)budget <= head)
        return err_set(e, E_LIMIT, "format: a reply of %d tokens leaves no room for its source in %d positions", n_reply, budget);

    size_t start = ids->n, room = (size_t)budget - head;
    int    kept = 0;
    if (bos_size(f)) ivec_push(ids, f->bos);
    ivec_add(ids, reply, (size_t)n_reply);
    ivec_push(ids, f->sep);
    for (int i = n - 1; i >= 0; i--) {
        if (turns[i].hidden) continue;
        size_t need = (size_t)turns[i].n + 1;
        if (need > room && kept > 0) break;
        if (need > room) { /* the newest source turn alone is too long: its tail goes, its separator first */
            ivec_add(ids, turns[i].id, room);
            kept = 1;
            break;
        }
        ivec_add(ids, turns[i].id, (size_t)turns[i].n);
        ivec_push(ids, f->sep);
        room -= need;
        if (++kept == n_source) break; /* n_source 0: all */
    }
    if (kept == 0) return err_set(e, E_ARG, "format: no visible turn to score a reply against among %d", n);
    r = check_oom(ids, e);
    if (r) return r;
    if (start + head > INT_MAX) return err_set(e, E_LIMIT, "format: more than %d tokens", INT_MAX);
    *from = (int)(start + head);
    return OK;
}

/* Do all visible turns carry the same weight? */
static int uniform(const turn *turns, int n)
{
    const turn *seen = NULL;
    for (int i = 0; i < n; i++) {
        if (turns[i].hidden) continue;
        if (seen && turns[i].weight != seen->weight) return 0;
        seen = &turns[i];
    }
    return 1;
}

int format_train(const format *f, const turn *turns, int n, int reversed, int loss_all, ivec *ids, fvec *weight, err *e)
{
    int r = check(f, turns, n, e);
    if (r) return r;
    size_t start = ids->n;
    int    lift = reversed && !uniform(turns, n), shown = 0;
    if (bos_size(f)) {
        ivec_push(ids, f->bos);
        fvec_push(weight, 0);
    }
    for (int k = 0; k < n; k++) {
        const turn *t = &turns[reversed ? n - 1 - k : k];
        if (t->hidden) continue;
        if (!(t->weight >= 0))
            return err_set(e, E_ARG, "format: turn %d of %d has the loss weight %g", (int)(t - turns) + 1, n, (double)t->weight);
        float w = lift && t->weight == 0 ? 1 : t->weight;
        if (shown++ == 0 && !loss_all) w = 0;
        ivec_add(ids, t->id, (size_t)t->n);
        ivec_push(ids, f->sep);
        for (int i = 0; i <= t->n; i++) fvec_push(weight, w);
    }
    if (weight->oom) return err_set(e, E_NOMEM, "format: out of memory");
    r = check_oom(ids, e);
    if (r) return r;
    if (shown == 0) return err_set(e, E_ARG, "format: no visible turn among %d", n);
    weight->v[weight->n - (ids->n - start)] = 0; /* nothing precedes the first token */
    return OK;
}
