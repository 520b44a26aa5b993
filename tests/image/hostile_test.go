package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/image"
)

// childOf is set in the environment of a child that runs one image command.
const childOf = "BERTH_IMAGE_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(childOf) != "" {
		os.Exit(image.Main(context.Background(), append([]string{"qemu-img"}, os.Args[1:]...), os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// most is what a command may need of memory for any small file, in KiB.
const most = 256 << 10

// wreck is what has been done to an image of 1 MiB, with data, a snapshot and a bitmap.
type wreck struct {
	name string
	do   func(p []byte) []byte
}

func put32(off int64, v uint32) func([]byte) []byte {
	return func(p []byte) []byte { binary.BigEndian.PutUint32(p[off:], v); return p }
}

func put64(off int64, v uint64) func([]byte) []byte {
	return func(p []byte) []byte { binary.BigEndian.PutUint64(p[off:], v); return p }
}

// fill64 has every one of n entries of the table whose offset the header has at hdr be v.
func fill64(hdr int64, n int, v uint64) func([]byte) []byte {
	return func(p []byte) []byte {
		t := binary.BigEndian.Uint64(p[hdr:])
		for i := range n {
			binary.BigEndian.PutUint64(p[t+uint64(i)*8:], v)
		}
		return p
	}
}

// l2 has every entry of the first L2 table be v.
func l2(v uint64) func([]byte) []byte {
	return func(p []byte) []byte {
		t := binary.BigEndian.Uint64(p[binary.BigEndian.Uint64(p[40:]):]) & 0x00fffffffffffe00
		for i := uint64(0); i < 512; i++ {
			binary.BigEndian.PutUint64(p[t+i*8:], v)
		}
		return p
	}
}

// snapshotField has field off of the first snapshot's header be v.
func snapshotField(off uint64, v uint32) func([]byte) []byte {
	return func(p []byte) []byte {
		binary.BigEndian.PutUint32(p[binary.BigEndian.Uint64(p[64:])+off:], v)
		return p
	}
}

// bitmapField has field off of the bitmaps extension be v.
func bitmapField(off int, v uint64) func([]byte) []byte {
	return func(p []byte) []byte {
		i := bytes.Index(p[:4096], []byte{0x23, 0x85, 0x28, 0x75})
		binary.BigEndian.PutUint64(p[i+8+off:], v)
		return p
	}
}

const own = 1 << 63 // OFLAG_COPIED

var wrecks = []wreck{
	{"cut after the magic", func(p []byte) []byte { return p[:6] }},
	{"cut within the header", func(p []byte) []byte { return p[:100] }},
	{"cut after the header", func(p []byte) []byte { return p[:4096] }},
	{"version 9", put32(4, 9)}, {"clusters of 2^63", put32(20, 63)}, {"clusters of 2^31", put32(20, 31)}, {"clusters of 2", put32(20, 1)},
	{"size 2^63", put64(24, 1<<63)}, {"size 2^62", put64(24, 1<<62)}, {"encrypted", put32(32, 2)},
	{"L1 of 4 G entries", put32(36, 0xffffffff)}, {"L1 of 32 MiB", put32(36, 4<<20)}, {"L1 of no entry", put32(36, 0)},
	{"L1 is the header", put64(40, 0)}, {"L1 not aligned", put64(40, 12345)}, {"L1 far away", put64(40, 1<<55)},
	{"refcount table far away", put64(48, 1<<55)}, {"refcount table is the header", put64(48, 0)}, {"refcount table of 4 G clusters", put32(56, 0xffffffff)},
	{"refcount table of 8 MiB", put32(56, 2048)}, {"no refcount table", put32(56, 0)},
	{"4 G snapshots", put32(60, 0xffffffff)}, {"65536 snapshots", put32(60, 65536)}, {"snapshots in the header", put64(64, 0)}, {"snapshots far away", put64(64, 1<<55)},
	{"a snapshot's L1 of 4 G entries", snapshotField(8, 0xffffffff)}, {"a snapshot's L1 of 32 MiB", snapshotField(8, 4<<20)}, {"a snapshot's names of 64 KiB", snapshotField(12, 0xffffffff)},
	{"a snapshot's extra data of 4 GiB", snapshotField(36, 0xffffffff)}, {"a snapshot's L1 is the header", snapshotField(4, 0)},
	{"unknown features", put64(72, 1<<40)}, {"all features", put64(72, ^uint64(0))}, {"corrupt", put64(72, 2)}, {"refcounts of 2^31 bits", put32(96, 31)},
	{"header of 4 GiB", put32(100, 0xffffffff)}, {"backing name of 4 GiB", func(p []byte) []byte { return put32(16, 0xffffffff)(put64(8, 200)(p)) }},
	{"an extension of 4 GiB", put32(104+4+8, 0xffffffff)},
	{"4 G bitmaps", bitmapField(0, 0xffffffff<<32)}, {"a bitmap directory of 2^60 bytes", bitmapField(8, 1<<60)}, {"a bitmap directory far away", bitmapField(16, 1<<55)},
	{"L2 tables are the L1", func(p []byte) []byte { return fill64(40, 1, own|binary.BigEndian.Uint64(p[40:]))(p) }},
	{"L2 table is the header", fill64(40, 1, own)}, {"L2 table far away", fill64(40, 1, own|1<<54)}, {"L2 not aligned", fill64(40, 1, own|512)},
	{"reserved bits", fill64(40, 1, ^uint64(0))},
	{"all data is one cluster", l2(own | 5<<12)}, {"data is the header", l2(own)}, {"data far away", l2(own | 1<<55)}, {"data is compressed rubbish", l2(1<<62 | 0x3fff<<48)},
	{"compressed data far away", l2(1<<62 | 1<<53)}, {"every bit of the L2", l2(^uint64(0))},
	{"refcount blocks are one", fill64(48, 512, 1<<13)}, {"refcount blocks far away", fill64(48, 512, 1<<55)}, {"refcount blocks not aligned", fill64(48, 512, 513)},
}

// TestHostileImages has commands run on images that were made to do harm: they end by themselves, need
// little memory, and say in few lines what is wrong.
func TestHostileImages(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.qcow2")
	for _, args := range [][]string{{"create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", good, "1M"}, {"snapshot", "-c", "s", good}, {"bitmap", "--add", good, "b"}} {
		if code, out := (berth{}).img(args); code != 0 {
			t.Fatal(out)
		}
	}
	if _, err := (berth{}).io(good, "qcow2", dir, task{requests: []request{{kind: ioWrite, n: 300000, src: 8}}}); err != nil {
		t.Fatal(err)
	}
	p, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrecks {
		t.Run(w.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "bad.qcow2")
			if err := os.WriteFile(path, w.do(bytes.Clone(p)), 0o600); err != nil {
				t.Fatal(err)
			}
			harmless(t, path)
		})
	}
}

// TestHostileChains has the names in an image lead to itself, out of its directory and to what is no image.
func TestHostileChains(t *testing.T) {
	dir := t.TempDir()
	for _, backing := range []string{"bad.qcow2", "./bad.qcow2", "../../../../../../etc/passwd", "/etc/passwd", "/dev/zero", "json:{}", "nbd://x", ".", strings.Repeat("a", 1000)} {
		path := filepath.Join(dir, "bad.qcow2")
		os.Remove(path)
		if code, out := (berth{}).img([]string{"create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", "qcow2", path, "1M"}); code != 0 {
			t.Logf("%.40s: %s", backing, out)
			continue
		}
		t.Run(fmt.Sprintf("%.40s", backing), func(t *testing.T) { harmless(t, path) })
	}
}

// harmless runs the commands that somebody may try on an image that he was given.
func harmless(t *testing.T, path string) {
	out := path + ".raw"
	for _, args := range [][]string{
		{"info", "--backing-chain", "-f", "qcow2", path}, {"check", "-f", "qcow2", path}, {"map", "-f", "qcow2", path},
		{"convert", "-f", "qcow2", "-O", "raw", path, out}, {"snapshot", "-l", path}, {"check", "-f", "qcow2", "-r", "all", path},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // no more than a guard against hanging
		cmd := exec.CommandContext(ctx, os.Args[0], args...)
		cmd.Env = append(os.Environ(), childOf+"=1", "GOTRACEBACK=none")
		said, err := cmd.CombinedOutput()
		cancel()
		code := cmd.ProcessState.ExitCode()
		if code < 0 || code > 100 || bytes.Contains(said, []byte("panic")) || bytes.Contains(said, []byte("goroutine")) {
			t.Errorf("%v: %v: %.600s", args, err, said)
		}
		if use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && use.Maxrss > most {
			t.Errorf("%v takes %d KiB", args, use.Maxrss)
		}
		if n := bytes.Count(said, []byte("\n")); code == 1 && args[0] != "check" && n > 3 {
			t.Errorf("%v fails by %d lines: %.600s", args, n, said)
		}
		os.Remove(out)
		judged(t, args, code, string(said))
	}
}

// judged has QEMU run a command that changes nothing, and ends as berth's did. A tool that QEMU's own fault ends judges nothing.
func judged(t *testing.T, args []string, code int, said string) {
	if args[0] != "info" && args[0] != "check" || strings.Contains(strings.Join(args, " "), "-r") {
		return
	}
	if _, err := exec.LookPath("qemu-img"); err != nil {
		return
	}
	if c, out := run("qemu-img", args...); c >= 0 && c < 100 && c != code {
		t.Errorf("%v: exit status %d, QEMU's %d: %.300s; QEMU: %.300s", args, code, c, said, out)
	}
}
