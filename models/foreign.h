/* foreign: the tensors of somebody else's weight files, as found: names, element types, shapes, strides, and where the bytes
 * are.  One set may gather several files (shards).  Which kind a file is, is read from its first bytes.  Every tensor of a set has been checked
 * to lie inside its file; nothing is read or allocated for the data until foreign_rows asks. */
#ifndef DUET_FOREIGN_H
#define DUET_FOREIGN_H

#include "models/base.h"

enum { FT_F32 = 1, FT_F16, FT_BF16, FT_F64, FT_OTHER /* integers and bools: buffers, never weights */ };
enum { FOREIGN_DIMS = 8 };
typedef struct {
    str                  name;
    int                  type, n_dims;
    uint64_t             size[FOREIGN_DIMS];   /* outermost first, as PyTorch prints it */
    uint64_t             stride[FOREIGN_DIMS]; /* elements */
    uint64_t             first;                /* element of the storage where the tensor begins */
    const unsigned char *bytes;                /* the storage inside a map, of any alignment; NULL: entry `entry` of a zip archive */
    size_t               n_bytes;              /* of the storage */
    int                  file;                 /* which of the set's files */
    uint64_t             entry;
} foreign_tensor;

typedef struct {
    char   *path;
    filemap map;
    void   *zip; /* pickle.c's archive, or NULL */
} foreign_file;

typedef struct {
    foreign_tensor *t; /* sorted by name after foreign_sort */
    int             n, cap;
    foreign_file   *file;
    int             n_file;
    struct {
        int            file;
        uint64_t       entry;
        unsigned char *p; /* malloc'ed */
    } held[2];            /* the two storages of zip archives used last */
    int             next; /* which of the two goes next */
    arena           mem;  /* names */
} foreign;

/* Add the tensors of a weight file to a set that began as { 0 }.  E_IO, E_FORMAT, E_LIMIT, E_NOMEM. */
int  foreign_add_file(foreign *f, const char *path, err *e);
void foreign_close(foreign *f);
/* For the readers: put one more tensor in (the name is copied when `copy`). */
int foreign_add(foreign *f, const foreign_tensor *t, int copy, err *e);
/* Sort by name; the same name twice is E_FORMAT. */
int             foreign_sort(foreign *f, err *e);
foreign_tensor *foreign_find(const foreign *f, str name); /* after foreign_sort; NULL when absent */
const char     *foreign_path(const foreign *f, const foreign_tensor *t);
uint64_t        foreign_bytes(const foreign *f); /* of all files together */

/* Rows [from, from + n) of a matrix as f32, out (n, cols).  transposed = 0: the tensor is (rows, cols); 1: it is (cols, rows); a vector
 * (cols,) is one row.  f64 is rounded to f32.  E_FORMAT on a value that is not finite as f32 (named with its place). */
int foreign_rows(foreign *f, const foreign_tensor *t, int transposed, uint64_t from, uint64_t n, uint64_t cols, float *out, err *e);
/* "(768, 2304)" */
void foreign_shape(const foreign_tensor *t, char out[128]);

#endif
