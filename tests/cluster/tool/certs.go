package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The cluster is made and thrown away; ten years is "for ever" here.
const lifetime = 10 * 365 * 24 * time.Hour

// authority signs certificates. Its own stay when the command runs again, so
// that adding a node does not invalidate what is running.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// certs writes everything into DIR. The first IP is the API server's, and the
// addresses after it are those of all nodes in order.
func certs(args []string) error {
	if len(args) < 3 {
		return errors.New("give DIR, the API server's address and each node's address")
	}
	dir, api, nodes := args[0], args[1], args[2:]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := loadOrMakeAuthority(dir, "ca", "plenum-cluster")
	if err != nil {
		return err
	}
	// The API server refuses a front proxy that is signed by the clients' CA.
	front, err := loadOrMakeAuthority(dir, "front-proxy-ca", "plenum-cluster-front-proxy")
	if err != nil {
		return err
	}
	if err := loadOrMakeKey(filepath.Join(dir, "service-accounts.key")); err != nil {
		return err
	}

	serving := []struct {
		file, name string
		hosts      []string
	}{{"apiserver", "kube-apiserver", []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost", api, "10.96.0.1", "127.0.0.1",
	}}}
	clients := []struct{ file, user, group string }{
		{"admin", "plenum-admin", "system:masters"},
		{"kube-apiserver-kubelet", "kube-apiserver-kubelet", "system:masters"},
		{"kube-controller-manager", "system:kube-controller-manager", ""},
		{"kube-scheduler", "system:kube-scheduler", ""},
		{"kube-proxy", "system:kube-proxy", ""},
	}
	for i, address := range nodes {
		name := fmt.Sprintf("plenum-%d", i+1)
		clients = append(clients, struct{ file, user, group string }{"kubelet-" + name, "system:node:" + name, "system:nodes"})
		serving = append(serving, struct {
			file, name string
			hosts      []string
		}{"serving-" + name, "system:node:" + name, []string{name, address}})
	}

	for _, s := range serving {
		if err := ca.issue(dir, s.file, pkix.Name{CommonName: s.name}, s.hosts); err != nil {
			return err
		}
	}
	if err := front.issue(dir, "front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, nil); err != nil {
		return err
	}
	for _, c := range clients {
		subject := pkix.Name{CommonName: c.user}
		if c.group != "" {
			subject.Organization = []string{c.group}
		}
		if err := ca.issue(dir, c.file, subject, nil); err != nil {
			return err
		}
		if err := kubeconfig(dir, c.file, "https://"+net.JoinHostPort(api, "6443"), ca.pem); err != nil {
			return err
		}
	}
	return nil
}

func loadOrMakeAuthority(dir, file, name string) (*authority, error) {
	path := filepath.Join(dir, file)
	certificatePEM, err := os.ReadFile(path + ".crt")
	if errors.Is(err, os.ErrNotExist) {
		return makeAuthority(path, name)
	}
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(path + ".key")
	if err != nil {
		return nil, err
	}
	certificateBlock, _ := pem.Decode(certificatePEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certificateBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s is broken; delete %s", path, dir)
	}
	certificate, err := x509.ParseCertificate(certificateBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	return &authority{certificate, key, certificatePEM}, err
}

func makeAuthority(path, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template(pkix.Name{CommonName: name})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	// The certificate comes last: where it is, the key is.
	if err := writeKey(path+".key", key); err != nil {
		return nil, err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &authority{certificate, key, encoded}, write(path+".crt", encoded)
}

// issue writes FILE.crt and FILE.key unless they are there.
func (a *authority) issue(dir, file string, subject pkix.Name, hosts []string) error {
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path + ".crt"); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := template(subject)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	if err := writeKey(path+".key", key); err != nil {
		return err
	}
	return write(path+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func template(subject pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		// An hour back, for a machine whose clock is corrected meanwhile.
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
}

func loadOrMakeKey(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return writeKey(path, key)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return write(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// write never leaves half a file: a run may be killed at any point.
func write(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// kubeconfig carries its certificates within itself, so that it can be copied.
func kubeconfig(dir, file, server string, ca []byte) error {
	path := filepath.Join(dir, file)
	certificate, err := os.ReadFile(path + ".crt")
	if err != nil {
		return err
	}
	key, err := os.ReadFile(path + ".key")
	if err != nil {
		return err
	}
	encode := base64.StdEncoding.EncodeToString
	return write(path+".kubeconfig", fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: plenum
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: plenum
  context: {cluster: plenum, user: %s}
current-context: plenum
`, server, encode(ca), file, encode(certificate), encode(key), file))
}
