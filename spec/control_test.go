package spec

import "testing"

func TestGDB(t *testing.T) {
	for text, want := range map[string]Control{
		"on":                  {Protocol: "gdb", TCP: "127.0.0.1:1234", Server: true},
		":1234":               {Protocol: "gdb", TCP: "127.0.0.1:1234", Server: true},
		"tcp::99":             {Protocol: "gdb", TCP: "127.0.0.1:99", Server: true},
		"tcp:0.0.0.0:1":       {Protocol: "gdb", TCP: "0.0.0.0:1", Server: true},
		"tcp:[::1]:1":         {Protocol: "gdb", TCP: "[::1]:1", Server: true},
		"unix:/tmp/s":         {Protocol: "gdb", Socket: "/tmp/s", Server: true},
		"socket=s,server=off": {Protocol: "gdb", Socket: "s", Server: true},
	} {
		c, err := ParseGDB(text)
		if err != nil || c != want || c.check() != nil {
			t.Errorf("%s: %+v, %v, %v", text, c, err, c.check())
		}
	}
	for _, text := range []string{"", "1234", "tcp:1234", "unix:", "stdio", "unix:a,tcp=:1"} {
		c, err := ParseGDB(text)
		if err == nil && c.check() == nil {
			t.Errorf("%s: %+v", text, c)
		}
	}
}
