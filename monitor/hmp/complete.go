package hmp

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Complete returns what the last word of a line may become: names of commands, of
// files of the host where a file is expected, and what else an argument's Values say.
func (i *Interpreter) Complete(line string) (word string, candidates []string) {
	at := strings.LastIndexAny(line, spaces) + 1
	word = line[at:]
	words := strings.Fields(line[:at])
	list := i.Commands
	for len(words) > 0 {
		name, _, _ := strings.Cut(words[0], "/")
		command := find(list, name)
		switch {
		case command == nil:
			return word, nil
		case command.is("help"):
			words = words[1:]
			continue // what follows is a command again
		case command.Sub == nil:
			return word, command.complete(words[1:], word)
		}
		list, words = command.Sub, words[1:]
	}
	for _, c := range list {
		for name := range strings.SplitSeq(c.Name, "|") {
			candidates = append(candidates, name)
		}
	}
	return word, starting(candidates, word)
}

func starting(list []string, prefix string) []string {
	list = slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(s, prefix) })
	slices.Sort(list)
	return slices.Compact(list)
}

// complete is about the argument that follows words.
func (c *Command) complete(words []string, word string) []string {
	n := 0
	for _, w := range words {
		if !strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "/") {
			n++
		}
	}
	for _, a := range c.Args {
		if a.Kind == Flag || a.Kind == Format || a.AfterDot {
			continue
		}
		if n--; n >= 0 {
			continue
		}
		switch {
		case a.Values != nil:
			return starting(a.Values(), word)
		case a.Kind == Switch:
			return starting([]string{"on", "off"}, word)
		case a.Kind == File:
			return files(word)
		}
		return nil
	}
	return nil
}

func files(prefix string) (list []string) {
	found, _ := filepath.Glob(quoteGlob(prefix) + "*")
	for _, f := range found {
		if info, err := os.Stat(f); err == nil && info.IsDir() {
			f += "/"
		}
		list = append(list, f)
	}
	return list
}

func quoteGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

// common is what all candidates begin with.
func common(candidates []string) string {
	prefix := candidates[0]
	for _, c := range candidates[1:] {
		for !strings.HasPrefix(c, prefix) {
			prefix = prefix[:len(prefix)-1]
		}
	}
	return prefix
}
