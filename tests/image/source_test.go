package image

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
)

const (
	sourceCount = 12
	sourceSize  = 48<<10 + 512 // no power of two: a cluster in the wrong place is seen
)

// sources are what is written: the first half compress well, the others do not. A write
// repeats its source as often as it must.
var sources = sync.OnceValue(func() [][]byte {
	r := rand.New(rand.NewPCG(4, 7))
	s := make([][]byte, sourceCount)
	for i := range s {
		p := make([]byte, 0, sourceSize)
		for len(p) < sourceSize {
			if i < sourceCount/2 {
				p = fmt.Appendf(p, "source %d at %d: %d;", i, len(p), r.IntN(100))
			} else {
				p = append(p, byte(r.Uint32()))
			}
		}
		s[i] = p[:sourceSize]
	}
	return s
})

func contents(src int, n int64) []byte {
	if src < 0 {
		return bytes.Repeat([]byte{byte(-src)}, int(n))
	}
	s := sources()[src]
	return bytes.Repeat(s, int(n)/len(s)+1)[:n]
}

func sourcePath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("source%d", i)) }

func writeSources(dir string) error {
	for i, s := range sources() {
		if err := os.WriteFile(sourcePath(dir, i), s, 0o600); err != nil {
			return err
		}
	}
	return nil
}
