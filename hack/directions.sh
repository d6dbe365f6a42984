#!/usr/bin/env bash
# Who may know whom (ARCHITECTURE.md). Cargo would let a forbidden dependency in silently; this does not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

checks=0
failed=0
# must_not CRATE DEPENDENCY... : fails if CRATE needs one of them, directly or not, in what it ships.
must_not() {
  local crate=$1 tree dependency
  shift
  tree=$(cargo tree --quiet --offline --prefix none --edges normal --package "$crate" 2>/dev/null || cargo tree --prefix none --edges normal --package "$crate")
  for dependency in "$@"; do
    checks=$((checks + 1))
    if grep -q "^$dependency v" <<<"$tree"; then
      failed=$((failed + 1))
      echo "$crate must not depend on $dependency; this is how it does:"
      cargo tree --offline --edges normal --package "$crate" --invert "$dependency" | head -n 20
    fi
  done
}

readonly IO="tokio hyper tower kube-client kube-runtime rustls"
# shellcheck disable=SC2086
must_not saatkond-api $IO saatkond-pki saatkond-wire saatkond-domain
# shellcheck disable=SC2086
must_not saatkond-pki $IO kube kube-core k8s-openapi saatkond-api saatkond-wire
# shellcheck disable=SC2086
must_not saatkond-wire $IO kube kube-core k8s-openapi saatkond-api
# shellcheck disable=SC2086
must_not saatkond-domain $IO saatkond-operator saatkond-gateway
must_not saatkond-gateway kube kube-core k8s-openapi saatkond-api saatkond-domain saatkond-operator
must_not saatkond-operator saatkond-gateway saatkond-testbed
must_not saatkond-plugin saatkond-operator saatkond-gateway saatkond-testbed
must_not saatkond saatkond-testbed saatkond-plugin openssl-sys native-tls ring

echo "$((checks - failed)) passed, $failed failed"
[ $failed = 0 ]
