# Shared by the scripts of this folder: where things are, and how they speak.
# shellcheck shell=bash
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/plenum
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
NAMESPACE=${PLENUM_NAMESPACE:-plenum-system}
PUBLIC_URL=${PLENUM_PUBLIC_URL:-http://localhost:7880}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

die() { # MESSAGE REMEDY
  printf 'error: %s\n  remedy: %s\n' "$1" "$2" >&2
  exit 1
}

# The toolchains come from outside Debian; everything else the scripts install.
need_toolchains() {
  command -v cargo >/dev/null || die "cargo is missing" "install Rust with rustup (https://rustup.rs), then open a new shell"
  command -v go >/dev/null || die "go is missing" "install Go 1.26 or newer (https://go.dev/dl) and put it on PATH"
  command -v node >/dev/null || die "node is missing" "install Node.js 20 or newer (Debian: apt-get install nodejs npm)"
}

# With a KUBECONFIG of the user's, that cluster is used as it is; without, a local one.
local_cluster() { [ -z "${PLENUM_GIVEN_KUBECONFIG:-${KUBECONFIG:-}}" ]; }

# Sets KUBECONFIG and puts kubectl and helm on PATH.
use_cluster() {
  if [ -z "${KUBECONFIG:-}" ]; then
    KUBECONFIG=$("$ROOT/tests/cluster/kubeconfig")
    export KUBECONFIG PLENUM_LOCAL_CLUSTER=1
    PATH=$(dirname "$KUBECONFIG")/bin:$PATH
    export PATH
  fi
}

host_target() { rustc -vV | sed -n 's/^host: //p'; }
