/*
 * JSON as RFC 8259 has it, the slow and exact way: pdr_json_check() reads a document byte by byte and says what is
 * wrong with it, where, and in which line. The request path (json_scan.h) only decides yes or no, at many bytes per
 * cycle; when it says no, this reader finds the reason. Both accept exactly the same documents, which tests and the
 * fuzzer check.
 *
 * Limits: nesting up to PDR_JSON_DEPTH. Cost: linear time, 200 bytes of stack, no allocation.
 */
#ifndef PDR_JSON_H
#define PDR_JSON_H

#include "err.h"

#define PDR_JSON_DEPTH 1024 /* deepest nesting that can be asked for */

/*
 * Checks that body is one JSON object, nested at most max_depth deep (the object itself is depth 1), in valid UTF-8,
 * with nothing but white space around it. PDR_OK, PDR_E_PARSE or PDR_E_TOO_DEEP with offset, line and sentence. [pure]
 */
int pdr_json_check(const char *body, size_t len, uint32_t max_depth, pdr_error *err);

/* 1-based line of a byte offset. [pure] */
uint32_t pdr_json_line(const char *body, size_t len, uint64_t offset);

static inline int pdr_json_space(unsigned c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* Value of a hexadecimal digit, or 255. */
static inline unsigned pdr_json_hex(unsigned c)
{
    unsigned letter = (c | 0x20) - 'a';
    return c - '0' <= 9 ? c - '0' : letter <= 5 ? letter + 10 : 255;
}

/* Four hexadecimal digits as a number; above 0xFFFF if one of them is none. */
static inline unsigned pdr_json_hex4(const uint8_t *p)
{
    unsigned a = pdr_json_hex(p[0]), b = pdr_json_hex(p[1]), c = pdr_json_hex(p[2]), d = pdr_json_hex(p[3]);
    return (a | b | c | d) > 15 ? 0x10000 : a << 12 | b << 8 | c << 4 | d;
}

#endif
