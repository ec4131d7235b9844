/* lib/reason.c: what clients are told. */
#include "pdroute/pdroute.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static void every_reason_has_name_and_sentence(void **state)
{
    (void)state;
    for (uint32_t i = PDR_ERR_PREFILL_FAILED; i <= PDR_ERR_HELD_TIMEOUT; i++) {
        assert_string_not_equal(pdr_reason_name(i), "unknown");
        assert_string_not_equal(pdr_reason_text(i), pdr_reason_text(0));
        for (uint32_t j = PDR_ERR_PREFILL_FAILED; j < i; j++) {
            assert_string_not_equal(pdr_reason_name(i), pdr_reason_name(j));
            assert_string_not_equal(pdr_reason_text(i), pdr_reason_text(j));
        }
    }
    static const uint32_t none[] = {0, PDR_ERR_HELD_TIMEOUT + 1, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(pdr_reason_name(none[i]), "unknown");
        assert_string_equal(pdr_reason_text(none[i]), "the request could not be completed");
    }
}

/* A name for each status: 4xx say what the client may do, 5xx of ours are our affair unless they are the servers'. */
static void errors_have_names(void **state)
{
    (void)state;
    for (int code = 0; code >= PDR_E_SYSTEM - 1; code--) {
        int         status = pdr_http_status(code);
        const char *name = pdr_error_name(code);
        if (status == 400) assert_string_equal(name, "bad_request");
        if (status == 413) assert_string_equal(name, "too_large");
        if (status == 429) assert_string_equal(name, "queue_full");
        if (status == 500) assert_string_equal(name, "internal_error");
    }
    assert_string_equal(pdr_error_name(PDR_E_NO_PAIR), pdr_reason_name(PDR_ERR_NO_PAIR));
    assert_string_equal(pdr_error_name(PDR_E_EXPIRED), pdr_reason_name(PDR_ERR_HELD_TIMEOUT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_reason_has_name_and_sentence), cmocka_unit_test(errors_have_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
