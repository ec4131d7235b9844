/*
 * A client that counts: soak_client PORT REQUESTS CONNECTIONS BODY…. Sends the body files in turn over keep-alive connections, one request at a time on each, and prints one line a tenth:
 * requests, then for each status and machine-readable error code how often, then p50 and p99 in microseconds. Every answer is read to its end;
 * whatever is not HTTP with a length or chunks, or a connection that breaks within an answer, is counted as "broken".
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 64, TENTHS = 10, BUCKETS = 20000 /* of 50 us */ };

typedef struct kind { char name[64]; uint64_t n; } kind;

static uint64_t        wanted, begun;
static int             port;
static char          **bodies;
static size_t         *lengths;
static int             bodies_n;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static kind            kinds[KINDS];
static uint32_t        histogram[TENTHS][BUCKETS];
static uint64_t        done[TENTHS];

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000;
}

static void count(const char *name, uint64_t request, uint64_t us)
{
    uint64_t tenth = request * TENTHS / wanted;
    int      i = 0;
    pthread_mutex_lock(&lock);
    while (i < KINDS - 1 && kinds[i].n && strcmp(kinds[i].name, name)) i++;
    if (!kinds[i].n) snprintf(kinds[i].name, sizeof kinds[i].name, "%s", name);
    kinds[i].n++;
    histogram[tenth][us / 50 < BUCKETS ? us / 50 : BUCKETS - 1]++;
    done[tenth]++;
    pthread_mutex_unlock(&lock);
}

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int                fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a)) close(fd), fd = -1;
    return fd;
}

static int send_all(int fd, const char *p, size_t n, int more)
{
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

/* One answer into `name` as "200" or "503 no_pair"; *keep 0: the connection ends with it. -1 broken. */
static int read_answer(int fd, char *buf, size_t cap, char *name, size_t name_cap, int *keep)
{
    size_t n = 0, need = 0;
    char  *head_end = NULL, *p, code[40] = "";
    for (;;) {
        ssize_t k = recv(fd, buf + n, cap - 1 - n, 0);
        if (k <= 0) return -1;
        n += (size_t)k;
        buf[n] = 0;
        if (!head_end && (head_end = strstr(buf, "\r\n\r\n"))) {
            *head_end = 0;
            if ((p = strcasestr(buf, "\r\ncontent-length:"))) need = (size_t)(head_end - buf) + 4 + strtoull(p + 17, NULL, 10);
            else if (!strcasestr(buf, "\r\ntransfer-encoding: chunked")) return -1;
            *keep = !strcasestr(buf, "\r\nconnection: close");
        }
        if (!head_end) continue;
        if (need ? n >= need : n > 5 && !strcmp(buf + n - 5, "0\r\n\r\n")) break;
        if (n == cap - 1) return -1;
    }
    if (strncmp(buf, "HTTP/1.1 ", 9) || (need && n != need)) return -1;
    if (buf[9] != '2' && (p = strstr(head_end + 4, "\"code\":\""))) snprintf(code, sizeof code, " %.30s", p + 8), code[strcspn(code, "\"")] = 0;
    snprintf(name, name_cap, "%.3s%s", buf + 9, code);
    return 0;
}

static void *work(void *unused)
{
    size_t cap = 1 << 20;
    char  *buf = malloc(cap), name[64], head[256];
    int    fd = -1, keep = 0;
    (void)unused;
    for (;;) {
        uint64_t i = __atomic_fetch_add(&begun, 1, __ATOMIC_RELAXED);
        if (i >= wanted || !buf) break;
        int      b = (int)(i % (uint64_t)bodies_n), h = snprintf(head, sizeof head, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", lengths[b]);
        uint64_t began = now_us();
        if (fd < 0) fd = dial();
        if (fd < 0 || send_all(fd, head, (size_t)h, 1) || send_all(fd, bodies[b], lengths[b], 0) || read_answer(fd, buf, cap, name, sizeof name, &keep)) {
            count("broken", i, now_us() - began);
            keep = 0;
        } else {
            count(name, i, now_us() - began);
        }
        if (!keep && fd >= 0) close(fd), fd = -1;
    }
    if (fd >= 0) close(fd);
    free(buf);
    return NULL;
}

static uint64_t percentile(int tenth, uint64_t permille)
{
    uint64_t sum = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((sum += histogram[tenth][i]) * 1000 >= done[tenth] * permille) return (uint64_t)i * 50;
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t   thread[256];
    int         n = argc > 4 ? atoi(argv[3]) : 0;
    struct stat st;
    if (n < 1 || n > 256) return fprintf(stderr, "usage: soak_client PORT REQUESTS CONNECTIONS BODY…\n"), 2;
    port = atoi(argv[1]);
    wanted = strtoull(argv[2], NULL, 10);
    bodies_n = argc - 4;
    bodies = calloc((size_t)bodies_n, sizeof *bodies);
    lengths = calloc((size_t)bodies_n, sizeof *lengths);
    if (!bodies || !lengths || wanted < TENTHS) return 2;
    for (int i = 0; i < bodies_n; i++) {
        FILE *f = fopen(argv[4 + i], "rb");
        if (!f || fstat(fileno(f), &st) || !(bodies[i] = malloc((size_t)st.st_size + 1))) return perror(argv[4 + i]), 2;
        lengths[i] = fread(bodies[i], 1, (size_t)st.st_size, f);
        fclose(f);
    }
    for (int i = 0; i < n; i++)
        if (pthread_create(&thread[i], NULL, work, NULL)) return 2;
    for (int t = 0; t < TENTHS; t++) {
        for (;;) { /* a tenth is over when all of its answers are there */
            pthread_mutex_lock(&lock);
            uint64_t have = done[t], all = (wanted * (uint64_t)(t + 1) + TENTHS - 1) / TENTHS - (wanted * (uint64_t)t + TENTHS - 1) / TENTHS;
            pthread_mutex_unlock(&lock);
            if (have >= all) break;
            usleep(20000);
        }
        pthread_mutex_lock(&lock);
        printf("{\"tenth\":%d,\"requests\":%llu,\"p50_us\":%llu,\"p99_us\":%llu", t + 1, (unsigned long long)done[t], (unsigned long long)percentile(t, 500), (unsigned long long)percentile(t, 990));
        printf(",\"answers\":{");
        for (int i = 0; i < KINDS && kinds[i].n; i++) printf("%s\"%s\":%llu", i ? "," : "", kinds[i].name, (unsigned long long)kinds[i].n);
        printf("}}\n");
        pthread_mutex_unlock(&lock);
        fflush(stdout);
    }
    for (int i = 0; i < n; i++) pthread_join(thread[i], NULL);
    return 0;
}
