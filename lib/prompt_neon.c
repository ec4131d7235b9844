/* The scanner for 64-bit ARM, all of which has NEON. */
#include "prompt.h"

#if defined(__aarch64__) && defined(__ARM_NEON) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PDR_ISA    2
#define PATH(name) name##_neon
#include "prompt_walk.h"
#endif
