package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},` +
	`"clientInfo":{"name":"idle","version":"1"}}}`

// idle opens sessions, each initialized on a connection of its own that then carries its GET stream.
func idle(args []string) error {
	flags := flag.NewFlagSet("idle", flag.ExitOnError)
	addr := flags.String("addr", "", "host:port")
	path := flags.String("path", "/mcp", "path of the endpoint")
	sessions := flags.Int("sessions", 10_000, "how many")
	headers := flags.String("headers", "", "header lines of every request, each ended by CRLF")
	if err := flags.Parse(args); err != nil {
		return err
	}
	common := fmt.Sprintf("host: 127.0.0.1\r\nmcp-protocol-version: 2025-11-25\r\n%s", *headers)
	first := fmt.Sprintf("POST %s HTTP/1.1\r\n%saccept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"+
		"content-length: %d\r\n\r\n%s", *path, common, len(initialize), initialize)
	open := make([]net.Conn, *sessions)
	failed := make(chan error, *sessions)
	gate := make(chan struct{}, 64)
	var group sync.WaitGroup
	for number := range *sessions {
		gate <- struct{}{}
		group.Add(1)
		go func() {
			defer func() { <-gate; group.Done() }()
			conn, err := session(*addr, *path, first, common)
			if err != nil {
				failed <- err
				return
			}
			open[number] = conn
		}()
	}
	group.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	fmt.Println(*sessions)
	_, err := io.Copy(io.Discard, os.Stdin)
	for _, conn := range open {
		conn.Close()
	}
	return err
}

func session(addr, path, first, common string) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReaderSize(conn, 4<<10)
	if _, err = io.WriteString(conn, first); err != nil {
		return nil, err
	}
	id, length := "", 0
	for {
		line, err := reader.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("mcp-session-id")) {
			id = string(bytes.TrimSpace(value))
		}
		if bytes.EqualFold(name, []byte("content-length")) {
			if _, err = fmt.Sscan(string(value), &length); err != nil {
				return nil, err
			}
		}
	}
	body := make([]byte, length)
	if _, err = io.ReadFull(reader, body); err != nil || id == "" {
		return nil, fmt.Errorf("no session: %.300s (%v)", body, err)
	}
	request := fmt.Sprintf("GET %s HTTP/1.1\r\n%smcp-session-id: %s\r\naccept: text/event-stream\r\n\r\n", path, common, id)
	if _, err = io.WriteString(conn, request); err != nil {
		return nil, err
	}
	line, err := reader.ReadBytes('\n')
	if err != nil || !bytes.Contains(line, []byte(" 200")) {
		return nil, fmt.Errorf("no stream: %q (%v)", line, err)
	}
	return conn, nil
}
