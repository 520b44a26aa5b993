package spec

import (
	"strings"
	"testing"
)

func TestVSockAndBalloon(t *testing.T) {
	for want, change := range map[string]func(*Machine) error{
		"":                  func(m *Machine) error { return m.VSock.Set("cid=3,socket=v") },
		"a context ID":      func(m *Machine) error { return m.VSock.Set("socket=v") },
		"context ID: cid=N": func(m *Machine) error { return m.VSock.Set("cid=2,socket=v") },
		"give socket=PATH":  func(m *Machine) error { return m.VSock.Set("cid=3") },
		"is not a number":   func(m *Machine) error { return m.VSock.Set("cid=x") },
		"up to 31 letters":  func(m *Machine) error { return m.Balloon.Set("on,id=1") },
	} {
		m := Default()
		m.Boot.Kernel = "k"
		err := change(&m)
		if err == nil {
			if err = m.Complete(); err == nil {
				err = m.Validate()
			}
		}
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
