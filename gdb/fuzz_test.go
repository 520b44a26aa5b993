package gdb

import (
	"bytes"
	"net"
	"testing"
	"time"

	"berth/machine"
)

// replay is a connection that says what it was given, and reads whatever is said.
type replay struct {
	net.Conn // nil: what is not below is not called
	r        *bytes.Reader
}

func (c replay) Read(p []byte) (int, error)  { return c.r.Read(p) }
func (c replay) Write(p []byte) (int, error) { return len(p), nil }
func (c replay) Close() error                { return nil }
func (c replay) SetDeadline(time.Time) error { return nil }

// FuzzSession has a hostile debugger say anything to a VM. The session ends soon after
// what it says, and the VM can be used.
func FuzzSession(f *testing.F) {
	var all []byte
	for _, text := range []string{
		"qSupported:swbreak+", "?", "g", "p0", "P10=0000100000000000", "m100000,10", "M200000,1:00", "X200000,2:ab", "Z0,100006,1", "Z2,200000,4",
		"Z3,200000,100000", "vCont?", "vCont;s:1;c", "vCont;c", "s", "c100000", "z0,100006,1", "Hg2", "Hc-1", "qfThreadInfo", "qThreadExtraInfo,1",
		"qXfer:features:read:target.xml:0,ffff", "qRcmd,696e666f", "Qqemu.PhyMemMode:1", "G00", "S05;0", "QStartNoAckMode", "T1", "D",
	} {
		f.Add(frame([]byte(text)))
		all = append(all, frame([]byte(text))...)
	}
	f.Add(all)
	f.Add([]byte("\x03-+$}#00"))
	dir := f.TempDir()
	var stub *Stub
	end := func() error { return nil }
	f.Cleanup(func() {
		if err := end(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, said []byte) {
		if stub == nil || stub.vm.Do(func() error { return nil }) != nil { // what the debugger has done to it can end the guest
			var err error
			if err = end(); err == nil {
				stub, end, err = makeVM(dir)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		vm := stub.vm
		done := make(chan struct{})
		go func() {
			stub.Serve(replay{r: bytes.NewReader(said)})
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
		err := vm.Do(func() error {
			if err := vm.Reset(); err != nil {
				return err
			}
			return vm.Pause()
		})
		if err != nil && err != machine.ErrEnded {
			t.Error(err)
		}
	})
}
