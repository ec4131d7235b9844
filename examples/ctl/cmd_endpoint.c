/* put, drain, undrain, remove: one endpoint, or a few by name. */
#include "ctl.h"

#include <stdlib.h>
#include <string.h>

/* ------------------------------------------------------------------------------------------------------------------- put */

static int copy(const struct ctl *c, const char *what, char *to, size_t cap, const char *from)
{
    if (strlen(from) >= cap) return ctl_misuse(c, "%s is longer than %zu bytes", what, cap - 1);
    memcpy(to, from, strlen(from) + 1);
    return CTL_OK;
}

static int bootstrap_port(const struct ctl *c, const char *text, pdr_endpoint *e)
{
    uint64_t n;
    if (!strcmp(text, "null") || !strcmp(text, "none")) {
        e->flags |= PDR_ENDPOINT_NULL_BOOTSTRAP_PORT;
        return CTL_OK;
    }
    if (ctl_number(c, "the bootstrap port", text, 1, 65535, &n)) return CTL_USAGE;
    e->bootstrap_port = (uint32_t)n;
    return CTL_OK;
}

/* http[s]://host:port[/][@bootstrap_port], the host in brackets if it is IPv6 */
static int take_url(const struct ctl *c, const char *url, pdr_endpoint *e)
{
    const char *host = strstr(url, "://"), *end, *port, *at;
    char        digits[8];
    uint64_t    n;
    size_t      len;
    if (!strncmp(url, "https://", 8)) e->flags |= PDR_ENDPOINT_TLS;
    else if (strncmp(url, "http://", 7)) return ctl_misuse(c, "'%s': only http:// and https:// are known", url);
    host += 3;
    if (*host == '[') {
        end = strchr(++host, ']');
        if (!end) return ctl_misuse(c, "'%s': the bracket is not closed", url);
        port = end + 1;
    } else {
        port = end = host + strcspn(host, ":/@");
    }
    if (end == host || (size_t)(end - host) >= sizeof e->host) return ctl_misuse(c, "'%s' has no usable host", url);
    memcpy(e->host, host, (size_t)(end - host));
    e->port = e->flags & PDR_ENDPOINT_TLS ? 443 : 80;
    at = port;
    if (*port == ':') {
        len = strcspn(port + 1, "/@");
        at = port + 1 + len;
        if (!len || len >= sizeof digits) return ctl_misuse(c, "'%s' has no usable port", url);
        memcpy(digits, port + 1, len);
        digits[len] = 0;
        if (ctl_number(c, "the URL's port", digits, 1, 65535, &n)) return CTL_USAGE;
        e->port = (uint32_t)n;
    }
    if (*at == '/') at++;
    if (*at == '@') return bootstrap_port(c, at + 1, e);
    return *at ? ctl_misuse(c, "'%s': a path has no meaning here", url) : CTL_OK;
}

static int take_topology(const struct ctl *c, const char *text, pdr_endpoint *e)
{
    char  *to[] = {e->topology_host, e->topology_rack, e->topology_zone};
    size_t n, i = 0;
    for (;; text += n + 1) {
        n = strcspn(text, ",");
        if (i == 3) return ctl_misuse(c, "--topology is HOST[,RACK[,ZONE]]");
        if (n >= sizeof e->topology_host) return ctl_misuse(c, "--topology: a name is longer than %zu bytes", sizeof e->topology_host - 1);
        memcpy(to[i], text, n);
        to[i++][n] = 0;
        if (!text[n]) return CTL_OK;
    }
}

static int take_label(const struct ctl *c, const char *text, pdr_endpoint *e)
{
    size_t have = strlen(e->labels), n = strlen(text);
    if (!strchr(text, '=') || strchr(text, '\n')) return ctl_misuse(c, "--label is KEY=VALUE");
    if (have + n + 2 > sizeof e->labels) return ctl_misuse(c, "all labels together are longer than %zu bytes", sizeof e->labels - 1);
    memcpy(e->labels + have, text, n);
    memcpy(e->labels + have + n, "\n", 2);
    return CTL_OK;
}

enum { PUT_HOST = 1, PUT_PORT, PUT_NAME, PUT_TLS, PUT_BHOST, PUT_BPORT, PUT_DP, PUT_RUNNING, PUT_KV, PUT_TOPOLOGY, PUT_LABEL, PUT_ALONE };

static int put_option(const struct ctl *c, int o, const char *value, pdr_endpoint *e)
{
    uint64_t n;
    switch (o) {
    case 'r':
        e->role = !strcmp(value, "prefill") ? PDR_ROLE_PREFILL : !strcmp(value, "decode") ? PDR_ROLE_DECODE
                : !strcmp(value, "both") ? PDR_ROLE_BOTH : 0;
        return e->role ? CTL_OK : ctl_misuse(c, "--role: '%s' is not prefill, decode or both", value);
    case PUT_HOST: return copy(c, "--host", e->host, sizeof e->host, value);
    case PUT_NAME: return copy(c, "--name", e->name, sizeof e->name, value);
    case PUT_BHOST: return copy(c, "--bootstrap-host", e->bootstrap_host, sizeof e->bootstrap_host, value);
    case PUT_BPORT: return bootstrap_port(c, value, e);
    case PUT_TLS: e->flags |= PDR_ENDPOINT_TLS; return CTL_OK;
    case PUT_ALONE: e->flags |= PDR_ENDPOINT_ALONE; return CTL_OK;
    case PUT_TOPOLOGY: return take_topology(c, value, e);
    case PUT_LABEL: return take_label(c, value, e);
    case PUT_PORT:
        if (ctl_number(c, "--port", value, 1, 65535, &n)) return CTL_USAGE;
        e->port = (uint32_t)n;
        return CTL_OK;
    case PUT_DP:
        if (ctl_number(c, "--dp-size", value, 1, 1024, &n)) return CTL_USAGE;
        e->dp_size = (uint32_t)n;
        return CTL_OK;
    case PUT_RUNNING:
        if (ctl_number(c, "--max-running", value, 1, UINT32_MAX, &n)) return CTL_USAGE;
        e->max_running = (uint32_t)n;
        return CTL_OK;
    case PUT_KV: return ctl_number(c, "--kv-capacity", value, 1, UINT64_MAX, &e->kv_capacity) ? CTL_USAGE : CTL_OK;
    default: return CTL_USAGE;
    }
}

static int put(struct ctl *c, pdr_endpoint *e)
{
    pdr_error   err;
    struct text out = {0};
    uint32_t    id, before;
    char        name[128];
    int         code = ctl_open(c), known;
    if (code) return code;
    pdr_init_struct(&err, sizeof err);
    known = *e->name && !pdr_endpoint_find(c->router, e->name, &before);
    if ((code = pdr_endpoint_put(c->router, e, pdr_host_now_ns(), &id, &err))) return ctl_fail_block(c, code, &err);
    pdr_host_wake_pending(c->host);
    text_printf(&out, "%s %s\n", ctl_endpoint_name(c->router, id, name), known ? "updated" : "added");
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

int cmd_put(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"role", required_argument, NULL, 'r'}, {"host", required_argument, NULL, PUT_HOST}, {"port", required_argument, NULL, PUT_PORT},
        {"name", required_argument, NULL, PUT_NAME}, {"tls", no_argument, NULL, PUT_TLS},
        {"bootstrap-host", required_argument, NULL, PUT_BHOST}, {"bootstrap-port", required_argument, NULL, PUT_BPORT},
        {"dp-size", required_argument, NULL, PUT_DP}, {"max-running", required_argument, NULL, PUT_RUNNING},
        {"kv-capacity", required_argument, NULL, PUT_KV}, {"topology", required_argument, NULL, PUT_TOPOLOGY},
        {"label", required_argument, NULL, PUT_LABEL}, {"alone", no_argument, NULL, PUT_ALONE}, {NULL, 0, NULL, 0}};
    pdr_endpoint e;
    int          o, code;
    pdr_init_struct(&e, sizeof e);
    while ((o = ctl_option(c, argc, argv, "r:", options)) != -1) {
        if (o == '?' || o == 'h') return ctl_option_exit(o);
        if ((code = put_option(c, o, optarg, &e))) return code;
    }
    if (optind + 1 != argc) return ctl_misuse(c, "one name or URL is needed");
    if (strstr(argv[optind], "://")) {
        if (*e.host || e.port) return ctl_misuse(c, "--host and --port have no meaning with a URL");
        code = take_url(c, argv[optind], &e);
    } else {
        if (*e.name) return ctl_misuse(c, "the name is given twice");
        code = copy(c, "the name", e.name, sizeof e.name, argv[optind]);
        if (!code && (!*e.host || !e.port)) code = ctl_misuse(c, "--host and --port are needed (or a URL instead of the name)");
    }
    if (!code && !e.role) code = ctl_misuse(c, "--role is needed: prefill, decode or both");
    return code ? code : put(c, &e);
}

/* -------------------------------------------------------------------------------------------------- drain, undrain, remove */

static int find(const struct ctl *c, const char *name, uint32_t *id)
{
    int code = pdr_endpoint_find(c->router, name, id);
    if (!code) return CTL_OK;
    if (code == PDR_E_NOT_FOUND) return ctl_fail("%s: there is no endpoint '%s'", c->block, name);
    return ctl_fail_block(c, code, NULL);
}

/* Requests under way at all ranks of an endpoint; 0 if it is gone. */
static uint64_t in_flight(const struct ctl *c, uint32_t id)
{
    pdr_endpoint e;
    uint64_t     n = 0;
    uint32_t     state;
    pdr_init_struct(&e, sizeof e);
    if (pdr_endpoint_get(c->router, id, &e, &state)) return 0;
    for (uint32_t rank = 0; rank < (e.dp_size ? e.dp_size : 1); rank++) {
        pdr_target_status t;
        pdr_init_struct(&t, sizeof t);
        if (!pdr_target_get(c->router, id, rank, pdr_host_now_ns(), &t)) n += t.prefill_requests + t.decode_requests;
    }
    return n;
}

static int wait_for_empty(const struct ctl *c, char **names, int n, uint64_t seconds)
{
    uint64_t end = seconds ? pdr_host_now_ns() + seconds * 1000000000u : UINT64_MAX, left;
    ctl_catch_signals();
    for (;;) {
        left = 0;
        for (int i = 0; i < n; i++) {
            uint32_t id;
            if (!pdr_endpoint_find(c->router, names[i], &id)) left += in_flight(c, id);
        }
        if (!left) return CTL_OK;
        if (ctl_stop || pdr_host_now_ns() >= end)
            return ctl_fail("%s: %llu request%s still under way", c->block, (unsigned long long)left, left == 1 ? " is" : "s are");
        ctl_sleep_ms(100);
    }
}

/* Names are looked up first, so that a typing error changes nothing. */
static int drain(struct ctl *c, char **names, int n, int on)
{
    uint32_t  id;
    pdr_error e;
    int       code;
    for (int i = 0; i < n; i++)
        if ((code = find(c, names[i], &id))) return code;
    for (int i = 0; i < n; i++) {
        pdr_init_struct(&e, sizeof e);
        if ((code = find(c, names[i], &id))) return code;
        if ((code = pdr_endpoint_drain(c->router, id, on, &e))) return ctl_fail_block(c, code, &e);
        ctl_line(stdout, "%s %s (%llu under way)", names[i], on ? "draining" : "ready", (unsigned long long)in_flight(c, id));
    }
    pdr_host_wake_pending(c->host);
    return CTL_OK;
}

int cmd_drain(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"wait", optional_argument, NULL, 'w'}, {NULL, 0, NULL, 0}};
    uint64_t seconds = 0;
    int      o, code, wait = 0;
    while ((o = ctl_option(c, argc, argv, "", options)) != -1) {
        if (o != 'w') return ctl_option_exit(o);
        wait = 1;
        if (optarg && ctl_number(c, "--wait", optarg, 1, 1000000, &seconds)) return CTL_USAGE;
    }
    if (optind == argc) return ctl_misuse(c, "which endpoint?");
    if ((code = ctl_open(c)) || (code = drain(c, argv + optind, argc - optind, 1))) return code;
    fflush(stdout);
    return wait ? wait_for_empty(c, argv + optind, argc - optind, seconds) : CTL_OK;
}

int cmd_undrain(struct ctl *c, int argc, char **argv)
{
    int o, code;
    if ((o = ctl_option(c, argc, argv, "", NULL)) != -1) return ctl_option_exit(o);
    if (optind == argc) return ctl_misuse(c, "which endpoint?");
    return (code = ctl_open(c)) ? code : drain(c, argv + optind, argc - optind, 0);
}

int cmd_remove(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"missing-ok", no_argument, NULL, 'm'}, {NULL, 0, NULL, 0}};
    uint32_t  id;
    pdr_error e;
    int       o, code, missing_ok = 0;
    while ((o = ctl_option(c, argc, argv, "", options)) != -1) {
        if (o != 'm') return ctl_option_exit(o);
        missing_ok = 1;
    }
    if (optind == argc) return ctl_misuse(c, "which endpoint?");
    if ((code = ctl_open(c))) return code;
    for (int i = optind; !missing_ok && i < argc; i++)
        if ((code = find(c, argv[i], &id))) return code;
    for (int i = optind; i < argc; i++) {
        pdr_init_struct(&e, sizeof e);
        code = pdr_endpoint_find(c->router, argv[i], &id);
        if (!code) code = pdr_endpoint_remove(c->router, id, &e);
        if (code == PDR_E_NOT_FOUND && missing_ok) continue;
        if (code) return ctl_fail_block(c, code, &e);
        ctl_line(stdout, "%s removed", argv[i]);
    }
    pdr_host_wake_pending(c->host);
    return CTL_OK;
}
