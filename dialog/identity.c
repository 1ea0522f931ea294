/* identity: see identity.h. */
#include "dialog/identity.h"

#include <string.h>

enum { LUHN, CN_ID, IBAN, US_SSN, IPV4 };
static const char *const NAMES[] = { "luhn", "cn-id", "iban", "us-ssn", "ipv4" };

int identity_of_name(str name)
{
    for (int i = 0; i < (int)(sizeof NAMES / sizeof NAMES[0]); i++)
        if (str_eq(name, str_of(NAMES[i]))) return i;
    return IDENTITY_NONE;
}

const char *identity_names(void) { return "luhn, cn-id, iban, us-ssn, ipv4"; }

static int is_digit(char c) { return c >= '0' && c <= '9'; }
static int is_low(char c) { return c >= 'a' && c <= 'z'; }

/* The digits and lower-case letters of the span; -1 when there are more than `cap` or something else than separators between. */
static int gather(str span, char *out, int cap)
{
    int n = 0;
    for (size_t i = 0; i < span.n; i++) {
        char c = span.s[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c + 32);
        if (is_digit(c) || is_low(c)) {
            if (n == cap) return -1;
            out[n++] = c;
        } else if (!c || !strchr(" .-_/:()[]", c)) {
            return -1;
        }
    }
    return n;
}

static int all_digits(const char *s, int n)
{
    for (int i = 0; i < n; i++)
        if (!is_digit(s[i])) return 0;
    return 1;
}

static int number(const char *s, int n)
{
    int x = 0;
    for (int i = 0; i < n; i++) x = x * 10 + (s[i] - '0');
    return x;
}

static int luhn(const char *s, int n)
{
    int sum = 0, same = 1;
    if (n < 12 || n > 19 || !all_digits(s, n)) return 0;
    for (int i = 0; i < n; i++) {
        int d = s[n - 1 - i] - '0';
        if (i % 2) d = d > 4 ? 2 * d - 9 : 2 * d;
        sum += d;
        same &= s[i] == s[0];
    }
    return sum % 10 == 0 && !same;
}

static int cn_id(const char *s, int n)
{
    static const int weight[17] = { 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2 };
    static const int days[12]   = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    if (n != 18 || !all_digits(s, 17)) return 0;
    int region = number(s, 2), year = number(s + 6, 4), month = number(s + 10, 2), day = number(s + 12, 2), sum = 0;
    if (region < 11 || region > 91 || year < 1850 || year > 2099 || month < 1 || month > 12 || day < 1 || day > days[month - 1]) return 0;
    for (int i = 0; i < 17; i++) sum += (s[i] - '0') * weight[i];
    return s[17] == "10x98765432"[sum % 11];
}

static int iban(const char *s, int n)
{
    static const char length[] = "ad24ae23at20be16bg22ch21cy28cz24de22dk18ee20es24fi18fr27gb22gr27hr21hu28ie22is26it27li21lt20lu20lv21"
                                 "mc27mt31nl18no15pl28pt25ro24sa24se24si19sk24tr26";
    if (n < 15 || n > 34 || !is_low(s[0]) || !is_low(s[1]) || !is_digit(s[2]) || !is_digit(s[3])) return 0;
    for (const char *k = length; *k; k += 4)
        if (k[0] == s[0] && k[1] == s[1] && n != number(k + 2, 2)) return 0;
    int rest = 0;
    for (int i = 0; i < n; i++) {
        char c = s[(i + 4) % n];
        rest   = is_digit(c) ? (rest * 10 + (c - '0')) % 97 : (rest * 100 + (c - 'a' + 10)) % 97;
    }
    return rest == 1;
}

static int us_ssn(const char *s, int n)
{
    if (n != 9 || !all_digits(s, n)) return 0;
    int area = number(s, 3);
    return area && area != 666 && area < 900 && number(s + 3, 2) && number(s + 5, 4);
}

static int ipv4(str span)
{
    int part[4] = { 0 }, digits = 0, k = 0;
    for (size_t i = 0; i < span.n; i++) {
        if (is_digit(span.s[i])) {
            if (++digits > 3) return 0;
            part[k] = part[k] * 10 + (span.s[i] - '0');
        } else if (span.s[i] == '.' && digits && k < 3) {
            k++;
            digits = 0;
        } else {
            return 0;
        }
    }
    if (k != 3 || !digits) return 0;
    for (int i = 0; i < 4; i++)
        if (part[i] > 255) return 0;
    return part[0] != 0 && part[0] != 127 && part[0] != 255;
}

int identity_holds(int check, str span)
{
    char s[64];
    if (check == IPV4) return ipv4(span);
    int n = gather(span, s, (int)sizeof s);
    if (n < 0) return 0;
    switch (check) {
    case LUHN: return luhn(s, n);
    case CN_ID: return cn_id(s, n);
    case IBAN: return iban(s, n);
    case US_SSN: return us_ssn(s, n);
    default: return 1;
    }
}
