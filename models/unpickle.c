/* unpickle: see unpickle.h.  The operations are those of Python's pickletools that torch.save writes with protocols 2 to 5; text
 * operations of protocol 0, INST, OBJ, NEWOBJ, the extension registry, PERSID and buffers are refused by number. */
#include "models/unpickle.h"

#include <string.h>

enum { MAX_VALUES = 1 << 20, MAX_OPS = 1 << 22, MAX_STACK = 1 << 20, MAX_NAME = 200, CHUNK = 1024 };

/* ---- the closed list of globals ---- */

enum { G_ORDERED_DICT = 1, G_TENSOR, G_PARAMETER, G_STORAGE /* + PD_… */ };
static const struct {
    const char *module, *name;
    int         id;
} globals[] = {
    { "collections", "OrderedDict", G_ORDERED_DICT },
    { "torch._utils", "_rebuild_tensor", G_TENSOR },
    { "torch._utils", "_rebuild_tensor_v2", G_TENSOR },
    { "torch._utils", "_rebuild_parameter", G_PARAMETER },
    { "torch", "FloatStorage", G_STORAGE + PD_F32 },
    { "torch", "HalfStorage", G_STORAGE + PD_F16 },
    { "torch", "BFloat16Storage", G_STORAGE + PD_BF16 },
    { "torch", "DoubleStorage", G_STORAGE + PD_F64 },
    { "torch", "LongStorage", G_STORAGE + PD_I64 },
    { "torch", "IntStorage", G_STORAGE + PD_I32 },
    { "torch", "ShortStorage", G_STORAGE + PD_I16 },
    { "torch", "CharStorage", G_STORAGE + PD_I8 },
    { "torch", "ByteStorage", G_STORAGE + PD_U8 },
    { "torch", "BoolStorage", G_STORAGE + PD_BOOL },
};

size_t unpickle_dtype_bytes(int dtype)
{
    static const unsigned char bytes[] = { 0, 4, 2, 2, 8, 8, 4, 2, 1, 1, 1 };
    return dtype > 0 && dtype < (int)sizeof bytes ? bytes[dtype] : 0;
}

/* ---- the machine ---- */

typedef struct {
    const pvalue **v;
    size_t         n, cap;
} vec;

typedef struct {
    arena  *mem;
    err    *e;
    str     in;
    size_t  at, base, op_at;   /* next byte, offset of the stream in its file, offset of the operation being run */
    vec     stack, memo;       /* memo slots may be NULL */
    vec     storages;
    size_t  n_memo;            /* filled slots: MEMOIZE's next number */
    size_t *mark, n_mark, mark_cap;
    pvalue *chunk;
    size_t  chunk_left, n_values, n_items; /* n_items: copied into lists and dicts, which a shared list could repeat without end */
} machine;

static int bad(machine *m, const char *what)
{
    return err_set(m->e, E_FORMAT, "pickle, byte %zu: %s", m->base + m->op_at, what);
}
static int no_memory(machine *m) { return err_set(m->e, E_NOMEM, "pickle, byte %zu: out of memory", m->base + m->op_at); }
static int too_big(machine *m, const char *what)
{
    return err_set(m->e, E_LIMIT, "pickle, byte %zu: %s, more than a checkpoint of this program's size has", m->base + m->op_at, what);
}

/* The next n bytes of the stream. */
static int take(machine *m, uint64_t n, const unsigned char **p)
{
    *p = (const unsigned char *)"";
    if (n > m->in.n - m->at)
        return err_set(m->e, E_FORMAT, "pickle, byte %zu: %llu bytes wanted, %zu are left", m->base + m->op_at, (unsigned long long)n,
                       m->in.n - m->at);
    *p = (const unsigned char *)m->in.s + m->at;
    m->at += (size_t)n;
    return OK;
}

static uint64_t le(const unsigned char *p, int n)
{
    uint64_t u = 0;
    for (int i = n - 1; i >= 0; i--) u = u << 8 | p[i];
    return u;
}

static int take_le(machine *m, int n, uint64_t *u)
{
    const unsigned char *p;
    if (take(m, (uint64_t)n, &p)) return E_FORMAT;
    *u = le(p, n);
    return OK;
}

static int vec_push(machine *m, vec *a, const pvalue *x)
{
    if (a->n == a->cap) {
        size_t         cap = a->cap ? 2 * a->cap : 8;
        const pvalue **v   = arena_new(m->mem, cap, sizeof *v);
        if (!v) return no_memory(m);
        if (a->n) memcpy(v, a->v, a->n * sizeof *v);
        a->v   = v;
        a->cap = cap;
    }
    a->v[a->n++] = x;
    return OK;
}

static int push(machine *m, const pvalue *x)
{
    if (m->stack.n == MAX_STACK) return too_big(m, "the stack holds 2^20 values");
    return vec_push(m, &m->stack, x);
}

/* A fresh value on the stack; NULL with the error set. */
static pvalue *fresh(machine *m, int kind)
{
    if (m->chunk_left == 0) {
        if (m->n_values >= MAX_VALUES) {
            too_big(m, "2^20 values");
            return NULL;
        }
        m->chunk = arena_new(m->mem, CHUNK, sizeof *m->chunk);
        if (!m->chunk) {
            no_memory(m);
            return NULL;
        }
        m->chunk_left = CHUNK;
    }
    pvalue *x = m->chunk++;
    m->chunk_left--;
    m->n_values++;
    x->kind = kind;
    return push(m, x) ? NULL : x;
}

/* The lowest stack index that the running operation may touch: values under a mark belong to who set it. */
static size_t floor_of(const machine *m) { return m->n_mark ? m->mark[m->n_mark - 1] : 0; }

static const pvalue *pop(machine *m)
{
    if (m->stack.n <= floor_of(m)) {
        bad(m, "the stack is empty");
        return NULL;
    }
    return m->stack.v[--m->stack.n];
}
static const pvalue *peek(machine *m)
{
    if (m->stack.n <= floor_of(m)) {
        bad(m, "the stack is empty");
        return NULL;
    }
    return m->stack.v[m->stack.n - 1];
}

static int set_mark(machine *m)
{
    if (m->n_mark == MAX_STACK) return too_big(m, "2^20 open marks");
    if (m->n_mark == m->mark_cap) {
        size_t  cap = m->mark_cap ? 2 * m->mark_cap : 64;
        size_t *v   = arena_new(m->mem, cap, sizeof *v);
        if (!v) return no_memory(m);
        if (m->n_mark) memcpy(v, m->mark, m->n_mark * sizeof *v);
        m->mark     = v;
        m->mark_cap = cap;
    }
    m->mark[m->n_mark++] = m->stack.n;
    return OK;
}

/* Take the values above the last mark off the stack: v[0..*n) stays valid until the next push. */
static int pop_mark(machine *m, const pvalue ***v, size_t *n)
{
    if (!m->n_mark) return bad(m, "no mark on the stack");
    size_t from = m->mark[--m->n_mark];
    *v          = m->stack.v + from;
    *n          = m->stack.n - from;
    m->stack.n  = from;
    return OK;
}

/* ---- values ---- */

static int push_int(machine *m, int kind, int64_t i)
{
    pvalue *x = fresh(m, kind);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    x->i = i;
    return OK;
}

/* A string or byte object with a little-endian length of `width` bytes. */
static int push_text(machine *m, int kind, int width)
{
    uint64_t             n;
    const unsigned char *p;
    if (take_le(m, width, &n) || take(m, n, &p)) return E_FORMAT;
    str s = { (const char *)p, (size_t)n };
    if (kind == PV_STR && !utf8_valid(s)) return bad(m, "a string is not UTF-8");
    pvalue *x = fresh(m, kind);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    x->s = s;
    return OK;
}

/* A two's complement integer of any length: up to 8 bytes a number, longer ones stay bytes. */
static int push_long(machine *m, int width)
{
    uint64_t             n;
    const unsigned char *p;
    if (take_le(m, width, &n)) return E_FORMAT;
    if (n > 255) return bad(m, "an integer of more than 255 bytes");
    if (take(m, n, &p)) return E_FORMAT;
    if (n > 8) {
        pvalue *x = fresh(m, PV_LONG);
        if (!x) return m->e ? m->e->code : E_FORMAT;
        x->s = (str){ (const char *)p, (size_t)n };
        return OK;
    }
    uint64_t u = le(p, (int)n);
    if (n > 0 && n < 8 && p[n - 1] & 0x80) u |= ~UINT64_C(0) << (8 * n);
    int64_t i;
    memcpy(&i, &u, sizeof i);
    return push_int(m, PV_INT, i);
}

static int push_double(machine *m)
{
    const unsigned char *p;
    if (take(m, 8, &p)) return E_FORMAT;
    uint64_t u = 0;
    for (int i = 0; i < 8; i++) u = u << 8 | p[i]; /* big endian, the one place in the format */
    pvalue *x = fresh(m, PV_FLOAT);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    memcpy(&x->f, &u, sizeof x->f);
    return OK;
}

static int push_tuple(machine *m, const pvalue *const *v, size_t n)
{
    const pvalue **copy = NULL;
    if (n) {
        copy = arena_new(m->mem, n, sizeof *copy);
        if (!copy) return no_memory(m);
        memcpy(copy, v, n * sizeof *copy);
    }
    pvalue *x = fresh(m, PV_TUPLE);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    x->seq.v = copy;
    x->seq.n = x->seq.cap = n;
    return OK;
}

static int append(machine *m, pvalue *to, const pvalue *const *v, size_t n)
{
    vec a = { to->seq.v, to->seq.n, to->seq.cap };
    if ((m->n_items += n) > MAX_OPS) return too_big(m, "2^22 items of lists and dicts");
    for (size_t i = 0; i < n; i++) {
        int r = vec_push(m, &a, v[i]);
        if (r) return r;
    }
    to->seq.v   = a.v;
    to->seq.n   = a.n;
    to->seq.cap = a.cap;
    return OK;
}

/* The list or dict on top of the stack, to be added to. */
static pvalue *container(machine *m, int kind)
{
    const pvalue *x = peek(m);
    if (!x) return NULL;
    if (x->kind != kind) {
        bad(m, kind == PV_LIST ? "appending to what is no list" : "setting items of what is no dict");
        return NULL;
    }
    return (pvalue *)x; /* made by fresh(): ours to change */
}

/* ---- globals, calls, persistent ids ---- */

static int push_global(machine *m, str module, str name)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (str_eq(module, str_of(globals[i].module)) && str_eq(name, str_of(globals[i].name)))
            return push_int(m, PV_GLOBAL, globals[i].id);
    int nm = module.n > 60 ? 60 : (int)module.n, nn = name.n > 60 ? 60 : (int)name.n;
    return err_set(m->e, E_FORMAT, "pickle, byte %zu: names %.*s.%.*s, which a checkpoint has no use for; refused, nothing was run",
                   m->base + m->op_at, nm, module.s, nn, name.s);
}

static int take_line(machine *m, str *line)
{
    const char *p  = m->in.s + m->at;
    size_t      n  = m->in.n - m->at;
    const char *nl = memchr(p, '\n', n > MAX_NAME ? MAX_NAME : n);
    if (!nl) return bad(m, "a global's name does not end");
    *line = (str){ p, (size_t)(nl - p) };
    m->at += line->n + 1;
    return OK;
}

static int op_stack_global(machine *m)
{
    const pvalue *name = pop(m), *module = name ? pop(m) : NULL;
    if (!module) return E_FORMAT;
    if (name->kind != PV_STR || module->kind != PV_STR) return bad(m, "a global's name is not text");
    return push_global(m, module->s, name->s);
}

/* ('storage', type, key, location, count[, None]) */
static int op_persistent(machine *m)
{
    const pvalue *id = pop(m);
    if (!id) return E_FORMAT;
    if (id->kind != PV_TUPLE || id->seq.n < 5 || id->seq.n > 6) return bad(m, "a persistent id that is no storage");
    const pvalue *const *v = id->seq.v;
    if (v[0]->kind != PV_STR || !str_eq(v[0]->s, STR("storage")) || v[1]->kind != PV_GLOBAL || v[1]->i <= G_STORAGE ||
        v[2]->kind != PV_STR || v[4]->kind != PV_INT)
        return bad(m, "a persistent id that is no storage");
    if (v[2]->s.n == 0 || v[2]->s.n > MAX_NAME) return bad(m, "a storage whose key is empty or too long");
    if (v[4]->i < 0) return bad(m, "a storage with a negative count of elements");
    if (id->seq.n == 6 && v[5]->kind != PV_NONE) return bad(m, "a storage that is a view of another (PyTorch before 0.4)");
    pvalue *x = fresh(m, PV_STORAGE);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    x->storage.key   = v[2]->s;
    x->storage.dtype = (int)v[1]->i - G_STORAGE;
    x->storage.count = (uint64_t)v[4]->i;
    return vec_push(m, &m->storages, x);
}

/* (storage, first, size, stride, …): everything is checked here, so that a pickle_tensor can be trusted. */
static int make_tensor(machine *m, const pvalue *args)
{
    const pvalue *const *v = args->seq.v;
    if (args->seq.n < 4 || v[0]->kind != PV_STORAGE || v[1]->kind != PV_INT || v[2]->kind != PV_TUPLE || v[3]->kind != PV_TUPLE)
        return bad(m, "a tensor wants (storage, offset, size, stride)");
    if (v[2]->seq.n != v[3]->seq.n) return bad(m, "a tensor with unequal numbers of sizes and strides");
    if (v[2]->seq.n > PICKLE_DIMS) return bad(m, "a tensor of more than 8 dimensions");
    if (v[1]->i < 0) return bad(m, "a tensor with a negative storage offset");
    pickle_tensor *t = arena_new(m->mem, 1, sizeof *t);
    if (!t) return no_memory(m);
    t->storage   = v[0];
    t->first     = (uint64_t)v[1]->i;
    t->n_dims    = (int)v[2]->seq.n;
    uint64_t count = 1, last = t->first;
    for (int d = 0; d < t->n_dims; d++) {
        const pvalue *size = v[2]->seq.v[d], *stride = v[3]->seq.v[d];
        if (size->kind != PV_INT || stride->kind != PV_INT) return bad(m, "a tensor whose size or stride is no integer");
        if (size->i < 0 || stride->i < 0) return bad(m, "a tensor with a negative size or stride");
        t->size[d]   = (uint64_t)size->i;
        t->stride[d] = (uint64_t)stride->i;
        if (__builtin_mul_overflow(count, t->size[d], &count)) return bad(m, "a tensor whose size overflows");
    }
    for (int d = 0; count && d < t->n_dims; d++) {
        uint64_t reach;
        if (__builtin_mul_overflow(t->size[d] - 1, t->stride[d], &reach) || __builtin_add_overflow(last, reach, &last))
            return bad(m, "a tensor whose extent overflows");
    }
    uint64_t have = v[0]->storage.count;
    if (count > have || (count ? last >= have : t->first > have))
        return err_set(m->e, E_FORMAT, "pickle, byte %zu: a tensor of %llu elements reaches element %llu of a storage of %llu", m->base + m->op_at,
                       (unsigned long long)count, (unsigned long long)last, (unsigned long long)have);
    pvalue *x = fresh(m, PV_TENSOR);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    x->tensor = t;
    return OK;
}

/* OrderedDict() or OrderedDict([(k, v), …]) */
static int make_dict(machine *m, const pvalue *args)
{
    if (args->seq.n > 1) return bad(m, "OrderedDict with more than one argument");
    pvalue *x = fresh(m, PV_DICT);
    if (!x) return m->e ? m->e->code : E_FORMAT;
    if (args->seq.n == 0) return OK;
    const pvalue *list = args->seq.v[0];
    if (list->kind != PV_LIST) return bad(m, "OrderedDict of what is no list");
    for (size_t i = 0; i < list->seq.n; i++) {
        const pvalue *pair = list->seq.v[i];
        if ((pair->kind != PV_TUPLE && pair->kind != PV_LIST) || pair->seq.n != 2) return bad(m, "OrderedDict of what are no pairs");
        int r = append(m, x, pair->seq.v, 2);
        if (r) return r;
    }
    return OK;
}

static int op_reduce(machine *m)
{
    const pvalue *args = pop(m), *f = args ? pop(m) : NULL;
    if (!f) return E_FORMAT;
    if (f->kind != PV_GLOBAL || args->kind != PV_TUPLE) return bad(m, "a call of what is no known global");
    switch (f->i) {
    case G_ORDERED_DICT: return make_dict(m, args);
    case G_TENSOR: return make_tensor(m, args);
    case G_PARAMETER:
        if (args->seq.n < 1 || args->seq.v[0]->kind != PV_TENSOR) return bad(m, "a parameter that holds no tensor");
        return push(m, args->seq.v[0]);
    default: return bad(m, "a call of a storage type");
    }
}

/* Attributes of a dict (state_dict's _metadata) say nothing about weights: dropped. */
static int op_build(machine *m)
{
    if (!pop(m)) return E_FORMAT;
    const pvalue *x = peek(m);
    if (!x) return E_FORMAT;
    return x->kind == PV_DICT ? OK : bad(m, "BUILD on what is no dict");
}

static int memo_put(machine *m, uint64_t k)
{
    const pvalue *x = peek(m);
    if (!x) return E_FORMAT;
    if (k >= MAX_VALUES) return bad(m, "a memo number of 2^20 or more");
    while (m->memo.n <= k) {
        int r = vec_push(m, &m->memo, NULL);
        if (r) return r;
    }
    m->n_memo += !m->memo.v[k];
    m->memo.v[k] = x;
    return OK;
}

static int memo_get(machine *m, uint64_t k)
{
    if (k >= m->memo.n || !m->memo.v[k]) return bad(m, "a memo number that was never set");
    return push(m, m->memo.v[k]);
}

/* ---- the operations ---- */

static int op_tuple(machine *m, size_t n)
{
    const pvalue *v[3];
    for (size_t i = n; i-- > 0;)
        if (!(v[i] = pop(m))) return E_FORMAT;
    return push_tuple(m, v, n);
}

static int op_from_mark(machine *m, int op)
{
    const pvalue **v = NULL;
    size_t         n = 0;
    int            r = pop_mark(m, &v, &n);
    if (r) return r;
    if (op == 't') return push_tuple(m, v, n);
    pvalue *to;
    if (op == 'l' || op == 'd') {
        /* v stays where it is in the stack while it is copied: append() comes before the container is pushed over it */
        pvalue made = { .kind = op == 'l' ? PV_LIST : PV_DICT };
        if (op == 'd' && n % 2) return bad(m, "a dict with a key and no value");
        if ((r = append(m, &made, v, n))) return r;
        if (!(to = fresh(m, made.kind))) return m->e ? m->e->code : E_FORMAT;
        *to = made;
        return OK;
    }
    if (!(to = container(m, op == 'e' ? PV_LIST : PV_DICT))) return E_FORMAT;
    if (op == 'u' && n % 2) return bad(m, "a dict key without a value");
    return append(m, to, v, n);
}

static int op_set_one(machine *m, int op)
{
    const pvalue *v[2] = { NULL, NULL };
    if (!(v[1] = pop(m)) || (op == 's' && !(v[0] = pop(m)))) return E_FORMAT;
    pvalue *to = container(m, op == 's' ? PV_DICT : PV_LIST);
    return !to ? E_FORMAT : op == 's' ? append(m, to, v, 2) : append(m, to, v + 1, 1);
}

/* One operation; *stop is set by STOP. */
static int step(machine *m, int op, int *stop)
{
    uint64_t u;
    str      module, name;
    switch (op) {
    case 0x80: /* PROTO */
        if (take_le(m, 1, &u)) return E_FORMAT;
        return u >= 2 && u <= 5 ? OK : bad(m, "a protocol other than 2 to 5");
    case 0x95: /* FRAME: a hint for readers of streams */
        if (take_le(m, 8, &u)) return E_FORMAT;
        return u <= m->in.n - m->at ? OK : bad(m, "a frame longer than the file");
    case '.': *stop = 1; return OK;
    case '(': return set_mark(m);
    case 'N': return push_int(m, PV_NONE, 0);
    case 0x88: return push_int(m, PV_BOOL, 1);
    case 0x89: return push_int(m, PV_BOOL, 0);
    case 'J': return take_le(m, 4, &u) ? E_FORMAT : push_int(m, PV_INT, (int64_t)u - (u >> 31 ? INT64_C(1) << 32 : 0));
    case 'K': return take_le(m, 1, &u) ? E_FORMAT : push_int(m, PV_INT, (int64_t)u);
    case 'M': return take_le(m, 2, &u) ? E_FORMAT : push_int(m, PV_INT, (int64_t)u);
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'G': return push_double(m);
    case 'X': return push_text(m, PV_STR, 4);
    case 0x8c: return push_text(m, PV_STR, 1);
    case 0x8d: return push_text(m, PV_STR, 8);
    case 'U': return push_text(m, PV_STR, 1); /* Python 2's str */
    case 'T': return push_text(m, PV_STR, 4);
    case 'C': return push_text(m, PV_BYTES, 1);
    case 'B': return push_text(m, PV_BYTES, 4);
    case 0x8e: return push_text(m, PV_BYTES, 8);
    case ')': return push_tuple(m, NULL, 0);
    case 0x85: return op_tuple(m, 1);
    case 0x86: return op_tuple(m, 2);
    case 0x87: return op_tuple(m, 3);
    case ']': return fresh(m, PV_LIST) ? OK : E_FORMAT;
    case '}': return fresh(m, PV_DICT) ? OK : E_FORMAT;
    case 't':
    case 'l':
    case 'd':
    case 'e':
    case 'u': return op_from_mark(m, op);
    case 'a':
    case 's': return op_set_one(m, op);
    case 'c':
        if (take_line(m, &module) || take_line(m, &name)) return E_FORMAT;
        return push_global(m, module, name);
    case 0x93: return op_stack_global(m);
    case 'R': return op_reduce(m);
    case 'b': return op_build(m);
    case 'Q': return op_persistent(m);
    case 'q': return take_le(m, 1, &u) ? E_FORMAT : memo_put(m, u);
    case 'r': return take_le(m, 4, &u) ? E_FORMAT : memo_put(m, u);
    case 0x94: return memo_put(m, m->n_memo);
    case 'h': return take_le(m, 1, &u) ? E_FORMAT : memo_get(m, u);
    case 'j': return take_le(m, 4, &u) ? E_FORMAT : memo_get(m, u);
    default:
        return err_set(m->e, E_FORMAT, "pickle, byte %zu: operation 0x%02x is not one that checkpoints are made of; refused, nothing was run",
                       m->base + m->op_at, (unsigned)op);
    }
}

int unpickle(arena *mem, str in, size_t base, pickled *out, err *e)
{
    err     own = { 0 };
    machine m   = { .mem = mem, .e = e ? e : &own, .in = in, .base = base };
    m.e->code   = OK;
    for (int stop = 0, n = 0; !stop; n++) {
        const unsigned char *op;
        m.op_at = m.at;
        if (n == MAX_OPS) return too_big(&m, "2^22 operations");
        if (take(&m, 1, &op)) return err_set(m.e, E_FORMAT, "pickle, byte %zu: it ends without STOP", base + m.at);
        if (step(&m, *op, &stop)) return m.e->code;
    }
    if (m.n_mark || m.stack.n != 1) return bad(&m, "STOP with more or less than one value on the stack");
    *out = (pickled){ m.stack.v[0], m.storages.v, m.storages.n, m.at };
    return OK;
}
