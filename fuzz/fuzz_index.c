/*
 * The prefix index against the naive model: each three bytes are one call. The first byte says whether there is room
 * for all (then both must agree) or not (then the index may only know less); bit 1 lets some of the calls be repairs.
 */
#include "index.h"
#include "index_parts.h"
#define MODEL_NODES   1000
#define MODEL_TARGETS 140
#include "../tests/unit/index_model.h"

#include <stdio.h>

static model m;
static uint64_t hashes[MODEL_NODES];
static uint32_t nodes[MODEL_NODES];

static void require(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz_index: %s\n", what);
    abort();
}

static void compare(const pdr_index *ix, uint32_t n, int exact, int check)
{
    uint16_t depth[MODEL_TARGETS];
    char why[160] = "";
    pdr_index_match(ix, hashes, n, depth);
    for (uint32_t t = 0; t < m.targets; t++) {
        uint32_t want = model_depth(&m, t, nodes, n);
        require(depth[t] <= want, "overcounted");
        require(!exact || depth[t] == want, "undercounted");
        require(!exact || pdr_index_count(ix, t) == m.count[t], "count");
    }
    if (check && pdr_index_check(ix, why, sizeof why)) require(0, why);
}

/* Walks on from `at`: up by a byte's upper half, then down by its lower half along a symbol. */
static uint32_t walk(uint32_t at, uint8_t how, uint32_t symbol)
{
    for (uint32_t up = (how >> 4) * 3u; up && at; up--) at = m.node[at].parent;
    for (uint32_t down = (how & 15) * 2u; down && m.node[at].depth < MODEL_CHAIN; down--) {
        uint32_t next = model_step(&m, at, symbol);
        if (!next) break;
        at = next;
    }
    return at;
}

static void run(pdr_index *ix, const uint8_t *data, size_t size, int exact, int cuts)
{
    uint32_t at = 0;
    for (; size >= 3; data += 3, size -= 3) {
        uint32_t t = data[1] % m.targets, op = data[0] & 7;
        at = walk(at, data[2], data[1] >> 6);
        uint32_t n = model_chain(&m, at, hashes, nodes), from = n * (data[0] >> 3) / 32;
        if (op < 3) {
            pdr_index_store(ix, t, hashes, n);
            for (uint32_t i = 0; i < n; i++) model_set(&m, t, nodes[i], 1);
        } else if (op == 3) {
            pdr_index_extend(ix, t, from, hashes + from, n - from);
            for (uint32_t i = from; i < n; i++) model_set(&m, t, nodes[i], 1);
        } else if (op < 6) {
            pdr_index_remove(ix, t, hashes + from, op == 4 ? n - from : n > from);
            for (uint32_t i = from; i < (op == 4 ? n : from + (n > from)); i++) model_set(&m, t, nodes[i], 0);
        } else if (op == 6 && data[0] > 127) {
            pdr_index_clear(ix, t);
            model_clear(&m, t);
        } else if (op == 6 && !exact) {
            pdr_index_set_capacity(ix, t, data[0]);
        } else if (op == 7 && cuts) {
            ix->dirty = 1;
            pdr_index_repair(ix);
        }
        compare(ix, n, exact && !pdr_index_evictions(ix), size % 4 == 2 || size < 6);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > 3000) return 0;
    int exact = data[0] & 1;
    uint32_t targets = 1 + data[1] % 140;
    uint64_t entries = exact ? 1000 : 64 + data[0];
    if (exact) targets = 1 + data[1] % 12;
    pdr_index *ix = aligned_alloc(64, pdr_index_size(entries, targets));
    if (!ix) return 0;
    pdr_index_init(ix, entries, targets);
    model_init(&m, targets);
    run(ix, data + 2, size - 2, exact, data[0] & 2);
    free(ix);
    return 0;
}
