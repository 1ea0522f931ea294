/* vectors: readers for reference files, for tests only: NumPy .npy, .safetensors with F32 tensors, lines of numbers.  They
 * trust what they read and fail the test when a file is not as expected.  Include after cmocka.h. */
#ifndef DUET_TESTS_VECTORS_H
#define DUET_TESTS_VECTORS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_HELPER static inline __attribute__((unused))

typedef struct {
    size_t shape[4], n; /* n = product */
    int    dims;
    float *v;
} npy;

VECTOR_HELPER unsigned char *vec_slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s: cannot open", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    unsigned char *p = malloc(*n + 1);
    assert_non_null(p);
    assert_int_equal(fread(p, 1, *n, f), *n);
    p[*n] = 0;
    fclose(f);
    return p;
}

/* NumPy format 1.0, C order, <f4 or <f8 (rounded to float). */
VECTOR_HELPER npy npy_read(const char *path)
{
    npy            a = { { 0 }, 1, 0, NULL };
    size_t         size;
    unsigned char *p = vec_slurp(path, &size);
    assert_memory_equal(p, "\x93NUMPY\x01", 7);
    size_t      head = 10 + p[8] + 256u * p[9];
    const char *s = strstr((char *)p + 10, "'shape': (");
    int         wide = strstr((char *)p + 10, "<f8") != NULL;
    assert_non_null(s);
    for (s += 10; *s != ')';) {
        char *end;
        a.n *= a.shape[a.dims++] = strtoul(s, &end, 10);
        for (s = end; *s == ',' || *s == ' ';) s++;
    }
    assert_int_equal(size - head, a.n * (wide ? 8 : 4));
    a.v = malloc(a.n * sizeof *a.v);
    assert_non_null(a.v);
    for (size_t i = 0; i < a.n; i++) {
        double d;
        if (wide) memcpy(&d, p + head + 8 * i, 8), a.v[i] = (float)d;
        else memcpy(&a.v[i], p + head + 4 * i, 4);
    }
    free(p);
    return a;
}

/* Tensor `name` of a .safetensors file held in `file` (an 8-byte length, a JSON header, the data), with or without
 * "transformer." before the name. */
VECTOR_HELPER const float *safetensors_find(const unsigned char *file, const char *name, size_t *n)
{
    uint64_t head;
    char     key[2][128], *text, *at = NULL;
    memcpy(&head, file, 8);
    text = malloc(head + 1);
    assert_non_null(text);
    memcpy(text, file + 8, head);
    text[head] = 0;
    snprintf(key[0], sizeof key[0], "\"transformer.%s\"", name);
    snprintf(key[1], sizeof key[1], "\"%s\"", name);
    for (int i = 0; i < 2 && !at; i++) at = strstr(text, key[i]);
    if (!at) fail_msg("no tensor %s", name);
    char *dtype = strstr(at, "\"dtype\""), *offsets = strstr(at, "\"data_offsets\"");
    assert_non_null(dtype);
    assert_non_null(offsets);
    assert_non_null(strstr(dtype, "\"F32\""));
    offsets    = strchr(offsets, '[') + 1;
    size_t from = strtoul(offsets, &offsets, 10), to = strtoul(strchr(offsets, ',') + 1, NULL, 10);
    free(text);
    *n = (to - from) / 4;
    return (const float *)(const void *)(file + 8 + head + from); /* may be unaligned: copy it with memcpy */
}

/* "n a b c…" at *s: the numbers, n of them, as ints or doubles. */
VECTOR_HELPER int *vec_ints(char **s, int *n)
{
    *n     = (int)strtol(*s, s, 10);
    int *v = malloc(((size_t)*n + 1) * sizeof *v);
    assert_non_null(v);
    for (int i = 0; i < *n; i++) v[i] = (int)strtol(*s, s, 10);
    return v;
}
VECTOR_HELPER double *vec_doubles(char **s, int *n)
{
    *n        = (int)strtol(*s, s, 10);
    double *v = malloc(((size_t)*n + 1) * sizeof *v);
    assert_non_null(v);
    for (int i = 0; i < *n; i++) v[i] = strtod(*s, s);
    return v;
}

#endif
