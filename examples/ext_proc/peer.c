/*
 * Connections to workers whose address is known and that want no TLS: one request at a time on each, kept for the next one. A connection is written to
 * at once when a leg starts, and watched by the loop for the rest.
 *
 * Kept ones are closed after IDLE_MS, and as soon as the worker closes them or says anything. A request that meets one that is closed meanwhile has failed
 * as PDR_FAIL_STALE if nothing was answered: it is not sent again from here, since the worker may have read it.
 */
#include "legs.h"
#include "http1.h"


#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define IDLE_MS     4000 /* SGLang's server closes idle connections after 5 s */
#define IDLE_MAX    4096
#define BUFFER_SIZE 65536
#define READS_MAX   4 /* per event: others want their turn */
#define BUCKETS     256

struct peer {
    uv_poll_t poll;
    worker *w;
    leg *l;           /* NULL: it is kept */
    peer *next, *prev; /* kept ones of a bucket; or those that are connecting */
    peer **list;      /* which of both, NULL: neither */
    peer_address to;
    uint64_t until_ns; /* to be connected, or to be kept */
    int fd, events;
    unsigned connecting : 1;
    unsigned used : 1; /* it has answered before */
    unsigned sent : 1; /* all of the request */
    unsigned answered : 1; /* a byte came */
    size_t head_pos;
    http1 in;
};

struct peers {
    peer *kept[BUCKETS];
    peer *connecting;
    unsigned kept_n;
    char buffer[BUFFER_SIZE];
};

static void on_poll(uv_poll_t *poll, int status, int events);

int peers_init(worker *w)
{
    w->peers = calloc(1, sizeof *w->peers);
    return w->peers ? 0 : -1;
}

/* -------------------------------------------------------------------------------------------------------- connections */

int peer_address_of(const char *host, unsigned port, peer_address *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&out->at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&out->at;

    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        out->len = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) return -1;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons((uint16_t)port);
    out->len = sizeof *v6;
    return 0;
}

static peer **bucket_of(peers *p, const peer_address *to)
{
    const unsigned char *at = (const unsigned char *)&to->at;
    uint32_t h = 2166136261u;

    for (socklen_t i = 2; i < to->len; i++) h = (h ^ at[i]) * 16777619u;
    return &p->kept[(h ^ h >> 16) % BUCKETS];
}

static void link_to(peer **list, peer *c)
{
    c->list = list;
    c->prev = NULL;
    c->next = *list;
    if (c->next) c->next->prev = c;
    *list = c;
}

static void unlink_from(peer *c)
{
    if (!c->list) return;
    if (c->prev) c->prev->next = c->next;
    else *c->list = c->next;
    if (c->next) c->next->prev = c->prev;
    if (!c->connecting) c->w->peers->kept_n--;
    c->list = NULL;
    c->next = c->prev = NULL;
}

static void closed(uv_handle_t *handle)
{
    peer *c = handle->data;
    bytes_free(&c->in.line);
    free(c);
}

static void peer_close(peer *c)
{
    unlink_from(c);
    if (c->l) c->l->peer = NULL;
    c->l = NULL;
    uv_close((uv_handle_t *)&c->poll, closed);
    close(c->fd);
}

static void want(peer *c, int events)
{
    if (c->events == events) return;
    c->events = events;
    if (events) (void)uv_poll_start(&c->poll, events, on_poll);
    else (void)uv_poll_stop(&c->poll);
}

static void keep(peer *c)
{
    peers *p = c->w->peers;

    c->l->peer = NULL;
    c->l = NULL;
    if (p->kept_n >= IDLE_MAX) {
        peer_close(c);
        return;
    }
    c->used = 1;
    c->until_ns = pdr_host_now_ns() + IDLE_MS * 1000000ull;
    p->kept_n++;
    link_to(bucket_of(p, &c->to), c);
    want(c, UV_READABLE); /* it is not to say anything: if it does, it is closed */
}

/* A kept one, about which nothing is to be read: neither its end, nor what would be taken for the next answer. */
static peer *kept_for(peers *p, const peer_address *to)
{
    char byte;

    for (peer *c = *bucket_of(p, to), *next; c; c = next) {
        next = c->next;
        if (c->to.len != to->len || memcmp(&c->to.at, &to->at, to->len) != 0) continue;
        if (recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) {
            unlink_from(c);
            return c;
        }
        peer_close(c);
    }
    return NULL;
}

/* One that is kept makes room. 1: there was one */
static int close_kept(peers *p)
{
    for (int i = 0; p->kept_n && i < BUCKETS; i++) {
        if (!p->kept[i]) continue;
        peer_close(p->kept[i]);
        return 1;
    }
    return 0;
}

static int new_socket(worker *w, int family)
{
    int fd;

    do fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    while (fd < 0 && gate_errno_is_ours(errno) && close_kept(w->peers));
    return fd;
}

/* NULL: *failed is PDR_FAIL_CONNECT, or 0 if the server has no part in it */
static peer *connect_to(worker *w, const peer_address *to, uint32_t *failed)
{
    const int one = 1, fd = new_socket(w, to->at.ss_family);
    peer *c;

    *failed = 0;
    if (fd < 0) {
        if (!gate_errno_is_ours(errno)) *failed = PDR_FAIL_CONNECT; /* no such family here: another server may have another */
        return NULL;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (const struct sockaddr *)&to->at, to->len) && errno != EINPROGRESS) {
        if (!gate_errno_is_ours(errno)) *failed = PDR_FAIL_CONNECT;
        close(fd);
        return NULL;
    }
    if (!(c = calloc(1, sizeof *c)) || uv_poll_init(&w->loop.uv, &c->poll, fd)) {
        close(fd);
        free(c);
        return NULL;
    }
    c->poll.data = c;
    c->w = w;
    c->fd = fd;
    c->to = *to;
    c->connecting = 1;
    c->until_ns = pdr_host_now_ns() + w->options->connect_timeout_ms * 1000000ull;
    link_to(&w->peers->connecting, c);
    return c;
}

/* ----------------------------------------------------------------------------------------------------- what becomes of it */

static void fail(peer *c, uint32_t failed)
{
    leg *l = c->l;

    peer_close(c);
    l->failed = failed;
    l->state = LEG_DONE;
    leg_note(l);
}

/* This process has not what it takes: no fault of the worker's. */
static void lack(peer *c)
{
    leg *l = c->l;

    fail(c, 0);
    l->lacks = 1;
}

static void cut(peer *c)
{
    fail(c, c->used && !c->answered ? PDR_FAIL_STALE : PDR_FAIL_RESET);
}

static void complete(peer *c, int rest)
{
    leg *l = c->l;

    if (c->in.close || rest || !c->sent) peer_close(c);
    else keep(c);
    l->complete = 1;
    l->state = LEG_DONE;
    leg_note(l);
}

/* --------------------------------------------------------------------------------------------------------------- sending */

static int gather_out(peer *c, struct iovec *out)
{
    leg *l = c->l;
    int n = 0;

    if (c->head_pos < l->head_out.len) out[n++] = (struct iovec){l->head_out.data + c->head_pos, l->head_out.len - c->head_pos};
    for (size_t i = l->slice; i < l->slices_n; i++) {
        const pdr_slice *s = &l->slices[i];
        const size_t skip = i == l->slice ? l->slice_pos : 0;
        if (s->length > skip) out[n++] = (struct iovec){(s->source ? l->tail.data : (char *)(uintptr_t)l->c->job.body.data) + s->offset + skip, (size_t)s->length - skip};
    }
    return n;
}

static void sent(peer *c, size_t n)
{
    leg *l = c->l;
    size_t part = l->head_out.len - c->head_pos;

    if (part > n) part = n;
    c->head_pos += part;
    for (n -= part; n; n -= part) {
        part = (size_t)l->slices[l->slice].length - l->slice_pos;
        if (part > n) {
            l->slice_pos += n;
            return;
        }
        l->slice++;
        l->slice_pos = 0;
    }
}

/* 0, or -1: what the worker still said is to be read, and then the connection is over. */
static int send_on(peer *c)
{
    struct iovec out[PDR_MAX_SLICES + 1];
    struct msghdr msg = {.msg_iov = out};
    size_t all, i;
    ssize_t n;
    int pieces;

    while ((pieces = gather_out(c, out)) > 0) {
        msg.msg_iovlen = (size_t)pieces;
        for (all = i = 0; i < (size_t)pieces; i++) all += out[i].iov_len;
        n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && gate_errno_is_ours(errno)) c->l->lacks = 1;
        if (n < 0) return errno == EAGAIN ? 0 : -1;
        sent(c, (size_t)n);
        if ((size_t)n < all) return 0; /* it takes no more now */
        break;
    }
    c->sent = 1;
    return 0;
}

static void watch(peer *c)
{
    want(c, (c->l->paused ? 0 : UV_READABLE) | (c->sent ? 0 : UV_WRITABLE));
}

/* -------------------------------------------------------------------------------------------------------------- receiving */

/* 1: the connection is no more this leg's. */
static int take(peer *c, view in)
{
    leg *l = c->l;
    view body;
    int more;

    c->answered = 1;
    do {
        const int head = c->in.head;
        more = http1_read(&c->in, &in, &body);
        if (!head && c->in.head) leg_head(l, c->in.status);
        if (body.len) leg_body(l, body);
    } while (more > 0);
    if (l->collected.failed || l->lines.failed || c->in.line.failed) {
        lack(c);
        return 1;
    }
    if (more < 0) {
        fail(c, PDR_FAIL_PROTOCOL);
        return 1;
    }
    if (!c->in.done) {
        l->paused = leg_full(l, 0) ? 1 : 0;
        return 0;
    }
    complete(c, in.len != 0);
    return 1;
}

static void receive(peer *c)
{
    char *const buffer = c->w->peers->buffer;
    ssize_t n = 1;

    for (int reads = 0; reads < READS_MAX && !c->l->paused; reads++) {
        n = recv(c->fd, buffer, BUFFER_SIZE, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        if (take(c, (view){buffer, (size_t)n})) return;
        if (n < BUFFER_SIZE) break;
    }
    if (n > 0 || (n < 0 && errno == EAGAIN)) {
        watch(c);
        return;
    }
    if (n == 0 && http1_closed(&c->in)) complete(c, 0);
    else if (c->l->lacks || (n < 0 && gate_errno_is_ours(errno))) lack(c);
    else cut(c);
}

static void connected(peer *c)
{
    int error = 0;
    socklen_t size = sizeof error;

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        fail(c, PDR_FAIL_CONNECT);
        return;
    }
    unlink_from(c);
    c->connecting = 0;
    c->l->connected = 1;
    leg_note(c->l);
    if (send_on(c)) receive(c);
    else watch(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    peer *c = poll->data;
    worker *w = c->w;

    if (status < 0) c->events = 0; /* libuv has stopped it */
    if (!c->l) peer_close(c);
    else if (c->connecting) connected(c);
    else if (status < 0 || (events & UV_WRITABLE && !c->sent && send_on(c))) receive(c);
    else if (events & UV_READABLE) receive(c);
    else watch(c);
    legs_run(w);
}

/* ------------------------------------------------------------------------------------------------------------------ a leg */

int peer_start(leg *l, const peer_address *to)
{
    worker *w = l->c->w;
    peer *c = kept_for(w->peers, to);

    if (!c && !(c = connect_to(w, to, &l->failed))) return -1;
    c->l = l;
    l->peer = c;
    c->sent = c->answered = 0;
    c->head_pos = 0;
    http1_begin(&c->in, &l->lines, l->bodiless);
    if (c->connecting) {
        want(c, UV_WRITABLE);
        return 0;
    }
    l->connected = 1;
    l->state = LEG_OPEN;
    if (l->c->decode == DECODE_WANTED) leg_note(l); /* it waits for this connection */
    if (send_on(c) && !l->lacks) cut(c);
    else if (l->lacks) lack(c);
    else watch(c);
    return 0;
}

void peer_cancel(leg *l)
{
    if (l->peer) peer_close(l->peer);
}

void peer_resume(leg *l)
{
    if (l->peer) watch(l->peer);
}

void peers_tick(worker *w)
{
    const uint64_t now = pdr_host_now_ns();

    for (peer *c = w->peers->connecting, *next; c; c = next) {
        next = c->next;
        if (now >= c->until_ns) fail(c, PDR_FAIL_CONNECT);
    }
    if (w->peers->kept_n == 0) return;
    for (int i = 0; i < BUCKETS; i++) {
        for (peer *c = w->peers->kept[i], *next; c; c = next) {
            next = c->next;
            if (now >= c->until_ns) peer_close(c);
        }
    }
}

void peers_end(worker *w)
{
    if (!w->peers) return;
    for (int i = 0; i < BUCKETS; i++) {
        while (w->peers->kept[i]) peer_close(w->peers->kept[i]);
    }
    while (w->peers->connecting) peer_close(w->peers->connecting);
}

void peers_free(worker *w)
{
    free(w->peers);
    w->peers = NULL;
}
