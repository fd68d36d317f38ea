// Command bench is the other end of the gateway benchmark: a cheap MCP server and a closed-loop load generator.
//
//	bench upstream [-tools N] [-sse]     serves on a free port, which it prints
//	bench load -addr H:P -conns N ...    sends one request again and again, prints figures as JSON
//	bench idle -addr H:P -sessions N     opens sessions with a GET stream each, prints the number, waits for stdin to close
package main

import (
	"fmt"
	"os"
)

func main() {
	commands := map[string]func([]string) error{"upstream": upstream, "load": load, "idle": idle}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: bench upstream|load|idle [flags]")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
