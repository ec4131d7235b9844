/* list, stats, check: what is in a block. */
#include "view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int cmd_list(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {NULL, 0, NULL, 0}};
    struct text out = {0};
    int         o, code, json = 0;
    while ((o = ctl_option(c, argc, argv, "", options)) != -1) {
        if (o != 'j') return ctl_option_exit(o);
        json = 1;
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if ((code = ctl_open(c))) return code;
    if (json) {
        view_endpoints_json(c, &out, pdr_host_now_ns());
    } else if (!view_endpoints(c, &out, 0, pdr_host_now_ns())) {
        out.n = 0;
        text_puts(&out, "no endpoints\n");
    }
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

/* ----------------------------------------------------------------------------------------------------------------- stats */

struct counter {
    const char *name, *meaning;
    size_t      offset;
};
#define COUNTER(field, meaning) {#field, meaning, offsetof(pdr_stats, field)}
static const struct counter counters[] = {
    COUNTER(routed, "requests that got a pair"), COUNTER(held, "held at first"), COUNTER(released, "of those released"),
    COUNTER(expired, "of those refused after waiting"), COUNTER(cancelled, "given up by their clients"),
    COUNTER(retried, "further attempts"), COUNTER(refused_no_pair, "refused: no usable pair"),
    COUNTER(refused_queue_full, "refused: queue full"), COUNTER(finished, "exchanges that ended well"),
    COUNTER(failed, "exchanges that failed"), COUNTER(bookings, "in flight now, held ones included"), COUNTER(held_now, "held now"),
    COUNTER(leases, "processes now"), COUNTER(rooms_live, "bootstrap rooms in use now"), COUNTER(endpoints, "servers"),
    COUNTER(targets, "servers' ranks"), COUNTER(prefix_entries, "prefix blocks known"), COUNTER(prefix_evictions, "prefix blocks forgotten"),
    COUNTER(prompt_tokens, "prompt tokens routed"), COUNTER(matched_tokens, "believed cached"),
    COUNTER(prompt_tokens_reported, "prompt tokens by the engines' usage"), COUNTER(cached_tokens_reported, "cached by the engines' usage"),
    COUNTER(reports, "reports taken from engines"), COUNTER(reports_failed, "reports that could not be read"),
    COUNTER(leases_expired, "processes that died or stopped"), COUNTER(lock_recoveries, "deaths inside a call, repaired"),
    COUNTER(clock_backwards, "calls with an older time than one before"),
};
#define COUNTERS (sizeof counters / sizeof *counters)

static uint64_t value_of(const pdr_stats *s, const struct counter *k)
{
    uint64_t v;
    memcpy(&v, (const char *)s + k->offset, sizeof v);
    return v;
}

static int print_counters(struct ctl *c, int json)
{
    struct text  out = {0};
    struct table t;
    pdr_stats    s;
    char         n[SHORT_TEXT];
    int          code;
    pdr_init_struct(&s, sizeof s);
    if ((code = pdr_stats_get(c->router, &s))) return ctl_fail_block(c, code, NULL);
    table_init(&t, "lrl");
    for (size_t i = 0; i < COUNTERS; i++) {
        if (json) {
            text_printf(&out, "%s\"%s\":%" PRIu64, i ? "," : "{", counters[i].name, value_of(&s, &counters[i]));
            continue;
        }
        table_cell(&t, "%s", counters[i].name);
        table_cell(&t, "%s", text_count(n, value_of(&s, &counters[i])));
        table_cell(&t, "%s", counters[i].meaning);
    }
    if (json) text_puts(&out, "}\n");
    table_print(&t, &out, 0);
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

typedef int status_text(pdr_router *r, uint64_t now_ns, char *buf, size_t cap, size_t *need);

/* The status may grow between asking for its size and fetching it. */
static int print_status(struct ctl *c, status_text *get)
{
    char  *buf = NULL;
    size_t cap = 65536, size = 0;
    int    code;
    do {
        cap = size + size / 8 > cap ? size + size / 8 : cap;
        buf = need(realloc(buf, cap));
        code = get(c->router, pdr_host_now_ns(), buf, cap, &size);
    } while (code == PDR_E_NOSPACE);
    if (code) {
        ctl_fail_block(c, code, NULL);
    } else {
        struct text out = {.p = buf, .n = size, .cap = cap};
        code = ctl_print(&out);
        if (!code && size && buf[size - 1] != '\n') putchar('\n');
    }
    free(buf);
    return code ? CTL_FAILED : CTL_OK;
}

int cmd_stats(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"prometheus", no_argument, NULL, 'p'},
                                            {"status", no_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
    int o, code, form = 0;
    while ((o = ctl_option(c, argc, argv, "", options)) != -1) {
        if (o == '?' || o == 'h') return ctl_option_exit(o);
        if (form) return ctl_misuse(c, "--json, --prometheus and --status exclude each other");
        form = o;
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if ((code = ctl_open(c))) return code;
    if (form == 'p') return print_status(c, pdr_status_prometheus);
    if (form == 's') return print_status(c, pdr_status_json);
    return print_counters(c, form == 'j');
}

/* ----------------------------------------------------------------------------------------------------------------- check */

int cmd_check(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"ready", no_argument, NULL, 'r'}, {NULL, 0, NULL, 0}};
    pdr_error e;
    int       o, code, ready = 0;
    while ((o = ctl_option(c, argc, argv, "", options)) != -1) {
        if (o != 'r') return ctl_option_exit(o);
        ready = 1;
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if ((code = ctl_open(c))) return code;
    pdr_init_struct(&e, sizeof e);
    if (ready) {
        if (!pdr_ready(c->router, pdr_host_now_ns())) return ctl_fail("%s: no usable prefill/decode pair", c->block);
        printf("%s: ready\n", c->block);
        return CTL_OK;
    }
    if ((code = pdr_router_check(c->router, &e))) return ctl_fail_block(c, code, &e);
    printf("%s: every invariant holds\n", c->block);
    return CTL_OK;
}
