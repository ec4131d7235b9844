/*
 * The report page: one HTML file that needs no network, with the results and the decision logs inside.
 *
 * Results go in as they are (JSON, its "<" escaped); decision logs as gzip in base64, which the page unpacks when it shows them: about 25 bytes per candidate.
 * The page's own code is in report/: draw.js (plots), model.js (what the numbers mean), page.js (sections and events), page.css.
 */
#ifndef SIMULATE_REPORT_H
#define SIMULATE_REPORT_H

#include <stddef.h>

/* A log of decisions: JSON lines, of the laboratory or of `pdroutectl log --json`. */
typedef struct sim_report_log {
    const char *name;   /* what the page calls it */
    int         result; /* index of the result it belongs to; -1: none */
    const char *text;
    size_t      len;
} sim_report_log;

/* results: n JSON documents (docs/simulate.md), none is fine. 0, or -1 with a sentence in why; the file is then removed. */
int sim_report_write(const char *path, const char *const *results, size_t n, const sim_report_log *logs, size_t logs_n, char *why, size_t cap);
/*
 * The same from files. Logs that a result names (runs[].decisions, relative to the result's folder or the current one) are taken in: the first seed of every setting
 * of the library, and of the SIM_REPORT_OTHERS best others; `logs` are further ones. A .gz is unpacked.
 */
enum { SIM_REPORT_OTHERS = 4 };
int sim_report_files(const char *path, const char *const *results, size_t n, const char *const *logs, size_t logs_n, char *why, size_t cap);

#endif
