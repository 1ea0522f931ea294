/* compress: a smaller GGUF from a larger one.  Quantisation of the matrices to a type of GGUF, tensor by tensor.  Vectors and position_embd stay f32: they
 * are small, and llama.cpp wants them so. */
#ifndef DUET_COMPRESS_H
#define DUET_COMPRESS_H

#include "models/gpt2.h"

typedef struct {
    const char *part; /* tensors whose GGUF name holds this text */
    int         type; /* GT_… */
} compress_choice;
typedef struct {
    char   name[64];
    int    from, to;      /* GT_… */
    size_t bytes_from, bytes_to;
    double error;         /* root of sum (new - old)^2 / sum old^2; 0 when all is 0 */
} compress_line;

/* in -> out with every matrix in `type`, or in that of the last choice that fits its name.  A matrix whose rows are no multiple of 32 cannot be q8_0 or q4_0: it
 * becomes f16.  *report: a malloc'ed line for each matrix, *n of them.  Vocabulary, layout and role are kept, and name and
 * note where none is given (NULL).
 * E_ARG: a choice that fits no matrix, a type that cannot be written, a name or note that is too long. */
int compress_quantize(const char *in, const char *out, int type, const compress_choice *choice, int n_choice, const char *name, const char *note,
                      compress_line **report, int *n, err *e);

#endif
