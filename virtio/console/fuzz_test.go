package console

import (
	"bytes"
	"encoding/binary"
	"testing"

	"berth/chardev"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

// FuzzPorts lets the input be the driver and the host of a device of two ports:
// each step is an operation and a length, and the bytes it takes. No order of
// control messages, chains and connections may leave a chain unanswered, break
// the device or make it say what is not so.
func FuzzPorts(f *testing.F) {
	message := func(id, event, value byte) []byte { return []byte{0, 8, id, 0, 0, 0, event, 0, value, 0} }
	f.Add(bytes.Join([][]byte{message(0, 0, 1), {2, 0}, {2, 0}, message(1, 3, 1), {2, 0}, {3, 1, 1}, {2, 0}, message(1, 6, 1), {4, 3, 'a', 'b', 'c'}, {5, 0}, {1, 2, 'h', 'i'}}, nil))
	f.Add(bytes.Join([][]byte{message(2, 3, 1), message(2, 3, 0), message(9, 3, 1), {0, 3, 1, 2, 3}, {2, 0}, {6, 0}, message(0, 0, 1), {2, 0}}, nil))
	f.Fuzz(func(t *testing.T, steps []byte) {
		host, end := chardev.Pipe(1 << 16)
		wire := &plug{Port: end}
		_, file := chardev.Pipe(1 << 16)
		d, err := NewPorts([]Named{{Name: "org.a", Host: wire}, {Name: "org.b", Host: file}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, d, featureMultiport|allRings)
		control, data := 0, 0 // buffers that wait in the receive queues
		for n := 0; len(steps) >= 2 && n < 40; n++ {
			op, size := steps[0], min(int(steps[1]), len(steps)-2)
			arg := steps[2 : 2+size]
			steps = steps[2+size:]
			switch op % 8 {
			case 0:
				r.send(controlOut, string(arg))
				r.Rings[controlOut].Wait()
			case 1:
				r.send(5, string(arg))
				r.Rings[5].Wait()
			case 2:
				if control < 15 {
					r.offer(controlIn)
					control++
				}
			case 3:
				wire.set(size > 0)
			case 4:
				if _, err := host.Write(arg[:min(size, 64)]); err != nil {
					t.Fatal(err)
				}
			case 5:
				if data < 15 {
					r.offer(4)
					data++
				}
			case 6:
				r.Dev.Pause()
				if err := d.Load(d.Save()); err != nil {
					t.Fatal(err)
				}
				r.Dev.Resume()
			case 7:
				r.begin(featureMultiport)
				control, data = 0, 0
			}
		}
		if r.Status() != 15 {
			t.Errorf("device status 0x%x", r.Status())
		}
		r.Dev.Pause()
		r.checkMessages()
	})
}

// checkMessages looks at the last control message, if there is one.
func (r *rig) checkMessages() {
	ring := r.Rings[controlIn]
	n := ring.UsedIdx()
	if n == 0 {
		return
	}
	size, err := r.Mem.Load32(ring.Used + 4 + 8*uint64((n-1)%ring.Size) + 4)
	if err != nil {
		r.T.Fatal(err)
	}
	m := []byte(r.Get(r.at[controlIn], int(size)))
	if len(m) < controlSize {
		r.T.Fatalf("a message of %d bytes", len(m))
	}
	le := binary.LittleEndian
	id, event, value, rest := le.Uint32(m), le.Uint16(m[4:]), le.Uint16(m[6:]), string(m[controlSize:])
	known := map[uint16]bool{eventPortAdd: rest == "", eventPortName: rest == []string{"org.a", "org.b"}[(id-1)&1], eventPortOpen: rest == "" && value < 2}
	if id < 1 || id > 2 || !known[event] {
		r.T.Errorf("message to port %d: event %d value %d %q", id, event, value, rest)
	}
}

// FuzzConsoleChains sends a console chains of any shape: each byte of cut is a
// buffer's length, its top bit the direction. Each comes back.
func FuzzConsoleChains(f *testing.F) {
	f.Add(byte(1), []byte{5, 6})
	f.Add(byte(1), []byte{5, 0x86})
	f.Add(byte(0), []byte{0x80, 0x81, 0x82})
	f.Add(byte(0), []byte{7, 0x81})
	f.Fuzz(func(t *testing.T, queue byte, cut []byte) {
		host, end := chardev.Pipe(1 << 16)
		r := newRig(t, NewConsole(end, nil), virtio.FeatureIndirect)
		input := bytes.Repeat([]byte("input"), 100)
		if _, err := host.Write(input); err != nil {
			t.Fatal(err)
		}
		var ds []virtiotest.Desc
		room := 0
		for _, dir := range []byte{0, 0x80} {
			for _, c := range cut[:min(len(cut), 8)] {
				if c&0x80 != dir {
					continue
				}
				desc := virtiotest.Desc{Addr: outAt, Len: uint32(c & 0x7f)}
				if dir != 0 {
					desc.Flags = virtiotest.Write
					room += int(c & 0x7f)
				}
				ds = append(ds, desc)
			}
		}
		if len(ds) == 0 {
			return
		}
		ring := r.Rings[queue&1]
		ring.Send(ds...)
		want := min(room, len(input))
		if queue&1 == 1 {
			want = 0
		}
		if _, n := ring.Wait(); int(n) > want || queue&1 == 0 && want > 0 && n == 0 {
			t.Errorf("length %d, with room for %d", n, room)
		}
		if r.Status() != 15 {
			t.Errorf("device status 0x%x", r.Status())
		}
	})
}
