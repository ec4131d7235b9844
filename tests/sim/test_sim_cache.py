"""The prefix cache against a list of sequences, and its bound."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_sim.cache import RadixCache, common_prefix
from sglang_sim.engine import Pool
from sglang_sim.tokenizer import from_ids

sequences = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), max_size=25)


def shared(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


@given(st.lists(st.integers(1, 2), max_size=30), st.lists(st.integers(1, 2), max_size=30))
def test_common_prefix(a, b):
    assert common_prefix(from_ids(a), from_ids(b)) == 4 * shared(a, b)


@settings(max_examples=200)
@given(sequences, st.lists(st.integers(1, 3), min_size=1, max_size=12))
def test_a_match_is_the_longest_stored_prefix_without_the_last_token(stored, asked):
    cache = RadixCache()
    for row in stored:
        cache.insert(from_ids(row))
    want = max((shared(row, asked) for row in stored), default=0)
    assert cache.match(from_ids(asked))[1] == min(want, len(asked) - 1)
    prefixes = {tuple(row[:i]) for row in stored for i in range(1, len(row) + 1)}
    assert cache.size == len(prefixes)


@settings(max_examples=200)
@given(sequences, st.data())
def test_locked_sequences_survive_eviction(stored, data):
    cache = RadixCache()
    nodes = [(row, cache.insert(from_ids(row))[0]) for row in stored]
    kept = [(row, node) for row, node in nodes if data.draw(st.booleans())]
    for row, _ in kept:
        cache.lock(cache.insert(from_ids(row))[0])
    before = cache.size
    freed = cache.evict(10**6)
    assert cache.size == before - freed == cache.locked
    for row, _ in kept:
        assert cache.match(from_ids([*row, 9]))[1] == len(row)


def test_the_least_recently_used_leaf_goes_first():
    cache = RadixCache()
    for row in ([1, 2, 3], [1, 2, 4], [5, 6]):
        cache.insert(from_ids(row))
    cache.match(from_ids([1, 2, 3, 9]))
    cache.evict(1)
    assert cache.match(from_ids([5, 6, 9]))[1] == cache.match(from_ids([1, 2, 4, 9]))[1] == 2
    cache.match(from_ids([1, 2, 3, 9]))
    cache.evict(2)
    assert cache.match(from_ids([5, 6, 9]))[1] == 0 and cache.match(from_ids([1, 2, 3, 9]))[1] == 3


def test_a_pool_evicts_for_what_it_gives_and_refuses_what_does_not_fit():
    pool = Pool(10)
    node, _ = pool.cache.insert(from_ids([1, 2, 3, 4]))
    pool.cache.insert(from_ids([5, 6, 7, 8]))
    assert pool.available == 2
    pool.cache.lock(node)
    assert pool.take(6) and pool.cache.size == 4 and pool.available == 0 and pool.used == 10
    assert not pool.take(1)
    pool.cache.unlock(node)
    assert pool.take(1) and pool.cache.size == 0
    pool.give(7)
    assert pool.available == 10
