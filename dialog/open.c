/* open: see open.h. */
#include "dialog/open.h"

#include <string.h>

#include "dialog/paths.h"

int open_check(const open_names *o, err *e)
{
    if ((o->models[0] != NULL) + (o->model != NULL) + (o->name != NULL) > 1)
        return err_set(e, E_ARG, "--models, --model and --name exclude one another");
    return o->no_rules && o->rules.n ? err_set(e, E_ARG, "--rules and --no-rules exclude one another") : OK;
}

static int model_paths(const open_names *o, buf *fwd, buf *bwd, err *e)
{
    int r = OK;
    if (o->models[0] || o->model) {
        buf_str(fwd, str_of(o->model ? o->model : o->models[0]));
        if (o->models[0] && strcmp(o->models[1], "-") != 0) buf_str(bwd, str_of(o->models[1]));
    } else {
        const char *own = o->lang && strcmp(o->lang, "en") == 0 ? "duet-en" : "duet-zh";
        r               = path_models(o->name ? o->name : own, o->prefix, fwd, bwd, e);
        if (r && !o->name) { /* not that pair: any other that is there */
            buf_reset(fwd);
            buf_reset(bwd);
            r = path_models(NULL, o->prefix, fwd, bwd, e);
        }
    }
    return r == OK && (fwd->oom || bwd->oom) ? err_set(e, E_NOMEM, "out of memory") : r;
}

int open_models(const open_names *o, gpt2 **fwd, gpt2 **bwd, err *e)
{
    buf f = { 0 }, b = { 0 };
    *fwd = *bwd = NULL;
    int r       = model_paths(o, &f, &b, e);
    if (r == OK) r = gpt2_open(fwd, f.s, e);
    if (r == OK && b.n) r = gpt2_open(bwd, b.s, e);
    if (r) {
        gpt2_close(*fwd);
        *fwd = *bwd = NULL;
    }
    buf_free(&f);
    buf_free(&b);
    return r;
}

int open_rules(const open_names *o, safety **s, err *e)
{
    *s = NULL;
    if (o->no_rules) return OK;
    if (o->rules.n) return safety_open(s, o->rules.v, o->rules.n, e);
    buf         b = { 0 };
    int         r = path_shared("dialog/rules", o->prefix, &b, e);
    const char *p = b.s;
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : safety_open(s, &p, 1, e);
    buf_free(&b);
    return r;
}

int open_store(const char *db, const char *home, const char *xdg_data_home, int flags, history **h, err *e)
{
    *h = NULL;
    if (db) return hist_open(h, db, flags, e);
    buf b = { 0 };
    int r = path_database(home, xdg_data_home, (flags & HIST_WRITE) != 0, &b, e);
    if (r == OK) r = b.oom ? err_set(e, E_NOMEM, "out of memory") : hist_open(h, b.s, flags, e);
    buf_free(&b);
    return r;
}
