/* audit report: writes the page of audit_report.h.  Program code. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "eval/audit_commands.h"
#include "eval/audit_report.h"

/* To a file that is there only when it is whole, or to stdout for "-". */
static int put_file(const char *path, str page, err *e)
{
    outfile *o;
    if (strcmp(path, "-") == 0)
        return fwrite(page.s, 1, page.n, stdout) == page.n && fflush(stdout) == 0 ? OK : err_set(e, E_IO, "cannot write to stdout");
    int r = out_open(&o, path, e);
    if (r) return r;
    r = out_write(o, page.s, page.n, e);
    if (r == OK) r = out_commit(o, e);
    if (r) out_abort(o);
    return r;
}

int audit_run_report(audit_job *j, int *status, err *e)
{
    arena     a    = { 0 };
    buf       page = { 0 };
    int64_t  *id;
    int       n, sound = 0;
    char      made[32];
    time_t    now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(made, sizeof made, "%Y-%m-%dT%H:%M:%SZ", &tm);
    int r = j->out ? audit_open_rules(j, e) : err_set(e, E_ARG, "report wants a page to write: -o PAGE.html, or -o - for stdout");
    if (r == OK) r = audit_chosen_turns(j, &a, &id, &n, e);
    if (r == OK) {
        const char       *path = j->db ? j->db : "history.db", *slash = strrchr(path, '/'); /* the default's name */
        audit_report_opts o    = { slash ? slash + 1 : path, str_of(made), id, n, j->conv || j->last, j->pack, j->n_sample, j->seed };
        r                      = audit_report(j->h, &o, &page, &sound, e);
    }
    if (r == OK) r = put_file(j->out, buf_view(&page), e);
    if (r == OK && strcmp(j->out, "-") != 0)
        fprintf(stderr, "%s: %d exchanges%s\n", j->out, n, sound ? "" : "; the chain of hashes does NOT hold, \"duet audit verify\" says where");
    *status = sound ? EXIT_OK : EXIT_DIFFERS;
    buf_free(&page);
    arena_free(&a);
    return r;
}
