/* log: recent decisions. */
#include "view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct log_options {
    int      json, follow, verbose;
    uint64_t last; /* 0: all that are kept */
};

static void one_json(const struct ctl *c, struct text *o, const pdr_log_record *r)
{
    char        name[128];
    uint32_t    id[2] = {r->prefill, r->decode}, rank[2] = {r->prefill_rank, r->decode_rank};
    const char *leg[2] = {"prefill", "decode"};
    text_printf(o, "{\"number\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"outcome\":", r->number, r->time_ns);
    text_json(o, view_outcome(r->outcome), strlen(view_outcome(r->outcome)));
    text_printf(o, ",\"booking\":%" PRIu64 ",\"room\":%" PRIu64 ",\"lease\":%u,\"attempt\":%u", r->booking, r->room, r->lease, r->attempt);
    for (int i = 0; i < 2; i++) {
        if (id[i] == PDR_NONE) {
            text_printf(o, ",\"%s\":null", leg[i]);
            continue;
        }
        text_printf(o, ",\"%s\":", leg[i]);
        ctl_endpoint_name(c->router, id[i], name);
        text_json(o, name, strlen(name));
        if (rank[i] != PDR_NONE) text_printf(o, ",\"%s_rank\":%u", leg[i], rank[i]);
    }
    text_printf(o, ",\"prompt_tokens\":%" PRIu64 ",\"matched_tokens\":%" PRIu64 ",\"cost_us\":%" PRIu64 ",\"held_us\":%" PRIu64
                ",\"candidates_total\":%u,\"candidates\":[", r->prompt_tokens, r->matched_tokens, r->cost_us, r->held_us, r->candidates_total);
    for (uint32_t i = 0; i < r->candidates && i < PDR_LOG_CANDIDATES; i++) {
        if (i) text_puts(o, ",");
        view_candidate_json(c, o, &r->candidate[i]);
    }
    text_puts(o, "]}\n");
}

/* Prints what is newer than *cursor; a table needs all its rows at once. */
static int print_newer(const struct ctl *c, const struct log_options *l, uint64_t *cursor, int head)
{
    struct text    out = {0};
    struct table   t;
    pdr_log_record r;
    uint64_t       lost = 0;
    size_t         rows = 0;
    int            code;
    table_init(&t, VIEW_DECISION);
    if (head && !l->json) view_decision_head(&t);
    for (;;) {
        pdr_init_struct(&r, sizeof r);
        code = pdr_log_read(c->router, cursor, &r, &lost);
        if (code) break;
        rows++;
        if (l->json) {
            one_json(c, &out, &r);
            continue;
        }
        view_decision(c, &t, &r);
        if (!l->verbose) continue;
        table_print(&t, &out, 0);
        view_candidates(c, &out, r.candidate, r.candidates < PDR_LOG_CANDIDATES ? r.candidates : PDR_LOG_CANDIDATES, "    ");
        if (r.candidates_total > r.candidates) text_printf(&out, "      and %u more\n", r.candidates_total - r.candidates);
        table_init(&t, VIEW_DECISION);
    }
    if (rows || head) table_print(&t, &out, 0);
    if (lost && !head) fprintf(stderr, "pdroutectl: %" PRIu64 " decisions were overwritten before they were read\n", lost);
    if (code != PDR_E_NOT_FOUND) ctl_fail_block(c, code, NULL);
    code = code == PDR_E_NOT_FOUND ? ctl_print(&out) : CTL_FAILED;
    text_free(&out);
    return code;
}

/* The cursor in front of the last n records. */
static int seek_last(const struct ctl *c, uint64_t n, uint64_t *cursor)
{
    pdr_log_record r;
    uint64_t       total = 0, at = 0, lost = 0, skip;
    int            code;
    pdr_init_struct(&r, sizeof r);
    while (!(code = pdr_log_read(c->router, &at, &r, &lost))) total++;
    if (code != PDR_E_NOT_FOUND) return ctl_fail_block(c, code, NULL);
    for (skip = total > n ? total - n : 0, at = 0; skip && !pdr_log_read(c->router, &at, &r, &lost); skip--) {}
    *cursor = at;
    return CTL_OK;
}

static int follow(struct ctl *c, const struct log_options *l, uint64_t cursor)
{
    int code = CTL_OK, changed, rounds = 0;
    ctl_catch_signals();
    while (!code && !ctl_stop) {
        ctl_sleep_ms(100);
        if (++rounds % 10 == 0) {
            if ((code = ctl_follow(c, &changed))) break;
            if (changed) cursor = 0;
        }
        code = print_newer(c, l, &cursor, 0);
    }
    return code;
}

int cmd_log(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"follow", no_argument, NULL, 'f'},
                                            {"verbose", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
    struct log_options l = {0};
    uint64_t           cursor = 0;
    int                o, code;
    while ((o = ctl_option(c, argc, argv, "fvn:", options)) != -1) {
        if (o == 'j') l.json = 1;
        else if (o == 'f') l.follow = 1;
        else if (o == 'v') l.verbose = 1;
        else if (o == 'n') {
            if (ctl_number(c, "-n", optarg, 1, 1000000000, &l.last)) return CTL_USAGE;
        } else return ctl_option_exit(o);
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if ((code = ctl_open(c))) return code;
    if (l.last && (code = seek_last(c, l.last, &cursor))) return code;
    code = print_newer(c, &l, &cursor, 1);
    return code || !l.follow ? code : follow(c, &l, cursor);
}
