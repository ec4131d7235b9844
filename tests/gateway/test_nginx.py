"""nginx's own ways: configuration, directives, block files, the README."""

import json
import os
import re
import subprocess

import httpx
import pytest
from hosts.host import endpoints_of
from hosts.nginx import TOP, build_module
from kills import CTL
from sglang_sim.harness import wait_for
from traffic import PATHS, body

pytestmark = pytest.mark.only("nginx")


BAD_CONFIGS = {
    "not JSON": ('{\n "policy": "default",\n', r"zone\.json:\d+: "),
    "unknown member": ('{\n "polcy": "default"}', r"zone\.json:2: .*polcy"),
    "out of range": ('{\n\n "block_bytes": 3}', r"zone\.json:3: .*block_bytes"),
    "bad endpoint": ('{"endpoints": [\n {"role": "prefill", "host": "10.0.0.1", "port": 70000}]}', r"zone\.json:2: .*port"),
}


@pytest.mark.parametrize("text,message", BAD_CONFIGS.values(), ids=BAD_CONFIGS)
@pytest.mark.parametrize("how", ["test", "start", "reload"])
def test_bad_config(text, message, how, fleet, make_gateway):
    gw = make_gateway(fleet, start=False)
    gw.write()
    if how == "reload":
        gw.start()
        gw.expect_alerts = True
        pids = gw.worker_pids()
        gw.write_config(text)
        gw.reload()
        assert wait_for(lambda: re.search(message, gw.errors()), timeout=5), gw.errors()
        assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200 and gw.worker_pids() == pids
        return
    gw.write_config(text)
    code, said = gw.check() if how == "test" else refuse_to_start(gw)
    assert code and re.search(message, said), said
    assert not gw.block.exists(), "a block was made from a bad configuration"


def refuse_to_start(gw):
    done = subprocess.run(gw.command(), stderr=subprocess.PIPE, text=True, timeout=20)
    return done.returncode, done.stderr


@pytest.mark.parametrize("line,message", [
    ("pdroute_zone main file=x config=y;", "duplicate"), ("pdroute_zone other file=x;", "needs file= and config="),
    ("pdroute_zone other file=x config=/nowhere/at/all.json;", 'cannot open "/nowhere/at/all.json"'),
    ("pdroute_zone other file=x config=y size=many;", 'invalid parameter "size=many"'),
    ("pdroute_zone other file=x config=zone.json size=1m;", r'pdroute_zone "other": .*zone\.json: its sizes need a block of \d{8} bytes, size= allows 1048576; .* in .*nginx.conf:\d+'),
    ("server { listen 127.0.0.1:1; location / { pdroute nobody; } }", r'unknown pdroute_zone "nobody" in .*nginx.conf:\d+'),
    ("server { listen 127.0.0.1:1; location / { pdroute main connect_timeout=soon; } }", 'invalid parameter "connect_timeout=soon"'),
    ("server { listen 127.0.0.1:1; location / { pdroute_status nobody; } }", "unknown pdroute_zone"),
    ("pdroute_zone other file=x config=zone.json tls_ca=zone.json tls_insecure;", r"tls_ca= and tls_insecure exclude each other in .*nginx.conf:\d+"),
    ("server { listen 127.0.0.1:1; location / { pdroute main; pdroute_status main; } }", r'"pdroute_status" directive and another content handler are in one location in .*nginx.conf:\d+'),
    ("server { listen 127.0.0.1:1; location / { proxy_pass http://127.0.0.1:9; pdroute main; } }", r'"pdroute" directive and another content handler are in one location in .*nginx.conf:\d+'),
    ("server { listen 127.0.0.1:1; location / { pdroute main; proxy_pass http://127.0.0.1:9; } }", r'"pdroute" directive and another content handler are in one location in .*nginx.conf:\d+'),
    ("server { listen 127.0.0.1:1; location / { location /x { pdroute_status main; proxy_pass http://127.0.0.1:9; } } }", '"pdroute_status" directive and another content handler'),
    ("server { listen 127.0.0.1:1; location / { proxy_pass http://127.0.0.1:9; location /x { pdroute main; location /x/y { pdroute_status main; } } } }", None),
])
def test_bad_directive(line, message, fleet, make_gateway):
    gw = make_gateway(fleet, start=False)
    gw.write()
    conf = gw.dir / "nginx.conf"
    conf.write_text(conf.read_text().replace("    server {", f"    {line}\n    server {{", 1))
    code, said = gw.check()
    if message is None:
        assert code == 0, said
    else:
        assert code and re.search(message, said), said


def test_two_zones_on_one_block(fleet, make_gateway):
    """One configuration: one block under two names. Two: the second is refused, by `nginx -t` too, and even if it might replace the block."""
    gw = make_gateway(fleet, start=False)
    gw.write()
    conf, plain = gw.dir / "nginx.conf", None
    (gw.dir / "other.json").write_text('{"max_bookings": 999}')
    for more, good in (("config=zone.json size=1g", True), ("config=other.json", False), ("config=other.json recreate", False)):
        plain = plain or conf.read_text()
        conf.write_text(plain.replace("    server {", f"    pdroute_zone other file={gw.block} {more};\n    server {{", 1))
        code, said = gw.check()
        assert (code == 0) == good, said
        line = conf.read_text().split("pdroute_zone other")[0].count("\n") + 1
        first = conf.read_text().split("pdroute_zone main")[0].count("\n") + 1
        reason = rf'"other" has the block file {gw.block} of pdroute_zone "main" \(.*nginx\.conf:{first}\) with another configuration, .*other\.json: .*max_bookings.* in .*nginx\.conf:{line}'
        assert good or re.search(reason, said), said


@pytest.mark.parametrize("there", [False, True])
def test_a_block_by_other_names(there, fleet, make_gateway):
    """Two zones have one block if their paths lead to one file, however they are written, before the block is made and after."""
    gw = make_gateway(fleet, start=there)
    gw.expect_alerts = True
    gw.write()
    conf, block = gw.dir / "nginx.conf", gw.block
    block.parent.mkdir(exist_ok=True)
    (gw.dir / "other.json").write_text('{"max_bookings": 999}')
    (gw.dir / "way").symlink_to(block.parent)
    (gw.dir / "round").symlink_to(gw.dir / "way")
    names = [f"{block.parent}/./{block.name}", f"{block.parent}//{block.name}", f"{block.parent}/../{block.parent.name}/{block.name}",
             f"{gw.dir}/way/{block.name}", f"{gw.dir}/round/.//{block.name}"]
    if there:
        (gw.dir / "link").symlink_to(block)
        os.link(block, f"{block}.hard")
        names += [f"{gw.dir}/link", f"{block}.hard"]
    else:
        conf.write_text(conf.read_text().replace(f"file={block} ", f"file={block.parent}/new/sub/{block.name} "))
        names = [f"{block.parent}/new/sub/./{block.name}", f"{block.parent}//new//sub//{block.name}", f"{block.parent}/new/sub/more/../{block.name}",
                 f"{gw.dir}/way/new/sub/{block.name}"]
    plain = conf.read_text()
    for name in names:
        conf.write_text(plain.replace("    server {", f"    pdroute_zone other file={name} config=other.json;\n    server {{", 1))
        code, said = gw.check()
        assert code and re.search(r'"other" has the block file .* of pdroute_zone "main" .*max_bookings', said), f"{name}: {said}"
    for name in (f"{block}x", f"{block.parent}/another/{block.name}", f"{gw.dir}/{block.name}.d/{block.name}"):
        conf.write_text(plain.replace("    server {", f"    pdroute_zone other file={name} config=other.json;\n    server {{", 1))
        code, said = gw.check()
        assert code == 0, f"{name}: {said}"


def test_good_config_is_only_looked_at(fleet, make_gateway):
    gw = make_gateway(fleet, start=False)
    gw.write()
    code, said = gw.check()
    assert code == 0, said
    assert not gw.block.exists()


@pytest.mark.parametrize("recreate", [False, True])
def test_block_of_another_config(recreate, fleet, make_gateway):
    gw = make_gateway(fleet, recreate=recreate)
    gw.stop()
    gw.config["max_bookings"] = 1000
    if recreate:
        gw.start()
        assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
    else:
        gw.write()
        code, said = refuse_to_start(gw)
        assert code and "recreate" in said and str(gw.block) in said


def listed(gw):
    return subprocess.run([CTL, "--block", gw.block, "list"], capture_output=True, text=True, check=True).stdout


def test_what_servers_said_outlives_a_reload(fleet, make_gateway):
    """Bootstrap ports that are in no configuration: the probe reads them from the servers, once."""
    gw = make_gateway([{k: v for k, v in e.items() if k != "bootstrap_port"} for e in endpoints_of(fleet)])
    ports = [str(w.bootstrap_port) for w in fleet.prefills]
    probe = subprocess.Popen([CTL, "--block", gw.block, "probe", "--quiet", "--interval", "0.2"])
    try:
        assert wait_for(lambda: all(port in listed(gw) for port in ports), timeout=10), listed(gw)
        for _ in range(2):
            assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
            pids = gw.worker_pids()
            gw.reload()
            assert wait_for(lambda before=pids: not set(before) & set(gw.worker_pids()), timeout=10)
        assert all(port in listed(gw) for port in ports), listed(gw)
    finally:
        probe.terminate()
        probe.wait(10)


def test_an_empty_configuration_is_one(fleet, make_gateway):
    """All by default, servers by pdroutectl."""
    gw = make_gateway(fleet, start=False)
    gw.write()
    gw.write_config("{}")
    gw.start(write=False)
    for e in endpoints_of(fleet):
        more = ["--bootstrap-port", str(e["bootstrap_port"])] if e["role"] == "prefill" else []
        subprocess.run([CTL, "--block", gw.block, "put", "--role", e["role"], f"http://{e['host']}:{e['port']}", *more], check=True, capture_output=True)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200


def test_garbage_in_the_block_file(fleet, make_gateway):
    gw = make_gateway(fleet, start=False)
    gw.write()
    gw.block.parent.mkdir(exist_ok=True)
    gw.block.write_bytes(b"x" * 100_000)
    code, said = refuse_to_start(gw)
    assert code and str(gw.block) in said


def test_readme(fleet, make_gateway):
    """The configuration in the README is one that nginx takes, and that routes."""
    gw = make_gateway(fleet, start=False)
    gw.write()
    text = (TOP / "examples/nginx/README.md").read_text()
    conf, = re.findall(r"```nginx\n(.*?)```", text, re.S)
    (gw.dir / "zone.json").write_text(re.findall(r"```json\n(.*?)```", text, re.S)[0])
    own = re.search(r"^    (client_body_temp_path.*?scgi_temp_path [^;]*;)", (gw.dir / "nginx.conf").read_text(), re.S | re.M).group(1)
    for there, here in (("modules/ngx_http_pdroute_module.so", build_module()), ("/dev/shm/pdroute/qwen", str(gw.block)), ("listen 8080", f"listen 127.0.0.1:{gw.port}"),
                        ("/etc/nginx/pdroute.json", str(gw.dir / "zone.json")), ("/var/log/nginx", str(gw.dir)), ("http {", "http {\n" + own),
                        ("events {", f"pid {gw.dir}/nginx.pid; daemon off;\nevents {{")):
        assert there in conf
        conf = conf.replace(there, here)
    (gw.dir / "nginx.conf").write_text(conf)
    code, said = gw.check()
    assert code == 0, said
    (gw.dir / "zone.json").write_text(json.dumps({"endpoints": endpoints_of(fleet)}))
    gw.start(write=False)
    assert httpx.post(gw.url + PATHS["chat"], json=body("chat")).status_code == 200
    assert httpx.get(gw.url + "/pdroute").json()["routed"] == 1
    assert "prefill=127." in (gw.dir / "access.log").read_text()
