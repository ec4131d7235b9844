/* What the files of a gate share and proxies need not know. */
#ifndef PDR_GATE_PARTS_H
#define PDR_GATE_PARTS_H

#include "gate.h"

/* Of the jobs that gate_tick() looks over. */
void gate_list(gate_job *job);
void gate_unlist(gate_job *job);

/* Waits for its ticket. */
void gate_hold(gate_job *job);
void gate_unhold(gate_job *job);

/* A pair into job->decision; 0 or PDR_E_*. A lease that ended, or a block that was lost, is replaced. */
int gate_decide(gate_job *job, uint32_t flags, pdr_error *err);
/* Told to the proxy. */
void gate_decided(gate_job *job);
/* Decided for the first time, or in line again: sent, held or answered. */
void gate_route(gate_job *job);
/* The ticket may be taken. */
void gate_take(gate_job *job);
void gate_begin(gate_job *job);

void gate_respond(gate_job *job, unsigned status, const char *code, const char *message, uint64_t retry_after_ms);
void gate_respond_code(gate_job *job, int code, const pdr_error *err, uint64_t retry_after_ms);

/* 0: there is a lease, on a block that is there. */
int gate_renew(gate *g);

#endif
