/* cmocka, as much of it as tests/models/test_linear.c uses, for processors whose build of the library is not at hand (make check-arm). */
#ifndef DUET_CROSS_CMOCKA_H
#define DUET_CROSS_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define fail_msg(...) (printf("%s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), printf("\n"), exit(1))
#define assert_true(x)                                \
    do {                                              \
        if (!(x)) fail_msg("%s does not hold", #x);   \
    } while (0)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_string_equal(a, b)    assert_true(strcmp(a, b) == 0)
#define assert_memory_equal(a, b, n) assert_true(memcmp(a, b, n) == 0)
#define assert_non_null(x)           assert_true((x) != NULL)
#define assert_null(x)               assert_true((x) == NULL)

struct CMUnitTest {
    const char *name;
    void (*run)(void **);
};
#define cmocka_unit_test(f) { #f, f }
#define cmocka_run_group_tests_name(name, tests, before, after) run_all(name, tests, sizeof(tests) / sizeof *(tests))
static int run_all(const char *name, const struct CMUnitTest *t, size_t n)
{
    void *none = NULL;
    for (size_t i = 0; i < n; i++) {
        t[i].run(&none);
        printf("%s: %s passed\n", name, t[i].name);
    }
    return 0;
}

#endif
