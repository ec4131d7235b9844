# Debian packages that parts of the project need, and how to get the missing ones. Sourced by tests/run, examples/*/run and others.
#   need_packages PART…      installs what is missing; fails with a clear sentence if it cannot
PDR_PACKAGES_build="gcc cmake ninja-build pkg-config libcjson-dev libxxhash-dev"
PDR_PACKAGES_host="libcurl4-openssl-dev libyaml-dev"
PDR_PACKAGES_nginx="nginx nginx-dev"
PDR_PACKAGES_envoy="libnghttp2-dev libuv1-dev python3-pip python3-h2 python3-protobuf"
PDR_PACKAGES_sim="python3 python3-aiohttp"
PDR_PACKAGES_lab="zlib1g-dev"
PDR_PACKAGES_report="nodejs"
PDR_PACKAGES_client="curl"
PDR_PACKAGES_real="python3-venv libibverbs1 libnl-3-200 libnl-route-3-200 libnuma1"
PDR_PACKAGES_unit="libcmocka-dev"
PDR_PACKAGES_abi="g++ binutils python3"
PDR_PACKAGES_pytest="python3-pytest python3-aiohttp python3-httpx python3-yaml python3-hypothesis python3-hpack curl openssl"
PDR_PACKAGES_python="python3-uvicorn python3-uvloop python3-httptools gunicorn mypy python3-pip python3-venv"
PDR_PACKAGES_clang="clang libclang-rt-14-dev llvm"
PDR_PACKAGES_aarch64="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
PDR_PACKAGES_valgrind="valgrind"
PDR_PACKAGES_bench="wrk g++ libsimdjson-dev"

installed() { dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null | grep -q '^installed$'; }

need_packages() {
  local part list missing="" p sudo=""
  for part in "$@"; do
    list="PDR_PACKAGES_$part"
    for p in ${!list}; do installed "$p" || missing="$missing $p"; done
  done
  [ -z "$missing" ] && return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "missing packages:$missing (and neither root nor sudo to install them)" >&2; return 1; }
    sudo="sudo"
  fi
  if [ -z "${PDR_PACKAGES_LOCKED:-}" ]; then # another label may be at it: when it has ended, look again
    local lock=${TMPDIR:-/tmp}/pdroute-packages-$(id -u).lock
    (flock 7; PDR_PACKAGES_LOCKED=1 need_packages "$@") 7>"$lock"
    return
  fi
  echo "installing:$missing" >&2
  local log; log=$(mktemp)
  # a distribution's nginx starts itself on port 80 when installed: not wanted here
  local policy=""
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null && $sudo chmod +x $policy
  fi
  local ok=0 wait="-o DPkg::Lock::Timeout=300"
  { $sudo env DEBIAN_FRONTEND=noninteractive apt-get $wait install -y -qq --no-install-recommends $missing ||
    { $sudo apt-get $wait update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get $wait install -y -qq --no-install-recommends $missing; }; } >"$log" 2>&1 || ok=1
  [ -n "$policy" ] && $sudo rm -f $policy
  [ $ok = 0 ] || { tail -5 "$log" >&2; echo "could not install:$missing" >&2; }
  rm -f "$log"
  return $ok
}
