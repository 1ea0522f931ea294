/* unpickle: a machine that reads the few pickle operations PyTorch's checkpoints are made of, and builds plain values.  It has no way
 * to call anything: the globals a stream may name are a closed list of words that this file itself interprets; every
 * other name is refused and told.  Knows nothing of files. */
#ifndef DUET_UNPICKLE_H
#define DUET_UNPICKLE_H

#include "models/base.h"

enum { PV_NONE, PV_BOOL, PV_INT, PV_LONG, PV_FLOAT, PV_STR, PV_BYTES, PV_TUPLE, PV_LIST, PV_DICT, PV_GLOBAL, PV_STORAGE, PV_TENSOR };
/* Element types of storages. */
enum { PD_F32 = 1, PD_F16, PD_BF16, PD_F64, PD_I64, PD_I32, PD_I16, PD_I8, PD_U8, PD_BOOL };
size_t unpickle_dtype_bytes(int dtype);

enum { PICKLE_DIMS = 8 };
typedef struct pvalue pvalue;
typedef struct {
    const pvalue *storage;
    int           n_dims;
    uint64_t      first;                                     /* element of the storage where the tensor begins */
    uint64_t      size[PICKLE_DIMS], stride[PICKLE_DIMS];    /* elements, outermost first */
} pickle_tensor;                                             /* checked: the last element lies inside the storage's `count` */
struct pvalue {
    int kind;
    union {
        int64_t i;                                           /* PV_BOOL, PV_INT; PV_GLOBAL: internal */
        double  f;
        str     s;                                           /* PV_STR (UTF-8), PV_BYTES, PV_LONG (little endian, over 8 bytes); in the stream */
        struct {
            const pvalue **v;                                /* PV_DICT: key, value, key, value… in order of arrival */
            size_t         n, cap;
        } seq;
        struct {
            str      key;                                    /* "0", "94532…" */
            int      dtype;
            uint64_t count;                                  /* elements */
        } storage;
        pickle_tensor *tensor;
    };
};

/* What one pickle holds; lives in the arena and in the stream. */
typedef struct {
    const pvalue  *top;
    const pvalue **storage; /* (n_storage,) every PV_STORAGE named anywhere, in order of arrival; the same key may come again */
    size_t         n_storage;
    size_t         used;    /* bytes up to and with STOP */
} pickled;
/* Run the pickle at the start of `in`.  Messages give the byte offset plus `base`.  Nested values are never walked, so depth costs
 * nothing; values may be shared.  E_FORMAT, E_LIMIT (more than 2^20 values, 2^22 operations), E_NOMEM. */
int unpickle(arena *mem, str in, size_t base, pickled *out, err *e);

#endif
