#!/usr/bin/env bash
# What the shared libraries export, against tests/abi/symbols.txt and the functions of the headers.
#   symbols.sh BUILD_DIR [--accept]
set -u
cd "$(dirname "$0")/../.."
list() { nm -D --defined-only "$1"/lib/libpdroute.so "$1"/lib/host/libpdroute_host.so | awk '$2 ~ /^[A-Z]$/ && $2 != "A" { print $3 }' | sort; }
declared() { awk '$1 == "function" { print $2 }' tests/abi/layout.txt | sort; }
bad=0
if [ "${2:-}" = --accept ]; then
  gone=$(comm -23 <(sort tests/abi/symbols.txt 2>/dev/null) <(list "$1"))
  [ -z "$gone" ] || { echo "FAIL symbols that were exported before are gone:" $gone; exit 1; }
  list "$1" >tests/abi/symbols.txt
fi
gone=$(comm -23 tests/abi/symbols.txt <(list "$1")) new=$(comm -13 tests/abi/symbols.txt <(list "$1"))
[ -z "$gone" ] || { echo "FAIL no longer exported:" $gone; bad=1; }
[ -z "$new" ] || { echo "FAIL exported, but not in tests/abi/symbols.txt (symbols.sh $1 --accept, if meant):" $new; bad=1; }
missing=$(comm -23 <(declared) <(list "$1" | sed 's/@.*//')) secret=$(comm -13 <(declared) <(list "$1" | sed 's/@.*//'))
[ -z "$missing" ] || { echo "FAIL declared, but not exported:" $missing; bad=1; }
[ -z "$secret" ] || { echo "FAIL exported, but in no header:" $secret; bad=1; }
# one static archive must not clash with its host's names either
foreign=$(nm -g --defined-only "$1"/lib/libpdroute.a "$1"/lib/host/libpdroute_host.a | awk 'NF == 3 && $3 !~ /^pdr_/ { print $3 }' | sort -u)
[ -z "$foreign" ] || { echo "FAIL global names of the static libraries that do not begin with pdr_:" $foreign; bad=1; }
# and needs nothing that the core promises not to use
needs=$(nm -u "$1"/lib/libpdroute.a | awk '$1 == "U" && $2 !~ /^pdr_/ { print $2 }' | grep -E '^(open|fopen|socket|getenv|clock_gettime|time|gettimeofday|pthread_create|rand|srand|cJSON_|XXH|__errno_location)' | sort -u)
[ -z "$needs" ] || { echo "FAIL the core calls" $needs; bad=1; }
exit $bad
