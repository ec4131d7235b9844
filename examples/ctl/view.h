/* Tables that more than one command shows. */
#ifndef CTL_VIEW_H
#define CTL_VIEW_H

#include "ctl.h"

/* The endpoints and their load, one line per target. Returns the number of lines, the head not counted. */
size_t view_endpoints(const struct ctl *c, struct text *out, size_t width, uint64_t now_ns);
/* The same as a JSON array. */
void view_endpoints_json(const struct ctl *c, struct text *out, uint64_t now_ns);

/* A decision of the log as the cells of a row (VIEW_DECISION columns), and the head of such a table. */
#define VIEW_DECISION "rlllrrrr"
void view_decision_head(struct table *t);
void view_decision(const struct ctl *c, struct table *t, const pdr_log_record *r);
/* The candidates of a decision, best place first said by '*'. */
void view_candidates(const struct ctl *c, struct text *out, const pdr_candidate *list, size_t n, const char *indent);
void view_candidate_json(const struct ctl *c, struct text *out, const pdr_candidate *k);
/* "17:04:05.123" of a time of the monotonic clock. */
const char *view_time(char buf[static SHORT_TEXT], uint64_t time_ns);
const char *view_outcome(uint32_t outcome);

#endif
