// Package gdb has Debian's gdb debug guests: a small kernel of its own with symbols, and Debian's.
package gdb
