/* A reader of safetensors for tests: F32 and F64 tensors, no hostile input. */
#ifndef DUET_TESTS_VECTORS_ST_H
#define DUET_TESTS_VECTORS_ST_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char  *bytes; /* the whole file, NUL-terminated */
    size_t header;
} st_file;

static inline int st_open(st_file *f, const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in) return -1;
    fseek(in, 0, SEEK_END);
    size_t n = (size_t)ftell(in);
    rewind(in);
    f->bytes = malloc(n + 1);
    int ok   = f->bytes && fread(f->bytes, 1, n, in) == n && n >= 8;
    fclose(in);
    if (!ok) return -1;
    f->bytes[n] = 0;
    uint64_t h;
    memcpy(&h, f->bytes, 8);
    f->header = (size_t)h;
    return 0;
}
static inline void st_close(st_file *f) { free(f->bytes); }

/* Tensor `name`, with or without "transformer.", as doubles (malloc'ed); *n its elements.  NULL when absent. */
static inline double *st_read(const st_file *f, const char *name, size_t *n)
{
    char        key[160];
    const char *p = NULL;
    for (int k = 0; k < 2 && !p; k++) {
        snprintf(key, sizeof key, "\"%s%s\":{", k ? "" : "transformer.", name);
        p = strstr(f->bytes + 8, key);
    }
    if (!p || (size_t)(p - f->bytes) > f->header) return NULL;
    const char *type = strstr(p, "\"dtype\":\""), *off = strstr(p, "\"data_offsets\":[");
    if (!type || !off) return NULL;
    char         *end;
    size_t        from = strtoul(off + 16, &end, 10), to = strtoul(end + 1, NULL, 10);
    int           wide = strncmp(type + 9, "F64", 3) == 0;
    const char   *data = f->bytes + 8 + f->header + from;
    *n                 = (to - from) / (wide ? 8 : 4);
    double *x          = malloc((*n + 1) * sizeof *x);
    for (size_t i = 0; x && i < *n; i++) {
        float v;
        if (wide) {
            memcpy(&x[i], data + 8 * i, 8);
        } else {
            memcpy(&v, data + 4 * i, 4);
            x[i] = (double)v;
        }
    }
    return x;
}

#endif
