package qcow2

import (
	"errors"
	"fmt"
	"math/bits"

	"berth/block"
)

// createOptions lists what Create takes, in QEMU's order.
func createOptions() []block.Option {
	return append([]block.Option{
		{Name: "encryption", Type: block.OptBool, Help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
		{Name: "encrypt.format", Help: "Encrypt the image, format choices: 'aes', 'luks'"},
		{Name: "encrypt.key-secret", Help: "ID of secret providing qcow AES key or LUKS passphrase"},
		{Name: "encrypt.cipher-alg", Help: "Name of encryption cipher algorithm"},
		{Name: "encrypt.cipher-mode", Help: "Name of encryption cipher mode"},
		{Name: "encrypt.ivgen-alg", Help: "Name of IV generator algorithm"},
		{Name: "encrypt.ivgen-hash-alg", Help: "Name of IV generator hash algorithm"},
		{Name: "encrypt.hash-alg", Help: "Name of encryption hash algorithm"},
		{Name: "encrypt.iter-time", Type: block.OptNumber, Help: "Time to spend in PBKDF in milliseconds"},
		{Name: "cluster_size", Type: block.OptSize, Help: "qcow2 cluster size", Default: "65536"},
		{Name: "extended_l2", Type: block.OptBool, Help: "Extended L2 tables", Default: "off"},
		{Name: "preallocation", Help: "Preallocation mode (allowed values: off, metadata, falloc, full)"},
		{Name: "compression_type", Help: "Compression method used for image cluster compression", Default: "zlib"},
	}, commonOptions()...)
}

// commonOptions are those that amend takes too.
func commonOptions() []block.Option {
	return []block.Option{
		{Name: "size", Type: block.OptSize, Help: "Virtual disk size"},
		{Name: "compat", Help: "Compatibility level (v2 [0.10] or v3 [1.1])"},
		{Name: "backing_file", Help: "File name of a base image"},
		{Name: "backing_fmt", Help: "Image format of the base image"},
		{Name: "data_file", Help: "File name of an external data file"},
		{Name: "data_file_raw", Type: block.OptBool, Help: "The external data file must stay valid as a raw image"},
		{Name: "lazy_refcounts", Type: block.OptBool, Help: "Postpone refcount updates", Default: "off"},
		{Name: "refcount_bits", Type: block.OptNumber, Help: "Width of a reference count entry in bits", Default: "16"},
	}
}

// create makes an image in f: first an empty one, that is then given its size.
func create(f block.File, c block.Creation) error {
	h, prealloc, err := newHeader(c.Values)
	if err != nil {
		return err
	}
	quiet := unsynced{f}
	if err := writeEmpty(quiet, h); err != nil {
		return err
	}
	i, err := openImage(quiet, block.OpenOptions{})
	if err != nil {
		return err
	}
	if h.external() {
		i.data, i.owned = c.Data, true
		if c.Data == nil {
			return errors.New("'data-file' is required for this image")
		}
	}
	if err := i.fillIn(h, c.Values, prealloc); err != nil {
		return err
	}
	if c.Data != nil {
		if err := c.Data.Flush(); err != nil {
			return err
		}
	}
	return f.Flush()
}

// fillIn gives an empty image what v asks for, and leaves nothing of it in memory.
func (i *Image) fillIn(h *header, v block.Values, prealloc string) error {
	i.mu.Lock()
	i.hdr.dataFile = h.dataFile
	err := i.writeHeader(i.hdr)
	i.mu.Unlock()
	if err != nil {
		return fmt.Errorf("Could not update qcow2 header: %w", err)
	}
	size := (v.Int("size", 0) + 511) &^ 511
	if err := i.resize(size, prealloc); err != nil {
		return fmt.Errorf("Could not resize image: %w", err)
	}
	if name := v["backing_file"]; name != "" {
		if err := i.ChangeBackingFile(name, v["backing_fmt"]); err != nil {
			return fmt.Errorf("Could not assign backing file '%s' with format '%s': %w", name, orNull(v["backing_fmt"]), err)
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.inactivate()
}

func orNull(s string) string {
	if s == "" {
		return "(null)"
	}
	return s
}

// unsynced is a file that nobody depends on yet.
type unsynced struct{ block.File }

func (unsynced) Flush() error { return nil }

// Preallocate passes on what the file may be able to do.
func (u unsynced) Preallocate(off, n int64, full bool) error {
	if p, ok := u.File.(block.Preallocator); ok {
		return p.Preallocate(off, n, full)
	}
	return block.ErrUnsupported
}

// writeEmpty writes an image without contents: header, refcount table, refcount block.
func writeEmpty(f block.File, h *header) error {
	size := h.clusterSize()
	e := *h
	e.reftableOffset, e.reftableClus = uint64(size), 1
	b, err := e.encode()
	if err != nil {
		return fmt.Errorf("Could not write qcow2 header: %w", err)
	}
	if err := writeFull(f, b, 0); err != nil {
		return fmt.Errorf("Could not write qcow2 header: %w", err)
	}
	t := make([]byte, 2*size)
	be.PutUint64(t, uint64(2*size))
	a := allocator{order: uint(h.refcountOrder)}
	for n := range 3 {
		a.store(t[size:], n, 1)
	}
	if err := writeFull(f, t, size); err != nil {
		return fmt.Errorf("Could not write refcount table: %w", err)
	}
	return nil
}

// newHeader makes a header of an image of size 0 as v asks, and tells the preallocation mode.
func newHeader(v block.Values) (*header, string, error) {
	h := &header{version: 3, refcountOrder: 4}
	switch v["compat"] {
	case "0.10", "v2":
		h.version = 2
	case "", "1.1", "v3":
	default:
		return nil, "", fmt.Errorf("Parameter 'version' does not accept value '%s'", v["compat"])
	}
	if err := refuseEncryption(v); err != nil {
		return nil, "", err
	}
	prealloc := v["preallocation"]
	switch prealloc {
	case "":
		prealloc = "off"
	case "off", "metadata", "falloc", "full":
	default:
		return nil, "", fmt.Errorf("Parameter 'preallocation' does not accept value '%s'", prealloc)
	}
	switch v["compression_type"] {
	case "", "zlib":
	case "zstd":
		h.compression = compressZstd
		h.incompat |= incompatCompression
	default:
		return nil, "", fmt.Errorf("Parameter 'compression-type' does not accept value '%s'", v["compression_type"])
	}
	if v.On("extended_l2", false) {
		h.incompat |= incompatExtL2
	}
	if v.On("lazy_refcounts", false) {
		h.compat |= compatLazyRefcounts
	}
	if v.On("data_file_raw", false) {
		h.autoclear |= autoclearDataFileRaw
		if prealloc == "off" {
			prealloc = "metadata" // the tables have to say what the raw file is
		}
	}
	if v["data_file"] != "" {
		h.incompat |= incompatDataFile
		h.dataFile = v["data_file"]
	}
	return h, prealloc, h.validateNew(v)
}

func refuseEncryption(v block.Values) error {
	switch f := v["encrypt.format"]; {
	case f == "aes" || f == "qcow" || v.On("encryption", false):
		return errors.New("Encryption with AES is not supported")
	case f == "luks":
		return errors.New("Encryption with LUKS is not supported")
	case f != "":
		return fmt.Errorf("Parameter 'format' does not accept value '%s'", f)
	}
	for _, o := range createOptions() {
		if v[o.Name] != "" && len(o.Name) > 8 && o.Name[:8] == "encrypt." {
			return errors.New("Parameter 'encrypt.format' is missing")
		}
	}
	return nil
}

// validateNew checks the sizes in v and what goes together, in QEMU's order and words.
func (h *header) validateNew(v block.Values) error {
	later := func(what string) error {
		return fmt.Errorf("%s compatibility level 1.1 and above (use version=v3 or greater)", what)
	}
	if h.version < 3 && h.extL2() {
		return later("Extended L2 entries are only supported with")
	}
	size := v.Int("cluster_size", 65536)
	if size < 1<<minClusterBits || size > 1<<maxClusterBits || size&(size-1) != 0 {
		return fmt.Errorf("Cluster size must be a power of two between %d and %dk", 1<<minClusterBits, 1<<(maxClusterBits-10))
	}
	h.clusterBits = uint32(log2(size))
	backed := v["backing_file"] != ""
	width := v.Int("refcount_bits", 16)
	prealloc := v["preallocation"]
	raw := h.autoclear&autoclearDataFileRaw != 0
	switch {
	case h.extL2() && size < 32<<minClusterBits:
		return fmt.Errorf("Extended L2 entries are only supported with cluster sizes of at least %d bytes", 32<<minClusterBits)
	case backed && prealloc != "" && prealloc != "off" && !h.extL2():
		return errors.New("Backing file and preallocation can only be used at the same time if extended_l2 is on")
	case v["backing_fmt"] != "" && !backed:
		return errors.New("Backing format cannot be used without backing file")
	case h.version < 3 && h.lazy():
		return later("Lazy refcounts only supported with")
	case width < 1 || width > 64 || width&(width-1) != 0:
		return errors.New("Refcount width must be a power of two and may not exceed 64 bits")
	case h.version < 3 && width != 16:
		return errors.New("Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)")
	case raw && !h.external():
		return errors.New("data-file-raw requires data-file")
	case raw && backed:
		return errors.New("Backing file and data-file-raw cannot be used at the same time")
	case h.version < 3 && h.external():
		return later("External data files are only supported with")
	case h.version < 3 && h.compression != compressZlib:
		return later("Non-zlib compression type is only supported with")
	}
	h.refcountOrder = uint32(bits.TrailingZeros64(uint64(width)))
	return nil
}
