#include "engine.h"

#include "err.h"

static const struct pdr_engine *const engines[] = {[PDR_ENGINE_SGLANG] = &pdr_engine_sglang};

const struct pdr_engine *pdr_engine_get(uint32_t id)
{
    return id < sizeof engines / sizeof *engines ? engines[id] : NULL;
}

int pdr_engine_check(uint32_t id, uint32_t mode, const pdr_prompt *p, pdr_error *err)
{
    const struct pdr_engine *engine = pdr_engine_get(id);
    if (!engine) return pdr_fail(err, PDR_E_INVALID, "there is no engine protocol %u", id);
    return engine->check(p, mode, err);
}
