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
	// the inner loop of a product of matrices, by SSE2
	{"matmul", "4889f031c9f20f1024cf660f14e4660f2828660f59ec660f58c5660f286810660f59ec660f58cd660f286820660f59ec660f58d5660f286830660f59ec660f58dd480500020000ffc183f94075b748ffca75ad", func(c *CPU) {
		c.CR4 |= x86.CR4OSFXSR
		c.R[x86.RSI], c.R[x86.RDI], c.R[x86.RDX] = testData, testData+1<<20, 1<<10
	}},
	// bytes counted
	{"histogram", "31c90fb6040e48ff04c448ffc14839d17cf0", func(c *CPU) {
		c.R[x86.RSI], c.R[x86.RSP], c.R[x86.RDX] = testData, testData+1<<20, 1<<18
	}},
	// fields of two structures
	{"fields", "488b0648034608488946108b5e1848895f084801074c8b46204c89471048ffca75de", func(c *CPU) {
		c.R[x86.RSI], c.R[x86.RDI], c.R[x86.RDX] = testData, testData+1<<20, 1<<17
	}},
	// a function that saves registers and has variables on its stack
	{"frame", "e80700000048ffca75f6eb2b554889e55341544883ec2048897dd8488955e0488b45d8480345e04889c3488b55e04883c420415c5b5dc3", func(c *CPU) {
		c.R[x86.RDI], c.R[x86.RDX] = 5, 1<<16
	}},
	// a list, each of whose places is in another page
	{"list", "488b36488b46084801c34885c074f148ffca75ec", func(c *CPU) {
		for i := range uint64(256) {
			at := testData + i*(pageSize+64)
			_ = c.cfg.Memory.Store64(at, testData+(i*37+1)%256*(pageSize+64))
			_ = c.cfg.Memory.Store64(at+8, 1)
		}
		c.R[x86.RSI], c.R[x86.RDX] = testData, 1<<16
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
