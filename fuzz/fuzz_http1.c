/*
 * The reader of servers' answers in Envoy's endpoint picker (examples/ext_proc/http1.c): status, headers, bodies by length, in chunks, to the end of the connection,
 * interim answers, trailers. Any bytes, cut anywhere, give what they give in one piece: the headers kept, the body, how it ended, and what behind it is left alone. And an
 * answer that was put together from parts, however they are framed, gives these parts.
 *
 * Byte 0: to HEAD (1), the connection is closed behind the last byte (2), parts (4); bytes 1 and 2: where it is cut.
 */
#include "../examples/gate/wire.c"

#include "../examples/ext_proc/http1.c"

#include <stdio.h>
#include <stdlib.h>

enum { PREFIX = 3, PARTS_MAX = 4096 };

int    LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* All that a caller sees of an answer. */
typedef struct seen {
    int      code; /* of the last read: 0 or -1 */
    unsigned status, minor, head, done, close;
    size_t   used; /* bytes taken */
    bytes    lines, body;
} seen;

static void need(int holds, const char *what)
{
    if (holds) return;
    fprintf(stderr, "%s\n", what);
    abort();
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* cut 0: in one piece. */
static seen read_all(const char *text, size_t n, int bodiless, int closes, uint32_t cut)
{
    http1    r = {0};
    seen     s = {0};
    uint32_t random = cut;
    http1_begin(&r, &s.lines, bodiless);
    for (size_t at = 0; at < n && !s.code && !r.done;) {
        size_t len = cut ? 1 + next_random(&random) % (next_random(&random) % 4 ? 8 : 200) : n;
        if (len > n - at) len = n - at;
        char *copy = malloc(len); /* of its own: what reads behind it is seen */
        need(copy != NULL, "memory");
        memcpy(copy, text + at, len);
        view in = {copy, len}, body;
        int  rc;
        while ((rc = http1_read(&r, &in, &body)) > 0) {
            need(!body.len || (body.data >= copy && body.data + body.len <= copy + len), "a piece of the body lies outside");
            need(!body.len || r.head, "a body before its head");
            bytes_put(&s.body, body.data, body.len);
        }
        need(in.data >= copy && in.data + in.len == copy + len, "what is left is not the rest");
        need(rc < 0 || in.len == 0 || r.done, "it stopped in the middle");
        s.code = rc;
        s.used = at + (len - in.len);
        at += len;
        free(copy);
    }
    if (!s.code && closes && !r.done) s.code = http1_closed(&r) ? 0 : -1;
    s.status = r.status, s.minor = r.minor, s.head = r.head, s.done = r.done, s.close = r.close;
    need(!s.done || (s.head && s.status >= 200 && s.status <= 999), "done without a head");
    need(s.code || !s.done || !r.sized || r.chunked || r.bodiless || s.status == 204 || s.status == 304 || r.left == 0, "done before its length was there");
    need(r.line.len <= HTTP1_HEAD_MAX && s.lines.len <= HTTP1_HEAD_MAX, "more was kept of a head than may be");
    bytes_free(&r.line);
    return s;
}

/* Each line that is kept can be passed on: a name, a colon, no line end inside. */
static void check_lines(const bytes *lines)
{
    for (size_t at = 0; at < lines->len;) {
        const char *line = lines->data + at, *end = memchr(line, '\n', lines->len - at);
        need(end != NULL, "a header without an end");
        size_t n = (size_t)(end - line);
        if (n && line[n - 1] == '\r') n--;
        const char *colon = memchr(line, ':', n);
        need(colon && colon > line, "a header without a name");
        for (const char *p = line; p < colon; p++) need((unsigned char)*p > ' ' && *p != 0x7f, "a name that is none");
        need(!memchr(line, '\r', n) && !memchr(line, '\0', n), "a header with a line end inside");
        at = (size_t)(end - lines->data) + 1;
    }
}

static void same(const seen *a, const seen *b)
{
    need(a->code == b->code, "whether it is an answer depends on where it is cut");
    need(a->body.len == b->body.len && (!a->body.len || !memcmp(a->body.data, b->body.data, a->body.len)), "the body depends on where it is cut");
    need(a->lines.len == b->lines.len && (!a->lines.len || !memcmp(a->lines.data, b->lines.data, a->lines.len)), "the headers depend on where it is cut");
    need(a->code || a->used == b->used, "its end depends on where it is cut");
    need(a->status == b->status && a->head == b->head && a->done == b->done && a->close == b->close && a->minor == b->minor, "its head depends on where it is cut");
}

static void forget(seen *s)
{
    bytes_free(&s->lines);
    bytes_free(&s->body);
}

static void read_both(const char *text, size_t n, unsigned flags, uint32_t cut)
{
    seen one = read_all(text, n, flags & 1, (flags & 2) != 0, 0), many = read_all(text, n, flags & 1, (flags & 2) != 0, cut);
    check_lines(&one.lines);
    same(&one, &many);
    forget(&one);
    forget(&many);
}

/* ---- from parts: `content` is the body, and says by its bytes how it is framed */

static void put(bytes *b, const char *text) { bytes_put(b, text, strlen(text)); }

static void built(const char *content, size_t n, unsigned flags, uint32_t cut)
{
    static const char *const ends[] = {"\r\n", "\n"};
    uint32_t                 random = cut ^ 0x5bd1e995u;
    const char              *end = ends[next_random(&random) % 2];
    bytes                    text = {0}, kept = {0};
    char                     line[64];
    const unsigned           framing = next_random(&random) % 3, status = next_random(&random) % 5 ? 200 : 204;
    const int                empty = (flags & 1) || status == 204;
    for (uint32_t i = next_random(&random) % 3; i; i--) {
        put(&text, next_random(&random) % 2 ? "HTTP/1.1 100 Continue" : "HTTP/1.1 103 Early Hints\r\nLink: </x>");
        put(&text, end);
        put(&text, end);
    }
    snprintf(line, sizeof line, "HTTP/1.%u %u OK%s", next_random(&random) % 2, status, end);
    put(&text, line);
    for (uint32_t i = next_random(&random) % 4; i; i--) {
        snprintf(line, sizeof line, "X-%u:%s %u%s", i, i % 2 ? "" : " \t", next_random(&random), end);
        put(&text, line);
        put(&kept, line);
    }
    line[0] = 0;
    if (framing == 0) snprintf(line, sizeof line, "content-LENGTH: %zu%s", n, end);
    if (framing == 1) snprintf(line, sizeof line, "Transfer-Encoding: Chunked%s", end);
    put(&text, line);
    put(&kept, line);
    put(&text, end);
    if (!empty && framing != 1) bytes_put(&text, content, n);
    for (size_t at = 0; !empty && framing == 1 && at <= n;) {
        size_t len = at == n ? 0 : 1 + next_random(&random) % (n - at);
        snprintf(line, sizeof line, next_random(&random) % 2 ? "%zx%s" : "%08zX%s", len, next_random(&random) % 3 ? "" : " ;x=\"y\"");
        put(&text, line);
        put(&text, end);
        bytes_put(&text, content + at, len);
        if (!len) {
            for (uint32_t i = next_random(&random) % 3; i; i--) put(&text, "Trailer: t\r\n");
            put(&text, end);
            break;
        }
        put(&text, end);
        at += len;
    }
    const size_t   whole = text.len;
    const int      to_close = !empty && framing == 2;
    if (!to_close) put(&text, "HTTP/1.1 500 the next one\r\n");
    need(!text.failed && !kept.failed, "memory");
    seen s = read_all(text.data, text.len, flags & 1, to_close, cut);
    need(s.code == 0 && s.done && s.status == status, "a good answer was not taken");
    need(s.used == whole, "it ended elsewhere");
    need(s.body.len == (empty ? 0 : n) && (!s.body.len || !memcmp(s.body.data, content, n)), "another body");
    need(s.lines.len == kept.len && (!kept.len || !memcmp(s.lines.data, kept.data, kept.len)), "other headers");
    need(!to_close || s.close, "it ends with its connection, which is to be used again");
    forget(&s);
    bytes_free(&text);
    bytes_free(&kept);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PREFIX) return 0;
    const uint32_t cut = 1u + data[1] + 256u * data[2];
    const char    *text = (const char *)data + PREFIX;
    if (data[0] & 4) {
        if (size - PREFIX <= PARTS_MAX) built(text, size - PREFIX, data[0], cut);
    } else {
        read_both(text, size - PREFIX, data[0], cut);
    }
    return 0;
}

#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
/* Knows lines and what may stand in them; half of the time it leaves the work to libFuzzer. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    static const char *const parts[] = {
        "HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\n", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 204 \r\n", "HTTP/1.1 304 x\r\n", "HTTP/1.1 101 x\r\n", "HTTP/1.1 599\n",
        "Content-Length: 5\r\n", "Content-Length: 0\r\n", "Content-Length: 000000000000000005\r\n", "Content-Length: 9999999999999999999\r\n", "Content-Length: +5\r\n", "Content-Length: 5, 5\r\n",
        "Transfer-Encoding: chunked\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding:\tCHUNKED \n", "Connection: close\r\n", "Connection: x,keep-alive\r\n", "Connection: ,,close ,\r\n",
        "\r\n", "\n", "\r\n\r\n", "5\r\nhello\r\n", "0\r\n\r\n", "0\r\nA: b\r\n\r\n", "ffffffffffffffff\r\n", "fffffffffffffff\r\n", "5 ;a=b\r\nhello\r\n", "000005\nhello\n", "-1\r\n", "0x5\r\n",
        "X: y\r\n", ": y\r\n", "X : y\r\n", " folded\r\n", "X: a\rb\r\n", "X\r\n", "\r", "hello"};
    uint32_t random = seed | 1;
    if (size < PREFIX || next_random(&random) % 2) return LLVMFuzzerMutate(data, size, max_size);
    for (uint32_t n = 1 + next_random(&random) % 3; n; n--) {
        const char *part = parts[next_random(&random) % (sizeof parts / sizeof *parts)];
        size_t      at = PREFIX + next_random(&random) % (uint32_t)(size - PREFIX + 1), len = strlen(part), out = 0;
        while (at > PREFIX && data[at - 1] != '\n' && next_random(&random) % 8) at--; /* mostly where a line begins */
        if (next_random(&random) % 3 == 0)
            while (at + out < size && data[at + out] != '\n') out++; /* in place of the line */
        if (at + out < size && out) out++;
        if (size - out + len > max_size) continue;
        memmove(data + at + len, data + at + out, size - at - out);
        memcpy(data + at, part, len);
        size = size - out + len;
    }
    if (next_random(&random) % 4 == 0) data[next_random(&random) % PREFIX] = (uint8_t)next_random(&random);
    return size;
}
#endif
