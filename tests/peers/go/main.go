// A client of Go's net/http that works until nobody listens any more, and counts
// what it lost: one line of JSON at the end.
//
// Go retries a request by itself when its stream was refused or its connection was
// closed. What was written more than once was lost once, so writes are counted, not
// only answers.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Longer than any drain of a test: a request without an answer by then hangs.
const patience = 60 * time.Second

// The most descriptions of losses that are printed.
const detailsMax = 20

type counts struct {
	Client         string   `json:"client"`
	Ok             int      `json:"ok"`
	Connections    int      `json:"connections"`
	Told           int      `json:"told"`
	RefusedConnect int      `json:"refused_connect"`
	RefusedStream  int      `json:"refused_stream"`
	Resent         int      `json:"resent"`
	Lost           int      `json:"lost"`
	Details        []string `json:"details"`
}

type tally struct {
	sync.Mutex
	counts
}

// count changes the counts; a text that is not empty describes a loss.
func (t *tally) count(change func(*counts), detail string) {
	t.Lock()
	defer t.Unlock()
	change(&t.counts)
	if detail != "" && len(t.Details) < detailsMax {
		t.Details = append(t.Details, detail)
	}
}

// worker sends one request after the other until told to end or refused.
func worker(ctx context.Context, client *http.Client, base string, seed int64, t *tally) {
	random := rand.New(rand.NewSource(seed))
	for n := 0; ctx.Err() == nil; n++ {
		if !ask(client, base, random, n, t) {
			return
		}
		time.Sleep(time.Duration(random.Intn(3000)) * time.Microsecond)
	}
}

// request makes the next request and says what its answer must be.
func request(base, name string, random *rand.Rand, n int) (*http.Request, []byte) {
	if random.Intn(8) == 0 {
		body := bytes.Repeat([]byte("0123456789"), 1+random.Intn(3000))
		made, err := http.NewRequest("POST", base+"/echo", bytes.NewReader(body))
		check(err)
		return made, body
	}
	path := fmt.Sprintf("/%s/%d/%d", name, random.Int31(), n)
	made, err := http.NewRequest("GET", base+path, nil)
	check(err)
	return made, []byte("GET " + path + " 0")
}

// ask sends one request; false when there is nobody to ask any more.
func ask(client *http.Client, base string, random *rand.Rand, n int, t *tally) bool {
	request, want := request(base, t.Client, random, n)
	// Written by the transport's own goroutines.
	var headers atomic.Int32
	var old atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			old.Store(info.Reused)
			if !info.Reused {
				t.count(func(c *counts) { c.Connections++ }, "")
			}
		},
		WroteHeaders: func() { headers.Add(1) },
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(ctx, trace)))
	written, reused := int(headers.Load()), old.Load()
	if err != nil {
		if written == 0 && errors.Is(err, syscall.ECONNREFUSED) {
			t.count(func(c *counts) { c.RefusedConnect++ }, "")
			return false
		}
		lose(t, request, written, reused, err.Error())
		// Somebody who is refused after a loss has nobody to ask either.
		return !errors.Is(err, syscall.ECONNREFUSED)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	switch {
	case err != nil:
		lose(t, request, written, reused, "body: "+err.Error())
	case response.StatusCode != 200 || !bytes.Equal(body, want):
		lose(t, request, written, reused, fmt.Sprintf("%d, %d octets", response.StatusCode, len(body)))
	default:
		t.count(func(c *counts) { c.Ok++ }, "")
		if response.Close {
			t.count(func(c *counts) { c.Told++ }, "")
		}
		if written > 1 {
			detail := fmt.Sprintf("%s %s written %d times", request.Method, request.URL.Path, written)
			t.count(func(c *counts) { c.Resent += written - 1 }, detail)
		}
	}
	return true
}

func lose(t *tally, request *http.Request, written int, reused bool, why string) {
	detail := fmt.Sprintf("%s %s written %d times, reused %t: %s",
		request.Method, request.URL.Path, written, reused, why)
	t.count(func(c *counts) { c.Lost++ }, detail)
}

// transport is one pool of connections: for HTTP/2 that is one connection.
func transport(roots *x509.CertPool, http1 bool, connections int) *http.Transport {
	made := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: patience}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "localhost"},
		ForceAttemptHTTP2:   !http1,
		MaxIdleConnsPerHost: connections,
		DisableCompression:  true,
	}
	if http1 {
		made.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return made
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go client:", err)
		os.Exit(2)
	}
}

func main() {
	base := flag.String("url", "", "where to send requests, without a path")
	authority := flag.String("ca", "", "file with the certificate to trust")
	http1 := flag.Bool("http1", false, "HTTP/1.1 instead of HTTP/2")
	pools := flag.Int("connections", 4, "pools of connections")
	workers := flag.Int("streams", 8, "requests at once in each pool")
	seed := flag.Int64("seed", 1, "of the random numbers")
	flag.Parse()
	roots := x509.NewCertPool()
	if *authority != "" {
		pem, err := os.ReadFile(*authority)
		check(err)
		if !roots.AppendCertsFromPEM(pem) {
			check(errors.New("no certificate in " + *authority))
		}
	}
	name := "go-h2"
	if *http1 {
		name = "go-h1"
	}
	t := &tally{counts: counts{Client: name, Details: []string{}}}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	var all sync.WaitGroup
	for pool := 0; pool < *pools; pool++ {
		client := &http.Client{Transport: transport(roots, *http1, *workers)}
		for which := 0; which < *workers; which++ {
			all.Add(1)
			go func(seed int64) {
				defer all.Done()
				worker(ctx, client, *base, seed, t)
			}(*seed<<16 + int64(pool<<8+which))
		}
	}
	all.Wait()
	check(json.NewEncoder(os.Stdout).Encode(t.counts))
}
