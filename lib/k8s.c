#include "k8s.h"

#include "similar.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OBJECTS 32 /* pools, and policies, that one document may have */

/* ------------------------------------------------------------ walking, naming */

static const char *text_at(const pdr_gather *g, uint32_t object, const char *path)
{
    const char *text = pdr_doc_string(g->doc, pdr_doc_at(g->doc, object, path));
    return text ? text : "";
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

typedef struct walk {
    pdr_k8s_visit visit;
    void         *context;
    uint32_t      index;
} walk;

/* `kind` is what the surrounding list says its items are: kubectl leaves it out in typed lists. */
static int walk_object(pdr_gather *g, walk *w, uint32_t node, const char *kind)
{
    char     item_kind[64];
    uint32_t items = 0;
    int      code;
    if (pdr_doc_type(g->doc, node) == PDR_DOC_NULL) return PDR_OK; /* an empty YAML document */
    if (pdr_doc_type(g->doc, node) == PDR_DOC_ARRAY) {
        items = node;
        snprintf(item_kind, sizeof item_kind, "%s", kind);
    } else if (pdr_doc_type(g->doc, node) == PDR_DOC_OBJECT) {
        const char *own = text_at(g, node, "kind");
        if (*own) kind = own;
        if (ends_with(kind, "List")) {
            snprintf(item_kind, sizeof item_kind, "%.*s", (int)(strlen(kind) > 60 ? 60 : strlen(kind) - 4), kind);
            if (!strcmp(item_kind, "Pod")) g->complete = 1;
            items = pdr_doc_get(g->doc, node, "items");
            if (!items || pdr_doc_type(g->doc, items) == PDR_DOC_NULL) return PDR_OK;
            if ((code = pdr_gather_type(g, items, PDR_DOC_ARRAY, kind, "items"))) return code;
        }
    } else {
        return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%s was found, an object is expected",
                            pdr_doc_type_name(g->doc, node));
    }
    if (!items) return w->visit(g, node, kind, w->index++, w->context);
    for (uint32_t item = pdr_doc_first(g->doc, items); item; item = pdr_doc_next(g->doc, item))
        if ((code = walk_object(g, w, item, item_kind))) return code;
    return PDR_OK;
}

int pdr_k8s_each(pdr_gather *g, pdr_k8s_visit visit, void *context)
{
    walk w = {visit, context, 0};
    return walk_object(g, &w, PDR_DOC_ROOT, "");
}

/* "Kind/name", or "Kind without a name". Errors have the place beside it. */
static void name_object(const pdr_gather *g, uint32_t object, const char *kind, char *where)
{
    const char *name = text_at(g, object, "metadata.name");
    if (*name)
        snprintf(where, PDR_WHERE, "%.40s/%.100s", kind, name);
    else
        snprintf(where, PDR_WHERE, "%.40s without a name", kind);
}

/* Optional member that must have the type if it is there (null: as if absent). */
static int optional(pdr_gather *g, uint32_t object, const char *name, uint32_t type, const char *where,
                    const char *what, uint32_t *node)
{
    *node = pdr_doc_get(g->doc, object, name);
    if (pdr_doc_type(g->doc, *node) == PDR_DOC_NULL) *node = 0;
    return *node ? pdr_gather_type(g, *node, type, where, what) : PDR_OK;
}

/* ------------------------------------------------------------ pool */

static int read_selector(pdr_gather *g, uint32_t spec, const char *where, pdr_pool *pool)
{
    uint32_t selector, labels;
    int      code = optional(g, spec, "selector", PDR_DOC_OBJECT, where, "spec.selector", &selector);
    if (code) return code;
    if (!selector) return pdr_doc_fail(g->doc, spec, g->err, PDR_E_PARSE, "%.100s: spec.selector is missing", where);
    labels = pdr_doc_get(g->doc, selector, "matchExpressions");
    if (pdr_doc_type(g->doc, labels) == PDR_DOC_ARRAY)
        return pdr_doc_fail(g->doc, labels, g->err, PDR_E_UNSUPPORTED,
                            "%.100s: spec.selector.matchExpressions is not supported, only matchLabels", where);
    labels = pdr_doc_get(g->doc, selector, "matchLabels");
    if (pdr_doc_type(g->doc, labels) == PDR_DOC_OBJECT) {
        static const char *const known[] = {"matchLabels", NULL};
        pdr_gather_unknown(g, selector, where, "spec.selector", known);
        selector = labels;
    }
    if (!g->doc->nodes[selector].length)
        return pdr_doc_fail(g->doc, selector, g->err, PDR_E_PARSE,
                            "%.100s: spec.selector is empty, it would match every pod", where);
    return pdr_gather_labels(g, selector, where, "spec.selector", pool->selector, sizeof pool->selector);
}

static int add_port(pdr_gather *g, uint32_t node, const char *where, const char *what, pdr_pool *pool)
{
    uint32_t port;
    int      code = pdr_gather_port(g, node, where, what, &port);
    if (code) return code;
    for (uint32_t i = 0; i < pool->ports; i++)
        if (pool->port[i] == port)
            return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s is there twice", where, what);
    if (pool->ports == PDR_POOL_PORTS)
        return pdr_doc_fail(g->doc, node, g->err, PDR_E_TOO_LARGE, "%.100s: more than %d target ports", where,
                            PDR_POOL_PORTS);
    pool->port[pool->ports++] = port;
    return PDR_OK;
}

/* Says that there is no port, and which member was perhaps meant to be one. */
static int fail_no_ports(pdr_gather *g, uint32_t spec, const char *where)
{
    static const char *const names[] = {"targetPortNumber", "targetPorts", NULL};
    for (uint32_t m = pdr_doc_first(g->doc, spec); m; m = pdr_doc_next(g->doc, m)) {
        const char *meant = pdr_similar(pdr_doc_key(g->doc, m), names);
        if (meant && strcmp(meant, pdr_doc_key(g->doc, m)))
            return pdr_doc_fail(g->doc, m, g->err, PDR_E_PARSE, "%.100s: spec.%.40s is not known, perhaps %s is meant",
                                where, pdr_doc_key(g->doc, m), meant);
    }
    return pdr_doc_fail(g->doc, spec, g->err, PDR_E_PARSE,
                        "%.100s: spec.targetPortNumber or spec.targetPorts is missing", where);
}

static int read_ports(pdr_gather *g, uint32_t spec, const char *where, pdr_pool *pool)
{
    uint32_t one, several;
    int      code;
    pool->ports = 0;
    if ((code = optional(g, spec, "targetPorts", PDR_DOC_ARRAY, where, "spec.targetPorts", &several)) ||
        (code = optional(g, spec, "targetPortNumber", PDR_DOC_NUMBER, where, "spec.targetPortNumber", &one)))
        return code;
    if (one && several)
        return pdr_doc_fail(g->doc, one, g->err, PDR_E_PARSE, "%.100s: spec has both targetPortNumber and targetPorts",
                            where);
    if (one) return add_port(g, one, where, "spec.targetPortNumber", pool);
    for (uint32_t item = pdr_doc_first(g->doc, several); item; item = pdr_doc_next(g->doc, item)) {
        uint32_t number = pdr_doc_get(g->doc, item, "number");
        if (!number)
            return pdr_doc_fail(g->doc, item, g->err, PDR_E_PARSE,
                                "%.100s: spec.targetPorts has an item without a number", where);
        if ((code = add_port(g, number, where, "spec.targetPorts.number", pool))) return code;
    }
    return pool->ports ? PDR_OK : fail_no_ports(g, spec, where);
}

static int read_spec(pdr_gather *g, uint32_t object, const char *where, uint32_t *spec)
{
    int code = optional(g, object, "spec", PDR_DOC_OBJECT, where, "spec", spec);
    if (!code && !*spec) code = pdr_doc_fail(g->doc, object, g->err, PDR_E_PARSE, "%.100s: spec is missing", where);
    return code;
}

static int read_pool_object(pdr_gather *g, uint32_t object, const char *where)
{
    static const char *const known[] = {"selector",          "targetPortNumber", "targetPorts", "extensionRef",
                                        "endpointPickerRef", "appProtocol",      NULL};
    const char              *version = text_at(g, object, "apiVersion"), *protocol;
    uint32_t                 spec, node;
    pdr_pool                 pool = g->pool;
    int                      code;
    if (strcmp(version, "inference.networking.x-k8s.io/v1alpha2") && strcmp(version, "inference.networking.k8s.io/v1"))
        pdr_gather_warn(g, "%.80s: apiVersion \"%.50s\" is not known, read as the ones that are", where, version);
    if ((code = read_spec(g, object, where, &spec)) || (code = read_selector(g, spec, where, &pool)) ||
        (code = read_ports(g, spec, where, &pool)))
        return code;
    pdr_gather_unknown(g, spec, where, "spec", known);
    protocol = text_at(g, spec, "appProtocol");
    if (*protocol && strcmp(protocol, "http"))
        pdr_gather_warn(g, "%.80s: spec.appProtocol \"%.40s\" is not spoken, HTTP/1.1 is", where, protocol);
    pool.name[0] = pool.space[0] = 0;
    if ((node = pdr_doc_at(g->doc, object, "metadata.name")) &&
        (code = pdr_gather_text(g, node, where, "metadata.name", pool.name, sizeof pool.name)))
        return code;
    if ((node = pdr_doc_at(g->doc, object, "metadata.namespace")) &&
        (code = pdr_gather_text(g, node, where, "metadata.namespace", pool.space, sizeof pool.space)))
        return code;
    g->pool = pool;
    return PDR_OK;
}

/* ------------------------------------------------------------ policy */

static int read_prefix_mode(pdr_gather *g, uint32_t profile, const char *where, pdr_pool *pool)
{
    static const char *const known_policy[] = {"prefixCache", NULL}, *const known_cache[] = {"mode", NULL};
    uint32_t traffic, cache, mode;
    int      code;
    if ((code = optional(g, profile, "trafficPolicy", PDR_DOC_OBJECT, where, "trafficPolicy", &traffic)) || !traffic)
        return code;
    pdr_gather_unknown(g, traffic, where, "trafficPolicy", known_policy);
    if ((code = optional(g, traffic, "prefixCache", PDR_DOC_OBJECT, where, "trafficPolicy.prefixCache", &cache)) ||
        !cache)
        return code;
    pdr_gather_unknown(g, cache, where, "trafficPolicy.prefixCache", known_cache);
    if (!(mode = pdr_doc_get(g->doc, cache, "mode"))) return PDR_OK;
    if ((code = pdr_gather_text(g, mode, where, "prefixCache.mode", pool->prefix_mode, sizeof pool->prefix_mode)))
        return code;
    if (strcmp(pool->prefix_mode, "estimate"))
        pdr_gather_warn(
            g, "%.80s: prefixCache.mode \"%s\" is read as \"estimate\"; exact entries come with pdr_prefix_store()",
            where, pool->prefix_mode);
    return PDR_OK;
}

static int read_pd_profile(pdr_gather *g, uint32_t pd, const char *where, pdr_pool *pool)
{
    static const char *const        known[] = {"pdRoleLabelName", "kvTransfer", "trafficPolicy", NULL},
                             *const known_transfer[] = {"bootstrapPort", NULL};
    uint32_t                        label, transfer, port;
    int                             code;
    pdr_gather_unknown(g, pd, where, "spec.profile.pd", known);
    pool->profile = PDR_POOL_PD;
    if ((code = optional(g, pd, "pdRoleLabelName", PDR_DOC_STRING, where, "spec.profile.pd.pdRoleLabelName", &label)))
        return code;
    if (label && (code = pdr_gather_text(g, label, where, "spec.profile.pd.pdRoleLabelName", pool->role_label,
                                         sizeof pool->role_label)))
        return code;
    if ((code = optional(g, pd, "kvTransfer", PDR_DOC_OBJECT, where, "spec.profile.pd.kvTransfer", &transfer)))
        return code;
    if (transfer) {
        pdr_gather_unknown(g, transfer, where, "spec.profile.pd.kvTransfer", known_transfer);
        if ((code = optional(g, transfer, "bootstrapPort", PDR_DOC_NUMBER, where,
                             "spec.profile.pd.kvTransfer.bootstrapPort", &port)))
            return code;
        if (port &&
            (code = pdr_gather_port(g, port, where, "spec.profile.pd.kvTransfer.bootstrapPort", &pool->bootstrap_port)))
            return code;
    }
    return read_prefix_mode(g, pd, where, pool);
}

static int read_profile(pdr_gather *g, uint32_t spec, const char *where, pdr_pool *pool)
{
    static const char *const known[] = {"pd", "single", NULL}, *const known_single[] = {"trafficPolicy", NULL};
    uint32_t profile, pd, single;
    int      code;
    if ((code = optional(g, spec, "profile", PDR_DOC_OBJECT, where, "spec.profile", &profile)) ||
        (code = optional(g, profile, "pd", PDR_DOC_OBJECT, where, "spec.profile.pd", &pd)) ||
        (code = optional(g, profile, "single", PDR_DOC_OBJECT, where, "spec.profile.single", &single)))
        return code;
    if (profile) pdr_gather_unknown(g, profile, where, "spec.profile", known);
    if (pd && single)
        return pdr_doc_fail(g->doc, profile, g->err, PDR_E_PARSE, "%.100s: spec.profile has both pd and single", where);
    if (pd) return read_pd_profile(g, pd, where, pool);
    if (!single) {
        pdr_gather_warn(g, "%.80s: spec.profile has neither pd nor single", where);
        return PDR_OK;
    }
    pool->profile = PDR_POOL_SINGLE;
    pdr_gather_unknown(g, single, where, "spec.profile.single", known_single);
    return read_prefix_mode(g, single, where, pool);
}

static int read_policy_object(pdr_gather *g, uint32_t object, const char *where)
{
    static const char *const known[] = {"poolRef", "modelServerRuntime", "profile", NULL};
    const char              *version = text_at(g, object, "apiVersion");
    uint32_t                 spec, runtime;
    pdr_pool                 pool = g->pool;
    int                      code;
    if (strcmp(version, "inferenceextension.alibabacloud.com/v1alpha1"))
        pdr_gather_warn(g, "%.80s: apiVersion \"%.50s\" is not known, read as v1alpha1", where, version);
    if ((code = read_spec(g, object, where, &spec))) return code;
    pdr_gather_unknown(g, spec, where, "spec", known);
    pool.role_label[0] = pool.prefix_mode[0] = pool.runtime[0] = 0; /* a policy replaces the one before */
    pool.bootstrap_port = 0;
    pool.profile = PDR_POOL_ANY;
    if ((code = optional(g, spec, "modelServerRuntime", PDR_DOC_STRING, where, "spec.modelServerRuntime", &runtime)))
        return code;
    if (runtime &&
        (code = pdr_gather_text(g, runtime, where, "spec.modelServerRuntime", pool.runtime, sizeof pool.runtime)))
        return code;
    if (runtime && strcmp(pool.runtime, "sglang"))
        pdr_gather_warn(g, "%.80s: spec.modelServerRuntime \"%s\" is not spoken, sglang is", where, pool.runtime);
    if ((code = read_profile(g, spec, where, &pool))) return code;
    g->pool = pool;
    return PDR_OK;
}

/* ------------------------------------------------------------ which pool and policy */

typedef struct objects {
    uint32_t pool[OBJECTS], policy[OBJECTS];
    uint32_t pools, policies;
} objects;

static int note_object(pdr_gather *g, uint32_t object, const char *kind, uint32_t index, void *context)
{
    objects *o = context;
    char     where[PDR_WHERE];
    (void)index;
    if (!*kind) return PDR_OK;
    if (o->pools == OBJECTS || o->policies == OBJECTS)
        return pdr_doc_fail(g->doc, object, g->err, PDR_E_TOO_LARGE, "the document has more than %d pools or policies",
                            OBJECTS - 1);
    if (!strcmp(kind, "InferencePool"))
        o->pool[o->pools++] = object;
    else if (!strcmp(kind, "InferenceTrafficPolicy"))
        o->policy[o->policies++] = object;
    else if (strcmp(kind, "Pod")) {
        name_object(g, object, kind, where);
        pdr_gather_warn(g, "%.100s: objects of this kind are not used", where);
    }
    return PDR_OK;
}

/* With several pools, the one that a policy or an earlier document names. */
static int choose_pool(pdr_gather *g, const objects *o, uint32_t *chosen)
{
    uint32_t matches = 0;
    *chosen = o->pools == 1 ? o->pool[0] : 0;
    if (o->pools < 2) return PDR_OK;
    for (uint32_t i = 0; i < o->pools; i++) {
        const char *name = text_at(g, o->pool[i], "metadata.name");
        int         named = *name && !strcmp(name, g->pool.name);
        for (uint32_t k = 0; k < o->policies && *name; k++)
            named |= !strcmp(name, text_at(g, o->policy[k], "spec.poolRef.name"));
        if (!named) continue;
        matches++;
        *chosen = o->pool[i];
    }
    if (matches == 1) return PDR_OK;
    return pdr_doc_fail(
        g->doc, o->pool[1], g->err, PDR_E_PARSE,
        "InferencePool/%.60s and InferencePool/%.60s: a router serves one pool, and no policy tells which",
        text_at(g, o->pool[0], "metadata.name"), text_at(g, o->pool[1], "metadata.name"));
}

static int read_policies(pdr_gather *g, const objects *o)
{
    uint32_t used = 0;
    int      code;
    for (uint32_t i = 0; i < o->policies; i++) {
        const char *pool = text_at(g, o->policy[i], "spec.poolRef.name");
        char        where[PDR_WHERE];
        name_object(g, o->policy[i], "InferenceTrafficPolicy", where);
        if (*pool && *g->pool.name && strcmp(pool, g->pool.name)) {
            pdr_gather_warn(g, "%.80s: is for pool \"%.30s\", not for \"%.30s\", and has no effect", where, pool,
                            g->pool.name);
            continue;
        }
        if (used++)
            return pdr_doc_fail(g->doc, o->policy[i], g->err, PDR_E_PARSE, "%.100s: a second policy for the same pool",
                                where);
        if ((code = read_policy_object(g, o->policy[i], where))) return code;
    }
    return PDR_OK;
}

int pdr_k8s_read_pool(pdr_gather *g)
{
    objects  o = {.pools = 0};
    uint32_t pool;
    char     where[PDR_WHERE];
    int      code;
    if ((code = pdr_k8s_each(g, note_object, &o)) || (code = choose_pool(g, &o, &pool))) return code;
    for (uint32_t i = 0; i < o.pools; i++) {
        name_object(g, o.pool[i], "InferencePool", where);
        if (o.pool[i] != pool)
            pdr_gather_warn(g, "%.100s: another pool is served, this one has no effect", where);
        else if ((code = read_pool_object(g, pool, where)))
            return code;
    }
    return read_policies(g, &o);
}

/* ------------------------------------------------------------ pods */

static const char *string_in(const pdr_gather *g, uint32_t object, const char *name)
{
    const char *text = pdr_doc_string(g->doc, pdr_doc_get(g->doc, object, name));
    return text ? text : "";
}

/* Whether the pod's labels have every "key=value" line of the selector. */
static int selected(const pdr_gather *g, uint32_t labels)
{
    char        key[sizeof g->pool.selector];
    const char *line = g->pool.selector, *end;
    for (; *line; line = end + 1) {
        const char *equals = strchr(line, '='), *value;
        end = strchr(line, '\n');
        if (!equals || !end || equals > end) return 0;
        memcpy(key, line, (size_t)(equals - line));
        key[equals - line] = 0;
        value = pdr_doc_string(g->doc, pdr_doc_get(g->doc, labels, key));
        if (!value || strlen(value) != (size_t)(end - equals - 1) || memcmp(value, equals + 1, strlen(value))) return 0;
    }
    return 1;
}

/* PDR_ROLE_*, or 0 with *why. */
static uint32_t role_of(const pdr_gather *g, uint32_t labels, const char **label, const char **value)
{
    static const char *const defaults[] = {"rolebasedgroup.workloads.x-k8s.io/role",
                                           "rbg.workloads.x-k8s.io/role-name"};
    *label = g->pool.role_label;
    *value = "";
    if (g->pool.profile == PDR_POOL_SINGLE) return PDR_ROLE_BOTH;
    if (**label) *value = string_in(g, labels, *label);
    for (size_t i = 0; i < 2 && !*g->pool.role_label && !**value; i++) {
        *label = defaults[i];
        *value = string_in(g, labels, *label);
    }
    if (!strcmp(*value, "prefill")) return PDR_ROLE_PREFILL;
    if (!strcmp(*value, "decode")) return PDR_ROLE_DECODE;
    if (!strcmp(*value, "both")) return PDR_ROLE_BOTH;
    return !**value && g->pool.profile == PDR_POOL_ANY && !*g->pool.role_label ? PDR_ROLE_BOTH : 0;
}

/* The i-th value of the annotation (or its only one) into the endpoint; 0 if it is no port. */
static int bootstrap_of(const char *list, uint32_t i, pdr_endpoint *e)
{
    char          item[16], *end;
    const char   *comma;
    unsigned long port;
    size_t        len;
    if (!*list) return 1;
    if (strchr(list, ','))
        for (; i; i--, list = comma + 1)
            if (!(comma = strchr(list, ','))) return 0;
    list += strspn(list, " ");
    len = strcspn(list, ", ");
    if (!len || len >= sizeof item) return 0;
    memcpy(item, list, len);
    item[len] = 0;
    if (!strcmp(item, "none") || !strcmp(item, "null")) {
        e->flags |= PDR_ENDPOINT_NULL_BOOTSTRAP_PORT;
        return 1;
    }
    if (*item < '0' || *item > '9') return 0;
    port = strtoul(item, &end, 10);
    if (*end || port < 1 || port > 65535) return 0;
    e->bootstrap_port = (uint32_t)port;
    return 1;
}

/* "Ready" condition; a pod without conditions was written by hand. */
static int is_ready(const pdr_gather *g, uint32_t pod)
{
    uint32_t conditions = pdr_doc_at(g->doc, pod, "status.conditions");
    if (pdr_doc_type(g->doc, conditions) != PDR_DOC_ARRAY) return 1;
    for (uint32_t c = pdr_doc_first(g->doc, conditions); c; c = pdr_doc_next(g->doc, c))
        if (!strcmp(string_in(g, c, "type"), "Ready")) return !strcmp(string_in(g, c, "status"), "True");
    return 0;
}

static int skip_pod(pdr_gather *g)
{
    g->report.skipped++;
    return PDR_OK;
}

static void pod_topology(const pdr_gather *g, uint32_t pod, uint32_t labels, pdr_endpoint *e)
{
    pdr_shorten(text_at(g, pod, "spec.nodeName"), e->topology_host, sizeof e->topology_host);
    pdr_shorten(string_in(g, labels, "topology.kubernetes.io/rack"), e->topology_rack, sizeof e->topology_rack);
    pdr_shorten(string_in(g, labels, "topology.kubernetes.io/zone"), e->topology_zone, sizeof e->topology_zone);
}

/* PDR_ENDPOINT_ALONE where the pod asks for it and may; else 0. */
static uint32_t alone_of(pdr_gather *g, uint32_t annotations, const char *where, uint32_t role)
{
    const char *alone = string_in(g, annotations, "pdroute.io/alone");
    if (!*alone || !strcmp(alone, "false")) return 0;
    if (!strcmp(alone, "true") && role == PDR_ROLE_DECODE) return PDR_ENDPOINT_ALONE;
    pdr_gather_warn(g, "%.80s: annotation pdroute.io/alone is \"%.20s\"; it is true or false, and for the role decode; ignored", where, alone);
    return 0;
}

/* A pod that is to be an endpoint per port. */
static int add_pod(pdr_gather *g, uint32_t pod, const char *where, uint32_t labels, uint32_t role, uint32_t flags)
{
    const char *name = text_at(g, pod, "metadata.name"), *host = text_at(g, pod, "status.podIP");
    uint32_t    annotations = pdr_doc_at(g->doc, pod, "metadata.annotations");
    const char *ports = string_in(g, annotations, "sglang.ai/bootstrap-port");
    uint32_t    alone = alone_of(g, annotations, where, role);
    int         code;
    for (uint32_t i = 0; i < g->pool.ports; i++) {
        pdr_endpoint *e;
        char          ranked[400];
        if ((code = pdr_gather_add(g, pod, &e))) return code;
        e->role = role;
        e->flags = flags | alone;
        e->port = g->pool.port[i];
        snprintf(ranked, sizeof ranked, g->pool.ports > 1 ? "%.330s-rank-%u" : "%.330s", name, i);
        pdr_shorten(ranked, e->name, sizeof e->name);
        snprintf(e->host, sizeof e->host, "%s", host);
        pod_topology(g, pod, labels, e);
        pdr_gather_some_labels(g, labels, e->labels, sizeof e->labels);
        if (role == PDR_ROLE_DECODE || bootstrap_of(ports, i, e)) continue;
        pdr_gather_warn(
            g,
            "%.80s: annotation sglang.ai/bootstrap-port \"%.24s\" names no port for target port %u, the pool's is used",
            where, ports, e->port);
    }
    return PDR_OK;
}

static int read_pod(pdr_gather *g, uint32_t pod, const char *kind, uint32_t index, void *context)
{
    const char *phase = text_at(g, pod, "status.phase"), *space = text_at(g, pod, "metadata.namespace"),
               *host = text_at(g, pod, "status.podIP"), *label, *value;
    uint32_t labels = pdr_doc_at(g->doc, pod, "metadata.labels"), role, flags = 0;
    char     where[PDR_WHERE];
    (void)context, (void)index;
    if (strcmp(kind, "Pod")) return PDR_OK;
    g->complete = 1;
    name_object(g, pod, kind, where);
    if (!g->pool.ports || !*g->pool.selector)
        return pdr_doc_fail(g->doc, pod, g->err, PDR_E_PARSE,
                            "%.100s: no InferencePool has said which pods and which port; apply it before or together",
                            where);
    if (pdr_doc_type(g->doc, labels) != PDR_DOC_OBJECT) labels = 0;
    if (!selected(g, labels) || (*space && *g->pool.space && strcmp(space, g->pool.space))) return skip_pod(g);
    if (*phase && strcmp(phase, "Running")) return skip_pod(g);
    if (!*host) return skip_pod(g); /* it comes when the pod has been placed */
    if (!*text_at(g, pod, "metadata.name") || !pdr_text_is_host(host) || strlen(host) >= sizeof((pdr_endpoint *)0)->host) {
        pdr_gather_warn(g, "%.100s: %s, left out", where,
                        *text_at(g, pod, "metadata.name") ? "status.podIP is no address" : "metadata.name is missing");
        return skip_pod(g);
    }
    role = role_of(g, labels, &label, &value);
    if (!role) {
        pdr_gather_warn(g, "%.60s: label %.50s is \"%.20s\", expected is prefill, decode or both; left out", where,
                        label, value);
        return skip_pod(g);
    }
    if (*text_at(g, pod, "metadata.deletionTimestamp") || !is_ready(g, pod)) flags = PDR_ENDPOINT_OUT;
    if (flags) g->report.skipped++;
    return add_pod(g, pod, where, labels, role, flags);
}

int pdr_k8s_read_pods(pdr_gather *g) { return pdr_k8s_each(g, read_pod, NULL); }
