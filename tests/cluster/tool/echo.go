package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What an aggregated API answers when it is asked what it serves.
const discovery = `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"%s","resources":[]}` + "\n"

// echo tells who asked: "<this pod> <address of the asker>". Over TLS it also
// tells the user that the API server says is asking.
func echo(args []string) error {
	if len(args) != 1 {
		return errors.New("give a port")
	}
	port, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	fmt.Printf("%s listens on %d\n", name, port)

	datagrams, err := net.ListenPacket("udp", ":"+args[0])
	if err != nil {
		return err
	}
	failed := make(chan error, 3)
	go func() {
		buffer := make([]byte, 1500)
		for {
			_, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				failed <- err
				return
			}
			host, _, _ := net.SplitHostPort(from.String())
			_, _ = datagrams.WriteTo([]byte(name+" "+unmapped(host)+"\n"), from)
		}
	}()

	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		if version, found := strings.CutPrefix(r.URL.Path, "/apis/"); found {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Asked-By", r.Header.Get("X-Remote-User"))
			fmt.Fprintf(w, discovery, version)
			return
		}
		fmt.Fprintf(w, "%s %s\n", name, unmapped(host))
	})
	go func() { failed <- http.ListenAndServe(":"+args[0], handler) }()

	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	secure := http.Server{
		Addr:      ":" + strconv.Itoa(port+1),
		Handler:   handler,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { failed <- secure.ListenAndServeTLS("", "") }()

	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	select {
	case err := <-failed:
		return err
	case <-ended.Done():
		return nil
	}
}

// unmapped writes an IPv4 peer of a dual-stack socket as the IPv4 address it is.
func unmapped(host string) string {
	return strings.TrimPrefix(host, "::ffff:")
}

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func get(args []string) error {
	if len(args) != 1 {
		return errors.New("give a URL")
	}
	client := http.Client{Timeout: 3 * time.Second}
	response, err := client.Get(args[0])
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		return errors.New(response.Status)
	}
	return nil
}

// udp tries five times, since a datagram may be lost.
func udp(args []string) error {
	if len(args) != 1 {
		return errors.New("give HOST:PORT")
	}
	connection, err := net.Dial("udp", args[0])
	if err != nil {
		return err
	}
	defer connection.Close()
	answer := make([]byte, 1500)
	for range 5 {
		if _, err = connection.Write([]byte("who am I?")); err != nil {
			continue
		}
		_ = connection.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		var n int
		if n, err = connection.Read(answer); err == nil {
			_, err = os.Stdout.Write(answer[:n])
			return err
		}
	}
	return err
}
