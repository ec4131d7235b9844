/*
 * The data plane's subset hint: endpoints that alone may be chosen, as ip:port, in the metadata of the request. It is about where the data plane sends the
 * request, so about decode servers (and undisaggregated ones); about prefill servers if it names any.
 *
 * The router can leave out eight endpoints of a request (pdr_request.exclude); a hint that leaves out more than that is answered with 503.
 */
#ifndef PDR_GATE_SUBSET_H
#define PDR_GATE_SUBSET_H

#include "gate.h"

#define SUBSET_SPACE   "envoy.lb.subset_hint"
#define SUBSET_KEY     "x-gateway-destination-endpoint-subset"
#define SUBSET_NOBODY  "no server that the gateway's subset allows is available"

/* One address of the hint, or several with commas between them. */
void subset_put(bytes *addresses, view text);
/* Bars all others from the job, before gate_start(). 0 fine, -1: too many would have to be left out, or nobody is left. */
int subset_apply(gate_job *job, view addresses);

#endif
