// Package image runs disk images through berth and QEMU's tools side by side.
package image
