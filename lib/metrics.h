/*
 * Prometheus text → pdr_load per data-parallel rank.
 *
 * One pass, no allocation. Lines whose first bytes are not those of a known name cost one memchr. Understands SGLang's
 * /metrics (`sglang:` and `sglang_` prefixes, old and new names), SGLang's /v1/loads?format=prometheus, vLLM,
 * trtllm-serve and Triton's TensorRT-LLM backend.
 *
 * Which rank: label `dp_rank` (SGLang) or `engine` (vLLM); 0 without one.
 * Several series of one rank:
 *  - SGLang: the greatest. With --enable-metrics-for-all-scheduler every TP and PP rank reports, and each of them
 *    schedules the same requests: a sum would count each request tp_size times. A series with a non-empty `priority` is
 *    part of the one with priority="" and is left out (sgl-project/sglang
 *    python/sglang/srt/observability/metrics_collector.py, _log_gauge_queue_count).
 *  - others: counts are added (Triton reports per model), ratios: the greatest.
 */
#ifndef PDR_METRICS_H
#define PDR_METRICS_H

#include "err.h"

/*
 * ranks[i] is DP rank i; *n gets the highest rank seen plus one, at most `cap`; ranks between that were not seen have
 * `have` 0. A value of a known name that is NaN, infinite, negative, beyond any sense, in a line that is cut off, or of
 * a rank >= cap is left out and counted in *ignored (may be NULL). Missing KV fill and used tokens are derived from
 * each other where the capacity is known. PDR_E_PARSE if nothing could be read (then *n is 0). [pure]
 */
int pdr_metrics_parse(const char *text, size_t len, pdr_load *ranks, size_t cap, size_t *n, uint32_t *ignored,
                      pdr_error *err);

/* Fills what follows from other fields: used tokens from fill and capacity, and fill from used tokens. Shared with
 * loads.c. */
void pdr_load_derive(pdr_load *load);

#endif
