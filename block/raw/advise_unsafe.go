package raw

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// What linux/fs.h says of inode flags and of struct fsxattr.
const (
	fsNoCOW     = 0x00800000 // FS_NOCOW_FL
	fsGetXAttr  = 0x801c581f // FS_IOC_FSGETXATTR
	fsSetXAttr  = 0x401c5820 // FS_IOC_FSSETXATTR
	fsExtSize   = 0x00000800 // FS_XFLAG_EXTSIZE
	maxHint     = 1<<32 - 1
	wordsOfAttr = 7 // xflags, extsize, nextents, projid, cowextsize, pad
)

// Advise tells the file system how an empty file will be used: without copies
// on write (btrfs), and with that many bytes of storage given to it at once
// (XFS). It is advice; what does not know it ignores it.
func (f *File) Advise(noCOW bool, extentSize int64) {
	if noCOW {
		if flags, err := unix.IoctlGetInt(f.fd, unix.FS_IOC_GETFLAGS); err == nil {
			_ = unix.IoctlSetPointerInt(f.fd, unix.FS_IOC_SETFLAGS, flags|fsNoCOW) // advice
		}
	}
	if extentSize <= 0 || extentSize > maxHint {
		return
	}
	// unsafe: the kernel takes the structure by address, during the call.
	var attr [wordsOfAttr]uint32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), fsGetXAttr, uintptr(unsafe.Pointer(&attr))); errno != 0 {
		return
	}
	attr[0] |= fsExtSize
	attr[1] = uint32(extentSize)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), fsSetXAttr, uintptr(unsafe.Pointer(&attr)))
}
