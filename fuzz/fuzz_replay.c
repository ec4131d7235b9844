/*
 * Replay of any file: never a crash, an endless loop or a read outside. The input stands for the frames of one piece behind a proper header, so that
 * the check over the piece does not keep the fuzzer out; the same bytes as a whole file as well.
 */
#include "record_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t header[8192];
static size_t  header_n;

static void make_header(void)
{
    pdr_config c;
    pdr_router *r;
    pdr_init_struct(&c, sizeof c);
    c.max_endpoints = c.max_bookings = c.max_held = 16;
    c.index_entries = 64;
    c.max_leases = 1;
    c.record_bytes = 65536;
    size_t n = pdr_router_size(&c);
    void  *mem = aligned_alloc(64, n);
    if (!mem || pdr_router_init(mem, n, &c, 1, &r, NULL) || pdr_record_header(r, header, sizeof header, &header_n)) abort();
    free(mem);
}

static void play(const uint8_t *file, size_t n)
{
    pdr_replay     *r;
    pdr_replay_step s;
    pdr_candidate   c[32];
    uint64_t        hashes[64];
    if (pdr_replay_open(file, n, PDR_REPLAY_PARTIAL, &r, NULL)) return;
    pdr_init_struct(&s, sizeof s);
    for (uint32_t i = 0; i < 1000 && !pdr_replay_next(r, i % 3 ? PDR_NONE : i % 5, &s, NULL); i++) {
        size_t k = 32, h = 64;
        (void)pdr_replay_explain(r, c, &k);
        (void)pdr_replay_hashes(r, hashes, &h);
    }
    pdr_replay_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!header_n) make_header();
    play(data, size);
    size_t   n = header_n + PDR_PIECE_HEAD + size;
    uint8_t *file = malloc(n);
    if (!file) return 0;
    memcpy(file, header, header_n);
    uint8_t *p = file + header_n;
    pdr_piece_head(p, 0, data, size);
    if (size) memcpy(p + PDR_PIECE_HEAD, data, size);
    play(file, n);
    free(file);
    return 0;
}
