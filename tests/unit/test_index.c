/* lib/index.c: the prefix index. */
#include "index.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pdr_index *fresh(uint64_t entries, uint32_t targets)
{
    uint64_t   size = (pdr_index_size(entries, targets) + 63) & ~(uint64_t)63;
    pdr_index *ix = aligned_alloc(64, size);
    assert_non_null(ix);
    memset(ix, 0xa5, size);
    pdr_index_init(ix, entries, targets);
    return ix;
}

static void holds_what_was_stored(void **state)
{
    (void)state;
    pdr_index *ix = fresh(1000, 3);
    uint64_t   a[] = {11, 12, 13, 14}, b[] = {11, 12, 23, 24};
    uint16_t   depth[3];
    char       why[128] = "";
    pdr_index_store(ix, 0, a, 4);
    pdr_index_store(ix, 1, b, 4);
    pdr_index_match(ix, a, 4, depth);
    assert_int_equal(depth[0], 4);
    assert_int_equal(depth[1], 2);
    assert_int_equal(depth[2], 0);
    pdr_index_remove(ix, 0, a + 1, 1);
    pdr_index_match(ix, a, 4, depth);
    assert_int_equal(depth[0], 1);
    pdr_index_clear(ix, 1);
    pdr_index_match(ix, a, 4, depth);
    assert_int_equal(depth[1], 0);
    assert_int_equal(pdr_index_count(ix, 1), 0);
    assert_int_equal(pdr_index_check(ix, why, sizeof why), 0);
    free(ix);
}

static void capacity_keeps_the_leading_blocks(void **state)
{
    (void)state;
    pdr_index *ix = fresh(1000, 1);
    uint64_t   a[] = {11, 12, 13, 14}, b[] = {21, 22, 23};
    uint16_t   depth[1];
    pdr_index_set_capacity(ix, 0, 5);
    pdr_index_store(ix, 0, a, 4);
    pdr_index_store(ix, 0, b, 3);
    assert_int_equal(pdr_index_count(ix, 0), 5);
    pdr_index_match(ix, a, 4, depth);
    assert_int_equal(depth[0], 2);
    pdr_index_match(ix, b, 3, depth);
    assert_int_equal(depth[0], 3);
    free(ix);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_was_stored),
        cmocka_unit_test(capacity_keeps_the_leading_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
