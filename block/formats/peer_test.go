package formats

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inDir makes dir the working directory of the test, and returns it.
func inDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	return dir
}

// qemu runs one of QEMU's programs and returns what it printed.
func qemu(t testing.TB, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("qemu-utils is needed: %v", err)
	}
	return string(out), err
}

func mustQEMU(t testing.TB, args ...string) string {
	t.Helper()
	out, err := qemu(t, args...)
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
	return out
}

// images makes the images that the cases name.
func images(t *testing.T) {
	t.Helper()
	for _, a := range []string{
		"-f raw a.raw 1M",
		"-f qcow2 b.qcow2 1M",
		"-f qcow2 -o data_file=d.raw c.qcow2 1M",
		"-f qcow2 -F qcow2 -b b.qcow2 over.qcow2",
		"-f qcow2 -F qcow2 -b nope.qcow2 -u gone.qcow2 1M",
		"-f qcow2 -F raw -b foo://x -u far.qcow2 1M",
		"-f qcow2 -F qcow2 -b a.raw -u wrong.qcow2 1M",
		"-f qcow2 -o data_file=e.raw lost.qcow2 1M",
		"-f vpc f.vpc 1M", "-f vdi f.vdi 1M", "-f vhdx f.vhdx 1M", "-f vmdk f.vmdk 1M", "-f parallels f.parallels 1M", "-f qed f.qed 1M", "-f qcow f.qcow 1M",
	} {
		mustQEMU(t, append([]string{"qemu-img", "create", "-q"}, strings.Fields(a)...)...)
	}
	if err := os.Remove("e.raw"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("dir", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("odd", make([]byte, 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("empty", nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// optionsOf reads --image-opts as qemu-img does, for what the tests write.
func optionsOf(s string) map[string]string {
	v := map[string]string{}
	for i, kv := range strings.Split(s, ",") {
		k, x, ok := strings.Cut(kv, "=")
		if !ok && i == 0 {
			k, x = "file", kv
		}
		v[k] = x
	}
	return v
}

// message is what err would be printed as.
func message(what string, err error) string {
	return what + err.Error() + "\n" + hintOf(err)
}

var names = []string{
	"a.raw", "b.qcow2", "c.qcow2", "over.qcow2", "gone.qcow2", "far.qcow2", "wrong.qcow2", "lost.qcow2",
	"file:a.raw", "file:x:y", "none", "dir", "", "odd", "empty", "./a.raw", "dir/../a.raw", "a:b", "dir/a:b",
	"foo:bar", "http://x/", "ssh://a/b", "rbd:a/b", "gluster://a/b", "iscsi://a/b", "nfs://a/b", "vxhs://x", "sheepdog:x",
	"f.vpc", "f.vdi", "f.vhdx",
	"json:", "json:[1]", "json:{}", "json:1", `json:{"driver":"foo"}`, `json:{"driver":"raw"}`, `json:{"driver":"file"}`,
	`json:{"driver":"raw","bogus":1,"file.filename":"a.raw"}`,
	`json:{"driver":"raw","file":{"driver":"file","filename":"a.raw"}}`,
	`json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"a.raw"}}`,
	`json:{"file.filename":"a.raw"}`, `json:{"driver":"file","filename":"a.raw"}`, `json:{"driver":"file","filename":"none"}`,
	`json:{"driver":"qcow2","file":{"driver":"file","filename":"b.qcow2","bogus":2}}`,
	`json:{"driver":"qcow2","file":{"driver":"bogus","filename":"b.qcow2"}}`,
	`json:{"driver":"raw","driver":"raw","file.filename":"a.raw"}`,
	`json:{"a":{"b":[{"c":true}]},"driver":"raw","file.filename":"a.raw"}`,
	`json:{"driver":"qcow2","file.filename":"over.qcow2","backing":null}`,
	`json:{"driver":"qcow2"`, `json:{"driver":"qcow2"}x`,
	`json:{"driver":"host_device","filename":"a.raw"}`,
	`json:{"driver":"raw","file":"a.raw"}`,
	`json:{"driver":"raw","file":{"driver":"file","filename":"foo:bar"}}`,
	`json:{"driver":"raw","file":{"filename":"foo:bar"}}`,
}

var imageOpts = []string{
	"driver=raw,file=a.raw",
	"driver=raw,file.filename=a.raw,offset=1M,size=3",
	"driver=raw,file.filename=a.raw,offset=2M",
	"driver=raw,file.filename=a.raw,offset=512,size=1M",
	"driver=raw,file.filename=a.raw,offset=512,size=1000",
	"driver=raw,file.filename=a.raw,offset=x",
	"driver=raw,file.filename=a.raw,size=512K",
	"driver=raw,file.filename=a.raw,read-only=maybe",
	"driver=raw,file.filename=a.raw,read-only=on",
	"driver=raw,file.filename=a.raw,node-name=1x",
	"driver=raw,file.filename=a.raw,node-name=x,file.node-name=x",
	"driver=raw,file.filename=a.raw,node-name=aaaaaaaaaabbbbbbbbbbccccccccccdd",
	"driver=raw,file.filename=a.raw,force-share=on",
	"driver=raw,file.filename=a.raw,cache.direct=on",
	"driver=raw,file.filename=a.raw,cache.direct=1",
	"driver=raw,file.filename=a.raw,discard=perhaps",
	"driver=raw,file.filename=a.raw,file.locking=off",
	"driver=raw,file.filename=a.raw,file.locking=foo",
	"driver=raw,file.filename=a.raw,file.aio=foo",
	"driver=qcow2,file.filename=over.qcow2,backing=foo",
	"driver=qcow2,file.filename=over.qcow2,backing.file.filename=b.qcow2",
	"driver=qcow2,file.filename=gone.qcow2,backing.file.filename=a.raw",
	"driver=qcow2,file.filename=b.qcow2,backing.file.filename=a.raw",
	"driver=qcow2,file.filename=b.qcow2,backing.driver=raw",
	"driver=qcow2,file.filename=b.qcow2,bogus=1",
	"driver=raw,file.filename=a.raw,backing.file.filename=b.qcow2",
	"driver=qcow2,file.filename=b.qcow2,data-file.filename=a.raw",
	"driver=qcow2,file.filename=b.qcow2,data-file=a",
	"driver=qcow2,file.filename=lost.qcow2,data-file.filename=a.raw,data-file.driver=file",
	"driver=qcow2,file.filename=b.qcow2,lazy-refcounts=on",
	"driver=qcow2,file.filename=b.qcow2,lazy-refcounts=2",
	"driver=foo,file.filename=a.raw", "file.driver=foo,file.filename=a.raw", "file.driver=file",
}

// What qemu-img info and qemu-io print when they cannot open, we say; what they open, we open.
func TestOpensAndRefusesAsQEMU(t *testing.T) {
	inDir(t)
	images(t)
	for _, c := range []struct {
		name string
		args []string
		o    Options
	}{
		{"info", []string{"qemu-img", "info"}, Options{ReadOnly: true, NoBacking: true, NoIO: true}},
		{"read", []string{"qemu-io", "-r", "-c", "length"}, Options{ReadOnly: true}},
		{"write", []string{"qemu-io", "-c", "length"}, Options{}},
	} {
		for _, opts := range []bool{false, true} {
			list := names
			args := c.args
			if opts {
				list, args = imageOpts, append(args[:len(args):len(args)], "--image-opts")
			}
			for _, name := range list {
				if c.name == "write" && strings.HasPrefix(name, "f.") {
					continue // read-only here
				}
				t.Run(c.name+" "+name, func(t *testing.T) {
					o := c.o
					var before string
					switch {
					case opts:
						o.Values = optionsOf(name)
						before = "qemu-io: can't open: "
					default:
						o.Filename = name
						before = "qemu-io: can't open device " + name + ": "
					}
					if c.name == "info" {
						before = "qemu-img: Could not open '" + name + "': "
					}
					compareWithPeer(t, append(args, name), o, before)
				})
			}
		}
	}
}

func compareWithPeer(t *testing.T, args []string, o Options, before string) {
	t.Helper()
	out, failed := qemu(t, args...)
	n, err := Open(o)
	if err != nil {
		var lines []string
		for _, l := range strings.SplitAfter(out, "\n") {
			if !strings.HasPrefix(l, "qemu: module") {
				lines = append(lines, l)
			}
		}
		out = strings.Join(lines, "")
		if got := message(before, err); failed == nil || got != out {
			t.Errorf("we say:\n%sQEMU says:\n%s", got, out)
		}
		return
	}
	if failed != nil {
		t.Errorf("we open it, QEMU says:\n%s", out)
	}
	if args[1] == "info" {
		file, _, _ := strings.Cut(strings.TrimPrefix(out, "image: "), "\n")
		_, format, _ := strings.Cut(out, "file format: ")
		format, _, _ = strings.Cut(format, "\n")
		if n.Filename != file || n.Driver != format {
			t.Errorf("%s in %s; QEMU says %s in %s", n.Driver, n.Filename, format, file)
		}
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

// Images that QEMU opens with drivers that berth has not got are refused by the driver's name.
func TestForeignFormatsAreNamed(t *testing.T) {
	inDir(t)
	images(t)
	if err := os.Link("a.raw", "a.dmg"); err != nil {
		t.Fatal(err)
	}
	for file, driver := range map[string]string{"a.dmg": "dmg", "f.parallels": "parallels", "f.qed": "qed", "f.qcow": "qcow"} {
		if _, err := Open(Options{Filename: file, ReadOnly: true}); err == nil || err.Error() != "Unknown driver '"+driver+"'" {
			t.Errorf("%s: %v", file, err)
		}
		if n, err := Open(Options{Filename: file, Format: "raw", ReadOnly: true}); err != nil {
			t.Errorf("%s as raw: %v", file, err)
		} else {
			n.Close()
		}
	}
	for _, driver := range []string{"nbd", "luks", "qed", "blkdebug", "quorum", "throttle", "null-co", "vvfat", "copy-on-read"} {
		if _, err := Open(Options{Filename: "a.raw", Format: driver}); err == nil || err.Error() != "Unknown driver '"+driver+"'" {
			t.Errorf("%s: %v", driver, err)
		}
	}
	for _, name := range []string{"nbd://localhost/x", "nbd:unix:/x", "nbd+unix:///x?socket=y", "fat:/tmp", "blkdebug::a.raw", "null-co://", "nvme://x"} {
		p, _, _ := strings.Cut(name, ":")
		if _, err := Open(Options{Filename: name}); err == nil || err.Error() != "Unknown protocol '"+p+"'" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProbesAsQEMU(t *testing.T) {
	dir := inDir(t)
	images(t)
	if err := os.WriteFile("luks2.raw", append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 1<<20)...), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"a.raw", "luks2.raw", "b.qcow2", "f.vpc", "f.vdi", "f.vhdx", "f.vmdk", "f.parallels", "f.qed", "f.qcow"} {
		p, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			t.Fatal(err)
		}
		_, want, _ := strings.Cut(mustQEMU(t, "qemu-img", "info", f), "file format: ")
		want, _, _ = strings.Cut(want, "\n")
		if got := Probe(p[:min(len(p), 2048)]); got != want {
			t.Errorf("%s: %s, QEMU says %s", f, got, want)
		}
	}
}
