/*
 * fail.c for a module that cannot be preloaded: linked into it, with -Wl,--wrap=NAME for each __wrap_NAME here (within.py). For Envoy, whose own malloc() comes before any
 * preloaded one and whose callbacks are in the program. Only calls of the module's own objects come here. Beside what fail.c can:
 *   calls of Envoy's ABI that can fail do (those without a result cannot; a number of body pieces of 0 is no failure);
 *   PDR_FAIL_STARTED=1: calls of the thread that the module starts count, and no others; without it these do not;
 *   -1 in PDR_FAIL_ARM: nothing fails, and the report gets a line "kept BLOCKS MAPS": allocated and not freed, mapped and not unmapped, by the module.
 */
#define WITHIN
#include "../../examples/envoy_module/abi.h"
#include "fail.c"

int __real_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n);
int __wrap_munmap(void *at, size_t n)
{
    kept(&fault.maps, -1);
    return __real_munmap(at, n);
}

void __real_free(void *p);
void __wrap_free(void *p);
void __wrap_free(void *p)
{
    if (p) kept(&fault.blocks, -1);
    __real_free(p);
}

#define CALL(type, bad, name, parameters, arguments) WRAP(type, bad, envoy_dynamic_module_callback_##name, parameters, arguments)
CALL(size_t, 0, http_get_headers_size, (abi_filter f, int which), (f, which))
CALL(bool, false, http_get_headers, (abi_filter f, int which, abi_header *out), (f, which, out))
CALL(bool, false, http_get_body_chunks, (abi_filter f, int which, abi_text *out), (f, which, out))
CALL(bool, false, http_drain_body, (abi_filter f, int which, size_t n), (f, which, n))
CALL(bool, false, http_get_metadata_string, (abi_filter f, uint32_t source, abi_text space, abi_text key, abi_text *out), (f, source, space, key, out))
CALL(bool, false, http_get_metadata_list_size, (abi_filter f, uint32_t source, abi_text space, abi_text key, size_t *out), (f, source, space, key, out))
CALL(bool, false, http_get_metadata_list_string, (abi_filter f, uint32_t source, abi_text space, abi_text key, size_t index, abi_text *out),
     (f, source, space, key, index, out))
CALL(int, 4, http_filter_start_http_stream, (abi_filter f, uint64_t *id, abi_text cluster, abi_header *headers, size_t n, abi_text body, bool end, uint64_t ms),
     (f, id, cluster, headers, n, body, end, ms)) /* CannotCreateRequest */
CALL(void *, NULL, http_filter_scheduler_new, (abi_filter f), (f))

static struct { void *(*f)(void *); void *arg; } thread; /* there is one only */
static void *run(void *unused)
{
    started = 1;
    return unused ? NULL : thread.f(thread.arg);
}

int __real_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *id, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    if (fails("pthread_create", HERE)) return EAGAIN;
    thread.f = f;
    thread.arg = arg;
    return __real_pthread_create(id, a, run, NULL);
}

WRAP(FILE *, NULL, fopen, (const char *p, const char *mode), (p, mode))
WRAP(size_t, 0, fread, (void *p, size_t s, size_t n, FILE *f), (p, s, n, f))
