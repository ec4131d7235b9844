"""Older Envoys: the same source, the same answers."""

import subprocess

import httpx
import pytest
from hosts import envoy_module, ext_proc
from hosts.host import TOP, endpoints_of
from traffic import PATHS, answer_text, body, both_legs, events_of

VERSIONS = ("1.38.3", "1.39.3")


@pytest.mark.parametrize("how", ["module", "both", "send"])
@pytest.mark.parametrize("version", VERSIONS)
def test_version(version, how, fleet, tmp_path, monkeypatch):
    got = subprocess.run([TOP / "examples/ext_proc/get_envoy", version], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if got.returncode == 3:
        pytest.skip(got.stderr.strip())
    assert got.returncode == 0, got.stderr
    ext_proc.built.cache_clear()
    monkeypatch.setenv("PDROUTE_ENVOY", got.stdout.strip())
    if how == "module":
        gw = envoy_module.Gateway(tmp_path / "gw", endpoints_of(fleet))
    else:
        gw = ext_proc.Gateway(tmp_path / "gw", endpoints_of(fleet), flags=("--dispatch", how))
    gw.start()
    try:
        with httpx.Client(base_url=gw.url, timeout=20) as client:
            assert answer_text("chat", client.post(PATHS["chat"], json=body("chat")).json())
            prefill, decode = both_legs(fleet, PATHS["chat"])
            assert prefill.json["bootstrap_room"] == decode.json["bootstrap_room"]
            logged, = gw.logged(1)
            assert int(logged["room"]) == prefill.json["bootstrap_room"] and logged["attempts"] == "1" and logged["why"].startswith("cost=") and "/" in logged["hit"]
            fleet.decodes[0].fault(kind="status", status=500)  # a retry, and its stream in place of the failed one
            for i in range(4):
                answer = client.post(PATHS["chat"], json=body("chat", text=f"{i}", stream=True))
                assert answer.status_code == 200 and events_of(answer.text)[-1] == "[DONE]"
    finally:
        gw.stop()
        ext_proc.built.cache_clear()
