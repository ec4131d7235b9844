/* Directives, configuration and the life of a worker process. */
#include "ngx_http_pdroute.h"

#include <malloc.h>

static void *create_main_conf(ngx_conf_t *cf);
static void *create_loc_conf(ngx_conf_t *cf);
static char *merge_loc_conf(ngx_conf_t *cf, void *parent, void *child);
static ngx_int_t postconfiguration(ngx_conf_t *cf);
static ngx_int_t init_module(ngx_cycle_t *cycle);
static ngx_int_t init_process(ngx_cycle_t *cycle);
static void exit_process(ngx_cycle_t *cycle);
static char *set_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *set_pdroute(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static char *set_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

static ngx_command_t commands[] = {
    /* pdroute_zone NAME file=PATH config=FILE.json [recreate] [keepalive=N] [keepalive_timeout=TIME]
     * [tls_ca=FILE | tls_insecure]; */
    {ngx_string("pdroute_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_2MORE, set_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0, NULL},
    /* pdroute NAME [body_timeout=TIME] [connect_timeout=TIME] [send_timeout=TIME] [read_timeout=TIME] [buffer_size=SIZE]; */
    {ngx_string("pdroute"), NGX_HTTP_LOC_CONF | NGX_CONF_1MORE, set_pdroute, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    /* pdroute_status NAME; */
    {ngx_string("pdroute_status"), NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1, set_status, NGX_HTTP_LOC_CONF_OFFSET, 0, NULL},
    ngx_null_command};

static ngx_http_module_t module_ctx = {
    ngx_http_pdroute_add_variables, /* preconfiguration */
    postconfiguration,              /* postconfiguration */
    create_main_conf,               /* create main configuration */
    NULL,                           /* init main configuration */
    NULL,                           /* create server configuration */
    NULL,                           /* merge server configuration */
    create_loc_conf,                /* create location configuration */
    merge_loc_conf                  /* merge location configuration */
};

ngx_module_t ngx_http_pdroute_module = {NGX_MODULE_V1,
                                        &module_ctx,
                                        commands,
                                        NGX_HTTP_MODULE,
                                        NULL,         /* init master */
                                        init_module,  /* init module */
                                        init_process, /* init process */
                                        NULL,         /* init thread */
                                        NULL,         /* exit thread */
                                        exit_process, /* exit process */
                                        NULL,         /* exit master */
                                        NGX_MODULE_V1_PADDING};

static void *create_main_conf(ngx_conf_t *cf)
{
    ngx_http_pdroute_main_conf_t *conf = ngx_pcalloc(cf->pool, sizeof(*conf));
    if (conf == NULL || ngx_array_init(&conf->zones, cf->pool, 2, sizeof(ngx_http_pdroute_zone_t *)) != NGX_OK)
        return NULL;
    return conf;
}

static void *create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_pdroute_loc_conf_t *conf = ngx_pcalloc(cf->pool, sizeof(*conf));
    if (conf == NULL) return NULL;
    conf->body_timeout = NGX_CONF_UNSET_MSEC;
    conf->connect_timeout = NGX_CONF_UNSET_MSEC;
    conf->send_timeout = NGX_CONF_UNSET_MSEC;
    conf->read_timeout = NGX_CONF_UNSET_MSEC;
    conf->buffer_size = NGX_CONF_UNSET_SIZE;
    conf->upstream.hide_headers = NGX_CONF_UNSET_PTR;
    conf->upstream.pass_headers = NGX_CONF_UNSET_PTR;
    return conf;
}

static ngx_http_pdroute_zone_t *find_zone(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_http_pdroute_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_pdroute_module);
    ngx_http_pdroute_zone_t **zones = main->zones.elts;
    ngx_uint_t i;

    for (i = 0; i < main->zones.nelts; i++) {
        if (zones[i]->name.len == name->len && ngx_strncmp(zones[i]->name.data, name->data, name->len) == 0)
            return zones[i];
    }
    return NULL;
}

/* Finds a zone that may be written further down in the file: so only now, when all of it is read. */
static char *resolve_zone(ngx_conf_t *cf, ngx_http_pdroute_loc_conf_t *conf, ngx_str_t *name,
                          ngx_http_pdroute_zone_t **zone)
{
    if (name->len == 0) return NGX_CONF_OK;
    *zone = find_zone(cf, name);
    if (*zone == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "unknown pdroute_zone \"%V\" in %s:%ui", name, conf->conf_file,
                      conf->conf_line);
        return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

/* nginx gives the requests of a location to whoever came last (proxy_pass, say): what stands there twice was meant otherwise. */
#define TWO_HANDLERS "and another content handler are in one location"

static char *merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_pdroute_loc_conf_t *prev = parent, *conf = child;

    if (conf->zone_name.len || conf->status_name.len) {
        ngx_http_core_loc_conf_t *clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
        if (clcf->handler != (conf->zone_name.len ? ngx_http_pdroute_handler : ngx_http_pdroute_status_handler)) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "\"%s\" directive " TWO_HANDLERS " in %s:%ui",
                          conf->zone_name.len ? "pdroute" : "pdroute_status", conf->conf_file, conf->conf_line);
            return NGX_CONF_ERROR;
        }
    }
    /* `pdroute` is not inherited, as no content handler is; its timeouts are its own */
    ngx_conf_init_msec_value(conf->body_timeout, 300000);
    ngx_conf_init_msec_value(conf->connect_timeout, 5000);
    ngx_conf_init_msec_value(conf->send_timeout, 60000);
    ngx_conf_init_msec_value(conf->read_timeout, 24 * 3600 * 1000);
    ngx_conf_init_size_value(conf->buffer_size, 8192);
    if (resolve_zone(cf, conf, &conf->zone_name, &conf->zone) != NGX_CONF_OK) return NGX_CONF_ERROR;
    if (resolve_zone(cf, conf, &conf->status_name, &conf->status) != NGX_CONF_OK) return NGX_CONF_ERROR;
    return ngx_http_pdroute_relay_conf(cf, conf, prev) == NGX_OK ? NGX_CONF_OK : NGX_CONF_ERROR;
}

/* "key=value": the value if `arg` starts with `key`. */
static ngx_int_t argument(ngx_str_t *arg, const char *key, ngx_str_t *value)
{
    size_t n = ngx_strlen(key);
    if (arg->len < n || ngx_strncmp(arg->data, key, n) != 0) return 0;
    value->data = arg->data + n;
    value->len = arg->len - n;
    return 1;
}

static char *bad_argument(ngx_conf_t *cf, ngx_command_t *cmd, ngx_str_t *arg)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\" in \"%V\"", arg, &cmd->name);
    return NGX_CONF_ERROR;
}

static ngx_int_t time_argument(ngx_str_t *value, ngx_msec_t *out)
{
    ngx_int_t ms = ngx_parse_time(value, 0);
    if (ms == NGX_ERROR) return NGX_ERROR;
    *out = (ngx_msec_t)ms;
    return NGX_OK;
}

static char *set_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_pdroute_main_conf_t *main = conf;
    ngx_http_pdroute_zone_t *zone, **slot;
    ngx_str_t *arg = cf->args->elts, value;
    ngx_uint_t i;
    ngx_int_t n;

    if (find_zone(cf, &arg[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "pdroute_zone \"%V\" is duplicate", &arg[1]);
        return NGX_CONF_ERROR;
    }
    zone = ngx_pcalloc(cf->pool, sizeof(*zone));
    slot = ngx_array_push(&main->zones);
    if (zone == NULL || slot == NULL) return NGX_CONF_ERROR;
    *slot = zone;
    zone->name = arg[1];
    zone->conf_file = cf->conf_file->file.name;
    zone->conf_line = cf->conf_file->line;
    zone->keepalive = 256;
    zone->keepalive_timeout = 4000; /* uvicorn, and so SGLang, closes idle connections after 5 s */
    for (i = 2; i < cf->args->nelts; i++) {
        if (argument(&arg[i], "file=", &value) && value.len) {
            zone->file = value;
        } else if (argument(&arg[i], "config=", &value) && value.len) {
            zone->config_file = value;
        } else if (argument(&arg[i], "size=", &value)) {
            n = (ngx_int_t)ngx_parse_offset(&value);
            if (n <= 0) return bad_argument(cf, cmd, &arg[i]);
            zone->most = (size_t)n;
        } else if (argument(&arg[i], "keepalive=", &value)) {
            n = ngx_atoi(value.data, value.len);
            if (n == NGX_ERROR) return bad_argument(cf, cmd, &arg[i]);
            zone->keepalive = (ngx_uint_t)n;
        } else if (argument(&arg[i], "keepalive_timeout=", &value)) {
            if (time_argument(&value, &zone->keepalive_timeout) != NGX_OK) return bad_argument(cf, cmd, &arg[i]);
        } else if (argument(&arg[i], "tls_ca=", &value) && value.len) {
            zone->tls_ca = value;
            if (ngx_conf_full_name(cf->cycle, &zone->tls_ca, 1) != NGX_OK) return NGX_CONF_ERROR;
        } else if (arg[i].len == 12 && ngx_strncmp(arg[i].data, "tls_insecure", 12) == 0) {
            zone->tls_insecure = 1;
        } else if (arg[i].len == 8 && ngx_strncmp(arg[i].data, "recreate", 8) == 0) {
            zone->recreate = 1;
        } else {
            return bad_argument(cf, cmd, &arg[i]);
        }
    }
    if (zone->file.len == 0 || zone->config_file.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "pdroute_zone \"%V\" needs file= and config=", &zone->name);
        return NGX_CONF_ERROR;
    }
    if (ngx_conf_full_name(cf->cycle, &zone->file, 0) != NGX_OK ||
        ngx_conf_full_name(cf->cycle, &zone->config_file, 1) != NGX_OK)
        return NGX_CONF_ERROR;
    if (zone->tls_ca.len && zone->tls_insecure) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "pdroute_zone \"%V\": tls_ca= and tls_insecure exclude each other", &zone->name);
        return NGX_CONF_ERROR;
    }
#if (NGX_SSL)
    if (ngx_http_pdroute_tls_open(cf, zone) != NGX_OK) return NGX_CONF_ERROR;
#endif
    if (ngx_http_pdroute_zone_load(cf, zone) != NGX_CONF_OK) return NGX_CONF_ERROR;
    for (slot = main->zones.elts; *slot != zone; slot++) {
        if (ngx_http_pdroute_zone_same_file(zone, *slot) &&
            ngx_http_pdroute_zone_agrees(cf, zone, *slot) != NGX_CONF_OK)
            return NGX_CONF_ERROR;
    }
    return NGX_CONF_OK;
}

static void remember_place(ngx_conf_t *cf, ngx_http_pdroute_loc_conf_t *conf)
{
    conf->conf_file = cf->conf_file->file.name.data;
    conf->conf_line = cf->conf_file->line;
}

static char *set_pdroute(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_pdroute_loc_conf_t *plcf = conf, *server;
    ngx_http_core_loc_conf_t *clcf;
    ngx_http_core_srv_conf_t *cscf;
    ngx_str_t *arg = cf->args->elts, value;
    ngx_uint_t i;
    ngx_msec_t *time;

    if (plcf->zone_name.len) return "is duplicate";
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (clcf->handler) return TWO_HANDLERS;
    plcf->zone_name = arg[1];
    remember_place(cf, plcf);
    for (i = 2; i < cf->args->nelts; i++) {
        if (argument(&arg[i], "buffer_size=", &value)) {
            ssize_t size = ngx_parse_size(&value);
            if (size < 1024) return bad_argument(cf, cmd, &arg[i]);
            plcf->buffer_size = (size_t)size;
            continue;
        }
        if (argument(&arg[i], "body_timeout=", &value))
            time = &plcf->body_timeout;
        else if (argument(&arg[i], "connect_timeout=", &value))
            time = &plcf->connect_timeout;
        else if (argument(&arg[i], "send_timeout=", &value))
            time = &plcf->send_timeout;
        else if (argument(&arg[i], "read_timeout=", &value))
            time = &plcf->read_timeout;
        else
            return bad_argument(cf, cmd, &arg[i]);
        if (time_argument(&value, time) != NGX_OK) return bad_argument(cf, cmd, &arg[i]);
    }
    clcf->handler = ngx_http_pdroute_handler;
    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);
    server = cscf->ctx->loc_conf[ngx_http_pdroute_module.ctx_index];
    plcf->json_errors = server->json_errors = 1;
    return NGX_CONF_OK;
}

static char *set_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_pdroute_loc_conf_t *plcf = conf;
    ngx_http_core_loc_conf_t *clcf;
    ngx_str_t *arg = cf->args->elts;

    (void)cmd;
    if (plcf->status_name.len) return "is duplicate";
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    if (clcf->handler) return TWO_HANDLERS;
    plcf->status_name = arg[1];
    remember_place(cf, plcf);
    clcf->handler = ngx_http_pdroute_status_handler;
    return NGX_CONF_OK;
}

/*
 * Blocks are mapped while the configuration is read, before any worker exists: what is wrong with one refuses the new
 * configuration, and a running nginx goes on with its old one.
 */
static ngx_int_t postconfiguration(ngx_conf_t *cf)
{
    ngx_http_pdroute_main_conf_t *main = ngx_http_conf_get_module_main_conf(cf, ngx_http_pdroute_module);
    ngx_http_pdroute_zone_t **zones = main->zones.elts;
    ngx_uint_t i;

    for (i = 0; i < main->zones.nelts; i++) {
        if (ngx_http_pdroute_zone_open(cf, zones[i]) != NGX_OK) return NGX_ERROR;
    }
    ngx_http_pdroute_error_init();
    return NGX_OK;
}

static ngx_http_pdroute_main_conf_t *cycle_conf(ngx_cycle_t *cycle)
{
    if (ngx_get_conf(cycle->conf_ctx, ngx_http_module) == NULL) return NULL; /* no http block */
    return ngx_http_cycle_get_module_main_conf(cycle, ngx_http_pdroute_module);
}

/* A worker that finds the block's file gone or ruined makes another: in a directory of our own making it may. */
static void give_directory(ngx_cycle_t *cycle, ngx_http_pdroute_zone_t *zone, ngx_uid_t user)
{
    u_char path[NGX_MAX_PATH], *slash;

    if (zone->file.len >= sizeof(path)) return;
    ngx_cpystrn(path, zone->file.data, zone->file.len + 1);
    slash = (u_char *)strrchr((char *)path, '/');
    if (slash == NULL || slash == path) return;
    *slash = '\0';
    if (chown((char *)path, user, (gid_t)-1) == -1)
        ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno, "pdroute_zone \"%V\": chown(\"%s\") failed", &zone->name, path);
}

/*
 * Workers, which are not root, have the block mapped already; but the mark that tells others of a worker's death is a
 * lock on a description of the file that the worker itself opens.
 */
static ngx_int_t init_module(ngx_cycle_t *cycle)
{
    ngx_http_pdroute_main_conf_t *main = cycle_conf(cycle);
    ngx_core_conf_t *core = (ngx_core_conf_t *)ngx_get_conf(cycle->conf_ctx, ngx_core_module);
    ngx_http_pdroute_zone_t **zones;
    ngx_file_info_t fi;
    ngx_uint_t i;

    if (main == NULL || geteuid() != 0 || core->user == (ngx_uid_t)NGX_CONF_UNSET_UINT) return NGX_OK;
    zones = main->zones.elts;
    for (i = 0; i < main->zones.nelts; i++) {
        if (zones[i]->host == NULL || ngx_file_info(zones[i]->file.data, &fi) == NGX_FILE_ERROR || fi.st_uid != 0)
            continue;
        if (chown((char *)zones[i]->file.data, core->user, (gid_t)-1) == -1)
            ngx_log_error(NGX_LOG_WARN, cycle->log, ngx_errno, "pdroute_zone \"%V\": chown(\"%V\") failed",
                          &zones[i]->name, &zones[i]->file);
        if (zones[i]->directory_made) give_directory(cycle, zones[i], core->user);
    }
    return NGX_OK;
}

static ngx_uint_t is_worker(void)
{
    return ngx_process == NGX_PROCESS_WORKER || ngx_process == NGX_PROCESS_SINGLE;
}

static ngx_int_t init_process(ngx_cycle_t *cycle)
{
    ngx_http_pdroute_main_conf_t *main = cycle_conf(cycle);
    ngx_http_pdroute_zone_t **zones;
    ngx_uint_t i;

    if (!is_worker() || main == NULL || main->zones.nelts == 0) return NGX_OK;
    /* Bodies of 100 KB and more would otherwise be mapped and unmapped for each request: 20 page faults each (32 MiB is
     * the largest threshold that glibc takes). */
    (void)mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
    (void)mallopt(M_TOP_PAD, 8 * 1024 * 1024);
    zones = main->zones.elts;
    for (i = 0; i < main->zones.nelts; i++) {
        if (ngx_http_pdroute_zone_start(zones[i], cycle) != NGX_OK) return NGX_ERROR;
    }
    return NGX_OK;
}

static void exit_process(ngx_cycle_t *cycle)
{
    ngx_http_pdroute_main_conf_t *main = cycle_conf(cycle);
    ngx_http_pdroute_zone_t **zones;
    ngx_uint_t i;

    if (!is_worker() || main == NULL) return;
    zones = main->zones.elts;
    for (i = 0; i < main->zones.nelts; i++) {
        ngx_http_pdroute_zone_stop(zones[i]);
        ngx_http_pdroute_jobs_free(zones[i]);
    }
}
