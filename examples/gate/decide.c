/* Where a request goes: scanned, decided, held until its ticket is released. */
#include "parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void gate_hold(gate_job *job)
{
    gate_job **place = &job->gate->held[job->decision.booking % GATE_HELD];
    job->is_held = job->was_held = 1;
    job->held_ns = pdr_host_now_ns();
    job->held_next = *place;
    *place = job;
    gate_list(job);
}

void gate_unhold(gate_job *job)
{
    gate_job **place = &job->gate->held[job->decision.booking % GATE_HELD];
    if (!job->is_held) return;
    while (*place != job) place = &(*place)->held_next;
    *place = job->held_next;
    job->is_held = 0;
    gate_unlist(job);
}

int gate_decide(gate_job *job, uint32_t flags, pdr_error *err)
{
    gate *g = job->gate;
    pdr_request request;
    pdr_decision other, *d = job->decided ? &other : &job->decision; /* logs keep showing the last pair */
    int rc, again = 1;

    do {
        pdr_init_struct(&request, sizeof request);
        request.flags = flags;
        request.api = job->api;
        request.lease = g->lease.id;
        request.now_ns = pdr_host_now_ns();
        request.tenant = job->tenant;
        if (job->begun) {
            request.excluded = job->exchange.excluded;
            memcpy(request.exclude, job->exchange.exclude, sizeof request.exclude);
        }
        for (uint32_t i = 0; i < job->barred_n && request.excluded < sizeof request.exclude / sizeof *request.exclude; i++)
            request.exclude[request.excluded++] = job->barred[i];
        pdr_init_struct(d, sizeof *d);
        rc = pdr_route_prompt(g->router, &job->prompt, job->hashes, job->prompt.blocks, &request, d, err);
        if (rc == PDR_E_BLOCK_CORRUPT && again) gate_block_follow(g->block);
        /* the process was stopped for so long that its lease ended, or the block is another */
    } while ((rc == PDR_E_LEASE || rc == PDR_E_BLOCK_CORRUPT) && again-- && (gate_renew(g), g->leased));
    if (rc != PDR_OK) {
        job->decision.retry_after_ms = d->retry_after_ms;
        return rc;
    }
    if (d == &other) job->decision = other;
    return PDR_OK;
}

void gate_decided(gate_job *job)
{
    job->decided = 1;
    job->attempts++;
    job->last_byte_ns = job->longest_gap_ns = 0;
    job->kept.len = job->kept_out = 0;
    whole_decided(job->whole, &job->decision, &job->prompt);
    job->gate->ops->decided(job);
}

static int scan(gate_job *job, int json_type, pdr_error *err)
{
    gate *g = job->gate;
    size_t size;
    int rc;

    job->prompt.api = job->api;
    if (job->api == PDR_API_OTHER && !gate_is_object(job->body, json_type)) {
        job->raw_body = 1;
        return PDR_OK;
    }
    rc = pdr_scan(job->body.data, job->body.len, job->api, &g->limits, &job->prompt, g->hashes, g->config.max_blocks, err);
    if (rc == PDR_OK && whole_asked(&job->whole, &job->prompt)) rc = PDR_E_SYSTEM;
    if (rc != PDR_OK || job->prompt.blocks == 0) return rc;
    size = job->prompt.blocks * sizeof *job->hashes;
    job->hashes = malloc(size); /* for a retry, or when a held request is taken */
    if (!job->hashes) return PDR_E_SYSTEM;
    memcpy(job->hashes, g->hashes, size);
    return PDR_OK;
}

void gate_route(gate_job *job)
{
    pdr_error err;
    int rc;

    pdr_init_struct(&err, sizeof err);
    rc = gate_decide(job, 0, &err);
    if (rc != PDR_OK) {
        gate_respond_code(job, rc, &err, job->decision.retry_after_ms);
    } else if (job->decision.outcome == PDR_HELD) {
        gate_hold(job);
    } else {
        gate_decided(job);
        gate_begin(job);
    }
}

void gate_start(gate_job *job, gate *g, uint32_t api, view body, int json_type)
{
    pdr_error err;
    char text[96];
    int rc;

    job->gate = g;
    job->api = api;
    job->body = body;
    pdr_init_struct(&job->prompt, sizeof job->prompt);
    pdr_init_struct(&job->decision, sizeof job->decision);
    pdr_init_struct(&err, sizeof err);
    if (body.len > g->config.max_body) {
        (void)snprintf(text, sizeof text, "the body has %zu bytes, at most %" PRIu64 " are taken", body.len, g->config.max_body);
        gate_refuse(job, g, PDR_E_TOO_LARGE, text);
        return;
    }
    rc = scan(job, json_type, &err);
    if (rc == PDR_E_PARSE && job->compressed)
        gate_respond(job, 415, "unsupported_media_type", "the body is compressed (Content-Encoding), which is not understood here: send it as it is", 0);
    else if (rc != PDR_OK) gate_respond_code(job, rc, &err, 0);
    else gate_route(job);
}

void gate_take(gate_job *job)
{
    pdr_decision d;
    pdr_error err;
    int rc;

    if (!job->is_held) return;
    pdr_init_struct(&err, sizeof err);
    pdr_init_struct(&d, sizeof d);
    rc = pdr_ticket_take(job->gate->router, job->decision.booking, job->hashes, job->prompt.blocks, pdr_host_now_ns(), &d, &err);
    job->untaken = rc == PDR_E_BUSY;
    if (rc == PDR_E_AGAIN || rc == PDR_E_BUSY) return;
    gate_unhold(job);
    job->held_ns = pdr_host_now_ns() - job->held_ns;
    if (rc == PDR_OK) {
        job->decision = d;
        gate_decided(job);
        gate_begin(job);
    } else if (rc == PDR_E_NOT_FOUND) {
        gate_route(job); /* its lease ended meanwhile: in line again */
    } else {
        gate_respond_code(job, rc, &err, d.retry_after_ms);
    }
}
