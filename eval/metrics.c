/* metrics: see metrics.h. */
#include "eval/metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "eval/tokenise.h"

const metric_info metric_list[METRICS] = {
    { "bleu1", "BLEU-1", 1, 1 }, { "bleu2", "BLEU-2", 1, 1 }, { "bleu3", "BLEU-3", 1, 1 }, { "bleu4", "BLEU-4", 1, 1 },
    { "nist1", "NIST-1", 0, 1 }, { "nist2", "NIST-2", 0, 1 }, { "nist3", "NIST-3", 0, 1 }, { "nist4", "NIST-4", 0, 1 }, { "nist5", "NIST-5", 0, 1 },
    { "mteval_bleu1", "mteval BLEU-1", 1, 1 }, { "mteval_bleu2", "mteval BLEU-2", 1, 1 }, { "mteval_bleu3", "mteval BLEU-3", 1, 1 },
    { "mteval_bleu4", "mteval BLEU-4", 1, 1 },
    { "meteor", "METEOR (exact, stem)", 1, 1 }, { "meteor_exact", "METEOR (exact)", 1, 1 }, { "rouge_l", "ROUGE-L", 1, 1 },
    { "rouge_l_f1", "ROUGE-L F1", 1, 1 }, { "f1", "word F1", 1, 1 },
    { "distinct1", "Distinct-1", 1, 0 }, { "distinct2", "Distinct-2", 1, 0 }, { "distinct3", "Distinct-3", 1, 0 },
    { "entropy1", "Entropy-1", 0, 0 }, { "entropy2", "Entropy-2", 0, 0 }, { "entropy3", "Entropy-3", 0, 0 }, { "entropy4", "Entropy-4", 0, 0 },
    { "avg_len", "length", 0, 1 }, { "repetition", "repetition", 1, 1 }, { "generic", "generic", 1, 1 }, { "empty", "empty", 1, 1 },
    { "self_bleu", "self-BLEU", 1, 1 },
};
enum { PLAIN_ORDERS = 4, MTEVAL_ORDERS = 5 };

static int no_memory(err *e) { return err_set(e, E_NOMEM, "out of memory for the metrics"); }

static int allocate(metric_rows *m, err *e)
{
    size_t n     = (size_t)m->n + 1;
    m->plain     = calloc(n, sizeof *m->plain);
    m->mteval    = calloc(n, sizeof *m->mteval);
    m->sentence  = calloc(n, sizeof *m->sentence);
    m->words     = calloc(n, sizeof *m->words);
    m->repeats   = calloc(n, 1);
    m->generic   = calloc(n, 1);
    m->self_bleu = calloc(n, sizeof *m->self_bleu);
    return m->plain && m->mteval && m->sentence && m->words && m->repeats && m->generic && m->self_bleu ? OK : no_memory(e);
}

void metric_rows_free(metric_rows *m)
{
    free(m->plain);
    free(m->mteval);
    free(m->sentence);
    free(m->words);
    free(m->repeats);
    free(m->generic);
    free(m->self_bleu);
    variety_grams_free(&m->grams);
    *m = (metric_rows){ 0 };
}

/* What mteval counts: the words tokenised by its own rules. */
static int mteval_rows(metric_rows *m, const str *hyp, const str *ref, const int *ref_at, err *e)
{
    lexicon   *l = lexicon_new();
    word_lines h = { 0 }, r = { 0 };
    int got = l ? word_lines_new(&h, l, hyp, m->n, m->tokenise, TOKENISE_MTEVAL, e) : no_memory(e);
    if (got == OK) got = word_lines_new(&r, l, ref, ref_at[m->n], m->tokenise, TOKENISE_MTEVAL, e);
    if (got == OK) got = overlap_count(&h, &r, ref_at, MTEVAL_ORDERS, lexicon_find(l, STR("0")), m->mteval, e);
    word_lines_free(&h);
    word_lines_free(&r);
    lexicon_free(l);
    return got;
}

static int reference_rows(metric_rows *m, const word_lines *h, const word_lines *r, const int *ref_at, const int *lower, const int *stem, err *e)
{
    int got = overlap_count(h, r, ref_at, PLAIN_ORDERS, -1, m->plain, e);
    for (int i = 0; i < m->n && got == OK; i++) got = sentence_score(h, i, r, ref_at[i], ref_at[i + 1], lower, stem, &m->sentence[i], e);
    return got;
}

void metric_space_free(metric_space *s)
{
    lexicon_free(s->words);
    ngrams_free(s->grams);
    *s = (metric_space){ 0 };
}

int metric_rows_new(metric_rows *m, metric_space *s, const str *hyp, int n, const str *ref, const int *ref_at, int kind, err *e)
{
    if (!s->words) s->words = lexicon_new();
    if (!s->grams) s->grams = ngrams_new();
    lexicon   *l = s->words;
    word_lines h = { 0 }, r = { 0 };
    int       *lower = NULL, *stem = NULL;
    *m      = (metric_rows){ .n = n, .has_refs = ref_at != NULL, .tokenise = kind };
    int got = l && s->grams ? allocate(m, e) : no_memory(e);
    if (got == OK) got = word_lines_new(&h, l, hyp, n, kind, -1, e);
    if (got == OK && ref_at) got = word_lines_new(&r, l, ref, ref_at[n], kind, -1, e);
    if (got == OK) got = lexicon_forms(l, &lower, &stem, e);
    if (got == OK && ref_at) got = reference_rows(m, &h, &r, ref_at, lower, stem, e);
    if (got == OK && ref_at) got = mteval_rows(m, hyp, ref, ref_at, e);
    if (got == OK) got = variety_grams_new(&m->grams, &h, s->grams, e);
    if (got == OK) got = variety_generic(&h, lower, m->generic, e);
    if (got == OK) got = variety_self_bleu(&h, m->self_bleu, e);
    for (int i = 0; i < n && got == OK; i++) {
        m->words[i]   = word_count(&h, i);
        m->repeats[i] = (unsigned char)variety_repeats(word_ids(&h, i), m->words[i]);
        int refs      = ref_at ? ref_at[i + 1] - ref_at[i] : 0;
        if (i == 0 || refs < m->refs_min) m->refs_min = refs;
        if (refs > m->refs_max) m->refs_max = refs;
    }
    word_lines_free(&h);
    word_lines_free(&r);
    free(lower);
    free(stem);
    if (got) metric_rows_free(m);
    return got;
}

#define JOIN(field)                                                              \
    do {                                                                         \
        memcpy(m->field, a->field, (size_t)a->n * sizeof *m->field);             \
        memcpy(m->field + a->n, b->field, (size_t)b->n * sizeof *m->field);      \
    } while (0)

int metric_rows_join(metric_rows *m, const metric_rows *a, const metric_rows *b, err *e)
{
    *m      = (metric_rows){ .n = a->n + b->n, .has_refs = a->has_refs, .tokenise = a->tokenise, .refs_min = a->refs_min, .refs_max = a->refs_max };
    int got = allocate(m, e);
    if (got == OK) got = variety_grams_join(&m->grams, &a->grams, &b->grams, e);
    if (got) {
        metric_rows_free(m);
        return got;
    }
    JOIN(plain);
    JOIN(mteval);
    JOIN(sentence);
    JOIN(words);
    JOIN(repeats);
    JOIN(generic);
    JOIN(self_bleu);
    return OK;
}
#undef JOIN

static void score_references(const metric_rows *m, const int *times, double lines, double *out)
{
    overlap plain = { 0 }, mteval = { 0 };
    double  sum[5] = { 0 };
    for (int i = 0; i < m->n; i++) {
        int t = times ? times[i] : 1;
        if (t == 0) continue;
        const sentence_scores *s = &m->sentence[i];
        overlap_add(&plain, &m->plain[i], t);
        overlap_add(&mteval, &m->mteval[i], t);
        sum[0] += t * s->meteor;
        sum[1] += t * s->meteor_exact;
        sum[2] += t * s->rouge_l;
        sum[3] += t * s->rouge_l_f1;
        sum[4] += t * s->f1;
    }
    for (int n = 1; n <= PLAIN_ORDERS; n++) {
        out[METRIC_BLEU1 + n - 1]        = bleu_plain(&plain, n);
        out[METRIC_MTEVAL_BLEU1 + n - 1] = bleu_mteval(&mteval, n);
    }
    for (int n = 1; n <= MTEVAL_ORDERS; n++) out[METRIC_NIST1 + n - 1] = nist_score(&mteval, n);
    for (int k = 0; k < 5; k++) out[METRIC_METEOR + k] = lines > 0 ? sum[k] / lines : 0;
}

void metric_rows_score(const metric_rows *m, const int *times, int which, int *count, double *out)
{
    double lines = 0, words = 0, repeats = 0, generic = 0, empty = 0, self = 0;
    for (int k = 0; k < METRICS; k++) out[k] = NAN;
    if (which & METRIC_SUMS) {
        for (int i = 0; i < m->n; i++) {
            int t = times ? times[i] : 1;
            lines += t;
            words += t * (double)m->words[i];
            repeats += t * m->repeats[i];
            generic += t * m->generic[i];
            empty += t * (m->words[i] == 0);
            self += t * m->self_bleu[i];
        }
        double by = lines > 0 ? lines : 1;
        out[METRIC_AVG_LEN]    = words / by;
        out[METRIC_REPETITION] = repeats / by;
        out[METRIC_GENERIC]    = generic / by;
        out[METRIC_EMPTY]      = empty / by;
        out[METRIC_SELF_BLEU]  = self / by;
        if (m->has_refs) score_references(m, times, lines, out);
    }
    if (which & METRIC_VARIETY) {
        variety v;
        variety_count(&m->grams, times, count, &v);
        memcpy(out + METRIC_DISTINCT1, v.distinct, sizeof v.distinct);
        memcpy(out + METRIC_ENTROPY1, v.entropy, sizeof v.entropy);
    }
}

int *metric_rows_scratch(const metric_rows *m, err *e)
{
    int *count = calloc((size_t)m->grams.nodes + 1, sizeof *count);
    if (!count) no_memory(e);
    return count;
}

int metric_signature(const metric_rows *m, buf *out)
{
    buf_fmt(out, "lines:%d|refs:", m->n);
    if (m->refs_min == m->refs_max) buf_fmt(out, "%d", m->refs_min);
    else buf_fmt(out, "%d-%d", m->refs_min, m->refs_max);
    buf_fmt(out, "|tok:%s", tokenise_name(m->tokenise));
    if (m->has_refs)
        buf_fmt(out, "|bleu:plain+case+closest+nosmooth|mteval:v14+lc+closest+smooth%s|meteor:nltk3.8+exact+porter+a.9+b3+g.5|rouge_l:coco+b1.2",
                m->tokenise == TOKENISE_NONE ? "" : "+after-tok");
    buf_fmt(out, "|distinct,entropy:corpus+case|duet:%s", DUET_VERSION);
    return out->oom ? E_NOMEM : OK;
}
