/* paths: where things are when nobody says so: the models and rules that come with the program, and the default database.
 * Looks at the file system and at the program's own name (/proc/self/exe); never at the environment: HOME and XDG_DATA_HOME
 * come as arguments. */
#ifndef DUET_PATHS_H
#define DUET_PATHS_H

#include "models/base.h"

/* The first of these that exists, PROGRAM being the folder of the running program:
 *   PROGRAM/../<what>, PROGRAM/../share/duet/<what>, PROGRAM/../../<what> (a build below build/), <prefix>/share/duet/<what>
 * `what` is relative: "models/weights", "dialog/rules".  prefix: DUET_PREFIX in programs; NULL leaves the last place out.  Appends
 * the path to out; E_IO names the places that were tried. */
int path_shared(const char *what, const char *prefix, buf *out, err *e);

/* The pair of models NAME-forward.gguf and NAME-backward.gguf of the shared folder models/weights.  name NULL: the first NAME in
 * byte order that has a forward model.  bwd is left empty when there is no backward model.  E_IO: no folder, or no such model. */
int path_models(const char *name, const char *prefix, buf *fwd, buf *bwd, err *e);

/* The default database: <xdg_data_home>/duet/history.db when that is an absolute path, else <home>/.local/share/duet/history.db.
 * Either may be NULL or empty; E_ARG when neither helps (the line says to use --db or --private).  make != 0: missing
 * folders on the way are made, mode 0700. */
int path_database(const char *home, const char *xdg_data_home, int make, buf *out, err *e);

#endif
