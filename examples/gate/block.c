#include "block.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate.h"

#define AGAIN_NS 1000000000 /* after an error */

struct gate_block {
    pthread_mutex_t lock; /* of all below; the host's tick remembers what it saw */
    gate_map *present;
    unsigned flags;
    char *text; /* the document, NULL: none */
    size_t len;
    pdr_config config;
    uint64_t again_ns; /* when to look again */
    char path[512], file[512];
};

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
    if (ferror(f) || text.failed) {
        gate_log("emerg", "cannot read \"%s\"%s", path, text.failed ? ": out of memory" : "");
        bytes_free(&text);
    }
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

static void say(const gate_map *m, const char *path)
{
    static const char *const origin[] = {"", "attached to", "created", "replaced", "restored"};
    pdr_host_info info;

    pdr_init_struct(&info, sizeof info);
    if (pdr_host_info_get(m->host, &info) == PDR_OK && info.origin <= PDR_HOST_RESTORED)
        gate_log("notice", "%s %s%s%s", origin[info.origin], path, info.reason ? ": " : "", info.reason ? info.message : "");
}

static uint32_t host_flags(const gate_block *b)
{
    return PDR_HOST_CREATE | PDR_HOST_RESTORE | PDR_HOST_GUARD | (b->flags & GATE_BLOCK_RECREATE ? PDR_HOST_RECREATE : 0);
}

static int open_first(gate_block *b)
{
    gate_map *m = calloc(1, sizeof *m);
    pdr_error err;

    if (!m) {
        gate_log("emerg", "no memory to open the block");
        return -1;
    }
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_open(b->path, b->text ? &b->config : NULL, host_flags(b), &m->host, &m->router, &err)) {
        gate_log("emerg", "%s: %s%s", b->path, err.message,
                 err.code <= PDR_E_BLOCK_MAGIC && err.code >= PDR_E_BLOCK_CORRUPT && !(b->flags & GATE_BLOCK_RECREATE) ? " (with recreate it is replaced)" : "");
        free(m);
        return -1;
    }
    m->users = 1;
    b->present = m;
    say(m, b->path);
    return b->text ? apply(b->file, m->router, b->text, b->len) : 0;
}

int gate_block_open(const char *path, const char *file, unsigned flags, gate_block **out)
{
    gate_block *b = calloc(1, sizeof *b);

    *out = NULL;
    if (!b) {
        gate_log("emerg", "no memory to open the block");
        return -1;
    }
    (void)pthread_mutex_init(&b->lock, NULL);
    b->flags = flags;
    (void)snprintf(b->path, sizeof b->path, "%s", path);
    (void)snprintf(b->file, sizeof b->file, "%s", file ? file : "");
    if ((file && !(b->text = read_file(file, &b->len))) || read_config(b->file, b->text, b->len, &b->config) ||
        (b->text && try_out(b->file, &b->config, b->text, b->len)) || (!(flags & GATE_BLOCK_CHECK) && open_first(b))) {
        gate_block_close(b);
        return -1;
    }
    if (flags & GATE_BLOCK_CHECK) gate_block_close(b);
    else *out = b;
    return 0;
}

void gate_block_close(gate_block *b)
{
    if (!b) return;
    if (b->present) {
        pdr_host_close(b->present->host);
        free(b->present);
    }
    free(b->text);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

int gate_block_reload(gate_block *b)
{
    pdr_config config;
    size_t len = 0;
    char *text = b->file[0] ? read_file(b->file, &len) : NULL;
    int rc = -1;

    if (!text) return -1;
    (void)pthread_mutex_lock(&b->lock);
    if (read_config(b->file, text, len, &config) == 0 && try_out(b->file, &config, text, len) == 0 && apply(b->file, b->present->router, text, len) == 0) {
        gate_log("notice", "%s was read again", b->file);
        free(b->text);
        b->text = text;
        b->len = len;
        b->config = config;
        text = NULL;
        rc = 0;
    }
    (void)pthread_mutex_unlock(&b->lock);
    free(text);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------- users */

/* With the lock. */
static void drop(gate_map *m)
{
    if (--m->users) return;
    pdr_host_close(m->host);
    free(m);
}

gate_map *gate_block_take(gate_block *b)
{
    gate_map *m;
    (void)pthread_mutex_lock(&b->lock);
    m = b->present;
    m->users++;
    (void)pthread_mutex_unlock(&b->lock);
    return m;
}

void gate_block_leave(gate_block *b, gate_map *m)
{
    (void)pthread_mutex_lock(&b->lock);
    drop(m);
    (void)pthread_mutex_unlock(&b->lock);
}

int gate_block_is(const gate_block *b, const gate_map *m)
{
    return __atomic_load_n(&b->present, __ATOMIC_ACQUIRE) == m;
}

/* --------------------------------------------------------------------------------------------------------- following */

/* With the lock. */
static void follow(gate_block *b, uint64_t now)
{
    gate_map *old = b->present, *m;
    pdr_host *host;
    pdr_error err;

    if (now < b->again_ns) return;
    pdr_init_struct(&err, sizeof err);
    if (pdr_host_follow(old->host, b->text ? &b->config : NULL, host_flags(b), &host, NULL, &err) != PDR_OK) {
        b->again_ns = now + AGAIN_NS;
        gate_log("error", "%s was truncated, replaced or removed: %s", b->path, err.message);
        return;
    }
    if (!host) return;
    gate_log("warn", "%s was truncated, replaced or removed: going on with what is there", b->path);
    if (!(m = calloc(1, sizeof *m))) {
        pdr_host_close(host);
        return;
    }
    m->host = host;
    m->router = pdr_host_router(host);
    m->users = 1;
    say(m, b->path);
    if (b->text) (void)apply(b->file, m->router, b->text, b->len);
    __atomic_store_n(&b->present, m, __ATOMIC_RELEASE);
    drop(old);
}

void gate_block_follow(gate_block *b)
{
    (void)pthread_mutex_lock(&b->lock);
    follow(b, pdr_host_now_ns());
    (void)pthread_mutex_unlock(&b->lock);
}

void gate_block_tick(gate_block *b)
{
    const uint64_t now = pdr_host_now_ns();

    if (pthread_mutex_trylock(&b->lock)) return; /* another thread does it */
    follow(b, now);
    (void)pdr_host_tick(b->present->host, now);
    (void)pthread_mutex_unlock(&b->lock);
}
