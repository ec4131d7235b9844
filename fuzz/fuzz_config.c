/* Any bytes as a configuration: what is accepted resolves, and resolving it again changes nothing. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) abort();                                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_config config, again, before;
    pdr_error  err;
    pdr_init_struct(&config, sizeof config);
    pdr_init_struct(&err, sizeof err);
    before = config;
    int code = pdr_config_from_json((const char *)data, size, &config, &err);
    if (code) {
        CHECK(err.code == code && err.message[0] && !memcmp(&config, &before, sizeof config));
        return 0;
    }
    CHECK(pdr_config_resolve(&config, &err) == PDR_OK);
    again = config;
    CHECK(pdr_config_resolve(&again, &err) == PDR_OK && !memcmp(&config, &again, sizeof config));
    return 0;
}
