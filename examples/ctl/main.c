#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct command {
    const char *name, *arguments, *summary;
    ctl_run    *run;
    const char *help;
};

static const struct command commands[] = {
    {"create", "[--config FILE] [--force] [--restore]", "make a block file", cmd_create,
     "Makes the block file; one that exists and fits is left as it is.\n\n"
     "  -c, --config FILE   configuration, JSON or YAML (members: pdr_config in pdroute.h); default: all defaults\n"
     "      --force         replace a block that is refused: another configuration, layout, or damage\n"
     "      --restore       keep what a block from before a reboot has learnt\n"},
    {"apply", "-f FILE [-f FILE …] [--prune]", "bring endpoints in line with files", cmd_apply,
     "Takes Kubernetes objects as they are (InferencePool, InferenceTrafficPolicy, Pod, List; YAML with any number of\n"
     "documents, or JSON), or {\"endpoints\": […], \"pool\": {…}}. All files together are applied, or nothing.\n\n"
     "  -f, --file FILE     may be repeated; - is standard input\n"
     "      --prune         remove endpoints that no file names\n"
     "      --print         print the JSON that would be applied, and apply nothing\n"},
    {"put", "NAME | URL[@BOOTSTRAP_PORT]  --role prefill|decode|both …", "add or update one endpoint", cmd_put,
     "  -r, --role ROLE               prefill, decode or both\n"
     "      --host HOST --port PORT   address, if no URL is given\n"
     "      --name NAME               name, if a URL is given (default: host:port)\n"
     "      --tls                     https\n"
     "      --bootstrap-host HOST     where decode finds this prefill (default: its host)\n"
     "      --bootstrap-port PORT     of a prefill (default: the pool's); null: send null\n"
     "      --dp-size N               data parallel ranks\n"
     "      --max-running N           requests at once\n"
     "      --alone                   a decode server that may also do a request alone; not SGLang's\n"
     "      --kv-capacity N           tokens of KV cache per rank\n"
     "      --topology HOST[,RACK[,ZONE]]\n"
     "      --label KEY=VALUE         may be repeated\n"},
    {"drain", "NAME… [--wait[=SECONDS]]", "send no new requests to endpoints", cmd_drain,
     "Requests in flight end as they were.\n\n"
     "      --wait[=SECONDS]    return when none is left; exit code 1 if SECONDS pass before\n"},
    {"undrain", "NAME…", "take drain back", cmd_undrain, ""},
    {"remove", "NAME… ", "forget endpoints", cmd_remove,
     "Takes endpoints out at once, with what was learnt about them.\n\n"
     "      --missing-ok    an endpoint that is not there is no error\n"},
    {"list", "[--json]", "endpoints and their load", cmd_list,
     "One line per endpoint (per rank with data parallelism).\n\n"
     "RUN, WAIT     requests the router has under way there: prefill computing, decode\n"
     "AHEAD         work ahead of a new prefill\n"
     "ENGINE        running+waiting as the engine last reported; AGE of that report\n"
     "KV            used of its KV cache\n"
     "SPEED         learnt, in percent of the prior\n"
     "HIT           prompt tokens that its engine had cached\n"},
    {"probe", "[--interval SECONDS] [--once]", "watch servers' health and load", cmd_probe,
     "Asks every endpoint for /health, /server_info and /v1/loads (or /metrics), and feeds the block. Ends expired leases and\n"
     "leases of dead processes, and wakes processes whose requests may go. Run one per block. Ends on SIGINT and SIGTERM.\n\n"
     "  -i, --interval SECONDS     between two reports of one server (default 1)\n"
     "      --health-interval S    between two /health of a server that is up (default 5)\n"
     "      --timeout SECONDS      of an answer (default 3)\n"
     "      --down-after N         failures in a row that take a server out (default 3)\n"
     "      --once                 until every server is known, then exit; 1 if no pair is usable\n"
     "      --no-health            ask no /health\n"
     "      --metrics-only         ask no /v1/loads\n"
     "      --token-file FILE      API key for the servers, sent as bearer token\n"
     "      --ca-file FILE         certificate authorities for https\n"
     "      --insecure             do not verify certificates\n"
     "  -q, --quiet                do not tell what happens\n"},
    {"top", "[--interval SECONDS] [--once]", "live view", cmd_top,
     "  -i, --interval SECONDS    between two pictures (default 1)\n"
     "      --once                one picture, as plain text\n\n"
     "Keys: q ends.\n"},
    {"log", "[--follow] [--json] [-n N]", "recent decisions", cmd_log,
     "  -n N            the last N only\n"
     "  -f, --follow    go on as decisions are made\n"
     "  -v, --verbose   with the candidates of each\n"
     "      --json      one object per line\n"},
    {"explain", "BODY.json [--api chat|completions|generate] | --ticket N", "where a request would go, and why", cmd_explain,
     "Reads a request body (- is standard input) and shows what the router would decide now, with every candidate and\n"
     "every term of its cost. Decides nothing, books nothing.\n\n"
     "      --api API    default: by the body's members\n"
     "      --ticket N   where a request that is held stands in the queue (log has the numbers)\n"
     "      --json\n"},
    {"record", "FILE [--seconds N]", "write the gateways' decisions into a file", cmd_record,
     "Writes every decision with all that it saw, from now on until SIGINT or SIGTERM. The file holds hashes of prompts, no\n"
     "prompts, and the block's seed; its mode is 0600.\n\n"
     "  -s, --seconds N   end after so long\n"
     "      --force       replace FILE\n"},
    {"replay", "FILE [--policy POLICY]", "make recorded decisions again", cmd_replay,
     "Makes each decision of a recorded file again, by the same code in the recorded state; needs no block and gives the\n"
     "same on every machine. Exit code 1 if any differs, or if the file is torn, foreign or changed.\n\n"
     "  -p, --policy POLICY   what default, round_robin, random, least_tokens or power_of_two would have chosen; the state\n"
     "                        stays the recorded one\n"
     "  -v, --verbose         every decision, not only those that differ\n"
     "      --json            one object per line\n"
     "      --hashes          with the block hashes of each request (JSON)\n"
     "      --partial         take a torn file as far as it is whole\n"},
    {"check", "[--ready]", "verify the block; the exit code tells", cmd_check,
     "Verifies every invariant of the block. Takes the lock meanwhile.\n\n"
     "      --ready    verify only that a prefill/decode pair is usable (fast; for readiness probes)\n"},
    {"stats", "[--json | --prometheus | --status]", "counters", cmd_stats,
     "      --json          the counters as JSON\n"
     "      --prometheus    everything as Prometheus text\n"
     "      --status        everything as JSON\n"},
};
#define COMMANDS (sizeof commands / sizeof *commands)

volatile int ctl_stop;

/* -------------------------------------------------------------------------------------------------------------- messages */

static void say(FILE *to, const char *format, va_list args)
{
    va_list again;
    char   *line;
    int     n;
    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (n < 0) return;
    line = need(malloc((size_t)n + 1));
    vsnprintf(line, (size_t)n + 1, format, args);
    text_clean(line);
    fputs(line, to);
    free(line);
}

void ctl_line(FILE *to, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(to, format, args);
    va_end(args);
    fputc('\n', to);
}

int ctl_fail(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fputs("pdroutectl: ", stderr);
    va_start(args, format);
    say(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    return CTL_FAILED;
}

int ctl_misuse(const struct ctl *c, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "pdroutectl %s: ", c->command);
    va_start(args, format);
    say(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry 'pdroutectl %s --help'.\n", c->command);
    return CTL_USAGE;
}

int ctl_fail_block(const struct ctl *c, int code, const pdr_error *err)
{
    const char *message = err && *err->message ? err->message : pdr_strerror(code);
    if (strstr(message, c->block)) return ctl_fail("%s", message);
    return ctl_fail("%s: %s", c->block, message);
}

static void help_all(FILE *to)
{
    fputs("pdroutectl: looks after the block file of a prefill/decode router\n\nusage: pdroutectl [--block PATH] COMMAND …\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++) fprintf(to, "  %-10s%s\n", commands[i].name, commands[i].summary);
    fputs("\n  -b, --block PATH    the block file (default: $PDROUTE_BLOCK), for example /dev/shm/pdroute/qwen\n"
          "  -h, --help          of a command too: pdroutectl COMMAND --help\n"
          "  -V, --version\n\n"
          "Exit codes: 0 done; 1 failed, or the answer is no; 2 wrong usage.\n", to);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i].name, name)) return &commands[i];
    return NULL;
}

static void help_command(const char *name)
{
    const struct command *k = find_command(name);
    printf("usage: pdroutectl [--block PATH] %s %s\n\n%s.\n", k->name, k->arguments, k->summary);
    if (*k->help) printf("\n%s", k->help);
}

/* --------------------------------------------------------------------------------------------------------------- options */

int ctl_option(struct ctl *c, int argc, char **argv, const char *letters, const struct option *options)
{
    static const struct option common[] = {{"block", required_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'}};
    struct option              all[32];
    char                       all_letters[64];
    size_t                     n = 0;
    int                        o;
    for (; options && options[n].name; n++) all[n] = options[n];
    all[n] = common[0];
    all[n + 1] = common[1];
    memset(&all[n + 2], 0, sizeof *all);
    snprintf(all_letters, sizeof all_letters, "%sb:h", letters);
    while ((o = getopt_long(argc, argv, all_letters, all, NULL)) == 'b') c->block = optarg;
    if (o == 'h') help_command(c->command);
    if (o == '?') fprintf(stderr, "Try 'pdroutectl %s --help'.\n", c->command);
    return o;
}

int ctl_option_exit(int option) { return option == 'h' ? CTL_OK : CTL_USAGE; }

int ctl_number(const struct ctl *c, const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *out)
{
    char              *end;
    unsigned long long v;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || v < least || v > most) {
        ctl_misuse(c, "%s: '%s' is not a number from %llu to %llu", option, text, (unsigned long long)least,
                   (unsigned long long)most);
        return -1;
    }
    *out = v;
    return 0;
}

/* ----------------------------------------------------------------------------------------------------------------- block */

int ctl_open(struct ctl *c)
{
    pdr_error e;
    int       code;
    if (!c->block || !*c->block) return ctl_misuse(c, "which block? Name it with --block PATH or in PDROUTE_BLOCK");
    pdr_init_struct(&e, sizeof e);
    code = pdr_host_open(c->block, NULL, PDR_HOST_GUARD, &c->host, &c->router, &e);
    return code ? ctl_fail_block(c, code, &e) : CTL_OK;
}

void ctl_close(struct ctl *c)
{
    pdr_host_close(c->host);
    c->host = NULL;
    c->router = NULL;
}

int ctl_follow(struct ctl *c, int *changed)
{
    uint32_t    state = PDR_HOST_REPLACED;
    pdr_host   *host;
    pdr_router *router;
    pdr_error   e;
    int         code;
    *changed = 0;
    pdr_init_struct(&e, sizeof e);
    if ((code = pdr_host_state(c->host, &state, &e))) return ctl_fail_block(c, code, &e);
    if (state == PDR_HOST_CURRENT) return CTL_OK;
    if (state == PDR_HOST_REPLACED && access(c->block, F_OK)) return CTL_OK; /* it may come again */
    code = pdr_host_open(c->block, NULL, PDR_HOST_GUARD, &host, &router, &e);
    if (code && state == PDR_HOST_TRUNCATED) return ctl_fail("%s: the file was truncated under its users: %s", c->block, e.message);
    if (code) return ctl_fail_block(c, code, &e);
    ctl_close(c);
    c->host = host;
    c->router = router;
    *changed = 1;
    return CTL_OK;
}

/* ----------------------------------------------------------------------------------------------------------------- files */

int ctl_read_file(const char *path, size_t limit, struct text *out)
{
    int     fd = strcmp(path, "-") ? open(path, O_RDONLY | O_CLOEXEC) : 0;
    char    buf[65536];
    ssize_t n;
    if (fd < 0) return ctl_fail("%s: %s", path, strerror(errno));
    text_add(out, "", 0);
    while ((n = read(fd, buf, sizeof buf)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0) continue;
        if (out->n + (size_t)n > limit) {
            if (fd) close(fd);
            return ctl_fail("%s: larger than %zu bytes", path, limit);
        }
        text_add(out, buf, (size_t)n);
    }
    if (n < 0) ctl_fail("%s: %s", path, strerror(errno));
    if (fd) close(fd);
    return n < 0 ? CTL_FAILED : CTL_OK;
}

int ctl_print(const struct text *t)
{
    if ((t->n && fwrite(t->p, 1, t->n, stdout) != t->n) || fflush(stdout)) {
        if (errno != EPIPE) ctl_fail("cannot write: %s", strerror(errno));
        return CTL_FAILED;
    }
    return CTL_OK;
}

/* ----------------------------------------------------------------------------------------------------------------- names */

const char *ctl_endpoint_name(pdr_router *r, uint32_t id, char buf[static 128])
{
    pdr_endpoint e;
    uint32_t     state;
    pdr_init_struct(&e, sizeof e);
    if (id == PDR_NONE) snprintf(buf, 128, "-");
    else if (pdr_endpoint_get(r, id, &e, &state)) snprintf(buf, 128, "#%u", id);
    else snprintf(buf, 128, "%s", e.name);
    return buf;
}

const char *ctl_target_name(pdr_router *r, uint32_t id, uint32_t rank, char buf[static 160])
{
    char name[128];
    ctl_endpoint_name(r, id, name);
    if (rank == PDR_NONE) snprintf(buf, 160, "%s", name);
    else snprintf(buf, 160, "%s/%u", name, rank);
    return buf;
}

const char *ctl_role_name(uint32_t role)
{
    return role == PDR_ROLE_PREFILL ? "prefill" : role == PDR_ROLE_DECODE ? "decode" : role == PDR_ROLE_BOTH ? "both" : "?";
}

const char *ctl_state_name(uint32_t state)
{
    static const char *const names[] = {"ready", "draining", "down", "removed"};
    return state < sizeof names / sizeof *names ? names[state] : "?";
}

const char *ctl_barred_name(uint32_t barred)
{
    static const char *const names[] = {"", "down", "draining", "excluded", "breaker open", "KV full", "busy"};
    return barred < sizeof names / sizeof *names ? names[barred] : "?";
}

/* --------------------------------------------------------------------------------------------------------------- signals */

static void on_signal(int number)
{
    (void)number;
    ctl_stop = 1;
}

void ctl_catch_signals(void)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_signal; /* without SA_RESTART: waiting ends */
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++) sigaction(caught[i], &a, NULL);
}

void ctl_sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    if (!ctl_stop) nanosleep(&t, NULL);
}

/* ------------------------------------------------------------------------------------------------------------------ main */

/* What was printed has arrived (a full disk shows only now), or the command has failed. */
static int flushed(int code)
{
    if (!fflush(stdout) && !ferror(stdout)) return code;
    if (code) return code;
    return errno == EPIPE ? CTL_FAILED : ctl_fail("cannot write: %s", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"block", required_argument, NULL, 'b'}, {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0}};
    struct ctl                 c = {.block = getenv("PDROUTE_BLOCK")};
    const struct command      *k;
    int                        o, code;

    signal(SIGPIPE, SIG_IGN);
    while ((o = getopt_long(argc, argv, "+b:hV", options, NULL)) != -1) {
        if (o == 'b') {
            c.block = optarg;
        } else if (o == 'h') {
            help_all(stdout);
            return flushed(CTL_OK);
        } else if (o == 'V') {
            printf("pdroutectl %s\n", pdr_version_string());
            return flushed(CTL_OK);
        } else {
            fputs("Try 'pdroutectl --help'.\n", stderr);
            return CTL_USAGE;
        }
    }
    if (optind == argc) {
        help_all(stderr);
        return CTL_USAGE;
    }
    if (!strcmp(argv[optind], "help") && optind + 1 < argc && find_command(argv[optind + 1])) {
        help_command(argv[optind + 1]);
        return flushed(CTL_OK);
    }
    if (!strcmp(argv[optind], "help")) {
        help_all(stdout);
        return flushed(CTL_OK);
    }
    if (!(k = find_command(argv[optind]))) {
        ctl_fail("there is no command '%s'", argv[optind]);
        fputs("Try 'pdroutectl --help'.\n", stderr);
        return CTL_USAGE;
    }
    c.command = k->name;
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt_long begins anew */
    code = k->run(&c, argc, argv);
    ctl_close(&c);
    return flushed(code);
}
