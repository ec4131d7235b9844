#include "model.h"

#include <string.h>

static const sim_model models[] = {
    /* Qwen3-32B, bf16, TP2 on H100: fitted to silicon within 1 % (TPOT 15.9 … 37.8 ms at 8 … 128 sequences; 15.9 k tok/s in chunks of 8,192) */
    {"qwen32b", 262144, 10e-3, 55.1e-6, 1.76e-9, 14.4e-3, .05e-3, 48.9e-9, 270000},
    /* Llama-2-70B, TP8 on H100: through 53, 137, 845 ms at 512, 2,048, 8,192 tokens, and 30 … 48 ms a step at 1 … 64 sequences of 2 k */
    {"llama70b", 327680, 33.3e-3, 34.5e-6, 15.76e-9, 29.7e-3, .25e-3, 15.3e-9, 600000},
};

const sim_model *sim_model_named(const char *name)
{
    for (size_t i = 0; i < sizeof models / sizeof *models; i++)
        if (!strcmp(models[i].name, name)) return &models[i];
    return NULL;
}
