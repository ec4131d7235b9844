/* What a gateway tells clients when it answers by itself: the reasons of the exchange, and of errors, as names for programs and sentences for people. */
#include "pdroute/pdroute.h"

static const struct {
    const char *name, *text;
} reasons[] = {
    [PDR_ERR_PREFILL_FAILED] = {"prefill_failed", "the prefill server did not complete the request"},
    [PDR_ERR_DECODE_FAILED] = {"decode_failed", "the decode server did not complete the request"},
    [PDR_ERR_PREFILL_TIMEOUT] = {"prefill_timeout", "the prefill server did not answer in time"},
    [PDR_ERR_DECODE_TIMEOUT] = {"decode_timeout", "the decode server did not answer in time"},
    [PDR_ERR_NO_PAIR] = {"no_pair", "no prefill and decode server is available at present"},
    [PDR_ERR_QUEUE_FULL] = {"queue_full", "all servers are busy and the queue is full"},
    [PDR_ERR_BAD_REQUEST] = {"bad_request", "the request cannot be served as it is"},
    [PDR_ERR_TOO_LARGE] = {"too_large", "the request is too large"},
    [PDR_ERR_HELD_TIMEOUT] = {"held_timeout", "all servers were busy for too long"},
};
#define REASONS (sizeof reasons / sizeof *reasons)

const char *pdr_reason_name(uint32_t reason) { return reason < REASONS && reasons[reason].name ? reasons[reason].name : "unknown"; }

const char *pdr_reason_text(uint32_t reason)
{
    return reason < REASONS && reasons[reason].text ? reasons[reason].text : "the request could not be completed";
}

const char *pdr_error_name(int code)
{
    switch (code) {
    case PDR_E_NO_PAIR:
        return pdr_reason_name(PDR_ERR_NO_PAIR);
    case PDR_E_QUEUE_FULL:
        return pdr_reason_name(PDR_ERR_QUEUE_FULL);
    case PDR_E_EXPIRED:
        return pdr_reason_name(PDR_ERR_HELD_TIMEOUT);
    case PDR_E_TOO_LARGE:
        return pdr_reason_name(PDR_ERR_TOO_LARGE);
    case PDR_E_PARSE:
    case PDR_E_TOO_DEEP:
    case PDR_E_UNSUPPORTED:
        return pdr_reason_name(PDR_ERR_BAD_REQUEST);
    default:
        return "internal_error";
    }
}
