/* create: the block file. */
#include "ctl.h"
#include "documents.h"

#include <string.h>

static int read_config(const char *path, pdr_config *config)
{
    struct documents d = {0};
    pdr_error        e;
    int              code = documents_add(&d, path);
    pdr_init_struct(&e, sizeof e);
    if (!code && d.count != 1) code = ctl_fail("%s: a configuration is one document, not %u", path, d.count);
    if (!code) {
        documents_finish(&d);
        code = pdr_config_from_json(d.json.p, d.json.n, config, &e);
        if (code) code = documents_fail(&d, code, &e);
    }
    documents_free(&d);
    return code;
}

static int report(const struct ctl *c)
{
    static const char *const verb[] = {"", "is there already", "created", "created anew", "taken over"};
    pdr_host_info            i;
    pdr_config               config;
    struct text              out = {0};
    char                     size[SHORT_TEXT];
    int                      code;
    pdr_init_struct(&i, sizeof i);
    pdr_init_struct(&config, sizeof config);
    if (pdr_host_info_get(c->host, &i) || pdr_router_config(c->router, &config)) return ctl_fail("%s: cannot be read", c->block);
    text_printf(&out, "%s: %s", i.path, i.origin < sizeof verb / sizeof *verb ? verb[i.origin] : "");
    if (i.reason) text_printf(&out, " (%s)", i.message);
    text_printf(&out, ": %s, up to %u endpoints, %u requests in flight, %u held, %llu prefix entries\n", text_bytes(size, i.size),
                config.max_endpoints, config.max_bookings, config.max_held, (unsigned long long)config.index_entries);
    code = ctl_print(&out);
    text_free(&out);
    return code;
}

int cmd_create(struct ctl *c, int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'}, {"force", no_argument, NULL, 'F'},
                                            {"restore", no_argument, NULL, 'R'}, {NULL, 0, NULL, 0}};
    const char *config_path = NULL;
    uint32_t    flags = PDR_HOST_CREATE | PDR_HOST_GUARD;
    pdr_config  config;
    pdr_error   e;
    int         o, code;
    while ((o = ctl_option(c, argc, argv, "c:", options)) != -1) {
        if (o == 'c') config_path = optarg;
        else if (o == 'F') flags |= PDR_HOST_RECREATE;
        else if (o == 'R') flags |= PDR_HOST_RESTORE;
        else return ctl_option_exit(o);
    }
    if (optind < argc) return ctl_misuse(c, "what is '%s'?", argv[optind]);
    if (!c->block || !*c->block) return ctl_misuse(c, "which block? Name it with --block PATH or in PDROUTE_BLOCK");
    pdr_init_struct(&config, sizeof config);
    pdr_init_struct(&e, sizeof e);
    if (config_path && (code = read_config(config_path, &config))) return code;
    code = pdr_host_open(c->block, &config, flags, &c->host, &c->router, &e);
    if (code <= PDR_E_BLOCK_MAGIC && code >= PDR_E_BLOCK_CORRUPT) {
        ctl_fail_block(c, code, &e);
        return ctl_fail("--force replaces it%s", code == PDR_E_BLOCK_BOOT ? ", --restore keeps what it has learnt" : "");
    }
    if (code) return ctl_fail_block(c, code, &e);
    return report(c);
}
