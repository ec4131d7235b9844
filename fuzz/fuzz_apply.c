/* Any bytes as a document of pool and endpoints, twice over what the first time left behind. */
#include "apply.h"
#include "gather.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_pool pool, before;
    memset(&pool, 0, sizeof pool);
    for (int round = 0; round < 2; round++) {
        pdr_endpoint    *list = NULL;
        pdr_apply_report report;
        pdr_error        err;
        size_t           n = 0;
        int              complete = -1;
        pdr_init_struct(&err, sizeof err);
        before = pool;
        int code = pdr_apply_parse((const char *)data, size, &pool, &list, &n, &complete, &report, &err);
        if (code) {
            CHECK(err.code == code && err.message[0] && !list && !memcmp(&pool, &before, sizeof pool));
            continue;
        }
        CHECK((complete == 1 || complete == 0) && (n == 0) == (list == NULL) && pool.ports <= PDR_POOL_PORTS &&
              pool.bootstrap_port <= 65535);
        for (size_t i = 0; i < n; i++) {
            CHECK(list[i].struct_size == sizeof *list && list[i].port >= 1 && list[i].port <= 65535 &&
                  pdr_text_is_host(list[i].host));
            CHECK(list[i].role >= PDR_ROLE_PREFILL && list[i].role <= PDR_ROLE_BOTH && list[i].bootstrap_port <= 65535);
            CHECK(memchr(list[i].labels, 0, sizeof list[i].labels) && memchr(list[i].name, 0, sizeof list[i].name));
        }
        free(list);
    }
    return 0;
}
