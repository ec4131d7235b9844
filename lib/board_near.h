/*
 * Decode servers by place: of each host, rack and zone, of those without a zone and of all, the least step and how much room there is at least, so that what decoding near a prefill
 * server costs is known without looking at every one (waits_near.h).
 *
 * Made anew with the board when the lists change, O(decodes + groups); a change of one server marks its groups stale, O(1), if their least may be another one now, and a stale one is found again when it is asked for, O(its
 * members). Nothing is kept or marked where no topology is known. Called with the router's lock held; positions are those of the decode list.
 */
#ifndef PDR_BOARD_NEAR_H
#define PDR_BOARD_NEAR_H

#include <stddef.h>
#include <stdint.h>

struct pdr_registry;
struct pdr_target;

typedef struct pdr_near_group {
    uint64_t step;          /* the least */
    int64_t  room;          /* tokens of KV cache left, the least, below INT64_MAX; INT64_MIN: step alone does not say what it costs, for one of the reasons below or as there is nobody */
    uint64_t look, cost;    /* what it cost in that look, where its members had to be asked */
    uint32_t first, n;      /* its members */
    uint32_t stale;         /* PDR_NEAR_STALE_*: what is to be found again */
    uint32_t odd;           /* a limit is passed or a guard is set: its members are to be asked */
    int64_t  roomy;         /* room as it was found, while the step is stale */
    uint64_t reserved;      /* a cache line each */
} pdr_near_group;

enum { PDR_NEAR_STALE_STEP = 1, PDR_NEAR_STALE_ALL = 2 /* room and odd, too */ };

typedef struct pdr_near {
    pdr_near_group *groups; /* hosts, racks, zones (max_endpoints each), those without a zone, all */
    uint32_t       *members; /* positions, ascending in each group; of `all` every one is a member */
    uint32_t        stride;  /* max_endpoints */
} pdr_near;

uint64_t pdr_near_size(uint32_t endpoints, uint32_t targets);
void     pdr_near_open(pdr_near *n, void *at, uint32_t endpoints);
/* Whether any topology is known. */
int      pdr_near_known(const struct pdr_registry *g);
void     pdr_near_fill(const struct pdr_registry *g);
void     pdr_near_stale(const struct pdr_registry *g, const struct pdr_target *t);
/* Of a decode server the step changed, and nothing else: only groups whose least it was are stale. */
void     pdr_near_step(const struct pdr_registry *g, const struct pdr_target *t, uint64_t was, uint64_t is);
/* Finds a stale group's numbers again. */
void     pdr_near_renew(const struct pdr_registry *g, uint32_t group);
/* First thing that does not follow from the targets, as a sentence in why; 0 if all does. */
int      pdr_near_check(const struct pdr_registry *g, char *why, size_t cap);

static inline uint32_t pdr_near_rack(const pdr_near *n, uint32_t rack) { return n->stride + rack; }
static inline uint32_t pdr_near_zone(const pdr_near *n, uint32_t zone) { return 2 * n->stride + zone; }
static inline uint32_t pdr_near_nowhere(const pdr_near *n) { return 3 * n->stride; }
static inline uint32_t pdr_near_all(const pdr_near *n) { return 3 * n->stride + 1; }

#endif
