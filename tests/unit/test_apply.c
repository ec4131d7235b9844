/* lib/apply.c, k8s.c, gather.c: own documents and Kubernetes objects → pool and endpoints. */
#include "apply.h"
#include "gather.h"
#include "text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "feed_data.h"

/* Where malloc can be replaced (not under sanitizers), the k-th allocation fails. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NO_FAILING_MALLOC
#endif
#endif
#else
#define NO_FAILING_MALLOC
#endif
#ifndef NO_FAILING_MALLOC
static long  allocations_left = -1;
extern void *__libc_malloc(size_t size);
extern void *__libc_realloc(void *p, size_t size);
static int   refuse(void) { return allocations_left >= 0 && allocations_left-- == 0; }
void        *malloc(size_t size) { return refuse() ? NULL : __libc_malloc(size); }
void        *realloc(void *p, size_t size) { return refuse() ? NULL : __libc_realloc(p, size); }
#endif

static pdr_pool         pool;
static pdr_endpoint    *list;
static size_t           n;
static int              complete;
static pdr_apply_report report;
static pdr_error        err;

static void forget(void)
{
    free(list);
    list = NULL;
    n = 0;
}

static int apply(const char *text, size_t len)
{
    forget();
    pdr_init_struct(&err, sizeof err);
    return pdr_apply_parse(text, len, &pool, &list, &n, &complete, &report, &err);
}

static int apply_text(const char *text) { return apply(text, strlen(text)); }

static void apply_file(const char *name)
{
    size_t len;
    char  *text = read_data(name, &len);
    int    code = apply(text, len);
    if (code) fail_msg("%s: line %u: %s", name, err.line, err.message);
    free(text);
}

static void new_pool(void) { memset(&pool, 0, sizeof pool); }

static const pdr_endpoint *by(const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(list[i].name, name)) return &list[i];
    fail_msg("no endpoint %s", name);
    return NULL;
}

static int warned(const char *text)
{
    for (uint32_t i = 0; i < report.warnings && i < 8; i++)
        if (strstr(report.warning[i], text)) return 1;
    return 0;
}

static void check_quickstart(void)
{
    assert_string_equal(pool.name, "qwen-inference-pool");
    assert_string_equal(pool.space, "default");
    assert_string_equal(pool.selector, "alibabacloud.com/inference-workload=sglang-pd\n");
    assert_string_equal(pool.role_label, "rolebasedgroup.workloads.x-k8s.io/role");
    assert_string_equal(pool.runtime, "sglang");
    assert_string_equal(pool.prefix_mode, "estimate");
    assert_int_equal(pool.profile, PDR_POOL_PD);
    assert_int_equal(pool.ports, 1);
    assert_int_equal(pool.port[0], 8000);
    assert_int_equal(pool.bootstrap_port, 34000);
    assert_int_equal(n, 3);
    assert_int_equal(complete, 1);
    assert_int_equal(report.warnings, 0);
    assert_int_equal(report.skipped, 0);
    const pdr_endpoint *e = by("sglang-pd-prefill-1");
    assert_int_equal(e->struct_size, sizeof *e);
    assert_int_equal(e->role, PDR_ROLE_PREFILL);
    assert_int_equal(e->flags, 0);
    assert_int_equal(e->port, 8000);
    assert_int_equal(e->bootstrap_port, 0); /* the pool's */
    assert_string_equal(e->host, "127.0.0.12");
    assert_string_equal(e->topology_host, "node-b");
    assert_string_equal(e->topology_zone, "cn-hangzhou-k");
    assert_non_null(strstr(e->labels, "rolebasedgroup.workloads.x-k8s.io/name=sglang-pd\n"));
    assert_string_equal(by("sglang-pd-prefill-0")->host, "127.0.0.11");
    assert_string_equal(by("sglang-pd-decode-0")->host, "127.0.0.21");
    assert_int_equal(by("sglang-pd-decode-0")->role, PDR_ROLE_DECODE);
}

static void guide_in_any_order(void **state)
{
    (void)state;
    new_pool();
    apply_file("apply/quickstart.json");
    check_quickstart();
    new_pool();
    apply_file("apply/quickstart_list.json");
    check_quickstart();
    apply_file("apply/quickstart_list.json"); /* once more over what is known */
    check_quickstart();
}

static void one_document_at_a_time(void **state)
{
    (void)state;
    const char *pool_text =
        "{\"apiVersion\":\"inference.networking.x-k8s.io/"
        "v1alpha2\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"},"
        "\"spec\":{\"targetPortNumber\":8000,\"selector\":{\"app\":\"q\"},\"extensionRef\":{\"name\":\"epp\"}}}";
    const char *policy = "{\"apiVersion\":\"inferenceextension.alibabacloud.com/"
                         "v1alpha1\",\"kind\":\"InferenceTrafficPolicy\",\"metadata\":{\"name\":\"p\"},"
                         "\"spec\":{\"poolRef\":{\"name\":\"q\"},\"profile\":{\"pd\":{\"pdRoleLabelName\":\"role\","
                         "\"kvTransfer\":{\"bootstrapPort\":34000}}}}}";
    const char *pod = "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\",\"labels\":{\"app\":\"q\",\"role\":\"decode\"}},"
                      "\"status\":{\"podIP\":\"10.0.0.1\"}}";
    new_pool();
    assert_int_equal(apply_text(pod), PDR_E_PARSE);
    assert_non_null(strstr(err.message, "Pod/a: no InferencePool"));
    assert_int_equal(apply_text(policy), PDR_OK);
    assert_int_equal(n, 0);
    assert_null(list);
    assert_int_equal(complete, 0);
    assert_int_equal(apply_text(pool_text), PDR_OK);
    assert_int_equal(complete, 0);
    assert_int_equal(report.warnings, 0);
    assert_int_equal(pool.bootstrap_port, 34000); /* the pool does not forget the policy */
    assert_int_equal(apply_text(pod), PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(complete, 1);
    assert_int_equal(list[0].role, PDR_ROLE_DECODE);
    assert_int_equal(apply_text("{\"kind\":\"PodList\",\"items\":[]}"), PDR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(complete, 1); /* there are none any more */
    assert_int_equal(apply_text("{\"kind\":\"PodList\",\"items\":null}"), PDR_OK);
    assert_int_equal(complete, 1);
    assert_int_equal(apply_text("{\"kind\":\"List\",\"items\":[null]}"), PDR_OK);
    assert_int_equal(complete, 0);
}

static void pods_in_every_state(void **state)
{
    (void)state;
    new_pool();
    apply_file("apply/pool_v1.json");
    assert_string_equal(pool.selector, "app=qwen\n");
    assert_int_equal(pool.ports, 2);
    assert_int_equal(pool.profile, PDR_POOL_ANY);
    assert_int_equal(n, 12); /* p-0, p-1, d-0, d-1, d-2, p-9 with two ports each */
    const pdr_endpoint *e = by("p-0-rank-1");
    assert_string_equal(e->host, "fd00:10:244::5");
    assert_int_equal(e->port, 8001);
    assert_int_equal(e->role, PDR_ROLE_PREFILL);
    assert_int_equal(e->bootstrap_port, 8999);
    assert_int_equal(by("p-0-rank-0")->bootstrap_port, 8998);
    assert_int_equal(by("p-1-rank-1")->bootstrap_port, 7000);
    assert_int_equal(by("d-0-rank-0")->bootstrap_port, 0);
    assert_int_equal(by("d-0-rank-0")->flags, 0);
    assert_int_equal(by("d-1-rank-0")->flags, PDR_ENDPOINT_OUT); /* not ready */
    assert_int_equal(by("d-2-rank-1")->flags, PDR_ENDPOINT_OUT); /* being deleted */
    assert_int_equal(by("p-9-rank-0")->bootstrap_port, 0);
    assert_int_equal(report.skipped, 2 + 2 + 3); /* d-1, d-2; d-3, d-4; s-0, x-0, y-0 */
    assert_int_equal(report.warnings, 3);        /* s-0's role, p-9's annotation for each port */
    assert_true(warned("Pod/s-0: label rbg.workloads.x-k8s.io/role-name is \"scheduler\""));
    assert_true(warned("Pod/p-9: annotation sglang.ai/bootstrap-port \"99999\""));
}

static void own_form(void **state)
{
    (void)state;
    new_pool();
    apply_file("apply/own.json");
    assert_int_equal(report.warnings, 0);
    assert_string_equal(pool.name, "qwen");
    assert_string_equal(pool.selector, "app=qwen\n");
    assert_int_equal(pool.bootstrap_port, 34000);
    assert_int_equal(pool.port[0], 8000);
    assert_int_equal(n, 4);
    assert_int_equal(complete, 1);
    assert_string_equal(list[0].name, "prefill-0");
    assert_string_equal(list[0].host, "127.0.0.11");
    assert_int_equal(list[0].port, 8000);
    assert_int_equal(list[0].bootstrap_port, 8998);
    assert_string_equal(list[0].bootstrap_host, "10.0.0.5");
    assert_int_equal(list[0].dp_size, 2);
    assert_int_equal(list[0].kv_capacity, 441792);
    assert_int_equal(list[0].max_running, 256);
    assert_string_equal(list[0].topology_host, "h1");
    assert_string_equal(list[0].topology_rack, "r1");
    assert_string_equal(list[0].topology_zone, "z1");
    assert_string_equal(list[0].labels, "team=a\nempty=\n");
    assert_string_equal(list[1].name, "");
    assert_string_equal(list[1].host, "fd00::1");
    assert_int_equal(list[1].flags, PDR_ENDPOINT_NULL_BOOTSTRAP_PORT);
    assert_string_equal(list[2].host, "decode.example.com");
    assert_int_equal(list[2].port, 443);
    assert_int_equal(list[2].flags, PDR_ENDPOINT_TLS);
    assert_string_equal(list[3].host, "::1");
    assert_int_equal(list[3].role, PDR_ROLE_BOTH);
    assert_int_equal(apply_text("{\"endpoints\":[]}"), PDR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(complete, 1);
    assert_int_equal(apply_text("{\"pool\":{\"ports\":[1,2]}}"), PDR_OK);
    assert_int_equal(complete, 0);
    assert_int_equal(pool.ports, 2);
    assert_string_equal(pool.name, "qwen");
}

#define POOL(spec)                                                                                                     \
    "{\"apiVersion\":\"inference.networking.k8s.io/"                                                                   \
    "v1\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"q\"},\n\"spec\":{" spec "}}"
#define POLICY(spec)                                                                                                   \
    "{\"apiVersion\":\"inferenceextension.alibabacloud.com/"                                                           \
    "v1alpha1\",\"kind\":\"InferenceTrafficPolicy\",\"metadata\":{\"name\":\"p\"},\n\"spec\":{" spec "}}"
#define GOOD           "\"selector\":{\"a\":\"b\"},\"targetPortNumber\":1"
#define ENDPOINT(rest) "{\"endpoints\":[\n{\"name\":\"x\",\"role\":\"decode\"," rest "}]}"

static void errors_name_document_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        uint32_t    line;
        int         code;
    } cases[] = {
        {"", "empty", 0, PDR_E_PARSE},
        {"{", "too early", 1, PDR_E_PARSE},
        {"7", "a number was found, an object is expected", 1, PDR_E_PARSE},
        {"[{\"endpoints\":[]},\n\"x\"]", "a string was found", 2, PDR_E_PARSE},
        {"{\"servers\":[]}", "neither \"endpoints\" nor \"pool\"", 1, PDR_E_PARSE},
        {"{\"endpoints\":{}}", "endpoints is an object, an array is expected", 1, PDR_E_PARSE},
        {"{\"endpoints\":[5]}", "endpoint 0 is a number", 1, PDR_E_PARSE},
        {"{\"endpoints\":[{\"url\":\"http://a:1\"}]}", "endpoint 0: role must be", 1, PDR_E_PARSE},
        {"{\"endpoints\":[{\"name\":\"\"}]}", "name is empty", 1, PDR_E_PARSE},
        {"{\"endpoints\":[{\"name\":\"a\\u0000b\"}]}", "name has a control character", 1, PDR_E_PARSE},
        {"{\"endpoints\":[{\"name\":\"x\",\"role\":\"master\"}]}", "endpoint 0 (x): role must be", 1, PDR_E_PARSE},
        {ENDPOINT("\"host\":\"a\""), "endpoint 0 (x): needs url, or host and port", 2, PDR_E_PARSE},
        {ENDPOINT("\"host\":\"a b\",\"port\":1"), "host is no host name", 2, PDR_E_PARSE},
        {ENDPOINT("\"host\":\"a\",\"port\":0"), "port is 0, allowed is a whole number 1..65535", 2, PDR_E_PARSE},
        {ENDPOINT("\"host\":\"a\",\"port\":\"1\""), "port is a string", 2, PDR_E_PARSE},
        {ENDPOINT("\"host\":\"a\",\"port\":1,\"tls\":1"), "tls must be true or false", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"port\":1"), "one of the forms", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"a:1\""), "must begin with http", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1/v1\""), "paths are not possible", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1?x\""), "paths are not possible", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://u@a:1\""), "no host name", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://:1\""), "no host name", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:\""), "no port", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:65536\""), "no port", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:-1\""), "no port", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://::1:80\""), "without brackets", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://[::1\""), "closing bracket", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://[::1]x\""), "closing bracket", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"bootstrap_port\":99999"), "bootstrap_port is 99999", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"dp_size\":1.5"), "dp_size is 1.5", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"alone\":1"), "alone must be true or false", 2, PDR_E_PARSE},
        {"{\"endpoints\":[\n{\"name\":\"x\",\"role\":\"prefill\",\"alone\":true,\"url\":\"http://a:1\"}]}", "alone is for the role decode", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"topology\":[]"), "topology is an array", 2, PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"labels\":{\"a\":1}"), "labels.a is a number, a string is expected", 2,
         PDR_E_PARSE},
        {ENDPOINT("\"url\":\"http://a:1\",\"labels\":{\"a=b\":\"\"}"), "name that is not possible", 2, PDR_E_PARSE},
        {"{\"endpoints\":[{\"name\":\"x\",\"role\":\"both\",\"url\":\"http://"
         "a:1\"},{\"name\":\"x\",\"role\":\"both\",\"url\":\"http://a:2\"}]}",
         "two endpoints have the name \"x\"", 0, PDR_E_PARSE},
        {"{\"endpoints\":[{\"name\":\"x\",\"role\":\"both\",\"url\":\"http://"
         "a:1\"},{\"name\":\"y\",\"role\":\"both\",\"url\":\"http://a:1\"}]}",
         "same address a port 1", 0, PDR_E_PARSE},
        {"{\"pool\":5}", "pool is a number", 1, PDR_E_PARSE},
        {"{\"pool\":{\"ports\":[]}}", "ports is empty", 1, PDR_E_PARSE},
        {"{\"pool\":{\"ports\":[1,2,3,4,5,6,7,8,9]}}", "more than 8", 1, PDR_E_TOO_LARGE},
        {"{\"kind\":\"InferencePool\"}", "InferencePool without a name: spec is missing", 1, PDR_E_PARSE},
        {POOL(""), "InferencePool/q: spec.selector is missing", 2, PDR_E_PARSE},
        {POOL("\"selector\":{}"), "match every pod", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"matchLabels\":{}}"), "match every pod", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"matchExpressions\":[]}"), "matchExpressions is not supported", 2, PDR_E_UNSUPPORTED},
        {POOL("\"selector\":{\"a\":true}"), "spec.selector.a is a boolean", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"}"), "targetPortNumber or spec.targetPorts is missing", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumer\":8000"),
         "spec.targetPortNumer is not known, perhaps targetPortNumber is meant", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumber\":0"), "spec.targetPortNumber is 0", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPortNumber\":\"8000\""), "spec.targetPortNumber is a string", 2,
         PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPorts\":[8000]"), "item without a number", 2, PDR_E_PARSE},
        {POOL("\"selector\":{\"a\":\"b\"},\"targetPorts\":[{\"number\":1},{\"number\":1}]"), "twice", 2, PDR_E_PARSE},
        {POOL(GOOD ",\"targetPorts\":[{\"number\":1}]"), "both targetPortNumber and targetPorts", 2, PDR_E_PARSE},
        {"[" POOL(GOOD) "," POOL(GOOD) "]", "a router serves one pool", 2, PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{},\"single\":{}}"), "InferenceTrafficPolicy/p: spec.profile has both", 2,
         PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"kvTransfer\":{\"bootstrapPort\":99999}}}"),
         "spec.profile.pd.kvTransfer.bootstrapPort is 99999", 2, PDR_E_PARSE},
        {POLICY("\"profile\":{\"pd\":{\"pdRoleLabelName\":\"\"}}"), "pdRoleLabelName is empty", 2, PDR_E_PARSE},
        {POLICY("\"profile\":[]"), "spec.profile is an array", 2, PDR_E_PARSE},
        {"[" POLICY("\"profile\":{\"single\":{}}") "," POLICY("\"profile\":{\"single\":{}}") "]", "a second policy", 0,
         PDR_E_PARSE},
        {"{\"kind\":\"List\",\"items\":5}", "items is a number", 1, PDR_E_PARSE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pdr_pool before;
        memset(&pool, 0, sizeof pool);
        pool.bootstrap_port = 77;
        before = pool;
        complete = 55;
        int code = apply_text(cases[i].text);
        if (code != cases[i].code || !strstr(err.message, cases[i].says))
            fail_msg("%s: %d %s", cases[i].text, code, err.message);
        assert_memory_equal(&pool, &before, sizeof pool);
        assert_null(list);
        assert_int_equal(n, 0);
        assert_int_equal(complete, 55);
        if (cases[i].line) assert_int_equal(err.line, cases[i].line);
    }
}

static void unknown_fields_are_named(void **state)
{
    (void)state;
    new_pool();
    assert_int_equal(apply_text("[" POOL(GOOD ",\"targetPortNumer\":5,\"zz\":1") "," POLICY(
                         "\"profile\":{\"pd\":{\"kvTransfr\":{},\"trafficPolicy\":{\"prefixCache\":{\"mode\":"
                         "\"tracking\",\"trackingConfig\":{}}}}},"
                         "\"queueing\":{},\"modelServerRuntime\":\"vllm\"") ",{\"kind\":\"HTTPRoute\",\"metadata\":{"
                                                                            "\"name\":\"r\"}}]"),
                     PDR_OK);
    assert_true(warned("InferencePool/q: spec.\"targetPortNumer\" is not known and has no effect; perhaps "
                       "\"targetPortNumber\" is meant"));
    assert_true(warned("InferencePool/q: spec.\"zz\" is not known and has no effect"));
    assert_true(warned("InferenceTrafficPolicy/p: spec.profile.pd.\"kvTransfr\" is not known and has no effect; "
                       "perhaps \"kvTransfer\""));
    assert_true(warned("trafficPolicy.prefixCache.\"trackingConfig\""));
    assert_true(warned("prefixCache.mode \"tracking\""));
    assert_true(warned("modelServerRuntime \"vllm\""));
    assert_true(warned("spec.\"queueing\""));
    assert_true(warned("HTTPRoute/r: objects of this kind are not used"));
    assert_int_equal(report.warnings, 8);
    assert_int_equal(apply_text("{\"endpoints\":[{\"role\":\"decode\",\"url\":\"http://"
                                "a:1\",\"max_runing\":5}],\"max_endpoints\":5,\"endpoint\":1}"),
                     PDR_OK);
    assert_true(warned("document 1: \"endpoint\" is not known and has no effect; perhaps \"endpoints\""));
    assert_true(warned("endpoint 0: \"max_runing\" is not known and has no effect; perhaps \"max_running\""));
    assert_int_equal(report.warnings, 2);
    assert_int_equal(apply_text(POOL(GOOD ",\"a1234567\":1,\"b1234567\":1,\"c1234567\":1,\"d1234567\":1,\"e1234567\":1,"
                                          "\"f1234567\":1,\"g1234567\":1,\"h1234567\":1,\"i1234567\":1")),
                     PDR_OK);
    assert_int_equal(report.warnings, 9); /* counted beyond the eight that are kept */
    assert_true(warned("h1234567"));
}

static void which_pool_which_policy(void **state)
{
    (void)state;
#define NAMED(name, port)                                                                                              \
    "{\"apiVersion\":\"inference.networking.k8s.io/v1\",\"kind\":\"InferencePool\",\"metadata\":{\"name\":\"" name     \
    "\"},\"spec\":{\"selector\":{\"a\":\"b\"},\"targetPortNumber\":" port "}}"
    new_pool();
    assert_int_equal(apply_text("[" NAMED("x", "1") "," NAMED("y", "2") "," POLICY(
                         "\"poolRef\":{\"name\":\"y\"},\"profile\":{\"single\":{}}") "]"),
                     PDR_OK);
    assert_string_equal(pool.name, "y");
    assert_int_equal(pool.port[0], 2);
    assert_int_equal(pool.profile, PDR_POOL_SINGLE);
    assert_true(warned("InferencePool/x: another pool is served"));
    assert_int_equal(apply_text("[" NAMED("x", "1") "," NAMED("y", "3") "]"), PDR_OK); /* known from before */
    assert_int_equal(pool.port[0], 3);
    assert_int_equal(apply_text(POLICY("\"poolRef\":{\"name\":\"z\"},\"profile\":{\"pd\":{}}")), PDR_OK);
    assert_int_equal(pool.profile, PDR_POOL_SINGLE);
    assert_true(warned("is for pool \"z\", not for \"y\""));
    /* single: no roles */
    assert_int_equal(
        apply_text(
            "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"labels\":{\"a\":\"b\"}},\"status\":{\"podIP\":\"::1\"}}"),
        PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].role, PDR_ROLE_BOTH);
    assert_int_equal(apply_text(POLICY("\"poolRef\":{\"name\":\"y\"},\"profile\":{\"pd\":{}}")),
                     PDR_OK); /* RoleBasedGroup's labels by default */
    assert_int_equal(
        apply_text(
            "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"labels\":{\"a\":\"b\"}},\"status\":{\"podIP\":\"::1\"}}"),
        PDR_OK);
    assert_int_equal(n, 0);
    assert_int_equal(report.skipped, 1);
    assert_int_equal(
        apply_text("{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"labels\":{\"a\":\"b\",\"rbg.workloads.x-k8s.io/"
                   "role-name\":\"prefill\"},\"annotations\":{\"sglang.ai/bootstrap-port\":\"none\"}},"
                   "\"status\":{\"podIP\":\"::1\"}}"),
        PDR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(list[0].role, PDR_ROLE_PREFILL);
    assert_int_equal(list[0].flags, PDR_ENDPOINT_NULL_BOOTSTRAP_PORT);
    assert_int_equal(apply_text("{\"kind\":\"Pod\",\"metadata\":{\"name\":\"p\",\"labels\":{\"a\":\"b\",\"rbg."
                                "workloads.x-k8s.io/role-name\":\"prefill\"}},\"status\":{\"podIP\":\"a\\\"b\"}}"),
                     PDR_OK);
    assert_int_equal(n, 0);
    assert_true(warned("status.podIP is no address"));
}

static void successor_on_the_same_address(void **state)
{
    (void)state;
#define POD(name, ip, more)                                                                                            \
    "{\"kind\":\"Pod\",\"metadata\":{\"name\":\"" name "\",\"labels\":{\"a\":\"b\"}" more                              \
    "},\"status\":{\"podIP\":\"" ip "\"}}"
#define DELETED ",\"deletionTimestamp\":\"2026-11-25T10:00:00Z\""
    new_pool();
    assert_int_equal(apply_text("[" POOL(GOOD) "," POD("old", "::1", DELETED) "," POD("new", "::1", "") "," POD(
                         "older", "::1", DELETED) "," POD("other", "::2", DELETED) "]"),
                     PDR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(by("new")->flags, 0);
    assert_int_equal(by("other")->flags, PDR_ENDPOINT_OUT);
    assert_int_equal(apply_text("[" POD("p", "::1", "") "," POD("q", "::1", "") "]"), PDR_E_PARSE);
}

static void long_names_stay_different(void **state)
{
    (void)state;
    char a[64], b[64], text[300];
    memset(text, 'x', 299);
    text[299] = 0;
    pdr_shorten(text, a, sizeof a);
    text[298] = 'y';
    pdr_shorten(text, b, sizeof b);
    assert_int_equal(strlen(a), 63);
    assert_string_not_equal(a, b);
    assert_memory_equal(a, b, 40);
    pdr_shorten("short", a, sizeof a);
    assert_string_equal(a, "short");
    assert_true(pdr_text_is_host("fe80::1%eth0") && pdr_text_is_host("a-b_c.example") && !pdr_text_is_host("") &&
                !pdr_text_is_host("a/b") && !pdr_text_is_host("a\"") && !pdr_text_is_host("a\r\nb"));
    assert_true(pdr_text_is_host("::1") && pdr_text_is_host("fd00::") && !pdr_text_is_host("10.0.0.1:8998") && !pdr_text_is_host("name:") && !pdr_text_is_host(":1")); /* ports have a member of their own */
}

static void any_document(const char *text, size_t len)
{
    new_pool();
    int code = apply(text, len);
    if (code) {
        assert_null(list);
        assert_true(err.code == code && err.message[0]);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        assert_in_range(list[i].port, 1, 65535);
        assert_in_range(list[i].role, PDR_ROLE_PREFILL, PDR_ROLE_BOTH);
        assert_in_range(list[i].bootstrap_port, 0, 65535);
        assert_true(pdr_text_is_host(list[i].host));
    }
}

static void damaged_documents(void **state)
{
    (void)state;
    static const char *const files[] = {"apply/quickstart.json", "apply/pool_v1.json", "apply/own.json"};
    for (size_t i = 0; i < 3; i++) {
        size_t len;
        char  *text = read_data(files[i], &len);
        try_truncated(text, len, 1, any_document);
        try_flipped(text, len, 1, any_document);
        free(text);
    }
    forget();
}

static void memory_that_runs_out(void **state)
{
    (void)state;
#ifdef NO_FAILING_MALLOC
    skip();
#else
    size_t len;
    char  *text = read_data("apply/pool_v1.json", &len);
    long   k = 0;
    for (;; k++) {
        pdr_pool before;
        int      code;
        new_pool();
        before = pool;
        forget();
        allocations_left = k;
        code = pdr_apply_parse(text, len, &pool, &list, &n, &complete, &report, &err);
        int unused = allocations_left >= 0;
        allocations_left = -1;
        if (unused) { /* more than it needs */
            assert_int_equal(code, PDR_OK);
            break;
        }
        if (!code) continue; /* qsort() gets on without */
        assert_int_equal(code, PDR_E_SYSTEM);
        assert_memory_equal(&pool, &before, sizeof pool);
        assert_null(list);
    }
    assert_in_range(k, 5, 100);
    forget();
    free(text);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guide_in_any_order),
        cmocka_unit_test(one_document_at_a_time),
        cmocka_unit_test(pods_in_every_state),
        cmocka_unit_test(own_form),
        cmocka_unit_test(errors_name_document_and_line),
        cmocka_unit_test(unknown_fields_are_named),
        cmocka_unit_test(which_pool_which_policy),
        cmocka_unit_test(successor_on_the_same_address),
        cmocka_unit_test(long_names_stay_different),
        cmocka_unit_test(damaged_documents),
        cmocka_unit_test(memory_that_runs_out),
    };
    int bad = cmocka_run_group_tests(tests, NULL, NULL);
    forget();
    return bad;
}
