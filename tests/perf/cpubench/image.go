package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// programs are made from asm/.
var programs = []struct{ name, source, define string }{
	{"fork", "fork", ""}, {"syscalls", "syscalls", ""}, {"mmap", "mmap", ""}, {"pipe", "pipe", ""}, {"x87", "x87", ""},
	{"matmul-sse2", "matmul", ""}, {"matmul-avx2", "matmul", "AVX2"},
}

// debian are Debian's programs, which run with their libraries.
var debian = []string{"gzip", "xz", "perl"}

// makePrograms fills dir with everything that rows run; here is this package's folder.
func makePrograms(here, dir string) error {
	for _, p := range programs {
		object := filepath.Join(dir, p.name+".o")
		args := []string{"-f", "elf64", "-i", filepath.Join(here, "asm") + "/", "-o", object, filepath.Join(here, "asm", p.source+".asm")}
		if p.define != "" {
			args = append(args, "-D", p.define)
		}
		if err := command(exec.Command("nasm", args...)); err != nil {
			return err
		}
		if err := command(exec.Command("ld", "-o", filepath.Join(dir, p.name), object)); err != nil {
			return err
		}
		if err := os.Remove(object); err != nil {
			return err
		}
	}
	for name, arch := range map[string]string{"work": "amd64", "work386": "386"} {
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, name), "./work")
		build.Dir = here
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOAMD64=v1")
		if err := command(build); err != nil {
			return err
		}
	}
	for _, name := range append([]string{"busybox"}, debian...) {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%w: tests/guest/setup --test installs it", err)
		}
		if err := command(exec.Command("cp", "-L", path, filepath.Join(dir, name))); err != nil {
			return err
		}
	}
	if err := command(exec.Command("cp", filepath.Join(here, "script.pl"), dir)); err != nil {
		return err
	}
	text, err := exec.Command(filepath.Join(dir, "work"), "text", fmt.Sprint(textSize)).Output()
	if err != nil {
		return fmt.Errorf("work text: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "text"), text, 0o644)
}

// makeInitrd makes tests/guest's initrd with dir as /bench, and the rows in it.
func makeInitrd(here, dir, out string, chosen []row, scale float64) error {
	var lines strings.Builder
	for _, r := range chosen {
		fmt.Fprintf(&lines, "%s %s\n", r.id(), r.at(scale))
	}
	if err := os.WriteFile(filepath.Join(dir, "rows"), []byte(lines.String()), 0o644); err != nil {
		return err
	}
	args := []string{"-o", out, "-f", dir + ":/bench", "-f", filepath.Join(here, "guest.sh") + ":/scripts/cpubench"}
	libraries, err := libraries(dir)
	if err != nil {
		return err
	}
	for _, l := range libraries {
		args = append(args, "-f", l+":"+l)
	}
	return command(exec.Command(filepath.Join(here, "..", "..", "guest", "mkinitrd"), args...))
}

// libraries are the files that Debian's programs are linked with at run time.
func libraries(dir string) ([]string, error) {
	var all []string
	for _, name := range debian {
		out, err := exec.Command("ldd", filepath.Join(dir, name)).Output()
		if err != nil {
			return nil, fmt.Errorf("ldd %s: %w", name, err)
		}
		all = append(all, regexp.MustCompile(`/[^ ]*lib[^ ]*`).FindAllString(string(out), -1)...)
	}
	return all, nil
}

func command(c *exec.Cmd) error {
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", c, err, out)
	}
	return nil
}
