/* record: the gateways' decisions into a file. */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 64 << 10, PAUSE_MS = 20 };

struct recording {
    const char *path;
    int         fd;
    uint64_t    cursor, bytes, lost, end_ns;
    uint8_t    *buf;
    size_t      cap;
};

static int put(struct recording *r, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t done = write(r->fd, p, n);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return ctl_fail("%s: %s", r->path, strerror(errno));
        p += done;
        n -= (size_t)done;
        r->bytes += (uint64_t)done;
    }
    return CTL_OK;
}

/* Everything that was recorded until now. */
static int drain(struct ctl *c, struct recording *r)
{
    size_t n;
    int    code;
    do {
        code = pdr_record_read(c->router, &r->cursor, pdr_host_now_ns(), r->buf, r->cap, &n, &r->lost);
        if (code == PDR_E_NOSPACE) { /* a fleet whose state is larger than a piece */
            r->buf = need(realloc(r->buf, r->cap *= 2));
            continue;
        }
        if (code == PDR_E_BUSY) return CTL_OK; /* later */
        if (code) return ctl_fail_block(c, code, NULL);
        if (put(r, r->buf, n)) return CTL_FAILED;
    } while (code || n);
    return CTL_OK;
}

static int record(struct ctl *c, struct recording *r)
{
    size_t n;
    int    code, changed, rounds = 0;
    r->buf = need(malloc(r->cap = PIECE));
    if ((code = pdr_record_header(c->router, r->buf, r->cap, &n))) return ctl_fail_block(c, code, NULL);
    if (put(r, r->buf, n)) return CTL_FAILED;
    ctl_catch_signals();
    code = drain(c, r);
    while (!code && !ctl_stop && (!r->end_ns || pdr_host_now_ns() < r->end_ns)) {
        ctl_sleep_ms(PAUSE_MS);
        if ((code = drain(c, r)) || ++rounds % 50) continue;
        if ((code = ctl_follow(c, &changed))) break;
        if (!changed) continue;
        fprintf(stderr, "pdroutectl: %s was replaced: the recording ends here\n", c->block);
        break;
    }
    if (!code) code = drain(c, r);
    if (!code && (pdr_record_trailer(r->buf, r->cap, &n) || put(r, r->buf, n))) code = CTL_FAILED;
    return code;
}

int cmd_record(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"seconds", required_argument, NULL, 's'}, {"force", no_argument, NULL, 'F'}, {NULL, 0, NULL, 0}};
    struct recording r = {0};
    uint64_t         seconds = 0;
    int              o, code, force = 0;
    char             size[SHORT_TEXT];
    while ((o = ctl_option(c, argc, argv, "s:", options)) != -1) {
        if (o == 'F') force = 1;
        else if (o == 's') {
            if (ctl_number(c, "--seconds", optarg, 1, 1000000000, &seconds)) return CTL_USAGE;
        } else return ctl_option_exit(o);
    }
    if (optind + 1 != argc) return ctl_misuse(c, "one file to write is needed");
    r.path = argv[optind];
    if ((code = ctl_open(c))) return code;
    r.fd = open(r.path, O_WRONLY | O_CREAT | O_CLOEXEC | (force ? O_TRUNC : O_EXCL), 0600);
    if (r.fd < 0) return ctl_fail("%s: %s%s", r.path, strerror(errno), errno == EEXIST ? " (--force replaces it)" : "");
    if (seconds) r.end_ns = pdr_host_now_ns() + seconds * 1000000000u;
    code = record(c, &r);
    if (close(r.fd) && !code) code = ctl_fail("%s: %s", r.path, strerror(errno));
    free(r.buf);
    if (r.lost) fprintf(stderr, "pdroutectl: %" PRIu64 " bytes were overwritten before they were read: a larger record_bytes helps\n", r.lost);
    if (!code) fprintf(stderr, "%s: %s\n", r.path, text_bytes(size, r.bytes));
    return code;
}
