/* audit report: writes the page of audit_report.h.  Program code. */
#include <stdio.h>
#include <string.h>

#include "eval/audit_commands.h"
#include "eval/audit_report.h"

int audit_run_report(audit_job *j, int *status, err *e)
{
    arena     a    = { 0 };
    buf       page = { 0 };
    int64_t  *id;
    int       n, sound = 0;
    char      made[32];
    int r = audit_open_rules(j, e);
    if (r == OK) r = audit_chosen_turns(j, &a, &id, &n, e);
    if (r == OK) {
        const char       *path = j->db ? j->db : "history.db", *slash = strrchr(path, '/'); /* the default's name */
        audit_report_opts o    = { slash ? slash + 1 : path, cmd_utc(made), id, n, j->conv || j->last, j->pack, j->n_sample, j->seed };
        r                      = audit_report(j->h, &o, &page, &sound, e);
    }
    if (r == OK) r = audit_put_file(j->out, buf_view(&page), e);
    if (r == OK && strcmp(j->out, "-") != 0)
        fprintf(stderr, "%s: %d exchanges%s\n", j->out, n, sound ? "" : "; the chain of hashes does NOT hold, \"duet audit verify\" says where");
    *status = sound ? EXIT_OK : EXIT_DIFFERS;
    buf_free(&page);
    arena_free(&a);
    return r;
}
