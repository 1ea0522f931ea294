/* paths: where models, rules and the database are looked for. */
#include "tests/dialog/records.h"

#include "dialog/paths.h"

static str made(buf *b)
{
    assert_int_equal(b->oom, 0);
    return buf_view(b);
}

static void the_database(void **s)
{
    (void)s;
    buf  b = { 0 };
    char home[300], xdg[300], want[400];
    snprintf(home, sizeof home, "%s/home", dir);
    snprintf(xdg, sizeof xdg, "%s/x/d", dir);
    OKAY(path_database(home, NULL, 0, &b, &e));
    snprintf(want, sizeof want, "%s/.local/share/duet/history.db", home);
    same_text(made(&b), str_of(want));
    assert_int_equal(access(home, F_OK), -1); /* only looked at */
    buf_reset(&b);
    OKAY(path_database(home, "", 1, &b, &e));
    same_text(made(&b), str_of(want));
    history *h;
    OKAY(hist_open(&h, b.s, HIST_WRITE, &e)); /* every folder is there */
    hist_close(h);
    struct stat st;
    assert_int_equal(stat(home, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    buf_reset(&b);
    OKAY(path_database(home, xdg, 1, &b, &e)); /* the data folder comes before the home */
    snprintf(want, sizeof want, "%s/duet/history.db", xdg);
    same_text(made(&b), str_of(want));
    buf_reset(&b);
    OKAY(path_database(home, "relative", 0, &b, &e)); /* the standard says: ignore it */
    assert_non_null(strstr(b.s, "/.local/share/"));
    assert_int_equal(path_database(NULL, NULL, 1, &b, &e), E_ARG);
    assert_int_equal(path_database("", "", 1, &b, &e), E_ARG);
    assert_non_null(strstr(e.msg, "--db"));
    char file[300], below[320];
    snprintf(file, sizeof file, "%s/a-file", dir);
    spit(file, "x", 1);
    snprintf(below, sizeof below, "%s/sub", file);
    buf_reset(&b);
    assert_int_equal(path_database(below, NULL, 1, &b, &e), E_IO);
    buf_free(&b);
}

static void models_and_rules(void **s)
{
    (void)s;
    buf  f = { 0 }, b = { 0 };
    char cmd[900], want[500];
    snprintf(cmd, sizeof cmd, "mkdir -p %s/share/duet/models/weights && cd %s/share/duet/models/weights && touch zz-forward.gguf zz-backward.gguf "
             "aa-forward.gguf bb-backward.gguf -- -forward.gguf", dir, dir);
    assert_int_equal(system(cmd), 0);
    OKAY(path_models(NULL, dir, &f, &b, &e));
    snprintf(want, sizeof want, "%s/share/duet/models/weights/aa-forward.gguf", dir);
    same_text(made(&f), str_of(want));
    assert_int_equal(b.n, 0); /* no backward model: left empty */
    buf_reset(&f);
    OKAY(path_models("zz", dir, &f, &b, &e));
    assert_non_null(strstr(f.s, "/zz-forward.gguf"));
    assert_non_null(strstr(b.s, "/zz-backward.gguf"));
    assert_int_equal(path_models("bb", dir, &f, &b, &e), E_IO);
    assert_non_null(strstr(e.msg, "bb-forward.gguf"));
    buf_reset(&f);
    assert_int_equal(path_shared("no/such/thing", dir, &f, &e), E_IO);
    assert_non_null(strstr(e.msg, "no/such/thing"));
    assert_int_equal(path_shared("no/such/thing", NULL, &f, &e), E_IO);
    assert_int_equal(f.n, 0);
    /* Beside the program: the folder above the one this test is in holds its own folder. */
    char    self[400] = { 0 };
    ssize_t n         = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    *strrchr(self, '/') = 0;
    OKAY(path_shared(strrchr(self, '/') + 1, NULL, &f, &e));
    assert_int_equal(access(f.s, F_OK), 0);
    buf_free(&f);
    buf_free(&b);
}

int main(void)
{
    if (make_folder()) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_database),
        cmocka_unit_test(models_and_rules),
    };
    return cmocka_run_group_tests_name("paths", tests, NULL, drop_folder);
}
