/*
 * Who pays for requests, and how urgent they are. A row is a tenant's name and a priority; requests name a row. Rows come from the trace, or from `--tenants`, which
 * deals conversations (agents: sessions) to tenants by their shares, so that what shares a prefix mostly stays together. Which tenant a conversation has depends on
 * the seed, its copy and its number alone: neither on the policy nor on the load.
 */
#ifndef SIM_TENANTS_H
#define SIM_TENANTS_H

#include "chooser.h"

enum { SIM_TENANTS_MOST = 1024 /* that may be asked for; a trace may have more */ };

typedef struct sim_tenant {
    char    *name;     /* "": nobody in particular */
    double   share;    /* of the requests, where they are drawn */
    int32_t  priority;
    uint32_t next;     /* private: in its bucket */
} sim_tenant;

typedef struct sim_tenants {
    uint32_t    n, cap;
    sim_tenant *v;
    uint32_t   *bucket; /* private: first row of those whose hash ends alike */
    double      shares; /* sum; 0: not drawn */
} sim_tenants;

/* The row of that tenant and priority, made if it is new; SIM_NONE without memory. */
uint32_t sim_tenants_row(sim_tenants *t, const char *name, size_t len, int32_t priority);
/* "4": t1 … t4 with equal shares; "heavy=8,light=1": names and their shares, 1 where none is said. 0, or -1 with a sentence. */
int      sim_tenants_ask(sim_tenants *t, const char *text, char *why, size_t cap);
/* "heavy=-1,light=2": priorities of all that these tenants send, whatever the rows say. became[n]: the row that each row is now. 0, or -1 with a sentence. */
int      sim_tenants_prioritise(sim_tenants *t, const char *text, uint32_t *became, char *why, size_t cap);
/* A conversation's row, drawn by the shares. */
uint32_t sim_tenants_draw(const sim_tenants *t, uint64_t seed, uint64_t conversation);
void     sim_tenants_free(sim_tenants *t);

#endif
