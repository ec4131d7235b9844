#include "metrics.h"

#include "number.h"

#include <string.h>

/* Bits of pdr_load.have that exist only while parsing: each half of PDR_LOAD_PREFILL_SPEED. */
#define HALF_TOKENS (1u << 30)
#define HALF_BUSY   (1u << 31)

#define COUNT_LIMIT 1000000000000000ull /* 10^15 requests or tokens: more is nonsense */

enum kind {
    COUNT,      /* requests or tokens, into a field of 4 or 8 bytes */
    RATIO,      /* 0 … 1, into permille */
    PAGE_INFO,  /* capacity in labels page_size and num_pages (SGLang before 0.5.11) */
    BLOCK_INFO, /* capacity in labels kv_cache_size_tokens, or block_size and num_gpu_blocks (vLLM) */
    BLOCK_SIZE, /* tokens per block, of rank 0 */
    BLOCKS_MAX, /* blocks, of rank 0 */
    TRITON_REQUESTS,
    TRITON_BLOCKS
};

typedef struct metric {
    char     name[40]; /* in place: the search touches its first four bytes only */
    uint8_t  len, kind, size;
    uint16_t offset;
    uint32_t have;
} metric;

#define AT(field) (uint8_t)sizeof(((pdr_load *)0)->field), (uint16_t)offsetof(pdr_load, field)
#define METRIC(name, kind, f, h) {name, (uint8_t)(sizeof(name) - 1), kind, AT(f), h}

static const metric sglang_names[] = {
    METRIC("num_running_reqs", COUNT, running, PDR_LOAD_RUNNING),
    METRIC("num_queue_reqs", COUNT, waiting, PDR_LOAD_WAITING),
    METRIC("num_waiting_reqs", COUNT, waiting, PDR_LOAD_WAITING),
    METRIC("num_used_tokens", COUNT, kv_used, PDR_LOAD_KV_USED),
    METRIC("num_prefill_bootstrap_queue_reqs", COUNT, prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP),
    METRIC("num_prefill_prealloc_queue_reqs", COUNT, prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP),
    METRIC("num_prefill_inflight_queue_reqs", COUNT, prefill_inflight, PDR_LOAD_PREFILL_INFLIGHT),
    METRIC("num_decode_prealloc_queue_reqs", COUNT, decode_prealloc, PDR_LOAD_DECODE_PREALLOC),
    METRIC("num_decode_transfer_queue_reqs", COUNT, decode_transfer, PDR_LOAD_DECODE_TRANSFER),
    METRIC("num_retracted_reqs", COUNT, retracted, PDR_LOAD_RETRACTED),
    METRIC("num_waiting_uncached_tokens", COUNT, waiting_tokens, PDR_LOAD_WAITING_TOKENS),
    METRIC("kv_used_tokens", COUNT, kv_used, PDR_LOAD_KV_USED),
    METRIC("max_total_num_tokens", COUNT, kv_capacity, PDR_LOAD_KV_CAPACITY),
    METRIC("max_running_requests", COUNT, max_running, PDR_LOAD_MAX_RUNNING),
    METRIC("token_usage", RATIO, usage_permille, PDR_LOAD_USAGE),
    METRIC("pending_prealloc_token_usage", RATIO, pending_usage_permille, PDR_LOAD_PENDING_USAGE),
    METRIC("total_prefill_uncached_tokens", COUNT, prefill_uncached_total, HALF_TOKENS),
    METRIC("total_prefill_busy_us", COUNT, prefill_busy_us_total, HALF_BUSY),
    METRIC("disagg_prefill_bootstrap_queue_reqs", COUNT, prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP),
    METRIC("disagg_prefill_prealloc_queue_reqs", COUNT, prefill_bootstrap, PDR_LOAD_PREFILL_BOOTSTRAP),
    METRIC("disagg_prefill_inflight_queue_reqs", COUNT, prefill_inflight, PDR_LOAD_PREFILL_INFLIGHT),
    METRIC("disagg_decode_prealloc_queue_reqs", COUNT, decode_prealloc, PDR_LOAD_DECODE_PREALLOC),
    METRIC("disagg_decode_transfer_queue_reqs", COUNT, decode_transfer, PDR_LOAD_DECODE_TRANSFER),
    METRIC("disagg_decode_retracted_queue_reqs", COUNT, retracted, PDR_LOAD_RETRACTED),
    METRIC("queues_waiting", COUNT, waiting, PDR_LOAD_WAITING),
    METRIC("queues_retracted", COUNT, retracted, PDR_LOAD_RETRACTED),
    METRIC("cache_config_info", PAGE_INFO, kv_capacity, PDR_LOAD_KV_CAPACITY),
    {"", 0, 0, 0, 0, 0},
};
static const metric vllm_names[] = {
    METRIC("num_requests_running", COUNT, running, PDR_LOAD_RUNNING),
    METRIC("num_requests_waiting", COUNT, waiting, PDR_LOAD_WAITING),
    METRIC("kv_cache_usage_perc", RATIO, usage_permille, PDR_LOAD_USAGE),
    METRIC("gpu_cache_usage_perc", RATIO, usage_permille, PDR_LOAD_USAGE), /* engine V0 */
    METRIC("cache_config_info", BLOCK_INFO, kv_capacity, PDR_LOAD_KV_CAPACITY),
    {"", 0, 0, 0, 0, 0},
};
static const metric trtllm_names[] = {
    METRIC("num_requests_running", COUNT, running, PDR_LOAD_RUNNING),
    METRIC("num_requests_waiting", COUNT, waiting, PDR_LOAD_WAITING),
    METRIC("kv_cache_utilization", RATIO, usage_permille, PDR_LOAD_USAGE),
    METRIC("kv_cache_tokens_per_block", BLOCK_SIZE, kv_capacity, 0),
    METRIC("kv_cache_max_blocks", BLOCKS_MAX, kv_capacity, 0),
    {"", 0, 0, 0, 0, 0},
};
static const metric triton_names[] = {
    METRIC("request_metrics", TRITON_REQUESTS, running, 0),
    METRIC("kv_cache_block_metrics", TRITON_BLOCKS, kv_capacity, 0),
    {"", 0, 0, 0, 0, 0},
};

typedef struct reader {
    pdr_load *ranks;
    size_t    cap, n;
    uint32_t  ignored;
    int       add;                                 /* counts of one rank add up in the present family */
    uint64_t  block_size, blocks_max, blocks_used; /* rank 0's, where they come in lines of their own; 0: not seen */
} reader;

/* A label value as it stands in the text, escapes and all: the values that matter contain none. */
typedef struct word {
    const char *p;
    size_t      len;
} word;

typedef struct labels {
    word rank, priority, type, page_size, num_pages, block_size, num_blocks, size_tokens;
} labels;

static int same(word w, const char *text, size_t len) { return w.len == len && !memcmp(w.p, text, len); }
#define IS(w, text) same(w, text, sizeof(text) - 1)

static void keep_label(labels *l, word name, word value)
{
    if (IS(name, "dp_rank") || IS(name, "engine"))
        l->rank = value;
    else if (IS(name, "priority"))
        l->priority = value;
    else if (IS(name, "request_type") || IS(name, "kv_cache_block_type"))
        l->type = value;
    else if (IS(name, "page_size"))
        l->page_size = value;
    else if (IS(name, "num_pages"))
        l->num_pages = value;
    else if (IS(name, "block_size"))
        l->block_size = value;
    else if (IS(name, "num_gpu_blocks"))
        l->num_blocks = value;
    else if (IS(name, "kv_cache_size_tokens"))
        l->size_tokens = value;
}

static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t')) p++;
    return p;
}

/* Reads {name="value",…}; returns what follows it, or NULL if the line is broken. */
static const char *read_labels(const char *p, const char *end, labels *l)
{
    if (p == end || *p != '{') return p;
    for (p = skip_blanks(p + 1, end); p < end && *p != '}'; p = skip_blanks(p, end)) {
        word name = {p, 0}, value;
        while (p < end && *p != '=' && *p != ' ' && *p != '"' && *p != ',') p++;
        name.len = (size_t)(p - name.p);
        p = skip_blanks(p, end);
        if (p == end || *p != '=') return NULL;
        p = skip_blanks(p + 1, end);
        if (p == end || *p != '"') return NULL;
        for (value.p = ++p; p < end && *p != '"'; p++)
            if (*p == '\\' && ++p == end) return NULL;
        if (p == end) return NULL;
        value.len = (size_t)(p - value.p);
        keep_label(l, name, value);
        p = skip_blanks(p + 1, end);
        if (p < end && *p == ',')
            p++;
        else if (p == end || *p != '}')
            return NULL;
    }
    return p < end ? p + 1 : NULL;
}

/* A label that must be a whole number; 0 if it is none. */
static uint64_t whole(word w)
{
    uint64_t    value;
    const char *next;
    if (pdr_number_read(w.p, w.p + w.len, 0, &value, &next) || next != w.p + w.len || value > COUNT_LIMIT) return 0;
    return value;
}

static uint64_t product(uint64_t a, uint64_t b)
{
    return b && a > COUNT_LIMIT / b ? 0 : a * b; /* too large: as if it had not been said */
}

/* The rank a line belongs to, NULL if it is none of ours. */
static pdr_load *find_rank(reader *r, word label)
{
    uint64_t rank = 0;
    for (size_t i = 0; i < label.len; i++) {
        if (label.p[i] < '0' || label.p[i] > '9') return NULL;
        rank = rank * 10 + (uint64_t)(label.p[i] - '0');
        if (rank >= r->cap) return NULL;
    }
    if (rank >= r->cap) return NULL;
    for (; r->n <= rank; r->n++) pdr_init_struct(&r->ranks[r->n], sizeof *r->ranks);
    return &r->ranks[rank];
}

static void store(reader *r, pdr_load *load, const metric *m, uint64_t value)
{
    char    *at = (char *)load + m->offset;
    uint64_t old = 0;
    uint32_t narrow;
    if (load->have & m->have) {
        if (m->size == sizeof old)
            memcpy(&old, at, sizeof old);
        else {
            memcpy(&narrow, at, sizeof narrow);
            old = narrow;
        }
    }
    if (r->add && m->kind == COUNT)
        value += old;
    else if (value < old)
        value = old;
    if (m->size == sizeof value)
        memcpy(at, &value, sizeof value);
    else {
        narrow = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
        memcpy(at, &narrow, sizeof narrow);
    }
    load->have |= m->have;
}

/* Reads the value behind the labels into *value, scaled; 0 if it cannot be used. Time stamp and exemplar behind it do
 * not matter. */
static int read_value(const char *p, const char *end, int scale, uint64_t limit, uint64_t *value)
{
    const char *next;
    p = skip_blanks(p, end);
    if (pdr_number_read(p, end, scale, value, &next) || *value > limit) return 0;
    return next == end || *next == ' ' || *next == '\t';
}

static const metric as_running = METRIC("", COUNT, running, PDR_LOAD_RUNNING);
static const metric as_waiting = METRIC("", COUNT, waiting, PDR_LOAD_WAITING);
static const metric as_max_running = METRIC("", COUNT, max_running, PDR_LOAD_MAX_RUNNING);
static const metric as_usage = METRIC("", RATIO, usage_permille, PDR_LOAD_USAGE);

/* Triton has one name for several gauges, told apart by a label. Returns the gauge, or a kind in *block for rank 0's
 * scratch. */
static const metric *triton_gauge(const metric *m, word type, uint64_t **block, reader *r)
{
    if (m->kind == TRITON_REQUESTS) {
        if (IS(type, "scheduled")) return &as_running;
        if (IS(type, "waiting")) return &as_waiting;
        if (IS(type, "max")) return &as_max_running;
        return NULL;
    }
    if (IS(type, "fraction")) return &as_usage;
    if (IS(type, "tokens_per"))
        *block = &r->block_size;
    else if (IS(type, "max"))
        *block = &r->blocks_max;
    else if (IS(type, "used"))
        *block = &r->blocks_used;
    return NULL;
}

/* One line of a known name. Returns 0 if it had to be ignored. */
static int take(reader *r, const metric *m, const char *p, const char *end)
{
    labels    l;
    uint64_t  value, *block = NULL;
    pdr_load *load;
    int       ratio;
    memset(&l, 0, sizeof l);
    p = read_labels(skip_blanks(p, end), end, &l);
    if (!p) return 0;
    if (l.priority.len) return 1;
    if (m->kind == TRITON_REQUESTS || m->kind == TRITON_BLOCKS) {
        m = triton_gauge(m, l.type, &block, r);
        if (!m && !block) return 1;
    } else if (m->kind == BLOCK_SIZE)
        block = &r->block_size;
    else if (m->kind == BLOCKS_MAX)
        block = &r->blocks_max;
    ratio = !block && m->kind == RATIO;
    /* A fill of up to 2 is overcommitment or rounding, more is another unit. */
    if (!read_value(p, end, ratio ? 3 : 0, ratio ? 2000 : COUNT_LIMIT, &value)) return 0;
    if (block) {
        if (value > *block) *block = value;
        return 1;
    }
    if (m->kind == PAGE_INFO) value = product(whole(l.page_size), whole(l.num_pages));
    if (m->kind == BLOCK_INFO && !(value = whole(l.size_tokens)))
        value = product(whole(l.block_size), whole(l.num_blocks));
    if ((m->kind == PAGE_INFO || m->kind == BLOCK_INFO) && !value) return 0;
    if (ratio && value > 1000) value = 1000;
    load = find_rank(r, l.rank);
    if (!load) return 0;
    store(r, load, m, value);
    return 1;
}

/* The names of one engine. `heads`: the first four letters of each, once, so that nearly every other line is settled by
 * comparing those. */
typedef struct family {
    const char   *heads;
    const metric *names;
    int           add;
} family;
static const family sglang = {"num_kv_umax_tokependtotadisaqueucach", sglang_names, 0},
                    vllm = {"num_kv_cgpu_cach", vllm_names, 1}, trtllm = {"num_kv_c", trtllm_names, 1},
                    triton = {"requkv_c", triton_names, 1};

/* The family that a line's first bytes name; *p moves behind the prefix. */
static const family *find_family(const char **p, const char *end)
{
    size_t len = (size_t)(end - *p);
    switch (**p) {
    case 's':
        if (len < 7 || memcmp(*p, "sglang", 6) || ((*p)[6] != ':' && (*p)[6] != '_')) return NULL;
        *p += 7;
        return &sglang;
    case 'v':
        if (len < 5 || memcmp(*p, "vllm", 4) || ((*p)[4] != ':' && (*p)[4] != '_')) return NULL;
        *p += 5;
        return &vllm;
    case 't':
        if (len < 7 || memcmp(*p, "trtllm", 6) || ((*p)[6] != ':' && (*p)[6] != '_')) return NULL;
        *p += 7;
        return &trtllm;
    case 'n':
        if (len < 11 || memcmp(*p, "nv_trt_llm_", 11)) return NULL;
        *p += 11;
        return &triton;
    default:
        return NULL;
    }
}

/* The metric that the line names exactly; *p moves behind the name. */
static const metric *find_metric(const family *f, const char **p, const char *end)
{
    size_t      len = (size_t)(end - *p);
    const char *head = f->heads;
    if (len < 5) return NULL;
    while (memcmp(*p, head, 4))
        if (!*(head += 4)) return NULL;
    for (const metric *m = f->names; m->len; m++) {
        char c;
        if (memcmp(*p, m->name, 4) || len <= m->len || memcmp(*p + 4, m->name + 4, (size_t)m->len - 4u)) continue;
        c = (*p)[m->len];
        if (c != '{' && c != ' ' && c != '\t') continue;
        *p += m->len;
        return m;
    }
    return NULL;
}

void pdr_load_derive(pdr_load *load)
{
    const uint32_t have = load->have;
    if (!(have & PDR_LOAD_KV_CAPACITY) || !load->kv_capacity) return;
    if (!(have & PDR_LOAD_KV_USED) && (have & PDR_LOAD_USAGE)) {
        load->kv_used =
            load->kv_capacity / 1000 * load->usage_permille + load->kv_capacity % 1000 * load->usage_permille / 1000;
        load->have |= PDR_LOAD_KV_USED;
    } else if ((have & PDR_LOAD_KV_USED) && !(have & PDR_LOAD_USAGE)) {
        load->usage_permille =
            load->kv_used >= load->kv_capacity ? 1000 : (uint32_t)(load->kv_used * 1000 / load->kv_capacity);
        load->have |= PDR_LOAD_USAGE;
    }
}

/* What could not be settled line by line. Returns 1 if any rank has anything. */
static int finish(reader *r)
{
    uint32_t  any = 0;
    uint64_t  capacity = product(r->block_size, r->blocks_max);
    pdr_load *first = capacity ? find_rank(r, (word){NULL, 0}) : NULL;
    if (first && !(first->have & PDR_LOAD_KV_CAPACITY)) {
        first->kv_capacity = capacity;
        first->have |= PDR_LOAD_KV_CAPACITY;
        if (r->blocks_used && !(first->have & (PDR_LOAD_KV_USED | PDR_LOAD_USAGE))) {
            first->kv_used = product(r->block_size, r->blocks_used);
            first->have |= PDR_LOAD_KV_USED;
        }
    }
    for (size_t i = 0; i < r->n; i++) {
        pdr_load *load = &r->ranks[i];
        if ((load->have & HALF_TOKENS) && (load->have & HALF_BUSY)) load->have |= PDR_LOAD_PREFILL_SPEED;
        load->have &= ~(HALF_TOKENS | HALF_BUSY);
        pdr_load_derive(load);
        any |= load->have;
    }
    return any != 0;
}

int pdr_metrics_parse(const char *text, size_t len, pdr_load *ranks, size_t cap, size_t *n, uint32_t *ignored,
                      pdr_error *err)
{
    reader      r = {.ranks = ranks, .cap = cap};
    const char *p = text, *end = text + len;
    int         any;
    while (p < end) {
        const char   *stop = memchr(p, '\n', (size_t)(end - p));
        const char   *line_end = stop ? stop : end;
        const metric *m;
        const family *f;
        if (*p == ' ' || *p == '\t') p = skip_blanks(p, line_end);
        if (p < line_end && (f = find_family(&p, line_end)) && (m = find_metric(f, &p, line_end))) {
            r.add = f->add;
            if (line_end[-1] == '\r') line_end--;
            /* A line without its end may lack digits as well: 12 of 123. */
            if (!stop || !take(&r, m, p, line_end)) r.ignored++;
        }
        if (!stop) break;
        p = stop + 1;
    }
    any = finish(&r);
    if (ignored) *ignored = r.ignored;
    *n = any ? r.n : 0;
    if (any) return PDR_OK;
    return pdr_fail(err, PDR_E_PARSE, "no usable metric of a known engine in %zu bytes (%u ignored)", len, r.ignored);
}
