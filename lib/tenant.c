/* Who pays for a request: the value of a header, as a hash. */
#include "hash.h"

#include "pdroute/pdroute.h"

#include <string.h>

static int is_space(char c) { return c == ' ' || c == '\t'; }

/* The configured name is in lower case: pdr_config_resolve() sees to that. */
static int is_name(const char *want, const char *name, size_t len)
{
    if (!name || strlen(want) != len) return 0;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c | 0x20);
        if (c != want[i]) return 0;
    }
    return 1;
}

uint64_t pdr_tenant_hash(const pdr_config *config, const char *name, size_t name_len, const char *value, size_t value_len)
{
    uint64_t hash;
    if (!config || !config->tenant_header[0] || !value || !is_name(config->tenant_header, name, name_len)) return 0;
    while (value_len && is_space(*value)) value++, value_len--;
    while (value_len && is_space(value[value_len - 1])) value_len--;
    if (!value_len) return 0;
    hash = XXH3_64bits(value, value_len);
    return hash ? hash : 1; /* 0 is nobody */
}
