"""Inside Envoy: what the module reads of other filters."""

import re

import httpx
import pytest
from hosts import envoy_module
from hosts.host import endpoints_of
from sglang_sim.harness import wait_for
from traffic import PATHS, body, error_of

SPACE, KEY = "envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset"
TAIL = re.compile(rb',?"bootstrap_host":"[^"]*","bootstrap_port":\d+,"bootstrap_room":\d+')
FILTERS = "type.googleapis.com/envoy.extensions.filters.http."


class Hinted(envoy_module.Gateway):
    """With a filter in front that leaves a subset hint: of a header (text), or always the same (a list)."""
    hint = None

    def envoy_config(self):
        config = super().envoy_config()
        if self.hint is None:
            given = {"name": "text", "typed_config": {"@type": FILTERS + "header_to_metadata.v3.Config", "request_rules": [
                {"header": "x-subset", "on_header_present": {"metadata_namespace": SPACE, "key": KEY, "type": "STRING"}}]}}
        else:
            given = {"name": "list", "typed_config": {"@type": FILTERS + "set_metadata.v3.Config", "metadata": [
                {"metadata_namespace": SPACE, "value": {KEY: self.hint}}]}}
        for listener in config["static_resources"]["listeners"]:
            listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].insert(0, given)
        return config


def decoded_by(fleet):
    return {w.name for w in fleet.decodes if w.requests(PATHS["chat"])}


@pytest.mark.parametrize("kind", ["text", "list"])
def test_subset_hint(kind, fleet, tmp_path):
    only, other = [w.name for w in fleet.decodes]
    gw = Hinted(tmp_path / "gw", endpoints_of(fleet))
    gw.hint = [only, "10.9.9.9:1"] if kind == "list" else None
    with gw:
        def ask(i, hint):
            return httpx.post(gw.url + PATHS["chat"], json=body("chat", text=f"{i}"), headers={"x-subset": hint} if hint else {}, timeout=20)

        assert {ask(i, f"{only}, 10.9.9.9:1").status_code for i in range(6)} == {200} and decoded_by(fleet) == {only}
        if kind == "text":
            fleet.reset()
            assert {ask(i, f"{other},{fleet.prefills[1].name}").status_code for i in range(6)} == {200} and decoded_by(fleet) == {other}
            assert not fleet.prefills[0].requests(PATHS["chat"]), "prefill servers are restricted where one is named"
            refused = ask(0, "10.9.9.9:1")
            assert refused.status_code == 503 and error_of(refused)["code"] == "no_pair"
            fleet.reset()
            assert {ask(i, None).status_code for i in range(8)} == {200}
            assert wait_for(lambda: decoded_by(fleet) == {only, other}, timeout=1), "without a hint all serve"
        assert not gw.alerts() and "is not a string" not in gw.errors()


@pytest.mark.parametrize("kind", ["sized", "chunked", "chunked, no room behind", "much behind"])
def test_bytes_of_both_attempts(kind, fleet, tmp_path):
    """A leg's body is written over the end of the client's, if that can be: each attempt begins with what the client sent."""
    size = 65_530 if kind == "chunked, no room behind" else 132_000  # the first: buffers grow by doubling
    start, end = b'{"model":"tiny","max_tokens":2,"messages":[{"role":"user","content":"', b'"}]}' + (b" " * 3000 if kind == "much behind" else b"\n")
    sent = start + b"a \xc3\xa9" * ((size - len(start) - len(end)) // 4)
    sent += b"b" * (size - len(sent) - len(end)) + end
    assert len(sent) == size
    with envoy_module.Gateway(tmp_path / "gw", endpoints_of(fleet)) as gw:
        fleet.decodes[0].fault(kind="status", status=500)
        for _ in range(4):  # some of them with a second pair
            answer = httpx.post(gw.url + PATHS["chat"], content=iter([sent]) if "chunked" in kind else sent, headers={"Content-Type": "application/json"}, timeout=20)
            assert answer.status_code == 200
        legs = [r for w in fleet.workers for r in w.requests(PATHS["chat"])]
        assert len(legs) >= 9 and fleet.decodes[0].requests(PATHS["chat"])
        for leg in legs:
            assert TAIL.sub(b"", leg.body) == sent and leg.json["bootstrap_room"]
