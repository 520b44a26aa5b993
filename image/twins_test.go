package image

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

var (
	twinSeed  = flag.Uint64("twins.seed", 1, "seed of the first random script")
	twinCases = flag.Int("twins.cases", 6, "random scripts of copying commands")
)

// TestRandomTwins runs random copying commands on random images, with this
// package and with the real tool, in twin directories. Every command says the
// same and ends in the same way, and everything that is left reads the same.
func TestRandomTwins(t *testing.T) {
	peer, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Fatalf("%v: tests/guest/setup --test installs the package qemu-utils", err)
	}
	for i := range *twinCases {
		seed := *twinSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 65))
			ours, theirs := newTwin(t, "ours", ""), newTwin(t, "theirs", peer)
			var done []string
			for _, line := range randomScript(r) {
				done = append(done, line)
				got, want := ours.run(line), theirs.run(line)
				if got != want && !strings.HasPrefix(line, "qemu-io") {
					t.Fatalf("%s\n--- qemu-img\n%s--- ours\n%s", strings.Join(done, "\n"), want, got)
				}
			}
			compareTwins(t, ours, theirs, peer)
			for _, w := range []twin{ours, theirs} {
				if said := w.run("for i in *.qcow2; do " + peer + " check -q $i || echo $i; done"); strings.Contains(said, "qcow2") {
					t.Errorf("%s\ncheck in %s: %s", strings.Join(done, "\n"), w.dir, said)
				}
			}
		})
	}
}

// pick returns one of the words.
func pick(r *rand.Rand, words ...string) string { return words[r.IntN(len(words))] }

// randomScript makes a chain of three images with random contents, copies of
// it in many ways, and then commits and rebases.
func randomScript(r *rand.Rand) []string {
	options := func() string {
		o := "cluster_size=" + pick(r, "512", "4k", "64k", "64k", "2M")
		if r.IntN(4) == 0 && !strings.HasSuffix(o, "512") && !strings.HasSuffix(o, "4k") {
			o += ",extended_l2=on"
		} else if r.IntN(5) == 0 {
			o += ",compat=0.10"
		}
		return o
	}
	size := func() int { return (1 + r.IntN(12*2048)) * 512 }
	sizes := [3]int{size(), size(), size()}
	lines := []string{fmt.Sprintf("qemu-img create -q -f qcow2 -o %s base.qcow2 %d", options(), sizes[0])}
	lines = append(lines, writes(r, "base.qcow2", sizes[0])...)
	for i, name := range []string{"mid", "top"} {
		under := []string{"base", "mid"}[i]
		lines = append(lines, fmt.Sprintf("qemu-img create -q -f qcow2 -o %s -b %s.qcow2 -F qcow2 %s.qcow2 %d", options(), under, name, sizes[i+1]))
		lines = append(lines, writes(r, name+".qcow2", sizes[i+1])...)
	}
	lines = append(lines, "qemu-img convert -f qcow2 -O raw top.qcow2 before.raw")
	for i := range 6 {
		lines = append(lines, randomConvert(r, i, options), "qemu-img compare before.raw copy"+fmt.Sprint(i))
	}
	lines = append(lines,
		fmt.Sprintf("qemu-img dd -f qcow2 -O %s bs=%d skip=%d count=%d if=top.qcow2 of=dd", pick(r, "raw", "qcow2"), 1+r.IntN(200000), r.IntN(20), r.IntN(100)),
		"qemu-img compare "+pick(r, "", "-s", "-q")+" top.qcow2 mid.qcow2",
		"qemu-img compare "+pick(r, "", "-s", "-q")+" base.qcow2 mid.qcow2")
	lines = append(lines, chainEnd(r)...)
	return append(lines, "qemu-img compare before.raw top.qcow2")
}

// chainEnd is what becomes of the chain.
func chainEnd(r *rand.Rand) []string {
	switch r.IntN(5) {
	case 0:
		return []string{"qemu-img commit top.qcow2", "qemu-img commit -d mid.qcow2", "qemu-img compare before.raw base.qcow2"}
	case 1:
		return []string{"qemu-img commit -b base.qcow2 top.qcow2", "qemu-img compare before.raw base.qcow2"}
	case 2:
		return []string{"qemu-img rebase -b base.qcow2 -F qcow2 top.qcow2"}
	case 3:
		return []string{`qemu-img rebase -b "" top.qcow2`, "rm -f mid.qcow2 base.qcow2 copy*"}
	}
	return []string{"qemu-img convert -O qcow2 base.qcow2 other.qcow2", "qemu-io -f qcow2 -c 'write -P 99 0 512' other.qcow2",
		"qemu-img rebase -b other.qcow2 -F qcow2 top.qcow2", "rm -f mid.qcow2 base.qcow2 copy*"}
}

// randomConvert copies top.qcow2 to the i'th copy.
func randomConvert(r *rand.Rand, i int, options func() string) string {
	line := "qemu-img convert -f qcow2 " + pick(r, "", "-W", "-q", "-m 1", "-m 16", "-C", "-U") + " "
	if !strings.Contains(line, "-C") {
		line += pick(r, "", "-S 0", "-S 512", "-S 64k", "-S 1M") + " "
	}
	switch r.IntN(4) {
	case 0:
		return line + fmt.Sprintf("-O raw top.qcow2 copy%d", i)
	case 1:
		if !strings.Contains(line, "-C") {
			line += "-c "
		}
		return line + fmt.Sprintf("-O qcow2 -o %s,compression_type=%s top.qcow2 copy%d", strings.ReplaceAll(options(), ",compat=0.10", ""), pick(r, "zlib", "zstd"), i)
	case 2:
		return line + fmt.Sprintf("-O qcow2 -o %s -B mid.qcow2 -F qcow2 top.qcow2 copy%d", options(), i)
	}
	return line + fmt.Sprintf("-O qcow2 -o %s top.qcow2 copy%d", options(), i)
}

// writes fills an image at random, with data, zeros and discards.
func writes(r *rand.Rand, name string, size int) []string {
	var commands []string
	for range r.IntN(12) {
		off := r.IntN(size) / 512 * 512
		n := min(size-off, (1+r.IntN(1<<r.IntN(12)))*512)
		command := fmt.Sprintf("%s %d %d", pick(r, "write -z", "write -z -u", "discard", "write"), off, n)
		if strings.HasPrefix(command, "write ") && !strings.HasPrefix(command, "write -z") {
			command = fmt.Sprintf("write -P %d %d %d", r.IntN(4), off, n)
		}
		commands = append(commands, "-c '"+command+"'")
	}
	if len(commands) == 0 {
		return nil
	}
	return []string{"qemu-io -f qcow2 " + strings.Join(commands, " ") + " " + name}
}
