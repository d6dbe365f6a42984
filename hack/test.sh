#!/usr/bin/env bash
# `make test`: every stage in order, to the end even where one fails, then what took how long and what did not run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export SAATKOND_NOT_RUN=$PWD/target/stages/NOT-RUN
rm -rf target/stages
mkdir -p target/stages
: >"$SAATKOND_NOT_RUN"
PATH=$PWD/target/tools/bin:$PATH
failed=0

# run NAME COMMAND...: the output is shown and kept; the counts of the test runners are read from it.
stages=0
run() { shown hack/stage.sh "$@"; }
# Targets of the Makefile are divided into stages by themselves.
run_make() { shown make "$@"; }
shown() {
  stages=$((stages + 1))
  "$@" 2>&1 | tee "target/stages/$(printf %02d $stages).log"
  if [ "${PIPESTATUS[0]}" != 0 ]; then
    failed=1
    return 1
  fi
}
not_run() { printf '%s: %s\n' "$1" "$2" >>"$SAATKOND_NOT_RUN"; }

run "format" cargo fmt --all --check
run "directions" hack/directions.sh
run "tools" testbed/install.sh regions || { not_run "tests that need the testbed" "its tools could not be installed"; no_tools=1; }
run "tools: promtool" testbed/install.sh promtool || not_run "alert rules" "promtool could not be installed"
run "lints" cargo clippy --workspace --all-targets -- -D warnings
if run "build" cargo build --workspace --all-targets; then
  run "generated files" "target/$(rustc -vV | sed -n 's/^host: //p')/debug/saatkond-xtask" check
  # Without the tools all tests that start a server would fail one by one for the same reason.
  if [ -z "${no_tools:-}" ]; then
    # Verbose: the summary counts Go's own lines, one a test. The flags are those of the build, for its cache.
    run "tests of the testbed's Go" env -C testbed/go CGO_ENABLED=0 go test -trimpath -vet=off -v .
    # Shown, so that a test that says "NOT RUN: name: why" is counted and never passes silently.
    run "tests" cargo test --workspace --no-fail-fast -- --show-output
    if run_make image; then
      run "journey" cargo test --workspace --no-fail-fast --test journey -- --nocapture --test-threads=1
      run "rotate under load" cargo test --workspace --no-fail-fast --test rotate_under_load -- --nocapture
    else
      not_run "journey" "the images could not be built"
      not_run "rotate under load" "the images could not be built"
    fi
  else
    run "tests" cargo test --workspace --no-fail-fast --lib --bins
    # Nothing of these needs to be installed.
    run "tests that need no tools" cargo test --workspace --no-fail-fast --test cases --test schema --test values --test domain --test rotation --test gateway --test fresh --test summary --test install
    not_run "all other tests" "they need the tools of the testbed"
  fi
else
  not_run "all tests" "the workspace does not build"
fi

hack/summary.sh || failed=1
exit $failed
