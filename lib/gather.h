/*
 * What pdr_apply_parse() has gathered so far (pool, endpoints, warnings), and readers that check one field of a
 * document each. Shared by the two forms, apply.c and k8s.c. `where` is the name of the document or entry in messages,
 * such as "Pod/prefill-0".
 */
#ifndef PDR_GATHER_H
#define PDR_GATHER_H

#include "apply.h"
#include "doc.h"

#define PDR_WHERE 160 /* bytes of such a name */
#define PDR_GATHER_MOST 65535 /* endpoints in a document: as many as max_endpoints can be */

typedef struct pdr_gather {
    const pdr_doc   *doc;
    pdr_pool         pool;
    pdr_endpoint    *endpoints;
    uint32_t        *places; /* the node that each was read from */
    size_t           n, capacity;
    int              complete;
    pdr_apply_report report;
    pdr_error       *err;
} pdr_gather;

void pdr_gather_warn(pdr_gather *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A new endpoint at the end of the list, valid until the next one; `node` is where it stands. */
int pdr_gather_add(pdr_gather *g, uint32_t node, pdr_endpoint **out);
/* Warns of every member of `object` that is not in the NULL-ended list, with the known name that may be meant. */
void pdr_gather_unknown(pdr_gather *g, uint32_t object, const char *where, const char *path, const char *const *known);
/* The node must be of the type: PDR_OK or an error that names it. */
int pdr_gather_type(pdr_gather *g, uint32_t node, uint32_t type, const char *where, const char *what);
/* A non-empty string without control characters that fits `size`. */
int pdr_gather_text(pdr_gather *g, uint32_t node, const char *where, const char *what, char *out, size_t size);
/* A whole number of that range. */
int pdr_gather_number(pdr_gather *g, uint32_t node, uint64_t least, uint64_t most, const char *where, const char *what,
                      uint64_t *out);
int pdr_gather_port(pdr_gather *g, uint32_t node, const char *where, const char *what, uint32_t *out);
/* An object of strings as "key=value" lines. */
int pdr_gather_labels(pdr_gather *g, uint32_t node, const char *where, const char *what, char *out, size_t size);
/* The same, but leaves out what does not fit or is no string. */
void pdr_gather_some_labels(pdr_gather *g, uint32_t node, char *out, size_t size);

/* Copies text; if it does not fit, its beginning and a hash of the whole, so that different texts stay different. */
void pdr_shorten(const char *text, char *out, size_t size);

#endif
