package raw

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"berth/block"
)

// maxBlock bounds what a file system or device says of its blocks, in bytes.
const maxBlock = 64 << 10

// Topology returns that of the block device, or of the file system under the file.
func (f *File) Topology() block.Topology { return f.topology }

func (f *File) probe() (block.Topology, error) {
	if !f.device {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return block.Topology{}, err
		}
		n := blockSize(int64(st.Blksize), sectorSize) //nolint:unconvert // 32 bits on arm64
		return block.Topology{Logical: sectorSize, Physical: n, MinIO: n}, nil
	}
	logical, err := unix.IoctlGetInt(f.fd, unix.BLKSSZGET)
	if err != nil {
		return block.Topology{}, fmt.Errorf("block size: %w", err)
	}
	t := block.Topology{Logical: blockSize(int64(logical), sectorSize)}
	t.Physical, t.MinIO = t.Logical, t.Logical
	// The rest is advice, which not every device has.
	if n, err := unix.IoctlGetUint32(f.fd, unix.BLKPBSZGET); err == nil {
		t.Physical = blockSize(int64(n), t.Logical)
	}
	if n, err := unix.IoctlGetUint32(f.fd, unix.BLKIOMIN); err == nil && int(n)%t.Logical == 0 {
		t.MinIO = int(n)
	}
	if n, err := unix.IoctlGetUint32(f.fd, unix.BLKIOOPT); err == nil && int(n)%t.Logical == 0 {
		t.OptIO = int(n)
	}
	return t, nil
}

// blockSize returns n if it can be the size of a block, else least.
func blockSize(n int64, least int) int {
	if n < int64(least) || n > maxBlock || bits.OnesCount64(uint64(n)) != 1 {
		return least
	}
	return int(n)
}
