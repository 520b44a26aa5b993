package devices

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/machine"
	"berth/spec"
	"berth/virtio/balloon"
)

// resident is how many MiB of the host's memory this process has.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() / mib
}

// TestBalloon plugs a balloon in, inflates and deflates it, reads statistics, and
// has the guest report what it does not use any more: all of it is the host's again.
func TestBalloon(t *testing.T) {
	v := boot(t, "virtio_balloon")
	v.do(func() error {
		return v.m.PlugBalloon(machine.Place{ID: "balloon"}, spec.Balloon{FreePageReporting: true, DeflateOnOOM: true})
	})
	if err := v.m.Do(func() error { return v.m.PlugBalloon(machine.Place{}, spec.Balloon{}) }); err == nil || err.Error() != "Only one balloon device is supported" {
		t.Errorf("a second balloon: %v", err)
	}
	var b *balloon.Device
	v.do(func() error { b = v.m.Balloon(); return nil })
	until := func(what string, f func() bool) {
		t.Helper()
		for begun := time.Now(); !f(); time.Sleep(20 * time.Millisecond) {
			if time.Since(begun) > patience {
				t.Fatalf("waited in vain for %s: the guest has %d MiB\n%s", what, b.Actual()/mib, v.order("dmesg | tail -5; free"))
			}
		}
	}
	v.await("[ -e /sys/bus/virtio/drivers/virtio_balloon/virtio1 ]")

	// What the guest does not use any more goes back by itself.
	v.order("mkdir -p /fill; mount -t tmpfs -o size=160M none /fill; dd if=/dev/urandom of=/fill/x bs=1M count=120 2>/dev/null")
	full := resident(t)
	v.order("rm /fill/x")
	until("free pages", func() bool { return resident(t) < full-90 })
	t.Logf("%d MiB when the guest's memory was full, %d when it was not", full, resident(t))

	v.order("dd if=/dev/urandom of=/fill/x bs=1M count=100 2>/dev/null; sha256sum /fill/x >/tmp/sum")
	b.SetTarget(192 * mib)
	until("an inflated balloon", func() bool { return b.Actual() == 192*mib })
	b.SetInterval(50 * time.Millisecond)
	until("statistics", func() bool { s := b.Stats(); return !s.At.IsZero() && s.Values[balloon.FreeMemory] < 100*mib })
	if s := b.Stats(); s.Values[balloon.TotalMemory] > 256*mib || s.Values[balloon.MinorFaults] == balloon.Unknown {
		t.Errorf("statistics %+v", s)
	}
	b.SetTarget(256 * mib)
	until("an empty balloon", func() bool { return b.Actual() == 256*mib })
	v.order("sha256sum -c -s /tmp/sum") // nothing that was in use was taken

	// A guest whose balloon takes too much takes pages back instead of killing.
	b.SetTarget(128 * mib)
	until("pages taken back", func() bool { return b.Actual() < 240*mib })
	v.order("dd if=/dev/zero of=/fill/y bs=1M count=55 2>/dev/null; sha256sum -c -s /tmp/sum")
	b.SetTarget(256 * mib)
	until("an empty balloon", func() bool { return b.Actual() == 256*mib })
	v.order("rm /fill/x /fill/y; umount /fill")

	b.SetTarget(160 * mib)
	until("an inflated balloon", func() bool { return b.Actual() == 160*mib })
	v.unplug("balloon") // with pages in it, which are the guest's again
	v.do(func() error {
		if v.m.Balloon() != nil {
			t.Error("the balloon is there")
		}
		return nil
	})
	free, err := strconv.Atoi(v.order("awk '/^MemTotal/ { print $2 }' /proc/meminfo"))
	if err != nil || free < 200<<10 {
		t.Errorf("the guest has %d KiB without the balloon (%v)", free, err)
	}
}
