#include "report.h"
#include "report_page.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cjson/cJSON.h>
#include <zlib.h>

__attribute__((format(printf, 3, 4))) static int fail(char *why, size_t cap, const char *form, ...)
{
    va_list a;
    va_start(a, form);
    vsnprintf(why, cap, form, a);
    va_end(a);
    return -1;
}

/* JSON inside a script element: "</script" and "<!--" must not appear. In JSON a "<" is only ever part of a string. */
static void put_json(FILE *f, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '<') fputs("\\u003c", f);
        else fputc(*p, f);
    }
}

static void put_string(FILE *f, const char *text)
{
    cJSON *s = cJSON_CreateString(text);
    char  *t = s ? cJSON_PrintUnformatted(s) : NULL;
    put_json(f, t ? t : "\"\"");
    cJSON_free(t);
    cJSON_Delete(s);
}

static void put_base64(FILE *f, const unsigned char *p, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0u);
        fputc(digit[v >> 18], f);
        fputc(digit[v >> 12 & 63], f);
        fputc(i + 1 < n ? digit[v >> 6 & 63] : '=', f);
        fputc(i + 2 < n ? digit[v & 63] : '=', f);
    }
}

/* gzip; NULL without memory. */
static unsigned char *pack(const char *text, size_t len, size_t *n)
{
    z_stream       z;
    unsigned char *out = NULL;
    memset(&z, 0, sizeof z);
    if (len > UINT_MAX || deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return NULL;
    *n = deflateBound(&z, len);
    if (*n <= UINT_MAX && (out = malloc(*n))) {
        z.next_in = (unsigned char *)(size_t)text;
        z.avail_in = (unsigned)len;
        z.next_out = out;
        z.avail_out = (unsigned)*n;
        if (deflate(&z, Z_FINISH) == Z_STREAM_END) {
            *n = z.total_out;
        } else {
            free(out);
            out = NULL;
        }
    }
    deflateEnd(&z);
    return out;
}

static void put_part(FILE *f, const unsigned char *p, size_t n) { fwrite(p, 1, n, f); }

static int put_page(FILE *f, const char *const *results, size_t n, const sim_report_log *logs, size_t logs_n)
{
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>libpdroute: simulated routing</title>\n<style>\n", f);
    put_part(f, sim_page_css, sim_page_css_len);
    fputs("</style>\n</head>\n<body>\n<div id=\"tip\" hidden></div>\n<main id=\"page\"><noscript>This page draws itself with a script; its data are in it as JSON.</noscript>"
          "</main>\n<script type=\"application/json\" id=\"data\">{\"results\":[", f);
    for (size_t i = 0; i < n; i++) {
        fputs(i ? ",\n" : "\n", f);
        put_json(f, results[i]);
    }
    fputs("],\n\"decisions\":[", f);
    for (size_t i = 0; i < logs_n; i++) {
        size_t         size = 0;
        unsigned char *packed = pack(logs[i].text, logs[i].len, &size);
        if (!packed) return -1;
        fputs(i ? ",\n{\"name\":" : "\n{\"name\":", f);
        put_string(f, logs[i].name);
        fprintf(f, ",\"result\":%d,\"gz\":\"", logs[i].result);
        put_base64(f, packed, size);
        fputs("\"}", f);
        free(packed);
    }
    fputs("]}</script>\n<script>\n", f);
    put_part(f, sim_page_draw, sim_page_draw_len);
    put_part(f, sim_page_model, sim_page_model_len);
    put_part(f, sim_page_script, sim_page_script_len);
    fputs("</script>\n</body>\n</html>\n", f);
    return 0;
}

int sim_report_write(const char *path, const char *const *results, size_t n, const sim_report_log *logs, size_t logs_n, char *why, size_t cap)
{
    FILE *f = fopen(path, "w");
    int   bad, code;
    if (!f) return fail(why, cap, "%s: %s", path, strerror(errno));
    bad = put_page(f, results, n, logs, logs_n);
    code = ferror(f) ? EIO : 0;
    if (fclose(f) && !code) code = errno;
    if (!bad && !code) return 0;
    unlink(path);
    return fail(why, cap, "%s: %s", path, code ? strerror(code) : "out of memory");
}

/* ---- from files */

/* The whole file with a NUL behind it, unpacked if it is gzip; NULL with a sentence. */
static char *read_file(const char *path, size_t *len, char *why, size_t cap)
{
    gzFile f = gzopen(path, "rb");
    char  *text = NULL;
    size_t n = 0, size = 0;
    int    got = 0;
    if (!f) {
        fail(why, cap, "%s: %s", path, strerror(errno));
        return NULL;
    }
    do {
        if (n + (1u << 16) >= size) {
            char *more = realloc(text, size = size ? size * 2 : 1u << 18);
            if (!more) break;
            text = more;
        }
        got = gzread(f, text + n, 1u << 16);
        n += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    gzclose(f);
    if (!text || got != 0) {
        free(text);
        fail(why, cap, "%s: %s", path, got < 0 ? "cannot be read" : "out of memory");
        return NULL;
    }
    text[n] = 0;
    *len = n;
    return text;
}

struct logs {
    sim_report_log *log;
    size_t          n;
};

static int add_log(struct logs *l, const char *path, const char *name, int result, char *why, size_t cap)
{
    sim_report_log *more = realloc(l->log, (l->n + 1) * sizeof *l->log), *x;
    if (!more) return fail(why, cap, "out of memory");
    l->log = more;
    x = &l->log[l->n];
    x->text = read_file(path, &x->len, why, cap);
    if (!x->text) return -1;
    x->name = strdup(name);
    x->result = result;
    if (!x->name) {
        free((char *)(size_t)x->text);
        return fail(why, cap, "out of memory");
    }
    l->n++;
    return 0;
}

static const char *text_of(const cJSON *run, const char *name)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(run, name));
    return s ? s : "";
}

static double number_of(const cJSON *run, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(run, name);
    return cJSON_IsNumber(x) ? x->valuedouble : HUGE_VAL;
}

/* A page with the decisions of thirty policies is of no use to anybody: of each setting the first seed, of others than the library the best few. */
static int log_wanted(const cJSON *runs, const cJSON *run)
{
    const cJSON *x;
    double       mean = number_of(cJSON_GetObjectItemCaseSensitive(run, "ttft"), "mean");
    int          better = 0;
    cJSON_ArrayForEach(x, runs)
    {
        int same = !strcmp(text_of(x, "policy"), text_of(run, "policy")) && !strcmp(text_of(x, "settings"), text_of(run, "settings"));
        if (same && number_of(x, "seed") < number_of(run, "seed")) return 0;
        if (same || number_of(x, "seed") != number_of(run, "seed") || !strncmp(text_of(x, "policy"), "pdroute", 7)) continue;
        better += number_of(cJSON_GetObjectItemCaseSensitive(x, "ttft"), "mean") < mean;
    }
    return !strncmp(text_of(run, "policy"), "pdroute", 7) || better < SIM_REPORT_OTHERS;
}

/* The logs that a result's runs name: from the result's folder, else from here. */
static int add_named(struct logs *l, const char *path, const char *text, int result, char *why, size_t cap)
{
    cJSON       *doc = cJSON_Parse(text);
    const cJSON *runs = cJSON_GetObjectItemCaseSensitive(doc, "runs"), *run;
    const char  *slash = strrchr(path, '/');
    int          bad = cJSON_IsArray(runs) ? 0 : fail(why, cap, "%s: not a result of the laboratory", path);
    cJSON_ArrayForEach(run, runs)
    {
        const char *file = text_of(run, "decisions"), *settings = text_of(run, "settings");
        char        full[4096], name[256];
        if (bad || !*file || !log_wanted(runs, run)) continue;
        snprintf(full, sizeof full, "%.*s%s", *file == '/' || !slash ? 0 : (int)(slash - path + 1), path, file);
        if (access(full, R_OK) && !access(file, R_OK)) snprintf(full, sizeof full, "%s", file);
        snprintf(name, sizeof name, "%s%s%s, seed %.0f", text_of(run, "policy"), *settings ? " " : "", settings, number_of(run, "seed"));
        bad = add_log(l, full, name, result, why, cap);
    }
    cJSON_Delete(doc);
    return bad;
}

int sim_report_files(const char *path, const char *const *results, size_t n, const char *const *logs, size_t logs_n, char *why, size_t cap)
{
    char      **text = calloc(n + 1, sizeof *text);
    struct logs l = {NULL, 0};
    int         bad = text ? 0 : fail(why, cap, "out of memory");
    for (size_t i = 0, len; !bad && i < n; i++) {
        text[i] = read_file(results[i], &len, why, cap);
        bad = text[i] ? add_named(&l, results[i], text[i], (int)i, why, cap) : -1;
    }
    for (size_t i = 0; !bad && i < logs_n; i++) bad = add_log(&l, logs[i], logs[i], -1, why, cap);
    if (!bad) bad = sim_report_write(path, (const char *const *)text, n, l.log, l.n, why, cap);
    for (size_t i = 0; text && i < n; i++) free(text[i]);
    for (size_t i = 0; i < l.n; i++) {
        free((char *)(size_t)l.log[i].text);
        free((char *)(size_t)l.log[i].name);
    }
    free(l.log);
    free(text);
    return bad;
}
