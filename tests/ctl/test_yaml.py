"""YAML to JSON (apply --print): against PyYAML where the two agree, and every kind of mistake with document and line."""

import json
import random

import pytest
import yaml
from hypothesis import example, given, settings, strategies as st, HealthCheck

from conftest import QUICKSTART


def to_json(ctl, text, name="x.yaml"):
    return json.loads(ctl("apply", "--print", "-f", ctl.file(name, text)))


@pytest.mark.parametrize("text,value", [
    ("a: 1", {"a": 1}),
    ("a: -17\nb: +5\nc: 0", {"a": -17, "b": 5, "c": 0}),
    ("a: 0x1F\nb: 0o17\nc: 0644\nd: 0008", {"a": 31, "b": 15, "c": 420, "d": 8}),
    ("a: 123456789012345678901234567890", {"a": 123456789012345678901234567890}),
    ("a: 9007199254740993", {"a": 9007199254740993}),
    ("a: 1.5\nb: .5\nc: 1.\nd: 1e3\ne: -1.5E-3\nf: +1.5\ng: 00.5", {"a": 1.5, "b": .5, "c": 1.0, "d": 1e3, "e": -1.5e-3, "f": 1.5, "g": .5}),
    ("a: true\nb: False\nc: TRUE", {"a": True, "b": False, "c": True}),
    ("a: null\nb: ~\nc:\nd: Null", {"a": None, "b": None, "c": None, "d": None}),
    ("a: yes\nb: no\nc: on\nd: off\ne: y", {"a": "yes", "b": "no", "c": "on", "d": "off", "e": "y"}),
    ("a: '1'\nb: \"true\"\nc: 'null'\nd: ''", {"a": "1", "b": "true", "c": "null", "d": ""}),
    ("a: !!str 1\nb: !!int '7'\nc: !!float '1'\nd: ! 5", {"a": "1", "b": 7, "c": 1, "d": "5"}),
    ("a: 1_000\nb: 1:30\nc: 2026-11-25\nd: 1.2.3\ne: 0x\nf: 0o8\ng: 1e\nh: .\ni: '-'", {"a": "1_000", "b": "1:30", "c": "2026-11-25", "d": "1.2.3",
     "e": "0x", "f": "0o8", "g": "1e", "h": ".", "i": "-"}),
    ("1: a\ntrue: b\nnull: c\n1.0: d", {"1": "a", "true": "b", "null": "c", "1.0": "d"}),
    ("a: |\n  x\n  y\nb: >-\n  p\n  q\n", {"a": "x\ny\n", "b": "p q"}),
    ("a: [1, {b: 2}, []]\nc: {}", {"a": [1, {"b": 2}, []], "c": {}}),
    ("a: \"\\u4f60 \\\"q\\\" \\\\ \\n \\0 \\x41\"", {"a": "你 \"q\" \\ \n \0 A"}),
    ("ключ: 你好,这是一个测试", {"ключ": "你好,这是一个测试"}),
    ("\ufeffa: 1", {"a": 1}),
    ("a: &x {b: 1}\nc: *x\nd: *x", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}),
    ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
    ("a: &k name\n*k : v", {"a": "name", "name": "v"}),
    ("base: &b {x: 1, y: 2}\nd: {<<: *b, y: 3}", {"base": {"x": 1, "y": 2}, "d": {"y": 3, "x": 1}}),
    ("b1: &1 {x: 1}\nb2: &2 {x: 2, y: 2}\nd:\n  <<: [*1, *2]\n  z: 3", {"b1": {"x": 1}, "b2": {"x": 2, "y": 2}, "d": {"z": 3, "x": 1, "y": 2}}),
    ("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b}", {"a": {"x": 1}, "b": {"y": 2, "x": 1}, "c": {"y": 2, "x": 1}}),
    ("a: {'<<': 1}", {"a": {"<<": 1}}),
    ("%YAML 1.2\n---\na: 1\n...\n", {"a": 1}),
    ("# only\n---\n# comments\n---\na: 1\n---\n", {"a": 1}),
    ("a: 'x'   # y\nb: x#y", {"a": "x", "b": "x#y"}),
    ("a: \t1", {"a": 1}),
    ("--- {a: 1}\n--- {b: 2}", [{"a": 1}, {"b": 2}]),
    ("- 1\n- 2", [1, 2]),
    ("\r\na: 1\r\nb:\r\n  - c\r\n", {"a": 1, "b": ["c"]}),
])
def test_values(bare, text, value):
    got = to_json(bare, text)
    assert got == value and json.dumps(got) == json.dumps(value)  # 1 is not True, 1 is not 1.0 … and the order stays


@pytest.mark.parametrize("text,place,part", [
    ("a: [1, 2", "document 1, line 1", "sequence"),
    ("a: 1\n b: 2", "document 1, line 2", "mapping values"),
    ("a: 1\n---\nb: 'x\n", "document 2, line 3", "end of stream"),
    ("a: 1\n---\nb: 2\n---\nc: {d: 1, d: 2}", "document 3, line 5", "the key 'd' is there twice (also in line 5)"),
    ("a: 1\nb: 2\na: 3", "document 1, line 3", "the key 'a' is there twice (also in line 1)"),
    ("a: *nope", "document 1, line 1", "*nope stands for nothing"),
    ("a: &x 1\n---\nb: *x", "document 2, line 3", "*x stands for nothing"),
    ("a: &x [*x]", "document 1, line 1", "inside of what it stands for"),
    ("a: .inf", "document 1, line 1", ".inf has no form in JSON"),
    ("a: -.Inf", "document 1, line 1", "no form in JSON"),
    ("a: .NaN", "document 1, line 1", "no form in JSON"),
    ("a: !mine x", "document 1, line 1", "tag '!mine'"),
    ("a: !!set {x}", "document 1, line 1", "tag"),
    ("a: !!int x", "document 1, line 1", "'x' is not an integer"),
    ("a: !!bool maybe", "document 1, line 1", "neither true nor false"),
    ("a: !!float x", "document 1, line 1", "not a number"),
    ("? [1, 2]\n: x", "document 1, line 1", "a key must be text"),
    ("? {a: 1}\n: x", "document 1, line 1", "a key must be text"),
    ("a:\n  ?\n  : x", "document 1, line 2", "a key is empty"),
    ("a: 0xFFFFFFFFFFFFFFFFF", "document 1, line 1", "too large"),
    ("a: {<<: 1}", "document 1, line 1", "merge key"),
    ("a: {<<: [1]}", "document 1, line 1", "merge key"),
    ("a: 1\n\tb: 2", "document 1, line 2", ""),
    ("a: @x", "document 1, line 1", "cannot start any token"),
    ("a: \"\\q\"", "document 1, line 1", "escape"),
    ("%YAML 3.0\n---\na: 1", "document 1, line 1", "incompatible"),
    ("a: " + "[" * 101 + "]" * 101, "document 1, line 1", "nested deeper than 100"),
])
def test_mistakes(bare, text, place, part):
    said = bare("apply", "--print", "-f", bare.file("wrong.yaml", text), code=1)
    assert f"wrong.yaml: {place}: " in said, said
    assert part in said, said
    assert said.count("\n") == 1


def test_bytes_that_are_not_utf8(bare):
    said = bare("apply", "--print", "-f", bare.file("bad.yaml", b"a: 1\nb: \xff\xfe\n"), code=1)
    assert "bad.yaml: document 1, line 2: " in said
    said = bare("apply", "--print", "-f", bare.file("control.yaml", b"a: 1\nb: \x01\n"), code=1)
    assert "control characters are not allowed" in said and "line 2" in said


def test_utf16_is_read(bare):
    assert to_json(bare, "a: ü".encode("utf-16")) == {"a": "ü"}


def test_nothing_begins_behind_the_end(bare):
    """libyaml places what it misses at the end of the stream, on a line of its own: that is no line of the file."""
    said = bare("apply", "--print", "-f", bare.file("y.yaml", "a: [1,\n"), code=1)
    assert "document 1, line 1: did not find expected node content" in said and "begun in line" not in said
    said = bare("apply", "--print", "-f", bare.file("y.yaml", "a: [1,\n  2\nb: 3\n"), code=1)
    assert "begun in line 1" in said


@pytest.mark.parametrize("bomb", [
    "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i-1}'] * 10)}]\n" for i in range(1, 12)),
    "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{','.join([f'*m{i-1}'] * 10)}]}}\n" for i in range(1, 12)),
    "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i-1}'] * 10)}]\n" for i in range(1, 12)),
], ids=["values", "merges", "empty"])
def test_alias_bombs_are_bounded(bare, bomb):
    said = bare("apply", "--print", "-f", bare.file("bomb.yaml", bomb), code=1)
    assert "too much is" in said


def test_depth_through_aliases_is_bounded(bare):
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i-1}]\n" for i in range(1, 300))
    assert "nested deeper than" in bare("apply", "--print", "-f", bare.file("deep.yaml", text), code=1)


def test_every_truncation_ends_cleanly(bare):
    """Cut anywhere, a file is read or refused with a place; the program never crashes."""
    text = ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: &n \"p\\u0031\"\n  labels: {a: 'b', c: *n}\nspec:\n  x: |\n    y\n---\n- [1, {<<: {q: 1}}]\n"
            "- !!str 5\n# end\n").encode()
    for cut in range(len(text)):
        import subprocess
        done = subprocess.run([__import__("conftest").CTL, "apply", "--print", "-f", "-"], input=text[:cut], capture_output=True)
        assert done.returncode in (0, 1), (cut, done)
        if done.returncode == 0:
            json.loads(done.stdout)
        else:
            assert b"standard input" in done.stderr or b"nothing to apply" in done.stderr, (cut, done.stderr)


def test_random_damage_never_crashes(bare):
    import subprocess
    from conftest import CTL
    seed = (QUICKSTART / "pods.yaml").read_bytes() if QUICKSTART.exists() else b"a: &x {b: [1, 2]}\nc: *x\n" * 20
    chance = random.Random(5)
    for _ in range(200):
        text = bytearray(seed)
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(text))
            text[at:at + chance.randrange(3)] = bytes(chance.choice(b"&*[]{}:-!|>'\"%@`#,?\n\t \\\xff\x000a") for _ in range(chance.randrange(3)))
        done = subprocess.run([CTL, "apply", "--print", "-f", "-"], input=bytes(text), capture_output=True)
        assert done.returncode in (0, 1), (bytes(text), done)
        if done.returncode == 0:
            json.loads(done.stdout)


leaves = st.none() | st.booleans() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values.filter(lambda v: isinstance(v, (dict, list)) and v))
@example({"\x85": None})
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(bare, value):
    """Not compared with the value itself: PyYAML folds a lone U+0085 that it wrote into a space, as YAML 1.1 has it."""
    text = yaml.safe_dump(value, allow_unicode=True)
    assert json.dumps(to_json(bare, text), sort_keys=True) == json.dumps(yaml.safe_load(text), sort_keys=True)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values.filter(lambda v: isinstance(v, (dict, list)) and v))
def test_json_is_yaml(bare, value):
    """The same text as .yaml (JSON is recognised by its first byte) and as .json."""
    text = json.dumps(value)  # with surrogate pairs as escapes
    for name in ("v.yaml", "v.json"):
        got = to_json(bare, text, name)
        want = value[0] if isinstance(value, list) and len(value) == 1 else value  # an array is its documents
        assert json.dumps(got, sort_keys=True) == json.dumps(want, sort_keys=True)


def test_files_are_joined_in_order(bare):
    one, two, three = bare.file("1.yaml", "a: 1\n---\nb: 2\n"), bare.file("2.json", '[{"c": 3}, {"d": 4}]'), bare.file("3.yaml", "e: 5\n")
    empty, none = bare.file("4.yaml", "# nothing\n"), bare.file("5.json", "[]")
    got = json.loads(bare("apply", "--print", "-f", one, "-f", empty, "-f", two, "-f", none, "-f", three))
    assert got == [{"a": 1}, {"b": 2}, {"c": 3}, {"d": 4}, {"e": 5}]
    assert json.loads(bare("apply", "--print", "-f", none, "-f", three, "-f", empty)) == {"e": 5}


def test_nothing_to_apply_is_an_error(ctl):
    assert "nothing to apply" in ctl("apply", "-f", ctl.file("4.yaml", "# nothing\n"), code=1)
    assert "nothing to apply" in ctl("apply", "--prune", "-f", ctl.file("5.json", "[ ]"), code=1)


def test_json_mistakes_have_a_line(bare):
    assert "bad.json: line 3: not valid JSON" in bare("apply", "--print", "-f", bare.file("bad.json", '{\n "a": 1,\n "b" 2\n}'), code=1)
    assert "two.json: line 2: not valid JSON" in bare("apply", "--print", "-f", bare.file("two.json", '{}\n{}'), code=1)


def test_no_such_file(bare):
    assert "nowhere.yaml: No such file or directory" in bare("apply", "-f", "nowhere.yaml", code=1)
    assert "Is a directory" in bare("apply", "-f", bare.directory, code=1)
