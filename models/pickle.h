/* pickle: PyTorch's checkpoint files, both containers: the zip archive of torch >= 1.6 and the legacy stream of pickles (DialoGPT's .pkl).
 * The values come from unpickle.c; this file finds their bytes.  Reads a state dict, or one wrapped as
 * {"state_dict" | "model_state_dict" | "model": …}.
 * Policy for archives: entries must be stored (torch never compresses), unencrypted, of unique names, of exactly the size the
 * pickle claims; the checksum of every entry that is read must fit (a mismatch is an error). */
#ifndef DUET_PICKLE_H
#define DUET_PICKLE_H

#include "models/foreign.h"

/* Read the newest file of the set. */
int pickle_read_zip(foreign *f, err *e);
int pickle_read_legacy(foreign *f, err *e);

/* The n bytes of an archive's entry; pickle_zip_close is for foreign_close. */
int  pickle_zip_read(void *zip, const char *path, uint64_t entry, unsigned char *out, size_t n, err *e);
void pickle_zip_close(void *zip);

#endif
