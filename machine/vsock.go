package machine

import (
	"errors"
	"fmt"

	"berth/chardev"
	"berth/virtio/vsock"
)

// addVSock makes the socket device, if there is to be one.
func (b *board) addVSock(cfg Config) error {
	v := cfg.Spec.VSock
	if v.Socket == "" {
		return nil
	}
	l, err := chardev.ListenPrivate(v.Socket)
	if err != nil {
		return fmt.Errorf("vsock: %w", err)
	}
	front := vsock.NewUnix(v.Socket, l)
	dev, err := vsock.New(uint32(v.CID), front)
	if err == nil {
		err = b.add(cfg, Device{Device: dev})
	}
	if err != nil {
		return errors.Join(err, front.Close())
	}
	b.vsock = front
	go front.Serve(dev)
	return nil
}

func (b *board) closeVSock() error {
	if b.vsock == nil {
		return nil
	}
	return b.vsock.Close()
}
