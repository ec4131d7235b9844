/*
 * YAML as people write it for Kubernetes, to JSON: a stream of any number of documents becomes JSON values, one per document that is not empty.
 *
 * Plain scalars are typed by YAML's core schema (null, true/false, integers, floats; yes, no, on, off stay text), except that 0644 is octal as it
 * is for kubectl. Integers of any length keep their digits. Anchors, aliases and merge keys (<<) are resolved; what they expand to is bounded. Refused with
 * document and line: duplicate keys, keys that are lists or maps, tags of one's own, .inf and .nan (JSON has none), nesting beyond YAML_MAX_DEPTH.
 */
#ifndef CTL_YAML_JSON_H
#define CTL_YAML_JSON_H

#include "text.h"

#define YAML_MAX_DEPTH 100
#define YAML_MAX_BYTES (8u << 20) /* of JSON beyond twice the YAML: bounds what aliases expand to */
#define YAML_MAX_NODES (4u << 20)

struct yaml_error {
    uint32_t document, line; /* 1-based; line 0: not known */
    char     message[200];
};

/* Where in the YAML a place in the JSON comes from. */
struct yaml_mark {
    size_t   json; /* offset in the text where a value begins */
    uint32_t document, line;
};
struct yaml_marks {
    struct yaml_mark *p;
    size_t            n, cap;
};

/*
 * Appends the documents to `out`, separated by commas (`*documents` counts them), and a mark per value to `marks`. 0, or -1 with *err; `out` then holds
 * rubbish behind its old end.
 */
int yaml_to_json(const char *yaml, size_t len, struct text *out, uint32_t *documents, struct yaml_marks *marks,
                 struct yaml_error *err);
/* The last mark at or before a place of the JSON, NULL if there is none. */
const struct yaml_mark *yaml_find_mark(const struct yaml_marks *marks, size_t json);

#endif
