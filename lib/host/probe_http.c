#ifdef PDR_WITH_CURL
#include "probe_http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS_AT_ONCE 128
#define KEPT_BODY      65536 /* a request keeps a buffer of this size for the next answer, larger ones are given back */
#define RETRY_NS       100000000u /* when libcurl could not look at its timers */
#define MAX_CONNECTS   4096  /* kept alive: two per endpoint, 1,024 endpoints, and as much for those that come and go */

struct pdr_http {
    CURLM             *multi;
    struct curl_slist *headers;
    pdr_http_done     *done;
    void              *context;
    int                epoll;
    uint64_t           timer_ns; /* when libcurl wants to be called, UINT64_MAX: not */
    uint32_t           active;
    uint64_t           connections;
    pdr_probe_options  options;
    char              *ca_file;
};

/* ------------------------------------------------------------------------------------------------------- libcurl's callbacks */

static int on_socket(CURL *easy, curl_socket_t s, int what, void *context, void *known)
{
    pdr_http          *h = context;
    struct epoll_event e = {.data.fd = s};
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(h->epoll, EPOLL_CTL_DEL, s, &e);
        return 0;
    }
    if (what & CURL_POLL_IN) e.events |= EPOLLIN;
    if (what & CURL_POLL_OUT) e.events |= EPOLLOUT;
    if (epoll_ctl(h->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s, &e))
        epoll_ctl(h->epoll, errno == EEXIST ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s, &e);
    if (!known) curl_multi_assign(h->multi, s, h);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *context)
{
    pdr_http *h = context;
    (void)multi;
    h->timer_ns = ms < 0 ? UINT64_MAX : pdr_host_now_ns() + (uint64_t)ms * 1000000u;
    return 0;
}

static size_t on_body(char *data, size_t size, size_t count, void *context)
{
    pdr_get *g = context;
    size_t   n = size * count;
    if (n > g->http->options.max_answer_bytes - g->len) {
        g->result = PDR_GET_LARGE;
        return 0;
    }
    if (g->len + n + 1 > g->cap) {
        size_t cap = g->cap ? g->cap : 4096;
        char  *p;
        while (cap < g->len + n + 1) cap *= 2;
        if (!(p = realloc(g->body, cap))) return 0;
        g->body = p;
        g->cap = cap;
    }
    memcpy(g->body + g->len, data, n);
    g->len += n;
    g->body[g->len] = 0;
    return n;
}

/* ----------------------------------------------------------------------------------------------------------- making, ending */

static char *copy_text(const char *text) { return text ? strdup(text) : NULL; }

int pdr_http_new(const pdr_probe_options *options, pdr_http_done *done, void *context, pdr_http **out, pdr_error *err)
{
    pdr_http *h = calloc(1, sizeof *h);
    char     *line = NULL;
    int       ok;
    if (!h) return pdr_host_fail(err, PDR_E_SYSTEM, "out of memory");
    if (curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(h);
        return pdr_host_fail(err, PDR_E_SYSTEM, "libcurl cannot be initialised");
    }
    h->options = *options;
    h->done = done;
    h->context = context;
    h->timer_ns = UINT64_MAX;
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    h->multi = curl_multi_init();
    ok = h->epoll >= 0 && h->multi;
    if (ok && options->ca_file) ok = (h->ca_file = copy_text(options->ca_file)) != NULL;
    if (ok && options->authorization) {
        size_t n = strlen(options->authorization) + sizeof "Authorization: ";
        ok = (line = malloc(n)) != NULL;
        if (ok) {
            snprintf(line, n, "Authorization: %s", options->authorization);
            ok = (h->headers = curl_slist_append(NULL, line)) != NULL;
        }
        free(line);
    }
    h->options.authorization = h->options.ca_file = NULL;
    if (!ok) {
        pdr_http_free(h);
        return pdr_host_fail(err, PDR_E_SYSTEM, "the prober's HTTP client cannot be made (memory or descriptors)");
    }
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)MAX_CONNECTS);
    *out = h;
    return PDR_OK;
}

void pdr_http_free(pdr_http *h)
{
    if (!h) return;
    if (h->multi) curl_multi_cleanup(h->multi);
    if (h->epoll >= 0) close(h->epoll);
    curl_slist_free_all(h->headers);
    free(h->ca_file);
    free(h);
    curl_global_cleanup();
}

int      pdr_http_fd(const pdr_http *h) { return h->epoll; }
uint32_t pdr_http_active(const pdr_http *h) { return h->active; }
uint64_t pdr_http_connections(const pdr_http *h) { return h->connections; }

/* --------------------------------------------------------------------------------------------------------------- requests */

/* A host must not be able to carry anything else into the URL. */
static int host_is_plain(const char *host)
{
    size_t n = strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%");
    return n && !host[n];
}

static int make_url(char *out, size_t cap, const pdr_endpoint *to, const char *path, pdr_error *err)
{
    const char *scheme = to->flags & PDR_ENDPOINT_TLS ? "https" : "http", *zone = strchr(to->host, '%');
    if (!host_is_plain(to->host))
        return pdr_host_fail(err, PDR_E_INVALID, "'%.64s' is not a host name or address", to->host);
    if (!strchr(to->host, ':'))
        snprintf(out, cap, "%s://%s:%u%s", scheme, to->host, to->port, path);
    else if (!zone)
        snprintf(out, cap, "%s://[%s]:%u%s", scheme, to->host, to->port, path);
    else /* RFC 6874 */
        snprintf(out, cap, "%s://[%.*s%%25%s]:%u%s", scheme, (int)(zone - to->host), to->host, zone + 1, to->port, path);
    return PDR_OK;
}

static CURL *make_easy(pdr_http *h, pdr_get *get)
{
    CURL *c = curl_easy_init();
    if (!c) return NULL;
    curl_easy_setopt(c, CURLOPT_PRIVATE, get);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, get);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_PROXY, ""); /* or libcurl takes one from the environment */
    curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_HTTP09_ALLOWED, 0L);
    curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(c, CURLOPT_ACCEPT_ENCODING, ""); /* everything libcurl can read */
    curl_easy_setopt(c, CURLOPT_USERAGENT, "pdroute-probe");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)h->options.connect_timeout_ms);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    if (h->headers) curl_easy_setopt(c, CURLOPT_HTTPHEADER, h->headers);
    if (h->ca_file) curl_easy_setopt(c, CURLOPT_CAINFO, h->ca_file);
    if (h->options.flags & PDR_PROBE_TLS_INSECURE) {
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    return c;
}

int pdr_get_start(pdr_http *h, pdr_get *get, const pdr_endpoint *to, const char *path, uint32_t timeout_ms, uint64_t now_ns,
                  pdr_error *err)
{
    char url[512];
    int  code = make_url(url, sizeof url, to, path, err);
    if (code) return code;
    if (get->active) return pdr_host_fail(err, PDR_E_INVALID, "the request is under way already");
    if (!get->easy && !(get->easy = make_easy(h, get))) return pdr_host_fail(err, PDR_E_SYSTEM, "out of memory");
    get->http = h;
    get->len = 0;
    get->status = 0;
    get->result = PDR_GET_OK;
    get->message[0] = 0;
    get->started_ns = now_ns;
    curl_easy_setopt(get->easy, CURLOPT_URL, url);
    curl_easy_setopt(get->easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    if (curl_multi_add_handle(h->multi, get->easy)) return pdr_host_fail(err, PDR_E_SYSTEM, "libcurl takes no request");
    get->active = 1;
    h->active++;
    return PDR_OK;
}

void pdr_get_cancel(pdr_get *get)
{
    if (!get->active) return;
    curl_multi_remove_handle(get->http->multi, get->easy);
    get->active = 0;
    get->http->active--;
}

void pdr_get_free(pdr_get *get)
{
    pdr_get_cancel(get);
    if (get->easy) curl_easy_cleanup(get->easy);
    free(get->body);
    memset(get, 0, sizeof *get);
}

static uint32_t result_of(CURLcode code)
{
    switch (code) {
    case CURLE_OK: return PDR_GET_OK;
    case CURLE_OPERATION_TIMEDOUT: return PDR_GET_TIMEOUT;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE: return PDR_GET_CONNECT;
    default: return PDR_GET_BROKEN;
    }
}

static void finish(pdr_http *h, pdr_get *g, CURLcode code)
{
    long   status = 0, made = 0, os_errno = 0;
    double connected = 0;
    curl_easy_getinfo(g->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(g->easy, CURLINFO_NUM_CONNECTS, &made);
    curl_easy_getinfo(g->easy, CURLINFO_OS_ERRNO, &os_errno);
    curl_easy_getinfo(g->easy, CURLINFO_CONNECT_TIME, &connected);
    pdr_get_cancel(g);
    h->connections += (uint64_t)made;
    if (g->result != PDR_GET_LARGE) g->result = result_of(code);
    if (g->result == PDR_GET_TIMEOUT && made && connected <= 0) g->result = PDR_GET_CONNECT;
    if (g->result == PDR_GET_OK)
        g->status = (uint32_t)status;
    else if (g->result == PDR_GET_LARGE)
        snprintf(g->message, sizeof g->message, "answer longer than %llu bytes",
                 (unsigned long long)h->options.max_answer_bytes);
    else if (code == CURLE_COULDNT_CONNECT && os_errno)
        snprintf(g->message, sizeof g->message, "%s", strerror((int)os_errno));
    else
        snprintf(g->message, sizeof g->message, "%s", curl_easy_strerror(code));
    h->done(h->context, g);
    if (!g->active && g->cap > KEPT_BODY) {
        free(g->body);
        g->body = NULL;
        g->cap = g->len = 0;
    }
}

static uint32_t collect(pdr_http *h)
{
    CURLMsg *m;
    int      left;
    uint32_t n = 0;
    while ((m = curl_multi_info_read(h->multi, &left))) {
        pdr_get *g;
        if (m->msg != CURLMSG_DONE) continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&g);
        finish(h, g, m->data.result);
        n++;
    }
    return n;
}

int pdr_http_step(pdr_http *h, uint32_t timeout_ms, uint32_t *done, pdr_error *err)
{
    struct epoll_event ev[EVENTS_AT_ONCE];
    uint64_t           now = pdr_host_now_ns();
    int                n, running, wait = timeout_ms > 60000 ? 60000 : (int)timeout_ms;
    if (h->timer_ns != UINT64_MAX) {
        uint64_t ms = h->timer_ns <= now ? 0 : (h->timer_ns - now + 999999u) / 1000000u;
        if (ms < (uint64_t)wait) wait = (int)ms;
    }
    n = epoll_wait(h->epoll, ev, EVENTS_AT_ONCE, wait);
    if (n < 0 && errno != EINTR) return pdr_host_fail_errno(err, "cannot wait for", "the network");
    for (int i = 0; i < n; i++) {
        int mask = 0;
        if (ev[i].events & EPOLLIN) mask |= CURL_CSELECT_IN;
        if (ev[i].events & EPOLLOUT) mask |= CURL_CSELECT_OUT;
        if (ev[i].events & (EPOLLERR | EPOLLHUP)) mask |= CURL_CSELECT_ERR;
        curl_multi_socket_action(h->multi, ev[i].data.fd, mask, &running);
    }
    if (h->timer_ns <= pdr_host_now_ns()) {
        h->timer_ns = UINT64_MAX; /* the call sets it anew */
        if (curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running)) h->timer_ns = now + RETRY_NS; /* or nothing would ever time out */
    }
    n = (int)collect(h);
    if (done) *done = (uint32_t)n;
    return PDR_OK;
}
#else
typedef int pdr_no_curl; /* ISO C wants a declaration */
#endif
