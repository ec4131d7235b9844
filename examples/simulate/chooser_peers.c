/*
 * Other gateways that send at once, as policies of the laboratory. Each is one formula of peer_formulas.h over the router's books and whatever
 * settings that gateway has; the decode worker and decode-only requests are the same for all of them (peer_view.h).
 */
#include "peer_view.h"

#include <stdlib.h>

enum { LIMITS = 3 };

struct peer;
typedef uint32_t peer_formula(const struct peer *self, const struct peer_case *c, double *cost);

struct peer {
    struct peer_view view;
    peer_formula    *formula;
    double           setting[LIMITS];
};

static void destroy(void *self)
{
    struct peer *p = self;
    peer_view_close(&p->view);
    free(p);
}

/* `keys` names up to LIMITS settings of the formula, in order, with `otherwise` as their defaults. */
static void *create(sim_gateway *g, const char *settings, peer_formula *f, const char *const *keys, const double *otherwise, char *why, size_t cap)
{
    const char  *known[LIMITS + 4] = {PEER_VIEW_KEYS};
    size_t       n = 3;
    struct peer *p;
    for (size_t i = 0; keys && keys[i]; i++) known[n++] = keys[i];
    if (sim_settings_known(settings, known, why, cap) || !(p = calloc(1, sizeof *p))) return NULL;
    if (peer_view_open(&p->view, g, settings, why, cap)) {
        free(p);
        return NULL;
    }
    p->formula = f;
    for (size_t i = 0; keys && keys[i]; i++) p->setting[i] = sim_setting(settings, keys[i], otherwise[i]);
    return p;
}

static void arrive(void *self, const sim_request *q)
{
    struct peer     *p = self;
    struct peer_case c = peer_view_of(&p->view, q);
    peer_view_send(&p->view, q, p->formula(p, &c, p->view.cost));
}

static void prefill_done(void *self, const sim_request *q, uint32_t worker) { peer_view_done(&((struct peer *)self)->view, q, worker); }

/* NAME_create() for a formula with these settings. */
#define PEER(NAME, KEYS, DEFAULTS, CALL)                                                             \
    static uint32_t NAME##_formula(const struct peer *self, const struct peer_case *c, double *cost) \
    {                                                                                                \
        const double *k = self->setting;                                                             \
        (void)k;                                                                                     \
        return CALL;                                                                                 \
    }                                                                                                \
    static void *NAME##_create(sim_gateway *g, const char *settings, char *why, size_t cap)          \
    {                                                                                                \
        static const char *const keys[LIMITS + 1] = KEYS;                                            \
        static const double      defaults[LIMITS] = DEFAULTS;                                        \
        return create(g, settings, NAME##_formula, keys, defaults, why, cap);                        \
    }
#define LIST(...) {__VA_ARGS__}

PEER(least_requests, LIST(NULL), LIST(0), peer_least_requests(c, cost))
PEER(least_tokens, LIST(NULL), LIST(0), peer_least_tokens(c, cost))
PEER(power_of_two, LIST(NULL), LIST(0), peer_power_of_two(c, cost))
PEER(random, LIST(NULL), LIST(0), peer_any(c, cost))
PEER(sglang, LIST("threshold", "abs", "rel"), LIST(.3, 64, 1.5), peer_cache_aware(c, k[0], k[1], k[2], cost))
PEER(dynamo, LIST("credit"), LIST(1), peer_dynamo(c, k[0], cost))
PEER(blend, LIST("prefix", "queue", "kv"), LIST(3, 2, 2), peer_blend(c, k[0], k[1], k[2], cost))
PEER(sticky, LIST("tau", "match"), LIST(286700, .8), peer_sticky(c, k[1], k[0], cost))
PEER(lmetric, LIST(NULL), LIST(0), peer_lmetric(c, cost))
PEER(aibrix, LIST("spread"), LIST(8), peer_aibrix(c, k[0], cost))
PEER(seconds, LIST("price"), LIST(0), peer_seconds(c, k[0], cost))

#define CHOOSER(FIELD, NAME, SETTINGS, ABOUT)                                                                  \
    const sim_chooser sim_peer_##FIELD = {.name = NAME, .settings = SETTINGS, .about = ABOUT,                  \
                                          .create = FIELD##_create, .destroy = destroy, .arrive = arrive,       \
                                          .prefill_done = prefill_done}

CHOOSER(least_requests, "least_requests", NULL, "fewest prompts in prefill");
CHOOSER(least_tokens, "least_tokens", NULL, "fewest uncached tokens pending");
CHOOSER(power_of_two, "power_of_two", NULL, "the less loaded of two at random (smg power_of_two)");
CHOOSER(random, "random", NULL, "anybody");
CHOOSER(sglang, "sglang", "threshold=.3,abs=64,rel=1.5", "SGLang / smg cache_aware: longest match unless the fleet is out of balance");
CHOOSER(dynamo, "dynamo", "credit=1", "NVIDIA Dynamo's KV router without its queue: pending + prompt - credit * overlap");
CHOOSER(blend, "llmd-blend", "prefix=3,queue=2,kv=2", "llm-d / GAIE: weighted sum of prefix, queue and KV scores");
CHOOSER(sticky, "llmd-sticky", "tau=286700,match=.8", "llm-d sticky until saturated: the holder unless it is tau tokens behind");
CHOOSER(lmetric, "lmetric", NULL, "LMetric (arXiv 2603.15202): (pending + uncached) * (requests + 1)");
CHOOSER(aibrix, "aibrix", "spread=8", "AIBrix prefix_cache: longest match among those not above mean + 1 deviation");
CHOOSER(seconds, "mooncake", "price=0", "exact seconds to the first token, as Mooncake's conductor without remote fetching");
