# Names, places and the handling of processes, shared by all scripts here.
# shellcheck shell=bash

CLUSTER_SOURCE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STATE=${PLENUM_CLUSTER_DIR:-/var/lib/plenum-cluster}
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/plenum/bin
BIN=$STATE/bin
PKI=$STATE/pki
RUN=$STATE/run
LOGS=$STATE/log

API=10.250.0.1
BRIDGE=plenum0
POD_BRIDGE=plenum-pods
POD_NETWORK=10.244.0.0/16
SERVICE_NETWORK=10.96.0.0/16
DNS_ADDRESS=10.96.0.10
PAUSE_IMAGE=docker.io/plenum/pause:1
DNS_IMAGE=docker.io/plenum/coredns:1
# containerd looks for its shim, and the kubelet for mount and iptables, on PATH.
PATH=$BIN:$PATH:/usr/sbin:/sbin
CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
export CLUSTER_SOURCE STATE CACHE BIN PKI RUN LOGS API BRIDGE POD_BRIDGE POD_NETWORK SERVICE_NETWORK DNS_ADDRESS PAUSE_IMAGE DNS_IMAGE PATH CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS

say() { printf '%s\n' "$*" >&2; }

trap '((BASH_SUBSHELL)) || say "error: $0 stopped unexpectedly (${BASH_SOURCE[0]}, line $LINENO: $BASH_COMMAND)"' ERR

# die WHAT REMEDY...
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '  remedy: %s\n' "$@" >&2
    exit 1
}

node_name() { printf 'plenum-%d' "$1"; }
node_address() { printf '10.250.0.%d' "$1"; }
node_pods() { printf '10.244.%d' "$1"; }
node_dir() { printf '%s/node%d' "$STATE" "$1"; }
node_socket() { printf '%s/node%d/containerd.sock' "$STATE" "$1"; }

# The number of nodes that the running cluster has, or nothing.
nodes_now() { cat "$STATE/nodes" 2>/dev/null || true; }

# on_node N COMMAND...: in the network of that node. Node 1 is the machine.
# Only the network: a mount namespace would hide the control groups.
on_node() {
    local n=$1
    shift
    if ((n == 1)); then "$@"; else nsenter --net="$(node_dir "$n")/net" -- "$@"; fi
}

kubectl() { "$BIN/kubectl" --kubeconfig "$STATE/kubeconfig" "$@"; }

must_be_root() {
    ((EUID == 0)) || die "this makes network namespaces and control groups, and must run as root" "sudo $0"
}

# One up or down at a time.
take_lock() {
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock -n 9 && return
    say "waiting for another up or down to finish"
    flock -w 900 9 || die "another up or down has held $STATE/lock for 15 minutes" "end it, then run this again"
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < until)) || return 1
        sleep 0.1
    done
}

# started PID: when the process started, in clock ticks since boot. Together
# with the number it names one process for ever; the number alone is reused.
started() {
    local line
    line=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The name, in parentheses, may hold spaces.
    read -ra line <<<"${line##*) }"
    [[ ${line[0]} != Z ]] && printf '%s' "${line[19]}"
}
export -f started

# alive NAME: the process that NAME's pid file speaks of is running.
alive() {
    local pid start
    read -r pid start 2>/dev/null <"$RUN/$1.pid" || return 1
    [[ -n $start && $(started "$pid") == "$start" ]]
}

pid_of() {
    local pid
    read -r pid _ <"$RUN/$1.pid" && printf '%s' "$pid"
}

# stop NAME [SIGNAL]: ends it, and does not return before it has.
stop() {
    if alive "$1"; then
        local pid
        pid=$(pid_of "$1")
        kill -s "${2:-TERM}" "$pid" 2>/dev/null || true
        wait_for 10 gone "$1" || {
            kill -s KILL "$pid" 2>/dev/null || true
            wait_for 5 gone "$1" || say "warning: $1 (process $pid) does not end"
        }
    fi
    rm -f "$RUN/$1.pid" "$RUN/$1.args"
}

gone() { ! alive "$1"; }

# ensure NAME NODE FILES COMMAND...: runs the command on the node, in a session
# of its own, unless it is running with the same arguments, program and FILES
# (one word, separated by spaces). Sets RESTARTED when it had to be started.
ensure() {
    local name=$1 node=$2 files=$3 sum
    shift 3
    # A program in the cache is named by its content, so the name will do.
    # shellcheck disable=SC2086 # FILES is a list
    sum=$({
        printf '%s\n' "$@" "$(readlink -f "$1")"
        [[ -z $files ]] || cat $files
    } | sha256sum)
    RESTARTED=
    if alive "$name"; then
        [[ $(cat "$RUN/$name.args" 2>/dev/null) == "$sum" ]] && return
        say "restarting $name: its settings have changed"
        stop "$name"
    else
        say "starting $name"
    fi
    # shellcheck disable=SC2034 # for the caller
    RESTARTED=yes
    rotate "$LOGS/$name.log"
    local in=()
    ((node == 1)) || in=(nsenter --net="$(node_dir "$node")/net" --)
    rm -f "$RUN/$name.pid"
    # It writes its pid file itself, so that it has one even when this script is
    # killed meanwhile. Descriptor 9 is the lock, which must not outlive us.
    # shellcheck disable=SC2016 # for the inner shell
    setsid bash -c 'printf "%s %s\n" $$ "$(started $$)" >"$0.new" && mv "$0.new" "$0" && exec "$@"' \
        "$RUN/$name.pid" "${in[@]}" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
    wait_for 10 test -e "$RUN/$name.pid" || die "$name could not be started" "read $LOGS/$name.log"
    printf '%s\n' "$sum" >"$RUN/$name.args"
}

# A log that has grown beyond 50 MB makes room.
rotate() {
    local size
    size=$(stat -c %s "$1" 2>/dev/null || echo 0)
    ((size < 50000000)) || mv -f "$1" "$1.old"
}

# healthy NAME START COMMAND...: waits until the command succeeds. When it does
# not, a process of an earlier run, which may hang, is ended and START is run.
healthy() {
    local name=$1 start=$2 until=$((SECONDS + 30))
    shift 2
    [[ -n $RESTARTED ]] || until=$((SECONDS + 10))
    until "$@" >/dev/null 2>&1; do
        if ! alive "$name"; then
            tail -n 5 "$LOGS/$name.log" >&2 || true
            die "$name has ended" "read $LOGS/$name.log; then run up again"
        fi
        if ((SECONDS >= until)); then
            [[ -z $RESTARTED ]] || tail -n 5 "$LOGS/$name.log" >&2 || true
            [[ -z $RESTARTED ]] || die "$name does not answer" "read $LOGS/$name.log; down, then up"
            say "$name does not answer"
            stop "$name" KILL
            $start
            return
        fi
        sleep 0.1
    done
}
