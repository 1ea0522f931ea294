/* safety: forms of a text with spans mapped back, needles, identity checks, the pack format, matching under limits, redaction, and the packs that
 * come with the program: their own tests and the labelled lines in tests/vectors/safety. */
#define _GNU_SOURCE
#include "dialog/identity.h"
#include "dialog/needle.h"
#include "dialog/normal.h"
#include "dialog/pack.h"
#include "dialog/safety.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PACKS "dialog/rules"

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[4][160];
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

static safety *open_text(const char *text)
{
    safety     *s;
    err         e = { 0 };
    const char *p = in_dir("t.rules");
    write_file(p, text, strlen(text));
    if (safety_open(&s, &p, 1, &e) != OK) fail_msg("%s", e.msg);
    return s;
}

static safety *open_packs(void)
{
    safety     *s;
    err         e = { 0 };
    const char *p = PACKS;
    if (safety_open(&s, &p, 1, &e) != OK) fail_msg("%s", e.msg);
    return s;
}

/* The verdict of a text on one side; hits live in `a`. */
static verdict check(const safety *s, str text, int where, arena *a)
{
    verdict v;
    err     e = { 0 };
    if (safety_check(s, text, where, a, &v, &e) != OK) fail_msg("%s", e.msg);
    return v;
}

/* ---- forms ------------------------------------------------------------------------------------------------------ */

static void forms_of_a_text(void **state)
{
    (void)state;
    static const struct {
        const char *in, *plain, *one, *two; /* NULL: as the form before it */
    } t[] = {
        { "", "", NULL, NULL },
        { "Hello, World", "hello, world", NULL, NULL },
        { "ＡＢＣ　１２３！", "abc 123!", NULL, NULL },
        { "a\t\r\n  b", "a b", NULL, NULL },
        { "f\u200Bu\u200Dc\u2060k\uFE0F", "fuck", NULL, NULL },                     /* zero-width characters */
        { "f\u0336u\u0336\u0301ck", "fuck", NULL, NULL },                            /* overlays */
        { "Stra\u00DFe \uFB01n", "strasse fin", NULL, NULL },                        /* folding and ligatures */
        { "caf\u00E9 \u00FCber", "cafe uber", NULL, NULL },
        { "\u304B\u3099 \u304C", "\u304C \u304C", NULL, NULL },                      /* kana voicing is spelling, composed */
        { "\uAC00\u1100\u1161", "\uAC00\u1100\u1161", NULL, NULL },                  /* Hangul stays whole */
        { "妳說罵殺後發", "你说骂杀后发", NULL, NULL },
        { "①②㍿\u2026", "12株式会社...", NULL, NULL },
        { "\u0661\u0663\u0668\u096F", "1389", NULL, NULL },                          /* digits of other scripts */
        { "a\xFF" "b\xE4\xB8", "a\uFFFD" "b\uFFFD", NULL, NULL },
        { "sh1t b1tch", NULL, "shit bitch", "shlt bltch" },
        { "k!ll h3r!", NULL, "kill her!", NULL },
        { "u r 2 slow, plz come 2nite", NULL, "you are to slow, please come tonight", NULL },
        { "oh sh*t, my g*n", NULL, "oh shit, my gun", NULL },
        { "a knife w/o papers", NULL, "a knife without papers", NULL },
        { "s e n d   m e   n u d e s", "s e n d m e n u d e s", "send me nudes", NULL }, /* a wider gap ends a word */
        { "想买bing毒，冰du要吗", "想买bing毒,冰du要吗", "想买冰毒,冰毒要吗", NULL },
        { "我要sha了他，打4他，4个人", "我要sha了他,打4他,4个人", "我要杀了他,打死他,4个人", NULL },
        { "哪里有shouqiang卖", NULL, "哪里有手枪卖", NULL },
        { "don’t “stop” — now", "don't \"stop\" - now", NULL, NULL },
        { "mp3 at 10 for $5", NULL, "mpe at 10 for $5", NULL },
        { "f.u.c.k f u c k", NULL, "fuckfuck", NULL },
        { "a b.o.m.b", NULL, "abomb", "a bomb" },
        { "well-known fu*ck", NULL, "wellknown fuck", NULL },
        { "who're you", NULL, NULL, NULL },                                         /* an apostrophe is spelling */
        { "fuuuuck niggggga cool", NULL, "fuck niga cool", "fuuck nigga cool" },
        { "傻 逼", NULL, "傻逼", NULL },
        { "你个傻*逼", NULL, "你个傻逼", NULL },
        { "你真傻,逼我干嘛", NULL, NULL, NULL },                                    /* a comma between clauses */
        { "你真傻 逼我干嘛", NULL, NULL, NULL },                                    /* a space for a comma */
        { "傻,逼", NULL, "傻逼", NULL },
        { "fυсk \u0441\u043E\u0441k", NULL, "fuck cock", NULL },                     /* Greek and Cyrillic doubles */
        { "\u0434\u0430 \u043F\u0440\u0438\u0432\u0435\u0442", NULL, NULL, NULL },   /* Russian stays Russian */
        { "\U0001F1EB\U0001F1FA\U0001F172\U0001F17A", NULL, "fuck", NULL },          /* regional and squared letters */
    };
    normal p = { 0 }, b = { 0 };
    err    e = { 0 };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const char *plain = t[i].plain ? t[i].plain : t[i].in, *one = t[i].one ? t[i].one : plain, *two = t[i].two ? t[i].two : one;
        assert_int_equal(normal_plain(&p, str_of(t[i].in), &e), OK);
        assert_string_equal(p.text.n ? p.text.s : "", plain);
        assert_int_equal(normal_bare(&b, &p, 1, &e), OK);
        assert_string_equal(b.text.n ? b.text.s : "", one);
        assert_int_equal(normal_bare(&b, &p, 2, &e), OK);
        assert_string_equal(b.text.n ? b.text.s : "", two);
    }
    normal_free(&p);
    normal_free(&b);
    assert_int_equal(normal_cp('a'), 'a');
    assert_int_equal(normal_cp('A'), 'a');
    assert_int_equal(normal_cp(0xFF0C), ',');
    assert_int_equal(normal_cp(0x200B), 0);
    assert_int_equal(normal_cp(0xFB01), 0); /* becomes two letters */
    /* the table of simplified characters is searched by halving: its ends and middles are found */
    static const char pairs[] = "並并乾干龜龟龍龙辦办證证買买國国書书";
    for (size_t i = 0; i + 6 < sizeof pairs; i += 6) {
        uint32_t from, to;
        utf8_next(pairs + i, 3, &from);
        utf8_next(pairs + i + 3, 3, &to);
        assert_int_equal(normal_cp(from), to);
    }
}

/* Every byte of every form points at a range of the original, ranges never go back, and a found word gives the right original bytes. */
static void spans_map_back(void **state)
{
    (void)state;
    static const struct {
        const char *in, *find, *original;
    } t[] = {
        { "say Ｆ\u200BＵ\u0336ＣＫ now", "fuck", "Ｆ\u200BＵ\u0336ＣＫ" },
        { "x 妳 是", "你", "妳" },
        { "oh f.u.c.k!", "fuck", "f.u.c.k" },
        { "so fuuuuuck you", "fuck", "fuuuuuck" },
        { "你这个傻 * 逼啊", "傻逼", "傻 * 逼" },
        { "\xFFsh1t\xFF", "shit", "sh1t" },
        { "ﬁn", "f", "ﬁ" },
        { "a \t\r\n b", " ", " \t\r\n " },
    };
    normal p = { 0 }, b = { 0 };
    err    e = { 0 };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        assert_int_equal(normal_plain(&p, str_of(t[i].in), &e), OK);
        assert_int_equal(normal_bare(&b, &p, 1, &e), OK);
        const normal *forms[] = { &p, &b };
        int           found = 0;
        for (int f = 0; f < 2; f++) {
            const normal *x = forms[f];
            assert_int_equal(x->from.n, x->text.n);
            assert_int_equal(x->to.n, x->text.n);
            for (size_t k = 0; k < x->text.n; k++) {
                assert_true(x->from.v[k] < x->to.v[k]);
                assert_true((size_t)x->to.v[k] <= strlen(t[i].in));
                assert_true(k == 0 || x->from.v[k] >= x->from.v[k - 1]);
            }
            const char *at = memmem(x->text.s, x->text.n, t[i].find, strlen(t[i].find));
            if (!at) continue;
            size_t k = (size_t)(at - x->text.s), n = strlen(t[i].find);
            found++;
            assert_int_equal((size_t)(x->to.v[k + n - 1] - x->from.v[k]), strlen(t[i].original));
            assert_memory_equal(t[i].in + x->from.v[k], t[i].original, strlen(t[i].original));
        }
        assert_true(found > 0);
    }
    normal_free(&p);
    normal_free(&b);
}

/* ---- needles ---------------------------------------------------------------------------------------------------- */

static void needles_of_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *want; /* needles in order, joined by |, a second set after & ; "" none */
    } t[] = {
        { "abc", "abc" },
        { "a(?:b|c)d", "abd|acd" },
        { "ab?c", "abc|ac" },
        { "x[12]y", "x1y|x2y" },
        { "[0-3]z", "0z|1z|2z|3z" },
        { "how (?:to|do).{0,9}bomb", "how to|how do&bomb" },
        { "(?:a|b).*wording", "wording&a|b" },
        { "abcdef+", "abcde&f" },
        { "(?:one|two)+", "one|two" },
        { "\\bcat\\b(?! flap)(?<!big )", "cat" },
        { "key\\K[0-9]{4}", "key&0|1|2|3|4|5|6|7|8|9" },
        { "a\\.b\\x{4E2D}\\x41?", "" }, /* the A can never match; see below */
        { "a\\.b\\x{4E2D}", "a.b中" },
        { "炸(?:弹|药)", "炸弹|炸药" },
        { "做.{0,3}炸(?:弹|药).?吗", "炸弹|炸药&做" },
        { "(?:ab.c|d).*efg", "efg&ab|d" },
        { "\\d+", "" },
        { "a*", "" },
        { "a|\\d", "" },
        { "(?i)abc", "" },
        { "(?<q>a)\\k<q>", "" },
        { "(a)(?1)", "" },
        { "[[:digit:]]a", "" },
        { "a{,3}b", "" },
        { "\\Qab\\E", "" },
        { "[^a]b{2}", "b" },
        { "(unclosed", "" },
    };
    arena a = { 0 };
    err   e = { 0 };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        str     *v[NEEDLE_SETS];
        int      n[NEEDLE_SETS];
        uint32_t foreign = 0;
        buf      got     = { 0 };
        assert_int_equal(needles_of(str_of(t[i].pattern), &a, v, n, &foreign, &e), OK);
        for (int q = 0; q < NEEDLE_SETS; q++) {
            for (int k = 0; k < n[q]; k++) {
                if (k || q) buf_chr(&got, k ? '|' : '&');
                buf_str(&got, v[q][k]);
            }
        }
        if (foreign) assert_int_equal(foreign, 'A');
        else if (strcmp(buf_view(&got).s, t[i].want)) fail_msg("%s: got %s, want %s", t[i].pattern, buf_view(&got).s, t[i].want);
        buf_free(&got);
    }
    arena_free(&a);
}

/* ---- identity --------------------------------------------------------------------------------------------------- */

static void identities(void **state)
{
    (void)state;
    static const struct {
        const char *check, *text;
        int         want;
    } t[] = {
        { "luhn", "4111 1111 1111 1111", 1 },     { "luhn", "4111 1111 1111 1112", 0 },    { "luhn", "0000 0000 0000 0000", 0 },
        { "luhn", "41111111111", 0 },             { "luhn", "378282246310005", 1 },        { "cn-id", "11010519491231002x", 1 },
        { "cn-id", "11010519491231002X", 1 },     { "cn-id", "110105194912310021", 0 },    { "cn-id", "110105194913310021", 0 },
        { "iban", "de89 3704 0044 0532 0130 00", 1 }, { "iban", "de88 3704 0044 0532 0130 00", 0 }, { "iban", "gb82west12345698765432", 1 },
        { "us-ssn", "123-45-6789", 1 },           { "us-ssn", "666-45-6789", 0 },          { "us-ssn", "123-00-6789", 0 },
        { "ipv4", "8.8.8.8", 1 },                 { "ipv4", "256.1.1.1", 0 },              { "ipv4", "1.2.3", 0 },
        { "ipv4", "127.0.0.1", 0 },               { "luhn", "", 0 },                       { "cn-id", "中", 0 },
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        int k = identity_of_name(str_of(t[i].check));
        assert_true(k != IDENTITY_NONE);
        if (identity_holds(k, str_of(t[i].text)) != t[i].want) fail_msg("%s %s", t[i].check, t[i].text);
    }
    assert_int_equal(identity_of_name(STR("nonsense")), IDENTITY_NONE);
}

/* ---- the pack format -------------------------------------------------------------------------------------------- */

#define RULE "[rule a.1]\ncategory: c\nwhere: both\naction: flag\n"

static void bad_packs_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want; /* want: part of the message */
    } t[] = {
        { RULE "pattern: a\nbogus: 1\n", "t.rules:6: unknown key: \"bogus\"" },
        { RULE "pattern: (a\n", "t.rules:5: rule a.1: missing closing parenthesis at offset 2" },
        { RULE "pattern: (?:(?=a+)a)+[^a!]\n", "t.rules:5: rule a.1: a look-around with an unlimited repeat" },
        { RULE "pattern: x(?:y(?<!z)(?:[])a](?!b{2,}c))d){1,}\n", "a look-around with an unlimited repeat" },
        { RULE "pattern: (?:(?=a{1,9})a)+(?!b+)(?:[(?=a+)]c\\(?=d+)+\nbogus: 1\n", "unknown key" }, /* none of these */
        { RULE "pattern: a\n[rule a.1]\n", "t.rules:6: rule a.1 again; it is already at" },
        { RULE "[rule a.2]\n", "t.rules:1: rule a.1 lacks \"pattern\"" },
        { "[rule a.1]\nwhere: both\naction: flag\npattern: a\n", "lacks \"category\"" },
        { "[rule a.1]\ncategory: c\naction: flag\npattern: a\n", "lacks \"where\"" },
        { "[rule a.1]\ncategory: c\nwhere: both\npattern: a\n", "lacks \"action\"" },
        { "[rule a.1]\ncategory: c\nwhere: both\naction: block\npattern: a\nmessage zh: x\n", "lacks \"message en\"" },
        { "[rule a.1]\ncategory: c\nwhere: both\naction: redact\npattern: a\n", "lacks \"label zh or label en\"" },
        { "[rule a.1]\ncategory: c\nwhere: here\n", "where is user, reply or both, got: \"here\"" },
        { "[rule a.1]\ncategory: c\naction: shout\n", "t.rules:3: action is" },
        { "[rule a.1]\ncategory: C!\n", "t.rules:2: a category" },
        { "[rule A b]\n", "a rule's id" },
        { "[rules a]\n", "want [rule ID]" },
        { "[rule a.1\n", "want [rule ID]" },
        { "[rule a.1]\ncheck: mod11\n", "check is one of luhn" },
        { RULE "pattern:\n", "nothing after the colon of: \"pattern\"" },
        { RULE "pattern a\n", "want \"key: value\"" },
        { RULE "where: user\n", "given twice in one rule: \"where\"" },
        { "pattern: a\n", "t.rules:1: before the first [rule" },
        { RULE "pattern: @{how}b\n", "no such let: \"how\"" },
        { RULE "pattern: @{how\n", "@{ without }" },
        { "let x: a\nlet x: b\n", "let given twice: \"x\"" },
        { RULE "pattern: a*\n", "can match nothing at all" },
        { RULE "pattern: aQ\n", "\"Q\" (U+0051) can never match: the text has it as \"q\"" },
        { RULE "pattern: 殺\n", "the text has it as \"杀\"" },
        { RULE "pattern: a\\Cb\n", "rule a.1: using \\C is disabled" },
        { RULE "pattern: \xFF\n", "t.rules:5: not UTF-8" },
        { RULE "pattern: a\x01\n", "t.rules:5: control character" },
        { RULE "pattern: (?<=a+)b\n", "lookbehind assertion is not fixed length" },
    };
    const char *p = in_dir("t.rules");
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        safety *s;
        err     e = { 0 };
        write_file(p, t[i].text, strlen(t[i].text));
        if (safety_open(&s, &p, 1, &e) == OK) fail_msg("taken: %s", t[i].text);
        assert_null(s);
        if (!strstr(e.msg, t[i].want)) fail_msg("message \"%s\" lacks \"%s\"", e.msg, t[i].want);
    }
}

static void limits_of_packs(void **state)
{
    (void)state;
    safety     *s;
    err         e = { 0 };
    const char *p = in_dir("t.rules");
    buf         b = { 0 };
    /* a line, a pattern grown by lets, patterns of a rule, rules, the file */
    buf_fmt(&b, RULE "pattern: ");
    for (int i = 0; i < PACK_MAX_LINE; i++) buf_chr(&b, 'a');
    write_file(p, b.s, b.n);
    assert_int_equal(safety_open(&s, &p, 1, &e), E_LIMIT);
    assert_non_null(strstr(e.msg, "line longer than"));

    buf_reset(&b);
    buf_fmt(&b, "let a: xxxxxxxxxxxxxxxx\n");
    buf_fmt(&b, "let b: @{a}@{a}@{a}@{a}@{a}@{a}@{a}@{a}@{a}@{a}\nlet c: @{b}@{b}@{b}@{b}@{b}@{b}@{b}@{b}\nlet d: @{c}@{c}@{c}@{c}@{c}@{c}@{c}@{c}\nlet e: @{d}@{d}@{d}@{d}\n");
    write_file(p, b.s, b.n);
    assert_int_equal(safety_open(&s, &p, 1, &e), E_LIMIT);
    assert_non_null(strstr(e.msg, "pattern longer than"));

    buf_reset(&b);
    buf_fmt(&b, RULE);
    for (int i = 0; i <= PACK_MAX_PER_RULE; i++) buf_fmt(&b, "pattern: p%d\n", i);
    write_file(p, b.s, b.n);
    assert_int_equal(safety_open(&s, &p, 1, &e), E_LIMIT);
    assert_non_null(strstr(e.msg, "patterns in one rule"));

    buf_reset(&b);
    for (int i = 0; i <= PACK_MAX_RULES; i++) buf_fmt(&b, "[rule r%d]\ncategory: c\nwhere: both\naction: flag\npattern: x\n", i);
    write_file(p, b.s, b.n);
    assert_int_equal(safety_open(&s, &p, 1, &e), E_LIMIT);
    assert_non_null(strstr(e.msg, "rules"));

    buf_reset(&b);
    for (int i = 0; i < PACK_MAX_FILE / 16 + 1; i++) buf_str(&b, STR("# 3456789012345\n"));
    write_file(p, b.s, b.n);
    assert_int_not_equal(safety_open(&s, &p, 1, &e), OK);
    buf_free(&b);
    /* nesting */
    char deep[2000] = RULE "pattern: ";
    for (int i = 0; i < 300; i++) strcat(deep, "(");
    write_file(p, deep, strlen(deep));
    assert_int_equal(safety_open(&s, &p, 1, &e), E_FORMAT);
    assert_non_null(strstr(e.msg, "parentheses are too deeply nested"));
}

static void tolerated_layout(void **state)
{
    (void)state;
    safety *s = open_text("\xEF\xBB\xBF# comment\r\n\r\nlet a: b|c\r\nlet aa: x@{a}\r\n  [rule a.1]\r\n category : c \r\nwhere:both\naction: flag\n"
                          "pattern: @{aa}y\nmatch: xby\nmatch: xcy\nnomatch: xy");
    int n;
    err e = { 0 };
    assert_int_equal(safety_n_rules(s), 1);
    assert_true(str_eq(safety_rule_at(s, 0)->category, STR("c")));
    assert_int_equal(safety_rule_at(s, 0)->line, 5);
    assert_null(safety_rule_at(s, 1));
    assert_null(safety_rule_at(s, -1));
    assert_int_equal(safety_selftest(s, NULL, NULL, &n, &e), 0);
    assert_int_equal(n, 3);
    safety_close(s);
}

static void folders_and_digest(void **state)
{
    (void)state;
    safety     *s, *u;
    err         e = { 0 };
    char        keep[65];
    const char *d = in_dir("packs");
    char        folder[160];
    snprintf(folder, sizeof folder, "%s", d);
    const char *f = folder;
    assert_int_equal(safety_open(&s, NULL, 0, &e), OK);
    assert_int_equal(strlen(safety_digest(s)), 64);
    snprintf(keep, sizeof keep, "%s", safety_digest(s));
    safety_close(s);
    assert_int_equal(safety_open(&s, &f, 1, &e), E_IO); /* not there */
    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(safety_open(&s, &f, 1, &e), E_FORMAT); /* empty */

    static const char one[] = "[rule z]\ncategory: c\nwhere: both\naction: flag\npattern: x\n";
    static const char two[] = "[rule a]\ncategory: c\nwhere: both\naction: flag\npattern: y\n";
    char p1[200], p2[200], p3[200];
    snprintf(p1, sizeof p1, "%s/1.rules", folder);
    snprintf(p2, sizeof p2, "%s/2.rules", folder);
    snprintf(p3, sizeof p3, "%s/notes.txt", folder);
    write_file(p2, two, sizeof two - 1);
    write_file(p1, one, sizeof one - 1);
    write_file(p3, "not rules", 9);
    assert_int_equal(safety_open(&s, &f, 1, &e), OK);
    assert_true(str_eq(safety_rule_at(s, 0)->id, STR("z"))); /* by file name */
    assert_int_equal(safety_find_rule(s, STR("a")), 1);
    assert_int_equal(safety_find_rule(s, STR("b")), -1);
    assert_string_not_equal(safety_digest(s), keep);
    const char *list[] = { p1, p2 }, *back[] = { p2, p1 };
    assert_int_equal(safety_open(&u, list, 2, &e), OK);
    assert_string_equal(safety_digest(s), safety_digest(u)); /* the path does not matter, the bytes and their order do */
    safety_close(u);
    assert_int_equal(safety_open(&u, back, 2, &e), OK);
    assert_string_not_equal(safety_digest(s), safety_digest(u));
    safety_close(u);
    safety_close(s);
}

/* ---- verdicts --------------------------------------------------------------------------------------------------- */

#define SAY "message zh: 中\nmessage en: e\n"
static const char SEVERITY[] = "[rule f]\ncategory: c\nwhere: both\naction: flag\npattern: ff|xx\n"
                               "[rule w]\ncategory: c\nwhere: both\naction: warn\n" SAY "pattern: ww\n"
                               "[rule r]\ncategory: c\nwhere: both\naction: redact\nlabel en: R\nlabel zh: 改\npattern: rr+\npattern: rrs\n"
                               "[rule b]\ncategory: c\nwhere: reply\naction: block\n" SAY "pattern: bb|xx\n"
                               "[rule b2]\ncategory: c\nwhere: user\naction: block\n" SAY "pattern: bb\n";

static void severity_order_and_sides(void **state)
{
    (void)state;
    safety *s = open_text(SEVERITY);
    arena   a = { 0 };
    err     e = { 0 };
    static const struct {
        const char *text;
        int         where, action, rule, n;
    } t[] = {
        { "nothing", WHERE_USER, RULE_NONE, -1, 0 },   { "ff", WHERE_USER, RULE_FLAG, 0, 1 },
        { "ff ww", WHERE_USER, RULE_WARN, 1, 2 },      { "rr ww ff", WHERE_USER, RULE_REDACT, 2, 3 },
        { "bb rr", WHERE_REPLY, RULE_BLOCK, 3, 2 },    { "bb", WHERE_USER, RULE_BLOCK, 4, 1 },
        { "xx", WHERE_REPLY, RULE_BLOCK, 3, 2 },       { "xx", WHERE_USER, RULE_FLAG, 0, 1 },
        { "rrrrs", WHERE_USER, RULE_REDACT, 2, 1 }, /* overlapping hits of one rule are one */
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        verdict v = check(s, str_of(t[i].text), t[i].where, &a);
        assert_int_equal(v.action, t[i].action);
        assert_int_equal(v.rule, t[i].rule);
        assert_int_equal(v.n_hit, t[i].n);
        for (int k = 1; k < v.n_hit; k++) assert_true(v.hit[k].from >= v.hit[k - 1].from);
    }
    verdict v = check(s, STR("rrrrs"), WHERE_USER, &a);
    assert_int_equal(v.hit[0].from, 0);
    assert_int_equal(v.hit[0].to, 5);
    assert_int_equal(safety_check(s, STR("x"), WHERE_BOTH, &a, &v, &e), E_ARG);
    assert_string_equal(safety_action_name(RULE_BLOCK), "block");
    assert_string_equal(safety_action_name(RULE_NONE), "none");
    assert_string_equal(safety_action_name(9), "?");
    arena_free(&a);
    safety_close(s);
}

static str redact(const safety *s, const char *text, arena *a)
{
    err     e = { 0 };
    str     out;
    verdict v = check(s, str_of(text), WHERE_USER, a);
    assert_int_equal(safety_redact(s, str_of(text), &v, a, &out, &e), OK);
    return out;
}

static void redaction(void **state)
{
    (void)state;
    arena   a = { 0 };
    safety *s = open_text(SEVERITY);
    const char *plain = "nothing here";
    assert_ptr_equal(redact(s, plain, &a).s, plain);
    assert_string_equal(redact(s, "a rr b rrrs c", &a).s, "a [R] b [R] c");
    assert_string_equal(redact(s, "甲rr乙", &a).s, "甲[改]乙");
    assert_string_equal(redact(s, "rr", &a).s, "[R]");
    safety_close(s);

    /* with the real packs: the value is gone, whatever it is dressed in */
    static const struct {
        const char *text, *want;
    } t[] = {
        { "打13812345678找我", "打[手机号]找我" },
        { "打 １３８　１２３４　５６７８ 找我", "打 [手机号] 找我" },
        { "打1 3 8 1 2 3 4 5 6 7 8找我", "打[手机号]找我" },
        { "打138\u200B1234\u200B5678找我", "打[手机号]找我" },
        { "打+86 138-1234-5678", "打[手机号]" },
        { "身份证11010519491231002X。", "身份证[身份证号]。" },
        { "mail bob.smith@example.com now", "mail [e-mail] now" },
        { "card 4111-1111-1111-1111.", "card [card number]." },
        { "SSN 123-45-6789", "SSN [social security number]" },
        { "我的密码是123456", "我的密码是[密码]" },
        { "13812345678和13987654321", "[手机号]和[手机号]" },
    };
    s = open_packs();
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        str out = redact(s, t[i].text, &a);
        assert_string_equal(out.s, t[i].want);
        /* once more over the result: nothing is left to find */
        verdict v = check(s, out, WHERE_USER, &a);
        for (int k = 0; k < v.n_hit; k++) assert_int_not_equal(safety_rule_at(s, v.hit[k].rule)->action, RULE_REDACT);
    }
    safety_close(s);
    arena_free(&a);
}

/* ---- hostile patterns and texts --------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Patterns that explode and 100 KB to explode on.  Measured: under 20 ms each; 10 s of allowance for sanitizers, valgrind and busy machines, where an
 * unlimited match would take longer than the sun has left. */
static void no_pattern_stalls(void **state)
{
    (void)state;
    static const struct {
        const char *pattern;
        int         limit; /* 1: must be a limit hit */
    } t[] = {
        /* [^a!] for the letter that never comes: a plain one would be a needle, and the text not even be matched */
        { "(a+)+$", 1 },          { "(?:a|aa)+$", 1 },           { "(?:a|b)*[^a!]", 1 },  { "(?:.*)*[^a!]$", 1 },
        { "a*a*a*a*a*[^a!]", 1 }, { "(?:(?:a{1,9}){1,9}){1,9}[^a!]", 1 }, { "(?:a?){30}a{30}[^a!]", 1 }, { "a+[^a!]", 0 },
        { "a.{0,30}a.{0,30}[^a!]", 0 }, { ".*[^a!].*$", 0 }, { "(?:x+x+)+y", 0 },
    };
    size_t n    = 100000;
    char  *text = malloc(n);
    assert_non_null(text);
    memset(text, 'a', n);
    text[n - 1] = '!';
    arena a = { 0 };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char pack[300];
        /* view: plain, because the bare form of a run of letters is one letter */
        snprintf(pack, sizeof pack, "[rule x]\ncategory: c\nwhere: both\naction: block\nview: plain\n" SAY "pattern: %s\n", t[i].pattern);
        safety *s     = open_text(pack);
        double  start = seconds();
        verdict v     = check(s, (str){ text, n }, WHERE_USER, &a);
        double  took  = seconds() - start;
        print_message("%-32s %7.2f ms, %d hits\n", t[i].pattern, took * 1e3, v.n_hit);
        if (took > 10) fail_msg("%s took %.1f s", t[i].pattern, took);
        if (t[i].limit) {
            assert_int_equal(v.action, RULE_BLOCK);
            assert_int_equal(v.hit[0].limit, 1);
            assert_int_equal(v.hit[0].rule, 0);
            assert_true(v.hit[0].from < v.hit[0].to && v.hit[0].to == n);
        }
        safety_close(s);
    }
    arena_free(&a);
    free(text);
}

/* CPU time of this thread: other work on the machine does not count. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { INSTRUMENTED = 1 };
#else
enum { INSTRUMENTED = 0 };
#endif

/* 100 pairs: every hostile pattern, and all packs of the program at once, against every hostile text of 2 KB (longer than any turn
 * a model is trained on); none may take 20 ms of CPU.  Not asked of instrumented programs. */
static void hostile_pairs(void **state)
{
    (void)state;
    static const char *const patterns[] = {
        "(a+)+$", "(?:a|aa)+$", "(?:a|b)*[^a!]", "(?:.*)*[^a!]$", "a*a*a*a*a*[^a!]", "(?:(?:a{1,9}){1,9}){1,9}[^a!]", "(?:a?){30}a{30}[^a!]",
        "(?:[a-z ]+)*[^a-z !]", "(?:\\w+\\s?)*[^a!]$", "(?:\\w+ ?)+:", "(?:(?:我|我们)+)+[^我!]", "(?:[\\p{Han}]+,?)*[^,!]x", "(?:.{0,9}.{0,9}){9}[^a!]$",
        "(?:a|a|a)*[^a!]", "(?:how (?:to )?)+[^h!]", "(?:(?=a)a)+[^a!]", "(?<!b)(?:a+a+)+[^a!]", "(?:[^!]*[^!]*)*x$", "(?:1?[0-9 ]+)+-",
    };
    enum { PATTERNS = sizeof patterns / sizeof patterns[0], TEXTS = 5, SIZE = 2000 };
    static const char *const repeated[TEXTS] = { "a", "how to make a ", "我想你怎么", "1 3 8 ", "f.u.c k@0x-" };
    static char text[TEXTS][SIZE + 16];
    size_t      len[TEXTS];
    for (int t = 0; t < TEXTS; t++) {
        size_t k = strlen(repeated[t]), n = 0;
        for (; n + k <= SIZE; n += k) memcpy(text[t] + n, repeated[t], k);
        text[t][n++] = '!';
        len[t]       = n;
    }
    int    bound = !INSTRUMENTED && !getenv("DUET_TEST_WRAP"), pairs = 0;
    double worst = 0;
    arena  a     = { 0 };
    for (int p = 0; p <= PATTERNS; p++) {
        char pack[300];
        if (p < PATTERNS) snprintf(pack, sizeof pack, "[rule x]\ncategory: c\nwhere: both\naction: block\n" SAY "pattern: %s\n", patterns[p]);
        safety *s = p < PATTERNS ? open_text(pack) : open_packs();
        for (int t = 0; t < TEXTS; t++, pairs++) {
            double start = cpu_seconds();
            check(s, (str){ text[t], len[t] }, WHERE_USER, &a);
            double took = cpu_seconds() - start;
            if (took > worst) worst = took;
            if (bound && took > 0.020) fail_msg("%s on \"%s\" repeated took %.1f ms", p < PATTERNS ? patterns[p] : PACKS, repeated[t], took * 1e3);
            arena_reset(&a);
        }
        safety_close(s);
    }
    assert_int_equal(pairs, 100);
    print_message("%d hostile pairs, the slowest %.2f ms\n", pairs, worst * 1e3);
    arena_free(&a);
}

/* What one check of an ordinary line costs: the middle of the labelled lines that rule writers may read, each the best of five. */
static int by_size(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static void a_check_is_quick(void **state)
{
    (void)state;
    static const char *const files[] = { "eval/safety/zh_dev.tsv", "eval/safety/en_dev.tsv" };
    safety *s = open_packs();
    for (size_t f = 0; f < 2; f++) {
        static double took[2000];
        size_t        lines = 0, cap = 0;
        char         *l     = NULL;
        arena         a     = { 0 };
        FILE         *in    = fopen(files[f], "r");
        assert_non_null(in);
        for (ssize_t n; lines < 2000 && (n = getline(&l, &cap, in)) > 0; lines++) {
            const char *text = strrchr(l, '\t') + 1;
            took[lines]      = 1;
            for (int k = 0; k < 5; k++) {
                double start = cpu_seconds();
                check(s, (str){ text, (size_t)(l + n - 1 - text) }, WHERE_USER, &a);
                double t = cpu_seconds() - start;
                if (t < took[lines]) took[lines] = t;
                arena_reset(&a);
            }
        }
        assert_true(lines >= 400);
        qsort(took, lines, sizeof took[0], by_size);
        print_message("%s: a check costs %.1f us (p50), %.1f us (p95)\n", files[f], took[lines / 2] * 1e6, took[lines * 95 / 100] * 1e6);
        if (!INSTRUMENTED && !getenv("DUET_TEST_WRAP")) assert_true(took[lines / 2] < 50e-6);
        fclose(in);
        free(l);
        arena_free(&a);
    }
    safety_close(s);
}

static void any_bytes_are_checked(void **state)
{
    (void)state;
    safety *s = open_packs();
    arena   a = { 0 };
    assert_int_equal(check(s, STR(""), WHERE_USER, &a).action, RULE_NONE);
    assert_int_equal(check(s, (str){ NULL, 0 }, WHERE_USER, &a).action, RULE_NONE);
    assert_int_equal(check(s, STR("\xFF\xFE\x80\xE4\xB8"), WHERE_USER, &a).action, RULE_NONE);
    assert_int_equal(check(s, STR("\0\0\0"), WHERE_USER, &a).action, RULE_NONE);
    assert_int_equal(check(s, STR("\xFF" "fuck you\0\xFF"), WHERE_USER, &a).action, RULE_BLOCK);
    assert_int_equal(check(s, STR("fuck\0you"), WHERE_USER, &a).action, RULE_BLOCK); /* NUL separates like a space */
    for (uint64_t seed = 0; seed < 300; seed++) { /* noise of bytes, of code points, of words that rules know */
        static const char *const words[] = { "fuck", "我", "想", "死", "操", "你", "妈", " ", "138", "1234", "5678", "@", ".com", "how to make a ",
                                             "bomb", "怎么", "做", "炸弹", "\xF0\x9F", "\u0336", "\u200B", "1 ", "Ｆ", "с", "*", "。", "密码是" };
        buf b = { 0 };
        for (uint64_t k = 0; k < 60; k++) {
            char c[4];
            if (seed % 3 == 0) buf_chr(&b, (char)rng_below(seed, 1, k, 256));
            else if (seed % 3 == 1) buf_add(&b, c, utf8_put((uint32_t)rng_below(seed, 2, k, 0x20000), c));
            else buf_str(&b, str_of(words[rng_below(seed, 3, k, sizeof words / sizeof words[0])]));
        }
        for (int where = WHERE_USER; where <= WHERE_REPLY; where++) {
            err     e = { 0 };
            str     out;
            verdict v = check(s, buf_view(&b), where, &a);
            for (int k = 0; k < v.n_hit; k++) {
                assert_true(v.hit[k].from < v.hit[k].to && v.hit[k].to <= b.n);
                assert_int_equal(v.hit[k].limit, 0);
                assert_true(k == 0 || v.hit[k].from >= v.hit[k - 1].from);
            }
            assert_int_equal(safety_redact(s, buf_view(&b), &v, &a, &out, &e), OK);
        }
        arena_reset(&a);
        buf_free(&b);
    }
    arena_free(&a);
    safety_close(s);
}

/* A megabyte in one line is scanned to its end, windows leave no seam, and ordinary text runs into no limit. */
static void long_lines(void **state)
{
    (void)state;
    safety *s = open_packs();
    arena   a = { 0 };
    buf     b = { 0 };
    while (b.n < 1000000) buf_str(&b, STR("今天天气不错，我们去公园散步吧，how to get to the park? "));
    size_t  n = b.n;
    verdict v = check(s, buf_view(&b), WHERE_USER, &a);
    assert_int_equal(v.action, RULE_NONE);
    buf_str(&b, STR("13812345678"));
    v = check(s, buf_view(&b), WHERE_USER, &a);
    assert_int_equal(v.action, RULE_REDACT);
    assert_int_equal(v.n_hit, 1);
    assert_int_equal(v.hit[0].from, n);
    assert_int_equal(v.hit[0].to, n + 11);
    assert_int_equal(v.hit[0].limit, 0);
    for (size_t pad = SAFETY_WINDOW - 40; pad < SAFETY_WINDOW + 8; pad++) {
        for (int kind = 0; kind < 2; kind++) { /* after ASCII and after Han characters */
            buf_reset(&b);
            for (size_t i = 0; i < pad; i++) buf_chr(&b, ' '), b.s[b.n - 1] = (char)(i % 7 ? 'e' + (int)(i % 5) : ' ');
            if (kind) buf_str(&b, STR("天地"));
            size_t at = b.n;
            buf_str(&b, STR("，怎么做炸弹"));
            while (b.n < 3 * SAFETY_WINDOW) buf_str(&b, STR("，天"));
            v = check(s, buf_view(&b), WHERE_USER, &a);
            assert_int_equal(v.action, RULE_BLOCK);
            assert_true(v.n_hit >= 1 && v.hit[0].from == at + 3); /* more than one rule may know this wording or a part of it, none more than its clause */
            for (int k = 0; k < v.n_hit; k++) assert_true(v.hit[k].from >= at + 3 && v.hit[k].to >= at + 18 && v.hit[k].to <= at + 21);
        }
        arena_reset(&a);
    }
    buf_free(&b);
    arena_free(&a);
    safety_close(s);
}

/* ---- the packs that come with the program ----------------------------------------------------------------------- */

static void failed(void *ctx, const safety_rule *r, str test, int wanted)
{
    (void)ctx;
    print_error("%s:%d %.*s should %smatch: %.*s\n", r->file, r->line, (int)r->id.n, r->id.s, wanted ? "" : "not ", (int)test.n, test.s);
}

static void packs_pass_their_own_tests(void **state)
{
    (void)state;
    safety *s = open_packs();
    int     n = 0;
    err     e = { 0 };
    assert_int_equal(safety_selftest(s, failed, NULL, &n, &e), 0);
    assert_true(n >= 4 * safety_n_rules(s));
    safety_close(s);
    /* and a wrong test is reported */
    s = open_text(RULE "pattern: abc\nmatch: abd\nnomatch: abc\nmatch: abc\n");
    assert_int_equal(safety_selftest(s, NULL, NULL, &n, &e), 2);
    assert_int_equal(n, 3);
    safety_close(s);
}

enum { MAX_RULES = 1000 };

/* All rules of the packs as read. */
static int read_packs(pack_rule *list, arena *a)
{
    static const char *const names[] = { "10_care",  "20_minors", "30_violence", "35_hate",     "40_sexual",
                                         "50_drugs", "60_crime",  "70_abuse",    "80_personal", "90_advice" };
    int n = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[100];
        buf  b = { 0 };
        err  e = { 0 };
        snprintf(path, sizeof path, PACKS "/%s.rules", names[i]);
        assert_int_equal(read_file(path, PACK_MAX_FILE, &b, &e), OK);
        assert_int_equal(pack_read(path, buf_view(&b), list, &n, MAX_RULES, a, &e), OK);
        buf_free(&b);
    }
    return n;
}

static void every_rule_is_tested(void **state)
{
    (void)state;
    pack_rule *list = calloc(MAX_RULES, sizeof *list);
    arena      a    = { 0 };
    safety    *s    = open_packs();
    int        n    = read_packs(list, &a);
    assert_int_equal(n, safety_n_rules(s)); /* no pack is missing in the list above */
    for (int i = 0; i < n; i++) {
        int yes = 0;
        for (int k = 0; k < list[i].n_test; k++) yes += list[i].test_wanted[k];
        if (yes < 2 || list[i].n_test - yes < 2) fail_msg("%.*s: fewer than two tests a side", (int)list[i].r.id.n, list[i].r.id.s);
    }
    safety_close(s);
    arena_free(&a);
    free(list);
}

/* Needles only save work: with them and without them every test line of every rule has the same number of hits.  "(?-i)" before a pattern changes
 * nothing for PCRE2, but it is an inline option, so that no needles are taken from the pattern. */
static void needles_change_no_verdict(void **state)
{
    (void)state;
    pack_rule *list = calloc(MAX_RULES, sizeof *list);
    arena      a = { 0 }, b = { 0 };
    buf        blind = { 0 };
    err        e     = { 0 };
    safety    *s     = open_packs(), *u;
    int        n     = read_packs(list, &a);
    for (int i = 0; i < n; i++) {
        const pack_rule *r = &list[i];
        static const char *const wheres[] = { "", "user", "reply", "both" };
        if (r->check != IDENTITY_NONE) continue; /* covered by the tests of redaction */
        buf_fmt(&blind, "[rule %.*s]\ncategory: c\nwhere: %s\naction: flag\nview: %s\n", (int)r->r.id.n, r->r.id.s, wheres[r->r.where],
                r->view_plain ? "plain" : "both");
        for (int k = 0; k < r->n_pattern; k++)
            if (r->pattern[k].n < PACK_MAX_LINE - 40) buf_fmt(&blind, "pattern: (?-i)%.*s\n", (int)r->pattern[k].n, r->pattern[k].s);
    }
    const char *p = in_dir("blind.rules");
    write_file(p, blind.s, blind.n);
    if (safety_open(&u, &p, 1, &e) != OK) fail_msg("%s", e.msg);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < list[i].n_test; k++) {
            for (int where = WHERE_USER; where <= WHERE_REPLY; where++) {
                verdict x = check(s, list[i].test[k], where, &b), y = check(u, list[i].test[k], where, &b);
                int     hits[2] = { 0, 0 };
                for (int h = 0; h < x.n_hit; h++) hits[0] += safety_find_rule(u, safety_rule_at(s, x.hit[h].rule)->id) >= 0;
                hits[1] = y.n_hit;
                if (hits[0] != hits[1]) fail_msg("%d and %d hits: %.*s", hits[0], hits[1], (int)list[i].test[k].n, list[i].test[k].s);
            }
        }
        arena_reset(&b);
    }
    safety_close(u);
    safety_close(s);
    buf_free(&blind);
    arena_free(&a);
    arena_free(&b);
    free(list);
}

/* verdict TAB text, one a line. */
static void labelled_lines(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int         where;
    } sets[] = { { "tests/vectors/safety/zh_user.tsv", WHERE_USER },
                 { "tests/vectors/safety/en_user.tsv", WHERE_USER },
                 { "tests/vectors/safety/zh_reply.tsv", WHERE_REPLY },
                 { "tests/vectors/safety/en_reply.tsv", WHERE_REPLY } };
    safety *s   = open_packs();
    int     bad = 0;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        FILE  *f = fopen(sets[i].file, "r");
        char  *l = NULL;
        size_t cap = 0, lines = 0;
        arena  a = { 0 };
        assert_non_null(f);
        for (ssize_t n; (n = getline(&l, &cap, f)) > 0; lines++) {
            char *tab = strchr(l, '\t');
            assert_non_null(tab);
            if (l[n - 1] == '\n') l[--n] = 0;
            *tab = 0;
            verdict v = check(s, str_of(tab + 1), sets[i].where, &a);
            if (strcmp(safety_action_name(v.action), l)) {
                const safety_rule *r = v.rule >= 0 ? safety_rule_at(s, v.rule) : NULL;
                print_error("want %s, got %s %.*s: %s\n", l, safety_action_name(v.action), r ? (int)r->id.n : 0, r ? r->id.s : "", tab + 1);
                bad++;
            }
            arena_reset(&a);
        }
        assert_true(lines >= 30);
        arena_free(&a);
        free(l);
        fclose(f);
    }
    assert_int_equal(bad, 0);
    safety_close(s);
}

static int make_dir(void **state)
{
    (void)state;
    const char *t = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.40s/duet-safety-XXXXXX", t ? t : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state)
{
    (void)state;
    static const char *const names[] = { "t.rules", "blind.rules", "packs/1.rules", "packs/2.rules", "packs/notes.txt" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(in_dir(names[i]));
    rmdir(in_dir("packs"));
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_of_a_text),
        cmocka_unit_test(spans_map_back),
        cmocka_unit_test(needles_of_patterns),
        cmocka_unit_test(identities),
        cmocka_unit_test(bad_packs_are_named),
        cmocka_unit_test(limits_of_packs),
        cmocka_unit_test(tolerated_layout),
        cmocka_unit_test(folders_and_digest),
        cmocka_unit_test(severity_order_and_sides),
        cmocka_unit_test(redaction),
        cmocka_unit_test(no_pattern_stalls),
        cmocka_unit_test(hostile_pairs),
        cmocka_unit_test(a_check_is_quick),
        cmocka_unit_test(any_bytes_are_checked),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(packs_pass_their_own_tests),
        cmocka_unit_test(every_rule_is_tested),
        cmocka_unit_test(needles_change_no_verdict),
        cmocka_unit_test(labelled_lines),
    };
    return cmocka_run_group_tests_name("dialog/safety", tests, make_dir, drop_dir);
}
