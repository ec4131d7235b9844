/* What the commands of pdroutectl share. Each cmd_*.c holds one command or a few that belong together. */
#ifndef CTL_H
#define CTL_H

#include <getopt.h>
#include <stdint.h>

#include "pdroute/host.h"
#include "pdroute/pdroute.h"
#include "text.h"

enum { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2 }; /* exit codes */

struct ctl {
    const char *block;   /* --block, or PDROUTE_BLOCK */
    const char *command; /* its name */
    pdr_host   *host;    /* after ctl_open */
    pdr_router *router;
};

typedef int ctl_run(struct ctl *c, int argc, char **argv); /* argv[0] is the command's name; returns an exit code */

ctl_run cmd_create, cmd_apply, cmd_put, cmd_drain, cmd_undrain, cmd_remove, cmd_list, cmd_probe, cmd_top, cmd_log, cmd_explain,
    cmd_check, cmd_stats, cmd_record, cmd_replay;

/*
 * The next option of a command, as getopt_long, in any order with other arguments; --block and --help are handled here. -1 at the end (argv
 * from optind on holds the rest), '?' after an unknown option (told already): return CTL_USAGE; 'h': help was printed, return CTL_OK.
 */
int ctl_option(struct ctl *c, int argc, char **argv, const char *letters, const struct option *options);
/* What a command does when ctl_option answered '?' or 'h'. */
int ctl_option_exit(int option);

/* "pdroutectl: …" on stderr; the first returns CTL_FAILED, the second CTL_USAGE and points at --help. */
/* The same with nothing before it, to `to`: one line, whatever names are in it. */
void ctl_line(FILE *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
int ctl_misuse(const struct ctl *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "pdroutectl: <block>: <message>"; the message already has the path if the host library made it. */
int ctl_fail_block(const struct ctl *c, int code, const pdr_error *err);

/* Attaches to the block file that must exist. An exit code. */
int  ctl_open(struct ctl *c);
void ctl_close(struct ctl *c);
/* Opens anew if the file was replaced (by `create --force`, after a reboot); *changed 1 if so. An exit code; says nothing while the file is away. */
int ctl_follow(struct ctl *c, int *changed);

/* A whole file, "-": standard input. 0, or an exit code after a message. */
int ctl_read_file(const char *path, size_t limit, struct text *out);
/* A number between bounds. 0, or -1 after a message that names the option. */
int ctl_number(const struct ctl *c, const char *option, const char *text, uint64_t least, uint64_t most, uint64_t *out);
/* Writes to stdout; CTL_FAILED with a message if that is not possible (a full disk, a closed pipe). */
int ctl_print(const struct text *t);

/* Names. An endpoint that is gone is "#id". */
const char *ctl_endpoint_name(pdr_router *r, uint32_t id, char buf[static 128]);
const char *ctl_role_name(uint32_t role);
const char *ctl_state_name(uint32_t state);
const char *ctl_barred_name(uint32_t barred);
/* "name" or "name/rank" */
const char *ctl_target_name(pdr_router *r, uint32_t id, uint32_t rank, char buf[static 160]);

/* Set by SIGINT, SIGTERM and SIGHUP after ctl_catch_signals(). */
extern volatile int ctl_stop;
void ctl_catch_signals(void);
/* Sleeps unless a signal comes. */
void ctl_sleep_ms(unsigned ms);

#endif
