#!/usr/bin/env python3
"""A copy of a program (ELF, 64 bit) that keeps its allocator to itself, so that a module in it can have AddressSanitizer's.

    hide_malloc.py PROGRAM COPY

A released Envoy exports its own malloc(): whatever is loaded takes that one, and the sanitizer's runtime cannot even start. In the copy these entries of its table of symbols are local, which
the dynamic linker passes over; nothing else is changed. Prints where malloc() lies, for tests/faults/envoy_heap.c.
"""

import struct
import sys

ALLOCATOR = set("malloc free calloc realloc reallocarray memalign posix_memalign aligned_alloc valloc pvalloc cfree malloc_usable_size mallinfo mallinfo2 mallopt malloc_stats malloc_trim malloc_info "
                "free_sized free_aligned_sized".split())
SHT_DYNSYM, SECTION, SYMBOL = 11, "<IIQQQQIIQQ", "<IBBHQQ"


def main(source, target):
    with open(source, "rb") as f:
        data = bytearray(f.read())
    if data[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"{source}: not a 64-bit little-endian ELF file")
    table, = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    sections = [struct.unpack_from(SECTION, data, table + i * size) for i in range(count)]
    malloc = None
    for _, kind, _, _, offset, length, link, _, _, entry in sections:
        if kind != SHT_DYNSYM:
            continue
        strings = sections[link][4]
        for at in range(offset, offset + length, entry):
            name, info, _, defined, value, _ = struct.unpack_from(SYMBOL, data, at)
            text = data[strings + name:data.index(0, strings + name)].decode(errors="replace")
            if defined and text in ALLOCATOR:
                data[at + 4] = info & 0xF  # STB_LOCAL
                malloc = value if text == "malloc" else malloc
    if malloc is None:
        sys.exit(f"{source}: exports no malloc()")
    with open(target, "wb") as f:
        f.write(data)
    print(f"{malloc:x}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
