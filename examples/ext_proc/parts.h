/* What the files of a call share. */
#ifndef PDR_EXTPROC_PARTS_H
#define PDR_EXTPROC_PARTS_H

#include "extproc.h"

call *call_of(gate_job *job);
/* Around whatever may end it. */
void call_enter(call *c);
void call_leave(call *c);

/* request.c */
void request_headers(call *c, const message *m);
void request_body(call *c, const message *m);
void call_start(call *c);
/* Bodies that are not complete in time, every tick; the call's is not awaited any more. */
void requests_tick(worker *w);
void request_unawait(call *c);
int view_mentions(view text, const char *word); /* in any case */

/* response.c */
void response_headers(call *c, const message *m);
void response_body(call *c, const message *m);
void response_trailers(call *c);
void response_event(call *c, uint32_t type);
void response_begin(call *c, int json, int sse, int encoded);
void response_lost(call *c);
int response_broken(const call *c, view chunk);
int response_whole(const call *c); /* the stream has said [DONE] */
void response_flush(call *c);

/* dispatch.c */
void decode_release(call *c);

/* own_leg.c */
int own_leg_can_stream(const call *c);
void own_leg_stream(call *c, leg *l, int end);

#endif
