package gdb

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"berth/machine"
	"berth/x86"
)

func TestBreakpointsStepsAndWatchpoints(t *testing.T) {
	stub, vm := newVM(t)
	c := connect(t, stub)
	c.want("qSupported:swbreak+;hwbreak+;xmlRegisters=i386", "PacketSize=4000;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;hwbreak+")
	c.want("?", "T05thread:01;")
	c.at(loop)
	c.want("Z0,"+digits(load, 1), "OK")
	c.want("Z0,"+digits(load, 1), "OK")
	c.want("vCont;c", "T05thread:01;swbreak:;")
	c.at(load)
	if n := c.value(); n != 1 {
		t.Errorf("the counter is %d at the first stop", n)
	}
	c.want("z0,"+digits(load, 1), "OK")
	c.want("vCont;s:1", "T05thread:01;")
	c.at(turn)
	c.want("s", "T05thread:01;")
	c.at(loop)
	if s := status(t, vm); s != machine.Debug {
		t.Errorf("status %s after a step", s)
	}
	c.want("Z1,"+digits(load, 1), "OK")
	c.want("c", "T05thread:01;hwbreak:;")
	c.at(load)
	c.want("z1,"+digits(load, 1), "OK")
	for kind, want := range map[string]struct {
		reason string
		rip    uint64
	}{"2": {"watch", load}, "3": {"rwatch", turn}, "4": {"awatch", 0}} {
		at := "Z" + kind + "," + digits(counter+2, 1)
		c.want(at, "OK")
		c.want("vCont;c:-1", fmt.Sprintf("T05thread:01;%s:%x;", want.reason, counter+2))
		if want.rip != 0 {
			c.at(want.rip)
		}
		c.want("z"+at[1:], "OK")
	}
	c.want("Z0,"+digits(store, 1), "OK")
	c.want("C05;"+digits(store), "T05thread:01;swbreak:;") // from there, where it is at once
}

// A packet that comes while the VM runs halts it, as Ctrl-C does.
func TestInterrupt(t *testing.T) {
	stub, vm := newVM(t)
	c := connect(t, stub)
	for range 3 {
		c.send("vCont;c")
		if _, err := c.conn.Write([]byte{3}); err != nil {
			t.Fatal(err)
		}
		if got := c.answer(); got != "T02thread:01;" {
			t.Fatalf("Ctrl-C: %q", got)
		}
	}
	c.send("vCont;c")
	c.want("g", "T02thread:01;")
	if s := status(t, vm); s != machine.Paused {
		t.Errorf("status %s", s)
	}
	c.send("vCont;c")
	for status(t, vm) != machine.Running { // the packet is on its way
		time.Sleep(time.Millisecond)
	}
	if err := vm.Do(vm.Pause); err != nil { // as a monitor's stop does
		t.Fatal(err)
	}
	if got := c.answer(); got != "T02thread:01;" {
		t.Fatalf("a halt from elsewhere: %q", got)
	}
}

// vCPU 1 waits for its start: of the two only it is let run, and vCPU 0 stays where it is.
func TestThreads(t *testing.T) {
	stub, _ := newVM(t)
	c := connect(t, stub)
	c.want("qfThreadInfo", "m01,02")
	c.want("qsThreadInfo", "l")
	c.want("qThreadExtraInfo,2", hex.EncodeToString([]byte("CPU#1 [halted ]")))
	c.want("qC", "QC01")
	c.want("T2", "OK")
	c.want("T3", "E16")
	c.want("Hg2", "OK")
	c.want("Hg3", "E16")
	c.at(0xfff0)
	c.send("vCont;c:2")
	if _, err := c.conn.Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if got := c.answer(); got != "T02thread:02;" {
		t.Fatalf("%q", got)
	}
	c.want("Hg1", "OK")
	c.at(loop)
	c.want("Z0,"+digits(turn, 1), "OK")
	c.want("vCont;s:1;c", "T05thread:01;")
	c.at(store)
	c.want("vCont;c:1", "T05thread:01;")
}

func TestRegistersAndMemory(t *testing.T) {
	stub, _ := newVM(t)
	c := connect(t, stub)
	size := 0
	for _, r := range registers() {
		size += r.size
	}
	all := c.ask("g")
	if len(all) != 2*size {
		t.Fatalf("g answers %d bytes, want %d", len(all)/2, size)
	}
	c.want("P0=0807060504030201", "OK")
	if v := c.register("rax"); v != 0x0102030405060708 {
		t.Errorf("RAX is 0x%x", v)
	}
	c.want("G"+all, "OK")
	c.want("g", all)
	c.want("P0=08", "E16")
	c.want("pffff", "E16")
	if v := c.register("cr0"); v&x86.CR0PE == 0 {
		t.Errorf("CR0 is 0x%x", v)
	}
	c.want("m"+digits(loop, 4), hex.EncodeToString(program[:4]))
	c.want("Z0,"+digits(store, 1), "OK")
	c.want("m"+digits(loop, 4), hex.EncodeToString(program[:4]))
	c.want("M"+digits(counter, 4)+":01020304", "OK")
	c.want("X"+digits(counter+4, 4)+":#$}*", "OK")
	c.want("X"+digits(counter, 0)+":", "OK")
	c.want("m"+digits(counter, 8), "0102030423247d2a")
	c.want("M"+digits(counter, 4)+":0102", "E16")
	c.want("mfe000000,4", "E0e")
	c.want("m"+digits(16<<20-2, 8), "0000") // what there is
	c.want("Mfe000000,1:00", "E0e")
	c.want("Qqemu.PhyMemMode:1", "OK")
	c.want("qqemu.PhyMemMode", "1")
	c.want("m"+digits(loop, 4), hex.EncodeToString(program[:4]))
	c.want("qqemu.sstepbits", "ENABLE=1,NOIRQ=2")
	c.want("vMustReplyEmpty", "")
	c.want("qCRC:100000,4", "")
}

func TestDescription(t *testing.T) {
	stub, _ := newVM(t)
	c := connect(t, stub)
	var text strings.Builder
	for {
		part := c.ask(fmt.Sprintf("qXfer:features:read:target.xml:%x,7f", text.Len()))
		text.WriteString(part[1:])
		if part[0] == 'l' {
			break
		}
	}
	if text.String() != description() {
		t.Error("the description in parts is another")
	}
	c.want("qXfer:features:read:other.xml:0,7f", "E00")
}

func TestMonitorCommands(t *testing.T) {
	stub, _ := newVM(t)
	c := connect(t, stub)
	c.want("qRcmd,"+hex.EncodeToString([]byte("info status")), "O"+hex.EncodeToString([]byte("said: info status\n")))
	if got := c.answer(); got != "OK" {
		t.Errorf("%q after what a command printed", got)
	}
	c.want("qRcmd,zz", "E16")
}

// Who detaches, or goes without a word, leaves no breakpoint.
func TestDetach(t *testing.T) {
	stub, vm := newVM(t)
	c := connect(t, stub)
	c.want("Z0,"+digits(load, 1), "OK")
	other, there := net.Pipe()
	stub.Serve(there)
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Error("a second debugger is served")
	}
	c.want("D", "OK")
	if s := status(t, vm); s != machine.Running {
		t.Errorf("status %s after a detach", s)
	}
	stub.serving.Wait()
	c = connect(t, stub)
	c.want("?", "T05thread:01;")
	c.want("Z0,"+digits(load, 1), "OK")
	c.want("vCont;c", "T05thread:01;")
	_ = c.conn.Close()
	stub.serving.Wait()
	if s := status(t, vm); s != machine.Debug {
		t.Errorf("status %s after a connection was lost", s)
	}
	if err := vm.Do(vm.Continue); err != nil {
		t.Fatal(err)
	}
	c = connect(t, stub) // nothing has stopped it
	c.want("vKill;1", "OK")
	<-vm.Ended()
}

// A debugger that waits for a stop is told of the VM's end.
func TestTheVMsEnd(t *testing.T) {
	stub, vm := newVM(t)
	c := connect(t, stub)
	c.send("vCont;c")
	vm.Stop()
	if got := c.answer(); got != "W00" {
		t.Errorf("%q", got)
	}
}

func TestDamagedAndLongPackets(t *testing.T) {
	stub, _ := newVM(t)
	here, there := net.Pipe()
	go stub.Serve(there)
	r := bufio.NewReader(here)
	for _, x := range []struct{ in, out string }{
		{"$qC#00", "-"},
		{"$qC#b4", "+$QC01#f5"},
		{"-", "$QC01#f5"},
		{"junk+$#00", "+$#00"},
		{string(frame([]byte("m" + strings.Repeat("0", maxPacket)))), "+$E16#ac"},
	} {
		go func() { _, _ = here.Write([]byte(x.in)) }()
		got := make([]byte, len(x.out))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != x.out {
			t.Fatalf("%.20q: %q, %v, want %q", x.in, got, err, x.out)
		}
	}
	_ = here.Close()
}

// On an engine that plants, nobody sees INT3s but the vCPUs.
func TestPlantedBreakpoints(t *testing.T) {
	_, vm := newVM(t)
	p := newPoints(vm)
	holds := func(hidden bool) string {
		t.Helper()
		var b [4]byte
		read := vm.Memory().Read
		if hidden {
			read = p.read
		}
		if err := read(loop, b[:]); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(b[:])
	}
	want := func(seen, there string) {
		t.Helper()
		if s, m := holds(true), holds(false); s != seen || m != there {
			t.Fatalf("%s is seen and %s is there, want %s and %s", s, m, seen, there)
		}
	}
	if err := vm.Do(func() error {
		if p.plant(0, 0xfe000000) {
			t.Error("a breakpoint outside memory")
		}
		if !p.plant(0, loop+1) || !p.plant(0, loop+3) {
			t.Error("no breakpoint can be planted")
		}
		want("40a30000", "40cc00cc")
		if err := p.write(loop, []byte{1, 2, 3, 4}); err != nil {
			return err
		}
		want("01020304", "01cc03cc")
		p.uproot(loop + 1)
		want("01020304", "010203cc")
		if err := vm.Memory().Write(loop+3, []byte{9}); err != nil { // by the guest
			return err
		}
		want("01020309", "01020309")
		p.clear()
		want("01020309", "01020309")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
