/* Routes one request: who prefills, who decodes, and what to send to each. cc route.c $(pkg-config --cflags --libs libpdroute) */
#include <pdroute/pdroute.h>
#include <stdio.h>
#include <stdlib.h>

#define CHAT "{\"model\": \"/models/Qwen3-32B\", \"messages\": [{\"role\": \"user\", \"content\": \"你好,这是一个测试\"}], \"max_tokens\": 50 }"

static int failed(const char *what, const pdr_error *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    return 1;
}

int main(void)
{
    pdr_config    config = {.struct_size = sizeof config, .seed = 1}; /* take the seed from the system's random source */
    pdr_error     err = {.struct_size = sizeof err};
    pdr_endpoint  servers[] = {{.struct_size = sizeof(pdr_endpoint), .role = PDR_ROLE_PREFILL, .port = 8000, .host = "10.0.0.1"},
                               {.struct_size = sizeof(pdr_endpoint), .role = PDR_ROLE_PREFILL, .port = 8000, .host = "10.0.0.2"},
                               {.struct_size = sizeof(pdr_endpoint), .role = PDR_ROLE_DECODE, .port = 8000, .host = "10.0.1.1"}};
    pdr_request   request = {.struct_size = sizeof request, .api = PDR_API_CHAT, .now_ns = 1};
    pdr_prompt    prompt = {.struct_size = sizeof prompt};
    pdr_decision  d = {.struct_size = sizeof d};
    pdr_router   *r;
    char          body[1024];
    size_t        size = pdr_router_size(&config), length;
    void         *memory = aligned_alloc(64, size);

    if (!memory || pdr_router_init(memory, size, &config, 1, &r, &err)) return failed("init", &err);
    for (int i = 0; i < 3; i++)
        if (pdr_endpoint_put(r, &servers[i], 1, NULL, &err)) return failed("endpoint", &err);
    if (pdr_lease_open(r, "example", 1, &request.lease, &err)) return failed("lease", &err);
    if (pdr_route(r, CHAT, sizeof CHAT - 1, &request, &prompt, &d, &err)) return failed("route", &err);
    printf("prefill %s:%u, decode %s:%u, room %llu\n", d.prefill_host, d.prefill_port, d.decode_host, d.decode_port, (unsigned long long)d.room);
    for (int leg = PDR_LEG_PREFILL; leg <= PDR_LEG_DECODE; leg++) {
        if (pdr_rewrite(&d, &prompt, leg, CHAT, sizeof CHAT - 1, body, sizeof body, &length)) return 1;
        printf("%.*s\n", (int)length, body);
    }
    pdr_booking_done(r, d.booking, PDR_DONE_ALL, 2); /* when both have answered */
    free(memory);
    return 0;
}
