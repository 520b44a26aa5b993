package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// TestRefcountTableGrows fills an image whose refcount table has to become
// larger several times, whole, with each of many writes failing, and cut off.
func TestRefcountTableGrows(t *testing.T) {
	needQEMU(t)
	const opts, size, part = "cluster_size=512,refcount_bits=64", 6 << 20, 96 << 10
	before := createInMemory(t, opts, size)
	fill := func(f block.File) ([]byte, error) {
		i, err := openImage(f, block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		var all error
		for off := 0; off < size; off += part {
			p := want[off:min(off+part, size)]
			for k := range p {
				p[k] = byte(off>>16) + byte(k>>9) + 1
			}
			all = errors.Join(all, i.Writev([][]byte{p}, int64(off), 0))
			if off/part%5 == 0 {
				all = errors.Join(all, i.Flush())
			}
		}
		return want, errors.Join(all, i.inactivate())
	}
	log := &blocktest.Log{}
	m := before.Clone()
	want, err := fill(log.Record("image", m))
	if err != nil {
		t.Fatal(err)
	}
	leaksAtMost(t, m, "whole")
	i, err := openImage(m, block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := i.Readv([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("what is read differs: %v", err)
	}
	if i.hdr.reftableClus < 3 {
		t.Fatalf("the refcount table has %d clusters: it has not grown", i.hdr.reftableClus)
	}
	r := rand.New(rand.NewPCG(6, 6))
	events := log.Events()
	for range 25 {
		cut := blocktest.RandomCut(r, len(events))
		m, err := cut.Apply(r, before, "image", events)
		if err != nil {
			t.Fatal(err)
		}
		leaksAtMost(t, m, fmt.Sprintf("cut %+v", cut))
	}
	for at := 0; at < len(events); at += 1 + len(events)/40 {
		n, m := 0, before.Clone()
		_, _ = fill(&blocktest.FaultyFile{File: m, Fail: func(blocktest.Event) error {
			if n++; n == at+1 || at%2 == 0 && n > at {
				return errors.New("injected")
			}
			return nil
		}})
		leaksAtMost(t, m, fmt.Sprintf("failure %d", at))
	}
}
