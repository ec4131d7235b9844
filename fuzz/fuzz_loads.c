/* Any bytes as an answer of /v1/loads and of /server_info. */
#include "loads.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_load        ranks[4];
    pdr_server_info info;
    size_t          n = 99;
    uint32_t        ignored;
    int             code = pdr_loads_parse((const char *)data, size, ranks, 4, &n, &ignored, NULL);
    CHECK(code == PDR_OK || code == PDR_E_PARSE);
    CHECK(n <= 4 && (code == PDR_OK) == (n > 0));
    for (size_t i = 0; i < n; i++)
        CHECK(ranks[i].have < PDR_LOAD_PREFILL_SPEED << 1 && ranks[i].usage_permille <= 1000 &&
              ranks[i].struct_size == sizeof(pdr_load));
    code = pdr_server_info_parse((const char *)data, size, &info, &ignored, NULL);
    CHECK(code == PDR_OK || code == PDR_E_PARSE);
    CHECK((code == PDR_OK) == (info.have != 0));
    CHECK(memchr(info.model, 0, sizeof info.model) && memchr(info.version, 0, sizeof info.version) &&
          memchr(info.load_balance, 0, sizeof info.load_balance));
    CHECK(!(info.have & PDR_SERVER_DP_SIZE) || (info.dp_size >= 1 && info.dp_size <= 65535));
    return 0;
}
