package netdevtest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"berth/netdev"
)

// Far is the other end of a port's cable. Its frames have no headers.
type Far interface {
	// Send has the port receive a frame.
	Send(frame []byte) error
	// Receive waits for a frame that the port has sent, but not for ever.
	Receive(p []byte) (int, error)
}

// Open makes a port and its other end, which its cleanup closes.
type Open func(testing.TB) (netdev.Port, Far)

// etherType is that of the suite's frames (IEEE 802's for experiments): other frames are
// somebody else's, such as the host's own on its interface.
const etherType = 0x88b5

// Conformance is what a device may expect of every port.
func Conformance(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"frames of all sizes both ways", bothWays},
		{"a frame in pieces", inPieces},
		{"what is no frame", noFrame},
		{"several send and one receives", atOnce},
		{"a peer that takes nothing holds nobody", floodUnread},
		{"close ends receive and send", closing},
		{"offloads begin with none", beginPlain},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

var (
	near = [6]byte{2, 0, 0, 0, 0, 1}
	away = [6]byte{2, 0, 0, 0, 0, 2}
)

// numbered is a frame of n bytes that says its number.
func numbered(to, from [6]byte, i uint32, n int) []byte {
	f := Frame(to, from, max(n, 18))
	binary.BigEndian.PutUint32(f[14:], i)
	return f
}

func number(f []byte) uint32 { return binary.BigEndian.Uint32(f[14:]) }

// ours is the next of the suite's frames that the far end receives.
func ours(far Far) ([]byte, error) {
	p := make([]byte, netdev.MaxFrame)
	for {
		n, err := far.Receive(p)
		if err != nil {
			return nil, err
		}
		if n >= 18 && binary.BigEndian.Uint16(p[12:]) == etherType {
			return p[:n], nil
		}
	}
}

// receive is the next of the suite's frames that the port receives, with its header.
func receive(port netdev.Port) ([]byte, error) {
	p := make([]byte, netdev.MaxFrame)
	for {
		n, err := port.Receive(p)
		if err != nil {
			return nil, err
		}
		if n >= netdev.HeaderSize+18 && binary.BigEndian.Uint16(p[netdev.HeaderSize+12:]) == etherType {
			return p[:n], nil
		}
	}
}

func bothWays(t *testing.T, open Open) {
	port, far := open(t)
	for i, n := range []int{60, 61, 64, 128, 577, 1000, 1513, 1514} {
		out := numbered(away, near, uint32(i), n)
		if err := port.Send([][]byte{WithHeader(out)}); err != nil {
			t.Fatal(err)
		}
		got, err := ours(far)
		if err != nil || !bytes.Equal(got, out) {
			t.Fatalf("%d bytes sent: %d bytes came, %v", n, len(got), err)
		}
		in := numbered(near, away, uint32(i), n)
		if err := far.Send(in); err != nil {
			t.Fatal(err)
		}
		got, err = receive(port)
		if err != nil || !bytes.Equal(got, WithHeader(in)) {
			t.Fatalf("%d bytes to receive: %d bytes came, %v\n% x", n, len(got), err, got[:min(len(got), 40)])
		}
	}
}

func inPieces(t *testing.T, open Open) {
	port, far := open(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		f := numbered(away, near, uint32(i), 1514)
		whole := WithHeader(f)
		var pieces [][]byte
		for most := []int{1, 5, 13, 700}[i%4]; len(whole) > 0; {
			n := min(1+r.IntN(most), len(whole))
			pieces, whole = append(pieces, whole[:n]), whole[n:]
			if r.IntN(4) == 0 {
				pieces = append(pieces, nil)
			}
		}
		if err := port.Send(pieces); err != nil {
			t.Fatal(err)
		}
		if got, err := ours(far); err != nil || !bytes.Equal(got, f) {
			t.Fatalf("%d pieces: %d bytes came, %v", len(pieces), len(got), err)
		}
	}
}

// noFrame sends what is too short, and then a frame, which comes.
func noFrame(t *testing.T, open Open) {
	port, far := open(t)
	for n := range netdev.HeaderSize + 14 {
		if err := port.Send([][]byte{make([]byte, n)}); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	if err := port.Send(nil); err != nil {
		t.Fatal(err)
	}
	f := numbered(away, near, 7, 60)
	if err := port.Send([][]byte{WithHeader(f)}); err != nil {
		t.Fatal(err)
	}
	if got, err := ours(far); err != nil || !bytes.Equal(got, f) {
		t.Fatalf("%d bytes came, %v", len(got), err)
	}
}

// atOnce has four senders, a receiver and the far end at work. A network may lose frames;
// it changes none, and does not swap those of one sender.
func atOnce(t *testing.T, open Open) {
	const senders, each, last = 4, 200, 1 << 30
	port, far := open(t)
	var senderWait, wait sync.WaitGroup
	done := make(chan struct{})
	for s := range uint32(senders) {
		senderWait.Go(func() {
			for i := range uint32(each) {
				if err := port.Send([][]byte{WithHeader(numbered(away, near, s<<16|i, 60+int(i)*7))}); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Microsecond)
			}
		})
	}
	wait.Go(func() {
		senderWait.Wait()
		untilDone(done, func() { _ = port.Send([][]byte{WithHeader(numbered(away, near, last, 60))}) })
	})
	heard := make(chan struct{})
	wait.Go(func() {
		for i := range uint32(each) {
			if err := far.Send(numbered(near, away, i, 60+int(i)*7)); err != nil {
				t.Error(err)
			}
		}
		untilDone(heard, func() { _ = far.Send(numbered(near, away, last, 60)) })
	})
	wait.Go(func() {
		defer close(heard)
		for {
			got, err := receive(port)
			if err != nil {
				t.Error(err)
				return
			}
			i := number(got[netdev.HeaderSize:])
			if i == last {
				return
			}
			if !bytes.Equal(got, WithHeader(numbered(near, away, i, 60+int(i)*7))) {
				t.Errorf("frame %d is another one", i)
			}
		}
	})
	checkSenders(t, far, senders, last)
	close(done)
	wait.Wait()
}

// untilDone does f now and then until done is closed.
func untilDone(done <-chan struct{}, f func()) {
	for {
		f()
		select {
		case <-done:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// checkSenders looks at what comes from the senders until one says that they are done.
func checkSenders(t *testing.T, far Far, senders int, last uint32) {
	before, came := make([]int, senders), 0
	for {
		got, err := ours(far)
		if err != nil {
			t.Error(err)
			return
		}
		if number(got) == last {
			break
		}
		came++
		s, i := int(number(got)>>16), int(number(got)&0xffff)
		if s >= senders || !bytes.Equal(got, numbered(away, near, number(got), 60+i*7)) {
			t.Errorf("frame 0x%x is another one", number(got))
			return
		}
		if i < before[s] {
			t.Errorf("sender %d: frame %d after %d", s, i, before[s])
		}
		before[s] = i
	}
	if came < senders*20 {
		t.Errorf("%d frames came", came)
	}
}

// floodUnread sends more than any cable holds while nobody takes it.
func floodUnread(t *testing.T, open Open) {
	port, _ := open(t)
	begun := time.Now()
	for i := range uint32(3000) {
		if err := port.Send([][]byte{WithHeader(numbered(away, near, i, 1514))}); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("3000 frames took %s", d)
	}
}

func closing(t *testing.T, open Open) {
	for _, wait := range []time.Duration{0, 20 * time.Millisecond} {
		port, _ := open(t)
		done := make(chan error)
		go func() {
			p := make([]byte, netdev.MaxFrame)
			for {
				if _, err := port.Receive(p); err != nil {
					done <- err
					return
				}
			}
		}()
		time.Sleep(wait)
		for range 2 {
			if err := port.Close(); err != nil {
				t.Error(err)
			}
		}
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatal("Receive goes on after Close")
		}
		if err := port.Send([][]byte{WithHeader(numbered(away, near, 0, 60))}); err == nil {
			t.Error("Send works after Close")
		}
		if _, err := port.Receive(make([]byte, netdev.MaxFrame)); err == nil {
			t.Error("Receive works after Close")
		}
	}
}

// beginPlain: without SetOffloads headers are zeros, and it may be called at any time.
func beginPlain(t *testing.T, open Open) {
	port, far := open(t)
	for i := range uint32(2) {
		if err := far.Send(numbered(near, away, i, 200)); err != nil {
			t.Fatal(err)
		}
		got, err := receive(port)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:netdev.HeaderSize], make([]byte, netdev.HeaderSize)) {
			t.Errorf("header %s", fmt.Sprintf("% x", got[:netdev.HeaderSize]))
		}
		if o, ok := port.(netdev.Offloader); ok {
			if err := o.SetOffloads(o.Offloads()); err != nil {
				t.Error(err)
			}
			if err := o.SetOffloads(netdev.Offloads{}); err != nil {
				t.Error(err)
			}
		}
	}
}
