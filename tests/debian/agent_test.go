package debian

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// agent talks to QEMU's guest agent in a VM, by the socket of its port.
type agent struct {
	conn net.Conn
	in   *bufio.Reader
}

// reach returns the agent once it answers.
func reach(path string, limit time.Duration) (*agent, error) {
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.Dial("unix", path)
		if err == nil {
			a := &agent{conn, bufio.NewReader(conn)}
			_ = conn.SetDeadline(end)
			if err = a.do("guest-ping", nil, nil); err == nil {
				return a, nil
			}
			_ = conn.Close()
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the guest agent at %s: %w", path, err)
		}
	}
}

// do runs a command of the agent's.
func (a *agent) do(command string, args, answer any) error {
	if err := json.NewEncoder(a.conn).Encode(map[string]any{"execute": command, "arguments": orEmpty(args)}); err != nil {
		return err
	}
	line, err := a.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	var r struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Desc string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, line)
	}
	if r.Error != nil {
		return fmt.Errorf("%s: %s", command, r.Error.Desc)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(r.Return, answer)
}

func orEmpty(args any) any {
	if args == nil {
		return map[string]any{}
	}
	return args
}

// run runs a shell command as root, by guest-exec, and returns what it says.
func (a *agent) run(command string, limit time.Duration) (string, error) {
	_ = a.conn.SetDeadline(time.Now().Add(limit))
	var started struct {
		PID int `json:"pid"`
	}
	err := a.do("guest-exec", map[string]any{"path": "/bin/sh", "arg": []string{"-c", command + " 2>&1"}, "capture-output": true}, &started)
	for err == nil {
		var s struct {
			Exited bool   `json:"exited"`
			Code   int    `json:"exitcode"`
			Out    string `json:"out-data"`
		}
		if err = a.do("guest-exec-status", map[string]any{"pid": started.PID}, &s); err != nil || !s.Exited {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		out, err := base64.StdEncoding.DecodeString(s.Out)
		if err == nil && s.Code != 0 {
			err = fmt.Errorf("%s: status %d: %s", command, s.Code, out)
		}
		return string(out), err
	}
	return "", err
}
