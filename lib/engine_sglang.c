/*
 * SGLang's prefill/decode protocol: the same request goes to both servers at once, with three members that let them
 * find each other. Facts are from sgl-project/sglang python/srt (0.5.23) and from runs of that release on a CPU.
 *
 *   leg      members
 *   prefill  bootstrap_host, bootstrap_port, bootstrap_room [, routed_dp_rank p, disagg_prefill_dp_rank p]
 *   decode   bootstrap_host, bootstrap_port, bootstrap_room [, routed_dp_rank d] [, disagg_prefill_dp_rank p]
 *
 * Forms. A single prompt gets scalars: lists of length 1 crash both schedulers, also where the prompt is a list of one.
 * A batch of B >= 2 gets a list of B rooms with scalar host and port, which the engine repeats for every element
 * (managers/io_struct.py, _normalize_bootstrap_params): the same as three lists, and a batch of 1,024 is 20 KB instead
 * of 50 KB. A scalar room would mean room, room+1, ... for a batch, which no allocator of ours hands out.
 *
 * bootstrap_port null means "the port of your own --disaggregation-bootstrap-port" on each side, so it is only right
 * where both sides use the same one.
 *
 * An IPv6 bootstrap_host gets brackets. Decode takes both forms (disaggregation/decode.py, NetworkAddress strips and
 * adds them), but prefill makes "http://{bootstrap_host}:{port}/register_dp_rank" without a helper, and so did decode
 * in older releases.
 *
 * Data parallel ranks. p is the prefill's rank, d the decode's, and rooms are congruent to p modulo the prefill's
 * dp_size.
 *  - routed_dp_rank names the rank that is to run this leg; it wins over the prefill's default of room % dp_size
 *    (managers/data_parallel_controller.py). Out of range is answered with 400, so a leg without DP gets none.
 *  - disagg_prefill_dp_rank tells decode where the KV cache is. Without it decode takes room % dp_size, or asks the
 * bootstrap server, where a prefill with plain DP registers rank 0 whatever its rank: seen to hang both legs.
 *  - The prefill checks before it starts that its own rank equals room % dp_size (disaggregation/common/conn.py,
 * "follow_bootstrap_room conflict"). Its own rank is the attention DP rank, which is p with --enable-dp-attention but
 * always 0 with plain
 *    --dp-size: there an odd room fails on the prefill of dp_size 2 even with routed_dp_rank 1 (seen). The check is
 * left out if the prefill's body carries disagg_prefill_dp_rank (req_has_disagg_prefill_dp_rank), and the member has no
 * other effect on prefill. So all of it is sent: routed_dp_rank and disagg_prefill_dp_rank on prefill satisfy plain DP,
 * and the congruent room satisfies DP attention in releases that check it whatever the body says, and routers or
 * engines that look at the room alone.
 *
 * Prefill's answer. It is given when decode has taken the KV cache, not when the prompt is computed
 * (disaggregation/prefill.py, process_disagg_prefill_inflight_queue). The transfer is no time of the server's.
 */
#include "engine.h"

#include "err.h"
#include "room.h"

#include <stddef.h>

static int check(const pdr_prompt *p, uint32_t mode, pdr_error *err)
{
    /* The decode scheduler dies on it: the prefix primer and all samples share one room (sgl-project/sglang issue
     * 40297). */
    if (mode == PDR_MODE_PD && p->samples > 1)
    {
        int placed = pdr_struct_ok(p, offsetof(pdr_prompt, reserved)); /* a caller's struct may be an older, shorter one */
        return pdr_fail_at(
            err, PDR_E_UNSUPPORTED, placed ? p->samples_at : 0, placed ? p->samples_line : 0,
            "n = %u is not possible with prefill/decode disaggregation; send %u requests with n = 1 instead",
            p->samples, p->samples);
    }
    return PDR_OK;
}

static void put_host(struct pdr_text *t, const char *host)
{
    char bracketed[sizeof((pdr_decision *)0)->bootstrap_host + 2];
    size_t n = strnlen(host, sizeof bracketed - 2);
    if (!memchr(host, ':', n) || host[0] == '[') {
        pdr_text_json(t, host, n);
        return;
    }
    bracketed[0] = '[';
    memcpy(bracketed + 1, host, n);
    bracketed[n + 1] = ']';
    pdr_text_json(t, bracketed, n + 2);
}

static void put_rooms(struct pdr_text *t, const pdr_decision *d)
{
    struct pdr_room_walk walk;
    if (d->batch < 2) {
        pdr_text_u64(t, d->room);
        return;
    }
    pdr_room_walk_begin(&walk, d->room_key, d->room_counter, d->prefill_dp_size, d->prefill_rank);
    for (uint32_t i = 0; i < d->batch; i++) {
        uint64_t room = pdr_room_walk_next(&walk);
        pdr_text_put(t, i ? "," : "[", 1);
        pdr_text_u64(t, i ? room : d->room);
    }
    PDR_TEXT_LITERAL(t, "]");
}

static void put_members(const pdr_decision *d, const pdr_prompt *p, int leg, struct pdr_text *t)
{
    uint32_t rank = leg == PDR_LEG_PREFILL ? d->prefill_rank : d->decode_rank;
    (void)p;
    PDR_TEXT_LITERAL(t, "\"bootstrap_host\":");
    put_host(t, d->bootstrap_host);
    PDR_TEXT_LITERAL(t, ",\"bootstrap_port\":");
    if (d->bootstrap_port)
        pdr_text_u64(t, d->bootstrap_port);
    else
        PDR_TEXT_LITERAL(t, "null");
    PDR_TEXT_LITERAL(t, ",\"bootstrap_room\":");
    put_rooms(t, d);
    if (rank != PDR_NONE) {
        PDR_TEXT_LITERAL(t, ",\"routed_dp_rank\":");
        pdr_text_u64(t, rank);
    }
    if (d->prefill_rank != PDR_NONE) {
        PDR_TEXT_LITERAL(t, ",\"disagg_prefill_dp_rank\":");
        pdr_text_u64(t, d->prefill_rank);
    }
}

const struct pdr_engine pdr_engine_sglang = {
    .name = "sglang",
    .shape = PDR_SHAPE_TOGETHER,
    .late = 1,
    .check = check,
    .put_members = put_members,
};
