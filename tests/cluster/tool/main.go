// Command tool holds the helpers of the test cluster that are easier to read
// in Go than in shell. It needs nothing but the standard library.
package main

import (
	"fmt"
	"os"
)

type command struct {
	run   func(args []string) error
	usage string
}

var commands = map[string]command{
	"certs":  {certs, "DIR IP...            make the cluster's certificate authorities, keys and kubeconfigs"},
	"digest": {digest, "ARCHIVE             print name and digest of each image in an OCI archive"},
	"echo":   {echo, "PORT                  answer TCP, UDP (PORT) and TLS (PORT+1) with who asked"},
	"get":    {get, "URL                    print what a web server answers"},
	"oci":    {oci, "-o FILE [...] NAME BINARY [ARGS...]  write an OCI image archive"},
	"proxy":  {proxy, "LISTEN TARGET [...]  pass TCP connections on"},
	"udp":    {udp, "HOST:PORT              send a datagram and print the answer"},
}

func main() {
	if len(os.Args) > 1 {
		if c, known := commands[os.Args[1]]; known {
			if err := c.run(os.Args[2:]); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			return
		}
	}
	fmt.Fprintln(os.Stderr, "usage: tool COMMAND")
	for name, c := range commands {
		fmt.Fprintf(os.Stderr, "  %s %s\n", name, c.usage)
	}
	os.Exit(2)
}
