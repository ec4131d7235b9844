/* lib/prompt.c: what a scan finds in a body. */
#include "prompt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int scan(const char *body, uint32_t api, pdr_prompt *p, pdr_error *err)
{
    pdr_init_struct(p, sizeof *p);
    pdr_init_struct(err, sizeof *err);
    return pdr_scan(body, strlen(body), api, NULL, p, NULL, 0, err);
}

/* The body without its edits, and with `tail` where new members go. */
static const char *without_edits(const char *body, const pdr_prompt *p, const char *tail)
{
    static char out[4096];
    size_t      n = 0;
    uint64_t    at = 0, len = strlen(body);
    for (uint32_t i = 0; i < p->edits; i++) {
        assert_true(p->edit[i].begin >= at && p->edit[i].end > p->edit[i].begin && p->edit[i].end <= p->insert_at);
        memcpy(out + n, body + at, p->edit[i].begin - at);
        n += p->edit[i].begin - at;
        at = p->edit[i].end;
    }
    memcpy(out + n, body + at, p->insert_at - at);
    n += p->insert_at - at;
    memcpy(out + n, tail, strlen(tail));
    n += strlen(tail);
    memcpy(out + n, body + p->insert_at, len - p->insert_at);
    out[n + len - p->insert_at] = 0;
    return out;
}

static void owned_members_are_cut_with_one_comma(void **state)
{
    static const struct { const char *body, *cut, *added; uint32_t members, edits; } rows[] = {
        {"{}", "{}", "{T}", 0, 0},
        {"{ }", "{ }", "{T }", 0, 0},
        {"{\"a\":1}", "{\"a\":1}", "{\"a\":1T}", 1, 0},
        {"{\"bootstrap_room\":1}", "{}", "{T}", 0, 1},
        {"{ \"bootstrap_room\" : 1 }", "{  }", "{ T }", 0, 1},
        {"{\"bootstrap_room\":1,\"bootstrap_port\":[2]}", "{}", "{T}", 0, 2},
        {"{\"bootstrap_room\":1,\"a\":2}", "{\"a\":2}", "{\"a\":2T}", 1, 1},
        {"{\"a\":2,\"bootstrap_room\":1}", "{\"a\":2}", "{\"a\":2T}", 1, 1},
        {"{\"a\":2,\"bootstrap_room\":1,\"b\":3}", "{\"a\":2,\"b\":3}", "{\"a\":2,\"b\":3T}", 2, 1},
        {"{\"a\":2 , \"decode_tp_size\":1 , \"bootstrap\\u005fhost\":\"x\" , \"b\":3 }", "{\"a\":2   , \"b\":3 }", "{\"a\":2   , \"b\":3T }", 2, 2},
        {"{\"kv_transfer_params\":{\"a\":[1,2]},\"routed_dp_rank\":0,\"a\":2,\"data_parallel_rank\":1,\"disagg_prefill_dp_rank\":null}",
         "{\"a\":2}", "{\"a\":2T}", 1, 4},
        {" \n{\"bootstrap_pair_key\":\"}\",\"bootstrap_room\":1}\n", " \n{}\n", " \n{T}\n", 0, 2},
    };
    pdr_prompt p;
    pdr_error  err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(scan(rows[i].body, PDR_API_OTHER, &p, &err), PDR_OK);
        assert_int_equal(p.members, rows[i].members);
        assert_int_equal(p.edits, rows[i].edits);
        assert_string_equal(without_edits(rows[i].body, &p, ""), rows[i].cut);
        assert_string_equal(without_edits(rows[i].body, &p, "T"), rows[i].added);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(owned_members_are_cut_with_one_comma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
