/* The quick reader from within, without vector instructions. */
#define PDR_ISA 0
#include "scan_within.h"

int main(void)
{
    return scan_within();
}
