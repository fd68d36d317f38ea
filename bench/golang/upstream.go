package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
)

// request is what the upstream reads of a message: it answers tools/call without decoding more.
type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Version string `json:"protocolVersion"`
		Meta    struct {
			Version string `json:"io.modelcontextprotocol/protocolVersion"`
		} `json:"_meta"`
	} `json:"params"`
}

// server answers at once, as JSON or as a stream of one event.
type server struct {
	tools []byte
	sse   bool
}

func upstream(args []string) error {
	flags := flag.NewFlagSet("upstream", flag.ExitOnError)
	tools := flags.Int("tools", 1, "tools in the list")
	fresh := flags.Int("fresh", 0, "ttlMs of the list of tools")
	sse := flags.Bool("sse", false, "answer tools/call as an event stream")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return http.Serve(listener, &server{tools: list(*tools, *fresh), sse: *sse})
}

func list(count, fresh int) []byte {
	schema := map[string]any{
		"type":       "object",
		"properties": map[string]any{"text": map[string]any{"type": "string", "description": "What to say."}},
		"required":   []string{"text"},
	}
	tools := make([]map[string]any, 0, count)
	for number := range count {
		name := "echo"
		if number > 0 {
			name = fmt.Sprintf("echo%02d", number)
		}
		tools = append(tools, map[string]any{"name": name, "description": "Says what it is told.", "inputSchema": schema})
	}
	body, err := json.Marshal(map[string]any{"tools": tools, "resultType": "complete", "ttlMs": fresh, "cacheScope": "private"})
	if err != nil {
		panic(err)
	}
	return body
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		s.stream(w, r)
		return
	case http.MethodPost:
	default:
		w.WriteHeader(http.StatusOK)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var message request
	if err := json.Unmarshal(body, &message); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if len(message.ID) == 0 {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	s.answer(w, &message)
}

// stream is the GET stream of a session: open until the client goes, and silent.
func (s *server) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func (s *server) answer(w http.ResponseWriter, message *request) {
	modern := message.Params.Meta.Version != ""
	var result []byte
	switch message.Method {
	case "initialize":
		w.Header().Set("Mcp-Session-Id", "0123456789abcdef0123456789abcdef")
		result = fmt.Appendf(nil, `{"protocolVersion":%q,"capabilities":{"tools":{}},"serverInfo":{"name":"cheap","version":"1"}}`, message.Params.Version)
	case "server/discover":
		result = []byte(`{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"serverInfo":{"name":"cheap","version":"1"},"resultType":"complete","ttlMs":0,"cacheScope":"private"}`)
	case "tools/list":
		result = s.tools
	case "tools/call":
		result = []byte(`{"content":[{"type":"text","text":"hello"}],"isError":false}`)
		if modern {
			result = []byte(`{"content":[{"type":"text","text":"hello"}],"isError":false,"resultType":"complete"}`)
		}
	default:
		result = []byte(`{}`)
	}
	var out bytes.Buffer
	streamed := s.sse && message.Method == "tools/call"
	if streamed {
		out.WriteString("event: message\ndata: ")
	}
	out.WriteString(`{"jsonrpc":"2.0","id":`)
	out.Write(message.ID)
	out.WriteString(`,"result":`)
	out.Write(result)
	out.WriteByte('}')
	if streamed {
		out.WriteString("\n\n")
		w.Header().Set("Content-Type", "text/event-stream")
	} else {
		w.Header().Set("Content-Type", "application/json")
	}
	_, _ = w.Write(out.Bytes())
}
