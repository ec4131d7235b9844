#include "sys.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(pdr_error *err, int code, const char *format, va_list args)
{
    pdr_error e;
    uint32_t  size;
    if (!err || (size = err->struct_size) <= offsetof(pdr_error, message)) return;
    memset(&e, 0, sizeof e);
    e.struct_size = size;
    e.code = code;
    vsnprintf(e.message, sizeof e.message, format, args);
    if (size > sizeof e) size = sizeof e;
    memcpy(err, &e, size);
    ((char *)err)[size - 1] = 0;
}

int pdr_host_fail(pdr_error *err, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fill(err, code, format, args);
    va_end(args);
    return code;
}

int pdr_host_fail_errno(pdr_error *err, const char *what, const char *path)
{
    int kept = errno;
    pdr_host_fail(err, PDR_E_SYSTEM, "%s %s: %s", what, path, strerror(kept));
    errno = kept;
    return PDR_E_SYSTEM;
}

#define STRUCT_GROWTH 4096 /* as pdroute.h says: beyond it nothing behind the struct is read */

int pdr_host_struct_in(void *dst, size_t known, const void *src, pdr_error *err)
{
    uint32_t size;
    memset(dst, 0, known);
    if (!src) return PDR_OK;
    memcpy(&size, src, sizeof size);
    if (size < sizeof size) return pdr_host_fail(err, PDR_E_VERSION, "struct_size is not set");
    if (size > known + STRUCT_GROWTH) return pdr_host_fail(err, PDR_E_VERSION, "struct_size is %u, that of this struct is %zu", size, known);
    for (size_t i = known; i < size; i++)
        if (((const unsigned char *)src)[i])
            return pdr_host_fail(err, PDR_E_VERSION, "a field that this library version does not know is set");
    memcpy(dst, src, size < known ? size : known);
    return PDR_OK;
}

int pdr_host_struct_out(void *dst, const void *src, size_t known)
{
    uint32_t size;
    if (!dst) return PDR_E_INVALID;
    memcpy(&size, dst, sizeof size);
    if (size < sizeof size) return PDR_E_VERSION;
    memcpy((char *)dst + sizeof size, (const char *)src + sizeof size, (size < known ? size : known) - sizeof size);
    return PDR_OK;
}
