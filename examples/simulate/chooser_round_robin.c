/* Round robin over prefill and over decode workers, each with a counter of its own. The plainest policy, and a pattern for others. */
#include "chooser.h"

#include <stdlib.h>

typedef struct round_robin {
    sim_gateway *gateway;
    uint32_t     prefill, decode;
} round_robin;

static void *create(sim_gateway *g, const char *settings, char *why, size_t cap)
{
    static const char *const keys[] = {NULL};
    if (sim_settings_known(settings, keys, why, cap)) return NULL;
    round_robin *s = calloc(1, sizeof *s);
    if (s) s->gateway = g;
    return s;
}

static void arrive(void *self, const sim_request *q)
{
    round_robin *s = self;
    uint32_t     prefills, decodes;
    sim_workers(s->gateway, &prefills, &decodes);
    uint32_t p = s->prefill++ % prefills, d = prefills + s->decode++ % decodes;
    sim_candidate(s->gateway, q, p, 1, 0, NULL, 0);
    sim_candidate(s->gateway, q, d, 1, 0, NULL, 0);
    sim_send(s->gateway, q, p, d);
}

const sim_chooser sim_round_robin = {
    .name = "round_robin",
    .about = "each side in turn, looking at nothing",
    .create = create,
    .destroy = free,
    .arrive = arrive,
};
