/*
 * Text: writing into a caller's buffer that may be too small. A layer beside err; includes nothing else of lib/.
 * Writes no further than `cap` and counts what a buffer of any size would have got in `len`, so that one pass both
 * fills and measures. No terminating NUL. `buf` may be NULL if `cap` is 0. Cost: one copy; never allocates.
 */
#ifndef PDR_TEXT_H
#define PDR_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct pdr_text {
    char *buf;
    size_t cap;
    size_t len; /* bytes so far, those beyond cap included */
};

static inline void pdr_text_put(struct pdr_text *t, const char *s, size_t n)
{
    if (t->len < t->cap) {
        size_t fits = t->cap - t->len < n ? t->cap - t->len : n;
        memcpy(t->buf + t->len, s, fits);
    }
    t->len += n;
}
#define PDR_TEXT_LITERAL(t, literal) pdr_text_put((t), "" literal, sizeof(literal) - 1)

/* `n` times the byte `c`. */
void pdr_text_fill(struct pdr_text *t, char c, size_t n);
/* In decimal. */
void pdr_text_u64(struct pdr_text *t, uint64_t value);
/* A JSON string with its quotes, from any bytes: control characters and what is not UTF-8 are escaped (\u00XX, \ufffd).
 */
void pdr_text_json(struct pdr_text *t, const char *s, size_t n);
/* The value of a label in Prometheus's text format with its quotes: \\, \" and \n are its only escapes; what is not UTF-8
 * becomes U+FFFD. */
void pdr_text_label(struct pdr_text *t, const char *s, size_t n);
/* In place: one line of UTF-8. Control characters (C0, DEL, C1: U+009B begins a terminal's command, too), line and
 * paragraph separators, and bytes that are not UTF-8 become '?'. */
void pdr_text_plain(char *s);
/* Whether text can stand as a host in a URL, a header and a JSON string: not empty, letters (of ASCII, whatever the locale), digits, ".-_:%"; one
 * colon would be a host with a port, IPv6 has two at least. */
int pdr_text_is_host(const char *s);
/* What the public functions of the form (buf, cap, need) answer: PDR_OK, or PDR_E_NOSPACE if it did not fit and was not
 * just asked. */
int pdr_text_end(const struct pdr_text *t, size_t *need);

#endif
