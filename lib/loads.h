/*
 * JSON of SGLang's control endpoints: GET /v1/loads → pdr_load per data-parallel rank, GET /server_info → what a
 * server is.
 *
 * Sources: sgl-project/sglang python/sglang/srt/entrypoints/v1_loads.py and http_server.py, and answers of 0.5.23.
 * Unknown members cost their parsing and nothing else. A member that is null or absent leaves its bit in `have` clear;
 * one that is of another type, negative or beyond any sense is left out and counted in *ignored (may be NULL). Allocate
 * while they run.
 */
#ifndef PDR_LOADS_H
#define PDR_LOADS_H

#include "err.h"

/*
 * As pdr_metrics_parse(): ranks[i] is DP rank i, *n the highest rank seen plus one, at most `cap`. The answer must be
 * whole JSON: PDR_E_PARSE and *n 0 if it is not, or if nothing could be read.
 */
int pdr_loads_parse(const char *text, size_t len, pdr_load *ranks, size_t cap, size_t *n, uint32_t *ignored,
                    pdr_error *err);

enum {
    PDR_SERVER_ROLE = 1u << 0,
    PDR_SERVER_DP_SIZE = 1u << 1,
    PDR_SERVER_TP_SIZE = 1u << 2,
    PDR_SERVER_BOOTSTRAP_PORT = 1u << 3,
    PDR_SERVER_KV_CAPACITY = 1u << 4,
    PDR_SERVER_MAX_RUNNING = 1u << 5,
    PDR_SERVER_LOAD_BALANCE = 1u << 6,
    PDR_SERVER_MODEL = 1u << 7,
    PDR_SERVER_VERSION = 1u << 8,
    PDR_SERVER_PAGE_SIZE = 1u << 9
};

typedef struct pdr_server_info {
    uint32_t have; /* PDR_SERVER_* */
    uint32_t role; /* PDR_ROLE_*; a server without disaggregation ("null") does both */
    uint32_t dp_size, tp_size;
    uint32_t bootstrap_port; /* not set for decode servers, which report one but do not listen on it */
    uint32_t max_running;    /* requests at once per DP rank */
    uint32_t page_size;      /* tokens */
    uint32_t reserved;
    uint64_t kv_capacity;      /* tokens per DP rank */
    char     load_balance[32]; /* "follow_bootstrap_room", "round_robin", … */
    char     model[256];       /* served_model_name, or else model_path */
    char     version[32];
} pdr_server_info;

int pdr_server_info_parse(const char *text, size_t len, pdr_server_info *out, uint32_t *ignored, pdr_error *err);

#endif
