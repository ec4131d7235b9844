/* probe: the process that watches the servers and keeps the block's time. */
#include "view.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define FOLLOW_NS    1000000000u
#define ONCE_LIMIT_S 60u

static void on_event(void *context, const pdr_probe_event *e)
{
    static const char *const what[] = {"", "up", "DOWN", "no load reports", "load reports again", "note"};
    const int *quiet = context;
    char       when[SHORT_TEXT];
    if (*quiet) return;
    ctl_line(stdout, "%s  %s  %s: %s", view_time(when, e->now_ns), e->name, e->type < 6 ? what[e->type] : "?", e->message);
    fflush(stdout);
}

/* A thousand servers need two connections each. */
static void raise_descriptor_limit(void)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= l.rlim_max) return;
    l.rlim_cur = l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l);
}

static int read_token(const char *path, struct text *header)
{
    struct text file = {0};
    size_t      n;
    int         code = ctl_read_file(path, 4096, &file);
    for (n = file.n; !code && n && isspace((unsigned char)file.p[n - 1]); n--) {}
    for (size_t i = 0; !code && i < n; i++)
        if (file.p[i] <= 32 || file.p[i] == 127) code = ctl_fail("%s: a token has no spaces or control characters", path);
    if (!code && !n) code = ctl_fail("%s: the file is empty", path);
    if (!code) {
        text_puts(header, "Bearer ");
        text_add(header, file.p, n);
    }
    if (file.p) memset(file.p, 0, file.n);
    text_free(&file);
    return code;
}

static int seconds(const struct ctl *c, const char *option, const char *text, uint32_t *ms)
{
    char  *end;
    double v = strtod(text, &end);
    if (end == text || *end || !(v >= 0.05 && v <= 86400)) return ctl_misuse(c, "%s: '%s' is not a number of seconds from 0.05 to 86400", option, text);
    *ms = (uint32_t)(v * 1000 + 0.5);
    return CTL_OK;
}

/* A prober and its claim on the block. */
struct prober {
    pdr_probe *probe;
    int        claim;
};

static void prober_end(struct prober *p)
{
    pdr_probe_free(p->probe);
    if (p->claim >= 0) close(p->claim);
    p->probe = NULL;
    p->claim = -1;
}

static int prober_begin(struct ctl *c, const pdr_probe_options *o, struct prober *p)
{
    pdr_error e;
    int       code;
    pdr_init_struct(&e, sizeof e);
    p->probe = NULL;
    p->claim = -1;
    code = pdr_host_claim(c->host, PDR_HOST_JOB_PROBE, &p->claim, &e);
    if (code == PDR_E_BUSY) return ctl_fail("%s: another probe watches its servers already", c->block);
    if (!code) code = pdr_probe_new(c->router, o, &p->probe, &e);
    if (code) prober_end(p);
    return code ? ctl_fail_block(c, code, &e) : CTL_OK;
}

static int run(struct ctl *c, const pdr_probe_options *o)
{
    struct prober p;
    pdr_error     e;
    uint64_t      followed = pdr_host_now_ns(), ticked = 0;
    int           code = prober_begin(c, o, &p);
    while (!code && !ctl_stop) {
        uint64_t now;
        int      changed = 0;
        pdr_init_struct(&e, sizeof e);
        if ((code = pdr_probe_run(p.probe, 50, NULL, &e))) {
            code = ctl_fail_block(c, code, &e);
            break;
        }
        now = pdr_host_now_ns();
        if (now - ticked >= 100000000u) {
            pdr_host_tick(c->host, now);
            ticked = now;
        }
        pdr_host_wake_pending(c->host);
        if (now - followed < FOLLOW_NS) continue;
        followed = now;
        {
            struct ctl next = *c; /* the prober must go before the mapping it reads */
            uint32_t   state = PDR_HOST_CURRENT;
            pdr_host_state(c->host, &state, NULL);
            if (state == PDR_HOST_CURRENT || (state == PDR_HOST_REPLACED && access(c->block, F_OK))) continue;
            prober_end(&p);
            code = ctl_follow(&next, &changed);
            *c = next;
            if (!code) code = prober_begin(c, o, &p);
        }
    }
    prober_end(&p);
    return code;
}

static int run_once(struct ctl *c, const pdr_probe_options *o)
{
    struct prober   p;
    pdr_probe_stats s;
    pdr_error       e;
    uint64_t        end = pdr_host_now_ns() + ONCE_LIMIT_S * 1000000000ull;
    int             code = prober_begin(c, o, &p);
    if (code) return code;
    pdr_init_struct(&e, sizeof e);
    pdr_init_struct(&s, sizeof s);
    while (!code && !ctl_stop && pdr_probe_pending(p.probe) && pdr_host_now_ns() < end) code = pdr_probe_run(p.probe, 50, NULL, &e);
    if (code) code = ctl_fail_block(c, code, &e);
    pdr_probe_stats_get(p.probe, &s);
    prober_end(&p);
    pdr_host_tick(c->host, pdr_host_now_ns());
    if (code) return code;
    printf("%u up, %u down, %u not known\n", s.up, s.down, s.unknown);
    if (!pdr_ready(c->router, pdr_host_now_ns())) return ctl_fail("%s: no usable prefill/decode pair", c->block);
    return CTL_OK;
}

enum { PROBE_HEALTH_INTERVAL = 1, PROBE_TIMEOUT, PROBE_DOWN_AFTER, PROBE_ONCE, PROBE_NO_HEALTH, PROBE_METRICS, PROBE_TOKEN,
       PROBE_CA, PROBE_INSECURE };

int cmd_probe(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {
        {"interval", required_argument, NULL, 'i'}, {"health-interval", required_argument, NULL, PROBE_HEALTH_INTERVAL},
        {"timeout", required_argument, NULL, PROBE_TIMEOUT}, {"down-after", required_argument, NULL, PROBE_DOWN_AFTER},
        {"once", no_argument, NULL, PROBE_ONCE}, {"no-health", no_argument, NULL, PROBE_NO_HEALTH},
        {"metrics-only", no_argument, NULL, PROBE_METRICS}, {"token-file", required_argument, NULL, PROBE_TOKEN},
        {"ca-file", required_argument, NULL, PROBE_CA}, {"insecure", no_argument, NULL, PROBE_INSECURE},
        {"quiet", no_argument, NULL, 'q'}, {NULL, 0, NULL, 0}};
    pdr_probe_options p;
    struct text       token = {0};
    uint64_t          n;
    int               o, code = CTL_OK, once = 0, quiet = 0;
    pdr_init_struct(&p, sizeof p);
    p.event = on_event;
    p.context = &quiet;
    while (!code && (o = ctl_option(c, argc, argv, "i:q", options)) != -1) {
        switch (o) {
        case 'i': code = seconds(c, "--interval", optarg, &p.interval_ms); break;
        case PROBE_HEALTH_INTERVAL: code = seconds(c, "--health-interval", optarg, &p.health_interval_ms); break;
        case PROBE_TIMEOUT: code = seconds(c, "--timeout", optarg, &p.timeout_ms); break;
        case PROBE_DOWN_AFTER:
            code = ctl_number(c, "--down-after", optarg, 1, 1000, &n) ? CTL_USAGE : CTL_OK;
            if (!code) p.down_after = (uint32_t)n;
            break;
        case PROBE_ONCE: once = 1; break;
        case PROBE_NO_HEALTH: p.flags |= PDR_PROBE_NO_HEALTH; break;
        case PROBE_METRICS: p.flags |= PDR_PROBE_NO_LOADS; break;
        case PROBE_TOKEN: code = read_token(optarg, &token); break;
        case PROBE_CA: p.ca_file = optarg; break;
        case PROBE_INSECURE: p.flags |= PDR_PROBE_TLS_INSECURE; break;
        case 'q': quiet = 1; break;
        default: text_free(&token); return ctl_option_exit(o);
        }
    }
    if (!code && optind < argc) code = ctl_misuse(c, "what is '%s'?", argv[optind]);
    p.authorization = token.p;
    raise_descriptor_limit();
    ctl_catch_signals();
    if (!code) code = ctl_open(c);
    if (!code) code = once ? run_once(c, &p) : run(c, &p);
    text_free(&token);
    return code;
}
