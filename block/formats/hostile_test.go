package formats

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
)

// overlay makes a qcow2 image that names backing, whatever that may be.
func overlay(t testing.TB, path, backing, format string) {
	t.Helper()
	mustQEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "x", "-F", "raw", path, "1M")
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The name goes to the end of the first cluster, the format's over the extension's "raw".
	at := 4096
	copy(p[at:], backing)
	binary.BigEndian.PutUint64(p[8:], uint64(at))
	binary.BigEndian.PutUint32(p[16:], uint32(len(backing)))
	i := bytes.Index(p[:512], []byte("\xe2\x79\x2a\xca\x00\x00\x00\x03raw"))
	if i < 0 {
		t.Fatal("no backing format in the header")
	}
	if format == "" {
		binary.BigEndian.PutUint32(p[i:], 0x12345678) // an extension that nobody knows
	} else {
		binary.BigEndian.PutUint32(p[i+4:], uint32(len(format)))
		copy(p[i+8:i+16], format+"\x00\x00\x00\x00\x00")
	}
	if err := os.WriteFile(path, p, 0o644); err != nil {
		t.Fatal(err)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// refused opens path and checks that it is refused in one line that has want in
// it, and that nothing stays open.
func refused(t *testing.T, o Options, want string) {
	t.Helper()
	before := openFiles(t)
	n, err := Open(o)
	if err == nil {
		n.Close()
		t.Errorf("%s: opened", o.Filename)
		return
	}
	if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 20000 {
		t.Errorf("%.60s: %.300q, want %q", o.Filename, err, want)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%.60s: %d files stay open", o.Filename, after-before)
	}
}

func TestChainsThatComeBack(t *testing.T) {
	dir := inDir(t)
	overlay(t, "self.qcow2", "self.qcow2", "qcow2")
	overlay(t, "probed.qcow2", "./probed.qcow2", "")
	overlay(t, "abs.qcow2", filepath.Join(dir, "abs.qcow2"), "qcow2")
	overlay(t, "one.qcow2", "two.qcow2", "qcow2")
	overlay(t, "two.qcow2", "three.qcow2", "qcow2")
	overlay(t, "three.qcow2", "one.qcow2", "qcow2")
	overlay(t, "link.qcow2", "other.qcow2", "qcow2")
	overlay(t, "json.qcow2", `json:{"driver":"qcow2","file":{"driver":"file","filename":"json.qcow2"}}`, "qcow2")
	if err := os.Link("link.qcow2", "other.qcow2"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"self", "probed", "abs", "one", "link", "json"} {
		refused(t, Options{Filename: name + ".qcow2", ReadOnly: true}, "creates an infinite loop")
	}
}

// An image on itself as raw bytes ends: QEMU opens it too.
func TestAnImageOnItsOwnBytesIsNoLoop(t *testing.T) {
	inDir(t)
	overlay(t, "self.qcow2", "self.qcow2", "raw")
	n, err := Open(Options{Filename: "self.qcow2", ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

func TestChainsWithoutEnd(t *testing.T) {
	inDir(t)
	overlay(t, "0", "1", "qcow2")
	p, err := os.ReadFile("0")
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < maxChain+20; i++ {
		q := append([]byte(nil), p...)
		name := fmt.Sprint(i + 1)
		copy(q[4096:], name)
		binary.BigEndian.PutUint32(q[16:], uint32(len(name)))
		if err := os.WriteFile(fmt.Sprint(i), q, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := openFiles(t)
	_, err = Open(Options{Filename: "0", ReadOnly: true})
	if err == nil || !strings.HasSuffix(err.Error(), fmt.Sprintf("more than %d images stand on one another", maxChain)) {
		t.Errorf("%.200v", err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files stay open", after-before)
	}
}

// With NoReferences an image leads nowhere, however it says it.
func TestReferencesAreRefused(t *testing.T) {
	dir := inDir(t)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{
		secret, "../" + filepath.Base(dir) + "/secret", "secret", "file:secret", "/etc/shadow", "/dev/null", "nbd://example.org/x",
		`json:{"driver":"raw","file.filename":"secret"}`,
	} {
		path := fmt.Sprintf("%d.qcow2", i)
		overlay(t, path, name, "raw")
		for _, o := range []Options{{Filename: path}, {Filename: path, ReadOnly: true}, {Filename: path, NoBacking: true}} {
			o.NoReferences = true
			refused(t, o, "which it may not here")
		}
	}
	mustQEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=secret", "data.qcow2", "4K")
	refused(t, Options{Filename: "data.qcow2", NoReferences: true}, "the data file 'secret', which it may not here")
	if err := os.WriteFile("flat.vmdk", []byte("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"secret\" 0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	if n, err := Open(Options{Filename: "flat.vmdk", Format: "vmdk", ReadOnly: true, NoReferences: true}); err == nil {
		n.Close()
		t.Error("a vmdk's extents were followed")
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files stay open", after-before)
	}
}

// With Stated a format below the top is not guessed: a guest may have written it.
func TestFormatsBelowAreNotGuessed(t *testing.T) {
	inDir(t)
	images(t)
	overlay(t, "guess.qcow2", "b.qcow2", "")
	refused(t, Options{Filename: "guess.qcow2", Stated: true, ReadOnly: true}, "does not state its format")
	n, err := Open(Options{Filename: "over.qcow2", Stated: true})
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}

func TestNamesThatAreAbsurd(t *testing.T) {
	inDir(t)
	images(t)
	deep := `json:{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + "}"
	for i, c := range []struct{ name, want string }{
		{"a\x00b", "Could not open"},
		{strings.Repeat("x", 300), "Could not open"},
		{strings.Repeat("d/", 3000), "Could not open"},
		{deep, "nesting is deeper"},
		{`json:{"driver":"raw","file.filename":"` + strings.Repeat("x", maxJSON) + `"}`, "more than 65536 bytes"},
		{`json:{"driver":"raw","file.filename":"a.raw","offset":99999999999999999999}`, "Parameter 'offset' expects"},
		{`json:{"driver":"raw","file.filename":"a.raw","offset":18446744073709551615}`, "cannot be greater"},
		{`json:{"driver":"raw","file.filename":"a.raw","size":18446744073709551104}`, "has to be smaller"},
		{`json:{"driver":"raw","file.filename":"a.raw","offset":-1}`, "Parameter 'offset' expects"},
		{`json:{"driver":"raw","file.filename":"a.raw","node-name":"` + strings.Repeat("n", 40) + `"}`, "Node name too long"},
		{`json:{"driver":"raw","file":{"file":{"file":{"filename":"a.raw"}}}}`, ""},
		{`json:{"":""}`, "Must specify either driver or file"},
	} {
		refused(t, Options{Filename: c.name, ReadOnly: true}, c.want)
		if len(c.name) < 1000 {
			path := fmt.Sprintf("over%d", i)
			overlay(t, path, c.name, "")
			refused(t, Options{Filename: path, ReadOnly: true}, "")
		}
	}
}

func probedRaw(t *testing.T) *Node {
	t.Helper()
	n, err := Open(Options{Filename: "a.raw"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if !n.Probed || n.Driver != "raw" {
		t.Fatalf("%+v", n)
	}
	return n
}

// A guest must not make its raw disk into an image that names the host's files.
func TestSectorZeroOfAProbedRawDisk(t *testing.T) {
	inDir(t)
	images(t)
	var magics [][]byte
	for _, f := range []string{"b.qcow2", "f.vpc", "f.vdi", "f.vhdx", "f.vmdk", "f.parallels", "f.qed", "f.qcow"} {
		p, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		magics = append(magics, p[:512])
	}
	magics = append(magics, append([]byte("LUKS\xba\xbe\x00\x01"), make([]byte, 504)...))
	n := probedRaw(t)
	for _, m := range magics {
		for _, iov := range [][][]byte{{m}, {m[:3], m[3:]}, {m, make([]byte, 4096)}} {
			if err := n.Image.Writev(iov, 0, 0); !errors.Is(err, syscall.EPERM) {
				t.Errorf("%q in %d buffers: %v", m[:8], len(iov), err)
			}
		}
		// Byte by byte, from the back.
		refused := false
		for i := 511; i >= 0; i-- {
			err := n.Image.Writev([][]byte{m[i : i+1]}, int64(i), 0)
			refused = refused || errors.Is(err, syscall.EPERM)
		}
		if !refused || taken(t, n) != "raw" {
			t.Errorf("%q byte by byte: taken for %s", m[:8], taken(t, n))
		}
		if err := n.Image.Writev([][]byte{make([]byte, 512)}, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	// A sector that a zero in the right place would make qed.
	almost := []byte("QED\x01")
	if err := n.Image.Writev([][]byte{almost}, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := n.Image.(block.ZeroWriter).WriteZeroes(3, 1, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("zeroing a byte: %v", err)
	}
	if err := n.Image.(block.Discarder).Discard(3, 1); err != nil || taken(t, n) != "raw" {
		t.Errorf("discarding it: %v", err)
	}
	if err := n.Image.(block.ZeroWriter).WriteZeroes(0, 1<<20, block.FlagUnmap); err != nil {
		t.Errorf("zeroing the disk: %v", err)
	}
	if err := n.Image.Writev([][]byte{magics[0]}, 512, 0); err != nil {
		t.Errorf("elsewhere: %v", err)
	}
}

func taken(t *testing.T, n *Node) string {
	t.Helper()
	p := make([]byte, 512)
	if err := n.Image.Readv([][]byte{p}, 0); err != nil {
		t.Fatal(err)
	}
	return Probe(p)
}

// The buffers are the guest's, which changes them while they are looked at.
func TestSectorZeroIsWrittenAsItWasLookedAt(t *testing.T) {
	inDir(t)
	images(t)
	n := probedRaw(t)
	good, bad := make([]byte, 512), append([]byte("QFI\xfb\x00\x00\x00\x03"), make([]byte, 504)...)
	// As a guest's memory it is not Go's, so that the race detector leaves it alone.
	p, err := unix.Mmap(-1, 0, 512, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(p) }()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				copy(p, bad)
				copy(p, good)
			}
		}
	}()
	for range 2000 {
		_ = n.Image.Writev([][]byte{p}, 0, 0) // refused or not
		if f := taken(t, n); f != "raw" {
			t.Errorf("it has become %s", f)
			break
		}
	}
	close(stop)
	<-stopped
}

func FuzzJSONNames(f *testing.F) {
	for _, s := range names {
		f.Add(s)
	}
	f.Add(`json:{"a":[1,2,{"b":null}],"c":true,"d":1e9}`)
	f.Add("json:" + strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100))
	f.Fuzz(func(t *testing.T, s string) {
		v, err := parseJSON("json:" + strings.TrimPrefix(s, "json:"))
		if err != nil && v != nil {
			t.Error("both options and an error")
		}
		if len(v) > len(s) {
			t.Errorf("%d options of %d bytes", len(v), len(s))
		}
	})
}

// FuzzOpen opens what a name stored in an image may say. There is nothing in
// the directory but two images, and no name may lead to anything being written.
func FuzzOpen(f *testing.F) {
	for _, s := range names {
		f.Add(s, "driver=raw")
	}
	for _, s := range imageOpts {
		f.Add("", s)
	}
	dir := f.TempDir()
	mustQEMU(f, "qemu-img", "create", "-q", "-f", "raw", dir+"/a.raw", "1M")
	mustQEMU(f, "qemu-img", "create", "-q", "-f", "qcow2", dir+"/b.qcow2", "1M")
	f.Chdir(dir)
	f.Fuzz(func(t *testing.T, name, opts string) {
		n, err := Open(Options{Filename: name, Values: optionsOf(opts), ReadOnly: true})
		if err == nil {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSizesAreWholeSectors(t *testing.T) {
	for n, want := range map[int64]int64{0: 0, 1: 512, 512: 512, 513: 1024, 1<<63 - 1: 1<<63 - 512, 1<<63 - 512: 1<<63 - 512} {
		if got := roundUp(n); got != want {
			t.Errorf("roundUp(%d) = %d, want %d", n, got, want)
		}
	}
}
