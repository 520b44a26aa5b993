package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// engine is one of the two implementations that images are run through.
type engine interface {
	name() string
	// img runs a qemu-img command and returns its exit status and all that it printed.
	img(args []string) (int, string)
	// io does the requests to an image, opened and closed for them, and tells which succeeded.
	io(path, format, sources string, t task) ([]bool, error)
	// read returns what an image reads as, its size long; a snapshot of it, if named.
	read(path, format, snapshot string) ([]byte, error)
}

// qemu is QEMU's tools.
type qemu struct{ scratch string }

func (qemu) name() string { return "qemu" }

func (qemu) img(args []string) (int, string) { return run("qemu-img", args...) }

// run gives up on a tool that goes on for ever, as qemu-img 7.2 amend may: a killed tool's exit status is -1.
func run(name string, args ...string) (int, string) {
	limit := time.Minute
	if args[0] == "amend" {
		limit = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	forking.Lock()
	err := cmd.Start()
	forking.Unlock()
	if err != nil {
		return -1, err.Error()
	}
	_ = cmd.Wait() // its state tells
	return cmd.ProcessState.ExitCode(), out.String()
}

// forking keeps berth from closing an image while a child is made: until it runs its program, the child has the
// descriptor, too, and with it the image's locks.
var forking sync.RWMutex

// endOfRequest is what qemu-io's answer to "length" stands for in its output, one after each request.
const endOfRequest = "length"

func (qemu) io(path, format, sources string, t task) ([]bool, error) {
	args := []string{"-f", format, "-d", "unmap"}
	for _, q := range t.requests {
		args = append(args, "-c", q.command(sources), "-c", endOfRequest)
	}
	_, out := run("qemu-io", append(args, path)...)
	ok, good := make([]bool, 0, len(t.requests)), true
	for l := range strings.Lines(out) {
		switch {
		case strings.Contains(l, "failed:"):
			good = false
		case strings.Contains(l, "KiB") || strings.Contains(l, "MiB") || strings.Contains(l, "bytes"):
			ok, good = append(ok, good), true
		default:
			return nil, fmt.Errorf("qemu-io: %s", out)
		}
	}
	if len(ok) != len(t.requests) {
		return nil, fmt.Errorf("qemu-io: %s", out)
	}
	return ok, nil
}

func (q qemu) read(path, format, snapshot string) ([]byte, error) {
	raw := filepath.Join(q.scratch, "contents")
	args := []string{"convert", "-f", format, "-O", "raw"}
	if snapshot != "" {
		args = append(args, "-l", "snapshot.name="+snapshot)
	}
	if code, out := q.img(append(args, path, raw)); code != 0 {
		return nil, errors.New(out)
	}
	defer os.Remove(raw)
	return os.ReadFile(raw)
}

// dirty returns the dirty ranges of a bitmap, as an NBD client of QEMU's sees them.
func (q qemu) dirty(path, bitmap string) (string, error) {
	socket := filepath.Join(q.scratch, "nbd-"+bitmap) // a server that ends removes its own
	pid := socket + ".pid"
	if code, out := run("qemu-nbd", "--fork", "--pid-file", pid, "-r", "-f", "qcow2", "-B", bitmap, "-k", socket, "-x", "x", path); code != 0 {
		return "", errors.New(out)
	}
	defer os.Remove(pid)
	code, out := q.img([]string{"map", "--output=json", "--image-opts",
		"driver=nbd,server.type=unix,server.path=" + socket + ",export=x,x-dirty-bitmap=qemu:dirty-bitmap:" + bitmap})
	if code != 0 {
		return "", errors.New(out)
	}
	var runs []struct {
		Start, Length int64
		Data          bool
	}
	if err := json.Unmarshal([]byte(out), &runs); err != nil {
		return "", err
	}
	d := ranges{}
	for _, e := range runs {
		if !e.Data { // QEMU shows dirty as a hole
			d.add(e.Start, e.Length)
		}
	}
	return d.String(), nil
}

// ranges is runs of bytes in order; neighbours are one.
type ranges [][2]int64

func (r *ranges) add(off, n int64) {
	if l := len(*r); l > 0 && (*r)[l-1][1] == off {
		(*r)[l-1][1] += n
		return
	}
	*r = append(*r, [2]int64{off, off + n})
}

func (r ranges) String() string { return fmt.Sprint([][2]int64(r)) }

// difference says where two contents differ; "" if they do not.
func difference(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	i := 0
	for got[i] == want[i] {
		i++
	}
	n := 0
	for j := range got {
		if got[j] != want[j] {
			n++
		}
	}
	return fmt.Sprintf("%d bytes differ, the first at %d: %q, want %q", n, i, got[i:min(i+16, len(got))], want[i:min(i+16, len(got))])
}
