# Bridges, node networks, routes, and what "down" must put back.
# shellcheck shell=bash

# Settings of the kernel that this cluster or its kubelets change.
SYSCTLS=(net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic
    kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

# remember_machine: once, before the first change.
remember_machine() {
    [[ ! -e $STATE/before/done ]] || return 0
    mkdir -p "$STATE/before"
    local name
    for name in "${SYSCTLS[@]}"; do
        printf '%s=%s\n' "$name" "$(sysctl -n "$name" 2>/dev/null)"
    done | grep -v '=$' >"$STATE/before/sysctl" || true
    nft list tables >"$STATE/before/tables" 2>/dev/null || true
    [[ ! -e /var/lib/kubelet ]] || touch "$STATE/before/kubelet"
    touch "$STATE/before/done"
}

network_up() {
    local n=$1 count=$2
    sysctl -qw net.ipv4.ip_forward=1 ||
        die "this kernel does not let us forward packets" "sysctl -w net.ipv4.ip_forward=1"
    # The address is fixed, or it would change with every node that comes.
    if ! ip link show dev "$BRIDGE" >/dev/null 2>&1; then
        say "making the nodes' network, $(node_address 0)/24"
        ip link add "$BRIDGE" address 02:50:4c:4e:55:4d type bridge forward_delay 0 ||
            die "no bridge could be made" "modprobe bridge   (the kernel needs bridge, veth, overlay and nf_tables)"
    fi
    ip addr replace "$API/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    # A machine without a default route still has to find services.
    ip route replace "$SERVICE_NETWORK" dev "$BRIDGE" src "$API"
    for ((n = 2; n <= count; n++)); do
        node_network_up "$n" "$count"
        ip route replace "$(node_pods "$n").0/24" via "$(node_address "$n")" dev "$BRIDGE"
    done
    # Pods that talk to the world beyond do it in the machine's name.
    nft -f - <<RULES || die "nftables does not work here" "modprobe nf_tables; nft list ruleset"
table ip plenum-cluster
delete table ip plenum-cluster
table ip plenum-cluster {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname { "$BRIDGE", "$POD_BRIDGE", "lo" } return
        ip saddr { $POD_NETWORK, $(node_address 0)/24 } masquerade
    }
}
RULES
}

# node_network_up N COUNT: the network of node N (2 and up), made anew when
# only part of it is there.
node_network_up() {
    local n=$1 count=$2 dir other
    dir=$(node_dir "$n")
    if ! node_network_whole "$n"; then
        # Pods that hang on a lost network cannot be saved.
        node_down "$n"
        say "making the network of $(node_name "$n")"
        mkdir -p "$dir"
        : >"$dir/net"
        unshare --net="$dir/net" true
        ip link add "plenum-n$n" type veth peer name eth0 netns "$dir/net"
        ip link set "plenum-n$n" master "$BRIDGE" up
        on_node "$n" ip link set lo up
        on_node "$n" ip link set eth0 up
        on_node "$n" ip addr add "$(node_address "$n")/24" dev eth0
        on_node "$n" ip route add default via "$API"
        on_node "$n" sysctl -qw net.ipv4.ip_forward=1
    fi
    for ((other = 1; other <= count; other++)); do
        ((other == n)) || on_node "$n" ip route replace "$(node_pods "$other").0/24" via "$(node_address "$other")"
    done
}

node_network_whole() {
    local dir
    dir=$(node_dir "$1")
    mountpoint -q "$dir/net" &&
        [[ $(cat "/sys/class/net/plenum-n$1/operstate" 2>/dev/null) == up ]] &&
        ip link show "plenum-n$1" | grep "master $BRIDGE" >/dev/null &&
        on_node "$1" ip route get "$API" 2>/dev/null | grep "src $(node_address "$1")" >/dev/null
}

network_down() {
    local link table
    for link in /sys/class/net/plenum-n*; do
        [[ ! -e $link ]] || ip link del "${link##*/}" || true
    done
    for link in "$POD_BRIDGE" "$BRIDGE"; do
        ip link del "$link" 2>/dev/null || true
    done
    [[ -e $STATE/before/done ]] || return 0
    forget_host_ports
    nft list tables 2>/dev/null | while read -r _ family table; do
        grep -qx "table $family $table" "$STATE/before/tables" && continue
        case $table in
        kube-proxy | plenum-cluster) nft delete table "$family" "$table" ;;
        # The tables of iptables go when nothing but empty chains is left.
        nat | filter | mangle | raw) table_is_empty "$family" "$table" && nft delete table "$family" "$table" 2>/dev/null ;;
        esac
    done || true
    conntrack -D -d "$(node_address 0)/24" >/dev/null 2>&1 || true
    conntrack -D -d "$SERVICE_NETWORK" >/dev/null 2>&1 || true
    sysctl -q -p "$STATE/before/sysctl" >/dev/null 2>&1 || true
}

table_is_empty() {
    ! nft list table "$1" "$2" 2>/dev/null | grep -vE '^\s*(table .*|chain .*|type .*|})?\s*$' >/dev/null
}

# The CNI plugin for host ports keeps its rules when a pod's network vanishes
# without it. Ours carry the name of our network, "plenum".
forget_host_ports() {
    local saved ours chains chain
    saved=$(iptables-save -t nat 2>/dev/null) || return 0
    grep -q CNI-HOSTPORT <<<"$saved" || return 0
    ours=$(sed -nE '/^-A CNI-HOSTPORT-DNAT .*name: \\"plenum\\"/p' <<<"$saved")
    chains=$(sed -nE 's/.* -j (CNI-DN-\S+)$/\1/p' <<<"$ours" | sort -u)
    # The shared part goes when nobody else has a host port.
    if [[ $(grep '^-A CNI-HOSTPORT-DNAT' <<<"$saved") == "$ours" ]]; then
        ours+=$'\n'$(grep -E '^-A (PREROUTING|OUTPUT|POSTROUTING) .*-j CNI-HOSTPORT-' <<<"$saved")
        chains+=' CNI-HOSTPORT-DNAT CNI-HOSTPORT-SETMARK CNI-HOSTPORT-MASQ'
    fi
    {
        echo '*nat'
        # shellcheck disable=SC2001 # only at the start of each line
        sed 's/^-A/-D/' <<<"$ours"
        for chain in $chains; do echo "-F $chain"; done
        for chain in $chains; do echo "-X $chain"; done
        echo COMMIT
    } | iptables-restore -w --noflush || say "warning: rules of host ports are left; see iptables-save -t nat"
}
