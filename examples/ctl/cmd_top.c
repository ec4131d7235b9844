/* top: what happens, once a second, with nothing but ANSI sequences. */
#include "view.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

struct screen {
    int            is_terminal, width, height; /* 0: any */
    struct termios before;
};

static volatile sig_atomic_t resized;
static void on_resize(int number)
{
    (void)number;
    resized = 1;
}

static void measure(struct screen *s)
{
    struct winsize w;
    if (!s->is_terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || !w.ws_col || !w.ws_row) return;
    s->width = w.ws_col;
    s->height = w.ws_row;
}

static int screen_begin(struct screen *s)
{
    struct termios raw;
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = on_resize;
    if (tcgetattr(STDIN_FILENO, &s->before)) return -1;
    raw = s->before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw)) return -1;
    sigaction(SIGWINCH, &a, NULL);
    s->is_terminal = 1;
    s->width = 80;
    s->height = 24;
    fputs("\033[?1049h\033[?25l\033[?7l", stdout); /* the other screen, no cursor, no wrapping */
    fflush(stdout);
    return 0;
}

static void screen_end(struct screen *s)
{
    if (!s->is_terminal) return;
    fputs("\033[?7h\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
}

/* -------------------------------------------------------------------------------------------------------------- picture */

struct history {
    pdr_stats last;
    uint64_t  last_ns; /* 0: no picture yet */
};

static double rate(uint64_t now, uint64_t before, uint64_t ns) { return ns ? (double)(now - before) * 1e9 / (double)ns : 0; }

static void summary(const struct ctl *c, struct text *out, struct history *h, uint64_t now_ns)
{
    pdr_stats s;
    char      a[SHORT_TEXT];
    uint64_t  ns = h->last_ns ? now_ns - h->last_ns : 0, failed, refused;
    pdr_init_struct(&s, sizeof s);
    if (pdr_stats_get(c->router, &s)) {
        text_puts(out, "the block's lock cannot be had\n");
        return;
    }
    failed = s.failed;
    refused = s.refused_no_pair + s.refused_queue_full + s.expired;
    text_printf(out, "%s   %s   %s\n", c->block, view_time(a, now_ns), pdr_ready(c->router, now_ns) ? "ready" : "NO USABLE PAIR");
    text_printf(out, "requests %s", text_count(a, s.routed));
    if (ns) text_printf(out, " (%.1f/s)", rate(s.routed, h->last.routed, ns));
    text_printf(out, "   in flight %s", text_count(a, s.bookings - (s.held_now < s.bookings ? s.held_now : s.bookings)));
    text_printf(out, "   held %s", text_count(a, s.held_now));
    text_printf(out, "   retried %s", text_count(a, s.retried));
    text_printf(out, "   refused %s", text_count(a, refused));
    text_printf(out, "   failed %s", text_count(a, failed));
    if (s.prompt_tokens) text_printf(out, "   cached %" PRIu64 "%%", s.matched_tokens * 100 / s.prompt_tokens);
    text_printf(out, "   processes %" PRIu64 "\n\n", s.leases);
    h->last = s;
    h->last_ns = now_ns;
}

/* The last decisions that fit, newest below. */
static void decisions(const struct ctl *c, struct text *out, size_t rows, size_t width)
{
    pdr_log_record *ring;
    struct table    t;
    uint64_t        cursor = 0, lost = 0;
    size_t          n = 0;
    if (!rows) return;
    ring = need(calloc(rows, sizeof *ring));
    for (;; n++) {
        pdr_log_record *r = &ring[n % rows];
        pdr_init_struct(r, sizeof *r);
        if (pdr_log_read(c->router, &cursor, r, &lost)) break;
    }
    table_init(&t, VIEW_DECISION);
    view_decision_head(&t);
    /* the failed read wiped the oldest of a full ring: one row less */
    for (size_t i = n < rows ? 0 : n - rows + 1; i < n; i++) view_decision(c, &t, &ring[i % rows]);
    table_print(&t, out, width);
    free(ring);
}

static size_t count_lines(const struct text *t)
{
    size_t lines = 0;
    for (size_t i = 0; i < t->n; i++) lines += t->p[i] == '\n';
    return lines;
}

static void picture(const struct ctl *c, struct text *out, struct history *h, const struct screen *s)
{
    uint64_t now = pdr_host_now_ns();
    size_t   used, rows = 11;
    summary(c, out, h, now);
    view_endpoints(c, out, (size_t)s->width, now);
    text_puts(out, "\n");
    used = count_lines(out);
    if (s->height) rows = (size_t)s->height > used + 2 ? (size_t)s->height - used - 1 : 0;
    decisions(c, out, rows, (size_t)s->width);
}

/* Line by line over the old picture, so that nothing flickers; cut where the screen ends. */
static void show(const struct text *picture_text, const struct screen *s)
{
    const char *p = picture_text->p, *end = p + picture_text->n;
    struct text out = {0};
    text_puts(&out, "\033[H");
    for (int row = 0; p < end && row < s->height; row++) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        size_t      n = line ? (size_t)(line - p) : (size_t)(end - p);
        if (row) text_puts(&out, "\r\n");
        text_add(&out, p, n);
        text_puts(&out, "\033[K");
        p += n + 1;
    }
    text_puts(&out, "\033[J");
    fwrite(out.p, 1, out.n, stdout);
    fflush(stdout);
    text_free(&out);
}

/* Until the next picture is due, a key or a new size of the window comes. 1: end. */
static int wait_key(uint32_t ms)
{
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    char          key;
    if (poll(&in, 1, (int)ms) <= 0 || resized) return 0;
    while (read(STDIN_FILENO, &key, 1) == 1)
        if (key == 'q' || key == 'Q' || key == 3) return 1;
    return (in.revents & (POLLHUP | POLLERR)) != 0;
}

static int live(struct ctl *c, uint32_t interval_ms)
{
    struct screen  s = {0};
    struct history h = {.last_ns = 0};
    int            code = CTL_OK, end = 0, changed;
    if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || screen_begin(&s))
        return ctl_fail("a live view needs a terminal; --once prints one picture");
    ctl_catch_signals();
    while (!end && !ctl_stop) {
        struct text out = {0};
        resized = 0;
        measure(&s);
        if ((code = ctl_follow(c, &changed))) break;
        if (changed) h.last_ns = 0;
        picture(c, &out, &h, &s);
        show(&out, &s);
        text_free(&out);
        end = wait_key(interval_ms);
    }
    screen_end(&s);
    return code;
}

int cmd_top(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"interval", required_argument, NULL, 'i'}, {"once", no_argument, NULL, '1'}, {NULL, 0, NULL, 0}};
    struct screen  s = {0};
    struct history h = {.last_ns = 0};
    struct text    out = {0};
    double         interval = 1;
    char          *end;
    int            o, code, once = 0;
    while ((o = ctl_option(c, argc, argv, "i:", options)) != -1) {
        if (o == '1') {
            once = 1;
        } else if (o == 'i') {
            interval = strtod(optarg, &end);
            if (end == optarg || *end || !(interval >= 0.1 && interval <= 3600))
                return ctl_misuse(c, "--interval: '%s' is not a number of seconds from 0.1 to 3600", optarg);
        } else {
            return ctl_option_exit(o);
        }
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if ((code = ctl_open(c))) return code;
    if (!once) return live(c, (uint32_t)(interval * 1000));
    picture(c, &out, &h, &s);
    code = ctl_print(&out);
    text_free(&out);
    return code;
}
