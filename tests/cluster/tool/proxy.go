package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"time"
)

// proxy listens on each LISTEN and passes every connection on to the TARGET
// after it. An address that this machine does not have (no IPv6) is skipped,
// as long as one can be served. It prints each address that it serves, since
// port 0 stands for any free one.
func proxy(args []string) error {
	if len(args) == 0 || len(args)%2 != 0 {
		return errors.New("give pairs of LISTEN and TARGET")
	}
	served := 0
	failed := make(chan error)
	for i := 0; i < len(args); i += 2 {
		target := args[i+1]
		listener, err := net.Listen("tcp", args[i])
		if err != nil {
			log.Printf("%s is not served: %v", args[i], err)
			continue
		}
		served++
		fmt.Println(listener.Addr())
		go func() { failed <- accept(listener, target) }()
	}
	if served == 0 {
		return errors.New("no address could be served")
	}
	return <-failed
}

func accept(listener net.Listener, target string) error {
	for {
		client, err := listener.Accept()
		if err != nil {
			// Out of file descriptors passes; a closed listener does not.
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go pass(client.(*net.TCPConn), target)
	}
}

func pass(client *net.TCPConn, target string) {
	defer client.Close()
	conn, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		log.Print(err)
		// A reset tells the client that nobody is there, as a closed port would.
		_ = client.SetLinger(0)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{}, 2)
	half := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			// One side broke: the other must not wait for it for ever.
			_ = to.SetLinger(0)
			_ = to.Close()
			_ = from.Close()
		} else {
			_ = to.CloseWrite()
		}
		done <- struct{}{}
	}
	go half(server, client)
	go half(client, server)
	<-done
	<-done
}
