package monitor

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"

	"berth/machine"
	"berth/qmp"
	"berth/spec"
)

// chardevInfo is QEMU's ChardevInfo.
type chardevInfo struct {
	Label    string `json:"label"`
	Filename string `json:"filename"`
	Open     bool   `json:"frontend-open"`
}

// chardevBackend is QEMU's ChardevBackend, of the kinds that there are.
type chardevBackend struct {
	Type   chardevKind              `json:"type" qmp:"tag"`
	File   *wrapped[chardevFile]    `json:"-" qmp:"case=file"`
	Pipe   *wrapped[chardevHostdev] `json:"-" qmp:"case=pipe"`
	Socket *wrapped[chardevSocket]  `json:"-" qmp:"case=socket"`
	PTY    *wrapped[qmp.None]       `json:"-" qmp:"case=pty"`
	Null   *wrapped[qmp.None]       `json:"-" qmp:"case=null"`
	Ring   *wrapped[chardevRing]    `json:"-" qmp:"case=ringbuf"`
}

type chardevKind string

// Values implements qmp.Enum.
func (chardevKind) Values() []string {
	return []string{"file", "pipe", "socket", "pty", "null", "ringbuf"}
}

// wrapped is how QEMU's older unions carry their cases.
type wrapped[T any] struct {
	Data T `json:"data"`
}

type chardevFile struct {
	Out    string `json:"out"`
	Append *bool  `json:"append"`
}

type chardevHostdev struct {
	Device string `json:"device"`
}

type chardevRing struct {
	Size *int64 `json:"size"`
}

// chardevSocket is the part of QEMU's ChardevSocket that there is. Nobody is waited for.
type chardevSocket struct {
	Addr    socketAddress `json:"addr"`
	Server  *bool         `json:"server"`
	Wait    *bool         `json:"wait"`
	NoDelay *bool         `json:"nodelay"`
}

// socketAddress is QEMU's SocketAddressLegacy.
type socketAddress struct {
	Type addressKind           `json:"type" qmp:"tag"`
	Inet *wrapped[inetAddress] `json:"-" qmp:"case=inet"`
	Unix *wrapped[unixAddress] `json:"-" qmp:"case=unix"`
}

type addressKind string

// Values implements qmp.Enum.
func (addressKind) Values() []string { return []string{"inet", "unix"} }

type inetAddress struct {
	Host string `json:"host"`
	Port string `json:"port"`
}

type unixAddress struct {
	Path string `json:"path"`
}

type dataFormat string

// Values implements qmp.Enum.
func (dataFormat) Values() []string { return []string{"utf8", "base64"} }

type chardevAdd struct {
	ID      string         `json:"id"`
	Backend chardevBackend `json:"backend"`
}

type chardevAdded struct {
	PTY string `json:"pty,omitempty"`
}

type chardevID struct {
	ID string `json:"id"`
}

type ringRead struct {
	Device string      `json:"device"`
	Size   int64       `json:"size"`
	Format *dataFormat `json:"format"`
}

type ringWrite struct {
	Device string      `json:"device"`
	Data   string      `json:"data"`
	Format *dataFormat `json:"format"`
}

type backendInfo struct {
	Name string `json:"name"`
}

// portChange is the data of VSERPORT_CHANGE.
type portChange struct {
	ID   string `json:"id"`
	Open bool   `json:"open"`
}

// chardevCommands are those about the hosts' ends of byte devices.
func (m *Monitor) chardevCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("query-chardev", "The hosts' ends of byte devices.", func(*qmp.Call, *qmp.None) (list []chardevInfo, err error) {
			for _, c := range m.vm.Chardevs() {
				list = append(list, chardevInfo{c.ID, c.Filename, c.Open})
			}
			return list, nil
		}),
		qmp.Define("query-chardev-backends", "The kinds that chardev-add takes.", func(*qmp.Call, *qmp.None) (list []backendInfo, err error) {
			for _, k := range chardevKind("").Values() {
				list = append(list, backendInfo{k})
			}
			return list, nil
		}),
		qmp.Define("chardev-add", "Makes a host's end that no device has yet. A socket that listens does not wait for anybody.", m.addChardev),
		qmp.Define("chardev-remove", "Closes a host's end that no device has.", func(_ *qmp.Call, a *chardevID) (qmp.None, error) {
			return qmp.None{}, chardevError(a.ID, m.vm.RemoveChardev(a.ID))
		}),
		qmp.Define("ringbuf-read", "Takes the oldest bytes out of a ringbuf.", m.readRing),
		qmp.Define("ringbuf-write", "Puts bytes into a ringbuf.", m.writeRing),
	}
}

func (m *Monitor) addChardev(_ *qmp.Call, a *chardevAdd) (chardevAdded, error) {
	c := a.Backend.char()
	c.ID = a.ID
	for _, other := range m.vm.Chardevs() {
		if other.ID == c.ID {
			return chardevAdded{}, fmt.Errorf("Chardev with id '%s' already exists", c.ID)
		}
	}
	err := c.Check()
	var pty string
	if err == nil {
		pty, err = m.vm.AddChardev(c)
	}
	if err != nil {
		return chardevAdded{}, fmt.Errorf("Failed to add chardev '%s': %w", a.ID, err)
	}
	return chardevAdded{pty}, nil
}

// char is the backend as a spec has it.
func (b *chardevBackend) char() spec.Char {
	switch b.Type {
	case "file":
		f := b.File.Data
		return spec.Char{File: f.Out, Append: f.Append != nil && *f.Append}
	case "pipe":
		return spec.Char{Pipe: b.Pipe.Data.Device}
	case "socket":
		s := b.Socket.Data
		c := spec.Char{Server: s.Server == nil || *s.Server}
		if s.Addr.Type == "unix" {
			c.Socket = s.Addr.Unix.Data.Path
		} else {
			c.TCP = net.JoinHostPort(s.Addr.Inet.Data.Host, s.Addr.Inet.Data.Port)
		}
		return c
	case "ringbuf":
		c := spec.Char{To: "ringbuf", Size: spec.DefaultRing}
		if size := b.Ring.Data.Size; size != nil {
			c.Size = *size
		}
		return c
	}
	return spec.Char{To: string(b.Type)}
}

// chardevError is err in QEMU's words.
func chardevError(id string, err error) error {
	switch {
	case errors.Is(err, machine.ErrNoChardev):
		return fmt.Errorf("Chardev '%s' not found", id)
	case errors.Is(err, machine.ErrChardevBusy):
		return fmt.Errorf("Chardev '%s' is busy", id)
	}
	return err
}

func (m *Monitor) readRing(_ *qmp.Call, a *ringRead) (string, error) {
	r, err := m.vm.Ring(a.Device)
	switch {
	case errors.Is(err, machine.ErrNoChardev):
		return "", fmt.Errorf("Device '%s' not found", a.Device)
	case err != nil:
		return "", fmt.Errorf("%s is not a ringbuf device", a.Device)
	case a.Size <= 0:
		return "", errors.New("size must be greater than zero")
	}
	b := r.Take(int(min(a.Size, spec.MaxRing)))
	if a.Format != nil && *a.Format == "base64" {
		return base64.StdEncoding.EncodeToString(b), nil
	}
	return strings.ToValidUTF8(string(b), "\uFFFD"), nil
}

func (m *Monitor) writeRing(_ *qmp.Call, a *ringWrite) (none qmp.None, err error) {
	r, err := m.vm.Ring(a.Device)
	switch {
	case errors.Is(err, machine.ErrNoChardev):
		return none, fmt.Errorf("Device '%s' not found", a.Device)
	case err != nil:
		return none, fmt.Errorf("%s is not a ringbuf device", a.Device)
	}
	b := []byte(a.Data)
	if a.Format != nil && *a.Format == "base64" {
		if b, err = base64.StdEncoding.DecodeString(a.Data); err != nil {
			return none, errors.New("Base64 data contains invalid characters")
		}
	}
	_, err = r.Write(b)
	return none, err
}
