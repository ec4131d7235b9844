/*
 * The settings with which other gateways' policies are tried: all that a careful operator of each would try. `simulate --policy all` and the bars run
 * through this list; a peer's best setting is chosen per regime, the library has one everywhere.
 */
#ifndef SIMULATE_PEER_GRID_H
#define SIMULATE_PEER_GRID_H

#include <stddef.h>

enum { PEER_IMMEDIATE = 1, PEER_QUEUE = 2, PEER_REFERENCE = 4 };

typedef struct peer_setting {
    const char *policy, *settings;
    unsigned    kind;
    int         common; /* 1: the few that `--policy all` and quick runs take: defaults and what is usually best */
    int         local;  /* 1: with decode-only requests */
} peer_setting;

extern const peer_setting peer_grid[];
extern const size_t       peer_grid_n;

#endif
