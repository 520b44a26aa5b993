package qcow2

import (
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

func TestConformance(t *testing.T) {
	for _, opts := range []string{"", "compat=0.10", "cluster_size=512", "extended_l2=on,cluster_size=16384", "lazy_refcounts=on", "preallocation=metadata"} {
		t.Run(testName(opts), func(t *testing.T) {
			blocktest.Run(t, func(t *testing.T) block.Disk {
				i, err := openImage(createInMemory(t, opts, blocktest.Size), block.OpenOptions{})
				if err != nil {
					t.Fatal(err)
				}
				return pool.New(i, pool.Options{Discard: true})
			})
		})
	}
}
