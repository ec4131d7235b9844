/* A naive model of the prefix index: every block that each target holds, in a trie of chains. For test_index and
 * fuzz_index. */
#ifndef INDEX_MODEL_H
#define INDEX_MODEL_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef MODEL_NODES
#define MODEL_NODES   4096
#define MODEL_TARGETS 300
#endif
#define MODEL_CHAIN 200

typedef struct model_node {
    uint64_t hash;
    uint32_t parent, child, sibling, depth, symbol;
} model_node;

typedef struct model {
    uint32_t nodes, targets;
    uint64_t count[MODEL_TARGETS];
    model_node node[MODEL_NODES]; /* node 0 is the empty chain */
    uint8_t has[MODEL_TARGETS][MODEL_NODES];
} model;

static inline uint64_t model_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline void model_init(model *m, uint32_t targets)
{
    memset(m, 0, sizeof *m);
    m->nodes = 1;
    m->targets = targets;
}

/* The continuation of a chain by a symbol; 0 when the trie is full. */
static inline uint32_t model_step(model *m, uint32_t at, uint32_t symbol)
{
    for (uint32_t c = m->node[at].child; c; c = m->node[c].sibling)
        if (m->node[c].symbol == symbol) return c;
    if (m->nodes == MODEL_NODES) return 0;
    uint32_t c = m->nodes++;
    m->node[c] = (model_node){model_mix(m->node[at].hash ^ (uint64_t)(symbol + 1) << 40),
                              at,
                              0,
                              m->node[at].child,
                              m->node[at].depth + 1,
                              symbol};
    m->node[at].child = c;
    return c;
}

/* Hashes from the root to a node; nodes[] gets the nodes themselves. */
static inline uint32_t model_chain(const model *m, uint32_t at, uint64_t *hashes, uint32_t *nodes)
{
    uint32_t n = m->node[at].depth;
    for (uint32_t i = n; i-- > 0; at = m->node[at].parent) hashes[i] = m->node[at].hash, nodes[i] = at;
    return n;
}

static inline void model_set(model *m, uint32_t t, uint32_t node, uint8_t has)
{
    m->count[t] += (uint64_t)has - m->has[t][node];
    m->has[t][node] = has;
}

static inline void model_clear(model *m, uint32_t t)
{
    memset(m->has[t], 0, sizeof m->has[t]);
    m->count[t] = 0;
}

static inline uint32_t model_depth(const model *m, uint32_t t, const uint32_t *nodes, uint32_t n)
{
    uint32_t d = 0;
    while (d < n && m->has[t][nodes[d]]) d++;
    return d;
}

#endif
