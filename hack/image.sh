#!/usr/bin/env bash
# Builds an image from one static binary, says how large it is compressed, and fails where it is larger than allowed.
#
#   hack/image.sh TESTBED BINARY NAME:TAG ARCHIVE [MEGABYTES]
set -euo pipefail
said=$("$1" image build --binary "$2" --name "$3" --output "$4")
bytes=${said##*compressed_bytes=}
bytes=${bytes%%[!0-9]*}
# Decimal megabytes, as registries tell them; rounded up, so that a bound is never passed by rounding.
tenths=$(((bytes + 99999) / 100000))
printf '%s: %d.%d MB compressed\n' "$3" $((tenths / 10)) $((tenths % 10))
if [ $tenths -gt $((${5:-1000} * 10)) ]; then
  printf '%s is larger than %s MB\n' "$3" "$5" >&2
  exit 1
fi
