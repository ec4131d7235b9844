/*
 * What the choosers of other gateways share: the books of a sim_gateway as rows for peer_formulas.h, the choice of a decode worker, a decode
 * worker that does all of a nearly cached request, and the candidates that the report shows.
 *
 * Kindness to the peers: their load is this router's exact books, not a poll ("view=ledger"; "view=scrape" takes the engine's last report plus nothing,
 * as gateways that only poll do), every one gets the decode choice that was best of those tried: fewest booked prompt tokens, prompts still in
 * prefill included.
 */
#ifndef SIMULATE_PEER_VIEW_H
#define SIMULATE_PEER_VIEW_H

#include "chooser.h"
#include "peer_formulas.h"

/* Prompts sent to a worker and not heard to be done, in order. */
struct peer_line {
    struct peer_sent { uint32_t id; double seconds; } *sent;
    size_t first, end, cap;
    double sum;   /* seconds of all of them */
    sim_ns since; /* the first one counts from here */
};

struct peer_view {
    sim_gateway       *gateway;
    uint32_t           prefills, decodes;
    int                scrape;      /* load from the engines' reports */
    double             local;       /* a decode worker does all if at most this many tokens are uncached there; 0: never */
    double             local_ratio; /* and less than this part of the prompt (Dynamo's second condition); 1: any */
    uint64_t           turn;
    uint64_t           random;
    uint64_t          *turns;       /* of each prefill worker */
    struct peer_line  *lines;       /* of each worker */
    struct peer_worker *rows;       /* prefill workers */
    uint32_t          *matched;     /* all workers */
    double            *cost;
};

/* The router's books: prefill workers, then decode workers. */
static inline const sim_worker *peer_view_books(const struct peer_view *v)
{
    uint32_t prefills, decodes;
    return sim_workers(v->gateway, &prefills, &decodes);
}

/* Settings every peer takes; a list of keys for sim_settings_known() begins with these. */
#define PEER_VIEW_KEYS "view", "local", "local_ratio"

/* 0, or -1 without memory or with a sentence in `why`. */
int  peer_view_open(struct peer_view *v, sim_gateway *g, const char *settings, char *why, size_t cap);
void peer_view_close(struct peer_view *v);
/* Fills rows[] and matched[] for a request. */
struct peer_case peer_view_of(struct peer_view *v, const sim_request *q);
/* Load only: requests and pending of rows[], nothing about a request. */
void peer_view_load(struct peer_view *v);
/* Decode worker with the fewest booked prompt tokens; then requests, then the first. */
uint32_t peer_view_decode(const struct peer_view *v);
/* The decode worker that should do all of it by the "local" settings, SIM_NONE: none. matched[] must be filled. */
uint32_t peer_view_local(const struct peer_view *v, const sim_request *q);
/* Seconds until a worker has computed what is sent there: the first one's less the time since it began, at least 0, and the others'. */
double peer_view_wait(const struct peer_view *v, uint32_t worker);
/* To be called when a prompt is heard to be done. */
void peer_view_done(struct peer_view *v, const sim_request *q, uint32_t worker);
/* Records the candidates and sends: to rows[choice] and the decode worker peer_view_decode() names, or to a decode worker alone. */
void peer_view_send(struct peer_view *v, const sim_request *q, uint32_t choice);
/* Sends to a decode worker alone. */
void peer_view_send_local(struct peer_view *v, const sim_request *q, uint32_t decode);

#endif
