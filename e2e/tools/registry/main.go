// Command registry serves the OCI distribution API, the referrers API included, from a folder.
//
// It owns the wiring only: go-containerregistry answers every request. Blobs lie in DIR/blobs. That
// library keeps manifests in memory, so each manifest write that it accepted is appended to
// DIR/manifests.jsonl and given to it again at the next start: a registry that is killed and started on
// the same folder has everything that it had acknowledged. It must never answer a request by itself.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
)

// The distribution specification asks registries to take manifests of 4 MiB at least.
const manifestBytesMax = 4 << 20

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on, as HOST:PORT; port 0 takes a free one")
	dir := flag.String("dir", "", "folder to keep blobs and manifests in (required)")
	flag.Parse()
	if *dir == "" || flag.NArg() != 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := serve(*listen, *dir); err != nil {
		log.Fatalf("registry: %v", err)
	}
}

func serve(listen, dir string) error {
	blobs := filepath.Join(dir, "blobs")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	j, err := openJournal(filepath.Join(dir, "manifests.jsonl"), ggcr.New(
		ggcr.WithReferrersSupport(true),
		ggcr.WithBlobHandler(ggcr.NewDiskBlobHandler(blobs)),
	))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	log.Printf("listening on %s", l.Addr())
	server := &http.Server{Handler: j, ReadHeaderTimeout: 30 * time.Second}
	return server.Serve(l)
}

// write is one accepted manifest request: a line of the journal.
type write struct {
	Method      string `json:"method"`
	Path        string `json:"path"`
	ContentType string `json:"contentType,omitempty"`
	Body        []byte `json:"body,omitempty"`
}

// journal passes requests on and records the manifest writes that were accepted.
type journal struct {
	next http.Handler
	mu   sync.Mutex // one manifest write at a time, so that the file's order is the order of effect
	file *os.File
}

// openJournal replays the file into next and opens it for appending. A last line that a kill cut short
// was never acknowledged, so it is cut off; any other damage is an error.
func openJournal(path string, next http.Handler) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	reader := bufio.NewReader(file)
	var whole int64
	for number := 1; ; number++ {
		line, err := reader.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var w write
		if err := json.Unmarshal(line, &w); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		request := httptest.NewRequest(w.Method, w.Path, bytes.NewReader(w.Body))
		request.Header.Set("Content-Type", w.ContentType)
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, request)
		if answer.Code >= 300 {
			return nil, fmt.Errorf("%s:%d: %s %s was refused with %d", path, number, w.Method, w.Path, answer.Code)
		}
		whole += int64(len(line))
	}
	if err := file.Truncate(whole); err != nil {
		return nil, err
	}
	if _, err := file.Seek(whole, io.SeekStart); err != nil {
		return nil, err
	}
	return &journal{next: next, file: file}, nil
}

func (j *journal) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	isWrite := in.Method == http.MethodPut || in.Method == http.MethodDelete
	if !isWrite || !strings.Contains(in.URL.Path, "/manifests/") {
		j.next.ServeHTTP(out, in)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(out, in.Body, manifestBytesMax))
	if err != nil {
		http.Error(out, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	in.Body = io.NopCloser(bytes.NewReader(body))

	j.mu.Lock()
	defer j.mu.Unlock()
	answer := httptest.NewRecorder()
	j.next.ServeHTTP(answer, in)
	if answer.Code < 300 {
		// On disk before the client hears of it.
		line, err := json.Marshal(write{in.Method, in.URL.Path, in.Header.Get("Content-Type"), body})
		if err == nil {
			_, err = j.file.Write(append(line, '\n'))
		}
		if err != nil {
			http.Error(out, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	for name, values := range answer.Header() {
		out.Header()[name] = values
	}
	out.WriteHeader(answer.Code)
	_, _ = out.Write(answer.Body.Bytes())
}
