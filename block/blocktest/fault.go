package blocktest

import "berth/block"

// FaultyFile passes calls on to its File, save those that Fail gives an error: they change nothing.
type FaultyFile struct {
	block.File
	// Fail decides before the call reaches the file. Set before use; called concurrently.
	Fail func(e Event) error
}

// Writev fails or is passed on.
func (f *FaultyFile) Writev(iov [][]byte, off int64, fl block.Flags) error {
	var n int64
	for _, p := range iov {
		n += int64(len(p))
	}
	if err := f.Fail(Event{Act: ActWrite, Off: off, Len: n, FUA: fl&block.FlagFUA != 0}); err != nil {
		return err
	}
	return f.File.Writev(iov, off, fl)
}

// WriteZeroes fails or is passed on.
func (f *FaultyFile) WriteZeroes(off, n int64, fl block.Flags) error {
	if err := f.Fail(Event{Act: ActZero, Off: off, Len: n, FUA: fl&block.FlagFUA != 0}); err != nil {
		return err
	}
	return f.File.WriteZeroes(off, n, fl)
}

// Discard fails or is passed on.
func (f *FaultyFile) Discard(off, n int64) error {
	if err := f.Fail(Event{Act: ActDiscard, Off: off, Len: n}); err != nil {
		return err
	}
	return f.File.Discard(off, n)
}

// Truncate fails or is passed on.
func (f *FaultyFile) Truncate(size int64) error {
	if err := f.Fail(Event{Act: ActTruncate, Off: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// Flush fails or is passed on.
func (f *FaultyFile) Flush() error {
	if err := f.Fail(Event{Act: ActFlush}); err != nil {
		return err
	}
	return f.File.Flush()
}
