#include "err.h"

#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

uint32_t pdr_version_number(void) { return PDR_VERSION_NUMBER; }
uint32_t pdr_abi_version(void) { return PDR_ABI_VERSION; }

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)
const char *pdr_version_string(void)
{
    return TEXT(PDR_VERSION_MAJOR) "." TEXT(PDR_VERSION_MINOR) "." TEXT(PDR_VERSION_PATCH);
}

void pdr_init_struct(void *s, size_t size)
{
    uint32_t n = (uint32_t)size;
    if (!s || size < sizeof n) return;
    memset(s, 0, size);
    memcpy(s, &n, sizeof n);
}

static const struct {
    int         code, http;
    const char *text;
} codes[] = {
    {PDR_OK, 200, "ok"},
    {PDR_E_INVALID, 500, "invalid argument"},
    {PDR_E_VERSION, 500, "struct of another version"},
    {PDR_E_NOSPACE, 500, "buffer too small"},
    {PDR_E_PARSE, 400, "cannot be parsed"},
    {PDR_E_TOO_LARGE, 413, "too large"},
    {PDR_E_TOO_DEEP, 400, "nested too deeply"},
    {PDR_E_UNSUPPORTED, 400, "not supported"},
    {PDR_E_NO_PAIR, 503, "no usable prefill/decode pair"},
    {PDR_E_QUEUE_FULL, 429, "all workers are busy and the queue is full"},
    {PDR_E_NOT_FOUND, 500, "not found"},
    {PDR_E_EXISTS, 500, "exists already"},
    {PDR_E_FULL, 503, "table is full"},
    {PDR_E_BUSY, 503, "router is locked by a process that does not go on"},
    {PDR_E_LEASE, 503, "lease is unknown or expired"},
    {PDR_E_AGAIN, 503, "still held"},
    {PDR_E_EXPIRED, 503, "held for too long"},
    {PDR_E_BLOCK_MAGIC, 500, "not a router block"},
    {PDR_E_BLOCK_LAYOUT, 500, "block of another layout"},
    {PDR_E_BLOCK_CONFIG, 500, "block of another configuration"},
    {PDR_E_BLOCK_BOOT, 500, "block from before a reboot"},
    {PDR_E_BLOCK_CORRUPT, 500, "block is corrupt"},
    {PDR_E_SYSTEM, 500, "system call failed"},
};

const char *pdr_strerror(int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].text;
    return "unknown error";
}

int pdr_http_status(int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].http;
    return 500;
}

static void fill(pdr_error *err, int code, uint64_t offset, uint32_t line, const char *format, va_list args)
{
    pdr_error e;
    uint32_t  size;
    if (!err || (size = err->struct_size) < offsetof(pdr_error, message) + 1) return;
    memset(&e, 0, sizeof e);
    e.struct_size = size;
    e.code = code;
    e.offset = offset;
    e.line = line;
    vsnprintf(e.message, sizeof e.message, format, args);
    pdr_text_plain(e.message); /* it quotes what was given, and may have been cut within a character */
    if (size > sizeof e) size = sizeof e;
    memcpy(err, &e, size);
    ((char *)err)[size - 1] = 0;
}

int pdr_fail(pdr_error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, 0, 0, format, args);
    va_end(args);
    return code;
}

int pdr_fail_at(pdr_error *err, int code, uint64_t offset, uint32_t line, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, offset, line, format, args);
    va_end(args);
    return code;
}

int pdr_struct_in(void *dst, size_t known, const void *src, pdr_error *err)
{
    uint32_t size;
    if (!src) return pdr_fail(err, PDR_E_INVALID, "a struct is NULL");
    memcpy(&size, src, sizeof size);
    if (size < sizeof size) return pdr_fail(err, PDR_E_VERSION, "struct_size is not set");
    if (size > known + PDR_STRUCT_GROWTH) return pdr_fail(err, PDR_E_VERSION, "struct_size is %u, that of this struct is %zu", size, known);
    for (size_t i = known; i < size; i++)
        if (((const unsigned char *)src)[i])
            return pdr_fail(err, PDR_E_VERSION, "a field that this library version does not know is set (byte %zu)", i);
    memset(dst, 0, known);
    memcpy(dst, src, size < known ? size : known);
    return PDR_OK;
}

int pdr_struct_out(void *dst, const void *src, size_t known, pdr_error *err)
{
    uint32_t size;
    if (!dst) return pdr_fail(err, PDR_E_INVALID, "a struct is NULL");
    memcpy(&size, dst, sizeof size);
    if (size < sizeof size) return pdr_fail(err, PDR_E_VERSION, "struct_size is not set");
    memcpy((char *)dst + sizeof size, (const char *)src + sizeof size, (size < known ? size : known) - sizeof size);
    return PDR_OK;
}
