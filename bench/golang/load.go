package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// figures are what a run gave; latencies in microseconds.
type figures struct {
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"`
	P50     float64 `json:"p50"`
	P99     float64 `json:"p99"`
}

// varying is replaced by another number in every request.
var varying = []byte("##########")

// load sends the request read from stdin over kept-alive connections: each again as soon as it has its answer.
// It prints "go" when the warm-up is over and the figures when the time is.
func load(args []string) error {
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	addr := flags.String("addr", "", "host:port")
	conns := flags.Int("conns", 16, "connections")
	seconds := flags.Float64("seconds", 3, "how long, after the warm-up")
	warm := flags.Float64("warm", 0.5, "seconds of warm-up")
	expected := flags.String("expect", `"hello"`, "text that every answer must have")
	status := flags.Int("status", 200, "status that every answer must have")
	if err := flags.Parse(args); err != nil {
		return err
	}
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	run := &run{message: message, expected: []byte(*expected), status: *status}
	failed := make(chan error, *conns)
	var group sync.WaitGroup
	for range *conns {
		conn, err := net.Dial("tcp", *addr)
		if err != nil {
			return err
		}
		group.Add(1)
		go func() {
			defer group.Done()
			defer conn.Close()
			if err := run.loop(conn); err != nil {
				failed <- err
			}
		}()
	}
	select {
	case err := <-failed:
		return err
	case <-time.After(time.Duration(*warm * float64(time.Second))):
	}
	fmt.Println("go")
	began := time.Now()
	run.counting.Store(true)
	select {
	case err := <-failed:
		return err
	case <-time.After(time.Duration(*seconds * float64(time.Second))):
	}
	run.counting.Store(false)
	elapsed := time.Since(began).Seconds()
	calls := run.calls.Load()
	run.over.Store(true)
	group.Wait()
	if len(run.latencies) == 0 {
		return errors.New("no answer within the time")
	}
	slices.Sort(run.latencies)
	at := func(share float64) float64 {
		return float64(run.latencies[int(float64(len(run.latencies)-1)*share)]) / 1e3
	}
	return json.NewEncoder(os.Stdout).Encode(figures{Calls: calls, Seconds: elapsed, P50: at(0.5), P99: at(0.99)})
}

type run struct {
	message   []byte
	expected  []byte
	status    int
	counting  atomic.Bool
	over      atomic.Bool
	calls     atomic.Int64
	sent      atomic.Int64
	mutex     sync.Mutex
	latencies []int64
}

func (r *run) loop(conn net.Conn) error {
	reader := bufio.NewReaderSize(conn, 32<<10)
	var own []int64
	message := bytes.Clone(r.message)
	place := bytes.Index(message, varying)
	for !r.over.Load() {
		if place >= 0 {
			copy(message[place:], fmt.Sprintf("%010d", r.sent.Add(1)))
		}
		sent := time.Now()
		if _, err := conn.Write(message); err != nil {
			return err
		}
		status, body, err := answer(reader)
		if err != nil {
			return err
		}
		if status != r.status || !bytes.Contains(body, r.expected) {
			return fmt.Errorf("unexpected answer %d: %.300s", status, body)
		}
		if r.counting.Load() {
			own = append(own, time.Since(sent).Nanoseconds())
			r.calls.Add(1)
		}
	}
	r.mutex.Lock()
	r.latencies = append(r.latencies, own...)
	r.mutex.Unlock()
	return nil
}

// answer reads one HTTP/1.1 response: by content length, or in chunks.
func answer(reader *bufio.Reader) (int, []byte, error) {
	status, length, err := head(reader)
	if err != nil {
		return 0, nil, err
	}
	if length >= 0 {
		body := make([]byte, length)
		_, err = io.ReadFull(reader, body)
		return status, body, err
	}
	var body []byte
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return status, body, err
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return status, body, err
		}
		chunk := make([]byte, size+2)
		if _, err = io.ReadFull(reader, chunk); err != nil {
			return status, body, err
		}
		if size == 0 {
			return status, body, nil
		}
		body = append(body, chunk[:size]...)
	}
}

// head gives the status and the content length; -1 means chunked.
func head(reader *bufio.Reader) (int, int, error) {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 12 {
		return 0, 0, fmt.Errorf("no status line: %q", line)
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, 0, err
	}
	length := 0
	for {
		line, err = reader.ReadSlice('\n')
		if err != nil {
			return 0, 0, err
		}
		if len(line) <= 2 {
			return status, length, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, 0, err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			length = -1
		}
	}
}
