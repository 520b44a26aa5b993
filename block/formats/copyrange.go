package formats

import "berth/block"

var _ block.RangeCopier = (*rawImage)(nil)

// CopyRange copies from another image that is nothing but the disk's bytes, if
// the files of both can do that.
func (r *rawImage) CopyRange(from block.Image, fromOff, off, n int64) error {
	src, ok := from.(*rawImage)
	to, can := r.file.(block.RangeCopier)
	if !ok || !can || r.probed && off < ProbeSize {
		return block.ErrUnsupported
	}
	if err := r.check(off, n); err != nil {
		return err
	}
	if err := src.check(fromOff, n); err != nil {
		return err
	}
	return to.CopyRange(src.file, src.off+fromOff, r.off+off, n)
}
