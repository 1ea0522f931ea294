/* paths: see paths.h. */
#include "dialog/paths.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Folder of the running program, without a final slash; out stays empty when the system does not tell. */
static void program_dir(buf *out)
{
    char    p[4096];
    ssize_t n = readlink("/proc/self/exe", p, sizeof p);
    if (n <= 0 || n == (ssize_t)sizeof p) return;
    while (n > 1 && p[n - 1] != '/') n--;
    buf_add(out, p, (size_t)(n > 1 ? n - 1 : n));
}

int path_shared(const char *what, const char *prefix, buf *out, err *e)
{
    static const char *const near[] = { "/../", "/../share/duet/", "/../../" /* build/asan/duet */ };
    buf                      dir = { 0 }, p = { 0 };
    struct stat              st;
    int                      found = 0;
    program_dir(&dir);
    for (size_t i = 0; dir.n && i < sizeof near / sizeof near[0] && !found; i++) {
        buf_reset(&p);
        buf_fmt(&p, "%s%s%s", dir.s, near[i], what);
        found = !p.oom && stat(p.s, &st) == 0;
    }
    if (!found && prefix) {
        buf_reset(&p);
        buf_fmt(&p, "%s/share/duet/%s", prefix, what);
        found = !p.oom && stat(p.s, &st) == 0;
    }
    int r = OK;
    if (found) buf_str(out, buf_view(&p));
    else if (p.oom || dir.oom) r = err_set(e, E_NOMEM, "out of memory looking for %s", what);
    else r = err_set(e, E_IO, "no %s beside the program (%s/..)%s%s%s", what, dir.n ? dir.s : "?", prefix ? " and none in " : "",
                     prefix ? prefix : "", prefix ? "/share/duet" : "");
    if (r == OK && out->oom) r = err_set(e, E_NOMEM, "out of memory looking for %s", what);
    buf_free(&dir);
    buf_free(&p);
    return r;
}

/* The first NAME in byte order with NAME-forward.gguf in the folder; name stays empty when there is none. */
static void first_model(const char *dir, buf *name)
{
    static const char tail[] = "-forward.gguf";
    DIR              *d      = opendir(dir);
    if (!d) return;
    for (struct dirent *f; (f = readdir(d));) {
        size_t n = strlen(f->d_name), t = sizeof tail - 1;
        if (n <= t || strcmp(f->d_name + n - t, tail) != 0) continue;
        f->d_name[n - t] = 0;
        if (name->n && strcmp(name->s, f->d_name) <= 0) continue;
        buf_reset(name);
        buf_str(name, str_of(f->d_name));
    }
    closedir(d);
}

int path_models(const char *name, const char *prefix, buf *fwd, buf *bwd, err *e)
{
    buf         dir = { 0 }, first = { 0 }, f = { 0 }, b = { 0 };
    struct stat st;
    int         r = path_shared("models/weights", prefix, &dir, e);
    if (r == OK && !name) {
        first_model(dir.s, &first);
        if (first.n) name = first.s;
        else r = err_set(e, E_IO, "%s: no model there (NAME-forward.gguf was looked for)", dir.s);
    }
    if (r == OK) {
        buf_fmt(&f, "%s/%s-forward.gguf", dir.s, name);
        buf_fmt(&b, "%s/%s-backward.gguf", dir.s, name);
        if (f.oom || b.oom) r = err_set(e, E_NOMEM, "out of memory looking for models");
        else if (stat(f.s, &st) != 0) r = err_set(e, E_IO, "%s: %s", f.s, strerror(errno));
    }
    if (r == OK) {
        buf_str(fwd, buf_view(&f));
        if (stat(b.s, &st) == 0) buf_str(bwd, buf_view(&b));
        if (fwd->oom || bwd->oom) r = err_set(e, E_NOMEM, "out of memory looking for models");
    }
    buf_free(&dir);
    buf_free(&first);
    buf_free(&f);
    buf_free(&b);
    return r;
}

/* Make the folders of `path` (all but its last part) that are missing. */
static int make_folders(char *path, err *e)
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        struct stat st;
        *p    = 0;
        int r = mkdir(path, 0700) == 0 || errno == EEXIST || stat(path, &st) == 0 ? OK
                : err_set(e, E_IO, "%s: cannot make the folder: %s", path, strerror(errno));
        *p    = '/';
        if (r) return r;
    }
    return OK;
}

int path_database(const char *home, const char *xdg, int make, buf *out, err *e)
{
    buf p = { 0 };
    if (xdg && xdg[0] == '/') buf_fmt(&p, "%s/duet/history.db", xdg);
    else if (home && home[0] == '/') buf_fmt(&p, "%s/.local/share/duet/history.db", home);
    else return err_set(e, E_ARG, "no home folder to keep the conversations in; name a database with --db, or use --private");
    int r = p.oom ? err_set(e, E_NOMEM, "out of memory") : make ? make_folders(p.s, e) : OK;
    if (r == OK) {
        buf_str(out, buf_view(&p));
        if (out->oom) r = err_set(e, E_NOMEM, "out of memory");
    }
    buf_free(&p);
    return r;
}
