# For the labels: building, counting, the closing line. Sourced with PDR_TOP and PDR_OUT set.
set -u
PDR_LABEL=$(basename "$0")
cd "$PDR_TOP"
. tests/tools/packages.sh
jobs=$(nproc)
[ -n "${PDROUTE_LONG:-}" ] || export PDROUTE_BRIEF=1 # tests/gateway/conftest.py

# build_in DIR [cmake options… [-- TARGET…]]: configures and builds with warnings as errors. One at a time in a directory. What builds steps back
# behind what runs: that has times to keep.
build_in() {
  local dir=$1 log options=() code=0; shift
  log=$PDR_OUT/$(basename "$dir")
  while [ $# != 0 ]; do [ "$1" = -- ] && { shift; break; }; options+=("$1"); shift; done
  mkdir -p "$dir"
  exec 8>"$dir/.lock"; flock 8 # the same lock as that of examples/*/build
  nice -n 10 cmake -S . -B "$dir" -G Ninja -DPDR_WERROR=ON "${options[@]}" >"$log.cmake.log" 2>&1 8>&- || { cat "$log.cmake.log"; echo "FAIL configuring $dir"; code=1; }
  [ $code != 0 ] || nice -n 10 ninja -C "$dir" -j "$jobs" "$@" >"$log.ninja.log" 2>&1 8>&- ||
    { grep -vE '^\[[0-9]+/[0-9]+\]' "$log.ninja.log" | head -60; echo "FAIL building $dir"; code=1; }
  exec 8>&-
  return $code
}

# run_ctest DIR [ctest options…]: runs and prints the closing line, one test per executable
run_ctest() {
  local dir=$1 out=$PDR_OUT/ctest.$$; shift
  ctest --test-dir "$dir" -j "$jobs" --output-on-failure "$@" | tee "$out"
  local f n
  f=$(sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests failed out of ([0-9]+)$/\1/p' "$out")
  n=$(sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests failed out of ([0-9]+)$/\2/p' "$out")
  rm -f "$out"
  grand "$(( ${n:-0} - ${f:-0} ))" "${f:-1}" 0
}

# run_pytest PATH… : the same for Python tests. With PDROUTE_AGAIN only those that failed the last time (tests/run).
run_pytest() {
  local out=$PDR_OUT/pytest.$$ memory again=()
  memory=$PDR_OUT/memory/$(cksum <<<"$PDR_LABEL $*" | tr ' ' -)
  if [ -n "${PDROUTE_AGAIN:-}" ]; then again=(--last-failed --last-failed-no-failures none); else rm -rf "$memory"; fi
  $PDR_PYTHON -m pytest -q -o cache_dir="$memory" -rsfE "${again[@]}" "$@" 2>&1 | tee "$out"
  local last p f s e
  last=$(tail -1 "$out")
  count() { sed -nE "s/(.*[^0-9])?([0-9]+) $1.*/\2/p" <<<"$last"; }
  p=$(count passed) f=$(count failed) s=$(count skipped) e=$(count 'errors?')
  grep -a '^SKIPPED' "$out" | sed 's/^SKIPPED/SKIP/'
  rm -f "$out"
  grand "${p:-0}" "$(( ${f:-0} + ${e:-0} ))" "${s:-0}"
}

# counted COMMAND…: one part of several; the counts of its closing line in $passed, $failed, $skipped. (A pipe, and no second opening of the log: that would be written over.)
counted() {
  local out=$PDR_OUT/counted.$$
  "$@" | tee "$out"
  read -r passed _ failed _ skipped _ < <(tail -1 "$out")
  rm -f "$out"
}

grand() { echo "$1 passed, $2 failed, $3 skipped"; [ "$2" = 0 ]; }
skip_all() { echo "SKIP $1"; echo "0 passed, 0 failed, 1 skipped"; exit 0; }
