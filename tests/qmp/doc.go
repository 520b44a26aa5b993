// Package qmp holds the same QMP sessions with berth and with QEMU, and compares answers, events and schemas.
package qmp
