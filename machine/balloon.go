package machine

import (
	"errors"

	"berth/spec"
	"berth/virtio/balloon"
)

// addBalloon makes the balloon, if there is to be one.
func (b *board) addBalloon(cfg Config) error {
	if !cfg.Spec.Balloon.On {
		return nil
	}
	dev, err := b.newBalloon(cfg, cfg.Spec.Balloon)
	if err != nil {
		return err
	}
	return b.add(cfg, Device{Device: dev, ID: cfg.Spec.Balloon.ID})
}

func (b *board) newBalloon(cfg Config, o spec.Balloon) (*balloon.Device, error) {
	if b.balloon != nil {
		return nil, errors.New("Only one balloon device is supported")
	}
	b.balloon = balloon.New(balloon.Config{
		Memory: b.mem, Size: uint64(cfg.Spec.Memory.Size), DeflateOnOOM: o.DeflateOnOOM, Reporting: o.FreePageReporting,
		Changed: func(actual uint64) { b.notify(Notice{Kind: NoticeBalloon, Guest: true, Size: actual}) },
	})
	return b.balloon, nil
}

// closeBalloon ends the balloon, so that there may be another.
func (b *board) closeBalloon() error {
	if b.balloon == nil {
		return nil
	}
	err := b.balloon.Close()
	b.balloon = nil
	return err
}

// Balloon returns the balloon, or nil. Call it within Do.
func (m *Machine) Balloon() *balloon.Device { return m.board.balloon }

// PlugBalloon plugs a balloon in. Call it within Do.
func (m *Machine) PlugBalloon(at Place, o spec.Balloon) error {
	if _, err := m.place(at); err != nil {
		return err
	}
	dev, err := m.board.newBalloon(m.cfg, o)
	if err != nil {
		return err
	}
	return m.Plug(at, dev, closeFunc(m.board.closeBalloon))
}

// closeFunc is an io.Closer.
type closeFunc func() error

func (f closeFunc) Close() error { return f() }
