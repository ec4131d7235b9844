/* apply: endpoints and pool from files. */
#include "ctl.h"
#include "documents.h"

#include <string.h>

static int print_report(const struct ctl *c, const struct documents *d, const pdr_apply_report *r)
{
    struct text out = {0};
    int         code;
    for (uint32_t i = 0; i < r->warnings && i < 8; i++) ctl_line(stderr, "pdroutectl: warning: %s", r->warning[i]);
    if (r->warnings > 8) fprintf(stderr, "pdroutectl: warning: %u more\n", r->warnings - 8);
    text_printf(&out, "%s: %u document%s: %u added, %u updated, %u removed, %u unchanged", c->block, d->count,
                d->count == 1 ? "" : "s", r->added, r->updated, r->removed, r->unchanged);
    if (r->skipped) text_printf(&out, ", %u skipped", r->skipped);
    text_puts(&out, "\n");
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

static int apply(struct ctl *c, struct documents *d, uint32_t flags)
{
    pdr_apply_report r;
    pdr_error        e;
    int              code = ctl_open(c);
    if (code) return code;
    pdr_init_struct(&r, sizeof r);
    pdr_init_struct(&e, sizeof e);
    code = pdr_apply_json(c->router, d->json.p, d->json.n, flags, pdr_host_now_ns(), &r, &e);
    if (code) return documents_fail(d, code, &e);
    pdr_host_wake_pending(c->host); /* a new server may release held requests */
    return print_report(c, d, &r);
}

int cmd_apply(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"file", required_argument, NULL, 'f'}, {"filename", required_argument, NULL, 'f'},
                                            {"prune", no_argument, NULL, 'P'}, {"print", no_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    struct documents d = {0};
    uint32_t         flags = 0;
    int              o, code = CTL_OK, only_print = 0;
    while (!code && (o = ctl_option(c, argc, argv, "f:", options)) != -1) {
        if (o == 'f') {
            code = documents_add(&d, optarg);
        } else if (o == 'P') {
            flags |= PDR_APPLY_PRUNE;
        } else if (o == 'p') {
            only_print = 1;
        } else {
            documents_free(&d);
            return ctl_option_exit(o);
        }
    }
    if (!code && optind < argc) code = ctl_misuse(c, "what is '%s'? Files are named with -f", argv[optind]);
    if (!code && !d.sources) code = ctl_misuse(c, "which file? Name it with -f FILE");
    if (!code && !d.count) code = ctl_fail("the files hold nothing to apply");
    if (!code) {
        documents_finish(&d);
        if (only_print) {
            text_puts(&d.json, "\n");
            code = ctl_print(&d.json);
        } else {
            code = apply(c, &d, flags);
        }
    }
    documents_free(&d);
    return code;
}
