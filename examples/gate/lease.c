/* A thread's use of the block: its lease, ticks, released tickets, and going on with another block when the file is another. */
#include "parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int lease_open(gate *g)
{
    pdr_error err;
    const uint64_t now = pdr_host_now_ns();

    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&g->lease, sizeof g->lease);
    if (pdr_host_lease_open(g->host, g->name, now, &g->lease, &err) != PDR_OK) {
        g->lease.wake_fd = -1;
        if (now - g->refused_ns > 1000000000) { /* ticks and requests try again */
            g->refused_ns = now;
            gate_log("error", "no lease: %s", err.message);
        }
        return -1;
    }
    g->leased = 1;
    return 0;
}

static int use_map(gate *g, gate_map *m)
{
    pdr_config config;
    uint64_t *hashes;

    pdr_init_struct(&config, sizeof config);
    if (pdr_router_config(m->router, &config) != PDR_OK) return PDR_E_INVALID;
    hashes = realloc(g->hashes, config.max_blocks * sizeof *g->hashes);
    if (!hashes) return PDR_E_SYSTEM;
    g->hashes = hashes;
    g->config = config;
    pdr_init_struct(&g->limits, sizeof g->limits);
    g->limits.block_bytes = g->config.block_bytes;
    g->limits.max_blocks = g->config.max_blocks;
    g->limits.max_depth = g->config.max_depth;
    g->limits.max_batch = g->config.max_batch;
    g->limits.max_body = g->config.max_body;
    g->map = m;
    g->host = m->host;
    g->router = m->router;
    return PDR_OK;
}

/* The block is another: a lease there. The new one first, so that its socket has another number. */
static void move(gate *g)
{
    pdr_host_lease old = g->lease;
    const int leased = g->leased;
    gate_map *left = g->map, *m = gate_block_take(g->block);

    if (use_map(g, m) != PDR_OK) { /* lost as well, or out of memory: looked at again with the next tick */
        gate_block_leave(g->block, m);
        return;
    }
    g->leased = 0;
    g->moved = 1;
    (void)lease_open(g);
    if (leased) {
        pdr_host_lease_close(left->host, &old, pdr_host_now_ns());
        (void)pdr_host_wake_pending(left->host);
    }
    gate_block_leave(g->block, left);
}

int gate_renew(gate *g)
{
    pdr_error err;
    int rc;

    if (!gate_block_is(g->block, g->map)) move(g);
    if (!g->leased) return lease_open(g);
    pdr_init_struct(&err, sizeof err);
    rc = pdr_host_lease_renew(g->host, &g->lease, pdr_host_now_ns(), &err);
    if (rc != PDR_OK) gate_log("warn", "lease: %s", err.message);
    if (rc == PDR_E_LEASE) g->moved = 1; /* what was held under the old one is released to nobody */
    return rc == PDR_OK || rc == PDR_E_LEASE ? 0 : -1;
}

static gate_job *find_held(gate *g, uint64_t ticket)
{
    gate_job *job = g->held[ticket % GATE_HELD];
    while (job && job->decision.booking != ticket) job = job->held_next;
    return job;
}

static void take_released(gate *g)
{
    uint64_t tickets[32];
    size_t n;

    do {
        n = sizeof tickets / sizeof *tickets;
        if (!g->leased || pdr_released(g->router, g->lease.id, tickets, &n) != PDR_OK) return;
        for (size_t i = 0; i < n; i++) {
            gate_job *job = find_held(g, tickets[i]);
            if (job) gate_take(job); /* else its client left meanwhile */
        }
    } while (n == sizeof tickets / sizeof *tickets);
}

void gate_woken(gate *g)
{
    pdr_host_wake_drain(g->lease.wake_fd);
    take_released(g);
}

void gate_tick(gate *g)
{
    const uint64_t now = pdr_host_now_ns();
    const uint64_t patience = (uint64_t)(g->config.hold_max_wait_ms + 100) * 1000000;

    gate_block_tick(g->block);
    (void)gate_renew(g);
    take_released(g);
    const int moved = g->moved;
    g->moved = 0;
    for (gate_job *job = g->jobs, *next; job; job = next) {
        next = job->next; /* events of one job end no other */
        if (job->is_held && (moved || job->untaken || now - job->held_ns > patience)) gate_take(job);
        else if (job->begun && pdr_exchange_deadline(&job->exchange) <= now) gate_event(job, PDR_EV_TICK, 0, NULL);
    }
}

int gate_open(gate *g, const gate_ops *ops, gate_block *block, const char *name, pdr_error *err)
{
    gate_map *m = gate_block_take(block);
    int rc;

    memset(g, 0, sizeof *g);
    g->ops = ops;
    g->block = block;
    g->lease.wake_fd = -1;
    (void)snprintf(g->name, sizeof g->name, "%s", name);
    if ((rc = use_map(g, m)) != PDR_OK) {
        (void)snprintf(err->message, sizeof err->message, "%s", rc == PDR_E_SYSTEM ? "out of memory" : "the block cannot be used");
        gate_block_leave(block, m);
        return rc;
    }
    (void)lease_open(g);
    return PDR_OK;
}

void gate_close(gate *g)
{
    if (g->leased) {
        pdr_host_lease_close(g->host, &g->lease, pdr_host_now_ns());
        g->leased = 0;
        (void)pdr_host_wake_pending(g->host); /* what it gave back may release others' requests */
    }
    gate_block_leave(g->block, g->map);
    g->map = NULL;
    free(g->hashes);
    g->hashes = NULL;
}
