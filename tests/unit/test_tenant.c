/* lib/tenant.c: who pays, from a header. */
#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static pdr_config config;

static uint64_t hash(const char *name, const char *value) { return pdr_tenant_hash(&config, name, strlen(name), value, strlen(value)); }

static void configure(const char *name)
{
    pdr_init_struct(&config, sizeof config);
    strcpy(config.tenant_header, name);
    assert_int_equal(pdr_config_resolve(&config, NULL), PDR_OK);
}

static void only_the_header_counts(void **state)
{
    (void)state;
    configure("X-Tenant-ID");
    uint64_t a = hash("x-tenant-id", "alice");
    assert_true(a != 0);
    assert_true(hash("X-TENANT-ID", "alice") == a);
    assert_true(hash("x-tenant-id", " \talice\t ") == a);
    assert_true(hash("x-tenant-id", "bob") != a && hash("x-tenant-id", "bob") != 0);
    assert_true(hash("x-tenant-id", "Alice") != a);
    assert_true(hash("x-tenant-i", "alice") == 0 && hash("x-tenant-id2", "alice") == 0 && hash("x_tenant_id", "alice") == 0);
    assert_true(hash("x-tenant-id", "") == 0 && hash("x-tenant-id", " \t") == 0 && hash("", "alice") == 0);
    assert_true(a == 0x4da10dd61a0116b0u); /* for ever: processes of other versions share the books */
}

static void nothing_configured(void **state)
{
    (void)state;
    configure("a|b~2");
    assert_true(hash("A|b~2", "alice") != 0);
    configure("");
    assert_true(hash("x-tenant-id", "alice") == 0 && hash("", "alice") == 0);
    assert_true(pdr_tenant_hash(NULL, "a", 1, "b", 1) == 0);
    configure("a");
    assert_true(pdr_tenant_hash(&config, NULL, 1, "b", 1) == 0 && pdr_tenant_hash(&config, "a", 1, NULL, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(only_the_header_counts), cmocka_unit_test(nothing_configured)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
