/*
 * What a request's target names: the path as an engine reads it, so that nobody decides about another one than the engine serves.
 *
 * Escapes are decoded once, several slashes count as one, "." and ".." are resolved, '?' and '#' end it: as nginx does (src/http/ngx_http_parse.c). Engines decode
 * escapes too (uvicorn), but keep slashes and dots: a request whose path is one of SGLang's that are routed goes on under its plain name, any other as it was sent.
 * Cost: one look at the target; a copy where something is to be changed.
 */
#ifndef PDR_GATE_PATH_H
#define PDR_GATE_PATH_H

#include "wire.h"

/* *path: in `target`, or in `scratch` where it is not written plainly. 0, or -1: it is no path (blanks and control
 * characters, an escape that is none or a zero, ".." above the root), or no memory. */
int gate_path(view target, bytes *scratch, view *path);
/* What to send on for it: *path, which may move, and the query of `target`, in `scratch`; or `target` itself where that is the same. Empty: no memory. */
view gate_path_target(view target, bytes *scratch, view *path);

#endif
