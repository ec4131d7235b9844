/* The quick reader from within, with this machine's vector instructions: AVX2 or NEON. Compiled as lib/prompt_avx2.c and lib/prompt_neon.c are. */
#if defined(__x86_64__) && defined(__AVX2__)
#define PDR_ISA 1
#define PATH    PDR_PATH_AVX2
#elif defined(__aarch64__) && defined(__ARM_NEON) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define PDR_ISA 2
#define PATH    PDR_PATH_NEON
#else
#define PDR_ISA 0
#define PATH    PDR_PATH_PORTABLE
#endif
#include "scan_within.h"

int main(void)
{
    if (!PDR_ISA || !pdr_path_usable(PATH)) {
        printf("SKIP the quick reader's vector instructions: this processor has none of those\n");
        return 0;
    }
    return scan_within();
}
