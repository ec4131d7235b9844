/* The scanner without vector instructions. */
#include "prompt.h"

#define PDR_ISA    0
#define PATH(name) name##_portable
#include "prompt_walk.h"
