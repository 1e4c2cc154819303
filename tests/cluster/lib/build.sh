# Programs: Debian's packages, and ours from Go modules into a cache.
# shellcheck shell=bash

KUBERNETES=v1.36.1
CONTAINERD=v2.3.7
HELM=v3.19.5

# packages NAME...: installs what is missing, and asks for a new package list
# only when the one at hand does not do.
packages() {
    local missing=() name
    for name; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    say "installing ${missing[*]}"
    install_packages "${missing[@]}" && return
    apt-get update -qq >&2 || true
    install_packages "${missing[@]}" ||
        die "apt could not install: ${missing[*]}" "apt-get install ${missing[*]}   (and see what it says)"
}

# No package may start a service of its own: what runs here is ours to start.
install_packages() {
    local policy=/usr/sbin/policy-rc.d ours='' result=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        ours=yes
    fi
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 9>&- || result=$?
    [[ -z $ours ]] || rm -f "$policy"
    return "$result"
}

must_be_debian() {
    [[ -n $(command -v apt-get) && -n $(command -v dpkg-query) ]] ||
        die "this system has no apt" "run on Debian 12 or newer, or one that is made from it"
}

must_have_go() {
    command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
    local version
    version=$(go env GOVERSION 2>/dev/null) || die "Go is missing" "install Go 1.26 or newer and put it on PATH"
    version=${version#go1.}
    version=${version%%[!0-9]*}
    ((version >= 26)) || [[ $(go env GOTOOLCHAIN) != local ]] ||
        die "Go is older than 1.26, which Kubernetes $KUBERNETES needs" "install Go 1.26 or newer and put it first on PATH"
}

# cached NAME INPUT BUILD...: links programs from the cache, where BUILD is run
# once for each INPUT. BUILD gets a folder to put its programs into. CACHED is
# where they are.
cached() {
    local name=$1 key home program
    key=$(printf '%s' "$2 $(uname -m)" | sha256sum)
    shift 2
    # shellcheck disable=SC2153 # CACHE is in common.sh
    home=$CACHE/$name-${key:0:12}
    if [[ ! -e $home/done ]]; then
        must_have_go
        mkdir -p "$CACHE"
        # Two builds at once would only be in each other's way.
        exec 8>"$CACHE/lock"
        flock 8
    fi
    if [[ ! -e $home/done ]]; then
        say "building $name (the first time only; all together take about 12 minutes on 2 cores)"
        rm -rf "$home".new.*
        local new=$home.new.$$
        mkdir -p "$new"
        (
            exec 8>&- 9>&-
            cd "$CLUSTER_SOURCE"
            export CGO_ENABLED=0 GOBIN=$new GOFLAGS=-buildvcs=false
            "$@" "$new"
        ) >&2 || die "$name could not be built" "see above; the Go module proxy must be reachable"
        touch "$new/done"
        rm -rf "$home"
        mv "$new" "$home"
    fi
    exec 8>&-
    # shellcheck disable=SC2034 # for the caller
    CACHED=$home
    for program in "$home"/*; do
        [[ ${program##*/} != 'done' ]] || continue
        # For use without a cluster, such as "helm lint".
        ln -sfn "$program" "$CACHE/${program##*/}"
        # Someone who only makes images need not be root.
        [[ ! -w $BIN ]] || ln -sfn "$program" "$BIN/${program##*/}"
    done
}

# sources FOLDER...: what a build depends on, in short.
sources() { (cd "$CLUSTER_SOURCE" && find "$@" -type f ! -name '*_test.go' | LC_ALL=C sort | xargs cat | sha256sum); }

build_kube() {
    local v=k8s.io/component-base/version c=k8s.io/client-go/pkg/version minor=${KUBERNETES#v1.}
    # Without a version the server says v0.0.0, which Helm refuses.
    local flags="-s -w -X $v.gitVersion=$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*}"
    flags+=" -X $v.gitTreeState=clean -X $c.gitVersion=$KUBERNETES -X $c.gitMajor=1 -X $c.gitMinor=${minor%%.*}"
    go build -trimpath -ldflags "$flags" -o "$1/kube" ./kube
    local name
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do
        ln -s kube "$1/$name"
    done
}

build_containerd() {
    local at=github.com/containerd/containerd/v2
    go install -trimpath -ldflags "-s -w -X $at/version.Version=$CONTAINERD" \
        "$at"/cmd/{containerd,containerd-shim-runc-v2,ctr}@"$CONTAINERD"
}

build_helm() {
    go install -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$HELM" \
        helm.sh/helm/v3/cmd/helm@"$HELM"
}

build_dns() { (cd dns && go build -trimpath -ldflags '-s -w' -o "$1/coredns" .); }

build_tool() { go build -trimpath -ldflags '-s -w' -o "$1/" ./tool ./pause; }

# Small ones first: they are what the image scripts need.
build_tools() {
    mkdir -p "$BIN" 2>/dev/null || true
    cached tool "$(sources tool pause)" build_tool
}

build_helm_only() { cached helm "$HELM" build_helm; }

build_all() {
    build_tools
    cached containerd "$CONTAINERD" build_containerd
    cached kubernetes "$KUBERNETES $(sources go.mod go.sum kube)" build_kube
    cached dns "$(sources dns)" build_dns
    build_helm_only
}
