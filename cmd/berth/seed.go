package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"berth/cloudinit"
	"berth/spec"
)

// addSeed gives m a disk with what its user wrote for cloud-init. The disk has no
// name any more when it returns; remove closes it, which ends it.
func addSeed(m *spec.Machine) (remove func(), err error) {
	c := m.CloudInit
	if c == (spec.CloudInit{}) {
		return func() {}, nil
	}
	var in cloudinit.Seed
	for _, f := range []struct {
		path string
		to   *[]byte
	}{{c.UserData, &in.UserData}, {c.MetaData, &in.MetaData}, {c.NetworkConfig, &in.NetworkConfig}} {
		if f.path == "" {
			continue
		}
		if *f.to, err = os.ReadFile(f.path); err != nil {
			return nil, fmt.Errorf("cloud-init: %w", err)
		}
	}
	keys, err := readKeys(c.SSHKey)
	if err != nil {
		return nil, fmt.Errorf("cloud-init: %w", err)
	}
	seed, err := cloudinit.New(m.Name, keys, in)
	if err != nil {
		return nil, fmt.Errorf("cloud-init: %w", err)
	}
	f, err := nameless(seed)
	if err != nil {
		return nil, fmt.Errorf("cloud-init: %w", err)
	}
	m.Disks = append(m.Disks, spec.Disk{
		File: fmt.Sprintf("/proc/self/fd/%d", f.Fd()), Format: "raw", ReadOnly: true, Serial: cloudinit.Label, Queues: 1, Cache: "writeback", Discard: "ignore",
	})
	return func() { _ = f.Close() }, nil
}

// nameless writes a seed to a file that has no name.
func nameless(s cloudinit.Seed) (*os.File, error) {
	dir, err := os.MkdirTemp("", "berth-seed")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "seed")
	if err := s.Write(path); err != nil {
		return nil, err
	}
	return os.Open(path)
}

// readKeys returns the lines of a file of public keys.
func readKeys(path string) (keys []string, err error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(b) {
		k := strings.TrimSpace(string(line))
		switch {
		case k == "" || k[0] == '#':
			continue
		case strings.Contains(k, "PRIVATE KEY"):
			return nil, fmt.Errorf("%s is a private key: give the public one, %s.pub", path, path)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s has no keys", path)
	}
	return keys, nil
}
