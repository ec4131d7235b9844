/*
 * A mutator that knows JSON, for targets whose input is a few bytes and then a body: include it after defining MUTATOR_PREFIX, the number of those bytes.
 * Random changes of bytes nearly always end in "not JSON" at the first quote; these keep the shape: a value or a member (found by matching brackets and
 * strings, so that damaged JSON works as well) is doubled, dropped, moved, wrapped, replaced by something awkward, or a member that the router owns is
 * put in, in a random spelling. Every third time the fuzzer's own mutations are used, so that nothing is out of reach.
 */
#ifndef PDR_JSON_MUTATOR_H
#define PDR_JSON_MUTATOR_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) __attribute__((weak)); /* there under libFuzzer only */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static unsigned mutator_random(uint64_t *state, size_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return n ? (unsigned)((*state >> 33) % n) : 0;
}

typedef struct mutator_text { uint8_t *p; size_t n, cap; } mutator_text;

/* Puts `len` bytes in place of [at, at + gone); not if they do not fit. */
static void mutator_splice(mutator_text *t, size_t at, size_t gone, const void *with, size_t len)
{
    char copy[4096];
    if (t->n - gone + len > t->cap || len > sizeof copy) return;
    memcpy(copy, with, len); /* it may be part of the text */
    memmove(t->p + at + len, t->p + at + gone, t->n - at - gone);
    memcpy(t->p + at, copy, len);
    t->n = t->n - gone + len;
}

/* Behind the value that begins at `at`. */
static size_t mutator_value_end(const mutator_text *t, size_t at)
{
    unsigned depth = 0;
    for (size_t i = at; i < t->n; i++) {
        uint8_t c = t->p[i];
        if (c == '"') {
            for (i++; i < t->n && t->p[i] != '"'; i++) i += t->p[i] == '\\';
            if (!depth) return i < t->n ? i + 1 : t->n;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (!depth) return i;
            if (!--depth) return i + 1;
        } else if (c == ',' && !depth) {
            return i;
        }
    }
    return t->n;
}

/* Where some value, member or element begins: behind one of { [ , : and white space. */
static size_t mutator_any_begin(const mutator_text *t, uint64_t *random, const char *behind)
{
    size_t from = mutator_random(random, t->n);
    for (size_t i = 0; i < t->n; i++) {
        size_t at = (from + i) % t->n;
        if (!t->p[at] || !strchr(behind, t->p[at])) continue;
        for (at++; at < t->n && (t->p[at] == ' ' || t->p[at] == '\n'); at++) continue;
        return at;
    }
    return 0;
}

static void mutator_insert_owned(mutator_text *t, uint64_t *random)
{
    static const char *const keys[] = {"bootstrap_host", "bootstrap_port", "bootstrap_room", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank",
                                       "bootstrap_pair_key", "decode_tp_size", "kv_transfer_params", "bootstrap_rooms", "n", "stream", "max_tokens", "priority", "text", "prompt",
                                       "input_ids", "messages", "return_logprob", "sampling_params", "user", "model"};
    static const char *const values[] = {"null", "1", "-0", "[1,2]", "{}", "\"a\"", "[\"a\",\"b\"]", "[[1],[2]]", "{\"bootstrap_room\":1}", "1.0", "2", "9007199254740993", "true",
                                         "[{\"role\":\"user\",\"content\":\"x\"}]", "{\"n\":2}"};
    char        text[300];
    size_t      n = 0;
    const char *key = keys[mutator_random(random, sizeof keys / sizeof *keys)];
    unsigned    spelled = mutator_random(random, 4) ? 0 : mutator_random(random, 1u << 20);
    text[n++] = '"';
    for (size_t i = 0; key[i]; i++) n += (size_t)snprintf(text + n, sizeof text - n, spelled >> (i % 20) & 1 ? "\\u%04x" : "%c", key[i]);
    n += (size_t)snprintf(text + n, sizeof text - n, "\"%s:%s%s,", mutator_random(random, 8) ? "" : " \n", mutator_random(random, 8) ? "" : "\t",
                          values[mutator_random(random, sizeof values / sizeof *values)]);
    mutator_splice(t, mutator_any_begin(t, random, mutator_random(random, 3) ? "{," : "{"), 0, text, n);
}

static void mutator_step(mutator_text *t, uint64_t *random)
{
    static const char *const awkward[] = {"0", "-0", "1e400", "-1.5E-9", "18446744073709551616", "0.1000000000000000055511151231257827", "\"\"", "\"\\ud83d\\ude00\"", "\"\\ud800\"",
                                          "\"\\u0000\"", "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", "\"\\\\\\\"\"", "{}", "[]", "[[[[]]]]", "{\"\":{\"\":{}}}", "null", "true", "[null]", "tru", "01", "1.",
                                          "\"\x7f\"", "NaN"};
    static const char *const spaces[] = {" ", "\n", "\t", "\r\n", "    "};
    size_t at = mutator_any_begin(t, random, ":,[{"), end = mutator_value_end(t, at), other, other_end;
    const char *text;
    char        copy[2048];
    switch (mutator_random(random, 10)) {
    case 0: /* doubled, with a comma */
        if (end - at + 1 > sizeof copy) return;
        memcpy(copy, t->p + at, end - at);
        copy[end - at] = ',';
        mutator_splice(t, at, 0, copy, end - at + 1);
        return;
    case 1: /* dropped, with a comma if there is one */
        mutator_splice(t, at, end - at + (end < t->n && t->p[end] == ','), "", 0);
        return;
    case 2: /* replaced by another one */
        other = mutator_any_begin(t, random, ":,[{");
        other_end = mutator_value_end(t, other);
        mutator_splice(t, at, end - at, t->p + other, other_end - other);
        return;
    case 3:
    case 4:
        text = awkward[mutator_random(random, sizeof awkward / sizeof *awkward)];
        mutator_splice(t, at, end - at, text, strlen(text));
        return;
    case 5: /* wrapped */
        if (mutator_random(random, 2)) {
            mutator_splice(t, end, 0, "]", 1);
            mutator_splice(t, at, 0, "[", 1);
        } else {
            mutator_splice(t, end, 0, "}", 1);
            mutator_splice(t, at, 0, "{\"a\":", 5);
        }
        return;
    case 6:
        text = spaces[mutator_random(random, sizeof spaces / sizeof *spaces)];
        mutator_splice(t, mutator_random(random, 2) ? at : end, 0, text, strlen(text));
        return;
    case 7: /* a longer text: past the sizes at which the scanner's code changes */
        memset(copy, 'a' + (char)mutator_random(random, 26), sizeof copy);
        at = mutator_any_begin(t, random, "\"");
        mutator_splice(t, at, 0, copy, 1u << mutator_random(random, 11));
        return;
    default:
        mutator_insert_owned(t, random);
        return;
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t random = seed * 0x9E3779B97F4A7C15u + 1;
    if (size < MUTATOR_PREFIX + 2 || !mutator_random(&random, 3)) return LLVMFuzzerMutate(data, size, max_size);
    mutator_text t = {data + MUTATOR_PREFIX, size - MUTATOR_PREFIX, max_size - MUTATOR_PREFIX};
    for (unsigned i = 0; i < MUTATOR_PREFIX; i++)
        if (!mutator_random(&random, 8)) data[i] = (uint8_t)mutator_random(&random, 256);
    for (unsigned n = 1 + mutator_random(&random, 4); n && t.n; n--) mutator_step(&t, &random);
    return MUTATOR_PREFIX + t.n;
}

#endif
