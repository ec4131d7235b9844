/* Callers of libpdroute_host built against older and newer headers. */
#include "host_test.h"
#include "struct_size.h"

static int get_info(void *h, void *s) { return pdr_host_info_get(h, s); }
static int get_stats(void *p, void *s) { return pdr_probe_stats_get(p, s); }

static int make_probe(void *h, void *s)
{
    pdr_probe *p = NULL;
    int        code = pdr_probe_new(pdr_host_router(h), s, &p, NULL);
    pdr_probe_free(p);
    return code;
}

static int open_with(void *context, void *s)
{
    pdr_host   *h = NULL;
    pdr_router *r;
    int         code = pdr_host_open(context, s, PDR_HOST_CREATE, &h, &r, NULL);
    pdr_host_close(h);
    return code;
}

static int fill_error(void *context, void *s)
{
    pdr_host   *h;
    pdr_router *r;
    (void)context;
    return pdr_host_open("/nowhere/at/all", NULL, 0, &h, &r, s);
}

static void every_struct(void **state)
{
    (void)state;
    pdr_config              c = small_config();
    const pdr_probe_options o = {.struct_size = sizeof o, .interval_ms = 500, .authorization = "Bearer x"};
    pdr_probe              *p;
    pdr_host               *h;
    pdr_router             *r;
    pdr_error               err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_open(test_path("block"), &c, PDR_HOST_CREATE, &h, &r, &err)) fail_msg("%s", err.message);
    check_output(fill_error, NULL, sizeof(pdr_error), sizeof(pdr_error));
    check_output(get_info, h, sizeof(pdr_host_info), sizeof(uint32_t));
    check_input(open_with, (void *)(uintptr_t)test_path("block"), &c, sizeof c, sizeof(uint32_t));
    check_input(make_probe, h, &o, sizeof o, sizeof(uint32_t));
    if (pdr_probe_new(r, NULL, &p, NULL) == PDR_OK) {
        check_output(get_stats, p, sizeof(pdr_probe_stats), sizeof(uint32_t));
        pdr_probe_free(p);
    }
    pdr_host_close(h);
}

/* Of fixed size: set up by the library itself. pdr_probe_event is the library's own memory. */
static void fixed_sizes(void **state)
{
    (void)state;
    assert_int_equal(sizeof(pdr_host_lease), 88);
    assert_int_equal(offsetof(pdr_probe_event, struct_size), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_struct), cmocka_unit_test(fixed_sizes)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
