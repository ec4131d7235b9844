"""The prefix cache of one worker: a radix tree over token sequences, bounded, least recently used leaves evicted first.

As in the engine, a node in use by a running request is locked and counts as used; the rest is evictable. A lookup never
covers a whole prompt: the last token is always computed.
"""

import heapq

from .tokenizer import BYTES


class Node:
    __slots__ = ("key", "children", "parent", "locks", "used", "queued")

    def __init__(self, key, parent):
        self.key = key
        self.children = {}
        self.parent = parent
        self.locks = 0
        self.used = 0
        self.queued = False      # has an entry in the eviction heap

    @property
    def tokens(self):
        return len(self.key) // BYTES


def common_prefix(a, b):
    """Length in bytes, a multiple of a token, of the common prefix of two packed sequences."""
    n = min(len(a), len(b))
    if a[:n] == b[:n]:
        return n
    low, high = 0, n // BYTES
    while high - low > 1:
        mid = (low + high) // 2
        if a[low * BYTES:mid * BYTES] == b[low * BYTES:mid * BYTES]:
            low = mid
        else:
            high = mid
    return low * BYTES


class RadixCache:
    def __init__(self, enabled=True):
        self.enabled = enabled
        self.clear()

    def clear(self):
        self.root = Node(b"", None)
        self.root.locks = 1
        self.size = 0        # tokens in the tree
        self.locked = 0      # of them in use
        self.clock = 0
        self.heap = []       # (use when queued, number, leaf); every unlocked leaf has an entry, which may be out of date
        self.entries = 0

    @property
    def evictable(self):
        return self.size - self.locked

    def match(self, packed):
        """(deepest node, cached tokens) of a prompt, at most all tokens but the last."""
        node, offset, limit = self.root, 0, len(packed) - BYTES
        self.clock += 1
        while self.enabled and offset < limit:
            child = node.children.get(packed[offset:offset + BYTES])
            if child is None:
                break
            n = common_prefix(child.key, packed[offset:min(limit, offset + len(child.key))])
            if n < len(child.key):
                child = self._split(child, n)
            child.used = self.clock
            node, offset = child, offset + n
        return node, offset // BYTES

    def insert(self, packed):
        """Add a sequence; returns (its node, tokens that are new)."""
        if not self.enabled:
            return self.root, 0
        node, offset = self.root, 0
        self.clock += 1
        while offset < len(packed):
            child = node.children.get(packed[offset:offset + BYTES])
            if child is None:
                leaf = Node(packed[offset:], node)
                leaf.used = self.clock
                node.children[leaf.key[:BYTES]] = leaf
                self.size += leaf.tokens
                self._queue(leaf)
                return leaf, leaf.tokens
            n = common_prefix(child.key, packed[offset:offset + len(child.key)])
            if n < len(child.key):
                child = self._split(child, n)
            child.used = self.clock
            node, offset = child, offset + n
        return node, 0

    def lock(self, node):
        """Keep a node and all above it until `unlock`."""
        while node is not self.root:
            if node.locks == 0:
                self.locked += node.tokens
            node.locks += 1
            node = node.parent

    def unlock(self, node):
        while node is not self.root:
            node.locks -= 1
            if node.locks == 0:
                self.locked -= node.tokens
                self._queue(node)
            node = node.parent

    def evict(self, tokens):
        """Remove unlocked leaves, least recently used first, until that many tokens are free. Returns how many were."""
        freed = 0
        while self.heap and freed < tokens:
            used, _, node = heapq.heappop(self.heap)
            node.queued = False
            if node.children or node.locks:
                continue         # queued again when it is a leaf or unlocked
            if node.used != used:
                self._queue(node)
                continue
            del node.parent.children[node.key[:BYTES]]
            freed += node.tokens
            self.size -= node.tokens
            self._queue(node.parent)
        return freed

    def _queue(self, node):
        if not node.queued and not node.children and not node.locks:
            node.queued = True
            self.entries += 1
            heapq.heappush(self.heap, (node.used, self.entries, node))

    def _split(self, node, at):
        """Cut a node in two; returns the upper part, which has the lower one's locks."""
        upper = Node(node.key[:at], node.parent)
        upper.locks, upper.used = node.locks, node.used
        node.parent.children[upper.key[:BYTES]] = upper
        node.key = node.key[at:]
        node.parent = upper
        upper.children[node.key[:BYTES]] = node
        return upper
