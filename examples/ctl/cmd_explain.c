/* explain: where a request would go now, and why. */
#include "view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>

static const struct { const char *name; uint32_t api; } apis[] = {
    {"generate", PDR_API_GENERATE}, {"chat", PDR_API_CHAT}, {"completions", PDR_API_COMPLETIONS}};

/* By the members that only one of the APIs has. A body that cannot be parsed gets its proper error from the scan. */
static uint32_t guess_api(const struct text *body)
{
    cJSON   *j = cJSON_ParseWithLength(body->p, body->n);
    uint32_t api = cJSON_HasObjectItem(j, "messages") ? PDR_API_CHAT : cJSON_HasObjectItem(j, "prompt") ? PDR_API_COMPLETIONS
                 : cJSON_HasObjectItem(j, "text") || cJSON_HasObjectItem(j, "input_ids") || cJSON_HasObjectItem(j, "input_embeds")
                     ? PDR_API_GENERATE : PDR_API_CHAT;
    cJSON_Delete(j);
    return api;
}

struct explained {
    uint32_t       api;
    struct text    body;
    pdr_prompt     prompt;
    pdr_decision   decision;
    pdr_candidate *candidate;
    size_t         candidates;
    uint32_t       milli_tokens_per_byte;
    int            code; /* what the router would answer */
    pdr_error      err;
    pdr_place      place; /* outcome PDR_SEND: would not wait */
};

static int scan(struct explained *x, const pdr_config *config, uint64_t *hashes)
{
    pdr_limits limits;
    pdr_init_struct(&limits, sizeof limits);
    limits.block_bytes = config->block_bytes;
    limits.max_blocks = config->max_blocks;
    limits.max_depth = config->max_depth;
    limits.max_batch = config->max_batch;
    limits.max_body = config->max_body;
    return pdr_scan(x->body.p, x->body.n, x->api, &limits, &x->prompt, hashes, config->max_blocks, &x->err);
}

/* Candidates may become more between asking for their number and fetching them. */
static void decide(struct ctl *c, struct explained *x, const uint64_t *hashes)
{
    pdr_request request;
    size_t      cap = 0;
    pdr_init_struct(&request, sizeof request);
    request.api = x->api;
    request.flags = PDR_REQUEST_DRY;
    request.now_ns = pdr_host_now_ns();
    x->candidates = 64;
    do {
        cap = x->candidates;
        x->candidate = need(realloc(x->candidate, (cap + 1) * sizeof *x->candidate));
        pdr_init_struct(&x->decision, sizeof x->decision);
        x->code = pdr_explain(c->router, &x->prompt, hashes, x->prompt.blocks, &request, &x->decision, x->candidate, &x->candidates,
                              &x->err);
    } while (x->code == PDR_E_NOSPACE && x->candidates > cap);
    if (x->candidates > cap) x->candidates = cap;
    pdr_init_struct(&x->place, sizeof x->place);
    request.flags = 0;
    if (!x->code && pdr_explain_place(c->router, &x->prompt, hashes, x->prompt.blocks, &request, &x->place, NULL)) x->place.outcome = PDR_SEND;
}

/* "place 3 of 17, 1.2 s of work before it per server" */
static void print_place(const pdr_place *p, struct text *o)
{
    char n[SHORT_TEXT];
    text_printf(o, "place %u of %u", p->place + 1, p->held);
    text_printf(o, ", %s of work before it per server", text_us(n, p->ahead_us));
    text_printf(o, ", its own %s", text_us(n, p->size_us));
    if (p->priority) text_printf(o, ", priority %" PRId64, p->priority);
}

static void print_place_json(const pdr_place *p, struct text *o)
{
    text_printf(o, "{\"place\":%u,\"held\":%u,\"ahead_us\":%" PRIu64 ",\"size_us\":%" PRIu64 ",\"waited_us\":%" PRIu64 ",\"left_us\":%" PRIu64
                ",\"priority\":%" PRId64 ",\"full\":%s,\"retry_after_ms\":%" PRIu64 "}", p->place, p->held, p->ahead_us, p->size_us, p->waited_us, p->left_us,
                p->priority, p->outcome == PDR_E_QUEUE_FULL ? "true" : "false", p->retry_after_ms);
}

static const char *api_name(uint32_t api)
{
    for (size_t i = 0; i < sizeof apis / sizeof *apis; i++)
        if (apis[i].api == api) return apis[i].name;
    return "?";
}

/* A refusal says no number: the prior's estimate then. */
static uint64_t tokens_of(const struct explained *x)
{
    if (x->decision.prompt_tokens) return x->decision.prompt_tokens;
    if (x->prompt.prompt_tokens) return x->prompt.prompt_tokens;
    return x->prompt.prompt_bytes * x->milli_tokens_per_byte / 1000;
}

static void print_text(const struct ctl *c, const struct explained *x, struct text *o)
{
    const pdr_decision *d = &x->decision;
    char                n[SHORT_TEXT], m[SHORT_TEXT], prefill[160], decode[160];
    text_printf(o, "request   %s, %s tokens%s in %s bytes of prompt, %u prefix blocks", api_name(x->api), text_count(n, tokens_of(x)),
                x->prompt.flags & PDR_PROMPT_TOKENS ? "" : " (estimated)", text_count(m, x->prompt.prompt_bytes), x->prompt.blocks);
    if (x->prompt.flags & PDR_PROMPT_BATCH) text_printf(o, ", a batch of %u", x->prompt.batch);
    if (x->prompt.flags & PDR_PROMPT_STREAM) text_puts(o, ", streamed");
    if (x->prompt.flags & PDR_PROMPT_MEDIA) text_puts(o, ", with media");
    text_puts(o, "\ndecision  ");
    if (x->code) {
        text_printf(o, "refused with %d: %s", pdr_http_status(x->code), *x->err.message ? x->err.message : pdr_strerror(x->code));
        if (d->retry_after_ms) text_printf(o, " (retry after %" PRIu64 " ms)", d->retry_after_ms);
    } else if (d->outcome == PDR_HELD) {
        text_puts(o, "held until a server is free");
    } else if (d->prefill == PDR_NONE) {
        text_printf(o, "%s alone", ctl_target_name(c->router, d->decode, d->decode_rank, decode));
    } else {
        text_printf(o, "%s -> %s", ctl_target_name(c->router, d->prefill, d->prefill_rank, prefill),
                    ctl_target_name(c->router, d->decode, d->decode_rank, decode));
    }
    if (!x->code && d->outcome == PDR_SEND) {
        uint64_t tokens = tokens_of(x);
        text_printf(o, ", %s of %s tokens cached there", text_count(n, d->matched_tokens), text_count(m, tokens));
        if (tokens) text_printf(o, " (%" PRIu64 "%%)", d->matched_tokens * 100 / tokens);
        text_printf(o, "\ncost      %s", text_us(n, d->cost_us));
        text_printf(o, "; expected: wait %s", text_us(n, d->wait_us));
        text_printf(o, ", prefill %s", text_us(n, d->prefill_us));
        text_printf(o, ", transfer %s", text_us(n, d->transfer_us));
        text_printf(o, ", decode %s", text_us(n, d->decode_us));
    }
    if (!x->code && x->place.outcome != PDR_SEND) {
        pdr_place p = x->place;
        p.held++; /* with itself */
        text_puts(o, "\nqueue     ");
        if (p.outcome == PDR_E_QUEUE_FULL)
            text_printf(o, "full: it would be refused with %d (retry after %" PRIu64 " ms)", pdr_http_status(PDR_E_QUEUE_FULL), p.retry_after_ms);
        else
            text_puts(o, "it would wait: "), print_place(&p, o);
    }
    text_puts(o, "\n\n");
    view_candidates(c, o, x->candidate, x->candidates, "");
}

static void print_json(const struct ctl *c, const struct explained *x, struct text *o)
{
    const pdr_decision *d = &x->decision;
    char                name[128];
    const char         *message = *x->err.message ? x->err.message : pdr_strerror(x->code);
    text_printf(o, "{\"api\":\"%s\",\"outcome\":\"%s\",\"status\":%d", api_name(x->api),
                x->code ? "refused" : d->outcome == PDR_HELD ? "held" : "send", pdr_http_status(x->code));
    if (x->code) {
        text_puts(o, ",\"message\":");
        text_json(o, message, strlen(message));
    }
    text_printf(o, ",\"prompt\":{\"tokens\":%" PRIu64 ",\"exact\":%s,\"bytes\":%" PRIu64 ",\"blocks\":%u,\"batch\":%u,\"stream\":%s}",
                tokens_of(x), x->prompt.flags & PDR_PROMPT_TOKENS ? "true" : "false", x->prompt.prompt_bytes, x->prompt.blocks,
                x->prompt.batch, x->prompt.flags & PDR_PROMPT_STREAM ? "true" : "false");
    for (int i = 0; i < 2; i++) {
        uint32_t id = x->code || d->outcome != PDR_SEND ? PDR_NONE : i ? d->decode : d->prefill;
        text_printf(o, ",\"%s\":", i ? "decode" : "prefill");
        if (id == PDR_NONE) text_puts(o, "null");
        else ctl_endpoint_name(c->router, id, name), text_json(o, name, strlen(name));
    }
    if (!x->code && x->place.outcome != PDR_SEND) text_puts(o, ",\"queue\":"), print_place_json(&x->place, o);
    text_printf(o, ",\"matched_tokens\":%" PRIu64 ",\"wait_us\":%" PRIu64 ",\"prefill_us\":%" PRIu64 ",\"transfer_us\":%" PRIu64
                ",\"decode_us\":%" PRIu64 ",\"cost_us\":%" PRIu64 ",\"candidates\":[", d->matched_tokens, d->wait_us, d->prefill_us,
                d->transfer_us, d->decode_us, d->cost_us);
    for (size_t i = 0; i < x->candidates; i++) {
        if (i) text_puts(o, ",");
        view_candidate_json(c, o, &x->candidate[i]);
    }
    text_puts(o, "]}\n");
}

static int explain(struct ctl *c, struct explained *x, const char *path, int json)
{
    pdr_config  config;
    struct text out = {0};
    uint64_t   *hashes;
    int         code;
    pdr_init_struct(&config, sizeof config);
    if ((code = pdr_router_config(c->router, &config))) return ctl_fail_block(c, code, NULL);
    x->milli_tokens_per_byte = config.milli_tokens_per_byte;
    pdr_init_struct(&x->err, sizeof x->err);
    pdr_init_struct(&x->prompt, sizeof x->prompt);
    hashes = need(calloc(config.max_blocks, sizeof *hashes));
    code = scan(x, &config, hashes);
    if (code) {
        ctl_fail("%s: line %u, byte %" PRIu64 ": %s (%d to the client)", path, x->err.line, x->err.offset,
                 *x->err.message ? x->err.message : pdr_strerror(code), pdr_http_status(code));
        free(hashes);
        return CTL_FAILED;
    }
    decide(c, x, hashes);
    free(hashes);
    if (json) print_json(c, x, &out);
    else print_text(c, x, &out);
    code = ctl_print(&out);
    text_free(&out);
    return code ? code : x->code ? CTL_FAILED : CTL_OK;
}

/* Where a held request stands. */
static int ticket(struct ctl *c, const char *number, int json)
{
    char        *end, n[SHORT_TEXT];
    uint64_t     t = strtoull(number, &end, 0);
    struct text  out = {0};
    pdr_place    p;
    pdr_error    err;
    int          code;
    if (!*number || *end) return ctl_misuse(c, "--ticket: '%s' is no number", number);
    if ((code = ctl_open(c))) return code;
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&err, sizeof err);
    code = pdr_ticket_place(c->router, t, pdr_host_now_ns(), &p, &err);
    if (code == PDR_E_NOT_FOUND) return ctl_fail("ticket %" PRIu64 ": %s", t, err.message);
    if (code) return ctl_fail_block(c, code, &err);
    if (json) {
        print_place_json(&p, &out);
        text_puts(&out, "\n");
    } else {
        text_printf(&out, "held      %s so far", text_us(n, p.waited_us));
        text_printf(&out, ", at most %s more\nqueue     ", text_us(n, p.left_us));
        print_place(&p, &out);
        text_puts(&out, "\n");
    }
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

int cmd_explain(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, 'j'}, {"api", required_argument, NULL, 'a'},
                                            {"ticket", required_argument, NULL, 't'}, {NULL, 0, NULL, 0}};
    const char      *number = NULL;
    struct explained x;
    int              o, code, json = 0;
    memset(&x, 0, sizeof x);
    while ((o = ctl_option(c, argc, argv, "a:t:", options)) != -1) {
        if (o == 'j') {
            json = 1;
        } else if (o == 'a') {
            for (size_t i = 0; i < sizeof apis / sizeof *apis; i++)
                if (!strcmp(optarg, apis[i].name)) x.api = apis[i].api;
            if (!x.api) return ctl_misuse(c, "--api: '%s' is not chat, completions or generate", optarg);
        } else if (o == 't') {
            number = optarg;
        } else {
            return ctl_option_exit(o);
        }
    }
    if (number) return optind == argc && !x.api ? ticket(c, number, json) : ctl_misuse(c, "--ticket stands alone");
    if (optind + 1 != argc) return ctl_misuse(c, "one file with a request body is needed");
    if ((code = ctl_open(c))) return code;
    if (!(code = ctl_read_file(argv[optind], 1u << 30, &x.body))) {
        if (!x.api) x.api = guess_api(&x.body);
        code = explain(c, &x, argv[optind], json);
    }
    text_free(&x.body);
    free(x.candidate);
    return code;
}
