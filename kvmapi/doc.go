// Package kvmapi is Linux's KVM interface, version 12, as x86 has it: ioctl numbers, constants and struct layouts, nothing else.
package kvmapi
