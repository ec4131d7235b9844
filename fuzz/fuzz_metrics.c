/* Any bytes as Prometheus text: sane loads, whole or cut off anywhere. The first byte chooses the caller's capacity. */
#include "metrics.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_load  ranks[8];
    pdr_error err;
    size_t    cap = size ? data[0] % 9u : 8, n = 99;
    uint32_t  ignored = 0;
    pdr_init_struct(&err, sizeof err);
    memset(ranks, 0xA5, sizeof ranks);
    int code = pdr_metrics_parse((const char *)data, size, ranks, cap, &n, &ignored, &err);
    CHECK(code == PDR_OK || code == PDR_E_PARSE);
    CHECK(n <= cap && (code == PDR_OK) == (n > 0) && ignored <= size);
    for (size_t i = 0; i < n; i++) {
        CHECK(ranks[i].struct_size == sizeof(pdr_load));
        CHECK(ranks[i].have < PDR_LOAD_PREFILL_SPEED << 1);
        CHECK(ranks[i].usage_permille <= 1000 && ranks[i].pending_usage_permille <= 1000);
        CHECK(ranks[i].kv_capacity <= 1000000000000000u);
    }
    return 0;
}
