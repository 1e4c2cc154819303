# Shared by the scripts of this folder: where things are, and how they speak.
# shellcheck shell=bash disable=SC2034
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

# Installs a package's locked dependencies, unless they are there already.
npm_packages() { # FOLDER
  local stamp=$ROOT/$1/node_modules/.plenum-lock want
  want=$(sha256sum <"$ROOT/$1/package-lock.json")
  [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && return
  command -v npm >/dev/null || die "npm is missing" "install Node.js 20 or newer with npm"
  npm --prefix "$ROOT/$1" ci --no-audit --no-fund --loglevel=error >&2 ||
    die "the npm packages of $1 could not be installed" "check the network and the npm registry, then run this again"
  echo "$want" >"$stamp"
}
