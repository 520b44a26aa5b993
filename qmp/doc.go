// Package qmp is QEMU's machine protocol: its wire form, tables of commands and events, sessions of a server, and a client.
package qmp
