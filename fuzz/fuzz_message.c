/* Envoy's protobuf messages (examples/ext_proc): any bytes are read to an end, every view lies inside, and what the writer writes is read back. As a request's
 * target: a path comes out that is written plainly, and no longer. */
#include "../examples/ext_proc/message.c"
#include "../examples/gate/path.c"
#include "../examples/gate/wire.c"

#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static view input;

static void inside(view v)
{
    if (v.len && (v.data < input.data || v.len > input.len || v.data > input.data + input.len - v.len)) abort();
}

static void each(void *context, view text)
{
    size_t *n = context;
    inside(text);
    ++*n;
}

/* A copy, field by field, through the writer. */
static void write_again(view in, bytes *out, int depth)
{
    field f;
    while (wire_next(&in, &f) > 0) {
        inside(f.bytes);
        if (f.number > 1u << 28) continue;
        if (f.type == 0) wire_varint(out, f.number, f.value);
        if (f.type == 2 && depth < 4 && f.number % 2) {
            size_t mark = wire_begin(out, f.number);
            bytes_put_view(out, f.bytes);
            wire_end(out, mark);
        } else if (f.type == 2) {
            wire_bytes(out, f.number, f.bytes.data, f.bytes.len);
        }
    }
}

static void same(view a, view b)
{
    field f, g;
    int   more, again;
    do {
        do more = wire_next(&a, &f);
        while (more > 0 && ((f.type != 0 && f.type != 2) || f.number > 1u << 28));
        again = wire_next(&b, &g);
        if (more <= 0) {
            if (again != 0) abort();
        } else if (again <= 0 || f.number != g.number || f.type != g.type || f.value != g.value || f.bytes.len != g.bytes.len ||
                   (f.bytes.len && memcmp(f.bytes.data, g.bytes.data, f.bytes.len))) {
            abort();
        }
    } while (more > 0);
}

static void path_is_plain(view target)
{
    bytes scratch = {0};
    view  path, sent;
    if (!gate_path(target, &scratch, &path)) {
        if (path.len > target.len) abort();
        for (size_t i = 0; path.len && path.data[0] == '/' && i + 1 < path.len; i++) {
            const char  *p = path.data + i;
            const size_t left = path.len - i;
            if (p[0] == '/' && (p[1] == '/' || (p[1] == '.' && (left == 2 || p[2] == '/' || (p[2] == '.' && (left == 3 || p[3] == '/')))))) abort();
        }
        sent = gate_path_target(target, &scratch, &path);
        if (sent.len > target.len || (path.len && memcmp(sent.data, path.data, sent.data == target.data ? 0 : path.len))) abort();
    }
    bytes_free(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    message m;
    header  h;
    bytes   out = {0};
    size_t  n = 0, headers = 0;
    char   *copy = malloc(size ? size : 1); /* of its own size: a sanitizer sees what is read beyond */
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    input = (view){copy, size};
    if (!message_read(input, &m)) {
        inside(m.headers);
        inside(m.body);
        inside(m.metadata);
        inside(m.attributes);
        for (view at = m.headers; header_next(&at, &h) > 0 && headers <= size; headers++) {
            inside(h.name.len ? h.name : (view){copy, 0});
            inside(h.value.len ? h.value : (view){copy, 0});
        }
        if (headers > size) abort();
        (void)metadata_strings(m.metadata, "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset", each, &n);
        (void)metadata_strings(m.metadata, "a", "b", each, &n);
        if (n > size) abort();
    }
    path_is_plain(input);
    write_again(input, &out, 0);
    if (!out.failed) same(input, (view){out.data, out.len});
    bytes_free(&out);
    free(copy);
    return 0;
}
