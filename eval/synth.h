/* synth: GPT-2 models with random weights, for measuring speed, which does not depend on them.  The same size, type and seed give the same bytes on every
 * machine. */
#ifndef DUET_SYNTH_H
#define DUET_SYNTH_H

#include "models/gpt2.h"

/* The sizes of GPT-2: "124M", "345M" (gpt2-medium), "774M", "1558M"; and "tiny" for tests.  E_ARG: no such size. */
int synth_config(const char *size, gpt2_config *c, err *e);

/* Write a model without vocabulary: matrices in `type` (GT_…; rows must be whole blocks), vectors and position_embd f32.  Weights are spread about 0 as
 * GPT-2 is initialised: standard deviation 0.02 (positions 0.01), bell-shaped (the sum of four uniform numbers); LayerNorm weights 1, biases 0. */
int synth_write(const char *path, const gpt2_config *c, int type, uint64_t seed, err *e);

#endif
