# One node: control groups, containerd, kubelet, kube-proxy.
# shellcheck shell=bash

# The folders in which this machine's control groups live: one per controller
# (version 1), one for all (version 2), or both.
cgroup_roots() { findmnt -rn -t cgroup,cgroup2 -o TARGET; }

cgroups_up() {
    local root dir file
    while read -r root; do
        dir=$root/$(node_name "$1")
        if [[ -e $root/cgroup.subtree_control ]]; then
            tr ' ' '\n' <"$root/cgroup.controllers" | while read -r file; do
                echo "+$file" >"$root/cgroup.subtree_control" 2>/dev/null || true
            done
        fi
        mkdir -p "$dir" || die "no control group could be made in $root" "mount the control groups writable"
        # A new group of version 1 has no processor until it is given some.
        for file in cpuset.cpus cpuset.mems; do
            [[ ! -w $dir/$file || -n $(cat "$dir/$file") ]] || cat "$root/$file" >"$dir/$file"
        done
    done < <(cgroup_roots)
}

node_up() {
    local n=$1 archive
    cgroups_up "$n"
    node_settings "$n"
    containerd_up "$n"
    # Those of the cluster, and what was loaded when this node was not yet there.
    for archive in "$STATE"/images/*.tar; do load_image "$n" "$archive"; done
    kubelet_up "$n"
    proxy_up "$n"
}

# settings FILE: takes a file from standard input; leaves it when it is equal.
settings() {
    mkdir -p "${1%/*}"
    cat >"$1.new"
    if cmp -s "$1" "$1.new"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

node_settings() {
    local n=$1 dir name address
    dir=$(node_dir "$n") name=$(node_name "$n") address=$(node_address "$n")
    settings "$dir/resolv.conf" <<<"# nobody to ask"
    settings "$dir/cni/net.d/10-plenum.conflist" <<JSON
{
  "cniVersion": "1.0.0",
  "name": "plenum",
  "plugins": [
    {
      "type": "bridge", "bridge": "$POD_BRIDGE", "isGateway": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "$dir/cni/addresses",
        "ranges": [[{"subnet": "$(node_pods "$n").0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}
  ]
}
JSON
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE no sandbox would start.
    # The disabled plugins would write outside of the cluster's folder, or look
    # for what a test machine does not have.
    settings "$dir/containerd.toml" <<TOML
version = 3
root = "$dir/containerd"
state = "$dir/run"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.erofs",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "$(node_socket "$n")"
[ttrpc]
  address = "$(node_socket "$n").ttrpc"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "$PAUSE_IMAGE"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = "/usr/sbin/runc"
        Root = "$dir/run/runc"
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$dir/cni/net.d"
TOML
    # Nothing may be thrown away for want of disk: images here have no registry
    # to come back from.
    settings "$dir/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $PKI/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$name
clusterDNS: [$DNS_ADDRESS]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$(node_socket "$n")
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}
failCgroupV1: false
failSwapOn: false
healthzBindAddress: 127.0.0.1
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
podLogsDir: $dir/pods
resolvConf: $dir/resolv.conf
tlsCertFile: $PKI/serving-$name.crt
tlsPrivateKeyFile: $PKI/serving-$name.key
volumePluginDir: $dir/kubelet/plugins-exec
YAML
    settings "$dir/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: 0.0.0.0
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
clusterCIDR: $POD_NETWORK
conntrack: {maxPerCore: 0}
healthzBindAddress: $address:10256
hostnameOverride: $name
metricsBindAddress: 127.0.0.1:10249
YAML
}

containerd_up() {
    local n=$1 dir name
    dir=$(node_dir "$n") name=containerd-$1
    ensure "$name" "$n" "$dir/containerd.toml" \
        "$BIN/containerd" --config "$dir/containerd.toml" --log-level warn
    healthy "$name" "containerd_up $n" node_ctr "$n" --timeout 5s version
}

kubelet_up() {
    local n=$1 dir name
    dir=$(node_dir "$n") name=$(node_name "$n")
    ensure "kubelet-$n" "$n" "$dir/kubelet.yaml $PKI/kubelet-$name.kubeconfig" \
        "$BIN/kubelet" \
        --config "$dir/kubelet.yaml" --kubeconfig "$PKI/kubelet-$name.kubeconfig" \
        --root-dir "$dir/kubelet" --cert-dir "$dir/kubelet/pki" \
        --hostname-override "$name" --node-ip "$(node_address "$n")" \
        --node-labels "topology.kubernetes.io/region=plenum,topology.kubernetes.io/zone=zone-$n"
    healthy "kubelet-$n" "kubelet_up $n" on_node "$n" curl -fsS -m 2 http://127.0.0.1:10248/healthz
}

proxy_up() {
    local n=$1
    ensure "kube-proxy-$n" "$n" "$(node_dir "$n")/kube-proxy.yaml $PKI/kube-proxy.kubeconfig" \
        "$BIN/kube-proxy" --config "$(node_dir "$n")/kube-proxy.yaml"
    healthy "kube-proxy-$n" "proxy_up $n" curl -fsS -m 2 "http://$(node_address "$n"):10256/livez"
}

node_ctr() {
    local n=$1
    shift
    "$BIN/ctr" --address "$(node_socket "$n")" --namespace k8s.io "$@"
}

# load_image NODE ARCHIVE: unless that node has these very images already.
load_image() {
    local n=$1 archive=$2 name wanted have
    wanted=$("$BIN/tool" digest "$archive") || return 1
    have=$(node_ctr "$n" images ls | awk 'NR > 1 {print $1, $3}')
    if [[ -n $wanted ]] && ! grep -qvxFf <(printf '%s\n' "$have") <<<"$wanted"; then
        return 0
    fi
    while read -r name _; do
        say "loading ${name:-$archive} on $(node_name "$n")"
    done <<<"$wanted"
    node_ctr "$n" images import --local "$archive" >/dev/null
}

# node_down N: ends all that runs on the node, pods too.
node_down() {
    local n=$1 dir root
    dir=$(node_dir "$n")
    stop "kube-proxy-$n"
    stop "kubelet-$n"
    # Before its containers, so that it does not run after each to clean up.
    stop "containerd-$n" KILL
    remember_shim_sockets "$dir"
    kill_group "$n"
    kill_shims "$dir"
    unmount "$dir"
    while read -r root; do
        remove_group "$root/$(node_name "$n")"
    done < <(cgroup_roots)
    find /var/log/containers -lname "$dir/*" -delete 2>/dev/null || true
    # Its network goes by itself, but only later.
    ip link del "plenum-n$n" 2>/dev/null || true
    [[ $dir == */node[0-9]* ]] && rm -rf --one-file-system "$dir"
}

# Folders that the kubelet makes in fixed places, if nobody else's are in them.
kubelet_leftovers_down() {
    [[ -e $STATE/before/kubelet ]] || rm -f /var/lib/kubelet/device-plugins/{kubelet.sock,DEPRECATION}
    grep -lsF "\"$STATE/" /var/lib/cni/results/* | xargs -r rm -f || true
    rmdir -p --ignore-fail-on-non-empty /var/lib/kubelet/device-plugins \
        /var/log/containers /run/containerd/s /var/lib/cni/results \
        /usr/libexec/kubernetes/kubelet-plugins/volume/exec 2>/dev/null || true
}

# kill_group N: every process in the node's control groups, until none is left.
kill_group() {
    local root pids tries
    for tries in {1..50}; do
        pids=$(cgroup_roots | while read -r root; do
            find "$root/$(node_name "$1")" -name cgroup.procs -exec cat {} + 2>/dev/null || true
        done | sort -u)
        [[ -n $pids ]] || return 0
        # shellcheck disable=SC2086 # a list of numbers
        kill -s KILL $pids 2>/dev/null || true
        sleep 0.1
    done
    say "warning: after $tries tries, processes are left in $(node_name "$1")'s control groups"
}

# A shim is ours when the containerd that it reports to is in DIR.
kill_shims() {
    local pid
    for pid in $(shims "$1"); do
        kill -s KILL "$pid" 2>/dev/null || true
    done
    wait_for 5 no_shims "$1" || say "warning: containerd-shims do not end: $(shims "$1")"
}

no_shims() { [[ -z $(shims "$1") ]]; }

shims() {
    local file words word next
    for file in /proc/[0-9]*/cmdline; do
        mapfile -d '' -t words 2>/dev/null <"$file" || continue
        [[ ${words[0]-} == *containerd-shim-runc-v2 ]] || continue
        next=
        for word in "${words[@]}"; do
            [[ $next != -address || $word != "$1"/* ]] || basename "${file%/cmdline}"
            next=$word
        done
    done
}

# Shims keep their sockets in a place of their own, and leave them there when
# they are killed.
remember_shim_sockets() {
    find "$1/run" -name bootstrap.json -exec cat {} + 2>/dev/null |
        grep -oE '/run/containerd/s/[0-9a-f]+' | xargs -r rm -f || true
    rmdir /run/containerd/s /run/containerd 2>/dev/null || true
}

unmount() {
    local target
    findmnt -rn -o TARGET | grep -E "^$1(/|\$)" | sort -r | while read -r target; do
        umount "$target" 2>/dev/null || umount -l "$target" 2>/dev/null || true
    done || true
}

remove_group() {
    [[ -d $1 ]] || return 0
    local tries
    for tries in {1..30}; do
        find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [[ -d $1 ]] || return 0
        sleep 0.1
    done
    say "warning: after $tries tries, the control group $1 is still in use"
}
