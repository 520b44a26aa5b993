package image

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestInfoOfEncryptedImages describes encrypted images, whole and damaged, as
// qemu-img does; their contents are refused by name.
func TestInfoOfEncryptedImages(t *testing.T) {
	peer, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip(err)
	}
	ours, theirs := newTwin(t, "ours", ""), newTwin(t, "theirs", peer)
	theirs.dir = ours.dir
	same := func(line string) {
		t.Helper()
		if got, want := ours.run(line), theirs.run(line); got != want {
			t.Errorf("%s\n--- qemu-img\n%s--- ours\n%s", line, want, got)
		}
	}
	for name, options := range map[string]string{
		"aes": "encrypt.format=aes", "old": "encryption=on,compat=0.10", "luks": "encrypt.format=luks,encrypt.iter-time=10",
		"essiv": "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
	} {
		create := "for i in 1 2 3 4 5 6 7 8 9; do qemu-img create -q --object secret,id=s,data=abcdef -f qcow2 -o encrypt.key-secret=s," + options + " " + name + " 1M && break; done >/dev/null 2>&1; test -s " + name
		theirs.run(create) // QEMU measures the host's CPU, which on a busy host may fail
		if _, err := os.Stat(filepath.Join(ours.dir, name)); err != nil {
			t.Fatal(err)
		}
		same("qemu-img info " + name)
		same("qemu-img info --output=json " + name)
		same("qemu-img info --image-opts driver=qcow2,file.filename=" + name)
		for _, args := range []string{"convert -O raw " + name + " out", "compare " + name + " " + name, "map " + name, "dd if=" + name + " of=out"} {
			if got := ours.run("qemu-img " + args + "; test $? != 0 -a ! -e out"); !bytes.Contains([]byte(got), []byte("is encrypted with")) {
				t.Errorf("%s: %s", args, got)
			}
		}
	}
	theirs.run("qemu-img create -f qcow2 -b luks -F qcow2 over")
	same("qemu-img info --backing-chain over")
	luks, err := os.ReadFile(filepath.Join(ours.dir, "luks"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(luks, []byte("LUKS\xba\xbe"))
	for _, c := range []struct {
		at    int
		value string
	}{{0, "M"}, {7, "\x02"}, {8, "aas"}, {8, "name"}, {40, "xts"}, {40, "xtsx-plain64\x00"}, {40, "xts-\x00"}, {40, "xts-plain65\x00"}, {40, "cbc-essiv\x00"},
		{40, "cbc-essiv:sha25\x00"}, {40, "xts-plain64:sha256\x00"}, {72, "sha25"}, {72, "sha2\x00"}, {108, "\x00\x00\x00\x21"}, {104, "\xff\xff\xff\xff"},
		{208, "\x00\x00\x00\x00"}, {208, "\x00\x00\xde\xad"}, {208 + 44, "\x00\x00\x00\x01"}, {208 + 40, "\x00\x00\x00\x00"}, {208 + 48 + 40, "\x00\x00\x00\x09"},
		{8, "aesxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}, {40 + 31, "x"}, {72 + 31, "x"}, {208 + 4, "\x00\x00\x00\x00"}, {164, "\x00\x00\x00\x00"}, {168 + 36, "abcdef"},
		{104, "\x00\x00\x00\x00"}, {104, "\x00\x00\x00\x07"}, {104, "\x00\x00\x00\x64"}, {208 + 40, "\x00\x00\x00\x01"}, {208 + 40, "\x00\x00\x00\x02"}, {208 + 40, "\x00\x00\x00\x07"},
		{8, "aes\x00"}, {108, "\x00\x00\x00\x00"}, {108, "\xff\xff\xff\xff"}, {108, "\x00\x00\x00\x11"}, {108, "\x00\x00\x00\x20"}, {40, "cbc-essiv:md5\x00"}, {8, "cast5\x00"}, {8, "\x00"}, {208 + 44, "\x00\x00\x00\x00"}} {
		bad := bytes.Clone(luks)
		copy(bad[at+c.at:], c.value)
		if err := os.WriteFile(filepath.Join(ours.dir, "bad"), bad, 0o644); err != nil {
			t.Fatal(err)
		}
		same("qemu-img info bad # " + fmt.Sprintf("%d %x", c.at, c.value))
	}
}
