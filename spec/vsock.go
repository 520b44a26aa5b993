package spec

import "errors"

// Limits of a guest's context ID (virtio 1.2 §5.10.4).
const (
	minCID = 3
	maxCID = 0xfffffffe
)

// VSock is the socket device; the zero VSock is none.
type VSock struct {
	// CID is the guest's context ID.
	CID int `json:"cid,omitempty"`
	// Socket is the Unix socket that leads to the guest's ports; Socket_N is where its
	// connections to the host's port N go.
	Socket string `json:"socket,omitempty" path:"yes"`
}

// Set reads the value of --vsock.
func (v *VSock) Set(s string) error {
	*v = VSock{}
	return setKeys(s, v)
}

func (m *Machine) checkVSock() error {
	switch v := m.VSock; {
	case v == VSock{}:
	case v.CID < minCID || v.CID > maxCID:
		return errors.New("vsock: give the guest a context ID: cid=N, from 3 on")
	case v.Socket == "":
		return errors.New("vsock: give socket=PATH, which leads to the guest's ports")
	}
	return nil
}
