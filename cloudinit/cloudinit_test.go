package cloudinit

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestMetaData(t *testing.T) {
	s, err := New("web", []string{"ssh-ed25519 AAAA me"}, Seed{})
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		Instance string   `yaml:"instance-id"`
		Host     string   `yaml:"local-hostname"`
		Keys     []string `yaml:"public-keys"`
	}
	if err := yaml.Unmarshal(s.MetaData, &meta); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(meta.Instance, "web-") || meta.Host != "web" || len(meta.Keys) != 1 || meta.Keys[0] != "ssh-ed25519 AAAA me" {
		t.Errorf("%s", s.MetaData)
	}
	again, _ := New("web", []string{"ssh-ed25519 AAAA me"}, Seed{})
	other, _ := New("web", nil, Seed{UserData: []byte("#!/bin/sh\n")})
	if string(again.MetaData) != string(s.MetaData) || strings.Contains(string(other.MetaData), meta.Instance) {
		t.Errorf("instances: %s, again %s, other %s", s.MetaData, again.MetaData, other.MetaData)
	}
	own, err := New("web", nil, Seed{MetaData: []byte("instance-id: i-1\nlocal-hostname: mine\n")})
	if err != nil || !strings.Contains(string(own.MetaData), "i-1") || !strings.Contains(string(own.MetaData), "mine") {
		t.Errorf("%s, %v", own.MetaData, err)
	}
}

func TestBadSeeds(t *testing.T) {
	for want, s := range map[string]Seed{
		`first line is "users:"`:            {UserData: []byte("users:\n- a\n")},
		"user-data: yaml: line":             {UserData: []byte("#cloud-config\na: [\n")},
		"a #cloud-config is a list of keys": {UserData: []byte("#cloud-config\n- a\n")},
		"meta-data: yaml":                   {MetaData: []byte("{")},
		"network-config: yaml":              {NetworkConfig: []byte("a:\n\tb")},
		"more than 16 MiB":                  {UserData: make([]byte, maxSeed+1)},
	} {
		if _, err := New("web", nil, s); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Other programs find what is in the image: isoinfo reads Rock Ridge's names, blkid the label.
func TestOthersReadTheImage(t *testing.T) {
	s, err := New("web", nil, Seed{UserData: []byte("#cloud-config\nhostname: x\n"), NetworkConfig: []byte("version: 2\n")})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "seed.iso")
	if err := s.Write(path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("blkid", "-p", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `LABEL="cidata"`) || !strings.Contains(string(out), `TYPE="iso9660"`) {
		t.Errorf("blkid: %s, %v", out, err)
	}
}
