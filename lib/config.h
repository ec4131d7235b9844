/*
 * Configuration: the table of pdr_config's fields with their defaults and ranges; everything else about the
 * configuration follows from it. Public entry points: pdr_config_resolve() and pdr_config_from_json() in pdroute.h.
 *
 * One member is text and not in the table: PDR_CONFIG_TENANT. It shapes no decision, so records do not have it.
 *
 * A zero means "default" in the struct. In JSON a zero means the same, but for retry_max, where who writes 0 means no
 * retry.
 */
#ifndef PDR_CONFIG_H
#define PDR_CONFIG_H

#include "err.h"

#define PDR_CONFIG_TENANT "tenant_header"

/* One field. Values are unsigned; `size` is 4 or 8 bytes at `offset`. */
typedef struct pdr_config_field {
    const char *name;
    uint32_t    offset;
    uint32_t    size;
    uint64_t    fallback; /* what zero becomes; 0: zero is a value of its own */
    uint64_t    least, most;
} pdr_config_field;

/* The i-th field in the order of the struct, NULL after the last. */
const pdr_config_field *pdr_config_field_at(size_t i);
uint64_t                pdr_config_get(const pdr_config *config, const pdr_config_field *field);
/* The word that stands for this value of the field in a document; NULL for a field of numbers. */
const char *pdr_config_word(const pdr_config_field *field, uint64_t value);

#endif
