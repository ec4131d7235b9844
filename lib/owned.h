/*
 * The request members that only a router may set. A client's own are taken out of every body on every path, whatever
 * their spelling, because they decide whose KV cache a decode server reads and which rank runs a request. Source:
 * sgl-project/sglang python/sglang/srt/managers/io_struct.py (GenerateReqInput) and
 * python/sglang/srt/entrypoints/openai/protocol.py; kv_transfer_params: vLLM and llm-d's SGLang connector.
 */
#ifndef PDR_OWNED_H
#define PDR_OWNED_H

#include <stddef.h>

#define PDR_OWNED_COUNT 9
#define PDR_OWNED_MAX   22 /* length of the longest name */
extern const char *const pdr_owned_names[PDR_OWNED_COUNT];

/* 1 if a member of that (unescaped) name belongs to the router. [pure] */
int pdr_owned_name(const char *name, size_t len);

#endif
