/*
 * A JSON document of the control plane (configuration, Kubernetes objects, /v1/loads, /server_info) as a flat tree that
 * keeps positions.
 *
 * Why not cJSON here: errors must name a line, seeds need all 64 bits (cJSON holds doubles), and these functions may
 * run in several threads at once, while cJSON_Parse writes its global error position. Strict RFC 8259 with valid UTF-8;
 * a byte order mark in front is skipped. At most PDR_DOC_DEPTH levels and 4 GiB. Allocates: two blocks, about 32 bytes
 * per value and one copy of the text for decoded strings. Linear.
 */
#ifndef PDR_DOC_H
#define PDR_DOC_H

#include "err.h"

#define PDR_DOC_DEPTH 128

enum { PDR_DOC_NULL = 0, PDR_DOC_FALSE, PDR_DOC_TRUE, PDR_DOC_NUMBER, PDR_DOC_STRING, PDR_DOC_ARRAY, PDR_DOC_OBJECT };

/* Nodes are numbered in text order from PDR_DOC_ROOT on. Node 0 is "none": a null without members, so that what is not
 * there can be asked on. */
#define PDR_DOC_ROOT 1u

typedef struct pdr_doc_node {
    uint32_t type;
    uint32_t begin, end; /* of the value in the text */
    uint32_t key;        /* decoded name of a member in `strings`, else 0 */
    uint32_t string;     /* decoded value of a string in `strings`, NUL-terminated */
    uint32_t length;     /* of that; items or members of containers */
    uint32_t child, next;
} pdr_doc_node;

typedef struct pdr_doc {
    const char   *text; /* borrowed, as long as the document lives */
    size_t        len;
    pdr_doc_node *nodes;
    char         *strings;
    uint32_t      count, capacity, used;
} pdr_doc;

/* PDR_E_PARSE with offset and line, _TOO_DEEP, _TOO_LARGE, PDR_E_SYSTEM if memory is short. After an error there is
 * nothing to free. */
int  pdr_doc_parse(pdr_doc *doc, const char *text, size_t len, pdr_error *err);
void pdr_doc_free(pdr_doc *doc);

/* A member of an object, the first of that name; 0 if there is none or `object` is no object. pdr_doc_at: a path
 * "spec.selector.x". */
uint32_t                  pdr_doc_get(const pdr_doc *doc, uint32_t object, const char *name);
uint32_t                  pdr_doc_at(const pdr_doc *doc, uint32_t object, const char *path);
static inline uint32_t    pdr_doc_first(const pdr_doc *doc, uint32_t node) { return doc->nodes[node].child; }
static inline uint32_t    pdr_doc_next(const pdr_doc *doc, uint32_t node) { return doc->nodes[node].next; }
static inline uint32_t    pdr_doc_type(const pdr_doc *doc, uint32_t node) { return doc->nodes[node].type; }
static inline const char *pdr_doc_key(const pdr_doc *doc, uint32_t node) { return doc->strings + doc->nodes[node].key; }
/* A string's text; NULL if the node is not a string. Strings with an embedded NUL end there: see pdr_doc_node.length.
 */
const char *pdr_doc_string(const pdr_doc *doc, uint32_t node);
/* "null", "a boolean", "a number", "a string", "an array", "an object". */
const char *pdr_doc_type_name(const pdr_doc *doc, uint32_t node);
uint32_t    pdr_doc_line(const pdr_doc *doc, uint32_t node);
/* A whole number without sign, point or exponent that fits 64 bits: 0, else PDR_E_PARSE. */
int pdr_doc_whole(const pdr_doc *doc, uint32_t node, uint64_t *value);
/* Fails with the node's offset and line. */
int pdr_doc_fail(const pdr_doc *doc, uint32_t node, pdr_error *err, int code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

#endif
