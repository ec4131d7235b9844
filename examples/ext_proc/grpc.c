#include "grpc.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE   (512 * 1024)
#define READS_MAX   8           /* per event: other connections want their turn */
#define OUT_MAX     (1024 * 1024) /* waiting in a connection before nghttp2 is asked for no more */
#define WINDOW      (16 * 1024 * 1024)
#define FRAME_MAX   (256 * 1024)
#define PREFIX      5           /* of a gRPC message: flag and length */
#define KEEP_MAX    (256 * 1024) /* buffers larger than this are not kept for the next stream */

struct grpc_conn {
    grpc_loop *loop;
    uv_poll_t poll;
    nghttp2_session *session;
    grpc_conn *next, *prev, *dirty_next;
    grpc_stream *streams;
    bytes out;
    size_t out_pos;
    int fd, events, dead, dirty;
    int stopped; /* nghttp2 has more than `out` takes */
    int broken;  /* what it was to send was lost: it ends */
};

/* ------------------------------------------------------------------------------------------------------- connections */

static void mark(grpc_conn *c)
{
    if (c->dirty || c->dead) return;
    c->dirty = 1;
    c->dirty_next = c->loop->dirty;
    c->loop->dirty = c;
}

static void stream_over(grpc_stream *s)
{
    grpc_conn *c = s->conn;
    if (s->prev) s->prev->next = s->next;
    else c->streams = s->next;
    if (s->next) s->next->prev = s->prev;
    s->next = s->prev = NULL;
    (void)nghttp2_session_set_stream_user_data(c->session, s->id, NULL);
    s->conn = NULL;
    s->service->closed(s);
}

static void conn_closed(uv_handle_t *handle)
{
    grpc_conn *c = handle->data;
    close(c->fd);
    nghttp2_session_del(c->session);
    bytes_free(&c->out);
    free(c);
}

static void conn_close(grpc_conn *c)
{
    if (c->dead) return;
    c->dead = 1;
    while (c->streams) stream_over(c->streams);
    if (c->prev) c->prev->next = c->next;
    else c->loop->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    c->loop->connections--;
    if (!c->dirty) uv_close((uv_handle_t *)&c->poll, conn_closed);
    /* else when the list of dirty ones is gone through */
}

static void on_socket(uv_poll_t *poll, int status, int events);

static void want(grpc_conn *c, int events)
{
    if (c->events == events || c->dead) return;
    c->events = events;
    (void)uv_poll_start(&c->poll, events, on_socket);
}

static int write_out(grpc_conn *c)
{
    while (c->out_pos < c->out.len) {
        const ssize_t n = send(c->fd, c->out.data + c->out_pos, c->out.len - c->out_pos, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return 0;
        if (n < 0) return -1;
        c->out_pos += (size_t)n;
    }
    c->out_pos = c->out.len = 0;
    if (c->out.cap > 2 * OUT_MAX) bytes_free(&c->out);
    return 0;
}

static void conn_flush(grpc_conn *c)
{
    do {
        c->stopped = 0;
        if (c->broken || nghttp2_session_send(c->session) != 0 || c->out.failed || write_out(c) != 0) {
            conn_close(c);
            return;
        }
    } while (c->stopped && c->out.len == c->out_pos);
    if (!nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session) && c->out.len == c->out_pos) {
        conn_close(c);
        return;
    }
    want(c, UV_READABLE | (c->out.len > c->out_pos ? UV_WRITABLE : 0));
}

static void flush_dirty(grpc_loop *loop)
{
    while (loop->dirty) {
        grpc_conn *c = loop->dirty;
        loop->dirty = c->dirty_next;
        c->dirty = 0;
        if (c->dead) uv_close((uv_handle_t *)&c->poll, conn_closed);
        else conn_flush(c);
    }
}

static void on_prepare(uv_prepare_t *handle)
{
    flush_dirty(handle->data);
}

static void on_check(uv_check_t *handle)
{
    flush_dirty(handle->data);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
    grpc_conn *c = poll->data;
    char *buffer = c->loop->read_buffer;

    if (c->dead) return;
    mark(c);
    if (status < 0) {
        conn_close(c);
        return;
    }
    if (!(events & UV_READABLE)) return;
    for (int i = 0; i < READS_MAX; i++) {
        const ssize_t n = recv(c->fd, buffer, READ_SIZE, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
        if (n <= 0) {
            conn_close(c);
            return;
        }
        if (nghttp2_session_mem_recv(c->session, (const uint8_t *)buffer, (size_t)n) < 0) {
            conn_close(c);
            return;
        }
        if (n < READ_SIZE) return;
    }
}

/* ----------------------------------------------------------------------------------------------------------- sending */

static int full(grpc_conn *c)
{
    if (c->out.len - c->out_pos < OUT_MAX) return 0;
    c->stopped = 1;
    return 1;
}

static ssize_t send_cb(nghttp2_session *session, const uint8_t *data, size_t length, int flags, void *user_data)
{
    grpc_conn *c = user_data;
    (void)session, (void)flags;
    if (full(c)) return NGHTTP2_ERR_WOULDBLOCK;
    bytes_put(&c->out, data, length);
    return c->out.failed ? NGHTTP2_ERR_CALLBACK_FAILURE : (ssize_t)length;
}

/* Copies the next `n` bytes of what the stream has queued. */
static void take(grpc_stream *s, bytes *to, size_t n)
{
    while (n) {
        grpc_segment *g = &s->segments[s->segment];
        size_t part = g->len - s->segment_pos;
        if (part > n) part = n;
        if (g->ext) {
            bytes_put(to, g->ext + s->segment_pos, part);
        } else {
            bytes_put(to, s->out.data + s->out_pos, part);
            s->out_pos += part;
        }
        n -= part;
        s->queued -= part;
        s->segment_pos += part;
        if (s->segment_pos == g->len) {
            s->segment++;
            s->segment_pos = 0;
        }
    }
    if (s->segment == s->segments_n) {
        s->segment = s->segments_n = 0;
        s->out_pos = s->out.len = 0;
        if (s->service->drained) s->service->drained(s);
    }
}

static int send_data_cb(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t length,
                        nghttp2_data_source *source, void *user_data)
{
    grpc_conn *c = user_data;
    (void)session, (void)frame;
    if (full(c)) return NGHTTP2_ERR_WOULDBLOCK;
    if (bytes_reserve(&c->out, 9 + length)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    bytes_put(&c->out, head, 9);
    take(source->ptr, &c->out, length);
    return 0;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

static ssize_t data_cb(nghttp2_session *session, int32_t id, uint8_t *buffer, size_t length, uint32_t *flags,
                       nghttp2_data_source *source, void *user_data)
{
    grpc_stream *s = source->ptr;
    size_t n = 0;
    char status[12];

    (void)buffer, (void)user_data;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    for (size_t i = s->segment; i < s->segments_n && n < length; i++) n += s->segments[i].len - (i == s->segment ? s->segment_pos : 0);
    if (n > length) return (ssize_t)length;
    if (s->finished) {
        nghttp2_nv trailer;
        (void)snprintf(status, sizeof status, "%u", s->status);
        trailer = header("grpc-status", status);
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_is_fatal(nghttp2_submit_trailer(session, id, &trailer, 1))) return NGHTTP2_ERR_CALLBACK_FAILURE;
    } else if (n == 0) {
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

grpc_loop *grpc_loop_of(const grpc_stream *s)
{
    return s->conn->loop;
}

/* Without memory for what it was to send a stream would wait for ever: its connection ends. */
static void check_memory(grpc_conn *c, int rc)
{
    if (!nghttp2_is_fatal(rc)) return;
    c->broken = 1;
    mark(c);
}

/* There is something to send. */
static void kick(grpc_stream *s)
{
    grpc_conn *c = s->conn;
    if (!c) return;
    if (!s->answered) {
        nghttp2_nv headers[] = {header(":status", "200"), header("content-type", "application/grpc")};
        nghttp2_data_provider provider = {.source.ptr = s, .read_callback = data_cb};
        s->answered = 1;
        check_memory(c, nghttp2_submit_response(c->session, s->id, headers, 2, &provider));
    } else {
        check_memory(c, nghttp2_session_resume_data(c->session, s->id));
    }
    mark(c);
}

static void add_segment(grpc_stream *s, const char *ext, size_t len)
{
    if (len == 0) return;
    s->queued += len;
    if (s->segments_n && !ext && !s->segments[s->segments_n - 1].ext) {
        s->segments[s->segments_n - 1].len += len;
        return;
    }
    if (s->segments_n == s->segments_cap) {
        const size_t cap = s->segments_cap ? 2 * s->segments_cap : 16;
        grpc_segment *more = realloc(s->segments, cap * sizeof *more);
        if (!more) {
            s->out.failed = 1;
            return;
        }
        s->segments = more;
        s->segments_cap = cap;
    }
    s->segments[s->segments_n++] = (grpc_segment){ext, len};
}

size_t grpc_begin(grpc_stream *s)
{
    if (bytes_reserve(&s->out, PREFIX)) return 0;
    s->out.len += PREFIX;
    return s->out.len;
}

void grpc_end(grpc_stream *s, size_t mark_, const view *ext, size_t ext_n)
{
    size_t own = s->out.len - mark_, len = own;

    if (!s->conn || s->out.failed || s->finished) return;
    for (size_t i = 0; i < ext_n; i++) len += ext[i].len;
    char *p = s->out.data + mark_ - PREFIX;
    p[0] = 0;
    p[1] = (char)(len >> 24);
    p[2] = (char)(len >> 16);
    p[3] = (char)(len >> 8);
    p[4] = (char)len;
    add_segment(s, NULL, PREFIX + own);
    for (size_t i = 0; i < ext_n; i++) add_segment(s, ext[i].data, ext[i].len);
    if (s->out.failed) grpc_finish(s, GRPC_RESOURCE_EXHAUSTED);
    kick(s);
}

void grpc_finish(grpc_stream *s, uint32_t status)
{
    if (s->finished || !s->conn) return;
    s->finished = 1;
    s->status = status;
    kick(s);
}

/* --------------------------------------------------------------------------------------------------------- receiving */

int grpc_keep(grpc_stream *s, view part, bytes *into)
{
    bytes whole = s->in;
    if (part.data < whole.data || part.data + part.len > whole.data + whole.len) return 0;
    s->in = *into;
    s->in.len = 0;
    *into = whole;
    return 1;
}

static void refuse(grpc_conn *c, int32_t id, uint32_t status)
{
    char text[12];
    nghttp2_nv headers[] = {header(":status", "200"), header("content-type", "application/grpc"), header("grpc-status", text)};
    (void)snprintf(text, sizeof text, "%u", status);
    headers[2].valuelen = strlen(text);
    check_memory(c, nghttp2_submit_response(c->session, id, headers, 3, NULL));
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)session, (void)frame, (void)user_data;
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user_data)
{
    grpc_conn *c = user_data;
    const grpc_service *service = c->loop->services;
    const view path = {(const char *)value, value_len};
    grpc_stream *s;

    (void)flags;
    if (name_len != 5 || memcmp(name, ":path", 5) != 0 || frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (nghttp2_session_get_stream_user_data(session, frame->hd.stream_id)) return 0; /* a second one */
    while (service->path && !view_is(path, service->path)) service++;
    if (!service->path) return 0;
    s = service->open(c->loop);
    if (!s) return 0;
    s->conn = c;
    s->service = service;
    s->id = frame->hd.stream_id;
    s->next = c->streams;
    s->prev = NULL;
    if (s->next) s->next->prev = s;
    c->streams = s;
    (void)nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    grpc_conn *c = user_data;
    grpc_stream *s;

    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!s) {
        if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) refuse(c, frame->hd.stream_id, GRPC_UNIMPLEMENTED);
        return 0;
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM && !s->half_closed) {
        s->half_closed = 1;
        s->service->half_closed(s);
    }
    return 0;
}

static uint32_t length_of(const char *prefix)
{
    const uint8_t *p = (const uint8_t *)prefix;
    return (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
}

/* A message's length: 0 fine; else the call is over. */
static int check_prefix(grpc_stream *s, const char *prefix)
{
    s->message_len = length_of(prefix);
    if (prefix[0] == 0 && s->message_len <= s->max_message) return 0;
    grpc_finish(s, prefix[0] ? GRPC_UNIMPLEMENTED : GRPC_RESOURCE_EXHAUSTED);
    return -1;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes_in, size_t len, void *user_data)
{
    grpc_stream *s = nghttp2_session_get_stream_user_data(session, id);
    const char *p = (const char *)bytes_in, *end = p + len;

    (void)flags, (void)user_data;
    if (!s || s->finished) return 0;
    while (p < end && s->conn && !s->finished) {
        size_t n = (size_t)(end - p);
        if (s->in.len == 0 && n >= PREFIX) {
            if (check_prefix(s, p)) return 0;
            if (n >= PREFIX + (size_t)s->message_len) { /* whole: in place */
                const view message = {p + PREFIX, s->message_len};
                p += PREFIX + message.len;
                s->service->message(s, message);
                continue;
            }
            if (bytes_reserve(&s->in, PREFIX + (size_t)s->message_len)) goto memory;
        }
        if (s->in.len < PREFIX) {
            if (n > PREFIX - s->in.len) n = PREFIX - s->in.len;
            bytes_put(&s->in, p, n);
            p += n;
            if (s->in.failed) goto memory;
            if (s->in.len < PREFIX) return 0;
            if (check_prefix(s, s->in.data)) return 0;
            if (bytes_reserve(&s->in, s->message_len)) goto memory;
        }
        n = PREFIX + (size_t)s->message_len - s->in.len;
        if (n > (size_t)(end - p)) n = (size_t)(end - p);
        bytes_put(&s->in, p, n);
        p += n;
        if (s->in.len < PREFIX + (size_t)s->message_len) return 0;
        s->service->message(s, (view){s->in.data + PREFIX, s->message_len});
        s->in.len = 0;
    }
    return 0;
memory:
    grpc_finish(s, GRPC_RESOURCE_EXHAUSTED);
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *user_data)
{
    grpc_stream *s = nghttp2_session_get_stream_user_data(session, id);
    (void)error_code, (void)user_data;
    if (s) stream_over(s);
    return 0;
}

/* ------------------------------------------------------------------------------------------------------------ set up */

void grpc_stream_reset(grpc_stream *s)
{
    const bytes in = s->in, out = s->out;
    grpc_segment *segments = s->segments;
    const size_t cap = s->segments_cap;

    memset(s, 0, sizeof *s);
    s->in = in;
    s->out = out;
    if (in.cap > KEEP_MAX || in.failed) bytes_free(&s->in);
    if (out.cap > KEEP_MAX || out.failed) bytes_free(&s->out);
    s->in.len = s->out.len = 0;
    s->segments = segments;
    s->segments_cap = cap;
}

void grpc_stream_free(grpc_stream *s)
{
    bytes_free(&s->in);
    bytes_free(&s->out);
    free(s->segments);
}

static nghttp2_session *new_session(grpc_conn *c)
{
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    nghttp2_session *session = NULL;
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, 1u << 20},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW},
                                         {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, FRAME_MAX}};

    if (nghttp2_session_callbacks_new(&callbacks) || nghttp2_option_new(&option)) goto out;
    nghttp2_session_callbacks_set_send_callback(callbacks, send_cb);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data_cb);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX / 2, UINT64_MAX / 2);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_no_http_messaging(option, 1); /* of the head only the path is looked at */
    if (nghttp2_session_server_new2(&session, callbacks, c, option)) {
        session = NULL;
        goto out;
    }
    if (nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, 3) ||
        nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, 4 * WINDOW)) {
        nghttp2_session_del(session);
        session = NULL;
    }
out:
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
    return session;
}

int grpc_accept(grpc_loop *loop, int fd)
{
    grpc_conn *c = calloc(1, sizeof *c);
    const int on = 1;

    if (!c) goto failed;
    c->loop = loop;
    c->fd = fd;
    c->session = new_session(c);
    if (!c->session || uv_poll_init(&loop->uv, &c->poll, fd)) goto failed;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->poll.data = c;
    c->next = loop->conns;
    if (c->next) c->next->prev = c;
    loop->conns = c;
    loop->connections++;
    mark(c);
    return 0;
failed:
    if (c && c->session) nghttp2_session_del(c->session);
    free(c);
    close(fd);
    return -1;
}

int grpc_loop_init(grpc_loop *loop, const grpc_service *services, void *owner)
{
    memset(loop, 0, sizeof *loop);
    loop->services = services;
    loop->owner = owner;
    loop->read_buffer = malloc(READ_SIZE);
    if (!loop->read_buffer || uv_loop_init(&loop->uv)) return -1;
    if (uv_prepare_init(&loop->uv, &loop->prepare) || uv_check_init(&loop->uv, &loop->check)) return -1;
    loop->prepare.data = loop->check.data = loop;
    return uv_prepare_start(&loop->prepare, on_prepare) || uv_check_start(&loop->check, on_check) ? -1 : 0;
}

void grpc_close_all(grpc_loop *loop, int gently)
{
    for (grpc_conn *c = loop->conns, *next; c; c = next) {
        next = c->next;
        if (gently) {
            (void)nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(c->session),
                                        NGHTTP2_NO_ERROR, NULL, 0);
            mark(c);
        } else {
            conn_close(c);
        }
    }
}
