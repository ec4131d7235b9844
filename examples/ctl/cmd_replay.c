/* replay: recorded decisions made again, and what another policy would have chosen. */
#include "view.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; uint32_t policy; } policies[] = {
    {"default", PDR_POLICY_DEFAULT}, {"round_robin", PDR_POLICY_ROUND_ROBIN}, {"random", PDR_POLICY_RANDOM},
    {"least_tokens", PDR_POLICY_LEAST_TOKENS}, {"power_of_two", PDR_POLICY_POWER_OF_TWO}};
#define POLICIES (sizeof policies / sizeof *policies)

enum { SHOWN = 20 };

struct replaying {
    pdr_replay *replay;
    uint32_t    policy; /* PDR_NONE: as recorded */
    int         json, verbose, hashes;
    uint64_t    steps, decided, same, unchecked, lost, requests, held, other_pair, other_time, cost_recorded, cost_replayed;
    uint64_t   *hash;
    size_t      hash_cap;
};

static const char *const kinds[] = {"?", "routed", "released", "refused", "prefilled", "usage", "lost", "gone"};

static const char *name_of(const struct replaying *r, uint32_t id, uint32_t rank, char buf[static 160])
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    if (id == PDR_NONE) return "-";
    if (pdr_replay_endpoint(r->replay, id, &e)) snprintf(e.name, sizeof e.name, "#%u", id);
    if (rank == PDR_NONE) snprintf(buf, 160, "%s", e.name);
    else snprintf(buf, 160, "%s/%u", e.name, rank);
    return buf;
}

static void choice_json(const struct replaying *r, struct text *o, const char *which, const pdr_replay_choice *k)
{
    char p[160], d[160];
    text_printf(o, ",\"%s\":{\"outcome\":\"%s\",\"prefill\":", which, view_outcome((uint32_t)k->outcome));
    if (k->prefill == PDR_NONE) text_puts(o, "null");
    else name_of(r, k->prefill, k->prefill_rank, p), text_json(o, p, strlen(p));
    text_puts(o, ",\"decode\":");
    if (k->decode == PDR_NONE) text_puts(o, "null");
    else name_of(r, k->decode, k->decode_rank, d), text_json(o, d, strlen(d));
    text_printf(o, ",\"prefill_us\":%" PRIu64 ",\"transfer_us\":%" PRIu64 ",\"decode_us\":%" PRIu64 ",\"cost_us\":%" PRIu64 "}", k->prefill_us,
                k->transfer_us, k->decode_us, k->cost_us);
}

static void hashes_json(struct replaying *r, struct text *o, const pdr_replay_step *s)
{
    size_t n = r->hash_cap;
    while (pdr_replay_hashes(r->replay, r->hash, &n) == PDR_E_NOSPACE) r->hash = need(realloc(r->hash, (r->hash_cap = n) * sizeof *r->hash));
    text_puts(o, ",\"hashes\":[");
    for (size_t i = 0; i < s->blocks; i++) text_printf(o, "%s\"%016" PRIx64 "\"", i ? "," : "", r->hash[i]);
    text_puts(o, "]");
}

static void step_json(struct replaying *r, struct text *o, const pdr_replay_step *s)
{
    text_printf(o, "{\"number\":%" PRIu64 ",\"time_ns\":%" PRIu64 ",\"kind\":\"%s\",\"ticket\":%" PRIu64, s->number, s->time_ns, kinds[s->kind], s->ticket);
    if (s->kind == PDR_REPLAY_ROUTED || s->kind == PDR_REPLAY_USAGE)
        text_printf(o, ",\"prompt_tokens\":%" PRIu64 ",\"output_tokens\":%" PRIu64, s->prompt_tokens, s->output_tokens);
    if (s->kind == PDR_REPLAY_USAGE) text_printf(o, ",\"cached_tokens\":%" PRIu64, s->cached_tokens);
    if (s->kind == PDR_REPLAY_PREFILLED) text_printf(o, ",\"prefill_us\":%" PRIu64, s->prefill_us);
    if (s->kind == PDR_REPLAY_ROUTED) text_printf(o, ",\"blocks\":%u,\"block_millitokens\":%" PRIu64, s->blocks, s->block_millitokens);
    if (s->kind == PDR_REPLAY_ROUTED && (s->tenant || s->priority)) text_printf(o, ",\"tenant\":\"%016" PRIx64 "\",\"priority\":%" PRId64, s->tenant, s->priority);
    if (s->kind == PDR_REPLAY_ROUTED && r->hashes) hashes_json(r, o, s);
    if (s->kind == PDR_REPLAY_ROUTED || s->kind == PDR_REPLAY_RELEASED || s->kind == PDR_REPLAY_REFUSED) {
        choice_json(r, o, "recorded", &s->recorded);
        if (s->checked) choice_json(r, o, "replayed", &s->replayed);
        text_printf(o, ",\"checked\":%s,\"same\":%s", s->checked ? "true" : "false", s->same ? "true" : "false");
    }
    text_puts(o, "}\n");
}

static void side_text(const struct replaying *r, struct text *o, const pdr_replay_choice *k)
{
    char p[160], d[160], us[SHORT_TEXT];
    if (k->outcome != PDR_SEND && k->outcome != PDR_HELD) {
        text_printf(o, "%s", view_outcome((uint32_t)k->outcome));
        return;
    }
    if (k->outcome == PDR_HELD) text_puts(o, "held, for ");
    if (k->prefill == PDR_NONE) text_printf(o, "%s alone", name_of(r, k->decode, k->decode_rank, d));
    else text_printf(o, "%s -> %s", name_of(r, k->prefill, k->prefill_rank, p), name_of(r, k->decode, k->decode_rank, d));
    text_printf(o, " (%s)", text_us(us, k->cost_us));
}

static void step_text(const struct replaying *r, struct text *o, const pdr_replay_step *s)
{
    char time[SHORT_TEXT];
    text_printf(o, "#%" PRIu64 "  %s  %-8s  ", s->number, view_time(time, s->time_ns), kinds[s->kind]);
    side_text(r, o, &s->recorded);
    text_puts(o, s->same ? "  =" : "  |  ");
    if (!s->same) side_text(r, o, &s->replayed);
    text_puts(o, "\n");
}

static void count(struct replaying *r, const pdr_replay_step *s)
{
    const pdr_replay_choice *a = &s->recorded, *b = &s->replayed;
    r->steps++;
    r->lost += s->kind == PDR_REPLAY_LOST;
    r->requests += s->kind == PDR_REPLAY_ROUTED;
    if (s->kind != PDR_REPLAY_ROUTED && s->kind != PDR_REPLAY_RELEASED && s->kind != PDR_REPLAY_REFUSED) return;
    r->held += s->kind == PDR_REPLAY_ROUTED && a->outcome == PDR_HELD;
    if (!s->checked) {
        r->unchecked++;
        return;
    }
    r->decided++;
    r->same += s->same;
    if (s->same) return;
    if (a->outcome != b->outcome) r->other_time++;
    else if (a->prefill != b->prefill || a->decode != b->decode || a->prefill_rank != b->prefill_rank || a->decode_rank != b->decode_rank) r->other_pair++;
}

static void summary(const struct replaying *r, struct text *o)
{
    char a[SHORT_TEXT], b[SHORT_TEXT];
    text_printf(o, "%s requests, %s of them held", text_count(a, r->requests), text_count(b, r->held));
    text_printf(o, "; %s decisions made again", text_count(a, r->decided));
    if (r->policy != PDR_NONE) {
        const char *name = "?";
        for (size_t i = 0; i < POLICIES; i++)
            if (policies[i].policy == r->policy) name = policies[i].name;
        text_printf(o, " by %s, each in the state recorded:\n", name);
        text_printf(o, "  %s would have gone to another pair\n", text_count(a, r->other_pair));
        text_printf(o, "  %s would have been sent, held or refused otherwise\n", text_count(a, r->other_time));
        text_printf(o, "  %s as they were\n", text_count(a, r->decided - r->other_pair - r->other_time));
    } else if (r->same == r->decided) {
        text_puts(o, ", every one with exactly the recorded result\n");
    } else {
        text_printf(o, ", %s of them with another result\n", text_count(a, r->decided - r->same));
    }
    if (r->unchecked) text_printf(o, "%s decisions could not be made again: their state was not recorded\n", text_count(a, r->unchecked));
    if (r->lost) text_printf(o, "records are missing in %s places\n", text_count(a, r->lost));
}

static int run(struct replaying *r, const char *path)
{
    pdr_replay_step s;
    pdr_error       e;
    struct text     o = {0};
    uint64_t        shown = 0;
    int             code, out = CTL_OK;
    pdr_init_struct(&e, sizeof e);
    for (pdr_init_struct(&s, sizeof s); !(code = pdr_replay_next(r->replay, r->policy, &s, &e)) && !out;) {
        count(r, &s);
        if (r->json) {
            step_json(r, &o, &s);
        } else if (s.checked && (r->verbose || !s.same)) {
            if (r->verbose || shown < SHOWN) step_text(r, &o, &s);
            else if (shown == SHOWN) text_puts(&o, "… (-v shows all)\n");
            shown += !s.same;
        }
        if (o.n > 1u << 16) {
            out = ctl_print(&o);
            text_free(&o);
        }
    }
    if (code && code != PDR_E_NOT_FOUND) out = ctl_fail("%s: %s", path, e.message);
    if (!r->json) summary(r, &o);
    if (o.p && ctl_print(&o)) out = CTL_FAILED;
    text_free(&o);
    if (!out && r->policy == PDR_NONE && r->same != r->decided) out = CTL_FAILED;
    return out;
}

int cmd_replay(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"policy", required_argument, NULL, 'p'}, {"json", no_argument, NULL, 'j'}, {"hashes", no_argument, NULL, 'H'},
                                            {"partial", no_argument, NULL, 'P'}, {"verbose", no_argument, NULL, 'v'}, {NULL, 0, NULL, 0}};
    struct replaying r = {.policy = PDR_NONE};
    struct text      file = {0};
    pdr_error        e;
    uint32_t         flags = 0;
    int              o, code;
    while ((o = ctl_option(c, argc, argv, "vp:", options)) != -1) {
        if (o == 'j') r.json = 1;
        else if (o == 'v') r.verbose = 1;
        else if (o == 'H') r.hashes = 1;
        else if (o == 'P') flags = PDR_REPLAY_PARTIAL;
        else if (o == 'p') {
            for (size_t i = 0; i < POLICIES; i++)
                if (!strcmp(optarg, policies[i].name)) r.policy = policies[i].policy;
            if (r.policy == PDR_NONE) return ctl_misuse(c, "--policy: '%s' is not default, round_robin, random, least_tokens or power_of_two", optarg);
        } else return ctl_option_exit(o);
    }
    if (optind + 1 != argc) return ctl_misuse(c, "one file that 'record' wrote is needed");
    if ((code = ctl_read_file(argv[optind], (size_t)1 << 36, &file))) {
        text_free(&file);
        return code;
    }
    pdr_init_struct(&e, sizeof e);
    if (pdr_replay_open(file.p, file.n, flags, &r.replay, &e)) code = ctl_fail("%s: %s", argv[optind], e.message);
    else code = run(&r, argv[optind]);
    pdr_replay_close(r.replay);
    text_free(&file);
    free(r.hash);
    return code;
}
