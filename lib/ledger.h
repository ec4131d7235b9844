/*
 * Ledger: what is booked where, and who owns it.
 *
 * A booking is one request in flight (or held). Bookings belong to leases; a lease belongs to a process and must be renewed. The records in
 * bookings[] are the truth: free list, lists per lease, and the sums in the targets follow from them and are rebuilt by pdr_ledger_rebuild() after a
 * process died inside a call. To that end a record's state is written last when it is made and first when it is freed.
 * All functions are called with the router's lock held. Every operation is O(1), but for lease ends (O(bookings of the lease)) and rebuild.
 */
#ifndef PDR_LEDGER_H
#define PDR_LEDGER_H

#include "registry.h"

enum {
    PDR_BOOKING_FREE = 0,
    PDR_BOOKING_PREFILL = 1, /* prefill work and decode place are booked */
    PDR_BOOKING_DECODE = 2,  /* the prompt is computed: only the decode place */
    PDR_BOOKING_HELD = 3,    /* waits in the queue: nothing booked */
    PDR_BOOKING_READY = 4,   /* released, as PDR_BOOKING_PREFILL, but its owner has not fetched it yet */
    PDR_BOOKING_REFUSED = 5  /* will not be sent: its owner has not heard yet */
};

typedef struct pdr_booking {
    uint32_t state, generation;
    uint32_t next, prev;         /* in the lease's list, or next free */
    uint32_t lease;              /* slot */
    uint32_t prefill, decode;    /* target numbers, PDR_NONE */
    uint32_t held;               /* slot in the queue, PDR_NONE */
    uint32_t told;               /* READY or REFUSED: pdr_released has named it */
    int32_t  refusal;            /* REFUSED: the code */
    uint32_t batch, mode;
    uint32_t cache_learnt, streamed, learnable, gap_learnt; /* learnable: took_us is that of this prompt alone; gap_learnt: its first token has been compared with prefill's answer */
    uint32_t candidates, alone;  /* alone: the prefill target was idle when this was booked, so its time can be learnt */
    uint32_t aside, at_home;     /* aside: its prompt is computed on a decode server, and no prefill server has it before others; at_home: it went where more was expected than known (home.h) */
    uint64_t took_us;            /* from sending to the prompt's end, 0 not yet */
    uint64_t work_us;            /* prefill time predicted at that target's speed */
    uint64_t uncached_tokens;    /* of the prompt, at the prefill target */
    uint64_t context_tokens;     /* prompt and expected output, at the decode target */
    uint64_t answer_tokens;      /* asked for at most, 0: not said */
    uint64_t room, room_counter;
    uint64_t prompt_tokens, matched_tokens, prompt_bytes;
    uint64_t booked_ns, enqueued_ns, ready_ns;
    uint64_t wait_us, transfer_us, decode_us, cost_us;
    uint64_t lag_us;             /* from the prompt's end to its answer, expected */
    uint64_t answered_ns;        /* when prefill had answered; 0: not yet */
    uint64_t owed;               /* pdr_booking_owe(): the id and PDR_OWED_*; written without the lock */
} pdr_booking;

/* What became of a booking while a process was stopped with the lock. */
enum { PDR_OWED_PREFILLED = 1, PDR_OWED_BACK = 2, PDR_OWED_CANCELLED = 4, PDR_OWED_ANSWERED = 8, PDR_OWED_FAILED = 16, PDR_OWED_DONE = 32 /* pdr_booking_done() */ };

typedef struct pdr_lease {
    uint32_t generation, open;
    uint32_t first;              /* booking list */
    uint32_t bookings;
    uint64_t beat_ns;
    uint32_t released;           /* READY or REFUSED ones not told yet */
    uint32_t wake;               /* the host is to wake this lease's process */
    char     name[32];
} pdr_lease;

typedef struct pdr_ledger_head {
    uint32_t max_bookings, max_leases;
    uint32_t free_first, bookings;  /* bookings: in use, held included */
    uint32_t in_prefill;            /* PREFILL and READY, but those aside */
    uint32_t leases;
    uint64_t rooms;                 /* of live bookings */
    uint32_t wakes;                 /* leases with wake set; read without the lock */
    uint32_t announced;             /* READY and REFUSED */
    uint32_t owed, reserved;        /* owed: there may be bookings with something owed; written without the lock */
} pdr_ledger_head;

typedef struct pdr_ledger {
    pdr_ledger_head    *head;
    pdr_booking        *bookings;
    pdr_lease          *leases;
    const pdr_registry *registry;
} pdr_ledger;

/* `salt`: where the ids begin. One block's ids mean nothing to another that took its place, so that nobody gives back what somebody else has booked there. */
void pdr_ledger_init(const pdr_ledger *l, uint32_t max_bookings, uint32_t max_leases, uint64_t salt);

int        pdr_lease_new(const pdr_ledger *l, const char *name, uint64_t now_ns, uint32_t *lease);
pdr_lease *pdr_lease_at(const pdr_ledger *l, uint32_t lease, uint32_t *slot); /* NULL: unknown or ended */
uint32_t   pdr_lease_id(const pdr_ledger *l, uint32_t slot);

/* A record in state HELD without anything booked, owned by the lease; NULL: the table is full. The caller fills it, then sets a state. */
pdr_booking *pdr_booking_new(const pdr_ledger *l, uint32_t lease_slot);
uint64_t     pdr_booking_id(const pdr_ledger *l, const pdr_booking *b);
pdr_booking *pdr_booking_at(const pdr_ledger *l, uint64_t id);
/* Adds the record's work, tokens and place to its targets and sets the state (PREFILL or READY). */
void pdr_booking_charge(const pdr_ledger *l, pdr_booking *b, uint32_t state, uint64_t now_ns);
/* Its decode place is at another target from now on: somebody else chose. Prefill work stays where it is. */
void pdr_booking_move(const pdr_ledger *l, pdr_booking *b, uint32_t decode);
/* The prompt is computed: PREFILL -> DECODE. */
void pdr_booking_prefilled(const pdr_ledger *l, pdr_booking *b, uint64_t now_ns);
/* Gives everything back and frees the record, whatever its state; a held one must have left the queue before. */
void pdr_booking_free(const pdr_ledger *l, pdr_booking *b, uint64_t now_ns);
/*
 * For an owner who could not have the lock: notes down, without it, what has become of the booking. pdr_ledger_owed() gives the next one of which something is noted, from
 * *slot on, and takes the note off; NULL: no more. An id that means nothing (any more) is forgotten.
 */
void         pdr_booking_owe(const pdr_ledger *l, uint64_t id, uint32_t what);
pdr_booking *pdr_ledger_owed(const pdr_ledger *l, uint32_t *slot, uint32_t *what);
/* Its state became READY or REFUSED: its lease is to be woken. */
void pdr_booking_announce(const pdr_ledger *l, pdr_booking *b);
void pdr_booking_told(const pdr_ledger *l, pdr_booking *b);
/* READY -> PREFILL: its owner has fetched it. */
void pdr_booking_taken(const pdr_ledger *l, pdr_booking *b);
/* READY -> REFUSED with this code: its place is given back, its ticket remains for its owner to hear of it. */
void pdr_booking_withdraw(const pdr_ledger *l, pdr_booking *b, int code, uint64_t now_ns);
/* The lease's process has been told to look. */
void pdr_lease_woken(const pdr_ledger *l, pdr_lease *s);
void pdr_lease_end(const pdr_ledger *l, uint32_t slot); /* its bookings must have been freed */

/* Free list, lease lists, target sums and counts from the records; half-written records are dropped. */
void pdr_ledger_rebuild(const pdr_ledger *l);
/* First invariant that does not hold, as a sentence in why; 0 if all hold. scratch: one number per target. */
int pdr_ledger_check(const pdr_ledger *l, uint64_t *scratch, char *why, size_t cap);

#endif
