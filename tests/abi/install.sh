#!/usr/bin/env bash
# Installs BUILD_DIR into a new prefix, moves that, and uses it as others would: pkg-config and find_package, C and C++, shared and static;
# the program is the README's.   install.sh BUILD_DIR
set -u
cd "$(dirname "$0")/../.."
top=$PWD build=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
p=0 f=0
ok() { if [ "$1" = 0 ]; then p=$((p + 1)); else f=$((f + 1)); echo "FAIL $2"; tail -20 "$work/log"; fi; }

cmake --install "$build" --prefix "$work/first" >"$work/log" 2>&1; ok $? "cmake --install"
mv "$work/first" "$work/prefix"
lib=$(dirname "$(find "$work/prefix" -name libpdroute.so)")
export PKG_CONFIG_PATH=$lib/pkgconfig LD_LIBRARY_PATH=$lib
host='#include <pdroute/host.h>
int main(void) { pdr_probe *p = 0; uint64_t boot; (void)p; return pdr_host_boot(&boot, 0) || pdr_abi_version() != PDR_ABI_VERSION; }'
echo "$host" >"$work/host.c"
cp "$work/host.c" "$work/host.cc"; cp examples/c/route.c "$work/route.cc"

[ "$(pkg-config --modversion libpdroute)" = "$(sed -nE 's/^project\(pdroute VERSION ([0-9.]+).*/\1/p' CMakeLists.txt)" ]; ok $? "version in libpdroute.pc"
printf '#include <pdroute/pdroute.h>\n#include <stdio.h>\nint main(void){printf("%%s %%u", pdr_version_string(), pdr_version_number() != PDR_VERSION_NUMBER);return 0;}\n' >"$work/version.c"
gcc "$work/version.c" -o "$work/version" $(pkg-config --cflags --libs libpdroute) >"$work/log" 2>&1 && [ "$("$work/version")" = "$(pkg-config --modversion libpdroute) 0" ]
ok $? "the library's version, the header's and the package's are one"

# shows PROGRAM: it runs and prints a decision with both bodies
shows() { "$1" >"$work/log" 2>&1 && [ "$(grep -c '"bootstrap_room":[1-9]' "$work/log")" = 2 ] && grep -q '^prefill 10.0.0.[12]:8000, decode 10.0.1.1:8000, room ' "$work/log"; }
flags="-Wall -Wextra -Werror"
gcc -std=c11 $flags examples/c/route.c -o "$work/route" $(pkg-config --cflags --libs libpdroute) >"$work/log" 2>&1 && shows "$work/route"; ok $? "C with pkg-config"
g++ -std=c++20 $flags -Wno-missing-field-initializers "$work/route.cc" -o "$work/routecc" $(pkg-config --cflags --libs libpdroute) >"$work/log" 2>&1 && shows "$work/routecc"; ok $? "C++ with pkg-config"
gcc -std=c11 $flags examples/c/route.c -o "$work/static" -static $(pkg-config --cflags --libs --static libpdroute) >"$work/log" 2>&1 && shows "$work/static"; ok $? "static C with pkg-config"
gcc $flags "$work/host.c" -o "$work/host" $(pkg-config --cflags --libs libpdroute_host) >"$work/log" 2>&1 && "$work/host"; ok $? "libpdroute_host with pkg-config"
g++ -std=c++11 $flags "$work/host.cc" -o "$work/hostcc" $(pkg-config --cflags --libs libpdroute_host) >"$work/log" 2>&1 && "$work/hostcc"; ok $? "libpdroute_host in C++11 with pkg-config"

mkdir "$work/consumer"
cat >"$work/consumer/CMakeLists.txt" <<CMAKE
cmake_minimum_required(VERSION 3.18)
project(consumer C CXX)
find_package(pdroute 0.1 REQUIRED)
add_executable(c $top/examples/c/route.c)
target_link_libraries(c pdroute::pdroute)
add_executable(static $top/examples/c/route.c)
target_link_libraries(static pdroute::static)
add_executable(cc $work/route.cc)
target_link_libraries(cc pdroute::pdroute)
set_property(TARGET cc PROPERTY CXX_STANDARD 20)
add_executable(host $work/host.c)
target_link_libraries(host pdroute::host)
add_executable(host_static $work/host.c)
target_link_libraries(host_static pdroute::host_static)
CMAKE
unset LD_LIBRARY_PATH
cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$work/prefix" >"$work/log" 2>&1 && cmake --build "$work/consumer/build" >"$work/log" 2>&1; ok $? "find_package(pdroute)"
for t in c static cc; do shows "$work/consumer/build/$t"; ok $? "$t with find_package"; done
for t in host host_static; do "$work/consumer/build/$t" >"$work/log" 2>&1; ok $? "$t with find_package"; done

# the README's C program, if it has one, is the example
sed -n '/^```c$/,/^```$/p' README.md | grep -v '^```' >"$work/readme.c"
if [ -s "$work/readme.c" ]; then
  diff -u examples/c/route.c "$work/readme.c" >"$work/log" 2>&1; ok $? "README.md's program differs from examples/c/route.c"
else
  echo "SKIP README.md has no C program yet"
fi
echo "$p passed, $f failed, 0 skipped"
[ $f = 0 ]
