package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/rundir"
	"berth/spec"
)

const sshLong = `Log in to a running VM, or run a command there, with the host's ssh.

The way in leads through the VM's first network card of type user: by a forward
to the guest's port 22 that it has (--nic user,hostfwd=tcp:127.0.0.1:2222-:22),
or by one that is made for as long as ssh runs. What follows the VM's name is ssh's.

If the VM has --cloud-init …,ssh-key=FILE.pub, ssh is given FILE. The guest's own
key is taken as it is the first time, and kept as long as the VM runs.`

// sshCommand runs ssh to a VM.
func sshCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "ssh [USER@]VM [COMMAND…]", Short: "Log in to a running VM, or run a command there", Long: sshLong,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("ssh takes the name of a running VM: berth ps lists them")
			}
			return nil
		},
		ValidArgsFunction: completeVM,
		RunE: func(c *cobra.Command, args []string) error {
			name := args[0]
			if at := strings.LastIndexByte(name, '@'); at >= 0 {
				user, name = name[:at], name[at+1:]
			}
			v, err := rundir.Find(rundir.Root(), name)
			if err != nil {
				return err
			}
			w, err := wayIn(c.Context(), v)
			if err != nil {
				return err
			}
			defer w.close()
			cmd := exec.Command("ssh", sshArguments(v, w, user, args[1:])...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
			err = cmd.Run()
			var status *exec.ExitError
			if errors.As(err, &status) {
				return &exitError{status: max(status.ExitCode(), statusUsage)}
			}
			return err
		},
	}
	c.Flags().StringVarP(&user, "login", "l", "", "`USER` in the guest")
	c.Flags().SetInterspersed(false)
	return c
}

// sshArguments are ssh's for a VM.
func sshArguments(v *rundir.VM, w *way, user string, rest []string) []string {
	args := []string{
		"-o", "HostKeyAlias=" + v.Name, "-o", "UserKnownHostsFile=" + v.Path("known_hosts"), "-o", "StrictHostKeyChecking=accept-new",
		"-o", "LogLevel=ERROR", "-p", w.port,
	}
	if private, ok := strings.CutSuffix(v.Spec.CloudInit.SSHKey, ".pub"); ok {
		if _, err := os.Stat(private); err == nil {
			args = append(args, "-i", private)
		}
	}
	if user != "" {
		args = append(args, "-l", user)
	}
	return append(append(args, w.host), rest...)
}

const sshPort = 22

// way is an address of the host that leads to that port of a guest.
type way struct {
	host, port string
	close      func()
}

// wayIn finds or makes the way in to a VM.
func wayIn(ctx context.Context, v *rundir.VM) (*way, error) {
	var card string
	for _, n := range v.Spec.NICs {
		if n.Type != "user" {
			continue
		}
		if w := forwarded(n); w != nil {
			return w, nil
		}
		card = cmp.Or(card, n.ID)
	}
	if card == "" {
		return nil, fmt.Errorf("%s has no network card of type user, which berth ssh goes through: log in at its own address", v.Name)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, err
	}
	at := fmt.Sprintf("%s tcp:%s:%s", card, host, port)
	if err := tell(ctx, v, "hostfwd_add "+at+"-:22"); err != nil {
		return nil, err
	}
	return &way{host, port, func() { _ = tell(ctx, v, "hostfwd_remove "+at) }}, nil
}

// forwarded is the way in that a network card has from the start, or nil.
func forwarded(n spec.NIC) *way {
	for _, text := range n.HostFwd {
		f, err := spec.ParseHostForward(text)
		if err != nil || f.Proto != "tcp" || f.Unix != "" || f.Guest.Port() != sshPort || f.Addr.Port() == 0 {
			continue
		}
		host := "127.0.0.1"
		if a := f.Addr.Addr(); a.IsValid() && !a.IsUnspecified() {
			host = a.String()
		}
		return &way{host, strconv.Itoa(int(f.Addr.Port())), func() {}}
	}
	return nil
}

// tell runs a command of the human monitor that says nothing if all is well.
func tell(ctx context.Context, v *rundir.VM, line string) error {
	var said string
	if err := ask(ctx, v, "human-monitor-command", map[string]any{"command-line": line}, &said); err != nil {
		return err
	}
	if said = strings.TrimSpace(said); said != "" {
		return fmt.Errorf("%s: %s: %s", v.Name, line, said)
	}
	return nil
}
