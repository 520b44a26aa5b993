package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMemoryFlag(t *testing.T) {
	m := Memory{Size: 1 << 30, File: "kept"}
	if err := m.Set("2048,hugepages=off,prefault,share=on,host-nodes=0,,2,policy=bind"); err != nil {
		t.Fatal(err)
	}
	want := Memory{Size: 2 << 30, HugePages: "off", Prefault: true, Share: true, File: "kept", HostNodes: Set{0, 2}, Policy: "bind"}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	if err := m.check(); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"prefault=off", "hugepages=1G,file=x"} { // without a size, which stays
		if err := m.Set(s); err != nil || m.Size != 2<<30 {
			t.Errorf("%s: %s, %v", s, m.Size, err)
		}
	}
}

func TestBadMemory(t *testing.T) {
	for in, want := range map[string]string{
		"1G,hugepages=4M":                   `hugepages: "4M" is not known: use off, on, 2M, 1G`,
		"1G,hugepage=2M":                    `unknown key "hugepage": did you mean "hugepages"?`,
		"3G,hugepages=2M,hugepages=1G":      "hugepages is given twice",
		"1025M,hugepages=2M":                "memory of 1025M is not a multiple of its huge pages of 2M",
		"1536M,hugepages=1G":                "memory of 1536M is not a multiple of its huge pages of 1G",
		"1G,prefault=maybe":                 `prefault: "maybe" is not on or off`,
		"1G,share=":                         `share: "" is not on or off`,
		"1G,file=x,hugepages=on":            "file and hugepages exclude each other",
		"1G,policy=bind":                    "policy=bind needs the host's nodes",
		"1G,policy=interlaeve":              `did you mean "interleave"?`,
		"1G,host-nodes=0":                   "host-nodes says nothing without a policy",
		"1G,host-nodes=0,policy=default":    "host-nodes says nothing without a policy",
		"1G,host-nodes=x,policy=bind":       `host-nodes: "x" is not a number or a range`,
		"1G,512M":                           `"512M" is not key=value: write file=512M`,
		"":                                  `size: size "" is not a number`,
		"file=a,size=1G,file=b":             "file is given twice",
		"1G,policy=preferred,host-nodes=9,": `"" is not key=value`,
	} {
		m := Memory{Size: 1 << 30}
		err := m.Set(in)
		if err == nil {
			err = m.check()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", in, err, want)
		}
	}
}

func TestSetAsText(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "3,1,2": "1-3", "0-3,6": "0-3,6", "5,5,4": "4-5", "1,3,5": "1,3,5"} {
		var s Set
		if err := s.UnmarshalText([]byte(in)); err != nil || s.String() != want {
			t.Errorf("%s: %s, %v", in, s, err)
		}
	}
}
