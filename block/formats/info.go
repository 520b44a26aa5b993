package formats

import "berth/block"

// ImageInfo is what there is to say of one image: QEMU's ImageInfo.
type ImageInfo struct {
	block.Info
	Filename, Format                    string
	Size                                int64  // bytes, of the disk
	Allocated                           int64  // bytes, of the files; -1: not known
	Backing, FullBacking, BackingFormat string // "": none, not known, not stated
	Snapshots                           []block.Snapshot
}

// Describe says it of n's image.
func (n *Node) Describe() ImageInfo {
	d := ImageInfo{Filename: n.Filename, Format: n.Driver, Size: roundUp(n.Image.Size()), Allocated: allocatedSize(n)}
	if i, ok := n.Image.(block.Informer); ok {
		d.Info = i.Info()
	}
	if n.BackingFilename != "" {
		d.Backing, d.FullBacking, d.BackingFormat = n.BackingFilename, n.FullBackingFilename(), n.BackingFormat
	}
	if s, ok := n.Image.(block.Snapshotter); ok {
		d.Snapshots = s.Snapshots()
	}
	return d
}

// allocatedSize is what the image's files take of their file systems, in bytes; -1 if that is not known.
func allocatedSize(n *Node) int64 {
	if n.File == nil {
		return occupied(n)
	}
	if size := occupied(n); size >= 0 { // it knows of more files
		return size
	}
	sum := occupied(n.File)
	if n.Data != nil && n.Data != n.File && sum >= 0 {
		data := occupied(n.Data)
		if data < 0 {
			return -1
		}
		sum += data
	}
	return sum
}

func occupied(n *Node) int64 {
	if o, ok := n.Image.(block.Occupier); ok {
		if size, err := o.Occupied(); err == nil {
			return size
		}
	}
	return -1
}
