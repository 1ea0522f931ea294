/* What the commands of eval/ that run models share: opening a pair of models and the rule packs as the options say.  Program code. */
#include <string.h>

#include "dialog/paths.h"
#include "eval/commands.h"

int open_pair(const pair_options *o, gpt2 **fwd, gpt2 **bwd, err *e)
{
    buf f = { 0 }, b = { 0 };
    int r = OK;
    if (o->models[0] || o->model) {
        buf_str(&f, str_of(o->model ? o->model : o->models[0]));
        if (o->models[0] && strcmp(o->models[1], "-") != 0) buf_str(&b, str_of(o->models[1]));
    } else {
        r = path_models(o->name ? o->name : "duet-zh", DUET_PREFIX, &f, &b, e);
    }
    if (r == OK && (f.oom || b.oom)) r = err_set(e, E_NOMEM, "out of memory");
    if (r == OK) r = gpt2_open(fwd, f.s, e);
    if (r == OK && b.n) r = gpt2_open(bwd, b.s, e);
    buf_free(&f);
    buf_free(&b);
    return r;
}

int open_packs(const opt_list *packs, safety **out, err *e)
{
    if (packs->n) return safety_open(out, packs->v, packs->n, e);
    buf         b = { 0 };
    int         r = path_shared("dialog/rules", DUET_PREFIX, &b, e);
    const char *p = b.s;
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : safety_open(out, &p, 1, e);
    buf_free(&b);
    return r;
}

int pair_options_check(const pair_options *o, err *e)
{
    if ((o->models[0] != NULL) + (o->model != NULL) + (o->name != NULL) > 1) return err_set(e, E_ARG, "--models, --model and --name exclude one another");
    return OK;
}
