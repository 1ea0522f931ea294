/* main: the front door of the program `duet`.  The table of commands, help, and the only place that decides the exit status.  Results go to
 * stdout, everything else to stderr. */
#include "models/options.h"

#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const command *const rooms[] = { dialog_commands, models_commands, corpus_commands, eval_commands };
static const char *const    titles[] = { "talk and its record", "models", "corpora and training", "evaluation and audit" };
enum { N_ROOMS = sizeof rooms / sizeof rooms[0] };

static const command *find(const char *name)
{
    for (int r = 0; r < N_ROOMS; r++)
        for (const command *c = rooms[r]; c->name; c++)
            if (strcmp(c->name, name) == 0) return c;
    return NULL;
}

static void help(FILE *f)
{
    fputs("Duet " DUET_VERSION ": a dialogue system with two GPT-2 models, one that proposes and one that judges.\n\n"
          "usage: duet COMMAND [options]\n", f);
    for (int r = 0; r < N_ROOMS; r++) {
        fprintf(f, "\n%s\n", titles[r]);
        for (const command *c = rooms[r]; c->name; c++) fprintf(f, "  %-12s %s\n", c->name, c->line);
    }
    fputs("\nduet help COMMAND tells the options of one.  Exit status: 0 ok, 1 failed, 2 wrong usage, 3 an audit found a difference.\n", f);
}

/* A word of the command line nearest to what was typed, for the error text; NULL when nothing is near. */
static const char *nearest(const char *name)
{
    for (int r = 0; r < N_ROOMS; r++)
        for (const command *c = rooms[r]; c->name; c++)
            if (strncmp(c->name, name, 3) == 0) return c->name;
    return NULL;
}

/* stdout is a pipe that nobody reads any more, as in `duet show M | head -1`. */
static int reader_left(void)
{
    struct pollfd p = { .fd = STDOUT_FILENO, .events = POLLOUT };
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR);
}

/* A result that did not reach stdout whole is a failure, whatever the command says; but a reader who has seen enough needs no
 * message. */
static int finish(const char *name, int rc, err *e)
{
    int cut = fflush(stdout) != 0 || ferror(stdout);
    if (cut && reader_left()) return rc == EXIT_OK ? EXIT_FAILED : rc;
    if (cut && rc == EXIT_OK) {
        err_set(e, E_IO, "cannot write to stdout");
        rc = EXIT_FAILED;
    }
    if ((rc == EXIT_FAILED || rc == EXIT_USAGE) && e->msg[0])
        fprintf(stderr, "duet %s: %s%s\n", name, e->msg, rc == EXIT_USAGE ? " (duet help tells the usage)" : "");
    return rc;
}

static int run(const command *c, int argc, char **argv)
{
    err e = { 0 };
    return finish(c->name, c->run(argc, argv, &e), &e);
}

static int tell(int argc, char **argv)
{
    static char   *ask[] = { "--help", NULL };
    err            e     = { 0 };
    const command *c     = argc > 0 ? find(argv[0]) : NULL;
    if (c) return run(c, 1, ask);
    if (argc > 0) return finish("help", (err_set(&e, E_ARG, "no command '%s'", argv[0]), EXIT_USAGE), &e);
    help(stdout);
    return finish("help", EXIT_OK, &e);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8"); /* Duet speaks UTF-8 whatever the locale */
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write: the command ends in order, with its store closed */
    if (argc < 2) {
        help(stderr);
        return EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return tell(argc - 2, argv + 2);
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        err e = { 0 };
        puts("duet " DUET_VERSION);
        return finish("version", EXIT_OK, &e);
    }
    const command *c = find(name);
    if (c) return run(c, argc - 2, argv + 2);
    const char *near = nearest(name);
    fprintf(stderr, "duet: no command '%s'%s%s%s; `duet help` lists them\n", name, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    return EXIT_USAGE;
}
