/* The router block that a gateway uses, and the document that says what it is made from. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate.h"

static char *read_file(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    bytes text = {0};
    size_t n;

    if (!f) {
        gate_log("emerg", "cannot open \"%s\": %s", path, strerror(errno));
        return NULL;
    }
    do {
        if (bytes_reserve(&text, 65536)) break;
        n = fread(text.data + text.len, 1, 65536, f);
        text.len += n;
    } while (n);
    if (ferror(f) || text.failed) gate_log("emerg", "cannot read \"%s\"", path);
    (void)fclose(f);
    *len = text.len;
    return text.data;
}

static void config_error(const char *file, const pdr_error *err)
{
    char line[16] = "";
    if (err->line) (void)snprintf(line, sizeof line, ":%u", err->line);
    gate_log("emerg", "%s%s: %s", file, line, err->message);
}

/* A document with Kubernetes objects has no pdr_config in it. */
static int read_config(const char *file, const char *text, size_t len, pdr_config *config)
{
    pdr_error err;

    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(config, sizeof *config);
    if (text && (pdr_config_from_json(text, len, config, &err) != PDR_OK || pdr_config_resolve(config, &err) != PDR_OK)) {
        config_error(file, &err);
        return -1;
    }
    return 0;
}

static int apply(const char *file, pdr_router *router, const char *text, size_t len)
{
    pdr_apply_report report;
    pdr_error err;

    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&report, sizeof report);
    if (pdr_apply_json(router, text, len, 0, pdr_host_now_ns(), &report, &err) != PDR_OK) {
        config_error(file, &err);
        return -1;
    }
    for (uint32_t i = 0; i < report.warnings && i < 8; i++) gate_log("warn", "%s: %s", file, report.warning[i]);
    return 0;
}

/* Everything is tried on a router of our own first, so that a bad document touches no block. */
static int try_out(const char *file, const pdr_config *config, const char *text, size_t len)
{
    const size_t size = pdr_router_size(config);
    void *mem = size ? aligned_alloc(64, (size + 63) / 64 * 64) : NULL;
    pdr_router *router;
    pdr_error err;
    int rc = -1;

    pdr_init_struct(&err, sizeof err);
    if (!mem) gate_log("emerg", "no memory for a block of %zu bytes", size);
    else if (pdr_router_init(mem, size, config, 1, &router, &err) != PDR_OK) config_error(file, &err);
    else rc = apply(file, router, text, len);
    free(mem);
    return rc;
}

int gate_block_open(const char *path, const char *file, unsigned flags, pdr_host **host, pdr_router **router)
{
    static const char *const origin[] = {"", "attached to", "created", "replaced", "restored"};
    char *text = NULL;
    size_t len = 0;
    pdr_config config;
    pdr_host_info info;
    pdr_error err;
    int rc = -1;

    if (file && !(text = read_file(file, &len))) return -1;
    if (read_config(file, text, len, &config) || (text && try_out(file, &config, text, len))) goto out;
    if (flags & GATE_BLOCK_CHECK) {
        rc = 0;
        goto out;
    }
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_open(path, text ? &config : NULL, PDR_HOST_CREATE | PDR_HOST_RESTORE | PDR_HOST_GUARD | (flags & GATE_BLOCK_RECREATE ? PDR_HOST_RECREATE : 0), host, router, &err)) {
        gate_log("emerg", "%s: %s%s", path, err.message,
                 err.code <= PDR_E_BLOCK_MAGIC && err.code >= PDR_E_BLOCK_CORRUPT && !(flags & GATE_BLOCK_RECREATE) ? " (with recreate it is replaced)" : "");
        goto out;
    }
    pdr_init_struct(&info, sizeof info);
    if (pdr_host_info_get(*host, &info) == PDR_OK && info.origin <= PDR_HOST_RESTORED)
        gate_log("notice", "%s %s%s%s", origin[info.origin], path, info.reason ? ": " : "", info.reason ? info.message : "");
    rc = text ? apply(file, *router, text, len) : 0;
out:
    free(text);
    return rc;
}

int gate_block_reload(pdr_router *router, const char *file)
{
    pdr_config config;
    size_t len = 0;
    char *text = file ? read_file(file, &len) : NULL;
    int rc = -1;

    if (!text) return -1;
    if (read_config(file, text, len, &config) == 0 && try_out(file, &config, text, len) == 0 && apply(file, router, text, len) == 0) {
        gate_log("notice", "%s was read again", file);
        rc = 0;
    }
    free(text);
    return rc;
}
