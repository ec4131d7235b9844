#include "loads.h"

#include "doc.h"
#include "metrics.h"
#include "number.h"

#include <string.h>

#define COUNT_LIMIT 1000000000000000ull /* as in metrics.c */
#define HALF_TOKENS (1u << 30)
#define HALF_BUSY   (1u << 31)

typedef struct member {
    const char *section, *name; /* section NULL: of the entry itself */
    uint32_t    have;
    uint16_t    offset;
    uint8_t     size, ratio;
} member;

#define MEMBER(section, name, field, have, ratio)                                                                      \
    {section, name, have, (uint16_t)offsetof(pdr_load, field), (uint8_t)sizeof(((pdr_load *)0)->field), ratio}

static const member members[] = {
    MEMBER(NULL, "num_running_reqs", running, PDR_LOAD_RUNNING, 0),
    MEMBER(NULL, "num_waiting_reqs", waiting, PDR_LOAD_WAITING, 0),
    MEMBER(NULL, "num_waiting_uncached_tokens", waiting_tokens, PDR_LOAD_WAITING_TOKENS, 0),
    MEMBER(NULL, "num_used_tokens", kv_used, PDR_LOAD_KV_USED, 0),
    MEMBER(NULL, "max_total_num_tokens", kv_capacity, PDR_LOAD_KV_CAPACITY, 0),
    MEMBER(NULL, "max_running_requests", max_running, PDR_LOAD_MAX_RUNNING, 0),
    MEMBER(NULL, "token_usage", usage_permille, PDR_LOAD_USAGE, 1),
    MEMBER(NULL, "pending_prealloc_token_usage", pending_usage_permille, PDR_LOAD_PENDING_USAGE, 1),
    MEMBER(NULL, "total_prefill_uncached_tokens", prefill_uncached_total, HALF_TOKENS, 0),
    MEMBER(NULL, "total_prefill_busy_us", prefill_busy_us_total, HALF_BUSY, 0),
    MEMBER("disaggregation", "prefill_bootstrap_queue_reqs", prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP, 0),
    MEMBER("disaggregation", "prefill_prealloc_queue_reqs", prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP,
           0), /* older */
    MEMBER("disaggregation", "prefill_inflight_queue_reqs", prefill_inflight, PDR_LOAD_PREFILL_INFLIGHT, 0),
    MEMBER("disaggregation", "decode_prealloc_queue_reqs", decode_prealloc, PDR_LOAD_DECODE_PREALLOC, 0),
    MEMBER("disaggregation", "decode_transfer_queue_reqs", decode_transfer, PDR_LOAD_DECODE_TRANSFER, 0),
    MEMBER("disaggregation", "decode_retracted_queue_reqs", retracted, PDR_LOAD_RETRACTED, 0),
    MEMBER("queues", "retracted", retracted, PDR_LOAD_RETRACTED, 0),
};

/* A number of the document, scaled. 1: *value is set; 0: null or absent; -1: it makes no sense. */
static int read_scaled(const pdr_doc *doc, uint32_t node, int scale, uint64_t limit, uint64_t *value)
{
    const pdr_doc_node *v = &doc->nodes[node];
    const char         *next;
    if (v->type == PDR_DOC_NULL) return 0;
    if (v->type != PDR_DOC_NUMBER) return -1;
    if (pdr_number_read(doc->text + v->begin, doc->text + v->end, scale, value, &next) || *value > limit) return -1;
    return 1;
}

/* The greater value stays: one number may have two names. */
static void put_greatest(pdr_load *load, const member *m, uint64_t value)
{
    char    *at = (char *)load + m->offset;
    uint64_t old = 0;
    uint32_t narrow;
    if (m->size == sizeof narrow) {
        memcpy(&narrow, at, sizeof narrow);
        old = narrow;
        if (value > UINT32_MAX) value = UINT32_MAX;
    } else {
        memcpy(&old, at, sizeof old);
    }
    if ((load->have & m->have) && old > value) value = old;
    load->have |= m->have;
    narrow = (uint32_t)value;
    if (m->size == sizeof narrow)
        memcpy(at, &narrow, sizeof narrow);
    else
        memcpy(at, &value, sizeof value);
}

/* One entry of "loads"; returns how many of its values were of no use. */
static uint32_t read_entry(const pdr_doc *doc, uint32_t entry, pdr_load *load)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const member *m = &members[i];
        uint32_t      from = m->section ? pdr_doc_get(doc, entry, m->section) : entry;
        uint64_t      value;
        int           got;
        got =
            read_scaled(doc, pdr_doc_get(doc, from, m->name), m->ratio ? 3 : 0, m->ratio ? 2000 : COUNT_LIMIT, &value);
        if (got < 0) bad++;
        if (got <= 0) continue;
        if (m->ratio && value > 1000) value = 1000;
        put_greatest(load, m, value);
    }
    if ((load->have & HALF_TOKENS) && (load->have & HALF_BUSY)) load->have |= PDR_LOAD_PREFILL_SPEED;
    load->have &= ~(HALF_TOKENS | HALF_BUSY);
    pdr_load_derive(load);
    return bad;
}

int pdr_loads_parse(const char *text, size_t len, pdr_load *ranks, size_t cap, size_t *n, uint32_t *ignored,
                    pdr_error *err)
{
    pdr_doc  doc;
    uint32_t loads, bad = 0, any = 0;
    int      code;
    *n = 0;
    if (ignored) *ignored = 0;
    if ((code = pdr_doc_parse(&doc, text, len, err))) return code == PDR_E_SYSTEM ? code : PDR_E_PARSE;
    loads = pdr_doc_get(&doc, PDR_DOC_ROOT, "loads");
    if (pdr_doc_type(&doc, loads) != PDR_DOC_ARRAY) {
        code = pdr_fail(err, PDR_E_PARSE, "the answer has no array \"loads\"");
        goto out;
    }
    for (uint32_t entry = pdr_doc_first(&doc, loads); entry; entry = pdr_doc_next(&doc, entry)) {
        uint64_t rank = 0;
        int      got = read_scaled(&doc, pdr_doc_get(&doc, entry, "dp_rank"), 0, COUNT_LIMIT, &rank);
        if (got < 0 || rank >= cap || pdr_doc_type(&doc, entry) != PDR_DOC_OBJECT) {
            bad++;
            continue;
        }
        for (; *n <= rank; ++*n) pdr_init_struct(&ranks[*n], sizeof *ranks);
        bad += read_entry(&doc, entry, &ranks[rank]);
        any |= ranks[rank].have;
    }
    if (!any) {
        *n = 0;
        code = pdr_fail(err, PDR_E_PARSE, "no usable load in the answer (%u values ignored)", bad);
    }
    if (ignored) *ignored = bad;
out:
    pdr_doc_free(&doc);
    return code;
}

typedef struct info_reader {
    const pdr_doc   *doc;
    pdr_server_info *info;
    uint32_t         bad;
} info_reader;

static void info_number(info_reader *r, uint32_t node, uint64_t least, uint64_t most, uint32_t have, uint32_t *field)
{
    uint64_t value;
    int      got = read_scaled(r->doc, node, 0, most, &value);
    if (got < 0 || (got && value < least)) {
        r->bad++;
    } else if (got) {
        *field = (uint32_t)value;
        r->info->have |= have;
    }
}

static int info_text(info_reader *r, const char *name, uint32_t have, char *field, size_t size)
{
    uint32_t    node = pdr_doc_get(r->doc, PDR_DOC_ROOT, name);
    const char *text = pdr_doc_string(r->doc, node);
    if (pdr_doc_type(r->doc, node) == PDR_DOC_NULL) return 0;
    if (!text || !*text || strlen(text) >= size) {
        r->bad++;
        return 0;
    }
    memcpy(field, text, strlen(text) + 1);
    r->info->have |= have;
    return 1;
}

static void info_role(info_reader *r)
{
    char mode[16] = "";
    if (!info_text(r, "disaggregation_mode", PDR_SERVER_ROLE, mode, sizeof mode)) return;
    if (!strcmp(mode, "prefill"))
        r->info->role = PDR_ROLE_PREFILL;
    else if (!strcmp(mode, "decode"))
        r->info->role = PDR_ROLE_DECODE;
    else if (!strcmp(mode, "null"))
        r->info->role = PDR_ROLE_BOTH;
    else {
        r->info->have &= ~(uint32_t)PDR_SERVER_ROLE;
        r->bad++;
    }
}

/* max_running_requests is null unless it was asked for; what the scheduler made of it stands in its state. */
static void info_max_running(info_reader *r)
{
    uint32_t states = pdr_doc_get(r->doc, PDR_DOC_ROOT, "internal_states"), total = 0, dp = r->info->dp_size;
    info_number(r, pdr_doc_get(r->doc, pdr_doc_first(r->doc, states), "effective_max_running_requests_per_dp"), 1,
                UINT32_MAX, PDR_SERVER_MAX_RUNNING, &r->info->max_running);
    if (r->info->have & PDR_SERVER_MAX_RUNNING) return;
    info_number(r, pdr_doc_get(r->doc, PDR_DOC_ROOT, "max_running_requests"), 1, UINT32_MAX, PDR_SERVER_MAX_RUNNING,
                &total);
    if (r->info->have & PDR_SERVER_MAX_RUNNING) r->info->max_running = dp > 1 && total >= dp ? total / dp : total;
}

int pdr_server_info_parse(const char *text, size_t len, pdr_server_info *out, uint32_t *ignored, pdr_error *err)
{
    pdr_doc     doc;
    info_reader r = {&doc, out, 0};
    uint64_t    capacity;
    int         got, code;
    memset(out, 0, sizeof *out);
    if (ignored) *ignored = 0;
    if ((code = pdr_doc_parse(&doc, text, len, err))) return code == PDR_E_SYSTEM ? code : PDR_E_PARSE;
    info_role(&r);
    info_number(&r, pdr_doc_get(&doc, PDR_DOC_ROOT, "dp_size"), 1, 65535, PDR_SERVER_DP_SIZE, &out->dp_size);
    info_number(&r, pdr_doc_get(&doc, PDR_DOC_ROOT, "tp_size"), 1, 65535, PDR_SERVER_TP_SIZE, &out->tp_size);
    info_number(&r, pdr_doc_get(&doc, PDR_DOC_ROOT, "page_size"), 1, 1u << 20, PDR_SERVER_PAGE_SIZE, &out->page_size);
    if (!(out->have & PDR_SERVER_ROLE) || out->role != PDR_ROLE_DECODE)
        info_number(&r, pdr_doc_get(&doc, PDR_DOC_ROOT, "disaggregation_bootstrap_port"), 1, 65535,
                    PDR_SERVER_BOOTSTRAP_PORT, &out->bootstrap_port);
    got = read_scaled(&doc, pdr_doc_get(&doc, PDR_DOC_ROOT, "max_total_num_tokens"), 0, COUNT_LIMIT, &capacity);
    if (got > 0 && capacity) {
        out->kv_capacity = capacity;
        out->have |= PDR_SERVER_KV_CAPACITY;
    } else if (got) {
        r.bad++;
    }
    info_max_running(&r);
    info_text(&r, "load_balance_method", PDR_SERVER_LOAD_BALANCE, out->load_balance, sizeof out->load_balance);
    info_text(&r, "version", PDR_SERVER_VERSION, out->version, sizeof out->version);
    if (!info_text(&r, "served_model_name", PDR_SERVER_MODEL, out->model, sizeof out->model))
        info_text(&r, "model_path", PDR_SERVER_MODEL, out->model, sizeof out->model);
    if (ignored) *ignored = r.bad;
    if (!out->have) code = pdr_fail(err, PDR_E_PARSE, "the answer has nothing that a server's description has");
    pdr_doc_free(&doc);
    return code;
}
