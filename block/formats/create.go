package formats

import (
	"fmt"
	"os"
	"strings"

	"berth/block"
	"berth/block/raw"
)

// CreateFile makes the file at path, empty, or empties the one that is there,
// and gives it size bytes of zeros; the image's format is then created in it.
// Somebody else's lock on it is respected before anything is changed. A block
// device is only opened: it must be large enough. path may begin with "file:".
func CreateFile(path string, size int64) (block.File, error) {
	path = strings.TrimPrefix(path, "file:")
	if _, err := filePath(path); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode()&os.ModeDevice != 0 {
		return useDevice(path, size)
	}
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
		return nil, fmt.Errorf("'file' driver requires '%s' to be a regular file", path)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, &wordedError{fmt.Sprintf("Could not create '%s'", path), err}
	}
	f, err := raw.Use(file, raw.FileOptions{Lock: raw.Lock{Uses: raw.PermWrite | raw.PermResize, Denies: raw.PermResize}})
	if err != nil {
		return nil, lockError(path, err)
	}
	f.Advise(false, defaultExtentSize)
	if err = f.Truncate(0); err == nil && size > 0 {
		err = f.Truncate(size)
	}
	if err != nil {
		_ = f.Close() // the first error is the one to tell
		return nil, &wordedError{"Could not resize file", err}
	}
	return f, nil
}

func useDevice(path string, size int64) (block.File, error) {
	f, err := openPath(path, "host_device", raw.FileOptions{})
	if err != nil {
		return nil, err
	}
	if err := f.Relock(raw.Lock{Uses: raw.PermWrite | raw.PermResize, Denies: raw.PermResize}); err != nil {
		_ = f.Close() // nothing was written
		return nil, lockError(path, err)
	}
	if f.Size() < size {
		_ = f.Close() // nothing was written
		return nil, fmt.Errorf("Device is too small: %d bytes, %d are needed", f.Size(), size)
	}
	return f, nil
}
