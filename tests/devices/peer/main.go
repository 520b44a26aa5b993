// Command peer is a guest's end of vsock connections in tests:
//
//	peer echo PORT        gives everybody back what they send
//	peer send PORT BYTES  sends bytes to the host's port, half-closes, and wants their SHA-256 back
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const host = 2

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("peer:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: peer echo PORT | send PORT BYTES")
	}
	port, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if args[0] == "echo" {
		return echo(fd, uint32(port))
	}
	n, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	return send(fd, uint32(port), n)
}

func echo(fd int, port uint32) error {
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}), unix.Listen(fd, 128)); err != nil {
		return err
	}
	for {
		c, _, err := unix.Accept(fd)
		if err != nil {
			return err
		}
		go func() {
			f := os.NewFile(uintptr(c), "connection")
			defer f.Close()
			_, _ = io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{f})
		}()
	}
}

func send(fd int, port uint32, n int64) error {
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: host, Port: port}); err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	sum := sha256.New()
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return err
	}
	defer random.Close()
	if _, err := io.Copy(struct{ io.Writer }{f}, io.TeeReader(io.LimitReader(random, n), sum)); err != nil {
		return err
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return err
	}
	answer, err := io.ReadAll(struct{ io.Reader }{f})
	if err != nil {
		return err
	}
	if want := hex.EncodeToString(sum.Sum(nil)); string(answer) != want {
		return fmt.Errorf("the host has got %q, not %s", answer, want)
	}
	return nil
}
