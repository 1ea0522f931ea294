/* tokenizer: against the reference tokenizers' ids; what is encoded comes back; broken vocabularies are refused by name; a GGUF or
 * an export gives the same tokenizer again.  Training is in test_vocab_build.c. */
#define _GNU_SOURCE
#include "models/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define V "tests/vectors/tokenizer/"
static char       dir[] = "/tmp/duet-tokenizer-XXXXXX";
static tokenizer *gpt2, *zh[4]; /* chitchat_vocab lower, cased, chitchat_vocab2 lower, cased */

/* ---- helpers --------------------------------------------------------------------------------------------------- */

static const char *in_dir(const char *name)
{
    static char path[4][300];
    static int  k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static str unhex(buf *b, const char *hex, size_t n)
{
    buf_reset(b);
    for (size_t i = 0; i + 1 < n; i += 2) {
        const char two[3] = { hex[i], hex[i + 1], 0 };
        buf_chr(b, (char)strtoul(two, NULL, 16));
    }
    return buf_view(b);
}

static void parse_ids(ivec *v, const char *s)
{
    char *end;
    v->n = 0;
    for (long x = strtol(s, &end, 10); end != s; x = strtol(s = end, &end, 10)) ivec_push(v, (int)x);
}

/* The next line of `f` cut at tabs; 0 at the end. */
static int fields(FILE *f, char **line, size_t *cap, char *field[8])
{
    ssize_t n = getline(line, cap, f);
    if (n <= 0) return 0;
    if ((*line)[n - 1] == '\n') (*line)[n - 1] = 0;
    char *p = *line;
    for (int i = 0; i < 8; i++) field[i] = p ? strsep(&p, "\t") : (char *)"";
    return 1;
}

static ivec encode(const tokenizer *t, str s)
{
    ivec v = { 0 };
    err  e;
    assert_int_equal(tokenizer_encode(t, s, &v, &e), OK);
    return v;
}

static buf decode(const tokenizer *t, const ivec *v)
{
    buf b = { 0 };
    err e;
    assert_int_equal(tokenizer_decode(t, v->v, v->n, &b, &e), OK);
    buf_str(&b, (str){ "", 0 });
    return b;
}

static int same(const ivec *a, const ivec *b) { return a->n == b->n && (a->n == 0 || memcmp(a->v, b->v, a->n * sizeof *a->v) == 0); }

/* encode(text) are these ids; the line number goes into the failure. */
static void check_ids(const tokenizer *t, str text, const ivec *want, const char *what, int line)
{
    ivec got = encode(t, text);
    if (!same(&got, want)) {
        print_error("%s, line %d: \"%.*s\":", what, line, (int)text.n, text.s);
        for (size_t i = 0; i < got.n; i++) print_error(" %d", got.v[i]);
        print_error("\n");
        fail();
    }
    ivec_free(&got);
}

static void check_lossless(const tokenizer *t, str text)
{
    ivec ids  = encode(t, text);
    buf  back = decode(t, &ids);
    assert_int_equal(back.n, text.n);
    assert_true(text.n == 0 || memcmp(back.s, text.s, text.n) == 0);
    ivec_free(&ids);
    buf_free(&back);
}

static int digests_equal(const tokenizer *a, const tokenizer *b)
{
    unsigned char x[32], y[32];
    tokenizer_digest(a, x);
    tokenizer_digest(b, y);
    return memcmp(x, y, 32) == 0;
}

/* ---- byte-level BPE -------------------------------------------------------------------------------------------- */

static void bpe_vectors(void **s)
{
    (void)s;
    static const struct { const char *file; int min; } set[] = {
        { V "gpt2_bpe.tsv", 500 }, { V "gpt2_random.tsv", 500 }, { V "gpt2_invalid_utf8.tsv", 20 },
    };
    for (size_t k = 0; k < sizeof set / sizeof *set; k++) {
        FILE  *f = fopen(set[k].file, "r");
        char  *line = NULL, *field[8];
        size_t cap = 0;
        buf    text = { 0 };
        ivec   want = { 0 };
        int    n = 0;
        assert_non_null(f);
        while (fields(f, &line, &cap, field)) {
            str x = unhex(&text, field[0], strlen(field[0]));
            parse_ids(&want, field[1]);
            check_ids(gpt2, x, &want, set[k].file, ++n);
            check_lossless(gpt2, x);
        }
        assert_true(n >= set[k].min);
        fclose(f), free(line), buf_free(&text), ivec_free(&want);
    }
}

static void bpe_decode_vectors(void **s)
{
    (void)s;
    FILE  *f = fopen(V "gpt2_decode.tsv", "r");
    char  *line = NULL, *field[8];
    size_t cap = 0;
    buf    text = { 0 };
    ivec   ids = { 0 };
    int    n = 0;
    assert_non_null(f);
    for (; fields(f, &line, &cap, field); n++) {
        parse_ids(&ids, field[0]);
        int special = 0;
        for (size_t i = 0; i < ids.n; i++) special |= tokenizer_is_special(gpt2, ids.v[i]);
        if (special) continue; /* the reference prints "<|endoftext|>", we print nothing */
        str want = unhex(&text, field[1], strlen(field[1]));
        buf got  = decode(gpt2, &ids);
        assert_true(str_eq(buf_view(&got), want));
        buf_free(&got);
    }
    assert_true(n > 256);
    fclose(f), free(line), buf_free(&text), ivec_free(&ids);
}

/* Merging by the book: look every pair up in merges.txt, merge the first of the best, again. */
typedef struct {
    char *text;
    int   rank;
} merge_line;

static int cmp_line(const void *a, const void *b) { return strcmp(((const merge_line *)a)->text, ((const merge_line *)b)->text); }

static void bpe_long_words(void **s)
{
    (void)s;
    enum { MERGES = 50000 };
    static merge_line by_text[MERGES];
    buf file = { 0 };
    err e;
    int n = 0;
    assert_int_equal(read_file(V "gpt2_merges.txt", 1 << 20, &file, &e), OK);
    strtok(file.s, "\n");
    for (char *p; n < MERGES && (p = strtok(NULL, "\n")) != NULL; n++) by_text[n].text = p, by_text[n].rank = n;
    assert_int_equal(n, MERGES);
    qsort(by_text, MERGES, sizeof by_text[0], cmp_line);
    for (uint64_t trial = 0; trial < 24; trial++) {
        size_t len = 65 + rng_below(7, trial, 0, 150); /* longer than the short path takes */
        char   word[256], sym[256][160];
        for (size_t i = 0; i < len; i++) { /* few letters, so that merges overlap and repeat */
            word[i] = "etaoinshrdlu"[rng_below(7, trial, i + 1, 2 + trial % 11)];
            sym[i][0] = word[i], sym[i][1] = 0;
        }
        size_t m = len;
        for (;;) {
            int    best = MERGES;
            size_t at = 0;
            for (size_t i = 0; i + 1 < m; i++) {
                char             pair[322];
                const merge_line key = { pair, 0 }, *hit;
                snprintf(pair, sizeof pair, "%s %s", sym[i], sym[i + 1]);
                hit = bsearch(&key, by_text, MERGES, sizeof by_text[0], cmp_line);
                if (hit && hit->rank < best) best = hit->rank, at = i;
            }
            if (best == MERGES) break;
            memcpy(sym[at] + strlen(sym[at]), sym[at + 1], strlen(sym[at + 1]) + 1);
            m--;
            memmove(sym[at + 1], sym[at + 2], (m - at - 1) * sizeof sym[0]);
        }
        ivec want = { 0 };
        for (size_t i = 0; i < m; i++) ivec_push(&want, tokenizer_find(gpt2, str_of(sym[i])));
        check_ids(gpt2, (str){ word, len }, &want, "long word", (int)trial);
        ivec_free(&want);
    }
    buf_free(&file);
}

static void bpe_any_bytes(void **s)
{
    (void)s;
    char b[700];
    for (uint64_t k = 0; k < 400; k++) {
        size_t n = rng_below(1, k, 0, sizeof b);
        for (size_t i = 0; i < n; i++) {
            uint64_t r = rng_u64(1, k, i + 1);
            b[i]       = k % 3 ? (char)r : (char)("ab \n'\xE4\xBD\xA0\xF0\x9F"[r % 10]);
        }
        check_lossless(gpt2, (str){ b, n });
    }
    check_lossless(gpt2, (str){ "", 0 });
}

/* A megabyte without a space.  Quadratic merging would take hours; a second on a slow machine is generous for n log n. */
static void bpe_megabyte_word(void **s)
{
    (void)s;
    enum { N = 1 << 20 };
    char *p = malloc(N);
    assert_non_null(p);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < N; i++) p[i] = kind ? (char)('a' + rng_below(3, 0, i, 26)) : 'a';
        clock_t t0 = clock();
        check_lossless(gpt2, (str){ p, N });
        assert_true((double)(clock() - t0) / CLOCKS_PER_SEC < 30);
    }
    free(p);
}

/* ---- WordPiece ------------------------------------------------------------------------------------------------- */

/* The reference parses "[SEP]" in a text as the special token; for us it is text.  With these vocabularies the plain reading
 * is, lower-cased, "[" + pieces of the word + "]"; cased, the capitals are not in the vocabulary: "[" [UNK] "]". */
static void plain_reading(const tokenizer *t, ivec *want)
{
    static const struct { const char *special, *pieces[2]; } plain[] = {
        { "[CLS]", { "cl", "##s" } }, { "[SEP]", { "sep", NULL } },   { "[PAD]", { "pad", NULL } },
        { "[UNK]", { "u", "##nk" } }, { "[MASK]", { "ma", "##sk" } },
    };
    ivec out = { 0 };
    for (size_t i = 0; i < want->n; i++) {
        int k = 0;
        while (k < 5 && want->v[i] != tokenizer_find(t, str_of(plain[k].special))) k++;
        if (k == 5) {
            ivec_push(&out, want->v[i]);
            continue;
        }
        ivec_push(&out, tokenizer_find(t, STR("[")));
        if (!tokenizer_lower(t)) ivec_push(&out, tokenizer_specials(t).unk);
        for (int j = 0; j < 2 && tokenizer_lower(t) && plain[k].pieces[j]; j++)
            ivec_push(&out, tokenizer_find(t, str_of(plain[k].pieces[j])));
        ivec_push(&out, tokenizer_find(t, STR("]")));
    }
    ivec_free(want);
    *want = out;
}

static int has_literal(str x)
{
    static const char *const lit[] = { "[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]" };
    for (int i = 0; i < 5; i++)
        if (x.n && memmem(x.s, x.n, lit[i], strlen(lit[i]))) return 1;
    return 0;
}

static void wordpiece_vectors(void **s)
{
    (void)s;
    FILE  *f = fopen(V "bert_wordpiece.tsv", "r");
    char  *line = NULL, *field[8];
    size_t cap = 0;
    buf    text = { 0 };
    ivec   want = { 0 };
    int    n = 0, literal = 0, round = 0;
    assert_non_null(f);
    while (fields(f, &line, &cap, field)) {
        str x = unhex(&text, field[0], strlen(field[0]));
        n++;
        literal += has_literal(x);
        for (int v = 0; v < 4; v++) {
            parse_ids(&want, field[1 + v]);
            if (has_literal(x)) plain_reading(zh[v], &want);
            check_ids(zh[v], x, &want, "bert_wordpiece.tsv", n);
            /* Reading what was decoded gives the same ids, where nothing was unknown. */
            int unk = 0;
            for (size_t i = 0; i < want.n; i++) unk |= tokenizer_is_special(zh[v], want.v[i]);
            if (unk) continue;
            buf back = decode(zh[v], &want);
            check_ids(zh[v], buf_view(&back), &want, "decoded again", n);
            buf_free(&back);
            round++;
        }
    }
    assert_true(n == 555 && literal > 5 && round > 800);
    fclose(f), free(line), buf_free(&text), ivec_free(&want);
}

/* The tokens are the reference's, and our text is theirs glued together, without specials and "##", but for spaces. */
static void wordpiece_decode_vectors(void **s)
{
    (void)s;
    FILE  *f = fopen(V "bert_decode.tsv", "r");
    char  *line = NULL, *field[8];
    size_t cap = 0;
    ivec   ids = { 0 };
    buf    token = { 0 }, glued = { 0 };
    int    n = 0;
    assert_non_null(f);
    for (; fields(f, &line, &cap, field); n++) {
        const tokenizer *t = zh[strcmp(field[0], "vocab2") == 0 ? 2 : 0];
        parse_ids(&ids, field[1]);
        buf_reset(&glued);
        char *p = field[2];
        for (size_t i = 0; i < ids.n; i++) {
            const char *hex = strsep(&p, " ");
            str         want = unhex(&token, hex, strlen(hex));
            assert_true(str_eq(tokenizer_token(t, ids.v[i]), want));
            if (tokenizer_is_special(t, ids.v[i])) continue;
            if (want.n > 2 && str_starts(want, STR("##"))) want.s += 2, want.n -= 2;
            buf_str(&glued, want);
        }
        buf    got = decode(t, &ids);
        size_t k = 0;
        for (size_t i = 0; i < got.n; i++)
            if (got.s[i] != ' ') got.s[k++] = got.s[i];
        got.n = k;
        assert_true(str_eq(buf_view(&got), buf_view(&glued)));
        buf_free(&got);
    }
    assert_true(n > 50);
    fclose(f), free(line), ivec_free(&ids), buf_free(&token), buf_free(&glued);
}

/* What people write comes back as they wrote it (lower case). */
static void wordpiece_spacing(void **s)
{
    (void)s;
    static const char *const text[] = {
        "你好，世界！", "我今天很开心。你呢？", "我喜欢python和java", "今天28度", "“你好”，他说。",
        "他说：《红楼梦》很好看。", "ok，没问题", "我有3.5个苹果", "hello, world!", "it's fine; don't worry: we're ok.",
        "i'm sure they've got what i'd said you'll do", "the dogs' house", "he said \"hi there\" to me", "\"hi\" he said",
        "it is 3.5 or 1,000 at 12:30", "in 2019, 300 people", "a well-known re-run", "covid-19", "-5 outside",
        "cold, -5 now", "yes/no", "(see below) [1] {x}", "what?! no... really", "100% sure", "$5 #tag @you",
        "e.g. at 5 p.m. today", "back in the 80's", "rock 'hello' now", "r&b and at&t", "o'clock", "hi :)",
        "you did it! i did. so am i. i know", "2 + 2 = 4", "snake_case", "他说'好'", "",
    };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        ivec ids = encode(zh[0], str_of(text[i]));
        buf  got = decode(zh[0], &ids);
        assert_string_equal(got.s ? got.s : "", text[i]);
        ivec_free(&ids);
        buf_free(&got);
    }
    err  e;
    buf  b = { 0 };
    int  bad[] = { 5, 21128 * 2 }, neg[] = { -1 };
    assert_int_equal(tokenizer_decode(zh[0], bad, 2, &b, &e), E_ARG);
    assert_int_equal(tokenizer_decode(gpt2, neg, 1, &b, &e), E_ARG);
    buf_free(&b);
}

static void wordpiece_any_bytes(void **s)
{
    (void)s;
    char b[600];
    for (uint64_t k = 0; k < 300; k++) {
        size_t n = rng_below(2, k, 0, sizeof b);
        for (size_t i = 0; i < n; i++) b[i] = (char)(rng_u64(2, k, i + 1) >> (k % 5));
        ivec ids = encode(zh[k % 4], (str){ b, n });
        buf  t   = decode(zh[k % 4], &ids);
        assert_true(utf8_valid(buf_view(&t)));
        ivec_free(&ids);
        buf_free(&t);
    }
    /* ill-formed bytes and U+FFFD are dropped; nothing is glued to what stood before in a way a space would have been */
    ivec a = encode(zh[0], STR("你\xFF\xE4\xBD好\xEF\xBF\xBD")), c = encode(zh[0], STR("你好"));
    assert_true(same(&a, &c));
    ivec_free(&a), ivec_free(&c);
    /* 100 characters are a word, 101 are [UNK]; accents go before the count */
    buf w = { 0 };
    for (int i = 0; i < 100; i++) buf_str(&w, STR("e\xCC\x81"));
    a = encode(zh[0], buf_view(&w));
    assert_true(a.n > 1 && a.v[0] != tokenizer_specials(zh[0]).unk);
    ivec_free(&a);
    buf_chr(&w, 'e');
    a = encode(zh[0], buf_view(&w));
    assert_true(a.n == 1 && a.v[0] == tokenizer_specials(zh[0]).unk);
    ivec_free(&a), buf_free(&w);
}

static void specials(void **s)
{
    (void)s;
    special_ids p = tokenizer_specials(zh[0]), g = tokenizer_specials(gpt2);
    assert_true(p.unk == 100 && p.bos == 101 && p.eos == 102 && p.mask == 103 && p.pad == 0);
    assert_true(g.eos == 50256 && g.bos == 50256 && g.unk == -1 && g.pad == -1 && g.mask == -1);
    assert_int_equal(tokenizer_size(gpt2), 50257);
    assert_int_equal(tokenizer_size(zh[0]), 13317);
    assert_true(tokenizer_is_special(zh[0], 102) && !tokenizer_is_special(zh[0], 500));
    assert_true(tokenizer_is_special(gpt2, 50256) && !tokenizer_is_special(gpt2, 50255));
    assert_false(tokenizer_is_special(zh[0], -1) || tokenizer_is_special(zh[0], 1 << 30));
    assert_true(str_eq(tokenizer_token(zh[0], 343), STR("\xE2\x80\xA8"))); /* U+2028 is no line end */
    assert_int_equal(tokenizer_find(zh[0], STR("no such token")), -1);
    static const char *const text[] = { "<|endoftext|>", " <|endoftext|> ", "a<|endoftext|>b", "[SEP]", "[ SEP ]", "x[CLS][unused1]" };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        for (int k = 0; k < 2; k++) {
            const tokenizer *t = k ? zh[0] : gpt2;
            ivec             v = encode(t, str_of(text[i]));
            for (size_t j = 0; j < v.n; j++) assert_false(tokenizer_is_special(t, v.v[j]));
            ivec_free(&v);
        }
}

/* ---- vocabulary files ------------------------------------------------------------------------------------------ */

/* What must come of each: NULL = accepted with n tokens, else refused with these words in the message. */
static void corrupt_bpe(void **s)
{
    (void)s;
    static const struct { const char *name, *words; int n; } set[] = {
        { "valid_control", NULL, 260 },
        { "vocab_truncated", "vocab.json:", 0 },
        { "vocab_empty_file", "vocab.json:", 0 },
        { "vocab_empty_object", "is empty", 0 },
        { "vocab_array", "not a JSON object", 0 },
        { "vocab_duplicate_ids", "same id 5", 0 },
        { "vocab_negative_id", "it must be 0..", 0 },
        { "vocab_id_2pow40", "is 1099511627776", 0 },
        { "vocab_float_id", "no integer", 0 },
        { "vocab_string_id", "no integer", 0 },
        { "vocab_missing_byte", "it must be 0..", 0 }, /* the hole at id 0; bytes are looked at in broken_gguf */
        { "vocab_bad_escape", "vocab.json:", 0 },
        { "vocab_lone_surrogate", "vocab.json:", 0 },
        { "vocab_invalid_utf8", "vocab.json:", 0 },
        { "vocab_key_not_byte_alphabet", "outside the GPT-2 byte alphabet", 0 },
        { "merges_empty", "no merges", 0 },
        { "merges_one_field", "is not two tokens", 0 },
        { "merges_three_fields", "is not two tokens", 0 },
        { "merges_unknown_token", "not in the vocabulary", 0 },
        { "merges_crlf", NULL, 260 },
        { "merges_no_version_line", NULL, 260 },
        { "merges_invalid_utf8", "not in the vocabulary", 0 },
        { "merges_nul", "not in the vocabulary", 0 },
        { "merges_no_final_newline", NULL, 260 },
    };
    tokenizer *t, *control = NULL;
    err        e;
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        char path[300];
        snprintf(path, sizeof path, V "corrupt/bpe/%s", set[i].name);
        int r = tokenizer_open_bpe(&t, path, NULL, &e); /* the folder; merges.txt is beside */
        if (set[i].words) {
            if (r != E_FORMAT || t || !strstr(e.msg, set[i].words)) fail_msg("%s: %d %s", set[i].name, r, r ? e.msg : "accepted");
            continue;
        }
        if (r != OK) fail_msg("%s: %s", set[i].name, e.msg);
        assert_int_equal(tokenizer_size(t), set[i].n);
        if (!control) control = t;
        else { /* each accepted variant means the same merges */
            if (!digests_equal(t, control)) fail_msg("%s: not the same tokenizer as valid_control", set[i].name);
            tokenizer_close(t);
        }
    }
    tokenizer_close(control);
    /* a line of 300 KB */
    buf b = { 0 };
    buf_str(&b, STR("#version: 0.2\nh e\n"));
    for (int i = 0; i < 300000; i++) buf_chr(&b, i == 1000 ? ' ' : 'a');
    write_file(in_dir("long.txt"), b.s, b.n);
    assert_int_equal(tokenizer_open_bpe(&t, V "corrupt/bpe/valid_control/vocab.json", in_dir("long.txt"), &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "long.txt:3: a merge of 300000 bytes"));
    buf_free(&b);
    assert_int_equal(tokenizer_open_bpe(&t, "/no/such/vocab.json", NULL, &e), E_IO);
}

static void corrupt_wordpiece(void **s)
{
    (void)s;
    static const struct { const char *name, *words; int n; } set[] = {
        { "valid_control", NULL, 0 },      { "valid_no_final_newline", NULL, 0 },    { "valid_u2028_token", NULL, 0 },
        { "empty", "is empty", 0 },        { "no_unk", "no [UNK]", 0 },              { "no_sep", NULL, 0 },
        { "invalid_utf8", "not valid UTF-8", 0 }, { "crlf", NULL, 0 },               { "bom", NULL, 0 },
        { "utf16", "not valid UTF-8", 0 }, { "duplicates", NULL, 0 },                { "blank_lines", NULL, 0 },
        { "nul_bytes", "control character 0x00", 0 }, { "binary", "token 0 ", 0 },
    };
    tokenizer *t, *control = NULL;
    err        e;
    for (size_t i = 0; i < sizeof set / sizeof *set; i++) {
        char path[300];
        snprintf(path, sizeof path, V "corrupt/wordpiece/%s", set[i].name);
        int r = tokenizer_open_wordpiece(&t, path, 1, &e);
        if (set[i].words) {
            if (r != E_FORMAT || t || !strstr(e.msg, set[i].words)) fail_msg("%s: %d %s", set[i].name, r, r ? e.msg : "accepted");
            continue;
        }
        if (r != OK) fail_msg("%s: %s", set[i].name, e.msg);
        special_ids p = tokenizer_specials(t);
        assert_true(p.unk >= 0 && tokenizer_find(t, STR("\xEF\xBB\xBF[PAD]")) < 0);
        for (int id = 0; id < tokenizer_size(t); id++) { /* no token ends in CR */
            str x = tokenizer_token(t, id);
            assert_true(x.n == 0 || x.s[x.n - 1] != '\r');
        }
        if (strcmp(set[i].name, "no_sep") == 0) assert_int_equal(p.eos, -1);
        if (!control) control = t;
        else {
            if (strcmp(set[i].name, "crlf") == 0 || strcmp(set[i].name, "bom") == 0) assert_true(digests_equal(t, control));
            tokenizer_close(t);
        }
    }
    tokenizer_close(control);
    char *p = malloc(300000);
    assert_non_null(p);
    memset(p, 'a', 300000);
    write_file(in_dir("huge.txt"), p, 300000);
    free(p);
    assert_int_equal(tokenizer_open_wordpiece(&t, in_dir("huge.txt"), 1, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "huge.txt: token 0 has 300000 bytes"));
}

/* Duplicates: the last id; blank lines: tokens that never match; both keep the numbering. */
static void wordpiece_odd_lines(void **s)
{
    (void)s;
    tokenizer *t;
    err        e;
    const char v[] = "[UNK]\n\na\nb\n\na\n##\n##b\n";
    write_file(in_dir("odd.txt"), v, strlen(v));
    assert_int_equal(tokenizer_open_wordpiece(&t, in_dir("odd.txt"), 1, &e), OK);
    assert_int_equal(tokenizer_size(t), 8);
    assert_int_equal(tokenizer_find(t, STR("a")), 5);
    ivec got = encode(t, STR("  a b ab ## "));
    ivec want = { 0 };
    ivec_add(&want, (const int[]){ 5, 3, 5, 7, 0, 0 }, 6);
    assert_true(same(&got, &want));
    ivec_free(&got), ivec_free(&want);
    tokenizer_close(t);
    /* Marks that are no accents (Mc) stay, in canonical order: U+1D165 (class 216) before U+1D16D (226); cased texts are left alone. */
    const char marks[] = "[UNK]\nx\xF0\x9D\x85\xA5\xF0\x9D\x85\xAD";
    write_file(in_dir("odd.txt"), marks, strlen(marks));
    for (int lower = 0; lower < 2; lower++) {
        assert_int_equal(tokenizer_open_wordpiece(&t, in_dir("odd.txt"), lower, &e), OK);
        got = encode(t, STR("x\xF0\x9D\x85\xAD\xF0\x9D\x85\xA5"));
        assert_true(got.n == 1 && got.v[0] == lower);
        ivec_free(&got);
        tokenizer_close(t);
    }
}

/* ---- GGUF and export ------------------------------------------------------------------------------------------- */

static tokenizer *through_gguf(const tokenizer *t)
{
    gguf_writer *w;
    gguf        *g;
    tokenizer   *back;
    err          e;
    assert_int_equal(gguf_create(&w, in_dir("t.gguf"), &e), OK);
    tokenizer_to_gguf(t, w);
    assert_int_equal(gguf_finish(w, &e), OK);
    assert_int_equal(gguf_open(&g, in_dir("t.gguf"), &e), OK);
    int r = tokenizer_from_gguf(&back, g, &e);
    if (r) fail_msg("%s", e.msg);
    gguf_close(g); /* the tokenizer must not lean on the map */
    return back;
}

static tokenizer *through_export(const tokenizer *t)
{
    tokenizer *back;
    err        e;
    assert_int_equal(tokenizer_export(t, dir, &e), OK);
    int r = tokenizer_kind(t) == TOK_BPE ? tokenizer_open_bpe(&back, dir, NULL, &e)
                                         : tokenizer_open_wordpiece(&back, dir, tokenizer_lower(t), &e);
    if (r) fail_msg("%s", e.msg);
    return back;
}

static void round_trips(void **s)
{
    (void)s;
    tokenizer *odd, *set[6] = { gpt2, zh[0], zh[1], zh[2], zh[3], NULL };
    err        e;
    /* tokens whose stored form is ambiguous: "##▁x" is stored "▁x" as "x" is, "##[x]" as "[x]" is */
    const char v[] = "[UNK]\nx\n##x\n\xE2\x96\x81x\n##\xE2\x96\x81x\n[x]\n##[x]\n[]\n"
                     "##[]\n##\n\n##\xE2\x96\x81\n\xE2\x96\x81\n[CLS]\n####\n#";
    write_file(in_dir("odd.txt"), v, strlen(v));
    assert_int_equal(tokenizer_open_wordpiece(&odd, in_dir("odd.txt"), 0, &e), OK);
    set[5] = odd;
    for (int i = 0; i < 6; i++)
        for (int how = 0; how < 2; how++) {
            tokenizer *t = how ? through_export(set[i]) : through_gguf(set[i]);
            assert_true(digests_equal(t, set[i]));
            assert_int_equal(tokenizer_kind(t), tokenizer_kind(set[i]));
            assert_int_equal(tokenizer_lower(t), tokenizer_lower(set[i]));
            assert_int_equal(tokenizer_size(t), tokenizer_size(set[i]));
            for (int id = 0; id < tokenizer_size(t); id++) assert_true(str_eq(tokenizer_token(t, id), tokenizer_token(set[i], id)));
            ivec a = encode(t, STR("Hello 你好, it's 2 o'clock x\xC3\xA9!")), b = encode(set[i], STR("Hello 你好, it's 2 o'clock x\xC3\xA9!"));
            assert_true(same(&a, &b));
            ivec_free(&a), ivec_free(&b);
            tokenizer_close(t);
        }
    for (int i = 0; i < 6; i++) /* and they are six different tokenizers */
        for (int k = 0; k < i; k++) assert_false(digests_equal(set[i], set[k]));
    tokenizer_close(odd);
    assert_null(through_gguf(NULL));
}

/* A file that llama.cpp opens: the same tokenizer as the vocab.txt it was made from, and written with the same keys. */
static void foreign_gguf(void **s)
{
    (void)s;
    gguf      *g, *own;
    tokenizer *t, *v;
    err        e;
    assert_int_equal(gguf_open(&g, V "tiny_f16_bert_tokenizer.gguf", &e), OK);
    assert_int_equal(tokenizer_from_gguf(&t, g, &e), OK);
    assert_int_equal(tokenizer_open_wordpiece(&v, V "bert_vocab_of_tiny.txt", 1, &e), OK);
    assert_true(digests_equal(t, v));
    tokenizer_close(through_gguf(v));
    assert_int_equal(gguf_open(&own, in_dir("t.gguf"), &e), OK);
    for (int i = 0; i < gguf_n_keys(g); i++) {
        const gguf_key *a = gguf_key_at(g, i), *b;
        char            name[64];
        str             x, y;
        if (!str_starts(a->name, STR("tokenizer."))) continue;
        snprintf(name, sizeof name, "%.*s", (int)a->name.n, a->name.s);
        b = gguf_get(own, name);
        if (!b) fail_msg("key %s is not written", name);
        assert_true(a->type == b->type && a->n == b->n);
        for (uint64_t k = 0; k < a->n && a->strs; k++) assert_true(str_eq(a->strs[k], b->strs[k]));
        if (a->type == GV_STR) {
            assert_true(gguf_get_str(g, name, &x, &e) == 1 && gguf_get_str(own, name, &y, &e) == 1);
            assert_true(str_eq(x, y));
        } else if (!a->strs) {
            for (uint64_t k = 0; k < a->n; k++) assert_true(gguf_int_at(a, k) == gguf_int_at(b, k));
        }
    }
    gguf_close(g), gguf_close(own);
    tokenizer_close(t), tokenizer_close(v);
}

enum { G_GOOD, G_NO_MODEL, G_MODEL, G_PRE, G_NO_TOKENS, G_TOKENS_INTS, G_TYPES_SHORT, G_ID_RANGE, G_UTF8, G_CONTROL, G_NO_UNK,
       G_LOWER_TYPE, G_GLUED, G_EMPTY, G_TYPE, G_BPE_FEW, G_BPE_NO_MERGES };
static unsigned char last_digest[32];

/* All bytes but 0xad, and the merges "a b" (no result), "c ab" (no first part): it opens; a text that meets what is missing is refused, any
 * other is not. */
static void cut_vocabulary(const tokenizer *t)
{
    ivec ids = { 0 };
    err  e;
    assert_int_equal(tokenizer_encode(t, STR("ok \xAD"), &ids, &e), E_ARG);
    assert_non_null(strstr(e.msg, "no token for a part of \""));
    assert_int_equal(tokenizer_encode(t, STR("ok abc"), &ids, &e), E_ARG);
    assert_int_equal(ids.n, 0);
    assert_int_equal(tokenizer_encode(t, STR("ok bac\xAE"), &ids, &e), OK);
    assert_int_equal(ids.n, 7);
    free(ids.v);
}

/* A small tokenizer with one fault; `words` must be in the message (NULL: it is accepted). */
static void refused(int fault, const char *words)
{
    gguf_writer *w;
    gguf        *g;
    tokenizer   *t;
    err          e;
    const str    bert[]  = { fault == G_NO_UNK ? STR("[UN]") : STR("[UNK]"), STR("\xE2\x96\x81" "a"),
                             fault == G_UTF8 ? STR("\xFF") : fault == G_CONTROL ? STR("a\n") : STR("b") };
    const str    model   = fault == G_MODEL ? STR("llama") : fault >= G_BPE_FEW || fault == G_PRE ? STR("gpt2") : STR("bert");
    const int32_t type[] = { 3, fault == G_TYPE ? 3 : 1, 1 };
    int          bpe     = fault == G_BPE_FEW || fault == G_BPE_NO_MERGES;
    assert_int_equal(gguf_create(&w, in_dir("bad.gguf"), &e), OK);
    if (fault != G_NO_MODEL) gguf_put_str(w, "tokenizer.ggml.model", model);
    gguf_put_str(w, "tokenizer.ggml.pre", fault == G_PRE ? STR("qwen2") : bpe ? STR("gpt-2") : STR("default"));
    if (fault == G_TOKENS_INTS) gguf_put_i32s(w, "tokenizer.ggml.tokens", type, 3);
    else if (bpe) {
        str all[256];
        for (int i = 0; i < 256; i++) all[i] = tokenizer_token(gpt2, i);
        gguf_put_strs(w, "tokenizer.ggml.tokens", all, fault == G_BPE_FEW ? 255 : 256);
        if (fault == G_BPE_FEW) gguf_put_strs(w, "tokenizer.ggml.merges", (const str[]){ STR("a b"), STR("c ab") }, 2);
    } else if (fault != G_NO_TOKENS) gguf_put_strs(w, "tokenizer.ggml.tokens", bert, fault == G_EMPTY ? 0 : 3);
    if (!bpe) gguf_put_i32s(w, "tokenizer.ggml.token_type", type, fault == G_TYPES_SHORT ? 2 : fault == G_EMPTY ? 0 : 3);
    if (fault == G_ID_RANGE) gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 3);
    if (fault == G_LOWER_TYPE) gguf_put_u32(w, "duet.tokenizer.lower", 1);
    if (fault == G_GLUED) gguf_put_i32s(w, "duet.tokenizer.continuation", (const int32_t[]){ 7 }, 1);
    assert_int_equal(gguf_finish(w, &e), OK);
    assert_int_equal(gguf_open(&g, in_dir("bad.gguf"), &e), OK);
    int r = tokenizer_from_gguf(&t, g, &e);
    gguf_close(g);
    if (r == OK) tokenizer_digest(t, last_digest);
    if (r == OK && fault == G_BPE_FEW) cut_vocabulary(t);
    if (r == OK) tokenizer_close(t);
    if (r != (words ? E_FORMAT : OK) || (words && (t || !strstr(e.msg, words))))
        fail_msg("fault %d: %d %s", fault, r, r ? e.msg : "accepted");
}

static void broken_gguf(void **s)
{
    (void)s;
    unsigned char good[32];
    refused(G_GOOD, NULL);
    memcpy(good, last_digest, 32);
    refused(G_TYPE, NULL); /* "a" as a control token is another tokenizer */
    assert_memory_not_equal(good, last_digest, 32);
    refused(G_NO_MODEL, "no key tokenizer.ggml.model");
    refused(G_MODEL, "\"llama\" is not supported");
    refused(G_PRE, "\"qwen2\"");
    refused(G_NO_TOKENS, "tokens is missing");
    refused(G_TOKENS_INTS, "tokens is missing or no array of strings");
    refused(G_TYPES_SHORT, "token_type is not an array of 3");
    refused(G_ID_RANGE, "eos_token_id is 3, the vocabulary has 3");
    refused(G_UTF8, "not valid UTF-8");
    refused(G_CONTROL, "control character 0x0a");
    refused(G_NO_UNK, "no [UNK]");
    refused(G_LOWER_TYPE, "duet.tokenizer.lower");
    refused(G_GLUED, "duet.tokenizer.continuation");
    refused(G_EMPTY, "is empty");
    refused(G_BPE_FEW, NULL);
    refused(G_BPE_NO_MERGES, "merges is missing");
}

/* ---- */

static int open_all(void **s)
{
    (void)s;
    err e;
    if (!mkdtemp(dir) || tokenizer_open_bpe(&gpt2, V "gpt2_vocab.json", V "gpt2_merges.txt", &e)) return -1;
    for (int i = 0; i < 4; i++)
        if (tokenizer_open_wordpiece(&zh[i], i < 2 ? V "chitchat_vocab.txt" : V "chitchat_vocab2.txt", i % 2 == 0, &e)) return -1;
    return 0;
}

static int close_all(void **s)
{
    (void)s;
    static const char *const left[] = { "long.txt", "huge.txt",  "odd.txt",    "t.gguf", "bad.gguf",
                                         "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json" };
    tokenizer_close(gpt2);
    for (int i = 0; i < 4; i++) tokenizer_close(zh[i]);
    tokenizer_close(NULL);
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) unlink(in_dir(left[i]));
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_vectors),
        cmocka_unit_test(bpe_decode_vectors),
        cmocka_unit_test(bpe_long_words),
        cmocka_unit_test(bpe_any_bytes),
        cmocka_unit_test(bpe_megabyte_word),
        cmocka_unit_test(wordpiece_vectors),
        cmocka_unit_test(wordpiece_decode_vectors),
        cmocka_unit_test(wordpiece_spacing),
        cmocka_unit_test(wordpiece_any_bytes),
        cmocka_unit_test(specials),
        cmocka_unit_test(corrupt_bpe),
        cmocka_unit_test(corrupt_wordpiece),
        cmocka_unit_test(wordpiece_odd_lines),
        cmocka_unit_test(round_trips),
        cmocka_unit_test(foreign_gguf),
        cmocka_unit_test(broken_gguf),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, open_all, close_all);
}
