/* The scanner for x86-64 with AVX2, BMI1, BMI2 and PCLMUL; compiled with those, run only where they are. */
#include "prompt.h"

#if defined(__x86_64__)
#ifndef __AVX2__
#error "compile this file with -mavx2 -mbmi -mbmi2 -mpclmul"
#endif
#define PDR_ISA    1
#define PATH(name) name##_avx2
#include "prompt_walk.h"
#endif
