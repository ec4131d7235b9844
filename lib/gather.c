#include "gather.h"

#include "similar.h"
#include "text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void pdr_gather_warn(pdr_gather *g, const char *format, ...)
{
    va_list  args;
    uint32_t i = g->report.warnings++;
    if (i >= sizeof g->report.warning / sizeof *g->report.warning) return;
    va_start(args, format);
    vsnprintf(g->report.warning[i], sizeof g->report.warning[i], format, args);
    pdr_text_plain(g->report.warning[i]);
    va_end(args);
}

int pdr_gather_add(pdr_gather *g, uint32_t node, pdr_endpoint **out)
{
    if (g->n == PDR_GATHER_MOST)
        return pdr_fail(g->err, PDR_E_TOO_LARGE, "the document has more than %d endpoints", PDR_GATHER_MOST);
    if (g->n == g->capacity) {
        size_t        capacity = g->capacity ? g->capacity * 2 : 8;
        pdr_endpoint *grown = realloc(g->endpoints, capacity * sizeof *grown);
        uint32_t     *places = grown ? realloc(g->places, capacity * sizeof *places) : NULL;
        if (grown) g->endpoints = grown;
        if (places) g->places = places;
        if (!grown || !places) return pdr_fail(g->err, PDR_E_SYSTEM, "no memory for %zu endpoints", capacity);
        g->capacity = capacity;
    }
    g->places[g->n] = node;
    *out = &g->endpoints[g->n++];
    pdr_init_struct(*out, sizeof **out);
    return PDR_OK;
}

void pdr_gather_unknown(pdr_gather *g, uint32_t object, const char *where, const char *path, const char *const *known)
{
    for (uint32_t m = pdr_doc_first(g->doc, object); m; m = pdr_doc_next(g->doc, m)) {
        const char *key = pdr_doc_key(g->doc, m), *meant;
        size_t      i = 0;
        while (known[i] && strcmp(known[i], key)) i++;
        if (known[i]) continue;
        meant = pdr_similar(key, known);
        pdr_gather_warn(g, "%.80s: %s%s\"%.48s\" is not known and has no effect%s%s%s", where, path, *path ? "." : "",
                        key, meant ? "; perhaps \"" : "", meant ? meant : "", meant ? "\" is meant" : "");
    }
}

int pdr_gather_type(pdr_gather *g, uint32_t node, uint32_t type, const char *where, const char *what)
{
    static const char *const names[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    if (pdr_doc_type(g->doc, node) == type) return PDR_OK;
    return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s is %s, %s is expected", where, what,
                        pdr_doc_type_name(g->doc, node), names[type]);
}

int pdr_gather_text(pdr_gather *g, uint32_t node, const char *where, const char *what, char *out, size_t size)
{
    const char *text = pdr_doc_string(g->doc, node);
    size_t      len = g->doc->nodes[node].length;
    int         code = pdr_gather_type(g, node, PDR_DOC_STRING, where, what);
    if (code) return code;
    if (!len) return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s is empty", where, what);
    if (len >= size)
        return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s has %zu bytes, at most %zu are possible",
                            where, what, len, size - 1);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7F)
            return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE, "%.100s: %s has a control character", where, what);
    memcpy(out, text, len + 1);
    return PDR_OK;
}

int pdr_gather_number(pdr_gather *g, uint32_t node, uint64_t least, uint64_t most, const char *where, const char *what,
                      uint64_t *out)
{
    const pdr_doc_node *v = &g->doc->nodes[node];
    int                 shown = v->end - v->begin > 24 ? 24 : (int)(v->end - v->begin), code;
    uint64_t            value;
    if ((code = pdr_gather_type(g, node, PDR_DOC_NUMBER, where, what))) return code;
    if (pdr_doc_whole(g->doc, node, &value) || value < least || value > most)
        return pdr_doc_fail(g->doc, node, g->err, PDR_E_PARSE,
                            "%.100s: %s is %.*s, allowed is a whole number %" PRIu64 "..%" PRIu64, where, what, shown,
                            g->doc->text + v->begin, least, most);
    *out = value;
    return PDR_OK;
}

int pdr_gather_port(pdr_gather *g, uint32_t node, const char *where, const char *what, uint32_t *out)
{
    uint64_t value = 0;
    int      code = pdr_gather_number(g, node, 1, 65535, where, what, &value);
    if (!code) *out = (uint32_t)value;
    return code;
}

/* One member as a line at out[*used]. */
static int add_label(pdr_gather *g, uint32_t m, const char *where, const char *what, char *out, size_t size,
                     size_t *used)
{
    const char *key = pdr_doc_key(g->doc, m);
    char        name[400], value[256] = ""; /* a label may be empty */
    int         code, len;
    if (!*key || strpbrk(key, "=\n\r"))
        return pdr_doc_fail(g->doc, m, g->err, PDR_E_PARSE, "%.100s: %.60s has a name that is not possible", where,
                            what);
    snprintf(name, sizeof name, "%s.%.330s", what, key);
    if (pdr_doc_type(g->doc, m) != PDR_DOC_STRING || g->doc->nodes[m].length) {
        code = pdr_gather_text(g, m, where, name, value, sizeof value);
        if (code) return code;
    }
    len = snprintf(out + *used, size - *used, "%s=%s\n", key, value);
    if (len < 0 || (size_t)len >= size - *used) {
        out[*used] = 0;
        return pdr_doc_fail(g->doc, m, g->err, PDR_E_TOO_LARGE, "%.100s: %.60s takes more than %zu bytes", where, what,
                            size - 1);
    }
    *used += (size_t)len;
    return PDR_OK;
}

int pdr_gather_labels(pdr_gather *g, uint32_t node, const char *where, const char *what, char *out, size_t size)
{
    size_t used = 0;
    int    code = pdr_gather_type(g, node, PDR_DOC_OBJECT, where, what);
    *out = 0;
    for (uint32_t m = code ? 0 : pdr_doc_first(g->doc, node); m && !code; m = pdr_doc_next(g->doc, m))
        code = add_label(g, m, where, what, out, size, &used);
    return code;
}

void pdr_gather_some_labels(pdr_gather *g, uint32_t node, char *out, size_t size)
{
    pdr_error *err = g->err;
    size_t     used = 0;
    *out = 0;
    g->err = NULL;
    for (uint32_t m = pdr_doc_first(g->doc, node); m; m = pdr_doc_next(g->doc, m))
        (void)add_label(g, m, "", "", out, size, &used);
    g->err = err;
}

void pdr_shorten(const char *text, char *out, size_t size)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a */
    size_t   len = strlen(text);
    if (len < size) {
        memcpy(out, text, len + 1);
        return;
    }
    for (size_t i = 0; i < len; i++) hash = (hash ^ (unsigned char)text[i]) * 0x100000001B3u;
    snprintf(out, size, "%.*s~%016" PRIx64, (int)(size - 18), text, hash);
}
