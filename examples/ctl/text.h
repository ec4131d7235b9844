/* Growable text and aligned tables: what every command prints through. Running out of memory ends the program: it is a command line tool. */
#ifndef CTL_TEXT_H
#define CTL_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct text {
    char  *p; /* NUL-terminated once something was added */
    size_t n, cap;
};

void text_free(struct text *t);
void text_add(struct text *t, const char *bytes, size_t n);
void text_puts(struct text *t, const char *s);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void text_json(struct text *t, const char *bytes, size_t n);

/* A table whose columns are as wide as their widest cell; the alignment is one letter per column, l or r. */
#define TABLE_COLUMNS 16
struct table {
    const char *align;
    char      **cells;
    size_t      columns, n, cap;
};
void table_init(struct table *t, const char *align);
void table_cell(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Lines without trailing spaces; no more than `width` columns of text each (0: any). Frees the cells. */
void table_print(struct table *t, struct text *out, size_t width);

/* "1234567" -> "1,234,567"; "1.23 ms"; "14.2 MiB". Each writes into buf and returns it. */
#define SHORT_TEXT 32
const char *text_count(char buf[static SHORT_TEXT], uint64_t n);
const char *text_us(char buf[static SHORT_TEXT], uint64_t us);
const char *text_bytes(char buf[static SHORT_TEXT], uint64_t n);

/* Columns that UTF-8 text takes: one per code point, two for wide East Asian ones. */
size_t text_width(const char *s);

/* In place: what steers a terminal, begins a line or is not UTF-8 becomes '?'. */
void text_clean(char *s);

void *need(void *p); /* p, or ends the program */

#endif
