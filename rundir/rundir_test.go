package rundir

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/spec"
)

func create(t *testing.T, root, name string) *Dir {
	t.Helper()
	d, err := Create(root, name)
	if err != nil {
		t.Fatal(err)
	}
	m := spec.Default()
	m.Name = name
	if err := errors.Join(m.Complete(), d.WriteSpec(m)); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRunningVMsAreListed(t *testing.T) {
	root := filepath.Join(t.TempDir(), "berth")
	if list, err := List(root); err != nil || len(list) != 0 {
		t.Errorf("nothing there: %v, %v", list, err)
	}
	b, a := create(t, root, "b"), create(t, root, "a")
	list, err := List(root)
	if err != nil || len(list) != 2 || list[0].Name != "a" || list[1].PID != os.Getpid() || list[0].Spec.Name != "a" {
		t.Errorf("%+v, %v", list, err)
	}
	if _, err := Create(root, "a"); err == nil {
		t.Error("a VM of a name that runs was made again")
	}
	if err := errors.Join(a.Remove(), b.Remove()); err != nil {
		t.Error(err)
	}
	if _, err := Find(root, "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a VM that ended: %v", err)
	}
}

// The directory of a VM that died is not in the way, and goes.
func TestDeadVMsAreCleaned(t *testing.T) {
	root := filepath.Join(t.TempDir(), "berth")
	d := create(t, root, "dead")
	if err := os.WriteFile(d.Path("qmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = d.lock.Close() // as when the process ends
	again := create(t, root, "dead")
	if _, err := os.Stat(again.Path("qmp")); err == nil {
		t.Error("what the dead VM left is there")
	}
	_ = again.lock.Close()
	if list, err := List(root); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(root, "dead")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}

func TestNamesStayInTheRoot(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"", ".", "..", "../x", "a/b", ".hidden"} {
		if _, err := Find(root, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestRootMustBePrivate(t *testing.T) {
	root := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(root, "a"); err == nil {
		t.Error("a directory that all can write to was taken")
	}
}

func TestWaitForTheProcess(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	v := &VM{Name: "sleeper", PID: sleep.Process.Pid}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := v.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while it lives: %v", err)
	}
	_ = sleep.Process.Kill()
	if err := v.Wait(t.Context()); err != nil {
		t.Errorf("after its end: %v", err)
	}
	_ = sleep.Wait()
	if err := v.Wait(t.Context()); err != nil {
		t.Errorf("when it is gone: %v", err)
	}
}
