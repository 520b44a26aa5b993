package mappedtest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"berth/block"
)

// Mutation is an image each of whose fields takes its extreme values in turn.
// To every change qemu-io and the engine must say the same: refuse it, or have
// as many bytes and the same ones. The engine may be stricter for a reason.
type Mutation struct {
	Format  block.Format
	Image   []byte
	Order   binary.ByteOrder
	Fields  []Field
	Samples []int64      // offsets of sectors that are compared beside the first and the last
	Sign    func([]byte) // makes checksums right after a change; nil: there are none
	Reasons []string     // parts of the errors for which the engine may be stricter
}

// Field is one of a header or a table, of 1, 2, 4 or 8 bytes.
type Field struct{ Off, Len int }

// Fields returns the fields of that length that lie in [from, to).
func Fields(length, from, to int) (fs []Field) {
	for off := from; off+length <= to; off += length {
		fs = append(fs, Field{off, length})
	}
	return fs
}

func (f Field) get(o binary.ByteOrder, b []byte) uint64 {
	switch p := b[f.Off:]; f.Len {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(o.Uint16(p))
	case 4:
		return uint64(o.Uint32(p))
	default:
		return o.Uint64(p)
	}
}

func (f Field) put(o binary.ByteOrder, b []byte, v uint64) {
	switch p := b[f.Off:]; f.Len {
	case 1:
		p[0] = byte(v)
	case 2:
		o.PutUint16(p, uint16(v))
	case 4:
		o.PutUint32(p, uint32(v))
	default:
		o.PutUint64(p, v)
	}
}

// Run makes all changes.
func (m Mutation) Run(t *testing.T) {
	t.Helper()
	Need(t)
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, m.Image, 0o600); err != nil {
		t.Fatal(err)
	}
	i, err := OpenImage(m.Format, path, nil)
	if err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	_ = i.Close()
	if err := m.compare(path); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	b := bytes.Clone(m.Image)
	for _, f := range m.Fields {
		was, top := f.get(m.Order, m.Image), ^uint64(0)>>(64-8*f.Len)
		done := []uint64{was}
		for _, v := range []uint64{0, 1, 2, was - 1, was + 1, 2 * was, top >> 1, top>>1 + 1, top - 1, top} {
			if v &= top; slices.Contains(done, v) {
				continue
			}
			done = append(done, v)
			f.put(m.Order, b, v)
			if m.Sign != nil {
				m.Sign(b)
			}
			write(t, path, m.Image, b)
			err := m.compare(path)
			write(t, path, b, m.Image)
			copy(b, m.Image)
			if err != nil {
				t.Errorf("%s, %d bytes at %#x: %#x instead of %#x: %v", m.Format.Name, f.Len, f.Off, v, was, err)
			}
		}
	}
}

// write changes the file from was to b.
func write(t *testing.T, path string, was, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := 0; off < len(b); off += 4096 {
		if end := min(off+4096, len(b)); !bytes.Equal(was[off:end], b[off:end]) {
			if _, err := f.WriteAt(b[off:end], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (m Mutation) compare(path string) error {
	i, err := OpenImage(m.Format, path, nil)
	if err != nil {
		if theirs, said := m.qemu(path, nil); theirs != nil && !m.reason(err) {
			return fmt.Errorf("refused (%w), and opened by QEMU: %s", err, said)
		}
		return nil
	}
	defer func() { _ = i.Close() }()
	offs := []int64{0, i.Size() - 512, i.Size()}
	for _, off := range m.Samples {
		if off < i.Size() {
			offs = append(offs, off)
		}
	}
	theirs, said := m.qemu(path, offs)
	if theirs == nil {
		return fmt.Errorf("opened, and refused by QEMU: %s", said)
	}
	for k, off := range offs {
		if off < 0 {
			continue
		}
		p := make([]byte, 512)
		switch err := i.Readv([][]byte{p}, off); {
		case err != nil && !errors.Is(err, block.ErrRange) && m.reason(err):
		case (err == nil) != (theirs[k] != ""):
			return fmt.Errorf("the sector at %d: %w, by QEMU %.20q: %s", off, err, theirs[k], said)
		case err == nil && theirs[k] != hex.EncodeToString(p):
			return fmt.Errorf("the sector at %d differs: %x, by QEMU %s", off, p[:8], theirs[k][:16])
		}
	}
	return nil
}

func (m Mutation) reason(err error) bool {
	for _, r := range m.Reasons {
		if strings.Contains(err.Error(), r) {
			return true
		}
	}
	return false
}

// qemu returns the sectors at offs in hexadecimal, "" for one that is not
// read; nil if the image is refused. And what else is said.
func (m Mutation) qemu(path string, offs []int64) (sectors []string, said string) {
	args := []string{"-r", "-f", m.Format.Name, "-c", "length"}
	for _, off := range offs {
		args = append(args, "-c", fmt.Sprintf("read -v %d 512", max(off, 0)))
	}
	out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput()
	if err != nil && strings.Contains(string(out), "can't open") {
		return nil, string(out)
	}
	sectors = []string{}
	var now strings.Builder
	for line := range strings.Lines(string(out)) {
		switch _, dump, ok := strings.Cut(line, ":  "); {
		case ok && len(dump) > 47:
			now.WriteString(strings.ReplaceAll(dump[:47], " ", ""))
		case strings.HasPrefix(line, "read 512/512"), strings.HasPrefix(line, "read failed"):
			sectors = append(sectors, now.String())
			now.Reset()
		default:
			said += line
		}
	}
	for len(sectors) < len(offs) {
		sectors = append(sectors, "")
	}
	return sectors, said
}
