package interp

import (
	"encoding/hex"
	"runtime"
	"testing"
	"time"

	"berth/x86"

	"golang.org/x/sys/unix"
)

// The programs loop until a register that setUp fills runs out.
var programs = []struct {
	name, code string
	setUp      func(c *CPU)
}{
	// mov, lea, xor, and, add, imul, shr, mov, inc, mov, and, dec, jnz: half touch memory
	{"loop", "488b44de084c8d04804931d84181e0f80f00004a030407486bc04d48c1e803488904df48ffc34989c181e3ff01000048ffca75cc", func(c *CPU) {
		c.R[x86.RSI], c.R[x86.RDI], c.R[x86.RBX], c.R[x86.RDX] = testData, testData+0x10000, 0, 1<<16
	}},
	// a function with a frame, called in a loop
	{"call", "89cfe80b0000004801c34883e90175f0eb0e554889e5538d047f0fb6c05b5dc3", func(c *CPU) { c.R[x86.RCX] = 1 << 16 }},
	// a random number steers five conditional branches
	{"branchy", "89d8c1e00d31c389d8c1e81131c389d8c1e00531c3f6c30174044983c00180fb64720c4983e90180fbc877034901daf7c30010000075044983cb0183f9018d49ff75bd", func(c *CPU) {
		c.R[x86.RBX], c.R[x86.RCX] = 0x9e3779b9, 1<<16
	}},
	// two quadwords loaded and stored per turn
	{"copy", "488b06488b5608488907488957084883c6104883c7104c39c672e5", func(c *CPU) {
		c.R[x86.RSI], c.R[x86.RDI], c.R[x86.R8] = testData, testData+1<<20, testData+1<<20
	}},
}

// BenchmarkRun measures guest instructions per second of this thread's CPU time.
func BenchmarkRun(b *testing.B) {
	for _, p := range programs {
		b.Run(p.name, func(b *testing.B) {
			code, err := hex.DecodeString(p.code)
			if err != nil {
				b.Fatal(err)
			}
			c := newTestCPU(b, code)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			start := cpuTime(b)
			for b.Loop() {
				c.RIP = testCode
				p.setUp(c)
				runTest(b, c, false)
			}
			b.ReportMetric(float64(c.Instructions)/(cpuTime(b)-start).Seconds()/1e6, "MIPS")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
