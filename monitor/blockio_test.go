package monitor

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"testing"
	"time"

	"berth/block"
	"berth/block/backend"
	"berth/block/blocktest"
	"berth/block/throttle"
	"berth/machine"
)

// TestIOErrorEvents: the first error of a disk is told at once, of those that follow
// within a second the last; another disk's are its own.
func TestIOErrorEvents(t *testing.T) {
	m, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	go m.Serve(there)
	defer m.Close()
	defer here.Close()
	in := json.NewDecoder(here)
	hear := func() (v map[string]any) {
		t.Helper()
		_ = here.SetReadDeadline(time.Now().Add(20 * time.Second)) // a pipe has them
		if err := in.Decode(&v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	hear() // the greeting
	fmt.Fprint(here, `{"execute": "qmp_capabilities"}`)
	hear()
	drive := func(name string) *machine.Drive {
		b := backend.New(backend.Root{Node: "node-" + name, Disk: blocktest.NewMem(512)}, backend.Options{})
		t.Cleanup(func() { _ = b.Close() })
		return &machine.Drive{Backend: b, Name: name}
	}
	a, b := drive("a"), drive("b")
	tell := func(d *machine.Drive, op block.Op, err error) {
		m.Notice(machine.Notice{Kind: machine.NoticeDriveError, Guest: true, Drive: machine.DriveError{Drive: d, Op: op, Err: err}})
	}
	tell(a, block.OpWrite, fmt.Errorf("writing at 0: %w", syscall.ENOSPC))
	tell(a, block.OpRead, syscall.EIO)
	tell(a, block.OpFlush, syscall.EIO)
	tell(b, block.OpRead, syscall.EIO)
	for _, want := range []string{
		`{"action":"report","device":"a","node-name":"node-a","nospace":true,"operation":"write","reason":"No space left on device"}`,
		`{"action":"report","device":"b","node-name":"node-b","nospace":false,"operation":"read","reason":"Input/output error"}`,
		`{"action":"report","device":"a","node-name":"node-a","nospace":false,"operation":"write","reason":"Input/output error"}`,
	} {
		v := hear()
		if got, _ := json.Marshal(v["data"]); v["event"] != "BLOCK_IO_ERROR" || string(got) != want {
			t.Errorf("event %v %s, want %s", v["event"], got, want)
		}
	}
}

// TestThrottlingIsWrittenAsItIsRead: limits as QEMU writes them, and back.
func TestThrottlingIsWrittenAsItIsRead(t *testing.T) {
	l := throttle.Limits{
		Bytes:         throttle.Pair{Total: throttle.Limit{Rate: 1 << 20, Burst: 2 << 20, BurstFor: 7}},
		Operations:    throttle.Pair{Read: throttle.Limit{Rate: 100}, Write: throttle.Limit{Rate: 200, Burst: 300, BurstFor: 1}},
		OperationSize: 4096,
	}
	written := throttlingOf(l)
	got, err := written.limits()
	if err != nil || got != l {
		t.Errorf("%+v, %v", got, err)
	}
	if written.Bytes != 1<<20 || *written.BytesMaxLength != 7 || written.OpsReadMax != nil || *written.OpsWriteMax != 300 {
		t.Errorf("%+v", written)
	}
}
