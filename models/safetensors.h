/* safetensors: Hugging Face's weight files, read and written.  8 bytes header length, a JSON object name -> {dtype, shape, data_offsets}, the
 * data.  Reader as strict as the reference implementation: sizes agree, tensors lie end to end without holes or overlaps up to
 * the end of the file, no name twice, __metadata__ holds strings only. */
#ifndef DUET_SAFETENSORS_H
#define DUET_SAFETENSORS_H

#include "models/foreign.h"

/* Read the newest file of the set. */
int safetensors_read(foreign *f, err *e);

/* The header of a new file; the data of all tensors follow in the order given.  Types: FT_F32, FT_F16, FT_BF16; t[i].size, n_dims, name, type
 * count.  Appends to `out` (8 bytes + JSON, padded with spaces to a multiple of 8). */
int safetensors_header(const foreign_tensor *t, int n, buf *out, err *e);

#endif
