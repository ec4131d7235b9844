/* Kubernetes objects that are not as they should be: each mistake is named with its place, or warned about, and the pods that can be used are. */
#include "apply.h"
#include "gather.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static pdr_pool         pool;
static pdr_endpoint    *list;
static size_t           n;
static int              complete;
static pdr_apply_report report;
static pdr_error        err;

static int apply(const char *text)
{
    free(list);
    list = NULL;
    n = 0;
    memset(&pool, 0, sizeof pool);
    pdr_init_struct(&err, sizeof err);
    return pdr_apply_parse(text, strlen(text), &pool, &list, &n, &complete, &report, &err);
}

static int warned(const char *text)
{
    for (uint32_t i = 0; i < report.warnings && i < 8; i++)
        if (strstr(report.warning[i], text)) return 1;
    return 0;
}

#define POOL(spec)   "{\"apiVersion\":\"inference.networking.k8s.io/v1\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"},\"spec\":{" spec "}}"
#define POLICY(spec) "{\"kind\":\"InferenceTrafficPolicy\",\"metadata\":{\"name\":\"p\"},\"spec\":{\"poolRef\":{\"name\":\"q\"}," spec "}}"
#define GOOD         "\"selector\":{\"matchLabels\":{\"app\":\"q\"}},\"targetPorts\":[{\"number\":8000}]"
#define POD(name, labels, more) "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"" name "\",\"labels\":{\"app\":\"q\"," labels "}" more "},\"status\":{\"podIP\":\"10.0.0.1\"}}"
#define ROLE(role) "\"rbg.workloads.x-k8s.io/role-name\":\"" role "\""
#define LONG_64    "0123456789012345678901234567890123456789012345678901234567890123"
#define LONG_320   LONG_64 LONG_64 LONG_64 LONG_64 LONG_64

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct { const char *text, *says; int code; } cases[] = {
        {"{\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"}}", "InferencePool/q: spec is missing", PDR_E_PARSE},
        {"{\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"},\"spec\":7}", "spec is a number, an object is expected", PDR_E_PARSE},
        {POOL("\"targetPorts\":[{\"number\":1}]"), "spec.selector is missing", PDR_E_PARSE},
        {POOL("\"selector\":{}"), "spec.selector is empty, it would match every pod", PDR_E_PARSE},
        {POOL("\"selector\":{\"matchExpressions\":[]}"), "matchExpressions is not supported", PDR_E_UNSUPPORTED},
        {POOL("\"selector\":{\"a=b\":\"c\"},\"targetPortNumber\":1"), "spec.selector has a name that is not possible", PDR_E_PARSE},
        {POOL("\"selector\":{\"\":\"c\"},\"targetPortNumber\":1"), "spec.selector has a name that is not possible", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"" LONG_320 "\"},\"targetPortNumber\":1"), "spec.selector.a has 320 bytes, at most 255 are possible", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\\u0007\"},\"targetPortNumber\":1"), "spec.selector.a has a control character", PDR_E_PARSE},
        {POOL("\"selector\":{\"a1\":\"" LONG_64 LONG_64 LONG_64 "\",\"a2\":\"" LONG_64 LONG_64 LONG_64 "\",\"a3\":\"" LONG_64 LONG_64 LONG_64 "\",\"a4\":\"" LONG_64 LONG_64 LONG_64 "\",\"a5\":\"" LONG_64 LONG_64 LONG_64 "\",\"a6\":\"" LONG_64 LONG_64 LONG_64 "\"},\"targetPortNumber\":1"), "spec.selector takes more than", PDR_E_TOO_LARGE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPorts\":{}"), "spec.targetPorts is an object, an array is expected", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumber\":\"1\""), "spec.targetPortNumber is a string, a number is expected", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumber\":65536"), "spec.targetPortNumber is 65536, allowed is a whole number 1..65535", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumber\":1234567890123456789012345678901234567890"), "is 123456789012345678901234, allowed", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPort\":1"), "spec.targetPort is not known, perhaps targetPorts is meant", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPorts\":[]"), "spec.targetPortNumber or spec.targetPorts is missing", PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPorts\":[{\"number\":1},{\"number\":2},{\"number\":3},{\"number\":4},{\"number\":5},{\"number\":6},{\"number\":7},{\"number\":8},{\"number\":9}]"),
         "more than 8 target ports", PDR_E_TOO_LARGE},
        {POLICY("\"profile\":{\"pd\":7}"), "spec.profile.pd is a number, an object is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"single\":[]}"), "spec.profile.single is an array, an object is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"pdRoleLabelName\":7}}"), "pdRoleLabelName is a number, a string is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"kvTransfer\":7}}"), "kvTransfer is a number, an object is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"kvTransfer\":{\"bootstrapPort\":\"x\"}}}"), "bootstrapPort is a string, a number is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"trafficPolicy\":7}}"), "trafficPolicy is a number, an object is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"trafficPolicy\":{\"prefixCache\":7}}}"), "prefixCache is a number, an object is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"trafficPolicy\":{\"prefixCache\":{\"mode\":7}}}}"), "prefixCache.mode is a number, a string is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{}},\"modelServerRuntime\":7"), "modelServerRuntime is a number, a string is expected", PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{}},\"modelServerRuntime\":\"" LONG_320 "\""), "modelServerRuntime has 320 bytes", PDR_E_PARSE},
        {POD("a", ROLE("prefill"), ""), "Pod/a: no InferencePool has said which pods and which port", PDR_E_PARSE},
        {"[7]", "a number was found, an object is expected", PDR_E_PARSE},
        {"{\"kind\":\"PodList\",\"items\":{}}", "PodList: items is an object, an array is expected", PDR_E_PARSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int code = apply(cases[i].text);
        if (code != cases[i].code || !strstr(err.message, cases[i].says)) fail_msg("%s: %d \"%s\"", cases[i].text, code, err.message);
        assert_int_equal(n, 0);
    }
}

/* A decode pod that may also do requests alone says so; on others, and with other words, it is a warning and no more. */
static void pods_that_serve_alone(void **state)
{
    (void)state;
#define ALONE(word) ",\"annotations\":{\"pdroute.io/alone\":\"" word "\"}"
    static const struct { const char *text; uint32_t flags; int warns; } cases[] = {
        {"[" POOL(GOOD) "," POD("a", ROLE("decode"), ALONE("true")) "]", PDR_ENDPOINT_ALONE, 0},
        {"[" POOL(GOOD) "," POD("a", ROLE("decode"), ALONE("false")) "]", 0, 0},
        {"[" POOL(GOOD) "," POD("a", ROLE("decode"), ALONE("yes")) "]", 0, 1},
        {"[" POOL(GOOD) "," POD("a", ROLE("prefill"), ALONE("true")) "]", 0, 1},
        {"[" POOL(GOOD) "," POD("a", ROLE("both"), ALONE("true")) "]", 0, 1},
        {"[" POOL(GOOD) "," POD("a", ROLE("decode"), "") "]", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (apply(cases[i].text)) fail_msg("%s: %s", cases[i].text, err.message);
        assert_int_equal(n, 1);
        assert_int_equal(list[0].flags, cases[i].flags);
        assert_int_equal(warned("annotation pdroute.io/alone"), cases[i].warns);
    }
}

/* More objects of a kind than a document can have of it, and lists of any depth and length. */
static void many_objects(void **state)
{
    (void)state;
    char *text = malloc(1 << 20), *p = text;
    p += sprintf(p, "[");
    for (int i = 0; i < 200; i++) p += sprintf(p, "%s%s", i ? "," : "", POOL(GOOD));
    sprintf(p, "]");
    assert_int_equal(apply(text), PDR_E_TOO_LARGE);
    assert_non_null(strstr(err.message, "pools or policies"));
    assert_int_equal(apply("[null,{\"kind\":\"List\",\"items\":[{\"kind\":\"PodList\",\"items\":null},{\"kind\":\"InferencePoolList\",\"items\":[" POOL(GOOD) "]}]},{\"kind\":\"List\"}]"), PDR_OK);
    assert_string_equal(pool.name, "q");
    assert_int_equal(complete, 1);
    assert_int_equal(apply("{\"kind\":\"" LONG_64 "List\",\"items\":[{}]}"), PDR_OK); /* a kind of any length */
    assert_int_equal(n, 0);
    free(text);
}

static void pods_that_cannot_be_used_are_left_out(void **state)
{
    (void)state;
    assert_int_equal(apply("[" POOL(GOOD) "," POD("good", ROLE("both"), "") ","
                           "{\"kind\":\"Pod\",\"metadata\":{\"labels\":{\"app\":\"q\"," ROLE("decode") "}},\"status\":{\"podIP\":\"10.0.0.2\"}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"ip\",\"labels\":{\"app\":\"q\"," ROLE("decode") "}},\"status\":{\"podIP\":\"10 0 0 2\"}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"long\",\"labels\":{\"app\":\"q\"," ROLE("decode") "}},\"status\":{\"podIP\":\"" LONG_320 "\"}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"nolabels\",\"labels\":7},\"status\":{\"podIP\":\"10.0.0.3\"}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"pending\",\"labels\":{\"app\":\"q\"}},\"status\":{\"phase\":\"Pending\",\"podIP\":\"10.0.0.3\"}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"unplaced\",\"labels\":{\"app\":\"q\"}}},"
                           "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"number\",\"labels\":{\"app\":7}},\"status\":{\"podIP\":\"10.0.0.3\"}},"
                           POD("odd", ROLE("router"), "") "]"), PDR_OK);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].name, "good");
    assert_int_equal(list[0].role, PDR_ROLE_BOTH);
    assert_int_equal(report.skipped, 8);
    assert_true(warned("metadata.name is missing, left out"));
    assert_true(warned("Pod/ip: status.podIP is no address, left out"));
    assert_true(warned("Pod/odd: label rbg.workloads.x-k8s.io/role-name is \"router\", expected is prefill, decode or both; left out"));
}

/* A pool that says which label names the role means it; one that says nothing takes pods without any as whole servers. */
static void roles(void **state)
{
    (void)state;
    assert_int_equal(apply("[" POOL(GOOD) "," POD("a", "\"x\":\"\"", "") "]"), PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].role, PDR_ROLE_BOTH);
    assert_int_equal(apply("[" POOL(GOOD) "," POLICY("\"profile\":{\"pd\":{\"pdRoleLabelName\":\"r\"}}") "," POD("a", ROLE("prefill"), "") "," POD("b", "\"r\":\"decode\"", "") "]"), PDR_OK);
    assert_int_equal(n, 1);
    assert_string_equal(list[0].name, "b");
    assert_int_equal(apply("[" POOL(GOOD) "," POLICY("\"profile\":{\"single\":{}}") "," POD("a", ROLE("prefill"), "") "]"), PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].role, PDR_ROLE_BOTH);
    /* a policy for another pool says nothing about this one */
    assert_int_equal(apply("[" POOL(GOOD) ",{\"kind\":\"InferenceTrafficPolicy\",\"metadata\":{\"name\":\"o\"},\"spec\":{\"poolRef\":{\"name\":\"other\"},\"profile\":{\"single\":{}}}},"
                           POD("a", ROLE("prefill"), "") "]"), PDR_OK);
    assert_int_equal(list[0].role, PDR_ROLE_PREFILL);
}

static void bootstrap_ports(void **state)
{
    (void)state;
    static const struct { const char *annotation; uint32_t port[2], null[2]; int warnings; } cases[] = {
        {"9001", {9001, 9001}, {0, 0}, 0},         {"9001,9002", {9001, 9002}, {0, 0}, 0}, {"9001, 9002", {9001, 9002}, {0, 0}, 0}, {"none", {0, 0}, {1, 1}, 0},
        {"9001,null", {9001, 0}, {0, 1}, 0},       {"", {0, 0}, {0, 0}, 0},                {"9001,", {9001, 0}, {0, 0}, 1},         {",9002", {0, 9002}, {0, 0}, 1},
        {"0", {0, 0}, {0, 0}, 2},                  {"65536", {0, 0}, {0, 0}, 2},           {"9x", {0, 0}, {0, 0}, 2},               {"-1", {0, 0}, {0, 0}, 2},
        {"12345678901234567890", {0, 0}, {0, 0}, 2}, {" ", {0, 0}, {0, 0}, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[2000];
        snprintf(text, sizeof text, "[%s,{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"labels\":{\"app\":\"q\",%s},\"annotations\":{\"sglang.ai/bootstrap-port\":\"%s\"}},\"status\":{\"podIP\":\"10.0.0.1\"}}]",
                 POOL("\"selector\":{\"app\":\"q\"},\"targetPorts\":[{\"number\":8000},{\"number\":8001}]"), ROLE("prefill"), cases[i].annotation);
        if (apply(text)) fail_msg("%s: %s", cases[i].annotation, err.message);
        assert_int_equal(n, 2);
        if ((int)report.warnings != cases[i].warnings) fail_msg("%s: %u warnings", cases[i].annotation, report.warnings);
        for (uint32_t k = 0; k < 2; k++)
            if (list[k].bootstrap_port != cases[i].port[k] || !!(list[k].flags & PDR_ENDPOINT_NULL_BOOTSTRAP_PORT) != (int)cases[i].null[k])
                fail_msg("%s: port %u of endpoint %u", cases[i].annotation, list[k].bootstrap_port, k);
        assert_string_equal(list[1].name, "a-rank-1");
    }
}

static int finish(void **state)
{
    (void)state;
    free(list);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_named), cmocka_unit_test(pods_that_serve_alone), cmocka_unit_test(many_objects),    cmocka_unit_test(pods_that_cannot_be_used_are_left_out),
        cmocka_unit_test(roles),              cmocka_unit_test(bootstrap_ports),
    };
    return cmocka_run_group_tests(tests, NULL, finish);
}
