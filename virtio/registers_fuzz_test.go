package virtio_test

import (
	"encoding/binary"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

// FuzzRegisters plays a history of register accesses at every region of the
// transport, by the BAR and by the configuration window, with rings at work.
// Six bytes make a step: region and width, offset 1, value 4. Nothing may panic
// or hang, the state can be saved and loaded, and a reset mends everything.
func FuzzRegisters(f *testing.F) {
	step := func(region, width, off byte, v uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{region | width<<4, off}, v)
	}
	var seed []byte
	for _, s := range [][]byte{
		step(1, 0, 0x14, 0), step(1, 0, 0x14, 3), step(1, 2, 8, 1), step(1, 2, 12, 1), step(1, 0, 0x14, 11),
		step(1, 1, 0x18, 8), step(1, 2, 0x20, 0x1000), step(1, 2, 0x28, 0x2000), step(1, 2, 0x30, 0x3000),
		step(1, 1, 0x1c, 1), step(1, 0, 0x14, 15), step(5, 0, 0, 0x00010000), step(2, 1, 0, 0), step(3, 0, 0, 0),
		step(6, 0, 4, 4), step(6, 2, 8, 0x14), step(6, 2, 12, 1), step(6, 0, 16, 0), step(7, 0, 0, 0), step(4, 2, 0, 7),
	} {
		seed = append(seed, s...)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, history []byte) {
		if len(history) > 1200 {
			return
		}
		e := virtiotest.NewEcho()
		e.Queues = []uint16{256, 8}
		d := virtiotest.New(t, e, nil)
		for ; len(history) >= 6; history = history[6:] {
			v := binary.LittleEndian.Uint32(history[2:])
			registerStep(t, d, int(history[0]&7), 1<<(history[0]>>4&3), int(history[1]), v)
		}
		d.Dev.Pause()
		s := d.Dev.Save()
		if err := d.Dev.Load(s); err != nil {
			t.Fatal(err)
		}
		d.Dev.Resume()
		d.SetCommand(6)
		d.Healthy(d.Begin(virtio.FeatureEventIdx, 8))
	})
}

func registerStep(t *testing.T, d *virtiotest.Driver, region, n, off int, v uint32) {
	switch region {
	case 1, 2, 3, 4:
		d.Write(region, off, n, uint64(v)<<32|uint64(v))
		d.Read(region, off, n)
	case 5: // a word of memory, where the seed has its rings
		d.Put(0x1000+uint64(off)*64&0x3ffe, binary.LittleEndian.AppendUint32(nil, v))
	case 6:
		window := d.VirtioCap(5)
		d.WriteConfig(window+off&15+4, n, uint64(v))
		d.ReadConfig(window+16, 4)
	case 7:
		d.Dev.Pause()
		if v&1 != 0 {
			d.Dev.ConfigChanged()
		}
		d.Dev.Resume()
	}
}
