#!/usr/bin/env bash
# Runs one stage: says when it begins, that it still runs (every 30 s), how it ended and how long it took.
#
#   hack/stage.sh NAME COMMAND [ARGUMENT...]
#
# A line a stage goes to target/stages/TIMES, from which hack/summary.sh makes the table at the end. The exit code is
# the command's.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=$1
shift
record=$root/target/stages
mkdir -p "$record"
began=$SECONDS

printf '==> %s\n' "$name"
# A read that times out instead of a sleep: nothing is left behind when the heartbeat is ended.
(
  exec 9<> <(:)
  until read -rt 30 -u 9 _; [ $? -le 128 ]; do printf '    %s: still running, %d s\n' "$name" $((SECONDS - began)); done
) &
heartbeat=$!
disown
trap 'kill "$heartbeat" 2>/dev/null' EXIT

"$@"
code=$?
result=ok
[ $code = 0 ] || result="FAILED (exit $code)"
printf '<== %s: %s after %d s\n' "$name" "$result" $((SECONDS - began))
printf '%s\t%d\t%s\n' "$name" $((SECONDS - began)) "$result" >>"$record/TIMES"
exit $code
