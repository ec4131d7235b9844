/*
 * Legs to workers that want TLS, or whose name must be looked up: libcurl's multi interface. The body is read from the client's bytes, slice by slice.
 *
 * libcurl repeats a request by itself when a kept connection turns out to be closed. With a body that it cannot rewind it does not, once
 * the worker may have read some of it: a room is never posted twice.
 *
 * Its callbacks only take notes in the leg (leg.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "legs.h"

#define IDLE_AGE_S  4             /* SGLang's server closes idle connections after 5 */
#define IDLE_MAX    4096
#define WATCHES     4 /* sockets of one transfer at once, at most: two addresses, a resolver */

typedef struct watch {
    uv_poll_t poll;
    worker *w;
    curl_socket_t fd;
    struct watch *next; /* of the free ones, or of those in use */
} watch;

/* --------------------------------------------------------------------------------------------------------- callbacks */

static int on_connected(void *context, char *address, char *own, int port, int own_port)
{
    leg *l = context;
    (void)address, (void)own, (void)port, (void)own_port;
    l->connected = 1;
    leg_note(l);
    return CURL_PREREQFUNC_OK;
}

static size_t on_read(char *to, size_t size, size_t n, void *context)
{
    leg *l = context;
    const size_t cap = size * n;
    size_t have = 0;

    while (have < cap && l->slice < l->slices_n) {
        const pdr_slice *s = &l->slices[l->slice];
        size_t part = (size_t)s->length - l->slice_pos;
        if (part > cap - have) part = cap - have;
        memcpy(to + have, (s->source ? l->tail.data : l->c->job.body.data) + s->offset + l->slice_pos, part);
        have += part;
        l->slice_pos += part;
        if (l->slice_pos == s->length) {
            l->slice++;
            l->slice_pos = 0;
        }
    }
    return have;
}

/* libcurl lets pass what no client would take for HTTP, or would take for something else. */
static int line_is_header(const char *line, size_t len)
{
    size_t i = 0;

    while (len && (line[len - 1] == '\n' || line[len - 1] == '\r')) len--;
    while (i < len && line[i] > ' ' && line[i] != 0x7f && line[i] != ':') i++;
    if (i == 0 || i == len || line[i] != ':') return 0;
    return !memchr(line, '\r', len) && !memchr(line, '\0', len);
}

static size_t on_header(char *line, size_t size, size_t n, void *context)
{
    leg *l = context;
    const size_t len = size * n;
    long status = 0;

    if (len <= 2) { /* the end of a head; interim ones do not count */
        (void)curl_easy_getinfo(l->easy, CURLINFO_RESPONSE_CODE, &status);
        if (status >= 200) leg_head(l, (unsigned)status);
        return len;
    }
    if (l->head) return len; /* trailers */
    if (len > 5 && memcmp(line, "HTTP/", 5) == 0) { /* also behind an interim head */
        l->lines.len = 0;
        return len;
    }
    if (!line_is_header(line, len)) {
        l->garbled = 1;
        return 0;
    }
    bytes_put(&l->lines, line, len);
    return l->lines.failed ? 0 : len;
}

static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    leg *l = context;

    if (leg_full(l, size * n)) {
        l->paused = 1;
        return CURL_WRITEFUNC_PAUSE;
    }
    leg_body(l, (view){data, size * n});
    return l->collected.failed ? 0 : size * n;
}

/* ------------------------------------------------------------------------------------------------------- start, end */

/* As libcurl's own, but for the note that it was not the server's fault. */
static curl_socket_t on_socket_wanted(void *context, curlsocktype purpose, struct curl_sockaddr *to)
{
    const int fd = socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);

    (void)purpose;
    if (fd < 0 && gate_errno_is_ours(errno)) ((leg *)context)->lacks = 1;
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

static int on_close(void *context, curl_socket_t fd);

/* 0, or -1: no memory */
static int set_up(leg *l)
{
    const worker *w = l->c->w;
    CURL *e = l->easy;

    (void)curl_easy_setopt(e, CURLOPT_PRIVATE, l);
    (void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)w->options->connect_timeout_ms);
    (void)curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, (long)IDLE_AGE_S);
    (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket_wanted);
    (void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, l);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETFUNCTION, on_close);
    (void)curl_easy_setopt(e, CURLOPT_CLOSESOCKETDATA, l->c->w); /* a connection outlives its leg */
    (void)curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_connected);
    (void)curl_easy_setopt(e, CURLOPT_PREREQDATA, l);
    (void)curl_easy_setopt(e, CURLOPT_READFUNCTION, on_read);
    (void)curl_easy_setopt(e, CURLOPT_READDATA, l);
    (void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    (void)curl_easy_setopt(e, CURLOPT_HEADERDATA, l);
    (void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    (void)curl_easy_setopt(e, CURLOPT_WRITEDATA, l);
    (void)curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, 65536L);
    (void)curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    return curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK ? 0 : -1; /* none, whatever the environment says */
}

/* The client's headers that pass, and what keeps libcurl from adding its own. */
static int set_headers(leg *l)
{
    view in = leg_forwarded(l->c);
    int accept = 0, type = 0, agent = 0;
    struct curl_slist *more;
    bytes line = {0};
    header h;

    curl_slist_free_all(l->headers);
    l->headers = NULL;
    while (leg_line(&in, &h)) {
        accept |= view_is_nocase(h.name, "accept");
        type |= view_is_nocase(h.name, "content-type");
        agent |= view_is_nocase(h.name, "user-agent");
        line.len = 0;
        bytes_put_view(&line, h.name);
        if (h.value.len == 0) bytes_put(&line, ";", 1); /* libcurl's way to say: empty */
        else bytes_put(&line, ": ", 2);
        bytes_put_view(&line, h.value);
        bytes_put(&line, "", 1);
        more = line.failed ? NULL : curl_slist_append(l->headers, line.data);
        if (!more) {
            bytes_free(&line);
            return -1;
        }
        l->headers = more;
    }
    bytes_free(&line);
    const char *const absent[] = {"Expect:", accept ? NULL : "Accept:", type ? NULL : "Content-Type:", agent ? NULL : "User-Agent:"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        if (!absent[i]) continue;
        if (!(more = curl_slist_append(l->headers, absent[i]))) return -1;
        l->headers = more;
    }
    return 0;
}

static int prepare(leg *l, int tls, const char *host, unsigned port)
{
    const call *c = l->c;
    char url[320], path[2048], method[32];

    if (!l->easy) {
        l->easy = curl_easy_init();
        if (!l->easy) return -1;
        if (set_up(l)) {
            curl_easy_cleanup(l->easy);
            l->easy = NULL;
            return -1;
        }
    }
    if (set_headers(l)) return -1;
    (void)snprintf(url, sizeof url, strchr(host, ':') ? "%s://[%s]:%u/" : "%s://%s:%u/", tls ? "https" : "http", host, port);
    if ((size_t)snprintf(path, sizeof path, "%.*s", (int)c->target.len, c->target.data) >= sizeof path) return -1;
    (void)snprintf(method, sizeof method, "%.*s", (int)c->method.len, c->method.data);
    (void)curl_easy_setopt(l->easy, CURLOPT_NOBODY, 0L);
    if (c->head_only) (void)curl_easy_setopt(l->easy, CURLOPT_HTTPGET, 1L);
    else (void)curl_easy_setopt(l->easy, CURLOPT_POST, 1L);
    if (l->bodiless) (void)curl_easy_setopt(l->easy, CURLOPT_NOBODY, 1L);
    (void)curl_easy_setopt(l->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)l->length);
    (void)curl_easy_setopt(l->easy, CURLOPT_HTTPHEADER, l->headers);
    if (curl_easy_setopt(l->easy, CURLOPT_CUSTOMREQUEST, method) != CURLE_OK) return -1;
    if (curl_easy_setopt(l->easy, CURLOPT_REQUEST_TARGET, path) != CURLE_OK) return -1;
    return curl_easy_setopt(l->easy, CURLOPT_URL, url) == CURLE_OK ? 0 : -1;
}

/*
 * What socket_cb() needs, had before a transfer begins: when that fails libcurl gives all transfers of the thread up, and forgets sockets that are still
 * watched.
 */
static int reserve_watches(worker *w)
{
    while (w->watches < WATCHES * (w->in_curl + 1)) {
        watch *s = calloc(1, sizeof *s);
        if (!s) return -1;
        s->w = w;
        s->next = w->watches_free;
        w->watches_free = s;
        w->watches++;
    }
    return 0;
}

int curl_start(leg *l, int tls, const char *host, unsigned port)
{
    worker *w = l->c->w;

    if (reserve_watches(w) || prepare(l, tls, host, port) || curl_multi_add_handle(w->multi, l->easy) != CURLM_OK) return -1;
    l->in_curl = 1;
    w->in_curl++;
    w->multi_kick = 1;
    return 0;
}

void curl_cancel(leg *l)
{
    if (!l->in_curl) return;
    (void)curl_multi_remove_handle(l->c->w->multi, l->easy);
    l->in_curl = 0;
    l->c->w->in_curl--;
}

void curl_resume(leg *l)
{
    if (!l->in_curl) return;
    (void)curl_easy_pause(l->easy, CURLPAUSE_CONT); /* may call on_body() */
    l->c->w->multi_kick = 1;
}

void curl_forget(leg *l)
{
    if (l->easy) curl_easy_cleanup(l->easy);
    curl_slist_free_all(l->headers);
}

/* ------------------------------------------------------------------------------------------------------- what happens */

/* What failed here, and says nothing of the server. */
static int is_ours(const leg *l, CURLcode code)
{
    long error = 0;

    switch (code) {
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
    case CURLE_ABORTED_BY_CALLBACK:
    case CURLE_READ_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ENGINE_INITFAILED:
        return 1;
    default:
        (void)curl_easy_getinfo(l->easy, CURLINFO_OS_ERRNO, &error); /* of connect() */
        return l->collected.failed || l->lines.failed || (code == CURLE_COULDNT_CONNECT && gate_errno_is_ours((int)error));
    }
}

static uint32_t failure(const leg *l, CURLcode code)
{
    long fresh = 1;

    if (l->garbled) return PDR_FAIL_PROTOCOL;
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_INTERFACE_FAILED:
        return PDR_FAIL_CONNECT;
    case CURLE_SEND_FAIL_REWIND:
        return PDR_FAIL_STALE;
    case CURLE_OPERATION_TIMEDOUT:
        return l->connected ? PDR_FAIL_TIMEOUT : PDR_FAIL_CONNECT;
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_HTTP_RETURNED_ERROR:
        return PDR_FAIL_PROTOCOL;
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        (void)curl_easy_getinfo(l->easy, CURLINFO_NUM_CONNECTS, &fresh);
        return fresh == 0 && !l->head ? PDR_FAIL_STALE : PDR_FAIL_RESET;
    default:
        return PDR_FAIL_RESET;
    }
}

static void gather(worker *w)
{
    CURLMsg *m;
    int left;
    leg *l;

    while ((m = curl_multi_info_read(w->multi, &left))) {
        if (m->msg != CURLMSG_DONE) continue;
        const CURLcode code = m->data.result;
        if (curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&l) != CURLE_OK) continue;
        if (code == CURLE_OK) l->lacks = 0; /* of two addresses, one took it */
        else if (is_ours(l, code)) l->lacks = 1;
        if (code == CURLE_OK && l->head) l->complete = 1;
        else if (!l->lacks) l->failed = code == CURLE_OK ? PDR_FAIL_PROTOCOL : failure(l, code);
        curl_cancel(l);
        l->state = LEG_DONE;
        leg_note(l);
    }
}

void curl_run(worker *w)
{
    int running;

    if (w->multi_kick) {
        w->multi_kick = 0;
        w->in_multi = 1;
        (void)curl_multi_socket_action(w->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        w->in_multi = 0;
    }
    gather(w);
}

/* -------------------------------------------------------------------------------------------------------- event loop */

static void watch_closed(uv_handle_t *handle)
{
    watch *s = handle->data;

    s->next = s->w->watches_free;
    s->w->watches_free = s;
}

static void unwatch(worker *w, watch *s)
{
    watch **p = &w->watches_used;

    while (*p != s) p = &(*p)->next;
    *p = s->next;
    (void)uv_poll_stop(&s->poll);
    (void)curl_multi_assign(w->multi, s->fd, NULL);
    uv_close((uv_handle_t *)&s->poll, watch_closed);
}

/* Without memory libcurl may close a socket and not have said that it is to be watched no more. */
static int on_close(void *context, curl_socket_t fd)
{
    worker *w = context;

    for (watch *s = w->watches_used; s; s = s->next) {
        if (s->fd != fd) continue;
        unwatch(w, s);
        break;
    }
    return close(fd);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    watch *s = poll->data;
    worker *w = s->w;
    int flags = 0, running;

    if (status < 0) flags = CURL_CSELECT_ERR;
    if (events & UV_READABLE) flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE) flags |= CURL_CSELECT_OUT;
    w->in_multi = 1;
    (void)curl_multi_socket_action(w->multi, s->fd, flags, &running);
    w->in_multi = 0;
    legs_run(w);
}

static int socket_cb(CURL *easy, curl_socket_t fd, int what, void *context, void *socket_context)
{
    worker *w = context;
    watch *s = socket_context;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (s) unwatch(w, s);
        return 0;
    }
    if (!s) {
        s = w->watches_free;
        if (!s || uv_poll_init(&w->loop.uv, &s->poll, fd)) return -1;
        w->watches_free = s->next;
        s->next = w->watches_used;
        w->watches_used = s;
        s->fd = fd;
        s->poll.data = s;
        (void)curl_multi_assign(w->multi, fd, s);
    }
    return uv_poll_start(&s->poll, (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0), on_socket);
}

static void on_timer(uv_timer_t *timer)
{
    worker *w = timer->data;
    w->multi_kick = 1;
    legs_run(w);
}

static int timer_cb(CURLM *multi, long timeout_ms, void *context)
{
    worker *w = context;

    (void)multi;
    if (timeout_ms < 0) return uv_timer_stop(&w->multi_timer);
    if (timeout_ms == 0) w->multi_kick = 1; /* before the loop waits again */
    return uv_timer_start(&w->multi_timer, on_timer, (uint64_t)timeout_ms, 0);
}

int curl_init(worker *w)
{
    w->multi = curl_multi_init();
    if (!w->multi || uv_timer_init(&w->loop.uv, &w->multi_timer)) return -1;
    w->multi_timer.data = w;
    (void)curl_multi_setopt(w->multi, CURLMOPT_SOCKETFUNCTION, socket_cb);
    (void)curl_multi_setopt(w->multi, CURLMOPT_SOCKETDATA, w);
    (void)curl_multi_setopt(w->multi, CURLMOPT_TIMERFUNCTION, timer_cb);
    (void)curl_multi_setopt(w->multi, CURLMOPT_TIMERDATA, w);
    (void)curl_multi_setopt(w->multi, CURLMOPT_MAXCONNECTS, (long)IDLE_MAX);
    (void)curl_multi_setopt(w->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    return 0;
}

void curl_end(worker *w)
{
    if (w->multi) (void)curl_multi_cleanup(w->multi);
    w->multi = NULL;
}

void curl_free_watches(worker *w)
{
    for (watch *s = w->watches_free, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    w->watches_free = NULL;
}
