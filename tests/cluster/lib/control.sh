# The control plane on node 1, what every cluster has in it, the port mapping.
# shellcheck shell=bash

STORE=http://127.0.0.1:12379

certificates_up() {
    local count=$1 n addresses=()
    for ((n = 1; n <= count; n++)); do addresses+=("$(node_address "$n")"); done
    "$BIN/tool" certs "$PKI" "$API" "${addresses[@]}"
    install -m 600 "$PKI/admin.kubeconfig" "$STATE/kubeconfig"
}

# must_be_free PORT NAME [REMEDY]: a port that NAME is about to take.
must_be_free() {
    alive "$2" && return
    local user
    user=$(ss -Hlnpt "sport = :$1" | grep -E "(127.0.0.1|0.0.0.0|\*|$API|\[::\]):$1 " || true)
    [[ -z $user ]] || die "port $1, for $2, is in use: $(grep -oE 'users:.*' <<<"$user" || echo "$user")" \
        "end that process, then run up again" "${3:-kind, minikube and k3s use the same ports}"
}

ports_free() {
    local port
    for port in 12379 12380; do must_be_free "$port" etcd; done
    must_be_free 6443 kube-apiserver
    must_be_free 10257 kube-controller-manager
    must_be_free 10259 kube-scheduler
    for port in 10248 10250; do must_be_free "$port" kubelet-1; done
    for port in 10249 10256; do must_be_free "$port" kube-proxy-1; done
}

store_up() {
    # Nothing here needs to survive a power cut, so nothing waits for the disk.
    ensure etcd 1 "" "$BIN/etcd" --name plenum --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls "$STORE" --advertise-client-urls "$STORE" \
        --listen-peer-urls http://127.0.0.1:12380 --initial-advertise-peer-urls http://127.0.0.1:12380 \
        --initial-cluster plenum=http://127.0.0.1:12380
    healthy etcd store_up curl -fsS -m 2 "$STORE/health"
}

api_up() {
    settings "$STATE/audit-policy.yaml" <<'YAML'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: [system:apiserver, system:kube-scheduler, system:kube-controller-manager]
- level: None
  userGroups: [system:nodes]
- level: None
  resources:
  - group: coordination.k8s.io
    resources: [leases]
- level: None
  nonResourceURLs: [/healthz*, /livez*, /readyz*, /metrics, /openapi/*]
- level: Metadata
YAML
    # shellcheck disable=SC2054 # Node,RBAC is one word
    local flags=(
        --advertise-address "$API"
        --bind-address "$API"
        --allow-privileged
        --audit-log-maxbackup 1
        --audit-log-maxsize 200
        --audit-log-path "$LOGS/audit.log"
        --audit-policy-file "$STATE/audit-policy.yaml"
        --authorization-mode Node,RBAC
        --client-ca-file "$PKI/ca.crt"
        --enable-admission-plugins NodeRestriction
        --enable-aggregator-routing=true
        --etcd-servers "$STORE"
        --kubelet-certificate-authority "$PKI/ca.crt"
        --kubelet-client-certificate "$PKI/kube-apiserver-kubelet.crt"
        --kubelet-client-key "$PKI/kube-apiserver-kubelet.key"
        # Nobody resolves the nodes' names.
        --kubelet-preferred-address-types InternalIP
        --proxy-client-cert-file "$PKI/front-proxy-client.crt"
        --proxy-client-key-file "$PKI/front-proxy-client.key"
        --requestheader-allowed-names front-proxy-client
        --requestheader-client-ca-file "$PKI/front-proxy-ca.crt"
        --requestheader-extra-headers-prefix X-Remote-Extra-
        --requestheader-group-headers X-Remote-Group
        --requestheader-username-headers X-Remote-User
        --service-account-issuer https://kubernetes.default.svc.cluster.local
        --service-account-key-file "$PKI/service-accounts.key"
        --service-account-signing-key-file "$PKI/service-accounts.key"
        --service-cluster-ip-range "$SERVICE_NETWORK"
        --tls-cert-file "$PKI/apiserver.crt"
        --tls-private-key-file "$PKI/apiserver.key"
    )
    ensure kube-apiserver 1 "$STATE/audit-policy.yaml $PKI/apiserver.crt" "$BIN/kube-apiserver" "${flags[@]}"
    healthy kube-apiserver api_up kubectl get --raw /readyz --request-timeout 5s
}

controllers_up() {
    local config
    # One of each, so nobody has to be elected first.
    config=$PKI/kube-scheduler.kubeconfig
    ensure kube-scheduler 1 "$config" "$BIN/kube-scheduler" --kubeconfig "$config" --leader-elect=false \
        --authentication-kubeconfig "$config" --authorization-kubeconfig "$config" --bind-address 127.0.0.1
    config=$PKI/kube-controller-manager.kubeconfig
    ensure kube-controller-manager 1 "$config" "$BIN/kube-controller-manager" \
        --kubeconfig "$config" --leader-elect=false \
        --authentication-kubeconfig "$config" --authorization-kubeconfig "$config" --bind-address 127.0.0.1 \
        --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
        --root-ca-file "$PKI/ca.crt" --service-account-private-key-file "$PKI/service-accounts.key" \
        --service-cluster-ip-range "$SERVICE_NETWORK" --use-service-account-credentials \
        --flex-volume-plugin-dir "$STATE/volume-plugins"
    healthy kube-controller-manager controllers_up curl -fsSk -m 2 https://127.0.0.1:10257/healthz
}

# What a pod can count on in any cluster: names, and kube-proxy's rights.
addons_up() {
    sed -e "s|@DNS_IMAGE@|$DNS_IMAGE|; s|@DNS_ADDRESS@|$DNS_ADDRESS|" "$CLUSTER_SOURCE/addons.yaml" >"$STATE/addons.yaml"
    kubectl apply --server-side --force-conflicts --field-manager plenum-cluster -f "$STATE/addons.yaml" >/dev/null
}

# TCP ports of this machine's loopback that lead into the cluster. Browsers
# give camera and microphone to http://localhost, but not to another address.
port_map_up() {
    local map=$1 pair args=() from to
    for pair in ${map//,/ }; do
        from=${pair%%:*} to=${pair##*:}
        [[ $pair =~ ^[0-9]+:[0-9]+$ ]] || die "PLENUM_PORT_MAP has '$pair'" "PLENUM_PORT_MAP=7880:30880,8080:30080"
        must_be_free "$from" port-map "PLENUM_PORT_MAP=OTHER:$to $CLUSTER_SOURCE/up"
        args+=("127.0.0.1:$from" "$API:$to" "[::1]:$from" "$API:$to")
    done
    if ((${#args[@]} == 0)); then
        stop port-map
        return
    fi
    ensure port-map 1 "" "$BIN/tool" proxy "${args[@]}"
}

nodes_ready() {
    local ready
    ready=$(kubectl get nodes -o 'jsonpath={range .items[*]}{range .status.conditions[?(@.type=="Ready")]}{.status}{"\n"}{end}{end}' |
        grep -c True) && ((ready == $1))
}
