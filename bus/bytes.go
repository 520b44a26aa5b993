package bus

// Bytes is the Handler of a device whose registers are bytes: a wider access
// becomes one access to each of its bytes, lowest first, as an ISA bridge splits it.
type Bytes struct {
	In  func(off uint64) byte
	Out func(off uint64, v byte)
}

// Read implements Handler.
func (b Bytes) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = b.In(off + uint64(i))
	}
}

// Write implements Handler.
func (b Bytes) Write(off uint64, p []byte) {
	for i, v := range p {
		b.Out(off+uint64(i), v)
	}
}
