/*
 * What every gateway does with libpdroute, whatever proxy it lives in: scan, decide, wait while held, run the exchange. One `gate` per thread,
 * one `gate_job` per request; the proxy gives what differs as `gate_ops`. No routing logic: pdr_route_prompt() chooses, pdr_exchange_*()
 * says what to do when something happens.
 *
 *   decide.c   scan, decide, hold       gate.c     the exchange           lease.c    lease, ticks, another block
 *   request.c  what is read and sent    refusal.c  answers of our own     block.c    the block that threads share
 *   path.c     what a target names
 *
 * Everything here belongs to one thread and allocates only the block hashes of a request. A tick every 100 ms looks over all jobs, so
 * deadlines are met within that.
 */
#ifndef PDR_GATE_GATE_H
#define PDR_GATE_GATE_H

#include "block.h"
#include "path.h"
#include "whole.h"
#include "wire.h"

#define GATE_TICK_MS 100
#define GATE_ACTIONS 24 /* three times what one event may bring */
#define GATE_HELD    256

typedef struct gate gate;
typedef struct gate_job gate_job;

/* Called from gate_* functions; may call gate_event() (the actions that follow are queued behind those at hand). */
typedef struct gate_ops {
    void (*send)(gate_job *job, int leg);
    void (*cancel)(gate_job *job, int leg);
    void (*drain)(gate_job *job, int leg);
    void (*relay)(gate_job *job, int leg);
    /* An answer of the gateway's own. */
    void (*respond)(gate_job *job, unsigned status, const char *code, const char *message, uint64_t retry_after_ms);
    void (*abort)(gate_job *job, uint32_t reason, const char *message);
    /* The exchange is over: nothing is booked any more. What still goes to the client goes on. */
    void (*finished)(gate_job *job);
    /* 0: no further pair can be tried, since the answer of the first cannot be replaced. */
    int (*may_reroute)(gate_job *job);
    /* The decision was taken (again). */
    void (*decided)(gate_job *job);
} gate_ops;

struct gate {
    const gate_ops *ops;
    gate_block *block;
    gate_map *map;       /* of it; host and router are its */
    pdr_host *host;
    pdr_router *router;  /* exchanges that began on another block go on with this one */
    int moved;           /* the block is another, or the lease: whoever waits is to get in line anew */
    pdr_config config;
    pdr_limits limits;
    pdr_host_lease lease;
    int leased;
    uint64_t refused_ns; /* when the log was last told that there is no lease to be had */
    uint64_t *hashes;    /* scratch of config.max_blocks */
    gate_job *jobs;      /* all with an exchange, or held */
    gate_job *held[GATE_HELD];
    char name[64];
};

/* What an event brings beside its type. */
typedef struct gate_detail {
    uint32_t status, detail, attempt;
    uint64_t retry_after_ms;
    const pdr_response *usage; /* NULL: not known */
} gate_detail;

struct gate_job {
    gate *gate;
    gate_job *next, *prev, *held_next; /* of the gate */
    view body;                         /* the caller's; must stay until `finished` or the last send */
    uint64_t *hashes;
    uint32_t api;
    uint32_t attempts; /* decisions taken */
    uint32_t barred_n, barred[8]; /* endpoints not to use, set before gate_start() */
    uint32_t reason;   /* PDR_ERR_*, when the exchange asked for an answer */
    uint32_t actions_n;
    uint64_t held_ns;  /* since when; later: for how long */
    int compressed;    /* the body, by its Content-Encoding */
    uint64_t tenant;   /* who pays, 0: nobody in particular */
    uint64_t last_byte_ns; /* when a piece of decode's answer came last; 0: not known */
    uint64_t longest_gap_ns; /* between two of them */
    whole *whole;      /* NULL, or the answer may take both legs' */
    bytes kept;        /* of a stream: the beginning of an error event, behind kept_out bytes that went */
    size_t kept_out;
    unsigned listed : 1;
    unsigned begun : 1;    /* the exchange is alive */
    unsigned finished : 1; /* and over */
    unsigned is_held : 1;
    unsigned untaken : 1;  /* its release was told, and the lock was not to be had: it is told once, so the next tick looks again */
    unsigned was_held : 1;
    unsigned running : 1;  /* actions are being carried out */
    unsigned relay_waits : 1; /* decode's answer is to be relayed when prefill's is there */
    unsigned decided : 1;  /* `decision` holds a pair */
    unsigned raw_body : 1; /* not a JSON object: nothing to cut out */
    char why[64];          /* name of the error, for logs */
    pdr_prompt prompt;
    pdr_decision decision;
    pdr_exchange exchange;
    pdr_action actions[GATE_ACTIONS];
};

/* PDR_E_*. Without a lease requests are refused until there is one. */
int gate_open(gate *g, const gate_ops *ops, gate_block *block, const char *name, pdr_error *err);
void gate_close(gate *g);
/* Every GATE_TICK_MS. */
void gate_tick(gate *g);
/* lease.wake_fd is readable (it changes when a lease is renewed: look at gate.lease.wake_fd after each tick). */
void gate_woken(gate *g);

/* PDR_API_* of a path, without its query. */
uint32_t gate_api(view path);
/* A header of the request, before gate_start(); job->gate must be set. It may say who pays. */
void gate_header(gate_job *job, view name, view value);
/* Whether an engine could read the body as a JSON object, and so find owned members in it. */
int gate_is_object(view body, int json_type);
/* The body is complete: scan, decide, and send, hold or answer. `json_type`: the request says that it is JSON. */
void gate_start(gate_job *job, gate *g, uint32_t api, view body, int json_type);
void gate_event(gate_job *job, uint32_t type, uint32_t leg, const gate_detail *detail);
/* A piece of decode's answer came: silence is measured between them. */
void gate_piece(gate_job *job);
/*
 * What of decode's answer may go to the client, when `piece` of it came: `piece` itself, unless it takes prefill's as well, or has an error event, which is masked where it lies. `reader` was fed all of it
 * and not more; NULL: the answer is not read.
 */
view gate_pass(gate_job *job, unsigned status, int sse, pdr_response *reader, view piece, int end);
/* Whether a piece may have been kept back: then there may be nothing to pass on, and at the end something without a piece. */
int gate_keeps(const gate_job *job);
/* Memory for that ran out: what has not gone to the client is lost, and the answer must break. */
static inline int gate_lost(const gate_job *job)
{
    return job->kept.failed || (job->whole && job->whole->lost);
}
/* The client left, in whatever state. */
void gate_client_gone(gate_job *job);
/* Nothing refers to the job any more; frees what it holds. Its exchange must not have begun, or be finished. */
void gate_job_end(gate_job *job);

/* Whether an error event names a 4xx. */
int gate_error_is_refusal(view chunk);
/* The time after which a request whose body is not complete is answered with 408, unless the proxy is told otherwise. */
#define GATE_BODY_TIMEOUT_MS 300000
void gate_refuse_late(gate_job *job);
/* This process has not what a leg needs (errno_is_ours): the client is told so, no server is blamed, and what is booked is given back. */
void gate_give_up(gate_job *job, const char *message);
/* No descriptor, no buffers, no memory: what a server has no part in. */
int gate_errno_is_ours(int error);
/* Asked when a connection failed and nobody says why: whether this process could make a socket just now. 1: it could not, for such a reason. */
int gate_lacks_sockets(void);
/* What the request's target names, into *path and job->api; *sent is what workers are to see of it (it differs from `target` if what is routed is not written
 * plainly). `scratch` must stay. 0; or -1: it was answered. */
int gate_target(gate_job *job, view target, bytes *scratch, view *path, view *sent);
/* An error before there is a job: through the same ops. */
void gate_refuse(gate_job *job, gate *g, int code, const char *message);
/* The rewritten body of a leg as slices of `body` and of *tail (which gets the bytes); *n in: capacity. 0 or PDR_E_*. */
int gate_rewrite(const gate_job *job, int leg, bytes *tail, pdr_slice *slices, size_t *n);
/* host:port, an IPv6 address in brackets if asked for; cut to `cap`. For every request, so without printf. */
void gate_address(char *out, size_t cap, const char *host, unsigned port, int brackets);
/* "hit" and "why" as the logs show them. */
void gate_describe(const gate_job *job, char *hit, size_t hit_cap, char *why, size_t why_cap);
/* One line to standard error, with the time. */
void gate_log(const char *level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
