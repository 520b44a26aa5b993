package qmp

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qemu"
	goqmp "github.com/digitalocean/go-qemu/qmp"
)

// TestGoQEMU has DigitalOcean's client, which knows QEMU alone, look after a VM.
func TestGoQEMU(t *testing.T) {
	needQEMU(t)
	p := startPeer(t, &session{images: []string{"create -q -f qcow2 a.qcow2 8M"}}, buildBerth(t), append(berthArgs(), "--disk", "file=a.qcow2,format=qcow2,id=d0"))
	p.reconnect(t)
	_ = p.conn.Close() // it listens
	p.conn = nil
	mon, err := goqmp.NewSocketMonitor("unix", filepath.Join(p.dir, "qmp"), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := mon.Connect(); err != nil {
		t.Fatal(err)
	}
	vm, err := qemu.NewDomain(mon, "vm")
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	events, done, err := vm.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { done <- struct{}{} }()
	if v, err := vm.Version(); err != nil || v != "7.2.0" {
		t.Errorf("version %q, %v", v, err)
	}
	if c, err := vm.Commands(); err != nil || !slices.Contains(c, "query-block") {
		t.Errorf("commands %q, %v", c, err)
	}
	if s, err := vm.Status(); err != nil || s != qemu.StatusPreLaunch {
		t.Errorf("status %v, %v", s, err)
	}
	disk, err := vm.BlockDevice("d0")
	if err != nil || disk.Inserted.Driver != "qcow2" || disk.Inserted.Image.VirtualSize != 8<<20 || disk.Inserted.Image.FormatSpecific.Data.Compat != "1.1" {
		t.Errorf("disk %+v, %v", disk, err)
	}
	if s, err := vm.BlockStats(); err != nil || len(s) != 1 || s[0].Device != "d0" || !s[0].AccountFailed {
		t.Errorf("statistics %+v, %v", s, err)
	}
	if j, err := vm.BlockJobs(); err != nil || len(j) != 0 {
		t.Errorf("jobs %+v, %v", j, err)
	}
	if d, err := vm.PCIDevices(); err != nil || len(d) == 0 {
		t.Errorf("PCI devices %+v, %v", d, err)
	}
	if err := vm.SystemReset(); err != nil {
		t.Error(err)
	}
	select {
	case e := <-events:
		if e.Event != "RESET" || e.Timestamp.Seconds == 0 {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("no event")
	}
}
