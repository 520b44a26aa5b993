package image

import (
	"slices"
	"strings"
)

// Complete returns what typed, the word after args, may become, and whether
// that is also the name of a file. It is for shells.
func Complete(args []string, typed string) (words []string, files bool) {
	c := &call{}
	if len(args) == 0 {
		for _, cmd := range commands() {
			words = append(words, cmd.name)
		}
		return begun(append(words, "--help", "--version"), typed), false
	}
	for _, cmd := range commands() {
		if cmd.name == args[0] && strings.HasPrefix(typed, "-") {
			return begun(optionNames(cmd.make().options(c)), typed), false
		}
	}
	return completeValue(args[len(args)-1])
}

func begun(words []string, typed string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return !strings.HasPrefix(w, typed) })
}

func optionNames(options []option) []string {
	names := []string{"--help"}
	for _, o := range options {
		if o.long != "" {
			names = append(names, "--"+o.long)
		} else {
			names = append(names, "-"+string(o.short))
		}
	}
	return names
}

// completeValue completes the value of the option that is the word before.
func completeValue(option string) (words []string, files bool) {
	switch option {
	case "-f", "-F", "-O", "--format":
		return []string{"qcow2", "raw", "vdi", "vhdx", "vmdk", "vpc"}, false
	case "-t", "-T":
		return []string{"directsync", "none", "unsafe", "writeback", "writethrough"}, false
	case "--output":
		return []string{"human", "json"}, false
	case "-r":
		return []string{"all", "leaks"}, false
	case "--preallocation":
		return []string{"falloc", "full", "metadata", "off"}, false
	}
	return nil, true
}
