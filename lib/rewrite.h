/*
 * Rewrite: the body of a leg from the body of the client, by cutting spans out and putting one text in.
 *
 * The public functions are in pdroute.h. Promises: every byte outside prompt->edit[] is kept as it is and in its place;
 * the new members go in once, after the last member that stays; memory is read and written once; nothing is parsed
 * again, so the cost is that of memcpy (pdr_rewrite) or nothing per byte (pdr_rewrite_slices). A prompt whose offsets
 * do not fit the body is PDR_E_INVALID, never an access outside it. After PDR_E_NOSPACE the buffer's content is
 * unspecified.
 */
#ifndef PDR_REWRITE_H
#define PDR_REWRITE_H

#include "pdroute/pdroute.h"

#endif
