/*
 * Engine protocols: what one kind of inference engine needs to see in the requests of a prefill and a decode leg.
 *
 * One protocol is one file lib/engine_<name>.c with one constant struct pdr_engine; lib/engine.c lists them. The shape
 * says how the exchange sends the legs; the functions say what is acceptable and what text a leg's body gets. All are
 * pure: a protocol sees the decision and the scanned prompt, never the router.
 *
 * The members a client may never set are one set for all protocols (lib/owned.h): the scan runs before a protocol is
 * involved and leaves them out of every body, so that a mixed or switched fleet is as safe as a plain one.
 */
#ifndef PDR_ENGINE_H
#define PDR_ENGINE_H

#include "pdroute/pdroute.h"
#include "text.h"

enum {
    PDR_SHAPE_TOGETHER =
        1, /* both legs at once, with a rendezvous in both bodies (SGLang; vLLM Mooncake, with a minted id) */
    PDR_SHAPE_PREFILL_FIRST = 2, /* prefill, then decode with members of prefill's answer (vLLM NIXL, TensorRT-LLM) */
    PDR_SHAPE_SINGLE = 3         /* no disaggregation */
};

struct pdr_engine {
    const char *name; /* the word in configurations */
    uint32_t shape;   /* PDR_SHAPE_* of a PDR_MODE_PD exchange */
    uint32_t late;    /* 1: prefill answers when the KV cache has gone, not when the prompt is computed. Believed until first tokens tell otherwise */
    /* Whether the engine can serve this prompt in this mode (PDR_MODE_*): PDR_OK or an error for the client. */
    int (*check)(const pdr_prompt *p, uint32_t mode, pdr_error *err);
    /* Writes the members of a PD leg's body: "key":value, at least one, with commas between them. */
    void (*put_members)(const pdr_decision *d, const pdr_prompt *p, int leg, struct pdr_text *t);
};

extern const struct pdr_engine pdr_engine_sglang;

/* The protocol PDR_ENGINE_<id>, NULL if there is none. [pure] */
const struct pdr_engine *pdr_engine_get(uint32_t id);
/* PDR_OK if engine `id` can serve the prompt in this mode; PDR_E_UNSUPPORTED, PDR_E_INVALID (no such engine). [pure] */
int pdr_engine_check(uint32_t id, uint32_t mode, const pdr_prompt *p, pdr_error *err);

#endif
