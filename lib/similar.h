/* Finds the name that a mistyped one was meant to be, for error messages. No allocation. */
#ifndef PDR_SIMILAR_H
#define PDR_SIMILAR_H

#include <stddef.h>

/* The name of a NULL-ended list with the least edit distance (case apart) to `name` if it is near enough to be meant,
 * else NULL. */
const char *pdr_similar(const char *name, const char *const *known);

#endif
