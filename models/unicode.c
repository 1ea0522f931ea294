/* unicode: the few facts about characters that the tokenizers need, from utf8proc's tables. */
#include "models/tokenizer_impl.h"

#include <utf8proc.h>

static int ascii_punct(uint32_t c)
{
    return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
}

/* Unicode's White_Space; the same set as \s of Python's regex module. */
static int white(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

unsigned uni_class(uint32_t cp)
{
    if (cp < 128) {
        if ((cp | 32) >= 'a' && (cp | 32) <= 'z') return UC_LETTER;
        if (cp >= '0' && cp <= '9') return UC_NUMBER;
        if (ascii_punct(cp)) return UC_PUNCT;
        return (white(cp) ? UC_SPACE : 0u) | (cp < 32 || cp == 127 ? UC_CONTROL : 0u);
    }
    if (cp == UTF8_BAD) return 0;
    unsigned c = white(cp) ? UC_SPACE : 0;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO:
        return c | UC_LETTER;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
        return c | UC_NUMBER;
    case UTF8PROC_CATEGORY_MN:
        return c | UC_MARK;
    case UTF8PROC_CATEGORY_PC: case UTF8PROC_CATEGORY_PD: case UTF8PROC_CATEGORY_PS: case UTF8PROC_CATEGORY_PE: case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF: case UTF8PROC_CATEGORY_PO:
        return c | UC_PUNCT;
    case UTF8PROC_CATEGORY_CC: case UTF8PROC_CATEGORY_CF: case UTF8PROC_CATEGORY_CO: case UTF8PROC_CATEGORY_CS:
        return c | UC_CONTROL;
    default:
        return c;
    }
}

int uni_is_cjk(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B820 && c <= 0x2CEAF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

int uni_decompose(uint32_t cp, uint32_t out[UNI_MAX])
{
    utf8proc_int32_t d[UNI_MAX];
    int              boundary = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, d, UNI_MAX, UTF8PROC_DECOMPOSE, &boundary);
    if (n < 1 || n > UNI_MAX) {
        out[0] = cp;
        return 1;
    }
    for (int i = 0; i < n; i++) out[i] = (uint32_t)d[i];
    return (int)n;
}

uint32_t uni_lower(uint32_t cp) { return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp); }

int uni_combining(uint32_t cp) { return (int)utf8proc_get_property((utf8proc_int32_t)cp)->combining_class; }
