/* linear_block: matrices of q8_0 and q4_0.  Their panels, the quantisation of activations, and the plain kernel that says what
 * the others compute.  See linear.h and linear_impl.h. */
#include "models/linear_impl.h"

#include "models/gpt2.h"
#include "models/lanes.h"

#include <math.h>

/* ---- panels ---------------------------------------------------------------------------------------------------- */

typedef uint8_t  v16b __attribute__((vector_size(16)));
typedef uint8_t  v16bu __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t v8h __attribute__((vector_size(16)));

/* Quads 0..3 and 4..7 of a block whose columns 0..15 and 16..31 are a and b. */
LANE void to_quads(v16b q[2], v16b a, v16b b)
{
    v8h near = (v8h)__builtin_shuffle(a, b, (v16b){ 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23 });
    v8h far  = (v8h)__builtin_shuffle(a, b, (v16b){ 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31 });
    q[0]     = (v16b)__builtin_shuffle(near, far, (v8h){ 0, 8, 1, 9, 2, 10, 3, 11 });
    q[1]     = (v16b)__builtin_shuffle(near, far, (v8h){ 4, 12, 5, 13, 6, 14, 7, 15 });
}

/* One block of one output into lane `lane` of a panel's block. */
LANE void pack_block(unsigned char *to, int type, const unsigned char *from, int lane)
{
    v16b     q[2];
    uint32_t quad[QUADS];
    if (type == GT_Q8_0) {
        to_quads(q, (v16b) * (const v16bu *)(from + 2) ^ Q8_OFFSET, (v16b) * (const v16bu *)(from + 18) ^ Q8_OFFSET);
    } else {
        v16b both = *(const v16bu *)(from + 2);
        to_quads(q, both & 15, both >> 4);
        q[0] |= q[1] << 4;
    }
    memcpy(to + 2 * lane, from, 2);
    memcpy(quad, q, sizeof quad);
    for (int i = 0; i < (type == GT_Q8_0 ? QUADS : QUADS / 2); i++) memcpy(to + SCALES + 64 * i + 4 * lane, &quad[i], 4);
}

int block_pack_panel(void *panel, int type, int cols, const unsigned char *src, size_t row_bytes, int rows)
{
    int            blocks = cols / BLOCK, bad = -1;
    size_t         step = block_bytes(type), from_step = gguf_row_bytes(type, BLOCK);
    unsigned char *to = panel;
    if (rows < LINEAR_LANES) memset(panel, 0, step * (size_t)blocks);
    for (int b = 0; b < blocks; b++, to += step, src += from_step) {
        unsigned scales[LINEAR_LANES];
        unsigned any = 0;
        for (int r = 0; r < rows; r++) {
            const unsigned char *from = src + (size_t)r * row_bytes;
            if (type == GT_Q8_0) pack_block(to, GT_Q8_0, from, r);
            else pack_block(to, GT_Q4_0, from, r);
            scales[r] = (from[0] | (unsigned)from[1] << 8) & 0x7c00;
            any |= scales[r] == 0x7c00;
        }
        for (int r = 0; any && r < rows; r++)
            if (scales[r] == 0x7c00 && (bad < 0 || r < bad)) bad = r;
    }
    return bad;
}

static float scale_at(const unsigned char *block, int lane)
{
    float s;
    gpt2_row_decode(GT_F16, block + 2 * lane, &s, 1);
    return s;
}

void block_row(const void *panel, int type, int cols, int lane, float *out)
{
    const unsigned char *from = panel;
    for (int b = 0; b < cols / BLOCK; b++, from += block_bytes(type), out += BLOCK) {
        float s = scale_at(from, lane);
        for (int i = 0; i < QUADS; i++)
            for (int k = 0; k < 4; k++) {
                static const int column[4] = { 0, 16, 8, 24 };
                const unsigned char *codes = from + SCALES + 4 * lane + k;
                int code = type == GT_Q8_0 ? codes[64 * i] - Q8_OFFSET : (codes[64 * (i % 4)] >> (i < 4 ? 0 : 4) & 15) - Q4_OFFSET;
                out[i + column[k]] = s * (float)code; /* 11 + 7 bits: exact */
            }
    }
}

/* ---- activations ----------------------------------------------------------------------------------------------- */

/* Magnitudes (as bits) below the first are taken for 0; from the second on a block is not a number: see linear.h. */
enum { LEAST_BITS = (127 - 118) << 23, MOST_BITS = (127 + 80) << 23 };

typedef int32_t v8iu __attribute__((vector_size(32), aligned(4), may_alias));

LANE v8i swapped(v8i x, int by) /* lanes, by 4, 2 or 1 */
{
    return by == 4 ? __builtin_shuffle(x, (v8i){ 4, 5, 6, 7, 0, 1, 2, 3 }) : by == 2 ? __builtin_shuffle(x, (v8i){ 2, 3, 0, 1, 6, 7, 4, 5 })
                                                                            : __builtin_shuffle(x, (v8i){ 1, 0, 3, 2, 5, 4, 7, 6 });
}
LANE v8i larger(v8i a, v8i b)
{
    v8i more = a > b;
    return (more & a) | (~more & b);
}

/* q[j]: columns 8j … 8j+7 */
LANE void quantise(const float *x, v8i q[4], float *scale, int32_t *sum)
{
    v8i a[4];
    for (int j = 0; j < 4; j++) a[j] = v8_bits(v8_abs(v8_load(x + 8 * j))); /* as integers they order as floats do, NaN last */
    v8i m = larger(larger(a[0], a[1]), larger(a[2], a[3]));
    for (int by = 4; by; by /= 2) m = larger(m, swapped(m, by));
    int32_t bits = m[0];
    float   most, inverse = 0;
    memcpy(&most, &bits, 4);
    *scale = 0;
    if (bits >= MOST_BITS) {
        uint32_t nan = 0x7fc00000;
        memcpy(scale, &nan, 4);
    } else if (bits >= LEAST_BITS) {
        *scale  = most / 127;
        inverse = 127 / most;
    }
    v8i total = { 0 };
    for (int j = 0; j < 4; j++) {
        v8 x8 = inverse != 0 ? v8_load(x + 8 * j) : v8_set(0);
        q[j]  = v8_bits(x8 * inverse + 12582912.0f) - 0x4b400000; /* to the nearest integer, ties to even */
        total += q[j];
    }
    for (int by = 4; by; by /= 2) total += swapped(total, by);
    *sum = total[0];
}

CLONES void block_tile(void *tile, const float *x, int m, int cols, int wide, int offset)
{
    size_t step = (size_t)m * (wide ? WIDE : NARROW);
    for (int r = 0; r < m; r++) {
        unsigned char *to = tile;
        for (int b = 0; b < cols / BLOCK; b++, x += BLOCK, to += step) {
            v8i     q[4];
            float   scale;
            int32_t sum;
            quantise(x, q, &scale, &sum);
            sum *= -offset;
            memcpy(to + 4 * r, &scale, 4);
            memcpy(to + 4 * (m + r), &sum, 4);
            v8iu *row = (v8iu *)(to + 8 * m + (wide ? 2 * BLOCK : BLOCK) * r);
            if (wide) {
                row[0] = (q[0] & 0xffff) | q[1] << 16;
                row[1] = (q[2] & 0xffff) | q[3] << 16;
            } else {
                row[0] = (q[0] & 255) | (q[2] & 255) << 8 | (q[1] & 255) << 16 | q[3] << 24;
            }
        }
    }
}

/* ---- the plain kernel ------------------------------------------------------------------------------------------ */

/* sum code x over one quad of one output */
LANE int32_t dot4(const unsigned char *w, const signed char *x, const int nibble)
{
    int32_t s = 0;
    for (int k = 0; k < 4; k++) s += (nibble == 0 ? w[k] : nibble == 1 ? w[k] & 15 : w[k] >> 4) * x[k];
    return s;
}

LANE void plain(const block_job *j, const int type)
{
    size_t m = (size_t)j->m, step = block_bytes(type);
    for (int p = 0; p * LINEAR_LANES < j->n_out; p++)
        for (size_t r = 0; r < m; r++) {
            const unsigned char *w = (const unsigned char *)j->panel + (size_t)p * j->panel_step;
            const unsigned char *x = (const unsigned char *)j->tile;
            float acc[LINEAR_LANES];
            for (int o = 0; o < LINEAR_LANES; o++) acc[o] = j->bias ? j->bias[p * LINEAR_LANES + o] : 0;
            for (int b = 0; b < j->blocks; b++, w += step, x += m * NARROW) {
                int32_t sum[LINEAR_LANES], start;
                float   scale;
                memcpy(&scale, x + 4 * r, 4);
                memcpy(&start, x + 4 * (m + r), 4);
                for (int o = 0; o < LINEAR_LANES; o++) sum[o] = start;
                for (size_t i = 0; i < (type == GT_Q8_0 ? QUADS : QUADS / 2); i++) {
                    const unsigned char *codes = w + SCALES + 64 * i;
                    const signed char   *near = (const signed char *)x + 8 * m + BLOCK * r + 4 * i, *far = near + BLOCK / 2;
                    for (int o = 0; o < LINEAR_LANES; o++)
                        sum[o] += type == GT_Q8_0 ? dot4(codes + 4 * o, near, 0) : dot4(codes + 4 * o, near, 1) + dot4(codes + 4 * o, far, 2);
                }
                for (int o = 0; o < LINEAR_LANES; o++) acc[o] = fmaf((float)sum[o], scale_at(w, o) * scale, acc[o]);
            }
            for (int o = 0; o < LINEAR_LANES && p * LINEAR_LANES + o < j->n_out; o++)
                j->y[r * j->y_step + (size_t)(p * LINEAR_LANES + o)] = acc[o];
        }
}
void block_plain_q8(const block_job *j) { plain(j, GT_Q8_0); }
void block_plain_q4(const block_job *j) { plain(j, GT_Q4_0); }
