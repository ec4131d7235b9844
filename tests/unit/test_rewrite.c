/* lib/rewrite.c: slices, buffers of any size, padding, headers. Spans are given by hand here. */
#include "owned.h"
#include "rewrite.h"
#include "room.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pdr_decision decision(void)
{
    pdr_decision d;
    pdr_init_struct(&d, sizeof d);
    d.outcome = PDR_SEND;
    d.prefill_rank = d.decode_rank = PDR_NONE;
    d.bootstrap_port = 1;
    d.room = 7;
    strcpy(d.bootstrap_host, "h");
    return d;
}

/* A body with its edits marked: <...> is cut, ^ is where the tail goes. Writes the plain body. */
static pdr_prompt marked(const char *text, uint32_t members, char *body, size_t *len)
{
    pdr_prompt p;
    size_t n = 0;
    pdr_init_struct(&p, sizeof p);
    p.members = members;
    p.batch = p.samples = 1;
    for (; *text; text++) {
        if (*text == '<')
            p.edit[p.edits].begin = n;
        else if (*text == '>')
            p.edit[p.edits++].end = n;
        else if (*text == '^')
            p.insert_at = n;
        else
            body[n++] = *text;
    }
    p.object.end = *len = n;
    return p;
}

static const struct {
    const char *text;
    uint32_t members;
    const char *want; /* T: the tail's members */
} cases[] = {
    {"{^}", 0, "{T}"},
    {" \n{ ^} \t", 0, " \n{ T} \t"},
    {"{<>\"a\":1<>^}", 1, "{\"a\":1,T}"}, /* nothing is cut */
    {"{\"a\":1<,\"b\":2>^", 1, "{\"a\":1,T"}, /* nothing follows */
    {"{\"a\": 1^\n}\n", 1, "{\"a\": 1,T\n}\n"},
    {"{\"a\":1<,\"bootstrap_room\":5>^ }", 1, "{\"a\":1,T }"},
    {"{<\"bootstrap_room\":5,>\"a\":1^}", 1, "{\"a\":1,T}"},
    {"{<\"bootstrap_room\":5>^}", 0, "{T}"},
    {"{<\"bootstrap_room\":5,>< \"bootstrap\\u005froom\":6>^ }", 0, "{T }"},
    {"{\"a\":1<,\"x\":5>,\"b\":[2,{\"bootstrap_room\":3}]<,\"y\":6><,\"z\":7>,\"c\":123456789012345678901.50e+01^}", 3,
     "{\"a\":1,\"b\":[2,{\"bootstrap_room\":3}],\"c\":123456789012345678901.50e+01,T}"},
};
#define CASES (sizeof cases / sizeof *cases)
static const char members_text[] = "\"bootstrap_host\":\"h\",\"bootstrap_port\":1,\"bootstrap_room\":7";

static size_t expected(size_t i, const char *members, char *out)
{
    size_t n = 0;
    for (const char *s = cases[i].want; *s; s++) {
        if (*s != 'T') {
            out[n++] = *s;
            continue;
        }
        if (!*members && out[n - 1] == ',') n--;
        n += (size_t)sprintf(out + n, "%s", members);
    }
    return n;
}

static void bodies_come_out_as_expected(void **state)
{
    (void)state;
    char body[512], want[512], got[512];
    for (size_t i = 0; i < CASES; i++) {
        for (int single = 0; single < 2; single++) {
            size_t len, need, wanted = expected(i, single ? "" : members_text, want);
            pdr_prompt p = marked(cases[i].text, cases[i].members, body, &len);
            pdr_decision d = decision();
            d.mode = single ? PDR_MODE_SINGLE : PDR_MODE_PD;
            assert_int_equal(pdr_rewrite(&d, &p, PDR_LEG_DECODE, body, len, NULL, 0, &need), PDR_OK);
            assert_int_equal(need, wanted);
            assert_int_equal(pdr_rewrite(&d, &p, PDR_LEG_DECODE, body, len, got, need, &need), PDR_OK);
            assert_int_equal(need, wanted);
            assert_memory_equal(got, want, wanted);
        }
    }
}

static void slices_make_the_same_body(void **state)
{
    (void)state;
    char body[512], tail[256], got[512], joined[512];
    for (size_t i = 0; i < CASES; i++) {
        for (int single = 0; single < 2; single++) {
            size_t len, need, tail_len, n = PDR_MAX_SLICES, asked = 0, at = 0;
            pdr_slice slice[PDR_MAX_SLICES];
            pdr_prompt p = marked(cases[i].text, cases[i].members, body, &len);
            pdr_decision d = decision();
            d.mode = single ? PDR_MODE_SINGLE : PDR_MODE_PD;
            assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_PREFILL, 0, tail, sizeof tail, &tail_len), PDR_OK);
            if (single) assert_int_equal(tail_len, 0);
            assert_int_equal(pdr_rewrite_slices(&p, len, tail_len, slice, &n), PDR_OK);
            for (size_t k = 0; k < n; k++) {
                assert_true(slice[k].length > 0 && slice[k].source <= 1 && !slice[k].reserved);
                memcpy(joined + at, (slice[k].source ? tail : body) + slice[k].offset, slice[k].length);
                at += slice[k].length;
            }
            assert_int_equal(pdr_rewrite(&d, &p, PDR_LEG_PREFILL, body, len, got, sizeof got, &need), PDR_OK);
            assert_int_equal(need, at);
            assert_memory_equal(got, joined, at);
            assert_int_equal(pdr_rewrite_slices(&p, len, tail_len, NULL, &asked), PDR_OK);
            assert_int_equal(asked, n);
            asked = n;
            assert_int_equal(pdr_rewrite_slices(&p, len, tail_len, slice, &asked), PDR_OK);
            for (size_t room = 0; room < n; room++) {
                asked = room;
                assert_int_equal(pdr_rewrite_slices(&p, len, tail_len, slice, &asked), PDR_E_NOSPACE);
                assert_int_equal(asked, n);
            }
        }
    }
}

static void buffers_of_every_size(void **state)
{
    (void)state;
    char body[512], full[512], got[512];
    for (size_t i = 0; i < CASES; i++) {
        size_t len, need, size;
        pdr_prompt p = marked(cases[i].text, cases[i].members, body, &len);
        pdr_decision d = decision();
        for (int of_tail = 0; of_tail < 2; of_tail++) {
#define WRITE(buf, cap, need)                                                                                          \
    (of_tail ? pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, buf, cap, need)                                             \
             : pdr_rewrite(&d, &p, PDR_LEG_DECODE, body, len, buf, cap, need))
            assert_int_equal(WRITE(full, sizeof full, &size), PDR_OK);
            for (size_t cap = 0; cap <= size; cap++) {
                memset(got, 0x55, sizeof got);
                need = 0;
                assert_int_equal(WRITE(got, cap, &need), cap < size ? PDR_E_NOSPACE : PDR_OK);
                assert_int_equal(need, size);
                for (size_t k = cap; k < sizeof got; k++) assert_int_equal(got[k], 0x55);
            }
            assert_memory_equal(got, full, size);
#undef WRITE
        }
    }
}

static void padding_is_exact_or_an_error(void **state)
{
    (void)state;
    char tail[256], plain[256];
    size_t need, width, len;
    char body[64];
    pdr_prompt p = marked("{\"a\":1^}", 1, body, &len);
    pdr_decision d = decision();
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, plain, sizeof plain, &width), PDR_OK);
    for (size_t pad = 1; pad < width; pad++) {
        assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, pad, tail, sizeof tail, &need), PDR_E_NOSPACE);
        assert_int_equal(need, width);
    }
    for (size_t pad = width; pad < sizeof tail; pad++) {
        assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, pad, tail, sizeof tail, &need), PDR_OK);
        assert_int_equal(need, pad);
        assert_memory_equal(tail, plain, width);
        for (size_t k = width; k < pad; k++) assert_int_equal(tail[k], ' ');
        assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, pad, tail, pad - 1, &need), PDR_E_NOSPACE);
        assert_int_equal(need, pad);
    }
    d.mode = PDR_MODE_SINGLE; /* a retry on one server alone overwrites the tail with white space */
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 40, tail, sizeof tail, &need), PDR_OK);
    assert_int_equal(need, 40);
    for (size_t k = 0; k < 40; k++) assert_int_equal(tail[k], ' ');
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    char body[64], out[256];
    size_t len, need, n = PDR_MAX_SLICES;
    pdr_slice slice[PDR_MAX_SLICES];
    pdr_prompt p = marked("{\"a\":1<,\"b\":2>^}", 1, body, &len), q;
    pdr_decision d = decision(), e;
#define REWRITE(d, p, leg) pdr_rewrite(d, p, leg, body, len, out, sizeof out, &need)
    assert_int_equal(REWRITE(&d, &p, 2), PDR_E_INVALID);
    assert_int_equal(REWRITE(NULL, &p, 0), PDR_E_VERSION);
    assert_int_equal(REWRITE(&d, NULL, 0), PDR_E_VERSION);
    e = d, e.struct_size = 16;
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_VERSION);
    e = d, e.engine = 9;
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    e = d, e.outcome = PDR_HELD, e.room = 0; /* not to be sent: with room 0 a decode server waits for ever */
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    e = d, e.room = 0; /* a dry one */
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    assert_int_equal(pdr_rewrite_tail(&e, &p, PDR_LEG_DECODE, 0, out, sizeof out, &need), PDR_E_INVALID);
    pdr_init_struct(&e, sizeof e); /* as a refusal leaves it */
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    e = d, e.mode = 9;
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    e = d, e.batch = 65536;
    assert_int_equal(REWRITE(&e, &p, 0), PDR_E_INVALID);
    q = p, q.edits = PDR_MAX_EDITS + 1;
    assert_int_equal(REWRITE(&d, &q, 0), PDR_E_INVALID);
    q = p, q.insert_at = len + 1;
    assert_int_equal(REWRITE(&d, &q, 0), PDR_E_INVALID);
    q = p, q.edit[0].end = q.insert_at + 1;
    assert_int_equal(REWRITE(&d, &q, 0), PDR_E_INVALID);
    assert_int_equal(pdr_rewrite_slices(&q, len, 3, slice, &n), PDR_E_INVALID);
    q = p, q.edits = 2, q.edit[1] = (pdr_span){2, 3};
    assert_int_equal(REWRITE(&d, &q, 0), PDR_E_INVALID);
    q = p, q.edit[0].end = 1;
    assert_int_equal(REWRITE(&d, &q, 0), PDR_E_INVALID);
    assert_int_equal(pdr_rewrite(&d, &p, 0, NULL, len, out, sizeof out, &need), PDR_E_INVALID);
    assert_int_equal(pdr_rewrite(&d, &p, 0, body, len, NULL, 5, &need), PDR_E_INVALID);
#undef REWRITE
    e = d, e.struct_size = 8;
    assert_int_equal(pdr_decision_room(&e, 0), 0);
    assert_int_equal(pdr_decision_room(&d, 0), 7);
    assert_int_equal(pdr_decision_room(&d, 1), 0);
}

/* One room is a number, two are a list, and as many as a request may have prompts. */
static void rooms_of_batches(void **state)
{
    (void)state;
    char body[64], tail[256];
    size_t len, need;
    pdr_prompt p = marked("{^}", 0, body, &len);
    pdr_decision d = decision();
    for (uint32_t batch = 0; batch < 4; batch++) {
        d.batch = batch;
        assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, tail, sizeof tail - 1, &need), PDR_OK);
        tail[need] = 0;
        assert_true(strstr(tail, "\"bootstrap_room\":"));
        assert_int_equal(strchr(tail, '[') != NULL, batch >= 2);
    }
    d.batch = PDR_ROOM_MAX_DRAW;
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, NULL, 0, &need), PDR_OK);
    d.batch++;
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, NULL, 0, &need), PDR_E_INVALID);
}

static void headers(void **state)
{
    (void)state;
    static const char *const owned[] = {
        "x-override-bootstrap-room", "X-Override-RID",       "x-override-",
        "X-OVERRIDE-anything",       "x_override_rid",       "X-Override_routed-dp-rank",
        "X-Data-Parallel-Rank",      "x-data-parallel-rank", "x_data_parallel_rank",
        "X-DATA_PARALLEL-RANK"};
    static const char *const free_[] = {"",
                                        "x",
                                        "x-",
                                        "x-override",
                                        "x-overrides-rid",
                                        "x-data-parallel-ran",
                                        "x-data-parallel-ranks",
                                        "authorization",
                                        "X-Request-Id",
                                        "ax-override-rid",
                                        "x-o",
                                        "x data parallel rank",
                                        "y-data-parallel-rank"};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++)
        assert_int_equal(pdr_header_owned(owned[i], strlen(owned[i])), 1);
    for (size_t i = 0; i < sizeof free_ / sizeof *free_; i++)
        assert_int_equal(pdr_header_owned(free_[i], strlen(free_[i])), 0);
    assert_int_equal(pdr_header_owned(NULL, 0), 0);
    assert_int_equal(pdr_header_owned("x-override-rid", sizeof "x-override" - 1), 0); /* what follows in memory is not the name's */
    for (size_t len = 0; len < 4; len++) {                                            /* nor is it read: AddressSanitizer */
        char *name = malloc(len + !len);
        memcpy(name, "x-o", len);
        assert_int_equal(pdr_header_owned(name, len), 0);
        free(name);
    }
}

/* As many edits as there may be, an insertion at the very front, and who does not want to know how much is needed. */
static void limits_of_a_prompt(void **state)
{
    (void)state;
    char body[64], tail[256];
    size_t len, need = 77, n = PDR_MAX_SLICES;
    pdr_slice slice[PDR_MAX_SLICES];
    pdr_prompt p = marked("{^}", 0, body, &len);
    pdr_decision d = decision();
    p.edits = PDR_MAX_EDITS; /* all of them empty */
    memset(p.edit, 0, sizeof p.edit);
    assert_int_equal(pdr_rewrite_slices(&p, len, 3, slice, &n), PDR_OK);
    p.edits++;
    n = PDR_MAX_SLICES;
    assert_int_equal(pdr_rewrite_slices(&p, len, 3, slice, &n), PDR_E_INVALID);
    p.edits = 0;
    p.insert_at = 0;
    assert_int_equal(pdr_rewrite_slices(&p, len, 3, slice, &n), PDR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(slice[0].source, 1);
    assert_int_equal(slice[1].offset, 0);
    assert_int_equal(slice[1].length, len);
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 5, tail, sizeof tail, NULL), PDR_E_NOSPACE);
    d.mode = 77;
    assert_int_equal(pdr_rewrite_tail(&d, &p, PDR_LEG_DECODE, 0, tail, sizeof tail, &need), PDR_E_INVALID);
    assert_int_equal(need, 77);
}

/* A client's member whose name is as long as an owned one's stays. */
static void only_these_names_are_owned(void **state)
{
    static const char *const others[] = {"", "bootstrap_hose", "bootstrap_hos", "bootstrap_host2", "Bootstrap_host", "data_parallel_rink", "disagg_prefill_dp_rang", "xxxxxxxxxxxxxx", "kv_transfer_param_"};
    (void)state;
    for (int i = 0; i < PDR_OWNED_COUNT; i++) {
        assert_int_equal(pdr_owned_name(pdr_owned_names[i], strlen(pdr_owned_names[i])), 1);
        assert_int_equal(pdr_owned_name(pdr_owned_names[i], strlen(pdr_owned_names[i]) - 1), 0);
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) assert_int_equal(pdr_owned_name(others[i], strlen(others[i])), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_come_out_as_expected), cmocka_unit_test(slices_make_the_same_body),
        cmocka_unit_test(buffers_of_every_size),       cmocka_unit_test(padding_is_exact_or_an_error),
        cmocka_unit_test(wrong_arguments_are_refused), cmocka_unit_test(headers),
        cmocka_unit_test(rooms_of_batches),
        cmocka_unit_test(only_these_names_are_owned),
        cmocka_unit_test(limits_of_a_prompt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
