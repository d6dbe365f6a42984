#!/usr/bin/env bash
# Installs what the testbed runs. Safe to call at any time, by several callers at once.
#
#   testbed/install.sh api       the API-server tier: one binary that is etcd, kube-apiserver, kubectl, ...
#   testbed/install.sh regions   regions: containerd, runc, CoreDNS, helm, images, Debian packages (needs root)
#   testbed/install.sh packages  only what comes from Debian, a C compiler among it, and says it at once where there is no root
#   testbed/install.sh promtool  what tests the alert rules (Debian's package of Prometheus; needs root)
#   testbed/install.sh all       also what only benchmarks and later suites run: KWOK, the timestamp server
#   testbed/install.sh list      what is installed, and where
#
# With SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path, level regions is what it takes to use these clusters, which exist
# already: no root, no Debian packages.
#
# Everything but Debian packages goes to ${SAATKOND_CACHE:-${XDG_CACHE_HOME:-~/.cache}/saatkond}/tools, one
# folder per tool named by a hash of all that went into it, so a fresh clone on the same machine finds it
# there. target/tools/bin holds links into that folder; target/tools/images likewise.
set -euo pipefail

# CoreDNS and Helm: see addons/go.mod.
readonly CONTAINERD=v2.4.2 RUNC=v1.5.2 KWOK=v0.8.0 TIMESTAMP=v2.1.2
readonly KUBERNETES=v1.36.3   # must agree with go/go.mod; checked below
readonly POSTGRES_SUITE=trixie POSTGRES_PACKAGE=postgresql-17,curl # curl: pods of this image play information systems that call

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
cache=${SAATKOND_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/saatkond}/tools
links=$root/target/tools
existing=${SAATKOND_REGION_KUBECONFIGS:-}
readonly INSTEAD="or use clusters that exist already: SAATKOND_REGION_KUBECONFIGS=home=/path,lux=/path"
began=$SECONDS

# The compiler collects its garbage seldom: a fifth less work where memory is no question, and it stays under a bound.
export GOGC=800 GOMEMLIMIT=4GiB

say() { printf 'testbed: [%3ds] %s\n' $((SECONDS - began)) "$*"; }
die() { printf 'testbed: %s\n' "$*" >&2; exit 1; }
hash_of() { sha256sum | cut -c1-16; }

# link FOLDER NAME TARGET: replaces target/tools/FOLDER/NAME in one step, so a reader never misses it.
link() {
  mkdir -p "$links/$1"
  [ "$(readlink "$links/$1/$2" 2>/dev/null)" != "$3" ] || return 0
  ln -s "$3" "$links/$1/.$2.$$"
  mv -fT "$links/$1/.$2.$$" "$links/$1/$2"
}

# tool NAME KEY BUILDER: runs BUILDER with an empty folder unless NAME was already built from KEY; the
# folder appears under its final name only when it is whole. The answer is in $built.
tool() {
  local name=$1 key builder=$3 started=$SECONDS work
  key=$(printf '%s' "$2" | hash_of)
  built=$cache/$name-$key
  if [ ! -d "$built" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/$name.lock"
    if ! flock -n 9; then
      say "$name: another install is building it, waiting"
      flock 9
    fi
    if [ ! -d "$built" ]; then
      say "$name: building"
      work=$cache/.$name.$$
      rm -rf "$work"
      mkdir "$work"
      if ! "$builder" "$work" >"$cache/$name.log" 2>&1; then
        rm -rf "$work"
        tail -n 40 "$cache/$name.log" >&2
        die "$name: did not build; the whole log is $cache/$name.log"
      fi
      mv -T "$work" "$built"
      say "$name: built in $((SECONDS - started)) s"
    fi
    exec 9>&-
  fi
  # Builds of other inputs that nobody asked for in three weeks make room.
  touch "$built"
  find "$cache" -maxdepth 1 -type d -name "$name-????????????????" -mtime +21 -exec rm -rf {} +
}

need_go() {
  command -v go >/dev/null || die "go is missing: the Kubernetes components are built from source (Go >= 1.26)"
  go_version=$(go env GOVERSION)
}

# --- level api -------------------------------------------------------------------------------------

readonly COMPONENTS="etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl region-controller region-wire"

build_kube() {
  local v=k8s.io/component-base/version minor=${KUBERNETES#v1.}
  (cd "$here/go" && CGO_ENABLED=0 nice -n 5 go build -trimpath -o "$1/kube" -ldflags "-s -w \
    -X $v.gitVersion=$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} \
    -X $v.gitTreeState=clean -X $v.gitCommit=0000000000000000000000000000000000000000 -X $v.buildDate=1970-01-01T00:00:00Z" .)
}

install_api() {
  need_go
  grep -q "k8s.io/kubernetes $KUBERNETES" "$here/go/go.mod" || die "go/go.mod does not name Kubernetes $KUBERNETES"
  local inputs component
  inputs=$(cd "$here/go" && cat go.mod go.sum; find . -name '*.go' ! -name '*_test.go' | sort | xargs cat; declare -f build_kube; echo "$go_version $KUBERNETES")
  tool kube "$inputs" build_kube
  for component in $COMPONENTS; do link bin "$component" "$built/kube"; done
}

# --- level regions ---------------------------------------------------------------------------------

# package:a file it brings, so that a machine that has the file from elsewhere is left alone.
readonly PACKAGES="containernetworking-plugins:/usr/lib/cni/ptp nftables:nft iproute2:ip conntrack:conntrack
  mmdebstrap:mmdebstrap nginx-light:nginx wrk:wrk openssl:openssl util-linux:nsenter curl:curl
  libseccomp-dev:/usr/include/seccomp.h pkg-config:pkg-config gcc:gcc libc6-dev:/usr/include/stdio.h"

# install_packages PACKAGE:FILE...
install_packages() {
  local entry file missing=() started=$SECONDS policy=/usr/sbin/policy-rc.d made_policy=
  for entry in "$@"; do
    file=${entry#*:}
    if [[ $file == /* ]]; then [ -e "$file" ] && continue; else command -v "$file" >/dev/null && continue; fi
    missing+=("${entry%%:*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing and no apt-get to install them with: ${missing[*]}; $INSTEAD"
  [ "$(id -u)" = 0 ] || die "missing: ${missing[*]}. Run as root, as regions must be started: apt-get install ${missing[*]} alone is not enough; $INSTEAD"
  mkdir -p "$cache"
  exec 9>"$cache/apt.lock"
  flock 9
  say "Debian packages: ${missing[*]}"
  # Programs are wanted, and no services: keep the packages from starting any.
  if [ ! -e $policy ]; then
    made_policy=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$cache/apt.log" 2>&1 || { tail -n 30 "$cache/apt.log" >&2; die "apt-get failed; the whole log is $cache/apt.log"; }
  if [ -n "$made_policy" ]; then rm -f $policy; trap - EXIT; fi
  for entry in nginx-light:nginx prometheus:prometheus; do
    case " ${missing[*]} " in *" ${entry%%:*} "*)
      if [ -d /run/systemd/system ]; then systemctl disable --now "${entry#*:}" >/dev/null 2>&1 || true; fi ;;
    esac
  done
  exec 9>&-
  say "Debian packages: installed in $((SECONDS - started)) s"
}

# go_install FOLDER CGO TAGS PACKAGE@VERSION...: of one module.
go_install() {
  local out=$1 cgo=$2 tags=$3
  shift 3
  # A module of its own would pick up this repository's go.mod; installing by version must not.
  (cd / && GOBIN=$out CGO_ENABLED=$cgo GOFLAGS="-buildvcs=false" nice -n 5 go install -trimpath -ldflags "-s -w" -tags "$tags" "$@")
}
build_containerd() {
  local commands=github.com/containerd/containerd/v2/cmd
  go_install "$1" 0 no_btrfs,no_zfs,no_devmapper $commands/containerd@$CONTAINERD \
    $commands/containerd-shim-runc-v2@$CONTAINERD $commands/ctr@$CONTAINERD
}
build_runc() { go_install "$1" 1 seccomp github.com/opencontainers/runc@$RUNC; }
build_addons() {
  (cd "$here/addons" && CGO_ENABLED=0 nice -n 5 go build -trimpath -ldflags "-s -w" -o "$1/" ./coredns ./helm)
}
build_kwok() { go_install "$1" 0 "" sigs.k8s.io/kwok/cmd/kwok@$KWOK; }
build_timestamp() { go_install "$1" 0 "" github.com/sigstore/timestamp-authority/v2/cmd/timestamp-server@$TIMESTAMP; }

# docker_archive LAYER.tar NAME:TAG CONFIG_JSON OUT.tar: one layer, no time stamps, the same bytes each time.
docker_archive() {
  local layer=$1 name=$2 config=$3 out=$4 dir diff id
  dir=$(mktemp -d)
  diff=$(sha256sum "$layer" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"1970-01-01T00:00:00Z"}]}' \
    "$(go env GOARCH)" "$config" "$diff" >"$dir/config.json"
  id=$(sha256sum "$dir/config.json" | cut -d' ' -f1)
  mv "$dir/config.json" "$dir/$id.json"
  mv "$layer" "$dir/$diff.tar"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":["%s.tar"]}]' "$id" "$name" "$diff" >"$dir/manifest.json"
  reproducible_tar "$dir" "$out" manifest.json "$id.json" "$diff.tar"
  rm -rf "$dir"
}
reproducible_tar() {
  local dir=$1 out=$2
  shift 2
  tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$dir" -cf "$out" "$@"
}

build_image_pause() {
  mkdir "$1/root"
  gcc -Os -static -s -o "$1/root/pause" "$here/pause.c"
  reproducible_tar "$1/root" "$1/layer.tar" .
  docker_archive "$1/layer.tar" saatkond.io/testbed/pause:1 '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$1/pause.tar"
  rm -rf "$1/root"
}
build_image_coredns() {
  mkdir "$1/root"
  cp "$links/bin/coredns" "$1/root/coredns"
  reproducible_tar "$1/root" "$1/layer.tar" .
  docker_archive "$1/layer.tar" saatkond.io/testbed/coredns:1 '{"Entrypoint":["/coredns"]}' "$1/coredns.tar"
  rm -rf "$1/root"
}
build_image_postgres() {
  # The number of the user is fixed (999, as in the well-known image), for runAsUser to name it.
  # The mirror and keyring of this machine's apt, so that nothing else needs to be reachable.
  local mirror
  mirror=$(apt-get indextargets --format '$(SITE) $(REPO_URI)' 'Identifier: Packages' 'Label: Debian' | awk '{print $NF; exit}')
  mmdebstrap --variant=essential --include=$POSTGRES_PACKAGE,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='echo postgres:x:999: >>"$1/etc/group"; echo postgres:x:999:999::/var/lib/postgresql:/bin/bash >>"$1/etc/passwd"' \
    --customize-hook='rm -rf "$1"/var/lib/postgresql/*/main "$1"/var/cache/apt "$1"/etc/machine-id' \
    $POSTGRES_SUITE "$1/layer.tar" ${mirror:+"$mirror"}
  docker_archive "$1/layer.tar" saatkond.io/testbed/postgres:17 \
    '{"Env":["PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["postgres"]}' "$1/postgres.tar"
}

# What cannot be had is said before the compilers run.
prepare_regions() {
  local system
  system=$(uname -s)
  [ "$system" = Linux ] || die "regions and images need Linux, and this is $system: take a virtual machine with Linux, and there start regions as root $INSTEAD"
  # shellcheck disable=SC2086
  if [ -z "$existing" ]; then install_packages $PACKAGES; fi
}

# Only where a region is to be started: the API server's tier needs no root, nor do its tests.
need_root() {
  [ -n "$existing" ] || [ "$(id -u)" = 0 ] || die "regions need root, for network namespaces, mounts and control groups: run as root, $INSTEAD"
}

install_regions() {
  local name
  tool addons "$go_version $(cat "$here"/addons/go.{mod,sum} "$here"/addons/*/main.go; declare -f build_addons)" build_addons
  for name in coredns helm; do link bin $name "$built/$name"; done
  if [ -n "$existing" ]; then
    say "SAATKOND_REGION_KUBECONFIGS is set, so no region is started here. Left out: containerd, runc, the testbed's images, Debian packages"
    return 0
  fi
  tool runc "$RUNC $go_version $(declare -f build_runc go_install)" build_runc
  link bin runc "$built/runc"
  tool containerd "$CONTAINERD $go_version $(declare -f build_containerd go_install)" build_containerd
  for name in containerd containerd-shim-runc-v2 ctr; do link bin $name "$built/$name"; done
  tool pause "$(cat "$here/pause.c"; declare -f build_image_pause docker_archive reproducible_tar)" build_image_pause
  link images pause.tar "$built/pause.tar"
  tool coredns-image "$(readlink "$links/bin/coredns") $(declare -f build_image_coredns docker_archive reproducible_tar)" build_image_coredns
  link images coredns.tar "$built/coredns.tar"
  tool postgres "$POSTGRES_SUITE $POSTGRES_PACKAGE $(declare -f build_image_postgres docker_archive reproducible_tar)" build_image_postgres
  link images postgres.tar "$built/postgres.tar"
}

install_extras() {
  tool kwok "$KWOK $go_version $(declare -f build_kwok go_install)" build_kwok
  link bin kwok "$built/kwok"
  tool timestamp-server "$TIMESTAMP $go_version $(declare -f build_timestamp go_install)" build_timestamp
  link bin timestamp-server "$built/timestamp-server"
}

# A function, so that all is read before anything runs: an edit must not reach a running install.
main() {
  case ${1:-} in
    api) install_api; say "api tools are ready in $links/bin" ;;
    packages) need_root; prepare_regions ;;
    promtool) install_packages prometheus:promtool ;;
    regions) prepare_regions; install_api; install_regions; say "tools for regions are ready in $links/bin" ;;
    all) prepare_regions; install_api; install_regions; install_extras; say "all tools are ready in $links/bin" ;;
    list) find "$links" -type l -printf '%P -> %l\n' 2>/dev/null | sort ;;
    *) die "usage: $0 api | packages | regions | promtool | all | list" ;;
  esac
}
main "$@"; exit
