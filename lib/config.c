#include "config.h"

#include "doc.h"
#include "similar.h"

#include <inttypes.h>
#include <string.h>

#define DAY_MS  86400000u
#define WEEK_MS (7u * DAY_MS)

#define FIELD(name, fallback, least, most)                                                                             \
    {#name, (uint32_t)offsetof(pdr_config, name), (uint32_t)sizeof(((pdr_config *)0)->name), fallback, least, most}

/* Times have upper limits so that sums of them in nanoseconds stay far below 2^64. */
static const pdr_config_field fields[] = {
    FIELD(policy, PDR_POLICY_DEFAULT, PDR_POLICY_DEFAULT, PDR_POLICY_POWER_OF_TWO),
    FIELD(engine, PDR_ENGINE_SGLANG, PDR_ENGINE_SGLANG, PDR_ENGINE_SGLANG),
    FIELD(max_endpoints, 1024, 1, 65535),
    FIELD(max_targets, 0, 1, 65535), /* default: max_endpoints */
    FIELD(max_bookings, 16384, 1, 1u << 24),
    FIELD(max_leases, 256, 1, 65535),
    FIELD(max_held, 0, 1, 1u << 24), /* default: 1024 or max_bookings, whichever is less */
    FIELD(index_entries, 1048576, 1, 1u << 30),
    FIELD(block_bytes, 512, 64, 65536),
    FIELD(max_blocks, 4096, 1, 65535),
    FIELD(max_body, 33554432, 1, UINT32_MAX),
    FIELD(max_depth, 128, 1, 1024),
    FIELD(max_batch, 1024, 1, 65535),
    FIELD(seed, 0, 0, UINT64_MAX),
    FIELD(bootstrap_port, 8998, 1, 65535),
    FIELD(log_entries, 256, 1, 1u << 20),
    FIELD(prefill_base_us, 10000, 1, 60000000),
    FIELD(prefill_ns_per_token, 55100, 1, 1000000000),
    FIELD(prefill_fs_per_token2, 1760000, 1, UINT32_MAX),
    FIELD(decode_us_per_request, 50, 1, 60000000),
    FIELD(decode_ps_per_token, 48900, 1, UINT32_MAX),
    FIELD(kv_bytes_per_token, 262144, 1, 1u << 30),
    FIELD(transfer_latency_us, 5000, 1, 60000000),
    FIELD(transfer_mbps_host, 200000, 1, 100000000),
    FIELD(transfer_mbps_rack, 50000, 1, 100000000),
    FIELD(transfer_mbps_zone, 50000, 1, 100000000),
    FIELD(transfer_mbps_far, 12500, 1, 100000000),
    FIELD(milli_tokens_per_byte, 250, 1, 10000),
    FIELD(hold, PDR_HOLD_ON, PDR_HOLD_ON, PDR_HOLD_OFF),
    FIELD(hold_window_tokens, 8192, 1, 1u << 30),
    FIELD(hold_max_wait_ms, 60000, 1, DAY_MS),
    FIELD(hold_ageing_ms, 0, 0, DAY_MS),
    FIELD(lease_ttl_ms, 10000, 100, DAY_MS),
    FIELD(metrics_stale_ms, 5000, 1, DAY_MS),
    FIELD(retry_max, 2, 1, 8), /* as many as pdr_exchange.exclude[] takes; or UINT32_MAX */
    FIELD(breaker_failures, 3, 1, 1000000),
    FIELD(breaker_open_ms, 1000, 1, 30000),
    FIELD(first_byte_timeout_ms, 300000, 1, WEEK_MS),
    FIELD(total_timeout_ms, 86400000, 1, WEEK_MS),
    FIELD(record_bytes, 4194304, 65536, 1u << 30),
    FIELD(first_byte_least_ms, 5000, 1, WEEK_MS),
    FIELD(idle_timeout_ms, 300000, 1, WEEK_MS),
    FIELD(idle_least_ms, 10000, 1, WEEK_MS),
    FIELD(retry_budget_permille, 200, 1, 1000000),  /* or UINT32_MAX */
    FIELD(breaker_error_permille, 500, 1, 1000),    /* or UINT32_MAX */
};
#define FIELDS (sizeof fields / sizeof *fields)

const pdr_config_field *pdr_config_field_at(size_t i) { return i < FIELDS ? &fields[i] : NULL; }

uint64_t pdr_config_get(const pdr_config *config, const pdr_config_field *field)
{
    const char *at = (const char *)config + field->offset;
    uint64_t    wide;
    uint32_t    narrow;
    if (field->size == sizeof wide) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    memcpy(&narrow, at, sizeof narrow);
    return narrow;
}

static void put(pdr_config *config, const pdr_config_field *field, uint64_t value)
{
    char    *at = (char *)config + field->offset;
    uint32_t narrow = (uint32_t)value;
    if (field->size == sizeof value)
        memcpy(at, &value, sizeof value);
    else
        memcpy(at, &narrow, sizeof narrow);
}

/* UINT32_MAX is allowed, too. */
static int unlimited(const pdr_config_field *field)
{
    return field->offset == offsetof(pdr_config, retry_max) || field->offset == offsetof(pdr_config, retry_budget_permille) ||
           field->offset == offsetof(pdr_config, breaker_error_permille);
}

/* Zero is always allowed: it is the default. */
static int allowed(const pdr_config_field *field, uint64_t value)
{
    if (!value || (value >= field->least && value <= field->most)) {
        return field->offset != offsetof(pdr_config, block_bytes) || value % 4 == 0;
    }
    return unlimited(field) && value == UINT32_MAX;
}

static const char *remark(const pdr_config_field *field)
{
    if (field->offset == offsetof(pdr_config, block_bytes)) return ", a multiple of 4";
    if (field->offset == offsetof(pdr_config, retry_max)) return ", or 4294967295 for none";
    if (unlimited(field)) return ", or 4294967295 for no limit";
    return "";
}

/* A header's name (RFC 9110 section 5.1) in lower case, with zeros behind it, so that equal configurations are equal bytes. */
static int resolve_header(char *name, size_t size, pdr_error *err)
{
    const char *end = memchr(name, 0, size);
    size_t      n = end ? (size_t)(end - name) : size;
    if (!end) return pdr_fail(err, PDR_E_INVALID, "tenant_header is longer than %zu characters", size - 1);
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        if (c >= 'A' && c <= 'Z') name[i] = (char)(c | 0x20);
        else if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && !strchr("!#$%&'*+-.^_`|~", c))
            return pdr_fail(err, PDR_E_INVALID, "tenant_header is not the name of a header");
    }
    memset(name + n, 0, size - n);
    return PDR_OK;
}

int pdr_config_resolve(pdr_config *config, pdr_error *err)
{
    pdr_config c;
    int        code = pdr_struct_in(&c, sizeof c, config, err);
    if (code) return code;
    for (size_t i = 0; i < FIELDS; i++) {
        uint64_t value = pdr_config_get(&c, &fields[i]);
        if (!allowed(&fields[i], value))
            return pdr_fail(err, PDR_E_INVALID, "%s is %" PRIu64 ", allowed is %" PRIu64 "..%" PRIu64 "%s",
                            fields[i].name, value, fields[i].least, fields[i].most, remark(&fields[i]));
        if (!value) put(&c, &fields[i], fields[i].fallback);
    }
    if (c.reserved | c.reserved2)
        return pdr_fail(err, PDR_E_INVALID, "reserved is %" PRIu32 ", it must be 0", c.reserved | c.reserved2);
    if (!c.max_targets) c.max_targets = c.max_endpoints;
    if (!c.max_held) c.max_held = c.max_bookings < 1024 ? c.max_bookings : 1024;
    if (c.max_held > c.max_bookings)
        return pdr_fail(err, PDR_E_INVALID, "max_held is %" PRIu32 ", allowed is 1..max_bookings (%" PRIu32 ")",
                        c.max_held, c.max_bookings);
    if ((code = resolve_header(c.tenant_header, sizeof c.tenant_header, err))) return code;
    return pdr_struct_out(config, &c, sizeof c, err);
}

static const struct {
    const char *word;
    uint32_t    offset, value;
} words[] = {
    {"default", offsetof(pdr_config, policy), PDR_POLICY_DEFAULT},
    {"round_robin", offsetof(pdr_config, policy), PDR_POLICY_ROUND_ROBIN},
    {"random", offsetof(pdr_config, policy), PDR_POLICY_RANDOM},
    {"least_tokens", offsetof(pdr_config, policy), PDR_POLICY_LEAST_TOKENS},
    {"power_of_two", offsetof(pdr_config, policy), PDR_POLICY_POWER_OF_TWO},
    {"sglang", offsetof(pdr_config, engine), PDR_ENGINE_SGLANG},
    {"default", offsetof(pdr_config, hold), PDR_HOLD_DEFAULT},
    {"on", offsetof(pdr_config, hold), PDR_HOLD_ON},
    {"off", offsetof(pdr_config, hold), PDR_HOLD_OFF},
};
#define WORDS (sizeof words / sizeof *words)

/* Members that are no numbers, and those that belong to pdr_apply_json(); one document may hold everything. */
static const char *const others[] = {PDR_CONFIG_TENANT, "endpoints", "pool"};
#define OTHERS (sizeof others / sizeof *others)

static const char *member_name(size_t i)
{
    if (i < FIELDS) return fields[i].name;
    return i < FIELDS + OTHERS ? others[i - FIELDS] : NULL;
}

const char *pdr_config_word(const pdr_config_field *field, uint64_t value)
{
    for (size_t i = 0; i < WORDS; i++)
        if (words[i].offset == field->offset && words[i].value == value) return words[i].word;
    return NULL;
}

static int is_word_field(const pdr_config_field *field)
{
    for (size_t i = 0; i < WORDS; i++)
        if (words[i].offset == field->offset) return 1;
    return 0;
}

static int read_word(const pdr_doc *doc, uint32_t node, const pdr_config_field *field, pdr_config *config,
                     pdr_error *err)
{
    const char *text = pdr_doc_string(doc, node);
    char        list[96] = "";
    for (size_t i = 0; i < WORDS; i++) {
        if (words[i].offset != field->offset) continue;
        if (text && !strcmp(text, words[i].word)) {
            put(config, field, words[i].value);
            return PDR_OK;
        }
        if (*list) strcat(list, ", ");
        strcat(list, words[i].word);
    }
    return pdr_doc_fail(doc, node, err, PDR_E_PARSE, "%s is %s%.40s%s, allowed is one of: %s", field->name,
                        text ? "\"" : "", text ? text : pdr_doc_type_name(doc, node), text ? "\"" : "", list);
}

static int read_number(const pdr_doc *doc, uint32_t node, const pdr_config_field *field, pdr_config *config,
                       pdr_error *err)
{
    const pdr_doc_node *n = &doc->nodes[node];
    int                 shown = n->end - n->begin > 40 ? 40 : (int)(n->end - n->begin);
    uint64_t            value;
    if (n->type != PDR_DOC_NUMBER)
        return pdr_doc_fail(doc, node, err, PDR_E_PARSE, "%s is %s, a whole number is expected", field->name,
                            pdr_doc_type_name(doc, node));
    /* Who writes "no retry" means it; elsewhere a zero is the default as in the struct. */
    if (pdr_doc_whole(doc, node, &value) || !allowed(field, value))
        return pdr_doc_fail(doc, node, err, PDR_E_PARSE,
                            "%s is %.*s, allowed is a whole number %" PRIu64 "..%" PRIu64 "%s", field->name, shown,
                            doc->text + n->begin, field->least, field->most, remark(field));
    if (!value && field->offset == offsetof(pdr_config, retry_max)) value = UINT32_MAX;
    put(config, field, value);
    return PDR_OK;
}

static int read_tenant(const pdr_doc *doc, uint32_t node, pdr_config *config, pdr_error *err)
{
    const char *text = pdr_doc_string(doc, node);
    pdr_error   why;
    pdr_init_struct(&why, sizeof why);
    if (!text) return pdr_doc_fail(doc, node, err, PDR_E_PARSE, PDR_CONFIG_TENANT " is %s, the name of a header is expected", pdr_doc_type_name(doc, node));
    size_t n = strlen(text) + 1;
    memcpy(config->tenant_header, text, n < sizeof config->tenant_header ? n : sizeof config->tenant_header); /* without its zero if it is too long */
    if (resolve_header(config->tenant_header, sizeof config->tenant_header, &why)) return pdr_doc_fail(doc, node, err, PDR_E_PARSE, "%s", why.message);
    return PDR_OK;
}

static int read_member(const pdr_doc *doc, uint32_t node, unsigned char *seen, pdr_config *config, pdr_error *err)
{
    const char *names[FIELDS + OTHERS + 1], *key = pdr_doc_key(doc, node), *meant;
    size_t      i = 0;
    while (member_name(i) && strcmp(member_name(i), key)) i++;
    if (!member_name(i)) {
        for (i = 0; i < FIELDS + OTHERS + 1; i++) names[i] = member_name(i);
        meant = pdr_similar(key, names);
        return pdr_doc_fail(doc, node, err, PDR_E_PARSE, "unknown member \"%.64s\"%s%s%s", key,
                            meant ? ", perhaps \"" : "", meant ? meant : "", meant ? "\" is meant" : "");
    }
    if (seen[i]++) return pdr_doc_fail(doc, node, err, PDR_E_PARSE, "member \"%s\" is there twice", key);
    if (i == FIELDS) return read_tenant(doc, node, config, err);
    if (i > FIELDS) return PDR_OK;
    return is_word_field(&fields[i]) ? read_word(doc, node, &fields[i], config, err)
                                     : read_number(doc, node, &fields[i], config, err);
}

/* One object of the document; Kubernetes' have no members of ours. */
static int read_object(const pdr_doc *doc, uint32_t object, unsigned char *seen, pdr_config *config, pdr_error *err)
{
    int code = PDR_OK;
    if (pdr_doc_type(doc, object) != PDR_DOC_OBJECT)
        return pdr_doc_fail(doc, object, err, PDR_E_PARSE, "the configuration is %s, an object is expected", pdr_doc_type_name(doc, object));
    if (pdr_doc_type(doc, pdr_doc_get(doc, object, "kind")) == PDR_DOC_STRING) return PDR_OK;
    memset(seen + FIELDS + 1, 0, OTHERS - 1); /* several objects may list servers */
    for (uint32_t m = pdr_doc_first(doc, object); m && !code; m = pdr_doc_next(doc, m)) code = read_member(doc, m, seen, config, err);
    return code;
}

int pdr_config_from_json(const char *text, size_t len, pdr_config *out, pdr_error *err)
{
    unsigned char seen[FIELDS + OTHERS] = {0};
    uint32_t      object;
    pdr_config    config, resolved;
    pdr_doc       doc;
    int           code;
    if (!text || !pdr_struct_ok(out, sizeof(uint32_t)))
        return pdr_fail(err, PDR_E_INVALID, "text or struct is missing");
    pdr_init_struct(&config, sizeof config);
    if ((code = pdr_doc_parse(&doc, text, len, err))) return code;
    if (pdr_doc_type(&doc, PDR_DOC_ROOT) != PDR_DOC_ARRAY || !(object = pdr_doc_first(&doc, PDR_DOC_ROOT)))
        code = read_object(&doc, PDR_DOC_ROOT, seen, &config, err);
    else
        for (; object && !code; object = pdr_doc_next(&doc, object)) code = read_object(&doc, object, seen, &config, err);
    pdr_doc_free(&doc);
    resolved = config; /* for what concerns two fields at once */
    if (code || (code = pdr_config_resolve(&resolved, err))) return code;
    return pdr_struct_out(out, &config, sizeof config, err);
}
