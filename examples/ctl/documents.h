/* Files with YAML or JSON, one after the other, as one JSON text that knows where each place of it came from. */
#ifndef CTL_DOCUMENTS_H
#define CTL_DOCUMENTS_H

#include "pdroute/pdroute.h"
#include "yaml_json.h"

#define DOCUMENTS_MAX_FILE (64u << 20)

struct source {
    const char *path;
    size_t      begin, end;    /* in the JSON */
    uint32_t    first, count;  /* documents: index of the first, number */
    int         is_yaml;
};

struct documents {
    struct text       json; /* "[document,document,…]" */
    uint32_t          count;
    struct yaml_marks marks;
    struct source    *source;
    size_t            sources;
};

/* Reads one more file ("-": standard input). 0, or an exit code after a message with file, document and line. */
int  documents_add(struct documents *d, const char *path);
/* Closes the JSON: an array, or the document itself if there is just one. */
void documents_finish(struct documents *d);
/* Says what pdr_*_json did not like, with the place in the file it came from. An exit code. */
int  documents_fail(const struct documents *d, int code, const pdr_error *err);
void documents_free(struct documents *d);

#endif
