#!/usr/bin/env bash
# Unpacks Debian's arm64 packages of the libraries that the tests need into DIR, with everything they depend on. Nothing is installed and
# the system's own package state stays as it is: apt works on a state of its own, in DIR.   arm64_root.sh DIR
set -eu
mkdir -p "$1"
root=$(cd "$1" && pwd)
[ -e "$root/.complete" ] && exit 0
apt=$root/.apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc"
: >"$apt/status"
options=(-qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o Dir::State="$apt" -o Dir::State::lists="$apt/lists"
  -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives"
  -o Debug::NoLocking=1 -o APT::Sandbox::User=root -o APT::Install-Recommends=false)
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --download-only install libcmocka-dev libcjson-dev libxxhash-dev libcurl4-openssl-dev libyaml-dev
for deb in "$apt"/archives/*.deb; do
  case $(basename "$deb") in
  libc6* | libc-* | linux-libc* | libgcc-s1* | gcc-* | perl* | debconf*) ;; # the cross compiler brings its own
  *) dpkg-deb -x "$deb" "$root" ;;
  esac
done
[ -d "$root/usr/lib/aarch64-linux-gnu/pkgconfig" ]
rm -rf "$apt"
touch "$root/.complete"
