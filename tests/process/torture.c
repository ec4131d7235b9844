/*
 * Workers (worker.c) on one block file; the driver kills them with SIGKILL at random instants, stops some for a second, and looks on.
 *   torture WORKER [KILLS [SECONDS [HOLDERS]]]
 * So many [3] are stopped while they hold the block's lock, for up to SECONDS [3]; half of them are then let go on, half are killed.
 * Demands: after each kill the others go on (half of the times within 100 ms, never later than a second), a stopped worker delays no call beyond the
 * lock's two seconds, the block is sound whenever asked, no room comes twice, and when all are dead and their leases have run out nothing is booked.
 * Bounds that end the test are counted in beats: a process beside the others (the pacer) sleeps for a millisecond, again and again, so that a beat is a millisecond on a machine that
 * has time, and as much longer as everybody waits for a processor on one that has none.
 */
#include "process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#define MS 1000000ull

enum { TTL_MS = 1500, STOPS = 6, CALL_LIMIT_BEATS = 4000, GO_ON_BEATS = 1000, HOLDER_BEATS = 100 };

static char        dir[64], block_path[96], board_path[96];
static const char *worker_path;
static board      *shared;
static pdr_router *router;
static pid_t       pid[WORKERS], pacer;
static uint64_t    lives;

static void clean(void)
{
    for (int i = 0; i < WORKERS; i++)
        if (pid[i] > 0) kill(pid[i], SIGKILL), waitpid(pid[i], NULL, 0);
    if (pacer > 0) kill(pacer, SIGKILL), waitpid(pacer, NULL, 0);
    unlink(block_path);
    unlink(board_path);
    rmdir(dir);
}

#define FAIL(...) do { fprintf(stderr, "FAIL " __VA_ARGS__); fputc('\n', stderr); clean(); exit(1); } while (0)

static void nap_ms(uint64_t ms) { poll(NULL, 0, (int)ms); }
static uint64_t beats(void) { return __atomic_load_n(&shared->beats, __ATOMIC_RELAXED); }

static void start_pacer(void)
{
    pacer = fork();
    if (pacer < 0) FAIL("fork: %s", strerror(errno));
    while (!pacer) {
        nap_ms(1);
        __atomic_add_fetch(&shared->beats, 1, __ATOMIC_RELAXED);
        if (getppid() == 1) _exit(0); /* the driver was killed */
    }
}

static uint64_t calls_but(int slot)
{
    uint64_t sum = 0;
    for (int i = 0; i < WORKERS; i++)
        if (i != slot) sum += __atomic_load_n(&shared->worker[i].calls, __ATOMIC_RELAXED);
    return sum;
}

static void spawn(int slot)
{
    char number[12], seed[24];
    snprintf(number, sizeof number, "%d", slot);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)++lives);
    shared->worker[slot].began_ns = 0;
    pid[slot] = fork();
    if (pid[slot] < 0) FAIL("fork: %s", strerror(errno));
    if (!pid[slot]) {
        execl(worker_path, worker_path, block_path, board_path, number, seed, (char *)NULL);
        _exit(3);
    }
}

/* No worker has ended by itself, no call takes too long. `stopped`: the slot that may. */
static void look_after(int stopped)
{
    for (int i = 0; i < WORKERS; i++) {
        if (shared->worker[i].failure[0]) FAIL("worker %d: %s", i, shared->worker[i].failure);
        if (waitpid(pid[i], NULL, WNOHANG) == pid[i]) {
            pid[i] = 0;
            FAIL("worker %d ended by itself: %s", i, shared->worker[i].failure);
        }
        uint64_t began = __atomic_load_n(&shared->worker[i].began_ns, __ATOMIC_ACQUIRE), beat = __atomic_load_n(&shared->worker[i].began_beat, __ATOMIC_RELAXED);
        uint64_t now = pdr_host_now_ns(), beat_now = beats();
        if (i == stopped || !began || began != __atomic_load_n(&shared->worker[i].began_ns, __ATOMIC_RELAXED)) continue;
        if (beat_now > beat + CALL_LIMIT_BEATS) FAIL("worker %d has been in one call (worker.c:%u) for %llu ms, %llu beats", i, shared->worker[i].line, (unsigned long long)((now - began) / MS), (unsigned long long)(beat_now - beat));
    }
}

static void check(const char *when)
{
    pdr_error err;
    pdr_init_struct(&err, sizeof err);
    if (pdr_router_check(router, &err)) FAIL("%s: %s", when, err.message);
}

static pdr_stats stats(void)
{
    pdr_stats s;
    pdr_init_struct(&s, sizeof s);
    int code = pdr_stats_get(router, &s);
    if (code) FAIL("stats: %s", pdr_strerror(code));
    return s;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void kill_many(unsigned kills)
{
    uint64_t *after = calloc(2 * kills, sizeof *after), *beat_of = after + kills;
    if (!after) FAIL("no memory");
    for (unsigned k = 0; k < kills; k++) {
        int slot = rand() % WORKERS;
        usleep((useconds_t)(20000 + rand() % 150000));
        look_after(-1);
        kill(pid[slot], SIGKILL);
        waitpid(pid[slot], NULL, 0);
        uint64_t began = pdr_host_now_ns(), beat = beats(), seen = calls_but(slot);
        while (calls_but(slot) < seen + WORKERS) { /* more than the calls that were under way */
            after[k] = pdr_host_now_ns() - began;
            beat_of[k] = beats() - beat;
            if (beat_of[k] > GO_ON_BEATS) FAIL("nobody went on within %llu ms after kill %u, %d beats", (unsigned long long)(after[k] / MS), k, GO_ON_BEATS);
            nap_ms(1);
        }
        spawn(slot);
        if (k % 20 == 10) check("between kills");
    }
    qsort(after, kills, sizeof *after, compare);
    qsort(beat_of, kills, sizeof *after, compare);
    printf("%u kills: the others went on after %.1f ms (median), %.1f ms (worst)\n", kills, (double)after[kills / 2] / 1e6, (double)after[kills - 1] / 1e6);
    if (beat_of[kills / 2] > 100) FAIL("half of the times the others did not go on within 100 ms");
    free(after);
}

static uint64_t busy_answers(void)
{
    uint64_t busy = 0;
    for (int i = 0; i < WORKERS; i++) busy += __atomic_load_n(&shared->worker[i].code[-PDR_E_BUSY], __ATOMIC_RELAXED);
    return busy;
}

static void stop_some(void)
{
    for (int k = 0; k < STOPS; k++) {
        int      slot = k % WORKERS;
        uint64_t seen;
        usleep((useconds_t)(rand() % 100000));
        kill(pid[slot], SIGSTOP);
        seen = calls_but(slot);
        for (int i = 0; i < 20; i++) nap_ms(50), look_after(slot);
        kill(pid[slot], SIGCONT);
        for (uint64_t beat = beats(); calls_but(slot) == seen && beats() < beat + 3000;) nap_ms(50);
        if (calls_but(slot) == seen) FAIL("nobody goes on after worker %d was stopped for a second", slot);
        nap_ms(100);
        look_after(-1);
    }
    printf("%d stops of a second: PDR_E_BUSY came %llu times\n", STOPS, (unsigned long long)busy_answers());
    check("after the stops");
}

/* Stops workers until one is stopped that has the lock: nobody else's calls return then, and this process does not get it either. Its slot, stopped. */
static int stop_a_holder(void)
{
    for (int tries = 0; tries < 2000; tries++) {
        int      slot = rand() % WORKERS;
        uint64_t seen, beat;
        pdr_stats s;
        usleep((useconds_t)(rand() % 3000));
        kill(pid[slot], SIGSTOP);
        waitpid(pid[slot], NULL, WUNTRACED);
        seen = calls_but(slot), beat = beats();
        while (beats() < beat + HOLDER_BEATS && calls_but(slot) < seen + WORKERS) nap_ms(10); /* more than were just ending */
        pdr_init_struct(&s, sizeof s);
        if (calls_but(slot) < seen + WORKERS && pdr_stats_get(router, &s) == PDR_E_BUSY) return slot;
        kill(pid[slot], SIGCONT);
        look_after(-1);
    }
    FAIL("no worker was ever stopped with the lock");
}

static uint64_t longest_call(uint64_t start)
{
    uint64_t longest = 0;
    for (int i = 0; i < WORKERS; i++) {
        uint64_t own = __atomic_load_n(&shared->worker[i].longest_ns, __ATOMIC_RELAXED);
        if (own > longest) longest = own;
        if (start) __atomic_store_n(&shared->worker[i].longest_ns, 0, __ATOMIC_RELAXED);
    }
    return longest;
}

static void stop_holders(unsigned holders, unsigned seconds)
{
    uint64_t before = busy_answers(), worst = 0, longest = 0;
    for (unsigned k = 0; k < holders; k++) {
        int      slot = (longest_call(1), stop_a_holder()), last = k % 2;
        uint64_t end = pdr_host_now_ns() + (k ? 1000 + (uint64_t)rand() % (seconds * 1000 - 999) : seconds * 1000) * MS;
        uint64_t began, beat, seen;
        while (pdr_host_now_ns() < end) nap_ms(20), look_after(slot);
        if (longest_call(0) > longest) longest = longest_call(0); /* before it goes on: its own call took as long as it was stopped */
        kill(pid[slot], last ? SIGKILL : SIGCONT);
        began = pdr_host_now_ns(), beat = beats(), seen = calls_but(slot);
        if (last) waitpid(pid[slot], NULL, 0);
        while (calls_but(slot) < seen + WORKERS) {
            if (beats() > beat + GO_ON_BEATS) FAIL("nobody goes on after worker %d, stopped with the lock, %s", slot, last ? "was killed" : "went on");
            nap_ms(1);
        }
        if (pdr_host_now_ns() - began > worst) worst = pdr_host_now_ns() - began;
        if (last) spawn(slot);
        nap_ms(100);
        look_after(-1);
        check("after a stop with the lock");
    }
    printf("%u stops with the lock, of up to %u s: PDR_E_BUSY came %llu times, the longest call took %.1f s; afterwards the others went on within %.1f ms\n", holders, seconds,
           (unsigned long long)(busy_answers() - before), (double)longest / 1e9, (double)worst / 1e6);
    if (holders && busy_answers() == before) FAIL("whoever waited for a stopped process for longer than the lock's time should have been told");
}

/* Everybody is dead: their leases run out, and nothing is left. */
static void all_dead(unsigned deaths)
{
    uint64_t routed = 0, calls = calls_but(-1);
    for (int i = 0; i < WORKERS; i++) {
        kill(pid[i], SIGKILL);
        waitpid(pid[i], NULL, 0);
        pid[i] = 0;
        if (shared->worker[i].failure[0]) FAIL("worker %d: %s", i, shared->worker[i].failure);
        routed += shared->worker[i].routed;
    }
    check("all dead");
    pdr_stats s = stats();
    printf("%llu calls, %llu routed, %llu held, %llu finished, %llu failed; %llu leases expired, %llu locks recovered; left: %llu bookings, %llu leases\n",
           (unsigned long long)calls, (unsigned long long)s.routed, (unsigned long long)s.held, (unsigned long long)s.finished, (unsigned long long)s.failed,
           (unsigned long long)s.leases_expired, (unsigned long long)s.lock_recoveries, (unsigned long long)s.bookings, (unsigned long long)s.leases);
    if (s.routed < routed || s.routed > routed + deaths) FAIL("%llu routed by the workers' count, at most %u more are possible", (unsigned long long)routed, deaths);
    if (s.finished + s.failed > s.routed) FAIL("more exchanges ended than were routed");
    if (!s.held || !s.finished || !s.failed || s.lock_recoveries > deaths) FAIL("the counters are not plausible");
    nap_ms(TTL_MS + 100);
    if (pdr_tick(router, pdr_host_now_ns())) FAIL("tick");
    s = stats();
    if (s.bookings || s.rooms_live || s.held_now || s.leases)
        FAIL("left over: %llu bookings, %llu rooms, %llu held, %llu leases", (unsigned long long)s.bookings, (unsigned long long)s.rooms_live,
             (unsigned long long)s.held_now, (unsigned long long)s.leases);
    for (uint32_t cursor = 0, id; !pdr_endpoint_next(router, &cursor, &id);) {
        pdr_target_status t;
        pdr_init_struct(&t, sizeof t);
        for (uint32_t rank = 0; !pdr_target_get(router, id, rank, pdr_host_now_ns(), &t); rank++)
            if (t.prefill_requests || t.prefill_tokens || t.decode_requests || t.decode_tokens) FAIL("server %u still counts requests", id);
    }
    check("at the end");
}

int main(int argc, char **argv)
{
    pdr_config config;
    pdr_error  err;
    pdr_host  *host;
    if (argc < 2) return 2;
    worker_path = argv[1];
    unsigned kills = argc > 2 ? (unsigned)atoi(argv[2]) : 200;
    unsigned seconds = argc > 3 ? (unsigned)atoi(argv[3]) : 3, holders = argc > 4 ? (unsigned)atoi(argv[4]) : 3;
    if (!kills || !seconds) return 2;
    srand((unsigned)getpid());
    snprintf(dir, sizeof dir, "%s/pdrtortureXXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(dir)) return 2;
    snprintf(block_path, sizeof block_path, "%s/block", dir);
    snprintf(board_path, sizeof board_path, "%s/board", dir);
    pdr_init_struct(&config, sizeof config);
    pdr_init_struct(&err, sizeof err);
    config.max_endpoints = 16;
    config.max_targets = 32;
    config.max_bookings = 256;
    config.max_leases = 64;
    config.max_held = 16;
    config.index_entries = 1 << 12;
    config.hold_window_tokens = 2000;
    config.hold_max_wait_ms = 500;
    config.lease_ttl_ms = TTL_MS;
    config.breaker_open_ms = 20;
    config.log_entries = 32;
    if (!(shared = board_map(board_path, 1))) FAIL("board: %s", strerror(errno));
    if (pdr_host_open(block_path, &config, PDR_HOST_CREATE, &host, &router, &err)) FAIL("%s", err.message);
    for (uint32_t i = 0; i < PREFILLS + DECODES; i++) {
        pdr_endpoint e = server(i);
        if (pdr_endpoint_put(router, &e, pdr_host_now_ns(), NULL, &err)) FAIL("%s", err.message);
    }
    start_pacer();
    for (int i = 0; i < WORKERS; i++) spawn(i);
    kill_many(kills);
    stop_some();
    stop_holders(holders, seconds);
    all_dead(kills + holders + WORKERS);
    pdr_host_close(host);
    clean();
    printf("sound\n");
    return 0;
}
