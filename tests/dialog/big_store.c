/* big_store: make a store of N exchanges and measure it as the program uses it.  Not a test; `make big-store` runs it.
 *
 * usage: big_store fill DB N CANDIDATES FILE...     until DB has N exchanges; lines of the files are what is said
 *        big_store measure DB N CANDIDATES FILE...  N appends, then searches; prints percentiles
 *
 * fill writes the rows that hist_append would, read back and checked as there, but thousands in a transaction.  measure's appends are
 * hist_append itself: each waits for the disk, as a chat does. */
#include "dialog/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { TURNS = 10 /* exchanges a conversation */, IDS_AROUND = 12, BATCH = 10000 };
static err   e;
static arena lines_mem, mem;
static str  *lines;
static int   n_lines;

static void must(int r)
{
    if (r == OK) return;
    fprintf(stderr, "big_store: %s\n", e.msg);
    exit(1);
}
static double clock_of(clockid_t c)
{
    struct timespec t;
    clock_gettime(c, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static double now(void) { return clock_of(CLOCK_MONOTONIC); }

/* Times of one operation again and again: by the clock on the wall, and of the processor, which a busy machine does not stretch. */
typedef struct {
    double *wall, *cpu;
    int     n;
    double  from, from_cpu;
} times;
static void begin(times *t)
{
    t->from     = now();
    t->from_cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
}
static void end(times *t)
{
    t->wall[t->n]  = 1e3 * (now() - t->from);
    t->cpu[t->n++] = 1e3 * (clock_of(CLOCK_PROCESS_CPUTIME_ID) - t->from_cpu);
}

static void read_lines(char **file, int n)
{
    buf b   = { 0 };
    int cap = 0;
    for (int f = 0; f < n; f++) {
        buf_reset(&b);
        must(read_file(file[f], 64 << 20, &b, &e));
        for (size_t at = 0; at < b.n;) {
            const char *end = memchr(b.s + at, '\n', b.n - at);
            size_t      k   = end ? (size_t)(end - b.s) - at : b.n - at;
            str         l   = str_trim((str){ b.s + at, k });
            at += k + 1;
            if (l.n < 4 || l.n > 200 || strchr("#[@", l.s[0])) continue;
            if (n_lines == cap && !(lines = realloc(lines, (size_t)(cap = cap ? 2 * cap : 1024) * sizeof *lines))) exit(1);
            lines[n_lines++] = arena_str(&lines_mem, l, &e);
        }
    }
    buf_free(&b);
    if (n_lines < 100) {
        fprintf(stderr, "big_store: only %d lines to say in these files\n", n_lines);
        exit(1);
    }
}

static str say(uint64_t i, uint64_t what)
{
    str  a = lines[rng_below(1, i, 2 * what, (uint64_t)n_lines)], b = lines[rng_below(1, i, 2 * what + 1, (uint64_t)n_lines)];
    buf  t = { 0 };
    char tail[24];
    buf_str(&t, a);
    if (rng_below(2, i, what, 3) == 0) buf_str(&t, b); /* some are longer */
    snprintf(tail, sizeof tail, " %llu", (unsigned long long)i);
    if (what == 0 && i % 16 == 0) buf_str(&t, str_of(tail)); /* and some are rare */
    str s = arena_str(&mem, buf_view(&t), &e);
    buf_free(&t);
    return s;
}
static const int *some_ids(uint64_t i, uint64_t what, int *n)
{
    *n      = 4 + (int)rng_below(3, i, what, 2 * IDS_AROUND - 8);
    int *id = arena_new(&mem, (size_t)*n, sizeof *id);
    for (int k = 0; k < *n; k++) id[k] = (int)rng_below(4, i * 64 + what, (uint64_t)k, 21128);
    return id;
}

static reply some_reply(uint64_t i, int cands)
{
    static char hex[4][65];
    if (!hex[0][0])
        for (int k = 0; k < 4; k++)
            for (int c = 0; c < 64; c++) hex[k][c] = "0123456789abcdef"[rng_below(5, (uint64_t)k, (uint64_t)c, 16)];
    reply r = { .kind = REPLY_MODEL, .n = cands, .chosen = (int)rng_below(6, i, 0, (uint64_t)cands), .user_v.rule = -1, .fwd_digest = hex[0],
                .bwd_digest = hex[1], .rules_digest = hex[2], .numerics = "ops3 avx2 q8_0" };
    memcpy(r.prompt_digest, hex[3], 65);
    r.user_text = say(i, 0);
    r.user_id   = some_ids(i, 0, &r.n_user_id);
    r.evaluated = r.n_user_id;
    r.cand      = arena_new(&mem, (size_t)cands, sizeof *r.cand);
    for (int k = 0; k < cands; k++) {
        candidate *c = &r.cand[k];
        *c           = (candidate){ .text = say(i, (uint64_t)k + 1), .ended = 1, .dup_of = -1, .v.rule = -1, .n_source = r.n_user_id };
        c->id        = some_ids(i, (uint64_t)k + 1, &c->n);
        c->fwd = c->score = -40 * rng_unit(7, i, (uint64_t)k);
        c->bwd            = -60 * rng_unit(8, i, (uint64_t)k);
    }
    r.text = r.cand[r.chosen].text;
    r.id   = r.cand[r.chosen].id;
    r.n_id = r.cand[r.chosen].n;
    return r;
}

/* A moment i / total of the way through 2026. */
static str moment(uint64_t i, uint64_t total, char out[32])
{
    time_t    t = 1767225600 + (time_t)(31536000.0 * (double)i / (double)(total ? total : 1));
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return str_of(out);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void percentiles(const char *what, times *t)
{
    int n = t->n;
    qsort(t->wall, (size_t)n, sizeof *t->wall, by_size);
    qsort(t->cpu, (size_t)n, sizeof *t->cpu, by_size);
    printf("%-48s wall ms p50 %8.3f  p95 %8.3f  p99 %8.3f  max %9.3f    cpu ms p50 %8.3f  p95 %8.3f  max %8.3f\n", what, t->wall[n / 2],
           t->wall[n * 95 / 100], t->wall[n * 99 / 100], t->wall[n - 1], t->cpu[n / 2], t->cpu[n * 95 / 100], t->cpu[n - 1]);
    fflush(stdout);
    t->n = 0;
}

/* From where an earlier run was stopped: it left whole batches, and so whole conversations. */
static void fill(history *h, uint64_t n, int cands)
{
    static const char sql[] = "INSERT INTO conversation(key,title,created) VALUES(?,?,?)";
    respond_opts  o    = respond_defaults();
    buf           line = { 0 };
    chain_row     row  = { .what = REPLY_MODEL, .n_said = CHAIN_HASH };
    unsigned char key[CHAIN_KEY];
    char          t[32];
    int64_t       conv = 0, id, *last;
    int           some;
    o.n_cand = cands;
    must(hist_turn_ids(h, 1, &lines_mem, &last, &some, &e));
    must(respond_opts_format(&o, &line));
    if (!(row.c = calloc((size_t)cands, sizeof *row.c))) exit(1);
    for (uint64_t i = some ? (uint64_t)last[0] : 0; i < n; i++) {
        arena_reset(&mem);
        if (i % BATCH == 0) must(store_begin(h, 1, &e));
        row.x   = (exchange){ .opts = buf_view(&line), .seed = rng_u64(9, i, 0), .seconds = 0.1 + rng_unit(13, i, 0), .created = moment(i, n, t) };
        row.x.r = some_reply(i, cands);
        if (i % TURNS == 0) {
            random_bytes(key, sizeof key);
            must(store_run(h, &e, sql, "btt", key, (int)sizeof key, row.x.r.user_text, row.x.created));
            conv = store_last_id(h);
            chain_start(key, row.x.created, row.prev);
        }
        row.x.conv = conv;
        row.x.n    = (int)(i % TURNS) + 1;
        random_bytes(row.salt, sizeof row.salt);
        for (int k = 0; k < cands; k++) random_bytes(row.c[k].salt, sizeof row.c[k].salt);
        chain_digests(&row);
        chain_hash(&row, row.x.hash);
        must(record_put(h, &row, &id, &e));
        memcpy(row.prev, row.x.hash, CHAIN_HASH);
        if ((i + 1) % BATCH == 0 || i + 1 == n) must(store_finish(h, OK, &e));
        if ((i + 1) % 50000 == 0) fprintf(stderr, "%llu exchanges\n", (unsigned long long)(i + 1));
    }
    free(row.c);
    buf_free(&line);
}

static void append(history *h, uint64_t from, uint64_t n, int cands, times *t)
{
    respond_opts o = respond_defaults();
    int64_t      conv = 0, id;
    o.n_cand = cands;
    for (uint64_t i = from; i < from + n; i++) {
        arena_reset(&mem);
        reply r = some_reply(i, cands);
        o.seed  = rng_u64(9, i, 0);
        begin(t);
        if (i % TURNS == 0 || !conv) must(hist_new(h, STR(""), &conv, &e));
        must(hist_append(h, conv, &r, &o, STR("2027-01-01T00:00:00Z"), 0.2, &id, &e));
        end(t);
    }
}

enum { TIMES = 200 };
static void search(history *h, times *t, const char *what, const hist_filter *f, int limit, int (*query)(uint64_t, str *))
{
    history_found *found;
    int            n, hits = 0;
    for (int i = 0; i < TIMES; i++) {
        str q;
        arena_reset(&mem);
        if (query((uint64_t)i, &q)) exit(1);
        begin(t);
        must(hist_search(h, q, f, limit, &mem, &found, &n, &e));
        end(t);
        hits += n;
    }
    char label[80];
    snprintf(label, sizeof label, "%s (%.1f hits)", what, (double)hits / TIMES);
    percentiles(label, t);
}

/* `chars` characters from somewhere in a line that was said. */
static int piece(uint64_t i, str *q, int chars)
{
    for (uint64_t try = 0; try < 1000; try++) {
        str      l = lines[rng_below(10, i, try, (uint64_t)n_lines)];
        uint32_t cp;
        size_t   at = 0, start[256];
        int      n = 0;
        while (at < l.n && n < 255) start[n++] = at, at += utf8_next(l.s + at, l.n - at, &cp);
        start[n] = at;
        if (n < chars) continue;
        int from = (int)rng_below(11, i, try, (uint64_t)(n - chars + 1));
        *q       = (str){ l.s + start[from], start[from + chars] - start[from] };
        if ((unsigned char)q->s[0] >= 0xE4 && !memchr(q->s, ' ', q->n)) return 0; /* Chinese */
    }
    return 1;
}
static int one(uint64_t i, str *q) { return piece(i, q, 1); }
static int two(uint64_t i, str *q) { return piece(i, q, 2); }
static int three(uint64_t i, str *q) { return piece(i, q, 3); }
static int four(uint64_t i, str *q) { return piece(i, q, 4); }
static int rare(uint64_t i, str *q)
{
    static char t[32];
    snprintf(t, sizeof t, " %llu", 16 * (unsigned long long)rng_below(12, i, 0, 60000));
    *q = str_of(t);
    return 0;
}
static int absent(uint64_t i, str *q)
{
    static char t[32];
    snprintf(t, sizeof t, "zq%llujx", (unsigned long long)i);
    *q = str_of(t);
    return 0;
}
static int absent_two(uint64_t i, str *q)
{
    (void)i;
    *q = STR("饕餮");
    return 0;
}

static void measure(const char *db, int n, int cands)
{
    history    *h;
    struct stat st;
    int64_t    *ids;
    int         have;
    size_t      room  = (size_t)(n > TIMES ? n : TIMES);
    times       t     = { .wall = calloc(room, sizeof *t.wall), .cpu = calloc(room, sizeof *t.cpu) };
    double      start = now();
    must(hist_open(&h, db, HIST_WRITE, &e));
    printf("open for writing %.1f ms\n", 1e3 * (now() - start));
    must(hist_turn_ids(h, 1, &mem, &ids, &have, &e));
    append(h, (uint64_t)ids[0], (uint64_t)n, cands, &t);
    percentiles("append", &t);
    search(h, &t, "1 character, newest 50", NULL, 51, one);
    search(h, &t, "2 characters, newest 50", NULL, 51, two);
    search(h, &t, "3 characters, newest 50", NULL, 51, three);
    search(h, &t, "4 characters, newest 50", NULL, 51, four);
    search(h, &t, "rare word, all", NULL, 0, rare);
    search(h, &t, "absent word, all", NULL, 0, absent);
    search(h, &t, "absent pair, all", NULL, 0, absent_two);
    hist_filter march = { .speaker = -1, .verdict = -1, .since = STR("2026-03-03"), .until = STR("2026-03-03") };
    search(h, &t, "2 characters, one day of March", &march, 51, two);
    search(h, &t, "4 characters, one day of March", &march, 51, four);
    hist_filter half = { .speaker = 1, .verdict = -1, .until = STR("2026-06") };
    search(h, &t, "2 characters, replies, until June", &half, 51, two);
    hist_filter conv = { .speaker = -1, .verdict = -1, .conv = 777 };
    search(h, &t, "2 characters, one conversation", &conv, 51, two);
    hist_filter none = { .speaker = -1, .verdict = RULE_BLOCK };
    search(h, &t, "3 characters, verdict block", &none, 51, three);
    conversation *c;
    start = now();
    must(hist_list(h, 20, &mem, &c, &have, &e));
    printf("list, newest 20: %.1f ms\n", 1e3 * (now() - start));
    hist_numbers s;
    start = now();
    must(hist_stats(h, &mem, &s, &e));
    printf("stats: %.1f s; %lld exchanges, %lld candidates\n", now() - start, (long long)s.exchanges, (long long)s.candidates);
    start = now();
    double cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    must(hist_forget(h, 777, 0, STR("2027-01-01T00:00:00Z"), &have, &e));
    printf("forget a conversation: %.1f s (%.1f s of the processor)\n", now() - start, clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    hist_close(h);
    free(t.wall);
    free(t.cpu);
    if (stat(db, &st) == 0) printf("file: %.1f MB\n", 1e-6 * (double)st.st_size);
}

int main(int argc, char **argv)
{
    if (argc >= 6 && strcmp(argv[1], "fill") == 0) {
        history *h;
        double   start = now();
        uint64_t n     = strtoull(argv[3], NULL, 10);
        read_lines(argv + 5, argc - 5);
        must(hist_open(&h, argv[2], HIST_WRITE, &e));
        fill(h, n, atoi(argv[4]));
        hist_close(h);
        printf("%llu exchanges in %.0f s\n", (unsigned long long)n, now() - start);
        return 0;
    }
    if (argc >= 6 && strcmp(argv[1], "measure") == 0) {
        read_lines(argv + 5, argc - 5);
        measure(argv[2], atoi(argv[3]), atoi(argv[4]));
        return 0;
    }
    fprintf(stderr, "usage: big_store fill DB N CANDIDATES FILE...\n       big_store measure DB N CANDIDATES FILE...\n");
    return 2;
}
