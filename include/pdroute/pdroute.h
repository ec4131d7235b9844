/*
 * libpdroute: the routing brain of LLM gateways, as an embeddable C library.
 *
 * Given the bytes of an LLM request, libpdroute chooses the prefill and the decode server together, allocates the bootstrap room, and says which bytes to send to which server.
 * It opens no socket, starts no thread, reads no clock, no environment and no file, and has no global state: time comes in as `now_ns` (monotonic nanoseconds, one clock for all
 * processes that share a router), and all its memory is one block that the caller hands over.
 *
 * Conventions
 *  - Functions return 0 (PDR_OK) or a negative PDR_E_* code. Details go to an optional caller-owned pdr_error. After an error nothing has changed, unless the function says otherwise.
 *  - Every public struct begins with `struct_size`: set it to sizeof(the struct) (pdr_init_struct() zeroes and sets it). Fields are only ever
 *    appended; a library reads and writes no further than struct_size. Zero is the default. What an input has behind the fields that the library knows must be zero, and at most 4096 bytes (PDR_E_VERSION).
 *  - Ownership words: *borrowed* (until return), *copied*, *owned by the router*, *caller's*.
 *  - Thread tags: [any] any number of threads and processes at once on one router; [exclusive] nobody else may use the router; [pure] touches no shared state; [object] one caller at a time per object.
 *  - Text in structs is NUL-terminated UTF-8. Bodies need no terminator.
 *
 * This header needs nothing but <stdint.h> and <stddef.h>, and compiles as C99 and C++11.
 */
#ifndef PDROUTE_PDROUTE_H
#define PDROUTE_PDROUTE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PDR_API __attribute__((visibility("default")))
#else
#define PDR_API
#endif

/* ------------------------------------------------------------------------------------------------ versions and errors */

#define PDR_VERSION_MAJOR  0
#define PDR_VERSION_MINOR  1
#define PDR_VERSION_PATCH  0
#define PDR_VERSION_NUMBER (PDR_VERSION_MAJOR * 10000 + PDR_VERSION_MINOR * 100 + PDR_VERSION_PATCH)
#define PDR_ABI_VERSION    1 /* changes when a program built against an older header could break */

/* Version of the library that is loaded. [pure] since 0.1 */
PDR_API uint32_t    pdr_version_number(void);
PDR_API const char *pdr_version_string(void);
PDR_API uint32_t    pdr_abi_version(void);

/* Error codes. Values are fixed for ever. The HTTP status in brackets is what pdr_http_status() answers. */
enum {
    PDR_OK = 0,
    PDR_E_INVALID = -1,        /* an argument is wrong: a bug in the caller [500] */
    PDR_E_VERSION = -2,        /* struct_size impossible or bytes set that this library does not know [500] */
    PDR_E_NOSPACE = -3,        /* the caller's buffer is too small; the needed size was written [500] */
    PDR_E_PARSE = -4,          /* text is not what it must be (JSON, metrics, config); offset and line say where [400] */
    PDR_E_TOO_LARGE = -5,      /* a size limit was passed (body, number of owned keys, batch) [413] */
    PDR_E_TOO_DEEP = -6,       /* nested deeper than max_depth [400] */
    PDR_E_UNSUPPORTED = -7,    /* understood, but the engine protocol cannot do it (n > 1 with PD) [400] */
    PDR_E_NO_PAIR = -8,        /* no usable prefill/decode pair at present [503] */
    PDR_E_QUEUE_FULL = -9,     /* all workers busy and the queue of held requests is full [429] */
    PDR_E_NOT_FOUND = -10,     /* no such endpoint, booking, ticket or lease (any more) [500] */
    PDR_E_EXISTS = -11,        /* address already registered under another name [500] */
    PDR_E_FULL = -12,          /* a table of the block is full; its name is in the message [503] */
    PDR_E_BUSY = -13,          /* the lock could not be had within its bound (a process is stopped inside a call) [503] */
    PDR_E_LEASE = -14,         /* the lease is unknown or has expired: open a new one [503] */
    PDR_E_AGAIN = -15,         /* the ticket is still held [503] */
    PDR_E_EXPIRED = -16,       /* the ticket's deadline passed while it was held [503] */
    PDR_E_BLOCK_MAGIC = -17,   /* memory is not a router block [500] */
    PDR_E_BLOCK_LAYOUT = -18,  /* block of another layout version or size [500] */
    PDR_E_BLOCK_CONFIG = -19,  /* block made with another configuration [500] */
    PDR_E_BLOCK_BOOT = -20,    /* block from before a reboot: its locks and times mean nothing [500] */
    PDR_E_BLOCK_CORRUPT = -21, /* an invariant does not hold; the message names it [500] */
    PDR_E_SYSTEM = -22         /* host library only: a system call failed; errno's text is in the message [500] */
};

/* Where and why something failed. Caller's memory; may be NULL wherever it is taken. */
typedef struct pdr_error {
    uint32_t struct_size;
    int32_t  code;        /* PDR_E_* */
    uint64_t offset;      /* byte offset in the text given, where that makes sense */
    uint32_t line;        /* 1-based line of that offset, 0 if it makes no sense */
    uint32_t reserved;
    char     message[232]; /* one sentence, without the name of the function */
} pdr_error;

/* Zeroes `size` bytes at `s` and sets struct_size, which every public struct has first. [pure] since 0.1 */
PDR_API void pdr_init_struct(void *s, size_t size);
/* Short fixed text for a code, "unknown error" for others; never NULL. [pure] since 0.1 */
PDR_API const char *pdr_strerror(int code);
/* HTTP status a gateway should answer for a code; 200 for PDR_OK. [pure] since 0.1 */
PDR_API int pdr_http_status(int code);

/* -------------------------------------------------------------------------------------------------------- configuration */

enum { PDR_POLICY_DEFAULT = 0, PDR_POLICY_ROUND_ROBIN = 1, PDR_POLICY_RANDOM = 2, PDR_POLICY_LEAST_TOKENS = 3,
       PDR_POLICY_POWER_OF_TWO = 4 };
enum { PDR_ENGINE_SGLANG = 0 };
enum { PDR_HOLD_DEFAULT = 0 /* on */, PDR_HOLD_ON = 1, PDR_HOLD_OFF = 2 };

/* Everything a router is made from. Zero means default (in brackets). Sizes decide the size of the block. */
typedef struct pdr_config {
    uint32_t struct_size;
    uint32_t policy;                  /* PDR_POLICY_* */
    uint32_t engine;                  /* PDR_ENGINE_* */
    uint32_t max_endpoints;           /* servers [1024], at most 65535 */
    uint32_t max_targets;             /* DP ranks of all servers together [max_endpoints], at most 65535 */
    uint32_t max_bookings;            /* requests in flight, held ones included [16384], at most 2^24 */
    uint32_t max_leases;              /* processes (and other owners of bookings) at once [256] */
    uint32_t max_held;                /* held requests [1024]; one more is refused with PDR_E_QUEUE_FULL */
    uint64_t index_entries;           /* (target, block) entries of the prefix index [1048576] */
    uint32_t block_bytes;             /* prompt bytes per prefix block [512], 64..65536, a multiple of 4 */
    uint32_t max_blocks;              /* blocks per prompt that take part in matching [4096], at most 65535 */
    uint64_t max_body;                /* request body in bytes [33554432] */
    uint32_t max_depth;               /* JSON nesting [128], at most 1024 */
    uint32_t max_batch;               /* prompts in one request [1024] */
    uint64_t seed;                    /* of rooms and random policies; take it from the system's random source */
    uint32_t bootstrap_port;          /* for prefill servers that name none [8998] */
    uint32_t log_entries;             /* recent decisions kept for pdr_log_read() [256] */
    /* prefill time T(u, m) in microseconds for u uncached tokens behind m cached ones: base + u*linear + u*(m + u/2)*quadratic.
     * Priors: Qwen3-32B bf16, TP2 on H100 (docs/scheduling.md). Each endpoint's own speed is learnt from what requests take. */
    uint32_t prefill_base_us;         /* [10000] */
    uint32_t prefill_ns_per_token;    /* [55100] */
    uint32_t prefill_fs_per_token2;   /* femtoseconds [1760000] */
    uint32_t decode_us_per_request;   /* longer step for everybody per running request [50] */
    uint32_t decode_ps_per_token;     /* longer step per context token [48900] */
    uint32_t kv_bytes_per_token;      /* [262144] */
    uint32_t transfer_latency_us;     /* [5000] */
    uint32_t transfer_mbps_host;      /* KV bandwidth in MB/s between two servers on one host [200000] */
    uint32_t transfer_mbps_rack;      /* in one rack [50000] */
    uint32_t transfer_mbps_zone;      /* in one zone, or topology unknown [50000] */
    uint32_t transfer_mbps_far;       /* between zones [12500] */
    uint32_t milli_tokens_per_byte;   /* prior of tokens per prompt byte, in 1/1000 [250]; learnt from usage */
    uint32_t hold;                    /* PDR_HOLD_* */
    uint32_t hold_window_tokens;      /* uncached tokens of one prefill step: as many are released together [8192] */
    uint32_t hold_max_wait_ms;        /* a held request is refused after this [60000] */
    uint32_t hold_ageing_ms;          /* waiting this long doubles a held request's urgency; 0: the time the backlog takes */
    uint32_t lease_ttl_ms;            /* a lease without heartbeat for this long loses its bookings [10000] */
    uint32_t metrics_stale_ms;        /* older reports do not count [5000] */
    uint32_t retry_max;               /* further pairs tried for one request [2]; UINT32_MAX: none */
    uint32_t breaker_failures;        /* failures in a row that take an endpoint out [3] */
    uint32_t breaker_open_ms;         /* for how long, before one request may try it again [1000], doubling to 30 s */
    uint32_t first_byte_timeout_ms;   /* no byte of an answer's body from either leg for this long after sending fails the attempt, at the latest [300000] */
    uint32_t total_timeout_ms;        /* the whole exchange [86400000] */
    uint32_t reserved;
    uint64_t record_bytes;            /* ring for pdr_record_read(), rounded up to a power of two [4194304] */
    /* How long a server may be silent is learnt from what it usually needs (docs/failures.md); these are the limits. Least = most: a fixed time. */
    uint32_t first_byte_least_ms;     /* the learnt bound of the first byte is never shorter [5000] */
    uint32_t idle_timeout_ms;         /* silence within an answer that has begun, at the latest [300000] */
    uint32_t idle_least_ms;           /* the learnt bound of that is never shorter [10000] */
    uint32_t retry_budget_permille;   /* retries per 1000 requests, beside a reserve of 100 and 10 a second [200]; UINT32_MAX: no limit */
    uint32_t breaker_error_permille;  /* share of the last 32 answers of an endpoint that were failures which takes it out [500]; UINT32_MAX: never */
    uint32_t reserved2;
    char     tenant_header[64];       /* request header that names who pays, any case ["": nobody does]: pdr_tenant_hash() */
} pdr_config;

/* Replaces every zero by its default and checks ranges; the message names the field. [pure] since 0.1 */
PDR_API int pdr_config_resolve(pdr_config *config, pdr_error *err);
/*
 * Reads a configuration from JSON: an object whose members are the fields above by name (policy, engine and hold by word:
 * "default", "round_robin", "random", "least_tokens", "power_of_two"; "sglang"; "on"/"off"; tenant_header as text), all optional. Members "endpoints" and "pool" are
 * left for pdr_apply_json(), and so are Kubernetes objects; an array may hold both. An unknown member is an error that names it. `text` is borrowed. Allocates. [pure] since 0.1
 */
PDR_API int pdr_config_from_json(const char *text, size_t len, pdr_config *out, pdr_error *err);

/* --------------------------------------------------------------------------------------------------------- the router block */

typedef struct pdr_router pdr_router; /* the block itself, seen by this process; holds no pointers */

/* Bytes the block needs; 0 if the config is bad. [pure] since 0.1 */
PDR_API size_t pdr_router_size(const pdr_config *config);
/*
 * Makes a router in `mem` (`size` bytes, 64-byte aligned; caller's, must outlive every use). `boot` identifies the running system
 * (a hash of its boot id): a block whose boot differs is refused by pdr_router_attach. Never allocates. [exclusive] since 0.1
 */
PDR_API int pdr_router_init(void *mem, size_t size, const pdr_config *config, uint64_t boot, pdr_router **out, pdr_error *err);
/* Uses a block that exists: PDR_E_BLOCK_{MAGIC,LAYOUT,CONFIG,BOOT,CORRUPT} say why not. `config` NULL accepts any configuration. [any] since 0.1 */
PDR_API int pdr_router_attach(void *mem, size_t size, const pdr_config *config, uint64_t boot, pdr_router **out, pdr_error *err);
/*
 * Takes over a block saved before a reboot, or copied: endpoints, prefix index and what was learnt stay; locks, leases, bookings,
 * held requests are reset, rooms get a new key from `seed`. [exclusive] since 0.1
 */
PDR_API int pdr_router_restore(void *mem, size_t size, uint64_t boot, uint64_t seed, pdr_router **out, pdr_error *err);
/*
 * Marks a block whose memory cannot be trusted any more: every call on it from now on, and those that are inside, answer PDR_E_BLOCK_CORRUPT.
 * In a signal handler of a thread that is inside, its lock is given back. Async-signal-safe. PDR_E_INVALID: not a ready block. [any] since 0.1
 */
PDR_API int pdr_router_lose(pdr_router *r);
/*
 * For a handler of the signal that touching the block's memory raised (it is gone): if this thread is in a call on `r`, that call ends at once with
 * PDR_E_BLOCK_CORRUPT, by a jump out of the handler (install it with SA_NODEFER). Otherwise returns. pdr_host_open() with PDR_HOST_GUARD does all this.
 * [any] since 0.1
 */
PDR_API void pdr_router_escape(const pdr_router *r);
/* The resolved configuration. [any] since 0.1 */
PDR_API int pdr_router_config(const pdr_router *r, pdr_config *out);
/* Verifies every invariant of the block; PDR_E_BLOCK_CORRUPT with the first that fails. Takes the lock: O(size). [any] since 0.1 */
PDR_API int pdr_router_check(pdr_router *r, pdr_error *err);

/* ------------------------------------------------------------------------------------------------------------- endpoints */
enum { PDR_ROLE_PREFILL = 1, PDR_ROLE_DECODE = 2, PDR_ROLE_BOTH = 3 };
enum { PDR_ENDPOINT_TLS = 1u << 0,              /* https */
       PDR_ENDPOINT_NULL_BOOTSTRAP_PORT = 1u << 1, /* send bootstrap_port: null */
       PDR_ENDPOINT_ALONE = 1u << 2, /* a decode server that may also do a whole request alone; not SGLang's, which abort one without a room. since 0.1 */
       PDR_ENDPOINT_TOLD_PORT = 1u << 3, PDR_ENDPOINT_TOLD_DP = 1u << 4 /* set by the library: bootstrap_port, dp_size are what the server said; puts without them keep them. since 0.1 */,
       PDR_ENDPOINT_TOLD_PREFILL = 1u << 5, PDR_ENDPOINT_TOLD_DECODE = 1u << 6 /* set by the library: the role that the server says it has, both bits: both; `role` counts. since 0.1 */ };
enum { PDR_STATE_READY = 0, PDR_STATE_DRAINING = 1, PDR_STATE_DOWN = 2 /* health or breaker */, PDR_STATE_REMOVED = 3 };

#define PDR_NONE UINT32_MAX /* "no endpoint", "no rank" */

/* One server. Copied into the router. `name` is the key (a pod's name); empty: "host:port". */
typedef struct pdr_endpoint {
    uint32_t struct_size;
    uint32_t role;                /* PDR_ROLE_* */
    uint32_t flags;               /* PDR_ENDPOINT_* */
    uint32_t port;                /* of its HTTP API, 1..65535 */
    uint32_t bootstrap_port;      /* prefill: of its bootstrap server; 0: what the server says, until then the pool's */
    uint32_t dp_size;             /* data parallel ranks, each a target of its own; 1: none; 0: what the server says, until then none */
    uint32_t max_running;         /* requests at once; 0: unknown */
    uint32_t reserved;
    uint64_t kv_capacity;         /* tokens per rank; 0: unknown, learnt from reports */
    char     name[128];           /* UTF-8 without control characters; empty: host:port */
    char     host[256];           /* name or address; IPv6 without brackets */
    char     bootstrap_host[256]; /* where decode finds this prefill; empty: host */
    char     topology_host[64];   /* machine, rack, zone: any text, equal means same; empty: unknown */
    char     topology_rack[64];
    char     topology_zone[64];
    char     labels[512];         /* "key=value" lines, kept for the caller */
} pdr_endpoint;

/* What the router knows about one target (an endpoint's rank). */
typedef struct pdr_target_status {
    uint32_t struct_size;
    uint32_t endpoint;            /* id */
    uint32_t rank;                /* 0 without DP */
    uint32_t role;                /* PDR_ROLE_* */
    uint32_t state;               /* PDR_STATE_* */
    uint32_t failures;            /* in a row */
    uint32_t speed_permille;      /* learnt: 1000 is as the prior says, 500 half as fast */
    uint32_t report_age_ms;       /* age of the last report, PDR_NONE if never */
    uint64_t prefill_requests;    /* in flight by our booking: in prefill */
    uint64_t prefill_tokens;      /* uncached tokens of those */
    uint64_t prefill_wait_us;     /* work ahead of a new request */
    uint64_t decode_requests;     /* in flight: decoding or promised */
    uint64_t decode_tokens;       /* their context tokens */
    uint64_t prefix_blocks;       /* in the index */
    uint64_t prefix_capacity;
    uint64_t reported_running;    /* last report of the engine */
    uint64_t reported_waiting;
    uint64_t reported_used_tokens;
    uint64_t kv_capacity;         /* tokens */
    uint64_t requests_total;      /* legs sent */
    uint64_t failures_total;
    uint64_t cached_tokens_total; /* as engines reported */
    uint64_t prompt_tokens_total;
} pdr_target_status;

/*
 * Adds an endpoint or updates the one of that name; ids stay valid until removal. A changed role or address takes effect for the next
 * decision; requests in flight end as they were. *id (may be NULL) gets the id. PDR_E_INVALID, _EXISTS, _FULL. [any] since 0.1
 */
PDR_API int pdr_endpoint_put(pdr_router *r, const pdr_endpoint *e, uint64_t now_ns, uint32_t *id, pdr_error *err);
/* No new requests; those in flight end. `on` 0 takes it back. [any] since 0.1 */
PDR_API int pdr_endpoint_drain(pdr_router *r, uint32_t id, int on, pdr_error *err);
/* Takes it out at once: new requests never see it, its prefix entries are forgotten in O(1), its slot is free when the last booking ends. [any] */
PDR_API int pdr_endpoint_remove(pdr_router *r, uint32_t id, pdr_error *err);
/* Health as a prober sees it. Down endpoints get no requests. [any] since 0.1 */
PDR_API int pdr_endpoint_health(pdr_router *r, uint32_t id, int up, uint64_t now_ns, pdr_error *err);
PDR_API int pdr_endpoint_find(pdr_router *r, const char *name, uint32_t *id);
PDR_API int pdr_endpoint_get(pdr_router *r, uint32_t id, pdr_endpoint *out, uint32_t *state);
/* Ids of all endpoints in ascending order: start with *cursor = 0; PDR_E_NOT_FOUND at the end. [any] since 0.1 */
PDR_API int pdr_endpoint_next(pdr_router *r, uint32_t *cursor, uint32_t *id);
PDR_API int pdr_target_get(pdr_router *r, uint32_t endpoint, uint32_t rank, uint64_t now_ns, pdr_target_status *out);

/* Counts what pdr_apply_json() did. */
typedef struct pdr_apply_report {
    uint32_t struct_size;
    uint32_t added, updated, removed, unchanged, skipped, warnings;
    uint32_t reserved;
    char     warning[8][160];     /* the first eight */
} pdr_apply_report;
enum { PDR_APPLY_PRUNE = 1u << 0 /* remove endpoints that the document does not name */ };
/*
 * Brings endpoints (and the pool's role label, selector, ports) in line with a JSON document: {"endpoints":[…],"pool":{…}}, or Kubernetes objects
 * as they are: InferencePool (inference.networking.x-k8s.io/v1alpha2, inference.networking.k8s.io/v1), InferenceTrafficPolicy, Pod, a List or an
 * array of them. What was learnt from an earlier document (pool, policy) holds for later ones. Unknown fields become warnings. Either the whole
 * document is applied or nothing. Allocates. `text` borrowed. [any] since 0.1
 */
PDR_API int pdr_apply_json(pdr_router *r, const char *text, size_t len, uint32_t flags, uint64_t now_ns, pdr_apply_report *report, pdr_error *err);

/* ------------------------------------------------------------------------------------------------------------ engine reports */

enum { PDR_REPORT_PROMETHEUS = 1, /* GET /metrics */
       PDR_REPORT_LOADS = 2,      /* GET /v1/loads of SGLang */
       PDR_REPORT_SERVER_INFO = 3 /* GET /server_info of SGLang */ };

/* One target's load as its engine reports it. `have` says which fields are set. */
enum {
    PDR_LOAD_RUNNING = 1u << 0, PDR_LOAD_WAITING = 1u << 1, PDR_LOAD_KV_USED = 1u << 2, PDR_LOAD_KV_CAPACITY = 1u << 3,
    PDR_LOAD_USAGE = 1u << 4, PDR_LOAD_PREFILL_BOOTSTRAP = 1u << 5, PDR_LOAD_PREFILL_INFLIGHT = 1u << 6,
    PDR_LOAD_DECODE_PREALLOC = 1u << 7, PDR_LOAD_DECODE_TRANSFER = 1u << 8, PDR_LOAD_WAITING_TOKENS = 1u << 9,
    PDR_LOAD_MAX_RUNNING = 1u << 10, PDR_LOAD_RETRACTED = 1u << 11, PDR_LOAD_PENDING_USAGE = 1u << 12,
    PDR_LOAD_PREFILL_SPEED = 1u << 13
};
typedef struct pdr_load {
    uint32_t struct_size;
    uint32_t have;                     /* PDR_LOAD_* */
    uint64_t running, waiting;         /* requests */
    uint64_t kv_used, kv_capacity;     /* tokens */
    uint32_t usage_permille;           /* of KV memory */
    uint32_t pending_usage_permille;   /* promised on decode, not yet filled */
    uint32_t prefill_bootstrap, prefill_inflight, decode_prealloc, decode_transfer, retracted; /* requests in PD queues */
    uint32_t max_running;
    uint64_t waiting_tokens;           /* uncached tokens waiting */
    uint64_t prefill_uncached_total;   /* cumulative: tokens prefilled */
    uint64_t prefill_busy_us_total;    /* cumulative: time that took */
} pdr_load;

/*
 * Takes one answer of an endpoint. Values that are missing or broken keep their old state and are counted in *ignored (may be NULL); an answer
 * from which nothing could be read is PDR_E_PARSE and changes nothing. Parsing runs outside the lock. /server_info also updates dp_size, role (if it differs: a
 * warning in err->message with code 0), bootstrap port if the endpoint names none, KV capacity. `text` borrowed. [any] since 0.1
 */
PDR_API int pdr_report_put(pdr_router *r, uint32_t endpoint, uint32_t kind, const char *text, size_t len, uint64_t now_ns, uint32_t *ignored, pdr_error *err);
/* The same for callers that read loads themselves. [any] since 0.1 */
PDR_API int pdr_load_put(pdr_router *r, uint32_t endpoint, uint32_t rank, const pdr_load *load, uint64_t now_ns, pdr_error *err);

/* ------------------------------------------------------------------------------------------------------------------- leases */

/*
 * Bookings belong to a lease, not to a pid: a process opens one, renews it, and if it dies what it had booked is given back when the lease
 * expires (lease_ttl_ms), or at once when pdr_lease_break() is told of the death. Renew at least every lease_ttl_ms / 3.
 */
PDR_API int pdr_lease_open(pdr_router *r, const char *name, uint64_t now_ns, uint32_t *lease, pdr_error *err); /* [any] since 0.1 */
PDR_API int pdr_lease_renew(pdr_router *r, uint32_t lease, uint64_t now_ns);                                  /* [any] since 0.1 */
PDR_API int pdr_lease_break(pdr_router *r, uint32_t lease, uint64_t now_ns); /* ends it and gives back its bookings [any] since 0.1 */
/* Ends expired leases, refuses held requests whose time is over, releases what may go. Call about every 100 ms from any process. [any] */
PDR_API int pdr_tick(pdr_router *r, uint64_t now_ns);

/* ------------------------------------------------------------------------------------------------------------------ requests */

enum { PDR_API_GENERATE = 1, PDR_API_CHAT = 2, PDR_API_COMPLETIONS = 3, PDR_API_OTHER = 4 /* one leg, no PD */ };

enum { /* pdr_prompt.flags */
    PDR_PROMPT_STREAM = 1u << 0, PDR_PROMPT_RETURN_LOGPROB = 1u << 1, PDR_PROMPT_MEDIA = 1u << 2 /* image or audio parts */,
    PDR_PROMPT_TOKENS = 1u << 3 /* token ids: prompt_tokens is exact */, PDR_PROMPT_BATCH = 1u << 4, PDR_PROMPT_TRUNCATED = 1u << 5 /* more than max_blocks */,
    PDR_PROMPT_USAGE = 1u << 6 /* stream_options.include_usage */
};

#define PDR_MAX_EDITS 32 /* owned members that one body may carry (duplicates included); more is PDR_E_TOO_LARGE */

typedef struct pdr_span { uint64_t begin, end; } pdr_span; /* byte offsets, end exclusive; 0,0: absent */

/* What one scan of a body found. Plain data, valid as long as the caller likes; offsets refer to the body scanned. */
typedef struct pdr_prompt {
    uint32_t struct_size;
    uint32_t flags;              /* PDR_PROMPT_* */
    uint32_t api;                /* PDR_API_* as asked */
    uint32_t blocks;             /* block hashes written */
    uint32_t batch;              /* prompts: 1 for a single prompt, else as the engine counts (a list of one is 1 with PDR_PROMPT_BATCH set) */
    uint32_t samples;            /* n, at least 1 */
    uint64_t max_tokens;         /* asked output tokens, 0: not said */
    int64_t  priority;           /* the body's, 0 if absent */
    uint64_t prompt_bytes;       /* of canonical prompt text over the whole batch */
    uint64_t prompt_tokens;      /* exact with PDR_PROMPT_TOKENS, else 0: estimated by the router */
    uint64_t session;            /* hash of a session id in the body, 0: none */
    uint32_t members;            /* top-level members that stay */
    uint32_t edits;              /* spans in edit[] */
    pdr_span object;             /* from '{' to after the final '}' */
    pdr_span model;              /* the string with its quotes */
    pdr_span edit[PDR_MAX_EDITS]; /* what a rewrite leaves out: owned members, each with one comma, ascending */
    uint64_t insert_at;          /* where new members go: just before the final '}' and white space in front of it */
    uint64_t samples_at;         /* where n is said, and its line, if it is more than 1: for the error that refuses it */
    uint32_t samples_line, reserved;
} pdr_prompt;

typedef struct pdr_limits { /* zero: defaults of pdr_config */
    uint32_t struct_size;
    uint32_t block_bytes, max_blocks, max_depth, max_batch;
    uint32_t reserved;
    uint64_t max_body;
} pdr_limits;

/*
 * One pass over a request body: validity (RFC 8259, UTF-8, depth, size), the members that matter, and the chain of block hashes of its prompt.
 * hashes (cap of them; caller's) get out->blocks values; NULL/0: none wanted; after an error their content is undefined. A turn n+1 of a conversation begins with every full block of turn n; model, LoRA, cache_salt and
 * extra_key go into the first hash, so that tenants never see each other's entries. `limits` NULL: defaults. Errors: PDR_E_PARSE, _TOO_LARGE, _TOO_DEEP, _UNSUPPORTED. Never allocates. [pure] since 0.1
 */
PDR_API int pdr_scan(const char *body, size_t len, uint32_t api, const pdr_limits *limits, pdr_prompt *out, uint64_t *hashes, size_t cap, pdr_error *err);
/*
 * Where the value of a member of a JSON object lies (the last one of that name, escaped spellings included): "messages" or "cache_salt" of a body; "n" within the value
 * of "sampling_params". PDR_E_NOT_FOUND, PDR_E_PARSE: not a valid object. One pass, for those who need more than pdr_scan tells. [pure] since 0.1
 */
PDR_API int pdr_body_member(const char *body, size_t len, const char *name, size_t name_len, pdr_span *value);
/*
 * Block hashes of a token sequence: what pdr_scan gives for the same ids in `input_ids`. `salt` is 0 for a body without model, lora_path, cache_salt and extra_key;
 * else, beginning with 0, for each of these (numbers 1 to 4) that is a non-empty string: salt = XXH3_64bits_withSeed(string, salt + number). Writes at most cap,
 * *n gets their number. [pure] since 0.1
 */
PDR_API int pdr_hash_tokens(const uint32_t *ids, size_t count, uint64_t salt, const pdr_limits *limits, uint64_t *hashes, size_t cap, size_t *n);

enum { PDR_REQUEST_NO_HOLD = 1u << 0, /* send now or refuse */
       PDR_REQUEST_DRY = 1u << 1      /* decide, book nothing, hold nothing: no room, so no rewrite for a pair */ };

/* What the caller knows beside the body. */
typedef struct pdr_request {
    uint32_t struct_size;
    uint32_t flags;              /* PDR_REQUEST_* */
    uint32_t api;                /* PDR_API_* */
    uint32_t lease;              /* owner of the booking */
    uint64_t now_ns;
    uint64_t deadline_ns;        /* for holding; 0: hold_max_wait_ms */
    int32_t  priority;           /* added to the body's; higher goes first among held requests */
    uint32_t excluded;           /* ids in exclude[]: endpoints not to use (a retry) */
    uint32_t exclude[8];
    uint64_t session;            /* hash of a session header, 0: none */
    uint64_t tenant;             /* hash of who pays, 0: nobody in particular. Held requests of one that was served more than its share wait longer */
} pdr_request;

/*
 * pdr_request.tenant of a request: call it for each header. The hash of the value, without white space around it, if `name` is config->tenant_header and the value is not empty; else 0.
 * Costs one comparison when nothing is configured. The same value gives the same hash everywhere. [pure] since 0.1
 */
PDR_API uint64_t pdr_tenant_hash(const pdr_config *config, const char *name, size_t name_len, const char *value, size_t value_len);

enum { PDR_SEND = 1, PDR_HELD = 2 };
enum { PDR_LEG_PREFILL = 0, PDR_LEG_DECODE = 1 };
enum { PDR_MODE_PD = 0, PDR_MODE_SINGLE = 1 /* one server does all: only the decode leg exists */ };

/* A decision. Plain data in the caller's memory. */
typedef struct pdr_decision {
    uint32_t struct_size;
    uint32_t outcome;            /* PDR_SEND or PDR_HELD */
    uint64_t booking;            /* what was booked, or the ticket of a held request (the same number before and after release) */
    uint32_t mode;               /* PDR_MODE_* */
    uint32_t batch;              /* number of rooms; 0: a single prompt, scalar room */
    uint32_t prefill, decode;    /* endpoint ids, PDR_NONE: no such leg */
    uint32_t prefill_rank, decode_rank;       /* DP rank, PDR_NONE without DP */
    uint32_t prefill_dp_size;    /* rooms are congruent to prefill_rank modulo this */
    uint32_t prefill_port, decode_port, bootstrap_port; /* bootstrap_port 0: null */
    uint32_t prefill_flags, decode_flags;     /* PDR_ENDPOINT_* */
    uint32_t engine;             /* PDR_ENGINE_*: whose fields a rewrite writes */
    uint32_t candidates;         /* pairs that were possible */
    uint64_t room;               /* first room, 1 .. 2^63-1 */
    uint64_t room_key, room_counter; /* from which further rooms follow: pdr_decision_room() */
    uint64_t prompt_tokens;      /* exact or estimated */
    uint64_t matched_tokens;     /* believed to be cached on the prefill target */
    uint64_t wait_us, prefill_us, transfer_us, decode_us, cost_us; /* terms of the chosen pair's cost */
    uint64_t retry_after_ms;     /* with PDR_E_QUEUE_FULL and _NO_PAIR: when to come again */
    char     prefill_host[256];
    char     decode_host[256];
    char     bootstrap_host[256];
    uint64_t first_byte_us;      /* silence that the exchange bears: until the first byte of either leg; 0: only the configuration's bounds */
    uint64_t answer_us;          /* from there to decode's first byte: a whole answer's generation, if it is not streamed */
    uint64_t idle_us;            /* between two pieces of the answer */
} pdr_decision;

/*
 * Scans, matches, chooses a pair, books it, allocates the room(s): send now (PDR_SEND), or held (PDR_HELD, come back with pdr_ticket_take), or an
 * error: those of pdr_scan; PDR_E_NO_PAIR, _QUEUE_FULL, _FULL, _LEASE, _BUSY. `body` is borrowed. `prompt` (may be NULL) gets what the scan found, for the rewrite.
 * Never allocates; uses about 8 bytes of stack per max_blocks. [any] since 0.1
 */
PDR_API int pdr_route(pdr_router *r, const char *body, size_t len, const pdr_request *request, pdr_prompt *prompt, pdr_decision *out, pdr_error *err);
/* The same after pdr_scan (or with hashes of the caller's own); used for retries as well. [any] since 0.1 */
PDR_API int pdr_route_prompt(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t n, const pdr_request *request, pdr_decision *out, pdr_error *err);
/*
 * Fetches a held request: PDR_E_AGAIN still held; PDR_OK the decision, booked; PDR_E_EXPIRED or _NO_PAIR refused, the ticket is gone; PDR_E_NOT_FOUND:
 * route it anew, it was released more than 5 s ago. `hashes` as scanned (may be NULL): the chosen prefill is known to hold the prompt. [any] since 0.1
 */
PDR_API int pdr_ticket_take(pdr_router *r, uint64_t ticket, const uint64_t *hashes, size_t n, uint64_t now_ns, pdr_decision *out, pdr_error *err);
/* Gives up a held request or a booking that was never sent; the client left. Idempotent; if the lock is not to be had the next pdr_tick() does it. [any] since 0.1 */
PDR_API int pdr_ticket_cancel(pdr_router *r, uint64_t ticket, uint64_t now_ns);
/* Tickets of this lease that may go now (released or refused): at most *n, *n gets their number. Each is told once. [any] since 0.1 */
PDR_API int pdr_released(pdr_router *r, uint32_t lease, uint64_t *tickets, size_t *n);
/* Leases that have released tickets and were not told yet: the host wakes their processes. At most *n, each told once. Costs one load when there are none. [any] since 0.1 */
PDR_API int pdr_wakeups(pdr_router *r, uint32_t *leases, size_t *n);

/* ------------------------------------------------------------------------------------------------------------------ rewrite */

/* The i-th room of a decision (i < batch, or 0). [pure] since 0.1 */
PDR_API uint64_t pdr_decision_room(const pdr_decision *d, uint32_t i);
/*
 * The text that goes in at prompt->insert_at for a leg, with its comma: ,"bootstrap_host":"…","bootstrap_port":8998,"bootstrap_room":17 . `pad_to`
 * pads it with trailing spaces to a fixed width, so that a retry can overwrite it in place (PDR_E_NOSPACE if longer than pad_to). buf gets at most cap bytes, *need the length. Empty for PDR_MODE_SINGLE; PDR_E_INVALID for a decision without a room: held (it has none yet), dry, refused. [pure] since 0.1
 */
PDR_API int pdr_rewrite_tail(const pdr_decision *d, const pdr_prompt *p, int leg, size_t pad_to, char *buf, size_t cap, size_t *need);
/* A piece of a rewritten body: bytes of the original (source 0) or of the tail (source 1). */
typedef struct pdr_slice { uint32_t source, reserved; uint64_t offset, length; } pdr_slice;
#define PDR_MAX_SLICES (PDR_MAX_EDITS + 3)
/* The rewritten body as slices in order; zero-copy. *n in: capacity of out, out: number. [pure] since 0.1 */
PDR_API int pdr_rewrite_slices(const pdr_prompt *p, size_t body_len, size_t tail_len, pdr_slice *out, size_t *n);
/* The rewritten body in one buffer. *need gets the exact size; out NULL with cap 0 just asks. PDR_E_NOSPACE if cap is smaller. [pure] since 0.1 */
PDR_API int pdr_rewrite(const pdr_decision *d, const pdr_prompt *p, int leg, const char *body, size_t len, char *out, size_t cap, size_t *need);
/* 1 if a client's header of this name must never reach a worker (x-override-*, X-Data-Parallel-Rank, any case). [pure] since 0.1 */
PDR_API int pdr_header_owned(const char *name, size_t len);

/* ------------------------------------------------------------------------------------------------------------------ response */

/* Reads a response as it passes: plain JSON or SSE, over any chunk borders. Caller's memory, no pointers; never buffers the body. Its size never changes. */
typedef struct pdr_response {
    uint32_t struct_size;
    uint32_t kind;               /* PDR_RESPONSE_* */
    uint32_t events;             /* SSE events so far */
    uint32_t flags;              /* PDR_SEEN_* */
    uint64_t bytes;
    uint64_t prompt_tokens, cached_tokens, completion_tokens; /* last usage seen */
    uint64_t state[40];          /* private */
} pdr_response;
enum { PDR_RESPONSE_JSON = 1, PDR_RESPONSE_SSE = 2 };
enum { PDR_SEEN_FIRST_TOKEN = 1u << 0, PDR_SEEN_DONE = 1u << 1 /* [DONE] */, PDR_SEEN_USAGE = 1u << 2, PDR_SEEN_ERROR = 1u << 3 /* error event or abort */,
       PDR_SEEN_CACHED = 1u << 4 /* cached_tokens was there */ };
PDR_API void pdr_response_init(pdr_response *s, uint32_t kind);                      /* [object] since 0.1 */
PDR_API int  pdr_response_feed(pdr_response *s, const char *chunk, size_t len);      /* [object] since 0.1; never fails on content */
/*
 * Of a stream, after each feed: blots out, in place, in events that are errors (PDR_SEEN_ERROR) what pdr_error_mask() does; all else stays. `text` is all that was fed and is not passed on yet. *ready: so much
 * of it may go; what is left, the beginning of an error event, is given again in front of the next piece. `end` 1: nothing follows, all may go. While no error was seen it costs next to nothing. [object] since 0.1 */
PDR_API int  pdr_response_mask(pdr_response *s, const pdr_decision *d, char *text, size_t len, int end, size_t *ready);

/* ------------------------------------------------------------------------------------------------------------------ exchange */

/*
 * The one place that decides what happens when legs answer, fail or hang and clients leave. The host reports events, the exchange answers with actions; the host only carries them out. One pdr_exchange per
 * client request, caller's memory, plain data. No process that is stopped inside a call holds it up: what is to be given back then is by the next pdr_tick(), of any process; only what would have been learnt is left out.
 */
enum {
    PDR_EV_HEAD = 1,        /* leg answered: status; detail PDR_HEAD_MERGED: the client's answer takes both legs' (pdr_merge_wanted) */
    PDR_EV_BODY = 2,        /* leg's first body byte (decode: first token); a 2xx answer of decode is relayed from here on, not from its head */
    PDR_EV_END = 3,         /* leg's response is complete; detail PDR_FAIL_PROTOCOL: decode's was an error event that passed (PDR_SEEN_ERROR) */
    PDR_EV_FAILED = 4,      /* leg broke: detail PDR_FAIL_*; the host has closed it */
    PDR_EV_CLIENT_GONE = 5,
    PDR_EV_SENT = 6,        /* the host begins to send the answer to the client: no retry from here on. Report it before the first byte goes out */
    PDR_EV_TICK = 7,        /* now_ns: deadlines are checked */
    PDR_EV_SERVED = 8       /* decode's request went to another server than was named: detail is its endpoint id, PDR_NONE: an unknown one. Its place in the books moves there */
};
enum { PDR_FAIL_CONNECT = 1 /* nothing was sent; a connect timeout too */, PDR_FAIL_STALE = 2 /* a kept-alive connection was closed before an answer */, PDR_FAIL_RESET = 3, PDR_FAIL_TIMEOUT = 4, PDR_FAIL_PROTOCOL = 5 /* not HTTP, or an error inside a 200 answer (PDR_SEEN_ERROR) */ };
enum { PDR_HEAD_MERGED = 1 }; /* pdr_event.detail of a HEAD: until the answer is sent (PDR_EV_SENT) prefill is needed to its end; a failure of its is one of the attempt, even behind the end of decode's */
typedef struct pdr_event {
    uint32_t struct_size;
    uint32_t type;               /* PDR_EV_* */
    uint32_t leg;                /* PDR_LEG_* */
    uint32_t status;             /* HTTP status for PDR_EV_HEAD */
    uint32_t detail;             /* PDR_FAIL_*, PDR_HEAD_* */
    uint32_t attempt;            /* the attempt the leg belongs to (pdr_exchange.attempt when it was sent); older ones are ignored */
    uint64_t now_ns;
    uint64_t retry_after_ms;     /* from a 429 or 503 head */
    uint64_t prompt_tokens, cached_tokens, completion_tokens; /* with PDR_EV_END: usage, if `usage` is 1 */
    uint32_t usage, reserved;
    uint64_t last_byte_ns;       /* with PDR_EV_TICK: when the last piece of the relayed answer came, or now_ns while the client does not take what has come;
                                    0: not known, then silence within an answer is not noticed */
    uint32_t longest_gap_ms, reserved2; /* with PDR_EV_END: longest silence between two pieces of the answer, at least 1; 0: not measured */
} pdr_event;
enum {
    PDR_ACT_SEND = 1,       /* send this leg now (connect, request, body) */
    PDR_ACT_CANCEL = 2,     /* close this leg; its events no longer matter */
    PDR_ACT_DRAIN = 3,      /* read this leg to its end and throw it away (never close it) */
    PDR_ACT_RELAY = 4,      /* pass this leg's head and body to the client; the leg's PDR_EV_END completes the client's answer */
    PDR_ACT_RESPOND = 5,    /* answer the client: status, code (PDR_ERR_*) */
    PDR_ACT_ROUTE = 6,      /* choose a new pair (pdr_route_prompt with exclude[] of the exchange), then pdr_exchange_rerouted() */
    PDR_ACT_ABORT = 7,      /* the answer cannot be completed: error event if it is a stream, then close the client's connection */
    PDR_ACT_FINISH = 8      /* all is over: booking and room were given back; forget the exchange */
};
enum { /* machine-readable reasons in PDR_ACT_RESPOND and _ABORT; names by pdr_reason_name() */
    PDR_ERR_PREFILL_FAILED = 1, PDR_ERR_DECODE_FAILED = 2, PDR_ERR_PREFILL_TIMEOUT = 3, PDR_ERR_DECODE_TIMEOUT = 4,
    PDR_ERR_NO_PAIR = 5, PDR_ERR_QUEUE_FULL = 6, PDR_ERR_BAD_REQUEST = 7, PDR_ERR_TOO_LARGE = 8, PDR_ERR_HELD_TIMEOUT = 9
};
typedef struct pdr_action { uint32_t type, leg, status, reason; uint64_t retry_after_ms; } pdr_action;
#define PDR_MAX_ACTIONS 8

typedef struct pdr_exchange {
    uint32_t struct_size;
    uint32_t phase;              /* private */
    uint32_t attempt;            /* 0, 1, … */
    uint32_t flags;              /* private */
    uint64_t booking;
    uint32_t prefill, decode;    /* endpoint ids of the present attempt */
    uint32_t leg_state[2];       /* private */
    uint32_t leg_status[2];      /* HTTP statuses seen, 0: none */
    uint32_t excluded;
    uint32_t exclude[8];         /* endpoints that failed this request */
    uint32_t mode, lease, reserved;
    uint64_t started_ns, sent_ns, deadline_ns, retry_after_ms;
    uint64_t prompt_tokens, matched_tokens, predicted_us;
    uint64_t state[8];           /* private */
} pdr_exchange;

/* Begins with a decision whose outcome is PDR_SEND. *n in: capacity (PDR_MAX_ACTIONS suffices), out: number of actions. [object, any] since 0.1 */
PDR_API int pdr_exchange_begin(pdr_router *r, pdr_exchange *x, const pdr_decision *d, uint32_t lease, uint64_t now_ns, pdr_action *out, size_t *n);
/* Reports an event. Unknown, late and repeated events are harmless. [object, any] since 0.1 */
PDR_API int pdr_exchange_event(pdr_router *r, pdr_exchange *x, const pdr_event *ev, pdr_action *out, size_t *n);
/* After PDR_ACT_ROUTE: the new decision (outcome PDR_SEND), or NULL with the code that pdr_route_prompt gave. [object, any] since 0.1 */
PDR_API int pdr_exchange_rerouted(pdr_router *r, pdr_exchange *x, const pdr_decision *d, int code, uint64_t now_ns, pdr_action *out, size_t *n);
/* The next time at which PDR_EV_TICK may do something, UINT64_MAX: never. [object] since 0.1 */
PDR_API uint64_t pdr_exchange_deadline(const pdr_exchange *x);
/* "prefill_failed" and so on; never NULL. [pure] since 0.1 */
PDR_API const char *pdr_reason_name(uint32_t reason);
/* The sentence for clients that goes with it, without names of servers; never NULL. [pure] since 0.1 */
PDR_API const char *pdr_reason_text(uint32_t reason);
/* What pdr_error_body() is to get as `code` when a function failed with this PDR_E_*: the name of the reason that fits, or "internal_error"; never NULL. [pure] since 0.1 */
PDR_API const char *pdr_error_name(int code);
/* An OpenAI-shaped error body {"error":{"message","type","code"}} for a status, code and sentence (escaped). [pure] since 0.1 */
PDR_API int pdr_error_body(int status, const char *code, const char *message, char *buf, size_t cap, size_t *need);

/*
 * The end of a stream that cannot be completed, in its own format: an empty line (what was sent last may be half an event) and one event, {"error":{…}} for the OpenAI paths, a
 * finish reason "abort" for PDR_API_GENERATE. Send it, then close the connection: no [DONE]. At most cap bytes, *need the length, PDR_E_NOSPACE if cut. [pure] since 0.1
 */
PDR_API int pdr_error_event(uint32_t api, int status, const char *code, const char *message, char *buf, size_t cap, size_t *need);
/* The HTTP status that an engine's error event or error body names (400..599), 0: none. For what a response reader saw with PDR_SEEN_ERROR. [pure] since 0.1 */
PDR_API int pdr_error_status(const char *text, size_t len);
/*
 * Blots out, in place and with the same length, what a server's error body must not tell a client: rooms and other numbers of 15 digits and more, names and addresses of the decision's servers, the
 * bootstrap_* names, file paths. JSON stays JSON. `d` may be NULL. Give it the whole body: what is cut apart is not recognised. [pure] since 0.1
 */
PDR_API int pdr_error_mask(const pdr_decision *d, char *text, size_t len);

/* ---- whole answers: what only prefill knows of a prompt, put into decode's answer */

/*
 * With prefill and decode apart, logprobs of the prompt (return_logprob of /generate; echo with logprobs of /v1/completions) exist in prefill's answer only. For requests
 * of which pdr_merge_wanted() says 1, keep prefill's body, hold decode's back until prefill has ended, and pass it through one of the two functions: a whole JSON answer at
 * once, a stream in pieces of whole events (cut behind an empty line). Every byte that is not added stays.
 */
typedef struct pdr_merge { /* plain data; one per answer */
    uint32_t struct_size;
    uint32_t api;                /* PDR_API_GENERATE or _COMPLETIONS */
    uint32_t kind;               /* PDR_RESPONSE_* */
    uint32_t reserved;
    uint64_t seen[16];           /* private */
} pdr_merge;
PDR_API int  pdr_merge_wanted(const pdr_decision *d, const pdr_prompt *p);           /* [pure] since 0.1 */
PDR_API void pdr_merge_init(pdr_merge *m, uint32_t api, uint32_t kind);              /* [object] since 0.1 */
/*
 * The merged text as slices of decode's (source 0) and prefill's (source 1). *n in: capacity of out, out: number; PDR_E_NOSPACE if that is larger: then nothing has
 * changed. What is not an answer of a known form comes out as it is. [object] since 0.1
 */
PDR_API int pdr_merge_slices(pdr_merge *m, const char *prefill, size_t prefill_len, const char *decode, size_t decode_len, pdr_slice *out, size_t *n);
/* The same in one buffer: *need gets the exact size, PDR_E_NOSPACE if cap is smaller (then nothing has changed, ask again). [object] since 0.1 */
PDR_API int pdr_merge_text(pdr_merge *m, const char *prefill, size_t prefill_len, const char *decode, size_t decode_len, char *buf, size_t cap, size_t *need);

/* For hosts without the exchange: what became of a booking. If the lock is not to be had the next pdr_tick(), of any process, writes it down. */
enum { PDR_DONE_PREFILL = 1 /* prompt is computed: frees prefill work */, PDR_DONE_ALL = 2 /* frees everything */ };
PDR_API int pdr_booking_done(pdr_router *r, uint64_t booking, uint32_t what, uint64_t now_ns);

/* ------------------------------------------------------------------------------------------------- prefix index, exact feeding */

/* The endpoint stored / removed these blocks (chains in prompt order, hashes of the caller's own domain or of pdr_scan). [any] since 0.1 */
PDR_API int pdr_prefix_store(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n);
PDR_API int pdr_prefix_remove(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n);
PDR_API int pdr_prefix_clear(pdr_router *r, uint32_t endpoint, uint32_t rank); /* O(1) */
/* Leading blocks that a target holds. [any] since 0.1 */
PDR_API int pdr_prefix_match(pdr_router *r, uint32_t endpoint, uint32_t rank, const uint64_t *hashes, size_t n, size_t *matched);

/* --------------------------------------------------------------------------------------------------------- explain, log, status */

enum { /* why a candidate was not possible: pdr_candidate.barred */
    PDR_BARRED_NO = 0, PDR_BARRED_DOWN = 1, PDR_BARRED_DRAINING = 2, PDR_BARRED_EXCLUDED = 3, PDR_BARRED_BREAKER = 4, PDR_BARRED_KV_FULL = 5,
    PDR_BARRED_BUSY = 6 /* would be held for it */ };
/* One candidate target with every term of its cost. */
typedef struct pdr_candidate {
    uint32_t endpoint, rank;     /* rank PDR_NONE without DP */
    uint32_t role;               /* the role it was considered for: PDR_ROLE_PREFILL or _DECODE; _BOTH: to do it alone (PDR_ENDPOINT_ALONE), listed behind the others: wait is both waits, price what those who decode there lose */
    uint32_t barred;             /* PDR_BARRED_* */
    uint32_t chosen, reserved;   /* chosen 1: part of the pair */
    uint64_t matched_tokens;     /* cached there */
    uint64_t uncached_tokens;
    uint64_t wait_us;            /* prefill: work ahead; decode: queue */
    uint64_t work_us;            /* prefill of the uncached tokens */
    uint64_t price_us;           /* what the work costs others: work times mean queue */
    uint64_t transfer_us;        /* decode: from the chosen prefill */
    uint64_t cost_us;            /* the sum */
} pdr_candidate;
/*
 * What pdr_route_prompt would decide now, without deciding it: every candidate, prefill first, in id order. *n in: capacity of out, out: number of candidates (may be larger: PDR_E_NOSPACE, out filled as far as it goes). [any] since 0.1
 */
PDR_API int pdr_explain(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t hashes_n, const pdr_request *request, pdr_decision *decision, pdr_candidate *out, size_t *n, pdr_error *err);

/* Where a request stands in the queue, as it would be gone over now: arrivals, higher priorities and servers that hold its prompt change that. */
typedef struct pdr_place {
    uint32_t struct_size;
    int32_t  outcome;            /* PDR_HELD: it waits, or would have to; of one that has not arrived also PDR_SEND (the rest is 0) or PDR_E_QUEUE_FULL */
    uint32_t place;              /* so many of those held go before it; 0: it is next */
    uint32_t held;               /* held now, itself included if it is */
    uint64_t ahead_us;           /* prefill time of those before it, over all servers that compute prompts: about when its turn comes, beside what these are at now */
    uint64_t size_us;            /* its own, where most of it is cached */
    uint64_t waited_us, left_us; /* so far; until it is refused */
    int64_t  priority;           /* the request's and its body's */
    uint64_t retry_after_ms;     /* with PDR_E_QUEUE_FULL */
} pdr_place;
/* The place of a held request; PDR_E_NOT_FOUND: it is not held (any more). O(held): for people, not for every request. [any] since 0.1 */
PDR_API int pdr_ticket_place(pdr_router *r, uint64_t ticket, uint64_t now_ns, pdr_place *out, pdr_error *err);
/* The place that a request would get if it came now; errors as pdr_explain. Decides and books nothing. O(held). [any] since 0.1 */
PDR_API int pdr_explain_place(pdr_router *r, const pdr_prompt *prompt, const uint64_t *hashes, size_t hashes_n, const pdr_request *request, pdr_place *out, pdr_error *err);

/* One decision as kept in the block. */
#define PDR_LOG_CANDIDATES 12
typedef struct pdr_log_record {
    uint32_t struct_size;
    uint32_t outcome;            /* PDR_SEND, PDR_HELD, or a PDR_E_* code as int32 */
    uint64_t number;             /* 1, 2, … over the life of the block */
    uint64_t time_ns;
    uint64_t booking, room;
    uint32_t lease, attempt;
    uint32_t prefill, decode, prefill_rank, decode_rank;
    uint64_t prompt_tokens, matched_tokens;
    uint64_t cost_us, held_us;   /* held_us: time spent in the queue before this decision */
    uint32_t candidates;         /* in candidate[] */
    uint32_t candidates_total;
    pdr_candidate candidate[PDR_LOG_CANDIDATES]; /* the chosen pair first, then a few others of each side in id order */
} pdr_log_record;
/* Reads the log onwards from *cursor (0: the oldest kept); PDR_E_NOT_FOUND when there is no newer record. *lost (may be NULL) counts records that were overwritten. [any] since 0.1 */
PDR_API int pdr_log_read(pdr_router *r, uint64_t *cursor, pdr_log_record *out, uint64_t *lost);

/*
 * Recording. While somebody reads, every decision leaves on a ring in the block what it saw: the request with its block hashes, what each target held of
 * it, the state of the targets, the queue. A file of it is pdr_record_header(), what pdr_record_read() gives, pdr_record_trailer(), one after the other; the
 * same on every architecture. It has no prompts, but hashes of them, and the seed of the block: keep it as you keep logs.
 */
/* At most cap bytes, *need the length; PDR_E_NOSPACE if cut. [any] since 0.1 */
PDR_API int pdr_record_header(const pdr_router *r, void *buf, size_t cap, size_t *need);
/*
 * What was recorded since *cursor (0: from now on), whole pieces only; *n 0: nothing new. Switches recording on; it stops by itself when nobody has read for 10 s.
 * Read often: *lost (may be NULL) grows by the bytes that were overwritten before they were read. PDR_E_NOSPACE: the next piece is larger than buf
 * (record_bytes / 2 is always enough). Holds the lock while it copies: 64 KiB are a good size. [any] since 0.1
 */
PDR_API int pdr_record_read(pdr_router *r, uint64_t *cursor, uint64_t now_ns, void *buf, size_t cap, size_t *n, uint64_t *lost);
/* The end of a file that is complete. [pure] since 0.1 */
PDR_API int pdr_record_trailer(void *buf, size_t cap, size_t *need);

/* Replay: makes recorded decisions again, by the same code on the recorded state, here or on another machine. */
typedef struct pdr_replay pdr_replay;
enum { PDR_REPLAY_PARTIAL = 1u << 0 /* take a file without an end, or whose end is torn, as far as it is whole */ };
enum { PDR_REPLAY_ROUTED = 1 /* a request arrived */, PDR_REPLAY_RELEASED = 2 /* a held one was sent */, PDR_REPLAY_REFUSED = 3 /* a held one was refused */,
       PDR_REPLAY_PREFILLED = 4 /* its prompt is computed */, PDR_REPLAY_USAGE = 5 /* its answer's usage */, PDR_REPLAY_LOST = 6 /* records are missing here */,
       PDR_REPLAY_GONE = 7 /* left the queue: cancelled, expired */ };
typedef struct pdr_replay_choice {
    int32_t  outcome;             /* PDR_SEND, PDR_HELD, or a PDR_E_* code */
    uint32_t mode;                /* PDR_MODE_* */
    uint32_t prefill, decode;     /* endpoint ids, PDR_NONE */
    uint32_t prefill_rank, decode_rank;
    uint64_t prefill_us, decode_us, transfer_us, cost_us; /* of the pair chosen, also for one that has to wait */
} pdr_replay_choice;
typedef struct pdr_replay_step {
    uint32_t          struct_size;
    uint32_t          kind;       /* PDR_REPLAY_* */
    uint64_t          number;     /* of this step in the file: 1, 2, … */
    uint64_t          time_ns;
    uint64_t          ticket;     /* the booking */
    uint32_t          checked;    /* ROUTED, RELEASED, REFUSED: 1 if the decision was made again */
    uint32_t          same;       /* 1: with exactly the recorded result */
    pdr_replay_choice recorded, replayed;
    uint64_t          prompt_tokens, output_tokens; /* ROUTED: as expected then; USAGE: as the engine said */
    uint64_t          cached_tokens;                /* USAGE */
    uint64_t          prefill_us;                   /* PREFILLED: from sending to the prompt's end */
    uint64_t          block_millitokens;            /* ROUTED: tokens per prefix block, in 1/1000 */
    uint32_t          blocks, reserved; /* ROUTED: block hashes */
    uint64_t          tenant; int64_t priority; /* ROUTED: of the request, the priority with its body's */
} pdr_replay_step;
/*
 * Opens a file in memory (borrowed until pdr_replay_close). Checked first: PDR_E_BLOCK_MAGIC not such a file, _LAYOUT of another version, _CORRUPT torn or changed, with the place in the message. Allocates. [object] since 0.1
 */
PDR_API int pdr_replay_open(const void *file, size_t len, uint32_t flags, pdr_replay **out, pdr_error *err);
/*
 * The next step; PDR_E_NOT_FOUND at the end. `policy` PDR_NONE: the recorded one; else PDR_POLICY_*: what it would have chosen in the state recorded
 * (each decision by itself: the state stays the recorded one). Requests whose queueing was not recorded from its beginning are not `checked`. [object] since 0.1
 */
PDR_API int pdr_replay_next(pdr_replay *p, uint32_t policy, pdr_replay_step *out, pdr_error *err);
/* Block hashes of the request of the last step, if that was ROUTED: at most *n, *n gets their number. [object] since 0.1 */
PDR_API int pdr_replay_hashes(const pdr_replay *p, uint64_t *hashes, size_t *n);
/* Every candidate of the last step, if that was ROUTED, as pdr_explain() gives them. [object] since 0.1 */
PDR_API int pdr_replay_explain(pdr_replay *p, pdr_candidate *out, size_t *n);
/* Name and role of an endpoint at this point of the file; PDR_E_NOT_FOUND. [object] since 0.1 */
PDR_API int pdr_replay_endpoint(const pdr_replay *p, uint32_t id, pdr_endpoint *out);
/* The configuration it was recorded with. [object] since 0.1 */
PDR_API int  pdr_replay_config(const pdr_replay *p, pdr_config *out);
PDR_API void pdr_replay_close(pdr_replay *p);

/* Counters over the life of the block. */
typedef struct pdr_stats {
    uint32_t struct_size, reserved;
    uint64_t routed, held, refused_no_pair, refused_queue_full, released, expired, cancelled, retried;
    uint64_t finished, failed;           /* exchanges */
    uint64_t bookings, held_now, leases, rooms_live;
    uint64_t endpoints, targets, prefix_entries, prefix_evictions;
    uint64_t prompt_tokens, matched_tokens, cached_tokens_reported, prompt_tokens_reported;
    uint64_t lock_recoveries, leases_expired, reports, reports_failed;
    uint64_t clock_backwards;            /* calls whose now_ns was older than one before */
    uint64_t timeouts;                   /* legs given up because they were silent for too long */
    uint64_t retries_refused;            /* retries that the budget did not allow */
    uint64_t breakers_opened;            /* times that an endpoint was taken out */
    uint64_t held_longest_us;            /* that a request was ever held */
    uint64_t held_oldest_us;             /* that the oldest of those held now has waited */
} pdr_stats;
PDR_API int pdr_stats_get(pdr_router *r, pdr_stats *out);
/* Status of everything as a JSON object / as Prometheus text (names pdroute_*). At most cap bytes, *need the full length, PDR_E_NOSPACE if cut. [any] since 0.1 */
PDR_API int pdr_status_json(pdr_router *r, uint64_t now_ns, char *buf, size_t cap, size_t *need);
PDR_API int pdr_status_prometheus(pdr_router *r, uint64_t now_ns, char *buf, size_t cap, size_t *need);
/* 1 if at least one pair is usable, else 0: for readiness probes. [any] since 0.1 */
PDR_API int pdr_ready(pdr_router *r, uint64_t now_ns);

#ifdef __cplusplus
}
#endif
#endif
