// simdjson On-Demand over the same bodies: the peer of bench_scan.
#include <simdjson.h>

#include <cstring>
#include <vector>

using namespace simdjson;

extern "C" size_t peer_simdjson_padding(void)
{
    return SIMDJSON_PADDING;
}

static ondemand::parser parser;

// The top-level members: raw text of each value, as one who looks for "model" and "stream" does.
extern "C" int peer_simdjson_members(const char *body, size_t len)
{
    // The caller's buffers have more than SIMDJSON_PADDING bytes behind them.
    auto doc = parser.iterate(body, len, len + SIMDJSON_PADDING);
    int n = 0;
    ondemand::object object;
    if (doc.get_object().get(object)) return -1;
    for (auto field : object) {
        std::string_view key, raw;
        if (field.unescaped_key().get(key)) return -1;
        n += (int)key.size();
        if (key == "model" && !field.value().get_string().get(raw)) n += (int)raw.size();
    }
    return n;
}

extern "C" int peer_simdjson_ids(const char *body, size_t len)
{
    auto doc = parser.iterate(body, len, len + SIMDJSON_PADDING);
    uint64_t sum = 0, id;
    ondemand::array ids;
    if (doc["input_ids"].get_array().get(ids)) return -1;
    for (auto v : ids) {
        if (v.get_uint64().get(id)) return -1;
        sum += id;
    }
    return (int)sum;
}
