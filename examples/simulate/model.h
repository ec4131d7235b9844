/*
 * What engines cost: constants of a model on its hardware, and the times that follow from them. Sources in docs/simulate.md.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "chooser.h"

typedef struct sim_model {
    const char *name;
    double      kv_bytes;     /* per token */
    double      prefill_base, prefill_token, prefill_pair;
    double      step_base, step_request, step_token;
    uint64_t    kv_tokens;    /* HBM room */
} sim_model;

const sim_model *sim_model_named(const char *name); /* "qwen32b", "llama70b"; NULL */

enum { SIM_TIER_HOST = 0, SIM_TIER_RACK = 1, SIM_TIER_ZONE = 2, SIM_TIER_FAR = 3 };

/* T(u, m): u tokens behind m that are there, without the step's fixed part */
static inline double sim_chunk_seconds(const sim_costs *c, double u, double m) { return u * c->prefill_token + u * (m + u / 2) * c->prefill_pair; }
static inline double sim_prompt_seconds(const sim_costs *c, double u, double m) { return c->prefill_base + sim_chunk_seconds(c, u, m); }
static inline double sim_decode_seconds(const sim_costs *c, double requests, double context)
{
    return c->step_base + requests * c->step_request + context * c->step_token;
}

#endif
