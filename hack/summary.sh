#!/usr/bin/env bash
# The end of `make test`: how long each stage took, what did not run and why, and one line for machines.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../target/stages"

printf '\nStages\n'
awk -F '\t' '{printf "  %6d s  %-20s %s\n", $2, $1, $3; total += $2} END {printf "  %6d s  in all\n", total}' TIMES

# Rust's runner ends each binary with: test result: ok. 3 passed; 0 failed; 1 ignored; ...
read -r passed failed ignored < <(cat ./*.log 2>/dev/null |
  awk '/^test result: /{p += $4; f += $6; i += $8} END {print p + 0, f + 0, i + 0}')

# Go's ends each test with: --- PASS: TestName (0.00s)
read -r go_passed go_failed go_ignored < <(cat ./*.log 2>/dev/null |
  awk '/^--- PASS: /{p++} /^--- FAIL: /{f++} /^--- SKIP: /{i++} END {print p + 0, f + 0, i + 0}')
passed=$((passed + go_passed)) failed=$((failed + go_failed)) ignored=$((ignored + go_ignored))

# What a test says of itself: NOT RUN: name: why. Where tests run one by one, its own name stands before that in the line.
cat ./*.log 2>/dev/null | sed -n 's/^\(test .* \.\.\. \)\{0,1\}NOT RUN: //p' >>NOT-RUN

# What the crash suite says of itself: how many plans over how many writes.
cat ./*.log 2>/dev/null | sed -n 's/^\(test .* \.\.\. \)\{0,1\}\(crash plans: \)/\n\2/p'

printf '\nDid not run\n'
[ "$ignored" = 0 ] || printf '  %s tests are marked as ignored\n' "$ignored"
if [ -s NOT-RUN ]; then sort NOT-RUN | uniq -c | awk '{n = $1; sub(/^ *[0-9]+ /, ""); print "  " $0 (n > 1 ? " (" n " times)" : "")}'; fi
if [ "$ignored" = 0 ] && [ ! -s NOT-RUN ]; then printf '  nothing: everything ran\n'; fi
skipped=$((ignored + $(wc -l <NOT-RUN)))

broken=$(grep -c FAILED TIMES)
if [ "$broken" != 0 ]; then
  printf '\nWhy\n'
  # The beginning of what the failed stages said: a reason comes first, and what the machine looked like then.
  grep -l '^<== .*: FAILED' ./*.log | xargs -r awk '
    FNR == 1 {left = 0}
    /^error(\[|: )|^Error: |^make: \*\*\*|^Diff in |^--- FAIL/ && !/could not compile|test failed|targets? failed/ {left = 6}
    /^thread .* panicked at / {left = 24}
    left > 0 {print "  " substr($0, 1, 240); left--; if (left == 0) print ""}'
fi
[ "$broken" = 0 ] || printf '\nFailed stages\n%s\n' "$(awk -F '\t' '/FAILED/ {print "  " $1}' TIMES)"
printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$broken" = 0 ] && [ "$failed" = 0 ]
