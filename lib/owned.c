#include "owned.h"

#include <string.h>

const char *const pdr_owned_names[PDR_OWNED_COUNT] = {
    "bootstrap_host",         "bootstrap_port",     "bootstrap_room", "routed_dp_rank",     "data_parallel_rank",
    "disagg_prefill_dp_rank", "bootstrap_pair_key", "decode_tp_size", "kv_transfer_params",
};

int pdr_owned_name(const char *name, size_t len)
{
    if (len != 14 && len != 18 && len != 22) return 0;
    for (int i = 0; i < PDR_OWNED_COUNT; i++)
        if (strlen(pdr_owned_names[i]) == len && !memcmp(name, pdr_owned_names[i], len)) return 1;
    return 0;
}
