/* Envoy's messages, read in place. Numbers: envoy/service/ext_proc/v3/external_processor.proto, envoy/config/core/v3/base.proto. */
#include <string.h>

#include "extproc.h"

/* HttpHeaders, HttpBody, HttpTrailers */
static int read_part(view in, message *m)
{
    field f;
    int rc;

    while ((rc = wire_next(&in, &f)) > 0) {
        if (f.number == 1 && f.type == 2) {
            if (m->kind == MESSAGE_REQUEST_BODY || m->kind == MESSAGE_RESPONSE_BODY) m->body = f.bytes;
            else m->headers = f.bytes;
        }
        if (f.number == (m->kind == MESSAGE_REQUEST_HEADERS || m->kind == MESSAGE_RESPONSE_HEADERS ? 3u : 2u) && f.type == 0)
            m->end = f.value != 0;
    }
    return rc;
}

/* ProtocolConfiguration. Proto3 does not write zeros: NONE is the mode that is not there. */
static int read_protocol(view in, message *m)
{
    field f;
    int rc;

    m->request_body_mode = m->response_body_mode = BODY_NONE;
    while ((rc = wire_next(&in, &f)) > 0) {
        if (f.number == 1 && f.type == 0) m->request_body_mode = (int)f.value;
        if (f.number == 2 && f.type == 0) m->response_body_mode = (int)f.value;
    }
    return rc;
}

/* map<string, X>: the value of a key. 1: found */
static int map_find(view map_entry, const char *key, view *out)
{
    field f;
    int rc, hit = 0;

    *out = (view){NULL, 0};
    while ((rc = wire_next(&map_entry, &f)) > 0) {
        if (f.number == 1 && f.type == 2) hit = view_is(f.bytes, key);
        if (f.number == 2 && f.type == 2) *out = f.bytes;
    }
    return rc == 0 && hit;
}

static int struct_find(view in, const char *key, view *out)
{
    field f;
    while (wire_next(&in, &f) > 0) {
        if (f.number == 1 && f.type == 2 && map_find(f.bytes, key, out)) return 1;
    }
    return 0;
}

/* The text of a google.protobuf.Value. 1: it is one */
static int value_text(view in, view *out)
{
    field f;
    while (wire_next(&in, &f) > 0) {
        if (f.number != 3 || f.type != 2) continue;
        *out = f.bytes;
        return 1;
    }
    return 0;
}

int metadata_strings(view metadata, const char *space, const char *key, void (*each)(void *context, view text), void *context)
{
    view fields, value, text, list;
    field f, item;
    int found = 0;

    while (wire_next(&metadata, &f) > 0) {
        if (f.number != 1 || f.type != 2 || !map_find(f.bytes, space, &fields)) continue;
        if (!struct_find(fields, key, &value)) continue;
        found = 1;
        if (value_text(value, &text)) each(context, text);
        while (wire_next(&value, &item) > 0) {
            if (item.number != 6 || item.type != 2) continue; /* ListValue */
            for (list = item.bytes; wire_next(&list, &item) > 0;) {
                if (item.number == 1 && item.type == 2 && value_text(item.bytes, &text)) each(context, text);
            }
        }
    }
    return found;
}

/* map<string, Struct>, one for each filter: the code details that Envoy was asked for. */
static void read_attributes(view entry, message *m)
{
    field f;
    view value;

    while (wire_next(&entry, &f) > 0) {
        if (f.number == 2 && f.type == 2 && struct_find(f.bytes, "response.code_details", &value)) (void)value_text(value, &m->attributes);
    }
}

int message_read(view in, message *m)
{
    field f;
    int rc;

    memset(m, 0, sizeof *m);
    m->request_body_mode = m->response_body_mode = -1;
    while ((rc = wire_next(&in, &f)) > 0) {
        if (f.type != 2) continue;
        if (f.number >= MESSAGE_REQUEST_HEADERS && f.number <= MESSAGE_RESPONSE_TRAILERS) {
            m->kind = f.number;
            if (read_part(f.bytes, m)) return -1;
        } else if (f.number == 8) {
            m->metadata = f.bytes;
        } else if (f.number == 9) {
            read_attributes(f.bytes, m);
        } else if (f.number == 11) {
            if (read_protocol(f.bytes, m)) return -1;
        }
    }
    return rc ? -1 : 0;
}

int header_next(view *headers, header *out)
{
    field f, part;
    view in;
    int rc;

    while ((rc = wire_next(headers, &f)) > 0) {
        if (f.number != 1 || f.type != 2) continue;
        out->name = out->value = (view){"", 0};
        for (in = f.bytes; (rc = wire_next(&in, &part)) > 0;) {
            if (part.type != 2) continue;
            if (part.number == 1) out->name = part.bytes;
            if ((part.number == 2 || part.number == 3) && part.bytes.len) out->value = part.bytes; /* value, raw_value */
        }
        return rc ? -1 : 1;
    }
    return rc;
}
