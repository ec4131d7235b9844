#include "documents.h"

#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>

#include "ctl.h"

static const char *shown(const char *path) { return strcmp(path, "-") ? path : "standard input"; }

static uint32_t lines_before(const char *text, size_t n)
{
    uint32_t lines = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines;
}

static int has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n >= m && !strcmp(path + n - m, suffix);
}

/*
 * JSON is taken as it is (libyaml reads most JSON, but not "\ud83d\ude00"); of an array its items. 1: it was, 0: it is not JSON, -1: a message was
 * printed.
 */
static int add_json(struct documents *d, const char *path, const struct text *file, int must)
{
    const char *end = NULL;
    size_t      skip = file->n >= 3 && !memcmp(file->p, "\xEF\xBB\xBF", 3) ? 3 : 0, length;
    cJSON      *parsed = cJSON_ParseWithLengthOpts(file->p + skip, file->n - skip, &end, 0);
    int         ok = parsed != NULL, array = cJSON_IsArray(parsed), items = array ? cJSON_GetArraySize(parsed) : 1;
    length = end ? (size_t)(end - file->p) : 0;
    if (ok) {
        size_t behind = length + strspn(file->p + length, " \t\r\n");
        if (behind < file->n) {
            ok = 0;
            length = behind;
        }
    }
    cJSON_Delete(parsed);
    if (!ok && must) ctl_fail("%s: line %u: not valid JSON", shown(path), lines_before(file->p, length) + 1);
    if (!ok) return must ? -1 : 0;
    if (d->count && items) text_puts(&d->json, ",");
    d->count += (uint32_t)items;
    d->source[d->sources].begin = d->json.n;
    if (!items) return 1;
    if (array) { /* a space for each bracket: offsets and lines stay */
        size_t open = skip + strspn(file->p + skip, " \t\r\n");
        text_add(&d->json, file->p + skip, open - skip);
        text_puts(&d->json, " ");
        text_add(&d->json, file->p + open + 1, length - open - 2);
    } else {
        text_add(&d->json, file->p + skip, length - skip);
    }
    return 1;
}

static int add_yaml(struct documents *d, const char *path, const struct text *file)
{
    struct yaml_error e;
    uint32_t          n;
    size_t            before = d->json.n;
    if (d->count) text_puts(&d->json, ",");
    d->source[d->sources].begin = d->json.n;
    d->source[d->sources].is_yaml = 1;
    if (yaml_to_json(file->p, file->n, &d->json, &n, &d->marks, &e)) {
        if (e.line) return ctl_fail("%s: document %u, line %u: %s", shown(path), e.document, e.line, e.message);
        return ctl_fail("%s: document %u: %s", shown(path), e.document, e.message);
    }
    if (!n) { /* only comments */
        d->json.n = before;
        d->json.p[before] = 0;
    }
    d->count += n;
    return CTL_OK;
}

int documents_add(struct documents *d, const char *path)
{
    struct text file = {0};
    char        first;
    int         code = ctl_read_file(path, DOCUMENTS_MAX_FILE, &file), took = 0;
    if (code) {
        text_free(&file);
        return code;
    }
    if (!d->json.n) text_puts(&d->json, "[");
    d->source = need(realloc(d->source, (d->sources + 1) * sizeof *d->source));
    d->source[d->sources] = (struct source){.path = path, .first = d->count};
    first = file.p[strspn(file.p, " \t\r\n\xEF\xBB\xBF")];
    if (has_suffix(path, ".json") || first == '{' || first == '[') took = add_json(d, path, &file, has_suffix(path, ".json"));
    if (took < 0) code = CTL_FAILED;
    else if (!took) code = add_yaml(d, path, &file);
    d->source[d->sources].end = d->json.n;
    d->source[d->sources].count = d->count - d->source[d->sources].first;
    if (!code) d->sources++;
    text_free(&file);
    return code;
}

void documents_finish(struct documents *d)
{
    if (!d->json.n) text_puts(&d->json, "[");
    if (d->count != 1) {
        text_puts(&d->json, "]");
        return;
    }
    memmove(d->json.p, d->json.p + 1, d->json.n); /* with the NUL */
    d->json.n--;
    for (size_t i = 0; i < d->marks.n; i++) d->marks.p[i].json--;
    for (size_t i = 0; i < d->sources; i++) {
        if (d->source[i].begin) d->source[i].begin--;
        if (d->source[i].end) d->source[i].end--;
    }
}

int documents_fail(const struct documents *d, int code, const pdr_error *err)
{
    const char          *message = *err->message ? err->message : pdr_strerror(code);
    const struct source *s = NULL;
    for (size_t i = 0; i < d->sources; i++)
        if (d->source[i].count && (d->sources == 1 || (err->line && d->source[i].begin <= err->offset))) s = &d->source[i];
    if (!s) return ctl_fail("%s", message);
    if (!err->line) return ctl_fail("%s: %s", shown(s->path), message);
    if (s->is_yaml) {
        const struct yaml_mark *m = yaml_find_mark(&d->marks, (size_t)err->offset);
        if (m) return ctl_fail("%s: document %u, line %u: %s", shown(s->path), m->document, m->line, message);
    } else if (err->offset <= d->json.n) {
        return ctl_fail("%s: line %u: %s", shown(s->path),
                        1 + lines_before(d->json.p + s->begin, (size_t)err->offset - s->begin), message);
    }
    return ctl_fail("%s: %s", shown(s->path), message);
}

void documents_free(struct documents *d)
{
    text_free(&d->json);
    free(d->marks.p);
    free(d->source);
    memset(d, 0, sizeof *d);
}
