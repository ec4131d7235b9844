"""Text to tokens: four bytes of UTF-8 are one token, its id their little-endian value.

A token sequence is a `bytes` of four bytes per token (`packed`), so a 132 KB prompt becomes 33,000 tokens without a
Python operation per token, and prefixes are compared by memcmp. Markers of the chat template have 0xFF as their last
byte, which no UTF-8 text contains. The last token of a text is padded with NUL.
"""

from array import array

BYTES = 4
IM_START = b"\x01\x00\x00\xff"
IM_END = b"\x02\x00\x00\xff"
NEWLINE = b"\n\x00\x00\x00"
MAX_ID = 2**32 - 1


def encode(text):
    """Packed tokens of a text."""
    raw = text.encode("utf-8", "surrogatepass")
    return raw + b"\0" * (-len(raw) % BYTES)


def from_ids(ids):
    """Packed tokens of a list of ids. Raises OverflowError or TypeError when one is no token id."""
    return array("I", ids).tobytes()


def to_ids(packed):
    return array("I", packed).tolist()


def count(packed):
    return len(packed) // BYTES


def decode(packed):
    """Text of packed tokens; markers and padding are left out."""
    parts = []
    for start in range(0, len(packed), BYTES):
        token = packed[start:start + BYTES]
        if token[3] != 0xFF:
            parts.append(token.rstrip(b"\0"))
    return b"".join(parts).decode("utf-8", "replace")


def decode_one(token_id):
    return decode(token_id.to_bytes(BYTES, "little"))


def chat(messages):
    """Packed tokens of a conversation: per message a start marker, the role, the content and an end marker."""
    out = []
    for message in messages:
        out += (IM_START, encode(str(message.get("role", ""))), NEWLINE)
        content = message.get("content")
        if isinstance(content, str):
            out.append(encode(content))
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict) and isinstance(part.get("text"), str):
                    out.append(encode(part["text"]))
        for call in message.get("tool_calls") or ():
            out.append(encode(str(call)))
        out += (IM_END, NEWLINE)
    out += (IM_START, encode("assistant"), NEWLINE)
    return b"".join(out)
