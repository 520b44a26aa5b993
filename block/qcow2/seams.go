package qcow2

import "berth/block"

// What follows belongs to the check, snapshot, bitmap, amend and measure files.

type bitmapState struct{}

func (i *Image) loadBitmaps() error            { return nil }
func (i *Image) closeBitmaps() error           { return nil }
func (i *Image) bitmapFields() [][]block.Field { return nil }
func (i *Image) noteDirty(off, n int64) error  { return nil }
func (i *Image) resizableBitmaps() error       { return nil } // whether the image may be resized
func (i *Image) fitBitmaps()                   {}
func (i *Image) allDirty()                     {}

func amendFunc() func(block.Image, block.Values, func(done, total int64)) error { return nil }
func amendOptions() []block.Option                                              { return nil }
func measureFunc() func(block.Values, block.Image) (block.Measurement, error)   { return nil }
