/*
 * The parsing half of pdr_apply_json(): a document → what it says about the pool, and a list of endpoints. No router,
 * no lock.
 *
 * Two forms, alone or mixed in a JSON array or a Kubernetes List:
 *  - own: {"endpoints":[E, …],"pool":P}, beside which members of pdr_config may stand;
 *    E = {"name", "role":"prefill|decode|both", "url" or "host","port","tls", "bootstrap_host", "bootstrap_port" (null:
 *    send null), "dp_size", "kv_capacity", "max_running", "topology":{"host","rack","zone"}, "labels":{}},
 *    P = {"name","namespace","selector":{},"role_label","port" or "ports","bootstrap_port","runtime"};
 *  - Kubernetes objects as `kubectl get -o json` gives them: see k8s.h.
 * Order of documents does not matter: pool and policies are read first, then pods. Allocates while it runs, and the
 * list. Linear but for sorting.
 */
#ifndef PDR_APPLY_H
#define PDR_APPLY_H

#include "err.h"

#define PDR_POOL_PORTS 8 /* as many as an InferencePool may have */
enum { PDR_POOL_ANY = 0 /* not said */, PDR_POOL_PD = 1, PDR_POOL_SINGLE = 2 };

/* What is known about the pool: plain data, kept in the block between documents. Empty and 0: not said yet. */
typedef struct pdr_pool {
    char     name[256];
    char     space[64];            /* namespace */
    char     selector[1024];       /* "key=value" lines: labels a pod must have */
    char     role_label[320];      /* label that names a pod's role; empty: RoleBasedGroup's */
    char     runtime[32];          /* model server: sglang */
    char     prefix_mode[32];      /* "estimate", "tracking" */
    uint32_t profile;              /* PDR_POOL_PD, PDR_POOL_SINGLE */
    uint32_t ports;                /* in port[] */
    uint32_t port[PDR_POOL_PORTS]; /* of each pod's HTTP APIs */
    uint32_t bootstrap_port;       /* of prefill servers that name none */
    uint32_t reserved;
} pdr_pool;

/*
 * A flag in pdr_endpoint.flags that only pdr_apply_parse() sets: the pod exists, but is being deleted or is not ready.
 * If the router knows such an endpoint it is to be drained (a pod that is ready again comes without the flag); it is
 * never to be added. A pod whose readiness flaps keeps its prefix entries that way.
 */
#define PDR_ENDPOINT_OUT (1u << 31)

/*
 * Parses. *pool is what is known already, and is updated. *endpoints gets *n endpoints (free() it; NULL if none),
 * unique by name and by address. *complete is 1 if the document says which endpoints there are (has "endpoints" or
 * pods, or an empty list of pods), so that others may be pruned; 0 if it is about the pool only. `report` (may be NULL)
 * is initialised; skipped and warnings are filled in. On error nothing is changed and nothing is to be freed; the
 * message names the document.
 */
int pdr_apply_parse(const char *text, size_t len, pdr_pool *pool, pdr_endpoint **endpoints, size_t *n, int *complete,
                    pdr_apply_report *report, pdr_error *err);

#endif
