/*
 * Many processes on one block, killed and stopped at random: what the driver (torture.c) and its workers (worker.c) share, a file mapped by all.
 */
#ifndef PDR_TEST_PROCESS_H
#define PDR_TEST_PROCESS_H

#include "pdroute/host.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORKERS = 4, PREFILLS = 6, DECODES = 4, ROOMS = 1 << 22, CODES = 32 };

typedef struct progress {         /* of one worker slot, over all its lives; written by the worker, read by the driver */
    uint64_t calls;               /* that returned */
    uint64_t began_ns;            /* of the call that is under way, 0: none */
    uint64_t began_beat;          /* and of the pacer then */
    uint32_t line;                /* of worker.c, where it began */
    uint64_t longest_ns;          /* that a call took */
    uint64_t routed;              /* answers PDR_OK of pdr_route */
    uint64_t code[CODES];         /* how often each error came, by -code */
    char     failure[256];        /* the first thing that must not happen, empty: none */
} __attribute__((aligned(128))) progress;

typedef struct board {
    progress worker[WORKERS];
    uint64_t beats;               /* of the pacer, a process that does nothing but sleep for a millisecond again and again: so much time the machine has given to each */
    uint64_t rooms_seen;
    uint64_t room[ROOMS];         /* every room ever drawn: an open hash set, 0: free */
} board;

static inline board *board_map(const char *path, int create)
{
    int   fd = open(path, create ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    void *b;
    if (fd < 0 || (create && ftruncate(fd, sizeof(board)))) return NULL;
    b = mmap(NULL, sizeof(board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return b == MAP_FAILED ? NULL : b;
}

/* 0 if that room was never drawn before (or too many are known already). */
static inline int board_room(board *b, uint64_t room)
{
    if (__atomic_load_n(&b->rooms_seen, __ATOMIC_RELAXED) > ROOMS / 4 * 3) return 0;
    for (uint64_t i = room * 0x9E3779B97F4A7C15u >> 42;; i = (i + 1) % ROOMS) {
        uint64_t have = 0;
        if (__atomic_compare_exchange_n(&b->room[i % ROOMS], &have, room, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
        if (have == room) return -1;
    }
    __atomic_add_fetch(&b->rooms_seen, 1, __ATOMIC_RELAXED);
    return 0;
}

static inline pdr_endpoint server(uint32_t i)
{
    pdr_endpoint e;
    pdr_init_struct(&e, sizeof e);
    e.role = i < PREFILLS ? PDR_ROLE_PREFILL : PDR_ROLE_DECODE;
    e.port = 8000;
    e.dp_size = i == 1 ? 2 : 0;
    snprintf(e.name, sizeof e.name, "s%u", i);
    snprintf(e.host, sizeof e.host, "10.0.0.%u", i + 1);
    return e;
}

#endif
