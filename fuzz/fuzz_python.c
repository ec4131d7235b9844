/*
 * The rewrite against Python. A process of Python (judge.py) parses the body and the rewritten one with its own json and says whether they are the same but for
 * the owned members, and whether it agrees on what is JSON. Bytes 0..3 shape the decision as in fuzz_rewrite.c, the rest is a body.
 * Without python3 nothing is judged.
 */
#include "json.h"
#include "pdroute/pdroute.h"

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MUTATOR_PREFIX 4
#include "json_mutator.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static FILE *to_judge, *from_judge;

static int hire(void)
{
    int ask[2], answer[2];
    if (to_judge) return 1;
    signal(SIGPIPE, SIG_IGN);
    if (pipe(ask) || pipe(answer)) abort();
    if (!fork()) {
        dup2(ask[0], 0);
        dup2(answer[1], 1);
        for (int fd = 3; fd < 64; fd++) close(fd);
        execl("/usr/bin/python3", "python3", "-S", PDR_FUZZ_DIR "/judge.py", (char *)NULL);
        _exit(127);
    }
    close(ask[0]);
    close(answer[1]);
    to_judge = fdopen(ask[1], "w");
    from_judge = fdopen(answer[0], "r");
    return to_judge && from_judge;
}

static void number(uint32_t n) { fwrite(&n, sizeof n, 1, to_judge); }

static void judge(uint32_t accepted, const char *body, size_t len, const char *out, size_t out_len, const char *tail, size_t tail_len)
{
    char     line[256], *answered;
    sigset_t alarm, before;
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM); /* libFuzzer's clock would interrupt what is read and written here */
    sigprocmask(SIG_BLOCK, &alarm, &before);
    number(accepted);
    number((uint32_t)len);
    number((uint32_t)out_len);
    number((uint32_t)tail_len);
    fwrite(body, 1, len, to_judge);
    fwrite(out, 1, out_len, to_judge);
    fwrite(tail, 1, tail_len, to_judge);
    fflush(to_judge);
    answered = fgets(line, sizeof line, from_judge);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (!answered) {
        fprintf(stderr, "no judge (python3 is missing, or it failed)\n");
        if (access("/usr/bin/python3", X_OK)) exit(0);
        abort();
    }
    if (!strcmp(line, "ok\n")) return;
    fprintf(stderr, "%s%.*s\n%.*s\n", line, (int)len, body, (int)out_len, out);
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pdr_prompt   p;
    pdr_decision d;
    if (size < 4 || !hire()) return 0;
    const char *body = (const char *)data + 4;
    size_t      len = size - 4, need, tail_len;
    int         json = pdr_json_check(body, len, 512, NULL);
    pdr_init_struct(&p, sizeof p);
    pdr_init_struct(&d, sizeof d);
    if (json == PDR_E_TOO_DEEP) return 0; /* a limit of ours, not of JSON */
    int code = pdr_scan(body, len, PDR_API_GENERATE + (data[0] >> 6), NULL, &p, NULL, 0, NULL);
    if (code) {
        judge(json == PDR_OK, body, len, "", 0, "", 0);
        return 0;
    }
    d.mode = data[0] & 1 ? PDR_MODE_SINGLE : PDR_MODE_PD;
    d.batch = p.batch > 1 ? p.batch : 0;
    d.prefill_rank = d.decode_rank = PDR_NONE;
    if (data[0] & 2) {
        d.prefill_dp_size = 1 + data[1] % 16u;
        d.prefill_rank = data[2] % d.prefill_dp_size;
    }
    if (data[0] & 4) d.decode_rank = data[1];
    d.bootstrap_port = data[0] & 8 ? 0 : 8998;
    d.room = 1 + (uint64_t)data[3] * 0x7fffffffffffffu;
    d.room_key = data[3];
    d.room_counter = data[2];
    strcpy(d.bootstrap_host, data[0] & 16 ? "a\"b\\\x01" : "fd00::1");
    int leg = data[0] & 32 ? PDR_LEG_PREFILL : PDR_LEG_DECODE;
    if (pdr_rewrite(&d, &p, leg, body, len, NULL, 0, &need) || pdr_rewrite_tail(&d, &p, leg, 0, NULL, 0, &tail_len)) abort();
    char *out = malloc(need + 1), *tail = malloc(tail_len + 1);
    if (!out || !tail || pdr_rewrite(&d, &p, leg, body, len, out, need, &need) || pdr_rewrite_tail(&d, &p, leg, 0, tail, tail_len, &tail_len)) abort();
    judge(json == PDR_OK, body, len, out, need, tail, tail_len);
    free(out);
    free(tail);
    return 0;
}
