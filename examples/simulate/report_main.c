/* simulate-report: results and decision logs as one HTML page. */
#include "report.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
    "simulate-report [-o OUT.html] [--decisions LOG]… [RESULT.json]…\n"
    "Writes a page that needs no network: tables and plots of the results of `simulate --json`, and every decision of the logs.\n"
    "LOG: JSON lines of `simulate --decisions` or `pdroutectl log --json`, also as .gz. Logs that a result names come along.\n";

int main(int argc, char **argv)
{
    static const struct option options[] = {{"decisions", required_argument, NULL, 'd'}, {"output", required_argument, NULL, 'o'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char **logs = calloc((size_t)argc, sizeof *logs), *out = "report.html";
    size_t       n = 0;
    char         why[256];
    int          o, bad;
    if (!logs) return 1;
    while ((o = getopt_long(argc, argv, "o:h", options, NULL)) != -1) {
        if (o == 'd') logs[n++] = optarg;
        else if (o == 'o') out = optarg;
        else {
            fputs(usage, o == 'h' ? stdout : stderr);
            free(logs);
            return o == 'h' ? 0 : 2;
        }
    }
    if (optind == argc && !n) {
        fputs(usage, stderr);
        free(logs);
        return 2;
    }
    bad = sim_report_files(out, (const char *const *)argv + optind, (size_t)(argc - optind), logs, n, why, sizeof why);
    if (bad) fprintf(stderr, "simulate-report: %s\n", why);
    free(logs);
    return bad ? 1 : 0;
}
