package main

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/spec"
)

const completionLong = `Print a script that makes a shell complete berth's command lines.

  bash   berth completion bash >/etc/bash_completion.d/berth
         (with the package bash-completion; for one user instead of all, to
         ~/.local/share/bash-completion/completions/berth)
  zsh    berth completion zsh >/usr/local/share/zsh/site-functions/_berth
  fish   berth completion fish >~/.config/fish/completions/berth.fish

It works in shells started after that. To try it in this one:
source <(berth completion bash)`

func completionCommand(stdout io.Writer) *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print a script that completes command lines in a shell",
		Long:      completionLong,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || !slices.Contains(shells, args[0]) {
				return errors.New("completion takes the name of a shell: bash, zsh or fish")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			switch args[0] {
			case "zsh":
				return c.Root().GenZshCompletion(stdout)
			case "fish":
				return c.Root().GenFishCompletion(stdout, true)
			}
			return bashScript(c.Root(), stdout)
		},
	}
}

// bashScript writes cobra's script, changed in one place: cobra escapes a comma
// that it completes, though to bash it is a character like any other, and then
// does not know the line for what it completed before.
func bashScript(root *cobra.Command, w io.Writer) error {
	const (
		completes = "        __berth_handle_completion_types\n"
		unescape  = "        COMPREPLY=(\"${COMPREPLY[@]//\\\\,/,}\")\n"
	)
	var script bytes.Buffer
	if err := root.GenBashCompletionV2(&script, true); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.Replace(script.String(), completes, completes+unescape, 1))
	return err
}

// completions say how the values of run's flags are completed. A flag that is
// not here takes a file's name.
func completions() map[string]cobra.CompletionFunc {
	words := func(path string) cobra.CompletionFunc {
		return cobra.FixedCompletions(spec.Words(path), cobra.ShellCompDirectiveNoFileComp)
	}
	about := map[string]string{} // of an alias, its newest
	for _, b := range spec.Boards() {
		about[b.Alias], about[b.Name] = b.About, b.About
	}
	var boards []string
	for name, line := range about {
		boards = append(boards, name+"\t"+line)
	}
	slices.Sort(boards)
	return map[string]cobra.CompletionFunc{
		"append":        cobra.NoFileCompletions,
		"name":          cobra.NoFileCompletions,
		"hotplug-slots": cobra.NoFileCompletions,
		"machine":       cobra.FixedCompletions(boards, cobra.ShellCompDirectiveNoFileComp),
		"accel":         words("accel"),
		"soft-engine":   words("softEngine"),
		"cpu":           words("cpu"),
		"decompress":    words("boot.decompress"),
		"pvpanic":       words("pvpanic"),
		"on-panic":      words("onPanic"),
		"dry-run":       cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp),
		"disk":          keyed(spec.Keys(spec.Disk{})),
		"nic":           keyed(spec.Keys(spec.NIC{})),
		"memory":        keyed(spec.Keys(spec.Memory{})),
		"cpus":          keyed(spec.Keys(spec.CPUs{})),
		"serial":        keyed(spec.Keys(spec.Char{})),
		"balloon":       keyed(spec.Keys(spec.Balloon{})),
		"vsock":         keyed(spec.Keys(spec.VSock{})),
		"cloud-init":    keyed(spec.Keys(spec.CloudInit{})),
		"qmp":           keyed(spec.Keys(spec.Control{})),
		"hmp":           keyed(spec.Keys(spec.Control{})),
		"gdb":           cobra.FixedCompletions([]string{"on", "unix:", "tcp:"}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace),
		"uuid":          cobra.NoFileCompletions,
		"console":       keyed(spec.Keys(spec.Char{})),
		"port":          keyed(spec.Keys(spec.Port{})),
		"numa":          completeNUMA,
	}
}

// completeRun tells c, which is berth run, how its arguments are completed.
func completeRun(c *cobra.Command) {
	for name, complete := range completions() {
		_ = c.RegisterFlagCompletionFunc(name, complete) // fails for flags that are not there: a test looks
	}
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	}
}

func completeNUMA(c *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	kind, rest, begun := strings.Cut(typed, ",")
	if !begun {
		return []string{"node,", "dist,"}, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
	var of any = spec.Node{}
	if kind == "dist" {
		of = spec.Distance{}
	}
	found, directive := keyed(spec.Keys(of))(c, args, rest)
	for i := range found {
		found[i] = kind + "," + found[i]
	}
	return found, directive
}

// keyed completes a value of KEY=VALUE parts with commas between them: the keys
// that are not there yet, and of the last key its words or files.
func keyed(keys []spec.Key) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before, last := "", typed
		if i := strings.LastIndexByte(typed, ','); i >= 0 {
			before, last = typed[:i+1], typed[i+1:]
		}
		var found []string
		name, value, valued := strings.Cut(last, "=")
		for _, k := range keys {
			switch {
			case valued && k.Name == name:
				found = append(found, valuesOf(k, value)...)
			case !valued && before == "" && k.Implied && len(k.Words) > 0:
				found = append(found, k.Words...)
			case !valued && !given(before, k):
				found = appendKey(found, k.Name, last)
			}
		}
		for i := range found {
			if valued {
				found[i] = name + "=" + found[i]
			}
			found[i] = before + found[i]
		}
		return found, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
	}
}

// appendKey adds a key, and of throttling.iops-total only the part before the
// period until that is typed.
func appendKey(found []string, name, typed string) []string {
	if i := strings.IndexByte(name, '.') + 1; i > 0 && !strings.HasPrefix(typed, name[:i]) {
		if slices.Contains(found, name[:i]) {
			return found
		}
		return append(found, name[:i])
	}
	return append(found, name+"=")
}

// given reports whether the parts before, each with a comma after it, have a
// value for k.
func given(before string, k spec.Key) bool {
	first, _, _ := strings.Cut(before, ",")
	return strings.Contains(","+before, ","+k.Name+"=") || k.Implied && first != "" && !strings.Contains(first, "=")
}

// valuesOf are the values that begin as typed does: k's words, or the names of
// files, of folders with a slash after them.
func valuesOf(k spec.Key, typed string) []string {
	if !k.Path {
		return k.Words
	}
	dir, base := filepath.Split(typed)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil // there is nothing to complete to
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, base) || strings.HasPrefix(name, ".") && base == "" || strings.ContainsRune(name, ',') {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.IsDir() {
			name += "/"
		}
		found = append(found, dir+name)
	}
	return found
}
