// Package cloudinit makes the seed that tells cloud-init in a guest what to do: a NoCloud image.
package cloudinit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
	"go.yaml.in/yaml/v3"
)

// Label is the volume's label, by which cloud-init finds it.
const Label = "cidata"

// maxSeed bounds what goes into a seed: cloud-init reads it into memory.
const maxSeed = 16 << 20

// Seed is what a guest is told (cloud-init's documentation, "NoCloud").
type Seed struct {
	UserData, MetaData, NetworkConfig []byte // nil: there is none
}

// New makes a seed of what its user wrote. name becomes the guest's host name and
// keys, a line each as in authorized_keys, its default user's SSH keys, where
// meta-data does not say so itself. The guest takes a changed seed for a new
// instance. The error says in one line what is wrong with a file.
func New(name string, keys []string, s Seed) (Seed, error) {
	if len(s.UserData)+len(s.MetaData)+len(s.NetworkConfig) > maxSeed {
		return s, fmt.Errorf("more than %d MiB of data", maxSeed>>20)
	}
	if s.UserData == nil {
		s.UserData = []byte("#cloud-config\n{}\n")
	}
	if err := checkUserData(s.UserData); err != nil {
		return s, fmt.Errorf("user-data: %w", err)
	}
	if s.NetworkConfig != nil {
		if err := yaml.Unmarshal(s.NetworkConfig, new(any)); err != nil {
			return s, fmt.Errorf("network-config: %w", oneLine(err))
		}
	}
	meta := map[string]any{}
	if err := yaml.Unmarshal(s.MetaData, &meta); err != nil {
		return s, fmt.Errorf("meta-data: %w", oneLine(err))
	}
	set := func(key string, v any) {
		if _, ok := meta[key]; !ok {
			meta[key] = v
		}
	}
	set("local-hostname", name)
	if len(keys) > 0 {
		set("public-keys", keys)
	}
	if _, ok := meta["instance-id"]; !ok {
		said, err := yaml.Marshal(meta)
		if err != nil {
			return s, err
		}
		meta["instance-id"] = instance(name, said, s)
	}
	var err error
	s.MetaData, err = yaml.Marshal(meta)
	return s, err
}

// instance is an ID that changes with what the seed says.
func instance(name string, meta []byte, s Seed) string {
	h := sha256.New()
	for _, p := range [][]byte{meta, s.UserData, s.NetworkConfig} {
		fmt.Fprintf(h, "%d ", len(p))
		h.Write(p)
	}
	return fmt.Sprintf("%s-%x", name, h.Sum(nil)[:6])
}

// checkUserData refuses what cloud-init would take no notice of, or could not read.
func checkUserData(p []byte) error {
	first, _, _ := bytes.Cut(p, []byte("\n"))
	line := strings.TrimSpace(string(first))
	switch {
	case strings.HasPrefix(line, "#cloud-config"), strings.HasPrefix(line, "## template: jinja"):
		if strings.HasPrefix(line, "##") {
			return nil // no YAML before the guest has filled it in
		}
		var v any
		if err := yaml.Unmarshal(p, &v); err != nil {
			return oneLine(err)
		}
		if _, ok := v.(map[string]any); v != nil && !ok {
			return errors.New("a #cloud-config is a list of keys and values")
		}
		return nil
	case strings.HasPrefix(line, "#!"), strings.HasPrefix(line, "#include"), strings.HasPrefix(line, "#cloud-boothook"),
		strings.HasPrefix(line, "#part-handler"), strings.HasPrefix(line, "#cloud-config-archive"), bytes.HasPrefix(p, []byte{0x1f, 0x8b}),
		strings.HasPrefix(strings.ToLower(line), "content-type:"), strings.HasPrefix(strings.ToLower(line), "mime-version:"):
		return nil
	}
	return fmt.Errorf("its first line is %q: begin with #cloud-config, or #! for a script", line)
}

func oneLine(err error) error {
	return errors.New(strings.Join(strings.Fields(err.Error()), " "))
}

// Write makes the image at path, where nothing is yet.
func (s Seed) Write(path string) (err error) {
	const sector = 2048
	size := int64(1<<20 + len(s.UserData) + len(s.MetaData) + len(s.NetworkConfig))
	b, err := file.CreateFromPath(path, size&^(sector-1))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	work, err := os.MkdirTemp("", "berth-seed")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	fs, err := iso9660.Create(b, 0, 0, sector, work)
	if err != nil {
		return fmt.Errorf("making the seed: %w", err)
	}
	for name, data := range map[string][]byte{"user-data": s.UserData, "meta-data": s.MetaData, "network-config": s.NetworkConfig} {
		if data == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(work, name), data, 0o600); err != nil {
			return err
		}
	}
	if err := fs.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: Label}); err != nil {
		return fmt.Errorf("making the seed: %w", err)
	}
	return nil
}
