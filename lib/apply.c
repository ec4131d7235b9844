#include "apply.h"

#include "config.h"
#include "gather.h"
#include "k8s.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------ own form: pool */

static int read_own_ports(pdr_gather *g, uint32_t node, const char *where, pdr_pool *pool)
{
    uint32_t item = pdr_doc_type(g->doc, node) == PDR_DOC_ARRAY ? pdr_doc_first(g->doc, node) : node;
    int      code;
    pool->ports = 0;
    if (!item) return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%s: ports is empty", where);
    for (; item; item = item == node ? 0 : pdr_doc_next(g->doc, item)) {
        if (pool->ports == PDR_POOL_PORTS)
            return pdr_doc_fail(g->doc, item, g->err, PDR_E_TOO_LARGE, "%s: more than %d ports", where, PDR_POOL_PORTS);
        if ((code = pdr_gather_port(g, item, where, "port", &pool->port[pool->ports]))) return code;
        pool->ports++;
    }
    return PDR_OK;
}

static int read_own_pool(pdr_gather *g, uint32_t object)
{
    static const char *const known[] = {"name",  "namespace",      "selector", "role_label", "port",
                                        "ports", "bootstrap_port", "runtime",  NULL};
    const pdr_doc           *d = g->doc;
    pdr_pool                 pool = g->pool;
    uint32_t                 node;
    int                      code = pdr_gather_type(g, object, PDR_DOC_OBJECT, "document", "pool");
    if (code) return code;
    pdr_gather_unknown(g, object, "pool", "", known);
    if (((node = pdr_doc_get(d, object, "name")) &&
         (code = pdr_gather_text(g, node, "pool", "name", pool.name, sizeof pool.name))) ||
        ((node = pdr_doc_get(d, object, "namespace")) &&
         (code = pdr_gather_text(g, node, "pool", "namespace", pool.space, sizeof pool.space))) ||
        ((node = pdr_doc_get(d, object, "selector")) &&
         (code = pdr_gather_labels(g, node, "pool", "selector", pool.selector, sizeof pool.selector))) ||
        ((node = pdr_doc_get(d, object, "role_label")) &&
         (code = pdr_gather_text(g, node, "pool", "role_label", pool.role_label, sizeof pool.role_label))) ||
        ((node = pdr_doc_get(d, object, "runtime")) &&
         (code = pdr_gather_text(g, node, "pool", "runtime", pool.runtime, sizeof pool.runtime))) ||
        ((node = pdr_doc_get(d, object, "bootstrap_port")) &&
         (code = pdr_gather_port(g, node, "pool", "bootstrap_port", &pool.bootstrap_port))))
        return code;
    if (((node = pdr_doc_get(d, object, "ports")) || (node = pdr_doc_get(d, object, "port"))) &&
        (code = read_own_ports(g, node, "pool", &pool)))
        return code;
    g->pool = pool;
    return PDR_OK;
}

/* ------------------------------------------------------------ own form: endpoints */

static int fail_entry(pdr_gather *g, uint32_t node, const char *where, const char *what)
{
    return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s", where, what);
}

/* "http://host[:port][/]" or "https://…"; IPv6 in brackets. */
static int read_url(pdr_gather *g, uint32_t node, const char *where, pdr_endpoint *e)
{
    char          url[512], *host = url, *end, *port = NULL;
    unsigned long number;
    int           code = pdr_gather_text(g, node, where, "url", url, sizeof url);
    if (code) return code;
    if (!strncmp(url, "https://", 8))
        e->flags |= PDR_ENDPOINT_TLS;
    else if (strncmp(url, "http://", 7))
        return fail_entry(g, node, where, "url must begin with http:// or https://");
    host += e->flags & PDR_ENDPOINT_TLS ? 8 : 7;
    end = host + strcspn(host, "/?#");
    if (*end && strcmp(end, "/"))
        return fail_entry(g, node, where, "url must end behind host and port, paths are not possible");
    *end = 0;
    if (*host == '[') {
        end = strchr(++host, ']');
        if (!end || (end[1] && end[1] != ':'))
            return fail_entry(g, node, where, "url has an IPv6 address without its closing bracket");
        *end++ = 0;
        if (*end) port = end + 1;
    } else if ((port = strchr(host, ':'))) {
        if (strchr(port + 1, ':')) return fail_entry(g, node, where, "url has an IPv6 address without brackets");
        *port++ = 0;
    }
    e->port = e->flags & PDR_ENDPOINT_TLS ? 443 : 80;
    if (port) {
        number = *port >= '0' && *port <= '9' ? strtoul(port, &end, 10) : 0;
        if (!number || *end || number > 65535)
            return fail_entry(g, node, where, "url has no port 1..65535 behind the colon");
        e->port = (uint32_t)number;
    }
    if (!pdr_text_is_host(host) || strlen(host) >= sizeof e->host)
        return fail_entry(g, node, where, "url has no host name or address");
    memcpy(e->host, host, strlen(host) + 1);
    return PDR_OK;
}

static int read_host(pdr_gather *g, uint32_t node, const char *where, const char *what, char *out, size_t size)
{
    size_t len;
    int    code = pdr_gather_text(g, node, where, what, out, size);
    if (code) return code;
    len = strlen(out);
    if (len > 2 && out[0] == '[' && out[len - 1] == ']') { /* brackets belong to URLs; here they are harmless */
        memmove(out, out + 1, len - 2);
        out[len - 2] = 0;
    }
    return pdr_text_is_host(out)
               ? PDR_OK
               : pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s is no host name or address", where, what);
}

static int read_address(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    uint32_t url = pdr_doc_get(g->doc, entry, "url"), host = pdr_doc_get(g->doc, entry, "host"),
             port = pdr_doc_get(g->doc, entry, "port"), tls = pdr_doc_get(g->doc, entry, "tls");
    int code;
    if (url && (host || port || tls))
        return fail_entry(g, url, where, "has url and host, port or tls; one of the forms is enough");
    if (url) return read_url(g, url, where, e);
    if (!host || !port) return fail_entry(g, entry, where, "needs url, or host and port");
    if ((code = read_host(g, host, where, "host", e->host, sizeof e->host)) ||
        (code = pdr_gather_port(g, port, where, "port", &e->port)))
        return code;
    if (!tls || pdr_doc_type(g->doc, tls) == PDR_DOC_FALSE) return PDR_OK;
    if (pdr_doc_type(g->doc, tls) != PDR_DOC_TRUE) return fail_entry(g, tls, where, "tls must be true or false");
    e->flags |= PDR_ENDPOINT_TLS;
    return PDR_OK;
}

static int read_role(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    uint32_t    node = pdr_doc_get(g->doc, entry, "role");
    const char *role = pdr_doc_string(g->doc, node);
    if (role && !strcmp(role, "prefill"))
        e->role = PDR_ROLE_PREFILL;
    else if (role && !strcmp(role, "decode"))
        e->role = PDR_ROLE_DECODE;
    else if (role && !strcmp(role, "both"))
        e->role = PDR_ROLE_BOTH;
    else
        return fail_entry(g, node ? node : entry, where, "role must be \"prefill\", \"decode\" or \"both\"");
    return PDR_OK;
}

static int read_bootstrap(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    uint32_t host = pdr_doc_get(g->doc, entry, "bootstrap_host"), port = pdr_doc_get(g->doc, entry, "bootstrap_port");
    int code = host ? read_host(g, host, where, "bootstrap_host", e->bootstrap_host, sizeof e->bootstrap_host) : PDR_OK;
    if (code || !port) return code;
    if (pdr_doc_type(g->doc, port) != PDR_DOC_NULL)
        return pdr_gather_port(g, port, where, "bootstrap_port", &e->bootstrap_port);
    e->flags |= PDR_ENDPOINT_NULL_BOOTSTRAP_PORT;
    return PDR_OK;
}

static int read_alone(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    uint32_t node = pdr_doc_get(g->doc, entry, "alone");
    if (!node || pdr_doc_type(g->doc, node) == PDR_DOC_FALSE) return PDR_OK;
    if (pdr_doc_type(g->doc, node) != PDR_DOC_TRUE) return fail_entry(g, node, where, "alone must be true or false");
    if (e->role != PDR_ROLE_DECODE) return fail_entry(g, node, where, "alone is for the role decode");
    e->flags |= PDR_ENDPOINT_ALONE;
    return PDR_OK;
}

static int read_sizes(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    uint64_t value;
    uint32_t node;
    int      code;
    if ((node = pdr_doc_get(g->doc, entry, "dp_size"))) {
        if ((code = pdr_gather_number(g, node, 0, 65535, where, "dp_size", &value))) return code;
        e->dp_size = (uint32_t)value;
    }
    if ((node = pdr_doc_get(g->doc, entry, "max_running"))) {
        if ((code = pdr_gather_number(g, node, 0, UINT32_MAX, where, "max_running", &value))) return code;
        e->max_running = (uint32_t)value;
    }
    if ((node = pdr_doc_get(g->doc, entry, "kv_capacity"))) {
        if ((code = pdr_gather_number(g, node, 0, 1000000000000000, where, "kv_capacity", &value))) return code;
        e->kv_capacity = value;
    }
    return PDR_OK;
}

static int read_topology(pdr_gather *g, uint32_t entry, const char *where, pdr_endpoint *e)
{
    static const char *const known[] = {"host", "rack", "zone", NULL};
    uint32_t                 object = pdr_doc_get(g->doc, entry, "topology"), node;
    int                      code;
    if (!object) return PDR_OK;
    if ((code = pdr_gather_type(g, object, PDR_DOC_OBJECT, where, "topology"))) return code;
    pdr_gather_unknown(g, object, where, "topology", known);
    if (((node = pdr_doc_get(g->doc, object, "host")) &&
         (code = pdr_gather_text(g, node, where, "topology.host", e->topology_host, sizeof e->topology_host))) ||
        ((node = pdr_doc_get(g->doc, object, "rack")) &&
         (code = pdr_gather_text(g, node, where, "topology.rack", e->topology_rack, sizeof e->topology_rack))) ||
        ((node = pdr_doc_get(g->doc, object, "zone")) &&
         (code = pdr_gather_text(g, node, where, "topology.zone", e->topology_zone, sizeof e->topology_zone))))
        return code;
    return PDR_OK;
}

static int read_endpoint(pdr_gather *g, uint32_t entry, uint32_t index)
{
    static const char *const known[] = {
        "name",           "role",    "url",         "host",        "port",     "tls",    "bootstrap_host",
        "bootstrap_port", "dp_size", "kv_capacity", "max_running", "topology", "labels", "alone", NULL};
    char          where[PDR_WHERE];
    pdr_endpoint *e;
    uint32_t      node;
    int           code;
    snprintf(where, sizeof where, "endpoint %u", index);
    if ((code = pdr_gather_type(g, entry, PDR_DOC_OBJECT, "endpoints", where)) || (code = pdr_gather_add(g, entry, &e)))
        return code;
    if ((node = pdr_doc_get(g->doc, entry, "name"))) {
        if ((code = pdr_gather_text(g, node, where, "name", e->name, sizeof e->name))) return code;
        snprintf(where, sizeof where, "endpoint %u (%.100s)", index, e->name);
    }
    if ((code = read_role(g, entry, where, e)) || (code = read_address(g, entry, where, e)) ||
        (code = read_bootstrap(g, entry, where, e)) || (code = read_sizes(g, entry, where, e)) || (code = read_alone(g, entry, where, e)) ||
        (code = read_topology(g, entry, where, e)))
        return code;
    if ((node = pdr_doc_get(g->doc, entry, "labels")) &&
        (code = pdr_gather_labels(g, node, where, "labels", e->labels, sizeof e->labels)))
        return code;
    pdr_gather_unknown(g, entry, where, "", known);
    return PDR_OK;
}

/* Members of an own-form document; those of the configuration may stand beside them. */
static void check_members(pdr_gather *g, uint32_t object, uint32_t index)
{
    const char             *known[96];
    const pdr_config_field *field;
    char                    where[PDR_WHERE];
    size_t                  n = 0;
    known[n++] = "endpoints";
    known[n++] = "pool";
    known[n++] = PDR_CONFIG_TENANT;
    for (size_t i = 0; (field = pdr_config_field_at(i)) && n < 95; i++) known[n++] = field->name;
    known[n] = NULL;
    snprintf(where, sizeof where, "document %u", index + 1);
    pdr_gather_unknown(g, object, where, "", known);
}

/* A configuration that names no endpoints: they come from elsewhere. */
static int only_config(const pdr_doc *doc, uint32_t object)
{
    const pdr_config_field *field;
    if (!pdr_doc_first(doc, object)) return 1; /* all by default */
    for (size_t i = 0; (field = pdr_config_field_at(i)); i++)
        if (pdr_doc_get(doc, object, field->name)) return 1;
    return pdr_doc_get(doc, object, PDR_CONFIG_TENANT) != 0;
}

static int read_own_form_pool(pdr_gather *g, uint32_t object, const char *kind, uint32_t index, void *context)
{
    uint32_t pool = pdr_doc_get(g->doc, object, "pool");
    (void)context;
    if (*kind) return PDR_OK;
    if (!pool && !pdr_doc_get(g->doc, object, "endpoints") && !only_config(g->doc, object))
        return pdr_doc_fail(
            g->doc, object, g->err, PDR_E_PARSE,
            "there is neither \"endpoints\" nor \"pool\", and no \"kind\" as Kubernetes objects have");
    check_members(g, object, index);
    return pool ? read_own_pool(g, pool) : PDR_OK;
}

static int read_own_form_endpoints(pdr_gather *g, uint32_t object, const char *kind, uint32_t index, void *context)
{
    uint32_t list = *kind ? 0 : pdr_doc_get(g->doc, object, "endpoints"), i = 0;
    size_t   count = 0;
    int      code;
    (void)index, (void)context;
    if (!list) return PDR_OK;
    if ((code = pdr_gather_type(g, list, PDR_DOC_ARRAY, "document", "endpoints"))) return code;
    g->complete = 1;
    for (uint32_t entry = pdr_doc_first(g->doc, list); entry; entry = pdr_doc_next(g->doc, entry)) count++;
    if (count > PDR_GATHER_MOST)
        return pdr_doc_fail(g->doc, list, g->err, PDR_E_TOO_LARGE, "the document has %zu endpoints; max_endpoints is %d at most",
                            count, PDR_GATHER_MOST);
    for (uint32_t entry = pdr_doc_first(g->doc, list); entry; entry = pdr_doc_next(g->doc, entry))
        if ((code = read_endpoint(g, entry, i++))) return code;
    return PDR_OK;
}

/* ------------------------------------------------------------ duplicates */

static int by_name(const void *a, const void *b)
{
    return strcmp((*(pdr_endpoint *const *)a)->name, (*(pdr_endpoint *const *)b)->name);
}

static int by_address(const void *a, const void *b)
{
    const pdr_endpoint *x = *(pdr_endpoint *const *)a, *y = *(pdr_endpoint *const *)b;
    int                 order = strcmp(x->host, y->host);
    if (!order) order = (x->port > y->port) - (x->port < y->port);
    return order ? order : (x->flags > y->flags) - (x->flags < y->flags); /* those that are out come last */
}

/* Of two endpoints, which was found first and which later: numbers as in other messages, from 0. */
static size_t earlier(const pdr_gather *g, const pdr_endpoint *a, const pdr_endpoint *b) { return (size_t)((a < b ? a : b) - g->endpoints); }
static size_t later(const pdr_gather *g, const pdr_endpoint *a, const pdr_endpoint *b) { return (size_t)((a < b ? b : a) - g->endpoints); }

/* Names and addresses must be unique. A pod that is out may share its address with its successor: it is left out (port
 * 0). */
static int check_unique(pdr_gather *g, pdr_endpoint **order)
{
    for (size_t i = 0; i < g->n; i++) order[i] = &g->endpoints[i];
    qsort(order, g->n, sizeof *order, by_name);
    for (size_t i = 1; i < g->n; i++)
        if (*order[i]->name && !strcmp(order[i - 1]->name, order[i]->name))
            return pdr_doc_fail(g->doc, g->places[later(g, order[i - 1], order[i])], g->err, PDR_E_PARSE, "two endpoints have the name \"%.120s\": endpoint %zu and endpoint %zu", order[i]->name,
                            earlier(g, order[i - 1], order[i]), later(g, order[i - 1], order[i]));
    qsort(order, g->n, sizeof *order, by_address);
    for (size_t i = 1, first = 0; i < g->n; i++) {
        if (order[first]->port != order[i]->port || strcmp(order[first]->host, order[i]->host)) {
            first = i;
            continue;
        }
        if (!(order[i]->flags & PDR_ENDPOINT_OUT))
            return pdr_doc_fail(g->doc, g->places[later(g, order[first], order[i])], g->err, PDR_E_PARSE,
                            "endpoints %zu \"%.40s\" and %zu \"%.40s\" have the same address %.60s port %u",
                            earlier(g, order[first], order[i]), g->endpoints[earlier(g, order[first], order[i])].name,
                            later(g, order[first], order[i]), g->endpoints[later(g, order[first], order[i])].name,
                            order[i]->host, order[i]->port);
        order[i]->flags = UINT32_MAX; /* to be dropped; the address stays, for the comparison with the next */
    }
    return PDR_OK;
}

static int settle_duplicates(pdr_gather *g)
{
    pdr_endpoint **order;
    size_t         kept = 0;
    int            code;
    if (g->n < 2) return PDR_OK;
    order = malloc(g->n * sizeof *order);
    if (!order) return pdr_fail(g->err, PDR_E_SYSTEM, "no memory for %zu endpoints", g->n);
    code = check_unique(g, order);
    free(order);
    if (code) return code;
    for (size_t i = 0; i < g->n; i++) {
        if (g->endpoints[i].flags == UINT32_MAX) continue;
        if (kept != i) g->endpoints[kept] = g->endpoints[i];
        kept++;
    }
    g->n = kept;
    return PDR_OK;
}

int pdr_apply_parse(const char *text, size_t len, pdr_pool *pool, pdr_endpoint **endpoints, size_t *n, int *complete,
                    pdr_apply_report *report, pdr_error *err)
{
    pdr_doc    doc;
    pdr_gather g = {.doc = &doc, .pool = *pool, .err = err};
    int        code = pdr_doc_parse(&doc, text, len, err);
    if (code) return code;
    pdr_init_struct(&g.report, sizeof g.report);
    if ((code = pdr_k8s_each(&g, read_own_form_pool, NULL)) || (code = pdr_k8s_read_pool(&g)) ||
        (code = pdr_k8s_each(&g, read_own_form_endpoints, NULL)) || (code = pdr_k8s_read_pods(&g)) ||
        (code = settle_duplicates(&g)))
        goto out;
    *pool = g.pool;
    *endpoints = g.n ? g.endpoints : NULL;
    *n = g.n;
    *complete = g.complete;
    if (report) *report = g.report;
    if (g.n) g.endpoints = NULL;
out:
    free(g.endpoints);
    free(g.places);
    pdr_doc_free(&doc);
    return code;
}
